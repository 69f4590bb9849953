"""Measure a sweep's worker processes: how much of the cores goes into tasks of 25 ms, and the standard pools.

Efficiency is the processor time that the tasks themselves took, divided by workers times the time from the
first ready worker to the last result. Per idle core it is divided by the cores that other processes left
free, where those were fewer than the workers. The standard pools send results back and keep nothing; the
sweep writes each as a Parquet file and syncs it, and could be killed at any moment.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from _common import Headline, Report, Summary, busy_jiffies, parser, ratios, run, table

from keeper.sweeps.run import sweep
from simulation.backtest.plan import SweepPlan, SweepTask, make_plan
from simulation.backtest.store import read

SWEEP, POOL, EXECUTOR = "sweep", "multiprocessing.Pool", "ProcessPoolExecutor"

Turn = tuple[float, float, float, np.ndarray[Any, Any]]
"""Seconds to start, seconds of work, processor seconds of the tasks, values in the order of tasks."""


def burn(rounds: int, path: int) -> tuple[int, float]:
    """Return a number that takes `rounds` steps to find, and the processor time it took."""
    begun = time.process_time()
    value = path + 1
    for _ in range(rounds):
        value = value * 6_364_136_223_846_793_005 + 1_442_695_040_888_963_407 & 0xFFFF_FFFF_FFFF_FFFF
    return value >> 1, time.process_time() - begun


def burn_task(task: SweepTask) -> dict[str, Any]:
    """Return the same as columns of a sweep."""
    made = [burn(task.scenario["rounds"], path) for path in task.paths]
    return {"value": np.array([m[0] for m in made]), "cpu_s": np.array([m[1] for m in made])}


def burn_pair(given: tuple[int, int]) -> tuple[int, float]:
    """Return the same for the standard pools, which take one argument."""
    return burn(*given)


def rounds_of(milliseconds: float) -> int:
    """Return how many rounds take so long on this machine at this moment."""
    cpu = min(burn(20_000, i)[1] for i in range(7))
    return max(1, round(20_000 * milliseconds / 1e3 / cpu))


def sweep_turn(plan: SweepPlan, workers: int) -> Turn:
    """Run one sweep into a folder that goes afterwards."""
    with tempfile.TemporaryDirectory(prefix="marginline-bench-sweep-") as folder:
        outcome = sweep(plan, folder=Path(folder), workers=workers)
        outcome.require_whole()
        rows = read(Path(folder))
        taken = sum(rows["cpu_s"].to_pylist())
        return outcome.start_s, outcome.work_s, taken, np.array(rows["value"].to_pylist())


def pool_turn(given: list[tuple[int, int]], workers: int) -> Turn:
    """Run the tasks in a pool whose workers are ready before the clock starts."""
    begun = time.perf_counter()
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        pool.map(burn_pair, [(1, 0)] * workers, chunksize=1)
        ready = time.perf_counter()
        made = pool.map(burn_pair, given, chunksize=1)
        done = time.perf_counter()
        pool.close()
        pool.join()
    return ready - begun, done - ready, sum(m[1] for m in made), np.array([m[0] for m in made])


def executor_turn(given: list[tuple[int, int]], workers: int) -> Turn:
    """Run the tasks in an executor whose workers are ready before the clock starts."""
    begun = time.perf_counter()
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        list(pool.map(burn_pair, [(1, 0)] * workers))
        ready = time.perf_counter()
        made = list(pool.map(burn_pair, given))
        done = time.perf_counter()
    return ready - begun, done - ready, sum(m[1] for m in made), np.array([m[0] for m in made])


def own_cpu() -> float:
    """Return the processor seconds of this process and of all that ended under it."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def observed(work: Callable[[], Turn]) -> tuple[Turn, float]:
    """Run one turn; returns it and the cores that others left free, all where the system does not tell."""
    busy, cpu, begun = busy_jiffies(), own_cpu(), time.perf_counter()
    turn = work()
    after, elapsed = busy_jiffies(), time.perf_counter() - begun
    cores = float(os.cpu_count() or 1)
    if busy is None or after is None:
        return turn, cores
    others = (after - busy) / os.sysconf("SC_CLK_TCK") - (own_cpu() - cpu)
    return turn, cores - max(0.0, others / elapsed)


