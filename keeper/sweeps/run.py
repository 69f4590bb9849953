"""A sweep from its plan to its result: hand out what is missing, keep what comes, survive what goes wrong.

This process computes nothing and holds no results. Workers write parts aside; it syncs them, gives them their
names, and says how far things are. So whatever stops it, only tasks at hand are lost, and the same call takes
the folder up again.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from contracts_abi.errors import CheckFailed, InputError, MarginlineError, ToolError
from keeper.clock import Clock, SystemClock
from keeper.sweeps.pool import Heard, Pool, Worker, death
from simulation.backtest.plan import SweepPlan
from simulation.backtest.store import (
    PARTS,
    Scan,
    StorageFull,
    SweepResult,
    commit,
    finish,
    full_message,
    opened,
    remove_unfinished,
    scan,
    sync_folder,
)

GRACE_S: Final = 1.0
"""How long tasks at hand may go on after an interruption."""

TRIES: Final = 2
"""How often a task may lose its worker."""

HOPELESS: Final = 20
"""So many failures without a success end a sweep."""

_AHEAD_S: Final = 0.05
_MOST_AHEAD: Final = 64


class SweepInterrupted(MarginlineError):
    """Somebody stopped a sweep; what was finished is on disk."""

    exit_code = 130


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a sweep is.

    Attributes
    ----------
    done, failed, total
        Tasks; those of earlier runs count as done.
    resumed
        Tasks of earlier runs.
    rate
        Tasks per second of this run, 0 before the first.
    eta_s
        Seconds left at that rate; None while that is unknown.
    """

    done: int
    failed: int
    total: int
    resumed: int
    rate: float
    eta_s: float | None


@dataclass(frozen=True, slots=True)
class TaskFailure:
    """A task without a result.

    Attributes
    ----------
    index
        Its number.
    name
        Its parameters and paths.
    reason
        Why, on one line.
    """

    index: int
    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class SweepOutcome:
    """What a run of a sweep came to.

    Attributes
    ----------
    folder
        Where it is.
    tasks
        How many there are.
    resumed, computed
        How many were there, and how many this run added.
    damaged
        Task and reason of parts that were found and did not count.
    failed
        Tasks that have no result, by number.
    interrupted
        Whether a signal ended it.
    given_up
        Whether it stopped because nothing succeeded.
    result
        Digest and size of the whole; None while something is missing.
    cpu_s
        Processor time of this run's tasks, parts included.
    start_s, work_s
        Seconds until a worker was ready, and from there until the last part was kept.
    """

    folder: Path
    tasks: int
    resumed: int
    computed: int
    damaged: tuple[tuple[int, str], ...]
    failed: tuple[TaskFailure, ...]
    interrupted: bool
    given_up: bool
    result: SweepResult | None
    cpu_s: float
    start_s: float
    work_s: float

    def require_whole(self) -> SweepResult:
        """Return the result.

        Raises
        ------
        SweepInterrupted
            If a signal ended the run; exit code 130.
        CheckFailed
            If tasks failed; exit code 1. Names the first of them.
        """
        if self.result is not None:
            return self.result
        safe = f"{self.resumed + self.computed:,} of {self.tasks:,} tasks are safe in {self.folder}"
        again = "run the same command again"
        if self.interrupted:
            failed = f", {len(self.failed):,} failed" if self.failed else ""
            raise SweepInterrupted(f"interrupted: {safe}{failed}", fix=f"{again} to go on")
        first, more = self.failed[0], len(self.failed) - 1
        others = f" and {more:,} more" if more else ""
        gave_up = ", and none succeeded" if self.given_up else ""
        raise CheckFailed(
            f"{first.name} failed{others}{gave_up}: {first.reason}; {safe}", fix=f"{again} to try the rest"
        )


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def sweep(
    plan: SweepPlan,
    *,
    folder: Path,
    workers: int | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    clock: Clock | None = None,
) -> SweepOutcome:
    """Compute what a folder lacks of a plan, in processes, and return what it came to.

    Equal plans give equal results with any number of workers and after any interruption. SIGINT and SIGTERM
    end it: tasks at hand have a second, a second signal ends them at once. A task whose worker dies is tried
    again in another one; a task that raises is not.

    Parameters
    ----------
    plan
        What to compute; its ``task`` names the function.
    folder
        Where parts go; made if it is not there, taken up if it has the same plan.
    workers
        Processes; as many as cores without it.
    on_progress
        Called in this thread when parts were kept; often, so it should be quick.

    Raises
    ------
    InputError
        If the folder has another plan or is in use, or the function cannot be imported.
    StorageFull
        If there is no room; what was finished stays, and the same call goes on.
    ToolError
        If no worker starts.
    """
    count = cores() if workers is None else workers
    if count < 1:
        raise InputError(f"workers: must be at least 1, got {count}")
    clock = clock or SystemClock()
    with opened(folder, plan):
        found = scan(folder, plan)
        run = _Run(plan, folder, found, on_progress or (lambda _: None), clock)
        if run.left:
            with _signals() as signals, Pool(folder, wake=signals.wake) as pool:
                run.drive(pool, min(count, run.left), signals)
        remove_unfinished(folder)
        if run.full:
            raise full_message(folder, run.kept, plan.tasks, run.bytes)
        if run.kept < plan.tasks:
            return run.outcome(None)
        return run.outcome(finish(folder, plan))


