"""What sources share whose price somebody brings along: a document or a payload instead of contract reads.

Such a source asks a node for nothing. Its `decode` gets what was fetched as the only result; without it there
is no data.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, TypeAlias

from pydantic import AfterValidator, Field

from contracts_abi.calls import Call
from oracle.interfaces import FeedContext
from oracle.strict import StrictModel
from oracle.types import NoData


def _word(value: str) -> str:
    digits = value.removeprefix("0x").lower()
    if not re.fullmatch(r"[0-9a-f]{64}", digits):
        raise ValueError("is no feed id: 64 hex digits are needed")
    return "0x" + digits


FeedId: TypeAlias = Annotated[str, AfterValidator(_word)]
"""32 bytes as 0x and 64 hex digits in lower case."""


def id_bytes(feed_id: str) -> bytes:
    """Return a `FeedId` as bytes."""
    return bytes.fromhex(feed_id[2:])


class PulledSource(StrictModel):
    """What sources share that are handed what was fetched.

    Attributes
    ----------
    base, quote
        Symbols of the pair.
    name
        Source id; the kind and what tells one feed from another by default.
    heartbeat_s
        Age at which the consumer refuses the price.
    grace_s
        Allowance on top of it.
    """

    kind: ClassVar[str]

    base: str
    quote: str
    name: str | None = None
    heartbeat_s: int | None = Field(default=None, gt=0)
    grace_s: int = Field(default=0, ge=0)

    @property
    def source_id(self) -> str:
        """Unique name within a configuration."""
        return self.name or f"{self.kind}:{self._key()}"

    def _key(self) -> str:
        """Return what tells one feed from another."""
        raise NotImplementedError

    def reads(self) -> list[Call[Any]]:
        """Return nothing: no node is asked."""
        return []

    def context(self, results: Sequence[bytes | None], *, timestamp: int) -> FeedContext:
        """Return the configured promises."""
        return FeedContext(now=timestamp, heartbeat_s=self.heartbeat_s, grace_s=self.grace_s)

    def _no_data(self, reason: str, raw: bytes | None, block: int | None, timestamp: int) -> NoData:
        return NoData(self.base, self.quote, self.source_id, timestamp, reason, block, raw or b"")


def handed_in(results: Sequence[bytes | None]) -> bytes | None:
    """Return what was fetched; None when it was not."""
    return results[0] if results and results[0] else None
