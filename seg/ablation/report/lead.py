"""The first sentence of a report: what to use, or that there is nothing to recommend and why."""

from __future__ import annotations

from seg.ablation.report.analysis import Analysis
from seg.ablation.report.numbers import figures, fixed, interval, listed
from seg.ablation.report.study import DeviceSpeed
from seg.ablation.statistics import MIN_RUNS, Comparison, Recommendation

NAMED = 6
"""Most missing trials that are named in a sentence."""


def lead(analysis: Analysis) -> str:
    """Gives the recommendation in a sentence or a few."""
    recommendation = analysis.recommendation
    if recommendation is None:
        if analysis.records.finished(analysis.baseline):
            return f"None is recommended: the study has no variant beside the baseline {analysis.baseline}."
        return (
            f"None is recommended: the baseline {analysis.baseline} has no finished trial to compare with "
            f"({len(analysis.records.missing)} of {len(analysis.records.study.trials)} trials are missing)."
        )
    sentences = [_recommended(analysis, recommendation, analysis.device)]
    if missing := analysis.records.missing:
        sentences.append(f"Provisional: {len(missing)} of {len(analysis.records.study.trials)} trials are missing.")
    return " ".join(sentences)


def missing_sentence(analysis: Analysis) -> str:
    """Names the missing trials; nothing where there is none."""
    missing = analysis.records.missing
    if not missing:
        return ""
    named = [f"{trial.id} ({trial.reason})" for trial in missing[:NAMED]]
    more = len(missing) - len(named)
    return f"Missing: {', '.join(named)}{f', and {more} more, see the list of trials' if more else ''}."


def per_device(analysis: Analysis) -> tuple[str, ...]:
    """Gives a sentence for each further device: rows of different devices never mix."""
    return tuple(
        f"On {device.label}: {_recommended(analysis, recommendation, device, where='')}"
        for device, recommendation in zip(
            analysis.records.speed[1:], analysis.recommendations[1:], strict=bool(analysis.recommendations)
        )
    )


def _recommended(
    analysis: Analysis, recommendation: Recommendation, device: DeviceSpeed | None, *, where: str | None = None
) -> str:
    """Gives the sentence for one device, which it names unless the caller did."""
    margin, baseline = f"margin {recommendation.margin:g}", recommendation.baseline
    if not recommendation.candidates:
        return f"None is recommended: {_why_none(analysis)} (margin {recommendation.margin:g})."
    if recommendation.fastest is None or device is None:
        return (
            f"None is recommended, as latency was not measured; the Dice of {listed(recommendation.candidates)} is not "
            f"inferior to {baseline} in any class ({margin})."
        )
    name = recommendation.fastest
    where = f"on {device.label} " if where is None else where
    sentence = (
        f"{name} is the fastest variant whose Dice is not inferior to {baseline} in any class ({margin}); "
        f"{where}{_gains(name, baseline, recommendation, device)}"
    )
    share = recommendation.macs_ratio
    work = "" if share is None else f", with {100 * share:.0f} % of the multiply-accumulates"
    if recommendation.narrowest == name:
        sentence += f"; it is the narrowest such variant too{work}."
    elif recommendation.narrowest is None:
        sentence += "; the narrowest such variant is not known, as multiply-accumulates were not counted."
    else:
        sentence += f"; the narrowest such variant is {recommendation.narrowest}{work}."
    if recommendation.speedup is not None and recommendation.speedup <= 1:
        sentence += f" No such variant is faster than {baseline}, which stays the better choice."
    elif (whole := device.spread(name, "prediction_ratio")) is not None and whole[0] <= 1:
        sentence += " End to end it gains nothing."
    if (effect := analysis.comparisons[name]).ci95 is not None and effect.ci95[1] < 0:
        sentence += (
            f" Its Dice falls, within the margin: {fixed(effect.difference, 4, sign=True)} "
            f"({interval(effect.ci95, 4, sign=True)})."
        )
    named = (name, recommendation.narrowest, *recommendation.unmeasured)
    if others := [one for one in recommendation.candidates if one not in named]:
        sentence += f" Also not inferior: {listed(others)}."
    if recommendation.unmeasured:
        sentence += f" Not inferior, but without a latency: {listed(recommendation.unmeasured)}."
    return sentence


def _gains(name: str, baseline: str, recommendation: Recommendation, device: DeviceSpeed) -> str:
    """Says what the variant buys: end to end where that was measured, else the network alone."""
    whole, alone = (device.spread(name, key) for key in ("prediction_ratio", "latency_ratio"))
    ratio = alone[0] if alone is not None else recommendation.speedup
    memory = [device.value(which, "peak_memory_inference_mib") for which in (name, baseline)]
    needs = None
    if memory[0] is not None and memory[1]:
        needs = f"needs {figures(memory[0] / memory[1])} times the memory"
    unknown = "its memory was not measured"
    if whole is None and ratio is None:
        return f"its speed was not compared with that of {baseline}; {f'it {needs}' if needs else unknown}"
    if whole is not None:
        network = "" if ratio is None else f" ({figures(ratio)} times in the network alone, batch 1)"
        fast = f"it is {figures(whole[0])} times as fast end to end{network}"
    else:
        fast = f"it is {figures(ratio)} times as fast in the network alone (batch 1; end to end not measured)"
    return f"{fast} and {needs}" if needs else f"{fast}; {unknown}"


def _why_none(analysis: Analysis) -> str:
    """Says what keeps every variant from being recommended."""
    comparisons = analysis.comparisons.values()
    untested = [one.variant for one in comparisons if one.p_noninferior is None]
    if len(untested) == len(analysis.comparisons):
        return f"no variant could be tested against {analysis.baseline}"
    few = [one for one in comparisons if one.dice.effect is not None and one.dice.effect.num_runs < MIN_RUNS]
    if len({one.variant for one in few} | set(untested)) == len(analysis.comparisons):
        return f"it takes {MIN_RUNS} training runs of a variant and of the baseline to tell what other seeds would show"
    why = f"no variant was shown to be not inferior to {analysis.baseline} in every class"
    near = [one.variant for one in comparisons if one.p_noninferior is not None and _within(one)]
    if near:
        why += f"; more seeds could show it of {listed(near)}, whose intervals lie within the margin in every class"
    return f"{why}, and {listed(untested)} could not be tested" if untested else why


def _within(comparison: Comparison) -> bool:
    """Tells whether the interval of every class lies above minus the margin, without a correction for any number."""
    effects = [one.dice.effect for one in comparison.by_class]
    return all(one is not None and one.ci95 is not None and one.ci95[0] > -comparison.margin for one in effects)
