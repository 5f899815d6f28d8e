"""Overlap, surface and volume scores of predicted label maps; numpy and scipy alone."""

from seg.metrics.case import EMPTY_SCORES, ClassScores, score_case, score_masks

__all__ = ["EMPTY_SCORES", "ClassScores", "score_case", "score_masks"]
