"""The write-ahead journal: what the keeper is about to do is on disk before any byte of it leaves.

One SQLite file in WAL mode with ``synchronous=FULL``: a commit has reached the disk when it returns, so after
a crash at any instant the journal knows every signed transaction that a node may have seen. The rules

- an intent and its signed bytes are committed together, before the first send;
- at most one intent per (protocol, account) is on its way: a unique partial index, not a habit. Once it is
  mined the account is free, so that a partial liquidation can be followed by the next one;
- a nonce belongs to one intent for good: a unique index, and only a cancellation may take it over;
- a journal belongs to one chain (id and genesis) and one sender, and to one process at a time.

A file that is not such a journal is refused and left as it is.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final
from urllib.parse import quote

import sqlalchemy as sa
from eth_abi.abi import encode as abi_encode
from eth_utils.crypto import keccak
from sqlalchemy.engine import Connection, Engine, RowMapping
from sqlalchemy.pool import StaticPool

from contracts_abi.errors import JournalError
from keeper.clock import Clock, SystemClock
from keeper.rpc import SendOutcome, SendResult
from keeper.types import FINAL_STATES, Attempt, AttemptKind, Intent, IntentState, Order, Receipt
from simulation.types import Verdict

SCHEMA_VERSION: Final = 1
APPLICATION_ID: Final = 0x4D52474C
"""``MRGL`` in the file's header: tells a journal from any other SQLite file."""

RECENT_BLOCKS: Final = 256
"""Scanned blocks whose hashes are kept, which is how deep a reorganisation can be followed."""


class _Exact(sa.types.TypeDecorator[int]):
    """An integer of any size, as decimal text: token amounts do not fit into 64 bits."""

    impl = sa.String
    cache_ok = True

    def process_bind_param(self, value: int | None, dialect: sa.Dialect) -> str | None:
        return None if value is None else str(value)

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> int | None:
        return None if value is None else int(value)


_metadata = sa.MetaData()

_identity = sa.Table(
    "identity",
    _metadata,
    sa.Column("uuid", sa.String, nullable=False),
    sa.Column("chain_id", _Exact, nullable=False),
    sa.Column("genesis_hash", sa.String, nullable=False),
    sa.Column("sender", sa.String, nullable=False),
    sa.Column("created_at", sa.Integer, nullable=False),
)

_intents = sa.Table(
    "intents",
    _metadata,
    sa.Column("sequence", sa.Integer, primary_key=True),
    sa.Column("intent_id", sa.String, nullable=False, unique=True),
    sa.Column("nonce", sa.Integer, nullable=False, unique=True),
    sa.Column("account", sa.String, nullable=False),
    sa.Column("protocol", sa.String, nullable=False),
    sa.Column("debt_asset", sa.String, nullable=False),
    sa.Column("collateral_asset", sa.String, nullable=False),
    sa.Column("debt_to_cover_raw", _Exact, nullable=False),
    sa.Column("simulated_profit_raw", _Exact, nullable=False),
    sa.Column("min_profit_raw", _Exact, nullable=False),
    sa.Column("decided_block", sa.Integer, nullable=False),
    sa.Column("deadline_block", sa.Integer, nullable=False),
    sa.Column("to", sa.String, nullable=False),
    sa.Column("data", sa.LargeBinary, nullable=False),
    sa.Column("gas_limit", sa.Integer, nullable=False),
    sa.Column("budget_wei", _Exact, nullable=False),
    sa.Column("state", sa.String, nullable=False),
    sa.Column("holds_account", sa.Boolean, nullable=False),
    sa.Column("cancel_requested", sa.Boolean, nullable=False),
    sa.Column("note", sa.String, nullable=False),
    sa.CheckConstraint("state IN ({})".format(", ".join(f"'{s.value}'" for s in IntentState))),
)
_HOLDS_SQL = "holds_account"
sa.Index(
    "one_intent_under_way_per_account",
    _intents.c.protocol,
    _intents.c.account,
    unique=True,
    sqlite_where=sa.text(_HOLDS_SQL),
    postgresql_where=sa.text(_HOLDS_SQL),
)
sa.Index("intents_by_state", _intents.c.state)

_attempts = sa.Table(
    "attempts",
    _metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("tx_hash", sa.String, nullable=False, unique=True),
    # Null for a filler of a gap in the nonces, which belongs to no intent.
    sa.Column("intent_id", sa.ForeignKey("intents.intent_id"), index=True),
    sa.Column("nonce", sa.Integer, nullable=False),
    sa.Column("kind", sa.String, nullable=False),
    sa.Column("raw", sa.LargeBinary, nullable=False),
    sa.Column("max_fee_wei", _Exact, nullable=False),
    sa.Column("priority_fee_wei", _Exact, nullable=False),
    sa.Column("created_block", sa.Integer, nullable=False),
)

_sends = sa.Table(
    "sends",
    _metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("tx_hash", sa.ForeignKey("attempts.tx_hash"), nullable=False, index=True),
    sa.Column("block", sa.Integer, nullable=False),
    sa.Column("at", sa.Integer, nullable=False),
    sa.Column("outcome", sa.String, nullable=False),
    sa.Column("detail", sa.String, nullable=False),
)

