"""Would the margin have covered the loss? Statistical margin against real days of ETH and BTC.

::

    python scripts/coverage_backtest.py [--data FOLDER] [--docs FOLDER]

At the start of each window every method sees the 365 daily returns before it, and nothing after; its margin
is then held against what the window brought. Windows do not overlap. Prints a table, and writes
docs/coverage.md and docs/coverage.svg. Same data, same bytes.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import ceil, sqrt
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from oracle.sources import sources
from oracle.types import PriceObs
from simulation.margin.var_historical import filtered_scenarios, revalue
from simulation.margin.var_monte_carlo import Jumps, drawn, fitted
from simulation.margin.var_parametric import moments
from simulation.portfolio.instruments import Portfolio, Position, Spot
from simulation.portfolio.market import Market, Underlying
from simulation.statistics import Floats, Tail, normal_tail, sample_tail
from simulation.statistics.coverage import (
    acerbi_szekely_z2,
    christoffersen,
    exceedances,
    kupiec,
    severity,
    simulated_p_value,
    simulated_z2,
    traffic_light,
)
from simulation.statistics.procyclicality import (
    adjusted,
    buffered,
    floored,
    procyclicality,
    stressed_weight,
    worst_call,
)
from simulation.statistics.ranking import diebold_mariano, fissler_ziegel
from simulation.statistics.volatility import Garch, ewma_variance, filtered, fit_garch, garch_variance

ROOT: Final = Path(__file__).resolve().parents[1]
DATA: Final = ROOT.parent / "shared" / "data"

ASSETS: Final = ("ETH", "BTC")
CONFIDENCE: Final = 0.99
LOOKBACK: Final = 365
SETTLED: Final = 60
"""Windows after a gap of the data that are in the history and not yet tested."""
REFIT: Final = 30
"""Windows between two fits of GARCH; its variance is brought up to date at each."""
DRAWS: Final = 20_000
SCAN: Final = 0.15
STALE_H: Final = 3
"""How old a close may be that stands for a missing hour."""

PORTFOLIOS: Final[Mapping[str, tuple[float, float]]] = {
    "long ETH": (1.0, 0.0),
    "short ETH": (-1.0, 0.0),
    "long BTC": (0.0, 1.0),
    "long ETH, short BTC": (1.0, -1.0),
}
"""Dollars held of each asset."""

EVENTS: Final = ("2020-03", "2021-05", "2022-06", "2025-10")

MARKET: Final = Market(underlyings={asset: Underlying(spot=1.0) for asset in ASSETS})


@dataclass(frozen=True, slots=True)
class Prices:
    """Hourly closes of both assets on one clock.

    Attributes
    ----------
    times
        Unix seconds, every full hour.
    closes
        Shape (hours, assets); NaN where the last close is older than three hours.
    """

    times: NDArray[np.int64]
    closes: Floats


@dataclass(frozen=True, slots=True)
class Days:
    """Returns from midnight to midnight, UTC, where both ends are known.

    Attributes
    ----------
    starts
        Unix seconds.
    returns
        Logarithmic, shape (days, assets).
    paths
        Logarithmic return since the start at each of 48 hours, shape (days, 48, assets); NaN beyond the data.
    segment
        Number of the stretch without a gap, shape (days,).
    """

    starts: NDArray[np.int64]
    returns: Floats
    paths: Floats
    segment: NDArray[np.int64]


def load(data: Path) -> Prices:
    """Return the hourly closes of both assets from the folder of real prices."""
    stamps: list[NDArray[np.int64]] = []
    closes: list[Floats] = []
    for asset in ASSETS:
        found: dict[int, float] = {}
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
            for r in source.readings():
                if isinstance(r, PriceObs) and r.published_at is not None:
                    found[r.published_at] = r.mantissa / 10**r.decimals
        stamps.append(np.array(sorted(found), dtype=np.int64))
        closes.append(np.array([found[t] for t in sorted(found)]))
    first, last = max(int(s[0]) for s in stamps), min(int(s[-1]) for s in stamps)
    times = np.arange(-(-first // 3_600) * 3_600, last + 1, 3_600, dtype=np.int64)
    columns = []
    for stamp, close in zip(stamps, closes, strict=True):
        row = np.searchsorted(stamp, times, side="right") - 1
        columns.append(np.where(times - stamp[row] <= STALE_H * 3_600, close[row], np.nan))
    return Prices(times, np.stack(columns, axis=1))


def days_of(prices: Prices) -> Days:
    """Return the days of hourly prices; no return spans a gap."""
    midnight = np.flatnonzero(prices.times % 86_400 == 0)
    logs = np.log(np.vstack([prices.closes, np.full((48, len(ASSETS)), np.nan)]))
    starts, returns, paths = [], [], []
    for row in midnight:
        path = logs[row + 1 : row + 49] - logs[row]
        if np.isfinite(path[23]).all():
            starts.append(int(prices.times[row]))
            returns.append(path[23])
            paths.append(path)
    at = np.array(starts, dtype=np.int64)
    # A few hours of maintenance are no new segment; months are.
    segment = np.concatenate([[0], np.cumsum(np.diff(at) > 30 * 86_400)])
    return Days(at, np.array(returns), np.array(paths), segment)


# ---------------------------------------------------------------------------------------------------- methods


def held(weights: Sequence[float]) -> Portfolio:
    """Return a portfolio of dollars in each asset."""
    positions = [Position(instrument=Spot(asset=a), quantity=w) for a, w in zip(ASSETS, weights, strict=True)]
    return Portfolio(positions=tuple(positions))


Tails = dict[str, Tail]
Method = Callable[[Floats, int, float], Tails]
"""From history, number of the window and margin period in days to the tail of each portfolio."""


def of_moves(moves: Floats) -> Tails:
    """Return the tail of each portfolio after simulated or past moves, priced in full."""
    return {
        name: sample_tail(revalue(held(weights), MARKET, ASSETS, moves), CONFIDENCE)
        for name, weights in PORTFOLIOS.items()
    }


def delta_normal(history: Floats, window: int, days: float) -> Tails:
    """Return normal tails by the sample covariance."""
    covariance, unit = moments(history, days).covariance, normal_tail(CONFIDENCE)
    out = {}
    for name, weights in PORTFOLIOS.items():
        deviation = sqrt(float(np.array(weights) @ covariance @ np.array(weights)))
        out[name] = Tail(deviation * unit.var, deviation * unit.es)
    return out


def historical(history: Floats, window: int, days: float) -> Tails:
    """Return the tails of past days."""
    return of_moves(history * sqrt(days))


def ewma_fhs(history: Floats, window: int, days: float) -> Tails:
    """Return the tails of past days at today's volatility by exponential weights."""
    return of_moves(filtered_scenarios(history) * sqrt(days))


