"""A market found from its provider, by answers made up here: the names that its prices are kept under."""

from __future__ import annotations

from typing import Any

import pytest
from eth_abi.abi import encode

from contracts_abi import aave_v3 as abi
from contracts_abi.calls import Function
from contracts_abi.errors import DataError
from simulation.protocols.aave_v3.layout import (
    ZERO_ADDRESS,
    AaveLayout,
    Answers,
    Reads,
    discover_layout,
    run_stages,
    told_apart,
)

PROVIDER, POOL, ORACLE, TREASURY = (f"0x{i:040x}" for i in (1, 2, 3, 4))
TOKENS = ["0x" + byte * 20 for byte in ("a1", "b2", "c3", "d4")]
MKR = b"MKR".ljust(32, b"\0")
"""What the token answered long before symbols were strings."""


def string(text: str) -> bytes:
    return encode(["string"], [text])


def discovered(symbols: list[bytes]) -> AaveLayout:
    """Return the layout of a market whose tokens answer `symbols`."""

    def answer(fn: Function, *values: Any) -> bytes:
        return encode(fn.outputs, values)

    tokens = TOKENS[: len(symbols)]
    by_selector = {
        abi.GET_POOL.selector: answer(abi.GET_POOL, POOL),
        abi.GET_PRICE_ORACLE.selector: answer(abi.GET_PRICE_ORACLE, ORACLE),
        abi.GET_PRICE_ORACLE_SENTINEL.selector: answer(abi.GET_PRICE_ORACLE_SENTINEL, ZERO_ADDRESS),
        abi.GET_RESERVES_LIST.selector: answer(abi.GET_RESERVES_LIST, tokens),
        abi.BASE_CURRENCY_UNIT.selector: answer(abi.BASE_CURRENCY_UNIT, 10**8),
        abi.GET_EMODE_CATEGORY_DATA.selector: answer(
            abi.GET_EMODE_CATEGORY_DATA, (0, 0, 0, ZERO_ADDRESS, "")
        ),
        abi.ERC20_DECIMALS.selector: answer(abi.ERC20_DECIMALS, 18),
        abi.RESERVE_TREASURY_ADDRESS.selector: answer(abi.RESERVE_TREASURY_ADDRESS, TREASURY),
    }

    def one(to: str, data: bytes) -> bytes:
        if data[:4] == abi.SYMBOL.selector:
            return symbols[[t.lower() for t in tokens].index(to.lower())]
        if data[:4] == abi.GET_RESERVE_DATA.selector:
            (asset,) = abi.GET_RESERVE_DATA.decode_inputs(data)
            token = [f"0x{10 * i + tokens.index(asset):040x}" for i in (1, 2, 3, 4)]
            data_of = ((0,), 0, 0, 0, 0, 0, 0, tokens.index(asset), *token, 0, 0, 0)
            return encode(abi.GET_RESERVE_DATA.outputs, [data_of])
        return by_selector[data[:4]]

    def execute(calls: Reads) -> Answers:
        return [one(call.to, call.data) for call in calls]

    return run_stages(discover_layout(PROVIDER), execute)


def symbols_of(layout: AaveLayout) -> list[str]:
    return [reserve.asset.symbol for reserve in layout.reserves]


def test_symbols_are_the_names_where_they_are_unique() -> None:
    layout = discovered([string("WETH"), string("USDC"), MKR])
    assert symbols_of(layout) == ["WETH", "USDC", "MKR"]
    assert layout.reserve_of("MKR").asset.decimals == 18


def test_tokens_of_one_symbol_keep_prices_of_their_own() -> None:
    layout = discovered([string("USDC"), string("WETH"), string("USDC")])
    assert symbols_of(layout) == ["USDC-a1a1a1a1", "WETH", "USDC-c3c3c3c3"]
    assert [r.asset.address.lower() for r in layout.reserves] == TOKENS[:3]


@pytest.mark.parametrize(
    ("symbol", "name"),
    [
        ("emode-1", "emode-1-a1a1a1a1"),
        ("", "token-a1a1a1a1"),
        ("US\x1b[31mD\n", "US[31mD"),
        ("USD₮0", "USD₮0"),
    ],
)
def test_a_name_is_printable_and_no_category(symbol: str, name: str) -> None:
    assert told_apart([symbol, "WETH"], TOKENS[:2]) == [name, "WETH"]


def test_a_symbol_that_is_neither_text_nor_word_is_named() -> None:
    with pytest.raises(DataError, match=r"symbol: 33 bytes do not decode"):
        discovered([b"\xff" * 33])
