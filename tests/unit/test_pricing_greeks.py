"""Greeks of Black-76 against derivatives taken by mpmath to fifty digits, and against QuantLib."""

from __future__ import annotations

import math
from dataclasses import fields
from itertools import product
from typing import Any

import mpmath
import numpy as np
import pytest
import QuantLib as ql

from contracts_abi.errors import InputError
from simulation.pricing.black76 import black76
from simulation.pricing.greeks import Greeks, black76_greeks

CASES = [
    (2_000.0, strike, volatility, years, rate, call)
    for strike, (volatility, years), rate, call in product(
        (1_200.0, 1_900.0, 2_000.0, 2_300.0, 5_000.0),
        ((0.3, 0.02), (0.6, 0.25), (1.1, 1.5)),
        (0.0, 0.05, -0.02),
        (True, False),
    )
]
# Variable counts as (forward, volatility, years, rate), and the sign of time that passes.
DERIVATIVES = {
    "delta": ((1, 0, 0, 0), 1),
    "gamma": ((2, 0, 0, 0), 1),
    "vega": ((0, 1, 0, 0), 1),
    "theta": ((0, 0, 1, 0), -1),
    "rho": ((0, 0, 0, 1), 1),
    "vanna": ((1, 1, 0, 0), 1),
    "volga": ((0, 2, 0, 0), 1),
    "charm": ((1, 0, 1, 0), -1),
    "speed": ((3, 0, 0, 0), 1),
}


def exact(forward: Any, strike: float, volatility: Any, years: Any, rate: Any, call: bool) -> Any:
    """Return the undressed textbook formula, in mpmath's numbers."""
    v = volatility * mpmath.sqrt(years)
    d1 = mpmath.log(forward / strike) / v + v / 2
    sign = 1 if call else -1
    gain = forward * mpmath.ncdf(sign * d1) - strike * mpmath.ncdf(sign * (d1 - v))
    return sign * mpmath.exp(-rate * years) * gain


@pytest.mark.parametrize("name", list(DERIVATIVES))
def test_each_greek_is_the_derivative(name: str) -> None:
    counts, sign = DERIVATIVES[name]
    forward, strike, volatility, years, rate, call = (np.array(column) for column in zip(*CASES, strict=True))
    got = getattr(black76_greeks(forward, strike, volatility, years, rate, call), name)
    with mpmath.workdps(50):
        expected = np.array(
            [
                sign
                * float(
                    mpmath.diff(
                        lambda f, s, t, r, case=case: exact(f, case[1], s, t, r, case[5]),
                        (case[0], case[2], case[3], case[4]),
                        counts,
                    )
                )
                for case in CASES
            ]
        )
    # A put's value, and so its rho, has the digits of the strike: by parity.
    np.testing.assert_allclose(got, expected, rtol=2e-12, atol=4e-12 if name in ("rho", "theta") else 1e-50)


def test_quantlib_agrees() -> None:
    for forward, strike, volatility, years, rate, call in CASES:
        payoff = ql.PlainVanillaPayoff(ql.Option.Call if call else ql.Option.Put, strike)
        discount = math.exp(-rate * years)
        black = ql.BlackCalculator(payoff, forward, volatility * math.sqrt(years), discount)
        greeks = black76_greeks(forward, strike, volatility, years, rate, call)
        assert greeks.value == pytest.approx(black.value(), abs=1e-11)
        assert greeks.delta == pytest.approx(black.deltaForward(), abs=1e-13)
        assert greeks.gamma == pytest.approx(black.gammaForward(), abs=1e-15)
        assert greeks.vega == pytest.approx(black.vega(years), rel=1e-11, abs=1e-11)


def test_at_the_money_by_hand() -> None:
    # F = K = 100, 20 %, one year: d1 = 0.1, d2 = -0.1, phi = 0.39695254747701.
    greeks = black76_greeks(100.0, 100.0, 0.2, 1.0)
    phi = 0.3969525474770118
    assert greeks.delta == pytest.approx(0.539827837277029, rel=1e-13)
    assert greeks.gamma == pytest.approx(phi / 20, rel=1e-13)
    assert greeks.vega == pytest.approx(100 * phi, rel=1e-13)
    assert greeks.theta == pytest.approx(-10 * phi, rel=1e-13)
    assert greeks.rho == pytest.approx(-7.96556745540577, rel=1e-12)
    assert greeks.vanna == pytest.approx(phi / 2, rel=1e-13)
    assert greeks.volga == pytest.approx(-5 * phi, rel=1e-13)
    assert greeks.charm == pytest.approx(-0.05 * phi, rel=1e-13)
    assert greeks.speed == pytest.approx(-phi / 2_000 * 1.5, rel=1e-13)


def test_no_time_or_no_volatility_gives_the_limits() -> None:
    for volatility, years in ((0.5, 0.0), (0.0, 0.5)):
        greeks = black76_greeks(2_000.0, np.array([1_500.0, 2_000.0, 2_500.0]), volatility, years, 0.04)
        discount = math.exp(-0.04 * years)
        np.testing.assert_allclose(greeks.delta[[0, 2]], [discount, 0.0])
        np.testing.assert_allclose(greeks.theta[[0, 2]], [0.04 * 500 * discount, 0.0])
        np.testing.assert_allclose(greeks.charm[[0, 2]], [0.04 * discount, 0.0])
        for name in ("gamma", "vega", "vanna", "volga", "speed"):
            assert getattr(greeks, name)[[0, 2]].tolist() == [0.0, 0.0]
        # At the strike the value has a kink: no derivative, but a value.
        assert greeks.value[1] == 0.0
        for name in ("delta", "gamma", "vega", "theta", "vanna", "volga", "charm", "speed"):
            assert math.isnan(getattr(greeks, name)[1])
    put = black76_greeks(2_000.0, 2_500.0, 0.5, 0.0, call=False)
    assert put.delta == -1.0


def test_shapes_and_missing_numbers() -> None:
    greeks = black76_greeks(2_000.0, np.array([[1_800.0], [2_200.0]]), 0.5, np.array([0.1, 0.2, 0.3]))
    assert {getattr(greeks, field.name).shape for field in fields(Greeks)} == {(2, 3)}
    assert greeks.value[1, 2] == black76(2_000.0, 2_200.0, 0.5, 0.3)
    both = black76_greeks(2_000.0, 2_200.0, 0.5, 0.3, call=np.array([True, False]))
    assert both.gamma[0] == both.gamma[1]
    assert both.delta[0] - both.delta[1] == pytest.approx(1.0, rel=1e-15)
    missing = black76_greeks(2_000.0, 2_200.0, math.nan, 0.3)
    assert all(math.isnan(getattr(missing, field.name)) for field in fields(Greeks))
    with pytest.raises(InputError, match=r"strike 0\.0 is not above zero"):
        black76_greeks(2_000.0, 0.0, 0.5, 0.3)
