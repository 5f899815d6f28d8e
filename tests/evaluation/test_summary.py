from __future__ import annotations

import math
import re
import statistics
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats

from seg.errors import RunError
from seg.evaluation.metrics import EMPTY_SCORES, METRICS, ClassScores
from seg.evaluation.scores import CaseScore, Evaluation, case_scores
from seg.evaluation.summary import format_evaluation, summarise

NAMES = ("background", "head", "tail")
NOTHING = ClassScores(
    dice=0.0,
    iou=0.0,
    hd95_mm=math.inf,
    nsd=0.0,
    volume_difference_ml=-2.0,
    volume_difference_ratio=-1.0,
    reference_ml=2.0,
    prediction_ml=0.0,
)


def scores_of(dice: float) -> ClassScores:
    return replace(NOTHING, dice=dice, iou=dice / 2, hd95_mm=10 * (1 - dice), nsd=dice, prediction_ml=1.5)


def records(
    *dice: tuple[float, float], patients: list[str] | None = None, fold: int | None = None, start: int = 0
) -> list[CaseScore]:
    """Records of cases with the Dice given for each of two classes."""
    return [
        record
        for number, pair in enumerate(dice, start)
        for record in case_scores(
            {1: scores_of(pair[0]), 2: scores_of(pair[1])},
            case_id=f"case_{number}",
            class_names=NAMES,
            patient=patients[number - start] if patients else None,
            fold=fold,
        )
    ]


def evaluate(scores: list[CaseScore], **options: int) -> Evaluation:
    return summarise(scores, class_names=NAMES, nsd_tolerance_mm=1.5, **options)


def random_dice(count: int, seed: int = 0) -> list[tuple[float, float]]:
    return [tuple(pair) for pair in np.random.default_rng(seed).uniform(0.6, 1.0, (count, 2)).tolist()]


def test_the_mean_is_that_of_class_means_over_cases() -> None:
    scores = records((0.9, 0.5), (0.7, 0.1))
    # The third case has no tail at all: its head counts, its tail is left out.
    scores += case_scores({1: scores_of(0.8), 2: EMPTY_SCORES}, case_id="case_2", class_names=NAMES)
    evaluation = evaluate(scores)
    assert evaluation.mean_dice == pytest.approx((0.8 + 0.3) / 2)
    head, tail = (entry.metrics["dice"] for entry in evaluation.classes)
    assert (head.mean, head.sd) == pytest.approx((0.8, statistics.stdev([0.9, 0.7, 0.8])))
    assert (tail.mean, tail.sd) == pytest.approx((0.3, statistics.stdev([0.5, 0.1])))
    assert (head.count, head.nan, tail.count, tail.nan) == (3, 0, 2, 1)
    assert (evaluation.num_cases, evaluation.num_patients) == (3, 3)


def test_a_missed_class_counts_as_zero_dice_and_is_left_out_of_distances() -> None:
    scores = records((0.9, 0.5))
    scores += case_scores({1: scores_of(0.7), 2: NOTHING}, case_id="case_1", class_names=NAMES)
    tail = evaluate(scores).classes[1].metrics
    assert tail["dice"].mean == pytest.approx(0.25)
    assert (tail["hd95_mm"].mean, tail["hd95_mm"].count, tail["hd95_mm"].infinite) == (pytest.approx(5.0), 1, 1)
    assert (tail["hd95_mm"].sd, tail["hd95_mm"].ci95) == (None, None)


def test_a_class_that_no_case_has_leaves_the_mean_to_the_others() -> None:
    scores = case_scores({1: scores_of(0.7), 2: EMPTY_SCORES}, case_id="a", class_names=NAMES)
    scores += case_scores({1: scores_of(0.9), 2: EMPTY_SCORES}, case_id="b", class_names=NAMES)
    evaluation = evaluate(scores)
    assert evaluation.mean_dice == pytest.approx(0.8)
    tail = evaluation.classes[1].metrics["dice"]
    assert (tail.mean, tail.sd, tail.ci95, tail.count, tail.nan) == (None, None, None, 0, 2)
    nothing = evaluate([record for record in scores if record.class_index == 2])
    assert (nothing.mean_dice, nothing.mean_dice_ci95) == (None, None)


