"""Simulated studies of known truth, and how often the intervals and verdicts of the package are right on them."""

from __future__ import annotations

import argparse
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special, stats
from statsmodels.regression.mixed_linear_model import MixedLM, VCSpec

from seg.ablation.statistics.comparison import paired
from seg.ablation.statistics.effects import TAIL, estimate_effect
from seg.ablation.statistics.holm import holm_adjusted
from seg.ablation.statistics.ranks import resampled_means
from seg.evaluation.metrics import METRICS, ClassScores
from seg.evaluation.scores import CaseScore, Interval

FloatArray = npt.NDArray[np.float64]
Intervals = Mapping[str, Interval]

RESAMPLES = 1000
# MixedLM stops early where variances are far below 1; Dice in percent brings them near it.
PERCENT = 100.0


@dataclass(frozen=True)
class Method:
    """Gives 95 % intervals by name for differences by fold, (runs, patients), and sees a share of the studies."""

    intervals: Callable[[Sequence[FloatArray], np.random.Generator], Intervals]
    share: float


def t_over_runs(tables: Sequence[FloatArray], rng: np.random.Generator) -> Intervals:
    """Gives the t interval of the means of the runs, which takes the patients for given."""
    means = np.concatenate([table.mean(axis=1) for table in tables])
    low, high = stats.ttest_1samp(means, 0).confidence_interval(1 - 2 * TAIL)
    return {"t over runs": (float(low), float(high))}


def t_over_patients(tables: Sequence[FloatArray], rng: np.random.Generator) -> Intervals:
    """Gives the t interval of the patients, averaged over runs, which takes the runs for given."""
    means = np.concatenate([table.mean(axis=0) for table in tables])
    low, high = stats.ttest_1samp(means, 0).confidence_interval(1 - 2 * TAIL)
    return {"t over patients": (float(low), float(high))}


def bootstraps(tables: Sequence[FloatArray], rng: np.random.Generator) -> Intervals:
    """Gives percentile intervals of resampled runs and patients, n of n and n - 1 of n."""
    found = {}
    for name, spare in (("two-way bootstrap", 0), ("two-way bootstrap, n - 1 of n", 1)):
        means = resampled_means([table[None] for table in tables], RESAMPLES, rng, spare=spare)
        low, high = np.percentile(means, (100 * TAIL, 100 * (1 - TAIL)))
        found[name] = (float(low), float(high))
    return found


def mixed_models(tables: Sequence[FloatArray], rng: np.random.Generator) -> Intervals:
    """Gives intervals of statsmodels' MixedLM, by REML: its own, of the normal distribution, and a conservative one.

    The conservative one has the degrees of freedom of the run term alone, runs less folds. None where a fold has one
    run, or folds differ in size.
    """
    runs, patients = tables[0].shape
    if runs == 1 or any(table.shape != tables[0].shape for table in tables):
        return {}
    run, patient = (
        np.eye(count)[index.ravel()]
        for count, index in zip((runs, patients), np.indices((runs, patients)), strict=True)
    )
    folds = len(tables)
    effects = VCSpec(
        ["run", "patient"],
        [[[f"{name}{i}" for i in range(part.shape[1])]] * folds for name, part in (("r", run), ("p", patient))],
        [[run] * folds, [patient] * folds],
    )
    values = PERCENT * np.concatenate([table.ravel() for table in tables])
    ones = np.ones((len(values), 1))
    random: dict[str, Any] = {"exog_vc": effects} | ({"exog_re": ones} if folds > 1 else {})
    model = MixedLM(values, ones, np.repeat(np.arange(folds), runs * patients), **random)
    with warnings.catch_warnings():
        # A component at 0 is warned of in most fits; what it does to the interval is what is measured.
        warnings.simplefilter("ignore")
        try:
            fitted = model.fit(reml=True)
        except np.linalg.LinAlgError:
            return {}
    mean, error = float(fitted.fe_params[0]) / PERCENT, float(fitted.bse_fe[0]) / PERCENT
    quantiles = {
        "MixedLM, normal": float(stats.norm.isf(TAIL)),
        "MixedLM, t with runs - folds": float(stats.t.isf(TAIL, folds * (runs - 1))),
    }
    if not math.isfinite(error):
        return {}
    return {name: (mean - quantile * error, mean + quantile * error) for name, quantile in quantiles.items()}


