"""Two folders of label maps are scored against one another, with a page of cases."""

from __future__ import annotations

import html
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.transform import Rotation

from seg import processes
from seg.errors import ConfigError, DataError, RunError
from seg.evaluation.scores import Evaluation, read_cases, read_evaluation
from seg.workflows import folders as module
from seg.workflows.folders import evaluate_folders
from tests.problems import refused

SCRIPT = Path(__file__).parents[2] / "scripts" / "evaluate.py"
AFFINE = np.diag([1.0, 2.0, 3.0, 1.0])


def save(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), path)


def block(start: int = 2, value: int = 1, shape: tuple[int, int, int] = (12, 10, 8)) -> np.ndarray:
    array = np.zeros(shape, np.uint8)
    array[start : start + 4, 2:8, 2:6] = value
    return array


def die(case: Any, **options: Any) -> NoReturn:
    os._exit(9)


class Folders(NamedTuple):
    predictions: Path
    labels: Path
    output: Path
    images: Path


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    """Three cases, shifted by 0, 1 and 2 voxels: an image of its own name, one of nnU-Net's, one with channels."""
    made = Folders(*(tmp_path / name for name in Folders._fields))
    images = {"p0_0": "p0_0.nii.gz", "p0_1": "p0_1_0000.nii.gz", "p1_2": "p1_2.nii"}
    for shift, (case, image) in enumerate(images.items()):
        save(made.predictions / f"{case}.nii.gz", block(2 + shift))
        save(made.labels / f"{case}.nii.gz", block(2).astype(np.float32))
        shape = (12, 10, 8, 2) if shift == 2 else (12, 10, 8)
        save(made.images / image, np.random.default_rng(shift).normal(size=shape).astype(np.float32))
    return made


def evaluate(folders: Folders, **options: Any) -> Evaluation:
    return evaluate_folders(*folders[:3], nsd_tolerance_mm=1.0, **options)


def problems(folders: Folders, **options: Any) -> list[tuple[str, str, str]]:
    with pytest.raises((ConfigError, DataError)) as caught:
        evaluate(folders, **options)
    return [(one.path, one.kind, one.value) for one in caught.value.problems]


def test_two_folders_are_scored_and_written(folders: Folders, capsys: pytest.CaptureFixture[str]) -> None:
    evaluation = evaluate(folders, images=folders.images, patient_pattern=r"^(p\d)_")
    assert evaluation.mean_dice == pytest.approx((1.0 + 0.75 + 0.5) / 3)
    assert evaluation.num_patients == 2
    assert evaluation.classes[0].name == "class_1"
    assert read_evaluation(folders.output) == evaluation
    cases = read_cases(folders.output)
    assert [(case.case_id, case.patient, case.fold) for case in cases] == [
        ("p0_0", "p0", None),
        ("p0_1", "p0", None),
        ("p1_2", "p1", None),
    ]
    # Voxels are 1 x 2 x 3 mm: a block of 4 x 6 x 4 of them holds 0.576 ml. It is shifted along x, by 1 mm a voxel.
    assert [case.scores.reference_ml for case in cases] == pytest.approx([0.576] * 3)
    assert [case.scores.hd95_mm for case in cases] == pytest.approx([0.0, 1.0, 2.0])
    page = (folders.output / "cases.html").read_text(encoding="utf-8")
    assert str(folders.output / "cases.html") in capsys.readouterr().out
    assert page.count('<img alt="Scan and reference') == 9
    assert page.index("<h3>p1_2:") < page.index("<h3>p0_1:") < page.index("<h3>p0_0:")
    # Several processes, and files that differ by rounding alone, give the same scores.
    (folders.predictions / "p0_0.nii.gz").rename(folders.predictions / "p0_0.NII.GZ")
    for folder, name, sign in ((folders.predictions, "p0_0.NII.GZ", 1), (folders.labels, "p0_0.nii.gz", -1)):
        image = nib.load(folder / name)
        array = np.asanyarray(image.dataobj) * 1.0
        # 0.001 mm of 11 voxels' edge lies far below a hundredth of a voxel at the corner.
        affine = image.affine + sign * 1e-3 * np.eye(4, k=3)
        save(folder / name, (array + sign * 0.0009 * (array > 0)).astype(np.float32), affine)
    assert evaluate(folders, workers=2, patient_pattern=r"^(p\d)_") == evaluation