class _Signals:
    """SIGINT and SIGTERM as a count and a pipe that wakes a selector."""

    def __init__(self, wake: int, ring: int) -> None:
        self.wake, self._ring = wake, ring
        self.count = 0

    def __call__(self, number: int, frame: object) -> None:
        self.count += 1
        with contextlib.suppress(BlockingIOError):
            os.write(self._ring, b".")


@contextlib.contextmanager
def _signals() -> Iterator[_Signals]:
    """Count signals instead of dying of them; outside the main thread there are none to count."""
    wake, ring = os.pipe()
    os.set_blocking(ring, False)
    signals = _Signals(wake, ring)
    before = {}
    try:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                before[number] = signal.signal(number, signals)
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(wake)
        os.close(ring)


class _Run:
    """One run over what a folder lacks."""

    def __init__(
        self, plan: SweepPlan, folder: Path, found: Scan, report: Callable[[Progress], None], clock: Clock
    ) -> None:
        self._plan, self._folder, self._report, self._clock = plan, folder, report, clock
        self._found = found
        self._columns = found.columns
        self.resumed = self.kept = sum(found.done)
        self.bytes = found.bytes
        self.left = plan.tasks - self.kept
        """Tasks that no worker holds and that are neither kept nor failed."""
        self._missing = (index for index, done in enumerate(found.done) if not done)
        self._again: deque[int] = deque()
        self._lost: dict[int, int] = {}
        self._failed: dict[int, str] = {}
        self._stopping = False
        self._interrupted = False
        self.full = False
        self._cpu_s = self._task_wall_s = 0.0
        self._begun = clock.monotonic()
        self._first_ready: float | None = None
        self._last_kept = self._begun
        self._early_deaths = 0

    def drive(self, pool: Pool, workers: int, signals: _Signals) -> None:
        """Work until nothing is left, or something ends it."""
        self._report(self._progress())
        for _ in range(workers):
            pool.start()
        deadline: float | None = None
        while pool.workers and (self._stopping or self.left or any(w.held for w in pool.workers)):
            if signals.count and not self._interrupted:
                self._interrupted = self._stopping = True
            if self._stopping and deadline is None:
                deadline = self._clock.monotonic() + GRACE_S
                pool.stop()
            left_s = None if deadline is None else deadline - self._clock.monotonic()
            if signals.count > 1 or (left_s is not None and left_s <= 0):
                return
            before = self.kept + len(self._failed)
            for heard in pool.wait(left_s):
                self._hear(pool, heard)
            if self.kept + len(self._failed) > before:
                self._sync_names()
                self._report(self._progress())
            if not self._stopping:
                # Also where nothing was heard from: a dead worker's tasks are for whoever has least.
                for worker in sorted(pool.workers, key=lambda w: len(w.held)):
                    self._feed(pool, worker)

    def outcome(self, result: SweepResult | None) -> SweepOutcome:
        """Return what this run came to."""
        failed = tuple(
            TaskFailure(index, self._plan.task_at(index).name, reason)
            for index, reason in sorted(self._failed.items())
        )
        begun = self._begun if self._first_ready is None else self._first_ready
        return SweepOutcome(
            folder=self._folder,
            tasks=self._plan.tasks,
            resumed=self.resumed,
            computed=self.kept - self.resumed,
            damaged=self._found.damaged,
            failed=failed,
            interrupted=self._interrupted,
            given_up=self._hopeless,
            result=result,
            cpu_s=self._cpu_s,
            start_s=begun - self._begun,
            work_s=max(0.0, self._last_kept - begun),
        )

    @property
    def _hopeless(self) -> bool:
        return len(self._failed) >= HOPELESS and self.kept == self.resumed

    # ------------------------------------------------------------------------------------------ hand out

    def _feed(self, pool: Pool, worker: Worker) -> None:
        """Fill up what a worker has ahead of it: some 50 ms of work, and less when all comes to its end."""
        computed = self.kept - self.resumed
        mean_s = self._task_wall_s / computed if computed else math.inf
        ahead = 1 + min(_MOST_AHEAD, math.ceil(_AHEAD_S / max(mean_s, 1e-6)))
        fair = math.ceil(self.left / (2 * max(1, len(pool.workers))))
        want = min(ahead, max(1, fair))
        # Filled up when half is gone, so that many small tasks are told on one line.
        if worker.ready and self.left and len(worker.held) <= want // 2:
            pool.give(worker, self._take(want - len(worker.held)))

    def _take(self, most: int) -> list[int]:
        taken: list[int] = []
        while len(taken) < most and self.left:
            taken.append(self._again.popleft() if self._again else next(self._missing))
            self.left -= 1
        return taken

    def _give_back(self, indexes: Sequence[int]) -> None:
        self._again.extendleft(reversed(indexes))
        self.left += len(indexes)

    # ---------------------------------------------------------------------------------------------- hear

    def _hear(self, pool: Pool, heard: Heard) -> None:
        message = heard.message
        if message is None:
            self._mourn(pool, heard.worker)
        elif "refused" in message:
            raise InputError(message["refused"])
        elif "ready" in message:
            if self._first_ready is None:
                self._first_ready = self._clock.monotonic()
        elif "aside" in message:
            self._keep(message)
        elif "full" in message:
            self._no_room(message["task"])
        elif message.get("again"):
            self._try_again(message["task"], message["error"])
        else:
            self._fail(message["task"], message["error"])

    def _keep(self, message: dict[str, Any]) -> None:
        index, aside, columns = message["task"], Path(message["aside"]), message["columns"]
        self._columns = self._columns or columns
        if list(self._columns.items()) != list(columns.items()):
            aside.unlink(missing_ok=True)
            named = [f"{name} {kind}" for name, kind in columns.items() if self._columns.get(name) != kind]
            missing = [f"no {name}" for name in self._columns if name not in columns]
            self._fail(index, f"its columns are not those of other tasks: {', '.join([*named, *missing])}")
            return
        try:
            commit(self._folder, index, aside)
        except StorageFull:
            self._no_room(index)
            return
        self.kept += 1
        self._last_kept = self._clock.monotonic()
        self.bytes += message["bytes"]
        self._cpu_s += message["cpu_s"]
        self._task_wall_s += message["wall_s"]

    def _sync_names(self) -> None:
        try:
            sync_folder(self._folder / PARTS)
        except StorageFull:  # the parts are there; whoever resumes finds those that last
            self.full = self._stopping = True

    def _no_room(self, index: int) -> None:
        self._give_back([index])
        self.full = self._stopping = True

    def _fail(self, index: int, reason: str) -> None:
        self._failed[index] = reason
        if self._hopeless:
            self._stopping = True

    def _try_again(self, index: int, reason: str) -> None:
        self._lost[index] = self._lost.get(index, 0) + 1
        if self._lost[index] < TRIES:
            self._give_back([index])
        else:
            self._fail(index, f"{reason}, {TRIES} times")

    def _mourn(self, pool: Pool, worker: Worker) -> None:
        """Take back what a dead worker held, and start another in its place."""
        if self._stopping:
            self._give_back(worker.held)
            return
        if not worker.ready:
            self._early_deaths += 1
            if self._early_deaths > TRIES:
                raise ToolError(
                    f"workers die while they start: {death(worker)}", fix="see what they wrote above"
                )
        if worker.held:
            at, *others = worker.held
            self._give_back(others)
            self._try_again(at, death(worker))
        if self.left and (self.left > len(pool.workers) or not pool.workers):
            pool.start()

    def _progress(self) -> Progress:
        computed = self.kept - self.resumed
        since = self._clock.monotonic() - (self._begun if self._first_ready is None else self._first_ready)
        rate = computed / since if computed and since > 0 else 0.0
        open_ = self._plan.tasks - self.kept - len(self._failed)
        return Progress(
            done=self.kept,
            failed=len(self._failed),
            total=self._plan.tasks,
            resumed=self.resumed,
            rate=rate,
            eta_s=open_ / rate if rate else None,
        )
