"""Mechanisms against numbers that were worked out by hand: pools, vaults, delays, providers and constants.

Products, caps and wrappers of lending protocols are in ``test_oracle_lending_feeds``.
"""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any

import pytest

from contracts_abi.errors import InputError
from oracle.faults import FaultModel, faults
from oracle.guards import guards
from oracle.interfaces import FeedContext, QuorumFacts, RateFacts
from oracle.mechanisms import FeedModel, Played, World, mechanisms
from oracle.mechanisms.wrapping import longest_heartbeat, names_of, oldest, raw
from oracle.types import FeedKind, GuardStatus, NoData, PriceObs, Reading

T0 = 1_584_003_600  # 2020-03-12 09:00 UTC, a full hour
E8 = 10**8
E18 = 10**18


def iso(t: int) -> datetime:
    return datetime.fromtimestamp(t, UTC)


def fault(op: str, feed: str, at: int = T0, until: int | None = None, **config: Any) -> FaultModel:
    ends = {} if until is None else {"until": iso(until)}
    built: FaultModel = faults.build({"kind": op, "feed": feed, "at": iso(at), **ends, **config})
    return built


def world(
    steps: tuple[int, ...] = (T0,),
    *,
    played: tuple[Played, ...] = (),
    acts: tuple[FaultModel, ...] = (),
    **pairs: tuple[str, ...],
) -> World:
    seen = {
        pair.replace("_", "/"): tuple(Fraction(v) for v in (values * len(steps))[: len(steps)])
        for pair, values in pairs.items()
    }
    return World(steps, tuple(range(len(steps))), seen, seen, {p.feed: p for p in played}, acts)


def play(name: str, where: World, kind: str, **config: Any) -> Played:
    feed = mechanisms.build({"kind": kind, **config}, where=f"feeds.{name}")
    assert isinstance(feed, FeedModel)
    found = feed.play(name, where)
    assert len(found.readings) == len(found.contexts) == len(where.steps)
    assert [c.now for c in found.contexts] == list(where.steps)
    assert [r.observed_at for r in found.readings] == list(where.steps)
    assert [r.block for r in found.readings] == list(where.blocks)
    return found


def mantissas(found: Played) -> list[int | None]:
    return [r.mantissa if isinstance(r, PriceObs) else None for r in found.readings]


def prices(found: Played) -> list[PriceObs]:
    return [r for r in found.readings if isinstance(r, PriceObs)]


def said(name: str, steps: tuple[int, ...], *answers: int | None, decimals: int = 8) -> Played:
    """Return a feed that says one thing at each step; None where it is silent."""
    base, quote = name.split("/")
    readings: list[Reading] = [
        NoData(base, quote, name, t, "it reverted", i)
        if answer is None
        else PriceObs(base, quote, answer, decimals, FeedKind.PUSH, name, t, t, i)
        for i, (t, answer) in enumerate(zip(steps, answers, strict=True))
    ]
    return Played(name, tuple(readings), tuple(FeedContext(t, heartbeat_s=3_600) for t in steps))


# ------------------------------------------------------------------------------------------------ providers


def several(aggregate: str, *ratios: tuple[int, int], weights: tuple[int, ...] = ()) -> dict[str, Any]:
    weights = weights or (1,) * len(ratios)
    return {
        "aggregate": aggregate,
        "providers": [
            {"name": f"p{i}", "num": num, "den": den, "weight": weight}
            for i, ((num, den), weight) in enumerate(zip(ratios, weights, strict=True))
        ],
    }


@pytest.mark.parametrize(
    ("config", "price"),
    [
        # 100, 101 and 109 of a price of 100.
        (several("median", (1, 1), (101, 100), (109, 100)), 101 * E8),
        (several("mean", (1, 1), (101, 100), (109, 100)), 10_333_333_333),
        # (100 * 1 + 101 * 2 + 109 * 7) / 10 = 1065 / 10.
        (several("weighted", (1, 1), (101, 100), (109, 100), weights=(1, 2, 7)), 10_650_000_000),
        # With the third missing, the median is the mean of the two that are left; weights do not count.
        (several("median", (1, 1), (101, 100), weights=(9, 1)), 10_050_000_000),
        (several("mean", (1, 1), (101, 100), weights=(9, 1)), 10_050_000_000),
        # Four: the middle two, 101 and 103.
        (several("median", (109, 100), (103, 100), (1, 1), (101, 100)), 102 * E8),
        (several("median", (3, 2)), 150 * E8),
    ],
)
def test_several_providers_become_one_price(config: dict[str, Any], price: int) -> None:
    found = play("KRW/USD", world(KRW_USD=("100",)), "providers", **config)
    assert mantissas(found) == [price]
    assert prices(found)[0].kind is FeedKind.PUSH


