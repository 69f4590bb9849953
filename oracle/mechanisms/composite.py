"""Products of feeds in a scenario; the formula is that of `oracle.sources.composite`."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from contracts_abi.errors import UnknownNameError
from oracle.fields import Pair
from oracle.interfaces import FeedContext
from oracle.mechanisms import FeedModel, Played, World, mechanisms
from oracle.mechanisms.wrapping import composed, longest_heartbeat, names_of, raw, renamed, wrapped
from oracle.sources.composite import compose
from oracle.strict import StrictModel
from oracle.types import FeedKind, NoData, PriceObs, Reading

# The name of the fault that forgets a leg, as a wrapper that is put in place of the whole does.
_MISSING_LEG = "missing_leg"


class DerivedFeed(StrictModel):
    """Another feed's rounds at a fixed ratio."""

    feed: str = Field(description="the feed that is followed")
    num: int = Field(ge=1)
    den: int = Field(ge=1)


@mechanisms.register("composite")
class CompositeFeed(FeedModel):
    """A product of feeds and rates, as old as its oldest leg; or one feed at a fixed ratio.

    The fault ``missing_leg`` leaves the leg that it names out of the product, as long as it acts: what is
    left is told at the scale of the whole. cbETH stood at 1.12 dollars on 2026-02-15 for want of the price
    of Ether.

    Attributes
    ----------
    role, pair, decimals
        As of every feed.
    legs
        Feeds whose answers are multiplied.
    rates
        Pairs whose truth is multiplied too, read live at 18 decimals: a rate that a contract computes.
    derive_from
        Instead of legs: a feed, and the ratio at which its rounds are told.
    """

    kind: ClassVar[Literal["composite"]] = "composite"
    acts: ClassVar[frozenset[str]] = frozenset({_MISSING_LEG})

    legs: tuple[str, ...] = ()
    rates: tuple[Pair, ...] = ()
    derive_from: DerivedFeed | None = None

    @model_validator(mode="after")
    def _has_legs_or_a_feed_to_follow(self) -> CompositeFeed:
        if bool(self.legs or self.rates) == (self.derive_from is not None):
            raise ValueError("needs either legs and rates, or derive_from")
        return self

    def feeds(self) -> tuple[str, ...]:
        """Return the legs that are feeds."""
        return self.legs if self.derive_from is None else (self.derive_from.feed,)

    def pairs(self, name: str) -> tuple[str, ...]:
        """Return the legs that are rates."""
        return self.rates

    def play(self, name: str, world: World) -> Played:
        """Return the product of the legs at each step.

        Raises
        ------
        UnknownNameError
            If a fault leaves out what is no leg.
        """
        if self.derive_from is not None:
            return self._derived(name, world.played[self.derive_from.feed], self.derive_from)
        readings: list[Reading] = []
        contexts: list[FeedContext] = []
        for i, t in enumerate(world.steps):
            missing = self._missing(name, world, t)
            feeds = [feed for feed in self.legs if feed not in missing]
            legs = [world.played[feed].readings[i] for feed in feeds]
            legs += [_rate(pair, world, i) for pair in self.rates if pair not in missing]
            readings.append(self._product(name, legs, t, world.blocks[i]))
            behind = [world.played[feed].contexts[i] for feed in feeds]
            kinds = tuple(leg.kind for leg in legs if isinstance(leg, PriceObs))
            facts = {"legs": kinds, "heartbeat_s": longest_heartbeat(behind) if behind else None}
            contexts.append(wrapped(behind[0] if behind else FeedContext(now=t), **facts))
        return Played(name, tuple(readings), tuple(contexts))

    def _product(self, name: str, legs: list[Reading], t: int, block: int) -> Reading:
        base, quote, source_id = names_of(self, name)
        if not legs:
            return NoData(base, quote, source_id, t, "every leg is left out", block)
        return compose(
            legs,
            base=base,
            quote=quote,
            decimals=self.decimals,
            source_id=source_id,
            observed_at=t,
            block=block,
        )

    def _missing(self, name: str, world: World, t: int) -> frozenset[str]:
        acts: list[Any] = [act for act in world.acts if act.kind == _MISSING_LEG and act.active(t)]
        for act in acts:
            if act.leg not in (*self.legs, *self.rates):
                raise UnknownNameError(f"leg of feeds.{name}", act.leg, (*self.legs, *self.rates))
        return frozenset(act.leg for act in acts)

    def _derived(self, name: str, behind: Played, of: DerivedFeed) -> Played:
        """Return another feed's rounds at the ratio, rounded half to even as in `oracle.scenario`."""
        names = names_of(self, name)
        ratio = Fraction(of.num, of.den)
        readings: list[Reading] = []
        for under in behind.readings:
            if isinstance(under, NoData):
                readings.append(renamed(under, *names))
                continue
            answer = round(Fraction(under.mantissa, 10**under.decimals) * ratio * 10**self.decimals)
            told = composed(under, *names)
            keys = (under.round_key, under.answered_key)
            told = replace(told, mantissa=answer, decimals=self.decimals)
            readings.append(replace(told, round_key=keys[0], answered_key=keys[1]))
        contexts = tuple(wrapped(context, legs=(FeedKind.PUSH,)) for context in behind.contexts)
        return Played(name, tuple(readings), contexts)


def _rate(pair: str, world: World, i: int) -> PriceObs:
    """Return a rate that a contract computes in the block that reads it."""
    base, quote = pair.split("/")
    return PriceObs(
        base,
        quote,
        raw(world.seen[pair][i], 18),
        18,
        FeedKind.RATE,
        pair,
        published_at=None,
        observed_at=world.steps[i],
        block=world.blocks[i],
    )
