"""PMRM 2 and the standard manager of Derive in integers at 1e18, for accounts at the edge of liquidation.

A float margin is off by some 1e-13 of the notional. Where that could turn the sign of the maintenance margin,
`decide` computes it again in integers, cut off where the contracts cut off and in their order.

Source: reference of the margin engines, sections 1.0, 1.1 and 1.3. Money, prices, amounts, volatilities and
confidences are integers that count 1e-18; seconds are whole.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeAlias, TypeVar

import numpy as np

from contracts_abi.errors import InputError
from oracle.strict import StrictModel
from simulation.fixed_point import WAD, to_float
from simulation.margin import fixed_math
from simulation.margin.derive_common import (
    SKEWS,
    THIRTY_DAYS_S,
    Account,
    Direction,
    OptionBook,
    one_underlying,
    read_account,
)
from simulation.margin.derive_pmrm2 import DerivePmrm2, Pmrm2Parameters
from simulation.margin.derive_srm import DeriveSrm, SrmParameters
from simulation.margin.fixed_math import div, mul, quotient, wad
from simulation.margin.result import MarginResult, PortfolioMethod, status_of
from simulation.portfolio.instruments import Option, Perpetual, Portfolio, Position, Spot
from simulation.portfolio.market import YEAR_S, Expiry, Market, Svi, Underlying
from simulation.types import Float64, MarginStatus

Method: TypeAlias = DerivePmrm2 | DeriveSrm
"""Methods that can be computed in integers; PMRM 2.1 is a PMRM 2."""
M = TypeVar("M", bound=StrictModel)

BOUNDARY: Final = 1e-9
"""Share of the gross notional within which integers decide."""

_V_MAX: Final = 24 * WAD
_K_WIDTHS: Final = 4 * WAD
_W_MAX: Final = 144 * WAD
_UNIT_ROUNDOFF: Final = 2.0**-53


# ---------------------------------------------------------------------------------------------------- pricing


def years_of(seconds: int) -> int:
    """Return seconds in years of 365 days, at 1e18."""
    return seconds * WAD // YEAR_S


def black76(forward: int, strike: int, volatility: int, seconds: int, discount: int, *, call: bool) -> int:
    """Return what an option is worth, all at 1e18 but the seconds.

    Parameters
    ----------
    forward, strike
        Dollars, not below zero.
    volatility
        Annual.
    seconds
        To expiry.
    discount
        At most 1.
    call
        Or a put.

    Notes
    -----
    As `simulation.pricing.black76`, cut off step by step: ratio of strike and forward, root of the years,
    total volatility, the two arguments of the normal distribution, the call in units of the forward, the put
    from it by parity, and their product with the discounted forward. Against the exact value of the same
    inputs the error is at most ``2e-16 * (forward + strike) + (4 + strike / forward) * 1e-18``, and within a
    few minutes of expiry, where cutting off a year's share counts, ``0.6e-18 * forward * volatility *
    sqrt(years) / min(years, 1)`` more. Source: reference of the margin engines, section 1.0.
    """
    total = volatility * fixed_math.sqrt(years_of(seconds)) // WAD
    discounted, capped = forward * discount // WAD, strike * discount // WAD
    if strike == 0:
        return discounted if call else 0
    if forward == 0:
        return 0 if call else capped
    ratio = strike * WAD // forward
    unit = _standardised_call(ratio, total)
    if call:
        return min(unit * discounted // WAD, discounted)
    return min(max(0, unit + ratio - WAD) * discounted // WAD, capped)


def _standardised_call(ratio: int, total: int) -> int:
    if total >= _V_MAX:
        return WAD
    # One unit stands for none of either.
    total, ratio = max(1, total), max(1, ratio)
    half = (total >> 1) * total // WAD
    d1 = div(half - fixed_math.ln(ratio), total)
    d2 = d1 - total
    return max(0, fixed_math.normal_cdf(d1) - ratio * fixed_math.normal_cdf(d2) // WAD)


def svi_volatility(slice_: Svi, strike: int) -> int:
    """Return the volatility that the feed gives a strike, at 1e18.

    Parameters
    ----------
    slice_
        What the feed states; its figures are read as `fixed_math.wad` reads them.
    strike
        Dollars at 1e18.

    Raises
    ------
    InputError
        For figures with more than 18 decimals, and for a variance below zero, where the feed reverts.
    """
    a, b, rho, m, sigma, forward, tau = (
        wad(getattr(slice_, name), f"{name} of the surface")
        for name in ("a", "b", "rho", "m", "sigma", "forward", "tau")
    )
    least = a + mul(b, sigma)
    if least < 0:
        raise InputError(f"the surface has a variance of {least / WAD:.3g}", fix="check a, b and sigma")
    width = mul(fixed_math.sqrt(least), _K_WIDTHS)
    ratio = div(strike, forward)
    k = -width if ratio == 0 else min(width, max(-width, fixed_math.ln(ratio)))
    off = k - m
    root = fixed_math.sqrt(mul(off, off) + mul(sigma, sigma))
    variance = a + mul(b, root + mul(rho, off))
    if variance < 0:
        raise InputError(f"the surface has a variance of {variance / WAD:.3g}", fix="check a, b and sigma")
    return fixed_math.sqrt(div(min(_W_MAX, variance), tau))


# ---------------------------------------------------------------------------------------------------- reading


@dataclass(frozen=True, slots=True)
class ExactOption:
    """An option that is held.

    Attributes
    ----------
    strike, volatility, amount, call
        Dollars, annual, signed units of the underlying, whether it is a call.
    """

    strike: int
    volatility: int
    amount: int
    call: bool


@dataclass(frozen=True, slots=True)
class ExactExpiry:
    """The options of one expiry.

    Attributes
    ----------
    seconds
        To expiry.
    variable, fixed
        The parts of the forward.
    rate
        Annual, not below zero.
    confidence, forward_vol_confidence
        The least of forward, rate and volatility feed, and without the rate's.
    options
        No two of the same strike and type.
    """

    seconds: int
    variable: int
    fixed: int
    rate: int
    confidence: int
    forward_vol_confidence: int
    options: tuple[ExactOption, ...]

    def value(self, spot_shock: int, volatilities: Iterable[int], discount: int) -> int:
        """Return what the options are worth with a shocked forward."""
        forward = mul(self.variable, spot_shock) + self.fixed
        return sum(
            mul(black76(forward, one.strike, vol, self.seconds, discount, call=one.call), one.amount)
            for one, vol in zip(self.options, volatilities, strict=True)
        )

    @property
    def gross(self) -> int:
        """Units of the underlying, long and short."""
        return sum(abs(one.amount) for one in self.options)

    @property
    def short(self) -> int:
        """Units of the underlying that are short."""
        return sum(-one.amount for one in self.options if one.amount < 0)

    @property
    def naked_shorts(self) -> int:
        """Short units that no long option at the same strike covers, calls and puts pooled."""
        pairs: dict[int, list[int]] = {}
        for one in self.options:
            pairs.setdefault(one.strike, []).append(one.amount)
        return sum(
            max(0, sum(-a for a in pair if a < 0) - sum(a for a in pair if a > 0)) for pair in pairs.values()
        )


@dataclass(frozen=True, slots=True)
class ExactLegs:
    """What an account holds on one underlying.

    Attributes
    ----------
    spot, confidence
        Index price and its confidence.
    perpetual_price, perpetual_confidence
        Of the perpetual.
    perpetual, perpetual_value
        Units of the underlying; unrealised profit and unsettled funding.
    expiries
        In ascending order.
    """

    spot: int
    confidence: int
    perpetual_price: int
    perpetual_confidence: int
    perpetual: int
    perpetual_value: int
    expiries: tuple[ExactExpiry, ...]


@dataclass(frozen=True, slots=True)
class ExactAccount:
    """An account by underlying.

    Attributes
    ----------
    cash, stable
        Cash, and the price of the settlement currency.
    tokens
        Symbol to units, price and confidence.
    legs
        Symbol to derivatives on it.
    """

    cash: int
    stable: int
    tokens: Mapping[str, tuple[int, int, int]]
    legs: Mapping[str, ExactLegs]


def exact_account(portfolio: Portfolio, market: Market) -> ExactAccount:
    """Return a portfolio and its prices as integers, each the decimal text of its float.

    Parameters
    ----------
    portfolio, market
        What the float method takes: no price is missing, nothing is expired.

    Raises
    ------
    InputError
        For a figure with more than 18 decimals, or one that does not fit 127 bits.
    """
    amounts: dict[str, int] = {}
    perpetuals: dict[str, tuple[int, int]] = {}
    options: dict[str, dict[tuple[int, float, bool], tuple[int, int]]] = {}
    for position in portfolio.positions:
        held, quantity = position.instrument, wad(position.quantity, "a quantity")
        if isinstance(held, Spot):
            amounts[held.asset] = amounts.get(held.asset, 0) + quantity
        elif isinstance(held, Perpetual):
            units, value = perpetuals.get(held.underlying, (0, 0))
            if quantity:
                value += wad(position.unrealised, "an unrealised profit")
            perpetuals[held.underlying] = (units + quantity, value)
        elif isinstance(held, Option):
            book = options.setdefault(held.underlying, {})
            key = (held.expiry, held.strike, held.call)
            expiry = market.underlyings[held.underlying].expiries[held.expiry]
            before, _ = book.get(key, (0, 0))
            book[key] = (before + quantity, _volatility(position, held, expiry))
    return ExactAccount(
        cash=wad(portfolio.cash, "cash"),
        stable=wad(market.stable_price, "price of the settlement currency"),
        tokens={symbol: (units, *_token(market, symbol)) for symbol, units in amounts.items()},
        legs={
            symbol: _legs(
                market.underlyings[symbol], market, perpetuals.get(symbol, (0, 0)), options.get(symbol, {})
            )
            for symbol in sorted({*perpetuals, *options})
        },
    )


def _volatility(position: Position, option: Option, expiry: Expiry) -> int:
    if position.volatility is None and expiry.surface is not None:
        return svi_volatility(expiry.surface, wad(option.strike, "strike"))
    stated = expiry.volatility if position.volatility is None else position.volatility
    if stated is None:
        raise InputError("an option has no volatility", fix="give one, or a surface")
    return wad(stated, "a volatility")


def _token(market: Market, symbol: str) -> tuple[int, int]:
    asset = market.assets.get(symbol)
    if asset is not None:
        return wad(asset.price, f"price of {symbol}"), wad(asset.confidence, f"confidence of {symbol}")
    feed = market.underlyings[symbol]
    return wad(feed.spot, f"price of {symbol}"), wad(feed.confidence, f"confidence of {symbol}")


def _legs(
    feed: Underlying,
    market: Market,
    perpetual: tuple[int, int],
    options: Mapping[tuple[int, float, bool], tuple[int, int]],
) -> ExactLegs:
    held = [(key, *options[key]) for key in sorted(options) if options[key][0]]
    expiries = []
    for time in sorted({key[0] for key, _, _ in held}):
        one = feed.expiries[time]
        forward_vol = min(
            wad(one.forward_confidence, "a confidence"), wad(one.vol_confidence, "a confidence")
        )
        expiries.append(
            ExactExpiry(
                seconds=market.seconds(time),
                variable=wad(one.forward, "a forward"),
                fixed=wad(one.fixed, "a forward's fixed part"),
                rate=max(0, wad(one.rate, "a rate")),
                confidence=min(forward_vol, wad(one.rate_confidence, "a confidence")),
                forward_vol_confidence=forward_vol,
                options=tuple(
                    ExactOption(wad(key[1], "a strike"), volatility, amount, key[2])
                    for key, amount, volatility in held
                    if key[0] == time
                ),
            )
        )
    return ExactLegs(
        spot=wad(feed.spot, "index price"),
        confidence=wad(feed.confidence, "a confidence"),
        perpetual_price=wad(feed.perpetual_price, "price of the perpetual"),
        perpetual_confidence=wad(feed.perpetual_confidence, "a confidence"),
        perpetual=perpetual[0],
        perpetual_value=perpetual[1],
        expiries=tuple(expiries),
    )


# ------------------------------------------------------------------------------------------------- the answer


@dataclass(frozen=True, slots=True)
class ExactMargin:
    """Margins of one account, integers that count 1e-18 dollars.

    Attributes
    ----------
    initial, maintenance
        What is left of the equity after the requirement; liquidatable where `maintenance` is negative.
    equity
        Cash and marks.
    scenarios
        Profit in each scenario, of PMRM 2.
    """

    initial: int
    maintenance: int
    equity: int
    scenarios: tuple[int, ...] = ()


def exact_margin(portfolio: Portfolio, market: Market, method: Method) -> ExactMargin:
    """Return an account's margins in integers.

    Parameters
    ----------
    portfolio, market
        As of `PortfolioMethod.margin`.
    method
        PMRM 2, 2.1 or the standard manager.

    Raises
    ------
    InputError
        For what the float method refuses; where its margin is unknown; for a figure with more than 18
        decimals; where the contract itself reverts; and for another method.

    Notes
    -----
    Reference of the margin engines, sections 1.1 and 1.3.
    """
    _known(method, method.margin(portfolio, market))
    return _exact(portfolio, market, method)


def _exact(portfolio: Portfolio, market: Market, method: Method) -> ExactMargin:
    account = exact_account(portfolio, market)
    if isinstance(method, DeriveSrm):
        return _srm(account, method.parameters)
    parameters = method.parameters_of(portfolio.account)
    if not account.legs and not account.tokens:
        return ExactMargin(account.cash, account.cash, account.cash, (0,) * len(parameters.scenarios))
    floats = read_account(portfolio, market, method.kind)
    symbol = one_underlying(floats, market, method.underlying, method.kind)
    legs = account.legs.get(symbol) or _legs(market.underlyings[symbol], market, (0, 0), {})
    return _pmrm2(account, legs, parameters)


def _known(method: Method, result: MarginResult) -> None:
    if not isinstance(method, DerivePmrm2 | DeriveSrm):
        raise InputError(
            f"{method.kind} is not computed in integers",
            fix="derive.pmrm2, derive.pmrm2.1 and derive.srm are",
        )
    if result.status is MarginStatus.UNKNOWN:
        raise InputError(
            f"the margin of {result.account} is unknown: {result.reason}",
            fix="give the price that is missing",
        )


# ----------------------------------------------------------------------------------------------------- PMRM 2


@dataclass(frozen=True, slots=True)
class _Discounts:
    """Factors of an expiry: of its prices, and of a value above and below zero in a scenario."""

    price: int
    positive: int
    negative: int


def _discounts(one: ExactExpiry, p: Pmrm2Parameters) -> _Discounts:
    rule, years = p.discount, years_of(one.seconds)
    price = fixed_math.exp(-(one.rate * one.seconds // YEAR_S))

    def decay(multiplier: float, addition: float) -> int:
        rate = mul(one.rate, wad(multiplier, "a multiplier of rates")) + wad(addition, "an addition to rates")
        return fixed_math.exp(-mul(years, rate))

    positive = mul(
        wad(rule.long_base, "long_base"),
        decay(rule.long_rate_mult, rule.long_rate_add),
    )
    negative = div(
        wad(rule.short_base, "short_base"),
        decay(rule.short_rate_mult, rule.short_rate_add),
    )
    return _Discounts(price, positive, min(div(WAD, price), negative))


def _vol_factors(one: ExactExpiry, p: Pmrm2Parameters) -> tuple[int, int]:
    rule = p.vol_shock
    if rule.dte_floor_s != int(rule.dte_floor_s):
        raise InputError(f"dte_floor_s {rule.dte_floor_s} is not whole", fix="the contract counts seconds")
    left = max(one.seconds, int(rule.dte_floor_s))
    exponent = rule.short_power if one.seconds <= THIRTY_DAYS_S else rule.long_power
    size = fixed_math.power(quotient(THIRTY_DAYS_S * WAD, left), wad(exponent, "a power"))
    up = WAD + mul(wad(rule.range_up, "range_up"), size)
    return up, max(0, WAD - mul(wad(rule.range_down, "range_down"), size))


def _skewed(one: ExactExpiry, p: Pmrm2Parameters, direction: Direction) -> list[int]:
    rule, linear = p.skew, direction is Direction.LINEAR
    base, slope = (rule.linear_cap, rule.linear_cap_slope) if linear else (rule.abs_cap, rule.abs_cap_slope)
    root = fixed_math.sqrt(years_of(one.seconds))
    cap = mul(wad(slope, "slope of a skew"), root) + wad(base, "cap of a skew")
    level = wad(rule.vol_static, "vol_static") + mul(root, wad(rule.vol_scale, "vol_scale"))
    width = mul(mul(root, wad(rule.width_scale, "width_scale")), level)
    k_star = max(wad(rule.min_k_star, "min_k_star"), width)
    found = []
    for held in one.options:
        k = fixed_math.ln(div(held.strike, one.variable + one.fixed))
        k = k if linear else abs(k)
        bend = quotient(k * cap, k_star)
        move = min(cap, bend) if k >= 0 else max(-cap, bend)
        found.append(mul(held.volatility, max(0, WAD + move)))
    return found


class _ExpiryValues:
    """What one expiry is worth in the scenarios of PMRM 2, each computed once."""

    def __init__(self, one: ExactExpiry, p: Pmrm2Parameters) -> None:
        self._one, self._p = one, p
        self.discounts = _discounts(one, p)
        self._up, self._down = _vol_factors(one, p)
        self._found: dict[tuple[int, Direction], int] = {}
        self.mark = self.at(WAD, Direction.NONE)

    def at(self, shock: int, direction: Direction) -> int:
        """Return the value in a scenario, before its static discount."""
        key = (shock, direction)
        if key not in self._found:
            self._found[key] = self._one.value(shock, self._volatilities(direction), self.discounts.price)
        return self._found[key]

    def _volatilities(self, direction: Direction) -> list[int]:
        plain = [held.volatility for held in self._one.options]
        if direction in SKEWS:
            return _skewed(self._one, self._p, direction)
        if direction is Direction.UP:
            least = wad(self._p.vol_shock.min_vol_up, "min_vol_up")
            return [max(least, mul(volatility, self._up)) for volatility in plain]
        if direction is Direction.DOWN:
            return [mul(volatility, self._down) for volatility in plain]
        return plain

    def profit(self, shock: int, direction: Direction, dampening: int) -> int:
        """Return what the expiry brings in a scenario."""
        value = self.at(shock, direction)
        counted = mul(value, self.discounts.positive if value >= 0 else self.discounts.negative)
        change = mul(counted - self.mark, dampening)
        return -abs(change) if direction in SKEWS else change

    def basis(self) -> int:
        """Return the loss when the forward alone moves, at most 0."""
        rule = self._p.basis
        moves = (wad(rule.up, "basis up"), wad(rule.down, "basis down"))
        worst = min(0, *(self.at(move, Direction.NONE) - self.mark for move in moves))
        factor = wad(rule.add_factor, "add_factor") + mul(
            wad(rule.mult_factor, "mult_factor"), years_of(self._one.seconds)
        )
        return mul(worst, factor)


def _pmrm2(account: ExactAccount, legs: ExactLegs, p: Pmrm2Parameters) -> ExactMargin:
    threshold, doubt_margin = wad(p.oracle.threshold, "threshold"), wad(p.oracle.margin, "margin")

    def doubt(confidence: int, notional: int) -> int:
        return mul(mul(WAD - confidence, doubt_margin), notional) if confidence < threshold else 0

    confidence = min(legs.confidence, legs.perpetual_confidence) if legs.perpetual else legs.confidence
    notional = mul(abs(legs.perpetual), legs.spot)
    mm = mul(notional, wad(p.mm_perp, "mm_perp"))
    im = mul(notional, wad(p.im_perp, "im_perp")) + doubt(confidence, notional)
    equity = account.cash + legs.perpetual_value
    moving = []
    for token, (units, price, sure) in account.tokens.items():
        rule = p.collaterals[token]
        value = units * price // account.stable
        equity += value
        if rule.risk_cancelling:
            moving.append(value)
        mm += mul(value, wad(rule.mm_haircut, "mm_haircut"))
        im += mul(value, wad(rule.im_haircut, "im_haircut")) + doubt(min(sure, legs.confidence), value)
    expiries = [_ExpiryValues(one, p) for one in legs.expiries]
    for one, values in zip(legs.expiries, expiries, strict=True):
        equity += values.mark
        short = mul(one.naked_shorts, legs.spot)
        mm += mul(short, wad(p.mm_option, "mm_option"))
        im += mul(short, wad(p.im_option, "im_option"))
        im += doubt(min(one.confidence, confidence), mul(one.gross, legs.spot))
    profits = []
    for scenario in p.scenarios:
        shock, dampening = wad(scenario.spot_shock, "a shock"), wad(scenario.dampening, "a dampening")
        profit = mul(mul(legs.perpetual, mul(shock - WAD, legs.perpetual_price)), dampening)
        profit += sum(values.profit(shock, scenario.direction, dampening) for values in expiries)
        profit += sum(mul(mul(value, shock - WAD), dampening) for value in moving)
        profits.append(profit)
    loss = min(sum(values.basis() for values in expiries), *profits)
    short_of_peg = max(0, wad(p.peg.threshold, "threshold") - account.stable)
    im_factor = wad(p.im_factor, "im_factor") + mul(short_of_peg, wad(p.peg.factor, "factor of the peg"))
    return ExactMargin(
        initial=mul(loss, im_factor) - im - mm + equity,
        maintenance=mul(loss, wad(p.mm_factor, "mm_factor")) - mm + equity,
        equity=equity,
        scenarios=tuple(profits),
    )


# ------------------------------------------------------------------------------------------- standard manager


def _srm(account: ExactAccount, p: SrmParameters) -> ExactMargin:
    oracle = wad(p.oracle_contingency_factor, "oracle_contingency_factor")
    short_of_peg = max(0, wad(p.depeg_threshold, "depeg_threshold") - account.stable)
    depeg = mul(short_of_peg, wad(p.depeg_factor, "depeg_factor"))
    mm = im = equity = account.cash
    for symbol, legs in account.legs.items():
        rule = p.perps.get(symbol, p.perp)
        size, shorts = abs(legs.perpetual), 0
        notional = mul(size, legs.perpetual_price)
        mm += legs.perpetual_value - mul(notional, wad(rule.mm, "mm of the perpetual"))
        im += legs.perpetual_value - mul(notional, wad(rule.im, "im of the perpetual"))
        equity += legs.perpetual_value
        sure = min(legs.confidence, legs.perpetual_confidence)
        if sure < wad(p.perp_confidence_threshold, "perp_confidence_threshold"):
            im -= mul(mul(mul(WAD - sure, oracle), legs.spot), size)
        for one in legs.expiries:
            expiry_mm, expiry_im, mark = _srm_expiry(one, legs.spot, p)
            mm, im, equity, shorts = mm + expiry_mm, im + expiry_im, equity + mark, shorts + one.short
            sure = min(one.forward_vol_confidence, legs.confidence)
            if sure < wad(p.option_confidence_threshold, "option_confidence_threshold"):
                im -= mul(mul(mul(WAD - sure, oracle), legs.spot), one.short)
        im -= mul(mul(size + shorts, depeg), legs.spot)
    for token, (units, price, sure) in account.tokens.items():
        base = p.bases[token]
        worth = mul(units, price)
        counted = mul(worth, wad(base.margin_factor, "margin_factor"))
        scaled = mul(counted, wad(base.im_scale, "im_scale"))
        mm, im, equity = mm + counted, im + scaled, equity + div(worth, account.stable)
        # The contract looks at the confidence only of a token that counts for something.
        if scaled and sure < wad(p.base_confidence_threshold, "base_confidence_threshold"):
            im -= mul(mul(WAD - sure, oracle), worth)
    return ExactMargin(initial=im, maintenance=mm, equity=equity)


def _srm_expiry(one: ExactExpiry, spot: int, p: SrmParameters) -> tuple[int, int, int]:
    """Return maintenance margin, initial margin and mark of an expiry."""
    forward = one.variable + one.fixed
    mm = im = mark = calls = 0
    worst = min(0, _payoff(one, 0))
    for held in one.options:
        unit = black76(forward, held.strike, held.volatility, one.seconds, WAD, call=held.call)
        value = mul(unit, held.amount)
        mark += value
        calls += held.amount if held.call else 0
        worst = min(worst, _payoff(one, held.strike))
        if held.amount < 0:
            each_mm, each_im = _srm_short(held, value, spot, p)
            mm, im = mm + each_mm, im + each_im
    bare = min(0, calls)
    worst_mm = worst + mul(mul(wad(p.unpaired_mm_scale, "unpaired_mm_scale"), forward), bare)
    worst_im = worst + mul(mul(wad(p.unpaired_im_scale, "unpaired_im_scale"), forward), bare)
    return max(mm, worst_mm), max(im, worst_im), mark


def _srm_short(held: ExactOption, value: int, spot: int, p: SrmParameters) -> tuple[int, int]:
    """Return what one short option needs by itself, both margins at most 0."""
    away = held.strike - spot if held.call else spot - held.strike
    left = wad(p.max_spot_req, "max_spot_req") - (div(away, spot) if away > 0 else 0)
    share = max(left, wad(p.min_spot_req, "min_spot_req"))
    plain = mul(mul(share, spot), held.amount) + value
    if held.call:
        return mul(mul(wad(p.mm_call_spot_req, "mm_call_spot_req"), spot), held.amount) + value, plain
    by_spot = mul(mul(wad(p.mm_put_spot_req, "mm_put_spot_req"), spot), held.amount)
    mm = min(by_spot, mul(wad(p.mm_put_mtm_req, "mm_put_mtm_req"), value)) + value
    return mm, min(plain, mul(mm, wad(p.mm_offset_scale, "mm_offset_scale")))


def _payoff(one: ExactExpiry, price: int) -> int:
    total = 0
    for held in one.options:
        gain = price - held.strike if held.call else held.strike - price
        total += mul(gain, held.amount) if gain > 0 else 0
    return total


# ------------------------------------------------------------------------------------------------ who decides


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether an account may be liquidated, and how that was found.

    Attributes
    ----------
    liquidatable
        Maintenance margin is below zero.
    decided_by
        ``float`` where its error cannot matter, else ``integers``.
    mm_float
        Maintenance margin of the float method, dollars.
    mm_wad
        The same in integers at 1e18; None where it was not needed.
    """

    liquidatable: bool
    decided_by: Literal["float", "integers"]
    mm_float: float
    mm_wad: int | None


