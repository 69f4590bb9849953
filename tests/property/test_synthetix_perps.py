"""What holds of the perps model in every state: books agree, windows hold, the float twin is in its bound."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from simulation.fixed_point import WAD
from simulation.protocols.synthetix_perps import (
    SNX_USD,
    CollateralType,
    InterestRate,
    KeeperCosts,
    KeeperGuards,
    MarketConfiguration,
    PerpsAccount,
    PerpsMarket,
    PerpsVenue,
    Position,
    SynthetixPerps,
    SynthetixRevert,
    fill_price,
    liquidate,
    liquidation_test,
    market_debt,
    max_liquidation_amount_in_window,
    order_fee,
    settle_order,
)
from simulation.protocols.synthetix_perps.perps_account import position_pnl, total_collateral_value
from simulation.types import MarginStatus
from tests.perps_states import DAY, NOW, configuration, depositor, venue, wad

relaxed = settings(deadline=None)
many = settings(deadline=None, max_examples=300)

wads = st.integers(0, WAD)
sizes = st.integers(-(10**24), 10**24).filter(bool)
prices = st.integers(10**13, 10**24)


@st.composite
def rules(draw: st.DrawFn) -> MarketConfiguration:
    """Draw a market's parameters."""
    return MarketConfiguration(
        maker_fee_wad=draw(st.integers(0, WAD // 100)),
        taker_fee_wad=draw(st.integers(0, WAD // 100)),
        skew_scale_wad=draw(st.one_of(st.just(0), st.integers(10**20, 10**26))),
        max_funding_velocity_wad=draw(st.integers(0, 10 * WAD)),
        initial_margin_ratio_wad=draw(st.integers(0, 5 * WAD)),
        minimum_initial_margin_ratio_wad=draw(wads),
        maintenance_margin_scalar_wad=draw(wads),
        minimum_position_margin_wad=draw(st.integers(0, 100 * WAD)),
        flag_reward_ratio_wad=draw(st.integers(0, WAD // 20)),
        max_liquidation_limit_accumulation_multiplier_wad=draw(st.integers(0, 3 * WAD)),
        max_seconds_in_liquidation_window=draw(st.integers(0, 60)),
        max_liquidation_pd_wad=draw(st.integers(0, WAD // 100)),
        locked_oi_ratio_wad=draw(wads),
    )


@st.composite
def states(draw: st.DrawFn) -> tuple[PerpsVenue, PerpsAccount]:
    """Draw two markets with an account in them, put together and not traded into being."""
    markets = {
        i: PerpsMarket(
            id=i,
            configuration=draw(rules()),
            skew_wad=draw(st.integers(-(10**25), 10**25)),
            size_wad=10**26,
            last_funding_rate_wad=draw(st.integers(-WAD, WAD)),
            last_funding_value_wad=draw(st.integers(-(10**22), 10**22)),
            last_funding_time=NOW - draw(st.integers(0, 30 * DAY)),
        )
        for i in (1, 2)
    }
    state = PerpsVenue(
        timestamp=NOW,
        markets=markets,
        prices_wad={i: draw(prices) for i in markets},
        guards=KeeperGuards(
            draw(st.integers(0, 100 * WAD)),
            draw(st.integers(0, 10_000 * WAD)),
            draw(wads),
            draw(wads),
            draw(st.integers(0, WAD // 10)),
        ),
        costs=KeeperCosts(0, draw(wads), draw(wads), draw(wads)),
        collaterals={7: CollateralType(draw(prices), 10**24, draw(wads), 0, draw(wads))},
        interest=InterestRate(draw(wads), draw(wads), NOW - 1_000),
    )
    positions = []
    for i in draw(st.sets(st.sampled_from((1, 2)))):
        entry = draw(prices)
        funding = draw(st.integers(-(10**22), 10**22))
        positions.append(Position(i, draw(sizes), entry, funding, 0))
    collateral = {SNX_USD: draw(st.integers(0, 10**26)), 7: draw(st.integers(0, 10**22))}
    debt = draw(st.one_of(st.just(0), st.integers(0, 10**24)))
    return state, PerpsAccount("somebody", collateral, tuple(positions), debt)


def exact_gap(state: PerpsVenue, account: PerpsAccount) -> Fraction:
    """Return margin less requirement and reward, dollars."""
    test = liquidation_test(state, account)
    gap = test.available_margin_wad - test.maintenance_margin_wad - test.liquidation_reward_wad
    return Fraction(gap, WAD)


@many
@given(states(), st.integers(-3, 3))
def test_the_float_twin_is_within_its_bound_and_agrees_outside_of_it(
    drawn: tuple[PerpsVenue, PerpsAccount], off: int
) -> None:
    state, account = drawn
    if account.positions:  # margin moved to the boundary, or near it, without debt or with
        gap = int(exact_gap(state, replace(account, debt_wad=0)) * WAD)
        account = replace(account, debt_wad=max(gap + off * 10**9, 0))
    columns = SynthetixPerps().columns(state, [account, depositor(1)])
    price = np.array([state.prices_wad[i] / WAD for i in columns.markets.ids])
    found, bound = columns.gaps(price), columns.bounds(price)
    exact = exact_gap(state, account)
    assert abs(Fraction(float(found[0])) - exact) <= Fraction(float(bound[0]))
    assert found[1] == 1.0
    if account.positions and abs(found[0]) > bound[0]:
        below = SynthetixPerps().status(state, account) is MarginStatus.LIQUIDATABLE
        assert below == (found[0] < 0)


@many
@given(states())
def test_the_bound_is_relative_and_tight_enough_to_be_of_use(drawn: tuple[PerpsVenue, PerpsAccount]) -> None:
    state, account = drawn
    columns = SynthetixPerps().columns(state, [account])
    price = np.array([state.prices_wad[i] / WAD for i in columns.markets.ids])
    weight = sum(
        abs(p.size_wad) * (state.price(p.market_id) + p.latest_interaction_price_wad) / WAD**2
        + abs(p.size_wad) / WAD * 3e5 * (1 + state.price(p.market_id) / WAD / 10)
        for p in account.positions
    )
    scale = 1e8 + weight * 1e4 + columns.collateral[0] + account.debt_wad / WAD
    assert columns.bounds(price)[0] < 1e-13 * scale


@many
@given(states(), st.integers(0, 2))
def test_a_liquidation_moves_claims_and_makes_none(
    drawn: tuple[PerpsVenue, PerpsAccount], shift: int
) -> None:
    state, account = drawn
    state = replace(state, timestamp=NOW + shift)
    if not liquidation_test(state, account).eligible:
        return
    pnl = {p.market_id: position_pnl(state, p, state.price(p.market_id)) for p in account.positions}
    debt_before = {i: market_debt(m, state.price(i), state.timestamp) for i, m in state.markets.items()}
    value = total_collateral_value(state, account, discounted=False)
    after, left, done = liquidate(state, account)
    # Everything but the positions is gone, and the books of each market fall by what its position was owed.
    assert (left.collateral_wad, left.debt_wad) == ({}, 0)
    assert (done.seized_value_wad, done.debt_forgiven_wad) == (value, account.debt_wad)
    assert done.seized_collateral_wad == account.collateral_wad
    moved = 0
    for i, before in debt_before.items():
        change = market_debt(after.markets[i], state.price(i), state.timestamp) - before
        if i in done.closed_wad:
            expected = pnl[i].price_wad + pnl[i].funding_wad
            assert abs(change + expected) <= 8
            moved += expected
        else:
            assert change == 0
    assert done.realised_pnl_wad == moved
    assert done.providers_gain_wad == value - account.debt_wad - done.keeper_reward_wad + moved
    for position in account.positions:
        rest, closed = left.position(position.market_id), done.closed_wad.get(position.market_id, 0)
        assert abs(rest.size_wad) + closed == abs(position.size_wad)
        window = max_liquidation_amount_in_window(state.markets[position.market_id].configuration)
        assert window == 0 or closed <= window
    assert done.keeper_reward_wad <= state.guards.max_keeper_reward_wad


@relaxed
@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.integers(-50, 50), st.integers(-3, 3), st.integers(0, 7_200)),
        max_size=12,
    )
)
def test_the_market_owes_what_its_positions_have_earned(steps: list[tuple[int, int, int, int]]) -> None:
    free = configuration(
        skew_scale=10_000,
        max_funding_velocity=3,
        flag_reward_ratio=0,
        initial_margin_ratio=0,
        taker_fee="0.001",
    )
    state = venue((free, 100))
    accounts = [depositor(10**6, str(i)) for i in range(3)]
    traded = False
    for who, size, move, seconds in steps:
        price_wad = state.price(1) * (100 + move) // 100
        state = replace(state, timestamp=state.timestamp + seconds, prices_wad={1: price_wad})
        try:
            state, accounts[who], _ = settle_order(state, accounts[who], 1, wad(size))
        except SynthetixRevert:
            assert size == 0
            continue
        traded = True
        held = [a.position(1) for a in accounts]
        assert state.markets[1].skew_wad == sum(p.size_wad for p in held)
        assert state.markets[1].size_wad == sum(abs(p.size_wad) for p in held)
        owed = sum(position_pnl(state, p, price_wad).total_wad for p in held)
        assert abs(market_debt(state.markets[1], price_wad, state.timestamp) - owed) <= 40 * len(steps)
    assert traded or all(size == 0 for _, size, _, _ in steps)


@relaxed
@given(st.integers(-(10**24), 10**24), st.integers(-(10**24), 10**24), prices)
def test_an_order_and_its_reverse_are_filled_at_the_same_price(skew: int, size: int, price: int) -> None:
    scale = 10**25
    there = fill_price(skew, scale, size, price)
    back = fill_price(skew + size, scale, -size, price)
    assert there == back
    assert min(skew, skew + size) < 0 or there >= price - 2


@relaxed
@given(sizes, st.integers(-(10**24), 10**24), prices, st.integers(0, 10**16), st.integers(0, 10**16))
def test_a_fee_is_between_the_makers_and_the_takers(
    size: int, skew: int, price: int, maker: int, taker: int
) -> None:
    fee = order_fee(size, price, skew, maker, taker)
    notional = Fraction(abs(size) * price, WAD * WAD)
    low, high = notional * min(maker, taker), notional * max(maker, taker)
    assert low - 4 <= fee <= high
