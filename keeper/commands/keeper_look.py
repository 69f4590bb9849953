"""``marginline keeper scan`` and ``explain``: one look at the head, without writing anything."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.markup import escape

from contracts_abi.errors import InputError
from keeper.commands.console import (
    ACTION_COLOURS,
    address_text,
    amount_text,
    counted,
    health_text,
    plain_table,
    remarked_table,
    stdout_console,
)
from keeper.commands.keeper_init import address_option
from keeper.commands.keeper_setup import configured, discoveries_of
from keeper.compose import Connected, connect
from keeper.decide import Decision, decide_all, prices_of
from keeper.explain import trigger_prices
from keeper.fees import FeePolicy, market_fees
from keeper.journal import Journal
from keeper.loop import plan_settings
from keeper.sync import MemoryScanStore
from keeper.view import QUOTE, HeadView, Views
from simulation.types import Action, Asset, LiquidationPlan, MarginReport, PositionKind, Reason, Verdict

_ORDER: Final = (Action.ACT, Action.ARM, Action.HOLD, Action.LEAVE)
_UNREMARKABLE: Final = frozenset({Reason.HEALTHY, Reason.NO_DEBT})


def look(connected: Connected, accounts: Sequence[str] | None = None) -> tuple[Views, Decision]:
    """Read the head once and decide on accounts in every market; on every borrower without any given."""
    config = connected.config
    names = [market.name for market in connected.markets]
    if accounts is None:
        # A store each: in memory nothing says which market a cursor is of.
        stores = {name: MemoryScanStore() for name in names}
        path = config.path(config.journal.path)
        if path.exists():
            with Journal.read_only(path) as known:
                stores = {name: MemoryScanStore.of(known, name) for name in names}
        wanted = {}
        for name in names:
            discovery = discoveries_of(connected, stores[name])[name]
            discovery.advance(connected.head)
            wanted[name] = discovery.borrowers
    else:
        wanted = {name: tuple(accounts) for name in names}
    views = connected.reader().read_all(connected.head, wanted)
    tick = connected.node.tick()
    fees = market_fees(tick.fees, FeePolicy.from_config(config.fees))
    gas_price_wei = tick.fees.next_base_fee_wei + fees.priority_fee_wei
    settings = plan_settings(config, connected.assets, gas_price_wei, views.funds_raw)
    decision = decide_all(
        views,
        {market.name: market.adapter for market in connected.markets},
        connected.policy(),
        settings,
        next_timestamp=views.head.timestamp,
        every=True,
    )
    return views, decision


# ----------------------------------------------------------------------------------------------------- scan


def scan(*, config_file: Path, list_all: bool, as_json: bool, protocol: str | None = None) -> None:
    """List what the policy would do with every borrower, of all markets or of one."""
    connected = connect(configured(config_file))
    if protocol is not None:
        connected = replace(connected, markets=(connected.market(protocol),))
    views, decision = look(connected)
    unknown = {**views.unread, **decision.undecided}
    verdicts = sorted(decision.verdicts, key=_urgency)
    shown = [v for v in verdicts if list_all or v.reason not in _UNREMARKABLE]
    if as_json:
        record = {
            "block": views.head.number,
            "timestamp": views.head.timestamp,
            "borrowers": views.borrowers,
            "protocols": {name: len(view.book) for name, view in views.markets.items()},
            "unknown": unknown,
            "reasons": Counter(v.reason.value for v in verdicts),
            "verdicts": [verdict_json(v) for v in shown],
            "plans": [plan_json(p) for p in decision.plans],
        }
        print(json.dumps(record))
        return
    _print_scan(stdout_console(), views, verdicts, shown, decision.plans)
    for name, why in unknown.items():
        stdout_console().print(f"[red]{name} is unknown: {escape(why)}[/]", soft_wrap=True)


def _urgency(verdict: Verdict) -> tuple[int, int, str]:
    """Sort by what is to be done, then the least healthy first, the unknown before all."""
    health = verdict.protocol_margin.health_factor_wad
    return _ORDER.index(verdict.action), -1 if health is None else health, verdict.account


def _print_scan(
    console: Console,
    views: Views,
    verdicts: Sequence[Verdict],
    shown: Sequence[Verdict],
    plans: Sequence[LiquidationPlan],
) -> None:
    counts = Counter(v.reason.value for v in verdicts)
    summary = ", ".join(f"{n} {reason}" for reason, n in counts.most_common()) or "nobody borrows"
    console.print(f"[bold]block {views.head.number}[/], {counted(views.borrowers, 'borrower')}: {summary}")
    if not shown:
        if verdicts:
            console.print("[dim]nobody to act on or to hold; everybody: marginline keeper scan --all[/]")
        return
    by_account = {
        (plan.protocol, plan.account): plan_line(plan, views.markets[plan.protocol].book.assets)
        for plan in plans
    }
    # With one market its name says nothing, and 80 columns are few.
    several = len(views.markets) + len(views.unread) > 1
    columns = ("account", "action", "reason", "health", "at ref.", "debt", *(("market",) if several else ()))
    rows = [
        (
            (*_cells(v, console.width), *((v.protocol_margin.protocol,) if several else ())),
            by_account.get((v.protocol_margin.protocol, v.account), ""),
        )
        for v in shown
    ]
    console.print(remarked_table(console, columns, "plan", rows, right=columns[3:6]))
    if any(v.action is not Action.LEAVE for v in shown):
        console.print("why: marginline keeper explain ACCOUNT")


def _cells(verdict: Verdict, columns: int) -> tuple[str, ...]:
    colour = ACTION_COLOURS[verdict.action.value]
    reference = verdict.reference_margin
    return (
        address_text(verdict.account, columns),
        f"[{colour}]{verdict.action.value}[/]",
        verdict.reason.value,
        health_text(verdict.protocol_margin.health_factor_wad),
        "none" if reference is None else health_text(reference.health_factor_wad),
        _debt_text(verdict.protocol_margin),
    )


def _debt_text(margin: MarginReport) -> str:
    if margin.debt_base is None:
        return "?"
    return f"{margin.debt_base / 10**margin.base_decimals:,.0f}"


def plan_line(plan: LiquidationPlan, assets: Sequence[Asset]) -> str:
    """Return a plan as one line for people."""
    by_address = {asset.address: asset for asset in assets}
    debt, collateral = by_address[plan.debt_asset], by_address[plan.collateral_asset]
    # What matters most comes first: narrow terminals cut the end.
    line = f"repay {_tokens(plan.debt_to_cover_raw, debt)} for {_tokens(plan.seized_raw, collateral)}"
    if plan.from_inventory:
        return f"{line}, kept"
    return f"net {_tokens(plan.net_profit_raw, debt)}: {line}"


def _tokens(raw: int, asset: Asset) -> str:
    return f"{amount_text(raw, asset.decimals)} {asset.symbol}"


# -------------------------------------------------------------------------------------------------- explain


def explain(account: str, *, config_file: Path, as_json: bool, protocol: str | None = None) -> None:
    """Explain one account in every market that it is in, or in one; planned for as if it were alone.

    Raises
    ------
    InputError
        If it is in none.
    """
    config = configured(config_file)
    address = address_option(account, "ACCOUNT")
    connected = connect(config)
    if protocol is not None:
        connected = replace(connected, markets=(connected.market(protocol),))
    views, decision = look(connected, [address])
    unknown = {**views.unread, **decision.undecided}
    verdicts = {v.protocol_margin.protocol: v for v in decision.verdicts}
    there = [
        name
        for name, verdict in verdicts.items()
        if verdict.reason is not Reason.NO_DEBT or _positions(views.markets[name])
    ]
    if not there and not unknown:
        venues = " or ".join(market.adapter.venue.address for market in connected.markets)
        raise InputError(
            f"ACCOUNT: {address} has no position in {venues} at block {views.head.number}",
            fix="check the address and the chain",
        )
    plans = {plan.protocol: plan for plan in decision.plans}
    if as_json:
        # The first market's parts stand on top as well, where they are when there is no other.
        parts = [_explained_json(views.markets[n], verdicts[n], plans.get(n)) for n in there]
        print(json.dumps({**(parts[0] if parts else {}), "markets": parts, "unknown": unknown}))
        return
    for name in there:
        view = views.markets[name]
        triggers = trigger_prices(view.book, 0, prices_of(view, view.protocol))
        _print_explained(
            stdout_console(),
            view,
            verdicts[name],
            plans.get(name),
            triggers,
            several=len(connected.markets) > 1,
        )
    for name, why in unknown.items():
        stdout_console().print(f"[red]{name} is unknown: {escape(why)}[/]", soft_wrap=True)


def _explained_json(view: HeadView, verdict: Verdict, plan: LiquidationPlan | None) -> dict[str, Any]:
    return {
        "block": view.head.number,
        "timestamp": view.head.timestamp,
        **verdict_json(verdict),
        "positions": _positions(view),
        "quote": view.protocol.quote,
        "prices": _prices_json(view),
        "liquidatable_at": trigger_prices(view.book, 0, prices_of(view, view.protocol)),
        "plan": None if plan is None else plan_json(plan),
    }


def _print_explained(
    console: Console,
    view: HeadView,
    verdict: Verdict,
    plan: LiquidationPlan | None,
    triggers: Mapping[str, float | None],
    *,
    several: bool = False,
) -> None:
    colour = ACTION_COLOURS[verdict.action.value]
    console.print(
        f"[bold]{verdict.account}[/]"
        f"{f' on {verdict.protocol_margin.protocol}' if several else ''} at block {view.head.number}: "
        f"[{colour}]{verdict.action.value}[/], [bold]{verdict.reason.value}[/]",
        soft_wrap=True,
    )
    console.print(f"  {escape(verdict.detail)}", soft_wrap=True)
    columns = ("position", "asset", "amount", "at protocol", "at reference", "liquidatable at")
    table = plain_table(*columns, right=columns[2:])
    prices = _prices_json(view)
    for position in _positions(view):
        symbol = position["asset"]
        table.add_row(
            position["kind"],
            symbol,
            f"{position['amount']:,.4f}",
            _priced(prices[symbol]["protocol_e8"], view.protocol.quote),
            _priced(prices[symbol]["reference_e8"], QUOTE),
            "no price" if triggers.get(symbol) is None else f"{triggers[symbol]:,.4f}",
        )
    console.print(table)
    for asset, price in view.reference.prices.items():
        for reason in price.reasons:
            console.print(f"  reference {asset}: [red]{escape(reason)}[/]", soft_wrap=True)
    if plan is not None:
        _print_plan(console, plan, view.book.assets)


def _print_plan(console: Console, plan: LiquidationPlan, assets: Sequence[Asset]) -> None:
    by_address = {asset.address: asset for asset in assets}
    debt = by_address[plan.debt_asset]
    console.print(f"plan: {plan_line(plan, assets)}", soft_wrap=True)
    if plan.path:
        names = [by_address[plan.path[0].token_in].symbol]
        names += [f"{by_address[h.token_out].symbol} ({h.fee_pips / 10_000:g} %)" for h in plan.path]
        console.print(f"  sold {' > '.join(names)}: {_tokens(plan.proceeds_raw, debt)}", soft_wrap=True)
    console.print(
        f"  debt repaid {_tokens(plan.debt_to_cover_raw, debt)}"
        f"{' (all of it)' if plan.full else ''}, flash premium {_tokens(plan.flash_premium_raw, debt)}, "
        f"gas {plan.gas_units} units = {_tokens(plan.gas_cost_raw, debt)}",
        soft_wrap=True,
    )
    console.print(
        f"  profit {_tokens(plan.profit_raw, debt)}, after gas {_tokens(plan.net_profit_raw, debt)}; "
        f"the contract insists on {_tokens(plan.min_profit_raw, debt)}",
        soft_wrap=True,
    )


def _priced(price_e8: str | None, quote: str) -> str:
    if price_e8 is None:
        return "unknown"
    return f"{int(price_e8) / 1e8:,.4f}{'' if quote == QUOTE else f' {quote}'}"


def _positions(view: HeadView) -> list[dict[str, Any]]:
    """Return the positions of the only account of a view."""
    book = view.book
    return [
        {
            "kind": PositionKind(int(book.kind[i])).name.lower(),
            "asset": book.assets[book.asset[i]].symbol,
            "amount": float(book.amount[i]),
            "weight": float(book.weight[i]),
        }
        for i in range(int(book.row_ptr[0]), int(book.row_ptr[1]))
    ]


# ----------------------------------------------------------------------------------------------------- JSON


def text_of(value: int | None) -> str | None:
    """Return an exact integer as JSON text: numbers lose digits beyond 2**53 in most readers."""
    return None if value is None else str(value)


def _prices_json(view: HeadView) -> dict[str, dict[str, str | None]]:
    return {
        asset.symbol: {
            "protocol_e8": text_of(view.protocol.price_e8(asset.symbol)),
            "reference_e8": text_of(view.reference.price_e8(asset.symbol)),
        }
        for asset in view.book.assets
    }


def verdict_json(verdict: Verdict) -> dict[str, Any]:
    """Return a verdict as JSON; health factors are text."""
    reference = verdict.reference_margin
    return {
        "protocol": verdict.protocol_margin.protocol,
        "account": verdict.account,
        "action": verdict.action.value,
        "reason": verdict.reason.value,
        "status": verdict.protocol_margin.status.value,
        "health_factor_wad": text_of(verdict.protocol_margin.health_factor_wad),
        "reference_health_factor_wad": None if reference is None else text_of(reference.health_factor_wad),
        "detail": verdict.detail,
    }


def plan_json(plan: LiquidationPlan) -> dict[str, Any]:
    """Return a plan as JSON; amounts are text."""
    return {k: str(v) if k.endswith("_raw") else v for k, v in asdict(plan).items()}
