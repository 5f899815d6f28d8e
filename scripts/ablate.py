"""Run an ablation study: train every variant, measure speed and preservation, write the report."""

from __future__ import annotations

from pathlib import Path

from seg.cli import parse_ablate, run


def main() -> int:
    """Runs the command line."""
    arguments = parse_ablate()
    # Imported only now: --help and wrong use need no torch.
    from seg.ablation.grid import choose_variants, plan_study

    study = choose_variants(plan_study(arguments.study_path, arguments.overrides), arguments.only)
    study_dir = arguments.ablation_dir or Path("runs/ablation") / study.config.name
    if arguments.dry_run:
        from seg.ablation.preview import preview_study

        print(preview_study(study, study_dir))
        return 0
    from seg.ablation.study import run_study

    return run_study(study, study_dir, runs_dir=arguments.runs_dir, speed_only=arguments.speed_only)


if __name__ == "__main__":
    run(main)
