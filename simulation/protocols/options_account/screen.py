"""Margins of one options account at many prices at once, and how near to an edge the method itself must say.

A margin method looks at one account at one price in about a millisecond. Along the paths of a simulation an
account holds the same contracts everywhere, only prices, cash and amounts differ, and nearly everywhere it
has its margin: that much a compiled kernel says in microseconds, for the managers of Derive. It is a screen:
what it finds within its `doubt` of zero, or below, is left to the method.

The market is the one of the contagion engine: forwards at spot, sure feeds, no rates, a settlement currency
at one dollar, and each option with a volatility of its own. Formulas: reference of the margin engines,
sections 1.1 to 1.3, as in `simulation.margin.derive_pmrm2`, `derive_pmrm` and `derive_srm`, which are the
twins that tests compare with.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np

from simulation.margin.derive_auction import DeriveAuction
from simulation.margin.derive_common import Direction
from simulation.margin.derive_pmrm import DerivePmrm, PmrmParameters
from simulation.margin.derive_pmrm2 import DerivePmrm2, DerivePmrm21, Pmrm2Parameters
from simulation.margin.derive_srm import DeriveSrm, SrmParameters
from simulation.margin.result import PortfolioMethod
from simulation.portfolio.instruments import Option, Portfolio, Position
from simulation.portfolio.market import YEAR_S
from simulation.pricing.black76 import black76_scalar, compiled
from simulation.types import Bool, Float64, Int64

ManagerParameters: TypeAlias = Pmrm2Parameters | PmrmParameters | SrmParameters

DOUBT: Final = 1e-6
"""Share of the sizes that are added up within which the screen does not decide.

