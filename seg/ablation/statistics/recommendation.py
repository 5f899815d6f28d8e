"""The recommendation: among variants that are not inferior in any class, the fastest, and beside it the narrowest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from seg.ablation.statistics.differences import Comparison


@dataclass(frozen=True, kw_only=True)
class Recommendation:
    """What the study recommends, as parts of the sentence that a report makes of it.

    Attributes:
        fastest: Variant of lowest batch-1 latency among `candidates`; None where none of them has a latency.
        narrowest: Variant of fewest multiply-accumulates among `candidates`; None where none has a count.
        latency_ms: Latency of the fastest; None where there is none.
        speedup: Latency of the baseline over that of the fastest: above 1 it is faster than the baseline. None where
            either was not measured.
        macs_ratio: Multiply-accumulates of the narrowest over those of the baseline; None where either is unknown.
        candidates: Variants that are not inferior in any class, in the order of the study.
        unmeasured: Candidates without a latency, which could not compete.
        baseline: The baseline.
        margin: Margin of non-inferiority.
    """

    fastest: str | None
    narrowest: str | None
    latency_ms: float | None
    speedup: float | None
    macs_ratio: float | None
    candidates: tuple[str, ...]
    unmeasured: tuple[str, ...]
    baseline: str
    margin: float


def recommend(
    comparisons: Sequence[Comparison],
    latency_ms: Mapping[str, float],
    *,
    baseline: str,
    macs: Mapping[str, int],
) -> Recommendation:
    """Applies the rule of the study.

    "Narrowest" is read as the fewest multiply-accumulates of one image: they fall with every width, wherever in the
    network it is, while parameters hardly notice the full-resolution stages. Equal values go to the first name.

    Args:
        comparisons: What `paired` gave, not empty.
        latency_ms: Batch-1 latency by variant, of one device; variants that were not measured are absent.
        baseline: Name of the baseline.
        macs: Multiply-accumulates by variant.

    Returns:
        The recommendation.
    """
    candidates = tuple(one.variant for one in comparisons if one.non_inferior)
    fastest = min((name for name in candidates if name in latency_ms), key=lambda x: (latency_ms[x], x), default=None)
    narrowest = min((name for name in candidates if name in macs), key=lambda x: (macs[x], x), default=None)
    return Recommendation(
        fastest=fastest,
        narrowest=narrowest,
        latency_ms=latency_ms[fastest] if fastest else None,
        speedup=latency_ms[baseline] / latency_ms[fastest] if fastest and baseline in latency_ms else None,
        macs_ratio=macs[narrowest] / macs[baseline] if narrowest and baseline in macs else None,
        candidates=candidates,
        unmeasured=tuple(name for name in candidates if name not in latency_ms),
        baseline=baseline,
        margin=comparisons[0].margin,
    )
