"""Suppliers: those who lent run when a pool is full, has lost money, or its tokens lose their peg."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from simulation.contagion.batch import YEAR_S, Batch, Channel
from simulation.contagion.channels import channels
from simulation.contagion.state import Total, utilisation
from simulation.types import Float64


@channels.register("suppliers")
class SuppliersChannel(Channel):
    """Withdrawals of suppliers that are not borrowers, as a flow.

    In a step of dt seconds the part ``1 - exp(-w * dt)`` of what others have supplied asks to leave, with

        w = calm + full * max(u - kink, 0) / (1 - kink) + loss * B / S + alarm * (peg below 1 - alarm_at)

    where u is the utilisation, B the venue's deficit in the token and S its supply; all rates are per day.
    What the pool's cash does not cover is unfilled, and asks again. At no cash left the pool is frozen:
    liquidators are paid in claims, so nobody liquidates there (see the keepers).

    Off, nobody withdraws.

    Attributes
    ----------
    on
        The switch.
    calm
        Part a day of what others supplied that leaves at any time.
    full
        Added to it at full use; between the kink of the rate curve and full use, in proportion.
    loss
        Added to it for each unit of deficit over supply.
    alarm
        Added to it while the token is off its peg by more than `alarm_at`.
    alarm_at
        Discount of a backed token to its backing that alarms.
    sells
        Part of what was withdrawn that is sold at once.
    """

    kind: ClassVar[Literal["suppliers"]] = "suppliers"
    order: ClassVar[int] = 90

    calm: Annotated[float, Field(ge=0)] = 0.0
    full: Annotated[float, Field(ge=0)] = 5.0
    loss: Annotated[float, Field(ge=0)] = 50.0
    alarm: Annotated[float, Field(ge=0)] = 5.0
    alarm_at: Annotated[float, Field(gt=0, lt=1)] = 0.02
    sells: Annotated[float, Field(ge=0, le=1)] = 0.0

    def act(self, batch: Batch, memo: Any) -> None:
        """Let suppliers leave."""
        state, world = batch.state, batch.world
        venues, tokens = len(world.venues), len(world.tokens)
        kink = world.reserves.optimal
        u = utilisation(state)
        claims = state.idle * state.supply_index
        supply = (state.idle + state.supplied) * state.supply_index
        lost = np.divide(state.deficit, supply, out=np.zeros_like(supply), where=supply > 0.0)
        off_peg = state.peg * np.exp(state.displaced) < 1.0 - self.alarm_at
        backed = np.array([token.backing is not None for token in world.book.tokens])
        alarmed = np.tile(off_peg & backed, (1, venues))
        rate = (
            self.calm
            + self.full * np.maximum(u - kink, 0.0) / (1.0 - kink)
            + self.loss * lost
            + self.alarm * alarmed
        )
        wanted = claims * -np.expm1(-rate * (batch.dt_s / (YEAR_S / 365.0)))
        paid = np.minimum(wanted, np.maximum(state.cash, 0.0))
        state.cash -= paid
        # Where suppliers have lost all, claims are worth nothing and nothing is paid.
        state.idle -= np.divide(paid, state.supply_index, out=np.zeros_like(paid), where=paid > 0.0)
        by_token = paid.reshape(state.paths, venues, tokens).sum(axis=1)
        state.sold += by_token
        state.order_flow -= self.sells * by_token * state.market
        price = np.tile(state.market, (1, venues))

        def by_venue(x: Float64) -> Float64:
            return np.asarray(x.reshape(state.paths, venues, tokens).sum(axis=2))

        state.totals[:, :, Total.WITHDRAWN] += by_venue(paid * price)
        state.totals[:, :, Total.UNFILLED] += by_venue((wanted - paid) * price)
