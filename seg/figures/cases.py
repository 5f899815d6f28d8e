"""Pictures of cases: slices of a scan with its reference, and with a prediction whose errors are marked.

Arrays are oriented to RAS. Slices are shown as radiologists read them: the patient's right on the viewer's left, and
sagittal slices with the face to the left. Every slice carries the letters of its sides.
"""

from __future__ import annotations

import io
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from seg.data.cases import Case, Dataset
from seg.data.classes import ClassMap
from seg.data.geometry import corner_distance
from seg.data.volumes import Volume, read_classes, read_first_channel
from seg.errors import DataError, Problem
from seg.evaluation.scores import CaseScore
from seg.figures.ranking import rank_cases
from seg.files import write_bytes

LOG = logging.getLogger(__name__)

BASE_COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#CC79A7", "#D55E00", "#0072B2")
"""Colours of the first seven classes, which people with any colour vision tell apart on grey.

References:
    M. Okabe, K. Ito, Color Universal Design, 2008, https://jfly.uni-koeln.de/color/. The order is ours; black is left
    out.
"""

MARGIN_MM = 10.0
"""Least tissue shown around the structures; half their extent where that is more."""
MAX_SHIFT_VOXELS = 0.5
"""Largest shift of an image's grid from its label's, at a corner, at which labels lie on the image to the eye."""
GREY_PERCENTILES = (0.5, 99.5)
"""Percentiles of the shown values that become black and white."""
WIDTH, MAX_HEIGHT, GAP = 1800, 400, 10
"""Width of a picture, largest height of a slice, and space between slices, in pixels."""
OUTLINE, STRIPE, STRIPES_APART = 2, 2, 7
"""Width of a reference's outline and of a stripe in an error, and distance between stripes, in pixels."""
GROUND = 43
"""Brightness, in [0, 255], that stands for the scan where there is none."""
Box = tuple[slice, slice, slice]
Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class CaseFiles:
    """The files of a case: label maps on one grid, what their values mean, and its images, which may be none.

    The label lies on the grid of ``label_on`` where that is given, whatever its own header says.
    """

    prediction: Path
    label: Path
    images: tuple[Path, ...] = ()
    classes: ClassMap | None = None
    label_on: Path | None = None

    @classmethod
    def of(cls, case: Case, prediction: Path) -> CaseFiles:
        """Returns the files of a case of a data set, and a prediction of it.

        Raises:
            DataError: The case has no label.
        """
        if case.label is None:
            rule, remedy = "must have a label to be drawn", "add one to the data set"
            raise DataError(Problem(f"case {case.id}", "missing", rule, "none", remedy))
        return cls(
            prediction=prediction,
            label=case.label,
            images=case.images,
            classes=case.classes,
            label_on=case.label_on,
        )


@dataclass(frozen=True, kw_only=True)
class CaseView:
    """The volumes of a case that are drawn.

    Attributes:
        case_id: The case.
        image: One channel, shape (X, Y, Z); None where there is none to show.
        prediction: Integer label map of the same shape.
        reference: Integer label map of the same shape.
        spacing_mm: Distance between voxel centres along X, Y and Z, in mm.
        image_problem: Why an image that was given is not shown; empty otherwise.
    """

    case_id: str
    image: npt.NDArray[np.floating] | None
    prediction: npt.NDArray[np.integer]
    reference: npt.NDArray[np.integer]
    spacing_mm: tuple[float, float, float]
    image_problem: str = ""

    @property
    def wrong(self) -> npt.NDArray[np.bool_]:
        """The voxels where prediction and reference differ."""
        return np.asarray(self.prediction != self.reference)


class Plane(NamedTuple):
    """A direction of slicing: the array axes along the picture's width and height, and the letters of its sides.

    Width runs against the array axis in all three planes: RAS has right and anterior last, the picture has them left.
    """

    name: str
    normal: int
    width: int
    height: int
    letters: str  # left, right, bottom, top


PLANES = (Plane("axial", 2, 0, 1, "RLPA"), Plane("coronal", 1, 0, 2, "RLIS"), Plane("sagittal", 0, 1, 2, "APIS"))


