"""Score a run's held-out cases, or one folder of label maps against another."""

from __future__ import annotations

from seg.cli import RunArguments, parse_evaluate, run


def main() -> int:
    """Runs the command line; gives the exit code, 1 where faulty cases or cases without a counterpart were left out."""
    arguments = parse_evaluate()
    # Imported only now: --help and wrong use need no torch, and neither do two folders.
    if isinstance(arguments, RunArguments):
        from seg.workflows.evaluate import evaluate_run

        return evaluate_run(arguments.run_dir, output=arguments.output, data_root=arguments.data_root)
    from seg.workflows.folders import FolderPair, evaluate_pair

    pair = FolderPair(
        predictions=arguments.predictions,
        labels=arguments.labels,
        output=arguments.output,
        images=arguments.images,
    )
    evaluation = evaluate_pair(
        pair,
        nsd_tolerance_mm=arguments.nsd_tolerance_mm,
        class_names=arguments.class_names,
        ignore_label=arguments.ignore_label,
        patient_pattern=arguments.patient_pattern,
        workers=arguments.workers,
        leave_out=arguments.leave_out,
    )
    return 1 if evaluation.left_out else 0


if __name__ == "__main__":
    run(main)
