"""Texts beside the points of a figure, each with a thin line to its own point."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Point = tuple[float, float]
Pixels = npt.NDArray[np.float64]
Rectangle = tuple[float, float, float, float]
"""Left, lower, right and upper side, in pixels."""

RADII = (6.0, 10.0, 15.0, 21.0, 28.0, 36.0, 46.0, 58.0, 72.0)
"""Distances of a text from its point that are tried, in points."""
ANGLES = tuple(np.deg2rad(np.arange(0, 360, 15)))
PASSES = 4
MARK_POINTS, AIR_POINTS = 4.0, 2.0
"""Half the size of a mark, and air around a text."""

ON_TEXT, ON_MARK, ON_LINE, CROSSING = 1000.0, 200.0, 12.0, 150.0
"""What it costs, beside a point of distance, that a text or its line lies on something."""


def label_points(
    axis: Axes,
    texts: Mapping[str, str],
    points: Mapping[str, Point],
    *,
    lines: Sequence[Sequence[Point]] = (),
    size: float = 8.0,
) -> dict[str, Rectangle]:
    """Writes texts beside points where they hide least, within the axis.

    Args:
        axis: The axis, with all that it shows and its limits; it is laid out first.
        texts: Text by the name of its point.
        points: All points that are marked, those without a text too.
        lines: Lines that a text better does not lie on, as their corners.
        size: Size of the text, in points.

    Returns:
        Where each text stands.
    """
    from matplotlib.patheffects import withStroke

    figure = axis.figure
    for _ in range(2):  # what stands around the axis moves in the first pass, the axis in the second
        figure.draw_without_rendering()  # type: ignore[union-attr]
    figure.set_layout_engine("none")  # type: ignore[union-attr]
    frame = axis.get_window_extent()
    scene = _Scene(
        room=(frame.x0 + 2, frame.y0 + 2, frame.x1 - 2, frame.y1 - 2),
        unit=axis.figure.dpi / 72,
        marks={name: axis.transData.transform(point) for name, point in points.items()},
        thin=np.concatenate([np.empty((0, 2)), *(_along(axis.transData.transform(line)) for line in lines)]),
    )
    drawn = {}
    for name, text in texts.items():
        drawn[name] = axis.annotate(
            text,
            points[name],
            (0, 0),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=size,
            zorder=6,
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": "0.5", "linewidth": 0.6, "shrinkA": 0, "shrinkB": 2.5},
            path_effects=[withStroke(linewidth=2.2, foreground="white")],
        )
        drawn[name].set_in_layout(False)
    extents = {name: text.get_window_extent() for name, text in drawn.items()}
    halves = {name: np.array([extent.width, extent.height]) / 2 for name, extent in extents.items()}
    # A text that came late may find no room until an earlier one has made way.
    for _ in range(PASSES):
        for name, half in halves.items():
            at = scene.put(name, half)
            drawn[name].set_position(tuple((at - scene.marks[name]) / scene.unit))
    return scene.taken


@dataclass(kw_only=True)
class _Scene:
    """What stands in a figure, in pixels.

    Attributes:
        room: Where texts may stand.
        unit: Pixels to a point.
        marks: Marked points.
        thin: Points along the lines.
        taken: Texts that have their place.
        leaders: Lines of these texts: from the mark to the middle of the text.
    """

    room: Rectangle
    unit: float
    marks: Mapping[str, Pixels]
    thin: Pixels
    taken: dict[str, Rectangle] = field(default_factory=dict)
    leaders: dict[str, tuple[Pixels, Pixels]] = field(default_factory=dict)

    def put(self, name: str, half: Pixels) -> Pixels:
        """Chooses the middle of a text, half of whose size is given."""
        own = self.marks[name]
        self.taken.pop(name, None)
        self.leaders.pop(name, None)
        best, least = own, math.inf
        for radius in RADII:
            if radius >= least:  # from here on the distance alone costs more
                break
            for angle in ANGLES:
                at = own + np.array([math.cos(angle), math.sin(angle)]) * (radius * self.unit + half)
                cost = self._cost(name, at, half, least)
                if cost < least:
                    best, least = at, cost
        self.taken[name] = _box(best, half, 0.0)
        self.leaders[name] = (own, best)
        return best

    def _cost(self, name: str, at: Pixels, half: Pixels, least: float) -> float:
        """Weighs one place for a text, of which less is better; exact where it is below the least so far."""
        own = self.marks[name]
        others = np.array([mark for other, mark in self.marks.items() if other != name]).reshape(-1, 2)
        box, bare = _box(at, half, AIR_POINTS * self.unit), _box(at, half, 0.0)
        found = float(np.hypot(*np.maximum(np.abs(at - own) - half, 0))) / self.unit
        if (np.array(bare[:2]) < self.room[:2]).any() or (np.array(bare[2:]) > self.room[2:]).any():
            found += 2 * ON_TEXT
        found += ON_TEXT * sum(_meet(box, other) for other in self.taken.values())
        found += ON_MARK * _count(_box(at, half, MARK_POINTS * self.unit), others)
        found += ON_LINE * min(3, _count(bare, self.thin))
        return found if found >= least else found + self._leader_cost(own, at, half, others)

    def _leader_cost(self, own: Pixels, at: Pixels, half: Pixels, others: Pixels) -> float:
        """Weighs the line from a text to its mark."""
        along = _along(np.array([own, at]), 4.0)
        seen = along[(np.abs(along - at) > half).any(axis=1)]
        found = ON_TEXT * sum(bool(_count(other, seen)) for other in self.taken.values())
        if len(others) and len(seen):
            apart = np.hypot(*(seen[:, None] - others[None]).transpose(2, 0, 1)).min(axis=0)
            found += 0.3 * ON_MARK * int((apart < MARK_POINTS * self.unit).sum())
        box = _box(at, half, AIR_POINTS * self.unit)
        for start, end in self.leaders.values():
            found += ON_TEXT * bool(_count(box, _along(np.array([start, end]), 4.0)))
            found += CROSSING * _cross(own, at, start, end)
        return found


def _box(at: Pixels, half: Pixels, air: float) -> Rectangle:
    left, lower = at - half - air
    right, upper = at + half + air
    return float(left), float(lower), float(right), float(upper)


def _meet(one: Rectangle, other: Rectangle) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _count(box: Rectangle, points: Pixels) -> int:
    """Counts the points in a box."""
    if not len(points):
        return 0
    x, y = points.T
    return int(((x > box[0]) & (x < box[2]) & (y > box[1]) & (y < box[3])).sum())


def _along(corners: Pixels, step: float = 6.0) -> Pixels:
    """Gives points along a line, so dense that no text fits between them."""
    parts = []
    for start, end in pairwise(corners):
        count = max(2, int(np.hypot(*(end - start)) / step) + 1)
        parts.append(np.linspace(start, end, count))
    return np.concatenate(parts) if parts else np.empty((0, 2))


def _cross(a: Pixels, b: Pixels, c: Pixels, d: Pixels) -> bool:
    """Tells whether two lines cross."""

    def side(p: Pixels, q: Pixels, r: Pixels) -> bool:
        return bool((q[0] - p[0]) * (r[1] - p[1]) > (q[1] - p[1]) * (r[0] - p[0]))

    return side(a, b, c) != side(a, b, d) and side(c, d, a) != side(c, d, b)
