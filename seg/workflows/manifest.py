"""The manifest beside label maps: the networks that made them, times, volumes and failures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from seg.data.volumes import split_ending
from seg.files import locked, read_json, table_text, write_json, write_text
from seg.inference.cases import DONE, FAILED, SKIPPED, Record
from seg.runs import NOTICE

MANIFEST_FILE = "predictions.json"
VOLUMES_FILE = "volumes.csv"
VOLUMES_COLUMNS = ("scan", "path", "class", "ml")
MANIFEST_VERSION = 1
SETTINGS = ("engine", "tta", "precision", "clean_up")
"""What changes labels beside the networks."""


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """What a manifest says of all its cases.

    Attributes:
        models: A description of each network, with the digest of its weights.
        settings: Mirroring, precision and clean-up: what changes labels, as it was really done.
        environment: Versions, device, precision.
        warnings: Sentences on what went other than asked for, in all cases.
    """

    models: Sequence[dict[str, Any]]
    settings: dict[str, Any]
    environment: dict[str, Any]
    warnings: tuple[str, ...] = ()

    def made_by(self) -> dict[str, Any]:
        """Returns what made a label map, as its entry says it."""
        return {"models": [model["weights_sha256"] for model in self.models], **self.settings}


class _Entry(BaseModel, extra="allow"):
    """A case; further fields are kept as they are."""

    output: str
    models: list[str]
    volumes_ml: dict[str, float] = {}


class _Model(BaseModel, extra="allow"):
    weights_sha256: str


class _Making(BaseModel, extra="allow"):
    models: list[str] = []


class StoredManifest(BaseModel):
    """What an earlier manifest says; ``latest`` made the outputs that a killed command wrote and did not name."""

    complete: bool = True
    models: list[_Model]
    latest: _Making | None = None
    cases: list[_Entry]

    @classmethod
    def read(cls, path: Path) -> StoredManifest:
        """Reads a manifest; an absent one has no cases.

        Raises:
            RunError: The file is no manifest, or a newer program wrote it.
        """
        if not path.exists():
            return cls(models=[], cases=[])
        return read_json(path, cls, newest=MANIFEST_VERSION, remedy="remove or rename it")

    @cached_property
    def entries(self) -> dict[str, dict[str, Any]]:
        """Entries by output, with the fields that the file has."""
        return {entry.output: entry.model_dump(exclude_unset=True) for entry in self.cases}

    def describes(self, output: str) -> bool:
        """Returns whether an entry gives the volumes of a label map; the entry of a failed case does not."""
        return bool(self.entries.get(output, {}).get("volumes_ml"))

    def made_by(self, output: str) -> dict[str, Any]:
        """Returns what made an output: networks and settings, as far as is known."""
        if output in self.entries:
            entry = self.entries[output]
        elif self.complete:
            return {}
        elif self.latest is None:
            return {"models": [model.weights_sha256 for model in self.models]}
        else:
            entry = self.latest.model_dump(exclude_unset=True)
        if entry.get("status") == FAILED:  # the file is older than that attempt
            return {}
        return {name: entry[name] for name in ("models", *SETTINGS) if name in entry}

    def made_differently(self, outputs: Sequence[str], made_by: dict[str, Any]) -> dict[str, list[str]]:
        """Lists the outputs that are known to be made differently, by the first setting that differs."""
        found: dict[str, list[str]] = {}
        for output in outputs:
            known = self.made_by(output)
            for name, value in made_by.items():
                theirs = known.get(name)
                if theirs not in (None, []) and _sorted(theirs) != _sorted(value):
                    found.setdefault(name, []).append(output)
                    break
        return found


def _sorted(value: Any) -> Any:
    """Leaves the order of models out of a comparison."""
    return sorted(value) if isinstance(value, list) else value


def write_manifest(
    path: Path,
    header: Provenance,
    records: Sequence[Record],
    seconds: Mapping[str, float],
    *,
    complete: bool,
    table: bool = False,
) -> None:
    """Writes the manifest; entries of an earlier one are kept where these cases do not replace them.

    An entry says what made its label map: of a file that was there before, what the earlier manifest says, or nothing.
    Commands that write into one folder side by side wait for each other, so that none loses an entry of another.

    Args:
        path: The manifest.
        header: What made the label maps.
        records: The cases of this run.
        seconds: Time of the whole run, per stage.
        complete: Whether all cases of this run have been dealt with.
        table: Whether ``volumes.csv`` beside it gets a row for each label map and class.

    Raises:
        RunError: The folder cannot be written.
    """
    with locked(path.with_name(f".{path.name}.lock")):
        earlier, made_by = StoredManifest.read(path), header.made_by()
        unknown: dict[str, Any] = {**dict.fromkeys(made_by), "models": []}
        kept = dict(earlier.entries)
        for record in records:
            if record.status != SKIPPED:
                kept[record.output] = record.as_json() | (made_by if record.status == DONE else unknown)
            elif not earlier.describes(record.output):
                kept[record.output] = record.as_json() | unknown | earlier.made_by(record.output)
        cases = sorted(kept.values(), key=lambda entry: str(entry["output"]))
        used = {digest for entry in cases for digest in entry["models"]} | set(made_by["models"])
        models = {model.weights_sha256: model.model_dump() for model in earlier.models}
        models |= {model["weights_sha256"]: model for model in header.models}
        content = {
            "schema_version": MANIFEST_VERSION,
            "notice": NOTICE,
            "complete": complete,
            "models": [model for digest, model in models.items() if digest in used],
            "latest": made_by,
            "environment": header.environment,
            "warnings": list(header.warnings),
            "seconds": {stage: round(value, 4) for stage, value in seconds.items()},
            "cases": cases,
        }
        if table:
            write_text(path.with_name(VOLUMES_FILE), _volumes(cases))
        write_json(path, content)


def _volumes(cases: Sequence[Mapping[str, Any]]) -> str:
    """Formats the volumes of label maps as a table: scan, path of the label map beside the table, class, ml."""
    rows = [
        (split_ending(entry["output"])[0], entry["output"], name, volume)
        for entry in cases
        for name, volume in entry.get("volumes_ml", {}).items()
    ]
    table = [dict(zip(VOLUMES_COLUMNS, row, strict=True)) for row in rows]
    return table_text(table, columns=VOLUMES_COLUMNS, escape=True)
