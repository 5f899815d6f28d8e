"""Tables of a report, as views of the table of estimates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from seg.ablation.report.frame import LEFT_OUT
from seg.ablation.report.labels import Label
from seg.ablation.report.metrics import Metric, of_table
from seg.words import NOT_MEASURED


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column: a metric, on a device where it is measured on devices.

    Attributes:
        metric: The metric.
        device: Number of the device; None for a metric without.
    """

    metric: Metric
    device: int | None


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A cell.

    Attributes:
        text: The value; ``not measured`` where there is none.
        note: Its interval; empty without one.
        sort: What the column is sorted by; None comes last.
    """

    text: str
    note: str = ""
    sort: float | None = None


@dataclass(frozen=True, kw_only=True)
class TableRow:
    """A row.

    Attributes:
        label: The variant.
        of: Class or place of the row; empty for the whole variant.
        cells: A cell for each column.
    """

    label: Label
    of: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True, kw_only=True)
class TableView:
    """A table.

    Attributes:
        columns: Columns that have a value in some row.
        rows: Rows, in the order of labels.
        absent: Headings of columns of which nothing was measured.
    """

    columns: tuple[Column, ...]
    rows: tuple[TableRow, ...]
    absent: tuple[str, ...]


def view(
    frame: pd.DataFrame, labels: Mapping[str, Label], table: str, devices: Sequence[str], *, by: str = ""
) -> TableView:
    """Makes a table of the metrics that name it in the registry.

    Args:
        frame: The table of estimates.
        labels: Labels of the variants, in the order of rows.
        table: Name of the table in the registry.
        devices: Names of the devices.
        by: ``class_name`` or ``place`` for a row for each of them; empty for a row for each variant.
    """
    metrics = of_table(table)
    own = frame[frame["metric"].isin([metric.name for metric in metrics])]
    found: dict[tuple[str, str, str, str], Any] = {
        (row.variant, row.metric, row.device, getattr(row, by) if by else row.class_name + row.place): row
        for row in own.itertuples()
    }
    groups = [group for group in dict.fromkeys(own[by]) if group] if by else [""]
    columns = [
        Column(metric=metric, device=device)
        for metric in metrics
        for device in (range(len(devices)) if metric.per_device else (None,))
    ]

    def cell(column: Column, name: str, group: str) -> Cell:
        device = "" if column.device is None else devices[column.device]
        return make_cell(column.metric, found.get((name, column.metric.name, device, group)))

    known = {(key[1], key[2]) for key, row in found.items() if not pd.isna(row.value)}
    kept = [
        column
        for column in columns
        if (column.metric.name, "" if column.device is None else devices[column.device]) in known
    ]
    rows = [
        TableRow(label=label, of=group, cells=tuple(cell(column, name, group) for column in kept))
        for name, label in labels.items()
        for group in groups
    ]
    if by:  # a variant need not have every place
        rows = [row for row in rows if any(cell.sort is not None for cell in row.cells)]
    shown = {column.metric.label for column in kept}
    absent = tuple(dict.fromkeys(column.metric.label for column in columns if column.metric.label not in shown))
    return TableView(columns=tuple(kept), rows=tuple(rows), absent=absent)


def make_cell(metric: Metric, row: Any) -> Cell:
    """Writes an estimate, which may be absent, as a cell."""
    if row is None:
        return Cell(text="")
    if pd.isna(row.value):
        return Cell(text=row.note if row.note == LEFT_OUT else NOT_MEASURED)
    text = ("≤ " if row.interval == "at_most" else "") + metric.write(row.value)
    note = ""
    if row.interval in ("ci95", "iqr") and row.low < row.high:
        note = metric.write_interval(row.low, row.high)
    return Cell(text=text, note=note, sort=float(row.value))


def values(frame: pd.DataFrame, metric: str, *, device: str = "", class_name: str = "") -> dict[str, float]:
    """Returns the measured values of a metric by variant."""
    return {row.variant: float(row.value) for row in _of(frame, metric, device, class_name)}


def intervals(frame: pd.DataFrame, metric: str, *, class_name: str = "") -> dict[str, tuple[float, float, float]]:
    """Returns value, lower and upper end of a metric by variant; without an interval the ends are the value."""
    return {
        row.variant: (float(row.value), *((row.value, row.value) if pd.isna(row.low) else (row.low, row.high)))
        for row in _of(frame, metric, "", class_name)
    }


def _of(frame: pd.DataFrame, metric: str, device: str, class_name: str) -> Iterator[Any]:
    chosen = (frame.metric == metric) & (frame.device == device) & (frame.class_name == class_name)
    yield from frame[chosen & frame["value"].notna()].itertuples()
