"""Impact: what is sold and bought moves the market's price, the move fades, and liquidity may leave."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Final, Literal

import numpy as np
from pydantic import Field, field_validator

from contracts_abi.errors import InputError, UnknownNameError
from oracle.strict import StrictModel
from simulation.contagion.batch import YEAR_S, Batch, Channel, market_prices
from simulation.contagion.channels import channels
from simulation.contagion.impact import ImpactModel, build
from simulation.contagion.impact.table import of_exit
from simulation.contagion.settle import Depth
from simulation.contagion.world import World
from simulation.types import Float64

DAY_S: Final = 86_400.0
POINTS: Final = 24
"""Points of the table of losses that keepers decide by."""


class Withdrawal(StrictModel):
    """Liquidity that leaves a market at a moment and does not come back.

    Attributes
    ----------
    token
        Whose market.
    step
        From the beginning of which step it is gone; 1 is the first.
    share
        Part of what is there by then, in (0, 1).
    """

    token: str
    step: Annotated[int, Field(ge=1)]
    share: Annotated[float, Field(gt=0, lt=1)]


class Flight(StrictModel):
    """Liquidity that leaves all markets as they become wild.

    In a step of dt days the part ``1 - exp(-w dt)`` leaves, with ``w = rate * max(sigma - calm, 0)`` and
    sigma the realised volatility of the token's market price a year: the root of an exponentially weighted
    mean of ``(ln return)**2`` a year's time, which starts at ``calm**2``. It does not come back.

    Attributes
    ----------
    rate
        Part a day for each unit of yearly volatility above `calm`; 0 for none.
    calm
        Volatility a year at and below which nobody leaves.
    half_life_s
        Seconds after which a return counts half in the volatility.
    stays
        Part of a market's first liquidity that never leaves for this reason, in (0, 1].
    """

    rate: Annotated[float, Field(ge=0)] = 0.0
    calm: Annotated[float, Field(ge=0)] = 1.0
    half_life_s: Annotated[float, Field(gt=0)] = 3_600.0
    stays: Annotated[float, Field(gt=0, le=1)] = 0.05

    def share(self, variance: Float64, left: Float64, dt_s: float) -> Float64:
        """Return the part of what is left that leaves in a step at variances a year."""
        rate = self.rate * np.maximum(np.sqrt(variance) - self.calm, 0.0)
        most = np.maximum(1.0 - self.stays / left, 0.0)
        return np.minimum(-np.expm1(-rate * dt_s / DAY_S), most)

    def variance(self, before: Float64, log_return: Float64, dt_s: float) -> Float64:
        """Return the realised variance a year after one more return."""
        keep = 0.5 ** (dt_s / self.half_life_s)
        return np.asarray(keep * before + (1.0 - keep) * log_return**2 * (YEAR_S / dt_s))


@dataclass(slots=True)
class _Memo:
    """What is kept of the markets; `left` is the part of each one's liquidity that has not left.

    `seen` and `variance` are the market prices of the step before and the realised variance a year.
    """

    models: dict[int, ImpactModel]
    states: dict[int, Float64]
    sizes: dict[int, Float64]
    left: Float64
    seen: Float64
    variance: Float64


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
    feedback
        Whether what is traded moves the price that the next step begins with. Without, markets are whole
        again at each step's end: keepers see the depth, prices do not.
    tokens
        Token to its market: ``model`` names it, the rest are its parameters. A token without one is not moved
        by anybody.
    exits
        Whether tokens that are not listed take the book's exit liquidity, if it has some.
    exit_half_life_s
        Seconds in which half of what was sold into an exit is refilled.
    withdrawals
        Liquidity that leaves at given steps.
    flight
        Liquidity that leaves with realised volatility.
    """

    kind: ClassVar[Literal["impact"]] = "impact"
    order: ClassVar[int] = 100

    feedback: bool = True
    tokens: dict[str, dict[str, Any]] = Field(default_factory=dict)
    exits: bool = True
    exit_half_life_s: Annotated[float, Field(gt=0)] = 3_600.0
    withdrawals: tuple[Withdrawal, ...] = ()
    flight: Flight = Flight()

    @field_validator("tokens")
    @classmethod
    def _builds(cls, value: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        for symbol, table in value.items():
            build(table, where=f"tokens.{symbol}")
        return value

    def check(self, world: World) -> None:
        """Refuse a token that the book has not, and a withdrawal from a market that is none."""
        for symbol in self.tokens:
            world.token(symbol)
        if self.on and self.withdrawals:
            markets = [world.tokens[a] for a in self.models(world)]
            for withdrawal in self.withdrawals:
                if withdrawal.token not in markets:
                    raise UnknownNameError("market of channels.impact.withdrawals", withdrawal.token, markets)

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
        memo = _Memo(
            models,
            {a: model.start(paths) for a, model in models.items()},
            {},
            left=np.ones_like(batch.state.market),
            seen=batch.state.market.copy(),
            variance=np.full_like(batch.state.market, self.flight.calm**2),
        )
        for a, model in models.items():
            memo.sizes[a] = _sizes(
                model, memo.states[a][:1], batch.state.market[:1, a], batch.world.tokens[a]
            )
        self._leave(batch, memo, 1)
        batch.ask_depth = lambda: self._depth(batch, memo)
        return memo

    def act(self, batch: Batch, memo: _Memo) -> None:
        """Trade, let time pass, and set the price that the next step begins with."""
        state = batch.state
        reference = _reference(batch)
        for a, model in memo.models.items():
            flow, own = state.order_flow[:, a], memo.states[a]
            if self.feedback and flow.any():
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
        if self.flight.rate > 0.0:
            moved = np.log(state.market / memo.seen)
            memo.variance = self.flight.variance(memo.variance, moved, batch.dt_s)
            memo.seen = state.market.copy()
            share = self.flight.share(memo.variance, memo.left, batch.dt_s)
            for a in memo.models:
                _withdraw(memo, a, share[:, a])
        self._leave(batch, memo, batch.step + 1)

    def _leave(self, batch: Batch, memo: _Memo, step: int) -> None:
        """Take away what is gone from the beginning of `step` on."""
        for withdrawal in self.withdrawals:
            if withdrawal.step == step:
                a = batch.world.token(withdrawal.token)
                _withdraw(memo, a, np.full(batch.state.paths, withdrawal.share))

    def columns(self, batch: Batch, memo: _Memo) -> dict[str, Float64]:
        """Return which part of each market's liquidity is left, where some of it can leave."""
        if not self.withdrawals and self.flight.rate == 0.0:
            return {}
        return {f"impact.liquidity_left.{batch.world.tokens[a]}": memo.left[:, a] for a in memo.models}

    def column_names(self, world: World) -> tuple[str, ...]:
        """See `Channel.column_names`."""
        if not self.withdrawals and self.flight.rate == 0.0:
            return ()
        traded = [*(e.token for e in world.book.exits if self.exits), *self.tokens]
        return tuple(f"impact.liquidity_left.{symbol}" for symbol in dict.fromkeys(traded))

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


def _withdraw(memo: _Memo, a: int, share: Float64) -> None:
    """Take a part of a market's liquidity away, on each path its own; the price stays."""
    memo.states[a] = memo.models[a].withdraw(memo.states[a], share).state
    memo.left[:, a] *= 1.0 - share


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
