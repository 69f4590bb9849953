"""Markets in any state: concave proceeds, nothing lost, no better split, and the exact pool's amounts."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from simulation.amm.uniswap_v3 import (
    PoolKey,
    PoolState,
    get_sqrt_ratio_at_tick,
    get_tick_at_sqrt_ratio,
    swap,
)
from simulation.contagion.impact import ImpactModel
from simulation.contagion.impact.cont_schaanning import ContSchaanning
from simulation.contagion.impact.cpmm import Cpmm
from simulation.contagion.impact.depth import Depth
from simulation.contagion.impact.linear import Linear
from simulation.contagion.impact.split import split_sale
from simulation.contagion.impact.square_root import SquareRoot
from simulation.contagion.impact.table import Table
from simulation.contagion.impact.uniswap_v3 import UniswapV3, of_pool

Array = NDArray[np.float64]

PRICE = 2_000.0
PATHS = 6

part = st.floats(0.0, 1.0)
scale = st.floats(1e-3, 1e4)
fee = st.sampled_from([0.0, 0.0005, 0.003, 0.01])


@st.composite
def tables(draw: st.DrawFn) -> Table:
    sizes = np.cumsum(draw(st.lists(st.floats(0.1, 1_000.0), min_size=1, max_size=6)))
    # The price of the next token is above 0.2 everywhere, so no row brings less than the one before.
    nexts = draw(st.lists(st.floats(0.2, 1.0), min_size=len(sizes), max_size=len(sizes)))
    proceeds = np.cumsum(np.diff(sizes, prepend=0.0) * np.sort(nexts)[::-1])
    return Table(
        tuple(sizes.tolist()), tuple(np.maximum.accumulate(np.clip(1 - proceeds / sizes, 0, 1)).tolist())
    )


@st.composite
def ranges(draw: st.DrawFn) -> UniswapV3:
    bounds = 30.0 * np.exp(np.cumsum(draw(st.lists(st.floats(1e-3, 0.3), min_size=2, max_size=7))))
    values = st.one_of(st.just(0.0), st.floats(1e2, 1e6))
    each = draw(st.lists(values, min_size=len(bounds) - 1, max_size=len(bounds) - 1))
    each[draw(st.integers(0, len(each) - 1))] = 1e4
    root = bounds[0] + draw(part) * (bounds[-1] - bounds[0])
    return UniswapV3(tuple(bounds.tolist()), tuple(each), min(float(root), float(bounds[-1])), draw(fee))


books = st.one_of(
    st.builds(SquareRoot, st.floats(0.01, 0.3), scale, st.floats(0.3, 1.5)),
    st.builds(Depth, scale),
    st.builds(ContSchaanning, scale.map(lambda v: v * PRICE), st.floats(0.0, 2_500.0)),
    tables(),
)
pools = st.one_of(st.builds(Cpmm, scale, scale.map(lambda v: v * PRICE), fee), ranges())
linear = st.builds(Linear, st.floats(1e-9, 1e-5))
models = st.one_of(books, pools, linear)


def full(value: float, paths: int = PATHS) -> Array:
    return np.full(paths, value)


def size_of(model: ImpactModel) -> float:
    """Return a size at which a sale moves the model's price much."""
    price = model.price(model.start(1), full(PRICE, 1))
    found = model.quantity_to(model.start(1), full(PRICE, 1), price * 0.5)[0]
    return float(found) if np.isfinite(found) and found > 0 else 1.0


def digits(model: ImpactModel) -> float:
    """Return the tokens below which a trade has no digits.

    The state of a V3 pool is its price, so its trades have the digits of the virtual reserves, L / s and L s.
    """
    if isinstance(model, UniswapV3):
        return 1e-12 * max(size_of(model), max(model.liquidity) / model.bounds[0])
    return 1e-12 * size_of(model)


def traded(model: ImpactModel, first: float) -> Array:
    """Return the state after a first sale, or purchase where it is negative."""
    state, price = model.start(PATHS), full(PRICE)
    trade = model.sell if first >= 0 else model.buy
    return trade(state, full(abs(first) * size_of(model)), price).state


@given(models, st.floats(-0.5, 0.8), st.lists(part, min_size=PATHS, max_size=PATHS))
def test_proceeds_are_concave_and_prices_stay_positive(
    model: ImpactModel, first: float, parts: list[float]
) -> None:
    state, price = traded(model, first), full(PRICE)
    quantity = np.sort(parts) * 3 * size_of(model)
    fill = model.sell(state, quantity, price)
    assert (model.price(fill.state, price) > 0).all()
    assert (fill.log_move <= 1e-12).all()
    assert ((fill.tokens >= 0) & (fill.tokens <= quantity)).all()
    best = model.price(state, price)
    assert (fill.cash >= 0).all()
    assert (fill.cash <= fill.tokens * best * (1 + 1e-9) + 2 * PRICE * digits(model)).all()
    # Concave: of three sizes the middle one brings at least what lies on the line between the others.
    points = list(zip(quantity, fill.cash, strict=True))
    for (q0, c0), (q1, c1), (q2, c2) in zip(points, points[1:], points[2:], strict=False):
        if q2 > q0:
            line = c0 + (c2 - c0) * (q1 - q0) / (q2 - q0)
            assert c1 >= line - 1e-9 * c2 - 4 * PRICE * digits(model)


