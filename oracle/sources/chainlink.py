"""Chainlink AggregatorV3 feeds, and what imitates them.

A feed is a proxy in front of an aggregator. The proxy answers ``latestRoundData()`` and names the aggregator;
the bounds live on the aggregator, and so does the rest of what a guard wants to know. Some contracts that a
protocol reads have ``latestAnswer()`` only (AaveOracle needs no more); a wrapper of that kind usually exposes
the feed behind it, which is then asked for the time.

Contracts: ``AggregatorProxy.sol``, ``EACAggregatorProxy.sol``, ``FluxAggregator.sol`` of
@chainlink/contracts 0.8.0 (src/v0.6); OCR aggregators behave alike but answer zeros for a missing round.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, ClassVar, Literal

from eth_utils.address import is_address, to_checksum_address
from pydantic import Field, field_validator

from contracts_abi.calls import Call, Function, function
from contracts_abi.errors import DataError, InputError
from contracts_abi.feeds import (
    AGGREGATOR,
    DECIMALS,
    DESCRIPTION,
    LATEST_ANSWER,
    LATEST_ROUND_DATA,
    MAX_ANSWER,
    MIN_ANSWER,
    PHASE_ID,
    split_round_id,
)
from oracle.interfaces import FeedContext
from oracle.sources import sources
from oracle.strict import StrictModel
from oracle.types import FeedKind, NoData, PriceObs, Reading

ZERO_ADDRESS = "0x" + "00" * 20

# FluxAggregator.sol, before OCR.
MIN_SUBMISSION = function("minSubmissionValue()(int256)")
MAX_SUBMISSION = function("maxSubmissionValue()(int256)")

# How wrappers name the feed behind them: Aave's CAPO and stablecoin adapters, then common names.
BEHIND = tuple(
    function(f"{name}()(address)")
    for name in ("ASSET_TO_USD_AGGREGATOR", "BASE_TO_USD_AGGREGATOR", "feed", "priceFeed", "source")
)

MAX_DEPTH = 4
"""How many wrappers deep a resolution goes before it gives up on a time."""


class FeedShape(StrEnum):
    """What a feed address turned out to be."""

    PROXY = "proxy"
    AGGREGATOR = "aggregator"
    ANSWER_ONLY = "answer_only"


@dataclass(frozen=True, slots=True)
class ChainlinkFeed:
    """What is known of a feed after it was resolved, at the block where it was.

    Attributes
    ----------
    address
        The contract that a protocol reads.
    shape
        `PROXY` names an aggregator, `AGGREGATOR` has rounds of its own, `ANSWER_ONLY` has
        ``latestAnswer()`` and no time.
    description, decimals
        As the contract says.
    phase
        Phase of the proxy; 0 without phases.
    aggregator
        Where the bounds live: the proxy's aggregator, the aggregator itself, None for `ANSWER_ONLY`.
    min_answer, max_answer
        The aggregator's bounds; None when it has none.
    flux_bounds
        Whether they go by the names of FluxAggregator.
    behind
        The feed that an `ANSWER_ONLY` wrapper reads, where it exposes one.
    """

    address: str
    shape: FeedShape
    description: str
    decimals: int
    phase: int = 0
    aggregator: str | None = None
    min_answer: int | None = None
    max_answer: int | None = None
    flux_bounds: bool = False
    behind: ChainlinkFeed | None = None


@dataclass(frozen=True, slots=True)
class Resolving:
    """A resolution under way: execute `reads` at one block and pass the answers to `next`.

    Attributes
    ----------
    reads
        What to ask now; a failed read's answer is None.
    proceed
        The continuation.
    """

    reads: tuple[Call[Any], ...]
    proceed: Callable[[Sequence[bytes | None]], Resolving | ChainlinkFeed]

    def next(self, results: Sequence[bytes | None]) -> Resolving | ChainlinkFeed:
        """Return the next step, or the feed when there is nothing more to ask.

        Raises
        ------
        InputError
            If the address turns out not to be a price feed.
        ValueError
            If there are not as many results as reads.
        """
        if len(results) != len(self.reads):
            raise ValueError(f"{len(results)} results for {len(self.reads)} reads")
        return self.proceed(results)


def _answer(call: Function, data: bytes | None) -> tuple[Any, ...] | None:
    """Return the decoded outputs, None when the read failed or answered something else."""
    if not data:
        return None
    try:
        return call.decode(data)
    except DataError:
        return None


def _one(call: Function, data: bytes | None) -> Any:
    values = _answer(call, data)
    return None if values is None else values[0]


_FIRST = (LATEST_ROUND_DATA, LATEST_ANSWER, DECIMALS, DESCRIPTION, PHASE_ID, AGGREGATOR, *BEHIND)
_BOUNDS = (MIN_ANSWER, MAX_ANSWER, MIN_SUBMISSION, MAX_SUBMISSION)


def resolve_reads(address: str) -> tuple[Call[Any], ...]:
    """Return the first reads of a resolution: everything that any shape of feed may answer."""
    return tuple(f.call(address) for f in _FIRST)


def resolve(address: str, *, depth: int = MAX_DEPTH) -> Resolving:
    """Start to resolve `address`: proxy, then aggregator and bounds; wrapper, then the feed behind it.

    Parameters
    ----------
    address
        The contract that a protocol reads a price from.
    depth
        How many wrappers to look through.

    Returns
    -------
    Resolving
        Its reads are `resolve_reads`; drive it with `complete` or by hand.

    Raises
    ------
    InputError
        If `address` is none; later, from `Resolving.next`, if there is no feed at it.
    """

    if not is_address(address):
        raise InputError(f"{address!r} is not an address", fix="give 0x and 40 hex digits")
    checksummed = to_checksum_address(address)

    def proceed(results: Sequence[bytes | None]) -> Resolving | ChainlinkFeed:
        return _after_first(checksummed, depth, results)

    return Resolving(resolve_reads(checksummed), proceed)


def complete(
    step: Resolving | ChainlinkFeed, execute: Callable[[Sequence[Call[Any]]], Sequence[bytes | None]]
) -> ChainlinkFeed:
    """Drive a resolution to its end; `execute` answers a list of reads, None for each that failed."""
    while isinstance(step, Resolving):
        step = step.next(execute(step.reads))
    return step


def _after_first(address: str, depth: int, results: Sequence[bytes | None]) -> Resolving | ChainlinkFeed:
    answers = dict(zip((f.name for f in _FIRST), results, strict=True))
    decimals = _one(DECIMALS, answers["decimals"])
    description = _one(DESCRIPTION, answers["description"]) or ""
    has_rounds = _answer(LATEST_ROUND_DATA, answers["latestRoundData"]) is not None
    has_answer = _answer(LATEST_ANSWER, answers["latestAnswer"]) is not None
    aggregator = _one(AGGREGATOR, answers["aggregator"])
    if decimals is None or not (has_rounds or has_answer or aggregator):
        raise InputError(
            f"{address} is not a price feed: "
            + (
                "it has no decimals()" if decimals is None else "neither latestRoundData() nor latestAnswer()"
            ),
            fix="check the address and the chain",
        )
    if has_rounds or aggregator:
        proxied = aggregator not in (None, ZERO_ADDRESS)
        feed = ChainlinkFeed(
            address,
            FeedShape.PROXY if proxied else FeedShape.AGGREGATOR,
            description,
            decimals,
            _one(PHASE_ID, answers["phaseId"]) or 0,
            aggregator if proxied else address,
        )
        return _bounds(feed)
    plain = ChainlinkFeed(address, FeedShape.ANSWER_ONLY, description, decimals)
    behind = [
        found
        for getter in BEHIND
        if (found := _one(getter, answers[getter.name])) not in (None, ZERO_ADDRESS, address)
    ]
    if not behind or depth == 0:
        return plain
    return _behind(plain, resolve(behind[0], depth=depth - 1))


def _behind(plain: ChainlinkFeed, step: Resolving) -> Resolving:
    """Continue `step` for the sake of `plain`; if it ends in no feed at all, `plain` has none behind it."""

    def proceed(results: Sequence[bytes | None]) -> Resolving | ChainlinkFeed:
        try:
            found = step.next(results)
        except InputError:
            return plain
        return _behind(plain, found) if isinstance(found, Resolving) else replace(plain, behind=found)

    return Resolving(step.reads, proceed)


def _bounds(feed: ChainlinkFeed) -> Resolving:
    """Ask the aggregator for its bounds, under the names of OCR and of Flux aggregators."""
    target = feed.aggregator or feed.address

    def proceed(results: Sequence[bytes | None]) -> ChainlinkFeed:
        low, high, flux_low, flux_high = (_one(f, r) for f, r in zip(_BOUNDS, results, strict=True))
        if low is None and high is None:
            flux = flux_low is not None or flux_high is not None
            return replace(feed, min_answer=flux_low, max_answer=flux_high, flux_bounds=flux)
        return replace(feed, min_answer=low, max_answer=high)

    return Resolving(tuple(f.call(target) for f in _BOUNDS), proceed)


_ROUND_READS = (LATEST_ROUND_DATA, DECIMALS, DESCRIPTION, PHASE_ID, AGGREGATOR)
_ANSWER_READS = (LATEST_ANSWER, DECIMALS)


@sources.register("chainlink")
class ChainlinkSource(StrictModel):
    """One feed with the AggregatorV3 interface, or with ``latestAnswer()`` alone.

    Until `feed` is known the address is read as a proxy without bounds.

    Attributes
    ----------
    base, quote
        Symbols of the pair.
    address
        The proxy, aggregator or wrapper to read.
    name
        Source id; ``chainlink:<address>`` by default.
    heartbeat_s, deviation_bps
        What the feed promises. They are configuration of the oracle network and stand on no contract.
    grace_s
        Allowance on top of the heartbeat.
    feed
        What `resolve` made of the address.
    """

    kind: ClassVar[Literal["chainlink"]] = "chainlink"

    base: str
    quote: str
    address: str
    name: str | None = None
    heartbeat_s: int | None = Field(default=None, gt=0)
    deviation_bps: int | None = Field(default=None, gt=0)
    grace_s: int = Field(default=300, ge=0)
    feed: ChainlinkFeed | None = None

    @field_validator("address")
    @classmethod
    def _checksummed(cls, value: str) -> str:
        if not is_address(value):
            raise ValueError("not an address: 0x and 40 hex digits are needed")
        return to_checksum_address(value)

    @property
    def source_id(self) -> str:
        """Unique name within a configuration."""
        return self.name or f"chainlink:{self.address}"

    def resolved(self, feed: ChainlinkFeed) -> ChainlinkSource:
        """Return this source with its feed known.

        Raises
        ------
        ValueError
            If `feed` is of another address.
        """
        if feed.address != self.address:
            raise ValueError(f"feed {feed.address} is not {self.address}")
        return self.model_copy(update={"feed": feed})

    def reads(self) -> list[Call[Any]]:
        """Return the round, scale and identity of the feed, and its aggregator's bounds where known."""
        feed = self.feed
        if feed is not None and feed.shape is FeedShape.ANSWER_ONLY:
            own = [f.call(self.address) for f in _ANSWER_READS]
            inner = self._inner()
            return own if inner is None else [*own, *inner.reads()]
        calls = [f.call(self.address) for f in _ROUND_READS]
        bounded = feed is not None and not (feed.min_answer is None and feed.max_answer is None)
        if feed is not None and feed.aggregator is not None and bounded:
            calls += [f.call(feed.aggregator) for f in self._bound_functions()]
        return calls

    def decode(self, results: Sequence[bytes | None], *, block: int, timestamp: int) -> Reading:
        """Return the latest round, or `NoData` with the reason.

        A revert, an empty answer, bytes that are no round and a round whose time is zero are the same thing.
        """
        if self.feed is not None and self.feed.shape is FeedShape.ANSWER_ONLY:
            return self._decode_answer(results, block, timestamp)
        values = _answer(LATEST_ROUND_DATA, results[0])
        decimals = _one(DECIMALS, results[1])
        if values is None:
            return self._no_data("latestRoundData() gave no round", results[0], block, timestamp)
        if decimals is None:
            return self._no_data("decimals() gave no scale", results[0], block, timestamp)
        round_id, answer, _started_at, updated_at, answered_in = values
        if updated_at == 0:
            return self._no_data(f"round {round_id} was never written", results[0], block, timestamp)
        return PriceObs(
            self.base,
            self.quote,
            answer,
            decimals,
            FeedKind.PUSH,
            self.source_id,
            published_at=updated_at,
            observed_at=timestamp,
            block=block,
            round_key=tuple(split_round_id(round_id)),
            answered_key=tuple(split_round_id(answered_in)),
            raw=results[0] or b"",
        )

    def context(self, results: Sequence[bytes | None], *, timestamp: int) -> FeedContext:
        """Return the configured promises, and the bounds while the aggregator is the one they belong to."""
        low, high = self._read_bounds(results)
        return FeedContext(
            now=timestamp,
            heartbeat_s=self.heartbeat_s,
            grace_s=self.grace_s,
            deviation_bps=self.deviation_bps,
            min_answer=low,
            max_answer=high,
        )

    def changes(self, results: Sequence[bytes | None]) -> tuple[str, ...]:
        """Return what is no longer as it was when the feed was resolved, one line each.

        Anything here means: resolve again, and until then the bounds are unknown. A read that failed is no
        change.
        """
        feed = self.feed
        if feed is None or feed.shape is FeedShape.ANSWER_ONLY:
            return ()
        now = {
            "decimals": (feed.decimals, _one(DECIMALS, results[1])),
            "description": (feed.description, _one(DESCRIPTION, results[2])),
            "phase": (feed.phase, _one(PHASE_ID, results[3])),
        }
        if feed.shape is FeedShape.PROXY:
            now["aggregator"] = (feed.aggregator, _one(AGGREGATOR, results[4]))
        return tuple(
            f"{what} was {before!r}, is {after!r}"
            for what, (before, after) in now.items()
            if after is not None and after != before
        )

    def _bound_functions(self) -> tuple[Function, Function]:
        flux = self.feed is not None and self.feed.flux_bounds
        return (MIN_SUBMISSION, MAX_SUBMISSION) if flux else (MIN_ANSWER, MAX_ANSWER)

    def _read_bounds(self, results: Sequence[bytes | None]) -> tuple[int | None, int | None]:
        feed = self.feed
        if feed is not None and feed.shape is FeedShape.ANSWER_ONLY:
            inner = self._inner()
            same_scale = feed.behind is not None and feed.behind.decimals == feed.decimals
            return (
                (None, None)
                if inner is None or not same_scale
                else inner._read_bounds(results[len(_ANSWER_READS) :])
            )
        if feed is None or len(results) <= len(_ROUND_READS):
            return None, None
        if feed.shape is FeedShape.PROXY and _one(AGGREGATOR, results[4]) != feed.aggregator:
            return None, None
        low, high = (
            _one(f, r) for f, r in zip(self._bound_functions(), results[len(_ROUND_READS) :], strict=True)
        )
        return low, high

    def _inner(self) -> ChainlinkSource | None:
        """Return the source of the feed behind a wrapper."""
        if self.feed is None or self.feed.behind is None:
            return None
        behind = self.feed.behind
        return self.model_copy(update={"address": behind.address, "feed": behind, "name": self.source_id})

    def _decode_answer(self, results: Sequence[bytes | None], block: int, timestamp: int) -> Reading:
        """Decode ``latestAnswer()``; take the time of the feed behind it if that says the same price.

        A wrapper that says something else than its feed (a cap, a product) computes a price of its own, and
        the feed's time is not its time.
        """
        answer = _one(LATEST_ANSWER, results[0])
        decimals = _one(DECIMALS, results[1])
        if answer is None:
            return self._no_data("latestAnswer() gave no answer", results[0], block, timestamp)
        if decimals is None:
            return self._no_data("decimals() gave no scale", results[0], block, timestamp)
        plain = PriceObs(
            self.base,
            self.quote,
            answer,
            decimals,
            FeedKind.PUSH,
            self.source_id,
            published_at=None,
            observed_at=timestamp,
            block=block,
            raw=results[0] or b"",
        )
        inner = self._inner()
        if inner is None:
            return plain
        behind = inner.decode(results[len(_ANSWER_READS) :], block=block, timestamp=timestamp)
        if isinstance(behind, NoData) or behind.scaled(decimals) != answer:
            return replace(plain, kind=FeedKind.COMPOSITE)
        return replace(
            plain,
            published_at=behind.published_at,
            round_key=behind.round_key,
            answered_key=behind.answered_key,
        )

    def _no_data(self, reason: str, raw: bytes | None, block: int, timestamp: int) -> NoData:
        return NoData(self.base, self.quote, self.source_id, timestamp, reason, block, raw or b"")
