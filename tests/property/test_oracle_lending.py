"""What must hold of lending sources for any answer, and of their formulas for any figures."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oracle.aggregate import median
from oracle.interfaces import FeedContext
from oracle.sources import sources
from oracle.sources.capo import CapParameters, capped_price, stable_price
from oracle.sources.comet import product_answer, ratio_answer, scaled_answer
from oracle.sources.composite import compose
from oracle.sources.liquity import (
    ChainlinkResponse,
    LiquityState,
    Reverted,
    Status,
    TellorResponse,
    fetch_price,
)
from oracle.sources.morpho_chainlink import morpho_price, scale_error, scale_factor
from oracle.types import FeedKind, NoData, PriceObs, Reading

NOW = 1_700_000_000
A, B, C = (f"0x{digit * 40}" for digit in "123")
PAIR = {"base": "X", "quote": "USD"}
AT = {**PAIR, "address": A}
ROUTER = {"base_decimals": 36, "quote_decimals": 6}

SOURCES: tuple[dict[str, Any], ...] = (
    {"kind": "capo", **AT, "feed": B},
    {"kind": "capo_stable", **AT, "feed": B},
    {"kind": "aave_oracle", **AT, "asset": C, "feed": B},
    {"kind": "morpho_chainlink", **AT, "base_decimals": 36, "quote_decimals": 0, "feeds": [B, C]},
    {
        "kind": "euler_router",
        **AT,
        "asset": B,
        "unit_of_account": C,
        "base_decimals": 36,
        "quote_decimals": 6,
    },
    {"kind": "comet_scaling", **AT},
    {"kind": "comet_multiplicative", **AT, "feeds": [B, C]},
    {"kind": "liquity", **AT, "feed": B},
    {"kind": "constant", **PAIR, "mantissa": 1},
    {"kind": "synthetic", **PAIR, "seed": 1, "start": 0, "end": 9, "step_s": 1, "mantissa": 1},
    {
        "kind": "composite",
        **PAIR,
        "legs": [
            {"kind": "comet_scaling", "base": "X", "quote": "Y", "address": A},
            {"kind": "capo", "base": "Y", "quote": "USD", "address": A},
        ],
    },
    {
        "kind": "aggregate",
        **PAIR,
        "legs": [{"kind": "comet_scaling", **AT}, {"kind": "liquity", **AT}],
    },
)

words = st.one_of(
    st.sampled_from(
        [0, 1, 8, 18, 255, NOW, NOW - 60, int(A, 16), int(B, 16), int(C, 16), 2**255, 2**256 - 1]
    ),
    st.integers(0, 2**256 - 1),
)
answers = st.one_of(
    st.none(),
    st.binary(max_size=40),
    st.lists(words, min_size=1, max_size=6).map(lambda ws: b"".join(w.to_bytes(32) for w in ws)),
    words.map(lambda w: w.to_bytes(32)),
)


@pytest.mark.parametrize("config", SOURCES, ids=lambda c: str(c["kind"]))
@settings(deadline=None, max_examples=150)
@given(data=st.data(), timestamp=st.sampled_from([0, NOW, 2**40]))
def test_no_answer_makes_a_source_raise(config: dict[str, Any], data: st.DataObject, timestamp: int) -> None:
    source = sources.build(config)
    count = len(source.reads())
    results = data.draw(st.lists(answers, min_size=count, max_size=count))
    reading: Reading = source.decode(results, block=1, timestamp=timestamp)
    context: FeedContext = source.context(results, timestamp=timestamp)
    assert (reading.base, reading.quote, reading.source_id) == ("X", "USD", source.source_id)
    assert reading.observed_at == context.now == timestamp
    if isinstance(reading, NoData):
        assert reading.reason
    if count and all(result is None for result in results):
        assert isinstance(reading, NoData)


small = st.integers(0, 24)
figures = st.one_of(st.integers(-5, 5), st.integers(-(10**30), 10**30), st.integers(-(2**255), 2**255 - 1))
positive = st.one_of(st.integers(1, 9), st.integers(1, 10**30))


@settings(deadline=None)
@given(positive, positive, positive, st.integers(0, 2**16 - 1), st.integers(8, 24), st.integers(0, 10**9))
def test_a_cap_never_raises_a_price_and_time_never_lowers_the_cap(
    base: int, ratio: int, snapshot: int, growth_bps: int, decimals: int, passed_s: int
) -> None:
    parameters = CapParameters(snapshot, NOW, growth_bps)
    now, later = NOW + passed_s, NOW + 2 * passed_s
    price = capped_price(base, ratio, parameters, decimals, now)
    assert price is not None
    assert 0 <= price <= base * ratio // 10**decimals
    early, late = parameters.max_ratio(now), parameters.max_ratio(later)
    assert early is not None
    assert late is not None
    assert snapshot <= early <= late
    # Linear: never more than the yearly growth says, and less by two roundings at most.
    exact = snapshot + Fraction(snapshot * growth_bps * passed_s, 10_000 * 365 * 86_400)
    assert exact - Fraction(passed_s, 10**6) - 1 < early <= exact


@settings(deadline=None)
@given(figures, st.integers(0, 2 * 10**8))
def test_a_capped_stablecoin_lies_between_nothing_and_its_cap(price: int, cap: int) -> None:
    assert 0 <= stable_price(price, cap) <= cap
    if 0 <= price <= cap:
        assert stable_price(price, cap) == price


@settings(deadline=None)
@given(figures, small, small)
def test_scaling_loses_less_than_a_unit_and_keeps_the_sign(answer: int, before: int, after: int) -> None:
    scaled = scaled_answer(answer, before, after)
    exact = answer * Fraction(10) ** (after - before)
    if scaled is None:
        assert abs(exact) >= 2**255 - 1
    else:
        assert abs(exact - scaled) < 1
        assert scaled * answer >= 0


@settings(deadline=None)
@given(positive, positive, small, small, st.integers(0, 18))
def test_products_and_ratios_are_the_exact_ones_rounded_down(
    a: int, b: int, a_decimals: int, b_decimals: int, decimals: int
) -> None:
    x, y = Fraction(a, 10**a_decimals), Fraction(b, 10**b_decimals)
    for answer, exact in (
        (product_answer(a, b, a_decimals, b_decimals, decimals), x * y),
        (ratio_answer(a, b, a_decimals, b_decimals, decimals), x / y),
    ):
        if answer is not None:
            assert answer <= exact * 10**decimals < answer + 1


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 18), st.integers(1, 10**12)), max_size=2),
    st.lists(st.tuples(st.integers(0, 18), st.integers(1, 10**12)), max_size=2),
    st.integers(0, 18),
    st.integers(0, 18),
    st.integers(-18, 18),
)
def test_a_stated_scale_is_wrong_by_what_the_linter_says(
    base: list[tuple[int, int]],
    quote: list[tuple[int, int]],
    base_decimals: int,
    quote_decimals: int,
    off: int,
) -> None:
    stated = base_decimals - off
    scale = None
    if stated >= 0:
        scale = scale_factor(stated, quote_decimals, [d for d, _ in base], [d for d, _ in quote])
    if scale is None:
        return
    price = morpho_price(scale, [m for _, m in base], [m for _, m in quote])
    expected = Fraction(1)
    for decimals, mantissa in base:
        expected *= Fraction(mantissa, 10**decimals)
    for decimals, mantissa in quote:
        expected /= Fraction(mantissa, 10**decimals)
    # Below a million units the rounding of the price itself counts.
    if price is not None and price > 10**6:
        assert scale_error(price, expected, base_decimals, quote_decimals).power == off


def observation(mantissa: int, decimals: int, published_at: int | None, name: str = "a") -> PriceObs:
    return PriceObs("X", "USD", mantissa, decimals, FeedKind.PUSH, name, published_at, NOW)


legs = st.lists(
    st.builds(observation, figures, small, st.none() | st.integers(0, NOW)), min_size=1, max_size=4
)


@settings(deadline=None)
@given(legs, small)
def test_a_product_is_exact_old_and_never_made_of_bad_legs(readings: list[PriceObs], decimals: int) -> None:
    found = compose(readings, base="X", quote="USD", decimals=decimals, source_id="p", observed_at=NOW)
    if any(leg.mantissa <= 0 for leg in readings):
        assert isinstance(found, NoData)
        return
    assert isinstance(found, PriceObs)
    exact = Fraction(10**decimals)
    for leg in readings:
        exact *= Fraction(leg.mantissa, 10**leg.decimals)
    assert found.mantissa <= exact < found.mantissa + 1
    times = [leg.published_at for leg in readings]
    assert found.published_at == (None if None in times else min(t for t in times if t is not None))


@settings(deadline=None)
@given(legs, st.integers(1, 4), st.randoms(use_true_random=False))
def test_a_median_lies_in_the_middle_in_any_order(
    readings: list[PriceObs], quorum: int, shuffle: Any
) -> None:
    named = [
        PriceObs("X", "USD", r.mantissa, r.decimals, r.kind, f"s{i}", r.published_at, NOW)
        for i, r in enumerate(readings)
    ]
    found = median(named, quorum=quorum, source_id="m")
    mixed = list(named)
    shuffle.shuffle(mixed)
    if isinstance(found, NoData):
        assert sum(r.mantissa > 0 for r in named) < quorum
        return
    assert median(mixed, quorum=quorum, source_id="m") == found
    value = Fraction(found.mantissa, 10**found.decimals)
    all_ = [Fraction(r.mantissa, 10**r.decimals) for r in named if r.mantissa > 0]
    unit = Fraction(1, 10**found.decimals)
    assert 2 * sum(v <= value + unit for v in all_) >= len(all_)
    assert 2 * sum(v >= value for v in all_) >= len(all_)


responses = st.builds(
    ChainlinkResponse,
    st.integers(0, 3),
    st.one_of(st.integers(-1, 10**12), figures),
    st.sampled_from([0, NOW - 20_000, NOW - 14_400, NOW, NOW + 1]),
    st.booleans(),
    st.sampled_from([0, 8, 18, 30, 255]),
)
values = st.builds(
    TellorResponse,
    st.one_of(st.integers(0, 10**10), st.integers(0, 2**256 - 1)),
    st.sampled_from([0, NOW - 20_000, NOW - 14_400, NOW, NOW + 1]),
    st.booleans(),
)


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(Status), responses, responses, values)
def test_liquity_s_price_is_always_one_of_three(
    status: Status, now: ChainlinkResponse, previous: ChainlinkResponse, tellor: TellorResponse
) -> None:
    last = 1_234 * 10**18
    try:
        after = fetch_price(LiquityState(status, last), now, previous, tellor, NOW)
        # What is worthless is not always brought to 18 digits.
        by_chainlink = None if now.bad(NOW) else now.price
        by_tellor = None if tellor.broken(NOW) else tellor.price
    except Reverted:
        return
    assert after.last_good_price in (last, by_chainlink, by_tellor)
    if after.status is Status.BOTH_UNTRUSTED:
        assert after.last_good_price == last
    if after.status is Status.CHAINLINK_WORKING:
        assert not now.bad(NOW)
        assert after.last_good_price == by_chainlink
