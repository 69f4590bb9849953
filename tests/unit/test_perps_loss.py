"""Deficits by hand: bankruptcy price, insurance fund, and who is deleveraged."""

from __future__ import annotations

import math

import numpy as np
import pytest

from contracts_abi.errors import InputError
from simulation.protocols.perps_loss import (
    adl_pro_rata,
    adl_queue,
    adl_score,
    bankruptcy_price,
    deficit_at,
    equity,
    insurance_waterfall,
)


def test_bankruptcy_price_of_a_long_and_of_a_short() -> None:
    assert bankruptcy_price(10, 100, 200) == 80
    assert bankruptcy_price(-10, 100, 200) == 120
    assert equity(10, 100, 200, 80) == 0
    assert deficit_at(10, 100, 200, 75) == 50
    assert deficit_at(-10, 100, 200, 75) == 0
    with pytest.raises(InputError, match="size 0"):
        bankruptcy_price(0, 100, 200)


def test_the_fund_pays_down_to_its_floor() -> None:
    loss = insurance_waterfall(100, 90, floor=20)
    assert (loss.insurance, loss.left, loss.fund_after) == (70, 30, 20)
    assert insurance_waterfall(50, 90).left == 0
    empty = insurance_waterfall(50, 10, floor=20)
    assert (empty.insurance, empty.left, empty.fund_after) == (0, 50, 10)


@pytest.mark.parametrize("deficit", [-1.0, math.inf, math.nan])
def test_a_deficit_that_is_none_is_refused(deficit: float) -> None:
    for refused in (
        lambda: insurance_waterfall(deficit, 1),
        lambda: adl_queue(deficit, [1.0], [1.0]),
        lambda: adl_pro_rata(deficit, [1.0]),
    ):
        with pytest.raises(InputError, match="is not 0 or more"):
            refused()


def test_what_is_no_number_is_refused() -> None:
    with pytest.raises(InputError, match="fund nan is no number"):
        insurance_waterfall(1, math.nan)
    with pytest.raises(InputError, match="profits are no finite numbers"):
        adl_pro_rata(1, [math.nan])
    with pytest.raises(InputError, match="scores are no finite numbers"):
        adl_queue(1, [1.0], [math.inf])
    with pytest.raises(InputError, match="limits are not one"):
        adl_pro_rata(1, [1.0, 2.0], limit=[1.0])


def test_the_score_is_profit_in_percent_times_leverage() -> None:
    # 100 % profit at 1000 over 200; 50 % at 1000 over 150; a loss
    score = adl_score([100, 50, -20], [100, 100, 100], [1_000, 1_000, 1_000])
    assert score == pytest.approx([5.0, 10 / 3, -2.5])


def test_the_queue_takes_whole_profits_from_the_top() -> None:
    found = adl_queue(120, [100, 50, 80, -30], [5, 1, 3, 9])
    assert found.haircut.tolist() == [100, 0, 20, 0]
    assert found.order.tolist() == [0, 2]
    assert found.uncovered == 0
    assert adl_queue(500, [100, 50], [1, 2]).uncovered == 350
    assert adl_queue(60, [50, 50], [1, 1]).haircut.tolist() == [50, 10]
    assert adl_queue(0, [50], [1]).order.size == 0


def test_shares_take_the_same_fraction_of_everybody() -> None:
    found = adl_pro_rata(46, [100, 50, 80, -30])
    assert found.haircut == pytest.approx([20, 10, 16, 0])
    assert adl_pro_rata(500, [100, 50, -3]).haircut.tolist() == [100, 50, 0]
    assert adl_pro_rata(500, [100, 50, -3]).uncovered == 350
    assert adl_pro_rata(5, [-1.0]).uncovered == 5


def test_water_fills_up_to_limits_and_rises_for_the_others() -> None:
    # 100 each, limits 10, 40, none: 10 + 40 + 70 at a fraction of 0.7
    found = adl_pro_rata(120, [100, 100, 100], limit=[10, 40, 100])
    assert found.haircut == pytest.approx([10, 40, 70])
    # 10 + 30 + 30: the second is not full yet
    assert adl_pro_rata(70, [100, 100, 100], limit=[10, 40, 100]).haircut == pytest.approx([10, 30, 30])
    # a limit above the profit is the profit
    assert adl_pro_rata(150, [100, 50], limit=[1_000, 1_000]).haircut.tolist() == [100, 50]
    assert adl_pro_rata(151, [100, 50], limit=[1_000, 1_000]).uncovered == 1
    assert adl_pro_rata(30, [100, 50], limit=[0, 1_000]).haircut.tolist() == [0, 30]


def test_a_queue_falls_on_few_and_shares_on_all() -> None:
    profit = np.full(10, 100.0)
    queue, shares = adl_queue(100, profit, np.arange(10.0)), adl_pro_rata(100, profit)
    assert [int(np.count_nonzero(found.haircut)) for found in (queue, shares)] == [1, 10]
    assert queue.total == shares.total == 100


@pytest.mark.parametrize("step", range(4))
def test_a_haircut_finer_than_the_deficits_last_bit_does_not_cost_a_bit(step: int) -> None:
    deficit = 853_251_172_933.0 + step * math.ulp(853_251_172_933.0)
    for fine in (0.5, 0.25, 0.75):
        profit = [fine * math.ulp(deficit), 1e12]
        assert adl_queue(deficit, profit, [2, 1]).total == deficit
        assert adl_pro_rata(deficit, profit, limit=profit).total == deficit
