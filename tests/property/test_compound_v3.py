"""What holds of the Compound III model in every state, not only in those that a chain was asked about."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from simulation.fixed_point import WAD
from simulation.protocols.compound_v3 import (
    AssetInfo,
    CometAccount,
    CometLayout,
    CometMarket,
    CometTotals,
    CompoundV3,
    RateCurve,
    absorb,
    accrue,
    buy_collateral,
    get_collateral_reserves,
    get_reserves,
    get_utilization,
    is_borrow_collateralized,
    is_liquidatable,
    quote_collateral,
    supply,
    withdraw,
)
from simulation.protocols.compound_v3.comet import (
    get_borrow_rate,
    get_supply_rate,
    present_value,
    present_value_borrow,
    present_value_supply,
    principal_value_borrow,
    principal_value_supply,
    rate_at,
    repay_and_supply_amount,
    withdraw_and_borrow_amount,
)
from simulation.protocols.compound_v3.comet_math import BASE_INDEX_SCALE, mul_price, signed_mul_price
from simulation.types import MarginStatus
from tests.compound_v3_states import (
    ACCOUNT,
    ASSETS,
    COMET,
    FEEDS,
    NOW,
    OTHER,
    PARAMS,
    USDC,
    WBTC,
    WETH,
    market,
)

many = settings(deadline=None, max_examples=100)
YEAR = 31_536_000
ADAPTER = CompoundV3(CometLayout(COMET, USDC, FEEDS[0], (WETH, WBTC), FEEDS[1:]))

indices = st.integers(BASE_INDEX_SCALE, 5 * BASE_INDEX_SCALE)
amounts = st.one_of(st.integers(0, 10), st.integers(0, 10**9), st.integers(0, 10**18))
principals = amounts.map(lambda n: -n - 1)
prices = st.one_of(st.integers(1, 1_000), st.integers(1, 10**13))
factors = st.integers(1, 10_000).map(lambda n: n * WAD // 10_000)
seconds = st.integers(0, 3 * YEAR)


@st.composite
def infos(draw: st.DrawFn, of: AssetInfo) -> AssetInfo:
    """Draw a collateral's factors, in the order that a constructor demands."""
    borrow, liquidate = sorted(draw(st.tuples(factors, factors)))
    assume(borrow < liquidate)
    return replace(
        of,
        borrow_collateral_factor_wad=borrow,
        liquidate_collateral_factor_wad=liquidate,
        liquidation_factor_wad=draw(st.integers(0, 10_000)) * WAD // 10_000,
    )


@st.composite
def accounts(draw: st.DrawFn, name: str = ACCOUNT) -> CometAccount:
    """Draw a borrower with collateral or without."""
    collateral_raw = (draw(amounts), draw(amounts))
    bits = sum(1 << i for i, raw in enumerate(collateral_raw) if raw)
    return CometAccount(name, draw(principals), bits, collateral_raw)


@st.composite
def states(draw: st.DrawFn) -> tuple[CometMarket, CometAccount, CometAccount]:
    """Draw a market of two borrowers, of any age."""
    both = (draw(accounts()), draw(accounts(OTHER)))
    plain = market(*both)
    lent, borrowed = draw(amounts), -sum(a.principal for a in both)
    totals = CometTotals(draw(indices), draw(indices), 0, 0, lent, borrowed + draw(amounts), NOW)
    params = replace(
        PARAMS,
        assets=tuple(draw(infos(info)) for info in ASSETS),
        store_front_price_factor_wad=draw(st.integers(0, WAD)),
    )
    state = replace(
        plain,
        params=params,
        totals=totals,
        base_held_raw=draw(amounts),
        prices_e8=(draw(prices), draw(prices)),
        base_price_e8=draw(prices),
        timestamp=NOW + draw(seconds),
    )
    return state, *both


# --- interest and principals ------------------------------------------------------------------------------