def test_intervals_agree_with_scipys_bootstrap() -> None:
    dice = random_dice(30)
    evaluation = evaluate(records(*dice), bootstrap_samples=20_000)
    for entry, values in zip(evaluation.classes, zip(*dice, strict=True), strict=True):
        theirs = scipy.stats.bootstrap((values,), np.mean, method="percentile", n_resamples=20_000, rng=1)
        assert entry.metrics["dice"].ci95 == pytest.approx(tuple(theirs.confidence_interval), abs=0.002)
    both = scipy.stats.bootstrap((np.mean(dice, axis=1),), np.mean, method="percentile", n_resamples=20_000, rng=1)
    assert evaluation.mean_dice_ci95 == pytest.approx(tuple(both.confidence_interval), abs=0.002)


def test_volumes_of_one_patient_are_resampled_together() -> None:
    once = random_dice(20)
    patients = [f"patient_{number}" for number in range(20)]
    single = evaluate(records(*once, patients=patients))
    # Five copies of every volume hold no news about patients, so the interval must not narrow.
    copied = evaluate(records(*once * 5, patients=patients * 5))
    assert (copied.num_cases, copied.num_patients) == (100, 20)
    assert copied.mean_dice_ci95 == pytest.approx(single.mean_dice_ci95)
    assert copied.classes[0].metrics["nsd"].ci95 == pytest.approx(single.classes[0].metrics["nsd"].ci95)


def test_one_patient_gives_no_interval() -> None:
    evaluation = evaluate(records((0.9, 0.5), (0.7, 0.1), patients=["a", "a"]))
    assert evaluation.mean_dice_ci95 is None
    assert evaluation.classes[0].metrics["dice"].ci95 is None
    assert evaluation.classes[0].metrics["dice"].sd is not None


def test_intervals_follow_from_the_seed() -> None:
    scores = records(*random_dice(10))
    assert evaluate(scores) == evaluate(scores, seed=0)
    assert evaluate(scores).mean_dice_ci95 != evaluate(scores, seed=1).mean_dice_ci95


def test_folds_are_summarised_apart() -> None:
    first, second = random_dice(6), random_dice(4, seed=1)
    evaluation = evaluate(records(*first, fold=0) + records(*second, fold=3, start=6))
    assert [(fold.fold, fold.num_cases) for fold in evaluation.folds] == [(0, 6), (3, 4)]
    alone = evaluate(records(*second))
    assert evaluation.folds[1].mean_dice == pytest.approx(np.mean(second))
    assert evaluation.folds[1].mean_dice_ci95 == pytest.approx(alone.mean_dice_ci95)
    assert evaluate(records(*first)).folds == ()


def test_scores_that_make_no_mean_are_refused() -> None:
    doubled = records((0.9, 0.5)) * 2
    for scores, names, paths in (
        ([], NAMES, ["scores"]),
        (doubled, NAMES, ["case case_0", "case case_0"]),
        (doubled[:2], NAMES[:2], ["class_names"]),
    ):
        with pytest.raises(RunError) as caught:
            summarise(scores, class_names=names, nsd_tolerance_mm=1.0)
        assert [problem.path for problem in caught.value.problems] == paths


def test_the_table_for_people_names_what_was_left_out() -> None:
    scores = records((0.9, 0.5), (0.7, 0.1))
    scores += case_scores({1: NOTHING, 2: EMPTY_SCORES}, case_id="case_2", class_names=NAMES)
    skewed = replace(NOTHING, hd95_mm=math.nan, nsd=math.nan)
    scores += case_scores({1: skewed, 2: EMPTY_SCORES}, case_id="case_3", class_names=NAMES)
    lines = format_evaluation(evaluate(scores)).splitlines()
    columns = [f"{metric.label} {metric.unit}".strip() for metric in METRICS.values()]
    assert re.split(r"  +", lines[0]) == ["class", columns[0], "95 % CI", *columns[1:]]
    assert lines[1].split()[:2] == ["head", "0.4000"]
    assert lines[2].split()[:2] == ["tail", "0.3000"]
    assert lines[3].split()[:2] == ["mean", "0.3500"]
    assert lines[4].startswith("4 cases of 4 patients; NSD at 1.5 mm; ")
    assert lines[5:] == [
        "head: one mask empty in 1 case (Dice 0; HD95 infinite, left out of its mean)",
        "head: HD95 not measured in 1 case",
        "tail: both masks empty in 2 cases (left out of every mean)",
    ]
