"""Evaluation of any two folders of label maps, with a page of cases; needs no torch."""

from __future__ import annotations

import logging
import multiprocessing
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from seg.config.patients import find_patients
from seg.data.cases import LABEL_TOLERANCE
from seg.data.geometry import GRID_TOLERANCE, corner_distance
from seg.data.volumes import ENDINGS, NIFTI_ENDINGS, Volume, in_small_letters, read_label, split_ending
from seg.errors import DataError, Problem, RunError
from seg.evaluation.metrics import EMPTY_SCORES, ClassScores, score_case
from seg.evaluation.scores import CaseScore, Evaluation, case_scores, read_cases, write_evaluation
from seg.evaluation.summary import BOOTSTRAP_SAMPLES, format_evaluation, summarise
from seg.figures import PAGE_FILE, About, CaseFiles, write_page
from seg.files import file_problems, unencodable
from seg.inference.cases import series_below

IMAGE_ENDINGS = tuple(f"{number}{ending}" for number in ("", "_0000") for ending in ENDINGS)
"""What follows the case id in the name of its image; nnU-Net numbers the channels."""


@dataclass(frozen=True, kw_only=True)
class FolderPair:
    """What is compared, and where the results go.

    Attributes:
        predictions: Folder of CASE.nii.gz or CASE.nii files.
        labels: Folder of references with the same case ids.
        output: Folder of evaluation.json, cases.csv and cases.html.
        images: Folder of images with the same case ids; null draws outlines on a blank ground.
    """

    predictions: Path
    labels: Path
    output: Path
    images: Path | None = None


@file_problems()
def evaluate_pair(
    pair: FolderPair,
    *,
    nsd_tolerance_mm: float,
    class_names: Sequence[str] | None = None,
    ignore_label: int | None = None,
    patient_pattern: str | None = None,
    workers: int = 1,
    leave_out: bool = False,
) -> Evaluation:
    """Scores a folder of label maps against another, draws the page of cases, and prints the table.

    Args:
        pair: The folders.
        nsd_tolerance_mm: Tolerance of NSD, in mm, 0 or more.
        class_names: Names by class index, background first; None takes every value found, with names made of it.
        ignore_label: Value of label voxels that count for neither side.
        patient_pattern: Regular expression whose first group is the patient in a case id; None takes each case as a
            patient of its own.
        workers: Processes that score cases; 1 scores them in this one.
        leave_out: Whether cases that cannot be scored are left out and named, instead of refusing all.

    Returns:
        The summary.

    Raises:
        DataError: As for `seg.evaluation.evaluate_folders`, or cases have no image where a folder of images is given.
            Nothing is written then.
        RunError: The output cannot be written.
    """
    matched, _ = match_files(pair.predictions, pair.labels)
    # Before the scoring, which may take hours: a wrong folder of images is named at once.
    images = {} if pair.images is None else find_images(pair.images, matched)
    evaluation = evaluate_folders(
        pair.predictions,
        pair.labels,
        pair.output,
        class_names=class_names,
        nsd_tolerance_mm=nsd_tolerance_mm,
        ignore_label=ignore_label,
        patient_pattern=patient_pattern,
        workers=workers,
        leave_out=leave_out,
    )
    scored = {record.case_id for record in read_cases(pair.output)}
    files = {
        case_id: CaseFiles(prediction=prediction, label=label, images=(images[case_id],) if case_id in images else ())
        for case_id, (prediction, label) in matched.items()
        if case_id in scored
    }
    title = f"{pair.predictions.resolve().name} against {pair.labels.resolve().name}"
    page = pair.output / PAGE_FILE
    write_page(page, evaluation, read_cases(pair.output), files, About(title=title, ignore_label=ignore_label))
    print(format_evaluation(evaluation))
    print(f"results: {pair.output}")
    print(f"cases: {page}")
    return evaluation


