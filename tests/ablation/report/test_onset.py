"""Where a narrow bottleneck starts to cost: sentences for made-up differences of made-up variants."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from seg.ablation.report.analysis import analyse
from seg.ablation.report.onset import HEAD, onset
from seg.ablation.report.trials import read_records
from tests.ablation.report.studies import Made, make_study

SKIP, DECODER = "network.skip_bottleneck", "network.decoder_bottleneck"
LOSS, NONE = (-0.0032, (-0.0052, -0.0013)), (-0.0005, (-0.002, 0.001))


def sentence(*variants: tuple[dict[str, Any], tuple[float, tuple[float, float]] | None]) -> str:
    """Gives what is said of variants with these changes, differences and intervals."""
    records = [SimpleNamespace(name=str(number), changes=changes) for number, (changes, _) in enumerate(variants)]
    compared = {
        str(number): SimpleNamespace(
            dice=SimpleNamespace(effect=SimpleNamespace(difference=found[0], ci95=found[1], over_runs=True))
        )
        for number, (_, found) in enumerate(variants)
        if found is not None
    }
    analysis = SimpleNamespace(records=SimpleNamespace(study=SimpleNamespace(variants=records)), comparisons=compared)
    return onset(analysis).removeprefix(f"{HEAD}. ").replace("\N{MINUS SIGN}", "-")  # type: ignore[arg-type]


def skip(ratio: Any, **others: Any) -> dict[str, Any]:
    return {SKIP: {"ratio": ratio, **others}}


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (
            ((1 / 16, LOSS), (0.25, NONE), (1 / 8, NONE)),
            "Skips: Dice falls from ratio 1/16 on (-0.0032, -0.0052 to -0.0013); 1/8 shows no loss.",
        ),
        (
            ((1, NONE), (0.25, NONE)),
            "Skips: no width tried shows a loss, down to ratio 1/4 (-0.0005, -0.0020 to +0.0010).",
        ),
        (
            ((0.5, LOSS), (0.25, LOSS)),
            "Skips: Dice falls from ratio 1/2 on (-0.0032, -0.0052 to -0.0013); no wider one was tried.",
        ),
        (
            ((0.5, LOSS), (0.25, (-0.1706, (-0.7635, 0.4223))), (1.0, NONE)),
            "Skips: Dice falls at ratio 1/2, the widest that shows it (-0.0032, -0.0052 to -0.0013); 1 shows no loss. "
            "At the narrower 1/4 the interval reaches 0 (-0.1706, -0.7635 to +0.4223).",
        ),
        (((0.5, None),), "Skips: not measured."),
        (((0.813, NONE),), "Skips: no width tried shows a loss, down to ratio 0.813 (-0.0005, -0.0020 to +0.0010)."),
        # An interval that just reaches 0 is no loss.
        (
            ((0.5, (-0.1, (-0.2, 0.0))),),
            "Skips: no width tried shows a loss, down to ratio 1/2 (-0.1000, -0.2000 to 0.0000).",
        ),
    ],
)
def test_the_widest_ratio_that_loses_is_named(found: tuple[Any, ...], expected: str) -> None:
    assert sentence(*((skip(ratio), effect) for ratio, effect in found)) == expected


def test_only_one_ratio_alone_makes_an_axis() -> None:
    ignored = (
        ({}, LOSS),
        ({"network.channels": [16, 16]}, LOSS),
        ({"network.channels": [16, 16], **skip(0.25)}, LOSS),
        (skip([0.5, 0.25]), LOSS),
        (skip(2.0), LOSS),
        ({SKIP: None}, LOSS),
        ({SKIP: {"ratio": 0.5}, DECODER: {"ratio": 0.25}}, LOSS),
    )
    assert sentence(*ignored) == ""
    # Of two settings the one with more ratios counts, wherever it stands.
    assert sentence((skip(0.25, activation="relu"), LOSS), (skip(0.5), NONE), (skip(0.125), NONE), *ignored).startswith(
        "Skips: no width tried shows a loss, down to ratio 1/8 ("
    )


def test_each_axis_has_its_sentence() -> None:
    decoder = {"ratio": 0.25, "norm": True}
    assert sentence(
        ({DECODER: decoder, SKIP: {"ratio": 0.25}}, LOSS), ({DECODER: decoder}, NONE), ({f"{SKIP}.ratio": 0.25}, NONE)
    ) == (
        "Skips: no width tried shows a loss, down to ratio 1/4 (-0.0005, -0.0020 to +0.0010). "
        "Decoder: no width tried shows a loss, down to ratio 1/4 (-0.0005, -0.0020 to +0.0010). "
        "Both together: Dice falls from ratio 1/4 on (-0.0032, -0.0052 to -0.0013); no wider one was "
        "tried."
    )


def test_the_report_says_where_records_begin_to_lose(whole: Path, tmp_path: Path) -> None:
    said = json.loads((whole / "results.json").read_text())["sentence_of_onset"]
    assert "Decoder: Dice falls from ratio 1/4 on (" in said
    assert said in (whole / "report.html").read_text().replace("<wbr>", "")
    # A single run shows nothing of other seeds.
    single = onset(analyse(read_records(make_study(tmp_path, Made(seeds=(0,))))))
    assert single == f"{HEAD}. Skips: not measured. Decoder: not measured. Both together: not measured."
