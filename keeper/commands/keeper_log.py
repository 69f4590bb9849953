"""What a running keeper says: one line per thing that happened, for people or for machines.

For people a head is worth a line when it changed something; otherwise a heartbeat now and then shows that the
keeper is alive. For machines every event is one JSON line on standard output.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from rich.console import Console
from rich.text import Text

from keeper.clock import Clock
from keeper.commands.console import ACTION_COLOURS, address_text, amount_text
from simulation.types import Asset, Reason

HEARTBEAT_S: Final = 60.0
"""Quiet time after which a head is told of although nothing changed."""

VERDICT_LINES: Final = 8
"""Most lines about single accounts at one head; the head's line counts all of them."""

_UNREMARKABLE: Final = frozenset({Reason.HEALTHY.value, Reason.NO_DEBT.value})
_GOOD: Final = frozenset({"mined", "confirmed", "liquidate"})
_BAD: Final = frozenset(
    {
        "reverted",
        "abandoned",
        "stuck",
        "unfunded",
        "foreign_nonce",
        "deep_reorganisation",
        "protocol_price_wrongly_low",
        "simulation_failed",
    }
)
_COLUMNS: Final = 80
"""Addresses are always written short in the log: its lines are read in columns."""


def json_line(event: str, fields: Mapping[str, Any]) -> None:
    """Write one event as one JSON line on standard output."""
    print(json.dumps({"event": event, **fields}), flush=True)


