"""What a feed of the oracle layer said, incident by incident, laid over the prices of a simulation.

An oracle scenario (packaged incident or file) has its own truth, sources, faults and guards. Of one of its
feeds two things are taken, step by step: its reading over the truth, which a venue's price is multiplied by,
and whether the guarded adapter would liquidate on it. So every fault and guard of `oracle` can be met by a
book of any size, at any price level.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from contracts_abi.errors import UnknownNameError
from oracle.decisions import Purpose, decide
from oracle.replay import replay
from oracle.scenario import load_scenario
from oracle.types import NoData
from simulation.types import Bool, Float64


@dataclass(frozen=True, slots=True)
class Told:
    """What one feed said at every step of a simulation.

    Attributes
    ----------
    ratio
        Reading over truth, NaN where there was none, shape (steps + 1,).
    allowed
        Whether the guarded adapter lets a liquidation act on it, shape (steps + 1,).
    """

    ratio: Float64
    allowed: Bool


def require_feed(source: str, feed: str) -> None:
    """Refuse an oracle scenario that is none, or that has no such feed.

    Raises
    ------
    InputError
        If there is no such scenario; `UnknownNameError` if it has no such feed.
    """
    known = load_scenario(source).feeds
    if feed not in known:
        raise UnknownNameError(f"feed of {source}", feed, known)


def told(source: str, feed: str, steps: int, dt_s: float) -> Told:
    """Return what a feed of an oracle scenario said, its first moment at step 0.

    Before the first and after the last moment that it has, the nearest one holds.

    Raises
    ------
    InputError
        If there is no such scenario; `UnknownNameError` if it has no such feed.
    """
    scenario = load_scenario(source)
    played = replay(scenario)
    if feed not in played.moments[0].feeds:
        raise UnknownNameError(f"feed of {source}", feed, played.moments[0].feeds)
    start = played.moments[0].t
    at = np.array([moment.t - start for moment in played.moments], dtype=np.float64)
    ratio, allowed = np.full(len(at), np.nan), np.zeros(len(at), dtype=np.bool_)
    for k, moment in enumerate(played.moments):
        own = moment.feeds[feed]
        if not isinstance(own.reading, NoData):
            said = Fraction(own.reading.mantissa, 10**own.reading.decimals)
            ratio[k] = float(said / own.truth)
        adapted = moment.adapted.get(feed)
        allowed[k] = adapted is not None and decide(adapted, Purpose.LIQUIDATE).allowed
    picked = np.searchsorted(at, np.arange(steps + 1) * dt_s, side="right") - 1
    picked = np.clip(picked, 0, len(at) - 1)
    return Told(ratio[picked], allowed[picked])
