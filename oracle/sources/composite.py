"""A price that is a product of others: a rate times a price, a price in ETH times the price of ETH.

The product is as old as its oldest factor and as bad as its worst: a factor that is missing, zero or negative
leaves no price. Contracts that multiply are less careful; see `oracle.sources.comet` and
`oracle.sources.capo`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from math import ceil, floor
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, model_validator

from contracts_abi.calls import Call
from oracle.interfaces import FeedContext
from oracle.sources import sources
from oracle.strict import StrictModel
from oracle.types import FeedKind, NoData, PriceObs, Reading

TIMELESS = frozenset({FeedKind.RATE, FeedKind.CONSTANT})
"""Kinds that may have no time: a rate is computed in the block that reads it, a constant never."""


def compose(
    legs: Sequence[Reading],
    *,
    base: str,
    quote: str,
    decimals: int,
    source_id: str,
    observed_at: int,
    block: int | None = None,
) -> Reading:
    """Return the product of readings, rounded down.

    Its time is the oldest of its legs', and unknown when a leg should have one and has none. Confidences add
    up relative to their prices, rounded up. It has a bid and an ask when a leg has; a leg without counts its
    price on both sides. It has no round.

    Parameters
    ----------
    legs
        Factors, at least one.
    decimals
        Scale of the product.

    Returns
    -------
    PriceObs or NoData
        `NoData` when a leg is missing or not positive, naming it.
    """
    prices: list[PriceObs] = []
    for leg in legs:
        if isinstance(leg, NoData):
            reason = f"{leg.source_id}: {leg.reason}"
        elif leg.mantissa <= 0:
            reason = f"{leg.source_id} is {leg.mantissa}"
        else:
            prices.append(leg)
            continue
        return NoData(base, quote, source_id, observed_at, reason, block, leg.raw)
    price = _product([p.mantissa for p in prices], prices, decimals)
    confs = [Fraction(p.conf_abs, p.mantissa) for p in prices if p.conf_abs is not None]
    two_sided = any(p.bid is not None and p.ask is not None for p in prices)
    timed = [p.published_at for p in prices if p.kind not in TIMELESS or p.published_at is not None]
    return PriceObs(
        base,
        quote,
        price,
        decimals,
        FeedKind.COMPOSITE,
        source_id,
        published_at=_oldest(timed),
        observed_at=observed_at,
        block=block,
        conf_abs=ceil(price * sum(confs)) if confs else None,
        bid=_product([_side(p.bid, p) for p in prices], prices, decimals) if two_sided else None,
        ask=_product([_side(p.ask, p) for p in prices], prices, decimals) if two_sided else None,
        raw=b"".join(p.raw for p in prices),
    )


def _product(mantissas: Sequence[int], legs: Sequence[PriceObs], decimals: int) -> int:
    value = Fraction(10**decimals)
    for mantissa, leg in zip(mantissas, legs, strict=True):
        value *= Fraction(mantissa, 10**leg.decimals)
    return floor(value)


def _side(edge: int | None, leg: PriceObs) -> int:
    return leg.mantissa if edge is None else edge


def _oldest(times: Sequence[int | None]) -> int | None:
    """Return the least time; None when one is unknown, or there is none."""
    known = [t for t in times if t is not None]
    return min(known) if known and len(known) == len(times) else None


def build_leg(value: Any) -> Any:
    """Return the source that a table describes; a source stays as it is."""
    return sources.build(value) if isinstance(value, Mapping) else value


Leg = Annotated[
    Any,
    BeforeValidator(build_leg),
    PlainSerializer(lambda source: {"kind": source.kind, **source.model_dump()}),
]
"""A source inside another: a table with its ``kind``, or the source itself."""


def parts(legs: Sequence[Any], results: Sequence[bytes | None]) -> list[tuple[Any, Sequence[bytes | None]]]:
    """Return each source with its share of the answers, in order."""
    found, at = [], 0
    for leg in legs:
        count = len(leg.reads())
        found.append((leg, results[at : at + count]))
        at += count
    return found


def longest_heartbeat(readings: Sequence[Reading], contexts: Sequence[FeedContext]) -> int | None:
    """Return the longest promise of the legs that carry a time; None when one of them promises nothing."""
    promised = [
        context.heartbeat_s
        for reading, context in zip(readings, contexts, strict=True)
        if isinstance(reading, PriceObs) and reading.published_at is not None
    ]
    known = [s for s in promised if s is not None]
    return max(known) if known and len(known) == len(promised) else None


@sources.register("composite")
class CompositeSource(StrictModel):
    """A product of sources, as old as the oldest and as bad as the worst of them.

    Attributes
    ----------
    base, quote
        Symbols of the product.
    legs
        Sources whose prices are multiplied. They have to lead from the base to the quote: each leg prices in
        what the next one is the price of.
    decimals
        Scale of the product.
    name
        Source id; ``composite:<base>/<quote>`` by default.
    heartbeat_s, grace_s
        The longest promise of the legs; by default the longest that they state, if all do that carry a time.
    """

    kind: ClassVar[Literal["composite"]] = "composite"

    base: str
    quote: str
    legs: tuple[Leg, ...] = Field(min_length=1)
    decimals: int = Field(default=18, ge=0, le=36)
    name: str | None = None
    heartbeat_s: int | None = Field(default=None, gt=0)
    grace_s: int = Field(default=300, ge=0)

    @model_validator(mode="after")
    def _leads_from_base_to_quote(self) -> CompositeSource:
        at = self.base
        for leg in self.legs:
            if leg.base != at:
                raise ValueError(f"legs break: after {at} comes {leg.base}/{leg.quote}")
            at = leg.quote
        if at != self.quote:
            raise ValueError(f"legs lead from {self.base} to {at}, not to {self.quote}")
        return self

    @property
    def source_id(self) -> str:
        """Unique name within a configuration."""
        return self.name or f"composite:{self.base}/{self.quote}"

    def reads(self) -> list[Call[Any]]:
        """Return the reads of all legs."""
        return [call for leg in self.legs for call in leg.reads()]

    def decode(self, results: Sequence[bytes | None], *, block: int, timestamp: int) -> Reading:
        """Return the product of the legs' readings."""
        readings = [
            leg.decode(part, block=block, timestamp=timestamp) for leg, part in parts(self.legs, results)
        ]
        return compose(
            readings,
            base=self.base,
            quote=self.quote,
            decimals=self.decimals,
            source_id=self.source_id,
            observed_at=timestamp,
            block=block,
        )

    def context(self, results: Sequence[bytes | None], *, timestamp: int) -> FeedContext:
        """Return the kinds of the legs, and the longest heartbeat among them."""
        by_leg = parts(self.legs, results)
        contexts = [leg.context(part, timestamp=timestamp) for leg, part in by_leg]
        readings = [leg.decode(part, block=0, timestamp=timestamp) for leg, part in by_leg]
        return FeedContext(
            now=timestamp,
            heartbeat_s=self.heartbeat_s or longest_heartbeat(readings, contexts),
            grace_s=self.grace_s,
            legs=tuple(r.kind for r in readings if isinstance(r, PriceObs)),
        )
