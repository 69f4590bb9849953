"""What is left of an account's margin over two factors at once, and where it can be liquidated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from contracts_abi.errors import InputError
from simulation.margin.result import PortfolioMethod
from simulation.portfolio.instruments import Portfolio
from simulation.portfolio.market import Market
from simulation.risk.attribution import Which
from simulation.risk.moves import Factor, after_move, combined
from simulation.types import Bool, Float64


@dataclass(frozen=True, slots=True)
class Axis:
    """One side of a surface.

    Attributes
    ----------
    factor
        What moves.
    sizes
        By how much: relative, -0.1 for 10 % down, or seconds; ascending.
    """

    factor: Factor
    sizes: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.sizes or any(b <= a for a, b in zip(self.sizes, self.sizes[1:], strict=False)):
            raise InputError(f"the sizes of {self.factor} do not ascend", fix="sort them, each once")


@dataclass(frozen=True, slots=True)
class Surface:
    """Margins over two factors.

    Attributes
    ----------
    x, y
        The axes.
    left
        Equity less requirement, dollars, shape (y, x); NaN where the margin is unknown.
    """

    x: Axis
    y: Axis
    left: Float64

    @property
    def liquidatable(self) -> Bool:
        """Where the margin is below 0, shape (y, x)."""
        return np.asarray(self.left < 0)

    def edges(self) -> tuple[tuple[float, float], ...]:
        """Return points (x, y) on the border of what can be liquidated, along each row, interpolated."""
        out = []
        for y, row in zip(self.y.sizes, self.left, strict=True):
            for i in range(len(row) - 1):
                a, b = float(row[i]), float(row[i + 1])
                if (a < 0) != (b < 0) and np.isfinite(a) and np.isfinite(b):
                    low, high = self.x.sizes[i], self.x.sizes[i + 1]
                    out.append((low + (high - low) * a / (a - b), y))
        return tuple(out)


def surface(
    method: PortfolioMethod,
    portfolio: Portfolio,
    market: Market,
    x: Axis,
    y: Axis,
    *,
    which: Which = Which.MAINTENANCE,
) -> Surface:
    """Return the margin over two factors.

    Parameters
    ----------
    method, portfolio, market
        Whose margin.
    x, y
        Two different factors.
    which
        Which margin.

    Raises
    ------
    InputError
        If the factors are one, or the method refuses the account.
    """
    if x.factor == y.factor:
        raise InputError(f"both axes are {x.factor}", fix="choose another factor for one")
    rows = [
        [
            which.left(
                method.margin(*after_move(portfolio, market, combined(x.factor.move(a), y.factor.move(b))))
            )
            for a in x.sizes
        ]
        for b in y.sizes
    ]
    return Surface(x, y, np.array(rows))


def even(factor: Factor, low: float, high: float, count: int) -> Axis:
    """Return an axis of evenly spaced sizes."""
    sizes: Sequence[float] = np.linspace(low, high, count).tolist()
    return Axis(factor, tuple(sizes))
