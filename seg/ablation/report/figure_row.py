"""One figure of a report, a row of results.csv."""

from __future__ import annotations

from dataclasses import dataclass

from seg.ablation.report.numbers import NOT_MEASURED

LEFT_OUT = "left out"
"""Stands where a figure was measured and means nothing, such as a distance where spacing is nominal."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One figure of one variant or of the law; the columns of ``results.csv``.

    Attributes:
        variant: The variant; empty for the law, which goes over variants.
        metric: What was measured.
        class_index: The class; empty where the figure is a mean over classes or of no class.
        class_name: Its name.
        place: Place of a bottleneck, such as ``skip_0``; for the law ``worst``, a path or a stage; empty elsewhere.
        device: The device with its precision and layout; empty where the figure is of no device.
        unit: Unit of the value; 1 for a ratio or a count.
        value: The figure, ``not measured``, or ``left out``; yes and no are 1 and 0.
        low: Lower end of the interval; empty without one.
        high: Upper end.
        interval: ``ci95``, ``iqr``, or ``at_most`` where the value is an upper bound; empty without one.
        num_patients: Patients behind it; empty where they do not count.
        num_runs: Training runs behind it, or pairs of them for a difference; empty where they do not count.
    """

    variant: str
    metric: str
    class_index: int | str = ""
    class_name: str = ""
    place: str = ""
    device: str = ""
    unit: str = "1"
    value: float | int | str
    low: float | str = ""
    high: float | str = ""
    interval: str = ""
    num_patients: int | str = ""
    num_runs: int | str = ""


def known(value: float | int | None) -> float | int | str:
    """Gives a value, or says that it was not measured."""
    return NOT_MEASURED if value is None else value
