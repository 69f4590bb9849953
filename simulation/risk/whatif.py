"""What an order, or a move of the market, would do to an account's margin."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from contracts_abi.errors import InputError
from simulation.margin.result import MarginResult, PortfolioMethod
from simulation.margin.scenario_grid import NEUTRAL, legs_of, value_under
from simulation.portfolio.instruments import Future, Perpetual, Portfolio, Position
from simulation.portfolio.market import Market
from simulation.risk.moves import Move, after_move, known_margin


@dataclass(frozen=True, slots=True)
class Order:
    """A trade that is thought of.

    Attributes
    ----------
    position
        What would be added; negative quantity sells.
    price
        Dollars per unit of what is paid for (tokens, options) or agreed on (perpetuals, futures); the mark
        without it.
    fee
        Dollars, paid in cash.
    """

    position: Position
    price: float | None = None
    fee: float = 0.0

    def __post_init__(self) -> None:
        for name, value in (("price", self.price), ("fee", self.fee)):
            if value is not None and not math.isfinite(value):
                raise InputError(f"an order with a {name} of {value}", fix="give a number")
        if self.position.unrealised:
            raise InputError("an order has no unpaid profit yet", fix="leave `unrealised` out")


@dataclass(frozen=True, slots=True)
class WhatIf:
    """Margins before and after.

    Attributes
    ----------
    before, after
        By the same method.
    """

    before: MarginResult
    after: MarginResult

    @property
    def initial_margin(self) -> float:
        """By how much the initial requirement grows, dollars: the incremental margin."""
        return self.after.initial_requirement - self.before.initial_requirement

    @property
    def maintenance_margin(self) -> float:
        """By how much the maintenance requirement grows, dollars."""
        return self.after.maintenance_requirement - self.before.maintenance_requirement

    @property
    def equity(self) -> float:
        """By how much the equity grows, dollars."""
        return self.after.equity - self.before.equity

    @property
    def allowed(self) -> bool:
        """Whether a venue would take it: initial margin is left, or more of it than before."""
        return self.after.initial >= 0 or self.after.initial >= self.before.initial


def with_orders(portfolio: Portfolio, market: Market, orders: Iterable[Order]) -> Portfolio:
    """Return the account after orders that are filled whole.

    Tokens and options are paid for in cash. A perpetual or future costs nothing; what its price is away from
    the mark is unpaid profit or loss.

    Parameters
    ----------
    portfolio, market
        The account, and the marks.
    orders
        In any order.

    Raises
    ------
    PriceMissing, InputError
        If an instrument cannot be priced.
    """
    cash, held = portfolio.cash, list(portfolio.positions)
    for order in orders:
        position, instrument = order.position, order.position.instrument
        cash -= order.fee / market.stable_price
        one = Portfolio(positions=(position,))
        if isinstance(instrument, Perpetual | Future):
            if order.price is not None:
                position = position.model_copy(update={"unrealised": _gap(one, market, order.price)})
        else:
            paid = (
                float(value_under(one, market, NEUTRAL)[0, 0])
                if order.price is None
                else position.quantity * order.price
            )
            cash -= paid / market.stable_price
        held.append(position)
    return portfolio.model_copy(update={"cash": cash, "positions": tuple(held)})


def _gap(one: Portfolio, market: Market, price: float) -> float:
    """Return what a perpetual or future has gained since it was agreed on, dollars."""
    legs = legs_of(one, market)
    mark = float(legs.moving[0] + legs.fixed[0])
    if price <= 0:
        raise InputError(f"a price of {price:g}", fix="give one above 0")
    quantity = float(legs.quantity[0])
    if not legs.inverse[0]:
        return quantity * (mark - price)
    # Coins gained, at the index.
    return quantity * (1 / price - 1 / mark) * float(legs.spot[0])


def after_orders(
    method: PortfolioMethod, portfolio: Portfolio, market: Market, orders: Iterable[Order]
) -> WhatIf:
    """Return the margin before and after orders.

    Raises
    ------
    InputError
        If the margin is refused or unknown, before or after.
    """
    changed = with_orders(portfolio, market, orders)
    return WhatIf(known_margin(method, portfolio, market), known_margin(method, changed, market))


def after_moves(
    method: PortfolioMethod, portfolio: Portfolio, market: Market, moves: Iterable[Move]
) -> tuple[WhatIf, ...]:
    """Return the margin before and after each of some moves, which do not add up.

    Raises
    ------
    InputError
        As `after_orders`.
    """
    before = known_margin(method, portfolio, market)
    return tuple(WhatIf(before, known_margin(method, *after_move(portfolio, market, move))) for move in moves)
