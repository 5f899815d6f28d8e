"""From a folder to the data set that it holds: the Medical Segmentation Decathlon, nnU-Net, or a manifest of files.

A manifest is a table for data in no known layout. ``manifest.csv`` has a header and a line per case; ``manifest.json``
has a list ``cases`` of objects with the same names. Paths are relative to the manifest's folder.

======================  ===============================================================================================
column                  meaning
======================  ===============================================================================================
image                   file of the image; several files, one per channel, are separated by ``;`` (in JSON: a list)
image_0, image_1, ...   instead of ``image`` in CSV: one column per channel
label                   file of the label map (may be empty)
id                      name of the case; else that of its first image file
patient                 whose case it is: cases of one patient stay on one side of a split
fold                    number of the fold that validates on the case, from 0
======================  ===============================================================================================

``name``, ``licence``, ``labels`` (``{"background": 0, "liver": 1}``; the name ``ignore`` marks a label left out) and
``channel_names`` (``{"0": "T1"}`` or a list) may stand in ``manifest.json``, beside ``cases`` or beside a
``manifest.csv``. Without ``labels`` the classes are 0 to the highest value of the label files, which are read for it
and must hold every value in between; without ``channel_names`` the channels are counted in the first case that can be
read.

References:
    Antonelli et al. The Medical Segmentation Decathlon. 2022. doi:10.1038/s41467-022-30695-9.
    Isensee et al. nnU-Net. 2021. doi:10.1038/s41592-020-01008-z (layout of version 2).
"""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from seg.config import DataConfig
from seg.config.patients import find_patients
from seg.data.cases import LABEL_TOLERANCE, Case, Dataset
from seg.data.channels import channel_file, split_channel
from seg.data.classes import MAX_INDEX, Classes, as_integer, declared_classes
from seg.data.fetch import ARCHIVES
from seg.data.splits import Split, make_splits, shared_patients
from seg.data.volumes import ENDINGS, read_header, read_volume, split_ending
from seg.errors import DataError, Problem, shown
from seg.files import read_json, read_table, real_path

LOG = logging.getLogger(__name__)
Layout = Literal["auto", "msd", "nnunet", "manifest"]
DESCRIPTION = "dataset.json"
REMEDY = "correct the file, or export it again"
PATIENTS = "patients.csv"
FETCHED = {"phantom": "phantom"} | {archive.folder: name for name, archive in ARCHIVES.items()}
"""Name for ``seg fetch`` of each data set that it puts in place, by its folder."""
MANIFESTS = ("manifest.csv", "manifest.json")
SCHEMA_VERSION = 1
FILE_ENDINGS = tuple(ending for ending in ENDINGS if ending != ".dcm")
"""Endings of nnU-Net's files; a file of DICOM is a slice."""
MAX_ID_BYTES = 200  # of the 255 that file systems give a name; endings and names of partial files take the others
_ID = re.compile(r"[^\W_][\w.+ -]*")
_CHANNEL = re.compile(r"image_([0-9]{1,4})")


class _Entry(BaseModel):
    """A case in a list."""

    model_config = ConfigDict(strict=True, extra="ignore")
    image: str | list[str] = Field(union_mode="left_to_right")
    label: str | None = None
    id: str | int | None = None
    patient: str | int | None = None
    fold: int | None = Field(default=None, ge=0)


class _ManifestEntry(_Entry):
    """A case in a manifest, which names nothing else."""

    model_config = ConfigDict(strict=True, extra="forbid")


class _ListedFiles(BaseModel):
    """A case in the entry ``dataset`` of nnU-Net."""

    model_config = ConfigDict(strict=True, extra="ignore")
    images: list[str] = Field(min_length=1)
    label: str | None = None


class _Description(BaseModel):
    """What every description may say."""

    model_config = ConfigDict(strict=True, extra="ignore")
    schema_version: int = Field(default=SCHEMA_VERSION, ge=1, le=SCHEMA_VERSION)
    name: Any = None
    licence: Any = None
    license: Any = None
    reference: Any = None
    channel_names: dict[str, Any] | list[Any] | None = None
    regions_class_order: list[int] = Field(default_factory=list)
    numTraining: Any = None  # noqa: N815  # as files name it


