"""What a price source and a guard must offer. Both are plain data in, plain data out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from contracts_abi.calls import Call
from oracle.types import Finding, PriceObs, Reading


@dataclass(frozen=True, slots=True)
class FeedContext:
    """What is known of a feed from outside its readings.

    Attributes
    ----------
    now
        Block time at which the reading is judged, unix seconds.
    heartbeat_s
        The feed's promised longest gap between updates; None when unknown.
    grace_s
        Allowance on top of the heartbeat.
    deviation_bps
        The feed's deviation threshold; None when unknown.
    min_answer, max_answer
        The aggregator's bounds at the reading's scale; None when unknown.
    """

    now: int
    heartbeat_s: int | None = None
    grace_s: int = 300
    deviation_bps: int | None = None
    min_answer: int | None = None
    max_answer: int | None = None


@runtime_checkable
class Source(Protocol):
    """A price source, sans I/O: it says which reads it needs and makes sense of the answers."""

    @property
    def source_id(self) -> str:
        """Unique name within a configuration."""
        ...

    def reads(self) -> list[Call[Any]]:
        """Return the reads to execute at one block; empty for recorded data."""
        ...

    def decode(self, results: Sequence[bytes | None], *, block: int, timestamp: int) -> Reading:
        """Turn the answers of `reads` (None = that read failed) into a reading. Never raises on bad data."""
        ...

    def context(self, results: Sequence[bytes | None], *, timestamp: int) -> FeedContext:
        """Return what is known of the feed from outside its reading: configuration and bounds read on chain.

        `results` are the answers that `decode` gets; `timestamp` becomes the context's ``now``.
        """
        ...


@runtime_checkable
class Guard(Protocol):
    """A judgement of one reading.

    A guard without an input it needs says `NOT_APPLICABLE`; it never says `OK` for want of data.
    """

    def check(
        self,
        reading: Reading,
        history: Sequence[PriceObs],
        peers: Sequence[Reading],
        context: FeedContext,
    ) -> Finding:
        """Judge `reading`.

        Parameters
        ----------
        history
            Accepted observations of the same source, oldest first.
        peers
            Readings of other sources for the same pair at the same time.
        """
        ...
