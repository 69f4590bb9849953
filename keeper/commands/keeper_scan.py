"""``marginline keeper scan --method``: the accounts of a file that are under maintenance, and why."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from rich.console import Console
from rich.markup import escape

from contracts_abi.errors import InputError, MarginlineError
from keeper.commands.console import LateBar, remarked_table, stderr_console, stdout_console
from keeper.commands.keeper_look import look
from keeper.commands.keeper_setup import configured
from keeper.commands.margin_run import dollars, method_named
from keeper.compose import connect
from keeper.view import QUOTE
from simulation.margin.derive_auction import DeriveAuction, Manager
from simulation.margin.derive_exact import decided_margin
from simulation.margin.result import MarginResult, PortfolioMethod
from simulation.portfolio.chain import portfolios_of
from simulation.portfolio.instruments import Portfolio
from simulation.portfolio.load import load_book
from simulation.portfolio.market import Market
from simulation.risk.report import decision_record, record_of
from simulation.risk.screen import surely_above
from simulation.types import MarginStatus


def scan_book(method_text: str, path: Path, *, market: Path | None, list_all: bool, as_json: bool) -> None:
    """List the accounts under maintenance, the largest shortfall first, and those of which nothing is known.

    Raises
    ------
    InputError
        If file or method cannot be read.
    """
    method = method_named(method_text)
    book = load_book(path, market)
    _report(method, book.portfolios, book.market, [], list_all=list_all, as_json=as_json)


def scan_chain(
    method_text: str, config_file: Path, *, list_all: bool, as_json: bool, protocol: str | None = None
) -> None:
    """Hold every borrower of one market against a margin method, at the protocol's own prices.

    Raises
    ------
    InputError
        If configuration or method cannot be read, there are several markets and none is named, or the
        market's prices are not in US dollars.
    """
    method = method_named(method_text)
    connected = connect(configured(config_file))
    watched = connected.market(protocol)
    if watched.quote != QUOTE:
        raise InputError(
            f"{watched.name} prices in {watched.quote}, and a margin method wants {QUOTE}",
            fix="name another market with --protocol",
        )
    views, _ = look(replace(connected, markets=(watched,)))
    view = views.markets[watched.name]
    portfolios, market, unknown = portfolios_of(view.book, view.protocol)
    lost = [
        {
            "account": account,
            "shortfall": None,
            "worst": "",
            "first_bid": None,
            "standing": "unknown",
            "reason": reason,
        }
        for account, reason in unknown.items()
    ]
    _report(method, portfolios, market, lost, list_all=list_all, as_json=as_json)


def _report(
    method: PortfolioMethod,
    portfolios: Sequence[Portfolio],
    market: Market,
    unknown: Sequence[dict[str, Any]],
    *,
    list_all: bool,
    as_json: bool,
) -> None:
    """Scan accounts and print what is to be seen; `unknown` are rows of those that could not be read."""
    rows = list(unknown)
    # Who is surely above is not shown without --all, and need not be asked one by one.
    sure = [False] * len(portfolios) if list_all else surely_above(method, portfolios, market)
    asked = [portfolio for portfolio, above in zip(portfolios, sure, strict=True) if not above]
    with LateBar(stderr_console()) as bar:
        for i, portfolio in enumerate(asked):
            bar.update(f"{len(portfolios):,} accounts", i, len(asked))
            rows.append(scanned(method, portfolio, market))
    count = len(portfolios) + len(unknown)
    rows.sort(key=lambda row: (_ORDER.index(row["standing"]), -(row["shortfall"] or 0.0), row["account"]))
    shown = [row for row in rows if list_all or row["standing"] != "above"]
    if as_json:
        record = {
            "method": method.kind,
            "parameters_hash": method.parameters.hash,
            "timestamp": market.timestamp,
            "accounts": count,
            "under": sum(row["standing"] == "under" for row in rows),
            "rows": shown,
        }
        print(json.dumps(record, allow_nan=False))
        return
    _show(stdout_console(), method, rows, shown, count)


_ORDER = ("under", "unknown", "refused", "above")


def scanned(method: PortfolioMethod, portfolio: Portfolio, market: Market) -> dict[str, Any]:
    """Return what a scan says of one account, as plain data.

    Parameters
    ----------
    method, portfolio, market
        Whose margin. An account that the method refuses is ``refused`` and stops no scan.
    """
    row: dict[str, Any] = {"account": portfolio.account, "shortfall": None, "worst": "", "first_bid": None}
    try:
        result, decision = decided_margin(method, portfolio, market)
    except MarginlineError as error:
        return row | {"standing": "refused", "reason": str(error)}
    if result.status is MarginStatus.UNKNOWN:
        return row | {"standing": "unknown", "reason": result.reason}
    row |= decision_record(decision) | {
        "parameters_hash": result.parameters_hash,
        "equity": result.equity,
        "maintenance_requirement": result.maintenance_requirement,
        "maintenance": result.maintenance,
        "worst": result.worst,
    }
    exact = None if decision is None else decision.mm_wad
    by = "" if exact is None else f"; integers decide: {exact} units of 1e-18"
    by += "".join(f"; {note}" for note in result.notes)
    if result.status is not MarginStatus.LIQUIDATABLE:
        return record_of(row | {"standing": "above", "reason": f"has its maintenance margin{by}"})
    bid, why = None, ""
    try:
        bid = first_bid(method, portfolio, market)
    except InputError as error:
        why = f"; no auction starts: {error}"
    return record_of(
        row
        | {
            "standing": "under",
            # Where integers overrule the float, it has no shortfall to show.
            "shortfall": max(0.0, -result.maintenance),
            "first_bid": bid,
            "reason": _reason(result) + by + why,
        }
    )


def _reason(result: MarginResult) -> str:
    """Return in one line what takes the margin."""
    if result.equity <= 0:
        return f"the equity of {result.equity:,.0f} is gone"
    parts = {name: amount for name, amount in result.components.items() if "mtm" not in name and amount > 0}
    largest = max(parts, key=lambda name: parts[name], default="")
    detail = f"; the largest part is {largest.replace('_', ' ')} {parts[largest]:,.0f}" if largest else ""
    return f"requires {result.maintenance_requirement:,.0f} of an equity of {result.equity:,.0f}{detail}"


def first_bid(method: PortfolioMethod, portfolio: Portfolio, market: Market) -> dict[str, Any] | None:
    """Return what the first bidder of a venue's auction pays and gets; None for a method without an auction.

    Parameters
    ----------
    method, portfolio, market
        An account under maintenance, at the auction's start.

    Raises
    ------
    InputError
        If the auction cannot start.
    """
    if isinstance(method, get_args(Manager)):
        auction = DeriveAuction(manager=method)
    elif isinstance(method, DeriveAuction):
        auction = method
    else:
        return None
    started = auction.start(portfolio, market)
    view = started.view(market)
    return {
        "insolvent": started.insolvent,
        "scenario": started.scenario,
        "max_fraction": view.fmax,
        "price": view.price,
        "paid": view.price * view.fmax,
        "cash_needed": started.cash_needed(view, view.fmax),
        "fee": started.fee,
    }


def _show(
    console: Console,
    method: PortfolioMethod,
    rows: Sequence[dict[str, Any]],
    shown: Sequence[dict[str, Any]],
    count: int,
) -> None:
    columns = ("account", "", "shortfall", "worst scenario", "first bid")
    colours = {"under": "red", "above": "green", "unknown": "yellow", "refused": "yellow"}
    cells = []
    for row in shown:
        bid = row["first_bid"]
        cells.append(
            (
                (
                    escape(row["account"]),
                    f"[{colours[row['standing']]}]{row['standing']}[/]",
                    "" if row["shortfall"] is None else dollars(row["shortfall"]),
                    escape(row["worst"]),
                    "" if bid is None else f"{dollars(bid['paid'])} for {bid['max_fraction']:.1%}",
                ),
                row["reason"],
            )
        )
    if cells:
        table = remarked_table(console, columns, "reason", cells, right=("shortfall", "first bid"))
        console.print(table)
        if len(table.columns) == len(columns):
            # No room beside the table: an account without an answer must not be without its reason.
            for row in shown:
                console.print(f"[dim]{escape(row['account'])}: {escape(row['reason'])}[/]", soft_wrap=True)
    under = sum(row["standing"] == "under" for row in rows)
    other = sum(row["standing"] in ("unknown", "refused") for row in rows)
    more = f", [yellow]{other} without an answer[/]" if other else ""
    console.print(f"{count:,} accounts by {method.kind}: [bold]{under:,} under maintenance[/]{more}")
