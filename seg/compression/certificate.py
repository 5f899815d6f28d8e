"""The certificate of a changed network: whether a smaller or coarser one loses more Dice than a margin.

The rule is one for all changes. A patient's mean difference between the changed network and the original is the unit.
A class passes where the lower end of a one-sided 97.5 % t interval lies above minus the margin, and a step passes where
all classes do, which needs no correction. Steps are frozen in a ledger first, tested from mild to strong, and the first
that does not pass ends the test. Every step is compared with the original, never with the step before.

Nothing here imports torch.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field
from scipy import stats

from seg.config.loading import content_digest
from seg.errors import Problem, RunError
from seg.evaluation.differences import Runs, RunScores, patient_means, read_paired, split_folds, with_found_nothing
from seg.evaluation.scores import CaseScore
from seg.files import locked, read_json, write_json, write_text
from seg.words import NOT_MEASURED, counted, escape_markdown, fixed, some

if TYPE_CHECKING:
    from seg.data.cases import Dataset

CERTIFICATE_FILE = "certificate.json"
CERTIFICATE_PAGE = "certificate.md"
ORIGINAL = "original"
"""Name of the network that steps are compared with."""
CERTIFICATE_VERSION = 1
LEDGER_FILE = "certificate_ledger.json"
LEDGER_VERSION = 1
TAIL = 0.025
"""Error probability of each one-sided bound."""
LEAST_PATIENTS = 20
"""Fewer patients with a score of a class are too few to say anything."""
LARGE_LOSS = 0.05
"""Loss of Dice beyond which a patient is counted by itself."""
FEW_FOR_LARGE_LOSSES = 50
"""Among fewer patients a t bound errs often where one of them loses much: docs/results/statistics.md."""

Verdict = Literal["not inferior", "not shown", "too few", "not tested"]
Share = Annotated[float, Field(ge=0, le=1)]
Number = Annotated[int, Field(ge=0, lt=2**63)]
Positive = Annotated[float, Field(gt=0)]
Array = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Step:
    """One change of the original, as it is frozen before it is tested.

    Attributes:
        name: What it is called, such as ``int8``.
        sha256: Digest of the changed network and of how it is run.
    """

    name: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Look:
    """One use of the held-out cases: what was frozen before they were looked at.

    Attributes:
        original: SHA-256 of the weights that steps are compared with; of several folds in their order.
        margin: Loss of Dice that still counts as not inferior, > 0.
        steps: The steps, mild to strong.
    """

    original: tuple[str, ...]
    margin: Annotated[float, Field(gt=0)]
    steps: tuple[Step, ...]


@dataclass(frozen=True, kw_only=True)
class Counted:
    """How often something rare happened, with an exact bound.

    Attributes:
        names: Patients or cases that it happened to.
        of: Patients or cases that it could happen to.
        upper: Upper end of the one-sided 97.5 % interval of its probability; None where ``of`` is 0.
    """

    names: tuple[str, ...]
    of: Number
    upper: Share | None


@dataclass(frozen=True, kw_only=True)
class FoldBound:
    """The difference of one class within one fold.

    Attributes:
        fold: The fold.
        patients: Its patients with a score.
        difference: Mean over these.
        bound: Lower end of its own one-sided interval; None below two patients.
    """

    fold: int
    patients: Number
    difference: float
    bound: float | None


@dataclass(frozen=True, kw_only=True)
class ClassResult:
    """What a step does to the Dice of one class.

    Attributes:
        index: The class, 1 or more.
        name: Its name.
        verdict: Whether the class passes.
        patients: Patients with a score.
        empty_cases: Cases left out, as neither network nor the reference has the class.
        original: Mean Dice of the original over patients; None where no patient has a score.
        difference: Mean over patients of changed less original; None where no patient has a score.
        sd: Standard deviation of a patient's difference, within folds; None without a degree of freedom.
        degrees_of_freedom: Patients less folds.
        bound: Lower end of the one-sided 97.5 % interval; None without a degree of freedom.
        folds: Each fold by itself.
        lost: Patients that lose more than the large loss of the certificate.
        invented: Cases where the changed network alone finds the class, of those where the original rightly finds none.
    """

    index: Annotated[int, Field(ge=1)]
    name: str
    verdict: Verdict
    patients: Number
    empty_cases: Number
    original: float | None = None
    difference: float | None
    sd: float | None
    degrees_of_freedom: Number
    bound: float | None
    folds: tuple[FoldBound, ...]
    lost: Counted
    invented: Counted


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """The outcome of one step; one after the first that does not pass is not tested and has no classes."""

    step: Step
    verdict: Verdict
    classes: tuple[ClassResult, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a network costs.

    Attributes:
        macs: Multiply-accumulates of a patch.
        parameters: Learned numbers.
        latency_ms: Median time of a pass of one patch; None is not measured.
        latency_ratio: Median of the time over the original's, taken in turns; None is not measured.
        peak_memory_mib: Most memory over loading the network and two passes of one patch; None is not measured.
    """

    macs: Number
    parameters: Number
    latency_ms: Positive | None = None
    latency_ratio: Positive | None = None
    peak_memory_mib: float | None = None


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """What a changed network loses on held-out patients; the content of certificate.json.

    Attributes:
        original: SHA-256 of the weights that steps are compared with; of several folds in their order.
        margin: Loss of Dice that still counts as not inferior.
        steps: The steps in the order of testing.
        certified: The last step that passed, at a first look; None where the first did not, and at a later look.
        look: How many times, this one included, steps of this original were tested on these cases.
        exploratory: Whether it is a later look than the first: cases that were looked at before prove less.
        conditions: How both were run: engine, windows, mirroring, processor, and whatever else the result holds for.
        costs: What the original and the steps cost, by name; none where that was not counted.
        metric: What was compared.
        tail: Error probability of each bound.
        least_patients: Fewer patients are too few.
        large_loss: Loss beyond which a patient is counted by itself.
    """

    original: tuple[str, ...]
    margin: Annotated[float, Field(gt=0)]
    steps: tuple[StepResult, ...]
    certified: str | None
    look: Annotated[int, Field(ge=1)]
    exploratory: bool
    conditions: Mapping[str, str] = field(default_factory=dict)
    costs: Mapping[str, Cost] = field(default_factory=dict)
    metric: Literal["dice"] = "dice"
    tail: Share = TAIL
    least_patients: Number = LEAST_PATIENTS
    large_loss: Share = LARGE_LOSS

    @property
    def cautions(self) -> list[str]:
        """Says of classes that passed where this shows less than it seems to."""
        passed = [
            (f"{result.step.name}, {one.name}", one)
            for result in self.steps
            for one in result.classes
            if one.verdict == "not inferior"
        ]
        empty = [
            f"{where}: the original's own Dice, {fixed(one.original, 4)}, is within the margin, so a pass shows nothing"
            for where, one in passed
            if one.original is not None and one.original <= self.margin
        ]
        skewed = [
            f"{where}: {len(one.lost.names)} of only {counted(one.patients, 'patient')} with a loss above "
            f"{self.large_loss:g}, where the bound errs more often than in {self.tail:.1%}"
            for where, one in passed
            if one.lost.names and one.patients < FEW_FOR_LARGE_LOSSES
        ]
        return empty + skewed

    def proves(self, step: str) -> bool:
        """Tells whether a step was shown to be not inferior, by the first look at these patients."""
        passed = {one.step.name for one in self.steps if one.verdict == "not inferior"}
        return step in passed and not self.exploratory

    @property
    def passed(self) -> str | None:
        """The last step that passed, at whatever look; None where the first did not."""
        return next((one.step.name for one in reversed(self.steps) if one.verdict == "not inferior"), None)


