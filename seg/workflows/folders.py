"""Evaluation of any two folders of label maps, with a page of cases; needs no torch."""

from __future__ import annotations

import logging
import math
import multiprocessing
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from seg.config.patients import find_patients
from seg.data.cases import LABEL_TOLERANCE
from seg.data.channels import FIRST
from seg.data.geometry import GRID_TOLERANCE, corner_distance, voxel_ml_of
from seg.data.volumes import ENDINGS, NIFTI_ENDINGS, Volume, read_label, split_ending
from seg.errors import DataError, Problem, RunError, prefixed
from seg.evaluation.metrics import EMPTY_SCORES, ClassScores, distance_doubts, score_case
from seg.evaluation.scores import CaseScore, Evaluation, case_scores, write_evaluation
from seg.evaluation.summary import format_evaluation, summarise
from seg.figures import PAGE_FILE, About, CaseFiles, write_page
from seg.files import file_problems, real_path, unencodable
from seg.inference.cases import series_below
from seg.processes import capped_workers
from seg.runs import check_scored_into
from seg.words import some

LOG = logging.getLogger(__name__)
MAX_CLASS = 255
"""Largest value taken for a class where classes are not named; larger values are rather intensities."""
FOLDER_REMEDY = "give the folder that holds the label maps"


@dataclass(frozen=True, kw_only=True)
class _Outcome:
    """The result of a case: scores by class index or problems, and warnings about the label."""

    scores: Mapping[int, ClassScores] = field(default_factory=dict)
    problems: Sequence[Problem] = ()
    warnings: Sequence[str] = ()


@file_problems()
def evaluate_folders(
    predictions: Path,
    labels: Path,
    output: Path,
    *,
    nsd_tolerance_mm: float,
    images: Path | None = None,
    class_names: Sequence[str] | None = None,
    ignore_label: int | None = None,
    patient_pattern: str | None = None,
    workers: int = 1,
    leave_out: bool = False,
) -> Evaluation:
    """Scores a folder of label maps against another, draws the page of cases, and prints the table.

    Args:
        predictions: Folder of CASE.nii.gz or CASE.nii files.
        labels: Folder of references with the same case ids, no more and no fewer.
        output: Folder for evaluation.json, cases.csv and cases.html.
        nsd_tolerance_mm: Tolerance of NSD, in mm, 0 or more.
        images: Folder of images with the same case ids; None draws outlines on a blank ground.
        class_names: Names by class index, background first; None takes every value found, with names made of it.
        ignore_label: Value of label voxels that count for neither side.
        patient_pattern: Regular expression whose first group is the patient in a case id; None takes each case as a
            patient of its own.
        workers: Processes that score cases, at most one for each case and core; 1 scores them in this one.
        leave_out: Whether cases that cannot be scored are left out and named in the summary, instead of refusing all.

    Raises:
        ConfigError: ``patient_pattern`` is no regular expression with a group.
        DataError: Cases lack a counterpart or, where a folder of images is given, an image, cannot be read, lie on
            different grids or hold values that are no class, and may not be left out, or none is left. All problems of
            every case are named, and nothing is written. Or both folders have the same files.
        RunError: The output cannot be written or holds a run, or a process that scores was ended, as for want of
            memory.
    """
    if unwritable := unencodable(class_names or ()):
        raise DataError(unwritable)
    pairs, problems = _match_files(predictions, labels)
    check_scored_into(output)
    if pairs and all(real_path(path) == real_path(label) for path, label in pairs.values()):
        rule = f"must hold other files than {predictions}"
        raise DataError(Problem(str(labels), "same", rule, "the same ones", "give the folder of the references"))
    # Before the scoring, which may take hours: a wrong folder of images is named at once.
    found = {} if images is None else _find_images(images, pairs)
    patients = {} if patient_pattern is None else find_patients(pairs, patient_pattern, name="patient_pattern")
    score = partial(
        _score_files,
        num_classes=None if class_names is None else len(class_names),
        nsd_tolerance_mm=nsd_tolerance_mm,
        ignore_label=ignore_label,
    )
    outcomes = _score_all(score, pairs, workers)
    problems += [problem for outcome in outcomes.values() for problem in outcome.problems]
    scored = {case_id: outcome for case_id, outcome in outcomes.items() if not outcome.problems}
    if problems and not (leave_out and scored):
        if scored:
            rule = f"leaves these cases out and scores the other {len(scored)}"
            problems.append(Problem("--leave_out", "leave_out", rule))
        raise DataError(problems)
    for outcome in outcomes.values():
        for warning in outcome.warnings:
            LOG.warning("%s", warning)
    indices = range(1, len(class_names)) if class_names else _found_values(scored)
    names = tuple(class_names or ("background", *(f"class_{index}" for index in range(1, max(indices, default=0) + 1))))
    records: list[CaseScore] = []
    for case_id, outcome in scored.items():
        scores = {index: outcome.scores.get(index, EMPTY_SCORES) for index in indices}
        records += case_scores(scores, case_id=case_id, class_names=names, patient=patients.get(case_id))
    if not records:
        rule = "or the predictions must hold a foreground voxel"
        raise DataError(Problem(str(labels), "empty", rule, "none", "give label maps with classes 1, 2, ..."))
    summary = summarise(records, class_names=names, nsd_tolerance_mm=nsd_tolerance_mm)
    evaluation = replace(summary, left_out=tuple(problems))
    files = {
        case_id: CaseFiles(prediction=pairs[case_id][0], label=pairs[case_id][1], images=found.get(case_id, ()))
        for case_id in scored
    }
    title = f"{real_path(predictions).name} against {real_path(labels).name}"
    write_page(output / PAGE_FILE, evaluation, records, files, About(title=title, ignore_label=ignore_label))
    write_evaluation(output, evaluation, records)
    print(format_evaluation(evaluation))
    print(f"results: {output}\ncases: {output / PAGE_FILE}")
    return evaluation


