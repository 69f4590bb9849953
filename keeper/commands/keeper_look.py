"""``marginline keeper scan`` and ``explain``: one look at the head, without writing anything."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.markup import escape

from contracts_abi.errors import InputError
from keeper.commands.console import (
    ACTION_COLOURS,
    address_text,
    amount_text,
    health_text,
    plain_table,
    remarked_table,
    stdout_console,
)
from keeper.commands.keeper_init import address_option
from keeper.commands.keeper_setup import configured, discovery_of
from keeper.compose import Connected, connect
from keeper.decide import Decision, decide, prices_of
from keeper.explain import trigger_prices
from keeper.fees import FeePolicy, market_fees
from keeper.journal import Journal
from keeper.loop import plan_settings
from keeper.sync import MemoryScanStore
from keeper.view import HeadView
from simulation.types import Action, Asset, LiquidationPlan, MarginReport, PositionKind, Reason, Verdict

_ORDER: Final = (Action.ACT, Action.ARM, Action.HOLD, Action.LEAVE)
_UNREMARKABLE: Final = frozenset({Reason.HEALTHY, Reason.NO_DEBT})


def look(connected: Connected, accounts: Sequence[str] | None = None) -> tuple[HeadView, Decision]:
    """Read the head once and decide on accounts; on every borrower without any given."""
    config = connected.config
    if accounts is None:
        store = MemoryScanStore()
        path = config.path(config.journal.path)
        if path.exists():
            with Journal.read_only(path) as known:
                store = MemoryScanStore.of(known, connected.adapter.name)
        discovery = discovery_of(connected, store)
        discovery.advance(connected.head)
        accounts = discovery.borrowers
    view = connected.reader().read(connected.head, accounts)
    tick = connected.node.tick()
    fees = market_fees(tick.fees, FeePolicy.from_config(config.fees))
    gas_price_wei = tick.fees.next_base_fee_wei + fees.priority_fee_wei
    settings = plan_settings(config, connected.assets, gas_price_wei, view.funds_raw)
    decision = decide(
        view,
        connected.adapter,
        connected.policy(),
        settings,
        next_timestamp=view.head.timestamp,
        every=True,
    )
    return view, decision


# ----------------------------------------------------------------------------------------------------- scan


def scan(*, config_file: Path, list_all: bool, as_json: bool) -> None:
    """List what the policy would do with every borrower."""
    connected = connect(configured(config_file))
    view, decision = look(connected)
    verdicts = sorted(decision.verdicts, key=_urgency)
    shown = [v for v in verdicts if list_all or v.reason not in _UNREMARKABLE]
    if as_json:
        record = {
            "block": view.head.number,
            "timestamp": view.head.timestamp,
            "borrowers": len(view.book),
            "reasons": Counter(v.reason.value for v in verdicts),
            "verdicts": [verdict_json(v) for v in shown],
            "plans": [plan_json(p) for p in decision.plans],
        }
        print(json.dumps(record))
        return
    _print_scan(stdout_console(), view, verdicts, shown, decision.plans)


def _urgency(verdict: Verdict) -> tuple[int, int, str]:
    """Sort by what is to be done, then the least healthy first, the unknown before all."""
    health = verdict.protocol_margin.health_factor_wad
    return _ORDER.index(verdict.action), -1 if health is None else health, verdict.account


def _print_scan(
    console: Console,
    view: HeadView,
    verdicts: Sequence[Verdict],
    shown: Sequence[Verdict],
    plans: Sequence[LiquidationPlan],
) -> None:
    counts = Counter(v.reason.value for v in verdicts)
    summary = ", ".join(f"{n} {reason}" for reason, n in counts.most_common()) or "nobody borrows"
    console.print(f"[bold]block {view.head.number}[/], {len(view.book)} borrowers: {summary}")
    if not shown:
        return
    by_account = {plan.account: plan_line(plan, view.book.assets) for plan in plans}
    rows = [(_cells(v, console.width), by_account.get(v.account, "")) for v in shown]
    columns = ("account", "action", "reason", "health", "at ref.", "debt")
    console.print(remarked_table(console, columns, "plan", rows, right=columns[3:]))
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


def explain(account: str, *, config_file: Path, as_json: bool) -> None:
    """Explain one account, planned for as if it were alone."""
    config = configured(config_file)
    address = address_option(account, "ACCOUNT")
    connected = connect(config)
    view, decision = look(connected, [address])
    (verdict,) = decision.verdicts
    if verdict.reason is Reason.NO_DEBT and not _positions(view):
        raise InputError(
            f"ACCOUNT: {address} has no position in {connected.adapter.layout.pool} at block "
            f"{view.head.number}",
            fix="check the address and the chain",
        )
    plan = next(iter(decision.plans), None)
    triggers = trigger_prices(view.book, 0, prices_of(view.book, view.protocol))
    if as_json:
        record = {
            "block": view.head.number,
            "timestamp": view.head.timestamp,
            **verdict_json(verdict),
            "positions": _positions(view),
            "prices": _prices_json(view),
            "liquidatable_at": triggers,
            "plan": None if plan is None else plan_json(plan),
        }
        print(json.dumps(record))
        return
    _print_explained(stdout_console(), view, verdict, plan, triggers)


def _print_explained(
    console: Console,
    view: HeadView,
    verdict: Verdict,
    plan: LiquidationPlan | None,
    triggers: Mapping[str, float | None],
) -> None:
    colour = ACTION_COLOURS[verdict.action.value]
    console.print(
        f"[bold]{verdict.account}[/] at block {view.head.number}: "
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
            _dollars(prices[symbol]["protocol_e8"]),
            _dollars(prices[symbol]["reference_e8"]),
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


def _dollars(price_e8: str | None) -> str:
    return "unknown" if price_e8 is None else f"{int(price_e8) / 1e8:,.4f}"


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
