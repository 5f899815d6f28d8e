"""The command line of ``scripts/plan.py``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from seg.cli.parser import Parser
from seg.errors import ConfigError

Layout = Literal["auto", "msd", "nnunet", "manifest"]
DEFAULT_MEMORY_GIB = 4.0  # as in seg.planning, whose import takes seconds


@dataclass(frozen=True, kw_only=True)
class PlanArguments:
    """What ``scripts/plan.py`` is asked to do.

    Attributes:
        data_root: Folder of the data set.
        layout: Its layout.
        output: File of the configuration, not there yet unless it may be replaced; None prints it.
        memory_gib: Memory that training may take, in GiB.
        patient_pattern: Regular expression whose first group is the patient in a case id; None leaves it to be found.
    """

    data_root: Path
    layout: Layout
    output: Path | None
    memory_gib: float
    patient_pattern: str | None


def parse_plan(argv: Sequence[str] | None = None) -> PlanArguments:
    """Reads the command line of ``scripts/plan.py``.

    Args:
        argv: Arguments; None takes the process's own.

    Raises:
        ConfigError: Arguments cannot be used; all problems together.
    """
    parser = Parser(
        "plan.py --data.root DIR [--data.layout LAYOUT] [--data.patient_pattern REGEX] [--memory_gib N] "
        "[--output FILE [--overwrite]]",
        "Read the fingerprint of a data set and write a configuration that trains on it.",
    )
    parser.add_argument("--data.root", type=Path, metavar="DIR", help="folder of the data set")
    parser.add_argument(
        "--data.layout",
        choices=get_args(Layout),
        default="auto",
        help="MSD, nnU-Net v2 raw, a manifest, or found out from the folder's files (default: auto)",
    )
    parser.add_argument(
        "--data.patient_pattern",
        metavar="REGEX",
        help="regular expression whose first group is the patient in a case id (default: found in the ids where they "
        "end in a frame, a visit or the like)",
    )
    parser.add_argument(
        "--memory_gib",
        type=float,
        default=DEFAULT_MEMORY_GIB,
        metavar="N",
        help=f"memory that training may take, in GiB (default: {DEFAULT_MEMORY_GIB:g})",
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="file of the configuration (default: printed)")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace the file of --output where it is there already"
    )
    options, found = parser.parse(argv)
    given = vars(options)
    if given["data.root"] is None:
        found.append("--data.root must name the folder of a data set, got none.")
    if not 0 < options.memory_gib < float("inf"):
        found.append(f"--memory_gib must be > 0, got {options.memory_gib:g}.")
    output = options.output
    if output is not None and output.is_dir():
        found.append(f"--output must be a file, got the folder {output}; name a file in it.")
    elif output is not None and os.path.lexists(output) and not options.overwrite:
        found.append(
            f"--output must be a new file, got {output}, which is there already; choose another, or replace it with "
            "--overwrite."
        )
    if found:
        raise ConfigError(found)
    return PlanArguments(
        data_root=given["data.root"],
        layout=given["data.layout"],
        output=output,
        memory_gib=options.memory_gib,
        patient_pattern=given["data.patient_pattern"],
    )
