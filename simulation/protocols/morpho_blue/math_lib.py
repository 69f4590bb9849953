"""Products and quotients at 1e18 as the contract rounds them (`MathLib.sol`), checked at 256 bits."""

from __future__ import annotations

from simulation.fixed_point import WAD
from simulation.protocols.morpho_blue.errors import ARITHMETIC_PANIC, DIVISION_PANIC, require, uint256


def mul_div_down(x: int, y: int, d: int) -> int:
    """Return ``x * y / d`` rounded down (`mulDivDown`); the product has to fit 256 bits."""
    product = uint256(x * y)
    require(d != 0, DIVISION_PANIC)
    return product // d


def mul_div_up(x: int, y: int, d: int) -> int:
    """Return ``x * y / d`` rounded up (`mulDivUp`); the product plus ``d - 1`` has to fit 256 bits."""
    product = uint256(x * y)
    require(d != 0, ARITHMETIC_PANIC)  # what is missing for the next multiple would be -1
    return uint256(product + d - 1) // d


def w_mul_down(x: int, y: int) -> int:
    """Return the product at 1e18, rounded down (`wMulDown`)."""
    return mul_div_down(x, y, WAD)


def w_div_down(x: int, y: int) -> int:
    """Return the quotient at 1e18, rounded down (`wDivDown`)."""
    return mul_div_down(x, WAD, y)


def w_div_up(x: int, y: int) -> int:
    """Return the quotient at 1e18, rounded up (`wDivUp`)."""
    return mul_div_up(x, WAD, y)


def w_taylor_compounded(rate_wad: int, elapsed_s: int) -> int:
    """Return ``e^(rate * seconds) - 1`` by its first three terms, at 1e18 (`wTaylorCompounded`)."""
    first = uint256(rate_wad * elapsed_s)
    second = mul_div_down(first, first, 2 * WAD)
    third = mul_div_down(second, first, 3 * WAD)
    return uint256(first + second + third)
