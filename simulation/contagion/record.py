"""The record of a simulation: everything that reports show, as one JSON document.

Reports read the record and nothing else, so a report can be made again from it. Figures carry their sampling
error; the worst path by bad debt is kept step by step.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

import numpy as np

from simulation.contagion.causes import Columns, Contagion, Effect, difference, weighed
from simulation.contagion.channels.losses import LossesChannel
from simulation.contagion.engine import PathResults, run_paths
from simulation.contagion.left_out import left_out
from simulation.contagion.metrics import (
    LOG_WEIGHT,
    PLAIN,
    VENUE_COLUMNS,
    Figure,
    Sampling,
    Tail,
    plain_mean,
    sampling_of,
    solvency,
    static_sensitivity,
    tail_of,
)
from simulation.contagion.scenario import Scenario, full_table
from simulation.contagion.spread import spread_record
from simulation.contagion.state import Total
from simulation.contagion.systemic import equity_usd, system_record
from simulation.contagion.world import COMPOUND_V3
from simulation.types import Bool, Float64

SCHEMA: Final = "marginline-simulation/1"
LEVELS: Final = (0.95, 0.99)
MOVES: Final = tuple(round(-0.05 * k, 2) for k in range(1, 13))
"""Moves of the static sensitivity: a fall of 5 to 60 per cent."""
HISTOGRAM_BINS: Final = 40
EVENTS_SHOWN: Final = 500
POINTS_SHOWN: Final = 1_500
"""Steps of the worst path that are kept; more are thinned evenly."""

LOSSES: Final = ("bad_debt_usd", "liquidated_usd", "unfilled_usd", "keeper_profit_usd", "gas_usd")
"""Columns whose whole distribution is kept."""

LEAST_IN_TAIL: Final = 30
"""Effective paths beyond the 99 % quantile below which weighted figures come with a warning."""
MEAN_WEIGHT_KNOWN_TO: Final = 0.1
"""Half of the interval of the mean weight above which means come with a warning."""

COMPARED: Final = ("bad_debt_usd", "liquidated_usd", "keeper_profit_usd", "liquidations")
"""Columns that policies are compared by."""


def sha256_of(table: Mapping[str, Any]) -> str:
    """Return the digest of a table, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(table, sort_keys=True).encode()).hexdigest()


