"""A liquidation, step by step in the contract's order (`LiquidationLogic.sol`).

What is not in revision 1: the close factor is of the whole position's debt and small positions know none,
neither side may be left with dust, and the debts of an account without collateral are burnt.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from simulation.fixed_point import BPS, MAX_UINT256, percent_div, percent_mul
from simulation.protocols.aave_v3.configuration import (
    BORROWING_MASK,
    DEBT_CEILING_DECIMALS,
    is_borrowing,
    set_borrowing,
    set_using_as_collateral,
)
from simulation.protocols.aave_v3.types import AaveAccount
from simulation.protocols.aave_v3_6.errors import (
    ARITHMETIC_PANIC,
    BARE,
    DIVISION_PANIC,
    INVALID_BURN_AMOUNT,
    MUST_NOT_LEAVE_DUST,
    TOKEN_REVERT,
    AaveRevert,
    require,
    revert,
    uint256,
)
from simulation.protocols.aave_v3_6.generic_logic import (
    a_token_balance,
    asset_price,
    calculate_user_account_data,
    e_mode_of_collateral,
    variable_debt_balance,
)
from simulation.protocols.aave_v3_6.math_utils import mul_div_ceil, percent_div_ceil
from simulation.protocols.aave_v3_6.token_math import (
    get_a_token_balance,
    get_a_token_burn_scaled_amount,
    get_a_token_transfer_scaled_amount,
    get_v_token_burn_scaled_amount,
)
from simulation.protocols.aave_v3_6.types import AaveMarket, LiquidationOutcome, ReserveData
from simulation.protocols.aave_v3_6.validation_logic import validate_liquidation_call

DEFAULT_LIQUIDATION_CLOSE_FACTOR: Final = 5_000
CLOSE_FACTOR_HF_THRESHOLD: Final = 95 * 10**16
MIN_BASE_MAX_CLOSE_FACTOR_THRESHOLD: Final = 2_000 * 10**8
MIN_LEFTOVER_BASE: Final = MIN_BASE_MAX_CLOSE_FACTOR_THRESHOLD // 2


def max_liquidatable_debt(
    *,
    health_factor_wad: int,
    total_debt_base: int,
    reserve_debt_raw: int,
    reserve_debt_base: int,
    reserve_collateral_base: int,
    debt_price_base: int,
    debt_unit: int,
) -> int:
    """Return how much of one debt may be repaid at once, in token units (`executeLiquidationCall`).

    All of it, unless the account is only just liquidatable, neither side of the pair is small, and the debt
    is more than half of what the account owes altogether: then that half.
    """
    if (
        reserve_collateral_base < MIN_BASE_MAX_CLOSE_FACTOR_THRESHOLD
        or reserve_debt_base < MIN_BASE_MAX_CLOSE_FACTOR_THRESHOLD
        or health_factor_wad <= CLOSE_FACTOR_HF_THRESHOLD
    ):
        return reserve_debt_raw
    uint256(total_debt_base * DEFAULT_LIQUIDATION_CLOSE_FACTOR + BPS // 2, BARE)
    liquidatable_base = percent_mul(total_debt_base, DEFAULT_LIQUIDATION_CLOSE_FACTOR)
    if reserve_debt_base <= liquidatable_base:
        return reserve_debt_raw
    return uint256(liquidatable_base * debt_unit) // debt_price_base


def calculate_available_collateral_to_liquidate(
    *,
    collateral_price_base: int,
    collateral_unit: int,
    debt_price_base: int,
    debt_unit: int,
    debt_to_cover_raw: int,
    collateral_balance_raw: int,
    liquidation_bonus_bps: int,
    liquidation_protocol_fee_bps: int,
) -> tuple[int, int, int, int]:
    """Return collateral to the liquidator, debt needed, protocol fee, and the seized collateral's value.

    When the collateral does not suffice for `debt_to_cover_raw` with the bonus on top, all of it is taken
    and the debt is worked back from it, rounded up (`_calculateAvailableCollateralToLiquidate`).
    """
    debt_value = uint256(uint256(debt_price_base * debt_to_cover_raw) * collateral_unit)
    per_collateral = uint256(collateral_price_base * debt_unit)
    require(per_collateral != 0, DIVISION_PANIC)
    base_collateral_raw = debt_value // per_collateral
    uint256(base_collateral_raw * liquidation_bonus_bps + BPS // 2, BARE)
    collateral_raw = percent_mul(base_collateral_raw, liquidation_bonus_bps)
    debt_needed_raw = debt_to_cover_raw

    if collateral_raw > collateral_balance_raw:
        collateral_raw = collateral_balance_raw
        collateral_value = uint256(uint256(collateral_price_base * collateral_raw) * debt_unit)
        per_debt = uint256(debt_price_base * collateral_unit)
        require(per_debt != 0, DIVISION_PANIC)
        debt_needed_raw = percent_div_ceil(collateral_value // per_debt, liquidation_bonus_bps)

    seized_base = uint256(collateral_raw * collateral_price_base) // collateral_unit
    if liquidation_protocol_fee_bps == 0:
        return collateral_raw, debt_needed_raw, 0, seized_base
    require(liquidation_bonus_bps != 0, BARE)
    bonus_raw = uint256(collateral_raw - percent_div(collateral_raw, liquidation_bonus_bps))
    fee_raw = percent_mul(bonus_raw, liquidation_protocol_fee_bps)
    return uint256(collateral_raw - fee_raw), debt_needed_raw, fee_raw, seized_base


def _require_no_dust(
    collateral: ReserveData,
    debt: ReserveData,
    *,
    collateral_left_raw: int,
    debt_left_raw: int,
    collateral_price_base: int,
    debt_price_base: int,
) -> None:
    """Revert when something is left on both sides and one of them is too small (`executeLiquidationCall`)."""
    if debt_left_raw <= 0 or collateral_left_raw <= 0:
        return
    debt_left_base = mul_div_ceil(debt_left_raw, debt_price_base, debt.configuration.unit)
    collateral_left_base = (
        uint256(collateral_left_raw * collateral_price_base) // collateral.configuration.unit
    )
    require(
        debt_left_base >= MIN_LEFTOVER_BASE and collateral_left_base >= MIN_LEFTOVER_BASE, MUST_NOT_LEAVE_DUST
    )


def _burn_debt_tokens(debt: ReserveData, account: AaveAccount, amount_raw: int) -> AaveAccount:
    """Take `amount_raw` off the debt, and the borrow flag with the last of it (`_burnDebtTokens`)."""
    position = account.position(debt.id)
    scaled_raw = position.scaled_variable_debt_raw
    if scaled_raw != 0:
        burnt_raw = get_v_token_burn_scaled_amount(amount_raw, debt.normalized_variable_debt_ray)
        require(burnt_raw != 0, INVALID_BURN_AMOUNT)
        scaled_raw = uint256(scaled_raw - burnt_raw)
        account = account.with_position(replace(position, scaled_variable_debt_raw=scaled_raw))
    if scaled_raw == 0:
        word = set_borrowing(account.user_configuration, debt.id, False)
        account = replace(account, user_configuration=word)
    return account


def _isolated_debt_repaid(collateral: ReserveData, debt: ReserveData, repaid_raw: int) -> int:
    """Return how far the isolation-mode debt goes down (`IsolationModeLogic.updateIsolatedDebt`).

    What is burnt as bad debt does not lower it. Unlike in revision 1 it goes down also when all of the
    collateral is taken.
    """
    if collateral.configuration.debt_ceiling == 0:
        return 0
    decimals = debt.configuration.decimals
    require(decimals >= DEBT_CEILING_DECIMALS, ARITHMETIC_PANIC)
    return min(
        repaid_raw // int(10 ** (decimals - DEBT_CEILING_DECIMALS)), collateral.isolation_mode_total_debt
    )


def _burn_collateral_a_tokens(collateral: ReserveData, amount_raw: int, *, repaid_before_raw: int) -> int:
    """Return the scaled aTokens burnt for underlying paid to the liquidator (`_burnCollateralATokens`).

    `repaid_before_raw` is what the repayment adds to the same reserve's accounts beforehand; the tokens
    themselves only arrive at the end.
    """
    require(amount_raw <= collateral.virtual_underlying_balance_raw + repaid_before_raw, ARITHMETIC_PANIC)
    scaled_raw = get_a_token_burn_scaled_amount(amount_raw, collateral.normalized_income_ray)
    require(scaled_raw != 0, INVALID_BURN_AMOUNT)
    require(amount_raw <= collateral.token_balance_raw, TOKEN_REVERT)
    return scaled_raw


def _burn_bad_debt(market: AaveMarket, account: AaveAccount) -> tuple[AaveAccount, list[tuple[int, int]]]:
    """Burn all debts that are left, but for those in inactive reserves (`_burnBadDebt`)."""
    deficits = []
    for reserve in market.listed():
        if is_borrowing(account.user_configuration, reserve.id) and reserve.configuration.active:
            debt_raw = variable_debt_balance(reserve, account.position(reserve.id))
            account = _burn_debt_tokens(reserve, account, debt_raw)
            if debt_raw != 0:
                deficits.append((reserve.id, debt_raw))
    return account, deficits


def execute_liquidation_call(
    market: AaveMarket,
    account: AaveAccount,
    *,
    collateral_asset: str,
    debt_asset: str,
    debt_to_cover_raw: int,
    receive_a_token: bool = False,
    liquidator: str | None = None,
) -> LiquidationOutcome:
    """Return what the call does, when whoever makes it can pay. Follows `executeLiquidationCall`.

    Raises
    ------
    AaveRevert
        Where the contract reverts.
    """
    collateral = market.reserve_of(collateral_asset)
    debt = market.reserve_of(debt_asset)
    if collateral is None or debt is None:
        revert(BARE)

    data = calculate_user_account_data(market, account)
    index_ray = collateral.normalized_income_ray
    collateral_balance_raw = a_token_balance(collateral, account.position(collateral.id))
    reserve_debt_raw = variable_debt_balance(debt, account.position(debt.id))
    validate_liquidation_call(
        market,
        account,
        collateral,
        debt,
        total_debt_raw=reserve_debt_raw,
        health_factor_wad=data.health_factor_wad,
        liquidator=liquidator,
    )

    e_mode = e_mode_of_collateral(market, account, collateral.id)
    collateral_price_base, debt_price_base = asset_price(collateral.price_base), asset_price(debt.price_base)
    collateral_unit, debt_unit = collateral.configuration.unit, debt.configuration.unit
    most_raw = max_liquidatable_debt(
        health_factor_wad=data.health_factor_wad,
        total_debt_base=data.total_debt_base,
        reserve_debt_raw=reserve_debt_raw,
        reserve_debt_base=mul_div_ceil(reserve_debt_raw, debt_price_base, debt_unit),
        reserve_collateral_base=uint256(collateral_balance_raw * collateral_price_base) // collateral_unit,
        debt_price_base=debt_price_base,
        debt_unit=debt_unit,
    )
    to_liquidator_raw, repaid_raw, fee_raw, seized_base = calculate_available_collateral_to_liquidate(
        collateral_price_base=collateral_price_base,
        collateral_unit=collateral_unit,
        debt_price_base=debt_price_base,
        debt_unit=debt_unit,
        debt_to_cover_raw=min(debt_to_cover_raw, most_raw),
        collateral_balance_raw=collateral_balance_raw,
        liquidation_bonus_bps=(e_mode or collateral.configuration).liquidation_bonus_bps,
        liquidation_protocol_fee_bps=collateral.configuration.liquidation_protocol_fee_bps,
    )
    seized_raw = to_liquidator_raw + fee_raw
    _require_no_dust(
        collateral,
        debt,
        collateral_left_raw=collateral_balance_raw - seized_raw,
        debt_left_raw=reserve_debt_raw - repaid_raw,
        collateral_price_base=collateral_price_base,
        debt_price_base=debt_price_base,
    )

    after = replace(account, reported_health_factor_wad=None)
    exhausted = seized_raw == collateral_balance_raw
    if exhausted:
        word = set_using_as_collateral(after.user_configuration, collateral.id, False)
        after = replace(after, user_configuration=word)
    no_collateral_left = data.total_collateral_base == seized_base
    after = _burn_debt_tokens(debt, after, reserve_debt_raw if no_collateral_left else repaid_raw)
    outstanding_raw = uint256(reserve_debt_raw - repaid_raw)
    deficits = [(debt.id, outstanding_raw)] if no_collateral_left and outstanding_raw else []
    isolation_mode_debt_repaid = _isolated_debt_repaid(collateral, debt, repaid_raw)

    if receive_a_token:
        seized_scaled_raw = get_a_token_transfer_scaled_amount(to_liquidator_raw, index_ray)
    else:
        seized_scaled_raw = _burn_collateral_a_tokens(
            collateral, to_liquidator_raw, repaid_before_raw=repaid_raw if collateral.id == debt.id else 0
        )
    position = after.position(collateral.id)
    scaled_raw = uint256(position.scaled_a_token_raw - seized_scaled_raw)
    treasury_scaled_raw = 0
    if fee_raw != 0:
        # Rounding up twice may leave less than the fee; the treasury then takes what is there.
        treasury_scaled_raw = get_a_token_transfer_scaled_amount(fee_raw, index_ray)
        if treasury_scaled_raw > scaled_raw:
            treasury_scaled_raw = scaled_raw
            fee_raw = get_a_token_balance(scaled_raw, index_ray)
        scaled_raw -= treasury_scaled_raw
    after = after.with_position(replace(position, scaled_a_token_raw=scaled_raw))
    if no_collateral_left and after.user_configuration & BORROWING_MASK:
        after, burnt = _burn_bad_debt(market, after)
        deficits += burnt
    return LiquidationOutcome(
        revert_code=None,
        account_after=after,
        debt_repaid_raw=repaid_raw,
        collateral_seized_raw=to_liquidator_raw + fee_raw,
        protocol_fee_raw=fee_raw,
        to_liquidator_raw=to_liquidator_raw,
        full=repaid_raw == reserve_debt_raw,
        collateral_exhausted=exhausted,
        close_factor_bps=BPS if most_raw == reserve_debt_raw else DEFAULT_LIQUIDATION_CLOSE_FACTOR,
        health_factor_wad=data.health_factor_wad,
        isolation_mode_debt_repaid=isolation_mode_debt_repaid,
        liquidator_scaled_raw=seized_scaled_raw if receive_a_token else 0,
        treasury_scaled_raw=treasury_scaled_raw,
        deficits_raw=tuple(deficits),
    )


def liquidation_quote(
    market: AaveMarket,
    account: AaveAccount,
    debt_asset: str,
    collateral_asset: str,
    debt_to_cover_raw: int,
    *,
    receive_a_token: bool = False,
    liquidator: str | None = None,
) -> LiquidationOutcome:
    """Return what `Pool.liquidationCall` does, or with which error it reverts. Never raises `AaveRevert`.

    Parameters
    ----------
    market
        At the time of the block that the call is mined in; see `project`.
    account
        Who is liquidated.
    debt_asset, collateral_asset
        Token addresses.
    debt_to_cover_raw
        As passed to the contract; more than allowed is cut, 2**256 - 1 means as much as allowed.
    receive_a_token
        Whether the liquidator takes aTokens instead of the underlying.
    liquidator
        Who calls, with enough of the debt token; None for somebody else than the account.
    """
    try:
        return execute_liquidation_call(
            market,
            account,
            collateral_asset=collateral_asset,
            debt_asset=debt_asset,
            debt_to_cover_raw=debt_to_cover_raw,
            receive_a_token=receive_a_token,
            liquidator=liquidator,
        )
    except AaveRevert as reverted:
        return LiquidationOutcome(revert_code=reverted.code, account_after=account)


def max_liquidatable(
    market: AaveMarket, account: AaveAccount, debt_asset: str, collateral_asset: str
) -> LiquidationOutcome:
    """Return the largest liquidation of this pair, as if called with 2**256 - 1."""
    return liquidation_quote(market, account, debt_asset, collateral_asset, MAX_UINT256)
