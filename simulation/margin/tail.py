"""Value at risk and expected shortfall of many linear portfolios over many scenarios, without the product.

Scenarios times portfolios would be a matrix of gigabytes of which a hundredth is asked for. Here it passes by
in blocks; what lies in the tail for certain is kept, by a threshold that a sample of the scenarios gives. Too
few kept is found out and mended, so the result is that of the full matrix: the same order statistics.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar, cast

import numba
import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from contracts_abi.errors import InputError
from simulation.statistics import quantile_row, tail_rows

F = TypeVar("F", bound=Callable[..., Any])
Float64 = NDArray[np.float64]

_SCENARIOS: Final = 2_048
_PORTFOLIOS: Final = 1_000
"""A block of both: eight megabytes of profits, made and looked through before they leave the cache. Smaller
ones, down to what the second cache holds, were measured and are no faster: more calls eat the gain."""
_SAMPLE: Final = 4_096
"""Scenarios that the threshold is drawn from; a second pass where it came out too low."""
_LANES: Final = 16
_WIDE: Final = 4 * _LANES
"""Profits that are compared at once, see `_at_most`, and those whose bits make a number together; blocks are
filled up to a multiple of it."""
_TIGHTEN: Final = (10, 40, 160)
"""After these blocks the thresholds are drawn anew, from all that passed by."""
_NO_LIMIT: Final = np.array([np.inf])
_SINGLE_ROUNDOFF: Final = 2.0**-24
_SINGLE_SMALLEST: Final = 2.0**-126
"""Below it single precision loses more than its roundoff; a term that small is off by less than itself."""


@dataclass(frozen=True, slots=True)
class Tail:
    """Losses in the tail, positive for a loss.

    Attributes
    ----------
    value_at_risk, expected_shortfall
        float64, shape (portfolios,).
    again
        Portfolios whose threshold was too low and that were looked through a second time.
    """

    value_at_risk: Float64
    expected_shortfall: Float64
    again: int


def tail(returns: Float64, weights: Float64, level: float) -> Tail:
    """Return value at risk and expected shortfall of every portfolio.

    The value at risk is the loss of order ``k = floor(N * (1 - level)) + 1`` from the worst; the expected
    shortfall is the mean of the worst ``N * (1 - level)``, of which the last counts with its fraction.

    Parameters
    ----------
    returns
        Shape (scenarios, assets).
    weights
        Value held of each asset, shape (portfolios, assets).
    level
        Between 0 and 1, for example 0.99.

    Raises
    ------
    InputError
        If shapes do not fit, the level is not between 0 and 1, or a number is none.
    """
    if returns.ndim != 2 or weights.ndim != 2 or returns.shape[1] != weights.shape[1] or not len(returns):
        raise InputError(
            f"returns {returns.shape} and weights {weights.shape} do not fit",
            fix="give scenarios by assets, and portfolios by assets",
        )
    share = tail_rows(len(returns), level)
    # The extremes tell of every number that is none, and bound the rounding of single precision.
    largest = max(float(returns.max()), -float(returns.min()))
    if not (np.isfinite(largest) and np.isfinite(weights).all()):
        raise InputError("a return or a weight is no number")
    least = quantile_row(len(returns), level)
    values, shortfalls = np.empty(len(weights)), np.empty(len(weights))
    again = 0
    for first in range(0, len(weights), _PORTFOLIOS):
        some = np.ascontiguousarray(weights[first : first + _PORTFOLIOS])
        kept, counts = _survivors(returns, some, _thresholds(returns, some, least), least, largest)
        for row, (profits, count) in enumerate(zip(kept, counts, strict=True)):
            lowest = profits[:count]
            if not least <= count <= len(profits):
                every, _ = _survivors(returns, some[row : row + 1], _NO_LIMIT, len(returns), largest)
                lowest, again = every[0], again + 1
            worst = np.partition(lowest, least - 1)[:least]
            values[first + row] = -worst[-1]
            total = worst[:-1].sum() + (share - (least - 1)) * worst[-1]
            shortfalls[first + row] = -total / share
    return Tail(values, shortfalls, again)


def _thresholds(returns: Float64, weights: Float64, least: int) -> Float64:
    """Return for each portfolio a profit below which the tail lies, most likely."""
    every = max(1, len(returns) // _SAMPLE)
    sample = weights @ np.ascontiguousarray(returns[::every]).T
    wanted = least / len(returns) * sample.shape[1]
    # Five standard errors of the sample's rank, and one more: it is drawn anew as soon as more is known.
    place = min(sample.shape[1] - 1, int(wanted + 5 * wanted**0.5) + 1)
    threshold: Float64 = np.partition(sample, place, axis=1)[:, place]
    return threshold


def _survivors(
    returns: Float64, weights: Float64, threshold: Float64, least: int, largest: float
) -> tuple[Float64, NDArray[np.int64]]:
    """Return the profits at or below the threshold, shape (portfolios, room), and how many there are.

    Products in single precision say what may be one: they are off by less than `slack`, which bounds the
    rounding of both factors and of the sum (Higham 2002, 3.5). What may be one is computed again in double
    precision, term by term in the order in which a matrix product adds, and counts only if it is one.
    """
    room = min(len(returns), 2 * least + 4_096)
    kept = np.empty((len(weights), room))
    counts = np.zeros(len(weights), dtype=np.int64)
    single = weights.astype(np.float32)
    terms = returns.shape[1] + 3
    size = np.abs(weights).sum(axis=1) * largest
    slack = terms * _SINGLE_ROUNDOFF / (1 - terms * _SINGLE_ROUNDOFF) * size + _SINGLE_SMALLEST * terms
    threshold = threshold.copy()
    limit = np.nextafter((threshold + slack).astype(np.float32), np.float32(np.inf))
    width = -(-min(_SCENARIOS, len(returns)) // _WIDE) * _WIDE
    block = np.empty((len(weights), width), dtype=np.float32)
    places = np.empty(width + 2, dtype=np.int64)
    for start in range(0, len(returns), _SCENARIOS):
        part = np.ascontiguousarray(returns[start : start + _SCENARIOS])
        # Filled up with what is no number: no limit lets it pass, not even an infinite one.
        block[:, len(part) :] = np.nan
        np.matmul(single, part.astype(np.float32).T, out=block[:, : len(part)])
        _keep(block, limit, part, weights, threshold, places, kept, counts)
        done = start + len(part)
        if start // _SCENARIOS in _TIGHTEN and done < len(returns):
            _tighten(least / len(returns) * done, threshold, kept, counts)
            limit = np.nextafter((threshold + slack).astype(np.float32), np.float32(np.inf))
    return kept, counts


def _tighten(wanted: float, threshold: Float64, kept: Float64, counts: NDArray[np.int64]) -> None:
    """Lower thresholds to what the scenarios so far ask for; what lies above is forgotten."""
    place = int(wanted + 5 * wanted**0.5) + 1
    for p, count in enumerate(counts):
        if place < count <= kept.shape[1]:
            lowest = np.partition(kept[p, :count], place)[: place + 1]
            threshold[p], counts[p] = lowest[place], place + 1
            kept[p, : place + 1] = lowest


def _kernel(function: F) -> F:
    return cast("F", numba.njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})(function))


def _mask(_context: Any, row: Any, start: Any, most: Any) -> Any:
    """Return which of `_LANES` numbers from a place on are at most a limit, as bits, the first one lowest.

    One comparison and one move of its mask: a loop that adds up comparisons costs five times as much, since
    the compiler does not see that it is asked for a mask.
    """
    signature = types.uint64(row, types.intp, types.float32)

    def generated(context: Any, builder: Any, made: Any, values: Any) -> Any:
        array, place, limit = values
        lanes = ir.VectorType(ir.FloatType(), _LANES)
        data = context.make_array(made.args[0])(context, builder, array).data
        loaded = builder.load(builder.bitcast(builder.gep(data, [place]), lanes.as_pointer()), align=4)
        index = ir.IntType(32)
        none = ir.Constant(lanes, ir.Undefined)
        first = builder.insert_element(none, limit, ir.Constant(index, 0))
        every = builder.shuffle_vector(first, none, ir.Constant(ir.VectorType(index, _LANES), [0] * _LANES))
        below = builder.bitcast(builder.fcmp_ordered("<=", loaded, every), ir.IntType(_LANES))
        return builder.zext(below, ir.IntType(64))

    return signature, generated


def _zeros(_context: Any, bits: Any) -> Any:
    """Return the place of the lowest bit of a number; 64 where it has none."""

    def generated(_target: Any, builder: Any, _made: Any, values: Any) -> Any:
        return builder.cttz(values[0], ir.Constant(ir.IntType(1), 0))

    return types.intp(types.uint64), generated


_at_most: Any = intrinsic(_mask)
_lowest_bit: Any = intrinsic(_zeros)


@_kernel
def _found(row: NDArray[np.float32], most: np.float32, places: NDArray[np.int64]) -> int:
    """Write the places of what is at most a limit, in order, and return how many.

    Parameters
    ----------
    row
        Shape (numbers,), a multiple of `_WIDE`.
    most
        The limit.
    places
        Written to; room for two more than there are numbers.
    """
    found = 0
    for start in range(0, len(row), _WIDE):
        bits = _at_most(row, start, most)
        bits |= _at_most(row, start + _LANES, most) << np.uint64(_LANES)
        bits |= _at_most(row, start + 2 * _LANES, most) << np.uint64(2 * _LANES)
        bits |= _at_most(row, start + 3 * _LANES, most) << np.uint64(3 * _LANES)
        # Two are written in any case and kept only if they are there: nothing to guess wrong.
        places[found] = start + _lowest_bit(bits)
        found += bits != 0
        bits &= bits - np.uint64(1)
        places[found] = start + _lowest_bit(bits)
        found += bits != 0
        bits &= bits - np.uint64(1)
        while bits:
            places[found] = start + _lowest_bit(bits)
            found += 1
            bits &= bits - np.uint64(1)
    return found


@_kernel
def _keep(
    profits: NDArray[np.float32],
    limit: NDArray[np.float32],
    returns: Float64,
    weights: Float64,
    threshold: Float64,
    places: NDArray[np.int64],
    kept: Float64,
    counts: NDArray[np.int64],
) -> None:
    """Append what is at or below the threshold, summed again in double precision."""
    assets, room = returns.shape[1], kept.shape[1]
    sums = np.empty(8)
    for p in range(len(profits)):
        exact, count, weight = threshold[p], counts[p], weights[p]
        found = _found(profits[p], limit[p], places)
        # Eight sums at a time: each waits for its own last addition. The last eight may repeat the last one.
        for at in range(0, found, 8):
            last = found - 1
            r0 = returns[places[min(at + 0, last)]]
            r1 = returns[places[min(at + 1, last)]]
            r2 = returns[places[min(at + 2, last)]]
            r3 = returns[places[min(at + 3, last)]]
            r4 = returns[places[min(at + 4, last)]]
            r5 = returns[places[min(at + 5, last)]]
            r6 = returns[places[min(at + 6, last)]]
            r7 = returns[places[min(at + 7, last)]]
            s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = 0.0
            for k in range(assets):
                w = weight[k]
                s0 += r0[k] * w
                s1 += r1[k] * w
                s2 += r2[k] * w
                s3 += r3[k] * w
                s4 += r4[k] * w
                s5 += r5[k] * w
                s6 += r6[k] * w
                s7 += r7[k] * w
            sums[0], sums[1], sums[2], sums[3] = s0, s1, s2, s3
            sums[4], sums[5], sums[6], sums[7] = s4, s5, s6, s7
            for j in range(min(8, found - at)):
                if sums[j] <= exact:
                    if count < room:
                        kept[p, count] = sums[j]
                    count += 1
        counts[p] = count
