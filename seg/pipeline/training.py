"""Training of one fold or of all, each evaluated on the cases it did not see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from seg.config import ExperimentConfig
from seg.data.cases import Dataset
from seg.data.normalization import check_channels
from seg.data.prepared import check_cache_dir
from seg.errors import RunError
from seg.evaluation import (
    CASES_FILE,
    EVALUATION_FILE,
    format_evaluation,
    read_cases,
    summarise,
    write_evaluation,
)
from seg.experiment import train_fold
from seg.figures import PAGE_FILE
from seg.layout import PREDICTIONS
from seg.pipeline.directory import open_run
from seg.pipeline.inputs import read_checked, read_splits
from seg.pipeline.pages import write_run_page
from seg.pipeline.scoring import evaluate_run
from seg.prediction.cleaning import cleaning_rules


def train(
    config: ExperimentConfig,
    *,
    run_dir: Path | None = None,
    folds: Sequence[int] | None = None,
    resume: bool = False,
    init_from: Path | None = None,
) -> int:
    """Trains and evaluates folds and prints what came out.

    Args:
        config: The experiment; its fold is replaced by each of those asked for.
        run_dir: Run directory; None is ``runs/NAME/seed_S/fold_F``, or ``runs/NAME/seed_S`` for several folds.
            Several folds lie in ``fold_F`` below the run directory, their summary in it.
        folds: Folds to train, >= 0; None trains all.
        resume: Whether to continue run directories that are there; finished ones are not trained again.
        init_from: Run directory whose weights are the initial ones.

    Returns:
        The exit code: 0, or 1 where faulty cases were left out.

    Raises:
        ConfigError: Clean-up names classes that the data set has not, or normalisation does not fit its channels.
        DataError: Cases are faulty; all problems together.
        RunError: A fold does not exist, or a run directory exists, belongs to another config or cannot be written; or
            the folder of the cache cannot.
    """
    check_cache_dir(config.data)
    dataset, left_out = read_checked(config.data, progress=config.training.progress)
    check_channels(config.data, len(dataset.channel_names))
    cleaning_rules(config.postprocessing, dataset.class_names)  # Names that do not exist end the run before it begins.
    splits = read_splits(config, dataset, left_out)
    chosen = range(len(splits)) if folds is None else folds
    unknown = [fold for fold in chosen if fold >= len(splits)]
    if unknown:
        raise RunError(f"fold must be in 0 ... {len(splits) - 1}, got {unknown[0]}; choose one of these or all.")
    several = folds is None or len(folds) > 1
    root = run_dir or Path("runs") / config.name / f"seed_{config.seed}"
    directories = {fold: root / f"fold_{fold}" if several or run_dir is None else root for fold in chosen}
    for fold, directory in directories.items():
        fold_config = replace(config, fold=fold)
        open_run(fold_config, directory, resume=resume)
        if not (directory / EVALUATION_FILE).exists():
            train_fold(fold_config, dataset, splits[fold], directory, resume=resume, init_from=init_from)
        evaluate_run(directory, dataset=dataset, split=splits[fold])
    if several:
        _summarise(config, dataset, root, directories)
    return 1 if left_out else 0


def _summarise(config: ExperimentConfig, dataset: Dataset, root: Path, directories: Mapping[int, Path]) -> None:
    """Pools the cases of all folds, each scored by the network that did not see it."""
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
    write_run_page(root, evaluation, scores, predictions, dataset, title=f"{config.name}, {len(directories)} folds")
    write_evaluation(root, evaluation, scores)
    print(format_evaluation(evaluation))
    print(f"run directory: {root}")
    print(f"cases: {root / PAGE_FILE}")
