"""A surface between its slices and under shocks, and its fit to a real book of options."""

from __future__ import annotations

import importlib.util
import math
import re
from pathlib import Path
from types import ModuleType
from typing import Final

import numpy as np
import pytest

from contracts_abi.errors import InputError
from simulation.portfolio.market import Svi
from simulation.pricing.black76 import black76
from simulation.pricing.greeks import black76_greeks
from simulation.pricing.surface import Quotes, Sticky, Surface, fit_expiry, fit_surface, points_of
from simulation.pricing.svi import butterfly, total_variance, volatility

ROOT = Path(__file__).resolve().parents[2]
NEAR = Svi(a=0.010, b=0.10, rho=-0.3, m=0.02, sigma=0.15, forward=2_000.0, tau=0.1)
FAR = Svi(a=0.080, b=0.20, rho=-0.2, m=0.00, sigma=0.30, forward=2_200.0, tau=0.5)
SURFACE = Surface((NEAR, FAR))

RMS: Final = {
    "9JAN24": 0.0090,
    "10JAN24": 0.0055,
    "11JAN24": 0.0060,
    "12JAN24": 0.0050,
    "19JAN24": 0.0030,
    "26JAN24": 0.0055,
    "23FEB24": 0.0060,
    "29MAR24": 0.0045,
    "28JUN24": 0.0040,
    "27SEP24": 0.0025,
    "27DEC24": 0.0035,
}
"""Weighted root mean square of the residuals of each expiry, in volatility: 0.01 is a point."""


