"""What a margin is measured against: no netting at all, netting of everything, and crashes that happened.

``isolated`` margins each instrument alone, as an account of its own would be; ``cross`` nets the whole book
in each scenario. On one grid the first is never below the second, and what lies between is what netting
saves. ``stress`` asks how much a book loses in named shocks; it is no venue's rule. Source: reference of the
margin engines, sections 2.12 and 7.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, ClassVar, Final

from pydantic import Field, FiniteFloat, model_validator

from contracts_abi.errors import InputError, UnknownNameError
from simulation.margin import margin_methods
from simulation.margin.result import Grade, MarginResult, Parameters
from simulation.margin.scenario_grid import (
    Scenario,
    ScenarioMethod,
    ScenarioSet,
    VolRule,
    VolShock,
    grid,
    profit_under,
    rows_of,
    scenario_set,
    worst_label,
    worst_loss,
)
from simulation.portfolio.instruments import Portfolio
from simulation.portfolio.market import Market

MOVES: Final = (-0.16, -0.12, -0.08, -0.04, 0.0, 0.04, 0.08, 0.12, 0.16)


class GridParameters(Parameters):
    """A grid of price moves, the same for every underlying, with three states of volatility.

    Attributes
    ----------
    moves
        Relative moves of all prices together.
    volatility_up, volatility_down
        Relative shocks of an option of 30 days; others by the term rule of `VolShock`.
    scenarios
        Scenarios instead of the grid; empty for the grid.
    maintenance_share
        Maintenance over initial requirement.
    """

    moves: tuple[Annotated[FiniteFloat, Field(gt=-1)], ...] = Field(default=MOVES, min_length=1)
    volatility_up: Annotated[FiniteFloat, Field(ge=0)] = 0.5
    volatility_down: Annotated[FiniteFloat, Field(ge=0, le=1)] = 0.25
    scenarios: tuple[Scenario, ...] = ()
    maintenance_share: Annotated[FiniteFloat, Field(ge=0, le=1)] = 1.0

    @model_validator(mode="after")
    def _makes_a_set(self) -> GridParameters:
        """Refuse what makes no set of scenarios: moves that repeat, for one."""
        self.scenario_set()
        return self

    def scenario_set(self) -> ScenarioSet:
        """Return the scenarios."""
        if self.scenarios:
            return scenario_set(self.scenarios)
        return _grid(self.moves, self.volatility_up, self.volatility_down)


@lru_cache(maxsize=64)
def _grid(moves: tuple[float, ...], up: float, down: float) -> ScenarioSet:
    return grid(
        moves,
        {
            "vol down": VolShock(rule=VolRule.TERM, size=-down, least=0.0),
            "vol same": VolShock(),
            "vol up": VolShock(rule=VolRule.TERM, size=up),
        },
    )


@margin_methods.register("isolated")
class Isolated(ScenarioMethod):
    """Each instrument margined alone: the sum of the worst losses of all, nothing netted between them.

    Positions in one instrument at one place are one, so that splitting a position changes no margin.

    Attributes
    ----------
    parameters
        The grid.
    """

    kind: ClassVar[str] = "isolated"
    grade: ClassVar[Grade] = Grade.CHECKED
    source: ClassVar[str] = "definition; reference of the margin engines 2.12"

    parameters: GridParameters = GridParameters()

    def _answer(self, portfolio: Portfolio, market: Market) -> MarginResult:
        scenarios = self.parameters.scenario_set()
        each = profit_under(portfolio, market, scenarios)
        losses = [worst_loss(column) for column in each.T]
        return self._result(
            portfolio,
            market,
            sum(losses),
            self.parameters.maintenance_share * sum(losses),
            # The array of the whole book, though each instrument's own worst row is what counts.
            rows=rows_of(scenarios.labels, each.sum(axis=1)),
            components={"sum_of_worst": sum(losses), "largest": max(losses, default=0.0)},
        )


@margin_methods.register("cross")
class Cross(ScenarioMethod):
    """The whole book netted in each scenario: its worst loss, without any charge for concentration.

    Attributes
    ----------
    parameters
        The grid.
    """

    kind: ClassVar[str] = "cross"
    grade: ClassVar[Grade] = Grade.CHECKED
    source: ClassVar[str] = "definition; reference of the margin engines 2.12"

    parameters: GridParameters = GridParameters()

    def _answer(self, portfolio: Portfolio, market: Market) -> MarginResult:
        scenarios = self.parameters.scenario_set()
        profits = profit_under(portfolio, market, scenarios).sum(axis=1)
        rows, loss = rows_of(scenarios.labels, profits), worst_loss(profits)
        return self._result(
            portfolio,
            market,
            loss,
            self.parameters.maintenance_share * loss,
            worst=worst_label(rows),
            rows=rows,
            components={"scan_risk": loss},
        )


@dataclass(frozen=True, slots=True)
class Crash:
    """A fall that happened.

    Attributes
    ----------
    before, after
        Symbol to dollars before the fall and at its low, as the source states them.
    every
        Relative price of what is not named; the largest fall among the named, which is an assumption.
    source
        Where the sizes are from.
    """

    before: Mapping[str, float]
    after: Mapping[str, float]
    source: str

    @property
    def prices(self) -> dict[str, float]:
        """Symbol to what was left of its price."""
        return {symbol: self.after[symbol] / price for symbol, price in self.before.items()}

    @property
    def every(self) -> float:
        """What is left of a price that the source does not name: as of the one that fell most."""
        return min(self.prices.values())


CRASHES: Final = {
    "2020-03-12": Crash(
        {"BTC": 7_300.0, "ETH": 200.0},
        {"BTC": 3_900.0, "ETH": 90.0},
        "blog.btcmex.com/black-thursday-what-actually-happened-to-bitcoin (BTC);"
        " pastorq.com/8162.html (ETH, rounded)",
    ),
    "2021-05-19": Crash(
        {"BTC": 42_000.0, "ETH": 3_200.0, "BNB": 500.0},
        {"BTC": 30_000.0, "ETH": 1_888.0, "BNB": 280.0},
        "worldstockmarket.net/lightning-rollback-bitcoin-rate-went-by-12000-down-and-up-in-15-hours",
    ),
    "2022-06-13": Crash(
        # Stated as falls of a day: "more than 16 %" and "more than 20 %".
        {"BTC": 1.0, "ETH": 1.0},
        {"BTC": 0.84, "ETH": 0.80},
        "fox13now.com, 2022-06-13, bitcoin-plunges-as-major-crypto-lender-halts-operations",
    ),
    "2025-10-10": Crash(
        {"BTC": 122_000.0, "ETH": 4_369.07},
        {"BTC": 101_500.0, "ETH": 3_435.0},
        "binance.bh/en/square/post/30852754400314 (BTC before); igcurrencynews.com/?p=29182 (BTC low);"
        " infomediang.com/?p=96476 (ETH open); recessionprofitalerts.com (ETH low)",
    ),
}
"""Named falls with press sizes: good to a few percent, venues differed by more at the lows."""


class StressParameters(Parameters):
    """Which shocks a book goes through.

    Attributes
    ----------
    crashes
        Names in `CRASHES`, each a date; prices fall at once and do not come back.
    volatility_up
        Relative shock of an option of 30 days in each of them, by the term rule; the sources say nothing of
        volatilities, so this is an assumption.
    scenarios
        Shocks of your own.
    """

    crashes: tuple[str, ...] = tuple(CRASHES)
    volatility_up: Annotated[FiniteFloat, Field(ge=0)] = 0.5
    scenarios: tuple[Scenario, ...] = ()

    @model_validator(mode="after")
    def _makes_a_set(self) -> StressParameters:
        """Refuse names that are none, and what makes no set."""
        for name in self.crashes:
            if name not in CRASHES:
                raise UnknownNameError("crash", name, CRASHES)
        if not self.crashes and not self.scenarios:
            raise InputError(
                "a stress without shocks", fix=f"name crashes ({', '.join(CRASHES)}) or scenarios"
            )
        self.scenario_set()
        return self

    def scenario_set(self) -> ScenarioSet:
        """Return the named crashes, then the user's own shocks."""
        return scenario_set((*crash_scenarios(self.crashes, self.volatility_up), *self.scenarios))


