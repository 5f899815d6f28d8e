"""What a report says, for other programs: results.json."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from seg.ablation.report.analysis import Analysis
from seg.ablation.report.figure_row import LEFT_OUT
from seg.ablation.report.further import Contrast
from seg.ablation.report.lead import lead, per_device
from seg.ablation.report.numbers import NOT_MEASURED
from seg.ablation.report.onset import onset
from seg.ablation.report.rows import to_rows
from seg.ablation.statistics import MetricEffect

SCHEMA_VERSION = 1


def to_json(analysis: Analysis) -> dict[str, Any]:
    """Gives recommendations, missing trials, ranks, the law, safe widths and the rows of results.csv as strict JSON."""
    records, ranks = analysis.records, analysis.ranks
    return {
        "schema_version": SCHEMA_VERSION,
        "study": records.study.name,
        "baseline": analysis.baseline,
        "margin": records.study.margin,
        "sentence": lead(analysis),
        "sentences_of_further_devices": list(per_device(analysis)),
        "sentence_of_onset": " ".join(onset(analysis)) or None,
        "recommendations": [
            {"device": device or None, **asdict(one)}
            for device, one in zip(
                [device.label for device in records.speed] or [""], analysis.recommendations, strict=False
            )
        ],
        "contrasts": [_contrast(one) for one in analysis.contrasts],
        "missing_trials": [asdict(trial) for trial in records.missing],
        "ranks": None
        if ranks is None
        else {
            "probability": {name: list(shares) for name, shares in ranks.probability.items()},
            "mean_kendall_tau": ranks.mean_tau,
            "left_out": list(ranks.left_out),
        },
        "law": [
            {
                "measure": law.measure,
                "where": law.where,
                "num_points": law.num_points,
                "correlation": None if law.correlation is None else asdict(law.correlation),
            }
            for law in analysis.laws
        ],
        "safe_widths": [asdict(one) for one in analysis.predictions],
        "figures": [
            {
                key: None if value in ("", NOT_MEASURED, LEFT_OUT) else _strict(value)
                for key, value in asdict(row).items()
            }
            for row in to_rows(analysis)
        ],
    }


def _contrast(one: Contrast) -> dict[str, Any]:
    """Gives the differences of a contrast, of the mean over classes and of each class."""
    found = one.found
    return {
        "variant": one.variant,
        "against": one.against,
        "dice": _difference(found.dice) if found else None,
        "classes": {each.name: _difference(each.dice) for each in found.by_class} if found else {},
    }


def _difference(one: MetricEffect) -> dict[str, Any] | None:
    effect = one.effect
    if effect is None:
        return None
    return {"difference": effect.difference, "ci95": effect.ci95, "num_runs": effect.num_runs}


def _strict(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
