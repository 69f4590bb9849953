"""``marginline sweep``: a scenario over parameters and paths, in processes; a folder that can be resumed."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from contracts_abi.errors import InputError
from keeper.commands.console import (
    counted,
    plain_table,
    print_whole,
    progress_bar,
    stderr_console,
    stdout_console,
)
from keeper.commands.scenario_file import scenario_of
from keeper.commands.simulate import column_text, data_digests, figure_text, left_out_once
from keeper.sweeps.run import Progress, SweepOutcome, sweep
from keeper.sweeps.versions import versions
from keeper.sweeps.worker import task_function
from simulation.backtest.plan import SweepPlan, make_plan
from simulation.backtest.summary import Statistics, summaries
from simulation.contagion.scenario import Scenario, build_scenario, full_table
from simulation.contagion.sweep import FOLDER

DEFAULT_TASK: Final = "simulation.contagion.sweep:sweep_task"
"""What computes a sweep's tasks unless ``--task`` names another function."""

SHOWN: Final = ("bad_debt_usd", "liquidated_usd", "keeper_profit_usd", "time_to_clear_s")
"""Columns of the contagion engine that the terminal shows; ``--json`` and the folder have all."""

OTHER_PATHS: Final = 1_000
OTHER_SEED: Final = 1
"""Of a sweep of another task, whose scenario's keys are its own."""

_ROWS: Final = 60


def run_sweep(
    scenario: Path,
    *,
    over: Sequence[str],
    zipped: bool,
    paths: int | None,
    chunk: int,
    seed: int | None,
    workers: int | None,
    out: Path | None,
    task: str | None,
    as_json: bool,
) -> None:
    """Run or take up a sweep; print its statistics.

    Without `paths` and `seed` those of the scenario hold, and of another `task` `OTHER_PATHS` and
    `OTHER_SEED`; what is printed says which.

    Exit codes: 0 whole; 1 tasks failed; 2 bad input or no room; 130 interrupted. After each of the last three
    the same command goes on where it stopped.
    """
    task = task or DEFAULT_TASK
    task_function(task)  # refused before a folder is made
    own = task == DEFAULT_TASK
    loaded = scenario_of(scenario) if own else None
    table, data = _scenario(scenario, loaded)
    used_paths, paths_from = _given(paths, "--paths", table["paths"] if own else OTHER_PATHS, own=own)
    used_seed, seed_from = _given(seed, "--seed", table["seed"] if own else OTHER_SEED, own=own)
    plan = make_plan(
        table,
        over,
        task=task,
        paths=used_paths,
        seed=used_seed,
        chunk=chunk,
        zipped=zipped,
        data_sha256=data,
        versions=versions(task),
    )
    if own:
        _require_effect(plan)
        _require_sound(plan, scenario)
    folder = out or Path(f"{scenario.stem}-sweep")
    console = stderr_console()
    tell = (lambda: None) if loaded is None else left_out_once(console, loaded)
    outcome = _with_bar(console, plan, folder, workers, tell)
    for index, reason in outcome.damaged:
        console.print(f"computed task {index} again: {reason}", highlight=False, soft_wrap=True)
    result = outcome.require_whole()
    shown = SHOWN if own and not as_json else None
    found = list(summaries(folder, columns=shown))
    if as_json:
        whence = {"paths": paths_from, "seed": seed_from}
        print(json.dumps({**record(plan, outcome, found), "taken_from": whence}))
        return
    screen = stdout_console()
    screen.print(
        f"{counted(plan.points, 'point')}, {counted(plan.paths, 'path')} each ({paths_from}), "
        f"seed {plan.seed} ({seed_from}), {counted(outcome.computed, 'task')} in {outcome.work_s:.1f} s, "
        f"{outcome.resumed:,} there before",
        soft_wrap=True,
    )
    print_whole(screen, _table(plan, found), key=len(plan.axes) + 1)
    if len(found) > _ROWS:
        screen.print(f"{len(found) - _ROWS:,} more lines: --json shows all")
    screen.print(f"{folder}: {result.rows:,} rows, sha256 {result.sha256}", soft_wrap=True)


def _given(option: int | None, name: str, otherwise: int, *, own: bool) -> tuple[int, str]:
    """Return what holds, and where it is from."""
    if option is not None:
        return option, name
    return otherwise, "the scenario's" if own else "the default"


