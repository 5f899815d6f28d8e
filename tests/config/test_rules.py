from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from seg.cli.schema import Leaf, nodes
from seg.config import (
    CtConfig,
    ExperimentConfig,
)
from seg.config.ranges import RANGES
from seg.config.rules import problems

DEFAULT = ExperimentConfig()
WINDOW = {"lower": (-100.0,), "upper": (300.0,), "mean": (40.0,), "std": (80.0,)}


def changed(config: Any, path: str, value: object) -> Any:
    """The config with another value at a dotted path."""
    name, _, rest = path.partition(".")
    if rest and getattr(config, name) is None:
        section = next(node for node in nodes().values() if node.path.endswith(name))
        config = replace(config, **{name: section.type()})
    return replace(config, **{name: changed(getattr(config, name), rest, value) if rest else value})


def broken(**values: object) -> list[str]:
    """The problems of the default config with other values; ``__`` stands for a dot."""
    config = DEFAULT
    for path, value in values.items():
        config = changed(config, path.replace("__", "."), value)
    return problems(config)


def test_the_defaults_obey_every_rule() -> None:
    assert problems(DEFAULT) == []


def test_every_number_has_a_range() -> None:
    numeric = {
        node.path
        for node in nodes().values()
        if isinstance(node, Leaf) and any(kind in repr(node.type) for kind in ("int", "float"))
    }
    any_finite_number = {"data.ct.lower", "data.ct.upper", "data.ct.mean"}
    assert set(RANGES) == numeric - any_finite_number


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        ("network.skip_bottleneck.ratio", 0.0, "network.skip_bottleneck.ratio must be in (0, 4], got 0."),
        ("network.decoder_bottleneck.ratio", 4.5, "network.decoder_bottleneck.ratio must be in (0, 4], got 4.5."),
        (
            "network.skip_bottleneck.ratio",
            (0.5, -1.0, 4.0),
            "network.skip_bottleneck.ratio[1] must be in (0, 4], got -1.",
        ),
        ("inference.window", (0, 8, 8), "inference.window[0] must be >= 1, got 0."),
        ("inference.overlap", 1.0, "inference.overlap must be in [0, 1), got 1."),
        ("augmentation.spatial.probability", 1.2, "augmentation.spatial.probability must be in [0, 1], got 1.2."),
        ("augmentation.spatial.mirror_axes", (0, 3), "augmentation.spatial.mirror_axes[1] must be in [0, 2], got 3."),
        (
            "augmentation.spatial.mirror_axes",
            (1, 1),
            "augmentation.spatial.mirror_axes must name each axis once, got [1, 1].",
        ),
        ("augmentation.spatial.scale_axes", (-1,), "augmentation.spatial.scale_axes[0] must be in [0, 2], got -1."),
        (
            "augmentation.spatial.scale_axes",
            (0, 1, 0),
            "augmentation.spatial.scale_axes must name each axis once, got [0, 1, 0].",
        ),
        ("augmentation.spatial.elastic_axes", (3,), "augmentation.spatial.elastic_axes[0] must be in [0, 2], got 3."),
        (
            "augmentation.spatial.elastic_axes",
            (2, 2),
            "augmentation.spatial.elastic_axes must name each axis once, got [2, 2].",
        ),
        ("data.train_cases", 0, "data.train_cases must be >= 1, got 0."),
        ("patches.batch", 0, "patches.batch must be >= 1, got 0."),
        ("optimizer.learning_rate", float("nan"), "optimizer.learning_rate must be in (0, 10], got nan."),
        ("optimizer.learning_rate", 0.0, "optimizer.learning_rate must be in (0, 10], got 0."),
        ("optimizer.learning_rate", 1e38, "optimizer.learning_rate must be in (0, 10], got 1e+38."),
        ("optimizer.clip_norm", float("inf"), "optimizer.clip_norm must be > 0, got inf."),
        ("seed", 2**32, "seed must be in [0, 4294967295], got 4294967296."),
        ("data.spacing_mm", (1.0, 0.0, 1.0), "data.spacing_mm[1] must be > 0, got 0."),
        ("data.root", "", "data.root must be a folder, got an empty text; name the folder of the data set."),
        ("name", "../x", "name must be letters, digits, '_', '-' and '.', for it names a folder, got '../x'."),
        (
            "augmentation.intensity.gamma",
            (1.5, 0.7),
            "augmentation.intensity.gamma must be a range from low to high, got [1.5, 0.7]; swap the two.",
        ),
        (
            "patches.size",
            (40, 50, 40),
            "patches.size[1] must be a multiple of 8, the product of network.strides along Y, got 50; "
            "the nearest valid size is 48 or 56.",
        ),
        (
            "patches.size",
            (5, 48, 40),
            "patches.size[0] must be a multiple of 8, the product of network.strides along X, got 5; "
            "the nearest valid size is 8.",
        ),
        (
            "patches.size",
            (8, 8, 8),
            "patches.size must leave more than one voxel below all network.strides, got [8, 8, 8], which leaves one, "
            "without a variance to normalise by; enlarge it or leave out a stage.",
        ),
        ("optimizer.warmup_steps", 2000, "optimizer.warmup_steps must be less than training.steps, 2000, got 2000."),
        (
            "training.validate_every",
            300,
            "training.steps must be a multiple of training.validate_every, 300, got 2000; "
            "the run ends with a validation.",
        ),
        (
            "data.patient_pattern",
            r"patient\d+",
            r"data.patient_pattern must have a group (...) around the patient, got 'patient\\d+'; "
            r"write for example '(patient\d+)_'.",
        ),
        (
            "data.patient_pattern",
            "(",
            "data.patient_pattern must be a regular expression, got '(': "
            "missing ), unterminated subpattern at position 0; correct it.",
        ),
        (
            "data.normalization",
            ("ct",),
            "data.ct must be given where data.normalization names ct, got null; scripts/plan.py finds its values.",
        ),
        (
            "data.normalization",
            (),
            "data.normalization must name a mode for all channels or one per channel, got none.",
        ),
        (
            "data.ct",
            CtConfig(**WINDOW),
            "data.ct must be null where data.normalization names no ct, got a window and ['zscore'].",
        ),
        (
            "network.strides",
            ((2, 2, 2),) * 4,
            "network.strides[0] must be [1, 1, 1], full resolution, got [2, 2, 2].",
        ),
    ],
)
def test_a_broken_rule_gives_one_sentence(path: str, value: object, sentence: str) -> None:
    assert sentence in problems(changed(DEFAULT, path, value))


