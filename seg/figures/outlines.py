"""Edges of label maps as paths of SVG, drawn along the sides of voxels."""

from __future__ import annotations

import itertools
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Corner = tuple[int, int]
Neighbours = dict[Corner, list[Corner]]


@dataclass(frozen=True, kw_only=True)
class Outline:
    """The edges of a label map.

    Attributes:
        path: The ``d`` of an SVG path; one unit is a voxel, the map's upper left corner is the origin, y runs down.
        left_out: Number of edges that were too many; the shortest.
    """

    path: str
    left_out: int


def trace_outlines(labels: npt.NDArray[Any], *, max_corners: int) -> Outline:
    """Traces where a label map changes its value.

    An edge between two classes is drawn once, not once for each: the dashes of two lines on one another would fill
    each other's gaps.

    Args:
        labels: Integers of shape (height, width), the top row first; around the map is background, 0.
        max_corners: Most corners of the path; bounds its length for maps that are noise.

    Returns:
        The path, empty for a map of background alone.
    """
    lines = sorted(_join(_borders(labels)), key=len, reverse=True)
    drawn, corners = [], 0
    for line in lines:
        corners += len(line)
        if corners > max_corners:
            break
        drawn.append(_write(line))
    return Outline(path="".join(drawn), left_out=len(lines) - len(drawn))


def _borders(labels: npt.NDArray[Any]) -> Neighbours:
    """Gives the corners of voxels that a border joins, by corner (column, row)."""
    padded = np.pad(labels, 1)
    found: Neighbours = defaultdict(list)
    upright = np.argwhere(padded[1:-1, 1:] != padded[1:-1, :-1])
    lying = np.argwhere(padded[1:, 1:-1] != padded[:-1, 1:-1])
    for borders, step in ((upright, (0, 1)), (lying, (1, 0))):
        for row, column in borders.tolist():
            one, other = (column, row), (column + step[0], row + step[1])
            found[one].append(other)
            found[other].append(one)
    return found


def _join(neighbours: Neighbours) -> list[list[Corner]]:
    """Joins borders to lines that end where three or four of them meet, and to rings; each is a list of its corners."""
    free = {corner: list(others) for corner, others in neighbours.items()}
    junctions = [corner for corner, others in neighbours.items() if len(others) != 2]
    lines = []
    # Junctions first: what is left after them are rings.
    for start in (*junctions, *neighbours):
        while free[start]:
            line = [start]
            while True:
                here = line[-1]
                following = free[here].pop()
                free[following].remove(here)
                line.append(following)
                if following == start or len(neighbours[following]) != 2:
                    break
            lines.append(_straighten(line))
    return lines


def _straighten(line: list[Corner]) -> list[Corner]:
    """Leaves out the corners that a line runs straight through."""
    kept = [line[0]]
    for before, here, after in zip(line, line[1:], line[2:], strict=False):
        if (here[0] - before[0], here[1] - before[1]) != (after[0] - here[0], after[1] - here[1]):
            kept.append(here)
    return [*kept, line[-1]]


def _write(line: list[Corner]) -> str:
    """Writes one line as commands of a path."""
    steps = [
        f"h{x - before_x}" if y == before_y else f"v{y - before_y}"
        for (before_x, before_y), (x, y) in itertools.pairwise(line)
    ]
    return f"M{line[0][0]} {line[0][1]}" + "".join(steps) + ("z" if line[0] == line[-1] else "")
