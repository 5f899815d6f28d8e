"""The command `widths`: how many channels each feature map of a trained network needs, and what fewer save."""

from __future__ import annotations

import json
import logging
import math
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from seg.compression import CASES
from seg.compression.calibration import predict_maps, scaled
from seg.compression.drawing import draw_curve, draw_network
from seg.compression.narrowing import Saving, time_narrowing
from seg.compression.original import check_finds, check_uncut, predicted, training_cases, window
from seg.compression.sites import (
    DICE_FOR_NATS,
    Curve,
    Site,
    find_sites,
    widths_together,
    with_widths,
)
from seg.config import NetworkConfig
from seg.config.study import MARGIN
from seg.data.cases import Dataset
from seg.data.splits import Split, spread_over
from seg.errors import ConfigError, Problem
from seg.figures.html import content_policy, template_engine
from seg.files import (
    check_folder,
    file_problems,
    table_text,
    working_in,
    write_json,
    write_text,
)
from seg.hardware import processor_name
from seg.networks import UNet, complexity
from seg.runs import (
    CONFIG_FILE,
    TrainedRun,
    check_task,
    read_run,
)
from seg.words import NOT_MEASURED, aligned, counted, significant
from seg.workflows.inputs import read_checked

LOG = logging.getLogger(__name__)
WIDTHS_FILE, TABLE_FILE, PAGE_FILE = "widths.json", "widths.csv", "widths.html"
POINTS_FILE, NETWORK_FILE = "points.yaml", "network.yaml"
LOCK_FILE = "widths.lock"
"""There while a process works on the files."""
WIDTHS_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Row:
    """A map in the tables.

    Attributes:
        curve: The Dice that it is predicted to lose, by its width.
        alone: Narrowest safe width where it alone is narrowed.
        together: The same where all maps of its kind are narrowed at once.
        saving: What the narrowest width saves; None is not measured.
    """

    curve: Curve
    alone: int
    together: int
    saving: Saving | None

    @property
    def site(self) -> Site:
        """The feature map or kernel whose widths this row of the table lists."""
        return self.curve.site

    def ends(self, width: int) -> tuple[float, float, float]:
        """Returns the predicted loss at a width and its interval, of the class of the highest upper end."""
        at, worst = self.curve.at(width), self.curve.worst(width)
        return tuple(float(part[at, worst]) for part in (self.curve.lost, self.curve.low, self.curve.high))  # type: ignore[return-value]


@dataclass(frozen=True, kw_only=True)
class Point:
    """A network that can be trained from scratch.

    Attributes:
        name: Its name among the points of a study.
        about: What it is.
        network: Its configuration.
        macs: Multiply-accumulates of a patch.
        parameters: Learned numbers.
        lost: Largest sum over classes of the losses predicted place by place.
    """

    name: str
    about: str
    network: NetworkConfig
    macs: int
    parameters: int
    lost: float


@dataclass(frozen=True, kw_only=True)
class Findings:
    """All that the command found.

    Attributes:
        run: The run.
        cases: Training cases that were measured.
        patients: How many patients they are of.
        factor: Dice that some cuts lost over what was predicted, by which all losses are multiplied.
        checked: Cases on which that was measured.
        margin: Loss of Dice that counts as safe.
        maps: Feature maps, skips and upsampled maps.
        kernels: What full kernels read and write.
        points: Networks to train from scratch.
        macs: Multiply-accumulates of a patch of the run's network.
        parameters: Its learned numbers.
        machine: Where times were taken; None where they were not.
    """

    run: TrainedRun
    cases: Sequence[str]
    patients: int
    factor: float
    checked: int
    margin: float
    maps: Sequence[Row]
    kernels: Sequence[Row]
    points: Sequence[Point]
    macs: int
    parameters: int
    machine: str | None