def garch_fhs() -> Method:
    """Return filtered historical simulation by GARCH(1,1) with t innovations, fitted every 30 windows."""
    fits: dict[int, list[Garch]] = {}

    def method(history: Floats, window: int, days: float) -> Tails:
        fit = window // REFIT
        if fit not in fits:
            fits[fit] = [fit_garch(column, "zero", "t") for column in history.T]
        variance = [garch_variance(g, column) for g, column in zip(fits[fit], history.T, strict=True)]
        return of_moves(filtered(history, np.stack(variance, axis=1)) * sqrt(days))

    return method


def monte_carlo(history: Floats, window: int, days: float) -> Tails:
    """Return the tails of a simulation: t-copula, Student margins at exponential weights, jumps."""
    deviation, correlation = fitted(history)
    rng = np.random.default_rng(1)
    jumps = Jumps(0.005 * days, -0.1, 0.1)
    return of_moves(drawn(rng, DRAWS, deviation * sqrt(days), correlation, 4.0, 4.0, jumps))


def scan(history: Floats, window: int, days: float) -> Tails:
    """Return the loss of the worse of 15 % up and down, each asset by itself; its mean is the same figure."""
    return {name: Tail(SCAN * sum(map(abs, w)), SCAN * sum(map(abs, w))) for name, w in PORTFOLIOS.items()}


