"""The folder of a sweep: its plan, one Parquet file per finished task, and what is written in the end.

::

    plan.json                 what is computed; a folder never changes its plan
    parts/0000000.parquet     one finished task; written aside, synced, then renamed
    result.json               digest of the whole content and a list of the parts; made from the parts
    lock                      held by the one sweep that works here

Only the parts say what is done. Whoever resumes reads each of them: one that is truncated, changed or of
another task is computed again. `result.json` is for people and scripts; nothing here believes it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from contracts_abi.errors import DataError, InputError, MarginlineError
from simulation.backtest.parts import ContentHash, PartFacts, read_columns, read_part
from simulation.backtest.plan import SweepPlan, differences, plan_from_document

PLAN, PARTS, RESULT, LOCK = "plan.json", "parts", "result.json", "lock"

FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""What the system says when nothing more can be written: disk, quota, limit of a file's size."""

_DIFFERENCES_NAMED: Final = 3


class StorageFull(MarginlineError, OSError):
    """The disk, the quota or the limit of a file's size is used up; what is on disk stays."""


@dataclass(frozen=True, slots=True)
class Scan:
    """What is in a folder.

    Attributes
    ----------
    done
        One byte per task, 1 where its part is whole.
    damaged
        Task and reason where there was a part that does not count.
    columns
        Types by name of the first whole part; None where there is none.
    rows, bytes
        Of the whole parts.
    """

    done: bytearray
    damaged: tuple[tuple[int, str], ...]
    columns: dict[str, str] | None
    rows: int
    bytes: int


@dataclass(frozen=True, slots=True)
class SweepResult:
    """A sweep that is whole.

    Attributes
    ----------
    sha256
        Digest of the logical content: column names, types, and values in the order of tasks.
    rows
        How many.
    columns
        Types by name.
    """

    sha256: str
    rows: int
    columns: dict[str, str]


def part_file(folder: Path, index: int) -> Path:
    """Return where a task's part is or will be."""
    return folder / PARTS / f"{index:07d}.parquet"


