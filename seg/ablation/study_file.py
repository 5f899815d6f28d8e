"""``study.yaml``: what a study is, for its report and for whoever repeats it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seg.ablation.grid import Study, Variant, published
from seg.ablation.store import OLD_STUDY_FILE, STUDY_FILE, StudyPlan, plan_text
from seg.config import StudyConfig
from seg.data.cases import Dataset
from seg.data.datasets import read_folds
from seg.errors import RunError
from seg.files import write_text

if TYPE_CHECKING:
    from seg.networks.complexity import Complexity


def write_study_file(study: Study, study_dir: Path) -> Path:
    """Writes ``study.yaml``: variants with their size and work, and all trials of the grid, also those left out now.

    Args:
        study: The study.
        study_dir: Study directory, made where absent.

    Raises:
        DataError: The data set cannot be read: its channels and classes belong to the size of a network.
        RunError: The file cannot be written.
    """
    path = study_dir / STUDY_FILE
    write_text(path, plan_text(describe_study(study, read_study_data(study))))
    (study_dir / OLD_STUDY_FILE).unlink(missing_ok=True)
    return path


def read_study_data(study: Study) -> Dataset:
    """Reads what the data set of a study says of itself; its volumes stay on disk.

    Raises:
        DataError: It cannot be read, or its splits do not hold.
        RunError: It has not all folds of the study.
    """
    dataset, splits = read_folds(study.baseline.config.data)
    if unknown := [fold for fold in study.config.folds if fold >= len(splits)]:
        raise RunError(
            f"folds must be in 0 ... {len(splits) - 1}, got {', '.join(map(str, unknown))}; choose among these."
        )
    return dataset


def count_costs(study: Study, dataset: Dataset) -> Mapping[str, Complexity]:
    """Counts parameters and multiply-accumulates of each variant, for one image of the patch size, by name."""
    from seg.networks.complexity import complexity

    return {
        variant.name: complexity(
            len(dataset.channel_names),
            len(dataset.class_names),
            variant.config.network,
            shape=variant.config.patches.size,
        )
        for variant in study.variants
    }


def describe_study(study: Study, dataset: Dataset) -> StudyPlan:
    """Returns the content of ``study.yaml``."""
    shared = study.baseline.config
    costs = count_costs(study, dataset)
    content = {
        "name": study.config.name,
        "command": study.command,
        "base": study.config.base,
        "set": _published(study.config.set),
        "margin": study.config.margin,
        "folds": list(study.config.folds),
        "seeds": list(study.config.seeds),
        "baseline": study.baseline.name,
        "baseline_set": _published(study.config.baseline.set),
        "variants": [_variant(variant, costs[variant.name]) for variant in study.variants],
        "contrasts": [asdict(contrast) for contrast in study.config.contrasts],
        **said_by_hand(study.config),
        "trials": [trial.id for trial in study.planned],
        "training": {
            "steps": shared.training.steps,
            "batch": shared.patches.batch,
            "accumulate": shared.training.accumulate,
            "patch_size": list(shared.patches.size),
            "validate_every": shared.training.validate_every,
            "train_cases": shared.data.train_cases,
        },
        "data": {
            "name": dataset.name,
            "licence": dataset.licence,
            "attribution": dataset.attribution,
            "num_cases": len(dataset.cases),
            "class_names": list(dataset.class_names),
            "nsd_tolerance_mm": shared.evaluation.nsd_tolerance_mm,
        },
    }
    return StudyPlan.model_validate(content)


def said_by_hand(config: StudyConfig) -> dict[str, Any]:
    """Returns what a study's file alone knows and its report needs."""
    return {"notes": list(config.notes), "nominal_spacing": config.nominal_spacing, "pictures": config.pictures}


def _published(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {path: published(path, value) for path, value in fields.items()}


def _variant(variant: Variant, cost: Complexity) -> dict[str, Any]:
    return {
        "name": variant.name,
        "changes": _published(variant.changes),
        "parameters": cost.parameters,
        "macs": cost.macs,
        "stages": [asdict(stage) for stage in cost.stages],
    }
