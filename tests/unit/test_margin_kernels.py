"""The compiled kernels of the margin engine against plain arithmetic and mpmath."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts_abi.errors import InputError
from simulation.margin.tail import _found, tail
from simulation.margin.worst_of import Holdings, holders, worst_of
from simulation.pricing.grid import option_grid


def exact_price(forward: float, strike: float, volatility: float, years: float, call: bool) -> mpmath.mpf:
    """Return Black-76 without discount, 50 digits."""
    with mpmath.workdps(50):
        f, k = mpmath.mpf(forward), mpmath.mpf(strike)
        v = mpmath.mpf(volatility) * mpmath.sqrt(mpmath.mpf(years))
        if v == 0:
            return max(f - k, mpmath.mpf(0)) if call else max(k - f, mpmath.mpf(0))
        d1 = mpmath.log(f / k) / v + v / 2
        d2 = d1 - v
        if call:
            return f * mpmath.ncdf(d1) - k * mpmath.ncdf(d2)
        return k * mpmath.ncdf(-d2) - f * mpmath.ncdf(-d1)


def test_the_grid_is_within_1e15_of_the_forward() -> None:
    rng = np.random.default_rng(1)
    several = 120
    forward = np.exp(rng.uniform(-5, 12, several))
    strike = forward * np.exp(rng.uniform(-2, 1, several))
    volatility = np.exp(rng.uniform(np.log(0.02), np.log(5), several))
    years = np.exp(rng.uniform(np.log(1e-6), np.log(3), several))
    call = rng.random(several) < 0.5
    shock = np.array([0.34, 0.67, 0.82, 1.0, 1.045, 1.18, 1.5, 2.0, 6.0])
    multiplier = np.array([2.0, 1.5, 1.0, 1.0, 0.5, 0.0, 1.3, 1.1, 3.0])
    prices = option_grid(forward, strike, volatility, years, call, shock, multiplier).prices()
    worst = 0.0
    for i in range(several):
        for s in range(len(shock)):
            # What the inputs really are: the product of the floats, exact.
            with mpmath.workdps(50):
                moved = mpmath.mpf(forward[i]) * mpmath.mpf(shock[s])
                sigma = mpmath.mpf(volatility[i]) * mpmath.mpf(multiplier[s])
                true = exact_price(moved, strike[i], sigma, years[i], bool(call[i]))
                worst = max(worst, float(abs(true - mpmath.mpf(prices[i, s])) / max(moved, strike[i])))
    assert worst < 1e-15


def test_edges_of_a_price() -> None:
    prices = option_grid(
        forward=[100, 100, 100, 100, 100],
        strike=[90, 90, 100, 1e-9, 100],
        volatility=[0.5, 0.5, 0.5, 0.5, 1000],
        years=[0, 0, 0, 1, 1],
        call=[True, False, True, True, True],
        shock=[1.0, 0.5],
        multiplier=[1.0, 1.0],
    ).prices()
    np.testing.assert_allclose(prices[0], [10, 0], atol=1e-13)
    np.testing.assert_allclose(prices[1], [0, 40], atol=1e-13)
    np.testing.assert_allclose(prices[2], [0, 0], atol=1e-13)
    np.testing.assert_allclose(prices[3], [100 - 1e-9, 50 - 1e-9], rtol=1e-14)
    np.testing.assert_allclose(prices[4], [100, 50], rtol=1e-15)


def test_floors_rows_and_discounts() -> None:
    grid = option_grid(
        [100, 100], [100, 100], [0.1, 0.1], [1, 1], [True, False], [1, 1, 1],
        [[1, 2, 0], [1, 3, 1]], row=[0, 1], floor=[0, 0, 0.4], discount=[1.0, 0.5],
    )  # fmt: skip
    want = [
        [exact_price(100, 100, v, 1, True) for v in (0.1, 0.2, 0.4)],
        [exact_price(100, 100, v, 1, False) / 2 for v in (0.1, 0.3, 0.4)],
    ]
    np.testing.assert_allclose(grid.prices(), np.array(want, dtype=float), rtol=1e-13)


BAD_GRIDS = {
    "negative volatility": ({"volatility": [-0.1]}, r"volatility\[0\] is -0.1; give a number"),
    "strike zero": ({"strike": [0.0]}, r"strike\[0\] is 0.0; give a positive number"),
    "no number": ({"forward": [float("nan")]}, r"forward\[0\] is nan"),
    "shock": ({"shock": [1.0, 0.0]}, r"shock\[1\] is 0.0"),
    "hole": ({"multiplier": [1.0, float("nan")]}, r"multiplier\[1\] is nan"),
    "length": ({"multiplier": [1.0]}, "one entry for each of 2 scenarios"),
    "options": ({"years": [1.0, 1.0]}, "years has 2 entries, forward has 1"),
    "row": ({"row": [1]}, "row names 1, there are 1 rows"),
}


@pytest.mark.parametrize("name", BAD_GRIDS)
def test_a_grid_that_cannot_be_priced_is_refused(name: str) -> None:
    change, says = BAD_GRIDS[name]
    plain: dict[str, object] = {
        "forward": [100.0], "strike": [100.0], "volatility": [0.5], "years": [1.0], "call": [True],
        "shock": [1.0, 1.1], "multiplier": [1.0, 1.0],
    }  # fmt: skip
    with pytest.raises(InputError, match=says):
        option_grid(**{**plain, **change})  # type: ignore[arg-type]


# --------------------------------------------------------------------------------------------------- worst-of


def random_holdings(rng: np.random.Generator, accounts: int, instruments: int) -> Holdings:
    counts = rng.integers(0, 30, accounts)
    start = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return Holdings(
        start,
        rng.integers(0, instruments, start[-1]).astype(np.int32),
        rng.normal(0, 1, start[-1]),
    )


def plainly(holdings: Holdings, grid: np.ndarray) -> np.ndarray:
    rows = []
    for a in range(len(holdings)):
        part = slice(holdings.start[a], holdings.start[a + 1])
        rows.append(holdings.quantity[part] @ grid[holdings.instrument[part]])
    return np.array(rows)


@pytest.mark.parametrize("threads", [1, 2])
@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32), st.sampled_from([1, 2, 255, 256, 257, 700]), st.integers(1, 600))
def test_the_worst_is_that_of_the_whole_product(
    threads: int, seed: int, scenarios: int, accounts: int
) -> None:
    rng = np.random.default_rng(seed)
    grid = rng.normal(0, 100, (40, scenarios))
    holdings = random_holdings(rng, accounts, 40)
    found = worst_of(holdings, grid, threads=threads)
    want = plainly(holdings, grid)
    np.testing.assert_allclose(found.profit, want.min(axis=1), rtol=1e-10, atol=1e-9)
    some = np.flatnonzero(np.diff(holdings.start))
    np.testing.assert_allclose(want[some, found.scenario[some]], found.profit[some], rtol=1e-10, atol=1e-9)
    assert (found.scenario[np.diff(holdings.start) == 0] == -1).all()


def test_what_is_no_number_is_the_holders_alone() -> None:
    grid = np.array([[1.0, -1.0], [np.nan, 2.0], [np.inf, 3.0]])
    holdings = Holdings(np.array([0, 1, 2, 3, 3]), np.array([0, 1, 2], dtype=np.int32), np.ones(3))
    found = worst_of(holdings, grid)
    np.testing.assert_array_equal(found.profit, [-1.0, np.nan, np.nan, 0.0])
    np.testing.assert_array_equal(found.scenario, [1, -1, -1, -1])


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32))
def test_when_one_underlying_moves_its_holders_are_enough(seed: int) -> None:
    rng = np.random.default_rng(seed)
    grid = rng.normal(0, 100, (40, 130))
    holdings = random_holdings(rng, 300, 40)
    before = worst_of(holdings, grid)
    moved = np.zeros(40, dtype=np.bool_)
    moved[:2] = True
    after = grid.copy()
    after[moved] = rng.normal(0, 100, (2, 130))
    some = holders(holdings, moved)
    assert list(some) == [
        a for a in range(300) if moved[holdings.instrument[holdings.start[a] : holdings.start[a + 1]]].any()
    ]
    again = worst_of(holdings, after, accounts=some, known=before)
    whole = worst_of(holdings, after)
    np.testing.assert_array_equal(again.profit, whole.profit)
    np.testing.assert_array_equal(again.scenario, whole.scenario)


def test_a_million_positions_in_one_account() -> None:
    holdings = Holdings(np.array([0, 10**6]), np.zeros(10**6, dtype=np.int32), np.full(10**6, 0.5))
    assert worst_of(holdings, np.array([[2.0, -3.0]])).profit[0] == -1.5e6


def test_holdings_that_do_not_fit_are_refused() -> None:
    one = np.array([0], dtype=np.int32)
    with pytest.raises(InputError, match="start must begin with 0"):
        Holdings(np.array([0, 2]), one, np.ones(1))
    with pytest.raises(InputError, match="2 quantities for 1 positions"):
        Holdings(np.array([0, 1]), one, np.ones(2))
    with pytest.raises(InputError, match="names instrument 7, the grid has 2"):
        worst_of(Holdings(np.array([0, 1]), one + 7, np.ones(1)), np.ones((2, 3)))
    with pytest.raises(InputError, match="at least one"):
        worst_of(Holdings(np.array([0, 1]), one, np.ones(1)), np.ones((2, 0)))
    empty = Holdings(np.array([0]), one[:0], np.ones(0))
    assert len(worst_of(empty, np.ones((0, 3))).profit) == 0


# --------------------------------------------------------------------------------------------------- the tail


@settings(deadline=None, max_examples=40)
@given(
    st.integers(0, 2**32),
    st.sampled_from([1, 7, 100, 999, 1_000, 5_000, 20_000]),
    st.sampled_from([0.5, 0.9, 0.975, 0.99, 0.999]),
    st.booleans(),
)
def test_the_tail_is_that_of_the_whole_product(seed: int, count: int, level: float, sorted_: bool) -> None:
    rng = np.random.default_rng(seed)
    returns = rng.standard_t(3, (count, 4)) * 0.01
    if sorted_:
        # Worst case for a sample: the tail stands together, or everything is the same.
        returns = returns[np.argsort(returns[:, 0])] if seed % 2 else np.repeat(returns[:1], count, axis=0)
    weights = rng.normal(0, 1, (3, 4))
    found = tail(returns, weights, level)
    profits = np.sort(returns @ weights.T, axis=0)
    share = count * (1 - level)
    share = round(share) if abs(share - round(share)) < 1e-9 * count else share
    k = min(int(share) + 1, count)
    np.testing.assert_allclose(found.value_at_risk, -profits[k - 1], rtol=1e-12, atol=1e-15)
    mean = (profits[: k - 1].sum(axis=0) + (share - (k - 1)) * profits[k - 1]) / share
    np.testing.assert_allclose(found.expected_shortfall, -mean, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize(("sorted_", "again"), [(False, 0), (True, 2)])
def test_thresholds_that_are_drawn_anew_lose_nothing(sorted_: bool, again: int) -> None:
    """Where the worst scenarios come first, thresholds fall too low: that is found out, and mended."""
    rng = np.random.default_rng(3)
    returns = rng.standard_t(4, (60_001, 3))
    if sorted_:
        returns = returns[np.argsort(returns[:, 0])]
    weights = np.array([[1.0, 0.0, 0.1], [1.0, 0.2, 0.0]])
    found = tail(returns, weights, 0.99)
    assert found.again == again
    profits = np.sort(returns @ weights.T, axis=0)
    np.testing.assert_allclose(found.value_at_risk, -profits[600], rtol=1e-15)
    mean = (profits[:600].sum(axis=0) + 0.01 * profits[600]) / 600.01
    np.testing.assert_allclose(found.expected_shortfall, -mean, rtol=1e-13)


def test_what_is_at_most_a_limit_is_found_in_order() -> None:
    rng = np.random.default_rng(4)
    row = rng.normal(size=192).astype(np.float32)
    row[[0, 15, 16, 63, 64, 191]] = -np.inf
    row[[1, 17, 100]] = np.nan
    row[[2, 31, 99]] = np.inf
    places = np.empty(194, dtype=np.int64)
    for most in (np.float32(-np.inf), np.float32(-5), row[40], np.float32(0), np.float32(np.inf)):
        found = _found(row, most, places)
        np.testing.assert_array_equal(places[:found], np.flatnonzero(row <= most))


def test_a_tail_of_nonsense_is_refused() -> None:
    good = np.ones((10, 2))
    with pytest.raises(InputError, match="do not fit"):
        tail(good, np.ones((3, 5)), 0.99)
    with pytest.raises(InputError, match="confidence 1 is not between"):
        tail(good, np.ones((3, 2)), 1)
    with pytest.raises(InputError, match="no number"):
        tail(good * np.nan, np.ones((3, 2)), 0.99)
