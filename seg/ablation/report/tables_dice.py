"""The main table, and the differences by class."""

from __future__ import annotations

from seg.ablation.report.analysis import Analysis
from seg.ablation.report.document import Cell, Table, row
from seg.ablation.report.numbers import (
    NOT_MEASURED,
    NOTHING,
    billions,
    counted,
    figures,
    fixed,
    interval,
    listed,
    millions,
    probability,
    times,
)
from seg.ablation.report.preserved import trial_dice
from seg.ablation.report.study import DeviceSpeed, VariantRecord
from seg.ablation.statistics import MIN_RUNS, ClassComparison, Comparison, MetricEffect

LEVEL = 0.025
"""One-sided level of the test for non-inferiority."""
SPREAD = 0.03
"""Standard deviation of training runs in mean Dice above which each of them is shown: one may have failed to learn."""


def main_table(analysis: Analysis) -> Table:
    """Gives the table of all variants: Dice, verdicts and what each costs."""
    study, device = analysis.records.study, analysis.device
    classes = study.class_names[1:]
    where = "speed was not measured" if device is None else f"speed and memory on {device.label}"
    return Table(
        columns=(
            "Variant",
            "Parameters (M)",
            "GMAC",
            "Mean Dice",
            "Difference",
            "p (Holm)",
            "Not inferior",
            *(f"Not inferior: {name}" for name in classes),
            "Latency",
            "Training step",
            "End to end",
            "Memory (MiB)",
        ),
        rows=tuple(_row(analysis, number, variant) for number, variant in enumerate(study.variants)),
        caption=f"Main table; {where}. Below Dice and differences stand 95 % intervals over training runs and "
        f"patients. Not inferior: every class loses less than the margin {study.margin:g}, one-sided 97.5 %, after "
        "Holm's correction over variants; a single class is given without that correction. Latency (batch 1), training "
        "step and end to end (file to file) are times as fast as the baseline, with quartiles of rounds; memory is "
        "the peak of inference, below it that of training.",
        wide=True,
    )


def _row(analysis: Analysis, number: int, variant: VariantRecord) -> tuple[Cell, ...]:
    name, study = variant.name, analysis.records.study
    head = Cell(text=f"{number} {name}", note=_head_note(analysis, name))
    cells = [head, Cell(text=millions(variant.parameters)), Cell(text=billions(variant.macs)), _dice(analysis, name)]
    classes = len(study.class_names) - 1
    if name == study.baseline:
        cells += [Cell(text="baseline"), *[Cell(text=NOTHING)] * (2 + classes)]
    else:
        cells += _verdicts(analysis.comparisons.get(name), classes)
    return (*cells, *_costs(analysis.device, name, baseline=study.baseline))


def _dice(analysis: Analysis, name: str) -> Cell:
    """Gives the mean Dice of a variant."""
    mean = analysis.mean_dice.get(name)
    if mean is None:
        return Cell(text=NOT_MEASURED)
    return Cell(text=fixed(mean.difference, 4), note=interval(mean.ci95, 4))


def _head_note(analysis: Analysis, name: str) -> str:
    """Says which trials of a variant are missing, and the Dice of every run where runs differ much."""
    notes = []
    if missing := analysis.records.missing_of(name):
        planned = len(missing) + len(analysis.records.finished(name))
        short = [
            trial.id.removeprefix(f"{name}.").replace("fold_", "fold ").replace(".seed_", " seed ") for trial in missing
        ]
        notes.append(f"{planned - len(missing)} of {planned} trials; missing: {', '.join(short)}")
    mean = analysis.mean_dice.get(name)
    spread = mean.components.run if mean is not None and mean.components is not None else None
    if spread is not None and spread > SPREAD:
        runs = sorted(
            (pair, dice) for (variant, *pair), dice in trial_dice(analysis.records).items() if variant == name
        )
        several = len(analysis.records.study.folds) > 1
        names = [f"fold {fold} seed {seed}" if several else f"seed {seed}" for (fold, seed), _ in runs]
        notes.append(
            "Dice " + ", ".join(f"{run}: {fixed(dice, 4)}" for run, (_, dice) in zip(names, runs, strict=True))
        )
    return "; ".join(notes)


def _verdicts(one: Comparison | None, classes: int) -> list[Cell]:
    if one is None or one.dice.effect is None:
        return [Cell(text=NOT_MEASURED)] * (3 + classes)
    difference = Cell(text=fixed(one.difference, 4, sign=True), note=interval(one.ci95, 4, sign=True))
    verdict = Cell(text=NOT_MEASURED) if one.p_noninferior is None else Cell(text="yes" if one.non_inferior else "no")
    return [difference, Cell(text=probability(one.p_holm)), verdict, *map(class_verdict, one.by_class)]


