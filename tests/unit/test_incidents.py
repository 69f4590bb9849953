"""Every packaged incident: well founded, and what it expects comes true, twice alike.

Files in ``pending`` wait for kinds of feed, faults and scenario keys that are still to come. They are held
to everything that does not need a replay, and move up one folder when they can be played.
"""

from __future__ import annotations

import csv
import gzip
import tomllib
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import oracle.incidents
from oracle.incidents import incident_ids
from oracle.interfaces import FeedContext
from oracle.mechanisms import Played, mechanisms
from oracle.scenario import load_scenario
from oracle.sources.capo import CapParameters
from oracle.sources.morpho_chainlink import scale_factor
from oracle.types import FeedKind, PriceObs
from simulation.replay.build import run_replay
from simulation.replay.economics import Borrower, Economics, Step, play_accounts
from simulation.replay.lending import AaveModel, Account, LtvModel, Market, Quotes
from simulation.replay.record import ReplayRecord

FOLDER = Path(oracle.incidents.__file__).parent
FILES = {p.stem: p for p in sorted(FOLDER.glob("*.toml"))}

DEMO = "black-thursday-2020-03-12"
"""The demonstration market: its faults are ours, and it has no accounts of its own."""

TYPED = {"constant", "set", "spike"}
"""Faults that write the wrong value down instead of letting it arise."""

RAY = 10**18


def raw(incident: str) -> dict[str, Any]:
    return tomllib.loads(FILES[incident].read_text(encoding="utf-8"))


INCIDENTS = tuple(i for i in FILES if i != DEMO)
DEEP = tuple(i for i in INCIDENTS if raw(i)["depth"] == "deep")
PLAYABLE = tuple(i for i in incident_ids() if i != DEMO)


@cache
def record_of(incident: str) -> ReplayRecord:
    return run_replay(load_scenario(incident), tool_version="test", matrix=False)


