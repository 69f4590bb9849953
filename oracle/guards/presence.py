"""G01 and G02: is there a price at all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from oracle.guards import GuardModel, guards
from oracle.interfaces import FeedContext
from oracle.types import Finding, GuardAction, GuardStatus, NoData, PriceObs, Reading


@guards.register("no_data")
class NoDataGuard(GuardModel):
    """G01: the source reverted, answered zeros, or answered something that does not decode.

    Needs nothing but the reading. No threshold: a Chainlink aggregator answers a round that was never
    written by reverting (Flux) or with zeros (OCR), and both mean the same.
    """

    kind: ClassVar[Literal["no_data"]] = "no_data"
    id: ClassVar[str] = "G01"
    checklist: ClassVar[tuple[str, ...]] = ("SOL-Defi-Oracle-11",)
    actions: ClassVar[frozenset[GuardAction]] = frozenset({GuardAction.REJECT, GuardAction.FALLBACK})

    def check(
        self,
        reading: Reading,
        history: Sequence[PriceObs],
        peers: Sequence[Reading],
        context: FeedContext,
    ) -> Finding:
        """Judge `reading`; uses no other argument."""
        if isinstance(reading, NoData):
            return self._finding(
                reading,
                GuardStatus.VIOLATED,
                f"no data: {reading.reason}",
                observed="no data",
                threshold="a price",
                inputs={"reason": reading.reason},
            )
        return self._finding(
            reading, GuardStatus.OK, "has data", "a price", "a price", {"mantissa": reading.mantissa}
        )


@guards.register("non_positive")
class NonPositiveGuard(GuardModel):
    """G02: the answer is zero or negative.

    Needs a price. The limit is fixed: no asset that secures a loan is worth nothing, and a consumer that
    only checks ``answer >= 0`` lets a zero through.
    """

    kind: ClassVar[Literal["non_positive"]] = "non_positive"
    id: ClassVar[str] = "G02"
    checklist: ClassVar[tuple[str, ...]] = ("SOL-Defi-Oracle-2",)
    actions: ClassVar[frozenset[GuardAction]] = frozenset({GuardAction.REJECT, GuardAction.FALLBACK})

    def check(
        self,
        reading: Reading,
        history: Sequence[PriceObs],
        peers: Sequence[Reading],
        context: FeedContext,
    ) -> Finding:
        """Judge `reading`; uses no other argument."""
        if isinstance(reading, NoData):
            return self._not_applicable(reading, "no price")
        bad = reading.mantissa <= 0
        return self._finding(
            reading,
            GuardStatus.VIOLATED if bad else GuardStatus.OK,
            f"answer {reading.mantissa} is not positive" if bad else "answer is positive",
            observed=f"{reading.mantissa} e-{reading.decimals}",
            threshold="> 0",
            inputs={"mantissa": reading.mantissa, "decimals": reading.decimals},
        )
