"""Options over a grid of scenarios: each unique option is priced once in each, whoever holds it.

One exponential serves both normal distributions. With ``phi`` the normal density and
``N(-x) = phi(x) * M(x)`` (``M`` is Mills' ratio), and since ``K * phi(d2) = F * phi(d1)`` for Black-76, both
terms of a price are a rational function times the same number ``G = F * phi(d1)``. ``M`` is fitted on
[0, inf) by a rational of degrees 6 and 7 whose error, times ``phi``, stays below 2.3e-17: below half a unit
in the last place of the forward. The fit is ours (weighted least squares, 50 digits);
`tests/unit/test_margin_kernels.py` holds the prices against mpmath.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar, cast

import numba
import numpy as np
from numpy.typing import ArrayLike, NDArray

from contracts_abi.errors import InputError

F = TypeVar("F", bound=Callable[..., Any])
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

_BLOCK: Final = 128
"""Scenarios at a time: the scratch columns stay in the first-level cache."""

_LOG2E: Final = 1.4426950408889634
_LN2_HIGH: Final = 0.693147180369123816490
_LN2_LOW: Final = 1.90821492927058770002e-10
_MAGIC: Final = 6755399441055744.0
"""1.5 * 2**52: added to a float it leaves the nearest integer in the lowest bits."""
_INV_SQRT_2PI: Final = 0.3989422804014327
_LEAST_V: Final = 1e-18
_LEAST_EXPONENT: Final = -700.0


@dataclass(frozen=True, slots=True)
class OptionGrid:
    """Unique options and the scenarios that they are priced in; float64, contiguous.

    Attributes
    ----------
    log_moneyness
        Logarithm of forward over strike, shape (options,).
    forward, strike
        Dollars, shape (options,).
    volatility, root_years
        Annual volatility and the square root of the years to expiry, shape (options,).
    discount
        Factor on the price, shape (options,).
    call
        bool, shape (options,).
    row
        int64, shape (options,): the row of `multiplier` that holds for it.
    log_shock, shock
        Logarithm and value of the forward's multiplier, shape (scenarios,).
    multiplier
        On the volatility, shape (rows, scenarios).
    floor
        Least volatility by scenario, shape (scenarios,).
    """

    log_moneyness: Float64
    forward: Float64
    strike: Float64
    volatility: Float64
    root_years: Float64
    discount: Float64
    call: NDArray[np.bool_]
    row: Int64
    log_shock: Float64
    shock: Float64
    multiplier: Float64
    floor: Float64

    def prices(self, out: Float64 | None = None) -> Float64:
        """Return the price of each option in each scenario, dollars, shape (options, scenarios).

        Parameters
        ----------
        out
            Where to write; made anew without it.
        """
        made = np.empty((len(self.forward), len(self.shock))) if out is None else out
        _prices(
            self.log_moneyness,
            self.forward,
            self.strike,
            self.volatility,
            self.root_years,
            self.discount,
            self.call,
            self.row,
            self.log_shock,
            self.shock,
            self.multiplier,
            self.floor,
            made,
        )
        return made


def option_grid(
    forward: ArrayLike,
    strike: ArrayLike,
    volatility: ArrayLike,
    years: ArrayLike,
    call: ArrayLike,
    shock: ArrayLike,
    multiplier: ArrayLike,
    *,
    row: ArrayLike | None = None,
    floor: ArrayLike | None = None,
    discount: ArrayLike | None = None,
) -> OptionGrid:
    """Return a grid after checking it.

    Parameters
    ----------
    forward, strike, volatility, years, call
        Of the options, shape (options,).
    shock
        Multiplier of the forward, shape (scenarios,).
    multiplier
        Of the volatility, shape (scenarios,) or (rows, scenarios).
    row
        Which row of `multiplier` holds for an option; the first without it.
    floor
        Least volatility by scenario; none without it.
    discount
        By option; 1 without it.

    Raises
    ------
    InputError
        If a forward, strike, shock or time is not positive, a volatility or multiplier is negative, or
        anything is not a number. A time of zero is allowed: the option is then worth what it pays.
    """
    one = {name: _column(name, value) for name, value in (
        ("forward", forward), ("strike", strike), ("volatility", volatility), ("years", years),
    )}  # fmt: skip
    several = len(one["forward"])
    for name, column in one.items():
        if len(column) != several:
            raise InputError(f"{name} has {len(column)} entries, forward has {several}")
    moves = _column("shock", shock)
    multipliers = np.atleast_2d(np.ascontiguousarray(multiplier, dtype=np.float64))
    least = np.zeros(len(moves)) if floor is None else _column("floor", floor)
    rows = np.zeros(several, dtype=np.int64) if row is None else np.asarray(row, dtype=np.int64)
    if multipliers.shape[1] != len(moves) or len(least) != len(moves):
        raise InputError(f"multiplier and floor need one entry for each of {len(moves)} scenarios")
    if several and (rows.min() < 0 or rows.max() >= len(multipliers)):
        raise InputError(f"row names {int(rows.max())}, there are {len(multipliers)} rows of multipliers")
    for name, column, positive in (
        ("forward", one["forward"], True),
        ("strike", one["strike"], True),
        ("shock", moves, True),
        ("volatility", one["volatility"], False),
        ("years", one["years"], False),
        ("multiplier", multipliers.ravel(), False),
        ("floor", least, False),
    ):
        bad = ~np.isfinite(column) | (column <= 0 if positive else column < 0)
        if bad.any():
            at = int(np.argmax(bad))
            raise InputError(
                f"{name}[{at}] is {column[at]}", fix=f"give a {'positive ' if positive else ''}number"
            )
    return OptionGrid(
        log_moneyness=np.log(one["forward"] / one["strike"]),
        forward=one["forward"],
        strike=one["strike"],
        volatility=one["volatility"],
        root_years=np.sqrt(one["years"]),
        discount=np.ones(several) if discount is None else _column("discount", discount),
        call=np.ascontiguousarray(call, dtype=np.bool_),
        row=rows,
        log_shock=np.log(moves),
        shock=moves,
        multiplier=multipliers,
        floor=least,
    )


def _column(name: str, value: ArrayLike) -> Float64:
    column = np.ascontiguousarray(value, dtype=np.float64)
    if column.ndim != 1:
        raise InputError(f"{name} has {column.ndim} dimensions", fix="give one")
    return column


def _kernel(function: F) -> F:
    # Contraction alone: fused multiply-adds, and no reordering, which the rounding trick would not survive.
    return cast("F", numba.njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})(function))


@_kernel
def _prices(
    log_moneyness: Float64,
    forward: Float64,
    strike: Float64,
    volatility: Float64,
    root_years: Float64,
    discount: Float64,
    call: NDArray[np.bool_],
    row: Int64,
    log_shock: Float64,
    shock: Float64,
    multiplier: Float64,
    floor: Float64,
    out: Float64,
) -> None:
    d1s, d2s, powers = np.empty(_BLOCK), np.empty(_BLOCK), np.empty(_BLOCK)
    scales = np.empty(_BLOCK)
    bits = scales.view(np.int64)
    scenarios = len(shock)
    for i in range(len(forward)):
        x, f, k = log_moneyness[i], forward[i], strike[i]
        sigma, root, factor, rule = volatility[i], root_years[i], discount[i], row[i]
        is_call = call[i]
        for start in range(0, scenarios, _BLOCK):
            size = min(_BLOCK, scenarios - start)
            for j in range(size):
                v = max(max(sigma * multiplier[rule, start + j], floor[start + j]) * root, _LEAST_V)
                d1 = (x + log_shock[start + j]) / v + 0.5 * v
                d1s[j] = d1
                d2s[j] = d1 - v
                y = max(-0.5 * d1 * d1, _LEAST_EXPONENT)
                z = y * _LOG2E + _MAGIC
                whole = z - _MAGIC
                r = (y - whole * _LN2_HIGH) - whole * _LN2_LOW
                scales[j] = z
                # exp(r) for |r| <= ln(2) / 2 by its series up to the thirteenth power
                p = 1.6059043836821613e-10
                p = p * r + 2.08767569878681e-09
                p = p * r + 2.505210838544172e-08
                p = p * r + 2.755731922398589e-07
                p = p * r + 2.7557319223985893e-06
                p = p * r + 2.48015873015873e-05
                p = p * r + 0.0001984126984126984
                p = p * r + 0.001388888888888889
                p = p * r + 0.008333333333333333
                p = p * r + 0.041666666666666664
                p = p * r + 0.16666666666666666
                p = p * r + 0.5
                p = p * r + 1.0
                powers[j] = p * r + 1.0
            for j in range(size):
                bits[j] = (bits[j] + 1023) << 52
            for j in range(size):
                moved = f * shock[start + j]
                density = moved * (_INV_SQRT_2PI * powers[j] * scales[j])
                d1, d2 = d1s[j], d2s[j]
                a1, a2 = abs(d1), abs(d2)
                p1 = 0.00020044668637928626
                p1 = p1 * a1 + 0.003982389213314666
                p1 = p1 * a1 + 0.03625078469898064
                p1 = p1 * a1 + 0.1929110476995221
                p1 = p1 * a1 + 0.6376684686652443
                p1 = p1 * a1 + 1.2587824350318386
                p1 = p1 * a1 + 1.2533141373155003
                q1 = 0.000200442983099184
                q1 = q1 * a1 + 0.003982542334371171
                q1 = q1 * a1 + 0.03644811886336046
                q1 = q1 * a1 + 0.19693483688916325
                q1 = q1 * a1 + 0.673115002921711
                q1 = q1 * a1 + 1.4467713856762736
                q1 = q1 * a1 + 1.8022476311246154
                q1 = q1 * a1 + 1.0
                p2 = 0.00020044668637928626
                p2 = p2 * a2 + 0.003982389213314666
                p2 = p2 * a2 + 0.03625078469898064
                p2 = p2 * a2 + 0.1929110476995221
                p2 = p2 * a2 + 0.6376684686652443
                p2 = p2 * a2 + 1.2587824350318386
                p2 = p2 * a2 + 1.2533141373155003
                q2 = 0.000200442983099184
                q2 = q2 * a2 + 0.003982542334371171
                q2 = q2 * a2 + 0.03644811886336046
                q2 = q2 * a2 + 0.19693483688916325
                q2 = q2 * a2 + 0.673115002921711
                q2 = q2 * a2 + 1.4467713856762736
                q2 = q2 * a2 + 1.8022476311246154
                q2 = q2 * a2 + 1.0
                tail1, tail2 = density * (p1 / q1), density * (p2 / q2)
                if is_call:
                    price = (moved - tail1 if d1 > 0 else tail1) - (k - tail2 if d2 > 0 else tail2)
                    price = min(price, moved)
                else:
                    price = (tail2 if d2 > 0 else k - tail2) - (tail1 if d1 > 0 else moved - tail1)
                    price = min(price, k)
                out[i, start + j] = factor * max(price, 0.0)
