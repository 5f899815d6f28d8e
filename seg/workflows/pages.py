"""The page of cases of a run or of two folders: which files of a case are drawn, and what is said of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from seg.data.cases import Dataset
from seg.data.endings import in_small_letters
from seg.data.formats import ENDINGS
from seg.errors import DataError
from seg.evaluation import CaseScore, Evaluation
from seg.figures import PAGE_FILE, About, CaseFiles, write_page
from seg.prediction.inputs import series_below

IMAGE_ENDINGS = tuple(f"{number}{ending}" for number in ("", "_0000") for ending in ENDINGS)
"""What follows the case id in the name of its image; nnU-Net numbers the channels."""


def write_run_page(
    output: Path,
    evaluation: Evaluation,
    scores: Sequence[CaseScore],
    predictions: Mapping[str, Path],
    dataset: Dataset,
    title: str,
) -> None:
    """Writes cases.html of a run, or of several folds.

    Args:
        output: Folder of the page.
        evaluation: The summary.
        scores: The scores that it summarises.
        predictions: Label map of each scored case, by case id.
        dataset: The data set, which has a label for each of them.
        title: Name of the run.

    Raises:
        DataError: A label map cannot be read.
        RunError: The page cannot be written.
    """
    files = {
        case.id: CaseFiles(prediction=predictions[case.id], label=case.label, images=case.images)
        for case in dataset.cases
        if case.label is not None and case.id in predictions
    }
    about = About(
        title=title,
        data_set=dataset.name,
        licence=dataset.licence,
        attribution=dataset.attribution,
        channel=dataset.channel_names[0],
        ignore_label=dataset.ignore_label,
    )
    write_page(output / PAGE_FILE, evaluation, scores, files, about)


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
