"""The methods of other venues against worked examples; the scenarios and the valuation that they share."""

from __future__ import annotations

import json
import math
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import QuantLib as ql
from pydantic import ValidationError

from contracts_abi.errors import InputError
from simulation.margin import margin_methods
from simulation.margin.baselines import (
    CRASHES,
    Cross,
    GridParameters,
    Isolated,
    Stress,
    StressParameters,
)
from simulation.margin.cme_span import (
    CmeSpan,
    Commodity,
    InterCommoditySpread,
    InterMonthSpread,
    SpanParameters,
    SpreadLeg,
    composite_delta,
    delivery_charge,
    inter_commodity,
    inter_month,
    scan_risk,
    short_option_minimum,
    weighted_price_risk,
)
from simulation.margin.deribit_spm import (
    EXTENDED_MOVES,
    DeribitParameters,
    DeribitSpm,
    PairParameters,
    dampened,
    delta_shock,
    extended_factors,
    from_example,
    offset,
    roll_shock,
)
from simulation.margin.occ_tims import (
    HIGH_CAP_INDEX,
    OccTims,
    PortfolioGroup,
    ProductGroup,
    TimsParameters,
    valuation_points,
)
from simulation.margin.okx_pm import (
    OkxParameters,
    OkxPm,
    depeg_charge,
    extreme_move,
    hedged_size,
    minimum_charge,
    price_moves,
)
from simulation.margin.paradex_scan import ParadexParameters, ParadexScan, minimum_delta
from simulation.margin.result import Grade, PortfolioMethod
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
from simulation.margin.vectors import cases_of
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
from simulation.types import MarginStatus

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


# --- what every method owes

PLAIN: dict[str, Any] = {
    "deribit.spm": DeribitSpm(),
    "paradex.scan": ParadexScan(),
    "cme.span": CmeSpan(),
    "occ.tims": OccTims(),
    "okx.pm": OkxPm(parameters=OkxParameters(minimum_charge_rate=0.002)),
    "isolated": Isolated(),
    "cross": Cross(),
    "stress": Stress(),
}


@pytest.mark.parametrize("kind", PLAIN)
def test_a_method_is_registered_and_says_how_it_is_founded(kind: str) -> None:
    method = PLAIN[kind]
    assert margin_methods.get(kind) is type(method)
    assert isinstance(method, PortfolioMethod)
    assert method.grade in Grade
    assert "reference of the margin engines" in method.source or "press" in method.source
    again = type(method)(parameters=method.parameters.model_dump(mode="json"))
    assert again.parameters.hash == method.parameters.hash


@pytest.mark.parametrize("kind", PLAIN)
def test_a_missing_price_makes_the_margin_unknown_with_the_reason(kind: str) -> None:
    result = PLAIN[kind].margin(book((Perpetual(underlying="BTC"), 1)), broken(spot=math.nan))
    assert result.status is MarginStatus.UNKNOWN
    assert math.isnan(result.initial_requirement)
    assert result.reason == "the spot price of BTC is nan"


@pytest.mark.parametrize("kind", PLAIN)
def test_an_empty_account_owes_nothing(kind: str) -> None:
    result = PLAIN[kind].margin(book(cash=100), market())
    assert (result.initial_requirement, result.maintenance_requirement, result.equity) == (0, 0, 100)
    assert result.status is MarginStatus.NO_DEBT


@pytest.mark.parametrize("kind", PLAIN)
def test_the_status_follows_from_equity_and_maintenance(kind: str) -> None:
    needed = PLAIN[kind].margin(book((PERP, 1)), market()).maintenance_requirement
    assert needed > 0
    for cash, status in ((needed * 1.001, MarginStatus.HEALTHY), (needed * 0.999, MarginStatus.LIQUIDATABLE)):
        assert PLAIN[kind].margin(book((PERP, 1), cash=cash), market()).status is status


@pytest.mark.parametrize("kind", ["deribit.spm", "paradex.scan", "cme.span", "occ.tims", "okx.pm"])
def test_a_venue_refuses_what_it_does_not_list(kind: str) -> None:
    with pytest.raises(InputError, match=rf"{kind} knows no barrier \(BTC\); it knows: "):
        PLAIN[kind].margin(book((BOUGHT_DOWN, 1)), market())


