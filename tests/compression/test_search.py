"""The next network of a search for a latency, against the line that costs lie on."""

import pytest

from seg.compression.search import LEAST_KEPT, MOST_KEPT, next_work


def _trials(works, cost):
    return [(1.0, 1.0), *((work, cost(work)) for work in works)]


@pytest.mark.parametrize("share", [0.91, 0.95, 0.975])
def test_the_next_network_is_where_the_line_through_the_last_two_meets_the_target(share):
    trials = _trials((0.5, 0.4), lambda work: 0.2 + 0.6 * work)
    assert next_work(trials, 0.2 + 0.6 * 0.4 * share) == pytest.approx(0.4 * share)


@pytest.mark.parametrize(("wanted", "kept"), [(0.1, LEAST_KEPT), (0.439, MOST_KEPT)])
def test_a_step_is_neither_large_nor_tiny(wanted, kept):
    trials = _trials((0.5, 0.4), lambda work: 0.2 + 0.6 * work)
    assert next_work(trials, wanted) == pytest.approx(kept * 0.4)


def test_a_network_near_the_last_does_not_turn_the_line():
    """One of almost the same work, whose cost was measured a little too high or too low, leaves the estimate."""
    line = [(1.0, 1.0), (0.5, 0.5), (0.4, 0.4)]
    for error in (-0.003, 0.003):
        assert next_work([*line, (0.36, 0.36 + error), (0.352, 0.352)], 0.34) == pytest.approx(0.34)


def test_a_network_that_is_no_faster_is_followed_by_the_largest_step():
    assert next_work([(1.0, 1.0), (0.5, 0.6), (0.45, 0.61)], 0.6) == pytest.approx(LEAST_KEPT * 0.45)


def test_a_search_ends_close_below_its_target():
    def cost(work):
        return 0.15 + 0.7 * work**0.9

    trials = _trials((0.5,), cost)
    while trials[-1][1] > 0.4:
        work = next_work(trials, 0.4)
        trials.append((work, cost(work)))
    assert 0.985 * 0.4 < trials[-1][1] <= 0.4
    assert len(trials) < 10
