"""Each channel by hand: its formula in a book small enough to be worked out on paper."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from simulation.book.types import (
    ExitLiquidity,
    LendingVenue,
    OptionColumns,
    PerpColumns,
    PerpVenue,
    RateCurve,
    Reserve,
    SharedBook,
    Side,
)
from simulation.contagion.batch import YEAR_S, Batch
from simulation.contagion.channels.options import dealer_gamma
from simulation.contagion.engine import PathResults, Run, run_paths
from simulation.contagion.metrics import path_columns
from simulation.contagion.prices import build as build_prices
from simulation.contagion.scan import health_factors
from simulation.contagion.state import Total
from simulation.contagion.world import build_world
from simulation.pricing.greeks import black76_greeks
from simulation.types import Float64
from tests.contagion_books import Still, one_pair_book, run_of, several_venues

DAY = 86_400.0


class Given(Still):
    """ETH at prices that are written down, the first being the book's; everything else stands still."""

    def __init__(self, book: SharedBook, eth: Sequence[float]) -> None:
        own = [t for t in book.tokens if t.backing is None]
        super().__init__([t.symbol for t in own], [t.price for t in own])
        self.eth = np.array(eth)

    def paths(self, seeds: Sequence[Any], steps: int, dt_s: float) -> Float64:
        out = super().paths(seeds, steps, dt_s)
        out[:, :, self.assets.index("ETH")] = self.eth[: steps + 1]
        return out


def along(
    book: SharedBook, eth: Sequence[float], settings: dict[str, dict[str, Any]], *, dt_s: float = 60.0
) -> Run:
    run = run_of(book, settings, steps=len(eth) - 1, dt_s=dt_s)
    return replace(run, prices=Given(book, eth))


def steps_of(run: Run, name: str, paths: int = 1, change: Any = None) -> tuple[PathResults, list[Any]]:
    """Return what became of a run, and one array of the state after each step."""
    kept: list[Any] = []

    def watch(batch: Batch) -> None:
        kept.append(getattr(batch.state, name).copy() if hasattr(batch.state, name) else getattr(batch, name))
        if change is not None:
            change(batch)

    return run_paths(run, 1, 0, paths, watch=watch), kept


PAIR = one_pair_book([10.0], [100.0], price=100.0, kind="aave-v3")


# --- oracles ------------------------------------------------------------------------------------------------


def answers(eth: Sequence[float], rule: dict[str, Any], **more: Any) -> list[float]:
    """Return what the venue believes of ETH after each step."""
    run = along(PAIR, eth, {"oracle": {"default": {"latency_steps": 0, **rule}, **more}})
    return [float(x[0, 0]) for x in steps_of(run, "oracle")[1]]


def test_a_feed_publishes_what_has_moved_far_enough_and_late() -> None:
    eth = [100.0, 100.9, 101.5, 103.0, 104.0, 104.0, 104.0]
    assert answers(eth, {"deviation_bps": 100}) == [100.0, 101.5, 103.0, 103.0, 103.0, 103.0]
    # Decided at step 2 on 101.5, published two steps later; only then it looks again.
    late = answers(eth, {"deviation_bps": 100, "latency_steps": 2})
    assert late == [100.0, 100.0, 100.0, 101.5, 101.5, 101.5]
    assert answers([*eth, 104.0, 104.0], {"deviation_bps": 100, "latency_steps": 2})[-2] == 104.0


def test_a_feed_publishes_when_its_heartbeat_is_over() -> None:
    eth = [100.0, *[100.1] * 7]
    assert answers(eth, {"deviation_bps": 100, "heartbeat_s": 180}) == [100.0, 100.0, *[100.1] * 5]


def test_answers_have_eight_decimals_and_bounds() -> None:
    assert answers([100.0, 90.123456789], {}) == [90.12345678]
    assert answers([100.0, 50.0, 500.0], {"min_answer": 90.0, "max_answer": 110.0}) == [90.0, 110.0]
    assert answers([100.0, 1e-9, 100.0], {}) == [0.0, 100.0]


def test_a_block_that_leaves_the_answer_out_is_as_likely_as_it_says() -> None:
    rule = {"latency_steps": 0, "deviation_bps": 10, "miss": 0.3}
    run = along(PAIR, [100.0, 110.0, 110.0], {"oracle": {"default": rule}})
    _, kept = steps_of(run, "oracle", paths=4_000)
    first, second = ((x[:, 0] == 110.0).mean() for x in kept)
    assert first == pytest.approx(0.7, abs=5 * np.sqrt(0.21 / 4_000))
    assert second == pytest.approx(0.91, abs=5 * np.sqrt(0.0819 / 4_000))


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ({"op": "scale", "value": 0.5}, [101.0, 51.0, 51.5, 104.0]),
        ({"op": "fix", "value": 7.0}, [101.0, 7.0, 7.0, 104.0]),
        ({"op": "freeze"}, [101.0, 101.0, 101.0, 104.0]),
    ],
)
def test_faults_hold_from_their_first_step_to_their_last(
    fault: dict[str, Any], expected: list[float]
) -> None:
    faults = [{"token": "ETH", "from_step": 2, "until_step": 3, **fault}]
    assert answers([100.0, 101.0, 102.0, 103.0, 104.0], {}, faults=faults) == expected
    elsewhere = [{"token": "USD", "from_step": 2, "until_step": 3, **fault}]
    assert answers([100.0, 101.0, 102.0, 103.0], {}, faults=elsewhere) == [101.0, 102.0, 103.0]


