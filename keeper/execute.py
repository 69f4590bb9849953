"""From plans to orders: the transaction is built, run once on the node's state, and judged by what it did.

All plans of a head are simulated in one request, one after another on one state, so that what the first
takes out of a pool is missing for the second.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from contracts_abi.errors import DataError, RpcError
from contracts_abi.liquidator import (
    LIQUIDATE_FLASH,
    LIQUIDATED,
    Liquidated,
    decode_liquidated,
)
from keeper.config import ExecutionSection, FeesSection, wei_of_eth
from keeper.contained import contained
from keeper.rpc import Head, Log, Node, Simulation, TxCall
from keeper.types import Order
from simulation.chain.evm import revert_reason
from simulation.fixed_point import BPS
from simulation.liquidation import Executable
from simulation.types import LiquidationPlan, Reason

SIMULATION_GAS_FACTOR = 2
"""Gas given to a simulation, as a multiple of the planner's estimate."""

REFUND_MARGIN_BPS = 2_500
"""Least margin on top of the gas used: up to a fifth of all gas is refunded at the end (EIP-3529), and has to
be there until then."""

_RATE_LIMITED = (429, -32005, -32029)
"""JSON-RPC codes by which endpoints limit the rate of requests."""


@dataclass(frozen=True, slots=True)
class PricedPlan:
    """A plan, its market, and the price of gas that it was made at, so that profits and gas can be compared.

    The plan says what its gas costs in its debt token where gas is bought: that is the rate between the two.
    The protocol's prices are not asked, which may be wrong or missing.

    Attributes
    ----------
    plan
        What to do.
    adapter
        The market that the plan is for, which knows what our Liquidator is to be told.
    gas_price_wei
        Price of a unit of gas that the plan assumes, positive.
    least_profit_raw
        Least profit after gas worth sending for, in debt token units.
    """

    plan: LiquidationPlan
    adapter: Executable
    gas_price_wei: int
    least_profit_raw: int = 0

    def in_wei(self, amount_raw: int) -> int:
        """Return the worth of an amount of the debt token in wei, rounded down."""
        gas_wei = self.plan.gas_units * self.gas_price_wei
        return amount_raw * gas_wei // max(self.plan.gas_cost_raw, 1)


@dataclass(frozen=True, slots=True)
class Prepared:
    """What became of one plan in simulation.

    Attributes
    ----------
    order
        To be written ahead and sent; None when the simulation speaks against it.
    reason, detail
        Why not.
    """

    plan: LiquidationPlan
    order: Order | None
    reason: Reason
    detail: str


def calldata(priced: PricedPlan, intent_id: str, deadline_block: int) -> bytes:
    """Return the Liquidator's calldata for a plan, as its market's adapter says it."""
    intent = bytes.fromhex(intent_id[2:])
    return priced.adapter.liquidator_calldata(priced.plan, intent_id=intent, deadline_block=deadline_block)


def prepare(
    plans: Sequence[PricedPlan],
    intent_ids: Sequence[str],
    *,
    ahead: Sequence[TxCall] = (),
    node: Node,
    head: Head,
    timestamp: int,
    liquidator: str,
    sender: str,
    execution: ExecutionSection,
    fees: FeesSection,
) -> list[Prepared]:
    """Simulate plans on `head` and turn those that hold into orders.

    Parameters
    ----------
    intent_ids
        One for each plan, reserved in the journal.
    ahead
        Our transactions under way, which will be mined before these and change what they find.
    timestamp
        Expected time of the next block.
    liquidator, sender
        Our contract, and its owner.

    Raises
    ------
    RpcError, RpcUnavailable
        If the node does not simulate.
    """
    deadline = head.number + execution.deadline_blocks
    out: list[Prepared] = []
    drafts: list[tuple[PricedPlan, Order]] = []
    for priced, intent_id in zip(plans, intent_ids, strict=True):
        with contained(partial(_give_up, out, priced.plan)):
            drafts.append((priced, _draft(priced, intent_id, liquidator, head.number, deadline)))
    ours = [
        TxCall(sender, liquidator, draft.data, priced.plan.gas_units * SIMULATION_GAS_FACTOR)
        for priced, draft in drafts
    ]
    before = ahead if ours else ()
    simulations = _as_many_as_it_takes(node, before, ours, head, timestamp)
    for (priced, draft), simulated in zip(drafts, simulations, strict=False):
        with contained(partial(_give_up, out, priced.plan)):
            out.append(_judged(priced, draft, simulated, execution, fees))
    out += [
        Prepared(p.plan, None, Reason.SIMULATION_FAILED, "the node does not simulate so many at a time")
        for p, _ in drafts[len(simulations) :]
    ]
    return out


