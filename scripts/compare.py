"""Compare finished runs of two variants, seed by seed: paired differences of Dice with intervals, and a verdict."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
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
    if problems := _unpaired(arguments.baseline, arguments.variant):
        parser.error(" ".join(problems))
    from seg.ablation.statistics import format_comparison, paired, split_folds
    from seg.evaluation import read_cases

    trials = {
        name: split_folds([read_cases(path) for path in paths])
        for name, paths in (("baseline", arguments.baseline), ("variant", arguments.variant))
    }
    for comparison in paired(trials, "baseline", margin=arguments.margin):
        print(format_comparison(comparison))


def _unpaired(baseline: Sequence[Path], variant: Sequence[Path]) -> list[str]:
    """Says which runs are no pair by the seeds in their configurations, if they have one, and which come twice."""
    from seg.cli import load_config
    from seg.layout import CONFIG_FILE

    problems = []
    for number, paths in enumerate(zip(baseline, variant, strict=True), 1):
        known = [load_config([path / CONFIG_FILE]).seed for path in paths if (path / CONFIG_FILE).is_file()]
        if len(set(known)) > 1:
            problems.append(
                f"pair {number} must have one seed, got {known[0]} in {paths[0]} and {known[1]} in {paths[1]}; give "
                "runs in the same order of seeds."
            )
    everything = [path.resolve() for path in (*baseline, *variant)]
    for path in dict.fromkeys(path for path in everything if everything.count(path) > 1):
        problems.append(f"runs must each be given once, got {path} again; leave one out.")
    return problems


if __name__ == "__main__":
    run(main)
