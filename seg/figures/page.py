"""The page of an evaluation: all cases with their Dice, and pictures of some, in one HTML file that needs no other."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt

from seg.evaluation.metrics import METRICS
from seg.evaluation.scores import CaseScore, Evaluation
from seg.figures.cases import (
    CaseFiles,
    CaseView,
    draw_slices,
    fullest_slices,
    legend,
    read_case,
    to_png,
    visible_box,
)
from seg.figures.html import content_policy, template_engine
from seg.figures.ranking import Ranking, rank_cases
from seg.files import write_text
from seg.words import fixed

PAGE_FILE = "cases.html"
UNKNOWN = "not stated"
WORST = 3
"""Number of cases drawn from the lower end of the ranking, beside the median and the best."""
SHOWN_METRICS = ("hd95_mm", "nsd", "volume_difference_ml")
"""Scores that have a column of their own beside Dice."""


@dataclass(frozen=True, kw_only=True)
class About:
    """What a page says of where its cases are from.

    Attributes:
        title: Name of the run or of the folders.
        data_set: Name of the data set.
        licence: Licence of the data.
        attribution: Whom the data set asks to be named.
        channel: Name of the image channel that is drawn, which is the first.
        ignore_label: Value of reference voxels that count for neither side; None where there is none.
        class_names: Names of what is drawn, by class index; None takes the names of the scores.
    """

    title: str
    data_set: str = UNKNOWN
    licence: str = UNKNOWN
    attribution: str = UNKNOWN
    channel: str = UNKNOWN
    ignore_label: int | None = None
    class_names: Sequence[str] | None = None


def write_page(
    path: Path,
    evaluation: Evaluation,
    scores: Sequence[CaseScore],
    files: Mapping[str, CaseFiles],
    about: About,
) -> None:
    """Writes a page with scores and a strip plot of all cases, and slices of the worst, a median and the best case.

    Equal inputs give equal bytes.

    Args:
        path: The HTML file, replaced.
        evaluation: The summary.
        scores: The scores that it summarises.
        files: The files of each case that can be drawn; of other cases the scores alone are shown.
        about: Where the cases are from.

    Raises:
        DataError: A prediction or a reference cannot be read. An image that cannot be drawn is left out, and the page
            says so.
        RunError: The page cannot be written.
    """
    ranking = rank_cases(scores)
    by_case: dict[str, dict[int, CaseScore]] = {}
    for score in scores:
        by_case.setdefault(score.case_id, {})[score.class_index] = score
    drawn = [
        {
            "case": ranked,
            "note": note,
            "scores": [by_case[ranked.case_id][index] for index in sorted(by_case[ranked.case_id])],
            **_draw(ranked.case_id, files.get(ranked.case_id), about.ignore_label),
        }
        for ranked, note in ranking.extremes(WORST)
    ]
    views: list[CaseView] = [entry["view"] for entry in drawn if entry["view"] is not None]
    engine = template_engine("seg.figures")
    engine.filters |= {"score": format_score, "ci95": format_interval}
    style = engine.get_template("cases.css").render()
    names = {entry.index: entry.name for entry in evaluation.classes}
    class_names = about.class_names or [names.get(index, "") for index in range(max(names) + 1)]
    page = engine.get_template("cases.html.j2").render(
        about=about,
        by_case=by_case,
        drawn=drawn,
        evaluation=evaluation,
        images=any(view.image is not None for view in views),
        image_problems=any(view.image_problem for view in views),
        key=[(_embed(sample), text) for sample, text in legend(class_names)] if views else [],
        metrics=[METRICS[name] for name in SHOWN_METRICS],
        ranking=ranking,
        strips=_strips(ranking, by_case, evaluation),
        style=style,
        policy=content_policy(style),
        unknown=UNKNOWN,
    )
    write_text(path, page)


def format_score(value: float | None, metric: str = "dice") -> str:
    """Formats a score; a dash stands for a score that does not exist."""
    shown = METRICS[metric]
    return fixed(value, shown.digits, sign=shown.better == "zero", absent="\N{EN DASH}")


def format_interval(interval: tuple[float, float] | None) -> str:
    """Formats a 95 % interval."""
    return "no interval" if interval is None else " to ".join(map(format_score, interval))


def _draw(case_id: str, files: CaseFiles | None, ignore_label: int | None) -> dict[str, Any]:
    """Reads and draws a case in the slices with the largest area labelled wrongly, or with most of the reference."""
    if files is None:
        return {"view": None}
    view = read_case(case_id, files, ignore_label=ignore_label)
    box = visible_box([view])
    mask = view.wrong if view.wrong.any() else np.asarray(view.reference > 0)
    return {
        "view": view,
        "perfect": not view.wrong.any(),
        "pictures": [
            {"text": picture.text, "scan": _embed(picture.scan), "result": _embed(picture.result)}
            for picture in draw_slices(view, box=box, positions=fullest_slices(mask))
        ],
    }


def _embed(pixels: npt.NDArray[np.uint8]) -> dict[str, Any]:
    """Returns the attributes of an image element that holds its picture."""
    content = base64.b64encode(to_png(pixels)).decode("ascii")
    height, width, _ = pixels.shape
    return {"src": f"data:image/png;base64,{content}", "width": width, "height": height}


def _strips(ranking: Ranking, by_case: Mapping[str, Mapping[int, CaseScore]], evaluation: Evaluation) -> dict[str, Any]:
    """Lays out the Dice of every case: a row of dots for the mean over classes and for each class.

    Places are per cent of a row's width; the axis begins at the tenth below the lowest Dice, ends at 1, and has at most
    six ticks.
    """
    rows: list[tuple[str, list[tuple[int, str, float]]]] = []
    if len(evaluation.classes) > 1:
        rows.append(("mean", [(case.rank, case.case_id, case.mean_dice) for case in ranking.cases]))
    for entry in evaluation.classes:
        dice = ((case, by_case[case.case_id].get(entry.index)) for case in ranking.cases)
        rows.append((entry.name, [(case.rank, case.case_id, each.scores.dice) for case, each in dice if each]))
    kept = [(name, [dot for dot in dots if math.isfinite(dot[2])]) for name, dots in rows]
    lowest = min((value for _, dots in kept for _, _, value in dots), default=0.0)
    low = min(0.9, math.floor(lowest * 10 + 1e-9) / 10)

    first = round(low * 10)
    ticks = range(10, first - 1, -math.ceil((10 - first) / 5))

    def place(value: float) -> str:
        return f"{2 + 96 * (value - low) / (1 - low):.2f}%"

    return {
        "rows": [
            {
                "name": name,
                "median": place(median(values)) if (values := [value for _, _, value in dots]) else None,
                "dots": [
                    {"rank": rank, "x": place(value), "text": f"{case_id}: {format_score(value)}"}
                    for rank, case_id, value in dots
                ],
            }
            for name, dots in kept
        ],
        "ticks": [(place(tenth / 10), f"{tenth / 10:.1f}") for tenth in ticks],
    }
