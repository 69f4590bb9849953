"""The past again: every path has the prices of a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from pydantic import FiniteFloat

from contracts_abi.errors import InputError
from simulation.contagion.prices import PriceSpec, price_processes
from simulation.contagion.prices.fields import check_assets, check_steps, starts
from simulation.contagion.prices.history import PriceTable, read_table
from simulation.contagion.prices.streams import Seeds, refuse_mirrored
from simulation.types import Float64

Between = Literal["previous", "linear", "log-linear"]


@dataclass(frozen=True, slots=True)
class Replay:
    """Recorded prices, from a time on.

    Attributes
    ----------
    table
        The record.
    from_s
        Time of step 0, unix seconds; inside the table.
    between
        Price between two rows: of the row before, on the line between them, or on the line of logarithms.
    scale
        Factor of each asset's prices; ones for the record as it is, shape ``(assets,)``.
    """

    table: PriceTable
    from_s: float
    between: Between
    scale: Float64

    def __post_init__(self) -> None:
        first, last = self.table.times[0], self.table.times[-1]
        if not first <= self.from_s < last:
            raise InputError(
                f"from_s {self.from_s:.0f} is not within the record",
                fix=f"use {first:.0f} or later, before {last:.0f}",
            )
        if self.between not in ("previous", "linear", "log-linear"):
            raise InputError(f"between is {self.between!r}", fix="use 'previous', 'linear' or 'log-linear'")
        check_assets(self.table.assets, self.scale)

    @property
    def assets(self) -> tuple[str, ...]:
        """Symbols."""
        return self.table.assets

    @property
    def start(self) -> Float64:
        """Prices at step 0, shape ``(assets,)``."""
        return np.asarray(self._at(np.array([self.from_s]))[0] * self.scale)

    def paths(self, seeds: Seeds, steps: int, dt_s: float) -> Float64:
        """Return prices, shape ``(len(seeds), steps + 1, assets)``, the same on every path.

        Raises
        ------
        InputError
            If the record ends before the last step.
        """
        check_steps(steps, dt_s)
        refuse_mirrored(seeds, "replay")
        times = self.from_s + dt_s * np.arange(steps + 1, dtype=np.float64)
        last = self.table.times[-1]
        if times[-1] > last:
            raise InputError(
                f"{steps} steps of {dt_s:g} s end at {times[-1]:.0f}, the record at {last:.0f}",
                fix="use fewer steps or a longer record",
            )
        return np.repeat((self._at(times) * self.scale)[None], len(seeds), axis=0)

    def _at(self, times: Float64) -> Float64:
        known, prices = self.table.times, self.table.prices
        row = np.searchsorted(known, times, side="right") - 1
        after = np.minimum(row + 1, len(known) - 1)
        if self.between == "previous":
            return np.asarray(prices[row])
        with np.errstate(invalid="ignore"):
            part = np.where(after > row, (times - known[row]) / (known[after] - known[row]), 0.0)[:, None]
        if self.between == "linear":
            return np.asarray(prices[row] + part * (prices[after] - prices[row]))
        between = prices[row] * (prices[after] / prices[row]) ** part
        # Rows themselves are exact.
        return np.where(part == 0, prices[row], between)


@price_processes.register("replay")
class ReplaySpec(PriceSpec):
    """Recorded prices of a table, the same on every path.

    Attributes
    ----------
    process
        The name.
    file
        Table of prices, with a column ``time`` and one for each asset.
    from_s
        Unix seconds of step 0; the table's first row by default.
    between
        Price between two rows: ``previous``, ``linear`` or ``log-linear``.
    rebase
        Whether the record is scaled to start at the book's prices; else both have to agree.
    """

    kind: ClassVar[str] = "replay"

    process: Literal["replay"] = "replay"
    file: str
    from_s: FiniteFloat | None = None
    between: Between = "previous"
    rebase: bool = False

    def build(
        self, assets: Sequence[str], start_prices: Sequence[float] | Float64, folder: Path = Path()
    ) -> Replay:
        """Return the process; see `PriceSpec.build`.

        Raises
        ------
        InputError
            Also where the book's prices are not the record's, and `rebase` does not say what to do.
        """
        table = read_table(folder / self.file, assets)
        from_s = float(table.times[0]) if self.from_s is None else self.from_s
        plain = Replay(table, from_s, self.between, np.ones(len(assets)))
        wanted = starts(start_prices)
        check_assets(assets, wanted)
        if self.rebase:
            return Replay(table, from_s, self.between, wanted / plain.start)
        for name, here, there in zip(assets, wanted, plain.start, strict=True):
            if abs(here - there) > 1e-6 * there:
                raise InputError(
                    f"{name} is {here:g} in the book and {there:g} in the record at step 0",
                    fix="correct one of them, or set rebase = true",
                )
        return plain
