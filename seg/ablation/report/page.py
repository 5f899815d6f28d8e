"""What the page and the Markdown of a report say, and the page itself."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from seg.ablation.report import plots
from seg.ablation.report.analysis import Analysis
from seg.ablation.report.cases import CasePicture, case_differences, chosen_cases, embedded, shown_variant
from seg.ablation.report.compare import Evidence
from seg.ablation.report.frame import device_label
from seg.ablation.report.templating import environment, markdown_environment
from seg.ablation.report.views import Estimates
from seg.figures.html import content_policy

NEAR_MARGINS = 3
"""Margins below which a deciding bound is no longer near."""
WORST_ROWS = 5
"""Cases in the table of the largest losses."""
LINKED = ("trials.csv", "cases.csv", "curves.csv", "preservation.csv", "speed.json", "provenance.json", "study.yaml")
"""Files of a published study that a report links."""

ReportContent = dict[str, Any]
"""What the templates of a report are given."""


def make_report(
    analysis: Analysis,
    frame: pd.DataFrame,
    study_dir: Path,
    case_pictures: Sequence[CasePicture],
    evidence: Mapping[str, Evidence],
) -> ReportContent:
    """Gathers what a report shows.

    Args:
        analysis: The analysis.
        frame: The table of estimates.
        study_dir: The study directory, for links.
        case_pictures: Pictures of cases.
        evidence: Evidence from several studies by variant.
    """
    results, study, labels = analysis.results, analysis.results.study, analysis.labels
    devices = [device_label(device) for device in results.devices]
    found = Estimates(frame, labels, devices)
    differences = found.intervals("dice_difference")
    speeds = [found.values("latency_ratio", device) for device in devices]
    variant = shown_variant(analysis)
    cases = case_differences(analysis, variant) if variant else pd.DataFrame()
    by_class = {name: found.intervals("dice_difference", name) for name in study.class_names[1:]}
    drawn = cases["case"].isin([picture.case for picture in case_pictures]) if variant else ()
    recommended = analysis.recommended
    first = analysis.recommendations[0] if recommended else None
    least = -NEAR_MARGINS * study.margin
    near = {
        name: verdict.bound
        for name, verdict in analysis.verdicts.items()
        if verdict.together == "undecided" and verdict.bound is not None and verdict.bound > least
    }
    return {
        "study": study,
        "results": results,
        "analysis": analysis,
        "labels": labels,
        "recommended": recommended,
        "keep_baseline": first is not None and first.speedup is not None and first.speedup <= 1,
        "nearest": sorted(near.items(), key=lambda pair: -pair[1])[:3],
        "snippet": _snippet(next(one.changes for one in study.variants if one.name == recommended)) if first else "",
        "evidence": evidence.get(recommended or ""),
        "devices": devices,
        "cell": found.cell,
        "values": found.values,
        "tables": {
            "main": found.table("main"),
            "classes": found.table("classes", by="class_name"),
            "speed": found.table("speed"),
            "convergence": found.table("convergence"),
            "preservation": found.table("preservation", by="place"),
        },
        "pictures": {
            "forest": plots.forest(labels, differences, analysis.verdicts, speeds[0] if speeds else {}, study.margin),
            "classes": plots.classes(labels, {name: each for name, each in by_class.items() if each}, study.margin),
            "cases": plots.case_differences(cases, labels[variant].text, list(chosen_cases(cases)))
            if variant
            else None,
            "convergence": plots.convergence(labels, results.curves[results.curves.metric == "val_dice"]),
        },
        "pareto": [
            plots.pareto(labels, differences, speed, device, study.margin, f"pareto_{number}")
            for number, (device, speed) in enumerate(zip(devices, speeds, strict=True))
        ],
        "cases_of": labels[variant] if variant else None,
        "worst": list(cases[(cases.index < WORST_ROWS) | drawn].itertuples()) if variant else [],
        "case_pictures": case_pictures,
        "files": [file for file in LINKED if (study_dir / file).is_file()],
    }


def _snippet(changes: Mapping[str, Any]) -> str:
    """Formats values by dotted path as the sections of a configuration, in YAML."""
    nested: dict[str, Any] = {}
    for path, value in changes.items():
        *sections, last = path.split(".")
        at = nested
        for section in sections:
            at = at.setdefault(section, {})
        at[last] = json.loads(json.dumps(value))
    return yaml.safe_dump(nested, sort_keys=False, default_flow_style=None, allow_unicode=True).rstrip()


def to_html(report: ReportContent, study_dir: Path) -> str:
    """Formats the page: one file that needs no network, whose content policy runs this package's script alone."""
    made = environment(autoescape=True)
    css, script = (made.loader.get_source(made, name)[0] for name in ("report.css", "report.js"))  # type: ignore[union-attr]
    policy = content_policy(css, script)
    photos = [(picture, embedded(study_dir / "figures" / picture.file)) for picture in report["case_pictures"]]
    return made.get_template("report.html.j2").render(report, css=css, script=script, policy=policy, photos=photos)


def to_markdown(report: ReportContent) -> str:
    """Formats the report as Markdown: short, and safe also where Markdown lets HTML through."""
    text = markdown_environment().get_template("report.md.j2").render(report)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"
