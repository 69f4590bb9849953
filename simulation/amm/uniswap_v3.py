"""Uniswap V3 swaps in exact integers, and the reads that a pool's state takes.

A port of the swap of ``@uniswap/v3-core`` 1.0.1 under the names of its libraries: `TickMath`,
`SqrtPriceMath`, `SwapMath`, `TickBitmap`, `LiquidityMath`. Amounts, price, tick and liquidity after a swap
equal the pool's to the unit; fee growth and the oracle array are not modelled, nothing here depends on them.

Prices are square roots of token1 per token0 in raw units, as Q64.96. Amounts are raw token units.
"""

from __future__ import annotations

import functools
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from contracts_abi import uniswap_v3 as abi
from contracts_abi.calls import Call
from contracts_abi.errors import DataError, InputError
from contracts_abi.uniswap_v3 import MAX_SQRT_RATIO, MAX_TICK, MIN_SQRT_RATIO, MIN_TICK
from oracle.ticks import TickOutOfRange, sqrt_ratio_at_tick
from simulation.fixed_point import MAX_UINT256, ceil_div, mul_div, mul_div_up
from simulation.types import SwapHop

Q96 = 1 << 96
PIPS = 1_000_000
"""Fees are counted in hundredths of a basis point."""

_MAX_UINT160 = (1 << 160) - 1
_MAX_UINT128 = (1 << 128) - 1
_ABOVE_ANY_NET = 1 << 128
"""Sorts behind every `liquidity_net` (int128) of the same tick."""


