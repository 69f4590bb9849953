"""Moves of the world, distances, surfaces and what-if: checked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from contracts_abi.errors import InputError
from simulation.margin.scenario_grid import Scenario, scenario_set, value_under
from simulation.portfolio.instruments import Future, Option, Perpetual, Portfolio, Position
from simulation.portfolio.market import Expiry, Market, Svi, Underlying
from simulation.pricing.svi import volatility
from simulation.risk.distance import Distance, distances, first_below
from simulation.risk.greeks import greeks_by, greeks_by_position, total
from simulation.risk.moves import Factor, FactorKind, Move, after_move, combined, factors_of, label_of, scaled
from simulation.risk.surface import Axis, even, surface
from simulation.risk.whatif import Order, after_moves, after_orders, with_orders
from tests.margin_scan import (
    MONTH,
    NOW,
    QUARTER,
    Refusing,
    Scan,
    account,
    future,
    market,
    option,
    perpetual,
    token,
)

SCAN = Scan()
ETH = Factor(FactorKind.PRICE, "ETH")


# ----------------------------------------------------------------------------------------------------- moves


def test_a_price_move_reaches_everything_of_its_symbol() -> None:
    before = account(perpetual(2.0, unrealised=5.0), token(3.0), future(-1.0), option(1.0, 3000, call=True))
    after, moved = after_move(before, market(), Move(prices={"ETH": 0.9}))
    assert moved.underlyings["ETH"].spot == pytest.approx(2700)
    assert moved.underlyings["ETH"].expiries[MONTH].forward == pytest.approx(2700)
    assert moved.underlyings["BTC"] == market().underlyings["BTC"]
    # 5 and twice -300; minus once -300.
    assert [p.unrealised for p in after.positions] == pytest.approx([-595.0, 0.0, 300.0, 0.0])
    scenario = scenario_set([Scenario(label="down", prices={"ETH": 0.9})])
    then = value_under(before, market(), scenario)[0]
    now = value_under(after, moved, scenario_set([Scenario(label="now")]))[0]
    np.testing.assert_allclose(now, then, rtol=1e-13)


def test_volatilities_stay_with_their_strike() -> None:
    smile = Svi(a=0.01, b=0.1, rho=-0.3, m=0.0, sigma=0.2, forward=3000, tau=0.1)
    for strike in (2500.0, 3000.0, 3600.0):
        assert volatility(scaled(smile, 1.5), strike) == pytest.approx(1.5 * volatility(smile, strike))
    own = option(1.0, 3000, call=True).model_copy(update={"volatility": 0.4})
    after, moved = after_move(account(own), market(), Move(volatility=0.5))
    assert after.positions[0].volatility == pytest.approx(0.2)
    assert moved.underlyings["ETH"].expiries[MONTH].volatility == pytest.approx(0.3)


def test_what_expires_is_settled_in_cash() -> None:
    before = account(
        option(-2.0, 2800, call=True), option(1.0, 2800, call=False), future(1.0), option(1, 2800, call=True,
        expiry=QUARTER), cash=100.0,
    )  # fmt: skip
    after, moved = after_move(before, market(), Move(prices={"ETH": 1.1}, seconds=MONTH - NOW))
    assert moved.timestamp == MONTH
    assert set(moved.underlyings["ETH"].expiries) == {QUARTER}
    # Two calls of 500 each are paid, and the future has gained 300.
    assert after.cash == pytest.approx(100.0 - 1000.0 + 300.0)
    assert [p.instrument for p in after.positions] == [before.positions[3].instrument]


def test_moves_combine_and_stable_coins_stay() -> None:
    both = combined(Move(prices={"ETH": 0.5}, volatility=2.0), Move(every=0.8, seconds=60))
    assert both.factor("ETH") == pytest.approx(0.4)
    assert both.factor("BTC") == pytest.approx(0.8)
    assert both.factor("USDC") == 1.0
    assert (both.volatility, both.seconds) == (2.0, 60)


@pytest.mark.parametrize("text", ["price:ETH", "prices", "volatility", "time"])
def test_factors_are_read_as_they_are_written(text: str) -> None:
    assert str(Factor.parsed(text)) == text


@pytest.mark.parametrize("text", ["", "price", "prices:ETH", "rate"])
def test_other_factors_are_refused(text: str) -> None:
    with pytest.raises(InputError):
        Factor.parsed(text)


def test_moves_that_leave_no_price_are_refused() -> None:
    with pytest.raises(InputError, match="multiplies ETH by 0"):
        Move(prices={"ETH": 0.0})
    with pytest.raises(InputError, match="time only passes"):
        Move(seconds=-1)


def test_factors_of_an_account() -> None:
    assert [str(f) for f in factors_of(account(perpetual(1.0)))] == ["price:ETH"]
    mixed = account(perpetual(1.0), perpetual(1.0, "BTC"), option(1, 3000, call=True), token(5, "USDC"))
    assert [str(f) for f in factors_of(mixed)] == [
        "price:ETH", "price:BTC", "price:USDC", "prices", "volatility", "time",
    ]  # fmt: skip


# -------------------------------------------------------------------------------------------------- distance


def test_distance_of_a_long_perpetual() -> None:
    """10,000 - 30,000 (1 - f) = 0.16 * 30,000 f, so f = 20,000 / 25,200."""
    held = account(perpetual(10.0), cash=10_000.0)
    down, up = distances(SCAN, held, market())
    assert down.move == pytest.approx(20_000 / 25_200 - 1, abs=1e-11)
    assert down.text == "-20.63 %"
    assert not up.reached
    assert up.text == "never within +99 %"
    after, moved = after_move(held, market(), ETH.move(down.move))
    assert SCAN.margin(after, moved).maintenance == pytest.approx(0, abs=1e-6)
    assert SCAN.margin(after, moved).maintenance < 0


def test_a_distance_that_rounding_left_is_0() -> None:
    assert Distance(ETH, False, -5.6e-17, 0.99).text == "0 %"
    assert Distance(ETH, True, 2e-12, 0.99).text == "+2e-10 %"
    assert Distance(ETH, False, 0.0, 0.99).text == "liquidatable now"


def test_distance_in_time_is_the_second_of_the_expiry() -> None:
    """A long put pays for a short position until it has expired."""
    held = account(perpetual(10.0), option(10.0, 3000, call=False), cash=4000.0)
    (time,) = distances(SCAN, held, market(), factors=[Factor(FactorKind.TIME)])
    assert time.move == MONTH - NOW
    assert time.text == "after 30 days"
    (never,) = distances(SCAN, account(future(1.0), cash=9000.0), market(), factors=[Factor(FactorKind.TIME)])
    assert never.text == "never within 30 days"


def test_who_is_liquidatable_already_is_at_distance_0() -> None:
    assert {d.text for d in distances(SCAN, account(perpetual(10.0), cash=100.0), market())} == {
        "liquidatable now"
    }


def test_volatility_brings_a_short_strangle_down() -> None:
    held = account(option(-10.0, 2500, call=False), option(-10.0, 3500, call=True), cash=6_000.0)
    found = {(str(d.factor), d.up): d for d in distances(SCAN, held, market())}
    move = found["volatility", True].move
    assert 0 < move < 0.99
    after, moved = after_move(held, market(), Move(volatility=1 + move))
    assert SCAN.margin(after, moved).maintenance == pytest.approx(0, abs=1e-5)
    assert not found["volatility", False].reached


def test_a_refusing_method_has_no_distance() -> None:
    with pytest.raises(InputError, match="refusing knows nothing"):
        distances(Refusing(), account(perpetual(1.0)), market())


def test_first_below() -> None:
    assert first_below(lambda x: 1 - x, [0, 0.5, 2]) == pytest.approx(1.0, abs=1e-11)
    assert first_below(lambda x: 10.5 - x, [0, 4, 20], whole=True) == 11
    assert first_below(lambda x: -1.0, [0, 1]) == 0
    assert math.isnan(first_below(lambda x: 1.0, [0, 1]))


# ------------------------------------------------------------------------------------------ surface, what-if


def test_a_surface_and_its_edge() -> None:
    held = account(perpetual(10.0), cash=10_000.0)
    found = surface(SCAN, held, market(), even(ETH, -0.3, 0.3, 7), Axis(Factor(FactorKind.TIME), (0.0, 60.0)))
    assert found.left.shape == (2, 7)
    # At -10 %: 10,000 - 3,000 less 0.16 * 27,000.
    assert found.left[0, 2] == pytest.approx(7000 - 4320)
    assert found.liquidatable.tolist() == [[True] + [False] * 6] * 2
    # The margin is a straight line of the price.
    assert found.edges() == (
        pytest.approx((20_000 / 25_200 - 1, 0.0)),
        pytest.approx((20_000 / 25_200 - 1, 60)),
    )
    with pytest.raises(InputError, match="both axes are price:ETH"):
        surface(SCAN, held, market(), even(ETH, 0, 1, 2), even(ETH, 0, 1, 2))
    with pytest.raises(InputError, match="do not ascend"):
        Axis(ETH, (0.1, 0.1))


def test_incremental_margin_of_an_order() -> None:
    held = account(perpetual(10.0), cash=10_000.0)
    worse = after_orders(SCAN, held, market(), [Order(perpetual(5.0), price=3010.0, fee=3.0)])
    assert worse.initial_margin == pytest.approx(0.16 * 15_000)
    assert worse.equity == pytest.approx(-53.0)
    hedged = after_orders(SCAN, held, market(), [Order(perpetual(-10.0))])
    assert hedged.maintenance_margin == pytest.approx(-4800.0)
    assert hedged.equity == 0
    assert hedged.allowed
    assert not after_orders(SCAN, held, market(), [Order(perpetual(30.0))]).allowed


def test_a_premium_is_paid_and_is_worth_what_it_cost() -> None:
    held = account(cash=5000.0)
    bought = with_orders(held, market(), [Order(option(2.0, 3000, call=True))])
    premium = float(value_under(account(option(2.0, 3000, call=True)), market(), scenario_set(
        [Scenario(label="now")]))[0, 0])  # fmt: skip
    assert bought.cash == pytest.approx(5000.0 - premium)
    assert SCAN.margin(bought, market()).equity == pytest.approx(5000.0)
    dear = with_orders(held, market(), [Order(option(2.0, 3000, call=True), price=500.0)])
    assert dear.cash == pytest.approx(4000.0)


def test_an_inverse_order_gains_coins() -> None:
    inverse = Position(instrument=Perpetual(underlying="ETH", inverse=True), quantity=3000.0)
    held = with_orders(account(cash=0.0), market(), [Order(inverse, price=2500.0)])
    # 3000 / 2500 - 3000 / 3000 = 0.2 ether.
    assert held.positions[0].unrealised == pytest.approx(600.0)


def test_what_if_the_market_moves() -> None:
    held = account(perpetual(10.0), cash=10_000.0)
    (down, up) = after_moves(SCAN, held, market(), [Move(every=0.9), Move(every=1.1)])
    assert (down.equity, up.equity) == pytest.approx((-3000.0, 3000.0))
    assert down.maintenance_margin == pytest.approx(-480.0)


@pytest.mark.parametrize("order", [{"price": math.nan}, {"fee": math.inf}])
def test_orders_without_a_number_are_refused(order: dict[str, float]) -> None:
    with pytest.raises(InputError):
        Order(perpetual(1.0), **order)


# ---------------------------------------------------------------------------------------------------- Greeks


def test_greeks_are_the_slopes_of_values() -> None:
    """Every kind against differences of `value_under`, when all prices move together."""
    own = Market(
        timestamp=NOW,
        underlyings={
            "ETH": Underlying(
                spot=3000.0,
                perpetual=3010.0,
                expiries={MONTH: Expiry(forward=3050.0, rate=0.05, volatility=0.6)},
            )
        },
    )
    held = (
        token(2.0),
        perpetual(-1.5),
        future(3.0),
        option(2.0, 3200, call=True),
        Position(
            instrument=Option(underlying="ETH", expiry=MONTH, strike=2900, call=False, inverse=True),
            quantity=-2.0,
        ),
        Position(instrument=Perpetual(underlying="ETH", inverse=True), quantity=9000.0, unrealised=120.0),
        Position(instrument=Future(underlying="ETH", expiry=MONTH, inverse=True), quantity=-9000.0),
    )
    forwards = [3000, 3010, 3050, 3050, 3050, 3000, 3000]
    book = account(*held)
    step = 1e-4
    up, now, down = value_under(book, own, scenario_set(
        [Scenario(label=str(x), every=x) for x in (1 + step, 1.0, 1 - step)]
    ))  # fmt: skip
    found = greeks_by_position(book, own)
    widths = np.array(forwards) * step
    np.testing.assert_allclose([g.delta for g in found], (up - down) / (2 * widths), rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(
        [g.gamma for g in found], (up - 2 * now + down) / widths**2, rtol=1e-4, atol=1e-6
    )


def test_greeks_by_underlying_and_expiry() -> None:
    book = account(
        option(1.0, 3000, call=True, expiry=QUARTER), perpetual(2.0), option(1.0, 3000, call=True), token(1.0)
    )
    rows = greeks_by(book, market())
    assert [(r.underlying, r.expiry) for r in rows] == [("ETH", None), ("ETH", MONTH), ("ETH", QUARTER)]
    assert rows[0].greeks.delta == 3.0
    # At the money, F = K: N(v / 2) with v = 0.6 sqrt(30 / 365).
    v = 0.6 * math.sqrt(30 / 365)
    assert rows[1].greeks.delta == pytest.approx(0.5 * (1 + math.erf(v / 2 / math.sqrt(2))), rel=1e-12)
    assert total(r.greeks for r in rows).delta == pytest.approx(sum(r.greeks.delta for r in rows))
    assert greeks_by(Portfolio(), market()) == ()


def test_labels() -> None:
    assert label_of(option(1, 3400, call=True)) == "ETH 2027-02-14 3400 call"
    assert label_of(perpetual(1, at="derive")) == "ETH perpetual at derive"