class _Msd(_Description):
    training: list[_Entry] = Field(min_length=1)
    labels: dict[str, Any]
    modality: dict[str, Any] | list[Any] | None = None


class _NnUnet(_Description):
    labels: dict[str, Any]
    file_ending: str
    dataset: dict[str, _ListedFiles] | None = Field(default=None, min_length=1)


class _Manifest(_Description):
    labels: dict[str, Any] | None = None
    cases: list[_ManifestEntry] | None = Field(default=None, min_length=1)


def read_dataset(root: Path, *, layout: Layout = "auto", patient_pattern: str | None = None) -> Dataset:
    """Finds the cases of a data set; opens no image, but the label files of a manifest without declared classes.

    Args:
        root: Folder of the data set, or the file of a manifest.
        layout: Layout of the folder; ``auto`` finds it out from ``dataset.json`` or the manifest there.
        patient_pattern: Regular expression searched in each case id, whose first group is the patient; it takes the
            place of patients that the data set names.

    Raises:
        ConfigError: ``patient_pattern`` is not a regular expression with a group.
        DataError: There is no data set in the folder, or its description breaks rules, which are named together.
    """
    root = Path(root)
    rule = "must be the folder of a data set as data.root"
    if not root.exists():
        remedy = f"run seg fetch {FETCHED[root.name]}" if root.name in FETCHED else "check the path"
        raise DataError(Problem(str(root), "missing", rule, "no such folder", remedy))
    if not (root.is_dir() or root.is_file()):
        raise DataError(Problem(str(root), "file", rule, "a pipe or a device", "check the path"))
    if root.is_file() and root.name == DESCRIPTION:
        raise DataError(Problem(str(root), "folder", rule, "a file in it", f"give its folder, {root.parent}"))
    dataset = _READERS[_layout_of(root) if layout == "auto" else layout](root)
    return dataset if patient_pattern is None else with_patients(dataset, patient_pattern)


def read_configured(config: DataConfig) -> Dataset:
    """Reads the data set that a configuration names; see :func:`read_dataset`.

    Where neither a pattern nor the data set names patients, they come from ``patients.csv`` beside it. Stated folds
    that put such patients on both sides come first, which is announced: every case then is a patient of its own.

    Raises:
        ConfigError: As :func:`read_dataset`, or ``classes`` are none of the data set.
        DataError: As :func:`read_dataset`; or ``patients.csv`` breaks a rule, or does not name a case.
    """
    dataset = read_dataset(Path(config.root), layout=config.layout, patient_pattern=config.patient_pattern)
    if config.classes is not None:
        dataset = _of_classes(dataset, config.classes)
    if config.label_grid == "image":
        dataset = replace(dataset, cases=tuple(replace(case, label_on_image=True) for case in dataset.cases))
    path = dataset.root / PATIENTS
    if not path.is_file() or any(case.patient is not None for case in dataset.cases):
        return dataset
    patients = _read_patients(path, dataset.cases)
    named = replace(dataset, cases=tuple(replace(case, patient=patients[case.id]) for case in dataset.cases))
    shared, where = shared_patients(named, Path(config.splits) if config.splits else None)
    if shared:
        _announce_shared(str(path), where, len(shared))
        return replace(dataset, unused_patients=tuple(shared))
    return named


@lru_cache
def _announce_shared(path: str, where: str, count: int) -> None:
    """Announces once what keeps patients from being used, however often a command reads the data set."""
    rule = f"is not used: {where} puts patients on both sides, and scores are too good by it"
    LOG.warning("%s", Problem(path, "patients", rule, f"{count}", "give other splits"))


def _read_patients(path: Path, cases: Sequence[Case]) -> dict[str, str]:
    """Returns the patient of each case in a table of the columns case and patient; lines of other cases are allowed."""
    rows = read_table(path, remedy=REMEDY, error=DataError)
    if rows and set(rows[0]) != {"case", "patient"}:
        rule = "must have the columns case and patient"
        raise DataError(Problem(str(path), "columns", rule, ", ".join(rows[0]), "correct the header"))
    patients = {row["case"].strip(): row["patient"].strip() for row in rows}
    problems = []
    if len(patients) < len(rows):
        problems.append(Problem(str(path), "unique", "must name each case once", remedy="remove the repetition"))
    rule, remedy = f"must have a patient in {path}", "add it, or remove the table"
    problems += [
        Problem(f"case {case.id}", "patient", rule, remedy=remedy) for case in cases if not patients.get(case.id)
    ]
    if problems:
        raise DataError(problems)
    return patients


