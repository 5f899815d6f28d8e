from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from seg.config import CtConfig, DataConfig
from seg.data.transforms import Normalized, SharedReader, preparation

RAW = DataConfig(normalization=("none",))
OBLIQUE = nib.affines.from_matvec(
    np.array([[0.9, -0.35, 0.1], [0.3, 0.95, -0.2], [0.0, 0.25, 1.0]]) @ np.diag([1.5, 2.0, 3.0]), [4, -7, 11]
)


def save(path: Path, array: np.ndarray, affine: np.ndarray | None = None) -> str:
    nib.save(nib.Nifti1Image(array, np.diag([1.5, 2.0, 3.0, 1.0]) if affine is None else affine), path)
    return str(path)


def volume(shape=(6, 5, 4), seed=0):
    return np.random.default_rng(seed).normal(50, 20, shape).astype(np.float32)


def load(config, image, label=None):
    item = {"image": [image] if isinstance(image, str) else image}
    return preparation(config, with_label=label is not None)(item if label is None else item | {"label": label})


def affine_of(codes):
    """Affine of a volume of 6x5x4 voxels of different sizes whose axes point as the codes say."""
    to_codes = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(codes)
    )
    return OBLIQUE @ nib.orientations.inv_ornt_aff(to_codes, (6, 5, 4))


def test_a_label_read_by_another_thread_costs_no_channel(tmp_path):
    files = [save(tmp_path / f"{seed}.nii.gz", volume(seed=seed)) for seed in range(3)]
    reader = SharedReader()
    image = reader.read(files[:2])
    reader.read(files[2:])  # what another thread does meanwhile
    array, _ = reader.get_data(image)
    np.testing.assert_array_equal(array, np.stack([volume(seed=0), volume(seed=1)]))


@pytest.mark.parametrize("codes", ["RAS", "LPS", "LAS", "RPI", "PIR", "ASL", "SLP", "IRA"])
def test_volumes_of_any_orientation_are_brought_to_the_closest_canonical(tmp_path, codes):
    affine, array = affine_of(codes), volume()
    assert "".join(nib.aff2axcodes(affine)) == codes
    label = (array > 50).astype(np.uint8)
    item = load(RAW, save(tmp_path / "i.nii.gz", array, affine), save(tmp_path / "l.nii.gz", label, affine))
    canonical = nib.as_closest_canonical(nib.Nifti1Image(array, affine))
    np.testing.assert_array_equal(item["image"][0], canonical.get_fdata())
    np.testing.assert_array_equal(item["label"][0], canonical.get_fdata() > 50)
    np.testing.assert_allclose(item["image"].affine, canonical.affine, atol=1e-5)
    np.testing.assert_allclose(item["label"].affine, canonical.affine, atol=1e-5)


def test_image_and_label_may_be_stored_in_different_orientations(tmp_path):
    array, affine = volume(), affine_of("RAS")
    flip = nib.orientations.axcodes2ornt("PIR")
    stored = nib.Nifti1Image((array > 50).astype(np.uint8), affine).as_reoriented(
        nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("RAS"), flip)
    )
    nib.save(stored, tmp_path / "l.nii")
    item = load(RAW, save(tmp_path / "i.nii", array, affine), str(tmp_path / "l.nii"))
    np.testing.assert_array_equal(item["label"][0].numpy(), item["image"][0].numpy() > 50)


def test_zscore_is_the_closed_form_per_channel(tmp_path):
    array = np.stack([volume(seed=0), 3 * volume(seed=1) - 200], axis=-1)
    image = load(DataConfig(), save(tmp_path / "i.nii", array))["image"]
    assert image.shape == (2, 6, 5, 4)
    for channel in range(2):
        values = array[..., channel].astype(np.float64)
        np.testing.assert_allclose(image[channel], (values - values.mean()) / values.std(ddof=1), atol=1e-5)


def test_zscore_of_a_constant_channel_is_zero(tmp_path):
    image = load(DataConfig(), save(tmp_path / "i.nii", np.full((6, 5, 4), 7, np.int16)))["image"]
    assert torch.equal(image.as_tensor(), torch.zeros(1, 6, 5, 4))


