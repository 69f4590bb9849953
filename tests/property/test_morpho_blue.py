"""What holds of the Morpho Blue model in every state, not only in those that a chain was asked about."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from simulation.fixed_point import MAX_UINT256, WAD
from simulation.protocols.morpho_blue import (
    AdaptiveCurveIrm,
    FixedRateIrm,
    MarketState,
    MorphoAccount,
    MorphoMarket,
    accrue,
    borrow,
    is_healthy,
    liquidate,
    liquidation_incentive_factor,
    liquidation_quote,
    project,
    repay,
    supply,
    supply_collateral,
    withdraw,
    withdraw_collateral,
)
from simulation.protocols.morpho_blue.irm import (
    MAX_RATE_AT_TARGET_WAD,
    MIN_RATE_AT_TARGET_WAD,
    curve,
    error,
    new_rate_at_target,
    w_exp,
)
from simulation.protocols.morpho_blue.math_lib import w_taylor_compounded
from simulation.protocols.morpho_blue.morpho import borrowed_assets
from simulation.protocols.morpho_blue.shares_math_lib import (
    VIRTUAL_ASSETS_RAW,
    VIRTUAL_SHARES,
    to_assets_down,
    to_assets_up,
    to_shares_down,
    to_shares_up,
)
from tests.morpho_states import ACCOUNT, NOW, market, params

many = settings(deadline=None, max_examples=300)
YEAR = 31_536_000

amounts = st.one_of(st.integers(0, 10), st.integers(0, 10**9), st.integers(0, 10**27))
positive = amounts.map(lambda n: n + 1)
shares_of = st.one_of(st.integers(0, 10**7), st.integers(0, 10**33))
lltvs = st.sampled_from([385, 625, 770, 860, 915, 945, 965, 980]).map(lambda n: n * WAD // 1_000)
prices = st.one_of(st.integers(1, 10**40), st.integers(10**22, 10**28))


@st.composite
def markets(draw: st.DrawFn) -> MorphoMarket:
    """Draw a market with any price of a share, up to date or not."""
    borrowed_raw = draw(amounts)
    supplied_raw = borrowed_raw + draw(amounts)
    state = MarketState(
        total_supply_assets_raw=supplied_raw,
        total_supply_shares=draw(shares_of),
        total_borrow_assets_raw=borrowed_raw,
        total_borrow_shares=draw(shares_of),
        last_update=NOW - draw(st.integers(0, YEAR)),
        fee_wad=draw(st.integers(0, WAD // 4)),
    )
    rate = draw(st.integers(0, WAD // YEAR))
    irm = draw(
        st.sampled_from([None, FixedRateIrm(rate), AdaptiveCurveIrm(max(rate, MIN_RATE_AT_TARGET_WAD))])
    )
    return market(state=state, irm=irm, price_e36=draw(prices), params=params(draw(lltvs)))


@st.composite
def positions(draw: st.DrawFn) -> tuple[MorphoMarket, MorphoAccount]:
    """Draw a market with an account in it that has no more shares than there are."""
    found = draw(markets())
    state = found.state
    return found, MorphoAccount(
        ACCOUNT,
        supply_shares=draw(st.integers(0, state.total_supply_shares)),
        borrow_shares=draw(st.integers(0, state.total_borrow_shares)),
        collateral_raw=draw(amounts),
    )


# --- shares -----------------------------------------------------------------------------------------------


@many
@given(amounts, amounts, shares_of)
def test_rounding_is_less_than_a_unit_and_to_the_side_it_says(n: int, total_raw: int, total: int) -> None:
    to_shares = Fraction(n * (total + VIRTUAL_SHARES), total_raw + VIRTUAL_ASSETS_RAW)
    to_assets = Fraction(n * (total_raw + VIRTUAL_ASSETS_RAW), total + VIRTUAL_SHARES)
    for exact, down, up in (
        (to_shares, to_shares_down, to_shares_up),
        (to_assets, to_assets_down, to_assets_up),
    ):
        low, high = down(n, total_raw, total), up(n, total_raw, total)
        assert low <= exact <= high
        assert exact - low < 1
        assert high - exact < 1
        assert high - low == (0 if exact.denominator == 1 else 1)


@many
@given(amounts, amounts, shares_of)
def test_there_and_back_never_gains(n: int, total_raw: int, total: int) -> None:
    assert to_assets_down(to_shares_down(n, total_raw, total), total_raw, total) <= n
    assert to_assets_up(to_shares_up(n, total_raw, total), total_raw, total) >= n
    assert to_shares_down(to_assets_down(n, total_raw, total), total_raw, total) <= n
    assert to_shares_up(to_assets_up(n, total_raw, total), total_raw, total) >= n


@many
@given(markets(), st.lists(st.tuples(st.booleans(), st.booleans(), positive), min_size=1, max_size=6))
def test_lending_and_taking_back_is_never_worth_more_than_was_paid(
    found: MorphoMarket, steps: list[tuple[bool, bool, int]]
) -> None:
    now = accrue(found).market
    account, paid_raw = MorphoAccount(ACCOUNT), 0
    for lends, by_shares, n in steps:
        call = supply if lends else withdraw
        done = call(now, account, shares=n) if by_shares else call(now, account, assets_raw=n)
        if done.succeeds:
            paid_raw += done.assets_raw if lends else -done.assets_raw
            now, account = done.market_after, done.account_after
    state = now.state
    worth_raw = to_assets_down(
        account.supply_shares, state.total_supply_assets_raw, state.total_supply_shares
    )
    assert worth_raw <= paid_raw


@many
@given(markets(), positive, st.booleans())
def test_a_debt_is_never_paid_back_with_less(found: MorphoMarket, n: int, by_shares: bool) -> None:
    now = accrue(replace(found, price_e36=10**45)).market
    account = supply_collateral(now, MorphoAccount(ACCOUNT), 10**30).account_after
    lent = borrow(now, account, shares=n) if by_shares else borrow(now, account, assets_raw=n)
    assume(lent.succeeds)
    back = repay(lent.market_after, lent.account_after, shares=lent.account_after.borrow_shares)
    assert back.succeeds
    assert back.assets_raw >= lent.assets_raw
    assert back.account_after.borrow_shares == 0


@many
@given(markets(), positive, positive)
def test_what_others_own_never_falls_when_somebody_comes_and_goes(
    found: MorphoMarket, n: int, part: int
) -> None:
    now = accrue(found).market
    came = supply(now, MorphoAccount(ACCOUNT), assets_raw=n)
    assume(came.succeeds and came.shares > 0)
    left = withdraw(came.market_after, came.account_after, shares=1 + part % came.shares)
    assume(left.succeeds)
    before, after = now.state, left.market_after.state
    # The price of a share, virtual ones included.
    assert (after.total_supply_assets_raw + 1) * (before.total_supply_shares + VIRTUAL_SHARES) >= (
        before.total_supply_assets_raw + 1
    ) * (after.total_supply_shares + VIRTUAL_SHARES)


# --- the market as a whole --------------------------------------------------------------------------------


@many
@given(positions(), st.data())
def test_no_call_lends_more_than_is_there(
    drawn: tuple[MorphoMarket, MorphoAccount], data: st.DataObject
) -> None:
    now, account = drawn
    for _ in range(3):
        call = data.draw(st.sampled_from([supply, withdraw, borrow, repay, liquidate]))
        first, second = data.draw(st.sampled_from([(1, 0), (0, 1)])), data.draw(positive)
        done = call(now, account, first[0] * second, first[1] * second)
        now, account = done.market_after, done.account_after
        state = now.state
        assert 0 <= state.total_borrow_assets_raw <= state.total_supply_assets_raw
        assert account.supply_shares >= 0
        assert account.borrow_shares >= 0


@many
@given(positions(), positive)
def test_what_is_refused_changes_nothing(drawn: tuple[MorphoMarket, MorphoAccount], n: int) -> None:
    found, account = drawn
    for call in (supply, withdraw, borrow, repay, liquidate):
        done = call(found, account, n, n)
        assert done.revert_code == "inconsistent input"
        assert (done.market_after, done.account_after) == (found, account)
        assert (done.assets_raw, done.shares, done.interest_raw) == (0, 0, 0)


@many
@given(positions(), positive)
def test_who_borrows_or_takes_collateral_is_healthy_afterwards(
    drawn: tuple[MorphoMarket, MorphoAccount], n: int
) -> None:
    found, account = drawn
    for done in (borrow(found, account, n), withdraw_collateral(found, account, n)):
        if done.succeeds:
            assert is_healthy(done.market_after, done.account_after)


@many
@given(markets(), st.integers(0, YEAR), st.integers(0, YEAR))
def test_debt_grows_with_time_and_supply_by_as_much(found: MorphoMarket, sooner: int, later: int) -> None:
    first, last = (accrue(project(found, NOW + s)) for s in sorted((sooner, later)))
    for added in (first, last):
        borrowed = added.market.state.total_borrow_assets_raw - found.state.total_borrow_assets_raw
        supplied = added.market.state.total_supply_assets_raw - found.state.total_supply_assets_raw
        assert borrowed == supplied == added.interest_raw >= 0
    if not isinstance(found.irm, AdaptiveCurveIrm):  # whose mean rate may fall
        assert first.interest_raw <= last.interest_raw
    assert accrue(first.market).market == first.market


@many
@given(markets())
def test_a_fee_takes_from_interest_only(found: MorphoMarket) -> None:
    free = accrue(replace(found, state=replace(found.state, fee_wad=0)))
    taxed = accrue(found)
    before, after = free.market.state, taxed.market.state
    assert after.total_supply_assets_raw == before.total_supply_assets_raw
    own_raw = to_assets_down(taxed.fee_shares, after.total_supply_assets_raw, after.total_supply_shares)
    assert own_raw <= taxed.interest_raw * found.state.fee_wad // WAD
    held = found.state.total_supply_shares
    old_raw = to_assets_down(held, found.state.total_supply_assets_raw, held)
    assert to_assets_down(held, after.total_supply_assets_raw, after.total_supply_shares) >= old_raw


# --- liquidation ------------------------------------------------------------------------------------------


@many
@given(positions(), positive, st.booleans())
def test_a_liquidator_never_gets_more_than_the_incentive(
    drawn: tuple[MorphoMarket, MorphoAccount], n: int, by_shares: bool
) -> None:
    found, account = drawn
    done = liquidate(found, account, 0, n) if by_shares else liquidate(found, account, n, 0)
    assume(done.succeeds)
    factor = Fraction(liquidation_incentive_factor(found.params.lltv_wad), WAD)
    worth = Fraction(done.seized_assets_raw * (found.price_e36 or 0), 10**36)
    assert worth <= done.repaid_assets_raw * factor


@many
@given(positions())
def test_bad_debt_leaves_both_sides_alike_and_nothing_else_is_lost(
    drawn: tuple[MorphoMarket, MorphoAccount],
) -> None:
    found, account = drawn
    assume(account.collateral_raw > 0)
    done = liquidate(found, account, account.collateral_raw, 0)
    assume(done.succeeds)
    before, after = accrue(found).market.state, done.market_after.state
    assert before.total_supply_assets_raw - after.total_supply_assets_raw == done.bad_debt_assets_raw
    repaid_raw = min(done.repaid_assets_raw, before.total_borrow_assets_raw)
    assert before.total_borrow_assets_raw - after.total_borrow_assets_raw == (
        repaid_raw + done.bad_debt_assets_raw
    )
    assert before.total_borrow_shares - after.total_borrow_shares == account.borrow_shares
    assert after.total_supply_shares == before.total_supply_shares
    assert (done.account_after.borrow_shares, done.account_after.collateral_raw) == (0, 0)
    assert done.bad_debt_shares == account.borrow_shares - done.repaid_shares


@many
@given(positions(), st.one_of(positive, st.just(MAX_UINT256)))
def test_a_quote_covers_no_more_than_was_said_and_always_goes_through(
    drawn: tuple[MorphoMarket, MorphoAccount], most_raw: int
) -> None:
    found, account = drawn
    quote = liquidation_quote(found, account, most_raw)
    if quote.succeeds:
        assert quote.debt_repaid_raw <= most_raw
        assert quote.to_liquidator_raw <= account.collateral_raw
    elif account.borrow_shares and account.collateral_raw:
        # What cannot be had is a healthy account's collateral, or less than one unit of it.
        assert quote.revert_code in ("position is healthy", "inconsistent input")


@many
@given(markets(), positive, st.integers(1, 50))
def test_all_there_is_leaves_no_debt_or_no_collateral(
    found: MorphoMarket, collateral_raw: int, below: int
) -> None:
    account = MorphoAccount(ACCOUNT, 0, found.state.total_borrow_shares, collateral_raw)
    owed_raw = borrowed_assets(accrue(found).market.state, account)
    threshold = owed_raw * 10**36 * WAD // (collateral_raw * found.params.lltv_wad)
    price = threshold * (1_000 - below) // 1_000
    quote = liquidation_quote(replace(found, price_e36=price), account, MAX_UINT256)
    if not quote.succeeds:
        # A debt for which there is less than a unit of collateral.
        assert quote.revert_code in ("position is healthy", "inconsistent input")
        return
    assert quote.account_after.borrow_shares == 0
    assert quote.full or quote.account_after.collateral_raw == 0
    # The same amount again is the same call; a unit less leaves debt, or takes all of the collateral.
    assert liquidation_quote(replace(found, price_e36=price), account, quote.debt_repaid_raw) == quote
    if quote.account_after.collateral_raw:
        assert quote.seized_assets_raw < account.collateral_raw
        less = liquidation_quote(replace(found, price_e36=price), account, quote.debt_repaid_raw - 1)
        assert not less.full


# --- rates ------------------------------------------------------------------------------------------------


@many
@given(st.integers(0, WAD), st.integers(0, WAD), st.integers(MIN_RATE_AT_TARGET_WAD, MAX_RATE_AT_TARGET_WAD))
def test_a_fuller_market_pays_more(one: int, other: int, rate_wad: int) -> None:
    low, high = sorted((one, other))
    assert -WAD <= error(low) <= error(high) <= WAD
    assert rate_wad // 4 <= curve(rate_wad, error(low)) <= curve(rate_wad, error(high)) <= 4 * rate_wad


@many
@given(st.integers(-(10**20), 10**20), st.integers(MIN_RATE_AT_TARGET_WAD, MAX_RATE_AT_TARGET_WAD))
def test_a_rate_at_target_moves_the_way_of_its_exponent(x_wad: int, rate_wad: int) -> None:
    moved = new_rate_at_target(rate_wad, x_wad)
    assert MIN_RATE_AT_TARGET_WAD <= moved <= MAX_RATE_AT_TARGET_WAD
    assert moved >= rate_wad if x_wad >= 0 else moved <= rate_wad


@many
@given(st.integers(-(10**19), 10**19))
def test_the_exponential_is_within_a_hundredth(x_wad: int) -> None:
    exact = 2.718_281_828_459_045 ** (x_wad / WAD)
    assert abs(w_exp(x_wad) / WAD - exact) <= 0.01 * exact


@many
@given(st.integers(0, 10**12), st.integers(0, YEAR), st.integers(0, YEAR))
def test_three_terms_of_interest_are_less_than_compounding_twice(
    rate_wad: int, one_s: int, two_s: int
) -> None:
    once = w_taylor_compounded(rate_wad, one_s + two_s)
    assert once >= w_taylor_compounded(rate_wad, one_s) + w_taylor_compounded(rate_wad, two_s) - 2
