"""The swap port against the pool's own bytecode, to the unit."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass

import pytest

from contracts_abi import uniswap_v3 as abi
from contracts_abi.artifacts import compile_vyper
from contracts_abi.calls import function
from contracts_abi.errors import CallReverted
from simulation.amm import uniswap_v3 as amm
from simulation.chain import revm
from simulation.chain.artifacts import uniswap_core, uniswap_periphery
from simulation.chain.evm import labelled_address
from simulation.types import SwapHop

pytestmark = [
    pytest.mark.chain,
    pytest.mark.skipif(not revm.available(), reason="pyrevm has wheels for CPython 3.11 and 3.12 only"),
]

OWNER = labelled_address("uniswap parity")
TICK_SPACING = {100: 1, 500: 10, 3000: 60, 10_000: 200}

TOKEN = """
# pragma version 0.4.3
balanceOf: public(HashMap[address, uint256])

@deploy
def __init__(holder: address):
    self.balanceOf[holder] = max_value(uint256)

@external
def transfer(to: address, amount: uint256) -> bool:
    self.balanceOf[msg.sender] -= amount
    self.balanceOf[to] += amount
    return True
"""

TRADER = """
# pragma version 0.4.3
interface Token:
    def transfer(to: address, amount: uint256) -> bool: nonpayable
interface Pool:
    def mint(
        to: address, lower: int24, upper: int24, amount: uint128, data: Bytes[32]
    ) -> (uint256, uint256): nonpayable
    def swap(
        to: address, zero_for_one: bool, amount: int256, limit: uint160, data: Bytes[32]
    ) -> (int256, int256): nonpayable
    def token0() -> address: view
    def token1() -> address: view

@external
def mint(pool: address, lower: int24, upper: int24, amount: uint128):
    extcall Pool(pool).mint(self, lower, upper, amount, b"")

@external
def swap(pool: address, zero_for_one: bool, amount: int256, limit: uint160) -> (int256, int256):
    return extcall Pool(pool).swap(self, zero_for_one, amount, limit, b"")

@internal
def _pay(amount0: int256, amount1: int256):
    if amount0 > 0:
        extcall Token(staticcall Pool(msg.sender).token0()).transfer(msg.sender, convert(amount0, uint256))
    if amount1 > 0:
        extcall Token(staticcall Pool(msg.sender).token1()).transfer(msg.sender, convert(amount1, uint256))

@external
def uniswapV3MintCallback(amount0: uint256, amount1: uint256, data: Bytes[32]):
    self._pay(convert(amount0, int256), convert(amount1, int256))

@external
def uniswapV3SwapCallback(amount0: int256, amount1: int256, data: Bytes[32]):
    self._pay(amount0, amount1)
