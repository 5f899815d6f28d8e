"""The maps of a U-Net that can be narrowed, and what each of them loses by width, predicted from a few cases.

A loss is that of one class: the divergence, class against rest, of the narrowed network's prediction from the
original's, in nats for each voxel of the class. A small structure counts as much as a large one. The Fisher matrix is
the one of :mod:`seg.compression.moments`, with labels "class" and "rest" drawn from the network's own prediction.

From nats to Dice: a change of a voxel's logit by d costs p (1 - p) d^2 / 2 nats, and mislabels the voxel where the
logit lies between 0 and d. Where labels follow the prediction and logits near 0 are spread evenly, half as many voxels
become wrong, on average, as nats are lost; and E wrong voxels take E / 2n from the Dice of a class of n voxels. So the
Dice lost is a quarter of the nats. Networks are too sure of themselves, and voxels act together, so
:mod:`seg.compression.calibration` measures what the true factor is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from scipy import stats
from torch import Tensor, nn
from torch.nn import functional as F_

from seg.compression.channels import Where, with_channels
from seg.compression.cuts import with_ranks
from seg.compression.moments import (
    Moments,
    best_channels,
    best_projection,
    class_odds,
    draw_labels,
    full_kernels,
    watch,
)
from seg.config import BottleneckConfig, NetworkConfig
from seg.networks import UNet
from seg.networks.bottleneck import stage_ratios, width
from seg.networks.layout import layout

DICE_FOR_NATS = 0.25
GROUPS = 5
"""Groups of patients: what is kept of a map is chosen on all but one, and its loss measured on that one."""
MOST_WIDTHS = 32
"""Widths of a map that are looked at, spread evenly."""
LEAST_WIDTHS = 8
"""Widths that are looked at in any case."""
TAIL = 0.025
"""Error rate of each end of an interval."""
ORDINALS = ("first", "second", "third")


@dataclass(frozen=True, kw_only=True)
class Site:
    """A map that can be narrowed apart from all others.

    Attributes:
        name: What it is called, as in `encoder 0 first`: the map behind the first convolution of a stage.
        part: Where it lies; `kernel` is what one full kernel reads or writes, narrowed by a linear 1x1.
        stage: Stage, 0 at full resolution.
        channels: Channels of the map.
        module: Path of the module that reads or writes it.
        reads: Whether the module reads it.
        where: Its entry in :class:`seg.networks.layout.Layout`; None for skips and kernels.
        form: How few channels stand for all: some of them, or linear mixtures where a linear 1x1 can make them.
    """

    name: str
    part: Literal["encoder", "skip", "up", "decoder", "kernel"]
    stage: int
    channels: int
    module: str
    reads: bool = False
    where: Where | None = None
    form: Literal["channels", "mixtures"] = "channels"


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What is known of one map, case by case.

    Attributes:
        mean: Mean of the channels, shape (C,), every voxel with the weight of its squared gradient.
        second: Second moments by case and class, shape (N, K, C, C), with the same weights: about that mean; about the
            plain mean of the case for what a kernel writes, as the norm takes it away; and about 0 for what it reads,
            as the 1x1 has no bias. NaN where the Fisher matrix is.
        fisher: Fisher matrix by case and class, shape (N, K, C, C), in squared nats for each voxel of the class; NaN
            where the network finds no voxel of the class.
    """

    mean: Tensor
    second: Tensor
    fisher: Tensor

    def pooled(self, cases: Sequence[int]) -> Moments:
        """Returns the moments of some cases, every class that they have with the same weight."""
        fisher, second = (part[list(cases)].nanmean((0, 1)).nan_to_num() for part in (self.fisher, self.second))
        return Moments(second=second, fisher=fisher)


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Dice that a map is predicted to lose, by its width.

    Attributes:
        site: The map.
        widths: Widths in rising order; the last is the whole map.
        lost: Mean over patients by width and class, shape (W, K); NaN for a class that no case has.
        low: Lower ends of the 95 % intervals, shape (W, K).
        high: Upper ends; infinite where fewer than two patients have the class.
    """

    site: Site
    widths: tuple[int, ...]
    lost: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def safe(self, margin: float) -> int:
        """Returns the least width at which, as at all wider ones, each class's upper end is below the margin."""
        for index in reversed(range(len(self.widths) - 1)):
            if not self.high[index].max() < margin:
                return self.widths[index + 1]
        return self.widths[0]

    def at(self, width: int) -> int:
        """Returns the index of a width in `widths`."""
        return self.widths.index(width)

    def worst(self, width: int) -> int:
        """Returns the class of the highest upper end at a width."""
        return int(self.high[self.at(width)].argmax())


