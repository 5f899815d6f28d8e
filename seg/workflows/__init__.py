"""The whole way of a run, and of two folders of label maps: check the data, train, predict, score, draw."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seg.workflows.folders import FolderPair, evaluate_pair
    from seg.workflows.rescoring import evaluate_run
    from seg.workflows.training import train

__all__ = ["FolderPair", "evaluate_pair", "evaluate_run", "train"]


def __getattr__(name: str) -> Any:
    """Imports what is asked for when it is asked for: folders are scored and drawn without torch."""
    if name in ("FolderPair", "evaluate_pair"):
        from seg.workflows import folders

        return getattr(folders, name)
    if name == "evaluate_run":
        from seg.workflows.rescoring import evaluate_run

        return evaluate_run
    if name == "train":
        from seg.workflows.training import train

        return train
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
