"""What bottlenecks preserve of the features that they narrow, and the widths that a spectrum calls for.

Importing this package imports no torch: a report reads records and needs neither networks nor images.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from seg.ablation.preservation.widths import (
    SafeWidths,
    predict_safe_widths,
    read_preservation,
    spectrum_point,
    write_point,
)

if TYPE_CHECKING:
    from seg.ablation.preservation.run import measure_preservation

__all__ = [
    "SafeWidths",
    "measure_preservation",
    "predict_safe_widths",
    "read_preservation",
    "spectrum_point",
    "write_point",
]


def __getattr__(name: str) -> Any:
    """Imports what needs torch when it is asked for."""
    if name == "measure_preservation":
        from seg.ablation.preservation.run import measure_preservation

        return measure_preservation
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