def find_sites(network: UNet) -> tuple[Site, ...]:
    """Lists the maps of a network, in the order of computation, then both sides of each full kernel."""
    config, widths = network.config, layout(network.config)
    levels = len(config.channels) - 1
    plain = config.decoder_bottleneck is None
    inner = "convs." if config.residual else ""
    sites = []
    for stage, (between, out) in enumerate(widths.encoder):
        part = "bottom" if stage == levels else f"encoder {stage}"
        modules = (f"encoder.{stage}.{inner}0", f"encoder.{stage}")
        for number, (channels, module) in enumerate(zip((between, out), modules, strict=True)):
            site = Site(
                name=f"{part} {ORDINALS[number]}",
                part="encoder",
                stage=stage,
                channels=channels,
                module=module,
                where=("encoder", stage, number),
            )
            sites.append(site)
    for stage in reversed(range(levels)):
        own = f"decoder.{stage}"
        if config.merge == "concat":  # elsewhere the upsampled features are added to those of the skip
            up = Site(
                name=f"up {stage}",
                part="up",
                stage=stage,
                channels=widths.up[stage],
                module=f"{own}.up",
                where=("up", stage, 0),
                form="mixtures",
            )
            sites.append(up)
        skip = Site(
            name=f"skip {stage}",
            part="skip",
            stage=stage,
            channels=widths.skip[stage],
            module=f"skips.{stage}",
            form="mixtures",
        )
        sites.append(skip)
        writers = ("block.0", "block.1") if plain else ("block.pointwise", "block.conv", "block.expand")
        for number, (channels, module) in enumerate(zip(widths.decoder[stage], writers, strict=True)):
            site = Site(
                name=f"decoder {stage} {ORDINALS[number]}",
                part="decoder",
                stage=stage,
                channels=channels,
                module=f"{own}.{module}",
                where=("decoder", stage, number),
            )
            sites.append(site)
    for path, kernel in full_kernels(network).items():
        part, level = path.split(".")[:2]
        about = f"{part} {level}" if part == "decoder" or int(level) < levels else "bottom"
        ordinal = ORDINALS[1 if ".block.conv." in path else [int(p) for p in path.split(".") if p.isdigit()][1]]
        for reads, channels in ((True, kernel.in_channels), (False, kernel.out_channels)):
            side = Site(
                name=f"{about} {ordinal} kernel {'reads' if reads else 'writes'}",
                part="kernel",
                stage=int(level),
                channels=channels,
                module=path,
                reads=reads,
                form="mixtures",
            )
            sites.append(side)
    return tuple(site for site in sites if site.channels > 1)


