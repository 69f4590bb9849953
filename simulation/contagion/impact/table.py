"""A measured table of size and slippage: proceeds are exact at its rows, smooth and concave between them.

A row says that selling ``Q`` tokens at once loses the part ``s`` of their value: they bring ``R = Q p (1 -
s)``. Between rows the price of the next token falls on two lines, so that ``R`` is exact at every row and its
slope has no jump (a quadratic spline that keeps the shape, after Schumaker 1983). Where the measurement says
that the price of the next token rises with size, such rows are levelled (isotonic regression), and `levelled`
says by how much. A table says nothing beyond its last row, so nothing is sold beyond it.

Purchases are the mirror image: the price rises as far as it would have fallen.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np

from contracts_abi.errors import InputError
from simulation.book.types import ExitLiquidity
from simulation.contagion.impact import impact_models
from simulation.contagion.impact.book import Book
from simulation.types import Float64

_STEEPEST: Final = 1e-9
"""Least part of an interval in which the price may fall; proceeds at a row are off by less than this."""


@impact_models.register("table")
@dataclass(frozen=True, slots=True)
class Table(Book):
    """Slippage by size, as it was measured on a date.

    Attributes
    ----------
    size
        Tokens sold at once, rising, positive.
    slippage
        Part of their value that is lost, in [0, 1), not falling.
    date, source
        When and where it was measured; for reports.
    half_life_s
        Seconds in which half of what was sold is refilled; infinite for none.
    permanent
        Part of impact that stays, in [0, 1].
    """

    kind: ClassVar[str] = "table"

    size: tuple[float, ...]
    slippage: tuple[float, ...]
    date: str = ""
    source: str = ""
    half_life_s: float = float("inf")
    permanent: float = 0.0

    def __post_init__(self) -> None:
        self._check()
        if len(self.size) != len(self.slippage) or not self.size:
            raise InputError(
                f"size has {len(self.size)} rows, slippage {len(self.slippage)}", fix="give one for each"
            )
        for i, (size, part) in enumerate(zip(self.size, self.slippage, strict=True)):
            before, least = (self.size[i - 1], self.slippage[i - 1]) if i else (0.0, 0.0)
            if not (size > before and np.isfinite(size)):
                raise InputError(f"size {size:g} comes after {before:g}", fix="sizes rise and are positive")
            if not least <= part < 1:
                raise InputError(
                    f"slippage {part:g} of size {size:g} is not in [{least:g}, 1)",
                    fix="selling more costs no smaller part",
                )
        last = _nodes(self.size, self.slippage)[1][-1]
        if not last > 0:
            raise InputError(
                f"size {self.size[-1]:g} brings no more than the row before it", fix="cut the table there"
            )

    @property
    def levelled(self) -> float:
        """Return the greatest part by which levelling changes a row's proceeds; 0 for a concave table."""
        sizes = np.array(self.size)
        wanted = sizes * (1 - np.array(self.slippage))
        return float(np.max(np.abs(self._area(np.zeros_like(sizes), sizes, sizes) / wanted - 1)))

    def _most(self) -> float:
        return self.size[-1]

    def _log_relative(self, sold: Float64, reference: Float64) -> Float64:
        at, price, _ = _nodes(self.size, self.slippage)
        down = np.interp(np.abs(sold), at, price)
        return np.asarray(np.log(np.where(sold >= 0, down, 2 - down)))

    def _area(self, before: Float64, after: Float64, reference: Float64) -> Float64:
        return self._from_zero(after) - self._from_zero(before)

    def _from_zero(self, sold: Float64) -> Float64:
        at, price, total = _nodes(self.size, self.slippage)
        size = np.abs(sold)
        row = np.clip(np.searchsorted(at, size, side="right") - 1, 0, len(at) - 2)
        part = size - at[row]
        slope = (price[row + 1] - price[row]) / (at[row + 1] - at[row])
        down = total[row] + part * (price[row] + 0.5 * slope * part)
        return np.asarray(np.where(sold >= 0, down, down - 2 * size))

    def _sold_at(self, relative: Float64, reference: Float64) -> Float64:
        at, price, _ = _nodes(self.size, self.slippage)
        down = np.where(relative <= 1, relative, 2 - relative)
        # Where the price is level, the far end of the level is as good as the near one.
        size = np.interp(down, price[::-1], at[::-1])
        return np.asarray(np.where(relative <= 1, size, -size))


def of_exit(exits: ExitLiquidity, half_life_s: float = float("inf"), permanent: float = 0.0) -> Table:
    """Return the model of a book's exit liquidity.

    Raises
    ------
    InputError
        As of `Table`.
    """
    return Table(
        tuple(float(v) for v in exits.size),
        tuple(float(v) for v in exits.slippage),
        exits.date,
        exits.source,
        half_life_s,
        permanent,
    )


@functools.lru_cache(maxsize=256)
def _nodes(size: tuple[float, ...], slippage: tuple[float, ...]) -> tuple[Float64, Float64, Float64]:
    """Return sizes, the price of the next token there as a part of one, and proceeds up to there."""
    ends = np.array([0.0, *size])
    width = np.diff(ends)
    mean = np.diff(ends * (1 - np.array([0.0, *slippage]))) / width
    if (np.diff(mean) > 0).any():
        from scipy.optimize import isotonic_regression

        mean = np.asarray(isotonic_regression(mean, weights=width, increasing=False).x)
    slopes = np.empty(len(ends))
    slopes[0] = 1.0
    slopes[1:-1] = (mean[:-1] + mean[1:]) / 2
    # The last row's own slope goes on as the interval before has it, and not below half its mean.
    slopes[-1] = max(2 * mean[-1] - slopes[-2], mean[-1] / 2)
    at, price = [0.0], [1.0]
    for k in range(len(width)):
        above, below = slopes[k], slopes[k + 1]
        # A knot where the price of the next token is the interval's mean makes both areas add up.
        # A cost of any sale, however small, would put it at the very beginning: nearly there instead.
        if above > below:
            part = (mean[k] - below) / (above - below)
            at.append(ends[k] + min(max(part, _STEEPEST), 1 - _STEEPEST) * width[k])
            price.append(mean[k])
        at.append(ends[k + 1])
        price.append(below)
    x, g = np.array(at), np.array(price)
    total = np.concatenate([[0.0], np.cumsum(np.diff(x) * (g[1:] + g[:-1]) / 2)])
    return x, g, total
