"""Mechanisms: how each kind of feed turns the truth into what a contract says. One file a kind.

A mechanism sees true prices on a grid of times and says what a consumer would read at each of them. The
wrong values of an incident come out of here: of a bound, a scale, a formula, a delay or a trade.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar, Literal

from pydantic import Field

from oracle.faults import FaultModel
from oracle.fields import Pair
from oracle.interfaces import FeedContext
from oracle.registry import Registry
from oracle.strict import StrictModel
from oracle.types import Reading

mechanisms: Registry[type[Any]] = Registry("feed kind", "oracle.mechanisms")


@dataclass(frozen=True, slots=True)
class Played:
    """What a consumer of one feed reads at each step.

    Attributes
    ----------
    feed
        The feed's name in the scenario.
    readings, contexts
        One for each step.
    """

    feed: str
    readings: tuple[Reading, ...]
    contexts: tuple[FeedContext, ...]


@dataclass(frozen=True, slots=True)
class World:
    """What a mechanism sees.

    Attributes
    ----------
    steps
        Unix seconds, ascending.
    blocks
        Block number at each step.
    truth
        Pair to the true price at each step.
    seen
        The same as this feed's providers see it: bent by the feed's own faults of stage ``input``.
    played
        Name to the feeds that this one reads, their faults included.
    acts
        This feed's faults of stage ``mechanism``, in the order of the file.
    """

    steps: tuple[int, ...]
    blocks: tuple[int, ...]
    truth: Mapping[str, tuple[Fraction, ...]]
    seen: Mapping[str, tuple[Fraction, ...]]
    played: Mapping[str, Played]
    acts: tuple[FaultModel, ...] = ()


class FeedModel(StrictModel):
    """What all kinds of feed share.

    Attributes
    ----------
    role
        Whether the protocol reads it, the keeper compares with it, or another feed is made of it.
    pair
        The pair reported; by default the feed's name.
    decimals
        Scale of the answer.
    """

    kind: ClassVar[str]
    acts: ClassVar[frozenset[str]] = frozenset()
    """Fault ops of stage ``mechanism`` that this kind can show."""

    role: Literal["protocol", "reference", "part"] = "protocol"
    pair: Pair | None = None
    decimals: int = Field(default=8, ge=0, le=36)

    def feeds(self) -> tuple[str, ...]:
        """Return the names of the feeds that this one reads."""
        return ()

    def pairs(self, name: str) -> tuple[str, ...]:
        """Return the true prices that this feed's providers see."""
        return (self.pair or name,)

    def play(self, name: str, world: World) -> Played:
        """Return what the feed says at each step."""
        raise NotImplementedError
