"""Phantoms: what is in their voxels, and the folder that they are written to."""

from __future__ import annotations

import json
from dataclasses import replace

import nibabel
import numpy as np
import pytest
from pydantic import ValidationError
from scipy import ndimage

from seg.data.phantom import files
from seg.data.phantom.files import write_dataset
from seg.data.phantom.scan import PhantomConfig, make_case, smooth_field
from seg.data.phantom.shapes import CLASS_NAMES, DIRECTIONS, WAVELENGTHS_MM, _textured_cells, texture_type
from seg.errors import DataError, RunError
from tests.data.builders import problems_of

TINY = PhantomConfig(cases=5, spacing_mm=(4.0, 4.0, 4.0))
PLAIN = PhantomConfig(texture=0.0, noise=0.0, bias_field=0.0, intensity_decades=0.0)
CASES = 6


@pytest.fixture(scope="module")
def cases():
    return [make_case(PhantomConfig(), seed=0, index=index) for index in range(CASES)]


@pytest.fixture(scope="module")
def plain():
    return make_case(PLAIN, seed=0, index=0)


def test_a_case_is_a_function_of_settings_seed_and_index_but_not_of_the_number_of_cases(cases):
    image, label = make_case(PhantomConfig(cases=5), seed=0, index=1)
    assert (image.tobytes(), label.tobytes()) == (cases[1][0].tobytes(), cases[1][1].tobytes())
    for seed, index in ((1, 1), (0, 2)):
        other_image, other_label = make_case(PhantomConfig(), seed=seed, index=index)
        assert not np.array_equal(image, other_image)
        assert not np.array_equal(label, other_label)


def test_arrays_and_class_volumes(cases):
    for image, label in cases:
        assert (image.shape, image.dtype) == ((1, 40, 48, 40), np.float32)
        assert (label.shape, label.dtype) == ((40, 48, 40), np.uint8)
        assert np.isfinite(image).all()
        assert image.min() >= 0
        assert set(np.unique(label)) == set(range(len(CLASS_NAMES)))
    volumes = np.array([np.bincount(label.ravel(), minlength=7) for _, label in cases])
    means = dict(zip(CLASS_NAMES, volumes.mean(0), strict=True))
    assert 0.85 < means["background"] / volumes[0].sum() < 0.95
    assert means["lobe_a"] + means["lobe_b"] > 20 * means["nodule"]
    assert 5 < means["cortex"] / means["posterior"] < 15
    assert volumes[:, 1:].min() >= 20


def test_structures_touch_and_the_anterior_part_lies_in_front(cases):
    groups = {name: [index] for index, name in enumerate(CLASS_NAMES)} | {"organ": [1, 2]}
    pairs = [("lobe_a", "lobe_b"), ("anterior", "posterior"), *((name, "organ") for name in CLASS_NAMES[4:])]
    for _, label in cases:
        for first, second in pairs:
            grown = ndimage.binary_dilation(np.isin(label, groups[first]))
            assert (grown & np.isin(label, groups[second])).any(), f"{first} does not touch {second}"
        assert np.argwhere(label == 3)[:, 1].mean() > np.argwhere(label == 4)[:, 1].mean() + 5


def test_classes_of_one_tissue_share_their_intensity(plain):
    image, label = plain
    values = {}
    for index in range(1, 7):
        core = ndimage.binary_erosion(label == index)
        values[index] = np.median(image[0][core]) if core.any() else np.median(image[0][label == index])
    assert values[1] == pytest.approx(values[2], abs=1e-4)
    assert [values[index] for index in (4, 5, 6)] == pytest.approx([values[3]] * 3, abs=1e-4)
    assert abs(values[1] - values[3]) > 15


