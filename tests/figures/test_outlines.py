from __future__ import annotations

import io
import re

import matplotlib.image
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from seg.figures.outlines import trace_outlines
from seg.figures.png import grey_png

MAPS = arrays(np.uint8, st.tuples(st.integers(1, 7), st.integers(1, 7)), elements=st.integers(0, 2))


def unit_steps(path: str) -> list[frozenset[tuple[int, int]]]:
    """Walks a path as SVG defines its commands and gives each side of a voxel that it passes."""
    steps = []
    for line in path.split("M")[1:]:
        start = re.match(r"(\d+) (\d+)", line)
        assert start is not None
        here = first = (int(start[1]), int(start[2]))
        for command, number in re.findall(r"([hv])(-?\d+)", line):
            length, sign = abs(int(number)), 1 if int(number) > 0 else -1
            for _ in range(length):
                there = (here[0] + sign, here[1]) if command == "h" else (here[0], here[1] + sign)
                steps.append(frozenset((here, there)))
                here = there
        assert (here == first) == line.endswith("z")
    return steps


def sides(labels: np.ndarray) -> list[frozenset[tuple[int, int]]]:
    """Every side between two voxels of different values, found one by one; outside is 0."""

    def value(row: int, column: int) -> int:
        inside = 0 <= row < labels.shape[0] and 0 <= column < labels.shape[1]
        return int(labels[row, column]) if inside else 0

    found = []
    for row in range(labels.shape[0] + 1):
        for column in range(labels.shape[1] + 1):
            if value(row, column) != value(row, column - 1):
                found.append(frozenset(((column, row), (column, row + 1))))
            if value(row, column) != value(row - 1, column):
                found.append(frozenset(((column, row), (column + 1, row))))
    return found


@settings(max_examples=60, deadline=None)
@given(MAPS)
def test_every_side_between_two_values_is_drawn_once(labels: np.ndarray) -> None:
    outline = trace_outlines(labels, max_corners=10_000)
    drawn = unit_steps(outline.path)
    assert len(drawn) == len(set(drawn))
    assert set(drawn) == set(sides(labels))
    assert outline.left_out == 0


def test_a_block_is_one_ring_of_four_corners() -> None:
    labels = np.zeros((6, 8), np.uint8)
    labels[2:4, 1:6] = 1
    path = trace_outlines(labels, max_corners=100).path
    assert path.count("M") == path.count("z") == 1
    assert sorted(int(number) for number in re.findall(r"[hv](-?\d+)", path)) in ([-5, -2, 2, 5], [-5, -2, -1, 1, 2, 5])


def test_the_shortest_outlines_are_left_out_of_noise() -> None:
    labels = np.zeros((40, 40), np.uint8)
    labels[1:20, 1:20] = np.tri(19, dtype=np.uint8)
    labels[30:40:2, ::2] = 1
    outline = trace_outlines(labels, max_corners=45)
    assert outline.left_out == 100
    assert set(unit_steps(outline.path)) == set(sides(np.where(np.arange(40)[:, None] < 25, labels, 0)))


def test_nothing_has_no_outline() -> None:
    assert trace_outlines(np.zeros((3, 3), np.uint8), max_corners=10).path == ""


@pytest.mark.parametrize("shape", [(1, 1), (5, 3), (64, 300)])
def test_pictures_are_read_by_another_library(shape: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    read = matplotlib.image.imread(io.BytesIO(grey_png(pixels)))
    assert np.array_equal(np.rint(read * 255).astype(np.uint8), pixels)
