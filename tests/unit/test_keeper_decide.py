"""Decisions, one rule at a time. That nobody is overlooked is in tests/property/test_decide.py."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from keeper.decide import Decision, decide, margin_line
from keeper.view import HeadView
from oracle.snapshot import plain_snapshot
from simulation.fixed_point import MAX_UINT256, WAD
from simulation.policy.three_price import ThreePricePolicy
from simulation.protocols.aave_v3 import EModeCategory
from simulation.protocols.aave_v3.book import book_of_accounts
from simulation.types import Action, LiquidationPlan, MarginReport, MarginStatus, Reason, Verdict
from tests.aave_states import NOW
from tests.seeded_view import ADAPTER, BLOCK, FIRST_E8, GWEI, SETTINGS, seeded_accounts, token, view_at

ACCOUNTS = seeded_accounts(60, 3)
CRASH = {**FIRST_E8, **{s: FIRST_E8[s] * 62 // 100 for s in ("WETH", "wstETH")}}


def crashed(reference: Mapping[str, int | None] = CRASH, **changes: Any) -> HeadView:
    """Return a view after a fall of Ether, which the pools follow."""
    return view_at(ACCOUNTS, changes.pop("protocol", CRASH), reference, pools_e8=CRASH, **changes)


def decided(view: HeadView, policy: ThreePricePolicy | None = None, **changes: Any) -> Decision:
    arguments: dict[str, Any] = {"settings": SETTINGS, "next_timestamp": NOW + 12} | changes
    return decide(view, ADAPTER, policy or ThreePricePolicy(), **arguments)


def by_account(decision: Decision) -> dict[str, Verdict]:
    return {verdict.account: verdict for verdict in decision.verdicts}


def acted_on(decision: Decision) -> list[str]:
    return [plan.account for plan in decision.plans]


def value_e8(plan: LiquidationPlan) -> float:
    symbol, decimals = {token("USDC"): ("USDC", 6), token("WETH"): ("WETH", 18)}[plan.debt_asset]
    return float(plan.net_profit_raw * CRASH[symbol] / 10**decimals)


def test_a_crash_that_the_reference_confirms_is_acted_on_the_most_profitable_first() -> None:
    decision = decided(crashed())
    assert len(decision.plans) >= 6
    assert all(v.action is Action.ACT for v in decision.verdicts if v.account in acted_on(decision))
    values = [value_e8(plan) for plan in decision.plans]
    assert all(first >= second for first, second in pairwise(values))
    assert {p.collateral_asset for p in decision.plans} >= {token("WETH")}
    reasons = {v.reason for v in decision.verdicts}
    # Too small to be worth the gas, and no pool of DAI.
    assert {Reason.LIQUIDATE, Reason.UNPROFITABLE, Reason.NO_ROUTE} <= reasons


def test_an_account_with_a_liquidation_under_way_is_judged_and_not_planned_for() -> None:
    view = crashed()
    first, *others = acted_on(decided(view))
    decision = decided(view, in_flight={first})
    assert by_account(decision)[first].reason is Reason.DUPLICATE
    assert by_account(decision)[first].action is Action.LEAVE
    assert by_account(decision)[first].protocol_margin.status is MarginStatus.LIQUIDATABLE
    # Others may pay now that it does not come before them in the pools; none is lost.
    assert set(acted_on(decision)) >= set(others)
    assert first not in acted_on(decision)


def test_an_account_under_way_that_must_be_held_is_held() -> None:
    view = crashed(reference=FIRST_E8)
    (account, *_) = (v.account for v in decided(view).verdicts if v.reason is Reason.PROTOCOL_PRICE_LOW)
    verdict = by_account(decided(view, in_flight={account}))[account]
    assert (verdict.action, verdict.reason) == (Action.HOLD, Reason.PROTOCOL_PRICE_LOW)


def test_a_protocol_price_that_is_wrongly_low_holds_everybody_that_it_hits() -> None:
    decision = decided(crashed(reference=FIRST_E8))
    confirmed = decided(crashed())
    assert decision.plans == ()
    held = {v.account for v in decision.verdicts if v.reason is Reason.PROTOCOL_PRICE_LOW}
    assert held >= set(acted_on(confirmed))
    assert {v.action for v in decision.verdicts if v.account in held} == {Action.HOLD}


def test_a_protocol_price_that_is_stale_above_the_reference_arms() -> None:
    decision = decided(crashed(protocol=FIRST_E8))
    assert decision.plans == ()
    armed = {v.account for v in decision.verdicts if v.action is Action.ARM}
    assert armed >= set(acted_on(decided(crashed())))
    assert {v.reason for v in decision.verdicts if v.account in armed} == {Reason.PROTOCOL_PRICE_STALE_HIGH}


@pytest.mark.parametrize("reference", [{}, dict.fromkeys(FIRST_E8)])
def test_without_a_reference_the_policy_says_whether_to_act(reference: Mapping[str, int | None]) -> None:
    view = crashed(reference=reference)
    held = decided(view)
    assert held.plans == ()
    liquidatable = {v.account for v in held.verdicts if v.protocol_margin.status is MarginStatus.LIQUIDATABLE}
    assert liquidatable >= set(acted_on(decided(crashed())))
    assert {(v.action, v.reason) for v in held.verdicts if v.account in liquidatable} == {
        (Action.HOLD, Reason.REFERENCE_UNKNOWN)
    }
    acting = decided(view, ThreePricePolicy(without_reference="act"))
    assert acted_on(acting) == acted_on(decided(crashed()))


def test_seizing_more_than_the_reference_justifies_is_held_although_both_say_liquidatable() -> None:
    # Liquidatable at either price, but the protocol's is 2 % too low: that is what the borrower would lose.
    reference = {**CRASH, "WETH": CRASH["WETH"] * 102 // 100}
    decision = decided(crashed(reference=reference))
    verdicts = by_account(decision)
    deep = [
        v
        for v in verdicts.values()
        if v.reference_margin is not None
        and v.reference_margin.status is MarginStatus.LIQUIDATABLE
        and v.reason is Reason.PROTOCOL_PRICE_LOW
    ]
    assert deep
    assert all("bps more than at reference prices" in v.detail for v in deep)
    assert not {v.account for v in deep} & set(acted_on(decision))
    tolerant = decided(crashed(reference=reference), ThreePricePolicy(harm_tolerance_bps=300))
    # Held whether it pays or not; who is not held any more and left all the same does not.
    assert {v.account for v in deep} & set(acted_on(tolerant))
    left = {v.account for v in deep} - set(acted_on(tolerant))
    assert {by_account(tolerant)[account].reason for account in left} <= {Reason.UNPROFITABLE}


def test_an_account_that_could_not_be_read_is_held_as_unknown() -> None:
    account = ACCOUNTS[0].account
    verdict = by_account(decided(crashed(unreadable={account})))[account]
    assert (verdict.action, verdict.reason) == (Action.HOLD, Reason.PROTOCOL_UNKNOWN)
    assert verdict.protocol_margin.status is MarginStatus.UNKNOWN
    assert "could not be read" in verdict.detail


def test_a_price_that_the_protocol_does_not_give_leaves_unknown_or_arms() -> None:
    decision = decided(crashed(protocol={**CRASH, "WETH": None}))
    verdicts = by_account(decision)
    ether = {a.account for a in ACCOUNTS if any(p.reserve_id == 0 for p in a.positions)}
    liquidatable = {a for a in acted_on(decided(crashed())) if a in ether}
    assert liquidatable
    for account in ether:
        wanted = Action.ARM if account in liquidatable else verdicts[account].action
        assert (verdicts[account].action, verdicts[account].reason) == (wanted, Reason.PROTOCOL_UNKNOWN)
    assert {verdicts[account].action for account in ether} == {Action.ARM, Action.HOLD}
    # Who does not hold it is not concerned.
    assert not {v.account for v in verdicts.values() if v.reason is Reason.PROTOCOL_UNKNOWN} - ether


def test_who_is_watched_gets_a_verdict_when_healthy_again() -> None:
    account = next(
        v.account
        for v in decided(view_at(ACCOUNTS, {}, FIRST_E8), every=True).verdicts
        if v.reason is Reason.HEALTHY
    )
    view = view_at(ACCOUNTS, {}, FIRST_E8)
    assert account not in by_account(decided(view))
    assert by_account(decided(view, watched={account}))[account].reason is Reason.HEALTHY
    assert account not in by_account(decided(view, watched={"0x" + "99" * 20}))


def test_dear_gas_leaves_what_it_eats_up() -> None:
    cheap, dear = (
        decided(crashed(), settings=replace(SETTINGS, gas_price_wei=price * GWEI)) for price in (1, 2_000)
    )
    assert set(acted_on(dear)) < set(acted_on(cheap))
    left = set(acted_on(cheap)) - set(acted_on(dear))
    assert {by_account(dear)[account].reason for account in left} == {Reason.UNPROFITABLE}


def test_market_is_never_projected_into_the_past() -> None:
    assert (
        decided(crashed(), next_timestamp=NOW - 10**6).plans == decided(crashed(), next_timestamp=NOW).plans
    )
    later = decided(crashed(), next_timestamp=NOW + 30 * 86_400)
    # A month of interest is owed on top.
    before = {p.account: p for p in decided(crashed()).plans}
    grown = [p for p in later.plans if p.full and before[p.account].full]
    assert grown
    assert all(p.debt_to_cover_raw > before[p.account].debt_to_cover_raw for p in grown)


def test_price_of_an_emode_category_is_the_protocols_own() -> None:
    """An account in a category with its own price has no reference for it, and is held."""
    loops = [a for a in ACCOUNTS if a.e_mode_category]
    assert loops
    view = crashed()
    category = EModeCategory(1, 9_300, 9_500, 10_100, token("USDC"), 10**8)
    market = replace(view.market, e_mode_categories={1: category})
    book = book_of_accounts(ADAPTER.name, market, [a.account for a in ACCOUNTS], ACCOUNTS)
    prices = plain_snapshot("protocol", "USD", market.prices_base, 8, block=BLOCK, timestamp=NOW)
    decision = decided(replace(view, market=market, book=book, protocol=prices))
    assert book.assets[-1].symbol == "emode-1"
    verdicts = by_account(decision)
    for loop in loops:
        assert verdicts[loop.account].reference_margin is not None
        assert verdicts[loop.account].reason is Reason.REFERENCE_UNKNOWN


@pytest.mark.parametrize(
    ("margin", "line"),
    [
        (None, "none"),
        ({"health_factor_wad": 15 * WAD // 10}, "1.5000"),
        ({"health_factor_wad": None, "status": MarginStatus.UNKNOWN}, "unknown"),
    ],
)
def test_margin_as_a_few_words(margin: dict[str, Any] | None, line: str) -> None:
    plain = MarginReport("0xA", "p", "m", 1, 1, MarginStatus.HEALTHY, 1, 1, 1, 1, WAD, 8)
    assert margin_line(None if margin is None else replace(plain, **margin)) == line


def test_margin_without_debt_is_not_a_number_of_78_digits() -> None:
    plain = MarginReport("0xA", "p", "m", 1, 1, MarginStatus.NO_DEBT, 1, 0, 1, 1, MAX_UINT256, 8)
    assert margin_line(plain) == "no_debt"
