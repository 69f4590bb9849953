"""Preconditions (`ValidationLogic.sol`), as far as they touch liquidation."""

from __future__ import annotations

from typing import Final

from simulation.fixed_point import WAD
from simulation.protocols.aave_v3.configuration import is_using_as_collateral
from simulation.protocols.aave_v3.types import AaveAccount
from simulation.protocols.aave_v3_6.errors import (
    COLLATERAL_CANNOT_BE_LIQUIDATED,
    HEALTH_FACTOR_NOT_BELOW_THRESHOLD,
    LIQUIDATION_GRACE_SENTINEL_CHECK_FAILED,
    PRICE_ORACLE_SENTINEL_CHECK_FAILED,
    RESERVE_INACTIVE,
    RESERVE_PAUSED,
    SELF_LIQUIDATION,
    SPECIFIED_CURRENCY_NOT_BORROWED_BY_USER,
    require,
)
from simulation.protocols.aave_v3_6.types import AaveMarket, ReserveData

HEALTH_FACTOR_LIQUIDATION_THRESHOLD: Final = WAD
MINIMUM_HEALTH_FACTOR_LIQUIDATION_THRESHOLD: Final = 95 * 10**16
"""Health factor below which a liquidation needs no leave of the price oracle sentinel."""


def validate_liquidation_call(
    market: AaveMarket,
    account: AaveAccount,
    collateral: ReserveData,
    debt: ReserveData,
    *,
    total_debt_raw: int,
    health_factor_wad: int,
    liquidator: str | None,
) -> None:
    """Revert unless the liquidation may go ahead, with the contract's errors in its order.

    A collateral with a threshold of 0 may be taken, unlike in revision 1 (`validateLiquidationCall`).
    """
    require(liquidator is None or liquidator.lower() != account.account.lower(), SELF_LIQUIDATION)
    require(collateral.configuration.active and debt.configuration.active, RESERVE_INACTIVE)
    require(not collateral.configuration.paused and not debt.configuration.paused, RESERVE_PAUSED)
    require(
        market.liquidation_allowed is not False
        or health_factor_wad < MINIMUM_HEALTH_FACTOR_LIQUIDATION_THRESHOLD,
        PRICE_ORACLE_SENTINEL_CHECK_FAILED,
    )
    grace_until = max(collateral.liquidation_grace_period_until, debt.liquidation_grace_period_until)
    require(grace_until < market.timestamp, LIQUIDATION_GRACE_SENTINEL_CHECK_FAILED)
    require(health_factor_wad < HEALTH_FACTOR_LIQUIDATION_THRESHOLD, HEALTH_FACTOR_NOT_BELOW_THRESHOLD)
    require(
        is_using_as_collateral(account.user_configuration, collateral.id), COLLATERAL_CANNOT_BE_LIQUIDATED
    )
    require(total_debt_raw != 0, SPECIFIED_CURRENCY_NOT_BORROWED_BY_USER)
