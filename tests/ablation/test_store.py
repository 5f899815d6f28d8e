"""Results of studies as tables: what is read, what outlives new metrics, what a received directory must not do."""

from __future__ import annotations

import csv
import json
import math
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from seg.ablation.plan import read_study
from seg.ablation.publish import publish
from seg.ablation.store import Results, read_results
from seg.errors import RunError
from tests.problems import refused

RESULTS = Path(__file__).parents[2] / "docs/results"
STUDIES = sorted({path.parent for name in ("study.json", "study.yaml") for path in RESULTS.glob(f"*/{name}")})
FRAMES = ("trials", "scores", "curves", "generalisation", "preservation", "speed")

PLAN: Mapping[str, Any] = {
    "schema_version": 1,
    "name": "two",
    "command": "ablate --config two.yaml",
    "baseline": "baseline",
    "margin": 0.01,
    "folds": [0],
    "seeds": [0, 1],
    "variants": [
        {"name": "baseline", "parameters": 100, "macs": 1000},
        {"name": "narrow", "changes": {"network.channels": [4]}},
    ],
    "trials": [f"{name}.fold_0.seed_{seed}" for seed in (0, 1) for name in ("baseline", "narrow")],
    "data": {"class_names": ["background", "=organ"]},
}
CHANGES = {"baseline": {}, "narrow": {"network.channels": [4]}}
CASES = """case_id,patient,fold,class_index,class_name,dice,hd95_mm
a,p,0,1,'=organ,0.912345678,nan
b,p,0,1,'=organ,0.0,inf
"""
CONFIG = "name: two\nseed: {seed}\nnetwork:\n  channels: [8]\n  skip: {skip}\n"


