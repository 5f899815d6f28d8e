"""The template engine of reports: what is put into a page or into Markdown is escaped."""

from __future__ import annotations

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from seg.ablation.report.labels import HELP
from seg.ablation.report.metrics import TABLE_COLUMNS
from seg.config.study import MIN_RUNS
from seg.runs import NOTICE
from seg.words import NOT_MEASURED, counted, escape_markdown, fixed, interval


def environment(*, autoescape: bool) -> Environment:
    """Returns the template engine.

    Args:
        autoescape: Whether everything is escaped for HTML; Markdown templates pass texts through the filter ``e``, see
            :func:`markdown_environment`.
    """
    made = Environment(
        loader=ChoiceLoader([PackageLoader("seg.ablation.report"), PackageLoader("seg.figures")]),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"fixed": fixed, "counted": counted}
    made.globals |= {"interval": interval} | {
        "HELP": HELP,
        "TABLE_COLUMNS": TABLE_COLUMNS,
        "MIN_RUNS": MIN_RUNS,
        "NOTICE": NOTICE,
        "NOT_MEASURED": NOT_MEASURED,
    }
    return made


def markdown_environment() -> Environment:
    """Returns the template engine for Markdown, whose filter ``e`` escapes a text for all Markdown parsers."""
    made = environment(autoescape=False)
    made.filters["e"] = escape_markdown
    return made
