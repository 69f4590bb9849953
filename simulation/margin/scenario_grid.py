"""Scenarios, and what a portfolio is worth in each: the part that every scenario method shares.

``requirement = reducer(weight_s * (V(s) - V(0)))``: the sets of scenarios differ from venue to venue, and how
their rows are reduced; the valuation does not. A scenario multiplies prices, bends volatilities and lets time
pass; `value_under` prices every kind of instrument in all of them at once. Source: reference of the margin
engines, sections 1.0, 2.12 and 7.

Options are priced by `simulation.pricing`; `_option_price` and `_barrier_value` are where that is chosen.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Final, Self

import numpy as np
from pydantic import Field, FiniteFloat, ValidationError, model_validator
from scipy.special import ndtr

from contracts_abi.errors import DataError, InputError
from oracle.strict import StrictModel, input_error
from simulation.margin.result import Grade, MarginResult, Parameters, ScenarioRow, status_of
from simulation.portfolio.instruments import Barrier, Future, Option, Perpetual, Portfolio, Position, Spot
from simulation.portfolio.market import YEAR_S, Expiry, Market
from simulation.pricing.barrier import value_under as knock_out
from simulation.pricing.black76 import black76
from simulation.pricing.svi import volatility as smile
from simulation.types import Bool, Float64, Int64

PositiveFloat = Annotated[FiniteFloat, Field(gt=0)]
NonNegative = Annotated[FiniteFloat, Field(ge=0)]

DAY_S: Final = 86_400
STEADY: Final = ("USD", "USDC", "USDT", "DAI")
"""Symbols that a shock of every price leaves alone."""

_LEAST_V: Final = 1e-9
"""Total volatility that stands for none in a delta."""


class PriceMissing(DataError):
    """A price, forward or volatility that is not there or no number: the margin is unknown."""


class VolRule(StrEnum):
    """How a scenario bends volatilities."""

    NONE = "none"
    TERM = "term"
    ADDITIVE = "additive"
    PARALLEL = "parallel"


class VolShock(StrictModel):
    """A shock of implied volatilities.

    ``term`` multiplies by ``1 + size * (30 / max(days, floor_days)) ** power`` with `short_power` below 30
    days and `long_power` from there on; ``parallel`` multiplies by ``1 + size`` at every term; ``additive``
    adds `size`. Source: reference of the margin engines, sections 2.1, 2.5 and 2.6.

    Attributes
    ----------
    rule
        ``none``, ``term``, ``parallel`` or ``additive``.
    size
        Relative, or points of volatility for ``additive``; 0.5 for 50 %.
    short_power, long_power
        Of ``term``, below 30 days and from 30 days on.
    floor_days
        Least days of ``term``.
    least
        What the volatility is at least afterwards; without it a negative volatility is refused.
    """

    rule: VolRule = VolRule.NONE
    size: FiniteFloat = 0.0
    short_power: NonNegative = 0.3
    long_power: NonNegative = 0.13
    floor_days: PositiveFloat = 1.0
    least: NonNegative | None = None

    @model_validator(mode="after")
    def _never_negative(self) -> Self:
        """Refuse what makes a volatility negative whatever it was."""
        if self.least is None and self.rule in (VolRule.TERM, VolRule.PARALLEL):
            factor = 1.0 + self.size
            if self.rule is VolRule.TERM and self.floor_days < 30:
                factor = 1.0 + self.size * (30.0 / self.floor_days) ** self.short_power
            if factor < 0:
                raise InputError(
                    f"a volatility shock of {self.size} makes volatilities negative",
                    fix="give a smaller size, or what they are at least",
                )
        return self

    def shocked(self, volatility: Float64, days: Float64) -> Float64:
        """Return volatilities after the shock.

        Parameters
        ----------
        volatility
            Annual, shape (n,).
        days
            To expiry, before any time shift, shape (n,).

        Raises
        ------
        InputError
            If one becomes negative and the shock states no least one.
        """
        match self.rule:
            case VolRule.TERM:
                power = np.where(days < 30.0, self.short_power, self.long_power)
                moved = volatility * (1.0 + self.size * (30.0 / np.maximum(days, self.floor_days)) ** power)
            case VolRule.PARALLEL:
                moved = volatility * (1.0 + self.size)
            case VolRule.ADDITIVE:
                moved = volatility + self.size
            case VolRule.NONE:
                return volatility
        if self.least is not None:
            return np.maximum(moved, self.least)
        if (moved < 0).any():
            raise InputError(
                f"a volatility shock of {self.size} takes {float(volatility[moved < 0][0]):g} below zero",
                fix="give the shock what volatilities are at least",
            )
        return moved


class Scenario(StrictModel):
    """One state of the world, relative to the market.

    Attributes
    ----------
    label
        Under the venue's name.
    every
        Multiplier of each price that `prices` does not name; None where all must be named.
    prices
        Multiplier by symbol.
    volatility
        What happens to implied volatilities.
    weight
        Factor on the profit: SPAN's cover fraction, Deribit's and Paradex's dampening of far moves.
    seconds
        How much time passes.
    """

    label: str = Field(min_length=1)
    every: PositiveFloat | None = 1.0
    prices: Mapping[str, PositiveFloat] = Field(default_factory=dict)
    volatility: VolShock = VolShock()
    weight: PositiveFloat = 1.0
    seconds: int = Field(default=0, ge=0)


class ScenarioSet(StrictModel):
    """Scenarios in a fixed order; made by `scenario_set` or `grid`.

    Attributes
    ----------
    scenarios
        At least one; labels differ.
    steady
        Symbols that `Scenario.every` does not move; one that a scenario names does move.
    """

    scenarios: tuple[Scenario, ...]
    steady: tuple[str, ...] = STEADY

    @model_validator(mode="after")
    def _whole(self) -> Self:
        """Refuse an empty set, labels that repeat, and symbols with a price in some scenarios only."""
        if not self.scenarios:
            raise InputError("a scenario set without scenarios", fix="give at least one")
        labels = [scenario.label for scenario in self.scenarios]
        for label in labels:
            if labels.count(label) > 1:
                raise InputError(f"two scenarios have the label {label!r}", fix="give each its own")
        named = sorted({symbol for scenario in self.scenarios for symbol in scenario.prices})
        for scenario in self.scenarios:
            for symbol in named:
                if scenario.every is None and symbol not in scenario.prices:
                    raise InputError(
                        f"scenario {scenario.label!r} says nothing of {symbol}, others do",
                        fix="give its price, or one for every symbol",
                    )
        return self

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels in order."""
        return tuple(scenario.label for scenario in self.scenarios)

    @property
    def weights(self) -> Float64:
        """The weights, shape (scenarios,)."""
        return np.array([scenario.weight for scenario in self.scenarios])

    def multipliers(self, symbols: Sequence[str]) -> Float64:
        """Return the multiplier of each symbol's price, shape (scenarios, symbols).

        Raises
        ------
        InputError
            If a scenario says nothing of a symbol.
        """
        out = np.empty((len(self.scenarios), len(symbols)))
        for row, scenario in enumerate(self.scenarios):
            for column, symbol in enumerate(symbols):
                named = scenario.prices.get(symbol)
                if named is None:
                    named = 1.0 if symbol in self.steady else scenario.every
                if named is None:
                    raise InputError(
                        f"scenario {scenario.label!r} says nothing of {symbol}",
                        fix="give its price, or one for every symbol",
                    )
                out[row, column] = named
        return out


