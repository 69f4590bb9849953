"""A seeded book after a crash, on the in-process EVM, with what it takes to read it and to act on it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from contracts_abi import aave_v3, liquidator, uniswap_v3
from contracts_abi.calls import Call
from contracts_abi.errors import CallReverted
from simulation.amm import uniswap_v3 as amm
from simulation.chain import feeds, revm
from simulation.chain.aave_v3 import deploy_aave, mint
from simulation.chain.aave_v3_6 import deploy_aave_v3_6
from simulation.chain.artifacts import own
from simulation.chain.deploy import DeployAave, deploy_market
from simulation.chain.evm import ZERO_ADDRESS, Evm, labelled_address, read, transact
from simulation.chain.market import DEFAULT_MARKET, GENESIS, DeployedPool, Deployment, with_morpho
from simulation.chain.seed import (
    MorphoSeedAccount,
    SeedAccount,
    draw_book,
    open_book,
    open_morpho_book,
)
from simulation.chain.solc import is_compiled
from simulation.liquidation import Executable
from simulation.protocols.aave_v3 import AaveAccount
from simulation.protocols.aave_v3.adapter import AaveV3
from simulation.protocols.aave_v3.layout import discover_layout, run_stages
from simulation.protocols.aave_v3_6 import AaveV36
from simulation.types import Book, LiquidationPlan

OWNER = labelled_address("planner parity")
RECEIVER = labelled_address("planner parity receiver")
FALL = {"WETH": 60, "wstETH": 60, "WBTC": 75, "USDC": 100, "DAI": 100}
"""Prices after the crash in per cent of those before."""


@dataclass(frozen=True, slots=True)
class Version:
    """A version of Aave V3: how it is deployed, and the adapter that reads it."""

    deploy: DeployAave
    adapter: type[Any]


V3_0 = Version(deploy_aave, AaveV3)
V3_6 = Version(deploy_aave_v3_6, AaveV36)
VERSIONS = [
    pytest.param(V3_0, id="3.0"),
    pytest.param(
        V3_6,
        id="3.6",
        marks=pytest.mark.skipif(
            not is_compiled("aave-v3.6") and shutil.which("node") is None,
            reason="Aave V3.6 is not compiled, and Node.js is not on PATH",
        ),
    ),
]


class Crash:
    """A seeded book after a crash that the pools follow to within half a per cent.

    Parameters
    ----------
    accounts, seed, version
        Aave's book, and which Aave.
    morpho
        Accounts on Morpho Blue beside it; without any it is not deployed.
    evm
        Where; in process by default.
    fall
        Prices after the crash in per cent of those before.
    """

    def __init__(
        self,
        accounts: int,
        seed: int,
        version: Version = V3_0,
        *,
        morpho: Sequence[MorphoSeedAccount] = (),
        evm: Evm | None = None,
        fall: Mapping[str, int] = FALL,
    ) -> None:
        self.evm: Evm = revm.RevmEvm(timestamp=GENESIS) if evm is None else evm
        market = with_morpho(DEFAULT_MARKET) if morpho else DEFAULT_MARKET
        self.deployment: Deployment = deploy_market(self.evm, market, deploy_aave=version.deploy)
        self.book: tuple[SeedAccount, ...] = draw_book(DEFAULT_MARKET, accounts, seed)
        open_book(self.evm, self.deployment, self.book)
        second = ZERO_ADDRESS
        if self.deployment.morpho is not None:
            second = self.deployment.morpho.address
            open_morpho_book(self.evm, self.deployment, morpho)
        self.contract = self.evm.create(
            OWNER,
            own("Liquidator").creation_code(
                OWNER, RECEIVER, self.deployment.pool, second, self.deployment.uniswap.router
            ),
        )
        self.fall = fall
        for symbol, percent in fall.items():
            asset = self.deployment.asset(symbol)
            price = read(self.evm, aave_v3.GET_ASSET_PRICE.call(self.deployment.oracle, asset.address))
            feeds.post(self.evm, self.deployment.deployer, asset.feed, price * percent // 100)
        for pool in self.deployment.uniswap.pools:
            self.follow(pool)
        self.timestamp = self.evm.timestamp() + 12
        self.evm.warp(self.timestamp)
        layout = run_stages(discover_layout(self.deployment.provider), self.ask)
        self.adapter: Any = version.adapter(layout)

    def ask(self, calls: Sequence[Call[object]]) -> list[bytes | None]:
        answers: list[bytes | None] = []
        for call in calls:
            try:
                answers.append(self.evm.call(call.to, call.data))
            except CallReverted:
                answers.append(None)
        return answers

    def symbol(self, token: str) -> str:
        return next(a.symbol for a in self.deployment.assets.values() if a.address == token)

    def pool_state(self, pool: DeployedPool) -> amm.PoolState:
        spacing = read(self.evm, uniswap_v3.TICK_SPACING.call(pool.address))
        layout = amm.PoolLayout(amm.PoolKey(pool.address, pool.token0, pool.token1, pool.fee_pips, spacing))
        for _ in range(4):
            answer = amm.decode_pool(layout, self.ask(amm.pool_reads(layout)))
            if isinstance(answer, amm.PoolState):
                return answer
            layout = answer
        pytest.fail("the reads of a pool did not settle")

    def follow(self, pool: DeployedPool) -> None:
        """Sell what fell further into a pool until its price is half a per cent beyond the oracle's."""
        fall0, fall1 = (self.fall[self.symbol(token)] for token in (pool.token0, pool.token1))
        if fall0 == fall1:
            return
        state = self.pool_state(pool)
        zero_for_one = fall0 < fall1
        ratio = fall0 / fall1 * (0.995 if zero_for_one else 1.005)
        limit = int(state.sqrt_price_x96 * ratio**0.5)
        token_in, token_out = (pool.token0, pool.token1) if zero_for_one else (pool.token1, pool.token0)
        amount = amm.swap(state, zero_for_one, 10**30, limit).amount_in
        trader = labelled_address("trader")
        mint(self.evm, self.deployment.deployer, token_in, trader, amount)
        router = self.deployment.uniswap.router
        transact(self.evm, trader, token_in, aave_v3.APPROVE, router, amount)
        path = uniswap_v3.encode_path([token_in, token_out], [pool.fee_pips])
        transact(self.evm, trader, router, uniswap_v3.EXACT_INPUT, (path, trader, 2**40, amount, 0))

    def read_market(self) -> Any:
        return self.adapter.decode_market(
            self.ask(self.adapter.market_reads()), block=self.evm.block_number(), timestamp=self.timestamp
        )

    def read_book(self, market: Any) -> Book:
        names = [account.address for account in self.book]
        return self.adapter.decode_accounts(market, names, self.ask(self.adapter.account_reads(names)))

    def read(self) -> tuple[Any, dict[str, AaveAccount], dict[str, amm.PoolState]]:
        """Return market, liquidatable accounts and pools, all read from the chain."""
        market = self.read_market()
        book = self.read_book(market)
        accounts = {
            name: state
            for name, state in zip(book.accounts, book.exact, strict=True)
            if state is not None and self.adapter.user_account_data(market, state).health_factor_wad < 10**18
        }
        return market, accounts, {p.address: self.pool_state(p) for p in self.deployment.uniswap.pools}

    def execute(
        self, plan: LiquidationPlan, number: int, adapter: Executable | None = None
    ) -> liquidator.Liquidated:
        """Run a plan at the time it was made for; Aave's unless another adapter is named."""
        adapter = self.adapter if adapter is None else adapter
        assert adapter is not None
        self.evm.warp(self.timestamp)
        sent = self.evm.send(
            OWNER,
            self.contract,
            adapter.liquidator_calldata(plan, intent_id=number.to_bytes(32, "big"), deadline_block=2**40),
        ).expect("liquidation")
        (log,) = [log for log in sent.logs if log.address == self.contract]
        done = liquidator.decode_liquidated(log.topics, log.data)
        assert done.venue == adapter.venue
        return done
