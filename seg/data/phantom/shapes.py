"""Anatomy of a phantom: structures, tissues and textures at points in space, before any scanner sees them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]

CLASS_NAMES = ("background", "lobe_a", "lobe_b", "anterior", "posterior", "nodule", "cortex")
BODY_SEMIAXES_MM = (19.0, 23.0, 19.0)
ORGAN_CENTRE_MM = np.array([-3.0, -2.0, -1.0])
LOBE_OFFSETS_MM = np.array([[-2.5, -5.5, 2.0], [2.0, 4.5, -2.5], [-3.0, 3.5, 3.5], [2.0, -4.0, -3.5]])
LOBE_RADII_MM = np.array([7.5, 7.0, 6.5, 6.0])
LOBE_BLEND_MM = 1.5
ARC_RADIUS_MM = 11.5
LOBULES = 8
BODY_CELLS = 12
WAVES_PER_CELL = 3
WAVELENGTHS_MM = (3.9, 5.6, 2.7)
"""A ratio of 1.44 between neighbours stays apart under the zoom of augmentation and of the anatomy's own size."""

_GOLDEN = (1 + 5**0.5) / 2
DIRECTIONS = np.array(
    [(0, 1, _GOLDEN), (0, -1, _GOLDEN), (1, _GOLDEN, 0), (-1, _GOLDEN, 0), (_GOLDEN, 0, 1), (_GOLDEN, 0, -1)]
) / np.hypot(1, _GOLDEN)
"""The six axes of an icosahedron, unit vectors 63 degrees apart."""
TEXTURES_PER_KIND = 6


def texture_type(kind: int, number: int) -> tuple[int, int]:
    """Names one of the 18 textures by its direction and wavelength; each belongs to one kind of tissue.

    Kinds are 0 for lobe_a, 1 for lobe_b, 2 for the body, and have textures 0 to 5. The first two of a kind have wave
    directions that no other kind has among its first two. From the third on directions return with another wavelength
    under another kind: then neither tells the kind without the other.

    Returns:
        Index into ``DIRECTIONS`` and index into ``WAVELENGTHS_MM``.
    """
    pair, second = divmod(number, 2)
    return (kind + pair) % 3 + 3 * second, (pair + second) % 3


class Tissue(IntEnum):
    """What fills a point and so gives its mean intensity; several classes share a tissue."""

    AIR = 0
    BODY = 1
    ORGAN = 2
    DENSE = 3


@dataclass(frozen=True)
class Anatomy:
    """One phantom body sampled at N points.

    Attributes:
        tissue: Tissue index, u8 of shape (N,).
        label: Class index into ``CLASS_NAMES``, u8 of shape (N,).
        texture: Zero-mean texture with a mean square of about 1 inside body and organ, 0 elsewhere, of shape (N,).
    """

    tissue: NDArray[np.uint8]
    label: NDArray[np.uint8]
    texture: Floats


def draw_anatomy(points: Floats, textures: int, distractors: int, rng: np.random.Generator) -> Anatomy:
    """Lays out one body: a lobed organ, a cortex on it, a bent tube against it, nodules in it, and look-alikes.

    Lobules of ``lobe_a`` and ``lobe_b`` and the tissue of the body differ by texture (see :func:`texture_type`); the
    body's mean differs a little from the lobes'. Tube, cortex, nodules and look-alikes are of one tissue: position and
    shape tell them apart. The tube's two parts meet at its neck.

    Args:
        points: Points in the anatomical frame, of shape (3, N) in mm.
        textures: Number of textures of each of the three kinds of tissue, 1 to 6.
        distractors: Number of background structures made of the same tissue as the small classes; every second one
            is a vessel, which may pass through the organ, the others are balls outside it.
        rng: Source of everything.
    """
    tissue = np.full(points.shape[1], Tissue.AIR, np.uint8)
    label = np.zeros(points.shape[1], np.uint8)
    texture = np.zeros(points.shape[1], np.float32)
    layout, lookalikes = rng.spawn(2)
    lobes = ORGAN_CENTRE_MM + LOBE_OFFSETS_MM + layout.uniform(-1.2, 1.2, (4, 3))
    radii = LOBE_RADII_MM * layout.uniform(0.88, 1.12, 4)

    in_body = sum((points[i] / np.float32(BODY_SEMIAXES_MM[i])) ** 2 for i in range(3)) < 1
    depth = _blended_balls(points, lobes, radii)
    organ, body = in_body & (depth < 0), in_body & (depth >= 0)
    tissue[body], tissue[organ] = Tissue.BODY, Tissue.ORGAN
    middles = np.column_stack([layout.uniform(-0.8, 0.8, BODY_CELLS) * semi for semi in BODY_SEMIAXES_MM])
    _, texture[body] = _textured_cells(points[:, body], middles, (2,), textures, layout)
    middles = lobes[layout.permutation(LOBULES) % 4] + layout.uniform(-4.0, 4.0, (LOBULES, 3))
    cell_class, texture[organ] = _textured_cells(points[:, organ], middles, (0, 1), textures, layout)
    label[organ] = 1 + cell_class

    def fill(inside: Mask, name: str) -> None:
        tissue[inside], label[inside], texture[inside] = Tissue.DENSE, CLASS_NAMES.index(name), 0

    for inside in _lookalikes(points, depth, distractors, lookalikes):
        fill(inside & in_body, "background")
    side = points[2] - points[0] > np.float32(layout.uniform(-2.0, 4.0))
    fill(body & side & (depth < np.float32(layout.uniform(1.5, 2.2))), "cortex")
    anterior, posterior = _bent_tube(points, layout)
    fill(anterior & in_body, "anterior")
    fill(posterior & in_body, "posterior")
    for lobe in layout.permutation(4)[: layout.integers(2, 4)]:
        # Offset away from the tube, which lies on the organ's right.
        centre = lobes[lobe] + layout.uniform((-3.0, -2.0, -2.0), (0.0, 2.0, 2.0))
        fill(organ & (_distance(points, centre) < layout.uniform(1.8, 2.8)), "nodule")
    return Anatomy(tissue=tissue, label=label, texture=texture)


