"""Value and health of an account (`GenericLogic.sol`, and `ValidationLogic.getUserReserveLtv`)."""

from __future__ import annotations

from typing import Final

from simulation.fixed_point import BPS, MAX_UINT256, WAD, wad_div
from simulation.protocols.aave_v3.configuration import is_borrowing, is_using_as_collateral
from simulation.protocols.aave_v3.types import AaveAccount, AavePosition
from simulation.protocols.aave_v3_6.errors import BARE, revert, uint256
from simulation.protocols.aave_v3_6.math_utils import mul_div_ceil, percent_mul_floor
from simulation.protocols.aave_v3_6.token_math import get_a_token_balance, get_v_token_balance
from simulation.protocols.aave_v3_6.types import AaveMarket, EModeCategory, ReserveData, UserAccountData

_NOT_CONFIGURED: Final = EModeCategory(0, 0, 0, 0)


def is_reserve_enabled_on_bitmap(bitmap: int, reserve_id: int) -> bool:
    """Return whether the reserve's bit is set (`EModeConfiguration.isReserveEnabledOnBitmap`)."""
    return bool((bitmap >> reserve_id) & 1)


def e_mode_of_collateral(market: AaveMarket, account: AaveAccount, reserve_id: int) -> EModeCategory | None:
    """Return the account's category when the reserve is among its collaterals, else None."""
    if account.e_mode_category == 0:
        return None
    category = market.e_mode_categories.get(account.e_mode_category, _NOT_CONFIGURED)
    return category if is_reserve_enabled_on_bitmap(category.collateral_bitmap, reserve_id) else None


def get_user_reserve_ltv(reserve: ReserveData, e_mode: EModeCategory | None) -> int:
    """Return the loan-to-value that applies (`getUserReserveLtv`); `e_mode` is that of the collateral."""
    if e_mode is None:
        return reserve.configuration.ltv_bps
    return 0 if is_reserve_enabled_on_bitmap(e_mode.ltvzero_bitmap, reserve.id) else e_mode.ltv_bps


def a_token_balance(reserve: ReserveData, position: AavePosition) -> int:
    """Return the aToken balance in token units (`AToken.balanceOf`)."""
    return get_a_token_balance(position.scaled_a_token_raw, reserve.normalized_income_ray)


def variable_debt_balance(reserve: ReserveData, position: AavePosition) -> int:
    """Return the variable debt in token units (`VariableDebtToken.balanceOf`)."""
    return get_v_token_balance(position.scaled_variable_debt_raw, reserve.normalized_variable_debt_ray)


def asset_price(price_base: int | None) -> int:
    """Return a price, or revert as the oracle does without one (`AaveOracle.getAssetPrice`)."""
    return revert(BARE) if price_base is None else price_base


def calculate_health_factor(weighted_threshold: int, debt_base: int) -> int:
    """Return the health factor of a debt that is not 0, in wad (`calculateUserAccountData`).

    Half up at 1e18 and only then down by the basis points: nothing is lost to an average.
    """
    uint256(weighted_threshold * WAD + debt_base // 2, BARE)
    return wad_div(weighted_threshold, debt_base) // BPS


def calculate_available_borrows(total_collateral_base: int, total_debt_base: int, ltv_bps: int) -> int:
    """Return what may still be borrowed, in base currency (`calculateAvailableBorrows`)."""
    return max(0, percent_mul_floor(total_collateral_base, ltv_bps) - total_debt_base)


def calculate_user_account_data(market: AaveMarket, account: AaveAccount) -> UserAccountData:
    """Return the account's totals, averages and health factor (`calculateUserAccountData`).

    A collateral with a threshold of 0 counts into the total; revision 1 leaves it out.

    Raises
    ------
    AaveRevert
        Where the contract reverts: a price is missing, or a product leaves uint256.
    """
    word = account.user_configuration
    if word == 0:
        return UserAccountData(0, 0, 0, 0, 0, MAX_UINT256)
    positions = {p.reserve_id: p for p in account.positions}

    total_collateral_base = total_debt_base = weighted_ltv = weighted_threshold = 0
    has_zero_ltv_collateral = False
    for reserve in market.reserves:
        if reserve is None:
            continue
        borrowing = is_borrowing(word, reserve.id)
        collateral = is_using_as_collateral(word, reserve.id)
        if not (borrowing or collateral):
            continue
        price_base = asset_price(reserve.price_base)
        unit = reserve.configuration.unit
        position = positions.get(reserve.id) or AavePosition(reserve.id)

        if collateral:
            value_base = uint256(a_token_balance(reserve, position) * price_base) // unit
            total_collateral_base = uint256(total_collateral_base + value_base)
            e_mode = e_mode_of_collateral(market, account, reserve.id)
            ltv_bps = get_user_reserve_ltv(reserve, e_mode)
            if ltv_bps == 0:
                has_zero_ltv_collateral = True
            weighted_ltv = uint256(weighted_ltv + uint256(value_base * ltv_bps))
            threshold_bps = (e_mode or reserve.configuration).liquidation_threshold_bps
            weighted_threshold = uint256(weighted_threshold + uint256(value_base * threshold_bps))

        if borrowing:
            value_base = mul_div_ceil(variable_debt_balance(reserve, position), price_base, unit)
            total_debt_base = uint256(total_debt_base + value_base)

    if total_debt_base == 0:
        health_factor_wad = MAX_UINT256
    else:
        health_factor_wad = calculate_health_factor(weighted_threshold, total_debt_base)
    ltv_bps = weighted_ltv // total_collateral_base if total_collateral_base else 0
    threshold_bps = weighted_threshold // total_collateral_base if total_collateral_base else 0
    return UserAccountData(
        total_collateral_base=total_collateral_base,
        total_debt_base=total_debt_base,
        available_borrows_base=calculate_available_borrows(total_collateral_base, total_debt_base, ltv_bps),
        current_liquidation_threshold_bps=threshold_bps,
        ltv_bps=ltv_bps,
        health_factor_wad=health_factor_wad,
        has_zero_ltv_collateral=has_zero_ltv_collateral,
        weighted_liquidation_threshold=weighted_threshold,
    )
