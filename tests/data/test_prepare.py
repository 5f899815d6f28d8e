"""Preparation against SciPy, and what must not change a voxel of it."""

from __future__ import annotations

from fractions import Fraction

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from monai import transforms
from scipy import ndimage
from scipy.spatial.transform import Rotation

from seg.config import CtConfig, DataConfig
from seg.data import memory
from seg.data.geometry import GRID_TOLERANCE
from seg.data.prepare import (
    CaseGrid,
    label_on_grid,
    nearest_label,
    normalize,
    prepare,
    read_channels,
    read_image,
    sampled_grid,
)
from tests.data.builders import problems_of, save
from tests.threads import torch_threads

SPACINGS = (0.45, 0.7421875, 0.9375, 1.0, 1.2, 1.5, 2.0, 3.3, 5.0)
AXES = ("RAS", "LPS", "LAS", "RPI", "PIR", "ASL", "SLP", "IRA", "AIL", "SAR")


def config(spacing_mm=None, **fields):
    return DataConfig(spacing_mm=spacing_mm, **{"normalization": ("none",), **fields})


def stored(path, array, affine, codes, **change):
    """Stores a volume with its axes in another order; ``change`` moves it, disturbs it or leaves a form out."""
    image = nib.Nifti1Image(array, affine)
    turn = nib.orientations.ornt_transform(nib.io_orientation(affine), nib.orientations.axcodes2ornt(codes))
    image = image.as_reoriented(turn)
    affine = image.affine.copy()
    affine[:3, 3] += change.get("moved", 0.0)
    affine[:3] *= 1 + change.get("noise", 0.0) * np.random.default_rng(3).choice([-1, 1], (3, 4))
    unit = change.get("unit", "mm")
    affine[:3] *= {"mm": 1, "micron": 1000, "meter": 0.001}[unit]
    image = nib.Nifti1Image(np.asarray(image.dataobj), affine)
    image.set_sform(affine, code=0 if change.get("form") == "qform" else 1)
    image.set_qform(affine, code=0 if change.get("form") == "sform" else 1)
    image.header.set_xyzt_units(unit)
    nib.save(image, path)
    return path


def scan(seed):
    """Makes an oblique scan of two channels and its label, all oriented to RAS, and a spacing to sample it at."""
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(6, 14, 3))
    turn = Rotation.from_rotvec(rng.uniform(-0.4, 0.4, 3)).as_matrix()
    affine = nib.affines.from_matvec(turn @ np.diag(rng.choice(SPACINGS, 3)), rng.uniform(-90, 90, 3))
    channels = rng.normal(50, 20, (2, *shape)).astype(np.float32)
    label = rng.integers(0, 5, shape).astype(np.uint8)
    return channels, label, affine, tuple(rng.choice(SPACINGS, 3))


def save_all(folder, channels, label, affine):
    images = [save(folder / f"{n}.nii", channel, affine) for n, channel in enumerate(channels)]
    return images, save(folder / "label.nii", label, affine)


def load(images, label, spacing_mm):
    image = read_image(images, ["a", "b"][: len(images)])
    sampled_label = label_on_grid(label, image.grid)
    array, step = prepare(image, config(spacing_mm))
    return array, nearest_label(sampled_label, step, array.shape[1:]), step


def expected(channels, label, affine, spacing_mm):
    """Samples with SciPy, in voxels of the scan; halves go to the lower voxel."""
    steps = np.asarray(spacing_mm) / np.linalg.norm(affine[:3, :3], axis=0)
    ends = (np.asarray(label.shape) - 1) / steps
    counts = np.ceil(np.round(ends - 0.5, 3)).astype(int) + 1
    places = np.stack(np.meshgrid(*(np.arange(n) * step for n, step in zip(counts, steps, strict=True)), indexing="ij"))
    images = [ndimage.map_coordinates(c.astype(float), places, order=1, mode="nearest") for c in channels]
    nearest = np.ceil(np.round(places - 0.5, 4)).astype(int)
    indices = tuple(np.clip(nearest[axis], 0, label.shape[axis] - 1) for axis in range(3))
    return np.stack(images), label[indices], steps


