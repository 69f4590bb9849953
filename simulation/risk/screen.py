"""Which of many accounts surely have their maintenance margin: by kernels that take all of them at once.

A margin method that nets a whole book in each scenario asks for its worst loss, which
`simulation.margin.worst_of` finds for everybody in milliseconds. Sums in another order round otherwise, so an
account whose margin is within the rounding of zero is not sure, nor is one of which something is unknown: the
caller asks the method about those.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from contracts_abi.errors import MarginlineError
from simulation.margin.result import PortfolioMethod
from simulation.margin.scenario_grid import NEUTRAL, legs_of, value_under
from simulation.margin.worst_of import worst_of
from simulation.portfolio.flat import FlatBook, flat_book, profit_grid
from simulation.portfolio.instruments import Future, Perpetual, Portfolio
from simulation.portfolio.market import Market
from simulation.risk.netted import netted_by
from simulation.types import Bool, Float64

ROUNDING: Final = 1e-9
"""Share of everything that an account holds, in its largest scenario, within which floats decide nothing."""


def surely_above(method: PortfolioMethod, portfolios: Sequence[Portfolio], market: Market) -> Bool:
    """Return which accounts have their maintenance margin for certain, bool, shape (accounts,).

    False says nothing: that an account is below its margin, that something of it is unknown or refused, that
    it is too near to tell, or that the method has no kernel (only ``cross`` and ``stress`` have one).

    Parameters
    ----------
    method, portfolios, market
        Whose margin.
    """
    nobody = np.zeros(len(portfolios), dtype=np.bool_)
    netted = netted_by(method)
    if netted is None or not portfolios:
        return nobody
    scenarios, share = netted
    book = flat_book(portfolios)
    known = np.array([_is_known(book, i, market) for i in range(len(book.listed))], dtype=np.bool_)
    grid = np.full((len(book.listed), len(scenarios.scenarios)), np.nan)
    value = np.full(len(book.listed), np.nan)
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            if known.any():
                some = _only(book, known)
                grid[known] = profit_grid(some, market, scenarios)
                value[known] = value_under(some.units(), market, NEUTRAL)[0]
            return _above(book, _paid(portfolios), market.stable_price, grid, value, share)
    except MarginlineError:
        # A scenario that says nothing of a symbol, for one: the method tells it account by account.
        return nobody


def _is_known(book: FlatBook, place: int, market: Market) -> bool:
    try:
        legs_of(Portfolio(positions=(book.listed[place].unit,)), market)
    except MarginlineError:
        return False
    return True


def _only(book: FlatBook, keep: Bool) -> FlatBook:
    """Return a book that lists some instruments; its positions are not for use."""
    return replace(flat_book(()), listed=tuple(book.listed[i] for i in np.flatnonzero(keep)))


def _paid(portfolios: Sequence[Portfolio]) -> Float64:
    """Return what perpetuals and futures that settle in dollars have not paid out, shape (accounts,)."""
    return np.array(
        [
            sum(
                p.unrealised
                for p in portfolio.positions
                if isinstance(p.instrument, Perpetual | Future) and not p.instrument.inverse
            )
            for portfolio in portfolios
        ],
        dtype=np.float64,
    )


def _above(book: FlatBook, paid: Float64, stable: float, grid: Float64, value: Float64, share: float) -> Bool:
    holder = np.repeat(np.arange(len(book)), np.diff(book.start))

    def summed(each: Float64) -> Float64:
        return np.bincount(holder, weights=each, minlength=len(book)).astype(np.float64)

    held = book.quantity * value[book.instrument]
    largest = np.maximum(np.abs(grid).max(axis=1, initial=0.0), np.abs(value))
    gross = summed(np.abs(book.quantity) * largest[book.instrument]) + np.abs(paid)
    cash = book.cash * stable
    worst = worst_of(book.holdings, grid).profit
    left = cash + paid + summed(held) - share * np.maximum(0.0, -worst)
    # Comparisons with what is no number are false.
    above: Bool = np.isfinite(left) & (left > ROUNDING * (gross + np.abs(cash)))
    return above
