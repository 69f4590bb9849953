"""Runs a scenario's paths step by step through its channels, and says what became of each.

The order of a step is fixed: prices from outside, staked tokens and stables, oracles, interest, borrowers,
gas, keepers, losses, perpetuals, options, suppliers, and at last the impact of all that was traded on the
price that the next step begins with. A channel names its place by `order`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from contracts_abi.errors import InputError
from simulation.contagion.batch import Batch, Channel, market_prices, own_prices, unlimited_depth
from simulation.contagion.channels import channels
from simulation.contagion.channels.gas import without_gas
from simulation.contagion.prices import PriceProcess, WeightedProcess
from simulation.contagion.prices.streams import path_seeds
from simulation.contagion.state import State, Total, fresh_state, imbalance
from simulation.contagion.world import World
from simulation.types import Float64, Int64

BALANCED = 1e-9
"""Largest part of a pool, or of a token, that may be missing from the books."""

Record = Callable[[Batch], None]


@dataclass(frozen=True, slots=True)
class Run:
    """What is run: everything but the seed and the number of paths.

    Attributes
    ----------
    world
        Book and rules.
    prices
        Process of the tokens that nothing backs.
    channels
        Switched on, in any order.
    steps, dt_s
        How many steps, and seconds a step.
    shocks
        Moves of the logarithm of a price at a step: token, step, move; they stay.
    antithetic
        Whether the prices of path ``2 k + 1`` mirror those of path ``2 k``.
    """

    world: World
    prices: PriceProcess
    channels: tuple[Channel, ...]
    steps: int
    dt_s: float
    shocks: tuple[tuple[str, int, float], ...] = ()
    antithetic: bool = False

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise InputError(f"steps is {self.steps}, must be at least 1")
        if not self.dt_s > 0.0:
            raise InputError(f"step_s is {self.dt_s:g}, must be positive")
        missing = set(own_prices(self.world)) - set(self.prices.assets)
        if missing:
            raise InputError(
                f"prices: no process for {min(missing)}", fix="add it, or say what backs the token"
            )
        for token, step, _ in self.shocks:
            self.world.token(token)
            if not 1 <= step <= self.steps:
                raise InputError(f"shock of {token} at step {step}", fix=f"a step in [1, {self.steps}]")
        for channel in self.channels:
            channel.check(self.world)
        if self.antithetic:
            # A process that cannot mirror its draws says so here and not in the middle of a run.
            self.prices.paths(path_seeds(0, 1, 1, antithetic=True), 1, self.dt_s)

    @property
    def weighted(self) -> bool:
        """Whether prices are drawn from another distribution than the one that they stand for."""
        return path_log_weights(self, path_seeds(0, 0, 1)) is not None

    def on(self) -> tuple[Channel, ...]:
        """Return the channels that act, in the order of a step."""
        return tuple(sorted((c for c in self.channels if c.on), key=lambda c: c.order))


@dataclass(frozen=True, slots=True)
class PathResults:
    """What became of a batch of paths; the first axis of every array is the path.

    Attributes
    ----------
    world
        Names of venues and tokens.
    first
        Number of the first path.
    totals
        See `Total`, shape (P, V, TOTALS).
    shortfall
        Debts at the end beyond all collateral of their accounts, at the market's prices, shape (P, V).
    deficit
        What was written off and nobody has covered, US dollars, shape (P, V).
    reserve_loss
        What a venue's reserves are below zero, US dollars, shape (P, V).
    price, exogenous
        At the end, shape (P, A).
    lowest
        Lowest market price of each token over the path, shape (P, A).
    frozen
        Steps in which a pool had nothing left to pay out, shape (P, V).
    first_step, last_step
        Steps of the first and the last liquidation, 0 without, shape (P,).
    imbalance
        Largest fault of any pool's books and of any token's count over all steps, shape (P,).
    log_weight
        Logarithm of each path's likelihood ratio where its prices were drawn from another distribution than
        the one they stand for, shape (P,); None where they were not.
    extra
        Further columns of channels, arrays of shape (P,); NaN of those that are off.
    series, events
        See `Batch`; empty unless the run records.
    """

    world: World
    first: int
    totals: Float64
    shortfall: Float64
    deficit: Float64
    reserve_loss: Float64
    price: Float64
    exogenous: Float64
    lowest: Float64
    frozen: Float64
    first_step: Int64
    last_step: Int64
    imbalance: Float64
    log_weight: Float64 | None = None
    extra: dict[str, Float64] = field(default_factory=dict)
    series: dict[str, Float64] = field(default_factory=dict)
    events: tuple[dict[str, Any], ...] = ()


def exogenous_prices(run: Run, seeds: Sequence[np.random.SeedSequence]) -> Float64:
    """Return prices from outside at every step, shape (P, steps + 1, A); 1 for backed tokens."""
    world = run.world
    out = np.ones((len(seeds), run.steps + 1, len(world.tokens)))
    own = run.prices.paths(seeds, run.steps, run.dt_s)
    for k, symbol in enumerate(run.prices.assets):
        out[:, :, world.token(symbol)] = own[:, :, k]
    for token, step, move in run.shocks:
        out[:, step:, world.token(token)] *= np.exp(move)
    return out


def path_log_weights(run: Run, seeds: Sequence[np.random.SeedSequence]) -> Float64 | None:
    """Return the logarithms of the paths' likelihood ratios, shape (P,); None where all are 1."""
    if not isinstance(run.prices, WeightedProcess):
        return None
    log_weight = run.prices.log_weights(seeds, run.steps, run.dt_s)
    return log_weight if log_weight.any() else None


