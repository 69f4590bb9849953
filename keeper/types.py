"""What the keeper writes down: intents before it acts, receipts after."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class IntentState(StrEnum):
    """Life of an intent. Only `CONFIRMED`, `REVERTED`, `CANCELLED` and `ABANDONED` are final.

    ::

        PREPARED -> SENT -> MINED -> CONFIRMED
            |         |       └----> REVERTED        (receipt with status 0)
            |         ├-> SENT                       (replaced: same nonce, higher fees)
            |         └-> CANCELLED                  (the nonce was used by our own cancellation)
            └-> ABANDONED                            (journalled, never sent, nonce unused)

    A reorganisation takes MINED back to SENT.
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


@dataclass(frozen=True, slots=True)
class Attempt:
    """One signed transaction of an intent; a replacement is another attempt at the same nonce.

    Attributes
    ----------
    intent_id, nonce, tx_hash
        Identify it; the hash is computed locally, before sending.
    raw
        Signed bytes.
    max_fee_wei, priority_fee_wei
        EIP-1559 fees.
    created_block
        Head when it was signed.
    """

    intent_id: str
    nonce: int
    tx_hash: str
    raw: bytes
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
    block, block_hash
        Where it was mined.
    success
        Status of the transaction.
    gas_used, effective_gas_price_wei
        What it cost.
    realised_profit_raw
        Profit from the contract's event, in debt token units; None when it reverted.
    """

    intent_id: str
    tx_hash: str
    block: int
    block_hash: str
    success: bool
    gas_used: int
    effective_gas_price_wei: int
    realised_profit_raw: int | None
