"""``marginline margin run``: everything about the accounts of a file under one margin method."""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.markup import escape

from contracts_abi.bounded_json import bounded_json
from contracts_abi.errors import InputError, MarginlineError, UnknownNameError
from keeper.commands.console import LateBar, plain_table, stderr_console, stdout_console
from simulation.margin import margin_methods
from simulation.margin.result import PortfolioMethod
from simulation.portfolio.instruments import Portfolio
from simulation.portfolio.load import MarginBook, load_book
from simulation.risk.report import full_report

STATUS_COLOURS: Final = {"healthy": "green", "no_debt": "green", "liquidatable": "red", "unknown": "yellow"}
_SHOWN_ROWS: Final = 8
LENDING_SHARES: Final = ("weighted_threshold", "weighted_ltv", "health_factor")
"""Components that are no dollars."""
_BAR: Final = 20


def method_named(text: str) -> PortfolioMethod:
    """Return a margin method.

    Parameters
    ----------
    text
        An id, with ``@`` and the name of a parameter set where the method brings several; or a ``.toml`` or
        ``.json`` file with ``kind`` and the method's own keys. Its ``parameters`` may name a ``set``: its
        other keys then stand in the place of that set's.

    Raises
    ------
    InputError
        If there is no such method or set, or it margins no portfolios.
    """
    if text.lower().endswith((".toml", ".json")):
        return _from_file(Path(text))
    kind, _, chosen = text.partition("@")
    _require_portfolio_method(kind)
    if not chosen:
        return _built({"kind": kind}, None)
    sets = getattr(margin_methods.get(kind), "parameter_sets", {})
    if chosen not in sets:
        raise UnknownNameError(f"parameter set of {kind}", chosen, sets)
    return _built({"kind": kind, "parameters": chosen}, None)


def _from_file(path: Path) -> PortfolioMethod:
    try:
        text = path.read_text(encoding="utf-8")
        config = bounded_json(text) if path.suffix.lower() == ".json" else tomllib.loads(text)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}", fix="give a method's file") from None
    except ValueError as error:
        raise InputError(f"{path}: {error}", fix="mend the file") from None
    if not isinstance(config, dict) or "kind" not in config:
        raise InputError(f"{path}: no kind", fix="add the id of a margin method; see `margin methods`")
    _require_portfolio_method(str(config["kind"]))
    return _built(_on_set(config), str(path))


