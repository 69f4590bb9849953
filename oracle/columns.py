"""Many observations of one feed as columns, where one object for each would be too slow.

A column of integers holds what `oracle.types.PriceObs` holds one at a time: the same price, exact. What does
not fit into 64 bits with room for a ratio in basis points is refused by name, never rounded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contracts_abi.errors import InputError
from oracle.types import FeedKind, NoData, PriceObs, Reading

UNKNOWN = -1
"""Stands for None in a column of times or rounds."""

LARGEST = 2**63 // 20_002
"""A price or confidence above it could overflow where twice their ratio in basis points is rounded up."""


@dataclass(frozen=True, slots=True)
class Columns:
    """Observations of one feed, oldest first, as columns of 64-bit integers of one length.

    Attributes
    ----------
    base, quote, kind, source_id, decimals
        As in `oracle.types.PriceObs`; the same for every row.
    mantissa
        Price at `decimals`; 0 in a row without data.
    has_data
        Whether the source had a price.
    published_at, observed_at
        Unix seconds; `UNKNOWN` where the source carries no time.
    phase, round
        The round key; `UNKNOWN` without rounds.
    answered_phase, answered_round
        The round in which the answer was made; `UNKNOWN` where it is not said.
    conf_abs
        Half-width of the confidence interval at `decimals`; `UNKNOWN` where none is stated.
    """

    base: str
    quote: str
    kind: FeedKind
    source_id: str
    decimals: int
    mantissa: NDArray[np.int64]
    has_data: NDArray[np.bool_]
    published_at: NDArray[np.int64]
    observed_at: NDArray[np.int64]
    phase: NDArray[np.int64]
    round: NDArray[np.int64]
    answered_phase: NDArray[np.int64]
    answered_round: NDArray[np.int64]
    conf_abs: NDArray[np.int64]

    def __post_init__(self) -> None:
        lengths = {name: len(getattr(self, name)) for name in ROWS}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"columns differ in length: {lengths}")
        if len(self) and max(int(np.abs(self.mantissa).max()), int(self.conf_abs.max())) > LARGEST:
            raise InputError(
                f"{self.source_id}: a price or confidence is above {LARGEST}, too large for columns",
                fix="use fewer decimals, or judge the readings one by one",
            )
        if len(self) and min(int(self.conf_abs.min()), int(self.published_at.min())) < UNKNOWN:
            raise InputError(
                f"{self.source_id}: a confidence or a time is negative", fix="judge the readings one by one"
            )

    def __len__(self) -> int:
        return len(self.mantissa)

    def take(self, rows: Any) -> Columns:
        """Return some rows, by a slice, a mask or row numbers."""
        return replace(self, **{name: getattr(self, name)[rows] for name in ROWS})

    def seen_at(self, times: NDArray[np.int64]) -> Columns:
        """Return what a reader sees at given times: the last row observed at or before each.

        Parameters
        ----------
        times
            Unix seconds in ascending order; each becomes the `observed_at` of its row. Before the first row
            there is no data.
        """
        at = np.searchsorted(self.observed_at, times, side="right") - 1
        seen = self.take(np.maximum(at, 0))
        there = (at >= 0) & seen.has_data
        return replace(
            seen,
            observed_at=times,
            has_data=there,
            mantissa=np.where(there, seen.mantissa, 0),
        )

    def readings(self) -> Iterator[Reading]:
        """Yield each row as the object that it stands for."""
        for i in range(len(self)):
            if not self.has_data[i]:
                yield NoData(
                    self.base, self.quote, self.source_id, int(self.observed_at[i]), "no data in this row"
                )
                continue
            yield PriceObs(
                self.base,
                self.quote,
                int(self.mantissa[i]),
                self.decimals,
                self.kind,
                self.source_id,
                published_at=_or_none(self.published_at[i]),
                observed_at=int(self.observed_at[i]),
                round_key=_key(self.phase[i], self.round[i]),
                answered_key=_key(self.answered_phase[i], self.answered_round[i]),
                conf_abs=_or_none(self.conf_abs[i]),
            )


ROWS = tuple(
    f.name for f in fields(Columns) if f.name not in ("base", "quote", "kind", "source_id", "decimals")
)
"""Names of the columns."""


def _or_none(value: np.int64) -> int | None:
    return None if value == UNKNOWN else int(value)


def _key(phase: np.int64, number: np.int64) -> tuple[int, ...] | None:
    return None if number == UNKNOWN else (int(phase), int(number))


def columns_of(readings: Iterable[Reading]) -> Columns:
    """Return readings of one feed as columns.

    Parameters
    ----------
    readings
        At least one price among them; all prices of one source, pair, kind and scale.

    Raises
    ------
    InputError
        If there is no price, prices are not alike, a round key has not two parts, a number does not fit, or
        a reading says something that no column holds.
    """
    rows = list(readings)
    prices = [r for r in rows if isinstance(r, PriceObs)]
    if not prices:
        raise InputError("no reading is a price", fix="give at least one")
    first = prices[0]
    alike = {(p.base, p.quote, p.kind, p.source_id, p.decimals) for p in prices}
    if len(alike) > 1:
        raise InputError(f"readings of {first.source_id} differ in source, pair, kind or scale")
    table = [_row(reading) for reading in rows]
    try:
        cells = np.array(table, dtype=np.int64).reshape(len(table), len(ROWS)).T
    except OverflowError:
        raise InputError(
            f"{first.source_id}: a number does not fit 64 bits", fix="judge the readings one by one"
        ) from None
    columns = {name: np.ascontiguousarray(cells[i]) for i, name in enumerate(ROWS)}
    columns["has_data"] = columns["has_data"].astype(np.bool_)
    return Columns(first.base, first.quote, first.kind, first.source_id, first.decimals, **columns)


def _row(reading: Reading) -> tuple[int, ...]:
    if isinstance(reading, NoData):
        return (0, 0, UNKNOWN, reading.observed_at, *(UNKNOWN,) * 5)
    if min(reading.conf_abs or 0, reading.published_at or 0) < 0:
        raise InputError(
            f"{reading.source_id}: a confidence or a time is negative", fix="judge the readings one by one"
        )
    if reading.conf_abs is None and reading.bid is not None and reading.ask is not None:
        raise InputError(
            f"{reading.source_id}: bid and ask have no columns, and nothing else says how sure the price is",
            fix="judge the readings one by one",
        )
    return (
        reading.mantissa,
        1,
        UNKNOWN if reading.published_at is None else reading.published_at,
        reading.observed_at,
        *_parts(reading.round_key),
        *_parts(reading.answered_key),
        UNKNOWN if reading.conf_abs is None else reading.conf_abs,
    )


def _parts(key: Sequence[int] | None) -> tuple[int, int]:
    if key is None:
        return UNKNOWN, UNKNOWN
    if len(key) != 2:
        raise InputError(f"round {tuple(key)} is no pair of phase and round", fix="use split_round_id")
    return key[0], key[1]


_LOOKS = 1 << 18
"""Looks that are held in memory at once, however long the gap between two rows."""
_LONGEST_GAP_S = 10 * 366 * 86_400


def every(chunks: Iterable[Columns], period_s: int) -> Iterator[Columns]:
    """Yield what a reader sees who looks every `period_s` seconds, from the first row to the last.

    Parameters
    ----------
    chunks
        Parts of one series in time order; each is let go before the next is asked for.
    period_s
        Seconds between two looks; times are its multiples.

    Raises
    ------
    InputError
        If nothing is said for ten years: the times are not what they are taken for.
    """
    carried: Columns | None = None
    for chunk in chunks:
        if not len(chunk):
            continue
        whole = chunk if carried is None else joined([carried, chunk])
        start, end = int(whole.observed_at[0]), int(whole.observed_at[-1])
        # A look at the time of the last row waits for the next chunk, which may hold that time too.
        gaps = np.diff(whole.observed_at)
        if len(gaps) and int(gaps.max()) > _LONGEST_GAP_S:
            before = int(whole.observed_at[int(gaps.argmax())])
            raise InputError(
                f"{whole.source_id}: no row for {int(gaps.max())} s after time {before}",
                fix="mend the row, or set its time unit",
            )
        first = -(-start // period_s) * period_s
        for at in range(first, end, _LOOKS * period_s):
            yield whole.seen_at(np.arange(at, min(end, at + _LOOKS * period_s), period_s, dtype=np.int64))
        carried = whole.take(slice(len(whole) - 1, None))
    if carried is not None and int(carried.observed_at[0]) % period_s == 0:
        yield carried


def joined(parts: Sequence[Columns]) -> Columns:
    """Return parts of one series as one; the first says what they are of."""
    columns: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts]) for name in ROWS}
    return replace(parts[0], **columns)
