"""A trained run made smaller: run directories like any other, a certificate, and what is refused."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor

import seg
from seg.benchmark import measure
from seg.benchmark.memory import Peaks
from seg.compression import certificate, comparing, search
from seg.compression import compress as compress_module
from seg.compression.compress import compress
from seg.compression.speed import ROUNDS, Latency
from seg.compression.target import Target, read_target
from seg.config import ExperimentConfig
from seg.errors import ConfigError, Problem, RunError, SegError
from seg.evaluation.scores import read_cases
from seg.files import file_digest, locked
from seg.hardware import code_version
from seg.inference.exported import read_export, record_path
from seg.networks.complexity import complexity, map_elements
from seg.runs import TrainedRun, read_run, save_weights
from seg.workflows.train import train
from tests.costs import checked_complexity
from tests.integration.conftest import name_patients, tell_costs, write_patients
from tests.problems import refused

pytestmark = pytest.mark.usefixtures("exports_kept")


@pytest.fixture(scope="module")
def trained(tiny: ExperimentConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("compress") / "run"
    train(tiny, run_dir=run_dir, folds=[0])
    return run_dir


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.fixture(scope="module")
def trained_folds(tiny: ExperimentConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("compress") / "folds"
    train(tiny, run_dir=root, folds=None)
    return root


@pytest.fixture
def folds(trained_folds: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained_folds, tmp_path / "folds"))


@pytest.fixture
def measured() -> None:
    """Has time and memory of networks measured and scored cases drawn, which takes seconds."""


@pytest.fixture(autouse=True)
def known(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tells time and memory of networks to tests that do not ask for `measured`, and draws nothing for them."""
    if "measured" not in request.fixturenames:
        tell_costs(monkeypatch)
        request.getfixturevalue("undrawn")


@contextmanager
def changed_weights(run_dir: Path) -> Iterator[dict[str, Tensor]]:
    """Gives the weights of a run by name, and saves them as they are left."""
    run = read_run(run_dir)
    network = run.network()
    yield network.state_dict()
    path = save_weights(network, run_dir, channel_names=run.channel_names, class_names=run.class_names)
    card = run_dir / "model.json"
    card.write_text(json.dumps(content(card) | {"weights_sha256": file_digest(path).hex()}))


