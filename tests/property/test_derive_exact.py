"""Derive's integers against exact arithmetic, and against the floats on many books, most near the boundary.

The plain run draws some hundred books. All: ``MARGINLINE_BOOKS=100000 pytest -m slow`` on this file.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from dataclasses import dataclass, field

import mpmath
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from simulation.fixed_point import WAD
from simulation.margin import derive_pmrm2, derive_srm, fixed_math
from simulation.margin.derive_exact import (
    BOUNDARY,
    Method,
    black76,
    decide,
    decision_width,
    exact_margin,
    float_error,
    gross_notional,
    on_chain,
    svi_volatility,
)
from simulation.margin.derive_pmrm2 import Collateral, DerivePmrm2
from simulation.margin.derive_srm import DeriveSrm
from simulation.portfolio.instruments import Option, Perpetual, Portfolio, Position, Spot
from simulation.portfolio.market import YEAR_S, AssetPrice, Expiry, Market, Svi, Underlying

DAY = 86_400
NOW = 1_750_000_000

CDF_ERROR = 60
"""Units of 1e-18: Hart's approximation in units of 2**-64."""

# ----------------------------------------------------------------------------------- against exact arithmetic

units = st.integers(1, 10**36)


def exact(value: int) -> mpmath.mpf:
    return mpmath.mpf(value) / WAD


@given(units | st.integers(WAD - 10**6, WAD + 10**6))
def test_the_logarithm_is_rounded_down(x: int) -> None:
    with mpmath.workdps(80):
        assert fixed_math.ln(x) == int(mpmath.floor(mpmath.log(exact(x)) * WAD))


@given(st.integers(-42 * WAD, 40 * WAD) | st.integers(-(10**6), 10**6))
def test_the_exponential_is_rounded_down(x: int) -> None:
    with mpmath.workdps(80):
        assert fixed_math.exp(x) == int(mpmath.floor(mpmath.exp(exact(x)) * WAD))


@given(st.integers(0, 2**127))
def test_the_root_is_rounded_down(x: int) -> None:
    root = fixed_math.sqrt(x)
    assert root * root <= x * WAD < (root + 1) ** 2


@given(st.integers(-10 * WAD, 10 * WAD) | st.integers(-38 * WAD, 38 * WAD))
def test_the_normal_distribution_is_as_good_as_harts(x: int) -> None:
    with mpmath.workdps(60):
        assert abs(fixed_math.normal_cdf(x) - mpmath.ncdf(exact(x)) * WAD) <= CDF_ERROR


def black76_exactly(
    forward: int, strike: int, volatility: int, seconds: int, discount: int, call: bool
) -> mpmath.mpf:
    """Return the price of the same inputs with 60 digits."""
    f, k, total = exact(forward), exact(strike), exact(volatility) * mpmath.sqrt(mpmath.mpf(seconds) / YEAR_S)
    if total == 0:
        return exact(discount) * max(0, f - k if call else k - f)
    d1 = mpmath.log(f / k) / total + total / 2
    side = 1 if call else -1
    return exact(discount) * side * (f * mpmath.ncdf(side * d1) - k * mpmath.ncdf(side * (d1 - total)))


