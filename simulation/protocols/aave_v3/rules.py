"""The versions of Aave V3 that are modelled."""

from __future__ import annotations

from typing import Final

from simulation.fixed_point import WAD, percent_div, percent_mul, ray_div, ray_mul, wad_div
from simulation.protocols.aave_v3.errors import BARE, uint256
from simulation.protocols.aave_v3.types import Rules


def _health_factor(collateral_base: int, threshold_bps: int, debt_base: int) -> int:
    adjusted_base = percent_mul(collateral_base, threshold_bps)
    uint256(adjusted_base * WAD + debt_base // 2, BARE)
    return wad_div(adjusted_base, debt_base)


V3_0: Final = Rules(
    name="3.0",
    default_close_factor_bps=5_000,
    max_close_factor_bps=10_000,
    close_factor_hf_threshold_wad=95 * 10**16,
    sentinel_hf_threshold_wad=95 * 10**16,
    scaled_to_balance=ray_mul,
    balance_to_scaled=ray_div,
    debt_needed=percent_div,
    health_factor=_health_factor,
    flash_premium=percent_mul,
)
"""``@aave/core-v3`` 1.19.3: pool, aToken and debt token revision 1."""
