"""A volatility surface fitted to a venue's book of options: a table, and a plot of what the fit misses.

::

    python scripts/calibrate_surface.py [--data FILE] [--html FILE]

The data is a day's book summary of Deribit: prices in ether, one row per option. Same data, same bytes.
"""

from __future__ import annotations

import argparse
import csv
import math
from collections import defaultdict
from datetime import UTC, datetime
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np

from contracts_abi.errors import InputError
from simulation.portfolio.market import YEAR_S
from simulation.pricing.black76 import black76
from simulation.pricing.surface import ExpiryFit, Quotes, SurfaceFit, fit_surface
from simulation.pricing.svi import calendar, volatility
from simulation.types import Float64

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data" / "options" / "deribit_options.csv"
SETTLEMENT_HOUR: Final = 8
"""Deribit's options expire at 08:00 UTC."""


def number(text: str) -> float:
    """Return a cell's number; NaN where it is empty."""
    return float(text) if text else math.nan


def expiry_of(text: str) -> datetime:
    """Return the moment of an expiry such as ``26JAN24``."""
    return datetime.strptime(text, "%d%b%y").replace(hour=SETTLEMENT_HOUR, tzinfo=UTC)


def read_quotes(path: Path) -> tuple[list[Quotes], dict[str, Float64]]:
    """Read a book summary.

    Parameters
    ----------
    path
        A file of comma-separated values with the venue's columns.

    Returns
    -------
    tuple
        The quotes by expiry, ascending; and the venue's marks by the same labels, in units of the forward.

    Raises
    ------
    InputError
        If the file is not there or lacks a column.
    """
    if not path.is_file():
        raise InputError(f"no file {path}", fix="name a book summary with --data")
    groups: dict[str, list[dict[str, str]]] = defaultdict(list)
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            groups[row["expire_date"]].append(row)
    quotes, marks = [], {}
    for label, rows in sorted(groups.items(), key=lambda pair: expiry_of(pair[0])):
        now = max(int(row["creation_timestamp"]) for row in rows) / 1_000
        columns = {
            name: np.array([number(row[name]) for row in rows])
            for name in ("strike_price", "bid_price", "ask_price", "mark_price", "underlying_price")
        }
        quotes.append(
            Quotes(
                label,
                float(np.median(columns["underlying_price"])),
                (expiry_of(label).timestamp() - now) / YEAR_S,
                columns["strike_price"],
                np.array([row["option_type"] == "C" for row in rows]),
                columns["bid_price"],
                columns["ask_price"],
            )
        )
        marks[label] = columns["mark_price"]
    return quotes, marks


def mark_misses(fit: ExpiryFit, marks: Float64) -> Float64:
    """Return fitted value less the venue's mark of every option of the expiry, in units of the forward.

    The marks take no part in the fit, and most options of the list had no quotes on both sides.
    """
    quotes = fit.quotes
    smile = volatility(fit.fit.svi, quotes.strike)
    fitted = black76(1.0, quotes.strike / quotes.forward, smile, quotes.years, call=quotes.call)
    return np.asarray(fitted - marks)


def table(found: SurfaceFit, marks: dict[str, Float64]) -> str:
    """Return the result as text."""
    lines = [
        "expiry     days  quotes  rms vol  worst vol  within  mark rms  mark worst  least g at k        wing"
        "   a        b       rho     m       sigma",
        "                        points     points  spread        bp          bp",
    ]
    for fit in found.fits:
        svi, check = fit.fit.svi, fit.fit.butterfly
        misses = mark_misses(fit, marks[fit.quotes.label]) * 1e4
        lines.append(
            f"{fit.quotes.label:<9}{fit.quotes.years * 365:6.1f}{fit.points.k.size:8d}{fit.rms * 100:9.2f}"
            f"{np.abs(fit.residuals).max() * 100:11.2f}{fit.in_spread * 100:7.0f}%"
            f"{np.sqrt(np.mean(misses**2)):10.2f}{np.abs(misses).max():12.2f}"
            f"{check.least:9.4f} {check.at:<9.3f}{check.wing:7.3f}"
            f"  {svi.a:8.5f} {svi.b:7.4f} {svi.rho:7.3f} {svi.m:7.3f} {svi.sigma:7.4f}"
            f"{'' if check.free else '  BUTTERFLY'}{'  (gave up closeness)' if fit.fit.penalised else ''}"
        )
    lines += [f"{label}: not fitted: {reason}" for label, reason in found.refused]
    lines.append("")
    for one, two in pairwise(found.fits):
        low = max(float(fit.points.k.min()) for fit in (one, two))
        high = min(float(fit.points.k.max()) for fit in (one, two))
        (gap,) = calendar([one.fit.svi, two.fit.svi], low, high)
        state = "no calendar arbitrage" if gap.free else "CALENDAR ARBITRAGE"
        lines.append(
            f"{one.quotes.label} to {two.quotes.label}: {state} where both are quoted, k in "
            f"[{low:.2f}, {high:.2f}]: total variance grows by {gap.least:.5f} or more"
        )
    return "\n".join(lines)


# The plot: plain SVG, nothing to load.

