"""From a prepared image to labels on its own grid, in memory that does not grow with the volume."""

from __future__ import annotations

import itertools
import logging
import math
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from seg.errors import Problem, RunError
from seg.hardware import trim_heap
from seg.inference.arrays import (
    Array,
    Device,
    add_product,
    copied,
    empty,
    moved,
    product,
    softmax,
    stack,
    without_gradients,
    zeros,
)
from seg.inference.memory import Attempt, MemoryHistory, out_of_memory, release_cache, smaller
from seg.inference.model import Model
from seg.inference.resampling import Resampling, Tile
from seg.inference.segmentation import LabelMap, Prepared, Segmentation
from seg.inference.windows import Cuts, Triple, Windows, blend_weights, cell_box, cell_cuts, cells_within

LOG = logging.getLogger(__name__)
MIB = 1 << 20


def segment(
    models: Sequence[Model],
    prepared: Prepared,
    memory: MemoryHistory | None = None,
    *,
    probabilities: bool = False,
    resident_mib: float = 128.0,
) -> Segmentation:
    """Segments an image with one network, or with the mean probabilities of several.

    Windows are visited in a sweep along one axis. Logits are kept only where a further window may add to them, and
    every block of labels is made as soon as the logits that it depends on are complete. So what is held grows with
    the cross-section of the volume, with the classes and with the models, but not with the length of the sweep. The
    labels are those of a sliding window over the whole volume, trilinear resampling of its logits (of several models:
    of their mean probabilities), and the most likely class.

    Where memory does not suffice, fewer windows go through the network at once; then sums on a GPU are kept in main
    memory, and before that where they are what takes most; then windows are halved. Each step starts the image anew
    and is announced.

    Args:
        models: Networks that take images prepared alike and give the same classes; they may lie on one device.
        prepared: The image.
        memory: What earlier images taught about memory; the next one begins with that.
        probabilities: Whether probabilities of the classes are wanted beside the labels.
        resident_mib: Logits of up to this size, in MiB, are held for the whole volume; larger volumes are swept in
            slabs.

    Returns:
        Labels on the image's own grid.

    Raises:
        RunError: Memory does not suffice for the smallest windows, or logits are not finite.
    """
    memory = memory or MemoryHistory()
    attempt = memory.attempt or Attempt(models=tuple(models), device=models[0].device)
    warnings = list(attempt.warnings)
    while True:
        sweep = _Sweep(attempt, prepared, probabilities, resident_mib)
        try:
            done = sweep.run()
            memory.attempt = attempt
            return replace(done, warnings=tuple(warnings))
        except Exception as error:  # each engine has exceptions of its own
            if not out_of_memory(error):
                raise
            # The traceback, which holds tensors, is gone before the next attempt.
        attempt, message = smaller(attempt, sums=sweep.most_bytes, passes=sweep.pass_bytes())
        LOG.warning("%s", message)
        warnings.append(message)
        release_cache(models[0].device)


