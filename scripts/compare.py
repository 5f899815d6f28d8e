"""Compare finished runs of two variants, seed by seed: paired differences of Dice with intervals, and a verdict."""

from __future__ import annotations

from seg.cli import run
from seg.cli.compare_arguments import parse_compare


def main() -> None:
    """Runs the command line."""
    arguments = parse_compare()
    # Imported only now: --help and wrong use need no statistics.
    from seg.ablation.statistics import format_comparison, paired, split_folds
    from seg.evaluation.scores import read_cases

    trials = {
        name: split_folds([read_cases(path) for path in paths])
        for name, paths in (("baseline", arguments.baseline), ("variant", arguments.variant))
    }
    for comparison in paired(trials, "baseline", margin=arguments.margin):
        print(format_comparison(comparison))


if __name__ == "__main__":
    run(main)
