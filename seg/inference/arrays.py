"""Scores as arrays of NumPy or as tensors of torch: the operations that the two spell differently.

An exported network gives arrays of NumPy and needs no torch; a network of torch gives tensors, on a GPU where it lies
there. Blending, resampling and choice are written once, on these functions. Both kinds round in their own way, so
scores of the two may differ in their last bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = Any
"""An array of NumPy or a tensor of torch; mypy knows no type that has the operators of both."""


Device = Any
"""Where arrays lie: :data:`HOST`, or a device of torch."""


@dataclass(frozen=True)
class Host:
    """The processor with its main memory, as arrays of NumPy see it."""

    type: str = "cpu"


HOST = Host()


def placed(values: npt.NDArray[np.float32], device: Device) -> Array:
    """Returns an array of NumPy as one of the kind of a device, there."""
    if device == HOST:
        return values
    import torch

    return torch.from_numpy(values).to(device)


def moved(values: Array, device: Device) -> Array:
    """Returns an array on a device of its kind."""
    return values if isinstance(values, np.ndarray) else values.to(device)


def to_numpy(values: Array) -> npt.NDArray[Any]:
    """Returns an array as one of NumPy, in main memory."""
    if isinstance(values, np.ndarray):
        return values
    host: npt.NDArray[Any] = values.cpu().numpy()
    return host


def exponential(values: npt.NDArray[np.float32], device: Device) -> npt.NDArray[np.float32]:
    """Returns e to the power of values, rounded as arrays of a device round it."""
    if device == HOST:
        return np.exp(values)
    import torch

    raised: npt.NDArray[np.float32] = torch.from_numpy(values).exp().numpy()
    return raised


def empty(like: Array, shape: Sequence[int]) -> Array:
    """Returns an array of a shape, of the kind and type of another; its values are whatever lay there."""
    return np.empty(shape, like.dtype) if isinstance(like, np.ndarray) else like.new_empty(shape)


def zeros(like: Array, shape: Sequence[int]) -> Array:
    """Returns an array of zeros, of the kind and type of another."""
    return np.zeros(shape, like.dtype) if isinstance(like, np.ndarray) else like.new_zeros(shape)


def stack(windows: Sequence[Array]) -> Array:
    """Returns arrays of one shape as one, along a new first axis."""
    if isinstance(windows[0], np.ndarray):
        return np.stack(windows)
    import torch

    return torch.stack(list(windows))


def flipped(values: Array, axes: Sequence[int]) -> Array:
    """Returns an array with some axes in the opposite direction."""
    return np.flip(values, tuple(axes)) if isinstance(values, np.ndarray) else values.flip(axes)


def in_single(values: Array) -> Array:
    """Returns an array in single precision."""
    return values.astype(np.float32, copy=False) if isinstance(values, np.ndarray) else values.float()


def without_gradients(values: Array) -> AbstractContextManager[object]:
    """Returns the context in which an array may be changed in place and no derivative is kept."""
    if isinstance(values, np.ndarray):
        return nullcontext()
    import torch

    return torch.inference_mode()


def copied(values: Array) -> Array:
    """Returns a copy in the order of the axes, which keeps nothing else alive."""
    return values.copy() if isinstance(values, np.ndarray) else empty(values, values.shape).copy_(values)


def product(values: Array, weights: Array) -> Array:
    """Returns values (K, x, y, z) times weights (x, y, z), class by class in memory."""
    target = empty(values, values.shape)
    if isinstance(values, np.ndarray):
        return np.multiply(values, weights, out=target)
    import torch

    return torch.mul(values, weights, out=target)


def add_product(total: Array, values: Array, weights: Array) -> None:
    """Adds values times weights to a total, in place."""
    if isinstance(total, np.ndarray):
        total += values * weights
    else:
        total.addcmul_(values, weights)


def softmax(scores: Array) -> Array:
    """Returns the probabilities of logits (K, ...)."""
    if not isinstance(scores, np.ndarray):
        return scores.softmax(0)
    raised = scores - scores.max(0)
    np.exp(raised, out=raised)
    raised /= raised.sum(0)
    return raised


def between(
    values: Array, axis: int, low: npt.NDArray[np.int64], high: npt.NDArray[np.int64], share: npt.NDArray[Any]
) -> Array:
    """Interpolates linearly along an axis, between pairs of voxels.

    Args:
        values: The array.
        axis: The axis.
        low: Index of the lower voxel of each pair.
        high: Index of the upper one.
        share: How far from the lower to the upper voxel each place is, in [0, 1).
    """
    shape = [-1 if own == axis else 1 for own in range(values.ndim)]
    if isinstance(values, np.ndarray):
        near, far = np.take(values, low, axis), np.take(values, high, axis)
        far -= near
        far *= share.astype(values.dtype).reshape(shape)
        near += far
        return near
    import torch

    weight = torch.as_tensor(share).to(values.device, values.dtype).view(shape)
    near, far = (values.index_select(axis, torch.as_tensor(index).to(values.device)) for index in (low, high))
    return near.lerp_(far, weight)


def most_likely(scores: Array) -> Array:
    """Returns the index of the largest of the scores (K, ...), the first of equals; u8, or i32 above 256 classes.

    Comparing class by class is several times faster on a CPU than ``argmax`` over the slowest axis.
    """
    if isinstance(scores, np.ndarray):
        found = np.zeros(scores.shape[1:], np.uint8 if len(scores) <= 256 else np.int32)
        highest = scores[0].copy()
        for index in range(1, len(scores)):
            np.copyto(found, index, where=scores[index] > highest, casting="unsafe")
            np.maximum(highest, scores[index], out=highest)
        return found
    import torch

    dtype = torch.uint8 if len(scores) <= 256 else torch.int32
    labels = torch.zeros(scores.shape[1:], dtype=dtype, device=scores.device)
    if len(scores) == 1:
        return labels
    best = scores[0].clone()
    for index in range(1, len(scores)):
        # Indices grow, so the larger one is the later one; masked_fill_ takes twenty times as long.
        torch.maximum(labels, (scores[index] > best).to(dtype).mul_(index), out=labels)
        torch.maximum(best, scores[index], out=best)
    return labels
