"""Deribit's segregated portfolio margin (S:PM): each settlement currency alone, 35 scenarios, two shocks.

Coins for what settles in its underlying, dollars for what settles in dollars. Of each pair of underlying and
currency a risk vector is built, profits in it count in part only, and the vectors of one currency are added:

- standard rows: nine moves of the price up to `price_range`, each with volatility down, same and up;
- extended rows: moves from -66 % to +500 % with volatility up, scaled back to the size of the outermost
  bucket and dampened;
- ``risk_matrix_margin = worst_case + roll_shock + delta_shock + correlation_contingency``;
- initial: that, with margins for open orders, market maker protection and spot, which no portfolio holds;
  maintenance: `mm_factor` of it.

Founded on: the example of the venue's own page of ``private/pme/simulate`` and one captured answer, both with
perpetuals and futures only, which this reproduces (`from_example`). Recalled or from third parties: all that
only options or large accounts meet (the floors of the volatility shocks, the exponential branch of the roll
shock, the slope of the delta shock, how extended rows are dampened where that leaves anything). Source:
reference of the margin engines, section 2.1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated, Any, ClassVar, Final

import numpy as np
from pydantic import Field, FiniteFloat, ValidationError, model_validator

from contracts_abi.errors import InputError
from oracle.strict import StrictModel, input_error
from simulation.margin import margin_methods
from simulation.margin.result import Grade, MarginResult, Parameters, ScenarioRow
from simulation.margin.scenario_grid import (
    Scenario,
    ScenarioMethod,
    ScenarioSet,
    VolRule,
    VolShock,
    delta_under,
    grid,
    legs_of,
    move_label,
    of_underlying,
    only,
    part,
    rows_of,
    scenario_set,
    settlement_profit_under,
    underlying_of,
    worst_label,
    worst_loss,
)
from simulation.margin.vectors import reads
from simulation.portfolio.instruments import Future, Option, Perpetual, Portfolio, Position, Spot
from simulation.portfolio.market import Expiry, Market, Underlying
from simulation.types import Float64

PositiveFloat = Annotated[FiniteFloat, Field(gt=0)]
NonNegative = Annotated[FiniteFloat, Field(ge=0)]
Share = Annotated[FiniteFloat, Field(ge=0, le=1)]

DOLLARS: Final = "USD"
"""Settlement currency of linear instruments."""

EXTENDED_MOVES: Final = (-0.66, -0.33, 0.5, 1.0, 2.0, 3.0, 4.0, 5.0)


class PairParameters(StrictModel):
    """What Deribit sets for a pair of underlying and dollar; names are the venue's.

    Attributes
    ----------
    price_range
        Outermost move of the standard rows.
    volatility_range_up, volatility_range_down
        Relative shock of an option of 30 days.
    min_volatility_for_shock_up
        What volatilities are at least after a shock up.
    short_term_vega_power, long_term_vega_power
        Power of 30 over the days to expiry, below 30 days and from there on.
    extended_table_factor
        Factor on the extended rows.
    m_inc
        Share that the delta shock grows by with each coin of delta beyond the threshold.
    max_delta_shock
        Share that it stops at.
    delta_total_liq_shock_threshold
        Dollars of delta below which there is none.
    """

    price_range: Annotated[FiniteFloat, Field(gt=0, lt=1)]
    volatility_range_up: NonNegative = 0.5
    volatility_range_down: Share = 0.25
    min_volatility_for_shock_up: NonNegative = 0.5
    short_term_vega_power: NonNegative = 0.3
    long_term_vega_power: NonNegative = 0.13
    extended_table_factor: NonNegative = 1.0
    m_inc: NonNegative = 5e-5
    max_delta_shock: Share = 0.1
    delta_total_liq_shock_threshold: NonNegative = 20_000_000.0


class CurrencyParameters(StrictModel):
    """What Deribit sets for a settlement currency; names are the venue's.

    Attributes
    ----------
    min_annualised_move, annualised_move_risk
        Least share of the roll shock, and what it grows by in a year.
    extended_dampener
        Dollars that an extended row is lessened by for each `price_range` of its move beyond the first.
    pnl_offset
        Share of a profit that counts against the losses of other pairs.
    max_offsetable_pnl
        Dollars that a profit counts for at most.
    """

    min_annualised_move: Share
    annualised_move_risk: NonNegative
    extended_dampener: NonNegative
    pnl_offset: Share = 0.0
    max_offsetable_pnl: NonNegative = 0.0


class DeribitParameters(Parameters):
    """The pairs and currencies that are known, as of the example (June 2024) and the capture (February 2026).

    Attributes
    ----------
    pairs
        Underlying to the parameters of its pair with the dollar.
    currencies
        Settlement currency to its parameters; ``USD`` for what settles in dollars.
    buckets_count
        Moves of the price on either side.
    mm_factor
        Maintenance over initial.
    extended_moves
        Moves of the extended rows; each beyond every pair's `price_range`.
    """

    pairs: Mapping[str, PairParameters] = Field(
        default_factory=lambda: {
            "BTC": PairParameters(price_range=0.16),
            "ETH": PairParameters(price_range=0.18, volatility_range_up=0.4, m_inc=4e-6),
        }
    )
    currencies: Mapping[str, CurrencyParameters] = Field(
        default_factory=lambda: {
            "BTC": CurrencyParameters(
                min_annualised_move=0.01, annualised_move_risk=0.075, extended_dampener=100_000
            ),
            "ETH": CurrencyParameters(
                min_annualised_move=0.005,
                annualised_move_risk=0.05,
                extended_dampener=200_000,
                pnl_offset=0.6,
                max_offsetable_pnl=20_000_000,
            ),
            DOLLARS: CurrencyParameters(
                min_annualised_move=0.01,
                annualised_move_risk=0.1,
                extended_dampener=25_000,
                pnl_offset=0.4,
                max_offsetable_pnl=1_000_000,
            ),
        }
    )
    buckets_count: Annotated[int, Field(ge=1, le=50)] = 4
    mm_factor: Share = 0.8
    extended_moves: tuple[Annotated[FiniteFloat, Field(gt=-1)], ...] = EXTENDED_MOVES

    @model_validator(mode="after")
    def _extended_lie_outside(self) -> DeribitParameters:
        """Refuse an extended move that the standard rows already cover."""
        for underlying, pair in self.pairs.items():
            for move in self.extended_moves:
                if abs(move) <= pair.price_range:
                    raise InputError(
                        f"extended move {move:g} is within {underlying}'s price range {pair.price_range:g}",
                        fix="give moves beyond it",
                    )
        return self


@dataclass(frozen=True, slots=True)
class PairRisk:
    """The risk vectors of one pair in its settlement currency, before profits are cut.

    Attributes
    ----------
    standard
        Profit in each standard row, lowest price first, volatility down, same, up; shape (rows, positions).
    extended
        Scaled profit in each extended row before dampening, shape (rows, positions).
    deltas
        Delta of each position, units of the underlying.
    """

    standard: Float64
    extended: Float64
    deltas: Float64


@dataclass(frozen=True, slots=True)
class CurrencyMargin:
    """What one settlement currency demands, in that currency.

    Attributes
    ----------
    currency
        Symbol.
    dollars
        Of one unit.
    standard, extended
        The aggregated rows.
    labels
        Of both, in order.
    worst_case, roll_shock, delta_shock
        The parts of the risk matrix margin.
    pairs
        The rows by position, by underlying.
    """

    currency: str
    dollars: float
    standard: Float64
    extended: Float64
    labels: tuple[str, ...]
    worst_case: float
    roll_shock: float
    delta_shock: float
    pairs: Mapping[str, PairRisk] = field(default_factory=dict)

    @property
    def risk_matrix_margin(self) -> float:
        """The sum of the parts; the correlation contingency of cross portfolio margin is none here."""
        return self.worst_case + self.roll_shock + self.delta_shock


@lru_cache(maxsize=64)
def standard_scenarios(pair: PairParameters, buckets: int) -> ScenarioSet:
    """Return the standard rows of a pair: lowest price first, volatility down, same, up.

    Source: reference of the margin engines, section 2.1; the floors of the volatility shocks are recalled.
    """
    return grid(
        [pair.price_range * i / buckets for i in range(-buckets, buckets + 1)],
        {
            "vol down": _volatility(pair, up=False),
            "vol same": VolShock(),
            "vol up": _volatility(pair, up=True),
        },
    )


@lru_cache(maxsize=64)
def extended_scenarios(pair: PairParameters, moves: tuple[float, ...]) -> ScenarioSet:
    """Return the extended rows of a pair, volatility up only. Source: as `standard_scenarios`."""
    up = _volatility(pair, up=True)
    return scenario_set(
        Scenario(label=f"extended {move_label(move)}, vol up", every=1.0 + move, volatility=up)
        for move in moves
    )


def _volatility(pair: PairParameters, *, up: bool) -> VolShock:
    return VolShock(
        rule=VolRule.TERM,
        size=pair.volatility_range_up if up else -pair.volatility_range_down,
        short_power=pair.short_term_vega_power,
        long_power=pair.long_term_vega_power,
        least=pair.min_volatility_for_shock_up if up else 0.0,
    )


def extended_factors(pair: PairParameters, moves: Sequence[float], *, coin: bool) -> Float64:
    """Return what extended rows are multiplied by: the row of a future becomes that of its outermost bucket.

    Parameters
    ----------
    pair
        Of the underlying.
    moves
        Relative, shape (rows,).
    coin
        Whether the rows are in coins, whose price moves too.

    Notes
    -----
    ``factor * range / |s|``, in coins also times ``(1 + s) / (1 + sign(s) * range)``. Source: reference of
    the margin engines, section 2.1; reproduced in coins, and in dollars by the same condition.
    """
    move = np.asarray(moves, dtype=np.float64)
    factor = pair.extended_table_factor * pair.price_range / np.abs(move)
    edge = 1.0 + np.sign(move) * pair.price_range
    return np.asarray(factor * (1.0 + move) / edge if coin else factor)


def dampened(
    rows: Float64, pair: PairParameters, dampener: float, moves: Sequence[float], *, index: float | None
) -> Float64:
    """Return extended rows, lessened towards 0.

    Parameters
    ----------
    rows
        Of a whole pair, in its settlement currency, shape (rows,).
    pair
        Of the underlying.
    dampener
        Dollars for each range beyond the first.
    moves
        Of the rows.
    index
        Dollars of the underlying, for rows in coins; None for rows in dollars.

    Notes
    -----
    The published rows, losses and profits, all become 0. How a larger row is lessened is third-party
    knowledge for losses, and taken to be the same for profits, which recognises less. Source: reference of
    the margin engines, section 2.1.
    """
    move = np.asarray(moves, dtype=np.float64)
    edge = 1.0 if index is None else (1.0 + np.sign(move) * pair.price_range) * index
    reach = np.maximum(np.abs(move) / pair.price_range, 1.0) - 1.0
    left = np.maximum(np.abs(rows) - reach * dampener / edge, 0.0)
    return np.asarray(np.sign(rows) * left)


def offset(rows: Float64, share: float, most: float) -> Float64:
    """Return rows with their profits cut to a share and a cap, in the rows' own currency."""
    return np.asarray(np.where(rows > 0, np.minimum(rows * share, most), rows))


