"""Check predicted losses of narrower maps: cut a trained network at one place at a time, and measure."""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

# The check is no part of the package; it lies beside its tests.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def main() -> None:
    """Runs the check that the command line asks for, and prints correlations."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run_dir", type=Path, required=True, metavar="DIR", help="finished run of one fold")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="CSV file of all points")
    parser.add_argument("--data_root", metavar="DIR", help="folder of the data set, where it moved")
    parser.add_argument(
        "--cases", type=int, default=10, metavar="N", help="cases of each side of the fold, >= 2 (default: %(default)s)"
    )
    options = parser.parse_args()
    if options.cases < 2:
        parser.error(f"--cases must be >= 2, got {options.cases}.")
    # Imported only now: --help and wrong use need no torch.
    from seg.files import table_text, write_text

    validation = importlib.import_module("tests.compression.validation")
    rows = validation.measure(options.run_dir, options.data_root, options.cases)
    write_text(options.output, table_text(rows))
    for kind in ("maps", "kernels", "all"):
        chosen = [row for row in rows if kind == "all" or (row["part"] == "kernel") == (kind == "kernels")]
        print(f"{kind}: {validation.describe(chosen)}")


if __name__ == "__main__":
    main()
