"""What a sweep computes: points of a parameter grid, their paths in chunks, and tasks that never change.

A plan is data. The same scenario, axes, paths, chunk, seed and versions give the same tasks with the same
ids, whoever runs them, in whatever order. Points and tasks are made when they are asked for, so a plan of a
hundred thousand tasks takes the room of its axes.
"""

from __future__ import annotations

import csv
import functools
import hashlib
import json
import math
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time
from fractions import Fraction
from typing import Any, Final, TypeAlias

from contracts_abi.errors import DataError, InputError, UnknownNameError

Scalar: TypeAlias = bool | int | float | str
"""A value that a scenario's key can have and a sweep can vary."""

SCHEMA: Final = "marginline-sweep/1"

MAX_TASKS: Final = 100_000
"""Each task is a file; more of them are a reason for larger chunks."""

DEFAULT_CHUNK: Final = 64
"""Paths of a task unless told otherwise: milliseconds to seconds of most models."""

_RANGE: Final = re.compile(r"([^:]+):([^:]+):([^:]+)")
_WHOLE: Final = re.compile(r"[+-]?\d+(_\d+)*")
_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")
_TASK_NAME: Final = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


@dataclass(frozen=True, slots=True)
class Axis:
    """One key of a scenario and the values it takes.

    Attributes
    ----------
    key
        Dotted key as TOML writes it; elements of arrays by their number, as in ``protocols.0.close_factor``.
    values
        What it takes, in order, each once; of the type of the scenario's own value.
    """

    key: str
    values: tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class SweepTask:
    """What one task computes. Randomness may depend on `seed` and the path's number and on nothing else.

    Then the same path meets the same shocks at every point (common random numbers), and neither chunks nor
    workers change a result.

    Attributes
    ----------
    index
        Place among the tasks of the plan: points in order, within a point chunks in order.
    id
        SHA-256 of all that the result may depend on.
    point
        Number of the parameter point.
    parameters
        The swept keys and their values at this point.
    scenario
        The whole scenario with those values; this task's own copy.
    first_path, stop_path
        The paths, the last one excluded.
    seed
        Seed of everything random.
    """

    index: int
    id: str
    point: int
    parameters: Mapping[str, Scalar]
    scenario: Mapping[str, Any]
    first_path: int
    stop_path: int
    seed: int

    @property
    def paths(self) -> range:
        """The paths' numbers."""
        return range(self.first_path, self.stop_path)

    @property
    def name(self) -> str:
        """How a message names the task."""
        values = ", ".join(f"{key}={value}" for key, value in self.parameters.items())
        paths = f"paths {self.first_path}-{self.stop_path - 1}"
        return f"task {self.index} ({f'{values}, {paths}' if values else paths})"


