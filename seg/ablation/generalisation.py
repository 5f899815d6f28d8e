"""Dice on cases that a network has memory from, beside that on cases it has not seen."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from seg.data.cases import Dataset
from seg.data.splits import Split, spread_over
from seg.evaluation.metrics import finite_mean
from seg.evaluation.scores import CaseScore, read_cases
from seg.files import write_json
from seg.inference.predictor import load_predictor
from seg.runs import GENERALISATION_FILE, read_run
from seg.workflows.evaluate import score_cases

GENERALISATION_VERSION = 1


def measure_generalisation(run_dir: Path, dataset: Dataset, split: Split) -> dict[str, Any]:
    """Scores the final weights on training cases, without augmentation, as held-out cases were scored.

    Args:
        run_dir: Finished run, where generalisation.json is written.
        dataset: The data set, without cases that were left out.
        split: Both sides of the run's fold.

    Returns:
        The record: Dice per class and their mean over as many training cases as there are held-out ones (or all,
        where there are fewer), the same of the held-out cases, and the gap, training less held-out.

    Raises:
        DataError: A case cannot be read, or has no label.
        RunError: The run is not finished, or the record cannot be written.
    """
    run = read_run(run_dir)
    # Held-out cases are scored without the post-processing that was chosen on them.
    stated = run.config.postprocessing.largest_component or ()
    as_scored = replace(run.config.postprocessing, largest_component=stated)
    run = replace(run, config=replace(run.config, postprocessing=as_scored))
    device = run.config.training.device
    predictor = load_predictor([run], device=device, tta=False, probabilities=False)
    by_id = {case.id: case for case in dataset.cases}
    chosen = spread_over(sorted(split.train), len(split.validation))
    with tempfile.TemporaryDirectory() as folder:
        cases = [by_id[case_id] for case_id in chosen]
        scores = score_cases(predictor, run.config, dataset, cases, Path(folder), "training cases")
    trained, validated = _mean_dice(scores), _mean_dice(read_cases(run_dir))
    train_mean, val_mean = finite_mean(trained), finite_mean(validated)
    record = {
        "schema_version": GENERALISATION_VERSION,
        "train_cases": len(chosen),
        "train_mean_dice": train_mean,
        "val_mean_dice": val_mean,
        "gap": None if train_mean is None or val_mean is None else train_mean - val_mean,
        "train_dice": trained,
        "val_dice": validated,
    }
    write_json(run_dir / GENERALISATION_FILE, record)
    return record


def _mean_dice(scores: Sequence[CaseScore]) -> list[float | None]:
    """Means of Dice over cases, class by class, of what is a number."""
    by_case: dict[str, list[float]] = {}
    for score in scores:
        by_case.setdefault(score.case_id, []).append(score.scores.dice)
    return [finite_mean(column) for column in zip(*by_case.values(), strict=True)]
