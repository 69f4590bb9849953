"""PriceFeed and PriceAggregator: how a feed reads, and each way in which a real one has failed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from contracts_abi import aave_v3, feeds
from contracts_abi.calls import Function
from contracts_abi.errors import CallReverted, DataError
from simulation.chain.artifacts import own
from simulation.chain.evm import Evm, find_log, labelled_address, read, transact
from tests.chain.conftest import Chain

OWNER = labelled_address("feed owner")
STRANGER = labelled_address("stranger")
ETH_E8 = 19_450_000_000
MIN_E8, MAX_E8 = 1_000_000_000, 100_000_000_000
HEARTBEAT_S, DEVIATION_BPS = 3_600, 50


def new_aggregator(evm: Evm, decimals: int = 8, low: int = MIN_E8, high: int = MAX_E8) -> str:
    code = own("PriceAggregator").creation_code(decimals, "ETH / USD", HEARTBEAT_S, DEVIATION_BPS, low, high)
    return evm.create(OWNER, code)


@dataclass(frozen=True)
class Feed:
    evm: Evm
    proxy: str
    aggregator: str

    def read(self, fn: Function, *args: Any) -> Any:
        return read(self.evm, fn.call(self.proxy, *args))

    def read_aggregator(self, fn: Function, *args: Any) -> Any:
        return read(self.evm, fn.call(self.aggregator, *args))

    def do(self, fn: Function, *args: Any, to: str | None = None) -> None:
        transact(self.evm, OWNER, to or self.aggregator, fn, *args)

    def post(self, answer: int) -> int:
        """Post an answer and return the block's time."""
        return transact(self.evm, OWNER, self.aggregator, feeds.TRANSMIT, answer).timestamp

    def set_round(
        self,
        round_: int,
        answer: int,
        updated_at: int,
        *,
        started_at: int | None = None,
        answered_in: int = -1,
    ) -> None:
        self.do(
            feeds.SET_ROUND,
            round_,
            answer,
            updated_at if started_at is None else started_at,
            updated_at,
            round_ if answered_in < 0 else answered_in,
        )

    def switch_to(self, aggregator: str) -> None:
        self.do(feeds.PROPOSE_AGGREGATOR, aggregator, to=self.proxy)
        self.do(feeds.CONFIRM_AGGREGATOR, aggregator, to=self.proxy)


@pytest.fixture
def feed(chain: Chain) -> Feed:
    aggregator = new_aggregator(chain.evm)
    return Feed(chain.evm, chain.evm.create(OWNER, own("PriceFeed").creation_code(aggregator)), aggregator)


def test_a_posted_answer_reads_the_same_through_every_function(feed: Feed) -> None:
    first = feed.post(ETH_E8)
    second = feed.post(ETH_E8 - 1)
    round_id = feeds.join_round_id(1, 2)
    assert feed.read(feeds.LATEST_ROUND_DATA) == (round_id, ETH_E8 - 1, second, second, round_id)
    assert feed.read(feeds.LATEST_ANSWER) == ETH_E8 - 1
    assert feed.read(feeds.LATEST_TIMESTAMP) == second
    assert feed.read(feeds.LATEST_ROUND) == round_id
    before = feeds.join_round_id(1, 1)
    assert feed.read(feeds.GET_ROUND_DATA, before) == (before, ETH_E8, first, first, before)
    assert feed.read(feeds.GET_ANSWER, before) == ETH_E8
    assert feed.read(feeds.GET_TIMESTAMP, before) == first
    assert feed.read(feeds.DECIMALS) == 8
    assert feed.read(feeds.DESCRIPTION) == "ETH / USD"
    assert feed.read(feeds.AGGREGATOR) == feed.read(feeds.PHASE_AGGREGATORS, 1) == feed.aggregator
    assert feed.read_aggregator(feeds.LATEST_ROUND_DATA) == (2, ETH_E8 - 1, second, second, 2)
    assert feed.read_aggregator(feeds.MIN_ANSWER) == MIN_E8
    assert feed.read_aggregator(feeds.MAX_ANSWER) == MAX_E8


