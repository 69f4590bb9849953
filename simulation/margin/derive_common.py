"""What Derive's risk managers share: reading an account, pricing it over scenarios, and their shocks.

Source: reference of the margin engines, sections 1.0 to 1.3 (Derive v2 core contracts, verified by the
venue's published vectors). All money is in dollars, an amount is in units of the underlying,
a confidence is 0 to 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, FiniteFloat

from contracts_abi.errors import InputError, UnknownNameError
from oracle.strict import StrictModel
from simulation.margin.result import MarginResult, Parameters, ScenarioRow, status_of
from simulation.portfolio.instruments import (
    SETTLEMENT_WINDOW_S,
    Option,
    Perpetual,
    Portfolio,
    Position,
    Spot,
)
from simulation.portfolio.market import YEAR_S, Expiry, Market, Svi, Underlying
from simulation.pricing.black76 import black76
from simulation.types import Bool, Float64

NotNegative = Annotated[FiniteFloat, Field(ge=0)]
Share = Annotated[FiniteFloat, Field(ge=0, le=1)]
P = TypeVar("P", bound=Parameters)

THIRTY_DAYS_S = 2_592_000
"""Where the power of the volatility shock changes."""
BASIS = "basis contingency"
"""Label of the worst case that is no scenario."""

_MAX_LOG_WIDTHS = 4.0
_MAX_VARIANCE = 144.0


class UnpricedError(Exception):
    """A price that the account needs is missing or no number; the margin is unknown for this reason."""


# ------------------------------------------------------------------------------------------------- parameters


class Direction(StrEnum):
    """What a scenario does to volatilities."""

    UP = "Up"
    NONE = "None"
    DOWN = "Down"
    LINEAR = "Linear"
    ABS = "Abs"


SKEWS = (Direction.LINEAR, Direction.ABS)
"""Directions that bend the smile."""


class Scenario(StrictModel):
    """One scenario of a grid.

    Attributes
    ----------
    spot_shock
        Factor on the price.
    direction
        Of the volatility shock.
    dampening
        Factor on the profit; below 1 for the tails of PMRM 2.
    """

    spot_shock: NotNegative
    direction: Direction
    dampening: NotNegative = 1.0

    @property
    def label(self) -> str:
        """What it does, in words."""
        if self.direction in SKEWS:
            text = "linear skew" if self.direction is Direction.LINEAR else "absolute skew"
        else:
            vol = (
                "vol unchanged" if self.direction is Direction.NONE else f"vol {self.direction.value.lower()}"
            )
            text = f"spot {100 * (self.spot_shock - 1):+.4g} %, {vol}"
        return text if self.dampening == 1.0 else f"{text}, times {self.dampening:.4g}"


class VolShock(StrictModel):
    """How far volatilities move.

    Attributes
    ----------
    range_up, range_down
        Relative move at 30 days to expiry.
    short_power, long_power
        Power of 30 days over the time left, up to 30 days and beyond.
    dte_floor_s
        Less time than this counts as this, seconds.
    min_vol_up
        Least volatility of an upward shock; PMRM 2 only.
    """

    range_up: Annotated[FiniteFloat, Field(ge=0, le=10)]
    range_down: Annotated[FiniteFloat, Field(ge=0, le=10)]
    short_power: Annotated[FiniteFloat, Field(ge=0, le=10)]
    long_power: Annotated[FiniteFloat, Field(ge=0, le=10)]
    dte_floor_s: Annotated[FiniteFloat, Field(ge=0, le=400 * 86_400)]
    min_vol_up: NotNegative = 0.0

    def factors(self, seconds: Float64) -> tuple[Float64, Float64]:
        """Return the factors on volatilities, up and down, by seconds to expiry.

        Raises
        ------
        InputError
            At expiry without a floor, where the shock has no size.
        """
        left = np.maximum(seconds, self.dte_floor_s)
        if np.any(left <= 0):
            raise InputError(
                "an option at its expiry has no volatility shock", fix="give dte_floor_s above 0"
            )
        power = np.where(seconds <= THIRTY_DAYS_S, self.short_power, self.long_power)
        size = (THIRTY_DAYS_S / left) ** power
        return 1 + self.range_up * size, np.maximum(0.0, 1 - self.range_down * size)


class BasisShock(StrictModel):
    """The basis contingency: forwards alone move, each expiry for itself.

    Attributes
    ----------
    up, down
        Factors on the forward, 1 between them.
    add_factor, mult_factor
        The loss counts ``add_factor + mult_factor * years`` times.
    """

    up: Annotated[FiniteFloat, Field(ge=1)]
    down: Annotated[FiniteFloat, Field(ge=0, le=1)]
    add_factor: NotNegative
    mult_factor: NotNegative


class PegLoss(StrictModel):
    """What the settlement currency below its peg adds to the initial loss factor.

    Attributes
    ----------
    threshold
        Dollars below which it counts.
    factor
        Per dollar below.
    """

    threshold: NotNegative
    factor: NotNegative

    def extra(self, stable_price: float) -> float:
        """Return the addition to the initial loss factor."""
        return max(0.0, self.threshold - stable_price) * self.factor


class OracleContingency(StrictModel):
    """What little confidence in a feed costs, in initial margin only.

    Attributes
    ----------
    threshold
        Confidence below which it counts; above 1 it always does, which the contract allows.
    margin
        Share of the notional at no confidence.
    """

    threshold: NotNegative
    margin: NotNegative

    def of(self, confidence: float, notional: float) -> float:
        """Return the requirement of a notional in dollars."""
        return (1 - confidence) * self.margin * notional if confidence < self.threshold else 0.0


def by_name(value: Any, sets: Mapping[str, Parameters]) -> Any:
    """Return the parameter set of a name; anything else as it is.

    Raises
    ------
    UnknownNameError
        With the nearest names.
    """
    if not isinstance(value, str):
        return value
    if value not in sets:
        raise UnknownNameError("parameter set", value, sets)
    return sets[value]


def price_grid(reach: float, steps: int, *, ends: tuple[Direction, ...]) -> tuple[Scenario, ...]:
    """Return the regular scenarios of Derive, from the highest price down.

    Parameters
    ----------
    reach
        Largest relative move.
    steps
        Moves on each side.
    ends
        Directions at both ends; everywhere else all three.
    """
    inner = (Direction.UP, Direction.NONE, Direction.DOWN)
    return tuple(
        Scenario(spot_shock=round(1 + reach * move / steps, 12), direction=direction)
        for move in range(steps, -steps - 1, -1)
        for direction in (ends if abs(move) == steps else inner)
    )


def scenario_at(scenarios: Sequence[Scenario], index: int) -> Scenario:
    """Return one scenario of a list.

    Raises
    ------
    InputError
        If there is none at this place.
    """
    if not 0 <= index < len(scenarios):
        raise InputError(f"no scenario {index}", fix=f"0 to {len(scenarios) - 1}")
    return scenarios[index]


# ---------------------------------------------------------------------------------------------------- reading


@dataclass(frozen=True, slots=True)
class OptionBook:
    """The options of one underlying, sorted by expiry, as arrays.

    Attributes
    ----------
    expiries
        Unix seconds, ascending; ``(e,)`` as all that follow of an expiry.
    seconds, years
        To expiry.
    variable, fixed
        The two parts of the forward, dollars.
    rate
        Annual rate, as the feed states it.
    confidence
        The least of forward, rate and volatility feed.
    forward_vol_confidence
        The least of forward and volatility feed.
    at
        Index of the expiry of each option; ``(n,)`` as all that follow of an option.
    strike, volatility, amount, call
        Of the option.
    naked_shorts
        Short options that no long one at the same expiry and strike covers, units of the underlying.
    """

    expiries: tuple[int, ...]
    seconds: Float64
    years: Float64
    variable: Float64
    fixed: Float64
    rate: Float64
    confidence: Float64
    forward_vol_confidence: Float64
    at: NDArray[np.intp]
    strike: Float64
    volatility: Float64
    amount: Float64
    call: Bool
    naked_shorts: float

    @property
    def forward(self) -> Float64:
        """The forwards, both parts."""
        return self.variable + self.fixed

    def each(self, spot_shock: Float64, volatility: Float64, discount: Float64) -> Float64:
        """Return what each option is worth in each scenario, ``(s, n)``, dollars, signed as its amount.

        Parameters
        ----------
        spot_shock
            Factor on the variable part of the forwards, ``(s,)``.
        volatility
            Of each option in each scenario, ``(s, n)``.
        discount
            Of each expiry, ``(e,)``.
        """
        forward = spot_shock[:, None] * self.variable + self.fixed
        # The one place where options of Derive are priced.
        unit: Float64 = black76(
            forward[:, self.at], self.strike, volatility, self.years[self.at], discount[self.at], self.call
        )
        signed: Float64 = unit * self.amount
        return signed

    def values(self, spot_shock: Float64, volatility: Float64, discount: Float64) -> Float64:
        """Return what each expiry is worth in each scenario, ``(s, e)``, dollars; arguments as of `each`."""
        return self.by_expiry(self.each(spot_shock, volatility, discount))

    def by_expiry(self, per_option: Float64) -> Float64:
        """Return the sums over the options of each expiry, along the last axis."""
        if not len(self.expiries):
            return np.zeros((*per_option.shape[:-1], 0))
        starts = np.searchsorted(self.at, np.arange(len(self.expiries)))
        sums: Float64 = np.add.reduceat(per_option, starts, axis=-1)
        return sums

    def marks(self, discount: Float64) -> Float64:
        """Return what each expiry is worth now, ``(e,)``, dollars."""
        now: Float64 = self.values(np.ones(1), self.volatility[None, :], discount)[0]
        return now


@dataclass(frozen=True, slots=True)
class Legs:
    """What an account holds on one underlying.

    Attributes
    ----------
    feed
        The underlying.
    perpetual
        Units of it.
    perpetual_value
        Unrealised profit and unsettled funding, dollars.
    options
        See `OptionBook`.
    """

    feed: Underlying
    perpetual: float
    perpetual_value: float
    options: OptionBook


@dataclass(frozen=True, slots=True)
class Account:
    """An account by underlying.

    Attributes
    ----------
    cash
        Dollars.
    spots
        Symbol to units of tokens held.
    legs
        Symbol to derivatives on it.
    """

    cash: float
    spots: Mapping[str, float]
    legs: Mapping[str, Legs]


def usable(value: float | None, what: str) -> float:
    """Return a price that can be computed with.

    Raises
    ------
    UnpricedError
        If it is missing, no number or not above zero.
    """
    if value is None:
        raise UnpricedError(f"no {what}")
    if not (math.isfinite(value) and value > 0):
        raise UnpricedError(f"{what} is {value}")
    return value


def known(value: float, what: str) -> float:
    """Return a confidence or a rate that is a number.

    Raises
    ------
    UnpricedError
        If it is none.
    """
    if not math.isfinite(value):
        raise UnpricedError(f"{what} is {value}")
    return value


def underlying_feed(market: Market, symbol: str) -> Underlying:
    """Return the feeds of an underlying, its index price and confidence checked.

    Raises
    ------
    UnpricedError
        If there are none.
    """
    feed = market.underlyings.get(symbol)
    if feed is None:
        raise UnpricedError(f"no price of {symbol}")
    usable(feed.spot, f"index price of {symbol}")
    known(feed.confidence, f"confidence of {symbol}")
    return feed


def token_price(market: Market, symbol: str) -> tuple[float, float]:
    """Return price and confidence of a token, which may be an underlying.

    Raises
    ------
    UnpricedError
        If there is none.
    """
    asset = market.assets.get(symbol)
    if asset is None:
        feed = underlying_feed(market, symbol)
        return feed.spot, feed.confidence
    return usable(asset.price, f"price of {symbol}"), known(asset.confidence, f"confidence of {symbol}")


def settlement_parts(forward: float, seconds: float) -> tuple[float, float]:
    """Return the part of a forward that still moves, and the part that the settlement has fixed.

    Parameters
    ----------
    forward
        Dollars.
    seconds
        To expiry; over the last half hour the settlement price builds up evenly.
    """
    moving = min(1.0, max(0.0, seconds / SETTLEMENT_WINDOW_S))
    return forward * moving, forward * (1 - moving)


def svi_volatility(slice_: Svi, strike: float) -> float:
    """Return the volatility that Derive's feed gives a strike; NaN where the slice has no variance.

    The logarithm of strike over the slice's own forward is kept within four widths of ``sqrt(a + b sigma)``,
    the total variance below 144. Source: reference of the margin engines, section 1.0.
    """
    width = _MAX_LOG_WIDTHS * math.sqrt(max(0.0, slice_.a + slice_.b * slice_.sigma))
    k = min(width, max(-width, math.log(strike / slice_.forward)))
    off = k - slice_.m
    variance = slice_.a + slice_.b * (slice_.rho * off + math.sqrt(off * off + slice_.sigma * slice_.sigma))
    if not variance >= 0:
        return math.nan
    return math.sqrt(min(_MAX_VARIANCE, variance) / slice_.tau)


def option_volatility(position: Position, option: Option, expiry: Expiry) -> float:
    """Return the volatility of an option: its own, else of the surface, else of the expiry.

    Raises
    ------
    InputError
        If it is not above zero.
    UnpricedError
        If there is none, or it is no number.
    """
    what = f"volatility of {option.underlying} {option.strike:g}"
    if position.volatility is not None:
        value: float | None = position.volatility
    elif expiry.surface is not None:
        value = svi_volatility(expiry.surface, option.strike)
    else:
        value = expiry.volatility
    if value is None or not math.isfinite(value):
        raise UnpricedError(f"no {what}" if value is None else f"{what} is {value}")
    if value <= 0:
        raise InputError(f"{what} is {value}", fix="give one above zero")
    return value


def read_account(portfolio: Portfolio, market: Market, method: str) -> Account:
    """Return a portfolio as Derive keeps it.

    Parameters
    ----------
    portfolio, market
        As of `PortfolioMethod.margin`.
    method
        Id, for messages.

    Raises
    ------
    InputError
        For an instrument that Derive does not have, an expired option, a token that is owed, a strike or a
        volatility that is not above zero.
    UnpricedError
        For a price that is missing or no number.
    """
    spots: dict[str, float] = {}
    perpetuals: dict[str, list[Position]] = {}
    options: dict[str, list[Position]] = {}
    for position in portfolio.positions:
        held = position.instrument
        known(position.quantity, f"quantity of {held.type}")
        if isinstance(held, Spot):
            spots[held.asset] = spots.get(held.asset, 0.0) + position.quantity
        elif isinstance(held, Perpetual) and not held.inverse:
            perpetuals.setdefault(held.underlying, []).append(position)
        elif isinstance(held, Option) and not held.inverse:
            options.setdefault(held.underlying, []).append(position)
        else:
            kind = f"inverse {held.type}" if getattr(held, "inverse", False) else held.type
            raise InputError(
                f"{method} has no {kind}", fix="it knows spot, perpetual and option, none of them inverse"
            )
    for symbol, quantity in spots.items():
        if quantity < 0:
            raise InputError(f"{method} lends no {symbol}, got {quantity}", fix="owe cash instead")
    legs = {}
    for symbol in sorted({*perpetuals, *options}):
        feed = underlying_feed(market, symbol)
        held_perpetuals = [p for p in perpetuals.get(symbol, ()) if p.quantity]
        if held_perpetuals:
            usable(feed.perpetual_price, f"price of the perpetual of {symbol}")
            known(feed.perpetual_confidence, f"confidence of the perpetual of {symbol}")
        legs[symbol] = Legs(
            feed=feed,
            perpetual=math.fsum(p.quantity for p in held_perpetuals),
            perpetual_value=math.fsum(p.unrealised for p in held_perpetuals),
            options=_read_options(options.get(symbol, []), feed, market, method),
        )
    return Account(portfolio.cash, spots, legs)


def _read_options(positions: list[Position], feed: Underlying, market: Market, method: str) -> OptionBook:
    merged: dict[tuple[int, float, bool], tuple[float, float]] = {}
    for position in positions:
        option = position.instrument
        assert isinstance(option, Option)
        name = f"{option.underlying} {option.strike:g} {'call' if option.call else 'put'}"
        if not option.strike > 0:
            raise InputError(f"{name}: strike is not above zero", fix="give a strike in dollars")
        if market.seconds(option.expiry) < 0:
            raise InputError(
                f"{name} expired {-market.seconds(option.expiry)} s ago",
                fix="settle it, or set the time back",
            )
        expiry = feed.expiries.get(option.expiry)
        if expiry is None:
            raise UnpricedError(f"no forward of {option.underlying} for the expiry {option.expiry}")
        volatility = option_volatility(position, option, expiry)
        key = (option.expiry, option.strike, option.call)
        amount, other = merged.get(key, (0.0, volatility))
        if other != volatility:
            raise InputError(f"{name} has two volatilities, {other} and {volatility}", fix="state one")
        merged[key] = (amount + position.quantity, volatility)
    rows = [(*key, *merged[key]) for key in sorted(merged) if merged[key][0] != 0]
    times = tuple(sorted({row[0] for row in rows}))
    index = {expiry: i for i, expiry in enumerate(times)}
    feeds = [feed.expiries[expiry] for expiry in times]
    for time, one in zip(times, feeds, strict=True):
        usable(one.total, f"forward for the expiry {time}")
        for value in (one.rate, one.forward_confidence, one.rate_confidence, one.vol_confidence):
            known(value, f"rate or confidence for the expiry {time}")
    seconds = np.array([market.seconds(expiry) for expiry in times], np.float64)
    sure = [min(one.forward_confidence, one.vol_confidence) for one in feeds]
    return OptionBook(
        expiries=times,
        seconds=seconds,
        years=seconds / YEAR_S,
        variable=np.array([one.forward for one in feeds], np.float64),
        fixed=np.array([one.fixed for one in feeds], np.float64),
        rate=np.array([one.rate for one in feeds], np.float64),
        confidence=np.array(
            [min(least, one.rate_confidence) for least, one in zip(sure, feeds, strict=True)], np.float64
        ),
        forward_vol_confidence=np.array(sure, np.float64),
        at=np.array([index[row[0]] for row in rows], np.intp),
        strike=np.array([row[1] for row in rows], np.float64),
        volatility=np.array([row[4] for row in rows], np.float64),
        amount=np.array([row[3] for row in rows], np.float64),
        call=np.array([row[2] for row in rows], np.bool_),
        naked_shorts=naked_shorts({(row[0], row[1], row[2]): row[3] for row in rows}),
    )


def naked_shorts(amounts: Mapping[tuple[int, float, bool], float]) -> float:
    """Return the short options that no long one covers, units of the underlying.

    At one expiry and strike calls and puts are pooled: two shorts count both, a long one of either type
    covers a short one of either. Source: reference of the margin engines, section 1.1.

    Parameters
    ----------
    amounts
        Signed amount by expiry, strike and whether it is a call.
    """
    total = 0.0
    for expiry, strike in {(expiry, strike) for expiry, strike, _ in amounts}:
        pair = [amounts.get((expiry, strike, call), 0.0) for call in (True, False)]
        short = -math.fsum(amount for amount in pair if amount < 0)
        total += max(0.0, short - math.fsum(amount for amount in pair if amount > 0))
    return total


def one_underlying(account: Account, market: Market, chosen: str, method: str) -> str:
    """Return the underlying of a manager that has one.

    Parameters
    ----------
    account
        Whose derivatives must all be on it.
    market
        Names it where the account has none and nothing is chosen.
    chosen
        Symbol; empty to take it from the account.
    method
        Id, for messages.

    Raises
    ------
    InputError
        If the account has derivatives on another one, or it cannot be told.
    """
    others = [symbol for symbol in account.legs if symbol != chosen]
    if chosen:
        if others:
            raise InputError(
                f"{method} of {chosen} has no {others[0]}", fix="split the account by underlying"
            )
        return chosen
    if len(others) > 1:
        raise InputError(
            f"{method} has one underlying, got {', '.join(others)}", fix="split the account by underlying"
        )
    if others:
        return others[0]
    if len(market.underlyings) > 1:
        raise InputError(
            f"{method}: which underlying, of {', '.join(sorted(market.underlyings))}", fix="give `underlying`"
        )
    return next(iter(market.underlyings), "")


def no_legs(feed: Underlying, market: Market) -> Legs:
    """Return the legs of an account without derivatives."""
    return Legs(feed, 0.0, 0.0, _read_options([], feed, market, ""))


# ------------------------------------------------------------------------------------------------- the answer


def cash_only(
    portfolio: Portfolio, method: str, parameters: Parameters, scenarios: Sequence[Scenario]
) -> MarginResult:
    """Return the margin of an account that no price can move."""
    return MarginResult(
        account=portfolio.account,
        method=method,
        parameters_hash=parameters.hash,
        status=status_of(portfolio.cash, 0.0),
        equity=portfolio.cash,
        initial_requirement=0.0,
        maintenance_requirement=0.0,
        worst=BASIS,
        scenarios=tuple(ScenarioRow(scenario.label, 0.0) for scenario in scenarios),
        components={"option_mtm": 0.0, "collateral_mtm": 0.0, "perp_mtm": 0.0},
    )


def basis_contingency(book: OptionBook, shock: BasisShock, marks: Float64, discount: Float64) -> float:
    """Return the loss of the basis shock, at most 0, dollars: summed over expiries, which do not net.

    Parameters
    ----------
    book, shock
        What moves, how far.
    marks
        Of each expiry now.
    discount
        Of each expiry.
    """
    moves = np.array([shock.up, shock.down])
    values = book.values(moves, np.broadcast_to(book.volatility, (2, len(book.volatility))), discount)
    worst = np.minimum((values - marks).min(axis=0, initial=0.0), 0.0)
    return float(np.sum(worst * (shock.add_factor + shock.mult_factor * book.years)))


def answered(
    account: str, method: str, parameters: Parameters, compute: Callable[[], MarginResult]
) -> MarginResult:
    """Return what a method computes, unknown where a price is missing or a figure is no number."""
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            result = compute()
    except UnpricedError as missing:
        return MarginResult.unknown(account, method, parameters.hash, str(missing))
    return result.told
