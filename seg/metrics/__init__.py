"""Overlap, surface and volume scores of predicted label maps; numpy and scipy alone."""

from seg.metrics.case import EMPTY_SCORES, ClassScores, score_case, score_masks
from seg.metrics.mean import finite_mean

__all__ = ["EMPTY_SCORES", "ClassScores", "finite_mean", "score_case", "score_masks"]
