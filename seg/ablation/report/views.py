"""Tables of a report, as views of the table of estimates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from seg.ablation.report.frame import LEFT_OUT
from seg.ablation.report.labels import Label
from seg.ablation.report.metrics import BY_NAME, TABLE_COLUMNS, Column
from seg.words import NOT_MEASURED

ValueWithEnds = tuple[float, float, float]
"""A value, and the ends of its interval."""


@dataclass(frozen=True)
class Cell:
    """A cell: its text, its interval (empty without one), and what the column is sorted by (None comes last)."""

    text: str
    note: str = ""
    sort: float | None = None


@dataclass(frozen=True)
class TableView:
    """A table.

    Attributes:
        columns: Metrics with the number of a device (None for a metric without), as far as a row has a value.
        rows: Label, class or place (empty for the whole variant), and a cell for each column.
        absent: Headings of columns of which nothing was measured.
    """

    columns: list[tuple[Column, int | None]]
    rows: list[tuple[Label, str, list[Cell]]]
    absent: list[str]


class Estimates:
    """The table of estimates, looked up by metric, variant, device, and class or place.

    Args:
        frame: What `estimates` gave.
        labels: Labels of the variants, in order.
        devices: Names of the devices.
    """

    def __init__(self, frame: pd.DataFrame, labels: Mapping[str, Label], devices: Sequence[str]) -> None:
        self.labels, self.devices = labels, devices
        self._frame = frame
        self._rows: dict[tuple[str, str, str, str], Any] = {
            (row.metric, row.variant, row.device, row.class_name + row.place): row for row in frame.itertuples()
        }

    def values(self, metric: str, device: str = "") -> dict[str, float]:
        """Returns the measured values of a metric by variant."""
        found = {name: self._rows.get((metric, name, device, "")) for name in self.labels}
        return {name: float(row.value) for name, row in found.items() if row is not None and pd.notna(row.value)}

    def intervals(self, metric: str, class_name: str = "") -> dict[str, ValueWithEnds]:
        """Returns value, lower and upper end of a metric by variant; without an interval the ends are the value."""
        rows = [row for name in self.labels if (row := self._rows.get((metric, name, "", class_name))) is not None]
        return {
            row.variant: (row.value, row.value, row.value) if pd.isna(row.low) else (row.value, row.low, row.high)
            for row in rows
            if pd.notna(row.value)
        }

    def cell(self, metric: str, variant: str, device: str = "", group: str = "") -> Cell:
        """Writes an estimate, which may be absent, as a cell."""
        row, shown = self._rows.get((metric, variant, device, group)), BY_NAME[metric]
        if row is None:
            return Cell("")
        if pd.isna(row.value):
            return Cell(row.note if row.note == LEFT_OUT else NOT_MEASURED)
        interval = row.interval in ("ci95", "iqr") and row.low < row.high
        return Cell(
            text=("≤ " if row.interval == "at_most" else "") + shown.write(row.value),
            note=shown.write_interval(row.low, row.high) if interval else "",
            sort=float(row.value),
        )

    def table(self, name: str, by: str = "") -> TableView:
        """Makes a table of the metrics that name it in the registry.

        Args:
            name: Name of the table in the registry.
            by: ``class_name`` or ``place`` for a row for each of them; empty for a row for each variant.
        """
        columns = [
            (metric, device)
            for metric in TABLE_COLUMNS
            if name in metric.tables.split()
            for device in (range(len(self.devices)) if metric.per_device else [None])
        ]
        frame = self._frame[self._frame.metric.isin([metric.name for metric, _ in columns])]
        groups = [group for group in frame[by].unique() if group] if by else [""]
        rows = []
        for variant, label in self.labels.items():
            for group in groups:
                cells = [
                    self.cell(metric.name, variant, "" if device is None else self.devices[device], group)
                    for metric, device in columns
                ]
                if not by or any(cell.sort is not None for cell in cells):  # a variant need not have every place
                    rows.append((label, group, cells))
        known = [number for number in range(len(columns)) if any(cells[number].sort is not None for *_, cells in rows)]
        shown = {columns[number][0].label for number in known}
        return TableView(
            columns=[columns[number] for number in known],
            rows=[(label, group, [cells[number] for number in known]) for label, group, cells in rows],
            absent=[label for label in dict.fromkeys(metric.label for metric, _ in columns) if label not in shown],
        )
