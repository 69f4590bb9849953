"""The Chainlink source and the guards against feed contracts: each failure played on chain, and caught."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from contracts_abi import feeds
from contracts_abi.artifacts import compile_vyper, npm_artifact
from contracts_abi.calls import Call, Function
from contracts_abi.errors import CallReverted, InputError
from oracle.snapshot import REQUIRED, Feed, History, accept, snapshot, snapshot_reads
from oracle.sources.chainlink import ChainlinkFeed, ChainlinkSource, FeedShape, complete, resolve
from oracle.types import FeedKind, GuardStatus, PriceObs, PriceSnapshot, PriceStatus
from simulation.chain.artifacts import AAVE, own
from simulation.chain.evm import Evm, labelled_address, transact
from simulation.chain.toolchain import node_modules
from tests.chain.conftest import Chain

OWNER = labelled_address("feed owner")
ETH_E8 = 19_450_000_000
MIN_E8, MAX_E8 = 1_000_000_000, 100_000_000_000
HEARTBEAT_S, GRACE_S = 3_600, 300

WRAPPER = """
# pragma version 0.4.3
interface Inner:
    def latestAnswer() -> int256: view

ASSET_TO_USD_AGGREGATOR: public(immutable(address))
cap: immutable(int256)
decimals: public(constant(uint8)) = 8

@deploy
def __init__(inner: address, limit: int256):
    ASSET_TO_USD_AGGREGATOR = inner
    cap = limit

@external
@view
def latestAnswer() -> int256:
    return min(staticcall Inner(ASSET_TO_USD_AGGREGATOR).latestAnswer(), cap)
"""


def execute(evm: Evm, calls: Sequence[Call[Any]]) -> list[bytes | None]:
    answers: list[bytes | None] = []
    for call in calls:
        try:
            answers.append(evm.call(call.to, call.data))
        except CallReverted:
            answers.append(None)
    return answers


def resolved(evm: Evm, address: str) -> ChainlinkFeed:
    return complete(resolve(address), lambda calls: execute(evm, calls))


@dataclass
class Bench:
    """A feed contract, and a keeper's eye on it that remembers what it accepted."""

    evm: Evm
    proxy: str
    aggregator: str
    required: frozenset[str] = REQUIRED
    history: History = field(default_factory=dict)
    source: ChainlinkSource = field(init=False)

    def __post_init__(self) -> None:
        self.watch(self.proxy)

    def watch(self, address: str) -> None:
        found = resolved(self.evm, address)
        self.source = ChainlinkSource(
            base="ETH", quote="USD", address=address, heartbeat_s=HEARTBEAT_S, grace_s=GRACE_S
        ).resolved(found)

    def do(self, fn: Function, *args: Any, to: str | None = None) -> None:
        transact(self.evm, OWNER, to or self.aggregator, fn, *args)

    def post(self, answer: int) -> None:
        self.do(feeds.TRANSMIT, answer)

    def set_round(
        self, round_: int, answer: int, *, updated_at: int | None = None, answered_in: int | None = None
    ) -> None:
        at = self.evm.timestamp() if updated_at is None else updated_at
        self.do(feeds.SET_ROUND, round_, answer, at, at, round_ if answered_in is None else answered_in)

    def look(self) -> PriceSnapshot:
        feed = Feed("WETH", (self.source,), required=self.required)
        taken = snapshot(
            "reference",
            "USD",
            [feed],
            execute(self.evm, snapshot_reads([feed])),
            self.history,
            block=self.evm.block_number(),
            timestamp=self.evm.timestamp(),
        )
        self.history = accept(self.history, taken)
        return taken

    def price(self) -> int | None:
        return self.look().price_e8("WETH")

    def violated(self) -> set[str]:
        findings = self.look().prices["WETH"].findings
        return {f.guard for f in findings if f.status is GuardStatus.VIOLATED}


@pytest.fixture
def bench(chain: Chain) -> Bench:
    aggregator = chain.evm.create(
        OWNER, own("PriceAggregator").creation_code(8, "ETH / USD", HEARTBEAT_S, 50, MIN_E8, MAX_E8)
    )
    transact(chain.evm, OWNER, aggregator, feeds.TRANSMIT, ETH_E8)
    proxy = chain.evm.create(OWNER, own("PriceFeed").creation_code(aggregator))
    return Bench(chain.evm, proxy, aggregator)