@contextlib.contextmanager
def opened(folder: Path, plan: SweepPlan) -> Iterator[None]:
    """Make or take up the folder of a plan, alone; files that a killed sweep left half written are removed.

    Raises
    ------
    InputError
        If the folder has another plan or other files, or another sweep works in it.
    StorageFull
        If not even the plan can be written.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file", fix="choose a folder")
    if folder.is_dir() and not (folder / PLAN).exists():
        others = [entry.name for entry in folder.iterdir() if entry.name not in (LOCK, PARTS, f".{PLAN}.tmp")]
        if others:
            raise InputError(
                f"{folder} is not the folder of a sweep: it has {min(others)}",
                fix="choose a new or empty one",
            )
    try:
        (folder / PARTS).mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise _write_error(folder, error) from None
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"another sweep works on {folder}", fix="wait for it, or choose another folder (--out)"
            ) from None
        if (folder / PLAN).exists():
            _require_same(folder, plan)
        else:
            write_json(folder / PLAN, plan.document())
        remove_unfinished(folder)
        yield
    finally:
        os.close(lock)


def _require_same(folder: Path, plan: SweepPlan) -> None:
    found = differences(plan, read_plan(folder))
    if found:
        more = f"; and {len(found) - _DIFFERENCES_NAMED} more" if len(found) > _DIFFERENCES_NAMED else ""
        raise InputError(
            f"{folder} has a sweep of another plan: {'; '.join(found[:_DIFFERENCES_NAMED])}{more}",
            fix="another folder (--out), or run what it was begun with",
        )


def read_plan(folder: Path) -> SweepPlan:
    """Return the plan of a folder.

    Raises
    ------
    InputError
        If there is none.
    DataError
        If it cannot be read or was changed.
    """
    file = folder / PLAN
    try:
        document = json.loads(file.read_bytes())
    except FileNotFoundError:
        raise InputError(f"{folder} is not the folder of a sweep: no {PLAN}") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: cannot be read: {error}", fix="choose another folder") from None
    return plan_from_document(document, str(file))


def remove_unfinished(folder: Path) -> None:
    """Remove files that were begun and not renamed."""
    for left in (folder / PARTS).glob(".*.tmp"):
        left.unlink(missing_ok=True)


# -------------------------------------------------------------------------------------------------- writing


def write_aside(folder: Path, index: int, data: bytes, writer: int) -> Path:
    """Write a part beside its place and return where; `commit` brings it there.

    Parameters
    ----------
    writer
        Number of the process, so that two never write one file.

    Raises
    ------
    StorageFull
        If there is no room; nothing is left of it.
    """
    aside = folder / PARTS / f".{index:07d}.{writer}.tmp"
    try:
        aside.write_bytes(data)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise _write_error(aside, error) from None
    return aside


def commit(folder: Path, index: int, aside: Path) -> None:
    """Sync a part that was written aside and give it its name; `sync_folder` makes the names last.

    Raises
    ------
    StorageFull
        If the system finds only now that there is no room.
    """
    try:
        _sync(aside)
        aside.replace(part_file(folder, index))
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise _write_error(aside, error) from None


def sync_folder(folder: Path) -> None:
    """Make names in a folder survive a loss of power."""
    try:
        _sync(folder)
    except OSError as error:
        raise _write_error(folder, error) from None


def write_json(file: Path, document: Any) -> None:
    """Write a file so that it is whole or not there.

    Raises
    ------
    StorageFull
        If there is no room.
    """
    aside = file.with_name(f".{file.name}.tmp")
    try:
        aside.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        _sync(aside)
        aside.replace(file)
        _sync(file.parent)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise _write_error(file, error) from None


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _write_error(path: Path, error: OSError) -> MarginlineError:
    if error.errno in FULL:
        return StorageFull(
            f"no room for {path}: {error.strerror}", fix="make room and run the same command again"
        )
    return InputError(f"cannot write {path}: {error.strerror or error}", fix="choose another folder (--out)")


def full_message(folder: Path, done: int, tasks: int, bytes_done: int) -> StorageFull:
    """Return what to say of a full disk: what is safe, what is still needed, what is free."""
    left = tasks - done
    need = (
        f"the other {left:,} need about {size_text(bytes_done / done * left)}"
        if done
        else "not even one fits"
    )
    free = size_text(shutil.disk_usage(folder).free)
    return StorageFull(
        f"no room in {folder}: {done:,} of {tasks:,} tasks are safe, {need}, {free} are free",
        fix="make room and run the same command again",
    )


def size_text(size: float) -> str:
    """Return bytes for people."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1_000:
            return f"{size:.3g} {unit}"
        size /= 1_000
    return f"{size:.3g} TB"


# -------------------------------------------------------------------------------------------------- reading


def scan(folder: Path, plan: SweepPlan) -> Scan:
    """Read every part that is there, and return which count."""
    done, damaged = bytearray(plan.tasks), []
    columns: dict[str, str] | None = None
    rows = size = 0
    for index in range(plan.tasks):
        file = part_file(folder, index)
        if not file.exists():
            continue
        try:
            _, facts = read_part(file, plan.task_id(index))
            columns = columns or dict(facts.columns)
            if list(facts.columns.items()) != list(columns.items()):
                raise DataError(f"{file}: has other columns than the parts before it")
        except DataError as error:
            damaged.append((index, str(error)))
            continue
        done[index] = 1
        rows += facts.rows
        size += facts.bytes
    return Scan(done, tuple(damaged), columns, rows, size)


