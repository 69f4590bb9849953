"""G13, G14, G19 and G22: where the price is made, and what it takes to move it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field

from oracle.guards import GuardModel, guards
from oracle.interfaces import FeedContext
from oracle.types import FeedKind, Finding, GuardAction, NoData, PriceObs, Reading

_BPS = 10_000
_AVERAGES = frozenset({FeedKind.AMM_TWAP, FeedKind.AMM_EMA})


@guards.register("spot")
class SpotGuard(GuardModel):
    """G13: the price is a pool's price of this moment, which a flash loan can set.

    Needs the kind of the price, and of a composite those of its legs. No threshold: any trade of the same
    block moves it.
    """

    kind: ClassVar[Literal["spot"]] = "spot"
    id: ClassVar[str] = "G13"
    checklist: ClassVar[tuple[str, ...]] = (
        "SOL-Defi-Oracle-13",
        "SOL-AM-PMA-1",
        "SOL-AM-PMA-2",
    )
    actions: ClassVar[frozenset[GuardAction]] = frozenset({GuardAction.REJECT, GuardAction.FALLBACK})

    def check(
        self,
        reading: Reading,
        history: Sequence[PriceObs],
        peers: Sequence[Reading],
        context: FeedContext,
    ) -> Finding:
        """Judge `reading` by its kind and `context.legs`."""
        if isinstance(reading, NoData):
            return self._not_applicable(reading, "no price")
        if reading.kind is FeedKind.COMPOSITE and not context.legs:
            return self._not_applicable(reading, "legs unknown")
        kinds = {reading.kind, *context.legs}
        return self._verdict(
            reading,
            FeedKind.AMM_SPOT in kinds,
            "read from a pool's spot price" if FeedKind.AMM_SPOT in kinds else "no spot price",
            ", ".join(sorted(kinds)),
            "no amm_spot",
            {"kind": reading.kind.value, "legs": ", ".join(context.legs)},
        )


@guards.register("thin_twap")
class ThinTwapGuard(GuardModel):
    """G14: an average over a pool that is too short, too thin, or being moved right now.

    Needs an average, its window and, for an `OK`, the age of the oldest observation and the spot price.

    Attributes
    ----------
    min_window_s
        Shortest window; 1800, since within 300 (the least that Euler's adapter takes) a pool that nobody
        watches can be held for a few blocks.
    max_gap_bps
        How far the spot price may be from the average, about a basis point a tick; 500.
    """

    kind: ClassVar[Literal["thin_twap"]] = "thin_twap"
    id: ClassVar[str] = "G14"
    checklist: ClassVar[tuple[str, ...]] = ("SOL-Defi-Oracle-5",)
    actions: ClassVar[frozenset[GuardAction]] = frozenset({GuardAction.REJECT, GuardAction.PAUSE})

    min_window_s: int = Field(default=1_800, ge=1)
    max_gap_bps: int = Field(default=500, ge=0)

    def check(
        self,
        reading: Reading,
        history: Sequence[PriceObs],
        peers: Sequence[Reading],
        context: FeedContext,
    ) -> Finding:
        """Judge `reading` by `context.amm`."""
        if isinstance(reading, NoData) or reading.mantissa <= 0:
            return self._not_applicable(reading, "no positive price")
        if not _AVERAGES & {reading.kind, *context.legs}:
            return self._not_applicable(reading, "no average over a pool")
        facts = context.amm
        if facts is None:
            return self._not_applicable(reading, "pool unknown")
        gap_bps = None
        if facts.spot_mantissa is not None:
            gap_bps = -(-abs(facts.spot_mantissa - reading.mantissa) * _BPS // reading.mantissa)
        wrong = []
        if facts.window_s < self.min_window_s:
            wrong.append(f"window {facts.window_s} s below {self.min_window_s} s")
        if facts.oldest_s is not None and facts.oldest_s < facts.window_s:
            wrong.append(f"oldest observation {facts.oldest_s} s old, window {facts.window_s} s")
        if gap_bps is not None and gap_bps > self.max_gap_bps:
            wrong.append(f"spot price {gap_bps} bps away, limit {self.max_gap_bps} bps")
        lent, depth = facts.exposure_usd, facts.depth_usd
        if lent is not None and depth is not None and lent > depth:
            wrong.append(f"{lent} USD lent against a depth of {depth} USD")
        inputs = {
            "window_s": facts.window_s,
            "oldest_s": facts.oldest_s,
            "gap_bps": gap_bps,
            "depth_usd": facts.depth_usd,
            "exposure_usd": facts.exposure_usd,
        }
        if not wrong and (facts.oldest_s is None or gap_bps is None):
            return self._not_applicable(reading, "oldest observation or spot price unknown")
        limits = f">= {self.min_window_s} s, <= {self.max_gap_bps} bps"
        said = "; ".join(wrong) or "long enough and at the spot price"
        return self._verdict(reading, bool(wrong), said, f"{facts.window_s} s, {gap_bps} bps", limits, inputs)


@guards.register("reentrancy")
class ReentrancyGuard(GuardModel):
    """G19: the pool behind the price is in the middle of a call, and its figures do not fit together.

    Needs the answer of a probe (a call that the pool's lock refuses). No threshold.
    """

    kind: ClassVar[Literal["reentrancy"]] = "reentrancy"
    id: ClassVar[str] = "G19"
    checklist: ClassVar[tuple[str, ...]] = ("SOL-Integrations-Balancer-2",)
    actions: ClassVar[frozenset[GuardAction]] = frozenset({GuardAction.REJECT, GuardAction.FALLBACK})

    def check(
        self,
        reading: Reading,
        history: Sequence[PriceObs],
        peers: Sequence[Reading],
        context: FeedContext,
    ) -> Finding:
        """Judge `reading` by `context.locked`."""
        if isinstance(reading, NoData):
            return self._not_applicable(reading, "no price")
        if context.locked is None:
            return self._not_applicable(reading, "the pool's lock was not probed")
        message = "the pool is inside a call" if context.locked else "the pool is at rest"
        return self._verdict(
            reading, context.locked, message, context.locked, False, {"locked": context.locked}
        )


@guards.register("venue")
class VenueGuard(GuardModel):
    """G22: the price is made where the borrower can make it, or more is lent than can be sold.

    Needs, for an `OK`, all of: the share of the largest venue, whether the collateral is the borrower's own
    token, what is lent against it and how much can be sold.

    Attributes
    ----------
    max_share_bps
        Share of one venue in the volume; 5000, beyond which one venue is the price.
    """

    kind: ClassVar[Literal["venue"]] = "venue"
    id: ClassVar[str] = "G22"
    actions: ClassVar[frozenset[GuardAction]] = frozenset({GuardAction.PAUSE})

    max_share_bps: int = Field(default=5_000, ge=0, le=10_000)

    def check(
        self,
        reading: Reading,
        history: Sequence[PriceObs],
        peers: Sequence[Reading],
        context: FeedContext,
    ) -> Finding:
        """Judge `reading` by `context.venue`."""
        if isinstance(reading, NoData):
            return self._not_applicable(reading, "no price")
        facts = context.venue
        if facts is None:
            return self._not_applicable(reading, "venues unknown")
        wrong = []
        if facts.own_token:
            wrong.append("the borrower's own token")
        if facts.share_bps is not None and facts.share_bps > self.max_share_bps:
            wrong.append(f"one venue makes {facts.share_bps} bps of the volume")
        known = facts.exposure_usd is not None and facts.depth_usd is not None
        lent, depth = facts.exposure_usd, facts.depth_usd
        if lent is not None and depth is not None and lent > depth:
            wrong.append(f"{lent} USD lent, {depth} USD can be sold")
        if not wrong and (facts.own_token is None or facts.share_bps is None or not known):
            return self._not_applicable(reading, "venue, issuer or depth unknown")
        inputs = {
            "share_bps": facts.share_bps,
            "own_token": facts.own_token,
            "exposure_usd": facts.exposure_usd,
            "depth_usd": facts.depth_usd,
        }
        said = "; ".join(wrong) or "several venues, deep enough"
        return self._verdict(
            reading, bool(wrong), said, f"{facts.share_bps} bps", f"<= {self.max_share_bps} bps", inputs
        )
