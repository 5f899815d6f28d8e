"""Feature preservation of one trained run, measured on its held-out cases."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from seg.ablation.preservation.gather import Gathered
from seg.ablation.preservation.records import PRESERVATION_VERSION
from seg.ablation.preservation.walk import Walker
from seg.config import load_config
from seg.data.cases import Case, Dataset
from seg.errors import DataError, RunError
from seg.files import write_json
from seg.hardware import choose_device, choose_precision
from seg.inference.predictor import load_model
from seg.networks import UNet
from seg.runs import CONFIG_FILE, PRESERVATION_FILE, TrainedRun

LOG = logging.getLogger(__name__)


def measure_preservation(run_dir: Path, dataset: Dataset, case_ids: Sequence[str]) -> dict[str, Any]:
    """Measures what each bottleneck of a trained network preserves, and writes ``preservation.json`` beside it.

    All voxels of the cases go through the network in the windows of a prediction, in single precision; each counts
    once. Linear probes are fitted on the cases of every second patient and tested on the others, both ways round.

    Args:
        run_dir: Run directory with a configuration and final weights.
        dataset: The data set.
        case_ids: Labelled cases to measure on.

    Returns:
        The content of the file.

    Raises:
        DataError: Cases cannot be read, are not in the data set or have no label.
        RunError: There is no finished run, its network is no U-Net, or the file cannot be written.
    """
    if not (run_dir / CONFIG_FILE).is_file():
        raise RunError(f"{run_dir}: must be a run directory, got no {CONFIG_FILE}; check the path.")
    config = load_config([run_dir / CONFIG_FILE])
    run = TrainedRun(path=run_dir, config=config, channel_names=dataset.channel_names, class_names=dataset.class_names)
    device = choose_device(config.training.device)
    model = load_model(run, device, choose_precision("fp32", device), tta=False)
    if not isinstance(model.network, UNet):
        raise RunError(f"{run_dir}: preservation must be measured on a unet, got {config.network.name}.")
    walker = Walker(network=model.network, model=model, data=config.data, ignore_label=dataset.ignore_label)
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