"""

MINT = function("mint(address,int24,int24,uint128)")
SWAP = function("swap(address,bool,int256,uint160)(int256,int256)")
QUOTE_EXACT_OUTPUT = function("quoteExactOutput(bytes,uint256)(uint256,uint160[],uint32[],uint256)")


@dataclass(frozen=True)
class Market:
    """Factory, quoter and a trader that owns all tokens."""

    evm: revm.RevmEvm
    factory: str
    quoter: str
    trader: str
    token_code: bytes

    def new_tokens(self, count: int) -> list[str]:
        """Create tokens, so that each test has pools of its own; in the order that pools sort them."""
        tokens = [self.evm.create(OWNER, self.token_code) for _ in range(count)]
        return sorted(tokens, key=lambda address: int(address, 16))

    def create_pool(self, token0: str, token1: str, fee_pips: int, sqrt_price_x96: int) -> amm.PoolKey:
        sent = self.evm.send(OWNER, self.factory, abi.CREATE_POOL.encode(token0, token1, fee_pips)).expect(
            "pool"
        )
        pool = abi.CREATE_POOL.decode_one(sent.output)
        self.evm.send(OWNER, pool, abi.INITIALIZE.encode(sqrt_price_x96)).expect("initialize")
        return amm.PoolKey(pool, token0, token1, fee_pips, TICK_SPACING[fee_pips])

    def mint(self, key: amm.PoolKey, lower: int, upper: int, liquidity: int) -> None:
        data = MINT.encode(key.address, lower, upper, liquidity)
        self.evm.send(OWNER, self.trader, data).expect("mint")

    def swap(self, key: amm.PoolKey, zero_for_one: bool, amount: int, limit: int) -> tuple[int, int]:
        sent = self.evm.send(OWNER, self.trader, SWAP.encode(key.address, zero_for_one, amount, limit))
        amount0, amount1 = SWAP.decode(sent.expect("swap").output)
        return (amount0, -amount1) if zero_for_one else (amount1, -amount0)

    def state(self, layout: amm.PoolLayout, reach_ticks: int) -> amm.PoolState:
        for _ in range(4):
            results = [self.evm.call(call.to, call.data) for call in amm.pool_reads(layout)]
            answer = amm.decode_pool(layout, results, reach_ticks=reach_ticks)
            if isinstance(answer, amm.PoolState):
                return answer
            layout = answer
        pytest.fail("the reads of a pool did not settle")


@pytest.fixture(scope="module")
def market() -> Market:
    evm = revm.RevmEvm()
    factory = evm.create(OWNER, uniswap_core("UniswapV3Factory").creation_code())
    evm.send(OWNER, factory, abi.ENABLE_FEE_AMOUNT.encode(100, 1)).expect("enable fee 100")
    quoter = evm.create(OWNER, uniswap_periphery("QuoterV2").creation_code(factory, OWNER))
    trader = evm.create(OWNER, compile_vyper("Trader", TRADER).creation_code())
    token_code = compile_vyper("Token", TOKEN).creation_code(trader)
    return Market(evm, factory, quoter, trader, token_code)


def log_uniform(rng: random.Random, low_bits: int, high_bits: int) -> int:
    return rng.getrandbits(rng.randint(low_bits, high_bits)) + 1


def random_pool(market: Market, rng: random.Random, token0: str, token1: str) -> amm.PoolKey:
    """Create a pool at a random price with one wide and several narrow, overlapping positions."""
    fee_pips = rng.choice(sorted(TICK_SPACING))
    spacing = TICK_SPACING[fee_pips]
    tick = rng.choice([0, rng.randint(-2000, 2000), rng.randint(-400_000, 400_000)])
    price = amm.get_sqrt_ratio_at_tick(tick) + rng.choice([0, 1, 10**6])
    key = market.create_pool(token0, token1, fee_pips, price)
    base = tick // spacing
    reach = rng.choice([3, 40, 700])
    for _ in range(rng.randint(1, 9)):
        lower = base + rng.randint(-reach, reach)
        upper = lower + rng.randint(1, reach)
        market.mint(key, lower * spacing, upper * spacing, log_uniform(rng, 4, 90))
    if rng.random() < 0.5:
        widest = amm.MAX_TICK // spacing * spacing
        market.mint(key, -widest, widest, log_uniform(rng, 10, 80))
    return key


@pytest.mark.parametrize("seed", range(6))
def test_swaps_equal_the_pool(market: Market, seed: int) -> None:
    rng = random.Random(seed)
    seen: Counter[str] = Counter()
    for _ in range(5):
        key = random_pool(market, rng, *market.new_tokens(2))
        reach_ticks = 120_000 if key.tick_spacing == 1 else 2 * amm.MAX_TICK
        state = market.state(amm.PoolLayout(key), reach_ticks)
        for _ in range(25):
            zero_for_one = rng.random() < 0.5
            amount = log_uniform(rng, 0, rng.choice([60, 80, 100])) * rng.choice([1, -1])
            limit = amm.MIN_SQRT_RATIO + 1 if zero_for_one else amm.MAX_SQRT_RATIO - 1
            if rng.random() < 0.4:
                step = rng.randint(1, 500) * rng.choice([1, key.tick_spacing])
                at = max(amm.MIN_TICK, min(amm.MAX_TICK, state.tick + (-step if zero_for_one else step)))
                limit = amm.get_sqrt_ratio_at_tick(at) + rng.choice([0, 0, 1, -1])
            try:
                expected = amm.swap(state, zero_for_one, amount, limit)
            except amm.BeyondKnownTicks:
                seen["beyond"] += 1
                continue
            except amm.SwapReverted as error:
                with pytest.raises(CallReverted, match=error.code):
                    market.swap(key, zero_for_one, amount, limit)
                seen["reverted"] += 1
                continue
            assert market.swap(key, zero_for_one, amount, limit) == (expected.amount_in, expected.amount_out)
            assert expected.filled == ((expected.amount_in if amount > 0 else -expected.amount_out) == amount)
            seen["exact in" if amount > 0 else "exact out"] += 1
            seen["filled" if expected.filled else "limited"] += 1
            seen["crossed"] += expected.state.liquidity != state.liquidity
            state = market.state(amm.layout_of(state), reach_ticks=0)
            assert expected.state == state
    assert all(seen[kind] >= 5 for kind in ("exact in", "exact out", "filled", "limited", "crossed")), seen


@pytest.mark.parametrize("seed", range(8))
def test_paths_equal_the_quoter(market: Market, seed: int) -> None:
    rng = random.Random(1000 + seed)
    a, b, c = market.new_tokens(3)
    ab, bc = random_pool(market, rng, a, b), random_pool(market, rng, b, c)
    pools = {key.address: market.state(amm.PoolLayout(key), reach_ticks=100_000) for key in (ab, bc)}
    there = (SwapHop(ab.address, a, b, ab.fee_pips), SwapHop(bc.address, b, c, bc.fee_pips))
    back = tuple(SwapHop(h.pool, h.token_out, h.token_in, h.fee_pips) for h in reversed(there))
    quoted = 0
    for _ in range(40):
        path = rng.choice([there, back, there[:1], back[:1]])
        amount = log_uniform(rng, 0, 90)
        if rng.random() < 0.5:
            quoted += exact_output_quoted(market, pools, path, amount)
            continue
        try:
            out, after = amm.quote_exact_in(pools, path, amount)
        except (amm.SwapReverted, amm.BeyondKnownTicks):
            continue  # the quoter also answers for a part of the input, and knows all ticks
        data = market.evm.call(market.quoter, abi.QUOTE_EXACT_INPUT.encode(amm.encode_path(path), amount))
        chain_out, prices_after, _, _ = abi.QUOTE_EXACT_INPUT.decode(data)
        assert chain_out == out
        assert list(prices_after) == [after[hop.pool].sqrt_price_x96 for hop in path]
        quoted += 1
    assert quoted > 0


def exact_output_quoted(
    market: Market, pools: dict[str, amm.PoolState], path: tuple[SwapHop, ...], amount: int
) -> bool:
    """Compare an exact output with the quoter, which wants the path from its end; False when both refuse."""
    backwards = [SwapHop(h.pool, h.token_out, h.token_in, h.fee_pips) for h in reversed(path)]
    data = QUOTE_EXACT_OUTPUT.encode(amm.encode_path(backwards), amount)
    try:
        amount_in, after = amm.quote_exact_out(pools, path, amount)
    except amm.BeyondKnownTicks:
        return False
    except amm.SwapReverted:
        with pytest.raises(CallReverted):
            market.evm.call(market.quoter, data)
        return False
    chain_in, prices_after, _, _ = QUOTE_EXACT_OUTPUT.decode(market.evm.call(market.quoter, data))
    assert chain_in == amount_in
    assert list(prices_after) == [after[hop.pool].sqrt_price_x96 for hop in reversed(path)]
    return True


def test_ticks_equal_the_pool_at_the_edges(market: Market) -> None:
    """`initialize` stores the tick of a price: at ticks, one below them, and at both ends of the range."""
    rng = random.Random(7)
    ticks = [amm.MIN_TICK, amm.MAX_TICK - 1, -1, 0, 1, *(rng.randint(-887_271, 887_270) for _ in range(40))]
    prices = [amm.get_sqrt_ratio_at_tick(tick) + d for tick in ticks for d in (-1, 0, 1)]
    prices += [
        rng.randrange(amm.MIN_SQRT_RATIO, amm.MAX_SQRT_RATIO) >> rng.randint(0, 120) for _ in range(40)
    ]
    checked = 0
    for price in [*prices, amm.MAX_SQRT_RATIO - 1, amm.MAX_SQRT_RATIO]:
        try:
            expected = amm.get_tick_at_sqrt_ratio(price)
        except amm.SwapReverted as error:
            with pytest.raises(CallReverted, match=f"'{error.code}'"):
                market.create_pool(*market.new_tokens(2), 500, price)
        else:
            key = market.create_pool(*market.new_tokens(2), 500, price)
            slot0 = abi.SLOT0.decode(market.evm.call(key.address, abi.SLOT0.encode()))
            assert slot0[1] == expected
            checked += 1
    assert checked > 100


def test_a_partial_view_is_exact_inside_and_unknown_outside(market: Market) -> None:
    key = market.create_pool(*market.new_tokens(2), 500, amm.get_sqrt_ratio_at_tick(-200_123))
    market.mint(key, -887_270, 887_270, 10**15)
    market.mint(key, -201_000, -199_000, 10**18)
    state = market.state(amm.PoolLayout(key), reach_ticks=2560)
    assert len(state.words) <= 4
    assert [t for t, _ in state.ticks] == [-201_000, -199_000]
    limit = amm.get_sqrt_ratio_at_tick(-201_500)
    inside = amm.swap(state, True, 10**22, limit)
    assert inside.state.tick == -201_500
    assert inside.state.liquidity == 10**15
    with pytest.raises(amm.BeyondKnownTicks, match="bitmap word"):
        amm.swap(state, True, 10**22)
    assert market.swap(key, True, 10**22, limit) == (inside.amount_in, inside.amount_out)
    assert market.state(amm.layout_of(state), reach_ticks=0) == inside.state
