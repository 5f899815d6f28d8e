from __future__ import annotations

import pytest
import torch
from torch import nn

from seg.config import InferenceConfig
from seg.inference.windows import predict_logits

SIZE = (6, 4, 8)


def smoothing_network():
    """A network whose output at a voxel depends on its neighbours."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv3d(2, 4, 3, padding=1), nn.LeakyReLU(), nn.Conv3d(4, 3, 3, padding=1)).eval()


def pointwise(image):
    return torch.cat((image[:, :1] * 2 - 1, image[:, 1:] ** 2, image.sum(1, keepdim=True)), dim=1)


@pytest.mark.parametrize("blend", ["gaussian", "constant"])
def test_a_volume_of_the_size_of_a_patch_is_one_forward_pass(blend):
    network, image = smoothing_network(), torch.randn(1, 2, *SIZE)
    logits = predict_logits(network, image, SIZE, InferenceConfig(blend=blend))
    with torch.no_grad():
        torch.testing.assert_close(logits, network(image), atol=1e-5, rtol=1e-5)
    assert not logits.requires_grad


@pytest.mark.parametrize("shape", [(13, 9, 11), (6, 5, 30), (3, 4, 9), (2, 2, 2)])
@pytest.mark.parametrize("config", [InferenceConfig(), InferenceConfig(overlap=0.0, blend="constant", batch=3)])
def test_windows_do_not_show_where_a_voxel_depends_on_itself_alone(shape, config):
    image = torch.randn(1, 2, *shape)
    logits = predict_logits(pointwise, image, SIZE, config)
    torch.testing.assert_close(logits, pointwise(image), atol=1e-5, rtol=1e-5)


def test_overlapping_windows_are_averaged():
    ramp = torch.arange(4.0).view(1, 1, 4, 1, 1)
    config = InferenceConfig(overlap=0.5, blend="constant")
    logits = predict_logits(
        lambda image: ramp.repeat(len(image), 1, 1, 2, 2), torch.zeros(1, 1, 8, 2, 2), (4, 2, 2), config
    )
    # Windows begin at 0, 2 and 4; two of them cover the voxels between.
    torch.testing.assert_close(logits[0, 0, :, 0, 0], torch.tensor([0, 1, 1, 2, 1, 2, 2, 3.0]))


def test_a_gaussian_trusts_the_middle_of_a_window():
    ramp = torch.tensor([0.0, 1, 1, 0]).view(1, 1, 4, 1, 1)
    logits = predict_logits(
        lambda image: ramp.repeat(len(image), 1, 1, 2, 2),
        torch.zeros(1, 1, 8, 2, 2),
        (4, 2, 2),
        InferenceConfig(overlap=0.5),
    )
    assert (logits[0, 0, 2:6, 0, 0] > 0.5).all()


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_the_number_of_windows_per_pass_changes_nothing(batch):
    sizes = []

    def network(image):
        sizes.append(len(image))
        return pointwise(image)

    image = torch.randn(1, 2, 12, 8, 8)
    logits = predict_logits(network, image, SIZE, InferenceConfig(overlap=0.0, batch=batch))
    torch.testing.assert_close(logits, pointwise(image), atol=1e-5, rtol=1e-5)
    assert max(sizes) == min(batch, 4)
    assert sum(sizes) == 4


def test_logits_are_single_precision():
    logits = predict_logits(lambda image: image.bfloat16(), torch.randn(1, 1, 8, 8, 8), (4, 4, 4), InferenceConfig())
    assert logits.dtype == torch.float32
