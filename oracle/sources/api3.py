"""API3: a reader proxy, or the server behind it.

Contracts: ``Api3ReaderProxyV1.sol`` and ``Api3ServerV1.sol`` of api3dao/contracts (682e1f1). The proxy
answers the newer of two values: that of the data feed, and the one that an auction of the right to update it
left for one application. A value has 18 digits whatever the pair.

Traps: the time is when the data were signed, not when they were stored. The proxy looks like a Chainlink feed
too, with round 0 and no earlier rounds, so that checks of rounds have nothing to check. The name of a data
feed is a pointer that API3 can turn to another set of beacons.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from eth_utils.crypto import keccak
from pydantic import Field, model_validator

from contracts_abi.calls import Call, Function, function
from oracle.interfaces import FeedContext
from oracle.sources import sources
from oracle.sources.answers import ContractSource, output, outputs
from oracle.sources.chronicle import short_text
from oracle.sources.pulled import FeedId, id_bytes
from oracle.types import FeedKind, PriceObs, Reading

DECIMALS = 18

READ = function("read()(int224,uint32)")
DAPI_NAME = function("dapiName()(bytes32)")
READ_BY_ID = function("readDataFeedWithId(bytes32)(int224,uint32)")
READ_BY_NAME = function("readDataFeedWithDapiNameHash(bytes32)(int224,uint32)")


def dapi_name_hash(name: str) -> bytes:
    """Return the key of a name: the hash of the 32 bytes that hold it, filled up with zeros."""
    return keccak(name.encode("ascii").ljust(32, b"\0"))


class _Api3Source(ContractSource):
    """What the proxy and the server share.

    Attributes
    ----------
    heartbeat_s, grace_s
        What the feed promises.
    """

    heartbeat_s: int | None = Field(default=None, gt=0)
    grace_s: int = Field(default=300, ge=0)

    def _reading(self, getter: Function, answer: bytes | None, block: int, timestamp: int) -> Reading:
        values = outputs(getter, answer)
        if values is None:
            return self._no_data(f"{getter.name}() gave no value", answer, block, timestamp)
        value, signed_at = values
        if signed_at == 0:
            return self._no_data("the data feed was never written", answer, block, timestamp)
        return PriceObs(
            self.base,
            self.quote,
            value,
            DECIMALS,
            FeedKind.PUSH,
            self.source_id,
            published_at=signed_at,
            observed_at=timestamp,
            block=block,
            raw=answer or b"",
        )


@sources.register("api3")
class Api3Source(_Api3Source):
    """API3's value of one pair, from the reader proxy of an application.

    Attributes
    ----------
    base, quote
        Symbols of the pair.
    address
        The reader proxy.
    name
        Source id; ``api3:<address>`` by default.
    """

    kind: ClassVar[Literal["api3"]] = "api3"

    def reads(self) -> list[Call[Any]]:
        """Return the value with its time, and the name that it goes by."""
        return [READ.call(self.address), DAPI_NAME.call(self.address)]

    def decode(self, results: Sequence[bytes | None], *, block: int, timestamp: int) -> Reading:
        """Return the value, as old as its signatures."""
        return self._reading(READ, results[0], block, timestamp)

    def context(self, results: Sequence[bytes | None], *, timestamp: int) -> FeedContext:
        """Return the configured promises, and the name of the data feed as description."""
        return FeedContext(
            now=timestamp,
            heartbeat_s=self.heartbeat_s,
            grace_s=self.grace_s,
            description=short_text(output(DAPI_NAME, results[1])),
        )


@sources.register("api3_server")
class Api3ServerSource(_Api3Source):
    """API3's value of one pair, from the server itself and without an application's auctions.

    Attributes
    ----------
    base, quote
        Symbols of the pair.
    address
        The server, ``Api3ServerV1``.
    name
        Source id; ``api3_server:<address>:<data feed>`` by default.
    dapi_name
        Name of the data feed, for example ``ETH/USD``.
    feed_id
        Id of the data feed, a beacon or a set of them; either this or the name is needed.
    """

    kind: ClassVar[Literal["api3_server"]] = "api3_server"

    dapi_name: str | None = Field(default=None, pattern=r"^[ -~]{1,32}$")
    feed_id: FeedId | None = None

    @model_validator(mode="after")
    def _names_one_feed(self) -> Api3ServerSource:
        if (self.dapi_name is None) == (self.feed_id is None):
            raise ValueError("needs either dapi_name or feed_id")
        return self

    @property
    def source_id(self) -> str:
        """Unique name within a configuration."""
        return self.name or f"{self.kind}:{self.address}:{self.dapi_name or self.feed_id}"

    def reads(self) -> list[Call[Any]]:
        """Return the value with its time."""
        getter, key = self._getter()
        return [getter.call(self.address, key)]

    def decode(self, results: Sequence[bytes | None], *, block: int, timestamp: int) -> Reading:
        """Return the value, as old as its signatures."""
        return self._reading(self._getter()[0], results[0], block, timestamp)

    def context(self, results: Sequence[bytes | None], *, timestamp: int) -> FeedContext:
        """Return the configured promises."""
        return FeedContext(now=timestamp, heartbeat_s=self.heartbeat_s, grace_s=self.grace_s)

    def _getter(self) -> tuple[Function, bytes]:
        if self.dapi_name is not None:
            return READ_BY_NAME, dapi_name_hash(self.dapi_name)
        return READ_BY_ID, id_bytes(self.feed_id or "0x")
