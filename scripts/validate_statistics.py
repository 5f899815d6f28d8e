"""Check the study's intervals and verdicts on simulated studies of known truth; prints Markdown tables."""

from __future__ import annotations

import argparse

from seg.cli import run


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--repeats", type=int, default=4000, help="simulated studies of each design; slow methods see fewer"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the simulation")
    parser.add_argument("--part", choices=("intervals", "verdicts", "all"), default="all", help="what to check")
    arguments = parser.parse_args()
    if arguments.part != "verdicts":
        _intervals(arguments.repeats, arguments.seed)
    if arguments.part != "intervals":
        _verdicts(arguments.repeats, arguments.seed)


def _intervals(repeats: int, seed: int) -> None:
    """Prints how often the interval of one difference holds the truth."""
    from seg.ablation.statistics.validation import DESIGNS, format_outcomes, validate

    print(format_outcomes([one for design in DESIGNS for one in validate(design, repeats=repeats, seed=seed)]))


def _verdicts(repeats: int, seed: int) -> None:
    """Prints how often a study of many variants passes one that it should not."""
    from seg.ablation.statistics.families import FAMILIES, Family
    from seg.ablation.statistics.validation import percent
    from seg.ablation.statistics.verdicts import family_error, format_families, validate_family

    fewer = max(repeats // 2, 1)
    print(format_families([one for family in FAMILIES for one in validate_family(family, repeats=fewer, seed=seed)]))
    whole = max(repeats // 20, 1)
    share = family_error(Family(), repeats=whole, seed=seed)
    print(
        f"\nFrom scores of cases to verdicts, {Family().name}: {percent(share, whole)} % of {whole} studies pass any."
    )


if __name__ == "__main__":
    run(main)
