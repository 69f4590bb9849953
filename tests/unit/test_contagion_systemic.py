"""Figures of the whole system, by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simulation.contagion.causes import FEEDBACK, Contagion, columns, without_each
from simulation.contagion.metrics import PLAIN, Figure, Sampling
from simulation.contagion.record import build_record
from simulation.contagion.scenario import load_scenario
from simulation.contagion.systemic import (
    covar,
    debt_rank,
    debt_ranks,
    equity_usd,
    perps_deficit,
    price_multipliers,
    spiral_multiplier,
    system_record,
)
from simulation.contagion.world import World, build_world
from simulation.types import Float64
from tests.contagion_books import EVERYTHING, moving_run, one_pair_book, run_of, several_venues

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
VENUES = ("a", "b")


def two_venues() -> World:
    """Two markets of the same book, of which the second one's pool holds twice as much."""
    book = one_pair_book([1.0], [0.5], idle=100.0)
    first = replace(book.lending[0], name="a")
    second = replace(first, name="b", reserves=tuple(replace(r, idle_supply=200.0) for r in first.reserves))
    return build_world(replace(book, lending=(first, second)))


def test_a_spiral_is_what_impact_multiplies_liquidations_by() -> None:
    base = {"liquidated_usd": np.array([30.0, 0.0, 60.0, 30.0])}
    calm = {"liquidated_usd": np.array([20.0, 0.0, 40.0, 20.0])}
    found = spiral_multiplier(base, {"impact": calm}, PLAIN)
    assert (found["value"], found["low"], found["high"]) == pytest.approx((1.5, 1.5, 1.5))
    weighed = spiral_multiplier(base, {"impact": {"liquidated_usd": np.full(4, 30.0)}}, Sampling(np.ones(4)))
    assert weighed["value"] == pytest.approx(1.0)
    assert "--effects" in spiral_multiplier(base, {"gas": calm}, PLAIN)["why"]
    assert spiral_multiplier(base, {"impact": {"liquidated_usd": np.zeros(4)}}, PLAIN)["value"] is None


def test_a_spiral_is_its_feedback_on_prices_times_what_keepers_leave_alone() -> None:
    def of(*usd: float) -> dict[str, Float64]:
        return {"liquidated_usd": np.array(usd)}

    base, static, seen = of(30.0, 60.0), of(20.0, 40.0), of(10.0, 20.0)
    found = spiral_multiplier(base, {"impact": static, FEEDBACK: seen}, PLAIN)
    assert (found["value"], found["price_feedback"]["value"]) == pytest.approx((1.5, 3.0))
    assert found["willingness"]["value"] == pytest.approx(0.5)
    assert "feedback on" in spiral_multiplier(base, {"impact": static}, PLAIN)["willingness"]["why"]
    assert "--effects" in spiral_multiplier(base, {}, PLAIN)["price_feedback"]["why"]


@pytest.mark.parametrize(("steps", "feedback", "willing"), [(1, 1.0, 0.5), (2, 1.02, 0.5)])
def test_without_feedback_keepers_see_the_depth_and_prices_do_not(
    steps: int, feedback: float, willing: float
) -> None:
    # Repaying the part x of the large debt earns b x - 0.8 b x^2 of it: most at a half, of the sizes that are
    # tried, which makes the account sound. Selling that lowers ETH by 4.7 %, and only then the small debt, a
    # fiftieth of that half, is below 1: its health factor was 1.03.
    bonus = 1.0 / (1.0 - 0.3 * 0.2) - 1.0
    per_dollar = 2.0 * 0.8 * bonus / (1.0 + bonus) ** 2 / 10_000.0
    debt = np.array([10_000.0, 100.0])
    book = one_pair_book(debt * [0.97, 1.03] / 0.8 / 100.0, debt, price=100.0, kind="morpho-blue")
    found = {}
    for name, more in (("all", {}), (FEEDBACK, {"feedback": False}), ("impact", {"on": False})):
        market = {"model": "linear", "per_dollar": per_dollar, "half_life_s": 1e9}
        settings = {"keepers": {}, "impact": {"tokens": {"ETH": market}, **more}}
        found[name] = columns(run_of(book, settings, steps=steps), 1, 2)
    parts = spiral_multiplier(found["all"], found, PLAIN)
    assert found[FEEDBACK]["lowest.ETH"][0] == 100.0
    assert found["all"]["lowest.ETH"][0] < 96.0
    assert parts["price_feedback"]["value"] == pytest.approx(feedback)
    assert parts["willingness"]["value"] == pytest.approx(willing)
    assert parts["value"] == pytest.approx(feedback * willing)


