"""The command line of ``scripts/evaluate.py``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from seg.cli.parser import Parser
from seg.config import EvaluationConfig
from seg.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class RunArguments:
    """A run directory to score.

    Attributes:
        run_dir: Run directory, or that of a cross-validation.
        output: Folder of the results; None is the run directory.
        data_root: Folder of the run's data set where it moved; None is where its configuration says.
    """

    run_dir: Path
    output: Path | None = None
    data_root: Path | None = None


@dataclass(frozen=True, kw_only=True)
class FolderArguments:
    """Two folders of label maps to score against each other.

    Attributes:
        predictions: Folder of predicted label maps.
        labels: Folder of references.
        images: Folder of the images that cases are drawn on, else None.
        output: Folder of the results.
        nsd_tolerance_mm: Tolerance of the normalised surface Dice in mm.
        class_names: Names of the classes, background first; None takes every value found.
        ignore_label: Value of reference voxels that count for neither side, else None.
        patient_pattern: Regular expression whose first group is the patient in a case id, else None.
        workers: Processes that score cases.
        leave_out: Whether cases that cannot be scored are left out and named.
    """

    predictions: Path
    labels: Path
    images: Path | None
    output: Path
    nsd_tolerance_mm: float
    class_names: tuple[str, ...] | None = None
    ignore_label: int | None = None
    patient_pattern: str | None = None
    workers: int = 1
    leave_out: bool = False


# Options of two folders alone, and where a run has the same from.
OF_FOLDERS = {
    "images": "whose configuration says where they lie",
    "class_names": "whose data set says them",
    "ignore_label": "whose data set says it",
    "patient_pattern": "whose configuration says it (data.patient_pattern)",
    "workers": "whose cases are scored as they are predicted",
    "leave_out": "whose cases are all predicted and scored",
}


def parse_evaluate(argv: Sequence[str] | None = None) -> RunArguments | FolderArguments:
    """Reads the command line of ``scripts/evaluate.py``.

    Args:
        argv: Arguments; None takes the process's own.

    Raises:
        ConfigError: Arguments cannot be used; all problems together.
    """
    parser = Parser(
        "evaluate.py --run_dir DIR [--data.root DIR] | --predictions DIR --labels DIR [--images DIR] [OPTION ...]",
        "Score a run's held-out cases, or one folder of label maps against another.",
    )
    parser.add_argument(
        "--run_dir",
        type=Path,
        metavar="DIR",
        help="run directory whose held-out cases are scored; all folds where it holds fold_0, fold_1, ...",
    )
    parser.add_argument(
        "--data.root",
        dest="data_root",
        type=Path,
        metavar="DIR",
        help="folder of the run's data set, where it moved (default: data.root of the run's configuration)",
    )
    parser.add_argument("--predictions", type=Path, metavar="DIR", help="folder of predicted label maps (NIfTI)")
    parser.add_argument("--labels", type=Path, metavar="DIR", help="folder of references with the same case ids")
    parser.add_argument(
        "--images", type=Path, metavar="DIR", help="folder of images on which cases.html draws the cases of two folders"
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="folder of evaluation.json, cases.csv and cases.html, which are replaced (default: that of the run, or of "
        "predictions)",
    )
    default = EvaluationConfig().nsd_tolerance_mm
    parser.add_argument(
        "--nsd_tolerance_mm",
        type=float,
        metavar="MM",
        help=f"tolerance of the normalised surface Dice of two folders, in mm (default: {default:g}); "
        "a run's is evaluation.nsd_tolerance_mm of its configuration",
    )
    parser.add_argument(
        "--class_names",
        type=_names,
        metavar="NAME,...",
        help="names of classes 1, 2, ... of two folders, separated by commas; values above are refused "
        "(default: every value found, as class_1, class_2, ...)",
    )
    parser.add_argument(
        "--ignore_label",
        type=int,
        metavar="N",
        help="value of reference voxels that count for neither side, of two folders (default: none)",
    )
    parser.add_argument(
        "--patient_pattern",
        metavar="REGEX",
        help="regular expression whose first group is the patient in a case id of two folders; intervals resample "
        "patients (default: each case is a patient of its own)",
    )
    parser.add_argument(
        "--workers", type=int, metavar="N", help="processes that score the cases of two folders (default: 1)"
    )
    parser.add_argument(
        "--leave_out",
        action="store_true",
        default=None,
        help="leave out cases of two folders that lack a counterpart or cannot be scored, name them, and exit with 1 "
        "(default: one such case refuses all)",
    )
    options, found = parser.parse(argv)
    folders = (options.predictions, options.labels)
    if options.run_dir is not None:
        if folders != (None, None):
            found.append("--run_dir must not come with --predictions and --labels; leave one or the other out.")
        found += [
            f"--{name} must not come with --run_dir, {reason}; leave it out."
            for name, reason in OF_FOLDERS.items()
            if getattr(options, name) is not None
        ]
        if options.nsd_tolerance_mm is not None:
            found.append(
                "--nsd_tolerance_mm must not come with --run_dir, whose configuration says it "
                "(evaluation.nsd_tolerance_mm); leave it out, or score the run's folder of predictions."
            )
    else:
        if None in folders:
            found.append("either --run_dir or both --predictions and --labels must be given; see --help.")
        if options.data_root is not None:
            found.append("--data.root must come with --run_dir, whose data set it is; leave it out.")
    tolerance = default if options.nsd_tolerance_mm is None else options.nsd_tolerance_mm
    if not 0 < tolerance < float("inf"):
        found.append(f"--nsd_tolerance_mm must be > 0, got {tolerance:g}.")
    workers = 1 if options.workers is None else options.workers
    if workers < 1:
        found.append(f"--workers must be >= 1, got {workers}.")
    names: tuple[str, ...] | None = options.class_names
    if names is not None:
        found += _name_problems(names)
        if options.ignore_label is not None and 0 <= options.ignore_label < len(names):
            found.append(
                f"--ignore_label must be no class, got {options.ignore_label}, which is {names[options.ignore_label]}; "
                "leave the class out of --class_names or correct the label."
            )
    if found:
        raise ConfigError(found)
    if options.run_dir is not None:
        return RunArguments(run_dir=options.run_dir, output=options.output, data_root=options.data_root)
    return FolderArguments(
        predictions=options.predictions,
        labels=options.labels,
        images=options.images,
        output=options.output or options.predictions,
        nsd_tolerance_mm=tolerance,
        class_names=names,
        ignore_label=options.ignore_label,
        patient_pattern=options.patient_pattern,
        workers=workers,
        leave_out=bool(options.leave_out),
    )


def _names(text: str) -> tuple[str, ...]:
    """Splits names of the foreground classes; background, which nobody types, comes first."""
    return ("background", *(name.strip() for name in text.split(",")))


def _name_problems(names: tuple[str, ...]) -> list[str]:
    """Says what is wrong with names of classes, background first."""
    given = names[1:]
    if "" in given:
        return [f"--class_names must be names separated by commas, got {','.join(given)!r} with an empty one."]
    twice = sorted({name for name in given if names.count(name) > 1})
    if "background" in twice:
        return ["--class_names must begin with class 1, got background, which is class 0 and needs no name; drop it."]
    return [f"--class_names must name each class once, got {', '.join(twice)} more than once."] if twice else []
