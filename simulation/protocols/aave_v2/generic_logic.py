"""Value and health of an account in ether (`GenericLogic.sol` of V2)."""

from __future__ import annotations

from simulation.fixed_point import BPS, MAX_UINT256, WAD, percent_mul, wad_div
from simulation.protocols.aave_v2.errors import (
    MULTIPLICATION_OVERFLOW,
    NO_PRICE,
    SAFE_ADD,
    SAFE_MUL,
    revert,
    uint256,
)
from simulation.protocols.aave_v2.reserve_logic import (
    a_token_balance,
    stable_debt_balance,
    variable_debt_balance,
)
from simulation.protocols.aave_v2.types import AaveV2Account, AaveV2AccountData, AaveV2Market
from simulation.protocols.aave_v3.configuration import is_borrowing, is_using_as_collateral


def asset_price(price_wei: int | None) -> int:
    """Return a price, or revert as the oracle does without one and without a fallback."""
    return revert(NO_PRICE) if price_wei is None else price_wei


def checked_percent_mul(value: int, percentage_bps: int) -> int:
    """Return `percent_mul`, or revert where the product leaves 256 bits."""
    uint256(value * percentage_bps + BPS // 2, MULTIPLICATION_OVERFLOW)
    return percent_mul(value, percentage_bps)


def calculate_health_factor_from_balances(
    total_collateral_wei: int, total_debt_wei: int, threshold_bps: int
) -> int:
    """Return the health factor at 1e18, 2**256 - 1 without debt (`calculateHealthFactorFromBalances`)."""
    if total_debt_wei == 0:
        return MAX_UINT256
    counted_wei = checked_percent_mul(total_collateral_wei, threshold_bps)
    uint256(counted_wei * WAD + total_debt_wei // 2, MULTIPLICATION_OVERFLOW)
    return wad_div(counted_wei, total_debt_wei)


def calculate_user_account_data(market: AaveV2Market, account: AaveV2Account) -> AaveV2AccountData:
    """Return the account's totals, averages and health factor (`calculateUserAccountData`).

    Raises
    ------
    AaveV2Revert
        Where the contract reverts: a price is missing, or a number leaves 256 bits.
    """
    word = account.user_configuration
    if word == 0:
        return AaveV2AccountData(0, 0, 0, 0, 0, MAX_UINT256)
    collateral_wei = debt_wei = weighted_ltv = weighted_threshold = 0
    for reserve in market.reserves:
        borrowing, collateral = is_borrowing(word, reserve.id), is_using_as_collateral(word, reserve.id)
        if not (borrowing or collateral):
            continue
        configuration, position = reserve.configuration, account.position(reserve.id)
        price_wei = asset_price(reserve.price_wei)
        if collateral and configuration.liquidation_threshold_bps != 0:
            balance_raw = a_token_balance(reserve, position, market.timestamp)
            value_wei = uint256(price_wei * balance_raw, SAFE_MUL) // configuration.unit
            collateral_wei = uint256(collateral_wei + value_wei, SAFE_ADD)
            weighted_ltv += uint256(value_wei * configuration.ltv_bps, SAFE_MUL)
            uint256(weighted_ltv, SAFE_ADD)
            weighted_threshold += uint256(value_wei * configuration.liquidation_threshold_bps, SAFE_MUL)
            uint256(weighted_threshold, SAFE_ADD)
        if borrowing:
            owed_raw = stable_debt_balance(position, market.timestamp) + variable_debt_balance(
                reserve, position, market.timestamp
            )
            value_wei = uint256(price_wei * owed_raw, SAFE_MUL) // configuration.unit
            debt_wei = uint256(debt_wei + value_wei, SAFE_ADD)
    ltv_bps = weighted_ltv // collateral_wei if collateral_wei else 0
    threshold_bps = weighted_threshold // collateral_wei if collateral_wei else 0
    health_factor_wad = calculate_health_factor_from_balances(collateral_wei, debt_wei, threshold_bps)
    available_wei = max(0, checked_percent_mul(collateral_wei, ltv_bps) - debt_wei)
    return AaveV2AccountData(
        collateral_wei, debt_wei, available_wei, threshold_bps, ltv_bps, health_factor_wad
    )