def roll_shock(
    deltas: Mapping[int | None, float], years: Callable[[int], float], least: float, growth: float
) -> float:
    """Return the roll shock in units of the underlying.

    Parameters
    ----------
    deltas
        Net delta by expiry; None for perpetuals, which have the least share.
    years
        Expiry to years.
    least, growth
        Least share, and what ``exp(growth * years) - 1`` grows by.

    Notes
    -----
    The least share is reproduced from the published examples; the exponential branch is third-party
    knowledge. Source: reference of the margin engines, section 2.1.
    """
    total = 0.0
    for expiry, delta in deltas.items():
        share = least if expiry is None else max(least, math.expm1(growth * years(expiry)))
        total += abs(delta) * share
    return total


def delta_shock(delta: float, index: float, pair: PairParameters) -> float:
    """Return the delta shock in units of the underlying.

    Parameters
    ----------
    delta
        Net delta, units of the underlying.
    index
        Dollars of the underlying.
    pair
        Of the underlying.

    Notes
    -----
    0 up to the threshold, as the examples say; beyond it the share grows by `m_inc` for each coin up to
    `max_delta_shock`. That slope is third-party knowledge and not verified. Source: reference of the margin
    engines, section 2.1.
    """
    beyond = max(0.0, abs(delta) - pair.delta_total_liq_shock_threshold / index)
    return abs(delta) * min(pair.max_delta_shock, pair.m_inc * beyond)


