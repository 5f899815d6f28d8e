"""Computes the Dice of label maps held as torch tensors, on their device."""

from __future__ import annotations

import torch
from torch import Tensor


def dice_per_class(prediction: Tensor, label: Tensor, num_classes: int) -> Tensor:
    """Computes the Dice of each foreground class; NaN where label and prediction are both empty.

    Args:
        prediction: Class indices, any shape.
        label: Class indices of the same shape; ``num_classes`` and more, as of ignored voxels, count nowhere.
        num_classes: Classes, background included.

    Returns:
        Values f64 in [0, 1] of shape (num_classes - 1,).
    """
    known = label < num_classes
    pairs = (prediction[known] * num_classes + label[known]).flatten()
    table = torch.bincount(pairs, minlength=num_classes**2).view(num_classes, num_classes).double()
    return (2 * table.diagonal() / (table.sum(0) + table.sum(1)))[1:]
