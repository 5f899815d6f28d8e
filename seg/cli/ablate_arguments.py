"""The command line of ``scripts/ablate.py``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from seg.cli.options import add_override, add_text
from seg.cli.parser import Parser
from seg.config import StudyConfig
from seg.config.fields import ConfigField, fields_of
from seg.errors import ConfigError

COMMON = "set."
"""What stands before the path of an experiment's field, to change it for all variants."""


@dataclass(frozen=True, kw_only=True)
class AblateArguments:
    """What ``scripts/ablate.py`` is asked to do.

    Attributes:
        study_path: YAML file of the study.
        overrides: Values by dotted path of the study's fields, after ``set.`` of the experiment's, as typed.
        ablation_dir: Study directory; None is runs/ablation/NAME.
        runs_dir: Folder of the run directories; None is runs/ in the study directory.
        dry_run: Whether to print the trials and run none.
        only: Names of the variants to run; empty runs all.
        speed_only: Whether to measure speed and train nothing.
    """

    study_path: Path
    overrides: Mapping[str, str]
    ablation_dir: Path | None
    runs_dir: Path | None
    dry_run: bool
    only: tuple[str, ...]
    speed_only: bool


def parse_ablate(argv: Sequence[str] | None = None) -> AblateArguments:
    """Reads the command line of ``scripts/ablate.py``; the study's file itself is read by ``plan_study``.

    Args:
        argv: Arguments; None takes the process's own.

    Raises:
        ConfigError: Arguments cannot be used; all problems together.
    """
    parser = Parser(
        "ablate.py --config STUDY [--ablation_dir DIR] [--runs DIR] [--dry_run] [--only NAME ...] [--speed_only] "
        "[--data.root DIR] [--set PATH=VALUE ...] [--launch.field VALUE ...]",
        "Run an ablation study: train every variant on every fold with every seed, measure their speed, and write a "
        "report. Started again, it goes on where it stopped.",
    )
    parser.set_defaults(overrides=[])
    parser.add_argument("--config", type=Path, metavar="STUDY", help="YAML file of the study")
    parser.add_argument(
        "--ablation_dir", type=Path, metavar="DIR", help="study directory (default: runs/ablation/NAME of the study)"
    )
    parser.add_argument(
        "--runs",
        type=Path,
        metavar="DIR",
        help="folder of the run directories, which hold weights (default: runs/ in the study directory)",
    )
    parser.add_argument(
        "--dry_run", action="store_true", help="print every trial with parameters, GMAC and predicted time; run none"
    )
    parser.add_argument(
        "--only", action="append", default=[], metavar="NAME", help="run this variant alone; repeat it for more"
    )
    parser.add_argument(
        "--speed_only",
        action="store_true",
        help="train nothing: measure the speed of the variants on every device present, with initial weights where "
        "there are no trained ones, and write the report where trials are finished",
    )
    add_text(parser, "--data.root", f"{COMMON}data.root", "DIR", "folder of the data set (default: that of the study)")
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        type=_assignment,
        metavar="PATH=VALUE",
        help="change a field of the experiment for all variants, as in --set training.steps=700; repeat it for more",
    )
    for path, field in study_fields().items():
        add_override(parser, path, field)
    options, found = parser.parse(argv, fields=["data.root", "set", *study_fields()])
    if options.config is None:
        found.append(
            "--config must name the YAML file of a study, got none; an example is --config "
            "configs/ablation/phantom.yaml."
        )
    if options.dry_run and options.speed_only:
        found.append("--dry_run must not come with --speed_only, which runs no trial either; leave one out.")
    overrides: dict[str, str] = {}
    for path, text in options.overrides:
        if path == COMMON:
            found.append(f"--set must have the form PATH=VALUE, as in --set training.steps=700, got {text!r}.")
        overrides.pop(path, None)  # what is said last is also applied last
        overrides[path] = text
    if found:
        raise ConfigError(found)
    return AblateArguments(
        study_path=options.config,
        overrides=overrides,
        ablation_dir=options.ablation_dir,
        runs_dir=options.runs,
        dry_run=options.dry_run,
        only=tuple(dict.fromkeys(options.only)),
        speed_only=options.speed_only,
    )


def study_fields() -> dict[str, ConfigField]:
    """Returns the fields of a study that a command line may give: how the study runs, not what it compares."""
    return {
        path: field
        for path, field in fields_of(StudyConfig).items()
        if field.section is None and (path.startswith(("launch.", "speed.")) or path in ("folds", "seeds"))
    }


def _assignment(text: str) -> tuple[str, str]:
    """Splits PATH=VALUE; the path is empty where there is no such form."""
    path, sign, value = text.partition("=")
    return (COMMON + path, value) if sign and path else (COMMON, text)