def read_folds(config: DataConfig) -> tuple[Dataset, tuple[Split, ...]]:
    """Reads what a data set says of itself, and its folds; no volume.

    Raises:
        DataError: Its description or its splits break a rule.
    """
    dataset = read_configured(config)
    splits_file = Path(config.splits) if config.splits else None
    return dataset, make_splits(dataset, folds=config.folds, seed=config.split_seed, splits_file=splits_file)


def with_patients(dataset: Dataset, pattern: str) -> Dataset:
    """Returns a data set whose patients are those that a pattern finds in its case ids.

    Raises:
        ConfigError: The pattern is no regular expression with a group.
        DataError: Ids hold no patient; all of them are named.
    """
    patients = find_patients([case.id for case in dataset.cases], pattern)
    return replace(dataset, cases=tuple(replace(case, patient=patients[case.id]) for case in dataset.cases))


def _layout_of(root: Path) -> str:
    if root.is_file():
        return "manifest"
    names = [name for name in (DESCRIPTION, *MANIFESTS) if (root / name).is_file()]
    if not names:
        rule = f"must hold {DESCRIPTION} (MSD or nnU-Net) or {' or '.join(MANIFESTS)}"
        raise DataError(Problem(str(root), "layout", rule, "none of them", "check the path"))
    if DESCRIPTION not in names:
        return "manifest"
    if len(names) > 1:
        remedy = "say which to read by data.layout"
        raise DataError(Problem(str(root), "layout", "must hold one description", " and ".join(names), remedy))
    content = read_json(root / DESCRIPTION, dict[str, Any], remedy=REMEDY, error=DataError)
    if "file_ending" in content or "training" in content:
        return "nnunet" if "file_ending" in content else "msd"
    rule, remedy = "must hold training (MSD) or file_ending (nnU-Net v2)", "convert the data set to one of these"
    raise DataError(Problem(str(root / DESCRIPTION), "layout", rule, shown(sorted(content)), remedy))


def _read_msd(root: Path) -> Dataset:
    path = root / DESCRIPTION
    content = read_json(path, _Msd, remedy=REMEDY, error=DataError)
    problems: list[Problem] = []
    cases = _cases(root, [(f"{path}: training[{n}]", entry) for n, entry in enumerate(content.training)], problems)
    channels = content.channel_names or content.modality
    cases = [_channels_of(case, len(channels or ())) for case in cases]
    labels = {str(name): value for value, name in content.labels.items()}
    if len(labels) < len(content.labels):
        names = shown(sorted(map(str, content.labels.values())))
        problems.append(Problem(str(path), "labels", "class names must be unique", names, "rename one"))
    return _dataset(root, "msd", (path, content), cases, (labels, channels), problems)


def _channels_of(case: Case, count: int) -> Case:
    """Returns a case with its channels where its image is listed by the case alone, as nnU-Net v1 does it."""
    image = case.images[0]
    if os.path.lexists(image) or not os.path.exists(channel_file(image, 0)):
        return case
    return replace(case, images=tuple(channel_file(image, number) for number in range(max(1, count))))


def _read_nnunet(root: Path) -> Dataset:
    path = root / DESCRIPTION
    content = read_json(path, _NnUnet, remedy=REMEDY, error=DataError)
    if content.file_ending.lower() not in FILE_ENDINGS:
        rule = f"file_ending must be {', '.join(FILE_ENDINGS[:-1])} or {FILE_ENDINGS[-1]}"
        raise DataError(Problem(str(path), "format", rule, repr(content.file_ending), "convert the files to NIfTI"))
    problems: list[Problem] = []
    if content.dataset is not None:
        entries = [
            (f"{path}: case {case_id}", _Entry(id=case_id, image=files.images, label=files.label))
            for case_id, files in content.dataset.items()
        ]
        cases = _cases(root, entries, problems)
    else:
        cases = _found_cases(root, content.file_ending, len(content.channel_names or ()), problems)
    return _dataset(root, "nnunet", (path, content), cases, (content.labels, content.channel_names), problems)


