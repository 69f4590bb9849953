"""AaveOracle as a feed of a scenario; the formula is that of `oracle.sources.aave_oracle`."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Literal

from contracts_abi.errors import InputError
from oracle.mechanisms import FeedModel, Played, World, mechanisms
from oracle.mechanisms.wrapping import names_of, renamed
from oracle.sources.aave_oracle import AssetSource, asset_price
from oracle.types import NoData, PriceObs, Reading


@mechanisms.register("aave_oracle")
class AaveOracleFeed(FeedModel):
    """Aave's oracle for one asset: its source, or the fallback where the source is not positive.

    A source that reverts is not caught: there is no price then, whatever the fallback says.

    Attributes
    ----------
    role, pair, decimals
        As of every feed. The scale has to be that of both feeds: the oracle does not look at theirs.
    source_feed
        The asset's source; without one the fallback is asked.
    fallback_feed
        What the fallback oracle says; without one a price that is not positive reverts.
    """

    kind: ClassVar[Literal["aave_oracle"]] = "aave_oracle"

    source_feed: str | None = None
    fallback_feed: str | None = None

    def feeds(self) -> tuple[str, ...]:
        """Return source and fallback, where there are any."""
        return tuple(feed for feed in (self.source_feed, self.fallback_feed) if feed is not None)

    def pairs(self, name: str) -> tuple[str, ...]:
        """Return nothing: the feeds behind see the market.

        Raises
        ------
        InputError
            If there is neither a source nor a fallback.
        """
        if not self.feeds():
            raise InputError(f"feeds.{name}: no source_feed and no fallback_feed", fix="name one")
        return ()

    def play(self, name: str, world: World) -> Played:
        """Return the price that the pool reads at each step."""
        readings = []
        contexts = []
        shown = world.played[self.source_feed or self.feeds()[0]]
        for i, context in enumerate(shown.contexts):
            readings.append(self._step(name, world, i))
            contexts.append(replace(context, description=None))
        return Played(name, tuple(readings), tuple(contexts))

    def _step(self, name: str, world: World, i: int) -> Reading:
        names = names_of(self, name)
        source = None if self.source_feed is None else world.played[self.source_feed].readings[i]
        fallback = None if self.fallback_feed is None else world.played[self.fallback_feed].readings[i]
        price = asset_price(
            None if source is None else AssetSource(_mantissa(source)),
            None if fallback is None else _mantissa(fallback),
        )
        if price is None:
            missing = source if isinstance(source, NoData) else fallback
            if isinstance(missing, NoData):
                return renamed(missing, *names)
            return NoData(*names, world.steps[i], "no fallback oracle", world.blocks[i])
        used = source if isinstance(source, PriceObs) and source.mantissa > 0 else fallback
        if not isinstance(used, PriceObs) or used.decimals != self.decimals:
            raise InputError(
                f"feeds.{name}: decimals is {self.decimals}, the feed behind has another scale",
                fix="put a comet_scaling feed between them, or give both one scale",
            )
        base, quote, source_id = names
        return replace(used, base=base, quote=quote, source_id=source_id)


def _mantissa(reading: Reading) -> int | None:
    return None if isinstance(reading, NoData) else reading.mantissa
