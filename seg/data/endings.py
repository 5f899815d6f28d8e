"""Endings of file names, which count the same in capitals: some scanners and file systems write them so."""

from __future__ import annotations

from collections.abc import Iterable

NIFTI_ENDINGS = (".nii.gz", ".nii")


def split_ending(name: str, endings: Iterable[str] = NIFTI_ENDINGS) -> tuple[str, str]:
    """Splits a file name before its ending.

    Args:
        name: Name of a file, without folders.
        endings: Those that are known, in small letters.

    Returns:
        What stands before it, and the ending as the name has it; the whole name and no ending where the name has none
        of them, or nothing else.
    """
    ending = max((known for known in endings if name.lower().endswith(known)), key=len, default="")
    stem = name[: len(name) - len(ending)]
    return (stem, name[len(stem) :]) if stem else (name, "")


def in_small_letters(name: str, endings: Iterable[str] = NIFTI_ENDINGS) -> str:
    """Returns a file name whose ending is in small letters, so that names of one file can be compared."""
    stem, ending = split_ending(name, endings)
    return stem + ending.lower()


def is_gzip(name: str) -> bool:
    """Says whether a file of this name is packed."""
    return name.lower().endswith(".gz")