def run_paths(
    run: Run, seed: int, first: int, count: int, *, record: bool = False, watch: Record | None = None
) -> PathResults:
    """Run the paths ``first`` to ``first + count - 1`` of a seed.

    Parameters
    ----------
    run
        What is run.
    seed, first, count
        Which paths. A path depends on the seed and its own number only.
    record
        Whether series and events are kept: memory grows with steps and paths.
    watch
        Called after each step.

    Raises
    ------
    AssertionError
        If a pool's books or a token's count are off by more than `BALANCED`: a fault of ours.
    """
    world = run.world
    seeds = path_seeds(seed, first, count, run.antithetic)
    exogenous = exogenous_prices(run, seeds)
    acting = run.on()
    state = fresh_state(world, seeds, base_fee_wei=0.0, inventory_usd=np.zeros(_keepers(acting)))
    batch = Batch(
        world=world,
        state=state,
        dt_s=run.dt_s,
        steps=run.steps,
        exogenous=exogenous,
        step=0,
        gas_usd=np.zeros(count),
        room=np.zeros(count, dtype=np.int64),
        ask_depth=lambda: unlimited_depth(count, len(world.tokens)),
        recording=record,
    )
    state.exogenous[:] = exogenous[:, 0]
    state.market[:] = market_prices(world, exogenous[:, 0], state.displaced, state.peg)
    without_gas(batch)
    for channel in acting:
        batch.memos[channel.kind] = channel.prepare(batch)
    before, after = _around_oracles(acting)
    believes_feeds = any(channel.kind == "oracle" for channel in acting)
    counted = _count(batch)
    pools = ((state.supplied + state.idle) * state.supply_index + state.reserves)[0].copy()
    lowest, off = state.market.copy(), np.zeros(count)
    frozen = np.zeros((count, len(world.venues)))
    first_step, last_step = np.zeros(count, dtype=np.int64), np.zeros(count, dtype=np.int64)
    done = np.zeros(count)
    for step in range(1, run.steps + 1):
        batch.step = step
        state.order_flow[:] = 0.0
        state.exogenous[:] = exogenous[:, step]
        state.market[:] = market_prices(world, state.exogenous, state.displaced, state.peg)
        for channel in before:
            channel.act(batch, batch.memos[channel.kind])
        if not believes_feeds:
            state.oracle[:] = _market(world, state)
        for channel in after:
            channel.act(batch, batch.memos[channel.kind])
        np.minimum(lowest, state.market, out=lowest)
        frozen += _by_venue(world, (state.cash <= 0.0) & (state.borrowed + state.outside_debt > 0.0)) > 0.0
        now = state.totals[:, :, Total.LIQUIDATIONS].sum(axis=1)
        first_step[(now > done) & (first_step == 0)] = step
        last_step[now > done] = step
        done = now
        np.maximum(off, imbalance(state, pools).max(axis=1, initial=0.0), out=off)
        if record:
            _note(batch)
        if watch is not None:
            watch(batch)
    np.maximum(off, _lost(batch, counted), out=off)
    assert (off <= BALANCED).all(), f"books are off by {off.max():.2e}: a fault of the simulator"
    extra: dict[str, Float64] = {}
    for channel in sorted(run.channels, key=lambda c: c.order):
        if channel.on:
            extra.update(channel.columns(batch, batch.memos[channel.kind]))
        else:
            extra.update({name: np.full(count, np.nan) for name in channel.column_names(world)})
    return PathResults(
        world=world,
        first=first,
        totals=state.totals,
        shortfall=shortfall_usd(world, state),
        deficit=_by_venue(world, state.deficit * _market(world, state)),
        reserve_loss=_by_venue(world, np.maximum(-state.reserves, 0.0) * _market(world, state)),
        price=state.market,
        exogenous=state.exogenous,
        lowest=lowest,
        frozen=frozen,
        first_step=first_step,
        last_step=last_step,
        imbalance=off,
        log_weight=path_log_weights(run, seeds),
        extra=extra,
        series={name: np.stack(values, axis=1) for name, values in batch.series.items()},
        events=tuple(batch.events),
    )


