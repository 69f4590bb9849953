"""Sending against a real node that loses requests, loses replies, reorganises and runs out of fees."""

from __future__ import annotations

import sqlite3
import traceback
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from eth_utils.crypto import keccak

from contracts_abi.errors import ChainError, JournalError
from keeper.config import Mode
from keeper.journal import Journal
from keeper.rpc import SendOutcome
from keeper.submit import Submission, TxEvent, TxEventKind
from keeper.types import FINAL_STATES, AttemptKind, IntentState
from simulation.chain.anvil import Anvil, AnvilOptions
from simulation.types import Reason
from tests.faults.bench import ETHER, GWEI, KEY, SENDER, Bench, running_bench
from tests.faults.proxy import Spoil


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with running_bench(tmp_path) as running:
        yield running


def submit(
    bench: Bench, count: int = 1, *, deadline_in: int = 8, budget_wei: int = ETHER // 10
) -> Submission:
    orders = [bench.order(i, deadline_in=deadline_in, budget_wei=budget_wei) for i in range(count)]
    return bench.submitter.submit(orders, bench.submitter.tick())


def follow(bench: Bench) -> list[TxEvent]:
    return bench.submitter.follow(bench.submitter.tick())


def settle(bench: Bench, blocks: int = 12) -> list[TxEvent]:
    """Mine and follow until nothing is open; a keeper that needs more blocks than that is stuck."""
    events = []
    for _ in range(blocks):
        bench.mine()
        events += follow(bench)
        if not bench.journal.open_intents():
            return events
    raise AssertionError(f"still open: {[(i.nonce, i.state) for i in bench.journal.open_intents()]}")


def kinds(events: list[TxEvent]) -> list[TxEventKind]:
    return [event.kind for event in events]


def states(bench: Bench) -> list[IntentState]:
    return [intent.state for intent in bench.journal.intents()]


def assert_executed_once_each(bench: Bench, count: int) -> None:
    """Check I1 and I2: each intent once on chain, and nothing sent that the journal does not know."""
    executed = bench.executed()
    assert executed == {intent.intent_id: 1 for intent in bench.journal.intents()}
    assert len(executed) == count
    sent = {"0x" + keccak(hexstr=raw).hex() for raw in bench.proxy.sent()}
    assert sent <= bench.journal.tx_hashes()


# -------------------------------------------------------------------------------------------- as it should be


def test_bundle_is_one_commit_one_batch_and_one_block(bench: Bench) -> None:
    seen_at_send: list[int] = []

    def look(methods: tuple[str, ...]) -> None:
        if "eth_sendRawTransaction" in methods:
            with Journal.read_only(bench.folder / "journal.sqlite") as reader:
                seen_at_send.append(len(reader.tx_hashes()))

    bench.proxy.before = look
    tick = bench.submitter.tick()
    orders = [bench.order(i) for i in range(7)]
    bench.proxy.posts.clear()

    submission = bench.submitter.submit(orders, tick)

    assert bench.proxy.posts == [("eth_sendRawTransaction",) * 7]
    assert seen_at_send == [7]
    assert [intent.nonce for intent in submission.intents] == list(range(7))
    assert submission.refused == ()
    events = settle(bench)
    assert kinds(events).count(TxEventKind.CONFIRMED) == 7
    receipts = bench.journal.receipts()
    assert {r.block for r in receipts} == {receipts[0].block}
    assert_executed_once_each(bench, 7)


def test_following_costs_no_round_trip_of_its_own(bench: Bench) -> None:
    submit(bench, 3)
    bench.mine()
    bench.proxy.posts.clear()
    for _ in range(4):
        follow(bench)
        bench.mine()
    assert len(bench.proxy.posts) == 4


def test_confirmed_only_at_the_confirmation_depth(bench: Bench) -> None:
    submit(bench)
    bench.mine()
    for _ in range(3):
        follow(bench)
        assert states(bench) == [IntentState.MINED]
        bench.mine()
    follow(bench)
    assert states(bench) == [IntentState.CONFIRMED]


def test_account_under_way_is_refused_and_free_once_mined(bench: Bench) -> None:
    submit(bench)
    (refusal,) = submit(bench).refused
    assert refusal.reason is Reason.DUPLICATE
    bench.mine()
    follow(bench)

    assert submit(bench).refused == ()
    settle(bench)
    assert_executed_once_each(bench, 2)