def _scenario(file: Path, own: Scenario | None) -> tuple[dict[str, Any], dict[str, str]]:
    """Return what a sweep varies, with all defaults for our own task, and the digests of what it reads."""
    if own is None:
        return read_scenario(file), {}
    return {**full_table(own), FOLDER: str(file.resolve().parent)}, data_digests(own)


def _require_effect(plan: SweepPlan) -> None:
    """Refuse keys of a scenario that a sweep does not take from it: all of their points would be the same."""
    for axis in plan.axes:
        if axis.key in ("paths", "seed"):
            raise InputError(
                f"--over {axis.key}: no point would differ, all points of a sweep have the same {axis.key}",
                fix=f"leave it out, and give --{axis.key} to the sweep",
            )


def _require_sound(plan: SweepPlan, file: Path) -> None:
    """Refuse a sweep of which some point is no scenario, before anything runs."""
    for point in range(plan.points):
        own = plan.scenario_at(point)
        own.pop(FOLDER)
        values = ", ".join(f"{key}={value}" for key, value in plan.parameters(point).items())
        scenario = build_scenario(own, file.parent, where=f"{file.name} at {values}" if values else file.name)
        if scenario.run.weighted:
            raise InputError(
                f"{file.name}: prices have a drift_shift, and a sweep's statistics weigh no paths",
                fix="leave drift_shift out, or run marginline simulate",
            )


def read_scenario(file: Path) -> dict[str, Any]:
    """Return a scenario's tables.

    Raises
    ------
    InputError
        If the file cannot be read or is no TOML.
    """
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read scenario {file}: {error.strerror}") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{file}: is no TOML: {error}") from None


def record(plan: SweepPlan, outcome: SweepOutcome, found: Sequence[Statistics]) -> dict[str, Any]:
    """Return what ``--json`` prints."""
    result = outcome.require_whole()
    return {
        "folder": str(outcome.folder),
        "sha256": result.sha256,
        "scenario_sha256": plan.scenario_sha256,
        "paths": plan.paths,
        "seed": plan.seed,
        "versions": dict(plan.versions),
        "rows": result.rows,
        "tasks": outcome.tasks,
        "resumed": outcome.resumed,
        "computed": outcome.computed,
        "damaged": [{"task": index, "reason": reason} for index, reason in outcome.damaged],
        "start_s": outcome.start_s,
        "work_s": outcome.work_s,
        "cpu_s": outcome.cpu_s,
        "statistics": [one.record() for one in found],
    }


def _with_bar(
    console: Console, plan: SweepPlan, folder: Path, workers: int | None, tell: Callable[[], None]
) -> SweepOutcome:
    """Run a sweep with a progress bar; `tell` is called as soon as it has begun."""
    with progress_bar(console) as bar:
        line = bar.add_task("reading what is there", total=plan.tasks)

        def show(progress: Progress) -> None:
            tell()
            bar.update(
                line,
                completed=progress.done + progress.failed,
                description=progress_text(progress),
                total=progress.total,
            )

        outcome = sweep(plan, folder=folder, workers=workers, on_progress=show)
        tell()
        return outcome


def progress_text(progress: Progress) -> str:
    """Return how far a sweep is, on part of a line."""
    text = f"{progress.done:,} of {progress.total:,} tasks"
    if progress.failed:
        text += f", {progress.failed:,} failed"
    if progress.rate:
        text += f", {progress.rate:,.1f} a second"
    if progress.eta_s is not None:
        text += f", {timedelta(seconds=round(progress.eta_s))} left"
    return text


def _table(plan: SweepPlan, found: Sequence[Statistics]) -> Table:
    keys = [axis.key for axis in plan.axes]
    figures = ["mean", "± 95 %", "median", "95 %", "max", "unknown"]
    table = plain_table(*keys, "column", *figures, right=figures)
    for one in found[:_ROWS]:
        quantiles = {q.level: q.value for q in one.quantiles}
        values = (one.mean, one.high - one.mean, quantiles[0.5], quantiles[0.95], one.max)
        table.add_row(
            *(str(one.parameters[key]) for key in keys),
            column_text(one.column),
            *(figure_text(one.column, value) for value in values),
            f"{one.unknown:,}" if one.unknown else "",
        )
    return table
