"""The range of every number in a configuration."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

from seg.config.experiment import SCHEMA_VERSION, ExperimentConfig

LARGEST_SEED = 2**32 - 1  # NumPy's legacy generators take no larger one
RANGES = {
    "schema_version": f"in [1, {SCHEMA_VERSION}]",
    "seed": f"in [0, {LARGEST_SEED}]",
    "fold": ">= 0",
    "data.folds": ">= 2",
    "data.split_seed": ">= 0",
    "data.train_cases": ">= 1",
    "data.spacing_mm": "> 0",
    "data.ct.std": "> 0",
    "data.workers": ">= 0",
    "patches.size": ">= 1",
    "patches.batch": ">= 1",
    "patches.foreground_fraction": "in [0, 1]",
    "augmentation.spatial.probability": "in [0, 1]",
    "augmentation.spatial.rotation_deg": "in [0, 180]",
    "augmentation.spatial.scale": "> 0",
    "augmentation.spatial.anisotropic_scale": "in [0, 1)",
    "augmentation.spatial.scale_axes": "in [0, 2]",
    "augmentation.spatial.shift": ">= 0",
    "augmentation.spatial.elastic_voxels": ">= 0",
    "augmentation.spatial.elastic_grid": ">= 2",
    "augmentation.spatial.elastic_axes": "in [0, 2]",
    "augmentation.spatial.mirror_axes": "in [0, 2]",
    "augmentation.intensity.noise_probability": "in [0, 1]",
    "augmentation.intensity.noise_std": ">= 0",
    "augmentation.intensity.blur_probability": "in [0, 1]",
    "augmentation.intensity.blur_sigma": "> 0",
    "augmentation.intensity.brightness_probability": "in [0, 1]",
    "augmentation.intensity.brightness": "> 0",
    "augmentation.intensity.contrast_probability": "in [0, 1]",
    "augmentation.intensity.contrast": "> 0",
    "augmentation.intensity.gamma_probability": "in [0, 1]",
    "augmentation.intensity.gamma": "> 0",
    "augmentation.intensity.low_resolution_probability": "in [0, 1]",
    "augmentation.intensity.low_resolution": "in (0, 1]",
    "network.channels": ">= 1",
    "network.strides": ">= 1",
    "network.kernel_sizes": ">= 1",
    "network.skip_bottleneck.ratio": "in (0, 4]",
    "network.decoder_bottleneck.ratio": "in (0, 4]",
    "loss.dice_weight": ">= 0",
    "loss.ce_weight": ">= 0",
    "loss.smooth": "> 0",
    "optimizer.learning_rate": "in (0, 10]",
    "optimizer.weight_decay": ">= 0",
    "optimizer.momentum": "in [0, 1)",
    "optimizer.warmup_steps": ">= 0",
    "optimizer.clip_norm": "> 0",
    "training.steps": ">= 1",
    "training.validate_every": ">= 1",
    "training.accumulate": ">= 1",
    "training.ema_decay": "in [0, 1)",
    "training.early_stop": ">= 1",
    "inference.window": ">= 1",
    "inference.overlap": "in [0, 1)",
    "inference.batch": ">= 1",
    "inference.whole_up_to": ">= 0",
    "postprocessing.min_volume_ml": ">= 0",
    "evaluation.nsd_tolerance_mm": "> 0",
    "evaluation.bootstrap_samples": ">= 100",
}
ORDERED = (
    "augmentation.spatial.scale",
    "augmentation.intensity.blur_sigma",
    "augmentation.intensity.brightness",
    "augmentation.intensity.contrast",
    "augmentation.intensity.gamma",
    "augmentation.intensity.low_resolution",
)


def range_problems(config: ExperimentConfig) -> Iterator[str]:
    """Yields a sentence for each number outside its range."""
    for path, rule in RANGES.items():
        for place, number in _numbers(value_at(config, path), path):
            if not _obeys(number, rule):
                yield f"{place} must be {rule}, got {number:.15g}."


def value_at(config: object, path: str) -> object:
    """Returns the value at a dotted path; None within a section that is null."""
    for name in path.split("."):
        config = None if config is None else getattr(config, name)
    return config


def _numbers(value: object, path: str) -> Iterator[tuple[str, float]]:
    """The numbers in a value, however deep, each with its path."""
    if isinstance(value, int | float):
        yield path, value
    elif isinstance(value, tuple):
        for index, item in enumerate(value):
            yield from _numbers(item, f"{path}[{index}]")


def _obeys(number: float, rule: str) -> bool:
    """Whether a number, which must be finite, obeys a rule such as ">= 0" or "in (0, 4]"."""
    if not math.isfinite(number):
        return False
    if interval := re.fullmatch(r"in ([\[(])(\d+), (\d+)([\])])", rule):
        low, high = float(interval[2]), float(interval[3])
        above = number >= low if interval[1] == "[" else number > low
        return above and (number <= high if interval[4] == "]" else number < high)
    sign, bound = rule.split(" ")
    return number >= float(bound) if sign == ">=" else number > float(bound)


def order_problems(config: ExperimentConfig) -> Iterator[str]:
    """Yields a sentence for each range that runs from high to low."""
    for path in ORDERED:
        value = value_at(config, path)
        if isinstance(value, tuple) and value[0] > value[1]:
            yield f"{path} must be a range from low to high, got {list(value)}; swap the two."
