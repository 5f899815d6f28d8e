"""Check the study's intervals and verdicts on simulated studies of known truth; prints Markdown tables."""

from __future__ import annotations

from seg.cli import run
from seg.cli.validate_arguments import parse_validate


def main() -> None:
    """Runs the command line."""
    arguments = parse_validate()
    # Imported only now: --help and wrong use need no statistics.
    from seg.ablation.statistics.checking import check_intervals, check_verdicts

    if arguments.part != "verdicts":
        print(check_intervals(repeats=arguments.repeats, seed=arguments.seed))
    if arguments.part != "intervals":
        print(check_verdicts(repeats=arguments.repeats, seed=arguments.seed))


if __name__ == "__main__":
    run(main)