Rounding moves a figure by some 1e-13 of them. With the worst parameters that `_ordinary` lets pass, a skew of
100 over a width of 0.01, the bound of `derive_exact.float_error` is 1e-7 of them; integers decide within 1e-9
of the notional only, or within that bound.
"""

_LARGEST: Final = 100.0
_LEAST_SHOCK: Final = 1e-3
_LEAST_K_STAR: Final = 1e-2
_LEAST_CAP: Final = 1e-9
_MOST_YEARS: Final = 100.0
_MOST_EXPONENT: Final = 20.0
_PRICES: Final = 1e-6, 1e12
_CODES: Final = {d: code for code, d in enumerate(Direction)}
_UP, _NONE, _DOWN, _LINEAR = (
    _CODES[d] for d in (Direction.UP, Direction.NONE, Direction.DOWN, Direction.LINEAR)
)


@dataclass(frozen=True, slots=True)
class Contracts:
    """The options of one account: each contract once, sorted by expiry, underlying, strike and type.

    Attributes
    ----------
    symbols
        Underlyings, in order of first use.
    row
        int64, contract of each position, shape (positions,).
    expiry, symbol, start
        int64, of each expiry of an underlying: unix seconds, index into `symbols`, and its first contract;
        `start` has one entry more.
    strike, volatility, call
        Of each contract.
    """

    symbols: tuple[str, ...]
    row: Int64
    expiry: Int64
    symbol: Int64
    start: Int64
    strike: Float64
    volatility: Float64
    call: Bool


@dataclass(frozen=True, slots=True)
class Margins:
    """Margins of an account on many paths, shape (P,).

    Attributes
    ----------
    maintenance, equity
        float64, dollars: what is left of the equity after the maintenance requirement, and the equity.
    doubt
        float64, dollars: nearer to zero than this, or below it, the method itself must say; 0 where a figure
        is exact, infinite where nothing is said.
    """

    maintenance: Float64
    equity: Float64
    doubt: Float64

    @property
    def healthy(self) -> Bool:
        """Where the account surely has its maintenance margin."""
        return np.asarray((self.maintenance >= self.doubt) & np.isfinite(self.doubt))

    @property
    def whole(self) -> Bool:
        """Where the account surely is not worth less than nothing, and its margin no matter of integers."""
        sure = (self.equity >= self.doubt) & (np.abs(self.maintenance) >= self.doubt)
        return np.asarray(sure & np.isfinite(self.doubt))


@dataclass(frozen=True, slots=True)
class Screen:
    """Margins of one account at many prices; see `screen_of`.

    Attributes
    ----------
    contracts
        What the account holds some of.
    parameters
        Of its manager.
    """

    contracts: Contracts
    parameters: ManagerParameters

    def margins(self, timestamp: int, spot: Float64, cash: Float64, amount: Float64) -> Margins:
        """Return the margins on all paths at one time.

        Parameters
        ----------
        timestamp
            Unix seconds.
        spot
            Of each underlying in the contracts' order, dollars, shape (P, underlyings).
        cash
            Dollars, shape (P,).
        amount
            Of each position, shape (P, positions).

        Returns
        -------
        Margins
            Of nobody where an option is at its expiry, or decades from it.
        """
        held = self.contracts
        units = np.zeros((len(cash), len(held.strike)))
        for column, row in enumerate(held.row):
            units[:, row] += amount[:, column]
        seconds = (held.expiry - timestamp).astype(np.float64)
        if not len(seconds):
            return _only_cash(cash)
        if not (seconds.min() > 0 and seconds.max() < _MOST_YEARS * YEAR_S):
            return _nothing_said(cash)
        if isinstance(self.parameters, SrmParameters):
            found = _standard(self.parameters, held, seconds, spot, cash, units)
        else:
            found = _scanned(self.parameters, held, seconds, spot, cash, units)
        sane = ((spot > _PRICES[0]) & (spot < _PRICES[1])).all(axis=1)
        empty = _only_cash(cash)
        none = ~units.any(axis=1)
        return Margins(
            np.where(none, empty.maintenance, found.maintenance),
            np.where(none, empty.equity, found.equity),
            np.where(none, empty.doubt, np.where(sane, found.doubt, np.inf)),
        )


def screen_of(method: PortfolioMethod, account: Portfolio) -> Screen | None:
    """Return the screen of an account under a method; None where every answer is left to the method.

    Parameters
    ----------
    method
        ``derive.pmrm``, ``derive.pmrm2``, ``derive.pmrm2.1`` and ``derive.srm`` have one, and
        ``derive.auction`` of them.
    account
        With options only, each with a volatility of its own.
    """
    manager: object = method.manager if type(method) is DeriveAuction else method
    # Of these classes and no other: a subclass may margin otherwise.
    if type(manager) in (DerivePmrm2, DerivePmrm21):
        assert isinstance(manager, DerivePmrm2)
        parameters: ManagerParameters = manager.parameters_of(account.account)
    elif type(manager) in (DerivePmrm, DeriveSrm):
        assert isinstance(manager, DerivePmrm | DeriveSrm)
        parameters = manager.parameters
    else:
        return None
    contracts = contracts_of(account.positions)
    if contracts is None or not _ordinary(parameters):
        return None
    if len(contracts.symbols) > 1 and not isinstance(parameters, SrmParameters):
        return None
    return Screen(contracts, parameters)


def contracts_of(positions: Sequence[Position]) -> Contracts | None:
    """Return the contracts of some positions; None where they are not all options, each of one volatility."""
    found: dict[tuple[int, str, float, bool], float] = {}
    for position in positions:
        option = position.instrument
        if not isinstance(option, Option) or option.inverse or position.volatility is None:
            return None
        key = (option.expiry, option.underlying, option.strike, option.call)
        if found.setdefault(key, position.volatility) != position.volatility:
            return None
    symbols = tuple(dict.fromkeys(position.instrument.underlying for position in positions))
    keys = sorted(found)
    rows = {key: row for row, key in enumerate(keys)}
    times = sorted({key[:2] for key in keys})
    start = [next(row for row, key in enumerate(keys) if key[:2] == time) for time in times]
    options = [position.instrument for position in positions if isinstance(position.instrument, Option)]
    return Contracts(
        symbols=symbols,
        row=np.array([rows[o.expiry, o.underlying, o.strike, o.call] for o in options], dtype=np.int64),
        expiry=np.array([time for time, _ in times], dtype=np.int64),
        symbol=np.array([symbols.index(symbol) for _, symbol in times], dtype=np.int64),
        start=np.array([*start, len(keys)], dtype=np.int64),
        strike=np.array([key[2] for key in keys], dtype=np.float64),
        volatility=np.array([found[key] for key in keys], dtype=np.float64),
        call=np.array([key[3] for key in keys], dtype=np.bool_),
    )


def _ordinary(parameters: ManagerParameters) -> bool:
    """Return whether no parameter makes a rounding grow beyond what `DOUBT` allows for."""
    if not all(abs(value) <= _LARGEST for value in _figures(parameters.model_dump(exclude={"vol_shock"}))):
        return False
    if isinstance(parameters, SrmParameters):
        return True
    shocks = [s.spot_shock for s in parameters.scenarios] + [parameters.basis.down]
    if any(0 < shock < _LEAST_SHOCK for shock in shocks):
        return False
    return isinstance(parameters, PmrmParameters) or parameters.skew.min_k_star >= _LEAST_K_STAR


def _figures(value: Any) -> Iterator[float]:
    if isinstance(value, dict):
        for item in value.values():
            yield from _figures(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _figures(item)
    elif isinstance(value, int | float):
        yield value


def _only_cash(cash: Float64) -> Margins:
    """Return the margins of an account without options: its cash to the last digit."""
    # Integers look at what is hardly anything, and may find that they cannot.
    return Margins(cash, cash, np.where(cash == 0.0, 0.0, 1e-9))


def _nothing_said(cash: Float64) -> Margins:
    return Margins(cash, cash, np.full(len(cash), np.inf))


def _doubt(
    weight: float, reach: float, held: Contracts, spot: Float64, cash: Float64, units: Float64
) -> Float64:
    """Return `DOUBT` of everything that is added up on the way to a margin, shape (P,)."""
    of = np.repeat(held.symbol, np.diff(held.start))
    sizes = (np.abs(units) * (reach * spot[:, of] + held.strike)).sum(axis=1)
    return np.asarray(DOUBT * (np.abs(cash) + weight * sizes) + 1e-9)


def _scanned(
    p: Pmrm2Parameters | PmrmParameters,
    held: Contracts,
    seconds: Float64,
    spot: Float64,
    cash: Float64,
    units: Float64,
) -> Margins:
    """Return the margins under PMRM, PMRM 2 or 2.1: both are this scan, with parameters of their own."""
    years = seconds / YEAR_S
    root = np.sqrt(years)
    if isinstance(p, Pmrm2Parameters):
        steepest, skew = max(p.discount.long_rate_add, p.discount.short_rate_add), p.skew
        linear = skew.linear_cap + skew.linear_cap_slope * root
        absolute = skew.abs_cap + skew.abs_cap_slope * root
        cap = np.stack([linear, absolute])
        width = root * skew.width_scale * (skew.vol_static + root * skew.vol_scale)
        k_star = np.maximum(skew.min_k_star, width)
    else:
        # No skews.
        steepest, cap, k_star = p.rate_add, np.ones((2, len(years))), np.ones(len(years))
    if steepest * years.max() > _MOST_EXPONENT or cap.min() < _LEAST_CAP:
        return _nothing_said(cash)
    if isinstance(p, Pmrm2Parameters):
        factor, share = p.mm_factor, p.mm_option
        positive, negative = p.discount.factors(years, np.zeros(len(years)))
    else:
        factor, share = 1.0, p.option_contingency
        positive, negative = p.base_static_discount * np.exp(-years * p.rate_add), np.ones(len(years))
    up, down = p.vol_shock.factors(seconds)
    volatility = np.empty((len(_CODES), len(held.strike)))
    at = np.repeat(np.arange(len(years)), np.diff(held.start))
    # A skew starts from the volatility as it is.
    volatility[:] = held.volatility
    volatility[_UP] = np.maximum(p.vol_shock.min_vol_up, held.volatility * up[at])
    volatility[_DOWN] = held.volatility * down[at]
    shock = np.array([s.spot_shock for s in p.scenarios])
    dampening = np.array([s.dampening for s in p.scenarios])
    basis = p.basis.add_factor + p.basis.mult_factor * years
    maintenance, equity = np.empty(len(cash)), np.empty(len(cash))
    scan_paths(
        # One layout: another would be compiled again.
        np.ascontiguousarray(spot[:, 0]),
        cash,
        units,
        held.start,
        held.strike,
        held.call,
        volatility,
        years,
        positive,
        negative,
        cap,
        k_star,
        basis,
        np.array([p.basis.up, p.basis.down]),
        shock,
        dampening,
        np.array([_CODES[s.direction] for s in p.scenarios], dtype=np.int64),
        factor,
        share,
        maintenance,
        equity,
    )
    static = max(1.0, float(positive.max()), float(negative.max()))
    moved = max(float(dampening.max()) * (1 + static), 2 * float(basis.max()))
    reach = max(1.0, float(shock.max()), p.basis.up)
    return Margins(maintenance, equity, _doubt(1 + share + factor * moved, reach, held, spot, cash, units))


def _standard(
    p: SrmParameters, held: Contracts, seconds: Float64, spot: Float64, cash: Float64, units: Float64
) -> Margins:
    """Return the margins under the standard manager."""
    maintenance, equity = np.empty(len(cash)), np.empty(len(cash))
    standard_paths(
        np.ascontiguousarray(spot),
        cash,
        units,
        held.start,
        held.symbol,
        held.strike,
        held.call,
        held.volatility,
        seconds / YEAR_S,
        p.mm_call_spot_req,
        p.mm_put_spot_req,
        p.mm_put_mtm_req,
        p.unpaired_mm_scale,
        maintenance,
        equity,
    )
    weight = 3 + p.mm_call_spot_req + p.mm_put_spot_req + p.mm_put_mtm_req + p.unpaired_mm_scale
    return Margins(maintenance, equity, _doubt(weight, 1.0, held, spot, cash, units))


# --------------------------------------------------------------------------------------------------- kernels


@compiled
def scan_paths(
    spot: Float64,
    cash: Float64,
    units: Float64,
    start: Int64,
    strike: Float64,
    call: Bool,
    volatility: Float64,
    years: Float64,
    positive: Float64,
    negative: Float64,
    cap: Float64,
    k_star: Float64,
    basis_weight: Float64,
    basis_shock: Float64,
    shock: Float64,
    dampening: Float64,
    direction: Int64,
    factor: float,
    share: float,
    maintenance: Float64,
    equity: Float64,
) -> None:
    """Fill the margins of PMRM and PMRM 2 on all paths.

    Parameters
    ----------
    spot, cash, units
        Shapes (P,), (P,) and (P, n).
    start
        First contract of each expiry and their number, shape (e + 1,).
    strike, call, volatility
        Shapes (n,), (n,) and (directions, n); the volatility by the direction's place in `Direction`.
    years, positive, negative, basis_weight
        Of each expiry: time, static discount of a value above and below zero, and what the basis loss counts.
    cap, k_star
        Of the linear and of the absolute skew, shape (2, e), and their width, shape (e,).
    basis_shock, shock, dampening, direction
        Shape (2,), and of each scenario.
    factor, share
        On the worst loss, and of the spot price per naked short option.
    maintenance, equity
        To fill, shape (P,).
    """
    profit = np.empty(len(shock))
    for p in range(len(spot)):
        profit[:] = 0.0
        basis = mark = naked = 0.0
        for e in range(len(years)):
            first, last = start[e], start[e + 1]
            now = down = up = 0.0
            for k in range(first, last):
                if units[p, k] != 0.0:
                    vol = volatility[_NONE, k]
                    now += units[p, k] * black76_scalar(spot[p], strike[k], vol, years[e], 1.0, call[k])
                    one = black76_scalar(spot[p] * basis_shock[0], strike[k], vol, years[e], 1.0, call[k])
                    two = black76_scalar(spot[p] * basis_shock[1], strike[k], vol, years[e], 1.0, call[k])
                    up += units[p, k] * one
                    down += units[p, k] * two
            basis += min(0.0, up - now, down - now) * basis_weight[e]
            mark += now
            for s in range(len(shock)):
                value = 0.0
                for k in range(first, last):
                    if units[p, k] != 0.0:
                        vol = volatility[direction[s], k]
                        if direction[s] >= _LINEAR:
                            vol *= _skewed(direction[s], strike[k] / spot[p], cap[:, e], k_star[e])
                        price = black76_scalar(spot[p] * shock[s], strike[k], vol, years[e], 1.0, call[k])
                        value += units[p, k] * price
                change = (value * (positive[e] if value >= 0.0 else negative[e]) - now) * dampening[s]
                profit[s] += -abs(change) if direction[s] >= _LINEAR else change
            k = first
            while k < last:
                # Call and put of one strike stand next to each other and are pooled.
                pooled = units[p, k]
                k += 1
                if k < last and strike[k] == strike[k - 1]:
                    pooled += units[p, k]
                    k += 1
                naked += max(0.0, -pooled)
        equity[p] = cash[p] + mark
        maintenance[p] = equity[p] + factor * min(basis, profit.min()) - naked * spot[p] * share


@compiled
def _skewed(direction: int, ratio: float, cap: Float64, k_star: float) -> float:
    """Return the factor on a volatility; `ratio` is strike over forward."""
    linear = direction == _LINEAR
    k, most = math.log(ratio), cap[0] if linear else cap[1]
    if not linear:
        k = abs(k)
    bend = k * most / k_star
    factor: float = max(0.0, 1.0 + (min(most, bend) if k >= 0.0 else max(-most, bend)))
    return factor


@compiled
def standard_paths(
    spot: Float64,
    cash: Float64,
    units: Float64,
    start: Int64,
    symbol: Int64,
    strike: Float64,
    call: Bool,
    volatility: Float64,
    years: Float64,
    call_share: float,
    put_share: float,
    put_mark_share: float,
    unpaired: float,
    maintenance: Float64,
    equity: Float64,
) -> None:
    """Fill the margins of the standard manager on all paths.

    Parameters
    ----------
    spot, cash, units
        Shapes (P, underlyings), (P,) and (P, n).
    start, symbol, years
        Of each expiry: its first contract (one entry more than expiries), its underlying, its time.
    strike, call, volatility
        Of each contract, shape (n,).
    call_share, put_share, put_mark_share
        What a short option needs: shares of the spot price, of a put also of its value.
    unpaired
        Forwards per call that is short in net, where the maximal loss decides.
    maintenance, equity
        To fill, shape (P,).
    """
    for p in range(len(cash)):
        margin, mark = cash[p], cash[p]
        for e in range(len(years)):
            first, last, price = start[e], start[e + 1], spot[p, symbol[e]]
            alone = calls = worst = 0.0
            for k in range(first, last):
                held = units[p, k]
                if held == 0.0:
                    continue
                value = held * black76_scalar(price, strike[k], volatility[k], years[e], 1.0, call[k])
                mark += value
                if call[k]:
                    calls += held
                    if held < 0.0:
                        alone += value + call_share * price * held
                elif held < 0.0:
                    alone += value + min(put_share * price * held, put_mark_share * value)
                worst = min(
                    worst, _payoff(strike[k], units[p, first:last], strike[first:last], call[first:last])
                )
            worst = min(worst, _payoff(0.0, units[p, first:last], strike[first:last], call[first:last]))
            margin += max(alone, worst + min(0.0, calls) * price * unpaired)
        maintenance[p], equity[p] = margin, mark


@compiled
def _payoff(price: float, units: Float64, strike: Float64, call: Bool) -> float:
    """Return what the options of one expiry pay at a price."""
    total = 0.0
    for k in range(len(units)):
        gain = price - strike[k] if call[k] else strike[k] - price
        if gain > 0.0:
            total += units[k] * gain
    return total
