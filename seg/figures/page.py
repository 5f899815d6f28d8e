"""The page of an evaluation: its scores, its worst cases and its median ones, in one HTML file that needs no other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from seg.evaluation import CaseScore, Evaluation
from seg.figures.ranking import RankedCase, Ranking, rank_cases
from seg.figures.slices import draw_case
from seg.figures.sources import CaseFiles, PageCase, read_case
from seg.figures.style import PREDICTION, REFERENCE, STYLE
from seg.figures.tables import class_table, format_interval, format_score, score_table
from seg.files import write_text
from seg.words import counted

PAGE_FILE = "cases.html"
NOTICE = "Research software, not for clinical use."
UNKNOWN = "not stated"

# The page says of itself that it loads and runs nothing, so a browser holds it to that whatever a file name contains.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


@dataclass(frozen=True, kw_only=True)
class About:
    """What a page says of where its cases are from.

    Attributes:
        title: Name of the run or of the folders.
        data_set: Name of the data set.
        licence: Licence of the data.
        attribution: Whom the data set asks to be named.
        channel: Name of the image channel that is drawn, which is the first.
        ignore_label: Value of reference voxels that count for neither side; null where there is none.
    """

    title: str
    data_set: str = UNKNOWN
    licence: str = UNKNOWN
    attribution: str = UNKNOWN
    channel: str = UNKNOWN
    ignore_label: int | None = None


def write_page(
    path: Path,
    evaluation: Evaluation,
    scores: Sequence[CaseScore],
    files: Mapping[str, CaseFiles],
    about: About,
) -> None:
    """Writes the page. Equal inputs give equal bytes.

    Args:
        path: The HTML file; replaced where it exists.
        evaluation: The summary.
        scores: The scores that it summarises.
        files: The files of each case that can be drawn; of others the scores alone are shown.
        about: Where the cases are from.

    Raises:
        DataError: A prediction or a reference cannot be read. An image that cannot be drawn is left out, and said so.
        RunError: The page cannot be written.
    """
    ranking = rank_cases(scores)
    chosen = {
        ranked.case_id: read_case(ranked.case_id, files[ranked.case_id], ignore_label=about.ignore_label)
        for ranked in (*ranking.worst, *ranking.middle)
        if ranked.case_id in files
    }
    by_case: dict[str, list[CaseScore]] = {}
    for score in scores:
        by_case.setdefault(score.case_id, []).append(score)
    worst = [_case(ranked, ranking, chosen.get(ranked.case_id), by_case[ranked.case_id]) for ranked in ranking.worst]
    middle = [_case(ranked, ranking, chosen.get(ranked.case_id), by_case[ranked.case_id]) for ranked in ranking.middle]
    body = [
        _head(evaluation, about),
        f"<section><h2>Classes</h2>{class_table(evaluation)}</section>",
        _explanation(ranking, list(chosen.values()), evaluation, about),
        _section("Worst cases", worst),
        _section("Cases around the median" if len(middle) > 1 else "Median case", middle),
        _foot(about, any(case.grey is not None for case in chosen.values())),
    ]
    write_text(
        path,
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(about.title)}: cases</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(part for part in body if part)
        + "\n</main>\n</body>\n</html>\n",
    )


def _section(title: str, cases: Sequence[str]) -> str:
    """Gives a group of cases, or nothing where there is none."""
    return f"<section><h2>{title}</h2>{''.join(cases)}</section>" if cases else ""


def _head(evaluation: Evaluation, about: About) -> str:
    """Gives the title with the result of all."""
    return (
        f"<header><h1>{escape(about.title)}</h1>"
        f'<p class="lead"><strong>Mean Dice {format_score(evaluation.mean_dice, 3)}</strong> '
        f"(95 % CI: {format_interval(evaluation.mean_dice_ci95)}) over "
        f"{counted(evaluation.num_cases, 'case')} of {counted(evaluation.num_patients, 'patient')}</p>"
        f'{_left_out(evaluation)}<p class="notice">{NOTICE}</p></header>'
    )


def _left_out(evaluation: Evaluation) -> str:
    """Names what was to be scored and could not be, or nothing where there is nothing."""
    if not evaluation.left_out:
        return ""
    items = "".join(f"<li>{escape(problem)}</li>" for problem in evaluation.left_out)
    found = counted(len(evaluation.left_out), "problem")
    return (
        f"<p><strong>Not all cases were scored</strong>, and these means leave them out ({found}):</p><ul>{items}</ul>"
    )


def _explanation(ranking: Ranking, cases: Sequence[PageCase], evaluation: Evaluation, about: About) -> str:
    """Says how cases were chosen and how to read their pictures."""
    sentences = ["Cases are ranked by their mean Dice over classes, equal ones by name; rank 1 is the worst."]
    if ranking.num_empty:
        sentences.append(f"{counted(ranking.num_empty, 'case')} without a rank: all masks are empty in both maps.")
    if ranking.median is not None and ranking.median.rank <= len(ranking.worst):
        sentences.append(f"The median case is rank {ranking.median.rank}, among the worst.")
    if not cases:
        return f"<section><h2>Cases</h2><p>{' '.join(sentences)}</p></section>"
    sentences.append(
        "Each is shown in three orthogonal slices at one scale, in the body's proportions: in each direction the slice "
        "with the largest area labelled wrongly. The patient's right is on the left, sagittal slices face left. "
        "Slices count from 0, from the patient's left, back and foot end."
    )
    if any(case.grey is not None for case in cases):
        named = f" ({escape(about.channel)})" if about.channel != UNKNOWN else ""
        sentences.append(f"Images show the first channel{named}.")
    elif not any(case.faulty_image for case in cases):
        sentences.append("No images were given: outlines stand on a blank ground.")
    if len(evaluation.classes) > 1:
        sentences.append(
            "Numbers are classes: pale blue in the reference, amber in parts of the prediction that touch nothing of "
            "their class in the reference."
        )
    if about.ignore_label is not None:
        sentences.append(f"Voxels that the reference leaves open (label {about.ignore_label}) are shown as background.")
    return (
        f'<section><h2>How to read the cases</h2><ul class="key"><li>{_swatch("reference", REFERENCE)}reference, solid'
        f"</li><li>{_swatch('prediction', PREDICTION)}prediction, dashed</li></ul>"
        f"<p>{' '.join(sentences)}</p></section>"
    )


def _swatch(role: str, colour: str) -> str:
    """Gives a piece of an outline for the key."""
    return (
        f'<svg viewBox="0 0 48 16" aria-hidden="true"><rect class="ground" width="48" height="16"/>'
        f'<path class="line {role}" stroke="{colour}" d="M4 8h40"/></svg>'
    )


def _case(ranked: RankedCase, ranking: Ranking, case: PageCase | None, scores: Sequence[CaseScore]) -> str:
    """Gives one case: its name, its slices, its scores."""
    median = ", median" if ranked == ranking.median else ""
    note = _note(case)
    return (
        f"<article><h3>{escape(ranked.case_id)}: Dice {format_score(ranked.mean_dice, 3)} "
        f"<small>rank {ranked.rank} of {ranking.num_ranked}{median}</small></h3>"
        + ("" if case is None else draw_case(case))
        + (f"<p>{note}</p>" if note else "")
        + score_table(scores)
        + "</article>"
    )


def _note(case: PageCase | None) -> str:
    """Says what is unusual about a case's pictures."""
    if case is None:
        return "Not drawn: the data set does not hold this case any more."
    notes = []
    if case.perfect:
        notes.append("No voxel is labelled wrongly: the slices are those with most of the reference.")
    if case.faulty_image:
        notes.append("Drawn without its image, which is damaged or lies on another grid.")
    return " ".join(notes)


def _foot(about: About, images: bool) -> str:
    """Gives what is known of the data's rights."""
    parts = [f"Data set: {escape(about.data_set)}", f"licence: {escape(about.licence)}"]
    parts.append(f"attribution: {escape(about.attribution)}")
    changed = "images cut to slices, brightness adjusted, outlines added" if images else "outlines of labels alone"
    return f"<footer><p>{'; '.join(parts)}. Pictures here are derived from it ({changed}).</p><p>{NOTICE}</p></footer>"
