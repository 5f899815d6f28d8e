"""The report of a study, section by section."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from seg.ablation.report import (
    methods,
    plots_cost,
    plots_dice,
    plots_law,
    plots_pareto,
    plots_preserved,
    tables_cost,
    tables_learning,
    tables_preserved,
    tables_widths,
)
from seg.ablation.report.analysis import Analysis
from seg.ablation.report.describe import legend
from seg.ablation.report.document import Block, Bullets, Code, Details, Document, Figure, Heading, Text
from seg.ablation.report.lead import grounds, headline, missing_sentence, per_device
from seg.ablation.report.numbers import NOT_MEASURED, counted
from seg.ablation.report.onset import TITLE, onset
from seg.ablation.report.preserved import places
from seg.ablation.report.study import NOT_STATED
from seg.ablation.report.tables_class import class_table
from seg.ablation.report.tables_contrast import contrast_table
from seg.ablation.report.tables_dice import limits, main_table
from seg.ablation.report.worst import worst_cases
from seg.runs import NOTICE


def assemble(analysis: Analysis, study_dir: Path, runs_dir: Path) -> Document:
    """Puts a report together.

    Args:
        analysis: What the records show.
        study_dir: The study directory, in whose folder of figures pictures of cases are kept.
        runs_dir: Folder of the run directories, which may be absent.
    """
    return Document(
        title=f"Ablation: {title(analysis)}",
        blocks=(
            *_head(analysis),
            *_variants(analysis),
            *_figure("Dice against cost", plots_pareto.pareto, analysis, "Dice against cost"),
            *_figure("Differences and the margin", plots_dice.forest, analysis, "Differences"),
            *_speed(analysis),
            *_preservation(analysis),
            *_convergence(analysis),
            *_worst(analysis, study_dir, runs_dir),
            *_ranks(analysis),
            Heading(text="Methods"),
            *methods.methods(analysis),
            Heading(text="Environment"),
            *methods.environments(analysis),
            Heading(text="Trials"),
            *methods.trial_list(analysis),
            Heading(text="To repeat it"),
            Code(text=analysis.records.study.command),
        ),
    )


def title(analysis: Analysis) -> str:
    """Names the study, and the number of training cases where the study chose it."""
    study = analysis.records.study
    cases = study.training.get("train_cases")
    if not cases:
        return study.name
    return f"{study.name} ({counted(cases, 'training case')}, {analysis.records.num_scored} scored)"


def _head(analysis: Analysis) -> list[Block]:
    """Gives the recommendation, what names mean, where narrowing costs, and what is missing."""
    study = analysis.records.study
    blocks: list[Block] = [Text(text=headline(analysis), role="lead")]
    said = [grounds(analysis), *per_device(analysis)]
    said += [legend({one.name: one.changes for one in study.variants if one.name != study.baseline})]
    blocks += [Text(text=sentence) for sentence in said if sentence]
    if costs := onset(analysis):
        blocks += [Heading(text=TITLE, level=3), Text(text=costs[0])]
        blocks += [Bullets(items=costs[1:])] if costs[1:] else []
    if missing := missing_sentence(analysis):
        blocks.append(Text(text=missing))
    return [*blocks, Text(text=NOTICE, role="notice")]


def _variants(analysis: Analysis) -> list[Block]:
    blocks: list[Block] = [Heading(text="Variants"), main_table(analysis)]
    if said := limits(analysis):
        blocks.append(Bullets(items=tuple(said)))
    by_class = class_table(analysis)
    if by_class.rows:
        scores = "Dice" if analysis.records.study.nominal_spacing else "Dice, NSD and HD95"
        blocks.append(Details(summary=f"Differences by class in {scores}", blocks=(by_class,)))
    if analysis.contrasts:
        blocks += [Heading(text="One change at a time", level=3), contrast_table(analysis)]
    return blocks


def _figure(title: str, draw: Callable[[Analysis], Figure | None], analysis: Analysis, what: str) -> list[Block]:
    """Gives a section with a figure, or with a sentence that it could not be drawn."""
    figure = draw(analysis)
    return [Heading(text=title), figure or Text(text=f"{what}: {NOT_MEASURED}.")]


def _speed(analysis: Analysis) -> list[Block]:
    study = analysis.records.study
    blocks: list[Block] = [Heading(text="Speed and memory")]
    if not analysis.records.speed:
        return [*blocks, Text(text=f"Speed and memory: {NOT_MEASURED}.")]
    for device in analysis.records.speed:
        blocks.append(Heading(text=device.label, level=3))
        if (figure := plots_cost.speed(device, study)) is not None:
            blocks.append(figure)
        blocks.append(tables_cost.speed_table(device, study.names))
    kinds = {device.about["kind"] for device in analysis.records.speed}
    absent = [words for kind, words in (("cuda", "On a GPU"), ("cpu", "On a processor")) if kind not in kinds]
    return [*blocks, *(Text(text=f"{words}: {NOT_MEASURED}.") for words in absent)]


def _preservation(analysis: Analysis) -> list[Block]:
    blocks: list[Block] = [Heading(text="What bottlenecks preserve")]
    if not places(analysis.records):
        return [*blocks, Text(text=f"Preservation of features: {NOT_MEASURED}.")]
    blocks += [Text(text=sentence) for sentence in tables_preserved.result_sentences(analysis)]
    blocks.append(plots_preserved.preserved(analysis) or Text(text=f"Bottlenecks: {NOT_MEASURED}."))
    blocks += [
        Details(summary="All measures by variant and place", blocks=(tables_preserved.place_table(analysis),)),
        Heading(text="Which measure predicts the Dice lost?", level=3),
    ]
    if (figure := plots_law.laws(analysis)) is not None:
        blocks.append(figure)
    blocks.append(tables_preserved.law_table(analysis))
    by_place = tables_preserved.place_law_table(analysis)
    if by_place.rows:
        blocks.append(Details(summary="The same for each path and each stage alone", blocks=(by_place,)))
    blocks.append(Heading(text="Safe widths: predicted and found", level=3))
    if (figure := plots_law.widths(analysis)) is not None:
        blocks += [figure, tables_widths.width_table(analysis)]
    return [*blocks, *(Text(text=sentence) for sentence in tables_widths.width_sentences(analysis))]


def _convergence(analysis: Analysis) -> list[Block]:
    section = _figure("Convergence and generalisation", plots_cost.curves, analysis, "Curves of training")
    said = [Text(text=sentence) for sentence in tables_learning.convergence_sentences(analysis)]
    return [*section, *said, tables_learning.convergence_table(analysis)]


def _worst(analysis: Analysis, study_dir: Path, runs_dir: Path) -> list[Block]:
    study = analysis.records.study
    if not study.pictures:
        licence = study.data.get("licence", NOT_STATED)
        left_out = f"Pictures of cases are left out: the licence of the data ({licence}) does not allow them to be "
        return [Heading(text="Worst cases"), Text(text=f"{left_out}published here.")]
    panels, words = worst_cases(analysis, study_dir, runs_dir)
    content: Block = Figure(panels=panels, caption=words, whole=True) if panels else Text(text=words)
    return [Heading(text="Worst cases"), content]


def _ranks(analysis: Analysis) -> list[Block]:
    figure = plots_dice.ranks(analysis)
    blocks: list[Block] = [Heading(text="Stability of ranks")]
    blocks += [figure] if figure is not None else []
    return [*blocks, *(Text(text=sentence) for sentence in tables_cost.rank_sentences(analysis))]
