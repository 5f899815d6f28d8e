"""The picture itself, drawn with matplotlib."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from seg.figures.views import (
    PLANES,
    Box,
    FigureRow,
    Plane,
    cut,
    foreground,
    fullest_slices,
    is_flat,
    joint_box,
    view_extent,
)
from seg.files import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CLASS_COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#CC79A7", "#D55E00", "#0072B2")
"""Colours that people with any colour vision tell apart, on grey; they repeat from the eighth class on.

References:
    M. Okabe, K. Ito, Color Universal Design, 2008, https://jfly.uni-koeln.de/color/. Order ours; black left out.
"""

OUTLINE_SAMPLES = 8
"""Samples to a voxel's side from which outlines are drawn."""

WIDTH_INCH, ROW_INCH, HEADER_INCH, GAP_INCH, LEGEND_INCH = 10.5, 3.6, 0.55, 0.12, 0.45
"""Width of the page, most height of a case's slices, height of its titles, space around slices, the legend's height."""

FLAT_INCH, TITLE_INCH = 4.8, 0.3
"""Most height of the axial slice of a flat volume, and space above a slice that stands below another."""

Extent = tuple[float, float, float, float]


@dataclass(frozen=True, kw_only=True)
class _Frame:
    """What is shown of one case: the box of voxels, a slice for each plane, and its place from the upper left."""

    box: Box
    positions: Mapping[str, int]
    sizes_inch: tuple[tuple[float, float], ...]
    places_inch: tuple[tuple[float, float], ...]

    @property
    def height_inch(self) -> float:
        """Height down to the lowest slice."""
        return max(down + high for (_, down), (_, high) in zip(self.places_inch, self.sizes_inch, strict=True))


def prediction_grid(path: Path, rows: Sequence[FigureRow], *, class_names: Sequence[str]) -> None:
    """Draws cases below one another, each as an axial, a coronal and a sagittal slice, and writes a PNG.

    The slices are those with the largest foreground. Predictions are filled, references are outlined. Rows of one case,
    such as predictions of several models, are cut alike, so that they can be compared.

    Args:
        path: The PNG; its folder is made where it does not exist.
        rows: One or more cases.
        class_names: Names by class index, background first.

    Raises:
        RunError: The file cannot be written.
    """
    # Imported here: matplotlib takes longer to import than the rest of the program that asks for a picture.
    from matplotlib.figure import Figure

    frames = [_frame(row, [other for other in rows if _same(row, other)]) for row in rows]
    height = LEGEND_INCH + sum(HEADER_INCH + frame.height_inch for frame in frames)
    figure = Figure(figsize=(WIDTH_INCH, height), dpi=110, facecolor="white")
    top = height
    for row, frame in zip(rows, frames, strict=True):
        figure.text(GAP_INCH / WIDTH_INCH, (top - 0.25) / height, _title(row, class_names), fontsize=11)
        top -= HEADER_INCH
        for plane, (left, down), (wide, high) in zip(PLANES, frame.places_inch, frame.sizes_inch, strict=True):
            bottom = top - down - high
            axis = figure.add_axes((left / WIDTH_INCH, bottom / height, wide / WIDTH_INCH, high / height))
            _draw_slice(axis, row, frame, plane, len(class_names))
        top -= frame.height_inch
    _draw_legend(figure, rows, class_names)
    content = io.BytesIO()
    figure.savefig(content, format="png")
    write_bytes(path, content.getvalue())


def _same(one: FigureRow, other: FigureRow) -> bool:
    """Tells whether two rows show one case on one grid."""
    grids = [(row.case_id, row.prediction.shape, row.spacing_mm) for row in (one, other)]
    return grids[0] == grids[1]


def _frame(row: FigureRow, alike: Sequence[FigureRow]) -> _Frame:
    """Lays out a case: all its slices at one scale, as large as the page's width and one row's height allow.

    What is shown is what suits all rows of that case. Of flat volumes the axial slice stands beside the two others,
    which would be thin strips in a row of three.
    """
    box = joint_box(alike)
    extents = [view_extent(box, plane, row.spacing_mm) for plane in PLANES]
    widths, heights = ([extent[axis] for extent in extents] for axis in (0, 1))
    flat = is_flat(extents)
    columns = [widths[0], max(widths[1:])] if flat else widths
    room = WIDTH_INCH - GAP_INCH * (len(columns) + 1)
    scale = min(room / sum(columns), (FLAT_INCH if flat else ROW_INCH) / max(heights))
    sizes = tuple((width * scale, height * scale) for width, height in extents)
    second = 2 * GAP_INCH + sizes[0][0]
    third = (second, sizes[1][1] + TITLE_INCH) if flat else (second + GAP_INCH + sizes[1][0], 0.0)
    return _Frame(
        box=box,
        positions=fullest_slices(np.any([foreground(other) for other in alike], axis=0)),
        sizes_inch=sizes,
        places_inch=((GAP_INCH, 0.0), (second, 0.0), third),
    )


