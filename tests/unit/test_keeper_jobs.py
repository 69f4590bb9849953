"""Periodic jobs: run when they are late, never beside themselves, and counted when they fail."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from keeper.clock import SystemClock
from keeper.jobs import JobCounts, Jobs


def wait_for(condition: Callable[[], bool], limit_s: float = 10.0) -> None:
    end = time.monotonic() + limit_s
    turn = threading.Event()
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        turn.wait(0.01)


def test_job_runs_again_and_again() -> None:
    done = threading.Semaphore(0)
    with Jobs(SystemClock()) as jobs:
        jobs.every("audit", 0.05, lambda: done.release())
        assert done.acquire(timeout=10)
        assert done.acquire(timeout=10)
        wait_for(lambda: jobs.counts()["audit"].runs >= 2)
    assert jobs.counts()["audit"].missed == 0


def test_first_run_can_be_at_once() -> None:
    done = threading.Event()
    with Jobs(SystemClock()) as jobs:
        jobs.every("report", 3_600, done.set, at_once=True)
        assert done.wait(10)


def test_late_job_still_runs() -> None:
    """A stall over several of its times costs no run; the library's default would skip it."""
    done = threading.Event()
    jobs = Jobs(SystemClock())
    jobs.every("balance", 0.05, done.set)
    jobs._scheduler.start(paused=True)
    threading.Event().wait(1.3)  # the default grace time is one second
    jobs._scheduler.resume()
    assert done.wait(10)
    wait_for(lambda: jobs.counts()["balance"].runs >= 1)
    jobs.stop()
    assert jobs.counts()["balance"].missed == 0


def test_slow_job_never_runs_beside_itself() -> None:
    running, worst = threading.Semaphore(1), []

    def slow() -> None:
        worst.append(running.acquire(blocking=False))
        threading.Event().wait(0.2)
        running.release()

    with Jobs(SystemClock()) as jobs:
        jobs.every("audit", 0.05, slow)
        wait_for(lambda: len(worst) >= 2 and jobs.counts()["audit"].overruns >= 1)
    assert all(worst)


def test_failing_job_is_told_in_one_line_and_tried_again(capfd: pytest.CaptureFixture[str]) -> None:
    told: list[tuple[str, str]] = []

    def fail() -> None:
        raise ConnectionError("the node is away")

    with Jobs(SystemClock(), on_error=lambda name, error: told.append((name, str(error)))) as jobs:
        jobs.every("audit", 0.05, fail)
        wait_for(lambda: jobs.counts()["audit"].errors >= 2)
    assert told[0] == ("audit", "the node is away")
    out, err = capfd.readouterr()
    assert out + err == ""


def test_stop_waits_for_what_is_running() -> None:
    started, ended = threading.Event(), threading.Event()

    def work() -> None:
        started.set()
        threading.Event().wait(0.2)
        ended.set()

    jobs = Jobs(SystemClock())
    jobs.every("report", 3_600, work, at_once=True)
    jobs.start()
    assert started.wait(10)
    jobs.stop()
    assert ended.is_set()
    jobs.stop()


def test_counts_are_a_copy() -> None:
    jobs = Jobs(SystemClock())
    jobs.every("audit", 60, lambda: None)
    jobs.counts()["audit"].runs = 7
    assert jobs.counts() == {"audit": JobCounts()}
