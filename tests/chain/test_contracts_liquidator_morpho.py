"""Liquidator on Morpho Blue's own bytecode: the promises in its header, once more for the second venue."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import pytest
from eth_abi.abi import encode as abi_encode

from contracts_abi import aave_v3, liquidator, uniswap_v3
from contracts_abi import morpho_blue as abi
from contracts_abi.artifacts import compile_vyper
from contracts_abi.calls import Function, function
from contracts_abi.errors import CallReverted
from simulation.chain import feeds, revm
from simulation.chain.aave_v3 import mint
from simulation.chain.anvil import Anvil, AnvilOptions
from simulation.chain.artifacts import own
from simulation.chain.deploy import deploy_market
from simulation.chain.evm import ZERO_ADDRESS, Evm, TxResult, find_log, labelled_address, read, transact
from simulation.chain.market import DEFAULT_MARKET, GENESIS, Deployment, PoolSpec, RangeSpec, with_morpho
from simulation.chain.morpho_blue import create_markets
from simulation.chain.solc import is_compiled
from simulation.chain.uniswap_v3 import deploy_uniswap
from simulation.protocols.morpho_blue import MarketParams
from tests.chain.bench import MAX_UINT256
from tests.chain.conftest import Chain
from tests.chain.test_contracts_liquidator import (
    ADD_ATTEMPT,
    FEES_PIPS,
    INTENT,
    INTRUDER,
    OPENED,
    OWNER,
    RECEIVER,
    RUN,
    SET_HOOK,
    STRANGER,
    TETHER,
    TRIED,
)

pytestmark = pytest.mark.skipif(
    not is_compiled("morpho-blue") and shutil.which("node") is None,
    reason="Morpho Blue is not compiled, and Node.js is not on PATH",
)

LENDER = labelled_address("lender on morpho")
USER = labelled_address("borrower on morpho")
E8, WAD = 10**8, 10**18


@dataclass
class Stage:
    """A market of Morpho with one account under water, and a liquidator that knows both venues."""

    evm: Evm
    market: Deployment
    params: MarketParams
    contract: str
    path: bytes

    @property
    def morpho(self) -> str:
        assert self.market.morpho is not None
        return self.market.morpho.address

    @property
    def id(self) -> bytes:
        return bytes.fromhex(self.params.id[2:])

    @property
    def loan(self) -> str:
        return self.params.loan_token

    @property
    def collateral(self) -> str:
        return self.params.collateral_token

    def balance(self, token: str, account: str) -> int:
        return int(read(self.evm, aave_v3.BALANCE_OF.call(token, account)))

    def position(self, account: str = USER) -> tuple[int, int, int]:
        """Return supply shares, borrow shares and collateral."""
        found: tuple[int, int, int] = read(self.evm, abi.POSITION.call(self.morpho, self.id, account))
        return found

    def mint(self, token: str, account: str, amount: int) -> None:
        mint(self.evm, self.market.deployer, token, account, amount)

    def on_morpho(self, sender: str, fn: Function, token: str, amount: int, *args: Any) -> None:
        """Give `sender` tokens, and let it move them into the market."""
        self.mint(token, sender, amount)
        transact(self.evm, sender, token, aave_v3.APPROVE, self.morpho, amount)
        transact(self.evm, sender, self.morpho, fn, self.params.words(), amount, *args)

    def open(self, lent: int, collateral: int, borrowed: int) -> None:
        """Lend, and borrow against collateral."""
        self.on_morpho(LENDER, abi.SUPPLY, self.loan, lent, 0, LENDER, b"")
        self.on_morpho(USER, abi.SUPPLY_COLLATERAL, self.collateral, collateral, USER, b"")
        transact(self.evm, USER, self.morpho, abi.BORROW, self.params.words(), borrowed, 0, USER, USER)

    def fall(self, percent: int) -> None:
        asset = self.market.asset("WETH")
        price_e8 = DEFAULT_MARKET.asset("WETH").price_e8 * (100 - percent) // 100
        feeds.post(self.evm, self.market.deployer, asset.feed, price_e8)

    def fund_owner(self, amount: int) -> None:
        self.mint(self.loan, OWNER, amount)
        transact(self.evm, OWNER, self.loan, aave_v3.APPROVE, self.contract, amount)

    def flash(self, **changes: Any) -> bytes:
        """Calldata of a flash liquidation of the whole debt; `changes` replace arguments."""
        arguments: dict[str, Any] = {
            "intent_id": INTENT,
            "market": self.params.words(),
            "user": USER,
            "seized_raw": 0,
            "whole_debt": True,
            "path": self.path,
            "min_profit_raw": 1,
            "deadline_block": self.evm.block_number(),
        }
        return liquidator.morpho_flash_calldata(**(arguments | changes))

    def inventory(self, **changes: Any) -> bytes:
        """Calldata of a liquidation of the whole debt from inventory."""
        arguments: dict[str, Any] = {
            "intent_id": INTENT,
            "market": self.params.words(),
            "user": USER,
            "seized_raw": 0,
            "whole_debt": True,
            "max_repaid_raw": 0,
            "min_collateral_raw": 1,
            "deadline_block": self.evm.block_number(),
        }
        return liquidator.morpho_inventory_calldata(**(arguments | changes))

    def simulate(self, data: bytes) -> int:
        return int(liquidator.LIQUIDATE_MORPHO_FLASH.decode_one(self.evm.call(self.contract, data, OWNER)))

    def simulated(self, data: bytes) -> TxResult:
        """Return what a transaction would do now, and undo it."""
        before = self.evm.snapshot()
        result = self.send(data)
        self.evm.revert(before)
        return result

    def send(self, data: bytes, sender: str = OWNER) -> TxResult:
        return self.evm.send(sender, self.contract, data).expect("liquidation")

    def refuses(self, data: bytes, reason: str, sender: str = OWNER) -> None:
        """Assert that the transaction reverts with `reason` and leaves nothing."""
        result = self.evm.send(sender, self.contract, data)
        with pytest.raises(CallReverted, match=reason):
            result.expect("liquidation")
        assert read(self.evm, liquidator.EXECUTED_AT.call(self.contract, INTENT)) == 0

    def outcome(self, result: TxResult) -> liquidator.Liquidated:
        (log,) = [log for log in result.logs if log.address == self.contract]
        return liquidator.decode_liquidated(log.topics, log.data)

    def assert_nothing_left(self) -> None:
        for token in (self.loan, self.collateral):
            assert self.balance(token, self.contract) == 0, token
        self.assert_no_allowances()

    def assert_no_allowances(self) -> None:
        for token in (self.loan, self.collateral):
            for spender in (self.market.pool, self.morpho, self.market.uniswap.router):
                allowance = aave_v3.ALLOWANCE.call(token, self.contract, spender)
                assert read(self.evm, allowance) == 0, token


def deploy_liquidator(evm: Evm, market: Deployment, owner: str = OWNER, **changes: str) -> str:
    assert market.morpho is not None
    parts = {"pool": market.pool, "morpho": market.morpho.address, "router": market.uniswap.router}
    code = own("Liquidator").creation_code(owner, RECEIVER, *(parts | changes).values())
    return evm.create(OWNER, code)


@pytest.fixture(scope="module", params=["revm", "anvil"])
def with_both(request: pytest.FixtureRequest) -> Iterator[Chain]:
    """Deploy the default market with Morpho beside it, for all tests of this module."""
    market = with_morpho(DEFAULT_MARKET)
    if request.param == "revm":
        if not revm.available():
            pytest.skip("pyrevm has wheels for CPython 3.11 and 3.12 only")
        evm: Evm = revm.RevmEvm(timestamp=GENESIS)
        yield Chain(evm, deploy_market(evm, market))
    else:
        with Anvil.start(AnvilOptions(timestamp=GENESIS)) as node:
            evm = node.evm()
            yield Chain(evm, deploy_market(evm, market))


@pytest.fixture
def chain(with_both: Chain) -> Iterator[Chain]:
    before = with_both.evm.snapshot()
    yield with_both
    with_both.evm.revert(before)


def path(market: Deployment, *symbols: str) -> bytes:
    fees = [FEES_PIPS[frozenset(hop)] for hop in pairwise(symbols)]
    return uniswap_v3.encode_path([market.asset(s).address for s in symbols], fees)


def opened(chain: Chain) -> Stage:
    """10,000 USD of WETH for 8,000 USDC, at 86 %."""
    evm, market = chain.evm, chain.market
    assert market.morpho is not None
    found = market.morpho.market("WETH/USDC")
    loan, collateral = market.asset("USDC").address, market.asset("WETH").address
    params = MarketParams(loan, collateral, found.oracle, found.irm, found.lltv_wad)
    contract = deploy_liquidator(evm, market)
    stage = Stage(evm, market, params, contract, path(market, "WETH", "USDC"))
    weth = 10_000 * E8 * WAD // DEFAULT_MARKET.asset("WETH").price_e8
    stage.open(1_000_000 * 10**6, weth, 8_000 * 10**6)
    return stage


@pytest.fixture
def stage(chain: Chain) -> Stage:
    """After a fall by 12 % the debt is worth less than the collateral."""
    stage = opened(chain)
    stage.fall(12)
    return stage


# --- before it is paid for ----------------------------------------------------------------------------------


def test_the_whole_debt_is_repaid_from_the_sale_and_the_profit_is_the_simulated_one(stage: Stage) -> None:
    simulated = stage.simulate(stage.flash())
    result = stage.send(stage.flash())
    done = stage.outcome(result)
    assert done.profit_raw == simulated > 0
    assert stage.balance(stage.loan, RECEIVER) == simulated
    assert stage.balance(stage.collateral, RECEIVER) == 0
    stage.assert_nothing_left()
    _, shares, collateral_raw = stage.position()
    assert shares == 0, "no dust of debt"
    assert collateral_raw > 0


def test_the_event_says_what_morpho_says_and_where(stage: Stage) -> None:
    result = stage.send(stage.flash())
    done = stage.outcome(result)
    said = find_log(result, abi.LIQUIDATE_EVENT, stage.morpho)
    assert (done.intent_id, done.user) == (INTENT, USER)
    assert done.venue == liquidator.Venue(stage.morpho, stage.id)
    assert (done.collateral, done.debt) == (stage.collateral, stage.loan)
    assert done.debt_covered_raw == said["repaidAssets"] > 0
    assert done.collateral_seized_raw == said["seizedAssets"] > 0
    assert (said["caller"], said["borrower"], said["badDebtAssets"]) == (stage.contract, USER, 0)


def test_the_profit_is_proceeds_less_debt_and_nothing_is_borrowed(stage: Stage) -> None:
    before = stage.evm.snapshot()
    done = stage.outcome(stage.send(stage.flash()))
    stage.evm.revert(before)
    quote = uniswap_v3.QUOTE_EXACT_INPUT.call(
        stage.market.uniswap.quoter, stage.path, done.collateral_seized_raw
    )
    assert done.profit_raw == read(stage.evm, quote)[0] - done.debt_covered_raw


def test_a_part_is_asked_for_by_its_collateral(stage: Stage) -> None:
    *_, held = stage.position()
    result = stage.send(stage.flash(seized_raw=held // 3, whole_debt=False))
    done = stage.outcome(result)
    assert done.collateral_seized_raw == held // 3
    assert done.profit_raw == stage.balance(stage.loan, RECEIVER) > 0
    _, shares, left = stage.position()
    assert (shares > 0, left) == (True, held - held // 3)
    stage.assert_nothing_left()


def test_where_the_debt_is_worth_all_of_the_collateral_the_rest_becomes_bad(stage: Stage) -> None:
    stage.fall(30)
    *_, held = stage.position()
    # Also asked to repay all: shares would ask for more collateral than there is.
    for whole in (False, True):
        before = stage.evm.snapshot()
        result = stage.send(stage.flash(seized_raw=held, whole_debt=whole))
        said = find_log(result, abi.LIQUIDATE_EVENT, stage.morpho)
        assert said["badDebtAssets"] > 0
        assert stage.outcome(result).collateral_seized_raw == said["seizedAssets"] == held
        assert stage.outcome(result).profit_raw == stage.balance(stage.loan, RECEIVER) > 0
        assert stage.position() == (0, 0, 0)
        stage.assert_nothing_left()
        stage.evm.revert(before)


def test_who_repays_a_unit_in_between_does_not_stop_it(stage: Stage) -> None:
    stage.on_morpho(STRANGER, abi.REPAY, stage.loan, 1, 0, USER, b"")
    assert stage.outcome(stage.send(stage.flash())).profit_raw > 0
    assert stage.position()[1] == 0


def test_who_takes_a_unit_in_between_does_not_stop_it(stage: Stage) -> None:
    stage.fall(30)
    *_, held = stage.position()
    stage.mint(stage.loan, STRANGER, 10**6)
    transact(stage.evm, STRANGER, stage.loan, aave_v3.APPROVE, stage.morpho, 10**6)
    transact(stage.evm, STRANGER, stage.morpho, abi.LIQUIDATE, stage.params.words(), USER, 10**12, 0, b"")
    done = stage.outcome(stage.send(stage.flash(seized_raw=held, whole_debt=False)))
    assert done.collateral_seized_raw == held - 10**12


@pytest.mark.parametrize("inventory", [False, True], ids=["sold", "kept"])
def test_a_debt_that_outgrew_its_collateral_meanwhile_is_liquidated_for_all_of_it(
    chain: Chain, inventory: bool
) -> None:
    """At 84 % of the price the whole debt takes a little less than all of the collateral, at 83 % more."""
    stage = opened(chain)
    stage.fund_owner(9_000 * 10**6)
    *_, held = stage.position()
    stage.fall(16)
    planned = stage.outcome(stage.simulated(stage.inventory(max_repaid_raw=9_000 * 10**6)))
    assert 98 * held < 100 * planned.collateral_seized_raw < 100 * held
    stage.fall(17)
    seized = {"seized_raw": planned.collateral_seized_raw}
    data = stage.inventory(max_repaid_raw=9_000 * 10**6, **seized) if inventory else stage.flash(**seized)
    result = stage.send(data)
    said = find_log(result, abi.LIQUIDATE_EVENT, stage.morpho)
    assert said["badDebtAssets"] > 0
    done = stage.outcome(result)
    assert done.collateral_seized_raw == said["seizedAssets"] == held
    assert done.debt_covered_raw == said["repaidAssets"] < planned.debt_covered_raw
    assert stage.position() == (0, 0, 0)
    stage.assert_nothing_left()


@pytest.mark.parametrize("inventory", [False, True], ids=["sold", "kept"])
def test_a_collateral_that_outgrew_its_debt_meanwhile_gives_what_the_debt_stands_for(
    chain: Chain, inventory: bool
) -> None:
    stage = opened(chain)
    stage.fund_owner(9_000 * 10**6)
    *_, held = stage.position()
    stage.fall(16)
    seized = {"seized_raw": held, "whole_debt": False}
    data = stage.inventory(max_repaid_raw=9_000 * 10**6, **seized) if inventory else stage.flash(**seized)
    result = stage.send(data)
    said = find_log(result, abi.LIQUIDATE_EVENT, stage.morpho)
    assert said["badDebtAssets"] == 0
    done = stage.outcome(result)
    assert held > done.collateral_seized_raw == said["seizedAssets"]
    assert stage.position()[1] == 0, "no dust of debt"
    stage.assert_nothing_left()


def test_the_incentive_of_a_low_lltv_is_capped_as_morphos(chain: Chain) -> None:
    """At 50 % it would be 17.6 %, and is 15 %: 116 % of the debt covers one and not the other."""
    oracle = settable(chain.evm)
    transact(chain.evm, STRANGER, oracle, SET_PRICE, USDC_PER_WETH_E36)
    usdc, weth = (chain.market.asset(symbol).address for symbol in ("USDC", "WETH"))
    stage = own_market(chain, usdc, weth, oracle, None, lltv_wad=WAD // 2)
    price_e6 = USDC_PER_WETH_E36 // 10**18
    stage.open(10**12, 100 * WAD, 49 * price_e6)
    stage.fund_owner(50 * price_e6)
    *_, held = stage.position()
    # The collateral is worth 116 % of the debt: more than the capped incentive, less than the other.
    transact(chain.evm, STRANGER, oracle, SET_PRICE, USDC_PER_WETH_E36 * 49 * 116 // 10_000)
    done = stage.outcome(stage.send(stage.inventory(max_repaid_raw=50 * price_e6)))
    assert done.collateral_seized_raw == pytest.approx(held * 115 / 116, rel=1e-6)
    assert stage.position()[1] == 0


def test_interest_of_a_long_wait_makes_no_request_too_large(stage: Stage) -> None:
    """Exactly what is owed now, and the debt has grown by some units when it is mined."""
    before = stage.evm.snapshot()
    stage.fund_owner(9_000 * 10**6)
    owed = stage.outcome(stage.send(stage.inventory(max_repaid_raw=9_000 * 10**6)))
    stage.evm.revert(before)
    stage.fund_owner(owed.debt_covered_raw)
    stage.evm.warp(stage.evm.timestamp() + 600)
    data = stage.inventory(max_repaid_raw=owed.debt_covered_raw, deadline_block=2**63)
    done = stage.outcome(stage.send(data))
    # All of it is spent, and next to nothing of the debt is left.
    assert done.debt_covered_raw == owed.debt_covered_raw
    assert stage.balance(stage.loan, OWNER) == 0
    _, shares, _ = stage.position()
    assert 0 < shares < 10**6 * 10**6
    stage.assert_nothing_left()


def test_a_path_of_several_pools(stage: Stage) -> None:
    data = stage.flash(path=path(stage.market, "WETH", "WBTC", "USDC"))
    simulated = stage.simulate(data)
    assert stage.outcome(stage.send(data)).profit_raw == simulated
    stage.assert_nothing_left()


def test_the_least_profit_is_enforced_to_the_unit(stage: Stage) -> None:
    profit = stage.simulate(stage.flash())
    stage.refuses(stage.flash(min_profit_raw=profit + 1), liquidator.SWAP_BELOW_MINIMUM)
    stage.refuses(stage.flash(min_profit_raw=MAX_UINT256), "reverted")
    # Time went on with each refusal, and with it the debt.
    profit = stage.simulate(stage.flash())
    assert stage.outcome(stage.send(stage.flash(min_profit_raw=profit))).profit_raw == profit


def test_a_liquidation_at_a_loss_reverts_although_own_funds_could_pay_for_it(stage: Stage) -> None:
    sell = 10**6 * WAD
    stage.mint(stage.collateral, STRANGER, sell)
    router = stage.market.uniswap.router
    transact(stage.evm, STRANGER, stage.collateral, aave_v3.APPROVE, router, sell)
    transact(stage.evm, STRANGER, router, uniswap_v3.EXACT_INPUT, (stage.path, STRANGER, 2**64, sell, 0))
    stage.mint(stage.loan, stage.contract, 10**12)
    stage.refuses(stage.flash(min_profit_raw=0), liquidator.SWAP_BELOW_MINIMUM)
    assert stage.balance(stage.loan, stage.contract) == 10**12


def test_tokens_that_lay_there_are_neither_spent_nor_swept(stage: Stage) -> None:
    stage.mint(stage.loan, stage.contract, 123_456_789)
    stage.mint(stage.collateral, stage.contract, WAD + 7)
    simulated = stage.simulate(stage.flash())
    done = stage.outcome(stage.send(stage.flash()))
    assert done.profit_raw == simulated == stage.balance(stage.loan, RECEIVER)
    assert stage.balance(stage.collateral, RECEIVER) == 0
    assert stage.balance(stage.loan, stage.contract) == 123_456_789
    assert stage.balance(stage.collateral, stage.contract) == WAD + 7
    stage.assert_no_allowances()


# --- who, when, how often -----------------------------------------------------------------------------------


def test_nobody_but_the_owner(stage: Stage) -> None:
    for sender in (STRANGER, RECEIVER):
        stage.refuses(stage.flash(), liquidator.OWNER_ONLY, sender)
        stage.refuses(stage.inventory(), liquidator.OWNER_ONLY, sender)


def test_an_intent_runs_once_over_all_venues(stage: Stage) -> None:
    *_, held = stage.position()
    stage.mint(stage.loan, stage.contract, 10**10)
    first = stage.send(stage.flash(seized_raw=held // 4, whole_debt=False))
    assert read(stage.evm, liquidator.EXECUTED_AT.call(stage.contract, INTENT)) == first.block
    on_aave: dict[str, Any] = {
        "intent_id": INTENT,
        "collateral": stage.collateral,
        "debt": stage.loan,
        "user": USER,
        "debt_to_cover_raw": 1,
        "deadline_block": 2**64,
    }
    for data in (
        stage.flash(deadline_block=2**64),
        stage.inventory(deadline_block=2**64, max_repaid_raw=10**10),
        liquidator.flash_calldata(**on_aave, path=stage.path, min_profit_raw=0),
        liquidator.inventory_calldata(**on_aave, min_collateral_raw=0),
    ):
        with pytest.raises(CallReverted, match=liquidator.INTENT_EXECUTED):
            stage.evm.send(OWNER, stage.contract, data).expect("second run")
    stage.send(stage.flash(intent_id=INTENT[::-1]))


def test_no_later_than_the_deadline_and_with_a_path_that_fits(stage: Stage) -> None:
    late = stage.evm.block_number() - 1
    stage.refuses(stage.flash(deadline_block=late), liquidator.DEADLINE_PASSED)
    stage.refuses(stage.inventory(deadline_block=late), liquidator.DEADLINE_PASSED)
    stage.refuses(stage.flash(path=b""), liquidator.PATH_MISMATCH)
    stage.refuses(stage.flash(path=path(stage.market, "WBTC", "USDC")), "reverted")
    stage.refuses(stage.flash(path=path(stage.market, "WETH", "WBTC")), "reverted")


def test_a_healthy_account_and_an_unknown_market_are_morphos_to_refuse(chain: Chain) -> None:
    stage = opened(chain)
    stage.refuses(stage.flash(), "position is healthy")
    other = replace(stage.params, lltv_wad=WAD // 2)
    *_, held = stage.position()
    stage.refuses(stage.flash(market=other.words(), seized_raw=held), "market not created")


def test_a_venue_that_it_was_not_built_for_is_refused(stage: Stage) -> None:
    stage.contract = deploy_liquidator(stage.evm, stage.market, morpho=ZERO_ADDRESS)
    stage.refuses(stage.flash(), liquidator.NO_MORPHO)
    stage.refuses(stage.inventory(), liquidator.NO_MORPHO)
    stage.contract = deploy_liquidator(stage.evm, stage.market, pool=ZERO_ADDRESS)
    words = {"collateral": stage.collateral, "debt": stage.loan, "user": USER, "debt_to_cover_raw": 1}
    when: dict[str, Any] = {"intent_id": INTENT, "deadline_block": 2**64}
    stage.refuses(
        liquidator.flash_calldata(**when, **words, path=stage.path, min_profit_raw=0), liquidator.NO_POOL
    )
    stage.refuses(liquidator.inventory_calldata(**when, **words, min_collateral_raw=0), liquidator.NO_POOL)
    # And Morpho alone is enough.
    assert stage.outcome(stage.send(stage.flash())).profit_raw > 0


# --- the callback -------------------------------------------------------------------------------------------

EVIL_MORPHO = """
# pragma version 0.4.3
struct MarketParams:
    loan_token: address
    collateral_token: address
    oracle: address
    irm: address
    lltv: uint256

