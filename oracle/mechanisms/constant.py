"""A price that is written into the contract."""

from __future__ import annotations

from fractions import Fraction
from math import floor
from typing import ClassVar, Literal

from oracle.fields import PositiveDecimal
from oracle.interfaces import FeedContext
from oracle.mechanisms import FeedModel, Played, World, mechanisms
from oracle.mechanisms.wrapping import names_of
from oracle.types import FeedKind, PriceObs


@mechanisms.register("constant")
class ConstantFeed(FeedModel):
    """A hard-coded price, new in every block and true by accident.

    Attributes
    ----------
    role, pair, decimals
        As of every feed.
    value
        The price.
    """

    kind: ClassVar[Literal["constant"]] = "constant"

    value: PositiveDecimal

    def pairs(self, name: str) -> tuple[str, ...]:
        """Return nothing: it sees no price."""
        return ()

    def play(self, name: str, world: World) -> Played:
        """Return the price at each step."""
        base, quote, source_id = names_of(self, name)
        mantissa = floor(Fraction(self.value) * 10**self.decimals)
        readings = tuple(
            PriceObs(base, quote, mantissa, self.decimals, FeedKind.CONSTANT, source_id, t, t, block)
            for t, block in zip(world.steps, world.blocks, strict=True)
        )
        # It promises nothing; what is written is as old as the block that reads it.
        return Played(name, readings, tuple(FeedContext(now=t, heartbeat_s=1) for t in world.steps))
