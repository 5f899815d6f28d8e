"""The loss against MONAI's, its closed-form gradient against numerical ones, and its rules."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
from monai.losses import DiceCELoss, FocalLoss
from torch import Tensor

from seg.config import LossConfig
from seg.errors import ConfigError
from seg.training.losses import DeepSupervisionLoss, DiceCrossEntropy, build_loss, check_class_weights

SHAPE = (5, 4, 3)


def example(classes: int = 3, dtype: torch.dtype = torch.float64, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, classes, *SHAPE, generator=generator, dtype=torch.float64).to(dtype)
    label = torch.randint(classes, (2, 1, *SHAPE), generator=generator)
    return logits.requires_grad_(), label


@pytest.mark.parametrize("batch_dice", [True, False])
@pytest.mark.parametrize("include_background", [True, False])
@pytest.mark.parametrize("weights", [(1.0, 1.0), (0.3, 2.0), (0.0, 1.0), (1.0, 0.0)])
@pytest.mark.parametrize("classes", [2, 5])
def test_value_and_gradient_are_those_of_monai(
    batch_dice: bool, include_background: bool, weights: tuple[float, float], classes: int
) -> None:
    dice, entropy = weights
    shared = {"include_background": include_background}
    config = LossConfig(dice_weight=dice, ce_weight=entropy, batch_dice=batch_dice, smooth=0.5, **shared)
    logits, label = example(classes)
    theirs = {"to_onehot_y": True, "softmax": True, "batch": batch_dice, "smooth_nr": 0.5, "smooth_dr": 0.5}
    oracle = DiceCELoss(lambda_dice=dice, lambda_ce=entropy, **theirs, **shared)(logits, label)
    (expected,) = torch.autograd.grad(oracle, logits)
    loss = DiceCrossEntropy(config)(logits, label)
    (gradient,) = torch.autograd.grad(loss, logits)
    torch.testing.assert_close(loss, oracle)
    torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize("batch_dice", [True, False])
@pytest.mark.parametrize("ignore_index", [None, 1, 3, -1])
def test_gradient_is_the_numerical_one(batch_dice: bool, ignore_index: int | None) -> None:
    logits, label = example()
    label[:, :, 0] = 0 if ignore_index is None else ignore_index
    loss = DiceCrossEntropy(LossConfig(batch_dice=batch_dice, smooth=0.1), ignore_index)
    assert torch.autograd.gradcheck(lambda x: loss(x, label), logits)


@pytest.mark.parametrize("ignore_index", [1, 3, -1])
def test_an_ignored_voxel_counts_as_if_it_were_not_there(ignore_index: int) -> None:
    logits, label = example()
    label[:, :, -1] = ignore_index
    label[:, :, :-1][label[:, :, :-1] == ignore_index] = 0
    loss = DiceCrossEntropy(LossConfig(), ignore_index)(logits, label)
    (gradient,) = torch.autograd.grad(loss, logits)
    cropped = DiceCrossEntropy(LossConfig())(logits[:, :, :-1], label[:, :, :-1])
    (expected,) = torch.autograd.grad(cropped, logits)
    torch.testing.assert_close(loss, cropped)
    torch.testing.assert_close(gradient, expected)
    assert gradient[:, :, -1].abs().max() == 0


def test_a_batch_of_ignored_voxels_has_no_loss() -> None:
    logits, label = example()
    loss = DiceCrossEntropy(LossConfig(), 3)(logits, torch.full_like(label, 3))
    loss.backward()
    assert loss == 0
    assert logits.grad is not None
    assert logits.grad.abs().max() == 0


def test_a_perfect_prediction_costs_next_to_nothing() -> None:
    _, label = example()
    logits = 30.0 * torch.nn.functional.one_hot(label[:, 0], 3).movedim(-1, 1).float()
    for config in (LossConfig(), LossConfig(batch_dice=False, include_background=True)):
        assert DiceCrossEntropy(config)(logits, label) < 1e-6
        assert DiceCrossEntropy(config)(-logits, label) > 10


def test_an_absent_class_costs_its_share_of_dice_without_a_gradient() -> None:
    config = LossConfig(ce_weight=0.0)
    label = torch.zeros(1, 1, *SHAPE, dtype=torch.long)
    label[:, :, 0] = 1  # class 2 is absent
    logits = torch.zeros(1, 3, *SHAPE, requires_grad=True)
    loss = DiceCrossEntropy(config)(logits, label)
    (gradient,) = torch.autograd.grad(loss, logits)
    # Class 1: overlap 12/3, sizes 60/3 + 12; class 2: Dice 0 but for the smoothing.
    assert loss.item() == pytest.approx(1 - 0.5 * (2 * 4 / 32), abs=1e-6)
    # Probabilities are 1/3: were class 2 to pull, logits of 0 and 2 would move differently.
    torch.testing.assert_close(gradient[:, 2], gradient[:, 0], atol=1e-7, rtol=0)
    # Class 2 predicted nowhere: nothing is lost.
    certain = torch.full((1, 3, *SHAPE), -40.0).scatter(1, label, 40.0)
    assert DiceCrossEntropy(config)(certain, label) < 1e-6


def test_bf16_logits_are_summed_in_fp32_and_keep_their_memory_format() -> None:
    logits, label = example(dtype=torch.bfloat16)
    logits = logits.detach().contiguous(memory_format=torch.channels_last_3d).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        loss = build_loss(LossConfig(), ignore_index=None)(logits, label)
    (gradient,) = torch.autograd.grad(loss, logits)
    exact = logits.detach().double().requires_grad_()
    reference = DiceCrossEntropy(LossConfig())(exact, label)
    (expected,) = torch.autograd.grad(reference, exact)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(reference.item(), rel=1e-6)
    assert gradient.dtype == torch.bfloat16
    assert gradient.is_contiguous(memory_format=torch.channels_last_3d)
    torch.testing.assert_close(gradient.double(), expected, rtol=2**-8, atol=1e-6)


def test_extreme_logits_give_finite_numbers_and_not_a_number_stays_visible() -> None:
    logits, label = example(dtype=torch.float32)
    logits = (logits.detach() * 1e4).requires_grad_()
    loss = DiceCrossEntropy(LossConfig())(logits, label)
    assert all(torch.isfinite(found).all() for found in (loss, *torch.autograd.grad(loss, logits)))
    broken = logits.detach().clone()
    broken[0, 0, 0, 0, 0] = torch.nan
    assert DiceCrossEntropy(LossConfig())(broken, label).isnan()


def test_deep_supervision_weighs_stages_by_halves_of_one() -> None:
    class First(torch.nn.Module):
        def forward(self, logits: Tensor, label: Tensor) -> Tensor:
            assert logits.shape[2:] == label.shape[2:]
            return logits.mean()

    outputs = [torch.full((1, 2, 8 >> stage, 4, 4), float(10**stage)) for stage in range(3)]
    loss = DeepSupervisionLoss(First())(outputs, torch.zeros(1, 1, 8, 4, 4, dtype=torch.long))
    assert float(loss) == pytest.approx((4 * 1 + 2 * 10 + 1 * 100) / 7)


def test_deep_supervision_takes_labels_at_the_grid_of_each_stage() -> None:
    seen = []

    class Record(torch.nn.Module):
        def forward(self, logits: Tensor, label: Tensor) -> Tensor:
            seen.append(label)
            return logits.sum()

    _, small = example(classes=4)
    label = small.repeat_interleave(2, 2).repeat_interleave(2, 3)  # blocks of 2 x 2 x 1 equal voxels
    outputs = [torch.zeros(2, 4, *label.shape[2:]), torch.zeros(2, 4, *SHAPE)]
    DeepSupervisionLoss(Record())(outputs, label)
    assert torch.equal(seen[0], label)
    assert torch.equal(seen[1], small)
    assert seen[1].dtype == torch.int64


def test_one_output_is_a_list_of_one() -> None:
    logits, label = example()
    config = replace(LossConfig(), smooth=1.0)
    loss = build_loss(config, ignore_index=None)
    assert loss(logits, label) == loss([logits], label) == DiceCrossEntropy(config)(logits, label)


@pytest.mark.parametrize(
    ("label", "ignore_index", "message"),
    [
        (torch.full((2, 1, *SHAPE), 3), None, "got 3;"),
        (torch.full((2, 1, *SHAPE), -1), 3, "got -1;"),
        (torch.zeros(2, 1, 3, 4, 5, dtype=torch.long), None, "(2, 3, 5, 4, 3) and (2, 1, 3, 4, 5)"),
    ],
)
def test_what_does_not_fit_is_refused(label: Tensor, ignore_index: int | None, message: str) -> None:
    logits, _ = example()
    with pytest.raises(ValueError, match=re.escape(message)):
        DiceCrossEntropy(LossConfig(), ignore_index)(logits, label)


def plain_terms(logits: Tensor, label: Tensor) -> Tensor:
    """Returns the cross-entropy of each voxel."""
    return torch.nn.functional.cross_entropy(logits, label[:, 0], reduction="none")


@pytest.mark.parametrize("weights", [(1.0, 2.0, 0.5), (0.0, 1.0, 1.0), (3.0, 3.0, 3.0)])
def test_class_weights_are_those_of_torch(weights: tuple[float, ...]) -> None:
    logits, label = example()
    config = LossConfig(class_weights=weights, ce_weight=0.7)
    oracle = torch.nn.functional.cross_entropy(logits, label[:, 0], weight=torch.tensor(weights).double())
    oracle = 0.7 * oracle + DiceCrossEntropy(replace(config, class_weights=(), ce_weight=0.0))(logits, label)
    (expected,) = torch.autograd.grad(oracle, logits)
    loss = DiceCrossEntropy(config)(logits, label)
    (gradient,) = torch.autograd.grad(loss, logits)
    torch.testing.assert_close(loss, oracle)
    torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("classes", [2, 4])
def test_focal_loss_is_that_of_monai(gamma: float, classes: int) -> None:
    logits, label = example(classes)
    theirs = FocalLoss(gamma=gamma, use_softmax=True, to_onehot_y=True, include_background=True)
    oracle = classes * theirs(logits, label)  # its mean is over classes too
    (expected,) = torch.autograd.grad(oracle, logits)
    loss = DiceCrossEntropy(LossConfig(dice_weight=0.0, focal_gamma=gamma))(logits, label)
    (gradient,) = torch.autograd.grad(loss, logits)
    torch.testing.assert_close(loss.float(), oracle)  # theirs computes in fp32
    torch.testing.assert_close(gradient.float(), expected.float())


@pytest.mark.parametrize(("share", "voxels"), [(0.1, 12), (0.29, 35), (0.001, 1), (0.9999, 120)])
def test_the_hardest_voxels_of_the_batch_count_alone(share: float, voxels: int) -> None:
    logits, label = example()
    oracle = plain_terms(logits, label).flatten().sort(descending=True).values[:voxels].mean()
    (expected,) = torch.autograd.grad(oracle, logits)
    loss = DiceCrossEntropy(LossConfig(dice_weight=0.0, top_k=share))(logits, label)
    (gradient,) = torch.autograd.grad(loss, logits)
    torch.testing.assert_close(loss, oracle)
    torch.testing.assert_close(gradient, expected)
    assert int((gradient.abs().sum(1) > 0).sum()) == voxels


def test_weights_exponent_and_share_together_with_ignored_voxels() -> None:
    logits, label = example(4)
    label[:, :, :2] = 3
    config = LossConfig(dice_weight=0.0, class_weights=(0.5, 2.0, 1.0, 9.0), focal_gamma=2.0, top_k=0.25)
    entropy = plain_terms(logits, label)
    weights = torch.tensor(config.class_weights).double()[label[:, 0]]
    terms, counted = weights * (1 - (-entropy).exp()) ** 2 * entropy, label[:, 0] != 3
    hardest = terms[counted].argsort(descending=True)[: round(0.25 * int(counted.sum()))]
    oracle = terms[counted][hardest].sum() / weights[counted][hardest].sum()
    (expected,) = torch.autograd.grad(oracle, logits)
    loss = DiceCrossEntropy(config, 3)(logits, label)
    (gradient,) = torch.autograd.grad(loss, logits)
    torch.testing.assert_close(loss, oracle)
    torch.testing.assert_close(gradient, expected)
    both = DiceCrossEntropy(replace(config, dice_weight=1.0), 3)
    assert torch.autograd.gradcheck(lambda x: both(x, label), logits)
    nothing = DiceCrossEntropy(config, 3)(logits, torch.full_like(label, 3))
    (gradient,) = torch.autograd.grad(nothing, logits)
    assert (nothing.item(), gradient.abs().max().item()) == (0, 0)


@pytest.mark.parametrize("gamma", [0.01, 0.5, 3.0])
def test_certain_voxels_give_the_focal_loss_a_finite_gradient(gamma: float) -> None:
    _, label = example()
    certain = 200.0 * torch.nn.functional.one_hot(label[:, 0], 3).movedim(-1, 1).float()
    for logits in (certain.clone().requires_grad_(), (-certain).requires_grad_()):
        loss = DiceCrossEntropy(LossConfig(focal_gamma=gamma))(logits, label)
        assert all(torch.isfinite(found).all() for found in (loss, *torch.autograd.grad(loss, logits)))


def test_the_number_of_weights_is_that_of_the_classes() -> None:
    check_class_weights(LossConfig(), ("background", "a"))
    check_class_weights(LossConfig(class_weights=(1.0, 2.0)), ("background", "a"))
    with pytest.raises(ConfigError) as caught:
        check_class_weights(LossConfig(class_weights=(1.0,)), ("background", "a"))
    assert [(one.path, one.kind, one.value) for one in caught.value.problems] == [("loss.class_weights", "length", "1")]