@pytest.mark.parametrize("kind", ["paradex.scan", "cme.span", "occ.tims"])
def test_a_venue_of_dollars_refuses_inverse_instruments(kind: str) -> None:
    with pytest.raises(InputError, match=rf"{kind} knows no inverse perpetual \(BTC\)"):
        PLAIN[kind].margin(book((COIN_PERP, 1)), market())


# --- deribit


needs_vectors = pytest.mark.skipif(
    not (VECTORS / "deribit" / "pme_examples.json").exists(), reason="the published examples are not here"
)


@needs_vectors
@pytest.mark.parametrize("case", ["A", "B"])
def test_deribits_published_examples(case: str) -> None:
    """Rows to 1e-12, the sums that the venue rounds to 1e-8."""
    example = from_example(json.loads((VECTORS / "deribit" / "pme_examples.json").read_text())[case])
    computed = example.computed()
    assert {"worst_case", "roll_shock", "maintenance_margin", "initial_margin"} <= set(example.expected)
    for name, expected in example.expected.items():
        assert computed[name] == pytest.approx(expected, abs=example.tolerance[name], rel=0), name


@needs_vectors
def test_the_examples_are_cases_of_margin_check() -> None:
    value = json.loads((VECTORS / "deribit" / "pme_examples.json").read_text())
    records = [case.record() for case in cases_of("deribit.spm", "pme_examples", value)]
    assert [record["case"] for record in records] == ["pme_examples:A", "pme_examples:B"]
    assert records[1]["worst_case"] == pytest.approx(0.15246412672881357, abs=1e-12)
    assert len(records[1]["aggregated_rows"]) == 9


def test_an_example_that_lacks_something_or_has_an_option_is_refused() -> None:
    with pytest.raises(InputError, match="without 'index'"):
        from_example({"positions": {}})
    case = {
        "index": 1,
        "marks": {"BTC-28JUN24-70000-C": 1},
        "params": {},
        "positions": {"BTC-28JUN24-70000-C": 1},
    }
    with pytest.raises(InputError, match="no perpetual or dated future"):
        from_example(case)
    plain = {"index": 1, "marks": {"BTC-PERPETUAL": 1}, "params": {}, "positions": {"BTC-PERPETUAL": 1}}
    with pytest.raises(InputError, match="params: price_range: is missing"):
        from_example(plain)


BTC_PAIR = PairParameters(price_range=0.16)


def test_deribit_linear_rows_by_hand() -> None:
    """One linear perpetual at 70,010: 16 % of it, and the least roll shock of the dollar."""
    result = DeribitSpm().margin(book((PERP, 1)), market())
    assert result.components["worst_case"] == pytest.approx(0.16 * 70_010)
    assert result.components["roll_shock"] == pytest.approx(0.01 * 70_000)
    assert result.components["delta_shock"] == 0.0
    assert result.maintenance_requirement == pytest.approx(0.8 * result.initial_requirement)
    assert result.worst == "spot -16 %, vol down"
    assert len(result.scenarios) == 35


def test_deribit_reprices_options_with_both_volatility_shocks() -> None:
    """A week to expiry: up 50 % and down 25 % times (30 / 7) ** .3, in coins, at the price as it is."""
    call = Option(underlying="BTC", expiry=WEEK, strike=72_000, call=True, inverse=True)
    (one,) = DeribitSpm().currencies(book((call, -10)), market())
    years, now = 7 * DAY / YEAR_S, black76(70_100.0, 72_000.0, 0.6, 7 * DAY / YEAR_S) / 70_100
    for row, size in ((14, 0.5), (12, -0.25)):
        then = black76(70_100.0, 72_000.0, 0.6 * (1 + size * (30 / 7) ** 0.3), years) / 70_100
        raw = one.pairs["BTC"].standard[row, 0]
        assert raw == pytest.approx(-10 * (then - now), rel=1e-12)
    assert one.standard[13] == 0.0


