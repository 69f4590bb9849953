"""What our Liquidator is told of a plan on Aave V3, whichever the version: the pool's call is the same."""

from __future__ import annotations

from typing import Final

from contracts_abi.liquidator import flash_calldata, inventory_calldata
from simulation.amm.uniswap_v3 import encode_path
from simulation.liquidation import least_collateral_raw
from simulation.types import LiquidationPlan

LIQUIDATION_GAS: Final = 540_000


def liquidator_calldata(plan: LiquidationPlan, *, intent_id: bytes, deadline_block: int) -> bytes:
    """Return the Liquidator's calldata for a plan in its pool.

    Parameters
    ----------
    plan
        What to do.
    intent_id
        32 bytes that the contract executes at most once.
    deadline_block
        Last block in which it may run.
    """
    if plan.from_inventory:
        return inventory_calldata(
            intent_id=intent_id,
            collateral=plan.collateral_asset,
            debt=plan.debt_asset,
            user=plan.account,
            debt_to_cover_raw=plan.debt_to_cover_raw,
            min_collateral_raw=least_collateral_raw(plan),
            deadline_block=deadline_block,
        )
    return flash_calldata(
        intent_id=intent_id,
        collateral=plan.collateral_asset,
        debt=plan.debt_asset,
        user=plan.account,
        debt_to_cover_raw=plan.debt_to_cover_raw,
        path=encode_path(plan.path) if plan.path else b"",
        min_profit_raw=plan.min_profit_raw,
        deadline_block=deadline_block,
    )
