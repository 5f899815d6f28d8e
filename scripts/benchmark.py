"""Measure speed, memory and size of networks side by side in one process; the first is the baseline.

The same as `seg benchmark`.
"""

import sys

from seg.cli import main

if __name__ == "__main__":
    main(["benchmark", *sys.argv[1:]])
