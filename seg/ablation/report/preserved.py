"""What bottlenecks preserve over the trials of a study: means, and predicted widths beside those found."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from seg.ablation.preservation import predict_safe_widths
from seg.ablation.preservation.width import THRESHOLD
from seg.ablation.report.trials import Records

AVERAGED = (
    "r2",
    "r2_pca",
    "effective_rank",
    "participation_ratio",
    "cka",
    "amplified",
    "suppressed",
)


@dataclass(frozen=True, kw_only=True)
class Place:
    """One place of a variant, averaged over its trials.

    Attributes:
        variant: The variant.
        name: ``skip_0``, ``decoder_0``, ...
        path: ``skip`` or ``decoder``.
        stage: Stage, 0 at full resolution.
        channels: Channels of the stage, to which ratios refer.
        wide: Channels of the features that enter.
        narrow: Channels that are kept; None without a bottleneck.
        values: Mean over trials by measure: those of `AVERAGED`, and ``probe_wide`` and ``probe_narrow``, the probe's
            mean Dice over classes; what was not measured is absent.
        lowest: Lowest ``r2`` of a trial; None where it was not measured.
        position_preserved: Whether every trial kept position; None where it was not checked.
        num_runs: Trials behind it.
    """

    variant: str
    name: str
    path: str
    stage: int
    channels: int
    wide: int
    narrow: int | None
    values: Mapping[str, float]
    lowest: float | None
    position_preserved: bool | None
    num_runs: int

    @property
    def ratio(self) -> float | None:
        """Channels kept over channels of the stage."""
        return None if self.narrow is None else self.narrow / self.channels


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The width that the baseline's spectrum predicts to be safe at one place, beside what the study found.

    Attributes:
        name: ``skip_0``, ``decoder_0``, ...
        channels: Channels of the stage.
        effective_rank: Effective rank of the baseline's features there, over trials; None where it is not known.
        width: Predicted width, by the first trial of the baseline.
        widths: The width that each of its trials predicts, the first one's first.
        found: Narrowest width there of a variant that is not inferior, of those that have the baseline's channel plan
            and were not made from a prediction; None where there is none.
        variant: That variant.
        tried: Narrowest width there of any such variant with a record; None where none narrows the place.
    """

    name: str
    channels: int
    effective_rank: float | None
    width: int
    widths: tuple[int, ...]
    found: int | None
    variant: str | None
    tried: int | None


def places(records: Records) -> tuple[Place, ...]:
    """Averages each place of each variant over its trials, in the order of the study."""
    found = []
    for name in records.study.names:
        by_place: dict[str, list[Mapping[str, Any]]] = {}
        for trial in records.finished(name):
            for entry in (trial.preservation or {}).get("bottlenecks", ()):
                by_place.setdefault(entry["name"], []).append(entry)
        found += [_average(name, entries) for entries in by_place.values()]
    return tuple(found)


def _average(variant: str, entries: list[Mapping[str, Any]]) -> Place:
    values = {key: [float(entry[key]) for entry in entries if entry.get(key) is not None] for key in AVERAGED}
    for side in ("wide", "narrow"):
        means = [_mean(entry.get(f"probe_dice_{side}")) for entry in entries]
        values[f"probe_{side}"] = [mean for mean in means if mean is not None]
    checks = [entry["position_preserved"] for entry in entries if entry.get("position_preserved") is not None]
    first = entries[0]
    return Place(
        variant=variant,
        name=first["name"],
        path=first["path"],
        stage=int(first["stage"]),
        channels=int(first["channels"]),
        wide=int(first["wide"]),
        narrow=None if first["narrow"] is None else int(first["narrow"]),
        values={key: fmean(found) for key, found in values.items() if found},
        lowest=min(values["r2"], default=None),
        position_preserved=all(checks) if checks else None,
        num_runs=len(entries),
    )


def _mean(scores: list[float | None] | None) -> float | None:
    present = [score for score in scores or () if score is not None]
    return fmean(present) if present else None


def trial_dice(records: Records) -> dict[tuple[str, int, int], float]:
    """Gives the mean Dice of each finished trial: over classes, of the mean over cases."""
    found = {}
    for trial in records.trials.values():
        by_class: dict[int, list[float]] = {}
        for score in trial.scores:
            if score.scores.dice == score.scores.dice:  # NaN: both masks empty
                by_class.setdefault(score.class_index, []).append(score.scores.dice)
        if by_class:
            key = (trial.record.variant, *trial.pair)
            found[key] = fmean(fmean(values) for values in by_class.values())
    return found


def find_predictions(records: Records, non_inferior: Collection[str]) -> tuple[Prediction, ...]:
    """Compares the widths that the spectrum of one baseline calls for with the narrowest that lost nothing.

    A prediction is of one trained baseline, so that of its first trial counts; those of the others are kept beside it.
    A variant that was made from a prediction is a test of it and no finding of its own.

    Args:
        records: The records.
        non_inferior: Variants that are not inferior in any class.

    Raises:
        RunError: The baseline has bottlenecks, or a stage whose features do not vary.
    """
    spectra = [trial.preservation for trial in records.finished(records.study.baseline) if trial.preservation]
    safe = [predict_safe_widths(spectrum) for spectrum in spectra]
    everything = places(records)
    own = {place.name: place for place in everything if place.variant == records.study.baseline}
    widths = {
        f"{path}_{stage}": by_trial
        for path in ("skip", "decoder")
        if safe
        for stage, by_trial in enumerate(zip(*(getattr(one, path) for one in safe), strict=True))
    }
    same_plan = {one.name for one in records.study.variants if "network.channels" not in one.changes}
    counted = same_plan - set(made_from_prediction(everything, widths))
    found = []
    for name, by_trial in widths.items():
        here = [place for place in everything if place.name == name and place.narrow is not None]
        here = [place for place in here if place.variant in counted]
        kept = min((p for p in here if p.variant in non_inferior), key=lambda p: p.narrow or 0, default=None)
        at = own[name]
        found.append(
            Prediction(
                name=at.name,
                channels=at.channels,
                effective_rank=at.values.get("effective_rank"),
                width=by_trial[0],
                widths=by_trial,
                found=kept.narrow if kept else None,
                variant=kept.variant if kept else None,
                tried=min((place.narrow for place in here if place.narrow is not None), default=None),
            )
        )
    return tuple(found)


def made_from_prediction(everything: Sequence[Place], widths: Mapping[str, Sequence[int]]) -> dict[str, int]:
    """Gives the variants that have just the widths which one trial of the baseline predicts, and that trial's number.

    Args:
        everything: Places of all variants.
        widths: The width by trial of the baseline, by place.
    """
    own: dict[str, dict[str, int | None]] = {}
    for place in everything:
        own.setdefault(place.variant, {})[place.name] = place.narrow
    predicted = [dict(zip(widths, by_place, strict=True)) for by_place in zip(*widths.values(), strict=True)]
    return {name: predicted.index(found) for name, found in own.items() if found in predicted}


__all__ = ["THRESHOLD", "Place", "Prediction", "find_predictions", "made_from_prediction", "places", "trial_dice"]
