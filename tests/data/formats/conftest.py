"""What tests of foreign formats share."""

from __future__ import annotations

import locale

import pytest


@pytest.fixture(autouse=True)
def locale_as_it_was():
    """Restores the locale: SimpleITK, the oracle here, sets that of its process to C for some packed DICOM files."""
    before = locale.setlocale(locale.LC_ALL)
    yield
    locale.setlocale(locale.LC_ALL, before)
