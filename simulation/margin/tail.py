"""Value at risk and expected shortfall of many linear portfolios over many scenarios, without the product.

Scenarios times portfolios would be a matrix of gigabytes of which a hundredth is asked for. Here it passes by
in blocks; what lies in the tail for certain is kept, by a threshold that a sample of the scenarios gives. Too
few kept is found out and mended, so the result is that of the full matrix: the same order statistics.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import floor
from typing import Any, Final, TypeVar, cast

import numba
import numpy as np
from numpy.typing import NDArray

from contracts_abi.errors import InputError

F = TypeVar("F", bound=Callable[..., Any])
Float64 = NDArray[np.float64]

_SCENARIOS: Final = 512
_PORTFOLIOS: Final = 500
"""A block of both: two megabytes of profits, made and looked through before they leave the cache."""
_SAMPLE: Final = 8_192
"""Scenarios that the threshold is drawn from; a second pass where it came out too low."""
_LANES: Final = 16


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
    if not 0 < level < 1:
        raise InputError(f"level {level} is not between 0 and 1")
    if not (np.isfinite(returns).all() and np.isfinite(weights).all()):
        raise InputError("a return or a weight is no number")
    share = len(returns) * (1 - level)
    # A level such as 0.99 is not exact; what is a whole number of scenarios stays one.
    share = float(round(share)) if abs(share - round(share)) < 1e-9 * len(returns) else share
    least = min(floor(share) + 1, len(returns))
    values, shortfalls = np.empty(len(weights)), np.empty(len(weights))
    again = 0
    for first in range(0, len(weights), _PORTFOLIOS):
        some = np.ascontiguousarray(weights[first : first + _PORTFOLIOS])
        kept, counts = _survivors(returns, some, _thresholds(returns, some, least), least)
        for row, (profits, count) in enumerate(zip(kept, counts, strict=True)):
            lowest = profits[:count]
            if not least <= count <= len(profits):
                lowest = some[row : row + 1] @ returns.T
                lowest, again = lowest[0], again + 1
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
    # Three standard errors of the sample's rank, and one more.
    place = min(sample.shape[1] - 1, int(wanted + 3 * wanted**0.5) + 1)
    threshold: Float64 = np.partition(sample, place, axis=1)[:, place]
    return threshold


def _survivors(
    returns: Float64, weights: Float64, threshold: Float64, least: int
) -> tuple[Float64, NDArray[np.int64]]:
    """Return the profits at or below the threshold, shape (portfolios, room), and how many there are."""
    room = min(len(returns), 2 * least + 4_096)
    kept = np.empty((len(weights), room))
    counts = np.zeros(len(weights), dtype=np.int64)
    block = np.empty((len(weights), _SCENARIOS))
    for start in range(0, len(returns), _SCENARIOS):
        part = returns[start : start + _SCENARIOS]
        profits = block if len(part) == _SCENARIOS else np.empty((len(weights), len(part)))
        np.matmul(weights, part.T, out=profits)
        _keep(profits, threshold, kept, counts)
    return kept, counts


def _kernel(function: F) -> F:
    return cast("F", numba.njit(cache=True, nogil=True, error_model="numpy")(function))


@_kernel
def _keep(profits: Float64, threshold: Float64, kept: Float64, counts: NDArray[np.int64]) -> None:
    """Append what is at or below the threshold; sixteen at a time are asked whether any is."""
    portfolios, scenarios = profits.shape
    room = kept.shape[1]
    for p in range(portfolios):
        limit, count = threshold[p], counts[p]
        row = profits[p]
        whole = scenarios // _LANES * _LANES
        for start in range(0, whole, _LANES):
            below = 0
            for j in range(_LANES):
                below += row[start + j] <= limit
            if below:
                for j in range(_LANES):
                    if row[start + j] <= limit:
                        if count < room:
                            kept[p, count] = row[start + j]
                        count += 1
        for j in range(whole, scenarios):
            if row[j] <= limit:
                if count < room:
                    kept[p, count] = row[j]
                count += 1
        counts[p] = count
