"""What the variants of a study must share for their comparison to be paired."""

from __future__ import annotations

from seg.config import ExperimentConfig
from seg.config.fields import fields_of, value_at
from seg.config.text import shown

FREE = ("network.", "loss.", "optimizer.", "inference.", "postprocessing.")
"""Sections that variants may change: none of them moves cases, folds, order, augmentation, steps or scores."""
ALSO_FREE = ("training.precision", "training.ema_decay")


def pairing_problems(where: str, config: ExperimentConfig, baseline: ExperimentConfig) -> list[str]:
    """Lists the fields in which a variant must be as the baseline and is not.

    Args:
        where: What is said before each problem.
        config: The variant's experiment.
        baseline: The baseline's.
    """
    return [
        f"{where}: must share {path} with the baseline, or the comparison is not paired, got "
        f"{shown(value_at(config, path))} beside {shown(value_at(baseline, path))}; change it for all under set."
        for path, field in fields_of(ExperimentConfig).items()
        if field.section is None
        and not path.startswith(FREE)
        and path not in ALSO_FREE
        and value_at(config, path) != value_at(baseline, path)
    ]
