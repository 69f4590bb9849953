"""Who may confirm and who may contradict: references of which nobody knows whether their jump is true."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from oracle.decisions import Adapted, Origin
from oracle.replay import FeedMoment, Replay, replay
from oracle.scenario import parse_scenario
from oracle.snapshot import contradicted, only_jumped
from oracle.types import (
    FeedKind,
    Finding,
    GuardAction,
    GuardedPrice,
    GuardStatus,
    NoData,
    PriceObs,
    PriceStatus,
)

OK, VIOLATED, NOT_APPLICABLE = GuardStatus.OK, GuardStatus.VIOLATED, GuardStatus.NOT_APPLICABLE
START = 1_700_000_400
STEP = 600
E8 = 10**8

FEED = "COIN/USD"
MARKET = "COIN/USD market"
SECOND = "COIN/USD second"


def iso(t: int) -> str:
    return datetime.fromtimestamp(t, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def recorded(role: str, *dollars: int | None, pair: str = FEED) -> str:
    """Return a feed that writes a round at each step; None is a step without one."""
    rounds = [
        [1, i + 1, price * E8, START + STEP * i] for i, price in enumerate(dollars) if price is not None
    ]
    return f'kind = "recorded"\nrole = "{role}"\npair = "{pair}"\nheartbeat_s = {STEP}\nrounds = {rounds}\n'


def played(feeds: dict[str, str], *, steps: int = 3, fallback: bool = True) -> Replay:
    """Replay feeds in the order given, ten minutes between two steps. The truth stays at 100."""
    tables = "".join(f'[feeds."{name}"]\n{text}' for name, text in feeds.items())
    toml = f"""
