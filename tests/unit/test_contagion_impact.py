"""Impact models: closed forms, worked by hand or by quadrature, recovery, tables, pools and refusals."""

from __future__ import annotations

import dataclasses
from typing import Any

import mpmath
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.integrate import quad

from contracts_abi.errors import InputError, UnknownNameError
from simulation.book.types import ExitLiquidity
from simulation.contagion.impact import ImpactModel, bisected_sale, build, impact_models
from simulation.contagion.impact.book import average_move
from simulation.contagion.impact.cont_schaanning import ContSchaanning
from simulation.contagion.impact.cpmm import Cpmm
from simulation.contagion.impact.depth import Depth
from simulation.contagion.impact.linear import Linear
from simulation.contagion.impact.split import split_sale
from simulation.contagion.impact.square_root import SquareRoot
from simulation.contagion.impact.table import Table, of_exit
from simulation.contagion.impact.uniswap_v3 import UniswapV3

Array = NDArray[np.float64]

MODELS: dict[str, ImpactModel] = {
    "linear": Linear(1e-8, half_life_s=600.0, permanent=0.25),
    "square-root": SquareRoot(0.05, 200_000.0, 0.8, half_life_s=600.0, permanent=0.25),
    "depth": Depth(50_000.0, half_life_s=600.0, permanent=0.25),
    "cont-schaanning": ContSchaanning(1e8, 1_200.0, half_life_s=600.0, permanent=0.25),
    "table": Table((10.0, 100.0, 1_000.0, 10_000.0), (0.0005, 0.002, 0.011, 0.09), half_life_s=600.0),
    "cpmm": Cpmm(20_000.0, 4e7, 0.003),
    "uniswap-v3": UniswapV3((30.0, 40.0, 43.0, 44.0, 46.0, 60.0), (1e5, 3e5, 0.0, 2e6, 4e5), 44.72, 0.003),
}
BOOKS = ("linear", "square-root", "depth", "cont-schaanning", "table")
POOLS = ("cpmm", "uniswap-v3")
P = np.array([2_000.0])


def of(*values: float) -> Array:
    return np.array(values, dtype=np.float64)


def after(model: ImpactModel, sold: float) -> Array:
    """Return the state after a first sale."""
    return model.sell(model.start(1), of(sold), P).state


def test_every_model_is_tried_here() -> None:
    assert set(MODELS) == set(impact_models) == {*BOOKS, *POOLS}


@pytest.mark.parametrize("kind", MODELS)
def test_a_model_is_what_its_interface_says(kind: str) -> None:
    model = MODELS[kind]
    assert isinstance(model, ImpactModel)
    assert model.kind == kind
    assert impact_models.get(kind) is type(model)


# ------------------------------------------------------------------------------------------------- formulas


@pytest.mark.parametrize("kind", BOOKS)
@pytest.mark.parametrize("first", [0.0, 300.0])
@pytest.mark.parametrize("sold", [1e-3, 50.0, 4_000.0])
def test_a_sale_brings_the_integral_down_its_curve(kind: str, first: float, sold: float) -> None:
    model = MODELS[kind]
    state = after(model, first)
    fill = model.sell(state, of(sold), P)

    def next_token(q: float) -> float:
        # The linear book measures dollars at the price before the sale, so its curve is that of one sale.
        if kind == "linear":
            p0 = float(model.price(state, P)[0])
            return float(p0 * np.exp(-1e-8 * p0 * q))
        done = model.sell(state, of(q), P)
        return float(model.price(done.state, P)[0])

    knots = np.array([0.0, 10, 100, 1_000]) - first
    wanted = quad(next_token, 0, sold, points=[k for k in knots if 0 < k < sold] or None, limit=200)[0]
    assert fill.cash[0] == pytest.approx(wanted, rel=2e-4 if kind == "table" else 1e-8)
    assert fill.tokens[0] == sold
    moved = np.log(model.price(fill.state, P)[0] / model.price(state, P)[0])
    assert fill.log_move[0] == pytest.approx(moved, abs=1e-12)
    assert fill.log_move[0] < 0


