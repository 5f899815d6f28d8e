"""Folds: which cases train and which validate."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, combinations
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from seg.data.cases import Case, Dataset
from seg.errors import ConfigError, DataError
from seg.files import read_json

FILE_NAME = "splits_final.json"


@dataclass(frozen=True, kw_only=True)
class Split:
    """The two sides of one fold.

    Attributes:
        train: Ids of the cases to learn from.
        validation: Ids of the cases held out.
    """

    train: tuple[str, ...]
    validation: tuple[str, ...]


def make_splits(dataset: Dataset, *, folds: int, seed: int, splits_file: Path | None = None) -> tuple[Split, ...]:
    """Returns the folds of a data set.

    They come from the first of these that there is: ``splits_file``; ``splits_final.json`` in the root; the fold that
    each case states; the seed. Seeded folds hold the labelled cases, keep all cases of a patient in one fold, differ in
    size by at most the cases of one patient, and depend on nothing but the patients' names and the seed.

    Args:
        dataset: The data set.
        folds: Number of folds to make from the seed, >= 2; not used where the data set states its folds.
        seed: Seed of the folds made.
        splits_file: JSON list of ``{"train": [ids], "val": [ids]}``, as nnU-Net writes it.

    Returns:
        One split per fold.

    Raises:
        ConfigError: ``folds`` is below 2.
        DataError: Splits name unknown cases, leave a side empty, or share a case or patient between the two sides;
            stated folds are not numbered 0, 1, 2, ...; or there are fewer patients than folds. All problems are named.
    """
    path = splits_file or dataset.root / FILE_NAME
    if splits_file is not None or path.is_file():
        splits, where = _read_splits(path), str(path)
    elif any(case.fold is not None for case in dataset.cases):
        splits, where = _stated_splits(dataset.cases), "the folds of the cases"
    else:
        splits, where = _seeded_splits(dataset.cases, folds, seed), "the folds made"
    patients = {case.id: case.patient or case.id for case in dataset.cases}
    problems = [
        f"{where}: fold {fold}: {problem}"
        for fold, split in enumerate(splits)
        for problem in _check_split(split, patients)
    ]
    if problems:
        raise DataError(problems)
    return splits


def spread_over(names: Sequence[str], count: int) -> list[str]:
    """Returns up to so many of the names, at even distances: the same ones for all that are compared."""
    count = min(count, len(names))
    return [names[index * len(names) // count] for index in range(count)]


def limit_training(splits: Sequence[Split], dataset: Dataset, *, count: int, seed: int) -> tuple[Split, ...]:
    """Leaves fewer cases on the training side of each fold; the validation side stays as it is.

    Patients are taken whole, in an order that depends on nothing but their names, the fold and the seed, until the next
    one would be too many. So the cases of a smaller count are among those of a larger one.

    Args:
        splits: The folds.
        dataset: The data set, for its patients.
        count: Largest number of training cases, >= 1.
        seed: Seed of the order.

    Returns:
        The folds, with training sides in their own order.

    Raises:
        DataError: A fold has fewer training cases, or its first patient has more. All folds are named.
    """
    patients = {case.id: case.patient or case.id for case in dataset.cases}
    limited: list[Split] = []
    problems: list[str] = []
    for fold, split in enumerate(splits):
        sizes = Counter(patients[name] for name in split.train)
        if len(split.train) < count:
            problems.append(
                f"fold {fold}: data.train_cases must be at most the {len(split.train)} cases to train on, got {count}; "
                "lower it or set it to null."
            )
        order = sorted(sizes, key=lambda name: hashlib.sha256(f"{seed}/{fold}/train/{name}".encode()).digest())
        totals = accumulate(sizes[name] for name in order)
        kept = {name for name, total in zip(order, totals, strict=True) if total <= count}
        if order and not kept:
            problems.append(
                f"fold {fold}: data.train_cases must hold a whole patient, of {sizes[order[0]]} cases, got {count}; "
                "raise it."
            )
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
    problems = [
        f"fold {fold}: {side} must hold at least one case, got none without the faulty {_some(left_out)}; repair them "
        "or correct the splits."
        for fold in folds
        for side, ids in (("train", splits[fold].train), ("val", splits[fold].validation))
        if not ids
    ]
    for one, other in combinations(folds, 2):
        held_out = set(splits[other].validation)
        if both := [case_id for case_id in splits[one].validation if case_id in held_out]:
            problems.append(
                f"folds {one} and {other}: val sides must not share cases where both are trained and scored together, "
                f"got {_some(both)}; correct the splits or train each --fold N on its own."
            )
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
    problems = [
        f"case {case.id}: fold must be given for every case or for none, got none; fill it in or drop all folds."
        for case in cases
        if case.fold is None
    ]
    if problems:
        raise DataError(problems)
    folds = {case.id: case.fold or 0 for case in cases}
    found = sorted(set(folds.values()))
    if found != list(range(len(found))):
        raise DataError(
            "the folds of the cases: they must be numbered 0, 1, 2, ... without a gap, got "
            f"{', '.join(map(str, found))}; renumber them, so that --fold N and the results mean the same fold."
        )
    return _splits_of(folds)


def _seeded_splits(cases: Sequence[Case], folds: int, seed: int) -> tuple[Split, ...]:
    if folds < 2:
        raise ConfigError(f"data.folds must be >= 2, got {folds}; give at least 2.")
    labelled = [case for case in cases if case.label is not None]
    sizes = Counter(case.patient or case.id for case in labelled)
    if len(sizes) < 2:
        raise DataError(
            "the folds made: at least two patients with a label are needed, one to train on and one to hold out, got "
            f"{len(sizes)}; add labelled cases, or state the splits in {FILE_NAME}."
        )
    if len(sizes) < folds:
        raise DataError(
            f"data.folds must not exceed the number of patients with a label, got {folds} folds for {len(sizes)}; "
            f"set data.folds to {len(sizes)} or fewer."
        )
    # A digest, not a generator: the order then stays the same under any version of any library.
    order = sorted(sizes, key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).digest())
    filled = [0] * folds
    chosen: dict[str, int] = {}
    for patient in order:
        chosen[patient] = filled.index(min(filled))
        filled[chosen[patient]] += sizes[patient]
    return _splits_of({case.id: chosen[case.patient or case.id] for case in labelled})


def _splits_of(folds: Mapping[str, int]) -> tuple[Split, ...]:
    return tuple(
        Split(
            train=tuple(case_id for case_id, own in folds.items() if own != fold),
            validation=tuple(case_id for case_id, own in folds.items() if own == fold),
        )
        for fold in sorted(set(folds.values()))
    )


def _check_split(split: Split, patients: Mapping[str, str]) -> list[str]:
    """Says what is wrong with one split, given the patient of each case."""
    problems = []
    for side, ids in (("train", split.train), ("val", split.validation)):
        if not ids:
            problems.append(f"{side} must hold at least one case, got none; correct the splits.")
        if unknown := sorted(set(ids) - set(patients)):
            problems.append(f"{side} names cases the data set lacks: {_some(unknown)}; correct or remove them.")
        if repeated := sorted(name for name, count in Counter(ids).items() if count > 1):
            problems.append(f"{side} names cases more than once: {_some(repeated)}; remove the repetition.")
    both = set(split.train) & set(split.validation)
    if both:
        problems.append(f"train and val share cases: {_some(sorted(both))}; keep each on one side.")
    train, validation = (
        {patients[name] for name in ids if name in patients and name not in both}
        for ids in (split.train, split.validation)
    )
    if shared := sorted(train & validation):
        problems.append(f"train and val share patients: {_some(shared)}; keep all cases of a patient on one side.")
    return problems


def _some(names: Sequence[str], limit: int = 5) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
