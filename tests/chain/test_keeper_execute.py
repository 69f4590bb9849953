"""From plans to orders on a real node: simulated as a bundle, judged by what they did, priced in gas."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from contracts_abi import aave_v3
from contracts_abi.calls import function
from contracts_abi.errors import DataError, RpcError
from contracts_abi.liquidator import LIQUIDATE_FLASH, LIQUIDATE_INVENTORY
from keeper.config import ExecutionSection, FeesSection, Mode
from keeper.decide import decide
from keeper.execute import Prepared, PricedPlan, calldata, liquidated_event, prepare, simulated_profit
from keeper.rpc import Head, Log, Simulation, TxCall
from simulation.chain.evm import Tx
from simulation.liquidation import Executable, PlanSettings
from simulation.types import LiquidationPlan, Reason, SwapHop
from tests.keeper_bench import ETHER, GWEI, RECEIVER, Running, Stage, running, staged

GAS_PRICE = 20 * GWEI
_MINT = function("mint(address,uint256)")


@dataclass
class Crash:
    """Plans for a market that fell, at a head."""

    stage: Stage
    running: Running
    head: Head
    plans: tuple[LiquidationPlan, ...]

    @property
    def adapter(self) -> Executable:
        return self.running.connected.markets[0].adapter

    def prepare(
        self,
        plans: Sequence[LiquidationPlan | PricedPlan],
        *,
        ids: Sequence[str] | None = None,
        **changes: Any,
    ) -> list[Prepared]:
        """Prepare with an id for each plan."""
        priced = [p if isinstance(p, PricedPlan) else PricedPlan(p, self.adapter, GAS_PRICE) for p in plans]
        arguments: dict[str, Any] = {
            "node": self.running.connected.node,
            "head": self.head,
            "timestamp": self.head.timestamp + 12,
            "liquidator": self.stage.liquidator,
            "sender": self.stage.owner,
            "execution": ExecutionSection(),
            "fees": FeesSection(),
        }
        ids = [intent_id(i) for i in range(len(priced))] if ids is None else ids
        return prepare(priced, ids, **(arguments | changes))


def intent_id(number: int) -> str:
    return f"0x{number + 1:064x}"


@pytest.fixture
def crash(tmp_path: Path) -> Iterator[Crash]:
    with staged(tmp_path) as stage, running(stage, Mode.DRY_RUN) as keeper:
        stage.fall(60)
        yield crashed(stage, keeper)


def crashed(stage: Stage, keeper: Running, **changes: Any) -> Crash:
    connected = keeper.connected
    head = connected.node.head()
    view = connected.reader().read(head, [a.address for a in stage.book])
    settings = PlanSettings(gas_price_wei=GAS_PRICE, native_asset=connected.assets["WETH"], **changes)
    decision = decide(
        view, connected.markets[0].adapter, connected.policy(), settings, next_timestamp=head.timestamp + 12
    )
    assert len(decision.plans) >= 8
    return Crash(stage, keeper, head, decision.plans)


# ----------------------------------------------------------------------------------------------- what is sent


def test_bundle_is_simulated_in_one_request_and_earns_what_was_planned(crash: Crash) -> None:
    node = crash.running.connected.node
    before = node.round_trips
    crash.stage.proxy.seen.clear()
    prepared = crash.prepare(crash.plans)

    assert node.round_trips - before == 1
    ((method, params),) = crash.stage.proxy.seen
    assert method == "eth_simulateV1"
    assert params[1] == {"blockHash": crash.head.block_hash}
    assert [item.reason for item in prepared] == [Reason.LIQUIDATE] * len(crash.plans)
    # Each sees the pools as those before it leave them, in plan and simulation alike.
    for item, plan in zip(prepared, crash.plans, strict=True):
        assert item.order is not None
        assert item.order.simulated_profit_raw == plan.profit_raw
    assert crash.stage.liquidations() == []


def test_order_says_everything_that_is_needed_later(crash: Crash) -> None:
    execution = ExecutionSection(deadline_blocks=5, gas_margin_bps=2_500)
    plan = crash.plans[0]
    (item,) = crash.prepare([plan], execution=execution)
    order = item.order
    assert order is not None
    assert item.plan == plan
    assert (order.intent_id, order.account, order.protocol) == (intent_id(0), plan.account, "aave-v3")
    assert (order.debt_asset, order.collateral_asset) == (plan.debt_asset, plan.collateral_asset)
    assert (order.debt_to_cover_raw, order.min_profit_raw) == (plan.debt_to_cover_raw, plan.min_profit_raw)
    assert (order.decided_block, order.deadline_block) == (crash.head.number, crash.head.number + 5)
    assert order.to == crash.stage.liquidator
    arguments = LIQUIDATE_FLASH.decode_inputs(order.data)
    assert arguments[0] == bytes.fromhex(order.intent_id[2:])
    addresses = (plan.collateral_asset, plan.debt_asset, plan.account)
    assert arguments[1:4] == tuple(address.lower() for address in addresses)
    assert arguments[4] == plan.debt_to_cover_raw
    assert arguments[6:] == (plan.min_profit_raw, order.deadline_block)


def test_gas_limit_leaves_room_for_what_refunds_hide(crash: Crash) -> None:
    """What is refunded at the end of a transaction, up to a fifth, has to be there until then."""
    plan = next(p for p in crash.plans if p.full)
    limits = {}
    for margin in (0, 2_500, 5_000):
        (item,) = crash.prepare([plan], execution=ExecutionSection(gas_margin_bps=margin))
        assert item.order is not None
        limits[margin] = item.order.gas_limit
    assert limits[0] == limits[2_500]
    assert limits[5_000] == pytest.approx(limits[0] * 6 / 5, abs=2)
    (item,) = crash.prepare([plan], execution=ExecutionSection(gas_margin_bps=0))
    order = item.order
    assert order is not None
    used = order.gas_limit * 4 // 5
    snapshot = crash.stage.anvil.rpc.call("evm_snapshot")
    (short,) = crash.stage.send(Tx(crash.stage.owner, order.to, order.data, gas=used), expect=False)
    assert not short.success
    crash.stage.anvil.rpc.call("evm_revert", [snapshot])
    (enough,) = crash.stage.send(Tx(crash.stage.owner, order.to, order.data, gas=order.gas_limit))
    assert enough.success
    assert enough.gas_used <= used + 1


def test_an_order_runs_as_it_was_simulated(crash: Crash) -> None:
    prepared = crash.prepare(crash.plans)
    orders = [item.order for item in prepared if item.order is not None]
    results = crash.stage.send(*(Tx(crash.stage.owner, o.to, o.data, gas=o.gas_limit) for o in orders))
    assert all(result.success for result in results)
    done = crash.stage.liquidations()
    assert [e.profit_raw for e in done] == [o.simulated_profit_raw for o in orders]
    assert ["0x" + e.intent_id.hex() for e in done] == [o.intent_id for o in orders]
    earned = {e.debt for e in done}
    for debt in earned:
        held = crash.stage.read(aave_v3.BALANCE_OF.call(debt, RECEIVER))
        assert held >= sum(e.profit_raw for e in done if e.debt == debt)


def test_budget_is_what_the_profit_is_worth_and_no_more_than_the_cap(crash: Crash) -> None:
    plan = crash.plans[-1]
    (item,) = crash.prepare([plan], fees=FeesSection(max_gas_cost_eth=Decimal(1_000)))
    assert item.order is not None
    weth, debt = crash.running.connected.assets["WETH"], plan.debt_asset
    assert debt != weth
    decimals = {a.address: a.decimals for a in crash.stage.market.assets.values()}[debt]
    # The pools stand where they stood before the crash: that is where gas would be bought.
    usd = item.order.simulated_profit_raw / 10**decimals
    eth = usd / (crash.stage.first_price_e8("WETH") / 1e8)
    assert item.order.budget_wei == pytest.approx(eth * ETHER, rel=0.01)
    (capped,) = crash.prepare([plan], fees=FeesSection(max_gas_cost_eth=Decimal("0.001")))
    assert capped.order is not None
    assert capped.order.budget_wei == ETHER // 1_000


def test_bundle_that_does_not_fit_into_a_block_goes_on_in_the_next(crash: Crash) -> None:
    stage, node = crash.stage, crash.running.connected.node
    limit = 2 * 2 * max(plan.gas_units for plan in crash.plans)
    stage.anvil.rpc.call("evm_setBlockGasLimit", [hex(limit)])
    stage.mine()
    head = node.head()
    assert head.gas_limit == limit
    stage.proxy.seen.clear()
    prepared = crash.prepare(crash.plans, head=head, timestamp=head.timestamp + 12)
    ((_, params),) = stage.proxy.seen
    blocks = params[0]["blockStateCalls"]
    assert len(blocks) >= len(crash.plans) // 2
    for block in blocks:
        assert sum(int(call["gas"], 16) for call in block["calls"]) <= limit
    assert [call["input"] for block in blocks for call in block["calls"]] == [
        "0x" + item.order.data.hex() for item in prepared if item.order is not None
    ]
    for item, plan in zip(prepared, crash.plans, strict=True):
        assert item.order is not None
        # Each sees what those in the blocks before it left; some seconds of interest are between.
        assert item.order.simulated_profit_raw == pytest.approx(plan.profit_raw, rel=1e-4)


def test_what_is_under_way_is_simulated_before_what_is_new(crash: Crash) -> None:
    first, *others = crash.plans
    (order,) = (item.order for item in crash.prepare([first]))
    assert order is not None
    ahead = [TxCall(crash.stage.owner, order.to, order.data, order.gas_limit)]
    ids = [intent_id(i + 1) for i in range(len(others))]
    behind = crash.prepare(others, ids=ids, ahead=ahead)
    alone = crash.prepare(others, ids=ids)
    profits = [[i.order.simulated_profit_raw for i in items if i.order] for items in (behind, alone)]
    assert profits[0] == [plan.profit_raw for plan in others]  # planned behind it, too
    assert profits[0] != profits[1]
    before = crash.running.connected.node.round_trips
    assert crash.prepare([], ids=[], ahead=ahead) == []
    assert crash.running.connected.node.round_trips == before


def test_no_plan_is_no_request(crash: Crash) -> None:
    before = crash.running.connected.node.round_trips
    assert crash.prepare([]) == []
    assert crash.running.connected.node.round_trips == before


# ------------------------------------------------------------------------------------------- what is not sent


def test_what_fails_in_simulation_is_told_in_the_nodes_words(crash: Crash) -> None:
    plan = crash.plans[0]
    healthy = next(
        a.address for a in crash.stage.book if crash.stage.health_factor_wad(a.address) > 2 * 10**18
    )
    greedy = replace(plan, min_profit_raw=plan.profit_raw * 10)
    prepared = crash.prepare([replace(plan, account=healthy), greedy, plan])
    assert [item.reason for item in prepared] == [
        Reason.SIMULATION_FAILED,
        Reason.SIMULATION_FAILED,
        Reason.LIQUIDATE,
    ]
    assert [item.order is None for item in prepared] == [True, True, False]
    # The pool's own code for a health factor that is not below the threshold, and the router's reason.
    assert "45" in prepared[0].detail
    assert "Too little received" in prepared[1].detail
    assert all(item.detail.startswith("simulation: ") for item in prepared[:2])


def test_the_second_of_two_at_one_account_fails_behind_the_first(crash: Crash) -> None:
    plan = next(p for p in crash.plans if p.full)
    first, second = crash.prepare([plan, plan])
    assert first.reason is Reason.LIQUIDATE
    assert second.reason is Reason.SIMULATION_FAILED


def test_simulation_by_anybody_else_than_the_owner_fails(crash: Crash) -> None:
    (item,) = crash.prepare(crash.plans[:1], sender=RECEIVER)
    assert item.reason is Reason.SIMULATION_FAILED
    assert "owner only" in item.detail


def test_what_does_not_pay_for_the_gas_that_it_really_used_is_unprofitable(crash: Crash) -> None:
    plan = crash.plans[-1]
    (item,) = crash.prepare([plan])
    assert item.order is not None
    earned_raw = item.order.simulated_profit_raw
    # The gas that it was planned with costs just less than what it earns; what it really takes costs more.
    dear = replace(plan, gas_units=plan.gas_units * 7 // 10, gas_cost_raw=earned_raw - 1, min_profit_raw=1)
    (refused,) = crash.prepare([PricedPlan(dear, crash.adapter, GAS_PRICE)])
    assert refused.order is None
    assert refused.reason is Reason.UNPROFITABLE
    assert f"profit {earned_raw} raw" in refused.detail
    assert f"{GAS_PRICE} wei" in refused.detail


def test_least_profit_counts_after_the_gas_that_was_really_used(crash: Crash) -> None:
    plan = crash.plans[-1]
    (item,) = crash.prepare(
        [PricedPlan(plan, crash.adapter, GAS_PRICE, least_profit_raw=plan.net_profit_raw // 2)]
    )
    assert item.reason is Reason.LIQUIDATE
    (item,) = crash.prepare(
        [PricedPlan(plan, crash.adapter, GAS_PRICE, least_profit_raw=plan.profit_raw * 2)]
    )
    assert (item.order, item.reason) == (None, Reason.UNPROFITABLE)


@pytest.mark.parametrize("inventory", [False, True])
def test_success_without_our_event_is_a_failure_of_that_plan_alone(crash: Crash, inventory: bool) -> None:
    # Any address without code answers every call with success and nothing.
    plan = replace(crash.plans[0], from_inventory=inventory, path=() if inventory else crash.plans[0].path)
    (item,) = crash.prepare([plan], liquidator=RECEIVER)
    assert item.reason is Reason.SIMULATION_FAILED
    assert "without a Liquidated event" in item.detail


def test_node_without_simulate_v1_runs_each_plan_alone(crash: Crash, monkeypatch: pytest.MonkeyPatch) -> None:
    node = crash.running.connected.node
    monkeypatch.setattr(node, "_simulate_v1", False)
    crash.stage.proxy.seen.clear()
    prepared = crash.prepare([crash.plans[0], crash.plans[0]])
    assert {method for method, _ in crash.stage.proxy.seen} == {"eth_call"}
    assert [item.reason for item in prepared] == [Reason.LIQUIDATE] * 2  # neither sees the other
    order = prepared[0].order
    assert order is not None
    assert order.simulated_profit_raw == pytest.approx(crash.plans[0].profit_raw, rel=1e-6)
    assert order.gas_limit == crash.plans[0].gas_units * 13_000 // 10_000
    (item,) = crash.prepare(crash.plans[:1], sender=RECEIVER)
    assert item.reason is Reason.SIMULATION_FAILED
    assert "owner only" in item.detail
    (item,) = crash.prepare(crash.plans[:1], liquidator=RECEIVER)
    assert item.reason is Reason.SIMULATION_FAILED


def test_a_node_that_refuses_a_long_simulation_is_asked_for_a_shorter_one(
    crash: Crash, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = crash.running.connected.node
    call = node.call

    def limited(method: str, *params: Any) -> Any:
        if sum(len(block["calls"]) for block in params[0]["blockStateCalls"]) > 3:
            raise RpcError(-38015, "more gas than this endpoint allows")
        return call(method, *params)

    monkeypatch.setattr(node, "call", limited)
    plans = crash.plans[:6]
    prepared = crash.prepare(plans)
    assert [item.plan for item in prepared] == list(plans)
    assert [item.reason for item in prepared] == [Reason.LIQUIDATE] * 3 + [Reason.SIMULATION_FAILED] * 3
    assert "so many" in prepared[3].detail


# -------------------------------------------------------------------------------------------------- inventory


def test_from_inventory_the_collateral_is_kept(tmp_path: Path) -> None:
    with staged(tmp_path) as stage, running(stage, Mode.DRY_RUN) as keeper:
        stage.fall(60)
        crash = crashed(stage, keeper, from_inventory=True)
        plan = crash.plans[0]
        (poor,) = crash.prepare([plan])
        assert poor.reason is Reason.SIMULATION_FAILED

        funding = _MINT.encode(stage.liquidator, plan.debt_to_cover_raw)
        stage.send(Tx(stage.owner, plan.debt_asset, funding))
        head = keeper.connected.node.head()
        (item,) = crash.prepare([plan], head=head, timestamp=head.timestamp + 12)
        order = item.order
        assert order is not None
        assert order.simulated_profit_raw == plan.profit_raw
        arguments = LIQUIDATE_INVENTORY.decode_inputs(order.data)
        assert arguments[4:6] == (plan.debt_to_cover_raw, plan.seized_raw * 99 // 100)
        before = stage.read(aave_v3.BALANCE_OF.call(plan.collateral_asset, RECEIVER))
        (result,) = stage.send(Tx(stage.owner, order.to, order.data, gas=order.gas_limit))
        assert result.success
        kept = stage.read(aave_v3.BALANCE_OF.call(plan.collateral_asset, RECEIVER)) - before
        assert kept >= plan.seized_raw * 99 // 100
        (event,) = stage.liquidations()
        assert event.profit_raw == 0


# ------------------------------------------------------------------------------------------------ small parts


def test_rate_between_profit_and_gas_is_the_plans_own() -> None:
    plan = LiquidationPlan(
        account="0xA",
        protocol="p",
        debt_asset="0xD",
        collateral_asset="0xC",
        debt_to_cover_raw=1,
        seized_raw=1,
        full=True,
        path=(SwapHop("0xP", "0xC", "0xD", 500),),
        flash_premium_raw=0,
        proceeds_raw=1,
        profit_raw=1,
        gas_units=500_000,
        gas_cost_raw=2_000_000,
        min_profit_raw=1,
        impact_bps=0,
    )
    nowhere: Any = None
    priced = PricedPlan(plan, nowhere, 20 * GWEI)
    # 0.01 ETH of gas cost 2 USDC: 1 USDC is worth 0.005 ETH.
    assert priced.in_wei(10**6) == ETHER // 200
    assert priced.in_wei(1) == 5 * GWEI
    free = PricedPlan(replace(plan, gas_cost_raw=0), nowhere, 1)
    assert free.in_wei(10**6) > 0


def test_profit_comes_from_our_event_or_the_return_value() -> None:
    with pytest.raises(DataError, match="without a Liquidated event"):
        simulated_profit(Simulation(True, b"", 1, ()), RECEIVER)
    assert simulated_profit(Simulation(True, (77).to_bytes(32, "big"), None, None), RECEIVER) == 77
    with pytest.raises(DataError):
        simulated_profit(Simulation(True, b"", None, None), RECEIVER)


def test_event_of_another_contract_is_not_ours(crash: Crash) -> None:
    order = crash.prepare(crash.plans[:1])[0].order
    assert order is not None
    (result,) = crash.stage.send(Tx(crash.stage.owner, order.to, order.data, gas=order.gas_limit))
    logs = [Log(log.address, log.topics, log.data, 1, "0x", "0x", i) for i, log in enumerate(result.logs)]
    event = liquidated_event(logs, crash.stage.liquidator)
    assert event is not None
    assert event.user == order.account
    assert liquidated_event(logs, RECEIVER) is None
    assert liquidated_event([log for log in logs if log.address != crash.stage.liquidator], RECEIVER) is None


def test_calldata_without_a_swap_has_an_empty_path(crash: Crash) -> None:
    plan = replace(crash.plans[0], path=(), debt_asset=crash.plans[0].collateral_asset)
    arguments = LIQUIDATE_FLASH.decode_inputs(
        calldata(PricedPlan(plan, crash.adapter, GAS_PRICE), intent_id(0), 9)
    )
    assert arguments[5] == b""
