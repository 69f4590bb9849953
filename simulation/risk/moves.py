"""Moves of the world that a whole account goes through: prices, volatilities, time.

A move changes the market and, with it, what the account has not been paid yet: a perpetual's unpaid profit
follows its price, and what expires on the way is settled into cash.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

from contracts_abi.errors import InputError
from simulation.margin.result import MarginResult, PortfolioMethod
from simulation.margin.scenario_grid import (
    STEADY,
    Scenario,
    scenario_set,
    underlyings_of,
    value_under,
)
from simulation.portfolio.instruments import Barrier, Future, Option, Perpetual, Portfolio, Position
from simulation.portfolio.market import Expiry, Market, Svi, Underlying
from simulation.types import MarginStatus

DAY_S: Final = 86_400


@dataclass(frozen=True, slots=True)
class Move:
    """A change of the world at once.

    Attributes
    ----------
    prices
        Symbol to what its prices are multiplied by: spot, perpetual, and the part of forwards that moves.
    every
        Multiplier of every symbol that `prices` does not name and that is no stable coin.
    volatility
        Multiplier of all implied volatilities; they stay with their strike.
    seconds
        How much time passes.
    """

    prices: Mapping[str, float] = field(default_factory=dict)
    every: float = 1.0
    volatility: float = 1.0
    seconds: int = 0

    def __post_init__(self) -> None:
        for name, value in (*self.prices.items(), ("every", self.every), ("volatility", self.volatility)):
            if not (math.isfinite(value) and value > 0):
                raise InputError(f"a move multiplies {name} by {value:g}", fix="give a number above 0")
        if self.seconds < 0:
            raise InputError(f"a move of {self.seconds} s", fix="time only passes")

    def factor(self, symbol: str) -> float:
        """Return what a symbol's prices are multiplied by."""
        return self.prices.get(symbol, 1.0 if symbol in STEADY else self.every)


class FactorKind(StrEnum):
    """What moves."""

    PRICE = "price"
    PRICES = "prices"
    VOLATILITY = "volatility"
    TIME = "time"


@dataclass(frozen=True, slots=True)
class Factor:
    """One dimension of moves.

    Attributes
    ----------
    kind
        One price, all prices together, all volatilities, or time.
    symbol
        Of one price.
    """

    kind: FactorKind
    symbol: str = ""

    def __post_init__(self) -> None:
        if (self.kind is FactorKind.PRICE) != bool(self.symbol):
            raise InputError("a price factor names one symbol, others name none", fix="write price:ETH")

    @classmethod
    def parsed(cls, text: str) -> Factor:
        """Return a factor from ``price:ETH``, ``prices``, ``volatility`` or ``time``.

        Raises
        ------
        InputError
            If it is none of them.
        """
        kind, _, symbol = text.partition(":")
        if kind not in list(FactorKind):
            raise InputError(f"no factor {text!r}", fix="write price:ETH, prices, volatility or time")
        return cls(FactorKind(kind), symbol)

    def __str__(self) -> str:
        return f"{self.kind}:{self.symbol}" if self.symbol else str(self.kind)

    def move(self, size: float) -> Move:
        """Return the move of a size: relative, -0.1 for 10 % down; seconds of time."""
        match self.kind:
            case FactorKind.PRICE:
                return Move(prices={self.symbol: 1.0 + size})
            case FactorKind.PRICES:
                return Move(every=1.0 + size)
            case FactorKind.VOLATILITY:
                return Move(volatility=1.0 + size)
            case FactorKind.TIME:
                return Move(seconds=round(size))


def combined(first: Move, second: Move) -> Move:
    """Return both moves at once."""
    names = {*first.prices, *second.prices}
    return Move(
        prices={name: first.factor(name) * second.factor(name) for name in names},
        every=first.every * second.every,
        volatility=first.volatility * second.volatility,
        seconds=first.seconds + second.seconds,
    )


def factors_of(portfolio: Portfolio) -> tuple[Factor, ...]:
    """Return what can move an account: each of its prices, all of them together, volatilities, time."""
    symbols = underlyings_of(portfolio)
    found = [Factor(FactorKind.PRICE, symbol) for symbol in symbols]
    if sum(symbol not in STEADY for symbol in symbols) > 1:
        found.append(Factor(FactorKind.PRICES))
    kinds = {position.instrument.type for position in portfolio.positions}
    if kinds & {"option", "barrier"}:
        found.append(Factor(FactorKind.VOLATILITY))
    if kinds & {"option", "barrier", "future"}:
        found.append(Factor(FactorKind.TIME))
    return tuple(found)


def after_move(portfolio: Portfolio, market: Market, move: Move) -> tuple[Portfolio, Market]:
    """Return account and market after a move.

    What expires before its end is settled into cash, at the moved spot price.

    Parameters
    ----------
    portfolio, market
        Before it.
    move
        What happens.

    Raises
    ------
    PriceMissing, InputError
        As `simulation.margin.scenario_grid.value_under`, where positions have to be valued.
    """
    moved = moved_market(market, move)
    cash, kept = portfolio.cash, []
    unpaid = _unpaid(portfolio, market, move)
    for position, unrealised in zip(portfolio.positions, unpaid, strict=True):
        expiry = getattr(position.instrument, "expiry", None)
        if expiry is not None and expiry <= moved.timestamp:
            cash += _settled(position, market, move) / market.stable_price
            continue
        volatility = position.volatility
        if unrealised == position.unrealised and (volatility is None or move.volatility == 1.0):
            kept.append(position)
            continue
        kept.append(
            position.model_copy(
                update={
                    "unrealised": unrealised,
                    "volatility": None if volatility is None else volatility * move.volatility,
                }
            )
        )
    return portfolio.model_copy(update={"cash": cash, "positions": tuple(kept)}), moved


