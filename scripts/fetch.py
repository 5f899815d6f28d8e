"""Put a data set in place: download a public one, with checksum, or generate the embedded phantoms."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from seg.cli import run
from seg.data.fetch import ARCHIVES, fetch


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=[*sorted(ARCHIVES), "phantom"], help="data set; phantom is made here")
    parser.add_argument("--root", type=Path, default=Path("data"), help="folder to put it in (default: data)")
    arguments = parser.parse_args()
    if arguments.name == "phantom":
        # Imported only now: a download needs no NumPy.
        from seg.data.phantom import PhantomConfig, write_dataset

        folder = write_dataset(arguments.root / "phantom", PhantomConfig(), seed=0)
    else:
        folder = fetch(ARCHIVES[arguments.name], arguments.root, progress=show_progress)
    print(f"data set: {folder}")


def show_progress(done: int, total: int | None) -> None:
    """Writes the megabytes there are, over the line before."""
    share = f" of {total / 2**20:.1f} MiB ({done / total:.0%})" if total else " MiB"
    print(f"\r{done / 2**20:.1f}{share}", end="\n" if done == total else "", file=sys.stderr, flush=True)


if __name__ == "__main__":
    run(main)
