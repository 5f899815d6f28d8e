"""The report of a study: reads its records, and writes a page, Markdown, tables and figures; imports no torch."""

from seg.ablation.report.across import write_comparison
from seg.ablation.report.write import JSON_FILE, MARKDOWN_FILE, REPORT_FILE, TABLE_FILE, write_report

__all__ = ["JSON_FILE", "MARKDOWN_FILE", "REPORT_FILE", "TABLE_FILE", "write_comparison", "write_report"]
