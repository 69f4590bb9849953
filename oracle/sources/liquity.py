"""Liquity's price feed (v1): Chainlink first, Tellor behind it, and the last good price behind both.

Contract: ``PriceFeed.sol`` of liquity/dev (39f1f7f8, Solidity 0.6.11). `fetch_price` is its state machine as
a pure function. It trusts a source until it breaks or freezes, and goes back to Chainlink when both agree.

Trap: Chainlink counts as broken when its *previous* round is missing, and the first round of a new phase has
no predecessor under its round id less one. Each time the proxy takes a new aggregator, Liquity leaves
Chainlink for Tellor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, ClassVar, Literal

from pydantic import Field

from contracts_abi.calls import Call, function
from oracle.fields import Address
from oracle.interfaces import FeedContext
from oracle.sources import sources
from oracle.sources.answers import UINT256_MAX, ContractSource, output, round_of, round_reads
from oracle.types import FeedKind, PriceObs, Reading

TIMEOUT_S = 14_400
TARGET_DIGITS = 18
TELLOR_DIGITS = 6
DECIMAL_PRECISION = 10**18
MAX_DEVIATION = 5 * 10**17
"""Half: between two rounds of Chainlink, relative to the larger."""
MAX_DIFFERENCE = 5 * 10**16
"""A twentieth: between Chainlink and Tellor, relative to the smaller. The contract's comment says 3 %."""

FETCH_PRICE = function("fetchPrice()(uint256)")
STATUS = function("status()(uint8)")
LAST_GOOD_PRICE = function("lastGoodPrice()(uint256)")


class Reverted(ArithmeticError):
    """The contract's checked arithmetic failed: a division by zero, or more than 256 bits."""


def _fitting(value: int) -> int:
    if value > UINT256_MAX:
        raise Reverted("more than 256 bits")
    return value


def _divided(numerator: int, denominator: int) -> int:
    if denominator == 0:
        raise Reverted("division by zero")
    return numerator // denominator


def _apart(low: int, high: int, against: int) -> int:
    """Return how far two prices lie apart relative to one of them, 18 digits, rounded down."""
    return _divided(_fitting((high - low) * DECIMAL_PRECISION), against)


class Status(IntEnum):
    """Whom the contract trusts."""

    CHAINLINK_WORKING = 0
    USING_TELLOR_CHAINLINK_UNTRUSTED = 1
    BOTH_UNTRUSTED = 2
    USING_TELLOR_CHAINLINK_FROZEN = 3
    USING_CHAINLINK_TELLOR_UNTRUSTED = 4


@dataclass(frozen=True, slots=True)
class ChainlinkResponse:
    """One round as the contract sees it; the plain one is a call that failed."""

    round_id: int = 0
    answer: int = 0
    timestamp: int = 0
    success: bool = False
    decimals: int = 0

    def bad(self, now: int) -> bool:
        """Return whether the round is worthless (``_badChainlinkResponse``)."""
        return not self.success or self.round_id == 0 or not 0 < self.timestamp <= now or self.answer <= 0

    @property
    def price(self) -> int:
        """The answer at 18 digits, rounded down."""
        if self.decimals >= TARGET_DIGITS:
            # The power is taken in 256 bits without a check; the division is checked.
            return _divided(self.answer, pow(10, self.decimals - TARGET_DIGITS, UINT256_MAX + 1))
        return _fitting(self.answer * 10 ** (TARGET_DIGITS - self.decimals))


@dataclass(frozen=True, slots=True)
class TellorResponse:
    """Tellor's value as the contract sees it; the plain one is a call that failed."""

    value: int = 0
    timestamp: int = 0
    success: bool = False

    def broken(self, now: int) -> bool:
        """Return whether the value is worthless (``_tellorIsBroken``)."""
        return not self.success or not 0 < self.timestamp <= now or self.value == 0

    @property
    def price(self) -> int:
        """The value at 18 digits."""
        return _fitting(self.value * 10 ** (TARGET_DIGITS - TELLOR_DIGITS))


@dataclass(frozen=True, slots=True)
class LiquityState:
    """What the contract keeps: whom it trusts, and the price that it returns, 18 digits."""

    status: Status
    last_good_price: int


