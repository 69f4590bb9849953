"""Compound III's price feeds: an answer at another scale, and products of two feeds.

Contracts: ``ScalingPriceFeed.sol``, ``MultiplicativePriceFeed.sol``, ``ReverseMultiplicativePriceFeed.sol``
of compound-finance/comet (d5a30b0a, Solidity 0.8.15). Comet itself only checks that the price is positive.

Trap: the products return round id and times of feed B only. Feed A may be years old and a check of
``updatedAt`` passes. `MultiplicativeSource` takes the older time of the two, and says by how much the
contract hides it (`MultiplicativeSource.hidden_age_s`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field

from contracts_abi.calls import Call, function
from contracts_abi.feeds import DECIMALS, DESCRIPTION, LATEST_ROUND_DATA, split_round_id
from oracle.fields import Address
from oracle.interfaces import FeedContext
from oracle.sources import sources
from oracle.sources.answers import (
    INT256_MAX,
    ROUND_READS,
    ContractSource,
    Round,
    divide,
    output,
    outputs,
    round_of,
    round_reads,
)
from oracle.types import FeedKind, PriceObs, Reading

MAX_DECIMALS = 18

FEED_A = function("priceFeedA()(address)")
FEED_B = function("priceFeedB()(address)")
UNDERLYING = function("underlyingPriceFeed()(address)")


def scaled_answer(answer: int, from_decimals: int, to_decimals: int) -> int | None:
    """Return ``ScalingPriceFeed.scalePrice``: the answer at another scale, cut towards zero.

    None where the contract reverts: a result that does not fit 256 bits.
    """
    if from_decimals < to_decimals:
        return _word(answer * 10 ** (to_decimals - from_decimals))
    return divide(answer, 10 ** (from_decimals - to_decimals))


def product_answer(a: int, b: int, a_decimals: int, b_decimals: int, decimals: int) -> int | None:
    """Return the answer of ``MultiplicativePriceFeed``: a times b, cut towards zero.

    0 when either factor is not positive: what a consumer makes of that is its own affair. None where the
    contract reverts: the product of all three factors has to fit 256 bits before it is divided.
    """
    if a <= 0 or b <= 0:
        return 0
    if _word(a * b) is None or (product := _word(a * b * 10**decimals)) is None:
        return None
    return divide(product, 10 ** (a_decimals + b_decimals))


def ratio_answer(a: int, b: int, a_decimals: int, b_decimals: int, decimals: int) -> int | None:
    """Return the answer of ``ReverseMultiplicativePriceFeed``: a over b, cut towards zero at each division.

    0 when either is not positive, None where the contract reverts, as in `product_answer`.
    """
    if a <= 0 or b <= 0:
        return 0
    if _word(a * 10**b_decimals) is None or (product := _word(a * 10**b_decimals * 10**decimals)) is None:
        return None
    return divide(divide(product, b), 10**a_decimals)


def _word(value: int) -> int | None:
    return value if -INT256_MAX - 1 <= value <= INT256_MAX else None


_ROUND = (LATEST_ROUND_DATA, DECIMALS)


@sources.register("comet_scaling")
class ScalingSource(ContractSource):
    """Compound's scaling feed: another feed's round with the answer at another scale.

    Attributes
    ----------
    base, quote
        Symbols of the pair.
    address
        The scaling feed to read.
    name
        Source id; ``comet_scaling:<address>`` by default.
    heartbeat_s, grace_s
        What the feed behind promises.
    """

    kind: ClassVar[Literal["comet_scaling"]] = "comet_scaling"

    heartbeat_s: int | None = Field(default=None, gt=0)
    grace_s: int = Field(default=300, ge=0)

    def reads(self) -> list[Call[Any]]:
        """Return the round, its scale and what the feed calls itself."""
        return [f.call(self.address) for f in (*_ROUND, DESCRIPTION)]

    def decode(self, results: Sequence[bytes | None], *, block: int, timestamp: int) -> Reading:
        """Return the latest round; its times and ids are those of the feed behind."""
        return _round_reading(self, results, FeedKind.PUSH, block, timestamp)

    def context(self, results: Sequence[bytes | None], *, timestamp: int) -> FeedContext:
        """Return the configured promises and the description."""
        return FeedContext(
            now=timestamp,
            heartbeat_s=self.heartbeat_s,
            grace_s=self.grace_s,
            description=output(DESCRIPTION, results[2]),
        )


@sources.register("comet_multiplicative")
class MultiplicativeSource(ContractSource):
    """Compound's multiplicative feed: the product of two feeds, as old as the older of them.

    The contract passes on the times of feed B alone. Without `feeds` the age of the price is therefore
    unknown, whatever the contract says.

    Attributes
    ----------
    base, quote
        Symbols of the pair.
    address
        The multiplicative feed; the reverse one has the same functions.
    name
        Source id; ``comet_multiplicative:<address>`` by default.
    feeds
        Feed A and feed B, for their times. Ignored while the contract names others.
    heartbeat_s, grace_s
        The longer promise of the two feeds.
    """

    kind: ClassVar[Literal["comet_multiplicative"]] = "comet_multiplicative"

    feeds: tuple[Address, Address] | None = None
    heartbeat_s: int | None = Field(default=None, gt=0)
    grace_s: int = Field(default=300, ge=0)

    def reads(self) -> list[Call[Any]]:
        """Return the product's round and legs, and the legs' own rounds where they are known."""
        own = [f.call(self.address) for f in (*_ROUND, DESCRIPTION, FEED_A, FEED_B)]
        return own if self.feeds is None else [*own, *(r for feed in self.feeds for r in round_reads(feed))]

    def decode(self, results: Sequence[bytes | None], *, block: int, timestamp: int) -> Reading:
        """Return the product with the older time of both legs; without legs it has no time."""
        rounds = self._legs(results)
        oldest = None if rounds is None else min(leg.updated_at for leg in rounds)
        return _round_reading(self, results, FeedKind.COMPOSITE, block, timestamp, oldest)

    def context(self, results: Sequence[bytes | None], *, timestamp: int) -> FeedContext:
        """Return the configured promises and the description."""
        return FeedContext(
            now=timestamp,
            heartbeat_s=self.heartbeat_s,
            grace_s=self.grace_s,
            description=output(DESCRIPTION, results[2]),
            legs=(FeedKind.PUSH, FeedKind.PUSH),
        )

    def hidden_age_s(self, results: Sequence[bytes | None]) -> int | None:
        """Return by how many seconds the contract makes its price younger than its oldest leg.

        None when the legs are not known.
        """
        rounds, stated = self._legs(results), round_of(results[:ROUND_READS])
        if rounds is None or stated is None:
            return None
        return max(0, stated.updated_at - min(leg.updated_at for leg in rounds))

    def _legs(self, results: Sequence[bytes | None]) -> tuple[Round, Round] | None:
        if self.feeds is None or (output(FEED_A, results[3]), output(FEED_B, results[4])) != self.feeds:
            return None
        a, b = round_of(results[5:7]), round_of(results[7:9])
        return None if a is None or b is None else (a, b)


def _round_reading(
    source: ContractSource,
    results: Sequence[bytes | None],
    kind: FeedKind,
    block: int,
    timestamp: int,
    oldest: int | None = None,
) -> Reading:
    """Return the round of a wrapper; a composite one has the time `oldest`, any other its own."""
    if outputs(LATEST_ROUND_DATA, results[0]) is None:
        return source._no_data("latestRoundData() gave no round", results[0], block, timestamp)
    if output(DECIMALS, results[1]) is None:
        return source._no_data("decimals() gave no scale", results[0], block, timestamp)
    found = round_of(results)
    if found is None:
        return source._no_data("the round behind it was never written", results[0], block, timestamp)
    composite = kind is FeedKind.COMPOSITE
    return PriceObs(
        source.base,
        source.quote,
        found.answer,
        found.decimals,
        kind,
        source.source_id,
        published_at=oldest if composite else found.updated_at,
        observed_at=timestamp,
        block=block,
        # Of a product the ids say nothing: they are those of one leg.
        round_key=None if composite else tuple(split_round_id(found.round_id)),
        answered_key=None if composite else tuple(split_round_id(found.answered_in)),
        raw=results[0] or b"",
    )
