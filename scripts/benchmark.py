"""Measure speed, memory and size of networks side by side; a table, and benchmark.json."""

from __future__ import annotations

from seg.cli import run
from seg.cli.benchmark_arguments import parse_benchmark


def main() -> None:
    """Runs the command line."""
    arguments = parse_benchmark()
    # Imported only now: --help and wrong use need no torch.
    from seg.benchmark import benchmark

    benchmark(arguments)


if __name__ == "__main__":
    run(main)
