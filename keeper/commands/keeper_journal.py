"""``marginline keeper journal``: what was intended, sent and earned, and what was left alone."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from keeper.commands.console import ACTION_COLOURS, address_text, health_text, remarked_table, stdout_console
from keeper.commands.keeper_init import address_option
from keeper.commands.keeper_look import text_of
from keeper.commands.keeper_setup import configured
from keeper.journal import Journal

_STATE_COLOURS: Final = {
    "confirmed": "green",
    "mined": "green",
    "reverted": "red",
    "cancelled": "yellow",
    "abandoned": "yellow",
}


def journal(*, config_file: Path, decisions: bool, account: str | None, as_json: bool) -> None:
    """List intents or decisions."""
    config = configured(config_file)
    only = None if account is None else address_option(account, "--account")
    with Journal.read_only(config.path(config.journal.path)) as opened:
        if decisions:
            _print_decisions(opened, only, as_json)
        else:
            _print_intents(opened, only, as_json)


def _print_decisions(opened: Journal, account: str | None, as_json: bool) -> None:
    entries = opened.decisions(account)
    if as_json:
        print(json.dumps([asdict(e) | {"health_factor_wad": text_of(e.health_factor_wad)} for e in entries]))
        return
    console = stdout_console()
    console.print(f"[bold]{len(entries)} decisions[/], one for each change of mind")
    if not entries:
        return
    rows = [
        (
            (
                str(entry.block),
                address_text(entry.account, console.width),
                f"[{ACTION_COLOURS.get(entry.action, 'default')}]{entry.action}[/]",
                entry.reason,
                health_text(entry.health_factor_wad),
            ),
            entry.detail,
        )
        for entry in entries
    ]
    columns = ("block", "account", "action", "reason", "health")
    console.print(remarked_table(console, columns, "detail", rows, right=("block", "health")))


def _print_intents(opened: Journal, account: str | None, as_json: bool) -> None:
    rows = _intent_rows(opened, account)
    if as_json:
        counts = {state.value: n for state, n in opened.counts().items()}
        print(json.dumps({"counts": counts, "intents": rows}))
        return
    console = stdout_console()
    counts = Counter(row["state"] for row in rows)
    summary = ", ".join(f"{n} {state}" for state, n in counts.items()) or "none yet"
    console.print(f"[bold]{len(rows)} intents[/]: {summary}")
    if not rows:
        return
    lines = [
        (
            (
                str(row["nonce"]),
                f"[{_STATE_COLOURS.get(row['state'], 'default')}]{row['state']}[/]",
                address_text(row["account"], console.width),
                str(row["decided_block"]),
                "" if row["mined_block"] is None else str(row["mined_block"]),
                str(row["attempts"]),
            ),
            row["note"],
        )
        for row in rows
    ]
    columns = ("nonce", "state", "account", "decided", "mined", "attempts")
    console.print(remarked_table(console, columns, "note", lines, right=("nonce", *columns[3:])))


def _intent_rows(opened: Journal, account: str | None) -> Sequence[dict[str, Any]]:
    intents = [i for i in opened.intents() if account in (None, i.account)]
    attempts = opened.attempts([i.intent_id for i in intents])
    rows = []
    for intent in intents:
        receipt = opened.receipt(intent.intent_id)
        rows.append(
            {
                "intent": intent.intent_id,
                "state": intent.state.value,
                "account": intent.account,
                "nonce": intent.nonce,
                "decided_block": intent.decided_block,
                "attempts": len(attempts.get(intent.intent_id, [])),
                "mined_block": None if receipt is None else receipt.block,
                "debt_asset": intent.debt_asset,
                "collateral_asset": intent.collateral_asset,
                "debt_to_cover_raw": text_of(intent.debt_to_cover_raw),
                "simulated_profit_raw": text_of(intent.simulated_profit_raw),
                "realised_profit_raw": None if receipt is None else text_of(receipt.realised_profit_raw),
                "gas_cost_wei": None if receipt is None else text_of(receipt.gas_cost_wei),
                "note": intent.note,
            }
        )
    return rows