def decide(portfolio: Portfolio, market: Market, method: Method) -> Decision:
    """Return whether an account may be liquidated: by the float margin, at the edge by integers.

    Integers decide where the float margin is within `BOUNDARY` of the gross notional, or within its own error
    bound should that be wider.

    Parameters
    ----------
    portfolio, market
        As of `PortfolioMethod.margin`.
    method
        PMRM 2, 2.1 or the standard manager.

    Raises
    ------
    InputError
        For what the float method refuses, where its margin is unknown, and for another method; where integers
        decide also for a figure with more than 18 decimals and where the contract reverts.
    """
    return _decided(method.margin(portfolio, market), portfolio, market, method)


def _decided(result: MarginResult, portfolio: Portfolio, market: Market, method: Method) -> Decision:
    _known(method, result)
    mm = result.maintenance
    if abs(mm) > decision_width(portfolio, market, method):
        return Decision(mm < 0, "float", mm, None)
    exact = _exact(portfolio, market, method).maintenance
    return Decision(exact < 0, "integers", mm, exact)


def decided_margin(
    method: PortfolioMethod, portfolio: Portfolio, market: Market
) -> tuple[MarginResult, Decision | None]:
    """Return an account's margin with the status that `decide` finds, and the decision.

    Parameters
    ----------
    method, portfolio, market
        Any margin method; one that has no integers has no decision, and its result is as it is.

    Returns
    -------
    tuple of MarginResult and Decision or None
        Where integers must decide and cannot, the result is unknown for that reason.

    Raises
    ------
    InputError
        If the method refuses the account.
    """
    result = method.margin(portfolio, market)
    if not isinstance(method, DerivePmrm2 | DeriveSrm) or result.status is MarginStatus.UNKNOWN:
        return result, None
    try:
        found = _decided(result, portfolio, market, method)
    except InputError as error:
        reason = f"too near its maintenance margin for floats, and integers cannot decide: {error}"
        return MarginResult.unknown(result.account, result.method, result.parameters_hash, reason), None
    if found.decided_by == "integers":
        status = status_of(-1.0 if found.liquidatable else 0.0, result.maintenance_requirement)
        result = replace(result, status=status)
    return result, found


