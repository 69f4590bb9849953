"""The Aave V3 model on states small enough to work out by hand, and the order of its refusals."""

from __future__ import annotations

from dataclasses import replace

import pytest
from eth_abi.abi import encode

from contracts_abi.errors import InputError
from simulation.fixed_point import MAX_UINT256, RAY, WAD
from simulation.protocols.aave_v3 import (
    AaveMarket,
    EModeCategory,
    accrue,
    calculate_user_account_data,
    liquidation_quote,
    liquidator_configuration_after,
    max_liquidatable,
    project,
)
from simulation.protocols.aave_v3.errors import revert_code
from simulation.protocols.aave_v3.validation_logic import isolation_mode_collateral
from tests.aave_states import (
    E8,
    NOW,
    account,
    address,
    configuration,
    eth_and_usd,
    market,
    reserve,
    set_reserve,
)

ETH, USD = address(0), address(1)
SIX = 10**6


def test_account_data_by_hand() -> None:
    data = calculate_user_account_data(eth_and_usd(), account({0: 10 * WAD}, {1: 1_500 * SIX}))
    # 10 ETH at 200 are 2000; 80 % may be borrowed, 85 % count: 1700 / 1500.
    assert data.words() == (2_000 * E8, 1_500 * E8, 100 * E8, 8_500, 8_000, 1_133_333_333_333_333_333)
    assert not data.has_zero_ltv_collateral


def test_half_of_the_debt_with_its_bonus_and_the_treasurys_share() -> None:
    debtor = account({0: 10 * WAD}, {1: 1_720 * SIX})
    quote = max_liquidatable(eth_and_usd(), debtor, USD, ETH)
    # 860 USD are 4.3 ETH, 4.515 with the bonus; the treasury takes a tenth of 0.215.
    assert quote.succeeds
    assert quote.health_factor_wad == 988_372_093_023_255_814
    assert (quote.close_factor_bps, quote.debt_repaid_raw) == (5_000, 860 * SIX)
    assert quote.collateral_seized_raw == 4_515 * 10**15
    assert quote.protocol_fee_raw == quote.treasury_scaled_raw == 215 * 10**14
    assert quote.to_liquidator_raw == 4_515 * 10**15 - 215 * 10**14
    assert not quote.full
    assert not quote.collateral_exhausted
    left = quote.account_after
    assert left.position(0).scaled_a_token_raw == 10 * WAD - 4_515 * 10**15
    assert left.position(1).scaled_variable_debt_raw == 860 * SIX
    assert left.user_configuration == debtor.user_configuration


def test_far_below_the_whole_debt_may_go() -> None:
    quote = max_liquidatable(eth_and_usd(), account({0: 10 * WAD}, {1: 1_800 * SIX}), USD, ETH)
    assert (quote.close_factor_bps, quote.full) == (10_000, True)
    assert quote.account_after.user_configuration == account({0: 1}, {}).user_configuration
    assert quote.account_after.position(1).scaled_variable_debt_raw == 0


def test_under_water_the_collateral_decides_and_debt_is_left() -> None:
    quote = max_liquidatable(eth_and_usd(), account({0: 10 * WAD}, {1: 2_500 * SIX}), USD, ETH)
    assert quote.collateral_exhausted
    assert not quote.full
    assert quote.collateral_seized_raw == 10 * WAD
    assert quote.debt_repaid_raw == 1_904_761_905  # 2000 / 1.05, half up
    assert quote.account_after.user_configuration == account({}, {1: 1}).user_configuration
    assert quote.account_after.position(0).scaled_a_token_raw == 0


@pytest.mark.parametrize(
    ("debt_usd", "factor"), [(1_789_473_684, 5_000), (1_789_473_685, 10_000)], ids=["above", "below"]
)
def test_the_close_factor_turns_at_095(debt_usd: int, factor: int) -> None:
    quote = max_liquidatable(eth_and_usd(), account({0: 10 * WAD}, {1: debt_usd}), USD, ETH)
    assert quote.close_factor_bps == factor


