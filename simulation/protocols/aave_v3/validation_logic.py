"""Preconditions (`ValidationLogic.sol`), as far as they touch liquidation."""

from __future__ import annotations

from simulation.fixed_point import WAD
from simulation.protocols.aave_v3.configuration import (
    COLLATERAL_MASK,
    is_using_as_collateral,
    is_using_as_collateral_any,
    is_using_as_collateral_one,
)
from simulation.protocols.aave_v3.errors import (
    COLLATERAL_CANNOT_BE_LIQUIDATED,
    HEALTH_FACTOR_NOT_BELOW_THRESHOLD,
    PRICE_ORACLE_SENTINEL_CHECK_FAILED,
    RESERVE_INACTIVE,
    RESERVE_PAUSED,
    SPECIFIED_CURRENCY_NOT_BORROWED_BY_USER,
    require,
)
from simulation.protocols.aave_v3.types import AaveAccount, AaveMarket, ReserveData

HEALTH_FACTOR_LIQUIDATION_THRESHOLD = WAD


def validate_liquidation_call(
    market: AaveMarket,
    account: AaveAccount,
    collateral: ReserveData | None,
    debt: ReserveData,
    *,
    total_debt_raw: int,
    health_factor_wad: int,
) -> None:
    """Revert unless the liquidation may go ahead, with the contract's codes in its order.

    A `collateral` that the pool does not list is None and counts as inactive (`validateLiquidationCall`).
    """
    require(
        collateral is not None and collateral.configuration.active and debt.configuration.active,
        RESERVE_INACTIVE,
    )
    assert collateral is not None
    require(not collateral.configuration.paused and not debt.configuration.paused, RESERVE_PAUSED)
    require(
        market.liquidation_allowed is not False or health_factor_wad < market.rules.sentinel_hf_threshold_wad,
        PRICE_ORACLE_SENTINEL_CHECK_FAILED,
    )
    require(
        health_factor_wad < HEALTH_FACTOR_LIQUIDATION_THRESHOLD,
        HEALTH_FACTOR_NOT_BELOW_THRESHOLD,
    )
    require(
        collateral.configuration.liquidation_threshold_bps != 0
        and is_using_as_collateral(account.user_configuration, collateral.id),
        COLLATERAL_CANNOT_BE_LIQUIDATED,
    )
    require(total_debt_raw != 0, SPECIFIED_CURRENCY_NOT_BORROWED_BY_USER)


def isolation_mode_collateral(market: AaveMarket, user_configuration: int) -> ReserveData | None:
    """Return the only collateral if it is an isolated one, else None (`getIsolationModeState`)."""
    if not is_using_as_collateral_one(user_configuration):
        return None
    reserve_id = (user_configuration & COLLATERAL_MASK).bit_length() // 2 - 1
    reserve = market.reserves[reserve_id] if reserve_id < len(market.reserves) else None
    return reserve if reserve is not None and reserve.configuration.debt_ceiling != 0 else None


def validate_automatic_use_as_collateral(
    market: AaveMarket, user_configuration: int, reserve: ReserveData
) -> bool:
    """Return whether first aTokens of `reserve` become collateral by themselves.

    The holder is taken not to have the isolated collateral supplier role
    (`validateAutomaticUseAsCollateral`).
    """
    if reserve.configuration.debt_ceiling != 0 or reserve.configuration.ltv_bps == 0:
        return False
    if not is_using_as_collateral_any(user_configuration):
        return True
    return isolation_mode_collateral(market, user_configuration) is None
