"""Faults of pools and vaults: trades and donations, whose effect the pool's own formula makes."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import model_validator

from oracle.faults import FaultModel, Stage, faults
from oracle.fields import PositiveDecimal, SignedDecimal


@faults.register("swap")
class Swap(FaultModel):
    """A trade in a constant-product pool, which stands until the fault ends and is arbitraged away then.

    Attributes
    ----------
    quote_in, base_in
        Sold to the pool, whole tokens, with the pool's fee.
    base_out
        Taken out by a flash swap that is not paid back yet.
    """

    kind: ClassVar[Literal["swap"]] = "swap"
    stage: ClassVar[Stage] = "mechanism"

    quote_in: PositiveDecimal | None = None
    base_in: PositiveDecimal | None = None
    base_out: PositiveDecimal | None = None

    @model_validator(mode="after")
    def _one_trade(self) -> Swap:
        if sum(x is not None for x in (self.quote_in, self.base_in, self.base_out)) != 1:
            raise ValueError("needs exactly one of quote_in, base_in and base_out")
        return self


@faults.register("manip_twap")
class MovePool(FaultModel):
    """Somebody holds the pool at a price, by as many trades as it takes.

    Attributes
    ----------
    price
        The price at which the pool stands while the fault acts.
    """

    kind: ClassVar[Literal["manip_twap"]] = "manip_twap"
    stage: ClassVar[Stage] = "mechanism"

    price: PositiveDecimal


@faults.register("rate_donate")
class Donate(FaultModel):
    """Assets are given to a vault, or taken from what it counts, without shares for them.

    Attributes
    ----------
    assets
        Whole tokens; below zero what a flash loan has taken out for the moment.
    """

    kind: ClassVar[Literal["rate_donate"]] = "rate_donate"
    stage: ClassVar[Stage] = "mechanism"

    assets: SignedDecimal
