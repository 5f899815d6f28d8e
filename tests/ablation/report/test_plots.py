"""Scales, labels and the SVG of figures."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from itertools import combinations

import numpy as np
import pytest

from seg.ablation.report.labels import label_variants
from seg.ablation.report.plots import clipped, forest, pareto, place_labels, robust_limits
from seg.ablation.statistics import Verdict
from seg.figures.svg import drawing, to_picture

LABELS = label_variants(
    {
        "baseline": {},
        "half": {"network.skip_bottleneck.ratio": 0.5},
        "quarter": {"network.skip_bottleneck.ratio": 0.25},
        "failed": {"network.decoder_bottleneck.ratio": 0.125},
    }
)
DIFFERENCES = {"half": (-0.001, -0.002, 0.0), "quarter": (-0.003, -0.004, -0.002), "failed": (-0.3, -0.6, 0.1)}
SAFE = Verdict(
    variant="half",
    word="safe",
    together="safe",
    bound=-0.0025,
    class_name="<b>",
    level=0.025,
    failed=(),
    changing=(),
)
SPEEDS = {"half": 1.1, "quarter": 1.2, "failed": 1.5}


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ET.fromstring(svg).iter() if element.tag.endswith("text")]


def titles(svg: str) -> list[str]:
    return [element.text or "" for element in ET.fromstring(svg).iter() if element.tag.endswith("title")]


def test_limits_hold_0_the_margin_and_all_but_what_lies_far_off() -> None:
    low, high = robust_limits(list(DIFFERENCES.values()), 0.005)
    assert low < -0.005 < 0 < high
    assert low > -0.05
    low, high = robust_limits([(-0.001, -0.002, 0.0)] * 3 + [(-0.01, -0.012, -0.008)], 0.005)
    assert low < -0.005
    assert robust_limits([], 0.005)[0] < -0.005


@pytest.mark.parametrize(("value", "drawn"), [(0.2, 0.2), (-9.0, -0.96), (9.0, 0.96)])
def test_what_leaves_the_scale_is_drawn_just_inside(value: float, drawn: float) -> None:
    assert clipped(value, (-1.0, 1.0)) == pytest.approx(drawn)


def test_a_forest_plot_shows_values_bounds_words_and_speeds() -> None:
    picture = forest(LABELS, DIFFERENCES, {"half": SAFE}, SPEEDS, 0.005)
    assert picture is not None
    shown = texts(picture.file)
    minus = "\N{MINUS SIGN}"
    for text in ("skips ×1/2", f"{minus}0.0010 ({minus}0.0020 to 0.0000)", f"{minus}0.0025 <b>", "safe", "1.10×"):
        assert text in shown
    assert f"deciding bound {minus}0.0025 in <b>" in titles(picture.file)


def test_a_pareto_plot_names_every_variant_and_joins_those_that_differ_in_width() -> None:
    picture = pareto(LABELS, DIFFERENCES, SPEEDS, "A device", 0.005, "pareto_0")
    assert picture is not None
    assert {label.text for label in LABELS.values()} <= set(texts(picture.file))
    assert len(titles(picture.file)) == 4
    assert pareto(LABELS, DIFFERENCES, {}, "A device", 0.005, "pareto_0") is None


def test_labels_do_not_lie_on_one_another_where_there_is_room() -> None:
    rng = np.random.default_rng(0)
    points = {f"point {number}": tuple(rng.uniform(0, 1, 2)) for number in range(15)}
    points |= {"twin 1": (0.5, 0.5), "twin 2": (0.5, 0.501)}
    with drawing(9, 5) as figure:
        axis = figure.subplots()
        axis.set_xlim(-0.2, 1.2)
        axis.set_ylim(-0.2, 1.2)
        place_labels(axis, {key: key for key in points}, points, lambda _: "black")  # type: ignore[arg-type]
        figure.draw_without_rendering()
        boxes = [text.get_window_extent() for text in axis.texts]
    assert len(boxes) == 17
    assert not [pair for pair in combinations(boxes, 2) if pair[0].overlaps(pair[1])]


@pytest.mark.parametrize("letter", ["\0", "\x0c", "\x1b", "\ufffe", "\uffff"])
@pytest.mark.filterwarnings("error")
def test_what_no_xml_can_hold_is_drawn_as_a_mark(letter: str) -> None:
    text, marked = f"AMD{letter}EPYC", "AMD\N{REPLACEMENT CHARACTER}EPYC"
    with drawing(4, 3) as figure:
        axis = figure.subplots()
        axis.plot([0, 1], [0, 1], "o", gid="mark")
        axis.set_title(text)
        axis.set_yticks([0.5], [text])
        figure.draw_without_rendering()
        picture = to_picture(figure, "own", text, {"mark": text})
    assert texts(picture.file).count(marked) == 2
    assert (titles(picture.inline), picture.alt) == ([marked], marked)
    assert ET.fromstring(picture.inline).get("aria-label") == marked


@pytest.mark.filterwarnings("error")
def test_letters_that_one_font_lacks_stay_text() -> None:
    with drawing(4, 3) as figure:
        figure.subplots().set_title("\u8166")
        assert "\u8166" in texts(to_picture(figure, "own", "a title", {}).file)


def test_an_svg_has_titles_and_ids_of_its_own_and_no_style() -> None:
    with drawing(4, 3) as figure:
        axis = figure.subplots()
        axis.plot([0, 1], [0, 1], "o", gid="mark")
        axis.set_title("$a$ <b> & 'c'")
        picture = to_picture(figure, "own", "what it shows", {"mark": 'a "title" <x>'})
    assert titles(picture.file) == ['a "title" <x>']
    assert "$a$ <b> & 'c'" in texts(picture.file)
    root = ET.fromstring(picture.inline)
    ids = {element.get("id") for element in root.iter()} - {None}
    assert all(str(name).startswith("own-") for name in ids)
    links = [element.get("{http://www.w3.org/1999/xlink}href", "") for element in root.iter()]
    assert {link[1:] for link in links if link} <= ids
    assert not [element for element in root.iter() if "style" in element.attrib or element.tag.endswith("style")]
    assert 'fill="#1b2026"' in picture.file
    assert "#1b2026" not in picture.inline
