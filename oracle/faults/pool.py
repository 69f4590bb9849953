"""Faults of pools and vaults: trades and donations, whose effect the pool's own formula makes."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from contracts_abi.uniswap_v3 import MAX_TICK
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
    tick
        The same as a Uniswap V3 pool counts it, in place of `price`.
    blocks
        For how many blocks of the chain, in place of `until`.
    """

    kind: ClassVar[Literal["manip_twap"]] = "manip_twap"
    stage: ClassVar[Stage] = "mechanism"

    price: PositiveDecimal | None = None
    # The greatest tick has no price of its own: a pool's price stays below it.
    tick: int | None = Field(default=None, ge=-MAX_TICK, lt=MAX_TICK)
    blocks: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _one_price_and_one_end(self) -> MovePool:
        if (self.price is None) == (self.tick is None):
            raise ValueError("needs exactly one of price and tick")
        if self.blocks is not None and self.until is not None:
            raise ValueError("needs only one of until and blocks")
        return self

    def on_chain(self, start: int, block0: int, block_time_s: int) -> MovePool:
        """Return the fault with its end in seconds where it was stated in blocks."""
        placed = super().on_chain(start, block0, block_time_s)
        if self.blocks is None:
            return placed
        return placed.model_copy(update={"until": placed.at + self.blocks * block_time_s, "blocks": None})


@faults.register("set_liquidity")
class SetLiquidity(FaultModel):
    """Liquidity is taken out of a pool or put into it at its price, and is back when the fault ends.

    Attributes
    ----------
    times
        What is there while the fault acts, as a multiple of what was: ``0.01`` leaves a hundredth. Two of
        them at once multiply.
    """

    kind: ClassVar[Literal["set_liquidity"]] = "set_liquidity"
    stage: ClassVar[Stage] = "mechanism"

    times: PositiveDecimal


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