@given(st.one_of(books, st.builds(Cpmm, scale, scale, st.just(0.0)), ranges()), part, st.floats(-0.5, 0.8))
def test_two_sales_are_one(model: ImpactModel, cut: float, first: float) -> None:
    state, price = traded(model, first), full(PRICE)
    whole = full(1.5 * size_of(model))
    once = model.sell(state, whole, price)
    one = model.sell(state, whole * cut, price)
    two = model.sell(one.state, whole - whole * cut, price)
    np.testing.assert_allclose(one.cash + two.cash, once.cash, rtol=1e-9, atol=1e3 * PRICE * digits(model))
    np.testing.assert_allclose(one.log_move + two.log_move, once.log_move, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(one.tokens + two.tokens, once.tokens, rtol=1e-9, atol=digits(model))


@given(books, part, st.floats(-0.5, 0.8))
def test_buying_back_costs_what_selling_brought(model: ImpactModel, quantity: float, first: float) -> None:
    state, price = traded(model, first), full(PRICE)
    sold = model.sell(state, full(quantity * size_of(model)), price)
    back = model.buy(sold.state, sold.tokens, price)
    np.testing.assert_allclose(back.cash, sold.cash, rtol=1e-8, atol=1e-9 * PRICE * size_of(model))
    np.testing.assert_allclose(model.price(back.state, price), model.price(state, price), rtol=1e-8)


@given(pools, st.lists(st.tuples(st.integers(0, 3), st.floats(0, 2)), max_size=6))
def test_pools_lose_no_token_and_no_dollar(model: ImpactModel, acts: list[tuple[int, float]]) -> None:
    state, price = (
        model.start(PATHS),
        np.linspace(0.5, 2.0, PATHS) * model.price(model.start(1), full(PRICE, 1)),
    )
    tokens, cash = model.holdings(state)
    most_tokens, most_cash = tokens.copy(), cash.copy()
    most_tokens = np.maximum(most_tokens, 1e12 * digits(model))
    if isinstance(model, UniswapV3):
        most_cash = np.maximum(most_cash, max(model.liquidity) * model.bounds[-1])
    for act, amount in acts:
        quantity = full(amount * size_of(model)) * np.linspace(0, 1, PATHS)
        if act in (0, 1):
            fill = (model.sell if act == 0 else model.buy)(state, quantity, price)
            sign = 1.0 if act == 0 else -1.0
            tokens, cash, state = tokens + sign * fill.tokens, cash - sign * fill.cash, fill.state
        else:
            flow = model.recover(state, price, 1.0) if act == 2 else model.withdraw(state, full(amount / 4))
            tokens, cash, state = tokens + flow.tokens, cash + flow.cash, flow.state
        most_tokens, most_cash = np.maximum(most_tokens, tokens), np.maximum(most_cash, cash)
        held = model.holdings(state)
        assert (np.abs(held[0] - tokens) <= 1e-12 * most_tokens).all()
        assert (np.abs(held[1] - cash) <= 1e-12 * most_cash).all()
        assert (held[0] >= -1e-12 * most_tokens).all()
        assert (held[1] >= -1e-12 * most_cash).all()
        assert (model.price(state, price) > 0).all()


@given(st.lists(models, min_size=1, max_size=4), part, st.lists(st.floats(0.01, 1), min_size=4, max_size=4))
def test_no_other_split_of_a_sale_brings_more(
    markets: list[ImpactModel], amount: float, weights: list[float]
) -> None:
    states, price = [m.start(PATHS) for m in markets], full(PRICE)
    total = amount * sum(size_of(m) for m in markets)
    quantity = total * np.linspace(0.0, 1.0, PATHS)
    best = split_sale(markets, states, quantity, price)
    room = sum(m.quantity_to(s, price, full(0.0)) for m, s in zip(markets, states, strict=True))
    slack = sum(digits(m) for m in markets)
    np.testing.assert_allclose(np.sum(best, axis=0), np.minimum(quantity, room), rtol=1e-9, atol=slack)

    def brings(parts: list[Array]) -> Array:
        fills = [m.sell(s, q, price) for m, s, q in zip(markets, states, parts, strict=True)]
        return np.asarray(np.sum([f.cash for f in fills], axis=0))

    found = brings(best)
    share = np.array(weights[: len(markets)]) / sum(weights[: len(markets)])
    others = [[w * quantity for w in share]]
    # And a little moved from one market to another.
    for a, b in pairwise(range(len(markets))):
        for one, two in ((a, b), (b, a)):
            moved = [q.copy() for q in best]
            moved[one], moved[two] = moved[one] * 0.9, moved[two] + moved[one] * 0.1
            others.append(moved)
    slack = 1e3 * PRICE * sum(digits(m) for m in markets)
    for other in others:
        assert (found >= brings(other) * (1 - 1e-9) - slack).all()


@given(models, st.floats(0.0, 0.5), st.floats(-0.4, 0.4), st.floats(0.8, 1.1))
def test_the_most_profitable_sale_pays_and_a_greater_does_not(
    model: ImpactModel, bonus: float, first: float, oracle: float
) -> None:
    state, price = traded(model, first), full(PRICE)
    seized = model.price(state, price) * oracle
    most = model.max_profitable_sale(state, price, bonus, 0.01, seized)
    least = seized * 1.01 / (1 + bonus)
    assert (most >= 0).all()
    if not np.isfinite(most).all():
        return
    fill = model.sell(state, most, price)
    slack = 1e3 * PRICE * digits(model)
    assert (fill.cash >= least * fill.tokens * (1 - 1e-9) - slack).all()
    room = model.quantity_to(state, price, full(0.0))
    more = np.minimum(most * 1.001 + 1e-9 * size_of(model), room)
    fill = model.sell(state, more, price)
    assert ((fill.cash <= least * fill.tokens * (1 + 1e-9) + slack) | (most >= room * (1 - 1e-9))).all()


# ------------------------------------------------------------------------------ the exact pool of Uniswap V3

SPACING = 60
TOKEN0, TOKEN1 = "0x" + "11" * 20, "0x" + "22" * 20


@st.composite
def exact_pools(draw: st.DrawFn) -> PoolState:
    """Return a pool of 18 and 6 decimals near 2,000 dollars, with positions at random."""
    middle = -200_311 // SPACING
    low = st.integers(middle - 300, middle + 200)
    made = draw(
        st.lists(st.tuples(low, st.integers(1, 400), st.integers(10**14, 10**17)), min_size=1, max_size=5)
    )
    tick = (middle + draw(st.integers(-100, 100))) * SPACING + draw(st.integers(0, SPACING - 1))
    # One position around the price, so that there is something to trade with.
    made.append((tick // SPACING - 50, 100, 10**16))
    nets: dict[int, int] = {}
    liquidity = 0
    for start, width, amount in made:
        lower, upper = start * SPACING, (start + width) * SPACING
        nets[lower] = nets.get(lower, 0) + amount
        nets[upper] = nets.get(upper, 0) - amount
        liquidity += amount if lower <= tick < upper else 0
    key = PoolKey("0x" + "33" * 20, TOKEN0, TOKEN1, draw(st.sampled_from([0, 500, 3_000])), SPACING)
    root = get_sqrt_ratio_at_tick(tick)
    root += draw(st.integers(0, get_sqrt_ratio_at_tick(tick + 1) - root - 1))
    assert get_tick_at_sqrt_ratio(root) == tick
    ticks = tuple(sorted((t, n) for t, n in nets.items() if n))
    return PoolState(key, root, tick, liquidity, ticks, key.all_words())


@given(exact_pools(), st.floats(1e-4, 30.0), st.booleans(), st.booleans())
@settings(max_examples=60)
def test_amounts_are_those_of_the_exact_pool(pool: PoolState, size: float, token0: bool, sells: bool) -> None:
    decimals, quote = (18, 6) if token0 else (6, 18)
    model = of_pool(pool, TOKEN0 if token0 else TOKEN1, decimals, quote)
    price = full(PRICE, 1)
    held = model.holdings(model.start(1))
    if sells:
        wanted = np.array([size * 0.02 * (held[0][0] + 1e-3)])
        done = swap(pool, token0, int(wanted[0] * 10**decimals))
        token_raw, cash_raw = done.amount_in, done.amount_out
        fill = model.sell(model.start(1), wanted, price)
    else:
        wanted = np.array([size * 0.02 * (held[0][0] + 1e-3)])
        done = swap(pool, not token0, -int(wanted[0] * 10**decimals))
        token_raw, cash_raw = done.amount_out, done.amount_in
        fill = model.buy(model.start(1), wanted, price)
    # Integers of 6 decimals round by a unit at each of the ticks and words crossed, and a unit of one token
    # is worth so much of the other as the price at the end says.
    if not done.filled:
        assert fill.tokens[0] < wanted[0] * (1 + 1e-9)
    unit_tokens, unit_cash = 300 / 10**decimals, 300 / 10**quote
    end = fill.state[0, 0] ** 2 if done.filled else model.start(1)[0, 0] ** 2
    start = model.start(1)[0, 0] ** 2
    assert fill.tokens[0] == pytest.approx(
        token_raw / 10**decimals, rel=1e-9, abs=1e-11 * held[0][0] + unit_tokens
    )
    slack = unit_cash + unit_tokens * max(end, start)
    assert fill.cash[0] == pytest.approx(cash_raw / 10**quote, rel=1e-9, abs=1e-11 * held[1][0] + slack)
    if done.filled:
        exact = done.state.sqrt_price_x96 / 2**96 * 10.0 ** ((18 - 6) / 2)
        exact = exact if token0 else 1 / exact
        thin = min(v for v in model.liquidity if v > 0)
        moved = unit_cash / thin + unit_tokens * end / thin
        assert fill.state[0, 0] == pytest.approx(exact, rel=1e-9, abs=moved)
