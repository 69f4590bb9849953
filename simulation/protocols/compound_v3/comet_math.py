"""Products and quotients as Comet rounds them, all towards zero, checked at 256 bits (`Comet.sol`)."""

from __future__ import annotations

from typing import Final

from simulation.fixed_point import SECONDS_PER_YEAR, WAD
from simulation.protocols.compound_v3.errors import DIVISION_PANIC, require, signed, signed256, uint256

BASE_INDEX_SCALE: Final = 10**15
FACTOR_SCALE: Final = WAD
FACTOR_STEP: Final = FACTOR_SCALE // 10_000


def div(numerator: int, denominator: int) -> int:
    """Return the quotient of unsigned integers rounded down; raises `CometRevert` on zero."""
    require(denominator != 0, DIVISION_PANIC)
    return numerator // denominator


def mul_factor(n: int, factor_wad: int) -> int:
    """Return ``n * factor / 1e18`` rounded down (`mulFactor`)."""
    return uint256(n * factor_wad) // FACTOR_SCALE


def mul_price(n_raw: int, price_e8: int, from_scale: int) -> int:
    """Return what raw units are worth, rounded down (`mulPrice`)."""
    return uint256(n_raw * price_e8) // from_scale


def signed_mul_price(n_raw: int, price_e8: int, from_scale: int) -> int:
    """Return what raw units of either sign are worth, rounded towards zero (`signedMulPrice`)."""
    product = signed(n_raw * signed256(price_e8))
    return product // from_scale if product >= 0 else -(-product // from_scale)


def div_price(value_e8: int, price_e8: int, to_scale: int) -> int:
    """Return how many raw units a value is, rounded down (`divPrice`)."""
    return div(uint256(value_e8 * to_scale), price_e8)


def per_second(per_year_wad: int) -> int:
    """Return a yearly rate by the second, rounded down (the constructor)."""
    return per_year_wad // SECONDS_PER_YEAR


def kept_factor(factor_wad: int) -> int:
    """Return a factor as the contract keeps it, at four decimals (`getPackedAssetInternal`)."""
    return factor_wad // FACTOR_STEP * FACTOR_STEP


def kept_cap(cap_raw: int, scale: int) -> int:
    """Return a supply cap as the contract keeps it, in whole tokens (`getPackedAssetInternal`)."""
    return cap_raw // scale * scale
