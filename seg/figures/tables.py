"""The tables of a page: classes over all cases, and classes of one case."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from seg.evaluation import CaseScore, ClassSummary, Evaluation, MetricSummary
from seg.words import counted, fixed


def format_score(value: float | None, digits: int, *, sign: bool = False) -> str:
    """Writes a score; a dash stands for one that does not exist."""
    return fixed(value, digits, sign=sign, absent="\N{EN DASH}")


def format_interval(interval: tuple[float, float] | None) -> str:
    """Writes a 95 % interval."""
    return "no interval" if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}"


def class_table(evaluation: Evaluation) -> str:
    """Gives the table of classes over all cases."""
    caption = (
        "Means over cases; below Dice its 95 % interval, from a bootstrap over patients. "
        f"NSD at {evaluation.nsd_tolerance_mm:g} mm. Volume difference is prediction less reference."
    )
    return _table(("Dice", "HD95 mm", "NSD", "Volume diff. ml"), map(_class_row, evaluation.classes), caption)


def _table(columns: Sequence[str], rows: Iterable[str], caption: str = "") -> str:
    """Gives a table whose first column names classes; it scrolls by itself where a screen is too narrow."""
    heads = "".join(f'<th scope="col">{column}</th>' for column in ("Class", *columns))
    return (
        '<div class="scroll"><table>'
        + (f"<caption>{caption}</caption>" if caption else "")
        + f"<thead><tr>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _class_head(index: int, name: str, note: str = "") -> str:
    """Gives the head of a class's row; its name may break after an underscore."""
    return f'<th scope="row">{index} {escape(name).replace("_", "_<wbr>")}{note}</th>'


def _class_row(entry: ClassSummary) -> str:
    """Gives the row of one class, with what was left out of its means."""
    dice, hd95 = entry.metrics["dice"], entry.metrics["hd95_mm"]
    return (
        f"<tr>{_class_head(entry.index, entry.name, _left_out(hd95))}"
        f"<td>{format_score(dice.mean, 3)}<small>{format_interval(dice.ci95)}</small></td>"
        f"<td>{format_score(hd95.mean, 2)}</td><td>{format_score(entry.metrics['nsd'].mean, 3)}</td>"
        f"<td>{format_score(entry.metrics['volume_difference_ml'].mean, 2, sign=True)}</td></tr>"
    )


def _left_out(hd95: MetricSummary) -> str:
    """Says in how many cases a mask of the class is empty."""
    notes = []
    if hd95.infinite:
        notes.append(f"one mask empty in {counted(hd95.infinite, 'case')}: Dice 0, no HD95")
    if hd95.nan:
        notes.append(f"both masks empty in {counted(hd95.nan, 'case')}: left out")
    return f"<br><small>{'; '.join(notes)}</small>" if notes else ""


def score_table(scores: Sequence[CaseScore]) -> str:
    """Gives the table of one case, a row for each class."""
    rows = map(_score_row, sorted(scores, key=lambda score: score.class_index))
    return _table(("Dice", "HD95 mm", "NSD", "Volume diff. ml", "Ref. ml"), rows)


def _score_row(score: CaseScore) -> str:
    """Gives the scores of one class in one case."""
    values = score.scores
    return (
        f"<tr>{_class_head(score.class_index, score.class_name)}<td>{format_score(values.dice, 3)}</td>"
        f"<td>{format_score(values.hd95_mm, 2)}</td><td>{format_score(values.nsd, 3)}</td>"
        f"<td>{format_score(values.volume_difference_ml, 2, sign=True)}</td>"
        f"<td>{format_score(values.reference_ml, 2)}</td></tr>"
    )
