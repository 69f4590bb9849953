"""Guards G08 to G26 by worked examples: at the threshold, one unit beyond it, and without each input.

The figures are those of the failures that a guard is for, where there are any. Numbers are worked out by
hand; nothing here computes what a guard computes.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from contracts_abi.errors import InputError
from oracle.guards import guards
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
from oracle.types import FeedKind, Finding, GuardAction, GuardStatus, NoData, PriceObs, Reading

OK, VIOLATED, NOT_APPLICABLE = GuardStatus.OK, GuardStatus.VIOLATED, GuardStatus.NOT_APPLICABLE
REJECT, FALLBACK, CLAMP = GuardAction.REJECT, GuardAction.FALLBACK, GuardAction.CLAMP
PAUSE, PAUSE_LIQUIDATIONS = GuardAction.PAUSE, GuardAction.PAUSE_LIQUIDATIONS

NOW = 1_700_000_000
E8 = 10**8
NOTHING = NoData("ETH", "USD", "feed", NOW, "reverted")


def obs(mantissa: int = 2_000 * E8, **changes: Any) -> PriceObs:
    reading = PriceObs("ETH", "USD", mantissa, 8, FeedKind.PUSH, "feed", published_at=NOW, observed_at=NOW)
    return dataclasses.replace(reading, **changes)


def peer(mantissa: int = 2_000 * E8, **changes: Any) -> PriceObs:
    return obs(mantissa, **{"source_id": "peer", **changes})


def check(
    kind: str,
    reading: Reading | None = None,
    *peers: Reading,
    history: tuple[PriceObs, ...] = (),
    config: dict[str, Any] | None = None,
    **facts: Any,
) -> Finding:
    guard = guards.build({"kind": kind, **(config or {})})
    finding: Finding = guard.check(reading or obs(), history, peers, FeedContext(**{"now": NOW, **facts}))
    return finding


def said(finding: Finding) -> tuple[str, str, str]:
    return finding.message, finding.observed, finding.threshold


def missing(finding: Finding) -> str:
    """Return what a guard says it lacks; it must not say OK for want of it."""
    assert finding.status is NOT_APPLICABLE
    assert finding.actions == frozenset()
    assert finding.inputs == {}
    assert (finding.observed, finding.threshold) == ("", "")
    reason, text = finding.message.split(": ", 1)
    assert reason == "not applicable"
    return text


IDS = {
    "cross_dev": "G08",
    "confidence": "G09",
    "sequencer": "G10",
    "unit": "G11",
    "wrong_feed": "G12",
    "spot": "G13",
    "thin_twap": "G14",
    "rate_jump": "G15",
    "cap_misconfigured": "G16",
    "hardcoded": "G17",
    "depeg": "G18",
    "reentrancy": "G19",
    "authority": "G20",
    "quorum": "G21",
    "venue": "G22",
    "latency": "G23",
    "liquidators": "G24",
    "market_unreadable": "G25",
    "market_closed": "G26",
}


def test_these_are_the_guards_after_the_first_seven() -> None:
    others = {kind: guards.get(kind).id for kind in guards if guards.get(kind).id > "G07"}
    assert others == IDS


@pytest.mark.parametrize("kind", IDS)
@pytest.mark.parametrize("reading", [NOTHING, obs(), obs(0), obs(-1)])
def test_with_the_reading_alone_a_guard_of_facts_is_not_applicable(kind: str, reading: Reading) -> None:
    if kind == "spot" and isinstance(reading, PriceObs):
        assert check(kind, reading).status is OK  # the kind of the price is all that it needs
        return
    assert missing(check(kind, reading))


# ------------------------------------------------------------------------------------ G08, two sources apart


def test_two_sources_may_stand_500_bps_apart_and_no_further() -> None:
    # 100 of 2000 is 5 %, against the larger of the two.
    at = check("cross_dev", obs(1_900 * E8), peer())
    assert at.status is OK
    assert said(at) == ("500 bps from peer, limit 500 bps", "500 bps", "<= 500 bps")
    beyond = check("cross_dev", obs(1_900 * E8 - 1), peer())
    assert beyond.status is VIOLATED
    assert said(beyond) == ("501 bps from peer, limit 500 bps", "501 bps", "<= 500 bps")
    assert beyond.inputs == {"mantissa": "189999999999", "against": "peer", "peers": "1"}
    # Upwards the same, and whatever the scales.
    assert check("cross_dev", obs(), peer(1_900 * E8)).status is OK
    assert check("cross_dev", obs(), peer(1_900 * 10**18 - 1, decimals=18)).status is VIOLATED


def test_against_one_source_risk_is_paused_and_against_the_middle_of_several_the_reading_is_refused() -> None:
    far = obs(1_000 * E8)
    assert check("cross_dev", far, peer()).actions == {PAUSE}
    two = (peer(1_990 * E8, source_id="a"), peer(2_010 * E8, source_id="b"))
    against = check("cross_dev", far, *two)
    assert against.actions == {REJECT, FALLBACK}
    # Of 1000, 1990 and 2010 the middle is 1990: 990 of 1990 is 49.75 %.
    assert said(against)[0] == "4975 bps from a, limit 500 bps"
    assert against.inputs["peers"] == "2"
    # The reading is the middle one of three: one foreign source does not convict it.
    middle = check("cross_dev", obs(), peer(3_000 * E8, source_id="a"), peer(1_999 * E8, source_id="b"))
    assert middle.status is OK
    assert middle.observed == "0 bps"


@pytest.mark.parametrize(
    "witness",
    [
        NOTHING,
        peer(source_id="feed"),
        peer(kind=FeedKind.CONSTANT),
        peer(base="BTC"),
        peer(quote="EUR"),
        peer(0),
        peer(-2_000 * E8),
    ],
)
@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("cross_dev", "no second source"),
        ("unit", "no second source"),
        ("hardcoded", "no second source that sees a market"),
        ("depeg", "no second source that sees a market"),
    ],
)
def test_a_peer_that_cannot_speak_of_the_price_is_no_second_source(
    kind: str, reason: str, witness: Reading
) -> None:
    reading = obs(1_000 * E8, kind=FeedKind.RATE)
    assert missing(check(kind, reading, witness)) == reason
    assert check(kind, reading, witness, peer(source_id="second")).status is not NOT_APPLICABLE


@pytest.mark.parametrize("kind", ["cross_dev", "confidence", "unit", "wrong_feed", "hardcoded", "depeg"])
@pytest.mark.parametrize("reading", [NOTHING, obs(0, conf_abs=1), obs(-1, conf_abs=1)])
def test_a_ratio_is_taken_of_positive_prices_only(kind: str, reading: Reading) -> None:
    finding = check(kind, reading, peer(), description="ETH / USD", legs=(FeedKind.RATE,))
    assert missing(finding) == "no positive price"


# ----------------------------------------------------------------------------------------- G09, how sure


def test_half_width_at_200_bps_passes_and_one_unit_more_does_not() -> None:
    # 2 % of 2000 is 40.
    at = check("confidence", obs(conf_abs=40 * E8))
    assert at.status is OK
    assert said(at) == ("half-width 200 bps, limit 200 bps", "200 bps", "<= 200 bps")
    beyond = check("confidence", obs(conf_abs=40 * E8 + 1))
    assert beyond.status is VIOLATED
    assert beyond.observed == "201 bps"
    assert beyond.actions == {REJECT, CLAMP}
    assert beyond.inputs == {
        "mantissa": "200000000000",
        "conf_abs": "4000000001",
        "bid": "None",
        "ask": "None",
    }


def test_bitcoin_at_5402_plus_or_minus_21623_is_no_price() -> None:
    # Pyth, 2021-09-20: 21,623 of 5,402 is 4.00278 times the price.
    flash = obs(5_402 * E8, base="BTC", conf_abs=21_623 * E8, kind=FeedKind.PULL)
    finding = check("confidence", flash)
    assert finding.status is VIOLATED
    assert said(finding) == ("half-width 40028 bps, limit 200 bps", "40028 bps", "<= 200 bps")
    # Not even the loosest limit that Euler's adapter takes lets it through.
    assert check("confidence", flash, config={"cap_bps": 500}).status is VIOLATED
    assert check("confidence", flash, config={"cap_bps": 40_028}).status is OK


def test_half_the_spread_stands_for_a_confidence() -> None:
    # 1960 to 2040 is 40 on either side.
    assert check("confidence", obs(bid=1_960 * E8, ask=2_040 * E8)).observed == "200 bps"
    assert check("confidence", obs(bid=1_960 * E8, ask=2_040 * E8 + 1)).status is VIOLATED
    assert check("confidence", obs(bid=2_000 * E8, ask=2_000 * E8)).status is OK
    crossed = check("confidence", obs(bid=2_000 * E8 + 1, ask=2_000 * E8))
    assert crossed.status is VIOLATED
    assert crossed.message == "bid above ask"
    # A stated confidence comes first.
    assert check("confidence", obs(bid=1, ask=4_000 * E8, conf_abs=0)).status is OK


@pytest.mark.parametrize("quote", [{}, {"bid": 1_999 * E8}, {"ask": 2_001 * E8}])
def test_without_confidence_or_both_sides_of_a_spread_nobody_knows(quote: dict[str, int]) -> None:
    assert missing(check("confidence", obs(**quote))) == "the source states no confidence and no spread"


# ------------------------------------------------------------------------------------------ G10, sequencer


def test_a_sequencer_just_up_is_not_up_until_its_grace_is_over() -> None:
    at = check("sequencer", sequencer=SequencerFacts(0, NOW - 3_600))
    assert at.status is VIOLATED
    assert said(at) == ("up for 3600 s, grace 3600 s", "3600 s", "> 3600 s")
    assert at.actions == {PAUSE, PAUSE_LIQUIDATIONS}
    assert at.inputs == {"answer": "0", "started_at": str(NOW - 3_600), "now": str(NOW)}
    assert check("sequencer", sequencer=SequencerFacts(0, NOW)).status is VIOLATED
    assert check("sequencer", sequencer=SequencerFacts(0, NOW - 3_601)).status is OK
    # A clock that runs backwards is not grace.
    assert check("sequencer", sequencer=SequencerFacts(0, NOW + 5)).status is VIOLATED


def test_a_sequencer_that_is_down_or_was_never_set_convicts_also_without_a_reading() -> None:
    down = check("sequencer", NOTHING, sequencer=SequencerFacts(1, NOW - 10**6))
    assert down.status is VIOLATED
    assert said(down) == ("the sequencer is down", "answer 1", "answer 0")
    unset = check("sequencer", sequencer=SequencerFacts(0, 0))
    assert unset.status is VIOLATED
    assert unset.message == "the uptime feed was never set"
    assert missing(check("sequencer")) == "no uptime feed known"


# ---------------------------------------------------------------------------------------------- G11, scale


def test_three_times_a_second_source_is_the_last_that_is_the_same_thing() -> None:
    at = check("unit", obs(6_000 * E8), peer())
    assert at.status is OK
    assert said(at) == ("3 times peer", "3 times", "<= 3 times")
    assert check("unit", obs(6_000 * E8 + 1), peer()).status is VIOLATED
    # A third is as far as three times.
    assert check("unit", obs(2_000 * E8), peer(6_000 * E8)).status is OK
    assert check("unit", obs(2_000 * E8), peer(6_000 * E8 + 1)).status is VIOLATED


def test_gold_at_a_trillion_times_its_price_is_told_as_a_slip_of_twelve_places() -> None:
    # Morpho's PAXG/USDC: 2,650 dollars, stated with 10^12 too much.
    gold = obs(2_650 * E8 * 10**12, base="PAXG")
    finding = check("unit", gold, peer(2_650 * E8, base="PAXG"))
    assert finding.status is VIOLATED
    assert said(finding) == ("1e+12 times peer, about 10^12", "1e+12 times", "<= 3 times")
    assert finding.actions == {REJECT, FALLBACK}
    assert finding.inputs == {"mantissa": str(gold.mantissa), "against": "peer", "ratio": "1e+12"}
    down = check("unit", obs(2_650 * E8 // 10**8, base="PAXG"), peer(2_650 * E8, base="PAXG"))
    assert down.message == "1e-08 times peer, about 10^-8"


def test_a_missing_leg_is_named_and_so_is_one_that_came_twice() -> None:
    # Moonwell: 1.12 for cbETH, which is its rate without ether's 1,964 dollars.
    known = {"ETH/USD": peer(1_964 * E8), "BTC/USD": peer(67_000 * E8, base="BTC")}
    cbeth = {"base": "cbETH"}
    rate = check("unit", obs(112_000_000, **cbeth), peer(2_200 * E8, **cbeth), known=known)
    assert rate.status is VIOLATED
    assert rate.message == "0.000509091 times peer, about 10^-3: the price of ETH/USD is missing"
    # 2,200 times 1,964 = 4,320,800.
    twice = check("unit", obs(4_320_800 * E8, **cbeth), peer(2_200 * E8, **cbeth), known=known)
    assert twice.message == "1964 times peer, about 10^3: the price of ETH/USD is once too often"
    # Ten per cent off is the last that is named: 2,200 against 1,964 * 1.1 = 2,160.4.
    off = check("unit", obs(2_161 * 2_200 * E8, **cbeth), peer(2_200 * E8, **cbeth), known=known)
    assert off.message == "2161 times peer, about 10^3"
    # Nine tenths of 2,000 and eleven tenths of it are the last that are, either way.
    dollar = {"ETH/USD": peer(2_000 * E8)}
    for times, named in ((1_800, True), (2_200, True), (1_799, False), (2_201, False)):
        told = check("unit", obs(times * E8), peer(1 * E8), known=dollar).message
        assert told.endswith("the price of ETH/USD is once too often") is named
    # A pair that is worth nothing explains nothing.
    assert "missing" not in check("unit", obs(1), peer(), known={"ETH/USD": peer(0)}).message


# ----------------------------------------------------------------------------------------- G12, wrong feed


@pytest.mark.parametrize(
    ("pair", "description", "status"),
    [
        (("ETH", "USD"), "ETH / USD", OK),
        (("WETH", "USD"), "ETH / USD", OK),
        (("WBTC", "USD"), "BTC/USD", OK),
        (("eth", "usd"), "ETH / USD", OK),
        # Ploutos: USDC by the feed of bitcoin. Mirror: LUNC and LUNA.
        (("USDC", "USD"), "BTC / USD", VIOLATED),
        (("LUNC", "USD"), "LUNA / USD", VIOLATED),
        (("stETH", "USD"), "STETH / ETH", VIOLATED),
        # A name is compared whole.
        (("ETH", "USD"), "ETHX / USD", VIOLATED),
        (("USD", "ETH"), "ETH / USD", VIOLATED),
    ],
)
def test_a_feed_that_calls_itself_by_another_pair(
    pair: tuple[str, str], description: str, status: GuardStatus
) -> None:
    finding = check("wrong_feed", obs(base=pair[0], quote=pair[1]), description=description)
    assert finding.status is status
    assert finding.inputs == {"description": description, "base": pair[0], "quote": pair[1]}
    if status is VIOLATED:
        assert finding.message == f"the feed calls itself {description!r}"
        assert finding.observed == description
        assert finding.actions == {REJECT, PAUSE}
    else:
        assert finding.message == "the feed is of this pair"
        assert finding.observed == finding.threshold


@pytest.mark.parametrize("description", [None, "", "Capped rate", "ETH /", "/ USD", "  /  "])
def test_a_description_that_names_no_pair_acquits_nobody(description: str | None) -> None:
    reason = "no description, and nothing to compare the price with"
    assert missing(check("wrong_feed", description=description)) == reason
    # One of the two things to compare with is not enough either.
    known = {"BTC/USD": peer(60_000 * E8, base="BTC")}
    assert missing(check("wrong_feed", description=description, known=known)) == reason
    assert missing(check("wrong_feed", obs(), peer(), description=description)) == reason
    assert check("wrong_feed", obs(), peer(), description=description, known=known).status is OK


def test_the_price_of_another_pair_gives_a_swapped_feed_away() -> None:
    # USDC at 80,000 dollars is bitcoin.
    known = {"BTC/USD": obs(80_000 * E8, base="BTC", source_id="b")}
    usdc = {"base": "USDC"}
    swapped = check("wrong_feed", obs(80_000 * E8, **usdc), peer(1 * E8, **usdc), known=known)
    assert swapped.status is VIOLATED
    assert said(swapped) == ("the price is that of BTC/USD", "BTC/USD", "USDC/USD")
    # 79,200 is 100 bps from 80,000; a unit less is 101.
    near = check("wrong_feed", obs(79_200 * E8, **usdc), peer(1 * E8, **usdc), known=known)
    assert near.status is VIOLATED
    assert check("wrong_feed", obs(79_200 * E8 - 1, **usdc), peer(1 * E8, **usdc), known=known).status is OK


def test_two_pairs_of_one_price_are_no_swap() -> None:
    # 2000 against 1600 is 2000 bps: the same thing still. A unit further and the other pair's price counts.
    known = {"STETH/USD": obs(2_000 * E8, base="STETH", source_id="s")}
    assert check("wrong_feed", obs(), peer(1_600 * E8), known=known).status is OK
    assert check("wrong_feed", obs(), peer(1_600 * E8 - 1), known=known).status is VIOLATED


# ------------------------------------------------------------------------------------------- G13, spot price


@pytest.mark.parametrize(
    ("kind", "legs", "status", "observed"),
    [
        (FeedKind.AMM_SPOT, (), VIOLATED, "amm_spot"),
        (FeedKind.AMM_TWAP, (), OK, "amm_twap"),
        (FeedKind.COMPOSITE, (FeedKind.RATE, FeedKind.PUSH), OK, "composite, push, rate"),
        (FeedKind.COMPOSITE, (FeedKind.AMM_SPOT, FeedKind.PUSH), VIOLATED, "amm_spot, composite, push"),
    ],
)
def test_a_price_of_this_moment_is_refused_also_as_a_leg(
    kind: FeedKind, legs: tuple[FeedKind, ...], status: GuardStatus, observed: str
) -> None:
    finding = check("spot", obs(kind=kind), legs=legs)
    assert finding.status is status
    assert (finding.observed, finding.threshold) == (observed, "no amm_spot")
    message = "read from a pool's spot price" if status is VIOLATED else "no spot price"
    assert finding.message == message
    assert finding.actions == ({REJECT, FALLBACK} if status is VIOLATED else frozenset())
    assert finding.inputs == {"kind": kind.value, "legs": ", ".join(legs)}


def test_a_composite_of_unknown_parts_is_not_called_free_of_spot_prices() -> None:
    assert missing(check("spot", obs(kind=FeedKind.COMPOSITE))) == "legs unknown"
    assert missing(check("spot", NOTHING)) == "no price"


# ---------------------------------------------------------------------------------------- G14, thin average

TWAP = obs(kind=FeedKind.AMM_TWAP)
AMM = AmmFacts(window_s=1_800, oldest_s=1_800, spot_mantissa=2_100 * E8, depth_usd=10, exposure_usd=10)


def amm(**changes: Any) -> Finding:
    return check("thin_twap", TWAP, amm=dataclasses.replace(AMM, **changes))


def test_an_average_with_every_figure_at_its_limit_is_one() -> None:
    finding = amm()
    assert finding.status is OK
    assert said(finding) == (
        "long enough and at the spot price",
        "1800 s, 500 bps",
        ">= 1800 s, <= 500 bps",
    )
    assert finding.inputs == {
        "window_s": "1800",
        "oldest_s": "1800",
        "gap_bps": "500",
        "depth_usd": "10",
        "exposure_usd": "10",
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"window_s": 1_799}, "window 1799 s below 1800 s"),
        ({"oldest_s": 1_799}, "oldest observation 1799 s old, window 1800 s"),
        ({"spot_mantissa": 2_100 * E8 + 1}, "spot price 501 bps away, limit 500 bps"),
        ({"spot_mantissa": 1_900 * E8 - 1}, "spot price 501 bps away, limit 500 bps"),
        ({"exposure_usd": 11}, "11 USD lent against a depth of 10 USD"),
        # What is known convicts without the rest.
        ({"window_s": 300, "oldest_s": None, "spot_mantissa": None}, "window 300 s below 1800 s"),
        (
            {"window_s": 0, "oldest_s": None, "exposure_usd": 11},
            "window 0 s below 1800 s; 11 USD lent against a depth of 10 USD",
        ),
    ],
)
def test_an_average_one_unit_beyond_a_limit_is_none(changes: dict[str, Any], message: str) -> None:
    finding = amm(**changes)
    assert finding.status is VIOLATED
    assert finding.message == message
    assert finding.actions == {REJECT, PAUSE}


def test_an_average_of_which_something_is_unknown_is_not_called_sound() -> None:
    reason = "oldest observation or spot price unknown"
    assert missing(amm(oldest_s=None)) == reason
    assert missing(amm(spot_mantissa=None)) == reason
    assert missing(check("thin_twap", TWAP)) == "pool unknown"
    assert missing(check("thin_twap", obs(), amm=AMM)) == "no average over a pool"
    assert missing(check("thin_twap", obs(0, kind=FeedKind.AMM_TWAP), amm=AMM)) == "no positive price"
    # Depth is asked for only to convict.
    assert amm(depth_usd=None).status is OK
    assert amm(exposure_usd=None).status is OK
    # An average is one as a leg, too.
    assert check("thin_twap", obs(), amm=AMM, legs=(FeedKind.AMM_EMA,)).status is OK


# ------------------------------------------------------------------------------------------------ G15, rates


def rate(now: int, elapsed_s: int, *, before: int = 10**18, **facts: Any) -> Finding:
    last = obs(before, decimals=18, kind=FeedKind.RATE, observed_at=NOW - elapsed_s)
    context: dict[str, Any] = {"rate": RateFacts(now, 18, **facts)} if facts else {}
    return check("rate_jump", obs(now, decimals=18, kind=FeedKind.RATE), history=(last,), **context)


def test_a_rate_may_grow_by_its_slack_at_once_and_by_its_growth_with_time() -> None:
    at = rate(1_005 * 10**15, 0)
    assert at.status is OK
    assert said(at) == ("changed by 50 bps in 0 s, limits -100 to +50 bps", "50", "-100 to +50 bps")
    beyond = rate(1_005 * 10**15 + 1, 0)
    assert beyond.status is VIOLATED
    assert beyond.actions == {REJECT, PAUSE}
    assert beyond.inputs == {
        "rate": "1005000000000000001",
        "last_rate": "1000000000000000000",
        "elapsed_s": "0",
    }
    # 2000 bps a year are 38 in a week of 604,800 s, and 50 on top.
    assert rate(10_088 * 10**14, 604_800).status is OK
    assert rate(10_088 * 10**14 + 1, 604_800).status is VIOLATED
    # 400 bps a year, as the context says of this rate: 7 in a week.
    assert rate(10_057 * 10**14, 604_800, max_growth_bps_year=400).status is OK
    assert rate(10_057 * 10**14 + 1, 604_800, max_growth_bps_year=400).status is VIOLATED


def test_a_rate_may_fall_by_a_slashing_and_no_further() -> None:
    at = rate(990 * 10**15, 0)
    assert at.status is OK
    assert at.observed == "-100"
    beyond = rate(990 * 10**15 - 1, 0)
    assert beyond.status is VIOLATED
    assert beyond.observed == "-101"
    # Time gives no leave to fall; after a week the last rate no longer speaks.
    assert rate(990 * 10**15 - 1, 604_800).status is VIOLATED
    assert rate(990 * 10**15 - 1, 604_801).status is GuardStatus.NOT_APPLICABLE


def test_rates_of_two_scales_are_one_rate() -> None:
    last = obs(1_000_000, decimals=6, kind=FeedKind.RATE)
    same = check("rate_jump", obs(10**18, decimals=18, kind=FeedKind.RATE), history=(last,))
    assert same.status is OK
    assert same.observed == "0"


def test_a_handful_of_shares_convicts_before_there_is_a_last_rate() -> None:
    few = check("rate_jump", obs(kind=FeedKind.RATE), rate=RateFacts(1, 18, total_supply_raw=999_999))
    assert few.status is VIOLATED
    assert said(few) == ("only 999999 shares stand behind the rate", "999999", ">= 1000000")
    # Whatever the kind of the price that the rate is a part of.
    assert check("rate_jump", obs(), rate=RateFacts(1, 18, total_supply_raw=0)).status is VIOLATED
    enough = check("rate_jump", obs(kind=FeedKind.RATE), rate=RateFacts(1, 18, total_supply_raw=10**6))
    assert missing(enough) == "no rate accepted before"


def test_what_is_no_rate_or_has_no_last_one_is_not_judged_as_one() -> None:
    assert missing(check("rate_jump", obs(), history=(obs(),))) == "not a rate"
    zero = obs(0, kind=FeedKind.RATE)
    assert missing(check("rate_jump", obs(kind=FeedKind.RATE), history=(zero,))) == "no rate accepted before"
    assert missing(check("rate_jump", zero, history=(obs(kind=FeedKind.RATE),))) == "no positive price"


# ------------------------------------------------------------------------------------------------- G16, caps


def test_a_ratio_beyond_any_float_is_said_as_a_power_of_ten() -> None:
    huge, tiny = obs(2**254, decimals=0), peer(1, decimals=255)
    assert check("unit", huge, tiny).observed == "10^331 times"
    assert check("unit", obs(1, decimals=255), peer(2**254, decimals=0)).status is VIOLATED


def test_the_cap_of_1_1939_stands_285_bps_below_the_rate_of_1_2288() -> None:
    # Aave, 2026-03-10: 0.0349 of 1.2288 is 2.84 %.
    facts = CapFacts(cap=11_939 * 10**14, live=12_288 * 10**14)
    finding = check("cap_misconfigured", cap=facts)
    assert finding.status is VIOLATED
    assert said(finding) == ("the cap is 285 bps below the live rate", "285 bps", "<= 0 bps")
    assert finding.actions == {PAUSE_LIQUIDATIONS}
    assert finding.inputs == {"cap": "1193900000000000000", "live": "1228800000000000000"}
    assert check("cap_misconfigured", cap=facts, config={"tolerance_bps": 285}).status is OK
    assert check("cap_misconfigured", cap=facts, config={"tolerance_bps": 284}).status is VIOLATED


def test_a_cap_at_the_live_rate_binds_nothing_and_one_unit_below_it_does() -> None:
    live = 12_288 * 10**14
    at = check("cap_misconfigured", cap=CapFacts(live, live))
    assert at.status is OK
    assert said(at) == ("the cap is above the live rate", "0 bps", "<= 0 bps")
    below = check("cap_misconfigured", cap=CapFacts(live - 1, live))
    assert below.status is VIOLATED
    assert below.observed == "1 bps"
    assert missing(check("cap_misconfigured")) == "no cap known"
    assert missing(check("cap_misconfigured", cap=CapFacts(1, 0))) == "no positive live rate"
    assert missing(check("cap_misconfigured", cap=CapFacts(1, -1))) == "no positive live rate"
    assert missing(check("cap_misconfigured", NOTHING, cap=CapFacts(1, 2))) == "no price"


# --------------------------------------------------------------------------------- G17, written-down prices


def test_xusd_at_1_26_by_decree_while_the_market_pays_0_26() -> None:
    # Stream Finance, 2025-11-04: 1.00 of 1.26 is 79.365 %.
    decree = obs(126_000_000, base="xUSD", kind=FeedKind.CONSTANT)
    finding = check("hardcoded", decree, peer(26_000_000, base="xUSD"))
    assert finding.status is VIOLATED
    assert said(finding) == ("written down, 7937 bps from peer", "7937 bps", "<= 200 bps")
    assert finding.actions == {REJECT, PAUSE}
    assert finding.inputs == {"kind": "constant", "rounds_of_one_value": "0", "apart_bps": "7937"}
    # The guard of rates sees it, too, and asks for the lower of both.
    depeg = check("depeg", decree, peer(26_000_000, base="xUSD"))
    assert depeg.status is VIOLATED
    assert depeg.message == "7937 bps from the market, limit 200 bps"
    assert depeg.actions == {CLAMP, PAUSE}


@pytest.mark.parametrize(("market", "status"), [(98_000_000, OK), (97_999_999, VIOLATED)])
def test_the_market_may_be_200_bps_from_a_written_price(market: int, status: GuardStatus) -> None:
    dollar = obs(E8, base="USDX", kind=FeedKind.CONSTANT)
    assert check("hardcoded", dollar, peer(market, base="USDX")).status is status
    leg = obs(E8, base="USDX", kind=FeedKind.COMPOSITE)
    there = peer(market, base="USDX")
    assert check("hardcoded", leg, there, legs=(FeedKind.CONSTANT, FeedKind.PUSH)).status is status
    assert check("hardcoded", leg, there, legs=(FeedKind.RATE,)).status is OK


def test_24_rounds_of_one_value_are_a_constant_and_23_are_not() -> None:
    held = tuple(obs(round_key=(1, i)) for i in range(24))
    market = peer(1_000 * E8)
    still = check("hardcoded", obs(), market, history=held)
    assert still.status is VIOLATED
    assert still.inputs["rounds_of_one_value"] == "24"
    assert check("hardcoded", obs(), market, history=held[1:]).status is OK
    # Looked at twice each, twelve rounds are twelve; without keys they are told by their times.
    twice = tuple(round_ for round_ in held[:12] for _ in range(2))
    assert check("hardcoded", obs(), market, history=twice).inputs["rounds_of_one_value"] == "12"
    timed = tuple(obs(published_at=NOW - 24 + i // 2) for i in range(48))
    assert check("hardcoded", obs(), market, history=timed).status is VIOLATED
    assert check("hardcoded", obs(), market, history=timed[2:]).status is OK
    with pytest.raises(InputError, match="repeats"):
        guards.build({"kind": "hardcoded", "repeats": 65})
    # One that differed within them, by a unit, shows that somebody writes to it; one before them does not.
    moved = obs(2_000 * E8 + 1)
    assert check("hardcoded", obs(), market, history=(*held[:-1], moved)).status is OK
    assert check("hardcoded", obs(), market, history=(moved, *held)).status is VIOLATED


@pytest.mark.parametrize("kind", [FeedKind.RATE, FeedKind.COMPOSITE])
def test_only_a_market_speaks_against_a_written_price(kind: FeedKind) -> None:
    decree = obs(kind=FeedKind.CONSTANT)
    for guard in ("hardcoded", "depeg"):
        finding = check(guard, decree, peer(1_000 * E8, kind=kind))
        assert missing(finding) == "no second source that sees a market"


# -------------------------------------------------------------------------------- G18, rate against market


def test_rate_and_market_may_part_by_200_bps() -> None:
    backed = obs(1_000 * E8, kind=FeedKind.RATE)
    at = check("depeg", backed, peer(980 * E8, kind=FeedKind.AMM_TWAP))
    assert at.status is OK
    assert said(at) == ("200 bps from the market, limit 200 bps", "200 bps", "<= 200 bps")
    assert at.inputs == {"kind": "rate", "against": "peer"}
    beyond = check("depeg", backed, peer(980 * E8 - 1, kind=FeedKind.AMM_TWAP))
    assert beyond.status is VIOLATED
    assert beyond.observed == "201 bps"
    assert check("depeg", obs(1_000 * E8), peer(980 * E8 - 1), legs=(FeedKind.RATE,)).status is VIOLATED


def test_a_price_that_a_market_makes_does_not_leave_it() -> None:
    reason = "no rate and no constant goes into the price"
    assert missing(check("depeg", obs(), peer())) == reason
    assert missing(check("depeg", obs(), peer(), legs=(FeedKind.PUSH,))) == reason


# -------------------------------------------------------------------- G19 and G20, the pool and the setters


def test_a_pool_inside_a_call_is_refused_and_one_not_probed_is_unknown() -> None:
    inside = check("reentrancy", locked=True)
    assert inside.status is VIOLATED
    assert said(inside) == ("the pool is inside a call", "True", "False")
    assert inside.actions == {REJECT, FALLBACK}
    assert inside.inputs == {"locked": "True"}
    assert check("reentrancy", locked=False).status is OK
    assert missing(check("reentrancy")) == "the pool's lock was not probed"
    assert missing(check("reentrancy", NOTHING, locked=True)) == "no price"


def test_one_stranger_among_the_setters_pauses() -> None:
    two = frozenset({"0xaa", "0xbb"})
    own = check("authority", authority=AuthorityFacts((), two, two))
    assert own.status is OK
    assert said(own) == ("set by those who may", "0", "0")
    assert own.inputs == {"changes": "0", "setters": "0xaa, 0xbb"}
    stranger = check("authority", authority=AuthorityFacts((), two, frozenset({"0xaa"})))
    assert stranger.status is VIOLATED
    assert said(stranger) == ("0xbb was not attested", "1", "0")
    assert stranger.actions == {PAUSE}
    # Fewer than may is no fault; nobody that may is.
    assert check("authority", authority=AuthorityFacts((), frozenset({"0xaa"}), two)).status is OK
    assert check("authority", authority=AuthorityFacts((), two, frozenset())).observed == "2"


def test_a_change_convicts_without_the_setters_and_nothing_known_acquits_nobody() -> None:
    changed = check("authority", authority=AuthorityFacts(("aggregator 0x1 became 0x2", "owner 0x3")))
    assert changed.status is VIOLATED
    assert said(changed) == ("aggregator 0x1 became 0x2; owner 0x3", "2", "0")
    reason = "who sets the price, or who may, is unknown"
    one = frozenset({"0xaa"})
    for facts in (AuthorityFacts(), AuthorityFacts((), one), AuthorityFacts((), None, one)):
        assert missing(check("authority", authority=facts)) == reason
    assert missing(check("authority")) == "who sets the price is unknown"
    assert missing(check("authority", NOTHING, authority=AuthorityFacts(("x",)))) == "no price"


# ---------------------------------------------------------------------------- G21 and G22, who stands behind


def test_a_quorum_of_three_is_three() -> None:
    at = check("quorum", quorum=QuorumFacts(3, 3))
    assert at.status is OK
    assert said(at) == ("3 of at least 3 providers", "3", ">= 3")
    short = check("quorum", quorum=QuorumFacts(2, 3))
    assert short.status is VIOLATED
    assert said(short) == ("2 of at least 3 providers", "2", ">= 3")
    assert short.actions == {REJECT, FALLBACK}
    assert short.inputs == {"providers": "2", "minimum": "3"}
    assert missing(check("quorum")) == "number of providers unknown"
    assert missing(check("quorum", NOTHING, quorum=QuorumFacts(0, 1))) == "no price"


VENUE = VenueFacts(share_bps=5_000, own_token=False, exposure_usd=1_000_000, depth_usd=1_000_000)


def venue(**changes: Any) -> Finding:
    return check("venue", venue=dataclasses.replace(VENUE, **changes))


def test_half_of_the_volume_is_the_most_that_one_venue_may_make() -> None:
    at = venue()
    assert at.status is OK
    assert said(at) == ("several venues, deep enough", "5000 bps", "<= 5000 bps")
    assert at.inputs == {
        "share_bps": "5000",
        "own_token": "False",
        "exposure_usd": "1000000",
        "depth_usd": "1000000",
    }
    beyond = venue(share_bps=5_001)
    assert beyond.status is VIOLATED
    assert beyond.message == "one venue makes 5001 bps of the volume"
    assert beyond.actions == {PAUSE}
    assert venue(exposure_usd=1_000_001).message == "1000001 USD lent, 1000000 USD can be sold"
    assert venue(own_token=True).message == "the borrower's own token"


def test_a_venue_is_acquitted_only_by_all_figures_and_convicted_by_one() -> None:
    for name in ("share_bps", "own_token", "exposure_usd", "depth_usd"):
        assert missing(venue(**{name: None})) == "venue, issuer or depth unknown"
    assert check("venue", venue=VenueFacts(own_token=True)).status is VIOLATED
    assert check("venue", venue=VenueFacts(share_bps=5_001)).status is VIOLATED
    assert check("venue", venue=VenueFacts(exposure_usd=1, depth_usd=0)).status is VIOLATED
    assert missing(check("venue")) == "venues unknown"
    assert missing(check("venue", NOTHING, venue=VENUE)) == "no price"


# ------------------------------------------------------------------------- G23 and G24, order and liquidators


def execution(age_s: int, ordered_s: int | None, delay_s: int | None) -> Finding:
    facts = ExecutionFacts(None if ordered_s is None else NOW - ordered_s, delay_s)
    return check("latency", obs(published_at=NOW - age_s), execution=facts)


def test_a_price_made_a_second_before_the_order_could_be_picked() -> None:
    assert execution(10, 10, None).status is OK
    picked = execution(11, 10, None)
    assert picked.status is VIOLATED
    assert said(picked) == (
        "made 1 s before the order",
        "11 s",
        f">= None s, ordered at {NOW - 10}",
    )
    assert picked.actions == {REJECT}
    assert picked.inputs == {
        "published_at": str(NOW - 11),
        "ordered_at": str(NOW - 10),
        "min_delay_s": "None",
        "now": str(NOW),
    }


def test_a_price_is_used_when_its_dispute_window_is_over() -> None:
    assert execution(60, None, 60).status is OK
    young = execution(59, None, 60)
    assert young.status is VIOLATED
    assert young.message == "59 s old, may be disputed for 60 s"
    both = execution(59, 58, 60)
    assert both.message == "made 1 s before the order; 59 s old, may be disputed for 60 s"


def test_without_an_order_or_a_time_nobody_knows_whether_a_price_was_picked() -> None:
    reason = "time of the order and dispute window unknown"
    assert missing(check("latency")) == reason
    assert missing(check("latency", execution=ExecutionFacts())) == reason
    timeless = check("latency", obs(published_at=None), execution=ExecutionFacts(NOW, 60))
    assert missing(timeless) == "the source carries no time"
    assert missing(check("latency", NOTHING, execution=ExecutionFacts(NOW, 60))) == "no price"


LIVENESS = LivenessFacts(
    base_fee_wei=200 * 10**9, fee_cap_wei=200 * 10**9, inventory_usd=500, needed_usd=500, bidders=2
)


def liveness(**changes: Any) -> Finding:
    return check("liquidators", NOTHING, liveness=dataclasses.replace(LIVENESS, **changes))


def test_liquidators_with_every_figure_at_its_limit_can_act() -> None:
    finding = liveness()
    assert finding.status is OK
    assert said(finding) == ("liquidators can act", "2", ">= 2 bidders")
    assert finding.inputs == {
        "base_fee_wei": "200000000000",
        "fee_cap_wei": "200000000000",
        "inventory_usd": "500",
        "needed_usd": "500",
        "bidders": "2",
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"base_fee_wei": 200 * 10**9 + 1}, "base fee 200000000001 wei above the cap 200000000000"),
        ({"inventory_usd": 499}, "inventory 499 USD of 500 needed"),
        # Black Thursday: a single bidder took the ether of 1,462 auctions for nothing.
        ({"bidders": 1}, "1 bidders"),
        ({"bidders": 0, "base_fee_wei": None, "inventory_usd": None}, "0 bidders"),
    ],
)
def test_liquidators_one_unit_beyond_a_limit_cannot(changes: dict[str, Any], message: str) -> None:
    finding = liveness(**changes)
    assert finding.status is VIOLATED
    assert finding.message == message
    assert finding.actions == {PAUSE}


@pytest.mark.parametrize("name", [f.name for f in dataclasses.fields(LivenessFacts)])
def test_liquidators_of_whom_something_is_unknown_are_not_said_to_act(name: str) -> None:
    assert missing(liveness(**{name: None})) == "fees, inventory or bidders unknown"
    assert missing(check("liquidators")) == "liquidators unknown"


# ---------------------------------------------------------------------------- G25 and G26, markets to be read


def test_one_market_without_a_price_stops_whoever_is_in_it() -> None:
    # Compound, 2022-08-30: the market of cETH reverted, all others could be read.
    finding = check("market_unreadable", NOTHING, markets={"cUSDC": True, "cETH": False, "cDAI": True})
    assert finding.status is VIOLATED
    assert said(finding) == ("no price for cETH", "1", "0")
    assert finding.actions == {PAUSE}
    assert finding.inputs == {"markets": "3"}
    two = check("market_unreadable", markets={"z": False, "a": False})
    assert two.message == "no price for a, z"
    fine = check("market_unreadable", markets={"cETH": True})
    assert fine.status is OK
    assert said(fine) == ("every market can be read", "0", "0")


@pytest.mark.parametrize("markets", [None, {}])
def test_markets_that_nobody_named_are_unknown(markets: dict[str, bool] | None) -> None:
    assert missing(check("market_unreadable", markets=markets)) == "which markets can be read is unknown"


@pytest.mark.parametrize(
    ("status", "verdict"),
    [(MarketStatus.OPEN, OK), (MarketStatus.CLOSED, VIOLATED), (MarketStatus.UNKNOWN, VIOLATED)],
)
def test_a_market_is_open_only_when_it_says_so(status: MarketStatus, verdict: GuardStatus) -> None:
    finding = check("market_closed", market_status=status)
    assert finding.status is verdict
    assert said(finding) == (f"the market is {status.value}", status.value, "open")
    assert finding.actions == ({REJECT, PAUSE} if verdict is VIOLATED else frozenset())
    assert finding.inputs == {"market_status": status.value}


def test_a_source_without_a_market_status_is_not_open() -> None:
    assert missing(check("market_closed")) == "the source states no market status"
    assert missing(check("market_closed", NOTHING, market_status=MarketStatus.OPEN)) == "no price"


def test_one_wrong_peer_of_three_convicts_nobody() -> None:
    peers = [obs(1_000 * 10**8, source_id=name) for name in ("b", "c")] + [obs(10**8, source_id="d")]
    for kind in ("unit", "cross_dev"):
        assert check(kind, obs(1_000 * 10**8), *peers).status is OK, kind


def test_a_quorum_of_nobody_is_none() -> None:
    finding = check("quorum", obs(), quorum=QuorumFacts(3, 0))
    assert finding.status is GuardStatus.NOT_APPLICABLE