def test_a_frozen_feed_publishes_no_answer_that_waits() -> None:
    faults = [{"token": "ETH", "from_step": 2, "until_step": 3, "op": "freeze"}]
    told = answers([100.0, 110.0, 110.0, 110.0, 110.0], {"latency_steps": 1}, faults=faults)
    assert told == [100.0, 100.0, 100.0, 110.0]


def test_a_capped_feed_grows_no_faster_than_its_cap() -> None:
    book = several_venues(3, seed=1)
    a = build_world(book).token("stETH")

    def dearer(batch: Batch) -> None:
        batch.state.displaced[:, a] = 0.1

    # 36.5 % a year, so a tenth of a per cent a day; the market pays 10.5 % more than it redeems for.
    rule = {"deviation_bps": 0, "latency_steps": 0, "max_growth_yearly_bps": 3_650}
    run = along(book, [2_000.0] * 4, {"oracle": {"default": {}, "feeds": {"stETH": rule}}}, dt_s=DAY)
    _, kept = steps_of(run, "oracle", change=dearer)
    assert [x[0, a] for x in kept] == pytest.approx([2_300.0, 2_300.0 * 1.002, 2_300.0 * 1.003], abs=1e-7)


@pytest.mark.parametrize(
    ("source", "believed"), [("market", 2_300.0 * np.exp(-0.1)), ("redemption", 2_300.0)]
)
def test_a_feed_of_redemption_sees_no_discount(source: str, believed: float) -> None:
    book = several_venues(3, seed=1)
    a = build_world(book).token("stETH")

    def cheaper(batch: Batch) -> None:
        batch.state.displaced[:, a] = -0.1

    rule = {"deviation_bps": 1, "latency_steps": 0, "source": source}
    run = along(book, [2_000.0] * 3, {"oracle": {"feeds": {"stETH": rule}}})
    _, kept = steps_of(run, "oracle", change=cheaper)
    assert kept[-1][0, a] == pytest.approx(believed, abs=1e-7)


@pytest.mark.parametrize(
    ("guards", "rule", "trusted"),
    [
        ({}, {}, [True] * 4),
        ({"max_age_s": 90}, {"deviation_bps": 5_000, "heartbeat_s": 180}, [True, False, True, True]),
        ({"max_deviation_bps": 500}, {"deviation_bps": 1_500}, [True, False, True, True]),
        ({"max_jump_bps": 500}, {"deviation_bps": 100}, [True, False, False, True]),
    ],
)
def test_guards(guards: dict[str, Any], rule: dict[str, Any], trusted: list[bool]) -> None:
    eth = [100.0, 100.0, 110.0, 120.0, 120.0]
    run = along(PAIR, eth, {"oracle": {"default": {"latency_steps": 0, **rule}, "guards": guards}})
    assert [bool(x[0, 0]) for x in steps_of(run, "trusted")[1]] == trusted


def test_nobody_is_liquidated_on_a_price_that_is_not_trusted() -> None:
    book = one_pair_book([1.0], [85.0], price=110.0, kind="aave-v3")
    settings = {"oracle": {"default": {"latency_steps": 0}, "guards": {"max_jump_bps": 500}}, "keepers": {}}
    result, kept = steps_of(along(book, [110.0, 100.0, 100.0], settings), "totals")
    assert [x[0, 0, Total.LIQUIDATIONS] for x in kept] == [0.0, 1.0]
    assert result.first_step[0] == 2


# --- interest -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("u", "rate"), [(0.4, 0.03), (0.8, 0.05), (0.9, 0.05 + 0.75 * 0.5), (0.0, 0.0)])
def test_interest_by_the_kinked_curve(u: float, rate: float) -> None:
    curve = RateCurve(optimal=0.8, base=0.01, slope1=0.04, slope2=0.75)
    reserves = (
        Reserve("ETH", 8_000, 8_000, 500, curve),
        Reserve("USD", 0, 0, 0, curve, reserve_factor_bps=2_000, idle_supply=1_000.0),
    )
    owed = max(1_000.0 * u, 1e-9)
    book = replace(one_pair_book([1e6], [owed]), lending=(LendingVenue("market", "aave-v3", reserves),))
    run = run_of(book, {"interest": {}}, steps=1, dt_s=DAY)
    state: list[Any] = []
    run_paths(run, 1, 0, 1, watch=lambda batch: state.append(batch.state))
    grown = np.exp((rate or 0.01) * DAY / YEAR_S)
    assert state[0].borrow_index[0, 1] == pytest.approx(grown, rel=1e-13)
    interest = owed * (grown - 1.0)
    assert state[0].supply_index[0, 1] == pytest.approx(1.0 + 0.8 * interest / 1_000.0, rel=1e-13)
    assert state[0].reserves[0, 1] == pytest.approx(0.2 * interest, rel=1e-6)
    assert state[0].supply_index[0, 0] == 1.0


# --- borrowers ----------------------------------------------------------------------------------------------


def healths(batch: Batch) -> Float64:
    state, world, out = batch.state, batch.world, np.zeros(batch.world.rows)
    health_factors(
        0,
        world.rows,
        state.coll[0],
        state.debt[0],
        world.coll_at,
        world.debt_at,
        world.lt,
        (state.oracle * state.supply_index)[0],
        (state.oracle * state.borrow_index)[0],
        world.shocks,
        out,
    )
    return out


