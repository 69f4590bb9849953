"""SVI slices: values by hand, arbitrage by definition, and fits that must find what made the points."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest

from contracts_abi.errors import InputError
from simulation.portfolio.market import Svi
from simulation.pricing.black76 import black76
from simulation.pricing.svi import (
    butterfly,
    calendar,
    durrleman,
    fit_slice,
    total_variance,
    venue_total_variance,
    venue_volatility,
    volatility,
)

SLICE = Svi(a=0.04, b=0.4, rho=-0.4, m=0.1, sigma=0.2, forward=2_000.0, tau=0.25)
# Axel Vogt's: looks like any other, and its density is negative around k = 0.88.
VOGT = Svi(a=-0.0410, b=0.1331, rho=0.3060, m=0.3586, sigma=0.4153, forward=1.0, tau=1.0)


def changed(svi: Svi, **numbers: float) -> Svi:
    return Svi(**(svi.model_dump() | numbers))


def test_values_by_hand() -> None:
    # At m the root is sigma: 0.04 + 0.4 * 0.2; at m + 0.15 it is 0.25, at m - 0.15 too.
    np.testing.assert_allclose(total_variance(SLICE, np.array([0.1, 0.25, -0.05])), [0.12, 0.116, 0.164])
    assert volatility(SLICE, 2_000.0 * math.exp(0.25)) == pytest.approx(math.sqrt(0.116 / 0.25), rel=1e-14)


def test_the_venue_clamps_and_caps() -> None:
    inside = np.array([-1.3, 0.0, 0.25, 1.38])
    np.testing.assert_array_equal(venue_total_variance(SLICE, inside), total_variance(SLICE, inside))
    bound = 4.0 * math.sqrt(0.12)  # 1.3856
    for k in (1.4, 3.0, math.inf):
        assert venue_total_variance(SLICE, k) == pytest.approx(total_variance(SLICE, bound), rel=1e-15)
        assert venue_total_variance(SLICE, -k) == pytest.approx(total_variance(SLICE, -bound), rel=1e-15)
    far = venue_volatility(SLICE, np.array([1.0, 2_000.0]))
    assert far[0] == pytest.approx(math.sqrt(total_variance(SLICE, -bound) / 0.25), rel=1e-15)
    assert far[1] == volatility(SLICE, 2_000.0)
    # sqrt(144 / 0.25) = 24, and no more.
    assert venue_volatility(changed(SLICE, a=150.0), 2_000.0) == 24.0
    assert total_variance(changed(SLICE, a=150.0), 0.0) > 144.0


def test_what_is_no_variance_is_refused() -> None:
    with pytest.raises(InputError, match=r"a \+ b \* sigma = .* below zero; .*raise a"):
        venue_total_variance(changed(SLICE, a=-0.09), 0.0)
    with pytest.raises(InputError, match="total variance of -"):
        venue_total_variance(changed(SLICE, a=-0.079), 0.15)
    with pytest.raises(InputError, match="total variance of -"):
        volatility(changed(SLICE, a=-0.2), np.array([500.0, 2_000.0]))
    with pytest.raises(InputError, match=r"strike 0\.0 is not above zero"):
        volatility(SLICE, 0.0)
    assert math.isnan(venue_volatility(SLICE, math.nan))


@pytest.mark.parametrize("svi", [SLICE, VOGT])
def test_durrlemans_function_has_the_sign_and_size_of_the_density(svi: Svi) -> None:
    def call(strike: mpmath.mpf) -> mpmath.mpf:
        x = mpmath.log(strike) - svi.m
        v = mpmath.sqrt(svi.a + svi.b * (svi.rho * x + mpmath.sqrt(x * x + mpmath.mpf(svi.sigma) ** 2)))
        d1 = -mpmath.log(strike) / v + v / 2
        return mpmath.ncdf(d1) - strike * mpmath.ncdf(d1 - v)

    for k in (-0.9, -0.2, 0.0, 0.3, 0.8792620352477456, 1.3):
        with mpmath.workdps(50):
            strike = mpmath.exp(mpmath.mpf(k))
            w = mpmath.mpf(float(total_variance(svi, k)))
            d2 = -mpmath.mpf(k) / mpmath.sqrt(w) - mpmath.sqrt(w) / 2
            density = strike * mpmath.diff(call, strike, 2)
            expected = float(density * mpmath.sqrt(2 * mpmath.pi * w) * mpmath.exp(d2 * d2 / 2))
        assert float(durrleman(svi, k)) == pytest.approx(expected, abs=1e-12)


def test_the_least_of_durrlemans_function_is_found() -> None:
    found = butterfly(VOGT)
    dense = np.linspace(-3.0, 3.0, 600_001)
    assert found.least == pytest.approx(float(durrleman(VOGT, dense).min()), abs=1e-10)
    assert found.at == pytest.approx(0.87926, abs=1e-4)
    assert not found.free
    assert butterfly(VOGT, -1.0, 0.5).free
    # And it is an arbitrage: this butterfly costs less than nothing.
    strikes = np.exp(found.at) * np.array([0.97, 1.0, 1.03])
    prices = black76(1.0, strikes, volatility(VOGT, strikes), 1.0)
    assert prices[0] - 2 * prices[1] + prices[2] < 0
    assert butterfly(SLICE).free


def test_wings_are_bounded() -> None:
    steep = changed(SLICE, b=1.5, rho=0.5)
    found = butterfly(steep)
    assert (found.wing, found.free) == (2.25, False)
    assert butterfly(changed(SLICE, b=1.0, rho=-1.0)).wing == 2.0
    # In a wing the function nears 1/4 - slope^2 / 16.
    assert float(durrleman(steep, 1e7)) == pytest.approx(0.25 - 2.25**2 / 16, abs=1e-6)
    assert butterfly(changed(SLICE, a=-0.2)).least == -math.inf


def test_calendar_arbitrage_is_found() -> None:
    later = changed(SLICE, a=0.05, tau=0.5)
    (gap,) = calendar([SLICE, later])
    assert gap.free
    assert gap.wings
    assert gap.least == pytest.approx(0.01, abs=1e-15)
    # More variance at the money, a flatter left wing: they cross on the left.
    flatter = changed(SLICE, a=0.12, rho=0.4, tau=0.5)
    (gap,) = calendar([SLICE, flatter])
    assert not gap.free
    assert not gap.wings
    assert gap.at == -2.0
    assert gap.least == pytest.approx(0.08 + 0.8 * 0.4 * -2.1, abs=1e-12)
    assert calendar([SLICE, flatter], -0.1, 0.5)[0].free
    with pytest.raises(InputError, match="sort slices by tau"):
        calendar([later, SLICE])


def test_a_fit_finds_the_slice_that_made_the_points() -> None:
    k = np.linspace(-0.8, 0.9, 18)
    fit = fit_slice(k, total_variance(SLICE, k), forward=2_000.0, tau=0.25)
    for name in ("a", "b", "rho", "m", "sigma"):
        assert getattr(fit.svi, name) == pytest.approx(getattr(SLICE, name), abs=1e-7)
    assert (fit.svi.forward, fit.svi.tau) == (2_000.0, 0.25)
    assert fit.rms < 1e-10
    assert not fit.penalised


def test_a_fit_gives_up_closeness_for_a_density_without_holes() -> None:
    k = np.linspace(-1.5, 1.5, 31)
    points = total_variance(VOGT, k)
    close = fit_slice(k, points, arbitrage_free=False)
    assert close.rms < 1e-9
    assert not close.butterfly.free
    free = fit_slice(k, points)
    assert free.butterfly.free
    assert free.penalised
    assert 1e-4 < free.rms < 4e-3
    np.testing.assert_allclose(free.residuals, total_variance(free.svi, k) - points, atol=1e-15)


def test_weights_say_which_points_count() -> None:
    k = np.linspace(-0.8, 0.9, 18)
    points = total_variance(SLICE, k)
    points[4] += 0.05
    weights = np.ones(18)
    weights[4] = 0.0
    fit = fit_slice(k, points, weights)
    assert fit.svi.sigma == pytest.approx(0.2, abs=1e-6)
    assert fit.residuals[4] == pytest.approx(-0.05, abs=1e-6)
    assert fit.rms < 1e-9
    assert fit_slice(k, points).rms > 1e-3


def test_too_few_or_bad_points_are_refused() -> None:
    k = np.array([-0.2, -0.1, 0.0, 0.1, 0.2, 0.2])
    with pytest.raises(InputError, match=r"5 strikes with a weight are too few .*give at least 6"):
        fit_slice(k, np.full(6, 0.1))
    k = np.linspace(-0.2, 0.3, 6)
    with pytest.raises(InputError, match="5 strikes"):
        fit_slice(k, np.full(6, 0.1), np.array([1.0, 1.0, 0.0, 1.0, 1.0, 1.0]))
    with pytest.raises(InputError, match="missing or infinite"):
        fit_slice(k, np.array([0.1, 0.1, math.nan, 0.1, 0.1, 0.1]))
    with pytest.raises(InputError, match="below zero"):
        fit_slice(k, np.array([0.1, 0.1, -0.1, 0.1, 0.1, 0.1]))
    with pytest.raises(InputError, match="equal lengths"):
        fit_slice(k, np.full(5, 0.1))
    # A flat smile is a slice.
    flat = fit_slice(k, np.full(6, 0.1))
    assert flat.rms < 1e-8
