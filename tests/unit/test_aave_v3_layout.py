"""A market found from its provider and read, by answers made up here."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

import pytest
from eth_abi.abi import encode
from eth_utils.address import to_checksum_address

from contracts_abi import aave_v3 as abi
from contracts_abi.calls import Function
from contracts_abi.errors import DataError
from simulation.fixed_point import RAY
from simulation.protocols.aave_v3 import AaveV3
from simulation.protocols.aave_v3.layout import (
    ZERO_ADDRESS,
    AaveLayout,
    Answers,
    Reads,
    discover_layout,
    run_stages,
    told_apart,
)
from simulation.protocols.aave_v3.pool_adapter import IS_LIQUIDATION_ALLOWED

PROVIDER, POOL, ORACLE, TREASURY = (f"0x{i:040x}" for i in (1, 2, 3, 4))
NOW = 1_600_000_000
TOKENS = ["0x" + byte * 20 for byte in ("a1", "b2", "c3", "d4")]
MKR = b"MKR".ljust(32, b"\0")
"""What the token answered long before symbols were strings."""


def string(text: str) -> bytes:
    return encode(["string"], [text])


@dataclass(frozen=True)
class Market:
    """What the contracts of a market answer.

    Attributes
    ----------
    symbols
        Answers of the tokens' ``symbol()``.
    listed
        How many of `TOKENS` the pool lists.
    e_mode_source
        Price source of eMode category 1.
    """

    symbols: tuple[bytes, ...] = (encode(["string"], ["WETH"]), encode(["string"], ["USDC"]))
    listed: int = 2
    oracle: str = ORACLE
    sentinel: str = ZERO_ADDRESS
    e_mode_source: str = ZERO_ADDRESS

    def ask(self, calls: Reads) -> Answers:
        return [self.answer(call.to, call.data) for call in calls]

    def answer(self, to: str, data: bytes) -> bytes:
        if data[:4] == abi.SYMBOL.selector:
            return self.symbols[TOKENS.index(to.lower())]
        values: dict[Function, Any] = {
            abi.GET_POOL: POOL,
            abi.GET_PRICE_ORACLE: self.oracle,
            abi.GET_PRICE_ORACLE_SENTINEL: self.sentinel,
            IS_LIQUIDATION_ALLOWED: True,
            abi.GET_RESERVES_LIST: TOKENS[: self.listed],
            abi.FLASHLOAN_PREMIUM_TOTAL: 5,
            abi.BASE_CURRENCY_UNIT: 10**8,
            abi.ERC20_DECIMALS: 18,
            abi.RESERVE_TREASURY_ADDRESS: TREASURY,
            abi.SCALED_TOTAL_SUPPLY: 0,
            abi.TOTAL_SUPPLY: 0,
            abi.BALANCE_OF: 10**24,
            abi.GET_ASSET_PRICE: 10**8,
        }
        if data[:4] == abi.GET_EMODE_CATEGORY_DATA.selector:
            configured = abi.GET_EMODE_CATEGORY_DATA.decode_inputs(data) == (1,)
            parameters = (9_300, 9_500, 10_100, self.e_mode_source, "one")
            values[abi.GET_EMODE_CATEGORY_DATA] = parameters if configured else (0, 0, 0, ZERO_ADDRESS, "")
        if data[:4] == abi.GET_RESERVE_DATA.selector:
            (asset,) = abi.GET_RESERVE_DATA.decode_inputs(data)
            number = TOKENS.index(asset)
            own = [f"0x{10 * i + number:040x}" for i in (1, 2, 3, 4)]
            values[abi.GET_RESERVE_DATA] = ((0,), RAY, 0, RAY, 0, 0, 0, number, *own, 0, 0, 0)
        found = {fn.selector: (fn, value) for fn, value in values.items()}
        fn, value = found[data[:4]]
        return encode(fn.outputs, [value])

    def layout(self) -> AaveLayout:
        return run_stages(discover_layout(PROVIDER), self.ask)


MARKET = Market()


def discovered(symbols: list[bytes]) -> AaveLayout:
    """Return the layout of a market whose tokens answer `symbols`."""
    return Market(symbols=tuple(symbols), listed=len(symbols)).layout()


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


def test_a_market_is_read_as_it_was_found() -> None:
    adapter = AaveV3(MARKET.layout())
    market = adapter.decode_market(MARKET.ask(adapter.market_reads()), block=1, timestamp=NOW)
    assert adapter.prices_base(market) == {"WETH": 10**8, "USDC": 10**8}
    assert (market.flash_loan_premium_bps, market.liquidation_allowed) == (5, None)


@pytest.mark.parametrize(
    ("now", "message"),
    [
        (replace(MARKET, listed=3), f"reserves were listed or dropped: {to_checksum_address(TOKENS[2])}"),
        (replace(MARKET, listed=1), f"reserves were listed or dropped: {to_checksum_address(TOKENS[1])}"),
        (replace(MARKET, oracle=POOL), f"the market's oracle is {POOL}, expected {ORACLE}"),
        (replace(MARKET, sentinel=POOL), f"price oracle sentinel is {POOL}, expected none"),
        (replace(MARKET, e_mode_source=ORACLE), f"eMode category 1 is {ORACLE}, expected none"),
    ],
)
def test_a_market_that_governance_changed_is_not_read_by_its_old_layout(now: Market, message: str) -> None:
    adapter = AaveV3(MARKET.layout())
    with pytest.raises(DataError, match=re.escape(message)):
        adapter.decode_market(now.ask(adapter.market_reads()), block=1, timestamp=NOW)
