"""Train on a data set, then predict, score and draw the held-out cases.

The same as `seg train`.
"""

import sys

from seg.cli import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