def mean_squares(tables: Sequence[FloatArray], rng: np.random.Generator) -> Intervals:
    """Gives the interval of `estimate_effect` that is in use, and one by the error of its strict test."""
    found = estimate_effect(tables)
    if not found.ci95 or found.test_error is None or found.test_freedom is None:
        return {}
    half = float(stats.t.isf(TAIL, found.test_freedom)) * found.test_error
    return {"mean squares": found.ci95, "mean squares, strict": (found.difference - half, found.difference + half)}


METHODS = (
    Method(mean_squares, 1.0),
    Method(t_over_runs, 1.0),
    Method(t_over_patients, 1.0),
    Method(bootstraps, 1 / 4),
    Method(mixed_models, 1 / 16),
)


PRIOR_LIMIT = 4.0
"""Most degrees of freedom that the other variants' runs may lend one variant's, in the moderated test."""


def own_runs(folds: Sequence[FloatArray]) -> FloatArray:
    """Gives errors by a variant's own runs, never pooled with the residual: the test in use."""
    found = (estimate_effect(tables) for tables in zip(*folds, strict=True))
    return np.array([(one.test_error, one.test_freedom) for one in found]).T


def pooled_runs(folds: Sequence[FloatArray]) -> FloatArray:
    """Gives errors by the interval in use, which pools runs and residual where runs hardly differ."""
    found = (estimate_effect(tables) for tables in zip(*folds, strict=True))
    return np.array([(one.standard_error, one.degrees_of_freedom) for one in found]).T


def moderated_runs(folds: Sequence[FloatArray]) -> FloatArray:
    """Gives errors in which the runs of all variants tell how much those of one may differ.

    The mean square of a variant's runs is drawn towards one of all variants, as far as the spread of the mean squares
    says that they have one in common, with no more than `PRIOR_LIMIT` degrees of freedom. For one fold alone.

    References:
        G. K. Smyth, Linear models and empirical Bayes methods for assessing differential expression, 2004,
        doi:10.2202/1544-6115.1027. Deviation: the limit.
    """
    (tables,) = folds
    _, runs, patients = tables.shape
    free = runs - 1
    own = patients * tables.mean(axis=2).var(axis=1, ddof=1)
    logs = np.log(np.maximum(own, 1e-5 * np.median(own))) - special.digamma(free / 2) + math.log(free / 2)
    excess = float(logs.var(ddof=1) - special.polygamma(1, free / 2))
    prior = min(PRIOR_LIMIT, 2 * _inverse_trigamma(excess)) if excess > 0 else PRIOR_LIMIT
    common = math.exp(logs.mean() + special.digamma(prior / 2) - math.log(prior / 2)) if excess > 0 else own.mean()
    means = tables.mean(axis=(1, 2))
    rest = tables - tables.mean(axis=2, keepdims=True) - tables.mean(axis=1, keepdims=True) + means[:, None, None]
    residual = np.square(rest).sum(axis=(1, 2)) / (free * (patients - 1))
    by_run = np.maximum((prior * common + free * own) / (prior + free), residual)
    by_patient = np.maximum(runs * tables.mean(axis=1).var(axis=1, ddof=1) - residual, 0)
    terms = by_run / (runs * patients), by_patient / (runs * patients)
    variance = terms[0] + terms[1]
    freedom = variance**2 / (terms[0] ** 2 / (prior + free) + terms[1] ** 2 / (patients - 1))
    return np.stack([np.sqrt(variance), freedom])


TESTS: dict[str, Callable[[Sequence[FloatArray]], FloatArray]] = {
    "own runs": own_runs,
    "pooled": pooled_runs,
    "moderated": moderated_runs,
}
"""Tests by name, the one in use first."""


def _inverse_trigamma(value: float) -> float:
    """Gives the x > 0 at which the trigamma function has a value, by Newton's method on its reciprocal."""
    x = 0.5 + 1 / value
    for _ in range(50):
        trigamma = float(special.polygamma(1, x))
        step = trigamma * (1 - trigamma / value) / float(special.polygamma(2, x))
        x += step
        if abs(step) < 1e-9 * x:
            break
    return x