WIDTH, HEIGHT, LEFT, RIGHT, BOTTOM = 460, 250, 48, 18, 28
INK, GRID, QUOTE, FITTED, MISS = "#1b2430", "#e8ebef", "#aab4c0", "#0072b2", "#d55e00"


class Panel:
    """Axes of one small plot, in data and in pixels.

    Attributes
    ----------
    parts
        SVG elements so far.
    """

    def __init__(self, x: tuple[float, float], y: tuple[float, float], title: str) -> None:
        self.x, self.y = x, y
        self.parts = [f'<text x="{LEFT}" y="14" class="title">{escape(title)}</text>']
        for at in np.linspace(*y, 5):
            height = self.place(x[0], at)[1]
            self.parts.append(f'<path d="M{LEFT} {height:.1f}H{WIDTH - RIGHT}" stroke="{GRID}"/>')
            self.parts.append(f'<text x="{LEFT - 5}" y="{height + 4:.1f}" class="end">{at:.3g}</text>')
        for at in np.linspace(*x, 5):
            left = self.place(at, y[0])[0]
            self.parts.append(f'<text x="{left:.1f}" y="{HEIGHT - 10}" class="mid">{at:.2f}</text>')

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Return where a point of the data goes."""
        across = (x - self.x[0]) / (self.x[1] - self.x[0])
        up = (y - self.y[0]) / (self.y[1] - self.y[0])
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - BOTTOM - 24)

    def path(self, x: Float64, y: Float64, colour: str) -> None:
        """Draw a line."""
        points = " ".join("{:.1f},{:.1f}".format(*self.place(a, b)) for a, b in zip(x, y, strict=True))
        self.parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/>')

    def bars(self, x: Float64, low: Float64, high: Float64, colour: str) -> None:
        """Draw upright bars."""
        for at, one, two in zip(x, low, high, strict=True):
            left, top = self.place(at, two)
            foot = self.place(at, one)[1]
            self.parts.append(
                f'<path d="M{left:.1f} {foot:.1f}V{top:.1f}" stroke="{colour}" stroke-width="3"/>'
            )

    def dots(self, x: Float64, y: Float64, colour: str) -> None:
        """Draw dots."""
        for at, value in zip(x, y, strict=True):
            left, top = self.place(at, value)
            self.parts.append(f'<circle cx="{left:.1f}" cy="{top:.1f}" r="2.4" fill="{colour}"/>')

    def svg(self) -> str:
        """Return the plot."""
        return f'<svg width="{WIDTH}" height="{HEIGHT}" role="img">{"".join(self.parts)}</svg>'


def panels(fit: ExpiryFit) -> str:
    """Return the two plots of an expiry: the smile over the quotes, and the residuals over the spreads."""
    points, svi = fit.points, fit.fit.svi
    ends = float(points.k.min()) - 0.02, float(points.k.max()) + 0.02
    line = np.linspace(*ends, 200)
    smile = volatility(svi, svi.forward * np.exp(line)) * 100
    low = (points.volatility - points.half_spread) * 100
    high = (points.volatility + points.half_spread) * 100
    bounds = float(min(low.min(), smile.min())), float(max(high.max(), smile.max()))
    left = Panel(ends, bounds, f"{fit.quotes.label}: volatility, %")
    left.bars(points.k, low, high, QUOTE)
    left.path(line, smile, FITTED)
    spread, miss = points.half_spread * 100, fit.residuals * 100
    reach = 1.05 * float(max(spread.max(), np.abs(miss).max()))
    right = Panel(ends, (-reach, reach), f"fitted less quoted, points; rms {fit.rms * 100:.2f}")
    right.bars(points.k, -spread, spread, QUOTE)
    right.dots(points.k, miss, MISS)
    return f"<p>{left.svg()}{right.svg()}</p>"


def page(found: SurfaceFit, marks: dict[str, Float64]) -> str:
    """Return the report: one file of HTML that loads nothing."""
    style = (
        f"body{{font:14px system-ui,sans-serif;color:{INK};margin:2em}}"
        "text{font-size:11px;fill:#66717f}.title{font-size:12px;fill:#1b2430}"
        ".end{text-anchor:end}.mid{text-anchor:middle}pre{font-size:11px;overflow-x:auto}"
    )
    return (
        "<!doctype html><html lang='en'><meta charset='utf-8'><title>Volatility surface</title>"
        f"<style>{style}</style><h1>Volatility surface</h1>"
        "<p>Raw SVI per expiry, fitted to options out of the money that are quoted on both sides. Grey: bid "
        "to ask. Blue: the slice. Orange: what it misses. Across: log-moneyness.</p>"
        f"<pre>{escape(table(found, marks))}</pre>{''.join(panels(fit) for fit in found.fits)}</html>\n"
    )


def main(arguments: list[str] | None = None) -> Any:
    """Fit, print the table, write the plot."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--data", type=Path, default=DATA, help="book summary of options")
    parser.add_argument("--html", type=Path, help="where to write the residual plot")
    options = parser.parse_args(arguments)
    try:
        quotes, marks = read_quotes(options.data)
        found = fit_surface(quotes)
    except InputError as error:
        parser.error(str(error))
    print(table(found, marks))
    if options.html is not None:
        options.html.write_text(page(found, marks), encoding="utf-8")


if __name__ == "__main__":
    main()
