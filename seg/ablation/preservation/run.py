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
from seg.ablation.preservation.features import Place, find_places, keeps_position, visit_case
from seg.ablation.preservation.moments import FeatureWidths, Moments, Summary
from seg.ablation.preservation.probe import DiceCount, Probe, fit_probe, mean_dice
from seg.config import DataConfig, load_config
from seg.data.cases import Case, Dataset
from seg.errors import DataError, Problem, RunError
from seg.files import write_json
from seg.hardware import choose_device, choose_precision
from seg.inference.model import Model, processor
from seg.inference.predictor import load_model
from seg.networks import UNet
from seg.runs import CONFIG_FILE, PRESERVATION_FILE, TrainedRun

PRESERVATION_VERSION = 1
SIDES = ("wide", "narrow")
Key = tuple[str, str]
"""Name of a place, and a side."""
Probes = dict[Key, Probe]
LOG = logging.getLogger(__name__)


class FeatureStatistics:
    """Moments and probe scores of a network on two halves of its cases.

    The halves go through the network one after the other: while the second adds to its moments it is scored by the
    probes of the first; then the first goes through once more, to be scored by those of the second.

    Args:
        model: The network, a U-Net.
        data: How cases are prepared.
        dataset: The data set.
        halves: Cases of different patients on the two sides; where the second is empty nothing is probed.
    """

    def __init__(
        self, model: Model, data: DataConfig, dataset: Dataset, halves: tuple[Sequence[Case], Sequence[Case]]
    ) -> None:
        assert isinstance(model.network, UNet)
        self.places = find_places(model.network)
        self._model, self._data, self._dataset = model, data, dataset
        classes = len(dataset.class_names)
        self._layouts = {one.name: FeatureWidths(wide=one.wide, narrow=one.out, classes=classes) for one in self.places}
        self._keys = [(one.name, side) for one in self.places for side in SIDES if side == "wide" or one.block]
        self._moments = tuple(
            {name: Moments(layout.size, model.device) for name, layout in self._layouts.items()} for _ in halves
        )
        self._scores: dict[Key, list[DiceCount]] = {key: [] for key in self._keys}
        self._visit(halves[0], self._moments[0], {})
        if halves[1]:
            self._visit(halves[1], self._moments[1], self._probes(self._moments[0]))
            self._visit(halves[0], None, self._probes(self._moments[1]))

    def entry(self, place: Place) -> dict[str, Any]:
        """Returns the record of one place; what does not exist is None."""
        name = place.name
        summary = Summary.of(self._layouts[name], *(moments[name] for moments in self._moments))
        wide = summary.covariance_of("wide", "wide")
        spectrum = measures.spectrum(wide)
        by_width = measures.r2_by_width(spectrum)
        r2 = r2_pca = cka = amplified = suppressed = math.nan
        if place.reduce is not None:
            narrow = summary.covariance_of("narrow", "narrow")
            weight = place.reduce.weight.detach().double().cpu().numpy()[:, :, 0, 0, 0]
            amplified, suppressed = measures.amplified_and_suppressed(weight, wide)
            r2 = measures.reconstruction_r2(wide, summary.covariance_of("wide", "narrow"), narrow)
            r2_pca, cka = by_width[place.narrow - 1], measures.unbiased_cka(summary)
        return {
            "name": name,
            "path": place.path,
            "stage": place.stage,
            "channels": place.channels,
            "voxels": summary.count,
            "wide": place.wide,
            "narrow": place.narrow or None,
            "r2": _number(r2),
            "r2_pca": _number(r2_pca),
            "effective_rank": _number(measures.effective_rank(spectrum)),
            "participation_ratio": _number(measures.participation_ratio(spectrum)),
            "spectrum": [float(value) for value in spectrum],
            "r2_by_width": [_number(share) for share in by_width],
            "cka": _number(cka),
            **{f"probe_dice_{side}": mean_dice(self._scores.get((name, side), ())) for side in SIDES},
            "amplified": _number(amplified),
            "suppressed": _number(suppressed),
            "position_preserved": None if place.block is None else keeps_position(place.block, place.wide),
        }

    def _probes(self, moments: dict[str, Moments]) -> Probes:
        summaries = {name: Summary.of(self._layouts[name], part) for name, part in moments.items()}
        return {(name, side): fit_probe(summaries[name], side, self._model.device) for name, side in self._keys}

    def _visit(self, cases: Sequence[Case], moments: dict[str, Moments] | None, probes: Probes) -> None:
        for case in cases:
            counts = {key: DiceCount(len(self._dataset.class_names), self._model.device) for key in probes}

            def take(
                place: Place,
                wide: Tensor,
                narrow: Tensor | None,
                labels: Tensor,
                counts: dict[Key, DiceCount] = counts,
            ) -> None:
                if moments is not None:
                    moments[place.name].add(self._layouts[place.name].rows(wide, narrow, labels))
                for side, features in zip(SIDES, (wide, narrow), strict=True):
                    if features is not None and (key := (place.name, side)) in probes:
                        counts[key].add(probes[key].predict(features), labels)

            visit_case(self._model, self._data, case, self._dataset.ignore_label, take)
            for key, count in counts.items():
                self._scores[key].append(count)


def _number(value: float | np.floating[Any]) -> float | None:
    return float(value) if math.isfinite(value) else None


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
        raise RunError(
            Problem(f"{run_dir}", "missing", "must be a run directory", f"no {CONFIG_FILE}", "check the path")
        )
    config = load_config([run_dir / CONFIG_FILE])
    run = TrainedRun(path=run_dir, config=config, channel_names=dataset.channel_names, class_names=dataset.class_names)
    device = choose_device(config.training.device)
    if device.type == "mps":
        device = processor()  # moments are sums in double precision, which an Apple GPU lacks
        LOG.info("preservation is measured on the processor")
    model = load_model(run, device, choose_precision("fp32", device), tta=False)
    if not isinstance(model.network, UNet):
        rule = "must hold a U-Net, the network whose bottlenecks are measured"
        raise RunError(Problem(f"{run_dir}", "network", rule, type(model.network).__name__))
    halves = _halves(dataset, case_ids)
    found = FeatureStatistics(model, config.data, dataset, halves)
    entries = [found.entry(place) for place in found.places]
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
        rule, value = "must hold the measured cases", f"none called {', '.join(unknown)}"
        raise DataError(Problem(f"{dataset.root}", "missing", rule, value, "name another folder"))
    if not cases:
        rule, remedy = "must have a case to be measured", "name labelled cases"
        raise DataError(Problem(f"{dataset.root}", "empty", rule, "none", remedy))
    patients = list(dict.fromkeys(case.patient_or_id for case in cases))
    first = set(patients[::2])
    halves = [case for case in cases if case.patient_or_id in first]
    rest = [case for case in cases if case.patient_or_id not in first]
    if not rest:
        LOG.warning("preservation: a linear probe needs two patients, got one; probes are left out")
    return halves, rest
