"""What the channels of a run share: the world, the state of a batch of paths, a step's terms of trade."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from oracle.strict import StrictModel
from simulation.contagion.settle import Depth
from simulation.contagion.state import State
from simulation.contagion.world import World
from simulation.types import Float64, Int64

YEAR_S = 365.0 * 86_400.0


@dataclass(slots=True)
class Batch:
    """A batch of paths on its way.

    Attributes
    ----------
    world, state
        See the classes.
    dt_s
        Seconds a step stands for.
    steps
        Number of steps.
    exogenous
        Prices without our world's trades at every step, shape (P, steps + 1, A); tokens that follow what
        backs them hold 1.
    step
        The step that is under way, 1 is the first.
    gas_usd
        What the gas of one liquidation costs, shape (P,).
    room
        Liquidations that fit into the step, shape (P,).
    ask_depth
        Returns what trades lose on each path now, see `Depth`.
    memos
        What each channel keeps from step to step, by its kind.
    series
        What is recorded step by step, by name; arrays of shape (P, …). Filled when the run records.
    events
        Liquidations in order, one dict of arrays a step, when the run records.
    recording
        Whether series and events are kept.
    """

    world: World
    state: State
    dt_s: float
    steps: int
    exogenous: Float64
    step: int
    gas_usd: Float64
    room: Int64
    ask_depth: Callable[[], Depth]
    memos: dict[str, Any] = field(default_factory=dict)
    series: dict[str, list[Float64]] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)
    recording: bool = False


class Channel(StrictModel):
    """One cause; the base of the entries of `simulation.contagion.channels.channels`.

    Attributes
    ----------
    on
        Whether it acts.
    """

    kind: ClassVar[str]
    order: ClassVar[int]
    """Its place in a step."""
    always: ClassVar[bool] = False
    """Whether it acts with its defaults when a scenario does not mention it."""

    on: bool = True

    def check(self, world: World) -> None:
        """Raise `InputError` when the settings name what the book has not, or contradict it."""

    def prepare(self, batch: Batch) -> Any:
        """Return what the channel keeps from step to step; called once for each batch."""

    def act(self, batch: Batch, memo: Any) -> None:
        """Change the state of the step that is under way."""
        raise NotImplementedError

    def columns(self, batch: Batch, memo: Any) -> dict[str, Float64]:
        """Return figures of the channel's own at the end of the paths, arrays of shape (P,) by name."""
        return {}

    def column_names(self, world: World) -> tuple[str, ...]:
        """Return the names of `columns`, which a channel that is off has too: nobody knows its figures then.

        Runs with and without a channel can so stand in one table.
        """
        return ()


def unlimited_depth(paths: int, tokens: int) -> Depth:
    """Return the depth of a market that loses nothing to any trade."""
    size = np.full((paths, tokens, 1), np.inf)
    return Depth(size, np.zeros((paths, tokens, 1)))


def own_prices(world: World) -> tuple[str, ...]:
    """Return the tokens whose price nothing else stands behind, in the order of the book."""
    return tuple(token.symbol for token in world.book.tokens if token.backing is None)


def market_prices(world: World, exogenous: Float64, displaced: Float64, peg: Float64) -> Float64:
    """Return market prices, shape (P, A).

    A token of its own costs ``exogenous * exp(displaced)``. A backed token costs what it redeems for at the
    market, times its rate, its peg and its own displacement: so a fall of the backing takes it along.
    """
    out = exogenous * np.exp(displaced) * peg
    index = world.book.token_index()
    done = {token.symbol for token in world.book.tokens if token.backing is None}
    waiting = [token for token in world.book.tokens if token.backing is not None]
    while waiting:
        ready = [
            t for t in waiting if t.backing and (t.backing.token in done or t.backing.token not in index)
        ]
        for token in ready:
            assert token.backing is not None
            a = index[token.symbol]
            behind = out[:, index[token.backing.token]] if token.backing.token in index else 1.0
            out[:, a] = token.backing.rate * behind * np.exp(displaced[:, a]) * peg[:, a]
            done.add(token.symbol)
        waiting = [token for token in waiting if token.symbol not in done]
        if not ready:
            raise AssertionError("backing goes round in a circle; the loader refuses that")
    return np.asarray(out)
