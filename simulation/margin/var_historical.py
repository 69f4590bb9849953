"""Value at risk by history: past moves on today's portfolio, as they were or at today's volatility.

What all statistical methods share stands here too: the history of factor moves, and `revalue`, which prices a
portfolio in full after any number of them. A factor is a symbol (its logarithmic return multiplies every
price of that symbol, the forwards too) or ``SYMBOL.vol`` (a logarithmic change of its implied volatilities;
each option keeps the volatility of its strike). Source: reference of the margin engines, 4.2 and 4.3.
"""

from __future__ import annotations

import hashlib
import json
import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Final, Literal

import numpy as np
from pydantic import BeforeValidator, Field, FiniteFloat, model_validator

from contracts_abi.errors import InputError
from oracle.strict import StrictModel
from simulation.margin import margin_methods
from simulation.margin.result import Grade, MarginResult, Parameters, ScenarioRow, status_of
from simulation.margin.scenario_grid import (
    STEADY,
    Legs,
    PriceMissing,
    cash_value,
    equity,
    legs_of,
    only,
    positive_part,
)
from simulation.portfolio.instruments import Future, Option, Perpetual, Portfolio, Spot
from simulation.portfolio.market import YEAR_S, Market
from simulation.pricing.black76 import black76
from simulation.statistics import Floats, Tail, quantile_row, sample_tail, tail_rows
from simulation.statistics.volatility import RISKMETRICS, ewma_variance, filtered, fit_garch

PositiveFloat = Annotated[FiniteFloat, Field(gt=0)]
Confidence = Annotated[FiniteFloat, Field(ge=0.5, lt=1)]

VOL: Final = ".vol"
"""End of the name of a factor that is an implied volatility."""


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else value


class History(StrictModel):
    """Past moves of the factors; rows do not overlap, the oldest is first.

    Attributes
    ----------
    factors
        A symbol, or ``SYMBOL.vol``.
    returns
        Logarithmic returns, shape (rows, factors); nested sequences or an array.
    row_hours
        How many hours one row spans.
    """

    factors: tuple[str, ...] = Field(min_length=1)
    returns: Annotated[tuple[tuple[FiniteFloat, ...], ...], BeforeValidator(_plain)]
    row_hours: PositiveFloat = 24.0

    @model_validator(mode="after")
    def _whole(self) -> History:
        if len(set(self.factors)) < len(self.factors):
            raise InputError("a factor of the history is named twice", fix="give each one column")
        if len(self.returns) < 2:
            raise InputError(f"a history of {len(self.returns)} rows", fix="give two or more")
        for number, row in enumerate(self.returns, 1):
            if len(row) != len(self.factors):
                raise InputError(
                    f"row {number} of the history has {len(row)} returns for {len(self.factors)} factors",
                    fix="give one for each",
                )
        return self

    @property
    def array(self) -> Floats:
        """The returns, shape (rows, factors)."""
        return np.array(self.returns, dtype=np.float64)

    @property
    def digest(self) -> str:
        """The sha256 of names, span and returns; what stands for the history in a hash."""
        head = json.dumps([self.factors, self.row_hours, len(self.returns)])
        # Plus zero: -0.0 is the same return as 0.0.
        return hashlib.sha256(head.encode() + (self.array + 0.0).astype("<f8").tobytes()).hexdigest()


class StatisticalParameters(Parameters):
    """What every statistical method is set by.

    Attributes
    ----------
    history
        Past moves of all factors that the portfolio depends on.
    confidence, initial_confidence
        Of the maintenance and of the initial requirement.
    periods
        The margin period of risk, counted in rows of the history; moves grow with its root.
    elapsed_s
        How much older options are at the end of the margin period; 0 shocks them at once, as venues do.
    """

    history: History
    confidence: Confidence = 0.99
    initial_confidence: Confidence = 0.995
    periods: PositiveFloat = 1.0
    elapsed_s: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _in_order(self) -> StatisticalParameters:
        if self.initial_confidence < self.confidence:
            raise InputError(
                f"initial_confidence {self.initial_confidence} is below confidence {self.confidence}",
                fix="the initial requirement is the greater one",
            )
        return self

    @property
    def hash(self) -> str:
        """The first 16 hexadecimal digits of a sha256, with the history's digest in place of its rows."""
        plain = self.model_dump(mode="json", exclude={"history"}) | {"history": self.history.digest}
        text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


