"""From a prepared image to labels on its own grid, in memory that does not grow with the volume."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor

from seg.errors import RunError
from seg.inference.cells import Cuts, Front, cell_cuts
from seg.inference.gather import Gather, thin_cuts
from seg.inference.grid import Options, Prepared, Segmentation
from seg.inference.heap import EVERY, trim_heap
from seg.inference.model import Model
from seg.inference.resampling import Resampling
from seg.inference.target import LabelMap
from seg.inference.windows import Triple, blend_weights

LOG = logging.getLogger(__name__)
CPU = torch.device("cpu")
NO_MEMORY = (
    "CUDA out of memory",
    "CUDA error: out of memory",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "can't allocate memory",
)
"""What torch, CUDA, cuDNN, cuBLAS and the allocator of main memory say where there is none left."""
MIB = 1 << 20


def segment(models: Sequence[Model], prepared: Prepared, options: Options = Options()) -> Segmentation:  # noqa: B008
    """Segments an image with one network, or with the mean probabilities of several.

    Windows are visited in a sweep along one axis. Logits are kept only where a further window may add to them, and
    every block of labels is made as soon as the logits that it depends on are complete. So what is held grows with
    the cross-section of the volume, with the classes and with the models, but not with the length of the sweep. The
    labels are those of a sliding window over the whole volume, trilinear resampling of its logits (of several models:
    of their mean probabilities), and the most likely class.

    Where a GPU's memory does not suffice, fewer windows go through the network at once; then sums are kept in main
    memory; then windows are halved. Each step starts the image anew and is announced.

    Args:
        models: Networks that take images prepared alike and give the same classes; they may lie on one device.
        prepared: The image.
        options: What is wanted.

    Returns:
        Labels on the image's own grid.

    Raises:
        RunError: Memory does not suffice for the smallest windows, or models give different numbers of classes.
    """
    warnings: list[str] = []
    models = list(models)
    device = models[0].device
    while True:
        try:
            done = _Sweep(models, prepared, options, device).run()
            return replace(done, warnings=tuple(warnings))
        except RuntimeError as error:  # torch.OutOfMemoryError is one
            if not out_of_memory(error):
                raise
            # The traceback, which holds tensors, is gone before the next attempt.
        models, device, message = _smaller(models, device)
        LOG.warning("%s", message)
        warnings.append(message)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def out_of_memory(error: RuntimeError) -> bool:
    """Tells whether memory did not suffice: libraries of the GPU say so in words of their own."""
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in NO_MEMORY)


def _smaller(models: list[Model], device: torch.device) -> tuple[list[Model], torch.device, str]:
    """Chooses what to try next where memory did not suffice."""
    batch = max(model.batch for model in models)
    if batch > 1:
        message = f"memory does not suffice for {batch} windows per pass; going on with {batch // 2}."
        return [replace(model, batch=min(model.batch, batch // 2)) for model in models], device, message
    if device.type != "cpu":
        return models, CPU, "memory of the GPU does not suffice for sums of logits; keeping them in main memory."
    halved = [replace(model, window=_halved(model), whole_up_to=0) for model in models]
    if halved == models:
        raise RunError(
            f"memory must suffice for one window of {models[0].window} voxels, the smallest that the network takes, "
            "got less; predict with --device cpu, or free memory."
        )
    sizes = " and ".join(
        sorted({f"{model.window} to {other.window}" for model, other in zip(models, halved, strict=True)})
    )
    return halved, device, f"memory does not suffice for one window; going on with smaller ones, from {sizes} voxels."


def _halved(model: Model) -> Triple:
    """Halves the edge that is longest in units of the network's total stride, down to two of these."""
    counts = [math.ceil(edge / stride) for edge, stride in zip(model.window, model.multiple, strict=True)]
    axis = counts.index(max(counts))
    if counts[axis] <= 2:
        return model.window
    counts[axis] = (counts[axis] + 1) // 2
    x, y, z = (
        count * stride if own == axis else edge
        for own, (count, stride, edge) in enumerate(zip(counts, model.multiple, model.window, strict=True))
    )
    return x, y, z


class _Sweep:
    """One attempt at an image."""

    def __init__(self, models: list[Model], prepared: Prepared, options: Options, device: torch.device) -> None:
        self.models, self.prepared, self.options, self.device = models, prepared, options, device
        self.plans = [model.windows(prepared.image.shape[1:]) for model in models]
        self.seconds = {"network": 0.0, "sums": 0.0, "labels": 0.0}
        self.most_bytes = 0
        self.resident = False

    def run(self) -> Segmentation:
        """Visits all windows."""
        labels: LabelMap | None = None
        classes = 0
        for count, (model, starts) in enumerate(self._passes(), start=1):
            logits = self._forward(model, starts)
            if labels is None:
                classes = logits.shape[1]
                labels, front, gather = self._begin(classes)
            elif logits.shape[1] != classes:
                raise RunError(
                    f"all models must give as many classes as the first, {classes}, got {logits.shape[1]} from "
                    f"model {model + 1}; average models of one task only."
                )
            self._merge(front, gather, model, starts, logits)
            del logits  # before the next ones are made
            if count % EVERY == 0 and not self.resident:
                trim_heap()
        assert labels is not None  # a volume has a window
        return Segmentation(
            labels=labels.labels,
            probabilities=labels.probabilities,
            seconds=self.seconds,
            held_mib=self.most_bytes / MIB,
        )

    def _forward(self, model: int, starts: Sequence[Triple]) -> Tensor:
        with self._timed("network"):
            crops = [self.plans[model].crop(self.prepared.image, start) for start in starts]
            return self.models[model].logits(torch.stack(crops)).to(self.device)

    def _merge(self, front: Front, gather: Gather, model: int, starts: Sequence[Triple], logits: Tensor) -> None:
        with torch.inference_mode():
            for start, window in zip(starts, logits, strict=True):
                with self._timed("sums"):
                    finished = front.add(model, start, window)
                with self._timed("labels"):
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
        self.resident = 4 * x * y * z * classes * len(self.models) <= self.options.resident_mib * MIB
        if not self.resident:
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

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.seconds[stage] += time.perf_counter() - start
