"""From a view to decisions: screen in floats, confirm in integers, judge at two prices, plan at the third.

Pure: everything that a decision rests on is in its arguments, so the same function serves a live head, a
replayed one and a test.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import Any, TypeAlias

import numpy as np

from contracts_abi.errors import DataError, JournalError, MarginlineError
from keeper.asked import LEAST_ROOM_BPS, Planned
from keeper.contained import cause_of, contained
from keeper.markets import LendingProtocol, rounding_of
from keeper.view import QUOTE, HeadView, Views
from oracle.snapshot import plain_snapshot
from oracle.types import PriceSnapshot
from simulation.fixed_point import to_float
from simulation.liquidation import MarketBook, PlanSettings, plan_markets
from simulation.margin.lending_health_factor import LendingHealthFactor, prices_base
from simulation.policy import excess_seizure_bps
from simulation.screen import build_screen
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

Key: TypeAlias = tuple[str, str]
"""Market name and account: an account in two markets is two."""

_RATE_DECIMALS = 36
"""Scale at which a market's quote currency is valued, fine enough for tokens worth next to nothing."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What one view leads to, of one market or of several.

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
    undecided
        Why nothing could be decided in a market that was read, by its name: it is unknown, as one that was
        not read.
    """

    verdicts: tuple[Verdict, ...]
    plans: tuple[LiquidationPlan, ...]
    screened: int
    examined: int
    undecided: Mapping[str, str] = field(default_factory=dict)


def prices_of(view: HeadView, prices: PriceSnapshot) -> Float64:
    """Return a price for each asset of the book as the market would compare it, NaN where it is unknown.

    In the market's own currency: a market that prices one token in another sees nothing but their ratio.
    """
    market = view.market
    seen = market.with_prices(prices_base(prices, market.base_decimals)).prices_base
    known = (seen.get(asset.symbol) for asset in view.book.assets)
    return np.fromiter(
        (np.nan if p is None else to_float(p, market.base_decimals) for p in known), dtype=np.float64
    )


def examined_rows(
    view: HeadView, adapter: LendingProtocol, watched: Collection[str], *, every: bool = False
) -> list[int]:
    """Return the rows that need exact integers.

    Parameters
    ----------
    adapter
        The market, which says how far its contract may be from the floats.
    watched
        Accounts to look at whatever the screen says: those that were not healthy at the last head.
    every
        Look at all accounts, which is what an audit of the screen does.
    """
    book = view.book
    if every:
        return list(range(len(book)))
    screen = build_screen(book, rounding_of(adapter, view.market))
    rows = set(screen.run(prices_of(view, view.protocol)).candidates().tolist())
    if view.reference.prices:
        rows |= set(screen.run(prices_of(view, view.reference)).candidates().tolist())
    rows |= {i for i, account in enumerate(book.accounts) if account in watched}
    return sorted(rows)


def usd_prices(view: HeadView) -> PriceSnapshot:
    """Return the protocol's prices in US dollars, in which the operator's amounts are and markets compare.

    Those of a market that quotes in a token are valued at that token's reference price; while that is
    unknown, so is what anything is worth, and nothing can be planned.
    """
    protocol = view.protocol
    if protocol.quote == QUOTE:
        return protocol
    rate = view.reference.price_at(protocol.quote, _RATE_DECIMALS)
    decimals = view.market.base_decimals
    known = {asset: protocol.price_at(asset, decimals) for asset in protocol.prices}
    return plain_snapshot(
        protocol.view,
        QUOTE,
        {a: None if p is None or rate is None else p * rate // 10**_RATE_DECIMALS for a, p in known.items()},
        decimals,
        block=protocol.block,
        timestamp=protocol.timestamp,
    )


@dataclass(frozen=True, slots=True)
class _Allowed(Planned):
    """A market as it is planned in, with the pairs of each account that the policy would act on."""

    pairs: Mapping[str, Sequence[tuple[str, str]]] = field(default_factory=dict)

    def liquidation_pairs(self, market: Any, account: Any) -> Sequence[tuple[str, str]]:
        """Return pairs of debt and collateral token that `account` may be liquidated in."""
        return self.pairs[account.account]


def _paying(protocol: str, account: str, debt: str, collateral: str) -> LiquidationPlan:
    """Return a plan that pays, to ask a policy what speaks against a pair but profit."""
    return LiquidationPlan(
        account=account,
        protocol=protocol,
        debt_asset=debt,
        collateral_asset=collateral,
        debt_to_cover_raw=1,
        seized_raw=1,
        full=False,
        path=(),
        flash_premium_raw=0,
        proceeds_raw=2,
        profit_raw=1,
        gas_units=0,
        gas_cost_raw=0,
        min_profit_raw=0,
        impact_bps=0,
    )


@dataclass(frozen=True, slots=True)
class _Judged:
    """One market's accounts, judged at two prices and not planned for."""

    view: HeadView
    usd: PriceSnapshot
    margins: Mapping[int, tuple[MarginReport, MarginReport | None]]
    first: Mapping[int, Verdict]
    book: MarketBook


