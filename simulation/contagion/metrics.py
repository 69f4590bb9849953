"""What a run came to: one row a path, and figures over all paths with their sampling error."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from simulation.backtest.summary import BATCHES, batch_means, quantile
from simulation.contagion.engine import PathResults
from simulation.contagion.scan import health_factors
from simulation.contagion.state import Total
from simulation.contagion.world import World
from simulation.types import Float64, Int64

VENUE_COLUMNS: Final[Mapping[str, Total]] = {
    "liquidations": Total.LIQUIDATIONS,
    "liquidated_usd": Total.REPAID,
    "seized_usd": Total.SEIZED,
    "bonus_usd": Total.BONUS,
    "fees_usd": Total.FEES,
    "gas_usd": Total.GAS,
    "bids_usd": Total.BIDS,
    "keeper_profit_usd": Total.KEEPER_PROFIT,
    "toxic": Total.TOXIC,
    "written_off_usd": Total.WRITTEN_OFF,
    "unprofitable": Total.UNPROFITABLE,
    "stuck": Total.STUCK,
    "failed_txs": Total.FAILED_TXS,
    "halted": Total.HALTED,
    "from_reserves_usd": Total.FROM_RESERVES,
    "from_backstop_usd": Total.FROM_BACKSTOP,
    "from_suppliers_usd": Total.FROM_SUPPLIERS,
    "withdrawn_usd": Total.WITHDRAWN,
    "unfilled_usd": Total.UNFILLED,
    "deleveraged_usd": Total.DELEVERAGED,
}
"""Columns that are added up over a path, see `Total`."""


LEAST_BEYOND: Final = 30.0
"""Paths beyond a level, effective ones where they have weights, below which an expected shortfall has no
upper limit: resampling knows no larger loss than was drawn. With 300 samples of exponential, and of
lognormal, losses the true figure was above the limit in 63 and 63 of a hundred at 1.3 paths beyond, in 15 and
26 at 6, in 7 and 11 at 30, in 5 and 8 at 50, where 2.5 are meant."""

LOG_WEIGHT: Final = "log_weight"
"""Column of the logarithms of likelihood ratios; only where prices are drawn from a shifted distribution."""


def path_columns(results: PathResults, dt_s: float) -> dict[str, Float64]:
    """Return one array of shape (P,) for each column of a path's row.

    ``bad_debt_usd`` is what was written off plus what debts exceed collateral by at the end, of lending
    alone; what venues of perpetual futures lose beyond fund and winners is ``perps_deficit_usd``, where they
    act. Columns of a venue have its name behind a dot; those of a token likewise.
    """
    world = results.world
    out: dict[str, Float64] = {
        "path": results.first + np.arange(len(results.totals), dtype=np.float64),
    }
    by_venue = {name: results.totals[:, :, k] for name, k in VENUE_COLUMNS.items()}
    by_venue["shortfall_usd"] = results.shortfall
    by_venue["bad_debt_usd"] = results.totals[:, :, Total.WRITTEN_OFF] + results.shortfall
    by_venue["deficit_usd"] = results.deficit
    by_venue["reserve_loss_usd"] = results.reserve_loss
    by_venue["frozen_steps"] = results.frozen
    for name, values in by_venue.items():
        out[name] = values.sum(axis=1)
        for v, venue in enumerate(world.venues):
            out[f"{name}.{venue}"] = values[:, v]
    cleared = results.last_step - results.first_step
    out["time_to_clear_s"] = np.where(results.first_step > 0, cleared * dt_s, 0.0)
    for a, token in enumerate(world.tokens):
        out[f"price.{token}"] = results.price[:, a]
        out[f"lowest.{token}"] = results.lowest[:, a]
        if world.book.tokens[a].backing is not None:
            # Its price comes from what backs it: there is no move of its own from outside to compare with.
            continue
        out[f"outside.{token}"] = results.exogenous[:, a]
        fell = np.log(results.exogenous[:, a] / world.price[a])
        all_in = np.log(results.price[:, a] / world.price[a])
        # Where nothing moved from outside there is nothing to multiply.
        out[f"price_multiplier.{token}"] = np.divide(
            all_in, fell, out=np.ones_like(fell), where=np.abs(fell) > 1e-12
        )
    out.update(results.extra)
    if results.log_weight is not None:
        out[LOG_WEIGHT] = results.log_weight
    return out


@dataclass(frozen=True, slots=True)
class Sampling:
    """How paths were drawn, as far as estimates depend on it.

    Attributes
    ----------
    weights
        Likelihood ratio of each path, shape (P,); None where paths count alike.
    group
        How many neighbours belong together: 2 for antithetic pairs, else 1.
    """

    weights: Float64 | None = None
    group: int = 1

    @property
    def effective(self) -> float:
        """Paths of equal weight that say as much: ``(sum w)**2 / sum w**2`` (Kong 1992); NaN without."""
        if self.weights is None:
            return float("nan")
        return float(self.weights.sum() ** 2 / (self.weights**2).sum())

    def weighed(self, values: Float64) -> Float64:
        """Return values times their paths' weights: their plain mean estimates the expectation.

        These are plain importance weights, whose own mean is 1 only in expectation. They are not divided by
        their sum, so that means have no bias and sums of columns stay sums.
        """
        return values if self.weights is None else values * self.weights

    def mean(self, values: Float64) -> Figure:
        """Return the mean of a column with its 95 % interval by batch means; no pair is torn apart."""
        return plain_mean(self.weighed(values), self.group)


PLAIN: Final = Sampling()
"""Independent paths that count alike."""


def sampling_of(columns: Mapping[str, Float64], *, antithetic: bool = False) -> Sampling:
    """Return how the paths of some columns were drawn."""
    log_weight = columns.get(LOG_WEIGHT)
    return Sampling(None if log_weight is None else np.exp(log_weight), 2 if antithetic else 1)


def plain_mean(values: Float64, group: int = 1) -> Figure:
    """Return the mean of values with its 95 % interval by batch means.

    Parameters
    ----------
    values
        Shape (P,).
    group
        How many neighbours fall into one batch together.
    """
    n = len(values)
    mean, _, low, high = batch_means(values, np.arange(n) // group * group * BATCHES // n, BATCHES)
    return Figure(mean, low, high)


def ratio(above: Float64, below: Float64, group: int = 1) -> Figure | None:
    """Return the ratio of two means over the same paths with its 95 % interval; None where below is 0.

    By the delta method: the error of ``A / B`` is that of the mean of ``(a - A / B * b) / B`` (Cochran 1977,
    section 2.11; recalled, not checked), so what both have in common falls out.
    """
    under = float(below.mean())
    if under == 0.0:
        return None
    value = float(above.mean()) / under
    error = plain_mean((above - value * below) / under, group)
    return Figure(value, value + error.low, value + error.high)


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure with its sampling error.

    Attributes
    ----------
    value
        The estimate.
    low, high
        Interval at 95 %; NaN or infinite where there are too few paths for one.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Tail:
    """A loss column's distribution.

    Attributes
    ----------
    mean
        Expected loss.
    level
        Of the two below, for example 0.99.
    var, es
        Quantile, and the mean of the worst part ``1 - level`` of the probability.
    largest
        On any path.
    """

    mean: Figure
    level: float
    var: Figure
    es: Figure
    largest: float


def tail_of(
    losses: Float64, level: float, *, sampling: Sampling = PLAIN, resamples: int = 400, seed: int = 0
) -> Tail:
    """Return mean, value at risk and expected shortfall of losses with 95 % intervals.

    The mean's interval is by batch means, the quantile's by order statistics, and that of the expected
    shortfall by resampling paths with replacement (Efron 1979). Where less than `LEAST_BEYOND` paths are
    beyond the level its upper limit is infinite, as the largest loss that was drawn is the largest there is
    for resampling.

    Where paths have weights or belong together, the quantile's interval is resampled as well, in whole pairs.
    A weighted quantile is the largest loss that at least the part ``1 - level`` of the probability is at or
    beyond, counted from the top: the tail is where shifted paths are (Glynn 1996). It is NaN where the drawn
    paths do not reach it. The expected shortfall is that of Acerbi and Tasche (2002, recalled), see
    `upper_tail`.

    Parameters
    ----------
    losses
        One loss a path, positive is bad, shape (P,).
    level
        In (0, 1).
    sampling
        How the paths were drawn.
    resamples, seed
        Of the bootstrap.
    """
    weights = np.ones(len(losses)) if sampling.weights is None else sampling.weights
    order = np.argsort(losses, kind="stable")
    ordered = losses[order]
    var, es = upper_tail(ordered, weights[order], level, len(losses))
    rng = np.random.Generator(np.random.PCG64(seed))
    again = np.empty((resamples, 2))
    for k in range(resamples):
        times = _times_drawn(rng, len(losses), sampling.group)
        again[k] = upper_tail(ordered, (weights * times)[order], level, int(times.sum()))
    low, high = np.percentile(again, [2.5, 97.5], axis=0)
    if _beyond(weights[order], level) < LEAST_BEYOND:
        high[1] = np.inf
    if sampling.weights is None and sampling.group == 1:
        ranked = quantile(ordered, level)
        low[0], high[0] = ranked.low, ranked.high
    return Tail(
        mean=sampling.mean(losses),
        level=level,
        var=Figure(var, float(low[0]), float(high[0])),
        es=Figure(es, float(low[1]), float(high[1])),
        largest=float(ordered[-1]),
    )


def _beyond(weights: Float64, level: float) -> float:
    """Return how many paths of equal weight the part ``1 - level`` of the probability is made of.

    `weights` are in the order of the losses, the smallest first. All 1, it is ``(1 - level) * P``.
    """
    mass = (1.0 - level) * len(weights)
    above = np.cumsum(weights[::-1])[::-1]
    inside = np.clip(mass - (above - weights), 0.0, weights)
    return float(mass**2 / max((inside * weights).sum(), 1e-300))


def _times_drawn(rng: np.random.Generator, n: int, group: int) -> Int64:
    """Return how often each path comes when whole groups are drawn with replacement, shape (n,)."""
    groups = -(-n // group)
    times = np.bincount(rng.integers(0, groups, groups), minlength=groups)
    return np.repeat(times, group)[:n]


def upper_tail(ordered: Float64, weights: Float64, level: float, paths: int) -> tuple[float, float]:
    """Return the quantile of weighted losses, and the mean of their worst part ``1 - level``.

    The latter is ``VaR + E[max(L - VaR, 0)] / (1 - level)``: where one path stands for probability on both
    sides of the level, it counts only as far as it is beyond. The mean of whole paths at or beyond the
    quantile would be less, in small samples much less.

    Parameters
    ----------
    ordered, weights
        Losses, the smallest first, and the weights of their paths, shape (P,).
    level
        In (0, 1).
    paths
        How many the weights are of.

    Returns
    -------
    tuple of float
        Both NaN where the weights of all paths together do not come to the part ``1 - level``.
    """
    beyond = np.cumsum(weights[::-1])[::-1]
    # Weights of 1 give the first rank whose share is at least the level; the slack is for 0.95 * 20 and such.
    rank = int(np.searchsorted(-beyond, -(1.0 - level) * paths - 1e-9, side="left")) - 1
    if rank < 0:
        return float("nan"), float("nan")
    var = float(ordered[rank])
    over = float((weights[rank:] * (ordered[rank:] - var)).sum())
    return var, var + over / ((1.0 - level) * paths)


def static_sensitivity(world: World, token: str, moves: Float64) -> dict[str, Float64]:
    """Return what could be liquidated if a token's price moved at once and nothing else did.

    The grid of Perez et al. (2021) and Qin et al. (2021): no keeper, no impact, no oracle.

    Parameters
    ----------
    world
        The book.
    token
        Whose price moves; tokens that it backs move along.
    moves
        Parts of the price, for example -0.2; shape (M,).

    Returns
    -------
    dict
        ``debt_usd``: debts of the accounts below 1; ``collateral_usd``: their collateral after the move;
        ``accounts``: how many; ``bad_debt_usd``: debts beyond collateral. Arrays of shape (M,).
    """
    a, count = world.token(token), len(world.tokens)
    follows = np.array([backed_by(world, b, a) for b in range(count)])
    out = {name: np.zeros(len(moves)) for name in ("debt_usd", "collateral_usd", "accounts", "bad_debt_usd")}
    health = np.zeros(world.rows)
    for k, move in enumerate(moves):
        price = np.tile(world.price * np.where(follows, 1.0 + move, 1.0), len(world.venues))
        health_factors(
            0,
            world.rows,
            world.coll,
            world.debt,
            world.coll_at,
            world.debt_at,
            world.lt,
            price,
            price,
            world.shocks,
            health,
        )
        owe = (world.debt * price[world.debt_at]).sum(axis=1)
        have = (world.coll * price[world.coll_at]).sum(axis=1)
        below = health < 1.0
        out["debt_usd"][k] = owe[below].sum()
        out["collateral_usd"][k] = have[below].sum()
        out["accounts"][k] = below.sum()
        out["bad_debt_usd"][k] = np.maximum(owe - have, 0.0).sum()
    return out


def backed_by(world: World, b: int, a: int) -> bool:
    """Return whether token `b` is token `a` or is backed by it."""
    index = world.book.token_index()
    seen = b
    while seen != a:
        backing = world.book.tokens[seen].backing
        if backing is None or backing.token not in index:
            return False
        seen = index[backing.token]
    return True


def solvency(world: World) -> dict[str, dict[str, float]]:
    """Return what stands behind each venue's debts at the book's prices.

    By venue: ``collateral_usd``, ``debt_usd``, ``overcollateralisation`` (the ratio of both), ``accounts``,
    ``near`` (accounts with a health factor below 1.05), ``utilisation`` (of the most used reserve),
    ``liquidatable_at_minus_20`` (debt below 1 if all prices but those backed by US dollars fell by a fifth).
    """
    price = np.tile(world.price, len(world.venues))
    have = (world.coll * price[world.coll_at]).sum(axis=1)
    owe = (world.debt * price[world.debt_at]).sum(axis=1)
    health = np.zeros(world.rows)
    health_factors(
        0,
        world.rows,
        world.coll,
        world.debt,
        world.coll_at,
        world.debt_at,
        world.lt,
        price,
        price,
        world.shocks,
        health,
    )
    stable = np.array([is_dollar(world, a) for a in range(len(world.tokens))])
    fallen = np.tile(np.where(stable, world.price, world.price * 0.8), len(world.venues))
    after = np.zeros(world.rows)
    health_factors(
        0,
        world.rows,
        world.coll,
        world.debt,
        world.coll_at,
        world.debt_at,
        world.lt,
        fallen,
        fallen,
        world.shocks,
        after,
    )
    lent = world.reserves.outside_debt.copy()
    np.add.at(lent, world.debt_at.ravel(), world.debt.ravel())
    used = np.divide(lent, lent + world.cash, out=np.zeros_like(lent), where=lent + world.cash > 0.0)
    out = {}
    for v, name in enumerate(world.venues):
        rows = slice(world.venue_ptr[v], world.venue_ptr[v + 1])
        debt = float(owe[rows].sum())
        out[name] = {
            "collateral_usd": float(have[rows].sum()),
            "debt_usd": debt,
            "overcollateralisation": float(have[rows].sum()) / debt if debt > 0.0 else np.inf,
            "accounts": float(len(health[rows])),
            "near": float((health[rows] < 1.05).sum()),
            "utilisation": float(used[v * len(world.tokens) : (v + 1) * len(world.tokens)].max()),
            "liquidatable_at_minus_20": float(owe[rows][after[rows] < 1.0].sum()),
        }
    return out


def is_dollar(world: World, a: int) -> bool:
    """Return whether a token redeems for US dollars in the end."""
    index = world.book.token_index()
    backing = world.book.tokens[a].backing
    while backing is not None:
        if backing.token not in index:
            return True
        backing = world.book.tokens[index[backing.token]].backing
    return False
