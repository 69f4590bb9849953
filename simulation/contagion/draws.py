"""Random numbers that do not depend on the order of asking: each is a hash of what it is for.

A draw is named by its path's key, a channel, a step and an entity (an account, a feed, a keeper). So a
channel that is switched off changes nobody else's draws (common random numbers), and neither do batches,
workers or accounts that were passed over. The hash is the finaliser of SplitMix64 (Steele, Lea and Flood,
2014), whose output passes the usual batteries when fed with a counter.
"""

from __future__ import annotations

from collections.abc import Sequence

import numba
import numpy as np
from numpy.typing import NDArray

from simulation.types import Float64

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_M1 = np.uint64(0xBF58476D1CE4E5B9)
_M2 = np.uint64(0x94D049BB133111EB)
_S30, _S27, _S31, _S11 = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(11)
_UNIT = 2.0**-53


def path_keys(seeds: Sequence[np.random.SeedSequence]) -> NDArray[np.uint64]:
    """Return one key a path, shape (paths,)."""
    return np.array([seed.generate_state(1, np.uint64)[0] for seed in seeds], dtype=np.uint64)


@numba.njit(cache=True, inline="always")
def mix(x: np.uint64) -> np.uint64:
    """Return the 64 bits that SplitMix64 makes of a counter."""
    x = (x ^ (x >> _S30)) * _M1
    x = (x ^ (x >> _S27)) * _M2
    return x ^ (x >> _S31)


@numba.njit(cache=True)
def uniform(key: np.uint64, channel: int, step: int, entity: int) -> float:
    """Return the draw in [0, 1) of an entity in a channel's step on the path of `key`."""
    x = mix(key + np.uint64(channel + 1) * _GOLDEN)
    x = mix(x + np.uint64(step + 1) * _GOLDEN)
    x = mix(x + np.uint64(entity + 1) * _GOLDEN)
    return np.float64(x >> _S11) * _UNIT


def uniforms(keys: NDArray[np.uint64], channel: int, step: int, entities: int) -> Float64:
    """Return the draws of entities 0 to ``entities - 1`` on every path, shape (paths, entities)."""
    with np.errstate(over="ignore"):
        x = _mix(keys + np.uint64(channel + 1) * _GOLDEN)
        x = _mix(x + np.uint64(step + 1) * _GOLDEN)
        y = _mix(x[:, None] + (np.arange(entities, dtype=np.uint64) + np.uint64(1)) * _GOLDEN)
    return (y >> _S11).astype(np.float64) * _UNIT


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    x = (x ^ (x >> _S30)) * _M1
    x = (x ^ (x >> _S27)) * _M2
    return x ^ (x >> _S31)
