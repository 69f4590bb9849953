"""Fees: within the budget, above every earlier offer by what pools ask for."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from keeper.config import FeesSection
from keeper.fees import FeePolicy, Fees, eighth_more, first_fees, market_fees, replacement_fees
from keeper.rpc import FeeHistory

WEI = st.integers(min_value=0, max_value=10**13)
GAS = st.integers(min_value=21_000, max_value=2_000_000)
BUDGET = st.integers(min_value=0, max_value=10**19)
OFFERS = st.lists(st.builds(Fees, WEI, WEI), min_size=1, max_size=4)


@st.composite
def histories(draw: st.DrawFn) -> FeeHistory:
    blocks = draw(st.integers(min_value=0, max_value=5))
    base = draw(st.lists(WEI, min_size=blocks + 1, max_size=blocks + 1))
    ratios = draw(st.lists(st.sampled_from([0.0, 0.3, 1.0]), min_size=blocks, max_size=blocks))
    tips = draw(st.lists(WEI, min_size=blocks, max_size=blocks))
    return FeeHistory(7, tuple(base), tuple(ratios), tuple(tips))


@st.composite
def policies(draw: st.DrawFn) -> FeePolicy:
    low = draw(WEI)
    return FeePolicy(low, low + draw(WEI), Fraction(draw(st.integers(10, 40)), 10), 2, 10**18, 10**16)


@given(histories(), policies(), GAS, BUDGET)
@settings(deadline=None)
def test_first_offer_is_payable_and_gets_in(h: FeeHistory, p: FeePolicy, gas: int, budget: int) -> None:
    fees = first_fees(h, p, gas_limit=gas, budget_wei=budget)
    if fees is None:
        # A headroom below an eighth never outlasts a full block, whatever the budget.
        market = market_fees(h, p).max_fee_wei
        assert min(market, budget // gas) < eighth_more(h.next_base_fee_wei) + p.min_tip_wei
        return
    assert fees.max_fee_wei * gas <= budget
    assert fees.max_fee_wei >= eighth_more(h.next_base_fee_wei) + p.min_tip_wei
    assert p.min_tip_wei <= fees.priority_fee_wei <= min(p.max_tip_wei, fees.max_fee_wei)


@given(OFFERS, histories(), policies(), GAS, BUDGET)
@settings(deadline=None)
def test_replacement_beats_every_earlier_offer_within_the_budget(
    earlier: list[Fees], h: FeeHistory, p: FeePolicy, gas: int, budget: int
) -> None:
    fees = replacement_fees(earlier, h, p, gas_limit=gas, budget_wei=budget)
    if fees is None:
        return
    for offer in earlier:
        assert fees.max_fee_wei * 8 >= offer.max_fee_wei * 9
        assert fees.priority_fee_wei * 8 >= offer.priority_fee_wei * 9
        assert fees.max_fee_wei > offer.max_fee_wei
        assert fees.priority_fee_wei > offer.priority_fee_wei
    assert fees.priority_fee_wei <= fees.max_fee_wei
    assert fees.max_fee_wei * gas <= budget
    assert fees.max_fee_wei >= h.next_base_fee_wei


@given(OFFERS, histories(), policies(), GAS)
@settings(deadline=None)
def test_replacement_is_refused_for_want_of_budget_only(
    earlier: list[Fees], h: FeeHistory, p: FeePolicy, gas: int
) -> None:
    assert replacement_fees(earlier, h, p, gas_limit=gas, budget_wei=10**40) is not None


@given(st.integers(min_value=0, max_value=2**256))
def test_eighth_more_is_the_least_that_counts(wei: int) -> None:
    more = eighth_more(wei)
    assert more * 8 >= wei * 9
    assert more > wei
    assert (more - 1) * 8 < wei * 9 or more - 1 == wei


def test_empty_blocks_say_nothing_about_tips() -> None:
    policy = FeePolicy.from_config(FeesSection())
    busy = FeeHistory(1, (100, 100, 100, 100), (0.0, 0.5, 0.0), (0, 3 * 10**9, 0))
    assert market_fees(busy, policy).priority_fee_wei == 3 * 10**9
    idle = FeeHistory(1, (100, 100), (0.0,), (0,))
    assert market_fees(idle, policy).priority_fee_wei == policy.min_tip_wei


def test_default_headroom_survives_three_full_blocks() -> None:
    policy = FeePolicy.from_config(FeesSection())
    base = 10**11
    fees = market_fees(FeeHistory(1, (base, base), (1.0,), (10**9,)), policy)
    assert fees.max_fee_wei > base * 9**3 // 8**3 + policy.min_tip_wei


def test_chain_without_a_base_fee_is_offered_the_wei_that_a_full_block_would_ask() -> None:
    policy = FeePolicy.from_config(FeesSection())
    fees = first_fees(FeeHistory(1, (0, 0), (0.5,), (0,)), policy, gas_limit=800_000, budget_wei=10**17)
    assert fees == Fees(policy.min_tip_wei + 1, policy.min_tip_wei)
