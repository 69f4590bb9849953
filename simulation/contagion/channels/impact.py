"""Impact: what is sold and bought moves the market's price, and the move fades."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Final, Literal

import numpy as np
from pydantic import Field

from oracle.strict import StrictModel
from simulation.contagion.batch import Batch, Channel, market_prices
from simulation.contagion.channels import channels
from simulation.contagion.settle import Depth
from simulation.contagion.world import World
from simulation.types import Float64

POINTS: Final = 24
"""Points of the table of losses that keepers decide by."""


class MarketDepth(StrictModel):
    """How the price of a token answers to trades.

    Attributes
    ----------
    depth_usd
        US dollars traded in a step that move the logarithm of the price by one.
    permanent
        Part of a move that stays.
    half_life_s
        Seconds in which half of the rest fades.
    """

    depth_usd: Annotated[float, Field(gt=0)]
    permanent: Annotated[float, Field(ge=0, le=1)] = 0.0
    half_life_s: Annotated[float, Field(gt=0)] = 3_600.0


@channels.register("impact")
class ImpactChannel(Channel):
    """Linear impact on the logarithm of the price: ``d ln m = -V / depth``.

    Off, trades move nothing and lose nothing.

    Attributes
    ----------
    tokens
        Depth of each token's market; one that is not listed is not moved by anybody.
    """

    kind: ClassVar[Literal["impact"]] = "impact"
    order: ClassVar[int] = 100

    tokens: dict[str, MarketDepth] = Field(default_factory=dict)

    def check(self, world: World) -> None:
        """Refuse a token that the book has not."""
        for symbol in self.tokens:
            world.token(symbol)

    def prepare(self, batch: Batch) -> dict[str, Float64]:
        """Lay the depths out by token, and tell keepers what trades lose."""
        world = batch.world
        rate = np.zeros(len(world.tokens))
        permanent, fade = np.zeros(len(world.tokens)), np.ones(len(world.tokens))
        size = np.full((len(world.tokens), POINTS), np.inf)
        lost = np.zeros((len(world.tokens), POINTS))
        for symbol, depth in self.tokens.items():
            a = world.token(symbol)
            rate[a] = 1.0 / depth.depth_usd
            permanent[a] = depth.permanent
            fade[a] = 0.5 ** (batch.dt_s / depth.half_life_s)
            x = np.geomspace(1e-4, 20.0, POINTS)
            size[a] = x * depth.depth_usd
            # Selling x depths along exp(-x): all of them fetch depth * (1 - exp(-x)).
            lost[a] = size[a] - depth.depth_usd * -np.expm1(-x)
        paths = batch.state.paths
        batch.depth = Depth(
            np.repeat(size[None], paths, axis=0).copy(), np.repeat(lost[None], paths, axis=0).copy()
        )
        return {
            "rate": rate,
            "permanent": permanent,
            "fade": fade,
            "lasting": np.zeros_like(batch.state.market),
        }

    def act(self, batch: Batch, memo: Any) -> None:
        """Let earlier moves fade, and move the price by this step's trades."""
        state = batch.state
        move = state.order_flow * memo["rate"]
        fading = (state.displaced - memo["lasting"]) * memo["fade"] + move * (1.0 - memo["permanent"])
        memo["lasting"] += move * memo["permanent"]
        state.displaced[:] = fading + memo["lasting"]
        state.market[:] = market_prices(
            batch.world, batch.exogenous[:, batch.step], state.displaced, state.peg
        )
