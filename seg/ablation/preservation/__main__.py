"""Predict safe widths from a baseline's preservation.json and write them as a point of a study."""

from __future__ import annotations

import argparse
from pathlib import Path

from seg.ablation.preservation.width import THRESHOLD, write_point
from seg.cli import run


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(prog="python -m seg.ablation.preservation", description=__doc__)
    parser.add_argument("--record", type=Path, required=True, help="preservation.json of a trial of the baseline")
    parser.add_argument("--output", type=Path, required=True, help="YAML file to write, a list of one point")
    parser.add_argument(
        "--threshold",
        type=float,
        default=THRESHOLD,
        help="share of the features' variance to keep, in (0, 1] (%(default)s)",
    )
    arguments = parser.parse_args()
    safe = write_point(arguments.record, arguments.output, arguments.threshold)
    print(f"channels {list(safe.channels)}: skip {list(safe.skip)}, decoder {list(safe.decoder)}")
    print(f"point: {arguments.output}")


if __name__ == "__main__":
    run(main)
