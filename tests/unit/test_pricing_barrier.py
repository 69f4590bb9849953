"""Knock-out options against QuantLib, at the barrier, and across it."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
import QuantLib as ql

from contracts_abi.errors import InputError
from simulation.portfolio.instruments import Barrier
from simulation.pricing.barrier import value_under
from simulation.pricing.black_scholes import black_scholes

TODAY = ql.Date(8, 1, 2024)


def knock_out(strike: float, barrier: float, call: bool) -> Barrier:
    return Barrier(underlying="ETH", expiry=1_735_286_400, strike=strike, call=call, barrier=barrier)


def quantlib(
    instrument: Barrier, spot: float, volatility: float, days: int, rate: float, alive_above: bool
) -> float:
    """Return the value by QuantLib's analytic engine."""
    ql.Settings.instance().evaluationDate = TODAY
    count = ql.Actual365Fixed()
    process = ql.BlackScholesProcess(
        ql.QuoteHandle(ql.SimpleQuote(spot)),
        ql.YieldTermStructureHandle(ql.FlatForward(TODAY, rate, count)),
        ql.BlackVolTermStructureHandle(ql.BlackConstantVol(TODAY, ql.NullCalendar(), volatility, count)),
    )
    option = ql.BarrierOption(
        ql.Barrier.DownOut if alive_above else ql.Barrier.UpOut,
        instrument.barrier,
        0.0,
        ql.PlainVanillaPayoff(ql.Option.Call if instrument.call else ql.Option.Put, instrument.strike),
        ql.EuropeanExercise(TODAY + days),
    )
    option.setPricingEngine(ql.AnalyticBarrierEngine(process))
    return float(option.NPV())


@pytest.mark.parametrize("call", [True, False])
@pytest.mark.parametrize("barrier", [1_500.0, 1_950.0, 2_050.0, 3_000.0])
def test_quantlib_agrees(barrier: float, call: bool) -> None:
    for strike, volatility, days, rate in product(
        (1_400.0, 1_800.0, 2_000.0, 2_400.0, 3_500.0), (0.15, 0.6, 1.5), (3, 40, 400), (-0.02, 0.0, 0.08)
    ):
        instrument = knock_out(strike, barrier, call)
        got = value_under(instrument, 2_000.0, volatility, days / 365, rate)
        expected = quantlib(instrument, 2_000.0, volatility, days, rate, barrier < 2_000)
        assert got == pytest.approx(expected, abs=1e-10), (strike, volatility, days, rate)


def test_arrays_are_one_by_one() -> None:
    instrument = knock_out(2_000.0, 1_600.0, call=True)
    spots, volatilities = np.array([[1_700.0], [2_000.0], [2_600.0]]), np.array([0.4, 0.9])
    grid = value_under(instrument, spots, volatilities, 0.25, 0.03)
    assert grid.shape == (3, 2)
    for i, j in np.ndindex(3, 2):
        assert grid[i, j] == value_under(instrument, float(spots[i, 0]), float(volatilities[j]), 0.25, 0.03)


def test_a_shock_across_the_barrier_knocks_out() -> None:
    instrument = knock_out(2_000.0, 2_500.0, call=True)
    spots = np.array([2_000.0, 2_499.0, 2_500.0, 2_600.0])
    values = value_under(instrument, spots, 0.5, 0.25, reference=2_000.0)
    assert values[0] > values[1] > 0.0
    assert values[2:].tolist() == [0.0, 0.0]
    # From the other side the same option lives above.
    assert value_under(instrument, 2_600.0, 0.5, 0.25, reference=2_700.0) > 100.0
    assert value_under(instrument, 2_400.0, 0.5, 0.25, reference=2_700.0) == 0.0
    with pytest.raises(InputError, match=r"both sides of the barrier 2500\.0; give reference"):
        value_under(instrument, spots, 0.5, 0.25)


def test_a_barrier_out_of_reach_leaves_the_plain_option() -> None:
    for call, barrier in product((True, False), (1.0, 1e7)):
        value = value_under(knock_out(2_100.0, barrier, call), 2_000.0, 0.6, 0.5, 0.03)
        assert value == pytest.approx(black_scholes(2_000.0, 2_100.0, 0.6, 0.5, 0.03, call=call), abs=1e-9)
    # Up and out with the barrier below the strike can never pay.
    assert value_under(knock_out(2_500.0, 2_400.0, call=True), 2_000.0, 0.6, 0.5) == 0.0


def test_no_time_or_no_volatility() -> None:
    put = knock_out(2_200.0, 1_500.0, call=False)
    assert value_under(put, 2_000.0, 0.6, 0.0, 0.05) == 200.0
    assert value_under(put, 1_500.0, 0.6, 0.0, 0.05) == 0.0
    call = knock_out(1_800.0, 2_100.0, call=True)
    certain = value_under(call, 2_000.0, 0.0, 0.5, 0.05)
    assert certain == pytest.approx(2_000 - 1_800 * math.exp(-0.025), rel=1e-12)
    # At a rate of 20 % the price is carried over the barrier within the half year.
    assert value_under(call, 2_000.0, 0.0, 0.5, 0.2) == 0.0
    # The formula comes to the same where the volatility is small but counted.
    assert value_under(call, 2_000.0, 2e-4, 0.5, 0.05) == pytest.approx(certain, rel=1e-9)
    assert value_under(call, 2_000.0, 2e-4, 0.5, 0.2) == pytest.approx(0.0, abs=1e-9)


def test_missing_and_bad_numbers() -> None:
    for instrument in (knock_out(2_000.0, 1_500.0, call=True), knock_out(1_400.0, 1_500.0, call=False)):
        for i in range(4):
            arguments = [math.nan if i == j else x for j, x in enumerate((2_000.0, 0.5, 0.25, 0.03))]
            assert math.isnan(value_under(instrument, *arguments, reference=2_000.0))
    with pytest.raises(InputError, match=r"spot 0\.0 is not above zero"):
        value_under(knock_out(2_000.0, 1_500.0, call=True), 0.0, 0.5, 0.25)
    with pytest.raises(InputError, match=r"years -0\.5 is below zero"):
        value_under(knock_out(2_000.0, 1_500.0, call=True), 2_000.0, 0.5, -0.5)
