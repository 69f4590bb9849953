"""What holds of the Aave V3 model in every state, not only in those that a chain was asked about."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from simulation.fixed_point import BPS, MAX_UINT256, RAY, WAD
from simulation.protocols.aave_v3 import (
    AaveAccount,
    AaveMarket,
    EModeCategory,
    calculate_user_account_data,
    liquidation_quote,
    max_liquidatable,
    project,
)
from simulation.protocols.aave_v3.book import book_of_accounts
from simulation.protocols.aave_v3.configuration import (
    ReserveConfiguration,
    is_borrowing,
    is_using_as_collateral,
    is_using_as_collateral_one,
    set_borrowing,
    set_using_as_collateral,
)
from simulation.protocols.aave_v3.generic_logic import a_token_balance, variable_debt_balance
from simulation.protocols.aave_v3.math_utils import calculate_compounded_interest, calculate_linear_interest
from simulation.types import PositionKind
from tests.aave_states import NOW, account, address, configuration, market, reserve

YEAR = 31_536_000
relaxed = settings(deadline=None)
many = settings(deadline=None, max_examples=300)

DECIMALS = (18, 6, 8)
words = st.integers(0, 2**252 - 1)
indices = st.integers(RAY, 4 * RAY)
prices = st.integers(1, 10**13)


@st.composite
def markets(draw: st.DrawFn) -> AaveMarket:
    """Draw three reserves, the first two in an eMode category."""
    reserves = []
    for i, decimals in enumerate(DECIMALS):
        config = configuration(
            decimals,
            ltv_bps=draw(st.integers(0, 7_000)),
            liquidation_threshold_bps=draw(st.integers(0, 9_000)),
            liquidation_bonus_bps=draw(st.integers(10_000, 12_000)),
            liquidation_protocol_fee_bps=draw(st.integers(0, 10_000)),
            e_mode_category=1 if i < 2 else 0,
        )
        reserves.append(
            reserve(
                i,
                "ABC"[i],
                draw(prices),
                config,
                normalized_income_ray=RAY,
                liquidity_index_ray=draw(indices),
                variable_borrow_index_ray=draw(indices),
                current_liquidity_rate_ray=draw(st.integers(0, RAY)),
                current_variable_borrow_rate_ray=draw(st.integers(0, RAY)),
            )
        )
    category = EModeCategory(1, 9_300, 9_500, 10_100)
    return project(market(*reserves, e_modes=(category,)), NOW + draw(st.integers(0, YEAR)))


@st.composite
def accounts(draw: st.DrawFn) -> AaveAccount:
    """Draw an account with up to three collaterals and debts, from one raw unit to more than a whale's."""
    amounts = st.dictionaries(st.integers(0, 2), st.integers(1, 10**24), max_size=3)
    return account(draw(amounts), draw(amounts), e_mode_category=draw(st.sampled_from((0, 1))))


@st.composite
def liquidations(draw: st.DrawFn) -> tuple[AaveMarket, AaveAccount, int, int]:
    """Draw a market, an account that is mostly short of collateral, and one of its debts and collaterals."""
    state, holder = draw(markets()), draw(accounts())
    collateral, debt = draw(st.integers(0, 2)), draw(st.integers(0, 2))
    held = {p.reserve_id: p.scaled_a_token_raw for p in holder.positions if p.scaled_a_token_raw}
    owed = {p.reserve_id: p.scaled_variable_debt_raw for p in holder.positions if p.scaled_variable_debt_raw}
    held.setdefault(collateral, draw(st.integers(1, 10**22)))
    safe = calculate_user_account_data(state, account(held, {}, e_mode_category=holder.e_mode_category))
    lent_in = state.reserves[debt]
    assert lent_in is not None
    price = lent_in.price_base or 1
    counted = safe.total_collateral_base * safe.current_liquidation_threshold_bps // BPS
    owed[debt] = 1 + counted * draw(st.integers(40, 400)) // 100 * lent_in.configuration.unit // price
    return state, account(held, owed, e_mode_category=holder.e_mode_category), debt, collateral


@given(words)
@relaxed
def test_configuration_words_survive_unpacking(word: int) -> None:
    assert ReserveConfiguration.unpack(word).pack() == word


@given(st.integers(0, 2**256 - 1), st.integers(0, 127), st.booleans())
@relaxed
def test_one_flag_is_set_and_no_other(word: int, i: int, value: bool) -> None:
    borrowed, used = set_borrowing(word, i, value), set_using_as_collateral(word, i, value)
    assert is_borrowing(borrowed, i) is value
    assert is_using_as_collateral(used, i) is value
    assert (borrowed ^ word) & ~(1 << 2 * i) == 0
    assert (used ^ word) & ~(2 << 2 * i) == 0
    count = sum(is_using_as_collateral(word, j) for j in range(128))
    assert is_using_as_collateral_one(word) is (count == 1)


@given(st.integers(0, 2 * RAY), st.integers(0, 3 * YEAR), st.integers(0, YEAR))
@relaxed
def test_interest_grows_and_compounds(rate: int, elapsed: int, more: int) -> None:
    linear, compounded = (
        calculate_linear_interest(rate, elapsed),
        calculate_compounded_interest(rate, elapsed),
    )
    assert RAY <= linear <= compounded
    assert compounded <= calculate_compounded_interest(rate, elapsed + more)
    # The expansion stops at the third term, so it never exceeds the exponential.
    exact = Fraction(rate * elapsed, RAY * YEAR)
    assert Fraction(compounded, RAY) <= 1 + exact + exact**2 / 2 + exact**3 / 6


