"""Configuration of data: where cases lie, how they are prepared, sampled and augmented."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class CtConfig:
    """Fixed intensity window of a calibrated modality, one value per channel.

    Attributes:
        lower: Intensities below are clipped to it (0.5th percentile of foreground voxels in nnU-Net's rule), in the
            image's own unit.
        upper: Intensities above are clipped to it (99.5th percentile), in the image's own unit.
        mean: Subtracted after clipping, in the image's own unit.
        std: Divides after the subtraction, in the image's own unit, > 0.
    """

    lower: tuple[float, ...]
    upper: tuple[float, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where cases come from and how a volume becomes the network's input.

    Attributes:
        root: Folder of the data set.
        layout: Layout of the folder: MSD, nnU-Net v2 raw, a manifest, or found out from its files.
        splits: JSON file of folds; null takes splits_final.json in the root where present, else folds are made.
        folds: Number of folds made where no splits file and no fold column exist, >= 2.
        split_seed: Seed of the folds made, >= 0; beside it, seeds vary training alone.
        train_cases: Largest number of cases that each fold trains on, >= 1: whole patients in an order that split_seed
            and the fold give, so that fewer cases are among the more; null takes all.
        patient_pattern: Regular expression whose first group is the patient in a case id; cases of one patient stay
            on one side of a split.
        on_error: Stop on faulty cases, or leave them out and name them.
        spacing_mm: Voxel size (X, Y, Z) after resampling, in mm; null keeps each volume's own grid.
        normalization: Per channel (or one for all): zscore over the volume, ct window, or none.
        ct: Intensity window for channels normalised as ct.
        cache: Where prepared volumes are kept; auto chooses by size and announces it.
        cache_dir: Folder of the disk cache; null is cache/ in the run directory, or beside fold_0, fold_1, ..., which
            share it.
        workers: Processes that prepare batches; 0 prepares them in the main process.
    """

    root: str = "data/phantom"
    layout: Literal["auto", "msd", "nnunet", "manifest"] = "auto"
    splits: str | None = None
    folds: int = 5
    split_seed: int = 0
    train_cases: int | None = None
    patient_pattern: str | None = None
    on_error: Literal["stop", "skip"] = "stop"
    spacing_mm: tuple[float, float, float] | None = None
    normalization: tuple[Literal["zscore", "ct", "none"], ...] = ("zscore",)
    ct: CtConfig | None = None
    cache: Literal["auto", "memory", "disk", "none"] = "auto"
    cache_dir: str | None = None
    workers: int = 0


@dataclass(frozen=True, kw_only=True)
class PatchConfig:
    """How training patches are drawn.

    Attributes:
        size: Patch size (X, Y, Z) in voxels, after resampling.
        batch: Patches per step.
        foreground_fraction: Share of patches centred on a foreground voxel of a class drawn uniformly, in [0, 1].
    """

    size: tuple[int, int, int] = (40, 48, 40)
    batch: int = 2
    foreground_fraction: float = 0.33


@dataclass(frozen=True, kw_only=True)
class SpatialConfig:
    """Random changes of geometry, drawn per patch.

    Attributes:
        probability: Chance that a patch is deformed at all, in [0, 1].
        rotation_deg: Largest rotation about the X, Y and Z axis, in degrees.
        scale: Range of the zoom factor, > 0; one factor for all of scale_axes.
        anisotropic_scale: Largest further change of the zoom of one of scale_axes, as a fraction.
        scale_axes: Array axes (0 is X) that are zoomed; leave out the axis of thick slices.
        shift: Largest translation per axis, in voxels.
        elastic_voxels: Standard deviation of the smooth random displacement, in voxels; 0 leaves it out.
        elastic_grid: Largest spacing of the control points of the displacement, in voxels; they are spread evenly from
            end to end of a patch, two at least.
        elastic_axes: Array axes (0 is X) along which voxels are displaced; leave out the axis of thick slices.
        mirror_axes: Array axes (0 is X, left-right) that may be mirrored, each with probability 1/2.
    """

    probability: float = 0.8
    rotation_deg: tuple[float, float, float] = (15.0, 15.0, 15.0)
    scale: tuple[float, float] = (0.85, 1.2)
    anisotropic_scale: float = 0.0
    scale_axes: tuple[int, ...] = (0, 1, 2)
    shift: tuple[float, float, float] = (0.0, 0.0, 0.0)
    elastic_voxels: float = 0.0
    elastic_grid: int = 12
    elastic_axes: tuple[int, ...] = (0, 1, 2)
    mirror_axes: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class IntensityConfig:
    """Random changes of intensity, drawn per patch; each has its own probability in [0, 1].

    Attributes:
        noise_probability: Chance of Gaussian noise.
        noise_std: Largest standard deviation of the noise, in units of the normalised image.
        blur_probability: Chance of a Gaussian blur.
        blur_sigma: Range of the blur's standard deviation, in voxels.
        brightness_probability: Chance of a multiplicative change.
        brightness: Range of the factor.
        contrast_probability: Chance of a change of contrast about the mean, kept within the patch's range.
        contrast: Range of the factor.
        gamma_probability: Chance of a gamma curve over the patch's range.
        gamma: Range of the exponent.
        low_resolution_probability: Chance of a simulated coarser scan.
        low_resolution: Range of the zoom down to which a patch is sampled and back.
    """

    noise_probability: float = 0.1
    noise_std: float = 0.3
    blur_probability: float = 0.1
    blur_sigma: tuple[float, float] = (0.5, 1.0)
    brightness_probability: float = 0.15
    brightness: tuple[float, float] = (0.75, 1.25)
    contrast_probability: float = 0.15
    contrast: tuple[float, float] = (0.75, 1.25)
    gamma_probability: float = 0.3
    gamma: tuple[float, float] = (0.7, 1.5)
    low_resolution_probability: float = 0.0
    low_resolution: tuple[float, float] = (0.5, 1.0)


@dataclass(frozen=True, kw_only=True)
class AugmentationConfig:
    """Batched augmentation of training patches.

    Attributes:
        spatial: Changes of geometry.
        intensity: Changes of intensity.
    """

    spatial: SpatialConfig = field(default_factory=SpatialConfig)
    intensity: IntensityConfig = field(default_factory=IntensityConfig)
