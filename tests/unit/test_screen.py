"""The screen's layout and edges. Its arithmetic is in tests/property/test_screen.py."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from contracts_abi.errors import InputError
from simulation.screen import AAVE_V3_0, Rounding, ScreenStatus, build_screen
from simulation.types import Asset, Book, PositionKind

C, D, SPOT = PositionKind.COLLATERAL, PositionKind.DEBT, PositionKind.SPOT
H, L, NEAR, NO_DEBT, UNKNOWN = (
    ScreenStatus.HEALTHY,
    ScreenStatus.LIQUIDATABLE,
    ScreenStatus.NEAR,
    ScreenStatus.NO_DEBT,
    ScreenStatus.UNKNOWN,
)

Position = tuple[PositionKind, int, float, float]


def book_of(rows: list[list[Position]], assets: int = 3) -> Book:
    flat = [position for row in rows for position in row]
    return Book(
        accounts=[f"account {i}" for i in range(len(rows))],
        protocols=("p",),
        assets=tuple(Asset(f"A{i}", "", 18) for i in range(assets)),
        protocol=np.zeros(len(rows), dtype=np.int32),
        row_ptr=np.cumsum([0, *(len(row) for row in rows)]).astype(np.int64),
        asset=np.array([p[1] for p in flat], dtype=np.int32),
        kind=np.array([p[0] for p in flat], dtype=np.int8),
        amount=np.array([p[2] for p in flat], dtype=np.float64),
        weight=np.array([p[3] for p in flat], dtype=np.float64),
        block=1,
        timestamp=1,
        exact=[object()] * len(rows),
        known=np.ones(len(rows), dtype=np.bool_),
    )


ROWS: list[list[Position]] = [
    [(C, 0, 10.0, 0.8), (D, 1, 4.0, 1.0)],
    [(D, 1, 4.0, 1.0), (C, 0, 4.0, 0.8)],  # debt first
    [],
    [(C, 0, 1.0, 0.8)],
    [(D, 2, 1.0, 1.0)],
    [(C, 0, 5.0, 0.8), (C, 1, 5.0, 0.4), (D, 1, 1.0, 1.0), (D, 2, 5.0, 1.0)],
    [(C, 0, 5.0, 0.8), (D, 1, 4.0, 1.0)],  # exactly 1 in real numbers
    [(C, 0, 5.0, 0.8), (D, 1, 0.0, 1.0)],
]


def test_statuses_and_health_factors_come_back_in_the_order_of_the_book() -> None:
    result = build_screen(book_of(ROWS), AAVE_V3_0).run([1.0, 1.0, 1.0])
    health, status = result.by_row()
    assert status.tolist() == [H, L, NO_DEBT, NO_DEBT, L, NEAR, NEAR, NO_DEBT]
    np.testing.assert_allclose(health, [2.0, 0.8, np.inf, np.inf, 0.0, 1.0, 1.0, np.inf], rtol=1e-15)
    assert result.needs_exact().tolist() == [5, 6]
    assert result.candidates().tolist() == [1, 4, 5, 6]
    assert result.rows(NO_DEBT).tolist() == [2, 3, 7]


@pytest.mark.parametrize(
    "broken",
    [
        (C, 0, np.nan, 0.8),
        (C, 0, -1.0, 0.8),
        (C, 0, np.inf, 0.8),
        (C, 0, 1.0, np.nan),
        (C, 0, 1e-60, 1e-60),  # times a price this would leave the numbers that the error bound is for
        (C, 0, 1e101, 0.8),
        (D, 0, 1e-200, 1.0),
        (D, 0, np.nan, 1.0),
        (SPOT, 0, 1.0, 1.0),
    ],
)
def test_a_row_with_anything_unsound_is_unknown(broken: Position) -> None:
    rows = [*ROWS, [(C, 1, 1e9, 0.8), (D, 2, 1.0, 1.0), broken], [broken]]
    health, status = build_screen(book_of(rows), AAVE_V3_0).run([1.0, 1.0, 1.0]).by_row()
    assert status[-2:].tolist() == [UNKNOWN, UNKNOWN]
    assert np.isnan(health[-2:]).all()
    assert status[0] == H


def test_an_account_that_could_not_be_decoded_is_unknown_even_without_positions() -> None:
    book = replace(book_of(ROWS), known=np.array([i not in (0, 2) for i in range(len(ROWS))]))
    _, status = build_screen(book, AAVE_V3_0).run([1.0, 1.0, 1.0]).by_row()
    assert status[[0, 2]].tolist() == [UNKNOWN, UNKNOWN]
    assert status[1] == L


def test_debts_may_have_prices_of_their_own() -> None:
    screen = build_screen(book_of(ROWS), AAVE_V3_0)
    _, status = screen.run([1.0, 1.0, 1.0], [1.0, 2.001, 1.0]).by_row()
    assert status[0] == L


@pytest.mark.parametrize("rounding", [AAVE_V3_0, Rounding()])
@pytest.mark.parametrize("price", [1e-101, 5e-324, 1e101, 1e308])
def test_a_price_beyond_the_range_of_the_error_bound_is_unknown(price: float, rounding: Rounding) -> None:
    rows: list[list[Position]] = [
        [(C, 0, 1.0, 0.8), (D, 1, 1e-99, 1.0)],
        [(C, 1, 1e99, 0.8), (D, 0, 1.0, 1.0)],
        [(C, 0, 1.0, 0.8), (D, 2, 0.5, 1.0)],
    ]
    _, status = build_screen(book_of(rows), rounding).run([1.0, price, 1.0]).by_row()
    assert status.tolist() == [UNKNOWN, UNKNOWN, H]


def test_the_smallest_debt_in_range_is_not_taken_for_none() -> None:
    rows: list[list[Position]] = [[(D, 0, 1e-100, 1.0)], [(C, 0, 2e-100, 0.8), (D, 0, 1e-100, 1.0)]]
    _, status = build_screen(book_of(rows), Rounding()).run([1e-100, 1.0, 1.0]).by_row()
    assert status.tolist() == [L, H]


def test_a_weight_that_rounding_swallows_leaves_the_account_near() -> None:
    rows: list[list[Position]] = [[(C, 0, 1e9, 1e-4), (D, 1, 1.0, 1.0)], *ROWS]
    _, status = build_screen(book_of(rows), AAVE_V3_0).run([1.0, 1.0, 1.0]).by_row()
    assert status[0] == NEAR
    _, status = build_screen(book_of(rows), Rounding()).run([1.0, 1.0, 1.0]).by_row()
    assert status[0] == H


def test_values_below_the_contracts_resolution_are_near() -> None:
    rows: list[list[Position]] = [[(C, 0, 1e-8, 0.8), (D, 1, 3e-9, 1.0)]]
    _, status = build_screen(book_of(rows), AAVE_V3_0).run([1.0, 1.0, 1.0]).by_row()
    assert status.tolist() == [NEAR]


def test_room_for_amounts_is_taken_on_both_sides() -> None:
    """Amounts eight roundings off, the collateral down and the debt up: the real health factor is 1."""
    off = 8 * 2.0**-53
    rows: list[list[Position]] = [[(C, 0, 1.0 - off, 1.0), (D, 0, 1.0 + off, 1.0)]]
    _, status = build_screen(book_of(rows), Rounding(amount_roundings=8)).run([1.0, 1.0, 1.0]).by_row()
    assert status.tolist() == [NEAR]


@pytest.mark.parametrize(("collateral", "debt"), [(9.5, 10.0), (10.0, 10.5)])
def test_an_amount_may_be_half_a_raw_unit_off(collateral: float, debt: float) -> None:
    """A token without decimals at 100: the contract's balances are 10 and 10, and nothing to liquidate."""
    rows: list[list[Position]] = [[(C, 0, collateral, 1.0), (D, 0, debt, 1.0)]]
    book = replace(book_of(rows), assets=tuple(Asset(f"A{i}", "", 0) for i in range(3)))
    rounding = Rounding(amount_units=0.5)
    assert build_screen(book, rounding).run([100.0, 1.0, 1.0]).status.tolist() == [NEAR]
    assert build_screen(book, Rounding()).run([100.0, 1.0, 1.0]).status.tolist() == [L]


