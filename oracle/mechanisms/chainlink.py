"""Feeds that push rounds by deviation and heartbeat, within the bounds of their aggregator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from oracle.fields import Pair
from oracle.interfaces import FeedContext
from oracle.mechanisms import FeedModel, Played, World, mechanisms
from oracle.mechanisms.wrapping import names_of
from oracle.types import FeedKind, NoData, PriceObs, Reading

_BPS = 10_000


class RoundReason(StrEnum):
    """Why a feed published a round."""

    FIRST = "first"
    DEVIATION = "deviation"
    HEARTBEAT = "heartbeat"
    FAULT = "fault"


@dataclass(frozen=True, slots=True)
class PushedRound:
    """One round: the step at which it was published, its answer and the rule that called for it."""

    step: int
    answer: int
    reason: RoundReason


@mechanisms.register("chainlink")
class ChainlinkFeed(FeedModel):
    """A push feed: a round when the price moved by the deviation threshold, or the heartbeat passed.

    A price outside the bounds is not transmitted, as in `OffchainAggregator.transmit`, which reverts; with
    ``on_bound = "clamp"`` the bound itself is, as older aggregators do.

    Attributes
    ----------
    role, pair, decimals
        As of every feed.
    heartbeat_s
        Longest gap between rounds.
    deviation_bps
        Change that forces a round.
    min_answer, max_answer
        The aggregator's bounds at the feed's scale.
    on_bound
        What it does with a price outside them.
    latency_s
        Seconds between a price and the round that carries it.
    sees
        The pair whose price its providers see, where that is not the one it reports: one venue's own book.
    description
        What the contract calls itself.
    phase
        Phase of the proxy.
    """

    kind: ClassVar[Literal["chainlink"]] = "chainlink"

    heartbeat_s: int = Field(ge=1, description="longest gap between rounds, seconds")
    deviation_bps: int = Field(ge=1, description="change that forces a round, 1e-4")
    min_answer: int | None = Field(default=None, description="lowest answer the aggregator transmits")
    max_answer: int | None = Field(default=None, description="highest answer the aggregator transmits")
    on_bound: Literal["freeze", "clamp"] = "freeze"
    latency_s: int = Field(default=0, ge=0)
    sees: Pair | None = None
    description: str | None = None
    phase: int = Field(default=1, ge=1, lt=2**16)

    @model_validator(mode="after")
    def _bounds_are_in_order(self) -> ChainlinkFeed:
        if self.min_answer is not None and self.max_answer is not None and self.min_answer >= self.max_answer:
            raise ValueError("min_answer must be below max_answer")
        return self

    def pairs(self, name: str) -> tuple[str, ...]:
        """Return the pair that its providers see."""
        return (self.sees or self.pair or name,)

    def push(self, steps: Sequence[int], prices: Sequence[Fraction | None]) -> list[PushedRound]:
        """Play the push rule.

        Parameters
        ----------
        steps
            Unix seconds.
        prices
            What the providers see at each step; None where nothing is published.
        """
        rounds: list[PushedRound] = []
        for i, price in enumerate(prices):
            if price is None:
                continue
            answer = round(price * 10**self.decimals)
            low, high = self.min_answer, self.max_answer
            if self.on_bound == "clamp":
                answer = answer if low is None else max(answer, low)
                answer = answer if high is None else min(answer, high)
            if (low is not None and answer < low) or (high is not None and answer > high):
                continue
            last = rounds[-1] if rounds else None
            since_s = None if last is None else steps[i] - steps[last.step]
            reason = self._due(last, answer, since_s)
            if reason is not None:
                rounds.append(PushedRound(i, answer, reason))
        return rounds

    def _due(self, last: PushedRound | None, answer: int, since_s: int | None) -> RoundReason | None:
        if last is None or since_s is None:
            return RoundReason.FIRST
        change = abs(answer - last.answer)
        if change and change * _BPS >= self.deviation_bps * last.answer:
            return RoundReason.DEVIATION
        return RoundReason.HEARTBEAT if since_s >= self.heartbeat_s else None

    def play(self, name: str, world: World) -> Played:
        """Return the latest round at each step."""
        base, quote, source_id = names_of(self, name)
        rounds = self.push(world.steps, world.seen[self.pairs(name)[0]])
        readings: list[Reading] = []
        at = -1
        for t, block in zip(world.steps, world.blocks, strict=True):
            while at + 1 < len(rounds) and world.steps[rounds[at + 1].step] + self.latency_s <= t:
                at += 1
            if at < 0:
                readings.append(NoData(base, quote, source_id, t, "no round yet", block))
                continue
            key = (self.phase, at + 1)
            readings.append(
                PriceObs(
                    base,
                    quote,
                    rounds[at].answer,
                    self.decimals,
                    FeedKind.PUSH,
                    source_id,
                    published_at=world.steps[rounds[at].step] + self.latency_s,
                    observed_at=t,
                    block=block,
                    round_key=key,
                    answered_key=key,
                )
            )
        contexts = tuple(
            FeedContext(
                now=t,
                heartbeat_s=self.heartbeat_s,
                deviation_bps=self.deviation_bps,
                min_answer=self.min_answer,
                max_answer=self.max_answer,
                description=self.description,
            )
            for t in world.steps
        )
        return Played(name, tuple(readings), contexts)
