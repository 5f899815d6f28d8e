"""Certificates of changed networks: bounds, verdicts, the order of steps, and the ledger of looks."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from seg.compression.certificate import (
    CERTIFICATE_VERSION,
    Certificate,
    Cost,
    Look,
    Step,
    certificate_page,
    certify,
    format_certificate,
    freeze,
    freeze_folds,
    read_ledger,
    write_certificate,
)
from seg.errors import RunError
from seg.evaluation.metrics import ClassScores
from seg.evaluation.scores import CaseScore
from seg.files import read_json
from tests.problems import refused

INT8 = Step(name="int8", sha256="ab" * 32)


def read_certificate(path: Path) -> Certificate:
    return read_json(path, Certificate, newest=CERTIFICATE_VERSION, remedy="certify again")


def table(dice: np.ndarray, *, patients: Sequence[str] | None = None, fold: int | None = None) -> list[CaseScore]:
    """Gives records of scores of shape (classes, cases); each case is a patient of its own where none are named."""
    return [
        CaseScore(
            case_id=f"f{fold}_{case:03}",
            patient=f"f{fold}_p{case:03}" if patients is None else patients[case],
            fold=fold,
            class_index=row + 1,
            class_name="abc"[row],
            scores=ClassScores(dice=float(value)),
        )
        for (row, case), value in np.ndenumerate(dice)
    ]


def look(*steps: Step, margin: float = 0.005) -> Look:
    return Look(original=("cd" * 32,), margin=margin, steps=steps or (INT8,))


def certified(before: Sequence[CaseScore], after: Sequence[CaseScore], margin: float = 0.005) -> Certificate:
    return certify(look(margin=margin), before, lambda _: after, number=1)


def drawn(seed: int, *shape: int, mean: float = 0.0, sd: float = 0.01) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, sd, shape)


def test_the_bound_is_that_of_a_paired_t_test_over_patients() -> None:
    before, after = 0.8 + drawn(0, 1, 60), 0.8 + drawn(1, 1, 60)
    patients = [f"p{case // 2:02}" for case in range(60)]
    (step,) = certified(table(before, patients=patients), table(after, patients=patients)).steps
    (found,) = step.classes
    pairs = (after - before)[0].reshape(30, 2).mean(axis=1)
    expected = stats.ttest_1samp(pairs, 0.0, alternative="greater").confidence_interval(0.975).low
    assert found.bound == pytest.approx(expected, rel=1e-12)
    assert (found.patients, found.degrees_of_freedom) == (30, 29)
    assert found.original == pytest.approx(before.mean())
    assert found.difference == pytest.approx(pairs.mean())
    assert found.sd == pytest.approx(pairs.std(ddof=1))


def test_folds_are_strata_whose_means_may_differ() -> None:
    import statsmodels.api as sm

    sizes, shifts = (24, 10, 16), (0.05, 0.0, -0.02)
    before = [np.full((1, size), 0.8) for size in sizes]
    after = [
        0.8 + shift + drawn(7 + fold, 1, size) for fold, (size, shift) in enumerate(zip(sizes, shifts, strict=True))
    ]
    first = [score for fold, dice in enumerate(before) for score in table(dice, fold=fold)]
    second = [score for fold, dice in enumerate(after) for score in table(dice, fold=fold)]
    (step,) = certified(first, second).steps
    (found,) = step.classes
    differences = np.concatenate([(b - a)[0] for a, b in zip(before, after, strict=True)])
    design = np.repeat(np.eye(3), sizes, axis=0)
    contrast = sm.OLS(differences, design).fit().t_test(np.array(sizes) / sum(sizes))
    assert found.difference == pytest.approx(float(contrast.effect[0]))
    assert found.bound == pytest.approx(float(contrast.conf_int(alpha=0.05)[0, 0]))
    assert found.degrees_of_freedom == 47
    for fold, own in enumerate(found.folds):
        values = (after[fold] - before[fold])[0]
        low = stats.t.interval(0.95, sizes[fold] - 1, values.mean(), stats.sem(values))[0]
        assert (own.fold, own.patients) == (fold, sizes[fold])
        assert own.bound == pytest.approx(low)


@pytest.mark.parametrize(("shift", "verdict"), [(-0.0019, "not inferior"), (-0.0021, "not shown")])
def test_every_class_must_pass(shift: float, verdict: str) -> None:
    before = np.full((2, 25), 0.8)
    after = before + np.array([[0.1], [shift]])  # no spread: the bound is the difference
    certificate = certified(table(before), table(after), margin=0.002)
    assert certificate.steps[0].verdict == verdict
    assert [one.verdict for one in certificate.steps[0].classes] == ["not inferior", verdict]
    assert certificate.certified == ("int8" if verdict == "not inferior" else None)


@pytest.mark.parametrize(("patients", "verdict"), [(19, "too few"), (20, "not inferior")])
def test_below_twenty_patients_nothing_is_said(patients: int, verdict: str) -> None:
    dice = np.full((1, patients), 0.8)
    assert certified(table(dice), table(dice)).steps[0].verdict == verdict


def test_a_class_that_few_patients_have_leaves_the_step_undecided_and_one_that_fails_decides() -> None:
    before = np.full((2, 30), 0.8)
    before[1, 15:] = np.nan
    after = before.copy()
    step = certified(table(before), table(after)).steps[0]
    assert ([one.verdict for one in step.classes], step.verdict) == (["not inferior", "too few"], "too few")
    assert [(one.patients, one.empty_cases) for one in step.classes] == [(30, 0), (15, 15)]
    after[0] -= 0.1
    assert certified(table(before), table(after)).steps[0].verdict == "not shown"


def test_a_class_that_nobody_has_is_too_few() -> None:
    dice = np.full((1, 30), np.nan)
    (found,) = certified(table(dice), table(dice)).steps[0].classes
    assert (found.verdict, found.patients, found.difference, found.bound) == ("too few", 0, None, None)
    assert (found.lost.of, found.lost.upper, found.invented.of) == (0, None, 30)


def test_large_losses_and_inventions_are_counted_with_exact_bounds() -> None:
    before = np.full((1, 40), 0.8)
    before[0, 30:] = np.nan
    after = before.copy()
    after[0, [3, 5]] = 0.7499, 0.7501  # a loss of 0.0501 and one of 0.0499
    after[0, 32] = 0.0  # the reference is empty, and only the changed network finds something
    (found,) = certified(table(before), table(after)).steps[0].classes
    assert (found.lost.names, found.lost.of) == (("fNone_p003", "fNone_p032"), 31)
    assert found.lost.upper == pytest.approx(stats.binomtest(2, 31).proportion_ci(0.95, "exact").high)
    assert (found.invented.names, found.invented.of) == (("fNone_032",), 10)
    assert found.invented.upper == pytest.approx(stats.binomtest(1, 10).proportion_ci(0.95, "exact").high)
    assert found.difference == pytest.approx((-0.0501 - 0.0499 - 1.0) / 31)  # what it invents counts as a loss of all
    assert found.empty_cases == 9


def test_no_loss_among_few_has_the_bound_of_the_rule_of_three() -> None:
    dice = np.full((1, 30), 0.8)
    (found,) = certified(table(dice), table(dice)).steps[0].classes
    assert found.lost.upper == pytest.approx(1 - 0.025 ** (1 / 30))


def test_steps_are_tested_in_order_until_one_does_not_pass() -> None:
    before = np.full((1, 25), 0.8)
    steps = [Step(name=name, sha256=name) for name in ("mild", "middle", "strong", "strongest")]
    losses = {"mild": 0.001, "middle": 0.004, "strong": 0.006, "strongest": 0.0}
    asked = []

    def changed(step: Step) -> list[CaseScore]:
        asked.append(step.name)
        return table(before - losses[step.name])

    certificate = certify(look(*steps), table(before), changed, number=1)
    assert asked == ["mild", "middle", "strong"]  # each against the original: a third step of 0.002 would pass
    assert [one.verdict for one in certificate.steps] == ["not inferior", "not inferior", "not shown", "not tested"]
    assert certificate.certified == "middle"


def test_the_error_of_the_test_is_kept() -> None:
    random, margin, refuted = np.random.default_rng(3), 0.01, 0
    for _ in range(400):
        before = np.full((1, 24), 0.8)
        after = before - margin + random.normal(0, 0.02, (1, 24))  # as bad as the margin: passing is an error
        refuted += certified(table(before), table(after), margin).steps[0].verdict == "not inferior"
    assert stats.binomtest(refuted, 400, 0.025).pvalue > 0.001


def folds_of(differences: Sequence[np.ndarray]) -> tuple[list[CaseScore], list[CaseScore]]:
    """Gives the scores of two networks whose patients differ so, fold by fold."""
    before, after = [], []
    for fold, own in enumerate(differences):
        before += table(np.full((1, len(own)), 0.8), fold=fold)
        after += table(0.8 + own[None], fold=fold)
    return before, after


@pytest.mark.parametrize(("skewed", "most"), [(False, 0.025), (True, 0.05)])
def test_the_error_is_kept_over_folds_whose_means_differ(skewed: bool, most: float) -> None:
    # As bad as the margin over all patients, while some folds are better and some worse: passing is an error. Losses of
    # few patients make differences skewed; the error is then above its nominal value, and this much at most.
    sizes, shifts, margin = (12, 9, 15, 12, 12), np.array([0.01, -0.012, 0.006, -0.004, -0.0045]), 0.005
    shifts = shifts - (shifts * sizes).sum() / sum(sizes)
    random, passed, runs = np.random.default_rng(11), 0, 400
    for _ in range(runs):
        noise = [0.01 * (1 - random.exponential(1, size) if skewed else random.normal(0, 1, size)) for size in sizes]
        before, after = folds_of([own + shift - margin for own, shift in zip(noise, shifts, strict=True)])
        passed += certified(before, after, margin).steps[0].verdict == "not inferior"
    assert stats.binomtest(passed, runs, most, alternative="greater").pvalue > 0.001


def test_means_that_differ_between_folds_cost_no_power() -> None:
    shifts, noise = (0.02, -0.02, 0.01, -0.01, 0.0), np.tile([0.004, -0.004], 6)
    (step,) = certified(*folds_of([noise + shift for shift in shifts])).steps
    (found,) = step.classes
    assert found.bound == pytest.approx(-stats.t.isf(0.025, 55) * math.sqrt(60 * 0.004**2 / 55 / 60))
    assert step.verdict == "not inferior"
    one_sample = stats.ttest_1samp(np.concatenate([noise + shift for shift in shifts]), 0, alternative="greater")
    assert one_sample.confidence_interval(0.975).low < 2 * found.bound


def test_both_must_be_scored_on_the_same_cases_of_the_same_patients_and_folds() -> None:
    dice = np.full((1, 25), 0.8)
    before = table(dice, fold=0)
    with refused(("int8.fold_0.seed_0", "cases"), error=RunError):
        certified(before, table(dice[:, :24], fold=0))
    with refused(("int8: fold 0", "patients"), error=RunError):
        certified(before, [replace(score, patient=score.case_id) for score in before])
    with refused(("int8", "folds", "0"), error=RunError):
        certified([*before, *table(dice, fold=1)], before)
    shared = table(dice, fold=1, patients=[score.patient for score in before])
    with refused(("fold 1", "patients"), error=RunError):
        certified([*before, *shared], [*before, *shared])


@pytest.mark.parametrize("margin", [0.0, -0.1, math.nan])
def test_a_margin_is_above_0(margin: float, tmp_path: Path) -> None:
    with refused(("margin", "range", f"{margin}"), error=RunError):
        certified([], [], margin)
    with refused(("margin", "range", f"{margin}"), error=RunError):
        freeze(tmp_path / "ledger.json", look(margin=margin))
    assert not list(tmp_path.iterdir())


def test_steps_have_names_of_their_own() -> None:
    with refused(("steps", "names", "int8, int8"), error=RunError):
        certify(look(INT8, INT8), [], lambda _: [], number=1)
    with refused(("steps", "names", "none"), error=RunError):
        certify(replace(look(), steps=()), [], lambda _: [], number=1)


def test_a_ledger_counts_looks_at_one_original(tmp_path: Path) -> None:
    ledger = tmp_path / "run" / "ledger.json"
    other = Step(name="int8", sha256="ef" * 32)
    assert freeze(ledger, look()) == 1
    assert freeze(ledger, look()) == 1  # the same networks give the same scores
    assert freeze(ledger, look(other)) == 2
    assert freeze(ledger, look(margin=0.1)) == 3  # a margin chosen after the result
    assert freeze(ledger, replace(look(), original=("12" * 32,))) == 1
    assert freeze(ledger, look(other)) == 2
    assert [one.steps for one in read_ledger(ledger)] == [(INT8,), (other,), (INT8,), (INT8,)]
    assert [path.name for path in ledger.parent.iterdir()] == ["ledger.json"]


def test_later_looks_are_exploratory() -> None:
    dice = np.full((1, 25), 0.8)
    for number in (1, 2):
        certificate = certify(look(), table(dice), lambda _: table(dice), number=number)
        assert (certificate.look, certificate.exploratory) == (number, number > 1)
        assert ("exploratory" in format_certificate(certificate)) == (number > 1)


def test_a_damaged_ledger_is_not_taken_for_none(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.json"
    ledger.write_text("{")
    with pytest.raises(RunError):
        freeze(ledger, look())
    assert ledger.read_text() == "{"
    ledger.unlink()
    ledger.symlink_to(tmp_path / "nothing")
    with pytest.raises(RunError):
        freeze(ledger, look())
    assert ledger.is_symlink()
    assert not (tmp_path / "nothing").exists()


def test_a_class_that_cannot_fail_is_named() -> None:
    before = np.full((2, 25), 0.8)
    before[1] = 0.004
    found = certified(table(before), table(np.zeros_like(before)))
    assert [one.verdict for one in found.steps[0].classes] == ["not shown", "not inferior"]
    assert [said.split(":")[0] for said in found.cautions] == ["int8, b"]
    assert found.cautions[0] in format_certificate(found)
    assert not certified(table(before), table(before), margin=0.003).cautions


@pytest.mark.parametrize(("patients", "named"), [(49, True), (50, False)])
def test_a_pass_of_few_patients_one_of_whom_loses_much_is_named(patients: int, named: bool) -> None:
    before = np.full((2, patients), 0.8)
    after = before.copy()
    after[0, 0] -= 0.06
    found = certified(table(before), table(after), margin=0.01)
    assert found.certified == "int8"
    assert [said.split(":")[0] for said in found.cautions] == ["int8, a"] * named


def test_a_certificate_is_read_as_it_was_written(tmp_path: Path) -> None:
    before = np.full((2, 25), 0.8)
    before[1] = np.nan
    steps = (INT8, Step(name="int4", sha256="00"))
    certificate = certify(
        look(*steps),
        table(before),
        lambda _: table(before - 0.1),
        number=1,
        conditions={"engine": "openvino"},
        costs={"original": Cost(macs=10, parameters=5), "int8": Cost(macs=1, parameters=2, latency_ratio=0.5)},
    )
    write_certificate(tmp_path / "certificate.json", certificate)
    assert read_certificate(tmp_path / "certificate.json") == certificate
    assert json.loads((tmp_path / "certificate.json").read_text())["schema_version"] == 1


def test_names_are_no_part_of_the_structure_of_a_page() -> None:
    hostile = "a | b `<script>` [x](http://y)"
    before = [replace(score, class_name=hostile, patient=hostile) for score in table(np.full((1, 1), 0.8))]
    after = [replace(score, scores=ClassScores(dice=0.1)) for score in before]
    page = certificate_page(certified(before, after))
    rows = [line for line in page.splitlines() if line.startswith("|")]
    assert {row.count("|") for row in rows} == {rows[1].count("|")}
    assert "<" not in page.replace("<=", "")
    assert "](" not in page
    assert "http:" not in page


def test_the_text_shows_the_bound_that_decides() -> None:
    before = np.full((2, 25), 0.8)
    after = before + np.array([[0.001], [-0.0123]])
    lines = format_certificate(certified(table(before), table(after))).splitlines()
    assert any("b" in line and "\N{MINUS SIGN}0.0123" in line for line in lines)
    assert "certified: none" in lines


def test_the_page_shows_what_each_step_costs_and_each_fold() -> None:
    before, after = folds_of([np.full(12, -0.0011), np.full(12, -0.0033)])
    costs = {"original": Cost(macs=4 * 10**9, parameters=1234567, latency_ms=20.0, latency_ratio=1.0)}
    costs["int8"] = Cost(macs=10**9, parameters=1234567, latency_ms=5.0, latency_ratio=0.25)
    found = certify(look(), before, lambda _: after, number=1, costs=costs, conditions={"threads": "2"})
    rows = [line for line in certificate_page(found).splitlines() if line.startswith("| `int8`")]
    assert "0.25" in rows[0]
    assert "\N{MINUS SIGN}0.0022" in rows[0]
    assert all(value in rows[1] for value in ("\N{MINUS SIGN}0.0011", "\N{MINUS SIGN}0.0033"))


def test_folds_are_frozen_by_digests_that_stay_the_same(tmp_path: Path) -> None:
    """A changed digest would make each network in a ledger a new one, and forget how often cases were looked at."""

    def digest(content: str) -> str:
        return hashlib.sha256(content.encode()).hexdigest()

    ledgers = [tmp_path / f"{fold}.json" for fold in (0, 1)]
    how = {"engine": "e", "device": "cpu"}
    alone, number = freeze_folds(ledgers[:1], ["a"], {"s": ["x"], "t": ["z"]}, 0.005, how)
    assert (number, alone.original) == (1, ("a",))
    own = [digest(f'{{"device": "cpu", "engine": "e", "weights": "{weights}"}}') for weights in "xz"]
    assert alone.steps == tuple(Step(name=name, sha256=sha) for name, sha in zip("st", own, strict=True))
    assert read_ledger(ledgers[0]) == (alone,)
    together, number = freeze_folds(ledgers, ["a", "b"], {"s": ["x", "y"]}, 0.005, how)
    assert (number, together.original) == (2, ("a", "b"))  # the first fold was looked at by itself
    own = [
        digest(f'{{"device": "cpu", "engine": "e", "tested together": ["a", "b"], "weights": "{weights}"}}')
        for weights in "xy"
    ]
    assert together.steps == (Step(name="s", sha256=digest(f'{{"folds": ["{own[0]}", "{own[1]}"]}}')),)
    assert [read_ledger(ledger)[-1].steps[0].sha256 for ledger in ledgers] == own
    assert [len(read_ledger(ledger)) for ledger in ledgers] == [2, 1]