def test_two_orders_on_one_account_in_one_bundle(bench: Bench) -> None:
    tick = bench.submitter.tick()
    submission = bench.submitter.submit([bench.order(0), bench.order(0), bench.order(1)], tick)
    assert [r.reason for r in submission.refused] == [Reason.DUPLICATE]
    assert [i.nonce for i in submission.intents] == [0, 1]


def test_reverted_transaction_is_reverted_and_pays_gas(bench: Bench) -> None:
    submit(bench, deadline_in=1)
    bench.anvil.rpc.call("anvil_setCode", [bench.journal.intents()[0].to, "0x60006000fd"])
    events = settle(bench)
    assert kinds(events)[-1] is TxEventKind.REVERTED
    receipt = events[-1].receipt
    assert receipt is not None
    assert not receipt.success
    assert receipt.gas_cost_wei > 21_000 * GWEI
    assert receipt.realised_profit_raw is None


# ----------------------------------------------------------------------------------------------- lost answers


@pytest.mark.parametrize("spoil", list(Spoil))
@pytest.mark.parametrize("times", [1, 3])
def test_whatever_happens_to_a_send_each_intent_is_executed_once(
    tmp_path: Path, spoil: Spoil, times: int
) -> None:
    with running_bench(tmp_path, timeout_s=0.3) as bench:
        bench.proxy.spoil(spoil, times=times)
        submission = submit(bench, 3)
        expected = {Spoil.TWICE: SendOutcome.KNOWN}.get(spoil, SendOutcome.AMBIGUOUS)
        for intent in submission.intents:
            (attempt,) = bench.journal.attempts([intent.intent_id])[intent.intent_id]
            assert bench.journal.sends(attempt.tx_hash)[0].outcome is expected
            assert intent.state is IntentState.SENT
        settle(bench)
        assert states(bench) == [IntentState.CONFIRMED] * 3
        assert_executed_once_each(bench, 3)


@pytest.mark.parametrize("spoil", [s for s in Spoil if s is not Spoil.TWICE])
def test_spoiled_tick_changes_nothing(tmp_path: Path, spoil: Spoil) -> None:
    with running_bench(tmp_path, timeout_s=0.3) as bench:
        submit(bench, 2)
        bench.mine()
        before = [(i.nonce, i.state) for i in bench.journal.intents()]
        bench.proxy.spoil(spoil, "eth_getTransactionReceipt")
        with pytest.raises(ChainError) as caught:
            follow(bench)
        assert "\n" not in str(caught.value)
        assert [(i.nonce, i.state) for i in bench.journal.intents()] == before
        settle(bench)
        assert_executed_once_each(bench, 2)


def test_lost_reply_is_repeated_with_the_same_bytes_only(bench: Bench) -> None:
    bench.proxy.spoil(Spoil.LOSE_REPLY)
    submit(bench)
    follow(bench)
    first, second = bench.proxy.sent()
    assert first == second


def test_request_that_never_arrived_is_sent_at_the_next_head(bench: Bench) -> None:
    bench.proxy.spoil(Spoil.LOSE_REQUEST)
    submit(bench)
    bench.mine()
    assert kinds(follow(bench)) == [TxEventKind.SENT_AGAIN]
    bench.mine()
    assert kinds(follow(bench)) == [TxEventKind.MINED]


def test_nonces_go_on_from_the_journal_when_the_pool_has_lost_all(bench: Bench) -> None:
    bench.proxy.spoil(Spoil.LOSE_REQUEST)
    submit(bench, 2)
    tick = bench.submitter.tick()
    assert tick.sender is not None
    assert tick.sender.nonce_pending == 0
    (intent,) = bench.submitter.submit([bench.order(7)], tick).intents
    assert intent.nonce == 2
    settle(bench)
    assert_executed_once_each(bench, 3)


def test_evicted_transaction_is_handed_over_again(bench: Bench) -> None:
    submit(bench)
    (raw,) = bench.proxy.sent()
    bench.anvil.rpc.call("anvil_dropTransaction", ["0x" + keccak(hexstr=raw).hex()])
    settle(bench)
    assert states(bench) == [IntentState.CONFIRMED]
    assert_executed_once_each(bench, 1)


# ------------------------------------------------------------------------------------------------------- fees