def unknown_verdict(verdict: Verdict, why: str) -> Verdict:
    """Return the verdict on an account that was judged, and that planning then failed on: held."""
    return replace(verdict, action=Action.HOLD, reason=Reason.ACCOUNT_UNKNOWN, detail=why)


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
    """Decide on every account of one market; see `decide_all`.

    Raises
    ------
    MarginlineError
        If the market's state is one that nothing can be decided on.
    """
    name = adapter.name
    flying = {(name, account) for account in in_flight}
    judged = _judge(
        view,
        adapter,
        policy,
        settings,
        next_timestamp=next_timestamp,
        watched=watched,
        in_flight=flying,
        every=every,
    )
    return _decided({name: judged}, policy, flying, most=None, undecided={})


def decide_all(
    views: Views,
    adapters: Mapping[str, LendingProtocol],
    policy: Any,
    settings: PlanSettings,
    *,
    next_timestamp: int,
    watched: Collection[Key] = (),
    in_flight: Collection[Key] = (),
    every: bool = False,
    most: int | None = None,
    rooms: Mapping[str, int] | None = None,
    barred: Callable[[Key], str | None] = lambda _: None,
    behind: Collection[Key] = (),
) -> Decision:
    """Decide on every account of every market, and plan for all together.

    Parameters
    ----------
    views
        One block.
    adapters, policy, settings
        The markets by name, the policy and what the planner assumes of gas and profit. Where its swaps may
        pass through some tokens only, each market's plans may also pass through those of that market.
    next_timestamp
        Expected time of the next block, at which interest has grown a little.
    watched, every
        See `examined_rows`.
    in_flight
        Accounts with a liquidation under way: they are judged and not planned for.
    most
        Plans to make at most; the accounts of least profit behind them are left for `Reason.LIMIT`.
    rooms
        How far a market's prices may move until the next block, in basis points; see `keeper.asked`.
    barred
        Returns the limit that keeps us off an account, None without one. Who is kept off is judged and not
        planned for, so that no plan that nobody executes takes the place of one.
    behind
        Accounts whose plans did not hold at the last head: they are planned for on what the others leave.
    """
    judged: dict[str, _Judged] = {}
    undecided: dict[str, str] = {}
    for name, view in views.markets.items():
        try:
            judged[name] = _judge(
                view,
                adapters[name],
                policy,
                settings,
                next_timestamp=next_timestamp,
                watched={account for market, account in watched if market == name},
                in_flight=in_flight,
                every=every,
                room=(rooms or {}).get(name, LEAST_ROOM_BPS),
                barred=barred,
            )
        except JournalError:
            # Who may be acted on is read there: of all markets, and nobody knows now.
            raise
        except MarginlineError as error:
            # Says something of this market; the others may be as they should.
            undecided[name] = str(error)
    return _decided(judged, policy, in_flight, most=most, undecided=undecided, behind=behind)


def _judge(
    view: HeadView,
    adapter: LendingProtocol,
    policy: Any,
    settings: PlanSettings,
    *,
    next_timestamp: int,
    watched: Collection[str],
    in_flight: Collection[Key],
    every: bool,
    room: int = LEAST_ROOM_BPS,
    barred: Callable[[Key], str | None] = lambda _: None,
) -> _Judged:
    rows = examined_rows(view, adapter, watched, every=every)
    protocol = LendingHealthFactor(adapter, view.market)
    margins: dict[int, tuple[MarginReport, MarginReport | None]] = {}
    first: dict[int, Verdict] = {}
    failed: dict[int, str] = {}
    for row in rows:
        with contained(partial(failed.__setitem__, row)):
            pair = (
                protocol.report(view.book, row, view.protocol),
                protocol.report(view.book, row, view.reference) if view.reference.prices else None,
            )
            first[row] = policy.decide(*pair, None, excess_seizure_bps=None)
            margins[row] = pair
    if len(failed) == len(rows) > 1:
        # What breaks on everybody is the market's matter, and told as such.
        raise DataError(f"none of the {len(rows)} accounts looked at could be judged: {failed[rows[0]]}")
    for row, why in failed.items():
        margins[row] = _unknown_margin(view, protocol, row, why), None
        first[row] = Verdict(view.book.accounts[row], Action.HOLD, Reason.ACCOUNT_UNKNOWN, *margins[row], why)
    wanted = [
        row
        for row, verdict in first.items()
        if verdict.reason is Reason.UNPROFITABLE and (adapter.name, verdict.account) not in in_flight
    ]
    usd = usd_prices(view)
    market = adapter.project(view.market, max(next_timestamp, view.head.timestamp))
    # A plan takes its place in the pools, and one of those that are made at all. One that the policy would
    # hold whatever it earns must not: a market with a wrong oracle would stop the others.
    pairs: dict[str, Sequence[tuple[str, str]]] = {}
    dropped: set[int] = set()
    excess = cache(partial(_excess, view))
    for row in wanted:
        account = view.book.accounts[row]
        verdicts: dict[tuple[str, str], Verdict] = {}
        with contained(partial(failed.__setitem__, row)):
            verdicts = {
                (debt, collateral): policy.decide(
                    *margins[row],
                    _paying(adapter.name, account, debt, collateral),
                    excess_seizure_bps=excess(debt, collateral),
                )
                for debt, collateral in adapter.liquidation_pairs(market, view.book.exact[row])
            }
        pairs[account] = [pair for pair, verdict in verdicts.items() if verdict.action is Action.ACT]
        if row in failed:
            first[row] = unknown_verdict(first[row], failed[row])
            dropped.add(row)
        elif verdicts and not pairs[account]:
            first[row] = next(iter(verdicts.values()))
            dropped.add(row)
        elif (limit := barred((adapter.name, account))) is not None:
            first[row] = replace(first[row], action=Action.HOLD, reason=Reason.LIMIT, detail=limit)
            dropped.add(row)
    if settings.from_inventory and settings.inventory_raw is not None:
        settings = replace(settings, inventory_raw=view.funds_raw)
    if settings.swap_tokens is not None:
        own = frozenset(asset.address for asset in adapter.assets(market))
        settings = replace(settings, swap_tokens=settings.swap_tokens | own)
    book = MarketBook(
        model=_Allowed(adapter, room, pairs),
        market=market,
        accounts={(adapter.name, row): view.book.exact[row] for row in wanted if row not in dropped},
        prices=usd,
        settings=settings,
    )
    return _Judged(view, usd, margins, first, book)


