"""Whole-volume prediction with sliding windows."""

from seg.inference.grid import Grid, Options, Prepared, Segmentation
from seg.inference.model import Model, autocast, model_from_config
from seg.inference.shortage import Learnt, out_of_memory
from seg.inference.sliding import predict_logits
from seg.inference.sweep import segment

__all__ = [
    "Grid",
    "Learnt",
    "Model",
    "Options",
    "Prepared",
    "Segmentation",
    "autocast",
    "model_from_config",
    "out_of_memory",
    "predict_logits",
    "segment",
]
