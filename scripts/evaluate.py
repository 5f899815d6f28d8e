"""Score a run's held-out cases, or one folder of label maps against another.

The same as `seg evaluate`.
"""

import sys

from seg.cli import main

if __name__ == "__main__":
    main(["evaluate", *sys.argv[1:]])
