"""Discovery on a real node: filled back, restarted, reorganised, lagging, failing; nobody is forgotten."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from contracts_abi.errors import ChainError, RpcError, RpcUnavailable
from keeper.compose import Connected
from keeper.journal import RECENT_BLOCKS, Identity, Journal
from keeper.rpc import Head, Node
from keeper.sync import BY_HASH_DEPTH, Discovery, MemoryScanStore
from tests.faults.proxy import Spoil
from tests.keeper_bench import ACCOUNTS, Stage, discovery, staged

PROTOCOL = "aave-v3"


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with staged(tmp_path) as running:
        yield running


@pytest.fixture
def connected(stage: Stage) -> Connected:
    return stage.connected()


@pytest.fixture
def journal(stage: Stage, connected: Connected) -> Iterator[Journal]:
    with open_journal(stage, connected) as opened:
        yield opened


def open_journal(stage: Stage, connected: Connected) -> Journal:
    identity = Identity(stage.market.chain_id, connected.node.genesis_hash(), stage.owner)
    return Journal.open(stage.folder / "journal.sqlite", identity)


def seeded_accounts(stage: Stage) -> set[str]:
    return {account.address for account in stage.book}


def queries(stage: Stage) -> tuple[list[tuple[int, int]], list[str]]:
    """Return the log queries that the proxy saw: by range, and by hash."""
    filters = [params[0] for method, params in stage.proxy.seen if method == "eth_getLogs"]
    ranges = [(int(f["fromBlock"], 16), int(f["toBlock"], 16)) for f in filters if "fromBlock" in f]
    return ranges, [f["blockHash"] for f in filters if "blockHash" in f]


def block_hash(stage: Stage, number: int) -> str:
    return str(stage.anvil.rpc.call("eth_getBlockByNumber", [hex(number), False])["hash"])


def assert_continuous(store: Journal | MemoryScanStore, stage: Stage) -> None:
    """Check that what the store remembers is the chain as it is now, without a hole near the head."""
    recent = store.scan_state(PROTOCOL).recent
    assert recent[0] == (stage.head(), block_hash(stage, stage.head()))
    assert all(block_hash(stage, number) == known for number, known in recent)
    by_hash = [number for number, _ in recent if number > stage.head() - BY_HASH_DEPTH]
    assert by_hash == list(range(stage.head(), stage.head() - len(by_hash), -1))


# ---------------------------------------------------------------------------------------------- filling back


def test_back_fill_reads_deep_blocks_by_range_and_shallow_ones_by_hash(
    stage: Stage, connected: Connected, journal: Journal
) -> None:
    stage.mine(10)
    head = connected.node.head()
    told: list[tuple[int, int]] = []
    stage.proxy.seen.clear()

    finding = discovery(connected, journal, range_blocks=50)
    synced = finding.advance(head, lambda done, total: told.append((done, total)))

    ranges, hashes = queries(stage)
    deep = head.number - BY_HASH_DEPTH
    assert ranges[0][0] == 0
    assert ranges[-1][1] == deep
    assert all(high - low < 50 for low, high in ranges)
    assert all(after[0] == before[1] + 1 for before, after in itertools.pairwise(ranges))
    assert hashes == [block_hash(stage, n) for n in range(deep + 1, head.number + 1)]
    assert set(finding.borrowers) == set(synced.found) == seeded_accounts(stage)
    assert len(finding.borrowers) == ACCOUNTS
    assert synced.rewound_to is None
    assert told[-1] == (head.number + 1, head.number + 1)
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert_continuous(journal, stage)


def test_the_size_of_the_ranges_changes_nothing(stage: Stage, connected: Connected) -> None:
    stage.mine(BY_HASH_DEPTH + 5)
    head = connected.node.head()
    found = []
    for size in (1, 7, 10_000):
        finding = discovery(connected, MemoryScanStore(), range_blocks=size)
        finding.advance(head)
        found.append(finding.borrowers)
    assert found[0] == found[1] == found[2]
    assert set(found[0]) == seeded_accounts(stage)


def test_a_range_that_the_node_refuses_is_asked_for_by_half(
    stage: Stage, connected: Connected, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.mine(BY_HASH_DEPTH + 5)
    head = connected.node.head()
    whole = discovery(connected, MemoryScanStore(), range_blocks=10_000)
    whole.advance(head)
    asked: list[int] = []
    logs = Node.logs

    def stingy(node: Node, *arguments: Any, from_block: int, to_block: int, **options: Any) -> Any:
        asked.append(to_block - from_block + 1)
        if asked[-1] > 40:
            raise RpcError(-32005, "query returned more than 10000 results")
        return logs(node, *arguments, from_block=from_block, to_block=to_block, **options)

    monkeypatch.setattr(Node, "logs", stingy)
    halved = discovery(connected, MemoryScanStore(), range_blocks=10_000)
    halved.advance(head)
    assert halved.borrowers == whole.borrowers
    assert max(asked) > 40
    # What it refuses block by block too is an error, and is not asked for without end.
    monkeypatch.setattr(Node, "logs", refusing := Refusing())
    with pytest.raises(RpcError, match="no logs today"):
        discovery(connected, MemoryScanStore(), range_blocks=10_000).advance(head)
    assert refusing.count <= 12


class Refusing:
    """A node that gives no logs."""

    count = 0

    def __call__(self, *_: Any, **__: Any) -> Any:
        self.count += 1
        raise RpcError(-32000, "no logs today")


def test_nothing_below_the_first_block_is_asked_for(stage: Stage, connected: Connected) -> None:
    (late,) = stage.borrow("late")
    head = connected.node.head()
    stage.proxy.seen.clear()
    finding = discovery(connected, MemoryScanStore(), from_block=head.number)
    finding.advance(head)
    assert finding.borrowers == (late,)
    assert queries(stage) == ([], [head.block_hash])


def test_borrowers_stand_in_the_order_in_which_they_came(stage: Stage, connected: Connected) -> None:
    first, second = stage.borrow("first")[0], stage.borrow("second")[0]
    again, txs = stage.borrowing("first", usd=5)
    assert again == first
    stage.send(*txs)
    store = MemoryScanStore()
    finding = discovery(connected, store, from_block=stage.head() - 2)
    finding.advance(connected.node.head())
    assert finding.borrowers == (first, second)
    assert store.found[first] == stage.head() - 2


def test_next_head_costs_one_request_by_its_hash(
    stage: Stage, connected: Connected, journal: Journal
) -> None:
    finding = discovery(connected, journal)
    finding.advance(connected.node.head())
    (new,) = stage.borrow("new")
    head = connected.node.head()
    before = connected.node.round_trips
    stage.proxy.seen.clear()
    assert finding.advance(head).found == (new,)
    assert connected.node.round_trips - before == 1
    assert queries(stage) == ([], [head.block_hash])

    before = connected.node.round_trips
    assert finding.advance(head).found == ()
    assert connected.node.round_trips == before


def test_heads_that_passed_unseen_are_scanned_too(
    stage: Stage, connected: Connected, journal: Journal
) -> None:
    finding = discovery(connected, journal)
    finding.advance(connected.node.head())
    passed = [stage.borrow(f"passed {i}")[0] for i in range(3)]
    stage.mine()
    assert finding.advance(connected.node.head()).found == tuple(passed)
    assert_continuous(journal, stage)


def test_after_a_long_absence_ranges_are_used_again(
    stage: Stage, connected: Connected, journal: Journal
) -> None:
    finding = discovery(connected, journal)
    finding.advance(connected.node.head())
    cursor = finding.block
    (new,) = stage.borrow("while away")
    stage.mine(BY_HASH_DEPTH + 10)
    stage.proxy.seen.clear()
    assert finding.advance(connected.node.head()).found == (new,)
    ranges, hashes = queries(stage)
    assert cursor is not None
    assert ranges[0][0] == cursor + 1
    assert len(hashes) == BY_HASH_DEPTH
    assert_continuous(journal, stage)


# --------------------------------------------------------------------------------------------------- restart


def test_a_restart_goes_on_at_the_cursor(stage: Stage, connected: Connected) -> None:
    with open_journal(stage, connected) as journal:
        finding = discovery(connected, journal)
        finding.advance(connected.node.head())
        before = finding.borrowers
        cursor = finding.block
    (new,) = stage.borrow("while down")
    stage.proxy.seen.clear()

    with open_journal(stage, connected) as journal:
        finding = discovery(connected, journal)
        assert set(finding.borrowers) == set(before)
        assert finding.block == cursor
        assert finding.advance(connected.node.head()).found == (new,)
    ranges, hashes = queries(stage)
    assert ranges == []
    assert hashes == [block_hash(stage, stage.head())]


def test_a_look_starts_from_the_journal_and_writes_nothing(
    stage: Stage, connected: Connected, journal: Journal
) -> None:
    discovery(connected, journal).advance(connected.node.head())
    known = journal.scan_state(PROTOCOL)
    (new,) = stage.borrow("for a look")
    stage.proxy.seen.clear()
    with Journal.read_only(journal.path) as reading:
        store = MemoryScanStore.of(reading, PROTOCOL)
    looked = discovery(connected, store)
    looked.advance(connected.node.head())
    assert set(looked.borrowers) == {*seeded_accounts(stage), new}
    assert queries(stage) == ([], [block_hash(stage, stage.head())])
    assert journal.scan_state(PROTOCOL) == known
    assert new not in journal.borrowers(PROTOCOL)


# ------------------------------------------------------------------------------------------- reorganisations


@pytest.mark.parametrize("depth", [1, 2, 7])
@pytest.mark.parametrize("taller_by", [0, 1])
def test_reorganisation_is_followed_to_the_common_ancestor(
    stage: Stage, connected: Connected, journal: Journal, depth: int, taller_by: int
) -> None:
    ancestor = stage.mine(10)
    finding = discovery(connected, journal)
    (gone,) = stage.borrow("on the abandoned branch")
    stage.mine(depth - 1)
    finding.advance(connected.node.head())

    stage.anvil.rpc.call("anvil_rollback", [depth])
    (other,) = stage.borrow("on the new branch")
    stage.mine(depth - 1 + taller_by, step_s=17)
    stage.proxy.seen.clear()
    synced = finding.advance(connected.node.head())

    assert synced.rewound_to == ancestor
    assert synced.found == (other,)
    # One too many costs a read, one too few costs a miss.
    assert {gone, other} <= set(finding.borrowers)
    assert set(journal.borrowers(PROTOCOL)) == set(finding.borrowers)
    ranges, hashes = queries(stage)
    assert ranges == []
    assert hashes == [block_hash(stage, n) for n in range(ancestor + 1, stage.head() + 1)]
    assert_continuous(journal, stage)


def test_reorganisation_while_the_keeper_was_down(stage: Stage, connected: Connected) -> None:
    ancestor = stage.mine(3)
    with open_journal(stage, connected) as journal:
        stage.mine(4)
        discovery(connected, journal).advance(connected.node.head())
    stage.anvil.rpc.call("anvil_rollback", [4])
    (other,) = stage.borrow("on the new branch")
    stage.mine(6, step_s=17)
    with open_journal(stage, connected) as journal:
        synced = discovery(connected, journal).advance(connected.node.head())
        assert synced.rewound_to == ancestor
        assert synced.found == (other,)
        assert_continuous(journal, stage)


def test_reorganisation_by_the_node_itself(stage: Stage, connected: Connected, journal: Journal) -> None:
    ancestor = stage.mine(5)
    stage.mine(2)
    finding = discovery(connected, journal)
    finding.advance(connected.node.head())
    account, txs = stage.borrowing("moved into the reorganised block")
    batch = [
        {"from": t.sender, "to": t.to, "data": "0x" + t.data.hex(), "gas": hex(2_000_000), "gasPrice": "0x0"}
        for t in txs
    ]
    stage.anvil.rpc.call("anvil_reorg", [2, [[tx, 0] for tx in batch]])
    synced = finding.advance(connected.node.head())
    assert synced.rewound_to == ancestor
    assert synced.found == (account,)
    assert_continuous(journal, stage)


def test_reorganisation_deeper_than_memory_scans_everything_again(
    stage: Stage, connected: Connected, journal: Journal
) -> None:
    first = stage.head() - 1  # the book was opened in the block before the contract's
    snapshot = stage.anvil.rpc.call("evm_snapshot")
    finding = discovery(connected, journal)
    (gone,) = stage.borrow("on the abandoned branch")
    stage.mine(RECENT_BLOCKS + BY_HASH_DEPTH)
    for head in range(stage.head() - RECENT_BLOCKS, stage.head() + 1, BY_HASH_DEPTH):
        block = connected.node.block(head)
        assert block is not None
        finding.advance(block)
    assert len(journal.scan_state(PROTOCOL).recent) > BY_HASH_DEPTH

    stage.anvil.rpc.call("evm_revert", [snapshot])
    (other,) = stage.borrow("on the new branch")
    stage.mine(RECENT_BLOCKS + BY_HASH_DEPTH + 5, step_s=17)
    stage.proxy.seen.clear()
    synced = finding.advance(connected.node.head())

    # Nothing that is remembered is canonical, so nothing above the first block is known to be.
    assert synced.rewound_to == -1
    assert synced.found == (other,)
    assert {*seeded_accounts(stage), gone, other} == set(finding.borrowers)
    ranges, _ = queries(stage)
    assert ranges[0][0] == 0 < first
    assert_continuous(journal, stage)


def test_chain_that_became_shorter_than_all_that_is_remembered(stage: Stage, connected: Connected) -> None:
    stage.mine(12)
    store = MemoryScanStore({n: block_hash(stage, n) for n in range(stage.head() - 3, stage.head() + 1)})
    finding = discovery(connected, store)
    finding.advance(connected.node.head())
    stage.anvil.rpc.call("anvil_rollback", [8])
    assert finding.advance(connected.node.head()).rewound_to == -1
    assert set(finding.borrowers) == seeded_accounts(stage)
    (other,) = stage.borrow("after the rollback")
    stage.mine(9, step_s=17)
    assert finding.advance(connected.node.head()).found == (other,)
    assert_continuous(store, stage)


# ---------------------------------------------------------------------------------------- nodes that mislead


def test_node_that_lags_behind_is_refused(stage: Stage, connected: Connected, journal: Journal) -> None:
    stage.mine(3)
    finding = discovery(connected, journal)
    finding.advance(connected.node.head())
    known = journal.scan_state(PROTOCOL)
    snapshot = stage.anvil.rpc.call("evm_snapshot")
    stage.borrow("not shown yet")
    stage.mine(2)
    newer = connected.node.head()
    # Another node behind the same address, three blocks behind the one that named the head.
    stage.anvil.rpc.call("evm_revert", [snapshot])
    with pytest.raises(ChainError):
        finding.advance(newer)
    assert journal.scan_state(PROTOCOL) == known
    assert finding.block == known.block


def test_node_that_is_too_far_behind_for_a_back_fill_is_refused(
    stage: Stage, connected: Connected, journal: Journal
) -> None:
    head = connected.node.head()
    ahead = Head(head.number + 200, "0x" + "aa" * 32, "0x" + "bb" * 32, head.timestamp, 0, 1, 1)
    finding = discovery(connected, journal, range_blocks=10_000)
    with pytest.raises(RpcUnavailable, match=f"does not show block {ahead.number - BY_HASH_DEPTH}"):
        finding.advance(ahead)
    assert journal.scan_state(PROTOCOL).recent == ()
    assert finding.borrowers == ()


def test_head_whose_parent_is_not_shown_is_refused(
    stage: Stage, connected: Connected, journal: Journal
) -> None:
    finding = discovery(connected, journal)
    finding.advance(connected.node.head())
    known = journal.scan_state(PROTOCOL)
    stage.mine()
    head = connected.node.head()
    orphan = Head(head.number, head.block_hash, "0x" + "cc" * 32, head.timestamp, 0, 1, 1)
    with pytest.raises(RpcUnavailable, match="no unbroken chain"):
        finding.advance(orphan)
    assert journal.scan_state(PROTOCOL) == known
    assert finding.advance(head).found == ()
    assert_continuous(journal, stage)


def test_older_head_of_the_same_chain_forgets_nobody(
    stage: Stage, connected: Connected, journal: Journal
) -> None:
    stage.mine()
    older = connected.node.head()
    (new,) = stage.borrow("new")
    newer = connected.node.head()
    finding = discovery(connected, journal)
    finding.advance(newer)
    finding.advance(older)
    assert new in finding.borrowers
    finding.advance(newer)
    assert set(finding.borrowers) == {*seeded_accounts(stage), new}
    assert_continuous(journal, stage)


# -------------------------------------------------------------------------------------------------- failures


@pytest.mark.parametrize("spoil", [Spoil.LOSE_REQUEST, Spoil.HTTP_500, Spoil.TRUNCATED, Spoil.WRONG_ID])
def test_whichever_request_fails_nobody_is_lost_and_the_cursor_stays(
    stage: Stage, connected: Connected, journal: Journal, spoil: Spoil
) -> None:
    finding = discovery(connected, journal)
    finding.advance(connected.node.head())
    known = journal.scan_state(PROTOCOL)
    passed = [stage.borrow(f"passed {i}")[0] for i in range(3)]
    head = connected.node.head()

    failed = 0
    while True:
        before = len(stage.proxy.posts)

        def fail_the_next(methods: tuple[str, ...], failing: int = before + failed) -> None:
            if len(stage.proxy.posts) == failing:
                stage.proxy.spoil(spoil, methods[0])

        stage.proxy.before = fail_the_next
        try:
            synced = finding.advance(head)
        except ChainError:
            failed += 1
            assert journal.scan_state(PROTOCOL) == known
            assert set(finding.borrowers) == set(journal.borrowers(PROTOCOL)) == seeded_accounts(stage)
        else:
            break
    assert failed == 3  # the newest block that we know, those behind it, their logs
    assert synced.found == tuple(passed)
    assert_continuous(journal, stage)


def test_back_fill_keeps_the_ranges_that_it_finished(
    stage: Stage, connected: Connected, journal: Journal
) -> None:
    stage.mine(BY_HASH_DEPTH)
    head = connected.node.head()
    finding = discovery(connected, journal, range_blocks=60)
    asked = 0

    def fail_at_the_third(methods: tuple[str, ...]) -> None:
        nonlocal asked
        asked += "eth_getLogs" in methods
        if asked == 3:
            stage.proxy.spoil(Spoil.HTTP_500, "eth_getLogs")
            asked += 1

    stage.proxy.before = fail_at_the_third
    with pytest.raises(ChainError):
        finding.advance(head)
    stage.proxy.before = lambda methods: None
    assert finding.block == journal.scan_state(PROTOCOL).block == 119
    stage.proxy.seen.clear()
    again = discovery(connected, journal, range_blocks=60)
    again.advance(head)
    assert queries(stage)[0][0][0] == 120
    assert set(again.borrowers) == seeded_accounts(stage)


def test_reorganisation_is_reported_although_the_head_that_showed_it_failed(
    stage: Stage, connected: Connected, journal: Journal
) -> None:
    ancestor = stage.mine(3)
    stage.mine(2)
    finding = discovery(connected, journal)
    finding.advance(connected.node.head())
    stage.replace(2)
    stage.proxy.spoil(Spoil.HTTP_500, "eth_getLogs")
    with pytest.raises(ChainError):
        finding.advance(connected.node.head())
    stage.mine()
    # Whoever keeps something by block has to hear of it, or keeps what the branch said that is gone.
    assert finding.advance(connected.node.head()).rewound_to == ancestor
    stage.mine()
    assert finding.advance(connected.node.head()).rewound_to is None


def test_journal_that_refuses_leaves_memory_where_it_was(
    stage: Stage, connected: Connected, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    finding = discovery(connected, journal)
    finding.advance(connected.node.head())
    cursor = finding.block
    (new,) = stage.borrow("new")

    def refuse(*_: object) -> None:
        raise ChainError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(journal, "save_scan", refuse)
        with pytest.raises(ChainError, match="disk full"):
            finding.advance(connected.node.head())
        assert finding.block == cursor
        assert new not in finding.borrowers
    assert finding.advance(connected.node.head()).found == (new,)


def test_discoveries_of_two_protocols_do_not_mix(
    stage: Stage, connected: Connected, journal: Journal
) -> None:
    finding: Discovery = discovery(connected, journal)
    finding.advance(connected.node.head())
    assert journal.borrowers("another") == []
    assert journal.scan_state("another").block is None
