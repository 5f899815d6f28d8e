"""Check the study's intervals and verdicts on simulated studies of known truth; print Markdown tables."""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

# The simulations are no part of the package; they lie beside their tests.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def main() -> None:
    """Runs the checks that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--repeats",
        type=int,
        default=4000,
        metavar="N",
        help="simulated studies of each design, >= 1; slow methods see fewer (default: %(default)s)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="seed of the simulation (default: %(default)s)"
    )
    parser.add_argument(
        "--part", choices=("intervals", "verdicts", "all"), default="all", help="what to check (default: %(default)s)"
    )
    options = parser.parse_args()
    if options.repeats < 1:
        parser.error(f"--repeats must be >= 1, got {options.repeats}.")
    # Imported only now: --help and wrong use need no statistics.
    validation = importlib.import_module("tests.ablation.statistics.validation")

    if options.part != "verdicts":
        print(validation.check_intervals(repeats=options.repeats, seed=options.seed))
    if options.part != "intervals":
        print(validation.check_verdicts(repeats=options.repeats, seed=options.seed))


if __name__ == "__main__":
    main()
