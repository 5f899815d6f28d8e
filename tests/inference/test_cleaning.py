"""Removal of components against components of the whole volume, and volumes of classes."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage

from seg.config import PostprocessingConfig
from seg.errors import ConfigError, DataError
from seg.inference import cleaning
from seg.inference.cleaning import CleaningRule, clean_labels, cleaning_rules, file_volumes

NAMES = ("background", "liver", "tumour")
VOXEL_ML = 0.01


def blocks() -> npt.NDArray[np.uint8]:
    """Class 1: 64, 8 and 1 voxels apart; class 2: 27 voxels and, touching by a corner, 1."""
    labels = np.zeros((20, 12, 10), np.uint8)
    labels[1:5, 1:5, 1:5] = 1
    labels[8:10, 1:3, 1:3] = 1
    labels[15, 1, 1] = 1
    labels[8:11, 6:9, 5:8] = 2
    labels[11, 9, 8] = 2
    return labels


@pytest.mark.parametrize(
    ("config", "removed", "left"),
    [
        (PostprocessingConfig(), {}, [73, 28]),
        (PostprocessingConfig(largest_component=("liver",)), {1: 0.09}, [64, 28]),
        (PostprocessingConfig(min_volume_ml=(0.08, 0.28)), {1: 0.01, 2: 0.0}, [72, 28]),
        (PostprocessingConfig(min_volume_ml=(0.3,)), {1: 0.09, 2: 0.28}, [64, 0]),
        (PostprocessingConfig(largest_component=("tumour",), min_volume_ml=(0.0, 1.0)), {2: 0.28}, [73, 0]),
    ],
)
def test_components_go_by_size_and_volume(
    config: PostprocessingConfig, removed: dict[int, float], left: list[int]
) -> None:
    labels = blocks()
    assert clean_labels(labels, cleaning_rules(config, NAMES), VOXEL_ML) == pytest.approx(removed)
    assert [np.count_nonzero(labels == index) for index in (1, 2)] == left
    assert ((labels == blocks()) | (labels == 0)).all()


def test_a_class_that_is_absent_has_nothing_to_remove() -> None:
    labels = np.zeros((3, 3, 3), np.uint16, order="F")
    config = PostprocessingConfig(largest_component=("liver", "tumour"))
    assert clean_labels(labels, cleaning_rules(config, NAMES), VOXEL_ML) == {1: 0.0, 2: 0.0}


def test_rules_that_do_not_fit_the_data_set_are_named_together() -> None:
    config = PostprocessingConfig(largest_component=("liver", "background", "spleen"), min_volume_ml=(1.0, 2.0, 3.0))
    with pytest.raises(ConfigError) as caught:
        cleaning_rules(config, NAMES)
    assert [(problem.path, problem.value) for problem in caught.value.problems] == [
        ("postprocessing.largest_component", "'background'"),
        ("postprocessing.largest_component", "'spleen'"),
        ("postprocessing.min_volume_ml", "3"),
    ]


def cleaned_whole(labels: npt.NDArray[np.uint8], index: int, rule: CleaningRule) -> npt.NDArray[np.uint8]:
    """What must be left of a class, from components of the whole volume."""
    components, count = ndimage.label(labels == index, structure=np.ones((3, 3, 3)))
    sizes = [int(np.sum(components == number)) for number in range(1, count + 1)]
    # The first of the largest in the order in which scipy numbers them: along Z first and along X last.
    kept = {number for number, size in enumerate(sizes, start=1) if size * VOXEL_ML >= rule.min_volume_ml - 1e-9}
    if rule.largest:
        kept &= {sizes.index(max(sizes)) + 1}
    return np.where((labels == index) & ~np.isin(components, list(kept)), 0, labels).astype(np.uint8)


@pytest.mark.parametrize("slab_voxels", [1, 300, 1000, 10**6])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("share", [0.03, 0.12, 0.3])  # stray voxels with many ties, branches, one large component
def test_slabs_clean_as_the_whole_volume(
    monkeypatch: pytest.MonkeyPatch, slab_voxels: int, order: str, share: float
) -> None:
    monkeypatch.setattr(cleaning, "SLAB_VOXELS", slab_voxels)
    rng = np.random.default_rng(int(100 * share))
    labels = np.asarray(rng.choice(3, (17, 12, 11), p=[1 - 2 * share, share, share]), np.uint8, order=order)
    labels[:2] = labels[:, :1] = 0  # the classes' box is not the volume
    rules = {1: CleaningRule(True, 0.0), 2: CleaningRule(False, 0.05)}
    expected = cleaned_whole(cleaned_whole(labels, 1, rules[1]), 2, rules[2])
    counts = {index: np.sum(labels == index) - np.sum(expected == index) for index in rules}
    removed = clean_labels(labels, rules, VOXEL_ML)
    np.testing.assert_array_equal(labels, expected)
    assert removed == {index: pytest.approx(0.01 * count) for index, count in counts.items()}
    assert min(counts.values()) > 0 or share == 0.3


def test_memory_is_that_of_a_slab(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cleaning, "SLAB_VOXELS", 1 << 16)
    labels = np.zeros((128, 128, 128), np.uint8, order="F")
    labels[1:, 2:] = 1
    labels[60:64] = 0
    rules = cleaning_rules(PostprocessingConfig(largest_component=("liver",)), NAMES)
    clean_labels(labels[:2], rules, VOXEL_ML)  # what is imported and made once is no part of it
    tracemalloc.start()
    clean_labels(labels, rules, VOXEL_ML)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < labels.size  # of the whole class at once, 12 bytes a voxel
    assert np.count_nonzero(labels) == 64 * 126 * 128


def write(path: Path, array: npt.NDArray[np.generic], slope: float | None = None) -> Path:
    """Writes a label map of oblique voxels of 0.015 ml."""
    turned = nib.eulerangles.euler2mat(0.1, 0.2, 0) @ np.diag([2, -2.5, 3])
    image = nib.Nifti1Image(array, nib.affines.from_matvec(turned))
    if slope is not None:
        image.header.set_slope_inter(slope, 0)
    nib.save(image, path)
    return path


@pytest.mark.parametrize(("dtype", "slope"), [(np.uint8, None), (np.uint8, 0.5), (np.float32, None), (">i4", None)])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_volumes_are_voxels_of_the_file_times_their_size(
    tmp_path: Path, dtype: npt.DTypeLike, slope: float | None, name: str
) -> None:
    labels = np.random.default_rng(0).choice(3, (7, 6, 5), p=[0.6, 0.3, 0.1]).astype(dtype)
    path = write(tmp_path / name, labels if slope is None else 2 * labels, slope)
    values = np.asarray(nib.load(path).dataobj)
    expected = {name: 0.015 * np.sum(values == index) for index, name in enumerate(NAMES[1:], 1)}
    assert file_volumes(path, NAMES) == pytest.approx(expected)


@pytest.mark.parametrize("value", [3, -1, 0.5, np.nan, 1e30])
def test_values_that_are_no_class_are_named(tmp_path: Path, value: float) -> None:
    array = np.zeros((7, 6, 5), np.float32)
    array[3, 2, 1] = value
    path = write(tmp_path / "a.nii.gz", array)
    with pytest.raises(DataError) as caught:
        file_volumes(path, NAMES)
    (problem,) = caught.value.problems
    assert (problem.path, problem.kind, problem.value) == (f"{path}: labels", "classes", f"{value:g}")
