"""Derive's margins in integers, by hand; who decides; and the venue's own cases to the last digits."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from contracts_abi.errors import InputError
from simulation.fixed_point import WAD
from simulation.margin import derive_pmrm2, derive_srm, fixed_math
from simulation.margin.derive_exact import (
    Decision,
    black76,
    decide,
    decision_width,
    exact_margin,
    float_error,
    gross_notional,
    in_dollars,
    on_chain,
    svi_volatility,
    years_of,
)
from simulation.margin.derive_pmrm import DerivePmrm
from simulation.margin.derive_pmrm2 import Collateral, DerivePmrm2, DerivePmrm21
from simulation.margin.derive_srm import Base, DeriveSrm
from simulation.margin.fixed_math import div, mul, normal_cdf, quotient, wad
from simulation.margin.vectors import MarginCase, cases_of
from simulation.portfolio.instruments import Barrier, Option, Perpetual, Portfolio, Position, Spot
from simulation.portfolio.market import AssetPrice, Expiry, Market, Svi, Underlying

ROOT = Path(__file__).resolve().parents[2]
VECTORS = ROOT.parent / "shared" / "vectors"
needs_vectors = pytest.mark.skipif(
    not VECTORS.is_dir(), reason="the venue's vectors are not part of the project: no ../shared/vectors"
)
DAY = 86_400
NEAR = 7 * DAY

TOKENS = {
    "ETH": Collateral(mm_haircut=0.1, im_haircut=0.05, risk_cancelling=True),
    "STK": Collateral(mm_haircut=0.2, im_haircut=0.1),
}
PMRM2 = DerivePmrm2(parameters=derive_pmrm2.TEST.model_copy(update={"collaterals": TOKENS}))
SRM = DeriveSrm(parameters=derive_srm.TEST)


def market(*, stable: float = 1.0, **changes: Any) -> Market:
    """Return ether at 2,000 with one expiry; changes go to the underlying."""
    fields: dict[str, Any] = {
        "spot": 2_000.0,
        "perpetual": 2_010.0,
        "expiries": {NEAR: Expiry(forward=2_005.0, rate=0.04, volatility=0.6)},
    }
    return Market(
        underlyings={"ETH": Underlying(**fields | changes)},
        assets={"STK": AssetPrice(price=2_100.0)},
        stable_price=stable,
    )


def option(strike: float, amount: float, *, call: bool = True, **more: Any) -> Position:
    held = Option(underlying="ETH", expiry=NEAR, strike=strike, call=call)
    return Position(instrument=held, quantity=amount, **more)


def perpetual(amount: float, unrealised: float = 0.0) -> Position:
    return Position(instrument=Perpetual(underlying="ETH"), quantity=amount, unrealised=unrealised)


def token(symbol: str, amount: float) -> Position:
    return Position(instrument=Spot(asset=symbol), quantity=amount)


def account(*positions: Position, cash: float = 0.0) -> Portfolio:
    return Portfolio(cash=cash, positions=positions)


# ------------------------------------------------------------------------------------------------ conversion


@pytest.mark.parametrize(
    ("value", "units"),
    [
        (0.1, 10**17),
        (-2.5, -25 * 10**17),
        (1e-18, 1),
        (123_456.789, 123_456_789 * 10**15),
        (0.0, 0),
        (3, 3 * WAD),
    ],
)
def test_a_float_counts_by_its_decimal_text(value: float, units: int) -> None:
    assert wad(value, "it") == units


@pytest.mark.parametrize("value", [1e-19, 0.0027397260273972603, 1 / 365])
def test_what_no_contract_holds_is_refused(value: float) -> None:
    with pytest.raises(InputError, match=r"rate .* has more than 18 decimals"):
        wad(value, "rate")
    near = fixed_math.on_chain(value)
    assert abs(near - value) <= 5.1e-19
    assert wad(near, "rate") == round(Decimal(repr(value)) * WAD)


def test_numbers_that_are_none_or_too_large_are_refused() -> None:
    with pytest.raises(InputError, match="rate is nan"):
        wad(math.nan, "rate")
    with pytest.raises(InputError, match="127 bits"):
        wad(1.8e20, "rate")
    assert math.isnan(fixed_math.on_chain(math.nan))


def test_a_whole_market_is_cut_to_what_a_chain_holds() -> None:
    surface = Svi(a=1 / 700, b=0.1, rho=-0.2, m=0.0, sigma=0.3, forward=2_000.0, tau=1 / 365)
    before = market(expiries={NEAR: Expiry(forward=2_005.0, surface=surface)})
    held = account(option(2_000, -1), cash=1 / 3)
    with pytest.raises(InputError, match=r"a of the surface .* 18 decimals"):
        exact_margin(held, before, PMRM2)
    after = on_chain(before)
    assert exact_margin(held, after, PMRM2).maintenance < 0
    assert on_chain(after) == after
    assert on_chain(held) == held
    assert on_chain(PMRM2.parameters) == PMRM2.parameters


# ------------------------------------------------------------------------------------------------ arithmetic


def test_products_and_quotients_are_cut_toward_zero() -> None:
    assert (mul(3, WAD // 2), mul(-3, WAD // 2), mul(-3, -WAD // 2)) == (1, -1, 1)
    assert (div(2 * WAD, 3 * WAD), div(-2 * WAD, 3 * WAD)) == (
        666_666_666_666_666_666,
        -666_666_666_666_666_666,
    )
    assert (quotient(7, -2), quotient(-7, -2), quotient(0, 5)) == (-3, 3, 0)
    with pytest.raises(InputError, match="divides by zero"):
        div(1, 0)


def test_functions_at_points_that_are_known() -> None:
    assert fixed_math.ln(WAD) == 0
    assert fixed_math.ln(2 * WAD) == 693_147_180_559_945_309
    assert fixed_math.ln(WAD // 2) == -693_147_180_559_945_310  # rounded down, away from zero
    assert fixed_math.exp(0) == WAD
    assert fixed_math.exp(WAD) == 2_718_281_828_459_045_235
    assert fixed_math.exp(-WAD) == 367_879_441_171_442_321
    assert fixed_math.exp(-43 * WAD) == 0
    assert fixed_math.sqrt(2 * WAD) == 1_414_213_562_373_095_048
    assert fixed_math.power(4 * WAD, WAD // 2) == 1_999_999_999_999_999_999  # two floors on the way
    assert abs(normal_cdf(0) - WAD // 2) <= 60
    assert (normal_cdf(38 * WAD), normal_cdf(-38 * WAD)) == (WAD, 0)
    assert years_of(365 * DAY) == WAD
    assert years_of(1) == 31_709_791_983


def test_where_the_contract_reverts_there_is_no_number() -> None:
    for x in (0, -1):
        with pytest.raises(InputError, match="logarithm"):
            fixed_math.ln(x)
    with pytest.raises(InputError, match="overflows"):
        fixed_math.exp(136 * WAD)


# --------------------------------------------------------------------------------------------------- pricing


def test_an_option_at_its_ends() -> None:
    """No time: its payoff. No strike, no forward, or a volatility beyond all: what the reference says."""
    price = {"volatility": WAD, "seconds": 0, "discount": WAD}
    assert black76(120 * WAD, 100 * WAD, call=True, **price) == pytest.approx(20 * WAD, abs=400)
    assert black76(120 * WAD, 100 * WAD, call=False, **price) == pytest.approx(0, abs=400)
    assert black76(80 * WAD, 100 * WAD, call=False, **price) == 20 * WAD
    half = price | {"discount": WAD // 2}
    assert black76(80 * WAD, 0, call=True, **half) == 40 * WAD
    assert black76(80 * WAD, 0, call=False, **half) == 0
    assert black76(0, 100 * WAD, call=True, **half) == 0
    assert black76(0, 100 * WAD, call=False, **half) == 50 * WAD
    wild = {"volatility": 24 * WAD, "seconds": 365 * DAY, "discount": WAD}
    assert black76(80 * WAD, 100 * WAD, call=True, **wild) == 80 * WAD
    assert black76(80 * WAD, 100 * WAD, call=False, **wild) == 100 * WAD


def test_a_flat_surface_gives_its_volatility() -> None:
    """a = 0.09 over a quarter of a year: 60 %."""
    flat = Svi(a=0.09, b=0.0, rho=0.0, m=0.0, sigma=0.1, forward=2_000.0, tau=0.25)
    assert svi_volatility(flat, 2_500 * WAD) == 6 * WAD // 10
    below = flat.model_copy(update={"a": -0.01})
    with pytest.raises(InputError, match="variance"):
        svi_volatility(below, 2_500 * WAD)


# ------------------------------------------------------------------------------------------------- by hand


def test_a_perpetual_by_hand() -> None:
    """-15 % of 2 * 2,010 is 603; 0.8 of it, and 1 % of 4,000 at the index price."""
    result = exact_margin(account(perpetual(2, unrealised=7), cash=1_000), market(), PMRM2)
    assert result.equity == 1_007 * WAD
    assert result.maintenance == (1_007 - 40) * WAD - 4_824 * WAD // 10
    assert result.initial == (1_007 - 80 - 603) * WAD
    assert min(result.scenarios) == -603 * WAD


def test_every_product_is_cut_off_where_the_contract_cuts() -> None:
    """Parts of a unit are lost four times: on price move, profit, notional and its share."""
    result = exact_margin(account(perpetual(3e-18)), market(spot=0.5, perpetual=0.5), PMRM2)
    # 3 * 0.5 = 1.5 -> 1; 1 % of 1 -> 0; worst profit 3 * (-0.15 * 0.5) = -0.225 -> 0.
    assert result.maintenance == 0
    big = exact_margin(account(perpetual(3e-17)), market(spot=0.5, perpetual=0.5), PMRM2)
    # 30 * -0.075 = -2.25 -> -2; 0.8 of that -1.6 -> -1; notional 15, 1 % of it -> 0.
    assert (min(big.scenarios), big.maintenance) == (-2, -1)


def test_the_price_moves_before_the_amount_counts() -> None:
    """7 units less 15 % is one less, a hundred times; 15 % of 700 would be 105."""
    result = exact_margin(account(perpetual(100)), market(spot=7e-18, perpetual=7e-18), PMRM2)
    assert min(result.scenarios) == -100
    assert result.maintenance == -80 - 7


def test_tokens_by_hand() -> None:
    """1 ether of 2,000 falls by 15 %, less 10 %; 2 staked of 2,100 never move, less 20 %."""
    result = exact_margin(account(token("ETH", 1), token("STK", 2)), market(), PMRM2)
    assert result.equity == 6_200 * WAD
    assert result.maintenance == (6_200 - 240 - 200 - 840) * WAD
    assert result.initial == (6_200 - 300 - 200 - 840 - 100 - 420) * WAD


def test_short_options_of_the_standard_manager_by_hand() -> None:
    """Far out of the money a call needs 7.5 % of the index price, and 10 % for initial margin."""
    result = exact_margin(account(option(20_000, -2), cash=1_000), market(), SRM)
    assert result.maintenance == pytest.approx(700 * WAD, abs=10**6)
    assert result.initial == pytest.approx(600 * WAD, abs=10**6)
    # A spread's loss is at most 100 a unit, whatever each leg would need.
    spread = exact_margin(account(option(2_000, -1), option(2_100, 1), cash=100), market(), SRM)
    assert (spread.maintenance, spread.initial) == (0, 0)


def test_a_perpetual_and_a_token_of_the_standard_manager_by_hand() -> None:
    held = account(perpetual(-2, 5), token("ETH", 1), cash=10)
    result = exact_margin(held, market(stable=0.96), SRM)
    assert result.maintenance == (10 + 5 + 1_600) * WAD - 2_613 * WAD // 10
    # 10 % of 4,020; below the peg by 0.02, times 1.2, of 2 * 2,000.
    assert result.initial == (10 + 5 + 1_600 - 402 - 96) * WAD
    assert result.equity == 15 * WAD + 2_000 * WAD * 100 // 96


def test_a_doubted_token_that_counts_for_nothing_costs_nothing() -> None:
    """The contract returns before it looks at the confidence."""
    nothing = derive_srm.TEST.model_copy(update={"bases": {"ETH": Base(margin_factor=0.0, im_scale=1.0)}})
    held = exact_margin(account(token("ETH", 1)), market(confidence=0.1), DeriveSrm(parameters=nothing))
    assert (held.maintenance, held.initial) == (0, 0)
    result = DeriveSrm(parameters=nothing).margin(account(token("ETH", 1)), market(confidence=0.1))
    assert (result.maintenance, result.initial, result.components["oracle_contingency"]) == (0, 0, 0)


def test_an_override_holds_for_its_account() -> None:
    strict = PMRM2.parameters.model_copy(update={"mm_factor": 2.0})
    method = DerivePmrm21(parameters=PMRM2.parameters, overrides={"a": strict})
    held = account(perpetual(2), cash=1_000)
    plain = exact_margin(held, market(), method).maintenance
    other = exact_margin(held.model_copy(update={"account": "a"}), market(), method).maintenance
    assert plain - other == 6_030 * WAD * 12 // 100


def test_two_positions_of_one_option_count_together() -> None:
    halves = account(option(2_000, -0.5), option(2_000, -0.5), option(2_100, 1), option(2_100, -1), cash=7)
    for method in (PMRM2, SRM):
        whole = exact_margin(account(option(2_000, -1), cash=7), market(), method)
        assert exact_margin(halves, market(), method) == whole


def test_cash_alone() -> None:
    for method in (PMRM2, SRM):
        assert exact_margin(account(cash=-0.25), Market(), method).maintenance == -WAD // 4


# ------------------------------------------------------------------------------------------------ who decides


@pytest.mark.parametrize(("cash", "liquidatable"), [(523, False), (521, True)])
def test_far_from_the_edge_the_float_decides(cash: float, liquidatable: bool) -> None:
    """The perpetual needs 522.4; one dollar away is far."""
    found = decide(account(perpetual(2), cash=cash), market(), PMRM2)
    assert (found.liquidatable, found.decided_by, found.mm_wad) == (liquidatable, "float", None)


@pytest.mark.parametrize(("cash", "left"), [(522.4, 0), (522.4 + 1e-12, 10**6), (522.4 - 1e-12, -(10**6))])
def test_at_the_edge_integers_decide(cash: float, left: int) -> None:
    """Nothing left is not liquidatable, one part in 1e15 less is."""
    found = decide(account(perpetual(2), cash=cash), market(), PMRM2)
    assert found.decided_by == "integers"
    assert found.mm_wad == pytest.approx(left, abs=2 * 10**5)
    assert found.mm_wad == wad(cash, "cash") - 5_224 * WAD // 10
    assert found.liquidatable == (found.mm_wad < 0)


def test_a_float_that_has_the_wrong_sign_is_overruled() -> None:
    """0.3 less 0.1 and 0.2 is nothing, and nothing is not below zero; a float says -5.6e-17."""
    held = account(perpetual(0.1, -0.1), perpetual(-0.1, -0.2), cash=0.3)
    found = decide(held, market(), PMRM2)
    assert found == Decision(False, "integers", found.mm_float, 0)
    assert found.mm_float < 0


def test_the_width_is_a_billionth_of_the_gross_notional() -> None:
    held = account(option(2_000, -3), option(2_200, 1), perpetual(-2), token("STK", 2), cash=1e3)
    assert gross_notional(held, market(), PMRM2) == 2_000 * 6 + 2 * 2_100
    assert decision_width(held, market(), PMRM2) == pytest.approx(1e-9 * 16_200)
    assert 0 < float_error(held, market(), PMRM2) < 1e-11 * 16_200


def test_the_width_grows_where_a_float_knows_less() -> None:
    """Ten billion in cash have their last digit at 2e-6."""
    rich = account(perpetual(1e-6), cash=1e10)
    assert decision_width(rich, market(), PMRM2) == float_error(rich, market(), PMRM2) > 1e-6


def test_a_skew_whose_sides_a_rounding_exchanges_is_left_to_integers() -> None:
    bent = derive_pmrm2.MAINNET.model_copy(
        update={"skew": derive_pmrm2.MAINNET.skew.model_copy(update={"linear_cap": -0.1})}
    )
    method = DerivePmrm2(parameters=bent)
    assert float_error(account(option(2_005, -1)), market(), method) == math.inf
    assert float_error(account(option(2_006, -1)), market(), method) < 1e-9
    assert decide(account(option(2_005, -1), cash=-1e6), market(), method).decided_by == "integers"


@pytest.mark.parametrize("method", [PMRM2, SRM], ids=lambda method: method.kind)
def test_what_cannot_be_decided_is_told(method: Any) -> None:
    with pytest.raises(InputError, match="unknown: no forward of ETH"):
        decide(account(option(2_000, 1)), market(expiries={}), method)
    with pytest.raises(InputError, match="unknown: no price of ETH"):
        exact_margin(account(perpetual(1)), Market(), method)
    barrier = Barrier(underlying="ETH", expiry=NEAR, strike=1.0, call=True, barrier=2.0)
    with pytest.raises(InputError, match="has no barrier"):
        decide(account(Position(instrument=barrier, quantity=1)), market(), method)
    with pytest.raises(InputError, match="expired"):
        decide(account(option(2_000, 1)), market().model_copy(update={"timestamp": NEAR + 1}), method)


def test_a_method_without_integers_is_refused() -> None:
    other: Any = DerivePmrm()
    for call in (decide, exact_margin):
        with pytest.raises(InputError, match=r"derive\.pmrm is not computed in integers"):
            call(account(cash=1), market(), other)


def test_parameters_that_no_contract_holds_are_refused() -> None:
    shock = derive_pmrm2.TEST.vol_shock.model_copy(update={"dte_floor_s": 0.5})
    method = DerivePmrm2(parameters=derive_pmrm2.TEST.model_copy(update={"vol_shock": shock}))
    with pytest.raises(InputError, match=r"dte_floor_s 0\.5 is not whole"):
        exact_margin(account(option(2_000, 1)), market(), method)


# ---------------------------------------------------------------------------------------- the venue's cases


def published(kind: str, pattern: str) -> Iterator[tuple[MarginCase, Any]]:
    """Yield the cases that can be computed, each with what the venue expects."""
    for file in sorted(VECTORS.glob(pattern)):
        value = json.loads(file.read_text(encoding="utf-8"))
        for case in cases_of(kind, file.stem, value):
            if isinstance(case, MarginCase):
                expected = value[case.name.split(":")[1]]["expected"] if ":" in case.name else value["Result"]
                yield case, expected


def apart(ours: int, theirs: object) -> tuple[float, float]:
    """Return absolute and relative difference in dollars, relative to a dollar at least."""
    difference = abs(ours - int(Decimal(str(theirs)) * WAD))
    return difference / WAD, difference / max(abs(ours), WAD)


@needs_vectors
def test_the_cases_of_pmrm_2() -> None:
    """The venue's tolerance is 1e-8 of a figure; integers are six orders inside, in 69 cases."""
    margins, rows = [], []
    for case, expected in published("derive.pmrm2", "pmrm_2/*.json"):
        assert isinstance(case.method, DerivePmrm2)
        ours = exact_margin(on_chain(case.portfolio), on_chain(case.market), case.method)
        margins += [apart(ours.initial, expected["IM"])[1], apart(ours.maintenance, expected["MM"])[1]]
        theirs = [row[-1] for kind in ("reg", "tail", "skew") for row in expected[f"{kind}_losses"]]
        rows += [apart(mine, row)[1] for mine, row in zip(ours.scenarios, theirs, strict=True)]
    assert len(margins) >= 2 * 60
    assert max(margins) < 1e-14
    assert max(rows) < 1e-11