def _on_set(config: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration whose parameters are those of a set and what it changes."""
    parameters = config.get("parameters")
    if not isinstance(parameters, dict) or "set" not in parameters:
        return config
    sets = getattr(margin_methods.get(str(config["kind"])), "parameter_sets", {})
    if parameters["set"] not in sets:
        raise UnknownNameError(f"parameter set of {config['kind']}", str(parameters["set"]), sets)
    own = {key: value for key, value in parameters.items() if key != "set"}
    return {**config, "parameters": sets[parameters["set"]].model_dump(mode="json") | own}


def _require_portfolio_method(kind: str) -> None:
    if not hasattr(margin_methods.get(kind), "margin"):
        raise InputError(f"{kind} margins no portfolios", fix="see `marginline margin methods`")


def _built(config: dict[str, Any], where: str | None) -> PortfolioMethod:
    method = margin_methods.build(config, where=where)
    if not isinstance(method, PortfolioMethod):
        raise InputError(f"{config['kind']} margins no portfolios", fix="see `marginline margin methods`")
    return method


def chosen_accounts(book: MarginBook, accounts: Sequence[str]) -> tuple[Portfolio, ...]:
    """Return the portfolios of some accounts, of all without names.

    Raises
    ------
    UnknownNameError
        With the nearest names.
    """
    return tuple(book.account(name) for name in accounts) or book.portfolios


def run(
    method_text: str,
    path: Path,
    *,
    market: Path | None,
    accounts: Sequence[str],
    as_json: bool,
    every: bool = False,
) -> None:
    """Print the full report of each account; of thousands of positions the largest, unless `every` is asked.

    Raises
    ------
    InputError
        If file or method cannot be read, or the method refuses every account.
    """
    method = method_named(method_text)
    book = load_book(path, market)
    chosen = chosen_accounts(book, accounts)
    reports, errors = [], []
    with LateBar(stderr_console()) as bar:
        for i, portfolio in enumerate(chosen):
            bar.update(portfolio.account, i, len(chosen))
            try:
                report = full_report(
                    method,
                    portfolio,
                    book.market,
                    tell=lambda part, i=i, name=portfolio.account: bar.update(  # type: ignore[misc]
                        f"{name}: {part}", i, len(chosen)
                    ),
                    every=every,
                )
            except MarginlineError as error:
                errors.append(error)
                report = {"account": portfolio.account, "method": method.kind, "refused": str(error)}
            reports.append(report)
    if len(errors) == len(chosen):
        raise errors[0]
    if as_json:
        print(json.dumps({"method": method.kind, "accounts": reports}, allow_nan=False))
        return
    console = stdout_console()
    for report in reports:
        _show(console, report)


# ---------------------------------------------------------------------------------------------------- people


def dollars(value: float | None) -> str:
    """Return dollars for people; an unknown amount as a question mark."""
    return "?" if value is None else f"{value:,.2f}"


def _show(console: Console, report: dict[str, Any]) -> None:
    name = escape(report["account"])
    if "refused" in report:
        console.print(f"[bold]{name}[/]  [yellow]refused[/]: {escape(report['refused'])}\n", soft_wrap=True)
        return
    colour = STATUS_COLOURS.get(report["status"], "default")
    console.print(
        f"[bold]{name}[/]  [{colour}]{report['status'].replace('_', ' ')}[/]  {report['method']}, parameters "
        f"{report['parameters_hash']}, {escape(report['grade'])}",
        soft_wrap=True,
    )
    if report["status"] == "unknown":
        console.print(f"  {escape(report['reason'])}\n", soft_wrap=True)
        return
    if report["decision"]["mm_wad"] is not None:
        units = report["decision"]["mm_wad"]
        console.print(
            f"  at the edge integers decide, {units} units of 1e-18 dollars are left", soft_wrap=True
        )
    table = plain_table("", "dollars", right=("dollars",))
    ratio = report["margin_ratio"]
    for key in ("equity", "initial_requirement", "initial", "maintenance_requirement", "maintenance"):
        bad = report[key] < 0 and key in ("initial", "maintenance", "equity")
        text = dollars(report[key])
        table.add_row(_LEFT.get(key, key.replace("_", " ")), f"[red]{text}[/]" if bad else text)
    table.add_row("margin ratio", "infinite" if ratio is None else f"{100 * ratio:.2f} %")
    console.print(table)
    if report["worst"]:
        console.print(f"worst scenario: [bold]{escape(report['worst'])}[/]")
    for note in report["notes"]:
        console.print(f"[yellow]note[/]: {escape(note)}", soft_wrap=True)
    _show_rows(console, report["scenarios"])
    _show_components(console, report["components"])
    for key, show in _PARTS:
        part = report[key]
        if isinstance(part, dict) and set(part) == {"reason"}:
            console.print(f"{key.replace('_', ' ')}: [yellow]{escape(part['reason'])}[/]", soft_wrap=True)
        else:
            show(console, part)
    console.print()


_LEFT: Final = {"initial": "left of initial margin", "maintenance": "left of maintenance margin"}


def bar_text(value: float, largest: float, width: int = _BAR) -> str:
    """Return a value as a bar, red below 0."""
    long = round(width * abs(value) / largest) if largest else 0
    return f"[{'red' if value < 0 else 'green'}]{'█' * long}[/]"


def _show_rows(console: Console, rows: list[dict[str, Any]]) -> None:
    if not rows:
        return
    worst = sorted(rows, key=lambda row: row["profit"])[:_SHOWN_ROWS]
    largest = max(abs(row["profit"]) for row in worst)
    title = "scenario" if len(rows) <= _SHOWN_ROWS else f"worst {_SHOWN_ROWS} of {len(rows)} scenarios"
    table = plain_table(title, "profit", "", right=("profit",))
    for row in worst:
        table.add_row(escape(row["label"]), dollars(row["profit"]), bar_text(row["profit"], largest))
    console.print(table)


def _show_components(console: Console, components: dict[str, float]) -> None:
    shown = {name: amount for name, amount in components.items() if amount}
    if shown:
        table = plain_table("component", "dollars", right=("dollars",))
        for name, amount in shown.items():
            share = name in LENDING_SHARES
            # Cut off, not rounded: a factor of 0.99996 can be liquidated and must not read 1.0000.
            text = f"{math.floor(amount * 10_000) / 10_000:.4f} (a ratio)" if share else dollars(amount)
            table.add_row(escape(name.replace("_", " ")), text)
        console.print(table)


def _show_greeks(console: Console, rows: list[dict[str, Any]]) -> None:
    names = ("delta", "gamma", "vega", "theta", "rho")
    table = plain_table("underlying", "expiry", *names, right=names)
    for row in rows:
        expiry = (
            "" if row["expiry"] is None else datetime.fromtimestamp(row["expiry"], UTC).date().isoformat()
        )
        # Vega and rho by a point, theta by a day: what traders read.
        scale = {"vega": 0.01, "rho": 0.01, "theta": 1 / 365}
        cells = [f"{row[name] * scale.get(name, 1.0):,.4f}" for name in names]
        table.add_row(escape(row["underlying"]), expiry, *cells)
    console.print(table)
    console.print("[dim]vega and rho by 1 %, theta by a day[/]")


def _show_contributions(console: Console, parts: dict[str, Any]) -> None:
    columns = ("initial", "maintenance", "incremental", "leave one out")
    table = plain_table("position", *columns, right=columns)
    ways = [parts[name.replace(" ", "_")] for name in columns]
    for rows in zip(*(way["positions"] for way in ways), strict=True):
        table.add_row(escape(rows[0]["position"]), *(dollars(row["amount"]) for row in rows))
    table.add_row("[dim]rest[/]", *(f"[dim]{dollars(_whole(way['rest']))}[/]" for way in ways))
    console.print(table)


def _whole(value: float) -> float:
    """Return a number without what rounding left of it, nor a minus before nothing."""
    return value if abs(value) >= 0.005 else 0.0


def _show_savings(console: Console, part: dict[str, Any]) -> None:
    console.print(
        f"isolated margin {dollars(part['isolated'])}, with netting {dollars(part['requirement'])}: "
        f"saves [bold]{dollars(part['saved'])}[/], {100 * part['share']:.1f} %"
    )


def _show_distances(console: Console, rows: list[dict[str, Any]]) -> None:
    table = plain_table("distance to liquidation", "", "move")
    for row in rows:
        colour = "dim" if not row["reached"] else "red" if row["move"] == 0 else "default"
        table.add_row(escape(row["factor"]), "up" if row["up"] else "down", f"[{colour}]{row['text']}[/]")
    console.print(table)


def _show_broken(console: Console, rows: list[dict[str, Any]]) -> None:
    columns = ("liquidated", "defaulted")
    table = plain_table("maintenance left without this leg", *columns, "", right=columns)
    for row in rows:
        table.add_row(
            escape(row["leg"]),
            *(f"[{'red' if row[c] < 0 else 'default'}]{dollars(row[c])}[/]" for c in columns),
            "[red]takes the rest[/]" if row["takes_the_rest"] else "",
        )
    console.print(table)


def _show_restore(console: Console, part: dict[str, Any]) -> None:
    if not part["deposit"]:
        return
    missing = f"[red]missing: {dollars(part['deposit'])}[/]"
    if not part["trades"]:
        console.print(f"{missing}; no trade of a single position at the mark brings it back")
        return
    console.print(f"{missing}; or one of these trades at the mark")
    table = plain_table("trade", "quantity", "notional", right=("quantity", "notional"))
    for row in part["trades"]:
        table.add_row(escape(row["instrument"]), f"{row['quantity']:+,.4f}", dollars(row["notional"]))
    console.print(table)


_PARTS: Final = (
    ("greeks", _show_greeks),
    ("contributions", _show_contributions),
    ("savings", _show_savings),
    ("distance", _show_distances),
    ("broken_hedges", _show_broken),
    ("restore", _show_restore),
)
