"""Rounds that were recorded, played as they stand."""

from __future__ import annotations

from bisect import bisect_right
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from oracle.interfaces import FeedContext
from oracle.mechanisms import FeedModel, Played, World, mechanisms
from oracle.mechanisms.wrapping import names_of
from oracle.types import FeedKind, NoData, PriceObs, Reading


@mechanisms.register("recorded")
class RecordedFeed(FeedModel):
    """Rounds as somebody wrote them down: phase, round, answer and time of each.

    Attributes
    ----------
    role, pair, decimals
        As of every feed.
    rounds
        ``[phase, round, answer, updated_at]`` each, in the order of their times.
    heartbeat_s, deviation_bps, min_answer, max_answer, description
        As of the feed that was recorded.
    """

    kind: ClassVar[Literal["recorded"]] = "recorded"

    rounds: tuple[tuple[int, int, int, int], ...] = Field(min_length=1)
    heartbeat_s: int | None = Field(default=None, ge=1)
    deviation_bps: int | None = Field(default=None, ge=1)
    min_answer: int | None = None
    max_answer: int | None = None
    description: str | None = None

    @model_validator(mode="after")
    def _in_order(self) -> RecordedFeed:
        times = [updated_at for _, _, _, updated_at in self.rounds]
        if times != sorted(times):
            raise ValueError("rounds must stand in the order of their times")
        return self

    def pairs(self, name: str) -> tuple[str, ...]:
        """Return nothing: what was recorded is not made anew."""
        return ()

    def play(self, name: str, world: World) -> Played:
        """Return the last round at or before each step."""
        base, quote, source_id = names_of(self, name)
        times = [updated_at for _, _, _, updated_at in self.rounds]
        readings: list[Reading] = []
        for t, block in zip(world.steps, world.blocks, strict=True):
            at = bisect_right(times, t) - 1
            if at < 0:
                readings.append(NoData(base, quote, source_id, t, "no round yet", block))
                continue
            phase, number, answer, updated_at = self.rounds[at]
            readings.append(
                PriceObs(
                    base,
                    quote,
                    answer,
                    self.decimals,
                    FeedKind.PUSH,
                    source_id,
                    published_at=updated_at,
                    observed_at=t,
                    block=block,
                    round_key=(phase, number),
                    answered_key=(phase, number),
                )
            )
        contexts = tuple(
            FeedContext(
                now=t,
                heartbeat_s=self.heartbeat_s,
                deviation_bps=self.deviation_bps,
                min_answer=self.min_answer,
                max_answer=self.max_answer,
                description=self.description,
            )
            for t in world.steps
        )
        return Played(name, tuple(readings), contexts)
