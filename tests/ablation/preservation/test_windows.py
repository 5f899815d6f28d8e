"""Every voxel of a volume is taken once, and never one of the padding."""

import pytest
import torch

from seg.ablation.preservation.features import window_voxels
from seg.inference.windows import Windows


def indices(shape):
    """Numbers of the voxels of a volume."""
    return torch.arange(shape[0] * shape[1] * shape[2]).reshape(shape)


@pytest.mark.parametrize(
    ("shape", "size", "overlap"),
    [
        ((13, 20, 9), (8, 8, 8), 0.5),
        ((5, 6, 3), (8, 8, 8), 0.5),
        ((40, 17, 8), (16, 8, 8), 0.25),
        ((9, 8, 33), (8,) * 3, 0),
    ],
)
def test_windows_share_out_the_voxels(shape, size, overlap):
    windows = Windows.over(shape, size, overlap)
    volume = indices(shape)
    taken = [window_voxels(windows, start, (1, 1, 1)).labels(volume) for _, start in windows.in_order((0, 1, 2))]
    assert torch.cat(taken).sort().values.tolist() == list(range(volume.numel()))


@pytest.mark.parametrize("stride", [(1, 1, 1), (2, 2, 2), (4, 2, 1), (3, 1, 3)])
def test_features_and_labels_are_of_the_same_voxels(stride):
    shape = (13, 20, 9)
    windows = Windows.over(shape, (12, 8, 12), 0.5)
    # A volume that holds its own coordinates, padded with -1: a stage's voxel holds those at its centre.
    coordinates = torch.stack(torch.meshgrid(*(torch.arange(n) for n in shape), indexing="ij")) + 1
    seen = 0
    for _, start in windows.in_order((0, 1, 2)):
        crop = windows.crop(coordinates, start) - 1
        stage = crop[(slice(None), *(slice(s // 2, None, s) for s in stride))]
        here = window_voxels(windows, start, stride)
        rows = here.features(stage[None])
        labels = here.labels(indices(shape))
        assert (rows >= 0).all()
        x, y, z = rows.T
        assert torch.equal(labels, (x * shape[1] + y) * shape[2] + z)
        seen += len(rows)
    voxels = 13 * 20 * 9 / (stride[0] * stride[1] * stride[2])
    assert voxels * 0.6 < seen < voxels * 1.5


def test_a_volume_smaller_than_a_stride_still_has_a_voxel():
    windows = Windows.over((3, 3, 3), (8, 8, 8), 0.5)
    _, start = windows.in_order((0, 1, 2))[0]
    assert len(window_voxels(windows, start, (8, 8, 8)).labels(indices((3, 3, 3)))) == 1
