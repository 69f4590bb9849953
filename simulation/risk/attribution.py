"""Which position a requirement comes from, in three ways that answer three questions.

``euler`` shares a requirement out: what it would grow by if a position grew a little, times its size. These
sum to the requirement of every method that doubles when the account doubles (Euler's theorem); with the
scenario that decides held, a position's share is its loss there. ``incremental`` adds positions one after the
other, in the account's order: the steps sum to the requirement too, and depend on the order.
``leave_one_out`` asks what would go if one position went; these do not sum, and what is missing is what
netting saves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Final

import numpy as np

from contracts_abi.errors import InputError
from simulation.margin.result import MarginResult, PortfolioMethod
from simulation.portfolio.instruments import Portfolio, Position
from simulation.portfolio.market import Market
from simulation.risk.moves import known_margin, label_of
from simulation.risk.netted import NettedBook, netted_book

STEPS: Final = (2.0**-12, 2.0**-18, 2.0**-24)
"""Relative sizes of a small change: requirements are piecewise linear, and rounding costs 1e-12 of them at
the first. The others are for one that has a kink nearer than that."""
_CLOSES: Final = 1e-9


class Which(StrEnum):
    """Which requirement."""

    INITIAL = "initial"
    MAINTENANCE = "maintenance"

    def of(self, result: MarginResult) -> float:
        """Return a result's requirement, dollars."""
        initial = self is Which.INITIAL
        return result.initial_requirement if initial else result.maintenance_requirement

    def left(self, result: MarginResult) -> float:
        """Return the equity less the requirement, dollars."""
        return result.initial if self is Which.INITIAL else result.maintenance


@dataclass(frozen=True, slots=True)
class Contribution:
    """One position's part.

    Attributes
    ----------
    position
        Its place in the portfolio.
    label
        Its instrument.
    amount
        Dollars of requirement; negative where it lowers it.
    """

    position: int
    label: str
    amount: float


@dataclass(frozen=True, slots=True)
class Attribution:
    """A requirement and the positions' parts of it.

    Attributes
    ----------
    way
        ``euler``, ``incremental`` or ``leave-one-out``.
    which
        Of which requirement.
    requirement
        Dollars.
    contributions
        One for each position that is told of, in the portfolio's order.
    rest
        Requirement less all parts: of ``euler`` what does not double with the account, and ties of more than
        two scenarios; of ``incremental`` the requirement of the cash alone; of ``leave-one-out`` minus the
        saving by netting.
    """

    way: str
    which: Which
    requirement: float
    contributions: tuple[Contribution, ...]
    rest: float


def sized(position: Position, factor: float) -> Position:
    """Return a position times a factor, unpaid profit included."""
    return position.model_copy(
        update={"quantity": position.quantity * factor, "unrealised": position.unrealised * factor}
    )


def replaced(portfolio: Portfolio, at: int, position: Position) -> Portfolio:
    """Return a portfolio with another position at a place."""
    held = portfolio.positions
    return portfolio.model_copy(update={"positions": (*held[:at], position, *held[at + 1 :])})


def without(portfolio: Portfolio, at: int) -> Portfolio:
    """Return a portfolio with nothing of one position, which keeps its place.

    A venue that finds its underlying in the positions still finds it.
    """
    return replaced(portfolio, at, sized(portfolio.positions[at], 0.0))


