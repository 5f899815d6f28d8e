"""The command line of ``scripts/evaluate.py``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from seg.cli.parser import Parser
from seg.config import EvaluationConfig
from seg.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class EvaluateArguments:
    """What ``scripts/evaluate.py`` is asked to do: a run directory, or two folders of label maps.

    Attributes:
        run_dir: Run directory to score, else None.
        predictions: Folder of predicted label maps, else None.
        labels: Folder of references, else None.
        images: Folder of the images that cases of two folders are drawn on, else None.
        output: Folder of the results; None is the run directory. With two folders never None.
        nsd_tolerance_mm: Tolerance of the normalised surface Dice of two folders, in mm.
    """

    run_dir: Path | None
    predictions: Path | None
    labels: Path | None
    images: Path | None
    output: Path | None
    nsd_tolerance_mm: float


def parse_evaluate(argv: Sequence[str] | None = None) -> EvaluateArguments:
    """Reads the command line of ``scripts/evaluate.py``.

    Args:
        argv: Arguments; None takes the process's own.

    Raises:
        ConfigError: Arguments cannot be used; all problems together.
    """
    parser = Parser(
        "evaluate.py --run_dir DIR | --predictions DIR --labels DIR [--images DIR] [OPTION ...]",
        "Score a run's held-out cases, or one folder of label maps against another.",
    )
    parser.add_argument("--run_dir", type=Path, metavar="DIR", help="run directory whose held-out cases are scored")
    parser.add_argument("--predictions", type=Path, metavar="DIR", help="folder of predicted label maps (NIfTI)")
    parser.add_argument("--labels", type=Path, metavar="DIR", help="folder of references with the same case ids")
    parser.add_argument(
        "--images", type=Path, metavar="DIR", help="folder of images on which cases.html draws the cases of two folders"
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="folder of evaluation.json, cases.csv and cases.html (default: that of the run, or of predictions)",
    )
    default = EvaluationConfig().nsd_tolerance_mm
    parser.add_argument(
        "--nsd_tolerance_mm",
        type=float,
        metavar="MM",
        help=f"tolerance of the normalised surface Dice of two folders, in mm (default: {default:g}); "
        "a run's is evaluation.nsd_tolerance_mm of its configuration",
    )
    options, found = parser.parse(argv)
    folders = (options.predictions, options.labels)
    if options.run_dir is not None:
        if folders != (None, None):
            found.append("--run_dir must not come with --predictions and --labels; leave one or the other out.")
        if options.images is not None:
            found.append(
                "--images must not come with --run_dir, whose configuration says where they lie; leave it out."
            )
        if options.nsd_tolerance_mm is not None:
            found.append(
                "--nsd_tolerance_mm must not come with --run_dir, whose configuration says it "
                "(evaluation.nsd_tolerance_mm); leave it out, or score the run's folder of predictions."
            )
    elif None in folders:
        found.append("either --run_dir or both --predictions and --labels must be given; see --help.")
    tolerance = default if options.nsd_tolerance_mm is None else options.nsd_tolerance_mm
    if not 0 < tolerance < float("inf"):
        found.append(f"--nsd_tolerance_mm must be > 0, got {tolerance:g}.")
    if found:
        raise ConfigError(found)
    return EvaluateArguments(
        run_dir=options.run_dir,
        predictions=options.predictions,
        labels=options.labels,
        images=options.images,
        output=options.output or options.predictions,
        nsd_tolerance_mm=tolerance,
    )
