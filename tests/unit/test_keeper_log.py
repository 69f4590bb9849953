"""What a running keeper says: little, on one line each, and at once what somebody must know."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any

import pytest
from rich.console import Console

from keeper.alerts import Alert, Alerts, Level
from keeper.clock import ManualClock
from keeper.commands.keeper_alerts import AlertListener, alert_of
from keeper.commands.keeper_log import HEARTBEAT_S, VERDICT_LINES, RunLog, json_line
from keeper.outage import Outage
from keeper.submit import TxEventKind
from simulation.types import Asset, Reason

ACCOUNT = "0xCDDD185eF0dfa63d89B4b90bBB5183CaD2509427"
USDC = Asset("USDC", "0x3AC8808b4205c13d3A68BaF0B40d4FfeA02F62dE", 6)


def head(block: int = 7, *, sent: int = 0, **reasons: int) -> dict[str, Any]:
    return {
        "block": block,
        "borrowers": 200,
        "examined": 3,
        "reasons": reasons,
        "sent": sent,
        "round_trips": 3,
        "own_ms": 12.3,
    }


def verdict(account: str = ACCOUNT, reason: str = "protocol_price_wrongly_low") -> dict[str, Any]:
    return {
        "block": 7,
        "account": account,
        "action": "hold",
        "reason": reason,
        "health_factor_wad": "1",
        "detail": "two words\nand [brackets]",
    }


class Told:
    """A log and its lines, without their time stamps."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self._stream = io.StringIO()
        console = Console(file=self._stream, width=60)
        self.log = RunLog(console, self.clock, {USDC.address: USDC})

    def lines(self) -> list[str]:
        return [line[10:] for line in self._stream.getvalue().splitlines()]


EVENTS: list[tuple[str, Mapping[str, Any], str]] = [
    (
        "ready",
        {"mode": "live", "block": 7, "sender": ACCOUNT},
        f"ready  mode live, block 7, sender {ACCOUNT}",
    ),
    ("stopped", {"mode": "live"}, "stopped"),
    ("borrowers", {"block": 7, "found": 3}, "borrowers  3 new at block 7"),
    ("trouble", {"error": "no  answer", "failures": 1}, "trouble  no answer"),
    ("trouble", {"error": "no answer", "failures": 9}, "trouble  no answer (9 attempts failed so far)"),
    ("recovered", {"failures": 9, "seconds": 4.6}, "recovered  after 9 failed attempts in 5 s"),
    ("stalled", {"block": 7, "seconds": 61.0}, "stalled  no block after 7 for 61 s"),
    ("job_failed", {"job": "report", "error": "it broke"}, "trouble  report: it broke"),
    (
        "limit",
        {"limit": "min_balance_eth", "detail": "1 wei left"},
        "limit  limits.min_balance_eth: 1 wei left",
    ),
    (
        "balance",
        {"balance_wei": "10000000000000000", "least_wei": "50000000000000000", "low": True},
        "balance  0.010000 left, limits.min_balance_eth is 0.05",
    ),
    ("audit", {"block": 7, "accounts": 9, "missed": []}, "audit  9 accounts, the screen missed none"),
    (
        "audit",
        {"block": 7, "accounts": 9, "missed": [ACCOUNT]},
        f"audit  the screen missed {ACCOUNT}; please report it",
    ),
    (
        "reorganisation",
        {"block": 7, "common_ancestor": 5},
        "reorganised  block 7 leaves the chain at 5",
    ),
    (
        "report",
        {"intents": {"confirmed": 2}, "borrowers": 200},
        "report  200 borrowers; intents: 2 confirmed",
    ),
    (
        "sent",
        {"account": ACCOUNT, "nonce": 3, "debt_asset": USDC.address, "simulated_profit_raw": "4130700000"},
        "sent  0xCDDD…9427 nonce 3, simulated profit 4,130.70 USDC",
    ),
    (
        "transaction",
        {
            "kind": "confirmed",
            "account": ACCOUNT,
            "intent": "0x1",
            "detail": "block 8",
            "debt_asset": USDC.address,
            "realised_profit_raw": "4130700000",
        },
        "confirmed  0xCDDD…9427 block 8, profit 4,130.70 USDC",
    ),
    (
        "transaction",
        {"kind": "foreign_nonce", "account": None, "intent": None, "detail": "the key was used elsewhere"},
        "foreign_nonce  the key was used elsewhere",
    ),
    (
        "waited",
        {"account": ACCOUNT, "armed_block": 5, "block": 7, "cost_base": "12300000000"},
        "waited  0xCDDD…9427 from block 5 to 7 for the protocol's feed, which cost 123.00",
    ),
    ("something_new", {"a": 1, "b": "c"}, "something_new  a=1 b=c"),
]


