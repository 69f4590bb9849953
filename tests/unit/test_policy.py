"""The three-price policy: the whole decision table, and what each tolerance means."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import pytest

from contracts_abi.errors import InputError, UnknownNameError
from oracle.snapshot import plain_snapshot
from oracle.types import GuardedPrice, PriceStatus
from simulation.interfaces import Policy
from simulation.policy import excess_seizure_bps, policies
from simulation.policy.three_price import ThreePricePolicy
from simulation.types import Action, LiquidationPlan, MarginReport, MarginStatus, Reason

WAD = 10**18
ACCOUNT = "0x" + "11" * 20

HEALTHY, LIQUIDATABLE = MarginStatus.HEALTHY, MarginStatus.LIQUIDATABLE
NO_DEBT, UNKNOWN = MarginStatus.NO_DEBT, MarginStatus.UNKNOWN

HEALTH_FACTOR = {HEALTHY: 15 * WAD // 10, LIQUIDATABLE: 9 * WAD // 10, NO_DEBT: 2**256 - 1, UNKNOWN: None}


def margin(status: MarginStatus, health_factor_wad: int | None = None, **changes: Any) -> MarginReport:
    known = status is not UNKNOWN
    report = MarginReport(
        account=ACCOUNT,
        protocol="aave-v3",
        method="aave-v3.health_factor",
        block=7,
        timestamp=1_600_000_000,
        status=status,
        collateral_base=10**11 if known else None,
        debt_base=(0 if status is NO_DEBT else 10**11) if known else None,
        maintenance_base=10**10 if known else None,
        initial_base=2 * 10**10 if known else None,
        health_factor_wad=HEALTH_FACTOR[status] if health_factor_wad is None else health_factor_wad,
        base_decimals=8,
    )
    return dataclasses.replace(report, **changes)


def plan(net_profit_raw: int = 500, **changes: Any) -> LiquidationPlan:
    made = LiquidationPlan(
        account=ACCOUNT,
        protocol="aave-v3",
        debt_asset="0x" + "22" * 20,
        collateral_asset="0x" + "33" * 20,
        debt_to_cover_raw=10**9,
        seized_raw=10**18,
        full=False,
        path=(),
        flash_premium_raw=500,
        proceeds_raw=10**9 + 10_500,
        profit_raw=net_profit_raw + 1_000,
        gas_units=500_000,
        gas_cost_raw=1_000,
        min_profit_raw=0,
        impact_bps=30,
    )
    return dataclasses.replace(made, **changes)


PLANS = {"pays": plan(500), "loses": plan(-500), "none": None}
GAPS = {"right": 0, "too much": 101, "unknown": None}


def expected(
    protocol: MarginStatus, reference: MarginStatus | None, plan_kind: str, gap: str, without: str
) -> tuple[Action, Reason]:
    """The decision, worked out column by column instead of in the code's order."""
    seen = None if reference in (None, UNKNOWN) else reference
    if protocol is UNKNOWN:
        return (Action.ARM if seen is LIQUIDATABLE else Action.HOLD), Reason.PROTOCOL_UNKNOWN
    if seen is not None and (protocol is NO_DEBT) != (seen is NO_DEBT):
        return Action.HOLD, Reason.ACCOUNT_UNKNOWN
    if protocol is NO_DEBT:
        return Action.LEAVE, Reason.NO_DEBT
    if protocol is HEALTHY:
        return {
            None: (Action.LEAVE, Reason.REFERENCE_UNKNOWN),
            HEALTHY: (Action.LEAVE, Reason.HEALTHY),
            LIQUIDATABLE: (Action.ARM, Reason.PROTOCOL_PRICE_STALE_HIGH),
        }[seen]
    if seen is HEALTHY:
        return Action.HOLD, Reason.PROTOCOL_PRICE_LOW
    blind = seen is None or (gap == "unknown" and plan_kind == "pays")
    if blind and without == "hold":
        return Action.HOLD, Reason.REFERENCE_UNKNOWN
    if plan_kind == "none":
        return Action.LEAVE, Reason.NO_ROUTE
    if plan_kind == "loses":
        return Action.LEAVE, Reason.UNPROFITABLE
    if not blind and gap == "too much":
        return Action.HOLD, Reason.PROTOCOL_PRICE_LOW
    return Action.ACT, Reason.LIQUIDATE


