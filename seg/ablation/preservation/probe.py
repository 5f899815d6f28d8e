"""A linear probe: how well a linear classifier of single voxels tells the classes apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from seg.ablation.preservation.measures import pseudo_inverse
from seg.ablation.preservation.moments import Array, Summary


@dataclass(frozen=True, kw_only=True, eq=False)
class Probe:
    """A linear classifier of feature vectors.

    Attributes:
        mean: Subtracted from the features, f64 (C,).
        weight: f64 (C, classes).
        bias: f64 (classes,); minus infinity for a class that was not there to learn from.
    """

    mean: Tensor
    weight: Tensor
    bias: Tensor

    def predict(self, features: Tensor) -> Tensor:
        """Returns the class i64 (n,) of features (n, C)."""
        return ((features.double() - self.mean) @ self.weight + self.bias).argmax(1)


def fit_probe(summary: Summary, part: str, device: torch.device) -> Probe:
    """Fits linear discriminant analysis to the ``wide`` or ``narrow`` features, from their moments alone.

    The classes have their means, their shares of the voxels as priors, and one common covariance within them, inverted
    without a ridge on the directions that vary. The classifier, hence its Dice, changes under no invertible affine
    map of the features.

    Args:
        summary: Moments of the voxels to learn from.
        part: ``wide`` or ``narrow``.
        device: Where it is to classify.

    References:
        R. Fisher, "The use of multiple measurements in taxonomic problems", 1936,
        doi:10.1111/j.1469-1809.1936.tb02137.x.
        G. Alain, Y. Bengio, "Understanding intermediate layers using linear classifier probes", 2016,
        arXiv:1610.01644. Deviation: closed form instead of a fitted logistic regression.
    """
    shares = summary.mean_of("labels")
    present = shares > 0
    # Means of the classes less the mean of all: sum over a class of deviations, per voxel of it.
    deviations = np.zeros((summary.layout.part(part).stop - summary.layout.part(part).start, len(shares)))
    deviations[:, present] = summary.covariance_of(part, "labels")[:, present] / shares[present]
    within: Array = summary.covariance_of(part, part) - (deviations * shares) @ deviations.T
    weight = pseudo_inverse(within) @ deviations
    with np.errstate(divide="ignore"):
        bias = np.log(shares) - 0.5 * (deviations * weight).sum(0)
    mean, weights, biases = (
        torch.from_numpy(np.ascontiguousarray(array)).to(device) for array in (summary.mean_of(part), weight, bias)
    )
    return Probe(mean=mean, weight=weights, bias=biases)


class DiceCount:
    """Voxels of one case that a classification and the reference have in common, class by class.

    Args:
        classes: Classes, background included.
        device: Where the labels lie.
    """

    def __init__(self, classes: int, device: torch.device) -> None:
        self._sums = torch.zeros((3, classes), dtype=torch.int64, device=device)

    def add(self, predicted: Tensor, labels: Tensor) -> None:
        """Counts voxels by their predicted classes and their labels, both i64 (n,)."""
        classes = self._sums.shape[1]
        for row, chosen in enumerate((predicted[predicted == labels], predicted, labels)):
            self._sums[row] += torch.bincount(chosen, minlength=classes)

    def dice(self) -> Array:
        """Returns Dice per foreground class; NaN where both sides are empty."""
        shared, predicted, reference = self._sums[:, 1:].cpu().numpy().astype(np.float64)
        with np.errstate(invalid="ignore"):
            score: Array = 2 * shared / (predicted + reference)
        return score


def mean_dice(counts: Sequence[DiceCount]) -> list[float | None] | None:
    """Averages Dice over cases, class by class: None for a class that no case has on either side, and without cases."""
    if not counts:
        return None
    scores = np.stack([count.dice() for count in counts])
    return [float(np.nanmean(column)) if np.isfinite(column).any() else None for column in scores.T]
