"""Rules between the fields of an experiment; ranges of single fields stand beside the fields."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

from seg.config.experiment import DataConfig, ExperimentConfig, LossConfig
from seg.config.fields import Rules, value_at
from seg.config.network import NetworkConfig
from seg.config.patients import pattern_problems
from seg.errors import Problem, shown

RULES = Rules()
RANGES = (
    "augmentation.spatial.scale",
    "augmentation.intensity.blur_sigma",
    "augmentation.intensity.brightness",
    "augmentation.intensity.contrast",
    "augmentation.intensity.gamma",
    "augmentation.intensity.low_resolution",
)


def network_problems(network: NetworkConfig) -> list[Problem]:
    """Lists every rule between the fields of a network that it breaks."""
    config = ExperimentConfig(data=DataConfig(root="data"), network=network)
    return [problem for problem in RULES.broken(config) if problem.path.startswith("network.")]


@RULES.rule("name")
def _name(config: ExperimentConfig) -> Iterator[Problem]:
    if not re.fullmatch(r"\w[\w.-]*", config.name):
        rule = "must be letters, digits, '_', '-' and '.', for it names a folder"
        yield Problem("name", "name", rule, shown(config.name))
    elif len(config.name.encode()) > 200:
        rule = "must be at most 200 bytes long, for it names a folder"
        yield Problem("name", "name", rule, f"{len(config.name.encode())} bytes")


@RULES.rule("augmentation")
def _ranges(config: ExperimentConfig) -> Iterator[Problem]:
    for path in RANGES:
        low, high = value_at(config, path)
        if low > high:
            yield Problem(path, "order", "must be a range from low to high", shown((low, high)), "swap the two")
    for name in ("scale_axes", "elastic_axes", "mirror_axes"):
        path = f"augmentation.spatial.{name}"
        axes = value_at(config, path)
        if len(set(axes)) < len(axes):
            yield Problem(path, "repeated", "must name each axis once", shown(axes))


@RULES.rule("loss.dice_weight", "loss.ce_weight")
def _loss(config: ExperimentConfig) -> Iterator[Problem]:
    if config.loss.dice_weight == config.loss.ce_weight == 0:
        rule, remedy = "or loss.ce_weight must be > 0", "without either nothing is learned"
        yield Problem("loss.dice_weight", "conflict", rule, "0 for both", remedy)


@RULES.rule("loss.ce_weight", "loss.class_weights", "loss.focal_gamma", "loss.top_k")
def _cross_entropy(config: ExperimentConfig) -> Iterator[Problem]:
    loss, plain = config.loss, LossConfig()
    if loss.class_weights and not any(loss.class_weights):
        yield Problem("loss.class_weights", "range", "must have a weight > 0", shown(loss.class_weights))
    for name in ("class_weights", "focal_gamma", "top_k"):
        if loss.ce_weight == 0 and getattr(loss, name) != getattr(plain, name):
            rule = f"must be {shown(getattr(plain, name))} where loss.ce_weight is 0, as it changes cross-entropy alone"
            yield Problem(f"loss.{name}", "conflict", rule, shown(getattr(loss, name)))


@RULES.rule("data.root", "data.patient_pattern")
def _data(config: ExperimentConfig) -> Iterator[Problem]:
    if not config.data.root:
        yield Problem("data.root", "empty", "must be a folder", "an empty text", "name the folder of the data set")
    if config.data.patient_pattern is not None:
        yield from pattern_problems(config.data.patient_pattern)


@RULES.rule("fold", "data.train_cases", "training.early_stop")
def _final(config: ExperimentConfig) -> Iterator[Problem]:
    for path in ("data.train_cases", "training.early_stop"):
        if config.fold is None and (value := value_at(config, path)) is not None:
            rule = "must be null where fold is null, as a final model trains on all cases and holds none out"
            yield Problem(path, "conflict", rule, shown(value))


@RULES.rule("data.cache", "data.cache_dir")
def _cache(config: ExperimentConfig) -> Iterator[Problem]:
    data = config.data
    if data.cache_dir is not None and data.cache in ("memory", "none"):
        rule = f"must be null where data.cache is {data.cache}"
        yield Problem("data.cache_dir", "conflict", rule, shown(data.cache_dir))


@RULES.rule("data.normalization", "data.ct")
def _ct(config: ExperimentConfig) -> Iterator[Problem]:
    normalization, ct = config.data.normalization, config.data.ct
    if not normalization:
        yield Problem("data.normalization", "empty", "must name a mode for all channels or one per channel", "none")
    if ct is None:
        if "ct" in normalization:
            rule = "must be given where data.normalization names ct"
            yield Problem("data.ct", "missing", rule, "null", "`seg plan` finds its values")
        return
    if "ct" not in normalization:
        rule = "must be null where data.normalization names no ct"
        yield Problem("data.ct", "conflict", rule, f"a window and {list(normalization)}")
    lengths = [len(values) for values in (ct.lower, ct.upper, ct.mean, ct.std)]
    channels = len(normalization) if len(normalization) > 1 else lengths[0]
    if set(lengths) != {channels} or channels == 0:
        rule = (
            "must give lower, upper, mean and std one value per channel each, as many as data.normalization where "
            "that names several"
        )
        yield Problem("data.ct", "length", rule, f"{', '.join(map(str, lengths))} values")
    for channel, (low, high) in enumerate(zip(ct.lower, ct.upper, strict=False)):
        if low >= high:
            rule = f"must be less than data.ct.upper[{channel}]"
            yield Problem(f"data.ct.lower[{channel}]", "order", rule, f"{low:g} and {high:g}")


@RULES.rule("network.channels", "network.strides", "network.kernel_sizes")
def _stages(config: ExperimentConfig) -> Iterator[Problem]:
    network = config.network
    stages = len(network.channels)
    if stages < 2:
        yield Problem("network.channels", "length", "must list at least 2 stages", str(stages))
    for name in ("strides", "kernel_sizes"):
        count = len(getattr(network, name))
        if count != stages:
            rule = f"must have as many entries as network.channels, {stages}"
            yield Problem(f"network.{name}", "length", rule, str(count))
    if network.strides and network.strides[0] != (1, 1, 1):
        yield Problem("network.strides[0]", "range", "must be [1, 1, 1], full resolution", shown(network.strides[0]))
    for stage, kernel in enumerate(network.kernel_sizes):
        if any(size % 2 == 0 for size in kernel):
            yield Problem(f"network.kernel_sizes[{stage}]", "range", "must be odd", shown(kernel))


@RULES.rule("network.channels", "network.skip_bottleneck", "network.decoder_bottleneck")
def _ratios(config: ExperimentConfig) -> Iterator[Problem]:
    stages = len(config.network.channels)
    for name in ("skip_bottleneck", "decoder_bottleneck"):
        ratio = value_at(config, f"network.{name}.ratio")
        if isinstance(ratio, tuple) and len(ratio) != stages - 1:
            rule = f"must be one number or one for each of the {stages - 1} stages of network.channels above the bottom"
            yield Problem(f"network.{name}.ratio", "length", rule, str(len(ratio)))


@RULES.rule("network.channels", "network.widths", "network.decoder_bottleneck")
def _widths(config: ExperimentConfig) -> Iterator[Problem]:
    network = config.network
    if network.widths is None:
        return
    stages, bottleneck = len(network.channels), network.decoder_bottleneck is not None
    kernels, convolutions = (1, 3) if bottleneck else (2, 2)
    wanted = {
        "encoder": (stages, None),
        "up": (stages - 1, None),
        "decoder": (stages - 1, convolutions),
        "encoder_ranks": (stages, 2),
        "decoder_ranks": (stages - 1, kernels),
    }
    for name, (count, inner) in wanted.items():
        path, found = f"network.widths.{name}", getattr(network.widths, name)
        if found is None:
            continue
        if len(found) != count:
            rule = f"must have one entry for each of {count} stages, as network.channels has {stages}"
            yield Problem(path, "length", rule, str(len(found)))
        for stage, entry in enumerate(found):
            if inner is not None and len(entry) != inner:
                what = "pairs" if name.endswith("ranks") else "numbers"
                rule = f"must have {inner} {what}, as network.decoder_bottleneck is {'given' if bottleneck else 'null'}"
                rule = f"must have {inner} {what}, one for each convolution" if name == "encoder_ranks" else rule
                yield Problem(f"{path}[{stage}]", "length", rule, str(len(entry)))


@RULES.rule("network.channels", "network.widths", "network.merge", "network.skip_bottleneck")
def _added_widths(config: ExperimentConfig) -> Iterator[Problem]:
    network = config.network
    if network.widths is None or network.widths.up is None or network.merge != "add":
        return
    for stage, (width, wanted) in enumerate(zip(network.widths.up, network.channels, strict=False)):
        if width != wanted:
            rule = f"must be network.channels[{stage}], {wanted}, where network.merge is add"
            yield Problem(f"network.widths.up[{stage}]", "conflict", rule, str(width))


@RULES.rule("network.channels", "network.deep_supervision")
def _deep_supervision(config: ExperimentConfig) -> Iterator[Problem]:
    if config.network.deep_supervision and len(config.network.channels) < 3:
        rule = "must be false where network.channels has fewer than 3 stages"
        yield Problem("network.deep_supervision", "conflict", rule, "true")


@RULES.rule("patches.size", "network.strides")
def _patches(config: ExperimentConfig) -> Iterator[Problem]:
    yield from _divisible("patches.size", config)


@RULES.rule("inference.window", "network.strides")
def _window(config: ExperimentConfig) -> Iterator[Problem]:
    if config.inference.window is not None:
        yield from _divisible("inference.window", config)


def _divisible(path: str, config: ExperimentConfig) -> Iterator[Problem]:
    edges = value_at(config, path)
    totals = [math.prod(stride[axis] for stride in config.network.strides) for axis in range(3)]
    for axis, (size, total) in enumerate(zip(edges, totals, strict=True)):
        if size % total:
            lower, upper = size // total * total, -(-size // total) * total
            rule = f"must be a multiple of {total}, the product of network.strides along {'XYZ'[axis]}"
            remedy = f"the nearest valid size is {f'{lower} or ' if lower else ''}{upper}"
            yield Problem(f"{path}[{axis}]", "divisible", rule, str(size), remedy)
    if math.prod(size // total for size, total in zip(edges, totals, strict=True)) == 1:
        value = f"{list(edges)}, which leaves one, without a variance to normalise by"
        rule = "must leave more than one voxel below all network.strides"
        yield Problem(path, "too_small", rule, value, "enlarge it or leave out a stage")


@RULES.rule("optimizer.warmup_steps", "training.steps")
def _warmup(config: ExperimentConfig) -> Iterator[Problem]:
    steps, warmup = config.training.steps, config.optimizer.warmup_steps
    if warmup >= steps:
        yield Problem("optimizer.warmup_steps", "order", f"must be less than training.steps, {steps}", str(warmup))


@RULES.rule("training.steps", "training.validate_every")
def _validations(config: ExperimentConfig) -> Iterator[Problem]:
    steps, every = config.training.steps, config.training.validate_every
    if steps % every:
        rule = f"must be a multiple of training.validate_every, {every}"
        yield Problem("training.steps", "divisible", rule, str(steps), "the run ends with a validation")