@dataclass(frozen=True, kw_only=True)
class SlicePicture:
    """One slice of a case, drawn twice at the same size.

    Attributes:
        scan: The scan with the outlines of the reference, RGB of shape (height, width, 3), the top row first.
        result: The scan with the prediction filled and its errors striped, of the same shape.
        text: Says in words what the slice shows, for readers who do not see it.
    """

    scan: Pixels
    result: Pixels
    text: str


def read_case(case_id: str, files: CaseFiles, *, ignore_label: int | None) -> CaseView:
    """Reads the volumes of a case.

    An image that cannot be read, or lies on another grid, is logged and left out.

    Args:
        case_id: The case.
        files: Its files.
        ignore_label: Value of reference voxels that count for neither side: they become background in both maps.

    Raises:
        DataError: A label map cannot be read.
    """
    label = read_classes(files.label, classes=files.classes, on=files.label_on)
    prediction = read_classes(files.prediction, label.affine, files.classes)
    predicted, expected = (volume.array.astype(np.int32) for volume in (prediction, label))
    if ignore_label is not None:
        ignored = expected == ignore_label
        predicted[ignored], expected[ignored] = 0, 0
    image, problem = _read_image(files.images, label)
    if problem:
        LOG.warning("case %s is drawn without its image: %s", case_id, problem)
    return CaseView(
        case_id=case_id,
        image=image,
        prediction=predicted,
        reference=expected,
        spacing_mm=label.spacing_mm,
        image_problem=problem,
    )


def _read_image(paths: tuple[Path, ...], label: Volume) -> tuple[npt.NDArray[Any] | None, str]:
    """Returns the first channel of an image, or None and the reason why it cannot be shown."""
    if not paths:
        return None, ""
    try:
        image = read_first_channel(paths[0], like=label.affine)
    except DataError as error:
        return None, error.sentences[0]
    if image.array.shape != label.array.shape:
        return None, (
            f"image shape {image.array.shape} differs from label shape {label.array.shape}; "
            "give the image on the label's grid."
        )
    shift = corner_distance(image.array.shape, np.linalg.solve(label.affine, image.affine), np.eye(4))
    if shift > MAX_SHIFT_VOXELS:
        return None, (
            f"image affine differs from label affine by {shift:.3g} voxels at a corner, more than "
            f"{MAX_SHIFT_VOXELS:g}; give the image on the label's grid."
        )
    return image.array, ""


def class_colour(index: int) -> tuple[int, int, int]:
    """Returns the RGB colour of a class, 1 or more; each seven further classes are paler, then darker, then repeat."""
    shade, position = divmod(index - 1, len(BASE_COLOURS))
    code = BASE_COLOURS[position]
    colour = np.array([int(code[start : start + 2], 16) for start in (1, 3, 5)])
    mixed = (colour, 0.5 * colour + 127.5, 0.55 * colour)[shade % 3]
    red, green, blue = (round(float(value)) for value in mixed)
    return red, green, blue


def visible_box(views: Sequence[CaseView]) -> Box:
    """Returns the voxels to show: the structures of all views, which share a grid, with tissue around them."""
    mask = np.any([view.prediction + view.reference > 0 for view in views], axis=0)
    box = []
    for axis, (size, spacing_mm) in enumerate(zip(mask.shape, views[0].spacing_mm, strict=True)):
        hits = np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis})))
        first, last = (int(hits[0]), int(hits[-1])) if len(hits) else (0, size - 1)
        margin = math.ceil(max(MARGIN_MM / spacing_mm, 0.5 * (last - first + 1)))
        box.append(slice(max(0, first - margin), min(size, last + 1 + margin)))
    return box[0], box[1], box[2]


