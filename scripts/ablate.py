"""Run an ablation study: train every variant, measure speed and preservation, write the report.

The same as `seg ablate`.
"""

import sys

from seg.cli import main

if __name__ == "__main__":
    main(["ablate", *sys.argv[1:]])
