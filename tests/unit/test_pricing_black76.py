"""Black-76 against exact numbers: mpmath on a grid, limits by hand, and the compiled twin."""

from __future__ import annotations

import math
from itertools import product
from typing import Final

import mpmath
import numba
import numpy as np
import pytest

from contracts_abi.errors import InputError
from simulation.pricing.black76 import (
    black76,
    black76_scalar,
    implied_volatility,
    standardised_call,
    standardised_call_scalar,
)
from simulation.types import Float64

NORMAL_V: Final = (1e-18, 1e-12, 1e-6, 1e-3, 0.01, 0.05, 0.2, 0.5, 1.0, 1.7, 3.0)
HUGE_V: Final = (4.0, 6.5, 9.0, 13.0, 18.0, 23.999)
DEVIATIONS: Final = (-28.0, -12.0, -8.0, -5.0, -2.0, -1.0, -0.3, 0.0, 0.2, 1.0, 2.5, 4.0, 9.0, 28.0)
"""How many total volatilities the strike is from the forward."""
RATIOS: Final = (1e-6, 0.01, 0.2, 0.5, 0.8, 0.97, 0.9999999, 1.0, 1.0000001, 1.02, 1.3, 2.0, 5.0, 100.0, 1e6)


def exact(m: float, v: float) -> mpmath.mpf:
    """Return the standardised call to sixty digits."""
    with mpmath.workdps(60):
        ratio, total = mpmath.mpf(m), mpmath.mpf(v)
        d1 = -mpmath.log(ratio) / total + total / 2
        return mpmath.ncdf(d1) - ratio * mpmath.ncdf(d1 - total)


def cases(vs: tuple[float, ...]) -> tuple[Float64, Float64]:
    """Return ratios and total volatilities: fixed ratios, and ratios so many deviations from 1."""
    pairs = [*product(RATIOS, vs), *((math.exp(d * v), v) for d, v in product(DEVIATIONS, vs))]
    m, v = np.array(pairs).T
    return m, v


def errors(got: Float64, m: Float64, v: Float64) -> Float64:
    """Return the absolute errors, in units of the forward."""
    with mpmath.workdps(60):
        return np.array([float(abs(mpmath.mpf(g) - exact(*at))) for g, *at in zip(got, m, v, strict=True)])


@numba.njit
def many(m: Float64, v: Float64) -> Float64:
    """Run the compiled twin over arrays."""
    out = np.empty_like(m)
    for i in range(m.size):
        out[i] = standardised_call_scalar(m[i], v[i])
    return out


@pytest.mark.parametrize(("vs", "bound"), [(NORMAL_V, 5e-16), (HUGE_V, 4e-15)])
def test_the_call_is_exact_to_the_last_digits_of_the_forward(vs: tuple[float, ...], bound: float) -> None:
    m, v = cases(vs)
    assert errors(standardised_call(m, v), m, v).max() <= bound
    assert errors(many(m, v), m, v).max() <= bound


def test_the_put_by_parity_is_exact_to_the_forward_or_the_strike() -> None:
    m, v = cases(NORMAL_V)
    put = black76(1.0, m, v, 1.0, call=False)
    with mpmath.workdps(60):
        worst = max(
            float(abs(mpmath.mpf(got) - (exact(*at) + mpmath.mpf(at[0]) - 1)) / max(1.0, at[0]))
            for got, *at in zip(put, m, v, strict=True)
        )
    assert worst <= 1e-15


def test_textbook_value() -> None:
    # At the money F * (2 N(v / 2) - 1): N(0.1) = 0.539827837277029, F = 100, v = 0.2.
    assert black76(100.0, 100.0, 0.2, 1.0) == pytest.approx(7.9655674554058, abs=1e-12)
    assert black76(100.0, 100.0, 0.4, 0.25, 0.95, call=False) == pytest.approx(7.56728908263551, abs=1e-12)


def test_no_time_and_no_volatility_leave_the_intrinsic_value() -> None:
    strikes = np.array([1_000.0, 1_999.0, 2_000.0, 2_001.0, 4_000.0])
    for volatility, years in ((0.8, 0.0), (0.0, 1.0), (0.0, 0.0)):
        call = black76(2_000.0, strikes, volatility, years, 0.5)
        np.testing.assert_allclose(call, [500.0, 0.5, 0, 0, 0], atol=1e-12)
        put = black76(2_000.0, strikes, volatility, years, 0.5, call=False)
        np.testing.assert_allclose(put, [0, 0, 0, 0.5, 1_000.0], atol=1e-12)