def test_deribit_volatility_up_has_a_least_one() -> None:
    calm = market(
        underlyings={"BTC": Underlying(spot=100, expiries={MONTH: Expiry(forward=100, volatility=0.1)})}
    )
    call = Option(underlying="BTC", expiry=MONTH, strike=100, call=True)
    (one,) = DeribitSpm().currencies(book((call, 1)), calm)
    years = 30 * DAY / YEAR_S
    gain = black76(100.0, 100.0, 0.5, years) - black76(100.0, 100.0, 0.1, years)
    assert one.pairs["BTC"].standard[14, 0] == pytest.approx(gain)


@pytest.mark.parametrize("coin", [True, False])
def test_an_extended_row_of_a_future_is_its_outermost_bucket(coin: bool) -> None:
    moves = np.array(EXTENDED_MOVES)
    rows = moves / (1 + moves) if coin else moves
    edge = np.sign(moves) * 0.16
    expected = edge / (1 + edge) if coin else edge
    np.testing.assert_allclose(
        rows * extended_factors(BTC_PAIR, EXTENDED_MOVES, coin=coin), expected, rtol=1e-14
    )


def test_extended_rows_are_lessened_towards_nothing_and_not_beyond() -> None:
    """At 50 % a dampener of 100 dollars is worth (.5 / .16 - 1) * 100 = 212.5 dollars."""
    for row, left in ((-300.0, -87.5), (300.0, 87.5), (-200.0, 0.0), (200.0, 0.0)):
        assert dampened(np.array([row]), BTC_PAIR, 100, [0.5], index=None)[0] == pytest.approx(left)
    coins = dampened(np.array([-1.0]), BTC_PAIR, 100, [0.5], index=1_000)
    assert coins[0] == pytest.approx(-1 + 212.5 / 1_160)


def test_profits_count_in_part_and_up_to_a_cap() -> None:
    np.testing.assert_allclose(offset(np.array([-2.0, 1.0, 10.0]), 0.6, 3.0), [-2.0, 0.6, 3.0])


def test_deribit_pairs_of_one_currency_offset_in_part() -> None:
    """Down 16 %: a BTC perpetual loses 11,201.6; short ether gains at its own 18 %, of which 40 % count."""
    held = book((PERP, 1), (Perpetual(underlying="ETH"), -10))
    (one,) = DeribitSpm().currencies(held, market())
    assert one.standard[0] == pytest.approx(-11_201.6 + 0.4 * 0.18 * 25_000)


def test_roll_and_delta_shock_by_hand() -> None:
    assert roll_shock(
        {None: -2.0, 1: 3.0, 2: -4.0}, lambda e: {1: 0.1, 2: 2.0}[e], 0.01, 0.075
    ) == pytest.approx(0.02 + 0.03 + 4 * math.expm1(0.15))
    # 20 million dollars are 200 coins at 100,000; 100 more make a share of .005.
    assert delta_shock(200, 100_000, BTC_PAIR) == 0.0
    assert delta_shock(-300, 100_000, BTC_PAIR) == pytest.approx(300 * 0.005)
    assert delta_shock(1e6, 100_000, BTC_PAIR) == pytest.approx(1e5)


def test_deribit_refuses_what_it_has_no_parameters_for() -> None:
    other = market(underlyings={"XRP": Underlying(spot=2)})
    with pytest.raises(InputError, match="no parameters of underlying XRP"):
        DeribitSpm().margin(book((Perpetual(underlying="XRP"), 1)), other)
    with pytest.raises(InputError, match="no parameters of currency XRP"):
        DeribitSpm().margin(book((Perpetual(underlying="XRP", inverse=True), 1)), other)
    with pytest.raises(InputError, match="borrowed ETH"):
        DeribitSpm().margin(book((Spot(asset="ETH"), -1)), market())
    with pytest.raises(ValidationError, match="within BTC's price range"):
        DeribitParameters(extended_moves=(0.16,))


# --- paradex


def test_paradex_minimum_delta_is_the_worked_example() -> None:
    """Reference 2.5: one perpetual long, five calls of delta .3 short, 70,000 dollars."""
    assert minimum_delta(np.array([1.0, -1.5]), 70_000) == pytest.approx(1_400)


