"""Strides and kernels per stage, from patch size and voxel spacing."""

from __future__ import annotations

from dataclasses import dataclass

Size = tuple[int, int, int]
Triple = tuple[float, float, float]

MIN_EDGE = 4
MAX_STAGES = 6
SPACING_FACTOR = 2.0


@dataclass(frozen=True, kw_only=True)
class Topology:
    """Stride (1, or 2 below the first stage) and convolution kernel (1 or 3) of a U-Net by stage and axis."""

    strides: tuple[Size, ...]
    kernel_sizes: tuple[Size, ...]

    @property
    def divisors(self) -> Size:
        """Product of the strides per axis: what a patch's edges must be multiples of."""
        x = y = z = 1
        for stride in self.strides:
            x, y, z = x * stride[0], y * stride[1], z * stride[2]
        return x, y, z


def plan_topology(size: Size, spacing_mm: Triple, limits: Size | None = None) -> Topology:
    """Halves axes while they are long enough and not much coarser than the finest one.

    At each stage an axis is halved if at least twice 4 voxels are left of it and its spacing, as it is at that stage,
    is below twice the finest spacing among such axes; a single axis left over only if at least three times 4 voxels
    are left. A kernel is 1 along an axis until its spacing is below twice that finest one, then 3 for all stages below;
    the bottom has 3 everywhere. An axis of fewer than 3 voxels keeps kernel 1.

    Args:
        size: Patch size in voxels, before it is rounded up to the divisors.
        spacing_mm: Voxel size per axis, in mm, > 0.
        limits: Length per axis below which pooling counts, in voxels, where it is less than the patch's: the length of
            the shortest volume for an axis that must not be pooled away. Null takes the patch's.

    Returns:
        Two to six stages: where no axis is long enough to be halved, the longest one is, once.

    References:
        Isensee, Jaeger, Kohl, Petersen, Maier-Hein. nnU-Net: a self-configuring method for deep learning-based
        biomedical image segmentation. 2021. doi:10.1038/s41592-020-01008-z. Deviations: two to
        six stages, ``limits``, kernel 1 along axes of fewer than 3 voxels, and kernels that look at the finest spacing
        among the axes that can be halved, so that a short axis does not flatten the kernels along long ones.
    """
    length = [min(edge, limit) for edge, limit in zip(size, limits or size, strict=True)]
    spacing = list(spacing_mm)
    kernel = [1, 1, 1]
    strides: list[Size] = [(1, 1, 1)]
    kernels: list[Size] = []
    while True:
        finest = _finest(length, spacing)
        kernel = [3 if now == 3 or mm / finest < SPACING_FACTOR else 1 for now, mm in zip(kernel, spacing, strict=True)]
        kernels.append(_along_long_axes(kernel, size))
        halved = _halved_axes(length, spacing, first=len(strides) == 1)
        if not halved or len(strides) == MAX_STAGES:
            break
        for axis in halved:
            length[axis] = (length[axis] + 1) // 2
            spacing[axis] *= 2
        x, y, z = (2 if axis in halved else 1 for axis in range(3))
        strides.append((x, y, z))
    kernels[-1] = _along_long_axes([3, 3, 3], size)
    return Topology(strides=tuple(strides), kernel_sizes=tuple(kernels))


def round_up(size: Size, divisors: Size) -> Size:
    """Returns the smallest size, in voxels, that holds ``size`` and that the divisors divide."""
    x, y, z = (-(-edge // divisor) * divisor for edge, divisor in zip(size, divisors, strict=True))
    return x, y, z


def _halved_axes(length: list[int], spacing: list[float], *, first: bool) -> list[int]:
    finest = _finest(length, spacing)
    chosen = [axis for axis in _long_axes(length) if spacing[axis] / finest < SPACING_FACTOR]
    if first:
        return chosen or [length.index(max(length))]
    return [] if len(chosen) == 1 and length[chosen[0]] < 3 * MIN_EDGE else chosen


def _finest(length: list[int], spacing: list[float]) -> float:
    return min(spacing[axis] for axis in _long_axes(length) or range(3))


def _long_axes(length: list[int]) -> list[int]:
    return [axis for axis in range(3) if length[axis] >= 2 * MIN_EDGE]


def _along_long_axes(kernel: list[int], size: Size) -> Size:
    x, y, z = (edge if length >= 3 else 1 for edge, length in zip(kernel, size, strict=True))
    return x, y, z