def test_without_texture_bias_and_noise_every_voxel_is_a_mixture_in_eighths_of_four_values(plain):
    image, label = plain
    levels, counts = np.unique(image.round(3), return_counts=True)
    pure = np.sort(levels[np.argsort(counts)[-4:]])
    assert counts[np.isin(levels, pure)].sum() > 0.85 * image.size
    parts = np.array([(a, b, c, 8 - a - b - c) for a in range(9) for b in range(9 - a) for c in range(9 - a - b)])
    assert np.abs(levels[:, None] - parts / 8 @ pure).min(1).max() < 5e-3
    # Partial volume exists: values strictly between two pure ones, seven steps of one eighth apart.
    between = levels[(levels > pure[2] + 1e-2) & (levels < pure[3] - 1e-2)]
    eighths = pure[2] + (pure[3] - pure[2]) * np.arange(1, 8) / 8
    assert all(np.abs(between - value).min() < 5e-3 for value in eighths)
    is_pure = np.isin(image[0].round(3), pure)
    core = ndimage.binary_erosion(np.isin(label, (1, 2)), iterations=2)
    assert is_pure[core].mean() > 0.97, "only vessels cross the organ"
    assert is_pure[(label == 6) & ndimage.binary_dilation(label == 0)].mean() < 0.5


def test_another_grid_keeps_the_anatomy(cases):
    for index, (_, fine) in enumerate(cases[:2]):
        _, coarse = make_case(PhantomConfig(spacing_mm=(0.8, 1.0, 2.0)), seed=0, index=index)
        assert coarse.shape == (50, 48, 20)
        expected = np.bincount(fine.ravel(), minlength=7)
        volumes = np.bincount(coarse.ravel(), minlength=7) * (0.8 * 1.0 * 2.0)
        np.testing.assert_allclose(volumes[[0, 1, 2, 6]], expected[[0, 1, 2, 6]], rtol=0.08)
        np.testing.assert_allclose(volumes[3:6], expected[3:6], rtol=0.25)
    larger = replace(TINY, extent_mm=(80.0, 96.0, 80.0), spacing_mm=(8.0, 8.0, 8.0))
    assert np.array_equal(make_case(TINY, seed=3, index=0)[1], make_case(larger, seed=3, index=0)[1])


def test_noise_channels_and_fewer_classes_leave_the_anatomy_alone(cases, plain):
    config = PhantomConfig(channels=3, noise=0.2, bias_field=0.4, texture=0.0)
    image, label = make_case(config, seed=0, index=0)
    assert image.shape == (3, 40, 48, 40)
    assert np.array_equal(label, cases[0][1])
    apart = np.corrcoef(image.reshape(3, -1)) - np.eye(3)
    assert np.abs(apart).max() < 0.97
    image, label = make_case(replace(PLAIN, num_classes=3), seed=0, index=0)
    assert np.array_equal(image, plain[0])
    assert set(np.unique(label)) == {0, 1, 2}
    assert (label[plain[1] == 3] == 0).mean() > 0.8


def test_intensity_scale_differs_between_cases_by_orders_of_magnitude(cases):
    scales = np.array([np.percentile(image, 99) for image, _ in cases])
    assert scales.max() / scales.min() > 30
    config = replace(TINY, intensity_decades=0.0)
    even = np.array([np.percentile(make_case(config, seed=0, index=index)[0], 99) for index in range(CASES)])
    assert even.max() / even.min() < 2.5


def test_noise_in_air_follows_the_rayleigh_distribution():
    config = replace(PLAIN, noise=0.05, contrast_modes=1, distractors=0)
    clean = make_case(replace(config, noise=0.0), seed=0, index=0)[0]
    noisy = make_case(config, seed=0, index=0)[0]
    # Mode 1 has air at 0 up to the jitter of the case: E[M^2] = s^2 + 2 sigma^2 for a Rician magnitude M.
    air = clean == clean[0, 0, 0, 0]
    assert air.sum() > 1000
    expected = float(clean[0, 0, 0, 0]) ** 2 + 2 * 5.0**2
    assert float((noisy[air].astype(float) ** 2).mean()) == pytest.approx(expected, rel=0.05)


