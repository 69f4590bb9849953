"""Blocks of the past in a new order: all assets' returns of an hour stay together, and so do neighbours.

Fixed blocks start at a random row and run for `block` rows (Künsch 1989); stationary ones end with
probability ``1 / block`` after each row, and go on at the head of the table after its last row (Politis and
Romano 1994). The mean of a stationary path's returns is the table's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field, FiniteFloat

from contracts_abi.errors import InputError
from simulation.contagion.prices import PriceSpec, price_processes
from simulation.contagion.prices.fields import check_assets, check_steps, starts
from simulation.contagion.prices.history import read_table
from simulation.contagion.prices.streams import Seeds, prices_from, refuse_mirrored, stream
from simulation.types import Float64, Int64


@dataclass(frozen=True, slots=True)
class BlockBootstrap:
    """Past log returns, drawn in blocks.

    Attributes
    ----------
    assets
        Symbols.
    start
        Prices at step 0, shape ``(assets,)``.
    returns
        Log returns of one period, oldest first, shape ``(rows, assets)``.
    period_s
        Seconds of the period; a step has to be as long.
    block
        Rows of a block, on average when stationary.
    scheme
        ``stationary`` or ``fixed``.
    """

    assets: tuple[str, ...]
    start: Float64
    returns: Float64
    period_s: float
    block: float
    scheme: Literal["stationary", "fixed"] = "stationary"

    def __post_init__(self) -> None:
        check_assets(self.assets, self.start)
        rows = len(self.returns)
        if self.returns.shape != (rows, len(self.assets)) or rows < 1 or not np.isfinite(self.returns).all():
            raise InputError(
                f"returns of shape {self.returns.shape} are not those of {len(self.assets)} assets",
                fix="give a row each period and a finite column each asset",
            )
        if not 1 <= self.block <= rows:
            raise InputError(f"block is {self.block:g}", fix=f"use 1 to {rows}, the rows of the history")
        if self.scheme == "fixed" and self.block != int(self.block):
            raise InputError(f"block is {self.block:g}", fix="fixed blocks have a whole number of rows")
        if self.scheme not in ("stationary", "fixed"):
            raise InputError(f"scheme is {self.scheme!r}", fix="use 'stationary' or 'fixed'")

    def rows(self, seed: np.random.SeedSequence, steps: int) -> Int64:
        """Return which row of the history each step takes, shape ``(steps,)``."""
        rng, rows = stream(seed, "block"), len(self.returns)
        at = np.arange(steps)
        if self.scheme == "fixed":
            length = int(self.block)
            first = (rng.random(-(-steps // length)) * (rows - length + 1)).astype(np.int64)
            return np.asarray(first[at // length] + at % length)
        # Two draws a step, also where the block goes on: so a longer path begins like a shorter one.
        u = rng.random((steps, 2))
        new = u[:, 0] * self.block < 1
        new[0] = True
        began = np.maximum.accumulate(np.where(new, at, 0))
        first = (u[:, 1] * rows).astype(np.int64)
        return np.asarray((first[began] + at - began) % rows)

    def paths(self, seeds: Seeds, steps: int, dt_s: float) -> Float64:
        """Return prices, shape ``(len(seeds), steps + 1, assets)``; see `PriceProcess.paths`."""
        check_steps(steps, dt_s)
        refuse_mirrored(seeds, "bootstrap")
        check_period(dt_s, self.period_s)
        out = np.empty((len(seeds), steps + 1, len(self.assets)))
        for path, seed in zip(out, seeds, strict=True):
            moves = np.ascontiguousarray(self.returns[self.rows(seed, steps)].T)
            prices_from(self.start, moves, path)
        return out


def check_period(dt_s: float, period_s: float) -> None:
    """Refuse a step that is not as long as the history's.

    Raises
    ------
    InputError
        Naming both.
    """
    if abs(dt_s - period_s) > 1e-9 * period_s:
        raise InputError(
            f"a step of {dt_s:g} s, and a history with a return each {period_s:g} s",
            fix=f"use steps of {period_s:g} s, or a history of steps",
        )


@price_processes.register("bootstrap")
class BlockBootstrapSpec(PriceSpec):
    """Blocks of past returns of all assets together, from a table of prices.

    Attributes
    ----------
    process
        The name.
    file
        Table of prices, with a column ``time`` and one for each asset.
    period_s
        Seconds between its rows, and of a step.
    block
        Rows of a block, on average when stationary.
    scheme
        ``stationary`` or ``fixed``.
    """

    kind: ClassVar[str] = "bootstrap"

    process: Literal["bootstrap"] = "bootstrap"
    file: str
    period_s: FiniteFloat = Field(gt=0)
    block: FiniteFloat = Field(ge=1)
    scheme: Literal["stationary", "fixed"] = "stationary"

    def build(
        self, assets: Sequence[str], start_prices: Sequence[float] | Float64, folder: Path = Path()
    ) -> BlockBootstrap:
        """Return the process; see `PriceSpec.build`."""
        returns = read_table(folder / self.file, assets).log_returns(self.period_s)
        return BlockBootstrap(
            tuple(assets), starts(start_prices), returns, self.period_s, self.block, self.scheme
        )
