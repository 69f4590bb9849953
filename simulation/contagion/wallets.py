"""Which wallets are the riskiest of those with positions in several places.

A wallet whose legs stand in several venues may be hedged as a whole and still lose one leg: the venue that
holds it knows nothing of the others. What is left is a position that nobody chose (a broken hedge). How often
that happens is counted over paths; everything else is read off the book.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from simulation.book.health import lending_accounts, perp_accounts, token_prices, wallet_leverage
from simulation.book.types import SharedBook, Side
from simulation.contagion.batch import Batch
from simulation.contagion.engine import Run, run_paths
from simulation.contagion.state import Total
from simulation.types import Bool, Float64

BATCH: Final = 16
"""Paths that go through the steps together: fewer than elsewhere, as every liquidation is noted."""
MOST_PATHS: Final = 256
"""Paths that are looked at: a share of a tenth then has a standard error of 2 %."""
TOP: Final = 20
"""Wallets that reports show."""
FAR: Final = 0.5
"""Distance to liquidation from which on it adds nothing to the score: a fall of prices by half."""
WEIGHTS: Final = {"broken": 0.4, "near": 0.3, "debt": 0.2, "concentration": 0.1}
"""What each part of the score counts. They are set and not estimated: a convention to rank wallets by."""


@dataclass(frozen=True, slots=True)
class Broken:
    """How often wallets lost a leg, arrays of shape (wallets,).

    Attributes
    ----------
    paths
        How many were run.
    liquidated
        Share of paths on which at least one leg was liquidated.
    broken
        Share of paths on which one was and another one was not, and is still open at the end.
    error
        Standard error of `broken`, from the paths' weights; 0 where it never happened.
    weighted
        Whether paths had weights.
    missed
        Liquidations that could not be noted for lack of room: with any, shares are lower bounds.
    """

    paths: int
    liquidated: Float64
    broken: Float64
    error: Float64
    weighted: bool
    missed: int


def legs_of(book: SharedBook) -> Float64:
    """Return in how many places each wallet has a position, shape (wallets,).

    Lending venues and perpetual venues count one each, and all options together one.
    """
    n = len(book.wallets)
    legs = np.bincount(lending_accounts(book).wallet, minlength=n).astype(np.float64)
    legs += np.bincount(_perp_wallets(book), minlength=n)
    legs[np.unique(book.options.wallet)] += 1.0
    return legs


def _perp_wallets(book: SharedBook) -> Any:
    """Return the wallet of each perpetuals account that has a position."""
    p = book.perp_positions
    own = np.unique(np.stack([p.wallet, p.venue], axis=1), axis=0) if len(p) else np.zeros((0, 2), dtype=int)
    return own[:, 0]


def count_broken(run: Run, seed: int, paths: int) -> Broken:
    """Run paths and count on how many each wallet lost a leg and kept another.

    Parameters
    ----------
    run
        What is run.
    seed, paths
        The first paths of a seed.
    """
    world, wallets = run.world, len(run.world.book.wallets)
    hits, broken, squares = np.zeros(wallets), np.zeros(wallets), np.zeros(wallets)
    weighted, missed = False, 0
    for first in range(0, paths, BATCH):
        count = min(BATCH, paths - first)
        legs = _Legs(np.zeros((count, world.rows), dtype=np.bool_))
        results = run_paths(run, seed, first, count, record=True, watch=legs.watch)
        missed += int(results.totals[:, :, Total.LIQUIDATIONS].sum()) - legs.noted
        lost, left = legs.end
        weight = np.ones(count) if results.log_weight is None else np.exp(results.log_weight)
        weighted |= results.log_weight is not None
        hits += weight @ lost
        broken += weight @ (lost & left)
        squares += weight**2 @ (lost & left)
    share = broken / paths
    error = np.sqrt(np.maximum(squares / paths - share**2, 0.0) / paths)
    return Broken(paths, hits / paths, share, error, weighted, max(missed, 0))


@dataclass(slots=True)
class _Legs:
    """Accounts that were liquidated on each path so far, shape (P, N), and how many times that was noted.

    At the end of the paths `end` says who lost a leg, and who has one left, see `_at_the_end`.
    """

    hit: Bool
    noted: int = 0
    end: tuple[Bool, Bool] = field(init=False)

    def watch(self, batch: Batch) -> None:
        """Read a step's liquidations and drop them, so that nothing of a path is kept."""
        for event in batch.events:
            self.hit[event["path"], event["row"].astype(np.int64)] = True
            self.noted += len(event["row"])
        batch.events.clear()
        batch.series.clear()
        if batch.step == batch.steps:
            self.end = _at_the_end(batch, self.hit)


def _at_the_end(batch: Batch, hit: Bool) -> tuple[Bool, Bool]:
    """Return who lost a leg and who has one left that was not touched, shape (P, wallets) each."""
    state, world = batch.state, batch.world
    shape = state.paths, len(world.book.wallets)
    lost, left = np.zeros(shape, dtype=np.bool_), np.zeros(shape, dtype=np.bool_)
    open_ = (state.coll > 0.0).any(axis=2) | (state.debt > 0.0).any(axis=2)
    # What counts for no collateral stands with the suppliers: it is a leg, and nobody can take it.
    started = (world.coll > 0.0).any(axis=1) | (world.debt > 0.0).any(axis=1)
    stands = (open_ | ~started) & ~hit
    for p in range(state.paths):
        lost[p, world.row_wallet[hit[p]]] = True
        left[p, world.row_wallet[stands[p]]] = True
    left[:, np.unique(world.book.options.wallet)] = True
    positions, perps = world.book.perp_positions, batch.memos.get("perps")
    for k, wallet in enumerate(positions.wallet):
        stays = perps.size[:, k] != 0.0 if perps is not None else np.ones(state.paths, dtype=np.bool_)
        lost[:, wallet] |= ~stays & (positions.size[k] != 0.0)
        left[:, wallet] |= stays
    return lost, left


