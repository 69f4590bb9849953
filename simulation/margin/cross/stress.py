"""Paths that break a hedge: a move out, and through to the other side, with feeds that lag or do not.

A leg that is liquidated on the way out is missing on the way back. These paths need no random numbers; they
say what can happen, not how often. Lengths are round [R].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from simulation.book.health import token_prices
from simulation.book.types import SharedBook
from simulation.margin.cross.excess import venue_names
from simulation.margin.cross.scenarios import Kind, Scenarios
from simulation.types import Float64

_LEAST: Final = 0.05
"""Part of a price that is left at least, where the other side of a move would be nothing."""


@dataclass(frozen=True, slots=True)
class StressPaths:
    """Paths of true prices, and of what each venue's feeds say.

    Attributes
    ----------
    names
        Of the paths.
    prices
        Dollars, shape (paths, steps + 1, tokens).
    seen
        Shape (venues, paths, steps + 1, tokens).
    step_s
        Seconds a step.
    """

    names: tuple[str, ...]
    prices: Float64
    seen: Float64
    step_s: float


def there_and_back(
    book: SharedBook,
    scenarios: Scenarios,
    *,
    step_s: float = 300.0,
    out: int = 12,
    hold: int = 2,
    back: int = 24,
    lag: int = 4,
) -> StressPaths:
    """Return a path for each price move: out, a rest, and to the opposite move; in turn with every feed late.

    Parameters
    ----------
    book, scenarios
        The book, and scenarios of which the price moves are taken.
    step_s
        Seconds a step.
    out, hold, back
        Steps of the three parts.
    lag
        Steps by which a feed is late, where it is.
    """
    venues = venue_names(book)
    base = token_prices(book)
    ramp = np.concatenate([np.linspace(0, 1, out + 1), np.ones(hold), np.linspace(1, -1, back + 1)[1:]])
    names, paths, late = [], [], []
    for s, (name, kind) in enumerate(zip(scenarios.names, scenarios.kinds, strict=True)):
        move = scenarios.factors[0, s] - 1
        if kind is not Kind.PRICE or not move.any():
            continue
        path = base * np.maximum(1 + ramp[:, None] * move, _LEAST)
        for v in range(-1, len(venues)):
            names.append(f"{name} and back" + (f", {venues[v]} late" if v >= 0 else ""))
            paths.append(path)
            late.append(v)
    moments = len(ramp)
    prices = np.array(paths).reshape(len(paths), moments, len(base))
    seen = np.broadcast_to(prices, (len(venues), *prices.shape)).copy()
    then = np.maximum(np.arange(moments) - lag, 0)
    for i, v in enumerate(late):
        if v >= 0:
            seen[v, i] = prices[i, then]
    return StressPaths(tuple(names), prices, seen, step_s)
