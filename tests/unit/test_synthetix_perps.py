"""Synthetix perps by hand, and against the figures that the contracts' own tests state.

Figures from Synthetixio/synthetix-v3, markets/perps-market/test/integration, are named by their file.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from contracts_abi.errors import InputError
from simulation.protocols.synthetix_perps import (
    SNX_USD,
    CollateralType,
    InterestRate,
    KeeperCosts,
    KeeperGuards,
    PerpsAccount,
    PerpsMarket,
    PerpsVenue,
    Position,
    SynthetixPerps,
    SynthetixRevert,
    available_margin,
    current_funding_rate,
    current_funding_velocity,
    current_liquidation_capacity,
    fill_price,
    liquidate,
    liquidate_margin_only,
    liquidation_test,
    market_debt,
    max_liquidation_amount_in_window,
    order_fee,
    required_margins,
    settle_order,
    withdrawable_margin,
)
from simulation.protocols.synthetix_perps.decimal_math import ceil_divide, div_decimal, mul_decimal, same_side
from simulation.protocols.synthetix_perps.perps_account import (
    charge,
    collateral_value,
    keeper_reward,
    margin_liquidation_test,
    position_pnl,
)
from simulation.protocols.synthetix_perps.perps_market import (
    calculate_next_interest,
    current_interest_rate,
    number_of_liquidation_windows,
    update_interest,
    validate_position_size,
)
from simulation.types import MarginStatus
from tests.perps_states import DAY, NOW, configuration, depositor, venue, wad


def at(state: PerpsVenue, seconds: float, **prices: float) -> PerpsVenue:
    """Return the venue so long after `NOW`, at other prices of ``m1``, ``m2``, ..."""
    given = {int(name[1:]): wad(price) for name, price in prices.items()}
    return replace(state, timestamp=NOW + round(seconds), prices_wad={**state.prices_wad, **given})


def trade(
    state: PerpsVenue, account: PerpsAccount, market: int, size: float
) -> tuple[PerpsVenue, PerpsAccount]:
    """Return venue and account after an order at the index price."""
    state, account, _ = settle_order(state, account, market, wad(size))
    return state, account


# ------------------------------------------------------------------------------------------------ arithmetic


@pytest.mark.parametrize(
    ("x", "y", "product"), [(1, 1, 0), (-1, 1, 0), (-3, wad("0.5"), -1), (3, wad("0.5"), 1)]
)
def test_products_are_cut_towards_zero(x: int, y: int, product: int) -> None:
    assert mul_decimal(x, y) == product


def test_quotients_are_cut_towards_zero() -> None:
    assert div_decimal(-1, 3 * 10**18) == 0
    assert div_decimal(-2, 3) == -666_666_666_666_666_666
    assert (ceil_divide(201, 100), ceil_divide(200, 100), ceil_divide(5, 0)) == (3, 2, 0)
    assert same_side(0, -1)
    assert not same_side(1, -1)


# --------------------------------------------------------------------------------------------------- funding


# Days elapsed, order, skew and daily rate after it, what 20 units have paid (Position/Funding.test.ts).
FUNDING = [
    (1, -60, -40, "0.006", "120"),
    (1, 15, -25, "-0.006", "120"),
    (0.25, 37, 12, "-0.007875", "50.625"),
    (2, -17, -5, "-0.000675", "-291.375"),
    (0.2, 155, 150, "-0.000975", "-297.975"),
    (0.1, -150, 0, "0.003525", "-292.875"),
    (0.1, -15, -15, "0.003525", "-278.775"),
    (0.03, -4, -19, "0.00339", "-274.626"),
    (3, 19, 0, "-0.01371", "-893.826"),
]


def test_funding_over_seven_days_as_the_authors_tabulate_it() -> None:
    free = configuration(
        skew_scale=10_000, max_funding_velocity=3, flag_reward_ratio=0, initial_margin_ratio=0
    )
    state = venue((free, 2_000))
    # The authors' order of the first position; a premium would move entries and not the funding.
    state, holder = trade(state, depositor(50_000, "holder"), 1, 20)
    assert current_funding_velocity(state.markets[1]) == wad("0.006")
    mover, elapsed = depositor(1_000_000, "mover"), 0.0
    for days, order, skew, rate, paid in FUNDING:
        elapsed += days
        state = at(state, elapsed * DAY)
        state, mover = trade(state, mover, 1, order)
        assert state.markets[1].skew_wad == wad(skew)
        assert current_funding_rate(state.markets[1], state.timestamp) == pytest.approx(wad(rate), abs=2)
        found = position_pnl(state, holder.position(1), wad(2_000)).funding_wad
        assert found == pytest.approx(-wad(paid), abs=10**6)


def test_velocity_is_bounded_by_a_whole_scale_of_skew() -> None:
    market = PerpsMarket(1, configuration(skew_scale=10, max_funding_velocity=3), skew_wad=wad(25))
    assert current_funding_velocity(market) == wad(3)
    assert current_funding_velocity(replace(market, skew_wad=wad(-25))) == -wad(3)
    assert current_funding_velocity(replace(market, configuration=configuration(skew_scale=0))) == 0


# ------------------------------------------------------------------------------------------- orders and fees


def test_fill_price_is_the_mean_of_the_premia_before_and_after() -> None:
    # Orders/OffchainAsyncOrder.price.test.ts: one unit of a scale of 100,000 at 1,000
    assert fill_price(0, wad(100_000), wad(1), wad(1_000)) == wad("1000.005")
    assert fill_price(0, wad(100_000), wad(-1), wad(1_000)) == wad("999.995")
    # a skew of 100 of 1,000 is 10 %, of 150 is 15 %: 12.5 % between
    assert fill_price(wad(100), wad(1_000), wad(50), wad(10)) == wad("11.25")
    assert fill_price(wad(100), wad(1_000), wad(-200), wad(10)) == wad(10)
    assert fill_price(wad(5), 0, wad(1), wad(7)) == wad(7)
    with pytest.raises(SynthetixRevert, match="discount"):
        fill_price(wad(-30), wad(10), wad(-1), wad(7))


@pytest.mark.parametrize(
    ("size", "skew", "fee"),
    [
        pytest.param(1, 0, "0.8", id="opens the skew: taker"),
        pytest.param(1, 5, "0.8", id="widens it: taker"),
        pytest.param(-1, 5, "0.3", id="narrows it: maker"),
        pytest.param(-5, 5, "1.5", id="closes it: maker"),
        pytest.param(-7, 5, "3.1", id="goes through: five made, two taken"),
        pytest.param(7, -5, "3.1", id="and from below"),
    ],
)
def test_fees_of_makers_and_takers(size: float, skew: float, fee: str) -> None:
    assert order_fee(wad(size), wad(1_000), wad(skew), wad("0.0003"), wad("0.0008")) == wad(fee)


def margins_venue() -> tuple[PerpsVenue, PerpsAccount]:
    """Return the two positions of Account/Margins.test.ts."""
    btc = configuration(skew_scale=100, minimum_position_margin=1_000)
    eth = configuration(skew_scale=1_000, minimum_position_margin=500)
    state = venue((btc, 30_000), (eth, 2_000))
    state, account = trade(state, depositor(100_000), 1, -2)
    return trade(state, account, 2, 20)


def test_margins_as_the_authors_compute_them() -> None:
    state, account = margins_venue()
    test = liquidation_test(state, account)
    # both filled 1 % of skew away from the index: 2 * 300 and 20 * 20 dollars
    assert test.available_margin_wad == wad(100_000 - 600 - 400)
    # ratio 2 / 100 * 2 + 1 % = 5 % of 60,000 and of 40,000, and 1,500
    assert test.initial_margin_wad == wad(3_000 + 2_000 + 1_500)
    assert test.maintenance_margin_wad == wad(1_500 + 1_000 + 1_500)
    assert test.liquidation_reward_wad == wad(5_000)
    assert withdrawable_margin(state, account) == wad(99_000 - 6_500 - 5_000)
    assert not test.eligible


def test_required_margins_of_one_position_by_hand() -> None:
    rules = configuration(minimum_position_margin=50)
    # 0.1 of the scale: 20 % + 1 % of 1,000 dollars, and half of that
    assert required_margins(rules, wad(-100), wad(10)) == (wad(260), wad(155))
    assert required_margins(rules, 0, wad(10)) == (0, 0)
    assert required_margins(configuration(skew_scale=0), wad(100), wad(10)) == (wad(10), wad(5))


def five_markets() -> tuple[PerpsVenue, PerpsAccount]:
    """Return the five positions of Liquidation/Liquidation.margin.test.ts."""
    alt: dict[str, Any] = {"initial_margin_ratio": "1.5", "minimum_initial_margin_ratio": "0.035"}
    state = venue(
        (configuration(skew_scale=100), 30_000),
        (configuration(skew_scale=1_000), 2_000),
        (configuration(skew_scale=100_000), 5),
        (configuration(skew_scale=100_000, **alt), 2),
        (configuration(skew_scale=100_000, **alt), 2),
    )
    account = depositor(20_000)
    for market, size in enumerate((-1, 20, 2_000, 5_000, 5_000), 1):
        state, account = trade(state, account, market, size)
    return state, account


def test_profits_of_five_positions_as_the_authors_state_them() -> None:
    state, account = five_markets()

    def profits(now: PerpsVenue) -> list[int]:
        return [position_pnl(now, p, now.price(p.market_id)).total_wad for p in account.positions]

    assert profits(state) == [wad(p) for p in (-150, -400, -100, -250, -250)]
    assert available_margin(state, account) == wad(18_850)
    later = at(state, 0, m1=28_000, m2=1_900, m3=4.6, m4=1.9, m5=1.8)
    assert profits(later) == [wad(p) for p in (1_850, -2_400, -900, -750, -1_250)]
    assert available_margin(later, account) == wad(16_550)
    assert SynthetixPerps().status(later, account) is MarginStatus.HEALTHY
    nothing = at(state, 0, m1=31_000, m2=1_775, m3=3, m4=1, m5=1.13)
    assert available_margin(nothing, account) == 0
    short = at(state, 0, m1=31_000, m2=1_820, m3=3, m4=1, m5=1)
    assert available_margin(short, account) == wad(250)
    assert SynthetixPerps().status(short, account) is MarginStatus.LIQUIDATABLE
    with pytest.raises(SynthetixRevert, match="AccountLiquidatable"):
        settle_order(short, account, 1, wad(-1))


def test_what_the_market_owes_as_the_authors_follow_it() -> None:
    # Market/MarketDebt.test.ts without deposits: profits unpaid, of 10 long, 5 short, 10 short
    state = venue((configuration(skew_scale=0, flag_reward_ratio=0, minimum_initial_margin_ratio=0), 1_000))
    accounts = {i: depositor(cash, str(i)) for i, cash in ((1, 1_000), (2, 1_200), (3, 3_300))}
    debts = []
    for step in ((1, 10), 1_200, (2, -5), 1_100, (3, -10), 1_000, (2, 5), 1_200, (3, 10), 900, (1, -10)):
        if isinstance(step, tuple):
            who, size = step
            state, accounts[who] = trade(state, accounts[who], 1, size)
        else:
            state = at(state, 0, m1=step)
        debts.append(market_debt(state.markets[1], state.price(1), NOW))
    assert debts == [wad(d) for d in (0, 2_000, 2_000, 1_500, 1_500, 2_000, 1_000, 1_000, 2_000, -1_000, 0)]
    held = [accounts[i].collateral_wad.get(SNX_USD, 0) for i in (1, 2, 3)]
    assert held == [0, wad(2_200), wad(2_300)]


def test_orders_are_refused_as_the_contracts_do() -> None:
    state = venue((configuration(max_market_size=100, max_market_value=500), 10))
    account = depositor(1_000)
    for size, name in (
        (0, "ZeroSizeOrder"),
        (101, "MaxOpenInterestReached"),
        (60, "MaxUSDOpenInterestReached"),
    ):
        with pytest.raises(SynthetixRevert, match=name):
            settle_order(state, account, 1, wad(size))
    with pytest.raises(SynthetixRevert, match="InsufficientMargin"):
        settle_order(state, depositor(1), 1, wad(10))
    with pytest.raises(SynthetixRevert, match="InsufficientMargin"):
        settle_order(state, depositor(1), 1, wad(10), settlement_reward_wad=wad(2))
    with pytest.raises(SynthetixRevert, match="AcceptablePriceExceeded"):
        settle_order(state, account, 1, wad(10), acceptable_price_wad=wad("10.049"))
    settle_order(state, account, 1, wad(10), acceptable_price_wad=wad("10.05"))
    with pytest.raises(SynthetixRevert, match="AcceptablePriceExceeded"):
        settle_order(state, account, 1, wad(-10), acceptable_price_wad=wad("9.951"))
    with pytest.raises(InputError, match="maker_fee_wad -1 is negative"):
        replace(configuration(), maker_fee_wad=-1)


@pytest.mark.parametrize(
    ("held", "size", "least"),
    [
        # Filled at 10.1: 20 of margin, 2.02 + 2 for a flag, 2 for another window, 1.01 fee, 2 of premium.
        pytest.param(0, 20, "29.03", id="opens"),
        # At 10.25: 30 of margin in all, 3.075 + 2 for one flag, 4 for two windows, 0.5125 fee, 2.5 premium.
        pytest.param(20, 10, "42.0875", id="adds"),
    ],
)
def test_the_least_margin_of_an_order_by_hand(held: float, size: float, least: str) -> None:
    rules = configuration(
        initial_margin_ratio=0,
        minimum_initial_margin_ratio="0.1",
        flag_reward_ratio="0.01",
        maker_fee="0.005",
        taker_fee="0.005",
        max_seconds_in_liquidation_window=1,
    )
    state = venue((rules, 10), costs=KeeperCosts(liquidate_wad=wad(2)))
    state = state.with_market(replace(state.markets[1], skew_wad=wad(held), size_wad=wad(held)))
    positions = (Position(1, wad(held), wad(10)),) if held else ()
    account = PerpsAccount("a", {SNX_USD: wad(least)}, positions)
    _, after, _ = settle_order(state, account, 1, wad(size))
    assert after.position(1).size_wad == wad(held + size)
    poorer = replace(account, collateral_wad={SNX_USD: wad(least) - 1})
    with pytest.raises(SynthetixRevert, match="InsufficientMargin"):
        settle_order(state, poorer, 1, wad(size))


def test_a_position_that_shrinks_may_be_over_the_cap() -> None:
    market = PerpsMarket(1, configuration(max_market_size=10), skew_wad=wad(20), size_wad=wad(20))
    validate_position_size(market, wad(1), wad(20), wad(19))
    with pytest.raises(SynthetixRevert, match="MaxOpenInterestReached"):
        validate_position_size(market, wad(1), wad(20), wad(21))
    validate_position_size(market, wad(1), 0, wad(-10))  # the other side is empty


def test_profit_pays_debt_first_and_a_loss_takes_the_dollar_before_it_becomes_debt() -> None:
    account = PerpsAccount("a", {SNX_USD: wad(10), 3: wad(1)}, debt_wad=wad(4))
    assert charge(account, wad(3)).debt_wad == wad(1)
    assert charge(account, wad(6)).debt_wad == 0
    assert charge(account, wad(6)).collateral_wad == {SNX_USD: wad(12), 3: wad(1)}
    assert charge(account, wad(-7)).collateral_wad == {SNX_USD: wad(3), 3: wad(1)}
    broke = charge(account, wad(-13))
    assert (broke.collateral_wad, broke.debt_wad) == ({3: wad(1)}, wad(7))
    with pytest.raises(InputError, match="taken from a"):
        account.with_collateral(3, wad(-2))


def test_a_settled_order_charges_profit_and_fees() -> None:
    state = venue((configuration(skew_scale=0, taker_fee="0.001", maker_fee="0.0005"), 100))
    state, account, first = settle_order(state, depositor(1_000), 1, wad(10), settlement_reward_wad=wad(2))
    assert (first.order_fee_wad, first.charged_wad) == (wad(1), -wad(3))
    state = at(state, 0, m1=110)
    state, account, last = settle_order(state, account, 1, wad(-10))
    assert (last.pnl_wad, last.order_fee_wad) == (wad(100), wad("0.55"))
    assert account.collateral_wad[SNX_USD] == wad("1096.45")
    assert account.positions == ()
    assert (state.markets[1].skew_wad, state.markets[1].size_wad) == (0, 0)


# --------------------------------------------------------------------------- collateral, interest, rewards


def test_a_synth_counts_less_the_more_of_it_there_is() -> None:
    kind = CollateralType(wad(100), wad(1_000), wad(2), wad("0.01"), wad("0.1"))
    assert collateral_value(kind, wad(20), discounted=False) == wad(2_000)
    assert collateral_value(kind, wad(20), discounted=True) == wad("1920")  # 2 % of the scale, twice
    assert collateral_value(kind, wad(1), discounted=True) == wad(99)  # the least discount
    assert collateral_value(kind, wad(500), discounted=True) == wad(45_000)  # the most


def test_interest_by_hand() -> None:
    # Position/InterestRate.test.ts: 0.0003 a percent up to 75 %, then 0.01
    rules = InterestRate(0, 0, NOW, wad("0.0003"), wad("0.75"), wad("0.01"))
    assert current_interest_rate(rules, wad("0.5")) == wad("0.015")
    assert current_interest_rate(rules, wad("0.8")) == wad("0.0725")
    year = 31_557_600
    running = update_interest(rules, wad("0.5"), NOW)
    assert calculate_next_interest(running, NOW + year) == wad("0.015")
    later = update_interest(running, wad(9), NOW + year)
    assert (later.accrued_wad, later.rate_wad) == (wad("0.015"), current_interest_rate(rules, wad(1)))
    state = venue((configuration(skew_scale=0, locked_oi_ratio="0.5"), 2_000), interest=running)
    position = Position(1, wad(-20), wad(2_000))
    pnl = position_pnl(at(state, year), position, wad(2_000))
    assert pnl.interest_wad == -pnl.total_wad == wad(300)  # 1.5 % of half of 40,000
    assert update_interest(InterestRate(5, 7, NOW), wad(1), NOW + 9) == InterestRate(5, 0, NOW)


# KeeperRewards/KeeperRewards.Caps.test.ts: flag 3333, liquidate 5555, 100 units at 1 dollar
@pytest.mark.parametrize(
    ("ratio", "lower", "upper", "expected"),
    [
        (0, 1, wad(10), 8_932),  # (3333 + 5555) * 1.005
        (0, 10_000, 100_000, 18_888),
        (0, 1, 100, 100),
        ("0.05", 1, wad(10), wad(5) + 8_888),
        ("0.05", wad(8), wad(10), wad(8) + 8_888),
        ("0.05", wad(1), wad(3), wad(3)),
    ],
)
def test_rewards_within_their_bounds_as_the_authors_state_them(
    ratio: float | str, lower: int, upper: int, expected: int
) -> None:
    rules = configuration(skew_scale=100_000, flag_reward_ratio=ratio, initial_margin_ratio=0)
    state = venue(
        (rules, 1_000),
        guards=KeeperGuards(lower, upper, wad("0.005"), wad("0.005")),
        costs=KeeperCosts(1_111, 3_333, 5_555),
    )
    state, account, _ = settle_order(state, depositor(10_000), 1, wad(100))
    _, _, done = liquidate(at(state, 0, m1=1), account)
    assert done.keeper_reward_wad == expected


def test_the_upper_bound_by_collateral_and_without_any() -> None:
    guards = KeeperGuards(wad(1), wad(100), wad("0.5"), wad("0.01"))
    assert keeper_reward(guards, wad(50), wad(4), wad(2_000)) == wad(20)
    assert keeper_reward(guards, wad(50), wad(4), wad(50_000)) == wad(54)
    assert keeper_reward(guards, wad(50), wad(4), 0) == wad(54)
    assert keeper_reward(guards, 0, wad(4), 0) == wad(6)  # half as profit
    assert keeper_reward(guards, 0, wad(1), 0) == wad(2)  # one dollar as profit
    assert keeper_reward(guards, wad(500), wad(4), 0) == wad(100)


# ------------------------------------------------------------------------------------- liquidation windows


def windows_venue(**changes: Any) -> PerpsVenue:
    """Return the market of Liquidation/Liquidation.maxLiquidationAmount.test.ts: 100 units in ten seconds."""
    rules = configuration(
        maker_fee="0.007",
        taker_fee="0.003",
        initial_margin_ratio=3,
        minimum_initial_margin_ratio=0,
        **changes,
    )
    return venue((rules, 10), guards=KeeperGuards(wad(5), wad(1_000), 0, 0))


def test_windows_slide_as_the_authors_play_it() -> None:
    state = windows_venue()
    assert max_liquidation_amount_in_window(state.markets[1].configuration) == wad(100)
    assert number_of_liquidation_windows(state.markets[1].configuration, wad(-150)) == 2
    state, first = trade(state, depositor(1_500, "first"), 1, 150)
    state, second = trade(state, depositor(1_600, "second"), 1, 150)
    state = at(state, 0, m1=1)
    state, first, done = liquidate(state, first)
    assert first.position(1).size_wad == wad(50)
    assert (done.flagged_now, done.finished, first.collateral_wad) == (True, False, {})
    state, first, again = liquidate(at(state, 0), first)
    assert first.position(1).size_wad == wad(50)
    assert (again.keeper_reward_wad, again.closed_wad) == (0, {})
    state, first, _ = liquidate(at(state, 6), first)
    assert first.position(1).size_wad == wad(50)
    assert current_liquidation_capacity(state.markets[1], NOW + 9)[0] == 0
    assert current_liquidation_capacity(state.markets[1], NOW + 10)[0] == wad(100)
    state, first, done = liquidate(at(state, 11), first)
    assert first.positions == ()
    assert done.finished
    assert not first.flagged
    state, second, _ = liquidate(at(state, 12), second)
    assert second.position(1).size_wad == wad(100)
    state, second, _ = liquidate(at(state, 23), second)
    assert second.positions == ()
    assert (state.markets[1].skew_wad, state.markets[1].size_wad) == (0, 0)


def test_one_more_window_at_a_small_premium_as_the_authors_play_it() -> None:
    # Liquidation.maxLiquidationAmount.maxPd.test.ts: 25 a window; more only below a skew of 60
    state = windows_venue(
        max_liquidation_limit_accumulation_multiplier="0.25", maintenance_margin_scalar="0.66"
    )
    state, account = trade(state, depositor(500), 1, 90)
    state, account, _ = liquidate(at(state, 0, m1=1), account)
    assert account.position(1).size_wad == wad(65)
    state, account, _ = liquidate(at(state, 1), account)
    assert account.position(1).size_wad == wad(65)
    market = state.markets[1]
    rules = replace(market.configuration, max_liquidation_pd_wad=wad("0.06"))
    state = state.with_market(replace(market, configuration=rules))
    state, account, _ = liquidate(at(state, 2), account)
    assert account.position(1).size_wad == wad(65)  # the skew is 65
    state, _ = trade(state, depositor(500, "other"), 1, -25)
    state, account, _ = liquidate(at(state, 3), account)
    assert account.position(1).size_wad == wad(40)
    state, account, _ = liquidate(at(state, 3), account)
    assert account.position(1).size_wad == wad(40)  # once a block
    state, account, _ = liquidate(at(state, 4), account)
    assert account.position(1).size_wad == wad(15)
    state, account, done = liquidate(at(state, 5), account)
    assert done.finished


def test_the_endorsed_liquidator_has_no_window_and_no_flagging_reward() -> None:
    state = windows_venue(endorsed_liquidator="endorsed")
    state, account = trade(state, depositor(1_500), 1, 150)
    state = at(state, 0, m1=1)
    _, _, stranger = liquidate(state, account, liquidator="stranger")
    assert stranger.closed_wad == {1: wad(100)}
    _, _, endorsed = liquidate(state, account, liquidator="endorsed")
    assert (endorsed.closed_wad, endorsed.finished) == ({1: wad(150)}, True)
    paying = replace(state, guards=KeeperGuards(0, wad(1_000), 0, wad(1)))
    assert liquidate(paying, account, liquidator="stranger")[2].keeper_reward_wad == wad("7.5")
    assert liquidate(paying, account, liquidator="endorsed")[2].keeper_reward_wad == 0
    _, _, nobody = liquidate(windows_venue(), replace(account, flagged=True), liquidator="")
    assert nobody.closed_wad == {1: wad(100)}


def test_a_large_position_in_three_steps_as_the_authors_play_it() -> None:
    # KeeperRewards/KeeperRewards.Large-Position.test.ts: 201 units, 100 a window
    rules = configuration(
        maker_fee="0.007",
        taker_fee="0.003",
        initial_margin_ratio=0,
        minimum_initial_margin_ratio=0,
        maintenance_margin_scalar=0,
    )
    state = venue(
        (rules, 1_000),
        guards=KeeperGuards(1, wad(20), 0, wad("0.005")),
        costs=KeeperCosts(1_111, 3_333, 5_555),
    )
    state, account, _ = settle_order(state, depositor(100_000), 1, wad(201))
    state, account, done = liquidate(at(state, 0, m1=1), account)
    assert done.closed_wad == {1: wad(100)}
    assert done.keeper_reward_wad == wad("10.05") + 3_333 + 5_555
    state, account, done = liquidate(at(state, 35), account)
    assert account.position(1).size_wad == wad(1)
    assert done.keeper_reward_wad == 5_555 + 1
    state, account, done = liquidate(at(state, 70), account)
    assert done.finished


def test_all_collateral_is_seized_first_and_the_providers_bear_the_rest() -> None:
    rules = configuration(skew_scale=0, flag_reward_ratio="0.01", minimum_initial_margin_ratio="0.1")
    state = venue((rules, 100), collaterals={3: CollateralType(wad(10))})
    account = replace(depositor(100), collateral_wad={SNX_USD: wad(100), 3: wad(5)})
    state, account = trade(state, account, 1, 10)
    assert SynthetixPerps().status(state, account) is MarginStatus.HEALTHY
    state = at(state, 0, m1=80)
    state, account, done = liquidate(state, account)
    assert done.seized_collateral_wad == {SNX_USD: wad(100), 3: wad(5)}
    assert done.seized_value_wad == wad(150)
    assert (done.realised_pnl_wad, done.keeper_reward_wad) == (-wad(200), wad(8))
    assert done.providers_gain_wad == -wad(58)
    assert (account.collateral_wad, account.positions, account.flagged) == ({}, (), False)


def test_the_boundary_belongs_to_the_trader() -> None:
    rules = configuration(skew_scale=0, flag_reward_ratio=0, minimum_initial_margin_ratio="0.1")
    state = venue((rules, 100))
    account = PerpsAccount("a", {SNX_USD: wad(50)}, (Position(1, wad(10), wad(100)),))
    test = liquidation_test(state, account)
    assert (test.available_margin_wad, test.maintenance_margin_wad) == (wad(50), wad(50))
    assert not test.eligible
    one_less = replace(account, collateral_wad={SNX_USD: wad(50) - 1})
    assert liquidation_test(state, one_less).eligible
    with pytest.raises(SynthetixRevert, match="NotEligibleForLiquidation"):
        liquidate(state, account)


def test_collateral_behind_a_debt_is_seized_without_positions() -> None:
    state = venue(
        (configuration(), 100),
        collaterals={3: CollateralType(wad(10))},
        costs=KeeperCosts(0, wad(1), wad(1), 1),
    )
    account = PerpsAccount("a", {3: wad(5)}, debt_wad=wad(49))
    assert margin_liquidation_test(state, account) == (True, wad(-1) - 1)
    assert SynthetixPerps().status(state, account) is MarginStatus.LIQUIDATABLE
    _, after, done = liquidate_margin_only(state, account)
    assert (after.collateral_wad, after.debt_wad) == ({}, 0)
    assert done.providers_gain_wad == wad(50 - 49 - 2) - 1
    fine = replace(account, debt_wad=wad(47))
    assert SynthetixPerps().status(state, fine) is MarginStatus.HEALTHY
    with pytest.raises(SynthetixRevert, match="NotEligibleForMarginLiquidation"):
        liquidate_margin_only(state, fine)
    with pytest.raises(SynthetixRevert, match="AccountHasOpenPositions"):
        liquidate_margin_only(state, replace(account, positions=(Position(1, 1, 1),)))


def test_what_is_unknown_is_not_healthy() -> None:
    state, account = margins_venue()
    blind = replace(state, prices_wad={1: wad(30_000)})
    assert SynthetixPerps().status(blind, account) is MarginStatus.UNKNOWN
    synths = replace(account, collateral_wad={7: wad(1_000_000)})
    assert SynthetixPerps().status(state, synths) is MarginStatus.UNKNOWN
    assert SynthetixPerps().status(state, depositor(5)) is MarginStatus.NO_DEBT
    assert SynthetixPerps().status(blind, replace(account, flagged=True)) is MarginStatus.LIQUIDATABLE
    columns = SynthetixPerps().columns(state, [account, synths])
    gaps = columns.gaps(np.array([30_000.0, 2_000.0]))
    assert gaps[0] == pytest.approx(99_000 - 4_000 - 5_000, rel=1e-12)
    assert np.isnan(gaps[1])
    assert np.isnan(columns.gaps(np.array([30_000.0, np.nan]))).all()
