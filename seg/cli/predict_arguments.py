"""The command line of ``scripts/predict.py``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from seg.cli.parser import Parser
from seg.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class PredictArguments:
    """What ``scripts/predict.py`` is asked to do.

    Attributes:
        run_dirs: Run directories whose networks are averaged.
        input: A file, a folder, or a list of files in a text file.
        output: File or folder of the label maps.
        device: Where to compute.
        precision: Arithmetic of the networks; ``auto`` is that of each run's configuration.
        tta: Whether logits are averaged over mirrored copies.
        probabilities: Whether probabilities are written too.
        existing: What is done about label maps that are there already.
    """

    run_dirs: tuple[Path, ...]
    input: Path
    output: Path
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    tta: bool = False
    probabilities: bool = False
    existing: Literal["refuse", "skip", "overwrite"] = "refuse"


def parse_predict(argv: Sequence[str] | None = None) -> PredictArguments:
    """Reads the command line of ``scripts/predict.py``.

    Args:
        argv: Arguments; None takes the process's own.

    Raises:
        ConfigError: Arguments cannot be used; all problems together.
    """
    parser = Parser(
        "predict.py --run_dir DIR [--run_dir DIR ...] --input FILE|DIR|LIST.txt --output FILE|DIR "
        "[--device auto|cpu|cuda] [--precision auto|fp32|bf16] [--tta] [--probabilities] "
        "[--skip_existing | --overwrite]",
        "Segment scans: label maps on the scans' own grids, and predictions.json beside them. "
        "Research software; not for clinical use.",
    )
    parser.add_argument(
        "--run_dir",
        action="append",
        type=Path,
        default=[],
        metavar="DIR",
        help="finished run directory; repeat it to average several networks; "
        "one that holds fold_0, fold_1, ... stands for all of these",
    )
    parser.add_argument(
        "--input",
        type=Path,
        metavar="FILE|DIR|LIST.txt",
        help="scan, folder of scans, or text file with one scan on each line, and behind a tab the name of its "
        "label map where that is another; NIfTI, and NRRD, MetaImage or DICOM where the package that reads them is "
        "installed; files NAME_0000, NAME_0001, ... are channels of one scan",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE|DIR",
        help="where label maps go: a file for one scan, else a folder, in which each is named after its scan",
    )
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="where to compute; auto takes a GPU where there is one (default: auto)",
    )
    parser.add_argument(
        "--precision",
        choices=("auto", "fp32", "bf16"),
        default="auto",
        help="arithmetic of the networks; auto is training.precision of each run, whose own auto takes bf16 where the "
        "hardware computes it (default: auto)",
    )
    parser.add_argument(
        "--tta", action="store_true", help="average over mirrored copies, along the axes that training mirrored; slower"
    )
    parser.add_argument(
        "--probabilities", action="store_true", help="write probabilities too, 4-D files in the folder probabilities/"
    )
    parser.add_argument("--skip_existing", action="store_true", help="leave label maps that are there already")
    parser.add_argument("--overwrite", action="store_true", help="replace label maps that are there already")
    options, found = parser.parse(argv)
    for name, value in (("--run_dir", options.run_dir), ("--input", options.input), ("--output", options.output)):
        if not value:
            found.append(f"{name} must be given, got none; see --help.")
    if options.skip_existing and options.overwrite:
        found.append("--skip_existing must not come with --overwrite; leave one of them out.")
    if found:
        raise ConfigError(found)
    return PredictArguments(
        run_dirs=tuple(options.run_dir),
        input=options.input,
        output=options.output,
        device=options.device,
        precision=options.precision,
        tta=options.tta,
        probabilities=options.probabilities,
        existing="skip" if options.skip_existing else "overwrite" if options.overwrite else "refuse",
    )
