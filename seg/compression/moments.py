"""What each full kernel of a trained network can lose, predicted from one backward pass over a few cases.

H (C, V) are the C channels of a feature map at V voxels. For each class k but the background, G_k (C, V) are the
gradients with respect to H of the summed cross-entropy "k or not", with labels drawn from the network's own prediction.
S = E[h h^T], and F is the sum over classes of G_k G_k^T / n_k, with n_k the predicted voxels of the class: the Fisher
matrix of the map, in which a small structure counts as much as a large one. Replacing H by P H costs about
tr(F (I - P) S (I - P)^T) / 2 nats for each voxel of a class, summed over classes.

The approximations: voxels do not act on one another, F does not depend on the features, there is no term of first
order, and cross-entropy stands for Dice. Losses of several places are added up as if the places did not act on one
another.

References:
    L. Theis et al., "Faster gaze prediction with dense networks and Fisher pruning", 2018, arXiv:1801.05787.
    C. Wang et al., "EigenDamage: structured pruning in the Kronecker-factored eigenbasis", 2019, arXiv:1905.05934.
    J. Chee et al., "Model preserving compression for neural networks", 2022, arXiv:2108.00065.
    Deviations: the basis minimises the weighted loss itself; it is no eigenbasis of either factor.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from math import prod
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F_

Key = TypeVar("Key", bound=Hashable)
FLOOR = 1e-9
"""Smallest eigenvalue of a moment matrix over its largest: what is below counts as this much, so that roots can be
inverted."""
RIDGE = 1e-6
"""Added to S, over its mean diagonal, where channels are predicted from one another."""


@dataclass(frozen=True, kw_only=True)
class Moments:
    """What is known of one feature map, the mean over cases.

    Attributes:
        second: S, shape (C, C): of the values themselves before a convolution, as zero padding and the constant matter
            there; about their mean in each case behind one, where the norm takes the mean away.
        fisher: F, shape (C, C), in squared nats for each voxel of a class, summed over classes.
    """

    second: Tensor
    fisher: Tensor

    @property
    def channels(self) -> int:
        """Channels C of the map."""
        return self.second.shape[-1]


@dataclass(frozen=True, kw_only=True)
class Place:
    """A convolution with more than one tap, and the two maps that a 1x1 before or behind it would narrow.

    Attributes:
        name: Path of the convolution in the network, as in `encoder.0.1.conv`.
        taps: Voxels of the kernel.
        voxels: Voxels of the output over those of the image.
        voxels_read: Voxels of the input over those of the image.
        before: The map that the convolution reads, with the gradients that come by way of the convolution alone.
        behind: The map that it writes, before the norm.
    """

    name: str
    taps: int
    voxels: float
    voxels_read: float
    before: Moments
    behind: Moments


@dataclass(frozen=True, kw_only=True)
class Projection:
    """The best projections of every rank r: P = left[:, :r] @ right[:, :r].T.

    Attributes:
        left: Shape (C, C); its first r columns are the weight of a 1x1 that expands.
        right: Shape (C, C); its first r columns, transposed, are the weight of a 1x1 that reduces.
        loss: Predicted loss by rank 0 ... C, shape (C + 1,), in nats for each voxel of a class, summed over classes.
    """

    left: Tensor
    right: Tensor
    loss: Tensor


@dataclass(frozen=True, kw_only=True)
class Subset:
    """Channels that are kept, and what stands for all.

    Attributes:
        kept: Indices, in order.
        substitutes: M (C, K): the map is about M times its kept channels.
        loss: Predicted loss in nats for each voxel of a class, summed over classes.
    """

    kept: tuple[int, ...]
    substitutes: Tensor
    loss: float


def measure(network: nn.Module, images: Iterable[Tensor], *, seed: int = 0) -> tuple[Place, ...]:
    """Measures S and F at every convolution of more than one tap.

    Args:
        network: From an image to logits (B, K, X, Y, Z), in evaluation mode.
        images: Images of shape (1, C, X, Y, Z), one for each case.
        seed: Seed of the labels that are drawn from the prediction.

    Returns:
        The places in the order of computation; moments are float64 on the processor.
    """
    convolutions = full_kernels(network)
    watched = {(name, reads): (name, reads) for name in convolutions for reads in (True, False)}
    stream = torch.Generator().manual_seed(seed)
    sums: dict[str, list[tuple[Tensor, ...]]] = {}
    voxels: dict[str, tuple[float, float]] = {}
    for image in images:
        logits, maps = watch(network, watched, image)
        gradients = drawn_gradients(logits, maps, stream)
        count = logits[:, 0].numel()
        for name in (name for name, reads in maps if reads):
            (h_in, g_in), (h_out, g_out) = ((maps[name, side], gradients[name, side]) for side in (True, False))
            voxels[name] = (h_out[:, 0].numel() / count, h_in[:, 0].numel() / count)
            _, *found_in = case_moments(h_in, g_in, count, centred=False)
            _, *found_out = case_moments(h_out, g_out, count, centred=True)
            sums.setdefault(name, []).append((*found_in, *found_out))
    places = []
    for name, own in sums.items():
        s_in, f_in, s_out, f_out = (torch.stack(found).mean(0) for found in zip(*own, strict=True))
        places.append(
            Place(
                name=name,
                taps=prod(convolutions[name].kernel_size),
                voxels=voxels[name][0],
                voxels_read=voxels[name][1],
                before=Moments(second=s_in, fisher=f_in),
                behind=Moments(second=s_out, fisher=f_out),
            )
        )
    return tuple(places)


def full_kernels(network: nn.Module) -> dict[str, nn.Conv3d]:
    """Returns the convolutions with a kernel of more than one voxel, by their paths in the network."""
    return {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv3d) and prod(module.kernel_size) > 1
    }


def watch(network: nn.Module, maps: Mapping[Key, tuple[str, bool]], image: Tensor) -> tuple[Tensor, dict[Key, Tensor]]:
    """Runs a network so that gradients with respect to maps in it can be taken.

    A skip is the encoder's own tensor; what a module reads is made a tensor of its own, so that gradients of two
    readers stay apart.

    Args:
        network: In evaluation mode.
        maps: Paths of modules, each with whether the map is what the module reads, or else what it writes.
        image: Shape (1, C, X, Y, Z).

    Returns:
        The logits, and the maps in the order of computation.
    """
    found: dict[Key, Tensor] = {}

    def own(key: Key, values: Tensor) -> Tensor:
        found[key] = values.view_as(values)
        return found[key]

    handles = []
    try:
        for key, (path, reads) in maps.items():
            module = network.get_submodule(path)
            if reads:
                handles.append(module.register_forward_pre_hook(lambda _, inputs, key=key: (own(key, inputs[0]),)))
            else:
                handles.append(module.register_forward_hook(lambda _, _inputs, output, key=key: own(key, output)))
        with torch.enable_grad():
            logits: Tensor = network(image.detach().requires_grad_())
        return logits, found
    finally:
        for handle in handles:
            handle.remove()


def drawn_gradients(logits: Tensor, maps: Mapping[Key, Tensor], stream: torch.Generator) -> dict[Key, Tensor]:
    """Computes the gradients of feature maps that their Fisher matrices are made of, by :func:`drawn_loss`."""
    with torch.enable_grad():
        loss = drawn_loss(logits, stream)
    return dict(zip(maps, torch.autograd.grad(loss, list(maps.values())), strict=True))


def drawn_loss(logits: Tensor, stream: torch.Generator) -> Tensor:
    """Computes a loss whose squared gradients are, on average, the sum of the Fisher matrices of all classes.

    For each class k but the background it is the cross-entropy "k or not", summed over the V voxels of the image, times
    sqrt(V / n_k), with n_k the predicted voxels of the class. Labels of different classes are drawn apart, so products
    of their gradients are 0 on average, and one backward pass serves all classes. A class that is the most likely one
    nowhere is left out, so over several images a class counts by the share of them in which it is found.

    Args:
        logits: Shape (1, K, X, Y, Z), f32 or f64.
        stream: What labels are drawn by, from the network's own prediction.
    """
    odds = class_odds(logits)
    share = odds.detach().sigmoid()
    drawn = draw_labels(share, stream)
    number = share.sum((0, 2, 3, 4))
    found = torch.bincount(logits.argmax(1).flatten(), minlength=logits.shape[1])[1:] > 0
    weights = torch.where(found, logits[:, 0].numel() / number, 0.0).sqrt()
    losses = F_.binary_cross_entropy_with_logits(odds, drawn, reduction="none").sum((0, 2, 3, 4))
    return (weights * losses).sum()


def draw_labels(share: Tensor, stream: torch.Generator) -> Tensor:
    """Draws 1 or 0 for each voxel; `share` gives the probability of 1."""
    # In float64, as one number in 16 million of float32 is 0: a label of a structure far away from it.
    return (torch.rand(share.shape, generator=stream, dtype=torch.float64).to(share.device) < share).to(share)


def class_odds(logits: Tensor) -> Tensor:
    """Turns logits (B, K, ...) into log-odds of each class but the background against all others, (B, K - 1, ...)."""
    if logits.shape[1] == 2:
        return logits[:, 1:] - logits[:, :1]
    shares = logits.double().log_softmax(1)  # float32 ends at odds of 87
    others = 1 - torch.eye(logits.shape[1], dtype=shares.dtype, device=logits.device)[1:]
    rest = torch.einsum("kc,bc...->bk...", others, shares.exp())  # a sum, as 1 less a share near 1 would be 0
    return (shares[:, 1:] - rest.clamp_min(torch.finfo(rest.dtype).tiny).log()).to(logits)


def best_projection(moments: Moments) -> Projection:
    """Finds the projection of least predicted loss for every rank, by an SVD of F^(1/2) S^(1/2)."""
    fisher = moments.fisher
    u, values, _ = torch.linalg.svd(_power(fisher, 0.5) @ _power(moments.second, 0.5))
    lost = torch.cat((values.square().flip(0).cumsum(0).flip(0), values.new_zeros(1))) / 2
    return Projection(left=_power(fisher, -0.5) @ u, right=_power(fisher, 0.5) @ u, loss=lost)


def best_channels(moments: Moments) -> dict[int, Subset]:
    """Chooses the channels to keep for every width, greedily, and the best linear substitutes of the others.

    One channel after the other is left out, the one whose loss, given the best substitutes from those that stay, is
    least: backward elimination as in the optimal brain surgeon.

    Returns:
        The subsets by width, C down to 1.
    """
    second, fisher, count = moments.second, moments.fisher, moments.channels
    second = ridged(second, RIDGE)
    kept, precision = list(range(count)), torch.linalg.inv(second)
    substitutes, loss = torch.eye(count, dtype=second.dtype), 0.0
    table = {count: Subset(kept=tuple(kept), substitutes=substitutes, loss=0.0)}
    while len(kept) > 1:
        increase = torch.einsum("ac,ab,bc->c", substitutes, fisher, substitutes) / precision.diagonal()
        out = int(increase.argmin())
        rest = [index for index in range(len(kept)) if index != out]
        loss += float(increase[out]) / 2
        row = precision[rest, out]
        substitutes = substitutes[:, rest] - torch.outer(substitutes[:, out], row / precision[out, out])
        precision = precision[rest][:, rest] - torch.outer(row, row) / precision[out, out]
        kept = [kept[index] for index in rest]
        table[len(kept)] = Subset(kept=tuple(kept), substitutes=substitutes, loss=loss)
    return table


def case_moments(
    values: Tensor, gradient: Tensor, voxels: int, *, centred: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Computes the mean, the second moments S and the Fisher matrix F of a feature map's channels in one case.

    Args:
        values: The map, shape (1, C, X, Y, Z).
        gradient: The gradient of the loss with respect to the map, of the same shape.
        voxels: Voxels of the image.
        centred: Whether S is about the mean.

    Returns:
        The mean, shape (C,), then S and F, shape (C, C); float64 on the processor.
    """
    h, g = (x.detach().transpose(0, 1).flatten(1).double() for x in (values, gradient))
    mean = h.mean(1)
    if centred:
        h = h - mean[:, None]
    return mean.cpu(), (h @ h.T / h.shape[1]).cpu(), (g @ g.T / voxels).cpu()


def ridged(moments: Tensor, ridge: float) -> Tensor:
    """Adds a share of the mean of the diagonal to the diagonal of second moments (C, C), so that they can be inverted.

    Where all are 0, as of a map of zeros, 1 is added.
    """
    return moments + (float(moments.diagonal().mean()) * ridge or 1.0) * torch.eye(len(moments), dtype=moments.dtype)


def _power(matrix: Tensor, exponent: float) -> Tensor:
    """Returns a power of a symmetric matrix, its smallest eigenvalues raised to `FLOOR` times the largest."""
    values, vectors = torch.linalg.eigh(matrix)
    least = max(float(values[-1]) * FLOOR, torch.finfo(matrix.dtype).tiny ** 0.5)
    power: Tensor = (vectors * values.clamp_min(least) ** exponent) @ vectors.T
    return power
