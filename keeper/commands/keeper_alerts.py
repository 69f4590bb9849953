"""Which of a keeper's events are alerts, and how they read to somebody who is not watching the log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from keeper.alerts import Alert, Alerts, Level
from simulation.types import Reason

_VERDICTS: Final = {
    Reason.PROTOCOL_PRICE_LOW.value: Level.CRITICAL,
    Reason.PROTOCOL_PRICE_STALE_HIGH.value: Level.WARNING,
    Reason.PROTOCOL_UNKNOWN.value: Level.WARNING,
    Reason.REFERENCE_UNKNOWN.value: Level.WARNING,
    Reason.ACCOUNT_UNKNOWN.value: Level.WARNING,
    Reason.SIMULATION_FAILED.value: Level.WARNING,
    Reason.PAUSED.value: Level.INFO,
    Reason.OBSERVE_ONLY.value: Level.INFO,
}
_TRANSACTIONS: Final = {
    "reverted": Level.WARNING,
    "stuck": Level.WARNING,
    "abandoned": Level.WARNING,
    "unfunded": Level.CRITICAL,
    "foreign_nonce": Level.CRITICAL,
    "deep_reorganisation": Level.CRITICAL,
}


def alert_of(event: str, fields: Mapping[str, Any]) -> Alert | None:
    """Return the alert that an event is worth, None for most.

    Alerts of one reason share a key: a crash that puts a thousand accounts on hold is one matter.
    """
    match event:
        case "verdict" if (level := _VERDICTS.get(fields["reason"])) is not None:
            text = f"{_who(fields)} at block {fields['block']}: {fields['action']}, {fields['detail']}"
            return Alert(level, fields["reason"], text, _about(fields))
        case "transaction" if (level := _TRANSACTIONS.get(fields["kind"])) is not None:
            who = _who(fields) if fields["account"] else "the key"
            about = _about(fields) if fields["account"] else {"account": who}
            return Alert(level, fields["kind"], f"{who}: {fields['detail']}", about)
        case "market_unknown":
            key = f"market.{fields['protocol']}"
            text = f"{fields['protocol']} is unknown, and nobody acts there: {fields['error']}"
            return Alert(Level.CRITICAL, key, text, {"protocol": fields["protocol"]})
        case "limit":
            where = f".{fields['protocol']}" if fields.get("protocol") else ""
            return Alert(Level.WARNING, f"limit.{fields['limit']}{where}", fields["detail"])
        case "failed":
            return Alert(Level.CRITICAL, "failed", f"the keeper ends: {fields['error']}")
        case "trouble":
            return Alert(Level.WARNING, "trouble", fields["error"])
        case "recovered":
            return Alert(
                Level.INFO, "recovered", f"{fields['failures']} failed attempts in {fields['seconds']:.0f} s"
            )
        case "stalled":
            return Alert(Level.CRITICAL, "stalled", f"no block after {fields['block']}")
        case "balance" if fields["low"]:
            return Alert(Level.CRITICAL, "balance", f"{int(fields['balance_wei']) / 1e18:.6f} left for gas")
        case "audit" if fields["missed"]:
            return Alert(
                Level.CRITICAL, "audit", f"{len(fields['missed'])} accounts were missed by the screen"
            )
        case "job_failed":
            return Alert(Level.WARNING, f"job.{fields['job']}", fields["error"])
        case _:
            return None


def _who(fields: Mapping[str, Any]) -> str:
    """Return the account and the market that it is in."""
    return (
        f"{fields['account']} on {fields['protocol']}" if fields.get("protocol") else str(fields["account"])
    )


def _about(fields: Mapping[str, Any]) -> dict[str, str | int]:
    return {name: str(fields[name]) for name in ("account", "protocol") if fields.get(name)}


class AlertListener:
    """Hands the events that are worth it to the sinks, and closes a matter when it is over."""

    def __init__(self, alerts: Alerts) -> None:
        self._alerts = alerts
        self._open: set[str] = set()

    def __call__(self, event: str, fields: Mapping[str, Any]) -> None:
        """Take one event; never waits."""
        alert = alert_of(event, fields)
        if alert is not None:
            self._alerts.send(alert)
            self._open.add(alert.key)
        if event == "head":
            self._over(self._open & _VERDICTS.keys() - fields["reasons"].keys())
        elif event == "recovered":
            self._over({"trouble"})
        elif event == "market_known":
            self._over({f"market.{fields['protocol']}"})
        elif event == "balance" and not fields["low"]:
            self._over({"balance"})

    def _over(self, keys: set[str]) -> None:
        for key in keys:
            self._alerts.resolve(key)
        self._open -= keys
