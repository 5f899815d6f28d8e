from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy import ndimage

from seg.data.phantom.scan import PhantomConfig, make_case
from seg.data.phantom.shapes import CLASS_NAMES, DIRECTIONS, WAVELENGTHS_MM, _textured_cells, texture_type
from seg.data.phantom.space import smooth_field
from seg.errors import ConfigError

TINY = PhantomConfig(cases=5, spacing_mm=(4.0, 4.0, 4.0))
PLAIN = PhantomConfig(texture=0.0, noise=0.0, bias_field=0.0, intensity_decades=0.0)
CASES = 6


@pytest.fixture(scope="module")
def cases():
    return [make_case(PhantomConfig(), seed=0, index=index) for index in range(CASES)]


@pytest.fixture(scope="module")
def plain_case():
    return make_case(PLAIN, seed=0, index=0)


def test_same_seed_gives_the_same_bits_and_another_seed_or_index_other_ones(cases):
    image, label = make_case(PhantomConfig(), seed=0, index=1)
    assert image.tobytes() == cases[1][0].tobytes()
    assert label.tobytes() == cases[1][1].tobytes()
    for seed, index in ((1, 1), (0, 2)):
        other_image, other_label = make_case(PhantomConfig(), seed=seed, index=index)
        assert not np.array_equal(image, other_image)
        assert not np.array_equal(label, other_label)


def test_a_case_does_not_depend_on_the_number_of_cases(cases):
    image, label = make_case(PhantomConfig(cases=5), seed=0, index=3)
    assert np.array_equal(image, cases[3][0])
    assert np.array_equal(label, cases[3][1])


def test_arrays_have_the_shape_and_type_of_the_contract(cases):
    for image, label in cases:
        assert (image.shape, image.dtype) == ((1, 40, 48, 40), np.float32)
        assert (label.shape, label.dtype) == ((40, 48, 40), np.uint8)
        assert np.isfinite(image).all()
        assert image.min() >= 0
        assert set(np.unique(label)) == set(range(len(CLASS_NAMES)))


def test_class_volumes_are_of_very_different_sizes(cases):
    volumes = np.array([np.bincount(label.ravel(), minlength=7) for _, label in cases])
    means = dict(zip(CLASS_NAMES, volumes.mean(0), strict=True))
    assert 0.85 < means["background"] / volumes[0].sum() < 0.95
    assert means["lobe_a"] + means["lobe_b"] > 20 * means["nodule"]
    assert 5 < means["cortex"] / means["posterior"] < 15
    assert volumes[:, 1:].min() >= 20


def test_structures_that_belong_together_touch(cases):
    groups = {name: np.array([name == other for other in CLASS_NAMES]) for name in CLASS_NAMES}
    groups["organ"] = groups["lobe_a"] | groups["lobe_b"]
    pairs = (("lobe_a", "lobe_b"), ("anterior", "posterior"), ("cortex", "organ"), ("nodule", "organ"))
    for _, label in cases:
        for first, second in (*pairs, ("posterior", "organ")):
            grown = ndimage.binary_dilation(groups[first][label])
            assert (grown & groups[second][label]).any(), f"{first} does not touch {second}"


def test_the_anterior_part_lies_in_front_of_the_posterior_one(cases):
    for _, label in cases:
        assert np.argwhere(label == 3)[:, 1].mean() > np.argwhere(label == 4)[:, 1].mean() + 5


def test_classes_of_one_tissue_share_their_intensity(plain_case):
    image, label = plain_case
    values = {}
    for index in range(1, 7):
        core = ndimage.binary_erosion(label == index)
        values[index] = np.median(image[0][core]) if core.any() else np.median(image[0][label == index])
    assert values[1] == pytest.approx(values[2], abs=1e-4)
    for index in (4, 5, 6):
        assert values[index] == pytest.approx(values[3], abs=1e-4)
    assert abs(values[1] - values[3]) > 15


