"""Faults of the chain's gas: a base fee at which nobody liquidates any more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from typing import ClassVar, Final, Literal

from pydantic import Field, field_validator, model_validator

from oracle.faults import FaultModel, Stage, faults
from oracle.fields import PositiveDecimal, UnixSeconds
from oracle.interfaces import FeedContext, LivenessFacts
from oracle.strict import StrictModel
from oracle.types import Reading

_GWEI: Final = 10**9


class GasFigure(StrictModel):
    """The base fee at one time."""

    t: UnixSeconds
    gwei: PositiveDecimal


@faults.register("gas")
class GasPrice(FaultModel):
    """The base fee of the chain is another one, and whoever would liquidate on this feed may be priced out.

    Keepers pay it whichever feed it stands on; the feed is the one whose guard knows of it.

    Attributes
    ----------
    gwei
        The base fee while the fault acts.
    times
        The same as a multiple of what it would be: of the scenario's gas, and of gas faults before this one.
    points
        The same over time, linear between figures; the first holds before it, the last behind it.
    cap_gwei
        Base fee above which liquidators wait. Without it the highest cap of the scenario's keepers, and none
        where one of them has no cap.
    bidders
        How many still bid while the fault acts; unknown without it.
    """

    kind: ClassVar[Literal["gas"]] = "gas"
    stage: ClassVar[Stage] = "output"

    gwei: PositiveDecimal | None = None
    times: PositiveDecimal | None = None
    points: tuple[GasFigure, ...] = ()
    cap_gwei: PositiveDecimal | None = None
    bidders: int | None = Field(default=None, ge=0)

    @field_validator("points")
    @classmethod
    def _ascending(cls, points: tuple[GasFigure, ...]) -> tuple[GasFigure, ...]:
        if any(after.t <= before.t for before, after in pairwise(points)):
            raise ValueError("points must ascend in time")
        return points

    @model_validator(mode="after")
    def _one_fee(self) -> GasPrice:
        if sum((self.gwei is not None, self.times is not None, bool(self.points))) != 1:
            raise ValueError("needs exactly one of gwei, times and points")
        return self

    def fee_wei(self, before: Fraction | None, t: int) -> Fraction | None:
        """Return the base fee at `t`, unix seconds, that the fault makes of another; None is unknown."""
        if not self.active(t):
            return before
        if self.gwei is not None:
            return Fraction(self.gwei) * _GWEI
        if self.times is not None:
            return None if before is None else before * Fraction(self.times)
        return _between(self.points, t) * _GWEI

    def apply(self, steps: Sequence[int], readings: Sequence[Reading]) -> list[Reading]:
        """Return the readings as they are: gas bends no price."""
        return list(readings)

    def priced_out(
        self, contexts: Sequence[FeedContext], fees: Sequence[int | None], cap_wei: int | None
    ) -> list[FeedContext]:
        """Return the contexts with what liquidators face while the fault acts.

        Parameters
        ----------
        fees
            The chain's base fee at each of them, wei.
        cap_wei
            What the scenario's keepers pay at most; the fault's own cap goes before it.
        """
        cap = cap_wei if self.cap_gwei is None else int(Fraction(self.cap_gwei) * _GWEI)
        out = []
        for context, fee in zip(contexts, fees, strict=True):
            known = context.liveness or LivenessFacts()
            told = replace(
                known,
                base_fee_wei=fee,
                fee_cap_wei=known.fee_cap_wei if cap is None else cap,
                bidders=known.bidders if self.bidders is None else self.bidders,
            )
            out.append(replace(context, liveness=told) if self.active(context.now) else context)
        return out


def _between(points: Sequence[GasFigure], t: int) -> Fraction:
    """Return the figure at `t`, gwei."""
    if t <= points[0].t:
        return Fraction(points[0].gwei)
    for left, right in pairwise(points):
        if t <= right.t:
            share = Fraction(t - left.t, right.t - left.t)
            return Fraction(left.gwei) + (Fraction(right.gwei) - Fraction(left.gwei)) * share
    return Fraction(points[-1].gwei)
