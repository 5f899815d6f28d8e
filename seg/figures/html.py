"""What holds for every page of results: a policy that lets the page's own style and script through alone."""

from __future__ import annotations

import base64
import hashlib


def content_policy(css: str, script: str = "") -> str:
    """Returns a content security policy: no network, this style and this script alone, pictures within the page."""
    allowed = _digest(script) if script else "'none'"
    return (
        f"default-src 'none'; img-src data:; style-src {_digest(css)}; script-src {allowed}; "
        "base-uri 'none'; form-action 'none'"
    )


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