LOG = logging.getLogger(__name__)
MAX_CLASS = 255
"""Largest value taken for a class where classes are not named; larger values are rather intensities."""


@dataclass(frozen=True, kw_only=True)
class _Task:
    """One case to score: two files and how to read them."""

    case_id: str
    prediction: Path
    label: Path
    num_classes: int | None
    nsd_tolerance_mm: float
    ignore_label: int | None


@dataclass(frozen=True, kw_only=True)
class _Outcome:
    """The result of a case: scores by class index or problems, and warnings about the label."""

    scores: dict[int, ClassScores]
    problems: tuple[str, ...]
    warnings: tuple[str, ...] = ()


def evaluate_folders(
    predictions: Path,
    labels: Path,
    output: Path,
    *,
    class_names: Sequence[str] | None = None,
    nsd_tolerance_mm: float,
    ignore_label: int | None = None,
    patient_pattern: str | None = None,
    bootstrap_samples: int = BOOTSTRAP_SAMPLES,
    workers: int = 1,
    leave_out: bool = False,
) -> Evaluation:
    """Scores a folder of predicted label maps against a folder of references and writes the results.

    Args:
        predictions: Folder of CASE.nii.gz or CASE.nii files.
        labels: Folder of references with the same case ids, no more and no fewer.
        output: Folder for evaluation.json and cases.csv.
        class_names: Names by class index, background first; None takes every value found, with names made of it.
        nsd_tolerance_mm: Tolerance of NSD, in mm, 0 or more.
        ignore_label: Value of label voxels that count for neither side.
        patient_pattern: Regular expression whose first group is the patient in a case id; None takes each case as a
            patient of its own.
        bootstrap_samples: Resamples of patients behind each interval, 1 or more.
        workers: Processes that score cases; 1 scores them in this one.
        leave_out: Whether cases that cannot be scored are left out and named in the summary, instead of refusing all.

    Returns:
        The summary.

    Raises:
        ConfigError: ``patient_pattern`` is no regular expression with a group.
        DataError: Cases lack a counterpart, cannot be read, lie on different grids or hold values that are no class,
            and may not be left out, or none is left: one sentence for each problem of every case. Nothing is written
            then.
        RunError: The output cannot be written, or a process that scores was ended, as for want of memory.
    """
    if unwritable := unencodable(class_names or ()):
        raise DataError(unwritable)
    pairs, problems = match_files(predictions, labels)
    patients = {case_id: case_id for case_id in pairs}
    if patient_pattern is not None:
        patients = find_patients(pairs, patient_pattern, name="patient_pattern")
    tasks = [
        _Task(
            case_id=case_id,
            prediction=prediction,
            label=label,
            num_classes=None if class_names is None else len(class_names),
            nsd_tolerance_mm=nsd_tolerance_mm,
            ignore_label=ignore_label,
        )
        for case_id, (prediction, label) in pairs.items()
    ]
    outcomes = _score_all(tasks, workers)
    problems.extend(problem for outcome in outcomes for problem in outcome.problems)
    scored = [(task, outcome) for task, outcome in zip(tasks, outcomes, strict=True) if not outcome.problems]
    if problems and not (leave_out and scored):
        raise DataError(problems)
    for outcome in outcomes:
        for warning in outcome.warnings:
            LOG.warning("%s", warning)
    highest = max((max(outcome.scores, default=0) for _, outcome in scored), default=0)
    names = tuple(class_names or ("background", *(f"class_{index}" for index in range(1, highest + 1))))
    records: list[CaseScore] = []
    for task, outcome in scored:
        scores = {index: outcome.scores.get(index, EMPTY_SCORES) for index in range(1, len(names))}
        records.extend(case_scores(scores, case_id=task.case_id, class_names=names, patient=patients[task.case_id]))
    if not records:
        raise DataError(
            f"{labels}: no label or prediction holds a foreground voxel; give label maps with classes 1, 2, ..."
        )
    evaluation = summarise(
        records, class_names=names, nsd_tolerance_mm=nsd_tolerance_mm, bootstrap_samples=bootstrap_samples
    )
    evaluation = replace(evaluation, left_out=tuple(problems))
    write_evaluation(output, evaluation, records)
    return evaluation


