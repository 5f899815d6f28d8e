"""The simulation of the certificate's error."""

from __future__ import annotations

import numpy as np
import pytest

from tests.compression.simulation import differences, rows, simulate
from tests.compression.test_certificate import table


def test_differences_that_are_normal_err_as_often_as_is_asked_for() -> None:
    random = np.random.default_rng(0)
    error, coverage = simulate([random.normal(0, 0.01, 500) for _ in range(2)], draws=2000)
    assert error == pytest.approx(0.025, abs=4 * (0.025 / 2000) ** 0.5)
    assert coverage == pytest.approx(0.95, abs=4 * (0.05 / 2000) ** 0.5)


def test_one_large_loss_errs_as_often_as_it_is_not_drawn() -> None:
    lost = np.zeros(30)
    lost[0] = -0.1
    error, coverage = simulate([lost], draws=2000)
    missed = (29 / 30) ** 30
    assert error == pytest.approx(missed, abs=4 * (missed * (1 - missed) / 2000) ** 0.5)
    assert coverage == pytest.approx(1 - error)


def test_each_class_has_a_row_of_all_folds_and_one_of_each() -> None:
    dice = np.random.default_rng(1).uniform(0.7, 0.9, (2, 2, 2, 24))  # networks, folds, classes, cases
    patients = [[f"{fold}_{case // 2:02}" for case in range(24)] for fold in (0, 1)]
    original, changed = (
        [score for fold in (0, 1) for score in table(own[fold], patients=patients[fold], fold=fold)] for own in dice
    )
    found = list(rows(original, changed, draws=100))
    assert [(row.class_name, row.folds, row.patients) for row in found] == [
        *(("a", 2, 24), ("a", 1, 12), ("a", 1, 12)),
        *(("b", 2, 24), ("b", 1, 12), ("b", 1, 12)),
    ]
    pairs = (dice[1] - dice[0])[0, 0].reshape(12, 2).mean(1)
    assert found[1].sd == pytest.approx(pairs.std(ddof=1))
    np.testing.assert_allclose(differences(original, changed)["a"][0], pairs)