@pytest.mark.parametrize("kind", ["square-root", "depth", "cont-schaanning", "table"])
def test_a_purchase_costs_the_integral_up_its_curve(kind: str) -> None:
    model = MODELS[kind]

    def next_token(q: float) -> float:
        return float(model.price(model.buy(model.start(1), of(q), P).state, P)[0])

    paid = model.buy(model.start(1), of(4_000.0), P)
    wanted = quad(next_token, 0, 4_000.0, points=[10.0, 100.0, 1_000.0], limit=200)[0]
    assert paid.cash[0] == pytest.approx(wanted, rel=1e-5 if kind == "table" else 1e-8)
    assert paid.tokens[0] == 4_000
    assert paid.log_move[0] > 0


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("part", [0.995, 0.91, 0.7])
def test_a_sale_goes_to_the_level_of_its_last_token(kind: str, part: float) -> None:
    model = MODELS[kind]
    state = after(model, 3.0)
    level = model.price(state, P) * part
    far = model.quantity_to(state, P, level)
    if kind == "table" and part == 0.7:
        assert far[0] == 9_997  # all that is left of it
        return
    assert far[0] > 0
    step = far * 1e-4
    brought = model.sell(state, far + step, P).cash - model.sell(state, far - step, P).cash
    assert (brought / (2 * step))[0] == pytest.approx(level[0], rel=1e-6)
    assert model.quantity_to(state, P, model.price(state, P) * 1.001)[0] == 0


def test_formulas_by_hand() -> None:
    dollars = of(1e6)
    assert MODELS["linear"].sell(MODELS["linear"].start(1), dollars / P, P).log_move[0] == -0.01
    root = MODELS["square-root"]
    # A quarter of a day's volume: 0.8 x 0.05 x 1/2.
    assert root.sell(root.start(1), of(50_000.0), P).log_move[0] == pytest.approx(-0.02, rel=1e-14)
    x = 0.02
    wanted = 2_000 * 50_000 * 2 * (1 - np.exp(-x) * (1 + x)) / x**2
    assert root.sell(root.start(1), of(50_000.0), P).cash[0] == pytest.approx(wanted, rel=1e-10)
    deep = MODELS["depth"].sell(MODELS["depth"].start(1), of(25_000.0), P)
    assert deep.log_move[0] == pytest.approx(-0.5, rel=1e-14)
    assert deep.cash[0] == pytest.approx(2_000 * 50_000 * (1 - np.exp(-0.5)), rel=1e-14)
    floor = MODELS["cont-schaanning"]
    psi = 0.4 * (1 - np.exp(-2e7 / (0.4 * 1e8)))
    found = floor.sell(floor.start(1), of(10_000.0), P)
    assert floor.price(found.state, P)[0] == pytest.approx(2_000 * (1 - psi), rel=1e-13)
    n, d = 10_000.0, 0.4e8 / 2_000
    assert found.cash[0] == pytest.approx(1_200 * n + 800 * d * (1 - np.exp(-n / d)), rel=1e-13)
    pool = Cpmm(100.0, 1_000.0, 0.5).sell(of(100.0, 1_000.0)[None], of(100.0), P)
    assert pool.cash[0] == pytest.approx(1_000 * 50 / 150)
    assert pool.state[0] == pytest.approx([200.0, 1_000 * 100 / 150])
    paid = Cpmm(100.0, 1_000.0, 0.5).buy(of(100.0, 1_000.0)[None], of(50.0), P)
    assert paid.cash[0] == pytest.approx(2_000.0)


@pytest.mark.parametrize("ratio", [0.0, 0.3, 0.9])
def test_a_spiral_of_linear_impact_is_the_geometric_series(ratio: float) -> None:
    """Theory test (a): shock x, and every fall of the logarithm liquidates rho dollars a unit."""
    shock, impact = 0.1, 1e-8
    density = ratio / impact
    model = Linear(impact)
    state, price = model.start(1), P * np.exp(-shock)
    fall = shock
    for _ in range(2_000):
        dollars = of(density * fall)
        done = model.sell(state, dollars / model.price(state, price), price)
        state, fall = done.state, -float(done.log_move[0])
    assert np.log(P / model.price(state, price))[0] == pytest.approx(shock / (1 - ratio), rel=1e-12)


def test_small_and_huge_sales_keep_their_digits() -> None:
    root = SquareRoot(0.05, 200_000.0)
    tiny = root.sell(root.start(1), of(1e-12), P)
    assert tiny.cash[0] == pytest.approx(2_000e-12, rel=1e-9)
    assert root.sell(root.start(1), of(0.0), P).cash[0] == 0
    endless = root.sell(root.start(1), of(1e15), P).cash[0]
    assert endless == pytest.approx(2 * 2_000 * 200_000 / 0.05**2, rel=1e-9)
    bought = root.buy(root.start(1), of(200_000.0), P)
    grown = quad(lambda q: np.exp(0.05 * np.sqrt(q / 200_000)), 0, 200_000)[0]
    assert bought.cash[0] == pytest.approx(2_000 * grown, rel=1e-10)
    floor = ContSchaanning(1e6, 1_200.0)
    much = floor.sell(floor.start(1), of(1e9), P)
    assert floor.price(much.state, P)[0] == pytest.approx(1_200, rel=1e-12)
    assert much.cash[0] == pytest.approx(1_200e9, rel=1e-3)


