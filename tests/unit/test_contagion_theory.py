"""The engine against closed forms: what it must do where theory says what happens."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from simulation.book.types import OptionColumns, PerpColumns, PerpVenue
from simulation.contagion.engine import run_paths
from simulation.contagion.policies import apply_policies, build_policy
from simulation.contagion.state import Total
from simulation.types import Float64
from tests.contagion_books import one_pair_book, run_of

BONUS = 0.05
THRESHOLD = 0.8


WHOLE = {"kind": "close-factor", "close_factor": 1.0}
"""All of a debt may be repaid at once: the density of sales is then that of the debts."""


def even_book(density: float, deepest: float, accounts: int) -> tuple[Float64, Float64]:
    """Return accounts of which `density` dollars are sold for each unit that the log price falls.

    Account i comes below 1 where the log price is ``-y[i]``, and is then sold whole for ``debt * (1 + b)``.
    """
    y = (np.arange(accounts) + 0.5) * deepest / accounts
    debt = np.full(accounts, density * deepest / accounts / (1.0 + BONUS))
    return debt / (THRESHOLD * np.exp(-y)), debt


@pytest.mark.parametrize("feedback", [0.0, 0.3, 0.6, 0.9])
def test_a_shock_is_multiplied_by_one_over_one_less_lambda_rho(feedback: float) -> None:
    density, depth, shock = 1e6, 1e6 / max(feedback, 1e-9), 0.02
    collateral, debt = even_book(density, deepest=0.4, accounts=20_000)
    settings = {"keepers": {}}
    if feedback:
        settings["impact"] = {"tokens": {"ETH": {"model": "linear", "per_dollar": 1.0 / depth}}}
    run = run_of(one_pair_book(collateral, debt, kind="aave-v3"), settings, steps=400, shock=-shock)
    run = apply_policies(run, [build_policy(WHOLE)])
    result = run_paths(run, 1, 0, 1)
    moved = -np.log(result.price[0, 0])
    assert moved == pytest.approx(shock / (1.0 - feedback), rel=2e-3)
    sold = result.totals[0, 0, Total.SEIZED]
    assert sold == pytest.approx(density * moved, rel=2e-3)


@pytest.mark.parametrize("feedback", [1.0, 1.1])
def test_beyond_one_the_book_is_sold_out(feedback: float) -> None:
    density, shock, deepest = 1e6, 0.02, 0.4
    collateral, debt = even_book(density, deepest, accounts=2_000)
    settings = {
        "keepers": {},
        "impact": {"tokens": {"ETH": {"model": "linear", "per_dollar": feedback / density}}},
    }
    run = run_of(one_pair_book(collateral, debt, kind="aave-v3"), settings, steps=400, shock=-shock)
    run = apply_policies(run, [build_policy(WHOLE)])
    result = run_paths(run, 1, 0, 1)
    # Where a sale of all would lose, half is sold: the last account or two keep a part.
    assert result.totals[0, 0, Total.REPAID] == pytest.approx(debt.sum(), rel=1e-3)
    assert -np.log(result.price[0, 0]) == pytest.approx(shock + feedback * deepest, rel=1e-3)


@pytest.mark.parametrize("bonus_bps", [450, 500, 800, 1_000])
@pytest.mark.parametrize("ltv", [0.97, 1.0, 1.03])
def test_a_toxic_spiral_ends_in_the_closed_form(bonus_bps: int, ltv: float) -> None:
    b, collateral = bonus_bps / 1e4, 1e6
    book = one_pair_book([collateral], [ltv * collateral], kind="aave-v2", bonus_bps=bonus_bps)
    result = run_paths(run_of(book, {"keepers": {}}, steps=200), 1, 0, 1)
    expected = max(ltv * collateral - collateral / (1.0 + b), 0.0)
    bad = result.shortfall[0, 0]
    assert bad == pytest.approx(expected, abs=1e-5 * collateral)
    if ltv > 1.0 / (1.0 + b):
        assert result.totals[0, 0, Total.TOXIC] > 0
    else:
        # Below the threshold each liquidation lowers the loan-to-value, and nothing is lost.
        assert bad == 0.0


@pytest.mark.parametrize("ltv", [0.94, 0.97, 1.0, 1.03])
def test_halted_at_the_threshold_only_what_was_lost_before_is_lost(ltv: float) -> None:
    collateral = 1e6
    book = one_pair_book([collateral], [ltv * collateral], kind="aave-v2", bonus_bps=500)
    run = apply_policies(run_of(book, {"keepers": {}}, steps=200), [build_policy({"kind": "halt-toxic"})])
    result = run_paths(run, 1, 0, 1)
    assert result.shortfall[0, 0] == pytest.approx(max(ltv - 1.0, 0.0) * collateral, abs=1e-5 * collateral)
    halted = ltv > 1.0 / 1.05
    assert (result.totals[0, 0, Total.LIQUIDATIONS] == 0) == halted
    assert (result.totals[0, 0, Total.HALTED] > 0) == halted


@pytest.mark.parametrize("fall", [0.02, 0.1, 0.25, 0.5])
def test_without_impact_the_engine_is_the_static_sensitivity(fall: float) -> None:
    rng = np.random.default_rng(5)
    debt = rng.lognormal(8.0, 1.0, 3_000)
    health = 1.0 + rng.gamma(2.0, 0.1, 3_000)
    collateral = debt * health / THRESHOLD
    book = one_pair_book(collateral, debt, kind="aave-v2")
    result = run_paths(run_of(book, {"keepers": {}}, steps=1, shock=float(np.log1p(-fall))), 1, 0, 1)
    below = health * (1.0 - fall) < 1.0
    # Half of each debt, or what all of the collateral pays.
    paid = np.minimum(debt[below] / 2.0, collateral[below] * (1.0 - fall) / (1.0 + BONUS))
    assert result.totals[0, 0, Total.LIQUIDATIONS] == below.sum()
    assert result.totals[0, 0, Total.REPAID] == pytest.approx(paid.sum(), rel=1e-12)


def test_tokens_are_conserved_through_a_crash_with_everything_on() -> None:
    rng = np.random.default_rng(6)
    debt = rng.lognormal(8.0, 1.0, 2_000)
    collateral = debt * (1.0 + rng.gamma(2.0, 0.1, 2_000)) / THRESHOLD
    for kind in ("aave-v2", "aave-v3", "aave-v3.6", "morpho-blue", "compound-v3"):
        settings = {
            "oracle": {},
            "interest": {},
            "keepers": {
                "keepers": [
                    {"name": "a", "funding": "inventory", "capital_usd": 1e6},
                    {"name": "b", "bid": 0.1},
                ]
            },
            "losses": {"haircut": True, "backstop_usd": {"market": 1e4}},
            "impact": {"tokens": {"ETH": {"model": "linear", "per_dollar": 1e-7}}},
        }
        book = one_pair_book(collateral, debt, kind=kind, idle=float(debt.sum()) * 1.2)
        result = run_paths(run_of(book, settings, steps=50, shock=-0.5), 1, 0, 1)
        assert result.totals[0, 0, Total.LIQUIDATIONS] > 0, kind
        assert result.imbalance.max() <= 1e-12, kind


def test_short_gamma_adds_to_the_density_of_sales() -> None:
    density, feedback, shock = 1e6, 0.3, 0.004
    collateral, debt = even_book(density, deepest=0.2, accounts=20_000)
    book = one_pair_book(collateral, debt, kind="aave-v3")
    # So far from expiry that gamma hardly changes over the shock: |gamma| S**2 = 0.2 of the density.
    years, volatility = 0.25, 0.8
    deviation = volatility * np.sqrt(years)
    each = np.exp(-0.125 * deviation**2) / np.sqrt(2.0 * np.pi) / deviation
    written = -0.2 * density / each
    options = OptionColumns(
        wallet=np.zeros(1, dtype=np.int32),
        token=np.zeros(1, dtype=np.int32),
        expiry=np.array([years * 365.0 * 86_400.0]),
        strike=np.ones(1),
        size=np.array([written]),
        volatility=np.array([volatility]),
        is_call=np.zeros(1, dtype=np.int8),
    )
    settings = {
        "keepers": {},
        "options": {},
        "impact": {"tokens": {"ETH": {"model": "linear", "per_dollar": feedback / density}}},
    }
    run = run_of(replace(book, options=options), settings, steps=200, shock=-shock)
    run = apply_policies(run, [build_policy(WHOLE)])
    result = run_paths(run, 1, 0, 1)
    moved = -np.log(result.price[0, 0])
    assert moved == pytest.approx(shock / (1.0 - feedback * 1.2), rel=0.02)
    assert moved > 1.05 * shock / (1.0 - feedback)


@pytest.mark.parametrize("adl", ["queue", "pro-rata", "none"])
def test_perpetuals_lose_and_find_no_dollar(adl: str) -> None:
    book = one_pair_book([1.0], [0.1])
    rng = np.random.default_rng(9)
    n = 200
    size = rng.normal(0.0, 10.0, n)
    perps = PerpColumns(
        wallet=np.arange(n, dtype=np.int32),
        venue=np.zeros(n, dtype=np.int32),
        token=np.zeros(n, dtype=np.int32),
        size=size,
        entry=np.ones(n),
        margin_wallet=np.arange(n, dtype=np.int32),
        margin_venue=np.zeros(n, dtype=np.int32),
        margin=np.abs(size) * rng.uniform(0.05, 0.5, n),
    )
    venue = PerpVenue(
        "perp", "USD", {"ETH": 0.03}, {"ETH": 0.05}, 0.01, insurance=5.0, skew_scale={"ETH": 1e3}
    )
    book = replace(book, perps=(venue,), perp_positions=perps, wallets=tuple(f"w{i}" for i in range(n)))
    settings = {
        "perps": {"adl": adl, "most_funding": 0.1},
        "impact": {"tokens": {"ETH": {"model": "linear", "per_dollar": 1e-4}}},
    }
    result = run_paths(run_of(book, settings, steps=20, shock=-0.3), 1, 0, 1)
    assert result.extra["perps.liquidations"][0] > 20
    assert result.extra["perps.beyond_margin_usd"][0] > result.extra["perps.insurance_paid_usd"][0] > 0.0
    assert (result.extra["perps.adl_usd"][0] > 0.0) == (adl != "none")
    assert result.extra["perps.imbalance"][0] < 1e-12


def test_portfolio_margin_is_the_worst_scenario_and_frees_what_moves_together() -> None:
    book = one_pair_book([100.0, 100.0], [74.0, 86.0], kind="aave-v3")
    run = run_of(book, {"keepers": {}}, steps=1, shock=-1e-9)
    policy = build_policy({"kind": "portfolio-margin", "moves": [-0.2, 0.2], "depeg": 0.0})
    result = run_paths(apply_policies(run, [policy]), 1, 0, 1, record=True)
    # 100 tokens are worth 80 after a fall by a fifth: the debt of 74 stands, that of 86 does not.
    assert [list(event["row"]) for event in result.events] == [[1.0]]
    # ETH against ETH at any loan-to-value below 1 stands in every scenario, though the threshold is 0.8.
    positions = replace(book.positions, token=np.zeros(4, dtype=np.int32), amount=np.array([100.0, 95.0] * 2))
    reserves = tuple(replace(r, idle_supply=1e6) for r in book.lending[0].reserves)
    hedged = replace(book, positions=positions, lending=(replace(book.lending[0], reserves=reserves),))
    run = run_of(hedged, {"keepers": {}}, steps=1, shock=-1e-9)
    assert run_paths(run, 1, 0, 1).totals[0, 0, Total.LIQUIDATIONS] == 2
    assert run_paths(apply_policies(run, [policy]), 1, 0, 1).totals[0, 0, Total.LIQUIDATIONS] == 0