def test_paradex_has_the_scenarios_of_the_page() -> None:
    made = ParadexParameters().scenario_set()
    assert len(made.scenarios) == 24
    assert [s.weight for s in made.scenarios[16:]] == [0.24, 0.48, 0.32, 0.16, 0.08, 0.0533, 0.04, 0.032]
    # Each far row makes a future lose what it loses at 16 %, to the digits that the page prints.
    for row in made.scenarios[16:]:
        assert row.every is not None
        assert abs(row.every - 1) * row.weight == pytest.approx(0.16, abs=2e-3)


def test_paradex_requirement_of_a_perpetual_by_hand() -> None:
    method = ParadexScan(parameters=ParadexParameters(funding_rate_8h={"BTC": 0.001}, fee_rate=0.0005))
    long = method.margin(book((PERP, 2)), market())
    assert long.components["scan_risk"] == pytest.approx(2 * 0.16 * 70_010)
    assert long.components["minimum_delta"] == pytest.approx(0.02 * 2 * 70_000)
    assert long.components["funding_provision"] == pytest.approx(140.02)
    assert long.components["fee_provision"] == pytest.approx(70)
    assert long.initial_requirement == pytest.approx(22_403.2 + 210.02)
    assert long.maintenance_requirement == pytest.approx(11_201.6 + 210.02)
    assert method.margin(book((PERP, -2)), market()).components["funding_provision"] == 0.0


def test_paradex_charges_a_hedge_by_its_deltas() -> None:
    """Calls deep in the money against perpetuals: nothing to scan, one percent of the hedge to pay."""
    deep = Option(underlying="BTC", expiry=WEEK, strike=1_000, call=True)
    flat = market(
        underlyings={"BTC": Underlying(spot=70_000, expiries={WEEK: Expiry(forward=70_000, volatility=0.5)})}
    )
    result = ParadexScan().margin(book((deep, 1), (PERP, -1)), flat)
    assert result.initial_requirement == pytest.approx(0.01 * 70_000)


# --- span

MCMILLAN = (
    460,
    -610,
    2640,
    1730,
    -1270,
    -2340,
    5210,
    4540,
    -2540,
    -3430,
    8060,
    7640,
    -3380,
    -3990,
    3130,
    -1500,
)
"""Gain of one long S&P December 410 call in each scenario (Options as a Strategic Investment, ch. 34)."""


@pytest.mark.parametrize(("quantity", "risk", "scenario"), [(1, 3_990, 14), (-1, 8_060, 11)])
def test_span_scan_risk_is_mcmillans(quantity: float, risk: float, scenario: int) -> None:
    found = scan_risk([quantity], [[-gain for gain in MCMILLAN]])
    assert (found.risk, found.scenario) == (risk, scenario)


def test_span_arrays_net_and_must_be_whole() -> None:
    array = [-float(gain) for gain in MCMILLAN]
    assert scan_risk([1, -1], [array, array]).risk == 0.0
    assert scan_risk([], []).risk == 0.0
    for wrong in ([array[:15]], [[*array[:15], math.nan]]):
        with pytest.raises(InputError, match="give 16 numbers for each"):
            scan_risk([1], wrong)


def test_span_scenarios_of_a_future() -> None:
    """Thirds of a 15 % range, then twice the range of which 35 % count."""
    result = CmeSpan().margin(book((PERP, 1)), market())
    share = [row.profit / 70_010 for row in result.scenarios]
    third = 0.05
    steps = [0, 0, 1, 1, -1, -1, 2, 2, -2, -2, 3, 3, -3, -3]
    np.testing.assert_allclose(share, [third * s for s in steps] + [0.105, -0.105], atol=1e-12)
    assert result.initial_requirement == pytest.approx(0.15 * 70_010)
    assert result.worst == "13: price -3/3, vol up"


def test_a_futures_composite_delta_is_one() -> None:
    np.testing.assert_allclose(composite_delta(np.ones((7, 2))), 1.0, rtol=1e-15)
    deltas = np.array([[0.5], [0.6], [0.4], [0.7], [0.3], [0.8], [0.2]])
    assert composite_delta(deltas)[0] == pytest.approx(0.5)