def test_bias_field_multiplies_the_image_with_the_stated_spread():
    config, logarithms = replace(PLAIN, spacing_mm=(2.0, 2.0, 2.0)), []
    for index in range(4):
        gains = []
        # The gain is the same whatever it acts on.
        for setting in (config, replace(config, texture=0.1)):
            clean, _ = make_case(setting, seed=0, index=index)
            biased, _ = make_case(replace(setting, bias_field=0.3), seed=0, index=index)
            gains.append(np.where(clean > 5, np.log(np.maximum(biased, 1e-9) / np.maximum(clean, 1e-9)), np.nan)[0])
        assert np.isfinite(gains[0] - gains[1]).sum() > 20000 / 8
        assert np.nanmax(np.abs(gains[0] - gains[1])) < 1e-4
        assert np.nanmax(np.abs(np.diff(gains[0], axis=0))) < 0.3, "the field is smooth"
        logarithms.append(gains[0])
    assert np.sqrt(np.nanmean(np.concatenate(logarithms) ** 2)) == pytest.approx(0.3, rel=0.3)


def test_smooth_field_has_unit_power_and_one_shape_on_every_grid():
    fine = [np.linspace(-1, 1, 65, dtype=np.float32)] * 3
    field = smooth_field(fine, 2, np.random.default_rng(4))
    middle = [(np.arange(64, dtype=np.float32) + 0.5) / 32 - 1] * 3
    assert float((smooth_field(middle, 2, np.random.default_rng(4)) ** 2).mean()) == pytest.approx(1, abs=1e-3)
    coarse = smooth_field([axis[::4] for axis in fine], 2, np.random.default_rng(4))
    np.testing.assert_allclose(field[::4, ::4, ::4], coarse, atol=1e-5)


def test_every_texture_belongs_to_one_kind_and_two_per_kind_differ_by_direction_alone():
    types = [[texture_type(kind, number) for number in range(6)] for kind in range(3)]
    assert sorted(one for own in types for one in own) == [
        (direction, wave) for direction in range(6) for wave in range(3)
    ]
    assert sorted(direction for own in types for direction, _ in own[:2]) == list(range(6))
    waves = [[wave for _, wave in own] for own in types]
    assert waves[0] == waves[1] == waves[2], "a wavelength never tells the kind"


@pytest.mark.parametrize("kind", [0, 1, 2])
def test_textures_of_a_class_have_their_own_directions_and_wavelengths(kind):
    points = np.indices((48, 48, 48)).reshape(3, -1).astype(np.float32)
    rng, seen = np.random.default_rng(kind), set()
    for _ in range(8):
        found, texture = _textured_cells(points, np.full((1, 3), 24.0), (kind,), 6, rng)
        assert set(found) == {kind}
        power = np.abs(np.fft.fftn(texture.reshape(48, 48, 48))).ravel() ** 2
        frequency = np.stack(np.meshgrid(*[np.fft.fftfreq(48)] * 3, indexing="ij")).reshape(3, -1)
        # Power-weighted: the axis of the second moment is the waves' direction, its size their squared frequency.
        sizes, axes = np.linalg.eigh((frequency * power) @ frequency.T / power.sum())
        direction = int(np.abs(DIRECTIONS @ axes[:, -1]).argmax())
        wavelength = int(np.abs(np.log(sizes[-1] ** -0.5 / np.array(WAVELENGTHS_MM))).argmin())
        assert (direction, wavelength) in {texture_type(kind, number) for number in range(6)}
        seen.add((direction, wavelength))
    directions, wavelengths = map(set, zip(*seen, strict=True))
    assert len(directions) > 2
    assert len(wavelengths) > 1


def test_all_broken_rules_are_reported_at_once():
    with pytest.raises(ValidationError) as caught:
        PhantomConfig(cases=4, noise=-0.5, spacing_mm=(1.0, 0.0, 1.0))
    assert [error["loc"] for error in caught.value.errors()] == [("cases",), ("spacing_mm", 1), ("noise",)]
    with pytest.raises(ValidationError, match=r"\(40, 48, 1\)"):
        PhantomConfig(spacing_mm=(1.0, 1.0, 30.0))