@dataclass(frozen=True, kw_only=True)
class Family:
    """A simulated study: its size, and the standard deviations of the effects on a difference in Dice.

    The inferior variants (None: all) lose the margin, in the first class; the others lose nothing. Heavy tails are
    those of Student's t with 3 degrees of freedom, of the same variance.
    """

    variants: int = 18
    classes: int = 2
    seeds: int = 3
    patients: int = 40
    folds: int = 1
    fold_sd: float = 0.0
    run_sd: float = 0.0015
    patient_sd: float = 0.002
    residual_sd: float = 0.0075
    inferior: int | None = None
    inferior_run_sd: float | None = None
    heavy: bool = False

    @property
    def num_inferior(self) -> int:
        return self.variants if self.inferior is None else self.inferior

    @property
    def lost(self) -> slice:
        """The inferior variants among the networks, of which the baseline is the first."""
        return slice(1, 1 + self.num_inferior)

    @property
    def name(self) -> str:
        name = f"{self.variants} variants, classes {self.classes}, {self.seeds} x {self.patients}"
        name += (f" x {self.folds}" if self.folds > 1 else "") + f", run {self.run_sd:g}"
        if self.fold_sd:
            name += f", fold {self.fold_sd:g}"
        if (self.patient_sd, self.residual_sd) != (Family.patient_sd, Family.residual_sd):
            name += f", patient {self.patient_sd:g}, residual {self.residual_sd:g}"
        if self.inferior is not None:
            name += f"; {self.inferior} inferior"
        if self.inferior_run_sd is not None:
            name += f" with run {self.inferior_run_sd:g}"
        return name + (", heavy tails" if self.heavy else "")


FAMILIES = (
    Family(run_sd=0.0),
    Family(run_sd=0.0005),
    Family(),
    Family(run_sd=0.003),
    Family(classes=1, run_sd=0.0),
    Family(classes=1, run_sd=0.0005),
    Family(classes=1),
    Family(classes=1, heavy=True),
    Family(classes=3, patients=12, run_sd=0.01, patient_sd=0.03, residual_sd=0.06),
    Family(variants=6, classes=1),
    Family(variants=6, run_sd=0.0015, patient_sd=0.007, residual_sd=0.012),
    # What loses Dice may train less evenly too, as decoder 1/8 does on the hippocampus.
    Family(run_sd=0.0005, inferior=1, inferior_run_sd=0.006),
    Family(classes=1, run_sd=0.0005, inferior=1, inferior_run_sd=0.006),
    Family(classes=1, run_sd=0.0005, inferior=3, inferior_run_sd=0.006),
    Family(variants=6, classes=1, run_sd=0.0005, inferior=1, inferior_run_sd=0.004),
    Family(seeds=5, classes=1),
    Family(seeds=5),
    Family(seeds=5, run_sd=0.0005, inferior=3, inferior_run_sd=0.006),
    *(Family(variants=6, folds=2, fold_sd=sd) for sd in (0.0, 0.002, 0.004)),
    Family(variants=6, folds=3, fold_sd=0.003),
    *(Family(folds=5, fold_sd=sd) for sd in (0.0, 0.002)),
)


def draw_family(family: Family, rng: np.random.Generator) -> list[FloatArray]:
    """Draws what every network of a study scores more than expected, without a loss.

    Either side of a difference brings half of its variance, so the variants share the baseline's runs and patients.

    Returns:
        Dice less its mean by fold, of shape (classes, 1 + variants, seeds, patients), the baseline first and the
        inferior variants next.
    """

    def draw(*shape: int) -> FloatArray:
        drawn = rng.standard_t(3, shape) / math.sqrt(3) if family.heavy else rng.normal(size=shape)
        return drawn / math.sqrt(2)

    classes, networks = family.classes, 1 + family.variants
    run_sd = np.full((networks, 1, 1), family.run_sd)
    if family.inferior_run_sd is not None:
        run_sd[family.lost] = family.inferior_run_sd
    return [
        family.fold_sd * draw(classes, networks, 1, 1)
        + run_sd * draw(classes, networks, family.seeds, 1)
        + family.patient_sd * draw(classes, networks, 1, family.patients)
        + family.residual_sd * draw(classes, networks, family.seeds, family.patients)
        for _ in range(family.folds)
    ]


