"""The manifest beside label maps: the networks that made them, times, volumes and failures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from seg.files import locked, read_json, write_json
from seg.inference.cases import DONE, FAILED, SKIPPED, Record
from seg.runs import NOTICE

MANIFEST_FILE = "predictions.json"
MANIFEST_VERSION = 1
SETTINGS = ("tta", "precision", "clean_up")
"""What changes labels beside the networks."""


@dataclass(frozen=True, kw_only=True)
class Header:
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


def write_manifest(
    path: Path, header: Header, records: Sequence[Record], seconds: dict[str, float], *, complete: bool
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

    Raises:
        RunError: The folder cannot be written.
    """
    with locked(path.with_name(f".{path.name}.lock")):
        write_json(path, _merged(StoredManifest.read(path), header, records, seconds, complete=complete))


def _merged(
    earlier: StoredManifest, header: Header, records: Sequence[Record], seconds: dict[str, float], *, complete: bool
) -> dict[str, Any]:
    made_by = header.made_by()
    unknown: dict[str, Any] = {**dict.fromkeys(made_by), "models": []}
    kept = dict(earlier.entries)
    models = {model["weights_sha256"]: model for model in (*earlier.models, *header.models)}
    for record in records:
        if record.status == SKIPPED:
            if not earlier.describes(record.output):
                kept[record.output] = {**record.as_json(), **unknown, **earlier.made_by(record.output)}
        else:
            kept[record.output] = {**record.as_json(), **(made_by if record.status == DONE else unknown)}
    cases = sorted(kept.values(), key=lambda entry: str(entry["output"]))
    used = {digest for entry in cases for digest in entry["models"]} | set(made_by["models"])
    return {
        "schema_version": MANIFEST_VERSION,
        "notice": NOTICE,
        "complete": complete,
        "models": [model for digest, model in models.items() if digest in used],
        "latest": made_by,
        "environment": header.environment,
        "warnings": list(header.warnings),
        "seconds": _rounded(seconds),
        "cases": cases,
    }


def read_manifest(path: Path) -> dict[str, Any]:
    """Reads an earlier manifest; empty where there is none.

    Raises:
        RunError: The file is no manifest, or a newer program wrote it.
    """
    if not path.exists():
        return {}
    manifest = read_json(path, _Manifest, newest=MANIFEST_VERSION, remedy="remove or rename it")
    return manifest.model_dump(exclude_unset=True)


class _Entry(BaseModel, extra="allow"):
    """A case of a manifest; further fields are kept as they are."""

    output: str
    models: list[str]
    volumes_ml: dict[str, float] = {}


class _Model(BaseModel, extra="allow"):
    """A network of a manifest."""

    weights_sha256: str


class _Making(BaseModel, extra="allow"):
    """What made the label maps of a command."""

    models: list[str] = []


class _Manifest(BaseModel):
    """What is read of a manifest."""

    complete: bool = True
    models: list[_Model]
    latest: _Making = _Making()
    cases: list[_Entry]


@dataclass(frozen=True, kw_only=True)
class StoredManifest:
    """What an earlier manifest says.

    Attributes:
        entries: Entries by output.
        models: Descriptions of networks.
        latest: What made outputs that it does not name: a command that was killed leaves such. Empty of a complete one.
    """

    entries: dict[str, dict[str, Any]]
    models: Sequence[dict[str, Any]]
    latest: dict[str, Any]

    @classmethod
    def read(cls, path: Path) -> StoredManifest:
        """Reads a manifest; see :func:`read_manifest`."""
        content = read_manifest(path)
        models = content.get("models", [])
        latest = content.get("latest", {"models": [model["weights_sha256"] for model in models]})
        return cls(
            entries={entry["output"]: entry for entry in content.get("cases", [])},
            models=models,
            latest={} if content.get("complete", True) else latest,
        )

    def describes(self, output: str) -> bool:
        """Returns whether an entry gives the volumes of a label map; the entry of a failed case does not."""
        return bool(self.entries.get(output, {}).get("volumes_ml"))

    def made_by(self, output: str) -> dict[str, Any]:
        """Returns what made an output: networks and settings, as far as is known."""
        entry = self.entries.get(output, self.latest)
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


def _rounded(seconds: dict[str, float]) -> dict[str, float]:
    return {stage: round(value, 4) for stage, value in seconds.items()}
