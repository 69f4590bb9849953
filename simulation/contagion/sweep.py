"""The task of a sweep: some paths of a scenario at one point of its parameters."""

from __future__ import annotations

import functools
import json
from pathlib import Path

from simulation.backtest.plan import SweepTask
from simulation.contagion.engine import run_paths
from simulation.contagion.metrics import path_columns
from simulation.contagion.scenario import Scenario, build_scenario
from simulation.types import Float64

FOLDER = "folder"
"""Key of a task's scenario that says where its files are; it is no part of the scenario itself."""
VARIANT, VARIANTS = "variant", "variants"
"""Keys of which variant a task runs, and of what each variant changes; none of the scenario itself."""


def sweep_task(task: SweepTask) -> dict[str, Float64]:
    """Run the paths of a task; one array of shape (P,) a column, see `path_columns`."""
    scenario = _scenario(json.dumps(task.scenario, sort_keys=True))
    results = run_paths(scenario.run, task.seed, task.first_path, len(task.paths))
    columns = path_columns(results, scenario.run.dt_s)
    del columns["path"]
    return columns


@functools.lru_cache(maxsize=4)
def _scenario(table: str) -> Scenario:
    """Return a scenario; chunks of one point share it within a worker."""
    own = json.loads(table)
    folder = Path(own.pop(FOLDER, "."))
    over = own.pop(VARIANTS, {}).get(own.pop(VARIANT, None), {})
    return build_scenario(own, folder, over)