@needs_vectors
def test_the_cases_of_the_standard_manager() -> None:
    margins = []
    for case, expected in published("derive.srm", "srm/exact.json"):
        assert isinstance(case.method, DeriveSrm)
        ours = exact_margin(case.portfolio, case.market, case.method)
        margins += [apart(ours.initial, expected["im"])[1], apart(ours.maintenance, expected["mm"])[1]]
    assert len(margins) >= 2 * 10
    assert max(margins) < 5e-14


@needs_vectors
def test_whole_dollars_need_no_help() -> None:
    """A float must add 1e-7 before it cuts off; integers cut off what the contract cuts off."""
    seen = 0
    for case, expected in published("derive.srm", "srm/whole_usd.json"):
        assert isinstance(case.method, DeriveSrm)
        ours = exact_margin(case.portfolio, case.market, case.method)
        assert quotient(ours.maintenance, WAD) == expected["mm"], case.name
        assert quotient(ours.initial, WAD) == expected["im"], case.name
        seen += 1
    assert seen >= 15


@needs_vectors
def test_floats_are_as_far_from_integers_as_their_bound_allows() -> None:
    for kind, pattern in (("derive.pmrm2", "pmrm_2/*.json"), ("derive.srm", "srm/*.json")):
        for case, _ in published(kind, pattern):
            held, at = on_chain(case.portfolio), on_chain(case.market)
            method: Any = case.method
            found = method.margin(held, at).maintenance
            exact = in_dollars(exact_margin(held, at, method).maintenance)
            assert abs(found - exact) <= float_error(held, at, method), case.name