def test_limits_of_strike_forward_and_volatility() -> None:
    assert black76(2_000.0, 0.0, 0.5, 1.0, 0.9) == 1_800.0
    assert black76(2_000.0, 0.0, 0.5, 1.0, 0.9, call=False) == 0.0
    assert black76(0.0, 2_000.0, 0.5, 1.0, 0.9) == 0.0
    assert black76(0.0, 2_000.0, 0.5, 1.0, 0.9, call=False) == 1_800.0
    assert black76(0.0, 0.0, 0.5, 1.0) == black76(0.0, 0.0, 0.5, 1.0, call=False) == 0.0
    # From v = 24 on: the discounted forward and the discounted strike, whatever the strike.
    assert black76(2_000.0, 1e12, 24.0, 1.0, 0.9) == 1_800.0
    assert black76(2_000.0, 3_000.0, 48.0, 0.25, 0.9, call=False) == pytest.approx(2_700.0, rel=1e-15)
    assert standardised_call(1e30, 24.0) == 1.0
    below = math.nextafter(24.0, 0.0)
    assert standardised_call(1e30, below) == pytest.approx(float(exact(1e30, below)), abs=4e-15)
    # The ratio overflows: nothing is left of the forward.
    assert black76(1e-310, 1e300, 0.5, 1.0, call=False) == 1e300
    assert black76(1e-310, 1e300, 0.5, 1.0) == 0.0


def test_a_missing_number_stays_missing() -> None:
    good = {"forward": 2_000.0, "strike": 2_100.0, "volatility": 0.6, "years": 0.3, "discount": 0.99}
    for name in good:
        for call in (True, False):
            assert math.isnan(black76(**(good | {name: math.nan}), call=call))
            assert math.isnan(black76_scalar(*(good | {name: math.nan}).values(), call))
    for call in (True, False):
        assert math.isnan(black76(0.0, 2_000.0, math.nan, 1.0, call=call))
        assert math.isnan(black76_scalar(0.0, 2_000.0, math.nan, 1.0, 1.0, call))
        assert math.isnan(black76_scalar(2_000.0, 0.0, math.nan, 1.0, 1.0, call))
    row = black76(np.array([2_000.0, math.nan]), 2_000.0, 0.5, 1.0)
    assert np.isnan(row).tolist() == [False, True]


@pytest.mark.parametrize("name", ["forward", "strike", "volatility", "years", "discount"])
def test_a_number_below_zero_is_refused(name: str) -> None:
    good = {"forward": 2_000.0, "strike": 2_100.0, "volatility": 0.6, "years": 0.3, "discount": 0.99}
    with pytest.raises(InputError, match=f"{name} -0.25 is below zero; a price"):
        black76(**(good | {name: -0.25}))
    with pytest.raises(InputError, match=f"{name} -0.25 is below zero"):
        black76(**(good | {name: np.array([0.5, -0.25, -1.0])}))


def test_shapes_broadcast_and_scalars_give_floats() -> None:
    forwards, strikes = np.array([[1_800.0], [2_000.0]]), np.array([1_500.0, 2_000.0, 2_500.0])
    grid = black76(forwards, strikes, 0.5, 0.25, call=np.array([True, False, True]))
    assert grid.shape == (2, 3)
    assert grid[1, 1] == black76(2_000.0, 2_000.0, 0.5, 0.25, call=False)
    assert type(black76(2_000.0, 2_000.0, 0.5, 0.25)) is float
    assert type(standardised_call(1.0, 0.2)) is float
    assert black76(2_000, 2_000, 1, 0.25) == black76(2_000.0, 2_000.0, 1.0, 0.25)
    assert black76(np.empty(0), 1.0, 0.5, 1.0).shape == (0,)


def test_the_compiled_twin_agrees_on_everything_that_is_no_formula() -> None:
    values = (0.0, 1e-310, 0.5, 1_999.0, 2_000.0, 3e5, 1e300)
    for forward, strike, call in product(values, values, (True, False)):
        for volatility, years in ((0.6, 0.3), (0.0, 0.3), (0.6, 0.0), (300.0, 2.0)):
            array = black76(forward, strike, volatility, years, 0.97, call)
            twin = black76_scalar(forward, strike, volatility, years, 0.97, call)
            assert twin == pytest.approx(array, abs=2e-15 * max(forward, strike)), (forward, strike)


def test_implied_volatility_is_the_inverse() -> None:
    strikes = 2_000.0 * np.exp(np.linspace(-1.2, 1.2, 25))
    for volatility, years in ((0.3, 0.5), (0.9, 0.05), (2.5, 1.0)):
        # Within four deviations; beyond, the price itself has lost the digits.
        near = np.abs(np.log(strikes / 2_000.0)) < 4 * volatility * math.sqrt(years)
        for call in (np.full(25, True), np.full(25, False), strikes > 2_000.0):
            price = black76(2_000.0, strikes, volatility, years, 0.97, call)
            found = implied_volatility(2_000.0, strikes, price, years, 0.97, call)
            np.testing.assert_allclose(found[near], volatility, rtol=1e-8)
    assert implied_volatility(100.0, 100.0, 7.965567455405804, 1.0) == pytest.approx(0.2, rel=1e-13)


def test_a_value_that_no_volatility_gives_has_none() -> None:
    # In order: below and at the intrinsic value, at the cap, above it, unknown.
    for value in (499.0, 500.0, 2_000.0, 2_001.0, math.nan):
        assert math.isnan(implied_volatility(2_000.0, 1_500.0, value, 0.5))
    assert math.isnan(implied_volatility(2_000.0, 1_500.0, 1_500.0, 0.5, call=False))
    assert implied_volatility(2_000.0, 1_500.0, 501.0, 0.5) > 0.0
    with pytest.raises(InputError, match=r"years 0\.0 is not above zero"):
        implied_volatility(2_000.0, 1_500.0, 600.0, 0.0)
