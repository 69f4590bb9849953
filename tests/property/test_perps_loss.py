"""A loss is borne whole: nothing is taken twice, from losers, beyond a profit, or left out by rounding."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from simulation.protocols.perps_loss import (
    Deleveraged,
    adl_pro_rata,
    adl_queue,
    bankruptcy_price,
    deficit_at,
    insurance_waterfall,
)

many = settings(deadline=None, max_examples=400)

dollars = st.floats(0, 1e12, allow_subnormal=False)
profits = st.lists(st.floats(-1e12, 1e12, allow_subnormal=False), min_size=1, max_size=30)


def check(found: Deleveraged, deficit: float, most: np.ndarray[tuple[int], np.dtype[np.float64]]) -> None:
    """Check what holds of any deleveraging."""
    assert (found.haircut >= 0).all()
    assert (found.haircut <= most).all()
    assert set(np.flatnonzero(found.haircut).tolist()) <= set(found.order.tolist())
    if found.uncovered > 0:
        assert (found.haircut == most).all()
        missing = math.fsum([deficit, *(-found.haircut).tolist()])
        assert found.uncovered == missing
    elif found.total != deficit:
        taken = most[found.order]
        assert math.fsum(taken.tolist()) - deficit <= len(taken) * math.ulp(deficit)
        assert abs(found.total - deficit) <= len(taken) * math.ulp(deficit)


@many
@given(dollars, st.floats(-1e12, 1e12), dollars)
def test_a_fund_and_who_comes_next_bear_a_deficit_whole(deficit: float, fund: float, floor: float) -> None:
    loss = insurance_waterfall(deficit, fund, floor=floor)
    assert loss.insurance + loss.left == deficit
    assert 0 <= loss.insurance <= max(0.0, fund - floor)
    assert loss.left >= 0
    assert loss.fund_after == fund - loss.insurance
    if loss.left > 0 and fund > floor:
        assert loss.fund_after - floor <= math.ulp(deficit) + math.ulp(fund) + math.ulp(floor)


@many
@given(dollars, profits)
def test_the_queue_conserves_and_keeps_its_order(deficit: float, profit: list[float]) -> None:
    score = np.random.default_rng(len(profit)).permutation(len(profit)).astype(np.float64)
    found = adl_queue(deficit, profit, score)
    most = np.maximum(np.array(profit), 0.0)
    check(found, deficit, most)
    assert (np.diff(score[found.order]) < 0).all()
    # All before the last one in the queue are empty, but for the last bits.
    for i in found.order[:-1].tolist():
        assert most[i] - found.haircut[i] <= 2 * len(profit) * math.ulp(deficit)


@many
@given(dollars, profits, st.lists(dollars, min_size=30, max_size=30), st.booleans())
def test_shares_conserve_and_are_equal_below_the_limits(
    deficit: float, profit: list[float], limits: list[float], limited: bool
) -> None:
    limit = np.array(limits[: len(profit)]) if limited else None
    available = np.maximum(np.array(profit), 0.0)
    most = available if limit is None else np.minimum(available, limit)
    found = adl_pro_rata(deficit, profit, limit=limit)
    check(found, deficit, most)
    near = most - 2 * len(profit) * math.ulp(deficit)
    free = (found.haircut < near) & (available > 1e-3 * available.max(initial=0.0))
    assume(free.any() and deficit > 1e-3)
    fraction = found.haircut[free] / available[free]
    assert np.ptp(fraction) <= 1e-9 * (fraction.max() + 1)
    full = (found.haircut >= near) & (available > 1e-3 * available.max(initial=0.0))
    assert (most[full] / available[full] <= fraction.max() * (1 + 1e-9) + 1e-9).all()


@many
@given(st.floats(1e-6, 1e6), st.booleans(), st.floats(1e-3, 1e6), st.floats(0, 1e9), st.floats(1e-3, 1e6))
def test_a_position_is_short_beyond_its_bankruptcy_price(
    size: float, short: bool, entry: float, margin: float, price: float
) -> None:
    size = -size if short else size
    bankrupt = bankruptcy_price(size, entry, margin)
    missing = deficit_at(size, entry, margin, price)
    beyond = (bankrupt - price) * size
    slack = 1e-12 * (abs(size) * (entry + price) + margin)
    assert abs(missing - max(0.0, beyond)) <= slack
