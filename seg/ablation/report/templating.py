"""The template engine of reports: what is put into a page or into Markdown is escaped."""

from __future__ import annotations

from jinja2 import Environment

from seg.ablation.report.labels import HELP
from seg.ablation.report.metrics import TABLE_COLUMNS
from seg.config.study import MIN_RUNS
from seg.figures.html import template_engine
from seg.words import escape_markdown


def environment(*, autoescape: bool) -> Environment:
    """Returns the template engine.

    Args:
        autoescape: Whether everything is escaped for HTML; Markdown templates pass texts through the filter ``e``, see
            :func:`markdown_environment`.
    """
    made = template_engine("seg.ablation.report", autoescape=autoescape)
    made.globals |= {"HELP": HELP, "TABLE_COLUMNS": TABLE_COLUMNS, "MIN_RUNS": MIN_RUNS}
    return made


def markdown_environment() -> Environment:
    """Returns the template engine for Markdown, whose filter ``e`` escapes a text for all Markdown parsers."""
    made = environment(autoescape=False)
    made.filters["e"] = escape_markdown
    return made
