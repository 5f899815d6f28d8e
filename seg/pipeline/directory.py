"""Run directories: made, recognised, described."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

from seg.cli import dump_config, load_config
from seg.config import ExperimentConfig
from seg.data.cases import Dataset
from seg.errors import RunError
from seg.files import write_text
from seg.layout import CONFIG_FILE, MODEL_VERSION, NOTICE


def open_run(config: ExperimentConfig, run_dir: Path, *, resume: bool) -> None:
    """Makes a run directory, or checks that an existing one belongs to the same experiment.

    Args:
        config: The experiment.
        run_dir: Run directory.
        resume: Whether an existing directory is continued; an absent one is made either way.

    Raises:
        RunError: The directory exists and ``resume`` is off, holds other files, was made from another configuration,
            or cannot be written.
    """
    path = run_dir / CONFIG_FILE
    if path.exists():
        if not resume:
            raise RunError(f"{run_dir}: must be new, got an existing run; choose another --run_dir or add --resume.")
        changed = differences(_comparable(load_config([path])), _comparable(config))
        if changed:
            raise RunError(
                f"{run_dir}: a resumed run must have the configuration it began with, got other values of "
                f"{', '.join(changed)}; restore them or choose another --run_dir."
            )
        return
    if run_dir.exists() and (not run_dir.is_dir() or any(run_dir.iterdir())):
        raise RunError(f"{run_dir}: must be absent or an empty folder, got other files; choose another --run_dir.")
    write_text(path, dump_config(config))


def _comparable(config: ExperimentConfig) -> ExperimentConfig:
    """Leaves out what does not change the weights."""
    data = replace(config.data, root="", cache="auto", cache_dir=None, workers=0)
    return replace(config, data=data, training=replace(config.training, progress=True))


def differences(one: ExperimentConfig, other: ExperimentConfig) -> list[str]:
    """Lists the dotted paths at which two configurations differ."""
    return list(_differing(asdict(one), asdict(other), ""))


def _differing(one: object, other: object, path: str) -> list[str]:
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return [
            found for key in one for found in _differing(one[key], other[key], f"{path}.{key}" if path else str(key))
        ]
    return [] if one == other else [path]


def describe_model(config: ExperimentConfig, dataset: Dataset) -> dict[str, object]:
    """Describes a trained network for whoever is handed its run directory."""
    return {
        "schema_version": MODEL_VERSION,
        "notice": NOTICE,
        "name": config.name,
        "channel_names": list(dataset.channel_names),
        "class_names": list(dataset.class_names),
        "data_set": dataset.name,
        "data_licence": dataset.licence,
        "network": asdict(config.network),
        "patch_size": list(config.patches.size),
    }