def test_maps_turned_by_45_degrees_lie_on_one_another(folders: Folders, tmp_path: Path) -> None:
    """Their affines differ by rounding; each by itself would be turned to RAS in another way."""
    turn = nib.affines.from_matvec(Rotation.from_euler("z", 45, degrees=True).as_matrix())
    for case in ("p0_0", "p0_1", "p1_2"):
        for number, folder in enumerate((folders.predictions, folders.labels)):
            noise = np.random.default_rng([number, ord(case[-1])]).normal(0, 1e-6, (4, 4))
            save(folder / f"{case}.nii.gz", block(3), turn + np.diag([1, 1, 1, 0]) @ noise)
    orientations = {
        nib.aff2axcodes(nib.load(path).affine) for folder in folders[:2] for path in folder.glob("*.nii.gz")
    }
    assert len(orientations) > 1
    evaluation = evaluate(folders)
    assert evaluation.mean_dice == 1.0
    assert not evaluation.left_out


def test_a_sheared_grid_has_the_volumes_of_its_voxels_and_no_distances(
    folders: Folders, caplog: pytest.LogCaptureFixture
) -> None:
    sheared = AFFINE + 1.5 * np.diag([1, 0, 0, 0]) @ np.eye(4, k=1)  # y leans along x; base and height stay
    for folder in folders[:2]:
        save(folder / "p0_1.nii.gz", np.asarray(nib.load(folder / "p0_1.nii.gz").dataobj), sheared)
    evaluation = evaluate(folders)
    cases = read_cases(folders.output)
    assert [case.scores.reference_ml for case in cases] == pytest.approx([0.576] * 3)
    assert [case.scores.dice for case in cases] == pytest.approx([1.0, 0.75, 0.5])
    assert [case.scores.hd95_mm for case in cases] == pytest.approx([0.0, math.nan, 2.0], nan_ok=True)
    assert [np.isnan(case.scores.nsd) for case in cases] == [False, True, False]
    assert [message.partition(": the")[0] for message in caplog.messages] == ["case p0_1: label p0_1.nii.gz"]
    assert (evaluation.classes[0].metrics["hd95_mm"].nan, evaluation.classes[0].metrics["dice"].nan) == (1, 0)
    page = (folders.output / "cases.html").read_text(encoding="utf-8")
    assert ("HD95 not measured in 1 case" in page, "on both sides" in page) == (True, False)


def test_doubts_about_where_a_label_lies_are_said(folders: Folders, caplog: pytest.LogCaptureFixture) -> None:
    image = nib.load(folders.labels / "p1_2.nii.gz")
    image.header.set_xyzt_units("micron")
    thousandfold = np.diag([1000.0, 1000, 1000, 1]) @ AFFINE  # the same grid
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), thousandfold, image.header), folders.labels / "p1_2.nii.gz")
    evaluate(folders)
    (message,) = caplog.messages
    assert message.startswith("case p1_2: label p1_2.nii.gz: ")


def test_classes_that_a_case_lacks_are_counted(folders: Folders, caplog: pytest.LogCaptureFixture) -> None:
    named = evaluate(folders, class_names=("background", "head", "tail"))
    assert [(entry.name, entry.metrics["dice"].nan) for entry in named.classes] == [("head", 0), ("tail", 3)]
    assert not caplog.records
    save(folders.labels / "p1_2.nii.gz", block(2, value=255))
    found = evaluate(folders)
    assert [(entry.index, entry.name) for entry in found.classes] == [(1, "class_1"), (255, "class_255")]
    stray = found.classes[1].metrics["dice"]
    assert (stray.mean, stray.count, stray.nan) == (0.0, 1, 2)
    assert [record.args for record in caplog.records] == [("p1_2", 255)]