@pytest.mark.parametrize("means", [0.0, 1.0])
def test_owners_who_react_reach_their_target_exactly(means: float) -> None:
    health = np.array([1.0, 1.03, 1.09, 1.11, 2.0])
    debt = np.array([100.0, 200.0, 300.0, 400.0, 500.0])
    book = one_pair_book(list(health * debt / 0.8), list(debt))
    settings = {"borrowers": {"hazard": 1e12, "means": means, "target": 1.25}}
    found: list[Any] = []

    def look(batch: Batch) -> None:
        found.append((healths(batch), batch.state.order_flow[0].copy(), batch.state.debt[0, :, 0].copy()))

    run_paths(run_of(book, settings, steps=1), 1, 0, 1, watch=look)
    after, flow, left = found[0]
    # At exactly 1.1 and above nobody moves; below, all do.
    assert after == pytest.approx([1.25, 1.25, 1.25, 1.11, 2.0], rel=1e-12)
    repaid = debt - left
    if means:
        assert repaid[:3] == pytest.approx(debt[:3] * (1.0 - health[:3] / 1.25), rel=1e-12)
        assert flow.tolist() == [0.0, 0.0]
    else:
        assert repaid[:3] == pytest.approx(debt[:3] * (1.25 - health[:3]) / (1.25 - 0.8), rel=1e-12)
        assert flow == pytest.approx([-repaid.sum(), repaid.sum()], rel=1e-12)


def test_owners_react_as_often_as_their_hazard_says() -> None:
    n, dt = 20_000, 600.0
    book = one_pair_book([1.05 / 0.8] * n, [1.0] * n)
    _, kept = steps_of(run_of(book, {"borrowers": {"hazard": 5.0}}, steps=1, dt_s=dt), "debt")
    chance = -np.expm1(-5.0 * 0.05 * dt / 3_600.0)
    assert (kept[0][0, :, 0] < 1.0).mean() == pytest.approx(chance, abs=5 * np.sqrt(chance / n))
    # Half of them have means: those who sold have less collateral.
    acted = kept[0][0, :, 0] < 1.0
    by_means = kept[0][0, acted, 0] > 1.05 / 1.25 - 1e-9
    assert by_means.mean() == pytest.approx(0.5, abs=5 * np.sqrt(0.25 / acted.sum()))


# --- gas ----------------------------------------------------------------------------------------------------


def test_a_full_block_raises_the_base_fee_by_an_eighth() -> None:
    gas = {"native": "ETH", "base_fee_gwei": 10.0, "tip_gwei": 2.0, "liquidation_gas": 400_000.0}
    eth = [100.0, 150.0, 150.0]
    run = along(PAIR, eth, {"gas": {**gas, "panic": 10.0, "panic_half_life_s": 1e12}}, dt_s=12.0)
    _, fees = steps_of(run, "base_fee")
    assert [x[0] / 1e9 for x in fees] == pytest.approx([11.25, 12.65625], rel=1e-12)
    _, cost = steps_of(run, "gas_usd")
    assert cost[-1][0] == pytest.approx(400_000 * (12.65625 + 2.0) * 1e-9 * 150.0, rel=1e-12)
    _, room = steps_of(run, "room")
    assert room[-1][0] == 90
    # In calm the fee stays, five blocks to a step or one.
    calm = along(PAIR, [100.0] * 4, {"gas": gas}, dt_s=60.0)
    assert [x[0] for x in steps_of(calm, "base_fee")[1]] == [10e9] * 3
    assert steps_of(calm, "room")[1][-1][0] == 450


@pytest.mark.parametrize("elasticity", [0.5, 1.0])
def test_the_fee_settles_where_heat_and_price_balance(elasticity: float) -> None:
    heat = 0.4
    gas = {"native": "ETH", "panic": 1.0, "panic_half_life_s": 1e15, "elasticity": elasticity}
    eth = [100.0, *[100.0 * np.exp(heat / 100.0)] * 400]
    _, fees = steps_of(along(PAIR, eth, {"gas": gas}, dt_s=12.0), "base_fee")
    assert fees[-1][0] / 5e9 == pytest.approx((1.0 + heat) ** (1.0 / elasticity), rel=1e-6)


# --- keepers ------------------------------------------------------------------------------------------------


def liquidated(result: PathResults) -> list[tuple[int, int, int]]:
    """Return step, keeper and row of each liquidation."""
    return [
        (int(e["step"]), int(k), int(r))
        for e in result.events
        for k, r in zip(e["keeper"], e["row"], strict=True)
    ]


def test_latency_and_bids_say_who_liquidates_when() -> None:
    book = one_pair_book([1.0], [99.0], price=100.0, kind="aave-v2")
    slow = {"name": "slow", "bid": 0.9, "latency_steps": 2}
    poor = {"name": "poor", "bid": 0.1, "latency_steps": 1}
    run = run_of(book, {"keepers": {"keepers": [poor, slow]}}, steps=3)
    result = run_paths(run, 1, 0, 1, record=True)
    # The higher bid stands first; it is ready a step later.
    assert liquidated(result)[:2] == [(2, 1, 0), (3, 0, 0)]
    assert result.totals[0, 0, Total.FAILED_TXS] == 1.0


