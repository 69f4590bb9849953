"""Feeds of lending protocols in a scenario: wrong values that come out of caps, scales, legs and routers."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any, ClassVar

import pytest

from contracts_abi.errors import InputError
from oracle.faults import FaultModel, Stage
from oracle.fields import PositiveDecimal, UnixSeconds
from oracle.interfaces import CapFacts, FeedContext
from oracle.mechanisms import FeedModel, Played, World, mechanisms
from oracle.types import FeedKind, NoData, PriceObs, Reading

NOW = 1_773_143_160  # 2026-03-10 11:46 UTC
STEPS = (NOW, NOW + 60, NOW + 120)
WEEK = 7 * 86_400


class CapParams(FaultModel):
    """What an updater of a cap writes; fields as the scenario file names them."""

    kind: ClassVar[str] = "cap_params"
    stage: ClassVar[Stage] = "mechanism"

    snapshot_ratio: PositiveDecimal
    snapshot_at: UnixSeconds
    growth_bps_year: int | None = None


def iso(t: int) -> datetime:
    return datetime.fromtimestamp(t, UTC)


def played(name: str, *readings: Reading | int, heartbeat_s: int = 3_600, decimals: int = 8) -> Played:
    """Return a feed that says one thing at each step; an integer is an answer of that second."""
    base, quote = name.split("/")
    said = [
        r
        if not isinstance(r, int)
        else PriceObs(base, quote, r, decimals, FeedKind.PUSH, name, t, t, i, (1, i + 1), answered_key=(1, 1))
        for i, (r, t) in enumerate(zip(readings, STEPS, strict=False))
    ]
    contexts = [
        FeedContext(t, heartbeat_s, min_answer=1, max_answer=10**30, description=name, deviation_bps=50)
        for t in STEPS[: len(said)]
    ]
    return Played(name, tuple(said), tuple(contexts))


def world(*feeds: Played, acts: tuple[FaultModel, ...] = (), **pairs: str) -> World:
    count = max([len(f.readings) for f in feeds], default=len(STEPS))
    seen = {pair.replace("_", "/"): (Fraction(value),) * count for pair, value in pairs.items()}
    return World(STEPS[:count], tuple(range(count)), seen, seen, {f.feed: f for f in feeds}, acts)


def play(name: str, where: World, **config: Any) -> Played:
    feed = mechanisms.build(config, where=name)
    assert isinstance(feed, FeedModel)
    assert set(feed.feeds()) <= set(where.played)
    assert set(feed.pairs(name)) <= set(where.seen)
    found = feed.play(name, where)
    assert len(found.readings) == len(found.contexts) == len(where.steps)
    assert all(r.source_id == name for r in found.readings)
    assert all("/".join((r.base, r.quote)) == (feed.pair or name) for r in found.readings)
    return found


def mantissas(found: Played) -> list[int | None]:
    return [r.mantissa if isinstance(r, PriceObs) else None for r in found.readings]


def lost(name: str = "ETH/USD") -> NoData:
    return NoData(*name.split("/"), name, NOW, "it reverted", 0)


ETH = played("ETH/USD", 2_000 * 10**8, 2_000 * 10**8, 2_000 * 10**8)


# --- caps -------------------------------------------------------------------------------------------------

CAPO = {
    "kind": "capo",
    "base_feed": "ETH/USD",
    "ratio_pair": "wstETH/ETH",
    "snapshot_ratio": "1.2282",
    "snapshot_at": iso(NOW - WEEK),
    "growth_bps_year": 880,
}


def written(at: int, ratio: str, snapshot_at: int, growth: int | None = None) -> CapParams:
    return CapParams(
        at=iso(at),
        feed="wstETH/USD",
        snapshot_ratio=ratio,
        snapshot_at=iso(snapshot_at),
        growth_bps_year=growth,
    )


def test_the_cap_of_2026_03_10_arises_from_what_was_written() -> None:
    update = written(NOW + 60, "1.191916", NOW + 60 - WEEK)
    where = world(ETH, acts=(update,), wstETH_ETH="1.2288")
    found = play("wstETH/USD", where, **CAPO)
    before, after, later = mantissas(found)
    assert before == 2_457_60000000
    assert after == 2_000 * 10**8 * 1_193_927_562_345_205_479 // 10**18
    assert later is not None
    assert later > after
    assert [c.cap for c in found.contexts][1] == CapFacts(1_193_927_562_345_205_479, 12_288 * 10**14)
    assert [c.legs for c in found.contexts][1] == (FeedKind.PUSH, FeedKind.RATE)
    assert Fraction(after, before) == pytest.approx(Fraction(11_939, 12_288), abs=1e-4)


def test_a_cap_without_a_base_feed_is_the_rate_itself() -> None:
    config = {k: v for k, v in CAPO.items() if k not in ("base_feed", "ratio_pair")}
    found = play("wstETH/ETH", world(wstETH_ETH="1.5"), **config, decimals=18)
    week = 12_282 * 10**14 * 880 * 10**6 // 10**4 // 31_536_000 * WEEK // 10**6
    assert mantissas(found)[0] == 12_282 * 10**14 + week
    assert isinstance(found.readings[0], PriceObs)
    assert found.readings[0].published_at == NOW


def test_later_writings_go_over_earlier_ones_and_growth_stays_unless_written() -> None:
    acts = (written(NOW, "1", NOW - WEEK), written(NOW + 60, "1.1", NOW + 60, 0))
    found = play("wstETH/USD", world(ETH, acts=acts, wstETH_ETH="2"), **CAPO)
    rates = [c.rate.max_growth_bps_year for c in found.contexts if c.rate is not None]
    assert rates == [880, 0, 0]
    assert mantissas(found)[1:] == [2_200 * 10**8] * 2


def test_what_is_known_of_the_base_feed_stays_but_for_what_is_its_own() -> None:
    context = play("wstETH/USD", world(ETH, wstETH_ETH="1"), **CAPO).contexts[0]
    assert context.heartbeat_s == 3_600
    assert (context.min_answer, context.max_answer, context.description) == (None, None, None)


def test_a_cap_over_a_feed_that_is_silent_is_silent() -> None:
    found = play("wstETH/USD", world(played("ETH/USD", lost(), 0, 5), wstETH_ETH="1.2"), **CAPO)
    assert mantissas(found) == [None, 0, 6]
    assert isinstance(found.readings[0], NoData)
    assert found.readings[0].reason == "ETH/USD: it reverted"


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"decimals": 18}, "decimals is 18, its base feed ETH/USD has 8"),
        ({"ratio_pair": None}, "ratio_pair is missing"),
    ],
)
def test_a_cap_that_cannot_be(changes: dict[str, Any], line: str) -> None:
    with pytest.raises(InputError, match=line):
        play("wstETH/USD", world(ETH, wstETH_ETH="1"), **(CAPO | changes))


def test_a_capped_stablecoin() -> None:
    coin = played("USDC/USD", 103 * 10**6, 105 * 10**6, 0)
    config = {"kind": "capo_stable", "pair": "USDC/USD", "base_feed": "USDC/USD", "cap": "1.04"}
    found = play("capped", world(coin), **config)
    assert mantissas(found) == [103 * 10**6, 104 * 10**6, 0]
    assert found.contexts[1].cap == CapFacts(104 * 10**6, 105 * 10**6)


# --- Compound, Aave, Morpho -------------------------------------------------------------------------------

RATIO = played("cbETH/ETH", *[112 * 10**16] * 3, decimals=18)


def test_a_product_has_two_legs_and_a_forgotten_one_is_a_price_of_1_12() -> None:
    whole = {"kind": "comet_multiplicative", "feed_a": "cbETH/ETH", "feed_b": "ETH/USD"}
    assert mantissas(play("cbETH/USD", world(RATIO, ETH), **whole))[0] == 2_240 * 10**8
    forgotten = {"kind": "comet_scaling", "base_feed": "cbETH/ETH"}
    found = play("cbETH/USD", world(RATIO), **forgotten)
    assert mantissas(found)[0] == 112 * 10**6


@pytest.mark.parametrize(("time", "age_s"), [("legs", 10**6), ("contract", 0)])
def test_a_product_hides_the_age_of_its_first_leg(time: str, age_s: int) -> None:
    old = dataclasses.replace(RATIO.readings[0], published_at=NOW - 10**6)  # type: ignore[arg-type]  # a price
    stale = dataclasses.replace(RATIO, readings=(old,), contexts=RATIO.contexts[:1])
    fresh = dataclasses.replace(ETH, readings=ETH.readings[:1], contexts=ETH.contexts[:1])
    config = {"kind": "comet_multiplicative", "feed_a": "cbETH/ETH", "feed_b": "ETH/USD", "time": time}
    (reading,) = play("cbETH/USD", world(stale, fresh), **config).readings
    assert isinstance(reading, PriceObs)
    assert NOW - (reading.published_at or 0) == age_s


def test_a_product_s_legs() -> None:
    config = {"kind": "comet_multiplicative", "feed_a": "cbETH/ETH", "feed_b": "ETH/USD"}
    broken = played("ETH/USD", lost(), 0, 2**254)
    found = play("cbETH/USD", world(RATIO, broken), **config)
    assert mantissas(found) == [None, 0, None]
    reverse = play("ETH/cbETH", world(RATIO, ETH), **(config | {"reverse": True, "pair": "ETH/cbETH"}))
    assert mantissas(reverse)[0] == 112 * 10**16 * 10**16 // (2_000 * 10**8) // 10**18


def test_a_scaled_feed_passes_rounds_on_and_cuts() -> None:
    found = play("ETH/EUR", world(ETH), kind="comet_scaling", base_feed="ETH/USD", decimals=2)
    reading = found.readings[1]
    assert isinstance(reading, PriceObs)
    assert (reading.mantissa, reading.decimals, reading.round_key) == (200_000, 2, (1, 2))
    assert isinstance(
        play(
            "A/B", world(played("ETH/USD", 2**254)), kind="comet_scaling", base_feed="ETH/USD", decimals=18
        ).readings[0],
        NoData,
    )


def test_aave_falls_back_on_what_is_not_positive_and_never_on_a_revert() -> None:
    source, fallback = played("a/USD", 5, 0, lost("a/USD")), played("b/USD", 7, 7, 7)
    config = {"kind": "aave_oracle", "source_feed": "a/USD", "fallback_feed": "b/USD"}
    found = play("WETH/USD", world(source, fallback), **config)
    assert mantissas(found) == [5, 7, None]
    assert found.contexts[0].description is None
    alone = play("WETH/USD", world(source), **(config | {"fallback_feed": None}))
    assert mantissas(alone) == [5, None, None]
    assert isinstance(alone.readings[1], NoData)
    assert alone.readings[1].reason == "no fallback oracle"
    other = play("WETH/USD", world(fallback), kind="aave_oracle", fallback_feed="b/USD")
    assert mantissas(other) == [7, 7, 7]


@pytest.mark.parametrize(
    ("config", "line"),
    [({}, "no source_feed"), ({"source_feed": "ETH/USD", "decimals": 18}, "another scale")],
)
def test_an_aave_oracle_that_cannot_be(config: dict[str, Any], line: str) -> None:
    with pytest.raises(InputError, match=line):
        play("WETH/USD", world(ETH), kind="aave_oracle", **config)


PAXG = played("PAXG/USD", *[2_650 * 10**8] * 3, heartbeat_s=86_400)
USDC = played("USDC/USD", *[10**8] * 3)
MORPHO = {
    "kind": "morpho_chainlink",
    "base_feeds": ["PAXG/USD"],
    "quote_feeds": ["USDC/USD"],
    "base_decimals": 18,
    "quote_decimals": 6,
}


@pytest.mark.parametrize(
    ("stated", "price"), [({}, "2650"), ({"stated_base_decimals": 6}, "2650000000000000")]
)
def test_paxg_is_a_trillion_times_too_dear_by_its_scale(stated: dict[str, int], price: str) -> None:
    found = play("PAXG/USDC", world(PAXG, USDC), **MORPHO, **stated)
    reading = found.readings[0]
    assert isinstance(reading, PriceObs)
    assert reading.decimals == 24
    assert Fraction(reading.mantissa, 10**24) == Fraction(price)
    assert found.contexts[0].heartbeat_s == 86_400


def test_morpho_takes_zero_for_collateral_and_reverts_on_what_is_negative() -> None:
    found = play("PAXG/USDC", world(played("PAXG/USD", 0, -1, lost("PAXG/USD")), USDC), **MORPHO)
    assert mantissas(found) == [0, None, None]
    assert [r.reason for r in found.readings if isinstance(r, NoData)] == [
        "price() reverts",
        "PAXG/USD: it reverted",
    ]


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"base_feeds": [], "quote_feeds": []}, "no feed on either side"),
        ({"stated_base_decimals": 255}, "no scale factor"),
        ({"base_feeds": ["a", "b", "c"]}, "base_feeds"),
    ],
)
def test_a_morpho_oracle_that_cannot_be(changes: dict[str, Any], line: str) -> None:
    with pytest.raises(InputError, match=line):
        play("PAXG/USDC", world(PAXG, USDC), **(MORPHO | changes))


# --- Euler and Liquity ------------------------------------------------------------------------------------

EULER = {"kind": "euler_router", "decimals": 6, "max_staleness_s": 100}
STALE = dataclasses.replace(
    ETH,
    readings=tuple(dataclasses.replace(r, published_at=NOW - 99) for r in ETH.readings),  # type: ignore[arg-type]
)


def test_a_router_s_fallback_is_for_pairs_that_nobody_configured() -> None:
    other = played("b/USD", *[7 * 10**8] * 3)
    configured = play("WETH/USD", world(STALE, other), **EULER, feed="ETH/USD", fallback_feed="b/USD")
    # 99 s old, then 159: the oracle reverts, and nobody asks the fallback.
    assert mantissas(configured) == [2_000 * 10**6, None, None]
    unconfigured = play("WETH/USD", world(other), **EULER, fallback_feed="b/USD")
    assert mantissas(unconfigured) == [7 * 10**6] * 3
    assert isinstance(unconfigured.readings[0], PriceObs)
    assert unconfigured.readings[0].bid == unconfigured.readings[0].ask == 7 * 10**6


def test_a_router_goes_through_a_vault() -> None:
    config = EULER | {"feed": "ETH/USD", "vault_pair": "eWETH/WETH"}
    found = play("eWETH/USD", world(ETH, eWETH_WETH="1.05"), **config)
    assert mantissas(found)[0] == 2_100 * 10**6


def test_a_router_needs_an_oracle() -> None:
    with pytest.raises(InputError, match="needs feed or fallback_feed"):
        play("WETH/USD", world(), **EULER)
    with pytest.raises(InputError, match="max_staleness_s"):
        play("WETH/USD", world(), **(EULER | {"max_staleness_s": 59, "feed": "ETH/USD"}))


def rounds(*keys: tuple[int, int] | None) -> Played:
    said: list[Reading] = [
        lost()
        if key is None
        else PriceObs("ETH", "USD", 2_000 * 10**8, 8, FeedKind.PUSH, "ETH/USD", t, t, 0, key)
        for key, t in zip(keys, STEPS, strict=False)
    ]
    return dataclasses.replace(ETH, readings=tuple(said), contexts=ETH.contexts[: len(said)])


TELLOR = played("TRB/USD", *[2_010 * 10**6] * 3, decimals=6)


@pytest.mark.parametrize(
    ("keys", "prices"),
    [
        (((5, 9), (5, 10), (5, 11)), (2_000, 2_000, 2_000)),
        (((5, 1), (5, 1), (5, 2)), (2_000, 2_000, 2_000)),
        # The first round of the next phase: Tellor at once, Chainlink a round later.
        (((5, 9), (6, 1), (6, 2)), (2_000, 2_010, 2_000)),
        (((5, 9), (6, 7), (6, 8)), (2_000, 2_000, 2_000)),
        (((5, 9), None, (5, 10)), (2_000, 2_010, 2_000)),
        ((None, (5, 9), (5, 10)), (None, 2_000, 2_000)),
    ],
)
def test_liquity_leaves_chainlink_at_a_phase_change(
    keys: tuple[tuple[int, int] | None, ...], prices: tuple[int | None, ...]
) -> None:
    feeds = (rounds(*keys), TELLOR)
    config = {"kind": "liquity", "chainlink_feed": "ETH/USD", "tellor_feed": "TRB/USD"}
    found = play("LIQ/USD", world(*feeds), **config)
    assert mantissas(found) == [None if p is None else p * 10**18 for p in prices]
    said = {
        2_000: "Liquity: chainlink_working",
        2_010: "Liquity: using_tellor_chainlink_untrusted",
        None: None,
    }
    assert [c.description for c in found.contexts] == [said[p] for p in prices]


def test_liquity_without_tellor_keeps_its_last_good_price_for_good() -> None:
    feeds = rounds((5, 9), None, (5, 10))
    found = play("LIQ/USD", world(feeds), kind="liquity", chainlink_feed="ETH/USD")
    assert mantissas(found) == [2_000 * 10**18] * 3
    assert found.contexts[2].description == "Liquity: both_untrusted"
    assert [r.published_at for r in found.readings if isinstance(r, PriceObs)] == [NOW, None, NOW + 120]


# --- products ---------------------------------------------------------------------------------------------


class MissingLeg(FaultModel):
    """A wrapper that forgot a leg; fields as the scenario file names them."""

    kind: ClassVar[str] = "missing_leg"
    stage: ClassVar[Stage] = "mechanism"

    leg: str


def forgotten(leg: str, at: int = NOW + 60, until: int | None = None) -> MissingLeg:
    return MissingLeg(at=iso(at), until=None if until is None else iso(until), feed="cbETH/USD", leg=leg)


PRODUCT = {"kind": "composite", "legs": ["cbETH/ETH", "ETH/USD"]}


def test_cbeth_of_2026_02_15_stood_at_1_12_for_want_of_the_price_of_ether() -> None:
    ether = played("ETH/USD", *[1_964_28571429] * 3)
    acts = (forgotten("ETH/USD", until=NOW + 120),)
    found = play("cbETH/USD", world(RATIO, ether, acts=acts), **PRODUCT)
    assert mantissas(found) == [2_200 * 10**8, 112 * 10**6, 2_200 * 10**8]
    assert [c.legs for c in found.contexts] == [(FeedKind.PUSH,) * 2, (FeedKind.PUSH,), (FeedKind.PUSH,) * 2]


def test_a_product_of_a_feed_and_a_live_rate_has_the_feed_s_time() -> None:
    config = {"kind": "composite", "rates": ["wstETH/ETH"]}
    found = play("wstETH/USD", world(ETH, wstETH_ETH="1.2"), legs=["ETH/USD"], **config)
    assert mantissas(found)[0] == 2_400 * 10**8
    assert isinstance(found.readings[1], PriceObs)
    assert found.readings[1].published_at == NOW + 60
    assert found.contexts[0].legs == (FeedKind.PUSH, FeedKind.RATE)
    alone = play("wstETH/ETH", world(wstETH_ETH="1.2"), decimals=18, **config)
    assert mantissas(alone)[0] == 12 * 10**17


def test_a_product_without_any_leg_is_no_price() -> None:
    acts = (forgotten("ETH/USD"), forgotten("cbETH/ETH"))
    found = play("cbETH/USD", world(RATIO, ETH, acts=acts), **PRODUCT)
    assert mantissas(found) == [2_240 * 10**8, None, None]


def test_a_leg_that_is_none_is_told_with_the_names_there_are() -> None:
    with pytest.raises(InputError, match=r"leg of feeds\.cbETH/USD 'ETH/USDC'; did you mean 'ETH/USD'"):
        play("cbETH/USD", world(RATIO, ETH, acts=(forgotten("ETH/USDC"),)), **PRODUCT)


def test_a_feed_at_a_ratio_keeps_its_rounds() -> None:
    derived = {"feed": "ETH/USD", "num": 1, "den": 3}
    found = play("third/USD", world(played("ETH/USD", 10, 11, lost())), kind="composite", derive_from=derived)
    assert mantissas(found) == [3, 4, None]
    assert isinstance(found.readings[1], PriceObs)
    assert found.readings[1].round_key == (1, 2)


@pytest.mark.parametrize(
    "config", [{}, {"legs": ["ETH/USD"], "derive_from": {"feed": "ETH/USD", "num": 1, "den": 1}}]
)
def test_a_composite_is_one_thing_or_the_other(config: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="needs either legs and rates, or derive_from"):
        play("A/B", world(ETH), kind="composite", **config)
