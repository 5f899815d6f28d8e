"""Grid and target spacing."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from seg.planning.experiment import plan_geometry
from seg.planning.fingerprint import Fingerprint

Maker = Callable[..., Fingerprint]


def test_equal_spacings_are_kept(fingerprint):
    geometry = plan_geometry(fingerprint([(40, 40, 40), (44, 40, 40)], [(1.0, 1.0, 1.2), (1.0, 1.0, 1.2001)]))
    assert not geometry.resampled


def test_spacing_is_the_median(fingerprint):
    geometry = plan_geometry(fingerprint([(40, 40, 40)] * 3, [(1.0, 1.0, 1.0), (1.2, 1.0, 1.0), (2.0, 1.0, 1.0)]))
    assert geometry.resampled
    assert geometry.spacing_mm == (1.2, 1.0, 1.0)
    assert geometry.median_shape == (40, 40, 40)
    assert geometry.min_shape == (33, 40, 40)


def test_thick_axis_takes_the_tenth_percentile(fingerprint):
    spacings = [(1.5, 1.5, 5.0)] + [(1.5, 1.5, 10.0)] * 10
    geometry = plan_geometry(fingerprint([(200, 200, 10)] * 11, spacings))
    assert geometry.thick_axis == 2
    assert geometry.spacing_mm == (1.5, 1.5, 10.0)
    geometry = plan_geometry(fingerprint([(200, 200, 10)] * 4, [(1.5, 1.5, 5.0), *[(1.5, 1.5, 10.0)] * 3]))
    assert geometry.spacing_mm == (1.5, 1.5, pytest.approx(6.5))


def test_thick_axis_with_many_slices_takes_the_median(fingerprint):
    geometry = plan_geometry(fingerprint([(200, 200, 100)] * 3, [(1.0, 1.0, 5.0), (1.0, 1.0, 5.0), (1.0, 1.0, 4.0)]))
    assert geometry.thick_axis is None
    assert geometry.spacing_mm == (1.0, 1.0, 5.0)
