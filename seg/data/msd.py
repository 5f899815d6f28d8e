"""The layout of the Medical Segmentation Decathlon.

References:
    Antonelli et al., The Medical Segmentation Decathlon, Nature Communications 13, 4128 (2022),
    doi 10.1038/s41467-022-30695-9.
"""

from __future__ import annotations

from pathlib import Path

from seg.data.cases import Case, Dataset
from seg.data.declarations import check_number, described, read_case, read_json, read_meaning
from seg.data.ids import check_ids
from seg.errors import DataError

FILE_NAME = "dataset.json"


def read_msd(root: Path) -> Dataset:
    """Reads ``dataset.json`` with its list ``training`` of image and label paths.

    A multi-channel image is one 4-D file with channels on the last axis. Entries may carry ``id``, ``patient`` and
    ``fold`` as well.

    Args:
        root: Folder of the data set.

    Returns:
        The cases of the list ``training``, in its order.

    Raises:
        DataError: The description breaks a rule; all that are broken are named.
    """
    path = root / FILE_NAME
    content = read_json(path)
    problems: list[str] = []
    entries = content.get("training")
    if not isinstance(entries, list) or not entries:
        raise DataError(f"{path}: training must be a list of at least one case, got {entries!r}; see data.layout.")
    cases: list[Case] = []
    for number, entry in enumerate(entries):
        where = f"{path}: training[{number}]"
        if not isinstance(entry, dict):
            problems.append(f"{where} must be an object with image and label, got {entry!r}; correct the entry.")
        elif case := read_case(root, entry, where, problems):
            cases.append(case)
    labels = content.get("labels")
    if not isinstance(labels, dict):
        problems.append(f'{path}: labels must name each label value, got {labels!r}; write {{"0": "background", ...}}.')
        labels = {}
    names = {str(name): value for value, name in labels.items()}
    if len(names) < len(labels):
        problems.append(f"{path}: class names must be unique, got {sorted(map(str, labels.values()))}; rename one.")
    meaning = read_meaning(names, content.get("channel_names", content.get("modality")), path, problems)
    problems.extend(check_ids(cases, path))
    problems.extend(check_number(content, len(entries), path))
    if problems:
        raise DataError(problems)
    return described(content, root, "msd", cases, meaning)