@pytest.mark.parametrize("floor", [0.0, 1_200.0])
def test_buying_from_a_book_with_a_floor_is_the_sale_backwards(floor: float) -> None:
    model = ContSchaanning(1e8, floor)

    def next_token(q: float) -> float:
        return float(model.price(model.buy(model.start(1), of(q), P).state, P)[0])

    paid = model.buy(model.start(1), of(9_000.0), P)
    assert paid.cash[0] == pytest.approx(quad(next_token, 0, 9_000)[0], rel=1e-9)
    down = model.sell(model.start(1), of(9_000.0), P)
    assert paid.log_move[0] == pytest.approx(-down.log_move[0], rel=1e-12)
    assert model.buy(model.start(1), of(1e9), P).cash[0] > 1e12


def test_under_the_floor_there_is_no_impact() -> None:
    model, low = ContSchaanning(1e8, 1_200.0), of(1_100.0)
    fill = model.sell(model.start(1), of(5e5), low)
    assert fill.log_move[0] == 0
    assert fill.cash[0] == pytest.approx(5e5 * 1_100)
    assert model.buy(model.start(1), of(10.0), low).cash[0] == pytest.approx(11_000)


# -------------------------------------------------------------------------------------------------- recovery


@pytest.mark.parametrize("kind", ["linear", "square-root", "depth"])
def test_a_displacement_halves_and_a_part_stays(kind: str) -> None:
    model = MODELS[kind]
    fill = model.sell(model.start(1), of(10_000.0), P)
    gone, fell = np.log(P / model.price(fill.state, P)), -fill.log_move[0]
    assert gone[0] == pytest.approx(fell, rel=1e-12)
    later = model.recover(fill.state, P, 600.0)
    # Half of it is gone, a quarter of that half for ever.
    assert np.log(P / model.price(later.state, P))[0] == pytest.approx(fell * (0.5 + 0.125), rel=1e-9)
    assert later.tokens[0] == later.cash[0] == 0
    state = fill.state
    for _ in range(200):
        state = model.recover(state, P, 300.0).state
    assert np.log(P / model.price(state, P))[0] == pytest.approx(0.25 * fell, rel=1e-6)
    once = model.recover(fill.state, P, 1_200.0).state
    twice = model.recover(later.state, P, 600.0).state
    np.testing.assert_allclose(once, twice, rtol=1e-9, atol=1e-15)


def parameters_of(model: Any) -> list[str]:
    """Return the names of a model's parameters."""
    return [field.name for field in dataclasses.fields(model)]


@pytest.mark.parametrize("kind", BOOKS)
def test_without_a_half_life_nothing_recovers(kind: str) -> None:
    parameters = {k: getattr(MODELS[kind], k) for k in parameters_of(MODELS[kind])}
    model = type(MODELS[kind])(**{**parameters, "half_life_s": float("inf")})
    state = after(model, 500.0)
    assert (model.recover(state, P, 1e6).state == state).all()
    fresh = MODELS[kind].recover(after(MODELS[kind], 500.0), P, 1e6).state
    assert fresh[0, 0] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("kind", POOLS)
@pytest.mark.parametrize("moved", [0.8, 0.999, 1.0, 1.001, 1.25])
def test_arbitrage_ends_where_it_earns_no_more(kind: str, moved: float) -> None:
    model = MODELS[kind]
    price = model.price(model.start(1), P) * moved
    flow = model.recover(model.start(1), price, 12.0)
    earned = -flow.tokens * price - flow.cash
    if abs(moved - 1) <= 0.003:
        assert flow.tokens[0] == flow.cash[0] == 0
    else:
        assert earned[0] > 0
        assert (flow.tokens[0] > 0) == (moved < 1)
    trade = model.sell if moved < 1 else model.buy
    same = trade(model.start(1), np.abs(flow.tokens), price)
    assert same.cash[0] == pytest.approx(abs(flow.cash[0]), rel=1e-9)
    np.testing.assert_allclose(same.state, flow.state, rtol=1e-9)
    for part in (0.99, 1.01):
        # The same trade a little smaller or greater earns less.
        if flow.tokens[0] > 0:
            other = model.sell(model.start(1), flow.tokens * part, price)
            assert other.cash[0] - other.tokens[0] * price[0] < earned[0]
        elif flow.tokens[0] < 0:
            other = model.buy(model.start(1), -flow.tokens * part, price)
            assert other.tokens[0] * price[0] - other.cash[0] < earned[0]
    again = model.recover(flow.state, price, 12.0)
    assert abs(again.tokens[0]) <= 1e-9 * abs(flow.tokens[0])


