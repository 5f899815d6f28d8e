"""Predict how narrow each map of a trained network can be, and measure what that saves.

The same as `seg widths`.
"""

import sys

from seg.cli import main

if __name__ == "__main__":
    main(["widths", *sys.argv[1:]])
