"""How far the world may move before an account can be liquidated."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np

from contracts_abi.errors import InputError
from simulation.margin.result import PortfolioMethod
from simulation.portfolio.instruments import Portfolio
from simulation.portfolio.market import YEAR_S, Market
from simulation.risk.attribution import Which
from simulation.risk.moves import Factor, FactorKind, after_move, factors_of, known_margin

REACH: Final = 0.99
"""The largest relative move that is looked at, both ways."""

LOOKS: Final = 33
_TINY: Final = 1e-12


@dataclass(frozen=True, slots=True)
class Distance:
    """The smallest move of one factor, one way, that brings maintenance to 0.

    Attributes
    ----------
    factor
        What moves.
    up
        Which way; time only goes up.
    move
        Relative, -0.1 for 10 % down; seconds of time; NaN where there is none within reach.
    reach
        How far was looked.
    """

    factor: Factor
    up: bool
    move: float
    reach: float

    @property
    def reached(self) -> bool:
        """Whether there is such a move within reach."""
        return not math.isnan(self.move)

    @property
    def text(self) -> str:
        """The distance for people."""
        time = self.factor.kind is FactorKind.TIME
        if not self.reached:
            if time:
                return f"never within {_days(self.reach)}"
            return f"never within {100 * (self.reach if self.up else -self.reach):+.4g} %"
        if self.move == 0:
            return "liquidatable now"
        if abs(self.move) < _TINY:
            # At the edge: what is left of the move is what rounding left of the margin.
            return "0 s" if time else "0 %"
        return f"after {_days(self.move)}" if time else f"{100 * self.move:+.4g} %"


def distances(
    method: PortfolioMethod,
    portfolio: Portfolio,
    market: Market,
    *,
    factors: Iterable[Factor] | None = None,
    which: Which = Which.MAINTENANCE,
    reach: float = REACH,
    looks: int = LOOKS,
) -> tuple[Distance, ...]:
    """Return the distance to liquidation by each factor, up and down.

    Each way is looked at in steps that grow with the distance; the first step in which the account falls
    below its margin is then halved down to 1e-12 of the move. A fall and rise within one step is not seen.

    Parameters
    ----------
    method, portfolio, market
        Whose margin.
    factors
        What moves; all that the account has by default.
    which
        Which margin comes to 0.
    reach
        The largest relative move, below 1; of time it is until the last expiry, a year without one, or until
        the method refuses what is left of the account.
    looks
        How many steps each way.

    Raises
    ------
    InputError
        If the margin is refused or unknown, here or after a move.
    """
    chosen = factors_of(portfolio) if factors is None else tuple(factors)

    def left(factor: Factor, size: float) -> float:
        return which.left(known_margin(method, *after_move(portfolio, market, factor.move(size))))

    found = []
    for factor in chosen:
        for up in (True,) if factor.kind is FactorKind.TIME else (False, True):
            sizes = _sizes(factor, portfolio, market, reach, looks)
            if factor.kind is FactorKind.TIME:
                sizes = _answered(partial(left, factor), sizes)
            signed = [size if up else -size for size in sizes]
            move = first_below(partial(left, factor), signed, whole=_whole(factor))
            found.append(Distance(factor, up, move, sizes[-1]))
    return tuple(found)


def first_below(value: Callable[[float], float], sizes: Sequence[float], *, whole: bool = False) -> float:
    """Return where a function first falls below 0, along sizes from the first one on.

    Parameters
    ----------
    value
        Of a size.
    sizes
        Where it is looked at, in order.
    whole
        Whether only whole sizes have a meaning: then it is the first at which the function is below 0.

    Returns
    -------
    float
        The smallest size, to 1e-12 of it, at which the value is below 0; 0 if it is below 0 at the first
        size; NaN if at none.
    """
    before = sizes[0]
    if value(before) < 0:
        return 0.0
    for size in sizes[1:]:
        if value(size) < 0:
            return _bisected(value, before, size, whole)
        before = size
    return math.nan


def _bisected(value: Callable[[float], float], good: float, bad: float, whole: bool) -> float:
    while abs(bad - good) > (1 if whole else _TINY * max(abs(good), abs(bad), 1e-6)):
        middle = (good + bad) / 2
        if whole:
            middle = float(math.floor(middle))
        if middle in (good, bad):
            break
        if value(middle) < 0:
            bad = middle
        else:
            good = middle
    return bad


def _answered(value: Callable[[float], float], sizes: Sequence[float]) -> list[float]:
    """Return the sizes before the first that a method refuses: once all has expired, some know no account."""
    out: list[float] = []
    for size in sizes:
        try:
            value(size)
        except InputError:
            if not out:
                raise
            break
        out.append(size)
    return out


def _whole(factor: Factor) -> bool:
    return factor.kind is FactorKind.TIME


def _sizes(factor: Factor, portfolio: Portfolio, market: Market, reach: float, looks: int) -> list[float]:
    """Return where to look: 0, then steps that grow."""
    if factor.kind is not FactorKind.TIME:
        return [float(x) for x in np.concatenate([[0.0], np.geomspace(min(1e-3, reach), reach, looks)])]
    times = sorted(
        {
            position.instrument.expiry - market.timestamp
            for position in portfolio.positions
            if hasattr(position.instrument, "expiry")
        }
    )
    last = max((time for time in times if time > 0), default=YEAR_S)
    # An expiry is a jump: it is looked at itself, and the second before it.
    jumps = [edge for time in times if time > 0 for edge in (time - 1, time)]
    return sorted({0.0, *map(float, jumps), *(float(round(x)) for x in np.linspace(0, last, looks))})


def _days(seconds: float) -> str:
    return f"{seconds / 86_400:.4g} days" if seconds >= 3 * 3600 else f"{seconds:,.0f} s"