def _give_up(out: list[Prepared], plan: LiquidationPlan, why: str) -> None:
    """Note a plan that cannot be prepared, which is no reason to drop the others."""
    out.append(Prepared(plan, None, Reason.ACCOUNT_UNKNOWN, why))


def _draft(priced: PricedPlan, intent_id: str, liquidator: str, decided: int, deadline: int) -> Order:
    """Return the order for a plan, without what only its simulation tells: profit, gas and budget."""
    plan = priced.plan
    return Order(
        intent_id=intent_id,
        account=plan.account,
        protocol=plan.protocol,
        debt_asset=plan.debt_asset,
        collateral_asset=plan.collateral_asset,
        debt_to_cover_raw=plan.debt_to_cover_raw,
        simulated_profit_raw=0,
        min_profit_raw=plan.min_profit_raw,
        decided_block=decided,
        deadline_block=deadline,
        to=liquidator,
        data=calldata(priced, intent_id, deadline),
        gas_limit=0,
        budget_wei=0,
    )


def _judged(
    priced: PricedPlan, draft: Order, simulated: Simulation, execution: ExecutionSection, fees: FeesSection
) -> Prepared:
    """Return the order that a simulation speaks for, or why it speaks against it."""
    plan = priced.plan
    if not simulated.success:
        return Prepared(plan, None, Reason.SIMULATION_FAILED, f"simulation: {_why(simulated)}")
    try:
        # Also asked from inventory, where nothing is sold: a success that did nothing is none.
        sold_raw = simulated_profit(simulated, draft.to)
    except DataError as error:
        # Says something of this one; the others may be as they should.
        return Prepared(plan, None, Reason.SIMULATION_FAILED, f"simulation: {error}")
    profit_raw = plan.profit_raw if plan.from_inventory else sold_raw
    gas = simulated.gas_used or plan.gas_units
    net_wei = priced.in_wei(profit_raw) - gas * priced.gas_price_wei
    if net_wei < max(1, priced.in_wei(priced.least_profit_raw)):
        detail = (
            f"simulated profit {profit_raw} raw less {gas} gas at {priced.gas_price_wei} wei is below "
            f"{max(1, priced.least_profit_raw)} raw"
        )
        return Prepared(plan, None, Reason.UNPROFITABLE, detail)
    order = replace(
        draft,
        simulated_profit_raw=profit_raw,
        gas_limit=gas * (BPS + max(execution.gas_margin_bps, REFUND_MARGIN_BPS)) // BPS,
        budget_wei=min(wei_of_eth(fees.max_gas_cost_eth), priced.in_wei(profit_raw)),
    )
    return Prepared(plan, order, Reason.LIQUIDATE, f"simulated profit {profit_raw} raw, gas {gas}")


def _as_many_as_it_takes(
    node: Node, before: Sequence[TxCall], ours: Sequence[TxCall], head: Head, timestamp: int
) -> list[Simulation]:
    """Simulate the first of `ours`, all if the node allows it.

    Endpoints have limits of their own on gas, calls and time. What is refused whole is asked for by half: to
    act on some beats to act on none when there is most to do.
    """
    count = len(ours)
    while True:
        try:
            return node.simulate([*before, *ours[:count]], head, timestamp=timestamp)[len(before) :]
        except RpcError as error:
            # Asked too often, it will not take a shorter one either.
            if count <= 1 or _asked_too_often(error):
                raise
            count //= 2


def _asked_too_often(error: RpcError) -> bool:
    text = error.message.lower()
    return error.code in _RATE_LIMITED or "too many requests" in text or "rate limit" in text


def _why(simulated: Simulation) -> str:
    """Return why a transaction fails: the contract's reason behind the node's words, where they lack it."""
    words = simulated.error or "reverted"
    reason = revert_reason(simulated.return_data).strip("'") if simulated.return_data else ""
    return words if reason in words else f"{words}: {reason}"


def simulated_profit(simulated: Simulation, liquidator: str) -> int:
    """Return the profit of a simulated liquidation, in debt token units; from inventory nothing is sold.

    Raises
    ------
    DataError
        If neither the event nor the return value says it.
    """
    if simulated.logs is not None:
        event = liquidated_event(simulated.logs, liquidator)
        if event is None:
            raise DataError("the simulation succeeded without a Liquidated event")
        return event.profit_raw
    return int(LIQUIDATE_FLASH.decode_one(simulated.return_data))


def liquidated_event(logs: Sequence[Log], liquidator: str) -> Liquidated | None:
    """Return our contract's event among the logs of a transaction, None without one."""
    for log in logs:
        if log.address == liquidator and log.topics and log.topics[0] == LIQUIDATED.topic:
            return decode_liquidated(log.topics, log.data)
    return None
