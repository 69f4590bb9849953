"""``marginline margin cross``: margin of one owner over several protocols, by what money can still do."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
from rich.console import Console
from rich.markup import escape

from contracts_abi.errors import InputError, UnknownNameError
from keeper.commands.console import LateBar, plain_table, print_whole, stderr_console, stdout_console
from simulation.book.health import token_prices
from simulation.book.load import load_book
from simulation.book.types import SharedBook
from simulation.contagion.prices import build
from simulation.contagion.prices.streams import path_seeds
from simulation.margin.cross.account import CrossAccount, cross_accounts
from simulation.margin.cross.excess import venue_names
from simulation.margin.cross.links import (
    CLASSES,
    DEFAULT_LINKS,
    RESERVE,
    LinkClass,
    Links,
    links_of,
    parse_links,
)
from simulation.margin.cross.paths import (
    Course,
    Hidden,
    PathRequirement,
    Rule,
    course_of,
    hidden_by,
    path_requirement,
)
from simulation.margin.cross.scenarios import ScenarioFile, Scenarios, parse_scenarios, scenarios_of
from simulation.margin.cross.stress import there_and_back

_REQUIREMENTS: Final = ("isolated", "cross", "cross_protocol", "portfolio")
_WORDS: Final = {
    "isolated": "isolated",
    "cross": "cross (G)",
    "cross_protocol": "cross-protocol (C)",
    "portfolio": "portfolio (N)",
}
_SILENT: Final = {
    "isolated": "nothing beyond its scenarios",
    "cross": "that a protocol's own positions may not offset on the way",
    "cross_protocol": "links and keeper that fail otherwise than in its scenarios",
    "portfolio": "that each protocol liquidates alone",
}
_SHOWN_PATHS_UP_TO: Final = 20
"""Wallets whose paths are simulated when none is named: each takes a part of a second."""


def cross(
    path: Path,
    *,
    wallets: Sequence[str],
    links: Path | None,
    scenarios: Path | None,
    prices: Path | None,
    paths: int,
    steps: int,
    step_s: float,
    seed: int,
    alpha: float,
    as_json: bool,
) -> None:
    """Print what each wallet needs isolated, cross, over protocols and netted, and what that hides.

    Raises
    ------
    InputError
        If a file cannot be read or does not fit the book.
    """
    book = load_book(path)
    names = venue_names(book)
    linked = links_of(DEFAULT_LINKS if links is None else parse_links(_toml(links), str(links)), names)
    file = ScenarioFile() if scenarios is None else parse_scenarios(_toml(scenarios), str(scenarios))
    shocks = scenarios_of(file, book)
    chosen = _chosen(book, wallets)
    drawn = _drawn(book, prices, paths, steps, step_s, seed)
    rows: list[tuple[CrossAccount, PathRequirement | None, tuple[Hidden, ...]]] = []
    with LateBar(stderr_console()) as bar:
        detailed = bool(wallets) or len(chosen) <= _SHOWN_PATHS_UP_TO
        for account, w in zip(
            cross_accounts(book, linked, shocks, chosen, name_binding=detailed, progress=bar.update),
            chosen,
            strict=True,
        ):
            over: PathRequirement | None = None
            hidden: tuple[Hidden, ...] = ()
            if detailed and account.capital is not None and account.protocols:
                course = _course(book, w, linked, shocks, drawn, step_s)
                over = path_requirement(course, alpha=alpha) if course is not None else None
                hidden = _hidden(account, course) if course is not None else ()
            rows.append((account, over, hidden))
    if as_json:
        print(json.dumps(_record(book, linked, shocks, rows, drawn is not None), allow_nan=False))
        return
    _show(stdout_console(), linked, shocks, rows)


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}", fix="give a TOML file") from None
    except ValueError as error:
        raise InputError(f"{path}: is no TOML: {error}", fix="mend the file") from None


def _chosen(book: SharedBook, wallets: Sequence[str]) -> list[int]:
    place = {name: i for i, name in enumerate(book.wallets)}
    for name in wallets:
        if name not in place:
            raise UnknownNameError("wallet", name, book.wallets, listed="see the book's accounts")
    if not book.wallets:
        raise InputError("the book has no accounts", fix="add an account")
    return [place[name] for name in dict.fromkeys(wallets)] or list(range(len(book.wallets)))


def _drawn(
    book: SharedBook, prices: Path | None, paths: int, steps: int, step_s: float, seed: int
) -> Any | None:
    """Return random paths of all tokens, or None where a file names no process."""
    if prices is None:
        return None
    table = _toml(prices)
    symbols = tuple(token.symbol for token in book.tokens)
    try:
        process = build(table.get("prices", table), symbols, token_prices(book), prices.parent)
    except InputError as error:
        raise InputError(f"{prices}: {error.message}", fix=error.fix) from None
    return process.paths(path_seeds(seed, 0, paths), steps, step_s)


def _course(
    book: SharedBook, wallet: int, links: Links, shocks: Scenarios, drawn: Any | None, step_s: float
) -> Course | None:
    if drawn is not None:
        return course_of(book, wallet, links, drawn, step_s)
    stress = there_and_back(book, shocks)
    if not stress.names:
        return None
    return course_of(book, wallet, links, stress.prices, stress.step_s, seen=stress.seen)


def _hidden(account: CrossAccount, course: Course) -> tuple[Hidden, ...]:
    """Return what each requirement meets, its capital placed as it has it; netted capital stands pro rata."""
    capital = account.capital
    assert capital is not None
    alone = np.array(account.alone)
    pro_rata = alone * (capital.netted / capital.gross) if capital.gross > 0 else alone
    placements = [
        ("isolated", np.array(account.isolated_at), 0.0, False),
        ("cross", alone, 0.0, False),
        ("cross_protocol", capital.placed, capital.reserve, True),
        ("portfolio", pro_rata, 0.0, False),
    ]
    return hidden_by(course, placements, Rule())


def _record(
    book: SharedBook,
    links: Links,
    shocks: Scenarios,
    rows: Iterable[tuple[CrossAccount, PathRequirement | None, tuple[Hidden, ...]]],
    drawn: bool,
) -> dict[str, Any]:
    return {
        "book": book.source,
        "scenarios": [
            {"name": name, "kind": str(kind)} for name, kind in zip(shocks.names, shocks.kinds, strict=True)
        ],
        "links": _link_rows(links),
        "paths": "drawn" if drawn else "there and back",
        "accounts": [
            account.record()
            | {
                "over_paths": None if over is None else asdict(over),
                "hidden": [asdict(one) | {"silent_about": _SILENT[one.requirement]} for one in hidden],
            }
            for account, over, hidden in rows
        ],
    }


def _link_rows(links: Links) -> list[dict[str, Any]]:
    sources = (*links.names, RESERVE)
    return [
        {
            "from": sources[q],
            "to": target,
            "class": str(kind),
            "haircut": float(links.haircut[q, p]),
            "latency_s": float(links.latency_s[q, p]),
            "capacity": None if np.isinf(links.capacity[q, p]) else float(links.capacity[q, p]),
        }
        for q in range(len(sources))
        for p, target in enumerate(links.names)
        if (kind := links.kind[q][p]) is not None
    ]


def _whole(value: float) -> str:
    """Return whole dollars: figures of stresses have no cents."""
    return f"{value if abs(value) >= 0.5 else 0.0:,.0f}"


def _show(
    console: Console,
    links: Links,
    shocks: Scenarios,
    rows: Sequence[tuple[CrossAccount, PathRequirement | None, tuple[Hidden, ...]]],
) -> None:
    used = sorted({kind for row in links.kind for kind in row if kind is not None}, key=list(LinkClass).index)
    text = ", ".join(f"{kind} ({CLASSES[kind].meaning})" for kind in used) or "none"
    console.print(f"[dim]{len(shocks)} scenarios; links: {escape(text)}[/]", soft_wrap=True)
    console.print("[dim]Capital in dollars beside what the account has[/]", soft_wrap=True)
    if len(rows) > 1:
        columns = ("wallet", "venues", "isolated", "cross", "cross-protocol", "portfolio", "offset")
        table = plain_table(*columns, right=columns[1:])
        for account, _, _ in rows:
            c = account.capital
            note = " (options not counted)" if account.options else ""
            cells = [escape(account.wallet) + note, str(len(account.protocols))]
            if c is None:
                cells += ["unknown", "", "", "", ""]
            else:
                cells += [_whole(x) for x in (account.isolated, c.gross, c.required, c.netted)]
                cells.append(f"{c.offset:.0%}" if c.gross > c.netted else "-")
            table.add_row(*cells)
        print_whole(console, table)
    detailed = len(rows) <= _SHOWN_PATHS_UP_TO
    for account, over, hidden in rows:
        if detailed or hidden:
            _show_one(console, account, over, {one.requirement: one for one in hidden})


def _print_rows(console: Console, heads: Sequence[str], rows: Sequence[tuple[Sequence[str], str]]) -> None:
    """Print rows of figures and, at their ends, words; where those have no room they go below."""
    table = plain_table(*heads, right=heads[1:-1])
    for cells, words in rows:
        table.add_row(*cells, escape(words))
    print_whole(console, table)


def _show_one(
    console: Console, account: CrossAccount, over: PathRequirement | None, hidden: dict[str, Hidden]
) -> None:
    console.print(f"\n[bold]{escape(account.wallet)}[/]")
    if account.options:
        console.print("[yellow]has options, which are not counted here[/]")
    if account.capital is None:
        console.print(f"[yellow]unknown: {escape(account.reason)}[/]", soft_wrap=True)
        return
    capital = account.capital
    lines: list[tuple[tuple[str, ...], str]] = []
    for name, now, alone, at, worst in zip(
        account.protocols, account.now, account.alone, capital.placed, account.worst, strict=True
    ):
        colour = "red" if now < 0 else "default"
        shown = f"[{colour}]{_whole(now)}[/]"
        lines.append(((escape(name), shown, _whole(alone), _whole(float(at))), worst))
    lines.append(((RESERVE, "", "", _whole(capital.reserve)), ""))
    heads: tuple[str, ...] = ("protocol", "excess now", "needs alone", "C stands here")
    _print_rows(console, (*heads, "worst scenario"), lines)

    heads = ("requirement", "capital", "freed", "breached", "worst loss", "hedge", "unseen")
    amount = {
        "isolated": account.isolated,
        "cross": capital.gross,
        "cross_protocol": capital.required,
        "portfolio": capital.netted,
    }
    lines = []
    for name in _REQUIREMENTS:
        cells = [_WORDS[name], _whole(amount[name]), _whole(account.isolated - amount[name])]
        if name in hidden:
            met = hidden[name]
            cells += [f"{met.breached:.0%}", *map(_whole, (met.worst_loss, met.worst_hedge, met.unseen))]
        else:
            cells += [""] * 4
        lines.append((tuple(cells), _SILENT[name]))
    _print_rows(console, (*heads, "silent about"), lines)
    offset = (
        f"{capital.offset:.1%}" if capital.gross > capital.netted else "-, as no protocol offsets another"
    )
    console.print(f"recognised offset {offset}", soft_wrap=True)
    if account.binding:
        name, relief = account.binding[0]
        console.print(f"binding: {escape(name)}; without it {_whole(relief.saved)} less", soft_wrap=True)
    elif account.binding is not None and capital.required - capital.netted > 1e-6 * capital.gross:
        console.print("binding: no limit alone, several together", soft_wrap=True)
    if over is not None:
        console.print(
            f"over paths: clairvoyant {_whole(over.clairvoyant)}, causal {_whole(over.causal)} "
            f"({over.in_place:.0%} of it in place), netted {_whole(over.netted)}, gross {_whole(over.gross)}",
            soft_wrap=True,
        )
