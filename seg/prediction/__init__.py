"""From an image's files to a label map on its own grid."""

from seg.prediction.segmentation import predict_case

__all__ = ["predict_case"]