def test_the_threshold_itself_takes_the_whole_debt_and_one_is_healthy() -> None:
    at_095 = max_liquidatable(eth_and_usd(), account({0: 19 * WAD}, {1: 3_400 * SIX}), USD, ETH)
    assert (at_095.health_factor_wad, at_095.close_factor_bps) == (95 * WAD // 100, 10_000)
    at_one = max_liquidatable(eth_and_usd(), account({0: 10 * WAD}, {1: 1_700 * SIX}), USD, ETH)
    assert at_one.revert_code == "45"


def test_emode_brings_its_own_threshold_bonus_and_price() -> None:
    category = EModeCategory(1, 9_000, 9_500, 10_100)
    state = market(
        reserve(0, "ETH", 200 * E8, configuration(18, e_mode_category=1)),
        reserve(1, "stETH", 210 * E8, configuration(18, e_mode_category=1)),
        e_modes=(category,),
    )
    debtor = account({1: 10 * WAD}, {0: 10 * WAD}, e_mode_category=1)
    assert calculate_user_account_data(state, debtor).words()[3:] == (9_500, 9_000, 997_500_000_000_000_000)
    outside = replace(debtor, e_mode_category=0)
    assert calculate_user_account_data(state, outside).current_liquidation_threshold_bps == 8_500
    quote = max_liquidatable(state, debtor, address(0), address(1))
    # 5 ETH are 1000, in stETH at 210, plus one percent.
    assert quote.collateral_seized_raw == 5 * WAD * 200 // 210 * 10_100 // 10_000

    priced = replace(state, e_mode_categories={1: replace(category, price_source=address(9), price_base=7)})
    data = calculate_user_account_data(priced, debtor)
    assert (data.total_collateral_base, data.total_debt_base) == (70, 70)
    unpriced = replace(state, e_mode_categories={1: replace(category, price_source=address(9))})
    assert max_liquidatable(unpriced, debtor, address(0), address(1)).revert_code == ""


def test_a_collateral_without_loan_to_value_counts_for_the_threshold_only() -> None:
    state = set_reserve(eth_and_usd(), 0, ltv_bps=0)
    data = calculate_user_account_data(state, account({0: WAD, 1: 200 * SIX}, {}))
    assert (data.ltv_bps, data.current_liquidation_threshold_bps) == (4_000, 8_500)
    assert data.has_zero_ltv_collateral


def refusals() -> list[tuple[str, AaveMarket]]:
    """Return one more obstacle a step, from the last that the contract looks at to the first."""
    healthy = eth_and_usd()
    stopped = replace(healthy, liquidation_allowed=False)
    paused = set_reserve(stopped, 1, paused=True)
    inactive = set_reserve(paused, 0, active=False)
    return [("45", healthy), ("59", stopped), ("29", paused), ("27", inactive)]


@pytest.mark.parametrize(("code", "state"), refusals())
def test_the_first_obstacle_in_the_contracts_order_is_named(code: str, state: AaveMarket) -> None:
    quote = max_liquidatable(state, account({0: 10 * WAD}, {1: 100 * SIX}), USD, ETH)
    assert quote.revert_code == code
    assert (quote.debt_repaid_raw, quote.collateral_seized_raw) == (0, 0)


def test_wrong_pairs() -> None:
    state = market(
        reserve(0, "ETH", 200 * E8, configuration(18)),
        reserve(1, "USD", E8, configuration(6)),
        reserve(2, "BTC", 9_000 * E8, configuration(8)),
    )
    debtor = account({0: 10 * WAD}, {1: 1_800 * SIX})
    assert max_liquidatable(state, debtor, USD, address(2)).revert_code == "46"
    assert max_liquidatable(state, debtor, address(2), ETH).revert_code == "47"
    assert max_liquidatable(state, debtor, USD, address(7)).revert_code == "27"
    assert max_liquidatable(state, debtor, address(7), ETH).revert_code == ""
    off = set_reserve(state, 0, liquidation_threshold_bps=0)
    assert max_liquidatable(off, debtor, USD, ETH).revert_code == "46"


def test_a_stopped_sentinel_lets_the_worst_through() -> None:
    state = replace(eth_and_usd(), liquidation_allowed=False)
    assert max_liquidatable(state, account({0: 10 * WAD}, {1: 1_720 * SIX}), USD, ETH).revert_code == "59"
    assert max_liquidatable(state, account({0: 10 * WAD}, {1: 1_800 * SIX}), USD, ETH).succeeds


def test_amounts_worth_less_than_a_scaled_unit_are_refused() -> None:
    state = set_reserve(eth_and_usd(), 1, normalized_variable_debt_ray=3 * RAY)
    debtor = account({0: 10 * WAD}, {1: 600 * SIX})
    assert liquidation_quote(state, debtor, USD, ETH, 1).revert_code == "25"
    assert liquidation_quote(state, debtor, USD, ETH, 2).succeeds
    assert (
        liquidation_quote(eth_and_usd(), account({0: 10 * WAD}, {1: 1_800 * SIX}), USD, ETH, 0).revert_code
        == "25"
    )


def test_collateral_that_is_lent_out_cannot_be_paid_but_can_be_moved() -> None:
    debtor = account({0: 10 * WAD}, {1: 1_800 * SIX})
    state = set_reserve(eth_and_usd(), 0, available_liquidity_raw=WAD)
    assert max_liquidatable(state, debtor, USD, ETH).revert_code == "Panic(0x11)"
    nobody_owes = set_reserve(state, 0, scaled_variable_debt_raw=0)
    assert max_liquidatable(nobody_owes, debtor, USD, ETH).revert_code == "token"
    moved = liquidation_quote(state, debtor, USD, ETH, MAX_UINT256, receive_a_token=True)
    assert moved.succeeds
    assert moved.liquidator_scaled_raw == moved.to_liquidator_raw
    assert liquidation_quote(state, debtor, USD, ETH, 100 * SIX).succeeds


def test_isolated_debt_goes_down_until_the_collateral_is_gone() -> None:
    state = set_reserve(eth_and_usd(), 0, debt_ceiling=10**9, isolation_mode_total_debt=100_000)
    part = max_liquidatable(state, account({0: 10 * WAD}, {1: 1_720 * SIX}), USD, ETH)
    assert part.isolation_mode_debt_repaid == 86_000
    small = set_reserve(state, 0, isolation_mode_total_debt=5)
    assert (
        max_liquidatable(small, account({0: 10 * WAD}, {1: 1_720 * SIX}), USD, ETH).isolation_mode_debt_repaid
        == 5
    )
    # With all of it seized the account has left isolation mode before the total is looked at.
    gone = max_liquidatable(state, account({0: 10 * WAD}, {1: 2_500 * SIX}), USD, ETH)
    assert gone.collateral_exhausted
    assert gone.isolation_mode_debt_repaid == 0


def test_first_a_tokens_become_collateral_unless_isolation_forbids() -> None:
    state = eth_and_usd()
    eth = account({0: 1}, {}).user_configuration
    usd = account({1: 1}, {}).user_configuration
    assert liquidator_configuration_after(state, 0, 0, ETH) == eth
    assert liquidator_configuration_after(state, 0, 5, ETH) == 0
    assert liquidator_configuration_after(state, usd, 0, ETH) == eth | usd
    assert liquidator_configuration_after(set_reserve(state, 0, ltv_bps=0), 0, 0, ETH) == 0
    isolated = set_reserve(state, 1, debt_ceiling=1)
    assert liquidator_configuration_after(isolated, usd, 0, ETH) == usd
    assert liquidator_configuration_after(set_reserve(state, 0, debt_ceiling=1), 0, 0, ETH) == 0
    found = isolation_mode_collateral(isolated, usd)
    assert found is not None
    assert found.id == 1
    assert isolation_mode_collateral(isolated, eth | usd) is None


def test_stable_debt_goes_last() -> None:
    debtor = account({0: 10 * WAD}, {1: 300 * SIX})
    debtor = debtor.with_position(replace(debtor.position(1), stable_debt_raw=1_500 * SIX))
    quote = max_liquidatable(eth_and_usd(), debtor, USD, ETH)
    assert (quote.debt_repaid_raw, quote.full) == (1_800 * SIX, True)
    part = liquidation_quote(eth_and_usd(), debtor, USD, ETH, 400 * SIX)
    left = part.account_after.position(1)
    assert (left.scaled_variable_debt_raw, left.stable_debt_raw) == (0, 1_400 * SIX)


def test_products_beyond_256_bits_panic_as_in_the_contract() -> None:
    state = set_reserve(eth_and_usd(), 0, price_base=2**250)
    assert (
        max_liquidatable(state, account({0: 10 * WAD}, {1: 1_800 * SIX}), USD, ETH).revert_code
        == "Panic(0x11)"
    )


def test_a_market_is_not_projected_into_its_past() -> None:
    with pytest.raises(InputError, match="before the last update of ETH"):
        project(eth_and_usd(), NOW - 1)


def test_projection_accrues_from_the_stored_index() -> None:
    year = 31_536_000
    state = set_reserve(
        eth_and_usd(), 1, current_liquidity_rate_ray=RAY // 20, current_variable_borrow_rate_ray=RAY // 10
    )
    later = project(project(state, NOW + 1_000), NOW + year).reserves[1]
    assert later is not None
    assert later.normalized_income_ray == RAY + RAY // 20
    assert later.normalized_variable_debt_ray == pytest.approx(1.10517 * RAY, rel=1e-5)
    assert later == accrue(later, NOW + year)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (bytes.fromhex("08c379a0") + encode(["string"], ["45"]), "45"),
        (bytes.fromhex("4e487b71") + encode(["uint256"], [0x11]), "Panic(0x11)"),
        (b"", ""),
        (bytes.fromhex("08c379a0"), "0x08c379a0"),
        (b"\xde\xad\xbe\xef", "0xdeadbeef"),
    ],
)
def test_revert_data_as_codes(data: bytes, code: str) -> None:
    assert revert_code(data) == code