@pytest.mark.parametrize(
    ("event", "fields", "line"), EVENTS, ids=[f"{i}-{e[0]}" for i, e in enumerate(EVENTS)]
)
def test_an_event_is_one_line_however_narrow_the_terminal(
    event: str, fields: Mapping[str, Any], line: str
) -> None:
    told = Told()
    told.log(event, fields)
    assert told.lines() == [line]


def test_a_head_is_told_when_it_changed_something() -> None:
    told = Told()
    told.log("head", head(0, healthy=3))
    told.log("head", head(1, healthy=3))
    told.log("head", head(2, healthy=2, unprofitable=1))
    told.log("head", head(3, healthy=2, unprofitable=1))
    told.log("head", head(4, healthy=2, unprofitable=1, sent=1))
    told.log("head", head(5, healthy=3))
    assert told.lines() == [
        "block 0  200 borrowers, nothing to do",
        "block 2  200 borrowers, 1 unprofitable",
        "block 4  200 borrowers, 1 unprofitable  sent 1  3 round trips, 12.3 ms of our own",
        "block 5  200 borrowers, nothing to do",
    ]


def test_a_heartbeat_shows_that_the_keeper_is_alive() -> None:
    told = Told()
    for block in range(20):
        told.clock.advance(HEARTBEAT_S / 10)
        told.log("head", head(block, healthy=3))
    assert told.lines() == [
        "block 0  200 borrowers, nothing to do",
        "block 10  200 borrowers, nothing to do  (10 blocks alike)",
    ]


def test_a_crash_lists_a_few_accounts_and_counts_the_others() -> None:
    told = Told()
    for i in range(VERDICT_LINES + 5):
        told.log("verdict", verdict(f"0x{i:040x}"))
    told.log("head", head(healthy=1, protocol_price_wrongly_low=VERDICT_LINES + 5))
    lines = told.lines()
    assert len(lines) == VERDICT_LINES + 1
    assert lines[0] == "hold  0x0000…0000  protocol_price_wrongly_low  two words and [brackets]"
    assert lines[-1].endswith(f"{VERDICT_LINES + 5} protocol_price_wrongly_low, 5 verdicts not listed")
    told.log("verdict", verdict())
    assert len(told.lines()) == len(lines) + 1, "a new head, new lines"


def test_a_limit_is_told_once_until_it_is_over() -> None:
    told = Told()
    limit = {"limit": "max_in_flight", "detail": "64 intents are under way"}
    for block in (1, 2):
        told.log("limit", limit)
        told.log("head", head(block, limit=3))
    assert [line.split()[0] for line in told.lines()] == ["limit", "block"]
    told.log("head", head(3, healthy=3))
    told.log("limit", limit)
    assert [line.split()[0] for line in told.lines()] == ["limit", "block", "block", "limit"]


def test_events_for_machines_are_one_json_line(capsys: pytest.CaptureFixture[str]) -> None:
    for event, fields, _ in EVENTS:
        json_line(event, fields)
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["event"] for line in lines] == [event for event, _, _ in EVENTS]


# --------------------------------------------------------------------------------------------------- outages


def test_an_outage_is_told_at_its_start_at_each_new_reason_and_now_and_then() -> None:
    clock = ManualClock()
    outage = Outage(clock, repeat_after_s=60)
    assert outage.end() is None
    told = []
    for second in range(130):
        reason = "timeout" if 20 <= second < 30 else "refused"
        if outage.failed(reason):
            told.append((second, reason, outage.failures))
        clock.advance(1)
    assert told == [(0, "refused", 1), (20, "timeout", 21), (30, "refused", 31), (90, "refused", 91)]
    assert outage.end() == (130, 130.0)
    assert outage.end() is None
    assert outage.failed("refused"), "the next outage is told at once"
    assert outage.failures == 1


# ---------------------------------------------------------------------------------------------------- alerts


def test_every_reason_and_transaction_is_an_alert_or_on_purpose_not() -> None:
    quiet = {
        Reason.LIQUIDATE,
        Reason.HEALTHY,
        Reason.NO_DEBT,
        Reason.UNPROFITABLE,
        Reason.NO_COLLATERAL,
        Reason.NO_ROUTE,
        Reason.DUPLICATE,
        Reason.LIMIT,  # an event of its own
    }
    for reason in Reason:
        assert (alert_of("verdict", verdict(reason=reason.value)) is None) == (reason in quiet), reason
    expected = {
        TxEventKind.SENT_AGAIN,
        TxEventKind.REPLACED,
        TxEventKind.CANCELLING,
        TxEventKind.MINED,
        TxEventKind.REORGANISED,
        TxEventKind.CONFIRMED,
        TxEventKind.CANCELLED,
        TxEventKind.FILLING_GAP,
    }
    for kind in TxEventKind:
        fields = {"kind": kind.value, "account": None, "intent": None, "detail": "so"}
        assert (alert_of("transaction", fields) is None) == (kind in expected), kind


