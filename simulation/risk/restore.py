"""The smallest trade, and the deposit, that bring an account's margin back."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from contracts_abi.errors import InputError
from simulation.margin.result import MarginResult, PortfolioMethod
from simulation.margin.scenario_grid import legs_of
from simulation.portfolio.instruments import Instrument, Portfolio, Position
from simulation.portfolio.market import Market
from simulation.risk.attribution import Which
from simulation.risk.moves import known_margin, label_of
from simulation.risk.whatif import Order, with_orders

LOOKS: Final = 48
_HALVINGS: Final = 50


@dataclass(frozen=True, slots=True)
class Trade:
    """A trade at the mark that restores a margin.

    Attributes
    ----------
    position
        What is bought, or sold with a negative quantity.
    label
        Its instrument.
    notional
        Dollars: units times the underlying's price.
    fee
        Dollars.
    after
        The margin then.
    """

    position: Position
    label: str
    notional: float
    fee: float
    after: MarginResult


@dataclass(frozen=True, slots=True)
class Restoration:
    """What restores an account.

    Attributes
    ----------
    deposit
        Dollars of cash that do it alone; 0 where nothing is missing.
    trades
        The smallest trade in each instrument that does it alone, by notional; empty where none does or
        nothing is missing.
    """

    deposit: float
    trades: tuple[Trade, ...]


def restore(
    method: PortfolioMethod,
    portfolio: Portfolio,
    market: Market,
    *,
    candidates: Iterable[tuple[Instrument, float | None]] = (),
    fee: float = 0.0,
    target: float = 0.0,
    which: Which = Which.MAINTENANCE,
    at: Sequence[int] | None = None,
) -> Restoration:
    """Return what brings the margin back to a target, a trade in one instrument at a time.

    Parameters
    ----------
    method, portfolio, market
        Whose margin.
    candidates
        Instruments with a volatility or None, besides those that are held; what the method refuses is left
        out.
    fee
        Share of the notional.
    target
        Dollars of equity less requirement.
    which
        Which requirement.
    at
        Places of the positions whose instruments may be traded, all without it.

    Raises
    ------
    InputError
        If the margin of the account as it is is refused or unknown, or the fee is negative.
    """
    if not fee >= 0:
        raise InputError(f"a fee of {fee} of the notional", fix="give 0 or more")
    now = which.left(known_margin(method, portfolio, market))
    if now >= target:
        return Restoration(0.0, ())
    may = portfolio.positions if at is None else [portfolio.positions[i] for i in at]
    held = [(position.instrument, position.volatility) for position in may]
    legs = legs_of(portfolio, market)
    gross = float(np.abs(legs.quantity * np.where(legs.inverse, 1.0, legs.spot)).sum()) or 2 * abs(now)
    trades = []
    for instrument, volatility in dict.fromkeys((*held, *candidates)):
        unit = Position(instrument=instrument, quantity=1.0, volatility=volatility)
        notional = _notional(unit, market)
        for sign in (-1.0, 1.0):

            def traded(
                size: float, unit: Position = unit, notional: float = notional, sign: float = sign
            ) -> Portfolio:
                position = unit.model_copy(update={"quantity": sign * size})
                order = Order(position, fee=fee * size * notional)
                return with_orders(portfolio, market, [order])

            def left(size: float, traded: Callable[[float], Portfolio] = traded) -> float:
                return which.left(known_margin(method, traded(size), market)) - target

            try:
                size = _smallest(left, gross / notional)
            except InputError:
                continue
            if size is not None:
                position = unit.model_copy(update={"quantity": sign * size})
                after = known_margin(method, traded(size), market)
                dollars = size * notional
                trades.append(Trade(position, label_of(position), dollars, fee * dollars, after))
    return Restoration((target - now), tuple(sorted(trades, key=lambda trade: trade.notional)))


def _notional(unit: Position, market: Market) -> float:
    """Return what one unit stands for, dollars."""
    legs = legs_of(Portfolio(positions=(unit,)), market)
    linear_coin = bool(legs.inverse[0]) and unit.instrument.type != "option"
    return 1.0 if linear_coin else float(legs.spot[0])


def _smallest(left: Callable[[float], float], most: float) -> float | None:
    """Return the smallest size at which the function is not below 0; None where it is at none."""
    bad = 0.0
    for size in np.geomspace(most * 1e-5, most, LOOKS).tolist():
        if left(size) >= 0:
            good = size
            break
        bad = size
    else:
        return None
    for _ in range(_HALVINGS):
        middle = (good + bad) / 2
        if math.isclose(good, bad, rel_tol=1e-12):
            break
        if left(middle) >= 0:
            good = middle
        else:
            bad = middle
    return float(good)