def test_without_texture_bias_and_noise_every_voxel_is_a_mixture_in_eighths_of_four_values(plain_case):
    image, _ = plain_case
    levels, counts = np.unique(image.round(3), return_counts=True)
    pure = np.sort(levels[np.argsort(counts)[-4:]])
    assert counts[np.isin(levels, pure)].sum() > 0.85 * image.size
    parts = np.array(
        [(a, b, c, 8 - a - b - c) for a in range(9) for b in range(9 - a) for c in range(9 - a - b)], float
    )
    mixtures = parts / 8 @ pure
    distance = np.abs(levels[:, None] - mixtures).min(1)
    assert distance.max() < 5e-3
    # Partial volume exists: values strictly between two pure ones, seven steps of one eighth apart.
    between = levels[(levels > pure[2] + 1e-2) & (levels < pure[3] - 1e-2)]
    eighths = pure[2] + (pure[3] - pure[2]) * np.arange(1, 8) / 8
    assert all(np.abs(between - value).min() < 5e-3 for value in eighths)


def test_partial_volume_lies_at_borders_only(plain_case):
    image, label = plain_case
    levels, counts = np.unique(image[0].round(3), return_counts=True)
    pure = np.isin(image[0].round(3), levels[np.argsort(counts)[-4:]])
    core = ndimage.binary_erosion(np.isin(label, (1, 2)), iterations=2)
    assert pure[core].mean() > 0.97, "only vessels cross the organ"
    border = (label == 6) & ndimage.binary_dilation(label == 0)
    assert pure[border].mean() < 0.5


def test_a_coarser_grid_keeps_the_physical_volumes(cases):
    config = PhantomConfig(spacing_mm=(0.8, 1.0, 2.0))
    for index, (_, fine) in enumerate(cases[:2]):
        _, coarse = make_case(config, seed=0, index=index)
        assert coarse.shape == (50, 48, 20)
        expected = np.bincount(fine.ravel(), minlength=7)
        volumes = np.bincount(coarse.ravel(), minlength=7) * (0.8 * 1.0 * 2.0)
        np.testing.assert_allclose(volumes[[0, 1, 2, 6]], expected[[0, 1, 2, 6]], rtol=0.08)
        np.testing.assert_allclose(volumes[3:6], expected[3:6], rtol=0.25)


def test_a_larger_field_of_view_scales_the_anatomy():
    small = make_case(TINY, seed=3, index=0)[1]
    config = dataclasses.replace(TINY, extent_mm=(80.0, 96.0, 80.0), spacing_mm=(8.0, 8.0, 8.0))
    assert np.array_equal(small, make_case(config, seed=3, index=0)[1])


def test_noise_and_channels_leave_the_anatomy_alone(cases):
    config = PhantomConfig(channels=3, noise=0.2, bias_field=0.4, texture=0.0)
    image, label = make_case(config, seed=0, index=0)
    assert image.shape == (3, 40, 48, 40)
    assert np.array_equal(label, cases[0][1])
    for first, second in ((0, 1), (0, 2), (1, 2)):
        assert abs(np.corrcoef(image[first].ravel(), image[second].ravel())[0, 1]) < 0.97


def test_structures_beyond_num_classes_stay_visible_as_background(plain_case):
    image, label = make_case(dataclasses.replace(PLAIN, num_classes=3), seed=0, index=0)
    assert np.array_equal(image, plain_case[0])
    assert set(np.unique(label)) == {0, 1, 2}
    assert (label[plain_case[1] == 3] == 0).mean() > 0.8


def test_intensity_scale_differs_between_cases_by_orders_of_magnitude(cases):
    scales = np.array([np.percentile(image, 99) for image, _ in cases])
    assert scales.max() / scales.min() > 30
    config = PhantomConfig(intensity_decades=0.0, spacing_mm=(4.0, 4.0, 4.0))
    even = np.array([np.percentile(make_case(config, seed=0, index=index)[0], 99) for index in range(CASES)])
    assert even.max() / even.min() < 2.5