@pytest.mark.parametrize("seed", range(20))
def test_oblique_scans_are_sampled_as_scipy_does(tmp_path, seed):
    channels, label, affine, spacing_mm = scan(seed)
    found = load(*save_all(tmp_path, channels, label, affine), spacing_mm)
    wanted = expected(channels, label, affine, spacing_mm)
    assert found[0].shape[1:] == found[1].shape == wanted[1].shape
    # A voxel moves by a thousandth of a voxel at most along each axis.
    np.testing.assert_allclose(found[0], wanted[0], atol=3e-3 * np.ptp(channels))
    np.testing.assert_array_equal(found[1], wanted[1])
    np.testing.assert_allclose(np.array(found[2], float), wanted[2], rtol=1e-3)


CHANGES = {
    "origin": {"moved": 1234.5},
    "noise": {"noise": 6e-8},
    "sform": {"form": "sform"},
    "qform": {"form": "qform"},
    "micron": {"unit": "micron"},
    "metre": {"unit": "meter"},
}


@pytest.mark.parametrize("change", CHANGES)
def test_how_a_scan_is_stored_changes_no_voxel(tmp_path, change):
    for seed in range(12):
        channels, label, affine, spacing_mm = scan(seed)
        wanted = spacing_mm if seed % 2 else None
        plain = load(*save_all(tmp_path, channels, label, affine), wanted)
        orders = np.random.default_rng(seed).choice(AXES, 3)
        others = [
            stored(tmp_path / f"other{n}.nii", volume, affine, codes, **CHANGES[change])
            for n, (volume, codes) in enumerate(zip((*channels, label), orders, strict=True))
        ]
        found = load(others[:2], others[2], wanted)
        np.testing.assert_array_equal(found[0], plain[0])
        np.testing.assert_array_equal(found[1], plain[1])


@pytest.mark.parametrize("seed", range(10))
def test_a_label_of_another_program_lies_on_the_image(tmp_path, seed):
    # SimpleITK keeps the rotation in another rounding than nibabel.
    _, label, affine, spacing_mm = scan(seed)
    blocks = (label > 2).astype(np.uint8)
    image = save(tmp_path / "image.nii", blocks.astype(np.float32), affine)
    SimpleITK.WriteImage(
        SimpleITK.Cast(SimpleITK.ReadImage(str(image)), SimpleITK.sitkUInt8), str(tmp_path / "label.nii")
    )
    array, sampled, _ = load([image], tmp_path / "label.nii", spacing_mm)
    clear = np.abs(array[0] - 0.5) > 0.49
    assert clear.any()
    np.testing.assert_array_equal(sampled[clear], array[0][clear] > 0.5)


def test_a_turn_by_45_degrees_is_oriented_one_way(tmp_path):
    turn = nib.affines.from_matvec(Rotation.from_euler("z", 45, degrees=True).as_matrix() @ np.diag([1, 2, 3]))
    array = np.arange(120, dtype=np.float32).reshape(6, 5, 4)
    plain = read_image([save(tmp_path / "plain.nii", array, turn)], ["a"])
    for seed, codes in enumerate(AXES):
        order = nib.orientations.axcodes2ornt(codes)
        image = nib.Nifti1Image(array, np.eye(4)).as_reoriented(order)
        noise = 1 + 3e-8 * np.random.default_rng(seed).normal(size=(4, 4))
        other = save(tmp_path / "other.nii", np.asarray(image.dataobj), turn @ image.affine * noise)
        np.testing.assert_array_equal(read_image([other], ["a"]).array, plain.array)


@pytest.mark.parametrize(
    ("own", "wanted", "size", "step", "count"),
    [
        (2.0, 1.0, 10, Fraction(1, 2), 19),
        (1.0, 2.0, 11, Fraction(2), 6),
        (1.0, 2.0, 10, Fraction(2), 5),  # half a voxel is left out
        (1.0, 3.0, 9, Fraction(3), 4),
        (float(np.float32(1.2)), 1.2, 300, Fraction(1), 300),
        (0.7421875, 1.0, 512, Fraction(128, 95), 380),
        (1.0, 1.0 + 1e-8, 512, Fraction(1), 512),
        (1.0, 1.01, 512, Fraction(101, 100), 507),
        (0.001, 0.0005, 4, Fraction(1, 2), 7),
        (5.0, 1.0, 1, Fraction(1, 5), 1),
    ],
)
def test_steps_are_the_simple_fractions_meant(own, wanted, size, step, count):
    for noise in (0, 1e-8, -1e-8, 6e-8):
        affine = np.diag([own * (1 + noise)] * 3 + [1.0])
        assert sampled_grid(CaseGrid((size,) * 3, affine), (wanted,) * 3) == ((step,) * 3, (count,) * 3)


