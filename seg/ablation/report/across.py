"""Several studies side by side: what each variant that they share costs on each of their data sets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from seg.ablation.report.across_words import conclusion, facts
from seg.ablation.report.analysis import Analysis, analyse
from seg.ablation.report.document import Bullets, Cell, Document, Figure, Heading, Panel, Table, Text
from seg.ablation.report.drawing import drawing, looks, name_rows, panel
from seg.ablation.report.markdown import FIGURES, to_markdown
from seg.ablation.report.numbers import MINUS, NOT_MEASURED, counted, fixed, interval, listed
from seg.ablation.report.order import in_order
from seg.ablation.report.plots_dice import draw_row
from seg.ablation.report.scale import Spread, beyond_words, choose_scale, possible
from seg.ablation.report.trials import read_records
from seg.ablation.statistics import Comparison
from seg.errors import RunError
from seg.files import write_bytes, write_text

COLUMNS, PAGE_INCH = 2, 4.9
"""Panels in a row, and the width of all: their text can be read on a telephone."""
FAR = 2.5
"""Times the median reach of intervals beyond which a scale is cut: panels are small."""


def write_comparison(study_dirs: Sequence[Path], output: Path) -> Path:
    """Writes one table and one figure of several studies from their records alone, as Markdown.

    Studies are never pooled, and their differences are compared by eye alone: each keeps its own baseline, margin and
    correction. A variant counts as the same in two studies where its changes of the baseline are equal, whatever its
    name; those that only one study has are left out.

    Args:
        study_dirs: Study directories, two or more, each with study.json and trials/.
        output: Markdown file, replaced; its figure lies in ``figures/`` beside it, named after the file.

    Returns:
        The file.

    Raises:
        RunError: A record is damaged or of a newer version, two studies have one name, studies share no variant, or a
            file cannot be written.
    """
    analyses = {}
    for folder in study_dirs:
        analysis = analyse(read_records(folder))
        name = analysis.records.study.name
        if name in analyses:
            raise RunError(f"{folder}: studies must have names of their own, got {name!r} twice; leave one out.")
        analyses[name] = analysis
    shared = _shared(analyses)
    if not shared:
        raise RunError(f"the studies {', '.join(analyses)} must share a variant, got none; compare others.")
    drawn = _figure(analyses, shared, output.stem)
    document = Document(
        title="Studies side by side",
        blocks=(
            Text(text=conclusion(analyses, shared), role="lead"),
            Text(
                text="What each width costs on each data set. Every cell of the table is the paired difference in mean "
                "Dice from the baseline of the same study, with its 95 % interval over training runs and patients "
                "(patients alone where there is one run), uncorrected. Studies differ in data, number of cases and "
                "steps; they are not pooled."
            ),
            Bullets(items=facts(analyses, shared)),
            _table(analyses, shared),
            Heading(text="The same as a picture"),
            drawn,
        ),
    )
    for one in drawn.panels:
        write_bytes(output.parent / FIGURES / one.file, one.content)
    write_text(output, to_markdown(document))
    return output


def _shared(analyses: Mapping[str, Analysis]) -> dict[str, dict[str, str]]:
    """Gives the variants of two studies or more: the name in the first that has it, then its name in each study."""
    by_change: dict[str, dict[str, str]] = {}
    for study, analysis in analyses.items():
        for variant in analysis.records.study.variants:
            if variant.name != analysis.baseline:
                by_change.setdefault(repr(sorted(variant.changes.items())), {})[study] = variant.name
    found = [names for names in by_change.values() if len(names) > 1]
    first = [next(iter(names.values())) for names in found]
    twice = {name for name, count in Counter(first).items() if count > 1}
    return {
        f"{name} of {next(iter(names))}" if name in twice else name: names
        for name, names in zip(first, found, strict=True)
    }


def _table(analyses: Mapping[str, Analysis], shared: Mapping[str, Mapping[str, str]]) -> Table:
    rows = [(Cell(text="baseline: mean Dice"), *(_baseline(analysis) for analysis in analyses.values()))]
    rows += [
        (Cell(text=name), *(_difference(analysis, names.get(study)) for study, analysis in analyses.items()))
        for name, names in shared.items()
    ]
    return Table(
        columns=("Variant", *analyses),
        rows=tuple(rows),
        caption="Differences in mean Dice. Not inferior: in every class of that study, at its margin, after Holm's "
        "correction over its variants.",
    )


def _baseline(analysis: Analysis) -> Cell:
    found, study = analysis.mean_dice.get(analysis.baseline), analysis.records.study
    known = [study.training.get("train_cases") or study.data.get("num_cases"), study.training.get("steps")]
    cases, steps = ("?" if number is None else number for number in known)
    setting = f"{cases} {'training cases' if study.training.get('train_cases') else 'cases'}, {steps} steps"
    return Cell(text=NOT_MEASURED if found is None else fixed(found.difference, 4), note=setting)


def _difference(analysis: Analysis, name: str | None) -> Cell:
    one = analysis.comparisons.get(name) if name is not None else None
    if one is None or one.dice.effect is None:
        return Cell(text=NOT_MEASURED)
    verdict = "not inferior" if one.non_inferior else counted(one.dice.effect.num_runs, "run")
    return Cell(
        text=fixed(one.difference, 4, sign=True), note=f"{interval(one.ci95, 4, sign=True) or 'no interval'}; {verdict}"
    )


def _figure(analyses: Mapping[str, Analysis], shared: Mapping[str, Mapping[str, str]], stem: str) -> Figure:
    """Draws a panel for each study, each on a scale of its own, two in a row."""
    names = _in_order(analyses, shared)
    styles = looks(["baseline", *shared])
    rows = -(-len(analyses) // COLUMNS)
    scales = []
    with drawing(PAGE_INCH, 0.3 + rows * (0.72 + 0.23 * len(shared))) as figure:
        axes = figure.subplots(rows, COLUMNS, sharey=True, squeeze=False).flat
        for (study, analysis), axis in zip(analyses.items(), axes, strict=False):
            found = {name: analysis.comparisons.get(shared[name].get(study, "")) for name in names}
            spreads = {name: own for name in names if (own := _spread(analysis, found[name])) is not None}
            margin = analysis.records.study.margin
            scales.append(choose_scale(spreads, (0.0, -margin), far=FAR))
            for row, name in enumerate(names):
                axis.axhline(row, color="0.9", linewidth=0.6, zorder=0)
                one = found[name]
                if one is None or name not in spreads:
                    at = (0.02, row)
                    axis.annotate(NOT_MEASURED, at, xycoords=("axes fraction", "data"), fontsize=7.5, va="center")
                else:
                    draw_row(axis, row, spreads[name], styles[name], scales[-1], filled=one.non_inferior)
            axis.axvline(0, color="0.2", linewidth=1)
            axis.axvline(-margin, color="0.2", linestyle="--", linewidth=1.1)
            if (scale := scales[-1]) is not None:
                axis.set_xlim(scale.low, scale.high)
            axis.locator_params(axis="x", nbins=4)
            axis.tick_params(axis="x", labelsize=8)
            axis.set_title(study, fontsize=9.5)
            name_rows(axis, names, styles, numbers=False)
        for axis in axes:  # the last row may have room for one more
            axis.set_visible(False)
        figure.supxlabel("difference in mean Dice from the study's baseline", fontsize=9)
        drawn: Panel = panel(figure, stem, _alt(analyses, shared))
    margins = sorted({analysis.records.study.margin for analysis in analyses.values()})
    return Figure(
        panels=(drawn,),
        caption="Differences in mean Dice with 95 % intervals. Each panel has a scale of its own; the dashed line is "
        f"the margin ({', '.join(f'{MINUS}{margin:g}' for margin in margins)}). Filled: not inferior in any class; "
        "hollow: not shown to be." + beyond_words(scales),
        whole=True,
    )


def _in_order(analyses: Mapping[str, Analysis], shared: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Sorts the shared variants by family and width."""
    variants = []
    for name, names in shared.items():
        study, own = next(iter(names.items()))
        (found,) = [one for one in analyses[study].records.study.variants if one.name == own]
        variants.append(replace(found, name=name))
    return in_order(variants)


def _spread(analysis: Analysis, one: Comparison | None) -> Spread | None:
    if one is None or one.dice.effect is None:
        return None
    middle = one.dice.effect.difference
    return possible((middle, *(one.ci95 or (middle, middle))), analysis.mean_dice[analysis.baseline].difference)


def _alt(analyses: Mapping[str, Analysis], shared: Mapping[str, Mapping[str, str]]) -> str:
    """Says in which studies which variants are not inferior."""
    good = []
    for study, analysis in analyses.items():
        passed = [
            name
            for name, names in shared.items()
            if (one := analysis.comparisons.get(names.get(study, ""))) is not None and one.non_inferior
        ]
        good += [f"{listed(passed)} in {study}"] if passed else []
    return (
        f"Differences in mean Dice of {counted(len(shared), 'variant')} in {len(analyses)} studies. Not inferior in "
        f"any class: {'; '.join(good) or 'none'}. The values stand in the table above."
    )
