"""Several sources of one pair as one source; the rules are those of `oracle.aggregate`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from contracts_abi.calls import Call
from oracle.aggregate import Beyond, anchored, first_standing, median, quorum_of
from oracle.interfaces import FeedContext
from oracle.sources import sources
from oracle.sources.composite import Leg, longest_heartbeat, parts
from oracle.strict import StrictModel
from oracle.types import PriceObs, Reading


@sources.register("aggregate")
class AggregateSource(StrictModel):
    """Several sources of one pair, put together: their median, the first that answers, one held by another.

    Attributes
    ----------
    base, quote
        Symbols of the pair, that every source has to price.
    legs
        The sources. With rule ``first`` in order of preference; with ``anchored`` the price and its anchor.
    rule
        ``median``, ``first`` or ``anchored``.
    quorum
        Least number of prices for a median; by default more than half of the sources.
    tolerance_bps, beyond
        How far a price may lie from its anchor, and what becomes of one that lies further.
    name
        Source id; ``aggregate:<base>/<quote>`` by default.
    """

    kind: ClassVar[Literal["aggregate"]] = "aggregate"

    base: str
    quote: str
    legs: tuple[Leg, ...] = Field(min_length=1)
    rule: Literal["median", "first", "anchored"] = "median"
    quorum: int | None = Field(default=None, ge=1)
    tolerance_bps: int = Field(default=500, ge=0)
    beyond: Beyond = Beyond.REFUSE
    name: str | None = None

    @model_validator(mode="after")
    def _fits(self) -> AggregateSource:
        for leg in self.legs:
            if (leg.base, leg.quote) != (self.base, self.quote):
                raise ValueError(f"{leg.source_id} prices {leg.base}/{leg.quote}")
        if self.rule == "anchored" and len(self.legs) != 2:
            raise ValueError("an anchored price needs two legs: the price and its anchor")
        if self.quorum is not None and self.quorum > len(self.legs):
            raise ValueError(f"a quorum of {self.quorum} cannot be had of {len(self.legs)} sources")
        return self

    @property
    def source_id(self) -> str:
        """Unique name within a configuration."""
        return self.name or f"aggregate:{self.base}/{self.quote}"

    @property
    def minimum(self) -> int:
        """How many prices there have to be."""
        if self.rule == "first":
            return 1
        if self.rule == "anchored":
            return 2
        return len(self.legs) // 2 + 1 if self.quorum is None else self.quorum

    def reads(self) -> list[Call[Any]]:
        """Return the reads of all sources."""
        return [call for leg in self.legs for call in leg.reads()]

    def decode(self, results: Sequence[bytes | None], *, block: int, timestamp: int) -> Reading:
        """Return the price that the rule makes of the sources' readings."""
        readings = self._readings(results, block, timestamp)
        if self.rule == "median":
            return median(readings, quorum=self.minimum, source_id=self.source_id)
        if self.rule == "first":
            return first_standing(readings, source_id=self.source_id)
        price, anchor = readings
        return anchored(
            price, anchor, tolerance_bps=self.tolerance_bps, source_id=self.source_id, beyond=self.beyond
        )

    def context(self, results: Sequence[bytes | None], *, timestamp: int) -> FeedContext:
        """Return how many sources answer, their kinds, and the longest heartbeat among them."""
        readings = self._readings(results, 0, timestamp)
        contexts = [leg.context(part, timestamp=timestamp) for leg, part in parts(self.legs, results)]
        return FeedContext(
            now=timestamp,
            heartbeat_s=longest_heartbeat(readings, contexts),
            grace_s=max(c.grace_s for c in contexts),
            legs=tuple(r.kind for r in readings if isinstance(r, PriceObs)),
            quorum=quorum_of(readings, self.minimum),
        )

    def _readings(self, results: Sequence[bytes | None], block: int, timestamp: int) -> list[Reading]:
        return [leg.decode(part, block=block, timestamp=timestamp) for leg, part in parts(self.legs, results)]
