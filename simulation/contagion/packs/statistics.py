"""What of a simulated path is held against a published figure: one number a path, chosen by name.

A name is a column of `path_columns`, or one of `STATISTICS`, with its argument behind the first dot:
``seized_usd.WETH``, ``liquidatable_usd.WETH@1950``. Columns of a venue or a token have a dot too; what
`STATISTICS` knows comes first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from contracts_abi.errors import InputError, UnknownNameError
from simulation.contagion.batch import Batch
from simulation.contagion.engine import PathResults, Run, run_paths
from simulation.contagion.metrics import VENUE_COLUMNS, backed_by, path_columns
from simulation.contagion.scan import health_factors
from simulation.contagion.state import Total
from simulation.types import Float64

BATCH: Final = 32
"""Paths that go through the steps together."""

PEAK_WINDOW_S: Final = 3_600.0
"""Around the highest base fee."""

PLAIN: Final = (
    *VENUE_COLUMNS,
    "shortfall_usd",
    "bad_debt_usd",
    "deficit_usd",
    "reserve_loss_usd",
    "frozen_steps",
    "time_to_clear_s",
)
"""Columns of `path_columns` that any run has."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a batch of paths left behind.

    Attributes
    ----------
    results
        With series and events.
    batch
        At the end of the last step.
    columns
        See `path_columns`.
    dt_s
        Seconds a step.
    """

    results: PathResults
    batch: Batch
    columns: Mapping[str, Float64]
    dt_s: float

    @property
    def paths(self) -> int:
        """Number of paths."""
        return len(self.results.totals)

    def events(self) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """Yield each step's liquidations with the step's number."""
        for entry in self.results.events:
            yield int(entry["step"]), entry


Statistic = Callable[[Seen, str], Float64]


def _highest(seen: Seen, token: str) -> Float64:
    """Return the highest market price of a token."""
    return np.asarray(seen.results.series["market"][:, :, seen.results.world.token(token)].max(axis=1))


def _lowest(seen: Seen, token: str) -> Float64:
    """Return the lowest market price of a token."""
    return np.asarray(seen.results.lowest[:, seen.results.world.token(token)])


def _seized_tokens(seen: Seen, token: str) -> Float64:
    """Return how much of a token was taken from accounts, whole tokens."""
    return _seized(seen, token, lambda step, path: np.ones(len(path)))


def _seized_usd(seen: Seen, token: str) -> Float64:
    """Return the same at the market's price at the step's end; of all tokens without an argument."""
    if not token:
        return seen.columns["seized_usd"]
    a = seen.results.world.token(token)
    market = seen.results.series["market"]
    return _seized(seen, token, lambda step, path: market[path, step - 1, a])


def _seized(seen: Seen, token: str, worth: Callable[[int, Any], Float64]) -> Float64:
    world = seen.results.world
    a, out = world.token(token), np.zeros(seen.paths)
    for step, entry in seen.events():
        mine = (entry["collateral_reserve"] >= 0) & (entry["collateral_reserve"] % len(world.tokens) == a)
        path = entry["path"][mine]
        np.add.at(out, path, entry["seized"][mine] * worth(step, path))
    return out


def _bad_debt_tokens(seen: Seen, token: str) -> Float64:
    """Return how much of a token is owed beyond all collateral of its accounts, whole tokens.

    At the market's prices at the end; of an account that owes several tokens in the proportion of its debts.
    What was written off on the way counts as it stands in the venue's deficit.
    """
    world, state = seen.results.world, seen.batch.state
    reserves = [v * len(world.tokens) + world.token(token) for v in range(len(world.venues))]
    mine = np.isin(world.debt_at, reserves)
    price = np.tile(state.market, (1, len(world.venues)))
    out = state.deficit[:, reserves].sum(axis=1)
    for p in range(seen.paths):
        have = (state.coll[p] * (price * state.supply_index)[p][world.coll_at]).sum(axis=1)
        owed = state.debt[p] * state.borrow_index[p][world.debt_at]
        owe = (owed * price[p][world.debt_at]).sum(axis=1)
        part = np.divide(np.maximum(owe - have, 0.0), owe, out=np.zeros_like(owe), where=owe > 0.0)
        out[p] += (np.where(mine, owed, 0.0).sum(axis=1) * part).sum()
    return np.asarray(out)


def _liquidators(seen: Seen, _: str) -> Float64:
    """Return how many keepers liquidated."""
    return _distinct(seen, "keeper")


def _accounts(seen: Seen, _: str) -> Float64:
    """Return how many accounts were liquidated."""
    return _distinct(seen, "row")


def _distinct(seen: Seen, column: str) -> Float64:
    found: list[set[int]] = [set() for _ in range(seen.paths)]
    for _, entry in seen.events():
        for path, value in zip(entry["path"], entry[column], strict=True):
            found[int(path)].add(int(value))
    return np.array([float(len(own)) for own in found])


def _liquidatable_usd(seen: Seen, argument: str) -> Float64:
    """Return debts of accounts below 1 at the end if a token cost so much and what it backs moved along."""
    token, _, price = argument.partition("@")
    world, state = seen.results.world, seen.batch.state
    a = world.token(token)
    follows = np.array([backed_by(world, b, a) for b in range(len(world.tokens))])
    out, health = np.zeros(seen.paths), np.zeros(world.rows)
    for p in range(seen.paths):
        factor = float(price) / state.market[p, a]
        prices = np.tile(state.market[p] * np.where(follows, factor, 1.0), len(world.venues))
        health_factors(
            0,
            world.rows,
            state.coll[p],
            state.debt[p],
            world.coll_at,
            world.debt_at,
            world.lt,
            prices * state.supply_index[p],
            prices * state.borrow_index[p],
            world.shocks,
            health,
        )
        owe = (state.debt[p] * (prices * state.borrow_index[p])[world.debt_at]).sum(axis=1)
        have = (state.coll[p] * prices[world.coll_at]).sum(axis=1)
        # What has nothing left to take is bad debt and can no longer be liquidated.
        out[p] = owe[(health < 1.0) & (have > 0.0)].sum()
    return out


def _peak_gwei(seen: Seen, _: str) -> Float64:
    """Return the highest base fee, gwei."""
    return np.asarray(seen.results.series["base_fee"].max(axis=1) / 1e9)


def _mean_gwei(seen: Seen, _: str) -> Float64:
    """Return the mean base fee of the hour around the highest, gwei."""
    fee = seen.results.series["base_fee"] / 1e9
    half = max(1, round(PEAK_WINDOW_S / 2 / seen.dt_s))
    at = fee.argmax(axis=1)
    return np.array([row[max(0, k - half) : k + half + 1].mean() for row, k in zip(fee, at, strict=True)])


def _liquidators_gain(seen: Seen, token: str) -> Float64:
    """Return what liquidators received less what they repaid, both at the market, in a token at the end.

    Before gas, what they lose to the market's depth, and what they pay for their place in the block.
    """
    totals = seen.results.totals.sum(axis=1)
    usd = totals[:, Total.SEIZED] - totals[:, Total.FEES] - totals[:, Total.REPAID]
    return np.asarray(usd / seen.results.price[:, seen.results.world.token(token)])


def _borrowers_loss(seen: Seen, token: str) -> Float64:
    """Return what borrowers lost in collateral less what was repaid for them, in a token at the end."""
    totals = seen.results.totals.sum(axis=1)
    usd = totals[:, Total.SEIZED] - totals[:, Total.REPAID]
    return np.asarray(usd / seen.results.price[:, seen.results.world.token(token)])


STATISTICS: Final[Mapping[str, Statistic]] = {
    "highest": _highest,
    "lowest": _lowest,
    "seized_tokens": _seized_tokens,
    "seized_usd": _seized_usd,
    "bad_debt_tokens": _bad_debt_tokens,
    "liquidators": _liquidators,
    "accounts": _accounts,
    "liquidatable_usd": _liquidatable_usd,
    "base_fee_peak_gwei": _peak_gwei,
    "base_fee_mean_gwei": _mean_gwei,
    "liquidators_gain": _liquidators_gain,
    "borrowers_loss": _borrowers_loss,
}
"""By name; each is told the argument, empty without."""

_WITH_TOKEN: Final = (
    "highest",
    "lowest",
    "seized_tokens",
    "bad_debt_tokens",
    "liquidators_gain",
    "borrowers_loss",
)


def require_statistic(name: str) -> None:
    """Refuse a statistic that is none.

    Raises
    ------
    UnknownNameError
        With the nearest name.
    """
    head, _, argument = name.partition(".")
    known = {*STATISTICS, *PLAIN}
    if head not in known:
        raise UnknownNameError("statistic", name, known)
    if head in _WITH_TOKEN and not argument:
        raise InputError(f"statistic {name} needs a token", fix=f"{head}.TOKEN")
    if head == "liquidatable_usd":
        token, _, price = argument.partition("@")
        if not token or not price.replace(".", "", 1).isdigit() or float(price) <= 0:
            raise InputError(f"statistic {name} needs a token and a price", fix=f"{head}.TOKEN@PRICE")


def measure(
    run: Run,
    seed: int,
    paths: int,
    names: Sequence[str],
    *,
    on_done: Callable[[int], None] | None = None,
) -> dict[str, Float64]:
    """Run paths and return the named statistics, arrays of shape (P,).

    Raises
    ------
    UnknownNameError
        For a statistic, or a token of one, that is not there.
    """
    for name in names:
        require_statistic(name)
    parts: dict[str, list[Float64]] = {name: [] for name in names}
    for first in range(0, paths, BATCH):
        last: list[Batch] = []

        def keep(batch: Batch, last: list[Batch] = last) -> None:
            last[:] = [batch]

        count = min(BATCH, paths - first)
        results = run_paths(run, seed, first, count, record=True, watch=keep)
        seen = Seen(results, last[0], path_columns(results, run.dt_s), run.dt_s)
        for name in names:
            parts[name].append(_one(seen, name))
        if on_done is not None:
            on_done(count)
    return {name: np.concatenate(own) for name, own in parts.items()}


def _one(seen: Seen, name: str) -> Float64:
    head, _, argument = name.partition(".")
    if head in STATISTICS:
        return STATISTICS[head](seen, argument)
    if name not in seen.columns:
        raise UnknownNameError("statistic", name, seen.columns)
    return seen.columns[name]
