"""Score a run's held-out cases, or one folder of label maps against another."""

from __future__ import annotations

from seg.cli import parse_evaluate, run


def main() -> None:
    """Runs the command line."""
    arguments = parse_evaluate()
    # Imported only now: --help and wrong use need no torch.
    if arguments.run_dir is not None:
        from seg.pipeline import evaluate_run

        evaluate_run(arguments.run_dir, output=arguments.output)
    elif arguments.predictions is not None and arguments.labels is not None and arguments.output is not None:
        from seg.evaluation import evaluate_folders, format_evaluation

        evaluation = evaluate_folders(
            arguments.predictions, arguments.labels, arguments.output, nsd_tolerance_mm=arguments.nsd_tolerance_mm
        )
        print(format_evaluation(evaluation))
        print(f"results: {arguments.output}")


if __name__ == "__main__":
    run(main)
