"""Prices as they would be without anybody's sales: one file a process, chosen by name in ``[prices]``.

A process gives whole paths at once. Path ``i`` is a function of ``seeds[i]`` alone and is worked out by
itself, so batches and workers change no bit of it. Random numbers have a stream of their own for each asset,
named by the asset: changing, adding or leaving out one asset redraws no other.

Yearly parameters are per 365 days; steps are in seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from pydantic import BeforeValidator, SerializeAsAny, ValidationError

from contracts_abi.errors import InputError
from oracle.registry import Registry
from oracle.strict import StrictModel, input_error
from simulation.types import Float64

price_processes: Registry[type[Any]] = Registry("price process", "simulation.contagion.prices")
"""What a scenario's ``[prices]`` may name: the tables (`PriceSpec`) that build processes."""


@runtime_checkable
class PriceProcess(Protocol):
    """Exogenous prices of some assets over time."""

    @property
    def assets(self) -> tuple[str, ...]:
        """Symbols, in the order of the last axis of `paths`."""
        ...

    @property
    def start(self) -> Float64:
        """Price of each asset at step 0, shape ``(assets,)``."""
        ...

    def paths(self, seeds: Sequence[np.random.SeedSequence], steps: int, dt_s: float) -> Float64:
        """Return prices, shape ``(len(seeds), steps + 1, assets)``; column 0 is the start price.

        Parameters
        ----------
        seeds
            One a path; see `simulation.contagion.prices.streams`.
        steps
            How many steps, at least 1.
        dt_s
            Seconds a step.

        Raises
        ------
        InputError
            If the process has no such step, or cannot mirror its draws and a seed asks for it.
        """
        ...


@runtime_checkable
class WeightedProcess(PriceProcess, Protocol):
    """A process that may be drawn from a distribution of more losses than the one it stands for."""

    def log_weights(self, seeds: Sequence[np.random.SeedSequence], steps: int, dt_s: float) -> Float64:
        """Return the logarithm of each path's likelihood ratio, shape ``(len(seeds),)``.

        The mean of ``exp(log_weights) * f(paths)`` estimates what the mean of ``f`` would be without shift.
        """
        ...


class PriceSpec(StrictModel):
    """The table of a process in a scenario; the base of all."""

    kind: ClassVar[str]

    def build(
        self, assets: Sequence[str], start_prices: Sequence[float] | Float64, folder: Path = Path()
    ) -> PriceProcess:
        """Return the process for `assets`.

        Parameters
        ----------
        assets
            Symbols, in the order that the paths are to have.
        start_prices
            One for each, positive.
        folder
            Where relative names of files start.

        Raises
        ------
        InputError
            Naming the field that does not fit the assets.
        """
        raise NotImplementedError


def read_spec(table: object) -> PriceSpec:
    """Return the table of a process by its key ``process``.

    Raises
    ------
    InputError
        Naming the key that is missing, unknown or wrong.
    """
    if isinstance(table, PriceSpec):
        return table
    if not isinstance(table, Mapping):
        raise InputError(f"prices {table!r} are not a table", fix='write process = "gbm" and its parameters')
    if "process" not in table:
        raise InputError("process is missing", fix=f"known: {', '.join(price_processes)}")
    entry = price_processes.get(str(table["process"]))
    try:
        spec: PriceSpec = entry.model_validate(dict(table))
    except ValidationError as error:
        raise input_error(error, "") from None
    return spec


AnyPriceSpec = Annotated[SerializeAsAny[PriceSpec], BeforeValidator(read_spec)]
"""The field of a scenario's model that holds ``[prices]``."""


def build(
    spec: PriceSpec | Mapping[str, Any],
    assets: Sequence[str],
    start_prices: Sequence[float] | Float64,
    folder: Path = Path(),
) -> PriceProcess:
    """Return the process of a table for `assets`; see `PriceSpec.build`."""
    return read_spec(spec).build(assets, start_prices, folder)