@many
@given(states())
def test_interest_lets_both_indices_grow(drawn: tuple[CometMarket, CometAccount, CometAccount]) -> None:
    state = drawn[0]
    assume(get_utilization(state) < 10**21)  # beyond, rates leave 64 bits and nothing goes through
    before, after = state.totals, accrue(state).totals
    assert after.base_supply_index >= before.base_supply_index
    assert after.base_borrow_index >= before.base_borrow_index
    # A market that lends at a rate of its own does so from the first second.
    if state.timestamp > NOW:
        assert after.base_borrow_index > before.base_borrow_index
    assert (after.total_supply_base, after.total_borrow_base) == (
        before.total_supply_base,
        before.total_borrow_base,
    )


@many
@given(states())
def test_interest_is_simple_between_two_accruals(
    drawn: tuple[CometMarket, CometAccount, CometAccount],
) -> None:
    state = drawn[0]
    assume(get_utilization(state) < 10**21)
    rate = get_borrow_rate(state.params, get_utilization(state))
    grown = Fraction(state.totals.base_borrow_index) * (1 + Fraction(rate * (state.timestamp - NOW), WAD))
    assert accrue(state).totals.base_borrow_index == int(grown)


@many
@given(st.integers(0, 2 * WAD), st.integers(0, 2 * WAD))
def test_rates_rise_with_utilisation(one: int, other: int) -> None:
    low, high = sorted((one, other))
    for bent in (PARAMS.supply_curve, PARAMS.borrow_curve, RateCurve(0, 5, 10**9, 10**10)):
        assert rate_at(bent, low) <= rate_at(bent, high)


@many
@given(st.integers(0, WAD))
def test_what_lenders_get_is_not_bounded_by_what_borrowers_pay(utilization_wad: int) -> None:
    """Two curves that nothing ties: in between it holds of these, and reserves pay below and above."""
    paid = get_borrow_rate(PARAMS, utilization_wad) * utilization_wad // WAD
    earned = get_supply_rate(PARAMS, utilization_wad)
    percent = utilization_wad * 100 // WAD
    if 50 <= percent < 86:
        assert earned <= paid
    if 1 <= percent < 48 or percent >= 88:
        assert earned > paid


@many
@given(amounts, indices)
def test_principals_are_rounded_for_the_protocol(value_raw: int, index: int) -> None:
    lent = present_value_supply(index, principal_value_supply(index, value_raw))
    assert value_raw - index // BASE_INDEX_SCALE - 1 <= lent <= value_raw
    owed = present_value_borrow(index, principal_value_borrow(index, value_raw))
    assert value_raw <= owed <= value_raw + index // BASE_INDEX_SCALE + 1


@many
@given(st.integers(-(10**30), 10**30), st.integers(-(10**30), 10**30))
def test_a_principals_change_is_split_into_its_two_sides(old: int, new: int) -> None:
    repaid, supplied = repay_and_supply_amount(old, new)
    withdrawn, borrowed = withdraw_and_borrow_amount(old, new)
    assert min(repaid, supplied, withdrawn, borrowed) >= 0
    assert repaid + supplied - withdrawn - borrowed == new - old
    assert (withdrawn, borrowed) == (0, 0) or (repaid, supplied) == (0, 0)


# --- health -----------------------------------------------------------------------------------------------


def summed(state: CometMarket, account: CometAccount) -> int:
    """Return liquidity by all collaterals, without stopping at what is enough."""
    owed_raw = present_value(state.totals, account.principal)
    total_e8 = signed_mul_price(owed_raw, state.base_price_e8 or 0, state.params.base_scale)
    for i, info in enumerate(state.params.assets):
        worth_e8 = mul_price(account.collateral_raw[i], state.prices_e8[i] or 0, info.scale)
        total_e8 += worth_e8 * info.liquidate_collateral_factor_wad // WAD
    return total_e8


@many
@given(states())
def test_stopping_early_never_changes_the_answer(
    drawn: tuple[CometMarket, CometAccount, CometAccount],
) -> None:
    state, debtor, _ = drawn
    assert is_liquidatable(state, debtor) == (summed(state, debtor) < 0)


