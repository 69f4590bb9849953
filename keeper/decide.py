"""From a view to decisions: screen in floats, confirm in integers, judge at two prices, plan at the third.

Pure: everything that a decision rests on is in its arguments, so the same function serves a live head, a
replayed one and a test.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from keeper.view import HeadView
from oracle.types import PriceSnapshot
from simulation.interfaces import ProtocolAdapter
from simulation.liquidation import Executable, LiquidationModel, PlanSettings, plan_bundle
from simulation.margin.lending_health_factor import LendingHealthFactor
from simulation.policy import excess_seizure_bps
from simulation.screen import AAVE_V3_0, build_screen
from simulation.types import (
    Action,
    Book,
    Float64,
    LiquidationPlan,
    MarginReport,
    MarginStatus,
    Reason,
    Verdict,
)


class LendingProtocol(ProtocolAdapter[Any, Any], LiquidationModel[Any, Any], Executable, Protocol):
    """A protocol that can be read, judged and liquidated."""

    def project(self, market: Any, timestamp: int) -> Any:
        """Return the market at a later time; prices stay."""
        ...


@dataclass(frozen=True, slots=True)
class Decision:
    """What one view leads to.

    Attributes
    ----------
    verdicts
        One for each account that was looked at: all but those that the screen is certain are healthy and
        that were healthy before.
    plans
        The liquidations to execute, in the order they were planned in: each sees the price impact of the
        ones before it.
    screened, examined
        Accounts screened in floats, and those of them examined in exact integers.
    """

    verdicts: tuple[Verdict, ...]
    plans: tuple[LiquidationPlan, ...]
    screened: int
    examined: int


def prices_of(book: Book, prices: PriceSnapshot) -> Float64:
    """Return a price for each asset of the book, NaN where it is unknown."""
    known = (prices.price_e8(asset.symbol) for asset in book.assets)
    return np.fromiter((np.nan if p is None else p / 1e8 for p in known), dtype=np.float64)


def examined_rows(view: HeadView, watched: Collection[str], *, every: bool = False) -> list[int]:
    """Return the rows that need exact integers.

    Parameters
    ----------
    watched
        Accounts to look at whatever the screen says: those that were not healthy at the last head.
    every
        Look at all accounts, which is what an audit of the screen does.
    """
    book = view.book
    if every:
        return list(range(len(book)))
    screen = build_screen(book, AAVE_V3_0)
    rows = set(screen.run(prices_of(book, view.protocol)).candidates().tolist())
    if view.reference.prices:
        rows |= set(screen.run(prices_of(book, view.reference)).candidates().tolist())
    rows |= {i for i, account in enumerate(book.accounts) if account in watched}
    return sorted(rows)


def decide(
    view: HeadView,
    adapter: LendingProtocol,
    policy: Any,
    settings: PlanSettings,
    *,
    next_timestamp: int,
    watched: Collection[str] = (),
    in_flight: Collection[str] = (),
    every: bool = False,
) -> Decision:
    """Decide on every account of a view.

    Parameters
    ----------
    view
        One block.
    adapter, policy, settings
        The protocol, the policy and what the planner assumes of gas and profit.
    next_timestamp
        Expected time of the next block, at which interest has grown a little.
    watched, every
        See `examined_rows`.
    in_flight
        Accounts with a liquidation under way: they are judged and not planned for.
    """
    rows = examined_rows(view, watched, every=every)
    protocol = LendingHealthFactor(adapter, view.market)
    margins = {
        row: (
            protocol.report(view.book, row, view.protocol),
            protocol.report(view.book, row, view.reference) if view.reference.prices else None,
        )
        for row in rows
    }
    first = {row: policy.decide(*pair, None, excess_seizure_bps=None) for row, pair in margins.items()}
    wanted = [
        row
        for row, verdict in first.items()
        if verdict.reason is Reason.UNPROFITABLE and verdict.account not in in_flight
    ]
    market = adapter.project(view.market, max(next_timestamp, view.head.timestamp))
    accounts = {row: view.book.exact[row] for row in wanted}
    planned = plan_bundle(adapter, market, accounts, view.pools, view.protocol, settings)
    verdicts: list[Verdict] = []
    acting: list[tuple[int, LiquidationPlan]] = []
    for row, verdict in first.items():
        if verdict.account in in_flight and verdict.reason is Reason.UNPROFITABLE:
            verdicts.append(_in_flight(verdict))
            continue
        if row not in planned:
            verdicts.append(verdict)
            continue
        plan = planned[row]
        if isinstance(plan, Reason):
            verdicts.append(policy.decide(*margins[row], None, excess_seizure_bps=None, no_plan=plan))
            continue
        excess = excess_seizure_bps(
            _symbol(view.book, plan.collateral_asset),
            _symbol(view.book, plan.debt_asset),
            view.protocol,
            view.reference,
        )
        final = policy.decide(*margins[row], plan, excess_seizure_bps=excess)
        verdicts.append(final)
        if final.action is Action.ACT:
            acting.append((row, plan))
    ranks = {row: rank for rank, row in enumerate(planned)}
    acting.sort(key=lambda pair: ranks[pair[0]])
    return Decision(tuple(verdicts), tuple(plan for _, plan in acting), len(view.book), len(rows))


def _symbol(book: Book, address: str) -> str:
    return next(asset.symbol for asset in book.assets if asset.address == address)


def _in_flight(verdict: Verdict) -> Verdict:
    return Verdict(
        verdict.account,
        Action.LEAVE,
        Reason.DUPLICATE,
        verdict.protocol_margin,
        verdict.reference_margin,
        "a liquidation of this account is under way",
    )


def margin_line(margin: MarginReport | None) -> str:
    """Return one margin as a few words for tables."""
    if margin is None:
        return "none"
    if margin.health_factor_wad is None or margin.status is MarginStatus.NO_DEBT:
        return margin.status.value
    return f"{margin.health_factor_wad / 10**18:.4f}"
