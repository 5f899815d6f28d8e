"""Feature preservation of one trained run, measured on its held-out cases."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from seg.ablation.preservation.gather import Gathered
from seg.ablation.preservation.records import PRESERVATION_FILE, PRESERVATION_VERSION
from seg.ablation.preservation.walk import Walker
from seg.cli import load_config
from seg.config import ExperimentConfig
from seg.data.cases import Case, Dataset
from seg.errors import DataError, RunError
from seg.files import write_json
from seg.hardware import choose_device
from seg.inference import model_from_config
from seg.layout import CONFIG_FILE
from seg.networks import UNet
from seg.pipeline.inputs import read_checked, read_splits
from seg.weights import trained_network

LOG = logging.getLogger(__name__)


def measure_preservation(
    run_dir: Path,
    dataset: Dataset | None = None,
    case_ids: Sequence[str] | None = None,
    *,
    data_root: Path | None = None,
) -> dict[str, Any]:
    """Measures what each bottleneck of a trained network preserves, and writes ``preservation.json`` beside it.

    All voxels of the cases go through the network in the windows of a prediction, in single precision; each counts
    once. Linear probes are fitted on the cases of every second patient and tested on the others, both ways round.

    Args:
        run_dir: Run directory with a configuration and final weights.
        dataset: The data set, where it was read already; None reads the one that the configuration names.
        case_ids: Labelled cases to measure on; None takes those that the run held out.
        data_root: Folder of the data set to read; None is the one in the run's configuration.

    Returns:
        The content of the file.

    Raises:
        DataError: Cases cannot be read, are not in the data set or have no label.
        RunError: There is no finished run, its network is no U-Net, or the file cannot be written.
    """
    if not (run_dir / CONFIG_FILE).is_file():
        raise RunError(f"{run_dir}: must be a run directory, got no {CONFIG_FILE}; check the path.")
    config = load_config([run_dir / CONFIG_FILE])
    if data_root is not None:
        config = replace(config, data=replace(config.data, root=str(data_root)))
    left_out: list[str] = []
    if dataset is None:
        dataset, left_out = read_checked(config.data)
    if case_ids is None:
        case_ids = _held_out(config, dataset, left_out)
    walker = _walker(run_dir, config, dataset)
    halves = _halves(dataset, case_ids)
    gathered = Gathered(walker, len(dataset.class_names), halves)
    entries = [gathered.entry(tap) for tap in gathered.taps]
    result = {
        "schema_version": PRESERVATION_VERSION,
        "voxels": max(entry["voxels"] for entry in entries),
        "cases": sum(map(len, halves)),
        "bottlenecks": entries,
    }
    write_json(run_dir / PRESERVATION_FILE, result)
    return result


def _held_out(config: ExperimentConfig, dataset: Dataset, left_out: list[str]) -> Sequence[str]:
    splits = read_splits(config, left_out)
    if config.fold >= len(splits):
        raise RunError(
            f"{config.data.root}: must have the run's fold {config.fold}, got {len(splits)} folds; it is another data "
            "set, or its splits changed."
        )
    return splits[config.fold].validation


def _walker(run_dir: Path, config: ExperimentConfig, dataset: Dataset) -> Walker:
    device = choose_device(config.training.device)
    network = trained_network(config.network, len(dataset.channel_names), len(dataset.class_names), run_dir)
    if not isinstance(network, UNet):
        raise RunError(f"{run_dir}: preservation must be measured on a unet, got {config.network.name}.")
    network.to(device=device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    model = model_from_config(network, config, device=device, precision="fp32", tta=False)
    return Walker(network=network, model=model, data=config.data, ignore_label=dataset.ignore_label)


def _halves(dataset: Dataset, case_ids: Sequence[str]) -> tuple[list[Case], list[Case]]:
    """Deals the cases out by patient, in the order of the data set."""
    wanted = set(case_ids)
    cases = [case for case in dataset.cases if case.id in wanted]
    if unknown := sorted(wanted - {case.id for case in cases}):
        raise DataError(
            f"{dataset.root}: must hold the measured cases, got none called {', '.join(unknown)}; name another folder."
        )
    if not cases:
        raise DataError(f"{dataset.root}: at least one case must be measured, got none; name labelled cases.")
    patients = list(dict.fromkeys(case.patient or case.id for case in cases))
    first = set(patients[::2])
    halves = [case for case in cases if (case.patient or case.id) in first]
    rest = [case for case in cases if (case.patient or case.id) not in first]
    if not rest:
        LOG.warning("preservation: a linear probe needs two patients, got one; probes are left out")
    return halves, rest