def test_what_does_not_pay_one_keeper_is_left_to_the_next() -> None:
    book = one_pair_book([1.0, 100.0], [85.0, 8_500.0], price=100.0, kind="morpho-blue")
    keepers = [
        {"name": "choosy", "bid": 0.9, "min_profit_usd": 100.0},
        {"name": "content", "bid": 0.1},
        {"name": "never", "bid": 0.0, "min_profit_usd": 1e9},
    ]
    result = run_paths(run_of(book, {"keepers": {"keepers": keepers}}, steps=1), 1, 0, 1, record=True)
    assert liquidated(result) == [(1, 0, 1), (1, 1, 0)]
    # Only where the choosy one won did somebody else try for nothing.
    assert result.totals[0, 0, Total.FAILED_TXS] == 1.0
    only = run_paths(run_of(book, {"keepers": {"keepers": keepers[::2]}}, steps=1), 1, 0, 1)
    assert only.totals[0, 0, Total.LIQUIDATIONS] == 1.0
    assert only.totals[0, 0, Total.UNPROFITABLE] == 1.0


def test_inventory_bounds_what_is_repaid_and_comes_back_by_sales() -> None:
    book = one_pair_book([100.0], [8_500.0], price=100.0, kind="morpho-blue")
    desk = {
        "name": "desk",
        "funding": "inventory",
        "capital_usd": 1_000.0,
        "sell_per_step": 0.5,
        "bid": 0.0,
    }
    run = run_of(book, {"keepers": {"keepers": [desk]}}, steps=2)
    result, kept = steps_of(run, "inventory")
    assert kept[0][0, 0] == pytest.approx(0.0, abs=1e-9)
    _, unsold = steps_of(run, "unsold")
    bonus = min(0.15, 1.0 / (1.0 - 0.3 * 0.2) - 1.0)
    assert unsold[0][0, 0, 0] == pytest.approx(10.0 * (1.0 + bonus), rel=1e-12)
    # Half of it is sold at the next step's start, and repays at once.
    repaid = result.totals[0, 0, Total.REPAID]
    assert repaid == pytest.approx(1_000.0 + 500.0 * (1.0 + bonus), rel=1e-12)


def test_a_purse_that_is_spent_takes_nobodys_place() -> None:
    # At a price of 1.37 what is paid may be less than the purse by a last bit.
    book = one_pair_book([100.0] * 3, [6_600.0] * 3, price=97.31, kind="morpho-blue")
    book = replace(book, tokens=(book.tokens[0], replace(book.tokens[1], price=1.37)))
    purses = np.random.default_rng(4).uniform(100.0, 1_000.0, 50)
    purses = purses[purses > purses / 1.37 * 1.37]
    assert len(purses) > 2
    for funds in purses:
        first = {"name": "first", "funding": "inventory", "capital_usd": float(funds), "bid": 0.9}
        second = {**first, "name": "second", "capital_usd": 500.0, "bid": 0.1}
        run = run_of(book, {"keepers": {"keepers": [first, second]}}, steps=1)
        result = run_paths(run, 1, 0, 1, record=True)
        assert [int(k) for e in result.events for k in e["keeper"]] == [0, 1]


def test_desks_that_sell_into_one_market_bear_what_it_loses_by_their_shares() -> None:
    market = {"tokens": {"ETH": {"model": "linear", "per_dollar": 1e-6, "half_life_s": 1e12}}}
    book = one_pair_book([1_000.0] * 2, [90_000.0] * 2, price=100.0, kind="morpho-blue")
    # The fast desk has funds for one account, and the other one is left to the second.
    fast: dict[str, Any] = {
        "name": "fast",
        "funding": "inventory",
        "capital_usd": 40_000.0,
        "sell_per_step": 1.0,
        "bid": 0.9,
    }
    slow = {**fast, "name": "slow", "capital_usd": 20_000.0, "bid": 0.1}
    settings: dict[str, dict[str, Any]] = {
        "oracle": {"default": {"latency_steps": 0}},
        "keepers": {"keepers": [fast, slow]},
        "impact": market,
    }
    # In the second step ETH is believed to be worth twice as much, so nobody is liquidated again.
    settings["oracle"]["faults"] = [
        {"token": "ETH", "op": "fix", "value": 200.0, "from_step": 2, "until_step": 2}
    ]
    run = run_of(book, settings, steps=2)
    _, funds = steps_of(run, "inventory")
    _, held = steps_of(run, "unsold")
    worth = held[0][0, :, 0] * 100.0
    assert (worth > 0.0).all()
    got = funds[1][0] - funds[0][0]
    # Sold together, a dollar moves the price by a millionth; keepers know the market by a table.
    assert got.sum() == pytest.approx(-np.expm1(-1e-6 * worth.sum()) / 1e-6, rel=2e-3)
    assert got / worth == pytest.approx([got.sum() / worth.sum()] * 2, rel=1e-12)


def test_blocks_have_room_for_so_many_and_the_most_profitable_come_first() -> None:
    sizes = [1.0, 3.0, 2.0, 5.0, 4.0]
    book = one_pair_book(sizes, [85.0 * s for s in sizes], price=100.0, kind="morpho-blue")
    gas = {
        "native": "ETH",
        "block_gas": 1e6,
        "liquidation_gas": 500_000.0,
        "base_fee_gwei": 0.001,
        "least_gwei": 1e-6,
    }
    settings = {"gas": {**gas, "tip_gwei": 0.0}, "keepers": {}}
    result = run_paths(run_of(book, settings, steps=3), 1, 0, 1, record=True)
    assert liquidated(result) == [(1, 0, 3), (1, 0, 4), (2, 0, 1), (2, 0, 2), (3, 0, 0)]