def scenario_set(scenarios: Iterable[Scenario], *, steady: Sequence[str] = STEADY) -> ScenarioSet:
    """Return a set after checking it.

    Raises
    ------
    InputError
        If it is empty, two labels are one, or a symbol has a price in some scenarios only.
    """
    try:
        return ScenarioSet(scenarios=tuple(scenarios), steady=tuple(steady))
    except ValidationError as error:
        raise input_error(error, "scenario set") from None


def grid(moves: Sequence[float], shocks: Mapping[str, VolShock]) -> ScenarioSet:
    """Return every move of all prices with every volatility shock, moves outside.

    Parameters
    ----------
    moves
        Relative, -0.16 for 16 % down.
    shocks
        Name to volatility shock, for example ``vol up``.

    Raises
    ------
    InputError
        If a move is -1 or less, or moves or names repeat.
    """
    for move in moves:
        if not (math.isfinite(move) and move > -1.0):
            raise InputError(f"a price move of {move:g} leaves no price", fix="give a number above -1")
    return scenario_set(
        Scenario(label=f"{move_label(move)}, {name}", every=1.0 + move, volatility=shock)
        for move in moves
        for name, shock in shocks.items()
    )


def move_label(move: float) -> str:
    """Return a relative move in the form of ``spot -16 %``."""
    return f"spot {100 * move:+.6g} %"


