"""What a variant is in words: each kind of change by its text."""

from __future__ import annotations

from typing import Any

import pytest

from seg.ablation.report.describe import HEAD, describe, fraction, legend

SKIP, DECODER = "network.skip_bottleneck", "network.decoder_bottleneck"
RESNET = {"norm": True, "activation": "leaky_relu"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({SKIP: {"ratio": 0.25}}, "skips keep 1/4 of the channels"),
        ({f"{SKIP}.ratio": 0.0625}, "skips keep 1/16 of the channels"),
        ({SKIP: {"ratio": 0.25, "activation": "relu"}}, "skips keep 1/4 of the channels (relu activation)"),
        ({SKIP: {"ratio": 0.3}, f"{SKIP}.norm": True}, "skips keep 3/10 of the channels (normalisation)"),
        ({SKIP: {"ratio": 2.0}}, "skips expand to 2 times the channels and are projected back"),
        ({SKIP: {"ratio": 1}}, "a 1x1 at full width on every skip"),
        ({SKIP: None}, "no skip bottleneck"),
        ({f"{SKIP}.activation": "relu"}, "skips keep the baseline's share of the channels (relu activation)"),
        ({DECODER: {"ratio": 1.0, **RESNET}}, "decoder bottleneck at full width"),
        ({DECODER: {"ratio": 0.5, **RESNET}}, "decoder bottleneck at 1/2 of the stage's channels"),
        ({DECODER: {"ratio": 1.5, **RESNET}}, "decoder bottleneck at 1.5 times the width"),
        (
            {DECODER: {"ratio": 0.5, "norm": False, "activation": "none"}},
            "decoder bottleneck at 1/2 of the stage's channels (no activation, no normalisation)",
        ),
        (
            {DECODER: {"ratio": 0.25, **RESNET}, SKIP: {"ratio": 0.25}},
            "bottlenecks in skips and decoder at 1/4 of the stage's channels",
        ),
        (
            {DECODER: {"ratio": 0.5, **RESNET}, SKIP: {"ratio": 0.25}},
            "skips keep 1/4 of the channels and decoder bottleneck at 1/2 of the stage's channels",
        ),
        (
            {SKIP: {"ratio": [0.8125, 0.5]}},
            "skips keep 0.81 and 0.50 of the channels (full resolution first)",
        ),
        ({"network.channels": [16, 16, 16]}, "16 channels at every stage"),
        ({"network.channels": [16, 32]}, "16, 32 channels from full resolution down"),
        (
            {"network.channels": [16, 16], SKIP: {"ratio": 0.25}, "loss.smooth": 0.1},
            "16 channels at every stage, skips keep 1/4 of the channels and loss.smooth = 0.1",
        ),
        ({"network.merge": "add"}, "skips added to the decoder's features"),
        ({"network.upsample": "transposed"}, "upsampling by transposed convolutions"),
        ({"network.upsample": "other"}, "network.upsample = other"),
        ({"training.steps": 300}, "training.steps = 300"),
    ],
)
def test_a_variant_is_described_by_its_changes(changes: dict[str, Any], words: str) -> None:
    assert describe(changes) == words


def test_what_to_build_is_told_whole() -> None:
    assert describe({DECODER: {"ratio": 1.0, **RESNET}}, whole=True) == (
        "each decoder stage's two 3x3 convolutions become 1x1 - 3x3 - 1x1 at full width"
    )


def test_names_that_differ_in_a_ratio_stand_together() -> None:
    variants: dict[str, dict[str, Any]] = {
        "skip_1-2": {SKIP: {"ratio": 0.5}},
        "decoder_1": {DECODER: {"ratio": 1.0}},
        "flat_16": {"network.channels": [16, 16]},
        "skip_1-8": {SKIP: {"ratio": 0.125}},
        "skip_1-4": {f"{SKIP}.ratio": 0.25},
    }
    assert legend(variants) == (
        f"{HEAD}. skip_1-2, skip_1-8 and skip_1-4: skips keep 1/2, 1/8 or 1/4 of the channels; decoder_1: decoder "
        "bottleneck at full width; flat_16: 16 channels at every stage."
    )
    assert legend({}) == ""


@pytest.mark.parametrize(("ratio", "text"), [(0.125, "1/8"), (1.0, "1"), (1 / 3, "1/3"), (0.8137, "0.814")])
def test_a_ratio_is_a_plain_fraction_where_it_can_be(ratio: float, text: str) -> None:
    assert fraction(ratio) == text
