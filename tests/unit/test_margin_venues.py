"""The methods of other venues against worked examples; the scenarios and the valuation that they share."""

from __future__ import annotations

import math
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import QuantLib as ql
from pydantic import ValidationError

from contracts_abi.errors import InputError
from simulation.margin.scenario_grid import (
    NEUTRAL,
    PriceMissing,
    Scenario,
    VolRule,
    VolShock,
    delta_under,
    equity,
    grid,
    profit_under,
    scenario_set,
    value_under,
)
from simulation.portfolio.instruments import (
    Barrier,
    Future,
    Instrument,
    Option,
    Perpetual,
    Portfolio,
    Position,
    Spot,
)
from simulation.portfolio.market import YEAR_S, AssetPrice, Expiry, Market, Svi, Underlying
from simulation.pricing.black76 import black76

VECTORS = Path(__file__).parents[3] / "shared" / "vectors"
NOW = 1_700_000_000
DAY = 86_400
MONTH = NOW + 30 * DAY
WEEK = NOW + 7 * DAY


def market(**change: Any) -> Market:
    """Return a market of two underlyings and a stable token."""
    fields: dict[str, Any] = {
        "timestamp": NOW,
        "underlyings": {
            "BTC": Underlying(
                spot=70_000,
                perpetual=70_010,
                expiries={
                    WEEK: Expiry(forward=70_100, rate=0.05, volatility=0.6),
                    MONTH: Expiry(forward=70_400, rate=0.05, volatility=0.55),
                },
            ),
            "ETH": Underlying(spot=2_500, expiries={MONTH: Expiry(forward=2_510, volatility=0.7)}),
        },
        "assets": {"USDC": AssetPrice(price=0.999)},
    }
    return Market(**fields | change)


def book(*held: tuple[Instrument, float], cash: float = 0.0) -> Portfolio:
    """Return a portfolio of instruments and quantities."""
    return Portfolio(cash=cash, positions=tuple(Position(instrument=i, quantity=q) for i, q in held))


def shock(price: float, **change: Any) -> Any:
    """Return a set of one scenario that moves every price."""
    return scenario_set([Scenario(label="one", every=price, **change)])


CALL = Option(underlying="BTC", expiry=MONTH, strike=75_000, call=True)
PUT = Option(underlying="BTC", expiry=MONTH, strike=65_000, call=False)
COIN_CALL = Option(underlying="BTC", expiry=MONTH, strike=75_000, call=True, inverse=True)
PERP = Perpetual(underlying="BTC")
COIN_PERP = Perpetual(underlying="BTC", inverse=True)
FUTURE = Future(underlying="BTC", expiry=MONTH)
BOUGHT_DOWN = Barrier(underlying="BTC", expiry=MONTH, strike=70_000, call=True, barrier=60_000)


# --- scenarios


def test_the_term_rule_is_the_one_that_four_venues_share() -> None:
    """Reference 2.1, 2.5: 30 days and more at .13, less at .3, never below one day."""
    up = VolShock(rule=VolRule.TERM, size=0.4)
    days = np.array([0.5, 1.0, 15.0, 30.0, 90.0])
    expected = 0.5 * (1 + 0.4 * np.array([30**0.3, 30**0.3, 2**0.3, 1.0, (1 / 3) ** 0.13]))
    np.testing.assert_allclose(up.shocked(np.full(5, 0.5), days), expected, rtol=1e-15)


def test_volatility_rules_differ_by_what_they_add() -> None:
    one, week = np.array([0.5]), np.array([7.0])
    assert VolShock(rule=VolRule.PARALLEL, size=0.2).shocked(one, week)[0] == pytest.approx(0.6)
    assert VolShock(rule=VolRule.ADDITIVE, size=0.2).shocked(one, week)[0] == pytest.approx(0.7)
    assert VolShock().shocked(one, week)[0] == 0.5
    floored = VolShock(rule=VolRule.ADDITIVE, size=-0.9, least=0.1)
    assert floored.shocked(one, week)[0] == 0.1


@pytest.mark.parametrize(
    ("rule", "size"), [(VolRule.PARALLEL, -1.01), (VolRule.TERM, -0.37), (VolRule.TERM, -2.0)]
)
def test_a_shock_that_must_make_volatilities_negative_is_refused(rule: VolRule, size: float) -> None:
    """30 ** .3 = 2.774: of a one-day option -37 % takes more than all."""
    with pytest.raises(ValidationError, match="makes volatilities negative"):
        VolShock(rule=rule, size=size)
    assert VolShock(rule=rule, size=size, least=0.0).least == 0.0


def test_an_added_shock_is_refused_at_the_volatility_that_it_takes_below_zero() -> None:
    down = VolShock(rule=VolRule.ADDITIVE, size=-0.6)
    with pytest.raises(InputError, match=r"takes 0.55 below zero"):
        value_under(book((CALL, 1)), market(), shock(1.0, volatility=down))


