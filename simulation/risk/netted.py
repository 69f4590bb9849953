"""Methods that net a whole book in each scenario: every change of one position from one valuation.

What a position is worth in a scenario grows with its size, so the requirement without it, or with a little
more of it, follows from the sums of the whole. Tools that ask for thousands of such changes take them from
here, with one valuation in the place of thousands.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simulation.margin.baselines import Cross, Stress
from simulation.margin.result import PortfolioMethod
from simulation.margin.scenario_grid import NEUTRAL, ScenarioSet, cash_value, profit_under, value_under
from simulation.portfolio.instruments import Portfolio
from simulation.portfolio.market import Market
from simulation.types import Float64


def netted_by(method: PortfolioMethod) -> tuple[ScenarioSet, float] | None:
    """Return a method's scenarios and the share of the worst loss that maintenance is; None for another one.

    By the class itself: one that is derived from it may ask for more.
    """
    if type(method) is Cross:
        return method.parameters.scenario_set(), method.parameters.maintenance_share
    if type(method) is Stress:
        return method.parameters.scenario_set(), 1.0
    return None


@dataclass(frozen=True, slots=True)
class NettedBook:
    """One account under such a method.

    Attributes
    ----------
    profits
        float64, shape (scenarios, positions), dollars.
    values
        float64, shape (positions,): what each is worth now, dollars.
    cash
        Dollars.
    maintenance_share
        Of the worst loss; the initial requirement is all of it.
    """

    profits: Float64
    values: Float64
    cash: float
    maintenance_share: float

    @property
    def totals(self) -> Float64:
        """Profit of the whole in each scenario, shape (scenarios, 1)."""
        return np.asarray(self.profits.sum(axis=1, keepdims=True))

    def requirement(self, totals: Float64, *, initial: bool) -> Float64:
        """Return what books with such profits must have, dollars, shape (books,).

        Parameters
        ----------
        totals
            Profit of each book in each scenario, shape (scenarios, books).
        initial
            Whether the initial requirement is asked for, and not that of maintenance.
        """
        loss = np.maximum(0.0, -totals.min(axis=0))
        return np.asarray(loss if initial else self.maintenance_share * loss)


def netted_book(method: PortfolioMethod, portfolio: Portfolio, market: Market) -> NettedBook | None:
    """Return an account under a method that nets it in each scenario; None for another method.

    Raises
    ------
    PriceMissing, InputError
        As `simulation.margin.scenario_grid.profit_under`.
    """
    found = netted_by(method)
    if found is None:
        return None
    scenarios, share = found
    return NettedBook(
        profits=profit_under(portfolio, market, scenarios),
        values=value_under(portfolio, market, NEUTRAL)[0],
        cash=cash_value(portfolio, market),
        maintenance_share=share,
    )
