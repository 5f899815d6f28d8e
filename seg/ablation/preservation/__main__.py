"""Predict safe widths from a baseline's preservation.json and write them as a point of a study."""

from __future__ import annotations

from seg.ablation.preservation.width import THRESHOLD, write_point
from seg.cli import run
from seg.cli.preservation_arguments import parse_preservation


def main() -> None:
    """Runs the command line."""
    arguments = parse_preservation(THRESHOLD)
    safe = write_point(arguments.record, arguments.output, arguments.threshold)
    print(f"channels {list(safe.channels)}: skip {list(safe.skip)}, decoder {list(safe.decoder)}")
    print(f"point: {arguments.output}")


if __name__ == "__main__":
    run(main)