class HistoricalParameters(StatisticalParameters):
    """Parameters of historical simulation: those of all methods, with rows enough for both tails."""

    @model_validator(mode="after")
    def _enough(self) -> HistoricalParameters:
        rows = len(self.history.returns)
        if tail_rows(rows, self.initial_confidence) < 1:
            raise InputError(
                f"{rows} rows say nothing of {self.initial_confidence:.6g}",
                fix=f"give {math.ceil(round(1 / (1 - self.initial_confidence), 6))} or more, "
                "or a lower initial_confidence",
            )
        return self


class FilteredParameters(HistoricalParameters):
    """Parameters of filtered historical simulation.

    Attributes
    ----------
    filter
        ``ewma`` (exponential weights) or ``garch`` (GARCH(1,1), fitted to each factor).
    decay
        Of ``ewma``.
    likelihood
        Of ``garch``: ``normal`` or ``t``.
    """

    filter: Literal["ewma", "garch"] = "ewma"
    decay: Annotated[FiniteFloat, Field(gt=0, le=1)] = RISKMETRICS
    likelihood: Literal["normal", "t"] = "normal"


# ------------------------------------------------------------------------------------------------ revaluation


def revalue(
    portfolio: Portfolio, market: Market, factors: Sequence[str], returns: Floats, elapsed_s: int = 0
) -> Floats:
    """Return the profit of a portfolio after each move of the factors, every instrument priced in full.

    Parameters
    ----------
    portfolio, market
        What is held, and the state that the moves start from.
    factors
        Names of the columns: symbols, or ``SYMBOL.vol``.
    returns
        Logarithmic moves, shape (rows, factors).
    elapsed_s
        How much time passes for options.

    Returns
    -------
    array
        Dollars, shape (rows,). Inverse instruments at the dollar value of their coin after the move.

    Raises
    ------
    PriceMissing
        If the market has not, or not as a number, what a position needs.
    InputError
        For a barrier or an expired instrument, a strike or volatility that is not positive, and a symbol that
        has no column.
    """
    only(portfolio, "revaluation", Spot, Perpetual, Future, Option)
    legs = legs_of(portfolio, market)
    columns = {name: column for column, name in enumerate(factors)}
    if returns.ndim != 2 or returns.shape[1] != len(columns):
        raise InputError(f"moves of shape {returns.shape} for {len(factors)} factors")
    growth = {symbol: _growth(symbol, columns, returns) for symbol in legs.symbols}
    profits = np.zeros(len(returns))
    # Position by position: a book of options times many rows need not be in memory at once.
    for i in range(len(legs.kind)):
        symbol = legs.symbols[legs.symbol[i]]
        vol = columns.get(f"{symbol}{VOL}")
        bent = np.exp(returns[:, vol]) if vol is not None else np.ones(len(returns))
        profits += _profit(legs, i, growth[symbol], bent, elapsed_s)
    return profits


def steady_volatility(portfolio: Portfolio, factors: Sequence[str]) -> tuple[str, ...]:
    """Return a note on the options whose implied volatility no factor moves; empty where there is none.

    Parameters
    ----------
    portfolio
        What is held.
    factors
        Names of the history's columns.
    """
    options = {p.instrument.underlying for p in portfolio.positions if isinstance(p.instrument, Option)}
    still = sorted(symbol for symbol in options if f"{symbol}{VOL}" not in factors)
    if not still:
        return ()
    missing = ", ".join(f"{symbol}{VOL}" for symbol in still)
    return (
        f"implied volatility of {', '.join(still)} is held still: the history has no column {missing}, so "
        "that losses by volatility are left out",
    )


