"""Where the random numbers of price paths come from, and how two paths come to mirror each other.

A stream is named by its path's seed, what it is for and which asset it drives. A seed whose last spawn key
is `MIRROR` stands for the same path with the sign of every symmetric draw turned: being antithetic is a
property of the seed, so that path ``i`` still depends on ``seeds[i]`` alone and batches need no even start.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from typing import Final

import numpy as np

from contracts_abi.errors import InputError
from simulation.types import Float64

MIRROR: Final = 0xFFFF_FFFF
"""Last spawn key of a mirrored seed; no run spawns that many children."""

YEAR_S: Final = 365 * 86_400
"""Seconds of the year that yearly parameters are per."""

Seeds = Sequence[np.random.SeedSequence]


def years(dt_s: float) -> float:
    """Return seconds as a part of 365 days."""
    return dt_s / YEAR_S


def path_seeds(seed: int, first: int, count: int, antithetic: bool = False) -> list[np.random.SeedSequence]:
    """Return the seeds of the paths ``first`` to ``first + count - 1`` of a run.

    Parameters
    ----------
    seed
        The run's.
    first, count
        Which paths; any batches of one run together are the run.
    antithetic
        Whether path ``2 k + 1`` mirrors path ``2 k``.
    """
    if not antithetic:
        return [np.random.SeedSequence(seed, spawn_key=(i,)) for i in range(first, first + count)]
    return [
        np.random.SeedSequence(seed, spawn_key=(i // 2, MIRROR) if i % 2 else (i // 2,))
        for i in range(first, first + count)
    ]


def antithetic_pairs(seeds: Seeds) -> list[np.random.SeedSequence]:
    """Return each seed and its mirrored twin, twice as many."""
    return [twin for seed in seeds for twin in (seed, mirrored(seed))]


def mirrored(seed: np.random.SeedSequence) -> np.random.SeedSequence:
    """Return the seed of the path of opposite sign; twice mirrored is the seed itself."""
    key = seed.spawn_key[:-1] if is_mirrored(seed) else (*seed.spawn_key, MIRROR)
    return np.random.SeedSequence(seed.entropy, spawn_key=key)


def is_mirrored(seed: np.random.SeedSequence) -> bool:
    """Tell whether the draws of `seed` are to be turned."""
    return seed.spawn_key[-1:] == (MIRROR,)


def sign_of(seed: np.random.SeedSequence) -> float:
    """Return -1 for a mirrored seed, else 1."""
    return -1.0 if is_mirrored(seed) else 1.0


def refuse_mirrored(seeds: Seeds, process: str) -> None:
    """Refuse seeds that ask for what a process without symmetric draws cannot do.

    Raises
    ------
    InputError
        If one of the seeds is mirrored.
    """
    if any(is_mirrored(seed) for seed in seeds):
        raise InputError(f"process {process!r} has no antithetic paths", fix="leave antithetic out")


def child(seed: np.random.SeedSequence, key: int) -> np.random.SeedSequence:
    """Return a seed for a part of a path; mirrored when `seed` is."""
    if is_mirrored(seed):
        return np.random.SeedSequence(seed.entropy, spawn_key=(*seed.spawn_key[:-1], key, MIRROR))
    return np.random.SeedSequence(seed.entropy, spawn_key=(*seed.spawn_key, key))


def stream(seed: np.random.SeedSequence, purpose: str, asset: str = "") -> np.random.Generator:
    """Return the generator of one purpose and asset on the path of `seed`, its mirror's too."""
    path = seed.spawn_key[:-1] if is_mirrored(seed) else seed.spawn_key
    key = (*path, _key(purpose, asset))
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed.entropy, spawn_key=key)))


@functools.cache
def _key(purpose: str, asset: str) -> int:
    # 64 bits: by chance no two names of a scenario share a stream.
    return int.from_bytes(hashlib.blake2s(f"{purpose}/{asset}".encode(), digest_size=8).digest())


def normals(seed: np.random.SeedSequence, assets: Sequence[str], steps: int) -> Float64:
    """Return standard normal draws, shape ``(assets, steps)``, each asset's from its own stream.

    The first draws of a longer path are those of a shorter one. A mirrored seed gives the negative.
    """
    z = np.empty((len(assets), steps))
    for row, asset in zip(z, assets, strict=True):
        stream(seed, "normal", asset).standard_normal(out=row)
    return -z if is_mirrored(seed) else z


def correlated(factor: Float64, z: Float64) -> Float64:
    """Return ``factor @ z`` for a lower triangle, added in one order whatever the machine's BLAS does.

    Parameters
    ----------
    factor
        Lower triangle, shape ``(assets, assets)``.
    z
        Shape ``(assets, steps)``.
    """
    out = np.empty_like(z)
    for a in range(len(z)):
        np.multiply(z[a], factor[a, a], out=out[a])
        for b in range(a):
            if factor[a, b] != 0.0:
                out[a] += factor[a, b] * z[b]
    return out


def prices_from(start: Float64, moves: Float64, out: Float64) -> None:
    """Write the prices of one path from its log returns.

    Parameters
    ----------
    start
        Shape ``(assets,)``.
    moves
        Log returns, shape ``(assets, steps)``; overwritten.
    out
        Shape ``(steps + 1, assets)``.
    """
    np.cumsum(moves, axis=1, out=moves)
    np.exp(moves, out=moves)
    out[0] = start
    np.multiply(moves.T, start, out=out[1:])
