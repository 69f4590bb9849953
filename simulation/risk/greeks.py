"""What an account gains by small moves, by underlying and expiry.

By the instrument's own forward (a token's by its price), which `simulation.pricing.greeks` holds as well.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import astuple, dataclass
from typing import Final

from simulation.margin.scenario_grid import (
    NEUTRAL,
    Legs,
    Scenario,
    VolRule,
    VolShock,
    legs_of,
    scenario_set,
    value_under,
)
from simulation.portfolio.instruments import Barrier, Future, Option, Perpetual, Portfolio, Spot
from simulation.portfolio.market import YEAR_S, Market
from simulation.pricing.greeks import black76_greeks

_PRICE_STEP: Final = 1e-4
_VOL_STEP: Final = 1e-4
_DAY_S: Final = 86_400


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """First and second derivatives of a value in dollars.

    Attributes
    ----------
    delta
        Units of the underlying: dollars per dollar of price.
    gamma
        Delta per dollar of price.
    vega
        Dollars per 1.00 of volatility.
    theta
        Dollars per year that passes.
    rho
        Dollars per 1.00 of rate, forwards held.
    """

    delta: float = 0.0
    gamma: float = 0.0
    vega: float = 0.0
    theta: float = 0.0
    rho: float = 0.0

    def __add__(self, other: Sensitivity) -> Sensitivity:
        return Sensitivity(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))


@dataclass(frozen=True, slots=True)
class GreekRow:
    """Greeks of what an account holds in one underlying and expiry.

    Attributes
    ----------
    underlying
        Symbol.
    expiry
        Unix seconds; None for what does not expire.
    greeks
        Their sum.
    """

    underlying: str
    expiry: int | None
    greeks: Sensitivity


def greeks_by_position(portfolio: Portfolio, market: Market) -> tuple[Sensitivity, ...]:
    """Return the Greeks of each position.

    A token, linear perpetual or future has its quantity as delta. An inverse one is a value in coin: its
    delta is that of its dollars, unpaid profit included, and an inverse option's that of the option. The
    Greeks of barriers are differences of prices.

    Parameters
    ----------
    portfolio, market
        What is held, and the state to differentiate at.

    Raises
    ------
    PriceMissing, InputError
        As `simulation.margin.scenario_grid.value_under`.
    """
    legs = legs_of(portfolio, market)
    return tuple(_greeks(portfolio, market, legs, i) for i in range(len(portfolio.positions)))


def greeks_by(portfolio: Portfolio, market: Market) -> tuple[GreekRow, ...]:
    """Return the Greeks by underlying and expiry: what does not expire first, then in order of time.

    Raises
    ------
    PriceMissing, InputError
        As `greeks_by_position`.
    """
    found: dict[tuple[str, int | None], Sensitivity] = {}
    for position, greeks in zip(portfolio.positions, greeks_by_position(portfolio, market), strict=True):
        key = position.instrument.underlying, getattr(position.instrument, "expiry", None)
        found[key] = found.get(key, Sensitivity()) + greeks
    ordered = sorted(found, key=lambda key: (key[0], -1 if key[1] is None else key[1]))
    return tuple(GreekRow(symbol, expiry, found[symbol, expiry]) for symbol, expiry in ordered)


def total(greeks: Iterable[Sensitivity]) -> Sensitivity:
    """Return the sum of Greeks; of deltas only where they are of one underlying."""
    return sum(greeks, start=Sensitivity())


def _greeks(portfolio: Portfolio, market: Market, legs: Legs, i: int) -> Sensitivity:
    position, quantity = portfolio.positions[i], float(legs.quantity[i])
    instrument = position.instrument
    spot, moving, fixed = (float(column[i]) for column in (legs.spot, legs.moving, legs.fixed))
    forward = moving + fixed
    if isinstance(instrument, Spot):
        return Sensitivity(delta=quantity)
    if isinstance(instrument, Perpetual | Future):
        if not instrument.inverse:
            return Sensitivity(delta=quantity)
        # Dollars are m * (unpaid + spot * q / F0 * moving * (m - 1) / (moving * m + fixed)) at a move m.
        share = moving / forward
        slope = position.unrealised / spot + quantity / forward * share
        return Sensitivity(delta=slope, gamma=2 * quantity / forward * share * (1 - share) / spot)
    if isinstance(instrument, Option):
        rate = 0.0 if instrument.inverse else float(legs.rate[i])
        years = int(legs.seconds[i]) / YEAR_S
        found = black76_greeks(
            forward, instrument.strike, float(legs.volatility[i]), years, rate, instrument.call
        )
        # A coin's premium is paid at the index, which moves with the forward.
        units = quantity * (spot / forward if instrument.inverse else 1.0)
        return Sensitivity(
            units * found.delta, units * found.gamma, units * found.vega, units * found.theta,
            0.0 if instrument.inverse else units * found.rho,
        )  # fmt: skip
    return _by_differences(portfolio, market, i, forward, legs)


def _by_differences(portfolio: Portfolio, market: Market, i: int, forward: float, legs: Legs) -> Sensitivity:
    """Return a barrier's Greeks from differences of its price; theta by one day."""
    one = Portfolio(positions=(portfolio.positions[i],))
    if not isinstance(one.positions[0].instrument, Barrier):
        raise TypeError(f"{type(one.positions[0].instrument)} has Greeks in closed form")
    step = _PRICE_STEP

    def bent(size: float) -> VolShock:
        return VolShock(rule=VolRule.ADDITIVE, size=size)

    day = min(_DAY_S, int(legs.seconds[i]))
    bumps = scenario_set(
        (
            Scenario(label="up", every=1 + step),
            Scenario(label="down", every=1 - step),
            Scenario(label="vol up", volatility=bent(_VOL_STEP)),
            Scenario(label="vol down", volatility=bent(-_VOL_STEP)),
            Scenario(label="later", seconds=day),
        ),
        steady=(),
    )
    up, down, more, less, later = (float(v) for v in value_under(one, market, bumps)[:, 0])
    now = float(value_under(one, market, NEUTRAL)[0, 0])
    width = forward * step
    return Sensitivity(
        delta=(up - down) / (2 * width),
        gamma=(up - 2 * now + down) / width**2,
        vega=(more - less) / (2 * _VOL_STEP),
        theta=(later - now) * YEAR_S / day,
        rho=-float(legs.seconds[i]) / YEAR_S * now,
    )