def fullest_slices(mask: npt.NDArray[np.bool_]) -> tuple[int, int, int]:
    """Returns, for each of `PLANES`, the slice that holds the most of a mask; the middle one of an empty mask."""
    areas = [mask.sum(axis=(plane.width, plane.height)) for plane in PLANES]
    first, second, third = (int(area.argmax()) if area.any() else len(area) // 2 for area in areas)
    return first, second, third


def draw_slices(view: CaseView, *, box: Box, positions: Sequence[int]) -> list[SlicePicture]:
    """Draws three slices of a case in the body's proportions, all at one scale.

    Args:
        view: The case.
        box: The voxels to show.
        positions: Index of the slice for each of `PLANES`.
    """
    scale = _pixels_per_mm(box, view.spacing_mm)
    grey = None if view.image is None else _to_grey(view.image, box)
    pictures = []
    for plane, position in zip(PLANES, positions, strict=True):
        size = [
            max(1, round((box[axis].stop - box[axis].start) * view.spacing_mm[axis] * scale))
            for axis in (plane.width, plane.height)
        ]
        maps = [_cut(array, box, plane, position) for array in (view.prediction, view.reference)]
        predicted, expected = (_enlarge(labels.astype(np.int32), size) for labels in maps)
        if grey is None:
            ground = np.full((size[1], size[0], 3), GROUND, np.uint8)
        else:
            shade = _enlarge(_cut(grey, (slice(None),) * 3, plane, position - box[plane.normal].start), size)
            ground = np.repeat(shade[..., None], 3, axis=-1)
        voxel_mm2 = view.spacing_mm[plane.width] * view.spacing_mm[plane.height]
        areas = [np.count_nonzero(mask) * voxel_mm2 for mask in (maps[1], maps[0], maps[0] != maps[1])]
        pictures.append(
            SlicePicture(
                scan=_write_letters(_paint(ground, expected, _is_outline(expected)), plane, position),
                result=_write_letters(_paint_result(ground, predicted, expected), plane, position),
                text=f"{plane.name} slice {position} of case {view.case_id}: the reference covers {areas[0]:.0f} mm², "
                f"the prediction {areas[1]:.0f} mm²; they differ on {areas[2]:.0f} mm².",
            )
        )
    return pictures


def is_flat(box: Box, spacing_mm: tuple[float, float, float]) -> bool:
    """Tells whether the coronal and the sagittal slice fit one above the other beside the axial one."""
    _, depth, height = ((side.stop - side.start) * step_mm for side, step_mm in zip(box, spacing_mm, strict=True))
    return bool(2 * height <= depth)


def _pixels_per_mm(box: Box, spacing_mm: tuple[float, float, float]) -> float:
    """Returns the scale at which two sets of the slices of a box fit beside one another."""
    x, y, z = ((side.stop - side.start) * step_mm for side, step_mm in zip(box, spacing_mm, strict=True))
    columns = (x, max(x, y)) if is_flat(box, spacing_mm) else (x, x, y)
    return float(min((WIDTH / 2 - GAP * (len(columns) + 2)) / sum(columns), MAX_HEIGHT / max(y, z)))


def _to_grey(image: npt.NDArray[Any], box: Box) -> Pixels:
    """Returns the shown part of an image as brightness; values that are not finite become black."""
    shown = np.asarray(image[box], dtype=np.float64)
    finite = shown[np.isfinite(shown)]
    low, high = np.percentile(finite, GREY_PERCENTILES) if finite.size else (0.0, 0.0)
    if high <= low:
        low, high = low - 1.0, low + 1.0  # grey
    with np.errstate(invalid="ignore"):
        brightness = np.nan_to_num(np.clip((shown - low) / (high - low), 0.0, 1.0))
    return np.asarray(np.rint(brightness * 255), dtype=np.uint8)


def _cut(array: npt.NDArray[Any], box: tuple[slice, ...], plane: Plane, position: int) -> npt.NDArray[Any]:
    """Returns a slice as it is seen: top row first, the patient's right or front on the left, (height, width)."""
    where: list[slice | int] = list(box)
    where[plane.normal] = position
    # The axes that are left stand in ascending order, and in every plane width is the lower one.
    return np.asarray(array[tuple(where)].T[::-1, ::-1])


def _enlarge(values: npt.NDArray[Any], size: Sequence[int]) -> npt.NDArray[Any]:
    """Resizes a slice: voxels stay sharp; where there are more voxels than pixels, brightness is averaged."""
    method = Image.Resampling.BOX if values.dtype == np.uint8 else Image.Resampling.NEAREST
    return np.asarray(Image.fromarray(np.ascontiguousarray(values)).resize((size[0], size[1]), method))


def _is_outline(labels: npt.NDArray[np.integer]) -> npt.NDArray[np.bool_]:
    """Tells which pixels lie at the inner edge of a class."""
    size = 2 * OUTLINE + 1
    lowest, highest = (extreme(labels, size) for extreme in (ndimage.minimum_filter, ndimage.maximum_filter))
    return np.asarray((lowest != highest) & (labels > 0))


def _paint(ground: Pixels, labels: npt.NDArray[np.integer], where: npt.NDArray[np.bool_]) -> Pixels:
    """Lays the colours of classes over a picture, opaque, so that a class has one colour on any tissue."""
    colours = [(0, 0, 0), *map(class_colour, range(1, int(labels.max(initial=0)) + 1))]
    return np.asarray(np.where(where[..., None], np.asarray(colours, dtype=np.uint8)[labels], ground))


def _paint_result(ground: Pixels, predicted: npt.NDArray[np.integer], expected: npt.NDArray[np.integer]) -> Pixels:
    """Fills the prediction, with black stripes where it is wrong and coloured stripes where a structure is missed."""
    rows, columns = np.indices(predicted.shape)
    wrong, diagonal = predicted != expected, (rows + columns) % STRIPES_APART
    filled = _paint(ground, predicted, predicted > 0)
    filled[wrong & (predicted > 0) & (diagonal < STRIPE)] = 0
    return _paint(filled, expected, wrong & (predicted == 0) & (diagonal >= STRIPE + 1))


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """Loads the font that comes with matplotlib, which has Latin, Greek and Cyrillic letters."""
    import matplotlib

    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size)


