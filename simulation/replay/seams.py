"""The seams to the replay of prices in `oracle`, in one place.

`oracle.replay` plays the feeds and judges them; what is here only names what the market, the summary, the
matrix and the record take from it, so that they stand on names and not on where these live.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from importlib import import_module
from types import ModuleType
from typing import Any, TypeAlias

from contracts_abi.errors import ToolError
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
    return _module("oracle.replay").replay(scenario, guards=guards)


def truth_at(scenario: Scenario, pair: str, t: int) -> Fraction:
    """Return the true price of a pair at a time, exact."""
    price: Fraction = _module("oracle.truth").truth_at(scenario, pair, t)
    return price


def _module(name: str) -> ModuleType:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise ToolError(f"this version cannot replay prices: it comes without {name}") from None
