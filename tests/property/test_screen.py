"""The screen against exact fractions, against Aave's integers, and its kernels against plain NumPy."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from simulation.fixed_point import WAD, percent_mul, to_float, to_floats, wad_div
from simulation.screen import AAVE_V3_0, HealthScreen, Rounding, ScreenStatus, build_screen
from simulation.types import Asset, Book, PositionKind

ASSETS = 5


@dataclass(frozen=True)
class Held:
    """A collateral."""

    asset: int
    raw: int
    threshold_bps: int


@dataclass(frozen=True)
class Owed:
    """A debt."""

    asset: int
    raw: int


Account = tuple[list[Held], list[Owed]]


def book_of(accounts: list[Account], decimals: list[int], error: float = 0.0) -> Book:
    """Return the book of exact accounts, with amounts off by a relative `error`, in turn up and down."""
    asset, kind, amount, weight, row_ptr = [], [], [], [], [0]
    for held, owed in accounts:
        for h in held:
            asset.append(h.asset)
            kind.append(PositionKind.COLLATERAL)
            amount.append(to_float(h.raw, decimals[h.asset]))
            weight.append(to_float(h.threshold_bps, 4))
        for o in owed:
            asset.append(o.asset)
            kind.append(PositionKind.DEBT)
            amount.append(to_float(o.raw, decimals[o.asset]))
            weight.append(1.0)
        row_ptr.append(len(asset))
    off = np.array(amount, dtype=np.float64)
    off[::2] *= 1 + error
    off[1::2] *= 1 - error
    return Book(
        accounts=[f"account {i}" for i in range(len(accounts))],
        protocols=("aave-v3",),
        assets=tuple(Asset(f"A{i}", "", d) for i, d in enumerate(decimals)),
        protocol=np.zeros(len(accounts), dtype=np.int32),
        row_ptr=np.array(row_ptr, dtype=np.int64),
        asset=np.array(asset, dtype=np.int32),
        kind=np.array(kind, dtype=np.int8),
        amount=off,
        weight=np.array(weight, dtype=np.float64),
        block=1,
        timestamp=1,
        exact=accounts,
        known=np.ones(len(accounts), dtype=np.bool_),
    )


def exact_quotient(account: Account, prices_e8: list[int], decimals: list[int]) -> Fraction | None:
    held, owed = account
    weighted = sum(
        Fraction(h.raw * h.threshold_bps * prices_e8[h.asset], 10 ** (12 + decimals[h.asset])) for h in held
    )
    debt = sum(Fraction(o.raw * prices_e8[o.asset], 10 ** (8 + decimals[o.asset])) for o in owed)
    return Fraction(weighted) / debt if debt else None


def aave_health_factor_wad(account: Account, prices_e8: list[int], decimals: list[int]) -> int | None:
    """`GenericLogic.calculateUserAccountData` of version 3.0, without anything else of it."""
    held, owed = account
    values = [h.raw * prices_e8[h.asset] // 10 ** decimals[h.asset] for h in held]
    total = sum(values)
    weighted = sum(v * h.threshold_bps for v, h in zip(values, held, strict=True))
    debt = sum(o.raw * prices_e8[o.asset] // 10 ** decimals[o.asset] for o in owed)
    if debt == 0:
        return None
    return wad_div(percent_mul(total, weighted // total if total else 0), debt)


raws = st.integers(0, 10**40) | st.integers(0, 10**12)
thresholds = st.integers(1, 10_000) | st.integers(6_000, 9_500)


@st.composite
def accounts_near_one(draw: st.DrawFn, prices_e8: list[int], decimals: list[int]) -> Account:
    """Any account, or one whose last debt is chosen to bring the health factor within a hair of 1."""
    assets = st.integers(0, ASSETS - 1)
    held = draw(st.lists(st.builds(Held, assets, raws, thresholds), max_size=8))
    owed = draw(st.lists(st.builds(Owed, assets, raws), max_size=4))
    if held and owed and draw(st.booleans()):
        last = owed[-1]
        unit = 10 ** decimals[last.asset]
        weighted = sum(
            Fraction(h.raw * h.threshold_bps * prices_e8[h.asset], 10_000 * 10 ** decimals[h.asset])
            for h in held
        )
        others = sum(Fraction(o.raw * prices_e8[o.asset], 10 ** decimals[o.asset]) for o in owed[:-1])
        wanted = int((weighted - others) * unit / prices_e8[last.asset])
        nudge = draw(st.integers(-1000, 1000))
        hair = 10 ** draw(st.sampled_from([6, 12, 17, 40]))
        owed[-1] = Owed(last.asset, max(0, wanted + wanted * nudge // hair + nudge % 7 - 3))
    return held, owed


@st.composite
def markets(draw: st.DrawFn) -> tuple[list[Account], list[int], list[int]]:
    decimals = draw(st.lists(st.sampled_from([0, 2, 6, 8, 18, 27]), min_size=ASSETS, max_size=ASSETS))
    prices_e8 = draw(st.lists(st.integers(1, 10**15), min_size=ASSETS, max_size=ASSETS))
    accounts = draw(st.lists(accounts_near_one(prices_e8, decimals), min_size=1, max_size=12))
    return accounts, prices_e8, decimals


def screened(
    accounts: list[Account], prices_e8: list[int], decimals: list[int], rounding: Rounding, error: float = 0.0
) -> tuple[HealthScreen, np.ndarray, np.ndarray]:
    screen = build_screen(book_of(accounts, decimals, error), rounding)
    result = screen.run(to_floats(prices_e8, 8))
    plain = screen.run_plain(to_floats(prices_e8, 8))
    np.testing.assert_array_equal(result.status, plain.status)
    np.testing.assert_allclose(result.health, plain.health, rtol=2 * screen.relative_error)
    return screen, *result.by_row()


@settings(deadline=None, max_examples=150)
@given(markets())
def test_health_is_within_the_stated_error_of_the_exact_quotient(
    market: tuple[list[Account], list[int], list[int]],
) -> None:
    accounts, prices_e8, decimals = market
    screen, health, status = screened(accounts, prices_e8, decimals, Rounding())
    for i, account in enumerate(accounts):
        exact = exact_quotient(account, prices_e8, decimals)
        if exact is None:
            assert status[i] == ScreenStatus.NO_DEBT
            assert health[i] == np.inf
            continue
        assert abs(Fraction(health[i]) - exact) <= Fraction(screen.relative_error) * exact
        if status[i] == ScreenStatus.HEALTHY:
            assert exact >= 1
        elif status[i] == ScreenStatus.LIQUIDATABLE:
            assert exact < 1
        else:
            assert status[i] == ScreenStatus.NEAR
            assert abs(exact - 1) < Fraction(1, 10**14)


@settings(deadline=None, max_examples=150)
@given(markets())
def test_certainty_holds_for_the_integers_of_aave(market: tuple[list[Account], list[int], list[int]]) -> None:
    accounts, prices_e8, decimals = market
    # As far off as `AAVE_V3_0.amount_roundings` allows, less the rounding of this test itself.
    _, health, status = screened(accounts, prices_e8, decimals, AAVE_V3_0, error=2.0**-50 - 2.0**-52)
    for i, account in enumerate(accounts):
        exact_wad = aave_health_factor_wad(account, prices_e8, decimals)
        if status[i] == ScreenStatus.HEALTHY:
            assert exact_wad is None or exact_wad >= WAD, health[i]
        elif status[i] == ScreenStatus.LIQUIDATABLE:
            assert exact_wad is not None, health[i]
            assert exact_wad < WAD, health[i]
        else:
            assert status[i] in (ScreenStatus.NEAR, ScreenStatus.NO_DEBT)
        if status[i] == ScreenStatus.NO_DEBT:
            assert exact_wad is None


@settings(deadline=None, max_examples=60)
@given(markets(), st.integers(0, ASSETS - 1), st.sampled_from([np.nan, 0.0, -1.0, np.inf, -np.inf]))
def test_an_account_with_an_unknown_price_is_unknown(
    market: tuple[list[Account], list[int], list[int]], asset: int, bad_price: float
) -> None:
    accounts, prices_e8, decimals = market
    prices = to_floats(prices_e8, 8)
    prices[asset] = bad_price
    screen = build_screen(book_of(accounts, decimals), AAVE_V3_0)
    _, known = screen.run(to_floats(prices_e8, 8)).by_row()
    result = screen.run(prices)
    health, status = result.by_row()
    for i, (held, owed) in enumerate(accounts):
        touched = any(p.asset == asset for p in (*held, *owed))
        if touched and any(o.asset == asset for o in owed):
            assert status[i] == ScreenStatus.UNKNOWN
        elif touched and known[i] != ScreenStatus.NO_DEBT:
            assert status[i] == ScreenStatus.UNKNOWN
            assert np.isnan(health[i])
        else:
            # Without the price of a dearer raw unit, an account that was near may be decided.
            assert status[i] == known[i] or known[i] == ScreenStatus.NEAR
        assert (i in result.needs_exact()) == (status[i] in (ScreenStatus.UNKNOWN, ScreenStatus.NEAR))
