"""Scoring networks on held-out cases, and the conditions of the comparison that a certificate records."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import torch

from seg.compression.certificate import LEAST_PATIENTS, ORIGINAL, few_patients
from seg.compression.speed import ROUNDS
from seg.config import ExperimentConfig
from seg.data.cases import Dataset
from seg.data.splits import Split
from seg.evaluation.scores import CASES_FILE, CaseScore, read_cases
from seg.hardware import (
    choose_device,
    choose_precision,
    code_version,
    device_name,
    instruction_sets,
    package_version,
    processor_name,
)
from seg.inference.arrays import HOST
from seg.inference.engines import Engine, check_installed
from seg.inference.export import check_packages, in_engine
from seg.inference.model import mirrored_axes, model_from_config, named_axes
from seg.inference.predictor import predictor_of
from seg.networks import UNet
from seg.networks.conv import Triple
from seg.runs import TrainedRun
from seg.words import dimensions
from seg.workflows.evaluate import predictor_scores, run_predictor, scored_otherwise

LOG = logging.getLogger(__name__)
OF_ALL_FOLDS = "multiply-accumulates and parameters"
"""Condition that says that costs are the largest of any fold; the model card of one fold has its own costs."""


def check_engine(engine: Engine) -> None:
    """Checks that networks can be written for an engine and run by it.

    Raises:
        ConfigError: A package is not installed.
    """
    if engine != "torch":
        check_installed(engine)
        check_packages("onnx")


def announce_few(dataset: Dataset, splits: Sequence[Split]) -> None:
    """Warns where the held-out cases are of too few patients for a certificate."""
    held_out = [case for split in splits for case in split.validation]
    if (few := few_patients(dataset, held_out)) is not None:
        LOG.warning("%d held-out patients are too few for a certificate, which needs %d", few, LEAST_PATIENTS)


def mirroring(config: ExperimentConfig) -> str:
    """Names the axes along whose mirrored copies predictions of an experiment are averaged, for a certificate."""
    return named_axes(mirrored_axes(config))


def arithmetic(config: ExperimentConfig, engine: Engine) -> dict[str, str]:
    """Names engine, device, precision and mirroring; ledgers hold digests of these words, so they must not change."""
    device = choose_device(config.training.device if engine == "torch" else "cpu")
    precision = choose_precision(config.training.precision, device) if engine == "torch" else "fp32"
    return {
        "engine": f"{engine} {package_version(engine)}, both networks",
        "device": device.type,
        "precision": precision,
        "mirroring": "on" if config.inference.tta else "off",
    }


def machine(config: ExperimentConfig, engine: Engine) -> dict[str, str]:
    """Describes what passes are measured on: processor, instruction sets, threads, engine, device and precision."""
    found = arithmetic(config, engine)
    return {
        "processor": processor_name(),
        "instruction sets": ", ".join(instruction_sets()) or "not known",
        "threads": str(torch.get_num_threads()),
        "engine": f"{engine} {package_version(engine)}",
        "device": found["device"],
        "precision": found["precision"],
    }


def conditions(runs: Sequence[TrainedRun], engine: Engine, *, patch: Triple) -> dict[str, str]:
    """Returns the conditions that a certificate records: machine, engine, windows, and how passes are measured.

    Args:
        runs: The original, or that of each fold, of which the first is timed.
        engine: What runs the networks.
        patch: Size (X, Y, Z) in voxels of what they are timed on.
    """
    config, several = runs[0].config, len(runs) > 1
    of_fold = f" of {runs[0].path.name}" if several else ""
    whole = f"; volumes of up to {config.inference.whole_up_to} voxels whole" if config.inference.whole_up_to else ""
    found = machine(config, engine)
    device = found["device"]
    return {
        **found,
        **arithmetic(config, engine),
        "device": device if device == "cpu" else f"{device}, {device_name(torch.device(device))}",
        "mirroring": mirroring(config),
        "windows": f"{dimensions(config.window)}, {config.inference.batch} a pass{whole}",
        **({OF_ALL_FOLDS: "the most of any fold"} if several else {}),
        **({"folds": "each network by itself; the average of several was not compared"} if several else {}),
        "segnarrow": code_version(),
        "latency": f"one patch of {dimensions(patch)} in a pass{of_fold}, median of {ROUNDS} rounds in "
        "turns with the original",
        "memory": f"most over loading and two passes of one patch{of_fold}, without the code of libraries",
    }


def torch_scores(run: TrainedRun, split: Split, dataset: Dataset, name: str = ORIGINAL) -> list[CaseScore]:
    """Scores the held-out cases of a run by torch, or reads the scores in its folder where they would be the same.

    Args:
        run: The run, with the folder where its data set lies now.
        split: Its cases.
        dataset: The data set.
        name: What the progress bar says.
    """
    predictor = run_predictor(run.path, run.config, dataset)
    apart = scored_otherwise(run.path, predictor, dataset, split)
    if not apart:
        return read_cases(run.path / CASES_FILE)
    if (run.path / CASES_FILE).is_file():
        LOG.warning("%s is scored anew, as its scores have other %s", run.path, ", ".join(apart))
    return predictor_scores(predictor, run.config, dataset, split, name)


def engine_scores(
    run: TrainedRun,
    network: UNet | Path,
    split: Split,
    dataset: Dataset,
    *,
    engine: Engine,
    name: str,
    precision: str = "fp32",
) -> list[CaseScore]:
    """Predicts and scores a run's held-out cases in an engine, without post-processing that was found on them.

    Args:
        run: The run, with the folder where its data set lies now.
        network: Its network, or a file of it that the engine reads.
        split: Its cases.
        dataset: The data set.
        engine: What runs the network.
        name: What the progress bar says.
        precision: Arithmetic of the network, fp32, bf16 or int8.
    """
    with in_engine(network, run.config.patches.size, engine) as exported:
        model = model_from_config(exported, run.config, device=HOST, precision=precision)
        predictor = predictor_of(run, [model], engine=engine)
        return predictor_scores(predictor, run.config, dataset, split, name)