def test_one_wrong_provider_of_two_sets_the_mean_and_none_of_three_the_median() -> None:
    # Synthetix, 2019-06-24: one of two providers of the won answered a thousand times its price.
    steps = (T0, T0 + 60, T0 + 120)
    wrong = fault("scale", "KRW/USD", T0 + 60, T0 + 120, num=1_000, den=1, provider="p1")
    two = play(
        "KRW/USD", world(steps, acts=(wrong,), KRW_USD=("2",)), "providers", **several("mean", *[(1, 1)] * 2)
    )
    assert mantissas(two) == [2 * E8, 1_001 * E8, 2 * E8]
    three = several("median", *[(1, 1)] * 3)
    calm = play("KRW/USD", world(steps, acts=(wrong,), KRW_USD=("2",)), "providers", **three)
    assert mantissas(calm) == [2 * E8] * 3


def test_a_provider_that_is_missing_is_counted_and_its_quorum_refused() -> None:
    config = several("median", (1, 1), (1, 1)) | {
        "minimum": 3,
        "heartbeat_s": 600,
        "description": "KRW / USD",
    }
    found = play("KRW/USD", world(KRW_USD=("2",)), "providers", **config)
    (context,) = found.contexts
    assert context.quorum == QuorumFacts(2, 3)
    assert (context.heartbeat_s, context.description) == (600, "KRW / USD")
    finding = guards.build({"kind": "quorum"}).check(found.readings[0], (), (), context)
    assert finding.status is GuardStatus.VIOLATED
    assert finding.message == "2 of at least 3 providers"


def test_providers_have_names_of_their_own() -> None:
    same = [{"name": "a"}, {"name": "a"}]
    with pytest.raises(InputError, match="two providers have one name"):
        mechanisms.build({"kind": "providers", "aggregate": "mean", "providers": same})


# ---------------------------------------------------------------------------------------------- Maker's delay

TEN = tuple(T0 + 600 * i for i in range(14))  # 09:00 to 11:10


def test_maker_says_the_price_of_an_hour_ago() -> None:
    # The source says 100 at 09:00, 101 at 09:10 and so on: 106 at 10:00 and 112 at 11:00.
    source = said("ETH/USD", TEN, *[(100 + i) * E8 for i in range(14)])
    found = play("PIP/USD", world(TEN, played=(source,)), "osm", source="ETH/USD")
    # Until 10:00 both prices are that of 09:00; at 10:00 it moves on to the one seen at 09:00; at 11:00 to
    # the one seen at 10:00.
    assert mantissas(found) == [100 * E8] * 12 + [106 * E8] * 2
    assert [p.published_at for p in prices(found)] == [T0] * 6 + [T0 + 3_600] * 6 + [T0 + 7_200] * 2
    assert {c.heartbeat_s for c in found.contexts} == {3_600}
    assert {(p.base, p.source_id) for p in prices(found)} == {("PIP", "PIP/USD")}


def test_a_turn_begins_at_the_full_hour_whenever_it_is_poked() -> None:
    # Pokes at 09:41:40, 10:23:20, 11:05:00 and 11:46:40; the first may, none may before 10:00.
    steps = tuple(T0 + 2_500 * i for i in range(1, 5))
    source = said("ETH/USD", steps, 1, 2, 3, 4)
    found = play("PIP/USD", world(steps, played=(source,)), "osm", source="ETH/USD")
    # 10:23:20 takes 2 and begins at 10:00, so that 11:05 may poke again: what was seen at 10:23:20 is told.
    assert mantissas(found) == [1, 1, 2, 2]
    assert [p.published_at for p in prices(found)] == [T0, T0 + 3_600, T0 + 7_200, T0 + 7_200]


def test_a_source_that_is_silent_at_the_hour_is_taken_when_it_speaks() -> None:
    answers: list[int | None] = [(100 + i) * E8 for i in range(14)]
    answers[6] = None
    found = play("PIP/USD", world(TEN, played=(said("ETH/USD", TEN, *answers),)), "osm", source="ETH/USD")
    # Poked at 10:10, which saw 107; the turn began at 10:00 all the same.
    assert mantissas(found) == [100 * E8] * 12 + [107 * E8] * 2
    assert [p.published_at for p in prices(found)][6:8] == [T0, T0 + 3_600]


