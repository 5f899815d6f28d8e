from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from seg.errors import DataError
from seg.pipeline import FolderPair, evaluate_pair

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
    assert page.count("data:image/png;base64,") == 9
    assert "<h1>predictions against labels</h1>" in page
    assert page.index("<h3>c:") < page.index("<h3>b:") < page.index("<h3>a:")


def test_a_case_without_its_image_stops_before_the_scoring(pair: FolderPair) -> None:
    assert pair.images is not None
    (pair.images / "b_0000.nii.gz").unlink()
    (pair.images / "c.nii").unlink()
    with pytest.raises(DataError) as caught:
        evaluate_pair(pair, nsd_tolerance_mm=1.0)
    assert caught.value.problems == tuple(
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
    assert "outlines stand on a blank ground" in (pair.output / "cases.html").read_text(encoding="utf-8")
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "seg.figures.page" in imported
    assert "torch" not in imported
