"""G09 and G21: how sure the source is, and how many stand behind it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field

from oracle.guards import GuardModel, guards
from oracle.interfaces import FeedContext
from oracle.types import Finding, GuardAction, NoData, PriceObs, Reading

_BPS = 10_000


@guards.register("confidence")
class ConfidenceGuard(GuardModel):
    """G09: the source is too unsure of its price.

    Needs a positive price with a confidence interval, or with bid and ask. The half-width of the interval, or
    half the spread, is held against the price.

    Attributes
    ----------
    cap_bps
        Half-width relative to the price; 200, within the 10 to 500 that Euler's Pyth adapter lets a market
        choose from. Pyth's BTC/USD stood at 5,402 with a half-width of 21,623 on 2021-09-20.
    """

    kind: ClassVar[Literal["confidence"]] = "confidence"
    id: ClassVar[str] = "G09"
    actions: ClassVar[frozenset[GuardAction]] = frozenset({GuardAction.REJECT, GuardAction.CLAMP})

    cap_bps: int = Field(default=200, ge=0)

    def check(
        self,
        reading: Reading,
        history: Sequence[PriceObs],
        peers: Sequence[Reading],
        context: FeedContext,
    ) -> Finding:
        """Judge `reading` by its own confidence, or its bid and ask."""
        if isinstance(reading, NoData) or reading.mantissa <= 0:
            return self._not_applicable(reading, "no positive price")
        if reading.conf_abs is not None:
            half_2 = 2 * reading.conf_abs
        elif reading.bid is not None and reading.ask is not None:
            half_2 = reading.ask - reading.bid
        else:
            return self._not_applicable(reading, "the source states no confidence and no spread")
        crossed = half_2 < 0
        wide_bps = -(-abs(half_2) * _BPS // (2 * reading.mantissa))
        inputs = {
            "mantissa": reading.mantissa,
            "conf_abs": reading.conf_abs,
            "bid": reading.bid,
            "ask": reading.ask,
        }
        message = "bid above ask" if crossed else f"half-width {wide_bps} bps, limit {self.cap_bps} bps"
        return self._verdict(
            reading,
            crossed or wide_bps > self.cap_bps,
            message,
            f"{wide_bps} bps",
            f"<= {self.cap_bps} bps",
            inputs,
        )


@guards.register("quorum")
class QuorumGuard(GuardModel):
    """G21: too few providers stand behind the price.

    Needs the number of providers and how many there must be; the limit is the feed's own.
    """

    kind: ClassVar[Literal["quorum"]] = "quorum"
    id: ClassVar[str] = "G21"
    actions: ClassVar[frozenset[GuardAction]] = frozenset({GuardAction.REJECT, GuardAction.FALLBACK})

    def check(
        self,
        reading: Reading,
        history: Sequence[PriceObs],
        peers: Sequence[Reading],
        context: FeedContext,
    ) -> Finding:
        """Judge `reading` by `context.quorum`."""
        if isinstance(reading, NoData):
            return self._not_applicable(reading, "no price")
        facts = context.quorum
        if facts is None:
            return self._not_applicable(reading, "number of providers unknown")
        if facts.minimum < 1:
            return self._not_applicable(reading, "the feed asks for no number of providers")
        return self._verdict(
            reading,
            facts.providers < facts.minimum,
            f"{facts.providers} of at least {facts.minimum} providers",
            facts.providers,
            f">= {facts.minimum}",
            {"providers": facts.providers, "minimum": facts.minimum},
        )
