"""Pegs: staked tokens and stables can trade below what they redeem for."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from contracts_abi.errors import InputError
from oracle.strict import StrictModel
from simulation.contagion.batch import Batch, Channel, market_prices
from simulation.contagion.channels import channels
from simulation.contagion.world import World
from simulation.types import Float64


class Peg(StrictModel):
    """What holds, and what shakes, the price of a backed token.

    Attributes
    ----------
    step
        Step from which on the market doubts the token.
    discount
        Part of its value that is doubted then; 0 without a shock.
    doubt_half_life_s
        Seconds in which half of the doubt goes; None keeps it.
    redeem_usd_day
        What arbitrageurs can redeem in a day, US dollars: an exit queue, or a stability module's limit.
    redeem_at
        Discount at which redeeming pays (fees, waiting).
    reserve_loss_step
        Step from which on a part of the reserve behind the token is gone; holders then get what is left.
    reserve_loss
        That part; 0 for none.
    """

    step: Annotated[int, Field(ge=0)] = 0
    discount: Annotated[float, Field(ge=0, lt=1)] = 0.0
    doubt_half_life_s: Annotated[float, Field(gt=0)] | None = None
    redeem_usd_day: Annotated[float, Field(ge=0)] = 0.0
    redeem_at: Annotated[float, Field(gt=0, lt=1)] = 0.005
    reserve_loss_step: Annotated[int, Field(ge=0)] = 0
    reserve_loss: Annotated[float, Field(ge=0, lt=1)] = 0.0


@channels.register("pegs")
class PegsChannel(Channel):
    """Discounts of backed tokens, and the redemptions that work against them.

    A backed token costs ``rate * backing * peg * exp(displaced)``. Its peg is the part of the reserve that is
    left, at most 1, times 1 less the market's doubt; sales displace it further (see impact). While it trades
    below its redemption value by more than `redeem_at`, arbitrageurs buy as much as can be redeemed, which is
    an order flow against the discount.

    Off, every backed token redeems, at once and for all.

    Attributes
    ----------
    on
        The switch.
    tokens
        Backed token to its peg.
    """

    kind: ClassVar[Literal["pegs"]] = "pegs"
    order: ClassVar[int] = 10

    tokens: dict[str, Peg] = Field(default_factory=dict)

    def check(self, world: World) -> None:
        """Refuse a token that nothing backs."""
        for symbol in self.tokens:
            if world.book.tokens[world.token(symbol)].backing is None:
                raise InputError(
                    f"channels.pegs.tokens.{symbol}: nothing backs it", fix="add its backing to the book"
                )

    def prepare(self, batch: Batch) -> dict[str, Float64]:
        """Return the reserve ratios of the book."""
        ratio = np.ones(len(batch.world.tokens))
        for a, token in enumerate(batch.world.book.tokens):
            if token.backing is not None:
                ratio[a] = min(token.backing.reserve_ratio, 1.0)
        return {"ratio": ratio}

    def act(self, batch: Batch, memo: Any) -> None:
        """Set the pegs of this step, and let arbitrageurs redeem."""
        state = batch.state
        peg = np.broadcast_to(memo["ratio"], state.peg.shape).copy()
        for symbol, rule in self.tokens.items():
            a = batch.world.token(symbol)
            if rule.reserve_loss and batch.step >= rule.reserve_loss_step:
                peg[:, a] *= 1.0 - rule.reserve_loss
            redeems = peg[:, a].copy()
            if rule.discount and batch.step >= rule.step:
                gone = 0.0
                if rule.doubt_half_life_s is not None:
                    gone = (batch.step - rule.step) * batch.dt_s / rule.doubt_half_life_s
                peg[:, a] *= 1.0 - rule.discount * 0.5**gone
            if rule.redeem_usd_day:
                cheap = peg[:, a] * np.exp(state.displaced[:, a]) < redeems * (1.0 - rule.redeem_at)
                state.order_flow[:, a] += np.where(cheap, rule.redeem_usd_day * batch.dt_s / 86_400.0, 0.0)
        state.peg[:] = peg
        state.market[:] = market_prices(batch.world, state.exogenous, state.displaced, state.peg)
