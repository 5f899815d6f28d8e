"""The Muon optimiser for convolutions, with AdamW for norms, biases and heads."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic iteration, published with Muon
ITERATIONS = 5
EPS = 1e-7
ADAM_BETAS = (0.9, 0.99)
ADAM_EPS = 1e-8
RMS = 0.2  # root mean square of an AdamW update, so that learning rates of AdamW carry over


class Muon(Optimizer):
    """Optimiser whose steps have equal length in every direction of a layer's weight matrix.

    A weight is taken as a matrix that has a row for each entry of its first axis: C_out of a convolution (C_out, C_in,
    ...), C_in of a transposed one (C_in, C_out, ...). The momentum of its gradient is replaced by the nearest matrix
    whose singular values are all about 1, so that directions with small gradients learn as fast as those with large
    ones. Groups with ``matrix=False`` take AdamW's step.

    Args:
        params: Groups of parameters, each with the key ``matrix``.
        lr: Learning rate, on AdamW's scale: the root mean square of an update is 0.2 times it.
        momentum: Decay of the gradient's moving average, in [0, 1).
        weight_decay: Decoupled weight decay, >= 0.

    References:
        K. Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024,
        https://kellerjordan.github.io/posts/muon. J. Liu et al., "Muon is Scalable for LLM Training", 2025,
        arXiv:2502.16982 (the length of the step). R. Wightman's PyTorch Image Models have a Muon that takes
        convolutions too, https://github.com/huggingface/pytorch-image-models.
        Deviation: the iteration runs in float32, whose cost is small for
        the matrices of a small network.
    """

    def __init__(
        self, params: Iterable[dict[str, Any]], lr: float, *, momentum: float = 0.95, weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "matrix": True})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Takes one step and returns what the closure, called with gradients, returns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            update = _matrix_step if group["matrix"] else _adam_step
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    update(parameter, self.state[parameter], group)
        return loss


def _matrix_step(parameter: Tensor, state: dict[str, Tensor], group: dict[str, Any]) -> None:
    gradient = parameter.grad
    assert gradient is not None
    if not state:
        state["momentum"] = torch.zeros_like(parameter)
    average = state["momentum"].lerp_(gradient, 1 - group["momentum"])
    matrix = gradient.lerp(average, group["momentum"]).reshape(len(parameter), -1)  # Nesterov's look ahead
    length = RMS * max(matrix.shape) ** 0.5
    parameter.sub_(orthogonalised(matrix).reshape(parameter.shape), alpha=group["lr"] * length)


def _adam_step(parameter: Tensor, state: dict[str, Tensor], group: dict[str, Any]) -> None:
    gradient = parameter.grad
    assert gradient is not None
    if not state:
        state["step"] = torch.zeros(())
        state["mean"], state["square"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
    state["step"] += 1
    first, second = ADAM_BETAS
    mean = state["mean"].lerp_(gradient, 1 - first)
    square = state["square"].mul_(second).addcmul_(gradient, gradient, value=1 - second)
    steps = float(state["step"])
    scale = (square / (1 - second**steps)).sqrt_().add_(ADAM_EPS)
    parameter.addcdiv_(mean, scale, value=-group["lr"] / (1 - first**steps))


def orthogonalised(matrix: Tensor) -> Tensor:
    """Brings the singular values of a matrix near 1 and keeps its singular vectors.

    Args:
        matrix: Matrix of shape (M, N).

    Returns:
        Matrix of that shape; singular values above about 1e-3 of the Frobenius norm come to lie in [0.6, 1.3].
    """
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    wide = wide / wide.norm().clamp_min(EPS)
    # Each iteration multiplies by a polynomial of the Gram matrix, which is small: kernels have 27 times more columns.
    # So the polynomials are multiplied with one another first, a quarter of the work.
    a, b, c = COEFFICIENTS
    gram = wide @ wide.T
    total = identity = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    for _ in range(ITERATIONS):
        factor = torch.addmm(gram, gram, gram, beta=b, alpha=c).add_(identity, alpha=a)
        total = factor @ total
        gram = factor @ gram @ factor
    result: Tensor = total @ wide
    return result if matrix.shape[0] <= matrix.shape[1] else result.T
