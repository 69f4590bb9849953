"""Integer arithmetic as the contracts do it, and the only place where exact integers become floats.

Names follow the Solidity libraries: Aave `WadRayMath.sol` and `PercentageMath.sol` round half up.
All arguments are non-negative unless said otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from simulation.types import Float64

WAD = 10**18
RAY = 10**27
BPS = 10_000
MAX_UINT256 = 2**256 - 1
SECONDS_PER_YEAR = 31_536_000


def ceil_div(a: int, b: int) -> int:
    """Return ``a / b`` rounded up."""
    return -(-a // b)


def mul_div(a: int, b: int, denominator: int) -> int:
    """Return ``a * b / denominator`` rounded down, at full width (Uniswap `FullMath.mulDiv`)."""
    return a * b // denominator


def mul_div_up(a: int, b: int, denominator: int) -> int:
    """Return ``a * b / denominator`` rounded up (Uniswap `FullMath.mulDivRoundingUp`)."""
    return -(-a * b // denominator)


def percent_mul(value: int, percentage_bps: int) -> int:
    """Aave `PercentageMath.percentMul`: half up at 1e4."""
    return (value * percentage_bps + BPS // 2) // BPS


def percent_div(value: int, percentage_bps: int) -> int:
    """Aave `PercentageMath.percentDiv`: half up at 1e4."""
    return (value * BPS + percentage_bps // 2) // percentage_bps


def wad_mul(a: int, b: int) -> int:
    """Aave `WadRayMath.wadMul`: half up at 1e18."""
    return (a * b + WAD // 2) // WAD


def wad_div(a: int, b: int) -> int:
    """Aave `WadRayMath.wadDiv`: half up at 1e18."""
    return (a * WAD + b // 2) // b


def ray_mul(a: int, b: int) -> int:
    """Aave `WadRayMath.rayMul`: half up at 1e27."""
    return (a * b + RAY // 2) // RAY


def ray_div(a: int, b: int) -> int:
    """Aave `WadRayMath.rayDiv`: half up at 1e27."""
    return (a * RAY + b // 2) // b


def to_float(value: int, decimals: int) -> float:
    """Return ``value / 10**decimals`` correctly rounded to float64 (relative error at most 2**-53)."""
    return value / int(10**decimals)


def to_floats(values: Iterable[int], decimals: int) -> Float64:
    """Return `to_float` of each value as a float64 array."""
    scale = 10**decimals
    return np.fromiter((v / scale for v in values), dtype=np.float64)