MARGIN = 0.005
"""Margin of the simulated studies, in Dice."""


@dataclass(frozen=True, kw_only=True)
class Design:
    """As `Family`, of one difference; with ``sizes`` the folds have so many patients."""

    folds: int = 1
    seeds: int = 3
    patients: int = 40
    sizes: tuple[int, ...] = ()
    fold_sd: float = 0.0
    run_sd: float = 0.0015
    patient_sd: float = 0.008
    residual_sd: float = 0.006
    heavy: bool = False

    @property
    def name(self) -> str:
        patients = f"({', '.join(map(str, self.sizes))})" if self.sizes else f"{self.patients} x {self.folds}"
        size = f"{self.seeds} x {patients}, run {self.run_sd:g}"
        usual = (Design.patient_sd, Design.residual_sd)
        if (self.patient_sd, self.residual_sd) != usual:
            size += f", patient {self.patient_sd:g}, residual {self.residual_sd:g}"
        return size + (f", fold {self.fold_sd:g}" if self.fold_sd else "") + (", heavy tails" if self.heavy else "")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a method did on repeats of a design.

    Shares of the studies in which its 95 % interval holds the truth, it calls not inferior what loses the margin (2.5 %
    is aimed at), or what is equal; and the median half width of the interval.
    """

    design: Design
    method: str
    repeats: int
    coverage: float
    false_positive: float
    power: float
    half_width: float


DESIGNS = (
    Design(),
    Design(run_sd=0.0),
    Design(run_sd=0.004),
    Design(heavy=True),
    Design(seeds=2, patients=8),
    Design(seeds=2),
    Design(seeds=2, run_sd=0.004),
    Design(folds=5),
    Design(folds=5, run_sd=0.0),
    Design(folds=5, fold_sd=0.002),
    Design(folds=5, heavy=True),
    Design(folds=5, seeds=1),
    *(Design(folds=folds, fold_sd=sd) for folds in (2, 3) for sd in (0.0, 0.002, 0.004)),
    Design(sizes=(10, 40, 80), fold_sd=0.003),
    Design(sizes=(10, 20, 40, 60, 80), fold_sd=0.003),
    Design(sizes=(30, 40, 40, 45, 45), fold_sd=0.003),
    # Patients that hardly differ beside a large residual, as the studies under docs/results have them.
    *(Design(patient_sd=0.002, residual_sd=0.0075, run_sd=sd) for sd in (0.0, 0.0005, 0.0015, 0.003, 0.005)),
    *(Design(patient_sd=0.01, residual_sd=0.02, run_sd=sd) for sd in (0.0, 0.0015, 0.005)),
    Design(patients=24, patient_sd=0.01, residual_sd=0.02),
    Design(seeds=5, patient_sd=0.002, residual_sd=0.0075),
    Design(patient_sd=0.002, residual_sd=0.0075, heavy=True),
)


def simulate(design: Design, rng: np.random.Generator) -> list[FloatArray]:
    """Draws a study whose true mean difference is 0: differences by fold, of shape (seeds, patients)."""

    def draw(sd: float, *shape: int) -> FloatArray:
        unit = rng.standard_t(3, shape) / math.sqrt(3) if design.heavy else rng.normal(size=shape)
        return sd * unit

    return [
        draw(design.fold_sd, 1, 1)
        + draw(design.run_sd, design.seeds, 1)
        + draw(design.patient_sd, 1, patients)
        + draw(design.residual_sd, design.seeds, patients)
        for patients in design.sizes or (design.patients,) * design.folds
    ]


def validate(design: Design, *, repeats: int, methods: Sequence[Method] = METHODS, seed: int = 0) -> list[Outcome]:
    """Repeats a design and counts how often each method is right.

    All intervals move with the data, so one simulation about 0 gives the coverage, the false-positive rate at the
    margin (lower end above the truth) and the power (lower end above the truth less the margin). Slow methods see the
    first studies alone, and of several folds fewer.
    """
    rng = np.random.default_rng(seed)
    found: dict[str, list[Interval]] = {}
    limits = [
        math.ceil(repeats * (one.share if one.share == 1 else one.share / max(design.folds, len(design.sizes))))
        for one in methods
    ]
    for number in range(repeats):
        tables = simulate(design, rng)
        for method, limit in zip(methods, limits, strict=True):
            if number < limit:
                for name, interval in method.intervals(tables, np.random.default_rng([seed, number])).items():
                    found.setdefault(name, []).append(interval)
    return [_outcome(design, name, np.array(intervals)) for name, intervals in found.items()]


def _outcome(design: Design, method: str, intervals: FloatArray) -> Outcome:
    low, high = intervals.T
    return Outcome(
        design=design,
        method=method,
        repeats=len(intervals),
        coverage=float(np.mean((low <= 0) & (high >= 0))),
        false_positive=float(np.mean(low > 0)),
        power=float(np.mean(low > -MARGIN)),
        half_width=float(np.median(high - low) / 2),
    )


def format_outcomes(outcomes: Sequence[Outcome]) -> str:
    """Formats outcomes as Markdown tables, a row for each design and a column for each method, with standard errors."""
    tables: dict[str, Callable[[Outcome], str]] = {
        "Coverage of the 95 % interval, %": lambda one: percent(one.coverage, one.repeats),
        "False positives at the margin, % (2.5 is aimed at)": lambda one: percent(one.false_positive, one.repeats),
        "Called not inferior where there is no difference, %": lambda one: percent(one.power, one.repeats),
        "Median half width, Dice": lambda one: f"{one.half_width:.4f}",
    }
    methods = list(dict.fromkeys(one.method for one in outcomes))
    cells = {(one.design.name, one.method): one for one in outcomes}
    designs = list(dict.fromkeys(one.design.name for one in outcomes))
    blocks = []
    for title, text in tables.items():
        rows = [f"| seeds x patients x folds | {' | '.join(methods)} |", "|---" * (len(methods) + 1) + "|"]
        for design in designs:
            found = (cells.get((design, method)) for method in methods)
            rows.append(f"| {design} | {' | '.join(text(one) if one else '-' for one in found)} |")
        blocks.append("\n".join([f"**{title}**", "", *rows]))
    return "\n\n".join(blocks)


def percent(share: float, repeats: int) -> str:
    """Formats a share in percent with its Monte-Carlo standard error."""
    return f"{100 * share:.1f} ± {100 * math.sqrt(share * (1 - share) / repeats):.1f}"


@dataclass(frozen=True, kw_only=True)
class FamilyOutcome:
    """Share of the studies in which any inferior variant passes (2.5 % is allowed), and of equal variants that pass."""

    family: Family
    test: str
    repeats: int
    error: float
    power: float


def validate_family(family: Family, *, repeats: int, seed: int = 0) -> list[FamilyOutcome]:
    """Repeats a study, and counts what each test passes after Holm's procedure."""
    rng = np.random.default_rng(seed)
    tests = {name: errors for name, errors in TESTS.items() if family.folds == 1 or errors is not moderated_runs}
    wrong: dict[str, list[float]] = {name: [] for name in tests}
    right: dict[str, list[float]] = {name: [] for name in tests}
    for _ in range(repeats):
        equal = [drawn[:, 1:] - drawn[:, :1] for drawn in draw_family(family, rng)]
        means = np.mean([differences.mean(axis=(2, 3)) for differences in equal], axis=0)
        lost = means.copy()
        lost[0, : family.num_inferior] -= MARGIN
        for test, errors in tests.items():
            error, freedom = np.stack([errors(folds) for folds in zip(*equal, strict=True)], axis=1)
            wrong[test].append(float(_passes(lost, error, freedom)[: family.num_inferior].any()))
            right[test].append(float(_passes(means, error, freedom).mean()))
    return [
        FamilyOutcome(
            family=family,
            test=test,
            repeats=repeats,
            error=float(np.mean(wrong[test])),
            power=float(np.mean(right[test])),
        )
        for test in tests
    ]


