"""Alerts: each sink has a thread and a bounded queue of its own, so none of them can slow the keeper down.

Raising an alert takes microseconds whatever the sinks do. A sink that is down or slow loses alerts, counts
them and holds up nobody, the other sinks included.
"""

from __future__ import annotations

import json
import queue
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Protocol, TextIO

import requests

from keeper.clock import Clock
from keeper.config import KeeperConfig, Secret


class Level(StrEnum):
    """How urgent an alert is."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"


@dataclass(frozen=True, slots=True)
class Alert:
    """Something that the operator should know.

    Attributes
    ----------
    key
        Alerts with one key are one matter: repeated within the quiet time they are counted, not sent.
    text
        One line for people. It goes to third parties: no secrets.
    fields
        The same for machines.
    at
        Unix seconds; set by `Alerts`.
    suppressed
        Alerts of this key that were held back since the last one; set by `Alerts`.
    """

    level: Level
    key: str
    text: str
    fields: Mapping[str, str | int] = field(default_factory=dict)
    at: int = 0
    suppressed: int = 0

    def line(self) -> str:
        """Return the alert as one line."""
        more = f" (and {self.suppressed} more of this kind)" if self.suppressed else ""
        return " ".join(f"{self.level.upper()} {self.key}: {self.text}{more}".split())


class Sink(Protocol):
    """Where alerts go. May be slow, may fail with `OSError`; runs in a thread of its own."""

    @property
    def name(self) -> str:
        """Name in counters."""
        ...

    def deliver(self, alert: Alert) -> None:
        """Hand one alert on."""
        ...


class StreamSink:
    """One line per alert on a stream; standard error by default."""

    name = "stream"

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream

    def deliver(self, alert: Alert) -> None:
        print(alert.line(), file=self._stream or sys.stderr, flush=True)


class FileSink:
    """One JSON object per line, appended to a file."""

    name = "file"

    def __init__(self, path: Path) -> None:
        self._path = path

    def deliver(self, alert: Alert) -> None:
        record = {
            "at": alert.at,
            "level": alert.level.value,
            "key": alert.key,
            "text": alert.text,
            "suppressed": alert.suppressed,
            **alert.fields,
        }
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")


class WebhookSink:
    """A POST of ``{"text": line}``, which Slack, Mattermost and many others take."""

    name = "webhook"

    def __init__(self, url: Secret, *, timeout_s: float = 5.0) -> None:
        self._url = url
        self._timeout_s = timeout_s

    def deliver(self, alert: Alert) -> None:
        # RequestException is an OSError. Its text holds the URL with its token, so it must not get further
        # than the counter in `_Outlet`.
        response = requests.post(
            self._url.reveal(), json={"text": alert.line()}, timeout=self._timeout_s, allow_redirects=False
        )
        response.raise_for_status()


@dataclass(slots=True)
class SinkCounts:
    """What became of the alerts for one sink."""

    delivered: int = 0
    failed: int = 0
    dropped: int = 0


class _Outlet:
    """A sink with its queue and thread."""

    def __init__(self, sink: Sink, capacity: int) -> None:
        self.counts = SinkCounts()
        self._sink = sink
        self._queue: queue.Queue[Alert | None] = queue.Queue(capacity)
        # A daemon: a sink that hangs must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name=f"alerts-{sink.name}", daemon=True)
        self._thread.start()

    def put(self, alert: Alert) -> None:
        try:
            self._queue.put_nowait(alert)
        except queue.Full:
            self.counts.dropped += 1

    def close(self, timeout_s: float) -> None:
        try:
            self._queue.put(None, timeout=timeout_s)
        except queue.Full:
            return
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while (alert := self._queue.get()) is not None:
            try:
                self._sink.deliver(alert)
            except (OSError, ValueError):  # ValueError: a stream that was closed
                self.counts.failed += 1
            else:
                self.counts.delivered += 1


class Alerts:
    """Takes alerts and hands them to every sink.

    Parameters
    ----------
    repeat_after_s
        Quiet time per key.
    capacity
        Alerts that may wait for one sink.
    """

    def __init__(
        self, sinks: Sequence[Sink], clock: Clock, *, repeat_after_s: float = 600.0, capacity: int = 256
    ) -> None:
        self._outlets = {sink.name: _Outlet(sink, capacity) for sink in sinks}
        self._clock = clock
        self._repeat_after_s = repeat_after_s
        self._mutex = threading.Lock()
        self._quiet: dict[str, tuple[float, int]] = {}

    @classmethod
    def from_config(cls, config: KeeperConfig, clock: Clock, *, stream: bool = True) -> Alerts:
        """Return the configured sinks.

        Parameters
        ----------
        stream
            Whether standard error is one of them; where the log goes there, it says the same.
        """
        section = config.alerts
        sinks: list[Sink] = [StreamSink()] if stream else []
        if section.file is not None:
            sinks.append(FileSink(config.path(section.file)))
        if section.webhook is not None:
            sinks.append(WebhookSink(config.secret(section.webhook, "alerts.webhook")))
        return cls(sinks, clock, repeat_after_s=section.repeat_after_s)

    def send(self, alert: Alert) -> bool:
        """Hand an alert to all sinks without waiting for any; return False when it was held back."""
        with self._mutex:
            now = self._clock.monotonic()
            last, held = self._quiet.get(alert.key, (float("-inf"), 0))
            if now - last < self._repeat_after_s:
                self._quiet[alert.key] = (last, held + 1)
                return False
            self._quiet[alert.key] = (now, 0)
        stamped = replace(alert, at=self._clock.now(), suppressed=held)
        for outlet in self._outlets.values():
            outlet.put(stamped)
        return True

    def resolve(self, key: str) -> None:
        """Forget the quiet time of a matter that is over, so that its return is told at once."""
        with self._mutex:
            self._quiet.pop(key, None)

    def counts(self) -> dict[str, SinkCounts]:
        """Return what became of the alerts, per sink."""
        return {name: replace(outlet.counts) for name, outlet in self._outlets.items()}

    def close(self, timeout_s: float = 2.0) -> None:
        """Let the sinks finish what waits, for at most this long each."""
        for outlet in self._outlets.values():
            outlet.close(timeout_s)

    def __enter__(self) -> Alerts:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
