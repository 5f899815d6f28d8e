"""What networks are measured by: windows with foreground, and scores that ignored voxels do not touch."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from seg.compression.original import changes_of_dice, class_weights, dice_of, predicted, window
from seg.config import ExperimentConfig, NetworkConfig, PatchConfig
from seg.data.cases import Case
from seg.networks import UNet
from tests.compression.validation import scores

IGNORED = 3


def test_the_window_of_most_foreground_is_not_one_of_ignored_voxels(tmp_path: Path) -> None:
    label = np.zeros((24, 8, 8), np.uint8)
    label[2:4], label[18:22] = 1, IGNORED
    image = np.random.default_rng(0).normal(size=label.shape).astype(np.float32)
    for name, array in (("image", image), ("label", label)):
        nib.save(nib.Nifti1Image(array, np.eye(4)), tmp_path / f"{name}.nii")
    case = Case(id="a", images=(tmp_path / "image.nii",), label=tmp_path / "label.nii")
    config = ExperimentConfig(patches=PatchConfig(size=(8, 8, 8)))
    for ignored, values in ((IGNORED, {0, 1}), (None, {0, IGNORED})):
        cut, found = window(case, config, ignored)
        assert cut.shape == (1, 1, 8, 8, 8)
        assert set(found.unique().tolist()) == values


class Given(UNet):
    """A network that returns its image as logits."""

    def __init__(self) -> None:
        super().__init__(3, 3, NetworkConfig(channels=(2, 2), strides=((1, 1, 1),) * 2, kernel_sizes=((3, 3, 3),) * 2))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image


def test_ignored_voxels_count_nowhere() -> None:
    stream = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 3, 4, 4, 4, generator=stream)
    label = torch.randint(0, 3, (4, 4, 4), generator=stream)
    label[2:] = IGNORED
    dice, entropy, probabilities = scores(logits, label, IGNORED)
    alone = scores(logits[:, :, :2], label[:2], None)
    assert dice == pytest.approx(alone[0])
    (found,) = dice_of(Given(), [(logits, label)])
    predicted, reference = logits[0, :, :2].argmax(0), label[:2]
    for index in (1, 2):
        both = int(((predicted == index) & (reference == index)).sum())
        size = int((predicted == index).sum()) + int((reference == index).sum())
        assert found[index - 1] == pytest.approx(2 * both / size)
    assert entropy == pytest.approx(float(torch.nn.functional.cross_entropy(logits, label[None], ignore_index=IGNORED)))
    assert torch.equal(probabilities, alone[2])


def test_a_structure_that_one_network_alone_invents_counts_as_1() -> None:
    nothing = np.nan  # neither the prediction nor the reference has the class
    before, after = np.array([[nothing, 0.0, 0.8, nothing]]), np.array([[0.0, nothing, 0.5, nothing]])
    assert changes_of_dice(before, after)[0] == pytest.approx([-1.0, 1.0, -0.3, nothing], nan_ok=True)


def test_what_a_network_predicts_is_counted_by_class() -> None:
    image = torch.full((1, 3, 2, 2, 2), -200.0)
    for voxel, index in enumerate((0, 0, 0, 1)):
        image.flatten(2)[0, index, 2 * voxel : 2 * voxel + 2] = 200
    shares, found = predicted(Given(), [image, image])
    assert shares.tolist() == pytest.approx([0.75, 0.25, 0])
    assert found.tolist() == [True, True, False]


@pytest.mark.parametrize(
    ("shares", "found", "weights"),
    [
        ((0.95, 0.04, 0.01), (True, True, True), (2 / 3, 4 / 3)),
        ((0.95, 0.04, 0.01), (True, True, False), (1, 1)),
        ((0.90, 0.01, 0.09), (True, True, False), (3 / 2, 1 / 2)),
    ],
)
def test_a_class_counts_by_the_root_of_its_share_and_one_not_found_no_more_than_others(
    shares: tuple[float, ...], found: tuple[bool, ...], weights: tuple[float, ...]
) -> None:
    assert class_weights(torch.tensor(shares), torch.tensor(found)).tolist() == pytest.approx(weights)