@file_problems()
def find_widths(
    run_dir: Path,
    output: Path | None = None,
    *,
    margin: float = MARGIN,
    cases: int = CASES,
    timing: bool = True,
    data_root: Path | None = None,
) -> Findings:
    """Predicts what each map of a trained network loses by its width, and writes tables, a page and study points.

    Training cases alone are looked at, one window each, that with the most foreground.

    Args:
        run_dir: Finished run.
        output: Folder of the files, which are replaced; None is ``widths`` in the run directory.
        margin: Loss of Dice of a class that counts as safe, in (0, 1).
        cases: Training cases that are measured, >= 2.
        timing: Whether the milliseconds that narrow maps save are measured.
        data_root: Folder of the data set; None is that of the run.

    Raises:
        ConfigError: The cases are of fewer than two patients.
        RunError: The run is not finished, has no record of its cases, is compressed already or finds no class, or a
            file cannot be written.
        DataError: Cases cannot be read.
    """
    target = run_dir / "widths" if output is None else output
    check_folder(target)
    run, split, dataset, network = read_trained(run_dir, data_root)
    with working_in(target, LOCK_FILE, (WIDTHS_FILE, TABLE_FILE, PAGE_FILE, POINTS_FILE, NETWORK_FILE)):
        findings = _find(run, split, dataset, network, margin=margin, cases=cases, timing=timing)
        write_findings(findings, target)
    print(format_rows(findings))
    print(f"page: {target / PAGE_FILE}")
    if findings.points[0].network != run.config.network:
        whole, narrow = (shlex.quote(str(path)) for path in (run_dir / CONFIG_FILE, target / NETWORK_FILE))
        print(f"next: seg train --config {whole} --config {narrow} --run_dir NEW_RUN")
    print(f"or cut the trained network: seg compress --run_dir {shlex.quote(str(run_dir))} --output SMALLER")
    return findings


def read_trained(run_dir: Path, data_root: Path | None = None) -> tuple[TrainedRun, Split, Dataset, UNet]:
    """Reads a finished run of one fold without 1x1 around its kernels, with its cases, data set and network.

    Args:
        run_dir: The run directory.
        data_root: Folder of the data set; None is that of the run.

    Returns:
        The run, with the folder where its data set lies now; its two sides; the data set; and the network.

    Raises:
        RunError: It is something else, there is no record of its cases, or the data set is not its own.
        DataError: Cases are faulty.
    """
    run = read_run(run_dir)
    _, split = check_uncut(run)
    if data_root is not None:
        run = replace(run, config=replace(run.config, data=replace(run.config.data, root=str(data_root))))
    dataset, _ = read_checked(run.config.data, progress=run.config.training.progress)
    check_task(
        run_dir,
        channel_names=dataset.channel_names,
        class_names=dataset.class_names,
        source=run.config.data.root,
        remedy="it is another data set, check --data.root",
    )
    return run, split, dataset, run.network()


def _find(
    run: TrainedRun, split: Split, dataset: Dataset, network: UNet, *, margin: float, cases: int, timing: bool
) -> Findings:
    config = run.config
    trained_on = training_cases(split, dataset)
    chosen = spread_over(trained_on, cases)
    patients = [case.patient_or_id for case in chosen]
    if len(set(patients)) < 2:
        rule = "must be of two patients at least, for an interval"
        gone = len(trained_on) < len(split.train)
        remedy = "it is another data set, check --data.root" if gone else "measure more cases"
        raise ConfigError(Problem("cases", "patients", rule, counted(len(chosen), "case"), remedy))
    sites = find_sites(network)
    LOG.info("measuring %d maps on %s", len(sites), counted(len(chosen), "training case"))
    windows = [window(case, config, dataset.ignore_label) for case in chosen]
    check_finds(run, predicted(network, [image for image, _ in windows])[1])
    found = predict_maps(network, sites, windows, patients, margin=margin, seed=config.seed)
    curves = found.curves
    if few := [name for name, high in zip(run.class_names[1:], curves[0].high[0], strict=True) if math.isinf(high)]:
        LOG.warning("no width is safe for %s: found in fewer than two patients; measure more cases", ", ".join(few))
    LOG.info("Dice lost over what is predicted, of trial cuts: %.3g", found.factor)
    rows = _rows(run, [scaled(curve, found.factor) for curve in curves], margin, timing)
    narrow, kernels = ([row for row in rows if (row.site.part == "kernel") == which] for which in (False, True))
    whole = complexity(*_ends(run), config.network, shape=config.patches.size)
    return Findings(
        run=run,
        cases=[case.id for case in chosen],
        patients=len(set(patients)),
        factor=found.factor,
        checked=found.checked,
        margin=margin,
        maps=narrow,
        kernels=kernels,
        points=_points(run, narrow, kernels),
        macs=whole.macs,
        parameters=whole.parameters,
        machine=f"{processor_name()}, {counted(torch.get_num_threads(), 'thread')}, torch, fp32" if timing else None,
    )


