"""The slices of a case as a part of a page: pictures, both outlines, the letters of sides, numbers of classes."""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from seg.figures.outlines import trace_outlines
from seg.figures.png import grey_png
from seg.figures.sources import PageCase
from seg.figures.views import (
    PLANES,
    Box,
    FigureRow,
    Plane,
    cut,
    fullest_slices,
    is_flat,
    slice_positions,
    view_extent,
    visible_box,
)

MAX_PIXELS = 256
"""Most pixels of a picture's side: finer ones are averaged, or a page of large volumes would not fit into a mail."""

MAX_CORNERS = 6000
"""Most corners of an outline."""

NUMBER_RADIUS = 0.008
"""Radius of the disc that must fit into a structure to write its number there, as a part of the page's width."""

ROUND_MM = 3
"""Decimals of lengths on a page."""


@dataclass(frozen=True, kw_only=True)
class SliceView:
    """What is shown of a case in one direction.

    Attributes:
        row: The case, with a reference.
        grey: Darkest and brightest value shown; None shows no image.
        box: The part of the volume.
        plane: The direction.
        position: Index of the slice along the plane's normal.
        page_mm: What the width of the page stands for, in mm.
    """

    row: FigureRow
    grey: tuple[float, float] | None
    box: Box
    plane: Plane
    position: int
    page_mm: float


def draw_case(case: PageCase) -> str:
    """Draws the three slices of a case as HTML, at one scale.

    In each direction it is the slice with the largest area labelled wrongly; without errors, with most foreground.
    Flat volumes have the axial slice beside the two others, or those would be thin strips.
    """
    row = case.row
    if row.reference is None:
        raise ValueError("a case on a page must have a reference, got none.")
    wrong = np.asarray(row.prediction != row.reference)
    positions = fullest_slices(wrong) if wrong.any() else slice_positions(row)
    box = visible_box(row)
    extents = [view_extent(box, plane, row.spacing_mm) for plane in PLANES]
    widths = [width for width, _ in extents]
    flat = is_flat(extents)
    page_mm = widths[0] + max(widths[1:]) if flat else sum(widths)
    axial, *others = (
        draw_slice(
            SliceView(row=row, grey=case.grey, box=box, plane=plane, position=positions[plane.name], page_mm=page_mm)
        )
        for plane in PLANES
    )
    beside = "".join(others)
    if flat:
        beside = f'<div class="stack" style="--wide:{_mm(max(widths[1:]))}">{beside}</div>'
    return f'<div class="slices" style="--max:{_mm(max(widths))}">{axial}{beside}</div>'


def draw_slice(view: SliceView) -> str:
    """Draws a slice as HTML with an SVG in it.

    The picture keeps the body's proportions whatever the spacing is; its unit is the mm.
    """
    plane, spacing = view.plane, view.row.spacing_mm
    width, height = view_extent(view.box, plane, spacing)
    reference = _flat(view, view.row.reference)
    prediction = _flat(view, view.row.prediction)
    step = spacing[plane.width], spacing[plane.height]
    outlines = [
        (role, trace_outlines(labels, max_corners=MAX_CORNERS))
        for role, labels in (("reference", reference), ("prediction", prediction))
    ]
    paths = "".join(
        f'<path class="{line} {role}" transform="scale({_mm(step[0])} {_mm(step[1])})" d="{outline.path}"/>'
        for role, outline in outlines
        if outline.path
        for line in ("casing", "line")
    )
    left_out = sum(outline.left_out for _, outline in outlines)
    missing = f"; {left_out} shortest outlines left out" if left_out else ""
    letters = "".join(
        f'<span class="side {side}">{letter}</span>'
        for side, letter in zip(("left", "right", "bottom", "top"), plane.letters, strict=True)
    )
    return (
        f'<figure class="slice" style="--w:{_mm(width)}">'
        f'<div class="picture"><svg viewBox="0 0 {_mm(width)} {_mm(height)}" role="img" '
        f'aria-label="{escape(_describe(view, reference, prediction))}">'
        f'<rect class="ground" width="100%" height="100%"/>{_image(view, step)}{paths}</svg>'
        f'<div aria-hidden="true">{letters}{_numbers(view, reference, prediction)}</div></div>'
        f"<figcaption>{plane.name}, slice {view.position}{missing}</figcaption></figure>"
    )