def test_a_step_moves_no_voxel_by_more_than_a_thousandth():
    rng = np.random.default_rng(0)
    for own, wanted, size in zip(*rng.uniform(0.2, 6, (2, 300)), rng.integers(1, 600, 300), strict=True):
        grid = CaseGrid((int(size),) * 3, np.diag([own] * 3 + [1.0]))
        (step, _, _), (count, _, _) = sampled_grid(grid, (wanted,) * 3)
        assert abs((count - 1) * (float(step) - wanted / own)) <= 1e-3 * max(1, wanted / own) + 1e-9
        assert abs((count - 1) * wanted / own - (size - 1)) <= wanted / own / 2 + 2e-3 * max(1, wanted / own)


def test_a_case_without_a_spacing_is_taken_as_it_is(tmp_path):
    channels, label, affine, _ = scan(0)
    image = save(tmp_path / "image.nii.gz", channels.transpose(1, 2, 3, 0), affine)
    read = read_image([image], ["a", "b"])
    array, step = prepare(read, config())
    assert array is read.array
    np.testing.assert_array_equal(array, channels)
    assert step == (1, 1, 1)
    labels = label_on_grid(save(tmp_path / "label.nii.gz", label.astype(np.float64) + 1e-4, affine), read.grid)
    np.testing.assert_array_equal(labels, label)
    assert labels.dtype == np.uint8


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("dtype", ["u1", "i2", "u2", "i4", "f4", "f8", ">i2", ">f4"])
def test_files_of_every_type_are_read_as_monai_does(tmp_path, dtype, ending):
    rng = np.random.default_rng(0)
    for codes, slope, extra in (("RAS", None, ()), ("LPS", (0.37, -3.1), (1,)), ("PIR", None, (1, 1))):
        shape = (6, 5, 4, *extra)
        affine = nib.load(stored(tmp_path / "a.nii", np.zeros(shape[:3]), scan(0)[2], codes)).affine
        image = nib.Nifti1Image((rng.random(shape) * 200).astype(dtype), affine)
        if slope is not None:
            image.header.set_slope_inter(*slope)
        path = tmp_path / f"image{ending}"
        nib.save(image, path)
        loaded = transforms.LoadImage(image_only=True, ensure_channel_first=True)(path)
        turn = transforms.Orientation("RAS", labels=(("L", "R"), ("P", "A"), ("I", "S")))
        wanted = turn(loaded.reshape(1, *shape[:3]))
        found = read_image([path], ["a"])
        np.testing.assert_array_equal(found.array, wanted)
        np.testing.assert_allclose(found.grid.affine, wanted.affine, atol=1e-5)
        ((_, channel),) = read_channels([path])
        np.testing.assert_allclose(channel.astype(np.float32), wanted[0])
        assert channel.dtype == (np.float64 if slope else np.dtype(dtype).newbyteorder("="))


def test_channels_and_labels_on_other_grids_are_refused(tmp_path):
    channels, _, affine, _ = scan(1)
    first = save(tmp_path / "first.nii", channels[0], affine)
    grid = read_image([first], ["a"]).grid
    moved = affine @ nib.affines.from_matvec(np.eye(3), [0.1, 0, 0])
    for array, place in ((channels[1, 1:], affine), (channels[1], moved)):
        second = save(tmp_path / "second.nii", array, place)
        for found in (
            problems_of(read_image, [first, second], ["a", "b"]),
            problems_of(label_on_grid, second, grid),
        ):
            assert [(path, kind) for path, kind, _ in found] == [(str(second), "grid")]
    second = save(tmp_path / "second.nii", channels.transpose(1, 2, 3, 0), affine)
    ((_, kind, _),) = problems_of(read_image, [first, second], ["a", "b"])
    assert kind == "channels"


