"""Write the report of an ablation study from its records, or put several studies side by side.

The same as `seg report`.
"""

import sys

from seg.cli import main

if __name__ == "__main__":
    main(["report", *sys.argv[1:]])
