"""The Aave V3 adapter on a deployed market: what it finds, reads and computes is what the contracts say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from contracts_abi import aave_v3, lens
from contracts_abi.artifacts import npm_artifact
from contracts_abi.calls import Call
from contracts_abi.errors import CallReverted, DataError
from simulation.chain.artifacts import AAVE, own
from simulation.chain.evm import find_log, labelled_address, read, transact
from simulation.chain.toolchain import node_modules
from simulation.interfaces import ProtocolAdapter
from simulation.protocols import protocols
from simulation.protocols.aave_v3 import AaveV3, discover_layout, run_stages
from simulation.protocols.aave_v3.book import book_of_accounts
from simulation.types import Book, LiquidationPlan, MarginStatus
from tests.chain.bench import Bench
from tests.chain.conftest import Chain

Execute = Callable[[Sequence[Call[Any]]], list[bytes | None]]


class Accounts(Bench):
    """A market with accounts of every shape, and time behind them."""

    def __init__(self, chain: Chain) -> None:
        super().__init__(chain.evm, chain.market)
        chain.evm.set_code(lens.LENS_ADDRESS, own("AccountLens").deployed_bytecode)
        self.names = {
            "simple": self.account("simple", {"WETH": 9_000}, {"USDC": 6_000}),
            "many": self.account(
                "many", {"WETH": 9_000, "WBTC": 5_000, "DAI": 3_000}, {"USDC": 4_000, "WBTC": 900}
            ),
            "correlated": self.account(
                "correlated", {"wstETH": 9_000, "DAI": 50}, {"WETH": 8_200}, category=1
            ),
            "saver": self.account("saver", {"wstETH": 1_000}, {}),
            "nobody": labelled_address("nobody"),
        }
        self.evm.warp(self.evm.timestamp() + 90 * 86_400)

    def execute(self, calls: Sequence[Call[Any]]) -> list[bytes | None]:
        answers: list[bytes | None] = []
        for call in calls:
            try:
                answers.append(self.evm.call(call.to, call.data))
            except CallReverted:
                answers.append(None)
        return answers

    def adapter(self, **changes: Any) -> AaveV3:
        layout = run_stages(discover_layout(self.market.provider), self.execute)
        return AaveV3(replace(layout, **changes), account_data=True)

    def market_of(self, adapter: AaveV3) -> Any:
        return adapter.decode_market(
            self.execute(adapter.market_reads()),
            block=self.evm.block_number(),
            timestamp=self.evm.timestamp(),
        )

    def book_of(self, adapter: AaveV3) -> Book:
        accounts = list(self.names.values())
        market = self.market_of(adapter)
        return adapter.decode_accounts(market, accounts, self.execute(adapter.account_reads(accounts)))


@pytest.fixture
def accounts(chain: Chain) -> Accounts:
    return Accounts(chain)


def test_registry_has_it_and_it_keeps_the_protocol(accounts: Accounts) -> None:
    adapter = accounts.adapter()
    assert protocols.get("aave-v3") is AaveV3
    assert isinstance(adapter, ProtocolAdapter)


def test_layout_is_the_deployment(accounts: Accounts) -> None:
    layout, market = accounts.adapter().layout, accounts.market
    assert (layout.pool, layout.oracle, layout.sentinel) == (market.pool, market.oracle, "")
    assert layout.base_decimals == 8
    assert layout.e_mode_price_sources == ((1, ""),)
    assert [r.asset.symbol for r in layout.reserves] == list(market.assets)
    for reserve, deployed in zip(layout.reserves, market.assets.values(), strict=True):
        assert (reserve.a_token, reserve.variable_debt_token) == (deployed.a_token, deployed.v_token)
        assert (reserve.asset.address, reserve.treasury) == (deployed.address, market.treasury)
        assert reserve.asset.decimals == deployed.decimals


def test_three_ways_to_read_give_one_book(accounts: Accounts) -> None:
    one_by_one = accounts.book_of(accounts.adapter())
    through_lens = accounts.book_of(replace(accounts.adapter(lens=lens.LENS_ADDRESS), accounts_per_call=2))
    through_multicall = accounts.book_of(accounts.adapter(multicall=accounts.market.multicall))
    for other in (through_lens, through_multicall):
        for name in ("row_ptr", "asset", "kind", "amount", "weight", "protocol"):
            np.testing.assert_array_equal(getattr(one_by_one, name), getattr(other, name))
        assert list(one_by_one.exact) == list(other.exact)
    assert one_by_one.row_ptr[-1] == 2 + 5 + 3 + 1


def test_margin_is_the_contracts_and_the_book_its_float(accounts: Accounts) -> None:
    adapter = accounts.adapter(lens=lens.LENS_ADDRESS)
    accounts.move("WETH", -20)
    market, book = accounts.market_of(adapter), accounts.book_of(adapter)
    prices = adapter.prices_base(market)
    status = {}
    for (name, account), exact in zip(accounts.names.items(), book.exact, strict=True):
        report = adapter.margin(market, exact, prices)
        words = read(accounts.evm, aave_v3.GET_USER_ACCOUNT_DATA.call(market_pool(adapter), account))
        assert adapter.user_account_data(market, exact).words() == words
        assert report.health_factor_wad == exact.reported_health_factor_wad == words[5]
        assert (report.collateral_base, report.debt_base) == words[:2]
        status[name] = report.status
    assert status["nobody"] is status["saver"] is MarginStatus.NO_DEBT
    assert status["simple"] is MarginStatus.LIQUIDATABLE
    assert status["many"] is MarginStatus.HEALTHY

    twin = book_of_accounts("aave-v3", market, book.accounts, list(book.exact))
    for column in ("row_ptr", "asset", "kind", "amount", "weight", "known"):
        np.testing.assert_array_equal(getattr(book, column), getattr(twin, column))
    row = list(accounts.names).index("correlated")
    weights = book.weight[book.row_ptr[row] : book.row_ptr[row + 1]]
    assert sorted(weights) == [0.77, 0.95, 1.0]


def market_pool(adapter: AaveV3) -> str:
    return adapter.layout.pool


def test_a_later_blocks_state_is_known_in_this_one(accounts: Accounts) -> None:
    adapter = accounts.adapter(lens=lens.LENS_ADDRESS)
    now, book = accounts.market_of(adapter), accounts.book_of(adapter)
    later = accounts.evm.timestamp() + 30 * 86_400  # at these rates a block alone moves no digit
    projected = adapter.project(now, later)
    accounts.evm.warp(later)
    row = list(accounts.names).index("many")
    words = read(accounts.evm, aave_v3.GET_USER_ACCOUNT_DATA.call(adapter.layout.pool, book.accounts[row]))
    assert adapter.user_account_data(projected, book.exact[row]).words() == words
    assert adapter.user_account_data(now, book.exact[row]).words() != words


def test_quote_and_call_are_what_happens(accounts: Accounts) -> None:
    adapter = accounts.adapter()
    accounts.move("WETH", -20)
    market, book = accounts.market_of(adapter), accounts.book_of(adapter)
    debtor, keeper = accounts.names["simple"], labelled_address("keeper")
    usdc, weth = accounts.market.asset("USDC").address, accounts.market.asset("WETH").address
    accounts.mint("USDC", keeper, 10**12)
    transact(accounts.evm, keeper, usdc, aave_v3.APPROVE, market_pool(adapter), 10**12)

    exact = book.exact[0]
    market = adapter.project(market, accounts.evm.timestamp())
    best = adapter.max_liquidatable(market, exact, usdc, weth)
    quote = adapter.liquidation_quote(market, exact, usdc, weth, best.debt_repaid_raw)
    assert replace(quote, account_after=best.account_after) == best
    plan = LiquidationPlan(
        account=debtor,
        protocol=adapter.name,
        debt_asset=usdc,
        collateral_asset=weth,
        debt_to_cover_raw=quote.debt_repaid_raw,
        seized_raw=quote.to_liquidator_raw,
        full=quote.full,
        path=(),
        flash_premium_raw=0,
        proceeds_raw=0,
        profit_raw=0,
        gas_units=0,
        gas_cost_raw=0,
        min_profit_raw=0,
        impact_bps=0,
        from_inventory=True,
    )
    call = adapter.liquidation_call(plan)
    result = accounts.evm.send(keeper, call.to, call.data).expect("liquidation")
    assert result.timestamp == market.timestamp
    emitted = find_log(result, aave_v3.LIQUIDATION_CALL_EVENT)
    assert emitted["debtToCover"] == quote.debt_repaid_raw
    assert (
        emitted["liquidatedCollateralAmount"] == quote.to_liquidator_raw == accounts.balance("WETH", keeper)
    )


def test_borrowers_are_discovered_by_whom_they_borrow_for(accounts: Accounts) -> None:
    adapter = accounts.adapter()
    usdc, saver = accounts.market.asset("USDC").address, accounts.names["saver"]
    result = accounts.pool(saver, aave_v3.BORROW, usdc, 10**6, aave_v3.VARIABLE_RATE_MODE, 0, saver)
    found = [adapter.discovered(log.topics, log.data) for log in result.logs]
    assert [account for account in found if account is not None] == [saver]


@pytest.mark.parametrize("amount_raw", [1, 999, 1_000, 123_456_789, 10**13 + 1_001])
def test_the_flash_premium_is_the_pools(accounts: Accounts, amount_raw: int) -> None:
    adapter = accounts.adapter()
    path = (
        "artifacts/contracts/mocks/flashloan/MockSimpleFlashLoanReceiver.sol/MockFlashLoanSimpleReceiver.json"
    )
    code = npm_artifact(node_modules(), AAVE, path).creation_code(accounts.market.provider)
    receiver = accounts.evm.create(accounts.names["saver"], code)
    usdc = accounts.market.asset("USDC").address
    accounts.supply(accounts.names["saver"], "USDC", 20_000_000)
    result = accounts.pool(
        accounts.names["saver"], aave_v3.FLASH_LOAN_SIMPLE, receiver, usdc, amount_raw, b"", 0
    )
    premium_raw = find_log(result, aave_v3.FLASH_LOAN_EVENT)["premium"]
    assert premium_raw == adapter.flash_loan_premium(accounts.market_of(adapter), amount_raw)


def test_a_price_that_is_missing_makes_unknown_and_not_healthy(accounts: Accounts) -> None:
    adapter = accounts.adapter()
    market, book = accounts.market_of(adapter), accounts.book_of(adapter)
    prices = {k: v for k, v in adapter.prices_base(market).items() if k != "WBTC"}
    row = list(accounts.names).index("many")
    report = adapter.margin(market, book.exact[row], prices)
    assert report.status is MarginStatus.UNKNOWN
    assert report.health_factor_wad is None
    assert report.reason == "no price for WBTC"
    assert adapter.margin(market, book.exact[0], prices).status is MarginStatus.HEALTHY


def test_what_the_oracle_refuses_is_missing_in_the_market(accounts: Accounts) -> None:
    adapter = accounts.adapter()
    nowhere = labelled_address("no feed")
    weth = accounts.market.asset("WETH").address
    transact(
        accounts.evm,
        accounts.market.deployer,
        accounts.market.oracle,
        aave_v3.SET_ASSET_SOURCES,
        [weth],
        [nowhere],
    )
    market = accounts.market_of(adapter)
    assert "WETH" not in adapter.prices_base(market)
    assert "USDC" in adapter.prices_base(market)


def test_a_changed_market_is_noticed(accounts: Accounts) -> None:
    adapter = accounts.adapter()
    provider, deployer = accounts.market.provider, accounts.market.deployer
    transact(accounts.evm, deployer, provider, aave_v3.SET_PRICE_ORACLE, labelled_address("other oracle"))
    with pytest.raises(DataError, match="discover its layout again"):
        accounts.market_of(adapter)


def test_failed_reads_leave_their_accounts_unknown(accounts: Accounts) -> None:
    adapter = replace(accounts.adapter(lens=lens.LENS_ADDRESS), accounts_per_call=2)
    names = list(accounts.names.values())
    market = accounts.market_of(adapter)
    answers = accounts.execute(adapter.account_reads(names))
    answers[0] = None
    book = adapter.decode_accounts(market, names, answers)
    assert book.exact[:2] == [None, None]
    assert book.known.tolist() == [exact is not None for exact in book.exact]
    assert book.row_ptr[2] == 0
    assert book.exact[2] is not None
    assert len(book) == 5


def test_an_address_that_is_no_provider_is_one_line(accounts: Accounts) -> None:
    staged = discover_layout(labelled_address("nobody"))
    with pytest.raises(DataError, match="getPool"):
        run_stages(staged, accounts.execute)
