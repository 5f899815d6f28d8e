"""Feature preservation of one trained run, measured on its held-out cases."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from seg.ablation.preservation import measures
from seg.ablation.preservation.features import Tap, Walker, keeps_position
from seg.ablation.preservation.measures import unbiased_cka
from seg.ablation.preservation.moments import Array, Layout, Moments, Summary
from seg.ablation.preservation.probe import DiceCount, Probe, fit_probe, mean_dice
from seg.ablation.preservation.widths import PRESERVATION_VERSION
from seg.config import load_config
from seg.data.cases import Case, Dataset
from seg.errors import DataError, RunError
from seg.files import write_json
from seg.hardware import choose_device, choose_precision
from seg.inference.predictor import load_model
from seg.networks import UNet
from seg.runs import CONFIG_FILE, PRESERVATION_FILE, TrainedRun

SIDES = ("wide", "narrow")
Key = tuple[str, str]  # of a tap, and of a side


class Gathered:
    """Moments and probe scores of a network on two halves of its cases.

    The halves go through the network one after the other: while the second adds to its moments it is scored by the
    probes of the first; then the first goes through once more, to be scored by those of the second.

    Args:
        walker: The network and its preparation.
        classes: Classes, background included.
        halves: Cases of different patients on the two sides; where the second is empty nothing is probed.
    """

    def __init__(self, walker: Walker, classes: int, halves: tuple[Sequence[Case], Sequence[Case]]) -> None:
        self.walker, self.classes = walker, classes
        self.taps = walker.taps
        self.voxels = 0
        self._device = walker.model.device
        self._layouts = {tap.name: Layout(wide=tap.wide, narrow=tap.handed, classes=classes) for tap in self.taps}
        self._moments = tuple(
            {name: Moments(layout.size, self._device) for name, layout in self._layouts.items()} for _ in halves
        )
        self._scores: dict[Key, list[DiceCount]] = {key: [] for key in self._keys()}
        self._visit(halves[0], self._moments[0], {})
        if halves[1]:
            self._visit(halves[1], self._moments[1], self._probes(self._moments[0]))
            self._visit(halves[0], None, self._probes(self._moments[1]))

    def entry(self, tap: Tap) -> dict[str, Any]:
        """Returns the record of one place; what does not exist is None."""
        layout = self._layouts[tap.name]
        summary = Summary.of(layout, *(moments[tap.name] for moments in self._moments))
        wide = summary.covariance_of("wide", "wide")
        spectrum = measures.spectrum(wide)
        by_width = measures.r2_by_width(spectrum)
        record: dict[str, Any] = {
            "name": tap.name,
            "path": tap.path,
            "stage": tap.stage,
            "channels": tap.channels,
            "voxels": summary.count,
            "wide": tap.wide,
            "narrow": None,
            "r2": None,
            "r2_pca": None,
            "effective_rank": _number(measures.effective_rank(spectrum)),
            "participation_ratio": _number(measures.participation_ratio(spectrum)),
            "spectrum": [float(value) for value in spectrum],
            "r2_by_width": [_number(share) for share in by_width],
            "cka": None,
            "probe_dice_wide": self._probe_dice(tap.name, "wide"),
            "probe_dice_narrow": None,
            "amplified": None,
            "suppressed": None,
            "position_preserved": None,
        }
        return record | (self._narrow_part(tap, summary, by_width) if tap.block is not None else {})

    def _narrow_part(self, tap: Tap, summary: Summary, by_width: Array) -> dict[str, Any]:
        assert tap.block is not None
        assert tap.reduce is not None
        wide, narrow = (summary.covariance_of(side, side) for side in SIDES)
        weight = tap.reduce.weight.detach().double().cpu().numpy()[:, :, 0, 0, 0]
        amplified, suppressed = measures.amplified_and_suppressed(weight, wide)
        return {
            "narrow": tap.narrow,
            "r2": _number(measures.reconstruction_r2(wide, summary.covariance_of("wide", "narrow"), narrow)),
            "r2_pca": _number(by_width[tap.narrow - 1]),
            "cka": _number(unbiased_cka(summary)),
            "probe_dice_narrow": self._probe_dice(tap.name, "narrow"),
            "amplified": _number(amplified),
            "suppressed": _number(suppressed),
            "position_preserved": keeps_position(tap.block, tap.wide),
        }

    def _keys(self) -> list[Key]:
        return [(tap.name, side) for tap in self.taps for side in (SIDES if tap.block is not None else SIDES[:1])]

    def _probes(self, moments: dict[str, Moments]) -> dict[Key, Probe]:
        summaries = {name: Summary.of(self._layouts[name], part) for name, part in moments.items()}
        return {(name, side): fit_probe(summaries[name], side, self._device) for name, side in self._keys()}

    def _visit(self, cases: Sequence[Case], moments: dict[str, Moments] | None, probes: dict[Key, Probe]) -> None:
        for case in cases:
            counts = {key: DiceCount(self.classes, self._device) for key in probes}

            def take(
                tap: Tap,
                wide: Tensor,
                narrow: Tensor | None,
                labels: Tensor,
                counts: dict[Key, DiceCount] = counts,
            ) -> None:
                if moments is not None:
                    moments[tap.name].add(self._layouts[tap.name].rows(wide, narrow, labels))
                for side, features in zip(SIDES, (wide, narrow), strict=True):
                    if features is not None and (tap.name, side) in probes:
                        counts[tap.name, side].add(probes[tap.name, side].predict(features), labels)

            self.walker.visit(case, take)
            for key, count in counts.items():
                self._scores[key].append(count)

    def _probe_dice(self, name: str, side: str) -> list[float | None] | None:
        counts = self._scores[name, side]
        return mean_dice(counts) if counts else None


def _number(value: float | np.floating[Any]) -> float | None:
    return float(value) if math.isfinite(value) else None


LOG = logging.getLogger(__name__)


def measure_preservation(run_dir: Path, dataset: Dataset, case_ids: Sequence[str]) -> dict[str, Any]:
    """Measures what each bottleneck of a trained network preserves, and writes ``preservation.json`` beside it.

    All voxels of the cases go through the network in the windows of a prediction, in single precision; each counts
    once. Linear probes are fitted on the cases of every second patient and tested on the others, both ways round.

    Args:
        run_dir: Run directory with a configuration and final weights.
        dataset: The data set.
        case_ids: Labelled cases to measure on.

    Returns:
        The content of the file.

    Raises:
        DataError: Cases cannot be read, are not in the data set or have no label.
        RunError: There is no finished run, its network is no U-Net, or the file cannot be written.
    """
    if not (run_dir / CONFIG_FILE).is_file():
        raise RunError(f"{run_dir}: must be a run directory, got no {CONFIG_FILE}; check the path.")
    config = load_config([run_dir / CONFIG_FILE])
    run = TrainedRun(path=run_dir, config=config, channel_names=dataset.channel_names, class_names=dataset.class_names)
    device = choose_device(config.training.device)
    model = load_model(run, device, choose_precision("fp32", device), tta=False)
    if not isinstance(model.network, UNet):
        raise RunError(f"{run_dir}: preservation must be measured on a U-Net, got {type(model.network).__name__}.")
    walker = Walker(network=model.network, model=model, data=config.data, ignore_label=dataset.ignore_label)
    halves = _halves(dataset, case_ids)
    gathered = Gathered(walker, len(dataset.class_names), halves)
    entries = [gathered.entry(tap) for tap in gathered.taps]
    result = {
        "schema_version": PRESERVATION_VERSION,
        "voxels": max(entry["voxels"] for entry in entries),
        "cases": sum(map(len, halves)),
        "bottlenecks": entries,
    }
    write_json(run_dir / PRESERVATION_FILE, result)
    return result


def _halves(dataset: Dataset, case_ids: Sequence[str]) -> tuple[list[Case], list[Case]]:
    """Deals the cases out by patient, in the order of the data set."""
    wanted = set(case_ids)
    cases = [case for case in dataset.cases if case.id in wanted]
    if unknown := sorted(wanted - {case.id for case in cases}):
        raise DataError(
            f"{dataset.root}: must hold the measured cases, got none called {', '.join(unknown)}; name another folder."
        )
    if not cases:
        raise DataError(f"{dataset.root}: at least one case must be measured, got none; name labelled cases.")
    patients = list(dict.fromkeys(case.patient or case.id for case in cases))
    first = set(patients[::2])
    halves = [case for case in cases if (case.patient or case.id) in first]
    rest = [case for case in cases if (case.patient or case.id) not in first]
    if not rest:
        LOG.warning("preservation: a linear probe needs two patients, got one; probes are left out")
    return halves, rest
