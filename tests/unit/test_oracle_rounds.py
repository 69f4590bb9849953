"""The walk through a proxy's rounds, over phases that are only data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from eth_abi.abi import encode

from contracts_abi.calls import Call
from contracts_abi.errors import DataError, InputError
from contracts_abi.feeds import (
    DECIMALS,
    DESCRIPTION,
    GET_ROUND_DATA,
    LATEST_ROUND,
    LATEST_ROUND_DATA,
    PHASE_AGGREGATORS,
    PHASE_ID,
    join_round_id,
    split_round_id,
)
from oracle.rounds import (
    WINDOW,
    ZERO_ADDRESS,
    Counts,
    Phase,
    ProxyFeed,
    Round,
    Walk,
    drive,
    last_round,
    survey,
    switches,
    with_starts,
)

PROXY = "0x" + "11" * 20
A, B, C = ("0x" + digit * 40 for digit in "abc")
E8 = 10**8


@dataclass
class Fake:
    """A proxy and its aggregators: round to time; 0 stands for zeros, a missing key for a revert."""

    phases: list[str]
    rounds: dict[str, dict[int, int]]
    silent: frozenset[str] = frozenset()
    scales: dict[str, int] = field(default_factory=dict)
    latest_reverts: bool = False
    shift: int = 0
    reads: int = 0

    def answer_of(self, phase: int, round_: int) -> int:
        return 1_000 * phase + round_

    def round(self, round_id: int) -> bytes | None:
        phase, round_ = split_round_id(round_id)
        if not 1 <= phase <= len(self.phases):
            return None
        time = self.rounds.get(self.phases[phase - 1], {}).get(round_)
        if time is None:
            return None
        values = (
            (round_id + self.shift, self.answer_of(phase, round_), time - 5, time, round_id)
            if time
            else (round_id, 0, 0, 0, 0)
        )
        return encode(GET_ROUND_DATA.outputs, values)

    def one(self, call: Call[Any]) -> bytes | None:
        selector = call.data[:4]
        if selector == LATEST_ROUND.selector:
            aggregator = call.to.lower()
            if aggregator in self.silent or aggregator not in self.rounds:
                return None
            written = [r for r, t in self.rounds[aggregator].items() if t]
            return encode(["uint256"], [max(written, default=0)])
        if selector == DECIMALS.selector:
            return encode(["uint8"], [self.scales.get(call.to.lower(), 8)])
        assert call.to == PROXY
        if selector == PHASE_ID.selector:
            return encode(["uint16"], [len(self.phases)])
        if selector == PHASE_AGGREGATORS.selector:
            (number,) = PHASE_AGGREGATORS.decode_inputs(call.data)
            return encode(["address"], [self.phases[number - 1]])
        if selector == DESCRIPTION.selector:
            return encode(["string"], ["ETH / USD"])
        if selector == LATEST_ROUND_DATA.selector:
            written = [r for r, t in self.rounds.get(self.phases[-1], {}).items() if t]
            if self.latest_reverts or not written:
                return None
            return self.round(join_round_id(len(self.phases), max(written)))
        assert selector == GET_ROUND_DATA.selector
        return self.round(GET_ROUND_DATA.decode_inputs(call.data)[0])

    def __call__(self, calls: Sequence[Call[Any]]) -> list[bytes | None]:
        self.reads += len(calls)
        return [self.one(call) for call in calls]

    def feed(self, **starts: int) -> ProxyFeed:
        """Return what a survey finds, with the start of phases where given: ``p2=500``."""
        return with_starts(drive(survey(PROXY), self), {int(name[1:]): t for name, t in starts.items()})


def walked(fake: Fake, walk: Walk, batch: int = 3) -> tuple[list[tuple[int, int]], Counts]:
    """Return phase and round of the whole history, newest first, and what became of the rest."""
    rows: list[Round] = []
    while not walk.done:
        reads = walk.reads(batch)
        assert 0 < len(reads) <= batch
        walk, more = walk.step(fake(reads))
        rows += more
    assert walk.asked == walk.feed.rounds
    assert walk.reads(batch) == ()
    assert walk.counts.rows == len(rows)
    places = [row.place for row in rows]
    assert places == sorted(set(places), reverse=True)
    for row in rows:
        phase, round_ = split_round_id(row.round_id)
        assert (row.answer, row.started_at) == (fake.answer_of(phase, round_), row.updated_at - 5)
    return [tuple(split_round_id(row.round_id)) for row in rows], walk.counts


def times(first: int, count: int, start: int = 1, step: int = 10) -> dict[int, int]:
    return {start + i: first + step * i for i in range(count)}


def down(phase: int, last: int, first: int = 1) -> list[tuple[int, int]]:
    return [(phase, r) for r in range(last, first - 1, -1)]


# ------------------------------------------------------------------------------------------------- survey


def test_a_survey_finds_every_phase() -> None:
    fake = Fake([A, B], {A: times(100, 4), B: times(200, 7)}, scales={A: 18})
    feed = fake.feed()
    assert (feed.description, feed.decimals, feed.rounds) == ("ETH / USD", 8, 11)
    assert [(p.number, p.aggregator.lower(), p.last, p.decimals) for p in feed.phases] == [
        (1, A, 4, 18),
        (2, B, 7, 8),
    ]
    assert not any(p.searched or p.starts_at for p in feed.phases)


def test_a_current_phase_without_a_round_does_not_hide_those_before() -> None:
    fake = Fake([A, B], {A: times(100, 4), B: {}})
    assert [p.last for p in fake.feed().phases] == [4, 0]
    assert walked(fake, Walk.start(fake.feed()))[0] == down(1, 4)


def test_a_phase_without_an_aggregator_has_no_rounds() -> None:
    fake = Fake([A, ZERO_ADDRESS, B], {A: times(100, 2), B: times(200, 2)})
    assert walked(fake, Walk.start(fake.feed()))[0] == down(3, 2) + down(1, 2)


@pytest.mark.parametrize("last", [1, 2, 3, 15, 16, 17, 31, 32, 33, 100, 5_000])
def test_a_last_round_that_is_not_told_is_searched(last: int) -> None:
    fake = Fake([A, B], {A: times(100, last), B: times(10**6, 1)}, silent=frozenset({A}))
    first, second = fake.feed().phases
    assert (first.last, first.searched, second.searched) == (last, True, False)


@pytest.mark.parametrize("last", [40, 64, 999, 4_096, 100_003])
def test_a_search_sees_through_missing_rounds(last: int) -> None:
    sparse = {r: 100 + r for r in range(1, last + 1) if r % WINDOW == last % WINDOW}
    fake = Fake([A], {A: sparse | {last - 1: 0}})
    assert drive(last_round(PROXY, 1), fake) == last


def test_a_search_in_an_empty_phase_finds_nothing() -> None:
    assert drive(last_round(PROXY, 1), Fake([A], {A: {}})) == 0


def test_the_current_phase_is_told_by_the_proxy_where_the_aggregator_is_silent() -> None:
    fake = Fake([A], {A: times(100, 9)}, silent=frozenset({A}))
    (phase,) = fake.feed().phases
    assert (phase.last, phase.searched) == (9, False)
    (phase,) = replace(fake, latest_reverts=True).feed().phases
    assert (phase.last, phase.searched) == (9, True)


def test_what_is_no_proxy_is_refused() -> None:
    with pytest.raises(InputError, match="no Chainlink feed: phaseId"):
        drive(survey(PROXY), lambda calls: [None] * len(calls))
    lone = Fake([A], {A: times(100, 1)})

    def without_phases(calls: Sequence[Call[Any]]) -> list[bytes | None]:
        return [None if call.data[:4] == PHASE_ID.selector else lone.one(call) for call in calls]

    with pytest.raises(InputError, match="a feed without phases"):
        drive(survey(PROXY), without_phases)


def test_a_round_that_nobody_could_walk_down_from_is_refused() -> None:
    with pytest.raises(InputError, match="phase 1 tells of round 1099511627776"):
        Fake([A], {A: {2**40: 100}}).feed()


# ----------------------------------------------------------------------------------------------- switches


def searched(starts: Sequence[int], newest: int, *, kept_from: int = 0) -> tuple[dict[int, int] | None, int]:
    """Search where phases begin at blocks; also how often the node was asked, which forgets old blocks."""
    search, asked = switches(len(starts), newest), 0
    try:
        block = next(search)
        while True:
            asked += 1
            assert 0 <= block <= newest
            block = search.send(sum(block >= s for s in starts) if block >= kept_from else 0)
    except StopIteration as done:
        return done.value, asked


@pytest.mark.parametrize("starts", [[5], [5, 6], [5, 900_000], [7, 8, 9, 500_000, 999_999], [0, 1, 10**6]])
def test_the_blocks_of_the_switches(starts: list[int]) -> None:
    found, asked = searched(starts, 1_000_000)
    assert found == {phase: block for phase, block in enumerate(starts, start=1) if phase > 1}
    assert asked <= 21 * (len(starts) - 1)


@pytest.mark.parametrize("kept_from", [999_990, 600_000])
def test_a_node_that_forgets_does_not_tell_a_switch(kept_from: int) -> None:
    assert searched([5, 500_000], 1_000_000, kept_from=kept_from)[0] is None


# --------------------------------------------------------------------------------------------------- walk


@pytest.mark.parametrize("batch", [1, 2, 3, 5, 100])
def test_all_rounds_of_all_phases_newest_first(batch: int) -> None:
    fake = Fake([A, B, C], {A: times(100, 5), B: times(200, 1), C: times(300, 4)})
    found, counts = walked(fake, Walk.start(fake.feed()), batch)
    assert found == down(3, 4) + down(2, 1) + down(1, 5)
    assert counts == Counts(rows=10)


def test_missing_rounds_are_counted_and_end_nothing() -> None:
    holes = {1: 0, 2: 110, 4: 0, 5: 0, 6: 140, 9: 170}  # 3, 7, 8 revert
    fake = Fake([A, B], {A: times(50, 2), B: holes})
    found, counts = walked(fake, Walk.start(fake.feed()))
    assert found == [(2, 9), (2, 6), (2, 2), (1, 2), (1, 1)]
    assert (counts.reverted, counts.zeros) == (3, 3)


def test_a_phase_of_missing_rounds_only() -> None:
    fake = Fake([A, B], {A: times(100, 3), B: {1: 0, 2: 0}}, silent=frozenset())
    feed = replace(fake.feed(), phases=(fake.feed().phases[0], Phase(2, B, 2)))
    found, counts = walked(fake, Walk.start(feed))
    assert (found, counts.zeros) == (down(1, 3), 2)


def test_an_aggregator_that_reports_on_after_it_was_replaced() -> None:
    fake = Fake([A, B], {A: times(100, 10), B: times(155, 5)})  # A until 190, B from 155
    found, counts = walked(fake, Walk.start(fake.feed()))
    assert found == down(2, 5) + down(1, 6)
    assert counts == Counts(rows=11, after=4)


def test_rounds_before_the_switch_are_left_out_where_it_is_known() -> None:
    fake = Fake([A, B], {A: times(100, 10), B: times(155, 5)})  # switched at 180
    found, counts = walked(fake, Walk.start(fake.feed(p2=180)))
    # B's last round from before is of 175, newer than A's last of 170: the proxy told it at the switch.
    assert found == [(2, 5), (2, 4), (2, 3), *down(1, 8)]
    assert counts == Counts(rows=11, before=2, after=2)


def test_a_round_carried_into_its_phase_that_is_older_than_what_the_proxy_told() -> None:
    fake = Fake([A, B], {A: times(100, 10), B: {1: 121, 2: 131, 3: 185}})
    found, counts = walked(fake, Walk.start(fake.feed(p2=180)))
    assert found == [(2, 3), *down(1, 8)]
    assert counts == Counts(rows=9, before=2, after=2)


def test_a_phase_whose_only_round_is_from_before_it() -> None:
    fake = Fake([A, B, C], {A: times(100, 3), B: {1: 150}, C: times(200, 2)})
    found, counts = walked(fake, Walk.start(fake.feed(p2=160, p3=195)), 100)
    assert found == [*down(3, 2), (2, 1), *down(1, 3)]
    assert counts == Counts(rows=6)


def test_phases_that_only_carried_rounds_one_behind_the_other() -> None:
    fake = Fake([A, B, C], {A: {1: 100}, B: {1: 90}, C: {1: 120}})
    feed = fake.feed(p1=105, p2=110, p3=130)
    assert walked(fake, Walk.start(feed))[0] == [(3, 1), (1, 1)]
    newer = replace(fake, rounds={A: {1: 100}, B: {1: 90}, C: {1: 95}})
    found, counts = walked(newer, Walk.start(feed))
    assert found == [(1, 1)]
    assert counts.before == 2


def test_an_aggregator_that_comes_back() -> None:
    fake = Fake([A, B, A], {A: times(100, 20), B: times(155, 6)})  # A 100…290, B 155…205
    known, counts = walked(fake, Walk.start(fake.feed(p2=158, p3=205)))
    assert known == [*down(3, 20, 11), *down(2, 5), *down(1, 6)]
    assert (counts.before, counts.after) == (10, 15)
    assumed = fake.feed()
    assert [(p.starts_at, p.assumed) for p in assumed.phases] == [(None, False), (None, False), (206, True)]
    found, _ = walked(fake, Walk.start(assumed))
    assert found == [*down(3, 20, 12), *down(2, 6), *down(1, 6)]


@pytest.mark.parametrize("batch", [1, 3, 50])
@pytest.mark.parametrize(
    ("since", "until", "expected"),
    [
        (None, None, down(2, 5) + down(1, 5)),
        (220, None, down(2, 5, 3)),
        (200, 230, down(2, 4, 1)),
        (130, 210, down(2, 2) + down(1, 5, 4)),
        (None, 120, down(1, 3)),
        (150, 190, []),
        (999, None, []),
        (None, 5, []),
        (140, 140, [(1, 5)]),
    ],
)
def test_a_part_of_the_time(
    since: int | None, until: int | None, expected: list[tuple[int, int]], batch: int
) -> None:
    fake = Fake([A, B], {A: times(100, 5), B: times(200, 5)})
    assert walked(fake, Walk.start(fake.feed(), since=since, until=until), batch)[0] == expected


def test_since_ends_the_walk_early() -> None:
    fake = Fake([A, B], {A: times(100, 500), B: times(10**5, 500)})
    feed = fake.feed()
    fake.reads = 0
    walked(fake, Walk.start(feed, since=10**5 + 10 * 495), 10)
    assert fake.reads == 10


def test_since_keeps_a_carried_round_only_if_it_is_in_the_time() -> None:
    fake = Fake([A, B], {A: times(100, 10), B: times(155, 5)})
    feed = fake.feed(p2=180)
    assert walked(fake, Walk.start(feed, since=172))[0] == [(2, 5), (2, 4), (2, 3)]
    assert walked(fake, Walk.start(feed, since=176))[0] == [(2, 5), (2, 4)]
    assert walked(fake, Walk.start(feed, until=174))[0] == down(1, 8)


def test_since_after_until_is_refused() -> None:
    feed = Fake([A], {A: times(100, 1)}).feed()
    with pytest.raises(InputError, match="since 9 is after until 8"):
        Walk.start(feed, since=9, until=8)


def test_a_round_out_of_order_within_its_phase_is_counted() -> None:
    fake = Fake([A], {A: {1: 100, 2: 150, 3: 120, 4: 130}})
    found, counts = walked(fake, Walk.start(fake.feed()))
    assert found == [(1, 4), (1, 3), (1, 1)]
    assert counts.disordered == 1


def test_two_rounds_of_one_second_are_both_there() -> None:
    fake = Fake([A, B], {A: {1: 100, 2: 100}, B: {1: 100, 2: 130}})
    assert walked(fake, Walk.start(fake.feed()))[0] == down(2, 2) + down(1, 2)


def test_an_answer_for_another_round_is_no_answer() -> None:
    fake = Fake([A], {A: times(100, 3)})
    walk = Walk.start(fake.feed())
    fake.shift = 1
    with pytest.raises(DataError, match="asked for round"):
        walk.step(fake(walk.reads(2)))


def test_a_feed_without_a_round() -> None:
    fake = Fake([A], {A: {}})
    assert Walk.start(fake.feed()).done