def measure_sites(
    network: nn.Module, sites: Sequence[Site], images: Iterable[Tensor], *, seed: int = 0
) -> dict[str, Measured]:
    """Measures the maps of a network, case by case and class by class.

    Args:
        network: From an image to logits (B, K, X, Y, Z), in evaluation mode.
        sites: The maps.
        images: Images of shape (1, C, X, Y, Z), one for each case.
        seed: Seed of the labels that are drawn.

    Returns:
        What was measured by the name of the map, float64 on the processor. Class 0, the background, is left out.
    """
    stream = torch.Generator().manual_seed(seed)
    found: dict[str, list[list[Tensor]]] = {site.name: [[], [], [], []] for site in sites}
    for image in images:
        logits, maps = watch(network, {site.name: (site.module, site.reads) for site in sites}, image)
        odds = class_odds(logits)
        labels = logits.argmax(1)
        values = {name: one.detach()[0].flatten(1).double() for name, one in maps.items()}
        own: dict[str, list[tuple[Tensor, Tensor, Tensor]]] = {name: [] for name in maps}
        for k in range(odds.shape[1]):
            share = odds[:, k].detach().sigmoid()
            drawn = draw_labels(share, stream)
            loss = F_.binary_cross_entropy_with_logits(odds[:, k], drawn, reduction="sum")
            gradients = torch.autograd.grad(loss, list(maps.values()), retain_graph=k + 1 < odds.shape[1])
            voxels = float(share.sum()) if bool((labels == k + 1).any()) else math.nan
            for (name, h), gradient in zip(values.items(), gradients, strict=True):
                g = gradient[0].flatten(1).double()
                weights = g.square().sum(0)
                weights = weights / weights.sum() + 0 * voxels
                own[name].append((g @ g.T / voxels, (h * weights) @ h.T, h @ weights))
        for name, h in values.items():
            parts = [torch.stack(part) for part in zip(*own[name], strict=True)]
            for whole, part in zip(found[name], (*parts, h.mean(1)), strict=True):
                whole.append(part)
    measured = {}
    for site in sites:
        fisher, second, means, plain = (torch.stack(part) for part in found[site.name])
        mean = means.nanmean((0, 1))
        about = torch.zeros_like(means)
        if site.part != "kernel":
            about = mean.expand_as(means)
        elif not site.reads:
            about = plain[:, None].expand_as(means)
        cross = means[..., :, None] * about[..., None, :]
        second = second - cross - cross.mT + about[..., :, None] * about[..., None, :]
        measured[site.name] = Measured(mean=mean, second=second, fisher=fisher)
    return measured


def projection_of(site: Site, moments: Moments, rank: int) -> Tensor:
    """Returns what stands for all channels at a width, shape (C, C): a map h becomes mean + P (h - mean)."""
    if site.form == "mixtures":
        found = best_projection(moments)
        return found.left[:, :rank] @ found.right[:, :rank].T
    subset = best_channels(moments)[rank]
    projection = torch.zeros(moments.channels, moments.channels, dtype=moments.second.dtype)
    projection[:, list(subset.kept)] = subset.substitutes
    return projection


def predict_losses(site: Site, measured: Measured, patients: Sequence[str]) -> Curve:
    """Predicts the Dice that a map loses by its width, with an interval that speaks for other patients.

    The patients are split into groups. What is kept of the map is chosen on all groups but one, and the loss taken on
    that one, so that no case judges a choice that was made for it. The interval is the t interval of the patients'
    means.

    Args:
        site: The map.
        measured: What was measured there.
        patients: Patient of each case, N of them; two at least.
    """
    names = sorted(set(patients))
    groups = [names[start::GROUPS] for start in range(min(GROUPS, len(names)))]
    count = measured.second.shape[-1]
    even = (max(1, round(count * step / MOST_WIDTHS)) for step in range(1, MOST_WIDTHS + 1))
    widths = sorted({*even, *range(1, min(count, LEAST_WIDTHS) + 1)})
    losses = torch.full((len(widths), *measured.fisher.shape[:2]), math.nan, dtype=torch.float64)
    for group in groups:
        tested = [case for case, patient in enumerate(patients) if patient in group]
        fitted = [case for case in range(len(patients)) if case not in tested]
        losses[:, tested] = _losses(site, measured, measured.pooled(fitted), tested, widths)
    by_patient = torch.stack(
        [losses[:, [case for case, own in enumerate(patients) if own == name]].nanmean(1) for name in names], 1
    ).numpy()
    number = (~np.isnan(by_patient)).sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.nansum(by_patient, 1) / number
        square = np.nansum((by_patient - mean[:, None]) ** 2, 1) / (number - 1)
        reach = stats.t.isf(TAIL, np.maximum(number - 1, 1)) * np.sqrt(square / number)
    enough = number > 1
    low, high = np.where(enough, np.maximum(mean - reach, 0.0), 0.0), np.where(enough, mean + reach, math.inf)
    return Curve(
        site=site, widths=tuple(widths), lost=DICE_FOR_NATS * mean, low=DICE_FOR_NATS * low, high=DICE_FOR_NATS * high
    )


