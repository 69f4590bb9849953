"""Columns against one reading at a time: every guard, every row, every history, the same answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts_abi.errors import InputError
from oracle.columns import LARGEST, Columns, columns_of, every
from oracle.guards import GuardModel, guards
from oracle.interfaces import FeedContext
from oracle.judge_columns import (
    LACKS,
    SERIES_GUARDS,
    STATUS,
    Code,
    Second,
    judge_columns,
    judge_readings,
)
from oracle.snapshot import only_jumped
from oracle.types import FeedKind, Finding, GuardStatus, NoData, PriceObs, PriceStatus, Reading

T0 = 1_600_000_000
# Few values that lie at, just within and far beyond the limits, so that rounds repeat and thresholds are met.
PRICES = (
    0,
    -5,
    1,
    900,
    1_000,
    1_049,
    1_050,
    1_051,
    1_099,
    1_100,
    1_101,
    1_111,
    1_112,
    1_500,
    2_000,
    2_001,
    3_001,
)


def price(
    source: str, decimals: int, kind: FeedKind, with_rounds: bool, timed: bool
) -> st.SearchStrategy[tuple[int, Reading]]:
    unit = 10 ** (decimals - 2)

    def made(
        gap: int, mantissa: int, off: int, age: int, phase: int, number: int, carried: int, conf: int | None
    ) -> tuple[int, Reading]:
        return gap, PriceObs(
            "ETH",
            "USD",
            mantissa * unit + off,
            decimals,
            kind,
            source,
            published_at=age if timed else None,
            observed_at=0,
            round_key=(phase, number) if with_rounds else None,
            answered_key=(phase, number - carried) if with_rounds else None,
            conf_abs=None if conf is None else conf * unit,
        )

    gaps = st.sampled_from([0, 1, 60, 3_600, 3_900, 3_901, 90_000])
    prices = st.builds(
        made,
        gaps,
        st.sampled_from(PRICES),
        st.sampled_from([-1, 0, 0, 1]),
        st.sampled_from([-61, -60, 0, 0, 0, 10, 3_900, 3_901]),
        st.integers(1, 2),
        st.integers(1, 4),
        st.sampled_from([0, 0, 0, 1]),
        st.sampled_from([None, 0, 19, 21, 22, 500]),
    )
    missing = st.builds(lambda gap: (gap, NoData("ETH", "USD", source, 0, "no data in this row")), gaps)
    return prices | prices | prices | missing


def dated(rows: list[tuple[int, Reading]]) -> list[Reading]:
    out: list[Reading] = []
    t = T0
    for gap, reading in rows:
        t += gap
        if isinstance(reading, NoData):
            out.append(replace(reading, observed_at=t))
        else:
            age = reading.published_at
            out.append(replace(reading, observed_at=t, published_at=None if age is None else t - age))
    return out


@st.composite
def series(draw: st.DrawFn, source: str, kinds: list[FeedKind]) -> list[Reading]:
    decimals = draw(st.sampled_from([2, 5, 8]))
    kind = draw(st.sampled_from(kinds))
    cell = price(source, decimals, kind, draw(st.booleans()), draw(st.integers(0, 3)) > 0)
    rows = draw(st.lists(cell, min_size=1, max_size=40))
    readings = dated(rows)
    if not any(isinstance(r, PriceObs) for r in readings):
        readings[-1] = PriceObs("ETH", "USD", 1_000, decimals, kind, source, None, readings[-1].observed_at)
    return readings


@st.composite
def held(draw: st.DrawFn) -> list[GuardModel]:
    names = draw(st.lists(st.sampled_from(SERIES_GUARDS), unique=True, min_size=1))
    own: dict[str, dict[str, object]] = {
        "jump": {"vol_bps_sqrt_hour": draw(st.sampled_from([0, 7, 600])), "memory_s": 7_200},
        "hardcoded": {"repeats": draw(st.sampled_from([2, 3, 32, 64]))},
        "stale": {"max_age_s": draw(st.sampled_from([None, 3_900]))},
        "unit": {"factor": draw(st.sampled_from([2, 3]))},
    }
    return [guards.build({"kind": name, **own.get(name, {})}) for name in names]


CONTEXTS = st.builds(
    FeedContext,
    now=st.just(0),
    heartbeat_s=st.sampled_from([None, 3_600]),
    min_answer=st.sampled_from([None, 1, 800, 10**5, -(10**30)]),
    max_answer=st.sampled_from([None, 10**4, 3 * 10**8, 2**95]),
    description=st.sampled_from([None, "ETH / USD", "WETH/USD", "BTC / USD", "what"]),
    legs=st.sampled_from([(), (FeedKind.CONSTANT,), (FeedKind.PUSH, FeedKind.RATE)]),
)


@settings(deadline=None, max_examples=400)
@given(
    series("a", [FeedKind.PUSH, FeedKind.PUSH, FeedKind.CONSTANT, FeedKind.RATE]),
    st.none() | series("b", [FeedKind.PUSH, FeedKind.AMM_TWAP, FeedKind.CONSTANT, FeedKind.RATE]),
    held(),
    CONTEXTS,
    st.integers(0, 40),
)
def test_columns_say_what_the_guards_say(
    own: list[Reading], other: list[Reading] | None, several: list[GuardModel], context: FeedContext, cut: int
) -> None:
    columns = columns_of(own)
    second, beside = None, None
    if other is not None:
        seen = columns_of(other).seen_at(columns.observed_at)
        judged = judge_columns(seen, several, context)
        alone = judge_readings(seen.readings(), several, context)
        assert [j.status is PriceStatus.OK for j in alone] == list(judged.accepted)
        assert [only_jumped(j) for j in alone] == list(judged.only_jumped)
        second = Second(seen, judged.accepted, judged.only_jumped)
        beside = list(zip(seen.readings(), judged.accepted, judged.only_jumped, strict=True))
    expected = judge_readings(columns.readings(), several, context, beside)
    first = judge_columns(columns.take(slice(0, cut)), several, context, part(second, slice(0, cut)))
    rest = judge_columns(
        columns.take(slice(cut, None)), several, context, part(second, slice(cut, None)), first.history
    )
    found = np.concatenate([first.codes, rest.codes], axis=1)
    for row, guard in enumerate(several):
        said = [STATUS[Code(code)] for code in found[row]]
        assert said == [status_of(guard.kind, judged.findings) for judged in expected], guard.kind
    stood = [*first.accepted, *rest.accepted]
    assert stood == [judged.status is PriceStatus.OK for judged in expected]


def part(second: Second | None, rows: slice) -> Second | None:
    if second is None:
        return None
    return Second(second.columns.take(rows), second.standing[rows], second.doubtful[rows])


def status_of(kind: str, findings: Sequence[Finding]) -> GuardStatus:
    return next(f.status for f in findings if f.name == kind)


@settings(deadline=None, max_examples=200)
@given(series("a", [FeedKind.PUSH]))
def test_columns_hold_the_readings(readings: list[Reading]) -> None:
    back = list(columns_of(readings).readings())
    assert [replace(r, base="ETH", quote="USD", source_id="a") for r in back] == readings


@settings(deadline=None, max_examples=200)
@given(
    st.lists(st.integers(0, 50), min_size=1, max_size=30),
    st.lists(st.integers(0, 30), max_size=4),
    st.integers(1, 40),
)
def test_looks_do_not_depend_on_how_a_series_is_cut(gaps: list[int], cuts: list[int], period: int) -> None:
    times = T0 + np.cumsum(gaps)
    whole = columns_of(
        [PriceObs("E", "U", i + 1, 0, FeedKind.PUSH, "a", int(t), int(t)) for i, t in enumerate(times)]
    )
    edges = [0, *sorted(min(c, len(whole)) for c in cuts), len(whole)]
    chunks = [whole.take(slice(a, b)) for a, b in pairwise(edges)]
    seen = list(every(chunks, period))
    looks = [(int(c.observed_at[i]), int(c.mantissa[i])) for c in seen for i in range(len(c))]
    first, last = int(times[0]), int(times[-1])
    expected = [
        (t, max(i + 1 for i, at in enumerate(times) if at <= t))
        for t in range(-(-first // period) * period, last + 1, period)
    ]
    assert looks == expected


def test_guards_without_a_series_are_listed_with_what_they_lack() -> None:
    assert sorted([*SERIES_GUARDS, *LACKS]) == sorted(guards)
    whole = columns_of([PriceObs("E", "U", 1, 0, FeedKind.PUSH, "a", 1, 1)])
    for kind, lacks in LACKS.items():
        with pytest.raises(InputError, match=lacks):
            judge_columns(whole, [guards.build({"kind": kind})], FeedContext(now=0))


@pytest.mark.parametrize("mantissa", [1, 7_903, 7_904, 10**6, 43_000 * 10**8, LARGEST])
@pytest.mark.parametrize("conf", [0, 1, LARGEST - 1, LARGEST])
def test_the_largest_numbers_are_judged_as_any_other(mantissa: int, conf: int) -> None:
    reading = PriceObs("E", "U", mantissa, 8, FeedKind.PUSH, "a", T0, T0, conf_abs=conf)
    held = [guards.build({"kind": "confidence"})]
    judged = judge_columns(columns_of([reading]), held, FeedContext(now=0))
    (plain,) = judge_readings([reading], held, FeedContext(now=0))
    assert STATUS[Code(int(judged.codes[0, 0]))] is plain.findings[0].status


@pytest.mark.parametrize(
    ("says", "what"),
    [
        ({"conf_abs": -1}, "negative"),
        ({"conf_abs": -50}, "negative"),
        ({"published_at": -1}, "negative"),
        ({"bid": 2, "ask": 1}, "bid and ask have no columns"),
        ({"bid": 1, "ask": 9}, "bid and ask have no columns"),
    ],
)
def test_what_no_column_holds_is_refused_and_not_left_out(says: dict[str, int], what: str) -> None:
    fine = PriceObs("E", "U", 5, 0, FeedKind.PUSH, "a", 1, 1)
    with pytest.raises(InputError, match=what):
        columns_of([replace(fine, **says)])  # type: ignore[arg-type]
    columns = columns_of([fine])
    with pytest.raises(InputError, match="negative"):
        replace(columns, conf_abs=np.array([-2], dtype=np.int64))


def test_a_gap_of_years_costs_no_memory_and_one_of_decades_is_refused() -> None:
    def columns(*times: int) -> Columns:
        return columns_of([PriceObs("E", "U", 5, 0, FeedKind.PUSH, "a", t, t) for t in times])

    parts = list(every([columns(T0, T0 + 2 * 10**6)], 1))
    assert sum(map(len, parts)) == 2 * 10**6 + 1
    assert max(map(len, parts)) <= 2**18
    with pytest.raises(InputError, match="no row for 98400000000 s after time 1600000000"):
        list(every([columns(T0, 10**11)], 60))


def test_what_does_not_fit_is_refused() -> None:
    def columns(mantissa: int, decimals: int = 0, source: str = "a") -> Columns:
        return columns_of([PriceObs("E", "U", mantissa, decimals, FeedKind.PUSH, source, 1, 1)])

    with pytest.raises(InputError, match="too large for columns"):
        columns(2**60)
    with pytest.raises(InputError, match="does not fit 64 bits"):
        columns(2**70)
    with pytest.raises(InputError, match="no reading is a price"):
        columns_of([])
    large, fine = columns(10**14), columns(1, 3, "b")
    with pytest.raises(InputError, match="too large for columns of 3 decimals"):
        judge_columns(large, [], FeedContext(now=0), Second(fine, np.array([True]), np.array([False])))
    with pytest.raises(InputError, match="cannot confirm itself"):
        judge_columns(large, [], FeedContext(now=0), Second(large, np.array([True]), np.array([False])))
    jump = guards.build({"kind": "jump"})
    with pytest.raises(InputError, match="stands there twice"):
        judge_columns(fine, [jump, jump], FeedContext(now=0))


@pytest.mark.parametrize("seed", range(40))
def test_long_series_of_few_values(seed: int) -> None:
    """Limits are met exactly only where values repeat often."""
    rng = np.random.default_rng(seed)
    rows = 600
    # All pairs are a whole number of basis points or a whole factor apart, or just not.
    values = rng.choice([999, 1_000, 1_001, 1_053, 1_111, 2_000, 3_000, 3_001, 0], 5, replace=False)
    numbers = np.maximum.accumulate(rng.integers(0, rows, rows) * (rng.random(rows) < 0.2)) // 40 + 1

    def drawn(source: str, kind: FeedKind, t: np.ndarray) -> Columns:
        phases = rng.integers(1, 3, rows) if seed % 2 else np.ones(rows, dtype=np.int64)
        age = rng.choice([0, 0, 0, 3_900, 3_901, -60, -61], rows)
        return columns_of(
            [
                NoData("ETH", "USD", source, int(at), "no data in this row")
                if rng.random() < 0.02
                else PriceObs(
                    "ETH",
                    "USD",
                    int(rng.choice(values)),
                    3,
                    kind,
                    source,
                    int(at - old),
                    int(at),
                    round_key=(int(phase), int(number)),
                    answered_key=(int(phase), int(number)),
                    conf_abs=int(rng.choice([0, 20, 21, 60])),
                )
                for at, old, phase, number in zip(t, age, phases, numbers, strict=True)
            ]
        )

    times = T0 + np.cumsum(rng.choice([0, 12, 3_600], rows))
    context = FeedContext(0, heartbeat_s=3_600, min_answer=1_000, max_answer=3_001 + seed % 2)
    names = rng.permutation(SERIES_GUARDS)[: rng.integers(1, len(SERIES_GUARDS) + 1)]
    own = {
        "hardcoded": {"repeats": int(rng.integers(2, 4))},
        "bound": {"epsilon_bps": int(rng.choice([0, 1]))},
        "jump": {"floor_bps": 500, "vol_bps_sqrt_hour": int(rng.choice([0, 1, 511])), "cap_bps": 5_000},
        "cross_dev": {"cap_bps": int(rng.choice([10, 503, 5_000]))},
        "unit": {"factor": int(rng.integers(2, 4))},
    }
    several = [guards.build({"kind": str(name), **own.get(str(name), {})}) for name in names]
    columns = drawn("a", FeedKind.PUSH, times)
    seen = drawn("b", FeedKind.PUSH, times).seen_at(times)
    stands, doubts = rng.random(rows) < 0.6, rng.random(rows) < 0.5
    beside = [(r, bool(s), bool(d)) for r, s, d in zip(seen.readings(), stands, doubts, strict=True)]
    expected = judge_readings(columns.readings(), several, context, beside)
    found = judge_columns(columns, several, context, Second(seen, stands, doubts))
    for row, guard in enumerate(several):
        said = [STATUS[Code(code)] for code in found.codes[row]]
        assert said == [status_of(guard.kind, judged.findings) for judged in expected], guard.kind
    assert list(found.accepted) == [judged.status is PriceStatus.OK for judged in expected]
