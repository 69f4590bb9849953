"""Rigs: for each kind of feed the contracts that bring its price about on chain. One file a kind.

A mechanism says what a feed answers; a rig lets contracts say it. It gets what the mechanism gets (the prices
that the feed's providers see, and the acts that change the machine itself) and never the mechanism's answers,
so that the two can be compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

from contracts_abi.calls import Function
from contracts_abi.feeds import LATEST_ANSWER
from oracle.mechanisms import FeedModel, World
from oracle.registry import Registry
from simulation.chain.plays.stage import Stage

rigs: Registry[type[Any]] = Registry("rig of a feed kind", "simulation.chain.plays.rigs")


@dataclass(frozen=True, slots=True)
class Site:
    """What a rig is built from.

    Attributes
    ----------
    stage
        Where to deploy.
    name
        The feed's name in the scenario.
    model
        Its description there.
    world
        What its mechanism sees.
    sources
        Name to address of the feeds that it reads, built before it.
    tokens
        Asset to token of the market.
    """

    stage: Stage
    name: str
    model: FeedModel
    world: World
    sources: Mapping[str, str]
    tokens: Mapping[str, str]


@runtime_checkable
class Rig(Protocol):
    """One feed on chain. A class of rigs is called with its `Site`.

    Attributes
    ----------
    early
        Whether it is built long before the first step, because its answers reach back: averages, delays.
    answer, word
        The function of `source` that tells the price, without arguments, and which of its words that is.
    """

    early: ClassVar[bool]
    answer: ClassVar[Function]
    word: ClassVar[int]

    @property
    def source(self) -> str:
        """The contract that a consumer reads."""
        ...

    @property
    def decimals(self) -> int:
        """Scale of its answer."""
        ...

    def step(self, i: int) -> None:
        """Bring the feed's contracts to step `i`: posts, trades and pokes at the stage's time."""
        ...

    def moments(self) -> tuple[int, ...]:
        """Return the times, unix seconds, at which something happens to it beside the steps."""
        ...

    def at(self, t: int) -> None:
        """Bring the feed's contracts to one of these times, which is the stage's."""
        ...

    def costs(self) -> tuple[str, ...]:
        """Return what moving it against the market took so far, one line each; nothing for most kinds."""
        ...


class Quiet:
    """What most rigs share: they need no past, answer ``latestAnswer()``, and nobody trades against them."""

    early: ClassVar[bool] = False
    answer: ClassVar[Function] = LATEST_ANSWER
    word: ClassVar[int] = 0

    def step(self, i: int) -> None:
        """Do nothing: the price is that of the feeds behind."""

    def moments(self) -> tuple[int, ...]:
        """Return none: nothing happens between two steps."""
        return ()

    def at(self, t: int) -> None:
        """Do nothing."""

    def costs(self) -> tuple[str, ...]:
        """Return nothing."""
        return ()
