"""G03, G04 and G05: is the price of this time, and does time run forwards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field

from oracle.guards import GuardModel, guards
from oracle.interfaces import FeedContext
from oracle.types import FeedKind, Finding, GuardAction, GuardStatus, NoData, PriceObs, Reading

WRITTEN_ONCE = frozenset({FeedKind.PUSH, FeedKind.PULL})
"""Kinds of price of which one second has one, even without rounds."""


@guards.register("stale")
class StaleGuard(GuardModel):
    """G03: the price is older than the feed promises, or was carried over from an earlier round.

    Needs the time at which the price was made, and either the feed's heartbeat or `max_age_s`. A carried-over
    answer convicts by itself: its own time stamp is that of the round that carried it.

    The limit is the heartbeat plus a grace of 300 s by default (`FeedContext.grace_s`). In 21,797 rounds of
    the ETH/USD and BTC/USD feeds on mainnet, heartbeat 3600 s, the longest gap was 3720 s; a limit of the
    bare heartbeat would have cried wolf there, 300 s of grace would not.

    Attributes
    ----------
    max_age_s
        Replaces heartbeat plus grace.
    """

    kind: ClassVar[Literal["stale"]] = "stale"
    id: ClassVar[str] = "G03"
    checklist: ClassVar[tuple[str, ...]] = ("SOL-Defi-Oracle-3", "SOL-Defi-Oracle-7")
    actions: ClassVar[frozenset[GuardAction]] = frozenset(
        {GuardAction.REJECT, GuardAction.FALLBACK, GuardAction.PAUSE}
    )

    max_age_s: int | None = Field(default=None, gt=0)

    def check(
        self,
        reading: Reading,
        history: Sequence[PriceObs],
        peers: Sequence[Reading],
        context: FeedContext,
    ) -> Finding:
        """Judge `reading` by `context.now`, `context.heartbeat_s` and `context.grace_s`."""
        if isinstance(reading, NoData):
            return self._not_applicable(reading, "no price")
        if (
            reading.round_key is not None
            and reading.answered_key is not None
            and reading.answered_key < reading.round_key
        ):
            return self._finding(
                reading,
                GuardStatus.VIOLATED,
                f"round {reading.round_key} carries the answer of round {reading.answered_key}",
                observed=str(reading.answered_key),
                threshold=f">= {reading.round_key}",
                inputs={"round_key": reading.round_key, "answered_key": reading.answered_key},
            )
        if reading.published_at is None:
            return self._not_applicable(reading, "the source carries no time")
        if self.max_age_s is not None:
            limit_s = self.max_age_s
        elif context.heartbeat_s is not None:
            limit_s = context.heartbeat_s + context.grace_s
        else:
            return self._not_applicable(reading, "heartbeat unknown")
        age_s = context.now - reading.published_at
        stale = age_s > limit_s
        return self._finding(
            reading,
            GuardStatus.VIOLATED if stale else GuardStatus.OK,
            f"price is {age_s} s old, limit {limit_s} s",
            observed=f"{age_s} s",
            threshold=f"<= {limit_s} s",
            inputs={
                "published_at": reading.published_at,
                "now": context.now,
                "heartbeat_s": context.heartbeat_s,
                "grace_s": context.grace_s,
                "max_age_s": self.max_age_s,
            },
        )


@guards.register("future")
class FutureGuard(GuardModel):
    """G04: the price claims to be made after the block that it was read in.

    Needs the price's time. 60 s by default: the allowance that pull oracles are given for clocks that run
    ahead; a push feed stamps with block time and is never ahead at all.

    Attributes
    ----------
    max_ahead_s
        How far ahead of block time a price may be.
    """

    kind: ClassVar[Literal["future"]] = "future"
    id: ClassVar[str] = "G04"
    checklist: ClassVar[tuple[str, ...]] = ("SOL-Defi-Oracle-3",)
    actions: ClassVar[frozenset[GuardAction]] = frozenset({GuardAction.REJECT})

    max_ahead_s: int = Field(default=60, ge=0)

    def check(
        self,
        reading: Reading,
        history: Sequence[PriceObs],
        peers: Sequence[Reading],
        context: FeedContext,
    ) -> Finding:
        """Judge `reading` by `context.now`."""
        if isinstance(reading, NoData):
            return self._not_applicable(reading, "no price")
        if reading.published_at is None:
            return self._not_applicable(reading, "the source carries no time")
        ahead_s = reading.published_at - context.now
        future = ahead_s > self.max_ahead_s
        return self._finding(
            reading,
            GuardStatus.VIOLATED if future else GuardStatus.OK,
            f"price is {ahead_s} s ahead of the block, limit {self.max_ahead_s} s"
            if future
            else "price is not from the future",
            observed=f"{ahead_s} s",
            threshold=f"<= {self.max_ahead_s} s",
            inputs={"published_at": reading.published_at, "now": context.now},
        )


@guards.register("rollback")
class RollbackGuard(GuardModel):
    """G05: the source went back behind what it already said, or rewrote it.

    Needs an accepted observation of the same source, and round keys or times in both. Times are compared
    within one phase only: an old aggregator may go on publishing after its successor took over, so that
    time may run backwards across the switch without any fault. The limit is fixed: a round is written once,
    and so is what a provider without rounds says of one second. A price that is made of others, or by a pool,
    changes while its oldest part does not: without rounds only its time is compared.

    Whoever keeps the history has to cut it at a reorganisation (`oracle.snapshot.rewind`).
    """

    kind: ClassVar[Literal["rollback"]] = "rollback"
    id: ClassVar[str] = "G05"
    checklist: ClassVar[tuple[str, ...]] = ("SOL-Defi-Oracle-3",)
    actions: ClassVar[frozenset[GuardAction]] = frozenset({GuardAction.REJECT})

    def check(
        self,
        reading: Reading,
        history: Sequence[PriceObs],
        peers: Sequence[Reading],
        context: FeedContext,
    ) -> Finding:
        """Judge `reading` against the last of `history`."""
        if isinstance(reading, NoData):
            return self._not_applicable(reading, "no price")
        if not history:
            return self._not_applicable(reading, "nothing accepted before")
        last = history[-1]
        inputs = {
            "round_key": reading.round_key,
            "published_at": reading.published_at,
            "last_round_key": last.round_key,
            "last_published_at": last.published_at,
        }
        by_round = reading.round_key is not None and last.round_key is not None
        by_time = reading.published_at is not None and last.published_at is not None
        if reading.round_key is not None and last.round_key is not None:
            if reading.round_key < last.round_key:
                return self._finding(
                    reading,
                    GuardStatus.VIOLATED,
                    f"round {reading.round_key} after round {last.round_key}",
                    observed=str(reading.round_key),
                    threshold=f">= {last.round_key}",
                    inputs=inputs,
                )
            by_time = by_time and reading.round_key[:-1] == last.round_key[:-1]
        if not by_round and not by_time:
            return self._not_applicable(reading, "neither rounds nor times to compare")
        if by_time and reading.published_at is not None and last.published_at is not None:
            if reading.published_at < last.published_at:
                return self._finding(
                    reading,
                    GuardStatus.VIOLATED,
                    f"price of time {reading.published_at} after one of {last.published_at}",
                    observed=str(reading.published_at),
                    threshold=f">= {last.published_at}",
                    inputs=inputs,
                )
            same_round = (reading.round_key, reading.published_at) == (last.round_key, last.published_at)
            once = reading.round_key is not None or reading.kind in WRITTEN_ONCE
            if same_round and once and (reading.mantissa, reading.decimals) != (last.mantissa, last.decimals):
                return self._finding(
                    reading,
                    GuardStatus.VIOLATED,
                    f"the same round was {last.mantissa} e-{last.decimals} before",
                    observed=f"{reading.mantissa} e-{reading.decimals}",
                    threshold=f"{last.mantissa} e-{last.decimals}",
                    inputs=inputs,
                )
        return self._finding(
            reading,
            GuardStatus.OK,
            "not behind the last accepted price",
            observed=f"round {reading.round_key}, time {reading.published_at}",
            threshold=f"round {last.round_key}, time {last.published_at}",
            inputs=inputs,
        )
