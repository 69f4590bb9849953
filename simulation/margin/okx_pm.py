"""OKX's portfolio margin, as far as it is published: MR1, MR4, MR6, MR7, MR8 and MR9 of linear books.

A risk unit is everything on one underlying, whatever it settles in. The unit's margin is
``max(max(MR1, MR2, MR6) + MR3 + MR4 + MR5, MR7) + MR8 + MR9``: the inner part and MR7's tiers are in an
announcement of the venue with an example in numbers (raw 30,000 make 50,000); the place of MR8 and MR9 and
the factor 1.3 of the initial margin are recalled. Source: reference of the margin engines, section 2.2.

Not published to us: the volatility shocks of MR1, MR2 and MR3 (theta and vega) and MR5 (interest), all of
options only, the raw minimum charge of MR7, its tiers of others than BTC and ETH, and the rates of MR8. An
account that needs one of them is refused with a line that says so; nothing is put in its place. MR2, MR3 and
MR5 are 0 without options.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Final

import numpy as np
from pydantic import Field, FiniteFloat, model_validator

from contracts_abi.errors import InputError
from simulation.margin import margin_methods
from simulation.margin.result import Grade, MarginResult, Parameters, ScenarioRow
from simulation.margin.scenario_grid import (
    Scenario,
    ScenarioMethod,
    delta_under,
    legs_of,
    move_label,
    of_underlying,
    only,
    part,
    profit_under,
    rows_of,
    scenario_set,
    underlyings_of,
    worst_label,
    worst_loss,
)
from simulation.portfolio.instruments import Future, Option, Perpetual, Portfolio, Spot
from simulation.portfolio.market import Market
from simulation.types import Float64

Tiers = tuple[tuple[float, float], ...]
Positive = Annotated[FiniteFloat, Field(gt=0)]

MAJOR: Final = ("BTC", "ETH")
LARGE_MR1: Final = ("LTC", "BCH", "EOS", "OKB", "DOT", "BSV", "LINK", "FIL", "ADA", "TRX", "UNI", "XRP")
LARGE_MR6: Final = ("SOL", "DOGE", "PEPE", "XRP", "BNB", "SHIB", "LTC", "ORDI", "WLD", "BCH", "ADA")
"""Underlyings of the second class, which differs between MR1 and MR4, MR6 (announcement of 2025-01-02)."""

MR7_TIERS: Final[Tiers] = (
    (10_000.0, 1.0),
    (70_000.0, 2.0),
    (170_000.0, 4.0),
    (300_000.0, 6.0),
    (470_000.0, 8.0),
    (700_000.0, 10.0),
    (math.inf, 12.0),
)
"""Upper end of the raw charge in dollars and multiplier, of BTC and ETH before January 2025."""

MR9_TIERS: Final[Tiers] = ((1_000_000.0, 0.0075), (5_000_000.0, 0.0175), (10_000_000.0, 0.025))
"""Upper end of the hedged size in dollars and factor, as far as the worked example goes."""


def price_moves(underlying: str) -> tuple[float, ...]:
    """Return the seven moves of MR1 from the lowest. Source: announcement of 2025-01-02."""
    steps = (0.04, 0.08, 0.12) if underlying in MAJOR else (0.08, 0.16, 0.25)
    if underlying in LARGE_MR1:
        steps = (0.06, 0.12, 0.18)
    return (*(-step for step in reversed(steps)), 0.0, *steps)


def extreme_move(underlying: str) -> float:
    """Return the move of MR6, on either side. Source: announcement of 2025-01-02."""
    if underlying in MAJOR:
        return 0.24
    return 0.36 if underlying in LARGE_MR6 else 0.5


def annualised_move(underlying: str) -> float:
    """Return the annualised move of MR4. Source: announcement of 2025-01-02."""
    if underlying in MAJOR:
        return 0.05
    return 0.15 if underlying in LARGE_MR6 else 0.3


def spot_shock(profits: Float64) -> float:
    """Return MR1: the largest loss over the grid of prices and volatilities, dollars."""
    return worst_loss(profits)


def basis_risk(deltas: Sequence[float], years: Sequence[float], index: float, move: float) -> float:
    """Return MR4: forwards move against each other by an annualised share, dollars.

    Parameters
    ----------
    deltas
        Net delta by expiry, units of the underlying.
    years
        To each expiry.
    index
        Dollars of the underlying.
    move
        Annualised, of `annualised_move`.

    Notes
    -----
    ``sum |delta| * (exp(move * years) - 1) * index``. The rates are published, the form is recalled.
    """
    return index * sum(abs(d) * math.expm1(move * t) for d, t in zip(deltas, years, strict=True))


def extreme_loss(profits: Float64, share: float = 0.5) -> float:
    """Return MR6: a share of the largest loss at the extreme moves, dollars. The half is recalled."""
    return share * worst_loss(profits)


def tiered(amount: float, tiers: Tiers) -> float:
    """Return an amount charged step by step, as an income tax is.

    Parameters
    ----------
    amount
        Not negative.
    tiers
        Upper end and factor, from the lowest; a factor holds for what lies within its tier.

    Raises
    ------
    InputError
        If the amount is negative or no number, or beyond the last tier.
    """
    if not amount >= 0:
        raise InputError(f"an amount of {amount:g} has no tier", fix="give 0 or more")
    total = low = 0.0
    for high, factor in tiers:
        total += factor * max(0.0, min(amount, high) - low)
        low = high
    if amount > low:
        raise InputError(
            f"an amount of {amount:g} is beyond the last known tier, {low:g}", fix="give the further tiers"
        )
    return total


def minimum_charge(raw: float, tiers: Tiers = MR7_TIERS) -> float:
    """Return MR7 for a raw minimum charge, dollars.

    Raises
    ------
    InputError
        If the charge is negative or no number.

    Notes
    -----
    The venue's example: 30,000 raw make ``10,000 + 20,000 * 2 = 50,000``.
    """
    return tiered(raw, tiers)


def borrowing_charge(borrowed: Mapping[str, float], rates: Mapping[str, float]) -> float:
    """Return MR8: the margin for what is borrowed, dollars.

    Parameters
    ----------
    borrowed
        Symbol to dollars, not negative.
    rates
        Symbol to the maintenance rate of its tier.

    Raises
    ------
    InputError
        If a rate is not given; the venue's tables are not known here.
    """
    for symbol in borrowed:
        if symbol not in rates:
            raise InputError(
                f"okx.pm: no borrowing rate of {symbol}", fix="give the venue's in borrowing_rates"
            )
    return sum(amount * rates[symbol] for symbol, amount in borrowed.items())


def hedged_size(deltas: Mapping[str, float]) -> float:
    """Return what legs in different quote currencies hedge of each other, dollars.

    Parameters
    ----------
    deltas
        Quote currency to the dollars of its net delta.

    Notes
    -----
    The smaller of all long and all short, whatever the order in which pairs of currencies are formed.
    """
    long = sum(max(0.0, delta) for delta in deltas.values())
    short = sum(max(0.0, -delta) for delta in deltas.values())
    return min(long, short)


def depeg_charge(hedged: float, tiers: Tiers = MR9_TIERS) -> float:
    """Return MR9: what a stablecoin that leaves its peg costs a hedge over two currencies, dollars.

    Raises
    ------
    InputError
        If the size is negative, or beyond the tiers of the venue's example.

    Notes
    -----
    The venue's example: 10 million make ``1M * .75 % + 4M * 1.75 % + 5M * 2.5 % = 202,500``.
    """
    return tiered(hedged, tiers)


class OkxParameters(Parameters):
    """What OKX publishes, and what a user who knows more can add.

    Attributes
    ----------
    minimum_charge_rate
        Raw minimum charge (MR7) as a share of the notional of perpetuals and futures; not published to us.
    minimum_charge_tiers
        Underlying to upper ends in dollars and multipliers of MR7, ascending; known of BTC and ETH only.
    extreme_share
        Of the extreme loss that MR6 counts.
    borrowing_rates
        Symbol to maintenance rate of what is borrowed (MR8); not published to us.
    linear_quote
        Currency that linear instruments settle in; inverse ones count as ``USD``.
    initial_factor
        Initial over maintenance margin of derivatives.
    """

    minimum_charge_rate: Annotated[FiniteFloat, Field(ge=0, le=1)] | None = None
    minimum_charge_tiers: Mapping[str, tuple[tuple[Positive, Positive], ...]] = Field(default_factory=dict)
    extreme_share: Annotated[FiniteFloat, Field(gt=0, le=1)] = 0.5
    borrowing_rates: Mapping[str, Annotated[FiniteFloat, Field(ge=0)]] = Field(default_factory=dict)
    linear_quote: str = "USDT"
    initial_factor: Annotated[FiniteFloat, Field(ge=1)] = 1.3

    @model_validator(mode="after")
    def _tiers_ascend(self) -> OkxParameters:
        """Refuse tiers out of order."""
        for symbol, tiers in self.minimum_charge_tiers.items():
            ends = [end for end, _ in tiers]
            if not ends or ends != sorted(set(ends)):
                raise InputError(f"the tiers of {symbol} do not ascend", fix="sort them, each end once")
        return self

    def tiers(self, symbol: str) -> Tiers:
        """Return the tiers of MR7 of an underlying.

        Raises
        ------
        InputError
            If they are not known.
        """
        if symbol in self.minimum_charge_tiers:
            return self.minimum_charge_tiers[symbol]
        if symbol in MAJOR:
            return MR7_TIERS
        raise InputError(
            f"okx.pm: the tiers of MR7 of {symbol} are not published to us", fix="give minimum_charge_tiers"
        )


@margin_methods.register("okx.pm")
class OkxPm(ScenarioMethod):
    """OKX's portfolio margin of perpetuals and futures, inverse and linear, with tokens as equity or debt.

    It refuses to answer for what the venue has not published to us: options, any derivative without
    `OkxParameters.minimum_charge_rate`, and one on another underlying than BTC and ETH without tiers. Its
    components are functions of this module.

    Attributes
    ----------
    parameters
        What is published, and what a user adds.
    """

    kind: ClassVar[str] = "okx.pm"
    grade: ClassVar[Grade] = Grade.RECALLED
    source: ClassVar[str] = (
        "OKX announcements 2025-01-02 (MR1, MR4, MR6 sizes) and on the scaling factor (MR7, sum of the unit);"
        " MR9 worked example; form of MR4, half of MR6 and factor 1.3 recalled;"
        " reference of the margin engines 2.2"
    )

    parameters: OkxParameters = OkxParameters()

    def _answer(self, portfolio: Portfolio, market: Market) -> MarginResult:
        p = self.parameters
        only(portfolio, self.kind, Spot, Perpetual, Future, Option)
        if any(isinstance(position.instrument, Option) for position in portfolio.positions):
            raise InputError(
                "okx.pm: MR2, MR3 and MR5 of options are not published to us", fix="leave options out"
            )
        derivatives = part(portfolio, lambda position: not isinstance(position.instrument, Spot))
        if derivatives.positions and p.minimum_charge_rate is None:
            raise InputError(
                "okx.pm: the raw minimum charge of MR7 is not published to us", fix="give minimum_charge_rate"
            )
        sums = dict.fromkeys(("mr1", "mr4", "mr6", "mr7", "mr9"), 0.0)
        derivative = 0.0
        rows: list[ScenarioRow] = []
        for symbol in underlyings_of(derivatives):
            unit = of_underlying(derivatives, symbol)
            found, array = self._unit(symbol, unit, market)
            rows.extend(array)
            for name, value in found.items():
                sums[name] += value
            inner = max(found["mr1"], found["mr6"]) + found["mr4"]
            derivative += max(inner, found["mr7"]) + found["mr9"]
        mr8 = borrowing_charge(_borrowed(portfolio, market), p.borrowing_rates)
        return self._result(
            portfolio,
            market,
            p.initial_factor * derivative + mr8,
            derivative + mr8,
            worst=worst_label(rows),
            rows=tuple(rows),
            components={**sums, "mr2": 0.0, "mr3": 0.0, "mr5": 0.0, "mr8": mr8},
        )

    def _unit(
        self, symbol: str, unit: Portfolio, market: Market
    ) -> tuple[dict[str, float], tuple[ScenarioRow, ...]]:
        p, legs, deltas = self.parameters, legs_of(unit, market), delta_under(unit, market)[0]
        index, far = float(legs.spot[0]), extreme_move(symbol)
        first = scenario_set(
            Scenario(label=f"{symbol} {move_label(move)}", every=1.0 + move) for move in price_moves(symbol)
        )
        extreme = scenario_set(
            Scenario(label=f"{symbol} extreme {move_label(move)}", every=1.0 + move) for move in (-far, far)
        )
        near = profit_under(unit, market, first).sum(axis=1)
        ends = profit_under(unit, market, extreme).sum(axis=1)
        expiries = sorted({int(s) for s in legs.seconds if s >= 0})
        quoted = {
            "USD": index * float(deltas[legs.inverse].sum()),
            p.linear_quote: index * float(deltas[~legs.inverse].sum()),
        }
        raw = (p.minimum_charge_rate or 0.0) * index * float(np.abs(deltas).sum())
        return {
            "mr1": spot_shock(near),
            "mr4": basis_risk(
                [float(deltas[legs.seconds == s].sum()) for s in expiries],
                [market.years(market.timestamp + s) for s in expiries],
                index,
                annualised_move(symbol),
            ),
            "mr6": extreme_loss(ends, p.extreme_share),
            "mr7": minimum_charge(raw, p.tiers(symbol)),
            "mr9": depeg_charge(hedged_size(quoted)) if p.linear_quote != "USD" else 0.0,
        }, rows_of(first.labels, near) + rows_of(extreme.labels, p.extreme_share * ends)


def _borrowed(portfolio: Portfolio, market: Market) -> dict[str, float]:
    """Return what an account owes, symbol to dollars; a debt in cash under ``cash``."""
    owed = part(portfolio, lambda p: isinstance(p.instrument, Spot) and p.quantity < 0)
    legs = legs_of(owed, market)
    out: dict[str, float] = {}
    for i, at in enumerate(legs.symbol):
        symbol = legs.symbols[int(at)]
        out[symbol] = out.get(symbol, 0.0) - float(legs.quantity[i] * legs.spot[i])
    if portfolio.cash < 0:
        out["cash"] = -portfolio.cash * market.stable_price
    return out