NEUTRAL: Final = ScenarioSet(scenarios=(Scenario(label="now"),))
"""The market as it is."""


@dataclass(frozen=True, slots=True)
class Legs:
    """A portfolio's positions as columns, with the prices that the market gives them.

    Attributes
    ----------
    symbols
        The symbols that price anything, without repetition.
    symbol
        Position to symbol, shape (positions,).
    kind
        Class of each position's instrument.
    quantity, unrealised
        Of each position.
    inverse, call
        Of each position; False where it has no meaning.
    spot
        Index price of the underlying or asset, dollars.
    moving, fixed
        The part of the instrument's own price that moves with the market, and the part that is settled.
    strike, volatility, rate
        Of options; NaN elsewhere.
    barriers
        Position to the barrier options among the instruments.
    seconds
        To expiry; -1 for what does not expire.
    """

    symbols: tuple[str, ...]
    symbol: Int64
    kind: tuple[type[Any], ...]
    quantity: Float64
    unrealised: Float64
    inverse: Bool
    call: Bool
    spot: Float64
    moving: Float64
    fixed: Float64
    strike: Float64
    volatility: Float64
    rate: Float64
    seconds: Int64
    barriers: Mapping[int, Barrier]

    def where(self, *kinds: type[Any], inverse: bool | None = None) -> Int64:
        """Return the positions of some kinds."""
        chosen = [
            i
            for i, kind in enumerate(self.kind)
            if kind in kinds and (inverse is None or bool(self.inverse[i]) is inverse)
        ]
        return np.array(chosen, dtype=np.int64)


def legs_of(portfolio: Portfolio, market: Market) -> Legs:
    """Return a portfolio's positions with the prices that the market gives them.

    Raises
    ------
    PriceMissing
        If the market has not, or not as a number, what a position needs.
    InputError
        For an instrument that is none, an expired one, a strike or volatility that is not positive.
    """
    symbols: dict[str, int] = {}
    rows = [_leg(position, market) for position in portfolio.positions]
    index = [symbols.setdefault(row.symbol, len(symbols)) for row in rows]

    def column(name: str) -> Float64:
        return np.array([getattr(row, name) for row in rows], dtype=np.float64)

    return Legs(
        symbols=tuple(symbols),
        symbol=np.array(index, dtype=np.int64),
        kind=tuple(type(position.instrument) for position in portfolio.positions),
        quantity=np.array([position.quantity for position in portfolio.positions], dtype=np.float64),
        unrealised=np.array([position.unrealised for position in portfolio.positions], dtype=np.float64),
        inverse=np.array([row.inverse for row in rows], dtype=np.bool_),
        call=np.array([row.call for row in rows], dtype=np.bool_),
        spot=column("spot"),
        moving=column("moving"),
        fixed=column("fixed"),
        strike=column("strike"),
        volatility=column("volatility"),
        rate=column("rate"),
        seconds=np.array([row.seconds for row in rows], dtype=np.int64),
        barriers={
            i: position.instrument
            for i, position in enumerate(portfolio.positions)
            if isinstance(position.instrument, Barrier)
        },
    )


@dataclass(frozen=True, slots=True)
class _Leg:
    symbol: str
    spot: float
    moving: float
    fixed: float = 0.0
    inverse: bool = False
    call: bool = False
    strike: float = math.nan
    volatility: float = math.nan
    rate: float = 0.0
    seconds: int = -1


