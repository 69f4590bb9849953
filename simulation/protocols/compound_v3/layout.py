"""Where the parts of one Comet are, found from its address."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from contracts_abi import aave_v3 as erc20
from contracts_abi import compound_v3 as abi
from contracts_abi.errors import DataError
from simulation.protocols.aave_v3.layout import Reads, Staged, answer_all, told_apart
from simulation.types import Asset

MAX_ASSETS: Final = 24
"""Of a Comet with an asset list of its own; the plain one holds 12."""


@dataclass(frozen=True, slots=True)
class CometLayout:
    """Addresses of one market, enough to read it in one round of calls.

    Attributes
    ----------
    comet
        The contract (its proxy).
    base
        The token that is lent.
    base_price_feed
        Prices it.
    collaterals
        The other tokens in the contract's order, with symbols that no other has.
    price_feeds
        Prices them, in the same order.
    """

    comet: str
    base: Asset
    base_price_feed: str
    collaterals: tuple[Asset, ...]
    price_feeds: tuple[str, ...]


def discover_layout(comet: str) -> Staged[CometLayout]:
    """Find a market's parts, in stages; `aave_v3.layout.run_stages` drives it.

    Raises
    ------
    DataError
        If a read fails, as it does where there is no Comet.
    """
    calls: Reads = [
        abi.BASE_TOKEN.call(comet, label="comet.baseToken"),
        abi.BASE_TOKEN_PRICE_FEED.call(comet, label="comet.baseTokenPriceFeed"),
        abi.NUM_ASSETS.call(comet, label="comet.numAssets"),
    ]
    base, base_price_feed, count = answer_all(calls, (yield calls))
    if count > MAX_ASSETS:
        raise DataError(f"Comet {comet} lists {count} assets, at most {MAX_ASSETS} are supported")

    calls = [abi.GET_ASSET_INFO.call(comet, i, label=f"comet.getAssetInfo({i})") for i in range(count)]
    infos = answer_all(calls, (yield calls)) if calls else []
    tokens = [base, *(info[1] for info in infos)]

    calls = []
    for token in tokens:
        calls += [erc20.symbol_call(token), erc20.ERC20_DECIMALS.call(token, label=f"decimals of {token}")]
    answers = answer_all(calls, (yield calls))
    symbols = told_apart(answers[::2], tokens)
    assets = [Asset(*of) for of in zip(symbols, tokens, answers[1::2], strict=True)]
    return CometLayout(comet, assets[0], base_price_feed, tuple(assets[1:]), tuple(i[2] for i in infos))
