"""Maker's oracles: the median that feeds sign, and the module that delays it by an hour.

Contracts: ``median.sol`` of makerdao/median (0316acd) and ``osm.sol`` of makerdao/osm (e36c874b). Both hold
18 digits in 128 bits; both answer accounts on their lists only, and revert for everybody else.

Traps: a source that has no price makes ``poke`` of the module do nothing, so that its price stays as it is
for ever while all looks well. Turns begin at whole hours: a price that was taken late in a turn takes effect
with the next, minutes later; one that was taken early is two hours old when its turn ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from pydantic import Field

from contracts_abi.calls import Call, function
from oracle.fields import Address
from oracle.interfaces import AuthorityFacts, FeedContext
from oracle.sources import sources
from oracle.sources.answers import ContractSource, output, outputs
from oracle.sources.chronicle import BUD, not_listed, quorum_of
from oracle.types import FeedKind, PriceObs, Reading

DECIMALS = 18
HOP_S = 3_600
"""Length of a turn of the module as it is deployed."""

MEDIAN_SLOT = 1
"""Storage slot of the median's value and age."""
CUR_SLOT = 3
NXT_SLOT = 4
"""Storage slots of the module's current and next price."""

MEDIAN_PEEK = function("peek()(uint256,bool)")
AGE = function("age()(uint32)")
BAR = function("bar()(uint256)")

PEEK = function("peek()(bytes32,bool)")
PEEP = function("peep()(bytes32,bool)")
ZZZ = function("zzz()(uint64)")
HOP = function("hop()(uint16)")
STOPPED = function("stopped()(uint256)")
SRC = function("src()(address)")

_LOW_128 = 2**128 - 1


def median_of_slot(word: int) -> tuple[int, int]:
    """Return value and age of the median from the word of `MEDIAN_SLOT`, for those who may not read it."""
    return word & _LOW_128, (word >> 128) & (2**32 - 1)


def feed_of_slot(word: int) -> tuple[int, bool]:
    """Return price and whether there is one from the word of `CUR_SLOT` or `NXT_SLOT`."""
    return word & _LOW_128, word >> 128 == 1


@dataclass(frozen=True, slots=True)
class Delayed:
    """What the module keeps.

    Attributes
    ----------
    current, upcoming
        Price in effect, and the one that takes effect with the next turn; None for none.
    turn
        Start of the turn, unix seconds (``zzz``).
    """

    current: int | None
    upcoming: int | None
    turn: int


def may_poke(turn: int, hop_s: int, now: int) -> bool:
    """Return whether the next turn may begin (``pass``)."""
    return now >= turn + hop_s


def poke(state: Delayed, said: int | None, hop_s: int, now: int) -> Delayed:
    """Return what ``poke`` leaves behind, at a time when it may be called.

    Parameters
    ----------
    state
        Left behind by the call before.
    said
        What the source says now; with None nothing happens.
    hop_s
        Length of a turn.
    now
        Block time, unix seconds.
    """
    if said is None:
        return state
    return Delayed(state.upcoming, said & _LOW_128, now - now % hop_s)


@sources.register("maker_median")
class MedianSource(ContractSource):
    """Maker's median of signed prices, as accounts on its list of readers can read it.

    Attributes
    ----------
    base, quote
        Symbols of the pair.
    address
        The median contract to read.
    name
        Source id; ``maker_median:<address>`` by default.
    reader
        Account that the reads come from, to say why they fail when it is not on the list.
    min_signers
        Least number of feeds that must have signed.
    heartbeat_s, grace_s
        What the feed promises.
    """

    kind: ClassVar[Literal["maker_median"]] = "maker_median"

    reader: Address | None = None
    min_signers: int | None = Field(default=None, gt=0)
    heartbeat_s: int | None = Field(default=None, gt=0)
    grace_s: int = Field(default=300, ge=0)

    def reads(self) -> list[Call[Any]]:
        """Return value and time, how many sign, and whether we may read."""
        own = [f.call(self.address) for f in (MEDIAN_PEEK, AGE, BAR)]
        return own if self.reader is None else [*own, BUD.call(self.address, self.reader)]

    def decode(self, results: Sequence[bytes | None], *, block: int, timestamp: int) -> Reading:
        """Return the median, as old as the block that stored it; the signatures may be older."""
        values, age = outputs(MEDIAN_PEEK, results[0]), output(AGE, results[1])
        if values is None:
            why = "" if self.reader is None else not_listed(self.reader, results[3])
            return self._no_data(f"peek() gave no value{why}", results[0], block, timestamp)
        value, has = values
        if not has:
            return self._no_data("the contract has no value", results[0], block, timestamp)
        if not age:
            return self._no_data("age() gave no time", results[0], block, timestamp)
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
        """Return the configured promises and the number of signers."""
        return FeedContext(
            now=timestamp,
            heartbeat_s=self.heartbeat_s,
            grace_s=self.grace_s,
            quorum=quorum_of(output(BAR, results[2]), self.min_signers),
        )


