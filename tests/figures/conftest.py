"""Cases on disk and the pages written of them."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from seg.evaluation.metrics import score_case
from seg.evaluation.scores import CaseScore, Evaluation, case_scores
from seg.evaluation.summary import summarise
from seg.figures import About, CaseFiles, write_page
from tests.pages import Page


class Pages:
    """A folder in which cases are saved and pages are written."""

    names = ("background", "head", "<tail>")
    shape = (20, 24, 10)
    spacing_mm = (1.0, 1.5, 4.0)
    affine = np.diag([*spacing_mm, 1.0])
    about = About(title="a run", data_set="Test", licence="CC0", attribution="A & B", channel="T1")

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def labels(self) -> np.ndarray:
        array = np.zeros(self.shape, np.int16)
        array[6:12, 8:16, 3:7] = 1
        array[12:15, 8:12, 4:6] = 2
        return array

    def shifted(self, steps: int) -> tuple[np.ndarray, np.ndarray]:
        return np.roll(self.labels(), steps, axis=0), self.labels()

    def noise(self) -> np.ndarray:
        return np.random.default_rng(0).normal(size=self.shape)

    def save(self, path: Path, array: np.ndarray, affine: np.ndarray = affine) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(array, affine), path)
        return path

    def files(self, name: str, prediction: np.ndarray, reference: np.ndarray, image: np.ndarray | None) -> CaseFiles:
        folder = self.folder / name
        images = () if image is None else (self.save(folder / "image.nii.gz", image.astype(np.float32)),)
        return CaseFiles(
            prediction=self.save(folder / "prediction.nii.gz", prediction),
            label=self.save(folder / "label.nii.gz", reference),
            images=images,
        )

    def scored(self, pairs: dict[str, tuple[np.ndarray, np.ndarray]]) -> tuple[Evaluation, list[CaseScore]]:
        scores: list[CaseScore] = []
        for case_id, pair in pairs.items():
            values = score_case(*pair, spacing_mm=self.spacing_mm, num_classes=3, nsd_tolerance_mm=1.0)
            scores += case_scores(values, case_id=case_id, class_names=self.names)
        return summarise(scores, class_names=self.names, nsd_tolerance_mm=1.0, bootstrap_samples=50), scores

    def write(
        self,
        pairs: dict[str, tuple[np.ndarray, np.ndarray]],
        image: np.ndarray | None = None,
        about: About = about,
    ) -> Page:
        """Writes a page of cases, each a prediction and a reference by case id, all on one image."""
        sources = {
            case_id: self.files(str(number), *pair, image) for number, (case_id, pair) in enumerate(pairs.items())
        }
        write_page(self.folder / "cases.html", *self.scored(pairs), sources, about)
        return Page((self.folder / "cases.html").read_text(encoding="utf-8"))


@pytest.fixture
def pages(tmp_path: Path) -> Pages:
    return Pages(tmp_path)