@dataclass(frozen=True, kw_only=True)
class _Ledger:
    looks: tuple[Look, ...]


def few_patients(dataset: Dataset, held_out: Collection[str]) -> int | None:
    """Returns how many patients the held-out cases are of, where they are too few for any certificate; else None."""
    patients = {case.patient_or_id for case in dataset.cases if case.id in held_out}
    return len(patients) if len(patients) < LEAST_PATIENTS else None


def freeze(ledger: Path, look: Look) -> int:
    """Writes into a ledger what is about to be tested, and counts the looks at the same original.

    Steps with the digests of an earlier look are that look again, which shows nothing new: its number is returned.

    Args:
        ledger: The ledger's file, which lies with the original and is made where absent.
        look: Original, margin and steps.

    Returns:
        The number of the look, from 1.

    Raises:
        RunError: The ledger is damaged or of a newer version, or cannot be written; the margin is not above 0, or
            there is no step, or two have one name.
    """
    _check_look(look)
    with locked(_lock(ledger)):
        looks = read_ledger(ledger)
        same = [one for one in looks if one.original == look.original]
        # Another margin for the same networks is another look: it may have been chosen by the result.
        if look in same:
            return same.index(look) + 1
        content = asdict(_Ledger(looks=(*looks, look)))
        write_json(ledger, {"schema_version": LEDGER_VERSION, **content})
        return len(same) + 1


