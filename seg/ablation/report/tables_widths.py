"""Widths that the spectrum of a baseline predicts to be safe, beside those that the study found."""

from __future__ import annotations

from seg.ablation.report.analysis import Analysis
from seg.ablation.report.document import Cell, Table, row
from seg.ablation.report.numbers import EN_DASH, NOT_MEASURED, NOTHING, fixed, in_words, interval, listed
from seg.ablation.report.preserved import THRESHOLD, Prediction, made_from_prediction, places

PATHS = {"skip": "skips", "decoder": "decoder"}


def width_table(analysis: Analysis) -> Table:
    """Gives predicted widths beside those that the study found."""
    rows = [
        row(
            one.name.replace("_", " "),
            str(one.channels),
            fixed(one.effective_rank, 1),
            str(one.width),
            _others(one),
            "none found" if one.found is None else Cell(text=str(one.found), note=one.variant or ""),
            NOT_MEASURED if one.tried is None else str(one.tried),
        )
        for one in analysis.predictions
    ]
    return Table(
        columns=(
            "Place",
            "Channels",
            "Effective rank of the baseline",
            f"Predicted safe width ({_first(analysis)})",
            "By its other runs",
            "Narrowest not inferior",
            "Narrowest tried",
        ),
        rows=tuple(rows),
        caption="Widths that the spectrum of one trained baseline predicts to be safe: the fewest principal components "
        f"that keep {100 * THRESHOLD:.0f} % of the variance of the features that enter; beside them the range over the "
        "other runs of the baseline. Then the narrowest width of a variant that was not inferior in any class, and the "
        "narrowest that was tried, of variants with the baseline's channels per stage that were not made from a "
        "prediction.",
    )


def _others(one: Prediction) -> str:
    others = one.widths[1:]
    if not others:
        return NOTHING
    return str(others[0]) if min(others) == max(others) else f"{min(others)}{EN_DASH}{max(others)}"


def _first(analysis: Analysis) -> str:
    return _run(analysis, 0)


def _run(analysis: Analysis, number: int) -> str:
    """Names the run of the baseline that makes the prediction of a number."""
    known = [trial for trial in analysis.records.finished(analysis.baseline) if trial.preservation]
    fold = f"fold {known[number].record.fold} " if len(analysis.records.study.folds) > 1 else ""
    return f"{fold}seed {known[number].record.seed}"


def width_sentences(analysis: Analysis) -> list[str]:
    """Says how prediction and finding compare, and what became of a variant that trains the predicted widths."""
    if not analysis.predictions:
        return [f"Safe widths were not predicted: {analysis.unpredicted}."]
    said = []
    found = [one for one in analysis.predictions if one.found is not None]
    below = [one.name.replace("_", " ") for one in found if one.found is not None and one.found < one.width]
    if found:
        where = (
            f"all {in_words(len(found))}"
            if len(below) == len(found)
            else f"{in_words(len(below))} of {in_words(len(found))}"
        )
        where += " places" if len(below) == len(found) else " places with a finding"
        named = f": {listed(below)}" if 0 < len(below) < len(found) else ""
        said.append(f"At {where} the spectrum asked for more channels than were needed{named}.")
    else:
        said.append("No width was shown to be safe at any place, so the prediction cannot be compared.")
    widths = {one.name: one.widths for one in analysis.predictions}
    trained = made_from_prediction(places(analysis.records), widths)
    for name, number in trained.items():
        one = analysis.comparisons.get(name)
        if one is not None and one.difference is not None:
            by_path = {
                words: ", ".join(
                    str(place.widths[number]) for place in analysis.predictions if place.name.startswith(path)
                )
                for path, words in PATHS.items()
            }
            built = " and ".join(f"{numbers} ({words})" for words, numbers in by_path.items() if numbers)
            verdict = "within the margin in every class" if one.non_inferior else "not shown to be within the margin"
            said.append(
                f"{name} was built from {_run(analysis, number)} alone: {built}; its Dice differs by "
                f"{fixed(one.difference, 4, sign=True)} ({interval(one.ci95, 4, sign=True) or 'no interval'}), "
                f"{verdict}."
            )
    if not trained:
        said.append("A variant of just the predicted widths at every place: not measured.")
    return said
