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
    arguments = parser.parse_args()
    from seg.ablation.statistics.validation import DESIGNS, Design, family_error, format_outcomes, percent, validate

    outcomes = [one for design in DESIGNS for one in validate(design, repeats=arguments.repeats, seed=arguments.seed)]
    print(format_outcomes(outcomes))
    repeats = max(arguments.repeats // 8, 1)
    share = family_error(Design(), variants=6, repeats=repeats, seed=arguments.seed)
    print(f"\nAny of 6 variants at the margin called not inferior: {percent(share, repeats)} % of {repeats} studies.")


if __name__ == "__main__":
    run(main)
