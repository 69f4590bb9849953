"""From orders to final intents: one nonce stream, written ahead, followed to the confirmation depth.

Sending a bundle is: sign all, commit all to the journal, hand all over in one JSON-RPC batch, record each
answer. Nothing is sent twice under two nonces: an intent owns its nonce, what is repeated is the same bytes,
and what is changed is a replacement at the same nonce, of which the chain takes one. What became of an intent
is decided by the chain alone, never by what a node answered to a send.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final, TypeAlias

from keeper.config import Mode
from keeper.fees import TRANSFER_GAS, FeePolicy, Fees, first_fees, replacement_fees
from keeper.journal import Journal, SendRecord
from keeper.rpc import Head, Node, SendOutcome, Tick, TxReceipt, Watch
from keeper.signer import Signer, SigningRefused, UnsignedTx
from keeper.types import Attempt, AttemptKind, Intent, IntentState, Order, Receipt
from simulation.types import Reason

LEAST_DEPTH: Final = 2
"""Blocks that a nonce must have been used for, without a receipt of ours, before it counts as lost: a node
may know a block some time before it knows the receipts in it."""

MOST_FOREIGN: Final = 16
"""Transactions of our key in the node's pool that the journal does not know and that we still go behind. What
is given a nonce behind them has to wait for all of them, and where they vanish each is to be paid for."""


class TxEventKind(StrEnum):
    """What happened to an intent at a head."""

    SENT_AGAIN = "sent_again"
    REPLACED = "replaced"
    CANCELLING = "cancelling"
    STUCK = "stuck"
    UNFUNDED = "unfunded"
    MINED = "mined"
    REORGANISED = "reorganised"
    CONFIRMED = "confirmed"
    REVERTED = "reverted"
    CANCELLED = "cancelled"
    ABANDONED = "abandoned"
    FOREIGN_NONCE = "foreign_nonce"
    FILLING_GAP = "filling_gap"
    DEEP_REORGANISATION = "deep_reorganisation"


@dataclass(frozen=True, slots=True)
class TxEvent:
    """Something that the operator may want to know.

    Attributes
    ----------
    intent
        Whom it concerns; None when it concerns the key as a whole.
    detail
        One line for people.
    receipt
        The receipt, once there is one.
    """

    kind: TxEventKind
    intent: Intent | None
    detail: str
    receipt: Receipt | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """An order that was not turned into an intent, and why."""

    order: Order
    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True)
class Submission:
    """What became of a bundle of orders.

    Attributes
    ----------
    intents
        Those that were written ahead and handed to the node, by nonce.
    refused
        The others; nothing of them was signed.
    """

    intents: tuple[Intent, ...]
    refused: tuple[Refusal, ...]


# -------------------------------------------------------------------------------------------------- decisions


@dataclass(frozen=True, slots=True)
class Pending:
    """An intent that is not mined, with what was tried so far.

    Attributes
    ----------
    attempts
        Signed transactions, oldest first; at least one.
    last_send
        The newest hand-over of the newest attempt; None when there was none (a crash came first).
    """

    intent: Intent
    attempts: tuple[Attempt, ...]
    last_send: SendRecord | None

    @property
    def newest(self) -> Attempt:
        """The attempt that counts."""
        return self.attempts[-1]


@dataclass(frozen=True, slots=True)
class Settled:
    """What one tick told of the open intents.

    Attributes
    ----------
    events
        What happened to them.
    pending
        Those that were not mined, by nonce.
    """

    events: tuple[TxEvent, ...]
    pending: tuple[Pending, ...]


@dataclass(frozen=True, slots=True)
class Wait:
    """Leave it to the pool."""


@dataclass(frozen=True, slots=True)
class SendAgain:
    """Hand the same bytes over once more."""


@dataclass(frozen=True, slots=True)
class Replace:
    """Sign another attempt at the same nonce."""

    kind: AttemptKind
    fees: Fees


@dataclass(frozen=True, slots=True)
class Stuck:
    """A replacement is due and may not be paid; hand the same bytes over once more."""


Step: TypeAlias = Wait | SendAgain | Replace | Stuck


def next_step(
    pending: Pending,
    tick: Tick,
    policy: FeePolicy,
    *,
    first_in_line: bool = True,
    reachable: bool = True,
    resume: bool = False,
) -> Step:
    """Return what to do about an intent that is not mined. Pure.

    Parameters
    ----------
    first_in_line
        Whether all lower nonces are there and priced for the next block. Behind one that is not, no price
        gets the transaction in, so none is raised.
    reachable
        Whether the node's pool holds all lower nonces. While it does not, waiting says nothing about the
        price.
    resume
        Whether this process has just started and does not know what the pool holds.
    """
    intent, newest = pending.intent, pending.newest
    outcome = None if pending.last_send is None else pending.last_send.outcome
    age = tick.head.number - newest.created_block
    due = first_in_line and (
        tick.fees.next_base_fee_wei > newest.max_fee_wei
        or outcome is SendOutcome.UNDERPRICED
        or (reachable and age >= policy.replace_after_blocks)
    )
    # The transaction can get into the next block at the earliest, and the contract refuses it after that.
    cancel = wants_cancel(intent, tick.head) or outcome is SendOutcome.REFUSED
    offers = [Fees(a.max_fee_wei, a.priority_fee_wei) for a in pending.attempts]
    if cancel and (newest.kind is AttemptKind.ACTION or due):
        fees = replacement_fees(
            offers, tick.fees, policy, gas_limit=TRANSFER_GAS, budget_wei=policy.max_cancel_cost_wei
        )
        return Stuck() if fees is None else Replace(AttemptKind.CANCEL, fees)
    if not cancel and due:
        fees = replacement_fees(
            offers, tick.fees, policy, gas_limit=intent.gas_limit, budget_wei=intent.budget_wei
        )
        if fees is not None:
            return Replace(AttemptKind.ACTION, fees)
    if resume or pending.last_send is None or not pending.last_send.outcome.in_pool:
        return SendAgain()
    # A pool may have dropped it without a word; the same bytes cost nothing.
    forgotten = tick.head.number - pending.last_send.block >= policy.replace_after_blocks
    return SendAgain() if forgotten else Wait()


def wants_cancel(intent: Intent, head: Head) -> bool:
    """Whether an intent's nonce is to be freed: asked for, or the contract will not accept it any more."""
    return intent.cancel_requested or head.number >= intent.deadline_block


