"""The write-ahead journal: what it refuses, what survives, what can never be written."""

from __future__ import annotations

import os
import sqlite3
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from eth_utils.crypto import keccak

from contracts_abi.errors import JournalError
from keeper.clock import ManualClock
from keeper.journal import RECENT_BLOCKS, SCHEMA_VERSION, Identity, Journal, compute_intent_id
from keeper.rpc import SendOutcome, SendResult
from keeper.types import Attempt, AttemptKind, IntentState, Order, Receipt
from simulation.types import Action, MarginReport, MarginStatus, Reason, Verdict

SENDER = "0x" + "5E" * 20
IDENTITY = Identity(31337, "0x" + "ab" * 32, SENDER)
ALICE, BOB, CAROL, DAVE = ("0x" + byte * 20 for byte in ("a1", "b0", "c4", "d4"))
WETH, USDC = "0x" + "11" * 20, "0x" + "22" * 20


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.sqlite"


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    with Journal.open(path, IDENTITY, clock=ManualClock()) as opened:
        yield opened


def make_order(journal: Journal, account: str = ALICE, *, block: int = 7) -> Order:
    intent_id = journal.new_intent_id(
        protocol="aave-v3", account=account, debt_asset=USDC, collateral_asset=WETH, decided_block=block
    )
    return Order(
        intent_id=intent_id,
        account=account,
        protocol="aave-v3",
        debt_asset=USDC,
        collateral_asset=WETH,
        debt_to_cover_raw=2**200 + 1,
        simulated_profit_raw=5,
        min_profit_raw=-3,
        decided_block=block,
        deadline_block=block + 8,
        to=WETH,
        data=b"\x01\x02",
        gas_limit=500_000,
        budget_wei=10**18,
    )


def make_attempt(
    order: Order, nonce: int, *, kind: AttemptKind = AttemptKind.ACTION, salt: int = 0
) -> Attempt:
    raw = f"{order.intent_id}/{nonce}/{kind}/{salt}".encode()
    return Attempt(
        intent_id=order.intent_id,
        nonce=nonce,
        kind=kind,
        tx_hash="0x" + keccak(raw).hex(),
        raw=raw,
        max_fee_wei=2**70,
        priority_fee_wei=1,
        created_block=order.decided_block,
    )


def make_receipt(attempt: Attempt, *, success: bool = True, block: int = 9) -> Receipt:
    return Receipt(
        intent_id=attempt.intent_id,
        tx_hash=attempt.tx_hash,
        kind=attempt.kind,
        block=block,
        block_hash="0x" + "cd" * 32,
        timestamp=1_600_000_000,
        success=success,
        gas_used=300_000,
        effective_gas_price_wei=10**9,
        realised_profit_raw=2**130,
    )


def write(journal: Journal, account: str = ALICE, nonce: int = 0) -> tuple[Order, Attempt]:
    order = make_order(journal, account)
    attempt = make_attempt(order, nonce)
    journal.write_ahead([(order, attempt)])
    return order, attempt


def test_intent_comes_back_with_all_it_was_written_with(path: Path, journal: Journal) -> None:
    order, attempt = write(journal, nonce=41)
    journal.close()

    with Journal.open(path, IDENTITY) as again:
        (intent,) = again.open_intents()
        assert intent.state is IntentState.PREPARED
        assert (intent.chain_id, intent.sender, intent.nonce) == (31337, SENDER, 41)
        assert intent.debt_to_cover_raw == 2**200 + 1
        assert intent.min_profit_raw == -3
        assert (intent.to, intent.data, intent.gas_limit) == (order.to, order.data, order.gas_limit)
        assert again.attempts([order.intent_id]) == {order.intent_id: [attempt]}
        assert again.next_nonce() == 42
        assert again.tx_hashes() == {attempt.tx_hash}


def test_second_intent_under_way_for_an_account_is_refused_and_nothing_of_the_bundle_is_written(
    journal: Journal,
) -> None:
    write(journal, ALICE, nonce=0)
    bob, alice = make_order(journal, BOB), make_order(journal, ALICE)

    with pytest.raises(JournalError, match="UNIQUE"):
        journal.write_ahead([(bob, make_attempt(bob, 1)), (alice, make_attempt(alice, 2))])

    assert journal.in_flight() == {("aave-v3", ALICE)}
    assert journal.next_nonce() == 1


