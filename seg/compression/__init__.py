"""Trained networks made smaller or coarser, and the certificates that say what that costs."""