def _ends(run: TrainedRun) -> tuple[int, int]:
    """Counts the channels of an image and the classes, background included: the two ends of the run's network."""
    return len(run.channel_names), len(run.class_names)


def _rows(run: TrainedRun, curves: Sequence[Curve], margin: float, timing: bool) -> list[Row]:
    """Finds safe widths and, where they are timed, what they save."""
    config = run.config
    kinds = [[c for c in curves if (c.site.part == "kernel") == kernels] for kernels in (False, True)]
    together = widths_together(kinds[0], margin) | widths_together(kinds[1], margin)
    rows = []
    narrowed = [curve for curve in curves if curve.safe(margin) < curve.site.channels]
    if timing and narrowed:
        LOG.info("timing %s", counted(len(narrowed), "narrower map"))
    for curve in curves:
        alone, saving = curve.safe(margin), None
        if timing and alone < curve.site.channels:
            narrow = with_widths(config.network, {curve.site: alone})
            saving = time_narrowing(*_ends(run), config.network, narrow, config.patches.size)
        rows.append(Row(curve=curve, alone=alone, together=together[curve.site.name], saving=saving))
    return rows


def _points(run: TrainedRun, maps: Sequence[Row], kernels: Sequence[Row]) -> list[Point]:
    """Returns the networks that safe widths make."""
    config = run.config
    wanted = {
        "maps": ("all feature maps narrowed; their losses add up to the margin", maps, "together"),
        "kernels": ("linear 1x1 around the full kernels; their losses add up to the margin", kernels, "together"),
        "maps_alone": (
            "all feature maps at the width that is safe for each alone; their losses may add up beyond the margin",
            maps,
            "alone",
        ),
    }
    points = []
    for name, (about, chosen, which) in wanted.items():
        widths = {row.site: getattr(row, which) for row in chosen}
        smaller = with_widths(config.network, widths)
        cost = complexity(*_ends(run), smaller, shape=config.patches.size)
        lost = sum(np.nan_to_num(row.curve.lost[row.curve.at(widths[row.site])]) for row in chosen)
        point = Point(
            name=name,
            about=about,
            network=smaller,
            macs=cost.macs,
            parameters=cost.parameters,
            lost=float(np.max(lost, initial=0.0)),
        )
        points.append(point)
    return points


def write_findings(findings: Findings, output: Path) -> None:
    """Writes the tables, the page and the points of a study. Files that are there are replaced."""
    output.mkdir(parents=True, exist_ok=True)
    classes = findings.run.class_names[1:]
    rows = [*findings.maps, *findings.kernels]
    write_json(output / WIDTHS_FILE, to_record(findings))
    table = [
        {
            "place": row.site.name,
            "part": row.site.part,
            "stage": row.site.stage,
            "channels": row.site.channels,
            "width": width,
            "class": name,
            "dice_lost": f"{row.curve.lost[at, number]:.6g}",
            "low": f"{row.curve.low[at, number]:.6g}",
            "high": f"{row.curve.high[at, number]:.6g}",
            "safe": int(width >= row.alone),
        }
        for row in rows
        for at, width in enumerate(row.curve.widths)
        for number, name in enumerate(classes)
    ]
    write_text(output / TABLE_FILE, table_text(table))
    write_text(output / POINTS_FILE, points_yaml(findings))
    write_text(output / NETWORK_FILE, _yaml({"network": _plain(findings.points[0].network)}))
    write_text(output / PAGE_FILE, to_html(findings))


def to_record(findings: Findings) -> dict[str, Any]:
    """Returns the content of ``widths.json``; null stands for a bound of an interval that is not known."""
    return {
        "schema_version": WIDTHS_VERSION,
        "run": findings.run.description(),
        "class_names": list(findings.run.class_names),
        "cases": list(findings.cases),
        "patients": findings.patients,
        "margin": findings.margin,
        "dice_for_nats": DICE_FOR_NATS * findings.factor,
        "calibration": {"factor": findings.factor, "cases": findings.checked},
        "macs": findings.macs,
        "parameters": findings.parameters,
        "machine": findings.machine,
        "places": [
            {
                "name": row.site.name,
                "part": row.site.part,
                "stage": row.site.stage,
                "module": row.site.module,
                "form": row.site.form,
                "channels": row.site.channels,
                "safe_alone": row.alone,
                "safe_together": row.together,
                "milliseconds": None if row.saving is None else asdict(row.saving),
                "widths": list(row.curve.widths),
                "dice_lost": _finite(row.curve.lost),
                "low": _finite(row.curve.low),
                "high": _finite(row.curve.high),
            }
            for row in (*findings.maps, *findings.kernels)
        ],
        "points": [
            {
                "name": point.name,
                "macs": point.macs,
                "parameters": point.parameters,
                "dice_lost": point.lost,
                "network": changes(findings.run.config.network, point.network),
            }
            for point in findings.points
        ],
    }


