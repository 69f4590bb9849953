"""Products and aggregates of sources: ages, confidences, sides and missing legs; price paths from a seed."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from eth_abi.abi import encode

from contracts_abi.errors import InputError
from oracle.aggregate import Beyond, anchored, first_standing, median, quorum_of
from oracle.interfaces import QuorumFacts
from oracle.sources import sources
from oracle.sources.aggregate import AggregateSource
from oracle.sources.composite import CompositeSource, compose
from oracle.sources.synthetic import SyntheticSource, synthetic_path
from oracle.types import FeedKind, NoData, PriceObs, Reading

NOW = 1_700_000_000
ADDRESSES = tuple(f"0x{digit * 40}" for digit in "123")
PATH = (100000000, 100889900, 101142326, 101514934)


def obs(mantissa: int, source_id: str = "a", age_s: int | None = 0, **changes: Any) -> PriceObs:
    at = None if age_s is None else NOW - age_s
    plain = PriceObs("ETH", "USD", mantissa, 2, FeedKind.PUSH, source_id, at, NOW, 5, (1, 2), raw=b"x")
    return dataclasses.replace(plain, **changes)


def lost(source_id: str = "dead") -> NoData:
    return NoData("ETH", "USD", source_id, NOW, "it reverted", 5)


def product(*legs: Reading, decimals: int = 2) -> Reading:
    return compose(
        legs, base="wstETH", quote="USD", decimals=decimals, source_id="p", observed_at=NOW, block=5
    )


def price_of(reading: Reading) -> PriceObs:
    assert isinstance(reading, PriceObs)
    return reading


# --- products ---------------------------------------------------------------------------------------------


def test_a_product_has_its_scale_and_no_round() -> None:
    found = price_of(product(obs(120), obs(2_000_00, age_s=9), decimals=8))
    assert found.mantissa == 2_400 * 10**8
    assert (found.kind, found.round_key, found.block, found.raw) == (FeedKind.COMPOSITE, None, 5, b"xx")
    assert (found.base, found.quote, found.source_id) == ("wstETH", "USD", "p")


@pytest.mark.parametrize(
    ("legs", "mantissa"),
    [((199, 100), 199), ((199, 99), 197), ((1, 1), 0), ((3, 3, 3), 0), ((150, 150, 150), 337)],
)
def test_a_product_is_rounded_down_once(legs: tuple[int, ...], mantissa: int) -> None:
    assert price_of(product(*(obs(leg) for leg in legs))).mantissa == mantissa


RATE, ONE = FeedKind.RATE, FeedKind.CONSTANT


@pytest.mark.parametrize(
    ("legs", "age_s"),
    [
        ((obs(1, age_s=5), obs(1, age_s=9)), 9),
        ((obs(1, age_s=9), obs(1, age_s=-5)), 9),
        ((obs(1, age_s=5), obs(1, age_s=None)), None),
        ((obs(1, age_s=5), obs(1, age_s=None, kind=RATE)), 5),
        ((obs(1, age_s=5), obs(1, age_s=7, kind=RATE)), 7),
        ((obs(1, age_s=5), obs(1, age_s=None, kind=ONE)), 5),
        ((obs(1, age_s=None, kind=RATE),), None),
    ],
)
def test_a_product_is_as_old_as_its_oldest_leg(legs: tuple[PriceObs, ...], age_s: int | None) -> None:
    published_at = price_of(product(*legs)).published_at
    assert published_at == (None if age_s is None else NOW - age_s)


@pytest.mark.parametrize("bad", [lost(), obs(0, "dead"), obs(-1, "dead")])
def test_a_bad_leg_makes_no_product_and_is_named(bad: Reading) -> None:
    for legs in ((obs(1), bad), (bad, obs(1)), (bad,)):
        found = product(*legs)
        assert isinstance(found, NoData)
        assert found.reason.startswith("dead")


def test_confidences_add_up_and_sides_multiply() -> None:
    found = price_of(product(obs(200, conf_abs=3), obs(1_000, conf_abs=7, bid=990, ask=1_010)))
    assert found.mantissa == 2_000
    # 1.5 % and 0.7 % of 20.00, rounded up.
    assert found.conf_abs == 44
    assert (found.bid, found.ask) == (1_980, 2_020)
    plain = price_of(product(obs(200), obs(1_000)))
    assert (plain.conf_abs, plain.bid, plain.ask) == (None, None, None)


def constant(base: str, quote: str, mantissa: int, decimals: int = 2) -> dict[str, Any]:
    return {"kind": "constant", "base": base, "quote": quote, "mantissa": mantissa, "decimals": decimals}


def feed(base: str, quote: str, address: str, **more: Any) -> dict[str, Any]:
    return {"kind": "chainlink", "base": base, "quote": quote, "address": address, **more}


def round_words(answer: int, age_s: int, decimals: int = 8) -> list[bytes | None]:
    at = NOW - age_s
    said = encode(["uint80", "int256", "uint256", "uint256", "uint80"], [1, answer, at, at, 1])
    return [said, encode(["uint8"], [decimals]), None, None, None]


def composite(*legs: dict[str, Any], **more: Any) -> CompositeSource:
    source = sources.build({"kind": "composite", "base": "cbETH", "quote": "USD", "legs": legs, **more})
    assert isinstance(source, CompositeSource)
    return source


def test_a_composite_source_asks_its_legs_and_multiplies() -> None:
    source = composite(
        feed("cbETH", "ETH", ADDRESSES[0], heartbeat_s=86_400),
        feed("ETH", "USD", ADDRESSES[1], heartbeat_s=3_600),
        decimals=8,
    )
    results = [*round_words(112 * 10**16, 50_000, 18), *round_words(2_200 * 10**8, 60)]
    assert len(source.reads()) == len(results)
    reading = price_of(source.decode(results, block=5, timestamp=NOW))
    assert (reading.mantissa, reading.published_at) == (2_464 * 10**8, NOW - 50_000)
    context = source.context(results, timestamp=NOW)
    assert (context.heartbeat_s, context.legs) == (86_400, (FeedKind.PUSH, FeedKind.PUSH))
    results[5] = None
    assert isinstance(source.decode(results, block=5, timestamp=NOW), NoData)


def test_a_composite_s_heartbeat_is_unknown_while_a_leg_s_is() -> None:
    legs = (feed("cbETH", "ETH", ADDRESSES[0]), feed("ETH", "USD", ADDRESSES[1], heartbeat_s=3_600))
    results = [*round_words(1, 0), *round_words(1, 0)]
    assert composite(*legs).context(results, timestamp=NOW).heartbeat_s is None
    assert composite(*legs, heartbeat_s=9).context(results, timestamp=NOW).heartbeat_s == 9
    # A constant promises nothing and need not.
    rate = (constant("cbETH", "ETH", 112), legs[1])
    assert composite(*rate).context(results[5:], timestamp=NOW).heartbeat_s == 3_600


@pytest.mark.parametrize(
    ("legs", "line"),
    [
        ([constant("cbETH", "ETH", 112)], "legs lead from cbETH to ETH, not to USD"),
        (
            [constant("cbETH", "ETH", 112), constant("BTC", "USD", 1)],
            "legs break: after ETH comes BTC/USD",
        ),
        ([], "at least 1 item"),
        ([{"kind": "constat"}], "did you mean 'constant'"),
        ([constant("cbETH", "USD", 0)], "mantissa"),
    ],
)
def test_legs_have_to_lead_from_base_to_quote(legs: list[dict[str, Any]], line: str) -> None:
    with pytest.raises(InputError, match=line):
        composite(*legs)


def test_a_composite_is_rebuilt_from_what_it_says_of_itself() -> None:
    source = composite(constant("cbETH", "ETH", 112), feed("ETH", "USD", ADDRESSES[0]))
    assert sources.build({"kind": "composite", **source.model_dump(mode="json")}) == source


# --- aggregates -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prices", "quorum", "mantissa", "age_s"),
    [
        ((obs(300, age_s=1), obs(100, "b", 2), obs(200, "c", 3)), 2, 200, 3),
        ((obs(100, age_s=1), obs(201, "b", 2)), 2, 150, 2),
        ((obs(100, age_s=1), lost(), obs(300, "c", 3)), 2, 200, 3),
        ((obs(100, age_s=1), obs(0, "b"), obs(-5, "c")), 1, 100, 1),
        ((obs(100, age_s=1), obs(200, "b", None)), 1, 150, None),
        ((obs(10**9, age_s=1), obs(101, "b", 2), obs(100, "c", 3)), 3, 101, 2),
    ],
)
def test_median(prices: tuple[Reading, ...], quorum: int, mantissa: int, age_s: int | None) -> None:
    found = price_of(median(prices, quorum=quorum, source_id="m"))
    assert (found.mantissa, found.source_id, found.round_key, found.raw) == (mantissa, "m", None, b"")
    assert found.published_at == (None if age_s is None else NOW - age_s)


def test_a_median_of_scales_is_taken_at_the_finest() -> None:
    found = price_of(median((obs(2, decimals=0), obs(2_01, "b")), quorum=2, source_id="m"))
    assert (found.mantissa, found.decimals) == (200, 2)


def test_a_quorum_that_is_missed_is_no_data_and_says_who_is_missing() -> None:
    found = median((obs(1), lost(), obs(0, "zero")), quorum=2, source_id="m")
    assert isinstance(found, NoData)
    assert found.reason == "1 of 2 sources answer; dead: it reverted; zero: is 0"
    assert quorum_of((obs(1), lost(), obs(0, "zero")), 2) == QuorumFacts(1, 2)


def test_the_first_that_answers_is_taken_whole() -> None:
    second = obs(200, "b", 9, conf_abs=3, bid=1)
    found = price_of(first_standing((lost(), second, obs(300, "c")), source_id="f"))
    assert found == dataclasses.replace(second, source_id="f", round_key=None)
    assert isinstance(first_standing((lost(), obs(0)), source_id="f"), NoData)


@pytest.mark.parametrize(
    ("price", "refused", "clamped"),
    [
        (105_00, False, 105_00),
        (105_01, True, 105_00),
        (95_00, False, 95_00),
        (94_99, True, 95_00),
        (10_000_00, True, 105_00),
    ],
)
def test_an_anchor_holds_a_price(price: int, refused: bool, clamped: int) -> None:
    found, anchor = obs(price, age_s=1), obs(100_00, "anchor", 9)
    held = anchored(found, anchor, tolerance_bps=500, source_id="h")
    assert isinstance(held, NoData) is refused
    bent = price_of(anchored(found, anchor, tolerance_bps=500, source_id="h", beyond=Beyond.CLAMP))
    assert bent.mantissa == clamped
    # What the anchor made is as old as the anchor.
    assert bent.published_at == NOW - (9 if refused else 1)


@pytest.mark.parametrize(("price", "anchor"), [(lost(), obs(1)), (obs(1), lost()), (obs(1), obs(0, "b"))])
def test_without_its_anchor_there_is_no_price(price: Reading, anchor: Reading) -> None:
    for beyond in Beyond:
        held = anchored(price, anchor, tolerance_bps=500, source_id="h", beyond=beyond)
        assert isinstance(held, NoData)


def test_bad_aggregates_are_refused() -> None:
    with pytest.raises(InputError, match="prices of BTC/USD and ETH/USD cannot be put together"):
        median((obs(1), obs(1, base="BTC")), quorum=1, source_id="m")
    with pytest.raises(InputError, match="quorum is 0"):
        median((obs(1),), quorum=0, source_id="m")
    with pytest.raises(InputError, match="f has no sources"):
        first_standing((), source_id="f")
    with pytest.raises(InputError, match="tolerance_bps is -1"):
        anchored(obs(1), obs(1), tolerance_bps=-1, source_id="h")


def aggregate(rule: str, *mantissas: int, **more: Any) -> AggregateSource:
    legs = [{**constant("ETH", "USD", m), "name": f"s{i}"} for i, m in enumerate(mantissas)]
    table = {"kind": "aggregate", "base": "ETH", "quote": "USD", "legs": legs, "rule": rule, **more}
    source = sources.build(table)
    assert isinstance(source, AggregateSource)
    return source


@pytest.mark.parametrize(
    ("source", "mantissa", "quorum"),
    [
        (aggregate("median", 300, 100, 200), 200, QuorumFacts(3, 2)),
        (aggregate("median", 300, 100), 200, QuorumFacts(2, 2)),
        (aggregate("median", 300, 100, quorum=1), 200, QuorumFacts(2, 1)),
        (aggregate("first", 300, 100), 300, QuorumFacts(2, 1)),
        (aggregate("anchored", 104, 100), 104, QuorumFacts(2, 2)),
        (aggregate("anchored", 300, 100, beyond="clamp"), 105, QuorumFacts(2, 2)),
        (aggregate("anchored", 300, 100), None, QuorumFacts(2, 2)),
    ],
)
def test_an_aggregate_source(source: AggregateSource, mantissa: int | None, quorum: QuorumFacts) -> None:
    reading = source.decode([], block=5, timestamp=NOW)
    assert (reading.mantissa if isinstance(reading, PriceObs) else None) == mantissa
    assert source.context([], timestamp=NOW).quorum == quorum


@pytest.mark.parametrize(
    ("rule", "mantissas", "more", "line"),
    [
        ("anchored", (1, 2, 3), {}, "needs two legs"),
        ("median", (1, 2), {"quorum": 3}, "a quorum of 3 cannot be had of 2"),
        ("median", (1, 2), {"base": "BTC"}, "s0 prices ETH/USD"),
    ],
)
def test_an_aggregate_that_cannot_be(
    rule: str, mantissas: tuple[int, ...], more: dict[str, Any], line: str
) -> None:
    with pytest.raises(InputError, match=line):
        aggregate(rule, *mantissas, **more)


# --- price paths from a seed ------------------------------------------------------------------------------


def synthetic(**changes: Any) -> SyntheticSource:
    grid = {"start": NOW, "end": NOW + 600, "step_s": 60, "mantissa": 2_000 * 10**8, "seed": 7}
    source = sources.build({"kind": "synthetic", "base": "ETH", "quote": "USD", **(grid | changes)})
    assert isinstance(source, SyntheticSource)
    return source


def test_a_seed_gives_the_same_integers_everywhere() -> None:
    # numpy's default generator, PCG64: these figures hold on every machine.
    assert synthetic_path(7, 10**8, 4, 10_000) == PATH
    assert synthetic_path(8, 10**8, 4, 10_000) != PATH
    assert synthetic_path(7, 10**8, 1, 10_000) == (10**8,)
    assert synthetic_path(7, 5, 3, 0) == (5, 5, 5)
    assert min(synthetic_path(1, 1, 200, 999_999)) == 1


def test_a_synthetic_source_is_read_like_a_push_feed() -> None:
    source = synthetic()
    readings = [price_of(r) for r in source.readings()]
    assert len(readings) == 11
    assert [r.round_key for r in readings] == [(1, i) for i in range(1, 12)]
    assert price_of(source.at(NOW + 119)).published_at == NOW + 60
    assert price_of(source.at(NOW + 10**6)).published_at == NOW + 600
    assert isinstance(source.at(NOW - 1), NoData)
    assert source.decode([], block=9, timestamp=NOW) == source.at(NOW, 9)
    assert source.context([], timestamp=NOW).heartbeat_s == 60


def test_a_path_that_ends_before_it_starts_is_refused() -> None:
    with pytest.raises(InputError, match="is before start"):
        synthetic(end=NOW - 1)
