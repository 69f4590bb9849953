"""The planner against trying everything: every pair, every path, sizes on a fine grid."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from simulation.amm.uniswap_v3 import BeyondKnownTicks, PoolState, SwapReverted, quote_exact_in
from simulation.fixed_point import MAX_UINT256
from simulation.liquidation import NoPlan, PlanSettings, find_paths, plan_bundle, plan_liquidation
from simulation.types import LiquidationPlan, Reason
from tests.lending_model import (
    ASSETS,
    BTC,
    DAI,
    ETH,
    PRICES_E8,
    USD,
    Borrower,
    Lender,
    pool,
    pools_of,
    snapshot,
)

GRID = 400
TOKENS = (ETH, USD, BTC, DAI)


@dataclass(frozen=True)
class Case:
    """Something to plan."""

    lender: Lender
    borrower: Borrower
    pools: dict[str, PoolState]
    settings: PlanSettings


@st.composite
def borrowers(draw: st.DrawFn, account: str = "0xAa") -> Borrower:
    def holdings(tokens: list[str]) -> dict[str, int]:
        usd = st.integers(1, 200) | st.integers(200, 300_000)
        return {t: draw(usd) * 10 ** ASSETS[t].decimals * 10**8 // PRICES_E8[t] for t in tokens}

    owed = draw(st.lists(st.sampled_from(TOKENS), min_size=1, max_size=2, unique=True))
    # Seldom the same token on both sides: it needs no swap, and there is little to choose.
    both = draw(st.integers(0, 7)) == 0
    others = [t for t in TOKENS if both or t not in owed]
    held = draw(st.lists(st.sampled_from(others), min_size=1, max_size=2, unique=True))
    return Borrower(account, holdings(owed), holdings(held))


@st.composite
def markets(draw: st.DrawFn) -> dict[str, PoolState]:
    pairs = draw(
        st.lists(
            st.tuples(st.sampled_from(TOKENS), st.sampled_from(TOKENS)).filter(lambda p: p[0] != p[1]),
            min_size=3,
            max_size=7,
        )
    )
    return pools_of(
        *(
            pool(
                a,
                b,
                depth_usd=draw(st.integers(10_000, 20_000_000)),
                fee_pips=draw(st.sampled_from([100, 500, 3_000])),
                off_bps=draw(st.integers(-300, 300)),
                width_ticks=draw(st.none() | st.integers(300, 5_000)),
                number=i,
            )
            for i, (a, b) in enumerate(pairs)
        )
    )


@st.composite
def cases(draw: st.DrawFn) -> Case:
    return Case(
        Lender(bonus_bps=draw(st.sampled_from([10_100, 10_500, 11_500]))),
        draw(borrowers()),
        draw(markets()),
        PlanSettings(
            gas_price_wei=draw(st.sampled_from([0, 10**9, 50 * 10**9])),
            native_asset=ETH,
            min_net_profit_e8=draw(st.sampled_from([0, 10**8])),
            max_hops=draw(st.integers(1, 3)),
        ),
    )


def value(plan: LiquidationPlan) -> float:
    return plan.net_profit_raw * PRICES_E8[plan.debt_asset] / 10 ** (8 + ASSETS[plan.debt_asset].decimals)


def best_by_trying(case: Case, gas_usd_of: dict[int, float]) -> float:
    """Return the highest net profit in USD over all pairs and paths and a grid of sizes."""
    best = float("-inf")
    lender, borrower = case.lender, case.borrower
    for debt, collateral in lender.liquidation_pairs(PRICES_E8, borrower):
        most = lender.liquidation_quote(PRICES_E8, borrower, debt, collateral, MAX_UINT256).debt_repaid_raw
        paths = (
            ((),) if debt == collateral else find_paths(case.pools, collateral, debt, case.settings.max_hops)
        )
        usd_per_raw = PRICES_E8[debt] / 10 ** (8 + ASSETS[debt].decimals)
        for path in paths:
            for step in range(1, GRID + 1):
                size = most * step // GRID
                outcome = lender.liquidation_quote(PRICES_E8, borrower, debt, collateral, size)
                if size == 0 or outcome.to_liquidator_raw == 0:
                    continue
                try:
                    proceeds, _ = quote_exact_in(case.pools, path, outcome.to_liquidator_raw)
                except (SwapReverted, BeyondKnownTicks):
                    break
                profit = proceeds - size - lender.flash_loan_premium(PRICES_E8, size)
                best = max(best, profit * usd_per_raw - gas_usd_of.get(len(path), 0.0))
    return best


@settings(deadline=None, max_examples=60)
@given(cases())
def test_no_size_pair_or_path_beats_the_plan(case: Case) -> None:
    answer = plan_liquidation(case.lender, PRICES_E8, case.borrower, case.pools, snapshot(), case.settings)
    # What gas is worth is the planner's own business here: with a price of 0 nothing is left to argue about.
    if case.settings.gas_price_wei:
        assume(isinstance(answer, LiquidationPlan))
        assert isinstance(answer, LiquidationPlan)
        per_unit = (
            answer.gas_cost_raw
            / answer.gas_units
            * PRICES_E8[answer.debt_asset]
            / 10 ** (8 + ASSETS[answer.debt_asset].decimals)
        )
        assume(len(case.borrower.debts) == 1)
        gas_usd_of = {n: (540_000 + 100_000 * n) * per_unit for n in range(4)}
    else:
        gas_usd_of = {}
    best = best_by_trying(case, gas_usd_of)
    if isinstance(answer, LiquidationPlan):
        gross = answer.profit_raw * PRICES_E8[answer.debt_asset]
        gross_usd = gross / 10 ** (8 + ASSETS[answer.debt_asset].decimals)
        assert value(answer) >= best - 1e-3 * abs(gross_usd) - 1e-4
    else:
        assert best < 1.0 + 1e-4  # less than the least profit, or nothing


@settings(deadline=None, max_examples=80)
@given(cases())
def test_a_plan_keeps_its_own_promises(case: Case) -> None:
    plan = plan_liquidation(case.lender, PRICES_E8, case.borrower, case.pools, snapshot(), case.settings)
    assume(isinstance(plan, LiquidationPlan))
    assert isinstance(plan, LiquidationPlan)
    outcome = case.lender.liquidation_quote(
        PRICES_E8, case.borrower, plan.debt_asset, plan.collateral_asset, plan.debt_to_cover_raw
    )
    assert outcome.debt_repaid_raw <= plan.debt_to_cover_raw
    assert outcome.to_liquidator_raw == plan.seized_raw
    assert outcome.full == plan.full
    assert plan.proceeds_raw == quote_exact_in(case.pools, plan.path, plan.seized_raw)[0]
    assert plan.profit_raw == plan.proceeds_raw - outcome.debt_repaid_raw - plan.flash_premium_raw
    least_raw = case.settings.min_net_profit_e8 * 10 ** ASSETS[plan.debt_asset].decimals
    assert plan.net_profit_raw * PRICES_E8[plan.debt_asset] >= least_raw
    assert plan.net_profit_raw > 0
    assert plan.gas_cost_raw <= plan.min_profit_raw <= plan.profit_raw
    tokens = [plan.collateral_asset, *(hop.token_out for hop in plan.path)]
    assert tokens[-1] == plan.debt_asset
    assert len(set(tokens)) == len(tokens)
    assert len(plan.path) <= case.settings.max_hops


@settings(deadline=None, max_examples=40)
@given(cases(), st.lists(borrowers(), min_size=1, max_size=6))
def test_a_bundle_executed_in_order_pays_what_it_says(case: Case, others: list[Borrower]) -> None:
    accounts = {i: Borrower(f"0x{i}", b.debts, b.collaterals) for i, b in enumerate([case.borrower, *others])}
    answer = plan_bundle(case.lender, PRICES_E8, accounts, case.pools, snapshot(), case.settings)
    assert set(answer) == set(accounts)
    plans = [plan for plan in answer.values() if isinstance(plan, LiquidationPlan)]
    assert list(answer.values())[: len(plans)] == plans
    pools = case.pools
    for plan in plans:
        proceeds, pools = quote_exact_in(pools, plan.path, plan.seized_raw)
        assert proceeds == plan.proceeds_raw
        assert plan.net_profit_raw > 0
    alone = [
        plan_liquidation(case.lender, PRICES_E8, account, case.pools, snapshot(), case.settings)
        for account in accounts.values()
    ]
    worth = [value(plan) for plan in alone if isinstance(plan, LiquidationPlan)]
    if worth:
        # Of two whose bonus differs by rounding only, the larger one stands for both.
        first = plans[0]
        rounded_raw = 2 + first.proceeds_raw // 10**6
        unit = PRICES_E8[first.debt_asset] / 10 ** (8 + ASSETS[first.debt_asset].decimals)
        assert value(first) >= max(worth) - rounded_raw * unit
        assert value(first) in worth
    else:
        assert not plans


def plain_bundle(
    lender: Lender, accounts: dict[int, Borrower], pools: dict[str, PoolState], plan_settings: PlanSettings
) -> dict[int, LiquidationPlan | Reason]:
    """Plan everybody again at every turn and take the best, the first of equals."""
    left, plans = dict(accounts), {}
    while True:
        found = {
            i: plan_liquidation(lender, PRICES_E8, borrower, pools, snapshot(), plan_settings)
            for i, borrower in left.items()
        }
        paying = {i: plan for i, plan in found.items() if isinstance(plan, LiquidationPlan)}
        if not paying:
            refused = {i: no.reason for i, no in found.items() if isinstance(no, NoPlan)}
            return {**plans, **refused}
        best = max(paying, key=lambda i: value(paying[i]))
        plans[best] = paying[best]
        pools = quote_exact_in(pools, paying[best].path, paying[best].seized_raw)[1]
        del left[best]


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.integers(20, 400) | st.integers(9_990, 10_010) | st.integers(20, 60_000), max_size=10),
    st.integers(3_000_000, 40_000_000),
    st.sampled_from([0, 10**8]),
)
def test_a_bundle_is_what_planning_everybody_again_comes_to(
    usd: list[int], depth_usd: int, least_e8: int
) -> None:
    # One pool that takes every account whole, but has paid so little by the end that some are left out.
    pools = pools_of(pool(ETH, USD, depth_usd=depth_usd))
    lender = Lender(bonus_bps=10_500, premium_bps=0)
    accounts = {
        i: Borrower(f"0x{i}", {USD: amount * 10**6}, {ETH: amount * 2 * 10**16})
        for i, amount in enumerate(usd)
    }
    # No gas, which would be bought at the first price in the one and at that of the turn in the other.
    plan_settings = PlanSettings(gas_price_wei=0, native_asset=ETH, min_net_profit_e8=least_e8)
    answer = plan_bundle(lender, PRICES_E8, accounts, pools, snapshot(), plan_settings)
    plain = plain_bundle(lender, accounts, pools, plan_settings)
    plans = [[p for p in found.values() if isinstance(p, LiquidationPlan)] for found in (answer, plain)]
    if all(plan.full for plan in plans[1]):
        assert answer == plain
        assert list(answer) == list(plain)
    else:
        # Where the pool pays for a part only, a part is as good as another, to what a size is found to.
        worth = [sum(map(value, found)) for found in plans]
        assert worth[0] == pytest.approx(worth[1], rel=2e-3, abs=0.1)


@settings(deadline=None, max_examples=40)
@given(cases(), st.lists(borrowers(), min_size=1, max_size=8))
def test_what_a_bundle_leaves_out_does_not_pay_where_it_leaves_the_pools(
    case: Case, others: list[Borrower]
) -> None:
    accounts = {i: Borrower(f"0x{i}", b.debts, b.collaterals) for i, b in enumerate([case.borrower, *others])}
    plan_settings = PlanSettings(gas_price_wei=0, native_asset=ETH, min_net_profit_e8=10**7)
    answer = plan_bundle(case.lender, PRICES_E8, accounts, case.pools, snapshot(), plan_settings)
    pools = case.pools
    for plan in answer.values():
        if isinstance(plan, LiquidationPlan):
            pools = quote_exact_in(pools, plan.path, plan.seized_raw)[1]
    for i, reason in answer.items():
        if isinstance(reason, Reason):
            alone = plan_liquidation(case.lender, PRICES_E8, accounts[i], pools, snapshot(), plan_settings)
            assert isinstance(alone, NoPlan)
            assert alone.reason is reason
