"""Segment scans: a file, a folder or a list in, label maps on the scans' own grids out."""

from __future__ import annotations

from seg.cli import parse_predict, run


def main() -> int:
    """Runs the command line."""
    arguments = parse_predict()
    # Imported only now: --help and wrong use need no torch.
    from seg.workflows.predict import predict

    return predict(arguments)


if __name__ == "__main__":
    run(main)
