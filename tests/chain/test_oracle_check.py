"""The health of a live feed, on feeds that stand on a local chain."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from contracts_abi import feeds
from contracts_abi.errors import CheckFailed, InputError
from keeper.commands.oracle_look import FeedHealth, check, feed_health, health_json
from keeper.rpc import Node
from oracle.types import GuardStatus, NoData, PriceStatus
from simulation.chain.anvil import Anvil, AnvilEvm, AnvilOptions
from simulation.chain.artifacts import own
from simulation.chain.evm import labelled_address, transact
from simulation.chain.market import GENESIS

OWNER = labelled_address("feed owner")
E8 = 10**8
HEARTBEAT_S = 3_600


@dataclass
class Live:
    """A chain with a feed that has a few rounds."""

    evm: AnvilEvm
    node: Node
    feed: str
    aggregator: str

    def health(
        self, feed: str | None = None, *, heartbeat_s: int | None = HEARTBEAT_S, **more: str
    ) -> FeedHealth:
        return feed_health(self.node, self.node.head(), feed or self.feed, heartbeat_s=heartbeat_s, **more)

    def post(self, answer: int, *, after_s: int = 600, aggregator: str | None = None) -> None:
        self.evm.warp(self.evm.timestamp() + after_s)
        transact(self.evm, OWNER, aggregator or self.aggregator, feeds.TRANSMIT, answer)


def deployed(evm: AnvilEvm, description: str = "ETH / USD") -> tuple[str, str]:
    code = own("PriceAggregator").creation_code(8, description, HEARTBEAT_S, 50, E8, 10**12)
    aggregator = evm.create(OWNER, code)
    return evm.create(OWNER, own("PriceFeed").creation_code(aggregator)), aggregator


@pytest.fixture(scope="module")
def node() -> Iterator[Anvil]:
    with Anvil.start(AnvilOptions(timestamp=GENESIS)) as running:
        yield running


@pytest.fixture
def live(node: Anvil) -> Live:
    evm = node.evm()
    feed, aggregator = deployed(evm)
    chain = Live(evm, Node.connect(node.url), feed, aggregator)
    for i in range(5):
        chain.post((200 + i) * E8)
    return chain


def status(health: FeedHealth, guard: str) -> GuardStatus:
    return next(f.status for f in health.guarded.findings if f.guard == guard)


def test_a_feed_in_order(live: Live) -> None:
    health = live.health()
    assert health.guarded.status is PriceStatus.OK, health.guarded.reasons
    assert (health.description, health.past.rounds) == ("ETH / USD", 5)
    assert health.past.largest_move_bps == 50  # 200 to 201, relative to the larger, rounded up
    assert health.past.longest_gap_s is not None
    assert 600 <= health.past.longest_gap_s <= 605


def test_without_a_heartbeat_nobody_knows_whether_it_is_stale(live: Live) -> None:
    health = live.health(heartbeat_s=None)
    assert health.guarded.status is PriceStatus.REFUSED
    assert status(health, "G03") is GuardStatus.NOT_APPLICABLE
    assert any("heartbeat unknown" in reason for reason in health.guarded.reasons)


def test_a_feed_that_stopped(live: Live) -> None:
    live.evm.warp(live.evm.timestamp() + HEARTBEAT_S + 301)
    live.evm.mine()
    health = live.health()
    assert (health.guarded.status, status(health, "G03")) == (PriceStatus.REFUSED, GuardStatus.VIOLATED)


def test_a_jump_is_confirmed_or_contradicted_by_a_reference(live: Live) -> None:
    reference, aggregator = deployed(live.evm, "Ether / Dollar")
    live.post(204 * E8, aggregator=aggregator)
    live.post(400 * E8, after_s=1)
    assert status(live.health(), "G07") is GuardStatus.VIOLATED
    assert status(live.health(reference=reference), "G07") is GuardStatus.VIOLATED
    live.post(401 * E8, after_s=1, aggregator=aggregator)
    assert status(live.health(reference=reference), "G07") is GuardStatus.OK


@pytest.mark.parametrize("mode", [feeds.READS_REVERT, feeds.READS_ZEROS])
def test_a_feed_without_data(live: Live, mode: int) -> None:
    transact(live.evm, OWNER, live.aggregator, feeds.SET_READ_MODE, mode)
    health = live.health()
    assert isinstance(health.guarded.reading, NoData)
    assert health.guarded.status is PriceStatus.MISSING


def test_the_json_is_exact_and_complete(live: Live) -> None:
    record = health_json(live.health())
    assert record["answer"] == str(204 * E8)
    assert {f["guard"] for f in record["findings"]} >= {f"G0{i}" for i in range(1, 8)}
    assert record["status"] == "ok"


def test_the_command_exits_1_on_a_feed_that_is_not_to_be_believed(
    live: Live, node: Anvil, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"rpc_url": node.url, "reference": None, "sequencer": None, "rounds": 10, "as_json": False}
    check(live.feed, heartbeat_s=HEARTBEAT_S, **options)
    assert "ETH / USD" in capsys.readouterr().out
    with pytest.raises(CheckFailed, match="heartbeat unknown"):
        check(live.feed, heartbeat_s=None, **options)
    with pytest.raises(InputError, match="--sequencer"):
        check(live.feed, heartbeat_s=HEARTBEAT_S, **{**options, "sequencer": OWNER})