def test_sets_with_holes_or_labels_twice_are_refused() -> None:
    with pytest.raises(InputError, match="without scenarios"):
        scenario_set([])
    with pytest.raises(InputError, match="two scenarios have the label 'a'"):
        scenario_set([Scenario(label="a"), Scenario(label="a", every=1.1)])
    with pytest.raises(InputError, match="'a' says nothing of ETH"):
        scenario_set(
            [
                Scenario(label="a", every=None, prices={"BTC": 0.9}),
                Scenario(label="b", every=None, prices={"ETH": 0.9}),
            ]
        )
    hole = scenario_set([Scenario(label="a", every=None, prices={"BTC": 0.9})])
    with pytest.raises(InputError, match="'a' says nothing of ETH"):
        value_under(book((Spot(asset="ETH"), 1)), market(), hole)


def test_a_move_that_leaves_no_price_is_refused() -> None:
    with pytest.raises(InputError, match="leaves no price"):
        grid([0.0, -1.0], {"same": VolShock()})


def test_a_grid_is_every_move_with_every_volatility() -> None:
    made = grid([-0.1, 0.0], {"vol down": VolShock(), "vol up": VolShock(rule=VolRule.TERM, size=0.5)})
    assert made.labels == (
        "spot -10 %, vol down",
        "spot -10 %, vol up",
        "spot +0 %, vol down",
        "spot +0 %, vol up",
    )


# --- values


def test_values_of_each_kind_by_hand() -> None:
    """Everything 10 % up, with no change of volatility."""
    held = book(
        (Spot(asset="ETH"), 2), (Spot(asset="USDC"), 100), (PERP, -1), (FUTURE, 2), (COIN_PERP, 7_001)
    )
    values = value_under(held, market(), shock(1.1))[0]
    # One USDC stays; 7,001 dollars are .1 coin, which gain .1 * .1 / 1.1 coin at 77,000 dollars.
    expected = [2 * 2_750, 99.9, -7_001, 2 * 7_040, 0.1 * 0.1 / 1.1 * 77_000]
    np.testing.assert_allclose(values, expected, rtol=1e-13)


def test_options_are_black_76_on_their_own_forward() -> None:
    up = VolShock(rule=VolRule.PARALLEL, size=0.5)
    held = book((CALL, 2), (PUT, -3), (COIN_CALL, 1))
    got = value_under(held, market(), shock(0.9, volatility=up, seconds=5 * DAY))[0]
    years, forward, vol = 25 * DAY / YEAR_S, 0.9 * 70_400, 0.55 * 1.5
    discount = math.exp(-0.05 * years)
    call = black76(forward, 75_000.0, vol, years)
    put = black76(forward, 65_000.0, vol, years, discount, False)
    # Of the inverse one the premium is call / forward coins, undiscounted, each 63,000 dollars.
    expected = [2 * discount * call, -3 * put, call / forward * 63_000]
    np.testing.assert_allclose(got, expected, rtol=1e-12)


def test_the_settled_part_of_a_forward_does_not_move() -> None:
    settling = market(
        underlyings={
            "BTC": Underlying(spot=100, expiries={WEEK: Expiry(forward=40, fixed=60, volatility=0.5)})
        }
    )
    future = Future(underlying="BTC", expiry=WEEK)
    call = Option(underlying="BTC", expiry=WEEK, strike=90, call=True)
    values = value_under(book((future, 1), (call, 1)), settling, shock(0.5))[0]
    assert values[0] == pytest.approx(-20)
    assert values[1] == pytest.approx(black76(80.0, 90.0, 0.5, 7 * DAY / YEAR_S))


def test_time_beyond_expiry_leaves_the_intrinsic_value() -> None:
    deep = Option(underlying="BTC", expiry=WEEK, strike=50_000, call=True)
    value = value_under(book((deep, 1)), market(), shock(1.0, seconds=8 * DAY))[0, 0]
    assert value == pytest.approx(20_100, rel=1e-15)


def test_the_smile_gives_the_volatility_where_a_position_states_none() -> None:
    flat = Svi(a=0.04, b=0.0, rho=0.0, m=0.0, sigma=0.0, forward=2_500, tau=0.25)
    smiling = market(
        underlyings={"ETH": Underlying(spot=2_500, expiries={MONTH: Expiry(forward=2_500, surface=flat)})}
    )
    call = Option(underlying="ETH", expiry=MONTH, strike=2_500, call=True)
    value = value_under(book((call, 1)), smiling, NEUTRAL)[0, 0]
    assert value == pytest.approx(black76(2_500.0, 2_500.0, 0.4, 30 * DAY / YEAR_S), rel=1e-14)


@pytest.mark.parametrize(
    ("call", "strike", "barrier"),
    list(product((True, False), (60_000, 70_000, 80_000), (55_000, 65_000, 75_000, 90_000))),
)
def test_knock_outs_are_those_of_an_independent_library(call: bool, strike: float, barrier: float) -> None:
    now = market()
    instrument = Barrier(underlying="BTC", expiry=MONTH, strike=strike, call=call, barrier=barrier)
    got = value_under(book((instrument, 1)), now, NEUTRAL)[0, 0]
    assert got == pytest.approx(_quantlib_knock_out(call, strike, barrier), rel=1e-9, abs=1e-8)


