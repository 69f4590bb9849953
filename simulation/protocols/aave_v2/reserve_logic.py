"""Indices and rates of a reserve (`ReserveLogic.sol` of V2) and the balances that follow from them."""

from __future__ import annotations

from dataclasses import replace

from contracts_abi.errors import InputError
from simulation.fixed_point import percent_mul, ray_div, ray_mul
from simulation.protocols.aave_v2.interest_rate_strategy import (
    InterestRateStrategy,
    Rates,
    calculate_interest_rates,
)
from simulation.protocols.aave_v2.math_utils import calculate_compounded_interest, calculate_linear_interest
from simulation.protocols.aave_v2.types import AaveV2Position, AaveV2Reserve


def _elapsed(reserve: AaveV2Reserve, timestamp: int) -> int:
    if timestamp < reserve.last_update_timestamp:
        raise InputError(
            f"timestamp {timestamp} is before the last update of {reserve.asset.symbol} "
            f"({reserve.last_update_timestamp})",
            fix="give the block's own time or later",
        )
    return timestamp - reserve.last_update_timestamp


def get_normalized_income(reserve: AaveV2Reserve, timestamp: int) -> int:
    """Return the liquidity index at `timestamp`, in ray (`getNormalizedIncome`).

    Raises
    ------
    InputError
        If `timestamp` lies before the reserve's last update.
    """
    elapsed_s = _elapsed(reserve, timestamp)
    if elapsed_s == 0:
        return reserve.liquidity_index_ray
    growth_ray = calculate_linear_interest(reserve.current_liquidity_rate_ray, elapsed_s)
    return ray_mul(growth_ray, reserve.liquidity_index_ray)


def get_normalized_debt(reserve: AaveV2Reserve, timestamp: int) -> int:
    """Return the variable borrow index at `timestamp`, in ray (`getNormalizedDebt`).

    Raises
    ------
    InputError
        If `timestamp` lies before the reserve's last update.
    """
    elapsed_s = _elapsed(reserve, timestamp)
    if elapsed_s == 0:
        return reserve.variable_borrow_index_ray
    growth_ray = calculate_compounded_interest(reserve.current_variable_borrow_rate_ray, elapsed_s)
    return ray_mul(growth_ray, reserve.variable_borrow_index_ray)


def a_token_balance(reserve: AaveV2Reserve, position: AaveV2Position, timestamp: int) -> int:
    """Return the aToken balance in token units (`AToken.balanceOf`)."""
    return ray_mul(position.scaled_a_token_raw, get_normalized_income(reserve, timestamp))


def variable_debt_balance(reserve: AaveV2Reserve, position: AaveV2Position, timestamp: int) -> int:
    """Return the variable debt in token units (`VariableDebtToken.balanceOf`)."""
    return ray_mul(position.scaled_variable_debt_raw, get_normalized_debt(reserve, timestamp))


def stable_debt_balance(position: AaveV2Position, timestamp: int) -> int:
    """Return the stable debt in token units, at the account's own rate (`StableDebtToken.balanceOf`)."""
    if position.stable_principal_raw == 0:
        return 0
    growth_ray = calculate_compounded_interest(
        position.stable_rate_ray, timestamp - position.stable_timestamp
    )
    return ray_mul(position.stable_principal_raw, growth_ray)


def total_stable_debt(reserve: AaveV2Reserve, timestamp: int) -> int:
    """Return all stable debt of the reserve, at its average rate (`StableDebtToken.totalSupply`)."""
    if reserve.stable_principal_raw == 0:
        return 0
    growth_ray = calculate_compounded_interest(
        reserve.average_stable_rate_ray, timestamp - reserve.stable_timestamp
    )
    return ray_mul(reserve.stable_principal_raw, growth_ray)


