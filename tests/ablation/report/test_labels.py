"""Texts beside points: none on another, none on another's point, each with a line to its own."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.text import Text

from seg.ablation.report.drawing import drawing
from seg.ablation.report.labels import label_points


def overlap(one: np.ndarray, other: np.ndarray) -> bool:
    """Tells whether two boxes (left, lower, right, upper) share an area."""
    return bool((np.minimum(one[2:], other[2:]) > np.maximum(one[:2], other[:2])).all())


@pytest.mark.parametrize("seed", range(6))
def test_no_text_lies_on_another_or_on_the_point_of_another(seed: int) -> None:
    # A cluster in a corner with others far from it, as variants of one network lie.
    random = np.random.default_rng(seed)
    near = random.normal(0.15, 0.05, size=(7, 2))
    far = random.uniform(0.4, 1.0, size=(3, 2))
    points = {f"variant_{number}": (float(x), float(y)) for number, (x, y) in enumerate([*near, *far])}
    with drawing(height=3.9) as figure:
        axis = figure.add_subplot()
        axis.set_xlim(-0.2, 1.2)
        axis.set_ylim(-0.2, 1.2)
        axis.set_title("a title that takes room")
        label_points(axis, {name: name for name in points}, points)
        figure.draw_without_rendering()
        boxes = {text.get_text(): Text.get_window_extent(text).extents for text in axis.texts}
        frame = axis.get_window_extent()
        marks = {name: axis.transData.transform(point) for name, point in points.items()}
    assert set(boxes) == set(points)
    for name, box in boxes.items():
        assert not any(overlap(box, other) for key, other in boxes.items() if key != name)
        for key, (x, y) in marks.items():
            assert key == name or not (box[0] < x < box[2] and box[1] < y < box[3])
        assert frame.x0 <= box[0] < box[2] <= frame.x1
        assert frame.y0 <= box[1] < box[3] <= frame.y1


def test_each_text_has_a_line_to_its_own_point() -> None:
    points = {"one": (0.2, 0.2), "two": (0.8, 0.8)}
    with drawing() as figure:
        axis = figure.add_subplot()
        axis.set_xlim(0, 1)
        axis.set_ylim(0, 1)
        label_points(axis, {"two": "2"}, points)
        (text,) = axis.texts
        assert text.arrow_patch is not None
        assert tuple(text.xy) == points["two"]
