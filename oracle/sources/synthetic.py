"""A price path from a seed, for trials: the same seed gives the same integers everywhere."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from contracts_abi.calls import Call
from oracle.interfaces import FeedContext
from oracle.sources import sources
from oracle.strict import StrictModel
from oracle.types import FeedKind, NoData, PriceObs, Reading

PARTS = 10**6
"""Moves are whole millionths."""


@functools.lru_cache(maxsize=64)
def synthetic_path(seed: int, start: int, steps: int, move_ppm: int) -> tuple[int, ...]:
    """Return a walk of `steps` positive integers that begins at `start`.

    Each step moves by a whole number of millionths, uniform between ``-move_ppm`` and ``move_ppm``, rounded
    down and kept at 1 or more. Drawn as integers, so that no float decides.
    """
    moves = np.random.default_rng(seed).integers(-move_ppm, move_ppm, size=max(steps - 1, 0), endpoint=True)
    path = [start]
    for move in moves.tolist():
        path.append(max(1, path[-1] * (PARTS + move) // PARTS))
    return tuple(path)


@sources.register("synthetic")
class SyntheticSource(StrictModel):
    """A random walk from a seed on a grid of times, read like a push feed.

    Attributes
    ----------
    base, quote
        Symbols of the pair.
    seed
        Seed of numpy's default generator.
    start, end, step_s
        Unix seconds of the first and last round, and seconds between rounds.
    mantissa, decimals
        The first price and its scale.
    move_ppm
        Greatest move between two rounds, millionths.
    name
        Source id; ``synthetic:<base>/<quote>:<seed>`` by default.
    """

    kind: ClassVar[Literal["synthetic"]] = "synthetic"

    base: str
    quote: str
    seed: int = Field(ge=0)
    start: int = Field(ge=0)
    end: int = Field(ge=0)
    step_s: int = Field(gt=0)
    mantissa: int = Field(gt=0)
    decimals: int = Field(default=8, ge=0, le=36)
    move_ppm: int = Field(default=2_000, ge=0, lt=PARTS)
    name: str | None = None

    def model_post_init(self, _context: object) -> None:
        """Refuse a grid that ends before it starts."""
        if self.end < self.start:
            raise ValueError(f"end {self.end} is before start {self.start}")

    @property
    def source_id(self) -> str:
        """Unique name within a configuration."""
        return self.name or f"synthetic:{self.base}/{self.quote}:{self.seed}"

    def reads(self) -> list[Call[Any]]:
        """Return nothing: the path is computed."""
        return []

    def at(self, timestamp: int, block: int | None = None) -> Reading:
        """Return the last round at or before `timestamp`; no data before the first."""
        index = (min(timestamp, self.end) - self.start) // self.step_s
        if index < 0:
            reason = f"the path begins at {self.start}"
            return NoData(self.base, self.quote, self.source_id, timestamp, reason, block)
        return PriceObs(
            self.base,
            self.quote,
            self._path()[index],
            self.decimals,
            FeedKind.PUSH,
            self.source_id,
            published_at=self.start + index * self.step_s,
            observed_at=timestamp,
            block=block,
            round_key=(1, index + 1),
        )

    def readings(self) -> Iterator[Reading]:
        """Yield every round at its own time."""
        return (self.at(t) for t in range(self.start, self.end + 1, self.step_s))

    def decode(self, results: Sequence[bytes | None], *, block: int, timestamp: int) -> Reading:
        """Return `at` that block's time."""
        return self.at(timestamp, block)

    def context(self, results: Sequence[bytes | None], *, timestamp: int) -> FeedContext:
        """Return the step as heartbeat: rounds come exactly so often."""
        return FeedContext(now=timestamp, heartbeat_s=self.step_s)

    def _path(self) -> tuple[int, ...]:
        steps = (self.end - self.start) // self.step_s + 1
        return synthetic_path(self.seed, self.mantissa, steps, self.move_ppm)