def fetch_price(
    state: LiquityState,
    chainlink: ChainlinkResponse,
    previous: ChainlinkResponse,
    tellor: TellorResponse,
    now: int,
) -> LiquityState:
    """Return what ``fetchPrice`` leaves behind; the price that it returns is `last_good_price`.

    Chainlink is `broken` when its round or the one before is bad, `frozen` when it is older than four hours,
    and `jumped` when two rounds lie more than half apart. Tellor is `broken` or `frozen` in its own right.

    ==========================  ===========  =======================================================
    trusts                      Chainlink    then
    ==========================  ===========  =======================================================
    Chainlink (0)               broken       Tellor broken: 2, last; frozen: 1, last; else 1, Tellor
    ..                          frozen       Tellor broken: 4, last; frozen: 3, last; else 3, Tellor
    ..                          jumped       Tellor broken: 2, last; frozen: 1, last; similar: 0,
                                             Chainlink; else 1, Tellor
    ..                          fine         Tellor broken: 4; Chainlink
    Tellor, Chainlink not (1)   any          both live and similar: 0, Chainlink; Tellor broken: 2,
                                             last; frozen: last; else Tellor
    neither (2)                 any          both live and similar: 0, Chainlink; else last
    Tellor, Chainlink           broken       Tellor broken: 2, last; frozen: 1, last; else 1, Tellor
    frozen (3)                  frozen       Tellor broken: 4, last; frozen: last; else Tellor
    ..                          live         Tellor broken: 4, Chainlink; frozen: last; similar: 0,
                                             Chainlink; else 1, Tellor
    Chainlink, Tellor not (4)   broken       2, last
    ..                          frozen       last
    ..                          live         both live and similar: 0, Chainlink; jumped: 2, last;
                                             else Chainlink
    ==========================  ===========  =======================================================

    Parameters
    ----------
    state
        Left behind by the call before.
    chainlink, previous
        The latest round, and the one with its round id less one. Both are read with today's decimals.
    tellor
        Tellor's value.
    now
        Block time, unix seconds.

    Raises
    ------
    Reverted
        Where the contract does: a price that is nothing at 18 digits, or does not fit 256 bits.
    """
    seen = _Seen(chainlink, previous, tellor, now)
    old, last = state.status, state.last_good_price
    if old is Status.CHAINLINK_WORKING:
        status, price = _while_chainlink_works(seen, last)
    elif old is Status.USING_TELLOR_CHAINLINK_UNTRUSTED:
        if seen.both_live_and_similar:
            status, price = Status.CHAINLINK_WORKING, chainlink.price
        elif seen.tellor_broken:
            status, price = Status.BOTH_UNTRUSTED, last
        else:
            status, price = old, last if seen.tellor_frozen else tellor.price
    elif old is Status.BOTH_UNTRUSTED:
        if seen.both_live_and_similar:
            status, price = Status.CHAINLINK_WORKING, chainlink.price
        else:
            status, price = old, last
    elif old is Status.USING_TELLOR_CHAINLINK_FROZEN:
        status, price = _while_chainlink_is_frozen(seen, last)
    else:
        status, price = _while_tellor_is_untrusted(seen, last)
    return LiquityState(status, price)


@dataclass(frozen=True, slots=True)
class _Seen:
    """What the two sources look like at `now`."""

    chainlink: ChainlinkResponse
    previous: ChainlinkResponse
    tellor: TellorResponse
    now: int

    @property
    def chainlink_broken(self) -> bool:
        return self.chainlink.bad(self.now) or self.previous.bad(self.now)

    @property
    def chainlink_frozen(self) -> bool:
        return self.now - self.chainlink.timestamp > TIMEOUT_S

    @property
    def chainlink_jumped(self) -> bool:
        low, high = sorted((self.chainlink.price, self.previous.price))
        return _apart(low, high, high) > MAX_DEVIATION

    @property
    def tellor_broken(self) -> bool:
        return self.tellor.broken(self.now)

    @property
    def tellor_frozen(self) -> bool:
        return self.now - self.tellor.timestamp > TIMEOUT_S

    @property
    def similar(self) -> bool:
        low, high = sorted((self.chainlink.price, self.tellor.price))
        return _apart(low, high, low) <= MAX_DIFFERENCE

    @property
    def both_live_and_similar(self) -> bool:
        dead = self.tellor_broken or self.tellor_frozen or self.chainlink_broken or self.chainlink_frozen
        return not dead and self.similar


def _while_chainlink_works(seen: _Seen, last: int) -> tuple[Status, int]:
    if seen.chainlink_broken:
        return _leave_chainlink(seen, last)
    if seen.chainlink_frozen:
        if seen.tellor_broken:
            return Status.USING_CHAINLINK_TELLOR_UNTRUSTED, last
        return Status.USING_TELLOR_CHAINLINK_FROZEN, last if seen.tellor_frozen else seen.tellor.price
    if seen.chainlink_jumped:
        if not seen.tellor_broken and not seen.tellor_frozen and seen.similar:
            return Status.CHAINLINK_WORKING, seen.chainlink.price
        return _leave_chainlink(seen, last)
    if seen.tellor_broken:
        return Status.USING_CHAINLINK_TELLOR_UNTRUSTED, seen.chainlink.price
    return Status.CHAINLINK_WORKING, seen.chainlink.price