def _leg(position: Position, market: Market) -> _Leg:
    for name in ("quantity", "unrealised"):
        if not math.isfinite(getattr(position, name)):
            raise PriceMissing(f"the {name} of a position is no number")
    instrument = position.instrument
    if isinstance(instrument, Spot):
        price = _spot_price(instrument.asset, market)
        return _Leg(instrument.asset, price, price)
    if not isinstance(instrument, Perpetual | Future | Option | Barrier):
        raise InputError(
            f"unknown instrument {type(instrument).__name__}",
            fix="known: spot, perpetual, future, option, barrier",
        )
    symbol = instrument.underlying
    underlying = market.underlyings.get(symbol)
    if underlying is None:
        raise PriceMissing(f"no price of {symbol}")
    spot = _price(underlying.spot, f"the spot price of {symbol}")
    if isinstance(instrument, Perpetual):
        price = _price(underlying.perpetual_price, f"the price of the perpetual of {symbol}")
        return _Leg(symbol, spot, price, inverse=instrument.inverse)
    seconds = market.seconds(instrument.expiry)
    if seconds <= 0:
        raise InputError(
            f"{instrument.type} of {symbol} expired {-seconds} s before the market's time",
            fix="settle it, or give an earlier time",
        )
    expiry = underlying.expiries.get(instrument.expiry)
    if expiry is None:
        raise PriceMissing(f"no forward of {symbol} for expiry {instrument.expiry}")
    for name in ("forward", "fixed", "rate"):
        if not math.isfinite(getattr(expiry, name)):
            raise PriceMissing(f"the {name} of {symbol} for expiry {instrument.expiry} is no number")
    _price(expiry.total, f"the forward of {symbol} for expiry {instrument.expiry}")
    if isinstance(instrument, Future):
        return _Leg(symbol, spot, expiry.forward, expiry.fixed, inverse=instrument.inverse, seconds=seconds)
    barrier = instrument.barrier if isinstance(instrument, Barrier) else None
    for name, value in (("strike", instrument.strike), ("barrier", barrier)):
        if value is not None and value <= 0:
            raise InputError(f"{name} {value:g} of an option on {symbol}", fix="give a positive one")
    return _Leg(
        symbol,
        spot,
        expiry.forward,
        expiry.fixed,
        inverse=isinstance(instrument, Option) and instrument.inverse,
        call=instrument.call,
        strike=instrument.strike,
        volatility=_volatility(position, expiry, instrument.strike),
        rate=expiry.rate,
        seconds=seconds,
    )


def _spot_price(asset: str, market: Market) -> float:
    if asset in market.assets:
        return _price(market.assets[asset].price, f"the price of {asset}")
    if asset in market.underlyings:
        return _price(market.underlyings[asset].spot, f"the spot price of {asset}")
    raise PriceMissing(f"no price of {asset}")


def _price(value: float, what: str) -> float:
    if not (math.isfinite(value) and value > 0):
        raise PriceMissing(f"{what} is {value:g}")
    return value


def _volatility(position: Position, expiry: Expiry, strike: float) -> float:
    stated = position.volatility
    if stated is None:
        stated = expiry.volatility if expiry.surface is None else float(smile(expiry.surface, strike))
    if stated is None or math.isnan(stated):
        raise PriceMissing(f"no volatility of the option with strike {strike:g}")
    if stated <= 0:
        raise InputError(
            f"volatility {stated:g} of the option with strike {strike:g}", fix="give more than 0"
        )
    return stated


def value_under(portfolio: Portfolio, market: Market, scenarios: ScenarioSet) -> Float64:
    """Return what each position is worth in each scenario, dollars, shape (scenarios, positions).

    A perpetual or future is worth what it has not paid out: its `unrealised` and the move of its price since.
    An inverse instrument is worth its amount of the underlying at the scenario's spot price; its unrealised
    profit is held in the underlying too. Volatilities stay with their strike. Nothing is weighted.

    Parameters
    ----------
    portfolio, market
        What is held, and the state that the scenarios start from.
    scenarios
        The states to price in.

    Raises
    ------
    PriceMissing
        If the market has not, or not as a number, what a position needs.
    InputError
        For an instrument that is none, an expired one, a strike or volatility that is not positive, a
        scenario that says nothing of a symbol or makes a volatility negative.
    """
    return _values(legs_of(portfolio, market), scenarios)


def profit_under(portfolio: Portfolio, market: Market, scenarios: ScenarioSet) -> Float64:
    """Return the weighted profit of each position in each scenario, dollars, shape (scenarios, positions).

    Raises
    ------
    PriceMissing, InputError
        As `value_under`.
    """
    legs = legs_of(portfolio, market)
    return scenarios.weights[:, None] * (_values(legs, scenarios) - _values(legs, NEUTRAL))


