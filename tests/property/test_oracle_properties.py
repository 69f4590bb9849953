"""What must hold of guards, judgement, sources and policy for any input at all."""

from __future__ import annotations

import dataclasses
import io
import zipfile
from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contracts_abi.errors import InputError
from contracts_abi.feeds import LATEST_ROUND_DATA, join_round_id, split_round_id
from oracle.guards import basic_guards, guards
from oracle.interfaces import (
    AmmFacts,
    AuthorityFacts,
    CapFacts,
    ExecutionFacts,
    FeedContext,
    LivenessFacts,
    MarketStatus,
    QuorumFacts,
    RateFacts,
    SequencerFacts,
    VenueFacts,
)
from oracle.snapshot import accept, judge, plain_snapshot, rewind
from oracle.sources import sources
from oracle.sources.chainlink import ChainlinkFeed, ChainlinkSource, FeedShape, resolve
from oracle.sources.recorded import exact
from oracle.types import (
    FeedKind,
    GuardedPrice,
    GuardStatus,
    NoData,
    PriceObs,
    PriceSnapshot,
    PriceStatus,
    Reading,
)
from simulation.policy import excess_seizure_bps

NOW = 1_700_000_000

answers = st.one_of(
    st.sampled_from([0, 1, -1, 2_000 * 10**8, 2**95 - 1]),
    st.integers(-(2**255), 2**255 - 1),
    st.integers(1, 10**13),
)
times = st.one_of(st.integers(NOW - 10_000, NOW + 200), st.integers(0, 2**256 - 1))
keys = st.tuples(st.integers(0, 3), st.integers(0, 5))


@st.composite
def observations(draw: st.DrawFn, source_id: str | None = None) -> PriceObs:
    return PriceObs(
        base="ETH",
        quote="USD",
        mantissa=draw(answers),
        decimals=draw(st.sampled_from([0, 8, 18])),
        kind=draw(st.sampled_from(FeedKind)),
        source_id=source_id or draw(st.sampled_from(["feed", "peer"])),
        published_at=draw(st.none() | times),
        observed_at=draw(st.integers(NOW - 100_000, NOW)),
        block=draw(st.none() | st.integers(0, 9)),
        round_key=draw(st.none() | keys),
        answered_key=draw(st.none() | keys),
    )


def readings(source_id: str | None = None) -> st.SearchStrategy[Reading]:
    nothing = st.just(NoData("ETH", "USD", source_id or "feed", NOW, "reverted"))
    return st.one_of(observations(source_id), observations(source_id), nothing)


histories = st.lists(observations("feed"), max_size=3).map(tuple)
peers = st.lists(readings("peer"), max_size=2).map(tuple)
bounds = st.none() | st.integers(-(2**191), 2**191 - 1) | st.integers(0, 10**15)


KNOWN = PriceObs("BTC", "USD", 64_000 * 10**8, 8, FeedKind.PUSH, "btc", NOW, NOW)
counts = st.integers(0, 10**6)
maybe = st.none() | counts
names = st.none() | st.sampled_from([frozenset(), frozenset({"0xa"})])


