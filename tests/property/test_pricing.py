"""What no price may break: bounds, parity, monotony, and agreement between two ways to the same number."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from simulation.portfolio.instruments import Barrier
from simulation.portfolio.market import Svi
from simulation.pricing.barrier import value_under
from simulation.pricing.black76 import black76, black76_scalar, implied_volatility
from simulation.pricing.black_scholes import black_scholes
from simulation.pricing.greeks import black76_greeks
from simulation.pricing.inverse import (
    linear_profit,
    linear_profit_dollars,
    option_coin,
    shock_profit_coin,
)
from simulation.pricing.surface import Sticky, Surface
from simulation.pricing.svi import (
    butterfly,
    fit_slice,
    total_variance,
    venue_total_variance,
    volatility,
)

prices = st.floats(1e-3, 1e6)
volatilities = st.floats(0.0, 8.0)
times = st.floats(0.0, 5.0)
discounts = st.floats(0.2, 1.2)
shocks = st.floats(-0.95, 5.0)


@st.composite
def slices(draw: st.DrawFn) -> Svi:
    """A slice whose total variance is above zero everywhere; it may leave a butterfly arbitrage."""
    b, rho = draw(st.floats(0.005, 0.9)), draw(st.floats(-0.95, 0.95))
    sigma = draw(st.floats(0.02, 0.8))
    least = draw(st.floats(0.001, 0.5))
    a = least - b * sigma * math.sqrt(1 - rho * rho)
    m = draw(st.floats(-0.5, 0.5))
    return Svi(a=a, b=b, rho=rho, m=m, sigma=sigma, forward=draw(st.floats(10.0, 1e5)), tau=0.4)


@settings(deadline=None)
@given(prices, prices, volatilities, times, discounts)
def test_a_price_is_within_its_bounds_and_parity_holds(
    forward: float, strike: float, volatility: float, years: float, discount: float
) -> None:
    call = black76(forward, strike, volatility, years, discount)
    put = black76(forward, strike, volatility, years, discount, call=False)
    rounding = 1e-14 * max(forward, strike)
    assert max(forward - strike, 0.0) * discount - rounding <= call <= forward * discount
    assert max(strike - forward, 0.0) * discount - rounding <= put <= strike * discount
    assert abs(call - put - discount * (forward - strike)) <= rounding
    for kind, value in ((True, call), (False, put)):
        assert abs(black76_scalar(forward, strike, volatility, years, discount, kind) - value) <= rounding


@settings(deadline=None)
@given(prices, prices, volatilities, volatilities, times, st.floats(0.5, 2.0))
def test_more_volatility_is_never_worth_less_and_scale_is_only_scale(
    forward: float, strike: float, one: float, other: float, years: float, factor: float
) -> None:
    low, high = sorted((one, other))
    rounding = 1e-14 * max(forward, strike)
    for call in (True, False):
        value = black76(forward, strike, low, years, call=call)
        assert value <= black76(forward, strike, high, years, call=call) + rounding
        scaled = black76(factor * forward, factor * strike, low, years, call=call)
        assert abs(scaled - factor * value) <= 8 * rounding


@settings(deadline=None)
@given(prices, st.floats(0.05, 3.0), st.floats(0.01, 3.0), st.floats(-3.0, 3.0), discounts, st.booleans())
def test_implied_volatility_gives_the_price_back(
    forward: float, level: float, years: float, deviations: float, discount: float, call: bool
) -> None:
    v = level * math.sqrt(years)
    assume(v < 6.0)
    strike = forward * math.exp(deviations * v)
    value = black76(forward, strike, level, years, discount, call)
    found = implied_volatility(forward, strike, value, years, discount, call)
    again = black76(forward, strike, found, years, discount, call)
    assert abs(again - value) <= 1e-13 * max(forward, strike)


@settings(deadline=None)
@given(prices, st.floats(0.1, 3.0), st.floats(0.02, 2.0), st.floats(-3.0, 3.0), st.floats(-0.1, 0.3))
def test_greeks_predict_a_small_move(
    forward: float, level: float, years: float, deviations: float, rate: float
) -> None:
    v = level * math.sqrt(years)
    strike = forward * math.exp(deviations * v)
    greeks = black76_greeks(forward, strike, level, years, rate)
    step = 1e-3 * v * forward
    moved = black76_greeks(forward + step, strike, level, years, rate)
    third = greeks.delta * step + greeks.gamma * step**2 / 2 + greeks.speed * step**3 / 6
    size = black76(forward, forward, level, years)
    assert abs(moved.value - greeks.value - third) <= 1e-9 * size + 1e-13 * max(forward, strike)
    assert abs(moved.delta - greeks.delta - greeks.gamma * step - greeks.speed * step**2 / 2) <= 1e-8


@settings(deadline=None)
@given(prices, prices, shocks, volatilities, times)
def test_inverse_contracts_say_the_same_in_coin_and_in_dollars(
    price: float, strike: float, shock: float, level: float, years: float
) -> None:
    after = price * (1 + shock)
    coins = shock_profit_coin(2.0, shock)
    assert math.isclose(linear_profit(2.0 * price, price, after), coins, rel_tol=1e-9, abs_tol=1e-12)
    dollars = linear_profit_dollars(2.0 * price, price, after)
    assert math.isclose(dollars, coins * after, rel_tol=1e-9, abs_tol=1e-9 * price)
    coin = option_coin(price, strike, level, years)
    assert 0.0 <= coin <= 1.0
    assert abs(coin * price - black76(price, strike, level, years)) <= 1e-14 * max(price, strike)


@settings(deadline=None)
@given(
    st.floats(500.0, 5_000.0),
    st.floats(500.0, 5_000.0),
    st.floats(500.0, 5_000.0),
    st.floats(0.05, 2.0),
    st.floats(0.0, 2.0),
    st.floats(-0.1, 0.2),
    st.booleans(),
)
def test_a_knock_out_is_never_worth_more_than_the_plain_option(
    spot: float, strike: float, barrier: float, level: float, years: float, rate: float, call: bool
) -> None:
    option = Barrier(underlying="ETH", expiry=0, strike=strike, call=call, barrier=barrier)
    value = value_under(option, spot, level, years, rate)
    plain = black_scholes(spot, strike, level, years, rate, call=call)
    assert 0.0 <= value <= plain + 1e-8
    # A barrier further away knocks out less.
    further = option.model_copy(update={"barrier": barrier * (0.9 if spot > barrier else 1.1)})
    assert value <= value_under(further, spot, level, years, rate) + 1e-8
    # From one path's jump beyond the barrier there is no way back.
    assert (
        value_under(option, barrier * (0.9 if spot > barrier else 1.1), level, years, rate, reference=spot)
        == 0
    )


@settings(deadline=None)
@given(slices(), st.floats(-3.0, 3.0), st.floats(-3.0, 3.0))
def test_total_variance_is_convex_and_the_venue_only_clamps(svi: Svi, one: float, other: float) -> None:
    middle = total_variance(svi, (one + other) / 2)
    assert middle <= (total_variance(svi, one) + total_variance(svi, other)) / 2 + 1e-12
    bound = 4 * math.sqrt(svi.a + svi.b * svi.sigma)
    for k in (one, other):
        inside = max(-bound, min(bound, k))
        assert venue_total_variance(svi, k) == min(total_variance(svi, inside), 144.0)


@settings(max_examples=40, deadline=None)
@given(slices())
def test_the_verdict_on_butterflies_is_that_of_prices(svi: Svi) -> None:
    found = butterfly(svi)
    assume(abs(found.least) > 1e-3)
    assume(found.wing < 1.99)
    k = np.linspace(-4.0, 4.0, 4_001)
    if not found.free:
        # Zoom in on the place; far out the prices have no digits left to show it.
        assume(abs(found.at) < 4.0)
        w = float(total_variance(svi, found.at))
        d2 = -found.at / math.sqrt(w) - math.sqrt(w) / 2
        assume(abs(d2) < 4.0)
        k = found.at + np.linspace(-1e-3, 1e-3, 3)
    strikes = svi.forward * np.exp(k)
    values = black76(svi.forward, strikes, volatility(svi, strikes), svi.tau)
    slopes = np.diff(values) / np.diff(strikes)
    if found.free:
        assert (np.diff(slopes) >= -1e-9).all()
    else:
        assert slopes[1] < slopes[0]


@settings(max_examples=40, deadline=None)
@given(slices(), st.integers(8, 40))
def test_a_fit_comes_back_to_the_points_of_a_slice(svi: Svi, count: int) -> None:
    k = svi.m + np.linspace(-1.2, 1.2, count)
    fit = fit_slice(k, total_variance(svi, k), arbitrage_free=False)
    assert fit.rms <= 1e-5


@settings(deadline=None)
@given(slices(), slices(), st.floats(0.01, 1.5), st.floats(-1.0, 1.0), shocks)
def test_a_surface_lies_between_its_slices_and_sticky_delta_moves_with_the_forward(
    near: Svi, far: Svi, years: float, k: float, shock: float
) -> None:
    surface = Surface((near, far.model_copy(update={"tau": 0.9})))
    strike = surface.forward(years) * math.exp(k)
    here = surface.volatility(strike, years)
    ends = [surface.volatility(surface.forward(tau) * math.exp(k), tau) ** 2 * tau for tau in (0.4, 0.9)]
    if 0.4 <= years <= 0.9:
        assert min(ends) - 1e-12 <= here**2 * years <= max(ends) + 1e-12
    moved = surface.volatility(strike * (1 + shock), years, shock, Sticky.DELTA)
    assert math.isclose(moved, here, rel_tol=1e-9)
    assert surface.volatility(strike, years, shock, Sticky.STRIKE) == here