class _Sweep:
    """One attempt at an image."""

    def __init__(self, attempt: Attempt, prepared: Prepared, probabilities: bool, resident_mib: float) -> None:
        self.models, self.device = attempt.models, attempt.device
        self.prepared, self.probabilities, self.resident_mib = prepared, probabilities, resident_mib
        self.plans = [model.windows(prepared.image.shape[1:]) for model in self.models]
        self.clock = StageTimer(self.models[0].device, ("network", "sums", "labels"))
        self.classes = 0
        self.most_bytes = 0
        self.resident = False

    def run(self) -> Segmentation:
        """Visits all windows."""
        labels: LabelMap | None = None
        total: Array | None = None
        for count, (model, starts) in enumerate(self._passes(), start=1):
            logits = self._forward(model, starts)
            if labels is None:
                self.classes = logits.shape[1]
                labels, sums, writer = self._begin(self.classes)
            # A NaN or an infinity stays in the sum, which is read once, at the end: each reading waits for the GPU.
            total = logits.sum() if total is None else total + logits.sum()
            self._merge(sums, writer, model, starts, logits)
            del logits  # before the next ones are made
            if count % TRIM_EVERY == 0 and not self.resident:
                trim_heap()
        assert labels is not None  # a volume has a window
        assert total is not None
        if not math.isfinite(float(total)):
            remedy = (
                "predict with --precision fp32, compare the image's intensities with those of the training data, or "
                "train anew"
            )
            raise RunError(Problem("logits", "finite", "must be finite", "NaN or infinite ones", remedy))
        return Segmentation(
            labels=labels.labels,
            probabilities=labels.probabilities,
            geometry=self.prepared.target,
            seconds=self.clock.seconds(),
            held_mib=self.most_bytes / MIB,
        )

    def pass_bytes(self) -> int:
        """Estimates the memory of a pass through the network that takes most."""
        shape = self.prepared.image.shape[1:]
        return max(model.pass_bytes(shape, self.classes) for model in self.models)

    def _forward(self, model: int, starts: Sequence[Triple]) -> Array:
        with self.clock.stage("network"):
            crops = [self.plans[model].crop(self.prepared.image, start) for start in starts]
            return moved(self.models[model].logits(stack(crops)), self.device)

    def _merge(
        self, sums: OverlapSums, writer: BlockWriter, model: int, starts: Sequence[Triple], logits: Array
    ) -> None:
        with without_gradients(logits):
            for start, window in zip(starts, logits, strict=True):
                with self.clock.stage("sums"):
                    finished = sums.add(model, start, window)
                with self.clock.stage("labels"):
                    for cell, scores in finished:
                        writer.take(cell, scores)
                self.most_bytes = max(self.most_bytes, sums.most_bytes + writer.held_bytes)

    def _begin(self, classes: int) -> tuple[LabelMap, OverlapSums, BlockWriter]:
        target, prepared = self.prepared.target, self.prepared
        labels = LabelMap(target, classes, probabilities=self.probabilities, logits=len(self.models) == 1)
        x, y, z = prepared.image.shape[1:]
        resampling = Resampling((x, y, z), labels.shape, prepared.step)
        cuts: Cuts = ([0, x], [0, y], [0, z])
        base = cuts
        whole = 4 * x * y * z * classes * len(self.models)
        self.resident = whole <= self.resident_mib * MIB
        if self.resident:
            self.most_bytes = whole  # of each model, from its first window on
        else:
            base = cuts = cell_cuts(self.plans)
            if not resampling.same:
                cuts = thin_cuts(cuts, self.plans[0].sweep()[0])
        weights = [
            blend_weights(plan.size, model.blend, self.device)
            for plan, model in zip(self.plans, self.models, strict=True)
        ]
        tiles = [] if resampling.same else resampling.tiles(base)
        return labels, OverlapSums(self.plans, weights, cuts), BlockWriter(resampling, cuts, tiles, labels)

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


def thin_cuts(cuts: Cuts, axis: int) -> Cuts:
    """Cuts one voxel off the end of each cell along an axis.

    Interpolation needs the last row of a cell once more when the next cell is complete; cut off, it stays alone.
    """
    edges = sorted({*cuts[axis], *(edge - 1 for edge in cuts[axis][1:])})
    x, y, z = (edges if own == axis else cuts[own] for own in range(3))
    return x, y, z


