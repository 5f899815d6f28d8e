"""The main table, and what limits it."""

from __future__ import annotations

from seg.ablation.report.analysis import Analysis
from seg.ablation.report.cells import CUT, cut_mark, effect_cell
from seg.ablation.report.document import Cell, Table
from seg.ablation.report.numbers import (
    NOT_MEASURED,
    NOTHING,
    billions,
    counted,
    figures,
    fixed,
    in_words,
    interval,
    listed,
    millions,
    probability,
    times,
)
from seg.ablation.report.preserved import trial_dice
from seg.ablation.report.study import DeviceSpeed, VariantRecord
from seg.ablation.statistics import MIN_RUNS, ClassComparison, Comparison

AT_MOST = "\N{LESS-THAN OR EQUAL TO}"
LEVEL = 0.025
"""One-sided level of the test for non-inferiority."""
SPREAD = 0.03
"""Standard deviation of training runs in mean Dice above which each of them is shown: one may have failed to learn."""


def main_table(analysis: Analysis) -> Table:
    """Gives the table of all variants: the verdict, what is lost, what is bought, and the rest."""
    study, device = analysis.records.study, analysis.device
    classes = study.class_names[1:] if gives_verdicts(analysis) else ()
    where = "speed was not measured" if device is None else f"speed and memory on {device.label}"
    given = gives_verdicts(analysis)
    return Table(
        columns=(
            "Variant",
            *(("Not inferior",) if given else ()),
            "Difference",
            "End to end",
            "Latency",
            "Memory (MiB)",
            "Mean Dice",
            *(("p (Holm)", *(f"Not inferior: {name}" for name in classes)) if given else ()),
            "Training step",
            "GMAC",
            "Parameters (M)",
        ),
        rows=tuple(_row(analysis, number, variant) for number, variant in enumerate(study.variants)),
        caption=f"Main table; {where}. Small print under Dice and differences is the 95 % interval over training runs "
        f"and patients{_cut_words(analysis)}. {_verdict_words(analysis)} Speeds (end to end from file to file, latency "
        "of batch 1, training step) are multiples of the baseline (above 1 is faster), with quartiles. Memory is peak "
        "inference; below it, peak training.",
        wide=True,
    )


def gives_verdicts(analysis: Analysis) -> bool:
    """Tells whether any variant has the training runs that a verdict takes, or nothing could be compared."""
    effects = [one.dice.effect for one in analysis.comparisons.values() if one.dice.effect is not None]
    return not effects or any(effect.num_runs >= MIN_RUNS for effect in effects)


def _verdict_words(analysis: Analysis) -> str:
    margin = analysis.records.study.margin
    if not gives_verdicts(analysis):
        effects = [one.dice.effect for one in analysis.comparisons.values()]
        runs = max(effect.num_runs for effect in effects if effect is not None)
        return (
            f"No verdict on non-inferiority is given: at least {in_words(MIN_RUNS)} training runs per variant are "
            f"needed, and this study has {in_words(runs)}."
        )
    return (
        f"Not inferior means that every class loses less than the margin {margin:g}. Passes if p {AT_MOST} {LEVEL:g} "
        "after Holm's correction; per-class verdicts are uncorrected, so all can be yes and the variant still fail. "
        f"Fewer than {in_words(MIN_RUNS)} training runs never pass."
    )


def _cut_words(analysis: Analysis) -> str:
    cells = [_dice(analysis, name) for name in analysis.mean_dice]
    cells += [effect_cell(one.dice, 4) for one in analysis.comparisons.values()]
    return f"; {CUT} marks one that was cut where no Dice can be" if any(CUT in cell.note for cell in cells) else ""


def _row(analysis: Analysis, number: int, variant: VariantRecord) -> tuple[Cell, ...]:
    name, study = variant.name, analysis.records.study
    head = Cell(text=f"{number} {name}", note=_head_note(analysis, name))
    classes = len(study.class_names) - 1
    if name == study.baseline:
        verdicts = [Cell(text="baseline"), *[Cell(text=NOTHING)] * (2 + classes)]
    else:
        verdicts = _verdicts(analysis.comparisons.get(name), classes)
    difference, p_holm, passed, *by_class = verdicts
    whole, latency, step, memory = _costs(analysis.device, name, baseline=study.baseline)
    size = (Cell(text=billions(variant.macs)), Cell(text=millions(variant.parameters)))
    dice = _dice(analysis, name)
    if not gives_verdicts(analysis):
        return (head, difference, whole, latency, memory, dice, step, *size)
    return (head, passed, difference, whole, latency, memory, dice, p_holm, *by_class, step, *size)


def _dice(analysis: Analysis, name: str) -> Cell:
    """Gives the mean Dice of a variant."""
    mean = analysis.mean_dice.get(name)
    if mean is None:
        return Cell(text=NOT_MEASURED)
    return Cell(text=fixed(mean.difference, 4), note=interval(mean.ci95, 4) + cut_mark(mean.ci95, 0.0, 1.0))


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
    difference = effect_cell(one.dice, 4)
    verdict = Cell(text=NOT_MEASURED) if one.p_noninferior is None else Cell(text="yes" if one.non_inferior else "no")
    return [difference, Cell(text=probability(one.p_holm)), verdict, *map(class_verdict, one.by_class)]


def class_verdict(one: ClassComparison) -> Cell:
    """Says whether a variant is not inferior in one class, without a correction for the number of variants."""
    effect = one.dice.effect
    if effect is None or effect.p_noninferior is None:
        return Cell(text=NOT_MEASURED)
    if effect.num_runs < MIN_RUNS:
        return Cell(text="no", note=counted(effect.num_runs, "run"))
    return Cell(text="yes" if effect.p_noninferior <= LEVEL else "no", note=fixed(effect.difference, 4, sign=True))


def _costs(device: DeviceSpeed | None, name: str, *, baseline: str) -> list[Cell]:
    keys = ("prediction_ratio", "latency_ratio", "training_step_ratio")
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


def limits(analysis: Analysis) -> list[str]:
    """Says what limits the comparisons, each thing once for all variants that it is said of."""
    by_note: dict[str, list[str]] = {}
    for one in analysis.comparisons.values():
        for note in one.notes:
            by_note.setdefault(note, []).append(one.variant)
    everything = len(analysis.comparisons)
    said = [
        f"{'All variants' if len(names) == everything > 1 else listed(names)}: {n}." for n, names in by_note.items()
    ]
    if not gives_verdicts(analysis):  # that runs are too few stands above the table
        said = [sentence for sentence in said if f"which takes {MIN_RUNS}" not in sentence]
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
    whom = ""
    if crossed:
        which = listed(crossed) if len(crossed) < len(codes) else "all of them"
        whom = f" These variants were trained by another version than the baseline: {which}."
    return [f"Trials were trained by {number} versions of the code; the list of trials says which by which.{whom}"]
