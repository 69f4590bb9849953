"""Readings become a snapshot: what is chosen, what is refused, what is remembered."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from contracts_abi.calls import Call
from contracts_abi.errors import InputError
from contracts_abi.feeds import LATEST_ANSWER
from oracle.guards import basic_guards, guards
from oracle.interfaces import FeedContext, Source
from oracle.snapshot import (
    Feed,
    accept,
    judge,
    longer,
    plain_snapshot,
    rewind,
    snapshot,
    snapshot_reads,
)
from oracle.types import (
    FeedKind,
    GuardStatus,
    NoData,
    PriceObs,
    PriceSnapshot,
    PriceStatus,
    Reading,
)

T0 = 1_700_000_000
USD8 = 10**8


@dataclass(frozen=True)
class Scripted:
    """A source with one read; its answer is a decimal mantissa as text, or None for a failed read."""

    source_id: str
    base: str = "ETH"
    quote: str = "USD"
    age_s: int | None = 0
    heartbeat_s: int | None = 3_600
    round_: int = 1

    def reads(self) -> list[Call[Any]]:
        return [LATEST_ANSWER.call("0x" + "11" * 20, label=self.source_id)]

    def decode(self, results: Sequence[bytes | None], *, block: int, timestamp: int) -> Reading:
        (answer,) = results
        if answer is None:
            return NoData(self.base, self.quote, self.source_id, timestamp, "reverted", block)
        published_at = None if self.age_s is None else timestamp - self.age_s
        return PriceObs(
            self.base,
            self.quote,
            int(answer),
            8,
            FeedKind.PUSH,
            self.source_id,
            published_at,
            timestamp,
            block,
            round_key=(1, self.round_),
        )

    def context(self, results: Sequence[bytes | None], *, timestamp: int) -> FeedContext:
        return FeedContext(now=timestamp, heartbeat_s=self.heartbeat_s)


def price(usd: int) -> bytes:
    return str(usd * USD8).encode()


def take(
    feeds: Sequence[Feed],
    results: Sequence[bytes | None],
    history: Any = None,
    block: int = 10,
    **changes: Any,
) -> PriceSnapshot:
    return snapshot(
        "reference", "USD", feeds, results, history or {}, block=block, timestamp=T0 + 12 * block, **changes
    )


def test_the_stub_is_a_source() -> None:
    assert isinstance(Scripted("a"), Source)


def test_a_snapshot_of_good_prices() -> None:
    feeds = [Feed("WETH", (Scripted("eth"),)), Feed("WBTC", (Scripted("btc", base="BTC"),))]
    assert [call.label for call in snapshot_reads(feeds)] == ["eth", "btc"]
    taken = take(feeds, [price(200), price(8_000)])
    assert taken.price_e8("WETH") == 200 * USD8
    assert taken.price_e8("WBTC") == 8_000 * USD8
    assert taken.unknown() == ()
    assert (taken.view, taken.block, taken.timestamp, taken.quote) == ("reference", 10, T0 + 120, "USD")
    assert taken.prices["WETH"].status is PriceStatus.OK
    assert taken.prices["WETH"].reasons == ()


@pytest.mark.parametrize(
    ("source", "answer", "status", "reason"),
    [
        (Scripted("a"), None, PriceStatus.MISSING, "G01 no data: reverted"),
        (Scripted("a"), b"0", PriceStatus.REFUSED, "G02 answer 0 is not positive"),
        (Scripted("a", age_s=4_000), price(1), PriceStatus.REFUSED, "G03 price is 4000 s old"),
        (
            Scripted("a", age_s=None),
            price(1),
            PriceStatus.REFUSED,
            "G03 not applicable: the source carries no time",
        ),
        (
            Scripted("a", heartbeat_s=None),
            price(1),
            PriceStatus.REFUSED,
            "G03 not applicable: heartbeat unknown",
        ),
        (Scripted("a", age_s=-100), price(1), PriceStatus.REFUSED, "G04 price is 100 s ahead"),
    ],
)
def test_a_bad_price_is_unknown_and_says_why(
    source: Scripted, answer: bytes | None, status: PriceStatus, reason: str
) -> None:
    taken = take([Feed("WETH", (source,))], [answer])
    assert taken.prices["WETH"].status is status
    assert taken.price_e8("WETH") is None
    assert taken.unknown() == ("WETH",)
    assert any(r.startswith(reason) for r in taken.prices["WETH"].reasons)
    assert accept({}, taken) == {}


def test_a_price_without_age_stands_where_the_configuration_says_that_it_may() -> None:
    feed = Feed("WETH", (Scripted("a", age_s=None),), required=frozenset({"no_data"}))
    assert take([feed], [price(1)]).price_e8("WETH") == USD8


def test_a_required_guard_that_is_not_asked_refuses() -> None:
    reading = Scripted("a").decode([price(1)], block=1, timestamp=T0)
    judged = judge(reading, (), (), FeedContext(now=T0), guards=(), required=frozenset({"stale"}))
    assert judged.status is PriceStatus.REFUSED


def test_the_first_source_that_stands_is_the_price_and_all_findings_are_kept() -> None:
    feed = Feed("WETH", (Scripted("first"), Scripted("second"), Scripted("third")))
    taken = take([feed], [b"0", price(200), price(201)])
    chosen = taken.prices["WETH"]
    assert chosen.reading.source_id == "second"
    assert chosen.status is PriceStatus.OK
    assert {f.source_id for f in chosen.findings} == {"first", "second", "third"}
    assert [(o.reading.source_id, o.status) for o in chosen.others] == [
        ("first", PriceStatus.REFUSED),
        ("third", PriceStatus.OK),
    ]


def test_a_refused_price_tells_more_than_a_missing_one() -> None:
    feed = Feed("WETH", (Scripted("first"), Scripted("second")))
    chosen = take([feed], [None, b"0"]).prices["WETH"]
    assert (chosen.reading.source_id, chosen.status) == ("second", PriceStatus.REFUSED)


def test_sources_of_one_feed_are_each_others_peers() -> None:
    alone = Feed("WETH", (Scripted("first", round_=2),))
    both = Feed("WETH", (Scripted("first", round_=2), Scripted("second", round_=2)))
    history = accept({}, take([Feed("WETH", (Scripted("first"),))], [price(200)]))
    assert take([alone], [price(100)], history, block=11).price_e8("WETH") is None
    assert take([both], [price(100), price(101)], history, block=11).price_e8("WETH") == 100 * USD8


@pytest.mark.parametrize(
    "dead",
    [
        Scripted("second", age_s=4_000),
        Scripted("second", age_s=-100),
        Scripted("second", age_s=None),
        Scripted("second", heartbeat_s=None),
    ],
)
def test_a_feed_that_is_not_believed_confirms_nothing_and_contradicts_nothing(dead: Scripted) -> None:
    history = accept({}, take([Feed("WETH", (Scripted("first"),))], [price(200)]))
    feed = Feed("WETH", (Scripted("first"), dead), (*basic_guards(), guards.build({"kind": "cross_dev"})))
    jumped = take([feed], [price(100), price(100)], history, block=11).prices["WETH"]
    assert jumped.status is PriceStatus.REFUSED
    assert any("no second source" in reason for reason in jumped.reasons)
    calm = take([feed], [price(200), price(100)], history, block=11).prices["WETH"]
    assert (calm.status, calm.reading.source_id) == (PriceStatus.OK, "first")


def test_history_holds_what_stood_of_every_source() -> None:
    feed = Feed("WETH", (Scripted("first"), Scripted("second"), Scripted("third")))
    history = accept({}, take([feed], [price(200), price(201), b"0"]))
    assert {k: [o.mantissa for o in v] for k, v in history.items()} == {
        "first": [200 * USD8],
        "second": [201 * USD8],
    }


def test_history_keeps_the_first_and_last_reading_of_a_round_and_is_bounded() -> None:
    history: dict[str, tuple[PriceObs, ...]] = {}
    for block in range(30):
        source = Scripted("a", round_=block // 10, age_s=12 * (block % 10))
        taken = take([Feed("WETH", (source,))], [price(200)], history, block)
        history = accept(history, taken)
    assert [(o.round_key, o.block) for o in history["a"]] == [
        ((1, 0), 0),
        ((1, 0), 9),
        ((1, 1), 10),
        ((1, 1), 19),
        ((1, 2), 20),
        ((1, 2), 29),
    ]
    assert [o.block for o in accept(history, taken, keep=3)["a"]] == [19, 20, 29]


def test_accept_leaves_its_argument_alone() -> None:
    history: dict[str, tuple[PriceObs, ...]] = {}
    accept(history, take([Feed("WETH", (Scripted("a"),))], [price(1)]))
    assert history == {}


def test_a_feed_whose_rounds_have_all_one_key_or_none_is_remembered_by_its_times() -> None:
    for key in ((0, 1), None):
        past: tuple[PriceObs, ...] = ()
        for second in range(30):
            made = T0 + second // 10
            obs = PriceObs("ETH", "USD", USD8, 8, FeedKind.PUSH, "a", made, T0 + second, round_key=key)
            past = longer(past, obs)
        assert [o.observed_at - T0 for o in past] == [0, 9, 10, 19, 20, 29]


def test_a_reorganisation_is_no_rollback() -> None:
    def at(block: int, round_: int, history: Any) -> PriceSnapshot:
        return take([Feed("WETH", (Scripted("a", round_=round_),))], [price(200)], history, block)

    history = accept({}, at(10, 5, {}))
    history = accept(history, at(11, 6, history))
    # Block 11 is replaced by one in which round 6 has not come yet.
    assert [[o.block for o in rewind(history, b)["a"]] for b in (9, 10, 11)] == [[], [10], [10, 11]]
    assert at(11, 5, history).price_e8("WETH") is None
    assert at(11, 5, rewind(history, 10)).price_e8("WETH") == 200 * USD8


def test_wrong_configuration_is_refused() -> None:
    with pytest.raises(InputError, match=r"feed of WETH has no source"):
        Feed("WETH", ())
    with pytest.raises(InputError, match=r"names a source twice"):
        Feed("WETH", (Scripted("a"), Scripted("a")))
    with pytest.raises(InputError, match=r"quotes wstETH in ETH, not in USD"):
        take([Feed("wstETH", (Scripted("a", base="wstETH", quote="ETH"),))], [price(1)])
    with pytest.raises(InputError, match=r"two feeds price WETH"):
        take([Feed("WETH", (Scripted("a"),)), Feed("WETH", (Scripted("b"),))], [price(1), price(1)])
    with pytest.raises(ValueError, match=r"2 results for 1 reads"):
        take([Feed("WETH", (Scripted("a"),))], [price(1), price(1)])


def test_the_protocol_view_is_taken_as_it_is() -> None:
    taken = plain_snapshot("protocol", "USD", {"WETH": 7, "DAI": None, "BAD": 0}, 8, block=1, timestamp=T0)
    assert taken.price_e8("WETH") == 7
    assert taken.unknown() == ("BAD", "DAI")
    assert taken.prices["DAI"].status is PriceStatus.MISSING
    assert taken.prices["BAD"].status is PriceStatus.REFUSED


def test_a_price_too_small_for_eight_decimals_is_unknown_there_and_not_zero() -> None:
    tiny = plain_snapshot("protocol", "USD", {"DUST": 10**9}, 18, block=1, timestamp=T0)
    assert tiny.price_e8("DUST") is None
    known = plain_snapshot("protocol", "USD", {"DUST": 10**10}, 18, block=1, timestamp=T0)
    assert known.price_e8("DUST") == 1


def test_findings_of_a_refusal_name_the_guard_that_could_not_judge() -> None:
    judged = take([Feed("WETH", (Scripted("a", age_s=None),))], [price(1)]).prices["WETH"]
    stale = next(f for f in judged.findings if f.name == "stale")
    assert stale.status is GuardStatus.NOT_APPLICABLE
    assert not any(f.status is GuardStatus.VIOLATED for f in judged.findings)
    assert dataclasses.replace(judged, required=frozenset()).reasons == ()
