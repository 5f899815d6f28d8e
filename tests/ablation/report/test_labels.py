"""Labels and families of variants, and the order of tables."""

from __future__ import annotations

from typing import Any

import pytest

from seg.ablation.report.labels import label_variants, write_ratio

SKIP, DECODER = "network.skip_bottleneck", "network.decoder_bottleneck"


def plain(ratio: Any) -> dict[str, Any]:
    return {"ratio": ratio, "norm": True, "activation": "leaky_relu"}


@pytest.mark.parametrize(
    ("changes", "text", "family", "width"),
    [
        ({}, "baseline", "baseline", None),
        ({f"{SKIP}.ratio": 0.25}, "skips ×1/4", "skip", 0.25),
        ({SKIP: {"ratio": 2}}, "skips ×2", "skip", 2.0),
        ({SKIP: {"ratio": 0.25, "activation": "relu"}}, "skips ×1/4 (relu)", "skip", 0.25),
        ({DECODER: plain(0.5)}, "decoder ×1/2", "decoder", 0.5),
        ({DECODER: {**plain(1.0), "norm": False}}, "decoder ×1 (not normalised)", "decoder", 1.0),
        ({SKIP: {"ratio": 0.25}, DECODER: plain(0.25)}, "both ×1/4", "both", 0.25),
        ({SKIP: {"ratio": 0.25}, DECODER: plain(0.5)}, "skips ×1/4 + decoder ×1/2", "both", None),
        ({SKIP: {"ratio": [0.5, 0.5]}}, "skips ×1/2", "skip", 0.5),
        ({SKIP: {"ratio": [0.8, 0.7]}, DECODER: plain([1.25, 0.9])}, "both ×0.70–1.25 by stage", "both", None),
        ({"network.channels": [16, 16]}, "flat 16", "channels", None),
        ({"network.channels": [16, 32], f"{SKIP}.ratio": 0.3}, "channels 16-32 + skips ×3/10", "channels", 0.3),
        ({SKIP: None}, "no skip bottleneck", "other", None),
        ({"network.merge": "add"}, "network.merge = add", "other", None),
    ],
)
def test_a_label_is_made_from_the_changes(changes: dict[str, Any], text: str, family: str, width: float | None) -> None:
    label = label_variants({"own": changes})["own"]
    assert (label.text, label.family, label.width) == (text, family, width)


def test_labels_are_unique() -> None:
    labels = label_variants({"one": {f"{SKIP}.ratio": 0.25}, "two": {SKIP: {"ratio": 0.25}}})
    assert [label.text for label in labels.values()] == ["skips ×1/4 (one)", "skips ×1/4 (two)"]


def test_variants_go_by_family_then_plan_and_from_wide_to_narrow() -> None:
    flat = {"network.channels": [16, 16]}
    variants = {
        "other": {"network.merge": "add"},
        "flat_skip": {**flat, f"{SKIP}.ratio": 0.5},
        "flat": flat,
        "both": {SKIP: {"ratio": 0.5}, DECODER: plain(0.5)},
        "decoder": {DECODER: plain(0.5)},
        "narrow": {f"{SKIP}.ratio": 0.25},
        "wide": {f"{SKIP}.ratio": 0.5},
        "baseline": {},
    }
    expected = ["baseline", "wide", "narrow", "decoder", "both", "flat", "flat_skip", "other"]
    assert list(label_variants(variants)) == expected


def test_variants_of_one_group_differ_in_the_width_alone() -> None:
    labels = label_variants(
        {
            "a": {SKIP: {"ratio": 0.5}},
            "b": {SKIP: {"ratio": 0.25}},
            "relu": {SKIP: {"ratio": 0.25, "activation": "relu"}},
        }
    )
    assert labels["a"].group == labels["b"].group != labels["relu"].group


@pytest.mark.parametrize(
    ("ratio", "text"),
    [(1 / 3, "×1/3"), (1.5, "×3/2"), (0.123, "×0.12"), (None, ""), ("wide", "×wide"), (True, "×True")],
)
def test_a_ratio_is_a_plain_fraction_where_it_can_be(ratio: Any, text: str) -> None:
    assert write_ratio(ratio) == text
