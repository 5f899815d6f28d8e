"""The configuration of one whole experiment."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from seg.config.data import AugmentationConfig, DataConfig, PatchConfig
from seg.config.network import NetworkConfig
from seg.config.training import LossConfig, OptimizerConfig, TrainingConfig

SCHEMA_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class InferenceConfig:
    """Sliding-window prediction.

    Attributes:
        window: Window size (X, Y, Z) in voxels; null is the size of the training patches.
        overlap: Share of a window that its neighbour covers again, in [0, 1).
        blend: Weight of a window's voxels: a Gaussian about its centre, or all alike.
        batch: Windows per forward pass, >= 1.
        tta: Whether logits are averaged over mirrored copies, along the axes that training mirrored (test-time
            augmentation).
        whole_up_to: In prediction, volumes of up to this many voxels, padded to multiples of the network's total
            stride, pass as one window; 0 always slides windows of the given size.
    """

    window: tuple[int, int, int] | None = None
    overlap: float = 0.5
    blend: Literal["gaussian", "constant"] = "gaussian"
    batch: int = 1
    tta: bool = False
    whole_up_to: int = 0


@dataclass(frozen=True, kw_only=True)
class PostprocessingConfig:
    """Clean-up of predicted label maps; voxels that are removed become background.

    Attributes:
        largest_component: Names of classes of which only the largest connected component (26 neighbours) is kept.
        min_volume_ml: Components of a class that are smaller are removed, in ml; one number for all foreground
            classes or one for each in the order of the data set; empty keeps all.
    """

    largest_component: tuple[str, ...] = ()
    min_volume_ml: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """Scores of a finished run.

    Attributes:
        nsd_tolerance_mm: Tolerance of the normalised surface Dice, in mm, > 0.
        bootstrap_samples: Resamples of patients behind each confidence interval, >= 100.
    """

    nsd_tolerance_mm: float = 1.0
    bootstrap_samples: int = 2000


@dataclass(frozen=True, kw_only=True)
class ExperimentConfig:
    """Everything that a run depends on, beside the data and the code.

    Attributes:
        schema_version: Version of this layout; a newer one is refused.
        name: Name of the experiment, part of the default run directory.
        seed: Seed of initial weights, data order, sampling and augmentation, >= 0.
        fold: Fold whose validation cases are held out, >= 0.
        data: Cases and their preparation.
        patches: Sampling of training patches.
        augmentation: Random changes of training patches.
        network: Architecture.
        loss: Training loss.
        optimizer: Optimiser and schedule.
        training: Length, precision, checkpoints.
        inference: Sliding window.
        postprocessing: Clean-up of predictions.
        evaluation: Scores.
    """

    schema_version: int = SCHEMA_VERSION
    name: str = "experiment"
    seed: int = 0
    fold: int = 0
    data: DataConfig = field(default_factory=DataConfig)
    patches: PatchConfig = field(default_factory=PatchConfig)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    inference: InferenceConfig = field(default_factory=InferenceConfig)
    postprocessing: PostprocessingConfig = field(default_factory=PostprocessingConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