def _finite(values: np.ndarray) -> list[list[float | None]]:
    return [[value if math.isfinite(value) else None for value in row] for row in values.tolist()]


def changes(network: NetworkConfig, other: NetworkConfig) -> dict[str, Any]:
    """Returns the fields in which another network differs from a network, with its values."""
    before, after = _plain(network), _plain(other)
    return {name: value for name, value in after.items() if value != before[name]}


def _plain(network: NetworkConfig) -> dict[str, Any]:
    """Returns a network's fields as plain values; widths that are not given are left out."""
    fields: dict[str, Any] = json.loads(json.dumps(asdict(network)))
    if fields["widths"] is not None:
        fields["widths"] = {name: value for name, value in fields["widths"].items() if value is not None}
    return fields


def points_yaml(findings: Findings) -> str:
    """Formats the points that differ from the run and from one another, as the file of a study takes them."""
    lines, seen = [], [findings.run.config.network]
    for point in findings.points:
        share = f"{point.about}; {point.macs / findings.macs:.0%} of the multiply-accumulates"
        if point.network in seen:
            lines.append(f"# {point.name}, {share}: the same again")
            continue
        seen.append(point.network)
        fields = {
            f"network.{name}": value for name, value in changes(findings.run.config.network, point.network).items()
        }
        lines += [f"# {share}", _yaml([{"name": point.name, "set": fields}]).rstrip()]
    return "\n".join(lines) + "\n"


def _yaml(content: object) -> str:
    return str(yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=100))


def to_html(findings: Findings) -> str:
    """Formats the page: one file that needs no network and runs no script."""
    made = template_engine("seg.compression")
    made.filters["significant"] = significant
    sheets = [made.loader.get_source(made, name)[0] for name in ("report.css", "widths.css")]  # type: ignore[union-attr]
    css = "".join(sheets)
    config = findings.run.config
    grids, grid = [], list(config.patches.size)
    for stride in config.network.strides:
        grid = [n // s for n, s in zip(grid, stride, strict=True)]
        grids.append(grid)
    every = [*findings.maps, *findings.kernels]
    network = draw_network(
        [row.site for row in findings.maps],
        {row.site.name: row.alone for row in findings.maps},
        {row.site.name: row.together for row in findings.maps},
        grids,
    )
    return made.get_template("widths.html.j2").render(
        f=findings,
        css=css,
        policy=content_policy(css),
        network=network,
        curves={row.site.name: draw_curve(row.curve, findings.margin, number) for number, row in enumerate(every)},
        points=points_yaml(findings),
        class_names=findings.run.class_names[1:],
        narrower=[row for row in findings.maps if row.alone < row.site.channels],
        channels=sum(row.site.channels for row in findings.maps),
        needed=sum(row.together for row in findings.maps),
    )


def format_rows(findings: Findings) -> str:
    """Formats the places as a table: widths, what is predicted at the safe one, and milliseconds."""
    table = [["place", "now", "safe", "together", "Dice lost, at most", "ms saved"]]
    for row in (*findings.maps, *findings.kernels):
        lost, _, high = row.ends(row.alone)
        saved = NOT_MEASURED if row.saving is None else f"{row.saving.saved_ms:.2f}"
        saved = "-" if row.alone == row.site.channels else saved
        widths = map(str, (row.site.channels, row.alone, row.together))
        table.append([row.site.name, *widths, f"{lost:.4f}, {high:.4f}", saved])
    about = f"predicted widths; safe: less than {findings.margin:g} Dice lost in every class, at 97.5 %"
    lines = [about, aligned(table, right=range(1, 6))]
    for point in findings.points:
        share = f"{point.macs / findings.macs:.0%} of the work, {point.parameters:,} parameters"
        lines.append(f"point {point.name}: {share}; {point.about}")
    return "\n".join(lines)
