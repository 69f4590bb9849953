"""RedStone: a price that its adapter stores, and a signed payload that a transaction brings along.

Contracts: ``MultiFeedAdapterWithoutRounds.sol`` and ``RedstoneAdapterBase.sol`` of redstone-oracles-monorepo
for what is stored; ``RedstoneConsumerBase.sol``, ``CalldataExtractor.sol`` and ``RedstoneDefaultsLib.sol`` of
@redstone-finance/evm-connector 0.9.0 for payloads. A payload is read from its end:

| bytes | from the end backwards |
|---|---|
| 9 | marker |
| 3, then as many as it says | length of unsigned metadata, and the metadata |
| 2 | number of packages; then for each of them |
| 65 | signature over all of the package that follows |
| 3, 4, 6 | number of points, bytes of a value, time in milliseconds |
| 32 and a value, for each point | id of the data feed, value |

Traps: feeds that imitate Chainlink's have no rounds (always 1) and tell when the value was stored; this
source tells when it was signed. Of more signers than the threshold only those at the end of the payload
count, so that whoever sends it chooses among them. A package of a signer who is not authorised spoils the
whole payload.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Final, Literal, TypeAlias

from eth_utils.crypto import keccak
from pydantic import AfterValidator, Field, model_validator

from contracts_abi.calls import Call, checksummed, function
from contracts_abi.errors import DataError
from oracle.fields import Address
from oracle.interfaces import FeedContext, QuorumFacts
from oracle.sources import sources
from oracle.sources.answers import UINT256_MAX, ContractSource, output, outputs
from oracle.sources.chronicle import quorum_of
from oracle.sources.pulled import PulledSource, handed_in
from oracle.types import FeedKind, PriceObs, Reading

DECIMALS: Final = 8
"""Of a value where nothing else is agreed on; no contract states it."""

MAX_DELAY_S: Final = 180
MAX_AHEAD_S: Final = 60

MARKER: Final = 0x02ED57011E0000
MARKER_BYTES: Final = 9
SIGNATURE_BYTES: Final = 65

DETAILS = function("getLastUpdateDetails(bytes32)(uint256,uint256,uint256)")
"""When it was signed, when it was stored, and the value; adapters that update feeds one by one."""
VALUE = function("getValueForDataFeed(bytes32)(uint256)")
TIMES = function("getTimestampsFromLatestUpdate()(uint128,uint128)")
"""When it was signed and when it was stored; adapters that update all feeds at once."""
THRESHOLD = function("getUniqueSignersThreshold()(uint8)")

UNITS: Final = {"ms": 1_000, "us": 1_000_000}

Recover: TypeAlias = Callable[[bytes, bytes], str | None]
"""From a hash and a signature of 65 bytes to the signer's address; None when nobody signed that."""


def data_feed_word(name: str) -> bytes:
    """Return the id of a data feed as 32 bytes: its name filled up with zeros, or the hex digits given."""
    return bytes.fromhex(name[2:]) if _HEX_ID.fullmatch(name) else name.encode("ascii").ljust(32, b"\0")


_HEX_ID = re.compile(r"0x[0-9a-fA-F]{64}")


def _is_data_feed(value: str) -> str:
    if not (_HEX_ID.fullmatch(value) or re.fullmatch(r"[!-~]{1,31}", value)):
        raise ValueError("is no data feed: up to 31 characters such as ETH, or 0x and 64 hex digits")
    return value


DataFeed: TypeAlias = Annotated[str, AfterValidator(_is_data_feed)]


@dataclass(frozen=True, slots=True)
class Package:
    """One signed package of a payload.

    Attributes
    ----------
    points
        Id and value of each data point, in the order in which the contract reads them: from the end.
    timestamp_ms
        When it was signed, unix milliseconds.
    digest
        Hash of what was signed.
    signature
        65 bytes.
    """

    points: tuple[tuple[bytes, int], ...]
    timestamp_ms: int
    digest: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Agreed:
    """What the signers of a payload say of one data feed.

    Attributes
    ----------
    values
        One of each signer that counts, in the order in which the contract reads them.
    timestamp_ms
        When they were signed, unix milliseconds.
    """

    values: tuple[int, ...]
    timestamp_ms: int


