"""Put a data set in place: download a public one, with checksum, or generate the embedded phantoms."""

from __future__ import annotations

from seg.cli import run
from seg.cli.fetch_arguments import PHANTOM, parse_fetch
from seg.data.fetch import ARCHIVES, fetch, show_progress


def main() -> None:
    """Runs the command line."""
    arguments = parse_fetch(ARCHIVES)
    if arguments.name == PHANTOM:
        # Imported only now: a download needs no NumPy.
        from seg.data.phantom import PhantomConfig, write_dataset

        folder = write_dataset(arguments.root / "phantom", PhantomConfig(), seed=0)
    else:
        folder = fetch(ARCHIVES[arguments.name], arguments.root, progress=show_progress)
    print(f"data set: {folder}")


if __name__ == "__main__":
    run(main)