def _score_all(tasks: Sequence[_Task], workers: int) -> list[_Outcome]:
    """Scores cases in this process or in several, in the order given."""
    # disable=None: the bar shows on a terminal only.
    progress = partial(tqdm, total=len(tasks), desc="evaluate", unit="case", disable=None)
    if workers <= 1:
        return [_score_files(task) for task in progress(tasks)]
    done = []
    try:
        # Spawned, not forked: a caller that trained before holds threads which a fork would copy half of.
        with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
            for outcome in progress(pool.map(_score_files, tasks)):
                done.append(outcome)
    except BrokenProcessPool as error:
        raise RunError(
            f"processes that score must live to their end, got one ended, most likely for want of memory, after "
            f"{len(done)} of {len(tasks)} cases; score with fewer than {workers} workers at a time."
        ) from error
    return done


def _score_files(task: _Task) -> _Outcome:
    """Reads, checks and scores a case; a case that does not fit in memory fails without the others."""
    try:
        return _score(task)
    except MemoryError:
        problem = (
            f"case {task.case_id}: must fit in memory to be scored, got {task.label.name} that does not; score "
            "with fewer workers at a time, or crop it."
        )
        return _Outcome(scores={}, problems=(problem,))


def _score(task: _Task) -> _Outcome:
    problems: list[str] = []
    volumes = []
    for path in (task.prediction, task.label):
        try:
            volumes.append(read_label(path))
        except DataError as error:
            problems.extend(f"case {task.case_id}: {problem}" for problem in error.sentences)
    if problems:
        return _Outcome(scores={}, problems=tuple(problems))
    prediction, label = volumes
    limit = task.num_classes
    problems.extend(f"case {task.case_id}: {problem}" for problem in _check_grids(prediction, label))
    problems.extend(
        f"case {task.case_id}: {role} {problem}"
        for role, volume, allowed in (("prediction", prediction, None), ("label", label, task.ignore_label))
        for problem in _check_values(volume.array, limit, allowed)
    )
    if problems:
        return _Outcome(scores={}, problems=tuple(problems))
    predicted, expected = (np.rint(volume.array).astype(np.int64) for volume in volumes)
    if limit is None:
        kept = expected[expected != task.ignore_label] if task.ignore_label is not None else expected
        limit = 1 + max(int(predicted.max(initial=0)), int(kept.max(initial=0)))
    scores = score_case(
        predicted,
        expected,
        spacing_mm=label.spacing_mm,
        num_classes=limit,
        nsd_tolerance_mm=task.nsd_tolerance_mm,
        ignore_label=task.ignore_label,
    )
    where = f"case {task.case_id}: label {task.label.name}"
    return _Outcome(scores=scores, problems=(), warnings=tuple(f"{where}: {text}" for text in label.warnings))


def _check_grids(prediction: Volume, label: Volume) -> list[str]:
    """Says how the grids of two volumes differ."""
    if prediction.array.shape != label.array.shape:
        return [
            f"prediction shape {prediction.array.shape} differs from label shape {label.array.shape}; "
            "export the prediction on the label's grid."
        ]
    apart = corner_distance(label.array.shape, prediction.affine, label.affine)
    if apart > GRID_TOLERANCE * min(label.spacing_mm):
        return [
            f"prediction affine differs from label affine by {apart:.4g} mm at a corner, more than {GRID_TOLERANCE:g} "
            "voxel; export the prediction on the label's grid."
        ]
    return []


