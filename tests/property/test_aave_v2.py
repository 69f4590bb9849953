"""What holds of the Aave V2 model in every state, and what the float screen says of it."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from simulation.fixed_point import BPS, RAY, WAD, percent_mul
from simulation.protocols.aave_v2 import (
    ROUNDING,
    AaveV2,
    AaveV2Account,
    AaveV2Market,
    AaveV2Position,
    AaveV2Reserve,
    InterestRateStrategy,
    calculate_interest_rates,
    calculate_user_account_data,
    liquidation_quote,
)
from simulation.protocols.aave_v2.math_utils import calculate_compounded_interest
from simulation.protocols.aave_v2.reserve_logic import (
    a_token_balance,
    stable_debt_balance,
    variable_debt_balance,
)
from simulation.protocols.aave_v3.configuration import set_borrowing, set_using_as_collateral
from simulation.screen import ScreenStatus, build_screen
from simulation.types import Asset, MarginStatus
from tests.aave_states import NOW, address, configuration

relaxed = settings(deadline=None)
many = settings(deadline=None, max_examples=300)

YEAR = 31_536_000
DECIMALS = (18, 6, 8)
indices = st.integers(RAY, 4 * RAY)
rates = st.integers(1, RAY)


@st.composite
def markets(draw: st.DrawFn) -> AaveV2Market:
    """Draw three reserves some time after their last update."""
    reserves = []
    for i, decimals in enumerate(DECIMALS):
        config = configuration(
            decimals,
            ltv_bps=draw(st.integers(0, 7_000)),
            liquidation_threshold_bps=draw(st.integers(7_000, 9_000)),
            liquidation_bonus_bps=draw(st.integers(10_000, 12_000)),
            liquidation_protocol_fee_bps=0,
        )
        reserves.append(
            AaveV2Reserve(
                asset=Asset("ABC"[i], address(i), decimals),
                id=i,
                configuration=config,
                liquidity_index_ray=draw(indices),
                variable_borrow_index_ray=draw(indices),
                current_liquidity_rate_ray=draw(rates),
                current_variable_borrow_rate_ray=draw(rates),
                last_update_timestamp=NOW,
                scaled_variable_debt_raw=10**30,
                available_liquidity_raw=10**40,
                price_wei=draw(st.integers(10**12, 10**22)),
            )
        )
    return AaveV2Market(NOW + draw(st.integers(0, YEAR)), tuple(reserves))


@st.composite
def accounts(draw: st.DrawFn) -> AaveV2Account:
    """Draw an account with up to three collaterals and debts at both rates."""
    collateral = draw(st.dictionaries(st.integers(0, 2), st.integers(1, 10**24), max_size=3))
    debt = draw(st.dictionaries(st.integers(0, 2), st.integers(1, 10**24), max_size=3))
    word, positions = 0, []
    for i in range(3):
        word = set_using_as_collateral(word, i, i in collateral)
        word = set_borrowing(word, i, i in debt)
        stable = draw(st.integers(0, 10**22)) if i in debt else 0
        rate = draw(rates) if stable else 0
        position = AaveV2Position(i, collateral.get(i, 0), debt.get(i, 0), stable, rate, NOW)
        positions.append(position)
    return AaveV2Account("somebody", word, tuple(positions))


def owed(market: AaveV2Market, account: AaveV2Account, i: int) -> int:
    """Return the debt at both rates."""
    position = account.position(i)
    variable = variable_debt_balance(market.reserves[i], position, market.timestamp)
    return variable + stable_debt_balance(position, market.timestamp)


@many
@given(markets(), accounts(), st.integers(0, 2), st.integers(0, 2), st.integers(1, 10**25), st.booleans())
def test_a_liquidation_moves_what_it_says_and_no_more_than_half(
    market: AaveV2Market,
    account: AaveV2Account,
    collateral: int,
    debt: int,
    cover_raw: int,
    receive_a_token: bool,
) -> None:
    quote = liquidation_quote(
        market, account, address(debt), address(collateral), cover_raw, receive_a_token=receive_a_token
    )
    if not quote.succeeds:
        assert quote.account_after == account
        assert (quote.debt_repaid_raw, quote.collateral_seized_raw) == (0, 0)
        return
    pledged, lent = market.reserves[collateral], market.reserves[debt]
    assert pledged.price_wei is not None
    assert lent.price_wei is not None
    before_raw, after_raw = owed(market, account, debt), owed(market, quote.account_after, debt)
    assert quote.debt_repaid_raw <= min(cover_raw, percent_mul(before_raw, 5_000))
    # Scaled balances round each way by half a unit of the index.
    assert (
        abs(before_raw - after_raw - quote.debt_repaid_raw) <= 1 + lent.variable_borrow_index_ray // RAY * 6
    )
    held_raw = a_token_balance(pledged, account.position(collateral), market.timestamp)
    assert quote.collateral_seized_raw <= held_raw
    assert quote.collateral_exhausted == (quote.collateral_seized_raw == held_raw)
    # The liquidator never gets more than the bonus on what is paid, up to a unit of each and its half.
    bonus = Fraction(pledged.configuration.liquidation_bonus_bps, BPS)
    paid = Fraction((quote.debt_repaid_raw + 2) * lent.price_wei, lent.configuration.unit)
    got = Fraction((quote.collateral_seized_raw - 1) * pledged.price_wei, pledged.configuration.unit)
    assert got <= paid * bonus


@relaxed
@given(markets(), accounts())
def test_status_follows_the_health_factor(market: AaveV2Market, account: AaveV2Account) -> None:
    data = calculate_user_account_data(market, account)
    status = AaveV2().status(market, account)
    if data.total_debt_wei == 0:
        assert status is MarginStatus.NO_DEBT
    else:
        assert (status is MarginStatus.LIQUIDATABLE) == (data.health_factor_wad < WAD)


@many
@given(markets(), accounts(), st.floats(-1e-3, 1e-3))
def test_the_screen_agrees_with_the_integers_wherever_it_decides(
    market: AaveV2Market, account: AaveV2Account, off: float
) -> None:
    # One debt's price is moved so that the health factor comes near one.
    data = calculate_user_account_data(market, account)
    assume(data.total_debt_wei > 0 and data.total_collateral_wei > 0)
    scale = data.health_factor_wad / WAD * (1 + off)
    assume(1e-9 < scale < 1e9)
    prices = {}
    for reserve in market.reserves:
        assert reserve.price_wei is not None
        held, lent = (
            (account.user_configuration >> (2 * reserve.id + 1)) & 1,
            owed(market, account, reserve.id),
        )
        prices[reserve.asset.symbol] = (
            max(1, int(reserve.price_wei * scale)) if lent and not held else reserve.price_wei
        )
    market = market.with_prices(prices)
    book = AaveV2().columns(market, [account, None])
    price = np.array([prices[asset.symbol] / WAD for asset in book.assets])
    _, screened = build_screen(book, ROUNDING).run(price).by_row()
    exact = AaveV2().status(market, account)
    said = ScreenStatus(screened[0])
    if said in (ScreenStatus.HEALTHY, ScreenStatus.LIQUIDATABLE):
        assert said.name.lower() == exact.value
    else:
        assert said in (ScreenStatus.NEAR, ScreenStatus.NO_DEBT)
        near = calculate_user_account_data(market, account)
        if said is ScreenStatus.NEAR and near.total_debt_wei > 10**12:
            # A whole basis point of the threshold and a little.
            assert abs(near.health_factor_wad - WAD) < 2 * WAD // 1_000
    assert ScreenStatus(screened[1]) in (ScreenStatus.UNKNOWN, ScreenStatus.NO_DEBT)
    assert not book.known[1]


@relaxed
@given(st.integers(0, RAY), st.integers(0, YEAR), st.integers(0, YEAR))
def test_interest_never_falls_and_is_near_the_exponential(rate_ray: int, first_s: int, more_s: int) -> None:
    growth = calculate_compounded_interest(rate_ray, first_s)
    assert growth <= calculate_compounded_interest(rate_ray, first_s + more_s)
    exact = np.exp(rate_ray / RAY * first_s / YEAR)
    # The expansion stops at the third power: at one a year the rest is e - 2.6667 at most.
    assert growth / RAY <= exact * (1 + 1e-9)
    assert growth / RAY >= exact - 0.0517


@relaxed
@given(
    st.integers(1, RAY - 1),
    st.tuples(rates, rates, rates),
    st.integers(0, 10**30),
    st.integers(0, 10**30),
    st.integers(0, 10_000),
)
def test_lenders_earn_no_more_than_borrowers_pay(
    optimal_ray: int, slopes: tuple[int, int, int], available_raw: int, debt_raw: int, factor_bps: int
) -> None:
    found = calculate_interest_rates(
        InterestRateStrategy(optimal_ray, *slopes),
        available_liquidity_raw=available_raw,
        total_stable_debt_raw=0,
        total_variable_debt_raw=debt_raw,
        reserve_factor_bps=factor_bps,
    )
    assert slopes[0] <= found.variable_borrow_ray <= sum(slopes) + 2
    paid = found.variable_borrow_ray * debt_raw
    earned = found.liquidity_ray * (available_raw + debt_raw)
    # Utilisation, its product with the rate and the share are each rounded half up; the mean rate of all debt
    # is worked out from the yearly interest in billionths of a raw unit.
    mean_ray = RAY // (debt_raw * 10**9) if debt_raw else 0
    slack = (available_raw + debt_raw) * (4 + found.variable_borrow_ray // RAY + mean_ray)
    assert earned <= paid * (BPS - factor_bps) // BPS + slack
