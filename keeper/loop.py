"""The head-driven loop: at each new block follow what was sent, read, decide, simulate, write ahead, send.

The newest head wins: heads that passed while one was worked on are not queued, and a head older than the last
one worked on is ignored. What fails at one head is said and tried again at the next.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from contracts_abi.errors import ChainError, DataError, InputError, UnknownNameError
from keeper.clock import Clock
from keeper.config import KeeperConfig, Mode, wei_of_eth
from keeper.decide import Decision, LendingProtocol, decide, examined_rows
from keeper.execute import Prepared, PricedPlan, liquidated_event, prepare
from keeper.fees import FeePolicy, market_fees
from keeper.journal import Journal
from keeper.limits import Limit, account_breach, global_breach, read_usage, room
from keeper.outage import Outage
from keeper.rpc import Head, Node, Tick, TxCall, TxReceipt
from keeper.submit import Submission, Submitter, TxEvent
from keeper.sync import Discovery, Synced
from keeper.types import Intent, IntentState, Receipt
from keeper.view import HeadView, Reader
from simulation.fixed_point import ceil_div
from simulation.liquidation import PlanSettings
from simulation.types import Action, LiquidationPlan, MarginStatus, Reason, Verdict

Emit = Callable[[str, Mapping[str, Any]], None]
"""Takes the name of an event and its fields; values are JSON types."""

_UNREMARKABLE = frozenset({Reason.HEALTHY, Reason.NO_DEBT})
_ACTED_ON = frozenset({Reason.LIQUIDATE, Reason.DUPLICATE})


@dataclass(frozen=True, slots=True)
class HeadResult:
    """What was done at one head.

    Attributes
    ----------
    view, decision
        What was read, and what followed from it.
    verdicts
        The decision's verdicts with what simulation, limits and journal had to add.
    submission
        What was handed over; None outside ``live`` or when there was nothing.
    round_trips
        Requests to the node from the new head to the signed transactions.
    own_s
        Time from the new head to the signed transactions that was not spent waiting for the node.
    """

    view: HeadView
    decision: Decision
    verdicts: tuple[Verdict, ...]
    submission: Submission | None
    round_trips: int
    own_s: float


@dataclass(slots=True)
class Keeper:
    """One keeper of one market.

    Attributes
    ----------
    config, node, adapter, policy
        As connected.
    reader, discovery, submitter, journal
        The parts that hold state.
    clock
        For durations only.
    emit
        Told what happens.
    assets
        Symbol to token address.
    audit_due
        Set it to have the next head examine every account exactly and count what the screen missed.
    balance_due
        Set it to have the next head report the sender's balance.
    screen_misses
        How many that were so far; anything but 0 is a defect.
    """

    config: KeeperConfig
    node: Node
    adapter: LendingProtocol
    policy: Any
    reader: Reader
    discovery: Discovery
    submitter: Submitter
    journal: Journal
    clock: Clock
    emit: Emit
    assets: Mapping[str, str]
    audit_due: threading.Event = field(default_factory=threading.Event)
    balance_due: threading.Event = field(default_factory=threading.Event)
    screen_misses: int = 0
    _watched: set[str] = field(default_factory=set)
    _last: Head | None = None
    _resumed: bool = False
    _moved_at: float = 0.0
    _stalled: bool = False
    _told: dict[str, tuple[Action, Reason]] = field(default_factory=dict)
    _refused_at: dict[str, int] = field(default_factory=dict)
    _armed: dict[str, tuple[int, int | None]] = field(default_factory=dict)

    def run(self, stop: threading.Event) -> None:
        """Work on heads until `stop` is set; what fails at one head does not end the loop."""
        interval = self.config.rpc.poll_interval_s
        outage = Outage(self.clock)
        while not stop.is_set():
            try:
                if outage.failures:
                    self._require_same_chain()
                tick = self.submitter.tick()
                if self._is_new(tick.head):
                    self.work(tick)
                    self._moved_at, self._stalled = self.clock.monotonic(), False
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
        """Say once when the chain stands still; on a local chain with ``clock = "block"`` it may."""
        limits = self.config.limits
        seconds = self.clock.monotonic() - self._moved_at
        if self._stalled or self._last is None or limits.clock == "block" or seconds <= limits.max_head_age_s:
            return
        self._stalled = True
        self.emit("stalled", {"block": head.number, "seconds": round(seconds, 1)})

    def warm_up(self) -> None:
        """Read and decide once without acting.

        The first head that matters then finds the kernels loaded and the pools laid out, instead of paying
        for both while its opportunity passes.
        """
        tick = self.submitter.tick()
        view = self.reader.read(tick.head, self.discovery.borrowers)
        decide(
            view,
            self.adapter,
            self.policy,
            plan_settings(self.config, self.assets, self._gas_price_wei(tick), view.funds_raw),
            next_timestamp=self._next_timestamp(tick.head),
        )

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
        synced = self.discovery.advance(head)
        self._report_sync(head, synced)
        view = self.reader.read(head, self.discovery.borrowers)
        in_flight = {account for _, account in self.journal.in_flight()}
        every = self.audit_due.is_set()
        decision = decide(
            view,
            self.adapter,
            self.policy,
            plan_settings(self.config, self.assets, self._gas_price_wei(tick), view.funds_raw),
            next_timestamp=self._next_timestamp(head),
            watched=self._watched,
            in_flight=in_flight,
            every=every,
        )
        if every:
            self._audited(view, decision)
        verdicts, submission = self._act(view, decision, tick)
        result = HeadResult(
            view=view,
            decision=decision,
            verdicts=verdicts,
            submission=submission,
            round_trips=self.node.round_trips - trips - (1 if submission and submission.intents else 0),
            own_s=self.clock.monotonic() - started - (self.node.waited_s - waiting),
        )
        self._last = head
        self._watched = {v.account for v in verdicts if _remarkable(v)}
        self._record(view, verdicts)
        self._report_waits(view, result)
        return result

    def _gas_price_wei(self, tick: Tick) -> int:
        fees = market_fees(tick.fees, FeePolicy.from_config(self.config.fees))
        return max(tick.fees.next_base_fee_wei + fees.priority_fee_wei, 1)

    def _act(
        self, view: HeadView, decision: Decision, tick: Tick
    ) -> tuple[tuple[Verdict, ...], Submission | None]:
        """Simulate and send the plans; return the verdicts with what came of it."""
        plans = decision.plans
        liquidator = self.config.contracts.liquidator
        if not plans or liquidator is None or self.config.mode is Mode.OBSERVE:
            flagged = {
                p.account: (Action.LEAVE, Reason.OBSERVE_ONLY, f"mode {self.config.mode}") for p in plans
            }
            return _amended(decision.verdicts, flagged), None
        amended: dict[str, tuple[Action, Reason, str]] = {}
        stopped = self._stopped(plans, tick)
        for account, why in stopped.items():
            amended[account] = (Action.HOLD, Reason.LIMIT, why)
        price = self._gas_price_wei(tick)
        priced = [self._priced(view, plan, price) for plan in plans if plan.account not in stopped]
        prepared = self._prepared(view, priced, liquidator)
        self._remember_refused(plans, prepared, view.head)
        for item in prepared:
            if item.order is None:
                amended[item.plan.account] = (Action.LEAVE, item.reason, item.detail)
        orders = [item.order for item in prepared if item.order is not None]
        if self.config.mode is not Mode.LIVE:
            for order in orders:
                amended[order.account] = (Action.LEAVE, Reason.OBSERVE_ONLY, "dry-run: simulated, not sent")
            return _amended(decision.verdicts, amended), None
        submission = self.submitter.submit(orders, tick) if orders else None
        for refusal in submission.refused if submission else ():
            amended[refusal.order.account] = (Action.LEAVE, refusal.reason, refusal.detail)
        return _amended(decision.verdicts, amended), submission

    def _stopped(self, plans: Sequence[LiquidationPlan], tick: Tick) -> dict[str, str]:
        """Return the accounts that a limit keeps us off now, and which one; see `keeper.limits`."""
        limits = self.config.limits
        usage = read_usage(self.journal, tick)
        now = tick.head.timestamp if limits.clock == "block" else self.clock.now()
        everywhere = global_breach(limits, usage, tick, now=now)
        if everywhere is not None:
            self.emit("limit", {"limit": everywhere.limit.value, "detail": everywhere.detail})
            return {plan.account: f"{everywhere.limit}: {everywhere.detail}" for plan in plans}
        stopped: dict[str, str] = {}
        free = room(limits, usage)
        # Who was refused last waits longest: plans that never hold must not keep others from their turn.
        for plan in sorted(plans, key=lambda p: self._refused_at.get(p.account, -1)):
            breach = account_breach(limits, usage, plan.account)
            if breach is not None:
                stopped[plan.account] = f"{breach.limit}: {breach.detail}"
            elif free == 0:
                stopped[plan.account] = f"{Limit.PER_BLOCK}: no more new intents in this block"
            else:
                free -= 1
        return stopped

    def _remember_refused(
        self, plans: Sequence[LiquidationPlan], prepared: Sequence[Prepared], head: Head
    ) -> None:
        """Keep the block in which each account that is still planned for was last refused."""
        waiting = {plan.account for plan in plans} - {item.plan.account for item in prepared}
        refused = {item.plan.account: head.number for item in prepared if item.order is None}
        self._refused_at = {a: at for a, at in self._refused_at.items() if a in waiting} | refused

    def _prepared(self, view: HeadView, priced: Sequence[PricedPlan], liquidator: str) -> list[Prepared]:
        if not priced:
            return []
        ids = [
            self.journal.new_intent_id(
                protocol=p.plan.protocol,
                account=p.plan.account,
                debt_asset=p.plan.debt_asset,
                collateral_asset=p.plan.collateral_asset,
                decided_block=view.head.number,
            )
            for p in priced
        ]
        return prepare(
            priced,
            ids,
            ahead=self._under_way(),
            node=self.node,
            head=view.head,
            timestamp=self._next_timestamp(view.head),
            liquidator=liquidator,
            sender=self.submitter.sender,
            execution=self.config.execution,
            fees=self.config.fees,
        )

    def _under_way(self) -> list[TxCall]:
        """Return our liquidations that a block may still take, by nonce."""
        return [
            TxCall(intent.sender, intent.to, intent.data, intent.gas_limit)
            for intent in self.journal.intents([IntentState.PREPARED, IntentState.SENT])
            if not intent.cancel_requested
        ]

    def _next_timestamp(self, head: Head) -> int:
        """Return the expected time of the next block: as far from the head as the head from its parent."""
        last = self._last
        if last is not None and last.number < head.number:
            return head.timestamp + max((head.timestamp - last.timestamp) // (head.number - last.number), 1)
        return head.timestamp + 12

    def _priced(self, view: HeadView, plan: LiquidationPlan, gas_price_wei: int) -> PricedPlan:
        asset = next(a for a in view.book.assets if a.address == plan.debt_asset)
        price_e8 = view.protocol.price_e8(asset.symbol)
        assert price_e8 is not None  # nothing is planned without it
        least_e8 = int(self.config.execution.min_profit_usd * 10**8)
        least_raw = ceil_div(least_e8 * 10**asset.decimals, price_e8)
        return PricedPlan(plan, self.adapter, gas_price_wei, least_raw)

    def _audited(self, view: HeadView, decision: Decision) -> None:
        """Count accounts that the full sweep finds liquidatable and the screen had called healthy."""
        self.audit_due.clear()
        screened = {view.book.accounts[row] for row in examined_rows(view, self._watched)}
        missed = [
            v.account
            for v in decision.verdicts
            if v.protocol_margin.status is MarginStatus.LIQUIDATABLE and v.account not in screened
        ]
        self.screen_misses += len(missed)
        self.emit("audit", {"block": view.head.number, "accounts": len(view.book), "missed": missed})

    def _record(self, view: HeadView, verdicts: Sequence[Verdict]) -> None:
        self.journal.record_decisions(view.head.number, view.head.timestamp, verdicts)

    def _report_waits(self, view: HeadView, result: HeadResult) -> None:
        """Tell what it cost that the protocol's feed let an account be due later than the reference did.

        The cost is the equity at reference prices that the account lost from the head at which it was armed
        to the one at which we could act.
        """
        sent = {intent.account for intent in result.submission.intents} if result.submission else set()
        for verdict in result.verdicts:
            reference = verdict.reference_margin
            equity = None if reference is None else reference.equity_base
            if verdict.action is Action.ARM:
                self._armed.setdefault(verdict.account, (view.head.number, equity))
            elif verdict.account in sent and verdict.account in self._armed:
                since, before = self._armed.pop(verdict.account)
                cost = None if before is None or equity is None else max(before - equity, 0)
                self.emit(
                    "waited",
                    {
                        "account": verdict.account,
                        "armed_block": since,
                        "block": view.head.number,
                        "cost_base": None if cost is None else str(cost),
                    },
                )
            elif verdict.reason in (Reason.HEALTHY, Reason.NO_DEBT):
                self._armed.pop(verdict.account, None)

    def _report_events(self, events: Sequence[TxEvent]) -> None:
        for event in events:
            intent = event.intent
            self.emit(
                "transaction",
                {
                    "kind": event.kind.value,
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
        told: dict[str, tuple[Action, Reason]] = {}
        for verdict in result.verdicts:
            if not _remarkable(verdict):
                continue
            told[verdict.account] = verdict.action, verdict.reason
            if verdict.reason in _ACTED_ON or self._told.get(verdict.account) == told[verdict.account]:
                continue
            health = verdict.protocol_margin.health_factor_wad
            self.emit(
                "verdict",
                {
                    "block": result.view.head.number,
                    "account": verdict.account,
                    "action": verdict.action.value,
                    "reason": verdict.reason.value,
                    "health_factor_wad": None if health is None else str(health),
                    "detail": verdict.detail,
                },
            )
        self._told = told

    def _report_sync(self, head: Head, synced: Synced) -> None:
        if synced.rewound_to is not None:
            self.reader.rewind(synced.rewound_to)
            self.emit("reorganisation", {"block": head.number, "common_ancestor": synced.rewound_to})
        if synced.found:
            self.emit("borrowers", {"block": head.number, "found": len(synced.found)})

    def _report_head(self, result: HeadResult) -> None:
        self._report_verdicts(result)
        reasons: dict[str, int] = {}
        for verdict in result.verdicts:
            reasons[verdict.reason.value] = reasons.get(verdict.reason.value, 0) + 1
        sent = result.submission.intents if result.submission else ()
        for intent in sent:
            self.emit("sent", _sent(intent, result.view.head.number))
        self.emit(
            "head",
            {
                "block": result.view.head.number,
                "borrowers": len(result.view.book),
                "examined": result.decision.examined,
                "reasons": reasons,
                "sent": len(sent),
                "round_trips": result.round_trips,
                "own_ms": round(result.own_s * 1e3, 1),
            },
        )


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
    verdicts: Sequence[Verdict], changes: Mapping[str, tuple[Action, Reason, str]]
) -> tuple[Verdict, ...]:
    """Return the verdicts with action, reason and detail of some accounts replaced."""
    return tuple(
        v
        if v.account not in changes
        else Verdict(
            v.account,
            changes[v.account][0],
            changes[v.account][1],
            v.protocol_margin,
            v.reference_margin,
            changes[v.account][2],
        )
        for v in verdicts
    )


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
        If the market does not have the native asset, without which gas cannot be weighed against profit.
    """
    symbol = config.execution.native_asset
    if symbol not in assets:
        raise UnknownNameError("asset in execution.native_asset", symbol, assets)
    return PlanSettings(
        gas_price_wei=gas_price_wei,
        native_asset=assets[symbol],
        min_net_profit_e8=int(config.execution.min_profit_usd * 10**8),
        from_inventory=config.execution.funding == "inventory",
        inventory_raw=funds_raw,
    )


def realised_profit(liquidator: str | None) -> Callable[[Intent, TxReceipt], int | None]:
    """Return what reads an intent's realised profit from its receipt, in debt token units."""

    def read(intent: Intent, receipt: TxReceipt) -> int | None:
        event = liquidated_event(receipt.logs, liquidator) if liquidator else None
        if event is None or "0x" + event.intent_id.hex() != intent.intent_id:
            return None
        return event.profit_raw

    return read