def test_the_folder_written_is_a_decathlon_data_set_of_five_folds(tmp_path):
    config, root = PhantomConfig(cases=7, spacing_mm=(4.0, 4.0, 8.0), channels=2), tmp_path / "phantom"
    assert write_dataset(root, config, seed=5) == root
    description = json.loads((root / "dataset.json").read_text())
    assert description["labels"] == {str(index): name for index, name in enumerate(CLASS_NAMES)}
    assert description["modality"] == {"0": "MRI", "1": "MRI"}
    assert description["numTraining"] == len(description["training"]) == 7
    for index, item in enumerate(description["training"]):
        image, label = nibabel.load(root / item["image"]), nibabel.load(root / item["label"])
        expected_image, expected_label = make_case(config, seed=5, index=index)
        assert nibabel.aff2axcodes(image.affine) == ("R", "A", "S")
        assert image.header.get_zooms()[:3] == label.header.get_zooms() == (4.0, 4.0, 8.0)
        assert np.array_equal(image.affine, label.affine)
        assert label.get_data_dtype() == np.uint8
        assert np.array_equal(np.moveaxis(image.get_fdata(dtype=np.float32), -1, 0), expected_image)
        assert np.array_equal(np.asarray(label.dataobj), expected_label)
    splits = json.loads((root / "splits_final.json").read_text())
    names = {path.name.removesuffix(".nii.gz") for path in (root / "imagesTr").iterdir()}
    assert len(splits) == 5
    assert sorted(case for split in splits for case in split["val"]) == sorted(names)
    assert all(set(split["train"]) == names - set(split["val"]) for split in splits)


def contents(root):
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.fixture
def made(monkeypatch):
    """The cases that are made; ``None`` before them interrupts the third."""
    indices = []

    def make(config, *, seed, index):
        if indices[:1] == [None] and index == 2:
            raise KeyboardInterrupt
        indices.append(index)
        return make_case(config, seed=seed, index=index)

    monkeypatch.setattr(files, "make_case", make)
    return indices


def test_an_identical_set_is_kept_and_only_gaps_are_filled(tmp_path, made):
    before = contents(write_dataset(tmp_path, TINY, seed=2))
    (tmp_path / "labelsTr" / "phantom_003.nii.gz").unlink()
    made.clear()
    assert contents(write_dataset(tmp_path, TINY, seed=2)) == before
    assert made == [3]


def test_an_interrupted_write_leaves_no_description_and_can_be_repeated(tmp_path, made):
    made.append(None)
    with pytest.raises(KeyboardInterrupt):
        write_dataset(tmp_path / "cut", TINY, seed=0)
    assert not (tmp_path / "cut" / "dataset.json").exists()
    made.clear()
    # Files left by other settings are not taken for this set's; equal arguments give equal bytes.
    cut, whole = (write_dataset(tmp_path / name, TINY, seed=1) for name in ("cut", "whole"))
    assert contents(cut) == contents(whole)


def test_another_data_set_in_the_folder_is_refused(tmp_path):
    before = contents(write_dataset(tmp_path, TINY, seed=0))
    path = tmp_path / "dataset.json"
    assert problems_of(write_dataset, tmp_path, replace(TINY, noise=0.1), seed=1, error=DataError) == [
        (str(path), "changed", "seed 0 there, 1 asked for, noise 0.04 there, 0.1 asked for")
    ]
    assert contents(tmp_path) == before
    for content in ('{"name": "Hippocampus"}', "not JSON", "[]"):
        path.write_text(content)
        assert problems_of(write_dataset, tmp_path, TINY, seed=0) == [(str(path), "other", "another data set")]
        assert path.read_text() == content


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    ((path, kind, _),) = problems_of(write_dataset, tmp_path / "file" / "phantom", TINY, seed=0, error=RunError)
    assert (path, kind) == (str(tmp_path / "file/phantom/imagesTr"), "folder")
