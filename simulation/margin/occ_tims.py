"""OCC's TIMS, as customer portfolio margin uses it: ten valuation points, netting by class and group.

The price of each underlying moves to ten points, five on either side at equal steps; its volatility stays.
Positions of one underlying (a class group) net in full at each point. Of classes of one product group a
profit counts at a point only in part against the losses of the others, and so do product groups of one
portfolio group. A portfolio group demands its largest loss over the points, and at least a minimum for each
contract.

Points (five on either side), widths, full netting in a class and the minimum of .375 dollars times the
multiplier are in rule 15c3-1a and the exchanges' rules. That a share of one class's profits counts against
the losses of others is described by third parties (themargininvestor.com, "P&L Offsets"); that it is applied
point for point is recalled. The shares are parameters without a default. Theoretical prices are Black-76, not
the clearing house's binomial model. Source: reference of the margin engines, section 2.9.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Final

import numpy as np
from pydantic import Field, FiniteFloat, model_validator

from contracts_abi.errors import InputError
from oracle.strict import StrictModel
from simulation.margin import margin_methods
from simulation.margin.result import Grade, MarginResult, Parameters, ScenarioRow
from simulation.margin.scenario_grid import (
    Scenario,
    ScenarioMethod,
    of_underlying,
    only,
    profit_under,
    scenario_set,
    settled_in_dollars,
    underlying_of,
    underlyings_of,
    worst_label,
    worst_loss,
)
from simulation.portfolio.instruments import Future, Option, Perpetual, Portfolio, Position, Spot
from simulation.portfolio.market import Market
from simulation.types import Float64

Share = Annotated[FiniteFloat, Field(ge=0, le=1)]

POINTS: Final = 5
"""Valuation points on either side of the price."""

HIGH_CAP_INDEX: Final = (-0.08, 0.06)
BROAD_INDEX: Final = (-0.10, 0.10)
EQUITY: Final = (-0.15, 0.15)
"""Lowest and highest move of a high-capitalisation index, another broad index, anything narrower."""


class ProductGroup(StrictModel):
    """Classes whose profits count in part against each other's losses.

    Attributes
    ----------
    classes
        Underlyings.
    offset
        Share of a class's profit at a point that counts.
    """

    classes: tuple[str, ...] = Field(min_length=1)
    offset: Share


class PortfolioGroup(StrictModel):
    """Product groups whose profits count in part against each other's losses.

    Attributes
    ----------
    products
        Names of product groups.
    offset
        Share of a product group's profit at a point that counts.
    """

    products: tuple[str, ...] = Field(min_length=1)
    offset: Share


class TimsParameters(Parameters):
    """Widths, groups and the minimum.

    Attributes
    ----------
    moves
        Underlying to its lowest and highest move; `EQUITY` for one that is not named.
    products
        Name to product group; a class in none stands alone.
    portfolios
        Name to portfolio group; a product group or class in none stands alone.
    minimum
        Dollars for each unit of the underlying in options and futures: .375 for each share of a contract.
    """

    moves: Mapping[
        str, tuple[Annotated[FiniteFloat, Field(gt=-1, lt=0)], Annotated[FiniteFloat, Field(gt=0)]]
    ] = Field(default_factory=dict)
    products: Mapping[str, ProductGroup] = Field(default_factory=dict)
    portfolios: Mapping[str, PortfolioGroup] = Field(default_factory=dict)
    minimum: Annotated[FiniteFloat, Field(ge=0)] = 0.375

    @model_validator(mode="after")
    def _each_once(self) -> TimsParameters:
        """Refuse a class or product group in two groups, and a portfolio group of unknown product groups."""
        _once("class", [(name, group.classes) for name, group in self.products.items()])
        _once("product group", [(name, group.products) for name, group in self.portfolios.items()])
        for name, group in self.portfolios.items():
            for product in group.products:
                if product not in self.products:
                    raise InputError(f"portfolio group {name} names {product}", fix="add that product group")
        return self

    def product_of(self, symbol: str) -> tuple[str, float]:
        """Return the product group of a class and its offset; the class itself where it is in none."""
        for name, group in self.products.items():
            if symbol in group.classes:
                return name, group.offset
        return symbol, 1.0

    def portfolio_of(self, product: str) -> tuple[str, float]:
        """Return the portfolio group of a product group and its offset; itself where it is in none."""
        for name, group in self.portfolios.items():
            if product in group.products:
                return name, group.offset
        return product, 1.0


def _once(what: str, groups: list[tuple[str, tuple[str, ...]]]) -> None:
    seen: dict[str, str] = {}
    for name, members in groups:
        for member in members:
            if member in seen:
                raise InputError(f"{what} {member} is in {seen[member]} and {name}", fix="name it once")
            seen[member] = name


def valuation_points(low: float, high: float) -> tuple[float, ...]:
    """Return the ten moves between the lowest and the highest, equal steps on either side, without 0.

    Raises
    ------
    InputError
        If they do not lie on both sides of 0, or `low` leaves no price.
    """
    if not -1.0 < low < 0.0 < high:
        raise InputError(f"moves from {low:g} to {high:g}", fix="give one below 0 (above -1) and one above")
    down = [low * i / POINTS for i in range(POINTS, 0, -1)]
    return (*down, *(high * i / POINTS for i in range(1, POINTS + 1)))


def offset_sum(profits: Float64, share: float) -> Float64:
    """Return the profit of a group at each point: losses in full, profits in part.

    Parameters
    ----------
    profits
        Of the members, shape (points, members).
    share
        Of each profit that counts.

    Notes
    -----
    A member without company has nothing to offset and keeps its profit. Recalled; source: reference of the
    margin engines, section 2.9.
    """
    if profits.shape[1] == 1:
        return np.asarray(profits[:, 0])
    return np.asarray(np.where(profits < 0, profits, share * profits).sum(axis=1))


@margin_methods.register("occ.tims")
class OccTims(ScenarioMethod):
    """OCC's TIMS for tokens, perpetuals, futures and options that settle in dollars.

    Each class is moved by its own width; point for point the groups add up, the lowest move of one with the
    lowest of the other.

    Attributes
    ----------
    parameters
        Widths, groups and the minimum.
    """

    kind: ClassVar[str] = "occ.tims"
    grade: ClassVar[Grade] = Grade.RECALLED
    source: ClassVar[str] = (
        "SEC 15c3-1a, FINRA 4210(g), Cboe 10.4: points, class netting, minimum; offsets from third parties;"
        " reference of the margin engines 2.9"
    )

    parameters: TimsParameters = TimsParameters()

    def classes(self, portfolio: Portfolio, market: Market) -> dict[str, Float64]:
        """Return the profit of each class at its ten points, dollars, lowest move first.

        Raises
        ------
        InputError
            For an instrument that the method does not know, an expired one, a volatility that is not
            positive.
        PriceMissing
            If a price is missing or no number.
        """
        only(portfolio, self.kind, Spot, Perpetual, Future, Option)
        settled_in_dollars(portfolio, self.kind)
        out = {}
        for symbol in underlyings_of(portfolio):
            moves = valuation_points(*self.parameters.moves.get(symbol, EQUITY))
            points = scenario_set(
                Scenario(label=f"point {i}", every=1.0 + move) for i, move in enumerate(moves, start=1)
            )
            held = of_underlying(portfolio, symbol)
            out[symbol] = profit_under(held, market, points).sum(axis=1)
        return out

    def _answer(self, portfolio: Portfolio, market: Market) -> MarginResult:
        p = self.parameters
        products: dict[str, list[Float64]] = {}
        contracts: dict[str, float] = {}
        for symbol, profits in self.classes(portfolio, market).items():
            products.setdefault(p.product_of(symbol)[0], []).append(profits)
        for position in portfolio.positions:
            group = p.portfolio_of(p.product_of(underlying_of(position))[0])[0]
            contracts[group] = contracts.get(group, 0.0) + _contracts(position)
        portfolios: dict[str, list[Float64]] = {}
        for product, members in products.items():
            offset = p.products[product].offset if product in p.products else 1.0
            netted = offset_sum(np.stack(members, axis=1), offset)
            portfolios.setdefault(p.portfolio_of(product)[0], []).append(netted)
        rows: list[ScenarioRow] = []
        risk = floor = required = 0.0
        for name, groups in portfolios.items():
            offset = p.portfolios[name].offset if name in p.portfolios else 1.0
            profits = offset_sum(np.stack(groups, axis=1), offset)
            rows.extend(
                ScenarioRow(f"{name} point {i}", float(profit)) for i, profit in enumerate(profits, start=1)
            )
            loss, least = worst_loss(profits), p.minimum * contracts.get(name, 0.0)
            risk, floor, required = risk + loss, floor + least, required + max(loss, least)
        return self._result(
            portfolio,
            market,
            required,
            required,
            worst=worst_label(rows),
            rows=tuple(rows),
            components={"scan_risk": risk, "minimum_charge": floor},
        )


def _contracts(position: Position) -> float:
    """Return the units of a position that the minimum counts: those of options and futures."""
    return 0.0 if isinstance(position.instrument, Spot) else abs(position.quantity)
