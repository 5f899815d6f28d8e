"""Planning: from a folder of scans to an experiment that trains on them, after nnU-Net's rules.

The rules and where they deviate are written down in docs/planning.md.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Literal

from seg.config import DataConfig, dump_config
from seg.data.checks import check_dataset
from seg.data.datasets import read_dataset, with_patients
from seg.data.fingerprint import fingerprint_dataset
from seg.data.splits import make_splits
from seg.errors import DataError
from seg.planning.header import describe_plan
from seg.planning.planner import Plan, detect_patient_pattern, experiment_name, plan_experiment

LOG = logging.getLogger(__name__)
DEFAULT_MEMORY_GIB = 4.0
MIN_FOLDS = 2

__all__ = ["DEFAULT_MEMORY_GIB", "Plan", "plan_dataset", "plan_experiment"]


def plan_dataset(
    root: Path,
    *,
    layout: Literal["auto", "msd", "nnunet", "manifest"] = "auto",
    memory_gib: float = DEFAULT_MEMORY_GIB,
    patient_pattern: str | None = None,
) -> str:
    """Reads a data set and plans an experiment on it.

    Args:
        root: Folder of the data set.
        layout: Layout of the folder.
        memory_gib: Memory that the training process may take, in GiB, in fp32; bf16 takes less.
        patient_pattern: Regular expression whose first group is the patient in a case id. Null takes one that is found
            in the ids, where they end in a frame, visit or the like and the data set names no patients.

    Returns:
        YAML text of a complete configuration, commented.

    Raises:
        ConfigError: The memory does not hold a training step, or the pattern is no regular expression with a group.
        DataError: The data set cannot be read, cases are faulty or without a label, or no folds can be made of them:
            what training would refuse too. All problems of the cases are named together.
    """
    dataset = read_dataset(root, layout=layout, patient_pattern=patient_pattern)
    pattern = patient_pattern
    if pattern is None and all(case.patient is None for case in dataset.cases):
        pattern = detect_patient_pattern([case.id for case in dataset.cases])
        dataset = dataset if pattern is None else with_patients(dataset, pattern)
    reports = check_dataset(dataset)
    for warning in (warning for report in reports for warning in report.warnings):
        LOG.warning("%s", warning)
    if errors := [error for report in reports for error in report.errors]:
        raise DataError(errors)
    patients = {case.patient or case.id for case in dataset.cases}
    folds = max(MIN_FOLDS, min(DataConfig().folds, len(patients)))
    data = DataConfig(root=str(root), layout=layout, patient_pattern=pattern, folds=folds)
    make_splits(dataset, folds=folds, seed=data.split_seed)  # what training would refuse is not planned
    fingerprint = fingerprint_dataset(dataset)
    plan = plan_experiment(
        fingerprint,
        data,
        name=experiment_name(root),
        memory_gib=memory_gib,
    )
    return dump_config(plan.config, comments=True, header=describe_plan(plan, fingerprint, memory_gib))
