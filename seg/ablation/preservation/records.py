"""The file of what a run preserves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from seg.errors import RunError

PRESERVATION_FILE = "preservation.json"
PRESERVATION_VERSION = 1


def read_preservation(path: Path) -> dict[str, Any]:
    """Reads a ``preservation.json``.

    Raises:
        RunError: It is absent, no such record, or of a newer version.
    """
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        version, _ = int(content["schema_version"]), content["bottlenecks"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"{path}: must be a whole preservation record, got {type(error).__name__}; measure the run again."
        ) from error
    if version > PRESERVATION_VERSION:
        raise RunError(
            f"{path}: schema version must be at most {PRESERVATION_VERSION}, got {version}; it was written by a newer "
            "release, update seg."
        )
    return content
