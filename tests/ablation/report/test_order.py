"""Families of variants: the order of rows in figures, and which variants make one line."""

from __future__ import annotations

from typing import Any

import pytest

from seg.ablation.report.order import breaks, family, in_order, line
from seg.ablation.report.study import VariantRecord

SKIP, DECODER = "network.skip_bottleneck", "network.decoder_bottleneck"
FLAT = {"network.channels": [16, 16, 16]}


def variant(name: str, **changes: Any) -> VariantRecord:
    return VariantRecord(name=name, changes=changes, parameters=None, macs=None)


def skip(ratio: object, **more: object) -> dict[str, Any]:
    return {SKIP: {"ratio": ratio, **more}}


def decoder(ratio: object) -> dict[str, Any]:
    return {DECODER: {"ratio": ratio, "norm": True}}


# As a study runs them: what matters most comes first.
VARIANTS = [
    variant("baseline"),
    variant("both_1-4", **skip(0.25), **decoder(0.25)),
    variant("skip_1-16", **skip(0.0625)),
    variant("decoder_1-4", **decoder(0.25)),
    variant("spectrum", **skip([0.8, 0.7]), **decoder([1.2, 0.9])),
    variant("skip_2", **skip(2.0)),
    variant("flat_both_1-4", **FLAT, **skip(0.25), **decoder(0.25)),
    variant("skip_1-4_relu", **skip(0.25, activation="relu")),
    variant("decoder_1", **decoder(1.0)),
    variant("skip_1-4", **{f"{SKIP}.ratio": 0.25}),
    variant("flat", **FLAT),
    variant("both_1-2", **skip(0.5), **decoder(0.5)),
]


@pytest.mark.parametrize(
    ("name", "kind", "ratio"),
    [
        ("baseline", "baseline", None),
        ("skip_2", "skip", 2.0),
        ("skip_1-4", "skip", 0.25),
        ("decoder_1", "decoder", 1.0),
        ("both_1-4", "both", 0.25),
        ("flat", "plan", None),
        ("flat_both_1-4", "plan", 0.25),
        ("spectrum", "other", None),
    ],
)
def test_what_a_variant_changes_makes_its_family(name: str, kind: str, ratio: float | None) -> None:
    (one,) = [one for one in VARIANTS if one.name == name]
    found = family(one)
    assert (found.kind, found.ratio) == (kind, ratio)


def test_a_list_of_equal_ratios_is_one_ratio_and_two_paths_of_two_ratios_are_none() -> None:
    assert family(variant("a", **skip([0.5, 0.5]))).ratio == 0.5
    apart = family(variant("b", **skip(0.5), **decoder(0.25)))
    assert (apart.kind, apart.ratio) == ("other", None)


def test_rows_go_by_family_and_from_wide_to_narrow() -> None:
    names = in_order(VARIANTS)
    assert names == [
        "baseline",
        *("skip_2", "skip_1-4_relu", "skip_1-4", "skip_1-16"),
        *("decoder_1", "decoder_1-4"),
        *("both_1-2", "both_1-4"),
        *("flat", "flat_both_1-4"),
        "spectrum",
    ]
    assert [names[row] for row in breaks(names, VARIANTS)] == ["skip_2", "decoder_1", "both_1-2", "flat", "spectrum"]


def test_a_line_joins_what_differs_in_width_alone() -> None:
    assert list(line("skip", VARIANTS).items()) == [("skip_1-16", 0.0625), ("skip_1-4", 0.25), ("skip_2", 2.0)]
    assert list(line("decoder", VARIANTS)) == ["decoder_1-4", "decoder_1"]
    assert line("both", VARIANTS[:1]) == {}