def _around_oracles(acting: Sequence[Channel]) -> tuple[list[Channel], list[Channel]]:
    """Return the channels that set a step's market prices, and those that come with oracles or later."""
    place = channels.get("oracle").order
    return [c for c in acting if c.order < place], [c for c in acting if c.order >= place]


def _keepers(acting: Sequence[Channel]) -> int:
    for channel in acting:
        if channel.kind == "keepers":
            return len(channel.keepers)  # type: ignore[attr-defined]
    return 1


def _market(world: World, state: State) -> Float64:
    tiled: Float64 = np.tile(state.market, (1, len(world.venues)))
    return tiled


def _by_venue(world: World, x: Any) -> Float64:
    by_venue = np.asarray(x, dtype=np.float64).reshape(len(x), len(world.venues), len(world.tokens))
    return np.asarray(by_venue.sum(axis=2))


def shortfall_usd(world: World, state: State) -> Float64:
    """Return what debts exceed the collateral of their accounts by, at the market's prices, shape (P, V)."""
    market = _market(world, state)
    out = np.zeros((state.paths, len(world.venues)))
    for p in range(state.paths):
        have = _slot_sums(state.coll[p] * (market * state.supply_index)[p][world.coll_at])
        owe = _slot_sums(state.debt[p] * (market * state.borrow_index)[p][world.debt_at])
        np.add.at(out[p], world.row_venue, np.maximum(owe - have, 0.0))
    return out


def _slot_sums(values: Float64) -> Float64:
    """Return the sums of rows of a few slots; a column at a time is several times as fast as along a row."""
    out = values[:, 0].copy()
    for k in range(1, values.shape[1]):
        out += values[:, k]
    return out


def _count(batch: Batch) -> Float64:
    """Return all tokens there are: in pools, with keepers, and sold less bought, shape (P, A)."""
    state, world = batch.state, batch.world
    pools = state.cash.reshape(state.paths, len(world.venues), len(world.tokens)).sum(axis=1)
    return np.asarray(pools + state.unsold.sum(axis=1) + state.sold - state.bought)


def _lost(batch: Batch, before: Float64) -> Float64:
    now, state = _count(batch), batch.state
    moved = np.maximum(np.maximum(before, state.sold + state.bought), 1.0)
    return np.asarray(np.max(np.abs(now - before) / moved, axis=1), dtype=np.float64)


def _note(batch: Batch) -> None:
    state = batch.state
    kept = {
        "market": state.market,
        "oracle": state.oracle,
        "totals": state.totals,
        "base_fee": state.base_fee,
        "order_flow": state.order_flow,
        "deficit": state.deficit,
    }
    for name, values in kept.items():
        batch.series.setdefault(name, []).append(values.copy())
