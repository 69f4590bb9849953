"""What a price source and a guard must offer. Both are plain data in, plain data out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol, runtime_checkable

from contracts_abi.calls import Call
from oracle.types import FeedKind, Finding, PriceObs, Reading


@dataclass(frozen=True, slots=True)
class SequencerFacts:
    """A layer-2 uptime feed: ``answer`` 0 is up, ``started_at`` the time of the last change (0: never)."""

    answer: int
    started_at: int


@dataclass(frozen=True, slots=True)
class AmmFacts:
    """What stands behind a price that a pool makes.

    Attributes
    ----------
    window_s
        Averaging window; 0 for a spot price.
    oldest_s
        Age of the oldest observation that the pool keeps.
    cardinality
        Observations that the pool can keep.
    harmonic_liquidity
        Harmonic mean liquidity over the window, the pool's own unit.
    depth_usd, exposure_usd
        What moves the price by the deviation cap, and what the protocol lends against it, whole dollars.
    spot_mantissa
        The spot price at the reading's scale.
    traded_in_block
        Whether the pool was traded in the block of the reading.
    """

    window_s: int
    oldest_s: int | None = None
    cardinality: int | None = None
    harmonic_liquidity: int | None = None
    depth_usd: int | None = None
    exposure_usd: int | None = None
    spot_mantissa: int | None = None
    traded_in_block: bool | None = None


@dataclass(frozen=True, slots=True)
class RateFacts:
    """An exchange rate, and what may move it.

    Attributes
    ----------
    rate, decimals
        The rate as the contract states it.
    total_assets_raw, total_supply_raw
        Of the vault or wrapper.
    max_growth_bps_year
        Growth that is plausible, linear, basis points a year.
    """

    rate: int
    decimals: int
    total_assets_raw: int | None = None
    total_supply_raw: int | None = None
    max_growth_bps_year: int | None = None


@dataclass(frozen=True, slots=True)
class CapFacts:
    """A capped rate: the cap that stands now, and the live rate at the same scale."""

    cap: int
    live: int


@dataclass(frozen=True, slots=True)
class AuthorityFacts:
    """Who may set the price.

    Attributes
    ----------
    changes
        What changed since the feed was attested, one line each: aggregator, phase, owner, implementation.
    setters, attested
        Accounts that can set the price, and those that were allowed to; None when unknown.
    """

    changes: tuple[str, ...] = ()
    setters: frozenset[str] | None = None
    attested: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class QuorumFacts:
    """How many providers stood behind the reading, and how many there must be."""

    providers: int
    minimum: int


@dataclass(frozen=True, slots=True)
class VenueFacts:
    """Where the price is made, and what is lent against it.

    Attributes
    ----------
    share_bps
        Share of the largest single venue in the volume that makes the price.
    own_token
        Whether the collateral is issued by the protocol or the borrower himself.
    exposure_usd, depth_usd
        What is borrowed against the asset, and what can be sold within the slippage cap, whole dollars.
    """

    share_bps: int | None = None
    own_token: bool | None = None
    exposure_usd: int | None = None
    depth_usd: int | None = None


@dataclass(frozen=True, slots=True)
class ExecutionFacts:
    """When the action was ordered, and how far prices lie between two updates.

    Attributes
    ----------
    ordered_at
        Unix seconds at which the action was committed; a price published before it can be picked.
    min_delay_s
        Least time between publication and use, such as a dispute window.
    """

    ordered_at: int | None = None
    min_delay_s: int | None = None


@dataclass(frozen=True, slots=True)
class LivenessFacts:
    """Whether liquidators can act: gas against their cap, their inventory, and how many bid."""

    base_fee_wei: int | None = None
    fee_cap_wei: int | None = None
    inventory_usd: int | None = None
    needed_usd: int | None = None
    bidders: int | None = None


class MarketStatus(StrEnum):
    """Whether the market of a real-world asset is open."""

    UNKNOWN = "unknown"
    OPEN = "open"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class FeedContext:
    """What is known of a feed from outside its readings. None is unknown, never harmless.

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
    description
        What the contract calls itself, for example ``ETH / USD``.
    known
        Trusted readings of other pairs at the same time, to recognise a swapped feed or a missing leg.
    legs
        Kinds of the parts that the price is composed of.
    sequencer, amm, rate, cap, authority, quorum, venue, execution, liveness, market_status
        See the types.
    locked
        Whether a probe found the pool behind the price inside a call (read-only reentrancy).
    markets
        Name of each market of the protocol to whether its price can be read.
    """

    now: int
    heartbeat_s: int | None = None
    grace_s: int = 300
    deviation_bps: int | None = None
    min_answer: int | None = None
    max_answer: int | None = None
    description: str | None = None
    known: Mapping[str, PriceObs] = field(default_factory=dict)
    legs: tuple[FeedKind, ...] = ()
    sequencer: SequencerFacts | None = None
    amm: AmmFacts | None = None
    rate: RateFacts | None = None
    cap: CapFacts | None = None
    authority: AuthorityFacts | None = None
    quorum: QuorumFacts | None = None
    venue: VenueFacts | None = None
    execution: ExecutionFacts | None = None
    liveness: LivenessFacts | None = None
    market_status: MarketStatus | None = None
    locked: bool | None = None
    markets: Mapping[str, bool] | None = None


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