def test_a_source_that_says_nothing_at_first_leaves_the_delay_without_a_price_for_two_turns() -> None:
    answers = [None, *[(100 + i) * E8 for i in range(1, 14)]]
    found = play("PIP/USD", world(TEN, played=(said("ETH/USD", TEN, *answers),)), "osm", source="ETH/USD")
    assert mantissas(found) == [None] * 12 + [106 * E8] * 2
    (first, *_) = found.readings
    assert isinstance(first, NoData)
    assert (first.base, first.source_id, first.reason) == ("PIP", "PIP/USD", "ETH/USD: it reverted")


def test_maker_says_eighteen_places_of_a_feed_with_eight() -> None:
    source = said("ETH/USD", (T0,), 169_54000000)
    found = play("PIP/USD", world(played=(source,)), "osm", source="ETH/USD", decimals=18, hop_s=60)
    assert mantissas(found) == [16_954 * 10**16]
    assert found.contexts[0].heartbeat_s == 60


# --------------------------------------------------------------------------------------------- pools, spot

POOL = {"base_reserve": "1000", "quote_reserve": "2000000"}


@pytest.mark.parametrize(
    ("trade", "price"),
    [
        # 997,000 of a million count; 1000 * 2000 / 2997 ETH stay against 3,000,000: 4495.5. A pair pays out
        # rounded down to a raw unit, so that a little more ETH stays.
        ({"op": "swap", "quote_in": "1000000"}, 4_495_49999999),
        # 997 of 1000 ETH count; 2,000,000 * 1000 / 1997 dollars stay against 2000 ETH: 1,000,000 / 1997.
        ({"op": "swap", "base_in": "1000"}, 500_75112669),
        # A flash swap of half of the ETH, not paid back yet: 2,000,000 against 500.
        ({"op": "swap", "base_out": "500"}, 4_000_00000000),
        ({"op": "manip_twap", "price": "4500"}, 4_500_00000000),
        ({"op": "manip_twap", "price": "3"}, 3_00000000),
    ],
)
def test_a_trade_moves_a_pool_along_its_curve_while_it_stands(trade: dict[str, str], price: int) -> None:
    steps = (T0, T0 + 60, T0 + 120)
    config = {k: v for k, v in trade.items() if k != "op"}
    act = fault(trade["op"], "ETH/USD", T0 + 60, T0 + 120, **config)
    found = play("ETH/USD", world(steps, acts=(act,), ETH_USD=("2000",)), "univ2_spot", **POOL)
    assert mantissas(found) == [2_000 * E8, price, 2_000 * E8]
    assert {p.kind for p in prices(found)} == {FeedKind.AMM_SPOT}
    assert [p.published_at for p in prices(found)] == list(steps)
    assert {c.amm.window_s for c in found.contexts if c.amm is not None} == {0}


def test_a_pool_follows_the_market_and_is_thinner_in_ether_at_a_higher_price() -> None:
    # At 8000 there are 500 ETH and 4,000,000 dollars. A million moves it to 5,000,000 against
    # 500 * 4,000,000 / 4,997,000: 12,492.50, less what a pair keeps by rounding down.
    steps = (T0, T0 + 60, T0 + 120)
    act = fault("swap", "ETH/USD", T0 + 120, quote_in="1000000")
    where = world(steps, acts=(act,), ETH_USD=("2000", "8000", "8000"))
    assert mantissas(play("ETH/USD", where, "univ2_spot", **POOL)) == [
        2_000 * E8,
        8_000 * E8,
        12_492_49999999,
    ]


def test_two_trades_at_once_are_one_after_the_other() -> None:
    # 500 ETH out (500 against 2,000,000), then 997 of 1000 in: 2,000,000 * 500 / 1497 against 1500.
    acts = (fault("swap", "ETH/USD", base_out="500"), fault("swap", "ETH/USD", base_in="1000"))
    found = play("ETH/USD", world(acts=acts, ETH_USD=("2000",)), "univ2_spot", **POOL)
    # 1,000,000,000 / 1497 / 1500 = 445.335114...
    assert mantissas(found) == [445_33511467]


