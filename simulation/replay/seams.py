"""The seams to the replay of prices in `oracle`, in one place.

`oracle.replay` plays the feeds and judges them; what is here only names what the market, the summary, the
matrix and the record take from it, so that they stand on names and not on where these live.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from importlib import import_module
from typing import Any, TypeAlias

from oracle.interfaces import Guard

# Loose until oracle.replay and the extended scenario have landed; then these are its own types.
Replay: TypeAlias = Any
Moment: TypeAlias = Any
FeedMoment: TypeAlias = Any
Scenario: TypeAlias = Any
Expectation: TypeAlias = Any
Fault: TypeAlias = Any
Actor: TypeAlias = Any


def replay(scenario: Scenario, *, guards: Sequence[Guard] | None = None) -> Replay:
    """Play a scenario's feeds and judge them; the policy's guards without any."""
    return import_module("oracle.replay").replay(scenario, guards=guards)


def truth_at(scenario: Scenario, pair: str, t: int) -> Fraction:
    """Return the true price of a pair at a time, exact."""
    price: Fraction = import_module("oracle.truth").truth_at(scenario, pair, t)
    return price