_receipts = sa.Table(
    "receipts",
    _metadata,
    sa.Column("tx_hash", sa.ForeignKey("attempts.tx_hash"), primary_key=True),
    sa.Column("intent_id", sa.ForeignKey("intents.intent_id"), nullable=False, unique=True),
    sa.Column("kind", sa.String, nullable=False),
    sa.Column("block", sa.Integer, nullable=False),
    sa.Column("block_hash", sa.String, nullable=False),
    sa.Column("timestamp", sa.Integer, nullable=False, index=True),
    sa.Column("success", sa.Boolean, nullable=False),
    sa.Column("gas_used", sa.Integer, nullable=False),
    sa.Column("effective_gas_price_wei", _Exact, nullable=False),
    sa.Column("realised_profit_raw", _Exact),
)

_history = sa.Table(
    "history",
    _metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("intent_id", sa.ForeignKey("intents.intent_id"), nullable=False, index=True),
    sa.Column("at", sa.Integer, nullable=False),
    sa.Column("event", sa.String, nullable=False),
    sa.Column("detail", sa.String, nullable=False),
)

_decisions = sa.Table(
    "decisions",
    _metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("block", sa.Integer, nullable=False),
    sa.Column("timestamp", sa.Integer, nullable=False),
    sa.Column("protocol", sa.String, nullable=False),
    sa.Column("account", sa.String, nullable=False),
    sa.Column("action", sa.String, nullable=False),
    sa.Column("reason", sa.String, nullable=False),
    sa.Column("health_factor_wad", _Exact),
    sa.Column("detail", sa.String, nullable=False),
    sa.Index("decisions_by_account", "protocol", "account"),
)

_scanned = sa.Table(
    "scanned_blocks",
    _metadata,
    sa.Column("protocol", sa.String, primary_key=True),
    sa.Column("block", sa.Integer, primary_key=True),
    sa.Column("block_hash", sa.String, nullable=False),
)

_borrowers = sa.Table(
    "borrowers",
    _metadata,
    sa.Column("protocol", sa.String, primary_key=True),
    sa.Column("account", sa.String, primary_key=True),
    sa.Column("first_block", sa.Integer, nullable=False),
)


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose journal it is.

    Attributes
    ----------
    chain_id, genesis_hash
        The chain; the hash of block 0 tells two local chains with one id apart.
    sender
        Checksummed address whose nonces it hands out.
    """

    chain_id: int
    genesis_hash: str
    sender: str


@dataclass(frozen=True, slots=True)
class SendRecord:
    """One hand-over of signed bytes to a node and what came back."""

    tx_hash: str
    block: int
    at: int
    outcome: SendOutcome
    detail: str


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One change of an intent, in the order it was committed."""

    intent_id: str
    at: int
    event: str
    detail: str


@dataclass(frozen=True, slots=True)
class DecisionEntry:
    """A decision on an account, written when it differs from the one before."""

    block: int
    timestamp: int
    protocol: str
    account: str
    action: str
    reason: str
    health_factor_wad: int | None
    detail: str


@dataclass(frozen=True, slots=True)
class Loss:
    """A mined transaction that cost more than it earned: a revert, a cancellation, or a success all the same.

    Attributes
    ----------
    account, protocol, kind, block, timestamp
        Which one.
    gas_cost_wei
        What it cost beyond what it earned.
    reverted
        Whether it is an action that failed.
    """

    account: str
    protocol: str
    kind: AttemptKind
    block: int
    timestamp: int
    gas_cost_wei: int
    reverted: bool = True


@dataclass(frozen=True, slots=True)
class ScanState:
    """How far discovery has come.

    Attributes
    ----------
    recent
        Scanned blocks, newest first: pairs of number and hash. Empty before the first scan.
    """

    recent: tuple[tuple[int, str], ...]

    @property
    def block(self) -> int | None:
        """Newest scanned block; None before the first scan."""
        return self.recent[0][0] if self.recent else None


def compute_intent_id(
    identity: Identity,
    journal_uuid: str,
    sequence: int,
    *,
    protocol: str,
    account: str,
    debt_asset: str,
    collateral_asset: str,
    decided_block: int,
) -> str:
    """Return the Keccak-256 that names an intent, hex with 0x.

    The journal's uuid and the sequence number in it make two intents differ that agree in all else; the rest
    ties the id to what it stands for.
    """
    types = ("uint256", "string", "string", "string", "string", "string", "uint256", "string", "uint256")
    values = (
        *(identity.chain_id, identity.sender, protocol, account, debt_asset, collateral_asset),
        *(decided_block, journal_uuid, sequence),
    )
    return "0x" + keccak(abi_encode(types, values)).hex()


