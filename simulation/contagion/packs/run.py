"""Runs a pack and says of every published figure whether the simulation met it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from simulation.contagion.metrics import Figure, tail_of
from simulation.contagion.packs.build import changed, pack_scenario, pack_table, table_scenario, value_at
from simulation.contagion.packs.files import Pack, Parameter, Target
from simulation.contagion.packs.statistics import measure
from simulation.contagion.record import sha256_of
from simulation.types import Float64

SCHEMA: Final = "marginline-event-pack/1"

SPREAD_POINTS: Final = 3
"""Values of a parameter over its range that held-out figures are looked at for, both ends among them."""

CALIBRATED, OFF, HIT, MISS = "calibrated", "calibration off", "hit", "miss"


def verdict(target: Target, value: float) -> str:
    """Return what a simulated figure is: a fitted one is never a hit, and says where it is not even met."""
    if target.role == "calibrated":
        return CALIBRATED if target.met(value) else OFF
    return HIT if target.met(value) else MISS


def runs_of(pack: Pack, *, spread: bool) -> int:
    """Return how many times a pack's paths are run, for a progress bar."""
    varied = SPREAD_POINTS * len(pack.file.parameter) + len(pack.rivals)
    return 1 + len(pack.file.compare) + (varied if spread else 0)


def run_pack(
    pack: Pack,
    *,
    version: str,
    paths: int | None = None,
    seed: int | None = None,
    spread: bool = True,
    on_done: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Run a pack, what it is compared with, and its parameters over their ranges.

    Parameters
    ----------
    pack
        See `load_pack`.
    version
        Of the program, for the record.
    paths, seed
        The scenario's own unless given.
    spread
        Whether parameters are varied, one at a time, the others where they are.
    on_done
        Hears how many more paths are done.

    Returns
    -------
    dict
        JSON types; the same bytes for the same files, paths, seed and program.
    """
    table = pack_table(pack)
    scenario = pack_scenario(pack)
    count = scenario.file.paths if paths is None else paths
    seed = scenario.file.seed if seed is None else seed
    wanted = list(dict.fromkeys([t.statistic for t in pack.targets]))
    extra = [s for c in pack.file.compare for s in c.statistics]
    base = measure(scenario.run, seed, count, list(dict.fromkeys([*wanted, *extra])), on_done=on_done)
    return {
        "schema": SCHEMA,
        "name": pack.name,
        "title": pack.file.title,
        "date": pack.file.date,
        "summary": pack.file.summary.strip(),
        "version": version,
        "seed": seed,
        "paths": count,
        "steps": scenario.run.steps,
        "step_s": scenario.run.dt_s,
        "accounts": scenario.run.world.rows,
        "venues": {v.name: v.kind for v in scenario.book.lending},
        "pack_sha256": sha256_of(table),
        "targets_sha256": pack.file.targets_sha256,
        "targets_commit": pack.file.targets_commit,
        "targets": [_target(t, base[t.statistic]) for t in pack.targets],
        "parameters": [_parameter(p, table) for p in pack.file.parameter],
        "compared": [
            _compared(pack, table, c.name, base, seed=seed, paths=count, on_done=on_done)
            for c in pack.file.compare
        ],
        "spread": [
            _spread(pack, table, p, seed=seed, paths=count, on_done=on_done) for p in pack.file.parameter
        ]
        if spread
        else None,
        "rivals": [_rival(pack, table, own, seed=seed, paths=count, on_done=on_done) for own in pack.rivals]
        if spread
        else None,
        "left_out": list(pack.file.left_out),
    }


def _target(target: Target, values: Float64) -> dict[str, Any]:
    mean = mean_of(values)
    low, high = target.bounds
    return {
        "name": target.name,
        "meaning": target.meaning,
        "statistic": target.statistic,
        "unit": target.unit,
        "source": target.source,
        "grade": target.grade,
        "published": list(target.published),
        "band": [low, high],
        "why": target.why,
        "role": target.role,
        "simulated": _figure(mean),
        "between_paths": [float(q) for q in np.percentile(values, [5.0, 95.0])],
        "verdict": verdict(target, mean.value),
    }


def _parameter(parameter: Parameter, table: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "keys": list(parameter.keys),
        "unit": parameter.unit,
        "value": value_at(table, parameter.keys[0]),
        "range": [parameter.low, parameter.high],
        "fitted": parameter.fitted,
        "why": parameter.why,
    }


def _compared(
    pack: Pack,
    table: Mapping[str, Any],
    name: str,
    base: Mapping[str, Float64],
    *,
    seed: int,
    paths: int,
    on_done: Callable[[int], None] | None,
) -> dict[str, Any]:
    """Return the figures of a comparison beside the pack's, and what they differ by path by path."""
    (own,) = [c for c in pack.file.compare if c.name == name]
    other = table_scenario(changed(table, own.over), pack.folder, pack.file.ladder_seed)
    found = measure(other.run, seed, paths, own.statistics, on_done=on_done)
    return {
        "name": own.name,
        "meaning": own.meaning,
        "over": own.over,
        "figures": {
            s: {
                "pack": _figure(mean_of(base[s])),
                "here": _figure(mean_of(found[s])),
                "difference": _figure(mean_of(found[s] - base[s])),
            }
            for s in own.statistics
        },
    }


def _spread(
    pack: Pack,
    table: Mapping[str, Any],
    parameter: Parameter,
    *,
    seed: int,
    paths: int,
    on_done: Callable[[int], None] | None,
) -> dict[str, Any]:
    """Return the held-out figures over a parameter's range, the others where they are."""
    held = pack.role("held out")
    wanted = list(dict.fromkeys([t.statistic for t in held]))
    at = [parameter.held(float(v)) for v in np.linspace(parameter.low, parameter.high, SPREAD_POINTS)]
    figures: dict[str, list[float]] = {t.name: [] for t in held}
    for value in at:
        other = table_scenario(
            changed(table, dict.fromkeys(parameter.keys, value)), pack.folder, pack.file.ladder_seed
        )
        found = measure(other.run, seed, paths, wanted, on_done=on_done)
        for target in held:
            figures[target.name].append(float(found[target.statistic].mean()))
    return {"parameter": parameter.name, "fitted": parameter.fitted, "at": at, "figures": figures}


def _rival(
    pack: Pack,
    table: Mapping[str, Any],
    values: Mapping[str, float],
    *,
    seed: int,
    paths: int,
    on_done: Callable[[int], None] | None,
) -> dict[str, Any]:
    """Return all figures at other values of the fitted parameters that meet the calibrated targets too."""
    over = {key: p.held(values[p.name]) for p in pack.fitted for key in p.keys}
    other = table_scenario(changed(table, over), pack.folder, pack.file.ladder_seed)
    wanted = list(dict.fromkeys(t.statistic for t in pack.targets))
    found = measure(other.run, seed, paths, wanted, on_done=on_done)
    figures = {t.name: [float(found[t.statistic].mean())] for t in pack.targets}
    return {"values": dict(values), "figures": figures}


def spread_of(record: Mapping[str, Any], target: str) -> tuple[float, float] | None:
    """Return the least and greatest figure of a held-out target over all parameters' ranges and rivals."""
    if record["spread"] is None:
        return None
    varied = [*record["spread"], *record["rivals"]]
    held = {t["name"] for t in record["targets"] if t["role"] == "held out"}
    found: Sequence[float] = [v for own in varied for v in own["figures"][target]] if target in held else ()
    return (min(found), max(found)) if found else None


def mean_of(values: Float64) -> Figure:
    """Return the mean over paths with its 95 % interval."""
    return tail_of(values, 0.99, resamples=1).mean


def _figure(figure: Figure) -> dict[str, float | None]:
    parts = {"value": figure.value, "low": figure.low, "high": figure.high}
    return {name: float(v) if np.isfinite(v) else None for name, v in parts.items()}
