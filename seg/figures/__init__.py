"""Pictures of predictions over scans: a PNG file, and a page of all cases of an evaluation."""

from seg.figures.cases import CaseFiles, CaseView, case_title, draw_cases, draw_predictions, read_case
from seg.figures.page import PAGE_FILE, About, write_page

__all__ = [
    "PAGE_FILE",
    "About",
    "CaseFiles",
    "CaseView",
    "case_title",
    "draw_cases",
    "draw_predictions",
    "read_case",
    "write_page",
]