def content(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.usefixtures("measured")
def test_steps_are_run_directories_of_the_size_that_is_said(
    run: Path, tiny: ExperimentConfig, tiny_root: Path, tmp_path: Path, script: Callable[..., Any]
) -> None:
    before = files(run)
    options = ("--target", "macs=0.7,0.9", "--cases", 3, "--tune_steps", 0)
    ended = script("compress", "--run_dir", run, "--output", tmp_path / "small", *options)
    assert ended.code == 0
    said = ended.err.splitlines()
    assert len([line for line in said if "device:" in line]) == 1
    assert len(said) < ROUNDS  # the rounds in which latencies are measured have no lines
    record = content(tmp_path / "small" / "compression.json")
    whole = checked_complexity(1, 3, tiny.network, shape=tiny.patches.size)
    (original,) = record["originals"]
    assert (original["macs"], original["parameters"]) == (whole.macs, whole.parameters)
    assert [step["name"] for step in record["steps"]] == ["macs_0.9", "macs_0.7"]
    for step in record["steps"]:
        small = seg.load_run(tmp_path / "small" / step["name"])
        cost = checked_complexity(1, 3, small.config.network, shape=tiny.patches.size)
        (made,) = step["folds"]
        assert (made["macs"], made["parameters"]) == (cost.macs, cost.parameters)
        assert made["macs"] <= float(step["name"].removeprefix("macs_")) * whole.macs
        assert made["parameters"] == sum(parameter.numel() for parameter in small.network.parameters())
        assert replace(small.config, network=tiny.network) == replace(tiny, fold=0)
    output = seg.predict(tmp_path / "small" / "macs_0.7", tiny_root / "imagesTr", tmp_path / "labels")
    assert len(list(output.glob("*.nii.gz"))) == 6
    changed = {path for path, value in files(run).items() if before.get(path) != value}
    assert {path.name for path in changed} <= {"certificate_ledger.json", "certificate_ledger.json.lock"}


def test_with_too_few_patients_the_first_step_is_scored_and_the_second_is_not(run: Path, tmp_path: Path) -> None:
    found = seg.compress(run, tmp_path / "small", target="macs=0.9,0.7", cases=3, tune_steps=0)
    assert [step.verdict for step in found.steps] == ["too few", "not tested"]
    assert (found.certified, found.look, found.exploratory) == (None, 1, False)
    assert content(tmp_path / "small" / "certificate.json")["steps"][0]["step"]["name"] == "macs_0.9"
    assert (tmp_path / "small" / "macs_0.9" / "evaluation.json").is_file()
    assert not (tmp_path / "small" / "macs_0.7" / "evaluation.json").exists()
    seg.evaluate(tmp_path / "small" / "macs_0.7")
    again = seg.compress(run, tmp_path / "again", target="macs=0.8", cases=3, tune_steps=0)
    assert (again.look, again.exploratory) == (2, True)


def test_patients_whom_weights_before_saw_certify_nothing(run: Path, tmp_path: Path) -> None:
    record = content(run / "environment.json")
    case = record["split"]["validation"][0]
    (run / "environment.json").write_text(json.dumps(record | {"seen": {case: record["data"][case]}}))
    with refused((str(run), "seen"), error=RunError):
        seg.compress(run, tmp_path / "small", target="macs=0.9", cases=3, tune_steps=0)
    assert not (run / "certificate_ledger.json").exists()


def test_scores_of_other_patients_are_made_anew(
    short: ExperimentConfig, write_dataset: Callable[[Path], Path], tmp_path: Path
) -> None:
    root = write_dataset(tmp_path / "data")
    run_dir = tmp_path / "run"
    train(replace(short, data=replace(short.data, root=str(root))), run_dir=run_dir, folds=[0])
    name_patients(root, run_dir)
    found = seg.compress(run_dir, tmp_path / "small", target="macs=0.9", cases=2, tune_steps=0)
    assert {one.patients for one in found.steps[0].classes} == {2}  # of three cases


def test_patients_on_both_sides_of_a_run_certify_nothing(
    short: ExperimentConfig, write_dataset: Callable[[Path], Path], tmp_path: Path
) -> None:
    root, run_dir = write_dataset(tmp_path / "data"), tmp_path / "run"
    train(replace(short, data=replace(short.data, root=str(root))), run_dir=run_dir, folds=[0])
    split = content(run_dir / "environment.json")["split"]
    both = [split["train"][0], split["validation"][0]]
    names = {case: "one" if case in both else case for case in (*split["train"], *split["validation"])}
    write_patients(root, names)
    for work in (partial(seg.compress, target="macs=0.9", cases=2, tune_steps=0), partial(seg.certify, run_dir)):
        with refused((str(run_dir), "seen", "one"), error=RunError):
            work(run_dir, tmp_path / "out")
    assert not (run_dir / "certificate_ledger.json").exists()


def test_a_table_of_patients_that_stated_folds_contradict_certifies_nothing(
    short: ExperimentConfig, write_dataset: Callable[[Path], Path], tmp_path: Path
) -> None:
    root, run_dir = write_dataset(tmp_path / "data"), tmp_path / "run"
    train(replace(short, data=replace(short.data, root=str(root))), run_dir=run_dir, folds=[0])
    split = content(run_dir / "environment.json")["split"]
    train_cases, held_out = split["train"], split["validation"]
    # Fold 0 keeps patients apart; a fold that is not compressed does not, and every case counts as a patient.
    other = {"train": train_cases[1:] + held_out, "val": train_cases[:1]}
    (root / "splits_final.json").write_text(json.dumps([{"train": train_cases, "val": held_out}, other]))
    write_patients(root, {case: "one" if case in train_cases[:2] else case for case in (*train_cases, *held_out)})
    for work in (partial(seg.compress, target="macs=0.9", cases=2, tune_steps=0), partial(seg.certify, run_dir)):
        with refused((str(root / "patients.csv"), "patients", "one"), error=RunError):
            work(run_dir, tmp_path / "out")
    assert not (run_dir / "certificate_ledger.json").exists()


def test_patients_whom_two_folds_hold_out_certify_nothing(
    short: ExperimentConfig, write_dataset: Callable[[Path], Path], tmp_path: Path
) -> None:
    root, folds = write_dataset(tmp_path / "data"), tmp_path / "folds"
    train(replace(short, data=replace(short.data, root=str(root))), run_dir=folds, folds=None)
    held_out = [content(folds / f"fold_{fold}" / "environment.json")["split"]["validation"] for fold in (0, 1)]
    names = {case: f"{place}" for cases in held_out for place, case in enumerate(cases)}
    write_patients(root, names)
    with pytest.raises(RunError) as caught:
        seg.compress(folds, tmp_path / "out", target="macs=0.9", cases=2, tune_steps=0)
    found = {(problem.path, problem.kind) for problem in caught.value.problems}
    assert (str(folds / "fold_1"), "twice") in found
    assert {kind for _, kind in found} == {"seen", "twice"}


def test_steps_that_pass_are_certified(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificate, "LEAST_PATIENTS", 2)
    found = seg.compress(run, tmp_path / "small", target="macs=0.9,0.7", margin=0.99, cases=3, tune_steps=0)
    assert found.certified == "macs_0.7"
    assert [step.verdict for step in found.steps] == ["not inferior"] * 2


def test_the_widths_of_a_step_are_trained_from_scratch_and_from_its_weights(run: Path, tmp_path: Path) -> None:
    seg.compress(run, tmp_path / "small", target="macs=0.7", cases=2, tune_steps=0)
    small = tmp_path / "small" / "macs_0.7"
    for name, source in (("scratch", None), ("on", str(small))):
        again = seg.train(small / "config.yaml", run_dir=tmp_path / name, training__init_from=source)
        assert seg.load_run(again).config.network == seg.load_run(small).config.network
    assert seg.load_run(tmp_path / "scratch").config.network.widths is not None


def test_a_step_is_exported_and_timed_like_any_run(
    run: Path, tiny_root: Path, tmp_path: Path, script: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "measure_peaks", lambda *_: Peaks(inference_mib=1.0, training_mib=1.0))
    seg.compress(run, tmp_path / "small", target="macs=0.7", cases=2, tune_steps=0)
    small = tmp_path / "small" / "macs_0.7"
    scans = tiny_root / "imagesTr"
    packed = seg.export(small, tmp_path / "small.zip", format="zip")
    folders = [seg.predict(source, scans, tmp_path / name) for source, name in ((small, "run"), (packed, "packed"))]
    found = [{path.name: path.read_bytes() for path in folder.glob("*.nii.gz")} for folder in folders]
    assert len(found[0]) == 6
    assert found[0] == found[1]
    times = tmp_path / "times.json"
    options = ("--rounds", 3, "--warmup", 1, "--cases", 0, "--device", "cpu", "--output", times)
    assert script("benchmark", "--run_dir", run, small, *options).code == 0
    (device,) = content(times)["devices"]
    whole, smaller = device["variants"]
    count = sum(parameter.numel() for parameter in seg.load_run(small).network.parameters())
    assert smaller["parameters"] == count < whole["parameters"]


def test_tuning_is_recorded_and_never_leads_further_away(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "TUNE_BELOW", -1e9)  # whatever a step lost
    for steps in (0, 30):
        seg.compress(run, tmp_path / f"{steps}", target="macs=0.7", cases=2, tune_steps=steps)
    (cut,), (tuned,) = (content(tmp_path / f"{steps}" / "compression.json")["steps"][0]["folds"] for steps in (0, 30))
    assert (cut["tuned_steps"], cut["parameters"]) == (0, tuned["parameters"])
    assert tuned["tuned_steps"] in (0, 25, 30)
    assert tuned["measured_divergence"] <= cut["measured_divergence"]
    assert (tuned["measured_divergence"] == cut["measured_divergence"]) == (tuned["tuned_steps"] == 0)


@pytest.mark.parametrize(
    ("lost", "made", "frozen"),
    [((0.0, -0.1, -0.14), 3, 3), ((0.0, -0.16, 0.0), 2, 1), ((-0.16, 0.0, 0.0), 1, 1)],
)
def test_without_a_target_steps_end_where_held_back_patients_lose_half_the_margin(
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    lost: tuple[float, ...],
    made: int,
    frozen: int,
) -> None:
    changes, names = iter(lost), ["macs_0.9", "macs_0.8", "macs_0.7"]
    monkeypatch.setattr(compress_module, "WALK", Target(kind="macs", shares=(0.9, 0.8, 0.7)))
    # The class that loses less does not help the other.
    monkeypatch.setattr(search.Original, "lost", lambda self, network: np.array([[0.1, next(changes)]]))
    found = seg.compress(run, tmp_path / "small", margin=0.3, cases=2, tune_steps=0)
    assert [step["name"] for step in content(tmp_path / "small" / "compression.json")["steps"]] == names[:made]
    assert [step.step.name for step in found.steps] == names[:frozen]
    verdicts = [content(tmp_path / "small" / name / "model.json")["certificate"]["verdict"] for name in names[:made]]
    assert verdicts[frozen:] == ["not tested"] * (made - frozen)


def test_parameters_are_as_few_as_was_asked_for(run: Path, tiny: ExperimentConfig, tmp_path: Path) -> None:
    seg.compress(run, tmp_path / "small", target="parameters=0.8,0.6", cases=2, tune_steps=0)
    whole = checked_complexity(1, 3, tiny.network, shape=tiny.patches.size).parameters
    for share in (0.8, 0.6):
        small = seg.load_run(tmp_path / "small" / f"parameters_{share}").network
        assert 0.9 * share * whole < sum(parameter.numel() for parameter in small.parameters()) <= share * whole


def test_channels_are_cut_too_where_parameters_are_the_target(
    run: Path, tiny: ExperimentConfig, tmp_path: Path
) -> None:
    for kind in ("macs", "parameters"):
        seg.compress(run, tmp_path / kind, target=f"{kind}=0.5", cases=2, tune_steps=0)
        channels = seg.load_run(tmp_path / kind / f"{kind}_0.5").network.config.channels
        assert (channels == tiny.network.channels) == (kind == "macs")


def test_shares_out_of_reach_behind_others_end_the_steps(
    run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for kind in ("macs", "parameters"):
        with pytest.raises(ConfigError) as caught:
            seg.compress(run, tmp_path / "none", target=f"{kind}=0.001", cases=1, tune_steps=0)
        least = float(caught.value.problems[0].remedy.rpartition(" ")[2])
        assert 0.001 < least < 0.5
        more = f"{1.2 * least:.2g}"  # cuts end in another order at times
        (step,) = seg.compress(run, tmp_path / f"{kind}_least", target=f"{kind}={more}", cases=1, tune_steps=0).steps
        assert step.step.name == f"{kind}_{more}"
        caplog.clear()
        found = seg.compress(run, tmp_path / kind, target=f"{kind}=0.9,0.01", cases=1, tune_steps=0)
        assert [step.step.name for step in found.steps] == [f"{kind}_0.9"]
        assert [one.levelname for one in caplog.records if f"{kind}_0.01" in one.getMessage()][-1] == "WARNING"


def test_a_network_that_is_within_two_shares_is_tuned_once(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    judge = search.judge
    monkeypatch.setattr(compress_module, "judge", lambda *a, **b: made.append(1) or judge(*a, **b))
    seg.compress(run, tmp_path / "alone", target="parameters=0.8", cases=2, tune_steps=0)
    record = content(tmp_path / "alone" / "compression.json")
    reached = record["steps"][0]["folds"][0]["parameters"] / record["originals"][0]["parameters"]
    between = round((reached + 0.8) / 2, 5)
    assert reached < between < 0.8
    made.clear()
    seg.compress(run, tmp_path / "small", target=f"parameters=0.8,{between:g}", cases=2, tune_steps=0)
    assert len(made) == 1
    steps = content(tmp_path / "small" / "compression.json")["steps"]
    assert [step["name"] for step in steps] == ["parameters_0.8", f"parameters_{between:g}"]
    assert len({step["folds"][0]["weights_sha256"] for step in steps}) == 1


def test_a_latency_is_sought_by_measurements_that_are_kept(
    run: Path, tiny: ExperimentConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []
    killed: list[int] = []
    size = tiny.patches.size

    def costs(network: seg.UNet) -> tuple[int, int]:
        return complexity(1, 3, network.config, shape=size).macs, map_elements(network.config, shape=size)

    def measured(networks: dict[str, Any], *_: Any, **__: Any) -> dict[str, Latency]:
        if len(asked) in killed:
            raise KeyboardInterrupt
        asked.append(list(networks))
        macs, elements = costs(next(iter(networks.values())))
        found = {}
        for name, network in networks.items():
            own = costs(network)
            ratio = 0.6 * own[0] / macs + 0.4 * own[1] / elements
            found[name] = Latency(ms=1.0, ratio=ratio, q1=ratio, q3=ratio)
        return found

    monkeypatch.setattr(compress_module, "measure_latency", measured)
    options: dict[str, Any] = {"target": "latency=0.7", "cases": 2, "tune_steps": 0, "multiple": 1}
    whole = tmp_path / "whole"
    ratio = seg.compress(run, whole, **options).costs["latency_0.7"].latency_ratio
    assert ratio is not None
    assert 0.5 < ratio <= 0.7
    step = Path("latency_0.7") / "checkpoints" / "weights.pt"
    assert costs(seg.load_run(whole / "latency_0.7").network)[1] < 0.9 * costs(seg.load_run(run).network)[1]
    count = len(asked)
    seg.compress(run, whole, **options)
    assert len(asked) == count
    for number in (1, 3):  # killed between the networks of half the widths, and on the way down
        asked.clear()
        killed[:] = [number]
        with pytest.raises(KeyboardInterrupt):
            seg.compress(run, tmp_path / f"killed_{number}", **options)
        killed.clear()
        seg.compress(run, tmp_path / f"killed_{number}", **options)
        assert len(asked) == count
        assert (tmp_path / f"killed_{number}" / step).read_bytes() == (whole / step).read_bytes()
    asked.clear()
    weights = (whole / step).read_bytes()
    shutil.rmtree(whole / "latency_0.7")  # killed before it was whole
    seg.compress(run, whole, **options)
    # The way to the step is not measured again; the step that was made again is.
    assert asked == [["original", "latency_0.7"]]
    assert (whole / step).read_bytes() == weights


@pytest.mark.parametrize("shares", ["0.7", "0.95,0.7"])
def test_a_network_that_was_measured_too_fast_does_not_end_the_search(
    run: Path, tiny: ExperimentConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shares: str
) -> None:
    size = tiny.patches.size

    def measured(networks: dict[str, Any], *_: Any, rounds: int = ROUNDS, **__: Any) -> dict[str, Latency]:
        work = {name: complexity(1, 3, one.config, shape=size).macs for name, one in networks.items()}
        luck = 0.1 if rounds < ROUNDS else 0.0
        ratios = {name: macs / work["original"] - luck for name, macs in work.items()}
        return {name: Latency(ms=1.0, ratio=ratio, q1=ratio, q3=ratio) for name, ratio in ratios.items()}

    monkeypatch.setattr(compress_module, "measure_latency", measured)
    options: dict[str, Any] = {"target": f"latency={shares}", "cases": 2, "tune_steps": 0, "multiple": 1}
    ratio = seg.compress(run, tmp_path / "small", **options).costs["latency_0.7"].latency_ratio
    assert ratio is not None
    assert 0.6 < ratio <= 0.7
    # Another machine may need other networks.
    made, judge = [], search.judge
    monkeypatch.setattr(compress_module, "judge", lambda *a, **b: made.append(1) or judge(*a, **b))
    seg.compress(run, tmp_path / "small", **options)
    assert not made
    monkeypatch.setattr(comparing, "processor_name", lambda: "another")
    seg.compress(run, tmp_path / "small", **options)
    assert len(made) == len(shares.split(","))


def test_time_and_memory_of_another_machine_are_measured_anew(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    options: dict[str, Any] = {"target": "macs=0.8", "cases": 2, "tune_steps": 0}
    seg.compress(run, tmp_path / "small", **options)
    found = []
    for name in ("measure_latency", "measure_memory"):
        measure = getattr(compress_module, name)
        noted = partial(lambda name, measure, *a, **b: found.append(name) or measure(*a, **b), name, measure)
        monkeypatch.setattr(compress_module, name, noted)
    seg.compress(run, tmp_path / "small", **options)
    assert not found
    record = content(tmp_path / "small" / "compression.json")
    for memory in ({}, {"original": 1.0, "macs_0.8": None}):  # of an earlier version; not known then
        (tmp_path / "small" / "compression.json").write_text(json.dumps(record | {"memory": memory}))
        assert seg.compress(run, tmp_path / "small", **options).costs["macs_0.8"].peak_memory_mib == 1
        assert found == ["measure_memory"]
        found.clear()
    monkeypatch.setattr(comparing, "processor_name", lambda: "another")
    caplog.clear()
    assert seg.compress(run, tmp_path / "small", **options).conditions["processor"] == "another"
    assert found == ["measure_latency", "measure_memory"]
    assert [one.levelname for one in caplog.records if "measured anew" in one.getMessage()] == ["WARNING"]


@pytest.mark.parametrize(("lost", "steps", "tunes"), [(-0.26, 30, True), (-0.24, 30, False), (-0.26, 0, False)])
def test_a_step_is_tuned_where_it_loses_more_than_a_quarter_of_the_margin(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: float, steps: int, tunes: bool
) -> None:
    asked: list[int] = []

    def tune(*_: Any, steps: int, **__: Any) -> int:
        asked.append(steps)
        return 0

    monkeypatch.setattr(search, "tune", tune)
    monkeypatch.setattr(search.Original, "lost", lambda self, network: np.array([[0.0, lost * 0.2]]))
    seg.compress(run, tmp_path / "small", target="macs=0.8", margin=0.2, cases=2, tune_steps=steps)
    assert asked == ([steps] if tunes else [])


def test_a_command_goes_on_where_it_was_killed(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "TUNE_BELOW", -1e9)  # whatever a step lost
    options: dict[str, Any] = {"target": "macs=0.9,0.8,0.7", "cases": 2, "tune_steps": 25}
    whole = seg.compress(run, tmp_path / "whole", **options)
    made = []
    judge = search.judge

    def killed(*given: Any, **named: Any) -> Any:
        made.append(given)
        if len(made) == 3:
            raise KeyboardInterrupt
        return judge(*given, **named)

    monkeypatch.setattr(compress_module, "judge", killed)
    with pytest.raises(KeyboardInterrupt):
        seg.compress(run, tmp_path / "small", **options)
    again = seg.compress(run, tmp_path / "small", **options)
    assert len(made) == 4  # one of them twice
    assert [one.step.sha256 for one in again.steps] == [one.step.sha256 for one in whole.steps]
    assert again.look == 1
    with pytest.raises(SegError) as caught:
        seg.compress(run, tmp_path / "small", **{**options, "cases": 1})
    assert [(one.kind, one.value) for one in caught.value.problems] == [("settings", "cases 1, not 2")]
    # Before the run is read, which can be slow.
    monkeypatch.setattr(compress_module, "METHOD", compress_module.METHOD + 1)
    monkeypatch.setattr(compress_module, "read_original", lambda *_: pytest.fail("the run is read"))
    assert problems(run, tmp_path / "small", **options) == [(str(tmp_path / "small"), "version")]


@pytest.mark.usefixtures("measured")
def test_the_certificate_and_the_model_card_say_what_a_step_costs(run: Path, tmp_path: Path) -> None:
    found = seg.compress(run, tmp_path / "small", target="macs=0.8", cases=2, tune_steps=0)
    assert {"engine", "threads", "instruction sets", "windows", "made by", "memory"} <= found.conditions.keys()
    assert found.conditions["made by"].startswith("1x1 around kernels, ")
    assert "held-back patients" not in found.conditions  # they decided nothing
    assert found.conditions["segnarrow"] == code_version()
    assert found.costs["original"].latency_ratio == 1
    card = content(tmp_path / "small" / "macs_0.8" / "model.json")["certificate"]
    assert (card["verdict"], card["look"], card["exploratory"]) == ("too few", 1, False)
    for one in found.steps[0].classes:
        said = card["differences"][one.name]
        assert (said["mean"], said["bound"], said["patients"]) == (one.difference, one.bound, one.patients)
        for counts, rate in ((said["lost"], one.lost), (said["invented"], one.invented)):
            assert counts == {"number": len(rate.names), "of": rate.of, "upper": rate.upper}  # no patient is named
    assert card["cost"]["latency_ratio"] == found.costs["macs_0.8"].latency_ratio
    for name in ("original", "macs_0.8"):
        assert found.costs[name].peak_memory_mib > 0
    assert card["cost"]["peak_memory_mib"] == found.costs["macs_0.8"].peak_memory_mib
    assert card["original"]["cost"]["peak_memory_mib"] == found.costs["original"].peak_memory_mib
    assert card["conditions"] == found.conditions
    page = (tmp_path / "small" / "certificate.md").read_text(encoding="utf-8")
    assert "macs_0.8" in page
    assert "Look 1 at" in page
    assert found.conditions["instruction sets"] in page


@pytest.mark.parametrize(("axes", "said"), [((), "none"), ((0, 2), "X, Z")])
def test_a_certificate_names_the_axes_that_are_mirrored(
    tiny: ExperimentConfig, tmp_path: Path, axes: tuple[Any, ...], said: str
) -> None:
    spatial = replace(tiny.augmentation.spatial, mirror_axes=axes)
    config = replace(
        tiny,
        augmentation=replace(tiny.augmentation, spatial=spatial),
        inference=replace(tiny.inference, tta=True),
    )
    train(config, run_dir=tmp_path / "run", folds=[0])
    found = seg.compress(tmp_path / "run", tmp_path / "small", target="macs=0.8", cases=1, tune_steps=0)
    assert found.conditions["mirroring"] == said


def test_a_model_card_keeps_its_certificate_where_the_network_is_scored_again(run: Path, tmp_path: Path) -> None:
    small = tmp_path / "small" / "macs_0.8"
    seg.compress(run, tmp_path / "small", target="macs=0.8", cases=2, tune_steps=0)
    before = content(small / "model.json")
    seg.evaluate(small)
    assert content(small / "model.json") == before
    assert before["certificate"]["verdict"] == "too few"


def test_a_cross_validation_is_compressed_as_a_whole(
    folds: Path, tiny_root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = folds
    found = seg.compress(root, tmp_path / "small", target="macs=0.8", cases=2, tune_steps=0)
    (step,) = found.steps
    assert len(found.original) == 2
    held_out = [seg.load_run(root / f"fold_{fold}").config.fold for fold in (0, 1)]
    assert held_out == [0, 1]
    assert [(one.patients, one.degrees_of_freedom) for one in step.classes] == [(6, 4)] * 2
    assert [[fold.patients for fold in one.folds] for one in step.classes] == [[3, 3]] * 2
    for fold in (0, 1):
        (look,) = certificate.read_ledger(root / f"fold_{fold}" / "certificate_ledger.json")
        assert look.original == (found.original[fold],)
    output = seg.predict(tmp_path / "small" / "macs_0.8", tiny_root / "imagesTr", tmp_path / "labels")
    assert len(list(output.glob("*.nii.gz"))) == 6
    small = tmp_path / "small" / "macs_0.8"
    widths = [seg.load_run(small / f"fold_{fold}").config.network for fold in (0, 1)]
    assert widths[0] != widths[1]
    caplog.clear()
    seg.evaluate(small, output=tmp_path / "scored")
    assert not [one for one in caplog.records if one.levelname == "WARNING" and "fold_1" in one.getMessage()]
    scored = [read_cases(folder / "cases.csv") for folder in (small, tmp_path / "scored")]
    assert scored[0] == scored[1]
    cards = [content(small / f"fold_{fold}" / "model.json") for fold in (0, 1)]
    uncompressed = {name: value for name, value in cards[1].items() if name != "certificate"}
    (small / "fold_1" / "model.json").write_text(json.dumps(uncompressed))
    seg.evaluate(small, output=tmp_path / "scored")
    assert [one for one in caplog.records if one.levelname == "WARNING" and one.getMessage().endswith("fold_1")]
    record = content(tmp_path / "small" / "compression.json")["steps"][0]["folds"]
    for fold in (0, 1):
        cost = cards[fold]["certificate"]["cost"]
        assert {name: cost[name] for name in ("macs", "parameters")} == {
            name: record[fold][name] for name in ("macs", "parameters")
        }
        for name in ("latency_ratio", "peak_memory_mib"):
            assert (cost[name] is None) == (fold == 1)  # the first fold alone is measured
        differences = cards[fold]["certificate"]["differences"]
        for one in step.classes:
            own = one.folds[fold]
            assert differences[one.name]["fold"] == {
                "mean": own.difference,
                "bound": own.bound,
                "patients": own.patients,
                "verdict": "too few",
            }
    # A fold alone is looked at once more, also where the cross-validation comes first and has the same networks.
    assert seg.compress(root, tmp_path / "same", target="macs=0.8", cases=2, tune_steps=0).look == 1
    assert seg.compress(root / "fold_1", tmp_path / "one", target="macs=0.8", cases=2, tune_steps=0).look == 2
    assert seg.compress(root, tmp_path / "again", target="macs=0.6", cases=2, tune_steps=0).look == 3


@pytest.mark.usefixtures("measured")
@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_both_networks_are_scored_in_the_engine_that_is_named(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: Any
) -> None:
    pytest.importorskip(engine)
    written = []
    write = compress_module.write_network
    monkeypatch.setattr(compress_module, "write_network", lambda *a, **b: written.append(1) or write(*a, **b))
    found = seg.compress(run, tmp_path / "small", target="macs=0.8", engine=engine, cases=2, tune_steps=0)
    assert len(written) == 2  # each once, to be measured and scored
    tell_costs(monkeypatch)  # what torch needs is measured elsewhere
    torch_found = seg.compress(run, tmp_path / "torch", target="macs=0.8", cases=2, tune_steps=0)
    assert found.conditions["engine"].startswith(engine)
    assert None not in [cost.peak_memory_mib for cost in found.costs.values()]
    ours, theirs = ([one.difference for one in each.steps[0].classes] for each in (found, torch_found))
    assert ours == pytest.approx(theirs, abs=1e-3, nan_ok=True)
    # The better of two engines would be chosen by the result.
    assert [(each.look, each.exploratory) for each in (found, torch_found)] == [(1, False), (2, True)]


def test_a_fault_on_the_way_down_is_no_end_of_it(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judge, faults = search.judge, iter([None, ConfigError(Problem("training.device", "unavailable", "must be there"))])

    def faulty(*given: Any, **named: Any) -> Any:
        if (fault := next(faults)) is not None:
            raise fault
        return judge(*given, **named)

    monkeypatch.setattr(compress_module, "WALK", Target(kind="macs", shares=(0.9, 0.8)))
    monkeypatch.setattr(compress_module, "judge", faulty)
    with pytest.raises(ConfigError) as caught:
        seg.compress(run, tmp_path / "small", margin=0.99, cases=2, tune_steps=0)
    assert [problem.path for problem in caught.value.problems] == ["training.device"]


def test_a_cross_validation_goes_on_with_the_fold_where_it_was_killed(
    folds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"target": "macs=0.9,0.7", "cases": 2, "tune_steps": 0}
    whole = seg.compress(folds, tmp_path / "whole", **options)
    made = []
    judge = search.judge

    def killed(original: Any, *given: Any, **named: Any) -> Any:
        made.append(original.config.fold)
        if len(made) == 4:
            raise KeyboardInterrupt
        return judge(original, *given, **named)

    monkeypatch.setattr(compress_module, "judge", killed)
    with pytest.raises(KeyboardInterrupt):
        seg.compress(folds, tmp_path / "small", **options)
    again = seg.compress(folds, tmp_path / "small", **options)
    assert made == [0, 1, 0, 1, 1]
    assert [one.step.sha256 for one in again.steps] == [one.step.sha256 for one in whole.steps]
    # What is damaged is made again alone, and what it replaces stays until then.
    for fold in (0, 1):
        made.clear()
        monkeypatch.setattr(compress_module, "judge", killed)
        damaged = tmp_path / "small" / "macs_0.9" / f"fold_{fold}"
        (damaged / "model.json").unlink()
        made.extend([-1] * 3)
        with pytest.raises(KeyboardInterrupt):
            seg.compress(folds, tmp_path / "small", **options)
        assert (damaged / "config.yaml").is_file()
        assert seg.compress(folds, tmp_path / "small", **options).look == 1
        assert made == [-1] * 3 + [fold] * 2
        assert [len(one["folds"]) for one in content(tmp_path / "small" / "compression.json")["steps"]] == [2, 2]
    # Where its folder is a link, that is replaced with all folds.
    step, elsewhere = tmp_path / "small" / "macs_0.9", tmp_path / "elsewhere"
    step.rename(elsewhere)
    step.symlink_to(elsewhere)
    (elsewhere / "fold_1" / "model.json").unlink()
    before = files(elsewhere)
    made.clear()
    monkeypatch.setattr(compress_module, "judge", lambda *given, **named: made.append(given) or judge(*given, **named))
    assert seg.compress(folds, tmp_path / "small", **options).look == 1
    assert [given[0].config.fold for given in made] == [0, 1]
    assert files(elsewhere) == before


@pytest.mark.usefixtures("measured")
def test_int8_is_the_last_step_and_says_in_its_file_whether_it_is_certified(
    run: Path,
    tiny_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    script: Callable[..., Any],
) -> None:
    pytest.importorskip("nncf")
    monkeypatch.setattr(certificate, "LEAST_PATIENTS", 2)
    options: dict[str, Any] = {"target": "macs=0.8", "engine": "openvino", "cases": 2, "tune_steps": 0, "int8": True}
    found = seg.compress(run, tmp_path / "small", margin=0.99, **options)
    assert [step.step.name for step in found.steps] == ["macs_0.8", "macs_0.8_int8"]
    assert found.certified == "macs_0.8_int8"
    assert None not in [cost.peak_memory_mib for cost in found.costs.values()]
    said = capsys.readouterr().out.splitlines()
    table = {line.split()[0]: line.split() for line in said if line.startswith("macs_")}
    assert table["macs_0.8_int8"][-2:] == ["-", "-"]  # nothing was measured in int8 on held-back patients
    assert "-" not in table["macs_0.8"][-2:]
    file = tmp_path / "small" / "macs_0.8_int8" / "network.xml"
    assert read_export(file).record.certified
    assert read_export(file).record.arithmetic == "int8"
    assert found.conditions["macs_0.8_int8"].startswith("instruction sets: ")
    (following,) = [shlex.split(line) for line in said if line.startswith("next: ")]
    scans, labels = str(tiny_root / "imagesTr"), str(tmp_path / "labels")
    given = {"SCANS": scans, "LABEL_MAPS": labels}
    assert following[:2] == ["next:", "seg"]
    assert script(*(given.get(word, word) for word in following[2:])).code == 0
    assert len(list(Path(labels).glob("*.nii.gz"))) == 6
    before = file.with_suffix(".bin").stat().st_mtime_ns
    again = seg.compress(run, tmp_path / "small", margin=0.99, **options)
    assert file.with_suffix(".bin").stat().st_mtime_ns == before
    assert again == found
    with monkeypatch.context() as patch:  # whose sums in int8 are others
        patch.setattr(compress_module, "quantising", lambda _: {"instruction sets": "those of another processor"})
        later = seg.compress(run, tmp_path / "small", margin=0.99, **options)
    assert (later.look, later.certified, later.passed) == (found.look + 1, None, found.certified)
    assert read_export(file).record.certified is False  # a later look is no proof
    (digest,) = content(tmp_path / "small" / "compression.json")["int8"]
    assert compress_module._is_file_of(file, digest)
    for damaged in (file, file.with_suffix(".bin"), record_path(file)):
        whole = damaged.read_bytes()
        damaged.write_bytes(whole[:-20])
        assert not compress_module._is_file_of(file, digest)
        damaged.write_bytes(whole)
    given_certificates = []

    def killed(run: TrainedRun, *_: Any) -> None:
        given_certificates.append(run.certificate)
        raise KeyboardInterrupt

    file.unlink()
    monkeypatch.setattr(compress_module, "write_int8", killed)
    with pytest.raises(KeyboardInterrupt):
        seg.compress(run, tmp_path / "small", margin=0.99, **options)
    assert content(tmp_path / "small" / "macs_0.8" / "model.json")["certificate"]["verdict"] == "not inferior"
    assert given_certificates == [None]  # that of the step speaks of fp32


def test_a_step_that_is_made_again_is_quantised_and_timed_again(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("nncf")
    written: list[Path] = []
    timed: list[int] = []

    def write(run: Any, file: Path, *_: Any) -> None:
        written.append(file)
        file.parent.mkdir(exist_ok=True)
        file.with_suffix(".bin").write_bytes(b"%d" % len(written))

    def measured(networks: dict[str, Any], *_: Any, **__: Any) -> dict[str, Latency]:
        timed.append(len(networks))
        return dict.fromkeys(networks, Latency(ms=1.0, ratio=1.0, q1=1.0, q3=1.0))

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(compress_module, "write_int8", write)
    monkeypatch.setattr(compress_module, "measure_latency", measured)
    monkeypatch.setattr(compress_module, "freeze_folds", killed)
    monkeypatch.setattr(compress_module, "_is_file_of", lambda *_: True)
    options: dict[str, Any] = {"target": "macs=0.8", "engine": "openvino", "cases": 2, "tune_steps": 0, "int8": True}
    for _ in range(2):  # the second time all is there
        with pytest.raises(KeyboardInterrupt):
            seg.compress(run, tmp_path / "small", **options)
    assert (len(written), len(timed)) == (1, 1)
    (tmp_path / "small" / "macs_0.8" / "model.json").unlink()
    with pytest.raises(KeyboardInterrupt):
        seg.compress(run, tmp_path / "small", **options)
    assert (len(written), len(timed)) == (2, 2)


def test_a_network_in_int8_of_a_command_that_was_killed_is_not_certified(
    run: Path, tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("nncf")

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(compress_module, "measure_latency", killed)
    options: dict[str, Any] = {"target": "macs=0.8", "engine": "openvino", "cases": 2, "tune_steps": 0, "int8": True}
    with pytest.raises(KeyboardInterrupt):
        seg.compress(run, tmp_path / "small", **options)
    file = tmp_path / "small" / "macs_0.8_int8" / "network.xml"
    assert read_export(file).record.certified is False
    output = seg.predict(file, tiny_root / "imagesTr", tmp_path / "labels")
    assert len(content(output / "predictions.json")["warnings"]) == 1


def test_what_cannot_be_compressed_is_named(run: Path, tmp_path: Path) -> None:
    def kinds(run_dir: Path = run, output: Path = tmp_path / "new", **options: Any) -> list[tuple[str, str]]:
        with pytest.raises(SegError) as caught:
            compress(run_dir, output, **options)
        return [(problem.path, problem.kind) for problem in caught.value.problems]

    assert kinds(output=run) == [(str(run), "exists")]
    for kind in ("macs", "parameters", "latency"):
        assert kinds(output=tmp_path / kind, target=read_target(f"{kind}=0.01"), cases=1) == [("target", "range")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compress_module, "WALK", Target(kind="macs", shares=(1e-6,)))
        assert kinds(output=tmp_path / "many", multiple=64, cases=1) == [("multiple", "range")]
        assert kinds(output=tmp_path / "least", cases=1) == [(str(run), "narrow")]
    seg.compress(run, tmp_path / "macs", target="macs=0.9", cases=1, tune_steps=0)  # where nothing was made before
    seg.compress(run, tmp_path / "small", target="macs=0.9", cases=1, tune_steps=0)
    small = tmp_path / "small" / "macs_0.9"
    assert kinds(small) == [(str(small), "compressed")]
    ranks = replace(seg.load_run(small).config, fold=0)
    assert ranks.network.widths is not None
    train(ranks, run_dir=tmp_path / "ranks", folds=[0])
    assert kinds(tmp_path / "ranks") == [(str(tmp_path / "ranks"), "ranks")]
    narrow = Path(shutil.copytree(run, tmp_path / "narrow"))
    card = content(narrow / "model.json") | {"certificate": {"verdict": "not tested"}}
    (narrow / "model.json").write_text(json.dumps(card))  # of channels alone
    assert kinds(narrow) == [(str(narrow), "compressed")]
    (run / "evaluation.json").unlink()
    assert kinds() == [(str(run), "scores")]


def problems(run_dir: Path, output: Path, **options: Any) -> list[tuple[str, str]]:
    with pytest.raises(SegError) as caught:
        seg.compress(run_dir, output, **{"target": "macs=0.8", "cases": 1, "tune_steps": 0, **options})
    return [(problem.path, problem.kind) for problem in caught.value.problems]


def test_a_network_that_finds_no_class_is_refused(run: Path, tmp_path: Path) -> None:
    with changed_weights(run) as weights:
        weights["heads.0.bias"][0] = 1e6
    assert problems(run, tmp_path / "small") == [(str(run), "network")]
    with refused((str(run), "network"), error=RunError):
        seg.widths(run, tmp_path / "widths", cases=2)


def test_a_map_that_is_zero_everywhere_goes_first(run: Path, tmp_path: Path) -> None:
    with changed_weights(run) as weights:
        for name in ("weight", "bias"):
            weights[f"encoder.0.0.norm.{name}"].zero_()
    seg.compress(run, tmp_path / "small", target="macs=0.8", cases=2, tune_steps=0)
    (fold,) = content(tmp_path / "small" / "compression.json")["steps"][0]["folds"]
    assert fold["predicted_loss"] == pytest.approx(0, abs=1e-12)
    assert fold["measured_divergence"] == pytest.approx(0, abs=1e-6)


def test_weights_whose_squares_overflow_are_cut_like_others(run: Path, tmp_path: Path) -> None:
    seg.compress(run, tmp_path / "whole", target="macs=0.8", cases=2, tune_steps=0)
    with changed_weights(run) as weights:
        weights["encoder.0.0.conv.weight"].mul_(2.0**60)  # the norm takes it away again
    seg.compress(run, tmp_path / "small", target="macs=0.8", cases=2, tune_steps=0)
    records = [content(tmp_path / name / "compression.json") for name in ("whole", "small")]
    whole, small = (record["steps"][0]["folds"][0]["measured_divergence"] for record in records)
    assert small < 10 * whole


def test_what_would_fail_at_the_end_is_refused_before_a_step_is_made(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compress_module, "judge", lambda *_, **__: pytest.fail("a step is made"))
    ledger = run / certificate.LEDGER_FILE
    ledger.write_text('{"schema_version": 1, "looks": [{"original": [], "margin": Infinity, "steps": []}]}')
    assert problems(run, tmp_path / "small") == [(str(ledger), "json")]
    ledger.unlink()
    ledger.with_name(f"{ledger.name}.lock").mkdir()  # as unwritable as a folder of another user
    assert [kind for _, kind in problems(run, tmp_path / "small")] == ["unwritable"]
    assert not (tmp_path / "small").exists()


def test_an_output_is_worked_on_by_one_command_at_a_time(run: Path, tmp_path: Path) -> None:
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / ".compression.json.0a1b2c3d").touch()  # killed there
    with locked(tmp_path / "small" / "compress.lock"):
        assert problems(run, tmp_path / "small") == [(str(tmp_path / "small"), "locked")]


def test_steps_that_are_damaged_are_made_again(run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    output, elsewhere = tmp_path / "small", tmp_path / "elsewhere"
    options: dict[str, Any] = {"target": "macs=0.8", "cases": 1, "tune_steps": 0}
    first = seg.compress(run, output, **options)
    step = output / "macs_0.8"

    def cut(path: Path) -> None:
        path.write_bytes(path.read_bytes()[:-20])

    def moved() -> None:
        step.rename(elsewhere)
        step.symlink_to(elsewhere)
        (elsewhere / "model.json").unlink()

    def with_other_classes() -> None:
        record = content(output / "compression.json")
        record["steps"][0]["folds"][0]["held_back"] = [[0.0], [0.0, 0.0]]
        (output / "compression.json").write_text(json.dumps(record))

    def with_other_costs() -> None:
        record = content(output / "compression.json")
        record["steps"][0]["folds"][0]["parameters"] += 1
        (output / "compression.json").write_text(json.dumps(record))

    damages: list[tuple[Callable[[], object], bool]] = [
        (lambda: cut(step / "checkpoints" / "weights.pt"), True),
        (lambda: cut(step / "model.json"), True),
        (with_other_classes, True),
        (with_other_costs, False),
        (moved, False),
    ]
    for damage, announced in damages:
        damage()
        caplog.clear()
        again = seg.compress(run, output, **options)
        assert [one.step for one in again.steps] == [one.step for one in first.steps]
        assert again.costs["macs_0.8"].parameters == first.costs["macs_0.8"].parameters
        assert seg.load_run(step).network is not None
        warnings = [one for one in caplog.records if one.levelname == "WARNING" and "macs_0.8" in one.getMessage()]
        assert bool(warnings) == announced
    # A link is replaced; what it led to stays as it was.
    assert (elsewhere / "config.yaml").is_file()
    assert not (elsewhere / "model.json").exists()
    shutil.rmtree(step)
    step.touch()
    assert problems(run, output) == [(str(step), "folder")]


def test_numbers_that_no_measurement_gives_are_damage(run: Path, tmp_path: Path) -> None:
    output = tmp_path / "small"
    seg.compress(run, output, target="macs=0.8", cases=1, tune_steps=0)
    for name in ("macs", "tuned_steps", "memory"):
        record = content(output / "compression.json")
        place, key = (record["memory"], "original") if name == "memory" else (record["steps"][0]["folds"][0], name)
        before, place[key] = place[key], -1
        (output / "compression.json").write_text(json.dumps(record))
        assert [kind for _, kind in problems(run, output)] == ["greater_than_equal"]
        if name != "memory":
            place[key] = 10**400
            (output / "compression.json").write_text(json.dumps(record))
            assert [kind for _, kind in problems(run, output)] == ["less_than"]
        place[key] = before
        (output / "compression.json").write_text(json.dumps(record))


def test_a_step_that_is_no_faster_is_said_to_be_so(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    latency = {
        "macs_0.9": Latency(ms=1, ratio=0.9, q1=0.8, q3=1.0),
        "macs_0.7": Latency(ms=1, ratio=0.7, q1=0.7, q3=0.9),
    }
    whole = Latency(ms=1, ratio=1, q1=1, q3=1)
    monkeypatch.setattr(compress_module, "measure_latency", lambda *_, **__: {"original": whole, **latency})

    def unlooked(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(compress_module, "freeze_folds", unlooked)
    with pytest.raises(KeyboardInterrupt):
        seg.compress(run, tmp_path / "small", target="macs=0.9,0.7", cases=1, tune_steps=0)
    warned = [one for one in caplog.records if one.levelname == "WARNING" and "faster" in one.getMessage()]
    assert [one.args[:2] for one in warned] == [("macs_0.9", "torch")]


def test_scores_of_another_machine_or_of_other_files_are_made_anew(
    run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options: dict[str, Any] = {"target": "macs=0.8", "cases": 1, "tune_steps": 0}
    first = seg.compress(run, tmp_path / "first", **options)
    assert not [one for one in caplog.records if "anew" in one.getMessage()]
    scoring = run / "scoring_environment.json"
    whole = content(scoring)
    # Scores that nobody could repeat here.
    head, *rows = ((run / "cases.csv").read_text()).splitlines()
    column = head.split(",").index("dice")
    cells = [row.split(",") for row in rows]
    changed = [",".join([*row[:column], "0.123", *row[column + 1 :]]) for row in cells]
    (run / "cases.csv").write_text("\n".join([head, *changed]) + "\n")
    others = {
        "device": "a GPU",
        "precision": "bf16",
        "data": {},
        "version": "0.0.1",
        "packages": {"torch": "1.0"},
        "revision": "other",
    }
    for name, value in others.items():
        scoring.write_text(json.dumps({**whole, name: value}))
        caplog.clear()
        found = seg.compress(run, tmp_path / "first", **options)
        assert found.steps == first.steps
        assert [one.levelname for one in caplog.records if "anew" in one.getMessage()] == ["WARNING"]
    scoring.write_text(json.dumps({"schema_version": 1, "device": whole["device"]}))  # of an earlier version
    assert seg.compress(run, tmp_path / "earlier", **options).steps == first.steps
    scoring.unlink()
    assert seg.compress(run, tmp_path / "none", **options).steps == first.steps
    # Killed while a step was scored: its record is there and its scores are not.
    (tmp_path / "none" / "macs_0.8" / "cases.csv").unlink()
    (tmp_path / "none" / "macs_0.8" / "evaluation.json").unlink()
    assert seg.compress(run, tmp_path / "none", **options).steps == first.steps


def test_scores_of_a_run_whose_new_scoring_was_killed_are_made_anew(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"target": "macs=0.8", "cases": 1, "tune_steps": 0}
    first = seg.compress(run, tmp_path / "first", **options)
    table = (run / "cases.csv").read_text()
    scoring = content(run / "scoring_environment.json")
    (run / "scoring_environment.json").write_text(json.dumps({**scoring, "device": "a GPU"}))
    (run / "cases.csv").write_text(table.replace(",0.", ",0.1"))  # scores of that device

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("seg.workflows.evaluate.choose", killed)
        with pytest.raises(KeyboardInterrupt):
            seg.evaluate(run)
    assert (run / "cases.csv").read_text() != table
    assert seg.compress(run, tmp_path / "first", **options).steps == first.steps
    seg.evaluate(run)
    assert (run / "cases.csv").read_text() == table
    assert content(run / "scoring_environment.json") == scoring


def test_whoever_scores_a_step_before_it_is_frozen_has_looked(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"target": "macs=0.8", "cases": 1, "tune_steps": 0}

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(compress_module, "measure_latency", killed)
        with pytest.raises(KeyboardInterrupt):
            seg.compress(run, tmp_path / "small", **options)
    seg.evaluate(tmp_path / "small" / "macs_0.8")
    found = seg.compress(run, tmp_path / "small", **options)
    assert (found.look, found.exploratory) == (2, True)
    assert seg.compress(run, tmp_path / "small", **options).look == 2
    with monkeypatch.context() as patch:  # one look more
        patch.setattr(comparing, "package_version", lambda _: "another")
        assert seg.compress(run, tmp_path / "small", **options).look == 3
    assert seg.compress(run, tmp_path / "new", **{**options, "target": "macs=0.7"}).look == 4


def test_scores_of_a_step_that_were_made_elsewhere_are_made_anew(run: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"target": "macs=0.8", "cases": 1, "tune_steps": 0}
    first = seg.compress(run, tmp_path / "small", **options)
    step = tmp_path / "small" / "macs_0.8"
    head, *rows = ((step / "cases.csv").read_text()).splitlines()
    column = head.split(",").index("dice")
    cells = [row.split(",") for row in rows]
    changed = [",".join([*row[:column], "0.123", *row[column + 1 :]]) for row in cells]
    (step / "cases.csv").write_text("\n".join([head, *changed]) + "\n")
    scoring = step / "scoring_environment.json"
    scoring.write_text(json.dumps({**content(scoring), "device": "a GPU"}))
    assert seg.compress(run, tmp_path / "small", **options).steps == first.steps


def test_folds_that_are_misnamed_double_or_missing(
    folds: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = folds
    (root / "fold_1").rename(tmp_path / "apart")
    for ask in (
        lambda: seg.compress(root, tmp_path / "one", target="macs=0.8", cases=1, tune_steps=0),
        lambda: seg.evaluate(root, output=tmp_path / "scores"),
    ):
        caplog.clear()
        ask()
        assert [one.levelname for one in caplog.records if "3 cases of 6" in one.getMessage()] == ["WARNING"]
    for source, kinds in ((root / "fold_0", {"fold", "twice"}), (tmp_path / "apart", {"fold"})):
        shutil.copytree(source, root / "fold_7")
        assert {kind for _, kind in problems(root, tmp_path / "more")} == kinds
        with pytest.raises(SegError) as caught:
            seg.evaluate(root, output=tmp_path / "scores")
        assert {problem.kind for problem in caught.value.problems} == kinds
        shutil.rmtree(root / "fold_7")
    for work in (
        partial(seg.compress, target="macs=0.8", cases=1),
        partial(seg.certify, original=root),
        lambda run, output: seg.evaluate(run, output=output),
    ):
        with refused((str(root / "fold_7"), "fold"), error=RunError):
            work(root / "fold_0", output=root / "fold_7")
    assert not (root / "fold_7").exists()
    # Results of each fold in a folder of their own, beside one another.
    for fold in (0, 0, 7):
        seg.evaluate(root / "fold_0", output=tmp_path / "results" / f"fold_{fold}")
        seg.compress(root / "fold_0", tmp_path / "each" / f"fold_{fold}", target="macs=0.8", cases=1, tune_steps=0)