class _Tail:
    """Reads bytes from their end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._end = len(data)

    @property
    def end(self) -> int:
        """What is left to read."""
        return self._end

    def take(self, count: int) -> bytes:
        """Return the last bytes that were not read yet."""
        if count > self._end:
            raise DataError("the payload is too short")
        self._end -= count
        return self._data[self._end : self._end + count]

    def number(self, count: int) -> int:
        """Return them as a number."""
        return int.from_bytes(self.take(count), "big")


def unpack(payload: bytes) -> tuple[Package, ...]:
    """Return the packages of a payload from its end, as the contract reads them; what stands before is left.

    Raises
    ------
    DataError
        If it is none.
    """
    tail = _Tail(payload)
    # The contract asks for the bits that are set in the marker and for no others to be clear; so do we.
    if len(payload) < MARKER_BYTES or tail.number(MARKER_BYTES) & MARKER != MARKER:
        raise DataError("the payload has no marker of RedStone")
    tail.take(tail.number(3))
    return tuple(_package(payload, tail) for _ in range(tail.number(2)))


def _package(payload: bytes, tail: _Tail) -> Package:
    signature = tail.take(SIGNATURE_BYTES)
    end = tail.end
    count, size, timestamp_ms = tail.number(3), tail.number(4), tail.number(6)
    if size > 32:
        raise DataError(f"a value of {size} bytes is too large")
    points = []
    for _ in range(count):
        value = tail.number(size)
        points.append((tail.take(32), value))
    return Package(tuple(points), timestamp_ms, keccak(payload[tail.end : end]), signature)


def agreed(
    packages: Sequence[Package], data_feed: bytes, signers: Sequence[str], threshold: int, recover: Recover
) -> Agreed:
    """Return what the signers say of a data feed, if there are enough of them.

    Parameters
    ----------
    packages
        Of a payload, in the order of `unpack`.
    data_feed
        Id of the data feed.
    signers
        Checksummed addresses of those who are authorised.
    threshold
        Number of signers that it takes; further ones do not count.
    recover
        Recovers a signer; no key is held here, and none is needed.

    Raises
    ------
    DataError
        Where the contract reverts: a signer who is not authorised, packages of different times or of none,
        or too few signers.
    """
    values: dict[str, int] = {}
    times = {package.timestamp_ms for package in packages}
    for package in packages:
        signer = recover(package.digest, package.signature)
        if signer is None:
            raise DataError("a signature of the payload is of nobody")
        if checksummed(signer) not in signers:
            raise DataError(f"{signer} is not authorised to sign")
        for name, value in package.points:
            if name == data_feed and signer not in values and len(values) < threshold:
                values[signer] = value
    if 0 in times:
        raise DataError("a package of the payload has no time")
    if len(times) > 1:
        raise DataError("the packages of the payload are of different times")
    if len(values) < threshold:
        raise DataError(f"{len(values)} of {threshold} signers stand behind the value")
    return Agreed(tuple(values.values()), times.pop())


def median(values: Sequence[int]) -> int:
    """Return the middle value, or the mean of the middle two rounded down.

    Raises
    ------
    DataError
        Where the contract reverts: no values, or a sum of more than 256 bits.
    """
    if not values:
        raise DataError("there is no median of nothing")
    ordered, middle = sorted(values), len(values) // 2
    if len(values) % 2:
        return ordered[middle]
    total = ordered[middle - 1] + ordered[middle]
    if total > UINT256_MAX:
        raise DataError("the sum of the middle two has more than 256 bits")
    return total // 2


def outside_window(timestamp_ms: int, now: int) -> str | None:
    """Return why a time is not taken, by whole seconds: over three minutes old, or over one minute ahead."""
    signed_at = timestamp_ms // 1_000
    if signed_at - now > MAX_AHEAD_S:
        return f"the payload was signed {signed_at - now} s ahead"
    if now - signed_at > MAX_DELAY_S:
        return f"the payload was signed {now - signed_at} s ago"
    return None


@sources.register("redstone")
class RedstoneSource(ContractSource):
    """RedStone's price of one data feed that an adapter stores; it is as old as its signatures.

    Attributes
    ----------
    base, quote
        Symbols of the pair.
    address
        The adapter. A price feed in front of it that imitates Chainlink's is a source of kind ``chainlink``.
    name
        Source id; ``redstone:<address>:<data feed>`` by default.
    data_feed
        Id of the data feed, for example ``ETH``.
    decimals
        Scale of the value, which no adapter states.
    time_unit
        Unit of the adapter's times: ``ms``, or ``us`` on adapters of RedStone's fast nodes.
    min_signers
        Least number of signers that must have agreed.
    heartbeat_s, grace_s
        What the feed promises.
    """

    kind: ClassVar[Literal["redstone"]] = "redstone"

    data_feed: DataFeed
    decimals: int = Field(default=DECIMALS, ge=0, le=77)
    time_unit: Literal["ms", "us"] = "ms"
    min_signers: int | None = Field(default=None, gt=0)
    heartbeat_s: int | None = Field(default=None, gt=0)
    grace_s: int = Field(default=300, ge=0)

    @property
    def source_id(self) -> str:
        """Unique name within a configuration."""
        return self.name or f"{self.kind}:{self.address}:{self.data_feed}"

    def reads(self) -> list[Call[Any]]:
        """Return value and times under the names of both kinds of adapter, and how many sign."""
        key = data_feed_word(self.data_feed)
        return [
            DETAILS.call(self.address, key),
            VALUE.call(self.address, key),
            TIMES.call(self.address),
            THRESHOLD.call(self.address),
        ]

    def decode(self, results: Sequence[bytes | None], *, block: int, timestamp: int) -> Reading:
        """Return the value that is stored, as old as its signatures."""
        details, value, times = (
            outputs(DETAILS, results[0]),
            output(VALUE, results[1]),
            outputs(TIMES, results[2]),
        )
        raw = results[1] if details is None else results[0]
        if details is not None:
            signed_at, _stored_at, value = details
        elif value is not None and times is not None:
            signed_at, _stored_at = times
        else:
            return self._no_data("the adapter gave no value with a time", raw, block, timestamp)
        if signed_at == 0:
            return self._no_data("the data feed was never written", raw, block, timestamp)
        return PriceObs(
            self.base,
            self.quote,
            value,
            self.decimals,
            FeedKind.PUSH,
            self.source_id,
            published_at=signed_at // UNITS[self.time_unit],
            observed_at=timestamp,
            block=block,
            raw=raw or b"",
        )

    def context(self, results: Sequence[bytes | None], *, timestamp: int) -> FeedContext:
        """Return the configured promises, and how many signers the adapter asks for."""
        return FeedContext(
            now=timestamp,
            heartbeat_s=self.heartbeat_s,
            grace_s=self.grace_s,
            quorum=quorum_of(output(THRESHOLD, results[3]), self.min_signers),
        )


@sources.register("redstone_payload")
class RedstonePayloadSource(PulledSource):
    """RedStone's price of one data feed in a signed payload, if enough of the signers named stand behind it.

    Attributes
    ----------
    base, quote, name, heartbeat_s, grace_s
        As of every source that is handed what was fetched; by default named after the data feed.
    data_feed
        Id of the data feed, for example ``ETH``.
    decimals
        Scale of the value, which no payload states.
    signers
        Addresses that are authorised to sign, as the consumer contract has them.
    threshold
        Number of signers that it takes.
    """

    kind: ClassVar[Literal["redstone_payload"]] = "redstone_payload"

    data_feed: DataFeed
    decimals: int = Field(default=DECIMALS, ge=0, le=77)
    signers: tuple[Address, ...] = Field(min_length=1)
    threshold: int = Field(gt=0)

    @model_validator(mode="after")
    def _can_be_met(self) -> RedstonePayloadSource:
        if self.threshold > len(set(self.signers)):
            raise ValueError(f"threshold {self.threshold} is more than there are signers")
        return self

    def _key(self) -> str:
        return self.data_feed

    def decode(
        self,
        results: Sequence[bytes | None],
        *,
        block: int,
        timestamp: int,
        recover: Recover | None = None,
    ) -> Reading:
        """Return the median of the payload that was fetched: the only result.

        Parameters
        ----------
        results, block, timestamp
            As for every source.
        recover
            Recovers a signer. Without it no signature can be checked, and there is no data.
        """
        payload = handed_in(results)
        try:
            found = self._agreed(payload, recover)
            price = median(found.values)
        except DataError as error:
            return self._no_data(error.message, payload, block, timestamp)
        reason = outside_window(found.timestamp_ms, timestamp)
        if reason is not None:
            return self._no_data(reason, payload, block, timestamp)
        return PriceObs(
            self.base,
            self.quote,
            price,
            self.decimals,
            FeedKind.PULL,
            self.source_id,
            published_at=found.timestamp_ms // 1_000,
            observed_at=timestamp,
            block=block,
            raw=payload or b"",
        )

    def context(
        self, results: Sequence[bytes | None], *, timestamp: int, recover: Recover | None = None
    ) -> FeedContext:
        """Return the configured promises, and with `recover` how many signers stand behind the price."""
        plain = super().context(results, timestamp=timestamp)
        try:
            found = self._agreed(handed_in(results), recover)
        except DataError:
            return plain
        return replace(plain, quorum=QuorumFacts(len(found.values), self.threshold))

    def _agreed(self, payload: bytes | None, recover: Recover | None) -> Agreed:
        if payload is None:
            raise DataError("no payload was fetched")
        if recover is None:
            raise DataError("nobody is there to recover the signers of the payload")
        return agreed(unpack(payload), data_feed_word(self.data_feed), self.signers, self.threshold, recover)
