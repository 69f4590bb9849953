"""The figures that are published of real failures, as they come out of the mechanisms and guards.

``test_incidents`` holds every file to what it expects; here one figure each is followed from what went in to
what the feed said and what the guards made of it. Round ids are in ``test_oracle_chainlink``.
"""

from __future__ import annotations

import csv
import gzip
import json
from datetime import UTC, datetime
from fractions import Fraction
from functools import cache
from pathlib import Path

import pytest

from oracle.decisions import Origin
from oracle.guards import guards
from oracle.interfaces import FeedContext
from oracle.mechanisms import Played, World, mechanisms
from oracle.replay import FeedMoment, Moment, Replay, replay
from oracle.scenario import load_scenario
from oracle.types import FeedKind, Finding, GuardAction, GuardStatus, PriceObs, PriceStatus

E8 = 10**8
E18 = 10**18


def utc(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


@cache
def run(incident: str) -> Replay:
    return replay(load_scenario(incident))


def at(incident: str, time: str) -> Moment:
    (moment,) = (m for m in run(incident).moments if m.t == utc(time))
    return moment


def price(moment: FeedMoment) -> PriceObs:
    assert isinstance(moment.reading, PriceObs)
    return moment.reading


def found(moment: FeedMoment, guard: str) -> Finding:
    (finding,) = (f for f in moment.guarded.findings if f.guard == guard)
    return finding


# ------------------------------------------------------------------------------------- Aave's cap, 2026-03-10


def test_aave_the_cap_was_1_1939_and_the_rate_1_2288() -> None:
    before = at("aave-capo-2026-03-10", "2026-03-10T11:45:00")
    after = at("aave-capo-2026-03-10", "2026-03-10T11:46:00")
    assert price(before.feeds["wstETH/ETH"]).mantissa == 12_288 * 10**14
    assert round(Fraction(price(after.feeds["wstETH/ETH"]).mantissa, E18), 4) == Fraction("1.1939")
    # 2016 dollars a WETH: 2,477.26 before, and 1.193927... times as much after.
    assert price(before.feeds["wstETH/USD"]).mantissa == 2_477_26080000
    assert 2_406_90 * 10**6 < price(after.feeds["wstETH/USD"]).mantissa < 2_407_00 * 10**6


def test_aave_the_cap_itself_is_what_the_guards_accuse_and_liquidations_wait() -> None:
    feed = at("aave-capo-2026-03-10", "2026-03-10T11:46:00").feeds["wstETH/USD"]
    assert feed.context.cap is not None
    assert round(Fraction(feed.context.cap.cap, E18), 4) == Fraction("1.1939")
    assert feed.context.cap.live == 12_288 * 10**14
    finding = found(feed, "G16")
    # 0.03487 of 1.2288 is 2.838 %; 1.1939 itself would be 2.840 %.
    assert finding.observed == "284 bps"
    assert finding.actions == {GuardAction.PAUSE_LIQUIDATIONS}
    assert (
        found(at("aave-capo-2026-03-10", "2026-03-10T11:45:00").feeds["wstETH/USD"], "G16").observed
        == "0 bps"
    )


# --------------------------------------------------------------------------------- Maker's delay, 2020-03-12


def delayed(*seen: tuple[str, str]) -> list[Fraction]:
    """Return what Maker says of a source that says `seen`: hour and minute, and a price."""
    times = tuple(utc(f"2020-03-12T{when}:00") for when, _ in seen)
    source = tuple(
        PriceObs("ETH", "USD", int(Fraction(said) * E18), 18, FeedKind.PUSH, "median", t, t, i)
        for i, (t, (_, said)) in enumerate(zip(times, seen, strict=True))
    )
    behind = Played("median", source, tuple(FeedContext(t) for t in times))
    world = World(times, tuple(range(len(times))), {}, {}, {"median": behind})
    feed = mechanisms.build({"kind": "osm", "source": "median", "decimals": 18})
    return [Fraction(r.mantissa, E18) for r in feed.play("ETH/USD", world).readings]


def test_maker_said_169_54_while_the_hour_closed_at_132_91(shared: Path) -> None:
    path = shared / "data" / "hourly" / "ETHUSDT_1h_2017-08_2021-06.csv.gz"
    if not path.exists():
        pytest.skip(f"{path.name} is not here")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["date"].startswith("2020-03-12")]
    closes = {row["date"][11:]: row["close"] for row in rows}
    assert Fraction(closes["08-AM"]) == Fraction("169.54")
    assert Fraction(closes["10-AM"]) == Fraction("132.91")
    # The close of 08h is taken at 09:00 and told from 10:00 to 11:00, when the market stood at 132.91.
    said = delayed(
        ("09:00", closes["08-AM"]),
        ("10:00", closes["09-AM"]),
        ("10:59", closes["10-AM"]),
        ("11:00", closes["10-AM"]),
        ("12:00", closes["11-AM"]),
    )
    assert said[1] == said[2] == Fraction("169.54")
    # 36.63 dollars too much, 27.6 % of the market's price; the fall is told from 12:00 on.
    assert said[2] - Fraction(closes["10-AM"]) == Fraction("36.63")
    assert said[4] == Fraction("132.91")