def _read_manifest(root: Path) -> Dataset:
    path = root if root.is_file() else next((root / name for name in MANIFESTS if (root / name).is_file()), None)
    if path is None:
        rule = f"must hold {' or '.join(MANIFESTS)}"
        raise DataError(Problem(str(root), "layout", rule, "neither", "check data.root and data.layout"))
    folder, sidecar = path.parent, path.with_suffix(".json")
    content = read_json(sidecar, _Manifest, remedy=REMEDY, error=DataError) if sidecar.is_file() else _Manifest()
    if path.suffix == ".json":
        listed: Sequence[_Entry] = content.cases or []
        entries = [(f"{path}: cases[{number}]", entry) for number, entry in enumerate(listed)]
        if not entries:
            raise DataError(Problem(str(path), "empty", "cases must list at least one case", "none", "list the cases"))
    elif content.cases is not None:
        value, remedy = f"{path.name} and {sidecar.name}", "drop one list"
        raise DataError(Problem(str(folder), "layout", "must hold one list of cases", value, remedy))
    else:
        entries = _csv_entries(path)
    problems: list[Problem] = []
    cases = _cases(folder, entries, problems)
    problems += check_ids(cases, path)
    if problems:
        raise DataError(problems)
    labels, channels = content.labels, content.channel_names
    if labels is None:
        values = _label_values(cases)
        expected = range(1, max(values, default=1) + 1)
        if values and len(values) < len(expected):
            rule = "labels must be 0, 1, 2 and on without a gap where the manifest declares none"
            remedy = f"declare labels in {sidecar.name}, or correct the label maps"
            problems.append(Problem(str(folder), "labels", rule, ", ".join(map(str, sorted(values))), remedy))
        else:
            LOG.info("classes: 0 to %d, found in the label maps; declare labels in %s", expected[-1], sidecar.name)
        labels = {"background": 0} | {f"class_{value}": value for value in expected}
    if channels is None:
        channels = [f"channel_{number}" for number in range(_count_channels(cases))]
    return _dataset(folder, "manifest", (sidecar, content), cases, (labels, channels), problems)


_READERS: dict[str, Callable[[Path], Dataset]] = {"msd": _read_msd, "nnunet": _read_nnunet, "manifest": _read_manifest}


def _csv_entries(path: Path) -> list[tuple[str, _Entry]]:
    rows = read_table(path, remedy=REMEDY, error=DataError)
    if not rows:
        raise DataError(Problem(str(path), "empty", "must list at least one case", "none", "add a line per case"))
    columns = list(rows[0])
    channels = sorted((name for name in columns if _CHANNEL.fullmatch(name)), key=lambda name: int(name[6:]))
    if set(columns) - set(_ManifestEntry.model_fields) - set(channels) or ("image" in columns) == bool(channels):
        rule = "must have the columns image (or image_0, image_1, ...), label, id, patient, fold, each at most once"
        raise DataError(Problem(str(path), "columns", rule, ", ".join(columns), "correct the header"))
    entries, problems = [], []
    for number, row in enumerate(rows, start=1):
        where = f"{path}: row {number}"
        cells = {name: value.strip() or None for name, value in row.items()}
        images = [row[name] for name in channels] if channels else row["image"].split(";")
        fold = as_integer(cells.get("fold"))
        if cells.get("fold") and fold is None:
            value, remedy = repr(cells["fold"]), "correct it or leave it out"
            problems.append(Problem(where, "fold", "fold must be an integer >= 0", value, remedy))
        named = {name: cells.get(name) for name in ("label", "id", "patient")}
        entries.append((where, _Entry(image=images, fold=fold, **named)))
    if problems:
        raise DataError(problems)
    return entries


