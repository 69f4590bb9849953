"""Sweeps of the contagion engine: the same digest with any number of workers and after an interruption."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keeper.sweeps.run import Progress, sweep
from simulation.backtest.parts import content_sha256, part_table
from simulation.backtest.plan import SweepPlan, make_plan
from simulation.backtest.store import read
from simulation.contagion.engine import run_paths
from simulation.contagion.metrics import path_columns
from simulation.contagion.scenario import full_table, load_scenario
from simulation.contagion.sweep import FOLDER, sweep_task

pytestmark = pytest.mark.faults
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SCENARIO = EXAMPLES / "verify-morpho.toml"


def plan_of(chunk: int = 6, **over: Any) -> SweepPlan:
    """Return the sweep of a shock's size with the real task: 2 points of 12 paths, 4 tasks."""
    table = full_table(load_scenario(SCENARIO, dict(over))) | {FOLDER: str(EXAMPLES)}
    return make_plan(
        table,
        ["shocks.0.move=-0.05,-0.2"],
        task="simulation.contagion.sweep:sweep_task",
        paths=12,
        seed=5,
        chunk=chunk,
        data_sha256={},
        versions={},
    )


@pytest.fixture(scope="module")
def calm() -> str:
    """Return the digest without any pool."""
    plan = plan_of()
    tasks = [plan.task_at(index) for index in range(plan.tasks)]
    return content_sha256(part_table(task, sweep_task(task)) for task in tasks)


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_any_number_of_workers_gives_the_same_digest(tmp_path: Path, calm: str, workers: int) -> None:
    assert sweep(plan_of(), folder=tmp_path / "out", workers=workers).require_whole().sha256 == calm


def test_an_interrupted_sweep_goes_on_to_the_same_digest(tmp_path: Path, calm: str) -> None:
    def interrupt(progress: Progress) -> None:
        if progress.done == 1:
            os.kill(os.getpid(), signal.SIGINT)

    first = sweep(plan_of(), folder=tmp_path / "out", workers=2, on_progress=interrupt)
    assert first.interrupted
    kept = len(list((tmp_path / "out" / "parts").glob("*.parquet")))
    assert 1 <= kept < 4
    again = sweep(plan_of(), folder=tmp_path / "out", workers=4)
    assert again.resumed == kept
    assert again.require_whole().sha256 == calm


def test_what_a_sweep_keeps_is_what_the_engine_says(tmp_path: Path) -> None:
    sweep(plan_of(chunk=7), folder=tmp_path / "out", workers=1)
    for point, move in enumerate((-0.05, -0.2)):
        run = load_scenario(SCENARIO, {"shocks.0.move": move}).run
        whole = path_columns(run_paths(run, 5, 0, 12), run.dt_s)
        table = read(tmp_path / "out", points=[point])
        for name in set(table.column_names) - {"point", "path"}:
            np.testing.assert_array_equal(table[name].to_numpy(), whole[name], err_msg=name)
        assert whole["liquidations"].sum() > 0