def worst_cost_wei(attempt: Attempt, intent: Intent) -> int:
    """Return the most that an attempt can take from the sender's balance."""
    gas = TRANSFER_GAS if attempt.kind is AttemptKind.CANCEL else intent.gas_limit
    return gas * attempt.max_fee_wei


# ------------------------------------------------------------------------------------------------ the manager


class Submitter:
    """The only way from an order to the network.

    Parameters
    ----------
    journal
        Open for writing, belonging to this chain and sender.
    node
        Where to send and what to ask.
    signer
        The key; None in modes that do not sign.
    mode
        Only in ``live`` does anything leave; otherwise the chain is followed and nothing else.
    policy
        Fees.
    confirmations
        Blocks on top of a receipt before it is final.
    profit_of
        Reads the realised profit, in debt token units, from the receipt of a successful liquidation.
    """

    def __init__(
        self,
        *,
        journal: Journal,
        node: Node,
        signer: Signer | None,
        mode: Mode,
        policy: FeePolicy,
        confirmations: int,
        profit_of: Callable[[Intent, TxReceipt], int | None] = lambda intent, receipt: None,
    ) -> None:
        if signer is not None and signer.address != journal.identity.sender:
            raise ValueError(f"journal of {journal.identity.sender}, key of {signer.address}")
        self._journal = journal
        self._node = node
        self._signer = signer
        self._mode = mode
        self._policy = policy
        self._confirmations = confirmations
        self._profit_of = profit_of
        self._foreign_nonce = 0
        self._gap: tuple[int, int] | None = None

    @property
    def sender(self) -> str:
        """The address that sends."""
        return self._journal.identity.sender

    def watch(self) -> Watch:
        """Return what the next tick has to look at, so that following costs no round trip of its own."""
        opened = self._journal.open_intents()
        attempts = self._journal.attempts([intent.intent_id for intent in opened])
        mined = [self._journal.receipt(i.intent_id) for i in opened if i.state is IntentState.MINED]
        return Watch(
            tx_hashes=tuple(a.tx_hash for several in attempts.values() for a in several),
            blocks=tuple(sorted({receipt.block for receipt in mined if receipt is not None})),
        )

    def tick(self) -> Tick:
        """Return the newest head with all that `submit` and `follow` need, in one round trip."""
        return self._node.tick(
            self.sender,
            self.watch(),
            percentile=self._policy.tip_percentile,
            chain_id=self._journal.identity.chain_id,
        )

    # ------------------------------------------------------------------------------------------------- submit

    def submit(self, orders: Sequence[Order], tick: Tick) -> Submission:
        """Write orders ahead and hand them to the node, all at once.

        Raises
        ------
        JournalError
            If they cannot be written ahead; then nothing was sent. Also if the answers cannot be recorded;
            then all is in the journal and `follow` finds out from the chain.
        """
        if self._signer is None or self._mode is not Mode.LIVE:
            why = f"mode is {self._mode}"
            return Submission((), tuple(Refusal(order, Reason.OBSERVE_ONLY, why) for order in orders))
        if tick.sender is None:
            raise ValueError("submit: the tick was made without a sender")
        nonce = self._first_nonce(tick)
        if (foreign := nonce - self._own_nonce(tick)) > MOST_FOREIGN:
            why = f"the node has {foreign} transactions of the key in its pool, the journal none of them"
            return Submission((), tuple(Refusal(order, Reason.LIMIT, why) for order in orders))
        free_wei = tick.sender.balance_wei - self._committed_wei()
        taken = self.in_flight(tick.head)
        prepared: list[tuple[Order, Attempt]] = []
        refused: list[Refusal] = []
        for wanted in orders:
            if (wanted.protocol, wanted.account) in taken:
                refused.append(Refusal(wanted, Reason.DUPLICATE, "an intent for this account is under way"))
                continue
            order = replace(wanted, budget_wei=min(wanted.budget_wei, self._policy.max_action_cost_wei))
            fees = first_fees(tick.fees, self._policy, gas_limit=order.gas_limit, budget_wei=order.budget_wei)
            if fees is None:
                detail = f"gas may cost {order.budget_wei} wei, the next block asks for more"
                refused.append(Refusal(order, Reason.UNPROFITABLE, detail))
                continue
            cost_wei = fees.max_fee_wei * order.gas_limit
            if cost_wei > free_wei:
                detail = f"up to {cost_wei} wei of gas, {max(free_wei, 0)} wei of the balance are free"
                refused.append(Refusal(order, Reason.LIMIT, detail))
                continue
            attempt = self._sign_action(order, nonce + len(prepared), fees, tick.head.number)
            prepared.append((order, attempt))
            taken.add((order.protocol, order.account))
            free_wei -= cost_wei
        if prepared:
            self._journal.write_ahead(prepared)
            self._broadcast([attempt for _, attempt in prepared], tick.head)
        return Submission(
            tuple(self._journal.intent(order.intent_id) for order, _ in prepared), tuple(refused)
        )

    def in_flight(self, head: Head) -> set[tuple[str, str]]:
        """Return the (protocol, account) pairs with a liquidation that is not in the state at `head`.

        Besides those on their way these are the ones that were mined above it: a block can come between head
        and receipts of one look, and one of several nodes behind an address can be a block behind the others.
        """
        above = {(intent.protocol, intent.account) for intent in self._journal.mined_above(head.number)}
        return above | self._journal.in_flight()

    def under_way(self, head: Head) -> list[Intent]:
        """Return the liquidations that are not in the state at `head` and will come to it, by nonce."""
        waiting = [intent for intent in self._not_mined() if not intent.cancel_requested]
        return sorted([*waiting, *self._journal.mined_above(head.number)], key=lambda intent: intent.nonce)

    def request_cancel(self, intent_id: str, note: str) -> None:
        """Have the next `follow` free the nonce of an intent whose opportunity is gone."""
        self._journal.request_cancel(intent_id, note)

    def _first_nonce(self, tick: Tick) -> int:
        assert tick.sender is not None
        # The journal leads: a node may have lost our transactions, or never have seen them. The node's count
        # is higher only where somebody else uses the key, and then theirs come first.
        return max(self._own_nonce(tick), tick.sender.nonce_pending)

    def _own_nonce(self, tick: Tick) -> int:
        """Return the first nonce that neither the chain nor the journal has used."""
        assert tick.sender is not None
        return max(self._journal.next_nonce() or 0, tick.sender.nonce_latest)

    def _committed_wei(self) -> int:
        return sum(worst_cost_wei(p.newest, p.intent) for p in self._pending(self._not_mined()))

    def _sign_action(self, order: Order | Intent, nonce: int, fees: Fees, block: int) -> Attempt:
        transaction = UnsignedTx(
            chain_id=self._journal.identity.chain_id,
            nonce=nonce,
            to=order.to,
            data=order.data,
            gas_limit=order.gas_limit,
            max_fee_wei=fees.max_fee_wei,
            priority_fee_wei=fees.priority_fee_wei,
        )
        return self._sign(order.intent_id, transaction, AttemptKind.ACTION, block)

    def _sign_transfer(self, intent_id: str, nonce: int, fees: Fees, block: int) -> Attempt:
        transaction = UnsignedTx(
            chain_id=self._journal.identity.chain_id,
            nonce=nonce,
            to=self.sender,
            data=b"",
            gas_limit=TRANSFER_GAS,
            max_fee_wei=fees.max_fee_wei,
            priority_fee_wei=fees.priority_fee_wei,
        )
        return self._sign(intent_id, transaction, AttemptKind.CANCEL, block)

    def _sign(self, intent_id: str, transaction: UnsignedTx, kind: AttemptKind, block: int) -> Attempt:
        if self._signer is None:
            raise SigningRefused("there is no key to sign with", fix="configure [signer]")
        signed = self._signer.sign(transaction, self._mode)
        return Attempt(
            intent_id=intent_id,
            nonce=transaction.nonce,
            kind=kind,
            tx_hash=signed.tx_hash,
            raw=signed.raw,
            max_fee_wei=transaction.max_fee_wei,
            priority_fee_wei=transaction.priority_fee_wei,
            created_block=block,
        )

    def _broadcast(self, attempts: Sequence[Attempt], head: Head) -> dict[str, SendOutcome]:
        """Hand journalled bytes over, by nonce, in one batch. The only line from which bytes leave."""
        if self._mode is not Mode.LIVE:
            raise SigningRefused(f"nothing is sent in mode {self._mode}")
        if not attempts:
            return {}
        ordered = sorted(attempts, key=lambda attempt: attempt.nonce)
        results = self._node.send_raw([attempt.raw for attempt in ordered])
        self._journal.record_sends(head.number, results)
        return {result.tx_hash: result.outcome for result in results}

    # ------------------------------------------------------------------------------------------------- follow

    def reconcile(self, tick: Tick) -> list[TxEvent]:
        """Resolve after a start what an earlier process left open; see `follow`."""
        return self.follow(tick, resume=True)

    def follow(self, tick: Tick, *, resume: bool = False) -> list[TxEvent]:
        """Take every open intent one step on, by what the chain says at this tick: `settle`, then `push`.

        Parameters
        ----------
        tick
            From `tick`, so that it holds the receipts.
        resume
            Hand everything over again: the process has just started.
        """
        settled = self.settle(tick)
        return [*settled.events, *self.push(settled, tick, resume=resume)]

    def settle(self, tick: Tick) -> Settled:
        """Record what the chain says of every open intent; nothing is sent.

        Receipts are recorded, followed to the confirmation depth by block hash, and taken back when their
        block is replaced.
        """
        events = self._settle(tick)
        pending = self._pending(self._not_mined())
        lost = self._lost(pending, tick)
        for intent in lost:
            note = f"nonce {intent.nonce} was used by a transaction that is not in the journal"
            self._journal.finalise(intent.intent_id, IntentState.ABANDONED, note)
            events.append(TxEvent(TxEventKind.ABANDONED, self._journal.intent(intent.intent_id), note))
        events += self._foreign(tick)
        return Settled(tuple(events), tuple(pending))

    def push(self, settled: Settled, tick: Tick, *, resume: bool = False) -> list[TxEvent]:
        """Do something about what was not mined when `settle` looked.

        It is handed over again, replaced with higher fees within its budget, or cancelled once its deadline
        has passed, so that no nonce blocks those behind it. Intents written since are left to the next head.
        """
        if self._mode is not Mode.LIVE or self._signer is None or tick.sender is None:
            return []
        # A used nonce without a receipt yet is left to the next ticks: there is nothing to send at it.
        alive = [p for p in settled.pending if p.intent.nonce >= tick.sender.nonce_latest]
        return [*self._fill(alive, tick), *self._push(alive, tick, resume), *self._restore(tick)]

    def _not_mined(self) -> list[Intent]:
        return self._journal.intents([IntentState.PREPARED, IntentState.SENT])

    def _pending(self, intents: Iterable[Intent]) -> list[Pending]:
        intents = list(intents)
        attempts = self._journal.attempts([intent.intent_id for intent in intents])
        sends = self._journal.last_sends([several[-1].tx_hash for several in attempts.values()])
        return [
            Pending(i, tuple(attempts[i.intent_id]), sends.get(attempts[i.intent_id][-1].tx_hash))
            for i in intents
        ]

    # -- what the chain says

    def _settle(self, tick: Tick) -> list[TxEvent]:
        opened = self._journal.open_intents()
        attempts = self._journal.attempts([intent.intent_id for intent in opened])
        found: dict[str, tuple[Attempt, TxReceipt]] = {}
        recorded: dict[str, Receipt] = {}
        for intent in opened:
            for attempt in attempts[intent.intent_id]:
                if (receipt := tick.receipts.get(attempt.tx_hash)) is not None:
                    found[intent.intent_id] = (attempt, receipt)
            if intent.state is IntentState.MINED and (known := self._journal.receipt(intent.intent_id)):
                recorded[intent.intent_id] = known
        canonical = self._headers(
            tick, {r.block for _, r in found.values()} | {r.block for r in recorded.values()}
        )
        events: list[TxEvent] = []
        with self._journal.transaction():
            for intent in opened:
                events += self._settle_one(
                    intent, found.get(intent.intent_id), recorded.get(intent.intent_id), canonical, tick.head
                )
        return events

    def _headers(self, tick: Tick, numbers: set[int]) -> Mapping[int, Head | None]:
        known: dict[int, Head | None] = {**tick.blocks, tick.head.number: tick.head}
        missing = sorted(numbers - known.keys())
        if missing:
            known |= dict(zip(missing, self._node.blocks(missing), strict=True))
        return known

    def _settle_one(
        self,
        intent: Intent,
        found: tuple[Attempt, TxReceipt] | None,
        recorded: Receipt | None,
        canonical: Mapping[int, Head | None],
        head: Head,
    ) -> list[TxEvent]:
        events: list[TxEvent] = []
        if recorded is not None:
            block = canonical.get(recorded.block)
            if block is None and head.number < recorded.block:
                return []  # this node is behind; it has no say
            if block is None or block.block_hash != recorded.block_hash:
                note = f"block {recorded.block} is no longer {recorded.block_hash}"
                self._journal.forget_receipt(intent.intent_id, note)
                events.append(TxEvent(TxEventKind.REORGANISED, intent, note))
                recorded = None
        if found is not None and recorded is None:
            attempt, mined = found
            block = canonical.get(mined.block)
            if block is None or block.block_hash != mined.block_hash:
                return events  # receipt and header are of two states; the next tick will tell
            recorded = self._receipt(intent, attempt, mined, block)
            self._journal.record_receipt(recorded)
            intent = self._journal.intent(intent.intent_id)
            events.append(TxEvent(TxEventKind.MINED, intent, f"block {recorded.block}", recorded))
        if recorded is not None and head.number - recorded.block >= self._confirmations:
            events.append(self._finish(intent, recorded))
        return events

    def _receipt(self, intent: Intent, attempt: Attempt, mined: TxReceipt, block: Head) -> Receipt:
        acted = mined.success and attempt.kind is AttemptKind.ACTION
        return Receipt(
            intent_id=intent.intent_id,
            tx_hash=attempt.tx_hash,
            kind=attempt.kind,
            block=mined.block,
            block_hash=mined.block_hash,
            timestamp=block.timestamp,
            success=mined.success,
            gas_used=mined.gas_used,
            effective_gas_price_wei=mined.effective_gas_price_wei,
            realised_profit_raw=self._profit_of(intent, mined) if acted else None,
        )

    def _finish(self, intent: Intent, receipt: Receipt) -> TxEvent:
        if receipt.kind is AttemptKind.CANCEL:
            state, kind = IntentState.CANCELLED, TxEventKind.CANCELLED
        elif receipt.success:
            state, kind = IntentState.CONFIRMED, TxEventKind.CONFIRMED
        else:
            state, kind = IntentState.REVERTED, TxEventKind.REVERTED
        self._journal.finalise(intent.intent_id, state)
        return TxEvent(kind, self._journal.intent(intent.intent_id), f"block {receipt.block}", receipt)

    def _lost(self, pending: Sequence[Pending], tick: Tick) -> list[Intent]:
        """Return the intents whose nonce went, for good, to a transaction that is not ours."""
        if tick.sender is None:
            return []
        used = [p.intent for p in pending if p.intent.nonce < tick.sender.nonce_latest]
        if not used:
            return []
        depth = max(self._confirmations, LEAST_DEPTH)
        settled = self._node.nonce_at(self.sender, tick.head.number - depth)
        return [intent for intent in used if intent.nonce < settled]

    def _foreign(self, tick: Tick) -> list[TxEvent]:
        written = self._journal.next_nonce()
        if tick.sender is None or written is None:
            return []
        seen = max(tick.sender.nonce_latest, tick.sender.nonce_pending)
        if seen <= max(written, self._foreign_nonce):
            return []
        self._foreign_nonce = seen
        detail = f"the key was used elsewhere: nonce {seen} is next, the journal's is {written}"
        return [TxEvent(TxEventKind.FOREIGN_NONCE, None, detail)]

    # -- what to do about it

    def _push(self, pending: Sequence[Pending], tick: Tick, resume: bool) -> list[TxEvent]:
        assert tick.sender is not None
        again: list[Attempt] = []
        fresh: list[tuple[Pending, Attempt]] = []
        events: list[TxEvent] = []
        pooled = tick.sender.nonce_pending
        first_in_line = not pending or pooled >= pending[0].intent.nonce
        for one in pending:
            step = next_step(
                one,
                tick,
                self._policy,
                first_in_line=first_in_line,
                reachable=pooled >= one.intent.nonce,
                resume=resume,
            )
            offer = one.newest
            if isinstance(step, Replace):
                if step.kind is AttemptKind.CANCEL:
                    offer = self._sign_transfer(
                        one.intent.intent_id, one.intent.nonce, step.fees, tick.head.number
                    )
                else:
                    offer = self._sign_action(one.intent, one.intent.nonce, step.fees, tick.head.number)
                fresh.append((one, offer))
            elif isinstance(step, SendAgain | Stuck):
                again.append(offer)
            if isinstance(step, Stuck):
                detail = f"nonce {one.intent.nonce} cannot be freed within the limit for cancellations"
                events.append(TxEvent(TxEventKind.STUCK, one.intent, detail))
            if offer.max_fee_wei < tick.fees.next_base_fee_wei:
                first_in_line = False
        if fresh:
            with self._journal.transaction():
                for one, attempt in fresh:
                    if attempt.kind is AttemptKind.CANCEL and not one.intent.cancel_requested:
                        self._journal.request_cancel(one.intent.intent_id, _why_cancelled(one, tick.head))
                self._journal.add_attempts([attempt for _, attempt in fresh])
        outcomes = self._broadcast(again + [attempt for _, attempt in fresh], tick.head)
        for one, attempt in fresh:
            cancel = attempt.kind is AttemptKind.CANCEL
            kind = TxEventKind.CANCELLING if cancel else TxEventKind.REPLACED
            detail = f"{attempt.tx_hash} at {attempt.max_fee_wei} wei: {outcomes[attempt.tx_hash]}"
            events.append(TxEvent(kind, self._journal.intent(one.intent.intent_id), detail))
        repeated = {attempt.tx_hash for attempt in again}
        for one in pending:
            outcome = outcomes.get(one.newest.tx_hash)
            if outcome is SendOutcome.INSUFFICIENT_FUNDS:
                events.append(TxEvent(TxEventKind.UNFUNDED, one.intent, "the balance does not cover its gas"))
            elif one.newest.tx_hash in repeated:
                events.append(TxEvent(TxEventKind.SENT_AGAIN, one.intent, str(outcome)))
        return events

    def _fill(self, pending: Sequence[Pending], tick: Tick) -> list[TxEvent]:
        """Fill nonces below ours that nobody owns, once they have been missing for some blocks.

        They were counted as pooled when our nonces were given out, and then the pool lost them: somebody else
        used the key, and without them none of ours can be mined.
        """
        assert tick.sender is not None
        first = tick.sender.nonce_pending
        if not pending or first >= pending[0].intent.nonce:
            self._gap = None
            return []
        if self._gap is None or self._gap[0] != first:
            self._gap = (first, tick.head.number)
        if tick.head.number - self._gap[1] < self._policy.replace_after_blocks:
            return []
        missing = range(first, pending[0].intent.nonce)
        # Nonces of final intents were used on chain; `_restore` brings those transactions back.
        owned = {
            intent.nonce
            for intent in self._journal.intents_at(missing.start, missing.stop - 1)
            if intent.state is not IntentState.ABANDONED
        }
        events: list[TxEvent] = []
        fresh: list[Attempt] = []
        again: list[Attempt] = []
        for nonce, earlier in self._journal.fillers([n for n in missing if n not in owned]).items():
            offers = [Fees(a.max_fee_wei, a.priority_fee_wei) for a in earlier]
            limit = {"gas_limit": TRANSFER_GAS, "budget_wei": self._policy.max_cancel_cost_wei}
            if not offers:
                fees = first_fees(tick.fees, self._policy, **limit)
            elif tick.head.number - earlier[-1].created_block < self._policy.replace_after_blocks:
                fees = None
            else:
                fees = replacement_fees(offers, tick.fees, self._policy, **limit)
            if fees is not None:
                fresh.append(self._sign_transfer("", nonce, fees, tick.head.number))
                events.append(TxEvent(TxEventKind.FILLING_GAP, None, f"nonce {nonce} is in no pool"))
            elif earlier:
                again.append(earlier[-1])
        self._journal.add_fillers(fresh)
        self._broadcast(fresh + again, tick.head)
        return events

    def _restore(self, tick: Tick) -> list[TxEvent]:
        """Hand final transactions over again that a reorganisation below the confirmation depth removed."""
        assert tick.sender is not None
        written = self._journal.next_nonce()
        if written is None or tick.sender.nonce_latest >= written:
            return []
        gone = [
            (intent, receipt)
            for intent in self._journal.intents_at(tick.sender.nonce_latest, written - 1)
            if (receipt := self._journal.receipt(intent.intent_id)) is not None
            and intent.state in (IntentState.CONFIRMED, IntentState.REVERTED, IntentState.CANCELLED)
            and receipt.block <= tick.head.number
        ]
        if not gone:
            return []
        attempts = self._journal.attempts([intent.intent_id for intent, _ in gone])
        again = [
            next(a for a in attempts[i.intent_id] if a.tx_hash == receipt.tx_hash) for i, receipt in gone
        ]
        self._broadcast(again, tick.head)
        detail = "a reorganisation below the confirmation depth removed it; sent again"
        return [TxEvent(TxEventKind.DEEP_REORGANISATION, intent, detail) for intent, _ in gone]


def _why_cancelled(pending: Pending, head: Head) -> str:
    if pending.last_send is not None and pending.last_send.outcome is SendOutcome.REFUSED:
        return f"the node refuses it: {pending.last_send.detail}"
    return f"not mined by block {pending.intent.deadline_block} (head {head.number})"