FAST: Final[Mapping[str, Callable[[], Method]]] = {
    "delta-normal": lambda: delta_normal,
    "historical": lambda: historical,
    "EWMA-FHS": lambda: ewma_fhs,
    "scan ±15 %": lambda: scan,
}
METHODS: Final[Mapping[str, Callable[[], Method]]] = {
    **{name: FAST[name] for name in ("delta-normal", "historical", "EWMA-FHS")},
    "GARCH-FHS": garch_fhs,
    "Monte-Carlo t-copula": lambda: monte_carlo,
    "scan ±15 %": FAST["scan ±15 %"],
}


# --------------------------------------------------------------------------------------------------- backtest


@dataclass(frozen=True, slots=True)
class Backtest:
    """One method on one portfolio.

    Attributes
    ----------
    method, portfolio
        Names.
    days
        Length of a window.
    starts
        Unix seconds of each window, shape (windows,).
    segment
        As of `Days`.
    profits
        Over the window, of a dollar of each asset held, shape (windows,).
    lowest
        Lowest profit at any full hour of the window.
    var, es
        At its start.
    """

    method: str
    portfolio: str
    days: int
    starts: NDArray[np.int64]
    segment: NDArray[np.int64]
    profits: Floats
    lowest: Floats
    var: Floats
    es: Floats


def tested(days: Days, length: int) -> NDArray[np.int64]:
    """Return the rows at which windows begin: enough history, settled after a gap, no overlap."""
    rows: list[int] = []
    for row in range(LOOKBACK, len(days.starts)):
        settled = row - int(np.searchsorted(days.segment, days.segment[row])) >= SETTLED
        apart = not rows or days.starts[row] - days.starts[rows[-1]] >= length * 86_400
        if settled and apart and np.isfinite(days.paths[row, 24 * length - 1]).all():
            rows.append(row)
    return np.array(rows, dtype=np.int64)


def backtest(days: Days, length: int, methods: Mapping[str, Callable[[], Method]]) -> list[Backtest]:
    """Return every method on every portfolio over windows of `length` days."""
    rows = tested(days, length)
    out = []
    for name, make in methods.items():
        method = make()
        found = [method(days.returns[r - LOOKBACK : r], i, float(length)) for i, r in enumerate(rows)]
        for portfolio, weights in PORTFOLIOS.items():
            paths = np.expm1(days.paths[rows, : 24 * length]) @ np.array(weights)
            out.append(
                Backtest(
                    name,
                    portfolio,
                    length,
                    days.starts[rows],
                    days.segment[rows],
                    paths[:, -1],
                    np.nanmin(paths, axis=1),
                    np.array([tails[portfolio].var for tails in found]),
                    np.array([tails[portfolio].es for tails in found]),
                )
            )
    return out


def month(start: int) -> str:
    """Return the month of a time, as ``2020-03``."""
    return datetime.fromtimestamp(start, UTC).strftime("%Y-%m")


def day(start: int) -> str:
    """Return the date of a time."""
    return datetime.fromtimestamp(start, UTC).strftime("%Y-%m-%d")


def percent(value: float) -> str:
    """Return a share in percent with two places."""
    return f"{100 * value:.2f} %"


def p_value(value: float) -> str:
    """Return a p-value with three places, and a mark where it is below 5 %."""
    text = "<0.001" if value < 0.0005 else f"{value:.3f}"
    return f"**{text}**" if value < 0.05 else text


HEAD: Final = (
    "| method | portfolio | hits | expected | Kupiec p | independence p | conditional p | zone | Z2 (p) "
    "| mean margin | greatest uncovered loss | hits at the worst hour |\n"
    "|---|---|---|---|---|---|---|---|---|---|---|---|"
)


