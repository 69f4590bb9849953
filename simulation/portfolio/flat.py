"""All accounts at once: positions in compressed rows over the instruments that anybody holds.

Each unique instrument is priced once in each scenario, whoever holds it; `simulation.margin.worst_of` then
finds the worst of every account. Source: reference of the margin engines, section 7.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np

from contracts_abi.errors import InputError
from simulation.margin.scenario_grid import ScenarioSet, VolRule, legs_of, profit_under
from simulation.margin.worst_of import Holdings, Worst, worst_of
from simulation.portfolio.instruments import Instrument, Option, Portfolio, Position
from simulation.portfolio.market import YEAR_S, Market
from simulation.pricing.grid import OptionGrid, option_grid
from simulation.types import Float64, Int32, Int64

NONE: Final = -1
"""Stands for no expiry in a column of expiry ids."""

_DAY_S: Final = 86_400


@dataclass(frozen=True, slots=True)
class Listed:
    """What one row of a grid prices.

    Attributes
    ----------
    instrument
        What it is.
    volatility
        As stated by the position; None takes the market's.
    coin
        Whether a unit is a dollar of unrealised profit that is held in the underlying, and not the instrument
        itself: of inverse instruments, whose unpaid profit moves with the price.
    """

    instrument: Instrument
    volatility: float | None = None
    coin: bool = False

    @property
    def unit(self) -> Position:
        """One unit of it."""
        return Position(
            instrument=self.instrument,
            quantity=0.0 if self.coin else 1.0,
            unrealised=1.0 if self.coin else 0.0,
            volatility=self.volatility,
        )


@dataclass(frozen=True, slots=True)
class FlatBook:
    """Positions of many accounts as arrays.

    Attributes
    ----------
    accounts
        Names, shape (accounts,).
    cash
        float64, shape (accounts,), dollars of the settlement currency.
    start
        int64, shape (accounts + 1,): account ``a`` has the entries ``start[a]:start[a + 1]``.
    instrument
        int32, shape (entries,): place in `listed`.
    quantity
        float64, shape (entries,), signed; entries of one instrument in one account are added up.
    unrealised
        float64, shape (accounts,): unpaid profit of linear instruments, dollars.
    listed
        The unique instruments.
    underlying
        int32, shape (listed,): place in `symbols`.
    symbols
        The symbols that price anything.
    expiry
        int32, shape (listed,): place in `expiries`; `NONE` for what does not expire.
    expiries
        int64, unix seconds, ascending.
    """

    accounts: tuple[str, ...]
    cash: Float64
    start: Int64
    instrument: Int32
    quantity: Float64
    unrealised: Float64
    listed: tuple[Listed, ...]
    underlying: Int32
    symbols: tuple[str, ...]
    expiry: Int32
    expiries: Int64

    def __len__(self) -> int:
        return len(self.accounts)

    @property
    def holdings(self) -> Holdings:
        """The positions as the kernel of the worst scenario takes them."""
        return Holdings(self.start, self.instrument, self.quantity)

    def units(self) -> Portfolio:
        """Return one unit of each instrument, as a portfolio."""
        return Portfolio(account="units", positions=tuple(each.unit for each in self.listed))


def flat_book(portfolios: Iterable[Portfolio]) -> FlatBook:
    """Return portfolios as arrays; two positions of one instrument in one account become one entry.

    Parameters
    ----------
    portfolios
        In order; an account may be empty.
    """
    listed: dict[Listed, int] = {}
    accounts: list[str] = []
    cash: list[float] = []
    linear: list[float] = []
    start = [0]
    instrument: list[int] = []
    quantity: list[float] = []
    for portfolio in portfolios:
        held: dict[int, float] = {}
        paid = 0.0
        for position in portfolio.positions:
            # The volatility only counts where there is one: a perpetual's would make it another instrument.
            stated = position.volatility if hasattr(position.instrument, "strike") else None
            place = listed.setdefault(Listed(position.instrument, stated), len(listed))
            held[place] = held.get(place, 0.0) + position.quantity
            if position.unrealised and getattr(position.instrument, "inverse", False):
                place = listed.setdefault(Listed(position.instrument, stated, coin=True), len(listed))
                held[place] = held.get(place, 0.0) + position.unrealised
            else:
                paid += position.unrealised
        accounts.append(portfolio.account)
        cash.append(portfolio.cash)
        linear.append(paid)
        instrument += held.keys()
        quantity += held.values()
        start.append(len(instrument))
    symbols = {each.instrument.underlying: 0 for each in listed}
    symbols = {symbol: i for i, symbol in enumerate(symbols)}
    dates = [getattr(each.instrument, "expiry", None) for each in listed]
    expiries = np.array(sorted({date for date in dates if date is not None}), dtype=np.int64)
    return FlatBook(
        accounts=tuple(accounts),
        cash=np.array(cash, dtype=np.float64),
        start=np.array(start, dtype=np.int64),
        instrument=np.array(instrument, dtype=np.int32),
        quantity=np.array(quantity, dtype=np.float64),
        unrealised=np.array(linear, dtype=np.float64),
        listed=tuple(listed),
        underlying=np.array([symbols[each.instrument.underlying] for each in listed], dtype=np.int32),
        symbols=tuple(symbols),
        expiry=np.array(
            [NONE if date is None else int(np.searchsorted(expiries, date)) for date in dates], dtype=np.int32
        ),
        expiries=expiries,
    )


def profit_grid(book: FlatBook, market: Market, scenarios: ScenarioSet) -> Float64:
    """Return the weighted profit of one unit of each instrument, dollars, shape (listed, scenarios).

    Parameters
    ----------
    book, market
        Whose instruments, and the state that the scenarios start from.
    scenarios
        In order.

    Raises
    ------
    PriceMissing, InputError
        As `simulation.margin.scenario_grid.profit_under`.
    """
    return np.ascontiguousarray(profit_under(book.units(), market, scenarios).T)


def worst_of_all(book: FlatBook, market: Market, scenarios: ScenarioSet, *, threads: int = 1) -> Worst:
    """Return the lowest profit of every account over all scenarios, dollars.

    Parameters
    ----------
    book, market, scenarios
        As `profit_grid`.
    threads
        How many share the accounts.

    Raises
    ------
    PriceMissing, InputError
        As `profit_grid`.
    """
    return worst_of(book.holdings, profit_grid(book, market, scenarios), threads=threads)


def options_grid(
    book: FlatBook, market: Market, scenarios: ScenarioSet, symbol: str
) -> tuple[OptionGrid, Int64]:
    """Return one underlying's options and all scenarios as the pricing kernel takes them.

    Parameters
    ----------
    book, market, scenarios
        As `profit_grid`.
    symbol
        The underlying.

    Returns
    -------
    tuple of OptionGrid and int64 of shape (options,)
        The grid, and the place of each of its options in `FlatBook.listed`. Inverse options are left out:
        they are no price in dollars.

    Raises
    ------
    InputError
        For scenarios that the kernel does not know: time that passes, volatilities that are moved by points;
        or within the settlement window, where a part of the forward is fixed.
    PriceMissing
        If the market has not what an option needs.
    """
    at = np.array(
        [
            i
            for i, each in enumerate(book.listed)
            if isinstance(each.instrument, Option)
            and not each.instrument.inverse
            and each.instrument.underlying == symbol
        ],
        dtype=np.int64,
    )
    for scenario in scenarios.scenarios:
        if scenario.seconds or scenario.volatility.rule is VolRule.ADDITIVE:
            raise InputError(
                f"scenario {scenario.label!r} is none of the option kernel's",
                fix="use profit_grid, which knows time and points of volatility",
            )
    legs = legs_of(Portfolio(positions=tuple(book.listed[i].unit for i in at)), market)
    if np.any(legs.fixed != 0):
        raise InputError(f"an option on {symbol} is being settled", fix="use profit_grid")
    terms, row = np.unique(legs.seconds, return_inverse=True)
    one = np.ones(len(terms))
    # The least volatility is the kernel's own argument: here it would be that of a volatility of one.
    factor = np.stack(
        [
            s.volatility.model_copy(update={"least": 0.0}).shocked(one, terms / _DAY_S)
            for s in scenarios.scenarios
        ],
        axis=1,
    )
    grid = option_grid(
        legs.moving,
        legs.strike,
        legs.volatility,
        legs.seconds / YEAR_S,
        legs.call,
        scenarios.multipliers((symbol,))[:, 0],
        factor,
        row=row,
        floor=[
            0.0 if s.volatility.rule is VolRule.NONE else s.volatility.least or 0.0
            for s in scenarios.scenarios
        ],
        discount=np.exp(-legs.rate * legs.seconds / YEAR_S),
    )
    return grid, at
