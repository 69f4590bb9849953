"""Aave V2 by hand: interest, rates, health in ether, and liquidations with every way they are refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from contracts_abi.errors import InputError
from simulation.fixed_point import MAX_UINT256, RAY, WAD
from simulation.protocols.aave_v2 import (
    AaveV2,
    AaveV2Account,
    AaveV2Market,
    AaveV2Position,
    AaveV2Reserve,
    InterestRateStrategy,
    calculate_interest_rates,
    calculate_user_account_data,
    liquidation_quote,
    update_interest_rates,
    update_state,
)
from simulation.protocols.aave_v2 import errors as e
from simulation.protocols.aave_v2.collateral_manager import calculate_available_collateral_to_liquidate
from simulation.protocols.aave_v2.math_utils import calculate_compounded_interest
from simulation.protocols.aave_v2.reserve_logic import (
    get_normalized_debt,
    get_normalized_income,
    stable_debt_balance,
    total_stable_debt,
)
from simulation.protocols.aave_v3.configuration import set_borrowing, set_using_as_collateral
from simulation.protocols.aave_v3.math_utils import calculate_compounded_interest as compounded_v3
from simulation.types import Asset, MarginStatus
from tests.aave_states import NOW, address, configuration

USD = 10**6
WETH, USDC = address(0), address(1)


def reserve(
    reserve_id: int, symbol: str, price_wei: int | None, decimals: int, **changes: Any
) -> AaveV2Reserve:
    """Return a reserve with indices of 1 and all the liquidity one could want."""
    config = configuration(decimals, liquidation_threshold_bps=8_250, liquidation_protocol_fee_bps=0)
    plain = AaveV2Reserve(
        asset=Asset(symbol, address(reserve_id), decimals),
        id=reserve_id,
        configuration=config,
        liquidity_index_ray=RAY,
        variable_borrow_index_ray=RAY,
        current_liquidity_rate_ray=0,
        current_variable_borrow_rate_ray=0,
        last_update_timestamp=NOW,
        scaled_variable_debt_raw=10**30,
        available_liquidity_raw=10**30,
        price_wei=price_wei,
    )
    return replace(plain, **changes)


def market(**changes: Any) -> AaveV2Market:
    """Return a pool of ether and a dollar of 1/200 ether."""
    pool = AaveV2Market(NOW, (reserve(0, "WETH", WAD, 18), reserve(1, "USDC", WAD // 200, 6)))
    return replace(pool, **changes)


def borrower(
    weth_wad: int = 10 * WAD, variable_raw: int = 1_000 * USD, stable_raw: int = 700 * USD
) -> AaveV2Account:
    """Return who has ether and owes dollars at both rates."""
    word = set_borrowing(set_using_as_collateral(0, 0, True), 1, True)
    dollars = AaveV2Position(1, 0, variable_raw, stable_raw, 0, NOW)
    return AaveV2Account("borrower", word, (AaveV2Position(0, weth_wad), dollars))


def with_reserve(pool: AaveV2Market, reserve_id: int, **changes: Any) -> AaveV2Market:
    """Return the pool with one reserve changed."""
    reserves = tuple(replace(r, **changes) if r.id == reserve_id else r for r in pool.reserves)
    return replace(pool, reserves=reserves)


# ------------------------------------------------------------------------------------------- interest, rates


def test_compounded_interest_of_a_rate_that_is_one_billionth_a_second() -> None:
    # 1e-9 a second: its square is 1e9 ray, its cube 1 ray; 1000 seconds.
    by_hand = RAY + 1_000 * 10**18 + 1_000 * 999 * 10**9 // 2 + 1_000 * 999 * 998 // 6
    assert calculate_compounded_interest(31_536_000 * 10**18, 1_000) == by_hand


def test_a_rate_is_cut_to_a_second_before_it_is_raised_to_powers() -> None:
    # Half of a ray's unit a second is lost whole by V2 and kept by V3 over two seconds.
    assert calculate_compounded_interest(31_536_000 // 2, 2) == RAY
    assert compounded_v3(31_536_000 // 2, 2) == RAY + 1
    assert calculate_compounded_interest(RAY // 20, 31_536_000) != compounded_v3(RAY // 20, 31_536_000)
    assert calculate_compounded_interest(RAY, 0) == RAY
    assert calculate_compounded_interest(RAY, 1) == RAY + RAY // 31_536_000


CURVE = InterestRateStrategy(
    8 * RAY // 10, 0, 4 * RAY // 100, 75 * RAY // 100, 2 * RAY // 100, 60 * RAY // 100
)


def test_the_rate_curve_below_and_above_its_kink() -> None:
    low = calculate_interest_rates(
        CURVE,
        available_liquidity_raw=600,
        total_stable_debt_raw=0,
        total_variable_debt_raw=400,
        market_stable_rate_ray=3 * RAY // 100,
        reserve_factor_bps=1_000,
    )
    assert low.variable_borrow_ray == 2 * RAY // 100  # half of the way to the kink
    assert low.stable_borrow_ray == 4 * RAY // 100  # 3 % + half of 2 %
    assert low.liquidity_ray == 72 * RAY // 10_000  # 2 % * 0.4 * 0.9

    high = calculate_interest_rates(
        CURVE,
        available_liquidity_raw=100,
        total_stable_debt_raw=300,
        total_variable_debt_raw=600,
        average_stable_rate_ray=RAY // 10,
    )
    assert high.variable_borrow_ray == 415 * RAY // 1_000  # 4 % + half of 75 %
    assert high.stable_borrow_ray == 32 * RAY // 100
    # (600 * 41.5 % + 300 * 10 %) / 900 = 31 %, of which 90 % of the money earns
    assert high.liquidity_ray == 279 * RAY // 1_000


def test_nothing_lent_earns_nothing() -> None:
    rates = calculate_interest_rates(
        CURVE, available_liquidity_raw=0, total_stable_debt_raw=0, total_variable_debt_raw=0
    )
    assert (rates.liquidity_ray, rates.variable_borrow_ray) == (0, 0)
    with pytest.raises(InputError, match="optimal_utilization_ray"):
        InterestRateStrategy(RAY, 0, 0, 0)


def test_indices_grow_and_the_treasury_gets_its_share() -> None:
    half_year = 31_536_000 // 2
    before = reserve(
        1,
        "USDC",
        WAD,
        6,
        scaled_variable_debt_raw=1_000 * USD,
        current_liquidity_rate_ray=RAY // 10,
        current_variable_borrow_rate_ray=RAY // 5,
    )
    before = replace(before, configuration=replace(before.configuration, reserve_factor_bps=1_000))
    after, minted_scaled_raw = update_state(before, NOW + half_year)
    assert after.liquidity_index_ray == 105 * RAY // 100 == get_normalized_income(before, NOW + half_year)
    growth_ray = calculate_compounded_interest(RAY // 5, half_year)
    assert after.variable_borrow_index_ray == growth_ray == get_normalized_debt(before, NOW + half_year)
    interest_raw = (1_000 * USD * growth_ray + RAY // 2) // RAY - 1_000 * USD
    assert minted_scaled_raw == pytest.approx(interest_raw / 10 / 1.05, abs=1)
    assert after.last_update_timestamp == NOW + half_year


def test_the_stored_debt_index_stands_while_lenders_earn_nothing() -> None:
    before = reserve(1, "USDC", WAD, 6, current_variable_borrow_rate_ray=RAY // 5)
    after, minted_raw = update_state(before, NOW + 86_400)
    assert after.variable_borrow_index_ray == RAY < get_normalized_debt(before, NOW + 86_400)
    assert minted_raw == 0


def test_stable_debt_grows_at_the_borrowers_own_rate_and_in_all_at_the_average() -> None:
    rate_ray = 31_536_000 * 10**18
    position = AaveV2Position(1, 0, 0, 10**27, rate_ray, NOW)
    assert stable_debt_balance(position, NOW + 1_000) == calculate_compounded_interest(rate_ray, 1_000)
    whole = reserve(
        1,
        "USDC",
        WAD,
        6,
        stable_principal_raw=10**27,
        average_stable_rate_ray=2 * rate_ray,
        stable_timestamp=NOW,
    )
    assert total_stable_debt(whole, NOW + 1_000) == calculate_compounded_interest(2 * rate_ray, 1_000)


def test_rates_after_a_repayment() -> None:
    before = reserve(1, "USDC", WAD, 6, scaled_variable_debt_raw=400, available_liquidity_raw=500)
    after, rates = update_interest_rates(before, CURVE, liquidity_added_raw=100)
    assert after.available_liquidity_raw == 600
    assert rates.variable_borrow_ray == after.current_variable_borrow_rate_ray == 2 * RAY // 100
    with pytest.raises(InputError, match="501 taken of 500"):
        update_interest_rates(before, CURVE, liquidity_taken_raw=501)
    with pytest.raises(InputError, match="before the last update"):
        update_state(before, NOW - 1)


# -------------------------------------------------------------------------------------------------- health


def test_health_in_ether() -> None:
    data = calculate_user_account_data(market(), borrower())
    # 10 ether of which 82.5 % count, against 1700 dollars at 1/200 ether
    assert data.words() == (10 * WAD, 85 * WAD // 10, 0, 8_250, 8_000, 970_588_235_294_117_647)
    assert AaveV2().status(market(), borrower()) is MarginStatus.LIQUIDATABLE
    assert AaveV2().status(market(), borrower(weth_wad=11 * WAD)) is MarginStatus.HEALTHY


def test_a_health_factor_of_exactly_one_is_healthy() -> None:
    # 8.25 ether counted, 1650 dollars owed
    level = borrower(variable_raw=1_650 * USD, stable_raw=0)
    assert calculate_user_account_data(market(), level).health_factor_wad == WAD
    assert AaveV2().status(market(), level) is MarginStatus.HEALTHY
    quote = liquidation_quote(market(), level, USDC, WETH, MAX_UINT256)
    assert quote.revert_code == e.HEALTH_FACTOR_NOT_BELOW_THRESHOLD == "42"


def test_no_debt_and_no_price_are_states_of_their_own() -> None:
    nothing_owed = AaveV2Account("lender", set_using_as_collateral(0, 0, True), (AaveV2Position(0, WAD),))
    assert AaveV2().status(market(), nothing_owed) is MarginStatus.NO_DEBT
    blind = market().with_prices({"WETH": WAD})
    assert AaveV2().status(blind, borrower()) is MarginStatus.UNKNOWN
    assert liquidation_quote(blind, borrower(), USDC, WETH, 1).revert_code == e.LIQUIDATION_CALL_FAILED


# ---------------------------------------------------------------------------------------------- liquidation


def test_half_of_the_debt_at_both_rates_is_repaid_variable_first() -> None:
    quote = liquidation_quote(market(), borrower(), USDC, WETH, MAX_UINT256)
    assert quote.revert_code is None
    assert quote.debt_repaid_raw == 850 * USD  # half of 1000 + 700
    assert quote.collateral_seized_raw == 44_625 * WAD // 10_000  # 4.25 ether and 5 %
    assert quote.account_after.position(1).scaled_variable_debt_raw == 150 * USD
    assert quote.account_after.position(1).stable_principal_raw == 700 * USD
    assert quote.account_after.position(0).scaled_a_token_raw == 10 * WAD - 44_625 * WAD // 10_000
    assert not quote.collateral_exhausted


def test_what_variable_debt_does_not_cover_is_taken_off_the_stable_debt() -> None:
    deep = borrower(variable_raw=100 * USD, stable_raw=1_600 * USD)
    after = liquidation_quote(market(), deep, USDC, WETH, MAX_UINT256).account_after.position(1)
    assert (after.scaled_variable_debt_raw, after.stable_principal_raw) == (0, 850 * USD)
    assert after.stable_timestamp == NOW


def test_the_close_factor_is_half_however_deep() -> None:
    crash = market().with_prices({"WETH": WAD, "USDC": WAD // 100})  # health below 0.5
    quote = liquidation_quote(crash, borrower(), USDC, WETH, MAX_UINT256)
    assert quote.debt_repaid_raw == 850 * USD
    assert quote.health_factor_wad is not None
    assert quote.health_factor_wad < WAD // 2


def test_collateral_that_does_not_suffice_goes_whole_and_its_debt_is_worked_back() -> None:
    crash = market().with_prices({"WETH": WAD, "USDC": WAD // 50})  # 850 dollars are 17 ether
    quote = liquidation_quote(crash, borrower(), USDC, WETH, MAX_UINT256)
    assert quote.collateral_seized_raw == 10 * WAD
    assert quote.debt_repaid_raw == 476_190_476  # 500 dollars over 1.05
    assert quote.collateral_exhausted
    assert quote.account_after.user_configuration == set_borrowing(0, 1, True)


def test_the_last_wei_is_repaid_and_the_borrowing_bit_stays() -> None:
    # Half of one unit rounds up to one: this is how V2 can repay a debt whole.
    dust = with_reserve(market(), 1, price_wei=2 * WAD * USD)
    tiny = borrower(weth_wad=WAD, variable_raw=1, stable_raw=0)
    quote = liquidation_quote(dust, tiny, USDC, WETH, 5)
    assert quote.debt_repaid_raw == 0  # all of the collateral pays for less than one unit
    assert quote.revert_code == e.LIQUIDATION_CALL_FAILED  # and nothing can be burnt
    rich = borrower(weth_wad=225 * WAD // 100, variable_raw=1, stable_raw=0)
    quote = liquidation_quote(dust, rich, USDC, WETH, 5)
    assert (quote.revert_code, quote.debt_repaid_raw) == (None, 1)
    assert quote.account_after.position(1).scaled_variable_debt_raw == 0
    assert quote.account_after.user_configuration == rich.user_configuration


def test_the_bonus_comes_before_the_division_by_prices() -> None:
    # 20.99 units of collateral: V2 gives 22.0395 cut to 22; V3 would cut to 20 first and give 21.
    collateral, debt = reserve(0, "A", 100, 0), reserve(1, "B", 2_099, 0)
    seized_raw, _ = calculate_available_collateral_to_liquidate(
        collateral, debt, debt_to_cover_raw=1, collateral_balance_raw=1_000
    )
    assert seized_raw == 22


def test_the_debt_worked_back_never_exceeds_what_was_offered() -> None:
    # Nine units of collateral of 9.45 wanted pay for 8.57 units of debt: 9 half up, as many as were offered.
    pool = market()
    pool = replace(pool, reserves=(reserve(0, "A", WAD, 0), reserve(1, "B", WAD, 0)))
    account = borrower(weth_wad=9, variable_raw=18, stable_raw=0)
    quote = liquidation_quote(pool, account, USDC, WETH, 9)
    assert (quote.collateral_seized_raw, quote.debt_repaid_raw) == (9, 9)


def test_liquidity_is_asked_for_only_when_the_token_is_paid_out() -> None:
    empty = with_reserve(market(), 0, available_liquidity_raw=44_625 * WAD // 10_000 - 1)
    assert liquidation_quote(empty, borrower(), USDC, WETH, MAX_UINT256).revert_code == "45"
    quote = liquidation_quote(empty, borrower(), USDC, WETH, MAX_UINT256, receive_a_token=True)
    assert quote.succeeds
    enough = with_reserve(market(), 0, available_liquidity_raw=44_625 * WAD // 10_000)
    assert liquidation_quote(enough, borrower(), USDC, WETH, MAX_UINT256).succeeds


def inactive(pool: AaveV2Market, reserve_id: int) -> AaveV2Market:
    """Return the pool with a reserve switched off."""
    config = replace(pool.reserves[reserve_id].configuration, active=False)
    return with_reserve(pool, reserve_id, configuration=config)


@pytest.mark.parametrize(
    ("pool", "account", "debt", "collateral", "cover_raw", "code"),
    [
        pytest.param(market(paused=True), borrower(), USDC, WETH, 1, "64", id="paused"),
        pytest.param(inactive(market(), 0), borrower(), USDC, WETH, 1, "2", id="collateral inactive"),
        pytest.param(inactive(market(), 1), borrower(), USDC, WETH, 1, "2", id="debt inactive"),
        pytest.param(market(), borrower(11 * WAD), USDC, WETH, 1, "42", id="healthy"),
        pytest.param(market(), borrower(), USDC, USDC, 1, "43", id="no collateral"),
        pytest.param(market(), borrower(), WETH, WETH, 1, "44", id="not owed"),
        pytest.param(market(), borrower(), USDC, WETH, 0, "23", id="nothing to burn"),
        pytest.param(market(), borrower(), USDC, address(7), 1, "2", id="collateral not listed"),
        pytest.param(market(), borrower(), address(7), WETH, 1, "23", id="debt not listed"),
        pytest.param(
            inactive(market(), 0), borrower(11 * WAD), USDC, WETH, 1, "2", id="inactive before healthy"
        ),
    ],
)
def test_refusals(
    pool: AaveV2Market, account: AaveV2Account, debt: str, collateral: str, cover_raw: int, code: str
) -> None:
    quote = liquidation_quote(pool, account, debt, collateral, cover_raw)
    assert quote.revert_code == code
    assert quote.account_after == account
    assert code in e.MEANING