def _quantlib_knock_out(call: bool, strike: float, barrier: float) -> float:
    years = 30 * DAY / YEAR_S
    today = ql.Date(1, 1, 2024)
    ql.Settings.instance().evaluationDate = today
    # A dividend yield that makes the forward of 30 days the market's.
    dividend = 0.05 - math.log(70_400 / 70_000) / years

    def flat(rate: float) -> Any:
        return ql.YieldTermStructureHandle(ql.FlatForward(today, rate, ql.Actual365Fixed()))

    process = ql.BlackScholesMertonProcess(
        ql.QuoteHandle(ql.SimpleQuote(70_000)),
        flat(dividend),
        flat(0.05),
        ql.BlackVolTermStructureHandle(
            ql.BlackConstantVol(today, ql.NullCalendar(), 0.55, ql.Actual365Fixed())
        ),
    )
    option = ql.BarrierOption(
        ql.Barrier.DownOut if barrier < 70_000 else ql.Barrier.UpOut,
        barrier,
        0.0,
        ql.PlainVanillaPayoff(ql.Option.Call if call else ql.Option.Put, strike),
        ql.EuropeanExercise(today + 30),
    )
    option.setPricingEngine(ql.AnalyticBarrierEngine(process))
    return float(option.NPV())


def test_a_barrier_that_a_scenario_passes_ends_the_option() -> None:
    held = book((BOUGHT_DOWN, 1))
    before, through = (value_under(held, market(), shock(move))[0, 0] for move in (0.87, 0.85))
    assert before > 0
    assert through == 0.0


def test_profits_are_weighted_and_start_at_nothing() -> None:
    half = scenario_set([Scenario(label="now"), Scenario(label="down", every=0.9, weight=0.5)])
    held = book((PERP, 1), (CALL, -1), cash=5)
    profits = profit_under(held, market(), half)
    np.testing.assert_array_equal(profits[0], 0.0)
    assert profits[1, 0] == pytest.approx(-3_500.5)


def test_deltas_are_the_slope_of_the_value() -> None:
    """Against the difference of two prices: dollars per dollar of the option's own forward."""
    held = book((CALL, 2), (PUT, -1), (PERP, 3), (FUTURE, -2), (COIN_PERP, 7_001))
    step = 1e-5
    up, down = (value_under(held, market(), shock(1 + side * step))[0] for side in (1, -1))
    price = np.array([70_400, 70_400, 70_010, 70_400, 70_010])
    slope = (up - down) / (2 * step * price)
    slope[4] *= 70_010 / 70_000  # its coins are worth the index, not its own price
    np.testing.assert_allclose(delta_under(held, market())[0], slope, rtol=1e-7)


# --- what is missing and what is wrong


def broken(**spot: Any) -> Market:
    """Return a market whose underlying went through no check."""
    return Market.model_construct(
        timestamp=NOW,
        underlyings={
            "BTC": Underlying.model_construct(**{"spot": 70_000.0, "perpetual": None, "expiries": {}} | spot)
        },
        assets={},
        stable_price=1.0,
    )


@pytest.mark.parametrize(
    ("held", "state", "says"),
    [
        (book((Perpetual(underlying="XRP"), 1)), market(), "no price of XRP"),
        (book((Spot(asset="XRP"), 1)), market(), "no price of XRP"),
        (
            book((Option(underlying="ETH", expiry=WEEK, strike=1, call=True), 1)),
            market(),
            "no forward of ETH",
        ),
        (book((PERP, 1)), broken(spot=math.nan), "the spot price of BTC is nan"),
        (book((PERP, 1)), broken(perpetual=math.inf), "the price of the perpetual of BTC is inf"),
        (book((CALL, 1)), broken(expiries={MONTH: Expiry(forward=70_000)}), "no volatility"),
    ],
)
def test_what_has_no_price_is_missing_and_never_a_number(held: Portfolio, state: Market, says: str) -> None:
    with pytest.raises(PriceMissing, match=says):
        equity(held, state)


def test_an_expired_option_is_refused_with_a_fix() -> None:
    old = Option(underlying="BTC", expiry=NOW - 10, strike=1, call=True)
    with pytest.raises(InputError, match="option of BTC expired 10 s before the market's time; settle it"):
        value_under(book((old, 1)), market(), NEUTRAL)


def test_a_volatility_that_is_not_positive_is_refused() -> None:
    flat = Svi(a=0.0, b=0.0, rho=0.0, m=0.0, sigma=0.0, forward=2_500, tau=0.25)
    calm = market(
        underlyings={"ETH": Underlying(spot=2_500, expiries={MONTH: Expiry(forward=2_500, surface=flat)})}
    )
    call = Option(underlying="ETH", expiry=MONTH, strike=2_500, call=True)
    with pytest.raises(InputError, match="volatility 0 of the option with strike 2500; give more than 0"):
        value_under(book((call, 1)), calm, NEUTRAL)


def test_an_account_without_positions_is_worth_its_cash() -> None:
    assert equity(book(cash=10), market(stable_price=0.98)) == pytest.approx(9.8)
    assert value_under(book(), market(), NEUTRAL).shape == (1, 0)