def test_account_is_free_again_once_its_intent_is_mined(journal: Journal) -> None:
    first, attempt = write(journal, ALICE, nonce=0)
    journal.record_receipt(make_receipt(attempt))
    assert journal.in_flight() == frozenset()

    second, _ = write(journal, ALICE, nonce=1)
    journal.forget_receipt(first.intent_id, "reorganised")

    assert [i.state for i in journal.open_intents()] == [IntentState.SENT, IntentState.PREPARED]
    third = make_order(journal, ALICE)
    with pytest.raises(JournalError, match="UNIQUE"):
        journal.write_ahead([(third, make_attempt(third, 2))])
    journal.record_receipt(make_receipt(attempt))
    journal.finalise(first.intent_id, IntentState.CONFIRMED)
    assert journal.in_flight() == {("aave-v3", ALICE)}
    journal.finalise(second.intent_id, IntentState.ABANDONED)
    assert journal.in_flight() == frozenset()


def test_nonce_is_never_given_out_twice(journal: Journal) -> None:
    write(journal, ALICE, nonce=5)
    bob = make_order(journal, BOB)

    with pytest.raises(JournalError, match=r"UNIQUE.*nonce"):
        journal.write_ahead([(bob, make_attempt(bob, 5))])


@pytest.mark.parametrize(
    ("outcome", "state"),
    [
        (SendOutcome.ACCEPTED, IntentState.SENT),
        (SendOutcome.KNOWN, IntentState.SENT),
        (SendOutcome.AMBIGUOUS, IntentState.SENT),
        (SendOutcome.UNDERPRICED, IntentState.PREPARED),
        (SendOutcome.INSUFFICIENT_FUNDS, IntentState.PREPARED),
        (SendOutcome.NONCE_TOO_LOW, IntentState.PREPARED),
        (SendOutcome.REFUSED, IntentState.PREPARED),
    ],
)
def test_send_outcome_decides_whether_a_node_may_hold_the_bytes(
    journal: Journal, outcome: SendOutcome, state: IntentState
) -> None:
    order, attempt = write(journal)

    journal.record_sends(8, [SendResult(attempt.tx_hash, outcome, "two\nlines")])

    assert journal.intent(order.intent_id).state is state
    (record,) = journal.sends(attempt.tx_hash)
    assert (record.outcome, record.block, record.detail) == (outcome, 8, "two lines")


def test_reorganisation_takes_the_receipt_back_and_the_new_one_replaces_it(journal: Journal) -> None:
    order, attempt = write(journal)
    cancel = make_attempt(order, 0, kind=AttemptKind.CANCEL)
    journal.add_attempts([cancel])
    journal.record_receipt(make_receipt(attempt))
    assert journal.intent(order.intent_id).state is IntentState.MINED

    journal.forget_receipt(order.intent_id, "block 9 was replaced")
    assert journal.intent(order.intent_id).state is IntentState.SENT
    assert journal.receipt(order.intent_id) is None

    journal.record_receipt(make_receipt(cancel, block=10))
    journal.finalise(order.intent_id, IntentState.CANCELLED, "deadline passed")
    receipt = journal.receipt(order.intent_id)
    assert receipt is not None
    assert (receipt.kind, receipt.block, receipt.realised_profit_raw) == (AttemptKind.CANCEL, 10, 2**130)
    events = [entry.event for entry in journal.history(order.intent_id)]
    assert events == [
        *("signed action", "signed cancel", "receipt", "prepared -> mined"),
        *("reorganised", "mined -> sent", "receipt", "sent -> mined", "mined -> cancelled"),
    ]


def test_final_intent_cannot_move(journal: Journal) -> None:
    order, attempt = write(journal)
    journal.record_receipt(make_receipt(attempt, success=False))
    journal.finalise(order.intent_id, IntentState.REVERTED)

    with pytest.raises(ValueError, match="cannot go from reverted"):
        journal.forget_receipt(order.intent_id, "too late")
    with pytest.raises(ValueError, match="not open"):
        journal.add_attempts([make_attempt(order, 0, salt=1)])
    assert journal.receipt(order.intent_id) is not None