@sources.register("maker_osm")
class OsmSource(ContractSource):
    """Maker's price in effect, as accounts on the list of the oracle security module can read it.

    Its time is when its turn began. It was taken from the source in a turn before that one, so that the
    market it tells of is older by up to the length of a turn, or by more where nobody called in time.

    Attributes
    ----------
    base, quote
        Symbols of the pair.
    address
        The oracle security module to read.
    name
        Source id; ``maker_osm:<address>`` by default.
    reader
        Account that the reads come from, to say why they fail when it is not on the list.
    source
        Contract whose price was attested; another one, or a module that is stopped, is told as a change.
    grace_s
        Allowance on top of the length of a turn, which the contract says.
    """

    kind: ClassVar[Literal["maker_osm"]] = "maker_osm"

    reader: Address | None = None
    source: Address | None = None
    grace_s: int = Field(default=300, ge=0)

    def reads(self) -> list[Call[Any]]:
        """Return both prices, the turn and its length, what the module stands on, and whether we may read."""
        own = [f.call(self.address) for f in (PEEK, PEEP, ZZZ, HOP, STOPPED, SRC)]
        return own if self.reader is None else [*own, BUD.call(self.address, self.reader)]

    def decode(self, results: Sequence[bytes | None], *, block: int, timestamp: int) -> Reading:
        """Return the price in effect, 18 digits."""
        return self._price(PEEK, results[0], results, block, timestamp)

    def upcoming(self, results: Sequence[bytes | None], *, block: int, timestamp: int) -> Reading:
        """Return the price that takes effect with the next turn; readers on the list know it by now."""
        reading = self._price(PEEP, results[1], results, block, timestamp)
        # It was taken some time after the turn began; how long after is not kept.
        return replace(reading, published_at=None) if isinstance(reading, PriceObs) else reading

    def context(self, results: Sequence[bytes | None], *, timestamp: int) -> FeedContext:
        """Return the length of a turn as heartbeat, and what is no longer as it was attested."""
        return FeedContext(
            now=timestamp,
            heartbeat_s=output(HOP, results[3]) or None,
            grace_s=self.grace_s,
            authority=self._authority(results),
        )

    def _authority(self, results: Sequence[bytes | None]) -> AuthorityFacts | None:
        stopped, source = output(STOPPED, results[4]), output(SRC, results[5])
        if self.source is None or stopped is None or source is None:
            return None
        changes = [f"source was {self.source}, is {source}"] if source != self.source else []
        return AuthorityFacts(tuple([*changes, "the module is stopped"] if stopped else changes))

    def _price(
        self, getter: Any, answer: bytes | None, results: Sequence[bytes | None], block: int, timestamp: int
    ) -> Reading:
        values, turn = outputs(getter, answer), output(ZZZ, results[2])
        if values is None:
            why = "" if self.reader is None else not_listed(self.reader, results[6])
            return self._no_data(f"{getter.name}() gave no price{why}", answer, block, timestamp)
        price, has = values
        if not has:
            return self._no_data(f"{getter.name}() has no price", answer, block, timestamp)
        if not turn:
            return self._no_data("zzz() gave no time", answer, block, timestamp)
        return PriceObs(
            self.base,
            self.quote,
            int.from_bytes(price, "big"),
            DECIMALS,
            FeedKind.PUSH,
            self.source_id,
            published_at=turn,
            observed_at=timestamp,
            block=block,
            raw=answer or b"",
        )