struct Position:
    supply_shares: uint256
    borrow_shares: uint128
    collateral: uint128

struct Totals:
    supply_assets: uint128
    supply_shares: uint128
    borrow_assets: uint128
    borrow_shares: uint128
    last_update: uint128
    fee: uint128

interface Liquidator:
    def onMorphoLiquidate(repaid: uint256, data: Bytes[320]): nonpayable
    def executeOperation(
        asset: address, amount: uint256, premium: uint256, initiator: address, params: Bytes[288]
    ) -> bool: nonpayable

calls: public(uint256)
as_pool: public(bool)
reported: public(uint256)

@external
def set(calls: uint256, as_pool: bool, reported: uint256):
    self.calls = calls
    self.as_pool = as_pool
    self.reported = reported

@external
@view
def position(id: bytes32, user: address) -> Position:
    return Position(supply_shares=0, borrow_shares=1, collateral=1)

@external
@view
def market(id: bytes32) -> Totals:
    return empty(Totals)

@external
def accrueInterest(market: MarketParams):
    pass

@external
def liquidate(
    market: MarketParams, borrower: address, seized: uint256, shares: uint256, data: Bytes[320]
) -> (uint256, uint256):
    if self.as_pool:
        extcall Liquidator(msg.sender).executeOperation(market.loan_token, 0, 0, msg.sender, b"")
    for i: uint256 in range(self.calls, bound=3):
        extcall Liquidator(msg.sender).onMorphoLiquidate(self.reported, data)
    return seized, 0