def test_months_are_spread_in_order_of_priority_from_what_is_left() -> None:
    """6 long near, 4 short middle, 5 short far: 4 spreads at 7, then the last 2 near at 9."""
    sides = {1: (6.0, 0.0), 2: (0.0, 4.0), 3: (0.0, 5.0)}
    spreads = [
        InterMonthSpread(priority=2, tiers=(1, 3), rate=9),
        InterMonthSpread(priority=1, tiers=(2, 1), rate=7),
    ]
    made = inter_month(sides, spreads)
    assert made.charge == 4 * 7 + 2 * 9
    assert made.remaining == {1: (0.0, 0.0), 2: (0.0, 0.0), 3: (0.0, 3.0)}
    assert delivery_charge(made, 3, 2.0, 3.0) == 2 * 2 + 3 * 3
    assert delivery_charge(made, None, 2.0, 3.0) == 0.0


def test_ratios_and_spreads_within_a_tier() -> None:
    made = inter_month({1: (6.0, 2.0)}, [InterMonthSpread(priority=1, tiers=(1, 1), ratios=(2, 1), rate=10)])
    assert made.charge == 20
    assert made.remaining == {1: (2.0, 0.0)}


def test_span_charges_a_calendar_spread() -> None:
    near, far = Future(underlying="BTC", expiry=WEEK), Future(underlying="BTC", expiry=MONTH)
    commodity = Commodity(
        tier_days=(10,),
        spreads=(InterMonthSpread(priority=1, tiers=(1, 2), rate=500),),
        delivery_tier=1,
        delivery_spread_rate=20,
    )
    result = CmeSpan(parameters=SpanParameters(other=commodity)).margin(book((near, 2), (far, -2)), market())
    assert result.components["inter_month_charge"] == pytest.approx(1_000)
    assert result.components["delivery_charge"] == pytest.approx(40)
    assert result.initial_requirement == pytest.approx(0.15 * 2 * 300 + 1_040)


def test_price_risk_leaves_out_what_volatility_and_time_do() -> None:
    """Active 13 averaged with its pair 14, less the average of 1 and 2, for each delta."""
    losses = [0.0] * 16
    losses[0], losses[1], losses[12], losses[13] = 30.0, 10.0, 500.0, 420.0
    scan = scan_risk([1], [losses])
    assert weighted_price_risk(scan, -4) == pytest.approx((460 - 20) / 4)
    assert weighted_price_risk(scan, 0) == 0.0


def test_commodities_are_credited_on_opposite_sides_only() -> None:
    legs = (SpreadLeg(commodity="BTC", ratio=1, side="A"), SpreadLeg(commodity="ETH", ratio=20, side="B"))
    spread = InterCommoditySpread(priority=1, legs=legs, credit_rate=0.5)
    risk = {"BTC": 10_000.0, "ETH": 400.0}
    # 60 ether make three spreads; three coins of the four are used.
    assert inter_commodity({"BTC": 4, "ETH": -60}, risk, [spread]) == {"BTC": 15_000, "ETH": 12_000}
    assert inter_commodity({"BTC": -4, "ETH": 60}, risk, [spread]) == {"BTC": 15_000, "ETH": 12_000}
    assert inter_commodity({"BTC": 4, "ETH": 60}, risk, [spread]) == {"BTC": 0, "ETH": 0}
    assert inter_commodity({"BTC": 4}, risk, [spread]) == {"BTC": 0}
    twice = inter_commodity({"BTC": 4, "ETH": -60}, risk, [spread, spread.model_copy(update={"priority": 2})])
    assert twice == {"BTC": 15_000, "ETH": 12_000}


def test_span_gives_a_credit_for_a_spread_between_commodities() -> None:
    legs = (SpreadLeg(commodity="BTC", ratio=1, side="A"), SpreadLeg(commodity="ETH", ratio=28, side="B"))
    parameters = SpanParameters(
        inter_commodity=(InterCommoditySpread(priority=1, legs=legs, credit_rate=0.6),)
    )
    held = book((PERP, 1), (Perpetual(underlying="ETH"), -28))
    plain, credited = (m.margin(held, market()) for m in (CmeSpan(), CmeSpan(parameters=parameters)))
    assert credited.components["inter_commodity_credit"] == pytest.approx(0.6 * 0.15 * (70_010 + 28 * 2_500))
    assert credited.initial_requirement == pytest.approx(0.4 * plain.initial_requirement)


