"""What a run reads: the checked data set and the split of a fold."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from seg.config import DataConfig, ExperimentConfig
from seg.data.cases import Case, Dataset
from seg.data.checks import check_dataset
from seg.data.datasets import read_configured, read_folds
from seg.data.splits import Split, are_stated, draw_around, limit_training
from seg.errors import DataError, Problem
from seg.runs import Origin, read_config, read_origin
from seg.words import counted, some

LOG = logging.getLogger(__name__)


def read_checked(config: DataConfig, *, progress: bool = True) -> tuple[Dataset, list[str]]:
    """Reads a data set and checks every file; warnings are logged also where cases are faulty.

    Args:
        config: Where it lies, and whether faulty cases stop the run or are left out.
        progress: Whether a terminal on stderr shows a progress bar.

    Returns:
        The data set without faulty cases, and their ids.

    Raises:
        DataError: Cases are faulty and ``on_error`` is ``stop``, all problems are named together; or no case has
            foreground.
    """
    dataset = read_configured(config)
    reports = check_dataset(dataset, workers=config.workers, progress=progress, fill=config.nan == "background")
    stops = config.on_error == "stop"
    empty = {one.case_id for one in reports if any(problem.kind == "empty" for problem in one.warnings)}
    if len(empty) == len(dataset.cases):
        rule, value = "must have a foreground voxel in some label", f"none in {counted(len(empty), 'case')}"
        raise DataError(Problem(config.root, "foreground", rule, value, "correct the labels"))
    for problem in (problem for report in reports for problem in report.warnings):
        LOG.warning("%s", problem)
    errors = [problem for report in reports for problem in report.errors]
    if errors and stops:
        raise DataError(errors)
    for problem in errors:
        LOG.warning("left out: %s", problem)
    bad = sorted(report.case_id for report in reports if report.errors)
    kept = tuple(case for case in dataset.cases if case.id not in bad)
    if not kept:
        rule = "must hold at least one case that can be used"
        raise DataError(Problem(config.root, "empty", rule, "none", "see the problems above"))
    return replace(dataset, cases=kept), bad


def read_splits(config: ExperimentConfig, left_out: Sequence[str]) -> tuple[Split, ...]:
    """Returns the folds of a data set, without the cases that were left out and those beyond the number to train on.

    Raises:
        DataError: The splits file names unknown cases or puts one on two sides, or there are fewer cases to train on
            than asked for.
    """
    return _usable(config.data, *read_folds(config.data), left_out)


def _usable(data: DataConfig, whole: Dataset, splits: Sequence[Split], left_out: Sequence[str]) -> tuple[Split, ...]:
    """Returns folds without the cases that were left out and those beyond the number to train on."""
    gone = set(left_out)
    kept = tuple(
        Split(
            train=tuple(case for case in split.train if case not in gone),
            validation=tuple(case for case in split.validation if case not in gone),
        )
        for split in splits
    )
    if data.train_cases is None:
        return kept
    limited = limit_training(kept, whole, count=data.train_cases, seed=data.split_seed)
    for fold, split in enumerate(limited):
        if len(split.train) < data.train_cases:
            LOG.info("fold %d: %d training cases, as the next patient has too many", fold, len(split.train))
    return limited


def seen_among(
    held_out: Iterable[str], cases: Iterable[Case], digests: Mapping[str, str], seen: Mapping[str, str]
) -> tuple[str, ...]:
    """Returns the held-out cases of patients of whom initial weights were trained on a case, by its id or its files.

    Args:
        held_out: Ids of held-out cases.
        cases: The cases of the data set.
        digests: SHA-256 of the files of each case.
        seen: The same of each case that the initial weights were trained on.
    """
    files, cases = set(seen.values()), list(cases)
    patients = {case.patient_or_id for case in cases if case.id in seen or digests.get(case.id) in files}
    known = {case.id for case in cases if case.patient_or_id in patients}
    return tuple(case for case in held_out if case in known)


def keep_apart(
    config: ExperimentConfig,
    splits: tuple[Split, ...],
    directories: Mapping[int | None, Path],
    dataset: Dataset,
    left_out: Sequence[str],
    origin: Origin,
) -> tuple[Split, ...]:
    """Returns folds that hold out no patient whom the initial weights saw, where folds are drawn and this is possible.

    Cases of patients that were trained on before train; patients held out before stay held out, in the fold of that
    run; others are spread. Folds that are right as they are, or stated, stay. So do those of runs that have begun.

    Args:
        config: The experiment, with its initial weights.
        splits: The folds as they are without initial weights.
        directories: Run directory of each fold to train.
        dataset: The data set.
        left_out: Ids of the cases that were left out as faulty.
        origin: What the runs are made from.
    """
    folds = [fold for fold in directories if fold is not None]
    data = config.data
    source, file = config.training.init_from, None if data.splits is None else Path(data.splits)
    if source is None or config.training.score_seen or are_stated(dataset, file):
        return splits
    begun = {fold: read_origin(directories[fold]) for fold in folds}
    recorded = {fold: one.split for fold, one in begun.items() if one is not None and one.split is not None}
    if not origin.seen:
        return tuple(recorded.get(fold, split) for fold, split in enumerate(splits))
    seen = set(seen_among([case.id for case in dataset.cases], dataset.cases, origin.data, origin.seen))
    if not any(seen & set(splits[fold].validation) for fold in folds):
        return splits
    patients = {case.id: case.patient_or_id for case in dataset.cases}
    before, own = read_origin(Path(source)), read_config(Path(source)).fold
    held_out: set[str] = set()
    if before is not None and before.split is not None:
        known = {case: before.data[case] for case in before.split.validation if case in before.data}
        held_out = set(seen_among(patients, dataset.cases, origin.data, known))
    place = own if own is not None and own < len(splits) else folds[0]
    drawn = draw_around(
        dataset,
        folds=len(splits),
        seed=data.split_seed,
        trained={patients[case] for case in seen},
        held_out={patients[case]: place for case in held_out - seen},
    )
    if not all(drawn[fold].validation for fold in folds):
        return splits  # which are refused: a fold would hold out nobody
    LOG.warning(
        "folds are drawn anew: %d cases of patients that the initial weights saw train in all; %d that were held out "
        "before are held out in fold %d",
        *(len(seen), len(held_out - seen), place),
    )
    return tuple(recorded.get(fold, split) for fold, split in enumerate(_usable(data, dataset, drawn, left_out)))


def check_seen(
    config: ExperimentConfig, splits: Sequence[Split], folds: Iterable[int], dataset: Dataset, origin: Origin
) -> None:
    """Checks that no held-out case of the folds to train was seen by the initial weights; see :func:`seen_among`.

    Where the configuration accepts such cases, they are announced.

    Raises:
        DataError: Cases were seen; all folds are named.
    """
    problems = []
    for fold in folds:
        if found := seen_among(splits[fold].validation, dataset.cases, origin.data, origin.seen):
            rule = "must hold out cases of patients that the initial weights were not trained on"
            remedy = (
                "give data.splits in which these train and what was held out before stays held out, or score them, "
                "marked, with training.score_seen"
            )
            problems.append(Problem(f"fold {fold}", "seen", rule, some(found), remedy))
    if problems and not config.training.score_seen:
        raise DataError(problems)
    for problem in problems:
        LOG.warning("%s: the initial weights were trained on patients of held-out %s", problem.path, problem.value)


def check_copies(splits: Sequence[Split], folds: Iterable[int], digests: Mapping[str, str]) -> None:
    """Checks that no held-out case of the folds to train has the same files, by SHA-256, as a training case.

    Raises:
        DataError: A case is on both sides of a fold; all such pairs are named.
    """
    problems = []
    for fold in folds:
        trained = {digests[case]: case for case in splits[fold].train}
        rule = "is held out and must not be trained on"
        problems += [
            Problem(
                f"fold {fold}: case {case}", "copy", rule, f"the files of training case {other}", "remove one of them"
            )
            for case in splits[fold].validation
            if (other := trained.get(digests[case]))
        ]
    if problems:
        raise DataError(problems)
