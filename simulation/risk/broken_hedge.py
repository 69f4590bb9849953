"""The leg whose loss would take the rest: what is left of an account when one leg alone goes.

A hedge is liquidated leg by leg, where it is held at several places or one leg has a venue's trouble. Source:
reference of the margin engines, section 5.3.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import StrEnum

from contracts_abi.errors import InputError
from simulation.margin.result import PortfolioMethod
from simulation.margin.scenario_grid import NEUTRAL, legs_of, value_under
from simulation.portfolio.instruments import Portfolio
from simulation.portfolio.market import Market
from simulation.risk.attribution import Which, sized
from simulation.risk.moves import known_margin, label_of
from simulation.risk.netted import NettedBook, netted_book


class LegOf(StrEnum):
    """What makes a leg."""

    INSTRUMENT = "instrument"
    PROTOCOL = "protocol"


@dataclass(frozen=True, slots=True)
class BrokenLeg:
    """What happens when one leg goes.

    Attributes
    ----------
    label
        The instrument or protocol.
    positions
        Places in the portfolio.
    liquidated
        Margin left when the leg is closed at the mark less the penalty, dollars.
    defaulted
        Margin left when the leg pays nothing: what it is worth is lost, what it owes stays owed.
    """

    label: str
    positions: tuple[int, ...]
    liquidated: float
    defaulted: float

    @property
    def left(self) -> float:
        """The worse of both."""
        return min(self.liquidated, self.defaulted)

    @property
    def takes_the_rest(self) -> bool:
        """Whether the rest of the account can be liquidated then."""
        return self.left < 0


def broken_hedges(
    method: PortfolioMethod,
    portfolio: Portfolio,
    market: Market,
    *,
    penalty: float = 0.05,
    leg_of: LegOf = LegOf.INSTRUMENT,
    which: Which = Which.MAINTENANCE,
    at: Collection[int] | None = None,
) -> tuple[BrokenLeg, ...]:
    """Return the legs, the one first whose loss leaves the least.

    Parameters
    ----------
    method, portfolio, market
        Whose margin.
    penalty
        Share of a leg's notional that its liquidation costs.
    leg_of
        Whether positions of an instrument or of a protocol go together.
    which
        Which margin.
    at
        Places of positions whose legs are told of, all without it.

    Raises
    ------
    InputError
        If the penalty is no share, or a margin is refused or unknown.
    """
    if not 0 <= penalty <= 1:
        raise InputError(f"a penalty of {penalty}", fix="give a share between 0 and 1")
    legs: dict[str, list[int]] = {}
    for i, position in enumerate(portfolio.positions):
        label = label_of(position) if leg_of is LegOf.INSTRUMENT else position.protocol or "no protocol"
        legs.setdefault(label, []).append(i)
    columns = legs_of(portfolio, market)
    worth = value_under(portfolio, market, NEUTRAL)[0]
    book = netted_book(method, portfolio, market)
    found = []
    for label, places in legs.items():
        if at is not None and not any(i in at for i in places):
            continue
        notional = 0.0
        for i in places:
            dollars = columns.inverse[i] and portfolio.positions[i].instrument.type != "option"
            notional += abs(columns.quantity[i]) * (1.0 if dollars else columns.spot[i])
        value = math.fsum(worth[i] for i in places)
        left = (
            _left_asked(method, portfolio, market, which, places)
            if book is None
            else _left(book, which, places)
        )
        found.append(
            BrokenLeg(label, tuple(places), left(value - penalty * float(notional)), left(min(value, 0.0)))
        )
    return tuple(sorted(found, key=lambda leg: (leg.left, leg.positions)))


def _left_asked(
    method: PortfolioMethod, portfolio: Portfolio, market: Market, which: Which, at: list[int]
) -> Callable[[float], float]:
    """Return what is left of the margin without some positions, by the cash gained; the method is asked."""
    gone = frozenset(at)
    rest = tuple(
        sized(position, 0.0) if i in gone else position for i, position in enumerate(portfolio.positions)
    )

    def left(gained: float) -> float:
        cash = portfolio.cash + gained / market.stable_price
        changed = portfolio.model_copy(update={"positions": rest, "cash": cash})
        return which.left(known_margin(method, changed, market))

    return left


def _left(book: NettedBook, which: Which, at: list[int]) -> Callable[[float], float]:
    """Return the same from the sums of the whole."""
    others = book.totals - book.profits[:, at].sum(axis=1, keepdims=True)
    required = float(book.requirement(others, initial=which is Which.INITIAL)[0])
    equity = book.cash + float(book.values.sum()) - float(book.values[at].sum())
    return lambda gained: equity + gained - required
