"""Several processes side by side, and prices of one asset as a multiple of another's.

A staked token is its rate times what it stands for: a peg's process for the rate, relative to the other
asset. Parts draw independently of each other; correlation is within a part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from contracts_abi.errors import InputError, UnknownNameError
from oracle.strict import StrictModel
from simulation.contagion.prices import (
    AnyPriceSpec,
    PriceProcess,
    PriceSpec,
    WeightedProcess,
    price_processes,
)
from simulation.contagion.prices.fields import check_assets, check_steps, starts
from simulation.contagion.prices.streams import Seeds, child
from simulation.types import Float64


@dataclass(frozen=True, slots=True)
class Part:
    """One process of a composite.

    Attributes
    ----------
    process
        Of its assets; where `relative_to` is set, of their prices in that asset.
    relative_to
        Symbol of the asset that the prices are multiples of, from another part; None for prices.
    """

    process: PriceProcess
    relative_to: str | None = None


@dataclass(frozen=True, slots=True)
class Composite:
    """Independent processes of different assets.

    Attributes
    ----------
    assets
        Symbols, in the order of the paths.
    start
        Prices at step 0, shape ``(assets,)``.
    parts
        Together they have each asset once; the base of a relative part comes before it.
    """

    assets: tuple[str, ...]
    start: Float64
    parts: tuple[Part, ...]

    def __post_init__(self) -> None:
        check_assets(self.assets, self.start)
        seen: list[str] = []
        for part in self.parts:
            if part.relative_to is not None and part.relative_to not in seen:
                raise InputError(
                    f"prices relative to {part.relative_to}, which no part before has",
                    fix="name an asset of an earlier part",
                )
            seen.extend(part.process.assets)
        for name in seen:
            if name not in self.assets:
                raise UnknownNameError("asset of a part", name, self.assets)
            if seen.count(name) > 1:
                raise InputError(f"asset {name} is in two parts", fix="leave it out of one")
        for name in self.assets:
            if name not in seen:
                raise InputError(f"asset {name} is in no part", fix="add it to one")

    def paths(self, seeds: Seeds, steps: int, dt_s: float) -> Float64:
        """Return prices, shape ``(len(seeds), steps + 1, assets)``; see `PriceProcess.paths`."""
        check_steps(steps, dt_s)
        out = np.empty((len(seeds), steps + 1, len(self.assets)))
        for k, part in enumerate(self.parts):
            prices = part.process.paths([child(seed, k) for seed in seeds], steps, dt_s)
            if part.relative_to is not None:
                prices *= out[:, :, [self.assets.index(part.relative_to)]]
            out[:, :, [self.assets.index(name) for name in part.process.assets]] = prices
        # A ratio times its base may miss the start by the last bit.
        out[:, 0] = self.start
        return out

    def log_weights(self, seeds: Seeds, steps: int, dt_s: float) -> Float64:
        """Return the log likelihood ratio of each path: the sum over the parts that have one."""
        check_steps(steps, dt_s)
        total = np.zeros(len(seeds))
        for k, part in enumerate(self.parts):
            if isinstance(part.process, WeightedProcess):
                total += part.process.log_weights([child(seed, k) for seed in seeds], steps, dt_s)
        return total


class PartSpec(StrictModel):
    """A row of ``[[prices.parts]]``.

    Attributes
    ----------
    assets
        Symbols.
    prices
        The table of their process.
    relative_to
        Asset of an earlier part that these prices are multiples of.
    """

    assets: tuple[str, ...] = Field(min_length=1)
    prices: AnyPriceSpec
    relative_to: str | None = None


@price_processes.register("composite")
class CompositeSpec(PriceSpec):
    """Several processes side by side, each of its own assets.

    Attributes
    ----------
    process
        The name.
    parts
        Assets and process of each; together they have every asset once.
    """

    kind: ClassVar[str] = "composite"

    process: Literal["composite"] = "composite"
    parts: tuple[PartSpec, ...] = Field(min_length=1)

    def build(
        self, assets: Sequence[str], start_prices: Sequence[float] | Float64, folder: Path = Path()
    ) -> Composite:
        """Return the process; see `PriceSpec.build`."""
        start = starts(start_prices)
        check_assets(assets, start)
        at = dict(zip(assets, start, strict=True))
        parts = []
        for spec in self.parts:
            for name in (*spec.assets, *([] if spec.relative_to is None else [spec.relative_to])):
                if name not in at:
                    raise UnknownNameError("asset of a part", name, assets)
            base = 1.0 if spec.relative_to is None else at[spec.relative_to]
            process = spec.prices.build(spec.assets, [at[name] / base for name in spec.assets], folder)
            parts.append(Part(process, spec.relative_to))
        return Composite(tuple(assets), start, tuple(parts))
