"""Euler's router as a feed of a scenario; the formulas are those of `oracle.sources.euler_router`."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from math import floor
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from oracle.fields import Pair
from oracle.interfaces import FeedContext
from oracle.mechanisms import FeedModel, Played, World, mechanisms
from oracle.mechanisms.wrapping import composed, names_of, renamed, wrapped
from oracle.sources.euler_router import MAX_STALENESS_RANGE, RouterConfig, chainlink_quote, resolve_oracle
from oracle.types import NoData, Reading

_BASE, _ASSET, _QUOTE = "base", "asset", "quote"
_CONFIGURED, _FALLBACK = "configured", "fallback"


@mechanisms.register("euler_router")
class EulerRouterFeed(FeedModel):
    """Euler's router for one pair: a configured oracle, through a vault if there is one, else the fallback.

    A configured oracle that reverts, because its answer is too old or not positive, leaves no price: the
    fallback is for pairs that nobody configured.

    Attributes
    ----------
    role, pair
        As of every feed.
    decimals
        Decimals of the unit of account, which quotes are in.
    base_decimals
        Decimals of the base token.
    feed
        Feed behind the configured oracle.
    fallback_feed
        Feed behind the fallback oracle.
    vault_pair
        Pair whose truth is what a share of the base is worth in its asset; the base is a resolved vault then,
        and the feeds price its asset. Shares and asset have the base's decimals.
    max_staleness_s
        Greatest age that both oracles accept.
    """

    kind: ClassVar[Literal["euler_router"]] = "euler_router"

    base_decimals: int = Field(default=18, ge=0, le=36)
    feed: str | None = None
    fallback_feed: str | None = None
    vault_pair: Pair | None = None
    max_staleness_s: int = Field(ge=MAX_STALENESS_RANGE.start, lt=MAX_STALENESS_RANGE.stop)

    @model_validator(mode="after")
    def _has_an_oracle(self) -> EulerRouterFeed:
        if self.feed is None and self.fallback_feed is None:
            raise ValueError("needs feed or fallback_feed")
        return self

    def feeds(self) -> tuple[str, ...]:
        """Return the feeds behind the oracles."""
        return tuple(feed for feed in (self.feed, self.fallback_feed) if feed is not None)

    def pairs(self, name: str) -> tuple[str, ...]:
        """Return the pair of the vault's shares."""
        return () if self.vault_pair is None else (self.vault_pair,)

    def play(self, name: str, world: World) -> Played:
        """Return the quote of one whole token at each step."""
        readings: list[Reading] = []
        contexts: list[FeedContext] = []
        for i in range(len(world.steps)):
            reading, context = self._step(name, world, i)
            readings.append(reading)
            contexts.append(context)
        return Played(name, tuple(readings), tuple(contexts))

    def _step(self, name: str, world: World, i: int) -> tuple[Reading, FeedContext]:
        names, t, block = names_of(self, name), world.steps[i], world.blocks[i]
        inner = _BASE if self.vault_pair is None else _ASSET
        config = RouterConfig(
            {} if self.feed is None else {frozenset((inner, _QUOTE)): _CONFIGURED},
            {} if self.vault_pair is None else {_BASE: _ASSET},
            None if self.fallback_feed is None else _FALLBACK,
        )
        rate = Fraction(1) if self.vault_pair is None else world.seen[self.vault_pair][i]
        resolved = resolve_oracle(
            config, 10**self.base_decimals, _BASE, _QUOTE, lambda _vault, shares: floor(shares * rate)
        )
        asked = self.feed if resolved is not None and resolved.oracle == _CONFIGURED else self.fallback_feed
        if resolved is None or asked is None:
            return NoData(*names, t, "the pair is not supported", block), FeedContext(now=t)
        under, context = world.played[asked].readings[i], wrapped(world.played[asked].contexts[i])
        if isinstance(under, NoData):
            return renamed(under, *names), context
        out = chainlink_quote(
            resolved.amount,
            under.mantissa,
            0 if under.published_at is None else under.published_at,
            base_decimals=self.base_decimals,
            quote_decimals=self.decimals,
            feed_decimals=under.decimals,
            max_staleness_s=self.max_staleness_s,
            now=t,
        )
        if out is None:
            return NoData(*names, t, f"the oracle over {asked} reverts", block), context
        quoted = replace(composed(under, *names), mantissa=out, decimals=self.decimals, bid=out, ask=out)
        return quoted, context
