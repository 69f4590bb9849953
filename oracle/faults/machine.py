"""Faults of the machine: a leg that is left out, a cap that is set wrong."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from oracle.faults import FaultModel, Stage, faults
from oracle.fields import PositiveDecimal, UnixSeconds


@faults.register("missing_leg")
class MissingLeg(FaultModel):
    """A composite feed is told without one of its legs.

    Attributes
    ----------
    leg
        Name of the feed or pair that is left out.
    """

    kind: ClassVar[Literal["missing_leg"]] = "missing_leg"
    stage: ClassVar[Stage] = "mechanism"

    leg: str


@faults.register("cap_params")
class CapParams(FaultModel):
    """The parameters of a capped rate are set, as its owner may.

    Attributes
    ----------
    snapshot_ratio, snapshot_at
        The ratio from which the cap grows, and the time that it is said to be of.
    growth_bps_year
        Growth a year; as before when left out.
    """

    kind: ClassVar[Literal["cap_params"]] = "cap_params"
    stage: ClassVar[Stage] = "mechanism"

    snapshot_ratio: PositiveDecimal
    snapshot_at: UnixSeconds
    growth_bps_year: int | None = Field(default=None, ge=0)
