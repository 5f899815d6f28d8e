"""Make smaller networks from a trained one, and certify them on the patients that it did not see.

The same as `seg compress`.
"""

import sys

from seg.cli import main

if __name__ == "__main__":
    main(["compress", *sys.argv[1:]])
