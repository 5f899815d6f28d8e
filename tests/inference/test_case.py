"""One case from its files to a label map on its own grid, whatever the files' orientation and storage."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from torch import nn

from seg.config import AugmentationConfig, DataConfig, ExperimentConfig, InferenceConfig, PatchConfig, SpatialConfig
from seg.errors import DataError
from seg.inference.model import Model, autocast, model_from_config
from seg.inference.predictor import Predictor, predict_case
from tests.data.test_prepare import AXES, CHANGES, save, scan, stored
from tests.inference.sweeps import network

SHAPE = (9, 7, 5)
CPU = torch.device("cpu")
OBLIQUE = nib.affines.from_matvec(
    np.array([[0.9, -0.35, 0.1], [0.3, 0.95, -0.2], [0.0, 0.25, 1.0]]) @ np.diag([1.0, 1.5, 2.0]), [4, -7, 11]
)
AFFINES = {
    "identity": np.eye(4),
    "anisotropic": np.diag([0.5, 0.7, 3.0, 1.0]),
    "LPS": np.diag([-1.0, -1.5, 2.0, 1.0]),
    "permuted": np.array([[0, 0, 2, 5], [-1, 0, 0, 6], [0, 1.5, 0, 7], [0, 0, 0, 1.0]]),
    "permuted and flipped": np.array([[0, -1, 0, 5], [0, 0, -2, 6], [1.5, 0, 0, 7], [0, 0, 0, 1.0]]),
    "oblique": OBLIQUE,
    "oblique, flipped": OBLIQUE @ np.diag([-1.0, 1, -1, 1]),
    "oblique, permuted": OBLIQUE[:, [2, 0, 1, 3]],
}


class Threshold(nn.Module):
    """Class 1 above 40, class 2 above 60, voxel by voxel."""

    def forward(self, image):
        value = image[:, :1]
        return torch.cat((torch.full_like(value, 20.0), value - 20, 2 * value - 80), dim=1)


def thresholded(array):
    return (array > 40).astype(np.uint8) + (array > 60)


def experiment(spacing_mm=None, tta=False, mirror_axes=(), normalization="none"):
    return ExperimentConfig(
        data=DataConfig(normalization=(normalization,), spacing_mm=spacing_mm),
        patches=PatchConfig(size=(8, 8, 8)),
        augmentation=AugmentationConfig(spatial=SpatialConfig(mirror_axes=mirror_axes)),
        inference=InferenceConfig(tta=tta),
    )


def write_case(folder: Path, array: np.ndarray, affine: np.ndarray) -> tuple[Path, ...]:
    nib.save(nib.Nifti1Image(array.astype(np.float32), affine), folder / "image.nii.gz")
    return (folder / "image.nii.gz",)


def predict(case, config=None, network=None, channels=1):
    config = config or experiment()
    predictor = Predictor(
        models=[model_from_config(network or Threshold().eval(), config, device=CPU, precision="fp32")],
        data=config.data,
        channel_names=("MRI", "PET")[:channels],
        class_names=("background", "low", "high"),
    )
    return predict_case(predictor, case)


def noise(shape=SHAPE):
    # Integers and a half keep clear of the thresholds.
    return np.random.default_rng(0).integers(0, 100, shape) + 0.5


def blobs(shape):
    """Smooth intensities between 0 and 100, with both classes."""
    axes = [np.linspace(-1, 1, size) for size in shape]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    return 100 * np.exp(-((x - 0.15) ** 2 + (y + 0.2) ** 2 + 1.3 * (z - 0.1) ** 2) / 0.5)


@pytest.mark.parametrize("name", AFFINES)
def test_the_label_map_lies_on_the_grid_of_the_image(tmp_path, name):
    array = noise()
    case = write_case(tmp_path, array, AFFINES[name])
    done = predict(case)
    np.testing.assert_array_equal(done.labels, thresholded(array))
    np.testing.assert_array_equal(done.geometry.affine, nib.load(case[0]).affine)
    assert done.labels.dtype == np.uint8


@pytest.mark.parametrize("name", AFFINES)
@pytest.mark.parametrize("factor", [0.6, 1.3])
def test_resampling_there_and_back_keeps_the_objects_in_place(tmp_path, name, factor):
    array = blobs((30, 28, 26))
    case = write_case(tmp_path, array, AFFINES[name])
    own = nib.affines.voxel_sizes(nib.as_closest_canonical(nib.load(case[0])).affine)
    labels = predict(case, experiment(spacing_mm=tuple(float(factor * size) for size in own))).labels
    expected = thresholded(array)
    for value in (1, 2):
        overlap = 2 * np.sum((labels == value) & (expected == value))
        dice = overlap / (np.sum(labels == value) + np.sum(expected == value))
        assert dice > 0.95


@pytest.mark.parametrize("name", AFFINES)
def test_resampling_there_and_back_keeps_a_linear_image(tmp_path, name):
    shape = (15, 13, 14)
    # Linear interpolation is exact here, so no plane may move, not even by a fraction of a voxel.
    array = np.einsum("axyz,a->xyz", np.indices(shape), [1.31, 2.17, 2.83]) + 5.003
    case = write_case(tmp_path, array, AFFINES[name])
    own = nib.affines.voxel_sizes(nib.as_closest_canonical(nib.load(case[0])).affine)
    labels = predict(case, experiment(spacing_mm=tuple(float(1.7 * size) for size in own))).labels
    inside = np.s_[2:-2, 2:-2, 2:-2]  # The coarser grid may end short of the last voxels.
    np.testing.assert_array_equal(labels[inside], thresholded(array)[inside])
    assert set(np.unique(labels[inside])) == {0, 1, 2}


def test_the_spacing_of_the_image_itself_changes_nothing(tmp_path):
    array = noise()
    case = write_case(tmp_path, array, AFFINES["permuted"])
    labels = predict(case, experiment(spacing_mm=(2.0, 1.0, 1.5))).labels
    np.testing.assert_array_equal(labels, thresholded(array))


def test_a_trailing_axis_of_length_one_is_no_channel(tmp_path):
    array = noise()
    labels = predict(write_case(tmp_path, array[..., None], AFFINES["LPS"])).labels
    np.testing.assert_array_equal(labels, thresholded(array))


@pytest.mark.parametrize("together", [True, False])
def test_the_network_sees_every_channel(tmp_path, together):
    array = np.stack([noise(), noise()[::-1]], axis=-1)
    case = write_case(tmp_path, array, AFFINES["LPS"])
    if not together:
        paths = tuple(tmp_path / f"{channel}.nii" for channel in range(2))
        for channel, path in enumerate(paths):
            nib.save(nib.Nifti1Image(array[..., channel].astype(np.float32), AFFINES["LPS"]), path)
        case = paths

    class Second(Threshold):
        def forward(self, image):
            assert image.shape[1] == 2
            return super().forward(image[:, 1:])

    labels = predict(case, network=Second(), channels=2).labels
    np.testing.assert_array_equal(labels, thresholded(array[..., 1]))


class Left(nn.Module):
    """Class 1 in the first half of a window along X, whatever the image."""

    def forward(self, image):
        half = (torch.arange(image.shape[2]) < image.shape[2] // 2).float().view(1, 1, -1, 1, 1).expand_as(image)
        return torch.cat((torch.full_like(image, 0.75), half), dim=1)


@pytest.mark.parametrize(("tta", "axes", "found"), [(False, (0,), True), (True, (), True), (True, (0,), False)])
def test_mirrored_copies_are_averaged_along_the_axes_of_training_on_request(tmp_path, tta, axes, found):
    case = write_case(tmp_path, noise((8, 8, 8)), np.eye(4))
    labels = predict(case, experiment(tta=tta, mirror_axes=axes), Left()).labels
    # The average of a half and its mirror image is 0.5 everywhere, below the 0.75 of the background.
    assert bool(labels.any()) == found


@pytest.mark.parametrize(
    ("damage", "kind"),
    [
        (lambda path: path.unlink(), "missing"),
        (lambda path: path.write_bytes(path.read_bytes()[:-40]), "truncated"),
        (lambda path: path.write_text("no volume"), "damaged"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_a_file_that_cannot_be_read_is_named(tmp_path, damage, kind):
    case = write_case(tmp_path, noise(), np.eye(4))
    damage(case[0])
    with pytest.raises(DataError) as caught:
        predict(case)
    assert [(problem.path, problem.kind) for problem in caught.value.problems] == [(str(case[0]), kind)]


@pytest.mark.filterwarnings("error")
def test_a_single_voxel_is_segmented_with_a_sentence(tmp_path):
    done = predict(write_case(tmp_path, np.full((1, 1, 1), 70.0), np.eye(4)), experiment(normalization="zscore"))
    assert done.labels.tolist() == [[[0]]]  # which the network makes of 0
    assert len(done.warnings) == 1


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_autocast_computes_with_the_precision(precision, dtype):
    with autocast(CPU, precision):
        assert nn.Linear(2, 2)(torch.zeros(1, 2)).dtype == dtype


def ras_labels(predictor, paths):
    predicted = predict_case(predictor, paths)
    orientation = nib.io_orientation(predicted.geometry.affine)
    np.testing.assert_allclose(predicted.geometry.affine, nib.load(paths[0]).affine, rtol=1e-2)
    return nib.orientations.apply_orientation(predicted.labels, orientation)


@pytest.mark.parametrize("change", [name for name in CHANGES if name not in ("micron", "metre")])
@pytest.mark.parametrize("resampled", [False, True])
def test_how_a_scan_is_stored_changes_no_label(tmp_path, change, resampled):
    for seed in range(3):
        channels, _, affine, spacing_mm = scan(seed)
        predictor = Predictor(
            models=[Model(network=network(), window=(8, 8, 8))],
            data=DataConfig(spacing_mm=spacing_mm if resampled else None),
            channel_names=("a", "b"),
            class_names=("background", "organ", "tumour"),
        )
        plain = ras_labels(predictor, [save(tmp_path / f"{n}.nii", array, affine) for n, array in enumerate(channels)])
        orders = np.random.default_rng(seed).choice(AXES, 2)
        others = [
            stored(tmp_path / f"other{n}.nii", array, affine, codes, **CHANGES[change])
            for n, (array, codes) in enumerate(zip(channels, orders, strict=True))
        ]
        assert len(np.unique(plain)) > 1
        np.testing.assert_array_equal(ras_labels(predictor, others), plain)
