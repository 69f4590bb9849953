"""Maker's delayed price."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Literal

from pydantic import Field

from oracle.interfaces import FeedContext
from oracle.mechanisms import FeedModel, Played, World, mechanisms
from oracle.mechanisms.wrapping import names_of, renamed
from oracle.types import FeedKind, NoData, PriceObs, Reading


@mechanisms.register("osm")
class OsmFeed(FeedModel):
    """The price of the hour before: each turn takes over what the last one saw.

    `OSM.poke` of makerdao/osm: when an hour has passed since the start of the last turn, the current price
    becomes the next one, the next one what the source says now, and the turn begins at the full hour. A
    source that says nothing changes nothing. Somebody pokes at every step at which he may.

    Attributes
    ----------
    role, pair, decimals
        As of every feed.
    source
        The feed that is delayed; before the first step both prices were what it says then.
    hop_s
        Length of a turn.
    """

    kind: ClassVar[Literal["osm"]] = "osm"

    source: str
    hop_s: int = Field(default=3_600, ge=1)

    def feeds(self) -> tuple[str, ...]:
        """Return the feed that is delayed."""
        return (self.source,)

    def pairs(self, name: str) -> tuple[str, ...]:
        """Return nothing: the source sees the market."""
        return ()

    def play(self, name: str, world: World) -> Played:
        """Return the current price at each step."""
        names = names_of(self, name)
        behind = world.played[self.source].readings
        current = upcoming = behind[0]
        turn = world.steps[0] - world.steps[0] % self.hop_s
        readings: list[Reading] = []
        for t, block, said in zip(world.steps, world.blocks, behind, strict=True):
            if t >= turn + self.hop_s and isinstance(said, PriceObs):
                current, upcoming, turn = upcoming, said, t - t % self.hop_s
            if isinstance(current, NoData):
                missing = renamed(current, *names)
                readings.append(replace(missing, observed_at=t, block=block))
                continue
            readings.append(
                PriceObs(
                    *(names[0], names[1], current.scaled(self.decimals), self.decimals),
                    *(FeedKind.PUSH, names[2]),
                    published_at=turn,
                    observed_at=t,
                    block=block,
                )
            )
        contexts = tuple(FeedContext(now=t, heartbeat_s=self.hop_s) for t in world.steps)
        return Played(name, tuple(readings), contexts)