def row_of(b: Backtest) -> str:
    """Return the line of a backtest in the table."""
    hits = exceedances(b.profits, b.var)
    n, bad = len(hits), severity(b.profits, b.var)
    test = christoffersen(hits, 1 - CONFIDENCE)
    z2 = acerbi_szekely_z2(b.profits, b.var, b.es, CONFIDENCE)
    chance = simulated_p_value(simulated_z2(n, CONFIDENCE, 20_000, 1), z2)
    worst = "none" if bad.worst is None else f"{percent(bad.max_uncovered)} ({day(int(b.starts[bad.worst]))})"
    return (
        f"| {b.method} | {b.portfolio} | {bad.hits} of {n:,} | {n * (1 - CONFIDENCE):.1f} "
        f"| {p_value(kupiec(bad.hits, n, 1 - CONFIDENCE).p_value)} | {p_value(test.independence.p_value)} "
        f"| {p_value(test.conditional.p_value)} | {traffic_light(bad.hits, n).zone.value} "
        f"| {z2:.2f} ({p_value(chance)}) | {percent(float(b.var.mean()))} | {worst} "
        f"| {int(exceedances(b.lowest, b.var).sum())} |"
    )


def event_rows(found: Sequence[Backtest]) -> list[str]:
    """Return the exceedances of the months of crashes, one line for each method and month."""
    out = [
        "| month | method | portfolio | hits | loss over margin, by window |",
        "|---|---|---|---|---|",
    ]
    for name in EVENTS:
        for b in found:
            inside = np.array([month(int(t)) == name for t in b.starts])
            hits = exceedances(b.profits, b.var) & inside
            if not hits.any():
                continue
            listed = ", ".join(
                f"{day(int(b.starts[i]))} {percent(-b.profits[i])} over {percent(b.var[i])}"
                for i in np.flatnonzero(hits)
            )
            out.append(f"| {name} | {b.method} | {b.portfolio} | {int(hits.sum())} | {listed} |")
    return out


def month_rows(found: Sequence[Backtest]) -> list[str]:
    """Return hits of each month of crashes by method, all portfolios in one line."""
    names = list(dict.fromkeys(b.method for b in found))
    out = [
        f"| month | portfolio | worst window | {' | '.join(names)} |",
        f"|---|---|---|{'---|' * len(names)}",
    ]
    for name in EVENTS:
        for portfolio in PORTFOLIOS:
            of = [b for b in found if b.portfolio == portfolio]
            inside = np.flatnonzero([month(int(t)) == name for t in of[0].starts])
            worst = int(inside[np.argmin(of[0].profits[inside])])
            hits = [str(int(exceedances(b.profits[inside], b.var[inside]).sum())) for b in of]
            loss = percent(-float(of[0].profits[worst]))
            out.append(
                f"| {name} | {portfolio} | {loss} on {day(int(of[0].starts[worst]))[8:]} "
                f"| {' | '.join(hits)} |"
            )
    return out