def test_transaction_is_all_or_nothing(journal: Journal) -> None:
    def first_half() -> None:
        with journal.transaction():
            write(journal)
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        first_half()

    assert journal.open_intents() == []


def test_intent_id_depends_on_every_part_of_it() -> None:
    base: dict[str, Any] = {
        "protocol": "p",
        "account": ALICE,
        "debt_asset": USDC,
        "collateral_asset": WETH,
        "decided_block": 1,
    }
    ids = {compute_intent_id(IDENTITY, "u", 1, **base)}
    for change in (
        *({"protocol": "q"}, {"account": BOB}, {"debt_asset": WETH}),
        *({"collateral_asset": USDC}, {"decided_block": 2}),
    ):
        ids.add(compute_intent_id(IDENTITY, "u", 1, **(base | change)))
    ids.add(compute_intent_id(IDENTITY, "u", 2, **base))
    ids.add(compute_intent_id(IDENTITY, "v", 1, **base))
    for other in (
        replace(IDENTITY, chain_id=1),
        replace(IDENTITY, sender=BOB),
    ):
        ids.add(compute_intent_id(other, "u", 1, **base))
    assert len(ids) == 10


def test_sequence_goes_on_after_reopening(path: Path, journal: Journal) -> None:
    first, _ = write(journal, ALICE, nonce=0)
    journal.close()
    with Journal.open(path, IDENTITY) as again:
        second = make_order(again, ALICE)
    assert first.intent_id != second.intent_id


# ---------------------------------------------------------------------------------------------- refused files


def refused(path: Path, identity: Identity = IDENTITY) -> str:
    """Return the one line with which a journal is refused, and check that the file is left as it was."""
    before = path.read_bytes()
    beside = set(path.parent.iterdir())
    with pytest.raises(JournalError) as caught:
        Journal.open(path, identity)
    text = str(caught.value)
    assert "\n" not in text
    assert path.read_bytes() == before
    assert set(path.parent.iterdir()) - beside <= {path.with_name(path.name + ".lock")}
    return text


def closed_journal(path: Path, intents: int = 0) -> None:
    with Journal.open(path, IDENTITY) as journal:
        for nonce in range(intents):
            write(journal, f"0x{nonce:040x}", nonce)


@pytest.mark.parametrize(
    "content", [b"", b"garbage", b"\0" * 4096, b"SQLite format 3\0", b"SQLite format 3\0" + b"x" * 8000]
)
def test_garbage_is_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert "journal" in refused(path)


