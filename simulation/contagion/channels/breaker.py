"""Circuit breaker: a venue stops liquidating for a while after a price moved too far too fast."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from simulation.contagion.batch import Batch, Channel
from simulation.contagion.channels import channels
from simulation.contagion.world import World


@channels.register("breaker")
class BreakerChannel(Channel):
    """Pauses by the prices that a venue believes.

    Off, nothing pauses. Compound III pauses absorbing and sales of what was absorbed apart; here only
    absorbing pauses, and sales go on.

    Attributes
    ----------
    move_bps
        Move of any listed token's price over the window that trips it, up or down.
    window_steps
        Length of the window.
    pause_steps
        How many further steps liquidations pause.
    venues
        Which venues have it; all when empty.
    """

    kind: ClassVar[Literal["breaker"]] = "breaker"
    order: ClassVar[int] = 25

    move_bps: Annotated[float, Field(gt=0)] = 1_000.0
    window_steps: Annotated[int, Field(ge=1)] = 5
    pause_steps: Annotated[int, Field(ge=1)] = 30
    venues: tuple[str, ...] = ()

    def check(self, world: World) -> None:
        """Refuse a venue that the book has not."""
        for name in self.venues:
            world.venue(name)

    def prepare(self, batch: Batch) -> dict[str, Any]:
        """Return the window's prices, the oldest first, and which venues are watched."""
        names = batch.world.venues
        return {
            "window": [batch.state.oracle.copy()],
            "watched": np.array([not self.venues or name in self.venues for name in names]),
        }

    def act(self, batch: Batch, memo: dict[str, Any]) -> None:
        """Look back over the window, and pause where a price moved too far."""
        state, world, window = batch.state, batch.world, memo["window"]
        moved = np.abs(state.oracle - window[0]) > self.move_bps / 1e4 * window[0]
        moved &= world.reserves.listed
        tripped = moved.reshape(state.paths, len(world.venues), len(world.tokens)).any(axis=2)
        tripped &= memo["watched"]
        np.maximum(
            state.paused_until,
            np.where(tripped, batch.step + self.pause_steps, -1),
            out=state.paused_until,
        )
        window.append(state.oracle.copy())
        if len(window) > self.window_steps:
            window.pop(0)