def family_error(family: Family, *, repeats: int, seed: int = 0) -> float:
    """Gives the share of studies in which any inferior variant passes, all the way from scores of cases to verdicts."""
    rng, wrong = np.random.default_rng(seed), 0
    for _ in range(repeats):
        folds = [0.8 + drawn for drawn in draw_family(family, rng)]
        for dice in folds:
            dice[0, family.lost] -= MARGIN
        trials = {
            f"v{number}": {
                (fold, run): _records(dice[:, number, run], fold)
                for fold, dice in enumerate(folds)
                for run in range(family.seeds)
            }
            for number in range(1 + family.variants)
        }
        verdicts = {one.variant: one.non_inferior for one in paired(trials, "v0", margin=MARGIN)}
        wrong += any(verdicts[f"v{number}"] for number in range(1, 1 + family.num_inferior))
    return wrong / repeats


def _passes(means: FloatArray, error: FloatArray, freedom: FloatArray) -> npt.NDArray[np.bool_]:
    """Tells which variants pass in every class after correction; all of shape (classes, variants)."""
    return holm_adjusted(stats.t.sf((means + MARGIN) / error, freedom).max(axis=0)) <= TAIL


def _records(dice: FloatArray, fold: int) -> list[CaseScore]:
    """Gives the records of one run of a fold from its Dice of shape (classes, patients)."""
    blank = ClassScores.from_names(dict.fromkeys(METRICS, 0.5))
    return [
        CaseScore(
            case_id=f"{fold}_{case}",
            patient=f"{fold}_{case}",
            fold=fold,
            class_index=index,
            class_name=str(index),
            scores=replace(blank, dice=float(value)),
        )
        for index, values in enumerate(dice, start=1)
        for case, value in enumerate(values)
    ]


