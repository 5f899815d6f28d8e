"""What holds of all augmentation together."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from seg.config import AugmentationConfig, IntensityConfig, SpatialConfig
from seg.data.augmentation import augment
from seg.data.streams import Stream, torch_generator

NAMES = ("noise", "blur", "brightness", "contrast", "gamma", "low_resolution")
STRONG = AugmentationConfig(
    spatial=SpatialConfig(probability=1.0, elastic_voxels=1.0, mirror_axes=(0, 1, 2)),
    intensity=IntensityConfig(**{f"{name}_probability": 1.0 for name in NAMES}),
)


@pytest.fixture
def batch():
    source = torch.Generator().manual_seed(0)
    image = torch.randn(2, 2, 8, 8, 6, generator=source)
    return image, torch.randint(0, 3, (2, 1, 8, 8, 6), generator=source)


def at(seed, position):
    return torch_generator(seed, Stream.AUGMENTATION, position)


def test_a_batch_is_a_function_of_seed_and_position(batch):
    image, label = augment(*batch, STRONG, generator=at(1, 40))
    torch.rand(7)  # a global generator has no part in it
    again, again_label = augment(*batch, STRONG, generator=at(1, 40))
    assert torch.equal(image, again)
    assert torch.equal(label, again_label)
    for seed, position in ((1, 42), (2, 40)):
        assert not torch.equal(augment(*batch, STRONG, generator=at(seed, position))[0], image)


def test_arguments_are_left_alone_and_types_kept(batch):
    before = [tensor.clone() for tensor in batch]
    image, label = augment(*batch, STRONG, generator=at(0, 0))
    assert all(torch.equal(one, two) for one, two in zip(before, batch, strict=True))
    assert (image.dtype, image.shape) == (torch.float32, batch[0].shape)
    assert (label.dtype, label.shape) == (torch.int64, batch[1].shape)
    assert torch.isfinite(image).all()


def test_intensity_does_not_move_labels(batch):
    still = replace(STRONG, spatial=SpatialConfig(probability=0.0))
    image, label = augment(*batch, still, generator=at(0, 0))
    assert torch.equal(label, batch[1])
    assert not torch.equal(image, batch[0])
    assert not torch.equal(image, augment(*batch, still, generator=at(0, 2))[0])


def test_geometry_is_the_same_whatever_the_intensities(batch):
    plain = replace(STRONG, intensity=IntensityConfig())
    assert torch.equal(augment(*batch, STRONG, generator=at(3, 0))[1], augment(*batch, plain, generator=at(3, 0))[1])
