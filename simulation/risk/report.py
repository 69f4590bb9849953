"""Everything that the tools say of one account under one method, as plain data."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np

from contracts_abi.errors import InputError, MarginlineError
from simulation.margin import margin_methods
from simulation.margin.derive_exact import Decision, decided_margin
from simulation.margin.result import MarginResult, PortfolioMethod, dumped
from simulation.margin.scenario_grid import legs_of
from simulation.portfolio.instruments import Option, Portfolio
from simulation.portfolio.market import Market
from simulation.risk.attribution import Attribution, Which, euler, incremental, leave_one_out
from simulation.risk.broken_hedge import broken_hedges
from simulation.risk.distance import distances
from simulation.risk.greeks import greeks_by
from simulation.risk.moves import label_of
from simulation.risk.netted import netted_by
from simulation.risk.restore import restore
from simulation.risk.savings import savings
from simulation.types import MarginStatus

FULL: Final = 100
"""Positions up to which a report tells of each: beyond, one margin for each takes minutes."""
LARGEST: Final = 20
"""Positions that it tells of beyond."""

Quiet: Final[Callable[[str], None]] = lambda _part: None  # noqa: E731


def plain(value: Any) -> Any:
    """Return data as JSON has it: what is no number or infinite becomes None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(inner) for inner in value]
    return value


def full_report(
    method: PortfolioMethod,
    portfolio: Portfolio,
    market: Market,
    *,
    tell: Callable[[str], None] = Quiet,
    every: bool = False,
) -> dict[str, Any]:
    """Return margin, risk array, components, Greeks, contributions, savings, distances and broken hedges.

    A part that a method refuses is an object with the reason alone: ``{"reason": …}``. An account whose
    margin is unknown has no parts.

    Parameters
    ----------
    method, portfolio, market
        Whose margin.
    tell
        Told each part as it begins.
    every
        Whether to tell of each position of an account of more than `FULL`. Without it shares and broken
        hedges are those of the `LARGEST` by notional, and savings are left out, unless the method nets the
        book in each scenario (see `simulation.risk.netted`); trades that restore the margin are of those in
        any case. A note says so.

    Raises
    ------
    InputError
        If the method refuses the account.
    """
    result, decision = decided_margin(method, portfolio, market)
    report = dumped(result) | {
        "decision": decision_record(decision),
        "grade": method.grade.value,
        "source": method.source,
        "positions": [label_of(position) for position in portfolio.positions],
    }
    if result.status is MarginStatus.UNKNOWN:
        return record_of(report)
    size = len(portfolio.positions)
    largest = None if every or size <= FULL else largest_positions(portfolio, market)
    told = None if netted_by(method) is not None else largest
    if told is not None or (largest is not None and result.maintenance < 0):
        report["notes"].append(_limited(size, netted=told is None))
    parts: dict[str, Callable[[], Any]] = {
        "greeks": lambda: [
            {"underlying": row.underlying, "expiry": row.expiry, **asdict(row.greeks)}
            for row in greeks_by(portfolio, market)
        ],
        "contributions": lambda: {
            "initial": attribution_record(euler(method, portfolio, market, Which.INITIAL, at=told)),
            "maintenance": attribution_record(euler(method, portfolio, market, at=told)),
            "incremental": attribution_record(incremental(method, portfolio, market, at=told)),
            "leave_one_out": attribution_record(leave_one_out(method, portfolio, market, at=told)),
        },
        "savings": lambda: (
            _savings_record(method, portfolio, market)
            if told is None
            else {"reason": f"not asked for {size:,} positions; --all asks"}
        ),
        "distance": lambda: [
            {
                "factor": str(d.factor), "up": d.up, "move": d.move, "reached": d.reached, "reach": d.reach,
                "text": d.text,
            }
            for d in distances(method, portfolio, market)
        ],
        "broken_hedges": lambda: [
            {
                "leg": leg.label, "liquidated": leg.liquidated, "defaulted": leg.defaulted,
                "takes_the_rest": leg.takes_the_rest,
            }
            for leg in broken_hedges(method, portfolio, market, at=told)
        ],
        "restore": lambda: _restore_record(method, portfolio, market, largest),
    }  # fmt: skip
    for name, part in parts.items():
        tell(name.replace("_", " "))
        try:
            report[name] = part()
        except MarginlineError as error:
            report[name] = {"reason": str(error)}
    return record_of(report)