def test_noise_in_air_follows_the_rayleigh_distribution():
    config = dataclasses.replace(PLAIN, noise=0.05, contrast_modes=1, distractors=0)
    clean = make_case(dataclasses.replace(config, noise=0.0), seed=0, index=0)[0]
    noisy = make_case(config, seed=0, index=0)[0]
    # Mode 1 has air at 0 up to the jitter of the case: E[M^2] = s^2 + 2 sigma^2 for a Rician magnitude M.
    air = clean == clean[0, 0, 0, 0]
    assert air.sum() > 1000
    expected = float(clean[0, 0, 0, 0]) ** 2 + 2 * 5.0**2
    assert float((noisy[air].astype(float) ** 2).mean()) == pytest.approx(expected, rel=0.05)


def test_bias_field_multiplies_the_image_with_the_stated_spread():
    logarithms = []
    for index in range(4):
        gains = []
        # The gain is the same whatever it acts on.
        for plain in (PLAIN, dataclasses.replace(PLAIN, texture=0.1)):
            clean, _ = make_case(plain, seed=0, index=index)
            biased, _ = make_case(dataclasses.replace(plain, bias_field=0.3), seed=0, index=index)
            gains.append(np.where(clean > 5, np.log(np.maximum(biased, 1e-9) / np.maximum(clean, 1e-9)), np.nan)[0])
        difference = gains[0] - gains[1]
        assert np.isfinite(difference).sum() > 20000
        assert np.nanmax(np.abs(difference)) < 1e-4
        assert np.nanmax(np.abs(np.diff(gains[0], axis=0))) < 0.15, "the field is smooth"
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
    types = {(kind, number): texture_type(kind, number) for kind in range(3) for number in range(6)}
    assert sorted(types.values()) == [(direction, wave) for direction in range(6) for wave in range(3)]
    first = [{types[kind, number][0] for number in range(2)} for kind in range(3)]
    assert sorted(first[0] | first[1] | first[2]) == list(range(6))
    waves = [[types[kind, number][1] for number in range(6)] for kind in range(3)]
    assert waves[0] == waves[1] == waves[2], "a wavelength never tells the kind"


@pytest.mark.parametrize("kind", [0, 1, 2])
def test_textures_of_a_class_have_their_own_directions_and_wavelengths(kind):
    axis = np.arange(48, dtype=np.float32)
    points = np.stack(np.meshgrid(axis, axis, axis, indexing="ij")).reshape(3, -1)
    rng = np.random.default_rng(kind)
    seen = set()
    for _ in range(8):
        found, texture = _textured_cells(points, np.full((1, 3), 24.0), (kind,), 6, rng)
        assert set(found) == {kind}
        power = np.abs(np.fft.fftn(texture.reshape(48, 48, 48))).ravel() ** 2
        frequency = np.stack(np.meshgrid(*[np.fft.fftfreq(48)] * 3, indexing="ij")).reshape(3, -1)
        # Power-weighted: the axis of the second moment is the waves' direction, its size their squared frequency.
        moment = (frequency * power) @ frequency.T / power.sum()
        sizes, axes = np.linalg.eigh(moment)
        direction = int(np.abs(DIRECTIONS @ axes[:, -1]).argmax())
        wavelength = int(np.abs(np.log(sizes[-1] ** -0.5 / np.array(WAVELENGTHS_MM))).argmin())
        assert (direction, wavelength) in {texture_type(kind, number) for number in range(6)}
        seen.add((direction, wavelength))
    assert len({direction for direction, _ in seen}) > 2
    assert len({wavelength for _, wavelength in seen}) > 1


def test_all_broken_rules_are_reported_at_once():
    with pytest.raises(ConfigError) as caught:
        PhantomConfig(cases=4, noise=-0.5, spacing_mm=(1.0, 0.0, 1.0))
    assert caught.value.sentences == (
        "phantom.cases must be in [5, 10000], got 4.",
        "phantom.noise must be in [0, 1], got -0.5.",
        "phantom.spacing_mm must be in (0, 1000) mm along each axis, got (1.0, 0.0, 1.0).",
    )
    with pytest.raises(ConfigError) as caught:
        PhantomConfig(spacing_mm=(1.0, 1.0, 30.0))
    assert str(caught.value) == "phantom.spacing_mm must leave 2 voxels along each axis, got a grid of (40, 48, 1)."
