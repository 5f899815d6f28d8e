"""Commands run in the process of their test."""

from tests.integration.conftest import script

__all__ = ["script"]
