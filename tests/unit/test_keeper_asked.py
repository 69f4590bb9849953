"""What a contract is asked for holds when the price moved before it was mined; without room it does not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from keeper.asked import (
    LEAST_ROOM_BPS,
    MOST_ROOM_BPS,
    SHARED_GAS,
    Asked,
    Planned,
    gas_room,
    room_bps,
    with_room,
)
from simulation.fixed_point import MAX_UINT256
from simulation.protocols.aave_v3 import AaveAccount, AaveLayout
from simulation.protocols.aave_v3_6 import AaveMarket, AaveV36
from simulation.protocols.morpho_blue import MorphoAccount, MorphoMarket
from simulation.types import LiquidationPlan
from tests import aave_states
from tests.morpho_states import ACCOUNT, adapter, market
from tests.property.test_aave_v3_6 import reserve

USDC, ETHER = 10**6, 10**18
E36 = 10**24

# -------------------------------------------------------------------------------------------- the room


def test_room_is_half_more_than_the_largest_step_of_the_last_heads() -> None:
    assert room_bps([{"A": 100}]) == LEAST_ROOM_BPS
    assert room_bps([{"A": 1_000, "B": 50}, {"A": 1_000, "B": 52}, {"A": 990, "B": 52}]) == 600
    assert room_bps([{"A": 1_000}, {"A": 960}]) == 600  # down as up
    assert room_bps([{"A": 100}, {"A": 50}]) == MOST_ROOM_BPS
    assert room_bps([{"A": 100}, {"B": 50}]) == LEAST_ROOM_BPS
    assert room_bps([]) == LEAST_ROOM_BPS
    assert with_room(3, 100) == 4


# ---------------------------------------------------------------------------------------------- Morpho


def borrower(price: int, held_raw: int = ETHER) -> tuple[MorphoMarket, MorphoAccount]:
    """Return a market at a price in whole USDC, and its only borrower: 1 WETH for 1,000 USDC."""
    state = market(5_000 * USDC, 1_000 * USDC, price_e36=price * E36)
    return state, MorphoAccount(ACCOUNT, 0, 1_000 * USDC * 10**6, held_raw)


def planned(state: MorphoMarket, account: MorphoAccount, debt_raw: int = MAX_UINT256) -> LiquidationPlan:
    loan, collateral = state.loan.address, state.collateral.address
    outcome = adapter().liquidation_quote(state, account, loan, collateral, debt_raw)
    assert outcome.succeeds
    return LiquidationPlan(
        account=account.account,
        protocol=adapter().name,
        debt_asset=loan,
        collateral_asset=collateral,
        debt_to_cover_raw=outcome.debt_repaid_raw,
        seized_raw=outcome.to_liquidator_raw,
        full=outcome.full,
        path=(),
        flash_premium_raw=0,
        proceeds_raw=0,
        profit_raw=0,
        gas_units=1,
        gas_cost_raw=1,
        min_profit_raw=1_000,
        impact_bps=0,
    )


@pytest.mark.parametrize("price", [1_150, 1_080, 1_042, 1_030, 800])
@pytest.mark.parametrize("debt_raw", [MAX_UINT256, 600 * USDC])
def test_of_morpho_what_was_planned_is_asked_for_and_the_contract_takes_what_there_is(
    price: int, debt_raw: int
) -> None:
    """Also where debt and collateral are near to each other; see tests/parity/test_plans_morpho.py."""
    state, account = borrower(price)
    plan = planned(state, account, debt_raw)
    asked = Asked(adapter(), state, account, room_bps=MOST_ROOM_BPS)
    assert asked.asked(plan) == plan
    words = {"intent_id": b"\1" * 32, "deadline_block": 7}
    assert asked.liquidator_calldata(plan, **words) == adapter().liquidator_calldata(plan, **words)


# ------------------------------------------------------------------------------------------- Aave V3.6

AAVE = AaveV36(AaveLayout("", "", "", "", (), (), 8))
WETH, DOLLAR = 0, 1


def short(price_e8: int = 10_123_456_789) -> tuple[AaveMarket, AaveAccount]:
    """Return 3 WETH that are worth less than the 400 USDC owed: all of the collateral goes."""
    states = (
        reserve(WETH, price_e8, aave_states.configuration(18, liquidation_threshold_bps=8_000)),
        reserve(DOLLAR, 10**8, aave_states.configuration(6, flash_loan_enabled=True)),
    )
    state = AaveMarket(1, aave_states.NOW, states, {}, flash_loan_premium_bps=5)
    return state, aave_states.account({WETH: 3 * ETHER + 7}, {DOLLAR: 400 * USDC})


def quote(state: AaveMarket, account: AaveAccount, amount: int) -> tuple[str | None, int, int]:
    debt, collateral = (aave_states.address(i) for i in (DOLLAR, WETH))
    outcome = AAVE.liquidation_quote(state, account, debt, collateral, amount)
    return outcome.revert_code, outcome.debt_repaid_raw, outcome.to_liquidator_raw


def test_v3_6_takes_all_of_a_collateral_where_it_is_asked_for_more() -> None:
    state, account = short()
    _, most_raw, seized_raw = quote(state, account, MAX_UINT256)
    assert most_raw < 400 * USDC
    assert quote(state, account, most_raw)[0] == "MustNotLeaveDust"

    debt, collateral = (aave_states.address(i) for i in (DOLLAR, WETH))
    outcome = Planned(AAVE).liquidation_quote(state, account, debt, collateral, most_raw)
    assert (outcome.revert_code, outcome.debt_repaid_raw) == (None, most_raw)
    # Half of it leaves dust whatever is asked for.
    half = Planned(AAVE).liquidation_quote(state, account, debt, collateral, most_raw // 2)
    assert half.revert_code == "MustNotLeaveDust"

    plan = replace(
        planned(*borrower(1_080)),
        debt_asset=debt,
        collateral_asset=collateral,
        debt_to_cover_raw=most_raw,
        seized_raw=seized_raw,
    )
    asked = Asked(AAVE, state, account, room_bps=400).asked(plan)
    assert asked.debt_to_cover_raw == with_room(most_raw, 400)
    # From inventory no more is asked for than there is, or nothing would be paid at all.
    kept = replace(plan, from_inventory=True)
    for funds_raw, paid_raw in ((most_raw + 5, most_raw + 5), (most_raw, most_raw), (10 * most_raw, None)):
        wanted = Asked(AAVE, state, account, room_bps=400, funds_raw=funds_raw).asked(kept)
        assert wanted.debt_to_cover_raw == (paid_raw or with_room(most_raw, 400))
    risen = short(10_423_456_789)[0]
    assert quote(risen, account, most_raw)[0] == "MustNotLeaveDust"
    assert quote(risen, account, asked.debt_to_cover_raw)[0] is None


def test_half_of_a_small_position_is_asked_for_with_the_other_half() -> None:
    """At 2,010 only half may be repaid; a per cent less, and all of it may and half leaves dust."""

    def small(dollar_e8: int) -> tuple[AaveMarket, AaveAccount]:
        states = (
            reserve(WETH, 100 * 10**8, aave_states.configuration(18, liquidation_threshold_bps=8_000)),
            reserve(DOLLAR, dollar_e8, aave_states.configuration(6, flash_loan_enabled=True)),
        )
        state = AaveMarket(1, aave_states.NOW, states, {}, flash_loan_premium_bps=5)
        return state, aave_states.account({WETH: 24 * ETHER + 6 * 10**17}, {DOLLAR: 2_010 * USDC})

    state, account = small(10**8)
    code, half_raw, seized_raw = quote(state, account, MAX_UINT256)
    assert (code, half_raw) == (None, 1_005 * USDC)
    fallen = small(99 * 10**6)[0]
    assert quote(fallen, account, half_raw)[0] in ("MustNotLeaveDust", "HealthFactorNotBelowThreshold")
    debt, collateral = (aave_states.address(i) for i in (DOLLAR, WETH))
    plan = replace(
        planned(*borrower(1_080)),
        debt_asset=debt,
        collateral_asset=collateral,
        debt_to_cover_raw=half_raw,
        seized_raw=seized_raw,
        full=False,
    )
    asked = Asked(AAVE, state, account, room_bps=200).asked(plan)
    assert asked.debt_to_cover_raw == 2 * half_raw + 1
    assert quote(fallen, account, asked.debt_to_cover_raw)[:2] == (None, 2_010 * USDC)
    # Far above the threshold half is half.
    assert quote(state, account, asked.debt_to_cover_raw)[1] == half_raw
    assert Asked(AAVE, state, account, room_bps=20).asked(plan) == plan


def test_a_part_of_a_debt_on_purpose_is_not_raised() -> None:
    state, account = short()
    account = aave_states.account({WETH: 300 * ETHER}, {DOLLAR: 29_000 * USDC})
    debt, collateral = (aave_states.address(i) for i in (DOLLAR, WETH))
    code, repaid_raw, seized_raw = quote(state, account, 5_000 * USDC)
    assert (code, repaid_raw) == (None, 5_000 * USDC)
    plan = replace(
        planned(*borrower(1_080)),
        debt_asset=debt,
        collateral_asset=collateral,
        debt_to_cover_raw=5_000 * USDC,
        seized_raw=seized_raw,
        full=False,
    )
    assert Asked(AAVE, state, account).asked(plan) == plan


# ------------------------------------------------------------------------------------------------- gas


def test_what_another_transaction_did_first_is_gas_that_may_be_needed() -> None:
    assert gas_room(adapter()) == SHARED_GAS
    assert gas_room(AAVE) == 0


def test_where_all_that_may_be_repaid_leaves_dust_a_part_is_planned() -> None:
    """Half of 3,700 of debt in two tokens is more than is owed in one: 200 would be left of it."""
    other = 2
    states = (
        reserve(WETH, 100 * 10**8, aave_states.configuration(18, liquidation_threshold_bps=8_000)),
        reserve(DOLLAR, 10**8, aave_states.configuration(6, flash_loan_enabled=True)),
        reserve(other, 10**8, aave_states.configuration(18, flash_loan_enabled=True)),
    )
    state = AaveMarket(1, aave_states.NOW, states, {}, flash_loan_premium_bps=5)
    account = aave_states.account({WETH: 45 * ETHER}, {DOLLAR: 2_050 * USDC, other: 1_650 * ETHER})
    assert quote(state, account, MAX_UINT256)[0] == "MustNotLeaveDust"
    debt, collateral = (aave_states.address(i) for i in (DOLLAR, WETH))
    part = Planned(AAVE).liquidation_quote(state, account, debt, collateral, MAX_UINT256)
    assert part.revert_code is None
    # A thousand and a little more is left.
    assert 2_050 * USDC - part.debt_repaid_raw == pytest.approx(1_000 * USDC, rel=0.02)
    assert 2_050 * USDC - part.debt_repaid_raw > 1_000 * USDC
