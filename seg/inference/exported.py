"""The record beside an exported network: all that a prediction needs of its run, and how it was checked."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass as checked

from seg.config import ExperimentConfig, dump_config
from seg.config.loading import config_from, content_digest
from seg.config.text import parse_yaml
from seg.errors import ConfigError, Problem, RunError, SegError
from seg.files import file_digest, quoted, read_json, unwritable, user_cache
from seg.hardware import package_version
from seg.inference.engines import READERS, Engine, Format
from seg.runs import Description, TrainedRun, read_run

LOG = logging.getLogger(__name__)
EXPORT_VERSION = 1
PACKAGES = ("segnarrow", "torch", "onnx", "onnxscript", *READERS["onnx"])
"""Packages that have a part in an exported network or in its check."""
RECORD_ENDING = ".json"
ENDINGS: Mapping[Format, str] = {"onnx": ".onnx", "openvino": ".xml"}
"""Ending of the file that is named to predict with, by format."""
REMEDY = "restore the file, or export the run anew"
Share = Annotated[float, Field(ge=0, le=1)]
Arithmetic = Literal["fp32", "int8"]
"""Numbers that an exported network computes with: in int8 convolutions alone do, all else is fp32."""


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


class ExportRecord(Description):
    """The content of the JSON file beside an exported network.

    Attributes:
        format: Format of the network's file.
        arithmetic: Numbers that it computes with.
        files: SHA-256 by name of the files of the network, which lie beside the record.
        name: Name of the experiment.
        run: Name of the run directory.
        weights_sha256: Digest of the run's weights.
        config: The experiment: preparation, windows and post-processing are in it.
        config_sha256: Digest of ``config`` as it is here.
        largest_component: Classes of which the largest component alone is kept, as was found on held-out cases.
        checks: How its logits compare with those of torch, by engine and shape; int8 is not judged by them.
        made_with: Versions of the packages that made it.
        certified: Whether a first look showed int8 to be not inferior, see its certificate; None in fp32.
        certified_on: Instruction sets of the processor that int8 was compared with fp32 on; None in fp32.
        record_sha256: Digest of all other fields.
    """

    notice: str = ""
    format: Format
    arithmetic: Arithmetic
    files: dict[str, str]
    name: str
    run: str
    weights_sha256: str
    config: dict[str, Any]
    config_sha256: str
    largest_component: tuple[str, ...]
    checks: tuple[Check, ...]
    made_with: dict[str, str]
    certified: bool | None = None
    certified_on: tuple[str, ...] | None = None
    record_sha256: str = ""

    def digest(self) -> str:
        """Returns the digest of all other fields that were given, by which changes of a record by hand are found."""
        return content_digest(self.model_dump(mode="json", exclude_unset=True, exclude={"record_sha256"}))


@dataclass(frozen=True, kw_only=True)
class ExportedRun(TrainedRun):
    """An exported network: ``path`` is its file.

    Attributes:
        record: What lies beside it.
    """

    record: ExportRecord

    def description(self) -> dict[str, Any]:
        """Describes the network in a manifest: that of the run, and what was made of it."""
        record = self.record
        export: dict[str, Any] = {"format": record.format, "arithmetic": record.arithmetic, "files": record.files}
        export |= {} if record.certified is None else {"certified": record.certified}
        run = {"name": record.name, "run": record.run, "weights_sha256": record.weights_sha256}
        return {**run, "export": export}


def read_run_or_export(path: Path) -> TrainedRun:
    """Reads a run directory, or an exported network in a file."""
    return read_export(path) if path.suffix.lower() in ENDINGS.values() and not path.is_dir() else read_run(path)


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
    if (found := record.digest()) != record.record_sha256:
        rule = f"must be {record.record_sha256[:12]}..., as it was written"
        problems.append(Problem(quoted(str(path)), "digest", rule, f"{found[:12]}...", REMEDY))
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
        classes=record.classes,
        certificate=record.certificate,
        record=record,
    )


def _file_problems(record: Path, name: str, digest: str) -> list[Problem]:
    if Path(name).name != name or name in ("", ".."):
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


def exported_file(run: TrainedRun) -> Path:
    """Returns the file of an exported network; of a run directory it is made once, and kept in the user's cache.

    Raises:
        RunError: The run cannot be exported, or the cache cannot be written.
        ConfigError: A package is missing, or the user has no home.
    """
    if isinstance(run, ExportedRun):
        return run.path
    cache = user_cache()
    if cache is None:
        rule, remedy = "must be exported, which needs a home folder", "give it by `seg export`"
        raise ConfigError(Problem(quoted(str(run.path)), "home", rule, "none", remedy))
    made_of = {
        "weights": run.description()["weights_sha256"],
        "config": exported_config(run.config),
        "with": [package_version(name) for name in PACKAGES],
    }
    file = cache / "networks" / content_digest(made_of)[:32] / f"network{ENDINGS['onnx']}"
    if record_path(file).exists():
        try:
            return read_export(file).path
        except SegError as error:
            LOG.warning("%s; exporting anew", error)
    from seg.inference.export import export_network

    try:  # before the export, which takes long
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=file.parent):
            pass
    except OSError as error:
        remedy = "name another folder by XDG_CACHE_HOME, or run `seg export` yourself"
        raise unwritable(file.parent, error, remedy=remedy) from error
    LOG.info("exporting the network of %s, once; it is kept in %s", run.path, file.parent)
    export_network(run, file, "onnx")
    return file


def exported_config(config: ExperimentConfig) -> dict[str, Any]:
    """Returns a configuration as a record holds it."""
    content: dict[str, Any] = parse_yaml(dump_config(config))
    return content