@pytest.mark.parametrize(("rounds", "left"), [(1, 0.5), (3, 0.125)])
def test_rounds_liquidate_again_what_is_still_below(rounds: int, left: float) -> None:
    book = one_pair_book([1.0], [100.0], price=100.0, kind="aave-v2")
    run = run_of(book, {"keepers": {"rounds": rounds}}, steps=1)
    _, kept = steps_of(run, "debt")
    assert kept[0][0, 0, 0] == pytest.approx(100.0 * left, rel=1e-12)


def test_a_later_round_sells_after_the_earlier_ones() -> None:
    # A dollar sold moves ETH by 1e-5. Half of 90,000 is 45,000; with a bonus of a tenth, r repaid earns
    # 0.1 r less what selling 1.1 r more loses. What is sold in all must not lose more than all bonuses.
    book = one_pair_book([1_000.0], [90_000.0], price=100.0, kind="aave-v2", bonus_bps=1_000)
    market = {"tokens": {"ETH": {"model": "linear", "per_dollar": 1e-5, "half_life_s": 3_600}}}
    found = {}
    for rounds in (1, 8):
        run = run_of(book, {"keepers": {"rounds": rounds}, "impact": market}, steps=1)
        result = run_paths(run, 1, 0, 1)
        total = result.totals[0, 0]
        found[rounds] = total[Total.KEEPER_PROFIT] + total[Total.BIDS]
        sold = 1.1 * total[Total.REPAID]
        # All that was sold at once brings (1 - exp(-1e-5 sold)) / 1e-5; keepers know it to a table's steps.
        earned = -np.expm1(-1e-5 * sold) / 1e-5 - total[Total.REPAID]
        assert found[rounds] == pytest.approx(earned, rel=0.1)
    assert found[8] > found[1]


def test_gas_of_absorbing_is_the_keepers() -> None:
    # Two accounts are absorbed for 20 dollars of gas each; then one buyer takes what pays.
    book = one_pair_book([10.0, 10.0], [900.0, 900.0], price=100.0, kind="compound-v3", bonus_bps=1_000)
    gas = {"native": "ETH", "base_fee_gwei": 400.0, "tip_gwei": 0.0, "panic": 0.0, "elasticity": 0.001}
    run = run_of(book, {"gas": gas, "keepers": {}}, steps=1)
    result, cost = steps_of(run, "gas_usd")
    total, each = result.totals[0, 0], float(cost[0][0])
    assert total[Total.LIQUIDATIONS] == 2.0
    assert total[Total.GAS] == pytest.approx(3.0 * each)
    bought = total[Total.SEIZED] - total[Total.REPAID]
    assert bought > 0.0
    assert total[Total.KEEPER_PROFIT] == pytest.approx(bought - 3.0 * each)


def test_a_store_front_sells_after_the_liquidations_of_the_step() -> None:
    market = {"tokens": {"ETH": {"model": "linear", "per_dollar": 1e-6, "half_life_s": 3_600}}}
    found = []
    for debt in (10.0, 9_000.0):  # of the account on the other venue: sound, or to be liquidated
        book = one_pair_book([100.0, 100.0], [debt, 9_000.0], price=100.0, bonus_bps=1_000)
        comet = replace(book.lending[0], name="comet", kind="compound-v3")
        positions = replace(book.positions, venue=np.array([0, 0, 1, 1], dtype=np.int32))
        book = replace(book, lending=(*book.lending, comet), positions=positions)
        run = run_of(book, {"keepers": {}, "impact": market}, steps=1)
        total = run_paths(run, 1, 0, 1).totals[0]
        found.append(total[1, Total.KEEPER_PROFIT] + total[1, Total.BIDS])
        sold = total[:, Total.SEIZED]
    # Every dollar that was sold before costs the next one a millionth of itself.
    assert found[0] - found[1] == pytest.approx(1e-6 * sold[0] * sold[1], rel=0.15)


def test_a_round_on_one_path_does_not_count_what_another_path_left() -> None:
    # The first account is never worth a keeper's while; the second falls below 1 on some paths only.
    book = one_pair_book([1.0, 100.0], [0.9, 79.0], kind="aave-v3")
    spec = {"process": "gbm", "volatility": 3.0}
    own = [t.symbol for t in book.tokens]
    run = run_of(
        book, {"keepers": {"rounds": 3, "keepers": [{"min_profit_usd": 0.5}]}}, steps=3, dt_s=3_600.0
    )
    run = replace(run, prices=build_prices(spec, own, [1.0, 1.0]))
    together = run_paths(run, 3, 0, 8).totals
    quiet = together[:, 0, Total.LIQUIDATIONS] == 0
    assert 0 < quiet.sum() < 8
    # Asked once in a step, not once in a round: nothing has changed since.
    assert (together[quiet, 0, Total.UNPROFITABLE] <= 3).all()
    assert (together[quiet, 0, Total.UNPROFITABLE] > 0).any()
    for p in range(8):
        assert run_paths(run, 3, p, 1).totals.tobytes() == together[p : p + 1].tobytes()


