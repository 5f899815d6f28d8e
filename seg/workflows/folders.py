"""Evaluation of two folders of label maps, with its page of cases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from seg.evaluation import Evaluation, evaluate_folders, format_evaluation, read_cases
from seg.evaluation.pairs import match_files
from seg.figures import PAGE_FILE, About, CaseFiles, write_page
from seg.workflows.pages import find_images


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
    # Before the scoring: hours of it should not end in a wrong folder of images.
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
