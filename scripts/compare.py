"""Compare finished runs of two variants, seed by seed: paired differences of Dice with intervals, and a verdict.

The same as `seg compare`.
"""

import sys

from seg.cli import main

if __name__ == "__main__":
    main(["compare", *sys.argv[1:]])