@pytest.mark.parametrize("kind", MODELS)
def test_withdrawing_keeps_the_price_and_thins_the_market(kind: str) -> None:
    model = MODELS[kind]
    state = after(model, 500.0)
    flow = model.withdraw(state, of(0.75))
    assert model.price(flow.state, P)[0] == pytest.approx(model.price(state, P)[0], rel=1e-12)
    assert (flow.tokens[0] < 0) == (kind in POOLS)
    thin = model.sell(flow.state, of(100.0), P)
    thick = model.sell(state, of(400.0), P)
    if kind != "linear":
        assert thin.log_move[0] == pytest.approx(thick.log_move[0], rel=1e-9)
        assert thin.cash[0] == pytest.approx(thick.cash[0] / 4, rel=1e-9)
    for before, now, moved in zip(model.holdings(state), model.holdings(flow.state), flow[:2], strict=True):
        assert now[0] == pytest.approx(before[0] + moved[0], rel=1e-12)
    with pytest.raises(InputError, match="share of liquidity is 1; use a part"):
        model.withdraw(state, of(1.0))


# ----------------------------------------------------------------------------------------------------- table

SIZES, LOSSES = (10.0, 100.0, 1_000.0), (0.001, 0.004, 0.02)


def test_a_table_is_exact_at_its_rows_and_ends_at_the_last() -> None:
    model = Table(SIZES, LOSSES)
    start = model.start(4)
    asked = of(10, 100, 1_000, 5_000)
    fill = model.sell(start, asked, np.full(4, 50.0))
    np.testing.assert_allclose(fill.cash[:3], 50 * asked[:3] * (1 - np.array(LOSSES)), rtol=1e-13)
    assert fill.tokens.tolist() == [10, 100, 1_000, 1_000]
    assert fill.cash[3] == fill.cash[2]
    assert model.levelled == pytest.approx(0, abs=1e-12)
    more = model.sell(fill.state, of(0, 1, 1, 1), np.full(4, 50.0))
    assert more.tokens.tolist() == [0, 1, 0, 0]


def test_a_rising_price_of_the_next_token_is_levelled() -> None:
    # From 100 to 200 the loss does not grow: the next token would bring more than the one before.
    model = Table((100.0, 200.0), (0.04, 0.04))
    assert model.levelled == pytest.approx(0, abs=1e-9)
    steep = Table((100.0, 200.0, 300.0), (0.02, 0.08, 0.08))
    assert 0 < steep.levelled < 0.08
    cash = steep.sell(steep.start(4), of(100, 200, 300, 300), np.ones(4)).cash
    np.testing.assert_allclose(cash[[0, 2]], [98, 276], rtol=1e-10)
    grid = np.linspace(0, 300, 301)
    prices = steep.price(steep.sell(steep.start(301), grid, np.ones(301)).state, np.ones(301))
    assert (np.diff(prices) <= 1e-12).all()


def test_a_table_from_a_book() -> None:
    exits = ExitLiquidity("WETH", "USDC", "v3", "2024-08-05", "file", np.array(SIZES), np.array(LOSSES))
    assert of_exit(exits, 60.0, 0.1) == Table(SIZES, LOSSES, "2024-08-05", "file", 60.0, 0.1)


@pytest.mark.parametrize(
    ("size", "loss", "line"),
    [
        ((), (), "size has 0 rows"),
        ((1.0,), (0.1, 0.2), "size has 1 rows, slippage 2"),
        ((2.0, 1.0), (0.1, 0.2), "size 1 comes after 2; sizes rise"),
        ((1.0, 2.0), (0.2, 0.1), r"slippage 0.1 of size 2 is not in \[0.2, 1\)"),
        ((1.0,), (1.0,), r"slippage 1 of size 1 is not in \[0, 1\)"),
        ((100.0, 110.0), (0.1, 0.5), "size 110 brings no more than the row before it"),
    ],
)
def test_a_wrong_table_is_told(size: tuple[float, ...], loss: tuple[float, ...], line: str) -> None:
    with pytest.raises(InputError, match=line):
        Table(size, loss)


