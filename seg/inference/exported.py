"""The record beside an exported network: all that a prediction needs of its run, and how it was checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass as checked

from seg.config import ExperimentConfig
from seg.config.loading import config_from, content_digest
from seg.errors import Problem, RunError
from seg.files import file_digest, quoted, read_json
from seg.inference.engines import Engine, Format
from seg.runs import TrainedRun

EXPORT_VERSION = 1
RECORD_ENDING = ".json"
ENDINGS: Mapping[Format, str] = {"onnx": ".onnx", "openvino": ".xml"}
"""Ending of the file that is named to predict with, by format."""
REMEDY = "restore the file, or export the run anew"
Share = Annotated[float, Field(ge=0, le=1)]


@checked(frozen=True, kw_only=True)
class Check:
    """How an engine's logits of one shape compare with those of torch, both in fp32 on the processor.

    Attributes:
        engine: The engine, which ran the exported file.
        shape: Shape (B, C, X, Y, Z) of the windows.
        equal_labels: Share of voxels with the same most likely class.
        largest_difference: Largest difference of two logits, relative to the largest logit.
    """

    engine: Engine
    shape: tuple[int, int, int, int, int]
    equal_labels: Share
    largest_difference: Annotated[float, Field(ge=0)]


@checked(frozen=True, kw_only=True)
class ExportRecord:
    """The content of the JSON file beside an exported network.

    Attributes:
        format: Format of the network's file.
        arithmetic: Numbers that it computes with.
        files: SHA-256 by name of the files of the network, which lie beside the record.
        model: The run: name, directory, and SHA-256 of the weights.
        channel_names: Channels of an image.
        class_names: Classes, the background first.
        largest_component: Classes of which the largest component alone is kept, as was found on held-out cases.
        config: The experiment: preparation, windows and post-processing are in it.
        config_sha256: Its digest.
        checks: What the check found, by engine and shape.
        made_with: Versions of the packages that made it.
    """

    format: Format
    arithmetic: Literal["fp32"]
    files: dict[str, str]
    model: dict[str, str]
    channel_names: tuple[str, ...]
    class_names: tuple[str, ...]
    largest_component: tuple[str, ...]
    config: dict[str, Any]
    config_sha256: str
    checks: tuple[Check, ...]
    made_with: dict[str, str]
    notice: str = ""


@dataclass(frozen=True, kw_only=True)
class ExportedRun(TrainedRun):
    """An exported network: ``path`` is its file.

    Attributes:
        record: What lies beside it.
    """

    record: ExportRecord

    def description(self) -> dict[str, Any]:
        """Describes the network in a manifest: that of the run, and what was made of it."""
        made = {"format": self.record.format, "arithmetic": self.record.arithmetic}
        return {**self.record.model, "export": {**made, "files": self.record.files}}


def is_export(path: Path) -> bool:
    """Tells whether a path is that of an exported network rather than of a run directory."""
    return path.is_file() and path.suffix.lower() in ENDINGS.values()


def record_path(file: Path) -> Path:
    """Returns the file of the record of an exported network."""
    return file.with_name(file.name + RECORD_ENDING)


def read_export(file: Path) -> ExportedRun:
    """Reads the record of an exported network, and checks that its files are those that were exported.

    Raises:
        RunError: The record is absent or damaged, or of a newer version, or a file is absent or another one.
        ConfigError: The configuration in it is of a newer version, or damaged.
    """
    path = record_path(file)
    record = read_json(path, ExportRecord, newest=EXPORT_VERSION, remedy=REMEDY)
    problems = []
    if file.name not in record.files:
        value = ", ".join(record.files) or "none"
        problems.append(Problem(f"{quoted(str(path))}: files", "missing", f"must name {file.name}", value, REMEDY))
    for name, digest in record.files.items():
        problems += _file_problems(path, name, digest)
    if content_digest(record.config) != record.config_sha256:
        rule, value = f"must be {record.config_sha256[:12]}...", f"{content_digest(record.config)[:12]}..."
        problems.append(Problem(f"{quoted(str(path))}: config", "digest", rule, value, REMEDY))
    if problems:
        raise RunError(problems)
    return ExportedRun(
        path=file,
        config=config_from(record.config, path),
        channel_names=record.channel_names,
        class_names=record.class_names,
        record=record,
    )


def _file_problems(record: Path, name: str, digest: str) -> list[Problem]:
    if Path(name).name != name:
        rule = "must name files beside the record"
        return [Problem(f"{quoted(str(record))}: files", "path", rule, repr(name), REMEDY)]
    file = record.with_name(name)
    if not file.is_file():
        return [Problem(quoted(str(file)), "missing", "must lie beside its record", remedy=REMEDY)]
    found = file_digest(file).hex()
    if found == digest:
        return []
    rule = f"must be {digest[:12]}... as {record.name} says"
    return [Problem(f"{quoted(str(file))}: SHA-256", "digest", rule, f"{found[:12]}...", REMEDY)]


def exported_config(config: ExperimentConfig) -> dict[str, Any]:
    """Returns a configuration as a record holds it."""
    from seg.config import dump_config
    from seg.config.text import parse_yaml

    content: dict[str, Any] = parse_yaml(dump_config(config))
    return content