def test_spiked_base_fee_is_followed_by_replacements_of_an_eighth(bench: Bench) -> None:
    submit(bench, 3)
    bench.mine(base_fee_wei=20 * GWEI)
    assert TxEventKind.REPLACED in kinds(follow(bench))
    settle(bench)
    for intent in bench.journal.intents():
        attempts = bench.journal.attempts([intent.intent_id])[intent.intent_id]
        assert len(attempts) > 1
        for old, new in pairwise(attempts):
            assert (old.nonce, new.kind) == (new.nonce, AttemptKind.ACTION)
            assert new.max_fee_wei * 8 >= old.max_fee_wei * 9
            assert new.priority_fee_wei * 8 >= old.priority_fee_wei * 9
            assert new.max_fee_wei * intent.gas_limit <= intent.budget_wei
    assert_executed_once_each(bench, 3)


def test_budget_holds_and_the_deadline_frees_the_nonce(bench: Bench) -> None:
    budget = 100_000 * 5 * GWEI
    submit(bench, 2, deadline_in=4, budget_wei=budget)
    for _ in range(4):
        bench.mine(base_fee_wei=80 * GWEI)
        follow(bench)
    events = settle(bench)
    assert kinds(events).count(TxEventKind.CANCELLED) == 2
    assert bench.executed() == {}
    for intent in bench.journal.intents():
        assert "not mined by block" in intent.note
        attempts = bench.journal.attempts([intent.intent_id])[intent.intent_id]
        assert all(
            a.max_fee_wei * intent.gas_limit <= budget for a in attempts if a.kind is AttemptKind.ACTION
        )
    assert submit(bench).refused == ()
    settle(bench)
    assert len(bench.executed()) == 1


