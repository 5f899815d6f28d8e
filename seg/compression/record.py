"""The content of compression.json, which records the steps of a command, and the table of the steps that is printed."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from seg.compression.certificate import ORIGINAL, Number
from seg.compression.original import Array, Original
from seg.compression.speed import Latency
from seg.words import NOT_MEASURED, aligned, fixed

COMPRESSION_FILE = "compression.json"
COMPRESSION_VERSION = 2
Mebibytes = Annotated[float, Field(ge=0)]


@dataclass(frozen=True, kw_only=True)
class FoldRecord:
    """What a smaller network of one run costs and loses, as compression.json has it.

    Attributes:
        macs: Multiply-accumulates of a patch.
        parameters: Learned numbers.
        predicted_loss: Predicted loss of the cuts, before anything was solved anew, in nats for each voxel of a class,
            summed over classes.
        measured_divergence: Divergence of its prediction from the original's on held-back windows, class against rest,
            in nats a voxel, summed over classes with the weights of tuning, whose mean is 1.
        tuned_steps: Steps of tuning that the kept weights have behind them; 0 for none.
        held_back: Change of Dice by held-back patient and class; null where neither side has the class.
        weights_sha256: Digest of its file of weights; empty before that is written.
    """

    macs: Number
    parameters: Number
    predicted_loss: float
    measured_divergence: float
    tuned_steps: Number
    held_back: tuple[tuple[float | None, ...], ...]
    weights_sha256: str

    @property
    def lost(self) -> list[list[float]]:
        """The changes of Dice, NaN where there is none."""
        return [[np.nan if value is None else value for value in row] for row in self.held_back]


@dataclass(frozen=True, kw_only=True)
class StepRecord:
    """One step of all folds.

    Attributes:
        name: What it is called, as its folder.
        folds: What was made of each run, in the order of folds; of the first ones alone where a command was killed.
    """

    name: str
    folds: tuple[FoldRecord, ...]


@dataclass(frozen=True, kw_only=True)
class Record:
    """The content of compression.json; a command that was killed goes on from it.

    Attributes:
        settings: Whatever decides what is made.
        originals: The runs.
        machine: What measured the times: processor, threads, versions.
        trials: Latency over the original's as measured on the way to a target, by the digest of a network's options. A
            key of a digest and a share is the second, longer measurement for that share.
        steps: The steps that are made, mild to strong.
        int8: Digests of the networks in int8 that were made of the last step, in the order of folds.
        latency: Time of a pass of the original and of each step, of the first run.
        memory: Most memory in MiB over loading and two passes, of the same networks; null where it is not known.
    """

    settings: dict[str, Any]
    originals: tuple[dict[str, Any], ...] = ()
    machine: dict[str, str] = field(default_factory=dict)
    trials: dict[str, float] = field(default_factory=dict)
    steps: tuple[StepRecord, ...] = ()
    int8: tuple[str, ...] = ()
    latency: dict[str, Latency] = field(default_factory=dict)
    memory: dict[str, Mebibytes | None] = field(default_factory=dict)

    def with_passes_of(self, names: Collection[str]) -> Record:
        """Drops the measured time and memory of all networks but the named ones, in a copy of the record."""
        latency = {name: found for name, found in self.latency.items() if name in names}
        memory = {name: found for name, found in self.memory.items() if name in names}
        return replace(self, latency=latency, memory=memory)


def mean_of(lost: Array) -> list[float]:
    """Returns the mean change of each class over the patients that have it; NaN where none has."""
    present = ~np.isnan(lost)
    sums = np.where(present, lost, 0).sum(0)
    return [float(total / count) if count else math.nan for total, count in zip(sums, present.sum(0), strict=True)]


def format_steps(steps: Sequence[StepRecord], originals: Sequence[Original], record: Record) -> str:
    """Formats the steps beside the original; of several folds the largest cost, most tuning and mean loss.

    What was not measured of a step on held-back patients, as of one in int8, is a dash.
    """
    names = originals[0].run.class_names[1:]
    head = ["step", "GMAC", "parameters", "latency", "memory", "divergence", "tuned", *names]
    macs, parameters = originals[0].cost
    cost = [f"{macs / 1e9:.3f}", f"{parameters:,}", *_pass(ORIGINAL, record)]
    table = [head, [ORIGINAL, *cost, *[""] * (2 + len(names))]]
    for step in steps:
        rows = [row for fold in step.folds for row in fold.lost]
        lost = [fixed(value, 4, sign=True) for value in mean_of(np.array(rows))] if rows else ["-"] * len(names)
        divergence = f"{sum(fold.measured_divergence for fold in step.folds) / len(step.folds):.3g}" if rows else "-"
        tuned = max(fold.tuned_steps for fold in step.folds)
        macs, parameters = max(fold.macs for fold in step.folds), max(fold.parameters for fold in step.folds)
        cost = [f"{macs / 1e9:.3f}", f"{parameters:,}", *_pass(step.name, record)]
        table.append([step.name, *cost, divergence, str(tuned or "-"), *lost])
    note = "steps, with changes of Dice on held-back training patients, which the original was trained on:"
    return f"{note}\n{aligned(table, right=range(1, len(head)))}"


def _pass(name: str, record: Record) -> tuple[str, str]:
    latency, memory = record.latency[name], record.memory[name]
    return f"{latency.ms:.1f} ms ({latency.ratio:.2f})", NOT_MEASURED if memory is None else f"{memory:.0f} MiB"
