"""Scores of finished predictions: records of cases, their summary, and the files that hold both."""

from seg.evaluation.folders import evaluate_folders
from seg.evaluation.records import CASES_FILE, EVALUATION_FILE, read_cases, read_evaluation, write_evaluation
from seg.evaluation.scores import METRICS, CaseScore, ClassSummary, Evaluation, FoldSummary, MetricSummary, case_scores
from seg.evaluation.summary import summarise
from seg.evaluation.table import format_evaluation

__all__ = [
    "CASES_FILE",
    "EVALUATION_FILE",
    "METRICS",
    "CaseScore",
    "ClassSummary",
    "Evaluation",
    "FoldSummary",
    "MetricSummary",
    "case_scores",
    "evaluate_folders",
    "format_evaluation",
    "read_cases",
    "read_evaluation",
    "summarise",
    "write_evaluation",
]