def test_truncated_file_is_refused(path: Path) -> None:
    closed_journal(path, intents=40)
    whole = path.read_bytes()
    for keep in (100, 5000, len(whole) // 2 // 4096 * 4096, len(whole) - 4096):
        path.write_bytes(whole[:keep])
        assert "damaged" in refused(path)


def test_damaged_page_is_refused(path: Path) -> None:
    closed_journal(path, intents=40)
    content = bytearray(path.read_bytes())
    page = 4096 * 3
    content[page : page + 4096] = os.urandom(16) * 256
    path.write_bytes(content)
    assert "damaged" in refused(path)


def test_foreign_database_is_refused(path: Path) -> None:
    with sqlite3.connect(path) as raw:
        raw.execute("CREATE TABLE intents (x)")
    raw.close()
    assert "another program" in refused(path)


def test_newer_schema_is_refused_with_the_fix(path: Path) -> None:
    closed_journal(path)
    content = bytearray(path.read_bytes())
    struct.pack_into(">I", content, 60, SCHEMA_VERSION + 1)
    path.write_bytes(content)
    assert "upgrade" in refused(path)


@pytest.mark.parametrize(
    ("identity", "names"),
    [
        (replace(IDENTITY, chain_id=1), "chain id is 31337, not 1"),
        (replace(IDENTITY, genesis_hash="0x" + "00" * 32), "genesis hash"),
        (replace(IDENTITY, sender=BOB), f"sender is {SENDER}"),
    ],
)
def test_journal_of_another_chain_or_sender_is_refused(path: Path, identity: Identity, names: str) -> None:
    closed_journal(path, intents=1)
    assert names in refused(path, identity)


def test_wal_without_its_journal_is_refused(path: Path) -> None:
    path.with_name(path.name + "-wal").write_bytes(b"what is left")
    with pytest.raises(JournalError, match="is missing but"):
        Journal.open(path, IDENTITY)
    assert not path.exists()


def left_by_a_crash(journal: Journal, folder: Path) -> Path:
    """Copy the files as a crash would leave them: the WAL not folded in, its index gone."""
    folder.mkdir()
    for name in (journal.path.name, journal.path.name + "-wal"):
        (folder / name).write_bytes((journal.path.parent / name).read_bytes())
    return folder / journal.path.name


def test_what_a_crash_leaves_opens_with_all_that_was_committed(tmp_path: Path, journal: Journal) -> None:
    for nonce in range(3):
        write(journal, f"0x{nonce:040x}", nonce)
    left = left_by_a_crash(journal, tmp_path / "left")
    with Journal.read_only(left) as reader:
        assert reader.next_nonce() == 3
    with Journal.open(left, IDENTITY) as again:
        assert len(again.open_intents()) == 3


def test_torn_last_commit_falls_back_to_the_one_before(tmp_path: Path, journal: Journal) -> None:
    write(journal, ALICE, 0)
    whole = journal.path.with_name(journal.path.name + "-wal").stat().st_size
    write(journal, BOB, 1)
    left = left_by_a_crash(journal, tmp_path / "left")
    wal = left.with_name(left.name + "-wal")
    for size in (wal.stat().st_size - 1, whole + 100):
        os.truncate(wal, size)
        with Journal.read_only(left) as reader:
            assert [intent.account for intent in reader.open_intents()] == [ALICE]
    with Journal.open(left, IDENTITY) as again:
        write(again, BOB, 1)


def test_path_that_cannot_be_a_journal_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="Is a directory"):
        Journal.open(tmp_path, IDENTITY)
    with pytest.raises(JournalError, match="No such file"):
        Journal.open(tmp_path / "nowhere" / "journal.sqlite", IDENTITY)


def test_second_keeper_is_told_who_holds_the_journal(path: Path, journal: Journal) -> None:
    with pytest.raises(JournalError, match=f"in use by process {os.getpid()}"):
        Journal.open(path, IDENTITY)
    journal.close()
    Journal.open(path, IDENTITY).close()


def test_reader_works_beside_the_keeper_and_cannot_write(path: Path, journal: Journal) -> None:
    write(journal)
    with Journal.read_only(path) as reader:
        assert len(reader.open_intents()) == 1
        with pytest.raises(JournalError, match="readonly"):
            reader.finalise(reader.open_intents()[0].intent_id, IntentState.ABANDONED)
    assert len(journal.open_intents()) == 1


def test_bytes_that_do_not_match_their_hash_are_damage(path: Path) -> None:
    with Journal.open(path, IDENTITY) as journal:
        order, _ = write(journal)
    with sqlite3.connect(path) as raw:
        raw.execute("UPDATE attempts SET raw = x'00'")
    raw.close()
    with Journal.open(path, IDENTITY) as journal, pytest.raises(JournalError, match="another hash"):
        journal.attempts([order.intent_id])


def test_scan_state_rewinds_and_keeps_the_borrowers(journal: Journal) -> None:
    journal.save_scan("p", [(1, "0x01"), (2, "0x02")], {ALICE: 1})
    journal.save_scan("p", [(3, "0x03")], {ALICE: 3, BOB: 3})
    assert journal.scan_state("p").recent == ((3, "0x03"), (2, "0x02"), (1, "0x01"))

    journal.rewind_scan("p", 1)
    journal.save_scan("p", [(2, "0x22")], {})

    assert journal.scan_state("p").recent == ((2, "0x22"), (1, "0x01"))
    assert journal.scan_state("q").block is None
    assert journal.borrowers("p") == [ALICE, BOB]


def test_scan_state_keeps_a_bounded_history(journal: Journal) -> None:
    journal.save_scan("p", [(b, hex(b)) for b in range(RECENT_BLOCKS + 50)], {})
    recent = journal.scan_state("p").recent
    assert len(recent) == RECENT_BLOCKS
    assert recent[0][0] == RECENT_BLOCKS + 49