def test_the_feedback_of_impact_is_a_variant_of_its_own() -> None:
    scenario = load_scenario(EXAMPLES / "crash.toml", {})
    assert without_each(scenario)[FEEDBACK] == {"channels.impact.feedback": False}
    for over in ({"channels.impact.feedback": False}, {"channels.impact.on": False}):
        assert FEEDBACK not in without_each(load_scenario(EXAMPLES / "crash.toml", over))


def test_price_multipliers_are_of_falls_only() -> None:
    world = build_world(one_pair_book([1.0], [0.5]))
    outside = np.exp([-0.1, -0.2, 0.3, -0.001])
    moved = np.exp([-0.15, -0.3, 0.9, -0.5])
    base = {"price.ETH": moved, "outside.ETH": outside, "price.USD": np.ones(4), "outside.USD": np.ones(4)}
    found = price_multipliers(world, base, PLAIN)
    assert found["ETH"]["paths"] == 2
    assert (found["ETH"]["value"], found["ETH"]["median"]) == pytest.approx((1.5, 1.5))
    assert found["USD"]["value"] is None
    assert "on no path" in found["USD"]["why"]


def losses(n: int) -> dict[str, Float64]:
    """Venue b loses twice what a does on a's worst paths, and something unrelated on the others."""
    rng = np.random.default_rng(4)
    a = rng.exponential(1.0, n)
    b = np.where(a >= np.quantile(a, 0.95), 2.0 * a, rng.exponential(0.1, n))
    return {"bad_debt_usd.a": a, "bad_debt_usd.b": b}


def test_covar_is_the_quantile_where_the_other_one_is_beyond_its_own() -> None:
    world, base = two_venues(), losses(4_000)
    rows = {(row["of"], row["given"]): row for row in covar(world, base, PLAIN)}
    row = rows["b", "a"]
    a, b = base["bad_debt_usd.a"], base["bad_debt_usd.b"]
    bar = np.sort(a)[int(0.95 * len(a)) - 1]
    inside = np.sort(b[a >= bar])
    assert row["paths"] == len(inside) == 201
    assert row["value"] == inside[int(np.ceil(0.95 * len(inside))) - 1]
    # 95 % of 5 % are left of an exponential tail: ln(20 * 20).
    assert row["value"] == pytest.approx(2 * np.log(400), rel=0.15)
    assert row["low"] < row["value"] < row["high"]
    assert row["delta"] == pytest.approx(row["value"] - np.sort(b)[3_799])
    again = {(r["of"], r["given"]): r for r in covar(world, base, Sampling(np.ones(4_000)))}
    assert again["b", "a"]["value"] == row["value"]


def test_covar_says_why_it_cannot_be_said() -> None:
    world = two_venues()
    (few, _) = covar(world, losses(1_000), PLAIN)
    assert few["value"] is None
    assert few["why"] == "51 paths are in the condition, it takes 60"
    none = {"bad_debt_usd.a": np.zeros(4_000), "bad_debt_usd.b": np.ones(4_000)}
    rows = covar(world, none, PLAIN)
    assert [row["value"] for row in rows] == [None, 0.0]
    assert rows[0]["why"] == "a has no bad debt at its 95% quantile"


def test_distress_goes_round_once_and_is_never_more_than_whole() -> None:
    chain = np.array([[0.0, 0.0, 0.0], [0.5, 0.0, 0.0], [0.0, 0.4, 0.0]])
    assert debt_rank(chain, 0) == pytest.approx([1.0, 0.5, 0.2])
    assert debt_rank(chain, 2) == pytest.approx([0.0, 0.0, 1.0])
    # Round a circle of a half each: 1/2, then the shocked one is whole already.
    circle = np.array([[0.9, 0.5], [0.5, 0.9]])
    assert debt_rank(circle, 0) == pytest.approx([1.0, 0.5])
    # Two that pass on to each other: h = 1/4 + h / 2 beside the shocked one.
    three = np.array([[0.0, 0.0, 0.0], [0.25, 0.0, 0.5], [0.25, 0.5, 0.0]])
    assert debt_rank(three, 0) == pytest.approx([1.0, 0.5, 0.5])
    assert debt_rank(10.0 * three, 0) == pytest.approx([1.0, 1.0, 1.0])


def test_exposures_are_losses_over_equity() -> None:
    world = two_venues()
    assert equity_usd(world, {"b": 50.0}) == pytest.approx({"a": 100.0, "b": 450.0})

    def figure(x: float) -> Figure:
        return Figure(x, x, x)

    matrix = Contagion(
        VENUES, "bad_debt_usd", (0.0, 0.0), ((figure(9.0), figure(45.0)), (figure(-3.0), figure(9.0)))
    )
    found = debt_ranks(world, matrix, {"b": 50.0})
    # The shock of a costs b 45 of 450; that of b gains a something, which is no loss.
    assert np.array(found["exposure"]) == pytest.approx(np.array([[0.09, 0.0], [0.1, 0.02]]))
    assert found["rank"] == pytest.approx({"a": 0.1 * 450 / 550, "b": 0.0})
    assert debt_ranks(build_world(one_pair_book([1.0], [0.5], idle=0.5)), _alone(), {})["rank"] is not None


