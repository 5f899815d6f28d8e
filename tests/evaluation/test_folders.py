from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from seg.errors import DataError, SegError
from seg.evaluation.scores import read_cases, read_evaluation
from seg.workflows.folders import evaluate_folders
from tests.evaluation.volumes import AFFINE, block, save


def test_two_folders_are_scored_and_written(folders: tuple[Path, Path, Path]) -> None:
    predictions, labels, output = folders
    evaluation = evaluate_folders(predictions, labels, output, nsd_tolerance_mm=1.0)
    assert evaluation.mean_dice == pytest.approx((1.0 + 0.75 + 0.5) / 3)
    assert evaluation.classes[0].name == "class_1"
    assert read_evaluation(output) == evaluation
    cases = read_cases(output)
    assert [(case.case_id, case.patient, case.fold) for case in cases] == [
        (n, n, None) for n in ("p0_0", "p0_1", "p1_2")
    ]
    # Voxels are 1 x 2 x 3 mm: a block of 4 x 6 x 4 of them holds 0.576 ml.
    assert [case.scores.reference_ml for case in cases] == pytest.approx([0.576] * 3)
    # The block is shifted along x, by 1 mm a voxel.
    assert [case.scores.hd95_mm for case in cases] == pytest.approx([0.0, 1.0, 2.0])


def test_doubts_about_where_a_label_lies_are_said(
    folders: tuple[Path, Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    predictions, labels, output = folders
    image = nib.load(labels / "p1_2.nii.gz")
    image.header.set_xyzt_units("micron")
    thousandfold = np.diag([1000.0, 1000, 1000, 1]) @ AFFINE  # the same grid
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), thousandfold, image.header), labels / "p1_2.nii.gz")
    with caplog.at_level("WARNING", logger="seg"):
        evaluate_folders(predictions, labels, output, nsd_tolerance_mm=1.0)
    assert caplog.messages == [
        "case p1_2: label p1_2.nii.gz: the unit of length must be mm, got micron; sizes were turned into mm."
    ]


def test_classes_have_the_names_given_and_absent_ones_are_counted(folders: tuple[Path, Path, Path]) -> None:
    predictions, labels, output = folders
    names = ("background", "head", "tail")
    evaluation = evaluate_folders(predictions, labels, output, class_names=names, nsd_tolerance_mm=1.0)
    assert [entry.name for entry in evaluation.classes] == ["head", "tail"]
    assert evaluation.classes[1].metrics["dice"].nan == 3


def test_without_names_a_class_that_one_case_has_is_scored_in_all(folders: tuple[Path, Path, Path]) -> None:
    predictions, labels, output = folders
    save(labels / "p1_2.nii.gz", block(2, value=3))
    evaluation = evaluate_folders(predictions, labels, output, nsd_tolerance_mm=1.0)
    assert [entry.name for entry in evaluation.classes] == ["class_1", "class_2", "class_3"]
    third = evaluation.classes[2].metrics["dice"]
    assert (third.mean, third.count, third.nan) == (0.0, 1, 2)


def test_several_processes_give_the_same_scores(folders: tuple[Path, Path, Path]) -> None:
    predictions, labels, output = folders
    alone = evaluate_folders(predictions, labels, output / "1", nsd_tolerance_mm=1.0)
    assert evaluate_folders(predictions, labels, output / "2", nsd_tolerance_mm=1.0, workers=2) == alone


def test_patients_are_found_by_pattern(folders: tuple[Path, Path, Path]) -> None:
    predictions, labels, output = folders
    evaluation = evaluate_folders(predictions, labels, output, nsd_tolerance_mm=1.0, patient_pattern=r"^(p\d)_")
    assert evaluation.num_patients == 2
    assert [case.patient for case in read_cases(output)] == ["p0", "p0", "p1"]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("(p", "patient_pattern must be a regular expression, got '(p' ("),
        ("p", "patient_pattern must have a group (...) around the patient, got 'p'; write for example "),
        ("(p0)", "case p1_2 must have an id that holds a patient as patient_pattern '(p0)' finds it; correct "),
    ],
)
def test_a_wrong_pattern_is_named(folders: tuple[Path, Path, Path], pattern: str, message: str) -> None:
    with pytest.raises(SegError) as caught:
        evaluate_folders(*folders, nsd_tolerance_mm=1.0, patient_pattern=pattern)
    assert str(caught.value).startswith(message)


