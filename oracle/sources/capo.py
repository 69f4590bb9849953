"""Aave's correlated-assets price oracles (CAPO): a rate that may only grow so fast, a stablecoin under a cap.

Contracts: ``PriceCapAdapterBase.sol``, ``PriceCapAdapterStable.sol`` of bgd-labs/aave-capo (2c280ef9). A cap
grows linearly, not compounding, and in whole units of 1e-6 a second. Both adapters answer ``latestAnswer()``
alone: no round and no time.

What the contracts do not check: the age of the base price, and whether a new snapshot lies below the ratio of
the moment. On 2026-03-10 a snapshot ratio that a rule of the updater had limited was written with the time of
seven days before, and the cap stood 2.84 % under the market.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from contracts_abi.calls import Call, function
from contracts_abi.feeds import DECIMALS, LATEST_ANSWER
from oracle.fields import Address
from oracle.interfaces import CapFacts, FeedContext, RateFacts
from oracle.sources import sources
from oracle.sources.answers import (
    INT256_MAX,
    ROUND_READS,
    ContractSource,
    Round,
    divide,
    output,
    round_of,
    round_reads,
)
from oracle.types import FeedKind, PriceObs, Reading

SCALING_FACTOR = 10**6
PERCENTAGE_FACTOR = 10**4
SECONDS_PER_YEAR = 365 * 86_400
MAXIMUM_SNAPSHOT_TERM = 180 * 86_400
RATIO_DECIMALS_RANGE = range(8, 25)
MAX_STABLE_CAP = 2 * 10**8

GET_RATIO = function("getRatio()(int256)")
RATIO_DECIMALS = function("RATIO_DECIMALS()(uint8)")
SNAPSHOT_RATIO = function("getSnapshotRatio()(uint256)")
SNAPSHOT_TIMESTAMP = function("getSnapshotTimestamp()(uint256)")
GROWTH_PERCENT = function("getMaxYearlyGrowthRatePercent()(uint256)")
BASE_AGGREGATOR = function("BASE_TO_USD_AGGREGATOR()(address)")
ASSET_AGGREGATOR = function("ASSET_TO_USD_AGGREGATOR()(address)")
PRICE_CAP = function("getPriceCap()(int256)")


@dataclass(frozen=True, slots=True)
class CapParameters:
    """What a rate is capped by.

    Attributes
    ----------
    snapshot_ratio
        Ratio at the snapshot, at the adapter's scale of ratios.
    snapshot_at
        Unix seconds of the snapshot.
    growth_bps_year
        Growth that is allowed, basis points of the snapshot ratio a year.
    """

    snapshot_ratio: int
    snapshot_at: int
    growth_bps_year: int

    @property
    def growth_per_second_scaled(self) -> int:
        """Growth a second times `SCALING_FACTOR`, rounded down as the contract stores it."""
        yearly = self.snapshot_ratio * self.growth_bps_year * SCALING_FACTOR
        return yearly // PERCENTAGE_FACTOR // SECONDS_PER_YEAR

    def max_ratio(self, now: int) -> int | None:
        """Return the cap at `now` (``_getMaxRatio``); None before the snapshot: the contract reverts."""
        if now < self.snapshot_at:
            return None
        return (
            self.snapshot_ratio + self.growth_per_second_scaled * (now - self.snapshot_at) // SCALING_FACTOR
        )


def capped_price(
    base_price: int, ratio: int, parameters: CapParameters, ratio_decimals: int, now: int
) -> int | None:
    """Return ``PriceCapAdapterBase.latestAnswer``: the base price times the ratio, at most times its cap.

    Parameters
    ----------
    base_price
        Answer of the base feed; the result has its scale.
    ratio
        The rate of the moment.
    ratio_decimals
        Scale of ratios.
    now
        Block time, unix seconds.

    Returns
    -------
    int or None
        0 when either factor is not positive. None where the contract reverts: a product that does not fit
        256 bits, a time before the snapshot.
    """
    if base_price <= 0 or ratio <= 0:
        return 0
    cap = parameters.max_ratio(now)
    if cap is None:
        return None
    product = base_price * min(ratio, cap)
    return None if product > INT256_MAX else divide(product, 10**ratio_decimals)


def stable_price(price: int, cap: int) -> int:
    """Return ``PriceCapAdapterStable.latestAnswer``: the price, at most the cap, at least 0."""
    return cap if price > cap else max(price, 0)


def refused_parameters(
    new: CapParameters, stored_at: int, *, now: int, minimum_delay_s: int
) -> tuple[str, ...]:
    """Return why the contract would refuse these parameters (``_setCapParameters``); empty if it takes them.

    Parameters
    ----------
    stored_at
        Snapshot time that is stored; 0 at first.
    minimum_delay_s
        The adapter's ``MINIMUM_SNAPSHOT_DELAY``.
    """
    if new.snapshot_ratio == 0:
        return ("snapshot ratio is zero",)
    reasons = []
    if new.snapshot_at <= stored_at:
        reasons.append(f"snapshot time {new.snapshot_at} is not after the stored {stored_at}")
    if new.snapshot_at > now - minimum_delay_s:
        reasons.append(f"snapshot is younger than {minimum_delay_s} s")
    if new.snapshot_at < now - MAXIMUM_SNAPSHOT_TERM:
        reasons.append(f"snapshot is older than {MAXIMUM_SNAPSHOT_TERM} s")
    return tuple(reasons)


_CAPO_READS = (
    *(LATEST_ANSWER, DECIMALS, BASE_AGGREGATOR, GET_RATIO, RATIO_DECIMALS),
    *(SNAPSHOT_RATIO, SNAPSHOT_TIMESTAMP, GROWTH_PERCENT),
)


@sources.register("capo")
class CapoSource(ContractSource):
    """Aave's capped rate: base price times min(rate, cap), as ``PriceCapAdapterBase`` answers it.

    The adapter states no time. With `feed` it has the time of its base price; the rate is read live and has
    none.

    Attributes
    ----------
    base, quote
        Symbols of the pair.
    address
        The adapter contract to read.
    name
        Source id; ``capo:<address>`` by default.
    feed
        The adapter's ``BASE_TO_USD_AGGREGATOR``, for the time of the base price. Ignored while the adapter
        names another one.
    """

    kind: ClassVar[Literal["capo"]] = "capo"

    feed: Address | None = None

    def reads(self) -> list[Call[Any]]:
        """Return the answer, what the cap is made of, and the round of the base feed where it is known."""
        own = [f.call(self.address) for f in _CAPO_READS]
        return own if self.feed is None else [*own, *round_reads(self.feed)]

    def decode(self, results: Sequence[bytes | None], *, block: int, timestamp: int) -> Reading:
        """Return the answer, with the time of its base price."""
        behind = _behind(results, len(_CAPO_READS), output(BASE_AGGREGATOR, results[2]), self.feed)
        return _answer(self, results, behind, block, timestamp)

    def context(self, results: Sequence[bytes | None], *, timestamp: int) -> FeedContext:
        """Return the cap at `timestamp`, the live rate, and how fast it may grow."""
        ratio, decimals, snapshot, at, growth = (
            output(f, r) for f, r in zip(_CAPO_READS[3:], results[3 : len(_CAPO_READS)], strict=True)
        )
        legs = (FeedKind.PUSH, FeedKind.RATE)
        if None in (ratio, decimals, snapshot, at, growth):
            return FeedContext(now=timestamp, legs=legs)
        cap = CapParameters(snapshot, at, growth).max_ratio(timestamp)
        return FeedContext(
            now=timestamp,
            legs=legs,
            cap=None if cap is None else CapFacts(cap, ratio),
            rate=RateFacts(ratio, decimals, max_growth_bps_year=growth),
        )


_STABLE_READS = (LATEST_ANSWER, DECIMALS, ASSET_AGGREGATOR, PRICE_CAP)


@sources.register("capo_stable")
class CapoStableSource(ContractSource):
    """Aave's capped stablecoin: min(price, cap), as ``PriceCapAdapterStable`` answers it.

    Attributes
    ----------
    base, quote
        Symbols of the pair.
    address
        The adapter contract to read.
    name
        Source id; ``capo_stable:<address>`` by default.
    feed
        The adapter's ``ASSET_TO_USD_AGGREGATOR``, for its time and its uncapped price. Ignored while the
        adapter names another one.
    """

    kind: ClassVar[Literal["capo_stable"]] = "capo_stable"

    feed: Address | None = None

    def reads(self) -> list[Call[Any]]:
        """Return the answer, the cap, and the round of the feed behind where it is known."""
        own = [f.call(self.address) for f in _STABLE_READS]
        return own if self.feed is None else [*own, *round_reads(self.feed)]

    def decode(self, results: Sequence[bytes | None], *, block: int, timestamp: int) -> Reading:
        """Return the answer, with the time of the price behind it."""
        return _answer(self, results, self._round(results), block, timestamp)

    def context(self, results: Sequence[bytes | None], *, timestamp: int) -> FeedContext:
        """Return the cap and the live price, both at the adapter's scale."""
        cap, behind = output(PRICE_CAP, results[3]), self._round(results)
        return FeedContext(
            now=timestamp,
            legs=(FeedKind.PUSH,),
            cap=None if cap is None or behind is None else CapFacts(cap, behind.answer),
        )

    def _round(self, results: Sequence[bytes | None]) -> Round | None:
        return _behind(results, len(_STABLE_READS), output(ASSET_AGGREGATOR, results[2]), self.feed)


def _behind(results: Sequence[bytes | None], own: int, named: str | None, feed: str | None) -> Round | None:
    """Return the round of the feed behind an adapter, None while the adapter names another feed."""
    if feed is None or named != feed:
        return None
    return round_of(results[own : own + ROUND_READS])


def _answer(
    source: ContractSource,
    results: Sequence[bytes | None],
    behind: Round | None,
    block: int,
    timestamp: int,
) -> Reading:
    answer, decimals = output(LATEST_ANSWER, results[0]), output(DECIMALS, results[1])
    if answer is None:
        return source._no_data("latestAnswer() gave no answer", results[0], block, timestamp)
    if decimals is None:
        return source._no_data("decimals() gave no scale", results[0], block, timestamp)
    return PriceObs(
        source.base,
        source.quote,
        answer,
        decimals,
        FeedKind.COMPOSITE,
        source.source_id,
        published_at=None if behind is None else behind.updated_at,
        observed_at=timestamp,
        block=block,
        raw=results[0] or b"",
    )