def test_a_supply_without_threshold_is_seized_by_nobody() -> None:
    flat = RateCurve(0.8, 0.0, 0.0, 0.0)
    reserves = (
        Reserve("ETH", 8_000, 8_000, 500, flat),
        Reserve("USD", 0, 0, 0, flat, idle_supply=1_000.0),
    )
    book = one_pair_book([100.0, 70.0], [200.0, 1.0])
    p = book.positions
    # The first wallet's debt stays; the second one's becomes a supply of dollars to the first.
    positions = replace(
        p,
        wallet=np.array([0, 0, 0, 1], dtype=np.int32),
        token=np.array([0, 1, 1, 0], dtype=np.int32),
        side=np.array([Side.COLLATERAL, Side.COLLATERAL, Side.DEBT, Side.COLLATERAL], dtype=np.int8),
        amount=np.array([100.0, 70.0, 200.0, 1.0]),
    )
    venue = LendingVenue("market", "aave-v3.6", reserves)
    book = replace(book, lending=(venue,), positions=positions)
    world = build_world(book)
    assert world.coll[0].sum() == 100.0
    assert world.reserves.idle.tolist() == [0.0, 1_070.0]
    result = run_paths(run_of(book, {"keepers": {}}, steps=2), 1, 0, 1, record=True)
    assert [int(r) for e in result.events for r in e["collateral_reserve"]] == [0]
    assert result.totals[0, 0, Total.WRITTEN_OFF] == pytest.approx(200.0 - 100.0 / 1.05, rel=1e-12)


# --- losses -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("haircut", [False, True])
def test_reserves_pay_before_the_backstop_and_that_before_suppliers(haircut: bool) -> None:
    reserves = (
        Reserve("ETH", 8_000, 8_000, 500, RateCurve(0.8, 0.0, 0.0, 0.0)),
        Reserve("USD", 0, 0, 0, RateCurve(0.8, 0.0, 0.0, 0.0), idle_supply=1_000.0, reserves=50.0),
    )
    book = replace(one_pair_book([100.0], [200.0]), lending=(LendingVenue("market", "aave-v3.6", reserves),))
    settings = {"keepers": {}, "losses": {"backstop_usd": {"market": 30.0}, "haircut": haircut}}
    result, index = steps_of(run_of(book, settings, steps=3), "supply_index")
    lost = 200.0 - 100.0 / 1.05
    totals = result.totals[0, 0]
    assert totals[Total.WRITTEN_OFF] == pytest.approx(lost, rel=1e-12)
    assert totals[Total.FROM_RESERVES] == pytest.approx(50.0, rel=1e-12)
    assert totals[Total.FROM_BACKSTOP] == pytest.approx(30.0, rel=1e-12)
    rest = lost - 80.0
    assert totals[Total.FROM_SUPPLIERS] == pytest.approx(rest if haircut else 0.0, rel=1e-12)
    assert result.deficit[0, 0] == pytest.approx(0.0 if haircut else rest, abs=1e-9)
    assert index[-1][0, 1] == pytest.approx(1.0 - rest / 1_000.0 if haircut else 1.0, rel=1e-12)


# --- suppliers ----------------------------------------------------------------------------------------------


def run_on_pool(owed: float, rates: dict[str, float], **more: Any) -> tuple[PathResults, list[Any]]:
    book = one_pair_book([1e6], [owed], idle=1_000.0)
    run = run_of(
        book,
        {"suppliers": {"calm": 0.0, "full": 0.0, "loss": 0.0, "alarm": 0.0, **rates}, **more},
        steps=2,
        dt_s=DAY / 2,
    )
    return steps_of(run, "cash")


def test_suppliers_leave_by_the_formula() -> None:
    result, cash = run_on_pool(100.0, {"calm": 0.2})
    left = [1_000.0 * np.exp(-0.1), 1_000.0 * np.exp(-0.2)]
    assert [x[0, 1] for x in cash] == pytest.approx([x - 100.0 for x in left], rel=1e-12)
    assert result.totals[0, 0, Total.WITHDRAWN] == pytest.approx(1_000.0 - left[1], rel=1e-12)
    # The kink is at 0.8: at 0.9 the pool is half-way to full.
    result, cash = run_on_pool(900.0, {"full": 0.1})
    assert cash[0][0, 1] == pytest.approx(1_000.0 * np.exp(-0.1 * 0.5 * 0.5) - 900.0, rel=1e-10)


def test_a_pool_without_cash_is_frozen_and_what_is_asked_is_unfilled() -> None:
    result, cash = run_on_pool(900.0, {"calm": 1.0})
    assert [x[0, 1] for x in cash] == [0.0, 0.0]
    asked = [1_000.0 * -np.expm1(-0.5), 900.0 * -np.expm1(-0.5)]
    assert result.totals[0, 0, Total.WITHDRAWN] == pytest.approx(100.0, rel=1e-12)
    assert result.totals[0, 0, Total.UNFILLED] == pytest.approx(asked[0] - 100.0 + asked[1], rel=1e-10)
    assert result.frozen[0, 0] == 2.0


def test_nobody_liquidates_where_the_collateral_is_lent_out() -> None:
    # Somebody else owes all ETH of the pool: it cannot be paid out.
    reserves = (
        Reserve("ETH", 8_000, 8_000, 500, RateCurve(0.8, 0.0, 0.0, 0.0), outside_debt=10.0),
        Reserve("USD", 0, 0, 0, RateCurve(0.8, 0.0, 0.0, 0.0), idle_supply=1e4),
    )
    venue = LendingVenue("market", "aave-v3", reserves)
    book = replace(one_pair_book([10.0], [900.0], price=100.0), lending=(venue,))
    result = run_paths(run_of(book, {"keepers": {}}, steps=3), 1, 0, 1)
    assert result.totals[0, 0, Total.LIQUIDATIONS] == 0.0
    assert result.totals[0, 0, Total.STUCK] == 3.0
    assert result.frozen[0, 0] == 3.0


