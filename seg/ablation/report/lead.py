"""The first sentences of a report: what to build and what it buys, or why nothing is recommended."""

from __future__ import annotations

from collections.abc import Sequence

from seg.ablation.report.analysis import Analysis
from seg.ablation.report.describe import describe, fraction
from seg.ablation.report.families import Family, families
from seg.ablation.report.numbers import EN_DASH, fixed, in_words, interval, listed, times
from seg.ablation.report.study import DeviceSpeed
from seg.ablation.statistics import MIN_RUNS, Comparison, Recommendation

NAMED = 6
"""Most missing trials that are named in a sentence."""


def lead(analysis: Analysis) -> str:
    """Gives the recommendation with its grounds, as one text."""
    return " ".join(filter(None, (headline(analysis), grounds(analysis))))


def headline(analysis: Analysis) -> str:
    """Says in a sentence what to build, or that there is no recommendation and why."""
    recommendation = analysis.recommendation
    if recommendation is not None:
        return _headline(analysis, recommendation, analysis.device)
    if analysis.records.finished(analysis.baseline):
        return "No recommendation: the study has no variant beside the baseline."
    missing, planned = len(analysis.records.missing), len(analysis.records.study.trials)
    return (
        "No recommendation: the baseline has no finished trial to compare with "
        f"({missing} of {planned} trials are missing)."
    )


def grounds(analysis: Analysis) -> str:
    """Says what the recommended variant buys and what else was shown; empty where nothing was compared."""
    recommendation = analysis.recommendation
    if recommendation is None:
        return ""
    sentences = _grounds(analysis, recommendation, analysis.device)
    if missing := analysis.records.missing:
        sentences.append(f"Provisional: {len(missing)} of {len(analysis.records.study.trials)} trials are missing.")
    return " ".join(sentences)


def per_device(analysis: Analysis) -> tuple[str, ...]:
    """Gives the recommendation for each further device: rows of different devices never mix."""
    return tuple(
        " ".join(
            (
                f"On {device.named}: {_lower(_headline(analysis, one, device))}",
                *_grounds(analysis, one, device, where=""),
            )
        )
        for device, one in zip(
            analysis.records.speed[1:], analysis.recommendations[1:], strict=bool(analysis.recommendations)
        )
    )


def missing_sentence(analysis: Analysis) -> str:
    """Names the missing trials; nothing where there is none."""
    missing = analysis.records.missing
    if not missing:
        return ""
    named = [f"{trial.id} ({trial.reason})" for trial in missing[:NAMED]]
    more = len(missing) - len(named)
    return f"Missing: {', '.join(named)}{f', and {more} more, see the list of trials' if more else ''}."


def _lower(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:]


def _headline(analysis: Analysis, recommendation: Recommendation, device: DeviceSpeed | None) -> str:
    shown = f"shown to lose less than {recommendation.margin:g} Dice in every class"
    if not recommendation.candidates:
        if (runs := _most_runs(analysis)) < MIN_RUNS:
            return (
                f"No recommendation: at least {in_words(MIN_RUNS)} training runs per variant are needed, and this "
                f"study has {in_words(runs)}."
            )
        return f"No variant is recommended: none was {shown}."
    if recommendation.fastest is None or device is None:
        return f"No variant is recommended: latency was not measured, so the fastest of those {shown} is not known."
    if recommendation.speedup is not None and recommendation.speedup <= 1:
        return f"Keep the baseline: no variant {shown} is faster."
    changes = {one.name: one.changes for one in analysis.records.study.variants}[recommendation.fastest]
    return f"Use {recommendation.fastest}: {describe(changes, whole=True) or 'its changes are not stated'}."


def _grounds(
    analysis: Analysis, recommendation: Recommendation, device: DeviceSpeed | None, *, where: str | None = None
) -> list[str]:
    """Gives the sentences for one device, which are to name it unless the caller did."""
    name = recommendation.fastest
    if not recommendation.candidates:
        return _near(analysis)
    if name is None or device is None:
        are = "They are" if len(recommendation.candidates) > 1 else "It is"
        return [f"{are} {listed(recommendation.candidates)}."]
    where = device.named if where is None else where
    said = [_gains(analysis, recommendation, name, device, where)]
    whole = device.spread(name, "prediction_ratio")
    if whole is not None and whole[0] <= 1 and (recommendation.speedup or 0) > 1:
        said.append("From file to file it gains nothing.")
    if (effect := analysis.comparisons[name]).ci95 is not None and effect.ci95[1] < 0:
        said.append(
            f"Its mean Dice falls, within the margin: {fixed(effect.difference, 4, sign=True)} "
            f"({interval(effect.ci95, 4, sign=True)})."
        )
    named, without = [name], []
    for family in families(analysis.records.study):
        narrow = {one: ratio for one, ratio in family.ratios.items() if ratio < 1}
        safe = {one: ratio for one, ratio in narrow.items() if one in recommendation.candidates}
        if safe:
            narrowest = min(safe, key=lambda one: (safe[one], one != name))
            said.append(_narrowest(family, narrowest, safe[narrowest], device, recommended=narrowest == name))
            named.append(narrowest)
        elif narrow:
            without.append(f"no narrower {family.one}")
    if without:
        said.append(f"{listed(without).capitalize()} was shown to be safe.")
    fewest = recommendation.narrowest
    if fewest is not None and fewest not in named and recommendation.macs_ratio is not None:
        share = f"{100 * recommendation.macs_ratio:.0f} %"
        said.append(f"Fewest multiply-accumulates among those shown: {fewest}, with {share} of the baseline's.")
        named.append(fewest)
    known = [one for one in recommendation.candidates if one not in (*named, *recommendation.unmeasured)]
    if known:
        said.append(f"Also shown, but slower than {name}: {listed(known)}.")
    if recommendation.unmeasured:
        said.append(f"Also shown, without a latency: {listed(recommendation.unmeasured)}.")
    return said


