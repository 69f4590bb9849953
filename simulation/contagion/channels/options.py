"""Options: dealers hedge what they have written, and short gamma sells into a fall."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from contracts_abi.errors import InputError
from simulation.contagion.batch import YEAR_S, Batch, Channel
from simulation.contagion.channels import channels
from simulation.contagion.world import World
from simulation.types import Float64

LEAST_YEARS = 1.0 / 365.0 / 24.0
"""An hour: nearer to expiry gamma at the strike grows without bound, and nobody hedges by it."""


@channels.register("options")
class OptionsChannel(Channel):
    """Delta hedging of all options of the book as one dealer's.

    Positions are the dealer's: negative when written. When a token's price has moved from S0 to S since the
    last hedge, the dealer's delta has changed by ``gamma * (S - S0)``, and he trades as many tokens the other
    way: ``-gamma * (S - S0)``, with Black-76's gamma at S. Short gamma sells into a fall and buys into a rise
    and so adds ``|gamma| S**2`` to the density of forced sales. Expired options have no gamma.

    Off, nobody hedges.

    Attributes
    ----------
    on
        The switch.
    hedge_bps
        Move since the last hedge at which the dealer trades; 0 hedges in every step.
    part
        Part of the hedge that goes to the market; the rest is offset elsewhere.
    """

    kind: ClassVar[Literal["options"]] = "options"
    order: ClassVar[int] = 80

    hedge_bps: Annotated[float, Field(ge=0)] = 0.0
    part: Annotated[float, Field(gt=0, le=1)] = 1.0

    def check(self, world: World) -> None:
        """Refuse a book without options."""
        if self.on and not len(world.book.options):
            raise InputError("channels.options: the book has no options", fix="leave the channel out")

    def prepare(self, batch: Batch) -> dict[str, Float64]:
        """Remember the prices of the last hedge: the start's."""
        return {"hedged_at": batch.state.market.copy(), "traded": np.zeros(batch.state.paths)}

    def act(self, batch: Batch, memo: dict[str, Float64]) -> None:
        """Hedge what has moved far enough."""
        state = batch.state
        moved = np.abs(state.market / memo["hedged_at"] - 1.0) > self.hedge_bps / 1e4
        if not moved.any():
            return
        gamma = dealer_gamma(batch.world, state.market, batch.step * batch.dt_s)
        tokens = np.where(moved, -gamma * (state.market - memo["hedged_at"]), 0.0)
        usd = self.part * tokens * state.market
        state.order_flow += usd
        memo["traded"] += np.abs(usd).sum(axis=1)
        memo["hedged_at"] = np.where(moved, state.market, memo["hedged_at"])

    def columns(self, batch: Batch, memo: dict[str, Float64]) -> dict[str, Float64]:
        """Return what dealers have traded, US dollars."""
        return {"options.hedged_usd": memo["traded"]}

    def column_names(self, world: World) -> tuple[str, ...]:
        """See `Channel.column_names`."""
        return ("options.hedged_usd",)


def dealer_gamma(world: World, price: Float64, elapsed_s: float) -> Float64:
    """Return the gamma of all options, tokens a US dollar, shape (P, A).

    Black-76 with the forward at spot: ``phi(d1) / (S sigma sqrt(T))`` for each option, puts and calls alike.

    Parameters
    ----------
    world
        Whose options.
    price
        US dollars, shape (P, A).
    elapsed_s
        Seconds since the book's time.
    """
    options = world.book.options
    years = (options.expiry - world.book.timestamp - elapsed_s) / YEAR_S
    alive = years > 0.0
    spot = price[:, options.token]
    deviation = options.volatility * np.sqrt(np.maximum(years, LEAST_YEARS))
    d1 = np.log(spot / options.strike) / deviation + 0.5 * deviation
    each = np.exp(-0.5 * d1 * d1) / np.sqrt(2.0 * np.pi) / (spot * deviation)
    each = np.where(alive, each * options.size, 0.0)
    out = np.zeros_like(price)
    for a in np.unique(options.token):
        out[:, a] = each[:, options.token == a].sum(axis=1)
    return out