def record_of(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return an object as JSON has it; see `plain`."""
    return {key: plain(value) for key, value in data.items()}


def decision_record(decision: Decision | None) -> dict[str, Any]:
    """Return who decided on liquidation, and the maintenance margin at 1e18 as text where integers did."""
    if decision is None or decision.mm_wad is None:
        return {"decided_by": "float", "mm_wad": None}
    return {"decided_by": decision.decided_by, "mm_wad": str(decision.mm_wad)}


def attribution_record(attribution: Attribution) -> dict[str, Any]:
    """Return shares of a requirement as plain data."""
    return {
        "way": attribution.way,
        "requirement": attribution.requirement,
        "positions": [{"position": c.label, "amount": c.amount} for c in attribution.contributions],
        "rest": attribution.rest,
    }


def _savings_record(method: PortfolioMethod, portfolio: Portfolio, market: Market) -> dict[str, Any]:
    found = savings(method, portfolio, market)
    return {
        "isolated": found.isolated,
        "requirement": found.requirement,
        "saved": found.saved,
        "share": found.share,
    }


def largest_positions(portfolio: Portfolio, market: Market, count: int = LARGEST) -> tuple[int, ...]:
    """Return the places of the largest positions by notional, in the portfolio's order.

    Parameters
    ----------
    portfolio, market
        What is held, at which prices; an inverse position's notional is its dollars.
    count
        How many.

    Raises
    ------
    InputError
        As `simulation.margin.scenario_grid.legs_of`.
    """
    legs = legs_of(portfolio, market)
    dollars = np.array([legs.inverse[i] and kind is not Option for i, kind in enumerate(legs.kind)], np.bool_)
    notional = np.abs(legs.quantity) * np.where(dollars, 1.0, legs.spot)
    order = np.argsort(-notional, kind="stable")[:count]
    return tuple(sorted(order.tolist()))


def _limited(size: int, *, netted: bool) -> str:
    trades = "trades that restore the margin"
    what = f"{trades} are" if netted else f"contributions, broken hedges and {trades} are"
    left = "" if netted else ", and savings left out"
    return (
        f"of {size:,} positions {what} told for the {LARGEST} largest by notional{left}; --all asks for each"
    )


def _restore_record(
    method: PortfolioMethod, portfolio: Portfolio, market: Market, at: Sequence[int] | None
) -> dict[str, Any]:
    found = restore(method, portfolio, market, at=at)
    return {
        "deposit": found.deposit,
        "trades": [
            {"instrument": t.label, "quantity": t.position.quantity, "notional": t.notional}
            for t in found.trades
        ],
    }


# --------------------------------------------------------------------------------------------------- compare


@dataclass(frozen=True, slots=True)
class Compared:
    """What one method says of one account.

    Attributes
    ----------
    account, method
        Of whom, and the method's id.
    result
        None where the method does not apply.
    reason
        Why it does not, or why its result is unknown; one line.
    """

    account: str
    method: str
    result: MarginResult | None
    reason: str = ""

    @property
    def record(self) -> dict[str, Any]:
        """The row as plain data; without a result the account, the method and the reason."""
        if self.result is None:
            return {"account": self.account, "method": self.method, "applies": False, "reason": self.reason}
        keys = (
            "status", "equity", "initial_requirement", "maintenance_requirement", "initial", "maintenance",
            "margin_ratio", "worst", "parameters_hash", "notes",
        )  # fmt: skip
        data = dumped(self.result)
        head = {"account": self.account, "method": self.method, "applies": True, "reason": self.reason}
        return record_of(head | {key: data[key] for key in keys})


def default_methods() -> tuple[tuple[str, PortfolioMethod | None, str], ...]:
    """Return id, method with its own parameters, and why there is none, of every registered margin method."""
    found: list[tuple[str, PortfolioMethod | None, str]] = []
    for kind in margin_methods:
        if not hasattr(margin_methods.get(kind), "margin"):
            found.append((kind, None, "margins accounts of a lending market, and no portfolio file"))
            continue
        try:
            found.append((kind, margin_methods.build({"kind": kind}), ""))
        except MarginlineError as error:
            missing = isinstance(error, InputError) and "is missing" in error.message
            why = "has no parameters of its own: name a file with its keys" if missing else str(error)
            found.append((kind, None, why))
    return tuple(found)


def compared(
    methods: Iterable[tuple[str, PortfolioMethod | None, str]], portfolio: Portfolio, market: Market
) -> tuple[Compared, ...]:
    """Return what each method says of an account; one that does not apply says why.

    Parameters
    ----------
    methods
        As of `default_methods`.
    portfolio, market
        Whose margin.
    """
    return tuple(_compared(kind, method, why, portfolio, market) for kind, method, why in methods)


def _compared(
    kind: str, method: PortfolioMethod | None, why: str, portfolio: Portfolio, market: Market
) -> Compared:
    if method is None:
        return Compared(portfolio.account, kind, None, why)
    try:
        result, _ = decided_margin(method, portfolio, market)
    except MarginlineError as error:
        return Compared(portfolio.account, kind, None, str(error))
    if result.status is MarginStatus.UNKNOWN:
        return Compared(portfolio.account, kind, None, result.reason)
    return Compared(portfolio.account, kind, result, result.reason)
