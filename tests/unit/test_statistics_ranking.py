"""The score of value at risk and shortfall, and the test between two series of it."""

from __future__ import annotations

import numpy as np
import pytest

from contracts_abi.errors import InputError
from simulation.statistics import normal_tail
from simulation.statistics.ranking import diebold_mariano, fissler_ziegel


def test_the_score_by_hand() -> None:
    found = fissler_ziegel(np.array([-3.0, 1.0]), np.full(2, 2.0), np.full(2, 2.5), 0.9)
    calm = 2 / 2.5 + np.log(2.5) - 1
    assert found == pytest.approx([1 / (0.1 * 2.5) + calm, calm])
    for var, es in ((2.0, 1.0), (-1.0, 0.0)):
        with pytest.raises(InputError):
            fissler_ziegel(np.zeros(2), np.full(2, var), np.full(2, es), 0.9)
    with pytest.raises(InputError):
        fissler_ziegel(np.zeros(2), np.ones(3), np.ones(3), 0.9)


def test_the_true_pair_has_the_least_mean_score() -> None:
    profits = np.random.default_rng(1).standard_normal(400_000)
    tail = normal_tail(0.975)

    def score(var: float, es: float) -> float:
        shape = len(profits)
        return float(fissler_ziegel(profits, np.full(shape, var), np.full(shape, es), 0.975).mean())

    best = score(tail.var, tail.es)
    for share in (0.85, 0.93, 1.07, 1.15):
        assert score(share * tail.var, tail.es) > best
        assert score(tail.var, max(tail.var, share * tail.es)) > best
    # A change of unit adds a constant, so that it changes no rank.
    tripled = fissler_ziegel(
        3 * profits, np.full(400_000, 3 * tail.var), np.full(400_000, 3 * tail.es), 0.975
    )
    assert tripled.mean() == pytest.approx(best + np.log(3))


def test_diebold_mariano_by_hand() -> None:
    found = diebold_mariano(np.array([1.0, 3.0, 2.0, 2.0]), np.zeros(4))
    # Mean 2, variance 1/2 by n; sqrt((n - 1) / n) is the correction without lags.
    assert found.mean == 2
    assert found.statistic == pytest.approx(2 / np.sqrt(0.5 / 4) * np.sqrt(3 / 4))
    back = diebold_mariano(np.zeros(4), np.array([1.0, 3.0, 2.0, 2.0]))
    assert back.statistic == -found.statistic
    assert back.p_value == found.p_value
    same = diebold_mariano(np.ones(4), np.ones(4))
    assert (same.statistic, same.p_value) == (0, 1)
    assert diebold_mariano(np.ones(4), np.zeros(4)).p_value == 0
    with pytest.raises(InputError):
        diebold_mariano(np.ones(4), np.ones(4), 3)


@pytest.mark.parametrize("lags", [0, 3])
def test_of_equal_forecasts_one_in_twenty_is_rejected(lags: int) -> None:
    rng = np.random.default_rng(2)
    values = [
        diebold_mariano(rng.standard_normal(200), rng.standard_normal(200), lags).p_value
        for _ in range(2_000)
    ]
    assert np.mean(np.array(values) < 0.05) == pytest.approx(0.05, abs=0.02)


def test_lags_widen_the_error_of_scores_that_hang_together() -> None:
    rng = np.random.default_rng(3)
    chained = np.convolve(rng.standard_normal(500), np.ones(5), "valid") + 0.3
    plain, wide = (diebold_mariano(chained, np.zeros(len(chained)), lags) for lags in (0, 8))
    assert abs(wide.statistic) < 0.7 * abs(plain.statistic)
