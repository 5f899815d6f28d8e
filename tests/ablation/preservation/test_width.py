"""Widths from a spectrum whose answer is known."""

import itertools

import pytest

from seg.ablation.preservation.widths import PlaceRecord, SafeWidths, predict_safe_widths
from seg.errors import ConfigError, RunError
from seg.networks.bottleneck import width


def place(path, stage, shares, channels, narrow=None):
    return PlaceRecord(
        name=f"{path}_{stage}", path=path, stage=stage, channels=channels, narrow=narrow, r2_by_width=shares
    )


# Not in the order of the stages: a record need not be.
PLACES = [
    place("skip", 1, [0.5, 0.7, 0.8, 0.9, 0.96, 1.0], 6),
    place("skip", 0, [0.94, 0.95, 0.99, 1.0], 4),
    place("decoder", 0, [0.2, 0.4, 0.6, 0.8, 0.9, 0.97, 0.99, 1.0], 4),
    place("decoder", 1, [0.99, *[1.0] * 11], 6),
]


def test_the_narrowest_width_that_reaches_the_threshold():
    safe = predict_safe_widths(PLACES, 0.95)
    assert safe == SafeWidths(channels=(4, 6), skip=(2, 5), decoder=(6, 1))
    assert (safe.ratios("skip"), safe.ratios("decoder")) == ([0.5, 5 / 6], [1.5, 1 / 6])
    assert predict_safe_widths(PLACES, 0.5).skip == (1, 1)
    assert predict_safe_widths(PLACES, 1).decoder == (8, 2)


def test_a_higher_threshold_never_narrows():
    widths = [predict_safe_widths(PLACES, share / 100) for share in range(1, 101)]
    for lower, higher in itertools.pairwise(widths):
        assert all(a <= b for a, b in zip(lower.skip + lower.decoder, higher.skip + higher.decoder, strict=True))


def test_rounding_of_the_last_share_is_no_obstacle():
    shares = [0.5, 1 - 1e-16 * 3, 1 - 1e-16 * 3]
    places = [place("skip", 0, shares, 3), place("decoder", 0, shares, 3)]
    assert predict_safe_widths(places, 1.0).skip == (2,)


@pytest.mark.parametrize("channels", [3, 10, 16, 33, 320])
def test_ratios_give_back_every_width(channels):
    # A network makes round(ratio x channels) of it.
    for wanted in range(1, 2 * channels + 1):
        safe = SafeWidths(channels=(channels,), skip=(wanted,), decoder=(wanted,))
        assert width(channels, safe.ratios("skip")[0]) == width(channels, safe.ratios("decoder")[0]) == wanted


@pytest.mark.parametrize("threshold", [0, -0.1, 1.01, float("nan")])
def test_threshold_out_of_range(threshold):
    with pytest.raises(ConfigError, match=r"\(0, 1\]"):
        predict_safe_widths(PLACES, threshold)


@pytest.mark.parametrize("wrong", [place("skip", 0, [0.9, 1.0], 2, narrow=1), place("skip", 0, [None, None], 2)])
def test_only_a_baseline_whose_features_vary_predicts(wrong):
    with pytest.raises(RunError, match="skip_0"):
        predict_safe_widths([wrong, place("decoder", 0, [0.9, 1.0], 2)])
