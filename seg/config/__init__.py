"""Frozen dataclasses that describe an experiment; standard library only.

A field's default is the value used where a YAML file and the command line are silent. Rules within and across fields
are in :mod:`seg.config.rules`.
"""

from seg.config.ablation import (
    AxisConfig,
    BackendConfig,
    ContrastConfig,
    PointConfig,
    SlurmConfig,
    SpeedConfig,
    StudyConfig,
)
from seg.config.data import AugmentationConfig, CtConfig, DataConfig, IntensityConfig, PatchConfig, SpatialConfig
from seg.config.experiment import (
    SCHEMA_VERSION,
    EvaluationConfig,
    ExperimentConfig,
    InferenceConfig,
    PostprocessingConfig,
)
from seg.config.network import BottleneckConfig, NetworkConfig
from seg.config.training import LossConfig, OptimizerConfig, TrainingConfig

__all__ = [
    "SCHEMA_VERSION",
    "AugmentationConfig",
    "AxisConfig",
    "BackendConfig",
    "BottleneckConfig",
    "ContrastConfig",
    "CtConfig",
    "DataConfig",
    "EvaluationConfig",
    "ExperimentConfig",
    "InferenceConfig",
    "IntensityConfig",
    "LossConfig",
    "NetworkConfig",
    "OptimizerConfig",
    "PatchConfig",
    "PointConfig",
    "PostprocessingConfig",
    "SlurmConfig",
    "SpatialConfig",
    "SpeedConfig",
    "StudyConfig",
    "TrainingConfig",
]