def _growth(symbol: str, columns: Mapping[str, int], returns: Floats) -> Floats:
    column = columns.get(symbol)
    if column is not None:
        return np.exp(returns[:, column])
    if symbol in STEADY:
        return np.ones(len(returns))
    raise InputError(
        f"the history has no column for {symbol}", fix=f"it has {', '.join(columns)}; add the missing one"
    )


def _profit(legs: Legs, i: int, growth: Floats, bent: Floats, elapsed_s: int) -> Floats:
    quantity, spot, moving, fixed = (
        float(column[i]) for column in (legs.quantity, legs.spot, legs.moving, legs.fixed)
    )
    kind, inverse = legs.kind[i], bool(legs.inverse[i])
    if kind is Spot:
        return quantity * spot * (growth - 1)
    if kind is Option:
        then = _option(legs, i, growth, bent, elapsed_s)
        now = _option(legs, i, np.ones(1), np.ones(1), 0)
        return np.asarray(then - now)
    if not inverse:
        return quantity * moving * (growth - 1)
    # Coins gained since now, and the coins of the unrealised profit, both at the price after the move.
    coins = quantity * (1 / (moving + fixed) - 1 / (moving * growth + fixed))
    return growth * spot * coins + float(legs.unrealised[i]) * (growth - 1)


def _option(legs: Legs, i: int, growth: Floats, bent: Floats, elapsed_s: int) -> Floats:
    forward = legs.moving[i] * growth + legs.fixed[i]
    years = max(0, int(legs.seconds[i]) - elapsed_s) / YEAR_S
    inverse = bool(legs.inverse[i])
    # What is paid in the underlying is not discounted: the premium is a share of the forward.
    discount = 1.0 if inverse else math.exp(-float(legs.rate[i]) * years)
    strike, volatility = float(legs.strike[i]), float(legs.volatility[i]) * bent
    price = np.asarray(black76(forward, strike, volatility, years, discount, bool(legs.call[i])))
    index = legs.spot[i] * growth / forward if inverse else 1.0
    return np.asarray(legs.quantity[i] * price * index, dtype=np.float64)


# ------------------------------------------------------------------------------------------------ the methods


def filtered_scenarios(
    returns: Floats,
    how: Literal["ewma", "garch"] = "ewma",
    decay: float = RISKMETRICS,
    likelihood: Literal["normal", "t"] = "normal",
) -> Floats:
    """Return every past row at the volatility that is forecast for the next one, factor by factor.

    A row stays a row, so what moved together still does.

    Parameters
    ----------
    returns
        Shape (rows, factors), oldest first.
    how, decay, likelihood
        As in `FilteredParameters`.

    Raises
    ------
    InputError
        If a factor does not move, or GARCH cannot be fitted to it.
    """
    if how == "ewma":
        return filtered(returns, ewma_variance(returns, decay))
    fits = [fit_garch(column, "zero", likelihood).variance for column in returns.T]
    return filtered(returns, np.stack(fits, axis=1))


@dataclass(frozen=True, slots=True)
class Estimate:
    """Both tails of a portfolio's profit.

    Attributes
    ----------
    initial, maintenance
        At the two confidences, dollars.
    worst
        Label of the row that decides.
    rows
        The tail's rows, worst first, for methods that have rows.
    components
        Further figures of the method.
    """

    initial: Tail
    maintenance: Tail
    worst: str = ""
    rows: tuple[ScenarioRow, ...] = ()
    components: Mapping[str, float] = field(default_factory=dict)