def test_suppliers_of_a_pool_that_lost_all_have_nothing_to_ask_for() -> None:
    book = one_pair_book([1.0], [1_000.0], price=1.0, kind="morpho-blue", idle=1_000.0)
    result, index = steps_of(
        run_of(book, {"keepers": {}, "suppliers": {"calm": 1.0}}, steps=3), "supply_index"
    )
    assert 0.0 <= index[-1][0, 1] < 0.01
    assert np.isfinite(result.totals).all()


# --- pegs ---------------------------------------------------------------------------------------------------


def test_a_doubt_halves_and_a_lost_reserve_does_not_come_back() -> None:
    book = several_venues(3, seed=1)
    world = build_world(book)
    pegs = {
        "stETH": {"step": 2, "discount": 0.1, "doubt_half_life_s": 120.0},
        "USDC": {"reserve_loss_step": 3, "reserve_loss": 0.2},
    }
    run = along(book, [2_000.0] * 6, {"pegs": {"tokens": pegs}})
    _, market = steps_of(run, "market")
    a, c, d = (world.token(t) for t in ("stETH", "USDC", "DAI"))
    doubt = [1.0, 0.9, 1.0 - 0.1 * 0.5**0.5, 0.95, 1.0 - 0.1 * 0.5**1.5]
    assert [x[0, a] for x in market] == pytest.approx([2_300.0 * x for x in doubt], rel=1e-12)
    # DAI is backed by USDC, and falls with it.
    for token in (c, d):
        assert [x[0, token] for x in market] == pytest.approx([1.0, 1.0, 0.8, 0.8, 0.8], rel=1e-12)
    # Without the oracle channel venues believe it in the same step.
    _, oracle = steps_of(run, "oracle")
    assert [x[0, a] for x in oracle] == [x[0, a] for x in market]


def test_arbitrageurs_redeem_while_it_pays() -> None:
    book = several_venues(3, seed=1)
    a = build_world(book).token("stETH")
    peg = {"step": 2, "discount": 0.1, "redeem_usd_day": 1_440.0, "redeem_at": 0.05}
    _, flow = steps_of(along(book, [2_000.0] * 4, {"pegs": {"tokens": {"stETH": peg}}}), "order_flow")
    assert [x[0, a] for x in flow] == [0.0, 1.0, 1.0]


# --- perpetuals and options ---------------------------------------------------------------------------------


def perp_book(size: list[float], margin: list[float]) -> SharedBook:
    n = len(size)
    who, zero = np.arange(n, dtype=np.int32), np.zeros(n, dtype=np.int32)
    venue = PerpVenue("perp", "USD", {"ETH": 0.05}, {"ETH": 0.1}, 0.01, 100.0, {"ETH": 10.0})
    columns = PerpColumns(who, zero, zero, np.array(size), np.full(n, 100.0), who, zero, np.array(margin))
    book = one_pair_book([1.0], [1.0], price=100.0)
    return replace(book, perps=(venue,), perp_positions=columns, wallets=tuple(f"w{i}" for i in range(n)))


def test_a_perpetual_is_closed_just_below_its_liquidation_price() -> None:
    # Margin 10 + (p - 100) = 0.05 p at p = 90 / 0.95.
    at = 90.0 / 0.95
    for price, closed in ((at + 1e-9, 0.0), (at - 1e-9, 1.0)):
        result = run_paths(along(perp_book([1.0], [10.0]), [100.0, price], {"perps": {}}), 1, 0, 1)
        assert result.extra["perps.liquidations"][0] == closed
    assert result.extra["perps.fees_usd"][0] == pytest.approx(0.01 * at, rel=1e-6)
    assert result.extra["perps.closed_usd"][0] == pytest.approx(at, rel=1e-6)


def test_the_fund_pays_before_winners_do() -> None:
    book = perp_book([10.0, -4.0], [100.0, 1_000.0])
    result = run_paths(along(book, [100.0, 70.0], {"perps": {"adl": "pro-rata"}}), 1, 0, 1)
    # The long lost 300 on a margin of 100. Of the 200 missing the fund pays 100, the short's profit the rest.
    assert result.extra["perps.beyond_margin_usd"][0] == pytest.approx(200.0)
    assert result.extra["perps.insurance_paid_usd"][0] == pytest.approx(100.0)
    assert result.extra["perps.adl_usd"][0] == pytest.approx(100.0)
    assert result.extra["perps.imbalance"][0] < 1e-12


@pytest.mark.parametrize(("adl", "missing"), [("pro-rata", 20.0), ("queue", 20.0), ("none", 100.0)])
def test_what_neither_fund_nor_winners_pay_of_a_deficit_is_missing(adl: str, missing: float) -> None:
    # The long lacks 200: the fund has 100, and the short has a profit of 80.
    book = perp_book([10.0, -80.0 / 30.0], [100.0, 1_000.0])
    result = run_paths(along(book, [100.0, 70.0], {"perps": {"adl": adl}}), 1, 0, 1)
    assert result.extra["perps_deficit_usd"][0] == pytest.approx(missing)
    assert path_columns(result, 60.0)["bad_debt_usd"][0] == 0.0


