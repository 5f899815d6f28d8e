"""Whole-volume prediction with sliding windows."""

from seg.inference.grid import Grid, Options, Prepared, Segmentation
from seg.inference.model import Model, autocast, model_from_config
from seg.inference.sliding import predict_logits
from seg.inference.sweep import segment

__all__ = [
    "Grid",
    "Model",
    "Options",
    "Prepared",
    "Segmentation",
    "autocast",
    "model_from_config",
    "predict_logits",
    "segment",
]