class StatisticalMethod(StrictModel):
    """The base of the methods whose requirement is a tail of the distribution of profit.

    Attributes
    ----------
    parameters
        History, confidences and margin period; the hash of all of it stands in every result.
    """

    kind: ClassVar[str]
    grade: ClassVar[Grade]
    source: ClassVar[str]
    measure: ClassVar[Literal["var", "es"]] = "var"

    parameters: StatisticalParameters

    @abstractmethod
    def estimate(self, portfolio: Portfolio, market: Market) -> Estimate:
        """Return both tails.

        Raises
        ------
        PriceMissing, InputError
            As `revalue`.
        """

    def margin(self, portfolio: Portfolio, market: Market) -> MarginResult:
        """Return what the method demands, dollars.

        Raises
        ------
        InputError
            For a barrier or an expired instrument, a strike or volatility that is not positive, and a symbol
            that the history has no column for. A price that is missing or no number makes the result unknown.
        """
        only(portfolio, self.kind, Spot, Perpetual, Future, Option)
        name = self.parameters.hash
        try:
            cash, total = cash_value(portfolio, market), equity(portfolio, market)
            with np.errstate(over="ignore", invalid="ignore"):
                found = self.estimate(portfolio, market)
            return self._result(portfolio, name, total, cash, found).told
        except PriceMissing as missing:
            return MarginResult.unknown(portfolio.account, self.kind, name, str(missing))

    def _result(
        self, portfolio: Portfolio, name: str, total: float, cash: float, found: Estimate
    ) -> MarginResult:
        initial, maintenance = (
            positive_part(tail.var if self.measure == "var" else tail.es)
            for tail in (found.initial, found.maintenance)
        )
        components = {
            "value_at_risk": found.maintenance.var,
            "expected_shortfall": found.maintenance.es,
            "initial_value_at_risk": found.initial.var,
            "initial_expected_shortfall": found.initial.es,
            **found.components,
        }
        return MarginResult(
            account=portfolio.account,
            method=self.kind,
            parameters_hash=name,
            status=status_of(total - maintenance, maintenance),
            equity=total,
            initial_requirement=initial,
            maintenance_requirement=maintenance,
            mark_to_market=total - cash,
            worst=found.worst if maintenance > 0 else "",
            scenarios=found.rows,
            components=components,
            notes=steady_volatility(portfolio, self.parameters.history.factors),
        )


@margin_methods.register("var.historical")
class VarHistorical(StatisticalMethod):
    """Value at risk by historical simulation: every past row on today's portfolio, priced in full.

    Attributes
    ----------
    parameters
        History, confidences and margin period.
    """

    kind: ClassVar[str] = "var.historical"
    grade: ClassVar[Grade] = Grade.CHECKED
    source: ClassVar[str] = "reference of the margin engines, section 4.2"
    parameters: HistoricalParameters

    def scenarios(self) -> Floats:
        """Return the moves that the portfolio is priced after, shape (rows, factors)."""
        return self.parameters.history.array

    def estimate(self, portfolio: Portfolio, market: Market) -> Estimate:
        """Return both tails by order statistics; the rows of the tail are the risk array.

        Raises
        ------
        PriceMissing, InputError
            As `revalue`, and as the filter.
        """
        p = self.parameters
        moves = self.scenarios() * math.sqrt(p.periods)
        profits = revalue(portfolio, market, p.history.factors, moves, p.elapsed_s)
        order = quantile_row(len(profits), p.confidence)
        worst = np.argsort(profits, kind="stable")[:order]
        rows = tuple(ScenarioRow(f"row {int(row) + 1}", float(profits[row])) for row in worst)
        return Estimate(
            sample_tail(profits, p.initial_confidence),
            sample_tail(profits, p.confidence),
            rows[-1].label if self.measure == "var" else rows[0].label,
            rows,
        )


@margin_methods.register("var.filtered")
class VarFiltered(VarHistorical):
    """Value at risk by filtered historical simulation: past rows at the volatility forecast today.

    Attributes
    ----------
    parameters
        Those of historical simulation, and the filter.
    """

    kind: ClassVar[str] = "var.filtered"
    grade: ClassVar[Grade] = Grade.CHECKED
    source: ClassVar[str] = "Hull-White 1998, Barone-Adesi 1999; reference of the margin engines, section 4.3"
    parameters: FilteredParameters

    def scenarios(self) -> Floats:
        """Return the filtered moves, shape (rows, factors).

        Raises
        ------
        InputError
            If a factor does not move, or GARCH cannot be fitted to it.
        """
        p = self.parameters
        return filtered_scenarios(p.history.array, p.filter, p.decay, p.likelihood)