class BlockWriter:
    """Cells that wait until a block of labels, a tile of the target, can be interpolated from them."""

    def __init__(self, resampling: Resampling, cuts: Cuts, tiles: Sequence[Tile], labels: LabelMap) -> None:
        self._resampling, self._cuts, self._labels = resampling, cuts, labels
        self._held: dict[Triple, Array] = {}
        self._needs: dict[Tile, list[Triple]] = {}
        self._tiles: defaultdict[Triple, list[Tile]] = defaultdict(list)
        for tile in tiles:
            self._needs[tile] = cells_within(cuts, tile.source)
            for cell in self._needs[tile]:
                self._tiles[cell].append(tile)
        self._missing = {tile: len(needs) for tile, needs in self._needs.items()}
        self._uses = Counter(itertools.chain(*self._needs.values()))

    @property
    def held_bytes(self) -> int:
        """Size of the cells that wait."""
        return sum(scores.nbytes for scores in self._held.values())

    def take(self, cell: Triple, scores: Array) -> None:
        """Takes the scores (K, x, y, z) of a finished cell and writes each block of labels that is now complete."""
        if self._resampling.same:
            x, y, z = (part.start for part in cell_box(self._cuts, cell))
            self._labels.write((x, y, z), scores)
            return
        if cell in self._uses:
            self._held[cell] = scores
        for tile in self._tiles[cell]:
            self._missing[tile] -= 1
            if self._missing[tile] == 0:
                self._write(tile)

    def _write(self, tile: Tile) -> None:
        source = self._collect(tile)
        for block in self._resampling.blocks(tile, source):
            part = tuple(
                slice(own.start - whole.start, own.stop - whole.start)
                for own, whole in zip(block.source, tile.source, strict=True)
            )
            x, y, z = (axis.start for axis in block.target)
            self._labels.write((x, y, z), self._resampling.interpolate(block, source[(slice(None), *part)]))
        for cell in self._needs[tile]:
            self._uses[cell] -= 1
            if self._uses[cell] == 0:
                del self._held[cell]

    def _collect(self, tile: Tile) -> Array:
        """Joins the parts of cells that make up a tile's source."""
        first = self._held[self._needs[tile][0]]
        size = [part.stop - part.start for part in tile.source]
        source = empty(first, (len(first), *size))
        for cell in self._needs[tile]:
            box = cell_box(self._cuts, cell)
            common = [slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(box, tile.source, strict=True)]
            into = tuple(slice(c.start - s.start, c.stop - s.start) for c, s in zip(common, tile.source, strict=True))
            out = tuple(slice(c.start - b.start, c.stop - b.start) for c, b in zip(common, box, strict=True))
            source[(slice(None), *into)] = self._held[cell][(slice(None), *out)]
        return source


