"""Compare ways to choose narrow 1x1 and channels in a trained network, on its held-out cases, without tuning."""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

# The comparison is no part of the package; it lies beside its tests.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def main() -> None:
    """Runs the comparison that the command line asks for, and writes a row for each network as it is measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run_dir", type=Path, required=True, metavar="DIR", help="finished run of one fold")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="CSV file, a row for each network")
    parser.add_argument("--data_root", metavar="DIR", help="folder of the data set, where it moved")
    parser.add_argument(
        "--shares",
        type=float,
        nargs="+",
        default=[0.5, 0.35, 0.25],
        metavar="SHARE",
        help="multiply-accumulates kept, falling (default: 0.5 0.35 0.25)",
    )
    parser.add_argument("--cases", type=int, default=10, metavar="N", help="training cases measured (default: 10)")
    parser.add_argument("--methods", nargs="+", metavar="NAME", help="of these methods alone (default: all)")
    options = parser.parse_args()
    # Imported only now: --help and wrong use need no torch.
    from seg.files import table_text, write_text

    alternatives = importlib.import_module("tests.compression.alternatives")
    methods = options.methods or alternatives.METHODS
    if wrong := set(methods) - set(alternatives.METHODS):
        parser.error(f"--methods must be among {', '.join(alternatives.METHODS)}, got {', '.join(sorted(wrong))}.")
    rows = []
    for row in alternatives.compare(options.run_dir, options.data_root, options.shares, options.cases, methods):
        rows.append(row)
        write_text(options.output, table_text(rows))
        print({name: round(value, 4) if isinstance(value, float) else value for name, value in row.items()}, flush=True)


if __name__ == "__main__":
    main()
