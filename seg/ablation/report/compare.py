"""Runs and studies side by side: what a variant costs, run by run and on the data sets of several studies."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from seg.ablation.plan import OLD_STUDY_FILE, STUDY_FILE, StudyPlan, changes_text
from seg.ablation.report.analysis import Analysis, analyse, find_verdicts
from seg.ablation.report.cases import FIGURES
from seg.ablation.report.frame import to_csv
from seg.ablation.report.labels import Label, label_variants
from seg.ablation.report.plots import STUDIES_ALT, compare_studies
from seg.ablation.report.templating import markdown_environment
from seg.ablation.statistics import Comparison, Verdict, format_comparison, paired, split_folds
from seg.ablation.store import TRIALS, read_results
from seg.errors import Problem, RunError
from seg.evaluation.scores import EVALUATION_FILE, read_cases, read_evaluation
from seg.files import check_replaced, first_line, quoted, read_table, real_path, write_text
from seg.runs import read_origin
from seg.words import counted, some

LOG = logging.getLogger(__name__)
STUDIES_TABLE = "studies.csv"
"""Verdicts of several studies, one to a row; a report of one of them reads its evidence there."""
COLUMNS = ["study", "variant", "changes", "verdict", "bound", "bound_class", "difference", "low", "high", "num_runs"]
TITLE = "# Studies side by side"
"""First line of a comparison."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """In how many studies a variant was tried, and in how many of them it was safe."""

    safe: int
    tried: int


def write_comparison(study_dirs: Sequence[Path], output: Path) -> Path:
    """Writes one table and one figure of several studies as Markdown, and their verdicts as ``studies.csv``.

    Studies are never pooled: each keeps its baseline, margin and correction. A variant is the same in two studies where
    its changes of the baseline are equal, whatever its name; variants of a single study are left out of the table.

    Args:
        study_dirs: Study directories, two or more.
        output: Markdown file. The figure goes to ``figures/``, the verdicts to ``studies.csv`` beside it. Files that an
            earlier comparison wrote are replaced, no others.

    Returns:
        The Markdown file.

    Raises:
        RunError: A study cannot be read, two studies have one name, studies share no variant, or a file is another one
            or cannot be written.
    """
    figure, table = output.parent / FIGURES / f"{output.stem}.svg", output.parent / STUDIES_TABLE
    remedy = "rename it, or choose another --output"
    check_replaced(output, TITLE, remedy=remedy)
    check_replaced(table, ",".join(COLUMNS), remedy=remedy)
    if figure.exists() and STUDIES_ALT not in first_line(figure, remedy=remedy):
        rule = "must be the figure of a comparison to be replaced"
        raise RunError(Problem(quoted(str(figure)), "exists", rule, remedy=remedy))
    analyses: dict[str, Analysis] = {}
    for folder in study_dirs:
        results = read_results(folder)
        if results.problems:
            raise RunError(results.problems)
        analysis = analyse(results)
        name = results.study.name
        if name in analyses:
            raise RunError(Problem(str(folder), "twice", "must have a name of its own", name, "leave one of them out"))
        analyses[name] = analysis
    labels, findings = _shared(analyses)
    if not labels:
        rule = "must share a variant besides the baseline"
        raise RunError(Problem(", ".join(analyses), "nothing", rule, remedy="compare other studies"))
    intervals = {
        study: {
            name: (effect.difference, *(effect.ci95 or (effect.difference, effect.difference)))
            for name, by_study in findings.items()
            if study in by_study and (effect := by_study[study][0].dice) is not None
        }
        for study in analyses
    }
    margins = {study: analysis.results.study.margin for study, analysis in analyses.items()}
    picture = compare_studies(labels, intervals, margins, output.stem)
    write_text(figure, picture.file)
    write_text(table, to_csv(_to_table(analyses)))
    template = markdown_environment().get_template("studies.md.j2")
    text = template.render(title=TITLE, analyses=analyses, labels=labels, findings=findings, picture=picture)
    write_text(output, text.rstrip() + "\n")
    return output


def read_evidence(path: Path, study: StudyPlan) -> dict[str, Evidence]:
    """Reads in how many studies each variant of a study was tried and safe.

    Args:
        path: The table that :func:`write_comparison` wrote; without one there is no evidence. A table with other
            columns is somebody else's: it is announced and left alone.
        study: The study whose variants are looked up.

    Raises:
        RunError: The table is damaged.
    """
    if not path.is_file() or path.is_symlink():
        return {}
    columns, remedy = ("changes", "verdict"), "rename it, or write the table again with --compare"
    if not {*columns} <= {name.strip() for name in re.split("[,;\t]", first_line(path, remedy=remedy))}:
        LOG.warning("%s: no table of verdicts; the report goes without evidence of other studies", quoted(str(path)))
        return {}
    table = read_table(path, columns=columns, escaped=True, remedy=remedy)
    found = {}
    for variant in study.variants:
        if verdicts := [row["verdict"] for row in table if row["changes"] == changes_text(variant.changes)]:
            found[variant.name] = Evidence(safe=verdicts.count("safe"), tried=len(verdicts))
    return found


def compare_runs(baseline: Sequence[Path], variant: Sequence[Path], margin: float) -> str:
    """Compares the scores of finished runs, with the verdict of their study where they are of one, as text.

    Args:
        baseline: Run directories of the baseline, or its folders of results in a study.
        variant: The same of the variant, in the same order of seeds.
        margin: Loss of Dice that still counts as not inferior.

    Raises:
        RunError: Scores or a study cannot be read, or the runs cannot be paired.
    """
    for run_dir in (*baseline, *variant):
        read_origin(run_dir)  # a damaged record is named, whatever the scores say
        path = run_dir / EVALUATION_FILE
        if path.is_file() and (seen := read_evaluation(path).seen):
            rule = "has optimistic scores: its initial weights were trained on patients of cases that count here"
            LOG.warning("%s", Problem(str(run_dir), "seen", rule, some(seen)))
    sides = {"baseline": baseline, "variant": variant}
    trials = {name: split_folds([read_cases(path) for path in paths]) for name, paths in sides.items()}
    before, after = set(trials["baseline"]), set(trials["variant"])
    if not before & after:
        value = " and ".join(f"folds {some(sorted({fold for fold, _ in side}))}" for side in (before, after))
        rule, remedy = "must have folds in common with --baseline", "give runs of the same folds"
        raise RunError(Problem("--variant", "folds", rule, value, remedy))
    for number, (first, second) in enumerate(zip(baseline, variant, strict=True)):
        for run_dir, own, other, theirs in ((first, before, second, after), (second, after, first, before)):
            if lacking := sorted(fold for fold, run in theirs - own if run == number):
                rule = f"lacks folds of {other}, which are left out of the comparison"
                LOG.warning("%s", Problem(str(run_dir), "folds", rule, some(lacking)))
    found, words = study_verdict(baseline, variant), ""
    if found is not None and found[0].margin == margin:
        study, verdict = found
        words = f"(margin {study.margin:g}, corrected for {counted(len(study.names) - 1, 'variant')} of the study "
        words += f"{study.name}): {'shown' if verdict.word == 'safe' else 'not shown'}; {verdict.word}"
        words += "" if verdict.bound is None else f", bound {verdict.bound:+.4f} in {verdict.class_name or 'the mean'}"
    return "\n".join(format_comparison(one, words) for one in paired(trials, "baseline", margin=margin))


def study_verdict(baseline: Sequence[Path], variant: Sequence[Path]) -> tuple[StudyPlan, Verdict] | None:
    """Finds what a study shows of a variant against its baseline.

    Args:
        baseline: Run directories of the baseline as a study lays them, or its folders of results.
        variant: The same of the variant.

    Returns:
        The study with its verdict; None where the runs are not of one study, its baseline and one of its variants.

    Raises:
        RunError: The study cannot be read, or its runs cannot be paired.
    """
    places = [{_place(path) for path in paths} for paths in (baseline, variant)]
    if any(len(found) != 1 for found in places):
        return None
    (folder, before), (other, after) = (found.pop() for found in places)
    if folder != other or not any((folder / name).is_file() for name in (STUDY_FILE, OLD_STUDY_FILE)):
        return None
    results = read_results(folder)
    if results.problems:
        raise RunError(results.problems)
    if before != results.study.baseline:
        return None
    return next(((results.study, one) for one in find_verdicts(results)[1] if one.variant == after), None)


def _place(path: Path) -> tuple[Path, str]:
    """Returns the study directory in which a run would lie, and the name of its variant."""
    path = real_path(path)
    if path.parent.name == TRIALS:
        return path.parents[1], path.name.rsplit(".", 2)[0]
    return path.parent.parent.parent, path.parent.name


def _shared(
    analyses: Mapping[str, Analysis],
) -> tuple[dict[str, Label], dict[str, dict[str, tuple[Comparison, Verdict]]]]:
    """Returns labels of the variants that two studies or more have, in order, and what each study found."""
    changes: dict[str, Mapping[str, object]] = {}
    findings: dict[str, dict[str, tuple[Comparison, Verdict]]] = {}
    for study, analysis in analyses.items():
        for variant in analysis.results.study.variants:
            if variant.name in analysis.comparisons:
                key = changes_text(variant.changes)
                changes[key] = variant.changes
                found = analysis.comparisons[variant.name], analysis.verdicts[variant.name]
                findings.setdefault(key, {})[study] = found
    shared = {key: by_study for key, by_study in findings.items() if len(by_study) > 1}
    return label_variants({key: changes[key] for key in shared}), shared


def _to_table(analyses: Mapping[str, Analysis]) -> pd.DataFrame:
    rows = []
    for study, analysis in analyses.items():
        changes = {variant.name: variant.changes for variant in analysis.results.study.variants}
        for name, comparison in analysis.comparisons.items():
            verdict, effect = analysis.verdicts[name], comparison.dice
            low, high = (effect.ci95 if effect else None) or (None, None)
            row = [study, name, changes_text(changes[name]), verdict.word, verdict.bound, verdict.class_name]
            rows.append([*row, effect.difference if effect else None, low, high, effect.num_runs if effect else None])
    return pd.DataFrame(rows, columns=COLUMNS).astype({"num_runs": "Int64"})
