"""Options accounts as float columns: what a margin method says of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from simulation.margin.result import PortfolioMethod
from simulation.portfolio.instruments import Portfolio
from simulation.portfolio.market import Market
from simulation.types import Bool, Float64, MarginStatus


@dataclass(frozen=True, slots=True)
class Columns:
    """Margins of many accounts, shape (accounts,).

    Attributes
    ----------
    accounts
        Names.
    cash, equity, initial, maintenance
        float64, dollars: cash, value, and what is left of it after both requirements; the last three NaN
        where unknown.
    known, liquidatable
        Whether the method could say something, and whether it said that the account may be liquidated. An
        unknown account is neither healthy nor liquidatable.
    """

    accounts: tuple[str, ...]
    cash: Float64
    equity: Float64
    initial: Float64
    maintenance: Float64
    known: Bool
    liquidatable: Bool


def columns_of(method: PortfolioMethod, market: Market, accounts: Sequence[Portfolio]) -> Columns:
    """Return what `method` says of each account at one market.

    Margin methods are floats themselves, so there is no exact twin; where a Derive method decides an edge in
    integers, its status here is the decided one and not the sign of `maintenance`.
    """
    results = [method.margin(account, market) for account in accounts]
    known = np.array([r.status is not MarginStatus.UNKNOWN for r in results], dtype=np.bool_)
    return Columns(
        accounts=tuple(account.account for account in accounts),
        cash=np.array([account.cash for account in accounts], dtype=np.float64),
        equity=np.array([r.equity for r in results], dtype=np.float64),
        initial=np.array([r.initial for r in results], dtype=np.float64),
        maintenance=np.array([r.maintenance for r in results], dtype=np.float64),
        known=known,
        liquidatable=np.array([r.status is MarginStatus.LIQUIDATABLE for r in results], dtype=np.bool_),
    )
