"""The law: how well each measure of preservation foretells the Dice lost, of whole networks, paths and stages."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from seg.ablation.preservation import MEASURES, LawRow, columns, law_rows, of_trial
from seg.ablation.report.preserved import trial_dice
from seg.ablation.report.study import StudyRecord, VariantRecord
from seg.ablation.report.trials import Records
from seg.ablation.statistics import Correlation, correlate

WORST = "worst"
"""Stands for the worst bottleneck of a trial, where others stand for a path or a stage."""
BOTTLENECKS = ("network.skip_bottleneck", "network.decoder_bottleneck")


@dataclass(frozen=True, kw_only=True)
class Law:
    """How a measure of preservation goes with the Dice lost.

    Attributes:
        measure: The measure.
        where: ``worst``, of the worst bottleneck of each trial; ``skip`` or ``decoder``, of every bottleneck of that
            path; ``stage_0``, ..., of every bottleneck of that stage, 0 at full resolution.
        correlation: The correlation; None where points are too few or do not vary.
        num_points: Points with the measure: trials for ``worst``, else bottlenecks of trials.
    """

    measure: str
    where: str
    correlation: Correlation | None
    num_points: int


def find_laws(records: Records) -> tuple[Law, ...]:
    """Correlates every measure of preservation with the Dice lost; variants are what is resampled.

    Returns:
        Laws of every measure for the worst bottleneck, then for each path, then for each stage that has a bottleneck.
    """
    preservation = {
        (trial.record.variant, *trial.pair): trial.preservation
        for trial in records.trials.values()
        if trial.preservation is not None
    }
    rows = law_rows(preservation, trial_dice(records), find_controls(records.study))
    laws = _laws(of_trial(rows), WORST)
    paths = {row.path for row in rows}
    for path in ("skip", "decoder"):
        laws += _laws(rows, path, path=path) if path in paths else []
    for stage in sorted({row.stage for row in rows}):
        laws += _laws(rows, f"stage_{stage}", stage=stage)
    return tuple(laws)


def find_controls(study: StudyRecord) -> dict[str, str]:
    """Names for each variant the one that has all its other changes and no bottleneck; the baseline where none has.

    A flat network with bottlenecks loses Dice for its channels and for its bottlenecks: the flat one tells them apart.
    """
    plain = {
        json.dumps(dict(variant.changes), sort_keys=True): variant.name
        for variant in study.variants
        if not _without_bottlenecks(variant) ^ variant.changes.keys()
    }
    plain[json.dumps({})] = study.baseline
    controls = {}
    for variant in study.variants:
        others = {path: variant.changes[path] for path in _without_bottlenecks(variant)}
        controls[variant.name] = plain.get(json.dumps(others, sort_keys=True), study.baseline)
    return controls


def _without_bottlenecks(variant: VariantRecord) -> set[str]:
    return {path for path in variant.changes if not path.startswith(BOTTLENECKS)}


def _laws(rows: Sequence[LawRow], where: str, *, path: str | None = None, stage: int | None = None) -> list[Law]:
    laws = []
    for measure in MEASURES:
        known = [row for row in rows if measure in row.measures]
        x, lost, variants = columns(known, measure, path=path, stage=stage)
        # Narrow bottlenecks preserve less and lose more: what a measure tells beyond the width is what is new.
        given = None if measure == "ratio" else columns(known, "ratio", path=path, stage=stage)[0]
        found = correlate(x, lost, clusters=variants, given=given)
        laws.append(Law(measure=measure, where=where, correlation=found, num_points=len(x)))
    return laws