def test_ends_of_an_interval_belong_to_it_where_the_bracket_is_square() -> None:
    assert broken(network__skip_bottleneck__ratio=4.0) == []
    assert broken(inference__overlap=0.0) == []
    assert broken(augmentation__spatial__probability=1.0) == []


def test_the_lists_of_the_network_have_one_entry_per_stage() -> None:
    assert broken(network__channels=(8, 16, 32)) == [
        "network.strides must have as many entries as network.channels, 3, got 4.",
        "network.kernel_sizes must have as many entries as network.channels, 3, got 4.",
    ]


def test_a_kernel_is_odd_on_every_axis() -> None:
    kernels = ((1, 3, 3), (3, 3, 2), (3, 3, 3), (3, 3, 3))
    assert broken(network__kernel_sizes=kernels) == ["network.kernel_sizes[1] must be odd, got [3, 3, 2]."]


def test_ratios_are_one_or_one_per_stage_above_the_bottom() -> None:
    assert broken(network__decoder_bottleneck__ratio=(0.5, 0.5, 0.5)) == []
    assert broken(network__decoder_bottleneck__ratio=(0.5, 0.5)) == [
        "network.decoder_bottleneck.ratio must be one number or one for each of the 3 stages of network.channels "
        "above the bottom, got 2."
    ]


def test_deep_supervision_needs_a_lower_decoder_stage() -> None:
    two = {"channels": (8, 16), "strides": ((1, 1, 1), (2, 2, 2)), "kernel_sizes": ((3, 3, 3),) * 2}
    values = {f"network__{name}": value for name, value in two.items()}
    assert broken(**values) == []
    assert broken(**values, network__deep_supervision=True) == [
        "network.deep_supervision must be false where network.channels has fewer than 3 stages, got true."
    ]


def test_a_window_has_one_ordered_pair_per_channel() -> None:
    good = CtConfig(**WINDOW)
    assert broken(data__ct=good, data__normalization=("ct",)) == []
    assert broken(data__ct=replace(good, upper=(-100.0,)), data__normalization=("ct",)) == [
        "data.ct.lower[0] must be less than data.ct.upper[0], both finite, got -100 and -100."
    ]
    assert broken(data__ct=good, data__normalization=("ct", "zscore")) == [
        "data.ct.lower, data.ct.upper, data.ct.mean and data.ct.std must have one value per channel, as many as "
        "data.normalization where that names several, got 1, 1, 1, 1 values."
    ]
    assert broken(data__ct=replace(good, mean=(float("nan"),)), data__normalization=("ct",)) == [
        "data.ct.mean[0] must be finite, got nan."
    ]


def test_a_loss_has_a_term() -> None:
    assert broken(loss__dice_weight=0.0, loss__ce_weight=0.0) == [
        "loss.dice_weight or loss.ce_weight must be > 0, got 0 for both; without either nothing is learned."
    ]


def test_a_setting_without_effect_is_refused() -> None:
    assert broken(data__cache_dir="cache", data__cache="memory") == [
        "data.cache_dir must be null where data.cache is memory, got 'cache'."
    ]


def test_a_zero_stride_is_one_problem_and_no_crash() -> None:
    strides = ((1, 1, 1), (2, 0, 2), (2, 2, 2), (2, 2, 2))
    assert broken(network__strides=strides) == ["network.strides[1][1] must be >= 1, got 0."]


def test_all_problems_are_listed_together() -> None:
    found = broken(seed=-1, patches__batch=0, loss__smooth=0.0, training__steps=0)
    for path in ("seed", "patches.batch", "loss.smooth", "training.steps"):
        assert any(sentence.startswith(f"{path} must be") for sentence in found)