def test_ct_clips_to_the_window_and_applies_the_mean_and_deviation(tmp_path):
    array = np.stack([volume(seed=0), volume(seed=1)], axis=-1)
    ct = CtConfig(lower=(30.0, 45.0), upper=(60.0, 55.0), mean=(48.0, 50.0), std=(12.0, 4.0))
    path = save(tmp_path / "i.nii", array)
    image = load(DataConfig(normalization=("ct",), ct=ct), path)["image"]
    np.testing.assert_allclose(image[0], (np.clip(array[..., 0], 30, 60) - 48) / 12, atol=1e-5)
    np.testing.assert_allclose(image[1], (np.clip(array[..., 1], 45, 55) - 50) / 4, atol=1e-5)
    mixed = load(DataConfig(normalization=("none", "ct"), ct=ct), path)["image"]
    np.testing.assert_array_equal(mixed[0], array[..., 0])
    np.testing.assert_allclose(mixed[1], image[1])


def test_normalised_leaves_other_entries_alone():
    other = torch.ones(2)
    data = {"image": torch.randn(1, 2, 2, 2), "other": other}
    assert Normalized("image", ("zscore",), None)(data)["other"] is other


def test_a_4d_file_equals_separate_files(tmp_path):
    array, affine = np.stack([volume(seed=s) for s in range(3)], axis=-1), affine_of("LPS")
    together = load(DataConfig(), save(tmp_path / "all.nii.gz", array, affine))["image"]
    paths = [save(tmp_path / f"{c}.nii.gz", array[..., c], affine) for c in range(3)]
    apart = load(DataConfig(), paths)["image"]
    assert torch.equal(together.as_tensor(), apart.as_tensor())
    np.testing.assert_allclose(together.affine, apart.affine)


@pytest.mark.parametrize("extra", [(), (1,), (1, 1)])
def test_axes_of_length_one_behind_the_third_are_dropped(tmp_path, extra):
    array = volume()
    path = save(tmp_path / "i.nii.gz", array.reshape(*array.shape, *extra))
    label = save(tmp_path / "l.nii.gz", (array > 50).astype(np.uint8).reshape(*array.shape, *extra))
    item = load(RAW, path, label)
    np.testing.assert_array_equal(item["image"], array[None])
    np.testing.assert_array_equal(item["label"], array[None] > 50)


def test_labels_stored_as_floats_become_integers(tmp_path):
    label = np.random.default_rng(0).integers(0, 4, (6, 5, 4))
    noisy = (label + np.random.default_rng(1).uniform(-1e-4, 1e-4, label.shape)).astype(np.float64)
    item = load(RAW, save(tmp_path / "i.nii", volume()), save(tmp_path / "l.nii", noisy))
    assert item["label"].dtype == torch.uint8
    np.testing.assert_array_equal(item["label"][0], label)


@pytest.mark.parametrize("codes", ["RAS", "LPS", "PIR"])
def test_resampling_keeps_a_linear_function_of_place(tmp_path, codes):
    affine, shape, weights = affine_of(codes), (6, 5, 4), np.array([0.5, -1.0, 2.0])

    def intensity(grid, matrix):
        places = np.stack(np.meshgrid(*map(np.arange, grid), indexing="ij"), axis=-1)
        return nib.affines.apply_affine(matrix, places) @ weights

    array = intensity(shape, affine).astype(np.float32)
    config = DataConfig(normalization=("none",), spacing_mm=(1.0, 1.25, 2.0))
    path = save(tmp_path / "i.nii", array, affine)
    item = load(config, path, save(tmp_path / "l.nii", (array > array.mean()).astype(np.uint8), affine))
    image = item["image"]
    new_affine = image.affine.numpy()
    np.testing.assert_allclose(nib.affines.voxel_sizes(new_affine), config.spacing_mm, atol=1e-5)
    expected = intensity(image.shape[1:], new_affine)
    # Inside the original grid, where nothing is repeated from the border.
    back = np.linalg.inv(affine) @ new_affine
    places = np.stack(np.meshgrid(*map(np.arange, image.shape[1:]), indexing="ij"), axis=-1)
    source = nib.affines.apply_affine(back, places)
    inside = ((source >= 0) & (source <= np.array(shape) - 1)).all(-1)
    assert inside.mean() > 0.5
    np.testing.assert_allclose(image[0].numpy()[inside], expected[inside], atol=1e-3)
    # The label is that of the nearest voxel.
    nearest = np.rint(source[inside]).astype(int)
    clear = (np.abs(source[inside] - np.floor(source[inside]) - 0.5) > 1e-3).all(-1)
    wanted = array[tuple(nearest.T)] > array.mean()
    np.testing.assert_array_equal(item["label"][0].numpy()[inside][clear], wanted[clear])
    assert image.shape == item["label"].shape


def test_the_own_grid_is_kept_without_a_spacing(tmp_path):
    array = volume()
    image = load(RAW, save(tmp_path / "i.nii", array.astype(np.float64)))["image"]
    np.testing.assert_array_equal(image[0], array)
    assert image.dtype == torch.float32