def _cases(root: Path, entries: Sequence[tuple[str, _Entry]], problems: list[Problem]) -> list[Case]:
    """Builds cases; what is wrong with an entry is added to the problems, and the entry left out."""
    cases = []
    for where, entry in entries:
        named = entry.image if isinstance(entry.image, list) else [entry.image]
        if not named:
            rule, remedy = "image must name at least one file", "name one per channel"
            problems.append(Problem(where, "missing", rule, "an empty list", remedy))
        files = [*named, entry.label] if entry.label else named
        found = [each for name in files for each in _path_problems(where, name)]
        problems += found
        if named and not found:
            images = tuple(root / name.strip() for name in named)
            cases.append(
                Case(
                    id=split_ending(images[0].name, ENDINGS)[0] if entry.id in (None, "") else str(entry.id),
                    images=images,
                    label=root / entry.label.strip() if entry.label else None,
                    patient=None if entry.patient in (None, "") else str(entry.patient),
                    fold=entry.fold,
                )
            )
    return cases


def _path_problems(where: str, name: str) -> Iterator[Problem]:
    """Says why a name is no path inside the folder of a data set."""
    name = name.strip()
    if not name or not name.isprintable():
        yield Problem(where, "path", "must name files by relative paths", repr(name), "write one such as a.nii.gz")
    elif PurePosixPath(name).is_absolute() or bool(PureWindowsPath(name).anchor) or ".." in re.split(r"[/\\]", name):
        remedy = "write it relative to the folder, without '..'"
        yield Problem(where, "path", "must name files inside the data set's folder", repr(name), remedy)
    elif "\\" in name:
        remedy = f"write {PureWindowsPath(name).as_posix()}"
        yield Problem(where, "separator", "must separate folders by /", name, remedy)


def _found_cases(root: Path, ending: str, num_channels: int, problems: list[Problem]) -> list[Case]:
    """Lists the cases that have files in imagesTr or labelsTr, sorted.

    A case has every declared channel, present or not, so that checks name the files that it lacks.
    """
    images, labels = root / "imagesTr", root / "labelsTr"
    channels: dict[str, set[int]] = {path.name[: -len(ending)]: set() for path in _files(labels, ending, problems)}
    for path in _files(images, ending, problems):
        case, number = split_channel(path.name)
        if number is None:
            rule = "image names must end in _0000, _0001, ... for the channel"
            problems.append(Problem(str(path), "name", rule, remedy="rename the file"))
        else:
            channels.setdefault(case, set()).add(number)
    if not channels:
        problems.append(Problem(str(images), "empty", f"must hold files CASE_0000{ending}", "none", "check data.root"))
    return [
        Case(
            id=case_id,
            images=tuple(
                channel_file(images / f"{case_id}{ending}", n) for n in sorted(indices | set(range(num_channels)))
            ),
            label=labels / f"{case_id}{ending}" if (labels / f"{case_id}{ending}").is_file() else None,
        )
        for case_id, indices in sorted(channels.items())
    ]


def _files(folder: Path, ending: str, problems: list[Problem]) -> list[Path]:
    """Lists the files of an ending, and names those whose letters differ from it in case alone."""
    if not folder.is_dir():
        return []
    files = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    for path in files:
        if path.name.lower().endswith(ending.lower()) and not path.name.endswith(ending):
            rule, value = f"must be named with {ending}, as file_ending says", path.name[-len(ending) :]
            problems.append(Problem(str(path), "name", rule, value, "rename the file"))
    return [path for path in files if path.name.endswith(ending)]


def _dataset(
    root: Path,
    layout: str,
    description: tuple[Path, _Description],
    cases: Sequence[Case],
    meaning: tuple[Mapping[str, Any], object],
    problems: list[Problem],
) -> Dataset:
    """Builds a data set, or names all that is wrong with its description."""
    path, content = description
    classes = declared_classes(meaning[0], path, layout, problems, order=content.regions_class_order)
    channels = _channel_names(meaning[1], path, problems)
    for name in (*classes.names, *classes.regions, *channels):
        if not name.isprintable():
            rule = "names of classes and channels must be printable on one line"
            problems.append(Problem(str(path), "name", rule, repr(name), "rename it"))
    if layout != "manifest":
        problems += check_ids(cases, path)
        if content.numTraining is not None and content.numTraining != len(cases) and not problems:
            value = f"{shown(content.numTraining)} with {len(cases)} cases"
            rule, remedy = (
                "numTraining must equal the number of training cases",
                "restore the missing files or correct it",
            )
            problems.append(Problem(str(path), "count", rule, value, remedy))
    if problems:
        raise DataError(problems)
    dataset = Dataset(
        name=str(content.name or real_path(root).name),
        root=root,
        layout=layout,
        cases=tuple(cases),
        class_names=(),
        channel_names=channels,
        ignore_label=None,
        licence=str(content.licence or content.license or "not stated"),
        attribution=str(content.reference or "not stated"),
    )
    return _with_classes(dataset, classes)


