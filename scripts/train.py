"""Train on a data set, then predict, score and draw the held-out cases."""

from __future__ import annotations

from seg.cli import parse_train, run


def main() -> int:
    """Runs the command line."""
    arguments = parse_train()
    # Imported only now: --help and wrong use need no torch.
    from seg.workflows.train import train

    return train(
        arguments.config,
        run_dir=arguments.run_dir,
        folds=arguments.folds,
        resume=arguments.resume,
    )


if __name__ == "__main__":
    run(main)