def ranking_rows(found: Sequence[Backtest]) -> list[str]:
    """Return the mean score of each method by portfolio, and the test against the best."""
    names = list(dict.fromkeys(b.method for b in found))
    out = [f"| portfolio | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
    for portfolio in PORTFOLIOS:
        of = [b for b in found if b.portfolio == portfolio]
        scores = [fissler_ziegel(b.profits, b.var, b.es, CONFIDENCE) for b in of]
        means = [float(s.mean()) for s in scores]
        best = int(np.argmin(means))
        lags = ceil(len(scores[0]) ** (1 / 3))
        cells = [
            f"**{means[i]:.3f}**"
            if i == best
            else f"{means[i]:.3f} ({p_value(diebold_mariano(s, scores[best], lags).p_value)})"
            for i, s in enumerate(scores)
        ]
        out.append(f"| {portfolio} | {' | '.join(cells)} |")
    return out


def cycle(margin: Floats, segment: NDArray[np.int64]) -> tuple[float, dict[int, float], float]:
    """Return peak to trough, calls and cost; a call does not span the gap of the data."""
    whole = procyclicality(margin)
    calls = {n: max(worst_call(margin[segment == s], n) for s in np.unique(segment)) for n in whole.calls}
    return whole.peak_to_trough, calls, whole.cost


def cycle_rows(days: Days, found: Sequence[Backtest]) -> list[str]:
    """Return the measures of procyclicality of long ETH, by method and by tool."""
    of = {b.method: b for b in found if b.portfolio == "long ETH"}
    margins = {name: b.var for name, b in of.items()}
    base = of["EWMA-FHS"]
    rows = np.searchsorted(days.starts, base.starts)
    eth = days.returns[:, 0]
    # Short over long volatility as known at the start of each window.
    short = np.array([sqrt(ewma_variance(eth[r - LOOKBACK : r])[-1]) for r in rows])
    long = np.array([eth[r - LOOKBACK : r].std() for r in rows])
    ever = np.array([normal_tail(CONFIDENCE).var * eth[max(0, r - 3_650) : r].std() for r in rows])
    ratio = short / long
    plain = margins["EWMA-FHS"]
    rule = adjusted(margins["historical"], ratio, np.zeros(len(ratio)))
    margins |= {
        "EWMA-FHS, buffer of 25 %": buffered(plain, ratio >= 1.25),
        "EWMA-FHS, 25 % stressed": stressed_weight(plain, np.maximum.accumulate(plain)),
        "EWMA-FHS, floor of ten years": floored(plain, ever),
        f"historical, by rule ({len(rule.history)} changes)": rule.margin,
    }
    out = [
        "| margin | peak to trough | worst call, 1 day | 5 days | 30 days | mean margin | hits |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, margin in margins.items():
        ratio_, calls, cost = cycle(margin, base.segment)
        steps = " | ".join(percent(value) for value in calls.values())
        hits = int(exceedances(base.profits, margin).sum())
        out.append(f"| {name} | {ratio_:.2f} | {steps} | {percent(cost)} | {hits} |")
    return out


# ----------------------------------------------------------------------------------------------------- output

LINES: Final[Mapping[str, str]] = {
    "historical": "#0072b2",
    "EWMA-FHS": "#e69f00",
    "scan ±15 %": "#66717f",
}
"""Methods that the figure shows, and their colours."""

_WIDE, _HIGH, _LEFT, _TOP, _SCALE = 1_040, 420, 46, 34, 0.5


def picture(days: Days, found: Sequence[Backtest]) -> str:
    """Return margin and losses of long ETH over time as SVG, with the exceedances of each method."""
    of = {b.method: b for b in found if b.portfolio == "long ETH" and b.method in LINES}
    any_of = next(iter(of.values()))
    first, last = int(any_of.starts[0]), int(any_of.starts[-1]) + 86_400

    def x(t: int) -> str:
        return f"{_LEFT + (_WIDE - _LEFT - 10) * (t - first) / (last - first):.1f}"

    def y(share: float) -> str:
        return f"{_HIGH - 24 - (_HIGH - 24 - _TOP) * min(share, _SCALE) / _SCALE:.1f}"

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDE} {_HIGH}" '
        'font-family="sans-serif" font-size="11">',
        f'<rect width="{_WIDE}" height="{_HIGH}" fill="#ffffff"/>',
        f'<text x="{_LEFT}" y="18" font-weight="bold">Long ETH, windows of 24 h: daily loss (grey), '
        "margin at 99 %, and losses beyond it (dots)</text>",
    ]
    for place, (name, colour) in enumerate(LINES.items()):
        left = 600 + 140 * place
        out.append(f'<circle cx="{left}" cy="14" r="4" fill="{colour}"/>')
        out.append(f'<text x="{left + 8}" y="18">{name}</text>')
    for tenth in range(6):
        share = tenth / 10
        out.append(
            f'<line x1="{_LEFT}" x2="{_WIDE - 10}" y1="{y(share)}" y2="{y(share)}" stroke="#e8ebef"/>'
            f'<text x="{_LEFT - 6}" y="{y(share)}" text-anchor="end" dy="4">{10 * tenth} %</text>'
        )
    for year in range(2019, 2026):
        at = x(int(datetime(year, 1, 1, tzinfo=UTC).timestamp()))
        out.append(f'<text x="{at}" y="{_HIGH - 8}" text-anchor="middle">{year}</text>')
    bars = [
        f"M{x(int(t))} {y(0)}V{y(-profit)}"
        for t, profit in zip(any_of.starts, any_of.profits, strict=True)
        if profit < -0.01
    ]
    out.append(f'<path d="{"".join(bars)}" stroke="#aab4c0" fill="none"/>')
    for name, b in of.items():
        pen = []
        for i, (t, share) in enumerate(zip(b.starts, b.var, strict=True)):
            up = i == 0 or b.segment[i] != b.segment[i - 1]
            pen.append(f"{'M' if up else 'L'}{x(int(t))} {y(share)}")
        out.append(f'<path d="{"".join(pen)}" stroke="{LINES[name]}" fill="none" stroke-width="1.2"/>')
    for place, (name, b) in enumerate(of.items()):
        for i in np.flatnonzero(exceedances(b.profits, b.var)):
            # Side by side, so that a day that no method covered shows a dot of each.
            at = float(x(int(b.starts[i]))) + 5 * (place - 1)
            out.append(
                f'<circle cx="{at:.1f}" cy="{y(-b.profits[i])}" r="2.6" fill="{LINES[name]}" '
                f'stroke="#ffffff" stroke-width="0.5"><title>{name}, {day(int(b.starts[i]))}: '
                f"{percent(-b.profits[i])} over {percent(b.var[i])}</title></circle>"
            )
    return "\n".join([*out, "</svg>"]) + "\n"