@given(markets(), accounts())
@relaxed
def test_account_data_is_the_textbooks_up_to_rounding(state: AaveMarket, holder: AaveAccount) -> None:
    data = calculate_user_account_data(state, holder)
    collateral = weighted = debt = Fraction(0)
    thresholds = []
    for r in state.listed():
        price, unit = Fraction(r.price_base or 0), r.configuration.unit
        position = holder.position(r.id)
        threshold = r.configuration.liquidation_threshold_bps
        if is_using_as_collateral(holder.user_configuration, r.id) and threshold:
            if holder.e_mode_category and r.configuration.e_mode_category:
                threshold = 9_500
            value = a_token_balance(state.rules, r, position) * price / unit
            collateral, weighted = collateral + value, weighted + value * threshold
            thresholds.append(threshold)
        if is_borrowing(holder.user_configuration, r.id):
            debt += variable_debt_balance(state.rules, r, position) * price / unit
    assert collateral - 3 < data.total_collateral_base <= collateral
    assert debt - 3 < data.total_debt_base <= debt
    if thresholds and data.total_collateral_base:
        assert min(thresholds) <= data.current_liquidation_threshold_bps <= max(thresholds)
    if data.total_debt_base == 0:
        assert data.health_factor_wad == MAX_UINT256
    else:
        adjusted = Fraction(data.total_collateral_base * data.current_liquidation_threshold_bps, BPS)
        distance = abs(Fraction(data.health_factor_wad, WAD) - adjusted / data.total_debt_base)
        assert distance <= Fraction(1, 2) / data.total_debt_base + Fraction(1, 2 * WAD)
    assert data.available_borrows_base == max(
        0, (data.total_collateral_base * data.ltv_bps + BPS // 2) // BPS - data.total_debt_base
    )


@given(liquidations(), st.integers(1, 100), st.booleans())
@many
def test_a_liquidation_takes_no_more_than_it_may(
    case: tuple[AaveMarket, AaveAccount, int, int], percent: int, receive: bool
) -> None:
    state, debtor, debt, collateral = case
    to_cover = debtor.position(debt).scaled_variable_debt_raw * percent // 100
    quote = liquidation_quote(
        state, debtor, address(debt), address(collateral), to_cover, receive_a_token=receive
    )
    if not quote.succeeds:
        assert quote.account_after is debtor
        assert (quote.debt_repaid_raw, quote.to_liquidator_raw, quote.protocol_fee_raw) == (0, 0, 0)
        return
    owed_in, held_in = state.reserves[debt], state.reserves[collateral]
    assert owed_in is not None
    assert held_in is not None
    owed = variable_debt_balance(state.rules, owed_in, debtor.position(debt))
    held = a_token_balance(state.rules, held_in, debtor.position(collateral))
    assert quote.health_factor_wad is not None
    assert quote.health_factor_wad < WAD
    assert 0 < quote.debt_repaid_raw <= owed
    if not quote.collateral_exhausted:
        assert quote.debt_repaid_raw <= min(to_cover, (owed * quote.close_factor_bps + BPS // 2) // BPS)
    assert 0 <= quote.protocol_fee_raw <= quote.collateral_seized_raw <= held
    assert quote.full is (not is_borrowing(quote.account_after.user_configuration, debt))
    after = quote.account_after
    for r in state.listed():
        before, left = debtor.position(r.id), after.position(r.id)
        assert 0 <= left.scaled_a_token_raw <= before.scaled_a_token_raw
        assert 0 <= left.scaled_variable_debt_raw <= before.scaled_variable_debt_raw
    if quote.full:
        assert after.position(debt).scaled_variable_debt_raw == 0


@given(liquidations())
@many
def test_the_most_is_what_any_larger_request_gives(case: tuple[AaveMarket, AaveAccount, int, int]) -> None:
    state, debtor, debt, collateral = case
    most = max_liquidatable(state, debtor, address(debt), address(collateral))
    assume(most.succeeds)
    owed_in = state.reserves[debt]
    assert owed_in is not None
    owed = variable_debt_balance(state.rules, owed_in, debtor.position(debt))
    assert liquidation_quote(state, debtor, address(debt), address(collateral), owed) == most


@given(markets(), accounts())
@relaxed
def test_other_prices_and_back_are_the_same_market(state: AaveMarket, holder: AaveAccount) -> None:
    prices = state.prices_base
    doubled = state.with_prices({key: 2 * price for key, price in prices.items()})
    assert doubled.with_prices(prices) == state
    before, after = (calculate_user_account_data(m, holder) for m in (state, doubled))
    assert after.total_debt_base // 2 in range(before.total_debt_base, before.total_debt_base + 3)


@given(markets(), accounts())
@relaxed
def test_the_book_holds_what_the_contract_counts(state: AaveMarket, holder: AaveAccount) -> None:
    unknown = replace(holder, account="0x" + "bB" * 20)
    book = book_of_accounts("aave-v3", state, [holder.account, unknown.account], [holder, None])
    assert book.row_ptr[1] == book.row_ptr[2] == holder.user_configuration.bit_count()
    assert book.exact[1] is None
    assert book.known.tolist() == [True, False]
    data = calculate_user_account_data(state, holder)
    price = np.array([float(r.price_base or 0) for r in state.listed()])[book.asset]
    value, is_debt = book.amount * price, book.kind == int(PositionKind.DEBT)
    np.testing.assert_allclose(value[is_debt].sum(), float(data.total_debt_base), rtol=1e-12, atol=3)
    counted = (~is_debt) & (book.weight > 0)
    np.testing.assert_allclose(value[counted].sum(), float(data.total_collateral_base), rtol=1e-12, atol=3)
    if data.total_collateral_base > 10**6:
        average = (value * book.weight)[counted].sum() / value[counted].sum()
        assert -1e-5 < average - data.current_liquidation_threshold_bps / BPS < 1.1e-4