def build_record(
    scenario: Scenario,
    base: Columns,
    *,
    seed: int,
    version: str,
    result_sha256: str,
    effects: Sequence[Effect] = (),
    matrix: Contagion | None = None,
    policies: Mapping[str, Columns] | None = None,
    policy_tables: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    matrix_shock: Mapping[str, Any] | None = None,
    without: Mapping[str, Columns] | None = None,
    wallets: Mapping[str, Any] | None = None,
    spread: Mapping[str, Columns] | None = None,
) -> dict[str, Any]:
    """Return the record of a run.

    Parameters
    ----------
    scenario
        What was run.
    base
        Columns of all paths, see `path_columns`.
    seed, version, result_sha256
        Seed of the draws, version of the program, digest of all columns.
    effects, matrix
        See `simulation.contagion.causes`; left out when empty.
    policies
        Columns under other policies with the same seed, by name.
    policy_tables
        What those policies are, by the same names.
    matrix_shock
        ``kind`` and ``size`` of the shocks of `matrix`.
    without
        Columns without each channel, by its name.
    wallets
        See `wallets_record`; null when nobody asked.
    spread
        Columns at the ends of the uncertain ranges, see `range_ends`; null when nobody asked.
    """
    world = scenario.run.world
    worst = worst_path(base)
    sampling = sampling_of(base, antithetic=scenario.run.antithetic)
    return {
        "schema": SCHEMA,
        "name": scenario.file.name,
        "description": scenario.file.description,
        "version": version,
        "seed": seed,
        "paths": len(base["bad_debt_usd"]),
        "steps": scenario.run.steps,
        "step_s": scenario.run.dt_s,
        "scenario_sha256": sha256_of(full_table(scenario)),
        "book_source": scenario.book.source,
        "result_sha256": result_sha256,
        "accounts": world.rows,
        "venues": list(world.venues),
        "venue_kinds": {venue.name: venue.kind for venue in scenario.book.lending},
        "venue_tokens": {
            venue.name: [reserve.token for reserve in venue.reserves] for venue in scenario.book.lending
        },
        "tokens": list(world.tokens),
        "channels": {c.kind: c.on for c in sorted(scenario.run.channels, key=lambda c: c.order)},
        "left_out": list(left_out(scenario.run)),
        "policies": [dict(table) for table in scenario.file.policies],
        "sampling": sampling_record(sampling, base["bad_debt_usd"]),
        "figures": figures(base, sampling),
        "shares": shares(base, sampling),
        "by_venue": {name: _venue(base, name, sampling) for name in world.venues},
        "tails": {
            name: {str(q): _tail(tail_of(base[name], q, sampling=sampling)) for q in LEVELS}
            for name in LOSSES
        },
        "histograms": {name: histogram(base[name], sampling) for name in LOSSES},
        "waterfall": waterfall(base) | _paid_otherwise(scenario, base),
        "wallets": None if wallets is None else dict(wallets),
        "spread": None if not spread else _plain(spread_record(scenario, base, spread)),
        "system": _plain(
            system_record(
                world,
                base,
                scenario.run.steps,
                sampling,
                without=without or {},
                matrix=matrix,
                backstop_usd=_backstops(scenario),
            )
        ),
        "solvency": _solvency(scenario),
        "static": {
            token.symbol: _static(scenario, token.symbol)
            for token in scenario.book.tokens
            if token.backing is None
        },
        "effects": [_plain(asdict(effect)) for effect in effects],
        "matrix": None if matrix is None else _plain(asdict(matrix)),
        "matrix_shock": None if matrix_shock is None else dict(matrix_shock),
        "policies_compared": {
            name: {str(q): _tail(tail_of(table["bad_debt_usd"], q, sampling=sampling)) for q in LEVELS}
            for name, table in (policies or {}).items()
        },
        "policy_tables": {
            name: [dict(table) for table in tables] for name, tables in (policy_tables or {}).items()
        },
        "policy_effects": {
            name: _compared(table, base, sampling) for name, table in (policies or {}).items()
        },
        "worst_path": path_record(scenario, seed, worst),
    }


def _solvency(scenario: Scenario) -> dict[str, Any]:
    """Return what stands behind each venue's debts, and ``equity_usd``: what stands for its losses."""
    world = scenario.run.world
    equity = equity_usd(world, _backstops(scenario))
    plain: dict[str, Any] = _plain(
        {name: {**own, "equity_usd": equity[name]} for name, own in solvency(world).items()}
    )
    return plain


def _backstops(scenario: Scenario) -> dict[str, float]:
    """Return what stands behind each venue's deficits by the losses channel, US dollars."""
    for channel in scenario.run.on():
        if isinstance(channel, LossesChannel):
            return dict(channel.backstop_usd)
    return {}


def worst_path(base: Columns) -> int:
    """Return the path with the most bad debt, or with the most liquidated where nobody lost anything."""
    losses = base["bad_debt_usd"] if base["bad_debt_usd"].any() else base["liquidated_usd"]
    return int(np.argmax(losses))


def sampling_record(sampling: Sampling, losses: Float64) -> dict[str, Any]:
    """Return how paths were drawn, which estimator the figures are by, and whether weights carry it.

    ``effective_paths`` is about means of everything: a shift towards rare losses lowers it, and should.
    ``effective_in_tail`` is about the losses from the 99 % quantile on, which it is made for. ``warning``
    says so where that is too little, or where the mean weight, 1 in expectation, is not known to a tenth.
    """
    weights, paths = sampling.weights, len(losses)
    if weights is None:
        mean, in_tail, warning = None, None, None
    else:
        mean = plain_mean(weights, sampling.group)
        bar = tail_of(losses, LEVELS[-1], sampling=sampling, resamples=1).var.value
        tail = weights[(losses >= bar) & (losses > 0.0)]
        in_tail = Sampling(tail).effective if len(tail) else 0.0
        warning = _warning(mean, in_tail)
    return {
        "antithetic": sampling.group == 2,
        "estimator": "plain mean" if weights is None else "importance weights, not divided by their sum",
        "mean_weight": None if mean is None else _figure(mean),
        "effective_paths": float(paths) if weights is None else sampling.effective,
        "effective_in_tail": in_tail,
        "warning": warning,
    }


