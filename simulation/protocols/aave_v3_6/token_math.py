"""Between scaled amounts and token units, each rounded in the protocol's favour (`TokenMath.sol`)."""

from __future__ import annotations

from simulation.protocols.aave_v3_6.math_utils import (
    ray_div_ceil,
    ray_div_floor,
    ray_mul_ceil,
    ray_mul_floor,
)


def get_a_token_balance(scaled_raw: int, liquidity_index_ray: int) -> int:
    """Return what a scaled aToken balance is worth (`getATokenBalance`)."""
    return ray_mul_floor(scaled_raw, liquidity_index_ray)


def get_a_token_burn_scaled_amount(amount_raw: int, liquidity_index_ray: int) -> int:
    """Return the scaled aTokens burnt for an amount paid out (`getATokenBurnScaledAmount`)."""
    return ray_div_ceil(amount_raw, liquidity_index_ray)


def get_a_token_transfer_scaled_amount(amount_raw: int, liquidity_index_ray: int) -> int:
    """Return the scaled aTokens that move for an amount (`getATokenTransferScaledAmount`)."""
    return ray_div_ceil(amount_raw, liquidity_index_ray)


def get_v_token_balance(scaled_raw: int, variable_borrow_index_ray: int) -> int:
    """Return what a scaled debt comes to (`getVTokenBalance`)."""
    return ray_mul_ceil(scaled_raw, variable_borrow_index_ray)


def get_v_token_burn_scaled_amount(amount_raw: int, variable_borrow_index_ray: int) -> int:
    """Return the scaled debt taken off for an amount repaid (`getVTokenBurnScaledAmount`)."""
    return ray_div_floor(amount_raw, variable_borrow_index_ray)
