"""Impact: what is sold and bought moves the market's price, and the move fades."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Final, Literal

import numpy as np
from pydantic import Field, field_validator

from contracts_abi.errors import InputError
from simulation.contagion.batch import Batch, Channel, market_prices
from simulation.contagion.channels import channels
from simulation.contagion.impact import ImpactModel, build
from simulation.contagion.impact.table import of_exit
from simulation.contagion.settle import Depth
from simulation.contagion.world import World
from simulation.types import Float64

POINTS: Final = 24
"""Points of the table of losses that keepers decide by."""


@dataclass(slots=True)
class _Memo:
    models: dict[int, ImpactModel]
    states: dict[int, Float64]
    sizes: dict[int, Float64]


@channels.register("impact")
class ImpactChannel(Channel):
    """Markets with depth, one a token; see `simulation.contagion.impact` for the models.

    What was bought less sold of a token in a step goes through its market at the step's end, and the market's
    price is what the next step begins with. Keepers see the depth before they act: what a sale of any size
    would lose, after what they sold in the same step.

    Off, trades move nothing and lose nothing.

    Attributes
    ----------
    on
        The switch.
    tokens
        Token to its market: ``model`` names it, the rest are its parameters. A token without one is not moved
        by anybody.
    exits
        Whether tokens that are not listed take the book's exit liquidity, if it has some.
    exit_half_life_s
        Seconds in which half of what was sold into an exit is refilled.
    """

    kind: ClassVar[Literal["impact"]] = "impact"
    order: ClassVar[int] = 100

    tokens: dict[str, dict[str, Any]] = Field(default_factory=dict)
    exits: bool = True
    exit_half_life_s: Annotated[float, Field(gt=0)] = 3_600.0

    @field_validator("tokens")
    @classmethod
    def _builds(cls, value: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        for symbol, table in value.items():
            build(table, where=f"tokens.{symbol}")
        return value

    def check(self, world: World) -> None:
        """Refuse a token that the book has not."""
        for symbol in self.tokens:
            world.token(symbol)

    def models(self, world: World) -> dict[int, ImpactModel]:
        """Return the market of each token that has one, by the token's index."""
        found: dict[int, ImpactModel] = {}
        if self.exits:
            for exit_ in world.book.exits:
                found[world.token(exit_.token)] = of_exit(exit_, self.exit_half_life_s)
        for symbol, table in self.tokens.items():
            found[world.token(symbol)] = build(table, where=f"channels.impact.tokens.{symbol}")
        return found

    def prepare(self, batch: Batch) -> _Memo:
        """Open the markets, and tell keepers how to ask what trades lose."""
        paths = batch.state.paths
        models = self.models(batch.world)
        memo = _Memo(models, {a: model.start(paths) for a, model in models.items()}, {})
        for a, model in models.items():
            memo.sizes[a] = _sizes(
                model, memo.states[a][:1], batch.state.market[:1, a], batch.world.tokens[a]
            )
        batch.ask_depth = lambda: self._depth(batch, memo)
        return memo

    def act(self, batch: Batch, memo: _Memo) -> None:
        """Trade, let time pass, and set the price that the next step begins with."""
        state = batch.state
        reference = _reference(batch)
        for a, model in memo.models.items():
            flow, own = state.order_flow[:, a], memo.states[a]
            if flow.any():
                tokens = np.abs(flow) / state.market[:, a]
                sells = flow < 0.0
                sold = model.sell(own, np.where(sells, tokens, 0.0), reference[:, a])
                bought = model.buy(sold.state, np.where(sells, 0.0, tokens), reference[:, a])
                own = bought.state
            state.displaced[:, a] = np.log(model.price(own, reference[:, a]) / reference[:, a])
            memo.states[a] = model.recover(own, reference[:, a], batch.dt_s).state
        state.market[:] = market_prices(
            batch.world, batch.exogenous[:, batch.step], state.displaced, state.peg
        )
        for a, model in memo.models.items():
            # The move of the step is what was seen; the next one begins from what is left of it.
            faded = model.price(memo.states[a], reference[:, a]) / reference[:, a]
            state.displaced[:, a] = np.log(faded)

    def _depth(self, batch: Batch, memo: _Memo) -> Depth:
        """Return what trades of many sizes would lose on each path now."""
        paths, tokens = batch.state.market.shape
        size = np.full((paths, tokens, POINTS), np.inf)
        lost = np.zeros((paths, tokens, POINTS))
        reference = _reference(batch)
        for a, model in memo.models.items():
            asked = np.repeat(memo.sizes[a][None], paths, axis=0)
            state = np.repeat(memo.states[a], POINTS, axis=0)
            fill = model.sell(state, asked.ravel(), np.repeat(reference[:, a], POINTS))
            size[:, a] = asked * batch.state.market[:, a : a + 1]
            gap = size[:, a] - fill.cash.reshape(paths, POINTS)
            # Losses never fall with size; what a market that stands above its reference pays more is no loss.
            lost[:, a] = np.maximum.accumulate(np.maximum(gap, 0.0), axis=1)
        return Depth(size, lost)


def _reference(batch: Batch) -> Float64:
    """Return what each token would cost if nobody of ours had traded it, shape (P, A).

    A backed token is quoted in what backs it, so a move of the backing is part of its reference.
    """
    return np.asarray(batch.state.market / np.exp(batch.state.displaced))


def _sizes(model: ImpactModel, state: Float64, price: Float64, symbol: str) -> Float64:
    """Return token amounts from a small sale to one far beyond halving the price, shape (POINTS,)."""
    half = float(model.quantity_to(state, price, price / 2.0)[0])
    whole = float(model.quantity_to(state, price, np.zeros_like(price))[0])
    most = min(8.0 * half, whole) if np.isfinite(half) else whole
    if not (np.isfinite(most) and most > 0.0):
        raise InputError(
            f"channels.impact: the market of {symbol} has no depth that keepers could see",
            fix="a market whose price falls as it is sold into",
        )
    return np.geomspace(1e-4, 1.0, POINTS) * most