def test_short_options_have_a_least_risk_and_their_value_counts_once() -> None:
    assert short_option_minimum(3, 5, 10) == 50
    assert short_option_minimum(3, 5, 10, "gross") == 80
    far = Option(underlying="BTC", expiry=WEEK, strike=500_000, call=True)
    method = CmeSpan(parameters=SpanParameters(other=Commodity(short_option_rate=200)))
    result = method.margin(book((far, -3)), market())
    assert result.initial_requirement == pytest.approx(600)
    long = CmeSpan().margin(book((CALL, 1)), market())
    value = value_under(book((CALL, 1)), market(), NEUTRAL)[0, 0]
    assert long.components["net_option_value"] == pytest.approx(value)
    # What a bought option costs is all that can be lost: no more is demanded, and none is left over.
    assert long.components["total_requirement"] == 0.0
    assert long.initial == pytest.approx(0.0, abs=1e-9)


def test_span_refuses_parameters_that_cross() -> None:
    with pytest.raises(ValidationError, match="leave no price"):
        SpanParameters(other=Commodity(price_scan_range=0.5))
    with pytest.raises(ValidationError, match="must ascend"):
        Commodity(tier_days=(30, 10))
    with pytest.raises(ValidationError, match="tier 3 of 2"):
        Commodity(tier_days=(30,), spreads=(InterMonthSpread(priority=1, tiers=(1, 3), rate=1),))
    one_side = (SpreadLeg(commodity="BTC", ratio=1, side="A"), SpreadLeg(commodity="ETH", ratio=1, side="A"))
    with pytest.raises(ValidationError, match="on one side"):
        InterCommoditySpread(priority=1, legs=one_side, credit_rate=0.5)


# --- tims


def test_tims_has_ten_points_of_equal_steps() -> None:
    points = valuation_points(*HIGH_CAP_INDEX)
    np.testing.assert_allclose(
        points, [-0.08, -0.064, -0.048, -0.032, -0.016, 0.012, 0.024, 0.036, 0.048, 0.06]
    )
    with pytest.raises(InputError, match="one below 0"):
        valuation_points(0.0, 0.1)


def test_tims_class_nets_in_full_and_has_a_minimum() -> None:
    one = OccTims().margin(book((PERP, 1)), market())
    assert one.initial_requirement == pytest.approx(0.15 * 70_010)
    hedged = OccTims().margin(book((PERP, 1), (FUTURE, -1)), market())
    assert hedged.initial_requirement == pytest.approx(0.15 * 390)
    cheap = OccTims(parameters=TimsParameters(minimum=100)).margin(book((PERP, 1), (FUTURE, -1)), market())
    assert cheap.initial_requirement == pytest.approx(2 * 100)


def test_tims_groups_count_profits_in_part() -> None:
    """28 short ether gain 10,500 at 15 % down; 90 % of it within a product, half across products."""
    held = book((PERP, 1), (Perpetual(underlying="ETH"), -28))
    up, down = 0.15 * 70_010, 0.15 * 70_000
    apart = OccTims().margin(held, market()).initial_requirement
    assert apart == pytest.approx(up + down)
    product = TimsParameters(products={"coins": ProductGroup(classes=("BTC", "ETH"), offset=0.9)})
    assert OccTims(parameters=product).margin(held, market()).initial_requirement == pytest.approx(
        up - 0.9 * down
    )
    across = TimsParameters(
        products={
            "first": ProductGroup(classes=("BTC",), offset=1),
            "second": ProductGroup(classes=("ETH",), offset=1),
        },
        portfolios={"all": PortfolioGroup(products=("first", "second"), offset=0.5)},
    )
    # At 15 % up the ether loses 10,500 and half of the 10,501.5 counts against it.
    assert OccTims(parameters=across).margin(held, market()).initial_requirement == pytest.approx(
        up - 0.5 * down
    )


