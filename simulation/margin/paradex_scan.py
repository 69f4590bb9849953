"""Paradex's portfolio margin: SCAN over 24 weighted scenarios, at least a charge on deltas, and provisions.

``initial = max(SCAN, minimum delta) + funding provision + fee provision``, maintenance with half of the first
term. Source: Paradex's documentation, page "Portfolio Margin"; reference of the margin engines, section 2.5.

The page gives the scenarios, their weights, the volatility rule and the charge on deltas, and one worked
number for the charge. Not on the page, and so assumed: underlyings are scanned one by one and added; the
funding provision is what the account would pay at its rates over eight hours, received funding not counted;
the fee provision is a rate on the notional that is held.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated, ClassVar, Final

import numpy as np
from pydantic import Field, FiniteFloat

from simulation.margin import margin_methods
from simulation.margin.result import Grade, MarginResult, Parameters, ScenarioRow
from simulation.margin.scenario_grid import (
    Scenario,
    ScenarioMethod,
    ScenarioSet,
    VolRule,
    VolShock,
    delta_under,
    legs_of,
    move_label,
    of_underlying,
    only,
    profit_under,
    rows_of,
    scenario_set,
    settled_in_dollars,
    underlyings_of,
    worst_label,
    worst_loss,
)
from simulation.portfolio.instruments import Option, Perpetual, Portfolio
from simulation.portfolio.market import Market
from simulation.types import Float64

NonNegative = Annotated[FiniteFloat, Field(ge=0)]
Share = Annotated[FiniteFloat, Field(ge=0, le=1)]

UP: Final = 0.40
DOWN: Final = -0.22

SCENARIOS: Final = (
    (0.16, UP, 1.0),
    (0.12, UP, 1.0),
    (0.12, DOWN, 1.0),
    (0.08, UP, 1.0),
    (0.08, DOWN, 1.0),
    (0.04, UP, 1.0),
    (0.04, DOWN, 1.0),
    (0.0, UP, 1.0),
    (0.0, DOWN, 1.0),
    (-0.04, UP, 1.0),
    (-0.04, DOWN, 1.0),
    (-0.08, UP, 1.0),
    (-0.08, DOWN, 1.0),
    (-0.12, UP, 1.0),
    (-0.12, DOWN, 1.0),
    (-0.16, UP, 1.0),
    (-0.66, UP, 0.24),
    (-0.33, UP, 0.48),
    (0.50, UP, 0.32),
    (1.00, UP, 0.16),
    (2.00, UP, 0.08),
    (3.00, UP, 0.0533),
    (4.00, UP, 0.04),
    (5.00, UP, 0.032),
)
"""Spot shock, volatility shock and weight, in the order of the page."""

Row = tuple[
    Annotated[FiniteFloat, Field(gt=-1)],
    Annotated[FiniteFloat, Field(ge=-1)],
    Annotated[FiniteFloat, Field(gt=0, le=1)],
]


class ParadexParameters(Parameters):
    """The scenarios and rates of Paradex; the venue serves live ones per base asset.

    Attributes
    ----------
    scenarios
        Spot shock, volatility shock and weight of each.
    dte_floor_days
        Least days to expiry of the volatility rule.
    short_vega_power, long_vega_power
        Its power below 30 days and from there on.
    net_delta_rate, hedged_delta_rate
        Share of the spot price for each unit of net and of hedged delta.
    maintenance_share
        Of the first term.
    funding_rate_8h
        Underlying to the rate that longs pay over the next eight hours; 0 for one that is not named.
    fee_rate
        Share of the notional that the fee provision reserves.
    """

    scenarios: tuple[Row, ...] = Field(default=SCENARIOS, min_length=1)
    dte_floor_days: Annotated[FiniteFloat, Field(gt=0)] = 1.0
    short_vega_power: NonNegative = 0.3
    long_vega_power: NonNegative = 0.13
    net_delta_rate: Share = 0.02
    hedged_delta_rate: Share = 0.01
    maintenance_share: Share = 0.5
    funding_rate_8h: Mapping[str, FiniteFloat] = Field(default_factory=dict)
    fee_rate: Share = 0.0

    def scenario_set(self) -> ScenarioSet:
        """Return the scenarios in the order of the page."""
        return _scenarios(self.scenarios, self.dte_floor_days, self.short_vega_power, self.long_vega_power)


@lru_cache(maxsize=16)
def _scenarios(
    rows: tuple[tuple[float, float, float], ...], floor: float, short: float, long: float
) -> ScenarioSet:
    return scenario_set(
        Scenario(
            label=f"{move_label(spot)}, vol {100 * volatility:+.6g} %",
            every=1.0 + spot,
            volatility=VolShock(
                rule=VolRule.TERM, size=volatility, short_power=short, long_power=long, floor_days=floor
            ),
            weight=weight,
        )
        for spot, volatility, weight in rows
    )


def minimum_delta(deltas: Float64, spot: float, net_rate: float = 0.02, hedged_rate: float = 0.01) -> float:
    """Return the least requirement that deltas make, dollars.

    Parameters
    ----------
    deltas
        Of each position, units of the underlying, shape (positions,).
    spot
        Price of the underlying, dollars.
    net_rate, hedged_rate
        Share of the price for each unit of net and of hedged delta.

    Notes
    -----
    ``(net_rate * |net| + hedged_rate * hedged) * spot`` with ``hedged = (gross - |net|) / 2``. The page's
    example: one perpetual long and five calls of delta .3 short at 70,000 dollars make 1,400 dollars. Source:
    reference of the margin engines, section 2.5.
    """
    net, gross = abs(float(np.sum(deltas))), float(np.abs(deltas).sum())
    return (net_rate * net + hedged_rate * 0.5 * (gross - net)) * spot


@margin_methods.register("paradex.scan")
class ParadexScan(ScenarioMethod):
    """Paradex's portfolio margin of linear perpetuals and options, with the dollar as the only collateral.

    Attributes
    ----------
    parameters
        Scenarios, rates and provisions.
    """

    kind: ClassVar[str] = "paradex.scan"
    grade: ClassVar[Grade] = Grade.CHECKED
    source: ClassVar[str] = (
        "Paradex documentation, Portfolio Margin: scenarios, weights, minimum delta (worked example); how"
        " underlyings add and both provisions' formulas assumed; reference of the margin engines 2.5"
    )

    parameters: ParadexParameters = ParadexParameters()

    def _answer(self, portfolio: Portfolio, market: Market) -> MarginResult:
        p, scenarios = self.parameters, self.parameters.scenario_set()
        only(portfolio, self.kind, Perpetual, Option)
        settled_in_dollars(portfolio, self.kind)
        total = np.zeros(len(scenarios.scenarios))
        scan = floor = funding = fee = net = 0.0
        for symbol in underlyings_of(portfolio):
            held = of_underlying(portfolio, symbol)
            legs = legs_of(held, market)
            profits = profit_under(held, market, scenarios).sum(axis=1)
            risk, spot = worst_loss(profits), float(legs.spot[0])
            least = minimum_delta(delta_under(held, market)[0], spot, p.net_delta_rate, p.hedged_delta_rate)
            total += profits
            scan, floor, net = scan + risk, floor + least, net + max(risk, least)
            perpetual = legs.where(Perpetual)
            notional = float((legs.quantity[perpetual] * legs.moving[perpetual]).sum())
            funding += max(0.0, notional * p.funding_rate_8h.get(symbol, 0.0))
            fee += p.fee_rate * float(np.abs(legs.quantity).sum()) * spot
        rows: tuple[ScenarioRow, ...] = rows_of(scenarios.labels, total)
        return self._result(
            portfolio,
            market,
            net + funding + fee,
            p.maintenance_share * net + funding + fee,
            worst=worst_label(rows),
            rows=rows,
            components={
                "scan_risk": scan,
                "minimum_delta": floor,
                "net_requirement": net,
                "funding_provision": funding,
                "fee_provision": fee,
            },
        )