def decision_width(portfolio: Portfolio, market: Market, method: Method) -> float:
    """Return how near to zero a float maintenance margin leaves the decision to integers, dollars."""
    account = read_account(portfolio, market, method.kind)
    return max(BOUNDARY * _gross(account, market), _float_error(account, portfolio, market, method))


def gross_notional(portfolio: Portfolio, market: Market, method: Method) -> float:
    """Return the gross notional of an account, dollars: derivatives and tokens at their index prices.

    Long and short count alike, options with the units of their underlying; cash does not count.
    """
    return _gross(read_account(portfolio, market, method.kind), market)


def float_error(portfolio: Portfolio, market: Market, method: Method) -> float:
    """Return how far float and integer maintenance margin can be apart, dollars.

    Infinite where a rounding may exchange the sides of a skew: its cap is negative, an option at the money.

    Parameters
    ----------
    portfolio, market, method
        As of `decide`, and the margin is not unknown.

    Notes
    -----
    With ``u = 2**-53`` and over `n` options: a price is off by at most ``128 u`` of the sum of shocked
    forward and strike for its inputs, logarithm and normal distribution in both arithmetics; by 0.4 of what
    the total volatility is off; and by ``8e-18 (1 + strike / forward)`` dollars where the contract cuts off.
    A static discount adds its own error to what it multiplies, a sum of `n` terms ``(n + 16) u`` of their
    sizes. The worst scenario bounds the error of the minimum. Derivation in ``docs/margin.md``.
    """
    return _float_error(read_account(portfolio, market, method.kind), portfolio, market, method)