# -------------------------------------------------------------------------------------- size of a liquidation


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize(("bonus", "costs"), [(0.05, 0.0), (0.08, 0.01)])
def test_the_most_profitable_sale_breaks_even(kind: str, bonus: float, costs: float) -> None:
    model = MODELS[kind]
    state, price = model.start(1), model.price(model.start(1), P)
    most = model.max_profitable_sale(state, price, bonus, costs)
    fill = model.sell(state, most, price)
    slip = 1 - fill.cash[0] / (most[0] * price[0])
    assert (1 + bonus) * (1 - slip) == pytest.approx(1 + costs, rel=1e-9)
    more = model.sell(state, most * 1.001, price)
    assert (1 + bonus) * more.cash[0] < (1 + costs) * more.tokens[0] * price[0]
    least = np.asarray(price * (1 + costs) / (1 + bonus))
    assert bisected_sale(model, state, price, least)[0] == pytest.approx(most[0], rel=1e-9)
    assert model.max_profitable_sale(state, price, 0.0, 0.01)[0] == 0
    # An oracle above the market: the bonus does not make it up.
    assert model.max_profitable_sale(state, price, bonus, costs, price * 1.2)[0] == 0


def test_the_move_of_an_average_price() -> None:
    ratios = 1 - np.array(
        [-0.2, 0, 1e-15, 1e-12, 1e-8, 1e-6, 9e-5, 1.1e-4, 1e-2, 0.1, 0.5, 0.9, 0.999, 1 - 1e-6]
    )
    moves = average_move(ratios)
    assert moves[:2].tolist() == [0, 0]
    with mpmath.workdps(40):
        lost = [float(1 + mpmath.expm1(-mpmath.mpf(z)) / mpmath.mpf(z)) for z in moves[2:]]
    np.testing.assert_allclose(lost, 1 - ratios[2:], rtol=1e-11)


def test_sales_that_always_pay() -> None:
    floor = MODELS["cont-schaanning"]
    assert floor.max_profitable_sale(floor.start(1), P, 0.8)[0] == np.inf
    table = MODELS["table"]
    assert table.max_profitable_sale(table.start(2), of(2_000.0, 2_000.0), of(0.5, 0.05))[0] == 10_000
    pool = MODELS["uniswap-v3"]
    everything = pool.max_profitable_sale(pool.start(1), P, 3.0)
    assert everything[0] == pytest.approx(pool.quantity_to(pool.start(1), P, of(0.0))[0], rel=1e-12)


# ------------------------------------------------------------------------------------------------------ pools


def test_liquidity_without_a_gap_is_a_constant_product() -> None:
    """One range over nearly all prices has the virtual reserves of a pool of constant product."""
    wide = UniswapV3((1e-9, 1e9), (1e6,), 44.0, 0.003)
    plain = Cpmm(1e6 / 44, 1e6 * 44, 0.003)
    for quantity in (1.0, 1_000.0, 60_000.0):
        one = wide.sell(wide.start(1), of(quantity), P)
        two = plain.sell(plain.start(1), of(quantity), P)
        assert one.cash[0] == pytest.approx(two.cash[0], rel=1e-10)
        bought = wide.buy(wide.start(1), of(quantity / 10), P).cash[0]
        assert bought == pytest.approx(plain.buy(plain.start(1), of(quantity / 10), P).cash[0], rel=1e-10)


def test_a_pool_takes_no_more_than_moves_it_to_its_end() -> None:
    pool = MODELS["uniswap-v3"]
    room = pool.quantity_to(pool.start(1), P, of(0.0))
    fill = pool.sell(pool.start(1), room * 2, P)
    assert fill.tokens[0] == pytest.approx(room[0], rel=1e-12)
    assert fill.state[0, 0] == 30.0
    held = pool.holdings(pool.start(1))
    assert fill.cash[0] == pytest.approx(held[1][0], rel=1e-12)
    empty = pool.sell(fill.state, of(1.0), P)
    assert empty.tokens[0] == empty.cash[0] == empty.log_move[0] == 0
    bought = pool.buy(pool.start(1), of(1e9), P)
    assert bought.tokens[0] == pytest.approx(held[0][0], rel=1e-12)
    assert bought.state[0, 0] == 60.0
    assert pool.buy(bought.state, of(1.0), P).tokens[0] == 0
    drained = Cpmm(10.0, 10.0, 0.0)
    assert drained.buy(drained.start(1), of(50.0), P).tokens[0] == pytest.approx(9.9)


