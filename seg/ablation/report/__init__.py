"""The report of a study: one table of estimates, and a page, Markdown and figures made from it; imports no torch."""

from seg.ablation.report.compare import write_comparison
from seg.ablation.report.write import MARKDOWN_FILE, REPORT_FILE, TABLE_FILE, write_report

__all__ = ["MARKDOWN_FILE", "REPORT_FILE", "TABLE_FILE", "write_comparison", "write_report"]
