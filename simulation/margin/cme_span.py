"""CME's SPAN: sixteen scenarios, and charges and credits between months and commodities by deltas.

For each combined commodity (here: everything on one underlying)

``risk = max(scan risk + inter-month charge + delivery charge - credit, short option minimum)``

and the requirement is what `risk` exceeds the net option value by. Every step is a function of plain numbers,
so that risk arrays which a clearing house publishes can be used as they are (`scan_risk`); an array holds the
*loss* of one long unit in each scenario. Source: reference of the margin engines, section 2.7.

Checked by a published array (McMillan, ch. 34). Recalled: the weights of the composite delta, which sum to
.998 and are normalised here, the volatility-adjusted price risk of the inter-commodity credit, and the form
of the delivery charge. Ranges, rates and spreads are parameters; the ranges that stand here by default are
for illustration and no clearing house's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, ClassVar, Final, Literal

import numpy as np
from pydantic import Field, FiniteFloat, model_validator

from contracts_abi.errors import InputError
from oracle.strict import StrictModel
from simulation.margin import margin_methods
from simulation.margin.result import Grade, MarginResult, Parameters, ScenarioRow
from simulation.margin.scenario_grid import (
    DAY_S,
    NEUTRAL,
    Scenario,
    ScenarioMethod,
    ScenarioSet,
    VolRule,
    VolShock,
    delta_under,
    legs_of,
    of_underlying,
    only,
    positive_part,
    profit_under,
    rows_of,
    scenario_set,
    settled_in_dollars,
    underlyings_of,
    value_under,
    worst_label,
)
from simulation.portfolio.instruments import Future, Option, Perpetual, Portfolio
from simulation.portfolio.market import Market
from simulation.types import Float64

NonNegative = Annotated[FiniteFloat, Field(ge=0)]
Positive = Annotated[FiniteFloat, Field(gt=0)]

SCENARIOS: Final = (
    (0, 1),
    (0, -1),
    (1, 1),
    (1, -1),
    (-1, 1),
    (-1, -1),
    (2, 1),
    (2, -1),
    (-2, 1),
    (-2, -1),
    (3, 1),
    (3, -1),
    (-3, 1),
    (-3, -1),
)
"""Thirds of the price scan range and sign of the volatility move of the first 14 scenarios."""

DELTA_WEIGHTS: Final = {0: 0.270, 1: 0.217, -1: 0.217, 2: 0.110, -2: 0.110, 3: 0.037, -3: 0.037}
"""Thirds of the price scan range to the weight of the delta there; recalled."""


class InterMonthSpread(StrictModel):
    """A spread between two tiers of one commodity, of opposite sides, whichever of them is long.

    Attributes
    ----------
    priority
        Lower ones are formed first.
    tiers
        The two tiers, from 1; the same twice for a spread within one.
    ratios
        Deltas of each that one spread takes.
    rate
        Dollars for each spread.
    """

    priority: int = Field(ge=1)
    tiers: tuple[int, int]
    ratios: tuple[Positive, Positive] = (1.0, 1.0)
    rate: NonNegative


class SpreadLeg(StrictModel):
    """A leg of an inter-commodity spread.

    Attributes
    ----------
    commodity
        Underlying.
    ratio
        Deltas that one spread takes.
    side
        ``A`` or ``B``: legs of one letter lie on one side of the market, the other letter on the other.
    """

    commodity: str
    ratio: Positive
    side: Literal["A", "B"]


class InterCommoditySpread(StrictModel):
    """A spread between commodities that lessens their risk.

    Attributes
    ----------
    priority
        Lower ones are formed first.
    legs
        Two or more, on both sides.
    credit_rate
        Share of each leg's price risk that is given back.
    """

    priority: int = Field(ge=1)
    legs: tuple[SpreadLeg, ...] = Field(min_length=2)
    credit_rate: Annotated[FiniteFloat, Field(ge=0, le=1)]

    @model_validator(mode="after")
    def _both_sides(self) -> InterCommoditySpread:
        """Refuse a spread on one side, or with a commodity twice."""
        if {leg.side for leg in self.legs} != {"A", "B"}:
            raise InputError("an inter-commodity spread on one side", fix="give legs of side A and of side B")
        names = [leg.commodity for leg in self.legs]
        if len(set(names)) < len(names):
            raise InputError(f"a commodity twice in one spread: {', '.join(names)}", fix="name each once")
        return self


class Commodity(StrictModel):
    """The parameters of one combined commodity; the ranges by default are for illustration.

    Attributes
    ----------
    price_scan_range
        Share of the price.
    volatility_scan_range
        Relative for ``parallel``, points for ``additive``.
    volatility_rule
        ``parallel`` or ``additive``.
    short_option_rate
        Dollars for each short unit of options.
    short_option_method
        ``max``: the larger of short calls and short puts counts; ``gross``: both.
    tier_days
        Last day of each tier but the last, ascending; none for one tier. A perpetual is in the first.
    spreads
        Between tiers.
    delivery_tier
        Tier whose deltas are charged for delivery; None for no charge.
    delivery_spread_rate, delivery_outright_rate
        Dollars for each delta of that tier that is used in spreads, and that is not.
    """

    price_scan_range: Annotated[FiniteFloat, Field(gt=0, lt=1)] = 0.15
    volatility_scan_range: NonNegative = 0.25
    volatility_rule: Literal["parallel", "additive"] = "parallel"
    short_option_rate: NonNegative = 0.0
    short_option_method: Literal["max", "gross"] = "max"
    tier_days: tuple[Positive, ...] = ()
    spreads: tuple[InterMonthSpread, ...] = ()
    delivery_tier: int | None = Field(default=None, ge=1)
    delivery_spread_rate: NonNegative = 0.0
    delivery_outright_rate: NonNegative = 0.0

    @model_validator(mode="after")
    def _tiers_in_order(self) -> Commodity:
        """Refuse tiers out of order, and spreads and charges of tiers that there are not."""
        if list(self.tier_days) != sorted(set(self.tier_days)):
            raise InputError("tier_days must ascend", fix="sort them, each once")
        last = len(self.tier_days) + 1
        for tier in (*(t for s in self.spreads for t in s.tiers), self.delivery_tier or 1):
            if not 1 <= tier <= last:
                raise InputError(f"tier {tier} of {last}", fix="name one that tier_days makes")
        return self

    def tier(self, days: float) -> int:
        """Return the tier of a contract by the days to its expiry."""
        return 1 + sum(days > end for end in self.tier_days)


class SpanParameters(Parameters):
    """The commodities and what holds between them.

    Attributes
    ----------
    commodities
        Underlying to its parameters.
    other
        Of an underlying that is not named.
    inter_commodity
        Spreads between commodities.
    extreme_multiple, extreme_cover
        Price scan ranges of scenarios 15 and 16, and the share of their loss that counts.
    look_ahead_s
        Seconds that pass in every scenario.
    """

    commodities: Mapping[str, Commodity] = Field(default_factory=dict)
    other: Commodity = Commodity()
    inter_commodity: tuple[InterCommoditySpread, ...] = ()
    extreme_multiple: Annotated[FiniteFloat, Field(gt=1)] = 2.0
    extreme_cover: Annotated[FiniteFloat, Field(gt=0, le=1)] = 0.35
    look_ahead_s: int = Field(default=DAY_S, ge=0)

    @model_validator(mode="after")
    def _extreme_leaves_a_price(self) -> SpanParameters:
        """Refuse a range whose extreme move leaves no price."""
        for name, commodity in {**self.commodities, "other": self.other}.items():
            if self.extreme_multiple * commodity.price_scan_range >= 1:
                raise InputError(
                    f"{self.extreme_multiple:g} price scan ranges of {name} leave no price",
                    fix="give a smaller price_scan_range",
                )
        return self

    def commodity(self, symbol: str) -> Commodity:
        """Return the parameters of an underlying."""
        return self.commodities.get(symbol, self.other)


@dataclass(frozen=True, slots=True)
class ScanRisk:
    """The worst of the scenarios.

    Attributes
    ----------
    risk
        Dollars, 0 where no scenario loses.
    scenario
        The active scenario, from 1; the first of equals.
    losses
        Of the whole portfolio, shape (16,).
    """

    risk: float
    scenario: int
    losses: Float64


def scan_risk(quantities: Sequence[float], arrays: Sequence[Sequence[float]] | Float64) -> ScanRisk:
    """Return the scan risk of positions from their risk arrays.

    Parameters
    ----------
    quantities
        Signed, shape (positions,).
    arrays
        Loss of one long unit in each scenario, a gain negative, cover fraction included, shape
        (positions, 16).

    Raises
    ------
    InputError
        If there is not an array of sixteen numbers for each position.
    """
    held = np.asarray(quantities, dtype=np.float64)
    table = np.asarray(arrays, dtype=np.float64).reshape(len(held), -1) if len(held) else np.zeros((0, 16))
    if table.shape[1] != len(SCENARIOS) + 2 or not np.isfinite(table).all():
        raise InputError(
            f"risk arrays of shape {table.shape} for {len(held)} positions", fix="give 16 numbers for each"
        )
    losses = held @ table
    active = int(np.argmax(losses))
    return ScanRisk(positive_part(float(losses[active])), active + 1, losses)


def composite_delta(deltas: Float64) -> Float64:
    """Return deltas weighed over the seven prices of the scan range.

    Parameters
    ----------
    deltas
        In the order of `DELTA_WEIGHTS`, shape (7, positions).

    Notes
    -----
    The weights are recalled and sum to .998; divided by that sum, a future keeps its delta of 1.
    """
    weights = np.array(list(DELTA_WEIGHTS.values()))
    return np.asarray(weights @ deltas / weights.sum())


Sides = Mapping[int, tuple[float, float]]
"""Tier to its long and its short deltas, both positive."""


@dataclass(frozen=True, slots=True)
class InterMonth:
    """Spreads formed between the tiers of one commodity.

    Attributes
    ----------
    charge
        Dollars.
    remaining, used
        Tier to long and short deltas that no spread took, and that spreads took.
    """

    charge: float
    remaining: Sides
    used: Sides


def inter_month(sides: Sides, spreads: Sequence[InterMonthSpread]) -> InterMonth:
    """Return the inter-month charge: spreads formed in order of priority from what is left.

    Parameters
    ----------
    sides
        Tier to its long and short deltas, units of the underlying.
    spreads
        In any order; of equal priority the first comes first.
    """
    left = {tier: list(pair) for tier, pair in sides.items()}
    used = {tier: [0.0, 0.0] for tier in sides}
    charge = 0.0
    for spread in sorted(spreads, key=lambda s: s.priority):
        first, second = spread.tiers
        if first not in left or second not in left:
            continue
        a, b = spread.ratios
        orientations = ((0, 1),) if first == second else ((0, 1), (1, 0))
        for long, short in orientations:
            count = min(left[first][long] / a, left[second][short] / b)
            charge += count * spread.rate
            for tier, side, taken in ((first, long, count * a), (second, short, count * b)):
                left[tier][side] -= taken
                used[tier][side] += taken
    return InterMonth(
        charge,
        {tier: (pair[0], pair[1]) for tier, pair in left.items()},
        {tier: (pair[0], pair[1]) for tier, pair in used.items()},
    )


def delivery_charge(
    spreading: InterMonth, tier: int | None, spread_rate: float, outright_rate: float
) -> float:
    """Return the charge for deltas of the tier that delivers, dollars; its form is recalled.

    Parameters
    ----------
    spreading
        What spreads took and left.
    tier
        The one that delivers; None for no charge.
    spread_rate, outright_rate
        Dollars for each delta that spreads took, and that they left.
    """
    if tier is None or tier not in spreading.used:
        return 0.0
    return spread_rate * sum(spreading.used[tier]) + outright_rate * sum(spreading.remaining[tier])


def weighted_price_risk(scan: ScanRisk, net_delta: float) -> float:
    """Return a commodity's weighted futures price risk, dollars for each delta; recalled.

    Parameters
    ----------
    scan
        Of the commodity.
    net_delta
        Units of the underlying; a commodity without has no price risk to give back.

    Notes
    -----
    The loss at the active scenario and at the one with the other volatility move are averaged; what passes
    with time, the average of the first two scenarios, is taken off. The extreme scenarios have no pair.
    """
    if net_delta == 0:
        return 0.0
    at = scan.scenario - 1
    pair = at if at >= len(SCENARIOS) else at ^ 1
    adjusted = 0.5 * float(scan.losses[at] + scan.losses[pair])
    passed = 0.5 * float(scan.losses[0] + scan.losses[1])
    return max(0.0, adjusted - passed) / abs(net_delta)


def inter_commodity(
    deltas: Mapping[str, float], price_risk: Mapping[str, float], spreads: Sequence[InterCommoditySpread]
) -> dict[str, float]:
    """Return the credit of each commodity, dollars: spreads formed in order of priority from what is left.

    Parameters
    ----------
    deltas
        Commodity to its net delta.
    price_risk
        Commodity to its weighted futures price risk.
    spreads
        A spread forms only where all its commodities are held, on the sides that it wants.
    """
    left, credits = dict(deltas), dict.fromkeys(deltas, 0.0)
    for spread in sorted(spreads, key=lambda s: s.priority):
        held = [left.get(leg.commodity, 0.0) * (1 if leg.side == "A" else -1) for leg in spread.legs]
        sign = 1 if all(delta > 0 for delta in held) else -1
        if any(delta * sign <= 0 for delta in held):
            continue
        count = min(abs(left[leg.commodity]) / leg.ratio for leg in spread.legs)
        for leg in spread.legs:
            name, taken = leg.commodity, count * leg.ratio
            credits[name] += taken * spread.credit_rate * price_risk[name]
            left[name] -= taken if left[name] > 0 else -taken
    return credits


def short_option_minimum(
    short_calls: float, short_puts: float, rate: float, method: Literal["max", "gross"] = "max"
) -> float:
    """Return the least risk of a commodity with short options, dollars.

    Parameters
    ----------
    short_calls, short_puts
        Units that are short, positive.
    rate
        Dollars for each.
    method
        ``max`` of both, or their sum for ``gross``.
    """
    return rate * (max(short_calls, short_puts) if method == "max" else short_calls + short_puts)


def span_risk(scan: float, month: float, delivery: float, credit: float, minimum: float) -> float:
    """Return the risk of a commodity from its parts, dollars."""
    return max(scan + month + delivery - credit, minimum)


@dataclass(frozen=True, slots=True)
class CommodityRisk:
    """The parts of one commodity, dollars.

    Attributes
    ----------
    scan
        Scan risk with its sixteen losses.
    spreading
        Spreads between its months.
    delivery, minimum
        Delivery charge and short option minimum.
    net_delta
        After spreads, units of the underlying.
    net_option_value
        Options at the market, long less short.
    """

    scan: ScanRisk
    spreading: InterMonth
    delivery: float
    minimum: float
    net_delta: float
    net_option_value: float


@lru_cache(maxsize=128)
def span_scenarios(
    commodity: Commodity,
    extreme_multiple: float = 2.0,
    extreme_cover: float = 0.35,
    look_ahead_s: int = DAY_S,
) -> ScenarioSet:
    """Return the sixteen scenarios of a commodity, the cover fraction as weight of the last two."""
    rule, size = VolRule(commodity.volatility_rule), commodity.volatility_scan_range
    shocks = {sign: VolShock(rule=rule, size=sign * size, least=0.0) for sign in (1, -1)}
    names = {1: "up", -1: "down"}
    usual = [
        Scenario(
            label=f"{i}: price {thirds:+d}/3, vol {names[sign]}"
            if thirds
            else f"{i}: price 0, vol {names[sign]}",
            every=1.0 + commodity.price_scan_range * thirds / 3.0,
            volatility=shocks[sign],
            seconds=look_ahead_s,
        )
        for i, (thirds, sign) in enumerate(SCENARIOS, start=1)
    ]
    extreme = [
        Scenario(
            label=f"{i}: price {sign * extreme_multiple:+g} extreme",
            every=1.0 + sign * extreme_multiple * commodity.price_scan_range,
            weight=extreme_cover,
            seconds=look_ahead_s,
        )
        for i, sign in ((15, 1), (16, -1))
    ]
    return scenario_set((*usual, *extreme))


@lru_cache(maxsize=128)
def _delta_points(commodity: Commodity, look_ahead_s: int) -> ScenarioSet:
    return scenario_set(
        Scenario(
            label=f"price {thirds}/3",
            every=1.0 + commodity.price_scan_range * thirds / 3.0,
            seconds=look_ahead_s,
        )
        for thirds in DELTA_WEIGHTS
    )


@margin_methods.register("cme.span")
class CmeSpan(ScenarioMethod):
    """CME's SPAN over perpetuals, futures and options that settle in dollars, with arrays made by Black-76.

    The equity counts options at the market, so the requirement is `risk` and not what exceeds the net option
    value; where that value is larger than the risk, the excess backs nothing else, as in SPAN.

    Attributes
    ----------
    parameters
        Ranges, rates and spreads.
    """

    kind: ClassVar[str] = "cme.span"
    grade: ClassVar[Grade] = Grade.CHECKED
    source: ClassVar[str] = (
        "scan risk checked by a published array (McMillan ch. 34); delta weights, weighted price risk and"
        " delivery charge recalled; reference of the margin engines 2.7"
    )

    parameters: SpanParameters = SpanParameters()

    def commodity(self, symbol: str, held: Portfolio, market: Market) -> CommodityRisk:
        """Return the parts of one commodity before credits.

        Parameters
        ----------
        symbol
            The underlying.
        held
            Positions on it alone.
        market
            The state of the market.

        Raises
        ------
        InputError
            For an expired instrument, or a volatility that is not positive.
        PriceMissing
            If a price is missing or no number.
        """
        p, own = self.parameters, self.parameters.commodity(symbol)
        scenarios = span_scenarios(own, p.extreme_multiple, p.extreme_cover, p.look_ahead_s)
        profits = profit_under(held, market, scenarios)
        # Of whole positions, so that each counts once.
        scan = scan_risk(np.ones(profits.shape[1]).tolist(), -profits.T)
        deltas = composite_delta(delta_under(held, market, _delta_points(own, p.look_ahead_s)))
        legs = legs_of(held, market)
        sides: dict[int, tuple[float, float]] = {}
        for seconds in sorted({int(s) for s in legs.seconds}):
            tier = own.tier(max(0, seconds) / DAY_S)
            net = float(deltas[legs.seconds == seconds].sum())
            long, short = sides.get(tier, (0.0, 0.0))
            sides[tier] = (long + max(0.0, net), short + max(0.0, -net))
        spreading = inter_month(sides, own.spreads)
        options = legs.where(Option)
        short_units = np.maximum(0.0, -legs.quantity[options])
        calls = legs.call[options]
        return CommodityRisk(
            scan=scan,
            spreading=spreading,
            delivery=delivery_charge(
                spreading, own.delivery_tier, own.delivery_spread_rate, own.delivery_outright_rate
            ),
            minimum=short_option_minimum(
                float(short_units[calls].sum()),
                float(short_units[~calls].sum()),
                own.short_option_rate,
                own.short_option_method,
            ),
            net_delta=sum(long - short for long, short in spreading.remaining.values()),
            net_option_value=float(value_under(held, market, NEUTRAL)[0, options].sum()),
        )

    def _answer(self, portfolio: Portfolio, market: Market) -> MarginResult:
        only(portfolio, self.kind, Perpetual, Future, Option)
        settled_in_dollars(portfolio, self.kind)
        parts = {
            symbol: self.commodity(
                symbol,
                of_underlying(portfolio, symbol),
                market,
            )
            for symbol in underlyings_of(portfolio)
        }
        credits = inter_commodity(
            {symbol: one.net_delta for symbol, one in parts.items()},
            {symbol: weighted_price_risk(one.scan, one.net_delta) for symbol, one in parts.items()},
            self.parameters.inter_commodity,
        )
        risk = value = 0.0
        rows: list[ScenarioRow] = []
        for symbol, one in parts.items():
            labels = span_scenarios(
                self.parameters.commodity(symbol),
                self.parameters.extreme_multiple,
                self.parameters.extreme_cover,
                self.parameters.look_ahead_s,
            ).labels
            rows.extend(rows_of(labels, -one.scan.losses, prefix=f"{symbol} " if len(parts) > 1 else ""))
            risk += span_risk(one.scan.risk, one.spreading.charge, one.delivery, credits[symbol], one.minimum)
            value += one.net_option_value
        required = max(risk, value)
        return self._result(
            portfolio,
            market,
            required,
            required,
            worst=worst_label(rows),
            rows=tuple(rows),
            components={
                "scan_risk": sum(one.scan.risk for one in parts.values()),
                "inter_month_charge": sum(one.spreading.charge for one in parts.values()),
                "delivery_charge": sum(one.delivery for one in parts.values()),
                "inter_commodity_credit": sum(credits.values()),
                "short_option_minimum": sum(one.minimum for one in parts.values()),
                "risk": risk,
                "net_option_value": value,
                "total_requirement": max(0.0, risk - value),
            },
        )
