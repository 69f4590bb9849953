"""Figures of the whole system: multipliers of a spiral, what keepers pay away, losses that come together.

Each has its sampling error where paths say something of it. Where there are too few of them, or a run that it
needs was not made, it is null and says why.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final

import numpy as np

from simulation.contagion.causes import FEEDBACK, Columns, Contagion
from simulation.contagion.metrics import Figure, Sampling, ratio, tail_of
from simulation.contagion.world import World
from simulation.types import Float64

LEVEL: Final = 0.95
"""Of CoVaR."""
LEAST_PATHS: Final = 60
"""Paths that a conditional quantile at `LEVEL` needs: with fewer no order statistic is an upper limit of it,
as ``0.95**59 < 0.05``."""
FELL: Final = 0.01
"""Fall of the logarithm of a price from outside from which on there is something to multiply."""
ROUNDS: Final = 1_000
"""Most rounds of a distress; it settles long before, or is whole."""


def unknown(why: str) -> dict[str, Any]:
    """Return a figure that nobody can say."""
    return {"value": None, "low": None, "high": None, "why": why}


def known(figure: Figure | None, why: str = "nothing to divide by") -> dict[str, Any]:
    """Return a figure as a table; unknown without one."""
    return unknown(why) if figure is None else asdict(figure)


def spiral_multiplier(base: Columns, without: Mapping[str, Columns], sampling: Sampling) -> dict[str, Any]:
    """Return what is liquidated with everything on over what is liquidated without price impact.

    A ratio of means over the same draws, with its interval by the delta method. It is the product of two
    others, by a run in between in which trades lose to the depth of the market and move no price.
    ``price_feedback`` is everything over that run. ``willingness`` is that run over the one without any
    impact, mostly below 1, as keepers leave alone or halve what depth makes unprofitable.
    """
    if "impact" not in without:
        why = "it needs a run without impact: --effects, and the impact channel on"
        return {**unknown(why), "price_feedback": unknown(why), "willingness": unknown(why)}
    weighed, group = sampling.weighed, sampling.group
    own, static = weighed(base["liquidated_usd"]), weighed(without["impact"]["liquidated_usd"])
    none = "nothing is liquidated without impact"
    found = known(ratio(own, static, group), none)
    if FEEDBACK not in without:
        why = "it needs a run without the feedback of impact on prices: --effects, and feedback on"
        return {**found, "price_feedback": unknown(why), "willingness": unknown(why)}
    seen = weighed(without[FEEDBACK]["liquidated_usd"])
    return {
        **found,
        "price_feedback": known(ratio(own, seen, group), "nothing is liquidated without feedback on prices"),
        "willingness": known(ratio(seen, static, group), none),
    }


def acted(base: Columns, column: str) -> bool:
    """Return whether the channel that a column is of was switched on; its column is NaN where it was not."""
    return column in base and not bool(np.isnan(base[column]).all())


def perps_deficit(base: Columns, sampling: Sampling) -> dict[str, Any]:
    """Return what venues of perpetual futures lost beyond fund and winners, US dollars a path, mean and tail.

    It stands beside bad debt and not in it: nobody lent it, and the book's suppliers do not bear it.
    """
    if not acted(base, "perps_deficit_usd"):
        why = "no venue of perpetual futures acts: the perps channel is off"
        return {**unknown(why), "es_99": unknown(why)}
    tail = tail_of(base["perps_deficit_usd"], 0.99, sampling=sampling)
    return {**asdict(tail.mean), "es_99": asdict(tail.es)}


def inventory_gain(base: Columns, sampling: Sampling) -> dict[str, Any]:
    """Return what inventory keepers gain on what they seized, from each liquidation on, US dollars a path."""
    if not acted(base, "inventory_gain_usd"):
        return unknown("no keeper acts: the keepers channel is off, or bytecode stands in for it")
    return asdict(sampling.mean(base["inventory_gain_usd"]))


def price_multipliers(world: World, base: Columns, sampling: Sampling) -> dict[str, dict[str, Any]]:
    """Return how much further each token's price fell than it would have by itself.

    Over the paths on which the price from outside fell by at least `FELL`: the slope of the move of the
    logarithm with everything on the one from outside, a line through the origin, so that large falls count
    more than noise around small ones; and the median of both moves' ratio, weights left aside.
    """
    out = {}
    for token, start in zip(world.tokens, world.price, strict=True):
        if f"outside.{token}" not in base:
            continue
        outside = np.log(base[f"outside.{token}"] / start)
        moved = np.log(base[f"price.{token}"] / start)
        fell = outside < -FELL
        if not fell.any():
            out[token] = {**unknown(f"it fell by {FELL:.0%} on no path"), "median": None, "paths": 0}
            continue
        above, below = np.where(fell, moved * outside, 0.0), np.where(fell, outside**2, 0.0)
        slope = ratio(sampling.weighed(above), sampling.weighed(below), sampling.group)
        median = float(np.median(moved[fell] / outside[fell]))
        out[token] = {**known(slope), "median": median, "paths": int(fell.sum())}
    return out


def covar(world: World, base: Columns, sampling: Sampling, level: float = LEVEL) -> list[dict[str, Any]]:
    """Return CoVaR of bad debt for every pair of venues.

    ``CoVaR_{k|l}`` is the quantile of k's bad debt on the paths where that of l is at its own quantile or
    beyond, as Girardi and Ergün (2013) condition; Adrian and Brunnermeier (2016) condition on a loss that is
    just the quantile (both recalled, not checked). ``delta`` is what it exceeds k's own quantile by. Its
    interval takes the quantile of l as known.

    Returns
    -------
    list of dict
        ``of`` (k), ``given`` (l), ``value``, ``low``, ``high``, ``delta``, ``paths`` in the condition; the
        first four null with a ``why`` where too few paths are there.
    """
    venues, out = world.venues, []
    for given in venues:
        own = base[f"bad_debt_usd.{given}"]
        at = tail_of(own, level, sampling=sampling, resamples=2).var.value
        hit = own >= at if at > 0.0 else np.zeros(len(own), dtype=np.bool_)
        weights = None if sampling.weights is None else sampling.weights[hit]
        inside = Sampling(weights)
        enough = float(hit.sum()) if weights is None or not len(weights) else inside.effective
        for of in venues:
            if of == given:
                continue
            row: dict[str, Any] = {"of": of, "given": given, "paths": int(hit.sum())}
            if not at > 0.0:
                why = f"{given} has no bad debt at its {level:.0%} quantile"
                out.append({**row, **unknown(why), "delta": None})
            elif enough < LEAST_PATHS:
                why = f"{enough:.0f} paths are in the condition, it takes {LEAST_PATHS}"
                out.append({**row, **unknown(why), "delta": None})
            else:
                loss = base[f"bad_debt_usd.{of}"]
                within = Sampling(None if weights is None else weights / weights.mean())
                found = tail_of(loss[hit], level, sampling=within).var
                alone = tail_of(loss, level, sampling=sampling, resamples=2).var.value
                out.append({**row, **asdict(found), "delta": found.value - alone})
    return out


def equity_usd(world: World, backstop_usd: Mapping[str, float]) -> dict[str, float]:
    """Return what stands for losses of each venue: its reserves, its backstop, and claims of suppliers.

    Suppliers are those who lend without borrowing; accounts' collateral is not counted.
    """
    tokens = len(world.tokens)
    worth = (world.reserves.reserves + world.reserves.idle) * np.tile(world.price, len(world.venues))
    by_venue = worth.reshape(len(world.venues), tokens).sum(axis=1)
    return {v: float(by_venue[k]) + backstop_usd.get(v, 0.0) for k, v in enumerate(world.venues)}


def debt_rank(exposure: Float64, shocked: int) -> Float64:
    """Return the distress of every node once that of one, 1 at first, has gone round, shape (V,).

    ``h_i(t + 1) = min(1, h_i(t) + sum_j L_ij (h_j(t) - h_j(t - 1)))``: the form of Bardoscia, Battiston,
    Caccioli and Caldarelli (2015) of the DebtRank of Battiston and others (2012), in which a node passes on
    every increase of its distress. Recalled from the literature, not verified against either paper.

    Parameters
    ----------
    exposure
        ``L_ij``: part of i's equity that is lost when j is in full distress, shape (V, V); its diagonal does
        not count.
    shocked
        Who is in full distress at first.
    """
    links = exposure.copy()
    np.fill_diagonal(links, 0.0)
    before, now = np.zeros(len(links)), np.zeros(len(links))
    now[shocked] = 1.0
    for _ in range(ROUNDS):
        after = np.minimum(1.0, now + links @ (now - before))
        before, now = now, after
        if (now - before).max() <= 1e-15:
            break
    return now


def debt_ranks(world: World, matrix: Contagion, backstop_usd: Mapping[str, float]) -> dict[str, Any]:
    """Return the DebtRank of each venue over the contagion matrix.

    The exposure of i to j is what the shock of j costs i in the matrix over i's equity, see `equity_usd`; a
    loss below 0 is none. Full distress of j stands for the shock of the matrix, so ranks are of that shock:
    ``rank`` is the part of all equity that is lost in others than j, links of links included.
    """
    equity = equity_usd(world, backstop_usd)
    own = np.array([equity[name] for name in matrix.venues])
    if not (own > 0.0).all():
        poor = matrix.venues[int(np.argmin(own))]
        return {"equity_usd": equity, "rank": None, "why": f"{poor} has no equity"}
    cost = np.array([[figure.value for figure in row] for row in matrix.matrix])
    exposure = np.maximum(cost.T, 0.0) / own[:, None]
    share = own / own.sum()
    out: dict[str, Any] = {"equity_usd": equity, "exposure": exposure.tolist(), "rank": {}, "distress": {}}
    for j, name in enumerate(matrix.venues):
        distress = debt_rank(exposure, j)
        out["distress"][name] = distress.tolist()
        out["rank"][name] = float(distress @ share - share[j])
    return out


def system_record(
    world: World,
    base: Columns,
    steps: int,
    sampling: Sampling,
    *,
    without: Mapping[str, Columns],
    matrix: Contagion | None,
    backstop_usd: Mapping[str, float],
) -> dict[str, Any]:
    """Return all figures of this module.

    Parameters
    ----------
    world
        What was run.
    base
        Columns of all paths, see `path_columns`.
    steps
        Of a path.
    sampling
        How the paths were drawn.
    without
        Columns without each channel, by its name; empty when those runs were not made.
    matrix
        The contagion matrix, None without.
    backstop_usd
        By venue.
    """
    weighed, group = sampling.weighed, sampling.group
    profit, bids, gas = base["keeper_profit_usd"], base["bids_usd"], base["gas_usd"]
    cleared = base["time_to_clear_s"]
    return {
        "spiral_multiplier": spiral_multiplier(base, without, sampling),
        "price_multipliers": price_multipliers(world, base, sampling),
        "time_to_clear_s": {
            "mean": asdict(sampling.mean(cleared)),
            "quantile_95": asdict(tail_of(cleared, 0.95, sampling=sampling, resamples=100).var),
        },
        # How many accounts waited in a step because nobody earned by liquidating them, or the block was full.
        "unprofitable_backlog": asdict(sampling.mean(base["unprofitable"] / steps)),
        "stuck_backlog": asdict(sampling.mean(base["stuck"] / steps)),
        "share_toxic": known(
            ratio(weighed(base["toxic"]), weighed(base["liquidations"]), group), "nobody is liquidated"
        ),
        "perps_deficit_usd": perps_deficit(base, sampling),
        # Each time that it was asked for and not paid.
        "frozen_withdrawals_usd": asdict(sampling.mean(base["unfilled_usd"])),
        "keepers": {
            "profit_after_gas_and_bids_usd": asdict(sampling.mean(profit)),
            # Beside the profit, which counts what own funds seized at the market's price of that moment.
            "inventory_gain_usd": inventory_gain(base, sampling),
            "gas_usd": asdict(sampling.mean(gas)),
            # What keepers bid away: to whoever orders the block, or to an auction of the oracle's update.
            "oev_leakage_usd": asdict(sampling.mean(bids)),
            "oev_leakage_share": known(
                ratio(weighed(bids), weighed(bids + profit), group), "keepers earn nothing"
            ),
        },
        "covar": covar(world, base, sampling),
        "covar_level": LEVEL,
        "debtrank": {"rank": None, "why": "it needs a contagion matrix: --matrix"}
        if matrix is None
        else debt_ranks(world, matrix, backstop_usd),
    }
