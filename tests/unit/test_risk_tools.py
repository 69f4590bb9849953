"""Attribution, savings, restoring, hedging, broken hedges and add-ons: checked by hand."""

from __future__ import annotations

import math

import pytest

from contracts_abi.errors import InputError
from simulation.margin.result import MarginResult
from simulation.portfolio.market import AssetPrice
from simulation.risk.addons import AddOn, correlations_to_one, gap, liquidity, with_add_ons, wrong_way
from simulation.risk.attribution import Which, euler, incremental, leave_one_out
from simulation.risk.broken_hedge import LegOf, broken_hedges
from simulation.risk.hedge import Band, Candidate, collar, hedge, rebalance
from simulation.risk.restore import restore
from simulation.risk.savings import savings
from simulation.types import MarginStatus
from tests.margin_scan import (
    MONTH,
    QUARTER,
    Refusing,
    Scan,
    ScanParameters,
    account,
    market,
    named,
    option,
    perpetual,
    token,
)

SCAN = Scan()
HEDGED = account(perpetual(10.0), perpetual(-4.0, at="other"), perpetual(0.0, "BTC"), cash=5_000.0)
"""Ten less four at 3000: 16 % of 18,000 is 2,880."""


# ----------------------------------------------------------------------------------------------- attribution


def test_three_ways_to_share_a_requirement() -> None:
    shared = euler(SCAN, HEDGED, market())
    assert shared.requirement == pytest.approx(2880.0)
    assert [c.amount for c in shared.contributions] == pytest.approx([4800.0, -1920.0, 0.0], abs=1e-6)
    assert shared.rest == pytest.approx(0.0, abs=1e-6)
    steps = incremental(SCAN, HEDGED, market())
    assert [c.amount for c in steps.contributions] == pytest.approx([4800.0, -1920.0, 0.0])
    left_out = leave_one_out(SCAN, HEDGED, market())
    # Without the ten, four short lose 1,920: the requirement falls by 960 only.
    assert [c.amount for c in left_out.contributions] == pytest.approx([960.0, -1920.0, 0.0])
    assert left_out.rest == pytest.approx(3840.0)
    assert [c.label for c in shared.contributions][1] == "ETH perpetual at other"


def test_attribution_of_the_initial_requirement() -> None:
    lower = Scan(ScanParameters(maintenance_share=0.5))
    assert euler(lower, HEDGED, market(), Which.INITIAL).requirement == pytest.approx(2880.0)
    assert euler(lower, HEDGED, market()).requirement == pytest.approx(1440.0)


def test_an_unknown_margin_has_no_parts() -> None:
    unknown = account(perpetual(1.0, "SOL"))
    with pytest.raises(InputError, match="the margin of a is unknown: no price of SOL"):
        euler(SCAN, unknown, market())


def test_savings_are_against_each_instrument_alone() -> None:
    held = account(perpetual(10.0), option(10.0, 3000, call=False), cash=5_000.0)
    found = savings(SCAN, held, market())
    alone = sum(SCAN.margin(account(p), market()).maintenance_requirement for p in held.positions)
    assert found.isolated == pytest.approx(alone)
    assert found.requirement == pytest.approx(SCAN.margin(held, market()).maintenance_requirement)
    assert 0 < found.share < 1
    assert found.saved == pytest.approx(found.isolated - found.requirement)
    # Splitting a position saves nothing.
    split = account(perpetual(10.0), perpetual(-4.0))
    assert savings(SCAN, split, market()).saved == pytest.approx(0.0, abs=1e-9)
    assert savings(SCAN, account(), market()).share == 0.0


# ---------------------------------------------------------------------------------------------------- restore


def test_the_smallest_close_restores_a_long() -> None:
    """4,000 of cash carry 25,000 dollars of perpetual: 30,000 less 5,000, which are 1.6667 ether."""
    held = account(perpetual(10.0), cash=4_000.0)
    found = restore(SCAN, held, market())
    assert found.deposit == pytest.approx(800.0)
    (trade,) = found.trades
    assert trade.position.quantity == pytest.approx(-5 / 3, rel=1e-10)
    assert trade.notional == pytest.approx(5000.0)
    assert trade.after.maintenance == pytest.approx(0, abs=1e-6)
    assert trade.after.maintenance >= 0
    # With a fee of 1 % of the notional n: 4,000 - 0.01 n = 0.16 (30,000 - n).
    (dear,) = restore(SCAN, held, market(), fee=0.01).trades
    assert dear.notional == pytest.approx(800 / 0.15, rel=1e-9)


