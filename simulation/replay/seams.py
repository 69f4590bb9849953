"""What the market, the summary, the matrix and the record take from the replay of prices in `oracle`."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from oracle import replay as _replay
from oracle import scenario as _scenario
from oracle.faults import FaultModel as Fault
from oracle.interfaces import Guard
from oracle.replay import FeedMoment, Moment, Replay, guards_of
from oracle.scenario import ActorSpec as Actor
from oracle.scenario import Expectation, Scenario

__all__ = [
    "Actor",
    "Expectation",
    "Fault",
    "FeedMoment",
    "Moment",
    "Replay",
    "Scenario",
    "guards_of",
    "replay",
    "truth_at",
]


def replay(scenario: Scenario, *, guards: Sequence[Guard] | None = None, fallback: bool = True) -> Replay:
    """Play a scenario's feeds and judge them; the policy's guards without any."""
    return _replay.replay(scenario, guards=guards, fallback=fallback)


def truth_at(scenario: Scenario, pair: str, t: int) -> Fraction:
    """Return the true price of a pair at a time, exact."""
    return _scenario.truth_at(scenario, pair, t)
