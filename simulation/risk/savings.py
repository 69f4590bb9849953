"""What netting saves: a method's requirement against that of each instrument in an account of its own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simulation.margin.result import PortfolioMethod
from simulation.portfolio.instruments import Portfolio
from simulation.portfolio.market import Market
from simulation.risk.attribution import Which, sized
from simulation.risk.moves import known_margin
from simulation.risk.netted import netted_book


@dataclass(frozen=True, slots=True)
class Savings:
    """Capital saved against isolated margin.

    Attributes
    ----------
    isolated
        Sum of the requirements of each instrument alone, by the same method, dollars.
    requirement
        Of the whole account, dollars.
    """

    isolated: float
    requirement: float

    @property
    def saved(self) -> float:
        """Dollars that the account does not need; negative where the method charges for the company."""
        return self.isolated - self.requirement

    @property
    def share(self) -> float:
        """Saved over isolated; 0 where nothing is required."""
        return self.saved / self.isolated if self.isolated else 0.0


def savings(
    method: PortfolioMethod, portfolio: Portfolio, market: Market, which: Which = Which.MAINTENANCE
) -> Savings:
    """Return what netting between instruments saves.

    Positions in one instrument at one protocol stay together, as splitting a position makes no account.

    Parameters
    ----------
    method
        Margins the whole and each part.
    portfolio, market
        Whose.
    which
        Of which requirement.

    Raises
    ------
    InputError
        If the margin is refused or unknown.
    """
    whole = which.of(known_margin(method, portfolio, market))
    keys = [(p.instrument, p.volatility, p.protocol) for p in portfolio.positions]
    alone = 0.0
    book = netted_book(method, portfolio, market)
    if book is not None:
        places: dict[object, int] = {}
        at = np.array([places.setdefault(key, len(places)) for key in keys], dtype=np.int64)
        each = np.zeros((len(book.profits), len(places)))
        np.add.at(each.T, at, book.profits.T)
        return Savings(float(book.requirement(each, initial=which is Which.INITIAL).sum()), whole)
    for key in dict.fromkeys(keys):
        held = tuple(
            position if own == key else sized(position, 0.0)
            for own, position in zip(keys, portfolio.positions, strict=True)
        )
        one = portfolio.model_copy(update={"positions": held})
        alone += which.of(known_margin(method, one, market))
    return Savings(alone, whole)