def write_trial(folder: Path, name: str, *, seed: int, **changes: Any) -> Path:
    trial = folder / "trials" / name
    trial.mkdir(parents=True)
    record = {
        "schema_version": 1,
        "id": name,
        "variant": name.split(".")[0],
        "fold": 0,
        "seed": seed,
        "changes": {},
        "status": "finished",
        "attempts": 1,
        "error": None,
        "seconds": 12.5,
        "fingerprint": {"config": "c", "data": "d", "code": "unknown"},
        "threads": None,
        "peak_memory_mib": 1234.5678901,
    } | changes
    (trial / "trial.json").write_text(json.dumps(record))
    (trial / "config.yaml").write_text(CONFIG.format(seed=seed, skip="null" if seed else "{ratio: 0.5}"))
    if record["status"] == "failed":
        (trial / "failure.txt").write_text("Traceback\nValueError: nan")
        return trial
    (trial / "cases.csv").write_text(CASES)
    (trial / "metrics.csv").write_text("step,val_dice,train_loss\n5.0,0.5,1.0\n5.0,0.625,\n10.0,nan,0.25\n")
    (trial / "generalisation.json").write_text(
        json.dumps({"schema_version": 1, "train_cases": 2, "train_dice": [0.9, None], "val_dice": [0.8, 0.7]})
    )
    place = {"name": "skip_0", "path": "skip", "stage": 0, "voxels": 25444470, "narrow": None, "r2": 0.123456789}
    place |= {"spectrum": [2.0, 0.123456789], "position_preserved": True}
    (trial / "preservation.json").write_text(json.dumps({"schema_version": 1, "cases": 2, "bottlenecks": [place]}))
    environment = {
        "schema_version": 1,
        "device": "CPU",
        "threads": 3,
        "packages": {"torch": "2.13"},
        "precision": "bf16",
    }
    environment |= {
        "packages": {"torch": "2.13"},
        "data": {"a": "1", "b": "2"},
        "split": {"train": ["c"], "validation": ["a", "b"]},
    }
    (trial / "environment.json").write_text(json.dumps(environment))
    return trial


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Two finished trials, one that failed and one that was not run."""
    folder = tmp_path / "two"
    folder.mkdir()
    (folder / "study.json").write_text(json.dumps(PLAN))
    write_trial(folder, "baseline.fold_0.seed_0", seed=0)
    write_trial(folder, "baseline.fold_0.seed_1", seed=1)
    write_trial(folder, "narrow.fold_0.seed_0", seed=0, status="failed", error="ValueError: nan", seconds=None)
    latency = {"median": 10.123456789, "q1": 9.0, "q3": 11.0}
    speed = {"device": "CPU", "kind": "cpu", "threads": 2, "variants": [{"name": "narrow", "latency_ms": latency}]}
    gpu = speed | {"kind": "cuda", "device": "GPU"}
    (folder / "speed.json").write_text(json.dumps({"schema_version": 1, "devices": [speed, gpu]}))
    return folder


def kinds(results: Results) -> list[str]:
    return [problem.kind for problem in results.problems]


def assert_same(first: Results, second: Results) -> None:
    """Asserts that all tables are equal to the six digits that a published study keeps."""
    for name in FRAMES:
        pd.testing.assert_frame_equal(getattr(first, name), getattr(second, name), rtol=5e-6, atol=0, check_like=True)
    for name, trial in first.stored.items():
        other = second.stored[name]
        for field in ("config", "environment", "data", "split", "failure"):
            assert getattr(trial, field) == getattr(other, field)
    assert first.study == second.study


def test_what_is_recorded_of_a_trial_is_a_row_of_each_table(study: Path) -> None:
    results = read_results(study)
    assert not results.problems
    trials = results.trials.set_index("trial")
    assert list(trials["status"]) == ["finished", "failed", "finished", "not run"]
    first = trials.loc["baseline.fold_0.seed_0"]
    assert (first["threads"], first["torch"], first["precision"], first["training_version"]) == (3, "2.13", "bf16", 1)
    assert trials.loc["narrow.fold_0.seed_1", "variant"] == "narrow"
    scores = results.scores
    assert list(scores.columns) == [
        *("trial", "variant", "fold", "seed", "case", "patient", "class_index", "class_name", "metric", "value")
    ]
    values = scores[scores["trial"] == "baseline.fold_0.seed_0"].set_index(["case", "metric"])["value"]
    assert values["a", "dice"] == 0.912345678
    assert math.isnan(values["a", "hd95_mm"])
    assert values["b", "hd95_mm"] == math.inf
    assert set(scores["class_name"]) == {"=organ"}
    curve = results.curves[results.curves["trial"] == "baseline.fold_0.seed_1"].set_index(["step", "metric"])["value"]
    assert curve[5, "val_dice"] == 0.625  # the later row of a step counts
    assert curve[5, "train_loss"] == 1.0  # an empty cell says nothing
    assert math.isnan(curve[10, "val_dice"])
    assert results.preservation["spectrum"][0] == (2.0, 0.123456789)
    assert list(results.speed["kind"]) == ["cuda", "cpu"]
    assert list(results.speed["value"]) == [10.123456789] * 2
    split = results.stored["baseline.fold_0.seed_0"].split
    assert split is not None
    assert split["validation"] == ["a", "b"]
    assert results.stored["narrow.fold_0.seed_0"].failure == "Traceback\nValueError: nan"


def test_a_published_study_holds_the_same_and_can_be_continued(study: Path) -> None:
    before = read_results(study)
    publish(study)
    assert sorted(path.name for path in study.iterdir()) == [
        *("cases.csv", "curves.csv", "preservation.csv", "provenance.json", "speed.json", "study.yaml", "trials.csv")
    ]
    assert_same(before, read_results(study))
    assert read_results(study).preservation["voxels"][0] == 25444470
    write_trial(study, "narrow.fold_0.seed_0", seed=0)
    write_trial(study, "narrow.fold_0.seed_1", seed=1)
    more = read_results(study)
    assert list(more.trials["status"]) == ["finished"] * 4
    publish(study)
    assert_same(more, read_results(study))


def test_the_folder_itself_may_be_spelt_in_any_way(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(study.parent)
    publish(Path("two"), study)
    assert not (study / "trials").exists()
    assert not (study / "study.json").exists()


def test_a_study_is_published_over_itself_and_leaves_no_table_of_before(study: Path, tmp_path: Path) -> None:
    published = publish(study, tmp_path / "published")
    (published / "report.md").write_text("a report")
    (study / "speed.json").unlink()
    for name in ("seed_0", "seed_1"):
        (study / "trials" / f"baseline.fold_0.{name}" / "preservation.json").unlink()
    more = {**PLAN, "margin": 0.02, "seeds": [0, 1, 2], "set": {"data.root": "moved"}}
    history = [
        {"variants": CHANGES, **{name: plan[name] for name in ("margin", "folds", "seeds")}} for plan in (PLAN, more)
    ]
    (study / "study.json").write_text(json.dumps({**more, "named": history}))
    before = read_results(study)
    publish(study, published)
    assert_same(before, read_results(published))
    assert sorted(path.name for path in published.iterdir()) == [
        *("cases.csv", "curves.csv", "provenance.json", "report.md", "study.yaml", "trials.csv")
    ]


@pytest.mark.parametrize(
    "other",
    [
        {"name": "other"},
        {"data": {"name": "other data", "class_names": ["background", "=organ"]}},
        {"set": {"training.steps": 5}},
        {"margin": 0.02},  # and nothing says that it was another one before
        {"seeds": [1, 2]},
    ],
)
def test_another_study_is_not_replaced(study: Path, tmp_path: Path, other: dict[str, Any]) -> None:
    published = publish(study, tmp_path / "published")
    before = {path.name: path.read_bytes() for path in published.iterdir()}
    (study / "study.json").write_text(json.dumps({**PLAN, **other}))
    with refused((str(published), "exists")):
        publish(study, published)
    assert {path.name: path.read_bytes() for path in published.iterdir()} == before


def test_trials_and_files_of_somebody_else_are_not_replaced(study: Path, tmp_path: Path) -> None:
    running = Path(shutil.copytree(study, tmp_path / "running"))
    with refused((str(running), "exists")):
        publish(study, running)
    (own := tmp_path / "own").mkdir()
    (own / ".gitkeep").touch()
    (own / "cases.csv").write_text("mine\n")
    with refused((str(own), "folder")):
        publish(study, own)
    with refused((str(own / "cases.csv"), "folder")):
        publish(study, own / "cases.csv")
    assert (own / "cases.csv").read_text() == "mine\n"
    (own / "cases.csv").unlink()
    publish(study, own)
    assert not read_results(own).problems


@pytest.mark.parametrize("folder", STUDIES, ids=lambda path: str(path.name))
def test_published_studies_are_whole_and_outlive_a_new_metric(folder: Path, tmp_path: Path) -> None:
    before = read_results(folder)
    assert not before.problems
    missing = before.trials[before.trials["status"] != "finished"]
    assert len(missing) == (0 if folder.name != "brats" else len(before.trials))
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    for path in copy.rglob("cases.csv"):
        header, *rows = list(csv.reader(path.open(newline="")))
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([[*header, "assd_mm"], *([*row, "1.5"] for row in rows[: len(rows) // 2])])
            csv.writer(file).writerows([[*row, ""] for row in rows[len(rows) // 2 :]])
    after = read_results(copy)
    assert not after.problems
    new = after.scores[after.scores["metric"] == "assd_mm"]
    assert set(new["value"]) <= {1.5}
    known = after.scores[after.scores["metric"] != "assd_mm"].reset_index(drop=True)
    pd.testing.assert_frame_equal(known, before.scores)


TRIAL = "trials/baseline.fold_0.seed_0"


@pytest.mark.parametrize(
    ("name", "content", "place", "kind"),
    [
        (
            "speed.json",
            '{"schema_version": 1, "devices": [{"kind": "../x", "variants": []}]}',
            "devices[0].kind",
            "name",
        ),
        (
            "speed.json",
            '{"schema_version": 1, "devices": [{"kind": "cpu", "variants": [{"name": "a/b"}]}]}',
            "devices[0].variants[0].name",
            "name",
        ),
        (
            "speed.json",
            '{"schema_version": 1, "devices": [{"kind": 5, "variants": []}]}',
            "devices[0].kind",
            "string_type",
        ),
        (
            "speed.json",
            '{"schema_version": 1, "devices": [{"kind": "cpu", "variants": [{"name": "a", "x_ms": {"q1": 1}}]}]}',
            "devices[0].variants[0].x_ms",
            "quartiles",
        ),
        ("speed.json", '{"schema_version": 2, "devices": []}', "schema_version", "version"),
        ("speed.json", "[" * 100_000, "", "json"),
        (f"{TRIAL}/cases.csv", CASES.replace("\na,", "\n../a,"), "[0].case_id", "name"),
        (f"{TRIAL}/cases.csv", CASES.replace("0.91", "many"), "[0].dice", "float_parsing"),
        *(
            (f"{TRIAL}/cases.csv", CASES.replace("0.912345678", cell), "[0].dice", "range")
            for cell in ("5.5", "-1", "inf")
        ),
        (f"{TRIAL}/cases.csv", CASES.replace(",inf", ",-2"), "[1].hd95_mm", "range"),
        (f"{TRIAL}/cases.csv", CASES + "c,p\n", "row 3", "csv"),
        (f"{TRIAL}/cases.csv", "", "", "missing"),
        (f"{TRIAL}/metrics.csv", "step,val_dice\n5,0.5\n10,0.62", "", "cut"),
        (f"{TRIAL}/metrics.csv", "step,val_dice\nfive,0.5\n", "[0].step", "float_parsing"),
        (f"{TRIAL}/metrics.csv", "step,val_dice\nnan,0.5\n", "[0].step", "less_than_equal"),
        (f"{TRIAL}/metrics.csv", "step,val_dice\n5,6dice\n", "[0].val_dice", "float_parsing"),
        (f"{TRIAL}/generalisation.json", '{"schema_version": 1, "train_dice": [1], "val_dice": []}', "", "length"),
        (f"{TRIAL}/cases.csv", CASES.replace("a,p,0,1,", f"a,p,0,{2**63},"), "[0].class_index", "less_than"),
        (f"{TRIAL}/trial.json", '{"schema_version": 1, "variant": "a", "fold": 0, "seed": 0}', "status", "missing"),
        (f"{TRIAL}/preservation.json", '{"schema_version": 1}', "bottlenecks", "missing"),
        (f"{TRIAL}/environment.json", '{"schema_version": 1, "packages": 3}', "packages", "dict_type"),
        (f"{TRIAL}/config.yaml", "[a: b", "", "yaml"),
        (f"{TRIAL}/config.yaml", "- a", "", "dict_type"),
    ],
)
def test_a_damaged_file_is_named_and_costs_no_other(
    study: Path, name: str, content: str, place: str, kind: str
) -> None:
    (study / name).write_text(content)
    results = read_results(study)
    (problem,) = results.problems
    assert (problem.path, problem.kind) == (f"{study / name}{place and f': {place}'}", kind)
    assert "baseline.fold_0.seed_1" in set(results.scores["trial"])


def statuses(results: Results) -> dict[str, str]:
    return dict(zip(results.trials["trial"], results.trials["status"], strict=True))


def test_a_damaged_trial_is_told_from_one_whose_name_it_begins_with(study: Path) -> None:
    names = ["narrow.fold_0.seed_1", "narrow.fold_0.seed_10"]
    (study / "study.json").write_text(json.dumps({**PLAN, "seeds": [1, 10], "trials": names}))
    (write_trial(study, names[1], seed=10) / "trial.json").write_text("{")
    assert statuses(read_results(study)) == dict(zip(names, ["not run", "damaged"], strict=True))


@pytest.mark.parametrize(("table", "unknown"), [("cases.csv", "not run"), ("trials.csv", "damaged")])
def test_a_damaged_table_makes_the_trials_damaged_that_it_holds(study: Path, table: str, unknown: str) -> None:
    publish(study)
    (study / table).write_text((study / table).read_text().replace("fold_0.seed_1,", "fold_0.seed_1,,"))
    write_trial(study, "baseline.fold_0.seed_0", seed=0)
    found = statuses(read_results(study))
    assert found == dict(zip(PLAN["trials"], ["finished", "damaged", "damaged", unknown], strict=True))


def cut_digit(text: str) -> str:
    return text.rstrip()[:-1]


@pytest.mark.parametrize(
    ("name", "damage", "place", "kind"),
    [
        ("trials.csv", lambda text: "", "trials.csv", "missing"),
        ("trials.csv", lambda text: "garbage\n", "trials.csv", "missing"),
        ("curves.csv", lambda text: "garbage\n", "curves.csv", "missing"),
        ("cases.csv", lambda text: text.splitlines()[0] + "\n", "cases.csv", "missing"),
        ("trials.csv", lambda text: "\n".join(text.splitlines()[:2]) + "\n", "trials.csv", "missing"),
        (
            "trials.csv",
            lambda text: text.replace("baseline.fold_0.seed_1", "../seed_1"),
            "trials.csv: [1].trial",
            "name",
        ),
        (
            "provenance.json",
            lambda text: json.dumps(json.loads(text) | {"environments": []}),
            "trials.csv: [0].environment",
            "range",
        ),
        ("trials.csv", lambda text: text.replace("train_dice_2", "x"), "trials.csv: [0]", "length"),
        ("curves.csv", cut_digit, "curves.csv", "cut"),
        ("cases.csv", cut_digit, "cases.csv", "cut"),
        ("provenance.json", cut_digit, "provenance.json", "json"),
        ("provenance.json", lambda text: text.replace('"removed": [', '"removed": 3, "x": ['), None, "list_type"),
    ],
)
def test_a_damaged_file_of_a_published_study_is_named(
    study: Path, name: str, damage: Callable[[str], str], place: str | None, kind: str
) -> None:
    publish(study)
    (study / name).write_text(damage((study / name).read_text()))
    results = read_results(study)
    assert {problem.kind for problem in results.problems} == {kind}
    assert place is None or results.problems[0].path == str(study / place)
    with pytest.raises(RunError):
        publish(study)


@pytest.mark.parametrize(("rows", "kind"), [(0, "missing"), (2, "repeated")])
def test_scores_that_are_absent_or_there_twice_are_named(study: Path, rows: int, kind: str) -> None:
    head, *body = CASES.splitlines()
    (study / "trials/baseline.fold_0.seed_0/cases.csv").write_text("\n".join([head, *body * rows]) + "\n")
    (problem,) = read_results(study).problems
    assert problem.kind == kind
    assert "baseline.fold_0.seed_0" in problem.path


def test_a_published_study_without_scores_is_not_reported_as_whole(study: Path, tmp_path: Path) -> None:
    published = publish(study, tmp_path / "published")
    whole = (published / "cases.csv").read_text().splitlines()
    (published / "cases.csv").write_text(whole[0] + "\n")
    assert {problem.kind for problem in read_results(published).problems} == {"missing"}


@pytest.mark.parametrize("name", ["study.json", "study.yaml"])
@pytest.mark.parametrize(
    ("changes", "place", "kind"),
    [
        ({"baseline": "other"}, "", "variant"),
        ({"contrasts": [{"variant": "narrow", "against": "wide"}]}, "", "variant"),
        ({"variants": [{"name": "../narrow"}, {"name": "baseline"}]}, ": variants[0].name", "name"),
        ({"trials": ["a/../../b"]}, ": trials[0]", "name"),
        ({"schema_version": 2}, ": schema_version", "version"),
        ({"margin": "nan"}, ": margin", "finite_number"),
        ({"folds": "zero"}, ": folds", "tuple_type"),
    ],
)
def test_a_plan_that_does_not_hold_is_refused(
    tmp_path: Path, name: str, changes: Mapping[str, Any], place: str, kind: str
) -> None:
    (tmp_path / name).write_text(json.dumps({**PLAN, **changes}))
    with pytest.raises(RunError) as caught:
        read_study(tmp_path)
    (problem,) = caught.value.problems
    assert (problem.path, problem.kind) == (f"{tmp_path / name}{place}", kind)


@pytest.mark.parametrize(("content", "kind"), [(None, "missing"), ("a: [", "yaml"), ("", "dict_type")])
def test_a_plan_that_is_no_plan_is_refused(tmp_path: Path, content: str | None, kind: str) -> None:
    if content is not None:
        (tmp_path / "study.yaml").write_text(content)
    with pytest.raises(RunError) as caught:
        read_study(tmp_path)
    (problem,) = caught.value.problems
    assert (problem.path, problem.kind) == (str(tmp_path / "study.yaml"), kind)


def test_no_link_of_a_study_is_followed(study: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    trial = study / "trials/baseline.fold_0.seed_0"
    shutil.move(trial, secret / "trial")
    trial.symlink_to(secret / "trial")
    (study / "trials/baseline.fold_0.seed_1/cases.csv").rename(secret / "cases.csv")
    (study / "trials/baseline.fold_0.seed_1/cases.csv").symlink_to(secret / "cases.csv")
    shutil.move(study / "speed.json", secret / "speed.json")
    (study / "speed.json").symlink_to(secret / "speed.json")
    results = read_results(study)
    assert kinds(results) == ["link"] * 3
    assert results.scores.empty
    assert results.speed.empty


def test_a_study_may_lie_behind_a_link(study: Path, tmp_path: Path) -> None:
    (tmp_path / "here").symlink_to(study)
    assert not read_results(tmp_path / "here").problems
