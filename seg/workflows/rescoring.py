"""Scores anew of a finished run, or of all folds of a cross-validation."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from seg.config import ExperimentConfig, load_config
from seg.data.cases import Dataset
from seg.data.readers import read_folds
from seg.data.splits import Split, check_folds
from seg.errors import RunError
from seg.layout import CONFIG_FILE, fold_directories
from seg.weights import check_task
from seg.workflows.directory import other_settings, read_origin, some
from seg.workflows.inputs import read_checked, read_splits
from seg.workflows.scoring import score_run
from seg.workflows.summary import summarise_folds

LOG = logging.getLogger(__name__)


def evaluate_run(run_dir: Path, *, output: Path | None = None, data_root: Path | None = None) -> int:
    """Predicts and scores the held-out cases of a trained run, or of every fold of a cross-validation.

    Args:
        run_dir: Run directory with final weights, or one that holds ``fold_0``, ``fold_1``, ... of one experiment.
        output: Folder of the results, which are replaced there; None is the run directory. The folds of a
            cross-validation lie in it as in that, with their summary beside them.
        data_root: Folder of the data set; None is the one in the run's config.

    Returns:
        The exit code: 0, or 1 where faulty cases were left out of the data set.

    Raises:
        DataError: Cases are faulty, or cannot be read.
        RunError: A run is not finished, folds are not of one experiment, the data set is not the runs' own, or results
            cannot be written. All runs are checked before the first is scored.
    """
    folds = fold_directories(run_dir)
    configs = _read_configs(folds.values() or [run_dir], data_root)
    first = next(iter(configs.values()))
    _check_names(configs, first)
    dataset, left_out = read_checked(first.data, progress=first.training.progress)
    splits = {path: _find_split(path, config, dataset, left_out) for path, config in configs.items()}
    _check_once(splits)
    for path, config in configs.items():
        target = None if output is None else output / path.name if folds else output
        score_run(path, config, dataset, splits[path], output=target)
    if folds:
        target = output or run_dir
        summarise_folds(first, dataset, target, {fold: target / path.name for fold, path in folds.items()})
    return 1 if left_out else 0


def _read_configs(run_dirs: Iterable[Path], data_root: Path | None) -> dict[Path, ExperimentConfig]:
    """Reads the configurations of runs of one experiment, with the folder where their data set lies now."""
    problems = []
    found: dict[Path, ExperimentConfig] = {}
    for path in run_dirs:
        if not (path / CONFIG_FILE).is_file():
            problems.append(f"{path}: must be a run directory, got no {CONFIG_FILE}; check the path.")
            continue
        config = load_config([path / CONFIG_FILE])
        root = config.data.root if data_root is None else str(data_root)
        found[path] = replace(config, data=replace(config.data, root=root))
        first = next(iter(found))
        if other := [name for name in other_settings(found[path], found[first]) if name != "fold"]:
            problems.append(
                f"{path}: folds that are scored together must have one configuration, got other values of "
                f"{', '.join(other)} than in {first}; evaluate each fold on its own."
            )
    if problems:
        raise RunError(problems)
    return found


def _check_names(run_dirs: Iterable[Path], config: ExperimentConfig) -> None:
    """Checks that runs were trained on a data set's channels and classes, before its voxels are read."""
    declared, _ = read_folds(config.data)
    problems: list[str] = []
    for path in run_dirs:
        try:
            check_task(
                path,
                channel_names=declared.channel_names,
                class_names=declared.class_names,
                source=config.data.root,
                remedy="it is another data set, check --data.root",
            )
        except RunError as error:
            problems += error.sentences
    if problems:
        raise RunError(problems)


def _check_once(splits: Mapping[Path, Split]) -> None:
    """Checks that no case would count twice in a common summary."""
    held_out: dict[str, Path] = {}
    problems = []
    for path, split in splits.items():
        if both := sorted(set(split.validation) & held_out.keys()):
            problems.append(
                f"{path}: folds that are scored together must hold out each case once, got {some(both)} of "
                f"{held_out[both[0]].name} too; evaluate each fold on its own."
            )
        held_out |= dict.fromkeys(split.validation, path)
    if problems:
        raise RunError(problems)


def _find_split(run_dir: Path, config: ExperimentConfig, dataset: Dataset, left_out: list[str]) -> Split:
    """Returns the cases that a run trained on and held out."""
    origin = read_origin(run_dir)
    if origin is not None and origin.split is not None:
        known = {case.id for case in dataset.cases}
        if gone := sorted(set(origin.split.validation) - known):
            raise RunError(
                f"{config.data.root}: must have the cases that the run held out, got none of {some(gone)}; it is "
                "another data set, or these cases were removed or left out."
            )
        return origin.split
    LOG.warning("%s: has no record of its cases; those of its fold are found anew", run_dir)
    splits = read_splits(config, left_out)
    if config.fold >= len(splits):
        raise RunError(
            f"{config.data.root}: must have the run's fold {config.fold}, got {len(splits)} folds; it is another data "
            "set, or its splits changed."
        )
    check_folds(splits, [config.fold], left_out)
    return splits[config.fold]