class Journal:
    """An open journal; use `Journal.open` or `Journal.read_only`.

    Every method that changes something is one transaction that is on disk when it returns; several in a
    ``with journal.transaction():`` are one together. Safe to use from several threads.
    """

    def __init__(
        self,
        engine: Engine,
        path: Path,
        identity: Identity,
        journal_uuid: str,
        clock: Clock,
        lock: _FileLock | None,
    ) -> None:
        self._engine = engine
        self._connection = engine.connect()
        self._mutex = threading.RLock()
        self._depth = 0
        self._clock = clock
        self._lock = lock
        self.path = path
        self.identity = identity
        self.uuid = journal_uuid
        with self._reading() as connection:
            newest = connection.execute(sa.select(sa.func.max(_intents.c.sequence))).scalar()
        self._sequence = 0 if newest is None else int(newest)
        self._last_decision: dict[tuple[str, str], tuple[str, str]] | None = None

    # -------------------------------------------------------------------------------------------- open, close

    @classmethod
    def open(cls, path: Path, identity: Identity, *, clock: Clock | None = None) -> Journal:
        """Open the journal at `path` for this process alone, creating it when there is none.

        Raises
        ------
        JournalError
            If it is in use, damaged, not a journal, of a newer version, or of another chain or sender. The
            file is left as it is.
        """
        clock = clock or SystemClock()
        lock = _FileLock.acquire(path)
        try:
            if not path.exists():
                _create(path, identity, clock)
            found, journal_uuid = _inspect(path)
            require_same(path, found, identity)
            return cls(_engine(path, read_only=False), path, found, journal_uuid, clock, lock)
        except BaseException:
            lock.release()
            raise

    @classmethod
    def read_only(cls, path: Path) -> Journal:
        """Open the journal at `path` for reading, also while a keeper is using it."""
        if not path.exists():
            raise JournalError(f"no journal at {path}", fix="the first marginline keeper run creates it")
        identity, journal_uuid = _inspect(path)
        return cls(_engine(path, read_only=True), path, identity, journal_uuid, SystemClock(), None)

    def close(self) -> None:
        """Close the file and let go of it; closing twice does nothing."""
        self._connection.close()
        self._engine.dispose()
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.release()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Make all changes inside one transaction, on disk when the block ends, undone when it raises."""
        with self._writing():
            yield

    @contextlib.contextmanager
    def _writing(self) -> Iterator[Connection]:
        with self._mutex, self._one_line():
            if self._depth:
                yield self._connection
                return
            self._depth += 1
            try:
                with self._connection.begin():
                    yield self._connection
            finally:
                self._depth -= 1

    @contextlib.contextmanager
    def _reading(self) -> Iterator[Connection]:
        with self._mutex, self._one_line():
            try:
                yield self._connection
            finally:
                # A read opens a transaction of its own; leaving it open would pin the WAL.
                if not self._depth:
                    self._connection.rollback()

    @contextlib.contextmanager
    def _one_line(self) -> Iterator[None]:
        try:
            yield
        except sa.exc.IntegrityError as error:
            raise JournalError(f"journal {self.path} refuses: {error.orig}") from None
        except sa.exc.DBAPIError as error:
            raise JournalError(
                f"journal {self.path}: {error.orig}", fix="nothing was sent; check the disk and the file"
            ) from None

    # -------------------------------------------------------------------------------------------- write-ahead

    def new_intent_id(
        self, *, protocol: str, account: str, debt_asset: str, collateral_asset: str, decided_block: int
    ) -> str:
        """Reserve a sequence number and return the id of an intent that may be written with it.

        Nothing is written: an id that is not used leaves a gap and nothing else.
        """
        with self._mutex:
            self._sequence += 1
            return compute_intent_id(
                self.identity,
                self.uuid,
                self._sequence,
                protocol=protocol,
                account=account,
                debt_asset=debt_asset,
                collateral_asset=collateral_asset,
                decided_block=decided_block,
            )

    def write_ahead(self, prepared: Sequence[tuple[Order, Attempt]]) -> None:
        """Commit orders as intents with their first signed attempts, all or none.

        Only when this has returned may a byte of them leave the machine.

        Raises
        ------
        JournalError
            If an account has an intent on its way, a nonce was given out before, or the disk refuses.
        """
        if any(a.intent_id != o.intent_id or a.kind is not AttemptKind.ACTION for o, a in prepared):
            raise ValueError("an intent starts with an attempt at its own action")
        if not prepared:
            return
        rows = [
            {
                "intent_id": order.intent_id,
                "nonce": attempt.nonce,
                "account": order.account,
                "protocol": order.protocol,
                "debt_asset": order.debt_asset,
                "collateral_asset": order.collateral_asset,
                "debt_to_cover_raw": order.debt_to_cover_raw,
                "simulated_profit_raw": order.simulated_profit_raw,
                "min_profit_raw": order.min_profit_raw,
                "decided_block": order.decided_block,
                "deadline_block": order.deadline_block,
                "to": order.to,
                "data": order.data,
                "gas_limit": order.gas_limit,
                "budget_wei": order.budget_wei,
                "state": IntentState.PREPARED.value,
                "holds_account": True,
                "cancel_requested": False,
                "note": "",
            }
            for order, attempt in prepared
        ]
        with self._writing() as connection:
            connection.execute(_intents.insert(), rows)
            self._insert_attempts(connection, [attempt for _, attempt in prepared])

    def add_attempts(self, attempts: Sequence[Attempt]) -> None:
        """Commit further signed attempts of open intents, before they are sent."""
        with self._writing() as connection:
            for attempt in attempts:
                intent = self._row(connection, attempt.intent_id)
                if intent["state"] in FINAL_STATES or intent["nonce"] != attempt.nonce:
                    raise ValueError(f"{attempt.intent_id} is not open at nonce {attempt.nonce}")
            self._insert_attempts(connection, attempts)

    def add_fillers(self, fillers: Sequence[Attempt]) -> None:
        """Commit cancellations at nonces that no intent owns, before they are sent."""
        if any(filler.intent_id or filler.kind is not AttemptKind.CANCEL for filler in fillers):
            raise ValueError("a filler is a cancellation that belongs to no intent")
        with self._writing() as connection:
            self._insert_attempts(connection, fillers)

    def _insert_attempts(self, connection: Connection, attempts: Sequence[Attempt]) -> None:
        if not attempts:
            return
        rows = [
            {
                "tx_hash": attempt.tx_hash,
                "intent_id": attempt.intent_id or None,
                "nonce": attempt.nonce,
                "kind": attempt.kind.value,
                "raw": attempt.raw,
                "max_fee_wei": attempt.max_fee_wei,
                "priority_fee_wei": attempt.priority_fee_wei,
                "created_block": attempt.created_block,
            }
            for attempt in attempts
        ]
        connection.execute(_attempts.insert(), rows)
        now = self._clock.now()
        signed = [
            {
                "intent_id": attempt.intent_id,
                "at": now,
                "event": f"signed {attempt.kind}",
                "detail": f"{attempt.tx_hash} nonce {attempt.nonce} max fee {attempt.max_fee_wei} wei",
            }
            for attempt in attempts
            if attempt.intent_id
        ]
        if signed:
            connection.execute(_history.insert(), signed)

    def record_sends(self, block: int, results: Sequence[SendResult]) -> None:
        """Write what nodes answered; an intent whose bytes a node may hold becomes SENT."""
        if not results:
            return
        now = self._clock.now()
        rows = [
            {
                "tx_hash": result.tx_hash,
                "block": block,
                "at": now,
                "outcome": result.outcome.value,
                "detail": _line(result.detail),
            }
            for result in results
        ]
        held = [r.tx_hash for r in results if r.outcome.in_pool or r.outcome is SendOutcome.AMBIGUOUS]
        prepared = (
            sa.select(_attempts.c.intent_id)
            .join(_intents, _intents.c.intent_id == _attempts.c.intent_id)
            .where(_attempts.c.tx_hash.in_(held), _intents.c.state == IntentState.PREPARED.value)
            .distinct()
        )
        with self._writing() as connection:
            connection.execute(_sends.insert(), rows)
            moved = connection.execute(prepared).scalars().all()
            if not moved:
                return
            # All in two statements: a bundle's next head waits for this. Each keeps its account, as it did.
            connection.execute(
                _intents.update().where(_intents.c.intent_id.in_(moved)).values(state=IntentState.SENT.value)
            )
            event = f"{IntentState.PREPARED} -> {IntentState.SENT}"
            connection.execute(
                _history.insert(),
                [{"intent_id": intent_id, "at": now, "event": event, "detail": ""} for intent_id in moved],
            )

    def request_cancel(self, intent_id: str, note: str) -> None:
        """Mark an intent whose nonce shall be freed by a cancellation."""
        with self._writing() as connection:
            if self._row(connection, intent_id)["cancel_requested"]:
                return
            connection.execute(
                _intents.update()
                .where(_intents.c.intent_id == intent_id)
                .values(cancel_requested=True, note=_line(note))
            )
            self._note(connection, intent_id, "cancel requested", note)

    # ------------------------------------------------------------------------------------ what the chain says

    def record_receipt(self, receipt: Receipt) -> None:
        """Write the receipt of one of an intent's attempts; the intent becomes MINED."""
        with self._writing() as connection:
            connection.execute(_receipts.delete().where(_receipts.c.intent_id == receipt.intent_id))
            connection.execute(
                _receipts.insert().values(
                    tx_hash=receipt.tx_hash,
                    intent_id=receipt.intent_id,
                    kind=receipt.kind.value,
                    block=receipt.block,
                    block_hash=receipt.block_hash,
                    timestamp=receipt.timestamp,
                    success=receipt.success,
                    gas_used=receipt.gas_used,
                    effective_gas_price_wei=receipt.effective_gas_price_wei,
                    realised_profit_raw=receipt.realised_profit_raw,
                )
            )
            self._note(
                connection,
                receipt.intent_id,
                "receipt",
                f"{receipt.tx_hash} block {receipt.block} {receipt.block_hash} "
                f"{'success' if receipt.success else 'reverted'}",
            )
            self._move(connection, receipt.intent_id, IntentState.MINED)

    def forget_receipt(self, intent_id: str, note: str) -> None:
        """Take a receipt back whose block is no longer canonical; the intent becomes SENT again."""
        with self._writing() as connection:
            connection.execute(_receipts.delete().where(_receipts.c.intent_id == intent_id))
            self._note(connection, intent_id, "reorganised", note)
            self._move(connection, intent_id, IntentState.SENT)

    def finalise(self, intent_id: str, state: IntentState, note: str = "") -> None:
        """Close an intent for good."""
        if state not in FINAL_STATES:
            raise ValueError(f"{state} is not final")
        with self._writing() as connection:
            if note:
                connection.execute(
                    _intents.update().where(_intents.c.intent_id == intent_id).values(note=_line(note))
                )
            self._move(connection, intent_id, state, note)

    def _move(self, connection: Connection, intent_id: str, state: IntentState, detail: str = "") -> None:
        before = IntentState(self._row(connection, intent_id)["state"])
        if before is state:
            return
        if state not in _MOVES[before]:
            raise ValueError(f"an intent cannot go from {before} to {state}")
        under_way = state in (IntentState.PREPARED, IntentState.SENT)
        connection.execute(
            _intents.update()
            .where(_intents.c.intent_id == intent_id)
            .values(
                state=state.value, holds_account=under_way and not self._has_successor(connection, intent_id)
            )
        )
        self._note(connection, intent_id, f"{before} -> {state}", detail)

    @staticmethod
    def _has_successor(connection: Connection, intent_id: str) -> bool:
        # After a reorganisation an intent is under way again, and a later one on its account may be too.
        # Their nonces keep them in the order that the contract saw them in before; the later one keeps the
        # account.
        mine = _intents.alias()
        query = (
            sa.select(sa.func.count())
            .select_from(
                _intents.join(
                    mine,
                    sa.and_(mine.c.protocol == _intents.c.protocol, mine.c.account == _intents.c.account),
                )
            )
            .where(mine.c.intent_id == intent_id, _intents.c.intent_id != intent_id, _intents.c.holds_account)
        )
        return bool(connection.execute(query).scalar_one())

    def _note(self, connection: Connection, intent_id: str, event: str, detail: str) -> None:
        connection.execute(
            _history.insert().values(
                intent_id=intent_id, at=self._clock.now(), event=event, detail=_line(detail)
            )
        )

    def _row(self, connection: Connection, intent_id: str) -> RowMapping:
        row = (
            connection.execute(_intents.select().where(_intents.c.intent_id == intent_id)).mappings().first()
        )
        if row is None:
            raise JournalError(f"journal {self.path} has no intent {intent_id}")
        return row

    # --------------------------------------------------------------------------------------------------- read

    def next_nonce(self) -> int | None:
        """Return the nonce behind the last one given out; None when none was."""
        with self._reading() as connection:
            newest = connection.execute(sa.select(sa.func.max(_intents.c.nonce))).scalar()
        return None if newest is None else int(newest) + 1

    def intent(self, intent_id: str) -> Intent:
        """Return one intent."""
        with self._reading() as connection:
            return self._intent(self._row(connection, intent_id))

    def intents(self, states: Sequence[IntentState] = (), *, limit: int | None = None) -> list[Intent]:
        """Return intents by nonce, all or those in `states`; with `limit` the newest of them."""
        query = _intents.select().order_by(_intents.c.nonce.desc())
        if states:
            query = query.where(_intents.c.state.in_([s.value for s in states]))
        if limit is not None:
            query = query.limit(limit)
        with self._reading() as connection:
            rows = connection.execute(query).mappings().all()
        return [self._intent(row) for row in reversed(rows)]

    def intents_at(self, first_nonce: int, last_nonce: int) -> list[Intent]:
        """Return the intents at nonces `first_nonce` to `last_nonce`, both included."""
        query = _intents.select().where(_intents.c.nonce.between(first_nonce, last_nonce))
        with self._reading() as connection:
            rows = connection.execute(query.order_by(_intents.c.nonce)).mappings().all()
        return [self._intent(row) for row in rows]

    def open_intents(self) -> list[Intent]:
        """Return the intents that are not final, by nonce."""
        return self.intents([s for s in IntentState if s not in FINAL_STATES])

    def in_flight(self) -> frozenset[tuple[str, str]]:
        """Return the (protocol, account) pairs that have an intent on its way to be mined."""
        query = sa.select(_intents.c.protocol, _intents.c.account).where(_intents.c.holds_account)
        with self._reading() as connection:
            return frozenset((str(p), str(a)) for p, a in connection.execute(query))

    def mined_above(self, block: int) -> list[Intent]:
        """Return the intents whose action is in a block above `block`, by nonce, final ones too.

        To whoever decides on `block` they are still under way: what they do is not in its state.
        """
        query = (
            sa.select(_intents)
            .join(_receipts, _receipts.c.intent_id == _intents.c.intent_id)
            .where(_receipts.c.block > block, _receipts.c.kind == AttemptKind.ACTION.value)
            .order_by(_intents.c.nonce)
        )
        with self._reading() as connection:
            rows = connection.execute(query).mappings().all()
        return [self._intent(row) for row in rows]

    def attempts(self, intent_ids: Sequence[str]) -> dict[str, list[Attempt]]:
        """Return the signed attempts of intents, oldest first."""
        found: dict[str, list[Attempt]] = {intent_id: [] for intent_id in intent_ids}
        query = _attempts.select().where(_attempts.c.intent_id.in_(list(intent_ids))).order_by(_attempts.c.id)
        for attempt in self._attempts(query):
            found[attempt.intent_id].append(attempt)
        return found

    def fillers(self, nonces: Sequence[int]) -> dict[int, list[Attempt]]:
        """Return the cancellations signed for nonces that no intent owns, oldest first."""
        found: dict[int, list[Attempt]] = {nonce: [] for nonce in nonces}
        query = (
            _attempts.select()
            .where(_attempts.c.intent_id.is_(None), _attempts.c.nonce.in_(list(nonces)))
            .order_by(_attempts.c.id)
        )
        for attempt in self._attempts(query):
            found[attempt.nonce].append(attempt)
        return found

    def _attempts(self, query: sa.Select[Any]) -> list[Attempt]:
        with self._reading() as connection:
            rows = connection.execute(query).mappings().all()
        return [self._attempt(row) for row in rows]

    def _attempt(self, row: RowMapping) -> Attempt:
        if "0x" + keccak(row["raw"]).hex() != row["tx_hash"]:
            raise JournalError(
                f"journal {self.path} is damaged: the bytes of {row['tx_hash']} have another hash",
                fix="restore the file from a backup; nothing was sent",
            )
        return Attempt(
            intent_id=row["intent_id"] or "",
            nonce=row["nonce"],
            kind=AttemptKind(row["kind"]),
            tx_hash=row["tx_hash"],
            raw=row["raw"],
            max_fee_wei=row["max_fee_wei"],
            priority_fee_wei=row["priority_fee_wei"],
            created_block=row["created_block"],
        )

    def sends(self, tx_hash: str) -> list[SendRecord]:
        """Return the hand-overs of one transaction, oldest first."""
        query = _sends.select().where(_sends.c.tx_hash == tx_hash).order_by(_sends.c.id)
        with self._reading() as connection:
            rows = connection.execute(query).mappings().all()
        return [
            SendRecord(r["tx_hash"], r["block"], r["at"], SendOutcome(r["outcome"]), r["detail"])
            for r in rows
        ]

    def last_sends(self, tx_hashes: Sequence[str]) -> dict[str, SendRecord]:
        """Return the newest hand-over of each transaction that had one."""
        newest = (
            sa.select(sa.func.max(_sends.c.id))
            .where(_sends.c.tx_hash.in_(list(tx_hashes)))
            .group_by(_sends.c.tx_hash)
        )
        with self._reading() as connection:
            rows = connection.execute(_sends.select().where(_sends.c.id.in_(newest))).mappings().all()
        return {r["tx_hash"]: _send_record(r) for r in rows}

    def receipt(self, intent_id: str) -> Receipt | None:
        """Return the receipt of an intent; None when it has none."""
        found = self._receipts(_receipts.select().where(_receipts.c.intent_id == intent_id))
        return found[0] if found else None

    def receipts(self, *, since_timestamp: int = 0) -> list[Receipt]:
        """Return receipts in blocks no older than `since_timestamp`, in chain order."""
        query = (
            _receipts.select()
            .where(_receipts.c.timestamp >= since_timestamp)
            .order_by(_receipts.c.block, _receipts.c.tx_hash)
        )
        return self._receipts(query)

    def losses(self, *, since_timestamp: int) -> list[Loss]:
        """Return what cost more than it earned in blocks no older than `since_timestamp`, in chain order.

        What a success earned is valued at the least that its budget says: that is the simulated profit in
        wei, or what the configuration allows for gas where that is less. A success from inventory sells
        nothing, so what it earned is not known here, and it is no loss; one that does not even say that it
        was a liquidation earned nothing.
        """
        query = (
            sa.select(
                _receipts,
                _intents.c.account,
                _intents.c.protocol,
                _intents.c.budget_wei,
                _intents.c.simulated_profit_raw,
            )
            .join(_intents, _intents.c.intent_id == _receipts.c.intent_id)
            .where(_receipts.c.timestamp >= since_timestamp)
            .order_by(_receipts.c.block, _receipts.c.tx_hash)
        )
        with self._reading() as connection:
            rows = connection.execute(query).mappings().all()
        return [loss for row in rows if (loss := _loss(row)) is not None]

    def _receipts(self, query: sa.Select[Any]) -> list[Receipt]:
        with self._reading() as connection:
            rows = connection.execute(query).mappings().all()
        return [Receipt(**{**row, "kind": AttemptKind(row["kind"])}) for row in rows]

    def history(self, intent_id: str) -> list[HistoryEntry]:
        """Return all that happened to an intent, oldest first."""
        query = _history.select().where(_history.c.intent_id == intent_id).order_by(_history.c.id)
        with self._reading() as connection:
            rows = connection.execute(query).mappings().all()
        return [HistoryEntry(r["intent_id"], r["at"], r["event"], r["detail"]) for r in rows]

    def counts(self) -> dict[IntentState, int]:
        """Return how many intents are in each state, zeros included."""
        query = sa.select(_intents.c.state, sa.func.count()).group_by(_intents.c.state)
        with self._reading() as connection:
            found = {IntentState(state): int(n) for state, n in connection.execute(query)}
        return {state: found.get(state, 0) for state in IntentState}

    def tx_hashes(self) -> frozenset[str]:
        """Return every hash that was ever signed: a superset of all that a node has seen of us."""
        with self._reading() as connection:
            return frozenset(str(h) for (h,) in connection.execute(sa.select(_attempts.c.tx_hash)))

    def _intent(self, row: RowMapping) -> Intent:
        values = {key: row[key] for key in row if key not in ("sequence", "holds_account")}
        return Intent(
            **{**values, "state": IntentState(row["state"])},
            chain_id=self.identity.chain_id,
            sender=self.identity.sender,
        )

    # ---------------------------------------------------------------------------------------------- decisions

    def record_decisions(self, block: int, timestamp: int, verdicts: Sequence[Verdict]) -> int:
        """Write the decisions that differ from the last one on the same account; return how many did."""
        with self._mutex:
            last = self._decided()
            changed = []
            for verdict in verdicts:
                key = (verdict.protocol_margin.protocol, verdict.account)
                decision = (verdict.action.value, verdict.reason.value)
                if last.get(key) != decision:
                    changed.append((key, decision, verdict))
            if not changed:
                return 0
            with self._writing() as connection:
                connection.execute(
                    _decisions.insert(),
                    [
                        {
                            "block": block,
                            "timestamp": timestamp,
                            "protocol": protocol,
                            "account": account,
                            "action": action,
                            "reason": reason,
                            "health_factor_wad": verdict.protocol_margin.health_factor_wad,
                            "detail": _line(verdict.detail),
                        }
                        for (protocol, account), (action, reason), verdict in changed
                    ],
                )
            last.update({key: decision for key, decision, _ in changed})
            return len(changed)

    def decisions(self, account: str | None = None, *, limit: int | None = None) -> list[DecisionEntry]:
        """Return decisions, oldest first, of one account or of all; with `limit` the newest of them."""
        query = _decisions.select().order_by(_decisions.c.id.desc())
        if account is not None:
            query = query.where(_decisions.c.account == account)
        if limit is not None:
            query = query.limit(limit)
        with self._reading() as connection:
            rows = connection.execute(query).mappings().all()
        return [DecisionEntry(**{k: row[k] for k in row if k != "id"}) for row in reversed(rows)]

    def _decided(self) -> dict[tuple[str, str], tuple[str, str]]:
        if self._last_decision is None:
            query = sa.select(
                _decisions.c.protocol, _decisions.c.account, _decisions.c.action, _decisions.c.reason
            ).order_by(_decisions.c.id)
            with self._reading() as connection:
                self._last_decision = {(p, a): (action, r) for p, a, action, r in connection.execute(query)}
        return self._last_decision

    # ---------------------------------------------------------------------------------------------- discovery

    def scan_state(self, protocol: str) -> ScanState:
        """Return how far discovery of a protocol has come."""
        query = (
            sa.select(_scanned.c.block, _scanned.c.block_hash)
            .where(_scanned.c.protocol == protocol)
            .order_by(_scanned.c.block.desc())
        )
        with self._reading() as connection:
            return ScanState(tuple((int(b), str(h)) for b, h in connection.execute(query)))

    def save_scan(
        self, protocol: str, blocks: Sequence[tuple[int, str]], borrowers: Mapping[str, int]
    ) -> None:
        """Commit scanned blocks together with the borrowers found in them.

        Parameters
        ----------
        blocks
            Number and hash, ascending; after a back-fill its last block is enough.
        borrowers
            Account to the block in which it was found; known accounts are left as they are.
        """
        with self._writing() as connection:
            for block, block_hash in blocks:
                connection.execute(
                    _scanned.insert()
                    .prefix_with("OR REPLACE")
                    .values(protocol=protocol, block=block, block_hash=block_hash)
                )
            if borrowers:
                connection.execute(
                    _borrowers.insert().prefix_with("OR IGNORE"),
                    [{"protocol": protocol, "account": a, "first_block": b} for a, b in borrowers.items()],
                )
            if blocks:
                connection.execute(
                    _scanned.delete().where(
                        _scanned.c.protocol == protocol, _scanned.c.block <= blocks[-1][0] - RECENT_BLOCKS
                    )
                )

    def rewind_scan(self, protocol: str, to_block: int) -> None:
        """Forget the scanned blocks above `to_block`, which a reorganisation removed.

        Borrowers found in them stay: one who has no debt after all costs a read, one forgotten costs a miss.
        """
        with self._writing() as connection:
            connection.execute(
                _scanned.delete().where(_scanned.c.protocol == protocol, _scanned.c.block > to_block)
            )

    def borrowers(self, protocol: str) -> list[str]:
        """Return the known borrowers of a protocol, in the order of discovery."""
        query = (
            sa.select(_borrowers.c.account)
            .where(_borrowers.c.protocol == protocol)
            .order_by(_borrowers.c.first_block, _borrowers.c.account)
        )
        with self._reading() as connection:
            return [str(a) for (a,) in connection.execute(query)]


