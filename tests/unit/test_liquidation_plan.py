"""The planner's choices, one at a time. Its optimum is in tests/property/test_liquidation_plan.py."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import combinations, pairwise
from typing import Any

import pytest

from contracts_abi.errors import InputError
from simulation import liquidation
from simulation.amm.uniswap_v3 import PoolState, amount_out_exact_in, quote_exact_in, swap
from simulation.fixed_point import MAX_UINT256
from simulation.liquidation import (
    MarketBook,
    NoPlan,
    PlanSettings,
    find_paths,
    maximise,
    plan_bundle,
    plan_liquidation,
    plan_markets,
    plan_pairs,
)
from simulation.types import LiquidationPlan, Reason
from tests.lending_model import (
    BTC,
    DAI,
    ETH,
    PRICES_E8,
    USD,
    Borrower,
    Lender,
    Outcome,
    pool,
    pools_of,
    snapshot,
)

GWEI = 10**9
SETTINGS = PlanSettings(gas_price_wei=20 * GWEI, native_asset=ETH)
DEEP = pools_of(
    pool(ETH, USD, depth_usd=20_000_000),
    pool(BTC, ETH, depth_usd=20_000_000),
    pool(BTC, USD, depth_usd=20_000_000, fee_pips=3_000),
    pool(DAI, USD, depth_usd=20_000_000, fee_pips=100),
)
BORROWER = Borrower("0xAa", {USD: 10_000 * 10**6}, {ETH: 120 * 10**18})


def planned(borrower: Borrower = BORROWER, **changes: object) -> LiquidationPlan:
    arguments = {"model": Lender(), "pools": DEEP, "settings": SETTINGS, "prices": snapshot()} | changes
    plan = plan_liquidation(market=PRICES_E8, account=borrower, **arguments)
    assert isinstance(plan, LiquidationPlan), plan
    return plan


def refused(borrower: Borrower = BORROWER, **changes: object) -> NoPlan:
    arguments = {"model": Lender(), "pools": DEEP, "settings": SETTINGS, "prices": snapshot()} | changes
    plan = plan_liquidation(market=PRICES_E8, account=borrower, **arguments)
    assert isinstance(plan, NoPlan), plan
    return plan


def test_the_parts_of_a_plan_add_up() -> None:
    plan = planned()
    assert (plan.account, plan.protocol) == ("0xAa", "lender")
    assert (plan.debt_asset, plan.collateral_asset) == (USD, ETH)
    assert plan.debt_to_cover_raw == 10_000 * 10**6
    assert plan.full
    assert plan.seized_raw == 105 * 10**18
    assert [(hop.token_in, hop.token_out) for hop in plan.path] == [(ETH, USD)]
    assert plan.proceeds_raw == quote_exact_in(DEEP, plan.path, plan.seized_raw)[0]
    assert plan.flash_premium_raw == 5 * 10**6
    assert plan.profit_raw == plan.proceeds_raw - plan.debt_to_cover_raw - plan.flash_premium_raw
    # 640,000 gas at 20 gwei are 0.0128 ETH, 1.28 USD, and the pool's fee to buy them.
    assert plan.gas_units == 640_000
    assert 1_280_000 < plan.gas_cost_raw < 1_282_000
    assert plan.net_profit_raw == plan.profit_raw - plan.gas_cost_raw
    # One per cent of the proceeds may slip.
    assert plan.min_profit_raw == plan.profit_raw - -(-plan.proceeds_raw // 100)
    assert 5 < plan.impact_bps < 25


@dataclass(frozen=True)
class Shifted(Lender):
    """Repays this much more than it is asked to, or less; only the largest size it answers as asked."""

    shift_raw: int = 0

    def liquidation_quote(
        self,
        market: Mapping[str, int],
        account: Borrower,
        debt_asset: str,
        collateral_asset: str,
        debt_to_cover_raw: int,
    ) -> Outcome:
        asked = super().liquidation_quote(market, account, debt_asset, collateral_asset, debt_to_cover_raw)
        if debt_to_cover_raw == MAX_UINT256:
            return asked
        return replace(asked, debt_repaid_raw=asked.debt_repaid_raw + self.shift_raw)


def test_profit_counts_what_the_protocol_takes_and_not_what_it_was_offered() -> None:
    plain, frugal = planned(), planned(model=Shifted(shift_raw=-5))
    assert frugal.debt_to_cover_raw == plain.debt_to_cover_raw
    assert frugal.flash_premium_raw == plain.flash_premium_raw, "all that was offered is borrowed"
    assert frugal.profit_raw == plain.profit_raw + 5


def test_a_liquidation_that_leaves_nothing_is_not_worth_it() -> None:
    spare_raw = planned().net_profit_raw
    assert planned(model=Shifted(shift_raw=spare_raw - 1)).net_profit_raw == 1
    assert refused(model=Shifted(shift_raw=spare_raw)).reason is Reason.UNPROFITABLE


def test_the_contract_is_never_asked_for_less_than_gas_and_the_least_profit() -> None:
    settings = replace(SETTINGS, slippage_bps=10_000, min_net_profit_e8=7 * 10**8)
    plan = planned(settings=settings)
    assert plan.min_profit_raw == plan.gas_cost_raw + 7_000_000


def test_a_large_debt_is_repaid_in_part_when_the_pool_is_shallow() -> None:
    shallow = pools_of(pool(ETH, USD, depth_usd=1_000_000))
    plan = planned(Borrower("0xAa", {USD: 100_000 * 10**6}, {ETH: 2_000 * 10**18}), pools=shallow)
    assert not plan.full
    assert 0 < plan.debt_to_cover_raw < 50_000 * 10**6
    bigger, smaller = (plan.debt_to_cover_raw * f // 100 for f in (110, 90))
    for other in (bigger, smaller):
        outcome = Lender().liquidation_quote(
            PRICES_E8, Borrower("", {USD: 10**12}, {ETH: 10**30}), USD, ETH, other
        )
        proceeds, _ = quote_exact_in(shallow, plan.path, outcome.to_liquidator_raw)
        assert proceeds - other - Lender().flash_loan_premium(PRICES_E8, other) < plan.profit_raw


def test_two_pools_are_taken_when_they_pay_more_than_one() -> None:
    pools = pools_of(
        pool(ETH, USD, depth_usd=100_000),
        pool(BTC, ETH, depth_usd=20_000_000),
        pool(BTC, USD, depth_usd=20_000_000),
    )
    plan = planned(pools=pools)
    assert [hop.token_out for hop in plan.path] == [BTC, USD]
    assert plan.gas_units == 740_000
    one = planned(pools=pools, settings=replace(SETTINGS, max_hops=1))
    assert len(one.path) == 1
    assert one.net_profit_raw < plan.net_profit_raw


def test_the_best_pair_is_chosen_by_value_and_not_by_raw_units() -> None:
    # DAI has 18 decimals: its raw profit is a million million times larger for the same value.
    borrower = Borrower("0xAa", {DAI: 1_000 * 10**18, USD: 9_000 * 10**6}, {ETH: 500 * 10**18})
    assert planned(borrower).debt_asset == USD
    results = plan_pairs(Lender(), PRICES_E8, borrower, DEEP, snapshot(), SETTINGS)
    assert [(r.debt_asset, r.collateral_asset) for r in results] == [(DAI, ETH), (USD, ETH)]
    assert all(r.plan is not None and r.no_plan is None for r in results)


def test_the_same_token_on_both_sides_needs_no_swap() -> None:
    plan = planned(Borrower("0xAa", {ETH: 10**19}, {ETH: 2 * 10**19}))
    assert plan.path == ()
    assert plan.proceeds_raw == plan.seized_raw == 105 * 10**17
    assert plan.impact_bps == 0
    assert plan.gas_cost_raw == 540_000 * 20 * GWEI


def test_gas_is_valued_by_the_pools_and_without_a_path_by_the_prices() -> None:
    borrower = Borrower("0xAa", {USD: 10_000 * 10**6}, {BTC: 3 * 10**8})
    by_pool = planned(
        borrower,
        pools=pools_of(
            pool(BTC, USD, depth_usd=20_000_000), pool(ETH, USD, depth_usd=20_000_000, off_bps=-5_000)
        ),
    )
    by_price = planned(borrower, pools=pools_of(pool(BTC, USD, depth_usd=20_000_000)))
    assert by_price.gas_cost_raw == 1_280_000
    # The address of USD sorts below that of ETH, so the pool prices USD, at half: ETH costs twice as much.
    assert by_pool.gas_cost_raw == pytest.approx(2 * 1_280_000, rel=1e-3)
    unknown = refused(
        borrower,
        pools=pools_of(pool(BTC, USD, depth_usd=20_000_000)),
        prices=snapshot({**PRICES_E8, ETH: None}),
    )
    assert unknown.reason is Reason.NO_ROUTE
    assert "gas" in unknown.detail


def test_a_small_pool_that_gives_coin_away_does_not_make_gas_look_free() -> None:
    # 60 USD of debt earn 3 USD, gas at 200 gwei is 13 USD. Anybody can open a pool of 40 USD in which the
    # chain's coin costs a hundredth: enough to buy this gas from, and not to sell anything to.
    dear = replace(SETTINGS, gas_price_wei=200 * GWEI)
    small = Borrower("0xAa", {USD: 60 * 10**6}, {ETH: 10**18})
    bait = pool(USD, ETH, depth_usd=40, fee_pips=10_000, off_bps=990_000, number=1)
    for pools in (DEEP, pools_of(*DEEP.values(), bait)):
        assert refused(small, pools=pools, settings=dear).reason is Reason.UNPROFITABLE


CROWD = pools_of(
    *(
        pool(a, b, depth_usd=depth // (i + 1), fee_pips=fee, off_bps=7 * i, number=10 * n + i)
        for n, ((a, b), depth) in enumerate(
            zip(combinations((ETH, USD, BTC, DAI), 2), (2**k * 100_000 for k in range(6)), strict=True)
        )
        for i, fee in enumerate((100, 500, 3_000, 10_000))
    )
)


@pytest.mark.parametrize("usd", [50, 10_000, 200_000])
@pytest.mark.parametrize(("debt", "collateral"), [(USD, ETH), (DAI, BTC), (ETH, USD)])
def test_among_many_pools_the_plan_is_the_one_that_asking_every_path_finds(
    usd: int, debt: str, collateral: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    amounts = {ETH: usd * 10**16, USD: usd * 10**6, BTC: usd * 2 * 10**4, DAI: usd * 10**18}
    borrower = Borrower("0xAa", {debt: amounts[debt]}, {collateral: 2 * amounts[collateral]})
    few = planned(borrower, pools=CROWD)
    monkeypatch.setattr(liquidation, "_EXHAUSTIVE_POOLS", len(CROWD))
    every = planned(borrower, pools=CROWD)
    assert few.path == every.path
    assert few.debt_to_cover_raw == every.debt_to_cover_raw
    # Gas may be bought over a path that pays less for it.
    assert few.gas_cost_raw == pytest.approx(every.gas_cost_raw, rel=0.02)


def test_pools_that_anybody_opens_do_not_take_the_planners_time(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = 0

    def counted(*arguments: Any) -> int:
        nonlocal asked
        asked += 1
        return amount_out_exact_in(*arguments)

    monkeypatch.setattr(liquidation, "amount_out_exact_in", counted)
    spam = (pool(ETH, USD, depth_usd=1_000, number=1 + i) for i in range(200))
    assert planned(pools=pools_of(*DEEP.values(), *spam)).path == planned().path
    assert asked < 3_000


def test_own_funds_repay_and_the_collateral_is_kept() -> None:
    settings = replace(SETTINGS, from_inventory=True, inventory_raw={USD: 4_000 * 10**6})
    plan = planned(settings=settings)
    assert plan.from_inventory
    assert plan.path == ()
    assert plan.debt_to_cover_raw == 4_000 * 10**6
    assert not plan.full
    assert plan.flash_premium_raw == 0
    assert plan.gas_units == 540_000
    assert (
        plan.proceeds_raw
        == swap(DEEP[pool(ETH, USD, depth_usd=1).address], False, plan.seized_raw).amount_out
    )
    assert planned(settings=replace(settings, inventory_raw=None)).full
    assert refused(settings=replace(settings, inventory_raw={})).reason is Reason.LIMIT


def test_a_flash_loan_is_no_larger_than_what_there_is_to_lend() -> None:
    plan = planned(model=Lender(flash_raw={USD: 1_234_000_000}))
    assert plan.debt_to_cover_raw == 1_234_000_000
    none = refused(model=Lender(flash_raw={USD: 0}))
    assert none.reason is Reason.LIMIT
    assert "flash loan" in none.detail


def test_a_size_that_would_leave_dust_gives_way_to_the_whole() -> None:
    shallow = pools_of(pool(ETH, USD, depth_usd=700_000))
    free = planned(pools=shallow)
    assert not free.full
    plan = planned(model=Lender(least_left_raw=10**12), pools=shallow)
    assert plan.full
    assert plan.net_profit_raw < free.net_profit_raw


@pytest.mark.parametrize(
    ("changes", "reason", "words"),
    [
        ({"pools": {}}, Reason.NO_ROUTE, "ETH for USD: no path"),
        ({"settings": replace(SETTINGS, gas_price_wei=10**15)}, Reason.UNPROFITABLE, "less gas"),
        ({"settings": replace(SETTINGS, min_net_profit_e8=10**12)}, Reason.UNPROFITABLE, "is below"),
        ({"model": Lender(bonus_bps=10_000)}, Reason.UNPROFITABLE, "profit -"),
        ({"borrower": replace(BORROWER, liquidatable=False)}, Reason.SIMULATION_FAILED, "refuses with 45"),
        ({"prices": snapshot({**PRICES_E8, USD: None})}, Reason.PROTOCOL_UNKNOWN, "no price"),
        ({"borrower": replace(BORROWER, collaterals={})}, Reason.NO_COLLATERAL, "nothing"),
    ],
)
def test_without_a_plan_the_reason_says_why(changes: dict[str, object], reason: Reason, words: str) -> None:
    answer = refused(**changes)
    assert answer.reason is reason
    assert words in answer.detail


def test_a_swap_beyond_the_ticks_that_were_read_is_not_planned_on() -> None:
    narrow = pool(ETH, USD, depth_usd=20_000_000, width_ticks=2_000)
    word = narrow.key.word_of(narrow.tick)
    known = replace(narrow, words=range(word, word + 1), liquidity=narrow.liquidity // 10**6)
    answer = refused(pools=pools_of(known))
    assert answer.reason in (Reason.NO_ROUTE, Reason.UNPROFITABLE)


def test_paths_visit_no_token_twice_and_come_shortest_first() -> None:
    paths = find_paths(DEEP, DAI, ETH, 3)
    assert [[hop.token_out for hop in path] for path in paths] == [[USD, ETH], [USD, BTC, ETH]]
    assert all(a.token_out == b.token_in for path in paths for a, b in pairwise(path))
    assert find_paths(DEEP, DAI, ETH, 1) == ()


def test_a_maximum_is_found_at_either_end_and_between() -> None:
    def parabola(peak: int) -> object:
        return lambda size: peak * peak - (size - peak) ** 2

    for peak in (50_000, 313_000, 777_777):
        found = maximise(parabola(peak), 1_000_000)
        assert found is not None
        assert abs(found[0] - peak) < 1_000_000 // 128
    assert maximise(lambda size: size, 1_000_000) == (1_000_000, 1_000_000)
    falling = maximise(lambda size: -size, 1_000_000)
    assert falling is not None
    assert falling[0] < 10_000
    assert maximise(lambda size: None, 1_000_000) is None
    assert maximise(lambda size: 7, 1) == (1, 7)
    capped = maximise(lambda size: size if size <= 333_333 else None, 1_000_000)
    assert capped is not None
    assert 320_000 < capped[0] <= 333_333


# --- bundles -----------------------------------------------------------------------------------------------


def crowd(*usd: int) -> dict[str, Borrower]:
    return {
        f"0x{i:02x}": Borrower(f"0x{i:02x}", {USD: amount * 10**6}, {ETH: amount * 10**16 * 2})
        for i, amount in enumerate(usd)
    }


def executed(pools: dict[str, PoolState], plans: list[LiquidationPlan]) -> list[int]:
    """Return what each plan's swap pays when they are executed in order."""
    out = []
    for plan in plans:
        amount, pools = quote_exact_in(pools, plan.path, plan.seized_raw)
        out.append(amount)
    return out


