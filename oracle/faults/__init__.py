"""Fault operators: what can be wrong with a feed. One file a group.

A fault acts in one of three places. At stage ``input`` it bends what the feed's providers see, at stage
``mechanism`` it changes the machine itself (a parameter, a pool, a leg), at stage ``output`` it bends what
a consumer reads. Within a stage the order of the file is the order of application.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from oracle.fields import UnixSeconds
from oracle.interfaces import FeedContext
from oracle.registry import Registry
from oracle.strict import StrictModel
from oracle.types import Reading

faults: Registry[type[Any]] = Registry("fault op", "oracle.faults")

Stage = Literal["input", "mechanism", "output"]


class FaultModel(StrictModel):
    """What all faults share: when, on which feed, and whether history had it.

    Attributes
    ----------
    at, until
        First second at which it acts, and the first at which it no longer does; without `until` to the end.
    feed
        Name of the feed.
    ours
        True when we added it and history did not.
    note
        For the reader.
    """

    kind: ClassVar[str]
    stage: ClassVar[Stage]

    at: UnixSeconds
    until: UnixSeconds | None = Field(default=None, description="first second at which it no longer acts")
    feed: str
    ours: bool = Field(default=False, description="true when we added it and history did not")
    note: str = ""

    @model_validator(mode="after")
    def _ends_after_start(self) -> FaultModel:
        if self.until is not None and self.until <= self.at:
            raise ValueError("until must be after at")
        return self

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