schema = "oracle-scenario/1"
id = "doubt"
title = "doubt"
record = "stated"
depth = "series"
mechanism = "constant"
chain = {{ id = 1, kind = "l1", block_time_s = 12 }}
clock = {{ start = {iso(START)}, end = {iso(START + STEP * (steps - 1))}, step_s = {STEP} }}
assets = {{ COIN = {{ decimals = 18, pair = "COIN/USD" }}, GEM = {{ decimals = 18, pair = "GEM/USD" }} }}
[truth."COIN/USD"]
constant = "100"
[truth."GEM/USD"]
constant = "100"
{tables}
"""
    return replay(parse_scenario(toml.encode(), "doubt"), fallback=fallback)


def last(run: Replay, name: str = FEED) -> FeedMoment:
    return run.moments[-1].feeds[name]


def adapted(run: Replay) -> Adapted:
    return run.moments[-1].adapted[FEED]


def violated(moment: FeedMoment) -> set[str]:
    return {f.name for f in moment.guarded.findings if f.status is VIOLATED}


# The limit of a jump within ten minutes is 10 % + 6 % * sqrt(1 / 6) = 12.44 %.


def test_a_reference_that_only_jumped_is_refused_and_keeps_nothing_of_its_own() -> None:
    run = played({FEED: recorded("protocol", 100, 100, 100), MARKET: recorded("reference", 100, 100, 50)})
    market = last(run, MARKET)
    assert market.guarded.status is PriceStatus.REFUSED
    assert violated(market) == {"jump"}
    (jump,) = (f for f in market.guarded.findings if f.name == "jump")
    assert (jump.observed, jump.threshold) == ("5000 bps in 600 s", "<= 1244 bps")
    assert jump.message.endswith("no second source")


def test_a_jump_that_nobody_confirms_is_reason_enough_to_doubt_a_price_that_did_not_move() -> None:
    run = played({FEED: recorded("protocol", 100, 100, 100), MARKET: recorded("reference", 100, 100, 50)})
    feed = last(run)
    assert feed.guarded.status is PriceStatus.REFUSED
    assert violated(feed) == {"cross_dev"}
    (doubt,) = (f for f in feed.guarded.findings if f.name == "cross_dev")
    assert doubt.message == f"5000 bps from {MARKET}, limit 500 bps"
    # Nobody knows which of the two is right: risk is paused, and what is used is the last that stood, not 50.
    use = adapted(run)
    assert use.origin is Origin.LAST_KNOWN_GOOD
    assert use.price is not None
    assert use.price.mantissa == 100 * E8
    assert GuardAction.PAUSE in use.paused
    assert all(obs.mantissa != 50 * E8 for obs in use.counted)
    assert {(f.feed, f.finding.guard) for f in run.fired} == {(MARKET, "G07"), (FEED, "G08")}


def test_a_jump_that_nobody_confirms_confirms_nothing() -> None:
    # Both fall by half at once. The reference has the same price; it may not vouch for it.
    run = played({FEED: recorded("protocol", 100, 100, 50), MARKET: recorded("reference", 100, 100, 50)})
    feed = last(run)
    assert feed.guarded.status is PriceStatus.REFUSED
    (jump,) = (f for f in feed.guarded.findings if f.name == "jump")
    assert jump.status is VIOLATED
    assert jump.message.endswith("no second source")
    assert violated(feed) == {"jump"}
    use = adapted(run)
    assert (use.origin, use.standing) == (Origin.LAST_KNOWN_GOOD, 0)


def test_two_references_that_jump_together_do_not_vouch_for_each_other() -> None:
    feeds = {
        FEED: recorded("protocol", 100, 100, 50),
        MARKET: recorded("reference", 100, 100, 50),
        SECOND: recorded("reference", 100, 100, 50),
    }
    run = played(feeds)
    assert {last(run, name).guarded.status for name in feeds} == {PriceStatus.REFUSED}
    assert violated(last(run, SECOND)) == {"jump"}


@pytest.mark.parametrize("order", [(FEED, MARKET), (MARKET, FEED)])
def test_a_reference_that_stands_confirms_a_jump_wherever_it_is_written(order: tuple[str, str]) -> None:
    # 19 % in twenty minutes is beyond 10 % + 6 % * sqrt(1 / 3) = 13.46 %; the reference came there by tens.
    feeds = {FEED: recorded("protocol", 100, None, 81), MARKET: recorded("reference", 100, 90, 81)}
    run = played({name: feeds[name] for name in order})
    (jump,) = (f for f in last(run).guarded.findings if f.name == "jump")
    assert (jump.status, jump.observed, jump.threshold) == (OK, "1900 bps in 1200 s", "<= 1346 bps")
    assert jump.message.endswith(f"confirmed by {MARKET}")
    assert adapted(run).origin is Origin.SOURCE
    # The feeds stand as the file has them.
    assert list(run.moments[-1].feeds) == list(order)


def test_a_reference_that_stands_and_disagrees_makes_a_jump_a_refusal() -> None:
    run = played({FEED: recorded("protocol", 100, None, 81), MARKET: recorded("reference", 100, 100, 100)})
    assert violated(last(run)) == {"jump", "cross_dev"}
    use = adapted(run)
    assert use.origin is Origin.FALLBACK
    assert use.price is not None
    assert use.price.source_id == MARKET


def test_beside_one_that_stands_a_doubtful_one_is_outvoted() -> None:
    feeds = {
        FEED: recorded("protocol", 100, 100, 100),
        MARKET: recorded("reference", 100, 100, 50),
        SECOND: recorded("reference", 100, 100, 101),
    }
    run = played(feeds)
    assert last(run, MARKET).guarded.status is PriceStatus.REFUSED
    # Of 50, 100 and 101 the feed is the middle one.
    assert last(run).guarded.status is PriceStatus.OK
    assert adapted(run).origin is Origin.SOURCE


@pytest.mark.parametrize(
    ("market", "guards"),
    [
        # It fell silent: 1800 s old at the last step, where 900 are allowed.
        (recorded("reference", 50, None, None), {"stale"}),
        # It jumped, and is stale as well.
        (recorded("reference", 100, 50, None, None), {"stale", "jump"}),
        (recorded("reference", 100, 100, 0), {"non_positive"}),
        (recorded("reference", 100, 100, 50) + 'description = "GEM / USD"\n', {"wrong_feed"}),
    ],
)
def test_a_reference_refused_for_anything_else_says_nothing(market: str, guards: set[str]) -> None:
    steps = 4 if "stale" in guards else 3
    run = played({FEED: recorded("protocol", *[100] * steps), MARKET: market}, steps=steps)
    assert guards <= violated(last(run, MARKET))
    assert last(run).guarded.status is PriceStatus.OK
    assert violated(last(run)) == set()
    assert adapted(run).origin is Origin.SOURCE
    assert (adapted(run).standing, adapted(run).paused) == (1, frozenset())


def test_a_refused_reference_confirms_no_jump() -> None:
    market = recorded("reference", 50, None, None, None)
    run = played({FEED: recorded("protocol", 100, 100, 100, 50), MARKET: market}, steps=4)
    assert violated(last(run, MARKET)) == {"stale"}
    assert violated(last(run)) == {"jump"}


def test_a_reference_of_another_pair_is_no_witness() -> None:
    other = recorded("reference", 100, 100, 50, pair="GEM/USD")
    run = played({FEED: recorded("protocol", 100, 100, 100), "GEM/USD": other})
    assert violated(last(run, "GEM/USD")) == {"jump"}
    assert last(run).guarded.status is PriceStatus.OK


@pytest.mark.parametrize(("gem", "swapped"), [((200, 200, 200), True), ((200, None, None), False)])
def test_only_a_price_that_stands_gives_a_swapped_feed_away(
    gem: tuple[int | None, ...], swapped: bool
) -> None:
    # COIN is told at 200, which is GEM's price; a GEM whose price is stale is none to know it by.
    feeds = {
        FEED: recorded("protocol", 200, 200, 200),
        MARKET: recorded("reference", 100, 100, 100),
        "GEM/USD market": recorded("reference", *gem, pair="GEM/USD"),
    }
    feed = last(played(feeds))
    (finding,) = (f for f in feed.guarded.findings if f.name == "wrong_feed")
    assert finding.status is (VIOLATED if swapped else NOT_APPLICABLE)
    assert finding.message.endswith("the price is that of GEM/USD") is swapped


@pytest.mark.parametrize("fallback", [True, False])
def test_a_doubtful_reading_never_stands_in(fallback: bool) -> None:
    # The feed is stale at the last step; the reference has just halved.
    feeds = {FEED: recorded("protocol", 100, None, None), MARKET: recorded("reference", 100, 100, 50)}
    run = played(feeds, fallback=fallback)
    use = adapted(run)
    assert "stale" in violated(last(run))
    assert use.price is None or use.price.mantissa == 100 * E8
    assert use.origin in (Origin.LAST_KNOWN_GOOD, Origin.NONE)
    assert all(obs.mantissa != 50 * E8 for obs in use.counted)


@pytest.mark.parametrize(
    ("fallback", "origin", "price"),
    [(True, Origin.FALLBACK, 98), (False, Origin.LAST_KNOWN_GOOD, 100)],
)
def test_without_references_to_fall_back_on_only_the_last_good_price_is_left(
    fallback: bool, origin: Origin, price: int
) -> None:
    # 1200 s without a round, where 900 are allowed.
    feeds = {FEED: recorded("protocol", 100, None, None), MARKET: recorded("reference", 99, 99, 98)}
    run = played(feeds, fallback=fallback)
    assert last(run).guarded.status is PriceStatus.REFUSED
    use = adapted(run)
    assert use.origin is origin
    assert use.price is not None
    assert use.price.mantissa == price * E8
    # The last good price is no source that stands, and lifts no pause.
    assert use.standing == (1 if fallback else 0)
    assert (GuardAction.PAUSE in use.paused) is not fallback


def test_without_references_to_fall_back_on_they_are_peers_all_the_same() -> None:
    feeds = {FEED: recorded("protocol", 100, 100, 100), MARKET: recorded("reference", 90, 90, 90)}
    run = played(feeds, fallback=False)
    assert violated(last(run)) == {"cross_dev"}
    assert last(run).guarded.others == ()
    assert [o.reading.source_id for o in last(played(feeds)).guarded.others] == [MARKET]


def test_an_answer_that_was_refused_is_not_the_measure_of_the_next() -> None:
    # Halved for one step and back: the step back is no jump, since 50 was never accepted.
    run = played({FEED: recorded("protocol", 100, 50, 100), MARKET: recorded("reference", 100, 100, 100)})
    assert run.moments[1].feeds[FEED].guarded.status is PriceStatus.REFUSED
    assert last(run).guarded.status is PriceStatus.OK
    (jump,) = (f for f in last(run).guarded.findings if f.name == "jump")
    assert jump.inputs["last_mantissa"] == str(100 * E8)


# ------------------------------------------------------------------------------------- the two, by themselves


def finding(name: str, status: GuardStatus, message: str = "") -> Finding:
    actions = frozenset({GuardAction.PAUSE}) if status is VIOLATED else frozenset[GuardAction]()
    return Finding("G00", name, "feed", status, "", "", actions, message)


def price(status: PriceStatus, *findings: Finding) -> GuardedPrice:
    obs = PriceObs("COIN", "USD", 100 * E8, 8, FeedKind.PUSH, "feed", START, START)
    missing = NoData("COIN", "USD", "feed", START, "reverted")
    return GuardedPrice(missing if status is PriceStatus.MISSING else obs, status, findings)


@pytest.mark.parametrize(
    ("findings", "only"),
    [
        ({"jump": VIOLATED}, True),
        ({"jump": VIOLATED, "stale": OK, "bound": NOT_APPLICABLE}, True),
        ({"jump": VIOLATED, "stale": VIOLATED}, False),
        ({"stale": VIOLATED}, False),
        ({"jump": OK}, False),
        ({"jump": NOT_APPLICABLE}, False),
        ({}, False),
    ],
)
def test_only_jumped(findings: dict[str, GuardStatus], only: bool) -> None:
    held = [finding(name, status) for name, status in findings.items()]
    assert only_jumped(price(PriceStatus.REFUSED, *held)) is only


@pytest.mark.parametrize(
    ("own", "beside", "status", "after"),
    [
        # What stood is refused by what the other has against it.
        ({"a": OK, "b": OK}, {"a": OK, "b": VIOLATED}, PriceStatus.REFUSED, {"a": OK, "b": VIOLATED}),
        ({"a": OK, "b": NOT_APPLICABLE}, {"b": VIOLATED}, PriceStatus.REFUSED, {"a": OK, "b": VIOLATED}),
        # What was refused is never acquitted.
        ({"a": VIOLATED}, {"a": OK}, PriceStatus.REFUSED, {"a": VIOLATED}),
        ({"a": VIOLATED}, {"a": NOT_APPLICABLE}, PriceStatus.REFUSED, {"a": VIOLATED}),
        # An acquittal of what could not be judged is none either.
        ({"a": NOT_APPLICABLE}, {"a": OK}, PriceStatus.OK, {"a": NOT_APPLICABLE}),
        ({"a": OK}, {"a": OK}, PriceStatus.OK, {"a": OK}),
    ],
)
def test_contradicted_takes_over_what_is_worse_and_nothing_else(
    own: dict[str, GuardStatus],
    beside: dict[str, GuardStatus],
    status: PriceStatus,
    after: dict[str, GuardStatus],
) -> None:
    stood = PriceStatus.REFUSED if VIOLATED in own.values() else PriceStatus.OK
    judged = price(stood, *(finding(n, s, "alone") for n, s in own.items()))
    other = price(PriceStatus.OK, *(finding(n, s, "beside") for n, s in beside.items()))
    found = contradicted(judged, other)
    assert found.status is status
    assert {f.name: f.status for f in found.findings} == after
    for f in found.findings:
        taken_over = beside.get(f.name) is VIOLATED
        assert f.message == ("beside" if taken_over else "alone")


def test_what_is_missing_stays_missing() -> None:
    nothing = price(PriceStatus.MISSING, finding("no_data", VIOLATED))
    found = contradicted(nothing, price(PriceStatus.REFUSED, finding("no_data", VIOLATED)))
    assert found.status is PriceStatus.MISSING