@pytest.mark.parametrize(("asked", "cores", "used"), [(99999999, 64, 3), (99999999, 2, 2), (3, 64, 3), (1, 1, 1)])
def test_no_more_processes_score_than_there_are_cases_and_cores(
    folders: Folders,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    asked: int,
    cores: int,
    used: int,
) -> None:
    class Pool(ThreadPoolExecutor):
        def __init__(self, workers: int, mp_context: object) -> None:
            assert workers == used
            super().__init__(1)

    monkeypatch.setattr(module, "ProcessPoolExecutor", Pool)
    monkeypatch.setattr(processes, "usable_cores", lambda: cores)
    evaluate(folders, workers=asked)
    assert [record.args[:3] for record in caplog.records] == [("--workers", used, asked)] * (used < asked)


def test_ignored_voxels_and_hidden_files_are_left_out(folders: Folders) -> None:
    label = block(2)
    label[6:] = 9
    save(folders.labels / "p0_1.nii.gz", label)
    (folders.labels / "._p0_1.nii.gz").write_bytes(b"resource fork")
    (folders.labels / "notes.txt").touch()
    evaluate(folders, ignore_label=9)
    # The prediction's last layer lies on ignored voxels; its first is missing: 3 of 3 + 4 layers.
    assert read_cases(folders.output)[1].scores.dice == pytest.approx(2 * 3 / 7)


def test_all_problems_of_all_cases_are_reported_at_once(folders: Folders) -> None:
    predictions, labels, output, _ = folders
    save(predictions / "alone.nii.gz", block())
    save(labels / "missed.nii.gz", block())
    for name in ("p2_3", "p2_4", "p2_5", "p3_6"):
        save(labels / f"{name}.nii.gz", block())
    save(predictions / "p0_0.nii.gz", block(shape=(12, 10, 9)))
    save(predictions / "p0_1.nii.gz", block(), np.diag([1.0, 2.0, 3.5, 1.0]))
    save(predictions / "p1_2.nii.gz", block() * 7)
    save(labels / "p1_2.nii.gz", block() * np.float32(0.5))
    (predictions / "p2_3.nii.gz").write_bytes(b"not a NIfTI")
    save(predictions / "p2_4.nii.gz", np.stack([block(), block()], axis=-1))
    save(predictions / "p2_5.nii.gz", np.where(block() > 0, np.float32(-1), np.nan).astype(np.float32))
    save(predictions / "p3_6.nii.gz", block())
    found = problems(folders, class_names=("background", "head"))
    assert found.pop(6)[:2] == (f"case p2_3: {predictions / 'p2_3.nii.gz'}", "damaged")
    assert found == [
        ("case alone", "counterpart", f"{predictions / 'alone.nii.gz'} alone"),
        ("case missed", "counterpart", f"{labels / 'missed.nii.gz'} alone"),
        ("case p0_0: prediction", "shape", "(12, 10, 9)"),
        ("case p0_1: prediction", "affine", "3.5 mm"),
        ("case p1_2: prediction", "classes", "7"),
        ("case p1_2: label", "integers", "0.5"),
        (f"case p2_4: {predictions / 'p2_4.nii.gz'}", "axes", "shape (12, 10, 8, 2)"),
        ("case p2_5: prediction", "integers", "nan"),
        ("--leave_out", "leave_out", ""),
    ]
    assert not output.exists()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", ["inf", "-inf", "nan"])
def test_voxels_that_are_not_finite_are_named_and_nothing_else_is_said(folders: Folders, value: str) -> None:
    for folder in folders[:2]:
        save(folder / "p0_1.nii.gz", np.where(block() > 0, np.float32(value), np.float32(0)))
    found = [("case p0_1: prediction", "integers", value), ("case p0_1: label", "integers", value)]
    assert problems(folders)[:2] == found


