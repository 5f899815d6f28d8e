"""The direct path gives what MONAI's transforms give in training."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest

from seg.config import CtConfig, DataConfig
from seg.data import memory
from seg.data.images import read_image
from seg.data.transforms import preparation
from seg.errors import DataError
from seg.inference.preparing import prepare

COS, SIN = np.cos(0.3), np.sin(0.3)
ROTATED = nib.affines.from_matvec(
    np.array([[COS, -SIN, 0], [SIN, COS, 0], [0, 0, 1]]) @ np.diag([1.0, 1.3, 2.5]), [3, 4, 5]
)
SHEARED = nib.affines.from_matvec(np.array([[0.9, -0.52, 0.2], [0.3, 1.4, -0.4], [0.0, 0.37, 2.0]]), [4, -7, 11])
AFFINES = {
    "identity": np.eye(4),
    "LPS": np.diag([-1.0, -1.5, 2.0, 1.0]),
    "permuted": np.array([[0, 0, 2, 5], [-1, 0, 0, 6], [0, 1.5, 0, 7], [0, 0, 0, 1.0]]),
    "rotated": ROTATED,
    "rotated and flipped": ROTATED @ np.diag([-1.0, 1, -1, 1]),
    "sheared": SHEARED,
}


def check(paths, config, channels=("MRI",)):
    expected = preparation(config, with_label=False)({"image": [str(path) for path in paths]})["image"]
    found = prepare(read_image(paths, channels), config)
    assert found.image.shape == expected.shape
    np.testing.assert_allclose(found.image.numpy(), expected.as_tensor().numpy(), atol=2e-6)
    np.testing.assert_allclose(found.affine, expected.affine.numpy(), atol=1e-10)
    own = nib.load(paths[0])
    assert found.target.shape == own.shape[:3]


def save(path, array, affine, slope=None):
    image = nib.Nifti1Image(array, affine)
    if slope is not None:
        image.header.set_slope_inter(*slope)
    nib.save(image, path)
    return path


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("spacing_mm", [None, (1.0, 1.0, 1.0), (1.2, 0.8, 3.0)])
@pytest.mark.parametrize("name", AFFINES)
def test_it_equals_training_on_every_grid(tmp_path, name, spacing_mm):
    array = (np.random.default_rng(0).random((13, 11, 9)) * 1000).astype(np.int16)
    path = save(tmp_path / "a.nii.gz", array, AFFINES[name], slope=(0.37, -3.1))
    check([path], DataConfig(spacing_mm=spacing_mm))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64, ">i2", ">f4"])
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_it_equals_training_for_every_type(tmp_path, dtype, ending):
    array = (np.random.default_rng(0).random((6, 5, 4)) * 200).astype(dtype)
    check([save(tmp_path / f"a{ending}", array, AFFINES["LPS"])], DataConfig(normalization=("none",)))


@pytest.mark.filterwarnings("ignore")
def test_it_equals_training_for_several_channels(tmp_path):
    array = (np.random.default_rng(0).random((6, 5, 4, 2)) * 200).astype(np.float32)
    ct = CtConfig(lower=(0.0, 20.0), upper=(150.0, 180.0), mean=(80.0, 90.0), std=(30.0, 20.0))
    config = DataConfig(normalization=("ct", "zscore"), ct=ct, spacing_mm=(1.5, 1.5, 1.5))
    stacked = save(tmp_path / "a.nii.gz", array, AFFINES["permuted"])
    check([stacked], config, ("CT", "PET"))
    files = [save(tmp_path / f"a_000{n}.nii", array[..., n], AFFINES["permuted"]) for n in range(2)]
    check(files, config, ("CT", "PET"))
    check([save(tmp_path / "b.nii", array[..., :1, None], np.eye(4))], DataConfig())


@pytest.mark.filterwarnings("ignore")
def test_it_equals_training_where_sform_and_voxel_sizes_disagree(tmp_path):
    path = save(tmp_path / "a.nii", np.random.default_rng(0).random((6, 5, 4)).astype(np.float32), np.eye(4))
    content = bytearray(path.read_bytes())
    content[280:284] = np.float32(-2.5).tobytes()  # srow_x[0]
    path.write_bytes(content)
    check([path], DataConfig())


@pytest.mark.filterwarnings("ignore")
def test_it_equals_training_on_real_images(data_root):
    root = data_root("Task04_Hippocampus")
    entries = json.loads((root / "dataset.json").read_text())["training"][:3]
    for entry in entries:
        check([root / entry["image"]], DataConfig(spacing_mm=(1.0, 1.2, 0.9)))


def test_a_grid_that_would_not_fit_is_refused_before_it_is_made(tmp_path, monkeypatch):
    path = save(tmp_path / "a.nii", np.zeros((6, 5, 4), np.uint8), np.diag([1e4, 1e4, 1e4, 1.0]))
    image = read_image([path], ("MRI",))
    monkeypatch.setattr(memory, "available_bytes", lambda: 8 << 30)
    with pytest.raises(DataError) as caught:
        prepare(image, DataConfig(spacing_mm=(1.0, 1.0, 1.0)))
    assert str(caught.value).startswith(
        "image of shape (50001, 40001, 30001) at the network's 1 x 1 x 1 mm must fit in memory, got 2.24e+05 GiB with "
        "8 GiB available; crop"
    )
