"""The health of a live feed, on feeds that stand on a local chain."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
from tests.command_line import Inside

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
        self, feed: str | None = None, *, heartbeat_s: int | None = HEARTBEAT_S, **more: Any
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
    assert status(live.health(references=[reference]), "G07") is GuardStatus.VIOLATED
    live.post(401 * E8, after_s=1, aggregator=aggregator)
    assert status(live.health(references=[reference]), "G07") is GuardStatus.OK


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
    options: dict[str, Any] = {"rpc_url": node.url, "references": (), "pair": None, "sequencer": None}
    options |= {"rounds": 10, "as_json": False}
    check(live.feed, heartbeat_s=HEARTBEAT_S, **options)
    assert "ETH / USD" in capsys.readouterr().out
    with pytest.raises(CheckFailed, match="heartbeat unknown"):
        check(live.feed, heartbeat_s=None, **options)
    with pytest.raises(InputError, match="--sequencer"):
        check(live.feed, heartbeat_s=HEARTBEAT_S, **{**options, "sequencer": OWNER})


# ----------------------------------------------------------------------------------------- a second source


@pytest.fixture
def reference(live: Live) -> tuple[str, str]:
    """Return a second feed of the same pair that agrees, and its aggregator."""
    feed, aggregator = deployed(live.evm, "Ether / Dollar")
    live.post(204 * E8, aggregator=aggregator)
    return feed, aggregator


def test_a_second_source_lets_the_guards_of_peers_answer(live: Live, reference: tuple[str, str]) -> None:
    alone, held = live.health(), live.health(references=[reference[0]])
    for guard in ("G08", "G11", "G17"):
        assert status(alone, guard) is GuardStatus.NOT_APPLICABLE
        assert status(held, guard) is GuardStatus.OK
    assert held.guarded.status is PriceStatus.OK
    assert [r["answer"] for r in health_json(held)["references"]] == [str(204 * E8)]


def test_a_second_source_far_away_is_a_reason_not_to_believe(live: Live, reference: tuple[str, str]) -> None:
    live.post(150 * E8, after_s=1, aggregator=reference[1])
    health = live.health(references=[reference[0]])
    assert (health.guarded.status, status(health, "G08")) == (PriceStatus.REFUSED, GuardStatus.VIOLATED)


def test_of_three_the_middle_one_is_right(live: Live, reference: tuple[str, str]) -> None:
    wrong, aggregator = deployed(live.evm)
    live.post(100 * E8, after_s=1, aggregator=aggregator)
    assert live.health(references=[wrong]).guarded.status is PriceStatus.REFUSED
    assert status(live.health(references=[reference[0], wrong]), "G08") is GuardStatus.OK


def test_a_second_source_without_data_confirms_nothing(live: Live, reference: tuple[str, str]) -> None:
    transact(live.evm, OWNER, reference[1], feeds.SET_READ_MODE, feeds.READS_ZEROS)
    health = live.health(references=[reference[0]])
    assert status(health, "G08") is GuardStatus.NOT_APPLICABLE
    (told,) = health_json(health)["references"]
    assert told["answer"] is None
    assert "never written" in told["problem"]


def test_a_feed_cannot_confirm_itself(live: Live, reference: tuple[str, str]) -> None:
    twin = live.evm.create(OWNER, own("PriceFeed").creation_code(live.aggregator))
    for same in (live.feed, live.aggregator, twin):
        with pytest.raises(InputError, match="what the feed itself says"):
            live.health(references=[same])
    with pytest.raises(InputError, match="--reference"):
        live.health(references=[reference[0], reference[1]])


def test_a_pair_that_is_expected_is_held_against_the_description(live: Live) -> None:
    assert status(live.health(), "G12") is GuardStatus.NOT_APPLICABLE
    assert status(live.health(pair="WETH/USD"), "G12") is GuardStatus.OK
    wrong = live.health(pair="BTC / USD")
    assert (wrong.guarded.status, status(wrong, "G12")) == (PriceStatus.REFUSED, GuardStatus.VIOLATED)
    with pytest.raises(InputError, match="--pair"):
        live.health(pair="BTC")


def test_what_stands_behind_the_feed_is_known_to_the_guards(live: Live) -> None:
    low, aggregator = deployed(live.evm, "USDC / USD")
    live.post(103 * E8 // 100, aggregator=aggregator)
    capped = live.evm.create(OWNER, own("StableCapFeed").creation_code(low, 104 * E8 // 100))
    assert status(live.health(capped), "G16") is GuardStatus.OK
    live.post(105 * E8 // 100, aggregator=aggregator)
    # The cap's answer is not that of its feed: it is composed, and of what is known.
    assert status(live.health(capped), "G16") is GuardStatus.VIOLATED
    assert status(live.health(capped), "G13") is GuardStatus.OK


def test_exit_codes_and_json_of_the_command(
    live: Live,
    node: Anvil,
    reference: tuple[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    inside = Inside(monkeypatch, capsys)
    ask = ("oracle", "check", live.feed, "--rpc", node.url)
    believed = inside(*ask, "--heartbeat", "3600", "--against", reference[0], "--pair", "ETH/USD", "--json")
    assert believed.code == 0, believed.err
    record = believed.json()
    assert record["status"] == "ok"
    assert {f["guard"] for f in record["findings"]} == {f"G{i:02}" for i in range(1, 27)}
    refused = inside(*ask, "--json")
    # The answer is whole, and why it is not believed is one line beside it.
    assert refused.code == 1
    assert refused.json()["status"] == "refused"
    assert "heartbeat unknown" in refused.err
    assert refused.err.count("\n") == 1
    for bad in (("--reference", live.feed), ("--reference", OWNER), ("--pair", "x"), ("--sequencer", OWNER)):
        inside(*ask, *bad).line(2)
    inside("oracle", "check", "0x12", "--rpc", node.url).line(2)
    inside("oracle", "check", OWNER, "--rpc", node.url).line(2)


def test_the_tree_as_a_command(
    live: Live,
    node: Anvil,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    inside = Inside(monkeypatch, capsys)
    ask = ("oracle", "graph", live.feed, "--rpc", node.url)
    plain = inside(*ask)
    assert plain.code == 0, plain.err
    assert "needs more" not in plain.out
    shown = inside(*ask, "--guards")
    assert "can: G01 G02 G03" in shown.out
    # Wrapped, never cut off.
    assert "source states no market status" in " ".join(shown.out.replace("│", " ").split())
    assert "blind at" in shown.out
    assert inside(*ask, "--guards", "--heartbeat", "3600").code == 0
    record = inside(*ask, "--json").json()
    assert len(record["nodes"]) == 2
    assert {view["guard"] for view in record["nodes"][0]["guards"]} == {f"G{i:02}" for i in range(1, 27)}
    assert {row["guard"] for row in record["guards"]} == {f"G{i:02}" for i in range(1, 27)}
    assert inside(*ask, "--svg", str(tmp_path / "tree.svg")).code == 0
    assert "needs more: G05 G07" in (tmp_path / "tree.svg").read_text()
    inside("oracle", "graph", OWNER, "--rpc", node.url).line(2)