def freeze_folds(
    ledgers: Sequence[Path],
    originals: Sequence[str],
    steps: Mapping[str, Sequence[str]],
    margin: float,
    how: Mapping[str, str],
) -> tuple[Look, int]:
    """Writes the steps of all folds into the ledgers of their originals before they are tested; see :func:`freeze`.

    The same weights in another engine or precision are another look, as with another margin. So is a fold by itself, as
    it says what the folds together do not.

    Args:
        ledgers: The ledger of each fold.
        originals: SHA-256 of the weights of each fold's original.
        steps: What identifies each fold's network, such as the SHA-256 of its weights, by step, mild to strong.
        margin: Loss of Dice that still counts as not inferior.
        how: What else decides the scores, such as the engine.

    Returns:
        The look at all folds, and its number, the highest of any ledger.

    Raises:
        RunError: See :func:`freeze`.
    """
    digests = _digests(originals, steps, how)
    number = 0
    for place, (ledger, original) in enumerate(zip(ledgers, originals, strict=True)):
        frozen = tuple(Step(name=name, sha256=own[place]) for name, own in digests.items())
        number = max(number, freeze(ledger, Look(original=(original,), margin=margin, steps=frozen)))
    together = tuple(
        Step(name=name, sha256=own[0] if len(own) == 1 else content_digest({"folds": own}))
        for name, own in digests.items()
    )
    return Look(original=tuple(originals), margin=margin, steps=together), number


def never_frozen(
    ledgers: Sequence[Path], originals: Sequence[str], steps: Mapping[str, Sequence[str]], how: Mapping[str, str]
) -> list[str]:
    """Lists the steps that no look of any ledger has; the arguments are those of :func:`freeze_folds`.

    Raises:
        RunError: A ledger is damaged or of a newer version.
    """
    frozen = {step.sha256 for ledger in ledgers for look in read_ledger(ledger) for step in look.steps}
    return [name for name, own in _digests(originals, steps, how).items() if not frozen & set(own)]


def _digests(
    originals: Sequence[str], steps: Mapping[str, Sequence[str]], how: Mapping[str, str]
) -> dict[str, list[str]]:
    decided: dict[str, object] = dict(how)
    if len(originals) > 1:
        decided["tested together"] = list(originals)
    return {name: [content_digest({**decided, "weights": sha}) for sha in own] for name, own in steps.items()}


def check_ledger(ledger: Path) -> None:
    """Checks that a ledger can be read and written, before hours are spent on what is to be frozen in it.

    Raises:
        RunError: The ledger is damaged or of a newer version, or its folder cannot be written.
    """
    with locked(_lock(ledger)):
        read_ledger(ledger)


def _lock(ledger: Path) -> Path:
    return ledger.with_name(f"{ledger.name}.lock")


def read_ledger(ledger: Path) -> tuple[Look, ...]:
    """Reads the looks of a ledger, the first first; none where there is no file.

    Raises:
        RunError: The file is damaged or of a newer version.
    """
    if not os.path.lexists(ledger):  # a link to nothing is damage
        return ()
    remedy = "restore the file; without it nobody knows how often the held-out cases were looked at"
    return read_json(ledger, _Ledger, newest=LEDGER_VERSION, remedy=remedy).looks


def _check_look(look: Look) -> None:
    problems = []
    if not (math.isfinite(look.margin) and look.margin > 0):
        remedy = "give how much worse still counts as not inferior"
        problems.append(Problem("margin", "range", "must be above 0", f"{look.margin}", remedy))
    names = [step.name for step in look.steps]
    if not names or len(set(names)) < len(names):
        rule, value = "must be one or more, each with a name of its own", ", ".join(names) or "none"
        problems.append(Problem("steps", "names", rule, value, "name every step once"))
    if problems:
        raise RunError(problems)


