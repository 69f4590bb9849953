"""Calibration: the fitted parameters that bring a pack's calibrated figures to what was published.

Nelder and Mead's simplex (1965) over the logarithms of the parameters, clipped to their ranges. What is made
small is the sum of squares of the calibrated targets' distances in units of their bands, ``ln(simulated /
published) / ln(1 + band)``: a figure that was published to two per cent counts more than one that was
published to ten minutes. It is deterministic: the start is where the files stand, paths and seed are fixed,
and the search makes no draw. Where it ends it begins once more with a fresh simplex, while there are runs
left and the last round gained something.

A parameter may name further starts: every combination of them is searched from, the best end counts, and
others that meet all calibrated targets are kept as rivals. Held-out targets are never looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Final

import numpy as np
from scipy.optimize import minimize

from contracts_abi.errors import InputError
from simulation.contagion.packs.build import changed, pack_table, table_scenario, value_at
from simulation.contagion.packs.files import Pack, Target
from simulation.contagion.packs.statistics import measure
from simulation.types import Float64

PATHS: Final = 16
SEED: Final = 20
"""Of scripts/calibrate_packs.py: other draws than those that a pack is judged on."""
MOST_RUNS: Final = 60
"""Of one search."""

DIGITS: Final = 4
"""Significant digits of the values: more would be noise of the paths."""
STEP: Final = 0.15
"""First step of the search, in logarithms."""
GAIN: Final = 0.9
"""Part of the last loss that another round has to come below for one more."""
ENOUGH: Final = 0.01
"""A tenth of the bands all together: nearer is noise of the paths."""


@dataclass(frozen=True, slots=True)
class Fit:
    """What calibration found.

    Attributes
    ----------
    values
        Fitted parameters by name.
    figures
        Calibrated targets there, by name.
    loss
        Sum of squares.
    runs
        How many times the pack was run.
    rivals
        Where searches from other starts ended with all calibrated targets within their bands, best first.
    """

    values: dict[str, float]
    figures: dict[str, float]
    loss: float
    runs: int
    rivals: tuple[dict[str, float], ...] = ()


def fitted_targets(pack: Pack) -> tuple[Target, ...]:
    """Return the targets that calibration looks at."""
    return tuple(t for t in pack.role("calibrated") if t.middle > 0.0)


def loss_of(targets: Sequence[Target], figures: Mapping[str, float]) -> float:
    """Return the sum of squares of the distances in units of the bands."""
    return float(sum(_distance(t, figures[t.name]) ** 2 for t in targets))


def _distance(target: Target, figure: float) -> float:
    if target.band.relative is None:
        assert target.band.absolute is not None
        return (figure - target.middle) / target.band.absolute
    part = max(figure / target.middle, 1e-6)
    return float(np.log(part) / np.log1p(target.band.relative))


def figures_at(pack: Pack, values: Mapping[str, float], *, paths: int, seed: int) -> dict[str, float]:
    """Return the means of the calibrated targets at some values of the fitted parameters."""
    table = pack_table(pack)
    for parameter in pack.fitted:
        value = parameter.held(values[parameter.name])
        table = changed(table, dict.fromkeys(parameter.keys, value))
    scenario = table_scenario(table, pack.folder, pack.file.ladder_seed)
    targets = fitted_targets(pack)
    found = measure(scenario.run, seed, paths, [t.statistic for t in targets])
    return {t.name: float(found[t.statistic].mean()) for t in targets}


def fit(
    pack: Pack,
    *,
    paths: int = PATHS,
    seed: int = SEED,
    most_runs: int = MOST_RUNS,
    on_run: Callable[[Fit], None] | None = None,
) -> Fit:
    """Search the fitted parameters of a pack from every start, and take the best end.

    Parameters
    ----------
    pack
        Read without its calibrated values.
    paths, seed
        Of every run.
    most_runs
        After which a search ends wherever it is.
    on_run
        Hears of each run.

    Raises
    ------
    InputError
        If nothing is to be fitted.
    """
    if not pack.fitted:
        raise InputError(f"{pack.name}: no parameter is fitted", fix="say fitted = true of one")
    table = pack_table(pack)
    own = {p.name: value_at(table, p.keys[0]) for p in pack.fitted}
    starts = [own]
    if any(p.starts for p in pack.fitted):
        grid = product(*((p.starts or (own[p.name],)) for p in pack.fitted))
        starts += [dict(zip(own, at, strict=True)) for at in grid]
    ends = [_search(pack, at, paths=paths, seed=seed, most_runs=most_runs, on_run=on_run) for at in starts]
    # A stable sort: of two equal ends the earlier start's is taken.
    ends.sort(key=lambda end: end.loss)
    met = [end for end in ends[1:] if all(t.met(end.figures[t.name]) for t in fitted_targets(pack))]
    best = ends[0]
    rivals = [end.values for end in met if end.values != best.values]
    return replace(best, runs=sum(end.runs for end in ends), rivals=tuple(rivals))


def _search(
    pack: Pack,
    begin: Mapping[str, float],
    *,
    paths: int,
    seed: int,
    most_runs: int,
    on_run: Callable[[Fit], None] | None,
) -> Fit:
    """Return where the simplex ends that begins at `begin`."""
    targets = fitted_targets(pack)
    best: list[Fit] = []
    runs = 0

    def loss(logs: Float64) -> float:
        nonlocal runs
        runs += 1
        values = {
            p.name: float(p.held(rounded(float(np.exp(x))))) for p, x in zip(pack.fitted, logs, strict=True)
        }
        figures = figures_at(pack, values, paths=paths, seed=seed)
        tried = Fit(values, figures, loss_of(targets, figures), runs)
        if not best or tried.loss < best[0].loss:
            best[:] = [tried]
        if on_run is not None:
            on_run(tried)
        return tried.loss

    x0 = np.log([p.held(begin[p.name]) for p in pack.fitted])
    bounds = [(float(np.log(p.low)), float(np.log(p.high))) for p in pack.fitted]
    reached = np.inf
    while runs < most_runs:
        # Towards the farther end of the range, so that no corner of the first simplex lies outside.
        steps = [STEP if high - x > x - low else -STEP for x, (low, high) in zip(x0, bounds, strict=True)]
        simplex = np.stack([x0, *(x0 + np.eye(len(x0))[k] * s for k, s in enumerate(steps))])
        minimize(
            loss,
            x0,
            method="Nelder-Mead",
            bounds=bounds,
            options={"initial_simplex": simplex, "maxfev": most_runs - runs, "xatol": 5e-3, "fatol": 1e-3},
        )
        if best[0].loss > GAIN * reached or best[0].loss < ENOUGH:
            break
        reached = best[0].loss
        x0 = np.log([best[0].values[p.name] for p in pack.fitted])
    return replace(best[0], runs=runs)


def rounded(value: float) -> float:
    """Return a value with `DIGITS` significant digits."""
    return float(f"{value:.{DIGITS}g}")
