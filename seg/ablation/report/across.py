"""Several studies side by side: what each variant that they share costs on each of their data sets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from seg.ablation.report.across_words import conclusion, facts
from seg.ablation.report.analysis import Analysis, analyse
from seg.ablation.report.document import Bullets, Cell, Document, Figure, Heading, Panel, Table, Text
from seg.ablation.report.drawing import drawing, looks, name_rows, panel
from seg.ablation.report.markdown import FIGURES, to_markdown
from seg.ablation.report.numbers import MINUS, NOT_MEASURED, counted, fixed, interval
from seg.ablation.report.trials import read_records
from seg.errors import RunError
from seg.files import write_bytes, write_text

PANEL_INCH, NAMES_INCH = 1.75, 1.25
"""Width of one study's panel, and of the names beside the first."""


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
    """Draws a panel for each study, each on a scale of its own."""
    styles = looks(["baseline", *shared])
    said = []
    with drawing(NAMES_INCH + PANEL_INCH * len(analyses), 0.9 + 0.27 * len(shared)) as figure:
        axes = figure.subplots(1, len(analyses), sharey=True, squeeze=False)[0]
        for axis, (study, analysis) in zip(axes, analyses.items(), strict=True):
            for row, (name, names) in enumerate(shared.items()):
                one = analysis.comparisons.get(names.get(study, ""))
                if one is None or one.dice.effect is None:
                    said.append(f"{study}, {name}: {NOT_MEASURED}")
                    continue
                middle = one.dice.effect.difference
                low, high = one.ci95 or (middle, middle)
                axis.errorbar(
                    middle,
                    row,
                    xerr=[[middle - low], [high - middle]],
                    color=styles[name].colour,
                    marker=styles[name].marker,
                    markerfacecolor=styles[name].colour if one.non_inferior else "white",
                    capsize=2.5,
                    elinewidth=1.3,
                )
                said.append(f"{study}, {name}: {fixed(middle, 4, sign=True)}")
            axis.axvline(0, color="0.2", linewidth=1)
            axis.axvline(-analysis.records.study.margin, color="0.2", linestyle="--", linewidth=1.1)
            axis.locator_params(axis="x", nbins=3)
            axis.tick_params(axis="x", labelsize=8)
            axis.set_title(study, fontsize=9.5)
            name_rows(axis, list(shared), styles)
        figure.supxlabel("difference in mean Dice from the study's baseline", fontsize=9)
        drawn: Panel = panel(figure, stem, f"Differences in mean Dice by study. {'; '.join(said)}.")
    margins = sorted({analysis.records.study.margin for analysis in analyses.values()})
    return Figure(
        panels=(drawn,),
        caption="Differences in mean Dice with 95 % intervals. Each panel has a scale of its own; the dashed line is "
        f"the margin ({', '.join(f'{MINUS}{margin:g}' for margin in margins)}). Filled: not inferior in any class; "
        "hollow: not shown to be.",
        whole=True,
    )
