"""Prediction and scores of the held-out cases of a trained run."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path

from tqdm import tqdm

from seg.config import ExperimentConfig
from seg.data.cases import Dataset
from seg.data.prepared import case_digest
from seg.data.splits import Split
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
from seg.layout import MODEL_FILE, MODEL_VERSION, NOTICE, PICTURE_FILE, PREDICTIONS, SCORING_FILE
from seg.prediction import Predictor
from seg.prediction.cleaning import cleaning_rules
from seg.prediction.loading import TrainedRun, load_model
from seg.prediction.scored import score_prediction
from seg.workflows.directory import changed_data, read_origin, some, trained_steps
from seg.workflows.pages import write_run_page

LOG = logging.getLogger(__name__)


def score_run(
    run_dir: Path,
    config: ExperimentConfig,
    dataset: Dataset,
    split: Split,
    *,
    output: Path | None = None,
    reuse: bool = False,
) -> Evaluation:
    """Predicts and scores the held-out cases of a trained run, and prints the table.

    Args:
        run_dir: Run directory with final weights.
        config: Its experiment, with the folder where the data set lies now.
        dataset: The data set, of the run's channels and classes.
        split: The run's training and held-out cases.
        output: Folder of the results, which are replaced there; None is the run directory.
        reuse: Whether results that are there already are taken for the run's own and not computed again.

    Returns:
        The scores.

    Raises:
        DataError: Cases cannot be read.
        RunError: There are no final weights, or results cannot be written.
    """
    output = output or run_dir
    if reuse and (output / EVALUATION_FILE).exists():
        evaluation = read_evaluation(output / EVALUATION_FILE)
    else:
        evaluation = _score(run_dir, output, config, dataset, split)
    print(format_evaluation(evaluation))
    print(f"run directory: {run_dir}")
    print(f"picture: {output / PICTURE_FILE}")
    if (output / PAGE_FILE).exists():  # runs of earlier versions have none
        print(f"cases: {output / PAGE_FILE}")
    return evaluation


def _load_predictor(run_dir: Path, config: ExperimentConfig, dataset: Dataset) -> Predictor:
    device = choose_device(config.training.device)
    run = TrainedRun(path=run_dir, config=config, channel_names=dataset.channel_names, class_names=dataset.class_names)
    return Predictor(
        models=[load_model(run, device, choose_precision(config.training.precision, device))],
        data=config.data,
        channel_names=dataset.channel_names,
        class_names=dataset.class_names,
        rules=cleaning_rules(config.postprocessing, dataset.class_names),
    )


def _score(run_dir: Path, output: Path, config: ExperimentConfig, dataset: Dataset, split: Split) -> Evaluation:
    predictor = _load_predictor(run_dir, config, dataset)
    held_out = set(split.validation)
    cases = [case for case in dataset.cases if case.id in held_out]
    digests = {case.id: case_digest(case) for case in cases}
    origin = read_origin(run_dir)
    if origin is not None and (changed := changed_data(origin, digests)):
        LOG.warning("%s: held-out cases have other files than when the run began: %s", config.data.root, some(changed))
    scores: list[CaseScore] = []
    for case in tqdm(cases, desc="evaluate", unit="case", disable=not config.training.progress, mininterval=5):
        written = output / PREDICTIONS / f"{case.id}.nii.gz"
        by_class = score_prediction(
            predictor, case, written, dataset, nsd_tolerance_mm=config.evaluation.nsd_tolerance_mm
        )
        scores += case_scores(
            by_class, case_id=case.id, class_names=dataset.class_names, patient=case.patient, fold=config.fold
        )
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
    write_json(output / MODEL_FILE, _describe_model(config, dataset, trained_steps(run_dir)))
    # Last: a run directory is complete when this file is there.
    write_evaluation(output, evaluation, scores)
    return evaluation


def _describe_model(config: ExperimentConfig, dataset: Dataset, steps: int | None) -> dict[str, object]:
    """Describes a trained network, of so many steps where that is known, for whoever is handed its run directory."""
    return {
        "schema_version": MODEL_VERSION,
        "notice": NOTICE,
        "name": config.name,
        "channel_names": list(dataset.channel_names),
        "class_names": list(dataset.class_names),
        "data_set": dataset.name,
        "data_licence": dataset.licence,
        "network": asdict(config.network),
        "patch_size": list(config.patches.size),
        "stopped_early_at_step": steps if steps is not None and steps < config.training.steps else None,
    }
