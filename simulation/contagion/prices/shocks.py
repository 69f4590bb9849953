"""Scheduled shocks: at a step an asset's price jumps, and stays displaced by that factor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import Field, FiniteFloat

from contracts_abi.errors import InputError, UnknownNameError
from oracle.strict import StrictModel
from simulation.types import Float64


class ShockSpec(StrictModel):
    """A row of ``[[shocks]]``.

    Attributes
    ----------
    asset
        Symbol.
    step
        First step at the new price, at least 1.
    log_jump
        What is added to the logarithm of the price; -0.35 is a fall of 29.5 per cent.
    """

    asset: str
    step: int = Field(ge=1)
    log_jump: FiniteFloat


@dataclass(frozen=True, slots=True)
class Shock:
    """A jump of one asset.

    Attributes
    ----------
    asset
        Index into the paths' last axis.
    step
        First column at the new price.
    log_jump
        What is added to the logarithm of the price.
    """

    asset: int
    step: int
    log_jump: float


def shocks_of(specs: Sequence[ShockSpec], assets: Sequence[str]) -> tuple[Shock, ...]:
    """Return the shocks of a scenario's rows.

    Raises
    ------
    UnknownNameError
        For a symbol that is none of `assets`.
    """
    for spec in specs:
        if spec.asset not in assets:
            raise UnknownNameError("asset of a shock", spec.asset, assets)
    return tuple(Shock(list(assets).index(s.asset), s.step, s.log_jump) for s in specs)


def with_shocks(prices: Float64, shocks: Sequence[Shock]) -> Float64:
    """Return paths with the shocks, a copy.

    Parameters
    ----------
    prices
        Shape ``(paths, steps + 1, assets)``.
    shocks
        In any order; two at one step add up.

    Raises
    ------
    InputError
        For a step or an asset that the paths do not have.
    """
    out = prices.copy()
    _, columns, assets = prices.shape
    total = np.zeros((columns, assets))
    for shock in shocks:
        if not 1 <= shock.step < columns:
            raise InputError(f"a shock at step {shock.step}", fix=f"use 1 to {columns - 1}")
        if not 0 <= shock.asset < assets:
            raise InputError(f"a shock of asset {shock.asset}", fix=f"use 0 to {assets - 1}")
        total[shock.step :, shock.asset] += shock.log_jump
    moved = total != 0
    out[:, moved] *= np.exp(total[moved])
    return out