def format_families(outcomes: Sequence[FamilyOutcome]) -> str:
    """Formats outcomes as a Markdown table, by test: family error, and percentage of equal variants that pass."""
    columns = [f"{what}, {test}" for what in ("passes an inferior one", "equal ones pass") for test in TESTS]
    rows = [f"| study | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for family in dict.fromkeys(one.family for one in outcomes):
        found = {one.test: one for one in outcomes if one.family == family}
        errors = [percent(found[test].error, found[test].repeats) if test in found else "-" for test in TESTS]
        powers = [f"{100 * found[test].power:.0f}" if test in found else "-" for test in TESTS]
        rows.append(f"| {family.name} | {' | '.join(errors + powers)} |")
    return "\n".join(rows)


def check_intervals(*, repeats: int, seed: int) -> str:
    return format_outcomes([one for design in DESIGNS for one in validate(design, repeats=repeats, seed=seed)])


def check_verdicts(*, repeats: int, seed: int) -> str:
    """Checks verdicts on simulated studies and formats what it finds; slow methods see fewer studies."""
    fewer, whole = max(repeats // 2, 1), max(repeats // 20, 1)
    table = format_families([one for family in FAMILIES for one in validate_family(family, repeats=fewer, seed=seed)])
    share = percent(family_error(Family(), repeats=whole, seed=seed), whole)
    return f"{table}\n\nFrom scores of cases to verdicts, {Family().name}: {share} % of {whole} studies pass any."


def main() -> None:
    """Runs the checks that the command line asks for, and prints Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--repeats",
        type=int,
        default=4000,
        metavar="N",
        help="simulated studies of each design, >= 1; slow methods see fewer (default: %(default)s)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="seed of the simulation (default: %(default)s)"
    )
    parser.add_argument(
        "--part", choices=("intervals", "verdicts", "all"), default="all", help="what to check (default: %(default)s)"
    )
    options = parser.parse_args()
    if options.repeats < 1:
        parser.error(f"--repeats must be >= 1, got {options.repeats}.")
    if options.part != "verdicts":
        print(check_intervals(repeats=options.repeats, seed=options.seed))
    if options.part != "intervals":
        print(check_verdicts(repeats=options.repeats, seed=options.seed))


if __name__ == "__main__":
    main()