def test_a_wrongly_low_price_is_the_most_urgent() -> None:
    alert = alert_of("verdict", verdict())
    assert alert is not None
    assert alert.level is Level.CRITICAL
    assert ACCOUNT in alert.text
    assert alert_of("audit", {"block": 1, "accounts": 3, "missed": []}) is None
    assert alert_of("balance", {"balance_wei": "5", "least_wei": "1", "low": False}) is None


class Kept:
    name = "kept"

    def __init__(self) -> None:
        self.alerts: list[Alert] = []

    def deliver(self, alert: Alert) -> None:
        self.alerts.append(alert)


def test_a_thousand_accounts_are_one_matter_until_it_is_over() -> None:
    sink = Kept()
    with Alerts([sink], ManualClock()) as alerts:
        listener = AlertListener(alerts)
        for _ in range(1_000):
            listener("verdict", verdict())
        listener("head", head(protocol_price_wrongly_low=1_000))
        listener("verdict", verdict())
        listener("head", head(healthy=1_000))
        listener("verdict", verdict())
    assert len(sink.alerts) == 2


def test_trouble_that_returns_is_told_again() -> None:
    sink = Kept()
    with Alerts([sink], ManualClock()) as alerts:
        listener = AlertListener(alerts)
        for _ in range(2):
            listener("trouble", {"error": "refused", "failures": 1})
            listener("recovered", {"failures": 1, "seconds": 1.0})
    assert [a.key for a in sink.alerts] == ["trouble", "recovered", "trouble"]


# ----------------------------------------------------------------------------------------- several markets


def test_with_several_markets_a_line_about_an_account_names_its_own() -> None:
    told = Told()
    told.log = RunLog(
        Console(file=told._stream, width=60),
        told.clock,
        {USDC.address: USDC},
        base_decimals={"aave-v3.6": 8, "morpho-blue:b323495f": 24},
    )
    told.log("verdict", verdict() | {"protocol": "morpho-blue:b323495f"})
    told.log(
        "waited",
        {
            "protocol": "morpho-blue:b323495f",
            "account": ACCOUNT,
            "armed_block": 1,
            "block": 3,
            "cost_base": str(5 * 10**24),
        },
    )
    first, second = told.lines()
    assert "0xCDDD…9427 on morpho-blue:b323495f" in first
    assert second.endswith("which cost 5.00")

    one = Told()
    one.log("verdict", verdict() | {"protocol": "aave-v3.6"})
    assert " on " not in one.lines()[0].partition("protocol_price")[0]


def test_a_market_that_is_unknown_is_said_and_an_alert_until_it_is_known() -> None:
    told, fields = Told(), {"block": 7, "protocol": "morpho-blue:b323495f", "error": "no\nanswer"}
    told.log("market_unknown", fields)
    told.log("market_known", {"block": 9, "protocol": "morpho-blue:b323495f"})
    assert told.lines() == [
        "unknown  morpho-blue:b323495f: no answer; nobody acts there",
        "known again  morpho-blue:b323495f",
    ]
    alert = alert_of("market_unknown", fields)
    assert alert is not None
    assert (alert.level, alert.key) == (Level.CRITICAL, "market.morpho-blue:b323495f")
    assert dict(alert.fields) == {"protocol": "morpho-blue:b323495f"}
    assert alert_of("market_known", fields) is None


def test_alerts_about_accounts_name_the_market() -> None:
    alert = alert_of("verdict", verdict() | {"protocol": "aave-v3.6:prime"})
    assert alert is not None
    assert alert.text.startswith(f"{ACCOUNT} on aave-v3.6:prime at block 7")
    assert dict(alert.fields) == {"account": ACCOUNT, "protocol": "aave-v3.6:prime"}


def test_a_limit_of_each_market_is_told_once() -> None:
    told = Told()
    for block in (1, 2):
        for name in ("p", "q"):
            limit = {"limit": "max_reverts_per_hour", "detail": f"100 reverts in {name}", "protocol": name}
            told.log("limit", limit)
        told.log("head", head(block, limit=3))
    assert [line.split()[0] for line in told.lines()] == ["limit", "limit", "block"]