def _flat(view: SliceView, array: npt.NDArray[Any] | None) -> npt.NDArray[Any]:
    """Gives the slice of an array, the top row first."""
    return cut(np.asarray(array), view.box, view.plane, view.position)[::-1]


def _mm(length: float) -> str:
    """Writes a length."""
    return f"{round(length, ROUND_MM):g}"


def _describe(view: SliceView, reference: npt.NDArray[Any], prediction: npt.NDArray[Any]) -> str:
    """Says in words what a slice shows, for those who do not see it."""
    voxel = view.row.spacing_mm[view.plane.width] * view.row.spacing_mm[view.plane.height]
    areas = [int(np.count_nonzero(mask)) * voxel for mask in (reference, prediction, reference != prediction)]
    return (
        f"{view.plane.name} slice {view.position} of case {view.row.case_id}: the reference covers {areas[0]:.0f} mm², "
        f"the prediction {areas[1]:.0f} mm²; they differ on {areas[2]:.0f} mm²."
    )


def _image(view: SliceView, step: tuple[float, float]) -> str:
    """Gives the image below the outlines, or nothing where there is none."""
    if view.grey is None:
        return ""
    pixels = np.nan_to_num(_flat(view, view.row.image).astype(np.float64), nan=view.grey[0])
    factors = tuple(math.ceil(size / MAX_PIXELS) for size in pixels.shape)
    pixels = _average(pixels, factors)
    low, high = view.grey
    shade = np.clip((pixels - low) / (high - low), 0.0, 1.0) if high > low else np.full(pixels.shape, 0.5)
    content = base64.b64encode(grey_png(np.rint(shade * 255).astype(np.uint8))).decode("ascii")
    width, height = (pixels.shape[axis] * factors[axis] * length for axis, length in ((1, step[0]), (0, step[1])))
    return (
        f'<image width="{_mm(width)}" height="{_mm(height)}" preserveAspectRatio="none" '
        f'href="data:image/png;base64,{content}"/>'
    )


def _average(pixels: npt.NDArray[np.float64], factors: tuple[int, ...]) -> npt.NDArray[np.float64]:
    """Averages blocks of pixels; the last ones are filled up with copies of the edge."""
    padding = [(0, -size % factor) for size, factor in zip(pixels.shape, factors, strict=True)]
    padded = np.pad(pixels, padding, mode="edge")
    rows, columns = (size // factor for size, factor in zip(padded.shape, factors, strict=True))
    blocks = padded.reshape(rows, factors[0], columns, factors[1])
    return np.asarray(blocks.mean(axis=(1, 3)), dtype=np.float64)


def _numbers(view: SliceView, reference: npt.NDArray[Any], prediction: npt.NDArray[Any]) -> str:
    """Numbers the largest part of each class in the reference, and of each class predicted where none of it is."""
    written = []
    for index in sorted({int(value) for value in np.unique([*np.unique(reference), *np.unique(prediction)])} - {0}):
        expected, predicted = reference == index, prediction == index
        parts, _ = ndimage.label(predicted)
        touched = np.unique(parts[expected])
        alone = predicted & ~np.isin(parts, touched)
        for role, mask in (("reference", expected), ("prediction", alone)):
            place = _widest_place(view, mask)
            if place is not None:
                written.append(
                    f'<span class="number {role}" style="left:{place[0]:.1%};top:{place[1]:.1%}">{index}</span>'
                )
    return "".join(written)


def _widest_place(view: SliceView, mask: npt.NDArray[np.bool_]) -> tuple[float, float] | None:
    """Gives the centre of the largest disc in a mask as parts of width and height; None where a number does not fit."""
    spacing = view.row.spacing_mm[view.plane.height], view.row.spacing_mm[view.plane.width]
    depth_mm = ndimage.distance_transform_edt(np.pad(mask, 1), sampling=spacing)[1:-1, 1:-1]
    if depth_mm.max(initial=0.0) < NUMBER_RADIUS * view.page_mm:
        return None
    row, column = np.unravel_index(int(depth_mm.argmax()), mask.shape)
    return (float(column) + 0.5) / mask.shape[1], (float(row) + 0.5) / mask.shape[0]
