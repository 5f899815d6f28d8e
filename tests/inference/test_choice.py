"""The choice of classes of which the largest component is kept, and what predictions make of it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from seg.config import ExperimentConfig, PostprocessingConfig
from seg.data.cases import Case
from seg.errors import RunError
from seg.evaluation.metrics import score_case
from seg.inference.choice import CHOICE_FILE, Choice, ClassChoice, choose, write_choice
from seg.inference.predictor import Predictor, load_predictor
from seg.runs import read_runs

Make = Callable[..., Path]
NAMES = ("background", "organ", "lesion")
SHAPE = (12, 10, 8)


def boxes(*placed: tuple[int, slice]) -> np.ndarray:
    """A label map of boxes: class, and the extent along X."""
    labels = np.zeros(SHAPE, np.uint8)
    for index, extent in placed:
        labels[extent, 2:4, 2:4] = index
    return labels


ORGAN, STRAY = (1, slice(0, 4)), (1, slice(11, 12))  # 16 and 4 voxels
LESION, SECOND = (2, slice(5, 7)), (2, slice(8, 9))  # 8 and 4 voxels, both there


def chosen(tmp_path: Path, pairs: dict[str, tuple[np.ndarray, np.ndarray]], ignore_label: int | None = None) -> Choice:
    cases, predictions = [], {}
    for name, (prediction, label) in pairs.items():
        files = [tmp_path / f"{name}.{kind}.nii.gz" for kind in ("prediction", "label")]
        for path, array in zip(files, (prediction, label), strict=True):
            nib.save(nib.Nifti1Image(array, np.eye(4)), path)
        cases.append(Case(id=name, images=(), label=files[1], patient=name[0]))
        predictions[name] = files[0]
    return choose(cases, predictions, class_names=NAMES, ignore_label=ignore_label, models=["a" * 64])


def test_a_class_is_chosen_where_the_mean_over_patients_rises(tmp_path: Path) -> None:
    whole = boxes(ORGAN, LESION, SECOND)
    strayed = boxes(ORGAN, STRAY, LESION, SECOND)
    found = chosen(tmp_path, {"p1": (strayed, whole), "p2": (whole, whole), "q1": (strayed, whole)})
    organ, lesion = found.classes
    assert (found.cases, found.patients, found.largest) == (3, 2, ("organ",))
    one = 2 * 16 / 36  # a stray island of 4 beside 16
    assert organ.dice == pytest.approx(((one + 1) / 2 + one) / 2)
    assert (organ.dice_largest, organ.changed_cases) == (1.0, 2)
    assert lesion == ClassChoice(
        name="lesion", largest_component=False, dice=1.0, dice_largest=2 * 8 / 20, changed_cases=3
    )
    assert re.findall(r"organ|optimistic|\d+\.\d+", str(found)) == ["organ", "0.9583", "1.0000", "optimistic"]


def test_the_dice_is_that_of_the_scores(tmp_path: Path) -> None:
    label, prediction = np.random.default_rng(0).integers(0, 4, (2, *SHAPE)).astype(np.uint8)
    prediction[prediction == 3] = 0
    found = chosen(tmp_path, {"p": (prediction, label)}, ignore_label=3)
    scored = score_case(
        prediction, label, spacing_mm=(1, 1, 1), num_classes=3, nsd_tolerance_mm=1, ignore_label=3
    )  # fmt: skip
    assert [one.dice for one in found.classes] == pytest.approx([scored[index].dice for index in (1, 2)])


def test_what_changes_no_score_is_not_chosen(tmp_path: Path) -> None:
    label = boxes(ORGAN)
    ignored = label.copy()
    ignored[11] = 9
    found = chosen(tmp_path, {"p": (boxes(ORGAN, STRAY), ignored)}, ignore_label=9)
    assert found.largest == ()
    assert found.classes[1].dice is None
    assert re.findall("no class|lesion", str(found)) == ["no class", "lesion"]


def record(run_dirs: list[Path], *kept: str, folder: Path | None = None) -> None:
    digests = [hashlib.sha256((path / "checkpoints" / "weights.pt").read_bytes()).hexdigest() for path in run_dirs]
    classes = [
        ClassChoice(name=name, largest_component=name in kept, dice=0.5, dice_largest=0.6, changed_cases=1)
        for name in ("left", "right")
    ]
    choice = Choice(models=tuple(digests), cases=2, patients=2, classes=tuple(classes))
    write_choice(folder or run_dirs[0], choice)


def load(*run_dirs: Path) -> Predictor:
    return load_predictor(read_runs(run_dirs), device="cpu", tta=False, probabilities=False)


def test_predictions_keep_what_was_chosen_for_these_weights(make_run: Make, tmp_path: Path) -> None:
    one, two, other = make_run("cv/fold_0"), make_run("cv/fold_1", seed=1), make_run("other", seed=2)
    assert load(one).rules == {}
    record([one], "left")
    assert (load(one).chosen, set(load(one).rules)) == (("left",), {1})
    record([one, two], "right", folder=tmp_path / "cv")
    assert load(tmp_path / "cv").chosen == load(one).chosen == ("right",)  # all folds tell more than one
    record([other], "left", "right")
    assert load(one, two, other).chosen == ("right",)
    record([one], "left", folder=other)  # the weights were trained anew
    assert load(other).rules == {}


@pytest.mark.parametrize("stated", [(), ("right",)])
def test_the_configuration_wins(make_run: Make, tiny_config: ExperimentConfig, stated: tuple[str, ...]) -> None:
    rules = PostprocessingConfig(largest_component=stated)
    run_dir = make_run(config=replace(tiny_config, postprocessing=rules))
    record([run_dir], "left")
    assert load(run_dir).chosen == ()
    assert [rule.largest for rule in load(run_dir).rules.values()] == [True] * len(stated)


def test_a_damaged_record_is_named(make_run: Make) -> None:
    run_dir = make_run()
    (run_dir / CHOICE_FILE).write_text(json.dumps({"schema_version": 1, "models": []}))
    with pytest.raises(RunError) as caught:
        load(run_dir)
    assert {(problem.path.partition(": ")[0], problem.kind) for problem in caught.value.problems} == {
        (str(run_dir.absolute() / CHOICE_FILE), "missing")
    }
