"""A liquidation, step by step in the contract's order (`LendingPoolCollateralManager.sol` of V2).

What differs from V3: the close factor is half of the debt in the asset, stable and variable together, at any
health factor; the bonus is applied *before* the division by prices and once more half up on the way back; no
part of it goes to the treasury; the collateral manager answers codes, and whatever reverts inside of it comes
out as one code of the pool's.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from simulation.fixed_point import BPS, WAD, percent_div, ray_div
from simulation.protocols.aave_v2.errors import (
    COLLATERAL_CANNOT_BE_LIQUIDATED,
    DIVISION_BY_ZERO,
    HEALTH_FACTOR_NOT_BELOW_THRESHOLD,
    INVALID_BURN_AMOUNT,
    IS_PAUSED,
    LIQUIDATION_CALL_FAILED,
    MULTIPLICATION_OVERFLOW,
    NO_ACTIVE_RESERVE,
    NOT_ENOUGH_LIQUIDITY_TO_LIQUIDATE,
    SAFE_DIV,
    SAFE_MUL,
    SAFE_SUB,
    SPECIFIED_CURRENCY_NOT_BORROWED_BY_USER,
    AaveV2Revert,
    require,
    uint256,
)
from simulation.protocols.aave_v2.generic_logic import (
    asset_price,
    calculate_user_account_data,
    checked_percent_mul,
)
from simulation.protocols.aave_v2.reserve_logic import (
    a_token_balance,
    get_normalized_income,
    stable_debt_balance,
    update_state,
    variable_debt_balance,
)
from simulation.protocols.aave_v2.types import (
    AaveV2Account,
    AaveV2Liquidation,
    AaveV2Market,
    AaveV2Position,
    AaveV2Reserve,
)
from simulation.protocols.aave_v3.configuration import is_using_as_collateral, set_using_as_collateral

LIQUIDATION_CLOSE_FACTOR_BPS: Final = 5_000
HEALTH_FACTOR_LIQUIDATION_THRESHOLD_WAD: Final = WAD


class _Answered(Exception):
    """The collateral manager returns a code, which the pool reverts with."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


def _answer_unless(condition: bool, code: str) -> None:
    if not condition:
        raise _Answered(code)


