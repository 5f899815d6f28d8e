"""Removal of small and stray components from a label map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from seg.config import PostprocessingConfig
from seg.errors import ConfigError

NEIGHBOURS = np.ones((3, 3, 3), bool)
"""Voxels that share a corner are connected."""


@dataclass(frozen=True)
class CleaningRule:
    """What is kept of a class.

    Attributes:
        largest: Whether the largest component alone is kept; of equals the first in memory.
        min_volume_ml: Components below this are removed, in ml.
    """

    largest: bool
    min_volume_ml: float


def cleaning_rules(config: PostprocessingConfig, class_names: Sequence[str]) -> dict[int, CleaningRule]:
    """Reads the rules of a configuration for the classes of a data set.

    Args:
        config: The rules by name.
        class_names: Names of all classes, the background first.

    Returns:
        The rules by class index, of those classes that have any.

    Raises:
        ConfigError: A name is not that of a foreground class, or volumes do not match classes; all problems together.
    """
    names = list(class_names)[1:]
    problems = [
        f"postprocessing.largest_component must name foreground classes of the data set, {', '.join(names)}, "
        f"got '{name}'."
        for name in config.largest_component
        if name not in names
    ]
    volumes = config.min_volume_ml
    if len(volumes) not in (0, 1, len(names)):
        problems.append(
            "postprocessing.min_volume_ml must have one number, or one for each foreground class of the data set "
            f"({', '.join(names)}), got {len(volumes)}."
        )
    if problems:
        raise ConfigError(problems)
    per_class = volumes * len(names) if len(volumes) == 1 else volumes or (0.0,) * len(names)
    rules = {
        index: CleaningRule(name in config.largest_component, volume)
        for index, (name, volume) in enumerate(zip(names, per_class, strict=True), start=1)
    }
    return {index: rule for index, rule in rules.items() if rule.largest or rule.min_volume_ml > 0}


def clean_labels(
    labels: npt.NDArray[Any], rules: dict[int, CleaningRule], affine: npt.NDArray[Any]
) -> dict[int, float]:
    """Removes components in place; what is removed becomes background.

    Args:
        labels: Class indices (X, Y, Z).
        rules: Rules by class index.
        affine: Affine of the grid, in mm.

    Returns:
        What was removed of each class that has a rule, in ml.
    """
    if not rules:
        return {}
    from scipy import ndimage  # takes half a second, which most runs have no use for

    voxel_ml = abs(float(np.linalg.det(np.asarray(affine, np.float64)[:3, :3]))) / 1000
    boxes = ndimage.find_objects(labels, max_label=max(rules))
    removed = {}
    for index, rule in rules.items():
        box = boxes[index - 1]
        removed[index] = 0.0 if box is None else voxel_ml * _clean_class(labels[box], index, rule, voxel_ml)
    return removed


def _clean_class(labels: npt.NDArray[Any], index: int, rule: CleaningRule, voxel_ml: float) -> int:
    from scipy import ndimage

    components, _ = ndimage.label(labels == index, structure=NEIGHBOURS)
    sizes = np.bincount(components.ravel())
    sizes[0] = 0
    # Half a voxel: a component of exactly the smallest volume stays, whatever the rounding.
    keep = (sizes + 0.5) * voxel_ml > rule.min_volume_ml
    if rule.largest:
        keep &= np.arange(len(sizes)) == sizes.argmax()
    keep[0] = True
    gone = ~keep[components]
    labels[gone] = 0
    return int(np.count_nonzero(gone))