@many
@given(states(), st.sampled_from([None, 0, -1]))
def test_what_is_behind_enough_does_not_matter(
    drawn: tuple[CometMarket, CometAccount, CometAccount], answer: int | None
) -> None:
    state, debtor, _ = drawn
    first_only = replace(debtor, assets_in=debtor.assets_in & 1)
    assume(debtor.assets_in == 3 and not is_liquidatable(state, first_only))
    broken = replace(state, prices_e8=(state.prices_e8[0], answer))
    assert not is_liquidatable(broken, debtor)
    report = ADAPTER.margin(broken, debtor, broken.prices_base)
    assert report.status is MarginStatus.UNKNOWN


@many
@given(states(), st.integers(0, 10**12), st.integers(0, 1))
def test_a_higher_price_never_makes_an_account_liquidatable(
    drawn: tuple[CometMarket, CometAccount, CometAccount], more: int, which: int
) -> None:
    state, debtor, _ = drawn
    assume(not is_liquidatable(state, debtor))
    risen = list(state.prices_e8)
    risen[which] = (risen[which] or 0) + more
    assert not is_liquidatable(replace(state, prices_e8=tuple(risen)), debtor)
    assert not is_liquidatable(replace(state, base_price_e8=max(1, (state.base_price_e8 or 1) // 2)), debtor)


@many
@given(states())
def test_who_may_borrow_is_not_liquidatable(drawn: tuple[CometMarket, CometAccount, CometAccount]) -> None:
    state, debtor, _ = drawn
    assert not (is_borrow_collateralized(state, debtor) and is_liquidatable(state, debtor))


@many
@given(states())
def test_the_health_factor_is_below_one_where_absorption_goes_through(
    drawn: tuple[CometMarket, CometAccount, CometAccount],
) -> None:
    state, debtor, _ = drawn
    report = ADAPTER.margin(state, debtor, state.prices_base)
    assume(report.status is not MarginStatus.UNKNOWN)
    assert report.health_factor_wad is not None
    assert (report.health_factor_wad < WAD) == absorb(state, [debtor]).succeeds
    assert (report.status is MarginStatus.LIQUIDATABLE) == (report.health_factor_wad < WAD)


# --- absorbing --------------------------------------------------------------------------------------------


@many
@given(states())
def test_absorbing_conserves(drawn: tuple[CometMarket, CometAccount, CometAccount]) -> None:
    """No token moves; the market owns what the account had, and bears what the account owed."""
    state, debtor, _ = drawn
    outcome = absorb(state, [debtor])
    assume(outcome.succeeds)
    accrued, after = accrue(state), outcome.market_after
    (left,), (done,) = outcome.accounts_after, outcome.absorptions
    assert (after.base_held_raw, after.collateral_held_raw) == (
        state.base_held_raw,
        state.collateral_held_raw,
    )
    assert done.seized_raw == debtor.collateral_raw
    assert (left.collateral_raw, left.assets_in) == ((0, 0), 0)
    for i, token in enumerate((WETH, WBTC)):
        gained = get_collateral_reserves(after, token.address) - get_collateral_reserves(state, token.address)
        assert gained == debtor.collateral_raw[i]
    # Principals to the unit; reserves to the roundings of both totals and of the new principal.
    assert after.totals.total_borrow_base == accrued.totals.total_borrow_base + debtor.principal
    assert after.totals.total_supply_base == accrued.totals.total_supply_base + left.principal
    lost = get_reserves(accrued) - get_reserves(after)
    step = accrued.totals.base_supply_index // BASE_INDEX_SCALE + 2
    assert abs(lost - done.base_paid_out_raw) <= step
    assert left.principal >= 0
    owed_raw = -present_value(accrued.totals, debtor.principal)
    assert done.base_paid_out_raw >= owed_raw
    assert (done.shortfall_raw > 0) <= (left.principal == 0)
    assert get_reserves(state) == get_reserves(accrued)
    assert not is_liquidatable(after, left)


@many
@given(states())
def test_absorbing_together_is_absorbing_one_by_one(
    drawn: tuple[CometMarket, CometAccount, CometAccount],
) -> None:
    state, debtor, other = drawn
    together = absorb(state, [debtor, other])
    first = absorb(state, [debtor])
    second = absorb(first.market_after, [other])
    if not (first.succeeds and second.succeeds):
        assert not together.succeeds
        assert together.market_after == state
        return
    assert together.market_after == second.market_after
    assert together.absorptions == first.absorptions + second.absorptions


# --- selling ----------------------------------------------------------------------------------------------


@many
@given(states(), st.integers(1, 10**15), st.sampled_from([0, 1]))
def test_a_sale_never_gives_more_than_the_discounted_price(
    drawn: tuple[CometMarket, CometAccount, CometAccount], base_raw: int, which: int
) -> None:
    state = drawn[0]
    info, price = state.params.assets[which], state.prices_e8[which] or 0
    penalty = Fraction(WAD - info.liquidation_factor_wad, WAD)
    discount = penalty * Fraction(state.params.store_front_price_factor_wad, WAD)
    # The contract keeps whole units of 1e-8 of the price, and of 1e-18 of the discount, which it rounds down.
    least = price * (1 - discount) - 1
    assume(least > 0)
    paid = Fraction(base_raw * (state.base_price_e8 or 0), state.params.base_scale)
    got = quote_collateral(state, info.asset.address, base_raw)
    assert Fraction(got, info.scale) * least <= paid


@many
@given(states(), st.integers(1, 10**15), st.sampled_from([0, 1]), st.integers(0, 10**18))
def test_buying_moves_what_it_says(
    drawn: tuple[CometMarket, CometAccount, CometAccount], base_raw: int, which: int, spare_raw: int
) -> None:
    state = drawn[0]
    held = list(state.collateral_held_raw)
    held[which] += spare_raw
    state = replace(state, collateral_held_raw=tuple(held))
    token = state.params.assets[which].asset.address
    bought = buy_collateral(state, token, base_raw)
    if not bought.succeeds:
        assert bought.market_after == state
        assert bought.revert_code in ("NotForSale", "InsufficientReserves", "Panic(0x12)", "InvalidUInt64")
        return
    assert get_reserves(bought.market_after) == get_reserves(state) + base_raw
    assert get_reserves(state) < state.params.target_reserves_raw
    left = get_collateral_reserves(bought.market_after, token)
    assert left == spare_raw - bought.collateral_amount_raw >= 0
    assert bought.market_after.totals == state.totals
    refused = buy_collateral(state, token, base_raw, min_amount_raw=bought.collateral_amount_raw + 1)
    assert refused.revert_code == "TooMuchSlippage"


# --- paying in and out ------------------------------------------------------------------------------------


@many
@given(states(), amounts)
def test_nobody_gains_by_coming_and_going(
    drawn: tuple[CometMarket, CometAccount, CometAccount], amount_raw: int
) -> None:
    state = drawn[0]
    nobody = CometAccount(ACCOUNT, 0, 0, (0, 0))
    paid = supply(state, nobody, USDC.address, amount_raw)
    assume(paid.succeeds)
    assert present_value(paid.market_after.totals, paid.account_after.principal) <= amount_raw
    back = withdraw(paid.market_after, paid.account_after, USDC.address, 2**256 - 1)
    if back.succeeds:
        assert back.amount_raw <= amount_raw


@many
@given(states(), amounts)
def test_what_is_borrowed_is_owed_at_least(
    drawn: tuple[CometMarket, CometAccount, CometAccount], amount_raw: int
) -> None:
    state, debtor, _ = drawn
    outcome = withdraw(state, debtor, USDC.address, amount_raw)
    if outcome.succeeds:
        before = present_value(accrue(state).totals, debtor.principal)
        after = present_value(outcome.market_after.totals, outcome.account_after.principal)
        assert after <= before - amount_raw
        assert is_borrow_collateralized(outcome.market_after, outcome.account_after)
        assert outcome.market_after.base_held_raw == state.base_held_raw - amount_raw
