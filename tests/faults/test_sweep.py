"""Sweeps with killed workers, interruptions, no room: nothing is lost, and the result is the same."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from contracts_abi.errors import CheckFailed, InputError
from keeper.sweeps import run as sweeps
from keeper.sweeps.pool import ONE_THREAD, Pool
from keeper.sweeps.run import SweepInterrupted, SweepOutcome, sweep
from simulation.backtest import store
from simulation.backtest.parts import content_sha256, part_table
from simulation.backtest.store import StorageFull, part_file
from tests.faults.sweeper import plan_of
from tests.sweep_tasks import losses

TASKS = 12
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def calm() -> str:
    """Return the digest of the sweep when nothing goes wrong: in one process, without any pool."""
    plan = plan_of({}, task="losses")
    tasks = [plan.task_at(index) for index in range(plan.tasks)]
    return content_sha256(part_table(task, losses(task)) for task in tasks)


def parts(folder: Path) -> set[int]:
    return {int(file.stem) for file in (folder / "parts").glob("*.parquet")}


def clutter(folder: Path) -> list[Path]:
    return list((folder / "parts").glob(".*"))


def digest(outcome: SweepOutcome) -> str:
    return outcome.require_whole().sha256


@contextmanager
def sweeper(folder: Path, workers: int, **play: Any) -> Iterator[subprocess.Popen[str]]:
    words = [sys.executable, "-m", "tests.faults.sweeper", str(folder), str(workers), json.dumps(play)]
    with subprocess.Popen(
        words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(process: subprocess.Popen[str], done: int) -> int:
    """Wait until so many tasks are kept; returns how many there are."""
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) >= done:
            return int(line)
    raise AssertionError("the sweep ended first")


def wait_for_file(file: Path) -> None:
    until = time.monotonic() + 30
    while not file.exists():
        assert time.monotonic() < until, f"{file} was not made"
        time.sleep(0.02)


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_any_number_of_workers_gives_what_one_process_gives(tmp_path: Path, calm: str, workers: int) -> None:
    outcome = sweep(plan_of({}, task="losses"), folder=tmp_path / "s", workers=workers)
    assert digest(outcome) == calm
    assert (outcome.computed, outcome.resumed, outcome.failed) == (TASKS, 0, ())
    result = json.loads((tmp_path / "s" / "result.json").read_text())
    assert result["sha256"] == calm
    assert [part["task"] for part in result["parts"]] == list(range(TASKS))


def test_a_killed_worker_costs_one_attempt(tmp_path: Path, calm: str) -> None:
    once = tmp_path / "once"
    outcome = sweep(plan_of({"kill": 4, "once": str(once)}), folder=tmp_path / "s", workers=2)
    assert once.exists(), "the worker did not die"
    assert digest(outcome) == calm
    assert outcome.computed == TASKS


@pytest.mark.parametrize("workers", [1, 2])
def test_a_task_that_kills_twice_is_named_and_the_rest_is_kept(tmp_path: Path, workers: int) -> None:
    folder = tmp_path / "s"
    outcome = sweep(plan_of({"kill": 4}), folder=folder, workers=workers)
    assert parts(folder) == set(range(TASKS)) - {4}
    assert clutter(folder) == []
    with pytest.raises(CheckFailed) as failed:
        outcome.require_whole()
    assert failed.value.exit_code == 1
    assert str(failed.value) == (
        "task 4 (market.shock=0.2, paths 0-9) failed: its worker was killed by SIGKILL, perhaps for want of "
        f"memory, 2 times; 11 of 12 tasks are safe in {folder}; run the same command again to try the rest"
    )


def test_a_task_that_raises_is_named_and_not_repeated(tmp_path: Path) -> None:
    outcome = sweep(plan_of({"fail": 11}), folder=tmp_path / "s", workers=2)
    (failure,) = outcome.failed
    assert (failure.index, outcome.computed, outcome.result) == (11, 11, None)
    assert failure.reason == "close_factor: must be at most 1, got 1.5; choose 0 to 1"


def test_tasks_agree_on_their_columns(tmp_path: Path) -> None:
    outcome = sweep(plan_of({"odd": 5}), folder=tmp_path / "s", workers=1)
    (failure,) = outcome.failed
    assert failure.index == 5
    assert failure.reason == "its columns are not those of other tasks: more double"


def test_a_model_that_never_works_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeps, "HOPELESS", 3)
    outcome = sweep(plan_of({}, task="always_wrong"), folder=tmp_path / "s", workers=1)
    assert outcome.given_up
    assert 3 <= len(outcome.failed) < TASKS
    assert outcome.failed[0].reason.startswith("ZeroDivisionError: float division by zero (sweep_tasks.py:")
    with pytest.raises(CheckFailed, match=r"failed and .* more, and none succeeded"):
        outcome.require_whole()


def test_each_worker_is_told_to_use_one_thread(tmp_path: Path) -> None:
    sweep(plan_of({}, task="threads"), folder=tmp_path / "s", workers=1)
    table = store.read(tmp_path / "s")
    assert set(table["told"].to_pylist()) == {len(ONE_THREAD)}
    assert set(table["arrow"].to_pylist()) == {1}


def test_a_function_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^task: tests\.sweep_tasks has no function 'gains'$"):
        sweep(plan_of({}, task="gains"), folder=tmp_path / "s", workers=2)


# ----------------------------------------------------------------------------------------------- interrupted


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_soon_and_the_same_call_completes_it(
    tmp_path: Path, calm: str, number: signal.Signals
) -> None:
    folder, play = tmp_path / "s", {"slow_s": 0.25}
    with sweeper(folder, 1, **play) as process:
        before = wait_for(process, 3)
        os.killpg(process.pid, number)  # as a terminal does: to all of its processes
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    kept = parts(folder)
    # Tasks at hand were finished, those ahead were not begun.
    assert before < len(kept) < TASKS
    assert clutter(folder) == []
    says = f"interrupted: {len(kept)} of 12 tasks are safe in {folder}; run the same command again to go on"
    assert err == f"error: {says}\n"
    stamps = {index: part_file(folder, index).stat().st_mtime_ns for index in kept}
    outcome = sweep(plan_of(play), folder=folder, workers=4)
    assert digest(outcome) == calm
    assert (outcome.resumed, outcome.computed) == (len(kept), TASKS - len(kept))
    assert {index: part_file(folder, index).stat().st_mtime_ns for index in kept} == stamps


def test_workers_that_are_told_to_stop_leave_what_they_have_ahead(tmp_path: Path) -> None:
    wake, ring = os.pipe()
    answered = 0
    with store.opened(tmp_path / "s", plan_of({"slow_s": 0.2})), Pool(tmp_path / "s", wake=wake) as pool:
        pool.start()
        (worker,) = pool.workers
        while pool.workers:
            heard = list(pool.wait(20.0))
            assert heard, "the worker waits for more"
            for message in (one.message for one in heard if one.message is not None):
                if "ready" in message:
                    pool.give(worker, [0, 1, 2, 3, 4])
                elif (answered := answered + 1) == 1:
                    pool.stop()
    os.close(wake)
    os.close(ring)
    assert 1 <= answered < 5
    assert len(worker.held) == 5 - answered


def test_tasks_that_take_longer_than_the_grace_are_abandoned(tmp_path: Path) -> None:
    with sweeper(tmp_path / "s", 2, slow_s=600.0, once=str(tmp_path / "begun")) as process:
        wait_for_file(tmp_path / "begun")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err.startswith("error: interrupted: 0 of 12 tasks")


def test_a_sweep_that_is_killed_leaves_no_worker_and_no_lock(tmp_path: Path, calm: str) -> None:
    folder = tmp_path / "s"
    with sweeper(folder, 2, slow_s=0.1) as process:
        wait_for(process, 2)
        workers = children(process.pid)
        process.kill()
        process.wait()
    assert len(workers) == 2
    gone(workers)
    assert digest(sweep(plan_of({"slow_s": 0.1}), folder=folder, workers=2)) == calm
    assert clutter(folder) == []


def test_a_worker_in_the_middle_of_a_task_does_not_outlive_its_sweep(tmp_path: Path) -> None:
    with sweeper(tmp_path / "s", 1, slow_s=600.0, once=str(tmp_path / "begun")) as process:
        wait_for_file(tmp_path / "begun")
        (worker,) = children(process.pid)
        process.kill()
        process.wait()
    gone([worker])


def gone(workers: list[int]) -> None:
    """Wait until processes are gone."""
    until = time.monotonic() + 10
    while any(Path(f"/proc/{worker}").exists() for worker in workers):
        assert time.monotonic() < until, "a worker outlived its sweep"
        time.sleep(0.02)


def children(process: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


# -------------------------------------------------------------------------------------------- the folder


def test_parts_that_do_not_count_are_computed_again(tmp_path: Path, calm: str) -> None:
    folder, plan = tmp_path / "s", plan_of({}, task="losses")
    sweep(plan, folder=folder, workers=1)
    truncated, foreign, missing, garbage, other = (part_file(folder, index) for index in (0, 3, 5, 7, 11))
    truncated.write_bytes(truncated.read_bytes()[:-20])
    foreign.write_bytes(part_file(folder, 4).read_bytes())
    missing.unlink()
    garbage.write_bytes(b"")
    # Whole, and of the same task under another seed.
    strange = plan_of({}, task="losses", seed=8)
    sweep(strange, folder=tmp_path / "t", workers=1)
    other.write_bytes(part_file(tmp_path / "t", 11).read_bytes())
    (folder / "result.json").write_text('{"sha256": "lies"}')
    outcome = sweep(plan, folder=folder, workers=1)
    assert digest(outcome) == calm
    assert [index for index, _ in outcome.damaged] == [0, 3, 7, 11]
    assert (outcome.resumed, outcome.computed) == (7, 5)
    assert json.loads((folder / "result.json").read_text())["sha256"] == calm


def test_two_sweeps_do_not_share_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    folder.mkdir()
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(
            InputError, match=r"^another sweep works on .*; wait for it, or choose another folder \(--out\)$"
        ):
            sweep(plan_of({}), folder=folder, workers=1)
    assert not (folder / "plan.json").exists()


# ---------------------------------------------------------------------------------------------- no room


def test_a_worker_without_room_ends_the_sweep_and_it_resumes(tmp_path: Path, calm: str) -> None:
    folder, room = tmp_path / "s", tmp_path / "room"
    plan = plan_of({"limit": 4, "once": str(room)})
    with pytest.raises(StorageFull) as full:
        sweep(plan, folder=folder, workers=1)
    assert full.value.exit_code == 2
    text = str(full.value)
    assert text.startswith(f"no room in {folder}: 4 of 12 tasks are safe, the other 8 need about ")
    assert text.endswith("are free; make room and run the same command again")
    assert parts(folder) == {0, 1, 2, 3}
    assert clutter(folder) == []
    room.touch()
    outcome = sweep(plan, folder=folder, workers=2)
    assert digest(outcome) == calm
    assert outcome.resumed == 4


@pytest.mark.parametrize("last", [5, 6, 7, 8])
def test_room_that_is_missed_only_when_something_is_synced(
    tmp_path: Path, calm: str, monkeypatch: pytest.MonkeyPatch, last: int
) -> None:
    folder, plan = tmp_path / "s", plan_of({}, task="losses")
    real, calls = os.fsync, []

    def fsync(handle: int) -> None:
        calls.append(handle)
        if len(calls) > last:  # the plan took two; a part or the folder's names are next
            raise OSError(28, "No space left on device")
        real(handle)

    monkeypatch.setattr(store.os, "fsync", fsync)
    with pytest.raises(StorageFull, match="tasks are safe"):
        sweep(plan, folder=folder, workers=1)
    monkeypatch.undo()
    kept = len(parts(folder))
    assert 0 < kept < TASKS
    outcome = sweep(plan, folder=folder, workers=1)
    assert (outcome.resumed, digest(outcome)) == (kept, calm)


def test_an_interruption_is_said_before_failures(tmp_path: Path) -> None:
    outcome = SweepOutcome(tmp_path, 9, 1, 2, (), (), True, False, None, 0.0, 0.0, 0.0)
    with pytest.raises(SweepInterrupted) as interrupted:
        outcome.require_whole()
    assert interrupted.value.exit_code == 130
    assert str(interrupted.value).startswith("interrupted: 3 of 9 tasks are safe in ")
