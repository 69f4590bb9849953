"""Compound's feeds over feeds in a scenario; the formulas are those of `oracle.sources.comet`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar, Literal

from pydantic import Field

from oracle.mechanisms import FeedModel, Played, World, mechanisms
from oracle.mechanisms.wrapping import composed, longest_heartbeat, names_of, oldest, renamed, wrapped
from oracle.sources.comet import product_answer, ratio_answer, scaled_answer
from oracle.types import NoData, PriceObs, Reading

MAX_DECIMALS = 18
"""``MultiplicativePriceFeed`` is not deployed with more."""


@mechanisms.register("comet_scaling")
class ScalingFeed(FeedModel):
    """Compound's scaling feed: another feed's rounds with the answer at this feed's scale.

    Attributes
    ----------
    role, pair, decimals
        As of every feed.
    base_feed
        Feed that is scaled.
    """

    kind: ClassVar[Literal["comet_scaling"]] = "comet_scaling"

    base_feed: str

    def feeds(self) -> tuple[str, ...]:
        """Return the feed behind."""
        return (self.base_feed,)

    def pairs(self, name: str) -> tuple[str, ...]:
        """Return nothing: the feed behind sees the market."""
        return ()

    def play(self, name: str, world: World) -> Played:
        """Return the rounds of the feed behind, scaled."""
        names = names_of(self, name)
        behind = world.played[self.base_feed]
        readings: list[Reading] = []
        for under in behind.readings:
            if isinstance(under, NoData):
                readings.append(renamed(under, *names))
                continue
            answer = scaled_answer(under.mantissa, under.decimals, self.decimals)
            if answer is None:
                readings.append(_reverted(under, names))
                continue
            # Times and round ids are passed on.
            base, quote, source_id = names
            plain = replace(under, base=base, quote=quote, source_id=source_id, raw=b"")
            plain = replace(plain, conf_abs=None, bid=None, ask=None)
            readings.append(replace(plain, mantissa=answer, decimals=self.decimals))
        return Played(name, tuple(readings), tuple(wrapped(c) for c in behind.contexts))


@mechanisms.register("comet_multiplicative")
class MultiplicativeFeed(FeedModel):
    """Compound's multiplicative feed: feed A times feed B.

    A factor that is not positive makes the answer 0. The contract tells the time of feed B alone, however
    old feed A is; a guarded reader asks both.

    Attributes
    ----------
    role, pair, decimals
        As of every feed.
    feed_a, feed_b
        The factors.
    reverse
        Whether feed B divides (``ReverseMultiplicativePriceFeed``).
    time
        ``legs``: the reading is as old as the older factor, as `oracle.sources.comet` reads it;
        ``contract``: it has the time that the contract tells.
    """

    kind: ClassVar[Literal["comet_multiplicative"]] = "comet_multiplicative"

    decimals: int = Field(default=8, ge=0, le=MAX_DECIMALS)
    feed_a: str
    feed_b: str
    reverse: bool = False
    time: Literal["legs", "contract"] = "legs"

    def feeds(self) -> tuple[str, ...]:
        """Return both factors."""
        return (self.feed_a, self.feed_b)

    def pairs(self, name: str) -> tuple[str, ...]:
        """Return nothing: the factors see the market."""
        return ()

    def play(self, name: str, world: World) -> Played:
        """Return the product at each step."""
        names = names_of(self, name)
        a, b = world.played[self.feed_a], world.played[self.feed_b]
        readings: list[Reading] = []
        contexts = []
        for x, y, of_x, of_y in zip(a.readings, b.readings, a.contexts, b.contexts, strict=True):
            readings.append(self._multiplied(x, y, names))
            kinds = tuple(leg.kind for leg in (x, y) if isinstance(leg, PriceObs))
            contexts.append(wrapped(of_y, legs=kinds, heartbeat_s=longest_heartbeat((of_x, of_y))))
        return Played(name, tuple(readings), tuple(contexts))

    def _multiplied(self, a: Reading, b: Reading, names: tuple[str, str, str]) -> Reading:
        if isinstance(a, NoData):
            return renamed(a, *names)
        if isinstance(b, NoData):
            return renamed(b, *names)
        formula: Callable[[int, int, int, int, int], int | None] = (
            ratio_answer if self.reverse else product_answer
        )
        answer = formula(a.mantissa, b.mantissa, a.decimals, b.decimals, self.decimals)
        if answer is None:
            return _reverted(b, names)
        time = oldest((a, b)) if self.time == "legs" else b.published_at
        return replace(composed(b, *names), mantissa=answer, decimals=self.decimals, published_at=time)


def _reverted(under: PriceObs, names: tuple[str, str, str]) -> NoData:
    return NoData(*names, under.observed_at, "the answer does not fit 256 bits", under.block)