def _price_of(market: Market, symbol: str) -> float:
    asset = market.assets.get(symbol)
    return market.underlyings[symbol].spot if asset is None else asset.price


def _gross(account: Account, market: Market) -> float:
    tokens = sum(amount * _price_of(market, symbol) for symbol, amount in account.spots.items())
    return tokens + sum(
        legs.feed.spot * (abs(legs.perpetual) + float(np.abs(legs.options.amount).sum()))
        for legs in account.legs.values()
    )


def _float_error(account: Account, portfolio: Portfolio, market: Market, method: Method) -> float:
    prices = market.stable_price, 1.0
    tokens = sum(amount * _price_of(market, symbol) / min(prices) for symbol, amount in account.spots.items())
    held = sum(abs(position.unrealised) for position in portfolio.positions)
    perpetuals = sum(
        abs(legs.perpetual) * max(legs.feed.spot, legs.feed.perpetual_price) for legs in account.legs.values()
    )
    count = len(portfolio.positions)
    conditions = _conditions(portfolio, market)
    if isinstance(method, DeriveSrm):
        q = method.parameters
        shares = 1 + max(1.0, *(rule.mm for rule in (q.perp, *q.perps.values())))
        options = sum(
            _srm_error(legs.options, legs.feed.spot, q, conditions.get(symbol, {}))
            for symbol, legs in account.legs.items()
        )
    else:
        p = method.parameters_of(portfolio.account)
        reach = max(scenario.dampening * abs(scenario.spot_shock - 1) for scenario in p.scenarios)
        shares = 2 + p.mm_perp + p.mm_factor * reach
        options = sum(
            _pmrm2_error(legs.options, legs.feed.spot, p, conditions.get(symbol, {}))
            for symbol, legs in account.legs.items()
        )
    size = abs(account.cash) + held + shares * (tokens + perpetuals)
    return options + (count + 32) * (_UNIT_ROUNDOFF * size + 1e-17 * shares)


