"""The command line of ``scripts/train.py``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from seg.cli.options import add_fields
from seg.cli.parser import Parser
from seg.config import ExperimentConfig, load_config
from seg.config.fields import fields_of
from seg.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class TrainArguments:
    """What ``scripts/train.py`` is asked to do.

    Attributes:
        config: The experiment.
        run_dir: Run directory; None takes the default one.
        folds: Folds to train; None is all.
        resume: Whether to continue an unfinished run.
    """

    config: ExperimentConfig
    run_dir: Path | None
    folds: tuple[int, ...] | None
    resume: bool


def parse_train(argv: Sequence[str] | None = None) -> TrainArguments:
    """Reads the command line of ``scripts/train.py``.

    Args:
        argv: Arguments; None takes the process's own.

    Raises:
        ConfigError: Arguments or configuration cannot be used; all problems together.
    """
    parser = Parser(
        "train.py --config FILE [--config OVERLAY ...] [--run_dir DIR] [--fold N|all] [--resume] [--init_from RUN] "
        "[--field.path VALUE ...]",
        "Train on a data set, then predict, score and draw the held-out cases.",
    )
    parser.add_argument(
        "--config",
        action="append",
        type=Path,
        default=[],
        metavar="FILE",
        help="YAML file; repeat it to overlay, later files over earlier ones, options below over all files",
    )
    parser.add_argument("--run_dir", type=Path, metavar="DIR", help="run directory (default: runs/NAME/seed_S/fold_N)")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="continue an unfinished run; with --run_dir alone, with its own config, all folds where it holds fold_0, "
        "fold_1, ...",
    )
    parser.add_argument(
        "--init_from",
        type=Path,
        metavar="RUN",
        help="run directory whose weights are the initial ones, as --training.init_from; a resumed run keeps to it",
    )
    add_fields(parser, metavars={"fold": "N|all"})
    fields = [path for path, field in fields_of(ExperimentConfig).items() if field.section is None or field.optional]
    options, found = parser.parse(argv, fields=fields)
    overrides: dict[str, object] = {}
    for path, text in options.overrides:
        overrides.pop(path, None)  # what is said last is also applied last
        overrides[path] = text
    every_fold = overrides.get("fold") == "all"
    if every_fold:
        del overrides["fold"]
    if options.init_from is not None:
        overrides["training.init_from"] = str(options.init_from)
        if not options.init_from.is_dir():
            found.append(f"--init_from must be a run directory, got {options.init_from}, which is not a folder.")
    files = options.config
    if not files and options.resume and options.run_dir is not None:
        files = [options.run_dir / "config.yaml"]
        of_folds = sorted(options.run_dir.glob("fold_*/config.yaml"))
        if of_folds and not files[0].exists():  # They differ in nothing but their fold.
            files = of_folds[:1]
            every_fold = every_fold or "fold" not in overrides
    if not files:
        found.append("--config must name a YAML file, got none; an example is --config configs/phantom.yaml.")
    try:
        config = load_config(files, overrides)
    except ConfigError as error:
        raise ConfigError([*found, *error.problems]) from error
    if found:
        raise ConfigError(found)
    return TrainArguments(
        config=config,
        run_dir=options.run_dir,
        folds=None if every_fold else (config.fold,),
        resume=options.resume,
    )