def _write_letters(pixels: Pixels, plane: Plane, position: int) -> Pixels:
    """Writes the patient's sides on the edges of a slice, and its name in the upper left corner."""
    picture = Image.fromarray(pixels)
    draw = ImageDraw.Draw(picture)
    width, height = picture.size
    places = ((4, height // 2), (width - 4, height // 2), (width // 2, height - 3), (width // 2, 3))
    for letter, place, anchor in zip(plane.letters, places, ("lm", "rm", "mb", "mt"), strict=True):
        draw.text(place, letter, "white", _font(18), anchor=anchor, stroke_width=2, stroke_fill="black")
    name = f"{plane.name} {position}"
    draw.text((5, 4), name, "white", _font(14), anchor="lt", stroke_width=2, stroke_fill="black")
    return np.asarray(picture)


def _join(pictures: Iterable[Pixels], axis: int) -> Pixels:
    """Puts pictures below one another (axis 0) or beside one another (axis 1) on white, with a gap between them."""
    parts = list(pictures)
    across = max(part.shape[1 - axis] for part in parts)
    padded = []
    for number, part in enumerate(parts, start=1):
        missing, gap = (0, across - part.shape[1 - axis]), (0, GAP if number < len(parts) else 0)
        padded.append(_pad(part, *((gap, missing) if axis == 0 else (missing, gap))))
    return np.concatenate(padded, axis=axis)


def _pad(picture: Pixels, rows: tuple[int, int], columns: tuple[int, int]) -> Pixels:
    return np.pad(picture, [rows, columns, (0, 0)], constant_values=255)


def draw_cases(titled: Sequence[tuple[str, CaseView]], class_names: Sequence[str]) -> bytes:
    """Draws cases below one another as a PNG, each in an axial, a coronal and a sagittal slice.

    On the left is the scan with the outlines of the reference, on the right the prediction with its errors. Slices are
    those with the largest foreground in the reference. Views of one case, such as predictions of several networks,
    show the same slices.

    Args:
        titled: One or more views, each with the line that stands above it.
        class_names: Names by class index, background first.
    """
    blocks: list[Pixels] = []
    for title, view in titled:
        key = (view.case_id, view.prediction.shape, view.spacing_mm)
        alike = [one for _, one in titled if (one.case_id, one.prediction.shape, one.spacing_mm) == key]
        reference = np.asarray(view.reference > 0)
        mask = reference if reference.any() else np.any([other.prediction > 0 for other in alike], axis=0)
        box = visible_box(alike)
        pictures = draw_slices(view, box=box, positions=fullest_slices(mask))
        sides = []
        for axial, coronal, sagittal in ([one.scan for one in pictures], [one.result for one in pictures]):
            flat = is_flat(box, view.spacing_mm)
            sides.append(_join((axial, _join((coronal, sagittal), 0)) if flat else (axial, coronal, sagittal), 1))
        sides[0] = _pad(sides[0], (0, 0), (0, GAP))
        blocks += [_text_line(title), _join(sides, 1)]
    blocks.append(_draw_legend(class_names))
    content = _join(blocks, 0)[:, : WIDTH - 2 * GAP]
    return to_png(_pad(content, (GAP, GAP), (GAP, WIDTH - GAP - content.shape[1])))


def to_png(pixels: Pixels) -> bytes:
    """Encodes a picture of shape (height, width, 3) as a PNG; equal pixels give equal bytes."""
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, format="PNG")
    return content.getvalue()


def _text_line(text: str, size: int = 17) -> Pixels:
    """Writes a line of black text on white."""
    font = _font(size)
    line = " ".join(text.split())
    picture = Image.new("RGB", (max(1, math.ceil(font.getlength(line))), size + 8), "white")
    ImageDraw.Draw(picture).text((0, 3), line, "black", font)
    return np.asarray(picture)


def legend(class_names: Sequence[str]) -> list[tuple[Pixels, str]]:
    """Returns a sample and a text for each colour and pattern; names by class index, background first, "" for none."""
    on, off = np.ones((18, 34), np.int32), np.zeros((18, 34), np.int32)
    ground = np.full((18, 34, 3), 128, np.uint8)
    edge = np.pad(on[4:-4, 4:-4], 4)
    return [
        *((_paint(ground, on * index, on > 0), name) for index, name in enumerate(class_names) if index and name),
        (_paint(ground, edge, _is_outline(edge)), "reference: outlined"),
        (_paint(ground, on, on > 0), "prediction: filled"),
        (_paint_result(ground, on, off), "labelled wrongly: striped black"),
        (_paint_result(ground, off, on), "missed: striped in the colour of its class"),
    ]


def _draw_legend(class_names: Sequence[str]) -> Pixels:
    """Draws the legend in as many lines as its texts need."""
    lines: list[list[Pixels]] = [[]]
    for sample, text in legend(class_names):
        entry = _pad(_join((sample, _text_line(text, 13)), 1), (0, 0), (0, GAP))
        if lines[-1] and sum(part.shape[1] + GAP for part in (*lines[-1], entry)) > WIDTH - 2 * GAP:
            lines.append([])
        lines[-1].append(entry)
    return _join((_join(line, 1) for line in lines), 0)


def case_title(case_id: str, dice: Mapping[int, float], class_names: Sequence[str], note: str = "") -> str:
    """Returns the line above a case: a note such as "worst", the case, and the Dice of its classes by index."""
    values = ", ".join(
        f"{class_names[index]} {'empty' if math.isnan(value) else format(value, '.3f')}"
        for index, value in sorted(dice.items())
    )
    return (f"{note}: " if note else "") + case_id + (f", Dice: {values}" if values else "")


def draw_predictions(
    path: Path, cases: Sequence[Case], predictions: Path, scores: Sequence[CaseScore], dataset: Dataset
) -> None:
    """Draws the worst, the median and the best case of a set over the first channel of their images.

    Args:
        path: The PNG, replaced.
        cases: The scored cases, one or more, each with a label.
        predictions: Folder of CASE.nii.gz label maps on the images' grids.
        scores: The scores of these cases; where none has a Dice, the first case is drawn.
        dataset: The data set, for the names of classes and the label value to ignore.

    Raises:
        DataError: A file cannot be read, or a case to be drawn has no label.
        RunError: The picture cannot be written.
    """
    by_id = {case.id: case for case in cases}
    chosen = {ranked.case_id: note for ranked, note in rank_cases(scores).extremes()} or {cases[0].id: ""}
    titled = []
    for case_id, note in chosen.items():
        files = CaseFiles.of(by_id[case_id], predictions / f"{case_id}.nii.gz")
        view = read_case(case_id, files, ignore_label=dataset.ignore_label)
        dice = {score.class_index: score.scores.dice for score in scores if score.case_id == case_id}
        titled.append((case_title(case_id, dice, dataset.score_names, note), view))
    write_bytes(path, draw_cases(titled, dataset.class_names))
