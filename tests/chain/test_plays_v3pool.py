"""A real pool goes to the tick that it is sent to, and says what that cost."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contracts_abi import uniswap_v3 as abi
from contracts_abi.aave_v3 import BALANCE_OF
from contracts_abi.errors import InputError
from simulation.chain import revm
from simulation.chain.artifacts import openzeppelin
from simulation.chain.evm import labelled_address
from simulation.chain.market import GENESIS
from simulation.chain.plays.stage import Stage
from simulation.chain.plays.v3pool import V3Pool, deploy_pool

pytestmark = pytest.mark.skipif(
    not revm.available(), reason="pyrevm has wheels for CPython 3.11 and 3.12 only"
)

TRADER = labelled_address("trader")


@pytest.fixture(scope="module")
def pool() -> V3Pool:
    stage = Stage(revm.RevmEvm(timestamp=GENESIS), GENESIS)
    code = openzeppelin("Token").creation_code
    token0, token1 = sorted((stage.create(code(18)), stage.create(code(6))), key=lambda a: int(a, 16))
    pool = deploy_pool(stage, token0, token1, 3_000, 1_234)
    pool.provide(-887_220, 887_220, 10**24, 10**24)
    pool.provide(-6_000, 6_000, 10**24, 10**24)
    return pool


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    ticks=st.lists(st.integers(-200_000, 200_000) | st.integers(-40, 40).map(lambda n: n * 60), max_size=4)
)
def test_the_price_goes_where_it_is_sent(pool: V3Pool, ticks: list[int]) -> None:
    with pool.stage.trial():
        pool.trades.clear()
        for tick in ticks:
            pool.move_to(tick, TRADER)
            assert pool.tick() == tick
        minted = 2**120 * len([t for t in pool.trades if t.amount0 > 0])
        held = pool.stage.read(BALANCE_OF.call(pool.token0, TRADER))
        assert minted - held == pool.spent(TRADER)[0]


def test_there_and_back_costs_the_fees(pool: V3Pool) -> None:
    with pool.stage.trial():
        pool.trades.clear()
        start = pool.tick()
        there = pool.move_to(start + 500, TRADER)
        back = pool.move_to(start, TRADER)
        assert there is not None
        assert back is not None
        assert pool.move_to(start, TRADER) is None
        cost0, cost1 = pool.spent(TRADER)
        assert there.amount1 > 0 > there.amount0
        # Fees stay in the pool: 0.3 % of what went in, both ways, and nothing else but a rounding.
        assert cost1 == pytest.approx(there.amount1 * 0.003, rel=0.01)
        assert cost0 == pytest.approx(back.amount0 * 0.003, rel=0.01)


def test_averages_reach_back_as_far_as_the_pool_remembers(pool: V3Pool) -> None:
    stage = pool.stage
    with stage.trial():
        start, now = pool.tick(), stage.now
        pool.remember(10)
        stage.move_to(now + 600)
        pool.move_to(start + 100, TRADER)
        stage.move_to(now + 900)
        (before, after), _ = stage.read(abi.OBSERVE.call(pool.pool, [900, 0]))
        assert after - before == start * 600 + (start + 100) * 300
    assert stage.now == now


def test_where_there_is_no_liquidity_the_price_moves_for_nothing(pool: V3Pool) -> None:
    empty = deploy_pool(pool.stage, pool.token0, pool.token1, 500, 0)
    empty.provide(-100, 100, 10**18, 10**18)
    with pool.stage.trial():
        near = empty.move_to(-101, TRADER)
    far = empty.move_to(-500_000, TRADER)
    assert near is not None
    assert far is not None
    assert (near.amount0, near.amount1) == (far.amount0, far.amount1)


def test_what_a_pool_cannot_have_is_refused(pool: V3Pool) -> None:
    with pytest.raises(InputError, match="spacing 200"):
        deploy_pool(pool.stage, pool.token0, pool.token1, 10_000, 0).provide(-5, 100, 1, 1)
    with pytest.raises(InputError, match="not below"):
        deploy_pool(pool.stage, pool.token1, pool.token0, 500, 0)
