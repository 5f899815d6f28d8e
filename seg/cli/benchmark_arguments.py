"""The command line of ``scripts/benchmark.py``."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from seg.cli.parser import Parser
from seg.errors import ConfigError

Kind = Literal["run_dir", "config"]


@dataclass(frozen=True, kw_only=True)
class Target:
    """A network to measure.

    Attributes:
        kind: Whether the path is a run directory or the YAML file of an experiment.
        path: The path.
    """

    kind: Kind
    path: Path


@dataclass(frozen=True, kw_only=True)
class BenchmarkArguments:
    """What ``scripts/benchmark.py`` is asked to do.

    Attributes:
        targets: What is measured, the baseline first.
        peers: Whether networks of MONAI are measured beside it.
        rounds: Timed rounds, in each of which each network is measured once, >= 3.
        warmup: Untimed rounds before, >= 1.
        cases: Cases of the end-to-end measurement, >= 0.
        device: Where to measure.
        data_root: Folder of the data set; None is that of the experiment.
        num_channels: Channels of an image, where no data set is read.
        num_classes: Classes, background included, where no data set is read; None reads it.
        volume_shape: Shape of a volume whose prediction is measured in place of speed; None measures speed.
        volume_spacing: Its voxel size in mm, each > 0; None is that of the network.
        output: JSON file of the results; None is the default one.
    """

    targets: tuple[Target, ...]
    peers: bool = False
    rounds: int = 15
    warmup: int = 3
    cases: int = 8
    device: Literal["all", "cpu", "cuda"] = "all"
    data_root: Path | None = None
    num_channels: int = 1
    num_classes: int | None = None
    volume_shape: tuple[int, int, int] | None = None
    volume_spacing: tuple[float, float, float] | None = None
    output: Path | None = None


LEAST = {"rounds": 3, "warmup": 1, "cases": 0, "num_channels": 1, "num_classes": 2}


def parse_benchmark(argv: Sequence[str] | None = None) -> BenchmarkArguments:
    """Reads the command line of ``scripts/benchmark.py``.

    Args:
        argv: Arguments; None takes the process's own.

    Raises:
        ConfigError: Arguments cannot be used; all problems together.
    """
    parser = _parser()
    options, found = parser.parse(argv, fields=["run_dir", "config"])
    found += _problems(options)
    if found:
        raise ConfigError(found)
    shape, spacing = options.volume_shape, options.volume_spacing
    return BenchmarkArguments(
        targets=tuple(options.overrides),
        peers=options.peers,
        rounds=int(options.rounds),
        warmup=int(options.warmup),
        cases=int(options.cases),
        device=options.device,
        data_root=getattr(options, "data.root"),
        num_channels=1 if options.num_channels is None else int(options.num_channels),
        num_classes=None if options.num_classes is None else int(options.num_classes),
        volume_shape=None if shape is None else (int(shape[0]), int(shape[1]), int(shape[2])),
        volume_spacing=None if spacing is None else (float(spacing[0]), float(spacing[1]), float(spacing[2])),
        output=options.output,
    )


def _parser() -> Parser:
    parser = Parser(
        "benchmark.py --run_dir DIR | --config FILE [--run_dir DIR | --config FILE ...] [--peers] [--rounds N] "
        "[--device all|cpu|cuda] [--output FILE] [--volume_shape X Y Z [--volume_spacing X Y Z]]",
        "Measure speed, memory and size of networks side by side in one process; the first one is the baseline.",
    )
    parser.set_defaults(overrides=[])  # a name that is never suggested for an option
    kinds: tuple[tuple[Kind, str, str], ...] = (
        ("run_dir", "DIR", "finished run directory, measured with its weights"),
        ("config", "FILE", "YAML file of an experiment, measured with initial weights, which are as fast"),
    )
    for kind, form, text in kinds:
        parser.add_argument(
            f"--{kind}",
            dest="overrides",
            action="append",
            type=partial(_target, kind),
            metavar=form,
            help=f"{text}; repeat it, or mix both, to compare several",
        )
    parser.add_argument("--peers", action="store_true", help="measure MONAI's DynUNet and BasicUNet beside them")
    parser.add_argument("--rounds", default="15", metavar="N", help="timed rounds, at least 3 (default: 15)")
    parser.add_argument("--warmup", default="3", metavar="N", help="untimed rounds before, at least 1 (default: 3)")
    parser.add_argument(
        "--cases",
        default="8",
        metavar="N",
        help="held-out cases whose prediction is timed from file to file, in half of the rounds; 0 leaves it out "
        "(default: 8)",
    )
    parser.add_argument(
        "--device",
        choices=("all", "cpu", "cuda"),
        default="all",
        help="where to measure; all is the processor and one GPU of each kind (default: all)",
    )
    parser.add_argument(
        "--data.root",
        type=Path,
        metavar="DIR",
        help="folder of the data set (default: that of the experiment)",
    )
    parser.add_argument(
        "--num_classes",
        metavar="K",
        help="classes of the networks of --config, background included; no data set is read then",
    )
    parser.add_argument("--num_channels", metavar="C", help="channels of an image beside --num_classes (default: 1)")
    parser.add_argument(
        "--volume_shape",
        nargs=3,
        metavar=("X", "Y", "Z"),
        help="measure time and memory of the prediction of one synthetic volume of so many voxels, from file to file, "
        "in place of the above; on the GPU where there is one",
    )
    parser.add_argument(
        "--volume_spacing",
        nargs=3,
        metavar=("X", "Y", "Z"),
        help="voxel size of that volume in mm (default: that of the network, which then resamples nothing)",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="JSON file of the results (default: benchmark.json, with --volume_shape benchmark_volume.json, in the "
        "baseline's run directory, else in the current folder)",
    )
    return parser


def _target(kind: Kind, text: str) -> Target:
    return Target(kind=kind, path=Path(text))


def _problems(options: Any) -> Iterator[str]:
    if not options.overrides:
        yield "--run_dir or --config must be given, got neither; see --help."
    for target in options.overrides:
        if target.kind == "run_dir" and not target.path.is_dir():
            yield f"--run_dir must be a directory, got {target.path}; check the path."
        if target.kind == "config" and not target.path.is_file():
            yield f"--config must be a YAML file, got {target.path}; check the path."
    paths = [target.path.resolve() for target in options.overrides]
    for path in dict.fromkeys(path for path in paths if paths.count(path) > 1):
        yield f"--run_dir and --config must each name something else, got {path} more than once; leave one out."
    for name, least in LEAST.items():
        value = getattr(options, name)
        if value is not None and (_integer(value) is None or int(value) < least):
            yield f"--{name} must be an integer of at least {least}, got {value}."
    yield from _volume_problems(options)
    root = getattr(options, "data.root")
    runs = [target for target in options.overrides if target.kind == "run_dir"]
    if options.num_classes is not None and runs:
        yield "--num_classes must come with --config alone, got it with --run_dir, which knows its classes."
    if options.num_channels is not None and options.num_classes is None:
        yield "--num_channels must come with --num_classes, got it alone; add it, or let the data set say both."
    if root is not None and not root.exists():
        yield f"--data.root must be the folder of a data set, got {root}; check the path."
    if options.output is not None and options.output.is_dir():
        yield f"--output must be a file, got the folder {options.output}; add a file name."


def _volume_problems(options: Any) -> Iterator[str]:
    shape, spacing = options.volume_shape, options.volume_spacing
    if spacing is not None and any(not (_number(edge) or 0) > 0 for edge in spacing):
        yield f"--volume_spacing must be three numbers above 0, got {' '.join(spacing)}."
    if spacing is not None and shape is None:
        yield "--volume_spacing must come with --volume_shape, got it alone; add it."
    if shape is None:
        return
    if any((_integer(edge) or 0) < 1 for edge in shape):
        yield f"--volume_shape must be three integers of at least 1, got {' '.join(shape)}."
    if len(options.overrides) > 1:
        yield f"--volume_shape must come with one network, got {len(options.overrides)}; measure each alone."
    if options.peers:
        yield "--peers must not come with --volume_shape, which measures the project's prediction; leave one out."


def _number(text: str) -> float | None:
    try:
        return float(text) if math.isfinite(float(text)) else None
    except ValueError:
        return None


def _integer(text: str) -> int | None:
    try:
        return int(text)
    except ValueError:
        return None