def test_cases_that_cannot_be_scored_are_left_out_on_request(
    folders: Folders, capsys: pytest.CaptureFixture[str]
) -> None:
    predictions, labels, output, _ = folders
    save(labels / "x<b>.nii.gz", block(2))
    (predictions / "p1_2.nii.gz").write_bytes((predictions / "p1_2.nii.gz").read_bytes()[:99])
    assert problems(folders)[-1][0] == "--leave_out"
    left = evaluate(folders, leave_out=True)
    assert [problem.path.partition(":")[0] for problem in left.left_out] == ["case x<b>", "case p1_2"]
    assert read_evaluation(output) == left
    assert "\n2 cases of 2 patients; " in capsys.readouterr().out
    page = (output / "cases.html").read_text(encoding="utf-8")
    head = page[page.index("<header>") : page.index("</header>")]
    assert all(f"<li>{problem}</li>" in html.unescape(head) for problem in left.left_out)
    assert "x<b>" not in page
    # The rest is scored as a folder that never held the others.
    for path in (predictions / "p1_2.nii.gz", labels / "p1_2.nii.gz", labels / "x<b>.nii.gz"):
        path.unlink()
    alone = evaluate(folders)
    assert (left.mean_dice, left.num_cases, left.classes) == (alone.mean_dice, 2, alone.classes)


def test_where_no_case_can_be_scored_none_is_left_out(folders: Folders) -> None:
    for path in folders.predictions.iterdir():
        path.write_bytes(b"no image")
    paths = [path for path, _, _ in problems(folders, leave_out=True)]
    assert [path.split(":")[0] for path in paths] == ["case p0_0", "case p0_1", "case p1_2"]
    assert not folders.output.exists()


def test_a_folder_is_not_scored_against_itself(folders: Folders, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folders.labels)
    (linked := tmp_path / "linked").mkdir()
    for path in folders.labels.iterdir():
        (linked / path.name).symlink_to(path)
    for same in (folders.labels, folders.labels / ".." / "labels", tmp_path / "link", linked):
        assert [one[:2] for one in problems(folders._replace(predictions=same))] == [(str(folders.labels), "same")]
    (linked / "p0_0.nii.gz").unlink()
    save(linked / "p0_0.nii.gz", block(3))
    assert evaluate(folders._replace(predictions=linked)).mean_dice < 1  # what was corrected in some cases