def test_a_feed_resolves_and_reads(bench: Bench) -> None:
    assert bench.source.feed == ChainlinkFeed(
        bench.proxy, FeedShape.PROXY, "ETH / USD", 8, 1, bench.aggregator, MIN_E8, MAX_E8
    )
    price = bench.look().prices["WETH"]
    assert price.status is PriceStatus.OK
    assert isinstance(price.reading, PriceObs)
    assert (price.reading.mantissa, price.reading.round_key) == (ETH_E8, (1, 1))
    applicable = {f.guard for f in price.findings if f.status is GuardStatus.OK}
    assert applicable == {"G01", "G02", "G03", "G04", "G06"}
    bench.post(ETH_E8 - 1)
    again = bench.look().prices["WETH"]
    assert {f.guard for f in again.findings if f.status is GuardStatus.OK} == applicable | {"G05", "G07"}


def test_an_aggregator_by_itself_is_a_feed(bench: Bench) -> None:
    bench.watch(bench.aggregator)
    assert bench.source.feed is not None
    assert bench.source.feed.shape is FeedShape.AGGREGATOR
    assert bench.source.feed.max_answer == MAX_E8
    assert bench.price() == ETH_E8


@pytest.mark.parametrize("mode", [feeds.READS_REVERT, feeds.READS_ZEROS])
def test_reads_that_fail_are_no_data(bench: Bench, mode: int) -> None:
    bench.do(feeds.SET_READ_MODE, mode)
    assert bench.price() is None
    assert bench.violated() == {"G01"}
    bench.do(feeds.SET_READ_MODE, feeds.READS_LIVE)
    assert bench.price() == ETH_E8


@pytest.mark.parametrize("reverts", [True, False])
def test_an_aggregator_without_a_round_is_no_data(bench: Bench, reverts: bool) -> None:
    empty = bench.evm.create(
        OWNER, own("PriceAggregator").creation_code(8, "ETH / USD", HEARTBEAT_S, 50, MIN_E8, MAX_E8)
    )
    bench.do(feeds.SET_MISSING_REVERTS, reverts, to=empty)
    bench.watch(bench.evm.create(OWNER, own("PriceFeed").creation_code(empty)))
    assert bench.violated() == {"G01"}


@pytest.mark.parametrize("answer", [0, -1])
def test_a_non_positive_answer(bench: Bench, answer: int) -> None:
    bench.set_round(2, answer)
    assert bench.violated() == {"G02", "G06"}


def test_a_frozen_feed_is_stale_a_second_after_its_grace(bench: Bench) -> None:
    made_at = bench.evm.timestamp() - 2  # the proxy's creation took a block of its own
    bench.evm.warp(made_at + HEARTBEAT_S + GRACE_S)
    assert bench.price() == ETH_E8
    bench.evm.warp(made_at + HEARTBEAT_S + GRACE_S + 1)
    assert bench.violated() == {"G03"}
    bench.post(ETH_E8)
    assert bench.price() == ETH_E8


def test_a_round_from_the_future(bench: Bench) -> None:
    bench.set_round(2, ETH_E8, updated_at=bench.evm.timestamp() + 1_000)
    assert bench.violated() == {"G04"}


def test_a_round_that_goes_back(bench: Bench) -> None:
    bench.post(ETH_E8)
    bench.post(ETH_E8)
    assert bench.price() == ETH_E8
    bench.set_round(2, ETH_E8)
    assert bench.violated() == {"G05"}


def test_a_round_whose_time_goes_back(bench: Bench) -> None:
    bench.post(ETH_E8)
    assert bench.price() == ETH_E8
    bench.set_round(3, ETH_E8, updated_at=bench.evm.timestamp() - 100)
    assert bench.violated() == {"G05"}


def test_an_answer_carried_over_from_an_earlier_round(bench: Bench) -> None:
    bench.set_round(5, ETH_E8, answered_in=4)
    assert bench.violated() == {"G03"}