def euler(
    method: PortfolioMethod,
    portfolio: Portfolio,
    market: Market,
    which: Which = Which.MAINTENANCE,
    *,
    steps: Sequence[float] = STEPS,
    at: Sequence[int] | None = None,
) -> Attribution:
    """Return each position's part by the requirement's derivative in its size.

    Parameters
    ----------
    method, portfolio, market
        Whose requirement.
    which
        Of which one.
    steps
        Relative changes of a position's size, up and down; where two scenarios decide at once, their mean
        counts. The first after which nothing is left over is taken, else the one after which least is.
    at
        Places of the positions to tell of, all without it; the others are in the rest, and the first step
        alone is taken, as nothing tells whether it closes.

    Raises
    ------
    InputError
        If the margin is refused or unknown.
    """

    whole = which.of(known_margin(method, portfolio, market))
    book = netted_book(method, portfolio, market)

    def part(i: int, step: float) -> float:
        def at(factor: float) -> float:
            changed = replaced(portfolio, i, sized(portfolio.positions[i], factor))
            return which.of(known_margin(method, changed, market))

        position = portfolio.positions[i]
        if not position.quantity and not position.unrealised:
            return 0.0
        return (at(1 + step) - at(1 - step)) / (2 * step)

    best: Attribution | None = None
    for step in steps if at is None else steps[:1]:
        one = partial(part, step=step) if book is None else _slopes(book, which, step).__getitem__
        tried = _attribution("euler", which, portfolio, whole, one, at)
        if best is None or abs(tried.rest) < abs(best.rest):
            best = tried
        if abs(best.rest) <= _CLOSES * max(1.0, *(abs(c.amount) for c in best.contributions), abs(whole)):
            break
    if best is None:
        raise InputError("shares without a step", fix="give one")
    return best


def _slopes(book: NettedBook, which: Which, step: float) -> list[float]:
    initial = which is Which.INITIAL
    up = book.requirement(book.totals + step * book.profits, initial=initial)
    down = book.requirement(book.totals - step * book.profits, initial=initial)
    slopes: list[float] = ((up - down) / (2 * step)).tolist()
    return slopes


def incremental(
    method: PortfolioMethod,
    portfolio: Portfolio,
    market: Market,
    which: Which = Which.MAINTENANCE,
    *,
    at: Sequence[int] | None = None,
) -> Attribution:
    """Return what each position adds when they come one after the other, in the portfolio's order.

    Parameters
    ----------
    method, portfolio, market, which
        As `euler`.
    at
        Places of the positions to tell of, all without it; the others come before them, and are in the rest.

    Raises
    ------
    InputError
        As `euler`.
    """
    present = list(portfolio.positions)
    steps: list[float] = []
    whole = which.of(known_margin(method, portfolio, market))
    book = netted_book(method, portfolio, market)
    if book is not None and at is None:
        sums = np.cumsum(book.profits, axis=1)
        steps = [0.0, *book.requirement(sums, initial=which is Which.INITIAL).tolist()]
        return _attribution("incremental", which, portfolio, whole, lambda i: steps[i + 1] - steps[i])
    order = range(len(present)) if at is None else sorted(at)
    held = list(present)
    for i in order:
        held[i] = sized(present[i], 0.0)
    for i in (None, *order):
        if i is not None:
            held[i] = present[i]
        changed = portfolio.model_copy(update={"positions": tuple(held)})
        steps.append(which.of(known_margin(method, changed, market)))
    added = {i: steps[k + 1] - steps[k] for k, i in enumerate(order)}
    return _attribution("incremental", which, portfolio, whole, added.__getitem__, at)


def leave_one_out(
    method: PortfolioMethod,
    portfolio: Portfolio,
    market: Market,
    which: Which = Which.MAINTENANCE,
    *,
    at: Sequence[int] | None = None,
) -> Attribution:
    """Return by how much the requirement falls when one position alone is left out.

    Parameters
    ----------
    method, portfolio, market, which
        As `euler`.
    at
        Places of the positions to tell of, all without it.

    Raises
    ------
    InputError
        As `euler`.
    """
    whole = which.of(known_margin(method, portfolio, market))
    book = netted_book(method, portfolio, market)
    if book is not None:
        rest = book.requirement(book.totals - book.profits, initial=which is Which.INITIAL)
        gone: list[float] = (whole - rest).tolist()
        return _attribution("leave-one-out", which, portfolio, whole, gone.__getitem__, at)
    return _attribution(
        "leave-one-out",
        which,
        portfolio,
        whole,
        lambda i: whole - which.of(known_margin(method, without(portfolio, i), market)),
        at,
    )


def _attribution(
    way: str,
    which: Which,
    portfolio: Portfolio,
    whole: float,
    part: Callable[[int], float],
    at: Sequence[int] | None = None,
) -> Attribution:
    told = range(len(portfolio.positions)) if at is None else sorted(at)
    contributions = tuple(Contribution(i, label_of(portfolio.positions[i]), part(i)) for i in told)
    return Attribution(way, which, whole, contributions, whole - sum(c.amount for c in contributions))
