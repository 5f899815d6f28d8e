"""Rules on the stages of a network, by the text of their messages."""

import pytest

from seg.networks import Options, Plan

GOOD = {"channels": (4, 8), "strides": ((1, 1, 1), (1, 2, 2)), "kernel_sizes": ((1, 3, 3), (3, 3, 3))}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"channels": (4,)}, "channels must name two or more stages of >= 1 channels, got (4,)."),
        (
            {"strides": ((1, 1, 1),)},
            "strides must hold three integers >= 1 for each of the 2 stages, got ((1, 1, 1),).",
        ),
        ({"strides": ((2, 1, 1), (2, 2, 2))}, "strides of the first stage must be (1, 1, 1), got (2, 1, 1)."),
        (
            {"kernel_sizes": ((1, 3, 3), (2, 3, 3))},
            "kernel_sizes must be odd, got ((1, 3, 3), (2, 3, 3)).",
        ),
    ],
)
def test_bad_plans(change, message):
    with pytest.raises(ValueError, match="must") as error:
        Plan(**{**GOOD, **change})
    assert str(error.value) == message


def test_total_stride():
    plan = Plan(channels=(4, 6, 8), strides=((1, 1, 1), (1, 2, 2), (2, 2, 3)), kernel_sizes=((3, 3, 3),) * 3)
    assert plan.total_stride == (2, 4, 6)


def test_unknown_options():
    with pytest.raises(ValueError, match="Unknown") as error:
        Options(merge="multiply")
    assert str(error.value) == "Unknown merge 'multiply'. Available: concat, add."
