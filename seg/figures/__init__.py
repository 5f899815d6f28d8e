"""Pictures of predictions over images: a PNG file, and a page of the worst and the median cases.

Arrays are oriented to RAS. Slices are shown as radiologists read them: the patient's right on the viewer's left, and
sagittal slices with the face to the left. Every slice carries the letters of its sides, so nobody has to know.
"""

from seg.figures.grid import prediction_grid
from seg.figures.page import PAGE_FILE, About, write_page
from seg.figures.predictions import draw_predictions
from seg.figures.sources import CaseFiles
from seg.figures.views import FigureRow, pick_cases

__all__ = [
    "PAGE_FILE",
    "About",
    "CaseFiles",
    "FigureRow",
    "draw_predictions",
    "pick_cases",
    "prediction_grid",
    "write_page",
]
