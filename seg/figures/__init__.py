"""Pictures of predictions over images, as PNG files.

Arrays are oriented to RAS. Slices are shown as radiologists read them: the patient's right on the viewer's left, and
sagittal slices with the face to the left. Every slice carries the letters of its sides, so nobody has to know.
"""

from seg.figures.grid import prediction_grid
from seg.figures.predictions import draw_predictions
from seg.figures.views import FigureRow, pick_cases

__all__ = ["FigureRow", "draw_predictions", "pick_cases", "prediction_grid"]
