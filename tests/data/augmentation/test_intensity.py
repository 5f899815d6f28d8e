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


def seeded(seed=11):
    return torch.Generator().manual_seed(seed)


def changed(image, **fields):
    return change_intensity(image, replace(NEVER, **fields), seeded())


@pytest.fixture
def image():
    return torch.randn(3, 2, 9, 8, 7, generator=seeded(0)) * 2 + 1


@pytest.mark.parametrize("sigma", [0.1, 0.5, 1.0, 1.7])
def test_blur_is_scipys(image, sigma):
    expected = ndimage.gaussian_filter(image[0].double().numpy(), sigma, axes=(1, 2, 3), mode="nearest", truncate=4.0)
    np.testing.assert_allclose(blur(image[0], sigma).numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("factor", [0.5, 1.0, 1.5])
def test_contrast_scales_about_each_channels_mean_within_its_range(image, factor):
    patch = image[0].double().numpy()
    expected = np.stack([np.clip((c - c.mean()) * factor + c.mean(), c.min(), c.max()) for c in patch])
    np.testing.assert_allclose(contrast(image[0], factor).numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("exponent", [0.5, 1.0, 2.0])
def test_gamma_bends_a_ramp_between_its_ends(exponent):
    unit = torch.linspace(0, 1, 24).view(1, 2, 3, 4)
    patch = torch.cat((unit * 6 - 2, unit * 0.5 + 10))
    expected = torch.cat((unit**exponent * 6 - 2, unit**exponent * 0.5 + 10))
    torch.testing.assert_close(gamma(patch, exponent), expected)


@pytest.mark.parametrize("change", [contrast, gamma, low_resolution, blur])
def test_a_constant_patch_stays(change):
    flat = torch.full((2, 4, 5, 6), 3.0)
    torch.testing.assert_close(change(flat, 0.5), flat)


def along(profile, axis, others):
    """A patch (1, X, Y, Z) that varies along one axis alone."""
    shape = [1, 1, 1, 1]
    shape[1 + axis] = len(profile)
    return profile.view(shape).expand([1, *(len(profile) if other == axis else others for other in range(3))])


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_low_resolution_interpolates_down_and_up_and_shifts_nothing(axis):
    profile = torch.randn(8, generator=seeded(2))
    # A coarse voxel's centre lies between its two fine ones.
    expected = np.interp((np.arange(8) + 0.5) / 2 - 0.5, np.arange(4), profile.view(4, 2).mean(1).numpy())
    got = low_resolution(along(profile, axis, 2), 0.5).movedim(1 + axis, -1)
    np.testing.assert_allclose(got[0, 0, 0].numpy(), expected, atol=1e-6)
    for length, zoom in itertools.product((16, 31, 40), np.linspace(0.5, 1, 26)):
        ramp = along(torch.arange(float(length)), axis, 3)
        moved = (low_resolution(ramp, float(zoom)) - ramp).movedim(1 + axis, -1)
        assert moved[..., 1:-1].abs().max() < 1e-4 * length  # beyond the outer coarse voxels, values continue
        assert moved.mean() == pytest.approx(0, abs=1e-5 * length)


def test_low_resolution_at_the_ends_of_its_range(image):
    torch.testing.assert_close(low_resolution(image[0], 1.0), image[0])
    one = low_resolution(image[0], 0.01)  # one voxel is left, spread over all
    torch.testing.assert_close(one, one[:, :1, :1, :1].expand_as(one))


def test_no_chance_changes_nothing(image):
    same = changed(image)
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
    expected = torch.stack([change(patch, value) for patch in image])
    assert torch.equal(changed(image, **{f"{name}_probability": 1.0, bounds: (value, value)}), expected)


def test_the_amount_is_uniform_over_its_range():
    factors = changed(torch.ones(1000, 1, 1, 1, 1), brightness_probability=1.0, brightness=(0.5, 2.5)).flatten()
    assert 0.5 < factors.min() < factors.max() < 2.5
    assert factors.mean() == pytest.approx(1.5, abs=0.06)  # 3 standard errors of 2 / sqrt(12 * 1000)
    assert factors.std() == pytest.approx(2 / math.sqrt(12), rel=0.05)


def test_noise_is_gaussian_and_at_most_as_strong_as_allowed():
    noise = changed(torch.zeros(200, 1, 8, 8, 8), noise_probability=1.0, noise_std=0.4)
    strengths = noise.flatten(1).std(1)
    assert strengths.max() < 0.4 * 1.1
    assert strengths.mean() == pytest.approx(0.2, abs=0.03)
    standard = (noise.flatten(1) / strengths[:, None]).flatten()
    assert standard.mean() == pytest.approx(0, abs=0.01)
    assert standard.pow(4).mean() == pytest.approx(3, abs=0.1)
    apart = torch.corrcoef(noise.flatten(1)) - torch.eye(200)
    assert apart.abs().max() < 0.3  # patches do not share their noise


def test_every_change_has_a_chance_of_its_own():
    image, chosen = torch.randn(400, 1, 4, 4, 4, generator=seeded(0)), set()
    for name in NAMES:
        away = {"blur": "blur_sigma", "noise": "noise_std"}.get(name, name)
        amount = 0.5 if name == "noise" else (0.5, 0.5)
        found = (changed(image, **{f"{name}_probability": 0.3, away: amount}) != image).flatten(1).any(1)
        assert found.float().mean() == pytest.approx(0.3, abs=0.07)  # 3 standard errors
        chosen.add(tuple(found.tolist()))
    assert len(chosen) == len(NAMES)


def test_one_change_leaves_the_draws_of_the_others(image):
    still = {"noise_std": 0.0, "brightness": (0.1, 9.0), "contrast_probability": 1.0, "contrast": (1.0, 1.0)}
    few, many = (changed(image, gamma_probability=0.5, **more) for more in ({}, still | {"noise_probability": 1.0}))
    torch.testing.assert_close(few, many, rtol=0, atol=1e-5)


def test_a_patch_does_not_depend_on_its_neighbours(image):
    half = {f"{name}_probability": 0.5 for name in NAMES}
    whole, other = changed(image, **half), image.clone()
    other[1] = 100.0
    assert torch.equal(changed(other, **half)[[0, 2]], whole[[0, 2]])


def test_changes_are_drawn_apart_from_one_another(monkeypatch):
    drawn = {name: {} for name in ("blur", "contrast", "gamma", "low_resolution")}
    for name, amounts in drawn.items():

        def note(patch, amount, amounts=amounts):
            amounts[int(patch[0, 0, 0, 0])] = amount
            return patch

        monkeypatch.setattr(intensity, name, note)
    half = {f"{name}_probability": 0.5 for name in drawn}
    unit = dict.fromkeys(("blur_sigma", "contrast", "gamma", "low_resolution"), (1e-6, 1.0))
    changed(torch.arange(300.0).view(300, 1, 1, 1, 1), **half, **unit)
    for one, two in itertools.combinations(drawn.values(), 2):
        both = sorted(one.keys() & two.keys())
        assert len(both) == pytest.approx(75, abs=25)  # a quarter of 300, within 3 standard errors
        assert abs(np.corrcoef([[amounts[index] for index in both] for amounts in (one, two)])[0, 1]) < 0.4