def test_a_transmission_is_logged_as_aggregators_log_it(feed: Feed) -> None:
    sent = transact(feed.evm, OWNER, feed.aggregator, feeds.TRANSMIT, ETH_E8)
    assert find_log(sent, feeds.ANSWER_UPDATED) == {
        "current": ETH_E8,
        "roundId": 1,
        "updatedAt": sent.timestamp,
    }
    assert find_log(sent, feeds.NEW_ROUND) == {"roundId": 1, "startedBy": OWNER, "startedAt": sent.timestamp}


def test_round_ids_of_real_feeds_come_apart_into_phase_and_round() -> None:
    for round_id, phase, round_ in (
        (110680464442257320802, 6, 11106),
        (18446744073709552519, 1, 903),
        (129127208515966884086, 7, 22774),
        (92233720368547798489, 5, 40409),
    ):
        assert feeds.split_round_id(round_id) == (phase, round_)
        assert feeds.join_round_id(phase, round_) == round_id


def test_only_the_transmitter_posts_and_only_the_owner_controls(feed: Feed) -> None:
    for fn, args in (
        (feeds.TRANSMIT, (ETH_E8,)),
        (feeds.SET_ROUND, (1, 1, 1, 1, 1)),
        (feeds.SET_BOUNDS, (1, 2, False)),
        (feeds.SET_READ_MODE, (feeds.READS_REVERT,)),
        (feeds.SET_MISSING_REVERTS, (True,)),
        (feeds.SET_TRANSMITTER, (STRANGER,)),
    ):
        with pytest.raises(CallReverted, match="only"):
            transact(feed.evm, STRANGER, feed.aggregator, fn, *args)
    for fn in (feeds.PROPOSE_AGGREGATOR, feeds.CONFIRM_AGGREGATOR):
        with pytest.raises(CallReverted, match="Only callable by owner"):
            transact(feed.evm, STRANGER, feed.proxy, fn, feed.aggregator)
    feed.do(feeds.SET_TRANSMITTER, STRANGER)
    transact(feed.evm, STRANGER, feed.aggregator, feeds.TRANSMIT, ETH_E8)
    with pytest.raises(CallReverted, match="transmitter only"):
        feed.post(ETH_E8)


def test_the_published_rule_asks_for_a_round_at_heartbeat_or_deviation(feed: Feed) -> None:
    assert feed.read_aggregator(feeds.DUE, ETH_E8), "no round yet"
    posted = feed.post(ETH_E8)
    step = ETH_E8 * DEVIATION_BPS // 10_000
    assert not feed.read_aggregator(feeds.DUE, ETH_E8 + step - 1)
    assert not feed.read_aggregator(feeds.DUE, ETH_E8 - step + 1)
    assert feed.read_aggregator(feeds.DUE, ETH_E8 + step)
    assert feed.read_aggregator(feeds.DUE, ETH_E8 - step)
    feed.evm.warp(posted + HEARTBEAT_S - 1)
    assert not feed.read_aggregator(feeds.DUE, ETH_E8)
    feed.evm.warp(posted + HEARTBEAT_S)
    assert feed.read_aggregator(feeds.DUE, ETH_E8)


# --- failures -----------------------------------------------------------------------------------------------


def test_freeze_keeps_the_last_answer_and_its_time(feed: Feed) -> None:
    posted = feed.post(ETH_E8)
    feed.evm.warp(posted + 6 * HEARTBEAT_S)
    _, answer, _, updated_at, _ = feed.read(feeds.LATEST_ROUND_DATA)
    assert (answer, updated_at) == (ETH_E8, posted)


def test_an_answer_beyond_the_bounds_is_refused_and_so_freezes_the_feed(feed: Feed) -> None:
    for bound in (MIN_E8, MAX_E8):
        feed.post(bound)
    last = feed.read(feeds.LATEST_ROUND_DATA)
    for answer in (MIN_E8 - 1, MAX_E8 + 1, 0, -1):
        with pytest.raises(CallReverted, match="min-max"):
            feed.post(answer)
    assert feed.read(feeds.LATEST_ROUND_DATA) == last


