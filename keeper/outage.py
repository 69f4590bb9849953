"""What is worth saying of attempts that fail in a row: that they began to, each new reason, and their end."""

from __future__ import annotations

from dataclasses import dataclass

from keeper.clock import Clock


@dataclass(slots=True)
class Outage:
    """Counts failures in a row, and says when to speak of them.

    A node that is down is asked again at each poll. The first failure is told, then every other reason, and
    the same one again only after `repeat_after_s`.

    Attributes
    ----------
    failures
        Attempts that failed since the last that did not.
    """

    clock: Clock
    repeat_after_s: float = 60.0
    failures: int = 0
    _reason: str = ""
    _since: float = 0.0
    _told_at: float = 0.0

    def failed(self, reason: str) -> bool:
        """Count a failure; return whether to tell it."""
        now = self.clock.monotonic()
        if not self.failures:
            self._since = now
        again = self.failures > 0 and reason == self._reason and now - self._told_at < self.repeat_after_s
        self.failures += 1
        if again:
            return False
        self._reason, self._told_at = reason, now
        return True

    def end(self) -> tuple[int, float] | None:
        """Note an attempt that did not fail; return failures and seconds of the outage that it ended."""
        if not self.failures:
            return None
        ended = self.failures, self.clock.monotonic() - self._since
        self.failures = 0
        return ended