def verdict(account: str, reason: Reason) -> Verdict:
    margin = MarginReport(*(account, "p", "m", 1, 2, MarginStatus.LIQUIDATABLE, 1, 1, None, None, 10**17, 8))
    return Verdict(account, Action.HOLD, reason, margin, None, "why")


def test_decisions_are_written_when_they_change(path: Path, journal: Journal) -> None:
    first = [verdict(ALICE, Reason.UNPROFITABLE), verdict(BOB, Reason.PROTOCOL_PRICE_LOW)]
    assert journal.record_decisions(1, 100, first) == 2
    assert journal.record_decisions(2, 112, first) == 0
    journal.close()
    with Journal.open(path, IDENTITY) as again:
        assert again.record_decisions(3, 124, [verdict(ALICE, Reason.LIQUIDATE), first[1]]) == 1
        assert [(d.block, d.reason) for d in again.decisions(ALICE)] == [
            (1, "unprofitable"),
            (3, "liquidate"),
        ]
        assert again.decisions(limit=1)[0].health_factor_wad == 10**17


def test_a_commit_waits_for_the_disk(journal: Journal) -> None:
    with journal._reading() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"


def test_losses_are_reverts_and_cancellations(journal: Journal) -> None:
    _, won = write(journal, ALICE, nonce=0)
    journal.record_receipt(make_receipt(won))
    bob, lost = write(journal, BOB, nonce=1)
    journal.record_receipt(make_receipt(lost, success=False))
    cancelled, _ = write(journal, ALICE, nonce=2)
    cancel = make_attempt(cancelled, 2, kind=AttemptKind.CANCEL)
    journal.add_attempts([cancel])
    journal.record_receipt(make_receipt(cancel, block=11))

    losses = journal.losses(since_timestamp=0)

    assert [(x.account, x.kind, x.block) for x in losses] == [
        (BOB, AttemptKind.ACTION, 9),
        (ALICE, AttemptKind.CANCEL, 11),
    ]
    assert losses[0].gas_cost_wei == 300_000 * 10**9
    assert journal.losses(since_timestamp=1_600_000_001) == []
    assert [r.intent_id for r in journal.receipts()][-1] == cancelled.intent_id
    assert bob.intent_id in {r.intent_id for r in journal.receipts()}


@pytest.mark.parametrize(
    ("realised_raw", "lost_wei"), [(1, 10**17), (2, None), (0, None), (None, 3 * 10**17)]
)
def test_a_success_is_a_loss_where_its_gas_cost_more_than_it_earned(
    journal: Journal, realised_raw: int | None, lost_wei: int | None
) -> None:
    """Simulated were 5 raw, worth the budget of an ether at least; from inventory nothing is sold.

    Without an event of ours nothing says that anything was earned.
    """
    _, attempt = write(journal)
    receipt = make_receipt(attempt)
    dear = replace(receipt, realised_profit_raw=realised_raw, effective_gas_price_wei=10**12)
    journal.record_receipt(dear)
    losses = journal.losses(since_timestamp=0)
    assert [(x.gas_cost_wei, x.reverted) for x in losses] == ([] if lost_wei is None else [(lost_wei, False)])


def test_what_was_mined_above_a_block_is_told_apart(journal: Journal) -> None:
    alice, won = write(journal, ALICE, nonce=0)
    journal.record_receipt(make_receipt(won, block=12))
    bob, lost = write(journal, BOB, nonce=1)
    journal.record_receipt(make_receipt(lost, block=13, success=False))
    cancelled, _ = write(journal, CAROL, nonce=2)
    cancel = make_attempt(cancelled, 2, kind=AttemptKind.CANCEL)
    journal.add_attempts([cancel])
    journal.record_receipt(make_receipt(cancel, block=14))
    write(journal, DAVE, nonce=3)
    assert [i.intent_id for i in journal.mined_above(11)] == [alice.intent_id, bob.intent_id]
    assert [i.intent_id for i in journal.mined_above(12)] == [bob.intent_id]
    assert journal.mined_above(13) == []
    journal.finalise(alice.intent_id, IntentState.CONFIRMED)
    assert [i.intent_id for i in journal.mined_above(11)] == [alice.intent_id, bob.intent_id]


def test_read_only_needs_a_file(path: Path) -> None:
    with pytest.raises(JournalError, match="no journal at"):
        Journal.read_only(path)