def _losses(site: Site, measured: Measured, chosen_by: Moments, cases: Sequence[int], widths: Sequence[int]) -> Tensor:
    """Returns the nats for each voxel of a class by width, case and class: shape (W, N, K)."""
    second, fisher = measured.second[list(cases)], measured.fisher[list(cases)]
    count = second.shape[-1]
    if site.form == "mixtures":
        found = best_projection(chosen_by)
        # I - P is left[:, r:] @ right[:, r:].T, so the loss of every rank is the sum over a corner of one matrix.
        product = (found.left.T @ fisher @ found.left) * (found.right.T @ second @ found.right)
        corners = product.flip((-1, -2)).cumsum(-1).cumsum(-2).diagonal(dim1=-2, dim2=-1).flip(-1) / 2
        corners = torch.cat((corners, torch.zeros_like(corners[..., :1])), -1)
        return corners[..., list(widths)].movedim(-1, 0).clamp_min(0)
    table, rows = best_channels(chosen_by), []
    for rank in widths:
        rest = torch.eye(count, dtype=second.dtype)
        rest[:, list(table[rank].kept)] -= table[rank].substitutes
        rows.append(((rest.T @ fisher @ rest) * second).sum((-1, -2)) / 2)
    return torch.stack(rows).clamp_min(0)


def widths_together(curves: Sequence[Curve], margin: float) -> dict[str, int]:
    """Chooses widths of several maps whose predicted losses add up to less than a margin, in every class.

    All maps get the same share of the margin, the largest for which that holds.
    """
    low, high = 0.0, margin
    for _ in range(40):
        share = (low + high) / 2
        total = np.sum([np.nan_to_num(curve.lost[curve.at(curve.safe(share))]) for curve in curves], 0)
        low, high = (share, high) if total.max(initial=0.0) < margin else (low, share)
    return {curve.site.name: curve.safe(low) for curve in curves}


def with_widths(config: NetworkConfig, wanted: Mapping[Site, int]) -> NetworkConfig:
    """Returns a configuration with other widths of some maps; those of kernels become linear 1x1 around them."""
    wanted = {site: count for site, count in wanted.items() if count != site.channels}
    kernels = {site: count for site, count in wanted.items() if site.part == "kernel"}
    if len(kernels) < len(wanted):
        places = {site.where: count for site, count in wanted.items() if site.where is not None}
        skips = {site.stage: count for site, count in wanted.items() if site.part == "skip"}
        narrow = with_channels(replace(config, skip_bottleneck=None), places)
        assert narrow.widths is not None
        up = narrow.channels[:-1] if config.merge == "add" else narrow.widths.up
        bottleneck = _skips(config, narrow.channels, layout(config).skip, skips)
        config = replace(narrow, widths=replace(narrow.widths, up=up), skip_bottleneck=bottleneck)
    ranks: dict[str, tuple[int, int]] = {}
    for site, count in kernels.items():
        before, behind = ranks.get(site.module, (0, 0))
        ranks[site.module] = (count, behind) if site.reads else (before, count)
    return with_ranks(config, ranks) if ranks else config


def _skips(
    config: NetworkConfig, channels: tuple[int, ...], skips: tuple[int, ...], wanted: Mapping[int, int]
) -> BottleneckConfig | None:
    """Returns the bottlenecks of skips of some widths; None where all keep the channels of their stages."""
    spec, levels = config.skip_bottleneck, len(skips)
    ratios = stage_ratios(spec, levels) if spec else (1.0,) * levels
    found = []
    for stage, (before, after, own, ratio) in enumerate(zip(config.channels, channels, skips, ratios, strict=False)):
        count = wanted.get(stage, own)
        inner = count if count < own else width(before, ratio)
        found.append(ratio if ratio > 1 and count == own else min(inner, after) / after)
    if spec is None and all(ratio == 1 for ratio in found):
        return None
    return replace(spec or BottleneckConfig(), ratio=tuple(found))