def certify(
    look: Look,
    original: Sequence[CaseScore],
    changed: Callable[[Step], Sequence[CaseScore]],
    *,
    number: int,
    conditions: Mapping[str, str] | None = None,
    costs: Mapping[str, Cost] | None = None,
) -> Certificate:
    """Tests frozen steps from mild to strong against the original, and stops at the first that does not pass.

    Args:
        look: What was frozen.
        original: Scores of the original network on held-out cases, with their patients and, of several, folds.
        changed: Gives the scores of a step on the same cases; it is called for the steps that are tested alone.
        number: Number of the look, as :func:`freeze` gave it.
        conditions: How both were run.
        costs: What the original and the steps cost, by name.

    Raises:
        RunError: The two were not scored on the same cases, patients, folds and classes; a patient is in two folds; or
            the margin or the steps are no such.

    References:
        R. L. Berger, Multiparameter hypothesis testing and acceptance sampling, 1982,
        doi:10.1080/00401706.1982.10487790 (all classes must pass).
        P. Bauer, Multiple testing in clinical trials, 1991, doi:10.1002/sim.4780100609 (tests in a fixed order).
        C. J. Clopper, E. S. Pearson, The use of confidence or fiducial limits illustrated in the case of the binomial,
        1934, doi:10.1093/biomet/26.4.404.
    """
    _check_look(look)
    results: list[StepResult] = []
    certified = None
    for step in look.steps:
        if results and results[-1].verdict != "not inferior":
            results.append(StepResult(step=step, verdict="not tested"))
            continue
        classes = _compare(original, changed(step), step, look.margin)
        verdict = _together([one.verdict for one in classes])
        results.append(StepResult(step=step, verdict=verdict, classes=classes))
        certified = step.name if verdict == "not inferior" else certified
    return Certificate(
        original=look.original,
        margin=look.margin,
        steps=tuple(results),
        certified=certified if number == 1 else None,
        look=number,
        exploratory=number > 1,
        conditions=dict(conditions or {}),
        costs=dict(costs or {}),
    )


def _together(verdicts: Sequence[Verdict]) -> Verdict:
    """Returns the verdict of all classes: one that does not pass decides, then one with too few patients."""
    order: tuple[Verdict, ...] = ("not shown", "too few")
    return next((verdict for verdict in order if verdict in verdicts), "not inferior")


def _compare(
    original: Sequence[CaseScore], changed: Sequence[CaseScore], step: Step, margin: float
) -> tuple[ClassResult, ...]:
    trials = {ORIGINAL: split_folds([original]), step.name: split_folds([changed])}
    if step.name == ORIGINAL:
        raise RunError(Problem("steps", "names", "must differ from the original", step.name, "name it for the change"))
    runs = read_paired(trials, ORIGINAL)
    before, after = runs[ORIGINAL], runs.get(step.name, {})
    folds, others = ([fold for fold, _ in sorted(side)] for side in (before, after))
    if folds != others:
        rule = f"must be scored on folds {', '.join(map(str, folds))}, as the original"
        value = ", ".join(map(str, others)) or "none"
        raise RunError(Problem(step.name, "folds", rule, value, "score both on the same cases"))
    for pair, run in after.items():
        if run.patients != before[pair].patients:
            rule, remedy = "must name the patients of the original's cases", "score both on one data set"
            raise RunError(Problem(f"{step.name}: fold {pair[0]}", "patients", rule, "others", remedy))
    classes = next(iter(before.values())).classes
    return tuple(_class_result(before, after, row, index, name, margin) for row, (index, name) in enumerate(classes))


def _class_result(before: Runs, after: Runs, row: int, index: int, name: str, margin: float) -> ClassResult:
    tables: dict[int, Array] = {}
    originals: list[Array] = []
    patients: list[str] = []
    empty, quiet = 0, 0
    invented: list[str] = []
    for pair in sorted(before):
        run = before[pair]
        first, own, scored = patient_differences(run, after[pair], row)
        originals.append(first)
        found = ~np.isnan([side[pair].values["dice"][row] for side in (before, after)])
        empty += int((~scored).sum())
        quiet += int((~found[0]).sum())
        invented += [case for case, was, now in zip(run.cases, *found, strict=True) if now and not was]
        if scored.any():
            tables[pair[0]] = own
            patients += np.unique(np.array(run.patients)[scored]).tolist()
    values, dice = (np.concatenate([*side, np.empty(0)]) for side in (tables.values(), originals))
    difference, sd, freedom, bound = lower_bound(list(tables.values()))
    return ClassResult(
        index=index,
        name=name,
        verdict=verdict_of(len(values), bound, margin),
        patients=len(values),
        empty_cases=empty,
        original=float(dice.mean()) if len(dice) else None,
        difference=difference,
        sd=sd,
        degrees_of_freedom=freedom,
        bound=bound,
        folds=tuple(
            FoldBound(fold=fold, patients=len(own), difference=float(own.mean()), bound=lower_bound([own])[3])
            for fold, own in tables.items()
        ),
        lost=_count([patients[place] for place in np.flatnonzero(values < -LARGE_LOSS)], len(values)),
        invented=_count(invented, quiet),
    )


