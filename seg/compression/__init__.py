"""Trained networks made smaller or coarser, and the certificates that say what that costs."""

CASES = 10
"""Training cases that are measured."""
TUNE_STEPS = 1000
"""Steps of tuning at most, of a step that lost much."""
