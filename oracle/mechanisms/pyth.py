"""Pyth's price with its confidence."""

from __future__ import annotations

from fractions import Fraction
from math import floor
from typing import ClassVar, Literal

from pydantic import Field

from oracle.interfaces import FeedContext
from oracle.mechanisms import FeedModel, Played, World, mechanisms
from oracle.mechanisms.wrapping import names_of
from oracle.types import FeedKind, PriceObs

_BPS = 10_000


@mechanisms.register("pyth")
class PythFeed(FeedModel):
    """A price that whoever acts brings along, with the half-width of its confidence interval.

    Attributes
    ----------
    role, pair, decimals
        As of every feed.
    conf_bps
        Half-width on ordinary days, relative to the price; the fault ``conf`` widens it.
    max_age_s
        Age at which the consumer refuses a price.
    description
        What the feed calls itself.
    """

    kind: ClassVar[Literal["pyth"]] = "pyth"

    conf_bps: int = Field(default=5, ge=0)
    max_age_s: int = Field(default=60, ge=1)
    description: str | None = None

    def play(self, name: str, world: World) -> Played:
        """Return the price of each step."""
        base, quote, source_id = names_of(self, name)
        unit = int(10**self.decimals)
        readings = []
        for price, t, block in zip(world.seen[self.pair or name], world.steps, world.blocks, strict=True):
            readings.append(
                PriceObs(
                    *(base, quote, floor(price * unit), self.decimals, FeedKind.PULL, source_id, t, t, block),
                    conf_abs=floor(price * Fraction(self.conf_bps, _BPS) * unit),
                )
            )
        contexts = tuple(
            FeedContext(now=t, heartbeat_s=self.max_age_s, grace_s=0, description=self.description)
            for t in world.steps
        )
        return Played(name, tuple(readings), contexts)