def _alone() -> Contagion:
    return Contagion(("market",), "bad_debt_usd", (0.0,), ((Figure(0.0, 0.0, 0.0),),))


def test_the_whole_record_of_a_crash() -> None:
    run = moving_run(several_venues(40, seed=3), EVERYTHING, steps=20)
    base = columns(run, 1, 12)
    quiet = moving_run(
        several_venues(40, seed=3), {k: v for k, v in EVERYTHING.items() if k != "impact"}, steps=20
    )
    found: dict[str, Any] = system_record(
        run.world, base, 20, PLAIN, without={"impact": columns(quiet, 1, 12)}, matrix=None, backstop_usd={}
    )
    assert found["spiral_multiplier"]["value"] > 0.0
    assert set(found["price_multipliers"]) == {"ETH", "BTC"}
    keepers = found["keepers"]
    bids, kept = keepers["oev_leakage_usd"]["value"], keepers["profit_after_gas_and_bids_usd"]["value"]
    assert keepers["oev_leakage_share"]["value"] == pytest.approx(bids / (bids + kept))
    # Between what the least and the most eager keeper pays.
    assert 0.1 < keepers["oev_leakage_share"]["value"] < 0.9
    assert 0.0 < found["share_toxic"]["value"] < 1.0 or base["toxic"].sum() == 0.0
    assert found["unprofitable_backlog"]["value"] == pytest.approx(base["unprofitable"].mean() / 20)
    assert found["debtrank"]["rank"] is None
    assert found["perps_deficit_usd"]["value"] == base["perps_deficit_usd"].mean()
    assert keepers["inventory_gain_usd"]["value"] == pytest.approx(base["inventory_gain_usd"].mean())


def test_what_perpetuals_lack_is_a_figure_of_its_own_and_no_bad_debt() -> None:
    # Of a hundred paths one lacks 300 dollars.
    missing = {"perps_deficit_usd": np.where(np.arange(100) == 7, 300.0, 0.0)}
    found = perps_deficit(missing, PLAIN)
    assert (found["value"], found["es_99"]["value"]) == pytest.approx((3.0, 300.0))
    unknown = perps_deficit({"bad_debt_usd": np.ones(3)}, PLAIN)
    assert unknown["value"] is None
    assert "perps channel is off" in unknown["why"]


@pytest.mark.parametrize("bid", [0.0, 0.25, 1.0])
def test_what_keepers_bid_is_booked_beside_what_they_keep(bid: float) -> None:
    book = one_pair_book([1_000.0], [750.0], kind="aave-v3", bonus_bps=500)
    run = run_of(book, {"keepers": {"keepers": [{"bid": bid}]}}, steps=1, shock=float(np.log(0.9)))
    base = columns(run, 1, 1)
    # Half of the debt at a health factor of 0.96, for a bonus of 5 % and no gas.
    assert base["bids_usd"][0] == pytest.approx(bid * 375.0 * 0.05)
    assert base["keeper_profit_usd"][0] == pytest.approx((1.0 - bid) * 375.0 * 0.05)


def test_a_record_has_it_all_and_is_standard_json() -> None:
    over = {"steps": 130, "channels.losses.backstop_usd": {"aave": 1_000.0}}
    scenario = load_scenario(EXAMPLES / "crash.toml", over)
    base = columns(scenario.run, 7, 4)
    record = build_record(scenario, base, seed=7, version="0", result_sha256="")
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert record["sampling"]["estimator"] == "plain mean"
    assert record["wallets"] is record["spread"] is None
    assert "--effects" in record["system"]["spiral_multiplier"]["why"]
    own = equity_usd(scenario.run.world, {})
    for name, table in record["solvency"].items():
        assert table["equity_usd"] == pytest.approx(own[name] + 1_000.0 * (name == "aave"))
    with_more = build_record(
        scenario,
        base,
        seed=7,
        version="0",
        result_sha256="",
        without={"impact": base},
        wallets={"top": []},
        spread={"low x": base},
    )
    assert with_more["system"]["spiral_multiplier"]["value"] == pytest.approx(1.0)
    assert with_more["wallets"] == {"top": []}
    assert with_more["spread"]["figures"]["bad_debt_usd"]["least_at"] == "the scenario"
