"""Trained networks made smaller or coarser, and the certificates that say what that costs."""

MACS = (0.6, 0.45, 0.35, 0.25)
"""Shares of the original's multiply-accumulates that the steps keep, mild to strong."""
CASES = 10
"""Training cases that are measured."""
