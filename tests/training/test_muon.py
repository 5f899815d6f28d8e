"""Muon against torch's optimisers and against the singular value decomposition."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from seg.config import OptimizerConfig
from seg.training.muon import Muon, orthogonalised
from seg.training.optim import build_optimizer

STEPS = 6


def gradients(shape: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(shape, generator=generator) * 10.0 ** (step - 3) for step in range(STEPS)]


def follow(optimizer: torch.optim.Optimizer, parameter: nn.Parameter, course: list[Tensor]) -> Tensor:
    for gradient in course:
        parameter.grad = gradient.reshape(parameter.shape).clone()
        optimizer.step()
    return parameter.detach()


@pytest.mark.parametrize("shape", [(8, 40), (40, 8), (16, 16)])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_matrices_take_the_steps_of_torch(shape: tuple[int, int], decay: float) -> None:
    start = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    course = gradients(shape)
    own, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    ours = follow(Muon([{"params": [own]}], 0.02, momentum=0.9, weight_decay=decay), own, course)
    oracle = torch.optim.Muon([theirs], lr=0.02, momentum=0.9, weight_decay=decay, adjust_lr_fn="match_rms_adamw")
    expected = follow(oracle, theirs, course)
    # torch iterates in bfloat16, so single entries differ by some percent of a step.
    moved = expected - start
    assert (ours - expected).norm() < 0.03 * moved.norm()


def test_other_groups_take_the_steps_of_adamw() -> None:
    start, course = torch.linspace(-1, 1, 7), gradients((7,))
    own, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    ours = follow(Muon([{"params": [own], "matrix": False}], 0.02, weight_decay=0.1), own, course)
    expected = follow(torch.optim.AdamW([theirs], lr=0.02, betas=(0.9, 0.99), weight_decay=0.1), theirs, course)
    torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize("shape", [(8, 216), (216, 8), (32, 32)])
def test_singular_values_come_near_one_and_vectors_stay(shape: tuple[int, int]) -> None:
    rows, columns = shape
    rank = min(shape)
    u = torch.linalg.qr(torch.randn(rows, rank, generator=torch.Generator().manual_seed(2))).Q
    v = torch.linalg.qr(torch.randn(columns, rank, generator=torch.Generator().manual_seed(3))).Q
    values = torch.logspace(0, -2, rank)
    result = u.T @ orthogonalised(u @ values.diag() @ v.T) @ v
    assert result.diagonal().min() > 0.6
    assert result.diagonal().max() < 1.3
    torch.testing.assert_close(result, result.diagonal().diag(), atol=1e-4, rtol=0)


def test_a_kernel_is_a_matrix_with_a_row_per_output_channel() -> None:
    start = torch.randn(4, 3, 2, 2, 2, generator=torch.Generator().manual_seed(0))
    course = gradients((4, 24))
    flat = nn.Parameter(start.reshape(4, 24).clone())
    kernel = nn.Parameter(start.clone(memory_format=torch.channels_last_3d))
    expected = follow(Muon([{"params": [flat]}], 0.02), flat, course)
    ours = follow(Muon([{"params": [kernel]}], 0.02), kernel, course)
    torch.testing.assert_close(ours.reshape(4, 24), expected)


def test_a_restored_state_continues_alike() -> None:
    network = nn.Sequential(nn.Conv3d(1, 4, 3), nn.Conv3d(4, 2, 1))
    network.add_module("heads", nn.ModuleList([nn.Conv3d(2, 2, 1)]))
    twin = copy.deepcopy(network)
    config = OptimizerConfig(name="muon", momentum=0.95)
    first, second = build_optimizer(network, config), build_optimizer(twin, config)
    assert [group["matrix"] for group in first.param_groups] == [True, False, False]
    for step in range(4):
        if step == 2:
            restored = build_optimizer(twin, config)
            restored.load_state_dict(second.state_dict())
            second = restored
        for optimizer in (first, second):
            for index, parameter in enumerate(p for group in optimizer.param_groups for p in group["params"]):
                parameter.grad = torch.full_like(parameter, 0.1 * (index + step + 1))
            optimizer.step()
    for one, other in zip(network.parameters(), twin.parameters(), strict=True):
        assert torch.equal(one, other)