def currency_of(position: Position) -> str:
    """Return the settlement currency of a derivative: its underlying if it is inverse, else the dollar."""
    instrument = position.instrument
    inverse = isinstance(instrument, Perpetual | Future | Option) and instrument.inverse
    return underlying_of(position) if inverse else DOLLARS


def in_currency(portfolio: Portfolio, currency: str) -> Portfolio:
    """Return the positions that settle in a currency, without cash."""
    return part(portfolio, lambda position: currency_of(position) == currency)


@margin_methods.register("deribit.spm")
class DeribitSpm(ScenarioMethod):
    """Deribit's segregated portfolio margin, of perpetuals, futures and options, inverse and linear.

    Every settlement currency is margined alone and their requirements are added; the equity is of all, in
    dollars, so that a coin's surplus stands beside a dollar's deficit, which the venue would not net. Tokens
    count as equity and are not shocked. Open orders, market maker protection and spot orders are not in a
    portfolio, so their margins are 0.

    Attributes
    ----------
    parameters
        The pairs, currencies and the grid.
    """

    kind: ClassVar[str] = "deribit.spm"
    # The venue's two answers hold linear legs alone: that verifies half of the method, not the method.
    grade: ClassVar[Grade] = Grade.CHECKED
    source: ClassVar[str] = (
        "Deribit private/pme/simulate, linear legs verified by an example and a capture; options, exponential"
        " roll shock and delta shock recalled; reference of the margin engines 2.1"
    )

    parameters: DeribitParameters = DeribitParameters()

    def currencies(self, portfolio: Portfolio, market: Market) -> tuple[CurrencyMargin, ...]:
        """Return what each settlement currency demands, in that currency, in order of first use.

        Raises
        ------
        InputError
            For an instrument or an underlying that the method does not know, an expired instrument, a
            volatility that is not positive.
        PriceMissing
            If a price is missing or no number.
        """
        only(portfolio, self.kind, Spot, Perpetual, Future, Option)
        for position in portfolio.positions:
            if isinstance(position.instrument, Spot) and position.quantity < 0:
                raise InputError(
                    f"{self.kind} knows no borrowed {underlying_of(position)}", fix="leave the debt out"
                )
        derivatives = part(portfolio, lambda position: not isinstance(position.instrument, Spot))
        known = dict.fromkeys(currency_of(position) for position in derivatives.positions)
        return tuple(
            self._currency(currency, in_currency(derivatives, currency), market) for currency in known
        )

    def _currency(self, currency: str, held: Portfolio, market: Market) -> CurrencyMargin:
        p, coin = self.parameters, currency != DOLLARS
        if currency not in p.currencies:
            raise InputError(
                f"{self.kind} has no parameters of currency {currency}", fix="add it to currencies"
            )
        of_currency = p.currencies[currency]
        standard = np.zeros(6 * p.buckets_count + 3)
        extended = np.zeros(len(p.extended_moves))
        roll = delta = 0.0
        dollars, pairs = 1.0, {}
        labels: tuple[str, ...] = ()
        for symbol in dict.fromkeys(underlying_of(position) for position in held.positions):
            if symbol not in p.pairs:
                raise InputError(
                    f"{self.kind} has no parameters of underlying {symbol}", fix="add it to pairs"
                )
            pair = p.pairs[symbol]
            of_symbol = of_underlying(held, symbol)
            index = float(legs_of(of_symbol, market).spot[0])
            # Coins of the underlying for a coin, dollars for dollars: what a unit of delta is worth.
            unit = 1.0 if coin else index
            dollars = index if coin else 1.0
            risk = self._pair(pair, of_symbol, market, coin=coin)
            pairs[symbol] = risk
            most = of_currency.max_offsetable_pnl / dollars
            standard += offset(risk.standard.sum(axis=1), of_currency.pnl_offset, most)
            left = dampened(
                risk.extended.sum(axis=1),
                pair,
                of_currency.extended_dampener,
                p.extended_moves,
                index=index if coin else None,
            )
            extended += offset(left, of_currency.pnl_offset, most)
            roll += unit * roll_shock(
                _by_expiry(of_symbol, risk.deltas),
                market.years,
                of_currency.min_annualised_move,
                of_currency.annualised_move_risk,
            )
            delta += unit * delta_shock(float(risk.deltas.sum()), index, pair)
            labels = self._labels(pair)
        return CurrencyMargin(
            currency=currency,
            dollars=dollars,
            standard=standard,
            extended=extended,
            labels=labels,
            worst_case=worst_loss(np.concatenate([standard, extended])),
            roll_shock=roll,
            delta_shock=delta,
            pairs=pairs,
        )

    def _pair(self, pair: PairParameters, held: Portfolio, market: Market, *, coin: bool) -> PairRisk:
        p = self.parameters
        far = settlement_profit_under(held, market, extended_scenarios(pair, p.extended_moves))
        return PairRisk(
            standard=settlement_profit_under(held, market, standard_scenarios(pair, p.buckets_count)),
            extended=extended_factors(pair, p.extended_moves, coin=coin)[:, None] * far,
            deltas=delta_under(held, market)[0],
        )

    def _labels(self, pair: PairParameters) -> tuple[str, ...]:
        standard = standard_scenarios(pair, self.parameters.buckets_count)
        return (*standard.labels, *extended_scenarios(pair, self.parameters.extended_moves).labels)

    def _answer(self, portfolio: Portfolio, market: Market) -> MarginResult:
        found = self.currencies(portfolio, market)
        rows: list[ScenarioRow] = []
        for one in found:
            prefix = f"{one.currency}: " if len(found) > 1 else ""
            profits = one.dollars * np.concatenate([one.standard, one.extended])
            rows.extend(rows_of(one.labels, profits, prefix=prefix))
        components = {
            "worst_case": sum(one.worst_case * one.dollars for one in found),
            "roll_shock": sum(one.roll_shock * one.dollars for one in found),
            "delta_shock": sum(one.delta_shock * one.dollars for one in found),
            "correlation_contingency": 0.0,
        }
        initial = sum(components.values())
        return self._result(
            portfolio,
            market,
            initial,
            self.parameters.mm_factor * initial,
            worst=worst_label(rows),
            rows=tuple(rows),
            components={**components, "risk_matrix_margin": initial},
        )