def _gains(analysis: Analysis, recommendation: Recommendation, name: str, device: DeviceSpeed, where: str) -> str:
    """Says what the variant buys: from file to file where that was measured, else in the network alone."""
    whole, alone = (device.spread(name, key) for key in ("prediction_ratio", "latency_ratio"))
    network = alone[0] if alone is not None else recommendation.speedup
    subject = "it" if (recommendation.speedup or 2) > 1 else name
    others = [device.spread(one, "prediction_ratio") for one in recommendation.candidates if one != name]
    beaten = whole is not None and any(one is not None and one[0] > whole[0] for one in others)
    alone_words = " in the network alone" if beaten else ""
    first = (
        f"Among the variants shown to lose less than {recommendation.margin:g} Dice in every class {subject} is the "
        f"fastest{alone_words}"
    )
    parts = []
    if whole is not None:
        quartiles = f"{times(whole[1])}{EN_DASH}{times(whole[2])}"
        parts.append(f"{times(whole[0])} times as fast as the baseline from file to file (quartiles {quartiles})")
    if network is not None:
        of = " as fast as the baseline" if whole is None else ""
        parts.append(f"{times(network)} times{of} in the network alone")
    if not parts:
        return f"{first}; its speed was not compared with that of the baseline."
    about = "; ".join(filter(None, (where, "from file to file not measured" if whole is None else "")))
    on = f" ({about})" if about else ""
    return f"{first}: {' and '.join(parts)}{on}{_costs(analysis, name, device)}."


def _costs(analysis: Analysis, name: str, device: DeviceSpeed) -> str:
    """Says what share of the work and of the memory a variant needs."""
    macs = [analysis.macs(one) for one in (name, analysis.baseline)]
    memory = [device.value(one, "peak_memory_inference_mib") for one in (name, analysis.baseline)]
    parts = []
    if macs[0] is not None and macs[1]:
        parts.append(f"{100 * macs[0] / macs[1]:.0f} % of the multiply-accumulates")
    if memory[0] is not None and memory[1]:
        parts.append(f"{times(memory[0] / memory[1])} times the inference memory")
    return f", with {' and '.join(parts)}" if parts else "; its memory was not measured"


def _narrowest(family: Family, name: str, ratio: float, device: DeviceSpeed, *, recommended: bool) -> str:
    """Says which is the narrowest of a family that was shown to be safe."""
    if recommended:
        return f"{name} is the narrowest {family.one} shown to be safe."
    spread = device.spread(name, "prediction_ratio") or device.spread(name, "latency_ratio")
    fast = f", {times(spread[0])} times as fast" if spread is not None else ""
    return f"The narrowest {family.one} shown to be safe keeps {fraction(ratio)} of the channels ({name}{fast})."


def _most_runs(analysis: Analysis) -> int:
    effects = [one.dice.effect for one in analysis.comparisons.values()]
    return max((effect.num_runs for effect in effects if effect is not None), default=0)


def _near(analysis: Analysis) -> list[str]:
    """Names the variants that more runs could decide on, and those that could not be tested."""
    if _most_runs(analysis) < MIN_RUNS:
        return []
    comparisons = analysis.comparisons.values()
    said = []
    if near := [one.variant for one in comparisons if one.p_noninferior is not None and _within(one)]:
        said.append(
            f"Nearest: {listed(near)}, with 95 % intervals (uncorrected) within that margin in every class; more "
            "training runs could show it."
        )
    untested: Sequence[str] = [one.variant for one in comparisons if one.p_noninferior is None]
    if untested:
        said.append(f"Not tested, as trials are missing: {listed(untested)}.")
    return said


def _within(comparison: Comparison) -> bool:
    """Tells whether the interval of every class lies above minus the margin, without a correction for any number."""
    effects = [one.dice.effect for one in comparison.by_class]
    return all(one is not None and one.ci95 is not None and one.ci95[0] > -comparison.margin for one in effects)
