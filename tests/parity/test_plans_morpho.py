"""Planned profit against realised profit on Morpho Blue, to the unit, beside Aave on the same pools."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from contracts_abi import aave_v3
from contracts_abi import morpho_blue as abi
from contracts_abi.liquidator import decode_liquidated, morpho_inventory_calldata
from oracle.snapshot import plain_snapshot
from oracle.types import PriceSnapshot
from simulation.amm.uniswap_v3 import PoolState
from simulation.chain import feeds, revm
from simulation.chain.aave_v3 import mint
from simulation.chain.anvil import Anvil, AnvilOptions
from simulation.chain.evm import Evm, labelled_address, read, transact
from simulation.chain.market import DEFAULT_MARKET, GENESIS, with_morpho
from simulation.chain.seed import MorphoSeedAccount, draw_morpho_book
from simulation.chain.solc import is_compiled
from simulation.liquidation import MarketBook, PlanSettings, plan_bundle, plan_liquidation, plan_markets
from simulation.protocols.aave_v3.layout import run_stages
from simulation.protocols.morpho_blue import (
    LiquidationOutcome,
    MorphoAccount,
    MorphoBlue,
    MorphoMarket,
    accrue,
    discover_layout,
    liquidate,
)
from simulation.protocols.morpho_blue.morpho import borrowed_assets, shares_for
from simulation.protocols.morpho_blue.shares_math_lib import to_shares_down
from simulation.types import LiquidationPlan, MarginStatus, Reason
from tests.parity.crash import OWNER, RECEIVER, VERSIONS, Crash, Version

pytestmark = [
    pytest.mark.chain,
    pytest.mark.skipif(not revm.available(), reason="pyrevm has wheels for CPython 3.11 and 3.12 only"),
    pytest.mark.skipif(
        not is_compiled("morpho-blue") and shutil.which("node") is None,
        reason="Morpho Blue is not compiled, and Node.js is not on PATH",
    ),
]

GWEI = 10**9
MARKET = with_morpho(DEFAULT_MARKET)
# Some end with less collateral than debt, most with more.
FALL = {"WETH": 86, "wstETH": 86, "WBTC": 88, "USDC": 100, "DAI": 100}


def whale(collateral_usd: int, debt_usd: int) -> MorphoSeedAccount:
    """Return an account that is too large for the pools."""
    weth = collateral_usd * 10**26 // DEFAULT_MARKET.asset("WETH").price_e8
    return MorphoSeedAccount(labelled_address("morpho whale"), "WETH/USDC", weth, debt_usd * 10**6)


def crumb(number: int) -> MorphoSeedAccount:
    """Return an account so small that each unit of the loan token counts."""
    weth = (number + 2) * 10**11
    debt_raw = weth * DEFAULT_MARKET.asset("WETH").price_e8 * 85 // (10**20 * 100) - 2
    return MorphoSeedAccount(labelled_address(f"morpho crumb {number}"), "WETH/USDC", weth, debt_raw)


class World(Crash):
    """A crash on Aave and on two markets of Morpho."""

    def __init__(
        self, aave: int, morpho: int, seed: int, *, more: Sequence[MorphoSeedAccount] = (), **changes: Any
    ) -> None:
        book = (*draw_morpho_book(MARKET, morpho, seed), whale(9_000_000, 7_650_000), *more)
        super().__init__(aave, seed, morpho=book, fall=FALL, **changes)
        self.morpho_book = book
        assert self.deployment.morpho is not None
        contract = self.deployment.morpho.address
        self.adapters = {
            market.name: MorphoBlue(run_stages(discover_layout(contract, market.id), self.ask))
            for market in self.deployment.morpho.markets
        }

    @property
    def settings(self) -> PlanSettings:
        weth = self.deployment.asset("WETH").address
        return PlanSettings(gas_price_wei=20 * GWEI, native_asset=weth, min_net_profit_e8=10**8)

    def prices(self, adapter: MorphoBlue, market: MorphoMarket) -> PriceSnapshot:
        return plain_snapshot(
            "protocol",
            "USD",
            adapter.prices_base(market),
            market.base_decimals,
            block=1,
            timestamp=self.timestamp,
        )

    def read_morpho(self, name: str) -> tuple[MorphoBlue, MorphoMarket, dict[str, MorphoAccount]]:
        """Return a market's adapter, the market, and who can be liquidated in it."""
        adapter = self.adapters[name]
        found = adapter.decode_market(
            self.ask(adapter.market_reads()), block=self.evm.block_number(), timestamp=self.timestamp
        )
        names = [a.address for a in self.morpho_book if a.market == name]
        book = adapter.decode_accounts(found, names, self.ask(adapter.account_reads(names)))
        prices = adapter.prices_base(found)
        due = {
            state.account: state
            for state in book.exact
            if state is not None and adapter.margin(found, state, prices).status is MarginStatus.LIQUIDATABLE
        }
        return adapter, found, due

    def pools(self) -> dict[str, PoolState]:
        return {pool.address: self.pool_state(pool) for pool in self.deployment.uniswap.pools}

    def position(self, adapter: MorphoBlue, account: str) -> tuple[int, int, int]:
        call = abi.POSITION.call(adapter.layout.morpho, adapter.layout.id_bytes, account)
        found: tuple[int, int, int] = read(self.evm, call)
        return found


