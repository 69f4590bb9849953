"""Parameters of price processes: one number for all assets or one for each, correlations, and checks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Final

import numpy as np
from pydantic import AfterValidator, FiniteFloat

from contracts_abi.errors import InputError, UnknownNameError
from simulation.types import Bool, Float64

PerAsset = FiniteFloat | dict[str, FiniteFloat]
"""One number for every asset, or a table by symbol."""

MOST_VOLATILITY: Final = 20.0
"""Deviation of the log price a year, beyond which it is taken for per cent; a tenth in an hour is 9.4."""

MOST_JUMP: Final = 5.0
"""Mean of a log jump, up or down, beyond which it is taken for per cent; -5 leaves a 150th of the price."""

MOST_JUMP_DEVIATION: Final = 2.0
"""Deviation of a log jump beyond which it is taken for per cent; 2 is a factor of seven and more."""


def _at_most(value: PerAsset, most: float, unit: str) -> PerAsset:
    """Refuse a number that only another unit explains."""
    for one in value.values() if isinstance(value, Mapping) else (value,):
        if abs(one) > most:
            raise InputError(f"{one:g} is beyond {most:g}, the most there is", fix=unit)
    return value


def _plausible_volatility(value: PerAsset) -> PerAsset:
    return _at_most(value, MOST_VOLATILITY, "a part of one a year: 0.9 for 90 %")


def _plausible_jump(value: PerAsset) -> PerAsset:
    return _at_most(value, MOST_JUMP, "the logarithm of a factor: -0.03 for a fall by 3 %")


def _plausible_deviation(value: PerAsset) -> PerAsset:
    return _at_most(value, MOST_JUMP_DEVIATION, "of the logarithm of a factor: 0.03 for 3 %")


Volatility = Annotated[PerAsset, AfterValidator(_plausible_volatility)]
"""A yearly deviation of the log price, at most `MOST_VOLATILITY`."""

JumpMean = Annotated[PerAsset, AfterValidator(_plausible_jump)]
"""A mean of log jumps, at most `MOST_JUMP` up or down."""

JumpDeviation = Annotated[PerAsset, AfterValidator(_plausible_deviation)]
"""A deviation of log jumps, at most `MOST_JUMP_DEVIATION`."""

Correlations = FiniteFloat | dict[str, FiniteFloat]
"""One correlation for every pair, or a table by ``"WETH/WBTC"``; pairs that are left out have 0."""

_ROUNDING: Final = 1e-10


def per_asset(field: str, value: PerAsset, assets: Sequence[str], default: float | None = None) -> Float64:
    """Return a parameter as an array in the order of `assets`.

    Parameters
    ----------
    field
        Its name, for messages.
    value
        What the table says.
    default
        For assets that a table leaves out; None when each is needed.

    Raises
    ------
    InputError
        For a symbol that is no asset here, or an asset without a value.
    """
    if not isinstance(value, Mapping):
        return np.full(len(assets), float(value))
    for name in value:
        if name not in assets:
            raise UnknownNameError(f"asset of {field}", name, assets)
    for name in assets:
        if name not in value and default is None:
            raise InputError(f"{field} has no value for {name}", fix=f"add {name} to {field}")
    return np.array([float(value.get(name, default if default is not None else 0.0)) for name in assets])


def correlation_matrix(value: Correlations, assets: Sequence[str]) -> Float64:
    """Return the correlations of a table as a matrix in the order of `assets`.

    Raises
    ------
    InputError
        For a pair that is not two assets of these, one that is given twice, or no correlation.
    """
    n = len(assets)
    if not isinstance(value, Mapping):
        matrix = np.full((n, n), float(value))
        np.fill_diagonal(matrix, 1.0)
        return matrix
    matrix = np.eye(n)
    seen: set[frozenset[str]] = set()
    for key, rho in value.items():
        pair = key.split("/")
        if len(pair) != 2 or pair[0] == pair[1]:
            raise InputError(f"correlation of {key!r} is not of a pair", fix='write it as "WETH/WBTC"')
        for name in pair:
            if name not in assets:
                raise UnknownNameError("asset of correlation", name, assets)
        if frozenset(pair) in seen:
            raise InputError(f"correlation of {key!r} is given twice", fix="leave one out")
        seen.add(frozenset(pair))
        a, b = (list(assets).index(name) for name in pair)
        matrix[a, b] = matrix[b, a] = float(rho)
    return matrix


def cholesky(correlation: Float64, assets: Sequence[str]) -> Float64:
    """Return the lower triangle whose product with its transpose is `correlation`.

    Written out, so that a correlation of exactly 1 passes and the bits do not depend on a library.

    Raises
    ------
    InputError
        If the matrix is not a correlation matrix of these assets, naming where it fails.
    """
    n = len(assets)
    check_shape("correlation", correlation, (n, n))
    if not (np.diagonal(correlation) == 1).all():
        raise InputError("correlation of an asset with itself is not 1", fix="write 1 on the diagonal")
    if not np.allclose(correlation, correlation.T, rtol=0, atol=1e-12):
        raise InputError("correlation is not symmetric", fix="give each pair one value")
    a, b = divmod(int(np.argmax(np.abs(correlation))), n)
    if abs(correlation[a, b]) > 1:
        raise InputError(
            f"correlation of {assets[a]}/{assets[b]} is {correlation[a, b]:g}", fix="use a value in [-1, 1]"
        )
    factor = np.zeros((n, n))
    for a in range(n):
        for b in range(a + 1):
            rest = float(correlation[a, b]) - sum(float(factor[a, k] * factor[b, k]) for k in range(b))
            if a == b:
                if rest < -_ROUNDING:
                    raise InputError(
                        f"correlation of {assets[a]} with the assets before it cannot be, together",
                        fix="lower the correlations, the matrix must be positive semidefinite",
                    )
                factor[a, a] = np.sqrt(max(rest, 0.0)) if rest > _ROUNDING else 0.0
            elif factor[b, b] > 0:
                factor[a, b] = rest / factor[b, b]
            elif abs(rest) > 1e-5:
                raise InputError(
                    f"correlation of {assets[a]}/{assets[b]} contradicts a correlation of 1 before it",
                    fix="assets of correlation 1 need equal correlations with all others",
                )
    return factor


def solve_lower(factor: Float64, value: Float64) -> Float64:
    """Return x with ``factor @ x = value`` for a lower triangle without a zero on its diagonal."""
    x = np.zeros(len(value))
    for a in range(len(value)):
        x[a] = (value[a] - sum(float(factor[a, b] * x[b]) for b in range(a))) / factor[a, a]
    return x


def check_shape(field: str, value: Float64, shape: tuple[int, ...]) -> None:
    """Refuse an array that is not of `shape` or has a value that is not finite.

    Raises
    ------
    InputError
        Naming the field.
    """
    if np.shape(value) != shape:
        raise InputError(
            f"{field} has the shape {np.shape(value)}, not {shape}", fix="give one value an asset"
        )
    if not np.isfinite(value).all():
        raise InputError(f"{field} has a value that is not finite: {np.asarray(value).tolist()}")


def check_assets(assets: Sequence[str], start: Float64) -> None:
    """Refuse no assets, an asset that is there twice, or a start price that is not positive.

    Raises
    ------
    InputError
        Naming the asset.
    """
    if not assets:
        raise InputError("a price process without an asset", fix="name one")
    for name in assets:
        if list(assets).count(name) > 1:
            raise InputError(f"asset {name} is there twice", fix="leave one out")
    check_shape("start", start, (len(assets),))
    check_each("start", start, assets, start > 0, "positive")


def check_each(field: str, value: Float64, assets: Sequence[str], holds: Bool, rule: str) -> None:
    """Refuse the first asset whose value does not hold to `rule`.

    Raises
    ------
    InputError
        Naming field, asset and value.
    """
    for name, one, good in zip(assets, value, holds, strict=True):
        if not good:
            raise InputError(f"{field} of {name} is {float(one):g}", fix=f"it must be {rule}")


def check_steps(steps: int, dt_s: float) -> None:
    """Refuse fewer than one step, or one that takes no time.

    Raises
    ------
    InputError
        Naming the value.
    """
    if steps < 1:
        raise InputError(f"steps is {steps}", fix="use 1 or more")
    if not (dt_s > 0 and np.isfinite(dt_s)):
        raise InputError(f"dt_s is {dt_s}", fix="use a positive number of seconds")


def starts(start_prices: Sequence[float] | Float64) -> Float64:
    """Return start prices as an array."""
    return np.asarray(start_prices, dtype=np.float64)
