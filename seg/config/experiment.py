"""The configuration of one experiment: each field once, with its type, range, unit and meaning.

A field's default is the value used where a YAML file and the command line are silent. Rules between fields are in
:mod:`seg.config.rules`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, StrictBool, StrictFloat, StrictInt, StrictStr
from pydantic.dataclasses import dataclass

from seg.config.fields import STRICT, AtLeastOne, Axis, NotNegative, PathText, Positive, Probability, setting
from seg.config.network import NetworkConfig

CONFIG_VERSION = 1
LARGEST_SEED = 2**32 - 1  # NumPy's legacy generators take no larger seed
DeviceName = Literal["auto", "cpu", "cuda", "mps"]
"""Where to compute; mps is the GPU of an Apple computer."""
Precision = Literal["fp32", "bf16"]
"""Arithmetic of a forward pass."""
PrecisionName = Literal["auto", "fp32", "bf16"]
"""What is asked for: auto is bf16 where the hardware computes it."""
MemoryFormat = Literal["channels_last_3d", "contiguous"]
"""Layout of features in memory, by torch's names."""
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

    root: PathText = setting("data/phantom", "Folder of the data set.")
    layout: Literal["auto", "msd", "nnunet", "manifest"] = setting(
        "auto", "Layout of the folder: MSD, nnU-Net v2 raw, a manifest, or found out from its files."
    )
    splits: PathText | None = setting(
        None, "JSON file of folds; null takes splits_final.json in the root where present, else folds are made."
    )
    folds: StrictInt = setting(5, "Number of folds made where no splits file and no fold column exist.", ge=2)
    split_seed: StrictInt = setting(0, "Seed of the folds made; beside it, seeds vary training alone.", ge=0)
    train_cases: StrictInt | None = setting(
        None,
        "Largest number of cases that each fold trains on: whole patients in an order that split_seed and the fold "
        "give, so that fewer cases are among the more; null takes all.",
        ge=1,
    )
    classes: tuple[StrictStr, ...] | None = setting(
        None,
        "Names of the classes to train and predict, as the data set names them; the others are background, in files "
        "that stay as they are. Null takes all.",
    )
    patient_pattern: StrictStr | None = setting(
        None,
        "Regular expression whose first group is the patient in a case id; cases of one patient stay on one side "
        "of a split.",
    )
    label_grid: Literal["own", "image"] = setting(
        "own",
        "Where a label lies: where its own header says, which must be the image's grid, or on the grid of the image's "
        "first file, whatever its own header says; it must have that file's shape.",
    )
    nan: Literal["refuse", "background"] = setting(
        "refuse",
        "What voxels that are not a number are: a fault of the image, or background, with the lowest value of their "
        "channel in the scan.",
    )
    on_error: Literal["stop", "skip"] = setting("stop", "Stop on faulty cases, or leave them out and name them.")
    spacing_mm: tuple[Positive, Positive, Positive] | None = setting(
        None, "Voxel size (X, Y, Z) after resampling, in mm; null keeps each volume's own grid."
    )
    normalization: tuple[Literal["zscore", "ct", "none"], ...] = setting(
        ("zscore",), "Per channel (or one for all): zscore over the volume, ct window, or none."
    )
    ct: CtConfig | None = setting(None, "Intensity window for channels normalised as ct.")
    cache: Literal["auto", "memory", "disk", "none"] = setting(
        "auto", "Where prepared volumes are kept; auto chooses by size and announces its choice."
    )
    cache_dir: PathText | None = setting(
        None,
        "Folder of the disk cache; null is cache/ in the run directory, or beside fold_0, fold_1, ..., which share it.",
    )
    workers: StrictInt = setting(
        0, "Processes that prepare batches, at most one for each core; 0 prepares them in the main process.", ge=0
    )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PatchConfig:
    """How training patches are drawn."""

    size: tuple[AtLeastOne, AtLeastOne, AtLeastOne] = setting(
        (40, 48, 40), "Patch size (X, Y, Z) in voxels, after resampling."
    )
    batch: StrictInt = setting(2, "Patches per step.", ge=1)
    foreground_fraction: Probability = setting(
        0.33, "Share of patches centred on a foreground voxel of a class drawn uniformly."
    )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SpatialConfig:
    """Random changes of geometry, drawn per patch."""

    probability: Probability = setting(0.8, "Chance that a patch is deformed at all.")
    rotation_deg: tuple[Angle, Angle, Angle] = setting(
        (15.0, 15.0, 15.0), "Largest rotation about the X, Y and Z axis, in degrees."
    )
    scale: Range = setting((0.85, 1.2), "Range of the zoom factor; one factor for all of scale_axes.")
    anisotropic_scale: StrictFloat = setting(
        0.0, "Largest further change of the zoom of one of scale_axes, as a fraction.", ge=0, lt=1
    )
    scale_axes: tuple[Axis, ...] = setting(
        (0, 1, 2), "Array axes (0 is X) that are zoomed; leave out the axis of thick slices."
    )
    shift: tuple[NotNegative, NotNegative, NotNegative] = setting(
        (0.0, 0.0, 0.0), "Largest translation per axis, in voxels."
    )
    elastic_voxels: NotNegative = setting(
        0.0, "Standard deviation of the smooth random displacement, in voxels; 0 leaves it out."
    )
    elastic_grid: StrictInt = setting(
        12,
        "Largest spacing of the control points of the displacement, in voxels; they are spread evenly from end to "
        "end of a patch, two at least.",
        ge=2,
    )
    elastic_axes: tuple[Axis, ...] = setting(
        (0, 1, 2), "Array axes (0 is X) along which voxels are displaced; leave out the axis of thick slices."
    )
    mirror_axes: tuple[Axis, ...] = setting(
        (), "Array axes (0 is X, left-right) that may be mirrored, each with probability 1/2."
    )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class IntensityConfig:
    """Random changes of intensity, drawn per patch; each has its own probability."""

    noise_probability: Probability = setting(0.1, "Chance of Gaussian noise.")
    noise_std: NotNegative = setting(0.3, "Largest standard deviation of the noise, in units of the normalised image.")
    blur_probability: Probability = setting(0.1, "Chance of a Gaussian blur.")
    blur_sigma: Range = setting((0.5, 1.0), "Range of the blur's standard deviation, in voxels.")
    brightness_probability: Probability = setting(0.15, "Chance of a multiplicative change.")
    brightness: Range = setting((0.75, 1.25), "Range of the factor.")
    contrast_probability: Probability = setting(
        0.15, "Chance of a change of contrast about the mean, kept within the patch's range."
    )
    contrast: Range = setting((0.75, 1.25), "Range of the factor.")
    gamma_probability: Probability = setting(0.3, "Chance of a gamma curve over the patch's range.")
    gamma: Range = setting((0.7, 1.5), "Range of the exponent.")
    low_resolution_probability: Probability = setting(0.0, "Chance of a simulated coarser scan.")
    low_resolution: tuple[Zoom, Zoom] = setting(
        (0.5, 1.0), "Range of the zoom down to which a patch is sampled and back."
    )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AugmentationConfig:
    """Batched augmentation of training patches."""

    spatial: SpatialConfig = Field(default_factory=SpatialConfig, description="Changes of geometry.")
    intensity: IntensityConfig = Field(default_factory=IntensityConfig, description="Changes of intensity.")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class LossConfig:
    """Soft Dice plus cross-entropy."""

    dice_weight: NotNegative = setting(1.0, "Weight of the Dice term.")
    ce_weight: NotNegative = setting(1.0, "Weight of the cross-entropy term.")
    batch_dice: StrictBool = setting(
        True, "Whether Dice is taken over the batch as one volume instead of patch by patch."
    )
    include_background: StrictBool = setting(False, "Whether class 0 counts in the Dice term.")
    smooth: Positive = setting(1e-5, "Added to numerator and denominator of Dice, in voxels.")
    class_weights: tuple[NotNegative, ...] = setting(
        (),
        "Weight of each class in the cross-entropy term, the background first: the mean over voxels is weighted by "
        "the class of the label. Empty weighs all alike.",
    )
    focal_gamma: NotNegative = setting(
        0.0,
        "Exponent of the focal loss: the cross-entropy of a voxel counts (1 - p) to this power, p the probability of "
        "its class; 0 is plain cross-entropy, 2 is usual.",
    )
    top_k: StrictFloat = setting(
        1.0,
        "Share of voxels of a batch, those with the largest cross-entropy, of which the term is the mean; 1 takes all, "
        "0.1 is usual.",
        gt=0,
        le=1,
    )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class OptimizerConfig:
    """Optimiser and learning-rate schedule."""

    name: Literal["adamw", "sgd", "muon"] = setting(
        "adamw", "AdamW, SGD with Nesterov momentum, or Muon (AdamW where a parameter is no matrix)."
    )
    learning_rate: StrictFloat = setting(3e-3, "Peak learning rate.", gt=0, le=10)
    weight_decay: NotNegative = setting(
        0.01, "Decoupled (adamw, muon) or L2 (sgd) weight decay; norms and biases are exempt."
    )
    momentum: StrictFloat = setting(0.9, "Momentum of sgd and muon (0.95 suits it), or beta1 of adamw.", ge=0, lt=1)
    schedule: Literal["cosine", "poly", "linear", "constant"] = setting(
        "cosine", "Shape of the decay to zero after the warm-up; constant does not decay."
    )
    warmup_steps: StrictInt = setting(50, "Optimiser steps of linear warm-up.", ge=0)
    clip_norm: StrictFloat | None = setting(12.0, "Largest global gradient norm; null does not clip.", gt=0)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TrainingConfig:
    """Length, precision and book-keeping of a run."""

    steps: StrictInt = setting(2000, "Optimiser steps of the whole run, a multiple of validate_every.", ge=1)
    validate_every: StrictInt = setting(
        200, "Optimiser steps between validations, each of which also writes a checkpoint.", ge=1
    )
    accumulate: StrictInt = setting(1, "Batches whose gradients are averaged for one optimiser step.", ge=1)
    precision: PrecisionName = setting(
        "auto", "Arithmetic of the forward pass; auto takes bf16 where the hardware computes it, and announces it."
    )
    ema_decay: StrictFloat = setting(
        0.999, "Decay of the moving average of the weights that is validated and kept; 0 turns it off.", ge=0, lt=1
    )
    early_stop: StrictInt | None = setting(
        None,
        "Validations without a better Dice after which training stops; null never stops early. The cases that are "
        "scored then choose the step too, which is announced and recorded.",
        ge=1,
    )
    runs_dir: PathText | None = setting(
        None,
        "Folder of runs (NAME/seed_S/fold_N) and studies (ablation/NAME) whose directories no option names; null is "
        "runs in the working directory.",
    )
    init_from: PathText | None = setting(
        None,
        "Run directory whose final weights are the initial ones where name and shape agree, at least half of the "
        "tensors; null draws them from the seed.",
    )
    score_seen: StrictBool = setting(
        False,
        "Whether held-out cases are scored that the initial weights, or those they came from, were trained on; every "
        "score that counts such cases is marked.",
    )
    device: DeviceName = setting(
        "auto",
        "Where to train; auto takes a GPU where there is one, mps being Apple's, and announces its choice.",
    )
    memory_format: MemoryFormat = setting(
        "channels_last_3d",
        "Layout of features on a GPU, which changes speed alone; a processor always computes in channels_last_3d.",
    )
    progress: StrictBool = setting(True, "Whether a progress bar is shown.")

    @property
    def runs_root(self) -> Path:
        """The folder that holds runs and studies whose directories no option names."""
        return Path(self.runs_dir or "runs")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class InferenceConfig:
    """Sliding-window prediction."""

    window: tuple[AtLeastOne, AtLeastOne, AtLeastOne] | None = setting(
        None, "Window size (X, Y, Z) in voxels; null is the size of the training patches."
    )
    overlap: StrictFloat = setting(0.5, "Share of a window that its neighbour covers again.", ge=0, lt=1)
    blend: Literal["gaussian", "constant"] = setting(
        "gaussian", "Weight of a window's voxels: a Gaussian about its centre, or all alike."
    )
    batch: StrictInt = setting(1, "Windows per forward pass.", ge=1)
    tta: StrictBool = setting(
        False,
        "Whether logits are averaged over mirrored copies, along the axes that training mirrored (test-time "
        "augmentation).",
    )
    whole_up_to: StrictInt = setting(
        0,
        "In prediction, volumes of up to this many voxels, padded to multiples of the network's total stride, pass "
        "as one window; 0 always slides windows of the given size.",
        ge=0,
    )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PostprocessingConfig:
    """Clean-up of predicted label maps; voxels that are removed become background."""

    largest_component: tuple[StrictStr, ...] | None = setting(
        None,
        "Names of classes of which only the largest connected component (26 neighbours) is kept; empty keeps all. "
        "Null leaves scores as they are, finds the classes that it helps on the held-out cases, and predicts with "
        "these.",
    )
    min_volume_ml: tuple[NotNegative, ...] = setting(
        (),
        "Smallest component of a class that is kept, in ml to the nearest voxel: a list of one number for all "
        "foreground classes, as in [0.5], or of one for each in the order of the data set; empty keeps all.",
    )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class EvaluationConfig:
    """Scores of a finished run."""

    nsd_tolerance_mm: Positive = setting(1.0, "Tolerance of the normalised surface Dice, in mm.")
    bootstrap_samples: StrictInt = setting(2000, "Resamples of patients behind each confidence interval.", ge=100)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ExperimentConfig:
    """Everything that a run depends on, beside the data and the code."""

    schema_version: StrictInt = setting(
        CONFIG_VERSION, "Version of this layout; a newer version is refused.", ge=1, le=CONFIG_VERSION
    )
    name: StrictStr = setting("experiment", "Name of the experiment, part of the default run directory.")
    seed: StrictInt = setting(
        0, "Seed of initial weights, data order, sampling and augmentation.", ge=0, le=LARGEST_SEED
    )
    fold: StrictInt | None = setting(
        0,
        "Fold whose validation cases are held out; null trains a final model on all labelled cases, which has no "
        "scores.",
        ge=0,
    )
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

    @property
    def window(self) -> tuple[int, int, int]:
        """Size of a window of prediction (X, Y, Z) in voxels: that of a training patch where none is given."""
        return self.inference.window or self.patches.size
