"""``marginline margin compare``: what every margin method would demand of the same accounts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape as html_text
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.markup import escape

from keeper.commands.console import LateBar, remarked_table, require_writable, stderr_console, stdout_console
from keeper.commands.margin_run import STATUS_COLOURS, bar_text, chosen_accounts, dollars, method_named
from simulation.portfolio.load import load_book
from simulation.report.plotting import HARM, INK, MUTED, PROTOCOL
from simulation.risk.report import Compared, compared, default_methods

_COLUMNS: Final = ("equity", "initial_requirement", "maintenance_requirement", "maintenance")
_SHORT: Final = ("equity", "initial", "maintenance", "left")
"""The same for a terminal: the long names leave 80 columns no room for figures."""
_LONG: Final = ("equity", "initial requirement", "maintenance requirement", "left of maintenance")
_ROW, _BARS_LEFT, _BARS_WIDE = 30, 150, 420


def compare(
    path: Path,
    *,
    market: Path | None,
    accounts: Sequence[str],
    named: Sequence[str],
    html: Path | None,
    as_json: bool,
) -> None:
    """Print what methods say of each account, all with their own parameters by default; and write a page.

    Raises
    ------
    InputError
        If the file cannot be read, or the page cannot be written.
    """
    if html is not None:
        require_writable("--html", html)
    book = load_book(path, market)
    chosen = chosen_accounts(book, accounts)
    methods = tuple((text, method_named(text), "") for text in dict.fromkeys(named)) or default_methods()
    rows: list[Compared] = []
    with LateBar(stderr_console()) as bar:
        for i, portfolio in enumerate(chosen):
            for j, method in enumerate(methods):
                bar.update(
                    f"{portfolio.account}: {method[0]}", i * len(methods) + j, len(chosen) * len(methods)
                )
                rows += compared([method], portfolio, book.market)
    if html is not None:
        html.write_text(page(path.name, rows), encoding="utf-8")
    if as_json:
        print(json.dumps([row.record for row in rows], allow_nan=False))
        return
    console = stdout_console()
    console.print(
        "[dim]Requirements in dollars; left: equity less maintenance, below 0 it can be liquidated[/]",
        soft_wrap=True,
    )
    for portfolio in chosen:
        _show(console, [row for row in rows if row.account == portfolio.account])
    if html is not None:
        console.print(f"written: {html}", soft_wrap=True)


def _show(console: Console, rows: Sequence[Compared]) -> None:
    applied = _ordered(rows)
    console.print(f"[bold]{escape(rows[0].account)}[/]")
    largest = max((row["maintenance_requirement"] for row in applied), default=0.0)
    lines = []
    for row in applied:
        colour = STATUS_COLOURS.get(row["status"], "default")
        cells = [dollars(row[column]) for column in _COLUMNS]
        cells[-1] = f"[{colour}]{cells[-1]}[/]"
        bar = bar_text(row["maintenance_requirement"], largest, 12)
        lines.append(((escape(row["method"]), *cells, bar), row["worst"]))
    if lines:
        console.print(remarked_table(console, ("method", *_SHORT, ""), "worst scenario", lines, right=_SHORT))
    for names, reason in _silent(rows):
        console.print(f"[dim]{escape(names)}: {escape(reason)}[/]", soft_wrap=True)
    console.print()


def _silent(rows: Sequence[Compared]) -> list[tuple[str, str]]:
    """Return the methods that do not apply with their reason, those with the same one together."""
    found: dict[str, list[str]] = {}
    for row in rows:
        if row.result is None:
            # Reasons name the method themselves: once is enough, and alike ones are one line.
            reason = row.reason.removeprefix(f"{row.method}: ").removeprefix(f"{row.method} ")
            found.setdefault(reason, []).append(row.method)
    return [(", ".join(names), reason) for reason, names in found.items()]


def _ordered(rows: Sequence[Compared]) -> list[dict[str, Any]]:
    """Return the records of the methods that apply, the one that asks least first."""
    found = [row.record for row in rows if row.result is not None]
    return sorted(found, key=lambda row: (row["maintenance_requirement"], row["method"]))


# ------------------------------------------------------------------------------------------------------ page

_STYLE: Final = f"""
body {{ font-family: Inter, system-ui, sans-serif; color: {INK}; margin: 2rem auto; max-width: 62rem; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
th, td {{ padding: .25rem .75rem; text-align: right; border-bottom: 1px solid #e8ebef; }}
th:first-child, td:first-child, td.text, th.text {{ text-align: left; }}
svg {{ margin-top: 1rem; }} .liquidatable {{ color: {HARM}; }} .why {{ color: {MUTED}; }}
"""


def page(title: str, rows: Sequence[Compared]) -> str:
    """Return a page with a table and a plot for each account; it loads nothing.

    Parameters
    ----------
    title
        Name of the book.
    rows
        Of all accounts.
    """
    name = html_text(title)
    parts = [
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Margin of {name}</title>',
        f"<style>{_STYLE}</style></head><body><h1>Margin of {name} by method</h1>",
        "<p>US dollars. What is left of maintenance is equity less requirement; below 0 the account can be "
        "liquidated. Bars: maintenance requirement dark, initial requirement light, both in figures; the "
        "line is the equity.</p>",
    ]
    for account in dict.fromkeys(row.account for row in rows):
        parts += _section(account, [row for row in rows if row.account == account])
    return "\n".join([*parts, "</body></html>"]) + "\n"


def _section(account: str, rows: Sequence[Compared]) -> list[str]:
    applied = _ordered(rows)
    head = "".join(f"<th>{column}</th>" for column in _LONG)
    out = [f"<h2>{html_text(account)}</h2>"]
    out += [f'<table><tr><th>method</th>{head}<th class="text">worst scenario</th></tr>']
    for row in applied:
        cells = "".join(f"<td>{dollars(row[column])}</td>" for column in _COLUMNS)
        out.append(
            f'<tr class="{row["status"]}"><td>{html_text(row["method"])}</td>{cells}'
            f'<td class="text">{html_text(row["worst"])}</td></tr>'
        )
    out += ["</table>", plot(applied), "<ul>"]
    out += [
        f'<li class="why">{html_text(names)}: {html_text(reason)}</li>' for names, reason in _silent(rows)
    ]
    return [*out, "</ul>"]


def plot(rows: Sequence[dict[str, Any]]) -> str:
    """Return initial and maintenance requirements as bars with the equity as a line, as SVG."""
    if not rows:
        return ""
    equity: float = max(0.0, *(row["equity"] for row in rows))
    largest: float = max(equity, *(row["initial_requirement"] for row in rows), 1e-9)
    high, wide = _ROW * len(rows) + 30, _BARS_LEFT + _BARS_WIDE + 110

    def x(value: float) -> float:
        return _BARS_LEFT + _BARS_WIDE * max(0.0, value) / largest

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high}" width="{wide}" role="img" '
        'aria-label="requirements by method" font-family="sans-serif" font-size="12">'
    ]
    for i, row in enumerate(rows):
        y = _ROW * i + 6
        out.append(f'<text x="0" y="{y + 14}" fill="{INK}">{html_text(row["method"])}</text>')
        for key, opacity, tall in (("initial_requirement", 0.35, 18), ("maintenance_requirement", 1.0, 10)):
            out.append(
                f'<rect x="{_BARS_LEFT}" y="{y + (18 - tall) / 2:.1f}" height="{tall}" '
                f'width="{x(row[key]) - _BARS_LEFT:.1f}" fill="{PROTOCOL}" fill-opacity="{opacity}"/>'
            )
    place = x(equity)
    out.append(
        f'<line x1="{place:.1f}" x2="{place:.1f}" y1="0" y2="{high - 22}" stroke="{HARM}" '
        'stroke-dasharray="4 3"/>'
    )
    for i, row in enumerate(rows):
        y = _ROW * i + 6
        out.append(
            f'<text x="{x(row["initial_requirement"]) + 6:.1f}" y="{y + 14}" fill="{MUTED}" '
            # The equity's line may cross the figures: they stand on a white edge.
            'stroke="white" stroke-width="4" paint-order="stroke">'
            f"{row['maintenance_requirement']:,.0f} / {row['initial_requirement']:,.0f}</text>"
        )
    out.append(
        f'<text x="{place:.1f}" y="{high - 8}" fill="{HARM}" text-anchor="middle">equity {equity:,.0f}</text>'
    )
    return "".join([*out, "</svg>"])
