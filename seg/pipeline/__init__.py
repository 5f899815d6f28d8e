"""The whole way of a run: check the data, train, predict the held-out cases, score them, draw them."""

from seg.pipeline.scoring import evaluate_run
from seg.pipeline.training import train

__all__ = ["evaluate_run", "train"]