def test_a_feed_that_clamps_at_its_bound(bench: Bench) -> None:
    bench.do(feeds.SET_BOUNDS, MIN_E8, MAX_E8, True)
    bench.post(MIN_E8 // 10)
    assert bench.violated() == {"G06"}


def test_a_feed_that_freezes_above_its_bound(bench: Bench) -> None:
    bench.post(MIN_E8 * 107 // 100)
    with pytest.raises(CallReverted, match="out of min-max"):
        bench.post(MIN_E8 // 10)
    assert bench.violated() == {"G06"}


def test_a_jump_without_a_second_source(bench: Bench) -> None:
    assert bench.price() == ETH_E8
    bench.post(ETH_E8 * 85 // 100)
    assert bench.violated() == {"G07"}
    assert bench.price() is None


def test_a_new_phase_with_other_decimals_and_bounds(bench: Bench) -> None:
    assert bench.price() == ETH_E8
    wide = bench.evm.create(
        OWNER,
        own("PriceAggregator").creation_code(
            18, "ETH / USD", HEARTBEAT_S, 50, MIN_E8 * 10**10, MAX_E8 * 10**10
        ),
    )
    bench.do(feeds.TRANSMIT, ETH_E8 * 10**10, to=wide)
    bench.do(feeds.PROPOSE_AGGREGATOR, wide, to=bench.proxy)
    bench.do(feeds.CONFIRM_AGGREGATOR, wide, to=bench.proxy)

    # The price is right at once; the old bounds are no longer held against it, and it says what changed.
    taken = bench.look()
    assert taken.price_e8("WETH") == ETH_E8
    bound = next(f for f in taken.prices["WETH"].findings if f.guard == "G06")
    assert bound.status is GuardStatus.NOT_APPLICABLE
    changes = bench.source.changes(execute(bench.evm, bench.source.reads()))
    assert [c.split()[0] for c in changes] == ["decimals", "phase", "aggregator"]

    bench.watch(bench.proxy)
    assert bench.source.changes(execute(bench.evm, bench.source.reads())) == ()
    bound = next(f for f in bench.look().prices["WETH"].findings if f.guard == "G06")
    assert bound.status is GuardStatus.OK


def test_aaves_own_mock_has_an_answer_and_no_time(chain: Chain) -> None:
    """@aave/core-v3 ``MockAggregator``: ``latestAnswer()`` alone, as AaveOracle needs no more."""
    mock = npm_artifact(
        node_modules(),
        AAVE,
        "artifacts/contracts/mocks/oracle/CLAggregators/MockAggregator.sol/MockAggregator.json",
    )
    address = chain.evm.create(OWNER, mock.creation_code(ETH_E8))
    bench = Bench(chain.evm, address, address)
    assert bench.source.feed == ChainlinkFeed(address, FeedShape.ANSWER_ONLY, "", 8)
    price = bench.look().prices["WETH"]
    assert price.status is PriceStatus.REFUSED
    assert any("carries no time" in reason for reason in price.reasons)
    bench.required = frozenset({"no_data", "non_positive"})
    assert bench.price() == ETH_E8


def test_a_capped_wrapper_has_its_feeds_time_until_the_cap_binds(bench: Bench) -> None:
    code = compile_vyper("CappedFeed", WRAPPER).creation_code(bench.proxy, ETH_E8)
    bench.watch(bench.evm.create(OWNER, code))
    assert bench.source.feed is not None
    assert bench.source.feed.behind is not None
    assert bench.source.feed.behind.aggregator == bench.aggregator
    reading = bench.look().prices["WETH"].reading
    assert isinstance(reading, PriceObs)
    assert reading.round_key == (1, 1)
    assert bench.price() == ETH_E8

    bench.post(ETH_E8 + 1)
    capped = bench.look().prices["WETH"]
    assert isinstance(capped.reading, PriceObs)
    assert (capped.reading.mantissa, capped.reading.published_at) == (ETH_E8, None)
    assert capped.reading.kind is FeedKind.COMPOSITE
    assert capped.status is PriceStatus.REFUSED


def test_what_is_no_feed_is_refused(chain: Chain) -> None:
    for address in (labelled_address("nobody"), chain.market.assets["WETH"].address):
        with pytest.raises(InputError, match="is not a price feed"):
            resolved(chain.evm, address)


def test_the_feeds_of_a_deployed_market_all_read(chain: Chain) -> None:
    for symbol, asset in chain.market.assets.items():
        for address in (asset.feed, asset.reference_feed):
            bench = Bench(chain.evm, address, address)
            assert bench.price() is not None, symbol
