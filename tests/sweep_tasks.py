"""Models for tests of sweeps, good and bad; workers import them by name. Not a test.

What a model does wrong is in its scenario, so that it does it in the worker; a file that it makes first lets
it do so once only.
"""

from __future__ import annotations

import os
import resource
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from contracts_abi.errors import InputError
from keeper.sweeps.pool import ONE_THREAD
from simulation.backtest.plan import SweepTask

SCENARIO: dict[str, Any] = {
    "market": {"shock": 0.1, "days": 3, "model": "gbm", "frozen": False},
    "protocols": [{"name": "aave-v3", "close_factor": 0.5}],
    "play": {"kill": -1, "once": "", "slow_s": 0.0, "fail": -1, "limit": -1, "odd": -1},
}


def losses(task: SweepTask) -> dict[str, Any]:
    """Return a loss per path that depends on the point and on the path, not on the chunk."""
    market = task.scenario["market"]
    drawn = np.array([np.random.default_rng([task.seed, path]).standard_normal() for path in task.paths])
    return {
        "loss": np.maximum(0.0, market["shock"] * market["days"] + drawn),
        "liquidated": (drawn > 0.5).astype(np.int64),
        "spiral": drawn > 1.5,
        "cause": ["price" if value > 0 else "none" for value in drawn],
    }


def playing(task: SweepTask) -> dict[str, Any]:
    """Do what the scenario's ``play`` says at the tasks it names, then compute `losses`."""
    play = task.scenario["play"]
    if play["slow_s"]:
        _first(play["once"])  # says that it began
        time.sleep(play["slow_s"])
    if task.index == play["kill"] and _first(play["once"]):
        os.kill(os.getpid(), signal.SIGKILL)
    if task.index == play["fail"]:
        raise InputError("close_factor: must be at most 1, got 1.5", fix="choose 0 to 1")
    if play["limit"] >= 0 and task.index >= play["limit"] and not _exists(play["once"]):
        # The system's own refusal to write, without a disk to fill.
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
    made = losses(task)
    return made | {"more": np.zeros(len(task.paths))} if task.index == play["odd"] else made


def always_wrong(task: SweepTask) -> dict[str, Any]:
    """Raise what nobody meant to."""
    return {"loss": [1.0 / (task.index - task.index)]}


def threads(task: SweepTask) -> dict[str, Any]:
    """Return how many libraries were told to use one thread, and what Arrow makes of it."""
    told = sum(os.environ.get(name) == "1" for name in ONE_THREAD)
    return {"told": [told] * len(task.paths), "arrow": [pa.cpu_count()] * len(task.paths)}


def _exists(name: str) -> bool:
    return bool(name) and Path(name).exists()


def _first(name: str) -> bool:
    """Return whether this is the first time, by a file; without one it always is."""
    if not name:
        return True
    try:
        Path(name).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True
