"""Losses: who pays for debts that nothing stands behind."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from simulation.contagion.batch import Batch, Channel
from simulation.contagion.channels import channels
from simulation.contagion.state import Total
from simulation.contagion.world import World
from simulation.types import Float64


@channels.register("losses")
class LossesChannel(Channel):
    """The waterfall of a deficit: the protocol's reserves, then its backstop, then its suppliers.

    Off, deficits stay where they are; what Morpho Blue takes off its suppliers at once is part of its rules
    and not of this channel.

    Attributes
    ----------
    backstop_usd
        By venue: what a staking module or a treasury pays in, US dollars; nothing by default.
    haircut
        Whether suppliers lose what is left; otherwise it remains a deficit.
    """

    kind: ClassVar[Literal["losses"]] = "losses"
    order: ClassVar[int] = 70
    always: ClassVar[bool] = True

    backstop_usd: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)
    haircut: bool = False

    def check(self, world: World) -> None:
        """Refuse a backstop of a venue that the book has not."""
        for name in self.backstop_usd:
            world.venue(name)

    def prepare(self, batch: Batch) -> Float64:
        """Return what is left of each venue's backstop, shape (P, V)."""
        own = np.array([self.backstop_usd.get(name, 0.0) for name in batch.world.venues])
        return np.repeat(own[None], batch.state.paths, axis=0)

    def act(self, batch: Batch, memo: Float64) -> None:
        """Cover what can be covered of the deficits."""
        state, world = batch.state, batch.world
        if not state.deficit.any():
            return
        tokens, venues = len(world.tokens), len(world.venues)
        price = np.tile(state.market, (1, venues))

        def by_venue(x: Float64) -> Float64:
            return np.asarray(x.reshape(state.paths, venues, tokens).sum(axis=2))

        cut = np.minimum(state.deficit, np.maximum(state.reserves, 0.0))
        state.reserves -= cut
        state.deficit -= cut
        state.totals[:, :, Total.FROM_RESERVES] += by_venue(cut * price)

        wanted = by_venue(state.deficit * price)
        part = np.divide(memo, wanted, out=np.zeros_like(memo), where=wanted > 0.0)
        paid = state.deficit * np.repeat(np.minimum(part, 1.0), tokens, axis=1)
        state.deficit -= paid
        state.cash += paid
        state.bought += paid.reshape(state.paths, venues, tokens).sum(axis=1)
        spent = by_venue(paid * price)
        memo -= spent
        state.totals[:, :, Total.FROM_BACKSTOP] += spent

        if self.haircut:
            claims = (state.supplied + state.idle) * state.supply_index
            lost = np.minimum(state.deficit, claims)
            state.supply_index *= 1.0 - np.divide(lost, claims, out=np.zeros_like(lost), where=claims > 0.0)
            state.deficit -= lost
            state.totals[:, :, Total.FROM_SUPPLIERS] += by_venue(lost * price)