class SwapReverted(DataError):
    """The pool would revert this swap.

    Attributes
    ----------
    code
        The pool's own revert string; empty where it has none.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"the pool reverts{f' ({code})' if code else ''}: {message}")
        self.code = code


class BeyondKnownTicks(DataError):
    """The swap runs out of the bitmap words that were read: its outcome is unknown."""


# --- TickMath ----------------------------------------------------------------------------------------------


_TICKS_PER_DOUBLING_X64 = 255738958999603826347141
"""Ticks in which the square-root price doubles, ``2 / log2(1.0001)``, as Q64.64."""


def get_sqrt_ratio_at_tick(tick: int) -> int:
    """Return the square-root price of `tick` as Q64.96, rounded up (`TickMath.getSqrtRatioAtTick`).

    Raises
    ------
    SwapReverted
        With code ``T`` when the tick is out of range.
    """
    try:
        return sqrt_ratio_at_tick(tick)
    except TickOutOfRange as error:
        raise SwapReverted("T", str(error)) from None


def get_tick_at_sqrt_ratio(sqrt_price_x96: int) -> int:
    """Return the greatest tick whose price is at most `sqrt_price_x96` (`TickMath.getTickAtSqrtRatio`).

    Fourteen bits of the binary logarithm place the tick within one; the comparison decides.

    Raises
    ------
    SwapReverted
        With code ``R`` when the price is out of range.
    """
    if not MIN_SQRT_RATIO <= sqrt_price_x96 < MAX_SQRT_RATIO:
        raise SwapReverted("R", f"square-root price {sqrt_price_x96} is out of range")
    msb = sqrt_price_x96.bit_length() - 1
    mantissa = sqrt_price_x96 << (159 - msb) >> 32
    log2_x64 = (msb - 96) << 64
    for bit in range(63, 49, -1):
        mantissa = mantissa * mantissa >> 127
        if mantissa >> 128:
            log2_x64 |= 1 << bit
            mantissa >>= 1
    tick = min(log2_x64 * _TICKS_PER_DOUBLING_X64 >> 128, MAX_TICK - 1)
    while tick < MAX_TICK - 1 and get_sqrt_ratio_at_tick(tick + 1) <= sqrt_price_x96:
        tick += 1
    while get_sqrt_ratio_at_tick(tick) > sqrt_price_x96:
        tick -= 1
    return tick


# --- SqrtPriceMath -----------------------------------------------------------------------------------------


def get_amount0_delta(sqrt_a_x96: int, sqrt_b_x96: int, liquidity: int, round_up: bool) -> int:
    """Return the token0 between two prices: ``L * (1/sqrt(lower) - 1/sqrt(upper))``."""
    if sqrt_a_x96 > sqrt_b_x96:
        sqrt_a_x96, sqrt_b_x96 = sqrt_b_x96, sqrt_a_x96
    numerator = (liquidity << 96) * (sqrt_b_x96 - sqrt_a_x96)
    if round_up:
        return -(numerator // -sqrt_b_x96 // sqrt_a_x96)
    return numerator // sqrt_b_x96 // sqrt_a_x96


def get_amount1_delta(sqrt_a_x96: int, sqrt_b_x96: int, liquidity: int, round_up: bool) -> int:
    """Return the token1 between two prices: ``L * (sqrt(upper) - sqrt(lower))``."""
    product = liquidity * abs(sqrt_b_x96 - sqrt_a_x96)
    return -(-product >> 96) if round_up else product >> 96


def get_next_sqrt_price_from_amount0_rounding_up(
    sqrt_price_x96: int, liquidity: int, amount: int, add: bool
) -> int:
    """Return the price after `amount` of token0 came in (`add`) or went out, rounded up."""
    if amount == 0:
        return sqrt_price_x96
    numerator = liquidity << 96
    product = amount * sqrt_price_x96
    if add:
        if numerator + product <= MAX_UINT256:
            return mul_div_up(numerator, sqrt_price_x96, numerator + product)
        # The pool's product does not fit 256 bits: it falls back to a form that loses a little precision.
        return ceil_div(numerator, numerator // sqrt_price_x96 + amount)
    if product > MAX_UINT256 or numerator <= product:
        raise SwapReverted("", "more token0 asked for than the liquidity holds")
    return _as_uint160(mul_div_up(numerator, sqrt_price_x96, numerator - product))


def get_next_sqrt_price_from_amount1_rounding_down(
    sqrt_price_x96: int, liquidity: int, amount: int, add: bool
) -> int:
    """Return the price after `amount` of token1 came in (`add`) or went out, rounded down."""
    if add:
        return _as_uint160(sqrt_price_x96 + mul_div(amount, Q96, liquidity))
    quotient = mul_div_up(amount, Q96, liquidity)
    if sqrt_price_x96 <= quotient:
        raise SwapReverted("", "more token1 asked for than the liquidity holds")
    return sqrt_price_x96 - quotient


def get_next_sqrt_price_from_input(
    sqrt_price_x96: int, liquidity: int, amount_in: int, zero_for_one: bool
) -> int:
    """Return the price after `amount_in` was added, rounded so that it does not pass the target."""
    if zero_for_one:
        return get_next_sqrt_price_from_amount0_rounding_up(sqrt_price_x96, liquidity, amount_in, True)
    return get_next_sqrt_price_from_amount1_rounding_down(sqrt_price_x96, liquidity, amount_in, True)


def get_next_sqrt_price_from_output(
    sqrt_price_x96: int, liquidity: int, amount_out: int, zero_for_one: bool
) -> int:
    """Return the price after `amount_out` was taken, rounded so that the pool is paid enough."""
    if zero_for_one:
        return get_next_sqrt_price_from_amount1_rounding_down(sqrt_price_x96, liquidity, amount_out, False)
    return get_next_sqrt_price_from_amount0_rounding_up(sqrt_price_x96, liquidity, amount_out, False)


def _as_uint160(value: int) -> int:
    if value > _MAX_UINT160:
        raise SwapReverted("", "square-root price above 160 bits")
    return value


# --- SwapMath ----------------------------------------------------------------------------------------------


def compute_swap_step(
    sqrt_current_x96: int, sqrt_target_x96: int, liquidity: int, amount_remaining: int, fee_pips: int
) -> tuple[int, int, int, int]:
    """Swap within one price range of constant liquidity (`SwapMath.computeSwapStep`).

    Parameters
    ----------
    amount_remaining
        Input still to spend when positive, output still to get when negative.

    Returns
    -------
    tuple
        Price reached, amount in without fee, amount out, fee.
    """
    zero_for_one = sqrt_current_x96 >= sqrt_target_x96
    amount_in_between = get_amount0_delta if zero_for_one else get_amount1_delta
    amount_out_between = get_amount1_delta if zero_for_one else get_amount0_delta

    if amount_remaining >= 0:
        less_fee = amount_remaining * (PIPS - fee_pips) // PIPS
        amount_in = amount_in_between(sqrt_target_x96, sqrt_current_x96, liquidity, True)
        if less_fee >= amount_in:
            sqrt_next_x96 = sqrt_target_x96
        else:
            sqrt_next_x96 = get_next_sqrt_price_from_input(
                sqrt_current_x96, liquidity, less_fee, zero_for_one
            )
        reached = sqrt_next_x96 == sqrt_target_x96
        if not reached:
            amount_in = amount_in_between(sqrt_next_x96, sqrt_current_x96, liquidity, True)
        amount_out = amount_out_between(sqrt_next_x96, sqrt_current_x96, liquidity, False)
        # What the last step leaves over after rounding is the pool's, as part of the fee.
        fee = mul_div_up(amount_in, fee_pips, PIPS - fee_pips) if reached else amount_remaining - amount_in
        return sqrt_next_x96, amount_in, amount_out, fee

    wanted = -amount_remaining
    amount_out = amount_out_between(sqrt_target_x96, sqrt_current_x96, liquidity, False)
    if wanted >= amount_out:
        sqrt_next_x96 = sqrt_target_x96
    else:
        sqrt_next_x96 = get_next_sqrt_price_from_output(sqrt_current_x96, liquidity, wanted, zero_for_one)
    amount_in = amount_in_between(sqrt_next_x96, sqrt_current_x96, liquidity, True)
    if sqrt_next_x96 != sqrt_target_x96:
        amount_out = amount_out_between(sqrt_next_x96, sqrt_current_x96, liquidity, False)
    fee = mul_div_up(amount_in, fee_pips, PIPS - fee_pips)
    return sqrt_next_x96, amount_in, min(amount_out, wanted), fee


# --- pool state --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PoolKey:
    """What never changes of a pool.

    Attributes
    ----------
    address, token0, token1
        Checksummed; token0 sorts below token1.
    fee_pips
        Fee on the input, in millionths.
    tick_spacing
        Ticks at which liquidity can begin and end are multiples of it.
    """

    address: str
    token0: str
    token1: str
    fee_pips: int
    tick_spacing: int

    def __post_init__(self) -> None:
        if not 0 <= self.fee_pips < PIPS:
            raise InputError(f"pool {self.address}: fee_pips {self.fee_pips} is not in [0, {PIPS})")
        if not 0 < self.tick_spacing < 16384:
            raise InputError(f"pool {self.address}: tick_spacing {self.tick_spacing} is not in [1, 16383]")
        if int(self.token0, 16) >= int(self.token1, 16):
            raise InputError(
                f"pool {self.address}: token0 {self.token0} does not sort below token1 {self.token1}",
                fix="swap the two",
            )

    def word_of(self, tick: int) -> int:
        """Return the bitmap word that holds `tick`."""
        return tick // self.tick_spacing >> 8

    def all_words(self) -> range:
        """Return every word that can hold an initialised tick."""
        return range(self.word_of(MIN_TICK), self.word_of(MAX_TICK) + 1)


@dataclass(frozen=True, slots=True)
class PoolState:
    """A pool at one block, as far as swaps need it.

    Attributes
    ----------
    key
        What never changes.
    sqrt_price_x96, tick, liquidity
        `slot0` and the liquidity in range. The tick may be one below the price's own, after a crossing.
    ticks
        Pairs of initialised tick and its net liquidity (added when crossed upwards), sorted.
    words
        Bitmap words in which `ticks` is complete. A swap that leaves them raises `BeyondKnownTicks`.
    """

    key: PoolKey
    sqrt_price_x96: int
    tick: int
    liquidity: int
    ticks: tuple[tuple[int, int], ...]
    words: range

    @property
    def address(self) -> str:
        """Address of the pool."""
        return self.key.address

    @property
    def token0(self) -> str:
        """Token whose price is quoted."""
        return self.key.token0

    @property
    def token1(self) -> str:
        """Token in which the price is quoted."""
        return self.key.token1

    @property
    def fee_pips(self) -> int:
        """Fee on the input, in millionths."""
        return self.key.fee_pips

    def other(self, token: str) -> str:
        """Return the token that `token` is swapped for."""
        return self.key.token1 if token == self.key.token0 else self.key.token0


def next_initialized_tick_within_one_word(state: PoolState, tick: int, lte: bool) -> tuple[int, int | None]:
    """Return the next tick to stop at, and its net liquidity when it is initialised, else None.

    `TickBitmap.nextInitializedTickWithinOneWord`: a swap also stops at the end of each bitmap word, and since
    each stop rounds, the port has to stop there as well.

    Raises
    ------
    BeyondKnownTicks
        When the word was not read.
    """
    spacing = state.key.tick_spacing
    ticks = state.ticks
    compressed = tick // spacing
    if lte:
        word = compressed >> 8
        edge = (word << 8) * spacing
        i = bisect_right(ticks, (tick, _ABOVE_ANY_NET)) - 1
        found = i >= 0 and ticks[i][0] >= edge
    else:
        word = (compressed + 1) >> 8
        edge = ((word << 8) + 255) * spacing
        i = bisect_left(ticks, ((compressed + 1) * spacing, -_ABOVE_ANY_NET))
        found = i < len(ticks) and ticks[i][0] <= edge
    if word not in state.words:
        raise BeyondKnownTicks(
            f"pool {state.address}: the swap reaches bitmap word {word}, read were {state.words}"
        )
    return ticks[i] if found else (edge, None)


@dataclass(frozen=True, slots=True)
class Swap:
    """What a swap moved.

    Attributes
    ----------
    amount_in
        Input taken, fee included.
    amount_out
        Output paid.
    filled
        False when the price limit stopped the swap before the amount asked for was reached.
    state
        The pool afterwards.
    """

    amount_in: int
    amount_out: int
    filled: bool
    state: PoolState


def swap(
    state: PoolState, zero_for_one: bool, amount_specified: int, sqrt_price_limit_x96: int | None = None
) -> Swap:
    """Swap as `UniswapV3Pool.swap` does.

    Parameters
    ----------
    zero_for_one
        True sells token0 for token1.
    amount_specified
        Exact input when positive, exact output when negative.
    sqrt_price_limit_x96
        Price not to be passed; by default the last one that the pool accepts, as the routers pass it.

    Raises
    ------
    SwapReverted
        Where the pool reverts: ``AS`` for amount zero, ``SPL`` for a limit on the wrong side.
    BeyondKnownTicks
        When the swap leaves the words that were read.
    """
    total_in, total_out, filled, sqrt_price, tick, liquidity = _swap(
        state, zero_for_one, amount_specified, sqrt_price_limit_x96
    )
    if tick is None:
        tick = get_tick_at_sqrt_ratio(sqrt_price)
    after = replace(state, sqrt_price_x96=sqrt_price, tick=tick, liquidity=liquidity)
    return Swap(total_in, total_out, filled, after)


def _swap(
    state: PoolState, zero_for_one: bool, amount_specified: int, limit: int | None
) -> tuple[int, int, bool, int, int | None, int]:
    """Return amount in, amount out, filled, price, tick, liquidity.

    The tick is None where it is to be worked out from the price: a quote has no use for it.
    """
    if amount_specified == 0:
        raise SwapReverted("AS", "the amount is zero")
    sqrt_price, tick, liquidity = state.sqrt_price_x96, state.tick, state.liquidity
    if limit is None:
        limit = MIN_SQRT_RATIO + 1 if zero_for_one else MAX_SQRT_RATIO - 1
    in_range = MIN_SQRT_RATIO < limit < sqrt_price if zero_for_one else sqrt_price < limit < MAX_SQRT_RATIO
    if not in_range:
        raise SwapReverted("SPL", f"price limit {limit} is not on the swap's side of {sqrt_price}")

    exact_in = amount_specified > 0
    fee_pips = state.key.fee_pips
    remaining, total_in, total_out = amount_specified, 0, 0
    moved_within = False
    while remaining != 0 and sqrt_price != limit:
        if moved_within:
            tick, moved_within = get_tick_at_sqrt_ratio(sqrt_price), False
        tick_next, liquidity_net = next_initialized_tick_within_one_word(state, tick, zero_for_one)
        tick_next = max(MIN_TICK, min(MAX_TICK, tick_next))
        sqrt_at_next = get_sqrt_ratio_at_tick(tick_next)
        target = max(sqrt_at_next, limit) if zero_for_one else min(sqrt_at_next, limit)
        sqrt_start = sqrt_price
        sqrt_price, amount_in, amount_out, fee = compute_swap_step(
            sqrt_price, target, liquidity, remaining, fee_pips
        )
        total_in += amount_in + fee
        total_out += amount_out
        remaining = amount_specified - total_in if exact_in else amount_specified + total_out

        if sqrt_price == sqrt_at_next:
            if liquidity_net is not None:
                liquidity = _add_delta(liquidity, -liquidity_net if zero_for_one else liquidity_net)
            tick = tick_next - 1 if zero_for_one else tick_next
        else:
            moved_within = sqrt_price != sqrt_start
    return total_in, total_out, remaining == 0, sqrt_price, None if moved_within else tick, liquidity


def _add_delta(liquidity: int, delta: int) -> int:
    """Return the liquidity after a crossing (`LiquidityMath.addDelta`)."""
    after = liquidity + delta
    if not 0 <= after <= _MAX_UINT128:
        raise SwapReverted("LS" if delta < 0 else "LA", f"liquidity {liquidity} with {delta:+d}")
    return after


# --- paths -------------------------------------------------------------------------------------------------

Pools = Mapping[str, PoolState]
"""Pools by address."""


def quote_exact_in(pools: Pools, path: Sequence[SwapHop], amount_in: int) -> tuple[int, dict[str, PoolState]]:
    """Swap `amount_in` along `path`, every hop exact in, as `SwapRouter.exactInput` does.

    Returns
    -------
    tuple
        Amount out of the last hop and `pools` with the touched ones replaced.

    Raises
    ------
    SwapReverted
        Where a pool reverts, and when a pool cannot take the whole input: the rest would be left behind.
    BeyondKnownTicks
        When a hop leaves the words that were read.
    """
    after = dict(pools)
    amount = amount_in
    for hop in path:
        state = after[hop.pool]
        done = swap(state, hop.token_in == state.token0, amount)
        _check_taken(hop, done.filled, done.amount_in, amount)
        after[hop.pool] = done.state
        amount = done.amount_out
    return amount, after


def amount_out_exact_in(pools: Pools, path: Sequence[SwapHop], amount_in: int) -> int:
    """Return the amount out of `quote_exact_in` alone, in half the time; no pool may be on the path twice."""
    amount = amount_in
    for hop in path:
        state = pools[hop.pool]
        taken, paid, filled, *_ = _swap(state, hop.token_in == state.token0, amount, None)
        _check_taken(hop, filled, taken, amount)
        amount = paid
    return amount


def _check_taken(hop: SwapHop, filled: bool, taken: int, offered: int) -> None:
    if not filled:
        raise SwapReverted("", f"pool {hop.pool} takes only {taken} of {offered}")


def quote_exact_out(
    pools: Pools, path: Sequence[SwapHop], amount_out: int
) -> tuple[int, dict[str, PoolState]]:
    """Buy `amount_out` at the end of `path`, every hop exact out, as `SwapRouter.exactOutput` does.

    Returns
    -------
    tuple
        Amount in of the first hop and `pools` with the touched ones replaced.

    Raises
    ------
    SwapReverted
        Where a pool reverts, and when a pool does not hold as much as is asked for.
    BeyondKnownTicks
        When a hop leaves the words that were read.
    """
    after = dict(pools)
    amount = amount_out
    for hop in reversed(path):
        state = after[hop.pool]
        done = swap(state, hop.token_in == state.token0, -amount)
        if not done.filled:
            raise SwapReverted("", f"pool {hop.pool} pays only {done.amount_out} of {amount}")
        after[hop.pool] = done.state
        amount = done.amount_in
    return amount, after


def encode_path(path: Sequence[SwapHop]) -> bytes:
    """Return `path` as the router reads it for an exact input (`contracts_abi.uniswap_v3.encode_path`)."""
    return abi.encode_path(
        [*(hop.token_in for hop in path[:1]), *(h.token_out for h in path)], [hop.fee_pips for hop in path]
    )


# --- reads -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PoolLayout:
    """Which storage of a pool to read: the bitmap words near the price and the ticks known to be initialised.

    Attributes
    ----------
    key
        The pool.
    words
        Bitmap words to read; empty when the price is not known yet.
    ticks
        Ticks whose net liquidity to read, sorted.
    """

    key: PoolKey
    words: range = range(0)
    ticks: tuple[int, ...] = ()


def layout_of(state: PoolState) -> PoolLayout:
    """Return the layout that reads `state` again, usually complete at the first attempt."""
    return PoolLayout(state.key, state.words, tuple(t for t, _ in state.ticks))


@functools.lru_cache(maxsize=256)
def pool_reads(layout: PoolLayout) -> tuple[Call[Any], ...]:
    """Return the reads of `layout`, to be executed at one block: slot0, liquidity, words, ticks.

    Remembered, since a pool is mostly read in the same layout block after block.
    """
    pool = layout.key.address
    return (
        abi.SLOT0.call(pool),
        abi.LIQUIDITY.call(pool),
        *(abi.TICK_BITMAP.call(pool, word) for word in layout.words),
        *(abi.TICKS.call(pool, tick) for tick in layout.ticks),
    )


def decode_pool(
    layout: PoolLayout, results: Sequence[bytes | None], *, reach_ticks: int = 6932
) -> PoolState | PoolLayout:
    """Turn the answers of `pool_reads` into a state, or into the layout that is still missing something.

    The first time takes three rounds (price, words, ticks); from then on `layout_of` needs one unless
    liquidity was placed at a new tick or the price left the words.

    Parameters
    ----------
    results
        Return data in the order of the reads; None for a read that failed.
    reach_ticks
        Least distance from the price to the end of the words, in ticks; 6932 is a halving or a doubling.

    Raises
    ------
    DataError
        When a read failed or does not decode, or the pool is not initialised.
    """
    calls = pool_reads(layout)
    if len(results) != len(calls):
        raise DataError(f"pool {layout.key.address}: {len(results)} results for {len(calls)} reads")
    values = [_decoded(layout.key, call, data) for call, data in zip(calls, results, strict=True)]
    sqrt_price_x96, tick = values[0][0], values[0][1]
    if sqrt_price_x96 == 0:
        raise DataError(f"pool {layout.key.address} is not initialised")

    every = layout.key.all_words()
    words = range(
        max(every.start, layout.key.word_of(tick - reach_ticks)),
        min(every.stop, layout.key.word_of(tick + reach_ticks) + 1),
    )
    n = len(layout.words)
    if not layout.words or words.start < layout.words.start or words.stop > layout.words.stop:
        return PoolLayout(layout.key, words, layout.ticks)

    set_ticks = tuple(
        (word * 256 + bit) * layout.key.tick_spacing
        for word, bitmap in zip(layout.words, values[2 : 2 + n], strict=True)
        for bit in _set_bits(bitmap)
    )
    nets = dict(zip(layout.ticks, (v[1] for v in values[2 + n :]), strict=True))
    if not nets.keys() >= set(set_ticks):
        return PoolLayout(layout.key, layout.words, set_ticks)
    ticks = tuple((t, nets[t]) for t in set_ticks)
    return PoolState(layout.key, sqrt_price_x96, tick, values[1], ticks, layout.words)


def _decoded(key: PoolKey, call: Call[Any], data: bytes | None) -> Any:
    if data is None:
        raise DataError(f"pool {key.address}: the read {call.label} failed")
    return call.decode(data)


def _set_bits(word: int) -> list[int]:
    """Return the positions of the set bits, ascending."""
    bits: list[int] = []
    while word:
        low = word & -word
        bits.append(low.bit_length() - 1)
        word ^= low
    return bits