def test_tims_refuses_groups_that_overlap_or_do_not_exist() -> None:
    one = ProductGroup(classes=("BTC",), offset=1)
    with pytest.raises(ValidationError, match="class BTC is in a and b"):
        TimsParameters(products={"a": one, "b": one})
    with pytest.raises(ValidationError, match="portfolio group all names a"):
        TimsParameters(portfolios={"all": PortfolioGroup(products=("a",), offset=1)})


# --- okx


def test_okx_depeg_charge_is_the_worked_example() -> None:
    """1M * .75 % + 4M * 1.75 % + 5M * 2.5 % = 202,500."""
    assert depeg_charge(10_000_000) == pytest.approx(202_500, rel=1e-15)
    assert depeg_charge(1_000_000) == 7_500
    with pytest.raises(InputError, match="beyond the last known tier, 1e"):
        depeg_charge(10_000_001)


def test_okx_minimum_charge_is_the_announcements_example() -> None:
    """30,000 raw make 50,000; the end of each tier adds its own."""
    assert minimum_charge(30_000) == 50_000
    assert minimum_charge(700_000) == 10_000 + 120_000 + 400_000 + 780_000 + 1_360_000 + 2_300_000
    assert minimum_charge(700_001) == minimum_charge(700_000) + 12
    with pytest.raises(InputError, match="has no tier"):
        minimum_charge(-1)


def test_okx_moves_by_class_of_underlying() -> None:
    assert price_moves("ETH") == (-0.12, -0.08, -0.04, 0.0, 0.04, 0.08, 0.12)
    assert price_moves("ADA")[-1] == 0.18
    assert price_moves("PEPE")[-1] == 0.25
    assert [extreme_move(s) for s in ("BTC", "SOL", "CRV")] == [0.24, 0.36, 0.5]


def test_okx_unit_by_hand() -> None:
    """Two linear perpetuals and a short future: grid, basis of a month, half of 24 %, raw charge of 0.2 %."""
    result = PLAIN["okx.pm"].margin(book((PERP, 2), (FUTURE, -1)), market())
    c = result.components
    assert c["mr1"] == pytest.approx(0.12 * (2 * 70_010 - 70_400))
    assert c["mr6"] == pytest.approx(0.5 * 0.24 * (2 * 70_010 - 70_400))
    assert c["mr4"] == pytest.approx(70_000 * math.expm1(0.05 * 30 * DAY / YEAR_S))
    assert c["mr7"] == pytest.approx(0.002 * 3 * 70_000)
    assert result.maintenance_requirement == pytest.approx(c["mr1"] + c["mr4"])
    assert result.initial_requirement == pytest.approx(1.3 * (c["mr1"] + c["mr4"]))


def test_okx_minimum_charge_holds_where_a_hedge_leaves_nothing_else() -> None:
    """Long a week and short a month: 3 % of both legs is more than a basis of .5 % and a move of 300."""
    rated = OkxPm(parameters=OkxParameters(minimum_charge_rate=0.03))
    week = Future(underlying="BTC", expiry=WEEK)
    result = rated.margin(book((week, 1), (FUTURE, -1)), market())
    assert result.maintenance_requirement == pytest.approx(4_200)
    assert result.initial_requirement == pytest.approx(5_460)


def test_okx_charges_a_hedge_over_two_currencies() -> None:
    """One linear coin long and 70,010 inverse dollars, one coin, short: 70,000 dollars at .75 %."""
    result = PLAIN["okx.pm"].margin(book((PERP, 1), (COIN_PERP, -70_010)), market())
    assert result.components["mr9"] == pytest.approx(525)
    assert hedged_size({"USDT": 5, "USDC": -3, "USD": -4}) == 5