def _found_values(scored: Mapping[str, _Outcome]) -> list[int]:
    """Returns the values of foreground voxels; warns of those that one case of several holds."""
    holders: dict[int, list[str]] = {}
    for case_id, outcome in scored.items():
        for index, scores in outcome.scores.items():
            if not math.isnan(scores.dice):  # prediction or reference has the class
                holders.setdefault(index, []).append(case_id)
    for index, cases in sorted(holders.items()):
        if len(cases) == 1 < len(scored):
            LOG.warning("case %s: alone holds the value %d; give --class_names if it is no class", cases[0], index)
    return sorted(holders)


def _score_all(score: partial[_Outcome], pairs: Mapping[str, tuple[Path, Path]], workers: int) -> dict[str, _Outcome]:
    """Scores cases in this process or in several, in the order given."""
    # disable=None: the bar shows on a terminal only.
    progress = partial(tqdm, total=len(pairs), desc="evaluate", unit="case", disable=None)
    workers = capped_workers("--workers", workers, cases=len(pairs))
    if workers <= 1:
        return {case_id: score((case_id, *files)) for case_id, files in progress(pairs.items())}
    done: list[_Outcome] = []
    try:
        # Spawned, not forked: a caller that trained before holds threads which a fork would copy half of.
        with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
            done.extend(progress(pool.map(score, [(case_id, *files) for case_id, files in pairs.items()])))
    except BrokenProcessPool as error:
        value = f"one ended, most likely for want of memory, after {len(done)} of {len(pairs)} cases"
        remedy = f"score with fewer than {workers} workers at a time"
        problem = Problem("processes that score", "ended", "must live to their end", value, remedy)
        raise RunError(problem) from error
    return dict(zip(pairs, done, strict=True))


def _score_files(
    case: tuple[str, Path, Path], *, num_classes: int | None, nsd_tolerance_mm: float, ignore_label: int | None
) -> _Outcome:
    """Reads, checks and scores a case; one that cannot be read or does not fit in memory fails alone."""
    case_id, prediction_file, label_file = case
    name = f"case {case_id}"
    volumes: list[Volume] = []
    problems: list[Problem] = []
    try:
        for path in (label_file, prediction_file):  # the map of the prediction is oriented like that of the label
            try:
                volumes.append(read_label(path, like=volumes[0].affine if volumes else None))
            except DataError as error:
                problems += error.problems
        if not problems:
            label_map, predicted = volumes
            problems = _check_case(predicted, label_map, num_classes, ignore_label)
        if problems:
            return _Outcome(problems=prefixed(name, problems))
        label, prediction = (np.rint(volume.array).astype(np.int64) for volume in volumes)
        if num_classes is None:
            kept = label if ignore_label is None else label[label != ignore_label]
            num_classes = 1 + max(int(prediction.max(initial=0)), int(kept.max(initial=0)))
        voxel_ml = voxel_ml_of(label_map.affine)
        scores = score_case(
            prediction,
            label,
            spacing_mm=label_map.spacing_mm,
            voxel_ml=voxel_ml,
            num_classes=num_classes,
            nsd_tolerance_mm=nsd_tolerance_mm,
            ignore_label=ignore_label,
        )
    except MemoryError:
        rule, value = "must fit in memory to be scored", f"{label_file.name} that does not"
        return _Outcome(problems=[Problem(name, "memory", rule, value, "score with fewer workers, or crop it")])
    doubts = (*label_map.warnings, *distance_doubts(label_map.spacing_mm, voxel_ml))
    return _Outcome(scores=scores, warnings=[f"{name}: label {label_file.name}: {text}" for text in doubts])