def patient_differences(before: RunScores, after: RunScores, row: int) -> tuple[Array, Array, npt.NDArray[np.bool_]]:
    """Computes each patient's Dice of one class by the original network, and how much the changed one differs from it.

    Args:
        before: Scores of the original.
        after: Scores of the changed network on the same cases.
        row: Place of the class among those of the scores.

    Returns:
        The original's mean Dice and the mean difference (changed less original), both of each patient with a score;
        and whether each case has a score.
    """
    dice = np.array([[run.values["dice"][row : row + 1]] for run in (before, after)])
    means, scored = patient_means(with_found_nothing(dice, dice), before.patients)
    return means[0, 0], means[1, 0] - means[0, 0], scored


def verdict_of(patients: int, bound: float | None, margin: float) -> Verdict:
    """Returns the verdict on a class by the number of its patients and the lower bound of their mean difference."""
    if patients < LEAST_PATIENTS or bound is None:
        return "too few"
    return "not inferior" if bound > -margin else "not shown"


def lower_bound(folds: Sequence[Array]) -> tuple[float | None, float | None, int, float | None]:
    """Gives mean, standard deviation within folds, degrees of freedom and lower bound of patients' differences.

    Folds are strata: each has as much weight as patients, and what its mean differs by from others is no variance. So
    the bound speaks for these pairs of networks, not for others.

    Args:
        folds: Differences of the patients of each fold.

    Returns:
        The mean, None without patients; the other two numbers are None without a degree of freedom.
    """
    patients = sum(map(len, folds))
    if not patients:
        return None, None, 0, None
    mean = float(np.concatenate(folds).mean())
    freedom = patients - len(folds)
    if freedom < 1:
        return mean, None, 0, None
    sd = math.sqrt(sum(float(np.square(own - own.mean()).sum()) for own in folds) / freedom)
    return mean, sd, freedom, mean - float(stats.t.isf(TAIL, freedom)) * sd / math.sqrt(patients)


def _count(names: Sequence[str], of: int) -> Counted:
    """Returns the share of named ones among `of`, with the exact upper bound of Clopper and Pearson."""
    hits = len(names)
    upper = None if not of else 1.0 if hits == of else float(stats.beta.isf(TAIL, hits + 1, of - hits))
    return Counted(names=tuple(names), of=of, upper=upper)


def write_certificate(path: Path, certificate: Certificate) -> None:
    """Writes a certificate.

    Raises:
        RunError: The file cannot be written.
    """
    write_json(path, {"schema_version": CERTIFICATE_VERSION, **asdict(certificate)})


def write_with_page(folder: Path, certificate: Certificate) -> None:
    """Writes a certificate and its page into a folder.

    Raises:
        RunError: A file cannot be written.
    """
    write_certificate(folder / CERTIFICATE_FILE, certificate)
    write_text(folder / CERTIFICATE_PAGE, certificate_page(certificate))


def format_certificate(certificate: Certificate) -> str:
    """Formats a certificate as lines: each step with its classes, then what limits it."""
    lines = []
    for result in certificate.steps:
        lines.append(f"{result.step.name}: {_SAID[result.verdict]} (Dice, margin {certificate.margin:g})")
        for one in result.classes:
            lines.append(
                f"  {one.name}: {_SAID[one.verdict]}: {fixed(one.difference, 4, sign=True)} from "
                f"{fixed(one.original, 4)}, at least {fixed(one.bound, 4, sign=True)}; "
                f"{counted(one.patients, 'patient')}"
            )
            if len(one.folds) > 1:
                bounds = ", ".join(f"{fold.fold}: {fixed(fold.bound, 4, sign=True)}" for fold in one.folds)
                lines.append(f"    at least, by fold: {bounds}")
            lines.append(f"    lose more than {certificate.large_loss:g}: {_rate(one.lost, 'patient')}")
            if one.invented.of:
                lines.append(f"    found by the changed network alone: {_rate(one.invented, 'case')}")
    lines.append(f"certified: {certificate.certified or 'none'}")
    lines.append(_look(certificate))
    lines += certificate.cautions
    lines += [f"{name}: {value}" for name, value in certificate.conditions.items()]
    return "\n".join(lines)


