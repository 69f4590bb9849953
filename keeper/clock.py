"""The only place that reads a clock; everything below `keeper` is told the time.

Decisions and deadlines use block time and block numbers. The wall clock stamps journal rows and alerts, and
the monotonic clock measures durations, so a step of the wall clock cannot shorten or stretch a time-out.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol, runtime_checkable


@runtime_checkable
class Clock(Protocol):
    """Wall and monotonic time, so that tests can set both."""

    def now(self) -> int:
        """Return unix seconds."""
        ...

    def monotonic(self) -> float:
        """Return seconds of a clock that is never set."""
        ...


@dataclass(frozen=True, slots=True)
class SystemClock:
    """The machine's clocks."""

    def now(self) -> int:
        return int(time.time())  # noqa: TID251 - this is the one place that may

    def monotonic(self) -> float:
        return time.monotonic()


@dataclass(slots=True)
class ManualClock:
    """A clock that stands still until it is moved; for tests and replays.

    Attributes
    ----------
    unix_s
        Value of `now`.
    elapsed_s
        Value of `monotonic`.
    """

    unix_s: int = 1_600_000_000
    elapsed_s: float = 0.0

    def now(self) -> int:
        return self.unix_s

    def monotonic(self) -> float:
        return self.elapsed_s

    def advance(self, seconds: float) -> None:
        """Move both clocks forward."""
        self.unix_s += int(seconds)
        self.elapsed_s += seconds