_Conditions: TypeAlias = dict[tuple[int, float, bool], float]


def _conditions(portfolio: Portfolio, market: Market) -> dict[str, _Conditions]:
    """Return how much rounding errors grow on the way to each option's volatility: 1 where it is stated."""
    found: dict[str, _Conditions] = {}
    for position in portfolio.positions:
        option = position.instrument
        if not isinstance(option, Option):
            continue
        surface = market.underlyings[option.underlying].expiries[option.expiry].surface
        growth = 1.0
        if position.volatility is None and surface is not None:
            growth = _svi_condition(surface, option.strike)
        found.setdefault(option.underlying, {})[option.expiry, option.strike, option.call] = growth
    return found


def _svi_condition(one: Svi, strike: float) -> float:
    """Return the sum of the sizes that make up a variance, over the variance."""
    width = 4 * math.sqrt(max(0.0, one.a + one.b * one.sigma))
    k = min(width, max(-width, math.log(strike / one.forward)))
    off = k - one.m
    root = math.hypot(off, one.sigma)
    variance = one.a + one.b * (one.rho * off + root)
    sizes = abs(one.a) + one.b * (2 * root + abs(k) + abs(one.m) + 1)
    return sizes / variance if variance > 0 else math.inf


def _unit_errors(book: OptionBook, total: Float64, total_error: Float64) -> Float64:
    """Return the relative error of each price, of forward and strike together, ``(n,)``."""
    # The last seconds are few units of 1e-18 of a year, and their root is no better.
    years = np.minimum(1.0, np.maximum(1 / YEAR_S, book.years[book.at]))
    cut: Float64 = 4e-18 + 1.5e-18 * np.minimum(total, 24) / years
    relative: Float64 = 128 * _UNIT_ROUNDOFF + 0.4 * (np.minimum(total, 24) * total_error + cut)
    return relative + (len(book.strike) + 16) * _UNIT_ROUNDOFF


