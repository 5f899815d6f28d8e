from __future__ import annotations

import html
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from seg.errors import DataError
from seg.workflows.folders import FolderPair, evaluate_pair

SCRIPT = Path(__file__).parents[2] / "scripts" / "evaluate.py"


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.diag([1.0, 2.0, 3.0, 1.0])), path)


@pytest.fixture
def pair(tmp_path: Path) -> FolderPair:
    """Three cases: an image of its own name, one of nnU-Net's, and one with channels on its last axis."""
    for number, name in enumerate(("a.nii.gz", "b_0000.nii.gz", "c.nii")):
        label = np.zeros((12, 10, 8), np.uint8)
        label[2:6, 2:8, 2:6] = 1
        save(tmp_path / "labels" / f"{name[0]}.nii.gz", label)
        save(tmp_path / "predictions" / f"{name[0]}.nii.gz", np.roll(label, number, axis=0))
        image = np.random.default_rng(number).normal(size=(*label.shape, 2) if number == 2 else label.shape)
        save(tmp_path / "images" / name, image.astype(np.float32))
    return FolderPair(
        predictions=tmp_path / "predictions",
        labels=tmp_path / "labels",
        output=tmp_path / "output",
        images=tmp_path / "images",
    )


def test_two_folders_and_their_images_become_a_page(pair: FolderPair, capsys: pytest.CaptureFixture[str]) -> None:
    evaluation = evaluate_pair(pair, nsd_tolerance_mm=1.0)
    assert evaluation.mean_dice == pytest.approx((1.0 + 0.75 + 0.5) / 3)
    assert f"cases: {pair.output / 'cases.html'}" in capsys.readouterr().out
    page = (pair.output / "cases.html").read_text(encoding="utf-8")
    assert page.count('<img alt="Scan and reference') == 9
    assert "<h1>predictions against labels</h1>" in page
    assert page.index("<h3>c:") < page.index("<h3>b:") < page.index("<h3>a:")


@pytest.mark.filterwarnings("ignore")
def test_images_may_be_of_any_format_that_is_predicted(pair: FolderPair, caplog: pytest.LogCaptureFixture) -> None:
    sitk = pytest.importorskip("SimpleITK", reason="writes files with SimpleITK; pip install SimpleITK")
    for package in ("SimpleITK", "pydicom"):
        pytest.importorskip(package, reason="reads what is no NIfTI; pip install '.[formats]'")
    assert pair.images is not None
    for name, ending in (("a.nii.gz", "a.mha"), ("b_0000.nii.gz", "b_0000.NRRD")):
        image = sitk.Cast(sitk.ReadImage(str(pair.images / name)), sitk.sitkInt16)
        sitk.WriteImage(image, str(pair.images / ending.lower()))
        (pair.images / ending.lower()).rename(pair.images / ending)
        (pair.images / name).unlink()
    (pair.images / "c.nii").unlink()
    for path in (pair.labels / "c.nii.gz", pair.predictions / "c.nii.gz"):
        path.rename(path.with_name("P_S.nii.gz"))
    (pair.images / "P" / "S").mkdir(parents=True)
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
        writer.SetFileName(str(pair.images / "P" / "S" / f"{z}.dcm"))
        writer.Execute(part)
    evaluate_pair(pair, nsd_tolerance_mm=1.0)
    assert "without its image" not in caplog.text
    page = (pair.output / "cases.html").read_text(encoding="utf-8")
    assert page.count('<img alt="Scan and reference') == 9
    assert "Images show the first channel" in page


def test_what_was_left_out_is_named_in_the_head_of_the_page(
    pair: FolderPair, capsys: pytest.CaptureFixture[str]
) -> None:
    (pair.predictions / "b.nii.gz").write_bytes((pair.predictions / "b.nii.gz").read_bytes()[:99])
    (pair.predictions / "c.nii.gz").rename(pair.predictions / "x<b>.nii.gz")
    evaluation = evaluate_pair(pair, nsd_tolerance_mm=1.0, leave_out=True)
    page = (pair.output / "cases.html").read_text(encoding="utf-8")
    head = page[page.index("<header>") : page.index("</header>")]
    assert len(evaluation.left_out) == 3
    assert "<strong>Not all cases were scored</strong>, and these means leave them out (3 problems):" in head
    for problem in evaluation.left_out:
        assert f"<li>{problem}</li>" in html.unescape(head)
    assert "x<b>" not in page
    assert "\n1 case of 1 patient; NSD at 1 mm" in capsys.readouterr().out


def test_a_case_without_its_image_stops_before_the_scoring(pair: FolderPair) -> None:
    assert pair.images is not None
    (pair.images / "b_0000.nii.gz").unlink()
    (pair.images / "c.nii").unlink()
    with pytest.raises(DataError) as caught:
        evaluate_pair(pair, nsd_tolerance_mm=1.0)
    assert caught.value.sentences == tuple(
        f"case {case_id}: {pair.images} must hold its image, got no {case_id}.nii.gz and no {case_id}_0000.nii.gz; "
        "add it or leave --images out."
        for case_id in ("b", "c")
    )
    assert not pair.output.exists()


def test_images_lie_in_a_folder(pair: FolderPair) -> None:
    missing = pair.output / "images"
    with pytest.raises(DataError, match=r"images is not a folder; give the folder that holds the images\.$"):
        evaluate_pair(
            FolderPair(predictions=pair.predictions, labels=pair.labels, output=pair.output, images=missing),
            nsd_tolerance_mm=1.0,
        )


def test_the_script_writes_the_page_without_images_and_without_torch(pair: FolderPair) -> None:
    command = [sys.executable, "-X", "importtime", str(SCRIPT), "--predictions", str(pair.predictions)]
    done = subprocess.run(
        [*command, "--labels", str(pair.labels), "--output", str(pair.output)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "labels stand on a blank ground" in (pair.output / "cases.html").read_text(encoding="utf-8")
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "seg.figures.page" in imported
    assert "torch" not in imported
