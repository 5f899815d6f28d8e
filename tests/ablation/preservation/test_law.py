"""Rows of the law: what is joined with what, and without torch."""

import subprocess
import sys

import pytest

from seg.ablation.preservation import columns, law_rows, of_trial


def place(name, **values):
    path, stage = name.split("_")
    entry = {
        "name": name,
        "path": path,
        "stage": int(stage),
        "channels": 8,
        "wide": 8,
        "narrow": 2,
        "r2": 0.6,
        "r2_pca": 0.7,
        "cka": 0.5,
        "probe_dice_wide": [0.8, 0.6],
        "probe_dice_narrow": [0.7, 0.5],
        "amplified": 0.1,
        "suppressed": 0.2,
    }
    return entry | values


CONTROLS = {"baseline": "baseline", "both": "baseline", "skip": "baseline"}
NONE = dict.fromkeys(("narrow", "r2", "r2_pca", "cka", "probe_dice_narrow", "amplified", "suppressed"))


def study():
    """Two variants and two seeds; the records of one are incomplete."""
    both = {"bottlenecks": [place("skip_0", r2=0.4), place("decoder_0", r2=0.9, cka=0.1, narrow=4)]}
    preservation = {
        ("baseline", 0, 0): {"bottlenecks": [place("skip_0", **NONE)]},
        ("both", 0, 0): both,
        ("both", 0, 1): both,
        ("skip", 0, 0): {"bottlenecks": [place("skip_0"), place("decoder_0", **NONE)]},
        ("skip", 0, 2): both,
    }
    dice = {("baseline", 0, 0): 0.9, ("baseline", 0, 1): 0.8, ("both", 0, 0): 0.85, ("both", 0, 1): 0.81}
    return preservation, dice | {("skip", 0, 0): 0.9, ("skip", 0, 2): 0.7}


def test_a_row_per_bottleneck_of_every_pair():
    rows = law_rows(*study(), CONTROLS)
    found = [(row.variant, row.seed, row.name, round(row.dice_lost, 9)) for row in rows]
    assert found == [
        ("both", 0, "skip_0", 0.05),
        ("both", 0, "decoder_0", 0.05),
        ("both", 1, "skip_0", -0.01),
        ("both", 1, "decoder_0", -0.01),
        ("skip", 0, "skip_0", 0.0),
    ]
    assert rows[0].measures == pytest.approx(
        {
            "ratio": 0.25,
            "r2": 0.4,
            "r2_pca": 0.7,
            "cka": 0.5,
            "probe_dice_lost": 0.1,
            "amplified": 0.1,
            "suppressed": 0.2,
        }
    )


def test_the_worst_of_a_trial():
    worst = of_trial(law_rows(*study(), CONTROLS))
    assert [(row.variant, row.seed, row.name) for row in worst] == [
        ("both", 0, "worst"),
        ("both", 1, "worst"),
        ("skip", 0, "worst"),
    ]
    assert worst[0].measures["r2"] == 0.4
    assert worst[0].measures["cka"] == 0.1
    assert worst[0].measures["ratio"] == 0.25
    assert worst[0].dice_lost == pytest.approx(0.05)


def test_columns_for_the_correlation():
    rows = law_rows(*study(), CONTROLS)
    x, y, clusters = columns(rows, "r2", path="skip")
    assert x == [0.4, 0.4, 0.6]
    assert y == pytest.approx([0.05, -0.01, 0.0])
    assert clusters == ["both", "both", "skip"]
    assert columns(rows, "r2", stage=1) == ([], [], [])
    with pytest.raises(KeyError, match="measure must be one of ratio, r2"):
        columns(rows, "r3")


def test_a_measure_that_does_not_exist_is_left_out():
    preservation, dice = study()
    preservation["both", 0, 0] = {
        "bottlenecks": [
            place("skip_0", cka=None, probe_dice_wide=None, probe_dice_narrow=None),
            place("decoder_0", probe_dice_wide=[None, 0.5], probe_dice_narrow=[None, 0.25]),
        ]
    }
    rows = law_rows(preservation, dice, CONTROLS)
    assert "cka" not in rows[0].measures
    assert "probe_dice_lost" not in rows[0].measures
    assert rows[1].measures["probe_dice_lost"] == 0.25
    assert len(columns(rows, "cka")[0]) == len(rows) - 1
    assert of_trial(rows)[0].measures["cka"] == 0.5


def test_a_report_needs_no_torch():
    code = "import sys, seg.ablation.preservation as p; p.law_rows, p.write_point; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_dice_is_lost_against_the_control():
    preservation, dice = study()
    dice["flat", 0, 0] = 0.86
    rows = law_rows(preservation, dice, CONTROLS | {"both": "flat"})
    assert [(row.variant, row.seed, round(row.dice_lost, 9)) for row in rows] == [
        ("both", 0, 0.01),
        ("both", 0, 0.01),
        ("skip", 0, 0.0),
    ]
