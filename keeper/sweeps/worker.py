"""One process of a sweep: computes the tasks it is told, writes their parts aside, says so.

Started as ``python -m keeper.sweeps.worker`` by `keeper.sweeps.pool`, with the numbers of two pipes. Numbers
of tasks come in, a line of JSON goes out for each. Results never pass through the pipes, so neither side
holds more than one task's. When the pipe of tasks closes, whoever wanted the results is gone, and so is this
process at once; ``stop`` lets it finish the task at hand.
"""

from __future__ import annotations

import importlib
import json
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from contracts_abi.errors import InputError, MarginlineError
from simulation.backtest.parts import Columns, encode_part, part_table
from simulation.backtest.plan import SweepPlan, SweepTask
from simulation.backtest.store import StorageFull, read_plan, write_aside

STOP: Final = "stop"

_LONGEST: Final = 400


def task_function(name: str) -> Callable[[SweepTask], Columns]:
    """Return the function that ``module:function`` names.

    Raises
    ------
    InputError
        If the module cannot be imported, or has no such function.
    """
    module, _, function = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), function, None)
    except MarginlineError:
        raise
    except Exception as error:
        raise InputError(f"task: cannot import {module}: {one_line(error)}") from None
    if not callable(found):
        raise InputError(f"task: {module} has no function {function!r}")
    return found  # type: ignore[no-any-return]


def one_line(error: BaseException) -> str:
    """Return what went wrong on one line; where, unless it was said on purpose."""
    text = " ".join(str(error).split())
    if not isinstance(error, MarginlineError):
        frames = traceback.extract_tb(error.__traceback__)
        at = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
        text = f"{type(error).__name__}: {text}{at}" if text else f"{type(error).__name__}{at}"
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def answer(
    function: Callable[[SweepTask], Columns], plan: SweepPlan, folder: Path, index: int
) -> dict[str, Any]:
    """Compute one task, write its part aside, and return what to say of it."""
    cpu, wall = time.process_time(), time.perf_counter()
    try:
        task = plan.task_at(index)
        data, facts = encode_part(task, part_table(task, function(task)))
        aside = write_aside(folder, index, data, os.getpid())
    except StorageFull as error:
        return {"task": index, "full": str(error)}
    except MemoryError:
        # Others may have taken the room; in another process it may be there.
        return {"task": index, "error": "MemoryError: not enough memory", "again": True}
    except Exception as error:
        return {"task": index, "error": one_line(error)}
    return {
        "task": index,
        "aside": str(aside),
        "rows": facts.rows,
        "bytes": facts.bytes,
        "columns": dict(facts.columns),
        "cpu_s": time.process_time() - cpu,
        "wall_s": time.perf_counter() - wall,
    }


def main(tasks: int, results: int, folder: Path) -> None:
    """Serve until told to stop.

    Parameters
    ----------
    tasks, results
        File descriptors of the pipes.
    folder
        Of the sweep.
    """
    # A terminal's Ctrl-C is for the sweep, which then lets the workers finish or ends them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    waiting: queue.SimpleQueue[int | None] = queue.SimpleQueue()
    stopping = threading.Event()
    threading.Thread(target=_listen, args=(tasks, waiting, stopping), daemon=True).start()
    try:
        plan = read_plan(folder)
        function = task_function(plan.task)
    except MarginlineError as error:
        _say(results, {"refused": str(error)})
        return
    _use_one_thread()
    _say(results, {"ready": os.getpid()})
    for index in iter(waiting.get, None):
        if stopping.is_set():
            break
        _say(results, answer(function, plan, folder, index))


def _listen(tasks: int, waiting: queue.SimpleQueue[int | None], stopping: threading.Event) -> None:
    with os.fdopen(tasks) as lines:
        for line in lines:
            if line.strip() == STOP:
                stopping.set()
                waiting.put(None)
            else:
                for word in line.split():
                    waiting.put(int(word))
    os._exit(0)  # nobody is there to take a result


def _say(results: int, message: dict[str, Any]) -> None:
    data = json.dumps(message).encode() + b"\n"
    try:
        while data:
            data = data[os.write(results, data) :]
    except BrokenPipeError:
        os._exit(0)


def _use_one_thread() -> None:
    """Keep Arrow's pools small; BLAS, OpenMP and numba read the environment that the pool set."""
    import pyarrow as pa

    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
    os._exit(0)  # all is said, and the thread that listens would only be in the way of an orderly end
