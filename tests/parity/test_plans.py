"""Planned profit against realised profit, to the unit: real pool, real pools, our own Liquidator."""

from __future__ import annotations

from collections import Counter

import pytest

from contracts_abi import liquidator
from oracle.snapshot import plain_snapshot
from simulation.chain import revm
from simulation.chain.aave_v3 import mint
from simulation.liquidation import PlanSettings, plan_bundle
from simulation.types import LiquidationPlan, Reason
from tests.parity.crash import OWNER, VERSIONS, Crash, Version

pytestmark = [
    pytest.mark.chain,
    pytest.mark.skipif(not revm.available(), reason="pyrevm has wheels for CPython 3.11 and 3.12 only"),
]

GWEI = 10**9


@pytest.mark.parametrize("version", VERSIONS)
def test_a_bundle_earns_what_it_planned_to_the_unit(version: Version) -> None:
    crash = Crash(accounts=120, seed=3, version=version)
    market, accounts, pools = crash.read()
    prices = plain_snapshot("protocol", "USD", market.prices_base, 8, block=1, timestamp=crash.timestamp)
    weth = crash.deployment.asset("WETH").address
    plan_settings = PlanSettings(gas_price_wei=50 * GWEI, native_asset=weth, min_net_profit_e8=10**8)
    answer = plan_bundle(crash.adapter, market, accounts, pools, prices, plan_settings)
    plans = [plan for plan in answer.values() if isinstance(plan, LiquidationPlan)]
    assert set(answer) == set(accounts)
    assert len(plans) >= 10
    seen: Counter[str] = Counter()
    for number, plan in enumerate(plans):
        done = crash.execute(plan, number)
        assert done.debt_covered_raw == plan.debt_to_cover_raw
        assert done.collateral_seized_raw == plan.seized_raw
        assert done.profit_raw == plan.profit_raw
        seen[f"{len(plan.path)} pools"] += 1
        seen["full" if plan.full else "partial"] += 1
    assert seen["full"], seen
    assert seen["partial"], seen
    assert seen["1 pools"], seen
    assert seen["3 pools"], seen
    assert Reason.UNPROFITABLE in answer.values()

    # The pools are where the last plan left them, and what was dropped does not pay there either.
    market, _, pools = crash.read()
    for account, reason in answer.items():
        if reason is Reason.UNPROFITABLE:
            again = plan_bundle(
                crash.adapter, market, {account: accounts[account]}, pools, prices, plan_settings
            )
            assert again == {account: Reason.UNPROFITABLE}


@pytest.mark.parametrize("version", VERSIONS)
def test_a_plan_from_inventory_seizes_what_it_says(version: Version) -> None:
    crash = Crash(accounts=40, seed=5, version=version)
    market, accounts, pools = crash.read()
    prices = plain_snapshot("protocol", "USD", market.prices_base, 8, block=1, timestamp=crash.timestamp)
    weth, usdc = (crash.deployment.asset(symbol).address for symbol in ("WETH", "USDC"))
    plan_settings = PlanSettings(
        gas_price_wei=GWEI, native_asset=weth, from_inventory=True, inventory_raw={usdc: 20_000 * 10**6}
    )
    answer = plan_bundle(crash.adapter, market, accounts, pools, prices, plan_settings)
    plans = [plan for plan in answer.values() if isinstance(plan, LiquidationPlan)]
    assert plans
    assert sum(plan.debt_to_cover_raw for plan in plans) <= 20_000 * 10**6
    mint(crash.evm, crash.deployment.deployer, usdc, crash.contract, 20_000 * 10**6)
    for number, plan in enumerate(plans):
        crash.evm.warp(crash.timestamp)
        data = liquidator.inventory_calldata(
            intent_id=number.to_bytes(32, "big"),
            collateral=plan.collateral_asset,
            debt=plan.debt_asset,
            user=plan.account,
            debt_to_cover_raw=plan.debt_to_cover_raw,
            min_collateral_raw=plan.seized_raw,
            deadline_block=2**40,
        )
        sent = crash.evm.send(OWNER, crash.contract, data).expect("liquidation")
        assert liquidator.LIQUIDATE_INVENTORY.decode_one(sent.output) == plan.seized_raw