def test_a_bundle_goes_from_best_to_worst_and_each_plan_sees_those_before() -> None:
    pools = pools_of(pool(ETH, USD, depth_usd=10_000_000))
    accounts = crowd(1_000, 30_000, 5_000, 20, 30_000, 4_000)
    answer = plan_bundle(Lender(), PRICES_E8, accounts, pools, snapshot(), SETTINGS)
    plans = [plan for plan in answer.values() if isinstance(plan, LiquidationPlan)]
    assert list(answer)[:2] == ["0x01", "0x04"]
    assert answer["0x03"] is Reason.UNPROFITABLE
    assert set(answer) == set(accounts)
    assert executed(pools, plans) == [plan.proceeds_raw for plan in plans]
    nets = [plan.net_profit_raw for plan in plans]
    assert nets == sorted(nets, reverse=True)
    assert all(net > 0 for net in nets)
    # Equal accounts: the second pays less, because the first moved the price.
    assert plans[0].debt_to_cover_raw == plans[1].debt_to_cover_raw
    assert plans[0].profit_raw > plans[1].profit_raw


def test_a_plan_that_earlier_ones_made_unprofitable_is_dropped() -> None:
    pools = pools_of(pool(ETH, USD, depth_usd=1_000_000))
    accounts = crowd(*[12_000] * 12)
    answer = plan_bundle(Lender(), PRICES_E8, accounts, pools, snapshot(), SETTINGS)
    plans = [plan for plan in answer.values() if isinstance(plan, LiquidationPlan)]
    assert 1 <= len(plans) < 12
    assert list(answer.values())[len(plans) :] == [Reason.UNPROFITABLE] * (12 - len(plans))
    for borrower in accounts.values():
        planned(borrower, pools=pools)  # alone, each of them pays


