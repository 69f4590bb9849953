"""Gas: what a place in a block costs, and how many liquidations a step has room for."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from simulation.contagion.batch import Batch, Channel
from simulation.contagion.channels import channels
from simulation.contagion.state import Total
from simulation.contagion.world import World

GWEI = 1e9
_NO_ROOM = np.iinfo(np.int64).max


@channels.register("gas")
class GasChannel(Channel):
    """EIP-1559 base fee over the demand of others and of liquidations.

    A block that is fuller than its target raises the base fee by up to an eighth, an emptier one lowers it
    (EIP-1559). Others ask for ``(1 + heat) * (first fee / fee) ** elasticity`` times the target: less when
    gas is dear, more when the market moves. Each per cent that the native token moves adds `panic` to the
    heat, which fades with its half-life; at a heat h that lasts the fee settles at ``(1 + h) ** (1 /
    elasticity)`` times the first one. A block holds at most twice its target. A step longer than a block
    compounds over its blocks.

    Off, gas costs nothing and blocks have room for everything.

    Attributes
    ----------
    base_fee_gwei
        At the start.
    tip_gwei
        Paid on top.
    block_s
        Seconds between blocks.
    block_gas
        Gas limit of a block; the target is half of it.
    liquidation_gas
        Gas of one liquidation.
    elasticity
        How demand answers to the fee.
    panic
        Heat of each per cent of the native token's move.
    panic_half_life_s
        Seconds in which half of the heat is gone.
    native
        Token that gas is paid in.
    least_gwei
        The base fee falls no further.
    """

    kind: ClassVar[Literal["gas"]] = "gas"
    order: ClassVar[int] = 50

    base_fee_gwei: Annotated[float, Field(gt=0)] = 5.0
    tip_gwei: Annotated[float, Field(ge=0)] = 1.0
    block_s: Annotated[float, Field(gt=0)] = 12.0
    block_gas: Annotated[float, Field(gt=0)] = 36e6
    liquidation_gas: Annotated[float, Field(gt=0)] = 500_000.0
    elasticity: Annotated[float, Field(gt=0)] = 0.5
    panic: Annotated[float, Field(ge=0)] = 0.5
    panic_half_life_s: Annotated[float, Field(gt=0)] = 600.0
    native: str = "WETH"
    least_gwei: Annotated[float, Field(gt=0)] = 0.05

    def check(self, world: World) -> None:
        """Refuse a native token that the book has not."""
        if self.on:
            world.token(self.native)

    def prepare(self, batch: Batch) -> Any:
        """Set the first base fee, and remember the native token's price."""
        batch.state.base_fee[:] = self.base_fee_gwei * GWEI
        a = batch.world.token(self.native)
        return {
            "a": a,
            "price": batch.state.market[:, a].copy(),
            "count": self._count(batch),
            "heat": np.zeros(batch.state.paths),
        }

    def act(self, batch: Batch, memo: Any) -> None:
        """Move the base fee by the last step's blocks, and say what a liquidation costs now."""
        state, a = batch.state, memo["a"]
        blocks = max(1, round(batch.dt_s / self.block_s))
        count = self._count(batch)
        own = (count - memo["count"]) * self.liquidation_gas / (blocks * self.block_gas / 2.0)
        moved = np.abs(np.log(state.market[:, a] / memo["price"])) * 100.0
        memo["heat"] = memo["heat"] * 0.5 ** (batch.dt_s / self.panic_half_life_s) + self.panic * moved
        first, least = self.base_fee_gwei * GWEI, self.least_gwei * GWEI
        for _ in range(blocks):
            others = (1.0 + memo["heat"]) * (first / state.base_fee) ** self.elasticity
            full = np.minimum(others + own, 2.0)
            state.base_fee[:] = np.maximum(state.base_fee * (1.0 + (full - 1.0) / 8.0), least)
        memo["count"], memo["price"] = count, state.market[:, a].copy()
        batch.gas_usd[:] = (
            self.liquidation_gas * (state.base_fee + self.tip_gwei * GWEI) * 1e-18 * state.market[:, a]
        )
        batch.room[:] = np.int64(blocks * self.block_gas / self.liquidation_gas)

    def _count(self, batch: Batch) -> Any:
        return batch.state.totals[:, :, Total.LIQUIDATIONS].sum(axis=1)


def without_gas(batch: Batch) -> None:
    """Make gas free and blocks endless."""
    batch.gas_usd[:] = 0.0
    batch.room[:] = _NO_ROOM