def moved_market(market: Market, move: Move) -> Market:
    """Return the market after a move; expiries that have passed are gone."""
    now = market.timestamp + move.seconds
    return market.model_copy(
        update={
            "timestamp": now,
            "underlyings": {
                symbol: _moved_underlying(underlying, move.factor(symbol), move.volatility, now)
                for symbol, underlying in market.underlyings.items()
            },
            "assets": {
                symbol: asset.model_copy(update={"price": asset.price * move.factor(symbol)})
                for symbol, asset in market.assets.items()
            },
        }
    )


def _moved_underlying(underlying: Underlying, factor: float, volatility: float, now: int) -> Underlying:
    perpetual = underlying.perpetual
    return underlying.model_copy(
        update={
            "spot": underlying.spot * factor,
            "perpetual": None if perpetual is None else perpetual * factor,
            "expiries": {
                time: _moved_expiry(expiry, factor, volatility)
                for time, expiry in underlying.expiries.items()
                if time > now
            },
        }
    )


def _moved_expiry(expiry: Expiry, factor: float, volatility: float) -> Expiry:
    flat = expiry.volatility
    return expiry.model_copy(
        update={
            "forward": expiry.forward * factor,
            "volatility": None if flat is None else flat * volatility,
            "surface": None if expiry.surface is None else scaled(expiry.surface, volatility),
        }
    )


def scaled(surface: Svi, volatility: float) -> Svi:
    """Return a smile whose volatilities are multiplied; variances go with the square."""
    if volatility == 1.0:
        return surface
    square = volatility * volatility
    return surface.model_copy(update={"a": surface.a * square, "b": surface.b * square})


def _unpaid(portfolio: Portfolio, market: Market, move: Move) -> list[float]:
    """Return each position's unpaid profit after the move, dollars."""
    at = [
        i
        for i, position in enumerate(portfolio.positions)
        if isinstance(position.instrument, Perpetual | Future)
        and move.factor(position.instrument.underlying) != 1.0
    ]
    out = [position.unrealised for position in portfolio.positions]
    if at:
        linear = portfolio.model_copy(update={"positions": tuple(portfolio.positions[i] for i in at)})
        symbols = underlyings_of(linear)
        scenario = Scenario(label="moved", prices={symbol: move.factor(symbol) for symbol in symbols})
        # A perpetual or future is worth what it has not paid out.
        for i, value in zip(at, value_under(linear, market, scenario_set([scenario]))[0], strict=True):
            out[i] = float(value)
    return out


def _settled(position: Position, market: Market, move: Move) -> float:
    """Return what a position that expires on the way pays, dollars; an option by its intrinsic value.

    A barrier that the move has not reached is paid like an option. A future is paid at its forward: that it
    meets the spot price at its expiry is left aside, as a move of zero is then worth nothing.
    """
    instrument = position.instrument
    if isinstance(instrument, Future):
        one = Portfolio(positions=(position,))
        return _unpaid(one, market, move)[0]
    if not isinstance(instrument, Option | Barrier):
        raise InputError(f"a {instrument.type} does not expire")
    underlying = market.underlyings.get(instrument.underlying)
    if underlying is None:
        raise InputError(f"no price of {instrument.underlying}", fix="add it to the market")
    before, after = underlying.spot, underlying.spot * move.factor(instrument.underlying)
    if isinstance(instrument, Barrier) and min(before, after) <= instrument.barrier <= max(before, after):
        return 0.0
    intrinsic = after - instrument.strike if instrument.call else instrument.strike - after
    return position.quantity * max(0.0, intrinsic)


def known_margin(method: PortfolioMethod, portfolio: Portfolio, market: Market) -> MarginResult:
    """Return a margin that is a number.

    Raises
    ------
    InputError
        If the method refuses the account, or its margin is unknown; with the reason.
    """
    result = method.margin(portfolio, market)
    if result.status is MarginStatus.UNKNOWN:
        raise InputError(
            f"the margin of {portfolio.account} is unknown: {result.reason}", fix="give the market its price"
        )
    return result


def label_of(position: Position) -> str:
    """Return a position's instrument for people, for example ``ETH 2026-12-25 3400 call``."""
    instrument = position.instrument
    words = [instrument.underlying]
    expiry = getattr(instrument, "expiry", None)
    if expiry is not None:
        words.append(_day(expiry))
    if isinstance(instrument, Option | Barrier):
        words += [f"{instrument.strike:g}", "call" if instrument.call else "put"]
    if isinstance(instrument, Barrier):
        words.append(f"out at {instrument.barrier:g}")
    if isinstance(instrument, Perpetual | Future):
        words.append(instrument.type)
    if getattr(instrument, "inverse", False):
        words.append("inverse")
    if position.protocol:
        words.append(f"at {position.protocol}")
    return " ".join(words)


def _day(seconds: int) -> str:
    """Return a time's day; the seconds themselves where no calendar has it."""
    try:
        return datetime.fromtimestamp(seconds, UTC).date().isoformat()
    except (ValueError, OverflowError, OSError):
        return f"{seconds} s"
