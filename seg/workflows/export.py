"""The command that hands a trained network on: as ONNX, for OpenVINO, or packed into one file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from seg.errors import ConfigError, Problem, RunError
from seg.files import check_folder, file_problems, quoted, real_path
from seg.inference.archive import ENDING, pack
from seg.inference.exported import ENDINGS, record_path
from seg.runs import read_run, read_runs, warn_uncertified

Form = Literal["onnx", "openvino", "zip"]
FILE_ENDINGS: Mapping[Form, str] = {"onnx": ENDINGS["onnx"], "openvino": ENDINGS["openvino"], "zip": ENDING}


@file_problems()
def export(run_dir: Path, *, format: Form, output: Path | None = None, overwrite: bool = False) -> Path:
    """Exports a trained run and prints what was written.

    Args:
        run_dir: Finished run directory; as ``zip`` it may hold fold_0, fold_1, ...
        format: ``onnx``, ``openvino``, or ``zip`` for the run itself.
        output: The file; None is the run directory's name with the ending of the format.
        overwrite: Whether files that are there are replaced.

    Returns:
        The file to predict with.

    Raises:
        SegError: The run or the file cannot be used, or the exported network computes something else than torch.
    """
    runs = read_runs([run_dir]) if format == "zip" else (read_run(run_dir),)
    target = output or default_file(run_dir, FILE_ENDINGS[format])
    check_target(target, format, overwrite=overwrite)
    warn_uncertified(runs)
    if format == "zip":
        pack(runs, target)
        print(f"packed: {target}")
        return target
    from seg.inference.export import describe, export_network

    record = export_network(runs[0], target, format)
    print(describe(record))
    print(f"exported: {target}\nrecord: {record_path(target)}")
    return target


def default_file(run_dir: Path, ending: str) -> Path:
    """Returns the file beside a run directory that has its name and an ending."""
    real = real_path(run_dir)
    return real.with_name(real.name + ending)


def check_target(target: Path, format: Form, *, overwrite: bool, beside: Sequence[Path] = ()) -> None:
    """Checks the name of a file to export to, and that nothing is replaced unasked.

    Args:
        target: The file.
        format: Its format, which decides its ending and what else is written.
        overwrite: Whether files that are there are replaced.
        beside: Further files that are written.

    Raises:
        ConfigError: The ending is another.
        RunError: A file is there already, or the folder is none.
    """
    if target.suffix != FILE_ENDINGS[format]:
        rule = f"must end in {FILE_ENDINGS[format]} for --format {format}"
        raise ConfigError(Problem("--output", "ending", rule, target.name, "rename it"))
    check_folder(target.parent, given=target)
    written = [target, *([] if format == "zip" else [record_path(target)]), *beside]
    written += [target.with_suffix(".bin")] if format == "openvino" else []
    if not overwrite and (existing := [path for path in written if path.exists()]):
        remedy = "choose another --output, or replace it with --overwrite"
        raise RunError(Problem(quoted(str(existing[0])), "exists", "must be new", "an existing file", remedy))