def _check_case(prediction: Volume, label: Volume, num_classes: int | None, ignore_label: int | None) -> list[Problem]:
    """Says how the grids of two label maps differ, and which values are no class."""
    problems: list[Problem] = []
    remedy = "export the prediction on the label's grid"
    if prediction.array.shape != label.array.shape:
        rule = f"must have the label's shape {label.array.shape}"
        problems.append(Problem("prediction", "shape", rule, f"{prediction.array.shape}", remedy))
    else:
        apart = corner_distance(label.array.shape, prediction.affine, label.affine)
        if apart > GRID_TOLERANCE * min(label.spacing_mm):
            rule = f"must have the label's affine, up to {GRID_TOLERANCE:g} voxel at each corner"
            problems.append(Problem("prediction", "affine", rule, f"{apart:.4g} mm", remedy))
    top = MAX_CLASS if num_classes is None else num_classes - 1
    for role, array, allowed in (("prediction", prediction.array, None), ("label", label.array, ignore_label)):
        if not np.issubdtype(array.dtype, np.integer):
            with np.errstate(invalid="ignore"):  # infinite voxels, which are no integers
                odd = ~np.isfinite(array) | (np.abs(array - np.rint(array)) > LABEL_TOLERANCE)
            if odd.any():
                remedy = "export it with nearest-neighbour interpolation"
                problems.append(Problem(role, "integers", "must hold integers", _listed(array[odd]), remedy))
                continue
            array = np.rint(array)
        # Sorting the few voxels that break the rule is far cheaper than np.unique over the whole volume.
        outside = array[(array < 0) | (array > top)]
        outside = outside if allowed is None else outside[outside != allowed]
        if len(outside):
            rule = f"must hold classes 0 to {top}"
            problems.append(Problem(role, "classes", rule, _listed(outside), "declare the classes or relabel the file"))
    return problems


def _listed(values: npt.NDArray[Any]) -> str:
    return some(np.unique(values).tolist(), form="g")


def _check_given(folder: Path, remedy: str) -> None:
    if not folder.exists():
        raise DataError(Problem(str(folder), "missing", "must exist", "no such folder", "check the path"))
    if not folder.is_dir():
        raise DataError(Problem(str(folder), "folder", "must be a folder", remedy=remedy))


def _list_cases(folder: Path) -> dict[str, Path]:
    """Gives the label maps of a folder by case id, in order of their names."""
    _check_given(folder, FOLDER_REMEDY)
    files: dict[str, Path] = {}
    problems = []
    for path in sorted(folder.iterdir()):
        case_id, ending = split_ending(path.name)
        # Archives made on a Mac carry a hidden "._CASE.nii.gz" beside every file.
        if not ending or path.name.startswith("."):
            continue
        if case_id in files:
            value = f"{files[case_id].name} and {path.name} in {folder}"
            problems.append(Problem(f"case {case_id}", "twice", "must be one file", value, "keep one of them"))
        files[case_id] = path
    if not files:
        rule = f"must hold {' or '.join(NIFTI_ENDINGS)} files"
        problems.append(Problem(str(folder), "empty", rule, "none", FOLDER_REMEDY))
    problems += unencodable(files)
    if problems:
        raise DataError(problems)
    return files


def _match_files(predictions: Path, labels: Path) -> tuple[dict[str, tuple[Path, Path]], list[Problem]]:
    """Returns prediction and reference of each case that has both, and a problem for each case that has not."""
    predicted, expected = _list_cases(predictions), _list_cases(labels)
    problems = [
        Problem(f"case {case_id}", "counterpart", f"must be in {other} too", f"{path} alone", remedy)
        for files, others, other, remedy in (
            (predicted, expected, labels, "add its reference or remove the prediction"),
            (expected, predicted, predictions, "predict it, or give a folder of the scored references alone"),
        )
        for case_id, path in files.items()
        if case_id not in others
    ]
    return {case_id: (path, expected[case_id]) for case_id, path in predicted.items() if case_id in expected}, problems


def _find_images(folder: Path, case_ids: Iterable[str]) -> dict[str, tuple[Path]]:
    """Finds the image of each case by its name, in any format that is predicted: CASE.nii.gz, or its first channel.

    Of several channels that is CASE_0000.nii.gz; a DICOM series is called after its folders, as in prediction.
    """
    _check_given(folder, "give the folder of the images")
    found: dict[str, tuple[Path]] = {}
    problems = []
    named = {group.name: group.paths[0] for group in series_below(folder)[0]}
    files = [(path, *split_ending(path.name, ENDINGS)) for path in folder.iterdir() if path.is_file()]
    for wanted in reversed(ENDINGS):  # of several files of one name, that of the first ending counts
        named |= {stem: path for path, stem, ending in files if ending.lower() == wanted}
    for case_id in case_ids:
        path = named.get(case_id) or named.get(f"{case_id}{FIRST}")
        if path is None:
            value = f"no {case_id}.nii.gz and no {case_id}_0000.nii.gz"
            remedy = "add it or leave --images out"
            problems.append(Problem(f"case {case_id}", "image", f"must have its image in {folder}", value, remedy))
        else:
            found[case_id] = (path,)
    if problems:
        raise DataError(problems)
    return found
