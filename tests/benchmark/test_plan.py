"""A plan of measurements runs to its end on a processor, saves each section and repeats none."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from math import inf
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from seg.benchmark import plan
from seg.benchmark.plan import Plan, best_layout, make_plan, run_plan, seconds_to
from seg.benchmark.subjects import Runtime, Subject
from seg.benchmark.timing import Timer
from seg.cli import main
from seg.config import ExperimentConfig, dump_config
from seg.errors import RunError, SegError

CPU = torch.device("cpu")
SHAPE = (2, (8, 8, 8))
SECTIONS = [
    "bf16_outputs",
    "ceilings",
    "networks_2_8x8x8",
    "compiled_2_8x8x8",
    "augmentation",
    "epoch",
    "training",
]
TINY = Plan(shapes=(SHAPE,), compiled=(SHAPE,), stages=(2, 3, 4), seconds=inf, training=None)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "ROUNDS", 1)
    monkeypatch.setattr(plan, "WARMUP", 0)
    monkeypatch.setattr(plan, "EPOCHS", 1)
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))  # which takes no compiler


@pytest.fixture
def untraced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets networks run uncompiled where they should be compiled, for torch takes seconds to trace them."""
    monkeypatch.setattr(torch, "compile", lambda module, **_: module)


@pytest.fixture
def short(subject: Subject) -> ExperimentConfig:
    """An experiment of two steps."""
    return replace(
        subject.config,
        training=replace(subject.config.training, steps=2, validate_every=1),
        optimizer=replace(subject.config.optimizer, warmup_steps=0),
    )


def test_all_sections_are_measured_and_saved(short: ExperimentConfig, tmp_path: Path) -> None:
    found = run_plan(replace(TINY, training=short), CPU, tmp_path / "plan.json")
    saved = json.loads((tmp_path / "plan.json").read_text())
    assert saved == {"schema_version": 1, **json.loads(json.dumps(found))}
    assert (list(saved["sections"]), saved["not_measured"]) == (SECTIONS, {})
    sections = {name: entry["rows"] for name, entry in saved["sections"].items()}
    networks, compiled = sections["networks_2_8x8x8"], sections["compiled_2_8x8x8"]
    eager = [(row["name"], row["memory_format"]) for row in networks]
    names = ["plain", "decoder_1", "decoder_1-2", "dynunet"]
    assert eager == [(name, layout) for name in names for layout in ("channels_last_3d", "contiguous")]
    assert [(row["name"], row["compiled"]) for row in compiled] == [("plain", True), ("decoder_1", True)]
    assert len({row["memory_format"] for row in compiled}) == 1
    for row in networks + compiled:
        assert min(row["forward_ms"]["median"], row["training_step_ms"]["median"]) > 0
    for row in sections["bf16_outputs"]:
        assert row["largest_difference"] < 0.1
        assert row["equal_labels"] > 0.8
        assert row["gradient_difference"] < 1  # networks of a few channels are noisy
    assert sections["training"]["steps"] == sections["epoch"]["steps"] == 2
    assert sections["training"]["memory_format"] == sections["epoch"]["memory_format"] == best_layout(networks)
    assert sections["training"]["precision"] == sections["epoch"]["precision"] == "fp32"


