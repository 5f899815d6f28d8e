"""Widths from a spectrum whose answer is known."""

import pytest

from seg.ablation.preservation.widths import PlaceRecord, SafeWidths, predict_safe_widths
from seg.errors import RunError


def place(path, stage, shares, narrow=None):
    return PlaceRecord(name=f"{path}_{stage}", path=path, stage=stage, narrow=narrow, r2_by_width=shares)


# Not in the order of the stages: a record need not be.
PLACES = [
    place("skip", 1, [0.5, 0.7, 0.8, 0.9, 0.96, 1.0]),
    place("skip", 0, [0.94, 0.95, 0.99, 1.0]),
    place("decoder", 0, [0.2, 0.4, 0.6, 0.8, 0.9, 0.97, 0.99, 1.0]),
    place("decoder", 1, [0.99, *[1.0] * 11]),
]


def test_the_narrowest_width_that_reaches_the_threshold():
    assert predict_safe_widths(PLACES) == SafeWidths(skip=(2, 5), decoder=(6, 1))


@pytest.mark.parametrize("wrong", [place("skip", 0, [0.9, 1.0], narrow=1), place("skip", 0, [None, None])])
def test_only_a_baseline_whose_features_vary_predicts(wrong):
    with pytest.raises(RunError, match="skip_0"):
        predict_safe_widths([wrong, place("decoder", 0, [0.9, 1.0])])
