"""Alerts never hold the keeper up, whatever their sinks do."""

from __future__ import annotations

import io
import json
import threading
import time
from pathlib import Path

import pytest
import requests

from keeper.alerts import Alert, Alerts, FileSink, Level, StreamSink, WebhookSink
from keeper.clock import ManualClock
from keeper.commands.keeper_alerts import alert_of
from keeper.config import Secret


class Gate:
    """A sink that hangs until it is let go."""

    name = "gate"

    def __init__(self) -> None:
        self.open = threading.Event()
        self.texts: list[str] = []

    def deliver(self, alert: Alert) -> None:
        self.open.wait(10)
        self.texts.append(alert.text)


class Broken:
    """A sink that fails."""

    name = "broken"

    def deliver(self, alert: Alert) -> None:
        raise ConnectionError("https://hooks.example/s3cr3t-canary is down")


def alert(text: str, key: str = "") -> Alert:
    return Alert(Level.WARNING, key or text, text, {"block": 7})


def test_limits_of_two_markets_are_two_matters() -> None:
    fields = {"limit": "max_reverts_per_hour", "detail": "x"}
    keys = [
        found.key
        for name in ("p", "q", None)
        if (found := alert_of("limit", fields | ({} if name is None else {"protocol": name})))
    ]
    assert len(set(keys)) == 3


def test_slow_sink_holds_up_neither_the_caller_nor_the_others() -> None:
    gate, stream = Gate(), io.StringIO()
    alerts = Alerts([gate, StreamSink(stream)], ManualClock(), capacity=4)
    start = time.monotonic()
    for i in range(50):
        assert alerts.send(alert(f"a{i}"))
    assert time.monotonic() - start < 1.0
    assert alerts.counts()["gate"].dropped >= 45
    gate.open.set()
    alerts.close()
    counts = alerts.counts()["gate"]
    assert counts.delivered + counts.dropped == 50
    assert gate.texts[0] == "a0"
    assert stream.getvalue().startswith("WARNING a0: a0\n")


def test_broken_sink_is_counted_and_goes_on(capfd: pytest.CaptureFixture[str]) -> None:
    with Alerts([Broken()], ManualClock()) as alerts:
        for i in range(3):
            alerts.send(alert(str(i)))
    assert alerts.counts()["broken"].failed == 3
    out, err = capfd.readouterr()
    assert "canary" not in out + err


def test_repeated_matter_is_counted_and_told_again_after_the_quiet_time() -> None:
    clock, stream = ManualClock(), io.StringIO()
    with Alerts([StreamSink(stream)], clock, repeat_after_s=600) as alerts:
        sent = [alerts.send(alert("stale feed", "feed:ETH")) for _ in range(4)]
        sent.append(alerts.send(alert("low balance")))
        clock.advance(600)
        sent.append(alerts.send(alert("stale feed", "feed:ETH")))
        alerts.resolve("feed:ETH")
        sent.append(alerts.send(alert("stale again", "feed:ETH")))
    assert sent == [True, False, False, False, True, True, True]
    assert stream.getvalue().splitlines() == [
        "WARNING feed:ETH: stale feed",
        "WARNING low balance: low balance",
        "WARNING feed:ETH: stale feed (and 3 more of this kind)",
        "WARNING feed:ETH: stale again",
    ]


def test_file_sink_appends_lines_for_machines(tmp_path: Path) -> None:
    clock = ManualClock(unix_s=123)
    for text in ("one", "two\nlines"):
        with Alerts([FileSink(tmp_path / "alerts.jsonl")], clock) as alerts:
            alerts.send(alert(text))
    first, second = map(json.loads, (tmp_path / "alerts.jsonl").read_text().splitlines())
    assert first == {"at": 123, "level": "warning", "key": "one", "text": "one", "suppressed": 0, "block": 7}
    assert second["text"] == "two\nlines"


def test_file_sink_without_a_folder_fails_quietly(tmp_path: Path) -> None:
    with Alerts([FileSink(tmp_path / "nowhere" / "alerts.jsonl")], ManualClock()) as alerts:
        alerts.send(alert("x"))
    assert alerts.counts()["file"].failed == 1


def test_webhook_takes_the_line_and_keeps_its_url(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    posted: list[tuple[str, object]] = []

    def post(url: str, *, json: object, timeout: float, allow_redirects: bool) -> requests.Response:
        posted.append((url, json))
        response = requests.Response()
        response.status_code = 200 if len(posted) == 1 else 500
        response.url = url
        return response

    monkeypatch.setattr(requests, "post", post)
    with Alerts([WebhookSink(Secret("https://hooks.example/s3cr3t-canary"))], ManualClock()) as alerts:
        alerts.send(alert("one"))
        alerts.send(alert("two"))
    assert posted[0] == ("https://hooks.example/s3cr3t-canary", {"text": "WARNING one: one"})
    counts = alerts.counts()["webhook"]
    assert (counts.delivered, counts.failed) == (1, 1)
    out, err = capfd.readouterr()
    assert "canary" not in out + err