def settlement_profit_under(portfolio: Portfolio, market: Market, scenarios: ScenarioSet) -> Float64:
    """Return profits in what each position settles in, unweighted, shape (scenarios, positions).

    Dollars for linear instruments, units of the underlying for inverse ones: there a scenario's dollars are
    worth fewer units the higher its spot price.

    Raises
    ------
    PriceMissing, InputError
        As `value_under`.
    """
    legs = legs_of(portfolio, market)
    moves = scenarios.multipliers(legs.symbols)[:, legs.symbol]
    then, now = _values(legs, scenarios), _values(legs, NEUTRAL)
    return np.where(legs.inverse, then / (legs.spot * moves) - now / legs.spot, then - now)


def delta_under(portfolio: Portfolio, market: Market, scenarios: ScenarioSet = NEUTRAL) -> Float64:
    """Return each position's delta in each scenario, units of the underlying, shape (scenarios, positions).

    With respect to the instrument's own forward: a token, a perpetual and a future have their quantity (an
    inverse one its notional over its price), an option its discounted normal probability.

    Raises
    ------
    PriceMissing
        As `value_under`.
    InputError
        As `value_under`, and for a barrier: it has no delta on its barrier.
    """
    legs = legs_of(portfolio, market)
    if len(legs.where(Barrier)):
        raise InputError("a barrier option has no delta that a margin rule knows", fix="leave it out")
    moves = scenarios.multipliers(legs.symbols)[:, legs.symbol]
    price = legs.moving * moves + legs.fixed
    out = np.broadcast_to(legs.quantity, price.shape).copy()
    at = legs.where(Perpetual, Future, inverse=True)
    out[:, at] /= price[:, at]
    at = legs.where(Option)
    if len(at):
        volatility, years = _volatilities(legs, at, scenarios), _years(legs, at, scenarios)
        total = np.maximum(volatility * np.sqrt(years), _LEAST_V)
        with np.errstate(divide="ignore"):
            d1 = np.log(price[:, at] / legs.strike[at]) / total + 0.5 * total
        discount = np.where(legs.inverse[at], 1.0, np.exp(-legs.rate[at] * years))
        out[:, at] *= discount * np.where(legs.call[at], ndtr(d1), -ndtr(-d1))
    return out


def _values(legs: Legs, scenarios: ScenarioSet) -> Float64:
    moves = scenarios.multipliers(legs.symbols)[:, legs.symbol]
    out = np.empty(moves.shape)
    for pick, value in _KINDS:
        at = pick(legs)
        if len(at):
            out[:, at] = value(legs, at, moves[:, at], scenarios)
    bad = ~np.isfinite(out)
    if bad.any():
        row, column = (int(index[0]) for index in np.nonzero(bad))
        raise PriceMissing(f"position {column + 1} is worth no number in scenario {scenarios.labels[row]!r}")
    return out


def _spot_value(legs: Legs, at: Int64, moves: Float64, _scenarios: ScenarioSet) -> Float64:
    return np.asarray(legs.quantity[at] * legs.spot[at] * moves)


def _linear_value(legs: Legs, at: Int64, moves: Float64, _scenarios: ScenarioSet) -> Float64:
    return np.asarray(legs.unrealised[at] + legs.quantity[at] * (legs.moving[at] * (moves - 1.0)))


def _inverse_value(legs: Legs, at: Int64, moves: Float64, _scenarios: ScenarioSet) -> Float64:
    before = legs.moving[at] + legs.fixed[at]
    after = legs.moving[at] * moves + legs.fixed[at]
    gained = legs.quantity[at] / before * (legs.moving[at] * (moves - 1.0) / after)
    return np.asarray(moves * (legs.unrealised[at] + legs.spot[at] * gained))


def _option_value(legs: Legs, at: Int64, moves: Float64, scenarios: ScenarioSet) -> Float64:
    forward = legs.moving[at] * moves + legs.fixed[at]
    years = _years(legs, at, scenarios)
    # What is paid in the underlying is not discounted: the venue's premium is a share of the forward.
    discount = np.where(legs.inverse[at], 1.0, np.exp(-legs.rate[at] * years))
    volatility = _volatilities(legs, at, scenarios)
    price = _option_price(forward, legs.strike[at], volatility, years, discount, legs.call[at])
    # A coin's premium is a share of the forward, and the coin is worth the index.
    index = np.where(legs.inverse[at], legs.spot[at] * moves / forward, 1.0)
    return np.asarray(legs.quantity[at] * price * index)