@dataclass(frozen=True)
class SweepPlan:
    """All that decides the result of a sweep. Make one with `make_plan`.

    Attributes
    ----------
    task
        ``module:function`` that computes a `SweepTask`.
    scenario
        JSON of the scenario, keys sorted.
    axes
        What is varied.
    zipped
        Whether the axes advance together; else every combination is a point, the last axis fastest.
    paths
        Paths per point.
    chunk
        Paths per task; the last task of a point may have fewer.
    seed
        Seed of everything random.
    data_sha256
        Digests of the data that the scenario reads, by name.
    versions
        Digest of the code and versions of the libraries that compute, by name.
    """

    task: str
    scenario: str
    axes: tuple[Axis, ...]
    zipped: bool
    paths: int
    chunk: int
    seed: int
    data_sha256: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def points(self) -> int:
        """How many parameter points there are; one where nothing is varied."""
        lengths = [len(axis.values) for axis in self.axes]
        if self.zipped and lengths:
            return lengths[0]
        return math.prod(lengths)

    @property
    def chunks(self) -> int:
        """How many tasks a point has."""
        return -(-self.paths // self.chunk)

    @property
    def tasks(self) -> int:
        """How many tasks there are."""
        return self.points * self.chunks

    @functools.cached_property
    def scenario_sha256(self) -> str:
        """Digest of the scenario before anything is varied."""
        return _sha256(self.scenario)

    @functools.cached_property
    def _base_sha256(self) -> str:
        """Digest of what all tasks share; neither the grid nor the number of paths is part of it."""
        shared = self.document()
        for key in ("axes", "zipped", "paths", "chunk", "scenario"):
            del shared[key]
        return _sha256(canonical_json(shared))

    def parameters(self, point: int) -> dict[str, Scalar]:
        """Return the values of the swept keys at one point."""
        if not 0 <= point < self.points:
            raise IndexError(point)
        if self.zipped:
            return {axis.key: axis.values[point] for axis in self.axes}
        chosen: dict[str, Scalar] = {}
        for axis in reversed(self.axes):
            point, place = divmod(point, len(axis.values))
            chosen[axis.key] = axis.values[place]
        return {axis.key: chosen[axis.key] for axis in self.axes}

    def scenario_at(self, point: int) -> dict[str, Any]:
        """Return a fresh copy of the scenario with the values of one point."""
        made: dict[str, Any] = json.loads(self.scenario)
        for key, value in self.parameters(point).items():
            *outer, last = _place(key, made)
            table: Any = made
            for part in outer:
                table = table[part]
            table[last] = value
        return made

    def task_at(self, index: int) -> SweepTask:
        """Return one task."""
        if not 0 <= index < self.tasks:
            raise IndexError(index)
        point, chunk = divmod(index, self.chunks)
        first = chunk * self.chunk
        return SweepTask(
            index=index,
            id=self.task_id(index),
            point=point,
            parameters=self.parameters(point),
            scenario=self.scenario_at(point),
            first_path=first,
            stop_path=min(first + self.chunk, self.paths),
            seed=self.seed,
        )

    def task_id(self, index: int) -> str:
        """Return the id of a task: the same in every plan that would compute the same there."""
        point, chunk = divmod(index, self.chunks)
        first = chunk * self.chunk
        paths = [first, min(first + self.chunk, self.paths)]
        of = {"shared": self._base_sha256, "parameters": self.parameters(point), "paths": paths}
        return _sha256(canonical_json(of))

    def document(self) -> dict[str, Any]:
        """Return the plan as JSON types."""
        return {
            "schema": SCHEMA,
            "task": self.task,
            "seed": self.seed,
            "paths": self.paths,
            "chunk": self.chunk,
            "zipped": self.zipped,
            "axes": [{"key": axis.key, "values": list(axis.values)} for axis in self.axes],
            "scenario": json.loads(self.scenario),
            "scenario_sha256": self.scenario_sha256,
            "data_sha256": dict(self.data_sha256),
            "versions": dict(self.versions),
        }


def make_plan(
    scenario: Mapping[str, Any],
    over: Sequence[str] = (),
    *,
    task: str,
    paths: int,
    seed: int,
    chunk: int = DEFAULT_CHUNK,
    zipped: bool = False,
    data_sha256: Mapping[str, str] | None = None,
    versions: Mapping[str, str] | None = None,
) -> SweepPlan:
    """Return the plan of a sweep.

    Parameters
    ----------
    scenario
        The scenario with all keys that may be varied, defaults too; JSON or TOML types. Dates become text.
    over
        What to vary, each as `parse_over` reads it.
    task
        ``module:function`` that computes a `SweepTask`.
    paths, seed, chunk, zipped, data_sha256, versions
        See `SweepPlan`.

    Raises
    ------
    InputError
        Naming the key or option, the value and what would do.
    """
    if not _TASK_NAME.fullmatch(task):
        raise InputError(f"task: {task!r} is not the name of a function", fix="write module:function")
    for name, value, least in (("paths", paths, 1), ("chunk", chunk, 1), ("seed", seed, 0)):
        if value < least:
            raise InputError(f"{name}: must be at least {least}, got {value}")
    plain = _plain(scenario, "")
    axes = tuple(parse_over(text, plain) for text in over)
    seen: set[str] = set()
    for axis in axes:
        if axis.key in seen:
            raise InputError(f"--over {axis.key}: given twice", fix="put all its values into one --over")
        seen.add(axis.key)
    if zipped:
        lengths = {axis.key: len(axis.values) for axis in axes}
        if not axes:
            raise InputError("--zip: nothing is varied", fix="name keys by --over, or leave --zip out")
        if len(set(lengths.values())) > 1:
            shown = ", ".join(f"{key} has {length}" for key, length in lengths.items())
            raise InputError(f"--zip needs as many values of each key: {shown}")
    plan = SweepPlan(
        task=task,
        scenario=canonical_json(plain),
        axes=axes,
        zipped=zipped,
        paths=paths,
        chunk=chunk,
        seed=seed,
        data_sha256=dict(sorted((data_sha256 or {}).items())),
        versions=dict(sorted((versions or {}).items())),
    )
    if plan.tasks > MAX_TASKS:
        raise InputError(
            f"{plan.points:,} points of {plan.chunks:,} chunks are {plan.tasks:,} tasks, and {MAX_TASKS:,} "
            "is the most",
            fix="make --chunk larger, or vary less",
        )
    return plan


def plan_from_document(document: object, where: str) -> SweepPlan:
    """Return the plan that was written as `SweepPlan.document`.

    Raises
    ------
    DataError
        If it is not one, or its parts contradict each other.
    """
    if not isinstance(document, Mapping) or document.get("schema") != SCHEMA:
        raise DataError(f"{where}: is not the plan of a sweep ({SCHEMA})", fix="choose another folder")
    try:
        axes = [
            Axis(str(axis["key"]), tuple(_scalar(value) for value in axis["values"]))
            for axis in document["axes"]
        ]
        plan = SweepPlan(
            task=str(document["task"]),
            scenario=canonical_json(document["scenario"]),
            axes=tuple(axes),
            zipped=bool(document["zipped"]),
            paths=int(document["paths"]),
            chunk=int(document["chunk"]),
            seed=int(document["seed"]),
            data_sha256={str(key): str(value) for key, value in document["data_sha256"].items()},
            versions={str(key): str(value) for key, value in document["versions"].items()},
        )
        known = plan.document()
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{where}: is not a whole plan: {error!r}", fix="choose another folder") from None
    if known != document:
        raise DataError(f"{where}: was changed since it was written", fix="choose another folder")
    return plan


def differences(ours: SweepPlan, theirs: SweepPlan) -> tuple[str, ...]:
    """Return what two plans differ in, each as ``name is A, and was B`` with `theirs` as what was."""
    before, now = theirs.document(), ours.document()
    found = []
    for key in ("task", "seed", "paths", "chunk", "zipped"):
        if now[key] != before[key]:
            found.append(f"{key} is {now[key]}, and was {before[key]}")
    if now["axes"] != before["axes"]:
        found.append(f"the swept values are {_axes_text(ours)}, and were {_axes_text(theirs)}")
    if ours.scenario_sha256 != theirs.scenario_sha256:
        a, b = leaves(now["scenario"]), leaves(before["scenario"])
        keys = [key for key in {**b, **a} if key not in a or key not in b or not _same(a[key], b[key])]
        shown = ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
        found.append(f"the scenario has another {shown}" if keys else "the scenario is another")
    for part, what in (("data_sha256", "data"), ("versions", "version")):
        names = [n for n in {**before[part], **now[part]} if before[part].get(n) != now[part].get(n)]
        for name in names:
            was, is_ = (_short(values.get(name, "missing")) for values in (before[part], now[part]))
            found.append(f"{what} {name} is {is_}, and was {was}")
    return tuple(found)


# ---------------------------------------------------------------------------------------------------- --over


def parse_over(text: str, scenario: Mapping[str, Any]) -> Axis:
    """Return the axis that ``key=a,b,c`` or ``key=start:stop:count`` describes.

    Values have the type of the scenario's own value. A range has both ends, its steps are computed exactly
    and then rounded once, so that ``0.1:0.3:3`` is 0.1, 0.2, 0.3.

    Raises
    ------
    InputError
        Naming the key and the value.
    UnknownNameError
        For a key that the scenario has not; offers the nearest.
    """
    written, equals, listed = text.partition("=")
    if not equals or not written.strip():
        raise InputError(f"--over {text!r}: no key and values", fix="write --over key=a,b,c or key=0:1:5")
    known = leaves(scenario)
    key = _canonical_key(written.strip())
    if key not in known:
        raise _unknown_key(key, known)
    own = known[key]
    if isinstance(own, list | dict):
        raise InputError(f"--over {key}: is an empty list or table in the scenario", fix="sweep one value")
    values = _values(key, listed, own)
    if repeated := next((v for i, v in enumerate(values) if v in values[:i]), None):
        raise InputError(f"--over {key}: {repeated!r} stands there twice", fix="give each value once")
    if len(set(values)) < len(values):  # a repeated False, 0 or ""
        raise InputError(f"--over {key}: a value stands there twice", fix="give each value once")
    return Axis(key, values)


def leaves(scenario: Mapping[str, Any]) -> dict[str, Any]:
    """Return every value of a scenario by its dotted key; empty tables and arrays count as values."""
    return dict(_walk(scenario, ()))


def _walk(value: Any, place: tuple[str | int, ...]) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and (value or not place):
        for key, inner in value.items():
            yield from _walk(inner, (*place, key))
    elif isinstance(value, list) and value:
        for number, inner in enumerate(value):
            yield from _walk(inner, (*place, number))
    else:
        yield _key_text(place), value


def _key_text(place: Sequence[str | int]) -> str:
    parts = (str(part) for part in place)
    return ".".join(part if _BARE_KEY.fullmatch(part) else json.dumps(part) for part in parts)


def _key_parts(key: str) -> list[str]:
    try:
        table: Any = tomllib.loads(f"{key} = 0")
    except tomllib.TOMLDecodeError:
        raise InputError(f"--over {key}: is not a key of TOML", fix="write it as a.b or a.0.b") from None
    parts = []
    while isinstance(table, dict):
        ((part, table),) = table.items()
        parts.append(part)
    return parts


def _canonical_key(key: str) -> str:
    return _key_text(_key_parts(key))


def _place(key: str, scenario: Any) -> list[str | int]:
    """Return the way to a key's value; numbers where the scenario has arrays."""
    place: list[str | int] = []
    for part in _key_parts(key):
        step = int(part) if isinstance(scenario, list) else part
        place.append(step)
        scenario = scenario[step]
    return place


def _unknown_key(key: str, known: Mapping[str, Any]) -> InputError:
    inner = [name for name in known if name.startswith(f"{key}.")]
    if inner:
        shown = ", ".join(inner[:4]) + (", …" if len(inner) > 4 else "")
        return InputError(f"--over {key}: is a table or an array", fix=f"sweep one of its values: {shown}")
    error = UnknownNameError("key", key, known, listed="name a key of the scenario, as table.key")
    last = key.rpartition(".")[2]
    same = [name for name in known if name.rpartition(".")[2] == last]
    if same and "did you mean" not in (error.fix or ""):
        return InputError(error.message, fix=f"did you mean {' or '.join(map(repr, same[:3]))}?")
    return InputError(f"--over {key}: {error.message}", fix=error.fix)


def _values(key: str, listed: str, own: Any) -> tuple[Scalar, ...]:
    numeric = isinstance(own, int | float) and not isinstance(own, bool)
    if (numeric or own is None) and (found := _RANGE.fullmatch(listed.strip())):
        return _range(key, *found.groups(), whole=isinstance(own, int))
    items = [item.strip() for item in next(csv.reader([listed], skipinitialspace=True), [])]
    if not items or "" in items:
        raise InputError(f"--over {key}: {listed!r} has an empty value", fix="write key=a,b,c")
    return tuple(_value(key, item, own) for item in items)


def _value(key: str, item: str, own: Any) -> Scalar:
    if own is None:  # a key that is there without a value tells no type
        return _guess(item)
    if isinstance(own, bool):
        if item not in ("true", "false"):
            raise InputError(f"--over {key}: must be true or false, got {item!r}")
        return item == "true"
    if isinstance(own, int):
        if _WHOLE.fullmatch(item):
            return int(item)
        raise InputError(
            f"--over {key}: must be a whole number, got {item!r}",
            fix=f"write {key} = {float(own)} in the scenario if it may be a fraction",
        )
    return _number(key, item) if isinstance(own, float) else item


def _number(key: str, item: str) -> float:
    try:
        value = float(item)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"--over {key}: must be a number, got {item!r}")
    return value


