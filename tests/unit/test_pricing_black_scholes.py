"""Black-Scholes with a yield against QuantLib, and the forward it stands on."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
import QuantLib as ql

from contracts_abi.errors import InputError
from simulation.pricing.black_scholes import black_scholes, forward_of


def test_textbook_value() -> None:
    # Hull, Options, Futures and Other Derivatives: S = 42, K = 40, r = 10 %, 20 %, half a year.
    assert black_scholes(42.0, 40.0, 0.2, 0.5, 0.1) == pytest.approx(4.759422392871532, abs=1e-12)
    assert black_scholes(42.0, 40.0, 0.2, 0.5, 0.1, call=False) == pytest.approx(0.808599372900096, abs=1e-12)
    assert forward_of(100.0, 2.0, 0.05, 0.02) == pytest.approx(100.0 * math.exp(0.06), rel=1e-15)


def test_quantlib_agrees() -> None:
    grid = list(
        product(
            (0.6, 0.95, 1.0, 1.3, 2.5), (0.05, 0.4, 1.6), (0.01, 0.5, 3.0), (-0.03, 0.0, 0.12), (0.0, 0.05)
        )
    )
    ratio, volatility, years, rate, dividend = np.array(grid).T
    spot = 2_000.0
    for call in (True, False):
        got = black_scholes(spot, spot * ratio, volatility, years, rate, dividend, call)
        kind = ql.Option.Call if call else ql.Option.Put
        expected = [
            ql.BlackCalculator(
                ql.PlainVanillaPayoff(kind, spot * m),
                spot * math.exp((r - q) * t),
                s * math.sqrt(t),
                math.exp(-r * t),
            ).value()
            for m, s, t, r, q in grid
        ]
        np.testing.assert_allclose(got, expected, rtol=0, atol=5e-12)


def test_parity_holds_and_a_missing_number_stays_missing() -> None:
    arguments = (1_900.0, 2_000.0, 0.7, 0.4, 0.03, 0.01)
    gap = black_scholes(*arguments) - black_scholes(*arguments, call=False)
    assert gap == pytest.approx(1_900 * math.exp(-0.004) - 2_000 * math.exp(-0.012), abs=1e-11)
    for i in range(len(arguments)):
        assert math.isnan(black_scholes(*(math.nan if i == j else x for j, x in enumerate(arguments))))
    with pytest.raises(InputError, match=r"volatility -0\.1 is below zero"):
        black_scholes(1_900.0, 2_000.0, -0.1, 0.4)
