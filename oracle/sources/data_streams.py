"""Chainlink Data Streams: a signed report that its user brings along.

Report: ``go/report`` of smartcontractkit/data-streams-sdk (815637d), schemas v2, v3, v4 and v8; which one a
report follows stands in the first two bytes of its feed id. A full report is the report with its context and
signatures, as the service hands it out and ``VerifierProxy.verify`` takes it.

Signatures are NOT verified here: who signs is known to the verifier contract on the chain, which is asked to
verify when the report is used. A report from anywhere but the service itself is worth nothing before that.

Traps: a report stays valid for long after it was observed (``expiresAt``), so that whoever acts can choose
among many. A stream of a real-world asset repeats its last price while the market is closed, with observation
times that move on; v8 tells when the price last changed, in nanoseconds where all else is in seconds. A v3
stream of a pool's state says one price three times over: no spread there is no sign of certainty.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Final, Literal

from pydantic import Field

from contracts_abi.calls import Function, function
from oracle.interfaces import FeedContext, MarketStatus
from oracle.sources import sources
from oracle.sources.answers import outputs
from oracle.sources.pulled import FeedId, PulledSource, handed_in, id_bytes
from oracle.types import FeedKind, PriceObs, Reading

WORD: Final = 32
NANOSECONDS: Final = 10**9

# A full report and a report are encoded as the outputs of a function are.
FULL_REPORT = function("report()(bytes32[3],bytes,bytes32[],bytes32[],bytes32)")

_HEAD = "bytes32,uint32,uint32,uint192,uint192,uint32"


@dataclass(frozen=True, slots=True)
class Schema:
    """One version of the report.

    Attributes
    ----------
    layout
        Its types, as the outputs of a function.
    fields
        Names of what stands behind the head that all versions share.
    """

    layout: Function
    fields: tuple[str, ...]


def _schema(version: int, **tail: str) -> Schema:
    return Schema(function(f"v{version}()({','.join([_HEAD, *tail.values()])})"), tuple(tail))


SCHEMAS: Final[Mapping[int, Schema]] = {
    2: _schema(2, price="int192"),
    3: _schema(3, price="int192", bid="int192", ask="int192"),
    4: _schema(4, price="int192", market_status="uint32"),
    8: _schema(8, last_update_ns="uint64", price="int192", market_status="uint32"),
}

_STATUS: Final = {1: MarketStatus.CLOSED, 2: MarketStatus.OPEN}


@dataclass(frozen=True, slots=True)
class Report:
    """What a report says.

    Attributes
    ----------
    feed_id
        32 bytes; the first two are the version of the schema.
    valid_from, observed_at, expires_at
        From when the price holds, when it was observed, and until when it can be verified; unix seconds.
    native_fee, link_fee
        What verifying costs, in the smallest unit of the chain's coin and of LINK.
    price
        At the stream's scale.
    bid, ask
        Two-sided quote; in v3 only.
    market_status
        As stated: 0 unknown, 1 closed, 2 open; in v4 and v8 only.
    last_update_ns
        When the price last changed, unix nanoseconds; in v8 only.
    """

    feed_id: bytes
    valid_from: int
    observed_at: int
    native_fee: int
    link_fee: int
    expires_at: int
    price: int
    bid: int | None = None
    ask: int | None = None
    market_status: int | None = None
    last_update_ns: int | None = None

    @property
    def version(self) -> int:
        """Version of the schema."""
        return version_of(self.feed_id)

    @property
    def made_at(self) -> int:
        """When the price was made: observed, or last changed where that is told and earlier; unix seconds."""
        if self.last_update_ns is None:
            return self.observed_at
        return min(self.observed_at, self.last_update_ns // NANOSECONDS)


def version_of(feed_id: bytes) -> int:
    """Return the version of the schema that a feed id begins with."""
    return int.from_bytes(feed_id[:2], "big")


def report_in(full_report: bytes) -> bytes | None:
    """Return the report in a full report; None when that is none. Its signatures are not looked at."""
    values = outputs(FULL_REPORT, full_report)
    return None if values is None else bytes(values[1])


def parse_report(report: bytes) -> Report | str:
    """Return what a report says, or why it cannot be read."""
    version = version_of(report)
    schema = SCHEMAS.get(version)
    if schema is None:
        return f"reports of schema v{version} are not read"
    if len(report) != WORD * len(schema.layout.outputs):
        return f"{len(report)} bytes are no report of schema v{version}"
    values = outputs(schema.layout, report)
    if values is None:
        return f"the report does not decode as schema v{version}"
    head, tail = values[:6], values[6:]
    return Report(*head, **dict(zip(schema.fields, tail, strict=True)))


def refused(report: Report, feed_id: bytes, now: int) -> str | None:
    """Return why a report is no price of a feed at a time; None when it is one."""
    if report.feed_id != feed_id:
        return f"the report is of feed 0x{report.feed_id.hex()}"
    if report.made_at <= 0:
        return "the report has no time"
    if report.valid_from > report.observed_at:
        return "the report is valid only after it was observed"
    if now > report.expires_at:
        return f"the report expired at {report.expires_at}"
    return None


@sources.register("data_streams")
class DataStreamsSource(PulledSource):
    """The price in a full report of Chainlink Data Streams; its signatures are not verified here.

    Attributes
    ----------
    base, quote, name, heartbeat_s, grace_s
        As of every source that is handed what was fetched; by default named after the feed id.
    feed_id
        Id of the stream; its first two bytes say how reports are laid out.
    decimals
        Scale of the stream's prices, 18 or 8; no report states it.
    """

    kind: ClassVar[Literal["data_streams"]] = "data_streams"

    feed_id: FeedId
    decimals: int = Field(default=18, ge=0, le=77)

    def _key(self) -> str:
        return self.feed_id

    def decode(self, results: Sequence[bytes | None], *, block: int, timestamp: int) -> Reading:
        """Return the price of the full report that was fetched: the only result."""
        raw = handed_in(results)
        report = self._report(raw)
        if isinstance(report, str):
            return self._no_data(report, raw, block, timestamp)
        reason = refused(report, id_bytes(self.feed_id), timestamp)
        if reason is not None:
            return self._no_data(reason, raw, block, timestamp)
        return PriceObs(
            self.base,
            self.quote,
            report.price,
            self.decimals,
            FeedKind.PULL,
            self.source_id,
            published_at=report.made_at,
            observed_at=timestamp,
            block=block,
            bid=report.bid,
            ask=report.ask,
            raw=raw or b"",
        )

    def context(self, results: Sequence[bytes | None], *, timestamp: int) -> FeedContext:
        """Return the configured promises, and whether the market is open where the report says so."""
        plain = super().context(results, timestamp=timestamp)
        report = self._report(handed_in(results))
        if isinstance(report, str) or report.market_status is None:
            return plain
        return replace(plain, market_status=_STATUS.get(report.market_status, MarketStatus.UNKNOWN))

    def _report(self, raw: bytes | None) -> Report | str:
        if raw is None:
            return "no report was fetched"
        report = report_in(raw)
        return "what was fetched is no full report" if report is None else parse_report(report)
