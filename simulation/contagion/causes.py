"""Which causes made a loss: the same paths again with a channel switched off, or with one venue shocked.

A variant is a few keys of the scenario with other values. Every variant shares all prices and draws with the
base (common random numbers), so differences are taken path by path, and their sampling error is that of the
difference, which is far smaller than that of either loss.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np

from contracts_abi.errors import InputError, UnknownNameError
from simulation.contagion.channels.impact import ImpactChannel
from simulation.contagion.engine import PathResults, Run, run_paths
from simulation.contagion.metrics import Figure, path_columns, plain_mean, sampling_of
from simulation.contagion.scenario import Scenario
from simulation.types import Float64

BATCH: Final = 64
"""Paths that go through the steps together."""

Columns = Mapping[str, Float64]
Over = dict[str, Any]
"""Dotted keys of a scenario and their values in a variant."""


def batches(run: Run, seed: int, paths: int, *, size: int = BATCH, first: int = 0) -> Iterator[PathResults]:
    """Run paths a batch at a time, so that memory does not grow with their number."""
    for start in range(first, first + paths, size):
        yield run_paths(run, seed, start, min(size, first + paths - start))


def columns(
    run: Run, seed: int, paths: int, *, size: int = BATCH, on_done: Callable[[int], None] | None = None
) -> dict[str, Float64]:
    """Return the columns of all paths, see `path_columns`; `on_done` hears how many more are done."""
    parts = []
    for results in batches(run, seed, paths, size=size):
        parts.append(path_columns(results, run.dt_s))
        if on_done is not None:
            on_done(len(results.totals))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def weighed(table: Columns, figure: str) -> Float64:
    """Return a column times the weights of its paths, whose plain mean is the estimate."""
    return sampling_of(table).weighed(table[figure])


def difference(a: Columns, b: Columns, figure: str, group: int = 1) -> Figure:
    """Return the mean of ``a - b`` over paths that share their draws, with its 95 % interval.

    Parameters
    ----------
    a, b
        Columns of two runs.
    figure
        Which column.
    group
        2 for antithetic pairs, else 1.
    """
    return plain_mean(weighed(a, figure) - weighed(b, figure), group)


@dataclass(frozen=True, slots=True)
class Effect:
    """What a channel does to a figure.

    Attributes
    ----------
    channel
        Switched off in one of the two runs, or the one part of a channel that can be: `FEEDBACK`.
    on, off
        Mean with everything on, and without the channel.
    effect
        Mean of the difference path by path: what the channel adds.
    """

    channel: str
    on: float
    off: float
    effect: Figure


FEEDBACK: Final = "impact.feedback"
"""Name of the variant in which trades lose to depth and move no price."""


def without_each(scenario: Scenario) -> dict[str, Over]:
    """Return the variants that switch one acting channel off, by the channel.

    Beside the whole of the impact channel there is its feedback on prices alone, `FEEDBACK`.
    """
    found: dict[str, Over] = {}
    for channel in scenario.run.on():
        found[channel.kind] = {f"channels.{channel.kind}.on": False}
        if isinstance(channel, ImpactChannel) and channel.feedback:
            found[FEEDBACK] = {f"channels.{FEEDBACK}": False}
    return found


def effects_of(
    base: Columns, without: Mapping[str, Columns], figure: str = "bad_debt_usd", *, group: int = 1
) -> tuple[Effect, ...]:
    """Return what each channel adds to a figure, from the columns with it and without it.

    Effects of channels that work through each other do not add up to the whole: each is what would be missing
    if that one alone were gone.

    Raises
    ------
    UnknownNameError
        For a figure that is no column.
    """
    _require(figure, base)
    return tuple(
        Effect(
            channel,
            float(weighed(base, figure).mean()),
            float(weighed(table, figure).mean()),
            difference(base, table, figure, group),
        )
        for channel, table in without.items()
    )


def _require(figure: str, table: Columns) -> None:
    if figure not in table:
        raise UnknownNameError("figure", figure, table)


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
        Its mean without a shock, by venue.
    matrix
        ``matrix[l][k]``: what venue k loses more when venue l is shocked.
    """

    venues: tuple[str, ...]
    figure: str
    base: tuple[float, ...]
    matrix: tuple[tuple[Figure, ...], ...]


def shock_of_each(
    scenario: Scenario, *, shock: ShockKind = "threshold", size: float = 0.05
) -> dict[str, Over]:
    """Return the variants that shock one venue each, by the venue.

    Parameters
    ----------
    scenario
        What is varied.
    shock
        ``threshold`` lowers all liquidation thresholds of the venue by `size`: its accounts are weaker, and
        nobody else's. ``oracle`` lets the venue alone believe prices of what US dollars do not back that are
        lower by the part `size`, for all of the run.
    size
        Part of one, in (0, 1).

    Raises
    ------
    InputError
        For a size outside (0, 1), or an oracle shock without the oracle channel.
    """
    if not 0.0 < size < 1.0:
        raise InputError(f"shock size is {size:g}", fix="a part of one, for example 0.05")
    run = scenario.run
    if shock == "oracle" and all(channel.kind != "oracle" for channel in run.on()):
        raise InputError("an oracle shock needs the oracle channel", fix="switch [channels.oracle] on")
    found: dict[str, Over] = {}
    for name in run.world.venues:
        if shock == "threshold":
            own = list(scenario.file.policies)
            weaker = {"kind": "threshold-shift", "venues": [name], "shift_bps": -1e4 * size}
            found[name] = {"policies": [*own, weaker]}
        else:
            told = list(scenario.file.channels.get("oracle", {}).get("faults", ()))
            lies = [_lie(token, name, 1.0 - size, run.steps) for token in _not_dollars(run)]
            found[name] = {"channels.oracle.faults": [*told, *lies]}
    return found


def _lie(token: str, venue: str, factor: float, steps: int) -> dict[str, Any]:
    return {
        "token": token,
        "venue": venue,
        "op": "scale",
        "value": factor,
        "from_step": 0,
        "until_step": steps,
    }


def _not_dollars(run: Run) -> list[str]:
    return [t.symbol for t in run.world.book.tokens if t.backing is None or t.backing.token != "USD"]


def matrix_of(
    base: Columns,
    shocked: Mapping[str, Columns],
    venues: tuple[str, ...],
    figure: str = "bad_debt_usd",
    *,
    group: int = 1,
) -> Contagion:
    """Return the contagion matrix from the columns of the base and of each venue's shock.

    Raises
    ------
    UnknownNameError
        For a figure that no venue has.
    """
    _require(f"{figure}.{venues[0]}", base)
    rows = tuple(
        tuple(difference(shocked[name], base, f"{figure}.{k}", group) for k in venues) for name in venues
    )
    means = tuple(float(weighed(base, f"{figure}.{k}").mean()) for k in venues)
    return Contagion(venues, figure, means, rows)
