"""Statistics of a study: paired differences, the recommendation, ranks, convergence, correlation; no torch."""

from seg.ablation.statistics.comparison import MIN_RUNS, Trials, paired
from seg.ablation.statistics.convergence import Convergence, Curve, Mean, convergence, mean_over_runs
from seg.ablation.statistics.correlation import Correlation, correlate
from seg.ablation.statistics.differences import ClassComparison, Comparison, MetricEffect
from seg.ablation.statistics.effects import Components, Effect, estimate_effect
from seg.ablation.statistics.ranks import RankStability, rank_stability
from seg.ablation.statistics.recommendation import Recommendation, recommend
from seg.ablation.statistics.tables import Pair, split_folds
from seg.ablation.statistics.text import format_comparison

__all__ = [
    "MIN_RUNS",
    "ClassComparison",
    "Comparison",
    "Components",
    "Convergence",
    "Correlation",
    "Curve",
    "Effect",
    "Mean",
    "MetricEffect",
    "Pair",
    "RankStability",
    "Recommendation",
    "Trials",
    "convergence",
    "correlate",
    "estimate_effect",
    "format_comparison",
    "mean_over_runs",
    "paired",
    "rank_stability",
    "recommend",
    "split_folds",
]
