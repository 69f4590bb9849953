"""Pyth, RedStone, Chronicle, Maker, API3 and Data Streams: bytes by hand, and what is no answer."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from eth_keys import keys
from eth_keys.exceptions import BadSignature
from eth_utils.crypto import keccak
from eth_utils.exceptions import ValidationError as KeyValidationError
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError

from contracts_abi.errors import DataError, InputError
from oracle.interfaces import AuthorityFacts, MarketStatus, QuorumFacts, Source
from oracle.sources import sources
from oracle.sources.api3 import Api3ServerSource, Api3Source
from oracle.sources.chronicle import ChronicleSource
from oracle.sources.data_streams import DataStreamsSource, Report, parse_report, report_in
from oracle.sources.maker import (
    HOP_S,
    Delayed,
    MedianSource,
    OsmSource,
    feed_of_slot,
    may_poke,
    median_of_slot,
    poke,
)
from oracle.sources.pyth import (
    HermesSource,
    PythSource,
    exact,
    hermes_readings,
    hermes_request,
    recent,
)
from oracle.sources.redstone import RedstonePayloadSource, RedstoneSource, median, unpack
from oracle.types import FeedKind, NoData, PriceObs, Reading

NOW = 1_700_000_000
ADDRESS, OTHER = "0x" + "11" * 20, "0x" + "22" * 20
FEED = "0xff61491a931112ddf1bd8147cd1b641375f79f5825126d665480874634fd0ace"
KEY = "a-secret-key"


def word(value: int) -> bytes:
    """Return one word of the EVM."""
    return (value % 2**256).to_bytes(32, "big")


def price_of(reading: Reading) -> PriceObs:
    assert isinstance(reading, PriceObs), reading
    return reading


def reason_of(reading: Reading) -> str:
    assert isinstance(reading, NoData), reading
    return reading.reason


def decoded(source: Source, *results: bytes | None) -> Reading:
    return source.decode(results, block=7, timestamp=NOW)


# --- Pyth -------------------------------------------------------------------------------------------------

PYTH = PythSource(base="ETH", quote="USD", address=ADDRESS, feed_id=FEED, heartbeat_s=60)


def pyth_words(price: int, conf: int, expo: int, at: int) -> bytes:
    return word(price) + word(conf) + word(expo) + word(at)


def test_pyth_is_asked_for_its_feed_by_the_selectors_of_the_contract() -> None:
    (call,) = PYTH.reads()
    assert call.data.hex() == "96834ad3" + FEED[2:]
    (call,) = PYTH.model_copy(update={"average": True}).reads()
    assert call.data.hex() == "9474f45b" + FEED[2:]


@pytest.mark.parametrize(
    ("price", "conf", "expo", "mantissa", "decimals", "conf_abs"),
    [
        (151_234_567_890, 75_000_000, -8, 151_234_567_890, 8, 75_000_000),
        (-5, 1, -5, -5, 5, 1),
        (0, 0, 0, 0, 0, 0),
        (7, 2, 3, 7_000, 0, 2_000),
        (-7, 2, 3, -7_000, 0, 2_000),
        (2**63 - 1, 2**64 - 1, -255, 2**63 - 1, 255, 2**64 - 1),
        (3, 1, 255, 3 * 10**255, 0, 10**255),
    ],
)
def test_pyth_s_exponent_becomes_decimals_without_a_loss(
    price: int, conf: int, expo: int, mantissa: int, decimals: int, conf_abs: int
) -> None:
    reading = price_of(decoded(PYTH, pyth_words(price, conf, expo, NOW - 5)))
    assert (reading.mantissa, reading.decimals, reading.conf_abs) == (mantissa, decimals, conf_abs)
    assert (reading.kind, reading.published_at, reading.observed_at) == (FeedKind.PULL, NOW - 5, NOW)
    assert reading.source_id == f"pyth:{ADDRESS}:{FEED}"
    assert reading.block == 7


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (None, "getPriceUnsafe() gave no price"),
        (b"", "getPriceUnsafe() gave no price"),
        (pyth_words(1, 1, -8, NOW)[:-1], "getPriceUnsafe() gave no price"),
        (b"\xff" * 128, "getPriceUnsafe() gave no price"),
        (pyth_words(2**63, 1, -8, NOW), "getPriceUnsafe() gave no price"),
        (pyth_words(1, 1, -8, 0), "the price was never published"),
        (pyth_words(1, 1, -256, NOW), "the exponent -256 is beyond 255"),
        (pyth_words(1, 1, 2**31 - 1, NOW), "the exponent 2147483647 is beyond 255"),
    ],
)
def test_what_is_no_price_of_pyth_is_no_data(answer: bytes | None, reason: str) -> None:
    assert reason_of(decoded(PYTH, answer)) == reason


def test_pyth_without_any_answer_is_no_data() -> None:
    assert isinstance(decoded(PYTH), NoData)


def test_pyth_states_the_age_that_its_consumer_takes_and_no_more() -> None:
    context = PYTH.context([], timestamp=NOW)
    assert (context.now, context.heartbeat_s, context.grace_s) == (NOW, 60, 0)
    assert context.quorum is None
    assert context.market_status is None


@pytest.mark.parametrize(("age", "taken"), [(0, True), (60, True), (61, False), (-60, True), (-61, False)])
def test_recent_looks_both_ways_as_the_contract_does(age: int, taken: bool) -> None:
    assert recent(NOW - age, NOW, 60) is taken


@given(st.integers(-(2**63), 2**63 - 1), st.integers(0, 2**64 - 1), st.integers(-255, 255))
def test_exact_keeps_price_and_confidence_as_they_are(price: int, conf: int, expo: int) -> None:
    scaled = exact(price, conf, expo)
    assert scaled is not None
    mantissa, width, decimals = scaled
    # price * 10**expo == mantissa / 10**decimals, without a fraction on either side.
    assert mantissa * 10 ** max(-expo, 0) == price * 10 ** (max(expo, 0) + decimals)
    assert width * 10 ** max(-expo, 0) == conf * 10 ** (max(expo, 0) + decimals)


def test_a_feed_id_is_64_hex_digits_with_or_without_0x() -> None:
    assert PYTH.model_validate(PYTH.model_dump() | {"feed_id": FEED[2:].upper()}) == PYTH
    with pytest.raises(InputError, match="64 hex digits"):
        sources.build({"kind": "pyth", **PYTH.model_dump(), "feed_id": FEED[:-1]})


# --- Hermes -----------------------------------------------------------------------------------------------

HERMES = HermesSource(base="ETH", quote="USD", feed_id=FEED)
SECOND = HermesSource(base="X", quote="USD", feed_id="ab" * 32, average=True, name="x")
STATED = {"price": "151234567890", "conf": "75000000", "expo": -8, "publish_time": NOW - 2}
EMA = {"price": "-3", "conf": "18446744073709551615", "expo": 2, "publish_time": NOW - 3}


def entry(feed_id: str = FEED[2:], **changes: Any) -> dict[str, Any]:
    return {"id": feed_id, "price": STATED | changes, "ema_price": EMA, "metadata": {"slot": 1}}


def document(*entries: Any) -> bytes:
    binary = {"encoding": "hex", "data": ["504e4155"]}
    return json.dumps({"binary": binary, "parsed": list(entries)}).encode()


def test_one_answer_of_hermes_serves_all_feeds() -> None:
    answer = document(entry(), entry("AB" * 32))
    one, two = hermes_readings(answer, (HERMES, SECOND), observed_at=NOW)
    assert price_of(one).mantissa == 151_234_567_890
    assert (price_of(one).decimals, price_of(one).conf_abs) == (8, 75_000_000)
    assert (price_of(one).published_at, price_of(one).kind) == (NOW - 2, FeedKind.PULL)
    assert (price_of(two).mantissa, price_of(two).decimals) == (-300, 0)
    assert price_of(two).conf_abs == (2**64 - 1) * 100
    assert decoded(HERMES, answer) == replace(price_of(one), block=7)
    assert price_of(two).source_id == "x"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (None, "no answer of Hermes was fetched"),
        (b"", "no answer of Hermes was fetched"),
        (b"Price ids not found", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 1_000_000, "not JSON"),
        (b'["]",' * 100_000, "not JSON"),
        (b'["' + b'\\"' * 100_000, "not JSON"),
        (b"[]", "no parsed prices"),
        (b'{"binary": {}}', "no parsed prices"),
        (b'{"parsed": null}', "no parsed prices"),
        (document(), "0 times"),
        (document(entry("ab" * 32)), "0 times"),
        (document(7, None, {"id": 5}), "0 times"),
        (document(entry(), entry()), "2 times"),
        (document({"id": FEED}), "no sound price"),
        (document(entry(publish_time=0)), "never published"),
        (document(entry(expo=300)), "beyond 255"),
    ],
)
def test_what_is_no_answer_of_hermes_is_no_data(answer: bytes | None, reason: str) -> None:
    assert reason in reason_of(decoded(HERMES, answer))


@pytest.mark.parametrize(
    "changes",
    [
        {"price": 151234567890},
        {"price": "1.5"},
        {"price": " 1"},
        {"price": "1_000"},
        {"price": "٣"},
        {"price": str(2**63)},
        {"price": str(-(2**63) - 1)},
        {"conf": "-1"},
        {"conf": str(2**64)},
        {"conf": None},
        {"expo": "-8"},
        {"expo": -8.0},
        {"expo": True},
        {"expo": 2**31},
        {"publish_time": str(NOW)},
        {"publish_time": -1},
        {"publish_time": NOW + 0.5},
        {"publish_time": 2**63},
    ],
)
def test_a_price_of_hermes_has_the_types_of_the_contract_s(changes: dict[str, Any]) -> None:
    assert "no sound price" in reason_of(decoded(HERMES, document(entry(**changes))))


def test_hermes_is_asked_with_the_key_that_nobody_sees() -> None:
    source = HERMES.model_validate(
        HERMES.model_dump() | {"base_url": "https://hermes.example/hermes/", "api_key": SecretStr(KEY)}
    )
    request = source.request()
    assert request is not None
    assert request.url == (
        f"https://hermes.example/hermes/v2/updates/price/latest?ids%5B%5D={FEED}&parsed=true"
    )
    assert request.headers == {"Authorization": f"Bearer {KEY}"}
    for shown in (repr(source), str(source), repr(request), source.model_dump_json(), repr(source.api_key)):
        assert KEY not in shown
    assert hermes_request("https://hermes.example", (FEED,)).headers == {}
    assert HERMES.request() is None
    assert source.reads() == []


@pytest.mark.parametrize("base_url", ["http://hermes.example", "ftp://x", "https://me:pw@x", "https://"])
def test_a_key_goes_nowhere_in_the_clear_and_no_error_quotes_it(base_url: str) -> None:
    with pytest.raises(ValidationError) as refused:
        HermesSource(base="A", quote="B", feed_id=FEED, base_url=base_url, api_key=SecretStr(KEY))
    assert KEY not in str(refused.value)
    with pytest.raises(ValidationError) as refused:
        HermesSource.model_validate({"base": "A", "quote": "B", "api_key": KEY})
    assert KEY not in str(refused.value)


# --- Chronicle --------------------------------------------------------------------------------------------

CHRONICLE = ChronicleSource(
    base="ETH", quote="USD", address=ADDRESS, reader=OTHER, min_signers=9, heartbeat_s=3_600
)
WAT = b"ETH/USD".ljust(32, b"\0")


def test_chronicle_is_asked_for_value_and_time_and_whether_we_may_ask() -> None:
    selectors = [call.data[:4] for call in CHRONICLE.reads()]
    assert selectors == [
        keccak(text=name)[:4] for name in ("tryReadWithAge()", "bar()", "wat()", "bud(address)")
    ]
    assert len(CHRONICLE.model_copy(update={"reader": None}).reads()) == 3


def test_chronicle_s_age_is_a_time() -> None:
    results = (word(1) + word(1_512 * 10**18) + word(NOW - 40), word(13), WAT, word(1))
    reading = price_of(decoded(CHRONICLE, *results))
    assert (reading.mantissa, reading.decimals) == (1_512 * 10**18, 18)
    assert (reading.published_at, reading.kind) == (NOW - 40, FeedKind.PUSH)
    context = CHRONICLE.context(results, timestamp=NOW)
    assert context.quorum == QuorumFacts(13, 9)
    assert context.description == "ETH/USD"
    assert context.heartbeat_s == 3_600


@pytest.mark.parametrize(
    ("answer", "listed", "reason"),
    [
        (None, word(0), f"tryReadWithAge() gave no value: {OTHER} is not on its list of readers"),
        (None, word(1), "tryReadWithAge() gave no value"),
        (None, None, "tryReadWithAge() gave no value"),
        (b"\1" * 95, word(1), "tryReadWithAge() gave no value"),
        (word(2) + word(1) + word(1), word(1), "tryReadWithAge() gave no value"),
        (word(0) + word(0) + word(0), word(1), "the contract has no value"),
        (word(1) + word(0) + word(NOW), word(1), "the contract has no value"),
        (word(1) + word(5) + word(0), word(1), "the contract has no value"),
    ],
)
def test_what_chronicle_does_not_say_is_no_data(
    answer: bytes | None, listed: bytes | None, reason: str
) -> None:
    assert reason_of(decoded(CHRONICLE, answer, word(13), WAT, listed)) == reason


def test_what_is_unknown_of_chronicle_s_feed_is_none() -> None:
    context = CHRONICLE.context((None, None, b"\xff" * 32, None), timestamp=NOW)
    assert context.quorum is None
    assert context.description is None
    loose = CHRONICLE.model_copy(update={"min_signers": None})
    assert loose.context((None, word(13), word(0), None), timestamp=NOW).quorum is None
    assert loose.context((None, word(13), word(0), None), timestamp=NOW).description is None


# --- Maker ------------------------------------------------------------------------------------------------

MEDIAN = MedianSource(base="ETH", quote="USD", address=ADDRESS, reader=OTHER, min_signers=13)
OSM = OsmSource(base="ETH", quote="USD", address=ADDRESS, reader=OTHER, source=OTHER)
TURN = NOW - NOW % 3_600


def osm_answers(**changes: bytes | None) -> tuple[bytes | None, ...]:
    answers: dict[str, bytes | None] = {
        "peek": word(1_500 * 10**18) + word(1),
        "peep": word(1_400 * 10**18) + word(1),
        "zzz": word(TURN),
        "hop": word(3_600),
        "stopped": word(0),
        "src": word(int(OTHER, 16)),
        "bud": word(1),
    }
    return tuple((answers | changes).values())


def test_the_median_is_as_old_as_the_block_that_stored_it() -> None:
    results = (word(1_512 * 10**18) + word(1), word(NOW - 900), word(13), word(1))
    reading = price_of(decoded(MEDIAN, *results))
    assert (reading.mantissa, reading.decimals, reading.published_at) == (1_512 * 10**18, 18, NOW - 900)
    assert MEDIAN.context(results, timestamp=NOW).quorum == QuorumFacts(13, 13)


@pytest.mark.parametrize(
    ("results", "reason"),
    [
        ((None, word(NOW), word(1), word(0)), f"peek() gave no value: {OTHER} is not on its list of readers"),
        ((word(0) + word(0), word(NOW), word(1), word(1)), "the contract has no value"),
        ((word(5) + word(1), None, word(1), word(1)), "age() gave no time"),
        ((word(5) + word(1), word(0), word(1), word(1)), "age() gave no time"),
        ((word(5) + word(1), word(2**32), word(1), word(1)), "age() gave no time"),
        ((word(5) + word(3), word(NOW), word(1), word(1)), "peek() gave no value"),
    ],
)
def test_what_the_median_does_not_say_is_no_data(results: tuple[bytes | None, ...], reason: str) -> None:
    assert reason_of(decoded(MEDIAN, *results)) == reason


def test_the_module_has_a_price_in_effect_and_one_to_come() -> None:
    results = osm_answers()
    assert len(OSM.reads()) == len(results)
    now = price_of(decoded(OSM, *results))
    assert (now.mantissa, now.decimals, now.published_at) == (1_500 * 10**18, 18, TURN)
    soon = price_of(OSM.upcoming(results, block=7, timestamp=NOW))
    assert (soon.mantissa, soon.published_at) == (1_400 * 10**18, None)
    context = OSM.context(results, timestamp=NOW)
    assert context.heartbeat_s == 3_600
    assert context.authority == AuthorityFacts()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"peek": None, "bud": word(0)}, f"peek() gave no price: {OTHER} is not on its list of readers"),
        ({"peek": word(5) + word(0)}, "peek() has no price"),
        ({"peek": word(5)}, "peek() gave no price"),
        ({"zzz": None}, "zzz() gave no time"),
        ({"zzz": word(0)}, "zzz() gave no time"),
        ({"zzz": word(2**64)}, "zzz() gave no time"),
    ],
)
def test_what_the_module_does_not_say_is_no_data(changes: dict[str, bytes | None], reason: str) -> None:
    assert reason_of(decoded(OSM, *osm_answers(**changes))) == reason
    assert isinstance(OSM.upcoming(osm_answers(peep=None), block=7, timestamp=NOW), NoData)


def test_a_module_that_is_stopped_or_stands_on_another_source_has_changed() -> None:
    context = OSM.context(osm_answers(stopped=word(1), src=word(int(ADDRESS, 16))), timestamp=NOW)
    assert context.authority is not None
    assert context.authority.changes == (f"source was {OTHER}, is {ADDRESS}", "the module is stopped")
    for unknown in (osm_answers(src=None), osm_answers(stopped=None)):
        assert OSM.context(unknown, timestamp=NOW).authority is None
    assert OSM.context(osm_answers(hop=word(0)), timestamp=NOW).heartbeat_s is None


def test_a_turn_takes_effect_an_hour_after_and_a_dumb_source_changes_nothing() -> None:
    state = Delayed(None, None, 0)
    state = poke(state, 10, HOP_S, TURN + 3_599)
    assert state == Delayed(None, 10, TURN)
    # A second later is the next hour already: the price is in effect a second after it was taken.
    assert may_poke(state.turn, HOP_S, TURN + 3_600)
    assert not may_poke(state.turn, HOP_S, TURN + 3_599)
    state = poke(state, 20, HOP_S, TURN + 3_600)
    assert state == Delayed(10, 20, TURN + 3_600)
    assert poke(state, None, HOP_S, TURN + 9_000) == state
    assert poke(state, 2**128 + 5, HOP_S, TURN + 9_000).upcoming == 5


def test_words_of_storage_are_taken_apart_as_solidity_packs_them() -> None:
    price = 1_512 * 10**18
    assert median_of_slot(NOW << 128 | price) == (price, NOW)
    assert feed_of_slot(1 << 128 | price) == (price, True)
    assert feed_of_slot(price) == (price, False)


# --- API3 -------------------------------------------------------------------------------------------------

API3 = Api3Source(base="ETH", quote="USD", address=ADDRESS, heartbeat_s=86_400)
SERVER = Api3ServerSource(base="ETH", quote="USD", address=ADDRESS, dapi_name="ETH/USD")
BEACON = Api3ServerSource(base="ETH", quote="USD", address=ADDRESS, feed_id="0x" + "cd" * 32)


@pytest.mark.parametrize("value", [1_512 * 10**18, 0, -5, 2**223 - 1, -(2**223)])
def test_api3_s_value_is_as_old_as_its_signatures(value: int) -> None:
    for source in (API3, SERVER, BEACON):
        reading = price_of(decoded(source, word(value) + word(NOW - 100), WAT))
        assert (reading.mantissa, reading.decimals, reading.published_at) == (value, 18, NOW - 100)
        assert reading.round_key is None
    assert API3.context((None, WAT), timestamp=NOW).description == "ETH/USD"
    assert API3.context((None, None), timestamp=NOW).description is None
    assert SERVER.context((None,), timestamp=NOW).description is None


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (None, "gave no value"),
        (word(1), "gave no value"),
        (word(2**223) + word(NOW), "gave no value"),
        (word(1) + word(2**32), "gave no value"),
        (word(1) + word(0), "the data feed was never written"),
    ],
)
def test_what_api3_does_not_say_is_no_data(answer: bytes | None, reason: str) -> None:
    for source in (API3, SERVER, BEACON):
        assert reason in reason_of(decoded(source, answer, WAT))


def test_api3_s_server_is_asked_by_name_or_by_id_and_not_by_both() -> None:
    (by_name,), (by_id,) = SERVER.reads(), BEACON.reads()
    assert by_name.data[:4] == keccak(text="readDataFeedWithDapiNameHash(bytes32)")[:4]
    assert by_name.data[4:] == keccak(WAT)
    assert by_id.data[:4] == keccak(text="readDataFeedWithId(bytes32)")[:4]
    assert by_id.data[4:] == b"\xcd" * 32
    assert SERVER.source_id != BEACON.source_id
    for wrong in ({}, {"dapi_name": "ETH/USD", "feed_id": FEED}, {"dapi_name": "x" * 33}):
        with pytest.raises(InputError):
            sources.build({"kind": "api3_server", "base": "A", "quote": "B", "address": ADDRESS, **wrong})


# --- RedStone ---------------------------------------------------------------------------------------------

ADAPTER = RedstoneSource(base="ETH", quote="USD", address=ADDRESS, data_feed="ETH", min_signers=3)
KEYS = [keys.PrivateKey(bytes([i]) * 32) for i in range(1, 6)]
SIGNERS = tuple(key.public_key.to_checksum_address() for key in KEYS[:4])
PAYLOAD = RedstonePayloadSource(base="ETH", quote="USD", data_feed="ETH", signers=SIGNERS, threshold=3)
MS = (NOW - 7) * 1_000


def signer_of(digest: bytes, signature: bytes) -> str | None:
    try:
        given = keys.Signature(signature[:64] + bytes([(signature[64] - 27) % 256]))
        return str(given.recover_public_key_from_msg_hash(digest).to_checksum_address())
    except (BadSignature, KeyValidationError):
        return None


def package(key: Any, *points: tuple[str, int], at_ms: int = MS, size: int = 32) -> bytes:
    """Return a package as the protocol lays it out, signed."""
    body = b"".join(name.encode().ljust(32, b"\0") + value.to_bytes(size, "big") for name, value in points)
    body += at_ms.to_bytes(6, "big") + size.to_bytes(4, "big") + len(points).to_bytes(3, "big")
    signed = key.sign_msg_hash(keccak(body)).to_bytes()
    return bytes(body + signed[:64] + bytes([signed[64] + 27]))


def payload(*packages: bytes, metadata: bytes = b"1.0#test") -> bytes:
    tail = len(metadata).to_bytes(3, "big") + bytes.fromhex("000002ed57011e0000")
    return b"calldata" + b"".join(packages) + len(packages).to_bytes(2, "big") + metadata + tail


def of_payload(data: bytes, at: int = NOW) -> Reading:
    return PAYLOAD.decode([data], block=7, timestamp=at, recover=signer_of)


THREE = [
    package(KEYS[0], ("ETH", 1_510), ("BTC", 9)),
    package(KEYS[1], ("ETH", 1_530)),
    package(KEYS[2], ("BTC", 8), ("ETH", 1_512)),
]


def test_an_adapter_that_updates_each_feed_tells_value_and_times_at_once() -> None:
    names = ("getLastUpdateDetails(bytes32)", "getValueForDataFeed(bytes32)")
    calls = ADAPTER.reads()
    assert [c.data for c in calls[:2]] == [keccak(text=n)[:4] + b"ETH".ljust(32, b"\0") for n in names]
    results = (word(MS) + word(NOW - 5) + word(151_234), word(7), None, word(3))
    reading = price_of(decoded(ADAPTER, *results))
    assert (reading.mantissa, reading.decimals, reading.published_at) == (151_234, 8, NOW - 7)
    assert ADAPTER.context(results, timestamp=NOW).quorum == QuorumFacts(3, 3)
    assert ADAPTER.context((None,) * 4, timestamp=NOW).quorum is None


def test_an_adapter_that_updates_all_feeds_tells_value_and_times_apart() -> None:
    results = (None, word(151_234), word(MS) + word(NOW - 5), word(3))
    reading = price_of(decoded(ADAPTER, *results))
    assert (reading.mantissa, reading.published_at, reading.kind) == (151_234, NOW - 7, FeedKind.PUSH)
    fast = ADAPTER.model_copy(update={"time_unit": "us"})
    micro = (None, word(1), word(MS * 1_000) + word(0), None)
    assert price_of(decoded(fast, *micro)).published_at == NOW - 7


@pytest.mark.parametrize(
    ("results", "reason"),
    [
        ((None, None, None, None), "no value with a time"),
        ((None, word(5), None, None), "no value with a time"),
        ((None, None, word(MS) + word(NOW), None), "no value with a time"),
        ((word(MS), word(5), b"", None), "no value with a time"),
        ((None, word(5), word(2**128) + word(NOW), None), "no value with a time"),
        ((word(0) * 3, word(5), None, None), "never written"),
        ((None, word(5), word(0) * 2, None), "never written"),
    ],
)
def test_what_the_adapter_does_not_say_is_no_data(results: tuple[bytes | None, ...], reason: str) -> None:
    assert reason in reason_of(decoded(ADAPTER, *results))


def test_a_payload_says_the_median_of_its_signers() -> None:
    data = payload(*THREE)
    reading = price_of(of_payload(data))
    assert (reading.mantissa, reading.decimals, reading.published_at) == (1_512, 8, NOW - 7)
    assert (reading.kind, reading.raw) == (FeedKind.PULL, data)
    context = PAYLOAD.context([data], timestamp=NOW, recover=signer_of)
    assert context.quorum == QuorumFacts(3, 3)
    assert PAYLOAD.context([data], timestamp=NOW).quorum is None


def test_packages_are_read_from_the_end_with_all_that_was_signed() -> None:
    last, middle, first = unpack(payload(*THREE))
    assert last.points == ((b"ETH".ljust(32, b"\0"), 1_512), (b"BTC".ljust(32, b"\0"), 8))
    assert (middle.points[0][1], middle.timestamp_ms) == (1_530, MS)
    assert signer_of(first.digest, first.signature) == SIGNERS[0]
    small = unpack(payload(package(KEYS[0], ("ETH", 255), size=1)))
    assert small[0].points[0][1] == 255
    assert unpack(payload(metadata=b"")) == ()
    # As the contract does it: bits beyond those of the marker are nobody's business.
    assert unpack(payload(*THREE)[:-9] + bytes.fromhex("800003ed57011e0001")) == (last, middle, first)


def test_of_more_signers_than_it_takes_those_at_the_end_count() -> None:
    four = [package(KEYS[3], ("ETH", 10**6)), *THREE]
    assert price_of(of_payload(payload(*four))).mantissa == 1_512
    assert price_of(of_payload(payload(*four[1:], four[0]))).mantissa == 1_530


def test_a_signer_counts_once() -> None:
    again = package(KEYS[0], ("ETH", 1))
    assert "2 of 3 signers" in reason_of(of_payload(payload(THREE[0], THREE[1], again)))
    assert price_of(of_payload(payload(again, *THREE))).mantissa == 1_512


@pytest.mark.parametrize(
    ("offset_ms", "reason"),
    [
        (-180_000, None),
        (-180_001, "the payload was signed 181 s ago"),
        (60_000, None),
        (60_999, None),
        (61_000, "the payload was signed 61 s ahead"),
    ],
)
def test_a_payload_is_taken_for_three_minutes_and_from_one_minute_ahead(
    offset_ms: int, reason: str | None
) -> None:
    at_ms = NOW * 1_000 + offset_ms
    found = of_payload(payload(*(package(key, ("ETH", 5), at_ms=at_ms) for key in KEYS[:3])))
    if reason is None:
        assert price_of(found).published_at == at_ms // 1_000
    else:
        assert reason_of(found) == reason


def tampered(data: bytes) -> bytes:
    return data.replace((1_530).to_bytes(32, "big"), (9_999).to_bytes(32, "big"))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "no payload was fetched"),
        (b"calldata", "no marker"),
        (payload(*THREE)[:-1], "no marker"),
        (payload(*THREE)[-20:], "too short"),
        (payload(*THREE)[200:], "too short"),
        (bytes.fromhex("ffffff000002ed57011e0000"), "too short"),
        (payload(), "0 of 3 signers"),
        (payload(*THREE[:2]), "2 of 3 signers"),
        (payload(*THREE[:2], package(KEYS[2], ("BTC", 1))), "2 of 3 signers"),
        (payload(*THREE[:2], package(KEYS[4], ("ETH", 1))), "is not authorised to sign"),
        (payload(*THREE, package(KEYS[4], ("BTC", 1))), "is not authorised to sign"),
        (tampered(payload(*THREE)), "is not authorised to sign"),
        (payload(*THREE[:2], THREE[2][:-1] + b"\x05"), "of nobody"),
        (payload(*THREE[:2], package(KEYS[2], ("ETH", 1), at_ms=MS + 1)), "different times"),
        (payload(*(package(key, ("ETH", 1), at_ms=0) for key in KEYS[:3])), "no time"),
        (payload(*THREE[:2], package(KEYS[2], ("ETH", 1), size=33)), "33 bytes is too large"),
    ],
)
def test_what_is_no_payload_is_no_data(data: bytes, reason: str) -> None:
    assert reason in reason_of(of_payload(data))


def test_nothing_is_taken_from_a_payload_whose_signers_nobody_recovers() -> None:
    assert "nobody is there to recover" in reason_of(decoded(PAYLOAD, payload(*THREE)))


def test_medians_are_the_contract_s() -> None:
    assert median([3]) == 3
    assert median([9, 1, 4]) == 4
    assert median([9, 1, 4, 5]) == 4
    for refused in ([], [2**255, 2**255]):
        with pytest.raises(DataError):
            median(refused)


@pytest.mark.parametrize(
    "wrong",
    [{"threshold": 5}, {"threshold": 0}, {"signers": ()}, {"data_feed": "x" * 32}, {"data_feed": ""}],
)
def test_a_payload_that_could_never_be_taken_is_no_configuration(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        sources.build({"kind": "redstone_payload", **PAYLOAD.model_dump(), **wrong})


@settings(max_examples=200)
@given(st.binary(max_size=400), st.integers(0, 400), st.booleans())
def test_any_payload_never_raises(noise: bytes, at: int, marked: bool) -> None:
    for data in (noise + bytes.fromhex("000002ed57011e0000") * marked, mixed(payload(*THREE), noise, at)):
        assert isinstance(of_payload(data), PriceObs | NoData)
        PAYLOAD.context([data], timestamp=NOW, recover=signer_of)


def mixed(data: bytes, noise: bytes, at: int) -> bytes:
    """Return `data` with a few bytes overwritten."""
    return data[:at] + noise[:8] + data[at + len(noise[:8]) :]


# --- Data Streams -----------------------------------------------------------------------------------------


def stream(version: int, **changes: Any) -> DataStreamsSource:
    feed_id = f"0x{version:04x}" + "ab" * 30
    return DataStreamsSource(base="ETH", quote="USD", **({"feed_id": feed_id} | changes))


def report(version: int, *tail: int, valid_from: int = NOW - 3, at: int = NOW - 2, **last: int) -> bytes:
    head = bytes.fromhex(stream(version).feed_id[2:]) + word(valid_from) + word(at)
    return head + word(11) + word(12) + word(last.get("expires_at", NOW + 3_600)) + b"".join(map(word, tail))


def full(blob: bytes) -> bytes:
    """Return a full report: three words of context, the report, two signatures."""
    padded = blob + bytes(-len(blob) % 32)
    two = word(2) + word(5) + word(6)
    head = word(1) + word(2) + word(3) + word(7 * 32)
    first = 8 * 32 + len(padded)
    return head + word(first) + word(first + 96) + word(0) + word(len(blob)) + padded + two + two


PRICE = 1_512 * 10**18
OPEN = MarketStatus.OPEN


@pytest.mark.parametrize(
    ("version", "tail", "bid_ask", "status", "made_at"),
    [
        (2, (PRICE,), (None, None), None, NOW - 2),
        (3, (PRICE, PRICE - 5, PRICE + 6), (PRICE - 5, PRICE + 6), None, NOW - 2),
        (3, (PRICE, PRICE, PRICE), (PRICE, PRICE), None, NOW - 2),
        (4, (PRICE, 2), (None, None), OPEN, NOW - 2),
        (4, (PRICE, 1), (None, None), MarketStatus.CLOSED, NOW - 2),
        (4, (PRICE, 0), (None, None), MarketStatus.UNKNOWN, NOW - 2),
        (4, (PRICE, 3), (None, None), MarketStatus.UNKNOWN, NOW - 2),
        (8, ((NOW - 900) * 10**9 + 1, PRICE, 1), (None, None), MarketStatus.CLOSED, NOW - 900),
        (8, ((NOW + 5) * 10**9, PRICE, 2), (None, None), OPEN, NOW - 2),
    ],
)
def test_a_report_is_read_by_the_schema_of_its_feed(
    version: int, tail: tuple[int, ...], bid_ask: Any, status: MarketStatus | None, made_at: int
) -> None:
    source = stream(version)
    data = full(report(version, *tail))
    reading = price_of(decoded(source, data))
    assert (reading.mantissa, reading.decimals, reading.published_at) == (PRICE, 18, made_at)
    assert ((reading.bid, reading.ask), reading.kind) == (bid_ask, FeedKind.PULL)
    assert source.context([data], timestamp=NOW).market_status is status


def test_a_report_says_what_verifying_it_costs_and_until_when_it_can_be() -> None:
    found = parse_report(report(3, -PRICE, 0, 1))
    assert isinstance(found, Report)
    assert (found.version, found.native_fee, found.link_fee) == (3, 11, 12)
    assert (found.price, found.valid_from, found.expires_at) == (-PRICE, NOW - 3, NOW + 3_600)


def test_a_full_report_is_taken_apart() -> None:
    blob = report(3, PRICE, PRICE, PRICE)
    assert report_in(full(blob)) == blob
    assert report_in(blob) is None
    assert report_in(full(blob)[:-1]) is None


V3 = stream(3)
GOOD = (PRICE, PRICE, PRICE)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (None, "no report was fetched"),
        (b"", "no report was fetched"),
        (report(3, *GOOD), "no full report"),
        (full(report(3, *GOOD))[:-32], "no full report"),
        (full(b""), "schema v0 are not read"),
        (full(report(7, PRICE)), "schema v7 are not read"),
        (full(report(3, *GOOD)[:-1]), "287 bytes are no report of schema v3"),
        (full(report(3, *GOOD) + bytes(32)), "320 bytes are no report of schema v3"),
        (full(report(3, 2**191, 0, 0)), "does not decode as schema v3"),
        (full(report(3, *GOOD, at=2**32)), "does not decode as schema v3"),
        (full(report(2, PRICE)), "the report is of feed 0x0002abab"),
        (full(report(3, *GOOD, valid_from=0, at=0)), "has no time"),
        (full(report(3, *GOOD, valid_from=NOW - 1)), "valid only after it was observed"),
        (full(report(3, *GOOD, expires_at=NOW - 1)), f"expired at {NOW - 1}"),
    ],
)
def test_what_is_no_report_is_no_data(data: bytes | None, reason: str) -> None:
    assert reason in reason_of(decoded(V3, data))


def test_a_report_holds_until_the_second_in_which_it_expires() -> None:
    assert price_of(decoded(V3, full(report(3, *GOOD, expires_at=NOW))))
    never = full(report(8, 0, PRICE, 2))
    assert "has no time" in reason_of(decoded(stream(8), never))


@settings(max_examples=200)
@given(st.binary(max_size=40), st.integers(0, 700), st.sampled_from([2, 3, 4, 8]))
def test_any_report_never_raises(noise: bytes, at: int, version: int) -> None:
    tail = {2: (PRICE,), 3: GOOD, 4: (PRICE, 2), 8: (NOW * 10**9, PRICE, 2)}[version]
    data = mixed(full(report(version, *tail)), noise, at)
    source = stream(version)
    assert isinstance(decoded(source, data), PriceObs | NoData)
    source.context([data], timestamp=NOW)


# --- all --------------------------------------------------------------------------------------------------

ALL: list[Any] = [PYTH, HERMES, CHRONICLE, MEDIAN, OSM, API3, SERVER, BEACON, ADAPTER, PAYLOAD, V3]


@pytest.mark.parametrize("source", ALL, ids=lambda source: source.source_id)
@settings(max_examples=150)
@given(data=st.data())
def test_random_bytes_never_raise(source: Any, data: st.DataObject) -> None:
    words = st.lists(st.one_of(st.integers(0, 4), st.integers(0, 2**256 - 1)), max_size=12)
    answer = st.one_of(
        st.none(), st.binary(max_size=500), words.map(lambda values: b"".join(map(word, values)))
    )
    count = max(1, len(source.reads()))
    results = data.draw(st.lists(answer, min_size=count, max_size=count))
    reading = source.decode(results, block=1, timestamp=NOW)
    assert isinstance(reading, PriceObs | NoData)
    context = source.context(results, timestamp=NOW)
    assert context.now == NOW


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda leaf: (
            st.lists(leaf) | st.dictionaries(st.sampled_from(["id", "parsed", "price", "expo"]), leaf)
        ),
    )
)
def test_any_json_in_place_of_hermes_never_raises(parsed: Any) -> None:
    assert isinstance(decoded(HERMES, document(parsed)), NoData)
    assert isinstance(decoded(HERMES, json.dumps(parsed).encode()), NoData)