def test_order_that_the_next_block_makes_unprofitable_is_refused(bench: Bench) -> None:
    (refusal,) = submit(bench, budget_wei=100_000 * GWEI // 2).refused
    assert refusal.reason is Reason.UNPROFITABLE
    assert bench.proxy.sent() == []


def test_opportunity_that_is_gone_is_cancelled_at_the_cost_of_a_transfer(bench: Bench) -> None:
    submission = submit(bench, 2)
    bench.submitter.request_cancel(submission.intents[0].intent_id, "repaid by the borrower")
    assert kinds(follow(bench)) == [TxEventKind.CANCELLING]
    settle(bench)
    assert states(bench) == [IntentState.CANCELLED, IntentState.CONFIRMED]
    receipt = bench.journal.receipt(submission.intents[0].intent_id)
    assert receipt is not None
    assert (receipt.kind, receipt.gas_used) == (AttemptKind.CANCEL, 21_000)
    assert bench.journal.intents()[0].note == "repaid by the borrower"


def test_cancellation_too_dear_is_reported_and_resolved_when_fees_fall(bench: Bench) -> None:
    submit(bench, deadline_in=2)
    seen = []
    for _ in range(4):
        bench.mine(base_fee_wei=5_000 * GWEI)
        seen += kinds(follow(bench))
    assert TxEventKind.STUCK in seen
    bench.mine(base_fee_wei=GWEI)
    settle(bench)
    assert states(bench)[0] in FINAL_STATES


def test_short_balance_refuses_what_it_cannot_cover(bench: Bench) -> None:
    bench.anvil.rpc.call("anvil_setBalance", [SENDER, hex(100_000 * 7 * GWEI)])
    submission = submit(bench, 5)
    assert len(submission.intents) >= 1
    assert {r.reason for r in submission.refused} == {Reason.LIMIT}
    settle(bench)
    assert_executed_once_each(bench, len(submission.intents))


def test_balance_that_vanishes_in_flight_is_reported_and_resumes_on_funding(bench: Bench) -> None:
    bench.proxy.spoil(Spoil.LOSE_REQUEST)
    submit(bench)
    bench.anvil.rpc.call("anvil_setBalance", [SENDER, "0x0"])
    assert kinds(follow(bench)) == [TxEventKind.UNFUNDED]
    bench.anvil.rpc.call("anvil_setBalance", [SENDER, hex(ETHER)])
    settle(bench)
    assert_executed_once_each(bench, 1)


# -------------------------------------------------------------------------------------------- reorganisations


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_reorganisation_within_the_depth_executes_once(bench: Bench, depth: int) -> None:
    bench.mine(5)
    submit(bench, 2)
    bench.mine(depth)
    follow(bench)
    assert states(bench) == [IntentState.MINED] * 2

    bench.anvil.rpc.call("anvil_reorg", [depth, []])
    assert TxEventKind.REORGANISED in kinds(follow(bench))
    settle(bench)

    assert states(bench) == [IntentState.CONFIRMED] * 2
    assert_executed_once_each(bench, 2)


def test_reorganisation_below_the_depth_is_sent_again(bench: Bench) -> None:
    bench.mine(10)
    submit(bench, 2)
    settle(bench)
    bench.anvil.rpc.call("anvil_reorg", [6, []])
    assert bench.executed() == {}

    assert TxEventKind.DEEP_REORGANISATION in kinds(follow(bench))
    bench.mine()
    follow(bench)

    assert_executed_once_each(bench, 2)


# --------------------------------------------------------------------------------------------- others at work


def foreign_transfer(bench: Bench, nonce: int) -> str:
    """Send from the same key past the keeper, as an operator with a wallet would; return the hash."""
    fees = {"maxFeePerGas": hex(100 * GWEI), "maxPriorityFeePerGas": hex(40 * GWEI)}
    transfer = {"from": SENDER, "to": SENDER, "nonce": hex(nonce), "gas": hex(21_000), **fees}
    return str(bench.anvil.rpc.call("eth_sendTransaction", [transfer]))


def test_nonce_taken_by_somebody_else_abandons_the_intent_at_depth(bench: Bench) -> None:
    submit(bench, 2)
    foreign_transfer(bench, 0)
    bench.mine()
    follow(bench)
    assert states(bench)[0] is IntentState.SENT
    events = settle(bench)
    assert TxEventKind.ABANDONED in kinds(events)
    assert states(bench) == [IntentState.ABANDONED, IntentState.CONFIRMED]
    assert len(bench.executed()) == 1


def test_key_used_elsewhere_is_reported_once_and_nonces_go_on_behind(bench: Bench) -> None:
    submit(bench)
    settle(bench)
    foreign_transfer(bench, 1)
    bench.mine()
    assert kinds(follow(bench)) == [TxEventKind.FOREIGN_NONCE]
    assert kinds(follow(bench)) == []
    (intent,) = submit(bench, 1).intents
    assert intent.nonce == 2
    settle(bench)
    assert states(bench) == [IntentState.CONFIRMED] * 2


def test_gap_that_a_lost_foreign_transaction_leaves_is_filled(bench: Bench) -> None:
    foreign = foreign_transfer(bench, 0)
    (intent,) = submit(bench, deadline_in=30).intents
    assert intent.nonce == 1
    bench.anvil.rpc.call("anvil_dropTransaction", [foreign])

    events = settle(bench)

    assert TxEventKind.FILLING_GAP in kinds(events)
    assert_executed_once_each(bench, 1)
    attempts = bench.journal.attempts([intent.intent_id])[intent.intent_id]
    assert len(attempts) == 1, "behind a gap no price helps, so none is raised"


def test_receipts_that_lag_behind_the_nonce_do_not_lose_an_intent(bench: Bench) -> None:
    submit(bench)
    bench.mine()
    tick = bench.submitter.tick()
    blind = type(tick)(tick.head, tick.fees, tick.sender, dict.fromkeys(tick.receipts), tick.blocks)
    sent = len(bench.proxy.sent())
    assert bench.submitter.follow(blind) == []
    assert len(bench.proxy.sent()) == sent
    settle(bench)
    assert_executed_once_each(bench, 1)


# ------------------------------------------------------------------------------------------------------ modes


@pytest.mark.parametrize("mode", [Mode.OBSERVE, Mode.DRY_RUN])
def test_nothing_leaves_unless_live(bench: Bench, mode: Mode) -> None:
    bench.proxy.spoil(Spoil.LOSE_REQUEST)
    submit(bench, 2, deadline_in=2)
    sent = len(bench.proxy.sent())
    bench.reopen(mode)

    (refusal,) = bench.submitter.submit([bench.order(9)], bench.submitter.tick()).refused
    for _ in range(5):
        bench.submitter.reconcile(bench.submitter.tick())
        bench.mine()

    assert refusal.reason is Reason.OBSERVE_ONLY
    assert len(bench.proxy.sent()) == sent
    assert [method for method, _ in bench.proxy.seen].count("eth_sendRawTransaction") == sent


def test_observing_still_learns_what_became_of_a_live_run(bench: Bench) -> None:
    submit(bench)
    bench.reopen(Mode.OBSERVE)
    settle(bench)
    assert states(bench) == [IntentState.CONFIRMED]


# ------------------------------------------------------------------------------------------ disk and secrets


def test_full_disk_fails_closed_and_goes_on_when_there_is_room(bench: Bench) -> None:
    with bench.journal._reading() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
    order = replace(bench.order(), data=b"\0" * 500_000)

    with pytest.raises(JournalError, match="full") as caught:
        bench.submitter.submit([order], bench.submitter.tick())

    assert "\n" not in str(caught.value)
    assert bench.proxy.sent() == []
    with bench.journal._reading() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 1000000")
    assert len(submit(bench).intents) == 1
    settle(bench)
    assert_executed_once_each(bench, 1)


def test_locked_database_fails_closed(bench: Bench) -> None:
    with bench.journal._reading() as connection:
        connection.exec_driver_sql("PRAGMA busy_timeout = 10")
    order, tick = bench.order(), bench.submitter.tick()
    with closing(sqlite3.connect(bench.journal.path)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(JournalError, match="locked"):
            bench.submitter.submit([order], tick)
    assert bench.proxy.sent() == []


def test_no_secret_reaches_the_journal_or_an_error(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with running_bench(tmp_path, credentials="user:canary-token@") as bench:
        bench.proxy.spoil(Spoil.LOSE_REPLY)
        submit(bench, 2)
        bench.proxy.spoil(Spoil.HTML, "eth_feeHistory")
        with pytest.raises(ChainError) as caught:
            follow(bench)
        settle(bench)
        shown = "".join(traceback.format_exception(caught.value)) + f"{bench.submitter!r}{bench.node!r}"
        kept = b"".join(path.read_bytes() for path in tmp_path.iterdir() if path.name != "keystore.json")
    out, err = capfd.readouterr()
    assert b"no connection" in kept, "what went wrong is kept, without the URL it went wrong at"
    for secret in (b"canary", KEY.reveal()[2:].encode(), bytes.fromhex(KEY.reveal()[2:])):
        assert secret not in kept
        assert secret not in (out + err + shown).encode()


# ---------------------------------------------------------------------------------------------------- restart


def test_restart_hands_the_same_bytes_over_at_once(bench: Bench) -> None:
    bench.proxy.spoil(Spoil.LOSE_REQUEST)
    submit(bench, 3)
    before = bench.proxy.sent()
    bench.reopen()

    events = bench.submitter.reconcile(bench.submitter.tick())

    assert kinds(events) == [TxEventKind.SENT_AGAIN] * 3
    assert bench.proxy.sent() == before * 2
    settle(bench)
    assert_executed_once_each(bench, 3)


def test_restart_after_the_deadline_frees_the_nonces(bench: Bench) -> None:
    bench.proxy.spoil(Spoil.LOSE_REQUEST)
    submit(bench, 3, deadline_in=3)
    bench.mine(6)
    bench.reopen()
    bench.submitter.reconcile(bench.submitter.tick())
    settle(bench)
    assert states(bench) == [IntentState.CANCELLED] * 3
    assert bench.executed() == {}


def test_restart_long_after_everything_was_mined_resolves_at_once(bench: Bench) -> None:
    submit(bench, 3)
    bench.mine(20)
    bench.reopen()
    bench.submitter.reconcile(bench.submitter.tick())
    assert states(bench) == [IntentState.CONFIRMED] * 3


def test_a_pool_full_of_transactions_that_nobody_wrote_down_is_not_queued_behind(bench: Bench) -> None:
    """A node that is wrong about its pool once must not have us pay for thousands of empty nonces."""
    tick = bench.submitter.tick()
    assert tick.sender is not None
    orders = [bench.order(i) for i in range(2)]
    wrong = replace(tick, sender=replace(tick.sender, nonce_pending=5_000))
    submission = bench.submitter.submit(orders, wrong)
    assert submission.intents == ()
    assert {refusal.reason for refusal in submission.refused} == {Reason.LIMIT}
    assert "5000 transactions" in submission.refused[0].detail
    assert bench.journal.tx_hashes() == frozenset()

    assert [intent.nonce for intent in bench.submitter.submit(orders, tick).intents] == [0, 1]
    settle(bench)
    assert len(bench.executed()) == 2


def test_an_endpoint_that_was_moved_to_another_chain_says_nothing_of_ours(bench: Bench) -> None:
    """The key has used its nonces there; on our chain its transactions wait in the pool."""
    submit(bench, 2)
    ours = bench.proxy.target
    with Anvil.start(AnvilOptions(mining=False, chain_id=10)) as other:
        other.rpc.call("anvil_setNonce", [SENDER, "0x100"])
        other.rpc.call("anvil_mine", ["0x10"])
        bench.proxy.target = other.url
        with pytest.raises(ChainError, match="chain 10, not"):
            bench.submitter.tick()
        bench.proxy.target = ours
    assert states(bench) == [IntentState.SENT] * 2
    settle(bench)
    assert len(bench.executed()) == 2
