"""An evaluation as a table for people."""

from __future__ import annotations

from seg.evaluation.scores import Evaluation, Interval, MetricSummary

_COLUMNS = (("Dice", "dice", 4), ("IoU", "iou", 4), ("HD95 mm", "hd95_mm", 2), ("NSD", "nsd", 4))


def format_evaluation(evaluation: Evaluation) -> str:
    """Lays out a summary as text, one row for each class.

    Args:
        evaluation: The summary.

    Returns:
        Lines of text: a table of means with the interval of Dice, then what was left out of the means and of all.
    """
    header = ["class", "Dice", "95 % CI", *(title for title, _, _ in _COLUMNS[1:]), "volume ml"]
    rows = [header]
    for entry in evaluation.classes:
        dice = entry.metrics["dice"]
        means = [_number(entry.metrics[metric].mean, digits) for _, metric, digits in _COLUMNS]
        volume = _number(entry.metrics["volume_difference_ml"].mean, 3, sign=True)
        rows.append([entry.name, means[0], _interval(dice.ci95), *means[1:], volume])
    rows.append(["mean", _number(evaluation.mean_dice, 4), _interval(evaluation.mean_dice_ci95), "", "", "", ""])
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    lines = [
        "  ".join(cell.ljust(width) if column == 0 else cell.rjust(width) for column, (cell, width) in cells).rstrip()
        for cells in (list(enumerate(zip(row, widths, strict=True))) for row in rows)
    ]
    lines.append(
        f"{_count(evaluation.num_cases, 'case')} of {_count(evaluation.num_patients, 'patient')}; "
        f"NSD at {evaluation.nsd_tolerance_mm:g} mm; volume is prediction less reference"
    )
    for entry in evaluation.classes:
        lines.extend(_left_out(entry.name, entry.metrics["hd95_mm"]))
    lines.extend(f"not scored: {problem}" for problem in evaluation.left_out)
    return "\n".join(lines)


def _count(number: int, noun: str) -> str:
    """Writes a number with its noun."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _number(value: float | None, digits: int, *, sign: bool = False) -> str:
    """Writes a mean, or a dash where there is none."""
    if value is None:
        return "-"
    return f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}"


def _interval(interval: Interval | None) -> str:
    """Writes an interval, or a dash where there is none."""
    return "-" if interval is None else f"{interval[0]:.4f}-{interval[1]:.4f}"


def _left_out(name: str, hd95: MetricSummary) -> list[str]:
    """Says how many cases of a class have an empty mask, and what that does to its means."""
    lines = []
    if hd95.infinite:
        lines.append(
            f"{name}: one mask empty in {_count(hd95.infinite, 'case')} (Dice 0; HD95 infinite, left out of its mean)"
        )
    if hd95.nan:
        lines.append(f"{name}: both masks empty in {_count(hd95.nan, 'case')} (left out of every mean)")
    return lines
