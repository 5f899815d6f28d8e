"""Segment scans: label maps on the scans' own grids, and predictions.json beside them; not for clinical use.

The same as `seg predict`.
"""

import sys

from seg.cli import main

if __name__ == "__main__":
    main(["predict", *sys.argv[1:]])