def _option_price(
    forward: Float64, strike: Float64, volatility: Float64, years: Float64, discount: Float64, call: Bool
) -> Float64:
    """Return prices of European options; the one place that chooses the formula."""
    return np.asarray(black76(forward, strike, volatility, years, discount, call), dtype=np.float64)


def _barrier_value(legs: Legs, at: Int64, moves: Float64, scenarios: ScenarioSet) -> Float64:
    forward = legs.moving[at] * moves + legs.fixed[at]
    spot, years = legs.spot[at] * moves, _years(legs, at, scenarios)
    volatility = _volatilities(legs, at, scenarios)
    out = np.empty(moves.shape)
    for column, i in enumerate(at):
        # The price drifts to the market's forward; the money is discounted at the rate.
        drift = np.log(forward[:, column] / spot[:, column])
        left = years[:, column]
        knocked = knock_out(
            legs.barriers[int(i)],
            spot[:, column],
            volatility[:, column],
            left,
            np.divide(drift, left, out=np.zeros_like(left), where=left > 0),
            reference=float(legs.spot[i]),
        )
        out[:, column] = (
            legs.quantity[i] * knocked * np.where(left > 0, np.exp(drift - legs.rate[i] * left), 1)
        )
    return out


def _volatilities(legs: Legs, at: Int64, scenarios: ScenarioSet) -> Float64:
    days = legs.seconds[at] / DAY_S
    return np.stack([s.volatility.shocked(legs.volatility[at], days) for s in scenarios.scenarios])


def _years(legs: Legs, at: Int64, scenarios: ScenarioSet) -> Float64:
    shift = np.array([scenario.seconds for scenario in scenarios.scenarios])[:, None]
    return np.asarray(np.maximum(0, legs.seconds[at] - shift) / YEAR_S)


_Value = Callable[[Legs, Int64, Float64, ScenarioSet], Float64]
_KINDS: Final[tuple[tuple[Callable[[Legs], Int64], _Value], ...]] = (
    (lambda legs: legs.where(Spot), _spot_value),
    (lambda legs: legs.where(Perpetual, Future, inverse=False), _linear_value),
    (lambda legs: legs.where(Perpetual, Future, inverse=True), _inverse_value),
    (lambda legs: legs.where(Option), _option_value),
    (lambda legs: legs.where(Barrier), _barrier_value),
)


def worst_loss(profits: Float64) -> float:
    """Return the largest loss of some scenarios, 0 where none loses; positive, of what `profits` are in.

    A profit that is no number makes the loss none either.
    """
    return positive_part(-float(profits.min())) if profits.size else 0.0


def positive_part(value: float) -> float:
    """Return a number where it is above 0, else 0; what is no number stays none, which `max` would hide."""
    return 0.0 if value <= 0 else value


def equity(portfolio: Portfolio, market: Market) -> float:
    """Return cash at the price of its currency and all positions at the market, dollars.

    Raises
    ------
    PriceMissing, InputError
        As `value_under`.
    """
    return cash_value(portfolio, market) + float(_values(legs_of(portfolio, market), NEUTRAL).sum())


def cash_value(portfolio: Portfolio, market: Market) -> float:
    """Return the cash at the price of its currency, dollars.

    Raises
    ------
    PriceMissing
        If cash or price is no number.
    """
    value = portfolio.cash * market.stable_price
    if not math.isfinite(value):
        raise PriceMissing("the cash, or the price of its currency, is no number")
    return value


def part(portfolio: Portfolio, keep: Callable[[Position], bool]) -> Portfolio:
    """Return the positions that `keep` wants, without cash."""
    return Portfolio(account=portfolio.account, positions=tuple(p for p in portfolio.positions if keep(p)))


def of_underlying(portfolio: Portfolio, symbol: str) -> Portfolio:
    """Return the positions that one symbol prices, without cash."""
    return part(portfolio, lambda position: underlying_of(position) == symbol)