def test_candidates_restore_too_and_the_smallest_is_first() -> None:
    held = account(perpetual(10.0), cash=4_000.0)
    found = restore(SCAN, held, market(), candidates=[(named(3000, call=False), None)])
    assert [t.label for t in found.trades] == ["ETH perpetual", "ETH 2027-02-14 3000 put"]
    assert all(t.after.maintenance >= 0 for t in found.trades)
    assert found.trades[0].notional < found.trades[1].notional


def test_nothing_is_traded_where_nothing_is_missing() -> None:
    found = restore(SCAN, account(perpetual(1.0), cash=4_000.0), market())
    assert (found.deposit, found.trades) == (0.0, ())
    # Cash that is owed is restored by no trade.
    debt = restore(SCAN, account(cash=-10.0), market(), candidates=[(named(3000, call=True), None)])
    assert (debt.deposit, debt.trades) == (10.0, ())
    with pytest.raises(InputError, match="fee of -1"):
        restore(SCAN, account(cash=-1.0), market(), fee=-1)


# ------------------------------------------------------------------------------------------------------ hedge


def test_the_cheapest_hedge_is_a_smaller_position() -> None:
    """As the smallest close, where a unit costs 3 dollars: 4,000 - 3 x = 480 (10 - x), x = 800 / 477."""
    held = account(perpetual(10.0), cash=4_000.0)
    cheap = Candidate(perpetual(1.0).instrument, buy=3.0, sell=3.0)
    found = hedge(SCAN, held, market(), [cheap, Candidate(named(3000, call=False), buy=40.0, sell=40.0)])
    assert found.found
    assert found.quantities == pytest.approx((-800 / 477, 0.0), rel=1e-6, abs=1e-9)
    assert found.cost == pytest.approx(3 * 800 / 477, rel=1e-6)
    assert found.result is not None
    assert found.result.maintenance >= 0


def test_a_hedge_of_options_when_they_are_cheaper() -> None:
    held = account(perpetual(10.0), cash=4_000.0)
    dear = Candidate(perpetual(1.0).instrument, buy=300.0, sell=300.0)
    found = hedge(SCAN, held, market(), [dear, Candidate(named(3000, call=False), buy=1.0, sell=1.0)])
    assert found.quantities[0] == pytest.approx(0.0, abs=1e-9)
    assert found.quantities[1] > 0
    assert found.result is not None
    assert found.result.maintenance >= 0


def test_hedges_that_are_none() -> None:
    held = account(perpetual(10.0), cash=4_000.0)
    bounded = Candidate(perpetual(1.0).instrument, most_sold=1.0)
    found = hedge(SCAN, held, market(), [bounded])
    assert not found.found
    assert found.reason == "no trades in these instruments were found that restore the margin"
    assert found.after == held
    assert hedge(SCAN, account(cash=1.0), market(), [bounded]).quantities == (0.0,)
    with pytest.raises(InputError, match="hedge of nothing"):
        hedge(SCAN, held, market(), [])
    with pytest.raises(InputError, match="sell = -1"):
        Candidate(perpetual(1.0).instrument, sell=-1.0)
    with pytest.raises(InputError, match="refusing knows nothing"):
        hedge(Refusing(), held, market(), [bounded])


def test_a_collar_bounds_the_loss_at_expiry() -> None:
    """Ten ether, puts at 2,700 to buy, calls at 3,300 to sell: nowhere is more lost than allowed."""
    held = account(token(10.0))
    puts, calls = [Candidate(named(2700, call=False))], [Candidate(named(3300, call=True))]
    found = collar(held, market(), puts, calls, max_loss=3_500.0, units=10.0)
    assert found.found
    bought, sold = found.quantities
    assert 0 < bought <= 10.0
    assert -10.0 <= sold < 0
    settled = []
    for price in (0.001, 1500.0, 2700.0, 3000.0, 3300.0, 6000.0, 12_000.0):
        payoff = bought * max(0.0, 2700 - price) + sold * max(0.0, price - 3300)
        settled.append(10 * (price - 3000) + payoff - found.cost)
    assert min(settled) >= -3_500.0 - 1e-6
    # Selling calls as well is cheaper than the puts alone, and the puts alone lose 3,000 and their premium.
    alone = collar(held, market(), puts, [], max_loss=3_500.0, units=10.0)
    assert not alone.found or alone.cost > found.cost