def _title(row: FigureRow, class_names: Sequence[str]) -> str:
    """Names a case and the Dice of its classes."""
    dice = ", ".join(
        f"{class_names[index]} {'empty' if math.isnan(value) else format(value, '.3f')}"
        for index, value in sorted(row.dice.items())
    )
    name = f"{row.note}: {row.case_id}" if row.note else row.case_id
    return f"{name}    Dice: {dice}" if dice else name


def _draw_slice(axis: Axes, row: FigureRow, frame: _Frame, plane: Plane, num_classes: int) -> None:
    """Draws one slice with the prediction filled and the reference outlined."""
    position = frame.positions[plane.name]
    width, height = view_extent(frame.box, plane, row.spacing_mm)
    extent = (0.0, width, 0.0, height)
    low, high = np.percentile(row.image[frame.box], (0.5, 99.5))
    picture = cut(row.image, frame.box, plane, position)
    axis.imshow(picture, cmap="gray", vmin=low, vmax=high, origin="lower", extent=extent, aspect="auto")
    predicted = cut(row.prediction, frame.box, plane, position)
    expected = None if row.reference is None else cut(row.reference, frame.box, plane, position)
    for index in range(1, num_classes):
        colour = CLASS_COLOURS[(index - 1) % len(CLASS_COLOURS)]
        _fill(axis, predicted == index, colour, extent)
        if expected is not None:
            _outline(axis, expected == index, colour, extent)
    axis.set_title(f"{plane.name}, slice {position}", fontsize=9, pad=3)
    axis.set_axis_off()
    axis.set_xlim(0, width)
    axis.set_ylim(0, height)
    _mark_sides(axis, plane)


def _fill(axis: Axes, mask: npt.NDArray[np.bool_], colour: str, extent: Extent) -> None:
    """Lays a translucent colour over a mask of shape (height, width)."""
    from matplotlib.colors import to_rgba

    layer = np.zeros((*mask.shape, 4))
    layer[mask] = to_rgba(colour, alpha=0.45)
    axis.imshow(layer, origin="lower", extent=extent, aspect="auto", interpolation="nearest")


def _outline(axis: Axes, mask: npt.NDArray[np.bool_], colour: str, extent: Extent) -> None:
    """Draws the edge of a mask of shape (height, width) along its voxels."""
    if not mask.any():
        return
    # Contours run between samples: with several to a voxel they follow its edges instead of cutting its corners.
    fine = np.pad(np.kron(mask, np.ones((OUTLINE_SAMPLES, OUTLINE_SAMPLES))), 1)
    rows, columns = ((np.arange(size) - 0.5) / (size - 2) for size in fine.shape)
    axis.contour(columns * extent[1], rows * extent[3], fine, levels=[0.5], colors=[colour], linewidths=1.5)


def _mark_sides(axis: Axes, plane: Plane) -> None:
    """Writes the letters of the patient's sides on the edges of a slice."""
    from matplotlib.patheffects import withStroke

    left, right, bottom, top = plane.letters
    places = (
        (left, (0, 0.5), (8, 0)),
        (right, (1, 0.5), (-8, 0)),
        (bottom, (0.5, 0), (0, 8)),
        (top, (0.5, 1), (0, -8)),
    )
    for letter, edge, points_inwards in places:
        axis.annotate(
            letter,
            edge,
            points_inwards,
            xycoords="axes fraction",
            textcoords="offset points",
            color="white",
            fontsize=9,
            ha="center",
            va="center",
            path_effects=[withStroke(linewidth=2, foreground="black")],
        )


def _draw_legend(figure: Figure, rows: Sequence[FigureRow], class_names: Sequence[str]) -> None:
    """Explains colours, fill and outline once, below all cases."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Patch | Line2D] = [
        Patch(color=CLASS_COLOURS[(index - 1) % len(CLASS_COLOURS)], label=class_names[index])
        for index in range(1, len(class_names))
    ]
    handles.append(Patch(facecolor="0.6", alpha=0.45, label="prediction (filled)"))
    if any(row.reference is not None for row in rows):
        handles.append(Line2D([], [], color="0.3", linewidth=1.6, label="reference (outline)"))
    figure.legend(handles=handles, loc="lower center", ncols=min(len(handles), 6), fontsize=9, frameon=False)
