"""From an image's files to a label map on its own grid."""

from seg.prediction.segmentation import autocast, logits_to_labels, predict_case

__all__ = ["autocast", "logits_to_labels", "predict_case"]
