"""From an image's files to a label map on its own grid: one case, or a whole command.

Importing this package imports no torch: run directories and arguments are checked before that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seg.prediction.case import PredictedCase, Predictor, predict_case
    from seg.prediction.pipeline import predict

__all__ = ["PredictedCase", "Predictor", "predict", "predict_case"]


def __getattr__(name: str) -> Any:
    """Imports what is asked for when it is asked for."""
    if name == "predict":
        from seg.prediction.pipeline import predict

        return predict
    if name in __all__:
        from seg.prediction import case

        return getattr(case, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