def finish(folder: Path, plan: SweepPlan) -> SweepResult:
    """Read all parts in the order of tasks, one at a time; write and return what they come to.

    Raises
    ------
    DataError
        Naming the first part that is missing or damaged.
    StorageFull
        If the list of the parts cannot be written.
    """
    content, listed = ContentHash(), []
    columns: dict[str, str] = {}
    for index in range(plan.tasks):
        task_id = plan.task_id(index)
        with _completed_by_running_again():
            table, facts = read_part(part_file(folder, index), task_id)
        content.update(table)
        columns = dict(facts.columns)
        listed.append(_entry(index, task_id, facts))
    result = SweepResult(content.hexdigest(), content.rows, columns)
    head = {"schema": "marginline-sweep-result/1", "sha256": result.sha256, "rows": result.rows}
    write_json(folder / RESULT, {**head, "columns": columns, "parts": listed})
    return result


def _entry(index: int, task_id: str, facts: PartFacts) -> dict[str, Any]:
    sha256 = facts.content_sha256
    return {"task": index, "id": task_id, "rows": facts.rows, "bytes": facts.bytes, "content_sha256": sha256}


@contextlib.contextmanager
def _completed_by_running_again() -> Iterator[None]:
    try:
        yield
    except DataError as error:
        raise DataError(error.message, fix="run the sweep again to complete it") from None


def read_tables(
    folder: Path, *, columns: Sequence[str] | None = None, points: Sequence[int] | None = None
) -> Iterator[pa.Table]:
    """Yield what each task computed, in the order of tasks; only one is in memory at a time.

    Parameters
    ----------
    folder
        Of a sweep that is whole.
    columns
        Only these; all without it. Unknown ones are refused.
    points
        Only these parameter points, in the given order; all without it.

    Raises
    ------
    InputError
        If it is no folder of a sweep, or a column or point is unknown.
    DataError
        If a part is missing or damaged; the sweep is to be run again.
    """
    plan = read_plan(folder)
    if columns is not None:
        _require_columns(folder, plan, columns)
    for point in range(plan.points) if points is None else points:
        if not 0 <= point < plan.points:
            raise InputError(
                f"point {point}: there are {plan.points}", fix=f"name one of 0-{plan.points - 1}"
            )
        for index in range(point * plan.chunks, (point + 1) * plan.chunks):
            file, task_id = part_file(folder, index), plan.task_id(index)
            with _completed_by_running_again():
                table = (
                    read_part(file, task_id)[0] if columns is None else read_columns(file, task_id, columns)
                )
            yield table


def _require_columns(folder: Path, plan: SweepPlan, columns: Sequence[str]) -> None:
    with _completed_by_running_again():
        known = read_part(part_file(folder, 0), plan.task_id(0))[0].column_names
    for name in columns:
        if name not in known:
            raise InputError(f"no column {name!r}", fix=f"there are {', '.join(known)}")


def read(
    folder: Path,
    *,
    columns: Sequence[str] | None = None,
    points: Sequence[int] | None = None,
    parameters: bool = False,
) -> pa.Table:
    """Return the rows of a whole sweep as one table; ``.to_pandas()`` makes it a frame.

    Parameters
    ----------
    folder, columns, points
        See `read_tables`, which needs less memory.
    parameters
        Whether to add the swept values as columns, named by their keys.

    Raises
    ------
    InputError, DataError
        See `read_tables`.
    """
    tables = list(read_tables(folder, columns=_with_point(columns) if parameters else columns, points=points))
    table = pa.concat_tables(tables)
    if not parameters:
        return table
    plan = read_plan(folder)
    at = table["point"].to_numpy()
    values = [plan.parameters(point) for point in range(plan.points)]
    for axis in plan.axes:
        if axis.key in table.column_names:
            raise InputError(f"{axis.key!r} is a swept key and a column", fix="read without parameters")
        table = table.append_column(
            axis.key, pa.array([value[axis.key] for value in values]).take(pa.array(at))
        )
    return table


def _with_point(columns: Sequence[str] | None) -> list[str] | None:
    return None if columns is None else list(dict.fromkeys(["point", *columns]))
