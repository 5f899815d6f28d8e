"""From a prepared image to labels on its own grid, in memory that does not grow with the volume."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from seg.errors import RunError
from seg.inference.cells import Cuts, Front, cell_cuts
from seg.inference.clock import Clock
from seg.inference.gather import Gather, thin_cuts
from seg.inference.grid import Options, Prepared, Segmentation
from seg.inference.heap import EVERY, trim_heap
from seg.inference.model import Model
from seg.inference.resampling import Resampling
from seg.inference.shortage import Attempt, Learnt, out_of_memory, smaller
from seg.inference.target import LabelMap
from seg.inference.windows import Triple, blend_weights

LOG = logging.getLogger(__name__)
MIB = 1 << 20


def segment(
    models: Sequence[Model],
    prepared: Prepared,
    options: Options = Options(),  # noqa: B008
    learnt: Learnt | None = None,
) -> Segmentation:
    """Segments an image with one network, or with the mean probabilities of several.

    Windows are visited in a sweep along one axis. Logits are kept only where a further window may add to them, and
    every block of labels is made as soon as the logits that it depends on are complete. So what is held grows with
    the cross-section of the volume, with the classes and with the models, but not with the length of the sweep. The
    labels are those of a sliding window over the whole volume, trilinear resampling of its logits (of several models:
    of their mean probabilities), and the most likely class.

    Where a GPU's memory does not suffice, fewer windows go through the network at once; then sums are kept in main
    memory, and before that where they are what takes most; then windows are halved. Each step starts the image anew
    and is announced.

    Args:
        models: Networks that take images prepared alike and give the same classes; they may lie on one device.
        prepared: The image.
        options: What is wanted.
        learnt: What earlier images taught about memory; the next one begins with that.

    Returns:
        Labels on the image's own grid.

    Raises:
        RunError: Memory does not suffice for the smallest windows, models give different numbers of classes, or logits
            are not finite.
    """
    learnt = Learnt() if learnt is None else learnt
    attempt = learnt.begin(models)
    warnings = list(attempt.warnings)
    while True:
        sweep = _Sweep(attempt, prepared, options)
        try:
            done = sweep.run()
            learnt.attempt = attempt
            return replace(done, warnings=tuple(warnings))
        except RuntimeError as error:  # torch.OutOfMemoryError is one
            if not out_of_memory(error):
                raise
            # The traceback, which holds tensors, is gone before the next attempt.
        attempt, message = smaller(attempt, sums=sweep.most_bytes, passes=sweep.pass_bytes())
        LOG.warning("%s", message)
        warnings.append(message)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


class _Sweep:
    """One attempt at an image."""

    def __init__(self, attempt: Attempt, prepared: Prepared, options: Options) -> None:
        self.models, self.device = attempt.models, attempt.device
        self.prepared, self.options = prepared, options
        self.plans = [model.windows(prepared.image.shape[1:]) for model in self.models]
        self.clock = Clock(self.models[0].device, ("network", "sums", "labels"))
        self.classes = 0
        self.most_bytes = 0
        self.resident = False

    def run(self) -> Segmentation:
        """Visits all windows."""
        labels: LabelMap | None = None
        total: Tensor | None = None
        for count, (model, starts) in enumerate(self._passes(), start=1):
            logits = self._forward(model, starts)
            if labels is None:
                self.classes = logits.shape[1]
                labels, front, gather = self._begin(self.classes)
            elif logits.shape[1] != self.classes:
                raise RunError(
                    f"all models must give as many classes as the first, {self.classes}, got {logits.shape[1]} from "
                    f"model {model + 1}; average models of one task only."
                )
            # A single NaN or infinity makes the sum one; it is looked at once, when the GPU has nothing left to do.
            total = logits.sum() if total is None else total + logits.sum()
            self._merge(front, gather, model, starts, logits)
            del logits  # before the next ones are made
            if count % EVERY == 0 and not self.resident:
                trim_heap()
        assert labels is not None  # a volume has a window
        assert total is not None
        if not math.isfinite(float(total)):
            raise RunError(
                "logits must be finite, got NaN or infinite ones; predict with --precision fp32, compare the image's "
                "intensities with those of the training data, or train anew."
            )
        return Segmentation(
            labels=labels.labels,
            probabilities=labels.probabilities,
            seconds=self.clock.seconds(),
            held_mib=self.most_bytes / MIB,
        )

    def pass_bytes(self) -> int:
        """Estimates the memory of a pass through the network that takes most."""
        shape = self.prepared.image.shape[1:]
        return max(model.pass_bytes(shape, self.classes) for model in self.models)

    def _forward(self, model: int, starts: Sequence[Triple]) -> Tensor:
        with self.clock.stage("network"):
            crops = [self.plans[model].crop(self.prepared.image, start) for start in starts]
            return self.models[model].logits(torch.stack(crops)).to(self.device)

    def _merge(self, front: Front, gather: Gather, model: int, starts: Sequence[Triple], logits: Tensor) -> None:
        with torch.inference_mode():
            for start, window in zip(starts, logits, strict=True):
                with self.clock.stage("sums"):
                    finished = front.add(model, start, window)
                with self.clock.stage("labels"):
                    for cell, scores in finished:
                        gather.take(cell, scores)
                self.most_bytes = max(self.most_bytes, front.most_bytes + gather.held_bytes)

    def _begin(self, classes: int) -> tuple[LabelMap, Front, Gather]:
        target, prepared = self.prepared.target, self.prepared
        labels = LabelMap(target, classes, probabilities=self.options.probabilities, logits=len(self.models) == 1)
        x, y, z = prepared.image.shape[1:]
        resampling = Resampling((x, y, z), prepared.affine, labels.shape, labels.affine)
        cuts: Cuts = ([0, x], [0, y], [0, z])
        base = cuts
        whole = 4 * x * y * z * classes * len(self.models)
        self.resident = whole <= self.options.resident_mib * MIB
        if self.resident:
            self.most_bytes = whole  # of each model, from its first window on
        else:
            base = cuts = cell_cuts(self.plans)
            if not resampling.same and resampling.straight:
                cuts = thin_cuts(cuts, self.plans[0].sweep()[0])
        weights = [
            blend_weights(plan.size, model.blend).to(self.device)
            for plan, model in zip(self.plans, self.models, strict=True)
        ]
        tiles = [] if resampling.same else resampling.tiles(base)
        return labels, Front(self.plans, weights, cuts), Gather(resampling, cuts, tiles, labels)

    def _passes(self) -> Iterator[tuple[int, list[Triple]]]:
        """Yields which windows of which model go through the network together, in the order of the sweep."""
        axes = self.plans[0].sweep()
        passes = []
        for index, (model, plan) in enumerate(zip(self.models, self.plans, strict=True)):
            ordered = plan.in_order(axes)
            for first in range(0, len(ordered), model.batch):
                chosen = ordered[first : first + model.batch]
                passes.append((chosen[0][0], index, [start for _, start in chosen]))
        for _, index, starts in sorted(passes):
            yield index, starts
