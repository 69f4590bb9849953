"""What 3.5 and 3.6 add to the arithmetic: directed rounding, and compound interest by another expansion.

`WadRayMath.sol`, `PercentageMath.sol` and `MathUtils.sol`. All arguments are non-negative.
"""

from __future__ import annotations

from simulation.fixed_point import BPS, RAY, SECONDS_PER_YEAR, ceil_div, ray_mul
from simulation.protocols.aave_v3_6.errors import BARE, require, uint256


def ray_mul_floor(a: int, b: int) -> int:
    """`WadRayMath.rayMulFloor`."""
    return a * b // RAY


def ray_mul_ceil(a: int, b: int) -> int:
    """`WadRayMath.rayMulCeil`."""
    return ceil_div(a * b, RAY)


def ray_div_floor(a: int, b: int) -> int:
    """`WadRayMath.rayDivFloor`."""
    return a * RAY // b


def ray_div_ceil(a: int, b: int) -> int:
    """`WadRayMath.rayDivCeil`."""
    return ceil_div(a * RAY, b)


def percent_mul_floor(value: int, percentage_bps: int) -> int:
    """`PercentageMath.percentMulFloor`."""
    return value * percentage_bps // BPS


def percent_mul_ceil(value: int, percentage_bps: int) -> int:
    """`PercentageMath.percentMulCeil`."""
    return ceil_div(value * percentage_bps, BPS)


def percent_div_ceil(value: int, percentage_bps: int) -> int:
    """`PercentageMath.percentDivCeil`; reverts on a product beyond 256 bits and on a percentage of 0."""
    require(percentage_bps != 0, BARE)
    return ceil_div(uint256(value * BPS, BARE), percentage_bps)


def mul_div_ceil(a: int, b: int, c: int) -> int:
    """`MathUtils.mulDivCeil`; reverts on a product beyond 256 bits. `c` is not 0."""
    return ceil_div(uint256(a * b, BARE), c)


def calculate_compounded_interest(rate_ray: int, elapsed_s: int) -> int:
    """Return the growth factor of compound interest, in ray (`MathUtils.calculateCompoundedInterest`).

    The exponential series to its third term, in the interest of the whole time; revision 1 expands the
    binomial in the seconds.
    """
    x_ray = rate_ray * elapsed_s // SECONDS_PER_YEAR
    return RAY + x_ray + ray_mul(x_ray, x_ray // 2 + ray_mul(x_ray, x_ray // 6))
