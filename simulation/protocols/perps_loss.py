"""Who bears a loss that margin does not cover: bankruptcy price, insurance fund, auto-deleveraging.

Venue-neutral and in floats: every perpetuals venue has some form of this, and each of its own. An account is
closed at its *bankruptcy price*, where its equity is zero; what the market pays less is the *deficit*. The
insurance fund bears it down to a floor. The rest is taken from whoever is in profit on the other side, either
in a queue, whole profits first by score (most venues), or from all by shares.

Sources: reference of the simulators, section 5, step 12; the queue's score as venues publish it (profit in
percent times leverage); shares by water-filling after T. Chitra and others on auto-deleveraging (2025), read
in summary and not verified against the paper: an equal fraction of every winner's profit until the deficit is
covered; who is at his own limit does not stop the others.

Money is conserved: haircuts that cover a deficit add up to it, by `math.fsum`, to the last bit; where nearly
all profit there is goes, within one last bit for each winner. What stays uncovered is rounded once, since a
difference of two floats need not be one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from contracts_abi.errors import InputError
from simulation.types import Float64, Int64


def bankruptcy_price(size: float, entry: float, margin: float) -> float:
    """Return the price at which a position's equity is zero: ``entry - margin / size``.

    Parameters
    ----------
    size
        Units of the asset, negative for a short; not 0.
    entry
        Price it was opened at, dollars.
    margin
        What stands behind it, dollars, with funding and fees taken off.

    Raises
    ------
    InputError
        For a size of 0, which has no such price.
    """
    if size == 0:
        raise InputError("size 0 has no bankruptcy price", fix="leave closed positions out")
    return entry - margin / size


def equity(size: ArrayLike, entry: ArrayLike, margin: ArrayLike, price: ArrayLike) -> Float64:
    """Return ``margin + size * (price - entry)``, dollars."""
    size, entry, margin, price = (np.asarray(v, dtype=np.float64) for v in (size, entry, margin, price))
    return margin + size * (price - entry)


def deficit_at(size: float, entry: float, margin: float, price: float) -> float:
    """Return what is missing when a position is closed at `price`, dollars, never negative."""
    return max(0.0, -(margin + size * (price - entry)))


# ---------------------------------------------------------------------------------------------- the waterfall


@dataclass(frozen=True, slots=True)
class Loss:
    """Who bears a deficit, dollars.

    Attributes
    ----------
    deficit
        All of it.
    insurance
        Paid by the insurance fund.
    left
        For deleveraging, or for liquidity providers where there is none.
    fund_after
        The fund's balance afterwards.
    """

    deficit: float
    insurance: float
    left: float
    fund_after: float


def insurance_waterfall(deficit: float, fund: float, *, floor: float = 0.0) -> Loss:
    """Return who bears a deficit: the fund down to its floor, then whoever comes next.

    Parameters
    ----------
    deficit
        Dollars, 0 or more.
    fund
        The insurance fund's balance, dollars.
    floor
        Balance below which the fund pays nothing (a venue deleverages before its fund is empty).

    Raises
    ------
    InputError
        For a negative or infinite deficit, or a balance or floor that is no number.
    """
    if not 0.0 <= deficit < math.inf:
        raise InputError(f"deficit {deficit!r} is not 0 or more", fix="give dollars")
    for name, value in (("fund", fund), ("floor", floor)):
        if not math.isfinite(value):
            raise InputError(f"{name} {value!r} is no number", fix="give dollars")
    room = max(0.0, fund - floor)
    left = deficit - min(deficit, room)
    insurance = deficit - left
    if insurance > room:  # by the rounding of `left`; the smaller part is the exact one
        left = math.nextafter(left, math.inf)
        insurance = deficit - left
    return Loss(deficit, insurance, left, fund - insurance)


# ------------------------------------------------------------------------------------------- deleveraging


@dataclass(frozen=True, slots=True)
class Deleveraged:
    """What deleveraging takes from whom.

    Attributes
    ----------
    haircut
        float64, shape (winners,), dollars of each one's profit.
    uncovered
        What is still missing when all profit is gone, dollars.
    order
        int64: winners in the order they were taken from; all of them for shares.
    """

    haircut: Float64
    uncovered: float
    order: Int64

    @property
    def total(self) -> float:
        """Sum of all haircuts, rounded once."""
        return math.fsum(self.haircut.tolist())


def adl_score(profit: ArrayLike, margin: ArrayLike, notional: ArrayLike) -> Float64:
    """Return the rank of a position in the queue: profit in terms of margin, times leverage.

    Parameters
    ----------
    profit
        Unrealised, dollars.
    margin
        What the position was opened with, dollars, above 0.
    notional
        Size times mark price, dollars.

    Notes
    -----
    Leverage is notional over equity, margin and profit together. A loser's profit is divided by its leverage
    instead on some venues; losers are never taken from, so that only their being below zero matters.
    """
    profit, margin, notional = (np.asarray(v, dtype=np.float64) for v in (profit, margin, notional))
    leverage = notional / np.maximum(margin + profit, np.finfo(np.float64).tiny)
    return profit / margin * leverage


def _profits(profit: ArrayLike, deficit: float) -> Float64:
    profits = np.asarray(profit, dtype=np.float64)
    if not 0.0 <= deficit < math.inf:
        raise InputError(f"deficit {deficit!r} is not 0 or more", fix="give dollars")
    if profits.ndim != 1 or not np.isfinite(profits).all():
        raise InputError("profits are no finite numbers in one row", fix="leave unknown accounts out")
    return np.maximum(profits, 0.0)


def _missing(target: float, haircut: Float64) -> float:
    """Return what the haircuts lack, rounded once."""
    return math.fsum([target, *(-haircut).tolist()])


def _settled(haircut: Float64, target: float, most: Float64) -> None:
    """Make the haircuts add up to `target`: in units of its last bit, where sums are exact."""
    if math.fsum(haircut.tolist()) == target:
        return
    unit = math.ulp(target)
    haircut[:] = np.floor(haircut / unit) * unit
    room = np.floor(np.minimum(most - haircut, target) / unit) * unit
    for i in np.argsort(-room, kind="stable").tolist():
        gap = _missing(target, haircut)
        if gap == 0.0:
            return
        haircut[i] += min(max(gap, -haircut[i]), room[i])


def adl_queue(deficit: float, profit: ArrayLike, score: ArrayLike) -> Deleveraged:
    """Return haircuts by queue: the highest score loses its whole profit before the next is touched.

    Parameters
    ----------
    deficit
        Dollars to be covered.
    profit
        Unrealised profit of each candidate, dollars; losers are passed over.
    score
        As of `adl_score`; of equal ones the first comes first.

    Raises
    ------
    InputError
        For a negative deficit, or a profit or score that is no finite number.
    """
    available = _profits(profit, deficit)
    scores = np.asarray(score, dtype=np.float64)
    if scores.shape != available.shape or not np.isfinite(scores).all():
        raise InputError("scores are no finite numbers, one for each profit", fix="give one a candidate")
    haircut = np.zeros_like(available)
    taken: list[int] = []
    covered = deficit == 0.0
    for i in np.argsort(-scores, kind="stable").tolist():
        if covered:
            break
        if available[i] > 0.0:
            missing = _missing(deficit, haircut)
            haircut[i] = min(missing, available[i])
            taken.append(i)
            covered = missing <= available[i]
    if covered:
        _settled(haircut, deficit, np.where(haircut > 0.0, available, 0.0))
    return Deleveraged(
        haircut, 0.0 if covered else _missing(deficit, haircut), np.array(taken, dtype=np.int64)
    )


def adl_pro_rata(deficit: float, profit: ArrayLike, *, limit: ArrayLike | None = None) -> Deleveraged:
    """Return haircuts by shares: the same fraction of everybody's profit, until the deficit is covered.

    With limits this is water-filling: the fraction is the one at which ``min(fraction * profit, limit)`` adds
    up to the deficit. Who is at his limit stays there, and the others' fraction rises.

    Parameters
    ----------
    deficit
        Dollars to be covered.
    profit
        Unrealised profit of each candidate, dollars; losers bear nothing.
    limit
        The most that may be taken of each, dollars; the whole profit without it, and never more.

    Raises
    ------
    InputError
        For a negative deficit, or a profit or limit that is no finite number.
    """
    available = _profits(profit, deficit)
    most = available
    if limit is not None:
        limits = _profits(limit, deficit)
        if limits.shape != available.shape:
            raise InputError("limits are not one for each profit", fix="give one a candidate")
        most = np.minimum(available, limits)
    order = np.flatnonzero(most > 0.0).astype(np.int64)
    capacity = math.fsum(most.tolist())
    if deficit >= capacity:
        return Deleveraged(most.copy(), _missing(deficit, most), order)
    haircut = np.zeros_like(available)
    if deficit == 0.0 or not order.size:
        return Deleveraged(haircut, deficit, order)
    # Who has the least room for his profit is full first; below the water everybody bears the same share.
    room = most[order] / available[order]
    sort = np.argsort(room, kind="stable")
    by_room = order[sort]
    full = np.cumsum(most[by_room]) - most[by_room]
    weight = np.cumsum(available[by_room][::-1])[::-1]
    dry = deficit - full <= room[sort] * weight
    at = int(np.argmax(dry)) if dry.any() else len(by_room) - 1
    haircut[by_room[:at]] = most[by_room[:at]]
    rest = by_room[at:]
    haircut[rest] = np.clip((deficit - full[at]) * (available[rest] / weight[at]), 0.0, most[rest])
    _settled(haircut, deficit, most)
    return Deleveraged(haircut, 0.0, order)