def test_maker_was_an_hour_late_by_the_ten_minutes_too(shared: Path) -> None:
    path = shared / "data" / "maker_2020_03" / "eth_03-12-2020.json"
    if not path.exists():
        pytest.skip(f"{path.name} is not here")
    rows = json.loads(path.read_text(encoding="utf-8"), parse_float=str)
    closes = [(row["time_period_end"][11:16], row["price_close"]) for row in rows]
    morning = [(when, said) for when, said in closes if "09:00" <= when <= "12:00"]
    assert len(morning) == 19
    told = dict(zip([when for when, _ in morning], delayed(*morning), strict=True))
    # Another exchange than the hourly closes: 169.32 at 09:00, 167.22 at 10:00 and 133.75 at 11:00.
    assert {told[when] for when in ("10:00", "10:10", "10:20", "10:30", "10:40", "10:50")} == {
        Fraction("169.32")
    }
    assert {told[when] for when in ("11:00", "11:30", "11:50")} == {Fraction("167.22")}
    assert told["12:00"] == Fraction("133.75")
    # 167.22 was told when 133.75 was paid: the whole fall of the hour.
    assert dict(morning)["11:00"] == "133.750000000"


def test_maker_s_incident_says_so_at_10_55() -> None:
    moment = at("maker-black-thursday-2020-03-12", "2020-03-12T10:55:00")
    assert price(moment.feeds["ETH/USD"]).mantissa == 16_954 * 10**16
    assert moment.feeds["ETH/USD"].truth == Fraction("132.91")
    # 36.63 of 132.91 is 27.56 %, rounded away from nothing.
    assert moment.feeds["ETH/USD"].deviation_bps == 2_757
    assert moment.feeds["ETH/USD"].guarded.status is PriceStatus.REFUSED


# ------------------------------------------------------------------------------------- gold, ether and Luna


def test_morpho_s_gold_was_off_by_1e12_and_is_told_as_that() -> None:
    feed = at("morpho-paxg-2024-10-13", "2024-10-13T01:00:00").feeds["PAXG/USDC"]
    said = price(feed)
    assert Fraction(said.mantissa, 10**said.decimals) == 2_650 * 10**12
    finding = found(feed, "G11")
    assert finding.status is GuardStatus.VIOLATED
    assert finding.message == "1e+12 times PAXG/USD reference, about 10^12"
    assert feed.guarded.status is PriceStatus.REFUSED


def test_moonwell_s_cbeth_was_1_12_and_ether_is_named_as_missing() -> None:
    before = at("moonwell-cbeth-2026-02-15", "2026-02-15T18:00:00").feeds["cbETH/USD"]
    after = at("moonwell-cbeth-2026-02-15", "2026-02-15T18:01:00").feeds["cbETH/USD"]
    assert round(Fraction(price(before).mantissa, E8)) == 2_200
    assert price(after).mantissa == 112_000_000
    finding = found(after, "G11")
    assert finding.status is GuardStatus.VIOLATED
    assert finding.message.endswith("about 10^-3: the price of ETH/USD is missing")


def test_luna_was_held_at_0_107_while_a_cent_was_paid() -> None:
    moment = at("venus-luna-2022-05-12", "2022-05-12T13:30:00")
    feed = moment.feeds["LUNA/USD"]
    assert price(feed).mantissa == 10_700_000
    assert feed.truth == Fraction("0.01")
    # Ten times and seven tenths: 970 % too much.
    assert feed.deviation_bps == 97_000
    finding = found(feed, "G06")
    assert finding.status is GuardStatus.VIOLATED
    assert GuardAction.REJECT in finding.actions
    assert feed.guarded.status is PriceStatus.REFUSED
    use = moment.adapted["LUNA/USD"]
    assert use.price is None or use.price.mantissa != 10_700_000


# ---------------------------------------------------------------------------------------- Pyth, 2021-09-20


def test_pyth_said_5402_plus_or_minus_21623_and_is_refused() -> None:
    moment = at("pyth-btc-flash-2021-09-20", "2021-09-20T12:22:00")
    feed = moment.feeds["BTC/USD"]
    assert (price(feed).mantissa, price(feed).conf_abs) == (5_402 * E8, 21_623 * E8)
    finding = found(feed, "G09")
    assert finding.status is GuardStatus.VIOLATED
    assert finding.observed == "40028 bps"
    assert GuardAction.REJECT in finding.actions
    assert feed.guarded.status is PriceStatus.REFUSED
    use = moment.adapted["BTC/USD"]
    assert use.origin is not Origin.SOURCE
    assert use.price is None or use.price.mantissa > 40_000 * E8


def test_pyth_s_confidence_alone_would_have_done() -> None:
    def held(kind: str) -> PriceStatus:
        scenario = load_scenario("pyth-btc-flash-2021-09-20")
        moments = replay(scenario, guards=(guards.build({"kind": kind}),), fallback=False).moments
        (moment,) = (m for m in moments if m.t == utc("2021-09-20T12:22:00"))
        return moment.feeds["BTC/USD"].guarded.status

    assert held("confidence") is PriceStatus.REFUSED
    assert held("non_positive") is PriceStatus.OK
