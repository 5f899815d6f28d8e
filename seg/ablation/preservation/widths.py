"""The file of what a run preserves, and the widths that its spectrum calls for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import BaseModel

from seg.errors import Problem, RunError

PRESERVATION_VERSION = 1
THRESHOLD = 0.95
"""Share of the features' variance that a safe width must be able to keep.

The custom of principal component analysis, fixed before any narrow network was trained; it is not tuned on Dice.
"""


class PlaceRecord(BaseModel, frozen=True):
    """A place in ``preservation.json``, as far as widths are predicted from it.

    Attributes:
        name: ``skip_0``, ``decoder_0``, ...
        path: ``skip`` or ``decoder``.
        stage: Stage, 0 at full resolution.
        narrow: Channels that are kept; None without a bottleneck.
        r2_by_width: Share of variance that the best code of 1, 2, ... channels keeps; None where nothing varies.
    """

    name: str
    path: str
    stage: int
    narrow: int | None
    r2_by_width: tuple[float | None, ...]


@dataclass(frozen=True, kw_only=True)
class SafeWidths:
    """Predicted widths, one per stage above the bottom, from full resolution down.

    Attributes:
        skip: Channels of each skip bottleneck.
        decoder: Channels of each decoder bottleneck.
    """

    skip: tuple[int, ...]
    decoder: tuple[int, ...]


def predict_safe_widths(places: Sequence[PlaceRecord]) -> SafeWidths:
    """Predicts the narrowest safe bottleneck of every stage from one trained network without bottlenecks.

    A width is safe where its best linear code could keep the share `THRESHOLD` of the variance of the features that
    enter. That is a ceiling for every bottleneck of the width and says nothing of what the task needs, so the
    prediction has to be trained and compared.

    Args:
        places: Record of the baseline.

    Raises:
        RunError: The record has bottlenecks, or a stage whose features do not vary.
    """
    if narrowed := [place.name for place in places if place.narrow is not None]:
        rule, value = "must be of a network without bottlenecks", f"one with {', '.join(narrowed)}"
        raise RunError(Problem("preservation record", "network", rule, value, "take the baseline's"))
    ordered = sorted(places, key=lambda place: place.stage)
    return SafeWidths(
        skip=tuple(_width(place) for place in ordered if place.path == "skip"),
        decoder=tuple(_width(place) for place in ordered if place.path == "decoder"),
    )


def _width(place: PlaceRecord) -> int:
    shares = [share for share in place.r2_by_width if share is not None]
    if len(shares) < len(place.r2_by_width) or not shares:
        rule, value = f"must have features that vary at {place.name}", "a variance of 0"
        raise RunError(Problem("preservation record", "variance", rule, value, "take a trained network"))
    return next(width for width, share in enumerate(shares, start=1) if share >= THRESHOLD)
