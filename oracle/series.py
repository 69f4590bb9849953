"""A feed's whole history against the guards: how often each cried, when, and for how long.

The file is read part by part and judged in columns: the length of a history costs time and not memory.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from contracts_abi.bounded_json import bounded_json
from contracts_abi.errors import InputError
from oracle.columns import Columns, every, joined
from oracle.fields import SignedDecimal
from oracle.guards import GuardModel, guards
from oracle.interfaces import FeedContext
from oracle.judge_columns import LACKS, SERIES_GUARDS, Code, Second, judge_columns
from oracle.sources.recorded import RecordedFile
from oracle.stream import stream
from oracle.strict import StrictModel, input_error

SHOWN: Final = 1_000
"""Episodes that are kept of each guard; all are counted."""


class SeriesFile(StrictModel):
    """A recorded feed, what is known of it, and a second source to hold it against.

    Attributes
    ----------
    feed
        The file, as a ``recorded`` source.
    second
        Another source of the same pair; held in memory.
    description
        What the feed's contract calls itself.
    min_answer, max_answer
        Bounds of its aggregator, as prices.
    every_s
        How often a reader looks at it.
    guards
        Tables of guards; all that a series can be held to without it.
    """

    feed: RecordedFile
    second: RecordedFile | None = None
    description: str | None = None
    min_answer: SignedDecimal | None = None
    max_answer: SignedDecimal | None = None
    every_s: int = Field(default=60, ge=1, le=86_400)
    guards: tuple[dict[str, Any], ...] | None = None

    def held(self) -> tuple[GuardModel, ...]:
        """Return the guards.

        Raises
        ------
        InputError
            If one is unknown, or needs more than a series.
        """
        if self.guards is None:
            return tuple(guards.build({"kind": kind}) for kind in SERIES_GUARDS)
        return tuple(guards.build(table) for table in self.guards)

    def context(self) -> FeedContext:
        """Return what is known of the feed beside its prices."""
        unit = 10**self.feed.decimals

        def raw(name: str, bound: Decimal | None) -> int | None:
            if bound is None:
                return None
            scaled = Fraction(bound) * int(unit)  # a product of decimals would be rounded to 28 digits
            if scaled.denominator != 1:
                raise InputError(f"{name} has more than {self.feed.decimals} decimals", fix="round it")
            return int(scaled)

        return FeedContext(
            now=0,
            heartbeat_s=self.feed.heartbeat_s,
            grace_s=self.feed.grace_s,
            deviation_bps=self.feed.deviation_bps,
            min_answer=raw("min_answer", self.min_answer),
            max_answer=raw("max_answer", self.max_answer),
            description=self.description,
        )


@dataclass(frozen=True, slots=True)
class Episode:
    """Looks in a row at which one guard was violated.

    Attributes
    ----------
    start, end
        Unix seconds of the first and the last of them.
    looks
        How many they are.
    """

    start: int
    end: int
    looks: int


@dataclass(frozen=True, slots=True)
class GuardHistory:
    """What one guard said of a whole history.

    Attributes
    ----------
    guard, name
        Its id and name.
    ok, violated, not_applicable
        At how many looks it said so.
    episodes
        How often it began to be violated.
    shown
        The first of them.
    """

    guard: str
    name: str
    ok: int
    violated: int
    not_applicable: int
    episodes: int
    shown: tuple[Episode, ...]


@dataclass(frozen=True, slots=True)
class SeriesHistory:
    """A feed's history, judged.

    Attributes
    ----------
    source, pair
        Name of the source, and its pair.
    rounds, looks, believed
        Rows of the file, looks at it, and those at which the price stood.
    start, end
        Unix seconds of the first and the last look.
    guards
        By guard, in the order in which they were given.
    left_out
        Guards that no series has the inputs of, with what they lack.
    """

    source: str
    pair: str
    rounds: int
    looks: int
    believed: int
    start: int
    end: int
    guards: tuple[GuardHistory, ...]
    left_out: Mapping[str, str]


def load_series(path: Path) -> SeriesFile:
    """Return what a file describes: a TOML of the keys of `SeriesFile`, or a CSV that was pulled.

    Raises
    ------
    InputError
        Naming the key, the value and the fix.
    """
    where = str(path)
    try:
        if path.suffix == ".toml":
            raw = tomllib.loads(path.read_text(encoding="utf-8"), parse_float=Decimal)
        else:
            beside = path.with_name(path.name + ".json")
            where = str(beside)
            pulled = bounded_json(beside.read_bytes())
            raw = {"feed": pulled["recorded"], "description": pulled.get("description")}
    except FileNotFoundError:
        raise InputError(
            f"{where} is not there",
            fix="give a TOML that describes the series, or a CSV of `marginline oracle pull`",
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{where} cannot be read: {error}") from None
    except (
        tomllib.TOMLDecodeError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RecursionError,
    ) as error:
        raise InputError(f"{where} does not describe a series: {error}") from None
    if isinstance(raw, dict):
        raw = {key: _located(value, path.parent) for key, value in raw.items()}
    try:
        return SeriesFile.model_validate(raw)
    except ValidationError as error:
        raise input_error(error, where) from None


def _located(value: object, folder: Path) -> object:
    """Return a table of a recorded source without its kind, its file found from the folder given."""
    if not isinstance(value, dict) or "path" not in value:
        return value
    if value.get("kind", "recorded") != "recorded":
        raise InputError(f"kind = {value['kind']!r} has no history in a file", fix="use a recorded source")
    rest = {key: cell for key, cell in value.items() if key != "kind"}
    return rest | {"path": folder / str(value["path"])}


def judge_series(series: SeriesFile, on_part: Callable[[int], None] | None = None) -> SeriesHistory:
    """Hold a feed's whole history against the guards.

    Parameters
    ----------
    on_part
        Called with the number of rows read so far.

    Raises
    ------
    InputError
        If the file, a guard, or the second source does not fit.
    """
    held, context = series.held(), series.context()
    market = None if series.second is None else _second(series.second)
    tallies = [_Tally() for _ in held]
    rows = looks = believed = 0
    start = end = 0
    history: NDArray[np.int64] | None = None
    market_history: NDArray[np.int64] | None = None

    def counted() -> Iterator[Columns]:
        nonlocal rows
        for part in stream(series.feed):
            rows += len(part)
            if on_part is not None:
                on_part(rows)
            yield part

    for part in every(counted(), series.every_s):
        beside = None
        if market is not None:
            seen = market.seen_at(part.observed_at)
            alone = judge_columns(seen, held, _of_second(series), history=market_history)
            market_history = alone.history
            beside = Second(seen, alone.accepted, alone.only_jumped)
        judged = judge_columns(part, held, context, beside, history)
        history = judged.history
        for tally, codes in zip(tallies, judged.codes, strict=True):
            tally.add(codes, part.observed_at)
        start = start or int(part.observed_at[0])
        end = int(part.observed_at[-1])
        looks, believed = looks + len(part), believed + int(judged.accepted.sum())
    if not looks:
        raise InputError(
            f"{series.feed.path}: {rows} rows and no look at them every {series.every_s} s",
            fix="set every_s lower (--every), or give more rows: looks lie between the first and the last",
        )
    return SeriesHistory(
        series.feed.source_id,
        f"{series.feed.base}/{series.feed.quote}",
        rows,
        looks,
        believed,
        start,
        end,
        tuple(tally.history(guard) for tally, guard in zip(tallies, held, strict=True)),
        dict(sorted(LACKS.items())) if series.guards is None else {},
    )


def _second(file: RecordedFile) -> Columns:
    parts = list(stream(file))
    if not parts:
        raise InputError(f"{file.path} has no row with data", fix="give a file with at least one price")
    return joined(parts)


def _of_second(series: SeriesFile) -> FeedContext:
    second = series.second
    assert second is not None
    return FeedContext(now=0, heartbeat_s=second.heartbeat_s, grace_s=second.grace_s)


@dataclass(slots=True)
class _Tally:
    """Counts of one guard while the parts go by."""

    counts: list[int] = field(default_factory=lambda: [0, 0, 0])
    episodes: list[Episode] = field(default_factory=list)
    number: int = 0
    open: Episode | None = None

    def add(self, codes: NDArray[np.int8], times: NDArray[np.int64]) -> None:
        for code in Code:
            self.counts[code] += int(np.count_nonzero(codes == code))
        bad = np.concatenate([[0], (codes == Code.VIOLATED).astype(np.int8), [0]])
        edges = np.diff(bad)
        for first, after in zip(np.flatnonzero(edges == 1), np.flatnonzero(edges == -1), strict=True):
            run = Episode(int(times[first]), int(times[after - 1]), int(after - first))
            if first == 0 and self.open is not None:
                run = Episode(self.open.start, run.end, self.open.looks + run.looks)
            else:
                self._close()
            self.open = run
        if not bad[-2]:
            self._close()

    def _close(self) -> None:
        if self.open is not None:
            self.number += 1
            if len(self.episodes) < SHOWN:
                self.episodes.append(self.open)
            self.open = None

    def history(self, guard: GuardModel) -> GuardHistory:
        self._close()
        return GuardHistory(
            guard.id,
            guard.kind,
            self.counts[Code.OK],
            self.counts[Code.VIOLATED],
            self.counts[Code.NOT_APPLICABLE],
            self.number,
            tuple(self.episodes),
        )
