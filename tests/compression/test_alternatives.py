"""Checks the methods that `seg compress` is compared with."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from seg.compression import shrink as loop
from seg.compression.moments import Moments, Place
from tests.compression.alternatives import BASES, METHODS, chosen_by, eigendamage, pca, tucker


def _second(channels: int, seed: int) -> Tensor:
    mix = torch.randn(channels, channels, generator=torch.Generator().manual_seed(seed)).double()
    return mix @ mix.T


@pytest.fixture
def kernel() -> Tensor:
    return torch.randn(3, 4, 1, generator=torch.Generator().manual_seed(5)).double()


@pytest.fixture
def place() -> Place:
    before = Moments(second=_second(4, 1), fisher=_second(4, 2))
    behind = Moments(second=_second(3, 3), fisher=_second(3, 4))
    return Place(name="p", taps=1, voxels=1.0, voxels_read=1.0, before=before, behind=behind)


@pytest.mark.parametrize("method", BASES)
def test_every_method_gives_projections_and_losses_that_fall_to_0(method: str, place: Place, kernel: Tensor) -> None:
    for side, channels in zip(BASES[method](place, kernel), (4, 3), strict=True):
        whole = side.left @ side.right.T
        assert whole == pytest.approx(torch.eye(channels).double().numpy(), abs=1e-6)
        assert (side.loss.diff() <= 1e-12).all()
        assert float(side.loss[-1]) == pytest.approx(0, abs=1e-9)


def test_pca_loses_the_variance_beyond_the_directions_it_keeps(place: Place, kernel: Tensor) -> None:
    before, _ = pca(place, kernel)
    second = place.before.second
    rest = torch.eye(4).double() - before.left[:, :2] @ before.right[:, :2].T
    share = (rest @ second @ rest.T).trace() / second.trace()
    assert float(before.loss[2]) == pytest.approx(float(share) / 2)


def test_tucker_loses_the_error_of_the_output_of_a_1x1(place: Place, kernel: Tensor) -> None:
    before, _ = tucker(place, kernel)
    second, weight = place.before.second, kernel[:, :, 0]
    # Features whose second moment is exactly S: the columns of a root of it.
    features = torch.linalg.cholesky(second)
    narrowed = before.left[:, :2] @ before.right[:, :2].T @ features
    error = (weight @ features - weight @ narrowed).square().sum() / (weight @ features).square().sum()
    assert float(before.loss[2]) == pytest.approx(float(error) / 2)


def test_eigendamage_costs_the_curvature_of_the_weights_that_go(place: Place, kernel: Tensor) -> None:
    before, _ = eigendamage(place, kernel)
    weight = kernel[:, :, 0]
    gone = weight - weight @ before.left[:, :3] @ before.right[:, :3].T
    second, fisher = place.before.second, place.behind.fisher
    # vec(D)^T (S x F) vec(D) / 2 of the weights D that go
    assert float(before.loss[3]) == pytest.approx(float((fisher @ gone @ second @ gone.T).trace()) / 2)


@pytest.mark.parametrize("method", METHODS)
def test_the_loop_is_as_before_once_a_method_is_done(method: str) -> None:
    before = (loop.measure, loop.measure_maps, loop.project, loop.solve_anew)
    with chosen_by(method, solved=False) as kinds:
        assert loop.solve_anew is not before[3]
        assert kinds == (("channels",) if "channels" in method else ("ranks",))
    assert (loop.measure, loop.measure_maps, loop.project, loop.solve_anew) == before
