"""Write the report of an ablation study from its records, or put several studies side by side."""

from __future__ import annotations

from seg.cli import run
from seg.cli.report_arguments import CompareArguments, parse_report


def main() -> None:
    """Runs the command line."""
    arguments = parse_report()
    # Imported only now: --help and wrong use need no statistics.
    from seg.ablation.report import write_comparison, write_report

    if isinstance(arguments, CompareArguments):
        print(write_comparison(arguments.studies, arguments.output))
    else:
        print(write_report(arguments.ablation_dir, runs_dir=arguments.runs))


if __name__ == "__main__":
    run(main)