def distance_of(book: SharedBook) -> Float64:
    """Return how far each wallet's nearest leg is from liquidation, shape (wallets,).

    Of a lending account: the fall of all of its collateral against its debt at which it may be liquidated,
    ``1 - 1 / health factor``; 0 where it may be now. Of a perpetuals account: what its equity has above its
    maintenance requirement, over its notional. Infinite for a wallet that has nothing to liquidate.
    """
    nearest = np.full(len(book.wallets), np.inf)
    lending, perps = lending_accounts(book), perp_accounts(book)
    owes, limit = lending.debt > 0.0, lending.liquidation_limit
    used = np.divide(lending.debt, limit, out=np.ones_like(limit), where=limit > 0.0)
    np.minimum.at(nearest, lending.wallet[owes], 1.0 - np.minimum(used[owes], 1.0))
    has = perps.notional > 0.0
    room = np.maximum(perps.equity - perps.maintenance, 0.0)[has] / perps.notional[has]
    np.minimum.at(nearest, perps.wallet[has], room)
    return nearest


def concentration_of(book: SharedBook) -> Float64:
    """Return the sum of squared shares of tokens in each wallet's collateral: 1 for one token, 0 without."""
    p, wallets, tokens = book.positions, len(book.wallets), len(book.tokens)
    held = p.side == Side.COLLATERAL
    worth = p.amount[held] * token_prices(book)[p.token[held]]
    at = p.wallet[held].astype(np.int64) * tokens + p.token[held]
    each = np.bincount(at, worth, minlength=wallets * tokens).reshape(wallets, tokens)
    whole = each.sum(axis=1, keepdims=True)
    share = np.divide(each, whole, out=np.zeros_like(each), where=whole > 0.0)
    return np.asarray((share**2).sum(axis=1))


def scores(near: Float64, debt: Float64, concentration: Float64, broken: Float64) -> Float64:
    """Return the risk score, in [0, 100]: 100 times the parts by `WEIGHTS`, each in [0, 1].

    Parameters
    ----------
    near
        ``max(0, 1 - distance / FAR)``: 1 where a leg may be liquidated now.
    debt
        Debt over assets of all lending venues, ``1 - 1 / leverage``, at most 1.
    concentration
        See `concentration_of`.
    broken
        Share of paths with a broken hedge.
    """
    parts = {"broken": broken, "near": near, "debt": debt, "concentration": concentration}
    return np.asarray(100.0 * sum(WEIGHTS[name] * np.clip(part, 0.0, 1.0) for name, part in parts.items()))


def wallets_record(run: Run, seed: int, paths: int) -> dict[str, Any]:
    """Return the riskiest wallets with positions in several places, as JSON types.

    Parameters
    ----------
    run, seed
        What is run.
    paths
        How many there are; the first `MOST_PATHS` are looked at.
    """
    book = run.world.book
    legs = legs_of(book)
    several = np.flatnonzero(legs >= 2.0)
    out: dict[str, Any] = {"cross_margin": len(several), "weights": dict(WEIGHTS), "paths": 0, "top": []}
    if not len(several):
        return out
    counted = count_broken(run, seed, min(paths, MOST_PATHS))
    assets, leverage = wallet_leverage(book)
    distance = distance_of(book)
    near = np.where(np.isfinite(distance), 1.0 - distance / FAR, 0.0)
    with np.errstate(divide="ignore"):
        debt = np.where(np.isnan(leverage), 0.0, 1.0 - 1.0 / leverage)
    concentration = concentration_of(book)
    score = scores(near, debt, concentration, counted.broken)
    order = several[np.argsort(-score[several], kind="stable")]
    for w in order[:TOP]:
        low, high = _interval(counted, int(w))
        out["top"].append(
            {
                "wallet": book.wallets[w],
                "score": float(score[w]),
                "legs": int(legs[w]),
                "assets_usd": float(assets[w]),
                "leverage": float(leverage[w]) if np.isfinite(leverage[w]) else None,
                "distance": float(distance[w]) if np.isfinite(distance[w]) else None,
                "concentration": float(concentration[w]),
                "liquidated": float(counted.liquidated[w]),
                "broken": {"value": float(counted.broken[w]), "low": low, "high": high},
            }
        )
    return {**out, "paths": counted.paths, "missed": counted.missed}


def _interval(counted: Broken, wallet: int) -> tuple[float, float]:
    """Return the 95 % limits of a broken share: Wilson's (1927), or normal ones where paths have weights."""
    share = float(counted.broken[wallet])
    if counted.weighted:
        reach = 1.96 * float(counted.error[wallet])
        return max(share - reach, 0.0), share + reach
    from scipy.stats import binomtest  # half a second, which only a record waits

    test = binomtest(round(share * counted.paths), counted.paths)
    interval = test.proportion_ci(confidence_level=0.95, method="wilson")
    return float(interval.low), float(interval.high)