# ------------------------------------------------------------------------------------------- pools, average


def test_an_average_over_three_observations() -> None:
    # 2000 for a minute, 4500 for a minute, 8000 for a minute; what holds from now on does not count yet.
    steps = (T0, T0 + 60, T0 + 120, T0 + 180)
    where = world(steps, ETH_USD=("2000", "4500", "8000", "2000"))

    def twap(period_s: int) -> list[int | None]:
        return mantissas(play("ETH/USD", where, "univ2_twap", period_s=period_s, **POOL))

    # (2000 + 4500 + 8000) / 3, and before it began the pool stood at 2000.
    assert twap(180) == [2_000 * E8, 2_000 * E8, 2_833_33333333, 4_833_33333333]
    assert twap(120) == [2_000 * E8, 2_000 * E8, 3_250 * E8, 6_250 * E8]
    # Thirty seconds at 4500 and sixty at 8000.
    assert twap(90)[3] == 6_833_33333333
    # A window that is a part of the last step is what held there.
    assert twap(30) == [2_000 * E8, 2_000 * E8, 4_500 * E8, 8_000 * E8]


def test_an_average_says_its_window_and_what_the_pool_says_now() -> None:
    steps = (T0, T0 + 60)
    found = play("ETH/USD", world(steps, ETH_USD=("2000", "8000")), "univ2_twap", period_s=600, **POOL)
    assert {p.kind for p in prices(found)} == {FeedKind.AMM_TWAP}
    facts = found.contexts[1].amm
    assert facts is not None
    assert (facts.window_s, facts.oldest_s, facts.spot_mantissa) == (600, 600, 8_000 * E8)
    assert mantissas(found)[1] == 2_000 * E8


def test_a_trade_of_one_minute_is_a_tenth_of_ten() -> None:
    # 8000 for one minute of ten: (9 * 2000 + 8000) / 10.
    steps = tuple(T0 + 60 * i for i in range(12))
    act = fault("manip_twap", "ETH/USD", T0 + 300, T0 + 360, price="8000")
    where = world(steps, acts=(act,), ETH_USD=("2000",))
    found = mantissas(play("ETH/USD", where, "univ2_twap", period_s=600, **POOL))
    assert found[5] == 2_000 * E8
    assert found[6:] == [2_600 * E8] * 6


def test_a_mean_of_ticks_is_no_dearer_than_the_market_and_within_a_tick_of_it() -> None:
    # ln(2000e-12) / ln(1.0001) = -200,311.2, so that the tick is -200,312: 0.8 of a basis point below.
    config = {"window_s": 60, "base_decimals": 18, "quote_decimals": 6}
    (price,) = prices(play("ETH/USD", world(ETH_USD=("2000",)), "univ3_twap", **config))
    assert 1_999_83 * 10**6 <= price.mantissa <= 1_999_85 * 10**6


# -------------------------------------------------------------------------------------------------- vaults


def vault(decimals: int = 8, inverse: bool = False, **config: Any) -> dict[str, Any]:
    return {"assets": "1000", "supply": "1000", "decimals": decimals, "inverse": inverse, **config}


def test_a_donation_raises_what_each_share_is_worth() -> None:
    # A rate of 1.05; half as much again is given: 1.575. Taking 200 of 1000 out leaves four fifths: 0.84.
    steps = (T0, T0 + 60, T0 + 120, T0 + 180)
    acts = (
        fault("rate_donate", "sDAI/DAI", T0 + 60, T0 + 120, assets="500"),
        fault("rate_donate", "sDAI/DAI", T0 + 120, T0 + 180, assets="-200"),
    )
    found = play("sDAI/DAI", world(steps, acts=acts, sDAI_DAI=("1.05",)), "erc4626", **vault())
    assert mantissas(found) == [105_000_000, 157_500_000, 84_000_000, 105_000_000]
    assert {p.kind for p in prices(found)} == {FeedKind.RATE}
    assert found.contexts[1].rate == RateFacts(1_575 * 10**15, 18, 1_500 * E18, 1_000 * E18)


def test_two_donations_add_up() -> None:
    acts = tuple(fault("rate_donate", "sDAI/DAI", assets=a) for a in ("300", "200"))
    found = play("sDAI/DAI", world(acts=acts, sDAI_DAI=("1.05",)), "erc4626", **vault())
    assert mantissas(found) == [157_500_000]