def test_a_collar_takes_no_other_options() -> None:
    held = account(token(10.0))
    put, call = Candidate(named(2700, call=False)), Candidate(named(3300, call=True, expiry=QUARTER))
    with pytest.raises(InputError, match="2 expiries"):
        collar(held, market(), [put], [call], max_loss=1.0, units=1.0)
    with pytest.raises(InputError, match="stands among the puts"):
        collar(held, market(), [call], [], max_loss=1.0, units=1.0)
    with pytest.raises(InputError, match="max_loss"):
        collar(held, market(), [put], [], max_loss=math.nan, units=1.0)
    none = collar(held, market(), [put], [], max_loss=10.0, units=10.0)
    assert (none.found, none.after) == (False, held)
    assert "no collar of 10 units" in none.reason


def test_back_into_a_band_of_delta() -> None:
    held = account(perpetual(10.0))
    found = rebalance(
        held, market(), "ETH", [Candidate(perpetual(1.0).instrument, buy=2, sell=2)], delta=Band(-1, 2)
    )
    assert found.quantities == pytest.approx((-8.0,))
    assert found.cost == pytest.approx(16.0)
    assert found.delta == pytest.approx((10.0, 2.0))
    inside = rebalance(held, market(), "ETH", [Candidate(perpetual(1.0).instrument)], delta=Band(9, 11))
    assert inside.quantities == pytest.approx((0.0,))


def test_back_into_bands_of_delta_and_vega() -> None:
    held = account(option(-10.0, 3000, call=True))
    tools = [
        Candidate(perpetual(1.0).instrument, 1.0, 0.1, 0.1),
        Candidate(named(3200, call=True), None, 1, 1),
    ]
    found = rebalance(held, market(), "ETH", tools, delta=Band(-0.1, 0.1), vega=Band(-100.0, 100.0))
    assert found.found
    assert abs(found.delta[1]) <= 0.1 + 1e-9
    assert abs(found.vega[1]) <= 100 + 1e-6
    assert found.vega[0] < -1000
    never = rebalance(held, market(), "ETH", tools[:1], vega=Band(0.0, 1.0))
    assert (never.found, never.reason) == (False, "no trades reach the band")
    with pytest.raises(InputError, match="without a band"):
        rebalance(held, market(), "ETH", tools)
    with pytest.raises(InputError, match="moves no Greek of BTC"):
        rebalance(held, market(), "BTC", tools, delta=Band(0, 1))
    with pytest.raises(InputError, match="exchange them"):
        Band(1, 0)


# ---------------------------------------------------------------------------------------------- broken hedges


def test_the_leg_that_takes_the_rest() -> None:
    held = account(
        perpetual(10.0, unrealised=-4_000.0), perpetual(-10.0, at="b", unrealised=4_000.0), cash=3_000.0
    )
    first, second = broken_hedges(SCAN, held, market(), penalty=0.05)
    # Without the winning leg what it owes us is gone: 3,000 - 4,000 - 0.16 * 30,000.
    assert first.label == "ETH perpetual at b"
    assert first.defaulted == pytest.approx(-5_800.0)
    # Closed at the mark it pays, less 5 % of 30,000: 3,000 + 4,000 - 1,500 - 4,000 - 4,800.
    assert first.liquidated == pytest.approx(-3_300.0)
    assert first.takes_the_rest
    # The losing leg is owed all the same: 3,000 - 4,000 + 4,000 - 4,800, less the penalty when liquidated.
    assert second.defaulted == pytest.approx(-1_800.0)
    assert second.left == pytest.approx(-3_300.0)
    by_protocol = broken_hedges(SCAN, held, market(), leg_of=LegOf.PROTOCOL)
    assert {leg.label for leg in by_protocol} == {"b", "no protocol"}
    with pytest.raises(InputError, match="penalty of 2"):
        broken_hedges(SCAN, held, market(), penalty=2)


