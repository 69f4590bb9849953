"""The head-driven loop: at each new block follow what was sent, read, decide, simulate, write ahead, send.

The newest head wins: heads that passed while one was worked on are not queued, and a head older than the last
one worked on is ignored. What fails at one head is said and tried again at the next.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from contracts_abi.errors import ChainError, DataError, InputError, UnknownNameError
from keeper.asked import ROOM_HEADS, Asked, gas_room, room_bps
from keeper.clock import Clock
from keeper.config import KeeperConfig, Mode, wei_of_eth
from keeper.contained import contained
from keeper.decide import Decision, Key, decide_all, examined_rows, usd_prices
from keeper.execute import Prepared, PricedPlan, liquidated_event, prepare
from keeper.fees import FeePolicy, market_fees
from keeper.journal import Journal
from keeper.limits import Breach, Limit, account_breach, global_breach, market_breach, read_usage, room
from keeper.markets import LendingProtocol, Market
from keeper.outage import Outage
from keeper.rpc import Head, Node, Tick, TxCall, TxReceipt
from keeper.submit import Submission, Submitter, TxEvent
from keeper.sync import Discovery, Synced, advance_all
from keeper.types import Intent, Order, Receipt
from keeper.view import Reader, Views
from simulation.fixed_point import ceil_div
from simulation.liquidation import PlanSettings
from simulation.types import Action, LiquidationPlan, MarginStatus, Reason, Verdict

Emit = Callable[[str, Mapping[str, Any]], None]
"""Takes the name of an event and its fields; values are JSON types."""

PLANS_AT_LEAST: Final = 64
"""Plans that are made at a head whatever a block may take of them."""

MOST_REFUSED: Final = 512
"""Plans that are made at most on top of that for who was refused before. In a market that anybody can open
somebody may put any number of accounts whose plans never hold, and each costs time at each head."""

_UNREMARKABLE = frozenset({Reason.HEALTHY, Reason.NO_DEBT})
_ACTED_ON = frozenset({Reason.LIQUIDATE, Reason.DUPLICATE})


@dataclass(frozen=True, slots=True)
class HeadResult:
    """What was done at one head.

    Attributes
    ----------
    views, decision
        What was read of each market, and what followed from all of it.
    verdicts
        The decision's verdicts with what simulation, limits and journal had to add.
    submission
        What was handed over; None outside ``live`` or when there was nothing.
    round_trips
        Requests to the node from the new head to the signed transactions.
    own_s
        Time from the new head to the signed transactions that was not spent waiting for the node.
    """

    views: Views
    decision: Decision
    verdicts: tuple[Verdict, ...]
    submission: Submission | None
    round_trips: int
    own_s: float


@dataclass(slots=True)
class Keeper:
    """One keeper of one market or several: one head, one decision, one key.

    Attributes
    ----------
    config, node, policy
        As connected.
    markets
        What is watched, by name.
    discoveries
        Who borrows in each market, by its name.
    reader, submitter, journal
        The other parts that hold state.
    clock
        For durations only.
    emit
        Told what happens.
    assets
        Symbol to token address, of all markets.
    audit_due
        Set it to have the next head examine every account exactly and count what the screen missed.
    balance_due
        Set it to have the next head report the sender's balance.
    screen_misses
        How many that were so far; anything but 0 is a defect.
    """

    config: KeeperConfig
    node: Node
    markets: Mapping[str, Market]
    policy: Any
    reader: Reader
    discoveries: Mapping[str, Discovery]
    submitter: Submitter
    journal: Journal
    clock: Clock
    emit: Emit
    assets: Mapping[str, str]
    audit_due: threading.Event = field(default_factory=threading.Event)
    balance_due: threading.Event = field(default_factory=threading.Event)
    screen_misses: int = 0
    _watched: set[Key] = field(default_factory=set)
    _last: Head | None = None
    _resumed: bool = False
    _moved_at: float = 0.0
    _stalled_told_at: float | None = None
    _told: dict[Key, tuple[Action, Reason]] = field(default_factory=dict)
    _refused_at: dict[Key, int] = field(default_factory=dict)
    _armed: dict[Key, tuple[int, int | None]] = field(default_factory=dict)
    _unknown: dict[str, str] = field(default_factory=dict)
    _unknown_told_at: dict[str, float] = field(default_factory=dict)
    _prices: dict[str, tuple[Mapping[str, int], ...]] = field(default_factory=dict)

    def run(self, stop: threading.Event) -> None:
        """Work on heads until `stop` is set; what fails at one head does not end the loop.

        What nobody foresaw does, and so does a journal that refuses: it is told of before it is raised, since
        whoever is not watching the process has nothing but the alerts.
        """
        try:
            self._run(stop)
        except Exception as error:
            self.emit("failed", {"error": f"{type(error).__name__}: {error}"})
            raise

    def _run(self, stop: threading.Event) -> None:
        interval = self.config.rpc.poll_interval_s
        outage = Outage(self.clock)
        while not stop.is_set():
            try:
                if outage.failures:
                    self._require_same_chain()
                tick = self.submitter.tick()
                if self._is_new(tick.head):
                    self.work(tick)
                    self._moved_at, self._stalled_told_at = self.clock.monotonic(), None
                else:
                    self._report_stall(tick.head)
            except (ChainError, DataError) as error:
                # The account list, the journal and the last decision stay; the next head tries again.
                if outage.failed(str(error)):
                    self.emit("trouble", {"error": str(error), "failures": outage.failures})
            else:
                if (ended := outage.end()) is not None:
                    self.emit("recovered", {"failures": ended[0], "seconds": round(ended[1], 3)})
            stop.wait(interval)

    def _require_same_chain(self) -> None:
        """Refuse a node that came back as one of another chain, as a local one does that starts anew.

        Raises
        ------
        InputError
            Naming both chains.
        """
        known = self.journal.identity
        found = self.node.chain_id(), self.node.genesis_hash()
        if found != (known.chain_id, known.genesis_hash):
            raise InputError(
                f"rpc.url {self.config.rpc_shown} came back with chain {found[0]}, genesis {found[1]}; this "
                f"keeper runs on chain {known.chain_id}, genesis {known.genesis_hash}",
                fix="start it again with a journal for the new chain",
            )

    def _report_stall(self, head: Head) -> None:
        """Say when the chain stands still, and now and then that it still does.

        On a local chain with ``clock = "block"`` it may.
        """
        limits, now = self.config.limits, self.clock.monotonic()
        seconds = now - self._moved_at
        if self._last is None or limits.clock == "block" or seconds <= limits.max_head_age_s:
            return
        if self._is_quiet(self._stalled_told_at):
            return
        self._stalled_told_at = now
        self.emit("stalled", {"block": head.number, "seconds": round(seconds, 1)})

    def _is_quiet(self, told_at: float | None) -> bool:
        """Whether what lasts was told of lately: an alert may have been lost, for the same cause even."""
        return told_at is not None and self.clock.monotonic() - told_at < self.config.alerts.repeat_after_s

    def warm_up(self) -> None:
        """Read and decide once without acting.

        The first head that matters then finds the kernels loaded and the pools laid out, instead of paying
        for both while its opportunity passes.
        """
        tick = self.submitter.tick()
        views = self.reader.read_all(tick.head, self._borrowers())
        decide_all(
            views,
            self._adapters(),
            self.policy,
            plan_settings(self.config, self.assets, self._gas_price_wei(tick), views.funds_raw),
            next_timestamp=self._next_timestamp(tick.head),
        )

    def _borrowers(self) -> dict[str, tuple[str, ...]]:
        return {name: discovery.borrowers for name, discovery in self.discoveries.items()}

    def _adapters(self) -> dict[str, LendingProtocol]:
        return {name: market.adapter for name, market in self.markets.items()}

    def _is_new(self, head: Head) -> bool:
        last = self._last
        return last is None or (head.number >= last.number and head.block_hash != last.block_hash)

    def work(self, tick: Tick) -> HeadResult:
        """Do all that one head asks for.

        Raises
        ------
        RpcError, RpcUnavailable, DataError
            If the head could not be read whole; nothing was sent then.
        JournalError
            If the journal does not take it; nothing is sent that is not in it.
        """
        settled = self.submitter.settle(tick)
        self._report_events(settled.events)
        try:
            result = self._decide_and_act(tick)
        finally:
            # What is under way is looked after even when this head could not be read, and never before what
            # is new: a resent transaction can wait for the few milliseconds that an opportunity cannot.
            self._report_events(self.submitter.push(settled, tick, resume=not self._resumed))
            self._resumed = True
        self._report_head(result)
        return result

    def _decide_and_act(self, tick: Tick) -> HeadResult:
        started, trips = self.clock.monotonic(), self.node.round_trips
        waiting = self.node.waited_s
        head = tick.head
        self._report_balance(tick)
        self._report_sync(head, advance_all(self.discoveries, head))
        views = self.reader.read_all(head, self._borrowers())
        self._remember_prices(views)
        in_flight = self.submitter.in_flight(head)
        every = self.audit_due.is_set()
        decision = decide_all(
            views,
            self._adapters(),
            self.policy,
            plan_settings(self.config, self.assets, self._gas_price_wei(tick), views.funds_raw),
            next_timestamp=self._next_timestamp(head),
            watched=self._watched | self._refused_at.keys(),
            in_flight=in_flight,
            every=every,
            most=self._most_plans(),
            rooms={name: room_bps(heads) for name, heads in self._prices.items()},
            barred=self._barred(tick),
            behind=self._refused_at,
        )
        self._report_unknown(head, {**views.unread, **decision.undecided})
        if every:
            self._audited(views, decision)
        verdicts, submission = self._act(views, decision, tick)
        result = HeadResult(
            views=views,
            decision=decision,
            verdicts=verdicts,
            submission=submission,
            round_trips=self.node.round_trips - trips - (1 if submission and submission.intents else 0),
            own_s=self.clock.monotonic() - started - (self.node.waited_s - waiting),
        )
        self._last = head
        self._forget_the_well(verdicts)
        # Who was looked at in a market that is unknown now is looked at again when it is not.
        kept = {key for key in self._watched if key[0] in self._unknown}
        self._watched = {_key(v) for v in verdicts if _remarkable(v)} | kept
        self._record(views, verdicts)
        self._report_waits(result)
        return result

    def _remember_prices(self, views: Views) -> None:
        """Keep each market's own prices of the last heads, which say how far the next may be."""
        for name, view in views.markets.items():
            now = self.markets[name].adapter.prices_base(view.market)
            self._prices[name] = (*self._prices.get(name, ()), now)[-ROOM_HEADS:]

    def _most_plans(self) -> int | None:
        """Return how many plans are worth making: what a block may take, and whoever was refused before.

        In a crash everybody is due, and planning for those whose turn does not come costs the others time.
        Who keeps being refused must not take the turn of others, so those are planned for on top. Where
        nothing is sent all are planned for: an operator wants to see them.
        """
        if self.config.mode is Mode.OBSERVE or self.config.contracts.liquidator is None:
            return None
        return max(self.config.limits.max_per_block, PLANS_AT_LEAST) + min(
            len(self._refused_at), MOST_REFUSED
        )

    def _gas_price_wei(self, tick: Tick) -> int:
        fees = market_fees(tick.fees, FeePolicy.from_config(self.config.fees))
        return max(tick.fees.next_base_fee_wei + fees.priority_fee_wei, 1)

    def _act(
        self, views: Views, decision: Decision, tick: Tick
    ) -> tuple[tuple[Verdict, ...], Submission | None]:
        """Simulate and send the plans; return the verdicts with what came of it."""
        plans = decision.plans
        liquidator = self.config.contracts.liquidator
        if not plans or liquidator is None or self.config.mode is Mode.OBSERVE:
            flagged = {
                _key(p): (Action.LEAVE, Reason.OBSERVE_ONLY, f"mode {self.config.mode}") for p in plans
            }
            return _amended(decision.verdicts, flagged), None
        amended: dict[Key, tuple[Action, Reason, str]] = {}
        stopped = self._stopped(plans, tick)
        for key, why in stopped.items():
            amended[key] = (Action.HOLD, Reason.LIMIT, why)
        price = self._gas_price_wei(tick)
        priced: list[PricedPlan] = []
        unknown: dict[Key, str] = {}
        for plan in plans:
            if _key(plan) not in stopped:
                with contained(functools.partial(unknown.__setitem__, _key(plan))):
                    priced.append(self._priced(views, plan, price))
        prepared = self._prepared(views.head, priced, liquidator)
        for item in prepared:
            if item.reason is Reason.ACCOUNT_UNKNOWN:
                unknown[_key(item.plan)] = item.detail
            elif item.order is None:
                amended[_key(item.plan)] = (Action.LEAVE, item.reason, item.detail)
        amended |= {key: (Action.HOLD, Reason.ACCOUNT_UNKNOWN, why) for key, why in unknown.items()}
        self._remember_refused(prepared, views.head)
        orders = [
            replace(o, gas_limit=o.gas_limit + gas_room(self.markets[o.protocol].adapter))
            for o in (item.order for item in prepared)
            if o is not None
        ]
        if self.config.mode is not Mode.LIVE:
            for order in orders:
                amended[_key(order)] = (Action.LEAVE, Reason.OBSERVE_ONLY, "dry-run: simulated, not sent")
            return _amended(decision.verdicts, amended), None
        submission = self.submitter.submit(orders, tick) if orders else None
        for refusal in submission.refused if submission else ():
            amended[_key(refusal.order)] = (Action.LEAVE, refusal.reason, refusal.detail)
        return _amended(decision.verdicts, amended), submission

    def _barred(self, tick: Tick) -> Callable[[Key], str | None]:
        """Return what says which limit keeps us off an account; none where nothing is sent anyway.

        A market that a limit stops is told of once a head, at the first account that is due there.
        """
        if self.config.mode is Mode.OBSERVE or self.config.contracts.liquidator is None:
            return lambda _: None
        limits = self.config.limits
        # At most heads nobody is due and nobody asks.
        usage = functools.cache(lambda: read_usage(self.journal, tick))

        @functools.cache
        def of_market(name: str) -> Breach | None:
            breach = market_breach(limits, usage(), name)
            if breach is not None:
                self.emit("limit", {"limit": breach.limit.value, "detail": breach.detail, "protocol": name})
            return breach

        def barred(key: Key) -> str | None:
            breach = of_market(key[0]) or account_breach(limits, usage(), key[1], key[0])
            return None if breach is None else f"{breach.limit}: {breach.detail}"

        return barred

    def _stopped(self, plans: Sequence[LiquidationPlan], tick: Tick) -> dict[Key, str]:
        """Return the plans that a limit of all accounts together stops now, and which one it is.

        Who is kept off for itself was not planned for; see `_barred` and `keeper.limits`.
        """
        limits = self.config.limits
        usage = read_usage(self.journal, tick)
        now = tick.head.timestamp if limits.clock == "block" else self.clock.now()
        everywhere = global_breach(limits, usage, tick, now=now)
        if everywhere is not None:
            self.emit("limit", {"limit": everywhere.limit.value, "detail": everywhere.detail})
            return {_key(plan): f"{everywhere.limit}: {everywhere.detail}" for plan in plans}
        stopped: dict[Key, str] = {}
        free = room(limits, usage)
        # Who was refused last waits longest: plans that never hold must not keep others from their turn.
        for plan in sorted(plans, key=lambda p: self._refused_at.get(_key(p), -1)):
            if free == 0:
                stopped[_key(plan)] = f"{Limit.PER_BLOCK}: no more new intents in this block"
            else:
                free -= 1
        return stopped

    def _remember_refused(self, prepared: Sequence[Prepared], head: Head) -> None:
        """Keep the block in which each account was last refused, until its plan holds or it needs none.

        Not only while it has a plan: on what others leave there may be none for some heads, and who is then
        forgotten comes first again, and takes from the pools what nobody gets.
        """
        for item in prepared:
            if item.order is None:
                self._refused_at[_key(item.plan)] = head.number
            else:
                self._refused_at.pop(_key(item.plan), None)

    def _forget_the_well(self, verdicts: Sequence[Verdict]) -> None:
        """Let go of who was refused and is healthy now, or owes nothing; of nobody who is only unknown."""
        for verdict in verdicts:
            if verdict.protocol_margin.status in (MarginStatus.HEALTHY, MarginStatus.NO_DEBT):
                self._refused_at.pop(_key(verdict), None)

    def _prepared(self, head: Head, priced: Sequence[PricedPlan], liquidator: str) -> list[Prepared]:
        if not priced:
            return []
        ids = [
            self.journal.new_intent_id(
                protocol=p.plan.protocol,
                account=p.plan.account,
                debt_asset=p.plan.debt_asset,
                collateral_asset=p.plan.collateral_asset,
                decided_block=head.number,
            )
            for p in priced
        ]
        return prepare(
            priced,
            ids,
            ahead=self._under_way(head),
            node=self.node,
            head=head,
            timestamp=self._next_timestamp(head),
            liquidator=liquidator,
            sender=self.submitter.sender,
            execution=self.config.execution,
            fees=self.config.fees,
        )

    def _under_way(self, head: Head) -> list[TxCall]:
        """Return our liquidations that are not in the head's state and come before new ones, by nonce."""
        return [
            TxCall(intent.sender, intent.to, intent.data, intent.gas_limit)
            for intent in self.submitter.under_way(head)
        ]

    def _next_timestamp(self, head: Head) -> int:
        """Return the expected time of the next block: as far from the head as the head from its parent."""
        last = self._last
        if last is not None and last.number < head.number:
            return head.timestamp + max((head.timestamp - last.timestamp) // (head.number - last.number), 1)
        return head.timestamp + 12

    def _priced(self, views: Views, plan: LiquidationPlan, gas_price_wei: int) -> PricedPlan:
        view = views.markets[plan.protocol]
        asset = next(a for a in view.book.assets if a.address == plan.debt_asset)
        price_e8 = usd_prices(view).price_e8(asset.symbol)
        assert price_e8 is not None  # nothing is planned without it
        least_e8 = int(self.config.execution.min_profit_usd * 10**8)
        least_raw = ceil_div(least_e8 * 10**asset.decimals, price_e8)
        adapter = self.markets[plan.protocol].adapter
        account = view.book.exact[view.book.accounts.index(plan.account)]
        market = adapter.project(view.market, self._next_timestamp(view.head))
        asked = Asked(
            adapter,
            market,
            account,
            room_bps(self._prices[plan.protocol]),
            funds_raw=view.funds_raw.get(plan.debt_asset, 0) if plan.from_inventory else None,
        )
        return PricedPlan(plan, asked, gas_price_wei, least_raw)

    def _audited(self, views: Views, decision: Decision) -> None:
        """Count accounts that the full sweep finds liquidatable and the screen had called healthy."""
        self.audit_due.clear()
        for name, view in views.markets.items():
            if name in decision.undecided:
                continue
            watched = {account for market, account in self._watched if market == name}
            rows = examined_rows(view, self.markets[name].adapter, watched)
            screened = {view.book.accounts[row] for row in rows}
            missed = [
                v.account
                for v in decision.verdicts
                if v.protocol_margin.protocol == name
                and v.protocol_margin.status is MarginStatus.LIQUIDATABLE
                and v.account not in screened
            ]
            self.screen_misses += len(missed)
            self.emit(
                "audit",
                {
                    "block": views.head.number,
                    "protocol": name,
                    "accounts": len(view.book),
                    "missed": missed,
                },
            )

    def _record(self, views: Views, verdicts: Sequence[Verdict]) -> None:
        self.journal.record_decisions(views.head.number, views.head.timestamp, verdicts)

    def _report_unknown(self, head: Head, unknown: Mapping[str, str]) -> None:
        """Tell when a market becomes unknown, now and then that it still is, and when it is known again."""
        for name, why in unknown.items():
            if not self._is_quiet(self._unknown_told_at.get(name)):
                self._unknown_told_at[name] = self.clock.monotonic()
                self.emit("market_unknown", {"block": head.number, "protocol": name, "error": why})
        for name in self._unknown.keys() - unknown.keys():
            del self._unknown_told_at[name]
            self.emit("market_known", {"block": head.number, "protocol": name})
        self._unknown = dict(unknown)

    def _report_waits(self, result: HeadResult) -> None:
        """Tell what it cost that the protocol's feed let an account be due later than the reference did.

        The cost is the equity at reference prices that the account lost from the head at which it was armed
        to the one at which we could act.
        """
        block = result.views.head.number
        sent = {_key(intent) for intent in result.submission.intents} if result.submission else set()
        for verdict in result.verdicts:
            key, reference = _key(verdict), verdict.reference_margin
            equity = None if reference is None else reference.equity_base
            if verdict.action is Action.ARM:
                self._armed.setdefault(key, (block, equity))
            elif key in sent and key in self._armed:
                since, before = self._armed.pop(key)
                cost = None if before is None or equity is None else max(before - equity, 0)
                self.emit(
                    "waited",
                    {
                        "protocol": key[0],
                        "account": verdict.account,
                        "armed_block": since,
                        "block": block,
                        "cost_base": None if cost is None else str(cost),
                    },
                )
            elif verdict.reason in (Reason.HEALTHY, Reason.NO_DEBT):
                self._armed.pop(key, None)

    def _report_events(self, events: Sequence[TxEvent]) -> None:
        for event in events:
            intent = event.intent
            self.emit(
                "transaction",
                {
                    "kind": event.kind.value,
                    "protocol": None if intent is None else intent.protocol,
                    "account": None if intent is None else intent.account,
                    "intent": None if intent is None else intent.intent_id,
                    "detail": event.detail,
                    **({} if event.receipt is None else _earned(event.receipt)),
                    **({} if intent is None else {"debt_asset": intent.debt_asset}),
                },
            )

    def _report_balance(self, tick: Tick) -> None:
        if not self.balance_due.is_set() or tick.sender is None:
            return
        self.balance_due.clear()
        least_wei = wei_of_eth(self.config.limits.min_balance_eth)
        self.emit(
            "balance",
            {
                "balance_wei": str(tick.sender.balance_wei),
                "least_wei": str(least_wei),
                "low": tick.sender.balance_wei < least_wei,
            },
        )

    def _report_verdicts(self, result: HeadResult) -> None:
        """Tell what is new about accounts that are not simply well, and not simply acted on."""
        told: dict[Key, tuple[Action, Reason]] = {}
        for verdict in result.verdicts:
            if not _remarkable(verdict):
                continue
            key = _key(verdict)
            told[key] = verdict.action, verdict.reason
            if verdict.reason in _ACTED_ON or self._told.get(key) == told[key]:
                continue
            health = verdict.protocol_margin.health_factor_wad
            self.emit(
                "verdict",
                {
                    "block": result.views.head.number,
                    "protocol": key[0],
                    "account": verdict.account,
                    "action": verdict.action.value,
                    "reason": verdict.reason.value,
                    "health_factor_wad": None if health is None else str(health),
                    "detail": verdict.detail,
                },
            )
        self._told = told

    def _report_sync(self, head: Head, synced: Mapping[str, Synced]) -> None:
        rewound = [one.rewound_to for one in synced.values() if one.rewound_to is not None]
        if rewound:
            self.reader.rewind(min(rewound))
            self.emit("reorganisation", {"block": head.number, "common_ancestor": min(rewound)})
        for name, one in synced.items():
            if one.found:
                self.emit("borrowers", {"block": head.number, "protocol": name, "found": len(one.found)})

    def _report_head(self, result: HeadResult) -> None:
        self._report_verdicts(result)
        reasons: dict[str, int] = {}
        for verdict in result.verdicts:
            reasons[verdict.reason.value] = reasons.get(verdict.reason.value, 0) + 1
        sent = result.submission.intents if result.submission else ()
        for intent in sent:
            self.emit("sent", _sent(intent, result.views.head.number))
        self.emit(
            "head",
            {
                "block": result.views.head.number,
                "borrowers": result.views.borrowers,
                "examined": result.decision.examined,
                "reasons": reasons,
                "sent": len(sent),
                "protocols": self._by_protocol(result, sent),
                "round_trips": result.round_trips,
                "own_ms": round(result.own_s * 1e3, 1),
            },
        )

    def _by_protocol(self, result: HeadResult, sent: Sequence[Intent]) -> dict[str, dict[str, Any]]:
        """Return the counts of a head for each market; one that is unknown says so and has none."""
        counts: dict[str, dict[str, Any]] = {}
        for name in self.markets:
            if name in self._unknown:
                counts[name] = {"unknown": self._unknown[name]}
                continue
            reasons: dict[str, int] = {}
            for verdict in result.verdicts:
                if verdict.protocol_margin.protocol == name:
                    reasons[verdict.reason.value] = reasons.get(verdict.reason.value, 0) + 1
            counts[name] = {
                "borrowers": len(result.views.markets[name].book),
                "reasons": reasons,
                "sent": sum(intent.protocol == name for intent in sent),
            }
        return counts


def _key(item: Verdict | LiquidationPlan | Order | Intent) -> Key:
    """Return market and account of what concerns one account in one market."""
    if isinstance(item, Verdict):
        return item.protocol_margin.protocol, item.account
    return item.protocol, item.account


def _remarkable(verdict: Verdict) -> bool:
    """Whether an account is to be looked at again at the next head, and told of."""
    if verdict.reason in _UNREMARKABLE:
        return False
    # Where there is no reference at all, everybody who is healthy is unknown at better prices, for good.
    healthy = verdict.protocol_margin.status is MarginStatus.HEALTHY
    return not (healthy and verdict.reference_margin is None)


def _sent(intent: Intent, block: int) -> dict[str, Any]:
    return {
        "block": block,
        "intent": intent.intent_id,
        "protocol": intent.protocol,
        "account": intent.account,
        "nonce": intent.nonce,
        "debt_asset": intent.debt_asset,
        "collateral_asset": intent.collateral_asset,
        "debt_to_cover_raw": str(intent.debt_to_cover_raw),
        "simulated_profit_raw": str(intent.simulated_profit_raw),
    }


def _earned(receipt: Receipt) -> dict[str, Any]:
    profit = receipt.realised_profit_raw
    return {
        "realised_profit_raw": None if profit is None else str(profit),
        "gas_cost_wei": str(receipt.gas_cost_wei),
    }


def _amended(
    verdicts: Sequence[Verdict], changes: Mapping[Key, tuple[Action, Reason, str]]
) -> tuple[Verdict, ...]:
    """Return the verdicts with action, reason and detail of some accounts replaced."""

    def amended(verdict: Verdict) -> Verdict:
        change = changes.get(_key(verdict))
        if change is None:
            return verdict
        action, reason, detail = change
        return replace(verdict, action=action, reason=reason, detail=detail)

    return tuple(amended(verdict) for verdict in verdicts)


def plan_settings(
    config: KeeperConfig, assets: Mapping[str, str], gas_price_wei: int, funds_raw: Mapping[str, int]
) -> PlanSettings:
    """Return what the planner assumes, from the configuration, the price of gas and the funds at hand.

    Parameters
    ----------
    assets
        Symbol to token address.
    funds_raw
        What can be paid from inventory, by token address; see `keeper.view.HeadView`.

    Raises
    ------
    UnknownNameError
        If no market has the native asset, without which gas cannot be weighed against profit.
    """
    symbol = config.execution.native_asset
    if symbol not in assets:
        raise UnknownNameError("asset in execution.native_asset", symbol, assets)
    through = () if config.router is None else config.router.intermediates
    return PlanSettings(
        gas_price_wei=gas_price_wei,
        native_asset=assets[symbol],
        min_net_profit_e8=int(config.execution.min_profit_usd * 10**8),
        from_inventory=config.execution.funding == "inventory",
        inventory_raw=funds_raw,
        swap_tokens=frozenset({assets[symbol], *through}),
    )


def realised_profit(liquidator: str | None) -> Callable[[Intent, TxReceipt], int | None]:
    """Return what reads an intent's realised profit from its receipt, in debt token units."""

    def read(intent: Intent, receipt: TxReceipt) -> int | None:
        event = liquidated_event(receipt.logs, liquidator) if liquidator else None
        if event is None or "0x" + event.intent_id.hex() != intent.intent_id:
            return None
        return event.profit_raw

    return read
