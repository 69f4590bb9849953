"""What a sale costs: quoted in a pool, by a formula, and refused where a table cannot be."""

from __future__ import annotations

import math

import numpy as np
import pytest

from contracts_abi.errors import DataError, InputError
from simulation.amm.uniswap_v3 import PoolKey, PoolState, get_sqrt_ratio_at_tick, swap
from simulation.book.exits import ExitModel, table_of_csv, table_of_model, table_of_pool
from simulation.book.types import Token

KEY = PoolKey("0x" + "aa" * 20, "0x" + "01" * 20, "0x" + "02" * 20, 3_000, 60)
WETH, USDC = Token("WETH", 18, 2_000.0), Token("USDC", 6, 1.0)
HEAD = ("WETH", "USDC", "somewhere", "2026-04-01")


def pool(reach: int = 887_220) -> PoolState:
    """Return a pool with the same liquidity at all prices, at about 2,000 USDC for a WETH."""
    tick = -200_311  # 1.0001 ** tick is 2e-9 raw USDC for a raw WETH
    liquidity = 10**17
    words = range(KEY.word_of(tick - reach), KEY.word_of(tick + reach) + 1)
    ticks = ((-887_220, liquidity), (887_220, -liquidity))
    inside = tuple(t for t in ticks if KEY.word_of(t[0]) in words)
    return PoolState(KEY, get_sqrt_ratio_at_tick(tick), tick, liquidity, inside, words)


def test_a_pools_table_is_its_own_quotes() -> None:
    state = pool()
    found = table_of_pool(
        state, WETH, USDC, sold_is_token0=True, when="2026-04-01", source="here", sizes=[0.1, 1, 1e3]
    )
    price = (state.sqrt_price_x96 / 2**96) ** 2
    for size, slippage in zip(found.size, found.slippage, strict=True):
        raw = int(size * 10**18)
        got = swap(state, True, raw).amount_out
        assert slippage == pytest.approx(1 - got / (raw * price), abs=1e-9)
    # The fee alone for what is small, and x y = k less the fee for what is large.
    assert found.slippage[0] == pytest.approx(0.003, abs=1e-3)
    reserve = state.liquidity / (state.sqrt_price_x96 / 2**96)
    inside = 1e3 * 1e18 * 0.997
    assert found.slippage[2] == pytest.approx(1 - 0.997 / (1 + inside / reserve), rel=1e-6)
    assert found.venue == "uniswap-v3 0.3%"


def test_the_other_direction_has_the_inverse_price() -> None:
    state = pool()
    found = table_of_pool(
        state, USDC, WETH, sold_is_token0=False, when="2026-04-01", source="here", sizes=[1.0]
    )
    assert found.slippage[0] == pytest.approx(0.003, abs=1e-4)


def test_sizes_are_chosen_by_the_pool() -> None:
    found = table_of_pool(pool(), WETH, USDC, sold_is_token0=True, when="2026-04-01", source="here")
    assert len(found.size) > 15
    assert found.slippage[0] < 0.004
    assert 0.8 < found.slippage[-1] < 0.95


def test_a_table_ends_where_the_ticks_that_were_read_end() -> None:
    whole = table_of_pool(pool(), WETH, USDC, sold_is_token0=True, when="2026-04-01", source="here")
    near = table_of_pool(pool(2_000), WETH, USDC, sold_is_token0=True, when="2026-04-01", source="here")
    assert 0 < len(near.size) < len(whole.size)
    assert near.slippage.tolist() == whole.slippage[: len(near.size)].tolist()
    with pytest.raises(DataError, match="no sale of WETH can be quoted"):
        table_of_pool(
            pool(2_000), WETH, USDC, sold_is_token0=True, when="2026-04-01", source="", sizes=[1e12]
        )


def test_the_formulas_are_those_of_the_papers() -> None:
    law = ExitModel(kind="sqrt", smallest=1.0, largest=400.0, points=3, volume=1e4, volatility=0.05)
    found = table_of_model(*HEAD, law)
    assert found.size.tolist() == pytest.approx([1, 20, 400])
    assert found.slippage[2] == pytest.approx(1 - math.exp(-0.05 * 0.2))
    assert found.source == "model: square-root law, coefficient 1, volatility 0.05 a day, volume 10000 a day"
    depth = ExitModel(kind="depth", smallest=1.0, largest=1e9, points=3, depth=1e3, floor=0.25)
    found = table_of_model(*HEAD, depth, source="by hand")
    # First as its slope says, in the end all but the floor.
    assert found.slippage[0] == pytest.approx(1 / 1e3, rel=1e-3)
    assert found.slippage[2] == pytest.approx(0.75)
    assert found.source == "by hand; model: exponential depth 1000, floor 0.25"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"size,slippage\n1,0.1\n2,0.05\n", "slippage.1 0.05 is below 0.1"),
        (b"size,slippage\n2,0.1\n1,0.2\n", "size.1 1 is not above 2"),
        (b"size,slippage\n1,nan\n", r"slippage.0 nan is not in \[0, 1\)"),
        (b"size,slippage\ninf,0.1\n", "size.0 inf"),
        (b"size,slippage\n1,-0.1\n", "slippage.0 -0.1"),
        (b"size,slippage\n", "0 sizes"),
        (b"size,slip\n1,0.1\n", "no header size,slippage"),
        (b"size,slippage\n1,0.1,2\n", "line 2"),
        (b"\xff", "no UTF-8"),
    ],
)
def test_tables_that_cannot_be_are_refused(content: bytes, words: str) -> None:
    with pytest.raises(InputError, match=words):
        table_of_csv(*HEAD, content, source="x", where="x.csv")


def test_a_csv_is_taken_as_it_stands() -> None:
    found = table_of_csv(*HEAD, b"size,slippage\r\n1,0\r\n\r\n2,0.5\r\n", source="desk")
    assert np.array_equal(found.size, [1.0, 2.0])
    assert np.array_equal(found.slippage, [0.0, 0.5])
    assert (found.token, found.quote, found.source) == ("WETH", "USDC", "desk")
    with pytest.raises(InputError, match="sold for itself"):
        table_of_csv("WETH", "WETH", "x", "2026-04-01", b"size,slippage\n1,0\n", source="")
