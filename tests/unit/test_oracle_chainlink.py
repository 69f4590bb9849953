"""The Chainlink source against scripted contracts: every shape of feed, every way to say nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from eth_abi.abi import encode
from eth_utils.address import to_checksum_address

from contracts_abi.calls import Call, Function
from contracts_abi.errors import InputError
from contracts_abi.feeds import (
    AGGREGATOR,
    DECIMALS,
    DESCRIPTION,
    LATEST_ANSWER,
    LATEST_ROUND_DATA,
    MAX_ANSWER,
    MIN_ANSWER,
    PHASE_ID,
    join_round_id,
    split_round_id,
)
from oracle.interfaces import Source
from oracle.sources import sources
from oracle.sources.chainlink import (
    BEHIND,
    MAX_SUBMISSION,
    MIN_SUBMISSION,
    ChainlinkFeed,
    ChainlinkSource,
    FeedShape,
    Resolving,
    complete,
    resolve,
    resolve_reads,
)
from oracle.types import FeedKind, NoData, PriceObs, Reading

PROXY = "0x5f4eC3Df9cbd43714FE2740f5E3616155c5b8419"
AGG = to_checksum_address("0x" + "A1" * 20)
AGG2 = to_checksum_address("0x" + "A2" * 20)
WRAPPER = to_checksum_address("0x" + "B1" * 20)
OUTER = to_checksum_address("0x" + "B2" * 20)
T0 = 1_700_000_000

GETTER = {f.name: f for f in BEHIND}

Chain = dict[tuple[str, bytes], bytes | None]


def contract(address: str, answers: Mapping[Function, Any]) -> Chain:
    return {
        (address, f.encode()): encode(f.outputs, value if isinstance(value, tuple) else (value,))
        for f, value in answers.items()
    }


def proxy(
    answer: int = 2_000 * 10**8,
    *,
    round_id: int = join_round_id(6, 11_106),
    updated_at: int = T0,
    answered_in: int | None = None,
    aggregator: str = AGG,
) -> Chain:
    answered = round_id if answered_in is None else answered_in
    return contract(
        PROXY,
        {
            LATEST_ROUND_DATA: (round_id, answer, updated_at, updated_at, answered),
            LATEST_ANSWER: answer,
            DECIMALS: 8,
            DESCRIPTION: "ETH / USD",
            PHASE_ID: 6,
            AGGREGATOR: aggregator,
        },
    )


def aggregator(low: int = 10**8, high: int = 10**12, address: str = AGG) -> Chain:
    return contract(address, {MIN_ANSWER: low, MAX_ANSWER: high})


def executor(chain: Chain) -> Any:
    return lambda calls: [chain.get((c.to, c.data)) for c in calls]


def resolved(address: str, chain: Chain) -> ChainlinkFeed:
    return complete(resolve(address), executor(chain))


def build(feed: ChainlinkFeed | None = None, address: str = PROXY, **config: Any) -> ChainlinkSource:
    source: ChainlinkSource = sources.build(
        {"kind": "chainlink", "base": "ETH", "quote": "USD", "address": address, **config}
    )
    return source if feed is None else source.resolved(feed)


def read(source: ChainlinkSource, chain: Chain) -> tuple[Reading, Sequence[bytes | None]]:
    results = executor(chain)(source.reads())
    return source.decode(results, block=7, timestamp=T0 + 5), results


# --- round ids --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("round_id", "phase", "round_"),
    [
        (110680464442257320802, 6, 11_106),
        (18446744073709552519, 1, 903),
        (129127208515966884086, 7, 22_774),
        (92233720368547798489, 5, 40_409),
        (2**80 - 1, 2**16 - 1, 2**64 - 1),
        (5, 0, 5),
    ],
)
def test_round_ids_of_mainnet(round_id: int, phase: int, round_: int) -> None:
    assert split_round_id(round_id) == (phase, round_)
    reading, _ = read(build(), proxy(round_id=round_id))
    assert isinstance(reading, PriceObs)
    assert reading.round_key == (phase, round_)


# --- resolution -------------------------------------------------------------------------------------------


def test_a_proxy_resolves_in_two_stages() -> None:
    chain = proxy() | aggregator()
    step = resolve(PROXY)
    assert step.reads == resolve_reads(PROXY)
    assert {c.to for c in step.reads} == {PROXY}
    second = step.next(executor(chain)(step.reads))
    assert isinstance(second, Resolving)
    assert {c.to for c in second.reads} == {AGG}
    assert second.next(executor(chain)(second.reads)) == ChainlinkFeed(
        PROXY, FeedShape.PROXY, "ETH / USD", 8, 6, AGG, 10**8, 10**12
    )


def test_flux_bounds_go_by_other_names() -> None:
    feed = resolved(PROXY, proxy() | contract(AGG, {MIN_SUBMISSION: 5, MAX_SUBMISSION: 9}))
    assert (feed.min_answer, feed.max_answer, feed.flux_bounds) == (5, 9, True)
    source = build(feed)
    _, results = read(source, proxy() | contract(AGG, {MIN_SUBMISSION: 5, MAX_SUBMISSION: 9}))
    context = source.context(results, timestamp=T0)
    assert (context.min_answer, context.max_answer) == (5, 9)


@pytest.mark.parametrize(("function", "bounds"), [(MIN_ANSWER, (3, None)), (MAX_ANSWER, (None, 3))])
def test_one_bound_alone_is_read_as_well(function: Function, bounds: tuple[int | None, int | None]) -> None:
    chain = proxy() | contract(AGG, {function: 3})
    source = build(resolved(PROXY, chain))
    _, results = read(source, chain)
    context = source.context(results, timestamp=T0)
    assert (context.min_answer, context.max_answer) == bounds


def test_an_aggregator_without_bounds_has_none() -> None:
    feed = resolved(PROXY, proxy())
    assert (feed.aggregator, feed.min_answer, feed.max_answer) == (AGG, None, None)
    assert len(build(feed).reads()) == len(build().reads())


def test_a_bare_aggregator_is_its_own() -> None:
    chain = contract(
        AGG,
        {LATEST_ROUND_DATA: (3, 7, T0, T0, 3), DECIMALS: 18, DESCRIPTION: "x", MIN_ANSWER: 1, MAX_ANSWER: 9},
    )
    feed = resolved(AGG, chain)
    assert feed == ChainlinkFeed(AGG, FeedShape.AGGREGATOR, "x", 18, 0, AGG, 1, 9)
    source = build(feed, AGG)
    reading, results = read(source, chain)
    assert isinstance(reading, PriceObs)
    assert reading.round_key == (0, 3)
    assert source.context(results, timestamp=T0).max_answer == 9
    assert source.changes(results) == ()


def test_a_gated_proxy_is_a_feed_that_says_nothing() -> None:
    chain = proxy()
    for refused in (LATEST_ROUND_DATA, LATEST_ANSWER):
        chain[PROXY, refused.encode()] = None
    feed = resolved(PROXY, chain)
    assert feed.shape is FeedShape.PROXY
    reading, _ = read(build(feed), chain)
    assert isinstance(reading, NoData)


@pytest.mark.parametrize(
    ("chain", "why"),
    [
        ({}, "no decimals"),
        (contract(PROXY, {DECIMALS: 18, DESCRIPTION: "a token"}), "neither latestRoundData"),
        (contract(PROXY, {LATEST_ANSWER: 5}), "no decimals"),
    ],
)
def test_what_is_no_feed_is_refused(chain: Chain, why: str) -> None:
    with pytest.raises(InputError, match=rf"{PROXY} is not a price feed: .*{why}.*check the address"):
        resolved(PROXY, chain)


def test_an_address_is_checked_and_checksummed() -> None:
    assert resolve(PROXY.lower()).reads == resolve(PROXY).reads
    with pytest.raises(InputError, match=r"'0x12' is not an address"):
        resolve("0x12")


def test_a_step_wants_as_many_results_as_reads() -> None:
    with pytest.raises(ValueError, match="0 results"):
        resolve(PROXY).next([])


# --- feeds that only have latestAnswer() ------------------------------------------------------------------


def wrapper(
    answer: int, behind: str | None = PROXY, getter: str = BEHIND[0].name, address: str = WRAPPER
) -> Chain:
    answers: dict[Function, Any] = {LATEST_ANSWER: answer, DECIMALS: 8, DESCRIPTION: "wrapped"}
    if behind is not None:
        answers[GETTER[getter]] = behind
    return contract(address, answers)


@pytest.mark.parametrize("getter", GETTER)
def test_a_wrapper_is_resolved_to_the_feed_behind_it(getter: str) -> None:
    chain = wrapper(2_000 * 10**8, getter=getter) | proxy() | aggregator()
    feed = resolved(WRAPPER, chain)
    assert feed.shape is FeedShape.ANSWER_ONLY
    assert feed.behind == resolved(PROXY, chain)
    source = build(feed, WRAPPER, name="weth")
    reading, results = read(source, chain)
    assert isinstance(reading, PriceObs)
    assert (reading.published_at, reading.round_key, reading.source_id) == (T0, (6, 11_106), "weth")
    context = source.context(results, timestamp=T0)
    assert (context.min_answer, context.max_answer) == (10**8, 10**12)


def test_a_wrapper_that_computes_a_price_of_its_own_has_no_time() -> None:
    chain = wrapper(1_999 * 10**8) | proxy() | aggregator()
    reading, _ = read(build(resolved(WRAPPER, chain), WRAPPER), chain)
    assert isinstance(reading, PriceObs)
    assert reading.mantissa == 1_999 * 10**8
    assert reading.published_at is None
    assert reading.round_key is None
    assert reading.kind is FeedKind.COMPOSITE


def test_a_wrapper_at_another_scale_takes_time_but_not_bounds() -> None:
    chain = wrapper(2_000 * 10**8) | proxy() | aggregator()
    chain |= contract(WRAPPER, {LATEST_ANSWER: 2_000 * 10**18, DECIMALS: 18})
    source = build(resolved(WRAPPER, chain), WRAPPER)
    reading, results = read(source, chain)
    assert isinstance(reading, PriceObs)
    assert reading.published_at == T0
    assert source.context(results, timestamp=T0).min_answer is None


def test_a_wrapper_around_a_wrapper() -> None:
    answer = 2_000 * 10**8
    chain = wrapper(answer, WRAPPER, address=OUTER) | wrapper(answer) | proxy() | aggregator()
    feed = resolved(OUTER, chain)
    assert feed.behind is not None
    assert feed.behind.behind is not None
    reading, _ = read(build(feed, OUTER), chain)
    assert isinstance(reading, PriceObs)
    assert reading.published_at == T0


def test_wrappers_that_name_each_other_end_somewhere() -> None:
    feed: ChainlinkFeed | None = resolved(OUTER, wrapper(1, WRAPPER, address=OUTER) | wrapper(1, OUTER))
    depth = 0
    while feed is not None:
        assert feed.shape is FeedShape.ANSWER_ONLY
        feed, depth = feed.behind, depth + 1
    assert depth == 5


@pytest.mark.parametrize("behind", [None, AGG2, "0x" + "00" * 20, WRAPPER])
def test_a_wrapper_around_nothing_is_marked_as_without_a_time(behind: str | None) -> None:
    chain = wrapper(5, behind)
    feed = resolved(WRAPPER, chain)
    assert (feed.shape, feed.behind) == (FeedShape.ANSWER_ONLY, None)
    reading, _ = read(build(feed, WRAPPER), chain)
    assert isinstance(reading, PriceObs)
    assert (reading.mantissa, reading.published_at, reading.kind) == (5, None, FeedKind.PUSH)


def test_a_wrapper_whose_feed_falls_silent_keeps_its_answer_without_a_time() -> None:
    chain = wrapper(2_000 * 10**8) | proxy() | aggregator()
    source = build(resolved(WRAPPER, chain), WRAPPER)
    reading, _ = read(source, wrapper(2_000 * 10**8))
    assert isinstance(reading, PriceObs)
    assert reading.published_at is None
    silent, _ = read(source, proxy() | aggregator())
    assert isinstance(silent, NoData)


# --- readings ---------------------------------------------------------------------------------------------


def test_a_reading_is_complete() -> None:
    chain = proxy(answered_in=join_round_id(6, 11_105)) | aggregator()
    source = build(resolved(PROXY, chain), heartbeat_s=3_600, deviation_bps=50, grace_s=60)
    assert isinstance(source, Source)
    reading, results = read(source, chain)
    assert reading == PriceObs(
        "ETH",
        "USD",
        2_000 * 10**8,
        8,
        FeedKind.PUSH,
        f"chainlink:{PROXY}",
        published_at=T0,
        observed_at=T0 + 5,
        block=7,
        round_key=(6, 11_106),
        answered_key=(6, 11_105),
        raw=chain[PROXY, LATEST_ROUND_DATA.encode()] or b"",
    )
    context = source.context(results, timestamp=T0 + 5)
    assert (context.now, context.heartbeat_s, context.grace_s, context.deviation_bps) == (
        T0 + 5,
        3_600,
        60,
        50,
    )
    assert (context.min_answer, context.max_answer) == (10**8, 10**12)


@pytest.mark.parametrize("answer", [0, -1, -(2**255), 2**255 - 1])
def test_any_answer_is_passed_on_for_the_guards(answer: int) -> None:
    reading, _ = read(build(), proxy(answer))
    assert isinstance(reading, PriceObs)
    assert reading.mantissa == answer


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ({(PROXY, LATEST_ROUND_DATA.encode()): None}, "latestRoundData() gave no round"),
        ({(PROXY, LATEST_ROUND_DATA.encode()): b""}, "latestRoundData() gave no round"),
        ({(PROXY, LATEST_ROUND_DATA.encode()): b"\x01" * 31}, "latestRoundData() gave no round"),
        ({(PROXY, LATEST_ROUND_DATA.encode()): b"\xff" * 160}, "latestRoundData() gave no round"),
        ({(PROXY, DECIMALS.encode()): None}, "decimals() gave no scale"),
        ({(PROXY, DECIMALS.encode()): (256).to_bytes(32, "big")}, "decimals() gave no scale"),
        (proxy(0, updated_at=0, round_id=join_round_id(6, 0)), "was never written"),
        (contract(PROXY, {LATEST_ROUND_DATA: (0, 0, 0, 0, 0)}), "round 0 was never written"),
    ],
)
def test_a_revert_zeros_and_rubbish_are_all_no_data(broken: Chain, reason: str) -> None:
    reading, _ = read(build(), proxy() | broken)
    assert isinstance(reading, NoData)
    assert reason in reading.reason
    assert (reading.source_id, reading.observed_at, reading.block) == (f"chainlink:{PROXY}", T0 + 5, 7)


def test_bounds_of_an_aggregator_that_is_no_longer_in_use_are_unknown() -> None:
    chain = proxy() | aggregator()
    source = build(resolved(PROXY, chain))
    switched = proxy(aggregator=AGG2, round_id=join_round_id(7, 1)) | aggregator()
    switched |= contract(PROXY, {PHASE_ID: 7, DECIMALS: 18})
    reading, results = read(source, switched)
    assert isinstance(reading, PriceObs)
    assert reading.decimals == 18
    context = source.context(results, timestamp=T0)
    assert (context.min_answer, context.max_answer) == (None, None)
    assert source.changes(results) == (
        "decimals was 8, is 18",
        "phase was 6, is 7",
        f"aggregator was {AGG!r}, is {AGG2!r}",
    )


def test_a_failed_read_is_no_change_but_leaves_bounds_unknown() -> None:
    chain = proxy() | aggregator()
    source = build(resolved(PROXY, chain))
    results: list[bytes | None] = [None] * len(source.reads())
    assert source.changes(results) == ()
    assert source.context(results, timestamp=T0).min_answer is None


def test_before_resolution_there_are_no_bounds_and_no_changes() -> None:
    source = build()
    _, results = read(source, proxy())
    assert source.context(results, timestamp=T0).min_answer is None
    assert source.changes(results) == ()


def test_all_reads_of_a_resolved_feed_are_one_batch() -> None:
    source = build(resolved(PROXY, proxy() | aggregator()))
    calls: list[Call[Any]] = source.reads()
    assert [c.to for c in calls] == [PROXY] * 5 + [AGG] * 2


def test_configuration() -> None:
    assert build(address=PROXY.lower()).address == PROXY
    with pytest.raises(InputError, match=r"address.*not an address"):
        build(address="0x1234")
    with pytest.raises(InputError, match=r"did you mean 'heartbeat_s'"):
        build(heartbeat=3_600)
    with pytest.raises(ValueError, match="is not"):
        build().resolved(ChainlinkFeed(AGG, FeedShape.PROXY, "", 8))
