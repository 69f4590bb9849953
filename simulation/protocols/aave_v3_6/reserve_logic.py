"""Indices of a reserve at a time (`ReserveLogic.sol`)."""

from __future__ import annotations

from dataclasses import replace

from contracts_abi.errors import InputError
from simulation.fixed_point import ray_mul
from simulation.protocols.aave_v3.math_utils import calculate_linear_interest
from simulation.protocols.aave_v3_6.math_utils import calculate_compounded_interest
from simulation.protocols.aave_v3_6.types import AaveMarket, ReserveData


def get_normalized_income(reserve: ReserveData, timestamp: int) -> int:
    """Return the liquidity index at `timestamp`, in ray (`getNormalizedIncome`)."""
    elapsed_s = timestamp - reserve.last_update_timestamp
    if elapsed_s == 0:
        return reserve.liquidity_index_ray
    growth_ray = calculate_linear_interest(reserve.current_liquidity_rate_ray, elapsed_s)
    return ray_mul(growth_ray, reserve.liquidity_index_ray)


def get_normalized_debt(reserve: ReserveData, timestamp: int) -> int:
    """Return the variable borrow index at `timestamp`, in ray (`getNormalizedDebt`)."""
    elapsed_s = timestamp - reserve.last_update_timestamp
    if elapsed_s == 0:
        return reserve.variable_borrow_index_ray
    growth_ray = calculate_compounded_interest(reserve.current_variable_borrow_rate_ray, elapsed_s)
    return ray_mul(growth_ray, reserve.variable_borrow_index_ray)


def accrue(reserve: ReserveData, timestamp: int) -> ReserveData:
    """Return the reserve with its normalized indices at `timestamp`.

    Raises
    ------
    InputError
        If `timestamp` lies before the reserve's last update.
    """
    if timestamp < reserve.last_update_timestamp:
        raise InputError(
            f"timestamp {timestamp} is before the last update of {reserve.asset.symbol} "
            f"({reserve.last_update_timestamp})",
            fix="project to the block's own time or later",
        )
    return replace(
        reserve,
        normalized_income_ray=get_normalized_income(reserve, timestamp),
        normalized_variable_debt_ray=get_normalized_debt(reserve, timestamp),
    )


def project(market: AaveMarket, timestamp: int) -> AaveMarket:
    """Return the market as it will be at `timestamp` if nobody touches it, for example in the next block.

    Prices and the sentinel's answer are those of the block read.
    """
    reserves = tuple(None if r is None else accrue(r, timestamp) for r in market.reserves)
    return replace(market, timestamp=timestamp, reserves=reserves)
