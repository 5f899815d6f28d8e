"""Read the fingerprint of a data set and write a configuration that trains on it.

The same as `seg plan`.
"""

import sys

from seg.cli import main

if __name__ == "__main__":
    main(["plan", *sys.argv[1:]])
