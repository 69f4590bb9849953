"""How commands write values and tables for people, and what brings an account to its limit."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from keeper.commands.console import address_text, amount_text, health_text, remarked_table
from keeper.explain import trigger_prices
from simulation.types import Asset, Book

WAD = 10**18
ADDRESS = "0xCDDD185eF0dfa63d89B4b90bBB5183CaD2509427"


@pytest.mark.parametrize(
    ("wad", "text"),
    [
        (None, "?"),
        (0, "0.0000"),
        (WAD, "1.0000"),
        (WAD - 1, "0.9999"),
        (99_996 * WAD // 100_000, "0.9999"),
        (10 * WAD - 1, "9.9999"),
        (10 * WAD, "10.00"),
        (100 * WAD, ">100"),
        (2**256 - 1, ">100"),
    ],
)
def test_a_health_factor_is_never_rounded_up(wad: int | None, text: str) -> None:
    assert health_text(wad) == text


@settings(deadline=None)
@given(st.integers(0, 2**256 - 1))
def test_a_health_factor_below_one_reads_below_one(wad: int) -> None:
    text = health_text(wad)
    assert len(text) <= 6
    assert (float(text.removeprefix(">")) < 1) == (wad < WAD)


@pytest.mark.parametrize(
    ("raw", "decimals", "text"),
    [
        (0, 6, "0.00"),
        (21_999_240_079, 6, "21,999.24"),
        (10_857, 6, "0.01086"),
        (-1_500_000, 6, "-1.50"),
        (1, 18, "1e-18"),
    ],
)
def test_amounts_of_tokens(raw: int, decimals: int, text: str) -> None:
    assert amount_text(raw, decimals) == text


def test_addresses_are_whole_where_there_is_room() -> None:
    assert address_text(ADDRESS, 200) == ADDRESS
    assert address_text(ADDRESS, 80) == "0xCDDD…9427"


@pytest.mark.parametrize("width", [40, 80, 120])
def test_only_the_remark_gives_way(width: int) -> None:
    console = Console(file=(stream := io.StringIO()), width=width)
    rows = [((ADDRESS[:11], "[red]hold[/]"), "a long [remark] " * 20), (("0x2", "act"), "")]
    console.print(remarked_table(console, ("account", "action"), "why", rows))
    lines = stream.getvalue().splitlines()
    assert len(lines) == 4
    assert max(map(len, lines)) <= width
    assert ADDRESS[:11] in lines[2]
    assert "hold" in lines[2]
    assert ("a long [remark]" in lines[2]) == (width >= 80)


def book(*positions: tuple[int, int, float, float]) -> Book:
    """Return a book of one account: asset, kind, amount, weight."""
    asset, kind, amount, weight = zip(*positions, strict=True) if positions else ((), (), (), ())
    return Book(
        accounts=(ADDRESS,),
        protocols=("p",),
        assets=(Asset("WETH", "0x1", 18), Asset("USDC", "0x2", 6), Asset("DAI", "0x3", 18)),
        protocol=np.zeros(1, np.int32),
        row_ptr=np.array([0, len(positions)], np.int64),
        asset=np.array(asset, np.int32),
        kind=np.array(kind, np.int8),
        amount=np.array(amount, np.float64),
        weight=np.array(weight, np.float64),
        block=1,
        timestamp=1,
        known=np.ones(1, np.bool_),
        exact=[None],
    )


def test_trigger_prices_by_hand() -> None:
    # 10 WETH at 200 and 80 % against 1,000 USDC: 10 * p * 0.8 = 1000.
    found = trigger_prices(book((0, 0, 10, 0.8), (1, 1, 1_000, 1)), 0, np.array([200.0, 1.0, np.nan]))
    assert found == {"WETH": pytest.approx(125), "USDC": pytest.approx(1.6)}


def test_the_same_asset_on_both_sides_counts_net() -> None:
    # 100 * 0.8 - 60 = 20 DAI net against 10 USDC.
    found = trigger_prices(book((2, 0, 100, 0.8), (2, 1, 60, 1), (1, 1, 10, 1)), 0, np.array([1.0, 1.0, 1.0]))
    assert found == {"DAI": pytest.approx(0.5), "USDC": pytest.approx(2)}


def test_what_no_price_can_do_and_what_is_not_known() -> None:
    both = book((0, 0, 10, 0.8), (2, 0, 5_000, 0.8), (1, 1, 1_000, 1))
    found = trigger_prices(both, 0, np.array([200.0, 1.0, 1.0]))
    assert found["WETH"] is None, "the other collateral carries it alone"
    unknown = trigger_prices(both, 0, np.array([np.nan, 1.0, 1.0]))
    assert unknown["WETH"] is None
    assert unknown["DAI"] is None
    assert trigger_prices(book(), 0, np.array([1.0, 1.0, 1.0])) == {}