def _growth(book: OptionBook, conditions: _Conditions) -> Float64:
    """Return the relative error of each volatility, ``(n,)``."""
    rows = zip(book.at, book.strike, book.call, strict=True)
    growth = [conditions[book.expiries[at], float(strike), bool(call)] for at, strike, call in rows]
    relative: Float64 = (16 + 8 * np.array(growth, np.float64)) * _UNIT_ROUNDOFF
    return relative


def _cut_off(forward: Float64, strike: Float64) -> Float64:
    """Return what cutting off costs a price, dollars: a put may be many discounted forwards."""
    return 8e-18 * (1 + strike / np.where(forward > 0, forward, np.inf))


def _pmrm2_error(book: OptionBook, spot: float, p: Pmrm2Parameters, conditions: _Conditions) -> float:
    if not book.expiries:
        return 0.0
    u, years, rate = _UNIT_ROUNDOFF, book.years, np.maximum(book.rate, 0.0)
    forward, root = book.forward[book.at], np.sqrt(book.years)[book.at]
    used = {scenario.direction for scenario in p.scenarios}

    # How far off the largest total volatility is.
    left = np.maximum(book.seconds, p.vol_shock.dte_floor_s)
    powers = max(p.vol_shock.short_power, p.vol_shock.long_power)
    shock_error = (8 + 4 * powers * np.abs(np.log(THIRTY_DAYS_S / left)))[book.at] * u
    up, _ = p.vol_shock.factors(book.seconds)
    largest = np.maximum(p.vol_shock.min_vol_up, book.volatility * up[book.at])
    bend = np.zeros(len(book.strike))
    for direction in used & set(SKEWS):
        factor = p.skew.factor(book, direction)
        linear = direction is Direction.LINEAR
        base = p.skew.linear_cap if linear else p.skew.abs_cap
        slope = p.skew.linear_cap_slope if linear else p.skew.abs_cap_slope
        width = root * p.skew.width_scale * (p.skew.vol_static + root * p.skew.vol_scale)
        cap, k_star = base + slope * root, np.maximum(p.skew.min_k_star, width)
        k = np.abs(np.log(book.strike / forward))
        if np.any((cap < 1e-15) & (k < 1e-12)):
            return math.inf
        sizes = abs(base) + abs(slope) * root
        bend = np.maximum(bend, 8 * u * (sizes / k_star + np.abs(cap) * (1 + k) / k_star))
        largest = np.maximum(largest, book.volatility * factor)
    growth = _growth(book, conditions) + shock_error + bend
    unit = _unit_errors(book, largest * root, growth)

    # Discounts, and how far off each is.
    discount = np.exp(-rate * years)
    discount_error = u * (rate * years + 8) + 4e-18 / discount
    rule = p.discount
    long = years * (rate * rule.long_rate_mult + rule.long_rate_add)
    short = years * (rate * rule.short_rate_mult + rule.short_rate_add)
    positive, negative = rule.factors(years, rate)
    static = np.maximum(positive, negative)
    static_error = u * (16 + long + short) + 4e-18 * np.exp(np.minimum(short, 600)) + discount_error

    def of(shock: Float64, factor: Float64, relative: Float64) -> Float64:
        """Return the error of each shock's value, ``(s,)``, summed over the options."""
        moved = (shock[:, None] * book.variable + book.fixed)[:, book.at]
        sizes = discount[book.at] * (moved + book.strike) * factor[book.at]
        cut = _cut_off(moved, book.strike) * (1 + factor[book.at])
        summed: Float64 = np.sum(np.abs(book.amount) * (sizes * (unit + relative[book.at]) + cut), axis=-1)
        return summed

    one = np.ones(len(book.expiries))
    marks = float(of(np.ones(1), one, discount_error)[0])
    shocks = np.array([scenario.spot_shock for scenario in p.scenarios])
    dampening = np.array([scenario.dampening for scenario in p.scenarios])
    shocked = of(shocks, static, static_error + discount_error)
    worst = float(np.max(dampening * (shocked + marks)))
    weight = p.basis.add_factor + p.basis.mult_factor * years
    # At most: both shocks and the mark, each with its expiry's weight.
    basis = float(of(np.array([1.0, p.basis.up, p.basis.down]), weight, discount_error + 8 * u).sum())
    short_notional = float(np.abs(book.amount).sum()) * spot * p.mm_option
    return marks + p.mm_factor * max(worst, basis) + 32 * u * short_notional


