"""G06 and G07: can the price be what it says."""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt
from typing import ClassVar, Literal

from pydantic import Field

from oracle.guards import GuardModel, guards
from oracle.interfaces import FeedContext
from oracle.types import FeedKind, Finding, GuardAction, GuardStatus, NoData, PriceObs, Reading

_BPS = 10_000
_VACUOUS_MIN = 1
_VACUOUS_MAX = 2**90


@guards.register("bound")
class BoundGuard(GuardModel):
    """G06: the answer stands at a bound of its aggregator, where a feed stops following the market.

    Needs both bounds; an answer at the one that is known convicts without the other. Bounds that bind
    nothing (a minimum of at most 1, a maximum of at least 2**90) are said to be vacuous, and when both
    are, the guard is not applicable.

    1000 bps by default: an aggregator refuses a median beyond its bound, so a feed freezes at the last
    value before it. LUNA/USD stood at 0.107 over a minimum of 0.10 while the market fell to 0.01; 500 bps
    would have called that a price.

    Attributes
    ----------
    epsilon_bps
        How near to a bound an answer may come, relative to the bound.
    """

    kind: ClassVar[Literal["bound"]] = "bound"
    id: ClassVar[str] = "G06"
    checklist: ClassVar[tuple[str, ...]] = ("SOL-Defi-Oracle-14",)
    actions: ClassVar[frozenset[GuardAction]] = frozenset(
        {GuardAction.REJECT, GuardAction.PAUSE, GuardAction.PAUSE_LIQUIDATIONS}
    )

    epsilon_bps: int = Field(default=1_000, ge=0, lt=_BPS)

    @staticmethod
    def vacuous(low: int, high: int) -> bool:
        """Return whether bounds bind nothing."""
        return low <= _VACUOUS_MIN and high >= _VACUOUS_MAX

    def check(
        self,
        reading: Reading,
        history: Sequence[PriceObs],
        peers: Sequence[Reading],
        context: FeedContext,
    ) -> Finding:
        """Judge `reading` by `context.min_answer` and `context.max_answer`, which have its scale."""
        if isinstance(reading, NoData):
            return self._not_applicable(reading, "no price")
        low, high, answer = context.min_answer, context.max_answer, reading.mantissa
        inputs = {"mantissa": answer, "min_answer": low, "max_answer": high}
        if low is not None and answer * _BPS <= low * _BPS + abs(low) * self.epsilon_bps:
            return self._finding(
                reading,
                GuardStatus.VIOLATED,
                f"answer {answer} is within {self.epsilon_bps} bps of the feed's minimum {low}",
                observed=str(answer),
                threshold=f"> {low} + {self.epsilon_bps} bps",
                inputs=inputs,
            )
        if high is not None and answer * _BPS >= high * _BPS - abs(high) * self.epsilon_bps:
            return self._finding(
                reading,
                GuardStatus.VIOLATED,
                f"answer {answer} is within {self.epsilon_bps} bps of the feed's maximum {high}",
                observed=str(answer),
                threshold=f"< {high} - {self.epsilon_bps} bps",
                inputs=inputs,
            )
        if low is None or high is None:
            return self._not_applicable(reading, "bounds unknown")
        if self.vacuous(low, high):
            return self._not_applicable(reading, f"bounds vacuous ({low} to {high})")
        return self._finding(
            reading,
            GuardStatus.OK,
            f"answer is away from the bounds {low} and {high}",
            observed=str(answer),
            threshold=f"{low} + {self.epsilon_bps} bps < answer < {high} - {self.epsilon_bps} bps",
            inputs=inputs,
        )


