"""Value and health of an account (`GenericLogic.sol`, `EModeLogic.sol`)."""

from __future__ import annotations

from simulation.fixed_point import MAX_UINT256, percent_mul
from simulation.protocols.aave_v3.configuration import is_borrowing, is_using_as_collateral
from simulation.protocols.aave_v3.errors import BARE, revert, uint256
from simulation.protocols.aave_v3.types import (
    AaveAccount,
    AaveMarket,
    AavePosition,
    EModeCategory,
    ReserveData,
    Rules,
    UserAccountData,
)


def is_in_e_mode_category(e_mode_user_category: int, e_mode_asset_category: int) -> bool:
    """Return whether the account is in a category and the asset in the same (`isInEModeCategory`)."""
    return e_mode_user_category != 0 and e_mode_user_category == e_mode_asset_category


def user_e_mode(market: AaveMarket, account: AaveAccount) -> EModeCategory | None:
    """Return the account's category, None for none.

    A category that was never configured has parameters of 0, as in the contract.
    """
    if account.e_mode_category == 0:
        return None
    category = market.e_mode_categories.get(account.e_mode_category)
    return category or EModeCategory(account.e_mode_category, 0, 0, 0)


def a_token_balance(rules: Rules, reserve: ReserveData, position: AavePosition) -> int:
    """Return the aToken balance in token units (`AToken.balanceOf`)."""
    return rules.scaled_to_balance(position.scaled_a_token_raw, reserve.normalized_income_ray)


def variable_debt_balance(rules: Rules, reserve: ReserveData, position: AavePosition) -> int:
    """Return the variable debt in token units (`VariableDebtToken.balanceOf`)."""
    return rules.scaled_to_balance(position.scaled_variable_debt_raw, reserve.normalized_variable_debt_ray)


def asset_price(price_base: int | None) -> int:
    """Return a price, or revert as the oracle does without one (`AaveOracle.getAssetPrice`)."""
    return revert(BARE) if price_base is None else price_base


def calculate_available_borrows(total_collateral_base: int, total_debt_base: int, ltv_bps: int) -> int:
    """Return what may still be borrowed, in base currency (`calculateAvailableBorrows`)."""
    return max(0, percent_mul(total_collateral_base, ltv_bps) - total_debt_base)


def calculate_user_account_data(market: AaveMarket, account: AaveAccount) -> UserAccountData:
    """Return the account's totals, averages and health factor (`calculateUserAccountData`).

    Raises
    ------
    AaveRevert
        Where the contract reverts: a price is missing, or a product leaves uint256.
    """
    if account.user_configuration == 0:
        return UserAccountData(0, 0, 0, 0, 0, MAX_UINT256)
    rules = market.rules
    e_mode = user_e_mode(market, account)
    e_mode_price_base = 0
    if e_mode is not None and e_mode.price_source:
        e_mode_price_base = asset_price(e_mode.price_base)
    positions = {p.reserve_id: p for p in account.positions}

    total_collateral_base = total_debt_base = weighted_ltv = weighted_threshold = 0
    has_zero_ltv_collateral = False
    for reserve in market.reserves:
        if reserve is None:
            continue
        borrowing = is_borrowing(account.user_configuration, reserve.id)
        collateral = is_using_as_collateral(account.user_configuration, reserve.id)
        if not (borrowing or collateral):
            continue
        configuration = reserve.configuration
        position = positions.get(reserve.id) or AavePosition(reserve.id)
        in_e_mode = is_in_e_mode_category(account.e_mode_category, configuration.e_mode_category)
        if in_e_mode and e_mode_price_base:
            price_base = e_mode_price_base
        else:
            price_base = asset_price(reserve.price_base)

        if collateral and configuration.liquidation_threshold_bps != 0:
            balance_raw = a_token_balance(rules, reserve, position)
            value_base = uint256(balance_raw * price_base) // configuration.unit
            total_collateral_base = uint256(total_collateral_base + value_base)
            ltv_bps, threshold_bps = configuration.ltv_bps, configuration.liquidation_threshold_bps
            if ltv_bps == 0:
                has_zero_ltv_collateral = True
            if in_e_mode and e_mode is not None:
                # A collateral whose own loan-to-value is 0 counts nothing, in eMode too.
                ltv_bps = e_mode.ltv_bps if ltv_bps else 0
                threshold_bps = e_mode.liquidation_threshold_bps
            weighted_ltv = uint256(weighted_ltv + uint256(value_base * ltv_bps))
            weighted_threshold = uint256(weighted_threshold + uint256(value_base * threshold_bps))

        if borrowing:
            debt_raw = variable_debt_balance(rules, reserve, position) + position.stable_debt_raw
            value_base = uint256(price_base * debt_raw) // configuration.unit
            total_debt_base = uint256(total_debt_base + value_base)

    ltv_bps = weighted_ltv // total_collateral_base if total_collateral_base else 0
    threshold_bps = weighted_threshold // total_collateral_base if total_collateral_base else 0
    if total_debt_base == 0:
        health_factor_wad = MAX_UINT256
    else:
        health_factor_wad = rules.health_factor(total_collateral_base, threshold_bps, total_debt_base)
    return UserAccountData(
        total_collateral_base=total_collateral_base,
        total_debt_base=total_debt_base,
        available_borrows_base=calculate_available_borrows(total_collateral_base, total_debt_base, ltv_bps),
        current_liquidation_threshold_bps=threshold_bps,
        ltv_bps=ltv_bps,
        health_factor_wad=health_factor_wad,
        has_zero_ltv_collateral=has_zero_ltv_collateral,
    )