def _warning(mean: Figure, in_tail: float) -> str | None:
    if in_tail < LEAST_IN_TAIL:
        return (
            f"{in_tail:.0f} effective paths are in the tail of bad debt, fewer than {LEAST_IN_TAIL}: neither "
            "figures nor intervals hold; change drift_shift, or run more paths"
        )
    if not (mean.high - mean.low) / 2.0 <= MEAN_WEIGHT_KNOWN_TO:
        return (
            "the mean weight is not known to a tenth: means of what is not rare are poor; read the tail only"
        )
    return None


def figures(base: Columns, sampling: Sampling = PLAIN) -> dict[str, Any]:
    """Return the mean of every column with its 95 % interval; a path's number and weight are no figures."""
    skipped = (LOG_WEIGHT, "path")
    return {name: _figure(sampling.mean(values)) for name, values in base.items() if name not in skipped}


def shares(base: Columns, sampling: Sampling = PLAIN) -> dict[str, Any]:
    """Return on which part of the paths anything happened, with its 95 % interval.

    The interval is Wilson's (1927) for independent paths that count alike, else by batch means.
    """
    return {
        name: _share(base[name] > 0.0, sampling) for name in ("bad_debt_usd", "liquidations", "frozen_steps")
    }


def _compared(table: Columns, base: Columns, sampling: Sampling) -> dict[str, Any]:
    """Return means under a policy, and what it changes path by path."""
    return {
        name: {
            "mean": _figure(sampling.mean(table[name])),
            "change": _figure(difference(table, base, name, sampling.group)),
        }
        for name in COMPARED
    }


def _share(happened: Bool, sampling: Sampling) -> dict[str, Any]:
    if sampling.weights is not None or sampling.group > 1:
        return _figure(sampling.mean(happened.astype(np.float64)))
    from scipy.stats import binomtest  # half a second, which only a record waits

    test = binomtest(int(happened.sum()), len(happened))
    interval = test.proportion_ci(confidence_level=0.95, method="wilson")
    return _figure(Figure(float(happened.mean()), float(interval.low), float(interval.high)))


def _figure(figure: Figure) -> dict[str, Any]:
    plain: dict[str, Any] = _plain(asdict(figure))
    return plain


def _venue(base: Columns, venue: str, sampling: Sampling) -> dict[str, Any]:
    out = {}
    for name in (*VENUE_COLUMNS, "bad_debt_usd", "deficit_usd", "frozen_steps"):
        tail = tail_of(base[f"{name}.{venue}"], 0.99, sampling=sampling, resamples=100)
        out[name] = _tail(tail)
    return out


def histogram(values: Float64, sampling: Sampling = PLAIN) -> dict[str, Any]:
    """Return counts of values in equal bins, by their weights; all in one bin where nothing varies."""
    low, high = float(values.min()), float(values.max())
    if high <= low:
        return {"edges": [low, high], "counts": [len(values)]}
    counts, edges = np.histogram(values, bins=HISTOGRAM_BINS, weights=sampling.weights)
    return {"edges": edges.tolist(), "counts": counts.tolist()}


def waterfall(base: Columns) -> dict[str, float]:
    """Return who paid for bad debts on average, US dollars a path."""
    mean = {name: float(weighed(base, name).mean()) for name in base}
    return {
        "written_off_usd": mean["written_off_usd"],
        "shortfall_usd": mean["shortfall_usd"],
        "from_reserves_usd": mean["from_reserves_usd"],
        "from_backstop_usd": mean["from_backstop_usd"],
        "from_suppliers_usd": mean["from_suppliers_usd"],
        "deficit_usd": mean["deficit_usd"],
        "reserve_loss_usd": mean["reserve_loss_usd"],
    }