def _decided(
    judged: Mapping[str, _Judged],
    policy: Any,
    in_flight: Collection[Key],
    *,
    most: int | None,
    undecided: Mapping[str, str],
    behind: Collection[Key] = (),
) -> Decision:
    pools = next((j.view.pools for j in judged.values()), {})
    failed: dict[tuple[str, int], str] = {}
    planned = plan_markets(
        [j.book for j in judged.values()],
        pools,
        most=most,
        behind={
            key for key in _rows(judged) if (key[0], judged[key[0]].view.book.accounts[key[1]]) in behind
        },
        failed=lambda key, error: failed.update({key: cause_of(error)}),
    )
    verdicts: list[Verdict] = []
    acting: list[tuple[int, LiquidationPlan]] = []
    ranks = {key: rank for rank, key in enumerate(planned)}
    for name, market in judged.items():
        view = market.view
        for row, verdict in market.first.items():
            margins = market.margins[row]
            if (name, verdict.account) in in_flight and verdict.reason is Reason.UNPROFITABLE:
                verdicts.append(_in_flight(verdict))
                continue
            if (name, row) not in planned:
                verdicts.append(verdict)
                continue
            plan = planned[name, row]
            final = verdict
            with contained(partial(failed.__setitem__, (name, row))):
                if (name, row) not in failed:
                    final = _final(view, policy, margins, plan)
            if (name, row) in failed:
                final = unknown_verdict(verdict, failed[name, row])
            elif final.action is Action.ACT and not isinstance(plan, Reason):
                acting.append((ranks[name, row], plan))
            verdicts.append(final)
    acting.sort(key=lambda ranked: ranked[0])
    return Decision(
        tuple(verdicts),
        tuple(plan for _, plan in acting),
        sum(len(j.view.book) for j in judged.values()),
        sum(len(j.first) for j in judged.values()),
        undecided,
    )


def _final(
    view: HeadView,
    policy: Any,
    margins: tuple[MarginReport, MarginReport | None],
    plan: LiquidationPlan | Reason,
) -> Verdict:
    """Return the verdict on an account that was planned for."""
    verdict: Verdict
    if isinstance(plan, Reason):
        verdict = policy.decide(*margins, None, excess_seizure_bps=None, no_plan=plan)
    else:
        excess = _excess(view, plan.debt_asset, plan.collateral_asset)
        verdict = policy.decide(*margins, plan, excess_seizure_bps=excess)
    return verdict


def _unknown_margin(view: HeadView, protocol: LendingHealthFactor, row: int, why: str) -> MarginReport:
    return MarginReport.unknown(
        view.book.accounts[row],
        protocol.adapter.name,
        protocol.id,
        block=view.book.block,
        timestamp=view.book.timestamp,
        base_decimals=view.market.base_decimals,
        reason=why,
    )


def _rows(judged: Mapping[str, _Judged]) -> list[tuple[str, int]]:
    return [key for market in judged.values() for key in market.book.accounts]


def _excess(view: HeadView, debt: str, collateral: str) -> int | None:
    symbols = _symbol(view.book, collateral), _symbol(view.book, debt)
    return excess_seizure_bps(*symbols, view.protocol, view.reference)


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