@pytest.mark.usefixtures("untraced")
def test_the_tiny_plan_runs_to_its_end_as_a_command(
    short: ExperimentConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("short.yaml").write_text(dump_config(short))
    with pytest.raises(SystemExit) as ended:
        main(["benchmark", "--plan", "tiny", "--config", "short.yaml", "--device", "cpu"])
    assert not ended.value.code
    found = json.loads(Path("benchmark_tiny.json").read_text())
    assert found["not_measured"] == {}
    rows = [row for entry in found["sections"].values() for row in entry["rows"] if isinstance(row, dict)]
    assert rows
    assert not [row for row in rows if "error" in row]
    assert {row["compiled"] for row in rows if "compiled" in row} == {True, False}
    assert capsys.readouterr().out.endswith("results: benchmark_tiny.json\n")


def test_fp32_is_no_tf32_from_the_beginning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    seen = []
    monkeypatch.setattr(plan, "_bf16_outputs", lambda *_: seen.append(torch.backends.cudnn.allow_tf32))
    run_plan(replace(TINY, shapes=(), compiled=()), CPU, tmp_path / "plan.json")
    assert seen == [False] * 8


class _Wrong(nn.Module):
    """A layer that is right forwards, and backwards twice as steep as it should be where bf16 is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(1, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv(x)
        if _Wrong.in_bf16:
            out.register_hook(lambda gradient: 2 * gradient)
        return out  # type: ignore[no-any-return]

    in_bf16 = False


def test_bf16_is_compared_forwards_and_backwards_at_every_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
        _Wrong.in_bf16 = precision == "bf16"
        return nullcontext()

    given: list[tuple[int, ...]] = []
    image = Runtime.image

    def images(own: Runtime, batch: int, channels: int, size: tuple[int, int, int]) -> Tensor:
        given.append((batch, *size))
        return image(own, batch, channels, size)

    monkeypatch.setattr(plan, "autocast", autocast)
    monkeypatch.setattr(plan, "_build", lambda *_: _Wrong())
    monkeypatch.setattr(Runtime, "image", images)
    shapes = (SHAPE, (3, (8, 8, 8)), (1, (4, 8, 8)))
    name, config, layout = next(plan._networks(TINY))
    row = plan._bf16_outputs(replace(TINY, shapes=shapes), CPU, name, config, layout)
    assert (row["largest_difference"], row["equal_labels"]) == (0, 1)
    assert row["gradient_difference"] == pytest.approx(1)
    assert given == [(batch, *size) for batch, size in shapes]


@pytest.mark.usefixtures("untraced")
def test_a_section_that_fails_is_named_and_alone_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "plan.json"

    def fail(device: torch.device, shape: object) -> None:
        raise RuntimeError("no memory")

    with monkeypatch.context() as broken:
        broken.setattr(plan, "_augmentation", fail)
        found = run_plan(TINY, CPU, output)
    assert found["not_measured"]["augmentation"] == "RuntimeError: no memory"
    assert set(found["not_measured"]) == {"augmentation", "epoch", "training"}  # there is no data set
    for name in ("_bf16_outputs", "_ceilings", "_times"):
        monkeypatch.setattr(plan, name, fail)
    again = run_plan(TINY, CPU, output)
    assert set(again["not_measured"]) == {"epoch", "training"}
    assert again["sections"]["networks_2_8x8x8"] == json.loads(json.dumps(found["sections"]["networks_2_8x8x8"]))


def test_sections_of_another_plan_or_experiment_are_measured_anew(
    short: ExperimentConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    monkeypatch.setattr(plan, "_bf16_outputs", lambda *_: made.append("bf16"))
    monkeypatch.setattr(plan, "_ceilings", lambda *_: made.append("ceilings"))
    monkeypatch.setattr(plan, "_augmentation", lambda *_: made.append("augmentation"))
    monkeypatch.setattr(plan, "_epoch", lambda *_: made.append("epoch"))
    monkeypatch.setattr(plan, "_train", lambda *given: made.append(given[-1].name))
    first = replace(TINY, shapes=(), compiled=(), training=short)
    deeper = replace(first, stages=(2, 4, 8))
    longer = replace(first, training=replace(short, training=replace(short.training, steps=4)))
    counts, names = [], []
    for own in (first, first, deeper, longer, longer):
        made.clear()
        run_plan(own, CPU, tmp_path / "plan.json")
        counts.append(len(made))
        names += made[-1:]
    assert counts == [counts[0], 0, counts[0], counts[0], 0]
    assert len(set(names)) == 3  # no training goes on in the folder of another


def test_networks_are_saved_shape_by_shape(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "_bf16_outputs", lambda *_: {})
    monkeypatch.setattr(plan, "_ceilings", lambda *_: [])
    output, saved = tmp_path / "plan.json", []

    def times(plan: Plan, device: torch.device, precision: str, shape: Any, **_: Any) -> list[dict[str, Any]]:
        saved.append([name for name in json.loads(output.read_text())["sections"] if name.startswith("networks")])
        if shape == (3, (8, 8, 8)):
            raise RuntimeError("the machine is gone")
        return []

    monkeypatch.setattr(plan, "_times", times)
    found = run_plan(replace(TINY, shapes=(SHAPE, (3, (8, 8, 8))), compiled=()), CPU, output)
    assert saved == [[], ["networks_2_8x8x8"]]
    assert "networks_2_8x8x8" not in found["not_measured"]
    assert "networks_3_8x8x8" in found["not_measured"]


@pytest.mark.parametrize(("steps", "every"), [(1400, 100), (150, 75), (70, 70), (1409, 1409)])
def test_trainings_are_validated_often_and_at_their_end(
    short: ExperimentConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int, every: int
) -> None:
    begun: list[ExperimentConfig] = []

    def train(config: ExperimentConfig, *, run_dir: Path, **_: object) -> None:
        begun.append(config)
        run_dir.mkdir(exist_ok=True)
        (run_dir / "metrics.csv").write_text("step,seconds,val_dice\n1,2.0,0.9\n")

    monkeypatch.setattr("seg.workflows.train.train", train)
    own = replace(short, training=replace(short.training, steps=steps, validate_every=steps))
    run_plan(make_plan("record", own), CPU, tmp_path / "record.json")
    plan._train(replace(TINY, training=own), CPU, "contiguous", tmp_path / "run")
    assert [config.training.validate_every for config in begun] == [every] * 4
    assert [config.training.memory_format for config in begun] == ["channels_last_3d"] * 3 + ["contiguous"]


def test_an_epoch_reads_and_augments_the_patches_of_training(
    short: ExperimentConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = replace(short, training=replace(short.training, steps=2, accumulate=2))
    drawn, augmented = [], plan.SegmentationData.augmented

    def note(data: Any, batch: Any) -> Any:
        drawn.append(batch["position"])
        return augmented(data, batch)

    monkeypatch.setattr(plan.SegmentationData, "augmented", note)
    monkeypatch.setattr(plan, "Timer", partial(Timer, least_seconds=0))
    found = plan._epoch(replace(TINY, training=own), CPU, "contiguous")
    assert found["steps"] == 2  # up to the first validation
    assert len(drawn) == 2 * 2 * 2  # one epoch to warm up and one that counts, of two batches for each step
    assert drawn[:4] == drawn[4:]
    assert found["network_share"]["median"] == pytest.approx(found["network_s"]["median"] / found["whole_s"]["median"])
    with pytest.raises(SegError):
        plan._epoch(replace(TINY, training=replace(own, fold=5)), CPU, "contiguous")


def test_a_record_is_trained_from_three_seeds(short: ExperimentConfig, tmp_path: Path) -> None:
    found = run_plan(make_plan("record", short), CPU, tmp_path / "record.json")
    assert found["not_measured"] == {}
    assert list(found["sections"]) == ["seed_0", "seed_1", "seed_2"]
    scores = {entry["rows"]["val_dice"] for entry in found["sections"].values()}
    assert len(scores) == 3
    assert set(found["sections"]["seed_1"]["rows"]["seconds_to"]) == {"0.88", "0.889"}
    assert set(run_plan(make_plan("record", None), CPU, tmp_path / "none.json")["not_measured"]) == set(
        found["sections"]
    )


def test_no_section_begins_once_the_time_is_up(tmp_path: Path) -> None:
    found = run_plan(replace(TINY, seconds=-1.0), CPU, tmp_path / "plan.json")
    assert found["not_measured"] == dict.fromkeys(SECTIONS, "the time was up")
    assert found["sections"] == {}


def test_a_tiny_plan_trains_few_steps_and_compiles(short: ExperimentConfig) -> None:
    long = replace(
        short,
        training=replace(short.training, steps=1400, validate_every=700),
        optimizer=replace(short.optimizer, warmup_steps=50),
    )
    tiny = make_plan("tiny", long)
    assert tiny.compiled
    assert tiny.training is not None
    training = tiny.training.training
    assert training.steps % training.validate_every == 0 < training.steps <= 20
    assert tiny.training.optimizer.warmup_steps < training.steps


def test_another_file_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text('{"other": 1}')
    with pytest.raises(RunError):
        run_plan(TINY, CPU, tmp_path / "plan.json")
    assert json.loads((tmp_path / "plan.json").read_text()) == {"other": 1}


def test_the_layout_is_the_one_whose_steps_take_least_time_and_never_one_that_failed() -> None:
    def row(layout: str, ms: float | None) -> dict[str, object]:
        step = {} if ms is None else {"training_step_ms": {"median": ms}}
        return {"name": "decoder_1", "memory_format": layout, **step}

    last, plain = "channels_last_3d", "contiguous"
    assert best_layout([row(last, 3), row(plain, 2), row(last, 1), row(plain, 1)]) == plain
    assert best_layout([row(last, 3), row(plain, None)]) == last


def test_seconds_to_a_dice_are_those_of_the_first_validation_that_has_it(tmp_path: Path) -> None:
    rows = ["step,seconds,val_dice", "1,10.0,0.87", "2,20.0,0.8805", "3,30.0,0.879", "4,40.0,0.8889"]
    (tmp_path / "metrics.csv").write_text("\n".join(rows) + "\n")
    found = seconds_to(tmp_path)
    assert found["seconds_to"] == {"0.88": 20.0, "0.889": None}
    assert (found["steps"], found["training_s"], found["val_dice"]) == (4, 40.0, 0.8889)
    with pytest.raises(RunError):
        seconds_to(tmp_path / "nothing")


def test_the_plan_of_a_gpu_has_the_shapes_of_the_hippocampus_and_of_large_volumes() -> None:
    gpu = make_plan("gpu", None)
    assert set(gpu.compiled) <= set(gpu.shapes)
    assert {size for _, size in gpu.shapes} == {(40, 56, 40), (128, 128, 128)}
    assert gpu.seconds <= 600
