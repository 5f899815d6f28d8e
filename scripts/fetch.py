"""Put a data set in place: download a public one, with checksum, or generate the embedded phantoms.

The same as `seg fetch`.
"""

import sys

from seg.cli import main

if __name__ == "__main__":
    main(["fetch", *sys.argv[1:]])
