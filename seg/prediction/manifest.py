"""The manifest beside predictions: what made them, how long it took, what was found, what failed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from seg.errors import RunError
from seg.files import write_json
from seg.layout import NOTICE

MANIFEST_FILE = "predictions.json"
MANIFEST_VERSION = 1
DONE, FAILED, SKIPPED = "done", "failed", "skipped"


@dataclass(frozen=True, kw_only=True)
class Record:
    """What became of a case.

    Attributes:
        output: Name of the label map within the manifest's folder.
        status: ``done``, ``failed``, or ``skipped`` where the label map was there before.
        volumes_ml: Volume of each foreground class, in ml.
        seconds: Time per stage.
        warnings: Sentences.
        problems: Why it failed.
    """

    output: str
    status: str
    volumes_ml: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Returns the record's entry."""
        return {
            "output": self.output,
            "status": self.status,
            "volumes_ml": {name: round(volume, 6) for name, volume in self.volumes_ml.items()},
            "seconds": _rounded(self.seconds),
            "warnings": list(self.warnings),
            "problems": list(self.problems),
        }


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a manifest says of all its cases.

    Attributes:
        models: A description of each network, with the digest of its weights.
        settings: Mirroring and other choices that change labels.
        environment: Versions, device, precision.
    """

    models: Sequence[dict[str, Any]]
    settings: dict[str, Any]
    environment: dict[str, Any]


def write_manifest(
    path: Path, header: Header, records: Sequence[Record], seconds: dict[str, float], *, complete: bool
) -> None:
    """Writes the manifest; entries of an earlier one are kept where these cases do not replace them.

    Args:
        path: The manifest.
        header: What made the label maps.
        records: The cases of this run.
        seconds: Time of the whole run, per stage.
        complete: Whether all cases of this run have been dealt with.

    Raises:
        RunError: The folder cannot be written.
    """
    digests = [model["weights_sha256"] for model in header.models]
    earlier = read_manifest(path)
    kept = {entry["output"]: entry for entry in earlier.get("cases", [])}
    models = {model["weights_sha256"]: model for model in (*earlier.get("models", []), *header.models)}
    for record in records:
        if record.status == SKIPPED and record.output in kept:
            continue
        made_by = [] if record.status == SKIPPED else digests
        kept[record.output] = {**record.as_json(), "models": made_by, **header.settings}
    cases = sorted(kept.values(), key=lambda entry: str(entry["output"]))
    used = {digest for entry in cases for digest in entry["models"]} | set(digests)
    write_json(
        path,
        {
            "schema_version": MANIFEST_VERSION,
            "notice": NOTICE,
            "complete": complete,
            "models": [model for digest, model in models.items() if digest in used],
            "environment": header.environment,
            "seconds": _rounded(seconds),
            "cases": cases,
        },
    )


def read_manifest(path: Path) -> dict[str, Any]:
    """Reads an earlier manifest; empty where there is none.

    Raises:
        RunError: The file is no manifest, or a newer program wrote it.
    """
    try:
        content = json.loads(path.read_bytes())
        version = content["schema_version"]
        for entry in content["cases"]:
            if not isinstance(entry["output"], str) or not isinstance(entry["models"], list):
                raise TypeError
        if not isinstance(version, int) or not all(isinstance(m["weights_sha256"], str) for m in content["models"]):
            raise TypeError
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path}: must be a manifest of predictions, got other content; remove or rename it.") from error
    if version > MANIFEST_VERSION:
        raise RunError(f"{path}: schema version must be at most {MANIFEST_VERSION}, got {version}; update seg.")
    return dict(content)


def made_by_others(path: Path, outputs: Sequence[str], models: Sequence[dict[str, Any]]) -> list[str]:
    """Lists the outputs that an earlier manifest says other networks made.

    A run that was killed leaves label maps that its manifest does not name yet: they are of the networks that it names.
    """
    digests = sorted(model["weights_sha256"] for model in models)
    earlier = read_manifest(path)
    known = {entry["output"]: entry["models"] for entry in earlier.get("cases", [])}
    cut_short = [] if earlier.get("complete", True) else [model["weights_sha256"] for model in earlier["models"]]
    makers = {name: known.get(name) or cut_short for name in outputs}
    return [name for name, made_by in makers.items() if made_by and sorted(made_by) != digests]


def _rounded(seconds: dict[str, float]) -> dict[str, float]:
    return {stage: round(value, 4) for stage, value in seconds.items()}