def _facts(kind: type[Any], *fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | st.builds(kind, *fields)


@st.composite
def contexts(draw: st.DrawFn) -> FeedContext:
    return FeedContext(
        now=NOW,
        heartbeat_s=draw(st.none() | st.integers(1, 90_000)),
        grace_s=draw(st.integers(0, 600)),
        min_answer=draw(bounds),
        max_answer=draw(bounds),
        description=draw(st.sampled_from([None, "ETH / USD", "BTC / USD", "ether"])),
        known=draw(st.sampled_from([{}, {"BTC/USD": KNOWN}])),
        legs=draw(st.lists(st.sampled_from(FeedKind), max_size=2).map(tuple)),
        sequencer=draw(_facts(SequencerFacts, st.integers(0, 1), st.sampled_from([0, NOW - 9_000, NOW]))),
        amm=draw(_facts(AmmFacts, counts, *[maybe] * 6)),
        rate=draw(_facts(RateFacts, counts, st.just(18), *[maybe] * 3)),
        cap=draw(_facts(CapFacts, counts, st.integers(1, 10**6))),
        authority=draw(_facts(AuthorityFacts, st.just(()) | st.just(("owner",)), names, names)),
        quorum=draw(_facts(QuorumFacts, counts, counts)),
        venue=draw(_facts(VenueFacts, maybe, st.none() | st.booleans(), maybe, maybe)),
        execution=draw(_facts(ExecutionFacts, st.none() | st.integers(NOW - 99, NOW), maybe)),
        liveness=draw(_facts(LivenessFacts, *[maybe] * 5)),
        market_status=draw(st.none() | st.sampled_from(MarketStatus)),
        locked=draw(st.none() | st.booleans()),
        markets=draw(st.sampled_from([None, {}, {"ETH": True}, {"ETH": False}])),
    )


# What each guard may not do without, written down apart from the guards. A guard that says OK although an
# input is absent has invented it.
NEEDS = {
    "no_data": lambda r, h, p, c: isinstance(r, PriceObs),
    "non_positive": lambda r, h, p, c: isinstance(r, PriceObs),
    "stale": lambda r, h, p, c: isinstance(r, PriceObs) and None not in (r.published_at, c.heartbeat_s),
    "future": lambda r, h, p, c: isinstance(r, PriceObs) and r.published_at is not None,
    "rollback": lambda r, h, p, c: (
        isinstance(r, PriceObs)
        and bool(h)
        and (None not in (r.round_key, h[-1].round_key) or None not in (r.published_at, h[-1].published_at))
    ),
    "bound": lambda r, h, p, c: isinstance(r, PriceObs) and None not in (c.min_answer, c.max_answer),
    "jump": lambda r, h, p, c: isinstance(r, PriceObs) and bool(h),
    "cross_dev": lambda r, h, p, c: isinstance(r, PriceObs) and others(r, p),
    "unit": lambda r, h, p, c: isinstance(r, PriceObs) and others(r, p),
    "wrong_feed": lambda r, h, p, c: (
        isinstance(r, PriceObs) and bool(c.description or (c.known and others(r, p)))
    ),
    "hardcoded": lambda r, h, p, c: isinstance(r, PriceObs) and others(r, p),
    "depeg": lambda r, h, p, c: isinstance(r, PriceObs) and others(r, p),
    "confidence": lambda r, h, p, c: (
        isinstance(r, PriceObs) and (r.conf_abs is not None or None not in (r.bid, r.ask))
    ),
    "quorum": lambda r, h, p, c: isinstance(r, PriceObs) and c.quorum is not None,
    "spot": lambda r, h, p, c: isinstance(r, PriceObs) and (r.kind is not FeedKind.COMPOSITE or bool(c.legs)),
    "thin_twap": lambda r, h, p, c: (
        isinstance(r, PriceObs) and c.amm is not None and None not in (c.amm.oldest_s, c.amm.spot_mantissa)
    ),
    "reentrancy": lambda r, h, p, c: isinstance(r, PriceObs) and c.locked is not None,
    "venue": lambda r, h, p, c: c.venue is not None and None not in dataclasses.astuple(c.venue),
    "rate_jump": lambda r, h, p, c: isinstance(r, PriceObs) and r.kind is FeedKind.RATE and bool(h),
    "cap_misconfigured": lambda r, h, p, c: isinstance(r, PriceObs) and c.cap is not None,
    "authority": lambda r, h, p, c: (
        c.authority is not None and None not in (c.authority.setters, c.authority.attested)
    ),
    "market_unreadable": lambda r, h, p, c: bool(c.markets),
    "sequencer": lambda r, h, p, c: c.sequencer is not None and c.sequencer.started_at > 0,
    "latency": lambda r, h, p, c: (
        isinstance(r, PriceObs)
        and r.published_at is not None
        and c.execution is not None
        and dataclasses.astuple(c.execution) != (None, None)
    ),
    "liquidators": lambda r, h, p, c: c.liveness is not None and None not in dataclasses.astuple(c.liveness),
    "market_closed": lambda r, h, p, c: isinstance(r, PriceObs) and c.market_status is MarketStatus.OPEN,
}


def others(reading: PriceObs, several: Sequence[Reading]) -> bool:
    """Whether somebody else has a price of the same pair."""
    return any(
        isinstance(p, PriceObs) and p.source_id != reading.source_id and p.kind is not FeedKind.CONSTANT
        for p in several
    )


def test_every_guard_states_its_inputs_here() -> None:
    assert set(NEEDS) == set(guards)


@pytest.mark.parametrize("kind", list(guards))
@settings(deadline=None, max_examples=60)
@given(readings("feed"), histories, peers, contexts())
def test_no_guard_says_ok_without_its_inputs(
    kind: str,
    reading: Reading,
    history: tuple[PriceObs, ...],
    several: tuple[Reading, ...],
    context: FeedContext,
) -> None:
    finding = guards.build({"kind": kind}).check(reading, history, several, context)
    if finding.status is GuardStatus.OK:
        assert NEEDS[kind](reading, history, several, context)


def bad(
    reading: Reading, history: Sequence[PriceObs], others: Sequence[Reading], context: FeedContext
) -> bool:
    """Whether a reading must not be believed, from the failures' own definitions in exact fractions."""
    if isinstance(reading, NoData) or reading.mantissa <= 0:
        return True
    if reading.published_at is None or context.heartbeat_s is None:
        return True
    age = context.now - reading.published_at
    if age > context.heartbeat_s + context.grace_s or age < -60:
        return True
    if None not in (reading.round_key, reading.answered_key) and reading.answered_key < reading.round_key:
        return True
    for bound, side in ((context.min_answer, 1), (context.max_answer, -1)):
        if bound is not None and side * reading.mantissa <= side * bound + Fraction(abs(bound), 10):
            return True
    if not history:
        return False
    last = history[-1]
    if None not in (reading.round_key, last.round_key) and reading.round_key < last.round_key:
        return True
    if last.mantissa <= 0 or context.now - last.observed_at > 86_400:
        return False
    new = Fraction(reading.mantissa, 10**reading.decimals)
    old = Fraction(last.mantissa, 10**last.decimals)
    confirmed = any(
        isinstance(p, PriceObs)
        and p.mantissa > 0
        and p.kind is not FeedKind.CONSTANT
        and abs(Fraction(p.mantissa, 10**p.decimals) - new) * 50
        <= max(Fraction(p.mantissa, 10**p.decimals), new)
        for p in others
    )
    return 2 * min(new, old) < max(new, old) and not confirmed


@settings(deadline=None, max_examples=500)
@given(readings("feed"), histories, peers, contexts())
def test_judgement_never_lets_a_bad_price_through(
    reading: Reading, history: tuple[PriceObs, ...], others: tuple[Reading, ...], context: FeedContext
) -> None:
    judged = judge(reading, history, others, context, basic_guards())
    if bad(reading, history, others, context):
        assert judged.status is not PriceStatus.OK
    if judged.status is not PriceStatus.OK:
        assert judged.reasons
        taken = PriceSnapshot("v", 1, NOW, "USD", {"ETH": judged})
        assert taken.price_e8("ETH") is None
        assert taken.unknown() == ("ETH",)
        assert accept({}, taken) == {}


@settings(deadline=None)
@given(observations("feed"), contexts())
def test_an_honest_first_reading_stands(reading: PriceObs, context: FeedContext) -> None:
    honest = dataclasses.replace(
        reading, mantissa=2_000 * 10**8, published_at=NOW, round_key=(1, 1), answered_key=(1, 1)
    )
    known = dataclasses.replace(context, heartbeat_s=3_600, min_answer=1, max_answer=2**95 - 1)
    assert judge(honest, (), (), known, basic_guards()).status is PriceStatus.OK


@settings(deadline=None)
@given(readings(), st.sets(st.sampled_from(["no_data", "stale", "other"])), contexts())
def test_no_data_is_missing_whatever_is_asked(
    reading: Reading, required: set[str], context: FeedContext
) -> None:
    nothing = NoData("ETH", "USD", "feed", NOW, "reverted")
    for asked in ((), basic_guards()):
        assert (
            judge(nothing, (), (reading,), context, asked, frozenset(required)).status is PriceStatus.MISSING
        )


@settings(deadline=None)
@given(st.sampled_from(PriceStatus), readings())
def test_an_unknown_price_is_never_a_number(status: PriceStatus, reading: Reading) -> None:
    price = PriceSnapshot("v", 1, NOW, "USD", {"A": GuardedPrice(reading, status)}).price_e8("A")
    if status is not PriceStatus.OK or isinstance(reading, NoData):
        assert price is None
    assert price is None or price > 0


@settings(deadline=None)
@given(st.lists(observations("feed"), max_size=12), st.integers(0, 9), st.integers(1, 5))
def test_history_is_bounded_in_order_and_rewinds(seen: list[PriceObs], block: int, keep: int) -> None:
    history: dict[str, tuple[PriceObs, ...]] = {}
    for obs in seen:
        good = GuardedPrice(obs, PriceStatus.OK)
        history = accept(history, PriceSnapshot("v", 1, NOW, "USD", {"ETH": good}), keep=keep)
        assert len(history["feed"]) <= keep
        assert history["feed"][-1] is obs
    kept = [o for past in history.values() for o in past]
    assert [o for o in seen if any(o is k for k in kept)] == kept
    for past in rewind(history, block).values():
        assert all(o.block is None or o.block <= block for o in past)


# --- chainlink --------------------------------------------------------------------------------------------

PROXY = "0x5f4eC3Df9cbd43714FE2740f5E3616155c5b8419"
blobs = (
    st.none()
    | st.binary(max_size=200)
    | st.binary(min_size=32, max_size=32)
    | st.binary(min_size=160, max_size=160)
)
FEEDS = (
    None,
    ChainlinkFeed(PROXY, FeedShape.PROXY, "x", 8, 6, PROXY, 1, 10**12),
    ChainlinkFeed(
        PROXY, FeedShape.ANSWER_ONLY, "x", 8, behind=ChainlinkFeed(PROXY, FeedShape.AGGREGATOR, "y", 8)
    ),
)


@pytest.mark.parametrize("feed", FEEDS)
@settings(deadline=None, max_examples=300)
@given(st.data())
def test_any_bytes_decode_to_a_reading(feed: ChainlinkFeed | None, data: st.DataObject) -> None:
    source = ChainlinkSource(base="ETH", quote="USD", address=PROXY, feed=feed)
    results = [data.draw(blobs) for _ in source.reads()]
    reading = source.decode(results, block=1, timestamp=NOW)
    assert isinstance(reading, PriceObs | NoData)
    assert source.context(results, timestamp=NOW).now == NOW
    assert all("\n" not in line for line in source.changes(results))
    judge(reading, (), (), source.context(results, timestamp=NOW), basic_guards())


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_any_bytes_resolve_or_are_refused(data: st.DataObject) -> None:
    step = resolve(PROXY)
    for _ in range(12):
        try:
            after = step.next([data.draw(blobs) for _ in step.reads])
        except InputError:
            return
        if isinstance(after, ChainlinkFeed):
            return
        step = after
    raise AssertionError("the resolution does not end")


@settings(deadline=None)
@given(
    st.integers(0, 2**16 - 1),
    st.integers(0, 2**64 - 1),
    st.integers(-(2**255), 2**255 - 1),
    st.integers(1, 2**256 - 1),
)
def test_rounds_survive_encoding(phase: int, round_: int, answer: int, updated_at: int) -> None:
    from eth_abi.abi import encode

    round_id = join_round_id(phase, round_)
    assert split_round_id(round_id) == (phase, round_)
    data = encode(LATEST_ROUND_DATA.outputs, (round_id, answer, 0, updated_at, round_id))
    source = ChainlinkSource(base="ETH", quote="USD", address=PROXY)
    reading = source.decode([data, (8).to_bytes(32, "big"), None, None, None], block=1, timestamp=NOW)
    assert isinstance(reading, PriceObs)
    assert (reading.round_key, reading.mantissa, reading.published_at) == (
        (phase, round_),
        answer,
        updated_at,
    )


# --- recorded ---------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.decimals(allow_nan=False, allow_infinity=False, places=18, min_value=-(10**30), max_value=10**30))
def test_decimal_text_is_read_without_loss(value: Decimal) -> None:
    assert Fraction(exact(str(value), 18), 10**18) == Fraction(value)
    assert Fraction(exact(f"{value:f}", 20), 10**20) == Fraction(value)


@settings(deadline=None, max_examples=300)
@given(st.text(max_size=20), st.integers(0, 77))
def test_any_text_is_a_number_or_refused(text: str, decimals: int) -> None:
    try:
        value = exact(text, decimals)
    except ValueError:
        return
    assert Fraction(value, 10**decimals) == Fraction(text)


cells = st.one_of(
    st.sampled_from(
        [str(NOW), f"{NOW}000", "1", "-1", "0", "nan", "", "194.5", '"', '"\n', "2020-03-12", "1e9"]
    ),
    st.text(max_size=8),
)
csv_files = st.lists(st.lists(cells, max_size=4).map(",".join), max_size=6).map(
    lambda lines: "\n".join(["t,p,r", *lines]).encode("utf-8", "surrogatepass")
)


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.one_of(st.binary(max_size=80), csv_files),
    st.sampled_from(["s", "ms", "iso"]),
    st.sampled_from(["ascending", "descending"]),
    st.sampled_from(["refuse", "first"]),
    st.booleans(),
    st.sampled_from(["prices.csv", "prices.csv.gz", "prices.parquet"]),
)
def test_any_file_is_read_in_order_or_refused_in_one_line(
    tmp_path: Path, content: bytes, unit: str, order: str, duplicates: str, lenient: bool, name: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    try:
        source = sources.build(
            {
                "kind": "recorded",
                "base": "ETH",
                "quote": "USD",
                "path": path,
                "time": "t",
                "price": "p",
                "round": "r",
                "decimals": 8,
                "time_unit": unit,
                "order": order,
                "duplicates": duplicates,
                "allow_non_positive": lenient,
            }
        )
    except InputError as error:
        refusal = str(error)
    else:
        refusal = None
    if refusal is not None:
        assert name in refusal
        assert "\n" not in refusal
        return
    published = [r.published_at for r in source.readings() if isinstance(r, PriceObs)]
    assert published == sorted(published)
    assert published
    for r in source.readings():
        assert lenient or isinstance(r, NoData) or r.mantissa > 0


def test_other_peoples_formats_are_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.csv", "t,p\n1,2\n")
    for name in ("a.csv", "a.csv.gz", "a.parquet"):
        (tmp_path / name).write_bytes(buffer.getvalue())
        with pytest.raises(InputError, match=name):
            sources.build(
                {
                    "kind": "recorded",
                    "base": "A",
                    "quote": "B",
                    "path": tmp_path / name,
                    "time": "t",
                    "price": "p",
                    "decimals": 8,
                }
            )


# --- the excess of a seizure ------------------------------------------------------------------------------

prices = st.integers(1, 10**14)


@settings(deadline=None)
@given(prices, prices, prices, prices)
def test_excess_seizure_is_the_ratio_of_ratios_rounded_towards_harm(
    pc: int, pd: int, rc: int, rd: int
) -> None:
    protocol = plain_snapshot("p", "USD", {"C": pc, "D": pd}, 8, block=1, timestamp=NOW)
    reference = plain_snapshot("r", "USD", {"C": rc, "D": rd}, 8, block=1, timestamp=NOW)
    excess = (Fraction(pd, pc) / Fraction(rd, rc) - 1) * 10_000
    bps = excess_seizure_bps("C", "D", protocol, reference)
    assert bps is not None
    assert 0 <= bps - excess < 1
