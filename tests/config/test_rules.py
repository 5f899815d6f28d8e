"""Ranges of fields and rules between them: each broken rule gives its path, kind and value."""

from __future__ import annotations

from typing import Any

import pytest

from seg.config import ExperimentConfig, load_config
from seg.config.fields import fields_of, range_in_words
from seg.config.rules import RULES
from seg.errors import ConfigError

WINDOW = {"lower": (-100.0,), "upper": (300.0,), "mean": (40.0,), "std": (80.0,)}
CT = {"data.normalization": ("ct",), "data.ct": WINDOW}


def broken(values: dict[str, object]) -> list[tuple[str, str, str]]:
    """Path, kind and value of each problem of the default configuration with other values."""
    try:
        load_config([], values)
    except ConfigError as error:
        return [(problem.path, problem.kind, problem.value) for problem in error.problems]
    return []


def test_the_defaults_obey_every_rule() -> None:
    assert RULES.broken(ExperimentConfig()) == []
    assert broken({}) == []


def test_every_number_has_a_range() -> None:
    without = {
        path
        for path, field in fields_of(ExperimentConfig).items()
        if field.section is None and any(kind in repr(field.hint) for kind in ("int,", "float,"))
        if not range_in_words(field.hint)
    }
    assert without == {"data.ct.lower", "data.ct.upper", "data.ct.mean"}


@pytest.mark.parametrize(
    ("path", "value", "place", "kind"),
    [
        ("network.skip_bottleneck.ratio", 0.0, "", "range"),
        ("network.decoder_bottleneck.ratio", 4.5, "", "range"),
        ("network.skip_bottleneck.ratio", (0.5, -1.0, 4.0), "[1]", "range"),
        ("inference.window", (0, 8, 8), "[0]", "range"),
        ("network.strides", ((1, 1, 1), (2, 0, 2), (2, 2, 2), (2, 2, 2)), "[1][1]", "range"),
        ("inference.overlap", 1.0, "", "range"),
        ("augmentation.spatial.probability", 1.2, "", "range"),
        ("augmentation.spatial.mirror_axes", (0, 3), "[1]", "range"),
        ("augmentation.spatial.mirror_axes", (1, 1), "", "repeated"),
        ("augmentation.spatial.scale_axes", (-1,), "[0]", "range"),
        ("augmentation.spatial.scale_axes", (0, 1, 0), "", "repeated"),
        ("augmentation.spatial.elastic_axes", (2, 2), "", "repeated"),
        ("augmentation.intensity.gamma", (1.5, 0.7), "", "order"),
        ("data.train_cases", 0, "", "range"),
        ("patches.batch", 0, "", "range"),
        ("optimizer.learning_rate", float("nan"), "", "range"),
        ("optimizer.learning_rate", 0.0, "", "range"),
        ("optimizer.learning_rate", 1e38, "", "range"),
        ("optimizer.clip_norm", float("inf"), "", "range"),
        ("seed", 2**32, "", "range"),
        ("data.spacing_mm", (1.0, 0.0, 1.0), "[1]", "range"),
        ("data.root", "", "", "empty"),
        ("name", "../x", "", "name"),
        ("name", "x" * 201, "", "name"),
        ("patches.size", (40, 50, 40), "[1]", "divisible"),
        ("patches.size", (8, 8, 8), "", "too_small"),
        ("inference.window", (40, 48, 41), "[2]", "divisible"),
        ("optimizer.warmup_steps", 2000, "", "order"),
        ("data.patient_pattern", r"patient\d+", "", "pattern"),
        ("data.patient_pattern", "(", "", "pattern"),
        ("data.patient_pattern", "(" * 5000, "", "pattern"),
        ("data.patient_pattern", "((a+)+)x", "", "pattern"),
        ("data.normalization", (), "", "empty"),
        ("network.kernel_sizes", ((1, 3, 3), (3, 3, 2), (3, 3, 3), (3, 3, 3)), "[1]", "range"),
    ],
)
def test_a_broken_rule_gives_one_problem(path: str, value: object, place: str, kind: str) -> None:
    ((found, its_kind, got),) = broken({path: value})
    assert (found, its_kind) == (path + place, kind)
    inner: Any = value
    for index in (int(part.strip("[]")) for part in place.split("][") if part):
        inner = inner[index]
    if kind == "range" and isinstance(inner, int | float):
        assert float(got) == inner or inner != inner


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ({"training.validate_every": 300}, [("training.steps", "divisible", "2000")]),
        ({"data.normalization": ("ct",)}, [("data.ct", "missing", "null")]),
        ({"data.ct": WINDOW}, [("data.ct", "conflict", "a window and ['zscore']")]),
        (CT, []),
        (CT | {"data.ct.upper": (-100.0,)}, [("data.ct.lower[0]", "order", "-100 and -100")]),
        (
            {"network.strides": ((2, 2, 2),) * 4, "patches.size": (48, 48, 48)},
            [("network.strides[0]", "range", "[2, 2, 2]")],
        ),
        (CT | {"data.normalization": ("ct", "zscore")}, [("data.ct", "length", "1, 1, 1, 1 values")]),
        (CT | {"data.ct.mean": (float("nan"),)}, [("data.ct.mean[0]", "range", "nan")]),
        ({"loss.dice_weight": 0.0, "loss.ce_weight": 0.0}, [("loss.dice_weight", "conflict", "0 for both")]),
        ({"loss.class_weights": (0.0, 0.0)}, [("loss.class_weights", "range", "[0.0, 0.0]")]),
        (
            {"loss.ce_weight": 0.0, "loss.class_weights": (1.0, 2.0), "loss.focal_gamma": 2.0, "loss.top_k": 0.1},
            [
                ("loss.class_weights", "conflict", "[1.0, 2.0]"),
                ("loss.focal_gamma", "conflict", "2.0"),
                ("loss.top_k", "conflict", "0.1"),
            ],
        ),
        ({"data.cache_dir": "cache", "data.cache": "memory"}, [("data.cache_dir", "conflict", "'cache'")]),
        (
            {"network.channels": (8, 16, 32)},
            [("network.strides", "length", "4"), ("network.kernel_sizes", "length", "4")],
        ),
        ({"network.decoder_bottleneck.ratio": (0.5, 0.5, 0.5)}, []),
        ({"network.decoder_bottleneck.ratio": (0.5, 0.5)}, [("network.decoder_bottleneck.ratio", "length", "2")]),
        ({"network.skip_bottleneck.ratio": 4.0, "inference.overlap": 0.0}, []),
        (
            {"seed": -1, "patches.batch": 0, "loss.smooth": 0.0, "training.steps": 0},
            [
                ("seed", "range", "-1"),
                ("patches.batch", "range", "0"),
                ("loss.smooth", "range", "0"),
                ("training.steps", "range", "0"),
            ],
        ),
    ],
)
def test_rules_between_fields(values: dict[str, object], found: list[tuple[str, str, str]]) -> None:
    assert broken(values) == found


