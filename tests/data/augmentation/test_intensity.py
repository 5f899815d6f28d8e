"""Intensity changes against SciPy's filters and closed forms."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage

from seg.config import IntensityConfig
from seg.data.augmentation import intensity
from seg.data.augmentation.intensity import blur, change_intensity, contrast, gamma, low_resolution

NAMES = ("noise", "blur", "brightness", "contrast", "gamma", "low_resolution")
NEVER = replace(IntensityConfig(), **{f"{name}_probability": 0.0 for name in NAMES})
SEEDED = 11


def generator(seed=SEEDED):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def image():
    return torch.randn(3, 2, 9, 8, 7, generator=generator(0)) * 2 + 1


@pytest.mark.parametrize("sigma", [0.1, 0.5, 1.0, 1.7])
def test_blur_is_scipys(image, sigma):
    expected = ndimage.gaussian_filter(image[0].double().numpy(), sigma, axes=(1, 2, 3), mode="nearest", truncate=4.0)
    np.testing.assert_allclose(blur(image[0], sigma).numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("factor", [0.5, 1.0, 1.5])
def test_contrast_scales_about_each_channels_mean_within_its_range(image, factor):
    patch = image[0].double().numpy()
    expected = np.stack(
        [np.clip((c - c.mean()) * factor + c.mean(), c.min(), c.max()) for c in patch]  # channel by channel
    )
    np.testing.assert_allclose(contrast(image[0], factor).numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("exponent", [0.5, 1.0, 2.0])
def test_gamma_bends_a_ramp_between_its_ends(exponent):
    unit = torch.linspace(0, 1, 24).view(1, 2, 3, 4)
    patch = torch.cat((unit * 6 - 2, unit * 0.5 + 10))
    expected = torch.cat((unit**exponent * 6 - 2, unit**exponent * 0.5 + 10))
    torch.testing.assert_close(gamma(patch, exponent), expected)


@pytest.mark.parametrize("change", [contrast, gamma])
def test_ranges_stay(image, change):
    for factor in (0.3, 3.0):
        changed = change(image[0], factor)
        assert (changed.amin((1, 2, 3)) >= image[0].amin((1, 2, 3)) - 1e-5).all()
        assert (changed.amax((1, 2, 3)) <= image[0].amax((1, 2, 3)) + 1e-5).all()


@pytest.mark.parametrize("change", [contrast, gamma, low_resolution])
def test_a_constant_patch_stays(change):
    flat = torch.full((2, 4, 5, 6), 3.0)
    torch.testing.assert_close(change(flat, 0.5), flat)
    torch.testing.assert_close(blur(flat, 0.5), flat)


def test_low_resolution_interpolates_down_and_up():
    profile = torch.randn(8, generator=generator(2))
    # A coarse voxel's centre lies between its two fine ones.
    coarse = profile.view(4, 2).mean(1)
    centres = (np.arange(8) + 0.5) / 2 - 0.5
    expected = np.interp(centres, np.arange(4), coarse.numpy())
    for axis in range(3):
        shape = [1, 1, 1, 1]
        shape[1 + axis] = 8
        patch = profile.view(shape).expand([1, *(8 if other == axis else 2 for other in range(3))])
        got = low_resolution(patch, 0.5).movedim(1 + axis, -1)
        np.testing.assert_allclose(got[0, 0, 0].numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("length", [16, 31, 40])
def test_low_resolution_shifts_nothing(length):
    for axis in range(3):
        shape = [1, 1, 1, 1]
        shape[1 + axis] = length
        ramp = torch.arange(float(length)).view(shape).expand(1, *(length if axis == one else 3 for one in range(3)))
        for zoom in np.linspace(0.5, 1, 26):
            moved = (low_resolution(ramp, float(zoom)) - ramp).movedim(1 + axis, -1)
            assert moved[..., 1:-1].abs().max() < 1e-4 * length  # beyond the outer coarse voxels, values continue
            assert moved.mean() == pytest.approx(0, abs=1e-5 * length)


def test_low_resolution_at_full_size_changes_nothing(image):
    torch.testing.assert_close(low_resolution(image[0], 1.0), image[0])
    one = low_resolution(image[0], 0.01)  # one voxel is left, spread over all
    torch.testing.assert_close(one, one[:, :1, :1, :1].expand_as(one))


def test_no_chance_changes_nothing(image):
    same = change_intensity(image, NEVER, generator())
    assert torch.equal(same, image)
    assert same.data_ptr() != image.data_ptr()


@pytest.mark.parametrize(
    ("name", "bounds", "value", "change"),
    [
        ("blur", "blur_sigma", 0.8, blur),
        ("brightness", "brightness", 1.3, lambda patch, factor: patch * factor),
        ("contrast", "contrast", 0.6, contrast),
        ("gamma", "gamma", 1.4, gamma),
        ("low_resolution", "low_resolution", 0.5, low_resolution),
    ],
)
def test_each_change_has_its_own_chance_and_range(image, name, bounds, value, change):
    config = replace(NEVER, **{f"{name}_probability": 1.0, bounds: (value, value)})
    expected = torch.stack([change(patch, value) for patch in image])
    assert torch.equal(change_intensity(image, config, generator()), expected)


def test_the_amount_is_uniform_over_its_range():
    ones = torch.ones(1000, 1, 1, 1, 1)
    factors = change_intensity(
        ones, replace(NEVER, brightness_probability=1.0, brightness=(0.5, 2.5)), generator()
    ).flatten()
    assert factors.min() > 0.5
    assert factors.max() < 2.5
    assert factors.mean() == pytest.approx(1.5, abs=0.06)  # 3 standard errors of 2 / sqrt(12 * 1000)
    assert factors.std() == pytest.approx(2 / math.sqrt(12), rel=0.05)


def test_noise_is_gaussian_and_at_most_as_strong_as_allowed():
    image = torch.zeros(200, 1, 8, 8, 8)
    noise = change_intensity(image, replace(NEVER, noise_probability=1.0, noise_std=0.4), generator())
    strengths = noise.flatten(1).std(1)
    assert strengths.max() < 0.4 * 1.1
    assert strengths.mean() == pytest.approx(0.2, abs=0.03)
    standard = (noise.flatten(1) / strengths[:, None]).flatten()
    assert standard.mean() == pytest.approx(0, abs=0.01)
    assert standard.pow(4).mean() == pytest.approx(3, abs=0.1)
    apart = torch.corrcoef(noise.flatten(1)) - torch.eye(200)
    assert apart.abs().max() < 0.3  # patches do not share their noise


@pytest.mark.parametrize("name", NAMES)
def test_chances_are_kept(name):
    image = torch.randn(400, 1, 4, 4, 4, generator=generator(0))
    away = {"blur": "blur_sigma", "noise": "noise_std"}.get(name, name)
    config = replace(NEVER, **{f"{name}_probability": 0.3, away: 0.5 if name == "noise" else (0.5, 0.5)})
    changed = (change_intensity(image, config, generator()) != image).flatten(1).any(1)
    assert changed.float().mean() == pytest.approx(0.3, abs=0.07)  # 3 standard errors


def test_one_change_leaves_the_draws_of_the_others(image):
    few = replace(NEVER, noise_probability=0.0, gamma_probability=0.5)
    many = replace(few, noise_probability=1.0, noise_std=0.0, blur_probability=0.0, brightness=(0.1, 9.0))
    many = replace(many, brightness_probability=0.0, contrast_probability=1.0, contrast=(1.0, 1.0))
    one, two = (change_intensity(image, config, generator()) for config in (few, many))
    torch.testing.assert_close(one, two, rtol=0, atol=1e-5)


def test_a_patch_does_not_depend_on_its_neighbours(image):
    config = replace(IntensityConfig(), **{f"{name}_probability": 0.5 for name in NAMES})
    whole = change_intensity(image, config, generator())
    other = image.clone()
    other[1] = 100.0
    assert torch.equal(change_intensity(other, config, generator())[[0, 2]], whole[[0, 2]])


def test_changes_are_drawn_apart_from_one_another(monkeypatch):
    image = torch.randn(300, 1, 2, 2, 2, generator=generator(0))
    drawn: dict[str, dict[int, float]] = {name: {} for name in ("blur", "contrast", "gamma", "low_resolution")}

    def record(name):
        def note(patch, amount):
            drawn[name][int(patch[0, 0, 0, 0])] = amount
            return patch

        return note

    for name in drawn:
        monkeypatch.setattr(intensity, name, record(name))
    image[:, 0, 0, 0, 0] = torch.arange(300.0)
    half = {f"{name}_probability": 0.5 for name in drawn}
    unit = dict.fromkeys(("blur_sigma", "contrast", "gamma", "low_resolution"), (1e-6, 1.0))
    change_intensity(image, replace(NEVER, **half, **unit), generator())
    for one, two in itertools.combinations(drawn, 2):
        both = sorted(drawn[one].keys() & drawn[two].keys())
        assert len(both) == pytest.approx(75, abs=25)  # a quarter of 300, within 3 standard errors
        amounts = np.array([[drawn[name][index] for index in both] for name in (one, two)])
        assert abs(np.corrcoef(amounts)[0, 1]) < 0.4


def test_every_change_has_a_chance_of_its_own():
    image = torch.randn(60, 1, 4, 4, 4, generator=generator(0))
    half = {"blur_sigma": (0.5, 0.5), "brightness": (0.5, 0.5), "contrast": (0.5, 0.5), "gamma": (0.5, 0.5)}
    chosen = set()
    for name in NAMES:
        config = replace(NEVER, **half, low_resolution=(0.5, 0.5), **{f"{name}_probability": 0.5})
        changed = (change_intensity(image, config, generator()) != image).flatten(1).any(1)
        chosen.add(tuple(changed.tolist()))
    assert len(chosen) == len(NAMES)
