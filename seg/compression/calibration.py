"""The Dice that narrower maps of a network are predicted to lose, corrected by what a few cuts really lose."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from seg.compression.original import Window, changes_of_dice, dice_of
from seg.compression.sites import Curve, Measured, Site, measure_sites, predict_losses, projection_of
from seg.data.splits import spread_over
from seg.networks import UNet

LOG = logging.getLogger(__name__)
PLACES, ROUNDS = 12, 2
"""How many maps get a trial cut, and in how many rounds, each at the width that the factor so far suggests."""
LEAST = 0.25
"""Least factor, so that a few cuts that happened to cost nothing make no loss vanish."""
CHECKED = 5
"""How many of the measured windows the trial cuts are scored on."""


@dataclass(frozen=True, kw_only=True)
class PredictedLosses:
    """The Dice that narrower maps of a network are predicted to lose.

    Attributes:
        measured: What was measured of them, by name.
        curves: What each loses at which width, before the factor.
        factor: Dice lost over what is predicted, of a few cuts.
        checked: Windows that these cuts were scored on.
    """

    measured: Mapping[str, Measured]
    curves: Sequence[Curve]
    factor: float
    checked: int


def predict_maps(
    network: UNet,
    sites: Sequence[Site],
    windows: Sequence[Window],
    patients: Sequence[str],
    *,
    margin: float,
    seed: int,
) -> PredictedLosses:
    """Predicts the Dice that is lost where maps and kernels are narrower, and corrects it by a few cuts of maps.

    Args:
        network: The network, in evaluation mode.
        sites: The maps and kernels.
        windows: Images and labels that they are measured on, one of each case.
        patients: The patient of each.
        margin: Loss of Dice near which predictions are calibrated.
        seed: Seed of the labels that are drawn.
    """
    measured = measure_sites(network, sites, [image for image, _ in windows], seed=seed)
    curves = [predict_losses(site, measured[site.name], patients) for site in sites]
    checked = spread_over(windows, CHECKED)
    maps = [curve for curve in curves if curve.site.part != "kernel"]
    factor = calibrate(network, maps, measured, checked, margin)
    return PredictedLosses(measured=measured, curves=curves, factor=factor, checked=len(checked))


def calibrate(
    network: UNet,
    curves: Sequence[Curve],
    measured: Mapping[str, Measured],
    windows: Sequence[Window],
    margin: float,
) -> float:
    """Returns the Dice that cuts lose on some windows over what is predicted for them, sums over cuts and classes.

    Each map is cut at the width that is predicted to lose about the margin; then anew where the prediction times the
    factor found so far does, as losses grow other than in proportion.

    Args:
        network: The network.
        curves: What is predicted of the maps.
        measured: What was measured of them, by name.
        windows: Images and labels.
        margin: The margin, in Dice.
    """
    whole = dice_of(network, windows)
    factor = 1.0
    for _ in range(ROUNDS):
        predicted = lost = 0.0
        for curve in spread_over(curves, PLACES):
            worst = factor * np.nan_to_num(curve.lost[:-1]).max(1)
            at = int(np.argmin(np.abs(np.log(np.maximum(worst, 1e-9) / margin))))
            own = measured[curve.site.name]
            projection = projection_of(curve.site, own.pooled(range(len(own.second))), curve.widths[at])
            with narrowed_at(network, curve.site, own.mean, projection):
                change = changes_of_dice(whole, dice_of(network, windows))
            for number, known in enumerate(~np.isnan(change).all(0) & ~np.isnan(curve.lost[at])):
                if known:
                    predicted += float(curve.lost[at, number])
                    lost -= float(np.nanmean(change[:, number]))
        if predicted <= 0:
            LOG.warning("predicted losses are not calibrated: none is above 0")
            return 1.0
        factor = max(lost / predicted, LEAST)
    if factor == LEAST:
        LOG.warning(
            "trial cuts lost %.2g of what is predicted; predictions are multiplied by %g", lost / predicted, LEAST
        )
    return factor


def scaled(curve: Curve, factor: float) -> Curve:
    """Returns a curve whose predicted losses, with their intervals, are `factor` times those of another."""
    return replace(curve, lost=factor * curve.lost, low=factor * curve.low, high=factor * curve.high)


@contextmanager
def narrowed_at(network: nn.Module, site: Site, mean: Tensor, projection: Tensor) -> Iterator[None]:
    """Narrows one map meanwhile: it becomes mean + P (map - mean), the mean as :class:`Measured` says."""
    projection = projection.float()

    def narrowed(values: Tensor) -> Tensor:
        about = mean.float()[:, None, None, None]
        if site.part == "kernel":
            about = torch.zeros(1) if site.reads else values.mean((2, 3, 4), keepdim=True)
        return about + torch.einsum("ab,nbxyz->naxyz", projection, values - about)

    module = network.get_submodule(site.module)
    if site.reads:
        handle = module.register_forward_pre_hook(lambda _module, inputs: (narrowed(inputs[0]),))
    else:
        handle = module.register_forward_hook(lambda _module, _inputs, output: narrowed(output))
    try:
        yield
    finally:
        handle.remove()