def test_widths_fit_the_stages_and_their_convolutions() -> None:
    pair = ((2, 3), (0, 4))
    fitting: dict[str, object] = {
        "network.widths.encoder": (1, 2, 3, 4),
        "network.widths.up": (1, 2, 3),
        "network.widths.decoder": ((1, 2),) * 3,
        "network.widths.encoder_ranks": (pair,) * 4,
        "network.widths.decoder_ranks": (pair,) * 3,
    }
    assert broken(fitting) == []
    assert broken(
        fitting | {"network.widths.encoder": (1, 2), "network.widths.decoder": ((1, 2), (1, 2, 3), (1, 2))}
    ) == [
        ("network.widths.encoder", "length", "2"),
        ("network.widths.decoder[1]", "length", "3"),
    ]
    assert broken(fitting | {"network.decoder_bottleneck.ratio": 0.5}) == [
        *((f"network.widths.decoder[{stage}]", "length", "2") for stage in range(3)),
        *((f"network.widths.decoder_ranks[{stage}]", "length", "2") for stage in range(3)),
    ]
    assert broken({"network.widths.up": (16, 32, 63), "network.merge": "add"}) == [
        ("network.widths.up[2]", "conflict", "63")
    ]
    assert broken({"network.widths.decoder": ((0, 1),) * 3})[0] == ("network.widths.decoder[0][0]", "range", "0")


def test_deep_supervision_needs_a_lower_decoder_stage() -> None:
    values: dict[str, object] = {
        "network.channels": (8, 16),
        "network.strides": ((1, 1, 1), (2, 2, 2)),
        "network.kernel_sizes": ((3, 3, 3),) * 2,
    }
    assert broken(values) == []
    assert broken(values | {"network.deep_supervision": True}) == [("network.deep_supervision", "conflict", "true")]


def test_the_remedy_names_the_nearest_valid_sizes() -> None:
    with pytest.raises(ConfigError) as caught:
        load_config([], {"patches.size": (5, 50, 40)})
    remedies = {problem.path: problem.remedy for problem in caught.value.problems}
    assert remedies["patches.size[0]"].endswith(" is 8")
    assert remedies["patches.size[1]"].endswith(" is 48 or 56")


def test_a_final_model_needs_all_cases_and_a_fixed_length() -> None:
    assert broken({"fold": None}) == []
    assert broken({"fold": "null", "data.train_cases": 5, "training.early_stop": 2}) == [
        ("data.train_cases", "conflict", "5"),
        ("training.early_stop", "conflict", "2"),
    ]
