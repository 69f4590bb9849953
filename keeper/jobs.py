"""Periodic work beside the head-driven loop: audit sweep, balance check, report.

APScheduler's defaults lose jobs: one that starts more than a second late is skipped without a word. Here a
late job still runs (once, however many of its times have passed), never beside itself, and everything that
goes wrong is counted. Nothing that decides or sends runs here.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

from apscheduler.events import (
    EVENT_JOB_ERROR,
    EVENT_JOB_EXECUTED,
    EVENT_JOB_MAX_INSTANCES,
    EVENT_JOB_MISSED,
)
from apscheduler.schedulers.background import BackgroundScheduler

from keeper.clock import Clock


@dataclass(slots=True)
class JobCounts:
    """What became of a job's times.

    Attributes
    ----------
    runs
        Ended well.
    errors
        Ended with an exception.
    missed
        Not run at all; with these settings always 0.
    overruns
        Skipped because the run before was still going.
    """

    runs: int = 0
    errors: int = 0
    missed: int = 0
    overruns: int = 0


class Jobs:
    """A scheduler for periodic work in background threads.

    Parameters
    ----------
    on_error
        Told the job's name and the exception when a job fails; must not raise.
    threads
        Jobs that may run at a time.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        on_error: Callable[[str, BaseException], None] = lambda name, error: None,
        threads: int = 2,
    ) -> None:
        # The library logs a traceback for each failure; ours is one line from `on_error`.
        logger = logging.getLogger("apscheduler")
        logger.addHandler(logging.NullHandler())
        logger.propagate = False
        self._clock = clock
        self._on_error = on_error
        self._counts: dict[str, JobCounts] = {}
        self._mutex = threading.Lock()
        self._scheduler = BackgroundScheduler(
            timezone=UTC,
            job_defaults={"misfire_grace_time": None, "coalesce": True, "max_instances": 1},
            executors={"default": {"type": "threadpool", "max_workers": threads}},
            daemon=True,
        )
        self._scheduler.add_listener(
            self._heard, EVENT_JOB_EXECUTED | EVENT_JOB_ERROR | EVENT_JOB_MISSED | EVENT_JOB_MAX_INSTANCES
        )

    def every(
        self, name: str, seconds: float, function: Callable[[], None], *, at_once: bool = False
    ) -> None:
        """Run `function` every `seconds`, the first time after that long or at once."""
        self._counts[name] = JobCounts()
        first = {"next_run_time": datetime.fromtimestamp(self._clock.now(), UTC)} if at_once else {}
        self._scheduler.add_job(function, "interval", seconds=seconds, id=name, **first)

    def counts(self) -> dict[str, JobCounts]:
        """Return the counters by job name."""
        with self._mutex:
            return {name: replace(counts) for name, counts in self._counts.items()}

    def start(self) -> None:
        """Start the threads."""
        self._scheduler.start()

    def stop(self) -> None:
        """Start no more jobs and wait for those that are running."""
        if self._scheduler.running:
            self._scheduler.shutdown(wait=True)

    def __enter__(self) -> Jobs:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _heard(self, event: Any) -> None:
        with self._mutex:
            counts = self._counts[event.job_id]
            counts.runs += event.code == EVENT_JOB_EXECUTED
            counts.errors += event.code == EVENT_JOB_ERROR
            counts.missed += event.code == EVENT_JOB_MISSED
            counts.overruns += event.code == EVENT_JOB_MAX_INSTANCES
        if event.code == EVENT_JOB_ERROR:
            self._on_error(event.job_id, event.exception)
