"""Prices at ticks of Uniswap V3 in exact integers: ``TickMath.getSqrtRatioAtTick``, ``getQuoteAtTick``.

Ticks number prices: at tick i one smallest unit of token0 is worth ``1.0001**i`` of token1. Square roots of
prices are Q64.96.
"""

from __future__ import annotations

import functools
import math
from typing import Final

from contracts_abi.uniswap_v3 import MAX_TICK

_ONE: Final = 1 << 128
_UINT128_MAX: Final = (1 << 128) - 1
_UINT256_MAX: Final = (1 << 256) - 1


def _root_factors() -> tuple[int, ...]:
    """Return ``1.0001 ** -(2**i / 2)`` for i = 0..19 as Q128.128, rounded to the nearest.

    The contract has them as literals; each is the square of the one before, worked out with room to spare.
    """
    spare = 256
    factor = math.isqrt((10_000 << (2 * (128 + spare))) // 10_001)
    found = []
    for _ in range(20):
        found.append((factor + (1 << (spare - 1))) >> spare)
        factor = factor * factor >> (128 + spare)
    return tuple(found)


_FACTORS: Final = _root_factors()


class TickOutOfRange(ArithmeticError):
    """No pool has a price at this tick; the contract reverts with ``T``."""


@functools.lru_cache(maxsize=65_536)
def sqrt_ratio_at_tick(tick: int) -> int:
    """Return the square root of the price at a tick, rounded up.

    Raises
    ------
    TickOutOfRange
        Beyond 887,272 on either side.
    """
    distance = abs(tick)
    if distance > MAX_TICK:
        raise TickOutOfRange(f"tick {tick} is out of range")
    ratio = _ONE
    for i, factor in enumerate(_FACTORS):
        if distance >> i & 1:
            ratio = ratio * factor >> 128
    if tick > 0:
        ratio = _UINT256_MAX // ratio
    return -(-ratio >> 32)


def tick_at_sqrt_ratio(root: int) -> int:
    """Return the tick of a square root: the greatest whose own square root is not above it.

    Raises
    ------
    TickOutOfRange
        If it is none of a pool's: below that of the least tick, or not below that of the greatest.
    """
    if not sqrt_ratio_at_tick(-MAX_TICK) <= root < sqrt_ratio_at_tick(MAX_TICK):
        raise TickOutOfRange(f"square root {root} is out of range")
    low, high = -MAX_TICK, MAX_TICK
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if sqrt_ratio_at_tick(middle) <= root else (low, middle)
    return low


def quote_at_tick(tick: int, amount: int, *, base_is_token0: bool) -> int:
    """Return what an amount of the base token is worth at a tick (``OracleLibrary.getQuoteAtTick``).

    The square of the square root is taken whole while that has at most 128 bits, and cut to 128 fractional
    bits above; both ways the result is rounded down.

    Parameters
    ----------
    tick
        As the pool counts them.
    amount
        Raw base tokens, 128 bits.
    base_is_token0
        Whether the base token's address is the lower one.

    Raises
    ------
    TickOutOfRange
        Where the contract reverts.
    """
    root = sqrt_ratio_at_tick(tick)
    if root <= _UINT128_MAX:
        ratio, bits = root * root, 192
    else:
        ratio, bits = root * root >> 64, 128
    return ratio * amount >> bits if base_is_token0 else (amount << bits) // ratio