def figures(file: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield every figure of a file that stands for a fact."""
    for truth in file["truth"].values():
        yield from truth.get("points", ())
        if "derived" in truth:
            yield truth["derived"]
    yield from file.get("gas", {}).get("points", ())


def expected(file: Mapping[str, Any], feed: str) -> list[tuple[datetime, str]]:
    """Return what a file expects a feed to report: when, and what."""
    return [
        (e["at"], e["value"]) for e in file["expect"] if e["assert"] == "reported" and e.get("feed") == feed
    ]


def test_there_are_at_least_35_of_which_12_are_deep() -> None:
    assert len(FILES) >= 35
    assert len(DEEP) >= 12


@pytest.mark.parametrize("incident", INCIDENTS)
def test_an_incident_is_named_dated_and_founded(incident: str) -> None:
    file = raw(incident)
    assert file["schema"] == "oracle-scenario/1"
    assert file["id"] == incident
    assert isinstance(file["date"], date)
    assert incident.endswith(file["date"].isoformat())
    assert file["record"] in ("documented", "recalled")
    assert file["depth"] in ("deep", "series")
    assert file["mechanism"]
    assert len(file["summary"].split()) >= 20
    assert file["expect"], "expects nothing"
    assert any(c["confidence"] == "documented" and c.get("url") for c in file["provenance"])


@pytest.mark.parametrize("incident", INCIDENTS)
def test_each_figure_has_a_source_and_what_we_assume_is_marked_as_ours(incident: str) -> None:
    file = raw(incident)
    for figure in figures(file):
        assert figure["source"].strip()
        assert (figure["source"] == "ours") == (figure["status"] == "stated"), figure
    for claim in file["provenance"]:
        assert claim["source"].strip()
        assert claim.get("url", "https://").startswith("https://")
        assert claim["confidence"] in ("documented", "recalled", "stated")
        assert not (claim["confidence"] == "documented" and claim["source"] == "ours"), claim


@pytest.mark.parametrize("incident", INCIDENTS)
def test_all_times_lie_in_a_clock_of_whole_steps(incident: str) -> None:
    file = raw(incident)
    start, end, step = (file["clock"][k] for k in ("start", "end", "step_s"))
    seconds = int((end - start).total_seconds())
    assert seconds > 0
    assert seconds % step == 0
    assert seconds // step <= 600, "more steps than a test can wait for"
    times = [f["at"] for f in file.get("faults", ())]
    times += [a["at"] for a in file.get("actors", ()) if "at" in a]
    times += [e[k] for e in file["expect"] for k in ("at", "by") if k in e]
    assert all(start <= t <= end for t in times)
    for truth in file["truth"].values():
        points = [p["t"] for p in truth.get("points", ())]
        assert points == sorted(set(points))
        assert not points or (points[0] <= start and points[-1] >= end)


@pytest.mark.parametrize("incident", INCIDENTS)
def test_names_refer_to_what_is_there(incident: str) -> None:
    file = raw(incident)
    feeds, pairs = file["feeds"], set(file["truth"])
    assert {a["pair"] for a in file["assets"].values() if "pair" in a} <= pairs
    assert {f["feed"] for f in file.get("faults", ())} <= set(feeds)
    assert {e["feed"] for e in file["expect"] if "feed" in e} <= set(feeds)
    markets = set(file.get("protocol", {}).get("markets", ()))
    assert markets <= set(file["assets"])
    for holder in (*file.get("positions", ()), *file.get("actors", ())):
        held = {*holder.get("collateral", ()), *holder.get("debt", ()), *holder.get("supplies", ())}
        assert held | {holder.get("asset", next(iter(markets)))} <= markets


@pytest.mark.parametrize("incident", DEEP)
def test_a_deep_incident_has_accounts_and_a_wrong_value_that_arises(incident: str) -> None:
    file = raw(incident)
    assert file["protocol"]["markets"]
    assert file.get("positions") or [a for a in file["actors"] if a["role"] == "borrower"]
    faults = file.get("faults", ())
    assert not [f for f in faults if f["op"] in TYPED]
    # A ratio is a mechanism where it is a slip of decimals, or one provider's among several that are not off.
    for fault in (f for f in faults if f["op"] == "scale"):
        others = {p["name"] for p in file["feeds"][fault["feed"]].get("providers", ())}
        off = {f.get("provider") for f in faults if f["op"] == "scale" and f["feed"] == fault["feed"]}
        ratio = Fraction(fault["num"], fault["den"])
        assert (others - off) or max(ratio, 1 / ratio) in {10**k for k in range(1, 37)}, fault
    runs = {e["with"] for e in file["expect"] if e["assert"].endswith("_usd")}
    assert runs == {"guarded", "unguarded"}
    assert [e for e in file["expect"] if e["assert"] == "guard"]


@pytest.mark.parametrize("incident", PLAYABLE)
def test_what_an_incident_expects_comes_true(incident: str) -> None:
    rows = record_of(incident).checks
    assert len(rows) == len(raw(incident)["expect"])
    failed = [f"{row.text}: expected {row.expected}, got {row.actual}" for row in rows if not row.ok]
    assert not failed, "\n".join(failed)


@pytest.mark.parametrize("incident", PLAYABLE)
def test_an_incident_replays_to_the_same_bytes(incident: str) -> None:
    again = run_replay(load_scenario(incident), tool_version="test", matrix=False)
    assert again.to_json() == record_of(incident).to_json()


# ----------------------------------------------------------- published figures come out of the file's keys


def test_the_cap_stands_at_1_1939_under_a_rate_of_1_2288() -> None:
    file = raw("aave-capo-2026-03-10")
    (fault,) = (f for f in file["faults"] if f["feed"] == "wstETH/ETH")
    assert Fraction(fault["snapshot_ratio"]) == Fraction("1.1572") * Fraction("1.03")
    ratio = int(Fraction(fault["snapshot_ratio"]) * RAY)
    at, now = (int(fault[k].timestamp()) for k in ("snapshot_at", "at"))
    cap = CapParameters(ratio, at, file["feeds"]["wstETH/ETH"]["growth_bps_year"]).max_ratio(now)
    assert cap is not None
    assert round(Fraction(cap, RAY), 4) == Fraction("1.1939")
    assert {value for _, value in expected(file, "wstETH/ETH")} == {"1.2288", "1.1939"}
    # The cap that stood before lets the live rate through.
    feed = file["feeds"]["wstETH/ETH"]
    before = int(Fraction(feed["snapshot_ratio"]) * RAY)
    old = CapParameters(before, int(feed["snapshot_at"].timestamp()), feed["growth_bps_year"])
    assert (old.max_ratio(now) or 0) > Fraction("1.2288") * RAY


def test_gold_is_priced_a_trillion_times_too_high() -> None:
    file = raw("morpho-paxg-2024-10-13")
    feed = file["feeds"]["PAXG/USDC"]
    right = scale_factor(feed["base_decimals"], feed["quote_decimals"], [8], [])
    wrong = scale_factor(feed["stated_base_decimals"], feed["quote_decimals"], [8], [])
    assert right is not None
    assert wrong is not None
    assert Fraction(wrong, right) == 10**12
    ((_, said),) = expected(file, "PAXG/USDC")
    assert Fraction(said) == 10**12 * Fraction(file["truth"]["PAXG/USD"]["points"][0]["price"])


def test_luna_stops_above_its_bound_by_no_fault() -> None:
    file = raw("venus-luna-2022-05-12")
    assert "faults" not in file, "the bound does it"
    bound = Fraction(file["feeds"]["LUNA/USD"]["min_answer"], 10**8)
    prices = [Fraction(p["price"]) for p in file["truth"]["LUNA/USD"]["points"]]
    last = [p for p in prices if p >= bound][-1]
    assert last == Fraction("0.107")
    assert prices[-1] == Fraction("0.01")
    assert expected(file, "LUNA/USD")[0][1] == "0.107"


def test_cbeth_is_told_by_the_leg_that_is_left() -> None:
    file = raw("moonwell-cbeth-2026-02-15")
    legs = {leg: Fraction(file["truth"][leg]["points"][0]["price"]) for leg in ("cbETH/ETH", "ETH/USD")}
    assert abs(legs["cbETH/ETH"] * legs["ETH/USD"] - 2200) < Fraction(1, 1000)
    (fault,) = file["faults"]
    assert legs.keys() - {fault["leg"]} == {"cbETH/ETH"}
    assert expected(file, "cbETH/USD")[0][1] == "1.12"


def test_maker_is_told_the_close_of_the_hour_before_the_last() -> None:
    file = raw("maker-black-thursday-2020-03-12")
    points = {p["t"]: p["price"] for p in file["truth"]["ETH/USD"]["points"]}
    ((at, said),) = expected(file, "ETH/USD")
    taken = at.replace(minute=0).replace(hour=at.hour - 1)
    assert points[taken] == said == "169.54"
    assert points[at] == "132.91"


def truth_of(file: Mapping[str, Any], pair: str) -> Fraction:
    """Return a price that does not move in its file."""
    truth = file["truth"][pair]
    if "derived" in truth:
        ratio = Fraction(truth["derived"]["num"], truth["derived"]["den"])
        return ratio * truth_of(file, truth["derived"]["of"])
    (price,) = {p["price"] for p in truth["points"]}
    return Fraction(price)


def played_at(file: Mapping[str, Any], feed: str, at: datetime) -> Fraction:
    """Return what the mechanism of `feed` says at `at`, over legs that tell the truth."""
    t = int(at.timestamp())
    model = mechanisms.build(file["feeds"][feed])
    legs = {}
    for leg in model.feeds():
        base, quote = leg.split("/")
        decimals = file["feeds"][leg].get("decimals", 8)
        said = int(truth_of(file, leg) * 10**decimals)
        obs = PriceObs(base, quote, said, decimals, FeedKind.PUSH, leg, t, t, block=1)
        legs[leg] = Played(leg, (obs,), (FeedContext(t, heartbeat_s=3_600),))
    acts = []
    for fault in file.get("faults", ()):
        keys = {k: v for k, v in fault.items() if k != "op"} | {"kind": fault["op"]}
        keys |= {k: int(v.timestamp()) for k, v in keys.items() if isinstance(v, datetime)}
        if "snapshot_ratio" in keys:
            keys["snapshot_ratio"] = Fraction(keys["snapshot_ratio"])
        act = SimpleNamespace(growth_bps_year=None, active=lambda t, since=keys["at"]: since <= t, **keys)
        acts += [act] if fault["feed"] == feed else []
    seen = {pair: (truth_of(file, pair),) for pair in file["truth"]}
    world: Any = SimpleNamespace(steps=(t,), blocks=(1,), truth=seen, seen=seen, played=legs, acts=acts)
    (reading,) = model.play(feed, world).readings
    assert isinstance(reading, PriceObs)
    return Fraction(reading.mantissa, 10**reading.decimals)


@pytest.mark.parametrize(
    ("incident", "feed"),
    [
        ("aave-capo-2026-03-10", "wstETH/ETH"),
        ("moonwell-cbeth-2026-02-15", "cbETH/USD"),
        ("morpho-paxg-2024-10-13", "PAXG/USDC"),
    ],
)
def test_what_a_feed_is_expected_to_say_comes_out_of_its_mechanism(incident: str, feed: str) -> None:
    file = raw(incident)
    assert expected(file, feed)
    for at, said in expected(file, feed):
        places = len(said.partition(".")[2])
        assert round(played_at(file, feed, at), places) == Fraction(said)


def test_figures_of_maker_are_those_of_the_hourly_archive(shared: Path) -> None:
    path = shared / "data" / "hourly" / "ETHUSDT_1h_2017-08_2021-06.csv.gz"
    if not path.exists():
        pytest.skip(f"{path.name} is not here")
    candles = {}
    with gzip.open(path, "rt") as file:
        for row in csv.DictReader(file):
            if row["date"].startswith("2020-03-1"):
                hour = datetime.strptime(row["date"], "%Y-%m-%d %I-%p").replace(tzinfo=UTC)
                candles[hour] = row
    incident = raw("maker-black-thursday-2020-03-12")
    documented = [p for p in incident["truth"]["ETH/USD"]["points"] if p["status"] == "documented"]
    assert len(documented) >= 10
    for point in documented:
        column, hour = point["note"].split()[0], int(point["note"].split("the ")[1][:2])
        day = point["t"].replace(minute=0)
        candle = next(day - timedelta(hours=h) for h in (0, 1) if (day - timedelta(hours=h)).hour == hour)
        assert Fraction(candles[candle][column]) == Fraction(point["price"]), point


@pytest.mark.parametrize(
    ("incident", "feed", "wrong"),
    [
        ("synthetix-skrw-2019-06-24", "KRW/USD", (1 + 1000) * Fraction("0.000865") / 2),
        ("yieldblox-2026-02-22", "USTRY/USD", Fraction("106.7")),
        ("euler-deusd-2025-05-29", "deUSD/USD", 1 + Fraction(7146, 10_000) * (Fraction(210, 202) - 1)),
        ("cream-yusd-2021-10-27", "yUSD/USD", Fraction(2)),
    ],
)
def test_what_a_feed_is_expected_to_say_follows_from_published_figures(
    incident: str, feed: str, wrong: Fraction
) -> None:
    ((_, said),) = expected(raw(incident), feed)
    assert abs(Fraction(said) / wrong - 1) < Fraction(1, 10_000)


# ------------------------------------------------------------------ accounts at the prices that are expected

TOLD_LATER = {
    "aave-capo-2026-03-10": "its protocol feed is the rate times ether",
    "binance-usde-2025-10-10": "its feed follows another market",
    "compound-dai-2020-11-26": "its feed follows another market",
    "inverse-inv-2022-04-02": "its price comes out of a pool",
    "maker-black-thursday-2020-03-12": "its price is an hour old, and keepers come and go",
    "rari-vesper-vusd-2021-11-02": "its price comes out of a pool",
    "resupply-2025-06-26": "its price comes out of an empty vault",
}
"""Deep incidents whose wrong price is not a figure of the file; only a replay can play their accounts."""


def true_price(file: Mapping[str, Any], pair: str, t: datetime) -> Fraction:
    truth = file["truth"][pair]
    if "derived" in truth:
        ratio = Fraction(truth["derived"]["num"], truth["derived"]["den"])
        return ratio * true_price(file, truth["derived"]["of"], t)
    i = max(i for i, p in enumerate(truth["points"]) if p["t"] <= t)
    here, after = truth["points"][i], truth["points"][min(i + 1, len(truth["points"]) - 1)]
    price = Fraction(here["price"])
    if truth["interp"] == "step" or here is after:
        return price
    share = Fraction(int((t - here["t"]).total_seconds()), int((after["t"] - here["t"]).total_seconds()))
    return price + (Fraction(after["price"]) - price) * share


def said_price(file: Mapping[str, Any], pair: str, t: datetime) -> Fraction:
    """Return what the protocol believes by the file's own expectations; the truth before the first."""
    feeds = {n: f for n, f in file["feeds"].items() if f.get("role", "protocol") == "protocol"}
    for name, feed in feeds.items():
        if feed.get("pair", name) == pair:
            if feed["kind"] == "constant":
                return Fraction(feed["value"])
            told = [Fraction(value) for at, value in expected(file, name) if at <= t]
            return told[-1] if told else true_price(file, pair, t)
    return true_price(file, pair, t)


def unguarded(file: Mapping[str, Any]) -> Economics:
    units = {a: 10 ** file["assets"][a]["decimals"] for a in file["protocol"]["markets"]}

    def tokens(amounts: Mapping[str, str]) -> dict[str, int]:
        return {a: int(Fraction(n) * units[a]) for a, n in amounts.items()}

    terms = ("max_ltv_bps", "liquidation_threshold_bps", "liquidation_bonus_bps", "slippage_bps")
    markets = {
        a: Market(
            a,
            file["assets"][a]["decimals"],
            *(m.get(term, 0) for term in terms),
            int(Fraction(m["liquidity"]) * units[a]) if "liquidity" in m else None,
        )
        for a, m in file["protocol"]["markets"].items()
    }
    times = {file["clock"]["start"], file["clock"]["end"], *(a["at"] for a in file.get("actors", ()))}
    times |= {e["at"] for e in file["expect"] if "at" in e}
    times |= {p["t"] for t in file["truth"].values() for p in t.get("points", ())}
    steps = []
    for t in sorted(t for t in times if file["clock"]["start"] <= t <= file["clock"]["end"]):
        pairs = {a: file["assets"][a].get("pair") for a in markets}
        true = {a: true_price(file, p, t) if p else Fraction(1) for a, p in pairs.items()}
        said = Quotes.same({a: said_price(file, p, t) if p else Fraction(1) for a, p in pairs.items()})
        steps.append(Step(int(t.timestamp()), 0, true, said, said))
    borrowers = [
        Borrower(
            a["id"],
            tokens(a["supplies"]),
            a["asset"],
            at=int(a["at"].timestamp()),
            cost=Fraction(a.get("cost_usd", 0)),
        )
        for a in file.get("actors", ())
    ]
    positions = [
        Account(p["id"], tokens(p["collateral"]), tokens(p["debt"])) for p in file.get("positions", ())
    ]
    exact = file["protocol"]["model"] == "aave_v3"
    model = (
        AaveModel(markets) if exact else LtvModel(markets, file["protocol"].get("close_factor_bps", 5_000))
    )
    return play_accounts(model, steps, positions, borrowers)


@pytest.mark.parametrize("incident", [i for i in DEEP if i not in TOLD_LATER])
def test_accounts_lose_what_is_expected_at_the_prices_that_are_expected(incident: str) -> None:
    file = raw(incident)
    run = unguarded(file)
    came = {
        "bad_debt_usd": run.bad_debt,
        "wrongly_liquidated_usd": run.wrongly_seized,
        "attacker_profit_usd": run.attacker_profit,
    }
    wanted = [e for e in file["expect"] if e.get("with") == "unguarded" and e["assert"] in came]
    assert wanted
    for e in wanted:
        assert e["op"] == ">"
        assert came[e["assert"]] > Fraction(e["value"]), (e["assert"], float(came[e["assert"]]))
    # And not by much more than was lost: a figure that is a hundred times too large is no figure.
    if "loss_usd" in file and not file.get("positions"):
        assert run.bad_debt <= 2 * Fraction(file["loss_usd"])
