"""Write a trained network for other engines, checked against torch; or pack a run into one file.

The same as `seg export`.
"""

import sys

from seg.cli import main

if __name__ == "__main__":
    main(["export", *sys.argv[1:]])
