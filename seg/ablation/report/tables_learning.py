"""The table of convergence and generalisation, and what it shows in sentences."""

from __future__ import annotations

from collections.abc import Mapping

from seg.ablation.report.analysis import Analysis
from seg.ablation.report.document import Cell, Table, row
from seg.ablation.report.numbers import NOT_MEASURED, counted, fixed, interval, listed
from seg.ablation.statistics import Mean

UNKNOWN = "not known"
HEADS = (
    "Area under the curve",
    "Area, difference",
    "Steps to 95 % of its own final Dice",
    "Steps to 95 % of the baseline's",
    "Over the baseline's steps",
    "Seconds to its own",
    "Seconds to the baseline's",
    "Training less validation Dice",
    "Gap, difference",
)


def convergence_table(analysis: Analysis) -> Table:
    """Gives how soon each variant comes near its final Dice, and the gap between training and validation.

    Columns that are not known for any variant are left out, and named in the caption.
    """
    names = analysis.records.study.names
    rows = {name: _cells(analysis, name) for name in names}
    dropped = [
        number
        for number in range(len(HEADS))
        if {cells[number].text for cells in rows.values()} <= {UNKNOWN, NOT_MEASURED}
        and any(cells[number].text == UNKNOWN for cells in rows.values())
    ]
    kept = [number for number in range(len(HEADS)) if number not in dropped]
    return Table(
        columns=("Variant", *(HEADS[number] for number in kept)),
        rows=tuple(row(name, *(cells[number] for number in kept)) for name, cells in rows.items()),
        caption="Convergence and generalisation, means over trials with 95 % t intervals. The area is the mean Dice "
        f"from the first to the last validation. {_early(analysis)}{_dropped([HEADS[number] for number in dropped])}"
        "Seconds are steps times the measured time of a step. Below the gap stand the two mean Dice of the final "
        "weights, on training cases without augmentation and on held-out ones. Differences are paired by fold and "
        "seed.",
        wide=True,
    )


def _cells(analysis: Analysis, name: str) -> list[Cell]:
    one, gap = analysis.convergence.get(name), analysis.gaps.get(name)
    baseline = Cell(text="baseline") if name == analysis.baseline else None
    cells = [Cell(text=NOT_MEASURED)] * 7
    if one is not None:
        cells = [
            _mean(one.area, 4),
            baseline or _mean(one.area_difference, 4, sign=True),
            _mean(one.steps_to_own, 0),
            _mean(one.steps_to_baseline, 0),
            _mean(one.steps_to_baseline_ratio, 2),
            _mean(one.seconds_to_own, 1),
            _mean(one.seconds_to_baseline, 1),
        ]
    last = Cell(text=NOT_MEASURED)
    if gap is not None:
        last = Cell(
            text=fixed(gap.gap.mean, 4, sign=True), note=f"{fixed(gap.train, 4)} less {fixed(gap.validation, 4)}"
        )
    return [*cells, last, baseline or _mean(None if gap is None else gap.difference, 4, sign=True)]


def _early(analysis: Analysis) -> str:
    """Says how many variants had come near their final Dice before anything was known of them."""
    early = [name for name, one in analysis.convergence.items() if one.steps_to_own.num_censored]
    if not early:
        return ""
    every = analysis.records.study.training.get("validate_every")
    some = f"{len(early)} of {counted(len(analysis.convergence), 'variant')} had a run past 95 % before the first"
    came = f"Validation came every {every} steps, and {some} one" if every else f"{some.capitalize()} validation"
    return f"{came}: steps are then an upper bound, and their ratio is not known. "


def _dropped(heads: list[str]) -> str:
    named = [head[0].lower() + head[1:] for head in heads]
    return f"Not known of any variant, so without a column: {listed(named)}. " if heads else ""


def convergence_sentences(analysis: Analysis) -> list[str]:
    """Says which variants learn faster, and whose gap to training differs from the baseline's, as intervals tell."""
    areas = {name: one.area_difference for name, one in analysis.convergence.items() if name != analysis.baseline}
    known = {name: one.ci95 for name, one in areas.items() if one.ci95 is not None}
    said = []
    if known:
        sides = {
            "above the baseline's (faster, or better all along)": [name for name, (low, _) in known.items() if low > 0],
            "below the baseline's": [name for name, (_, high) in known.items() if high < 0],
        }
        said.append(
            f"Learning, by the area under the curve of validation Dice against steps: {_told(sides, len(known))}"
        )
    gaps = {
        name: one.difference.ci95
        for name, one in analysis.gaps.items()
        if name != analysis.baseline and one.difference.ci95 is not None
    }
    if gaps:
        sides = {}
        for name, (low, high) in gaps.items():
            if low > 0 or high < 0:
                sides.setdefault(_moved(analysis, name), []).append(name)
        said.append(
            f"Generalisation, by training less validation Dice against the baseline's: {_told(sides, len(gaps))}"
        )
    return said


def _moved(analysis: Analysis, name: str) -> str:
    """Says how training and validation Dice of a variant moved from the baseline's, where their gap differs."""
    own, base = analysis.gaps[name], analysis.gaps[analysis.baseline]
    train, validation = own.train - base.train, own.validation - base.validation
    if train <= 0 < validation or validation <= 0 < train:
        up, down = ("validation", "training") if train < validation else ("training", "validation")
        return f"{up} Dice rose and {down} Dice fell"
    if train > 0:
        more, less = ("training", "validation") if train > validation else ("validation", "training")
        return f"{more} Dice rose more than {less} Dice"
    more, less = ("training", "validation") if train < validation else ("validation", "training")
    return f"{more} Dice fell more than {less} Dice"


def _told(sides: Mapping[str, list[str]], known: int) -> str:
    """Says which variants are on which side, and of how many others nothing is clear."""
    parts = [f"{words} for {listed(names)}" for words, names in sides.items() if names]
    rest = known - sum(map(len, sides.values()))
    if rest:
        parts.append(f"no clear difference for {f'the other {rest}' if parts else counted(rest, 'variant')}")
    return "; ".join(parts) + f" (95 % t intervals over runs, uncorrected, of {counted(known, 'variant')})."


def _mean(mean: Mean | None, digits: int, *, sign: bool = False) -> Cell:
    if mean is None or (mean.mean is None and not mean.num_without and not mean.num_censored):
        return Cell(text=NOT_MEASURED)
    runs = mean.num_without + mean.num_runs
    early = f"by the first validation in {mean.num_censored} of {runs}" if mean.num_censored else ""
    if mean.mean is None:
        return Cell(text=UNKNOWN if early else "never reached", note=early)
    notes = [interval(mean.ci95, digits, sign=sign)] if mean.ci95 else []
    notes += [early] if early else []
    if mean.num_without:
        notes.append(f"never reached in {mean.num_without} of {runs}")
    bound = "\N{LESS-THAN OR EQUAL TO} " if early else ""
    return Cell(text=f"{bound}{fixed(mean.mean, digits, sign=sign)}", note="; ".join(notes))
