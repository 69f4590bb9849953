"""Aave's caps as feeds of a scenario; the formulas are those of `oracle.sources.capo`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar, Literal

from pydantic import Field

from contracts_abi.errors import InputError
from oracle.fields import Pair, PositiveDecimal, UnixSeconds
from oracle.interfaces import CapFacts, FeedContext, RateFacts
from oracle.mechanisms import FeedModel, Played, World, mechanisms
from oracle.mechanisms.wrapping import base_step, composed, names_of, raw, renamed, wrapped
from oracle.sources.capo import CapParameters, capped_price, stable_price
from oracle.types import FeedKind, NoData, PriceObs, Reading

# The name of the fault that writes new parameters, as an updater of the cap does.
_CAP_PARAMS = "cap_params"


@mechanisms.register("capo")
class CapoFeed(FeedModel):
    """Aave's capped rate: a base price times a rate that may grow linearly from a snapshot, and no faster.

    The fault ``cap_params`` writes a new snapshot, from its time on: ``snapshot_ratio``, ``snapshot_at`` and,
    where given, ``growth_bps_year``. What it writes is not checked against the rate of the moment, since the
    contract does not either.

    Attributes
    ----------
    role, pair, decimals
        As of every feed. The scale is that of the base feed.
    base_feed
        Feed of the base price, which ages; without one the base price is 1.
    ratio_pair
        Pair whose truth is the rate, read live; by default the feed's own pair where there is no base feed.
    ratio_decimals
        Scale of the rate.
    snapshot_ratio, snapshot_at, growth_bps_year
        The cap at the start: the rate at the snapshot, its time, and the growth allowed in a year.
    """

    kind: ClassVar[Literal["capo"]] = "capo"
    acts: ClassVar[frozenset[str]] = frozenset({_CAP_PARAMS})

    base_feed: str | None = None
    ratio_pair: Pair | None = None
    ratio_decimals: int = Field(default=18, ge=8, le=24)
    snapshot_ratio: PositiveDecimal
    snapshot_at: UnixSeconds
    growth_bps_year: int = Field(ge=0, lt=2**16)

    def feeds(self) -> tuple[str, ...]:
        """Return the base feed."""
        return () if self.base_feed is None else (self.base_feed,)

    def pairs(self, name: str) -> tuple[str, ...]:
        """Return the pair of the rate.

        Raises
        ------
        InputError
            If it is not given and cannot be the feed's own.
        """
        if self.ratio_pair is not None:
            return (self.ratio_pair,)
        if self.base_feed is not None:
            raise InputError(f"feeds.{name}: ratio_pair is missing", fix="name the pair of the rate")
        return (self.pair or name,)

    def play(self, name: str, world: World) -> Played:
        """Return base price times min(rate, cap) at each step."""
        (ratio_pair,) = self.pairs(name)
        names = names_of(self, name)
        readings: list[Reading] = []
        contexts: list[FeedContext] = []
        for i, (t, block) in enumerate(zip(world.steps, world.blocks, strict=True)):
            parameters = self.parameters(world, t)
            ratio = raw(world.seen[ratio_pair][i], self.ratio_decimals)
            under, context = base_step(self, name, self.base_feed, world, i)
            readings.append(_capped(self, names, under, ratio, parameters, t, block))
            cap = parameters.max_ratio(t)
            rate = RateFacts(ratio, self.ratio_decimals, max_growth_bps_year=parameters.growth_bps_year)
            facts = None if cap is None else CapFacts(cap, ratio)
            legs = (*((under.kind,) if isinstance(under, PriceObs) else ()), FeedKind.RATE)
            contexts.append(wrapped(context, cap=facts, rate=rate, legs=legs))
        return Played(name, tuple(readings), tuple(contexts))

    def parameters(self, world: World, t: int) -> CapParameters:
        """Return what the cap is made of at `t`: the last that was written."""
        ratio, at, growth = self.snapshot_ratio, self.snapshot_at, self.growth_bps_year
        for act in world.acts:
            if act.kind == _CAP_PARAMS and act.active(t):
                written: Any = act
                ratio, at = written.snapshot_ratio, written.snapshot_at
                growth = growth if written.growth_bps_year is None else written.growth_bps_year
        return CapParameters(raw(ratio, self.ratio_decimals), at, growth)


@mechanisms.register("capo_stable")
class CapoStableFeed(FeedModel):
    """Aave's capped stablecoin: the price of another feed, at most a cap.

    Attributes
    ----------
    role, pair, decimals
        As of every feed. The scale is that of the feed behind.
    base_feed
        Feed that is capped.
    cap
        The greatest price that is told.
    """

    kind: ClassVar[Literal["capo_stable"]] = "capo_stable"

    base_feed: str
    cap: PositiveDecimal

    def feeds(self) -> tuple[str, ...]:
        """Return the feed behind."""
        return (self.base_feed,)

    def pairs(self, name: str) -> tuple[str, ...]:
        """Return nothing: the feed behind sees the market."""
        return ()

    def play(self, name: str, world: World) -> Played:
        """Return min(price, cap) at each step."""
        names = names_of(self, name)
        cap = raw(self.cap, self.decimals)
        readings: list[Reading] = []
        contexts: list[FeedContext] = []
        for i in range(len(world.steps)):
            under, context = base_step(self, name, self.base_feed, world, i)
            if isinstance(under, NoData):
                readings.append(renamed(under, *names))
            else:
                price = stable_price(under.mantissa, cap)
                readings.append(replace(composed(under, *names), mantissa=price))
            live = None if isinstance(under, NoData) else CapFacts(cap, under.mantissa)
            contexts.append(wrapped(context, cap=live, legs=(FeedKind.PUSH,)))
        return Played(name, tuple(readings), tuple(contexts))


def _capped(
    feed: CapoFeed,
    names: tuple[str, str, str],
    under: Reading,
    ratio: int,
    parameters: CapParameters,
    t: int,
    block: int,
) -> Reading:
    if isinstance(under, NoData):
        return renamed(under, *names)
    price = capped_price(under.mantissa, ratio, parameters, feed.ratio_decimals, t)
    if price is None:
        return NoData(*names, t, "the cap's arithmetic reverts", block)
    return replace(composed(under, *names), mantissa=price)
