"""Certify that a network loses less Dice than a margin against another one, on patients that both held out.

The same as `seg certify`.
"""

import sys

from seg.cli import main

if __name__ == "__main__":
    main(["certify", *sys.argv[1:]])
