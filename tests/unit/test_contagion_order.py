"""The order of a pruned scan: only what may come near is sorted, and what it leaves out is never nearer."""

from __future__ import annotations

import numpy as np
import pytest

from simulation.contagion.engine import run_paths
from simulation.contagion.scan import NEAR, nearest_rows
from simulation.contagion.state import Total
from tests.contagion_books import one_pair_book, run_of


@pytest.mark.parametrize("size", [1, 3, 49, 50, 51, 2_000])
@pytest.mark.parametrize("below", [0.0, 0.01, 0.5, 0.985, 1.0])
def test_what_is_left_out_is_never_nearer_than_the_last_one_kept(size: int, below: float) -> None:
    rng = np.random.default_rng(size)
    health = rng.uniform(1.0, 2.0, size).round(2)  # many of the same
    health[: round(below * size)] -= 1.0
    health[rng.random(size) < 0.1] = np.inf  # no debt
    kept = nearest_rows(health, 1.0)
    assert np.array_equal(kept, np.argsort(health, kind="stable")[: len(kept)])
    assert len(kept) == size or len(kept) > (health < 1.0).sum() + int(NEAR * size)
    rest = np.delete(health, kept)
    assert len(rest) == 0 or rest.min() > health[kept[-1]]


def test_most_of_a_large_book_is_not_sorted() -> None:
    health = np.random.default_rng(1).uniform(1.0, 2.0, 10_000)
    kept = len(nearest_rows(health, 1.0))
    assert int(NEAR * 10_000) < kept <= 2 * int(NEAR * 10_000) + 2


@pytest.mark.parametrize("fall", [0.03, 0.2])
def test_a_crash_through_many_orders_is_that_of_a_full_scan(fall: float) -> None:
    rng = np.random.default_rng(3)
    debt = rng.lognormal(8.0, 1.0, 3_000)
    collateral = debt * (1.0 + rng.gamma(2.0, 0.1, 3_000)) / 0.8
    book = one_pair_book(collateral, debt, kind="aave-v3")
    impact = {"tokens": {"ETH": {"model": "linear", "per_dollar": 2e-8, "half_life_s": 600}}}
    done = [
        run_paths(
            run_of(
                book, {"interest": {}, "keepers": {"prune": prune}, "impact": impact}, steps=80, shock=-fall
            ),
            1,
            0,
            2,
        )
        for prune in (False, True)
    ]
    assert done[0].totals[0, 0, Total.LIQUIDATIONS] > 50
    assert np.array_equal(done[0].totals, done[1].totals)
    assert np.array_equal(done[0].price, done[1].price)
