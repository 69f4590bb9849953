"""Prices through known points: they are met, the variance between them is a bridge's, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from contracts_abi.errors import InputError, UnknownNameError
from simulation.contagion.prices import build
from simulation.contagion.prices.streams import path_seeds

HOUR = 3_600.0
POINTS: dict[str, Any] = {
    "A": [[0, 100.0], [4 * HOUR, 80.0], [10 * HOUR, 90.0]],
    "B": [[0, 7.0], [2 * HOUR, 7.7]],
}
TABLE: dict[str, Any] = {"process": "bridge", "points": POINTS, "volatility": {"A": 1.5}}


def test_every_path_goes_through_every_point() -> None:
    drawn = build(TABLE, ["A", "B"], [100.0, 7.0]).paths(path_seeds(3, 0, 50), 120, HOUR / 12)
    np.testing.assert_allclose(drawn[:, 48, 0], 80.0, rtol=1e-12)
    np.testing.assert_allclose(drawn[:, 120, 0], 90.0, rtol=1e-12)
    # Half-way of the logarithm, without noise, and level after the last point.
    np.testing.assert_allclose(drawn[:, 12, 1], np.sqrt(7.0 * 7.7), rtol=1e-12)
    assert (np.abs(drawn[:, 24:, 1] - 7.7) < 1e-12).all()


def test_the_variance_between_two_points_is_a_bridges() -> None:
    paths = 8_000
    drawn = np.log(build(TABLE, ["A", "B"], [100.0, 7.0]).paths(path_seeds(1, 0, paths), 12, HOUR)[:, :, 0])
    year = 1.5**2 / (365 * 24)
    for t, (left, right) in ((1, (0, 4)), (3, (0, 4)), (7, (4, 10))):
        wanted = year * (t - left) * (right - t) / (right - left)
        assert abs(drawn[:, t].var() / wanted - 1) < 5 * np.sqrt(2 / paths), t
        part = (t - left) / (right - left)
        ends = np.log([100.0, 80.0]) if left == 0 else np.log([80.0, 90.0])
        assert abs(drawn[:, t].mean() - (1 - part) * ends[0] - part * ends[1]) < 5 * np.sqrt(wanted / paths)
    # After the last point it is free.
    assert abs(drawn[:, 12].var() / (2 * year) - 1) < 5 * np.sqrt(2 / paths)


def test_an_asset_without_points_stays_at_the_books_price_with_its_noise() -> None:
    table = {"process": "bridge", "points": {}, "volatility": {"B": 0.5}}
    drawn = build(table, ["A", "B"], [100.0, 7.0]).paths(path_seeds(1, 0, 3), 5, HOUR)
    assert (drawn[:, :, 0] == 100.0).all()
    assert len(set(drawn[:, 5, 1])) == 3


@pytest.mark.parametrize(
    ("points", "told"),
    [
        ([[60, 100.0]], "do not begin at 0"),
        ([[0, 100.0], [60, 90.0], [60, 80.0]], "60 after 60"),
        ([[0, 100.0], [60, -1.0]], "a price of -1"),
        ([[0, 101.0]], "A is 100 in the book and 101 at its first point"),
    ],
)
def test_points_that_cannot_be_are_refused(points: list[list[float]], told: str) -> None:
    with pytest.raises(InputError, match=told):
        build({"process": "bridge", "points": {"A": points}}, ["A"], [100.0])


def test_points_of_an_unknown_asset_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="asset of points"):
        build({"process": "bridge", "points": {"C": [[0, 1.0]]}}, ["A"], [100.0])