def _by_expiry(held: Portfolio, deltas: Float64) -> dict[int | None, float]:
    out: dict[int | None, float] = {}
    for position, delta in zip(held.positions, deltas, strict=True):
        instrument = position.instrument
        expiry = instrument.expiry if isinstance(instrument, Future | Option) else None
        out[expiry] = out.get(expiry, 0.0) + float(delta)
    return out


@dataclass(frozen=True, slots=True)
class Example:
    """A published answer of the venue, and what to compare it with; all in the settlement currency.

    Attributes
    ----------
    method, portfolio, market
        What to ask, of whom, in which state.
    extra
        Margins for open orders, market maker protection and spot, as the venue states them.
    expected
        Name to the published numbers.
    tolerance
        Name to the absolute difference that is allowed.
    """

    method: DeribitSpm
    portfolio: Portfolio
    market: Market
    extra: float
    expected: Mapping[str, tuple[float, ...]]
    tolerance: Mapping[str, float]

    def computed(self) -> dict[str, tuple[float, ...]]:
        """Return what this method says of what is `expected`."""
        answers = self.answers()
        return {name: answers[name] for name in self.expected}

    def answers(self) -> dict[str, tuple[float, ...]]:
        """Return all that this method says, under the venue's names.

        Standard rows of linear legs are the same for each volatility: of each three the middle one.
        """
        (one,) = self.method.currencies(self.portfolio, self.market)
        (risk,) = one.pairs.values()
        initial = one.risk_matrix_margin
        answer: dict[str, Any] = {
            "aggregated_rows": one.standard[1::3],
            "extended_aggregated": one.extended,
            "worst_case": one.worst_case,
            "roll_shock": one.roll_shock,
            "delta_shock": one.delta_shock,
            "correlation_contingency": 0.0,
            "risk_matrix_margin": initial,
            "initial_margin": initial + self.extra,
            "maintenance_margin": self.method.parameters.mm_factor * initial,
        }
        for i, position in enumerate(self.portfolio.positions):
            name = position.instrument.type
            answer[f"standard_rows {name}"] = risk.standard[1::3, i]
            answer[f"extended_rows {name}"] = risk.extended[:, i]
        return {name: tuple(float(v) for v in np.atleast_1d(value)) for name, value in answer.items()}


