"""What holds for every page of results: a template engine, and a policy that admits its own style and script alone."""

from __future__ import annotations

import base64
import hashlib

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from seg.runs import NOTICE
from seg.words import NOT_MEASURED, counted, fixed, interval


def template_engine(package: str, *, autoescape: bool = True) -> Environment:
    """Returns a Jinja environment that finds templates in a package and in ``seg.figures``.

    Args:
        package: The package.
        autoescape: Whether everything is escaped for HTML.
    """
    made = Environment(
        loader=ChoiceLoader([PackageLoader(package), PackageLoader("seg.figures")]),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"fixed": fixed, "counted": counted}
    made.globals |= {"interval": interval, "NOTICE": NOTICE, "NOT_MEASURED": NOT_MEASURED}
    return made


def content_policy(css: str, script: str = "") -> str:
    """Returns a content security policy: no network, this style and this script alone, pictures within the page."""
    allowed = _digest(script) if script else "'none'"
    return (
        f"default-src 'none'; img-src data:; style-src {_digest(css)}; script-src {allowed}; "
        "base-uri 'none'; form-action 'none'"
    )


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
