"""Add-ons to a margin for what scenarios leave out: size, correlations, gaps, collateral that falls too.

Each is a number of dollars on top of both requirements, made by a rule that stands in its docstring; none is
a venue's. `with_add_ons` puts them onto a result.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from contracts_abi.errors import InputError
from simulation.margin.result import MarginResult, status_of
from simulation.margin.scenario_grid import (
    STEADY,
    Scenario,
    VolRule,
    VolShock,
    legs_of,
    part,
    profit_under,
    scenario_set,
    underlying_of,
    underlyings_of,
    worst_loss,
)
from simulation.portfolio.instruments import Portfolio, Spot
from simulation.portfolio.market import Market
from simulation.risk.greeks import greeks_by
from simulation.types import MarginStatus

GAPS: Final = (-0.5, -0.3, 0.3, 0.5)
"""Jumps of a price that nobody can trade in."""


@dataclass(frozen=True, slots=True)
class AddOn:
    """A charge on top of a margin.

    Attributes
    ----------
    name
        Key among the result's components.
    amount
        Dollars, 0 or more.
    reason
        What it is for, one line.
    """

    name: str
    amount: float
    reason: str


def with_add_ons(result: MarginResult, add_ons: Iterable[AddOn]) -> MarginResult:
    """Return a result whose requirements have the add-ons on top; an unknown one stays unknown.

    Raises
    ------
    InputError
        If an add-on is negative, no number, or of a name that the result has already.
    """
    chosen = tuple(add_ons)
    components = dict(result.components)
    for add_on in chosen:
        if not (math.isfinite(add_on.amount) and add_on.amount >= 0):
            raise InputError(f"the add-on {add_on.name} is {add_on.amount}", fix="give 0 or more dollars")
        if add_on.name in components:
            raise InputError(f"{result.method} has a component {add_on.name} already", fix="rename one")
        components[add_on.name] = add_on.amount
    if result.status is MarginStatus.UNKNOWN:
        return result
    more = math.fsum(add_on.amount for add_on in chosen)
    maintenance = result.maintenance_requirement + more
    return replace(
        result,
        status=status_of(result.equity - maintenance, maintenance),
        initial_requirement=result.initial_requirement + more,
        maintenance_requirement=maintenance,
        components=components,
    ).told


def liquidity(
    portfolio: Portfolio,
    market: Market,
    daily_volume: Mapping[str, float],
    *,
    impact: float = 0.1,
    free_share: float = 0.0,
) -> AddOn:
    """Return what closing a concentrated position costs.

    ``impact * |delta dollars| * sqrt(|delta dollars| / daily volume)`` by underlying, of what exceeds
    `free_share` of the volume: the square-root law, in which twice the position costs 2.8 times as much.

    Parameters
    ----------
    portfolio, market
        What is held.
    daily_volume
        Symbol to dollars that trade in a day.
    impact
        Relative move of the price by trading a whole day's volume.
    free_share
        Share of the volume that is closed without a charge.

    Raises
    ------
    InputError
        If a volume is missing or not above 0.
    PriceMissing
        If something cannot be priced.
    """
    if not (impact >= 0 and free_share >= 0):
        raise InputError(f"impact {impact} and free_share {free_share}", fix="give 0 or more")
    dollars: dict[str, float] = {}
    for row in greeks_by(portfolio, market):
        if row.underlying not in STEADY:
            dollars[row.underlying] = dollars.get(row.underlying, 0.0) + row.greeks.delta
    prices = _prices(portfolio, market)
    charge = 0.0
    for symbol, delta in dollars.items():
        volume = daily_volume.get(symbol)
        if volume is None or not volume > 0:
            raise InputError(f"no daily volume of {symbol}", fix="give one above 0, dollars")
        above = max(0.0, abs(delta) * prices[symbol] - free_share * volume)
        charge += impact * above * math.sqrt(above / volume)
    return AddOn("liquidity", charge, "closing the delta moves the price by the square root of its size")


def correlations_to_one(
    portfolio: Portfolio,
    market: Market,
    requirement: float,
    *,
    move: float = 0.16,
    volatility_up: float = 0.5,
) -> AddOn:
    """Return what is missing when all prices fall, or rise, together and no hedge between them works.

    By underlying the worst loss over moves of one sign up to `move`, volatilities same and up; summed over
    underlyings without the gains of any; the larger of both signs, less the requirement.

    Parameters
    ----------
    portfolio, market
        What is held.
    requirement
        Dollars that are asked for already.
    move
        Largest relative move.
    volatility_up
        Relative shock of a 30-day volatility.

    Raises
    ------
    PriceMissing, InputError
        As `simulation.margin.scenario_grid.value_under`.
    """
    if not 0 < move < 1:
        raise InputError(f"a move of {move}", fix="give a share between 0 and 1")
    up = VolShock(rule=VolRule.TERM, size=volatility_up)
    losses = {}
    for sign in (-1, 1):
        scenarios = scenario_set(
            Scenario(label=f"{sign * size:+.3f} {name}", every=1 + sign * size, volatility=shock)
            for size in np.linspace(0, move, 5).tolist()
            for name, shock in (("same", VolShock()), ("up", up))
        )
        losses[sign] = math.fsum(
            worst_loss(profit_under(_of(portfolio, symbol), market, scenarios).sum(axis=1))
            for symbol in underlyings_of(portfolio)
        )
    return AddOn(
        "correlations_to_one",
        max(0.0, max(losses.values()) - requirement),
        f"all prices {'fall' if losses[-1] >= losses[1] else 'rise'} together, gains of one pay for no other",
    )


def gap(portfolio: Portfolio, market: Market, requirement: float, *, jumps: Iterable[float] = GAPS) -> AddOn:
    """Return what is missing after a jump of one price that nobody can trade in.

    The largest loss of the account over jumps of each underlying alone and of all together, volatilities as
    they are, less the requirement.

    Parameters
    ----------
    portfolio, market
        What is held.
    requirement
        Dollars that are asked for already.
    jumps
        Relative.

    Raises
    ------
    PriceMissing, InputError
        As `simulation.margin.scenario_grid.value_under`.
    """
    sizes = tuple(jumps)
    symbols = underlyings_of(portfolio)
    every = [{symbol: 1 + size for symbol in symbols if symbol not in STEADY} for size in sizes]
    each = [{s: 1 + size if s == symbol else 1.0 for s in symbols} for symbol in symbols for size in sizes]
    moves = [prices for prices in (*every, *each) if prices]
    if not moves:
        return AddOn("gap", 0.0, "nothing that jumps")
    for prices in moves:
        if min(prices.values()) <= 0:
            raise InputError("a jump that leaves no price", fix="give jumps above -1")
    scenarios = scenario_set(
        Scenario(label=f"jump {i}", prices=dict.fromkeys(symbols, 1.0) | prices)
        for i, prices in enumerate(moves)
    )
    loss = worst_loss(profit_under(portfolio, market, scenarios).sum(axis=1))
    return AddOn("gap", max(0.0, loss - requirement), f"a jump of up to {max(map(abs, sizes)):.0%} at once")


def wrong_way(
    portfolio: Portfolio, market: Market, beta: Mapping[str, float], *, shock: float = 0.3
) -> AddOn:
    """Return what collateral loses in the same fall that hurts the derivatives.

    Of the underlying and direction in which the derivatives lose most under a move of `shock`: the value of
    each token held times its beta to that underlying's move, where it falls; nothing where derivatives gain
    or lose nothing.

    Parameters
    ----------
    portfolio, market
        What is held.
    beta
        Token to its move per move of the underlying; 1 for an underlying's own token, 0 where not named.
    shock
        Relative move of the underlying.

    Raises
    ------
    PriceMissing, InputError
        As `simulation.margin.scenario_grid.value_under`.
    """
    if not 0 < shock < 1:
        raise InputError(f"a shock of {shock}", fix="give a share between 0 and 1")
    tokens = part(portfolio, lambda p: isinstance(p.instrument, Spot) and p.quantity > 0)
    rest = part(portfolio, lambda p: not isinstance(p.instrument, Spot))
    worst, where, sign = 0.0, "", 0
    for symbol in underlyings_of(rest):
        others = dict.fromkeys(underlyings_of(rest), 1.0)
        scenarios = scenario_set(
            Scenario(label=f"{s:+d}", prices=others | {symbol: 1 + s * shock}) for s in (-1, 1)
        )
        profits = profit_under(rest, market, scenarios).sum(axis=1)
        at = int(np.argmin(profits))
        if float(profits[at]) < worst:
            worst, where, sign = float(profits[at]), symbol, (-1, 1)[at]
    legs = legs_of(tokens, market)
    lost = math.fsum(
        float(legs.quantity[i] * legs.spot[i])
        * max(0.0, min(1.0, -sign * shock * beta.get(token, float(token == where))))
        for i, token in enumerate(underlying_of(p) for p in tokens.positions)
    )
    moved = f"{where} {'falls' if sign < 0 else 'rises'}" if where else "nothing moves"
    return AddOn("wrong_way", lost, f"collateral loses when {moved}, which the derivatives lose by")


def _of(portfolio: Portfolio, symbol: str) -> Portfolio:
    return part(portfolio, lambda position: underlying_of(position) == symbol)


def _prices(portfolio: Portfolio, market: Market) -> dict[str, float]:
    legs = legs_of(portfolio, market)
    return {legs.symbols[int(s)]: float(legs.spot[i]) for i, s in enumerate(legs.symbol)}
