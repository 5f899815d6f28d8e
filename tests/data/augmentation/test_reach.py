"""What deformation finds around a patch: the volume as far as it reaches, padding beyond."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.spatial.transform import Rotation
from torch.nn import functional

from seg.config import AugmentationConfig, IntensityConfig, PatchConfig, SpatialConfig
from seg.data.augmentation import Frame, augment, margins, spatial
from seg.data.augmentation.spatial import deform, draw_deformations, sampling_grid
from seg.data.datamodule import collate
from seg.data.patches import TrainingPatches, foreground_voxels
from tests.data.builders import drawn_by

Size = tuple[int, int, int]
# Of the code that deformed patches alone.
GOLDEN_LABELS = [1164, 1742, 1254, 1920]
GOLDEN_IMAGES = [1024.1652690884887, 1571.7825812740193, 1164.1623888938213, 2615.206433120322]
STRONG = SpatialConfig(
    probability=0.8,
    rotation_deg=(20.0, 20.0, 20.0),
    scale=(0.8, 1.25),
    anisotropic_scale=0.1,
    shift=(1.0, 0.0, 2.0),
    elastic_voxels=1.5,
    mirror_axes=(0,),
)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def patches_of(shapes, size, config):
    source, cases = seeded(0), []
    for index, shape in enumerate(shapes):
        image = torch.randn(2, *shape, generator=source)
        label = torch.randint(0, 3, (1, *shape), generator=source).to(torch.uint8)
        cases.append({"image": image, "label": label, "foreground": foreground_voxels(label, 3), "case_id": str(index)})
    drawn = PatchConfig(size=size, batch=2, foreground_fraction=0.5)
    return TrainingPatches(cases, drawn, 3, 0, margins(config, size))


def augmented(patches, config, position):
    batch = collate([patches[position], patches[position + 1]])
    frame = Frame(size=patches.config.size, corners=batch["corner"])
    return augment(batch["image"], batch["label"], config, generator=seeded(position), frame=frame)


def deformed_as_a_batch(image, label, config, generator):
    """Deforms patches that have nothing around them, all in one call; returns images and labels, one upon the other."""
    draws = draw_deformations(len(image), image.shape[2:], config, generator)
    chosen = draws.active.nonzero()[:, 0]
    points = sampling_grid(draws, chosen, image.shape[2:], image.device)
    image, label = image.clone(), label.float()
    image[chosen] = functional.grid_sample(image[chosen], points, padding_mode="border", align_corners=True)
    label[chosen] = functional.grid_sample(label[chosen], points, mode="nearest", align_corners=True)
    both = torch.cat((image, label), 1)
    return torch.stack([one.flip([1 + a for a in range(3) if m[a]]) for one, m in zip(both, draws.mirrored)])  # noqa: B905


def test_volumes_that_fit_into_a_patch_are_deformed_as_patches_bit_for_bit():
    size = (12, 12, 10)
    patches = patches_of([(9, 8, 7), (12, 12, 10), (12, 5, 10), (10, 12, 9)], size, STRONG)
    still = replace(IntensityConfig(), **{f"{name}_probability": 0.0 for name in ("noise", "blur", "brightness")})
    config = AugmentationConfig(spatial=STRONG, intensity=replace(still, contrast_probability=0, gamma_probability=0))
    for position in range(0, 24, 2):
        image, label = augmented(patches, config, position)
        items = [patches[position], patches[position + 1]]
        assert all(item["corner"] == (0, 0, 0) and item["image"].shape[1:] == size for item in items)
        whole = [torch.stack([item[key] for item in items]) for key in ("image", "label")]
        expected = deformed_as_a_batch(*whole, STRONG, seeded(position))
        assert torch.equal(image, expected[:, :2])
        assert torch.equal(label.float(), expected[:, 2:])


def test_volumes_that_fit_into_a_patch_give_the_values_that_they_gave_before_margins():
    patches = patches_of([(9, 8, 7), (12, 12, 10), (12, 5, 10), (10, 12, 9)], (12, 12, 10), STRONG)
    found = [augmented(patches, AugmentationConfig(spatial=STRONG), position) for position in (0, 2, 4, 6)]
    assert [int(label.sum()) for _, label in found] == GOLDEN_LABELS
    assert [float(image.double().abs().sum()) for image, _ in found] == pytest.approx(GOLDEN_IMAGES, rel=1e-6)


def test_a_volume_around_the_patch_is_never_taken_for_background():
    size = (6, 5, 4)
    config = replace(STRONG, probability=1.0, rotation_deg=(30.0, 60.0, 180.0))
    around = margins(config, size)
    full = [length + 2 * margin for length, margin in zip(size, around, strict=True)]
    label = torch.ones(40, 1, *full, dtype=torch.uint8)
    frame = Frame(size=size, corners=[around] * 40)
    _, moved = deform(label.float(), label, config, seeded(0), frame=frame)
    assert moved.shape == (40, 1, *size)
    assert moved.dtype == torch.int64
    assert moved.all()
    _, moved = deform(label.float()[..., :6, :5, :4], label[..., :6, :5, :4], config, seeded(0))
    assert not moved.all()


@pytest.mark.parametrize("shape", [(15, 14, 13), (7, 6, 5)])
@pytest.mark.parametrize("seed", range(4))
def test_a_patch_is_what_scipy_makes_of_the_whole_volume(monkeypatch, seed, shape):
    """Rotation, zoom and shift about the centre of a patch in a volume that ends not far from it, or with it."""
    random, size, padding = np.random.default_rng(seed), (7, 6, 5), 3
    corner = [int(random.integers(0, shape[0] - 6)) for _ in range(3)]
    angles, zooms, shifts = random.uniform(-60, 60, 3), random.uniform(0.6, 1.6, 3), random.uniform(-2, 2, 3)
    drawn = drawn_by(angles=angles, zooms=zooms, shifts=shifts)
    monkeypatch.setattr(spatial, "draw_deformations", lambda *_: drawn)
    image, label = torch.randn(1, 1, *shape, generator=seeded(seed)), torch.randint(0, 3, (1, 1, *shape))
    frame = Frame(size=size, corners=[corner])
    found, moved = deform(image, label, STRONG, seeded(0), frame=frame, padding_label=padding)
    back = np.linalg.inv(np.diag(zooms) @ Rotation.from_euler("xyz", angles, degrees=True).as_matrix())
    middle = (np.array(size) - 1) / 2
    offset = corner + middle - back @ middle - shifts
    expected = ndimage.affine_transform(
        image[0, 0].double().numpy(), back, offset, output_shape=size, order=1, mode="nearest"
    )
    np.testing.assert_allclose(found[0, 0].numpy(), expected, rtol=0, atol=1e-4)
    nearest = ndimage.affine_transform(
        label[0, 0].numpy(), back, offset, output_shape=size, order=0, mode="grid-constant", cval=padding
    )
    np.testing.assert_array_equal(moved[0, 0].numpy(), nearest)


def test_what_lies_outside_a_volume_has_the_label_of_its_padding():
    label = torch.ones(1, 1, 6, 6, 6, dtype=torch.uint8)
    config = SpatialConfig(probability=1.0, scale=(0.5, 0.5), rotation_deg=(0.0, 0.0, 0.0))
    for padding in (0, 5, 255):
        _, moved = deform(label.float(), label, config, seeded(0), padding_label=padding)
        expected = torch.full((6, 6, 6), padding)
        expected[2:4, 2:4, 2:4] = 1  # voxels 2 and 3 are seen at 1.5 and 3.5, 1 and 4 at -0.5 and 5.5
        expected[1:5, 1:5, 1:5] = moved[0, 0, 1:5, 1:5, 1:5]  # halves may round either way
        assert torch.equal(moved[0, 0], expected)
        assert set(moved.unique().tolist()) == {1, padding}


def test_what_is_not_deformed_is_cut_out():
    image = [torch.randn(2, 9, 8, 7), torch.randn(2, 5, 6, 4)]
    label = [torch.randint(0, 9, (1, *one.shape[1:])).to(torch.uint8) for one in image]
    frame = Frame(size=(4, 5, 3), corners=[(2, 3, 1), (0, 1, 1)])
    patch, moved = deform(image, label, SpatialConfig(probability=0.0), seeded(0), frame=frame)
    assert torch.equal(patch[0], image[0][:, 2:6, 3:8, 1:4])
    assert torch.equal(patch[1], image[1][:, 0:4, 1:6, 1:4])
    assert torch.equal(moved[1], label[1][:, 0:4, 1:6, 1:4].long())


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"probability": 0.0, "shift": (9.0, 9.0, 9.0)}, (0, 0, 0)),
        ({}, (0, 0, 0)),
        ({"scale": (1.5, 2.0)}, (0, 0, 0)),
        ({"shift": (2.0, 0.5, 0.0)}, (2, 1, 0)),
        ({"scale": (0.5, 1.0)}, (5, 10, 2)),
        ({"scale": (0.5, 1.0), "scale_axes": (0,)}, (5, 0, 0)),
        ({"scale": (1.0, 1.0), "anisotropic_scale": 0.5, "scale_axes": (1, 2)}, (0, 10, 2)),
        ({"rotation_deg": (0.0, 0.0, 90.0)}, (7, 2, 0)),  # the half diagonal of the slice and its axis, 11.4
        ({"elastic_voxels": 1.0, "elastic_axes": (0, 1)}, (6, 6, 0)),
    ],
)
def test_margins_in_closed_form(changes, expected):
    still = SpatialConfig(probability=1.0, rotation_deg=(0.0, 0.0, 0.0), scale=(1.0, 1.0))
    assert margins(replace(still, **changes), (11, 21, 5)) == expected


@pytest.mark.parametrize("largest", [(15.0, 15.0, 15.0), (0.0, 0.0, 180.0), (90.0, 5.0, 40.0), (100.0, 100.0, 100.0)])
def test_no_draw_reaches_beyond_the_margins_and_some_come_near(largest):
    size = torch.Size((10, 7, 8))
    config = replace(STRONG, probability=1.0, rotation_deg=largest, elastic_voxels=0.3, elastic_grid=50)
    drawn = draw_deformations(4000, size, config, seeded(1))
    points = sampling_grid(drawn, torch.arange(4000), size, torch.device("cpu")).flip(-1)
    for axis, margin in enumerate(margins(config, size)):
        reached = points[..., axis].abs().max() * (size[axis] - 1) / 2 - (size[axis] - 1) / 2
        assert 0.3 * margin < reached <= margin


def test_torch_draws_no_larger_normal_number_than_allowed_for():
    longest = max(torch.randn(10**6, generator=seeded(seed)).abs().max() for seed in range(5))
    # Box and Muller's largest radius from uniform numbers of 24 bits.
    assert longest < np.sqrt(-2 * np.log(2.0**-24)) < 6