def _srm_error(book: OptionBook, spot: float, p: SrmParameters, conditions: _Conditions) -> float:
    if not book.expiries:
        return 0.0
    u, forward = _UNIT_ROUNDOFF, book.forward[book.at]
    total = book.volatility * np.sqrt(book.years)[book.at]
    unit = _unit_errors(book, total, _growth(book, conditions))
    units, highest = np.abs(book.amount), float(book.strike.max())
    off = (forward + book.strike) * unit + _cut_off(forward, book.strike)
    priced = (units * off).sum() * (1 + p.mm_put_mtm_req)
    # Sums up to a strike are of twice the size of the payoffs that they are the difference of.
    needed = spot * (p.mm_call_spot_req + p.mm_put_spot_req) + forward * p.unpaired_mm_scale + 2 * highest
    return float(priced + (len(units) + 32) * (u * (units * needed).sum() + 1e-18 * units.sum()))


# -------------------------------------------------------------------------------------------- chain's figures


def on_chain(model: M) -> M:
    """Return a portfolio, a market or parameters with every figure cut to what 18 decimals can hold.

    Only figures below 0.01 can change: those that a float computed, such as a year's share of one day.

    Parameters
    ----------
    model
        Any frozen model of the project.
    """
    return type(model).model_validate(_cut(model.model_dump()))


def _cut(value: object) -> object:
    if isinstance(value, float):
        return fixed_math.on_chain(value)
    if isinstance(value, dict):
        return {key: _cut(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return tuple(_cut(item) for item in value)
    return value


def in_dollars(amount: int) -> float:
    """Return an amount at 1e18 in dollars."""
    return to_float(amount, 18)