_ROWS: Final = {
    "standard_rows_perp_low_to_high_bucket": "standard_rows perpetual",
    "standard_rows_future": "standard_rows future",
    "extended_perp": "extended_rows perpetual",
    "standard_rows": "standard_rows perpetual",
    "aggregated_rows": "aggregated_rows",
    "extended_aggregated": "extended_aggregated",
}
_SUMS: Final = (
    "worst_case",
    "roll_shock",
    "delta_shock",
    "correlation_contingency",
    "risk_matrix_margin",
    "initial_margin",
    "maintenance_margin",
)


def from_example(case: Mapping[str, Any]) -> Example:
    """Return one case of the venue's published examples, ready to compare.

    Parameters
    ----------
    case
        ``positions`` (instrument to coins, signed), ``marks``, ``index``, ``params``, the published rows and
        sums; the schema of ``deribit/pme_examples.json`` of the acceptance vectors.

    Raises
    ------
    InputError
        If a position is no perpetual or dated future, a key is missing, or a parameter is out of bounds.

    Notes
    -----
    Rows are compared to 1e-12, sums, which the venue rounds, to 1e-8.
    """
    try:
        index, marks, params = float(case["index"]), case["marks"], dict(case["params"])
        symbol = next(iter(case["positions"])).partition("-")[0]
        # Without a time nothing expires, and none is needed.
        now = int(case.get("timestamp_ms", 0)) // 1000
        legs = [(name, float(coins), float(marks[name])) for name, coins in case["positions"].items()]
    except (KeyError, StopIteration) as missing:
        raise InputError(f"an example of Deribit without {missing}", fix="give it") from None
    expiries = {_expiry(name): Expiry(forward=mark) for name, _, mark in legs if not _perpetual(name)}
    perpetual = next((mark for name, _, mark in legs if _perpetual(name)), None)
    positions = tuple(
        Position(
            instrument=Perpetual(underlying=symbol, inverse=True)
            if _perpetual(name)
            else Future(underlying=symbol, expiry=_expiry(name), inverse=True),
            quantity=coins * mark,
        )
        for name, coins, mark in legs
    )
    of_currency = {key: params.pop(key) for key in tuple(CurrencyParameters.model_fields) if key in params}
    common = {key: params.pop(key) for key in ("buckets_count", "mm_factor") if key in params}
    params.pop("vol_scenarios_count", None)
    try:
        parameters = DeribitParameters(
            pairs={symbol: PairParameters(**params)},
            currencies={symbol: CurrencyParameters(**of_currency)},
            **common,
        )
    except ValidationError as error:
        raise input_error(error, "params") from None
    expected = {_ROWS[key]: tuple(case[key]) for key in _ROWS if key in case}
    sums = {key: (float(case[key]),) for key in _SUMS if key in case}
    return Example(
        method=DeribitSpm(parameters=parameters),
        portfolio=Portfolio(account="example", positions=positions),
        market=Market(
            timestamp=now,
            underlyings={symbol: Underlying(spot=index, perpetual=perpetual, expiries=expiries)},
        ),
        extra=sum(float(case.get(key, 0.0)) for key in ("open_orders_margin", "mmp_margin", "spot_margin")),
        expected={**expected, **sums},
        tolerance={**dict.fromkeys(expected, 1e-12), **dict.fromkeys(sums, 1e-8)},
    )