# ---------------------------------------------------------------------------------------------------- add-ons


def test_add_ons_stand_on_top() -> None:
    result = SCAN.margin(account(perpetual(10.0), cash=5_000.0), market())
    more = with_add_ons(result, [AddOn("x", 100.0, "why"), AddOn("y", 200.0, "why")])
    assert more.maintenance_requirement == pytest.approx(5_100.0)
    assert more.initial_requirement == pytest.approx(5_100.0)
    assert more.status is MarginStatus.LIQUIDATABLE
    assert (more.components["x"], more.components["scan_risk"]) == (100.0, result.components["scan_risk"])
    unknown = MarginResult.unknown("a", "scan", "", "no price")
    assert with_add_ons(unknown, [AddOn("x", 1.0, "")]) is unknown
    for bad in (AddOn("x", -1.0, ""), AddOn("x", math.nan, ""), AddOn("scan_risk", 1.0, "")):
        with pytest.raises(InputError):
            with_add_ons(result, [bad])


def test_liquidity_grows_faster_than_the_position() -> None:
    """3,000,000 dollars of a volume of 12,000,000: 0.1 * 3,000,000 * 0.5."""
    volume = {"ETH": 12e6}
    one = liquidity(account(perpetual(1_000.0)), market(), volume)
    assert one.amount == pytest.approx(150_000.0)
    two = liquidity(account(perpetual(-2_000.0)), market(), volume)
    assert two.amount == pytest.approx(150_000.0 * 2**1.5)
    assert liquidity(account(perpetual(1_000.0)), market(), volume, free_share=0.25).amount == 0
    with pytest.raises(InputError, match="no daily volume of ETH"):
        liquidity(account(perpetual(1.0)), market(), {})


def test_correlations_to_one_take_the_hedge_between_underlyings_away() -> None:
    """Ten ether against a third of a bitcoin: 30,000 each way; only one side loses, 16 % of it."""
    held = account(perpetual(10.0), perpetual(-1 / 3, "BTC"))
    required = SCAN.margin(held, market()).maintenance_requirement
    assert required == pytest.approx(0, abs=1e-9)
    assert correlations_to_one(held, market(), required).amount == pytest.approx(4_800.0)
    assert correlations_to_one(held, market(), 10_000.0).amount == 0
    both = account(perpetual(10.0), perpetual(1 / 3, "BTC"))
    assert correlations_to_one(both, market(), 0.0).amount == pytest.approx(9_600.0)


def test_a_gap_is_what_the_requirement_leaves_out() -> None:
    held = account(perpetual(10.0), perpetual(-1 / 3, "BTC"))
    # Either alone jumps by half: 15,000.
    assert gap(held, market(), 5_000.0).amount == pytest.approx(10_000.0)
    assert gap(account(cash=1.0), market(), 0.0).amount == 0
    with pytest.raises(InputError, match="leaves no price"):
        gap(held, market(), 0.0, jumps=[-1.0])


def test_collateral_that_falls_with_the_position() -> None:
    priced = market().model_copy(update={"assets": {"wstETH": AssetPrice(price=3600.0)}})
    long = account(perpetual(10.0), token(5.0, "wstETH"), token(2.0))
    # 30 % of 18,000, and of 6,000 of ether itself.
    assert wrong_way(long, priced, {"wstETH": 1.0}).amount == pytest.approx(5_400.0 + 1_800.0)
    assert wrong_way(long, priced, {"wstETH": 1.0, "ETH": 0.0}).amount == pytest.approx(5_400.0)
    # A short loses when the price rises, and then the collateral gains.
    assert wrong_way(account(perpetual(-10.0), token(5.0, "wstETH")), priced, {"wstETH": 1.0}).amount == 0
    assert wrong_way(account(token(5.0)), priced, {}).amount == 0


def test_shares_of_add_ons_are_shares() -> None:
    held = account(perpetual(1.0))
    for bad in (
        lambda: wrong_way(held, market(), {}, shock=1.0),
        lambda: correlations_to_one(held, market(), 0.0, move=0.0),
        lambda: liquidity(held, market(), {"ETH": 1.0}, impact=-1.0),
    ):
        with pytest.raises(InputError):
            bad()


def test_expiries_of_the_helpers() -> None:
    assert MONTH < QUARTER