def netted(portfolio: Portfolio) -> Portfolio:
    """Return a portfolio in which positions in one instrument at one place are one: they count together."""
    held: dict[object, Position] = {}
    for position in portfolio.positions:
        key = (position.instrument, position.volatility, position.protocol)
        known = held.get(key)
        held[key] = position if known is None else _both(known, position)
    return portfolio.model_copy(update={"positions": tuple(held.values())})


def _both(one: Position, other: Position) -> Position:
    return one.model_copy(
        update={
            "quantity": one.quantity + other.quantity,
            "unrealised": one.unrealised + other.unrealised,
        }
    )


def underlying_of(position: Position) -> str:
    """Return the symbol that prices a position."""
    return position.instrument.underlying


def underlyings_of(portfolio: Portfolio) -> tuple[str, ...]:
    """Return the symbols that price a portfolio, each once, in order of first use."""
    return tuple(dict.fromkeys(underlying_of(position) for position in portfolio.positions))


def only(portfolio: Portfolio, method: str, *kinds: type[Any]) -> None:
    """Refuse instruments that a method does not know.

    Raises
    ------
    InputError
        Naming the first one, and what is known.
    """
    for position in portfolio.positions:
        if not isinstance(position.instrument, kinds):
            known = ", ".join(kind.__name__.lower() for kind in kinds)
            raise InputError(
                f"{method} knows no {type(position.instrument).__name__.lower()} ({underlying_of(position)})",
                fix=f"it knows: {known}",
            )


def settled_in_dollars(portfolio: Portfolio, method: str) -> None:
    """Refuse inverse instruments.

    Raises
    ------
    InputError
        Naming the first one.
    """
    for position in portfolio.positions:
        if getattr(position.instrument, "inverse", False):
            raise InputError(
                f"{method} knows no inverse {position.instrument.type} ({underlying_of(position)})",
                fix="leave it out, or use a method that does",
            )


class ScenarioMethod(StrictModel):
    """The base of the methods that value a portfolio in scenarios.

    Attributes
    ----------
    parameters
        The method's parameter set; its hash stands in every result.
    """

    kind: ClassVar[str]
    grade: ClassVar[Grade]
    source: ClassVar[str]

    parameters: Parameters = Parameters()

    def margin(self, portfolio: Portfolio, market: Market) -> MarginResult:
        """Return what the method demands, dollars.

        Raises
        ------
        InputError
            For an instrument that the method does not know, an expired one, a strike or volatility that is
            not positive. A price that is missing or no number makes the result unknown instead.
        """
        try:
            # What overflows makes the result unknown.
            with np.errstate(over="ignore", invalid="ignore"):
                return self._answer(netted(portfolio), market).told
        except PriceMissing as missing:
            return MarginResult.unknown(portfolio.account, self.kind, self.parameters.hash, str(missing))

    @abstractmethod
    def _answer(self, portfolio: Portfolio, market: Market) -> MarginResult: ...

    def _result(
        self,
        portfolio: Portfolio,
        market: Market,
        initial: float,
        maintenance: float,
        *,
        worst: str = "",
        rows: tuple[ScenarioRow, ...] = (),
        components: Mapping[str, float] | None = None,
    ) -> MarginResult:
        """Return a result with the equity and the status that follow."""
        cash, total = cash_value(portfolio, market), equity(portfolio, market)
        return MarginResult(
            account=portfolio.account,
            method=self.kind,
            parameters_hash=self.parameters.hash,
            status=status_of(total - maintenance, maintenance),
            equity=total,
            initial_requirement=initial,
            maintenance_requirement=maintenance,
            mark_to_market=total - cash,
            worst=worst,
            scenarios=rows,
            components=components or {},
        )


def rows_of(labels: Sequence[str], profits: Float64, *, prefix: str = "") -> tuple[ScenarioRow, ...]:
    """Return a risk array as rows, in the order of the labels."""
    return tuple(ScenarioRow(f"{prefix}{label}", float(p)) for label, p in zip(labels, profits, strict=True))


def worst_label(rows: Sequence[ScenarioRow]) -> str:
    """Return the label of the first row with the lowest profit; empty where no row loses."""
    low = min(rows, key=lambda row: row.profit, default=None)
    return low.label if low is not None and low.profit < 0 else ""