@pytest.mark.parametrize("place", ["origin", "last voxel"])
def test_a_grid_may_differ_by_a_hundredth_of_a_voxel_at_each_corner(tmp_path, place):
    array = np.zeros((6, 5, 4), np.uint8)
    grid = read_image([save(tmp_path / "image.nii", array, np.eye(4))]).grid
    for share in (0.9, 1.1):
        affine = np.eye(4)
        affine[0, 3 if place == "origin" else 0] += share * GRID_TOLERANCE / (1 if place == "origin" else 5)
        path = save(tmp_path / "label.nii", array, affine)
        if share < 1:
            label_on_grid(path, grid)
            continue
        assert [kind for _, kind, _ in problems_of(label_on_grid, path, grid)] == ["grid"]


def test_voxels_that_are_not_finite_are_counted(tmp_path):
    array = np.ones((4, 5, 6), np.float32)
    array[0, 0, :3] = (np.nan, np.inf, -np.inf)
    path = save(tmp_path / "a.nii", array, np.eye(4))
    assert problems_of(read_image, [path], ["a"]) == [(str(path), "finite", "3 NaN or infinite ones")]


def test_a_grid_that_would_not_fit_is_refused_before_it_is_made(tmp_path, monkeypatch):
    image = read_image([save(tmp_path / "a.nii", np.zeros((6, 5, 4), np.uint8), np.diag([1e4, 1e4, 1e4, 1.0]))], ["a"])
    monkeypatch.setattr(memory, "available_bytes", lambda: 8 << 30)
    ((_, kind, value),) = problems_of(prepare, image, config((1.0, 1.0, 1.0)))
    assert (kind, value.split(" with")[0]) == ("memory", "2.24e+05 GiB")


def test_intensities_are_brought_to_the_closed_form(tmp_path):
    channels, _, affine, _ = scan(2)
    paths, _ = save_all(tmp_path, channels, channels[0], affine)
    ct = CtConfig(lower=(30.0, 45.0), upper=(60.0, 55.0), mean=(48.0, 50.0), std=(12.0, 4.0))
    done, _ = prepare(read_image(paths, ["a", "b"]), config(normalization=("zscore", "ct"), ct=ct))
    wide = channels.astype(np.float64)
    np.testing.assert_allclose(done[0], (wide[0] - wide[0].mean()) / wide[0].std(ddof=1), atol=1e-5)
    np.testing.assert_allclose(done[1], (np.clip(wide[1], 45, 55) - 50) / 4, atol=1e-5)
    flat = save(tmp_path / "flat.nii", np.full((4, 4, 4), 7, np.int16), affine)
    assert not prepare(read_image([flat], ["a"]), config(normalization=("zscore",)))[0].any()


@pytest.mark.parametrize("place", [0.0, 1e3, 2e4])
def test_intensities_have_the_mean_and_the_deviation_of_sums_in_double_precision(place):
    values = np.random.default_rng(0).normal(place, 100, (60, 50, 40)).astype(np.float32)
    wide = values.astype(np.float64)
    normalize(values[None], ("zscore",), None)
    np.testing.assert_allclose(values, (wide - wide.mean()) / wide.std(ddof=1), atol=2e-5 if place < 1e4 else 2e-4)


@pytest.mark.parametrize("shape", [(4, 4, 4), (1, 1, 1)])
def test_equal_voxels_become_0(shape):
    flat = np.full(shape, 7, np.float32)
    normalize(flat[None], ("zscore",), None)
    assert not flat.any()


def test_voxels_are_the_same_on_any_number_of_threads():
    def prepared(count):
        values = np.random.default_rng(0).normal(50, 100, (1, 70, 60, 50)).astype(np.float32)
        with torch_threads(count):
            normalize(values, ("zscore",), None)
        return values

    first, *others = map(prepared, (1, 2, 5))
    assert all(np.array_equal(first, other) for other in others)


def test_slabs_join_without_a_seam(tmp_path, monkeypatch):
    channels, label, affine, spacing_mm = scan(4)
    files = save_all(tmp_path, channels, label, affine)
    whole = load(*files, spacing_mm)[0]
    monkeypatch.setattr("seg.data.prepare.SLAB_BYTES", 1)
    np.testing.assert_array_equal(load(*files, spacing_mm)[0], whole)
