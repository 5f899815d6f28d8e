from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from seg.config import LossConfig, OptimizerConfig
from seg.errors import RunError
from seg.evaluation.tensors import dice_per_class
from seg.training.losses import build_loss
from seg.training.module import SegmentationModule

CLASSES = 3


def build_module(network=None, loss=None, predictor=None, classes=CLASSES):
    return SegmentationModule(
        network or nn.Conv3d(1, classes, 1),
        loss or build_loss(LossConfig(), ignore_index=None),
        predictor or (lambda network, image: network(image)),
        num_classes=classes,
        optimizer=OptimizerConfig(),
        total_steps=100,
    )


@pytest.fixture
def logged(monkeypatch):
    """What a module logs."""
    values = {}
    monkeypatch.setattr(
        SegmentationModule, "log", lambda self, name, value, **kwargs: values.update({name: float(value)})
    )
    return values


def dice_by_sets(prediction, label, num_classes):
    """Dice from sets of voxels, after Dice's definition 2|A & B| / (|A| + |B|)."""
    values = []
    for value in range(1, num_classes):
        a = {i for i, (p, r) in enumerate(zip(prediction, label, strict=True)) if p == value and r < num_classes}
        b = {i for i, r in enumerate(label) if r == value}
        values.append(2 * len(a & b) / (len(a) + len(b)) if a or b else float("nan"))
    return values


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from([0, 1, 2, 3, 4, 255])), min_size=1, max_size=24))
def test_dice_is_that_of_sets_of_voxels(pairs):
    prediction, label = (list(values) for values in zip(*pairs, strict=True))
    found = dice_per_class(torch.tensor(prediction), torch.tensor(label), 4)
    np.testing.assert_allclose(found, dice_by_sets(prediction, label, 4), atol=1e-6, equal_nan=True)


def test_dice_of_two_boxes_is_their_closed_form():
    prediction, label = (torch.zeros(1, 1, 10, 10, 10, dtype=torch.int64) for _ in range(2))
    prediction[..., 0:6, :, :] = 1
    label[..., 2:6, :, :] = 1
    label[..., 9, :, :] = 2
    np.testing.assert_allclose(dice_per_class(prediction, label, 4), [2 * 4 / (6 + 4), 0, np.nan])


class _NotANumber(nn.Module):
    def forward(self, logits, label):
        return logits.sum() * float("nan")


@pytest.mark.parametrize(
    ("clip_norm", "in_bf16", "settings"),
    [
        (12.0, False, {"optimizer.learning_rate", "optimizer.clip_norm"}),
        (12.0, True, {"optimizer.learning_rate", "optimizer.clip_norm", "training.precision"}),
        (None, False, {"optimizer.learning_rate", "optimizer.clip_norm"}),
    ],
)
def test_a_loss_that_is_not_finite_names_the_cases_and_what_can_help(logged, clip_norm, in_bf16, settings):
    module = build_module(loss=_NotANumber())
    module.optimizer_config = OptimizerConfig(learning_rate=0.5, clip_norm=clip_norm)
    batch = {"image": torch.zeros(2, 1, 4, 4, 4), "label": torch.zeros(2, 1, 4, 4, 4).long(), "case_id": ["b7", "a1"]}
    with pytest.raises(RunError) as caught, torch.autocast("cpu", dtype=torch.bfloat16, enabled=in_bf16):
        module.training_step(batch, 0)
    (problem,) = caught.value.problems
    assert (problem.path, problem.kind, problem.value) == ("step 0: the loss", "not_finite", "nan on cases a1, b7")
    assert set(re.findall(r"\w+\.[a-z_]+", problem.remedy)) == settings
    assert logged == {}


def test_a_prediction_that_is_not_finite_names_the_case(logged):
    image = torch.full((1, 1, 4, 4, 4), float("inf"))
    module = build_module(predictor=lambda network, given: given.expand(1, CLASSES, 4, 4, 4))
    with pytest.raises(RunError) as caught:
        module.validation_step({"image": image, "label": torch.ones(1, 1, 4, 4, 4).long(), "case_id": "b7"}, 0)
    (problem,) = caught.value.problems
    assert (problem.path, problem.kind) == ("step 0: predictions", "not_finite")
    assert "b7" in problem.value


def test_the_training_step_returns_the_loss(logged):
    module = build_module()
    image, label = torch.randn(2, 1, 4, 4, 4), torch.randint(0, CLASSES, (2, 1, 4, 4, 4))
    loss = module.training_step({"image": image, "label": label, "case_id": ["a", "b"]}, 0)
    expected = build_loss(LossConfig(), ignore_index=None)(module.network(image), label)
    torch.testing.assert_close(loss, expected)
    assert loss.requires_grad
    assert logged == {}  # every log is written by one callback


def test_the_score_is_the_mean_over_classes_of_the_mean_over_cases(logged):
    label = torch.zeros(1, 1, 2, 2, 2, dtype=torch.int64)
    only_one, both = label.clone(), label.clone()
    only_one[0, 0, 0] = 1
    both[0, 0, 0], both[0, 0, 1] = 1, 2
    outputs = iter([only_one, torch.ones_like(label)])

    def predictor(network, image):
        prediction = next(outputs)
        return nn.functional.one_hot(prediction[:, 0], CLASSES).movedim(-1, 1).float()

    module = build_module(predictor=predictor)
    for reference in (only_one, both):
        module.validation_step({"image": torch.zeros(1, 1, 2, 2, 2), "label": reference, "case_id": "a"}, 0)
    module.on_validation_epoch_end()
    # Class 1: 1 and 2 x 4 / (8 + 4); class 2: absent in the first case, 0 in the second.
    assert logged["val_dice_1"] == pytest.approx((1 + 2 / 3) / 2)
    assert logged["val_dice_2"] == pytest.approx(0)
    assert logged["val_dice"] == pytest.approx((1 + 2 / 3) / 4)


def test_scores_of_one_validation_do_not_reach_the_next(logged):
    module = build_module(predictor=lambda network, image: torch.eye(CLASSES)[[0] * 8].T.reshape(1, CLASSES, 2, 2, 2))
    ones = torch.ones(1, 1, 2, 2, 2, dtype=torch.int64)
    for label in (ones, 0 * ones):
        module.validation_step({"image": ones.float(), "label": label, "case_id": "a"}, 0)
        module.on_validation_epoch_end()
    assert np.isnan(logged["val_dice_1"])  # of the second alone


def test_the_network_is_given_channels_last_and_its_output_is_returned():
    seen = []

    class Network(nn.Module):
        def forward(self, image):
            seen.append(image.is_contiguous(memory_format=torch.channels_last_3d))
            return image + 1

    image = torch.randn(1, 2, 3, 4, 5)
    assert torch.equal(build_module(Network())(image), image + 1)
    assert seen == [True]


def test_the_schedule_moves_with_optimiser_steps():
    configured = build_module().configure_optimizers()
    assert configured["lr_scheduler"]["interval"] == "step"
    assert isinstance(configured["optimizer"], torch.optim.AdamW)
    assert configured["lr_scheduler"]["scheduler"].optimizer is configured["optimizer"]
