"""The cheapest hedge, a collar, and the trade back into a band: linear programmes, solved by HiGHS.

A hedge is chosen by a linear model of the method's own risk array; what it does is then asked of the method
itself, and the model is made anew until the method agrees. What is returned has been checked, never assumed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.optimize import linprog

from contracts_abi.errors import InputError
from simulation.margin.result import MarginResult, PortfolioMethod
from simulation.margin.scenario_grid import (
    NEUTRAL,
    Scenario,
    legs_of,
    profit_under,
    scenario_set,
    value_under,
)
from simulation.portfolio.instruments import Instrument, Option, Portfolio, Position
from simulation.portfolio.market import Market
from simulation.risk.attribution import Which
from simulation.risk.greeks import greeks_by_position
from simulation.risk.moves import known_margin
from simulation.risk.whatif import Order, with_orders
from simulation.types import Float64

ROUNDS: Final = 40
_STEP: Final = 1e-5
_TRUST: Final = 8.0
_LEAST_TRUST: Final = 1e-4
_NOTHING: Final = -1.0 + 1e-9
"""A fall to next to nothing: a price of 0 is none."""
_LEAST: Final = 1e-9
"""Share of a trade's bound, or of the account's size, below which a trade is none."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """Something that a hedge may be made of.

    Attributes
    ----------
    instrument, volatility
        What, and an option's volatility where it is not the market's.
    buy, sell
        Cost of one unit, dollars above or below the mark, fees included; 0 or more.
    most_bought, most_sold
        Units at most.
    """

    instrument: Instrument
    volatility: float | None = None
    buy: float = 0.0
    sell: float = 0.0
    most_bought: float = math.inf
    most_sold: float = math.inf

    def __post_init__(self) -> None:
        for name in ("buy", "sell", "most_bought", "most_sold"):
            if not getattr(self, name) >= 0:
                raise InputError(f"a candidate with {name} = {getattr(self, name)}", fix="give 0 or more")

    def units(self, quantity: float) -> Position:
        """Return so many units as a position."""
        return Position(instrument=self.instrument, quantity=quantity, volatility=self.volatility)

    def order(self, quantity: float) -> Order:
        """Return the order for so many units at the mark, its cost as fee."""
        cost = self.buy if quantity > 0 else self.sell
        return Order(self.units(quantity), fee=cost * abs(quantity))


@dataclass(frozen=True, slots=True)
class Hedge:
    """Trades that do what was asked, at the least cost.

    Attributes
    ----------
    found
        Whether there are such trades; else nothing is traded.
    quantities
        Units of each candidate, in their order.
    cost
        Dollars above and below the marks; of a collar the premium too.
    after
        The account with the trades.
    result
        Its margin by the method; None where no method was asked.
    reason
        Why nothing was found, one line.
    """

    found: bool
    quantities: tuple[float, ...]
    cost: float
    after: Portfolio
    result: MarginResult | None = None
    reason: str = ""


def hedge(
    method: PortfolioMethod,
    portfolio: Portfolio,
    market: Market,
    candidates: Sequence[Candidate],
    *,
    target: float = 0.0,
    which: Which = Which.MAINTENANCE,
) -> Hedge:
    """Return the cheapest trades that bring the margin to a target.

    Minimises cost subject to ``equity - cost - requirement >= target`` with the requirement as ``share`` of
    the worst row of the method's risk array and a rest, both linear around some trades: at first none. The
    method then margins the account with the programme's trades. While they help, the model is made anew
    around them; where they do not, it is believed less far. For a method that is the worst row (``cross``)
    the first solution is the optimum; for others it is the cheapest that was found and that the method itself
    accepts. Where none is found from there, the search begins once more with what closes the account.

    Parameters
    ----------
    method, portfolio, market
        Whose margin.
    candidates
        What may be traded.
    target
        Dollars of equity less requirement.
    which
        Which requirement.

    Raises
    ------
    InputError
        If there is no candidate, or a margin is refused or unknown.
    """
    if not candidates:
        raise InputError("a hedge of nothing", fix="give candidates")
    model = _Model(method, portfolio, market, tuple(candidates), which)
    now = known_margin(method, portfolio, market)
    none = (0.0,) * len(candidates)
    if which.left(now) >= target:
        return Hedge(True, none, 0.0, portfolio, now)
    for start in (np.zeros(len(candidates)), _closing(portfolio, candidates)):
        found = _searched(model, start, target, which, abs(which.left(now)) + abs(target))
        if found is not None:
            return found
    reason = "no trades in these instruments were found that restore the margin"
    return Hedge(False, none, 0.0, portfolio, now, reason)


def _closing(portfolio: Portfolio, candidates: Sequence[Candidate]) -> Float64:
    """Return the trades that close what is held of the candidates, as far as they are bounded."""
    held: dict[object, float] = {}
    for position in portfolio.positions:
        key = (position.instrument, position.volatility)
        held[key] = held.get(key, 0.0) + position.quantity
    wanted = [-held.get((c.instrument, c.volatility), 0.0) for c in candidates]
    return np.array(
        [max(-c.most_sold, min(c.most_bought, q)) for c, q in zip(candidates, wanted, strict=True)]
    )


def _searched(model: _Model, start: Float64, target: float, which: Which, scale: float) -> Hedge | None:
    """Return the cheapest trades that were found from a start on; None where none were."""

    def hedge_of(traded: Float64) -> tuple[Hedge, float]:
        quantities = tuple(float(q) for q in traded)
        after, result = model.asked(quantities)
        return Hedge(True, quantities, model.cost(quantities), after, result), which.left(result)

    first, left = hedge_of(start)
    best = first if left >= target else None
    at, trust, buffer = start, _TRUST, _LEAST * scale
    for _ in range(ROUNDS):
        tried = model.solve(at, target + buffer, trust) if trust >= _LEAST_TRUST else None
        if tried is None:
            break
        found, reached = hedge_of(tried)
        if reached >= target and (best is None or found.cost < best.cost - _LEAST * scale):
            best, at, left = found, tried, reached
        elif best is not None and reached >= target:
            break
        elif best is None and reached > left + _LEAST * scale:
            at, left = tried, reached
        elif target - reached < 1e-6 * scale:
            # Rounding alone: the model is right, and asks for a little more.
            buffer *= 4
        else:
            trust /= 4
    return best


class _Model:
    """The margin as a linear function of what is bought and sold, around some trades."""

    def __init__(
        self,
        method: PortfolioMethod,
        portfolio: Portfolio,
        market: Market,
        candidates: tuple[Candidate, ...],
        which: Which,
    ) -> None:
        self._method, self._portfolio, self._market = method, portfolio, market
        self._candidates, self._which = candidates, which
        parameters = method.parameters
        share = getattr(parameters, "maintenance_share", getattr(parameters, "mm_factor", 1.0))
        self._share = float(share) if which is Which.MAINTENANCE else 1.0
        self._sizes = np.array(_sizes(portfolio, market, candidates))
        self._costs = np.array([c.buy for c in candidates] + [c.sell for c in candidates])
        self._bounds = [(0, _bound(c.most_bought)) for c in candidates] + [
            (0, _bound(c.most_sold)) for c in candidates
        ]

    def _split(self, quantities: Float64) -> tuple[Float64, float]:
        """Return the risk array with free trades, and what else is required, less the equity."""
        orders = [Order(c.units(float(q))) for c, q in zip(self._candidates, quantities, strict=True) if q]
        free = with_orders(self._portfolio, self._market, orders)
        result = known_margin(self._method, free, self._market)
        rows = np.array([row.profit for row in result.scenarios]) if result.scenarios else np.zeros(1)
        return rows, -self._which.left(result) - self._share * max(0.0, -float(rows.min()))

    def _slopes(self, at: Float64, rows: Float64, rest: float) -> tuple[Float64, Float64]:
        """Return what a unit more, then a unit less, of each candidate does to array and rest."""
        steps, rests = [], []
        for sign in (1.0, -1.0):
            for j, size in enumerate(self._sizes * _STEP):
                moved = at.copy()
                moved[j] += sign * size
                then, left = self._split(moved)
                steps.append((then - rows) / size if then.shape == rows.shape else np.zeros_like(rows))
                rests.append((left - rest) / size)
        both, several = np.stack(steps, axis=1), len(self._sizes)
        bent = np.array(rests)
        # Where a unit more and one less together gain, the programme would trade both: a line is put there.
        for j in range(several):
            up, down = both[:, j].copy(), both[:, several + j].copy()
            mean = np.where(up + down > 0, (up - down) / 2, up)
            both[:, j], both[:, several + j] = mean, np.where(up + down > 0, -mean, down)
            if bent[j] + bent[several + j] < 0:
                bent[j] = (bent[j] - bent[several + j]) / 2
                bent[several + j] = -bent[j]
        return both, bent

    def solve(self, at: Float64, target: float, trust: float) -> Float64 | None:
        """Return the cheapest trades by the model around some trades; those nearest to the target if none do.

        Parameters
        ----------
        at
            Net quantities that the model is made around.
        target
            Dollars of equity less requirement.
        trust
            How far it is believed, in sizes of the account.
        """
        rows, rest = self._split(at)
        slopes, rests = self._slopes(at, rows, rest)
        several = len(self._sizes)
        # Unknown: bought and sold in all, more and less than now, the worst loss, what is missing.
        columns = 4 * several + 2
        above = np.zeros((1 + len(rows), columns))
        above[0, : 2 * several], above[0, 2 * several : -2] = self._costs, rests
        above[0, -2:] = self._share, -1.0
        above[1:, 2 * several : -2], above[1:, -2] = -slopes, -1.0
        net = np.eye(several)
        equal = np.concatenate([net, -net, -net, net, np.zeros((several, 2))], axis=1)
        reach = [(0.0, float(size) * trust) for size in self._sizes]
        costs = np.concatenate([_priced(self._costs), np.zeros(2 * several + 2)])
        nearest = costs * _LEAST
        nearest[-1] = 1.0
        for weights, missing in ((costs, 0.0), (nearest, None)):
            found = linprog(
                weights,
                A_ub=above,
                b_ub=np.concatenate([[-rest - target], rows]),
                A_eq=equal,
                b_eq=at,
                bounds=[*self._bounds, *reach, *reach, (0, None), (0, missing)],
                method="highs",
            )
            if found.x is not None:
                traded = np.asarray(found.x[:several] - found.x[several : 2 * several])
                # What rounding left is no trade.
                return np.where(np.abs(traded) < _LEAST * self._sizes, 0.0, traded)
        return None

    def asked(self, quantities: Sequence[float]) -> tuple[Portfolio, MarginResult]:
        """Return the account with the trades and their costs, and its margin by the method."""
        orders = [c.order(q) for c, q in zip(self._candidates, quantities, strict=True) if q]
        after = with_orders(self._portfolio, self._market, orders)
        return after, known_margin(self._method, after, self._market)

    def cost(self, quantities: Sequence[float]) -> float:
        """Return what the trades cost, dollars."""
        return sum(c.order(q).fee for c, q in zip(self._candidates, quantities, strict=True))


def _priced(costs: Float64) -> Float64:
    """Return what a programme weighs trades by: their costs, their sizes where all are free."""
    return costs if costs.any() else np.ones_like(costs)


def _bound(units: float) -> float | None:
    return None if math.isinf(units) else units


def _sizes(portfolio: Portfolio, market: Market, candidates: Sequence[Candidate]) -> list[float]:
    """Return the units of each candidate that are as large as the account, dollars by dollars."""
    legs = legs_of(portfolio, market)
    gross = float(np.abs(legs.quantity * np.where(legs.inverse, 1.0, legs.spot)).sum()) or 1.0
    units = legs_of(Portfolio(positions=tuple(c.units(1.0) for c in candidates)), market)
    return [float(size) for size in gross / units.spot]


# ---------------------------------------------------------------------------------------------------- collar


def collar(
    portfolio: Portfolio,
    market: Market,
    puts: Sequence[Candidate],
    calls: Sequence[Candidate],
    *,
    max_loss: float,
    units: float,
    moves: Sequence[float] | None = None,
) -> Hedge:
    """Return the cheapest puts to buy and calls to sell that bound the loss at their expiry.

    Minimises premium paid less premium received, with costs, subject to ``profit - cost >= -max_loss`` at
    every price; profits are those at the expiry, and an option's is what it pays less its premium. Between
    strikes they are straight lines, so the strikes and the ends are enough.

    Parameters
    ----------
    portfolio, market
        What is protected.
    puts, calls
        Options of one underlying and expiry: what is bought, and what is sold.
    max_loss
        Dollars from the marks now.
    units
        At most so many puts and so many calls: what is held of the underlying.
    moves
        Relative prices to hold at, besides the strikes; from next to nothing to +300 % without it.

    Raises
    ------
    InputError
        If options are of several underlyings or expiries, no puts or calls, or cannot be priced.
    """
    options = [*puts, *calls]
    expiry, symbol = _one_expiry(puts, calls)
    for name, value in (("max_loss", max_loss), ("units", units)):
        if not (math.isfinite(value) and value >= 0):
            raise InputError(f"a collar with {name} = {value}", fix="give 0 or more")
    unit = Portfolio(positions=tuple(c.units(1.0) for c in options))
    forward = market.underlyings[symbol].expiries[expiry]
    strikes = [c.instrument.strike for c in options if isinstance(c.instrument, Option)]
    base = (_NOTHING, -0.5, 0.0, 1.0, 3.0) if moves is None else tuple(moves)
    factors = sorted({1.0 + m for m in base} | {(k - forward.fixed) / forward.forward for k in strikes})
    scenarios = scenario_set(
        Scenario(
            label=f"x{factor:.17g}", every=None, prices=_together(portfolio, symbol, factor),
            seconds=market.seconds(expiry),
        )
        for factor in factors
        if factor > 0
    )  # fmt: skip
    held = profit_under(portfolio, market, scenarios).sum(axis=1)
    # At its expiry an option is worth what it pays.
    gains = profit_under(unit, market, scenarios)
    side = np.array([1.0] * len(puts) + [-1.0] * len(calls))
    costs = np.array([c.buy for c in puts] + [c.sell for c in calls])
    premium = value_under(unit, market, NEUTRAL)[0]
    several = np.array([[1.0] * len(puts) + [0.0] * len(calls), [0.0] * len(puts) + [1.0] * len(calls)])
    found = linprog(
        premium * side + costs,
        A_ub=np.concatenate([costs[None, :] - gains * side, several]),
        b_ub=np.concatenate([held + max_loss, [units, units]]),
        bounds=[(0, _bound(c.most_bought if i < len(puts) else c.most_sold)) for i, c in enumerate(options)],
        method="highs",
    )
    if found.x is None or found.fun is None:
        reason = f"no collar of {units:g} units keeps the loss within {max_loss:,.0f} dollars"
        return Hedge(False, (0.0,) * len(options), 0.0, portfolio, None, reason)
    quantities = tuple(float(q) for q in found.x * side)
    orders = [c.order(q) for c, q in zip(options, quantities, strict=True) if q]
    return Hedge(True, quantities, float(found.fun), with_orders(portfolio, market, orders))


def _together(portfolio: Portfolio, symbol: str, factor: float) -> dict[str, float]:
    """Return the moves in which one symbol moves and nothing else does."""
    others = {position.instrument.underlying for position in portfolio.positions}
    return dict.fromkeys(others, 1.0) | {symbol: factor}


def _one_expiry(puts: Sequence[Candidate], calls: Sequence[Candidate]) -> tuple[int, str]:
    kinds = set()
    for side, wanted in ((puts, False), (calls, True)):
        for candidate in side:
            option = candidate.instrument
            if not isinstance(option, Option) or option.call is not wanted or option.inverse:
                what = "call" if wanted else "put"
                raise InputError(f"a {option.type} stands among the {what}s", fix="give dollar options")
            kinds.add((option.expiry, option.underlying))
    if len(kinds) != 1:
        raise InputError(
            f"a collar of {len(kinds)} expiries", fix="give options of one underlying and expiry"
        )
    return kinds.pop()


# ----------------------------------------------------------------------------------------------- rebalancing


@dataclass(frozen=True, slots=True)
class Band:
    """What a Greek of an account may be.

    Attributes
    ----------
    low, high
        Units of the underlying of delta, dollars per 1.00 of volatility of vega.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        if not self.low <= self.high:
            raise InputError(f"a band from {self.low} to {self.high}", fix="exchange them")


