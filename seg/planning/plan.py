"""From a folder of scans to the text of a configuration that trains on them, with its reasons at the top.

The rules and where they deviate from nnU-Net's are written down in docs/planning.md.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from seg.config import DataConfig, dump_config
from seg.config.loading import path_in_file
from seg.data.checks import check_dataset
from seg.data.datasets import DESCRIPTION, MANIFESTS, PATIENTS, read_configured, with_patients
from seg.data.splits import FILE_NAME, STUDY_FILE_NAME, make_splits
from seg.errors import ConfigError, DataError, Problem
from seg.files import real_path
from seg.planning import MEMORY_GIB
from seg.planning.experiment import (
    EXTENT_MARGIN,
    MIN_CONTEXT,
    PlannedExperiment,
    detect_patient_pattern,
    experiment_name,
    plan_experiment,
)
from seg.planning.fingerprint import Fingerprint, fingerprint_dataset
from seg.words import dimensions

LOG = logging.getLogger(__name__)
MIN_FOLDS = 2


def plan_dataset(
    root: Path,
    *,
    layout: Literal["auto", "msd", "nnunet", "manifest"] = "auto",
    memory_gib: float = MEMORY_GIB,
    patient_pattern: str | None = None,
    classes: Sequence[str] | None = None,
    label_grid: Literal["own", "image"] = "own",
    nan: Literal["refuse", "background"] = "refuse",
    output: Path | None = None,
) -> str:
    """Reads a data set and plans an experiment on it.

    Args:
        root: Folder of the data set.
        layout: Layout of the folder.
        memory_gib: Memory that the training process may take, in GiB, in fp32; bf16 takes less.
        patient_pattern: Regular expression whose first group is the patient in a case id. Null takes one that is found
            in the ids, where they end in a frame, visit or the like and the data set names no patients.
        classes: Names of the classes to plan for; null takes all.
        label_grid: Where a label lies: where its own header says, or on the image's grid.
        nan: What voxels that are not a number are.
        output: Where the text is to be written, which must be no file of the data set.

    Returns:
        YAML text of a complete configuration, commented; its relative paths are for a file at the output.

    Raises:
        ConfigError: The output is a file of the data set, the memory does not hold a training step, or the pattern
            is no regular expression with a group.
        DataError: The data set cannot be read, cases are faulty or without a label, or no folds can be made of them:
            what training would refuse too. All problems of the cases are named together.
    """
    names = None if classes is None else tuple(classes)
    data = DataConfig(
        root=str(root),
        layout=layout,
        patient_pattern=patient_pattern,
        classes=names,
        label_grid=label_grid,
        nan=nan,
    )
    dataset = read_configured(data)
    read = [path for case in dataset.cases for path in case.files]
    read += [dataset.root / name for name in (DESCRIPTION, *MANIFESTS, PATIENTS, FILE_NAME, STUDY_FILE_NAME)]
    if output is not None and real_path(output) in map(real_path, read):
        raise ConfigError(Problem("--output", "input", "must be no file of the data set", f"{output}", "name another"))
    pattern = patient_pattern
    if pattern is None and all(case.patient is None for case in dataset.cases):
        pattern = detect_patient_pattern([case.id for case in dataset.cases])
        dataset = dataset if pattern is None else with_patients(dataset, pattern)
    reports = check_dataset(dataset, fill=nan == "background")
    for warning in (warning for report in reports for warning in report.warnings):
        LOG.warning("%s", warning)
    if errors := [error for report in reports for error in report.errors]:
        raise DataError(errors)
    patients = {case.patient_or_id for case in dataset.cases}
    folds = max(MIN_FOLDS, min(DataConfig().folds, len(patients)))
    written = str(root) if output is None else path_in_file(root, output)
    data = replace(data, root=written, patient_pattern=pattern, folds=folds)
    make_splits(dataset, folds=folds, seed=data.split_seed)  # what training would refuse is not planned
    fingerprint = fingerprint_dataset(dataset)
    plan = plan_experiment(fingerprint, data, name=experiment_name(root), memory_gib=memory_gib)
    return dump_config(plan.config, comments=True, header=describe_plan(plan, fingerprint, memory_gib))


AXES = "XYZ"
BACKWARD_FACTOR = 3  # a backward pass takes about twice its forward pass


def describe_plan(plan: PlannedExperiment, fingerprint: Fingerprint, memory_gib: float) -> str:
    """Returns the reasons of a plan within a budget in GiB, one per line, without comment signs."""
    return "\n".join((*_found(fingerprint), *_decided(plan), *_costs(plan, memory_gib)))


def _found(fingerprint: Fingerprint) -> Iterator[str]:
    shapes, spacings = np.array(fingerprint.shapes), np.array(fingerprint.spacings_mm)
    yield f"Planned from {len(fingerprint.case_ids)} cases, fingerprint {fingerprint.digest[:16]}."
    for name, values in (("shape, voxels", shapes), ("spacing, mm", spacings)):
        yield f"  {name}: median {_by(np.median(values, axis=0))}, {_by(values.min(0))} to {_by(values.max(0))}"
    for name, channel in zip(fingerprint.channels, fingerprint.intensities, strict=True):
        yield (
            f"  channel {name}, foreground: {channel.p00_5:.4g} to {channel.p99_5:.4g} (0.5th to 99.5th percentile), "
            f"mean {channel.mean:.4g}, SD {channel.std:.4g}"
        )
    volumes = np.array(fingerprint.class_volumes_ml)
    for index, name in enumerate(fingerprint.class_names):
        present = volumes[volumes[:, index] > 0, index]
        median = f"median {np.median(present):.3g} ml" if present.size else "no voxel"
        yield f"  class {index + 1} {name}: {median}, in {present.size} of {len(volumes)} cases"


def _decided(plan: PlannedExperiment) -> Iterator[str]:
    geometry, patch = plan.geometry, plan.config.patches.size
    spacing = _by(geometry.spacing_mm)
    yield (
        f"Grid: volumes are resampled to {spacing} mm."
        if geometry.resampled
        else f"Grid: every volume has {spacing} mm; nothing is resampled."
    )
    if geometry.thick_axis is not None:
        axis, thinnest = AXES[geometry.thick_axis], geometry.min_shape[geometry.thick_axis]
        yield (
            f"Slices along {axis} are thick: patches turn and zoom within their slices alone, and {axis} is pooled "
            f"only as far as the thinnest volume ({thinnest} voxels) bears."
        )
    bottom = tuple(edge // divisor for edge, divisor in zip(patch, plan.topology.divisors, strict=True))
    yield (
        f"Patch {_by(patch)} of a median volume of {_by(geometry.median_shape)}; 95 % of cases hold their "
        f"foreground within {_by(geometry.extent)}; bottom {_by(bottom)}."
    )
    lengths = zip(AXES, geometry.extent, geometry.median_shape, strict=True)
    if widened := [axis for axis, held, whole in lengths if held * EXTENT_MARGIN < min(MIN_CONTEXT, whole)]:
        yield (
            f"Foreground is short along {', '.join(widened)}: for context the patch takes {MIN_CONTEXT} voxels there "
            "before memory cuts it, or the median volume where it is shorter."
        )
    yield f"Normalisation: {', '.join(plan.config.data.normalization)}."


def _costs(plan: PlannedExperiment, memory_gib: float) -> Iterator[str]:
    cost = plan.cost
    yield (
        f"Estimated peak of training: {cost.memory_gib('bf16'):.1f} GiB in bf16, {cost.memory_gib('fp32'):.1f} GiB in "
        f"fp32, of {memory_gib:g} GiB allowed."
    )
    yield (
        f"Estimated work: {cost.gmac:.1f} GMAC forward, about {BACKWARD_FACTOR * cost.gmac:.0f} GMAC a training step "
        f"of {plan.config.patches.batch} patches; {cost.parameters / 1e6:.2f} M parameters."
    )


def _by(values: Sequence[float]) -> str:
    return dimensions(map(float, values), "g")
