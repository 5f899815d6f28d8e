"""Rank stability: how sure the order of the variants is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy import stats

from seg.errors import Problem, RunError
from seg.evaluation.differences import (
    FloatArray,
    Pair,
    Runs,
    Trials,
    patient_means,
    read_paired,
    with_found_nothing,
)

SAMPLES = 5000


@dataclass(frozen=True, kw_only=True)
class RankStability:
    """The order of variants by mean Dice, over resamples and between seeds.

    Attributes:
        ranked: Variants from the best mean Dice to the worst, baseline included; without those that lack a run which
            the baseline has.
        probability: For each of them, the probability of rank 1, 2, ...; each adds up to 1.
        kendall_tau: Kendall's tau-b between the orders of two seeds, by the pair of seeds; empty with a single seed.
        mean_tau: Its mean over the pairs; None with a single seed or where no order is defined.
    """

    ranked: tuple[str, ...]
    probability: Mapping[str, tuple[float, ...]]
    kendall_tau: Mapping[tuple[int, int], float]
    mean_tau: float | None


def rank_stability(trials: Trials, baseline: str, *, samples: int = SAMPLES, seed: int = 0) -> RankStability:
    """Ranks variants in resamples of runs and patients.

    Runs and patients of every fold are drawn with replacement, the same for all variants, so the pairing is kept. Of n
    runs or patients n - 1 are drawn: that makes the variance of a mean unbiased, which matters with three seeds
    (drawing n makes it a third too small). Where a fold has one run, it is kept. A case of a class counts where every
    ranked variant has a Dice in every run. Own code, since `scipy.stats.bootstrap` resamples along one axis.

    Args:
        trials: Scores of finished trials by variant, then by fold and seed.
        baseline: Name of the baseline, one of the ranked.
        samples: Resamples, >= 1.
        seed: Seed of the resampling.

    Returns:
        The probabilities of ranks and the agreement of seeds.

    Raises:
        RunError: The baseline has no finished trial, or the runs cannot be compared.

    References:
        P. J. McCarthy, C. B. Snowden, The bootstrap and finite population sampling, 1985 (n - 1 draws).
        A. B. Owen, The pigeonhole bootstrap, 2007, doi:10.1214/07-AOAS122 (crossed factors).
        M. G. Kendall, The treatment of ties in ranking problems, 1945, doi:10.1093/biomet/33.3.239.
    """
    runs = read_paired(trials, baseline)
    pairs = sorted(runs[baseline])
    kept = {name: by_pair for name, by_pair in runs.items() if set(pairs) <= set(by_pair)}
    tables = _tables(kept, pairs)
    if not tables:
        rule = "must have a case with a Dice in every run"
        raise RunError(Problem("a ranking", "empty", rule, "none", "look at the labels"))
    names = list(kept)
    totals = _weighted([table.mean(axis=(1, 2)) for table in tables.values()], list(tables.values()))
    best = sorted(range(len(names)), key=lambda number: (-totals[number], names[number]))
    resampled = resampled_means(list(tables.values()), samples, np.random.default_rng(seed))
    # Variants of equal mean share their ranks at random, so that the probabilities of a rank add up to 1.
    noise = np.random.default_rng([seed, 1]).random(resampled.shape)
    place = np.argsort(np.lexsort((noise, -resampled), axis=0), axis=0)
    tau = _agreement(tables, pairs)
    return RankStability(
        ranked=tuple(names[number] for number in best),
        probability={
            names[number]: tuple(
                float(share) for share in np.bincount(place[number], minlength=len(names)) / resampled.shape[1]
            )
            for number in best
        },
        kendall_tau=tau,
        mean_tau=float(np.mean(list(tau.values()))) if tau else None,
    )


def _tables(kept: Mapping[str, Runs], pairs: Sequence[Pair]) -> dict[int, FloatArray]:
    """Gives mean Dice by fold, of shape (variants, runs, patients)."""
    tables = {}
    for fold in sorted({fold for fold, _ in pairs}):
        mine = [pair for pair in pairs if pair[0] == fold]
        values = np.stack([[by_pair[pair].values["dice"] for pair in mine] for by_pair in kept.values()])
        patients = next(iter(kept.values()))[mine[0]].patients
        means, scored = patient_means(with_found_nothing(values, values), patients)
        if scored.any():
            tables[fold] = means
    return tables


def _weighted(values: Sequence[FloatArray], tables: Sequence[FloatArray]) -> FloatArray:
    """Averages values over folds, each patient counting the same."""
    return np.average(values, axis=0, weights=[table.shape[-1] for table in tables])


def resampled_means(
    tables: Sequence[FloatArray], samples: int, rng: np.random.Generator, *, spare: int = 1
) -> FloatArray:
    """Averages resamples of runs and patients.

    Args:
        tables: Scores by fold, of shape (variants, runs, patients).
        samples: Resamples, >= 1.
        rng: Source of randomness.
        spare: Of n runs or patients, n less this number are drawn, but at least one.

    Returns:
        Mean of each variant in each resample, each patient counting the same, of shape (variants, samples).
    """
    by_fold = []
    for table in tables:
        runs, patients = (_draws(count, max(count - spare, 1), samples, rng) for count in table.shape[1:])
        by_fold.append(np.einsum("vrn,nr->vn", table @ patients.T, runs))
    return _weighted(by_fold, tables)


def _draws(count: int, drawn: int, samples: int, rng: np.random.Generator) -> FloatArray:
    """Gives how much of a resample each of `count` units is, of shape (samples, count)."""
    return rng.multinomial(drawn, np.full(count, 1 / count), size=samples) / drawn


def _agreement(tables: Mapping[int, FloatArray], pairs: Sequence[Pair]) -> dict[tuple[int, int], float]:
    """Gives Kendall's tau between the orders of two seeds on the folds that both have; undefined ones are left out."""
    by_seed: dict[int, dict[int, FloatArray]] = {}
    for fold, table in tables.items():
        seeds = [seed for other, seed in pairs if other == fold]
        for row, seed in enumerate(seeds):
            by_seed.setdefault(seed, {})[fold] = table[:, row]
    found = {}
    for one, two in combinations(sorted(by_seed), 2):
        folds = sorted(set(by_seed[one]) & set(by_seed[two]))
        if not folds:
            continue
        means = [
            _weighted([by_seed[seed][fold].mean(axis=1) for fold in folds], [tables[fold] for fold in folds])
            for seed in (one, two)
        ]
        tau = float(stats.kendalltau(*means).statistic) if len(means[0]) > 1 else float("nan")
        if np.isfinite(tau):
            found[one, two] = tau
    return found