@example(
    forward=3_573_740_838_042_729_984,
    moneyness=0.0,
    volatility=9_708_004_637_263_196_160,
    seconds=1,
    discount=995_206_575_049_380_032,
    call=False,
)
@given(
    forward=st.integers(10**12, 10**24),
    moneyness=st.floats(-3, 3),
    volatility=st.integers(10**15, 10 * WAD),
    seconds=st.integers(0, 3 * YEAR_S),
    discount=st.integers(WAD // 2, WAD),
    call=st.booleans(),
)
def test_an_option_in_integers_is_worth_what_it_is(
    forward: int, moneyness: float, volatility: int, seconds: int, discount: int, call: bool
) -> None:
    """The bound of the docstring, for total volatilities below 24."""
    strike = max(1, int(forward * math.exp(moneyness)))
    ours = black76(forward, strike, volatility, seconds, discount, call=call)
    with mpmath.workdps(60):
        off = abs(exact(ours) - black76_exactly(forward, strike, volatility, seconds, discount, call))
        cut = (4 + mpmath.mpf(strike) / forward) / WAD
        years = mpmath.mpf(max(1, seconds)) / YEAR_S
        total = exact(volatility) * mpmath.sqrt(years)
        cut += mpmath.mpf("0.6e-18") * exact(forward) * total / min(years, 1)
        assert off <= mpmath.mpf("2e-16") * exact(forward + strike) + cut


@given(st.floats(-1, 1), st.floats(0.01, 0.5), st.floats(-0.9, 0.9), st.floats(0.05, 1), st.floats(0.01, 2))
def test_a_volatility_of_the_surface(k: float, b: float, rho: float, sigma: float, tau: float) -> None:
    """Two roots and five products cost a few units of the variance, more the smaller it is."""
    one = on_chain(Svi(a=0.02, b=b, rho=rho, m=0.1, sigma=sigma, forward=1_000.0, tau=tau))
    strike = int(1_000 * math.exp(k) * 10**8) * 10**10
    with mpmath.workdps(60):
        a, b_, rho_, m, sigma_, tau_ = (
            exact(fixed_math.wad(value, "it")) for value in (one.a, one.b, one.rho, one.m, one.sigma, one.tau)
        )
        width = 4 * mpmath.sqrt(a + b_ * sigma_)
        log = min(width, max(-width, mpmath.log(exact(strike) / 1_000)))
        w = a + b_ * (rho_ * (log - m) + mpmath.sqrt((log - m) ** 2 + sigma_**2))
        off = abs(exact(svi_volatility(one, strike)) - mpmath.sqrt(w / tau_))
        assert off <= mpmath.mpf("1e-17") * (1 + 1 / tau_) / mpmath.sqrt(w)


# ------------------------------------------------------------------------------------------------- many books

TOKENS = {
    "ETH": Collateral(mm_haircut=0.1, im_haircut=0.05, risk_cancelling=True),
    "USDT": Collateral(mm_haircut=0.02, im_haircut=0.03),
}
METHODS: tuple[Method, ...] = (
    DerivePmrm2(parameters=derive_pmrm2.MAINNET.model_copy(update={"collaterals": TOKENS})),
    DeriveSrm(parameters=derive_srm.MAINNET),
    DerivePmrm2(parameters=derive_pmrm2.TEST.model_copy(update={"collaterals": TOKENS})),
    DeriveSrm(parameters=derive_srm.TEST),
)


def uniform(rng: np.random.Generator, low: float, high: float, digits: int = 4) -> float:
    return round(float(rng.uniform(low, high)), digits)


def an_expiry(rng: np.random.Generator, spot: float, digits: int) -> tuple[int, Expiry]:
    """Return one: at or in its settlement window, within a day, a month, a year; stated or on a surface."""
    low, high = [(0, 1), (1, 1_800), (1_800, DAY), (DAY, 30 * DAY), (30 * DAY, 400 * DAY)][rng.integers(5)]
    seconds = int(rng.integers(low, high))
    forward, volatility = round(spot * uniform(rng, 0.9, 1.1), digits), uniform(rng, 0.1, 3)
    tau = max(seconds, 3_600) / YEAR_S
    w = volatility * volatility * tau
    surface = Svi(
        a=w * uniform(rng, 0.3, 0.9),
        b=math.sqrt(w) * uniform(rng, 0.05, 0.3),
        rho=uniform(rng, -0.7, 0.5),
        m=math.sqrt(w) * uniform(rng, -0.1, 0.1),
        sigma=math.sqrt(w) * uniform(rng, 0.2, 1),
        forward=forward,
        tau=tau,
    )
    moving = min(1.0, seconds / 1_800)
    sure = [uniform(rng, 0.3, 1) for _ in range(3)]
    return NOW + seconds, Expiry(
        forward=forward * moving,
        fixed=forward * (1 - moving),
        rate=uniform(rng, -0.02, 0.12),
        surface=surface if rng.random() < 0.5 else None,
        volatility=volatility,
        forward_confidence=sure[0],
        rate_confidence=sure[1],
        vol_confidence=sure[2],
    )


def a_book(rng: np.random.Generator, tokens: bool) -> tuple[Portfolio, Market]:
    """Return up to 13 positions on an underlying between 1e-5 and 100,000 dollars."""
    spot = uniform(rng, 1, 100_000, 2) if rng.random() < 0.9 else uniform(rng, 1e-5, 1e-3, 9)
    digits = 6 if spot > 1 else 12
    expiries = dict(an_expiry(rng, spot, digits) for _ in range(rng.integers(1, 4)))
    times = sorted(expiries)
    positions = []
    for _ in range(rng.integers(0, 11 if rng.random() < 0.3 else 5)):
        time = times[rng.integers(len(times))]
        strike = expiries[time].total * (1.0 if rng.random() < 0.1 else math.exp(rng.normal(0, 0.3)))
        held = Option(
            underlying="ETH", expiry=time, strike=round(strike, digits - 4), call=bool(rng.random() < 0.5)
        )
        positions.append(Position(instrument=held, quantity=uniform(rng, -20, 20, 3)))
    if rng.random() < 0.5 or not positions:
        held_perpetual = Perpetual(underlying="ETH")
        positions.append(
            Position(
                instrument=held_perpetual,
                quantity=uniform(rng, -20, 20, 3),
                unrealised=round(spot * uniform(rng, -1, 1), digits),
            )
        )
    if rng.random() < 0.3:
        positions.append(Position(instrument=Spot(asset="ETH"), quantity=uniform(rng, 0, 20)))
    if tokens and rng.random() < 0.2:
        positions.append(
            Position(instrument=Spot(asset="USDT"), quantity=round(spot * uniform(rng, 0, 9), 6))
        )
    sure = [uniform(rng, 0.3, 1) for _ in range(3)]
    market = Market(
        timestamp=NOW,
        underlyings={
            "ETH": Underlying(
                spot=spot,
                perpetual=round(spot * uniform(rng, 0.99, 1.01), digits + 2),
                confidence=sure[0],
                perpetual_confidence=sure[1],
                expiries=expiries,
            )
        },
        assets={"USDT": AssetPrice(price=uniform(rng, 0.98, 1.01), confidence=sure[2])},
        stable_price=uniform(rng, 0.95, 1.01),
    )
    return on_chain(Portfolio(positions=tuple(positions))), on_chain(market)


@dataclass
class Tally:
    """What was seen: how many by who decided, the largest differences, and who was overruled."""

    seen: Counter[str] = field(default_factory=Counter)
    of_bound: float = 0.0
    of_gross: float = 0.0


def play(count: int, seed: int) -> Tally:
    """Decide `count` books: every second one with cash within the boundary, one of four at the very edge."""
    rng, tally = np.random.default_rng(seed), Tally()
    for i in range(count):
        method = METHODS[i % 4]
        bare, market = a_book(rng, tokens=isinstance(method, DerivePmrm2))
        result = method.margin(bare, market)
        gross = gross_notional(bare, market, method)
        if not gross:
            tally.seen["nothing held"] += 1
            continue
        reach = (0.0, BOUNDARY, 0.0 if rng.random() < 0.5 else 3 * BOUNDARY, 1.0)[i // 4 % 4]
        cash = float(rng.uniform(-reach, reach)) * gross - result.maintenance
        book = on_chain(bare.model_copy(update={"cash": cash}))

        found = decide(book, market, method)
        exact_mm = exact_margin(book, market, method).maintenance
        width, bound = decision_width(book, market, method), float_error(book, market, method)
        off = abs(found.mm_float - exact_mm / WAD)
        assert off <= bound < BOUNDARY * gross, (i, off, bound)
        assert width == BOUNDARY * gross
        inside = abs(found.mm_float) <= width
        assert found.decided_by == ("integers" if inside else "float")
        assert found.mm_wad == (exact_mm if inside else None)
        assert found.liquidatable == (exact_mm < 0)
        tally.seen[found.decided_by] += 1
        tally.seen["overruled"] += (found.mm_float < 0) != (exact_mm < 0)
        tally.of_bound = max(tally.of_bound, off / bound)
        tally.of_gross = max(tally.of_gross, off / gross)
    return tally


def check(count: int, seed: int) -> None:
    tally = play(count, seed)
    print(f"{dict(tally.seen)}; off at most {tally.of_gross:.2g} of gross, {tally.of_bound:.2g} of the bound")
    # Two of four reaches are inside, and half of a third; the rest is for the floats.
    assert tally.seen["integers"] > 0.5 * count
    assert tally.seen["float"] > 0.2 * count
    assert tally.seen["overruled"] > 0


def test_integers_decide_at_the_boundary_and_floats_are_right_beyond() -> None:
    check(600, seed=20_250_601)


@pytest.mark.slow
@pytest.mark.skipif("MARGINLINE_BOOKS" not in os.environ, reason="how many books, in MARGINLINE_BOOKS")
def test_the_same_on_as_many_books_as_are_asked_for() -> None:
    check(int(os.environ["MARGINLINE_BOOKS"]), seed=4)
