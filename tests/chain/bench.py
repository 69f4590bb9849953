"""Opens positions on a deployed market, one by one, and moves its prices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from contracts_abi import aave_v3
from contracts_abi.calls import Function
from simulation.chain import feeds
from simulation.chain.aave_v3 import mint
from simulation.chain.evm import Evm, TxResult, labelled_address, read, transact
from simulation.chain.market import DeployedAsset, Deployment

E8 = 10**8
MAX_UINT256 = 2**256 - 1


class Bench:
    """A market with liquidity in every reserve.

    Amounts are given in whole USD at the prices of the moment.
    """

    def __init__(self, evm: Evm, market: Deployment) -> None:
        self.evm, self.market = evm, market
        bank = labelled_address("bank")
        for symbol in market.assets:
            self.supply(bank, symbol, 10_000_000)

    @property
    def assets(self) -> tuple[DeployedAsset, ...]:
        """Reserves in order of their id."""
        return tuple(self.market.assets.values())

    def price_e8(self, symbol: str) -> int:
        asset = self.market.asset(symbol).address
        return int(read(self.evm, aave_v3.GET_ASSET_PRICE.call(self.market.oracle, asset)))

    def move(self, symbol: str, percent: int) -> None:
        """Post a price that differs by `percent` from the last, rounded down."""
        price = self.price_e8(symbol) * (100 + percent) // 100
        feeds.post(self.evm, self.market.deployer, self.market.asset(symbol).feed, price)

    def raw(self, symbol: str, usd: int) -> int:
        """Return what `usd` dollars are in token units."""
        return int(usd * E8 * 10 ** self.market.asset(symbol).decimals // self.price_e8(symbol))

    def pool(self, sender: str, fn: Function, *args: Any) -> TxResult:
        """Call the lending pool."""
        return transact(self.evm, sender, self.market.pool, fn, *args)

    def balance(self, symbol: str, account: str) -> int:
        return int(read(self.evm, aave_v3.BALANCE_OF.call(self.market.asset(symbol).address, account)))

    def mint(self, symbol: str, account: str, amount_raw: int) -> None:
        mint(self.evm, self.market.deployer, self.market.asset(symbol).address, account, amount_raw)

    def supply(self, account: str, symbol: str, usd: int) -> None:
        asset, amount = self.market.asset(symbol).address, self.raw(symbol, usd)
        self.mint(symbol, account, amount)
        transact(self.evm, account, asset, aave_v3.APPROVE, self.market.pool, amount)
        self.pool(account, aave_v3.SUPPLY, asset, amount, account, 0)

    def borrow(self, account: str, symbol: str, usd: int) -> None:
        asset = self.market.asset(symbol).address
        self.pool(
            account,
            aave_v3.BORROW,
            asset,
            self.raw(symbol, usd),
            aave_v3.VARIABLE_RATE_MODE,
            0,
            account,
        )

    def account(
        self, label: str, collateral: Mapping[str, int], debt: Mapping[str, int], *, category: int = 0
    ) -> str:
        """Open an account and return its address."""
        account = labelled_address(label)
        for symbol, usd in collateral.items():
            self.supply(account, symbol, usd)
        if category:
            self.pool(account, aave_v3.SET_USER_EMODE, category)
        for symbol, usd in debt.items():
            self.borrow(account, symbol, usd)
        return account

    def debt_raw(self, account: str, symbol: str) -> int:
        return int(read(self.evm, aave_v3.BALANCE_OF.call(self.market.asset(symbol).v_token, account)))

    def health_factor_wad(self, account: str) -> int:
        return int(read(self.evm, aave_v3.GET_USER_ACCOUNT_DATA.call(self.market.pool, account))[5])