def test_okx_refuses_what_it_does_not_know() -> None:
    with pytest.raises(InputError, match="MR2, MR3 and MR5 of options are not published to us"):
        PLAIN["okx.pm"].margin(book((CALL, 1)), market())
    with pytest.raises(InputError, match="raw minimum charge of MR7 is not published to us; give"):
        OkxPm().margin(book((PERP, 1)), market())
    other = market(underlyings={"SOL": Underlying(spot=100)})
    with pytest.raises(InputError, match="tiers of MR7 of SOL are not published to us"):
        PLAIN["okx.pm"].margin(book((Perpetual(underlying="SOL"), 1)), other)
    told = OkxParameters(minimum_charge_rate=0.5, minimum_charge_tiers={"SOL": ((10, 1), (1_000, 3))})
    result = OkxPm(parameters=told).margin(book((Perpetual(underlying="SOL"), 1)), other)
    assert result.components["mr7"] == pytest.approx(10 + 3 * 40)
    with pytest.raises(ValidationError, match="tiers of SOL do not ascend"):
        OkxParameters(minimum_charge_tiers={"SOL": ((10, 1), (10, 3))})
    with pytest.raises(InputError, match="no borrowing rate of ETH"):
        OkxPm().margin(book((Spot(asset="ETH"), -1)), market())
    rates = OkxPm(parameters=OkxParameters(borrowing_rates={"ETH": 0.1, "cash": 0.02}))
    assert rates.margin(book((Spot(asset="ETH"), -2), cash=-100), market()).components[
        "mr8"
    ] == pytest.approx(502)


# --- baselines


def test_isolated_adds_and_cross_nets() -> None:
    held = book((PERP, 1), (FUTURE, -1))
    alone, netted = (m.margin(held, market()) for m in (Isolated(), Cross()))
    assert alone.initial_requirement == pytest.approx(0.16 * (70_010 + 70_400))
    assert netted.initial_requirement == pytest.approx(0.16 * 390)
    assert netted.worst == "spot +16 %, vol down"


def test_isolated_does_not_change_when_a_position_is_split() -> None:
    whole, split = book((CALL, -2)), book((CALL, 3), (CALL, -5))
    assert Isolated().margin(split, market()).initial_requirement == pytest.approx(
        Isolated().margin(whole, market()).initial_requirement
    )


def test_a_grid_of_your_own_replaces_the_moves() -> None:
    own = GridParameters(scenarios=(Scenario(label="gap", prices={"BTC": 0.5}, weight=0.5),))
    assert Cross(parameters=own).margin(book((PERP, 1)), market()).initial_requirement == pytest.approx(
        17_502.5
    )
    with pytest.raises(ValidationError, match="two scenarios have the label"):
        GridParameters(moves=(0.1, 0.1))


def test_stress_names_the_crashes_and_their_sizes() -> None:
    held = book((PERP, 1), (Spot(asset="ETH"), 10))
    result = Stress().margin(held, market())
    assert result.worst == "2020-03-12"
    assert result.components["2020-03-12"] == pytest.approx(70_010 * (1 - 3_900 / 7_300) + 25_000 * 0.55)
    assert result.components["2022-06-13"] == pytest.approx(70_010 * 0.16 + 25_000 * 0.2)
    assert set(result.components) == {"2020-03-12", "2021-05-19", "2022-06-13", "2025-10-10"}
    assert all(crash.source for crash in CRASHES.values())


def test_stress_moves_what_no_source_names_as_the_one_that_fell_most() -> None:
    other = market(underlyings={"XRP": Underlying(spot=1)})
    result = Stress().margin(book((Perpetual(underlying="XRP"), 100)), other)
    assert result.components["2021-05-19"] == pytest.approx(100 * (1 - 280 / 500))


def test_maintenance_is_the_share_that_is_set() -> None:
    for cls in (Isolated, Cross):
        result = cls(parameters=GridParameters(maintenance_share=0.75)).margin(book((PERP, 1)), market())
        assert result.maintenance_requirement == pytest.approx(0.75 * 0.16 * 70_010)


def test_stress_takes_shocks_of_your_own_and_refuses_unknown_names() -> None:
    own = StressParameters(crashes=(), scenarios=(Scenario(label="melt-up", every=2.0),))
    assert Stress(parameters=own).margin(book((PERP, -1)), market()).initial_requirement == pytest.approx(
        70_010
    )
    with pytest.raises(ValidationError, match="unknown crash '2020-03-11'; did you mean '2020-03-12'"):
        StressParameters(crashes=("2020-03-11",))
    with pytest.raises(ValidationError, match="a stress without shocks"):
        StressParameters(crashes=())