@pytest.mark.parametrize(
    ("file", "place"), [("config.yaml", ""), ("fold_3/config.yaml", "fold_3"), ("cases.csv", "cases.csv")]
)
def test_scores_replace_none_of_a_run_and_no_file_of_somebody_else(
    folders: Folders, file: str, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = folders.output / file
    own.parent.mkdir(parents=True)
    own.write_text("mine\n")
    monkeypatch.chdir(folders.output)
    with refused((str(folders.output / place), "exists")):
        evaluate(folders)
    assert [path for path in folders.output.rglob("*") if path.is_file()] == [own]
    assert own.read_text() == "mine\n"
    own.unlink()
    if place:  # a folder of that name alone is no run
        assert evaluate(folders) == evaluate(folders)


@pytest.mark.parametrize("pattern", ["(p", "p", "(p0)"])
def test_a_wrong_pattern_is_named(folders: Folders, pattern: str) -> None:
    ((path, _, value),) = problems(folders, patient_pattern=pattern)
    assert "patient_pattern" in path or path == "case p1_2", value


def test_folders_that_hold_no_pairs_are_named(folders: Folders, tmp_path: Path) -> None:
    none = tmp_path / "none"
    assert problems(folders._replace(predictions=none)) == [(str(none), "missing", "no such folder")]
    assert problems(folders, images=none) == [(str(none), "missing", "no such folder")]
    none.touch()
    assert problems(folders._replace(predictions=none)) == [(str(none), "folder", "")]
    assert problems(folders._replace(predictions=tmp_path)) == [(str(tmp_path), "empty", "none")]
    for name in ("p0_1_0000.nii.gz", "p1_2.nii"):
        (folders.images / name).unlink()
    assert [one[:2] for one in problems(folders, images=folders.images)] == [
        ("case p0_1", "image"),
        ("case p1_2", "image"),
    ]
    save(folders.predictions / "p0_0.nii", block())
    assert problems(folders) == [("case p0_0", "twice", f"p0_0.nii and p0_0.nii.gz in {folders.predictions}")]
    (folders.predictions / "p0_0.nii").unlink()
    for path in (*folders.predictions.iterdir(), *folders.labels.iterdir()):
        save(path, block(value=0))
    assert problems(folders) == [(str(folders.labels), "empty", "none")]
    assert not folders.output.exists()


def test_a_case_that_does_not_fit_in_memory_is_named(folders: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    read = module.read_label

    def first_is_too_large(path: Path, **named: Any) -> Any:
        if path.name == "p0_0.nii.gz":
            raise MemoryError
        return read(path)

    monkeypatch.setattr(module, "read_label", first_is_too_large)
    assert problems(folders)[0] == ("case p0_0", "memory", "p0_0.nii.gz that does not")
    assert evaluate(folders, leave_out=True).num_cases == 2


def test_a_process_that_is_ended_is_said_to_be(folders: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_score_files", die)
    with pytest.raises(RunError) as caught:
        evaluate(folders, workers=2)
    assert [problem.kind for problem in caught.value.problems] == ["ended"]
    assert not folders.output.exists()


@pytest.mark.filterwarnings("ignore")
def test_images_may_be_of_any_format_that_is_predicted(folders: Folders, caplog: pytest.LogCaptureFixture) -> None:
    sitk = pytest.importorskip("SimpleITK", reason="writes files with SimpleITK; pip install SimpleITK")
    pytest.importorskip("pydicom", reason="reads what is no NIfTI; pip install '.[formats]'")
    images = folders.images
    for name, ending in (("p0_0.nii.gz", "p0_0.mha"), ("p0_1_0000.nii.gz", "p0_1_0000.NRRD")):
        image = sitk.Cast(sitk.ReadImage(str(images / name)), sitk.sitkInt16)
        sitk.WriteImage(image, str(images / ending.lower()))
        (images / ending.lower()).rename(images / ending)
        (images / name).unlink()
    (images / "p1_2.nii").unlink()
    (images / "p1" / "2").mkdir(parents=True)
    for z in range(image.GetSize()[2]):
        part = image[:, :, z]
        place = image.TransformIndexToPhysicalPoint((0, 0, z))
        for tag, value in {
            "0008|0060": "MR",
            "0020|000e": "1.2.3",
            "0020|0013": str(z),
            "0020|0032": "\\".join(map(str, place)),
            "0020|0037": "\\".join(str(number) for number in np.reshape(image.GetDirection(), (3, 3)).T[:2].ravel()),
        }.items():
            part.SetMetaData(tag, value)
        writer = sitk.ImageFileWriter()
        writer.KeepOriginalImageUIDOn()
        writer.SetFileName(str(images / "p1" / "2" / f"{z}.dcm"))
        writer.Execute(part)
    evaluate(folders, images=images)
    assert caplog.messages == []
    assert (folders.output / "cases.html").read_text(encoding="utf-8").count('<img alt="Scan and reference') == 9


def test_the_script_writes_the_page_without_images_and_without_torch(folders: Folders) -> None:
    named = ["--predictions", folders.predictions, "--labels", folders.labels, "--output", folders.output]
    command = [sys.executable, "-X", "importtime", str(SCRIPT), *map(str, named)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (folders.output / "cases.html").is_file()
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "seg.figures.page" in imported
    assert "torch" not in imported


def test_a_fold_of_real_cases_is_scored(data_root: Callable[[str], Path], folders: Folders, tmp_path: Path) -> None:
    root, real = data_root("Task04_Hippocampus"), folders._replace(predictions=tmp_path / "p", labels=tmp_path / "l")
    cases = json.loads((root / "splits_final.json").read_text())[0]["val"]
    for case in cases:
        image = nib.load(root / "labelsTr" / f"{case}.nii.gz")
        label = np.asarray(image.dataobj).astype(np.uint8)
        eroded = np.where(ndimage.binary_erosion(label > 0), label, 0).astype(np.uint8)
        save(real.labels / f"{case}.nii.gz", label, image.affine)
        save(real.predictions / f"{case}.nii.gz", eroded, image.affine)
    evaluation = evaluate(real)
    assert evaluation.num_cases == len(cases) == 40
    # An erosion moves the surface by one voxel of 1 mm.
    assert [entry.metrics["nsd"].mean for entry in evaluation.classes] == pytest.approx([1.0, 1.0], abs=0.05)
