"""A price that somebody wrote down: Compound's ``ConstantPriceFeed``, Euler's ``FixedRateOracle``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field

from contracts_abi.calls import Call
from oracle.interfaces import FeedContext
from oracle.sources import sources
from oracle.strict import StrictModel
from oracle.types import FeedKind, PriceObs


@sources.register("constant")
class ConstantSource(StrictModel):
    """A price that never changes, asks nobody and confirms nothing.

    It carries no time: the contracts answer the time of the block, which says nothing of the price.

    Attributes
    ----------
    base, quote
        Symbols of the pair.
    mantissa, decimals
        The price and its scale.
    name
        Source id; ``constant:<base>/<quote>`` by default.
    """

    kind: ClassVar[Literal["constant"]] = "constant"

    base: str
    quote: str
    mantissa: int = Field(gt=0)
    decimals: int = Field(default=8, ge=0, le=36)
    name: str | None = None

    @property
    def source_id(self) -> str:
        """Unique name within a configuration."""
        return self.name or f"constant:{self.base}/{self.quote}"

    def reads(self) -> list[Call[Any]]:
        """Return nothing: there is nothing to ask."""
        return []

    def decode(self, results: Sequence[bytes | None], *, block: int, timestamp: int) -> PriceObs:
        """Return the price."""
        return PriceObs(
            self.base,
            self.quote,
            self.mantissa,
            self.decimals,
            FeedKind.CONSTANT,
            self.source_id,
            published_at=None,
            observed_at=timestamp,
            block=block,
        )

    def context(self, results: Sequence[bytes | None], *, timestamp: int) -> FeedContext:
        """Return that nothing is known."""
        return FeedContext(now=timestamp)
