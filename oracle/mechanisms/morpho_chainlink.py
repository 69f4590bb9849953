"""Morpho's oracle as a feed of a scenario; the formulas are those of `oracle.sources.morpho_chainlink`."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from contracts_abi.errors import InputError
from oracle.interfaces import FeedContext
from oracle.mechanisms import FeedModel, Played, World, mechanisms
from oracle.mechanisms.wrapping import longest_heartbeat, names_of, oldest, renamed, wrapped
from oracle.sources.morpho_chainlink import ORACLE_DECIMALS, morpho_price, scale_factor
from oracle.types import FeedKind, NoData, PriceObs, Reading

MAX_FEEDS = 2


@mechanisms.register("morpho_chainlink")
class MorphoChainlinkFeed(FeedModel):
    """Morpho's oracle over Chainlink feeds: collateral in loan tokens, scaled by what the deployer stated.

    The scale of the reading follows from the tokens' real decimals, that of the price from the stated ones.
    Where they differ, the price is wrong by a power of ten.

    Attributes
    ----------
    role, pair
        As of every feed.
    decimals
        Not used: the scale is 36 plus the loan token's decimals less the collateral's.
    base_feeds, quote_feeds
        Feeds whose answers are multiplied on each side, at most two; none for a price of 1.
    base_decimals, quote_decimals
        Decimals of collateral and loan token.
    stated_base_decimals, stated_quote_decimals
        What the deployer said they were; the real ones by default.
    """

    kind: ClassVar[Literal["morpho_chainlink"]] = "morpho_chainlink"

    base_feeds: tuple[str, ...] = Field(default=(), max_length=MAX_FEEDS)
    quote_feeds: tuple[str, ...] = Field(default=(), max_length=MAX_FEEDS)
    base_decimals: int = Field(ge=0, le=36)
    quote_decimals: int = Field(ge=0, le=36)
    stated_base_decimals: int | None = Field(default=None, ge=0, le=255)
    stated_quote_decimals: int | None = Field(default=None, ge=0, le=255)

    def feeds(self) -> tuple[str, ...]:
        """Return the feeds of both sides."""
        return (*self.base_feeds, *self.quote_feeds)

    def pairs(self, name: str) -> tuple[str, ...]:
        """Return nothing: the feeds behind see the market.

        Raises
        ------
        InputError
            If there is no feed at all.
        """
        if not self.feeds():
            raise InputError(f"feeds.{name}: no feed on either side", fix="name base_feeds or quote_feeds")
        return ()

    def play(self, name: str, world: World) -> Played:
        """Return ``price()`` at each step, as old as the oldest feed behind it."""
        readings: list[Reading] = []
        contexts: list[FeedContext] = []
        scale: int | None = None
        for i in range(len(world.steps)):
            legs = [world.played[feed].readings[i] for feed in self.feeds()]
            missing = next((leg for leg in legs if isinstance(leg, NoData)), None)
            prices = [leg for leg in legs if isinstance(leg, PriceObs)]
            if missing is not None:
                readings.append(renamed(missing, *names_of(self, name)))
            else:
                # Set for good when it is deployed: at the first step at which all feeds answer.
                scale = self._scale(name, prices) if scale is None else scale
                readings.append(self._price(name, world, i, scale, prices))
            contexts.append(self._context(world, i, prices))
        return Played(name, tuple(readings), tuple(contexts))

    def _scale(self, name: str, legs: list[PriceObs]) -> int:
        """Return the scale factor that the constructor computes from the feeds' scales at that time."""
        count = len(self.base_feeds)
        stated = (self.stated_base_decimals, self.stated_quote_decimals)
        base, quote = (
            real if said is None else said
            for said, real in zip(stated, (self.base_decimals, self.quote_decimals), strict=True)
        )
        decimals = [leg.decimals for leg in legs]
        scale = scale_factor(base, quote, decimals[:count], decimals[count:])
        if scale is None:
            raise InputError(
                f"feeds.{name}: no scale factor for {base} and {quote} decimals", fix="check the decimals"
            )
        return scale

    def _price(self, name: str, world: World, i: int, scale: int, legs: list[PriceObs]) -> Reading:
        t, block = world.steps[i], world.blocks[i]
        names, count = names_of(self, name), len(self.base_feeds)
        answers = [leg.mantissa for leg in legs]
        price = morpho_price(scale, answers[:count], answers[count:])
        if price is None:
            return NoData(*names, t, "price() reverts", block)
        return PriceObs(
            names[0],
            names[1],
            price,
            ORACLE_DECIMALS + self.quote_decimals - self.base_decimals,
            FeedKind.COMPOSITE,
            name,
            published_at=oldest(legs),
            observed_at=t,
            block=block,
        )

    def _context(self, world: World, i: int, legs: list[PriceObs]) -> FeedContext:
        """Return the context of the first feed, with the longest heartbeat of all."""
        contexts = [world.played[feed].contexts[i] for feed in self.feeds()]
        return wrapped(
            contexts[0], legs=tuple(leg.kind for leg in legs), heartbeat_s=longest_heartbeat(contexts)
        )