@dataclass(frozen=True, slots=True)
class Rebalancing:
    """Trades back into a band.

    Attributes
    ----------
    found, quantities, cost, after, reason
        As of `Hedge`.
    delta, vega
        Of the account in the underlying, before and after.
    """

    found: bool
    quantities: tuple[float, ...]
    cost: float
    after: Portfolio
    delta: tuple[float, float]
    vega: tuple[float, float]
    reason: str = ""


def rebalance(
    portfolio: Portfolio,
    market: Market,
    symbol: str,
    candidates: Sequence[Candidate],
    *,
    delta: Band | None = None,
    vega: Band | None = None,
) -> Rebalancing:
    """Return the cheapest trades that bring an underlying's delta, vega or both into bands.

    Where nothing costs anything, the smallest trades are taken.

    Parameters
    ----------
    portfolio, market
        What is held.
    symbol
        Whose Greeks.
    candidates
        What may be traded, all of this underlying.
    delta, vega
        The bands; one at least.

    Raises
    ------
    InputError
        If there is no band, or a candidate of another underlying.
    """
    bands = [(name, band) for name, band in (("delta", delta), ("vega", vega)) if band is not None]
    if not bands:
        raise InputError("a rebalancing without a band", fix="give delta, vega or both")
    for candidate in candidates:
        if candidate.instrument.underlying != symbol:
            raise InputError(
                f"{candidate.instrument.underlying} moves no Greek of {symbol}", fix="leave it out"
            )
    now = _greeks(portfolio, market, symbol)
    units = greeks_by_position(Portfolio(positions=tuple(c.units(1.0) for c in candidates)), market)
    upper, limits = [], []
    for name, band in bands:
        slope = np.array([getattr(unit, name) for unit in units])
        both = np.concatenate([slope, -slope])
        upper += [both, -both]
        limits += [band.high - now[name], now[name] - band.low]
    costs = np.array([c.buy for c in candidates] + [c.sell for c in candidates])
    found = linprog(
        _priced(costs),
        A_ub=np.array(upper),
        b_ub=np.array(limits),
        bounds=[(0, _bound(c.most_bought)) for c in candidates]
        + [(0, _bound(c.most_sold)) for c in candidates],
        method="highs",
    )
    none = (0.0,) * len(candidates)
    if found.x is None:
        both_ways = (now["delta"], now["delta"]), (now["vega"], now["vega"])
        return Rebalancing(False, none, 0.0, portfolio, *both_ways, "no trades reach the band")
    half = len(candidates)
    quantities = tuple(float(q) for q in found.x[:half] - found.x[half:])
    orders = [c.order(q) for c, q in zip(candidates, quantities, strict=True) if q]
    after = with_orders(portfolio, market, orders)
    then = _greeks(after, market, symbol)
    return Rebalancing(
        True,
        quantities,
        sum(order.fee for order in orders),
        after,
        (now["delta"], then["delta"]),
        (now["vega"], then["vega"]),
    )


def _greeks(portfolio: Portfolio, market: Market, symbol: str) -> dict[str, float]:
    mine = tuple(p for p in portfolio.positions if p.instrument.underlying == symbol)
    found = greeks_by_position(portfolio.model_copy(update={"positions": mine}), market)
    return {name: math.fsum(getattr(g, name) for g in found) for name in ("delta", "vega")}
