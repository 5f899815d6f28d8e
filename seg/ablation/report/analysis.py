"""All that a report computes from records, before it is put into words and figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from seg.ablation.report.families import families
from seg.ablation.report.further import Contrast, Gap, contrast, find_gaps
from seg.ablation.report.laws import WORST, Law, find_laws
from seg.ablation.report.preserved import Prediction, find_predictions
from seg.ablation.report.study import DeviceSpeed, StudyRecord
from seg.ablation.report.trials import Records
from seg.ablation.statistics import (
    Comparison,
    Convergence,
    Effect,
    RankStability,
    Recommendation,
    convergence,
    estimate_effect,
    paired,
    rank_stability,
    recommend,
)
from seg.ablation.statistics.tables import patient_means, read_scores
from seg.errors import RunError


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """What the records of a study show.

    Attributes:
        records: The records.
        device: The device that the recommendation is for: the first of speed.json, GPUs before processors; None where
            speed was not measured.
        mean_dice: Mean Dice of each variant that has a score, with its interval over runs and patients,
            cut to 0 to 1.
        class_dice: The same by class index.
        comparisons: Each variant against the baseline by name; empty where the baseline has no finished trial.
        contrasts: Further comparisons that the study names.
        against_full_width: Comparisons of narrow decoders with the one of full width that the study does not name.
        recommendations: The recommendation by device; for the case without any, a single one without latencies.
        ranks: Order of the variants; None where it could not be taken.
        convergence: Speed of convergence by variant.
        gaps: Gap between training and validation by variant.
        laws: How each measure of preservation goes with the Dice lost: of worst bottlenecks, paths and stages.
        predictions: Safe widths predicted from the baseline's spectrum beside those found; empty without a record.
        unpredicted: Why there are none, where there are none.
    """

    records: Records
    device: DeviceSpeed | None
    mean_dice: Mapping[str, Effect]
    class_dice: Mapping[str, Mapping[int, Effect]]
    comparisons: Mapping[str, Comparison]
    contrasts: tuple[Contrast, ...]
    against_full_width: tuple[Contrast, ...]
    recommendations: tuple[Recommendation, ...]
    ranks: RankStability | None
    convergence: Mapping[str, Convergence]
    gaps: Mapping[str, Gap]
    laws: tuple[Law, ...]
    predictions: tuple[Prediction, ...]
    unpredicted: str

    @property
    def baseline(self) -> str:
        """Name of the baseline."""
        return self.records.study.baseline

    @property
    def recommendation(self) -> Recommendation | None:
        """The recommendation for the named device; None where nothing could be compared."""
        return self.recommendations[0] if self.recommendations else None

    @property
    def recommended(self) -> str | None:
        """The variant that is recommended: the fastest, or the narrowest where speed was not measured."""
        found = self.recommendation
        return None if found is None else found.fastest or found.narrowest

    @property
    def worst_laws(self) -> tuple[Law, ...]:
        """The laws of the worst bottleneck of each trial."""
        return tuple(law for law in self.laws if law.where == WORST)

    def contrast_with(self, variant: str, against: str) -> Comparison | None:
        """Gives the comparison of a variant with another than the baseline; None where there is none."""
        known = (*self.contrasts, *self.against_full_width)
        return next((one.found for one in known if (one.variant, one.against) == (variant, against)), None)

    def macs(self, name: str) -> int | None:
        """Gives the multiply-accumulates of a variant."""
        return next(variant.macs for variant in self.records.study.variants if variant.name == name)

    def parameters(self, name: str) -> int | None:
        """Gives the parameters of a variant."""
        return next(variant.parameters for variant in self.records.study.variants if variant.name == name)


def analyse(records: Records) -> Analysis:
    """Computes everything that a report shows.

    Raises:
        RunError: The runs of a study cannot be paired.
    """
    study = records.study
    scores = {
        name: {trial.pair: trial.scores for trial in trials}
        for name in study.names
        if (trials := records.finished(name))
    }
    ready = bool(scores.get(study.baseline))
    compared = (
        paired({name: scores.get(name, {}) for name in study.names}, study.baseline, margin=study.margin)
        if ready and len(study.names) > 1
        else ()
    )
    macs = {variant.name: variant.macs for variant in study.variants if variant.macs is not None}
    latencies = [device.latencies(study.baseline) for device in records.speed] or [{}]
    device = records.speed[0] if records.speed else None
    dice = {name: effects for name, trials in scores.items() if (effects := _dice(trials, name))}
    predictions: tuple[Prediction, ...] = ()
    unpredicted = "no spectrum of a trained baseline was measured"
    try:
        predictions = find_predictions(records, {one.variant for one in compared if one.non_inferior})
    except RunError as error:
        unpredicted = " ".join(error.sentences).rstrip(".")
    return Analysis(
        records=records,
        device=device,
        mean_dice={name: effects[0] for name, effects in dice.items() if 0 in effects},
        class_dice={
            name: {index: effect for index, effect in effects.items() if index} for name, effects in dice.items()
        },
        comparisons={one.variant: one for one in compared},
        contrasts=tuple(contrast(scores, *names, margin=study.margin) for names in study.contrasts),
        against_full_width=tuple(contrast(scores, *names, margin=study.margin) for names in _against_full_width(study)),
        recommendations=tuple(
            recommend(compared, latency, baseline=study.baseline, macs=macs) for latency in latencies if compared
        ),
        ranks=rank_stability(scores, study.baseline) if ready and len(scores) > 1 else None,
        convergence=_convergence(records, device),
        gaps=find_gaps(records),
        laws=find_laws(records),
        predictions=predictions,
        unpredicted=unpredicted,
    )


def _against_full_width(study: StudyRecord) -> list[tuple[str, str]]:
    """Gives the pairs of a narrow decoder and that of full width which the study does not name itself."""
    return [
        (name, family.control)
        for family in families(study)
        if family.sides == ("decoder",) and family.control is not None
        for name in family.ratios
        if name != family.control and (name, family.control) not in study.contrasts
    ]


def _dice(trials: Mapping[tuple[int, int], tuple[object, ...]], name: str) -> dict[int, Effect]:
    """Gives the Dice of a variant by class index, and with index 0 the mean over classes."""
    runs = {
        pair: read_scores(scores, f"{name}.fold_{pair[0]}.seed_{pair[1]}")  # type: ignore[arg-type]
        for pair, scores in trials.items()
    }
    classes = next(iter(runs.values())).classes
    found = {}
    for index, rows in [(0, slice(None)), *((index, slice(row, row + 1)) for row, (index, _) in enumerate(classes))]:
        tables = []
        for fold in sorted({fold for fold, _ in runs}):
            of_fold = [run for pair, run in sorted(runs.items()) if pair[0] == fold]
            values = np.stack([run.values["dice"][rows] for run in of_fold])[None]
            means, scored = patient_means(values, of_fold[0].patients)
            if scored.any():
                tables.append(means[0])
        if tables:
            effect = estimate_effect(tables)
            # A t interval over three runs of which one failed reaches where no Dice can be.
            possible = None if effect.ci95 is None else (max(0.0, effect.ci95[0]), min(1.0, effect.ci95[1]))
            found[index] = replace(effect, ci95=possible)
    return found


def _convergence(records: Records, device: DeviceSpeed | None) -> dict[str, Convergence]:
    """Measures convergence; the time of a step is the median of the device that the recommendation is for."""
    curves = {
        name: by_pair
        for name in records.study.names
        if (by_pair := {trial.pair: trial.curve for trial in records.finished(name) if trial.curve is not None})
    }
    steps = {name: step_seconds(device, name) for name in curves}
    known = {name: seconds for name, seconds in steps.items() if seconds is not None}
    return {one.variant: one for one in convergence(curves, records.study.baseline, step_seconds=known)}


def step_seconds(device: DeviceSpeed | None, name: str) -> float | None:
    """Gives the measured time of one training step, in s; None where it was not measured."""
    spread = device.spread(name, "training_step_ms") if device is not None else None
    return None if spread is None else spread[0] / 1000