class RunLog:
    """Writes events for people.

    Parameters
    ----------
    console
        Where to; colours are its own matter.
    clock
        Stamps the lines and times the heartbeat.
    assets
        The market's assets by address, so that amounts read as tokens.
    base_decimals
        Scale of a market's base currency, by its name; with several, lines about accounts name the market.
    """

    def __init__(
        self,
        console: Console,
        clock: Clock,
        assets: Mapping[str, Asset],
        *,
        base_decimals: Mapping[str, int] | None = None,
    ) -> None:
        self._console = console
        self._clock = clock
        self._assets = assets
        self._base_decimals = base_decimals or {}
        self._reasons: Mapping[str, int] | None = None  # None before the first head, which is always told
        self._spoken_at = clock.monotonic()
        self._quiet_heads = 0
        self._limits: set[tuple[str, str | None]] = set()
        self._verdicts = 0

    def __call__(self, event: str, fields: Mapping[str, Any]) -> None:
        """Write an event, or leave it out when it says nothing new."""
        writer: Callable[[Mapping[str, Any]], Text | None] | None = getattr(self, f"_on_{event}", None)
        if writer is None:
            text: Text | None = _labelled(event, "bold", _plain(fields))
        else:
            text = writer(fields)
        if text is not None:
            self._write(text)

    def _write(self, text: Text) -> None:
        stamp = time.strftime("%H:%M:%S", time.localtime(self._clock.now()))
        self._console.print(Text.assemble((stamp, "dim"), "  ", text), soft_wrap=True)
        self._spoken_at = self._clock.monotonic()
        self._quiet_heads = 0

    # -- the run as a whole

    def _on_ready(self, fields: Mapping[str, Any]) -> Text:
        style = "bold magenta" if fields["mode"] == "live" else "bold"
        sender = str(fields["sender"])
        return Text.assemble(
            ("ready", "bold green"),
            "  mode ",
            (str(fields["mode"]), style),
            f", block {fields['block']}",
            f", sender {sender}" if int(sender, 16) else ", without a contract",
        )

    def _on_stopped(self, fields: Mapping[str, Any]) -> Text:
        return Text("stopped", "bold")

    def _on_failed(self, fields: Mapping[str, Any]) -> Text:
        return _labelled("failed", "bold red", str(fields["error"]))

    def _on_report(self, fields: Mapping[str, Any]) -> Text:
        intents = ", ".join(f"{n} {state}" for state, n in fields["intents"].items()) or "none"
        return _labelled("report", "bold", f"{fields['borrowers']} borrowers; intents: {intents}")

    def _on_trouble(self, fields: Mapping[str, Any]) -> Text:
        count = fields.get("failures", 1)
        again = f" ({count} attempts failed so far)" if count > 1 else ""
        return _labelled("trouble", "bold red", f"{fields['error']}{again}")

    def _on_recovered(self, fields: Mapping[str, Any]) -> Text:
        return _labelled(
            "recovered",
            "bold green",
            f"after {fields['failures']} failed attempts in {fields['seconds']:.0f} s",
        )

    def _on_job_failed(self, fields: Mapping[str, Any]) -> Text:
        return _labelled("trouble", "bold red", f"{fields['job']}: {fields['error']}")

    # -- a head

    def _on_head(self, fields: Mapping[str, Any]) -> Text | None:
        reasons = {r: n for r, n in fields["reasons"].items() if r not in _UNREMARKABLE}
        changed = reasons != self._reasons or fields["sent"] > 0
        if "limit" not in reasons:
            self._limits.clear()
        if not changed:
            self._quiet_heads += 1
            if self._clock.monotonic() - self._spoken_at < HEARTBEAT_S:
                return None
        self._reasons = reasons
        untold, self._verdicts = max(self._verdicts - VERDICT_LINES, 0), 0
        text = Text(f"block {fields['block']}", "bold" if changed else "dim")
        text.append(f"  {fields['borrowers']} borrowers", "dim")
        for reason, count in sorted(reasons.items(), key=lambda item: (-item[1], item[0])):
            text.append(", ", "dim").append(f"{count} {reason}", _style(reason))
        if not reasons:
            text.append(", nothing to do", "dim")
        if untold:
            text.append(f", {untold} verdicts not listed", "dim")
        if fields["sent"]:
            text.append(f"  sent {fields['sent']}", "bold green")
            text.append(f"  {fields['round_trips']} round trips, {fields['own_ms']} ms of our own", "dim")
        elif not changed and self._quiet_heads > 1:
            text.append(f"  ({self._quiet_heads} blocks alike)", "dim")
        return text

    def _on_verdict(self, fields: Mapping[str, Any]) -> Text | None:
        self._verdicts += 1
        if self._verdicts > VERDICT_LINES:
            return None
        reason = str(fields["reason"])
        text = Text.assemble((str(fields["action"]), ACTION_COLOURS[str(fields["action"])]))
        text.append(f"  {self._who(fields)}  ").append(reason, _style(reason))
        return text.append(f"  {' '.join(str(fields['detail']).split())}", "dim")

    def _on_waited(self, fields: Mapping[str, Any]) -> Text:
        cost = fields["cost_base"]
        scale = self._base_decimals.get(str(fields.get("protocol")), 8)
        told = "unknown" if cost is None else amount_text(int(cost), scale)
        return _labelled(
            "waited",
            "yellow",
            f"{self._who(fields)} from block {fields['armed_block']} to "
            f"{fields['block']} for the protocol's feed, which cost {told}",
        )

    def _on_sent(self, fields: Mapping[str, Any]) -> Text:
        profit = self._tokens(fields.get("debt_asset"), fields["simulated_profit_raw"])
        return _labelled(
            "sent",
            "green",
            f"{self._who(fields)} nonce {fields['nonce']}, simulated profit {profit}",
        )

    def _on_transaction(self, fields: Mapping[str, Any]) -> Text:
        kind = str(fields["kind"])
        who = self._who(fields) + " " if fields["account"] else ""
        text = _labelled(kind, _style(kind), f"{who}{fields['detail']}")
        profit_raw = fields.get("realised_profit_raw")
        if profit_raw is not None:
            text.append(f", profit {self._tokens(fields.get('debt_asset'), profit_raw)}", "bold green")
        return text

    def _who(self, fields: Mapping[str, Any]) -> str:
        """Return the account, and in which market where there are several."""
        account = address_text(fields["account"], _COLUMNS)
        return f"{account} on {fields['protocol']}" if len(self._base_decimals) > 1 else account

    def _on_market_unknown(self, fields: Mapping[str, Any]) -> Text:
        return _labelled("unknown", "bold red", f"{fields['protocol']}: {fields['error']}; nobody acts there")

    def _on_market_known(self, fields: Mapping[str, Any]) -> Text:
        return _labelled("known again", "bold green", str(fields["protocol"]))

    def _tokens(self, token: str | None, raw: str) -> str:
        asset = self._assets.get(token or "")
        return f"{raw} raw" if asset is None else f"{amount_text(int(raw), asset.decimals)} {asset.symbol}"

    def _on_limit(self, fields: Mapping[str, Any]) -> Text | None:
        # Said once, not at every head; the head's line counts the accounts that it stops.
        limit = str(fields["limit"]), fields.get("protocol")
        if limit in self._limits:
            return None
        self._limits.add(limit)
        return _labelled("limit", "bold yellow", f"limits.{fields['limit']}: {fields['detail']}")

    def _on_borrowers(self, fields: Mapping[str, Any]) -> Text:
        return _labelled("borrowers", "default", f"{fields['found']} new at block {fields['block']}")

    def _on_reorganisation(self, fields: Mapping[str, Any]) -> Text:
        return _labelled(
            "reorganised",
            "yellow",
            f"block {fields['block']} leaves the chain at {fields['common_ancestor']}",
        )

    def _on_audit(self, fields: Mapping[str, Any]) -> Text:
        missed = fields["missed"]
        if not missed:
            return _labelled("audit", "dim", f"{fields['accounts']} accounts, the screen missed none")
        return _labelled("audit", "bold red", f"the screen missed {', '.join(missed)}; please report it")

    def _on_balance(self, fields: Mapping[str, Any]) -> Text | None:
        if not fields["low"]:
            return None
        has, least = int(fields["balance_wei"]) / 1e18, int(fields["least_wei"]) / 1e18
        return _labelled("balance", "bold red", f"{has:.6f} left, limits.min_balance_eth is {least:g}")

    def _on_stalled(self, fields: Mapping[str, Any]) -> Text:
        return _labelled(
            "stalled", "bold red", f"no block after {fields['block']} for {fields['seconds']:.0f} s"
        )


def _labelled(label: str, style: str, text: str) -> Text:
    return Text.assemble((label, style), "  ", " ".join(text.split()))


def _style(name: str) -> str:
    if name in _GOOD:
        return "bold green"
    return "bold red" if name in _BAD else "yellow"


def _plain(fields: Mapping[str, Any]) -> str:
    return " ".join(f"{key}={value}" for key, value in fields.items())