def _paid_otherwise(scenario: Scenario, base: Columns) -> dict[str, float]:
    """Return the rest of who paid, so that all parts add up to the bad debt.

    ``absorbed_usd`` is what Compound III wrote off: its reserves stand for it from the moment of `absorb`.
    ``revalued_usd`` is what prices made of the rest: debts are written off at one moment's prices, paid at
    another's, and what is left is counted at the end's.
    """
    world = scenario.run.world
    absorbs = [name for name, kind in zip(world.venues, world.rules.kind, strict=True) if kind == COMPOUND_V3]
    absorbed = sum(float(weighed(base, f"written_off_usd.{name}").mean()) for name in absorbs)
    paid = ("from_reserves_usd", "from_backstop_usd", "from_suppliers_usd", "deficit_usd")
    rest = float(weighed(base, "written_off_usd").mean()) - absorbed
    rest -= sum(float(weighed(base, name).mean()) for name in paid)
    return {"absorbed_usd": absorbed, "revalued_usd": rest}


def _static(scenario: Scenario, token: str) -> dict[str, Any]:
    moves = np.array(MOVES)
    table = static_sensitivity(scenario.run.world, token, moves)
    return {"moves": list(MOVES), **{name: values.tolist() for name, values in table.items()}}


def path_record(scenario: Scenario, seed: int, path: int) -> dict[str, Any]:
    """Return one path step by step."""
    results = run_paths(scenario.run, seed, path, 1, record=True)
    world, steps = scenario.run.world, scenario.run.steps
    kept = np.unique(np.linspace(0, steps - 1, min(steps, POINTS_SHOWN)).round().astype(int))
    series = {name: values[0][kept] for name, values in results.series.items()}
    oracle = series["oracle"].reshape(len(kept), len(world.venues), len(world.tokens))
    totals = series["totals"]
    return {
        "path": path,
        "t_s": ((kept + 1) * scenario.run.dt_s).tolist(),
        "market": {t: series["market"][:, a].tolist() for a, t in enumerate(world.tokens)},
        "oracle": {
            v: {t: oracle[:, k, a].tolist() for a, t in enumerate(world.tokens)}
            for k, v in enumerate(world.venues)
        },
        "liquidated_usd": {v: totals[:, k, Total.REPAID].tolist() for k, v in enumerate(world.venues)},
        "written_off_usd": {v: totals[:, k, Total.WRITTEN_OFF].tolist() for k, v in enumerate(world.venues)},
        "liquidations": {v: totals[:, k, Total.LIQUIDATIONS].tolist() for k, v in enumerate(world.venues)},
        "base_fee_gwei": (series["base_fee"] / 1e9).tolist(),
        "events": events_of(results)[:EVENTS_SHOWN],
        "events_in_all": int(sum(len(e["row"]) for e in results.events)),
    }


def events_of(results: PathResults) -> list[dict[str, Any]]:
    """Return the liquidations of a recorded path, the first first, in names instead of numbers."""
    world = results.world
    tokens = len(world.tokens)
    out = []
    for entry in results.events:
        for k, row in enumerate(entry["row"]):
            i = int(row)
            absorbed = entry["debt_reserve"][k] < 0
            out.append(
                {
                    "step": int(entry["step"]),
                    "wallet": world.book.wallets[int(world.row_wallet[i])],
                    "venue": world.venues[int(world.row_venue[i])],
                    "debt": None if absorbed else world.tokens[int(entry["debt_reserve"][k]) % tokens],
                    "collateral": None
                    if absorbed
                    else world.tokens[int(entry["collateral_reserve"][k]) % tokens],
                    "health_factor": float(entry["health_factor"][k]),
                    "repaid": float(entry["repaid"][k]),
                    "seized": float(entry["seized"][k]),
                    "profit_usd": float(entry["profit_usd"][k]),
                    "written_off_usd": float(entry["written_off_usd"][k]),
                }
            )
    return out


def _tail(tail: Tail) -> dict[str, Any]:
    plain: dict[str, Any] = _plain(asdict(tail))
    return plain


def _plain(value: Any) -> Any:
    """Return JSON types; what is no number is null, so that the document stays standard JSON."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return value
