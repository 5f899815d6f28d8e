"""Write the results of a study as a few tables with six significant digits, in place of a folder a trial.

The same as `seg publish`.
"""

import sys

from seg.cli import main

if __name__ == "__main__":
    main(["publish", *sys.argv[1:]])