@external
def call_back(receiver: address):
    extcall Liquidator(receiver).onMorphoLiquidate(0, b"")
"""
SET_EVIL = function("set(uint256,bool,uint256)")
CALL_BACK = function("call_back(address)")


def test_the_callback_answers_nobody_when_no_liquidation_is_under_way(stage: Stage) -> None:
    data = liquidator.ON_MORPHO_LIQUIDATE.encode(1, b"")
    # Where the EVM lets a contract send a transaction, Morpho itself too.
    contracts = () if stage.evm.name == "revm" else (stage.contract, stage.morpho)
    for sender in (OWNER, STRANGER, *contracts):
        stage.refuses(data, liquidator.UNEXPECTED_CALLBACK, sender)
    foreign = stage.evm.create(STRANGER, compile_vyper("EvilMorpho", EVIL_MORPHO).creation_code())
    with pytest.raises(CallReverted, match=liquidator.UNEXPECTED_CALLBACK):
        stage.evm.send(STRANGER, foreign, CALL_BACK.encode(stage.contract)).expect("callback")


def test_a_morpho_that_calls_back_never_twice_or_as_a_pool_is_refused(stage: Stage) -> None:
    evil = stage.evm.create(STRANGER, compile_vyper("EvilMorpho", EVIL_MORPHO).creation_code())
    stage.contract = deploy_liquidator(stage.evm, stage.market, morpho=evil)
    same = replace(stage.params, collateral_token=stage.loan).words()
    for calls, as_pool, reason in (
        (0, False, "did not call back"),
        (2, False, liquidator.UNEXPECTED_CALLBACK),
        (1, True, liquidator.UNEXPECTED_CALLBACK),
    ):
        transact(stage.evm, STRANGER, evil, SET_EVIL, calls, as_pool, 0)
        stage.refuses(stage.flash(market=same, path=b"", min_profit_raw=0), reason)
    # The guard is what refused it: called back once, the same call goes through.
    # What it says that it takes and does not is no debt repaid, and leaves it no allowance.
    transact(stage.evm, STRANGER, evil, SET_EVIL, 1, False, 10**9)
    done = stage.outcome(stage.send(stage.flash(market=same, path=b"", min_profit_raw=0)))
    assert (done.debt_covered_raw, done.collateral_seized_raw, done.profit_raw) == (0, 0, 0)
    assert read(stage.evm, aave_v3.ALLOWANCE.call(stage.loan, stage.contract, evil)) == 0
    stage.assert_nothing_left()


# --- from inventory -----------------------------------------------------------------------------------------


def test_from_inventory_the_collateral_is_kept_and_the_rest_goes_back(stage: Stage) -> None:
    stage.fund_owner(9_000 * 10**6)
    result = stage.send(stage.inventory(max_repaid_raw=9_000 * 10**6))
    done = stage.outcome(result)
    said = find_log(result, abi.LIQUIDATE_EVENT, stage.morpho)
    assert done.profit_raw == 0
    assert done.venue == liquidator.Venue(stage.morpho, stage.id)
    assert done.debt_covered_raw == said["repaidAssets"]
    assert done.collateral_seized_raw == said["seizedAssets"] == stage.balance(stage.collateral, RECEIVER)
    assert stage.balance(stage.loan, OWNER) == 9_000 * 10**6 - done.debt_covered_raw
    assert stage.position()[1] == 0
    stage.assert_nothing_left()


def test_own_balance_is_not_spent_where_anybody_can_open_a_market(stage: Stage) -> None:
    stage.mint(stage.loan, stage.contract, 20_000 * 10**6)
    stage.mint(stage.collateral, stage.contract, WAD)
    stage.refuses(stage.inventory(max_repaid_raw=8_500 * 10**6), "reverted")
    stage.fund_owner(9_000 * 10**6)
    done = stage.outcome(stage.send(stage.inventory(max_repaid_raw=8_500 * 10**6)))
    assert 8_000 * 10**6 < done.debt_covered_raw < 8_001 * 10**6
    assert stage.balance(stage.loan, OWNER) == 9_000 * 10**6 - done.debt_covered_raw
    assert stage.balance(stage.loan, stage.contract) == 20_000 * 10**6
    assert stage.balance(stage.collateral, stage.contract) == WAD
    stage.assert_no_allowances()


# Delivers a tenth less than it is told.
TAXED = TETHER.replace(
    "self.balanceOf[to] += amount\n    if", "self.balanceOf[to] += amount - amount // 10\n    if"
)


def test_a_token_that_takes_a_fee_does_not_take_it_from_what_lay_here(chain: Chain) -> None:
    taxed = chain.evm.create(STRANGER, compile_vyper("Taxed", TAXED).creation_code())
    oracle = settable(chain.evm)
    transact(chain.evm, STRANGER, oracle, SET_PRICE, USDC_PER_WETH_E36)
    stage = own_market(chain, taxed, chain.market.asset("WETH").address, oracle, None)
    # Lent by a lender who pays the fee; what Morpho counts as lent is more than it got.
    stage.open(10**12, 100 * WAD, 13_000 * 10**6)
    transact(chain.evm, STRANGER, oracle, SET_PRICE, USDC_PER_WETH_E36 * 9 // 10)
    stage.mint(taxed, stage.contract, 10**11)
    stage.fund_owner(10**11)
    stage.refuses(stage.inventory(max_repaid_raw=14_000 * 10**6), "own tokens spent")
    assert stage.balance(taxed, stage.contract) == 10**11


def test_no_more_is_paid_and_no_less_taken_than_was_said(stage: Stage) -> None:
    stage.fund_owner(9_000 * 10**6)
    *_, held = stage.position()
    # Too little for the whole debt repays a part of it, to the unit, and takes its part.
    before = stage.evm.snapshot()
    done = stage.outcome(stage.send(stage.inventory(max_repaid_raw=7_000 * 10**6)))
    assert done.debt_covered_raw == 7_000 * 10**6
    assert stage.balance(stage.loan, OWNER) == 2_000 * 10**6
    _, shares, left = stage.position()
    assert (shares > 0, left) == (True, held - done.collateral_seized_raw)
    stage.assert_nothing_left()
    stage.evm.revert(before)
    # Nor what the owner does not allow, or does not have.
    transact(stage.evm, OWNER, stage.loan, aave_v3.APPROVE, stage.contract, 6_000 * 10**6)
    done = stage.outcome(stage.simulated(stage.inventory(max_repaid_raw=9_000 * 10**6)))
    assert done.debt_covered_raw == 6_000 * 10**6
    transact(stage.evm, OWNER, stage.loan, aave_v3.APPROVE, stage.contract, 9_000 * 10**6)
    transact(stage.evm, OWNER, stage.loan, aave_v3.TRANSFER, STRANGER, 4_000 * 10**6)
    done = stage.outcome(stage.simulated(stage.inventory(max_repaid_raw=9_000 * 10**6)))
    assert done.debt_covered_raw == 5_000 * 10**6
    stage.mint(stage.loan, OWNER, 4_000 * 10**6)
    # Nothing at all is Morpho's to refuse.
    stage.refuses(stage.inventory(max_repaid_raw=0), "inconsistent input")
    data = stage.inventory(max_repaid_raw=9_000 * 10**6, seized_raw=held // 2, whole_debt=False)
    received = int.from_bytes(stage.evm.call(stage.contract, data, OWNER), "big")
    assert received == held // 2
    stage.refuses(
        stage.inventory(
            max_repaid_raw=9_000 * 10**6,
            seized_raw=held // 2,
            whole_debt=False,
            min_collateral_raw=held // 2 + 1,
        ),
        liquidator.COLLATERAL_BELOW_MINIMUM,
    )


# --- tokens and oracles that are not as one would have them -------------------------------------------------


def own_market(
    chain: Chain,
    loan: str,
    collateral: str,
    oracle: str,
    pool: RangeSpec | None,
    lltv_wad: int = 80 * 10**16,
) -> Stage:
    """A market on tokens of one's own, at an oracle of one's own, with a pool between them."""
    evm, market = chain.evm, chain.market
    assert market.morpho is not None
    params = MarketParams(loan, collateral, oracle, ZERO_ADDRESS, lltv_wad)
    create_markets(evm, market.deployer, market.morpho.address, [params])
    sold = b""
    if pool is not None:
        fee = FEES_PIPS[frozenset(("WETH", "USDC"))]
        spec = replace(DEFAULT_MARKET, pools=(PoolSpec(("WETH", "USDC"), fee, (pool,)),))
        weth = market.asset("WETH").address
        tokens = {"WETH": weth, "USDC": loan if collateral == weth else collateral}
        uniswap = deploy_uniswap(evm, market.deployer, spec, tokens=tokens)
        market = replace(market, uniswap=uniswap)
        sold = uniswap_v3.encode_path([collateral, loan], [fee])
    return Stage(evm, market, params, deploy_liquidator(evm, market), sold)


# Its price is slot 0.
SETTABLE = """
# pragma version 0.4.3
price: public(uint256)