def _check_values(array: npt.NDArray[Any], num_classes: int | None, allowed: int | None) -> list[str]:
    """Returns a problem where values of a label map are no class; `allowed` is a further value."""
    if not np.issubdtype(array.dtype, np.integer):
        odd = ~np.isfinite(array) | (np.abs(array - np.rint(array)) > LABEL_TOLERANCE)
        if odd.any():
            values = _first(np.unique(array[odd]))
            return [f"holds values that are not integers: {values}; export it with nearest-neighbour interpolation."]
        array = np.rint(array)
    top = MAX_CLASS if num_classes is None else num_classes - 1
    # Sorting the few voxels that break the rule is far cheaper than np.unique over the whole volume.
    outside = np.unique(array[(array < 0) | (array > top)])
    outside = outside[outside != allowed] if allowed is not None else outside
    if len(outside):
        return [
            f"holds values {_first(outside)}, but classes are 0 to {top}; declare these classes or relabel the file."
        ]
    return []


def _first(values: npt.NDArray[Any], limit: int = 5) -> str:
    """Lists values, cut short where there are many."""
    listed = ", ".join(f"{value:g}" for value in values[:limit])
    return f"{listed} and {len(values) - limit} more" if len(values) > limit else listed


def _list_cases(folder: Path) -> dict[str, Path]:
    """Gives the label maps of a folder by case id, in order of their names."""
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; give the folder that holds the label maps.")
    files: dict[str, Path] = {}
    problems: list[str | Problem] = []
    for path in sorted(folder.iterdir()):
        case_id, ending = split_ending(path.name)
        # Archives made on a Mac carry a hidden "._CASE.nii.gz" beside every file.
        if not ending or path.name.startswith("."):
            continue
        if case_id in files:
            problems.append(f"case {case_id}: {folder} holds {files[case_id].name} and {path.name}; keep one of them.")
        files[case_id] = path
    if not files:
        problems.append(
            f"{folder} holds no {' or '.join(NIFTI_ENDINGS)} file; give the folder that holds the label maps."
        )
    problems += unencodable(files)
    if problems:
        raise DataError(problems)
    return files


def match_files(predictions: Path, labels: Path) -> tuple[dict[str, tuple[Path, Path]], list[str]]:
    """Pairs predictions with references by case id.

    Returns:
        The prediction and the reference of each case that has both; and one sentence for each case that has not.
    """
    predicted, expected = _list_cases(predictions), _list_cases(labels)
    problems = [
        f"case {case_id}: {files[case_id]} has no counterpart in {other}; {remedy}."
        for files, others, other, remedy in (
            (predicted, expected, labels, "add its reference or remove the prediction"),
            (expected, predicted, predictions, "predict it, or give a folder of the scored references alone"),
        )
        for case_id in files
        if case_id not in others
    ]
    return {case_id: (path, expected[case_id]) for case_id, path in predicted.items() if case_id in expected}, problems


def find_images(folder: Path, case_ids: Iterable[str]) -> dict[str, Path]:
    """Finds the image of each case by its name, in any format that is predicted: CASE.nii.gz, or its first channel.

    Of several channels that is CASE_0000.nii.gz; a DICOM series is called after its folders, as in prediction.

    Args:
        folder: Folder of images; other files in it are left alone.
        case_ids: The cases.

    Raises:
        DataError: The folder does not exist, or cases have no image in it; all are named together.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; give the folder that holds the images.")
    found: dict[str, Path] = {}
    problems = []
    files = {in_small_letters(path.name, ENDINGS): path for path in folder.iterdir() if path.is_file()}
    series = {group.name: group.paths[0] for group in series_below(folder)[0]}
    for case_id in case_ids:
        named = (files[name] for ending in IMAGE_ENDINGS if (name := f"{case_id}{ending}") in files)
        path = next(named, series.get(case_id))
        if path is None:
            problems.append(
                f"case {case_id}: {folder} must hold its image, got no {case_id}.nii.gz and no {case_id}_0000.nii.gz; "
                "add it or leave --images out."
            )
        else:
            found[case_id] = path
    if problems:
        raise DataError(problems)
    return found
