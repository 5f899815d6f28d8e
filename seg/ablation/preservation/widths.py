"""The file of what a run preserves, and the widths that it predicts to be safe, as a point of a study."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from seg.errors import ConfigError, RunError
from seg.files import read_json, write_text

PRESERVATION_VERSION = 1


def read_preservation(path: Path) -> dict[str, Any]:
    """Reads a ``preservation.json``.

    Raises:
        RunError: It is absent, no such record, or of a newer version.
    """
    record = read_json(path, _Record, newest=PRESERVATION_VERSION, remedy="measure the run again")
    return {"bottlenecks": record.bottlenecks, **(record.model_extra or {})}


class _Record(BaseModel, extra="allow"):
    bottlenecks: list[dict[str, Any]]


THRESHOLD = 0.95
"""Share of the features' variance that a safe width must be able to keep.

The custom of principal component analysis, fixed before any narrow network was trained; it is not tuned on Dice.
"""


@dataclass(frozen=True, kw_only=True)
class SafeWidths:
    """Predicted widths, one per stage above the bottom, from full resolution down.

    Attributes:
        threshold: Share of variance asked for.
        channels: Channels of the stages, to which ratios refer.
        skip: Channels of each skip bottleneck.
        decoder: Channels of each decoder bottleneck.
    """

    threshold: float
    channels: tuple[int, ...]
    skip: tuple[int, ...]
    decoder: tuple[int, ...]

    @property
    def skip_ratio(self) -> tuple[float, ...]:
        """Value of ``network.skip_bottleneck.ratio``."""
        return tuple(width / channels for width, channels in zip(self.skip, self.channels, strict=True))

    @property
    def decoder_ratio(self) -> tuple[float, ...]:
        """Value of ``network.decoder_bottleneck.ratio``."""
        return tuple(width / channels for width, channels in zip(self.decoder, self.channels, strict=True))


def predict_safe_widths(preservation: Mapping[str, Any], threshold: float = THRESHOLD) -> SafeWidths:
    """Predicts the narrowest safe bottleneck of every stage from one trained network without bottlenecks.

    A width is safe where its best linear code could keep the share ``threshold`` of the variance of the features that
    enter. That is a ceiling for every bottleneck of the width and says nothing of what the task needs, so the
    prediction has to be trained and compared.

    Args:
        preservation: Content of ``preservation.json`` of the baseline.
        threshold: Share in (0, 1].

    Raises:
        ConfigError: The threshold is out of range.
        RunError: The record has bottlenecks, or a stage whose features do not vary.
    """
    if not 0 < threshold <= 1:
        raise ConfigError(f"threshold must be in (0, 1], got {threshold}; it is a share of variance.")
    places = sorted(preservation["bottlenecks"], key=lambda place: int(place["stage"]))
    if narrowed := [place["name"] for place in places if place["narrow"] is not None]:
        raise RunError(
            f"preservation record must be of a network without bottlenecks, got one with {', '.join(narrowed)}; "
            "take the baseline's."
        )
    widths = {
        path: tuple(_width(place, threshold) for place in places if place["path"] == path)
        for path in ("skip", "decoder")
    }
    channels = tuple(int(place["channels"]) for place in places if place["path"] == "skip")
    return SafeWidths(threshold=threshold, channels=channels, skip=widths["skip"], decoder=widths["decoder"])


def _width(place: Mapping[str, Any], threshold: float) -> int:
    shares = place["r2_by_width"]
    if any(share is None for share in shares):
        raise RunError(
            f"preservation record must have features that vary at {place['name']}, got a variance of 0; "
            "take a trained network."
        )
    # The last share is 1 up to rounding, so that a threshold of 1 asks for every channel that varies.
    limit = min(threshold, float(shares[-1]))
    return next(width for width, share in enumerate(shares, start=1) if share >= limit)


def spectrum_point(safe: SafeWidths) -> dict[str, Any]:
    """Returns predicted widths as a point of a study's list: a name and the fields that it sets."""
    return {
        "name": "spectrum",
        "set": {
            "network.skip_bottleneck.ratio": list(safe.skip_ratio),
            "network.decoder_bottleneck.ratio": list(safe.decoder_ratio),
        },
    }


def write_point(record: Path, output: Path, threshold: float = THRESHOLD) -> SafeWidths:
    """Writes the predicted widths of a baseline's record as YAML, to be put among the ``points`` of a study.

    Args:
        record: ``preservation.json`` of the baseline.
        output: The YAML file.
        threshold: Share of variance in (0, 1].

    Returns:
        The widths.

    Raises:
        ConfigError: The threshold is out of range.
        RunError: The record cannot be read or is not the baseline's, or the file cannot be written.
    """
    safe = predict_safe_widths(read_preservation(record), threshold)
    point = yaml.safe_dump([spectrum_point(safe)], sort_keys=False, default_flow_style=None)
    heading = (
        f"# Narrowest widths that can keep {threshold:.0%} of the variance of the baseline's features:\n"
        f"# skip {list(safe.skip)}, decoder {list(safe.decoder)} of {list(safe.channels)} channels.\n"
    )
    write_text(output, heading + point)
    return safe
