"""The configuration of one experiment: each field once, with its type, range, unit and meaning.

A field's default is the value used where a YAML file and the command line are silent. Rules between fields are in
:mod:`seg.config.rules`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StrictBool, StrictFloat, StrictInt, StrictStr
from pydantic.dataclasses import dataclass

from seg.config.fields import STRICT, AtLeastOne, Axis, NotNegative, PathText, Positive, Probability
from seg.config.network import NetworkConfig

SCHEMA_VERSION = 1
LARGEST_SEED = 2**32 - 1  # NumPy's legacy generators take no larger seed
Range = tuple[Positive, Positive]
Angle = Annotated[StrictFloat, Field(ge=0, le=180)]
Zoom = Annotated[StrictFloat, Field(gt=0, le=1)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CtConfig:
    """Fixed intensity window of a calibrated modality, one value per channel, in the image's own unit."""

    lower: tuple[StrictFloat, ...] = Field(
        description="Intensities below are clipped to it; nnU-Net takes the 0.5th percentile of foreground voxels."
    )
    upper: tuple[StrictFloat, ...] = Field(
        description="Intensities above are clipped to it; nnU-Net takes the 99.5th percentile."
    )
    mean: tuple[StrictFloat, ...] = Field(description="Subtracted after clipping.")
    std: tuple[Positive, ...] = Field(description="Divides after the subtraction.")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DataConfig:
    """Where cases come from and how a volume becomes the network's input."""

    root: PathText = Field(default="data/phantom", description="Folder of the data set.")
    layout: Literal["auto", "msd", "nnunet", "manifest"] = Field(
        default="auto",
        description="Layout of the folder: MSD, nnU-Net v2 raw, a manifest, or found out from its files.",
    )
    splits: PathText | None = Field(
        default=None,
        description="JSON file of folds; null takes splits_final.json in the root where present, else folds are made.",
    )
    folds: StrictInt = Field(
        default=5, ge=2, description="Number of folds made where no splits file and no fold column exist."
    )
    split_seed: StrictInt = Field(
        default=0, ge=0, description="Seed of the folds made; beside it, seeds vary training alone."
    )
    train_cases: StrictInt | None = Field(
        default=None,
        ge=1,
        description="Largest number of cases that each fold trains on: whole patients in an order that split_seed and "
        "the fold give, so that fewer cases are among the more; null takes all.",
    )
    patient_pattern: StrictStr | None = Field(
        default=None,
        description="Regular expression whose first group is the patient in a case id; cases of one patient stay on "
        "one side of a split.",
    )
    on_error: Literal["stop", "skip"] = Field(
        default="stop", description="Stop on faulty cases, or leave them out and name them."
    )
    spacing_mm: tuple[Positive, Positive, Positive] | None = Field(
        default=None, description="Voxel size (X, Y, Z) after resampling, in mm; null keeps each volume's own grid."
    )
    normalization: tuple[Literal["zscore", "ct", "none"], ...] = Field(
        default=("zscore",), description="Per channel (or one for all): zscore over the volume, ct window, or none."
    )
    ct: CtConfig | None = Field(default=None, description="Intensity window for channels normalised as ct.")
    cache: Literal["auto", "memory", "disk", "none"] = Field(
        default="auto", description="Where prepared volumes are kept; auto chooses by size and announces its choice."
    )
    cache_dir: PathText | None = Field(
        default=None,
        description="Folder of the disk cache; null is cache/ in the run directory, or beside fold_0, fold_1, ..., "
        "which share it.",
    )
    workers: StrictInt = Field(
        default=0, ge=0, description="Processes that prepare batches; 0 prepares them in the main process."
    )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PatchConfig:
    """How training patches are drawn."""

    size: tuple[AtLeastOne, AtLeastOne, AtLeastOne] = Field(
        default=(40, 48, 40), description="Patch size (X, Y, Z) in voxels, after resampling."
    )
    batch: StrictInt = Field(default=2, ge=1, description="Patches per step.")
    foreground_fraction: Probability = Field(
        default=0.33, description="Share of patches centred on a foreground voxel of a class drawn uniformly."
    )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SpatialConfig:
    """Random changes of geometry, drawn per patch."""

    probability: Probability = Field(default=0.8, description="Chance that a patch is deformed at all.")
    rotation_deg: tuple[Angle, Angle, Angle] = Field(
        default=(15.0, 15.0, 15.0), description="Largest rotation about the X, Y and Z axis, in degrees."
    )
    scale: Range = Field(default=(0.85, 1.2), description="Range of the zoom factor; one factor for all of scale_axes.")
    anisotropic_scale: StrictFloat = Field(
        default=0.0, ge=0, lt=1, description="Largest further change of the zoom of one of scale_axes, as a fraction."
    )
    scale_axes: tuple[Axis, ...] = Field(
        default=(0, 1, 2), description="Array axes (0 is X) that are zoomed; leave out the axis of thick slices."
    )
    shift: tuple[NotNegative, NotNegative, NotNegative] = Field(
        default=(0.0, 0.0, 0.0), description="Largest translation per axis, in voxels."
    )
    elastic_voxels: NotNegative = Field(
        default=0.0, description="Standard deviation of the smooth random displacement, in voxels; 0 leaves it out."
    )
    elastic_grid: StrictInt = Field(
        default=12,
        ge=2,
        description="Largest spacing of the control points of the displacement, in voxels; they are spread evenly from "
        "end to end of a patch, two at least.",
    )
    elastic_axes: tuple[Axis, ...] = Field(
        default=(0, 1, 2),
        description="Array axes (0 is X) along which voxels are displaced; leave out the axis of thick slices.",
    )
    mirror_axes: tuple[Axis, ...] = Field(
        default=(), description="Array axes (0 is X, left-right) that may be mirrored, each with probability 1/2."
    )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class IntensityConfig:
    """Random changes of intensity, drawn per patch; each has its own probability."""

    noise_probability: Probability = Field(default=0.1, description="Chance of Gaussian noise.")
    noise_std: NotNegative = Field(
        default=0.3, description="Largest standard deviation of the noise, in units of the normalised image."
    )
    blur_probability: Probability = Field(default=0.1, description="Chance of a Gaussian blur.")
    blur_sigma: Range = Field(default=(0.5, 1.0), description="Range of the blur's standard deviation, in voxels.")
    brightness_probability: Probability = Field(default=0.15, description="Chance of a multiplicative change.")
    brightness: Range = Field(default=(0.75, 1.25), description="Range of the factor.")
    contrast_probability: Probability = Field(
        default=0.15, description="Chance of a change of contrast about the mean, kept within the patch's range."
    )
    contrast: Range = Field(default=(0.75, 1.25), description="Range of the factor.")
    gamma_probability: Probability = Field(default=0.3, description="Chance of a gamma curve over the patch's range.")
    gamma: Range = Field(default=(0.7, 1.5), description="Range of the exponent.")
    low_resolution_probability: Probability = Field(default=0.0, description="Chance of a simulated coarser scan.")
    low_resolution: tuple[Zoom, Zoom] = Field(
        default=(0.5, 1.0), description="Range of the zoom down to which a patch is sampled and back."
    )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AugmentationConfig:
    """Batched augmentation of training patches."""

    spatial: SpatialConfig = Field(default_factory=SpatialConfig, description="Changes of geometry.")
    intensity: IntensityConfig = Field(default_factory=IntensityConfig, description="Changes of intensity.")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class LossConfig:
    """Soft Dice plus cross-entropy."""

    dice_weight: NotNegative = Field(default=1.0, description="Weight of the Dice term.")
    ce_weight: NotNegative = Field(default=1.0, description="Weight of the cross-entropy term.")
    batch_dice: StrictBool = Field(
        default=True, description="Whether Dice is taken over the batch as one volume instead of patch by patch."
    )
    include_background: StrictBool = Field(default=False, description="Whether class 0 counts in the Dice term.")
    smooth: Positive = Field(default=1e-5, description="Added to numerator and denominator of Dice, in voxels.")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class OptimizerConfig:
    """Optimiser and learning-rate schedule."""

    name: Literal["adamw", "sgd", "muon"] = Field(
        default="adamw",
        description="AdamW, SGD with Nesterov momentum, or Muon (AdamW where a parameter is no matrix).",
    )
    learning_rate: StrictFloat = Field(default=3e-3, gt=0, le=10, description="Peak learning rate.")
    weight_decay: NotNegative = Field(
        default=0.01, description="Decoupled (adamw, muon) or L2 (sgd) weight decay; norms and biases are exempt."
    )
    momentum: StrictFloat = Field(
        default=0.9, ge=0, lt=1, description="Momentum of sgd and muon (0.95 suits it), or beta1 of adamw."
    )
    schedule: Literal["cosine", "poly", "linear", "constant"] = Field(
        default="cosine", description="Shape of the decay to zero after the warm-up; constant does not decay."
    )
    warmup_steps: StrictInt = Field(default=50, ge=0, description="Optimiser steps of linear warm-up.")
    clip_norm: StrictFloat | None = Field(
        default=12.0, gt=0, description="Largest global gradient norm; null does not clip."
    )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TrainingConfig:
    """Length, precision and book-keeping of a run."""

    steps: StrictInt = Field(default=2000, ge=1, description="Optimiser steps of the whole run.")
    validate_every: StrictInt = Field(
        default=200, ge=1, description="Optimiser steps between validations, each of which also writes a checkpoint."
    )
    accumulate: StrictInt = Field(
        default=1, ge=1, description="Batches whose gradients are averaged for one optimiser step."
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        default="auto",
        description="Arithmetic of the forward pass; auto takes bf16 where the hardware computes it, and announces it.",
    )
    ema_decay: StrictFloat = Field(
        default=0.999,
        ge=0,
        lt=1,
        description="Decay of the moving average of the weights that is validated and kept; 0 turns it off.",
    )
    early_stop: StrictInt | None = Field(
        default=None,
        ge=1,
        description="Validations without a better Dice after which training stops; null never stops early. The cases "
        "that are scored then choose the step too, which is announced and recorded.",
    )
    init_from: PathText | None = Field(
        default=None,
        description="Run directory whose final weights are the initial ones where name and shape agree; null draws "
        "them from the seed.",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="Where to train; auto takes the GPU where there is one, and announces its choice."
    )
    progress: StrictBool = Field(default=True, description="Whether a progress bar is shown.")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class InferenceConfig:
    """Sliding-window prediction."""

    window: tuple[AtLeastOne, AtLeastOne, AtLeastOne] | None = Field(
        default=None, description="Window size (X, Y, Z) in voxels; null is the size of the training patches."
    )
    overlap: StrictFloat = Field(
        default=0.5, ge=0, lt=1, description="Share of a window that its neighbour covers again."
    )
    blend: Literal["gaussian", "constant"] = Field(
        default="gaussian", description="Weight of a window's voxels: a Gaussian about its centre, or all alike."
    )
    batch: StrictInt = Field(default=1, ge=1, description="Windows per forward pass.")
    tta: StrictBool = Field(
        default=False,
        description="Whether logits are averaged over mirrored copies, along the axes that training mirrored "
        "(test-time augmentation).",
    )
    whole_up_to: StrictInt = Field(
        default=0,
        ge=0,
        description="In prediction, volumes of up to this many voxels, padded to multiples of the network's total "
        "stride, pass as one window; 0 always slides windows of the given size.",
    )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PostprocessingConfig:
    """Clean-up of predicted label maps; voxels that are removed become background."""

    largest_component: tuple[StrictStr, ...] = Field(
        default=(),
        description="Names of classes of which only the largest connected component (26 neighbours) is kept.",
    )
    min_volume_ml: tuple[NotNegative, ...] = Field(
        default=(),
        description="Smallest component of a class that is kept, in ml to the nearest voxel: a list of one number for "
        "all foreground classes, as in [0.5], or of one for each in the order of the data set; empty keeps all.",
    )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class EvaluationConfig:
    """Scores of a finished run."""

    nsd_tolerance_mm: Positive = Field(default=1.0, description="Tolerance of the normalised surface Dice, in mm.")
    bootstrap_samples: StrictInt = Field(
        default=2000, ge=100, description="Resamples of patients behind each confidence interval."
    )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ExperimentConfig:
    """Everything that a run depends on, beside the data and the code."""

    schema_version: StrictInt = Field(
        default=SCHEMA_VERSION,
        ge=1,
        le=SCHEMA_VERSION,
        description="Version of this layout; a newer version is refused.",
    )
    name: StrictStr = Field(
        default="experiment", description="Name of the experiment, part of the default run directory."
    )
    seed: StrictInt = Field(
        default=0, ge=0, le=LARGEST_SEED, description="Seed of initial weights, data order, sampling and augmentation."
    )
    fold: StrictInt = Field(default=0, ge=0, description="Fold whose validation cases are held out.")
    data: DataConfig = Field(default_factory=DataConfig, description="Cases and their preparation.")
    patches: PatchConfig = Field(default_factory=PatchConfig, description="Sampling of training patches.")
    augmentation: AugmentationConfig = Field(
        default_factory=AugmentationConfig, description="Random changes of training patches."
    )
    network: NetworkConfig = Field(default_factory=NetworkConfig, description="Architecture.")
    loss: LossConfig = Field(default_factory=LossConfig, description="Training loss.")
    optimizer: OptimizerConfig = Field(default_factory=OptimizerConfig, description="Optimiser and schedule.")
    training: TrainingConfig = Field(default_factory=TrainingConfig, description="Length, precision, checkpoints.")
    inference: InferenceConfig = Field(default_factory=InferenceConfig, description="Sliding window.")
    postprocessing: PostprocessingConfig = Field(
        default_factory=PostprocessingConfig, description="Clean-up of predictions."
    )
    evaluation: EvaluationConfig = Field(default_factory=EvaluationConfig, description="Scores.")
