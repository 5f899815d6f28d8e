"""Records that cannot be used end in a sentence that says so."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from seg.ablation.report import write_report
from seg.ablation.report.analysis import analyse
from seg.ablation.report.tables_dice import limits
from seg.ablation.report.trials import read_records
from seg.errors import RunError
from tests.ablation.report.studies import Made, make_study

TRIAL = "trials/skip_1-4.fold_0.seed_1"


def change(path: Path, alter: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text())
    alter(content)
    path.write_text(json.dumps(content))


def problems(folder: Path) -> tuple[str, ...]:
    with pytest.raises(RunError) as caught:
        write_report(folder)
    assert not (folder / "report.html").exists()
    return tuple(problem.replace(str(folder), "STUDY") for problem in caught.value.sentences)


@pytest.mark.parametrize(
    "name",
    ["study.json", "speed.json", f"{TRIAL}/trial.json", f"{TRIAL}/preservation.json", f"{TRIAL}/generalisation.json"],
)
def test_a_newer_record_is_refused(tmp_path: Path, name: str) -> None:
    make_study(tmp_path)
    change(tmp_path / name, lambda content: content.update(schema_version=2))
    (problem,) = problems(tmp_path)
    assert problem.startswith(f"STUDY/{name}: schema version must be at most 1, got 2; ")
    assert problem.endswith("update seg.")


def test_a_folder_without_a_study_is_refused(tmp_path: Path) -> None:
    assert problems(tmp_path) == (
        "cannot read STUDY/study.json: No such file or directory; give the directory of a study that was started, or "
        "start it again.",
    )


def test_all_damaged_records_are_named_together(tmp_path: Path) -> None:
    make_study(tmp_path)
    (tmp_path / "speed.json").write_text('{"schema_version": 1, "devices": [{"kind": "cpu"}]}')
    (tmp_path / TRIAL / "trial.json").write_text("{")
    (tmp_path / "trials/baseline.fold_0.seed_0/metrics.csv").write_text("step,val_dice\n100,high\n")
    found = problems(tmp_path)
    assert found[0] == (
        "STUDY/speed.json: must be the speed of a study, whole, got KeyError ('variants'); restore it, or remove it "
        "and run the study again."
    )
    assert found[1].startswith(
        "STUDY/trials/baseline.fold_0.seed_0/metrics.csv: must be the log of a training run, whole"
    )
    assert found[2].startswith(f"STUDY/{TRIAL}/trial.json: must be the whole record of a trial, got JSONDecodeError ")


def test_a_plan_that_lacks_its_baseline_is_refused(tmp_path: Path) -> None:
    make_study(tmp_path)
    change(tmp_path / "study.json", lambda content: content.update(baseline="full"))
    (problem,) = problems(tmp_path)
    assert problem.startswith(
        "STUDY/study.json: the baseline must be one of the variants, got 'full' beside baseline, "
    )


def test_a_damaged_plan_is_named(tmp_path: Path) -> None:
    make_study(tmp_path)
    change(tmp_path / "study.json", lambda content: content.pop("margin"))
    assert problems(tmp_path) == (
        "STUDY/study.json: must be the plan of a study, whole, got KeyError ('margin'); restore it, or remove it and "
        "run the study again.",
    )


def test_a_trial_of_an_unknown_variant_is_refused(tmp_path: Path) -> None:
    make_study(tmp_path)
    change(tmp_path / TRIAL / "trial.json", lambda content: content.update(variant="other"))
    assert problems(tmp_path) == (
        f"STUDY/{TRIAL}: a trial must be of a variant of the study, got 'other'; remove the folder, or start the study "
        "again to write its plan anew.",
    )


def test_a_finished_trial_without_scores_is_refused(tmp_path: Path) -> None:
    make_study(tmp_path)
    (tmp_path / TRIAL / "cases.csv").unlink()
    (problem,) = problems(tmp_path)
    assert problem.startswith(f"cannot read STUDY/{TRIAL}/cases.csv: ")


def test_records_that_the_plan_does_not_name_are_left_out_and_named(tmp_path: Path) -> None:
    make_study(tmp_path)
    change(tmp_path / "study.json", lambda content: content["trials"].remove("flat_16.fold_0.seed_2"))
    records = read_records(tmp_path)
    assert records.others == ("flat_16.fold_0.seed_2",)
    assert "flat_16.fold_0.seed_2" not in records.trials
    assert limits(analyse(records)) == [
        "flat_16: 2 training runs: never called not inferior, which takes 3.",
        "Records of trials that the study does not name are left out: flat_16.fold_0.seed_2.",
    ]


def test_optional_records_may_be_absent(tmp_path: Path) -> None:
    make_study(tmp_path, Made(devices=()))
    for name in ("metrics.csv", "generalisation.json", "preservation.json", "environment.json", "config.yaml"):
        (tmp_path / TRIAL / name).unlink()
    trial = read_records(tmp_path).trials["skip_1-4.fold_0.seed_1"]
    assert (trial.curve, trial.generalisation, trial.preservation, trial.environment) == (None, None, None, None)
    assert "Configuration: not recorded." in write_report(tmp_path).read_text()


def test_a_step_that_was_logged_twice_counts_as_logged_last(tmp_path: Path) -> None:
    make_study(tmp_path)
    log = tmp_path / TRIAL / "metrics.csv"
    log.write_text("step,seconds,val_dice\n100,1,0.5\n200,2,0.6\n200,3,0.7\n300,4,nan\n400,5,\n")
    curve = read_records(tmp_path).trials["skip_1-4.fold_0.seed_1"].curve
    assert curve is not None
    assert (list(curve.steps), list(curve.dice)) == ([100.0, 200.0], [0.5, 0.7])


def test_trials_of_different_code_are_announced(tmp_path: Path) -> None:
    make_study(tmp_path)
    change(tmp_path / TRIAL / "trial.json", lambda content: content["fingerprint"].update(code="unknown"))
    assert limits(analyse(read_records(tmp_path))) == [
        "Trials were trained by 2 versions of the code; the list of trials says which by which. These variants were "
        "trained by another version than the baseline: skip_1-4."
    ]
    for folder in tmp_path.glob("trials/*.seed_1"):  # now the whole pair, whose comparison crosses no versions
        change(folder / "trial.json", lambda content: content["fingerprint"].update(code="unknown"))
    assert limits(analyse(read_records(tmp_path))) == [
        "Trials were trained by 2 versions of the code; the list of trials says which by which."
    ]


def test_several_devices_of_a_kind_have_files_of_their_own(tmp_path: Path) -> None:
    make_study(tmp_path)
    change(tmp_path / "speed.json", lambda content: content["devices"].extend(content["devices"]))
    assert [device.slug for device in read_records(tmp_path).speed] == ["cuda", "cuda_2", "cpu2", "cpu2_2"]