@external
def set(price: uint256):
    self.price = price
"""
# Tries every door when it is asked, and tells nonsense if one opened.
PRYING = """
# pragma version 0.4.3
struct Attempt:
    target: address
    data: Bytes[1024]

attempts: DynArray[Attempt, 8]
answer: uint256

@external
def set(answer: uint256):
    self.answer = answer

@external
def add(target: address, data: Bytes[1024]):
    self.attempts.append(Attempt(target=target, data=data))

@external
def price() -> uint256:
    for attempt: Attempt in self.attempts:
        if raw_call(attempt.target, attempt.data, revert_on_failure=False):
            return 1
    return self.answer
"""
SET_PRICE = function("set(uint256)")
USDC_PER_WETH_E36 = DEFAULT_MARKET.asset("WETH").price_e8 * 10**24 // 10**8


def tether_stage(chain: Chain, debt: str, oracle: str) -> Stage:
    """Tether as what is lent, or as the collateral; the price is 10 % below the pool's."""
    evm = chain.evm
    tether = evm.create(STRANGER, compile_vyper("Tether", TETHER).creation_code())
    weth = chain.market.asset("WETH").address
    if debt == "USDC":
        transact(evm, STRANGER, oracle, SET_PRICE, USDC_PER_WETH_E36)
        stage = own_market(chain, tether, weth, oracle, RangeSpec(0, 8_000_000))
        stage.open(10**12, 100 * WAD, 13_000 * 10**6)
        transact(evm, STRANGER, oracle, SET_PRICE, USDC_PER_WETH_E36 * 9 // 10)
    else:
        price_e36 = 10**72 // USDC_PER_WETH_E36
        transact(evm, STRANGER, oracle, SET_PRICE, price_e36)
        stage = own_market(chain, weth, tether, oracle, RangeSpec(0, 8_000_000))
        stage.open(1_000 * WAD, 17_000 * 10**6, 78 * WAD)
        transact(evm, STRANGER, oracle, SET_PRICE, price_e36 * 9 // 10)
    return stage


def settable(evm: Evm) -> str:
    return evm.create(STRANGER, compile_vyper("Settable", SETTABLE).creation_code())


@pytest.mark.parametrize("debt", ["USDC", "WETH"])
def test_a_token_that_returns_nothing(chain: Chain, debt: str) -> None:
    stage = tether_stage(chain, debt, settable(chain.evm))
    *_, held = stage.position()
    simulated = stage.simulate(stage.flash(seized_raw=held // 3, whole_debt=False))
    done = stage.outcome(stage.send(stage.flash(seized_raw=held // 3, whole_debt=False)))
    assert done.profit_raw == simulated == stage.balance(stage.loan, RECEIVER) > 0
    stage.assert_nothing_left()
    stage.fund_owner(10**20 if debt == "WETH" else 10**11)
    more = 10**20 if debt == "WETH" else 10**11
    done = stage.outcome(stage.send(stage.inventory(intent_id=INTENT[::-1], max_repaid_raw=more)))
    assert stage.balance(stage.collateral, RECEIVER) == done.collateral_seized_raw > 0
    assert stage.balance(stage.loan, OWNER) == more - done.debt_covered_raw
    stage.assert_nothing_left()


def test_a_market_that_lends_its_own_collateral_needs_no_swap(chain: Chain) -> None:
    weth = chain.market.asset("WETH").address
    oracle = settable(chain.evm)
    transact(chain.evm, STRANGER, oracle, SET_PRICE, 10**36)
    stage = own_market(chain, weth, weth, oracle, None)
    stage.open(1_000 * WAD, 100 * WAD, 79 * WAD)
    transact(chain.evm, STRANGER, oracle, SET_PRICE, 9 * 10**35)
    stage.refuses(stage.flash(min_profit_raw=20 * WAD), liquidator.PROFIT_BELOW_MINIMUM)
    before = chain.evm.snapshot()
    result = stage.send(stage.flash())
    done, said = stage.outcome(result), find_log(result, abi.LIQUIDATE_EVENT)
    assert (done.debt_covered_raw, done.collateral_seized_raw) == (79 * WAD, said["seizedAssets"])
    assert done.profit_raw == said["seizedAssets"] - 79 * WAD == stage.balance(weth, RECEIVER) > 0
    stage.assert_nothing_left()
    chain.evm.revert(before)
    stage.fund_owner(80 * WAD)
    done = stage.outcome(stage.send(stage.inventory(max_repaid_raw=80 * WAD)))
    assert (done.debt_covered_raw, done.collateral_seized_raw) == (79 * WAD, said["seizedAssets"])
    assert stage.balance(weth, OWNER) == WAD
    stage.assert_nothing_left()


def test_a_sale_that_empties_the_pool_leaves_the_unsold_collateral_to_the_receiver(chain: Chain) -> None:
    """The router takes no more than the pool can buy, and says nothing of the rest."""
    tether = chain.evm.create(STRANGER, compile_vyper("Tether", TETHER).creation_code())
    weth, oracle = chain.market.asset("WETH").address, settable(chain.evm)
    transact(chain.evm, STRANGER, oracle, SET_PRICE, USDC_PER_WETH_E36)
    stage = own_market(chain, tether, weth, oracle, RangeSpec(300, 26_000))
    stage.open(10**12, 100 * WAD, 12_000 * 10**6)
    transact(chain.evm, STRANGER, oracle, SET_PRICE, USDC_PER_WETH_E36 * 8 // 10)
    done = stage.outcome(stage.send(stage.flash()))
    assert done.profit_raw == stage.balance(tether, RECEIVER) > 0
    assert 0 < stage.balance(weth, RECEIVER) < done.collateral_seized_raw
    stage.assert_nothing_left()


def doors(stage: Stage) -> list[tuple[str, bytes]]:
    """Calls that would do harm if they went through in the middle of a liquidation."""
    other: dict[str, Any] = {"intent_id": INTENT[::-1], "deadline_block": 2**64}
    # Arguments of which nothing can be said against but who calls, and when.
    types = ["address", "address", "uint256", "uint256", "bytes"]
    data = abi_encode(types, [stage.loan, stage.loan, 0, 0, b""])
    words = ["address", "address", "uint256", "bytes"]
    params = abi_encode(words, [stage.collateral, USER, 0, stage.path])
    return [
        (stage.contract, liquidator.ON_MORPHO_LIQUIDATE.encode(0, data)),
        (
            stage.contract,
            liquidator.EXECUTE_OPERATION.encode(stage.loan, 0, 0, stage.contract, params),
        ),
        (stage.contract, stage.flash(**other)),
        (stage.contract, stage.inventory(**other, max_repaid_raw=10**6)),
        (stage.contract, liquidator.SWEEP.encode(stage.loan)),
        (stage.market.pool, aave_v3.FLASH_LOAN_SIMPLE.encode(stage.contract, stage.loan, 1_000, b"", 0)),
    ]


@pytest.mark.parametrize("owner", [False, True], ids=["a stranger", "the owner itself"])
@pytest.mark.parametrize("debt", ["USDC", "WETH"], ids=["in the loan", "in the collateral"])
@pytest.mark.parametrize("inventory", [False, True], ids=["sold", "kept"])
def test_no_door_opens_to_a_token_that_calls_in_the_middle(
    chain: Chain, owner: bool, debt: str, inventory: bool
) -> None:
    """The token hands control away at each transfer: seizure, sale, repayment, profit."""
    stage = tether_stage(chain, debt, settable(chain.evm))
    hooked = stage.loan if debt == "USDC" else stage.collateral
    intruder = chain.evm.create(STRANGER, compile_vyper("Intruder", INTRUDER).creation_code())
    if owner:
        stage.contract = deploy_liquidator(chain.evm, stage.market, owner=intruder)
    for target, data in doors(stage):
        transact(chain.evm, STRANGER, intruder, ADD_ATTEMPT, target, data)
    more = 10**11 if debt == "USDC" else 10**20
    who = intruder if owner else OWNER
    if inventory:
        stage.mint(stage.loan, who, more)
        allow = aave_v3.APPROVE.encode(stage.contract, more)
        if owner:
            transact(chain.evm, STRANGER, intruder, RUN, stage.loan, allow)
        else:
            chain.evm.send(OWNER, stage.loan, allow).expect("allowance")
    transact(chain.evm, STRANGER, hooked, SET_HOOK, intruder)
    data = stage.inventory(max_repaid_raw=more) if inventory else stage.flash()
    if owner:
        result = transact(chain.evm, STRANGER, intruder, RUN, stage.contract, data)
    else:
        result = stage.send(data)
    done = stage.outcome(result)
    assert read(chain.evm, TRIED.call(intruder)) >= (1 if inventory else 2) * 6
    assert read(chain.evm, OPENED.call(intruder)) == 0
    gained = done.collateral_seized_raw if inventory else done.profit_raw
    assert stage.balance(stage.collateral if inventory else stage.loan, RECEIVER) == gained > 0
    transact(chain.evm, STRANGER, hooked, SET_HOOK, ZERO_ADDRESS)
    assert stage.balance(stage.loan, who) == (more - done.debt_covered_raw) * inventory
    stage.assert_nothing_left()


def test_no_door_opens_to_an_oracle_that_calls_in_the_middle(chain: Chain) -> None:
    oracle = chain.evm.create(STRANGER, compile_vyper("Prying", PRYING).creation_code())
    stage = tether_stage(chain, "USDC", oracle)
    plain = stage.simulate(stage.flash())
    for target, data in doors(stage):
        transact(chain.evm, STRANGER, oracle, ADD_ATTEMPT, target, data)
    # Without interest nothing else moves: what it earns is what it earned without the attempts.
    assert stage.outcome(stage.send(stage.flash())).profit_raw == plain
    stage.assert_nothing_left()