def test_threads_and_reused_output_give_the_same_bytes() -> None:
    rng = np.random.default_rng(3)
    rows: list[list[Position]] = []
    for _ in range(3_000):
        held: list[Position] = [
            (C, int(rng.integers(3)), rng.lognormal(), 0.8) for _ in range(rng.integers(0, 9))
        ]
        owed: list[Position] = [
            (D, int(rng.integers(3)), rng.lognormal(), 1.0) for _ in range(rng.integers(5))
        ]
        rows.append(held + owed)
    screen = build_screen(book_of(rows), AAVE_V3_0)
    prices = rng.lognormal(size=3)
    one = screen.run(prices)
    two = screen.run(prices, threads=2)
    assert one.health.tobytes() == two.health.tobytes()
    assert one.status.tobytes() == two.status.tobytes()
    again = screen.run(np.full(3, np.nan), out=screen.run(prices))
    assert set(again.status.tolist()) == {NO_DEBT, UNKNOWN}
    assert screen.run(prices, out=again) is again
    assert again.status.tobytes() == one.status.tobytes()


def test_an_empty_book_screens_to_nothing() -> None:
    result = build_screen(book_of([]), AAVE_V3_0).run([1.0, 1.0, 1.0])
    assert result.candidates().tolist() == []


def test_more_than_256_assets_fit() -> None:
    rows: list[list[Position]] = [[(C, 299, 10.0, 0.8), (D, 298, 1.0, 1.0)]]
    prices = np.full(300, np.nan)
    prices[298:] = 1.0
    health, status = build_screen(book_of(rows, assets=300), AAVE_V3_0).run(prices).by_row()
    assert (health[0], status[0]) == (8.0, H)


def test_bad_input_is_named() -> None:
    screen = build_screen(book_of(ROWS), AAVE_V3_0)
    with pytest.raises(InputError, match=r"prices have shape \(2,\), the book has 3 assets"):
        screen.run([1.0, 1.0])
    with pytest.raises(InputError, match="threads 0"):
        screen.run([1.0, 1.0, 1.0], threads=0)
    with pytest.raises(InputError, match="asset numbers outside its 3 assets"):
        build_screen(book_of([[(C, 3, 1.0, 0.8)]]), AAVE_V3_0)
    with pytest.raises(InputError, match="weight_step"):
        Rounding(weight_step=-1.0)
