"""What a trial is made from: configuration, data and code, a digest of each."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from seg.ablation.code import code_digest
from seg.config import DataConfig, ExperimentConfig
from seg.config.loading import comparable
from seg.errors import RunError

UNKNOWN = "unknown"
"""Digest of the code of a run that was made by hand: its run directory does not say which code made it."""


@dataclass(frozen=True, kw_only=True)
class Fingerprint:
    """Digests that identify a trial: SHA-256 in hex.

    Attributes:
        config: The resolved configuration, without what changes neither weights nor predictions.
        data: Files of all cases, what their channels and labels mean, and the two sides of the fold.
        code: The code that trains and predicts; `UNKNOWN` for a run that was made by hand.
    """

    config: str
    data: str
    code: str


def fingerprint(config: ExperimentConfig) -> Fingerprint:
    """Returns the fingerprint of a trial that this process would run.

    Files of cases are read once per process.

    Raises:
        DataError: The data set cannot be read.
        RunError: The data set has no such fold, or the initial weights cannot be read.
    """
    return Fingerprint(config=config_digest(config), data=data_digest(config), code=code_digest())


def config_digest(config: ExperimentConfig) -> str:
    """Returns the digest of a configuration: folder of the data, cache, workers, progress and name are left out.

    Raises:
        RunError: The initial weights cannot be read.
    """
    return _digest(asdict(of_trial(config)))


def of_trial(config: ExperimentConfig) -> ExperimentConfig:
    """Returns a configuration without what changes neither weights nor predictions of a trial, such as its name.

    Folds are left to the data's digest; initial weights go by content, wherever they lie.

    Raises:
        RunError: The initial weights cannot be read.
    """
    kept = comparable(config)
    training = replace(kept.training, init_from=_weights(config.training.init_from))
    return replace(kept, name="", data=replace(kept.data, splits=None), training=training)


def data_digest(config: ExperimentConfig) -> str:
    """Returns the digest of the cases that a fold trains and validates on.

    Raises:
        DataError: The data set cannot be read.
        RunError: It has no such fold.
    """
    data = config.data
    splits = _splits(data)
    if config.fold >= len(splits):
        raise RunError(
            f"{data.root}: folds of a study must be in 0 ... {len(splits) - 1}, got {config.fold}; choose among these."
        )
    return _digest(_files(data.root, data.layout, data.patient_pattern) | splits[config.fold])


def case_digests(config: ExperimentConfig) -> Mapping[str, str]:
    """Returns the digest of each case's files, by id.

    Raises:
        DataError: The data set cannot be read.
    """
    return dict(_files(config.data.root, config.data.layout, config.data.patient_pattern)["cases"])


def _weights(run_dir: str | None) -> str | None:
    if run_dir is None:
        return None
    from seg.runs import weights_digest

    return weights_digest(Path(run_dir))


@lru_cache(maxsize=64)
def _files(root: str, layout: Any, patient_pattern: str | None) -> dict[str, Any]:
    from seg.data.prepared import case_digest
    from seg.data.readers import read_dataset

    dataset = read_dataset(Path(root), layout=layout, patient_pattern=patient_pattern)
    return {
        "cases": [[case.id, case_digest(case)] for case in dataset.cases],
        "class_names": dataset.class_names,
        "channel_names": dataset.channel_names,
        "ignore_label": dataset.ignore_label,
    }


@lru_cache(maxsize=64)
def _splits(data: DataConfig) -> list[dict[str, Any]]:
    from seg.workflows.inputs import read_splits

    config = ExperimentConfig(data=data)
    splits = read_splits(config, [])
    return [{"train": split.train, "validation": split.validation} for split in splits]


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