def _distance(points: Floats, centre: NDArray[np.float64]) -> Floats:
    squares = sum((points[i] - np.float32(centre[i])) ** 2 for i in range(3))
    return np.sqrt(np.asarray(squares, np.float32))


def _blended_balls(points: Floats, centres: NDArray[np.float64], radii: NDArray[np.float64]) -> Floats:
    """Returns the smooth minimum of the signed distances to balls, in mm: negative inside, about 0 on the surface."""
    total = np.zeros(points.shape[1], np.float32)
    for centre, radius in zip(centres, radii, strict=True):
        total += np.exp((np.float32(radius) - _distance(points, centre)) / np.float32(LOBE_BLEND_MM))
    return np.asarray(-np.float32(LOBE_BLEND_MM) * np.log(total + np.float32(1e-30)), np.float32)


def _textured_cells(
    points: Floats, middles: NDArray[np.float64], classes: tuple[int, ...], textures: int, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], Floats]:
    """Splits points among the nearest middles; cell c is of class ``classes[c mod len]`` and one of its textures."""
    distances = np.stack([_distance(points, middle) for middle in middles])
    nearest = distances.argmin(0)
    cell_class = np.asarray(classes, np.uint8)[np.arange(len(middles)) % len(classes)]
    texture = np.empty(points.shape[1], np.float32)
    for cell in range(len(middles)):
        direction, wave = texture_type(int(cell_class[cell]), int(rng.integers(textures)))
        jitter = rng.normal(0, 0.08, (WAVES_PER_CELL, 3))
        waves = 2 * np.pi / WAVELENGTHS_MM[wave] * (DIRECTIONS[direction] + jitter)
        phases = rng.uniform(0, 2 * np.pi, WAVES_PER_CELL)
        inside = nearest == cell
        x, y, z = points[:, inside]
        total = np.zeros(x.size, np.float32)
        for (kx, ky, kz), phase in zip(waves.astype(np.float32), phases.astype(np.float32), strict=True):
            total += np.cos(kx * x + ky * y + kz * z + phase)
        texture[inside] = total * np.float32(np.sqrt(2 / WAVES_PER_CELL))
    return cell_class[nearest], texture


def _bent_tube(points: Floats, rng: np.random.Generator) -> tuple[Mask, Mask]:
    """Returns the anterior and posterior part of a tube along an arc around the organ's right side.

    The head is thick, a neck follows, then a thinner body and a tail; the parts meet where the tube is thinnest.
    """
    tilt, height = rng.uniform(-0.25, 0.25), rng.uniform(-2.0, 2.0)
    start, stop = rng.uniform(-1.25, -0.95), rng.uniform(0.95, 1.25)
    neck = rng.uniform(0.45, 0.6)
    x, y, z = (points[i] - np.float32(ORGAN_CENTRE_MM[i]) for i in range(3))
    along = (np.arctan2(y, x) - np.float32(start)) / np.float32(stop - start)
    off_arc = np.hypot(np.hypot(x, y) - np.float32(ARC_RADIUS_MM), z - np.float32(tilt) * y - np.float32(height))
    knots = np.array([0, 0.06, 0.7 * neck, neck, neck + 0.12, (1 + neck) / 2 + 0.05, 0.96, 1])
    radii = np.array([0, 1.7, 2.9, 2.3, 3.5, 4.1, 3.0, 0]) * rng.uniform(0.9, 1.1)
    inside = off_arc < np.interp(along, knots, radii, left=0, right=0).astype(np.float32)
    return inside & (along >= np.float32(neck)), inside & (along < np.float32(neck))


def _lookalikes(points: Floats, depth: Floats, count: int, rng: np.random.Generator) -> list[Mask]:
    found = []
    for number in range(count):
        centre = np.array([rng.uniform(-0.75, 0.75) * semi for semi in BODY_SEMIAXES_MM])
        direction = rng.normal(size=3)
        direction /= np.sqrt((direction**2).sum())
        radius = np.float32(rng.uniform(1.6, 2.8))
        if number % 2:
            offset = [points[i] - np.float32(centre[i]) for i in range(3)]
            along = sum(np.float32(direction[i]) * offset[i] for i in range(3))
            across = np.sqrt(np.maximum(sum(o**2 for o in offset) - along**2, 0))
            found.append((across < radius * np.float32(0.7)) & (np.abs(along) < 14))
        else:
            found.append((_distance(points, centre) < radius) & (depth > np.float32(2.5)))
    return found