@pytest.fixture(params=["revm", "anvil"])
def evm(request: pytest.FixtureRequest) -> Iterator[Evm]:
    if request.param == "revm":
        yield revm.RevmEvm(timestamp=GENESIS)
    else:
        with Anvil.start(AnvilOptions(timestamp=GENESIS)) as node:
            yield node.evm()


def test_every_plan_earns_what_it_planned_to_the_unit(evm: Evm) -> None:
    world = World(1, 40, 3, evm=evm)
    seen: Counter[str] = Counter()
    number = 0
    for name in world.adapters:
        _, _, due = world.read_morpho(name)
        for account in due:
            # Each liquidation moves the market's shares by a rounding: what comes next is read again.
            adapter, market, now = world.read_morpho(name)
            plan = plan_liquidation(
                adapter, market, now[account], world.pools(), world.prices(adapter, market), world.settings
            )
            if not isinstance(plan, LiquidationPlan):
                assert plan.reason is Reason.UNPROFITABLE
                continue
            number += 1
            done = world.execute(plan, number, adapter)
            assert plan.flash_premium_raw == 0
            assert done.debt_covered_raw <= plan.debt_to_cover_raw
            assert done.collateral_seized_raw == plan.seized_raw
            assert done.profit_raw == plan.profit_raw
            assert (done.user, done.debt, done.collateral) == (
                plan.account,
                plan.debt_asset,
                plan.collateral_asset,
            )
            _, shares, left_raw = world.position(adapter, account)
            kind = "whole" if plan.full else "all collateral" if left_raw == 0 else "part"
            seen[kind] += 1
            assert (shares == 0) == (kind != "part")
            assert left_raw == now[account].collateral_raw - plan.seized_raw
    assert min(seen[kind] for kind in ("whole", "all collateral", "part")) > 0, seen
    assert seen.total() > 12


@pytest.mark.parametrize("version", VERSIONS)
def test_one_bundle_over_both_protocols(version: Version) -> None:
    world = World(60, 40, 5, version=version)
    aave_market, aave_due, pools = world.read()
    books = [
        MarketBook(
            world.adapter,
            aave_market,
            {("aave", name): account for name, account in aave_due.items()},
            plain_snapshot("protocol", "USD", aave_market.prices_base, 8, block=1, timestamp=0),
            world.settings,
        )
    ]
    for name in world.adapters:
        adapter, market, due = world.read_morpho(name)
        accounts = {(name, account): state for account, state in due.items()}
        books.append(MarketBook(adapter, market, accounts, world.prices(adapter, market), world.settings))
    answer = plan_markets(books, pools)
    adapters = {"aave": world.adapter, **world.adapters}
    seen: Counter[str] = Counter()
    both: set[str] = set()
    for number, (key, plan) in enumerate(answer.items()):
        if not isinstance(plan, LiquidationPlan):
            continue
        done = world.execute(plan, number, adapters[key[0]])
        assert done.venue == adapters[key[0]].venue
        assert done.profit_raw == plan.profit_raw
        seen[key[0]] += 1
        both |= {plan.account} if (key[1] in aave_due) and key[0] != "aave" else set()
    assert min(seen[name] for name in adapters) > 0, seen
    assert both, "nobody was liquidated on one protocol who is due on the other too"


def test_a_plan_from_inventory_seizes_what_it_says(evm: Evm) -> None:
    world = World(1, 30, 7, evm=evm)
    funds = 60_000 * 10**6
    usdc, weth = (world.deployment.asset(symbol).address for symbol in ("USDC", "WETH"))
    mint(world.evm, world.deployment.deployer, usdc, OWNER, funds)
    # What comes back of the most that may be repaid does not raise the allowance again.
    transact(world.evm, OWNER, usdc, aave_v3.APPROVE, world.contract, 2 * funds)
    world.timestamp = world.evm.timestamp() + 12
    world.evm.warp(world.timestamp)
    adapter, market, due = world.read_morpho("WETH/USDC")
    del due[labelled_address("morpho whale")]
    settings = replace(world.settings, from_inventory=True, inventory_raw={usdc: funds})
    answer = plan_bundle(adapter, market, due, world.pools(), world.prices(adapter, market), settings)
    plans = [plan for plan in answer.values() if isinstance(plan, LiquidationPlan)]
    assert {plan.full for plan in plans} == {True, False}
    done = [world.execute(plan, number, adapter) for number, plan in enumerate(plans)]
    assert done[0].collateral_seized_raw == plans[0].seized_raw
    for made, plan in zip(done, plans, strict=True):
        # Behind others a debt by its shares may be a unit off, 1e-6 USD, and so is the collateral for it.
        assert abs(made.collateral_seized_raw - plan.seized_raw) < 10**10
        assert made.debt_covered_raw <= plan.debt_to_cover_raw + 1
    assert sum(made.debt_covered_raw for made in done) <= funds
    held = read(world.evm, aave_v3.BALANCE_OF.call(weth, RECEIVER))
    assert held == sum(made.collateral_seized_raw for made in done)


