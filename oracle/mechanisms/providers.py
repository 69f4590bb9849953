"""Feeds that put one price together from several providers."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import floor
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from oracle.interfaces import FeedContext, QuorumFacts
from oracle.mechanisms import FeedModel, Played, World, mechanisms
from oracle.mechanisms.wrapping import names_of
from oracle.strict import StrictModel
from oracle.types import FeedKind, PriceObs


class Provider(StrictModel):
    """One provider: its name, what it makes of the truth, and its weight."""

    name: str = Field(min_length=1)
    num: int = Field(default=1, ge=1)
    den: int = Field(default=1, ge=1)
    weight: int = Field(default=1, ge=1)


@mechanisms.register("providers")
class ProvidersFeed(FeedModel):
    """A mean, a median or a weighted mean of what several providers say at each moment.

    A fault ``scale`` with the key ``provider`` makes one of them wrong.

    Attributes
    ----------
    role, pair, decimals
        As of every feed.
    aggregate
        How their prices become one; the median of an even number is the mean of the middle two.
    providers
        Those that answer.
    minimum
        How many there should be.
    heartbeat_s
        Longest gap between two aggregations.
    description
        What the contract calls itself.
    """

    kind: ClassVar[Literal["providers"]] = "providers"
    acts: ClassVar[frozenset[str]] = frozenset({"scale"})

    aggregate: Literal["mean", "median", "weighted"]
    providers: tuple[Provider, ...] = Field(min_length=1)
    minimum: int = Field(default=1, ge=1)
    heartbeat_s: int = Field(default=3_600, ge=1)
    description: str | None = None

    @model_validator(mode="after")
    def _names_are_unique(self) -> ProvidersFeed:
        names = [p.name for p in self.providers]
        if len(set(names)) != len(names):
            raise ValueError("two providers have one name")
        return self

    def play(self, name: str, world: World) -> Played:
        """Return the aggregate at each step."""
        base, quote, source_id = names_of(self, name)
        readings = []
        for i, (t, block) in enumerate(zip(world.steps, world.blocks, strict=True)):
            true = world.seen[self.pair or name][i]
            acts: list[Any] = [act for act in world.acts if act.active(t)]
            prices = []
            for provider in self.providers:
                price = true * provider.num / provider.den
                for act in acts:
                    if act.provider == provider.name:
                        price = price * act.num / act.den
                prices.append(price)
            mantissa = floor(self._one(prices) * int(10**self.decimals))
            readings.append(
                PriceObs(base, quote, mantissa, self.decimals, FeedKind.PUSH, source_id, t, t, block)
            )
        quorum = QuorumFacts(len(self.providers), self.minimum)
        contexts = tuple(
            FeedContext(now=t, heartbeat_s=self.heartbeat_s, quorum=quorum, description=self.description)
            for t in world.steps
        )
        return Played(name, tuple(readings), contexts)

    def _one(self, prices: Sequence[Fraction]) -> Fraction:
        if self.aggregate == "median":
            ordered = sorted(prices)
            return (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2
        weights = [p.weight if self.aggregate == "weighted" else 1 for p in self.providers]
        return sum((p * w for p, w in zip(prices, weights, strict=True)), Fraction(0)) / sum(weights)
