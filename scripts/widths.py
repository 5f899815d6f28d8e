"""Predict how many channels each feature map of a trained network needs, and time what fewer save.

The same as `seg widths`.
"""

import sys

from seg.cli import main

if __name__ == "__main__":
    main(["widths", *sys.argv[1:]])