def measure(tasks: int, milliseconds: float, counts: Sequence[int], turns: int) -> Report:
    """Let the pools take turns at the same tasks with each number of workers."""
    rounds = rounds_of(milliseconds)
    plan = make_plan({"rounds": rounds}, task="bench_sweep:burn_task", paths=tasks, chunk=1, seed=0)
    given = [(rounds, path) for path in range(tasks)]
    figures: dict[str, Any] = {"tasks": tasks, "milliseconds": milliseconds, "rounds": rounds, "workers": {}}
    headlines = []
    shown = table(
        f"{tasks} tasks of about {milliseconds:g} ms", "", "efficiency", "per idle core", "start s", "ms/task"
    )
    answer: np.ndarray[Any, Any] | None = None
    for workers in counts:
        contestants: dict[str, Callable[[], Turn]] = {
            SWEEP: lambda workers=workers: sweep_turn(plan, workers),
            POOL: lambda workers=workers: pool_turn(given, workers),
            EXECUTOR: lambda workers=workers: executor_turn(given, workers),
        }
        seen: dict[str, list[tuple[Turn, float]]] = {name: [] for name in contestants}
        for _ in range(turns):
            for name, work in contestants.items():
                one, free = observed(work)
                answer = one[3] if answer is None else answer
                if not np.array_equal(one[3], answer):
                    raise SystemExit(f"{name} with {workers} workers has other results")
                seen[name].append((one, free))
        found: dict[str, Any] = {}
        for name, entries in seen.items():
            plain = [cpu / (workers * wall) for (_, wall, cpu, _), _ in entries]
            idle = [cpu / (max(0.1, min(workers, free)) * wall) for (_, wall, cpu, _), free in entries]
            made = {
                "efficiency": Summary.of(plain),
                "per_idle_core": Summary.of(idle),
                "start_s": Summary.of([start for (start, *_), _ in entries]),
                "task_ms": Summary.of([cpu / tasks * 1e3 for (_, _, cpu, _), _ in entries]),
                "free_cores": Summary.of([free for _, free in entries]),
            }
            found[name] = {key: asdict(value) for key, value in made.items()}
            cells = [made[key].text(2) for key in ("efficiency", "per_idle_core", "start_s", "task_ms")]
            shown.add_row(f"{name}, {workers} worker{'s' * (workers > 1)}", *cells)
        walls = {name: [wall for (_, wall, *_), _ in entries] for name, entries in seen.items()}
        against = {name: ratios(walls[name], walls[SWEEP]) for name in (POOL, EXECUTOR)}
        found["ratios"] = {name: asdict(ratio) for name, ratio in against.items()}
        figures["workers"][str(workers)] = found
        cores = "1 idle core" if workers == 1 else f"{workers} idle cores"
        headlines.append(
            Headline(
                f"sweep of {milliseconds:g} ms tasks: share of {cores} that computes",
                Summary(**found[SWEEP]["per_idle_core"]),
                "of 1",
                at_least=0.9,
                note=f"{against[POOL].text(2)} x {POOL}, {against[EXECUTOR].text(2)} x {EXECUTOR}; "
                f"{found[SWEEP]['free_cores']['median']:.1f} free cores",
            )
        )
    return Report(tuple(headlines), figures, (shown,))


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, measure, report."""
    options = parser(__doc__)
    options.add_argument("--tasks", type=int, default=200)
    options.add_argument("--milliseconds", type=float, default=25.0, help="processor time of a task")
    options.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    given = options.parse_args(arguments)
    if given.quick:
        given.tasks, given.milliseconds, given.workers, given.turns = 8, 1.0, [1, 2], 1
    run("sweep", lambda: measure(given.tasks, given.milliseconds, given.workers, given.turns), given.json)


if __name__ == "__main__":
    main()
