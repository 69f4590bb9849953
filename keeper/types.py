"""What the keeper writes down: intents before it acts, receipts after."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class IntentState(StrEnum):
    """Life of an intent. Only `CONFIRMED`, `REVERTED`, `CANCELLED` and `ABANDONED` are final.

    ::

        PREPARED -> SENT -> MINED -> CONFIRMED
            |         |       ├----> REVERTED        (receipt with status 0)
            |         |       └----> CANCELLED       (the nonce went to our own cancellation)
            |         └-> SENT                       (replaced: same nonce, higher fees)
            └-> ABANDONED                            (the nonce went to a transaction that is not ours)

    PREPARED is journalled, and not known to be held by any node. A reorganisation takes MINED back to SENT.
    Final states are entered at the confirmation depth only.
    """

    PREPARED = "prepared"
    SENT = "sent"
    MINED = "mined"
    CONFIRMED = "confirmed"
    REVERTED = "reverted"
    CANCELLED = "cancelled"
    ABANDONED = "abandoned"


FINAL_STATES = frozenset(
    {IntentState.CONFIRMED, IntentState.REVERTED, IntentState.CANCELLED, IntentState.ABANDONED}
)


@dataclass(frozen=True, slots=True)
class Order:
    """What the keeper wants done with one account: an intent before it has a nonce.

    Attributes
    ----------
    intent_id
        From `keeper.journal.Journal.new_intent_id`; stands in `data`, so it comes first.
    account, protocol, debt_asset, collateral_asset, debt_to_cover_raw
        What is liquidated.
    simulated_profit_raw, min_profit_raw
        Profit of the simulation and the least that the contract enforces, in debt token units.
    decided_block
        Block whose state the decision was made on.
    deadline_block
        Last block in which the contract accepts it; afterwards the nonce is freed by a cancellation.
    to, data
        The contract and the calldata.
    gas_limit
        Gas units; with `budget_wei` it bounds the fee.
    budget_wei
        The most that may be paid for gas: the smaller of the configured cap and the simulated profit.
    """

    intent_id: str
    account: str
    protocol: str
    debt_asset: str
    collateral_asset: str
    debt_to_cover_raw: int
    simulated_profit_raw: int
    min_profit_raw: int
    decided_block: int
    deadline_block: int
    to: str
    data: bytes = field(repr=False)
    gas_limit: int
    budget_wei: int


@dataclass(frozen=True, slots=True)
class Intent:
    """One decision to act on one account, committed to the journal before anything is broadcast.

    Attributes
    ----------
    intent_id
        32 bytes, hex with 0x; stands in the on-chain event, so that duplicates can be counted on chain.
    chain_id, sender, nonce
        Where, who, and the nonce that makes the intent executable at most once.
    account, protocol, debt_asset, collateral_asset, debt_to_cover_raw
        What is liquidated.
    simulated_profit_raw, min_profit_raw
        Profit of the simulation and the least that the contract enforces, in debt token units.
    decided_block
        Block whose state the decision was made on.
    state
        See `IntentState`.
    deadline_block, to, data, gas_limit, budget_wei
        As in `Order`.
    cancel_requested
        Whether the nonce shall be freed instead: the opportunity is gone or the deadline has passed.
    note
        Why it ended as it did, one line.
    """

    intent_id: str
    chain_id: int
    sender: str
    nonce: int
    account: str
    protocol: str
    debt_asset: str
    collateral_asset: str
    debt_to_cover_raw: int
    simulated_profit_raw: int
    min_profit_raw: int
    decided_block: int
    state: IntentState
    deadline_block: int
    to: str
    data: bytes = field(repr=False)
    gas_limit: int
    budget_wei: int
    cancel_requested: bool = False
    note: str = ""


class AttemptKind(StrEnum):
    """What a signed transaction does: the intent's action, or a transfer of nothing that frees its nonce."""

    ACTION = "action"
    CANCEL = "cancel"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One signed transaction of an intent; a replacement is another attempt at the same nonce.

    Attributes
    ----------
    intent_id, nonce, kind, tx_hash
        Identify it; the hash is computed locally, before sending. The intent is empty for a cancellation that
        fills a gap below our nonces, which somebody else's lost transaction left.
    raw
        Signed bytes.
    max_fee_wei, priority_fee_wei
        EIP-1559 fees.
    created_block
        Head when it was signed.
    """

    intent_id: str
    nonce: int
    kind: AttemptKind
    tx_hash: str
    raw: bytes = field(repr=False)
    max_fee_wei: int
    priority_fee_wei: int
    created_block: int


@dataclass(frozen=True, slots=True)
class Receipt:
    """What the chain says became of an attempt.

    Attributes
    ----------
    intent_id, tx_hash
        Which one.
    kind
        What the transaction that was mined does; see `AttemptKind`.
    block, block_hash, timestamp
        Where and when it was mined.
    success
        Status of the transaction.
    gas_used, effective_gas_price_wei
        What it cost.
    realised_profit_raw
        Profit from the contract's event, in debt token units; None when it reverted.
    """

    intent_id: str
    tx_hash: str
    kind: AttemptKind
    block: int
    block_hash: str
    timestamp: int
    success: bool
    gas_used: int
    effective_gas_price_wei: int
    realised_profit_raw: int | None

    @property
    def gas_cost_wei(self) -> int:
        """What was paid for gas."""
        return self.gas_used * self.effective_gas_price_wei