def update_state(reserve: AaveV2Reserve, timestamp: int) -> tuple[AaveV2Reserve, int]:
    """Return the reserve with indices of `timestamp`, and the scaled aTokens minted to the treasury.

    The variable index stands still while lenders earn nothing, although `get_normalized_debt` goes on:
    the contract looks at the liquidity rate before it looks at the debt (`updateState`).
    """
    elapsed_s = _elapsed(reserve, timestamp)
    updated = replace(reserve, last_update_timestamp=timestamp)
    if reserve.current_liquidity_rate_ray > 0:
        growth_ray = calculate_linear_interest(reserve.current_liquidity_rate_ray, elapsed_s)
        updated = replace(updated, liquidity_index_ray=ray_mul(growth_ray, reserve.liquidity_index_ray))
        if reserve.scaled_variable_debt_raw != 0:
            growth_ray = calculate_compounded_interest(reserve.current_variable_borrow_rate_ray, elapsed_s)
            updated = replace(
                updated, variable_borrow_index_ray=ray_mul(growth_ray, reserve.variable_borrow_index_ray)
            )
    return updated, _mint_to_treasury(reserve, updated)


def _mint_to_treasury(before: AaveV2Reserve, after: AaveV2Reserve) -> int:
    """Return the scaled aTokens of the treasury's share of the interest (`_mintToTreasury`)."""
    factor_bps = before.configuration.reserve_factor_bps
    if factor_bps == 0:
        return 0
    variable_raw = ray_mul(before.scaled_variable_debt_raw, after.variable_borrow_index_ray) - ray_mul(
        before.scaled_variable_debt_raw, before.variable_borrow_index_ray
    )
    # Stable interest from the last stable action on to the last update was minted then.
    growth_ray = calculate_compounded_interest(
        before.average_stable_rate_ray, before.last_update_timestamp - before.stable_timestamp
    )
    previous_stable_raw = ray_mul(before.stable_principal_raw, growth_ray)
    stable_raw = total_stable_debt(before, after.last_update_timestamp) - previous_stable_raw
    minted_raw = percent_mul(variable_raw + stable_raw, factor_bps)
    return ray_div(minted_raw, after.liquidity_index_ray) if minted_raw else 0


def update_interest_rates(
    reserve: AaveV2Reserve,
    strategy: InterestRateStrategy,
    *,
    liquidity_added_raw: int = 0,
    liquidity_taken_raw: int = 0,
    market_stable_rate_ray: int = 0,
) -> tuple[AaveV2Reserve, Rates]:
    """Return the reserve at its new rates after `update_state`, and the rates (`updateInterestRates`).

    Parameters
    ----------
    reserve
        As of this block: `update_state` comes first, and debts are as the action leaves them.
    strategy
        Its curve.
    liquidity_added_raw, liquidity_taken_raw
        What comes to and leaves the aToken in this action; `available_liquidity_raw` is before it.
    market_stable_rate_ray
        What the lending rate oracle answers.
    """
    available_raw = reserve.available_liquidity_raw + liquidity_added_raw - liquidity_taken_raw
    if available_raw < 0:
        raise InputError(
            f"{liquidity_taken_raw} taken of {reserve.available_liquidity_raw} {reserve.asset.symbol}",
            fix="take what is there",
        )
    rates = calculate_interest_rates(
        strategy,
        available_liquidity_raw=available_raw,
        total_stable_debt_raw=total_stable_debt(reserve, reserve.last_update_timestamp),
        total_variable_debt_raw=ray_mul(reserve.scaled_variable_debt_raw, reserve.variable_borrow_index_ray),
        average_stable_rate_ray=reserve.average_stable_rate_ray,
        market_stable_rate_ray=market_stable_rate_ray,
        reserve_factor_bps=reserve.configuration.reserve_factor_bps,
    )
    after = replace(
        reserve,
        available_liquidity_raw=available_raw,
        current_liquidity_rate_ray=rates.liquidity_ray,
        current_variable_borrow_rate_ray=rates.variable_borrow_ray,
    )
    return after, rates