def class_verdict(one: ClassComparison) -> Cell:
    """Says whether a variant is not inferior in one class, without a correction for the number of variants."""
    effect = one.dice.effect
    if effect is None or effect.p_noninferior is None:
        return Cell(text=NOT_MEASURED)
    if effect.num_runs < MIN_RUNS:
        return Cell(text="no", note=f"{counted(effect.num_runs, 'run')}, {MIN_RUNS} are needed")
    return Cell(text="yes" if effect.p_noninferior <= LEVEL else "no", note=fixed(effect.difference, 4, sign=True))


def _costs(device: DeviceSpeed | None, name: str, *, baseline: str) -> list[Cell]:
    keys = ("latency_ratio", "training_step_ratio", "prediction_ratio")
    if device is None:
        return [Cell(text=NOT_MEASURED)] * (len(keys) + 1)
    cells = []
    for key in keys:
        spread = device.spread(name, key)
        # The baseline over itself is 1 by definition, in so far as it was measured at all.
        note = "" if spread is None or name == baseline else f"{times(spread[1])}\N{EN DASH}{times(spread[2])}"
        cells.append(Cell(text=times(None if spread is None else spread[0]), note=note))
    inference, training = (device.value(name, f"peak_memory_{kind}_mib") for kind in ("inference", "training"))
    note = figures(training) if inference is not None or training is not None else ""
    return [*cells, Cell(text=figures(inference), note=note)]


def class_table(analysis: Analysis) -> Table:
    """Gives the differences of Dice, HD95 and NSD in every class."""
    rows = []
    for name, one in analysis.comparisons.items():
        if one.dice.effect is None:
            continue
        for each in (None, *one.by_class):
            scores = one if each is None else each
            rows.append(
                row(
                    name,
                    "mean over classes" if each is None else each.name,
                    _effect(scores.dice, 4),
                    _effect(scores.nsd, 4),
                    _effect(scores.hd95_mm, 3),
                    _absent(scores.hd95_mm),
                )
            )
    tolerance = analysis.records.study.data.get("nsd_tolerance_mm")
    at = f" at {tolerance:g} mm" if tolerance is not None else ""
    return Table(
        columns=("Variant", "Class", "Dice", f"NSD{at}", "HD95 (mm)", "HD95 infinite"),
        rows=tuple(rows),
        caption="Paired differences from the baseline with 95 % intervals. Dice and NSD above 0 are better, HD95 below "
        "0 is. An HD95 is infinite where one of two masks is empty: such cases are left out of its mean and counted.",
    )


def _effect(one: MetricEffect, digits: int) -> Cell:
    if one.effect is None:
        return Cell(text=NOT_MEASURED)
    return Cell(text=fixed(one.effect.difference, digits, sign=True), note=interval(one.effect.ci95, digits, sign=True))


def _absent(one: MetricEffect) -> Cell:
    """Counts the infinite scores of both sides."""
    if not one.infinite_baseline and not one.infinite_variant:
        return Cell(text="0")
    return Cell(text=str(one.infinite_variant), note=f"baseline {one.infinite_baseline}")


def limits(analysis: Analysis) -> list[str]:
    """Says what limits the comparisons."""
    said = [f"{one.variant}: {note}." for one in analysis.comparisons.values() for note in one.notes]
    if analysis.records.others:
        said.append(f"Records of trials that the study does not name are left out: {listed(analysis.records.others)}.")
    return said + _other_code(analysis)


def _other_code(analysis: Analysis) -> list[str]:
    """Names the variants whose trials other code trained than the baseline's, of the same fold and seed."""
    study = analysis.records.study
    codes = {
        name: {trial.pair: trial.record.fingerprint.code for trial in analysis.records.finished(name)}
        for name in study.names
    }
    number = len({code for pairs in codes.values() for code in pairs.values()})
    if number <= 1:
        return []
    baseline = codes.pop(study.baseline)
    crossed = [
        name for name, pairs in codes.items() if any(pairs[pair] != baseline[pair] for pair in pairs & baseline.keys())
    ]
    whom = f" Other code than the baseline's trained {listed(crossed)}." if crossed else ""
    return [f"Trials were trained by {number} versions of the code; the list of trials says which by which.{whom}"]