_MOVES: Final[Mapping[IntentState, frozenset[IntentState]]] = {
    IntentState.PREPARED: frozenset({IntentState.SENT, IntentState.MINED, IntentState.ABANDONED}),
    IntentState.SENT: frozenset({IntentState.MINED, IntentState.ABANDONED}),
    IntentState.MINED: frozenset(
        {IntentState.SENT, IntentState.CONFIRMED, IntentState.REVERTED, IntentState.CANCELLED}
    ),
    **{state: frozenset() for state in FINAL_STATES},
}


def _loss(row: RowMapping) -> Loss | None:
    """Return what a receipt cost beyond what it earned, None where it did not."""
    kind, cost_wei = AttemptKind(row["kind"]), row["gas_used"] * row["effective_gas_price_wei"]
    earned_wei = 0
    if row["success"] and kind is AttemptKind.ACTION:
        profit_raw, simulated_raw = row["realised_profit_raw"], row["simulated_profit_raw"]
        if profit_raw == 0 or simulated_raw <= 0:
            return None
        earned_wei = (profit_raw or 0) * row["budget_wei"] // simulated_raw
    if cost_wei <= earned_wei:
        return None
    return Loss(
        account=row["account"],
        protocol=row["protocol"],
        kind=kind,
        block=row["block"],
        timestamp=row["timestamp"],
        gas_cost_wei=cost_wei - earned_wei,
        reverted=kind is AttemptKind.ACTION and not row["success"],
    )