def test_own_funds_are_spent_once() -> None:
    settings = replace(SETTINGS, from_inventory=True, inventory_raw={USD: 12_000 * 10**6})
    answer = plan_bundle(Lender(), PRICES_E8, crowd(10_000, 9_000, 8_000), DEEP, snapshot(), settings)
    plans = [plan for plan in answer.values() if isinstance(plan, LiquidationPlan)]
    assert [plan.debt_to_cover_raw for plan in plans] == [10_000 * 10**6, 2_000 * 10**6]
    assert Reason.LIMIT in answer.values()


def test_an_empty_bundle_is_empty() -> None:
    assert plan_bundle(Lender(), PRICES_E8, {}, DEEP, snapshot(), SETTINGS) == {}


def test_a_bundle_plans_again_only_what_was_touched_and_can_be_best(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = 0
    pair = liquidation._Planner.pair

    def counted(*arguments: Any) -> Any:
        nonlocal asked
        asked += 1
        return pair(*arguments)

    monkeypatch.setattr(liquidation._Planner, "pair", counted)
    pools = pools_of(pool(ETH, USD, depth_usd=400_000_000), pool(BTC, USD, depth_usd=400_000_000))
    # Of nearly the same size, so that each plan makes most others worth less than the one before was.
    accounts = crowd(*range(10_000, 10_200)) | {
        f"0xb{i}": Borrower(f"0xb{i}", {USD: 10**10 + i}, {BTC: 5 * 10**8}) for i in range(100)
    }
    answer = plan_bundle(Lender(), PRICES_E8, accounts, pools, snapshot(), SETTINGS)
    assert all(isinstance(plan, LiquidationPlan) for plan in answer.values())
    assert asked < 2 * len(accounts)
    asked = 0
    shallow = pools_of(pool(ETH, USD, depth_usd=100_000))
    answer = plan_bundle(Lender(), PRICES_E8, crowd(*range(10_000, 10_200)), shallow, snapshot(), SETTINGS)
    plans = sum(isinstance(plan, LiquidationPlan) for plan in answer.values())
    assert 0 < plans < 20
    assert asked < 3 * plans + 5, "those that cannot pay are not asked one by one"


def test_an_account_that_must_be_taken_whole_does_not_stand_for_smaller_ones() -> None:
    # The largest may not leave a debt, and whole it does not sell; those behind it do.
    shallow = pools_of(pool(ETH, USD, depth_usd=700_000))
    lender = Lender(least_left_raw=10**13)
    accounts = crowd(300_000, 5_000, 250_000, 4_000)
    answer = plan_bundle(lender, PRICES_E8, accounts, shallow, snapshot(), SETTINGS)
    assert list(answer) == ["0x01", "0x03", "0x00", "0x02"]
    assert [isinstance(answer[k], LiquidationPlan) for k in answer] == [True, True, False, False]


@dataclass(frozen=True)
class Stingy(Lender):
    """Gives no bonus for those whose name says so."""

    def liquidation_quote(
        self,
        market: Mapping[str, int],
        account: Borrower,
        debt_asset: str,
        collateral_asset: str,
        debt_to_cover_raw: int,
    ) -> Outcome:
        of = Lender(bonus_bps=10_000) if account.account.startswith("stingy") else Lender()
        return of.liquidation_quote(market, account, debt_asset, collateral_asset, debt_to_cover_raw)


def test_an_account_without_a_bonus_does_not_stand_for_those_with_one() -> None:
    accounts = {name: replace(who(usd), account=name) for name, usd in (("stingy", 9_000), ("fair", 5_000))}
    answer = plan_bundle(Stingy(), PRICES_E8, accounts, DEEP, snapshot(), SETTINGS)
    assert list(answer) == ["fair", "stingy"]
    assert answer["stingy"] is Reason.UNPROFITABLE


def test_own_funds_are_spent_once_over_all_pairs() -> None:
    settings = replace(SETTINGS, from_inventory=True, inventory_raw={USD: 12_000 * 10**6})
    accounts = {
        "eth": Borrower("eth", {USD: 10_000 * 10**6}, {ETH: 200 * 10**18}),
        "btc": Borrower("btc", {USD: 9_000 * 10**6}, {BTC: 4 * 10**8}),
    }
    answer = plan_bundle(Lender(), PRICES_E8, accounts, DEEP, snapshot(), settings)
    plans = [plan for plan in answer.values() if isinstance(plan, LiquidationPlan)]
    assert [plan.debt_to_cover_raw for plan in plans] == [10_000 * 10**6, 2_000 * 10**6]


def test_who_was_refused_is_asked_again_when_others_sold_the_other_way() -> None:
    # ETH is dear in the only pool: what owes it does not pay, until what holds it was sold.
    pools = pools_of(pool(ETH, USD, depth_usd=2_000_000, off_bps=-700))
    accounts = {
        "owes": Borrower("owes", {ETH: 10**19}, {USD: 3_000 * 10**6}),
        "holds": Borrower("holds", {USD: 40_000 * 10**6}, {ETH: 1_000 * 10**18}),
    }
    answer = plan_bundle(Lender(), PRICES_E8, accounts, pools, snapshot(), SETTINGS)
    assert refused(accounts["owes"], pools=pools).reason is Reason.UNPROFITABLE
    assert list(answer) == ["holds", "owes"]
    assert all(isinstance(plan, LiquidationPlan) for plan in answer.values())


def test_an_account_of_two_pairs_takes_the_one_that_others_made_better() -> None:
    pools = pools_of(pool(ETH, USD, depth_usd=3_000_000, off_bps=0), pool(DAI, BTC, depth_usd=10_000_000))
    two = Borrower("two", {ETH: 10**20, DAI: 9_000 * 10**18}, {USD: 11_000 * 10**6, BTC: 2 * 10**8})
    seller = Borrower("seller", {USD: 60_000 * 10**6}, {ETH: 1_000 * 10**18})
    answer = plan_bundle(Lender(), PRICES_E8, {"two": two, "seller": seller}, pools, snapshot(), SETTINGS)
    first, second = answer.values()
    assert isinstance(first, LiquidationPlan)
    assert isinstance(second, LiquidationPlan)
    assert (first.account, second.account) == ("seller", "two")
    pools = quote_exact_in(pools, first.path, first.seized_raw)[1]
    assert second == planned(two, pools=pools) != planned(two, pools=DEEP)


def test_markets_share_pools_and_the_order_is_over_all_of_them() -> None:
    pools = pools_of(pool(ETH, USD, depth_usd=10_000_000))
    books = [
        MarketBook(Lender(), PRICES_E8, {("a", 0): who(30_000), ("a", 1): who(500)}, snapshot(), SETTINGS),
        MarketBook(
            Lender(name="other", bonus_bps=10_800),
            PRICES_E8,
            {("b", 0): who(30_000), ("b", 1): who(10_000)},
            snapshot(),
            SETTINGS,
        ),
    ]
    answer = plan_markets(books, pools)
    plans = [plan for plan in answer.values() if isinstance(plan, LiquidationPlan)]
    assert list(answer) == [("b", 0), ("a", 0), ("b", 1), ("a", 1)]
    assert [plan.protocol for plan in plans] == ["other", "lender", "other", "lender"]
    assert executed(pools, plans) == [plan.proceeds_raw for plan in plans]
    # What does not pay in one market by its own rules says nothing of the other.
    dear = replace(books[0], settings=replace(SETTINGS, min_net_profit_e8=10**12), model=books[1].model)
    answer = plan_markets([dear, books[1]], pools)
    assert [k for k, plan in answer.items() if isinstance(plan, LiquidationPlan)] == [("b", 0), ("b", 1)]
    same = replace(books[1], accounts=books[0].accounts)
    with pytest.raises(InputError, match="same key"):
        plan_markets([books[0], same], pools)
    assert plan_markets([], pools) == {}


def who(usd: int) -> Borrower:
    return Borrower("0xAa", {USD: usd * 10**6}, {ETH: usd * 2 * 10**16})


def test_of_more_than_are_wanted_the_best_are_planned_and_the_rest_are_told_why() -> None:
    accounts = crowd(1_000, 30_000, 5_000, 20, 30_001, 4_000)
    pools = pools_of(pool(ETH, USD, depth_usd=10_000_000))
    book = MarketBook(Lender(), PRICES_E8, accounts, snapshot(), SETTINGS)
    whole = plan_markets([book], pools)
    answer = plan_markets([book], pools, most=2)
    assert list(answer)[:2] == list(whole)[:2] == ["0x04", "0x01"]
    assert {k: v for k, v in answer.items() if isinstance(v, Reason)} == {
        "0x00": Reason.LIMIT,
        "0x02": Reason.LIMIT,
        "0x03": Reason.UNPROFITABLE,
        "0x05": Reason.LIMIT,
    }
    assert set(plan_markets([book], pools, most=0).values()) == {Reason.LIMIT, Reason.UNPROFITABLE}
    assert plan_markets([book], pools, most=9) == whole


@pytest.mark.parametrize(
    ("name", "value"),
    [("gas_price_wei", -1), ("slippage_bps", 10_001), ("max_hops", 0), ("min_net_profit_e8", -1)],
)
def test_settings_that_make_no_sense_are_refused(name: str, value: int) -> None:
    with pytest.raises(InputError, match=name):
        replace(SETTINGS, **{name: value})
