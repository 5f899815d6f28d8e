"""Training of one fold or of all, each evaluated on the cases that its network did not see."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from seg.config import ExperimentConfig, TrainingConfig
from seg.data.cache import case_digest, check_cache_dir
from seg.data.cases import Dataset
from seg.data.checks import check_channels
from seg.data.datasets import read_folds
from seg.data.memory import GIB, gib, total_bytes
from seg.data.splits import Split, check_folds
from seg.errors import ConfigError, Problem, RunError
from seg.evaluation.scores import EVALUATION_FILE
from seg.files import file_problems, locked, remove_partial
from seg.hardware import choose_precision, environment
from seg.inference.cleaning import cleaning_rules
from seg.networks import network_from_config
from seg.runs import (
    LAST_CHECKPOINT,
    LOCK_FILE,
    MODEL_FILE,
    PREDICTIONS,
    WEIGHTS_FILE,
    Origin,
    check_free,
    check_root,
    check_run,
    fitting_weights,
    fold_directories,
    load_weights,
    open_run,
    other_settings,
    read_config,
    read_origin,
    recorded_init_from,
    seen_cases,
    weights_digest,
)
from seg.training.cost import step_cost
from seg.training.fit import train_fold, training_device
from seg.training.losses import check_class_weights
from seg.workflows.evaluate import finish_final, score_run, summarise_folds
from seg.workflows.inputs import check_copies, check_seen, keep_apart, read_checked, read_splits

LOG = logging.getLogger(__name__)


@file_problems()
def train(
    config: ExperimentConfig,
    *,
    run_dir: Path | None = None,
    folds: Sequence[int | None] | None = None,
    resume: bool = False,
    cache_dir: Path | None = None,
) -> int:
    """Trains folds, scores each on its held-out cases and prints the results.

    Args:
        config: The experiment; its fold is replaced by each of those asked for.
        run_dir: Run directory; None is ``NAME/seed_S/fold_F`` in ``training.runs_dir``, or ``NAME/seed_S`` for several
            folds. Several folds lie in ``fold_F`` below the run directory, their summary in it.
        folds: Folds to train, >= 0; None trains all. The single fold None is a final model on all labelled cases, which
            has no scores; its default run directory is ``NAME/seed_S/final`` there.
        resume: Whether to continue run directories that are there; finished ones are not trained again. They keep
            the initial weights they began with, also where the config names none, and the number of threads.
        cache_dir: Folder of the disk cache where the config names none; None lies beside the results.

    Returns:
        The exit code: 0, or 1 where faulty cases were left out.

    Raises:
        ConfigError: Clean-up names classes that the data set has not, normalisation does not fit its channels, weights
            of the loss do not fit its classes, or a training step does not fit in memory.
        DataError: Cases are faulty, folds cannot be trained together, or the initial weights were trained on patients
            that are held out; all problems together.
        RunError: A fold does not exist, or a run directory exists, belongs to another config, data or initial weights,
            is trained by another process, or cannot be written; or the folder of the cache cannot. All directories
            are checked before the first fold is trained.
    """
    # What needs no voxel is checked before the hour that reading a large data set may take.
    check_cache_dir(config.data)
    several = folds is None or len(folds) > 1
    root = run_dir or config.training.runs_root / config.name / f"seed_{config.seed}"
    if several:
        check_root(root, resume=resume)
    final = folds is not None and set(folds) == {None}  # holds out nothing, so it needs no folds
    number = 0 if final else len(read_folds(config.data)[1])
    chosen: Sequence[int | None] = range(number) if folds is None else folds
    scored = [fold for fold in chosen if fold is not None]
    if several and None in chosen:
        rule = "must not hold a final model beside others"
        raise RunError(Problem("folds", "conflict", rule, remedy="train it by itself"))
    if unknown := [fold for fold in scored if fold >= number]:
        rule, remedy = f"must be in 0 ... {number - 1}", "choose one of these or all"
        raise RunError(Problem("fold", "range", rule, f"{unknown[0]}", remedy))
    names = {fold: "final" if fold is None else f"fold_{fold}" for fold in chosen}
    directories = {fold: root / name if several or run_dir is None else root for fold, name in names.items()}
    for fold, directory in directories.items():
        check_free(directory, resume=resume, fold=fold)
    dataset, left_out = read_checked(config.data, progress=config.training.progress)
    check_channels(config.data, len(dataset.channel_names))
    cleaning_rules(config.postprocessing, dataset.class_names)  # Names that do not exist end the run before it begins.
    check_class_weights(config.loss, dataset.class_names)
    splits = () if final else read_splits(config, left_out)
    check_folds(splits, scored, left_out)
    config, computed_on, origin = _begin(config, dataset, directories.values(), resume=resume)
    splits = keep_apart(config, splits, directories, dataset, left_out, origin)
    _check_step(config, computed_on, dataset)
    check_copies(splits, scored, origin.data)
    check_seen(config, splits, scored, dataset, origin)
    labelled = tuple(case.id for case in dataset.cases if case.label is not None)
    sides = {fold: Split(train=labelled, validation=()) if fold is None else splits[fold] for fold in chosen}
    origins = {fold: replace(origin, split=sides[fold]) for fold in chosen}
    for fold, directory in directories.items():
        check_run(replace(config, fold=fold), directory, origins[fold], resume=resume)
    with ExitStack() as locks:
        for directory in directories.values():
            locks.enter_context(locked(directory / LOCK_FILE, wait=False))
            for folder in (directory, directory / PREDICTIONS, (directory / WEIGHTS_FILE).parent):
                remove_partial(folder, seconds=0)
        for fold, directory in directories.items():
            open_run(replace(config, fold=fold), directory, origins[fold])
        for fold, directory in directories.items():
            finished = (directory / (MODEL_FILE if fold is None else EVALUATION_FILE)).exists()
            with nullcontext() if finished else recorded_threads(directory, origin.computed_with):
                if finished:
                    load_weights(directory)  # they must be those that were described
                else:
                    if _starts_anew(directory):  # The weights may have changed while other folds were trained.
                        begun = replace(origins[fold], initial_weights=_initial_weights(config))
                        check_run(replace(config, fold=fold), directory, begun, resume=True)
                    (directory / MODEL_FILE).unlink(missing_ok=True)  # describes former weights, if any
                    fold_config = replace(config, fold=fold, training=computed_on)
                    cache = cache_dir or (None if directory == root else root / "cache")
                    train_fold(fold_config, dataset, sides[fold], directory, resume=resume, cache_dir=cache)
                if fold is None:
                    finish_final(directory, replace(config, fold=None), dataset)
                else:
                    score_run(
                        directory, replace(config, fold=fold), dataset, splits[fold], reuse=True, alone=not several
                    )
    if several:
        # Folds of the same experiment that were trained before count too.
        finished_folds = {fold: path for fold, path in fold_directories(root).items() if _is_alike(path, config)}
        summarise_folds(config, dataset, root, finished_folds, list(finished_folds.values()))
    trained = root if several else next(iter(directories.values()))
    print(f"next: seg predict --run_dir {shlex.quote(str(trained))} --input SCANS --output LABEL_MAPS")
    return 1 if left_out else 0


def _is_alike(run_dir: Path, config: ExperimentConfig) -> bool:
    """Tells whether a run is finished and differs from an experiment in its fold alone."""
    if not (run_dir / EVALUATION_FILE).exists():
        return False
    return not set(other_settings(read_config(run_dir), config)) - {"fold"}


def _begin(
    config: ExperimentConfig, dataset: Dataset, directories: Collection[Path], *, resume: bool
) -> tuple[ExperimentConfig, TrainingConfig, Origin]:
    """Returns the configuration with its initial weights, its training settings on this machine, and its origin."""
    training = config.training
    if resume and training.init_from is None and (source := recorded_init_from(directories)) is not None:
        LOG.info("initial weights: those of %s, as the run began", source)
        training = replace(training, init_from=source)
    device = training_device(config, dataset)
    kind: Any = device.type
    precision = choose_precision(training.precision, device)
    config = replace(config, training=training)
    anew = any(map(_starts_anew, directories))
    origin = Origin(
        computed_with=environment(device, precision),
        data={case.id: case_digest(case) for case in dataset.cases},
        initial_weights=_initial_weights(config) if anew else None,
        seen=_seen(config, dataset) if anew else {},
    )
    return config, replace(training, device=kind, precision=precision), origin


def _check_step(config: ExperimentConfig, computed_on: TrainingConfig, dataset: Dataset) -> None:
    """Checks that the estimate of a training step is within the whole memory of the device.

    Raises:
        ConfigError: It is beyond.
    """
    ends = len(dataset.channel_names), len(dataset.class_names)
    cost = step_cost(config.network, config.patches.size, config.patches.batch, *ends)
    needed = int(cost.memory_gib("bf16" if computed_on.precision == "bf16" else "fp32") * GIB)
    on_gpu = computed_on.device == "cuda"
    total = torch.cuda.get_device_properties(0).total_memory if on_gpu else total_bytes()
    if total is not None and needed > total:
        rule, value = "must leave a training step that fits in memory", f"about {gib(needed)}, with {gib(total)} in all"
        remedy = "make patches.size, patches.batch or network.channels smaller"
        raise ConfigError(Problem("patches.size", "memory", rule, value, remedy))


def _starts_anew(run_dir: Path) -> bool:
    return not (run_dir / EVALUATION_FILE).exists() and not (run_dir / LAST_CHECKPOINT).exists()


def _initial_weights(config: ExperimentConfig) -> str | None:
    source = config.training.init_from
    return None if source is None else weights_digest(Path(source))


def _seen(config: ExperimentConfig, dataset: Dataset) -> dict[str, str]:
    """Returns the cases that usable initial weights were trained on."""
    if config.training.init_from is None:
        return {}
    source = Path(config.training.init_from)
    network = network_from_config(config.network, len(dataset.channel_names), len(dataset.class_names))
    fitting_weights(network, source, dataset.class_names)
    seen = seen_cases(source)
    if seen is None:
        LOG.warning("%s: has no record of its cases; held-out cases may be among those it was trained on", source)
    return seen or {}


@contextmanager
def recorded_threads(run_dir: Path, computed_with: Mapping[str, Any]) -> Iterator[None]:
    """Computes with as many threads as a run began with, and warns where device or torch are others.

    Sums are taken in parts, one for each thread, so their last digits depend on the number of threads.

    Args:
        run_dir: Run directory that has begun.
        computed_with: What this process computes with.
    """
    recorded = read_origin(run_dir)
    began = computed_with if recorded is None else recorded.computed_with
    for name, then, now in (
        ("device", began.get("device"), computed_with.get("device")),
        ("torch", _torch(began), _torch(computed_with)),
    ):
        if then != now:
            LOG.warning(
                "%s: began with %s %s and goes on with %s; its weights may differ in the last digits from those of a "
                "run that was not interrupted",
                run_dir,
                name,
                then,
                now,
            )
    here, threads = torch.get_num_threads(), began.get("threads")
    if not isinstance(threads, int) or threads < 1 or threads == here:
        yield
        return
    LOG.info("%s: threads: %d, as it began, in place of %d", run_dir, threads, here)
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(here)


def _torch(computed_with: Mapping[str, Any]) -> object:
    packages = computed_with.get("packages")
    return packages.get("torch") if isinstance(packages, Mapping) else None
