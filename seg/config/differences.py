"""Where two experiments differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace

from seg.config.data import DataConfig
from seg.config.experiment import ExperimentConfig


def comparable(config: ExperimentConfig) -> ExperimentConfig:
    """Leaves out what changes neither weights nor predictions; of initial weights stays whether there are any."""
    defaults = DataConfig()
    data = replace(config.data, root="", cache=defaults.cache, cache_dir=None, workers=defaults.workers)
    source = None if config.training.init_from is None else "given"
    return replace(config, data=data, training=replace(config.training, progress=False, init_from=source))


def differences(one: ExperimentConfig, other: ExperimentConfig) -> list[str]:
    """Lists the dotted paths at which two configurations differ."""
    return _differing(asdict(one), asdict(other), "")


def _differing(one: object, other: object, path: str) -> list[str]:
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return [
            found for key in one for found in _differing(one[key], other[key], f"{path}.{key}" if path else str(key))
        ]
    return [] if one == other else [path]
