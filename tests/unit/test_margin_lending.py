"""The health factor over a portfolio: by hand, as properties, and beside the exact model of Aave."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from contracts_abi.errors import InputError
from simulation.fixed_point import WAD
from simulation.margin import margin_methods
from simulation.margin.lending_portfolio import (
    AAVE_V3_ETHEREUM,
    LendingParameters,
    LendingPortfolio,
    Reserve,
    _required,
)
from simulation.margin.result import MarginResult, dumped
from simulation.portfolio.instruments import Perpetual, Portfolio, Position, Spot
from simulation.portfolio.market import AssetPrice, Market, Underlying
from simulation.protocols.aave_v3 import calculate_user_account_data
from simulation.types import MarginStatus
from tests.aave_states import account, configuration, market, reserve

METHOD = LendingPortfolio()
PRICES = Market(
    underlyings={"ETH": Underlying(spot=2_000)},
    assets={"WETH": AssetPrice(price=2_000), "USDC": AssetPrice(price=1), "WBTC": AssetPrice(price=40_000)},
)


def token(asset: str, quantity: float, protocol: str = "") -> Position:
    return Position(instrument=Spot(asset=asset), quantity=quantity, protocol=protocol)


def margin(*positions: Position, cash: float = 0.0, prices: Market = PRICES) -> MarginResult:
    return METHOD.margin(Portfolio(cash=cash, positions=positions), prices)


def test_by_hand() -> None:
    """10 WETH and 5,000 USDC of collateral, half a WBTC owed: 20,000 and 5,000 against 20,000 dollars."""
    result = margin(token("WETH", 10), token("USDC", 5_000), token("WBTC", -0.5))
    assert (result.status, result.reason) == (MarginStatus.HEALTHY, "")
    weighted, power = 20_000 * 0.83 + 5_000 * 0.8, 20_000 * 0.805 + 5_000 * 0.77
    assert weighted == pytest.approx(20_600)
    assert dict(result.components) == pytest.approx(
        {
            "collateral": 25_000,
            "debt": 20_000,
            "weighted_collateral": 20_600,
            "borrowing_power": 19_950,
            "weighted_threshold": 0.824,
            "weighted_ltv": 0.798,
            "health_factor": 1.03,
        }
    )
    assert result.equity == 5_000
    assert result.maintenance == pytest.approx(600)
    assert result.initial == pytest.approx(power - 20_000)
    assert result.maintenance_requirement == pytest.approx(25_000 - 20_600)
    assert result.initial < 0 < result.maintenance, "it may be kept, and not be opened"


def test_below_one_it_is_liquidatable() -> None:
    result = margin(token("ETH", 10), token("USDC", -16_601))
    assert (result.status, result.reason) == (MarginStatus.LIQUIDATABLE, "health factor below 1")
    assert result.maintenance == pytest.approx(-1)
    assert result.components["health_factor"] == pytest.approx(16_600 / 16_601)


def test_what_is_held_and_owed_of_one_token_is_not_netted() -> None:
    both = margin(token("USDC", 100), token("USDC", -80.5))
    assert both.status is MarginStatus.LIQUIDATABLE
    assert margin(token("USDC", 19.5)).status is MarginStatus.NO_DEBT


def test_cash_is_a_reserve_at_the_settlement_price() -> None:
    low = PRICES.model_copy(update={"stable_price": 0.9})
    owed = margin(token("WETH", 1), cash=-1_000, prices=low)
    assert owed.components["debt"] == 900
    assert owed.mark_to_market == 2_000
    held = margin(token("WBTC", -0.01), cash=1_000)
    assert held.components["weighted_collateral"] == pytest.approx(800)


def test_nothing_owed_has_no_health_factor_and_is_json() -> None:
    result = margin(token("WETH", 1))
    assert (result.status, result.reason) == (MarginStatus.NO_DEBT, "owes nothing")
    assert "health_factor" not in result.components
    json.dumps(dumped(result), allow_nan=False)
    empty = margin()
    assert (empty.status, empty.equity, empty.maintenance_requirement) == (MarginStatus.NO_DEBT, 0, 0)
    assert "weighted_threshold" not in empty.components


def test_bad_debt_is_liquidatable_without_collateral() -> None:
    result = margin(token("USDC", -1))
    assert result.status is MarginStatus.LIQUIDATABLE
    assert result.components["health_factor"] == 0


@pytest.mark.parametrize(
    ("positions", "said"),
    [
        ([Position(instrument=Perpetual(underlying="ETH"), quantity=1)], "knows no perpetual"),
        ([token("PEPE", 1)], "PEPE is no reserve of lending.health_factor; name it in reserves beside ETH"),
        (
            [token("WETH", 1, "aave"), token("USDC", -1, "spark")],
            "is at aave, spark; give a portfolio for each",
        ),
    ],
)
def test_what_it_does_not_know_is_refused(positions: list[Position], said: str) -> None:
    with pytest.raises(InputError, match=said) as refused:
        margin(*positions)
    assert "\n" not in str(refused.value)


def test_a_price_that_is_missing_or_no_number_makes_it_unknown() -> None:
    missing = margin(token("DAI", 1))
    assert (missing.status, missing.reason) == (MarginStatus.UNKNOWN, "no price of DAI")
    nan = PRICES.model_copy(update={"assets": {"WETH": AssetPrice.model_construct(price=math.nan)}})
    bad = margin(token("WETH", 1), prices=nan)
    assert bad.status is MarginStatus.UNKNOWN
    assert math.isnan(bad.equity)
    unpaid = PRICES.model_copy(update={"stable_price": math.nan})
    assert margin(cash=1.0, prices=unpaid).status is MarginStatus.UNKNOWN
    for endless in (margin(token("WETH", 1e306)), margin(token("USDC", 1e308), token("USDC", 1e308))):
        assert endless.status is MarginStatus.UNKNOWN


def test_parameters_that_are_crossed_or_unknown_are_refused() -> None:
    with pytest.raises(InputError, match=r"max_ltv 0\.8 is above liquidation_threshold 0\.7; exchange them"):
        margin_methods.build(
            {
                "kind": "lending.health_factor",
                "parameters": {
                    "reserves": {"A": {"max_ltv": 0.8, "liquidation_threshold": 0.7}},
                    "cash_reserve": "A",
                },
            }
        )
    with pytest.raises(InputError, match="unknown reserve 'B'"):
        margin_methods.build(
            {
                "kind": "lending.health_factor",
                "parameters": {
                    "reserves": {"A": {"max_ltv": 0.5, "liquidation_threshold": 0.5}},
                    "cash_reserve": "B",
                },
            }
        )
    with pytest.raises(InputError, match="did you mean 'aave-v3-ethereum'"):
        margin_methods.build({"kind": "lending.health_factor", "parameters": "aave-v3-etherum"})
    named = margin_methods.build({"kind": "lending.health_factor", "parameters": "aave-v3-ethereum"})
    assert named == METHOD


def test_thresholds_as_the_proposals_state_them() -> None:
    """From the tables of the proposals, in basis points: max LTV and liquidation threshold."""
    stated = {
        "WETH": (8_050, 8_300),
        "WBTC": (7_300, 7_800),
        "LINK": (5_300, 6_800),
        "AAVE": (6_600, 7_300),
        "wstETH": (7_850, 8_100),
        "cbETH": (7_450, 7_700),
        "rETH": (7_450, 7_700),
    }
    for symbol, (ltv_bps, threshold_bps) in stated.items():
        known = AAVE_V3_ETHEREUM.reserves[symbol]
        assert (round(known.max_ltv * 1e4), round(known.liquidation_threshold * 1e4)) == (
            ltv_bps,
            threshold_bps,
        )
    assert AAVE_V3_ETHEREUM.reserves["ETH"] == AAVE_V3_ETHEREUM.reserves["WETH"]


def test_maintenance_is_negative_exactly_where_the_factor_is_below_one() -> None:
    """Also one float beside 1, where equity less requirement would round a shortfall away."""
    rng = np.random.default_rng(3)
    both = set()
    for _ in range(2_000):
        held = float(rng.uniform(1e-3, 1e6))
        weighted = held * 2_000 * 0.83
        owed = weighted
        for _ in range(int(rng.integers(0, 4))):
            owed = math.nextafter(owed, math.inf if rng.random() < 0.5 else 0.0)
        result = margin(token("WETH", held), token("USDC", -owed))
        below = result.components["health_factor"] < 1
        assert (result.maintenance < 0) == below == (result.status is MarginStatus.LIQUIDATABLE)
        both.add(below)
    assert both == {True, False}
    assert 1e6 - _required(1e6, -1e-12) < 0
    assert 1e6 - _required(1e6, 1e-12) >= 0


def test_properties_on_random_books() -> None:
    rng = np.random.default_rng(11)
    symbols = ("WETH", "USDC", "WBTC")
    for _ in range(300):
        positions = [token(str(rng.choice(symbols)), float(rng.normal(0, 5))) for _ in range(6)]
        whole = margin(*positions)
        halves = [
            half for p in positions for half in (p.model_copy(update={"quantity": p.quantity / 2}),) * 2
        ]
        split = margin(*[halves[i] for i in rng.permutation(len(halves))])
        assert split.maintenance == pytest.approx(whole.maintenance, rel=1e-12, abs=1e-9)
        assert whole.initial_requirement >= whole.maintenance_requirement - 1e-9
        more = margin(*positions, token("WETH", 1))
        assert more.maintenance == pytest.approx(whole.maintenance + 2_000 * 0.83, rel=1e-12, abs=1e-6)
        double = margin(*(p.model_copy(update={"quantity": 2 * p.quantity}) for p in positions))
        assert double.components.get("health_factor") == whole.components.get("health_factor")


# ------------------------------------------------------------------------------------- beside the exact model


def random_case(rng: np.random.Generator, *, near: bool) -> tuple[MarginResult, int, float]:
    """Return a random account's margin, the contract's own health factor, and collateral over debt.

    `near` makes its debt such that the factor is within some 0.01 % of 1.
    """
    count = int(rng.integers(2, 8))
    decimals = [int(rng.choice((6, 8, 18))) for _ in range(count)]
    ltv = [int(rng.integers(0, 8_000)) for _ in range(count)]
    threshold = [int(rng.integers(max(v, 4_000), 9_500)) for v in ltv]
    prices = [int(10 ** rng.uniform(7, 12.5)) for _ in range(count)]
    state = market(
        *(
            reserve(
                i,
                f"T{i}",
                prices[i],
                replace(configuration(decimals[i]), ltv_bps=ltv[i], liquidation_threshold_bps=threshold[i]),
            )
            for i in range(count)
        )
    )

    def drawn(chosen: list[int]) -> dict[int, int]:
        # Worth about a thousand dollars to a million each.
        return {i: int(10 ** (rng.uniform(3, 6) + 8 + decimals[i]) / prices[i]) for i in chosen}

    held = drawn([i for i in range(count) if rng.random() < 0.6] or [0])
    owed = drawn([i for i in range(count) if rng.random() < 0.5] or [1])
    data = calculate_user_account_data(state, account(held, owed))
    if near:
        wanted = data.health_factor_wad / WAD * (1 + rng.uniform(-5e-4, 5e-4))
        owed = {i: int(raw * wanted) for i, raw in owed.items()}
        data = calculate_user_account_data(state, account(held, owed))
    parameters = LendingParameters(
        reserves={
            f"T{i}": Reserve(max_ltv=ltv[i] / 1e4, liquidation_threshold=threshold[i] / 1e4)
            for i in range(count)
        },
        cash_reserve="T0",
    )
    positions = tuple(
        token(f"T{i}", sign * raw / 10 ** decimals[i])
        for sign, amounts in ((1, held), (-1, owed))
        for i, raw in amounts.items()
    )
    assets = {f"T{i}": AssetPrice(price=price / 1e8) for i, price in enumerate(prices)}
    result = LendingPortfolio(parameters=parameters).margin(
        Portfolio(positions=positions), Market(assets=assets)
    )
    assert result.components["weighted_threshold"] == pytest.approx(
        data.current_liquidation_threshold_bps / 1e4, abs=1.001e-4
    )
    assert result.components["weighted_ltv"] == pytest.approx(data.ltv_bps / 1e4, abs=1.001e-4)
    assert result.components["collateral"] == pytest.approx(data.total_collateral_base / 1e8, rel=1e-9)
    assert result.components["debt"] == pytest.approx(data.total_debt_base / 1e8, rel=1e-9)
    return result, data.health_factor_wad, data.total_collateral_base / data.total_debt_base


def test_it_agrees_with_the_exact_model_on_random_books() -> None:
    """The contract cuts the weighted threshold to whole 0.01 %: its factor may be that much lower."""
    rng = np.random.default_rng(2_024)
    sides, furthest, doubtful = set(), 0.0, 0
    for number in range(2_000):
        result, exact_wad, leverage = random_case(rng, near=number % 2 == 1)
        ours, exact = result.components["health_factor"], exact_wad / WAD
        cut = 1e-4 * leverage
        assert exact <= ours * (1 + 1e-6)
        assert exact >= ours - cut - 1e-6 * ours
        furthest = max(furthest, (ours - exact) / cut)
        if abs(ours - 1) > cut + 1e-6:
            assert (result.maintenance < 0) == (exact_wad < WAD)
            sides.add(exact_wad < WAD)
        elif (result.maintenance < 0) != (exact_wad < WAD):
            doubtful += 1
            assert exact_wad < WAD, "where they part, the contract is the stricter"
    assert sides == {True, False}
    assert doubtful > 50, "the accounts that are near are near enough to part"
    assert 0.9 < furthest < 1.1, "the cut is reached: the bound is no wider than it must be"