def _with_classes(dataset: Dataset, classes: Classes) -> Dataset:
    """Returns a data set of these classes, whose label files are read by their map."""
    needed, ignore = classes.map.simplest, classes.map.ignore
    return replace(
        dataset,
        cases=tuple(replace(case, classes=needed) for case in dataset.cases),
        class_names=classes.names,
        ignore_label=ignore if needed is None or ignore is None else len(classes.names),
        classes=needed,
        regions=classes.regions,
    )


def _of_classes(dataset: Dataset, names: Sequence[str]) -> Dataset:
    """Returns a data set of some of its classes or regions alone; see :meth:`Classes.chosen`."""
    return _with_classes(dataset, Classes(dataset.class_names, dataset.class_map, dataset.regions).chosen(names))


def _channel_names(channels: object, path: Path, problems: list[Problem]) -> tuple[str, ...]:
    if isinstance(channels, list) and channels:
        return tuple(str(name) for name in channels)
    names = {as_integer(key): str(name) for key, name in channels.items()} if isinstance(channels, Mapping) else {}
    if not names or set(names) != set(range(len(names))):
        rule, remedy = "channel_names must name channels 0, 1, ... without a gap", 'write for example {"0": "T1"}'
        problems.append(Problem(str(path), "channels", rule, shown(channels), remedy))
        return ()
    return tuple(names[index] for index in range(len(names)))


def _label_values(cases: Sequence[Case]) -> set[int]:
    """Returns the foreground values of all label files; what no label may hold is left to the checks."""
    found: set[int] = set()
    for case in cases:
        if case.label is None:
            continue
        try:
            values = np.unique(read_volume(case.label).array)
        except DataError:
            continue
        near = values[(values > 0.5) & (values < MAX_INDEX + 0.5)]
        found.update(int(value) for value in np.rint(near[np.abs(near - np.rint(near)) <= LABEL_TOLERANCE]))
    return found


def _count_channels(cases: Sequence[Case]) -> int:
    """Returns the channels of the first case that can be read, or 1; files at fault are left to the checks."""
    for case in cases:
        if len(case.images) > 1:
            return len(case.images)
        try:
            return read_header(case.images[0]).channels
        except DataError:
            continue
    return 1


def check_ids(cases: Sequence[Case], path: Path) -> list[Problem]:
    """Says which case ids of a list are unusable as file names or not unique, and which files two cases share."""
    problems: list[Problem] = []
    seen = Counter(case.id for case in cases)
    alike: dict[str, str] = {}
    for case_id, count in seen.items():
        where = f"case {case_id!a}" if not case_id.isprintable() else f"case {case_id}"
        size = len(case_id.encode(errors="surrogatepass"))
        if count > 1:
            value, remedy = f"{count} cases in {path}", "rename files or give each case an id of its own"
            problems.append(Problem(where, "unique", "must have an id of its own", value, remedy))
        if not _ID.fullmatch(case_id):
            rule = "must have an id that begins with a letter or digit and holds only letters, digits, spaces and _.+-"
            problems.append(Problem(where, "id", rule, remedy="files are named after it: rename it"))
        if size > MAX_ID_BYTES:
            rule, remedy = f"must have an id of at most {MAX_ID_BYTES} bytes", "files are named after it: shorten it"
            problems.append(Problem(where, "id", rule, str(size), remedy))
        first = alike.setdefault(case_id.casefold(), case_id)
        if first != case_id:
            rule = "must have an id that differs in more than capitals, which some file systems take for small letters"
            problems.append(Problem(where, "unique", rule, f"case {first} in {path}", "rename one of the two"))
    owners: dict[Path, str] = {}
    for case in cases:
        for file in case.files:
            owner = owners.setdefault(file, case.id)
            if owner != case.id:
                value, remedy = f"{file} of case {owner} too in {path}", "correct one of the two"
                problems.append(Problem(f"case {case.id}", "unique", "must have files of its own", value, remedy))
    return problems
