"""Folds: which cases train and which validate."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, combinations
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from seg.config.text import read_yaml
from seg.data.cases import Case, Dataset
from seg.errors import ConfigError, DataError, Problem
from seg.files import read_json, write_text
from seg.words import some

FILE_NAME = "splits_final.json"
STUDY_FILE_NAME = "splits_studies.json"
"""Folds of the published studies, beside their data; a run takes them by ``data.splits``."""
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Split:
    """The two sides of one fold: ids of the cases to learn from, and of those held out."""

    train: tuple[str, ...]
    validation: tuple[str, ...]


def make_splits(dataset: Dataset, *, folds: int, seed: int, splits_file: Path | None = None) -> tuple[Split, ...]:
    """Returns the folds of a data set.

    They come from the first of these that there is: ``splits_file``; ``splits_final.json`` in the root; the fold that
    each case states; the seed. Seeded folds hold the labelled cases, keep all cases of a patient in one fold, differ in
    size by at most the cases of one patient, and depend on nothing but the patients' names and the seed.

    A splits file is a JSON list of ``{"train": [ids], "val": [ids]}``, as nnU-Net writes it.

    Raises:
        ConfigError: ``folds`` is below 2.
        DataError: Splits name unknown cases, leave a side empty, or share a case or patient between the two sides;
            stated folds are not numbered 0, 1, 2, ...; or there are fewer patients than folds. All problems are named.
    """
    splits, where = _given_splits(dataset, splits_file)
    if not splits:
        splits, where = _seeded_splits(dataset.cases, folds, seed), "the folds made"
    patients = {case.id: case.patient_or_id for case in dataset.cases}
    problems = [
        problem
        for fold, split in enumerate(splits)
        for problem in _split_problems(f"{where}: fold {fold}", split, patients)
    ]
    if problems:
        raise DataError(problems)
    return splits


def are_stated(dataset: Dataset, splits_file: Path | None) -> bool:
    """Tells whether a file or the cases state the folds, which else are drawn.

    Raises:
        DataError: As :func:`make_splits`.
    """
    return bool(_given_splits(dataset, splits_file)[0])


def draw_around(
    dataset: Dataset, *, folds: int, seed: int, trained: Collection[str], held_out: Mapping[str, int]
) -> tuple[Split, ...]:
    """Draws folds in which some patients train, whatever the fold, and others are held out in a fold of their own.

    All other patients with a label are spread over the folds as :func:`make_splits` draws them. A fold may hold out
    none.

    Args:
        dataset: The data set.
        folds: Number of folds.
        seed: Seed of the order of patients.
        trained: Patients that train in every fold.
        held_out: The fold of patients that are to be held out in it.
    """
    labelled = [case for case in dataset.cases if case.label is not None]
    sizes = Counter(case.patient_or_id for case in labelled)
    placed = {patient: fold for patient, fold in held_out.items() if patient in sizes and patient not in trained}
    free = [patient for patient in sizes if patient not in placed and patient not in trained]
    chosen = _spread(free, sizes, placed, folds, seed)
    own = {case.id: chosen.get(case.patient_or_id) for case in labelled}
    return tuple(
        Split(
            train=tuple(case_id for case_id, fold in own.items() if fold != number),
            validation=tuple(case_id for case_id, fold in own.items() if fold == number),
        )
        for number in range(folds)
    )


def _spread(
    patients: Iterable[str], sizes: Mapping[str, int], placed: Mapping[str, int], folds: int, seed: int
) -> dict[str, int]:
    """Puts patients one by one into the fold that has the fewest cases, beside those that have their place."""
    chosen, filled = dict(placed), [0] * folds
    for patient, fold in placed.items():
        filled[fold] += sizes[patient]
    # A digest, not a generator: the order then stays the same under any version of any library.
    for patient in sorted(patients, key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).digest()):
        chosen[patient] = filled.index(min(filled))
        filled[chosen[patient]] += sizes[patient]
    return chosen


def study_splits(name: str) -> tuple[Split, ...]:
    """Returns the folds on which the published studies of a data set were run; none where there is no such study."""
    file = Path(__file__).with_name("study_folds.yaml")
    folds = read_yaml(file, dict[str, list[list[str]]], remedy="install the package again").get(name, [])
    every = sorted(case for fold in folds for case in fold)
    return tuple(
        Split(train=tuple(case for case in every if case not in fold), validation=tuple(fold)) for fold in folds
    )


def write_splits(splits: Sequence[Split], path: Path) -> None:
    """Writes a splits file, as :func:`make_splits` reads it.

    Raises:
        RunError: It cannot be written.
    """
    content = [{"train": list(split.train), "val": list(split.validation)} for split in splits]
    write_text(path, json.dumps(content, indent=1) + "\n")


def _given_splits(dataset: Dataset, splits_file: Path | None) -> tuple[tuple[Split, ...], str]:
    """Returns the folds that a file or the cases state, and where; none where nothing states them."""
    path = splits_file or dataset.root / FILE_NAME
    if splits_file is not None or path.is_file():
        return _read_splits(path), str(path)
    if any(case.fold is not None for case in dataset.cases):
        return _stated_splits(dataset.cases), "the folds of the cases"
    return (), ""


def shared_patients(dataset: Dataset, splits_file: Path | None) -> tuple[list[str], str]:
    """Returns the patients that stated folds put on both sides, and where the folds are stated.

    Raises:
        DataError: The splits file cannot be read, or cases lack a fold.
    """
    splits, where = _given_splits(dataset, splits_file)
    patients = {case.id: case.patient_or_id for case in dataset.cases}
    both: set[str] = set()
    for split in splits:
        train, held_out = ({patients.get(name, name) for name in side} for side in (split.train, split.validation))
        both |= train & held_out
    return sorted(both), where


def spread_over(items: Sequence[T], count: int) -> list[T]:
    """Returns up to so many items of a list, at even distances: the same ones for all that are compared."""
    count = min(count, len(items))
    return [items[index * len(items) // count] for index in range(count)]


def limit_training(splits: Sequence[Split], dataset: Dataset, *, count: int, seed: int) -> tuple[Split, ...]:
    """Leaves fewer cases on the training side of each fold; the validation side stays as it is.

    Patients are taken whole, in an order that depends on nothing but their names, the fold and the seed, until the next
    one would be too many. So the cases of a smaller count are among those of a larger one.

    Raises:
        DataError: A fold has fewer training cases, or its first patient has more. All folds are named.
    """
    patients = {case.id: case.patient_or_id for case in dataset.cases}
    limited: list[Split] = []
    problems: list[Problem] = []
    for fold, split in enumerate(splits):
        sizes = Counter(patients[name] for name in split.train)
        if len(split.train) < count:
            rule, remedy = f"must be at most the {len(split.train)} cases to train on", "lower it or set it to null"
            problems.append(Problem(f"fold {fold}: data.train_cases", "range", rule, str(count), remedy))
        order = sorted(sizes, key=lambda name: hashlib.sha256(f"{seed}/{fold}/train/{name}".encode()).digest())
        totals = accumulate(sizes[name] for name in order)
        kept = {name for name, total in zip(order, totals, strict=True) if total <= count}
        if order and not kept:
            rule = f"must hold a whole patient, of {sizes[order[0]]} cases"
            problems.append(Problem(f"fold {fold}: data.train_cases", "patient", rule, str(count), "raise it"))
        limited.append(replace(split, train=tuple(name for name in split.train if patients[name] in kept)))
    if problems:
        raise DataError(problems)
    return tuple(limited)


def check_folds(splits: Sequence[Split], folds: Sequence[int], left_out: Sequence[str] = ()) -> None:
    """Checks that folds can be trained, and scored together.

    Args:
        splits: All folds, already without the cases that were left out.
        folds: Those to train.
        left_out: Ids of the cases that were left out as faulty.

    Raises:
        DataError: A side of a fold has no case left, or two folds hold out the same case, which would be scored twice.
            All problems are named.
    """
    value, remedy = f"none without the faulty {some(left_out)}", "repair them or correct the splits"
    problems = [
        Problem(f"fold {fold}: {side}", "empty", "must hold at least one case", value, remedy)
        for fold in folds
        for side, ids in (("train", splits[fold].train), ("val", splits[fold].validation))
        if not ids
    ]
    for one, other in combinations(folds, 2):
        held_out = set(splits[other].validation)
        if both := [case_id for case_id in splits[one].validation if case_id in held_out]:
            rule = "must not share cases where both are trained and scored together"
            remedy = "correct the splits or train each --fold N on its own"
            problems.append(Problem(f"folds {one} and {other}: val sides", "shared", rule, some(both), remedy))
    if problems:
        raise DataError(problems)


class _Sides(BaseModel):
    """A fold in a splits file, as nnU-Net writes it."""

    model_config = ConfigDict(strict=True)
    train: list[str]
    val: list[str]


def _read_splits(path: Path) -> tuple[Split, ...]:
    schema = Annotated[list[_Sides], Field(min_length=1)]
    folds: list[_Sides] = read_json(path, schema, remedy="correct or export the file again", error=DataError)
    return tuple(Split(train=tuple(fold.train), validation=tuple(fold.val)) for fold in folds)


def _stated_splits(cases: Sequence[Case]) -> tuple[Split, ...]:
    rule, remedy = "must have a fold, as other cases have one", "fill it in or drop all folds"
    if problems := [Problem(f"case {case.id}", "fold", rule, "none", remedy) for case in cases if case.fold is None]:
        raise DataError(problems)
    folds = {case.id: case.fold or 0 for case in cases}
    found = sorted(set(folds.values()))
    if found != list(range(len(found))):
        rule, remedy = "must be numbered 0, 1, 2, ... without a gap", "renumber them: --fold N and results name them so"
        raise DataError(Problem("the folds of the cases", "fold", rule, ", ".join(map(str, found)), remedy))
    return _splits_of(folds)


def _seeded_splits(cases: Sequence[Case], folds: int, seed: int) -> tuple[Split, ...]:
    if folds < 2:
        raise ConfigError(Problem("data.folds", "range", "must be >= 2", str(folds), "give at least 2"))
    labelled = [case for case in cases if case.label is not None]
    sizes = Counter(case.patient_or_id for case in labelled)
    if len(sizes) < 2:
        rule = "must have at least two patients with a label, one to train on and one to hold out"
        remedy = f"add labelled cases, or state the splits in {FILE_NAME}"
        raise DataError(Problem("the folds made", "patients", rule, str(len(sizes)), remedy))
    if len(sizes) < folds:
        rule, value = "must not exceed the number of patients with a label", f"{folds} folds for {len(sizes)}"
        raise DataError(Problem("data.folds", "patients", rule, value, f"set data.folds to {len(sizes)} or fewer"))
    chosen = _spread(sizes, sizes, {}, folds, seed)
    return _splits_of({case.id: chosen[case.patient_or_id] for case in labelled})


def _splits_of(folds: Mapping[str, int]) -> tuple[Split, ...]:
    return tuple(
        Split(
            train=tuple(case_id for case_id, own in folds.items() if own != fold),
            validation=tuple(case_id for case_id, own in folds.items() if own == fold),
        )
        for fold in sorted(set(folds.values()))
    )


def _split_problems(where: str, split: Split, patients: Mapping[str, str]) -> Iterator[Problem]:
    """Says what is wrong with one split, given the patient of each case."""
    sides = {"train": split.train, "val": split.validation}
    for side, ids in sides.items():
        if not ids:
            yield Problem(where, "empty", f"{side} must hold at least one case", "none", "correct the splits")
        if unknown := sorted(set(ids) - set(patients)):
            rule = f"{side} must name cases of the data set"
            yield Problem(where, "unknown", rule, some(unknown), "correct or remove them")
        if repeated := sorted(name for name, count in Counter(ids).items() if count > 1):
            yield Problem(where, "repeated", f"{side} must name cases once", some(repeated), "remove the repetition")
    if both := sorted(set(split.train) & set(split.validation)):
        yield Problem(where, "shared", "train and val must not share cases", some(both), "keep each on one side")
    train, val = ({patients[name] for name in ids if name in patients and name not in both} for ids in sides.values())
    if shared := sorted(train & val):
        rule, remedy = "train and val must not share patients", "keep all cases of a patient on one side"
        yield Problem(where, "patients", rule, some(shared), remedy)