@pytest.mark.parametrize(
    ("rate", "decimals", "price"),
    [
        # One over 1.6 is 0.625, over 3 a third, rounded down.
        ("1.6", 18, 625 * 10**15),
        ("1.6", 8, 62_500_000),
        ("3", 18, 333_333_333_333_333_333),
        ("3", 8, 33_333_333),
        ("0.5", 8, 200_000_000),
        # A rate that cannot be said in 18 places has no inverse.
        ("0.0000000000000000001", 18, 0),
    ],
)
def test_an_inverse_rate(rate: str, decimals: int, price: int) -> None:
    config = vault(decimals, inverse=True)
    assert mantissas(play("A/B", world(A_B=(rate,)), "erc4626", **config)) == [price]


def test_an_empty_vault_is_priced_at_nothing_by_a_donation_of_2000() -> None:
    # Resupply, 2025-06-26: 2000 crvUSD into an empty vault, one smallest share. convertToAssets(1e18) is
    # 2000e36, and 1e36 over it is nothing at all.
    steps = (T0, T0 + 60)
    act = fault("rate_donate", "C/U", T0 + 60, assets="2000")
    empty = vault(18, assets="0", supply="0")
    found = play("C/U", world(steps, acts=(act,), C_U=("1",)), "erc4626", **empty)
    assert mantissas(found) == [E18, 2_000 * 10**36]
    assert found.contexts[1].rate == RateFacts(2_000 * 10**36, 18, 2_000 * E18, 1)
    turned = play("C/U", world(steps, acts=(act,), C_U=("1",)), "erc4626", **(empty | {"inverse": True}))
    assert mantissas(turned) == [E18, 0]
    # The guard of rates sees the one share, the guard of positive prices the nothing.
    finding = guards.build({"kind": "rate_jump"}).check(found.readings[1], (), (), found.contexts[1])
    assert finding.status is GuardStatus.VIOLATED
    assert finding.message == "only 1 shares stand behind the rate"


@pytest.mark.parametrize(("assets", "supply"), [("0", "5"), ("5", "0")])
def test_a_vault_is_empty_or_it_is_not(assets: str, supply: str) -> None:
    with pytest.raises(InputError, match="assets and supply") as caught:
        mechanisms.build({"kind": "erc4626", "assets": assets, "supply": supply}, where="feeds.A/B")
    assert "\n" not in str(caught.value)


# -------------------------------------------------------------------------------------- Pyth and constants


def test_pyth_states_half_a_percent_of_a_percent_of_its_price() -> None:
    # Five basis points of 2000 are one dollar.
    found = play("ETH/USD", world(ETH_USD=("2000",)), "pyth", description="Crypto.ETH/USD")
    (price,) = prices(found)
    assert (price.mantissa, price.conf_abs, price.kind) == (2_000 * E8, E8, FeedKind.PULL)
    (context,) = found.contexts
    # No grace: what the consumer refuses is what it says.
    assert (context.heartbeat_s, context.grace_s, context.description) == (60, 0, "Crypto.ETH/USD")
    wide = play("ETH/USD", world(ETH_USD=("2000.123456789",)), "pyth", conf_bps=250, max_age_s=7)
    # 2.5 % of 2000.123456789 is 50.003086419...
    assert (prices(wide)[0].mantissa, prices(wide)[0].conf_abs) == (2_000_12345678, 50_00308641)
    assert wide.contexts[0].heartbeat_s == 7


def test_a_constant_is_new_in_every_block_and_sees_no_market() -> None:
    steps = (T0, T0 + 60)
    found = play("xUSD/USD", world(steps), "constant", value="1.26")
    assert mantissas(found) == [126_000_000] * 2
    assert [p.published_at for p in prices(found)] == list(steps)
    assert {p.kind for p in prices(found)} == {FeedKind.CONSTANT}
    assert {c.heartbeat_s for c in found.contexts} == {1}
    assert mechanisms.build({"kind": "constant", "value": "1"}).pairs("xUSD/USD") == ()
    # What does not fit its scale is cut.
    assert mantissas(play("A/B", world(), "constant", value="1.267", decimals=2)) == [126]


# ----------------------------------------------------------------------------------------- recorded rounds

ROUNDS = [[1, 1, 100, T0 + 60], [1, 2, 90, T0 + 120], [2, 1, 95, T0 + 120], [2, 2, 0, T0 + 300]]


