"""Configurations: what each field takes, the rules between fields, and how files become configurations; no torch."""

from seg.config.experiment import (
    AugmentationConfig,
    CtConfig,
    DataConfig,
    DeviceName,
    EvaluationConfig,
    ExperimentConfig,
    InferenceConfig,
    IntensityConfig,
    LossConfig,
    MemoryFormat,
    OptimizerConfig,
    PatchConfig,
    PostprocessingConfig,
    Precision,
    PrecisionName,
    SpatialConfig,
    TrainingConfig,
)
from seg.config.loading import dump_config, load_config, load_study
from seg.config.network import BottleneckConfig, NetworkConfig, WidthsConfig
from seg.config.study import (
    AxisConfig,
    PointConfig,
    SlurmConfig,
    StudyConfig,
)

__all__ = [
    "AugmentationConfig",
    "AxisConfig",
    "BottleneckConfig",
    "CtConfig",
    "DataConfig",
    "DeviceName",
    "EvaluationConfig",
    "ExperimentConfig",
    "InferenceConfig",
    "IntensityConfig",
    "LossConfig",
    "MemoryFormat",
    "NetworkConfig",
    "OptimizerConfig",
    "PatchConfig",
    "PointConfig",
    "PostprocessingConfig",
    "Precision",
    "PrecisionName",
    "SlurmConfig",
    "SpatialConfig",
    "StudyConfig",
    "TrainingConfig",
    "WidthsConfig",
    "dump_config",
    "load_config",
    "load_study",
]
