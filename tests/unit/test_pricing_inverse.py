"""Inverse contracts: what they pay in coin, by hand and against the dollar option."""

from __future__ import annotations

import math

import numpy as np
import pytest

from contracts_abi.errors import InputError
from simulation.pricing.black76 import black76
from simulation.pricing.inverse import (
    linear_profit,
    linear_profit_dollars,
    option_coin,
    option_dollars,
    shock_profit_coin,
)


def test_the_risk_row_of_an_inverse_future() -> None:
    # One coin long: -20 % costs a quarter of a coin, +25 % brings a fifth, twice the price brings a half.
    shocks = np.array([-0.2, 0.0, 0.25, 1.0])
    np.testing.assert_allclose(shock_profit_coin(1.0, shocks), [-0.25, 0.0, 0.2, 0.5], rtol=1e-15)
    np.testing.assert_allclose(shock_profit_coin(-3.0, shocks), [0.75, 0.0, -0.6, -1.5], rtol=1e-15)
    np.testing.assert_allclose(shock_profit_coin(2.0, shocks), 2.0 * (1 - 1 / (1 + shocks)), atol=1e-15)
    # The textbook form would keep four digits of this one.
    assert shock_profit_coin(1.0, 1e-12) == pytest.approx(1e-12 - 1e-24, rel=1e-15)


def test_profit_in_coin_and_in_dollars() -> None:
    # 10,000 dollars long from 2,000 to 2,500: bought 5 coins' worth, owes 4.
    assert linear_profit(10_000.0, 2_000.0, 2_500.0) == pytest.approx(1.0, rel=1e-15)
    assert linear_profit_dollars(10_000.0, 2_000.0, 2_500.0) == pytest.approx(2_500.0, rel=1e-15)
    assert linear_profit(-10_000.0, 2_000.0, 1_000.0) == pytest.approx(5.0, rel=1e-15)
    # Size in coin and a shock say the same as notional and two prices.
    assert linear_profit(10_000.0, 2_000.0, 1_640.0) == pytest.approx(
        shock_profit_coin(5.0, -0.18), rel=1e-14
    )


def test_an_option_in_coin_is_the_dollar_option_over_the_forward() -> None:
    strikes = np.array([500.0, 1_500.0, 2_000.0, 2_600.0, 9_000.0])
    for call in (True, False):
        coin = option_coin(2_000.0, strikes, 0.7, 0.3, call=call)
        np.testing.assert_allclose(coin, black76(2_000.0, strikes, 0.7, 0.3, call=call) / 2_000.0, atol=1e-15)
    assert option_coin(2_000.0, 1e-9, 0.7, 0.3) <= 1.0
    assert option_coin(2_000.0, 9_000.0, 0.7, 0.0, call=False) == pytest.approx(3.5, rel=1e-15)


def test_dollars_today_agree_with_black_76_where_forward_and_rates_agree() -> None:
    spot, years, dollar, coin = 2_000.0, 0.5, math.exp(-0.05 * 0.5), math.exp(-0.02 * 0.5)
    forward = spot * coin / dollar
    for call in (True, False):
        got = option_dollars(spot, forward, 2_200.0, 0.6, years, coin, call)
        assert got == pytest.approx(black76(forward, 2_200.0, 0.6, years, dollar, call), rel=1e-14)


def test_a_price_of_zero_has_no_value_in_coin() -> None:
    with pytest.raises(InputError, match=r"price_after 0\.0 is not above zero; .*keep shocks above -1"):
        shock_profit_coin(1.0, np.array([-0.5, -1.0]))
    with pytest.raises(InputError, match=r"price 0\.0 is not above zero"):
        linear_profit(1.0, 2_000.0, 0.0)
    with pytest.raises(InputError, match=r"entry -1\.0 is not above zero"):
        linear_profit_dollars(1.0, -1.0, 2_000.0)
    with pytest.raises(InputError, match=r"forward 0\.0 is not above zero"):
        option_coin(0.0, 2_000.0, 0.5, 0.1)
    with pytest.raises(InputError, match=r"spot 0\.0 is not above zero"):
        option_dollars(0.0, 2_000.0, 2_000.0, 0.5, 0.1)


def test_a_missing_number_stays_missing() -> None:
    assert math.isnan(shock_profit_coin(1.0, math.nan))
    assert math.isnan(linear_profit(10.0, 2_000.0, math.nan))
    assert math.isnan(option_coin(math.nan, 2_000.0, 0.5, 0.1))
    assert math.isnan(option_dollars(math.nan, 2_000.0, 2_000.0, 0.5, 0.1))