def certificate_page(certificate: Certificate) -> str:
    """Formats a certificate as Markdown: what is certified, a table of the steps, and what it holds for."""
    said = "none" if certificate.certified is None else f"`{certificate.certified}`"
    lines = ["# Certificate of a changed network", "", f"Certified: **{said}** (Dice, margin {certificate.margin:g})."]
    lines += ["", f"{_look(certificate).capitalize()}."]
    names = list(dict.fromkeys(one.name for result in certificate.steps for one in result.classes))
    originals = {one.name: one.original for result in reversed(certificate.steps) for one in result.classes}
    heads = [f"{escape_markdown(name)}: difference, at least" for name in names]
    columns = ["step", "GMAC", "parameters", "latency", "memory", *heads, "verdict"]
    lines += ["", f"| {' | '.join(columns)} |", f"|---|{'---:|' * 4}{'---|' * (len(names) + 1)}"]
    for name in (ORIGINAL, *(result.step.name for result in certificate.steps)):
        result = next((one for one in certificate.steps if one.step.name == name), None)
        cost = certificate.costs.get(name)
        cells = [""] * 4
        if cost is not None:
            latency = (
                NOT_MEASURED
                if cost.latency_ms is None or cost.latency_ratio is None
                else f"{cost.latency_ms:.1f} ms, {cost.latency_ratio:.2f} of the original's"
            )
            memory = NOT_MEASURED if cost.peak_memory_mib is None else f"{cost.peak_memory_mib:.0f} MiB"
            cells = [f"{cost.macs / 1e9:.3f}", f"{cost.parameters:,}", latency, memory]
        found = {one.name: one for one in result.classes} if result else {}
        for each in names:
            one = found.get(each)
            if name == ORIGINAL:
                cells.append(f"Dice {fixed(originals[each], 4)}")
            else:
                cells.append(
                    "" if one is None else f"{fixed(one.difference, 4, sign=True)}, {fixed(one.bound, 4, sign=True)}"
                )
        lines.append(f"| `{name}` | {' | '.join(cells)} | {'' if result is None else _SAID[result.verdict]} |")
    folds = [(result.step.name, one) for result in certificate.steps for one in result.classes if len(one.folds) > 1]
    if folds:
        lines += ["", "| step, class | each fold by itself: difference, at least |", "|---|---|"]
        for name, one in folds:
            each_fold = "; ".join(
                f"{fold.fold}: {fixed(fold.difference, 4, sign=True)}, {fixed(fold.bound, 4, sign=True)}"
                for fold in one.folds
            )
            lines.append(f"| `{name}`, {escape_markdown(one.name)} | {each_fold} |")
    lines += [""]
    for result in certificate.steps:
        for one in result.classes:
            said = f"lose more than {certificate.large_loss:g}: {_rate(one.lost, 'patient')}"
            if one.invented.of:
                said += f"; found by the changed network alone: {_rate(one.invented, 'case')}"
            about = f"{one.name}: {counted(one.patients, 'patient')}; {said}"
            lines.append(f"- `{result.step.name}`, {escape_markdown(about)}.")
    lines += ["", *(f"- {escape_markdown(said)}." for said in certificate.cautions)]
    lines += [*(f"- {escape_markdown(f'{name}: {value}')}" for name, value in certificate.conditions.items()), ""]
    return "\n".join(lines)


_SAID: Mapping[Verdict, str] = {
    "not inferior": "not inferior",
    "not shown": "not shown, may be inferior",
    "too few": f"too few patients, {LEAST_PATIENTS} are needed",
    "not tested": "not tested, as a step before did not pass",
}


def _look(certificate: Certificate) -> str:
    passed = f"; {certificate.passed} passed" if certificate.passed else ""
    later = f": exploratory, no proof{passed}" * certificate.exploratory
    return f"look {certificate.look} at these held-out cases{later}"


def _rate(found: Counted, noun: str) -> str:
    names = f" ({some(found.names, 3)})" if found.names else ""
    upper = "" if found.upper is None else f", at most {found.upper:.1%}"
    return f"{len(found.names)} of {counted(found.of, noun)}{names}{upper}"