def crash_scenarios(names: Sequence[str], volatility_up: float) -> tuple[Scenario, ...]:
    """Return named crashes as scenarios.

    Parameters
    ----------
    names
        In `CRASHES`.
    volatility_up
        Relative shock of an option of 30 days.

    Raises
    ------
    UnknownNameError
        With the nearest names.
    """
    out = []
    for name in names:
        if name not in CRASHES:
            raise UnknownNameError("crash", name, CRASHES)
        crash, up = CRASHES[name], VolShock(rule=VolRule.TERM, size=volatility_up)
        out.append(Scenario(label=name, every=crash.every, prices=crash.prices, volatility=up))
    return tuple(out)


@margin_methods.register("stress")
class Stress(ScenarioMethod):
    """The worst loss of the whole book over crashes that happened and shocks of the user's own.

    Attributes
    ----------
    parameters
        Which shocks.
    """

    kind: ClassVar[str] = "stress"
    grade: ClassVar[Grade] = Grade.CHECKED
    source: ClassVar[str] = (
        "definition; sizes of the crashes from press reports named beside each, volatility assumed"
    )

    parameters: StressParameters = StressParameters()

    def _answer(self, portfolio: Portfolio, market: Market) -> MarginResult:
        scenarios = self.parameters.scenario_set()
        profits = profit_under(portfolio, market, scenarios).sum(axis=1)
        rows, loss = rows_of(scenarios.labels, profits), worst_loss(profits)
        return self._result(
            portfolio,
            market,
            loss,
            loss,
            worst=worst_label(rows),
            rows=rows,
            components={row.label: max(0.0, -row.profit) for row in rows},
        )
