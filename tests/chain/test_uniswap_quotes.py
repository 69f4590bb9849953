"""Paths through the market's own pools: our swaps against QuoterV2, on every backend."""

from __future__ import annotations

import random

import pytest

from contracts_abi import uniswap_v3 as abi
from contracts_abi.errors import DataError
from simulation.amm import uniswap_v3 as amm
from simulation.chain.evm import Evm, read
from simulation.chain.market import DeployedPool
from simulation.liquidation import find_paths
from tests.chain.conftest import Chain


def pool_state(evm: Evm, pool: DeployedPool) -> amm.PoolState:
    """Read a pool as the keeper does: rounds of reads until nothing is missing."""
    spacing = read(evm, abi.TICK_SPACING.call(pool.address))
    layout = amm.PoolLayout(amm.PoolKey(pool.address, pool.token0, pool.token1, pool.fee_pips, spacing))
    for _ in range(3):
        answers = [evm.call(call.to, call.data) for call in amm.pool_reads(layout)]
        state = amm.decode_pool(layout, answers)
        if isinstance(state, amm.PoolState):
            return state
        layout = state
    pytest.fail("price, words, ticks: three rounds should do")


def test_all_paths_pay_what_the_quoter_says(chain: Chain) -> None:
    rng = random.Random(5)
    pools = {pool.address: pool_state(chain.evm, pool) for pool in chain.market.uniswap.pools}
    tokens = [asset.address for asset in chain.market.assets.values()]
    decimals = {asset.address: asset.decimals for asset in chain.market.assets.values()}
    hops = set()
    for token_in in tokens:
        for token_out in tokens:
            for path in find_paths(pools, token_in, token_out, 3) if token_in != token_out else ():
                amount = rng.randint(1, 9) * 10 ** rng.randint(decimals[token_in] - 2, decimals[token_in] + 2)
                out, after = amm.quote_exact_in(pools, path, amount)
                data = abi.QUOTE_EXACT_INPUT.encode(amm.encode_path(path), amount)
                quoted, prices_after, _, _ = abi.QUOTE_EXACT_INPUT.decode(
                    chain.evm.call(chain.market.uniswap.quoter, data)
                )
                assert quoted == out == amm.amount_out_exact_in(pools, path, amount)
                assert list(prices_after) == [after[hop.pool].sqrt_price_x96 for hop in path]
                hops.add(len(path))
    assert hops == {1, 2, 3}


def test_a_state_that_was_read_once_is_read_again_in_one_round(chain: Chain) -> None:
    pool = chain.market.uniswap.pools[0]
    state = pool_state(chain.evm, pool)
    again = amm.layout_of(state)
    answers = [chain.evm.call(call.to, call.data) for call in amm.pool_reads(again)]
    assert amm.decode_pool(again, answers) == state
    with pytest.raises(DataError, match=r"slot0@.* failed"):
        amm.decode_pool(again, [None, *answers[1:]])
    with pytest.raises(DataError, match="results for"):
        amm.decode_pool(again, answers[1:])
