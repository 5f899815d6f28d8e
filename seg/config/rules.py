"""Rules that a configuration obeys: the range of every number (in ranges.py), and what holds between fields."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence

from seg.config.data import CtConfig, DataConfig
from seg.config.experiment import ExperimentConfig
from seg.config.network import NetworkConfig
from seg.config.patients import pattern_problem
from seg.config.ranges import order_problems, range_problems, value_at

AXES = "XYZ"


def problems(config: ExperimentConfig) -> list[str]:
    """Lists every rule that a configuration breaks.

    Args:
        config: The configuration, its values of the right types.

    Returns:
        One sentence for each problem, with the dotted path of each field it is about; empty where all is well.
    """
    return [
        *range_problems(config),
        *order_problems(config),
        *_general(config),
        *_data(config.data),
        *_network(config.network),
        *_patches(config),
        *_training(config),
    ]


def _general(config: ExperimentConfig) -> Iterator[str]:
    if not re.fullmatch(r"\w[\w.-]*", config.name):
        yield f"name must be letters, digits, '_', '-' and '.', for it names a folder, got {config.name!r}."
    for name in ("scale_axes", "elastic_axes", "mirror_axes"):
        axes = getattr(config.augmentation.spatial, name)
        if len(set(axes)) < len(axes):
            yield f"augmentation.spatial.{name} must name each axis once, got {list(axes)}."
    if config.loss.dice_weight == config.loss.ce_weight == 0:
        yield "loss.dice_weight or loss.ce_weight must be > 0, got 0 for both; without either nothing is learned."


def _data(data: DataConfig) -> Iterator[str]:
    if not data.root:
        yield "data.root must be a folder, got an empty text; name the folder of the data set."
    if data.patient_pattern is not None and (problem := pattern_problem(data.patient_pattern)) is not None:
        yield problem
    if data.cache_dir is not None and data.cache in ("memory", "none"):
        yield f"data.cache_dir must be null where data.cache is {data.cache}, got {data.cache_dir!r}."
    yield from _ct(data.normalization, data.ct)


def _ct(normalization: Sequence[str], ct: CtConfig | None) -> Iterator[str]:
    if not normalization:
        yield "data.normalization must name a mode for all channels or one per channel, got none."
    if ct is None:
        if "ct" in normalization:
            yield "data.ct must be given where data.normalization names ct, got null; scripts/plan.py finds its values."
        return
    if "ct" not in normalization:
        yield f"data.ct must be null where data.normalization names no ct, got a window and {list(normalization)}."
    lengths = [len(values) for values in (ct.lower, ct.upper, ct.mean, ct.std)]
    channels = len(normalization) if len(normalization) > 1 else lengths[0]
    if set(lengths) != {channels} or channels == 0:
        yield (
            "data.ct.lower, data.ct.upper, data.ct.mean and data.ct.std must have one value per channel, as many as "
            f"data.normalization where that names several, got {', '.join(map(str, lengths))} values."
        )
    for channel, (low, high) in enumerate(zip(ct.lower, ct.upper, strict=False)):
        if not -math.inf < low < high < math.inf:
            yield (
                f"data.ct.lower[{channel}] must be less than data.ct.upper[{channel}], both finite, "
                f"got {low:g} and {high:g}."
            )
    for channel, mean in enumerate(ct.mean):
        if not math.isfinite(mean):
            yield f"data.ct.mean[{channel}] must be finite, got {mean:g}."


def _network(network: NetworkConfig) -> Iterator[str]:
    stages = len(network.channels)
    if stages < 2:
        yield f"network.channels must list at least 2 stages, got {stages}."
    for name in ("strides", "kernel_sizes"):
        count = len(getattr(network, name))
        if count != stages:
            yield f"network.{name} must have as many entries as network.channels, {stages}, got {count}."
    if network.strides and network.strides[0] != (1, 1, 1):
        yield f"network.strides[0] must be [1, 1, 1], full resolution, got {list(network.strides[0])}."
    for stage, kernel in enumerate(network.kernel_sizes):
        if any(size % 2 == 0 for size in kernel):
            yield f"network.kernel_sizes[{stage}] must be odd, got {list(kernel)}."
    for name in ("skip_bottleneck", "decoder_bottleneck"):
        ratio = value_at(network, f"{name}.ratio")
        if isinstance(ratio, tuple) and len(ratio) != stages - 1:
            yield (
                f"network.{name}.ratio must be one number or one for each of the {stages - 1} stages of "
                f"network.channels above the bottom, got {len(ratio)}."
            )
    if network.deep_supervision and stages < 3:
        yield "network.deep_supervision must be false where network.channels has fewer than 3 stages, got true."


def _patches(config: ExperimentConfig) -> Iterator[str]:
    totals = [math.prod(stride[axis] for stride in config.network.strides) for axis in range(3)]
    if min(totals) < 1:
        return  # reported as a range already
    yield from _grid("patches.size", config.patches.size, totals)
    if config.inference.window is not None:
        yield from _grid("inference.window", config.inference.window, totals)


def _grid(path: str, edges: tuple[int, int, int], totals: Sequence[int]) -> Iterator[str]:
    for axis, (size, total) in enumerate(zip(edges, totals, strict=True)):
        if size % total:
            lower, upper = size // total * total, -(-size // total) * total
            yield (
                f"{path}[{axis}] must be a multiple of {total}, the product of network.strides along "
                f"{AXES[axis]}, got {size}; the nearest valid size is {f'{lower} or ' if lower else ''}{upper}."
            )
    if math.prod(size // total for size, total in zip(edges, totals, strict=True)) == 1:
        yield (
            f"{path} must leave more than one voxel below all network.strides, got {list(edges)}, "
            "which leaves one, without a variance to normalise by; enlarge it or leave out a stage."
        )


def _training(config: ExperimentConfig) -> Iterator[str]:
    steps, every = config.training.steps, config.training.validate_every
    if config.optimizer.warmup_steps >= steps:
        yield f"optimizer.warmup_steps must be less than training.steps, {steps}, got {config.optimizer.warmup_steps}."
    if every >= 1 and (steps < every or steps % every):
        yield (
            f"training.steps must be a multiple of training.validate_every, {every}, got {steps}; "
            "the run ends with a validation."
        )