def guide(days: Days, by_length: Mapping[int, Sequence[Backtest]]) -> str:
    """Return docs/coverage.md."""
    one, two = by_length[1], by_length[2]
    stretches = [one[0].starts[one[0].segment == s] for s in np.unique(one[0].segment)]
    spans = ", ".join(f"{day(int(t[0]))} to {day(int(t[-1]))} ({len(t):,} windows)" for t in stretches)
    by = {(b.method, b.portfolio): b for b in one}
    thursday = by["EWMA-FHS", "long ETH"]
    at = int(np.flatnonzero([day(int(t)) == "2020-03-12" for t in thursday.starts])[0])
    loss = percent(-thursday.profits[at])
    before, after = percent(thursday.var[at]), percent(thursday.var[at + 1])
    parts = [
        f"""# Would the margin have covered the loss?

Written by `python scripts/coverage_backtest.py` from hourly closes of ETH and BTC in USDT (one exchange,
2017-08 to 2021-06 and 2022 to 2025). Same data, same bytes.

**Set-up.** Margin period of risk 24 h, and 48 h below. A window begins at midnight UTC and the next one
where it ends: none overlap. At its start a method sees the last {LOOKBACK} daily returns and nothing later.
Where the data have a gap of months no return spans it, and testing starts again {SETTLED} days after.
Tested: {spans}.
The margin is the value at risk at 99 %, the {int(LOOKBACK * (1 - CONFIDENCE)) + 1}th worst
of {LOOKBACK} rows (order `floor(a T) + 1`, no interpolation); a *hit* is a loss greater than it. Portfolios
hold one dollar of each asset named; percentages are of that dollar. A close up to {STALE_H} h old stands
for a missing hour.

**Methods.** *delta-normal*: sample covariance, no drift. *historical*: past days as they were. *EWMA-FHS*:
past days at today's volatility, decay 0.94. *GARCH-FHS*: the same with GARCH(1,1) and t innovations, fitted
every {REFIT} windows and updated at each. *Monte-Carlo t-copula*: {DRAWS:,} draws, 4 degrees of freedom,
Kendall's tau, exponential weights, 0.005 jumps a day of -10 % ± 10 % (assumed, not estimated). *scan ±15
%*: the worse of both ways for each asset by itself, as margins of venues are; it states no shortfall, so
its own figure stands for it. For 48 h all moves are scaled by the root of two.

**Reading the tables.** p-values below 5 % are bold. The zone is Basel's for that many windows. Z2 is Acerbi
and Székely's statistic of the shortfall at 99 %: 0 if right, negative if too small; p by simulation with
normal tails, which is strict for returns like these. With this many tests some p-values fall below 5 % by
chance. The last column counts windows in which the loss at *some full hour* was greater than the margin: a
position that is liquidated on the way does not wait for midnight.

## 24 hours
""",
        HEAD,
        *map(row_of, one),
        """
![Margin and losses of long ETH](coverage.svg)

## The four crashes

Hits of each method in windows that began in the month, and the worst window of the portfolio.
""",
        *month_rows(one),
        f"""
What happened, and what it says of the methods:

- **2020-03.** In the window of 12 March ETH lost {loss} and every method failed: the year before held
  nothing like it. The greatest margin for that window was {before} (EWMA-FHS). The day after it asked
  {after}: too late for longs, and the reason why it covered shorts in the rebound of 13 and 19 March. The
  methods that are slow or fixed (delta-normal, historical, the scan) were hit on both sides.
- **2021-05.** One crash between rebounds. On short ETH the slow methods were hit four and five times in the
  month, the filtered ones once. On 19 May ETH fell twice as far as BTC, and the spread lost more than any
  statistical margin: the offset between the two is thinnest just then.
- **2022-06.** The window of 13 June was beyond every margin of long ETH and of long BTC; delta-normal was
  hit again three days later.
- **2025-10.** The fall of 10 October came out of calm: the filtered margins, and the history of a calm
  year, asked less than their mean for long ETH. The scan covered it by what it asks too much on other days.
  Closes hide what happens inside an hour: the low of that evening stands in none of them.

No method covers the first day of a crash that nothing announced. What separates them is the second day, and
what they cost on all others: the scan is rarely hit because it asks most, and it asks 30 % of a spread that
needs 6 %.

Each hit of these months:
""",
        *event_rows(one),
        """
## Which forecast was better

Mean Fissler-Ziegel score (FZ0) of value at risk and shortfall; less is better, the best is bold. In
brackets the p-value of Diebold and Mariano against the best, with Newey-West errors. The best was picked
from the same data, so a p-value just below 5 % proves little.
""",
        *ranking_rows(one),
        """
## Procyclicality

Long ETH, 24 h. Calls are rises of the margin within so many days, none across the gap. Tools are those of
EMIR (Regulation 153/2013, article 28) on the margin that needs them most: a buffer of 25 % that may be used
while the short volatility is 1.25 times the long one or more; a weight of 25 % on the highest margin so
far; a floor by the volatility of all days so far, ten years at most. The last line is the historical margin
moved by the rule of `AdjustmentRule` on the same ratio; crowding is 0, for these data have no open
interest.
""",
        *cycle_rows(days, one),
        """
The filtered margins follow the days best and are the worst to be surprised by: a call of more than twice
the mean margin in one day. No tool takes that call away. The buffer softens it a little; the floor and the
stressed weight bring peak to trough down to a third, because they hold the margin up in calm; and each is
paid for in mean margin, of which the last two columns are the price and what it buys.

## 48 hours
""",
        HEAD,
        *map(row_of, two),
        """
Half as many windows, so each test says less. A scan of 15 % that is hit too rarely in a day is hit too
often in two on short ETH: a fixed scan belongs to its margin period.
""",
    ]
    return "\n".join(parts)


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, test, print, write."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--data", type=Path, default=DATA, help="folder of the real prices")
    options.add_argument("--docs", type=Path, default=ROOT / "docs", help="where to write the guide")
    given = options.parse_args(arguments)
    if not (given.data / "hourly").is_dir():
        options.error(f"no folder {given.data / 'hourly'}: the real prices are not part of this project")
    days = days_of(load(given.data))
    by_length = {length: backtest(days, length, METHODS) for length in (1, 2)}
    for length, found in by_length.items():
        print(f"\n{24 * length} hours\n\n{HEAD}")
        print("\n".join(map(row_of, found)))
    (given.docs / "coverage.md").write_text(guide(days, by_length), encoding="utf-8")
    (given.docs / "coverage.svg").write_text(picture(days, by_length[1]), encoding="utf-8")


if __name__ == "__main__":
    main()