def test_ignored_voxels_and_hidden_files_are_left_out(folders: tuple[Path, Path, Path]) -> None:
    predictions, labels, output = folders
    label = block(2)
    label[6:] = 9
    save(labels / "p0_1.nii.gz", label)
    (labels / "._p0_1.nii.gz").write_bytes(b"resource fork")
    (labels / "notes.txt").touch()
    evaluate_folders(predictions, labels, output, nsd_tolerance_mm=1.0, ignore_label=9)
    # The prediction's last layer lies on ignored voxels; its first is missing: 3 of 3 + 4 layers.
    assert read_cases(output)[1].scores.dice == pytest.approx(2 * 3 / 7)


def test_rounding_of_labels_and_headers_is_no_difference(folders: tuple[Path, Path, Path]) -> None:
    predictions, labels, output = folders
    exact = evaluate_folders(predictions, labels, output, nsd_tolerance_mm=1.0)
    for folder, sign in ((predictions, 1), (labels, -1)):
        file = folder / "p0_0.nii.gz"
        image = nib.load(file)
        array = np.asanyarray(image.dataobj) * 1.0
        # 0.001 mm of 11 voxels' edge lies far below a hundredth of a voxel at the corner.
        save(
            file, (array + sign * 0.0009 * (array > 0)).astype(np.float32), image.affine + sign * 1e-3 * np.eye(4, k=3)
        )
    assert evaluate_folders(predictions, labels, output, nsd_tolerance_mm=1.0) == exact


def test_all_problems_of_all_cases_are_reported_at_once(folders: tuple[Path, Path, Path]) -> None:
    predictions, labels, output = folders
    save(predictions / "alone.nii.gz", block())
    save(labels / "missed.nii.gz", block())
    save(predictions / "p0_0.nii.gz", block(shape=(12, 10, 9)))
    save(predictions / "p0_1.nii.gz", block(), np.diag([1.0, 2.0, 3.5, 1.0]))
    save(predictions / "p1_2.nii.gz", block() * 7)
    save(labels / "p1_2.nii.gz", block() * np.float32(0.5))
    (predictions / "p2_3.nii.gz").write_bytes(b"not a NIfTI")
    save(labels / "p2_3.nii.gz", block())
    names = ("background", "head")
    with pytest.raises(DataError) as caught:
        evaluate_folders(predictions, labels, output, class_names=names, nsd_tolerance_mm=1.0)
    problems = list(caught.value.sentences)
    assert problems.pop().startswith(f"case p2_3: {predictions / 'p2_3.nii.gz'} ")
    assert problems == [
        f"case alone: {predictions / 'alone.nii.gz'} has no counterpart in {labels}; "
        "add its reference or remove the prediction.",
        f"case missed: {labels / 'missed.nii.gz'} has no counterpart in {predictions}; "
        "predict it, or give a folder of the scored references alone.",
        "case p0_0: prediction shape (12, 10, 9) differs from label shape (12, 10, 8); "
        "export the prediction on the label's grid.",
        "case p0_1: prediction affine differs from label affine by 3.5 mm at a corner, more than 0.01 voxel; "
        "export the prediction on the label's grid.",
        "case p1_2: prediction holds values 7, but classes are 0 to 1; declare these classes or relabel the file.",
        "case p1_2: label holds values that are not integers: 0.5; export it with nearest-neighbour interpolation.",
    ]
    assert not output.exists()


@pytest.mark.parametrize(
    ("value", "listed"), [(np.nan, "holds values that are not integers: nan;"), (-1.0, "holds values -1, but classes")]
)
def test_odd_label_values_are_named(folders: tuple[Path, Path, Path], value: float, listed: str) -> None:
    label = block().astype(np.float32)
    label[0, 0, 0] = value
    save(folders[1] / "p0_0.nii.gz", label)
    with pytest.raises(DataError) as caught:
        evaluate_folders(*folders, nsd_tolerance_mm=1.0)
    assert caught.value.sentences[0].startswith(f"case p0_0: label {listed}")


def test_label_maps_with_channels_are_refused(folders: tuple[Path, Path, Path]) -> None:
    for folder in folders[:2]:
        save(folder / "p0_0.nii.gz", np.stack([block(), block()], axis=-1))
    with pytest.raises(DataError) as caught:
        evaluate_folders(*folders, nsd_tolerance_mm=1.0)
    assert all("got shape (12, 10, 8, 2)" in sentence for sentence in caught.value.sentences)