@pytest.mark.parametrize("without", ["hold", "act"])
@pytest.mark.parametrize("gap", GAPS)
@pytest.mark.parametrize("plan_kind", PLANS)
def test_whole_decision_table(plan_kind: str, gap: str, without: str) -> None:
    policy = policies.build({"kind": "three-price", "without_reference": without})
    for protocol, reference in itertools.product(MarginStatus, [*MarginStatus, None]):
        protocol_margin = margin(protocol)
        reference_margin = None if reference is None else margin(reference)
        verdict = policy.decide(
            protocol_margin,
            reference_margin,
            PLANS[plan_kind],
            excess_seizure_bps=GAPS[gap],
            no_plan=Reason.NO_ROUTE,
        )
        case = (protocol, reference)
        assert (verdict.action, verdict.reason) == expected(protocol, reference, plan_kind, gap, without), (
            case
        )
        assert verdict.account == ACCOUNT
        assert verdict.protocol_margin is protocol_margin
        assert verdict.reference_margin is reference_margin
        assert verdict.detail
        assert "\n" not in verdict.detail


def decide(
    protocol: MarginReport,
    reference: MarginReport | None,
    made: LiquidationPlan | None = PLANS["pays"],
    excess: int | None = 0,
    **config: Any,
) -> tuple[Action, Reason]:
    verdict = ThreePricePolicy(**config).decide(protocol, reference, made, excess_seizure_bps=excess)
    return verdict.action, verdict.reason


