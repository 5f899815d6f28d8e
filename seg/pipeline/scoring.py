"""Prediction and scores of the held-out cases of a trained run."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import torch
from tqdm import tqdm

from seg.cli import load_config
from seg.config import ExperimentConfig
from seg.data.cases import Case, Dataset
from seg.data.nifti import read_volume
from seg.data.prepared import case_digest
from seg.data.splits import Split, check_folds
from seg.data.writing import write_labels
from seg.errors import DataError, RunError
from seg.evaluation import (
    EVALUATION_FILE,
    CaseScore,
    Evaluation,
    case_scores,
    format_evaluation,
    read_evaluation,
    summarise,
    write_evaluation,
)
from seg.figures import PAGE_FILE, draw_predictions
from seg.files import write_json
from seg.hardware import choose_device, choose_precision, environment
from seg.inference import model_from_config
from seg.layout import CONFIG_FILE, MODEL_FILE, PICTURE_FILE, PREDICTIONS, SCORING_FILE, fold_directories
from seg.metrics import score_case
from seg.pipeline.directory import changed_data, describe_model, read_origin, some, trained_steps
from seg.pipeline.inputs import read_checked, read_splits
from seg.pipeline.pages import write_run_page
from seg.pipeline.summary import summarise_folds
from seg.prediction import Predictor, predict_case
from seg.prediction.cleaning import cleaning_rules
from seg.weights import check_task, trained_network

LOG = logging.getLogger(__name__)


def evaluate_run(
    run_dir: Path,
    *,
    output: Path | None = None,
    data_root: Path | None = None,
    known: tuple[Dataset, Split] | None = None,
    reuse: bool = False,
) -> Evaluation:
    """Predicts and scores the held-out cases of a trained run, and prints the table.

    Args:
        run_dir: Run directory with final weights.
        output: Folder of the results, which are replaced there; None is the run directory.
        data_root: Folder of the data set; None is the one in the run's config.
        known: The data set and the fold's cases, where they were read already.
        reuse: Whether results that are there already are taken for the run's own and not computed again.

    Returns:
        The scores.

    Raises:
        DataError: Cases cannot be read.
        RunError: There is no finished run, it is of other channels or classes, or results cannot be written.
    """
    output = output or run_dir
    if reuse and (output / EVALUATION_FILE).exists():
        evaluation = read_evaluation(output / EVALUATION_FILE)
    else:
        config = _read_config(run_dir, data_root)
        if known is None:
            dataset, left_out = read_checked(config.data)
            known = dataset, _find_split(run_dir, config, dataset, left_out)
        evaluation = _score_run(run_dir, output, config, *known)
    print(format_evaluation(evaluation))
    print(f"run directory: {run_dir}")
    print(f"picture: {output / PICTURE_FILE}")
    if (output / PAGE_FILE).exists():  # runs of earlier versions have none
        print(f"cases: {output / PAGE_FILE}")
    return evaluation


def evaluate_folds(root: Path, *, output: Path | None = None, data_root: Path | None = None) -> Evaluation:
    """Predicts and scores the held-out cases of every fold of a cross-validation, then of all together.

    Args:
        root: Folder in which ``fold_0``, ``fold_1``, ... are finished run directories.
        output: Folder of the results, those of each fold in ``fold_F``; replaced there. None is ``root``.
        data_root: Folder of the data set; None is the one in the runs' config.

    Returns:
        The scores of all folds together.

    Raises:
        DataError: Cases cannot be read.
        RunError: A fold is not finished, is of other channels or classes, or results cannot be written.
    """
    output = output or root
    run_dirs = fold_directories(root)
    configs = {fold: _read_config(run_dir, data_root) for fold, run_dir in run_dirs.items()}
    first = next(iter(configs.values()))
    dataset, left_out = read_checked(first.data)
    splits = {fold: _find_split(run_dirs[fold], config, dataset, left_out) for fold, config in configs.items()}
    for fold, split in splits.items():
        evaluate_run(run_dirs[fold], output=output / f"fold_{fold}", data_root=data_root, known=(dataset, split))
    return summarise_folds(first, dataset, output, {fold: output / f"fold_{fold}" for fold in splits})


def _read_config(run_dir: Path, data_root: Path | None) -> ExperimentConfig:
    if not (run_dir / CONFIG_FILE).is_file():
        raise RunError(f"{run_dir}: must be a run directory, got no {CONFIG_FILE}; check the path.")
    config = load_config([run_dir / CONFIG_FILE])
    return config if data_root is None else replace(config, data=replace(config.data, root=str(data_root)))


def _find_split(run_dir: Path, config: ExperimentConfig, dataset: Dataset, left_out: list[str]) -> Split:
    """Returns the cases that a run trained on and held out."""
    check_task(
        run_dir,
        channel_names=dataset.channel_names,
        class_names=dataset.class_names,
        source=config.data.root,
        remedy="it is another data set, check --data.root",
    )
    origin = read_origin(run_dir)
    if origin is not None and origin.split is not None:
        known = {case.id for case in dataset.cases}
        if gone := sorted(set(origin.split.validation) - known):
            raise RunError(
                f"{config.data.root}: must have the cases that the run held out, got none of {some(gone)}; it is "
                "another data set, or these cases were removed or left out."
            )
        return origin.split
    LOG.warning("%s: has no record of its cases; those of its fold are found anew", run_dir)
    splits = read_splits(config, left_out)
    if config.fold >= len(splits):
        raise RunError(
            f"{config.data.root}: must have the run's fold {config.fold}, got {len(splits)} folds; it is another data "
            "set, or its splits changed."
        )
    check_folds(splits, [config.fold], left_out)
    return splits[config.fold]


def _load_predictor(run_dir: Path, config: ExperimentConfig, dataset: Dataset) -> Predictor:
    device = choose_device(config.training.device)
    precision = choose_precision(config.training.precision, device)
    network = trained_network(config.network, len(dataset.channel_names), len(dataset.class_names), run_dir)
    network.to(device=device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    return Predictor(
        models=[model_from_config(network, config, device=device, precision=precision)],
        data=config.data,
        channel_names=dataset.channel_names,
        class_names=dataset.class_names,
        rules=cleaning_rules(config.postprocessing, dataset.class_names),
    )


def _score_run(run_dir: Path, output: Path, config: ExperimentConfig, dataset: Dataset, split: Split) -> Evaluation:
    predictor = _load_predictor(run_dir, config, dataset)
    held_out = set(split.validation)
    cases = [case for case in dataset.cases if case.id in held_out]
    digests = {case.id: case_digest(case) for case in cases}
    origin = read_origin(run_dir)
    if origin is not None and (changed := changed_data(origin, digests)):
        LOG.warning("%s: held-out cases have other files than when the run began: %s", config.data.root, some(changed))
    scores: list[CaseScore] = []
    for case in tqdm(cases, desc="evaluate", unit="case", disable=not config.training.progress, mininterval=5):
        scores += _score_case(predictor, case, dataset, config, output / PREDICTIONS)
    evaluation = summarise(
        scores,
        class_names=dataset.class_names,
        nsd_tolerance_mm=config.evaluation.nsd_tolerance_mm,
        bootstrap_samples=config.evaluation.bootstrap_samples,
    )
    draw_predictions(output / PICTURE_FILE, cases, output / PREDICTIONS, scores, dataset)
    predictions = {case.id: output / PREDICTIONS / f"{case.id}.nii.gz" for case in cases}
    write_run_page(output, evaluation, scores, predictions, dataset, title=f"{config.name}, fold {config.fold}")
    # Apart from environment.json, which says what the run was trained with and on.
    computed_with = environment(predictor.models[0].device, predictor.models[0].precision)
    write_json(output / SCORING_FILE, {"schema_version": 1, **computed_with, "data": digests})
    write_json(output / MODEL_FILE, describe_model(config, dataset, trained_steps(run_dir)))
    # Last: a run directory is complete when this file is there.
    write_evaluation(output, evaluation, scores)
    return evaluation


def _score_case(
    predictor: Predictor, case: Case, dataset: Dataset, config: ExperimentConfig, folder: Path
) -> list[CaseScore]:
    if case.label is None:
        raise DataError(f"case {case.id}: a scored case must have a label, got none; add one to the data set.")
    predicted = predict_case(predictor, case.images)
    written = folder / f"{case.id}.nii.gz"
    write_labels(written, predicted.labels, predicted.geometry)
    # Both are read back the same way, so a label stored in another orientation than its image is met.
    reference = read_volume(case.label)
    scores = score_case(
        read_volume(written).array,
        reference.array.round().astype("uint8"),
        spacing_mm=reference.spacing_mm,
        num_classes=len(dataset.class_names),
        nsd_tolerance_mm=config.evaluation.nsd_tolerance_mm,
        ignore_label=dataset.ignore_label,
    )
    return case_scores(scores, case_id=case.id, class_names=dataset.class_names, patient=case.patient, fold=config.fold)