def _perpetual(name: str) -> bool:
    return name.endswith("-PERPETUAL")


def _expiry(name: str) -> int:
    """Return the expiry of a future, 08:00 UTC of the day in its name."""
    day = name.partition("-")[2]
    try:
        return int(datetime.strptime(f"{day} 08 +0000", "%d%b%y %H %z").astimezone(UTC).timestamp())
    except ValueError:
        raise InputError(f"{name!r} is no perpetual or dated future", fix="use BTC-28JUN24") from None


@dataclass(frozen=True, slots=True)
class ExampleCase:
    """One example of a file, as `marginline margin check` asks for it.

    Attributes
    ----------
    name
        The file's stem and the key in it.
    example
        What to ask of whom.
    """

    name: str
    example: Example

    def record(self) -> dict[str, Any]:
        """Return the figures under the venue's names, in the settlement currency; rows as lists.

        ``im`` and ``mm`` are the venue's requirements: its examples state no equity.
        """
        figures = self.example.answers()
        return {
            "case": self.name,
            "im": figures["initial_margin"][0],
            "mm": figures["maintenance_margin"][0],
            **{key: values[0] if key in _SUMS else list(values) for key, values in figures.items()},
        }


@reads("deribit.spm")
def _examples(stem: str, value: Any) -> Iterator[ExampleCase]:
    for key, case in value.items():
        # Beside its cases the file has a note.
        if isinstance(case, Mapping):
            yield ExampleCase(f"{stem}:{key}", from_example(case))
