"""Compare finished runs of two variants, seed by seed: paired differences of Dice with intervals, and a verdict."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from seg.cli import run


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    runs: Any = {"nargs": "+", "type": Path, "metavar": "RUN", "required": True}
    parser.add_argument("--baseline", help="run directories of the baseline, one per seed", **runs)
    parser.add_argument("--variant", help="run directories of the variant, in the same order of seeds", **runs)
    parser.add_argument("--margin", type=float, default=0.005, help="loss of Dice that still counts as not inferior")
    arguments = parser.parse_args()
    if len(arguments.baseline) != len(arguments.variant):
        parser.error("give as many runs of the variant as of the baseline, in the same order of seeds.")
    from seg.ablation.statistics import format_comparison, paired, split_folds
    from seg.evaluation import read_cases

    trials = {
        name: split_folds([read_cases(path) for path in paths])
        for name, paths in (("baseline", arguments.baseline), ("variant", arguments.variant))
    }
    for comparison in paired(trials, "baseline", margin=arguments.margin):
        print(format_comparison(comparison))


if __name__ == "__main__":
    run(main)