def script() -> ModuleType:
    """Load scripts/calibrate_surface.py, which is in no package."""
    spec = importlib.util.spec_from_file_location(
        "calibrate_surface", ROOT / "scripts" / "calibrate_surface.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_at_an_expiry_it_is_the_slice() -> None:
    strikes = np.array([900.0, 2_000.0, 3_500.0])
    for svi in (NEAR, FAR):
        np.testing.assert_allclose(SURFACE.volatility(strikes, svi.tau), volatility(svi, strikes), rtol=1e-14)
        assert SURFACE.forward(svi.tau) == pytest.approx(svi.forward, rel=1e-15)


def test_between_expiries_total_variance_is_straight_in_time() -> None:
    years = 0.3  # the middle
    forward = math.sqrt(2_000.0 * 2_200.0)
    assert SURFACE.forward(years) == pytest.approx(forward, rel=1e-14)
    k = np.array([-0.5, 0.0, 0.4])
    middle = 0.5 * (total_variance(NEAR, k) + total_variance(FAR, k))
    got = SURFACE.volatility(forward * np.exp(k), years)
    np.testing.assert_allclose(got**2 * years, middle, rtol=1e-13)


def test_outside_the_expiries_the_volatility_stays() -> None:
    for years, svi in ((0.0, NEAR), (0.05, NEAR), (2.0, FAR)):
        assert SURFACE.volatility(1_700.0, years) == pytest.approx(volatility(svi, 1_700.0), rel=1e-14)
    assert Surface((NEAR,)).volatility(1_700.0, 0.7) == pytest.approx(volatility(NEAR, 1_700.0), rel=1e-14)


def test_sticky_strike_and_sticky_delta() -> None:
    strikes, shock = np.array([1_200.0, 2_000.0, 3_000.0]), -0.25
    before = SURFACE.volatility(strikes, 0.1)
    np.testing.assert_array_equal(SURFACE.volatility(strikes, 0.1, shock, Sticky.STRIKE), before)
    # Sticky delta: the smile moves with the forward, so the strike 25 % lower has the volatility now.
    moved = SURFACE.volatility(strikes * 0.75, 0.1, shock, Sticky.DELTA)
    np.testing.assert_allclose(moved, before, rtol=1e-14)
    deltas = [
        black76_greeks(forward, level, vol, 0.1).delta
        for forward, level, vol in ((2_000.0, strikes, before), (1_500.0, strikes * 0.75, moved))
    ]
    np.testing.assert_allclose(deltas[0], deltas[1], rtol=1e-12)
    # The two differ where the smile has a slope.
    assert np.abs(SURFACE.volatility(strikes, 0.1, shock, Sticky.DELTA) - before).max() > 0.01
    # Moving for good is the same as a shock.
    for_good = SURFACE.moved(shock, Sticky.DELTA)
    np.testing.assert_allclose(
        for_good.volatility(strikes, 0.3), SURFACE.volatility(strikes, 0.3, shock, Sticky.DELTA), rtol=1e-13
    )
    assert SURFACE.moved(shock, Sticky.STRIKE) is SURFACE


def test_values_under_a_grid_of_shocks() -> None:
    shocks = np.array([[-0.2], [0.0], [0.2]])
    strikes, years = np.array([1_500.0, 2_000.0, 2_500.0]), np.array([0.05, 0.1, 0.4])
    for rule in Sticky:
        grid = SURFACE.value(strikes, years, discount=0.98, shock=shocks, rule=rule)
        assert grid.shape == (3, 3)
        forward = SURFACE.forward(0.4) * 1.2
        vol = SURFACE.volatility(2_500.0, 0.4, 0.2, rule)
        assert grid[2, 2] == pytest.approx(black76(forward, 2_500.0, vol, 0.4, 0.98), rel=1e-13)


def test_bad_surfaces_and_missing_numbers() -> None:
    with pytest.raises(InputError, match="without slices"):
        Surface(())
    with pytest.raises(InputError, match=r"slice of 0\.1 years after 0\.5; sort slices"):
        Surface((FAR, NEAR))
    with pytest.raises(InputError, match="keep shocks above -1"):
        SURFACE.volatility(2_000.0, 0.1, -1.0)
    with pytest.raises(InputError, match=r"strike -5\.0 is not above zero"):
        SURFACE.volatility(-5.0, 0.1)
    for arguments in ((math.nan, 0.1, 0.0), (2_000.0, math.nan, 0.0), (2_000.0, 0.1, math.nan)):
        assert math.isnan(SURFACE.volatility(*arguments))


def synthetic(svi: Svi, spread: float = 0.0002) -> Quotes:
    """Return quotes of a slice at strikes from half to twice the forward, both kinds."""
    strike = np.repeat(svi.forward * np.linspace(0.5, 2.0, 31), 2)
    call = np.tile([True, False], 31)
    price = black76(1.0, strike / svi.forward, volatility(svi, strike), svi.tau, call=call)
    return Quotes("made", svi.forward, svi.tau, strike, call, price - spread, price + spread)


def test_quotes_are_chosen_out_of_the_money_and_on_both_sides() -> None:
    quotes = synthetic(FAR)
    quotes.bid[10], quotes.ask[13], quotes.bid[21] = math.nan, math.nan, 0.0
    points = points_of(quotes)
    out = np.where(quotes.call, quotes.strike >= quotes.forward, quotes.strike < quotes.forward)
    assert not points.used[[10, 13, 21]].any()
    assert (points.used <= out).all()
    assert points.k.size == points.used.sum() >= 26
    assert (points.half_spread > 0).all()


def test_the_fit_to_quotes_of_a_slice_is_the_slice() -> None:
    fit = fit_expiry(synthetic(FAR))
    assert fit.rms < 2e-4
    assert fit.in_spread == 1.0
    np.testing.assert_allclose(fit.residuals, 0.0, atol=2e-3)


def test_an_expiry_with_too_few_quotes_is_refused_with_the_reason() -> None:
    good, poor = synthetic(FAR), synthetic(NEAR)
    poor.bid[:] = math.nan
    found = fit_surface([good, poor])
    assert len(found.fits) == 1
    ((label, reason),) = found.refused
    assert label == "made"
    assert "expiry made: 0 strikes with a weight are too few" in reason
    with pytest.raises(InputError, match="no expiry can be fitted: expiry made: 0 strikes"):
        fit_surface([poor])


def test_a_real_book_of_options_is_fitted(
    shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = shared / "data" / "options" / "deribit_options.csv"
    if not path.is_file():
        pytest.skip("the book of options is not here")
    calibrate = script()
    quotes, marks = calibrate.read_quotes(path)
    assert sum(expiry.strike.size for expiry in quotes) == 684
    found = fit_surface(quotes)
    assert not found.refused
    assert {fit.quotes.label for fit in found.fits} == set(RMS)
    for fit in found.fits:
        label = fit.quotes.label
        assert fit.rms <= RMS[label], label
        assert fit.points.k.size >= 20, label
        assert fit.in_spread >= 0.7, label
        assert fit.fit.butterfly.free, label
        # The venue's own marks took no part: all options, in the money and never quoted ones too.
        misses = calibrate.mark_misses(fit, marks[label])
        assert np.sqrt(np.mean(misses**2)) <= 6e-4, label
    # Two of the closest fits have a butterfly arbitrage; theirs are the closest without.
    assert {fit.quotes.label for fit in found.fits if fit.fit.penalised} == {"11JAN24", "23FEB24"}
    close = fit_surface(quotes, arbitrage_free=False)
    caught = {fit.quotes.label for fit in close.fits if not butterfly(fit.fit.svi).free}
    assert caught == {"11JAN24", "23FEB24"}

    target = tmp_path / "surface.html"
    calibrate.main(["--data", str(path), "--html", str(target)])
    printed, page = capsys.readouterr().out, target.read_text()
    assert "CALENDAR ARBITRAGE" not in printed
    assert printed.count("no calendar arbitrage") == len(RMS) - 1
    assert page.count("<svg") == 2 * len(RMS)
    assert not re.search(r"https?://|src=|href=", page)


def test_the_script_refuses_a_missing_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        script().main(["--data", str(tmp_path / "none.csv")])
    assert exit_.value.code == 2
    assert "name a book summary with --data" in capsys.readouterr().err
