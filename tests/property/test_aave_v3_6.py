"""What holds of the Aave V3.6 model in every state, not only in those that a chain was asked about."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from simulation.fixed_point import BPS, MAX_UINT256, RAY, WAD, ceil_div
from simulation.protocols.aave_v3 import AaveAccount
from simulation.protocols.aave_v3 import math_utils as rev_1
from simulation.protocols.aave_v3.configuration import (
    COLLATERAL_MASK,
    ReserveConfiguration,
    is_borrowing,
    is_using_as_collateral,
)
from simulation.protocols.aave_v3_6 import (
    AaveMarket,
    EModeCategory,
    ReserveData,
    calculate_user_account_data,
    liquidation_quote,
    max_liquidatable,
    project,
)
from simulation.protocols.aave_v3_6.errors import MEANING
from simulation.protocols.aave_v3_6.generic_logic import a_token_balance, variable_debt_balance
from simulation.protocols.aave_v3_6.liquidation_logic import MIN_LEFTOVER_BASE
from simulation.protocols.aave_v3_6.math_utils import calculate_compounded_interest
from simulation.protocols.aave_v3_6.token_math import (
    get_a_token_balance,
    get_a_token_burn_scaled_amount,
    get_v_token_balance,
    get_v_token_burn_scaled_amount,
)
from simulation.types import Asset
from tests.aave_states import NOW, account, address, configuration

YEAR = 31_536_000
relaxed = settings(deadline=None)
many = settings(deadline=None, max_examples=300)

DECIMALS = (18, 6, 8)
indices = st.integers(RAY, 4 * RAY)
prices = st.integers(1, 10**13)
amounts = st.integers(0, 2**120 - 1)


def reserve(reserve_id: int, price: int, config: ReserveConfiguration, **changes: int) -> ReserveData:
    plain = ReserveData(
        asset=Asset("ABC"[reserve_id], address(reserve_id), config.decimals),
        id=reserve_id,
        configuration=config,
        a_token=f"0xa{reserve_id:039x}",
        variable_debt_token=f"0xc{reserve_id:039x}",
        liquidity_index_ray=RAY,
        variable_borrow_index_ray=RAY,
        current_liquidity_rate_ray=0,
        current_variable_borrow_rate_ray=0,
        last_update_timestamp=NOW,
        normalized_income_ray=RAY,
        normalized_variable_debt_ray=RAY,
        scaled_a_token_supply_raw=10**30,
        virtual_underlying_balance_raw=10**30,
        token_balance_raw=10**30,
        deficit_raw=0,
        liquidation_grace_period_until=0,
        isolation_mode_total_debt=0,
        price_base=price,
    )
    return replace(plain, **changes)


@st.composite
def markets(draw: st.DrawFn) -> AaveMarket:
    """Draw three reserves, some of them collateral of an eMode category."""
    reserves = []
    for i, decimals in enumerate(DECIMALS):
        config = configuration(
            decimals,
            ltv_bps=draw(st.integers(0, 7_000)),
            liquidation_threshold_bps=draw(st.integers(0, 9_000)),
            liquidation_bonus_bps=draw(st.integers(10_000, 12_000)),
            liquidation_protocol_fee_bps=draw(st.integers(0, 10_000)),
        )
        reserves.append(
            reserve(
                i,
                draw(prices),
                config,
                liquidity_index_ray=draw(indices),
                variable_borrow_index_ray=draw(indices),
                current_liquidity_rate_ray=draw(st.integers(0, RAY)),
                current_variable_borrow_rate_ray=draw(st.integers(0, RAY)),
            )
        )
    bitmaps = st.integers(0, 7)
    category = EModeCategory(1, 9_300, 9_500, 10_100, draw(bitmaps), 7, draw(bitmaps))
    market = AaveMarket(1, NOW, tuple(reserves), {1: category}, flash_loan_premium_bps=5)
    return project(market, NOW + 1 + draw(st.integers(0, YEAR)))


@st.composite
def liquidations(draw: st.DrawFn) -> tuple[AaveMarket, AaveAccount, int, int]:
    """Draw a market, an account that is mostly short of collateral, and one of its debts and collaterals."""
    state = draw(markets())
    balances = st.dictionaries(st.integers(0, 2), st.integers(1, 10**24), max_size=3)
    held, owed = draw(balances), draw(balances)
    collateral, debt = draw(st.integers(0, 2)), draw(st.integers(0, 2))
    held.setdefault(collateral, draw(st.integers(1, 10**22)))
    mode = draw(st.sampled_from((0, 1)))
    safe = calculate_user_account_data(state, account(held, {}, e_mode_category=mode))
    lent_in = state.reserves[debt]
    assert lent_in is not None
    counted = safe.weighted_liquidation_threshold // BPS
    if draw(st.booleans()):
        owed = {}
    owed[debt] = 1 + counted * draw(st.integers(40, 400)) // 100 * lent_in.configuration.unit // (
        lent_in.price_base or 1
    )
    return state, account(held, owed, e_mode_category=mode), debt, collateral


@given(amounts, indices)
@relaxed
def test_rounding_is_always_for_the_protocol(raw: int, index: int) -> None:
    exact = Fraction(raw * index, RAY)
    assert exact - 1 < get_a_token_balance(raw, index) <= exact
    assert exact <= get_v_token_balance(raw, index) < exact + 1
    # Taking out what a balance is worth burns all of it or less; repaying a debt whole burns it whole.
    assert get_a_token_burn_scaled_amount(get_a_token_balance(raw, index), index) <= raw
    assert get_v_token_burn_scaled_amount(get_v_token_balance(raw, index), index) == raw
    # What is burnt is worth at least what is paid out, and at most what is repaid.
    assert get_a_token_balance(get_a_token_burn_scaled_amount(raw, index), index) >= raw
    assert get_v_token_balance(get_v_token_burn_scaled_amount(raw, index), index) <= raw


@given(st.integers(0, 2 * RAY), st.integers(0, 3 * YEAR), st.integers(0, YEAR))
@relaxed
def test_interest_grows_and_compounds(rate: int, elapsed: int, more: int) -> None:
    linear = rev_1.calculate_linear_interest(rate, elapsed)
    compounded = calculate_compounded_interest(rate, elapsed)
    assert RAY <= linear <= compounded <= calculate_compounded_interest(rate, elapsed + more)
    exact = Fraction(rate * elapsed, RAY * YEAR)
    series = 1 + exact + exact**2 / 2 + exact**3 / 6
    assert abs(Fraction(compounded, RAY) - series) <= (3 + 2 * exact + exact**2) / RAY


@given(markets(), st.data())
@relaxed
def test_account_data_is_the_textbooks_up_to_rounding(state: AaveMarket, data: st.DataObject) -> None:
    balances = st.dictionaries(st.integers(0, 2), st.integers(1, 10**24), max_size=3)
    holder = account(data.draw(balances), data.draw(balances), e_mode_category=data.draw(st.integers(0, 1)))
    found = calculate_user_account_data(state, holder)
    category = state.e_mode_categories[1]
    collateral = weighted = debt = Fraction(0)
    for r in state.listed():
        price, unit = Fraction(r.price_base or 0), r.configuration.unit
        position = holder.position(r.id)
        in_mode = holder.e_mode_category == 1 and category.collateral_bitmap >> r.id & 1
        threshold = (
            category.liquidation_threshold_bps if in_mode else r.configuration.liquidation_threshold_bps
        )
        if is_using_as_collateral(holder.user_configuration, r.id):
            value = a_token_balance(r, position) * price / unit
            collateral, weighted = collateral + value, weighted + value * threshold
        if is_borrowing(holder.user_configuration, r.id):
            debt += variable_debt_balance(r, position) * price / unit
    assert collateral - 3 < found.total_collateral_base <= collateral
    assert debt <= found.total_debt_base < debt + 3
    assert weighted - 3 * BPS < found.weighted_liquidation_threshold <= weighted
    if found.total_debt_base == 0:
        assert found.health_factor_wad == MAX_UINT256
    else:
        exact = Fraction(found.weighted_liquidation_threshold, BPS * found.total_debt_base)
        assert abs(Fraction(found.health_factor_wad, WAD) - exact) <= Fraction(1, WAD)
    if found.total_collateral_base:
        assert found.current_liquidation_threshold_bps == (
            found.weighted_liquidation_threshold // found.total_collateral_base
        )
    assert found.available_borrows_base == max(
        0, found.total_collateral_base * found.ltv_bps // BPS - found.total_debt_base
    )


@given(liquidations(), st.integers(1, 110), st.booleans())
@many
def test_a_liquidation_takes_no_more_than_it_may(
    case: tuple[AaveMarket, AaveAccount, int, int], percent: int, receive: bool
) -> None:
    state, debtor, debt, collateral = case
    owed_in, held_in = state.reserves[debt], state.reserves[collateral]
    assert owed_in is not None
    assert held_in is not None
    owed = variable_debt_balance(owed_in, debtor.position(debt))
    held = a_token_balance(held_in, debtor.position(collateral))
    to_cover = owed * percent // 100
    quote = liquidation_quote(
        state, debtor, address(debt), address(collateral), to_cover, receive_a_token=receive
    )
    if not quote.succeeds:
        assert quote.account_after is debtor
        assert quote.revert_code in MEANING
        assert (quote.debt_repaid_raw, quote.to_liquidator_raw, quote.deficits_raw) == (0, 0, ())
        return
    assert quote.health_factor_wad is not None
    assert quote.health_factor_wad < WAD
    assert 0 <= quote.debt_repaid_raw <= min(owed, to_cover)
    assert quote.full is (quote.debt_repaid_raw == owed)
    assert 0 <= quote.protocol_fee_raw <= quote.collateral_seized_raw <= held
    after = quote.account_after
    for r in state.listed():
        before, left = debtor.position(r.id), after.position(r.id)
        assert 0 <= left.scaled_a_token_raw <= before.scaled_a_token_raw
        assert 0 <= left.scaled_variable_debt_raw <= before.scaled_variable_debt_raw
        # A flag stands for a debt, and the other way round.
        assert is_borrowing(after.user_configuration, r.id) is (left.scaled_variable_debt_raw > 0)

    # Nothing small is left on either side, unless the other side is empty.
    left_owed, left_held = owed - quote.debt_repaid_raw, held - quote.collateral_seized_raw
    if left_owed > 0 and not quote.collateral_exhausted and not quote.deficits_raw:
        price, unit = owed_in.price_base or 0, owed_in.configuration.unit
        assert ceil_div(left_owed * price, unit) >= MIN_LEFTOVER_BASE
        price, unit = held_in.price_base or 0, held_in.configuration.unit
        assert left_held * price // unit >= MIN_LEFTOVER_BASE

    # What is owed is repaid, still owed, or a deficit.
    burnt = dict(quote.deficits_raw)
    if burnt:
        assert not any(p.scaled_variable_debt_raw for p in after.positions)
        for r in state.listed():
            was = variable_debt_balance(r, debtor.position(r.id))
            assert was == burnt.get(r.id, 0) + (quote.debt_repaid_raw if r.id == debt else 0)


@given(liquidations())
@many
def test_the_most_is_what_any_larger_request_gives(case: tuple[AaveMarket, AaveAccount, int, int]) -> None:
    state, debtor, debt, collateral = case
    most = max_liquidatable(state, debtor, address(debt), address(collateral))
    assume(most.succeeds)
    owed_in = state.reserves[debt]
    assert owed_in is not None
    owed = variable_debt_balance(owed_in, debtor.position(debt))
    assert liquidation_quote(state, debtor, address(debt), address(collateral), owed) == most


@given(liquidations())
@many
def test_bad_debt_is_burnt_when_the_last_collateral_goes(
    case: tuple[AaveMarket, AaveAccount, int, int],
) -> None:
    state, debtor, debt, collateral = case
    quote = max_liquidatable(state, debtor, address(debt), address(collateral))
    assume(quote.succeeds)
    left = quote.account_after
    if quote.collateral_exhausted and (debtor.user_configuration & COLLATERAL_MASK).bit_count() == 1:
        assert not any(p.scaled_variable_debt_raw for p in left.positions)
    if any(p.scaled_variable_debt_raw for p in left.positions):
        assert not quote.deficits_raw


@given(liquidations())
@relaxed
def test_nobody_liquidates_himself_or_in_a_grace_period(
    case: tuple[AaveMarket, AaveAccount, int, int],
) -> None:
    state, debtor, debt, collateral = case
    pair = address(debt), address(collateral), MAX_UINT256
    himself = liquidation_quote(state, debtor, *pair, liquidator=debtor.account.lower())
    assert himself.revert_code == "SelfLiquidation"
    reserves = tuple(r and replace(r, liquidation_grace_period_until=state.timestamp) for r in state.reserves)
    graced = liquidation_quote(replace(state, reserves=reserves), debtor, *pair)
    assert graced.revert_code == "LiquidationGraceSentinelCheckFailed"


@given(markets(), st.data())
@relaxed
def test_other_prices_and_back_are_the_same_market(state: AaveMarket, data: st.DataObject) -> None:
    prices_base = state.prices_base
    other = {key: data.draw(prices) for key in prices_base}
    assert state.with_prices(other).with_prices(prices_base) == state
    assert state.with_prices({}).prices_base == {}
