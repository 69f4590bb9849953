"""Worker processes of a sweep: start them, hand out numbers of tasks, hear what became of them.

The standard pools do not fit. ``multiprocessing.Pool`` waits for ever for a task whose worker was killed, and
``ProcessPoolExecutor`` then gives up all of them. Here each worker has pipes of its own and takes its tasks
in order, so it is known which task a dead one was at, and that the others it held are not to blame.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from contracts_abi.errors import ToolError
from keeper.sweeps.worker import STOP

ONE_THREAD: Final = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMBA_NUM_THREADS",
)
"""Read by libraries when they load; a worker is one core's."""


@dataclass(eq=False, slots=True)
class Worker:
    """A process and what it was given.

    Attributes
    ----------
    process
        The process.
    tasks, results
        Our ends of its pipes.
    held
        Tasks it was given and has not answered; it is at the first.
    ready
        Whether it has loaded what it needs.
    """

    process: subprocess.Popen[bytes]
    tasks: int
    results: int
    held: deque[int] = field(default_factory=deque)
    ready: bool = False
    heard: bytes = b""


@dataclass(frozen=True, slots=True)
class Heard:
    """Something that a worker said, or that it died.

    Attributes
    ----------
    worker
        Which.
    message
        What it said; None when it is gone.
    """

    worker: Worker
    message: dict[str, Any] | None


class Pool:
    """The processes that work on one folder; use it as a context, which ends them all.

    Attributes
    ----------
    workers
        Those that live.
    """

    def __init__(self, folder: Path, *, wake: int) -> None:
        self._folder = folder
        self._wake = wake
        self._selector = selectors.DefaultSelector()
        self._selector.register(wake, selectors.EVENT_READ)
        self.workers: list[Worker] = []

    def __enter__(self) -> Pool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in list(self.workers):
            worker.process.kill()
            self._bury(worker)
        self._selector.close()

    def start(self) -> None:
        """Start one more worker.

        Raises
        ------
        ToolError
            If the system has no room for it.
        """
        tasks_in, tasks_out = os.pipe()
        results_in, results_out = os.pipe()
        command = [sys.executable, "-P", "-m", "keeper.sweeps.worker", str(tasks_in), str(results_out)]
        try:
            process = subprocess.Popen(
                [*command, str(self._folder)],
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # what a model prints is no part of a command's answer
                pass_fds=(tasks_in, results_out),
                start_new_session=True,  # signals of the terminal are ours
            )
        except OSError as error:
            for end in (tasks_out, results_in):
                os.close(end)
            raise ToolError(f"cannot start a worker: {error.strerror}", fix="use fewer --workers") from None
        finally:
            os.close(tasks_in)
            os.close(results_out)
        worker = Worker(process, tasks_out, results_in)
        self.workers.append(worker)
        self._selector.register(results_in, selectors.EVENT_READ, worker)

    def give(self, worker: Worker, indexes: Sequence[int]) -> None:
        """Let a worker compute tasks after those it has."""
        worker.held.extend(indexes)
        self._tell(worker, " ".join(map(str, indexes)))

    def stop(self) -> None:
        """Let every worker finish the task at hand and go; those that are not at one go now."""
        for worker in self.workers:
            self._tell(worker, STOP)

    def wait(self, timeout_s: float | None) -> Iterator[Heard]:
        """Yield what is heard until now, or within a time when nothing was."""
        for key, _ in self._selector.select(timeout_s):
            if key.fd == self._wake:
                os.read(self._wake, 4096)
                continue
            worker: Worker = key.data
            data = os.read(worker.results, 1 << 16)
            *lines, worker.heard = (worker.heard + data).split(b"\n")
            for line in lines:
                message = json.loads(line)
                if "task" in message:
                    worker.held.remove(message["task"])
                worker.ready = worker.ready or "ready" in message
                yield Heard(worker, message)
            if not data:
                self._bury(worker)
                yield Heard(worker, None)

    def _tell(self, worker: Worker, line: str) -> None:
        with contextlib.suppress(BrokenPipeError):  # it died; its other pipe says so
            os.write(worker.tasks, f"{line}\n".encode())

    def _bury(self, worker: Worker) -> None:
        self._selector.unregister(worker.results)
        self.workers.remove(worker)
        os.close(worker.tasks)
        os.close(worker.results)
        try:
            worker.process.wait(timeout=5)
        except subprocess.TimeoutExpired:  # it closed its pipe and went on
            worker.process.kill()
            worker.process.wait()


def death(worker: Worker) -> str:
    """Return how a worker came to its end."""
    code = worker.process.returncode
    if code is None or code >= 0:
        return f"its worker exited with code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    hint = ", perhaps for want of memory" if -code == signal.SIGKILL else ""
    return f"its worker was killed by {name}{hint}"


def _environment() -> dict[str, str]:
    """Return the environment of a worker: one thread, and modules from where this process has them."""
    path = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)
    return os.environ | dict.fromkeys(ONE_THREAD, "1") | {"PYTHONPATH": path}
