"""Pairs of predictions and references, found by file name."""

from __future__ import annotations

from pathlib import Path

from seg.data.endings import NIFTI_ENDINGS, split_ending
from seg.errors import DataError


def _list_cases(folder: Path) -> dict[str, Path]:
    """Gives the label maps of a folder by case id, in order of their names."""
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; give the folder that holds the label maps.")
    files: dict[str, Path] = {}
    problems = []
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
