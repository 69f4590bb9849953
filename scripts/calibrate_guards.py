"""How often guards cry on real prices, and what they miss: a curve over thresholds for each.

::

    python scripts/calibrate_guards.py [--data FOLDER] [--json FILE] [--docs FOLDER]

False alarms are counted on prices that were honest: rounds of Chainlink's ETH/USD and BTC/USD, and hourly
closes through four crashes. Misses are counted on the same prices with a fault put in at drawn times, so that
a threshold is never praised for silence alone. A part of both is what the defaults are chosen by, the rest is
what they are shown on. Same data, same bytes.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from oracle.columns import Columns, columns_of, joined
from oracle.guards import GuardModel, guards
from oracle.guards.peers import WrongFeedGuard
from oracle.interfaces import FeedContext
from oracle.judge_columns import LACKS, Code, Second, judge_columns
from oracle.sources import sources
from oracle.sources.recorded import RecordedSource
from oracle.types import GuardStatus, PriceObs

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"
HEARTBEAT_S: Final = 3_600
CONTEXT: Final = FeedContext(0, heartbeat_s=HEARTBEAT_S)
FAULTS: Final = 400
"""Faults put in per asset and set."""
MEMORY_S: Final = 86_400

LEFT_OUT: Final = {
    **LACKS,
    "bound": "the bounds of the aggregators, which rounds do not carry",
    "confidence": "a confidence interval, or bid and ask",
    "depeg": "a rate or a constant beside its market",
}


def unix(text: str) -> int:
    """Return unix seconds of an ISO date in UTC."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of real prices.

    Attributes
    ----------
    name, part
        ``calm`` or ``crash``; ``chosen on`` or ``shown on``.
    start, end
        Unix seconds.
    """

    name: str
    part: str
    start: int
    end: int


WINDOWS: Final = (
    Window("calm", "chosen on", unix("2023-04-06"), unix("2023-09-01")),
    Window("calm", "shown on", unix("2023-09-01"), unix("2024-01-29")),
    Window("crash", "chosen on", unix("2020-03-01"), unix("2020-04-01")),
    Window("crash", "chosen on", unix("2021-05-01"), unix("2021-06-01")),
    Window("crash", "shown on", unix("2022-06-01"), unix("2022-07-01")),
    Window("crash", "shown on", unix("2025-10-01"), unix("2025-11-01")),
)


@dataclass(frozen=True, slots=True)
class Series:
    """One asset: its rounds where there are any, and its hourly closes over all years."""

    asset: str
    rounds: Columns
    closes: Columns

    def looks(self, window: Window, every_s: int) -> Columns:
        """Return what a reader sees of the feed: the rounds in calm windows, the closes in crashes."""
        source = self.rounds if window.name == "calm" else self.closes
        step = every_s if window.name == "calm" else 3_600
        return source.seen_at(np.arange(window.start, window.end, step, dtype=np.int64))

    def market(self, looks: Columns) -> Columns:
        """Return the second source at the times of `looks`: the exchange's last hourly close."""
        return self.closes.seen_at(looks.observed_at)


def load(data: Path) -> list[Series]:
    """Return both assets from the folder of real prices."""
    feeds = {
        "ETH": "0x5f4eC3Df9cbd43714FE2740f5E3616155c5b8419",
        "BTC": "0xF4030086522a5bEEa4988F8cA5B36dbC97BeE88c",
    }
    out = []
    for asset, feed in feeds.items():
        rounds = RecordedSource.chainlink_rounds(data / "chainlink_rounds" / f"{feed}.csv.gz", asset, "USD")
        closes: list[PriceObs] = []
        # The older file changes from seconds to milliseconds, stands newest first, and has hours twice.
        for name, time, unit in (
            ("1h_2017-08_2021-06", "unix", "s_or_ms"),
            ("1h_2022_2025", "timestamp", "iso"),
        ):
            source = sources.build(
                {
                    "kind": "recorded",
                    "base": asset,
                    "quote": "USD",
                    "path": data / "hourly" / f"{asset}USDT_{name}.csv.gz",
                    "time": time,
                    "price": "close",
                    "time_unit": unit,
                    "time_offset_s": 3_600,
                    "decimals": 8,
                    "order": "descending" if time == "unix" else "ascending",
                    "duplicates": "first",
                    "name": "exchange",
                }
            )
            closes += [r for r in source.readings() if isinstance(r, PriceObs)]
        out.append(
            Series(
                asset,
                columns_of([r for r in rounds.readings() if isinstance(r, PriceObs)]),
                columns_of(closes),
            )
        )
    return out


