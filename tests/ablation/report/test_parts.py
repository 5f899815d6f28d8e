"""Parts of a report against closed forms: numbers, the Pareto front, predicted widths, escapes."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from seg.ablation.report import plots_cost
from seg.ablation.report.analysis import analyse
from seg.ablation.report.document import Bullets, Code, Details, Document, Heading, Table, Text, row
from seg.ablation.report.drawing import looks
from seg.ablation.report.html import to_html
from seg.ablation.report.markdown import to_markdown
from seg.ablation.report.methods import trial_list
from seg.ablation.report.numbers import figures, fixed, interval, listed, probability
from seg.ablation.report.plots_pareto import front
from seg.ablation.report.preserved import find_predictions, trial_dice
from seg.ablation.report.rows import to_rows
from seg.ablation.report.study import DeviceSpeed
from seg.ablation.report.tables_cost import speed_table
from seg.ablation.report.tables_dice import main_table
from seg.ablation.report.tables_learning import convergence_table
from seg.ablation.report.tables_widths import width_sentences, width_table
from seg.ablation.report.trials import read_records
from tests.ablation.report.places import CHANNELS
from tests.ablation.report.studies import Made, make_study


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [(0.12345, 3, "0.123"), (-0.0001, 3, "0.000"), (-0.5, 1, "\N{MINUS SIGN}0.5"), (math.inf, 2, "∞")],
)
def test_fixed_numbers(value: float, digits: int, text: str) -> None:
    assert fixed(value, digits) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1234.5, "1\N{NARROW NO-BREAK SPACE}234"),
        (0.012345, "0.0123"),
        (12.345, "12.3"),
        (0.0, "0"),
        (None, "not measured"),
    ],
)
def test_significant_figures(value: float | None, text: str) -> None:
    assert figures(value) == text


def test_what_does_not_exist_has_words() -> None:
    assert [fixed(None, 2), fixed(math.nan, 2), probability(None), interval(None, 2)] == ["not measured"] * 3 + [""]
    assert fixed(0.001, 4, sign=True) == "+0.0010"
    assert [probability(0.00001), probability(0.025)] == ["< 0.0001", "0.0250"]
    assert [listed([]), listed(["a"]), listed(["a", "b", "c"])] == ["", "a", "a, b and c"]


def test_the_front_holds_what_no_other_beats_in_both() -> None:
    points = {"slow": (3.0, 0.9), "beaten": (3.5, 0.8), "fast": (1.0, 0.5), "equal": (3.0, 0.9), "middle": (2.0, 0.7)}
    assert front(points) == ["fast", "middle", "slow"]
    assert front({"one": (1.0, 0.0)}) == ["one"]


def test_variants_differ_in_more_than_colour() -> None:
    found = looks([f"v{number}" for number in range(50)])
    shapes = [(look.marker, str(look.line)) for look in found.values()]
    assert len(set(shapes)) == len(shapes)


def test_of_many_variants_the_important_curves_are_drawn(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    analysis = analyse(read_records(whole))
    assert len(plots_cost.chosen(analysis)) == 7
    monkeypatch.setattr(plots_cost, "MOST_CURVES", 4)
    # Baseline and the recommended one, then of the others those of fewest and of most multiply-accumulates.
    assert plots_cost.chosen(analysis) == ["baseline", "skip_1-4", "decoder_1-2", "flat_16"]


def test_predicted_widths_are_the_first_that_keep_95_percent(whole: Path) -> None:
    analysis = analyse(read_records(whole))
    for one in analysis.predictions:
        stage = int(one.name[-1])
        decay = 1 / (4 + 4 * stage)
        wide = CHANNELS[stage] * (1 if one.name.startswith("skip") else 2)

        def kept(width: int, decay: float = decay, wide: int = wide) -> float:
            # A geometric series: the spectrum falls by the same factor from channel to channel.
            return (1 - math.exp(-decay * width)) / (1 - math.exp(-decay * wide))

        assert kept(one.width - 1) < 0.95 <= kept(one.width)
        expected = round(CHANNELS[stage] / (16 if one.name.startswith("skip") else 2))
        assert one.found == expected
    assert width_sentences(analysis) == [
        "At three of six places with a finding the spectrum asked for more channels than were needed: skip 0, skip 1 "
        "and skip 2.",
        "A variant of just the predicted widths at every place: not measured.",
    ]


def test_a_variant_of_the_widths_that_one_baseline_predicts_is_compared(tmp_path: Path) -> None:
    make_study(tmp_path)
    widths = {one.name: one.width for one in analyse(read_records(tmp_path)).predictions}
    for seed in range(3):
        path = tmp_path / "trials" / f"skip_1-4_decoder_1-4.fold_0.seed_{seed}" / "preservation.json"
        content = json.loads(path.read_text())
        for place in content["bottlenecks"]:
            place["narrow"] = widths[place["name"]]
        path.write_text(json.dumps(content))
    # Another trial of the baseline spreads its variance evenly over the channels of one skip.
    path = tmp_path / "trials" / "baseline.fold_0.seed_2" / "preservation.json"
    content = json.loads(path.read_text())
    (place,) = (place for place in content["bottlenecks"] if place["name"] == "skip_0")
    place["r2_by_width"] = [(width + 1) / place["wide"] for width in range(place["wide"])]
    path.write_text(json.dumps(content))
    analysis = analyse(read_records(tmp_path))
    first = analysis.predictions[0]
    assert (first.width, first.widths[2]) == (widths["skip_0"], math.ceil(0.95 * CHANNELS[0]))
    assert [cell.text for cell in width_table(analysis).rows[0][3:5]] == [
        str(first.width),
        f"{first.width}\N{EN DASH}{first.widths[2]}",
    ]
    one = analysis.comparisons["skip_1-4_decoder_1-4"]
    skips, decoder = (
        ", ".join(str(w) for n, w in widths.items() if n.startswith(path)) for path in ("skip", "decoder")
    )
    said = (
        f"skip_1-4_decoder_1-4 was built from seed 0 alone: {skips} (skips) and {decoder} (decoder); its Dice differs "
        f"by {fixed(one.difference, 4, sign=True)} ({interval(one.ci95, 4, sign=True)}), "
    )
    assert width_sentences(analysis)[-1] == f"{said}not shown to be within the margin."
    # What was made from the prediction is no finding of its own, however little it loses; nor is another channel plan.
    everything = {name: replace(one, non_inferior=True) for name, one in analysis.comparisons.items()}
    assert width_sentences(replace(analysis, comparisons=everything))[-1] == f"{said}within the margin in every class."
    records = analysis.records
    assert {one.variant for one in find_predictions(records, everything)} == {"skip_1-16", "decoder_1-4"}
    variants = [
        replace(one, changes={**one.changes, "network.channels": [1]}) if one.name == "skip_1-16" else one
        for one in records.study.variants
    ]
    flat = replace(records, study=replace(records.study, variants=tuple(variants)))
    assert {one.variant for one in find_predictions(flat, everything)} == {"skip_1-4", "decoder_1-4"}
    assert [one.tried for one in find_predictions(flat, everything)[:3]] == [channels // 4 for channels in CHANNELS]


DOCUMENT = Document(
    title="a_b | <c>",
    blocks=(
        Heading(text="One & two"),
        Text(text="*not bold* $x$", role="notice"),
        Bullets(items=("first", "[second](x)")),
        Table(columns=("a", "b"), rows=(row("x|y", "1"),), caption="A caption."),
        Details(summary="More <b>", blocks=(Code(text="a ``` fence\n"),)),
    ),
)


def test_markdown_escapes_what_it_would_read_as_its_own() -> None:
    assert to_markdown(DOCUMENT) == (
        "# a\\_b \\| \\<c\\>\n\n## One & two\n\n> \\*not bold\\* \\$x\\$\n\n- first\n- \\[second\\](x)\n\nA "
        "caption.\n\n| a | b |\n|---|---:|\n| x\\|y | 1 |\n\n"
        "<details><summary>More &lt;b&gt;</summary>\n\n````\na ``` fence\n````\n\n</details>\n"
    )


def test_html_escapes_what_it_would_read_as_its_own() -> None:
    text = to_html(DOCUMENT)
    for part in (
        "<h1>a_<wbr>b | &lt;c&gt;</h1>",
        '<h2 id="one-two">One &amp; two</h2>',
        '<p class="notice">*not bold* $x$</p>',
        '<th scope="row">x|y</th><td>1</td>',
        "<summary>More &lt;b&gt;</summary>",
    ):
        assert part in text


def test_the_table_of_speed_tells_its_rounds_apart_and_names_initial_weights() -> None:
    about = {"device": "A", "kind": "cpu", "rounds": 15, "warmup": 3, "prediction_rounds": 4, "patch_size": [8, 8, 8]}
    weights = {"baseline": "trained", "a": "initial", "b": "initial"}
    variants = {name: {"name": name, "weights": value} for name, value in weights.items()}
    caption = speed_table(DeviceSpeed(about=about, variants=variants), (*weights, "unmeasured")).caption
    assert "medians with quartiles over 15 rounds (end to end: 4), in each of which every variant ran once" in caption
    assert "Measured with initial weights, as no run was finished: a and b; a network is as fast with them" in caption
    trained = DeviceSpeed(about=about, variants={"baseline": variants["baseline"]})
    assert "initial weights" not in speed_table(trained, tuple(weights)).caption


def test_steps_by_the_first_validation_are_shown_as_a_bound(tmp_path: Path) -> None:
    make_study(tmp_path)
    for log in tmp_path.glob("trials/skip_1-4.*/metrics.csv"):
        head, *rows = log.read_text().splitlines()
        log.write_text("\n".join([head, *rows[6:]]) + "\n")  # the first of them is at step 700, long after the rise
    analysis = analyse(read_records(tmp_path))
    (cells,) = [cells for cells in convergence_table(analysis).rows if cells[0].text == "skip_1-4"]
    early = "by the first validation in 3 of 3"
    assert [(cell.text, cell.note) for cell in cells[3:6]] == [
        ("\N{LESS-THAN OR EQUAL TO} 700", early),
        ("\N{LESS-THAN OR EQUAL TO} 700", early),
        ("not known", early),
    ]
    found = {(row.variant, row.metric): row for row in to_rows(analysis)}
    steps, ratio = (found["skip_1-4", f"convergence_steps_to_{what}"] for what in ("own", "baseline_ratio"))
    assert (steps.value, steps.low, steps.high, steps.interval) == (700, "", 700, "at_most")
    assert ratio.value == "not measured"


def test_runs_that_differ_much_are_shown_and_intervals_are_possible(tmp_path: Path) -> None:
    # A seed adds 0.3 to the Dice of a variant, give or take: the t interval over three of them leaves the range.
    make_study(tmp_path, Made(noise=0.3, devices=()))
    analysis = analyse(read_records(tmp_path))
    cells = {cells[0].text.split()[1]: cells[0] for cells in main_table(analysis).rows}
    assert "seed" not in cells["baseline"].note
    for name, shown in cells.items():
        effect = analysis.mean_dice[name]
        assert effect.ci95 is not None
        assert 0 <= effect.ci95[0] < effect.ci95[1] <= 1
        if name != "baseline":
            dice = {seed: trial_dice(analysis.records)[name, 0, seed] for seed in range(3)}
            said = ", ".join(f"seed {seed}: {value:.4f}" for seed, value in dice.items())
            assert shown.note == f"Dice {said}"
    ends = [effect.ci95 for effect in analysis.mean_dice.values()]
    assert any(end is not None and 1.0 in end for end in ends)


def test_seconds_of_trials_are_not_offered_for_comparison(whole: Path) -> None:
    (table,) = [block for block in trial_list(analyse(read_records(whole))) if isinstance(block, Table)]
    assert "Seconds are those of the whole trial, whatever else the machine did meanwhile" in table.caption


def test_the_scale_of_curves_tells_their_ends_apart() -> None:
    rising = [np.array([0.3, 0.8, 0.89]), np.array([0.2, 0.8, 0.88]), np.array([0.1, 0.7, 0.875])]
    assert plots_cost.curve_floor(rising) == pytest.approx(0.89 - 3 * 0.015)
    # One that failed lies 40 times as far below as the others do.
    assert plots_cost.curve_floor([*rising, np.array([0.1, 0.2, 0.3])]) == pytest.approx(0.89 - 3 * 0.015)
    assert plots_cost.curve_floor([np.array([0.5, 0.9]), np.array([0.5, 0.6])]) is None  # all of it fits
    assert plots_cost.curve_floor([np.array([0.1, 0.9])]) is None
    assert plots_cost.curve_floor([np.array([0.1, 0.9]), np.array([0.1, 0.9])]) is None


def test_an_end_that_rounds_to_zero_keeps_its_side() -> None:
    minus = "\N{MINUS SIGN}"
    assert interval((-0.0029, -0.00001), 4, sign=True) == f"{minus}0.0029 to {minus}0.0000"
    assert interval((0.00001, 0.003), 4, sign=True) == "+0.0000 to +0.0030"
    assert interval((0.0, 0.003), 4, sign=True) == "0.0000 to +0.0030"
    assert interval((-0.00001, 0.003), 4) == "0.0000 to 0.0030"