class StageTimer:
    """Adds up the time of stages.

    On a GPU, work is handed over and done later: marks in its own queue say when. Between the marks of a stage lies
    what the GPU did for it and what it waited for, so stages that follow one another add up to the whole.
    """

    def __init__(self, device: Device, stages: Sequence[str]) -> None:
        self._device = device
        self._seconds = dict.fromkeys(stages, 0.0)
        self._marks: list[tuple[str, Any, Any]] = []

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Times a block as part of a stage."""
        if self._device.type != "cuda":
            start = time.perf_counter()
            yield
            self._seconds[name] += time.perf_counter() - start
            return
        begin = self._mark()
        yield
        self._marks.append((name, begin, self._mark()))

    def _mark(self) -> Any:
        import torch

        mark: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        mark.record(torch.cuda.current_stream(self._device))
        return mark

    def seconds(self) -> dict[str, float]:
        """Waits for the GPU and returns the seconds of each stage."""
        if self._marks:
            import torch

            torch.cuda.synchronize(self._device)
        for name, begin, end in self._marks:
            self._seconds[name] += begin.elapsed_time(end) / 1000
        self._marks.clear()
        return dict(self._seconds)


TRIM_EVERY = 8
"""Passes between two calls: more often costs time, more seldom memory."""


@dataclass
class _Sum:
    """Sums over the windows that cover a cell, for one model.

    Attributes:
        logits: Sum of weighted logits, shape (K, x, y, z); plain logits while a single window covers the cell.
        weights: Sum of weights; None while a single window covers the cell.
    """

    logits: Array
    weights: Array | None

    def mean(self) -> Array:
        if self.weights is not None:
            self.logits /= self.weights
        return self.logits


@dataclass
class _Cell:
    left: int
    sums: dict[int, _Sum] = field(default_factory=dict)


class OverlapSums:
    """Sums of logits of the cells that some windows have covered and further windows will cover.

    Args:
        plans: Windows of each model over the volume.
        weights: Blending weights of each model's windows, on the device of the sums.
        cuts: Where cells begin and end: every edge of a window and any further coordinates; or the ends of the volume
            alone, to hold all of it.

    Attributes:
        held_bytes: Size of the sums that are held.
        most_bytes: Largest size so far.
    """

    def __init__(self, plans: Sequence[Windows], weights: Sequence[Array], cuts: Cuts) -> None:
        self.plans, self.weights, self.cuts = plans, weights, cuts
        self.held_bytes = self.most_bytes = 0
        self._cells: dict[Triple, _Cell] = {}
        self._counts = [
            [[plan.covering(axis, span) for span in itertools.pairwise(cuts[axis])] for axis in range(3)]
            for plan in plans
        ]

    def add(self, model: int, start: Triple, logits: Array) -> list[tuple[Triple, Array]]:
        """Adds the logits (K, x, y, z) of a model's window, which lie on the device of the weights.

        Returns:
            The cells that are finished by this window, each with its scores (K, x, y, z): logits of a single model,
            probabilities averaged over several.
        """
        window, finished = self.plans[model].inside(start), []
        for key in cells_within(self.cuts, window):
            if key not in self._cells:
                self._cells[key] = _Cell(sum(self._expected(index, key) for index in range(len(self.plans))))
            cell = self._cells[key]
            self._add_to(cell, key, model, start, logits)
            cell.left -= 1
            if cell.left == 0:
                del self._cells[key]
                finished.append((key, self._finish(cell)))
        return finished

    def _expected(self, model: int, key: Triple) -> int:
        return math.prod(counts[i] for counts, i in zip(self._counts[model], key, strict=True))

    def _add_to(self, cell: _Cell, key: Triple, model: int, start: Triple, logits: Array) -> None:
        box = cell_box(self.cuts, key)
        # A window covers a part of a cell only where the whole volume is one cell.
        common = [
            slice(max(b.start, i.start), min(b.stop, i.stop))
            for b, i in zip(box, self.plans[model].inside(start), strict=True)
        ]
        shape = tuple(b.stop - b.start for b in box)
        part = logits[(slice(None), *_moved(common, start))]
        weights = self.weights[model][_moved(common, start)]
        covers = tuple(part.shape[1:]) == shape
        known = cell.sums.get(model)
        if known is None and covers:
            # Class by class in memory, and no view that would keep the window alive.
            if self._expected(model, key) == 1:
                cell.sums[model] = _Sum(copied(part), None)
            else:
                cell.sums[model] = _Sum(product(part, weights), copied(weights))
            self._hold(cell.sums[model], 1)
            return
        if known is None:
            known = cell.sums[model] = _Sum(zeros(part, (len(part), *shape)), zeros(weights, shape))
            self._hold(known, 1)
        assert known.weights is not None  # more than one window was counted
        inside = _moved(common, [b.start for b in box])
        add_product(known.logits[(slice(None), *inside)], part, weights)
        known.weights[inside] += weights

    def _hold(self, part: _Sum, sign: int) -> None:
        self.held_bytes += sign * (part.logits.nbytes + (0 if part.weights is None else part.weights.nbytes))
        self.most_bytes = max(self.most_bytes, self.held_bytes)

    def _finish(self, cell: _Cell) -> Array:
        for part in cell.sums.values():
            self._hold(part, -1)
        first, *others = cell.sums.values()
        if not others:
            return first.mean()
        # One model after the other, in the order of models whatever the order of windows.
        total = zeros(first.logits, first.logits.shape)
        for _, part in sorted(cell.sums.items()):
            total += softmax(part.mean())
        return total / len(cell.sums)


def _moved(box: Sequence[slice], origin: Sequence[int]) -> tuple[slice, ...]:
    return tuple(slice(part.start - o, part.stop - o) for part, o in zip(box, origin, strict=True))
