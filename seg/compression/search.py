"""How small a network may become: steps of less and less work, judged on patients that are held back.

Held-back patients are training patients, which the original was trained on, so their loss of Dice reads other than that
of new patients. What they lose decides where the steps end and which step is tuned; the windows of some of them decide
how far it is tuned.
"""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from torch import Tensor

from seg.compression.cuts import BY_MACS, Prices
from seg.compression.original import Array, Original, cost
from seg.compression.record import FoldRecord, mean_of
from seg.compression.shrink import DEFAULT, KINDS, BeyondReachError, Shrunk, shrink, work_of
from seg.compression.target import Target
from seg.compression.tuning import tune
from seg.data.cases import Dataset
from seg.data.datamodule import SegmentationData
from seg.data.splits import Split
from seg.errors import Problem
from seg.hardware import keep_heap
from seg.networks import UNet
from seg.words import counted, fixed

LOG = logging.getLogger(__name__)
WALK = Target(kind="macs", shares=(0.7, 0.5, 0.35, 0.25, 0.18, 0.125, 0.09))
"""The steps that are made where no target is given, until one loses too much."""
STOP_BELOW = 0.5
"""Without a target, no smaller network is made behind one that loses more Dice than this share of the margin."""
TUNE_BELOW = 0.25
"""A smaller network that loses more Dice than this share of the margin is tuned."""
LEAST_KEPT, MOST_KEPT = 0.9, 0.98
"""In the search for a latency each network may keep between these shares of the work of the network before it."""


def smaller_networks(
    original: Original, shares: Iterable[float], multiple: int, prices: Prices = BY_MACS
) -> Iterator[Shrunk]:
    """Yields a smaller network for each of the given shares of the original's work.

    Channels are cut beside 1x1 where more than multiply-accumulates counts: only fewer channels save numbers of feature
    maps, and the parameters of transposed convolutions.

    Args:
        original: What is made smaller.
        shares: Shares of the original's work, from large to small.
        multiple: All widths but those of the 1x1 before kernels are multiples of this number.
        prices: Weights of what counts as work.

    Raises:
        BeyondReachError: A share is beyond reach; its `least` is the share of the narrowest network.
    """
    network, size = original.network, original.config.patches.size
    whole = work_of(network, network.config, size, prices)
    try:
        yield from shrink(
            network,
            original.fitted,
            (share * whole for share in shares),
            kinds=KINDS if prices.element or prices.parameter else DEFAULT,
            prices=prices,
            multiple=multiple,
            seed=original.config.seed,
        )
    except BeyondReachError as error:
        least = math.ceil(1000 * error.least / whole) / 1000
        rule = f"must be about {least:g} of the original's or more, in widths of multiples of {multiple}"
        raise BeyondReachError(Problem("work", "range", rule), least) from error


def reach(
    original: Original,
    wanted: Sequence[float],
    multiple: int,
    ratio: Callable[[UNet, float], float],
    *,
    begin: float,
    prices: Prices,
) -> Iterator[Shrunk]:
    """Shrinks the original in turns, and yields the first network that is within each wanted share of its cost.

    Args:
        original: What is made smaller.
        wanted: Shares of the original's cost, from large to small.
        multiple: All widths but those of the 1x1 before kernels are multiples of this number.
        ratio: Gives the cost of a network over the original's; it is told the wanted share.
        begin: Share of the original's work that the first network keeps.
        prices: Weights of what counts as work where cuts are chosen.

    Yields:
        The network for each of the wanted shares.

    Raises:
        BeyondReachError: The cost cannot fall so far.
    """
    network, size = original.network, original.config.patches.size
    whole = work_of(network, network.config, size, prices)
    work, trials = begin, [(1.0, 1.0)]
    steps = smaller_networks(original, iter(lambda: work, None), multiple, prices)
    small: Shrunk | None = None
    for share in wanted:
        while small is None or (found := ratio(small.network, share)) > share:
            if small is not None:
                trials.append((work_of(network, small.network.config, size, prices) / whole, found))
                work = next_work(trials, share)
            try:
                small = next(steps)
            except BeyondReachError as error:
                reached = "" if small is None else f"; the last had {trials[-1][1]:.3g}"
                rule = f"must be a share that widths of multiples of {multiple} reach{reached}"
                remedy = "give a larger share" + ", or a smaller --multiple" * (multiple > 1)
                raise BeyondReachError(Problem("target", "range", rule, f"{share:g}", remedy)) from error
        yield small


