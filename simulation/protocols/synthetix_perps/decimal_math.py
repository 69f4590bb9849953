"""Products and quotients at 1e18 (`DecimalMath.sol`, `MathUtil.sol`); signed ones are cut towards zero."""

from __future__ import annotations

from typing import Final

from simulation.fixed_point import WAD

UNIT: Final = WAD


def to_zero(a: int, b: int) -> int:
    """Return ``a / b`` cut towards zero, as Solidity divides signed integers."""
    quotient = abs(a) // abs(b)
    return quotient if (a >= 0) == (b > 0) else -quotient


def mul_decimal(x: int, y: int) -> int:
    """Return the product at 1e18 (`mulDecimal`)."""
    return to_zero(x * y, UNIT)


def div_decimal(x: int, y: int) -> int:
    """Return the quotient at 1e18 (`divDecimal`)."""
    return to_zero(x * UNIT, y)


def same_side(a: int, b: int) -> bool:
    """Return whether two sizes point the same way; nothing points both ways (`sameSide`)."""
    return a == 0 or b == 0 or (a > 0) == (b > 0)


def is_same_side_reducing(a: int, b: int) -> bool:
    """Return whether `b` is less than `a` on the same side (`isSameSideReducing`)."""
    return same_side(a, b) and abs(b) < abs(a)


def ceil_divide(a: int, b: int) -> int:
    """Return ``a / b`` rounded up, and 0 for a divisor of 0 (`ceilDivide`)."""
    return 0 if b == 0 else -(-a // b)
