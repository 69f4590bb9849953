"""What kinds of feed share that stand in front of other feeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from math import floor
from typing import Any

from contracts_abi.errors import InputError
from oracle.interfaces import FeedContext
from oracle.mechanisms import FeedModel, World
from oracle.types import FeedKind, NoData, PriceObs, Reading


def base_step(
    feed: FeedModel, name: str, base_feed: str | None, world: World, i: int
) -> tuple[Reading, FeedContext]:
    """Return what the feed behind says at a step; without one it is 1, and always was.

    Raises
    ------
    InputError
        If the feed behind has another scale: the contracts take theirs from it.
    """
    t, block = world.steps[i], world.blocks[i]
    if base_feed is None:
        one = PriceObs(
            *("1", "1", 10**feed.decimals, feed.decimals, FeedKind.CONSTANT, "1"),
            published_at=t,
            observed_at=t,
            block=block,
        )
        return one, FeedContext(now=t, heartbeat_s=1)
    played = world.played[base_feed]
    under = played.readings[i]
    if isinstance(under, PriceObs) and under.decimals != feed.decimals:
        raise InputError(
            f"feeds.{name}: decimals is {feed.decimals}, its base feed {base_feed} has {under.decimals}",
            fix="give it the scale of its base feed",
        )
    return under, played.contexts[i]


def raw(value: Decimal | Fraction, decimals: int) -> int:
    """Return a value at a scale as a contract states it: rounded down."""
    return floor(Fraction(value) * Fraction(10) ** decimals)


def renamed(missing: NoData, base: str, quote: str, name: str) -> NoData:
    """Return that the feed `name` has no price, for the reason that the one behind it has none."""
    reason = f"{missing.source_id}: {missing.reason}"
    return replace(missing, base=base, quote=quote, source_id=name, reason=reason)


def composed(under: PriceObs, base: str, quote: str, name: str) -> PriceObs:
    """Return the reading of a wrapper over `under`: its time, and nothing else of its own."""
    return replace(
        under,
        base=base,
        quote=quote,
        source_id=name,
        kind=FeedKind.COMPOSITE,
        round_key=None,
        answered_key=None,
        conf_abs=None,
        bid=None,
        ask=None,
        raw=b"",
    )


def wrapped(context: FeedContext, **facts: Any) -> FeedContext:
    """Return the context of a wrapper: what is known of the feed behind but for what is the feed's own."""
    own = {"min_answer": None, "max_answer": None, "description": None, "deviation_bps": None}
    return replace(context, **{**own, **facts})


def names_of(feed: FeedModel, name: str) -> tuple[str, str, str]:
    """Return base, quote and source id of what a feed reports."""
    base, quote = (feed.pair or name).split("/")
    return base, quote, name


def oldest(legs: Sequence[PriceObs]) -> int | None:
    """Return the time of the oldest leg; None when one of them has none."""
    times = [leg.published_at for leg in legs]
    known = [t for t in times if t is not None]
    return min(known) if known and len(known) == len(times) else None


def longest_heartbeat(contexts: Sequence[FeedContext]) -> int | None:
    """Return the longest promise; None when a feed promises nothing."""
    promised = [c.heartbeat_s for c in contexts]
    known = [s for s in promised if s is not None]
    return max(known) if len(known) == len(promised) else None