def test_recorded_rounds_are_read_as_they_stand() -> None:
    steps = (T0, T0 + 59, T0 + 60, T0 + 119, T0 + 120, T0 + 299, T0 + 300, T0 + 10**6)
    config = {"rounds": ROUNDS, "heartbeat_s": 30, "deviation_bps": 50, "min_answer": 1, "max_answer": 99}
    found = play("A/B", world(steps), "recorded", description="A / B", **config)
    # Of two rounds of one second the later one counts; a round of zero is read as it is.
    assert mantissas(found) == [None, None, 100, 100, 95, 95, 0, 0]
    assert [p.round_key for p in prices(found)] == [(1, 1), (1, 1), (2, 1), (2, 1), (2, 2), (2, 2)]
    assert all(p.answered_key == p.round_key for p in prices(found))
    assert prices(found)[-1].published_at == T0 + 300
    first = found.readings[0]
    assert isinstance(first, NoData)
    assert first.reason == "no round yet"
    context = found.contexts[0]
    assert (context.heartbeat_s, context.deviation_bps) == (30, 50)
    assert (context.min_answer, context.max_answer, context.description) == (1, 99, "A / B")


def test_recorded_rounds_stand_in_the_order_of_their_times() -> None:
    with pytest.raises(InputError, match="rounds must stand in the order of their times"):
        mechanisms.build({"kind": "recorded", "rounds": [ROUNDS[1], ROUNDS[0]]})


# ---------------------------------------------------------------------------------- products and wrappers


def test_wrseth_of_1_65_million_at_3515_is_5_8_billion() -> None:
    # Moonwell, 2025-11-04: 1,650,000 * 3,515 = 5,799,750,000 in place of 1.057 * 3,515 = 3,715.355.
    steps = (T0, T0 + 60)
    rate = said("wrsETH/ETH", steps, 1_057 * 10**15, 1_650_000 * E18, decimals=18)
    ether = said("ETH/USD", steps, 3_515 * E8, 3_515 * E8)
    where = world(steps, played=(rate, ether))
    found = play("wrsETH/USD", where, "composite", legs=["wrsETH/ETH", "ETH/USD"])
    assert mantissas(found) == [3_715_35500000, 5_799_750_000 * E8]
    assert {p.kind for p in prices(found)} == {FeedKind.COMPOSITE}
    assert found.contexts[0].legs == (FeedKind.PUSH, FeedKind.PUSH)


def test_a_derived_answer_is_rounded_half_to_even() -> None:
    # 0.5, 1.5 and 2.5 of the smallest unit.
    steps = (T0, T0 + 60, T0 + 120)
    where = world(steps, played=(said("A/B", steps, 1, 3, 5),))
    found = play("C/B", where, "composite", derive_from={"feed": "A/B", "num": 1, "den": 2})
    assert mantissas(found) == [0, 2, 2]
    finer = play("C/B", where, "composite", decimals=9, derive_from={"feed": "A/B", "num": 1, "den": 2})
    assert mantissas(finer) == [5, 15, 25]


def test_a_value_at_a_scale_is_cut() -> None:
    assert raw(Fraction(2, 3), 4) == 6_666
    assert raw(Fraction(-2, 3), 4) == -6_667
    assert raw(Fraction("1.2288"), 18) == 12_288 * 10**14


def test_legs_are_as_old_as_the_oldest_of_which_a_time_is_known() -> None:
    leg = PriceObs("A", "B", 1, 8, FeedKind.PUSH, "x", T0, T0)
    assert oldest([leg, dataclasses.replace(leg, published_at=T0 - 7)]) == T0 - 7
    assert oldest([leg, dataclasses.replace(leg, published_at=None)]) is None
    assert oldest([]) is None


def test_the_longest_promise_is_the_promise_of_all() -> None:
    assert longest_heartbeat([FeedContext(T0, 60), FeedContext(T0, 3_600)]) == 3_600
    assert longest_heartbeat([FeedContext(T0, 60), FeedContext(T0)]) is None


def test_a_feed_reports_its_own_pair_under_its_own_name() -> None:
    feed = mechanisms.build({"kind": "constant", "value": "1", "pair": "USDe/USD"})
    assert names_of(feed, "USDe/USD aave") == ("USDe", "USD", "USDe/USD aave")
    (price,) = prices(feed.play("USDe/USD aave", world()))
    assert (price.base, price.quote, price.source_id) == ("USDe", "USD", "USDe/USD aave")