def _send_record(row: RowMapping) -> SendRecord:
    return SendRecord(row["tx_hash"], row["block"], row["at"], SendOutcome(row["outcome"]), row["detail"])


def _line(text: str) -> str:
    return " ".join(text.split())[:500]


# ------------------------------------------------------------------------------------------------------ files


@dataclass(frozen=True, slots=True)
class _FileLock:
    """An advisory lock that the kernel drops with the process, also after kill -9."""

    descriptor: int

    @classmethod
    def acquire(cls, path: Path) -> _FileLock:
        lock_path = path.with_name(path.name + ".lock")
        try:
            descriptor = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise JournalError(
                f"cannot open a journal at {path}: {error.strerror}", fix="check that the folder is writable"
            ) from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.read(descriptor, 32).decode("ascii", "replace").strip() or "unknown"
            os.close(descriptor)
            raise JournalError(
                f"journal {path} is in use by process {holder}",
                fix="stop that keeper, or give this one a journal and a key of its own",
            ) from None
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        return cls(descriptor)

    def release(self) -> None:
        # The file stays: removing it would let a third process lock a new file of the same name.
        os.close(self.descriptor)


def _uri(path: Path, options: str) -> str:
    return f"file:{quote(str(path.absolute()))}?{options}"


def _create(path: Path, identity: Identity, clock: Clock) -> None:
    """Write a complete empty journal beside `path` and move it there, so that no half of one is ever seen."""
    leftover = path.with_name(path.name + "-wal")
    if leftover.exists():
        raise JournalError(
            f"journal {path} is missing but {leftover.name} is there",
            fix="restore both from one backup, or move the latter away",
        )
    fresh = path.with_name(f"{path.name}.new-{os.getpid()}")
    try:
        fresh.unlink(missing_ok=True)
        # In the rollback mode of the start everything is in the main file; the switch to WAL comes last.
        engine = _engine(fresh, read_only=False, create=True)
        with engine.connect() as connection, connection.begin():
            _metadata.create_all(connection)
            connection.execute(
                _identity.insert().values(
                    uuid=str(uuid.uuid4()),
                    chain_id=identity.chain_id,
                    genesis_hash=identity.genesis_hash,
                    sender=identity.sender,
                    created_at=clock.now(),
                )
            )
            connection.exec_driver_sql(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.exec_driver_sql(f"PRAGMA user_version = {SCHEMA_VERSION}")
        engine.dispose()
        with contextlib.closing(sqlite3.connect(fresh)) as raw:
            raw.execute("PRAGMA journal_mode = WAL")
        os.replace(fresh, path)
        _sync_folder(path.parent)
    except (OSError, sqlite3.Error, sa.exc.DBAPIError) as error:
        reason = error.orig if isinstance(error, sa.exc.DBAPIError) else error
        raise JournalError(f"cannot create a journal at {path}: {reason}") from None
    finally:
        fresh.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _inspect(path: Path) -> tuple[Identity, str]:
    """Return whose journal the file is, without changing a byte of it."""
    damaged = "restore it from a backup, or move it away to start anew"
    try:
        with path.open("rb") as file:
            magic = file.read(16)
    except OSError as error:
        raise JournalError(f"cannot read journal {path}: {error.strerror}") from None
    if magic != b"SQLite format 3\0":
        raise JournalError(f"{path} is not a journal: not a SQLite file", fix=damaged)
    wal = path.with_name(path.name + "-wal")
    # What stands only in the WAL is needed too; without one nothing beside the file need be created.
    options = "mode=ro" if wal.exists() and wal.stat().st_size else "mode=ro&immutable=1"
    try:
        with contextlib.closing(sqlite3.connect(_uri(path, options), uri=True)) as raw:
            (application,) = raw.execute("PRAGMA application_id").fetchone()
            (version,) = raw.execute("PRAGMA user_version").fetchone()
            if application != APPLICATION_ID:
                raise JournalError(f"{path} is a SQLite file of another program", fix="choose another path")
            if version > SCHEMA_VERSION:
                raise JournalError(
                    f"journal {path} has schema {version}, this version knows {SCHEMA_VERSION}",
                    fix="upgrade marginline",
                )
            problems = [str(row[0]) for row in raw.execute("PRAGMA quick_check(1)")]
            if problems != ["ok"]:
                raise JournalError(f"journal {path} is damaged: {problems[0]}", fix=damaged)
            journal_uuid, chain_id, genesis_hash, sender = raw.execute(
                "SELECT uuid, chain_id, genesis_hash, sender FROM identity"
            ).fetchone()
    except sqlite3.Error as error:
        raise JournalError(f"journal {path} is damaged: {error}", fix=damaged) from None
    except (TypeError, ValueError):
        raise JournalError(f"journal {path} is damaged: no identity", fix=damaged) from None
    return Identity(int(chain_id), str(genesis_hash), str(sender)), str(journal_uuid)


def require_same(path: Path, found: Identity, wanted: Identity) -> None:
    """Refuse a journal of another chain or sender.

    Raises
    ------
    JournalError
        Naming what differs.
    """
    fix = "choose another path, or run with the key and chain that it belongs to"
    for what in ("chain_id", "genesis_hash", "sender"):
        has, wants = getattr(found, what), getattr(wanted, what)
        if has != wants:
            raise JournalError(
                f"journal {path} is foreign: its {what.replace('_', ' ')} is {has}, not {wants}", fix=fix
            )


def _engine(path: Path, *, read_only: bool, create: bool = False) -> Engine:
    mode = "ro" if read_only else "rwc" if create else "rw"

    def connect() -> sqlite3.Connection:
        # isolation_level None: transactions begin where we say, not where the driver guesses.
        raw = sqlite3.connect(
            _uri(path, f"mode={mode}"), uri=True, check_same_thread=False, isolation_level=None
        )
        raw.execute("PRAGMA busy_timeout = 5000")
        raw.execute("PRAGMA foreign_keys = ON")
        if not read_only:
            raw.execute("PRAGMA synchronous = FULL")
            # On macOS only this flushes the drive's own cache; elsewhere it means nothing.
            raw.execute("PRAGMA fullfsync = ON")
            raw.execute("PRAGMA checkpoint_fullfsync = ON")
        return raw

    engine = sa.create_engine("sqlite://", creator=connect, poolclass=StaticPool)

    @sa.event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")

    return engine
