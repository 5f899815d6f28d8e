"""What the page and the Markdown of a report say, and the page itself."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from seg.ablation.plan import StudyPlan
from seg.ablation.report import plots
from seg.ablation.report.analysis import Analysis
from seg.ablation.report.cases import CasePicture, case_differences, chosen_cases, embedded, shown_variant
from seg.ablation.report.compare import Evidence
from seg.ablation.report.frame import device_label
from seg.ablation.report.labels import Label
from seg.ablation.report.metrics import BY_NAME
from seg.ablation.report.svg import Picture
from seg.ablation.report.templating import environment, markdown_environment
from seg.ablation.report.views import TableView, intervals, values, view
from seg.ablation.statistics import Verdict
from seg.ablation.store import Results
from seg.words import NOT_MEASURED, fixed, significant

FAR = 3
"""Margins below which a deciding bound is no longer near."""
WORST_ROWS = 5
"""Cases in the table of the largest losses."""
LINKED = ("trials.csv", "cases.csv", "curves.csv", "preservation.csv", "speed.json", "provenance.json", "study.yaml")
"""Files of a published study that a report links."""


@dataclass(frozen=True, kw_only=True)
class DeviceFacts:
    """What a device says of the variant on the card; texts, empty where nothing was measured.

    Attributes:
        name: Name of the device.
        network: Speed of the network, times the baseline's.
        files: Speed from file to file.
        memory: Peak memory of the variant and of the baseline, in MiB.
        fastest: Another safe variant that is the fastest on this device; empty where the card's is.
    """

    name: str
    network: str
    files: str
    memory: str
    fastest: str


@dataclass(frozen=True, kw_only=True)
class Card:
    """What to build, and on what grounds.

    Attributes:
        label: The variant; None where no variant is safe.
        keep_baseline: Whether no safe variant is faster than the baseline.
        difference: Difference in mean Dice with its interval.
        verdict: Verdict of the variant.
        macs: Share of the baseline's multiply-accumulates; empty where not counted.
        devices: Speed and memory on each device.
        evidence: Studies behind the variant.
        num_runs: Training runs behind the difference.
        num_patients: Patients behind it.
        snippet: Configuration that builds the variant, as YAML.
        nearest: Where no variant is safe: the labels whose deciding bound comes nearest to the margin, with the bound.
    """

    label: Label | None
    keep_baseline: bool = False
    difference: str = ""
    verdict: Verdict | None = None
    macs: str = ""
    devices: tuple[DeviceFacts, ...] = ()
    evidence: Evidence | None = None
    num_runs: int = 0
    num_patients: int = 0
    snippet: str = ""
    nearest: tuple[tuple[Label, float], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Report:
    """All that a report shows, before it is put into words.

    Attributes:
        study: The plan.
        results: The results.
        analysis: The analysis.
        card: The card.
        devices: Names of the devices.
        tables: Tables by name.
        pictures: Figures by name; None where there is nothing to draw.
        pareto: A figure for each device; None where the device has no speeds.
        cases_of: Variant whose cases are shown; None without a comparison.
        worst: The largest losses, as rows of case, baseline, variant, difference.
        case_pictures: Pictures of cases.
        files: Files of the study that are there to be linked.
    """

    study: StudyPlan
    results: Results
    analysis: Analysis
    card: Card
    devices: tuple[str, ...]
    tables: Mapping[str, TableView]
    pictures: Mapping[str, Picture | None]
    pareto: tuple[Picture | None, ...]
    cases_of: Label | None
    worst: tuple[Any, ...]
    case_pictures: tuple[CasePicture, ...]
    files: tuple[str, ...]


def make_report(
    analysis: Analysis,
    frame: pd.DataFrame,
    study_dir: Path,
    case_pictures: Sequence[CasePicture],
    evidence: Mapping[str, Evidence],
) -> Report:
    """Gathers what a report shows.

    Args:
        analysis: The analysis.
        frame: The table of estimates.
        study_dir: The study directory, for links.
        case_pictures: Pictures of cases.
        evidence: Evidence from several studies by variant.
    """
    results, study, labels = analysis.results, analysis.results.study, analysis.labels
    devices = tuple(map(device_label, results.devices))
    differences = intervals(frame, "dice_difference")
    speeds = [values(frame, "latency_ratio", device=device) for device in devices]
    variant = shown_variant(analysis)
    cases = case_differences(analysis, variant) if variant else pd.DataFrame()
    bounds = {
        name: (verdict.bound, verdict.class_name or "mean")
        for name, verdict in analysis.verdicts.items()
        if verdict.bound is not None
    }
    words = {name: verdict.word for name, verdict in analysis.verdicts.items()}
    by_class = {name: intervals(frame, "dice_difference", class_name=name) for name in study.class_names[1:]}
    curves = results.curves[results.curves.metric == "val_dice"]
    drawn = {
        "forest": plots.forest(labels, differences, bounds, words, speeds[0] if speeds else {}, study.margin),
        "classes": plots.classes(labels, {name: found for name, found in by_class.items() if found}, study.margin),
        "cases": plots.case_differences(cases, labels[variant].text, list(chosen_cases(cases))) if variant else None,
        "convergence": plots.convergence(labels, curves),
    }
    return Report(
        study=study,
        results=results,
        analysis=analysis,
        card=_card(analysis, frame, devices, evidence),
        devices=devices,
        tables={
            "main": view(frame, labels, "main", devices),
            "tests": view(frame, labels, "tests", devices),
            "classes": view(frame, labels, "classes", devices, by="class_name"),
            "speed": view(frame, labels, "speed", devices),
            "convergence": view(frame, labels, "convergence", devices),
            "preservation": view(frame, labels, "preservation", devices, by="place"),
        },
        pictures=drawn,
        pareto=tuple(
            plots.pareto(labels, differences, speed, device, study.margin, f"pareto_{number}")
            for number, (device, speed) in enumerate(zip(devices, speeds, strict=True))
        ),
        cases_of=labels[variant] if variant else None,
        worst=_worst(cases, case_pictures),
        case_pictures=tuple(case_pictures),
        files=tuple(file for file in LINKED if (study_dir / file).is_file()),
    )


def _worst(cases: pd.DataFrame, pictures: Sequence[CasePicture]) -> tuple[Any, ...]:
    """Returns the largest losses, and the other cases that have a picture."""
    if cases.empty:
        return ()
    drawn = cases["case"].isin([picture.case for picture in pictures])
    return tuple(cases[(cases.index < WORST_ROWS) | drawn].itertuples(index=False))


def _card(analysis: Analysis, frame: pd.DataFrame, devices: Sequence[str], evidence: Mapping[str, Evidence]) -> Card:
    study, name = analysis.results.study, analysis.recommended
    if name is None:
        near = [
            (analysis.labels[variant], verdict.bound)
            for variant, verdict in analysis.verdicts.items()
            if verdict.bound is not None and verdict.together == "undecided" and verdict.bound > -FAR * study.margin
        ]
        return Card(label=None, nearest=tuple(sorted(near, key=lambda pair: -pair[1])[:3]))
    effect = analysis.comparisons[name].dice.effect
    changes = next(variant.changes for variant in study.variants if variant.name == name)
    macs = values(frame, "macs")
    first = analysis.recommendations[0]
    return Card(
        label=analysis.labels[name],
        keep_baseline=first.speedup is not None and first.speedup <= 1,
        difference=_difference(frame, name),
        verdict=analysis.verdicts[name],
        macs=f"{100 * macs[name] / macs[study.baseline]:.0f} %" if {name, study.baseline} <= set(macs) else "",
        devices=tuple(_device_facts(analysis, frame, name, number, device) for number, device in enumerate(devices)),
        evidence=evidence.get(name),
        num_runs=effect.num_runs if effect else 0,
        num_patients=effect.num_patients if effect else 0,
        snippet=yaml.safe_dump(_nested(changes), sort_keys=False, default_flow_style=None, allow_unicode=True).rstrip(),
    )


def _difference(frame: pd.DataFrame, name: str) -> str:
    metric = BY_NAME["dice_difference"]
    middle, low, high = intervals(frame, "dice_difference")[name]
    return f"{metric.write(middle)} ({metric.write_interval(low, high)})"


def _device_facts(analysis: Analysis, frame: pd.DataFrame, name: str, number: int, device: str) -> DeviceFacts:
    found = {
        metric: values(frame, metric, device=device)
        for metric in ("latency_ratio", "prediction_ratio", "peak_memory_inference_mib")
    }
    memory = found["peak_memory_inference_mib"]
    baseline = analysis.baseline
    fastest = analysis.recommendations[number].fastest
    return DeviceFacts(
        name=device,
        network=fixed(found["latency_ratio"].get(name), 2),
        files=fixed(found["prediction_ratio"].get(name), 2),
        memory=f"{significant(memory[name])} MiB, baseline {significant(memory[baseline])}"
        if {name, baseline} <= set(memory)
        else NOT_MEASURED,
        fastest="" if fastest in (name, None) else analysis.labels[fastest].text,
    )


def _nested(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Turns values by dotted path into the sections of a configuration."""
    nested: dict[str, Any] = {}
    for path, value in changes.items():
        *sections, last = path.split(".")
        at = nested
        for section in sections:
            at = at.setdefault(section, {})
        at[last] = json.loads(json.dumps(value))
    return nested


def to_html(report: Report, study_dir: Path) -> str:
    """Writes the page: one file that needs no network, whose content policy runs this package's script alone."""
    made = environment(autoescape=True)
    css, script = (made.loader.get_source(made, name)[0] for name in ("report.css", "report.js"))  # type: ignore[union-attr]
    policy = (
        f"default-src 'none'; img-src data:; style-src {_digest(css)}; script-src {_digest(script)}; "
        "base-uri 'none'; form-action 'none'"
    )
    photos = [(picture, embedded(study_dir / "figures" / picture.file)) for picture in report.case_pictures]
    return made.get_template("report.html.j2").render(
        report=report, css=css, script=script, policy=policy, photos=photos
    )


def to_markdown(report: Report) -> str:
    """Writes the report as Markdown: short, and safe also where Markdown lets HTML through."""
    text = markdown_environment().get_template("report.md.j2").render(report=report)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