@guards.register("jump")
class JumpGuard(GuardModel):
    """G07: the price moved further from the last accepted one than the time between them explains.

    Needs an accepted price that is not older than `memory_s`. The move is measured against the larger of the
    two prices, so that a halving and a doubling count the same (50 %). Its limit is

        min(cap_bps, floor_bps + vol_bps_sqrt_hour * sqrt(time between them in hours)).

    A larger move stands when another source confirms it; a constant confirms nothing.

    Defaults: in rounds of ETH/USD and BTC/USD from 2023-04 to 2024-01 the largest move between two rounds
    was 329 bps, so that a floor of 1000 bps never cried wolf there; hourly closes of both from 2017 to 2025,
    the crashes of 2020-03, 2021-05, 2022-06 and 2025-10 among them, passed the limit in 4 of 135,502 steps.
    The cap is the 50 % that Liquity allows between rounds. A price is forgotten after a day: a guard that
    keeps refusing the new level would blind the keeper for good.

    Attributes
    ----------
    floor_bps
        Move that is never a jump, however short the time.
    vol_bps_sqrt_hour
        What is allowed on top, times the square root of the hours since the last accepted price.
    cap_bps
        Move that is always a jump, however long the time.
    agree_bps
        How near a peer has to be to confirm.
    memory_s
        Age at which the last accepted price no longer speaks.
    """

    kind: ClassVar[Literal["jump"]] = "jump"
    id: ClassVar[str] = "G07"
    checklist: ClassVar[tuple[str, ...]] = ("SOL-Defi-Oracle-14",)
    actions: ClassVar[frozenset[GuardAction]] = frozenset({GuardAction.PAUSE})

    floor_bps: int = Field(default=1_000, ge=0, lt=_BPS)
    vol_bps_sqrt_hour: int = Field(default=600, ge=0)
    cap_bps: int = Field(default=5_000, gt=0, lt=_BPS)
    agree_bps: int = Field(default=200, ge=0, lt=_BPS)
    memory_s: int = Field(default=86_400, gt=0)

    def check(
        self,
        reading: Reading,
        history: Sequence[PriceObs],
        peers: Sequence[Reading],
        context: FeedContext,
    ) -> Finding:
        """Judge `reading` against the last of `history`, and by `peers` when it moved too far."""
        if isinstance(reading, NoData):
            return self._not_applicable(reading, "no price")
        if not history:
            return self._not_applicable(reading, "nothing accepted before")
        last = history[-1]
        if last.mantissa <= 0 or reading.mantissa <= 0:
            return self._not_applicable(reading, "a move is measured between positive prices")
        if context.now - last.observed_at > self.memory_s:
            return self._not_applicable(reading, f"the last accepted price is over {self.memory_s} s old")
        elapsed_s = _elapsed(last, reading)
        limit_bps = min(self.cap_bps, self.floor_bps + isqrt(self.vol_bps_sqrt_hour**2 * elapsed_s // 3_600))
        move_bps = apart_bps(reading, last)
        inputs: dict[str, object] = {
            "mantissa": reading.mantissa,
            "last_mantissa": last.mantissa,
            "elapsed_s": elapsed_s,
            "peers": len(peers),
        }
        observed, threshold = f"{move_bps} bps in {elapsed_s} s", f"<= {limit_bps} bps"
        if move_bps <= limit_bps:
            return self._finding(
                reading,
                GuardStatus.OK,
                f"moved {observed}, limit {limit_bps} bps",
                observed,
                threshold,
                inputs,
            )
        others = [p for p in peers if independent(p, reading)]
        confirming = [
            p for p in others if isinstance(p, PriceObs) and apart_bps(p, reading) <= self.agree_bps
        ]
        inputs["confirmed_by"] = ", ".join(p.source_id for p in confirming)
        if confirming:
            return self._finding(
                reading,
                GuardStatus.OK,
                f"moved {observed}, confirmed by {confirming[0].source_id}",
                observed,
                threshold,
                inputs,
            )
        return self._finding(
            reading,
            GuardStatus.VIOLATED,
            f"moved {observed}, limit {limit_bps} bps, "
            + ("contradicted by its peers" if others else "no second source"),
            observed,
            threshold,
            inputs,
            actions=self.actions | {GuardAction.REJECT} if others else None,
        )


def _elapsed(last: PriceObs, reading: PriceObs) -> int:
    """Return the seconds between two observations, by the source's times where both have one."""
    if last.published_at is not None and reading.published_at is not None:
        return max(0, reading.published_at - last.published_at)
    return max(0, reading.observed_at - last.observed_at)


def apart_bps(a: PriceObs, b: PriceObs) -> int:
    """Return the distance of two positive prices relative to the larger, rounded up, in basis points."""
    decimals = max(a.decimals, b.decimals)
    x, y = a.scaled(decimals), b.scaled(decimals)
    return -(-abs(x - y) * _BPS // max(x, y))


def independent(peer: Reading, reading: PriceObs) -> bool:
    """Return whether a peer is a price of the same pair, made apart from the reading."""
    return (
        isinstance(peer, PriceObs)
        and peer.kind is not FeedKind.CONSTANT
        and peer.mantissa > 0
        and peer.source_id != reading.source_id
        and (peer.base, peer.quote) == (reading.base, reading.quote)
    )
