"""An average over a real pool: what Uniswap's library says of it, and what moving it costs."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts_abi.errors import InputError
from contracts_abi.feeds import LATEST_ANSWER
from oracle.mechanisms.pools import Placed
from simulation.amm.uniswap_v3 import get_sqrt_ratio_at_tick
from simulation.chain import revm
from simulation.chain.market import GENESIS
from simulation.chain.plays.rigs.twap import Band, TwapPlan, TwapStage
from simulation.chain.plays.stage import Stage

pytestmark = pytest.mark.skipif(
    not revm.available(), reason="pyrevm has wheels for CPython 3.11 and 3.12 only"
)

STEP_S, WINDOW_S = 300, 1_800
FULL = 887_220


def plan(ticks: Sequence[int], attacked: Sequence[bool] | None = None, decimals: int = 18) -> TwapPlan:
    held = attacked or [False] * len(ticks)
    # 1.0001**-276_324 is one whole token of 18 decimals in one of 6.
    return TwapPlan(
        base_decimals=18,
        quote_decimals=6,
        decimals=decimals,
        window_s=WINDOW_S,
        fee_pips=3_000,
        bands=(Band(-FULL, FULL, Fraction(10**6), Fraction(10**6)),),
        course=[
            Placed(i * STEP_S, get_sqrt_ratio_at_tick(tick) + 1, by_attacker)
            for i, (tick, by_attacker) in enumerate(zip(ticks, held, strict=True))
        ],
        worth=[Fraction(1)] * len(ticks),
    )


def played(given: TwapPlan) -> tuple[TwapStage, list[int]]:
    stage = Stage(revm.RevmEvm(timestamp=GENESIS), GENESIS)
    pool = TwapStage(stage, given)
    stage.move_to(GENESIS + 86_400)
    answers = []
    for i in range(len(given.course)):
        stage.move_to(GENESIS + 86_400 + i * STEP_S)
        pool.step(i)
        answers.append(stage.read(LATEST_ANSWER.call(pool.source)))
    return pool, answers


def average(ticks: Sequence[int], i: int) -> int:
    """Return the mean tick of the window that ends at step `i`, before the step's own trade counts."""
    past = [ticks[max(0, k)] for k in range(i - WINDOW_S // STEP_S, i)]
    return sum(past) * STEP_S // WINDOW_S


@settings(deadline=None, max_examples=15)
@given(ticks=st.lists(st.integers(-280_000, -270_000), min_size=1, max_size=10))
def test_the_average_is_that_of_the_trades(ticks: list[int]) -> None:
    _, answers = played(plan(ticks))
    for i, answer in enumerate(answers):
        root = get_sqrt_ratio_at_tick(average(ticks, i))
        assert answer == root * root * 10**30 >> 192


def test_moving_it_for_one_step_costs_the_attacker_what_the_arbitrageur_gains() -> None:
    calm, high = -276_324, -266_324
    pool, answers = played(plan([calm, high, calm, calm], [False, True, False, False]))
    assert answers[0] == answers[1]
    assert answers[2] > answers[0], "a sixth of the window stood high"
    assert answers[3] == answers[2]
    # From 1 to e in a pool of a million each: 1e6 * (sqrt(e) - 1) in, with the fee of 0.3 % on top, and
    # 1e6 * (1 - 1 / sqrt(e)) out, which is worth 1 each.
    assert float(pool.paid_in()) == pytest.approx(650_673, rel=1e-3)
    assert float(pool.cost()) == pytest.approx(257_204, rel=1e-3)


def test_a_scale_that_the_library_cannot_state_is_refused() -> None:
    with pytest.raises(InputError, match="36 decimals does not fit"):
        played(plan([0], decimals=36))