def _guess(item: str) -> Scalar:
    if item in ("true", "false"):
        return item == "true"
    if _WHOLE.fullmatch(item):
        return int(item)
    try:
        value = float(item)
    except ValueError:
        return item
    return value if math.isfinite(value) else item


def _range(key: str, start: str, stop: str, count: str, *, whole: bool) -> tuple[Scalar, ...]:
    if not _WHOLE.fullmatch(count.strip()) or not 2 <= int(count) <= MAX_TASKS:
        raise InputError(f"--over {key}: a range is start:stop:count with count from 2, got {count!r}")
    number = int(count)
    ends = []
    for end in (start, stop):
        _number(key, end)  # refuses what is no number
        ends.append(Fraction(end.strip()))
    steps = [ends[0] + (ends[1] - ends[0]) * i / (number - 1) for i in range(number)]
    if whole:
        if any(step.denominator != 1 for step in steps):
            raise InputError(
                f"--over {key}: {start}:{stop}:{count} does not fall on whole numbers",
                fix="choose a count that does, or list the values",
            )
        return tuple(int(step) for step in steps)
    return tuple(float(step) for step in steps)


# ------------------------------------------------------------------------------------------------------ JSON


def canonical_json(value: Any) -> str:
    """Return JSON with sorted keys and no spaces: equal for equal values.

    Floats are written so that they are read back exactly.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _plain(value: Any, key: str) -> Any:
    """Return a scenario in JSON types; dates become text."""
    if isinstance(value, Mapping):
        return {str(name): _plain(inner, f"{key}.{name}".lstrip(".")) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner, f"{key}.{number}") for number, inner in enumerate(value)]
    if isinstance(value, date | datetime | time):
        return value.isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"{key}: must be a finite number, got {value}")
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise InputError(f"{key}: a {type(value).__name__} cannot stand in a scenario", fix="write it as text")


def _scalar(value: object) -> Scalar:
    if isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{value!r} is no value of a key")


def _same(a: Any, b: Any) -> bool:
    return canonical_json(a) == canonical_json(b)


def _axes_text(plan: SweepPlan) -> str:
    shown = [
        f"{axis.key}={','.join(map(str, axis.values[:4]))}{',…' if len(axis.values) > 4 else ''}"
        for axis in plan.axes
    ]
    return " ".join(shown) or "none"


def _short(text: str) -> str:
    return text if len(text) <= 16 else f"{text[:12]}…"


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
