"""What a portfolio-margin method says, and what such a method must offer.

Signs: a requirement is positive, a loss is negative profit. `initial` and `maintenance` are what is left of
the equity after the requirement: negative `maintenance` means liquidatable.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar, Protocol, runtime_checkable

from oracle.strict import StrictModel
from simulation.portfolio.instruments import Portfolio
from simulation.portfolio.market import Market
from simulation.types import MarginStatus


class Grade(StrEnum):
    """How well a method is founded."""

    VECTORS = "verified by the venue's published vectors"
    CHECKED = "checked against formulas or an independent library"
    RECALLED = "recalled: no published numbers were at hand"


class Parameters(StrictModel):
    """A frozen set of a method's parameters, with bounds; its hash stands in every report."""

    @property
    def hash(self) -> str:
        """The first 16 hexadecimal digits of the sha256 of the parameters as canonical JSON."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class ScenarioRow:
    """One scenario of a risk array.

    Attributes
    ----------
    label
        Under the venue's name, for example ``spot -15 %, vol up``.
    profit
        Of the whole portfolio, dollars, weighted as the method weighs it.
    """

    label: str
    profit: float


@dataclass(frozen=True, slots=True)
class MarginResult:
    """What a method demands of one account, dollars.

    Attributes
    ----------
    account, method, parameters_hash
        Whose margin, by which versioned id and parameters.
    status
        `UNKNOWN` when an input is missing or not a number; then all figures are NaN.
    equity
        Cash and marks of everything that counts.
    initial_requirement, maintenance_requirement
        What the account must have at least, to open and to keep.
    mark_to_market
        Of what the venue marks, without cash.
    worst
        Label of the scenario that decides; empty for a method without.
    scenarios
        The risk array, in the method's order.
    components
        The method's own parts under its venue's names, dollars.
    reason
        Why the status is what it is, one line.
    notes
        What a reader has to know of the figures, one line each: what the method could not see.
    """

    account: str
    method: str
    parameters_hash: str
    status: MarginStatus
    equity: float
    initial_requirement: float
    maintenance_requirement: float
    mark_to_market: float = 0.0
    worst: str = ""
    scenarios: tuple[ScenarioRow, ...] = ()
    components: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""
    notes: tuple[str, ...] = ()

    @property
    def initial(self) -> float:
        """Equity less the initial requirement."""
        return self.equity - self.initial_requirement

    @property
    def maintenance(self) -> float:
        """Equity less the maintenance requirement; the account is liquidatable when it is negative."""
        return self.equity - self.maintenance_requirement

    @property
    def margin_ratio(self) -> float:
        """Maintenance requirement over equity; infinite without equity and with a requirement."""
        if self.equity > 0:
            return self.maintenance_requirement / self.equity
        return float("inf") if self.maintenance_requirement > 0 or self.equity < 0 else 0.0

    @property
    def told(self) -> MarginResult:
        """The result, unknown where a figure is infinite or no number."""
        figures = (self.equity, self.initial_requirement, self.maintenance_requirement)
        explained = self.status is MarginStatus.UNKNOWN and self.reason
        if explained or all(math.isfinite(figure) for figure in figures):
            return self
        return self.unknown(
            self.account, self.method, self.parameters_hash, "an input is no number, or overflows"
        )

    @classmethod
    def unknown(cls, account: str, method: str, parameters_hash: str, reason: str) -> MarginResult:
        """Return the result of an account of which nothing can be said, and why."""
        nan = float("nan")
        return cls(account, method, parameters_hash, MarginStatus.UNKNOWN, nan, nan, nan, nan, reason=reason)


@runtime_checkable
class PortfolioMethod(Protocol):
    """A portfolio-margin method: a frozen model of its parameters, registered in `simulation.margin`."""

    kind: ClassVar[str]
    grade: ClassVar[Grade]
    source: ClassVar[str]

    @property
    def parameters(self) -> Parameters:
        """The parameter set."""
        ...

    def margin(self, portfolio: Portfolio, market: Market) -> MarginResult:
        """Return what the venue would demand.

        Raises
        ------
        InputError
            For an instrument that the method does not know, an expired option, a strike or volatility that is
            not positive. A price that is missing or no number makes the result unknown instead.
        """
        ...


def status_of(maintenance: float, requirement: float) -> MarginStatus:
    """Return the status by what is left of the equity; unknown where that is no number."""
    if math.isnan(maintenance) or math.isnan(requirement):
        return MarginStatus.UNKNOWN
    if maintenance < 0:
        return MarginStatus.LIQUIDATABLE
    return MarginStatus.NO_DEBT if requirement == 0 else MarginStatus.HEALTHY


def dumped(result: MarginResult) -> dict[str, Any]:
    """Return a result as plain data."""
    return {
        "account": result.account,
        "method": result.method,
        "parameters_hash": result.parameters_hash,
        "status": result.status.value,
        "equity": result.equity,
        "initial_requirement": result.initial_requirement,
        "maintenance_requirement": result.maintenance_requirement,
        "initial": result.initial,
        "maintenance": result.maintenance,
        "margin_ratio": result.margin_ratio,
        "mark_to_market": result.mark_to_market,
        "worst": result.worst,
        "scenarios": [{"label": row.label, "profit": row.profit} for row in result.scenarios],
        "components": dict(result.components),
        "reason": result.reason,
        "notes": list(result.notes),
    }