def calculate_available_collateral_to_liquidate(
    collateral: AaveV2Reserve, debt: AaveV2Reserve, *, debt_to_cover_raw: int, collateral_balance_raw: int
) -> tuple[int, int]:
    """Return collateral seized and debt needed for it, in token units.

    When the collateral does not suffice for `debt_to_cover_raw` with the bonus on top, all of it is taken
    and the debt is worked back from it (`_calculateAvailableCollateralToLiquidate`).

    Raises
    ------
    AaveV2Revert
        Where the contract reverts: without a price, or where a product leaves 256 bits.
    """
    collateral_unit, debt_unit = collateral.configuration.unit, debt.configuration.unit
    bonus_bps = collateral.configuration.liquidation_bonus_bps
    collateral_wei, debt_wei = asset_price(collateral.price_wei), asset_price(debt.price_wei)
    value = uint256(uint256(debt_wei * debt_to_cover_raw, SAFE_MUL) * collateral_unit, SAFE_MUL)
    per_collateral = uint256(collateral_wei * debt_unit, SAFE_MUL)
    with_bonus = checked_percent_mul(value, bonus_bps)
    require(per_collateral != 0, SAFE_DIV)
    max_collateral_raw = with_bonus // per_collateral
    if max_collateral_raw <= collateral_balance_raw:
        return max_collateral_raw, debt_to_cover_raw
    value = uint256(uint256(collateral_wei * collateral_balance_raw, SAFE_MUL) * debt_unit, SAFE_MUL)
    per_debt = uint256(debt_wei * collateral_unit, SAFE_MUL)
    require(per_debt != 0, SAFE_DIV)
    require(bonus_bps != 0, DIVISION_BY_ZERO)
    uint256(value // per_debt * BPS + bonus_bps // 2, MULTIPLICATION_OVERFLOW)
    return collateral_balance_raw, percent_div(value // per_debt, bonus_bps)


def _burn_debt(
    debt: AaveV2Reserve, position: AaveV2Position, amount_raw: int, variable_raw: int, timestamp: int
) -> AaveV2Position:
    """Take `amount_raw` off the debt, variable before stable; `debt` is as of `timestamp`."""
    from_variable_raw = min(variable_raw, amount_raw)
    scaled_raw = position.scaled_variable_debt_raw
    if variable_raw >= amount_raw or variable_raw > 0:
        burnt_raw = ray_div(from_variable_raw, debt.variable_borrow_index_ray)
        require(burnt_raw != 0, INVALID_BURN_AMOUNT)
        scaled_raw = uint256(scaled_raw - burnt_raw, SAFE_SUB)
    position = replace(position, scaled_variable_debt_raw=scaled_raw)
    from_stable_raw = amount_raw - from_variable_raw
    if from_stable_raw == 0:
        return position
    # The token adds the interest to the principal and takes the payment off, whichever is more.
    owed_raw = stable_debt_balance(position, timestamp)
    left_raw = uint256(owed_raw - from_stable_raw, SAFE_SUB)
    whole = from_stable_raw == owed_raw
    return replace(
        position,
        stable_principal_raw=left_raw,
        stable_rate_ray=0 if whole else position.stable_rate_ray,
        stable_timestamp=0 if whole else timestamp,
    )


def _liquidation_call(
    market: AaveV2Market,
    account: AaveV2Account,
    collateral: AaveV2Reserve | None,
    debt: AaveV2Reserve | None,
    debt_to_cover_raw: int,
    *,
    receive_a_token: bool,
) -> AaveV2Liquidation:
    now = market.timestamp
    health_factor_wad = calculate_user_account_data(market, account).health_factor_wad
    # An asset that is not listed has an empty reserve, and the balances of no contract cannot be read.
    require(debt is not None, LIQUIDATION_CALL_FAILED)
    assert debt is not None
    debt_position = account.position(debt.id)
    stable_raw = stable_debt_balance(debt_position, now)
    variable_raw = variable_debt_balance(debt, debt_position, now)

    active = collateral is not None and collateral.configuration.active and debt.configuration.active
    _answer_unless(active, NO_ACTIVE_RESERVE)
    assert collateral is not None
    _answer_unless(
        health_factor_wad < HEALTH_FACTOR_LIQUIDATION_THRESHOLD_WAD, HEALTH_FACTOR_NOT_BELOW_THRESHOLD
    )
    _answer_unless(
        collateral.configuration.liquidation_threshold_bps > 0
        and is_using_as_collateral(account.user_configuration, collateral.id),
        COLLATERAL_CANNOT_BE_LIQUIDATED,
    )
    _answer_unless(stable_raw != 0 or variable_raw != 0, SPECIFIED_CURRENCY_NOT_BORROWED_BY_USER)

    balance_raw = a_token_balance(collateral, account.position(collateral.id), now)
    liquidatable_raw = checked_percent_mul(stable_raw + variable_raw, LIQUIDATION_CLOSE_FACTOR_BPS)
    actual_raw = min(debt_to_cover_raw, liquidatable_raw)
    seized_raw, needed_raw = calculate_available_collateral_to_liquidate(
        collateral, debt, debt_to_cover_raw=actual_raw, collateral_balance_raw=balance_raw
    )
    # As the contract has it; what is worked back from too little collateral is never more than was offered.
    actual_raw = min(needed_raw, actual_raw)
    if not receive_a_token:
        _answer_unless(collateral.available_liquidity_raw >= seized_raw, NOT_ENOUGH_LIQUIDITY_TO_LIQUIDATE)

    updated_debt, _minted_raw = update_state(debt, now)
    after = account.with_position(_burn_debt(updated_debt, debt_position, actual_raw, variable_raw, now))

    # The index of the collateral is the same before and after its own update: lenders' index never stands.
    scaled_raw = ray_div(seized_raw, get_normalized_income(collateral, now))
    require(receive_a_token or scaled_raw != 0, INVALID_BURN_AMOUNT)
    position = after.position(collateral.id)
    left_raw = uint256(position.scaled_a_token_raw - scaled_raw, SAFE_SUB)
    after = after.with_position(replace(position, scaled_a_token_raw=left_raw))
    exhausted = seized_raw == balance_raw
    if exhausted:
        word = set_using_as_collateral(after.user_configuration, collateral.id, False)
        after = replace(after, user_configuration=word)
    return AaveV2Liquidation(
        revert_code=None,
        account_after=after,
        debt_repaid_raw=actual_raw,
        collateral_seized_raw=seized_raw,
        collateral_scaled_raw=scaled_raw,
        collateral_exhausted=exhausted,
        health_factor_wad=health_factor_wad,
    )


def liquidation_quote(
    market: AaveV2Market,
    account: AaveV2Account,
    debt_asset: str,
    collateral_asset: str,
    debt_to_cover_raw: int,
    *,
    receive_a_token: bool = False,
) -> AaveV2Liquidation:
    """Return what `LendingPool.liquidationCall` does when somebody else makes it and can pay.

    Parameters
    ----------
    market, account
        States at the block's time.
    debt_asset, collateral_asset
        Token addresses.
    debt_to_cover_raw
        The most that the liquidator wants to repay; what is above half of the debt is cut.
    receive_a_token
        Whether the liquidator takes aTokens, for which no liquidity is needed.
    """
    if market.paused:
        return AaveV2Liquidation(IS_PAUSED, account)
    try:
        return _liquidation_call(
            market,
            account,
            market.reserve_of(collateral_asset),
            market.reserve_of(debt_asset),
            debt_to_cover_raw,
            receive_a_token=receive_a_token,
        )
    except _Answered as answered:
        return AaveV2Liquidation(answered.code, account)
    except AaveV2Revert:
        return AaveV2Liquidation(LIQUIDATION_CALL_FAILED, account)