def test_an_answer_beyond_the_bounds_is_clamped_where_the_aggregator_clamps(feed: Feed) -> None:
    feed.do(feeds.SET_BOUNDS, MIN_E8, MAX_E8, True)
    for answer, printed in ((MIN_E8 // 10, MIN_E8), (MAX_E8 * 10, MAX_E8), (ETH_E8, ETH_E8)):
        feed.post(answer)
        assert feed.read(feeds.LATEST_ANSWER) == printed


def test_a_wrong_round_jump_forward_and_back(feed: Feed) -> None:
    posted = feed.post(ETH_E8)
    feed.set_round(900, ETH_E8 + 1, posted + 5)
    assert feeds.split_round_id(feed.read(feeds.LATEST_ROUND)) == (1, 900)
    feed.set_round(1, ETH_E8 + 2, posted - 60)
    round_id, answer, _, updated_at, _ = feed.read(feeds.LATEST_ROUND_DATA)
    assert (feeds.split_round_id(round_id), answer, updated_at) == ((1, 1), ETH_E8 + 2, posted - 60)
    # The rounds between were never written.
    assert feed.read(feeds.GET_ROUND_DATA, feeds.join_round_id(1, 500))[1:4] == (0, 0, 0)


@pytest.mark.parametrize("answer", [0, -1, -(2**255)])
def test_zero_and_negative_answers(feed: Feed, answer: int) -> None:
    feed.set_round(1, answer, feed.evm.timestamp())
    assert feed.read(feeds.LATEST_ANSWER) == answer
    assert feed.read(feeds.LATEST_ROUND_DATA)[1] == answer


def test_a_timestamp_in_the_future(feed: Feed) -> None:
    later = feed.evm.timestamp() + 86_400
    feed.set_round(1, ETH_E8, later)
    assert feed.read(feeds.LATEST_ROUND_DATA)[3] == later > feed.evm.timestamp()


def test_a_round_carried_over_from_an_earlier_one(feed: Feed) -> None:
    feed.set_round(7, ETH_E8, feed.evm.timestamp(), answered_in=5)
    round_id, *_, answered_in = feed.read(feeds.LATEST_ROUND_DATA)
    assert feeds.split_round_id(answered_in) == (1, 5)
    assert answered_in < round_id


def test_a_round_that_was_started_and_never_answered(feed: Feed) -> None:
    feed.set_round(1, 0, 0, started_at=feed.evm.timestamp())
    assert feed.read(feeds.LATEST_ROUND_DATA)[3] == 0
    feed.do(feeds.SET_MISSING_REVERTS, True)
    with pytest.raises(CallReverted, match="No data present"):
        feed.read(feeds.LATEST_ROUND_DATA)


def test_reads_that_revert_take_the_protocols_price_with_them(feed: Feed, chain: Chain) -> None:
    market = chain.market
    weth = market.asset("WETH")
    feed.post(ETH_E8)
    transact(
        chain.evm,
        market.deployer,
        market.oracle,
        aave_v3.SET_ASSET_SOURCES,
        [weth.address],
        [feed.proxy],
    )
    price = aave_v3.GET_ASSET_PRICE.call(market.oracle, weth.address)
    assert read(chain.evm, price) == ETH_E8
    feed.do(feeds.SET_READ_MODE, feeds.READS_REVERT)
    for fn in (feeds.LATEST_ROUND_DATA, feeds.LATEST_ANSWER, feeds.LATEST_ROUND, feeds.LATEST_TIMESTAMP):
        with pytest.raises(CallReverted, match="switched off"):
            feed.read(fn)
    with pytest.raises(CallReverted):
        read(chain.evm, price)
    feed.do(feeds.SET_READ_MODE, feeds.READS_LIVE)
    assert read(chain.evm, price) == ETH_E8


def test_reads_that_answer_zeros(feed: Feed) -> None:
    feed.post(ETH_E8)
    feed.do(feeds.SET_READ_MODE, feeds.READS_ZEROS)
    assert feed.read(feeds.LATEST_ANSWER) == 0
    assert feed.read_aggregator(feeds.LATEST_ROUND_DATA) == (0, 0, 0, 0, 0)
    # The proxy puts its phase on whatever it is told, as the real one does.
    assert feed.read(feeds.LATEST_ROUND_DATA)[1:4] == (0, 0, 0)


def test_no_code_behind_the_proxy_is_no_price(feed: Feed) -> None:
    feed.post(ETH_E8)
    feed.switch_to(STRANGER)
    with pytest.raises(CallReverted):
        feed.read(feeds.LATEST_ROUND_DATA)
    with pytest.raises(DataError):
        feeds.LATEST_ROUND_DATA.decode(feed.evm.call(STRANGER, feeds.LATEST_ROUND_DATA.encode()))


def test_a_round_never_written_reads_zeros_or_reverts(feed: Feed) -> None:
    feed.post(ETH_E8)
    missing = feeds.join_round_id(1, 99)
    assert feed.read(feeds.GET_ROUND_DATA, missing) == (missing, 0, 0, 0, feeds.join_round_id(1, 0))
    feed.do(feeds.SET_MISSING_REVERTS, True)
    with pytest.raises(CallReverted, match="No data present"):
        feed.read(feeds.GET_ROUND_DATA, missing)


def test_a_phase_that_never_was_reverts(feed: Feed) -> None:
    feed.post(ETH_E8)
    with pytest.raises(CallReverted):
        feed.read(feeds.GET_ROUND_DATA, feeds.join_round_id(2, 1))
    assert feed.read(feeds.GET_ANSWER, feeds.join_round_id(2, 1)) == 0
    assert feed.read(feeds.GET_ANSWER, 2**255) == 0


def test_a_phase_switch_with_other_decimals_and_rounds_older_than_the_last(feed: Feed) -> None:
    feed.post(ETH_E8)
    last = feed.post(ETH_E8)
    scale = 10**10
    successor = Feed(feed.evm, feed.proxy, new_aggregator(feed.evm, 18, MIN_E8 * scale, MAX_E8 * scale))
    # The new phase was receiving rounds before the switch, and the old one goes on receiving after it.
    successor.set_round(40, ETH_E8 * scale, last - 30)
    feed.do(feeds.PROPOSE_AGGREGATOR, successor.aggregator, to=feed.proxy)
    assert feed.read(feeds.PROPOSED_AGGREGATOR) == successor.aggregator
    assert feed.read(feeds.DECIMALS) == 8, "a proposal changes nothing"
    with pytest.raises(CallReverted, match="not the proposed one"):
        feed.do(feeds.CONFIRM_AGGREGATOR, feed.aggregator, to=feed.proxy)
    confirmed = transact(feed.evm, OWNER, feed.proxy, feeds.CONFIRM_AGGREGATOR, successor.aggregator)
    assert find_log(confirmed, feeds.AGGREGATOR_CONFIRMED) == {
        "previous": feed.aggregator,
        "latest": successor.aggregator,
    }

    assert feed.read(feeds.PHASE_ID) == 2
    assert feed.read(feeds.AGGREGATOR) == successor.aggregator
    assert feed.read(feeds.PHASE_AGGREGATORS, 1) == feed.aggregator
    assert feed.read(feeds.DECIMALS) == 18
    round_id, answer, _, updated_at, _ = feed.read(feeds.LATEST_ROUND_DATA)
    assert feeds.split_round_id(round_id) == (2, 40)
    assert (answer, updated_at) == (ETH_E8 * scale, last - 30)
    old = feed.post(ETH_E8 + 7)
    assert feed.read(feeds.GET_ROUND_DATA, feeds.join_round_id(1, 3))[1:4] == (ETH_E8 + 7, old, old)
    assert feed.read(feeds.LATEST_ANSWER) == ETH_E8 * scale
