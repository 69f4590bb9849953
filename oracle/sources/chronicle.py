"""Chronicle: the value that a set of validators signed together, for readers on a list.

Contracts: ``Scribe.sol`` and ``ScribeOptimistic.sol`` of chronicleprotocol/scribe (12ff06c),
``tryReadWithAge()``; a value has 18 digits and is none when it is zero.

Traps: what is called age is a time, not a span, and it is the time of the block that stored the value; the
signatures may be older. Reading is for accounts on the list only: everybody else's call reverts, and a call
without a sender is everybody else's. An optimistic value counts after its challenge period, until which the
one before it stands; nobody has checked its signatures then but those who might have challenged it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field

from contracts_abi.calls import Call, function
from oracle.fields import Address
from oracle.interfaces import FeedContext, QuorumFacts
from oracle.sources import sources
from oracle.sources.answers import ContractSource, output, outputs
from oracle.types import FeedKind, PriceObs, Reading

DECIMALS = 18

TRY_READ_WITH_AGE = function("tryReadWithAge()(bool,uint256,uint256)")
BAR = function("bar()(uint8)")
WAT = function("wat()(bytes32)")
BUD = function("bud(address)(uint256)")
"""One for an account on the list; Maker's contracts have it under the same name."""


def short_text(value: bytes | None) -> str | None:
    """Return the ASCII text in a word that is filled up with zeros; None when it is none."""
    try:
        text = (value or b"").rstrip(b"\0").decode("ascii")
    except UnicodeDecodeError:
        return None
    return text if text.isprintable() and text else None


def not_listed(reader: str | None, answer: bytes | None) -> str:
    """Return what to add to a read's failure when the reader is known not to be on the list."""
    if reader is None or output(BUD, answer) != 0:
        return ""
    return f": {reader} is not on its list of readers"


@sources.register("chronicle")
class ChronicleSource(ContractSource):
    """Chronicle's value of one pair, as accounts on its list of readers can read it.

    Attributes
    ----------
    base, quote
        Symbols of the pair.
    address
        The Scribe contract to read.
    name
        Source id; ``chronicle:<address>`` by default.
    reader
        Account that the reads come from, to say why they fail when it is not on the list.
    min_signers
        Least number of validators that must have signed.
    heartbeat_s, grace_s
        What the feed promises.
    """

    kind: ClassVar[Literal["chronicle"]] = "chronicle"

    reader: Address | None = None
    min_signers: int | None = Field(default=None, gt=0)
    heartbeat_s: int | None = Field(default=None, gt=0)
    grace_s: int = Field(default=300, ge=0)

    def reads(self) -> list[Call[Any]]:
        """Return value and time, how many sign, what the contract calls itself, and whether we may read."""
        own = [f.call(self.address) for f in (TRY_READ_WITH_AGE, BAR, WAT)]
        return own if self.reader is None else [*own, BUD.call(self.address, self.reader)]

    def decode(self, results: Sequence[bytes | None], *, block: int, timestamp: int) -> Reading:
        """Return the value, as old as the block that stored it."""
        values = outputs(TRY_READ_WITH_AGE, results[0])
        if values is None:
            why = "" if self.reader is None else not_listed(self.reader, results[3])
            return self._no_data(f"tryReadWithAge() gave no value{why}", results[0], block, timestamp)
        ok, value, age = values
        if not ok or value == 0 or age == 0:
            return self._no_data("the contract has no value", results[0], block, timestamp)
        return PriceObs(
            self.base,
            self.quote,
            value,
            DECIMALS,
            FeedKind.PUSH,
            self.source_id,
            published_at=age,
            observed_at=timestamp,
            block=block,
            raw=results[0] or b"",
        )

    def context(self, results: Sequence[bytes | None], *, timestamp: int) -> FeedContext:
        """Return the configured promises, the number of signers, and what the contract calls itself."""
        return FeedContext(
            now=timestamp,
            heartbeat_s=self.heartbeat_s,
            grace_s=self.grace_s,
            description=short_text(output(WAT, results[2])),
            quorum=quorum_of(output(BAR, results[1]), self.min_signers),
        )


def quorum_of(signers: int | None, minimum: int | None) -> QuorumFacts | None:
    """Return how many sign and how many must; None unless both are known."""
    return None if signers is None or minimum is None else QuorumFacts(signers, minimum)