# ------------------------------------------------------------------------- what the contract asks for itself


def asked_of_morpho(
    market: MorphoMarket, account: MorphoAccount, seized_raw: int, whole: bool, funds_raw: int
) -> LiquidationOutcome:
    """Return what the lesser of plan, position and funds comes to, written a second time over the model."""
    now = accrue(market).market
    totals = now.state.total_borrow_assets_raw, now.state.total_borrow_shares
    shares = min(account.borrow_shares, to_shares_down(funds_raw, *totals))
    wanted_raw = account.collateral_raw if whole else min(seized_raw, account.collateral_raw)
    if shares_for(now, wanted_raw) <= shares:
        return liquidate(market, account, seized_assets_raw=wanted_raw)
    return liquidate(market, account, repaid_shares=shares)


def test_the_contract_asks_morpho_for_the_lesser_of_plan_position_and_funds() -> None:
    """At prices that moved since the plan, up and down, and with more or less to pay with: to the unit."""
    world = World(1, 16, 11, more=[crumb(number) for number in range(40)])
    rng = np.random.default_rng(5)
    usdc, weth = (world.deployment.asset(symbol) for symbol in ("USDC", "WETH"))
    price_e8 = read(world.evm, aave_v3.GET_ASSET_PRICE.call(world.deployment.oracle, weth.address))
    mint(world.evm, world.deployment.deployer, usdc.address, OWNER, 10**15)
    transact(world.evm, OWNER, usdc.address, aave_v3.APPROVE, world.contract, 10**18)
    adapter = world.adapters["WETH/USDC"]
    seen: Counter[str] = Counter()
    for number in range(400):
        start = world.evm.snapshot()
        moved_bps = int(rng.integers(-1_600, 600))
        feeds.post(world.evm, world.deployment.deployer, weth.feed, price_e8 * (10_000 + moved_bps) // 10_000)
        world.timestamp = world.evm.timestamp() + int(rng.integers(1, 10**6))
        world.evm.warp(world.timestamp)
        _, market, due = world.read_morpho("WETH/USDC")
        account = due[sorted(due)[int(rng.integers(len(due)))]]
        seized_raw = account.collateral_raw * int(rng.integers(1, 130)) // 100
        whole = bool(rng.integers(2))
        owed_raw = borrowed_assets(accrue(market).market.state, account)
        funds_raw = owed_raw * int(rng.choice([30, 80, 100, 101])) // 100 - int(rng.integers(2))
        funds_raw = max(funds_raw, 0)
        wanted = asked_of_morpho(market, account, seized_raw, whole, funds_raw)
        sent = world.evm.send(
            OWNER,
            world.contract,
            morpho_inventory_calldata(
                intent_id=number.to_bytes(32, "big"),
                market=adapter.layout.params.words(),
                user=account.account,
                seized_raw=seized_raw,
                whole_debt=whole,
                max_repaid_raw=funds_raw,
                min_collateral_raw=0,
                deadline_block=2**40,
            ),
        )
        assert sent.success is wanted.succeeds
        if not wanted.succeeds:
            # Only of crumbs: where both sides meet within two units of the loan token.
            assert owed_raw < 1_000
            seen["refused"] += 1
            world.evm.revert(start)
            continue
        (log,) = [log for log in sent.logs if log.address == world.contract]
        done = decode_liquidated(log.topics, log.data)
        assert done.collateral_seized_raw == wanted.seized_assets_raw
        assert done.debt_covered_raw == wanted.repaid_assets_raw <= funds_raw
        seen["debt" if wanted.full else "bad" if wanted.bad_debt_shares else "part"] += 1
        assert world.position(adapter, account.account)[1:] == (
            wanted.account_after.borrow_shares,
            wanted.account_after.collateral_raw,
        )
        world.evm.revert(start)
    assert min(seen[kind] for kind in ("debt", "bad", "part")) >= 8, seen
    assert seen["refused"] < 40, seen
