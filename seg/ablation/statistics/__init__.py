"""Statistics of a study: paired differences, verdicts, ranks, convergence and correlation; no torch."""

from seg.ablation.statistics.comparison import (
    ClassComparison,
    Comparison,
    format_comparison,
    paired,
)
from seg.ablation.statistics.convergence import Convergence, Curve, Mean, convergence, mean_over_runs
from seg.ablation.statistics.correlation import Correlation, correlate
from seg.ablation.statistics.effects import Components, Effect, estimate_effect
from seg.ablation.statistics.ranks import RankStability, rank_stability
from seg.ablation.statistics.verdicts import Recommendation, Verdict, judge, recommend
from seg.evaluation.differences import Pair, Trials, split_folds

__all__ = [
    "ClassComparison",
    "Comparison",
    "Components",
    "Convergence",
    "Correlation",
    "Curve",
    "Effect",
    "Mean",
    "Pair",
    "RankStability",
    "Recommendation",
    "Trials",
    "Verdict",
    "convergence",
    "correlate",
    "estimate_effect",
    "format_comparison",
    "judge",
    "mean_over_runs",
    "paired",
    "rank_stability",
    "recommend",
    "split_folds",
]
