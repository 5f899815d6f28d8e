"""The common summary of a cross-validation's folds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from seg.config import ExperimentConfig
from seg.data.cases import Dataset
from seg.evaluation import CASES_FILE, Evaluation, format_evaluation, read_cases, summarise, write_evaluation
from seg.figures import PAGE_FILE
from seg.layout import PREDICTIONS
from seg.workflows.pages import write_run_page


def summarise_folds(
    config: ExperimentConfig, dataset: Dataset, output: Path, directories: Mapping[int, Path]
) -> Evaluation:
    """Pools the cases of all folds, each scored by the network that did not see it, and prints the table.

    Args:
        config: The experiment; its fold has no meaning.
        dataset: The data set.
        output: Folder of evaluation.json, cases.csv and the page of all folds, which are replaced there.
        directories: By fold, the folder of its results.

    Returns:
        The common scores.

    Raises:
        RunError: The scores of a fold cannot be read, or results cannot be written.
    """
    scores = [score for directory in directories.values() for score in read_cases(directory / CASES_FILE)]
    evaluation = summarise(
        scores,
        class_names=dataset.class_names,
        nsd_tolerance_mm=config.evaluation.nsd_tolerance_mm,
        bootstrap_samples=config.evaluation.bootstrap_samples,
    )
    predictions = {
        score.case_id: directories[score.fold] / PREDICTIONS / f"{score.case_id}.nii.gz"
        for score in scores
        if score.fold is not None
    }
    write_run_page(output, evaluation, scores, predictions, dataset, title=f"{config.name}, {len(directories)} folds")
    write_evaluation(output, evaluation, scores)
    print(format_evaluation(evaluation))
    print(f"run directory: {output}")
    print(f"cases: {output / PAGE_FILE}")
    return evaluation