# -------------------------------------------------------------------------------------------- split, refusals


def test_a_split_over_alike_pools_is_in_proportion() -> None:
    models: list[ImpactModel] = [Cpmm(100.0, 2e5, 0.003), Cpmm(300.0, 6e5, 0.003), Cpmm(10.0, 1_000.0, 0.003)]
    states = [m.start(2) for m in models]
    parts = split_sale(models, states, of(40.0, 0.0), np.full(2, 2_000.0))
    np.testing.assert_allclose(parts, [[10, 0], [30, 0], [0, 0]], rtol=1e-10, atol=1e-10)


def test_a_split_stops_where_all_markets_end() -> None:
    models: list[ImpactModel] = [Table((10.0,), (0.01,)), Table((20.0,), (0.5,))]
    parts = split_sale(models, [m.start(3) for m in models], of(100.0, 30.0, 5.0), of(1.0, 1.0, 1.0))
    np.testing.assert_allclose(np.sum(parts, axis=0), [30, 30, 5], rtol=1e-12)
    assert parts[0][2] > 4.5
    with pytest.raises(InputError, match="0 markets"):
        split_sale([], [], of(1.0), P)


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("quantity", [-1.0, np.nan])
def test_a_quantity_is_no_negative(kind: str, quantity: float) -> None:
    model = MODELS[kind]
    for trade in (model.sell, model.buy):
        with pytest.raises(InputError, match=r"quantity is (-1|nan)"):
            trade(model.start(2), of(1.0, quantity), of(1.0, 1.0))


def test_a_model_is_built_from_a_table() -> None:
    assert build({"model": "depth", "depth_tokens": 5}) == Depth(5.0)
    table = {"model": "table", "size": [1, 2], "slippage": [0.1, 0.2], "date": "2024-08-05"}
    assert build(table) == Table((1.0, 2.0), (0.1, 0.2), "2024-08-05")


BOUNDS: dict[str, Any] = {"model": "uniswap-v3", "root": 1.5}


@pytest.mark.parametrize(
    ("table", "line"),
    [
        ({}, "impact: model is missing; known: cont-schaanning, cpmm"),
        ({"model": "deep"}, "unknown impact model 'deep'; did you mean 'depth'"),
        ({"model": "depth"}, "impact: depth_tokens is missing"),
        ({"model": "depth", "depth": 1.0}, "unknown key of impact 'depth'; did you mean 'depth_tokens'"),
        ({"model": "depth", "depth_tokens": "5"}, "impact: depth_tokens is '5'; it must be a number"),
        ({"model": "depth", "depth_tokens": True}, "depth_tokens is True; it must be a number"),
        ({"model": "depth", "depth_tokens": 0.0}, "impact: depth_tokens is 0; it must be positive"),
        ({"model": "depth", "depth_tokens": 1.0, "half_life_s": 0}, "half_life_s is 0"),
        (
            {"model": "linear", "per_dollar": 1.0, "permanent": 1.5},
            r"permanent is 1.5; it must be in \[0, 1\]",
        ),
        ({"model": "cont-schaanning", "depth_usd": 1.0, "floor_price": -1.0}, "floor_price is -1"),
        ({"model": "cpmm", "tokens": 1.0, "cash": 1.0, "fee": 1.0}, "fee is 1; it must be in"),
        ({"model": "table", "size": 1.0, "slippage": [0.1]}, "size is 1.0; it must be a list of numbers"),
        ({"model": "table", "size": [1], "slippage": [0.1], "date": 5}, "date is 5; it must be a text"),
        ({**BOUNDS, "bounds": [1, 2], "liquidity": [1, 1]}, "2 bounds for 2 of liquidity"),
        ({**BOUNDS, "bounds": [2, 1], "liquidity": [1]}, "bounds do not rise"),
        ({**BOUNDS, "bounds": [1, 2], "liquidity": [0]}, "none above"),
        ({**BOUNDS, "bounds": [2, 3], "liquidity": [1]}, "root 1.5 is not within the bounds; 2 to 3"),
    ],
)
def test_a_wrong_model_is_one_line(table: dict[str, Any], line: str) -> None:
    with pytest.raises(InputError, match=line) as refused:
        build(table)
    assert "\n" not in str(refused.value)
    assert isinstance(refused.value, InputError | UnknownNameError)
