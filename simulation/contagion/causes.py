"""Which causes made a loss: the same paths again with a channel switched off, or with one venue shocked.

Every run shares all prices and draws with the base run (common random numbers), so differences are taken path
by path, and their sampling error is that of the difference, which is far smaller than that of either loss.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np

from contracts_abi.errors import InputError
from simulation.backtest.summary import BATCHES, batch_means
from simulation.contagion.engine import PathResults, Run, run_paths
from simulation.contagion.metrics import Figure, path_columns
from simulation.contagion.scenario import switched
from simulation.types import Float64

BATCH: Final = 64
"""Paths that go through the steps together."""

Progress = Callable[[str, int, int], None]


def batches(run: Run, seed: int, paths: int, *, size: int = BATCH, first: int = 0) -> Iterator[PathResults]:
    """Run paths a batch at a time, so that memory does not grow with their number."""
    for start in range(first, first + paths, size):
        yield run_paths(run, seed, start, min(size, first + paths - start))


def columns(
    run: Run, seed: int, paths: int, *, size: int = BATCH, on_done: Callable[[int], None] | None = None
) -> dict[str, Float64]:
    """Return the columns of all paths, see `path_columns`; `on_done` hears how many are done."""
    parts = []
    for results in batches(run, seed, paths, size=size):
        parts.append(path_columns(results, run.dt_s))
        if on_done is not None:
            on_done(len(results.totals))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


@dataclass(frozen=True, slots=True)
class Effect:
    """What a channel does to a figure.

    Attributes
    ----------
    channel
        Switched off in one of the two runs.
    on, off
        Mean with everything on, and without the channel.
    effect
        Mean of the difference path by path: what the channel adds.
    """

    channel: str
    on: float
    off: float
    effect: Figure


def difference(a: Float64, b: Float64) -> Figure:
    """Return the mean of ``a - b`` over paths that share their draws, with its 95 % interval."""
    gap = a - b
    mean, _, low, high = batch_means(gap, np.arange(len(gap)) * BATCHES // len(gap), BATCHES)
    return Figure(mean, low, high)


def switch_off_effects(
    run: Run,
    seed: int,
    paths: int,
    figure: str = "bad_debt_usd",
    *,
    which: Sequence[str] = (),
    on_done: Callable[[int], None] | None = None,
) -> tuple[Effect, ...]:
    """Return what each channel adds to a figure, by running the same paths without it.

    Effects of channels that work through each other do not add up to the whole: each is what would be missing
    if that one alone were gone.

    Parameters
    ----------
    run, seed, paths
        What is run.
    figure
        Column of `path_columns`.
    which
        Channels; all that act when empty.
    on_done
        Hears how many paths are done, over all runs.
    """
    base = columns(run, seed, paths, on_done=on_done)
    _require(figure, base)
    found = []
    for channel in run.on():
        if which and channel.kind not in which:
            continue
        without = columns(switched(run, (channel.kind,)), seed, paths, on_done=on_done)[figure]
        found.append(
            Effect(
                channel.kind,
                float(base[figure].mean()),
                float(without.mean()),
                difference(base[figure], without),
            )
        )
    return tuple(found)


def _require(figure: str, table: dict[str, Float64]) -> None:
    if figure not in table:
        raise InputError(f"no figure {figure!r}", fix=f"one of: {', '.join(sorted(table))}")


ShockKind = Literal["threshold", "oracle"]


@dataclass(frozen=True, slots=True)
class Contagion:
    """The contagion matrix: what a shock of one venue costs each.

    Attributes
    ----------
    venues
        Names.
    figure
        What is counted.
    base
        Its mean without a shock, shape (V,).
    matrix
        ``matrix[l][k]``: what venue k loses more when venue l is shocked.
    """

    venues: tuple[str, ...]
    figure: str
    base: tuple[float, ...]
    matrix: tuple[tuple[Figure, ...], ...]


def contagion_matrix(
    run: Run,
    seed: int,
    paths: int,
    *,
    shock: ShockKind = "threshold",
    size: float = 0.05,
    figure: str = "bad_debt_usd",
    on_done: Callable[[int], None] | None = None,
) -> Contagion:
    """Shock one venue at a time and count what each venue loses more.

    Parameters
    ----------
    run, seed, paths
        What is run.
    shock
        ``threshold`` lowers all liquidation thresholds of the venue by `size`: its accounts are weaker, and
        nobody else's. ``oracle`` lets the venue alone believe prices of what US dollars do not back that are
        lower by `size`, for all of the run.
    size
        Part of one, in (0, 1).
    figure
        Column that exists for each venue.

    Raises
    ------
    InputError
        For a size outside (0, 1), or an oracle shock without the oracle channel.
    """
    if not 0.0 < size < 1.0:
        raise InputError(f"shock size is {size:g}", fix="a part of one, for example 0.05")
    venues = run.world.venues
    base = columns(run, seed, paths, on_done=on_done)
    _require(f"{figure}.{venues[0]}", base)
    rows = []
    for name in venues:
        table = columns(shocked(run, name, shock, size), seed, paths, on_done=on_done)
        rows.append(tuple(difference(table[f"{figure}.{k}"], base[f"{figure}.{k}"]) for k in venues))
    means = tuple(float(base[f"{figure}.{k}"].mean()) for k in venues)
    return Contagion(venues, figure, means, tuple(rows))


def shocked(run: Run, venue: str, shock: ShockKind, size: float) -> Run:
    """Return a run in which one venue is shocked; see `contagion_matrix`."""
    world = run.world
    v = world.venue(venue)
    if shock == "threshold":
        weaker = np.where((world.row_venue == v)[:, None], world.lt * (1.0 - size), world.lt)
        return replace(run, world=replace(world, lt=weaker))
    oracle = [channel for channel in run.channels if channel.kind == "oracle" and channel.on]
    if not oracle:
        raise InputError("an oracle shock needs the oracle channel", fix="add [channels.oracle]")
    tokens = [t for t in world.tokens if not _is_dollar(run, t)]
    lies = tuple(
        {
            "token": token,
            "venue": venue,
            "op": "scale",
            "value": 1.0 - size,
            "from_step": 0,
            "until_step": run.steps,
        }
        for token in tokens
    )
    own = oracle[0].model_dump()
    told = type(oracle[0])(**{**own, "faults": (*own["faults"], *lies)})
    return replace(run, channels=tuple(told if c is oracle[0] else c for c in run.channels))


def _is_dollar(run: Run, symbol: str) -> bool:
    token = run.world.book.tokens[run.world.token(symbol)]
    return token.backing is not None and token.backing.token == "USD"
