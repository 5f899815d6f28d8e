"""Compare finished runs of two variants, seed by seed: paired difference of mean Dice with its interval."""

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
    arguments = parser.parse_args()
    from seg.evaluation import paired_difference, read_cases

    result = paired_difference(
        [read_cases(path) for path in arguments.baseline], [read_cases(path) for path in arguments.variant]
    )
    low, high = result.ci95
    print(f"mean Dice {result.difference:+.4f} (95 % CI {low:+.4f} to {high:+.4f})")
    print(f"by seed: {', '.join(f'{value:+.4f}' for value in result.by_seed)}; {result.num_patients} patients")


if __name__ == "__main__":
    run(main)