def _leave_chainlink(seen: _Seen, last: int) -> tuple[Status, int]:
    """Trust Chainlink no longer: go to Tellor if it lives, else to the last good price."""
    if seen.tellor_broken:
        return Status.BOTH_UNTRUSTED, last
    return Status.USING_TELLOR_CHAINLINK_UNTRUSTED, last if seen.tellor_frozen else seen.tellor.price


def _while_chainlink_is_frozen(seen: _Seen, last: int) -> tuple[Status, int]:
    if seen.chainlink_broken:
        return _leave_chainlink(seen, last)
    if seen.chainlink_frozen:
        if seen.tellor_broken:
            return Status.USING_CHAINLINK_TELLOR_UNTRUSTED, last
        return Status.USING_TELLOR_CHAINLINK_FROZEN, last if seen.tellor_frozen else seen.tellor.price
    if seen.tellor_broken:
        return Status.USING_CHAINLINK_TELLOR_UNTRUSTED, seen.chainlink.price
    if seen.tellor_frozen:
        return Status.USING_TELLOR_CHAINLINK_FROZEN, last
    if seen.similar:
        return Status.CHAINLINK_WORKING, seen.chainlink.price
    return Status.USING_TELLOR_CHAINLINK_UNTRUSTED, seen.tellor.price


def _while_tellor_is_untrusted(seen: _Seen, last: int) -> tuple[Status, int]:
    if seen.chainlink_broken:
        return Status.BOTH_UNTRUSTED, last
    if seen.chainlink_frozen:
        return Status.USING_CHAINLINK_TELLOR_UNTRUSTED, last
    if seen.both_live_and_similar:
        return Status.CHAINLINK_WORKING, seen.chainlink.price
    if seen.chainlink_jumped:
        return Status.BOTH_UNTRUSTED, last
    return Status.USING_CHAINLINK_TELLOR_UNTRUSTED, seen.chainlink.price


@sources.register("liquity")
class LiquitySource(ContractSource):
    """Liquity's price feed: what a call of ``fetchPrice()`` would return now.

    The contract states no time. With `feed` the price has the time of Chainlink's round as long as it is that
    round's price; a price of Tellor and a last good price have none.

    Attributes
    ----------
    base, quote
        Symbols of the pair.
    address
        The price feed contract to read.
    name
        Source id; ``liquity:<address>`` by default.
    feed
        The Chainlink proxy that it reads.
    heartbeat_s, grace_s
        What that feed promises.
    """

    kind: ClassVar[Literal["liquity"]] = "liquity"

    feed: Address | None = None
    heartbeat_s: int | None = Field(default=None, gt=0)
    grace_s: int = Field(default=300, ge=0)

    def reads(self) -> list[Call[Any]]:
        """Return the price that would be fetched, what is stored, and Chainlink's round where it is known."""
        own = [f.call(self.address) for f in (FETCH_PRICE, STATUS, LAST_GOOD_PRICE)]
        return own if self.feed is None else [*own, *round_reads(self.feed)]

    def decode(self, results: Sequence[bytes | None], *, block: int, timestamp: int) -> Reading:
        """Return the price that would be fetched, 18 digits."""
        price = output(FETCH_PRICE, results[0])
        if price is None:
            return self._no_data("fetchPrice() gave no price", results[0], block, timestamp)
        return PriceObs(
            self.base,
            self.quote,
            price,
            TARGET_DIGITS,
            FeedKind.PUSH,
            self.source_id,
            published_at=self._published_at(results, price),
            observed_at=timestamp,
            block=block,
            raw=results[0] or b"",
        )

    def context(self, results: Sequence[bytes | None], *, timestamp: int) -> FeedContext:
        """Return the configured promises, and whom the contract trusted after the last fetch."""
        status = output(STATUS, results[1])
        known = status is not None and status in tuple(Status)
        return FeedContext(
            now=timestamp,
            heartbeat_s=self.heartbeat_s,
            grace_s=self.grace_s,
            description=f"Liquity: {Status(status).name.lower()}" if known else None,
        )

    def _published_at(self, results: Sequence[bytes | None], price: int) -> int | None:
        found = None if self.feed is None else round_of(results[3:])
        if found is None or found.answer <= 0:
            return None
        try:
            scaled = ChainlinkResponse(answer=found.answer, decimals=found.decimals).price
        except Reverted:
            return None
        return found.updated_at if scaled == price else None