def test_endings_in_capitals_are_endings(folders: tuple[Path, Path, Path]) -> None:
    predictions, labels, output = folders
    before = evaluate_folders(predictions, labels, output, nsd_tolerance_mm=1.0)
    (predictions / "p0_0.nii.gz").rename(predictions / "p0_0.NII.GZ")
    assert evaluate_folders(predictions, labels, output, nsd_tolerance_mm=1.0) == before


def test_folders_without_label_maps_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none is not a folder; give the folder that holds the label maps\.$"):
        evaluate_folders(tmp_path / "none", tmp_path, tmp_path / "output", nsd_tolerance_mm=1.0)
    with pytest.raises(
        DataError, match=r"holds no \.nii\.gz or \.nii file; give the folder that holds the label maps\.$"
    ):
        evaluate_folders(tmp_path, tmp_path, tmp_path / "output", nsd_tolerance_mm=1.0)


def test_a_case_in_two_files_is_named(folders: tuple[Path, Path, Path]) -> None:
    save(folders[0] / "p0_0.nii", block())
    with pytest.raises(DataError, match=r"^case p0_0: .* holds p0_0\.nii and p0_0\.nii\.gz; keep one of them\.$"):
        evaluate_folders(*folders, nsd_tolerance_mm=1.0)


def test_label_maps_without_foreground_are_named(folders: tuple[Path, Path, Path]) -> None:
    for folder in folders[:2]:
        for path in folder.iterdir():
            save(path, block(value=0))
    with pytest.raises(
        DataError, match=r"no label or prediction holds a foreground voxel; give label maps with classes"
    ):
        evaluate_folders(*folders, nsd_tolerance_mm=1.0)


def test_a_fold_of_real_cases_is_scored(data_root: Callable[[str], Path], tmp_path: Path) -> None:
    root = data_root("Task04_Hippocampus")
    cases = json.loads((root / "splits_final.json").read_text())[0]["val"]
    for case in cases:
        image = nib.load(root / "labelsTr" / f"{case}.nii.gz")
        label = np.asarray(image.dataobj).astype(np.uint8)
        eroded = np.where(ndimage.binary_erosion(label > 0), label, 0).astype(np.uint8)
        save(tmp_path / "labels" / f"{case}.nii.gz", label, image.affine)
        save(tmp_path / "predictions" / f"{case}.nii.gz", eroded, image.affine)
    evaluation = evaluate_folders(
        tmp_path / "predictions", tmp_path / "labels", tmp_path / "output", nsd_tolerance_mm=1.0
    )
    assert evaluation.num_cases == len(cases) == 40
    # An erosion moves the surface by one voxel of 1 mm.
    assert [entry.metrics["nsd"].mean for entry in evaluation.classes] == pytest.approx([1.0, 1.0], abs=0.05)


def test_cases_that_cannot_be_scored_are_left_out_and_named_where_that_is_asked_for(
    folders: tuple[Path, Path, Path],
) -> None:
    predictions, labels, output = folders
    save(labels / "p2_3.nii.gz", block(2))
    whole = (predictions / "p1_2.nii.gz").read_bytes()
    (predictions / "p1_2.nii.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError):
        evaluate_folders(predictions, labels, output, nsd_tolerance_mm=1.0)
    left = evaluate_folders(predictions, labels, output, nsd_tolerance_mm=1.0, leave_out=True)
    assert [problem.split(":")[0] for problem in left.left_out] == ["case p2_3", "case p1_2"]
    assert "has no counterpart" in left.left_out[0]
    assert read_evaluation(output) == left
    # The rest is scored as a folder that never held the others.
    for folder, name in ((predictions, "p1_2"), (labels, "p1_2"), (labels, "p2_3")):
        (folder / f"{name}.nii.gz").unlink()
    alone = evaluate_folders(predictions, labels, output / "alone", nsd_tolerance_mm=1.0)
    assert (left.mean_dice, left.num_cases, left.classes) == (alone.mean_dice, 2, alone.classes)


def test_where_no_case_can_be_scored_none_is_left_out(folders: tuple[Path, Path, Path]) -> None:
    predictions, labels, output = folders
    for path in predictions.iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(DataError, match="case p0_0"):
        evaluate_folders(predictions, labels, output, nsd_tolerance_mm=1.0, leave_out=True)
    assert not output.exists()