def test_a_wrongly_low_protocol_price_is_held_and_says_by_how_much() -> None:
    verdict = ThreePricePolicy().decide(
        margin(LIQUIDATABLE, 987 * WAD // 1000),
        margin(HEALTHY, 1052 * WAD // 1000),
        plan(),
        excess_seizure_bps=660,
    )
    assert verdict.action is Action.HOLD
    assert verdict.reason is Reason.PROTOCOL_PRICE_LOW
    assert "0.9870" in verdict.detail
    assert "1.0520" in verdict.detail
    assert "100 bps" in verdict.detail


@pytest.mark.parametrize(
    ("health_factor_wad", "outcome"),
    [
        (WAD + WAD // 100, (Action.ACT, Reason.LIQUIDATE)),
        (WAD + WAD // 100 + 1, (Action.HOLD, Reason.PROTOCOL_PRICE_LOW)),
        (WAD, (Action.ACT, Reason.LIQUIDATE)),
    ],
)
def test_harm_tolerance_on_the_health_factor_is_exact(
    health_factor_wad: int, outcome: tuple[Action, Reason]
) -> None:
    assert decide(margin(LIQUIDATABLE), margin(HEALTHY, health_factor_wad)) == outcome


def test_without_tolerance_any_health_at_the_reference_holds() -> None:
    one_wei = margin(HEALTHY, WAD + 1)
    assert decide(margin(LIQUIDATABLE), one_wei, harm_tolerance_bps=0)[0] is Action.HOLD


@pytest.mark.parametrize(
    ("collateral_base", "held"), [(11_099, False), (11_100, False), (11_101, True), (11_200, True)]
)
def test_methods_without_health_factor_are_measured_by_their_surplus(
    collateral_base: int, held: bool
) -> None:
    # Debt 10,000 and maintenance 1,000: the surplus is 1 % of the debt at a collateral of 11,100.
    reference = dataclasses.replace(
        margin(HEALTHY),
        health_factor_wad=None,
        collateral_base=collateral_base,
        debt_base=10_000,
        maintenance_base=1_000,
    )
    assert (decide(margin(LIQUIDATABLE), reference)[0] is Action.HOLD) is held


def test_health_that_cannot_be_measured_counts_as_health() -> None:
    reference = dataclasses.replace(margin(HEALTHY), health_factor_wad=None, maintenance_base=None)
    assert decide(margin(LIQUIDATABLE), reference) == (Action.HOLD, Reason.PROTOCOL_PRICE_LOW)


@pytest.mark.parametrize(
    ("excess", "action"), [(-5_000, Action.ACT), (0, Action.ACT), (100, Action.ACT), (101, Action.HOLD)]
)
def test_liquidatable_in_both_views_but_seizing_too_much_is_held(excess: int, action: Action) -> None:
    assert decide(margin(LIQUIDATABLE), margin(LIQUIDATABLE), excess=excess)[0] is action


def test_an_account_without_profit_is_left_whatever_it_would_seize() -> None:
    verdict = decide(margin(LIQUIDATABLE), margin(LIQUIDATABLE), plan(-1), excess=9_000)
    assert verdict == (Action.LEAVE, Reason.UNPROFITABLE)


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (plan(1), Reason.LIQUIDATE),
        (plan(0), Reason.UNPROFITABLE),
        (plan(500, min_profit_raw=1_500), Reason.LIQUIDATE),
        (plan(500, min_profit_raw=1_501), Reason.UNPROFITABLE),
    ],
)
def test_profit_is_net_of_gas_and_at_least_what_the_contract_enforces(
    made: LiquidationPlan, reason: Reason
) -> None:
    assert decide(margin(LIQUIDATABLE), margin(LIQUIDATABLE), made)[1] is reason


def test_unknown_is_never_called_healthy_nor_acted_on_by_default() -> None:
    for protocol, reference in itertools.product(MarginStatus, [*MarginStatus, None]):
        if UNKNOWN not in (protocol, reference) and reference is not None:
            continue
        action, reason = decide(margin(protocol), None if reference is None else margin(reference))
        assert reason is not Reason.HEALTHY
        assert action is not Action.ACT


@pytest.mark.parametrize(
    ("protocol", "reference", "made", "no_plan"),
    [
        (margin(HEALTHY), margin(HEALTHY, account="0x" + "99" * 20), None, Reason.UNPROFITABLE),
        (margin(HEALTHY), margin(HEALTHY, block=8), None, Reason.UNPROFITABLE),
        (margin(LIQUIDATABLE), None, plan(account="0x" + "99" * 20), Reason.UNPROFITABLE),
        (margin(LIQUIDATABLE), None, None, Reason.HEALTHY),
    ],
)
def test_arguments_of_different_accounts_are_a_bug(
    protocol: MarginReport, reference: MarginReport | None, made: LiquidationPlan | None, no_plan: Reason
) -> None:
    with pytest.raises(ValueError, match=r"different|plan"):
        ThreePricePolicy().decide(protocol, reference, made, excess_seizure_bps=0, no_plan=no_plan)


def test_registry_contract() -> None:
    assert "three-price" in policies
    for kind in policies:
        assert isinstance(policies.build({"kind": kind}), Policy)


def test_configuration_errors_are_one_line() -> None:
    with pytest.raises(UnknownNameError, match=r"did you mean 'three-price'"):
        policies.build({"kind": "three-prices"})
    with pytest.raises(InputError, match=r"harm_tolerance_bps"):
        policies.build({"kind": "three-price", "harm_tolerance_bps": -1})
    with pytest.raises(InputError, match=r"did you mean 'harm_tolerance_bps'"):
        policies.build({"kind": "three-price", "harm_tolerance": 1})


def view(name: str, **prices_e8: int | None) -> Any:
    return plain_snapshot(name, "USD", prices_e8, 8, block=1, timestamp=1)


@pytest.mark.parametrize(
    ("protocol", "excess_bps"),
    [
        ({"ETH": 95_00000000, "USDC": 1_00000000}, 527),  # 5.263 % rounded up: 1 / 0.95
        ({"ETH": 100_00000000, "USDC": 1_00000000}, 0),
        ({"ETH": 105_00000000, "USDC": 1_00000000}, -476),  # -4.76 %: the borrower gains
        ({"ETH": 100_00000000, "USDC": 1_05000000}, 500),  # a debt priced too high harms as well
        ({"ETH": 90_00000000, "USDC": 90000000}, 0),  # both wrong alike: nothing more is seized
        ({"ETH": 99_99999999, "USDC": 1_00000000}, 1),
    ],
)
def test_excess_seizure(protocol: dict[str, int], excess_bps: int) -> None:
    reference = view("reference", ETH=100_00000000, USDC=1_00000000)
    assert excess_seizure_bps("ETH", "USDC", view("protocol", **protocol), reference) == excess_bps


def test_excess_seizure_is_unknown_with_any_price_unknown_and_zero_for_one_asset() -> None:
    full = view("a", ETH=100_00000000, USDC=1_00000000)
    for lacking in (view("b", ETH=None, USDC=1), view("b", ETH=1, USDC=0), view("b", ETH=1)):
        assert excess_seizure_bps("ETH", "USDC", full, lacking) is None
        assert excess_seizure_bps("ETH", "USDC", lacking, full) is None
    assert excess_seizure_bps("ETH", "ETH", view("b", ETH=None), full) == 0


@pytest.mark.parametrize("mantissa", [0, -1])
def test_excess_seizure_has_no_ratio_with_a_price_that_no_guard_refused(mantissa: int) -> None:
    full = view("a", ETH=100_00000000, USDC=1_00000000)
    reading = dataclasses.replace(full.prices["USDC"].reading, mantissa=mantissa)
    let_through = dataclasses.replace(
        full, prices={**full.prices, "USDC": GuardedPrice(reading, PriceStatus.OK)}
    )
    assert excess_seizure_bps("ETH", "USDC", full, let_through) is None
    assert excess_seizure_bps("ETH", "USDC", let_through, full) is None