# -------------------------------------------------------------------------------------------------- counting


@dataclass(frozen=True, slots=True)
class Count:
    """What a guard said of honest looks, and of faults."""

    observations: int = 0
    false_alarms: int = 0
    faults: int = 0
    misses: int = 0

    def __add__(self, other: Count) -> Count:
        return Count(
            self.observations + other.observations,
            self.false_alarms + other.false_alarms,
            self.faults + other.faults,
            self.misses + other.misses,
        )


def fired(
    guard: GuardModel, columns: Columns, second: Columns | None = None, context: FeedContext = CONTEXT
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return where a guard was violated, and where it had its inputs; nothing else is held."""
    beside = None
    if second is not None:
        stands = np.ones(len(columns), dtype=np.bool_)
        beside = Second(second, stands, ~stands)
    codes = judge_columns(columns, [guard], context, beside).codes[0]
    return codes == Code.VIOLATED, codes != Code.NOT_APPLICABLE


def honest(guard: GuardModel, columns: Columns, second: Columns | None = None) -> Count:
    """Return the false alarms on prices as they were."""
    bad, asked = fired(guard, columns, second)
    return Count(int(asked.sum()), int(bad.sum()))


def drawn(rng: np.random.Generator, rows: int, first: int, last: int) -> NDArray[np.int64]:
    """Return different rows at which faults are put in; each fault is judged by itself."""
    return np.unique(rng.integers(first, rows - last, FAULTS))


def drawn_rounds(rng: np.random.Generator, rounds: Columns, window: Window, before: int) -> NDArray[np.int64]:
    """Return rounds of a window at which faults are put in, with so many of it before each.

    What is shown must not be told by rounds that were chosen on.
    """
    first, after = np.searchsorted(rounds.observed_at, [window.start, window.end])
    if after - first <= before + 1:
        return np.empty(0, dtype=np.int64)
    return drawn(rng, int(after - first), before, 1) + np.int64(first)


def seen_alone(
    guard: GuardModel, columns: Columns, at: Iterable[int], bent: Callable[[Columns], Columns], before: int,
    second: Columns | None = None,
) -> Count:  # fmt: skip
    """Return misses of faults that last for one look: each is judged after `before` honest looks."""
    faults = misses = 0
    for i in at:
        rows = slice(max(0, int(i) - before), int(i) + 1)
        part = columns.take(rows)
        one = bent(part.take(slice(len(part) - 1, None)))
        whole = joined([part.take(slice(0, len(part) - 1)), one])
        bad, _ = fired(guard, whole, None if second is None else second.take(rows))
        faults += 1
        misses += not bad[-1]
    return Count(0, 0, faults, misses)


def scaled(columns: Columns, factor: float) -> Columns:
    """Return prices times a factor, rounded."""
    return replace(columns, mantissa=np.maximum(1, np.rint(columns.mantissa * factor)).astype(np.int64))


# ---------------------------------------------------------------------------------------- one guard at a time


def no_data(
    guard: GuardModel, series: Series, other: Series, window: Window, rng: np.random.Generator
) -> Count:
    """Return the figures of G01: a source that answers nothing."""
    looks = series.looks(window, 60)
    gone = replace(looks, has_data=np.zeros(len(looks), dtype=np.bool_)).take(slice(0, FAULTS))
    bad, _ = fired(guard, gone)
    return honest(guard, looks) + Count(0, 0, len(gone), int((~bad).sum()))


def non_positive(
    guard: GuardModel, series: Series, other: Series, window: Window, rng: np.random.Generator
) -> Count:
    """Return the figures of G02: zero, or the price with its sign turned."""
    looks = series.looks(window, 60)
    some = looks.take(rng.integers(0, len(looks), FAULTS))
    turned = replace(some, mantissa=np.where(np.arange(len(some)) % 2, -some.mantissa, 0))
    bad, _ = fired(guard, turned)
    return honest(guard, looks) + Count(0, 0, len(some), int((~bad).sum()))


def stale(
    guard: GuardModel, series: Series, other: Series, window: Window, rng: np.random.Generator
) -> Count:
    """Return the figures of G03: a feed that stops; missed when not called stale within two heartbeats."""
    looks = series.looks(window, 60)
    found = honest(guard, looks)
    misses = 0
    at = drawn_rounds(rng, series.rounds, window, 1)
    for i in at:
        last = series.rounds.take(slice(int(i), int(i) + 1))
        times = int(last.observed_at[0]) + np.arange(0, 2 * HEARTBEAT_S, 60)
        bad, _ = fired(guard, last.seen_at(times))
        misses += not bad.any()
    return found + Count(0, 0, len(at), misses)


def future(
    guard: GuardModel, series: Series, other: Series, window: Window, rng: np.random.Generator
) -> Count:
    """Return the figures of G04: stamps ahead of the block by a second to a day, evenly by magnitude."""
    looks = series.looks(window, 60)
    some = looks.take(rng.integers(0, len(looks), FAULTS))
    ahead = np.exp(rng.uniform(0, np.log(86_400), len(some))).astype(np.int64)
    bad, _ = fired(guard, replace(some, published_at=some.observed_at + ahead))
    return honest(guard, looks) + Count(0, 0, len(some), int((~bad).sum()))


def rollback(
    guard: GuardModel, series: Series, other: Series, window: Window, rng: np.random.Generator
) -> Count:
    """Return the figures of G05: the answer of one to ten rounds ago."""
    looks = series.looks(window, 60)
    rows = drawn_rounds(rng, series.rounds, window, 11)
    misses = 0
    for i in rows:
        now = series.rounds.take(slice(int(i), int(i) + 1))
        old = series.rounds.take(slice(int(i) - int(rng.integers(1, 11)), None)).take(slice(0, 1))
        bad, _ = fired(guard, joined([now, replace(old, observed_at=now.observed_at + 12)]))
        misses += not bad[-1]
    return honest(guard, looks) + Count(0, 0, len(rows), misses)


def jump(guard: GuardModel, series: Series, other: Series, window: Window, rng: np.random.Generator) -> Count:
    """Return the figures of G07: one look off by 5 to 90 %, up or down, with no second source."""
    looks = series.looks(window, 60)
    count = honest(guard, looks)
    for i in drawn(rng, len(looks), 1, 1):
        size = float(np.exp(rng.uniform(np.log(0.05), np.log(0.9))))
        factor = 1 - size if rng.random() < 0.5 else 1 / (1 - size)
        count += seen_alone(guard, looks, [int(i)], partial(scaled, factor=factor), 1)
    return count


def cross_dev(
    guard: GuardModel, series: Series, other: Series, window: Window, rng: np.random.Generator
) -> Count:
    """Return the figures of G08: a feed that is off by 1 to 50 % while the exchange is not.

    In crashes the honest feed is the exchange of an hour before: one that is a whole heartbeat behind.
    """
    looks, market = beside(series, window)
    count = honest(guard, looks, market)
    some = rng.integers(0, len(looks), FAULTS)
    size = np.exp(rng.uniform(np.log(0.01), np.log(0.5), len(some)))
    right = replace(market.take(some), source_id=looks.source_id)
    wrong = replace(right, mantissa=np.rint(right.mantissa * (1 - size)).astype(np.int64))
    bad, _ = fired(guard, wrong, market.take(some))
    return count + Count(0, 0, len(some), int((~bad).sum()))


def unit(guard: GuardModel, series: Series, other: Series, window: Window, rng: np.random.Generator) -> Count:
    """Return the figures of G11: a slip of up to four places down, or one up."""
    looks, market = beside(series, window)
    count = honest(guard, looks, market)
    some = rng.integers(0, len(looks), FAULTS)
    power = rng.choice([-4, -3, -2, -1, 1], len(some))
    part = looks.take(some)
    wrong = replace(part, mantissa=np.rint(part.mantissa * 10.0**power).astype(np.int64))
    bad, _ = fired(guard, wrong, market.take(some))
    return count + Count(0, 0, len(some), int((~bad).sum()))


def hardcoded(
    guard: GuardModel, series: Series, other: Series, window: Window, rng: np.random.Generator
) -> Count:
    """Return the figures of G17: hourly rounds of one value; missed when not seen within three days.

    A fault counts where the market has left the value by more than the guard allows at some look after the
    value was told often enough.
    """
    looks, market = beside(series, window)
    count = honest(guard, looks, market)
    faults = misses = 0
    for i in drawn(rng, len(looks), 1, 73):
        rows = slice(int(i), int(i) + 72)
        part, near = looks.take(rows), market.take(rows)
        still = replace(
            part,
            mantissa=np.full(len(part), near.mantissa[0]),
            published_at=part.observed_at,
            phase=np.full(len(part), 6),
            round=np.arange(1, len(part) + 1),
        )
        away = np.abs(near.mantissa - still.mantissa) > 0.03 * still.mantissa
        if not away[24:].any():
            continue
        faults += 1
        bad, _ = fired(guard, still, near)
        misses += not bad.any()
    return count + Count(0, 0, faults, misses)


def wrong_feed(
    guard: GuardModel, series: Series, other: Series, window: Window, rng: np.random.Generator
) -> Count:
    """Return the figures of G12 without a description: the other asset's price instead of one's own."""
    assert isinstance(guard, WrongFeedGuard)
    looks, market = beside(series, window)
    foreign, _ = beside(other, window)
    rows = range(0, len(looks), max(1, len(looks) // 2_000))
    found = Count()
    for i in rows:
        readings = [next(iter(c.take(slice(i, i + 1)).readings())) for c in (looks, market, foreign)]
        own, near, far = readings
        if not (isinstance(own, PriceObs) and isinstance(near, PriceObs) and isinstance(far, PriceObs)):
            continue
        known = replace(CONTEXT, known={f"{far.base}/{far.quote}": replace(far, source_id="known")})
        said = guard.check(own, (), [near], known).status
        # The other asset's feed as its second source sees it: up to half a percent away.
        off = 1 + float(rng.uniform(-0.005, 0.005))
        swapped = replace(own, mantissa=round(far.mantissa * off))
        told = guard.check(swapped, (), [near], known).status
        found += Count(1, int(said is GuardStatus.VIOLATED), 1, int(told is not GuardStatus.VIOLATED))
    return found


def beside(series: Series, window: Window) -> tuple[Columns, Columns]:
    """Return a feed and the exchange at the full hours; in crashes the feed is an hour behind."""
    looks = series.looks(window, 3_600)
    market = series.market(looks)
    if window.name == "crash":
        times = looks.observed_at
        late = series.closes.seen_at(times - 3_600)
        looks = replace(late, observed_at=times, source_id="an hour behind")
    there = looks.has_data & market.has_data
    return looks.take(there), market.take(there)


Measure = Callable[[GuardModel, Series, Series, Window, np.random.Generator], Count]


@dataclass(frozen=True, slots=True)
class Curve:
    """A guard, the threshold that is moved, its values, and how one of them is measured.

    Attributes
    ----------
    crash_alarms
        Share of the looks in crashes that may alarm. In calm none may.
    """

    kind: str
    parameter: str
    values: tuple[int, ...]
    measure: Measure
    windows: tuple[str, ...] = ("calm", "crash")
    crash_alarms: Fraction = Fraction(0)


CURVES: Final = (
    Curve("no_data", "", (), no_data),
    Curve("non_positive", "", (), non_positive),
    Curve(
        "stale",
        "max_age_s",
        (3_540, 3_600, 3_660, 3_720, 3_780, 3_900, 4_500, 5_400, 7_140),
        stale,
        ("calm",),
    ),
    Curve("future", "max_ahead_s", (0, 1, 5, 15, 30, 60, 120, 300, 900), future),
    Curve("rollback", "", (), rollback, ("calm",)),
    Curve(
        "jump",
        "floor_bps",
        (50, 100, 200, 300, 500, 700, 1_000, 1_500, 2_000, 3_000),
        jump,
        crash_alarms=Fraction(1, 400),
    ),
    Curve(
        "cross_dev",
        "cap_bps",
        (25, 50, 100, 150, 200, 300, 500, 700, 1_000, 1_500, 2_000),
        cross_dev,
        crash_alarms=Fraction(1, 50),
    ),
    Curve("unit", "factor", (2, 3, 5, 10, 30, 100), unit),
    Curve("wrong_feed", "near_bps", (5, 10, 25, 50, 100, 200, 500), wrong_feed),
    Curve("hardcoded", "repeats", (2, 3, 6, 12, 24, 36, 48, 64), hardcoded),
)


def calibrate(series: Sequence[Series], curves: Sequence[Curve] = CURVES) -> dict[str, Any]:
    """Return the calibration: for each guard its threshold, and a point for each value, set and part."""
    out: dict[str, Any] = {}
    for curve in curves:
        plain = guards.build({"kind": curve.kind})
        default = default_of(plain, curve.parameter)
        points = []
        for value in curve.values or (None,):
            guard = plain if value is None else guards.build({"kind": curve.kind, curve.parameter: value})
            for name in curve.windows:
                for part in ("chosen on", "shown on"):
                    count = Count()
                    for window in (w for w in WINDOWS if (w.name, w.part) == (name, part)):
                        for one, other in zip(series, reversed(series), strict=True):
                            rng = np.random.default_rng([window.start, ord(one.asset[0])])
                            count += curve.measure(guard, one, other, window, rng)
                    points.append(point(value, name, part, count))
        out[curve.kind] = {
            "parameter": curve.parameter or "none",
            "default": default,
            "admissible": admissible(points, curve.crash_alarms),
            "points": points,
        }
    out["left_out"] = dict(sorted(LEFT_OUT.items()))
    return out


def admissible(points: Sequence[Mapping[str, Any]], crash_alarms: Fraction) -> list[int | None]:
    """Return the thresholds that the choosing part allows: few alarms, and of those the fewest misses."""
    alarms: dict[int | None, bool] = {}
    misses: dict[int | None, int] = {}
    for p in points:
        if p["part"] != "chosen on":
            continue
        value = p["threshold"]
        most = 0 if p["set"] == "calm" else crash_alarms * p["observations"]
        alarms[value] = alarms.get(value, True) and p["false_alarms"] <= most
        misses[value] = misses.get(value, 0) + p["misses"]
    quiet = [value for value, few in alarms.items() if few]
    least = min((misses[value] for value in quiet), default=0)
    return [value for value in quiet if misses[value] == least]


def default_of(guard: GuardModel, parameter: str) -> int | None:
    """Return the guard's own threshold; that of the stale guard is the feed's promise and its grace."""
    if not parameter:
        return None
    value = getattr(guard, parameter)
    return HEARTBEAT_S + CONTEXT.grace_s if value is None else int(value)


def point(value: int | None, name: str, part: str, count: Count) -> dict[str, Any]:
    """Return one point of a curve."""
    return {
        "threshold": value,
        "set": name,
        "part": part,
        "observations": count.observations,
        "false_alarms": count.false_alarms,
        "faults": count.faults,
        "misses": count.misses,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, measure, write."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--data", type=Path, default=DATA, help="folder of the real prices")
    options.add_argument("--json", type=Path, default=ROOT / "oracle" / "calibration.json")
    given = options.parse_args(arguments)
    if not given.data.is_dir():
        options.error(f"no folder {given.data}: the real prices are not part of this project")
    found = calibrate(load(given.data))
    given.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    for kind, entry in found.items():
        if kind != "left_out":
            show(kind, entry)


def show(kind: str, entry: Mapping[str, Any]) -> None:
    """Print one curve."""
    print(f"\n{kind}: {entry['parameter']}, default {entry['default']}, admissible {entry['admissible']}")
    for p in entry["points"]:
        print(
            f"  {p['threshold']!s:>6} {p['set']:>5} {p['part']:>9}: {p['false_alarms']:>7,} of "
            f"{p['observations']:>9,}, missed {p['misses']:>4} of {p['faults']:>4}"
        )


if __name__ == "__main__":
    main()
