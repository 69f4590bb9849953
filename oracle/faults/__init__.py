"""Fault operators: what can be wrong with a feed. One file a group.

A fault acts in one of three places. At stage ``input`` it bends what the feed's providers see, at stage
``mechanism`` it changes the machine itself (a parameter, a pool, a leg), at stage ``output`` it bends what
a consumer reads. Within a stage the order of the file is the order of application.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from oracle.fields import UnixSeconds
from oracle.interfaces import FeedContext
from oracle.registry import Registry
from oracle.strict import StrictModel
from oracle.types import Reading

faults: Registry[type[Any]] = Registry("fault op", "oracle.faults")

Stage = Literal["input", "mechanism", "output"]

_NOT_YET = -1
"""Start of a fault whose block has not been turned into a time."""


class FaultModel(StrictModel):
    """What all faults share: when, on which feed, and whether history had it.

    Attributes
    ----------
    at, until
        First second at which it acts, and the first at which it no longer does; without `until` to the end.
    at_block
        The block from which on it acts, in place of `at`; the scenario's chain and clock say when that is.
    feed
        Name of the feed.
    ours
        True when we added it and history did not.
    note
        For the reader.
    """

    kind: ClassVar[str]
    stage: ClassVar[Stage]

    # Without one there is a block, and `on_chain` gives the time before anybody asks for it.
    at: UnixSeconds = Field(default_factory=lambda: _NOT_YET)
    at_block: int | None = Field(default=None, ge=0, description="block from which on it acts, instead of at")
    until: UnixSeconds | None = Field(default=None, description="first second at which it no longer acts")
    feed: str
    ours: bool = Field(default=False, description="true when we added it and history did not")
    note: str = ""

    @model_validator(mode="after")
    def _one_start_before_the_end(self) -> Self:
        if (self.at_block is None) == (self.at == _NOT_YET):
            raise ValueError("needs exactly one of at and at_block")
        if self.until is not None and self.until <= self.at:
            raise ValueError("until must be after at")
        return self

    def on_chain(self, start: int, block0: int, block_time_s: int) -> Self:
        """Return the fault with times in place of blocks.

        Parameters
        ----------
        start, block0
            Time and number of the block with which the clock starts.
        block_time_s
            Seconds between blocks.

        Raises
        ------
        ValueError
            If its block is before the first, or not before its end.
        """
        if self.at_block is None:
            return self
        if self.at_block < block0:
            raise ValueError(f"at_block {self.at_block} is before the clock's start, block {block0}")
        at = start + (self.at_block - block0) * block_time_s
        if self.until is not None and self.until <= at:
            raise ValueError(f"until must be after at_block {self.at_block}")
        return self.model_copy(update={"at": at, "at_block": None})

    def active(self, t: int) -> bool:
        """Return whether the fault acts at `t`, unix seconds."""
        return self.at <= t and (self.until is None or t < self.until)

    @property
    def op(self) -> str:
        """Return the name by which a file calls it."""
        return self.kind

    def acts_in(self) -> Stage:
        """Return where it acts: `stage`, unless the file or its other keys say otherwise."""
        return self.stage

    def apply(self, steps: Sequence[int], readings: Sequence[Reading]) -> list[Reading]:
        """Return the readings at `steps` as the fault leaves them; stages ``input`` and ``output``."""
        raise NotImplementedError

    def bend_contexts(self, contexts: Sequence[FeedContext]) -> list[FeedContext]:
        """Return what is known of the feed beside its readings, as the fault leaves it."""
        return list(contexts)


def bend(steps: Sequence[int], readings: Sequence[Reading], several: Sequence[FaultModel]) -> list[Reading]:
    """Return a recorded or decoded series as faults leave it, the first of them applied first.

    Parameters
    ----------
    steps
        Unix seconds at which the series is read.
    readings
        One for each step.
    """
    bent = list(readings)
    for fault in several:
        bent = fault.apply(steps, bent)
    return bent