def next_work(trials: Sequence[tuple[float, float]], wanted: float) -> float:
    """Estimates how much work the next network should keep to cost what is wanted, by a line through two networks.

    The line goes through the last network and the latest with at least a tenth more work: two that are nearer differ by
    little more than what two measurements of one network differ by.

    Args:
        trials: Work and cost of each network so far, over the original's; two or more, of less and less work.
        wanted: Share of the original's cost that is sought.

    Returns:
        A share of the original's work, `LEAST_KEPT` to `MOST_KEPT` times that of the last network.
    """
    work, found = trials[-1]
    before, above = next((one for one in reversed(trials) if LEAST_KEPT * one[0] >= work), trials[0])
    slope = (above - found) / (before - work)
    estimate = work - (found - wanted) / slope if slope > 0 else 0.0
    return min(max(estimate, LEAST_KEPT * work), MOST_KEPT * work)


def judge(
    original: Original, small: Shrunk, dataset: Dataset, *, tune_steps: int, margin: float, cache: Path
) -> tuple[UNet, FoldRecord]:
    """Measures a smaller network on the held-back windows, and tunes it where it lost much there.

    Args:
        original: What it was made from.
        small: The network, which is left as it is.
        dataset: The data set.
        tune_steps: Steps of tuning at most; 0 tunes nothing.
        margin: Loss of Dice that counts as not inferior.
        cache: Folder for prepared cases, where they do not fit in memory.

    Returns:
        The network, and what it costs and loses.
    """
    begun = time.monotonic()
    network = copy.deepcopy(small.network)
    lost, tuned, how = original.lost(network), 0, ""
    if tune_steps and worst(lost) < -TUNE_BELOW * margin:
        keep_heap()
        batches = _batches(original, dataset, tune_steps, cache)
        tuned = tune(
            original.network,
            network,
            batches,
            original.divergence,
            weights=original.weights,
            optimizer=original.config.optimizer,
            steps=tune_steps,
            precision=original.precision,
        )
        lost = original.lost(network) if tuned else lost
        untuned = ", not tuned: no step brought it nearer to the original"
        how = f", tuned for {counted(tuned, 'step')}" if tuned else untuned
    macs, parameters = cost(network, original.config)
    fold = "" if original.config.fold is None else f"fold {original.config.fold}, "
    LOG.info(
        "%s%.3g of the multiply-accumulates, %s parameters: Dice %s on %s%s; %.0f s",
        *(fold, macs / original.cost[0], f"{parameters:,}"),
        ", ".join(fixed(value, 4, sign=True) for value in mean_of(lost)),
        *(counted(len(lost), "held-back patient"), how),
        time.monotonic() - begun,
    )
    return network, FoldRecord(
        macs=macs,
        parameters=parameters,
        predicted_loss=small.loss,
        measured_divergence=original.divergence(network),
        tuned_steps=tuned,
        held_back=tuple(tuple(None if np.isnan(value) else float(value) for value in row) for row in lost),
        weights_sha256="",
    )


def worst(lost: Array) -> float:
    """Returns the smallest mean of the classes; infinity where no held-back patient has any."""
    means = [value for value in mean_of(lost) if not math.isnan(value)]
    return min(means, default=math.inf)


def _batches(original: Original, dataset: Dataset, steps: int, cache: Path) -> Iterator[Tensor]:
    """Yields augmented training images of all training patients but those that are held back."""
    config = original.config
    training = replace(config.training, steps=steps, validate_every=steps, accumulate=1, device="cpu")
    data = SegmentationData(
        replace(config, training=training), dataset, Split(train=original.tuned_on, validation=()), cache
    )
    data.setup("fit")
    for batch in data.train_dataloader():
        image: Tensor = data.augmented(batch)["image"]
        yield image