@pytest.mark.parametrize("adl", ["queue", "pro-rata"])
def test_a_profit_is_taken_once(adl: str) -> None:
    # At 70 the longs lack 200 and 60 dollars, and the short has a profit of 150.
    book = perp_book([10.0, 10.0, -5.0], [100.0, 240.0, 200.0])
    book = replace(book, perps=(replace(book.perps[0], insurance=0.0),))
    run = along(book, [100.0, 70.0], {"perps": {"adl": adl}})
    kept: list[Any] = []
    result = run_paths(run, 1, 0, 1, watch=lambda batch: kept.append(batch.memos["perps"].margin.copy()))
    assert result.extra["perps.beyond_margin_usd"][0] == pytest.approx(260.0)
    assert result.extra["perps.adl_usd"][0] == pytest.approx(150.0)
    assert kept[0][0, 2] == pytest.approx(50.0)  # and 150 of open profit: the 200 that he came with
    assert result.extra["perps.imbalance"][0] < 1e-12


def test_funding_is_paid_by_the_larger_side() -> None:
    book = perp_book([4.0, -1.0], [1_000.0, 1_000.0])
    run = along(book, [100.0] * 2, {"perps": {"most_funding": 0.1}}, dt_s=DAY / 2)
    memo: list[Any] = []
    run_paths(run, 1, 0, 1, watch=lambda batch: memo.append(batch.memos["perps"].margin.copy()))
    # Skew 3 of 10: 3 % a day, half a day.
    assert memo[0][0] == pytest.approx([1_000.0 - 400.0 * 0.015, 1_000.0 + 100.0 * 0.015], rel=1e-12)


def test_gamma_is_that_of_the_pricing_module() -> None:
    years, strike, volatility = np.array([0.25, 0.5]), np.array([90.0, 120.0]), np.array([0.8, 0.6])
    options = OptionColumns(
        wallet=np.zeros(2, dtype=np.int32),
        token=np.zeros(2, dtype=np.int32),
        expiry=years * YEAR_S,
        strike=strike,
        size=np.array([-3.0, 2.0]),
        volatility=volatility,
        is_call=np.array([0, 1], dtype=np.int8),
    )
    book = replace(one_pair_book([1.0], [1.0], price=100.0), options=options)
    world = build_world(book)

    each = black76_greeks(100.0, strike, volatility, years, 0.0, np.array([False, True])).gamma
    gamma = dealer_gamma(world, np.array([[100.0, 1.0]]), 0.0)
    assert gamma[0, 0] == pytest.approx(float((each * options.size).sum()), rel=1e-12)
    assert gamma[0, 1] == 0.0
    # A tenth of a per cent down: what is traded is gamma times the move, the other way.
    _, flow = steps_of(along(book, [100.0, 99.9], {"options": {}}), "order_flow")
    now = dealer_gamma(world, np.array([[99.9, 1.0]]), 60.0)[0, 0]
    assert flow[0][0, 0] == pytest.approx(-now * -0.1 * 99.9, rel=1e-10)
    quiet, flow = steps_of(along(book, [100.0, 99.9], {"options": {"hedge_bps": 20.0}}), "order_flow")
    assert flow[0][0, 0] == 0.0
    assert quiet.extra["options.hedged_usd"][0] == 0.0


# --- impact and breaker -------------------------------------------------------------------------------------


def test_the_books_exits_are_the_markets_of_tokens_without_one() -> None:
    book = one_pair_book([10.0], [850.0], price=100.0, kind="morpho-blue")
    exit_ = ExitLiquidity(
        "ETH", "USD", "pool", "2026-04-01", "by hand", np.array([5.0, 50.0]), np.array([0.001, 0.02])
    )
    book = replace(book, exits=(exit_,))
    with_exit = run_paths(run_of(book, {"keepers": {}, "impact": {}}, steps=1), 1, 0, 1)
    assert with_exit.price[0, 0] < 100.0
    without = run_paths(run_of(book, {"keepers": {}, "impact": {"exits": False}}, steps=1), 1, 0, 1)
    assert without.price[0, 0] == 100.0


def test_a_sale_moves_the_price_by_the_linear_law_and_half_is_back_after_its_half_life() -> None:
    book = one_pair_book([10.0], [850.0], price=100.0, kind="morpho-blue")
    impact = {"tokens": {"ETH": {"model": "linear", "per_dollar": 1e-5, "half_life_s": 60.0}}}
    run = run_of(book, {"keepers": {}, "impact": impact}, steps=2, dt_s=60.0)
    result, market = steps_of(run, "market")
    sold = result.totals[0, 0, Total.SEIZED]
    assert np.log(market[0][0, 0] / 100.0) == pytest.approx(-1e-5 * sold, rel=1e-9)
    assert np.log(market[1][0, 0] / 100.0) == pytest.approx(-0.5e-5 * sold, rel=1e-9)


def test_a_breaker_pauses_for_its_time_and_opens_again() -> None:
    book = one_pair_book([1.0], [85.0], price=120.0, kind="morpho-blue")
    eth = [120.0, 119.0, 100.0, 100.0, 100.0, 100.0, 100.0]
    for window, first in ((1, 5), (2, 6)):
        breaker = {"move_bps": 1_000.0, "window_steps": window, "pause_steps": 2}
        settings = {"oracle": {"default": {"latency_steps": 0}}, "breaker": breaker, "keepers": {}}
        result = run_paths(along(book, eth, settings), 1, 0, 1)
        # Tripped at step 2, and at 3 as well where the window still has 119: two further steps from then.
        assert result.first_step[0] == first
    breaker = {"move_bps": 2_000.0, "venues": ["market"]}
    settings = {"oracle": {"default": {"latency_steps": 0}}, "breaker": breaker, "keepers": {}}
    assert run_paths(along(book, eth, settings), 1, 0, 1).first_step[0] == 2
