"""The file of what a run preserves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from seg.files import read_versioned, reading

PRESERVATION_VERSION = 1


def read_preservation(path: Path) -> dict[str, Any]:
    """Reads a ``preservation.json``.

    Raises:
        RunError: It is absent, no such record, or of a newer version.
    """
    with reading(path, what="a whole preservation record", remedy="measure the run again"):
        content = read_versioned(path, PRESERVATION_VERSION)
        return content | {"bottlenecks": content["bottlenecks"]}
