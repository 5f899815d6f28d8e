"""The ablation: a grid of variants, its trials, what they preserve, statistics and report."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seg.ablation.plan import write_study_file
    from seg.ablation.preview import preview_study
    from seg.ablation.report import write_report
    from seg.ablation.run import run_study
    from seg.ablation.study import Study, Trial, Variant, choose_variants, plan_study
    from seg.ablation.trials import run_trial

__all__ = [
    "Study",
    "Trial",
    "Variant",
    "choose_variants",
    "plan_study",
    "preview_study",
    "run_study",
    "run_trial",
    "write_report",
    "write_study_file",
]

_HOMES = {
    "Study": "study",
    "Trial": "study",
    "Variant": "study",
    "choose_variants": "study",
    "plan_study": "study",
    "preview_study": "preview",
    "run_study": "run",
    "run_trial": "trials",
    "write_report": "report",
    "write_study_file": "plan",
}


def __getattr__(name: str) -> Any:
    """Imports what is asked for when it is asked for: a study is planned and reported without torch."""
    if name in _HOMES:
        return getattr(import_module(f"seg.ablation.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
