"""Liquidator: somebody's money runs through it. Each promise in its header is held to here."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest
from eth_abi.abi import encode as abi_encode

from contracts_abi import aave_v3, liquidator, uniswap_v3
from contracts_abi.artifacts import compile_vyper
from contracts_abi.calls import function
from contracts_abi.errors import CallReverted, DataError
from simulation.chain.aave_v3 import deploy_aave
from simulation.chain.artifacts import own
from simulation.chain.evm import ZERO_ADDRESS, Evm, TxResult, find_log, labelled_address, read, transact
from simulation.chain.feeds import deploy_feed
from simulation.chain.market import DEFAULT_MARKET, DeployedAsset, Deployment, PoolSpec, RangeSpec
from simulation.chain.uniswap_v3 import deploy_uniswap
from tests.chain.bench import MAX_UINT256, Bench
from tests.chain.conftest import Chain

OWNER = labelled_address("liquidator owner")
RECEIVER = labelled_address("profit receiver")
STRANGER = labelled_address("stranger")
INTENT = bytes(range(32))
FEES_PIPS = {frozenset(pool.symbols): pool.fee_pips for pool in DEFAULT_MARKET.pools}
PREMIUM_BPS = DEFAULT_MARKET.flash_premium_bps


@dataclass
class Stage:
    """A market with one account under water and a liquidator."""

    bench: Bench
    contract: str
    user: str
    collateral: str = "WETH"
    debt: str = "USDC"

    @property
    def evm(self) -> Evm:
        return self.bench.evm

    @property
    def market(self) -> Deployment:
        return self.bench.market

    def address(self, symbol: str) -> str:
        return self.market.asset(symbol).address

    def path(self, *symbols: str) -> bytes:
        fees = [FEES_PIPS[frozenset(hop)] for hop in pairwise(symbols)]
        return uniswap_v3.encode_path([self.address(s) for s in symbols], fees)

    def flash(self, **changes: Any) -> bytes:
        """Calldata of a flash liquidation of the whole debt; `changes` replace arguments."""
        same = self.collateral == self.debt
        arguments: dict[str, Any] = {
            "intent_id": INTENT,
            "collateral": self.address(self.collateral),
            "debt": self.address(self.debt),
            "user": self.user,
            "debt_to_cover_raw": self.bench.debt_raw(self.user, self.debt),
            "path": b"" if same else self.path(self.collateral, self.debt),
            "min_profit_raw": 1,
            "deadline_block": self.evm.block_number(),
        }
        return liquidator.flash_calldata(**(arguments | changes))

    def inventory(self, **changes: Any) -> bytes:
        """Calldata of a liquidation of the whole debt from inventory."""
        arguments: dict[str, Any] = {
            "intent_id": INTENT,
            "collateral": self.address(self.collateral),
            "debt": self.address(self.debt),
            "user": self.user,
            "debt_to_cover_raw": self.bench.debt_raw(self.user, self.debt),
            "min_collateral_raw": 1,
            "deadline_block": self.evm.block_number(),
        }
        return liquidator.inventory_calldata(**(arguments | changes))

    def simulate(self, data: bytes) -> int:
        return int(liquidator.LIQUIDATE_FLASH.decode_one(self.evm.call(self.contract, data, OWNER)))

    def send(self, data: bytes, sender: str = OWNER) -> TxResult:
        return self.evm.send(sender, self.contract, data).expect("liquidation")

    def refuses(self, data: bytes, reason: str, sender: str = OWNER) -> None:
        """Assert that the transaction reverts with `reason` and leaves nothing."""
        result = self.evm.send(sender, self.contract, data)
        assert not result.success
        with pytest.raises(CallReverted, match=reason):
            result.expect("liquidation")
        assert read(self.evm, liquidator.EXECUTED_AT.call(self.contract, INTENT)) == 0

    def outcome(self, result: TxResult) -> liquidator.Liquidated:
        (log,) = [log for log in result.logs if log.address == self.contract]
        return liquidator.decode_liquidated(log.topics, log.data)

    def assert_nothing_left(self) -> None:
        for symbol in self.market.assets:
            assert self.bench.balance(symbol, self.contract) == 0, symbol
        self.assert_no_allowances()

    def assert_no_allowances(self) -> None:
        for asset in self.market.assets.values():
            for spender in (self.market.pool, self.market.uniswap.router):
                allowance = aave_v3.ALLOWANCE.call(asset.address, self.contract, spender)
                assert read(self.evm, allowance) == 0, asset.symbol


def deploy_liquidator(evm: Evm, pool: str, router: str) -> str:
    return evm.create(OWNER, own("Liquidator").creation_code(OWNER, RECEIVER, pool, ZERO_ADDRESS, router))


@pytest.fixture
def bench(chain: Chain) -> Bench:
    return Bench(chain.evm, chain.market)


@pytest.fixture
def stage(bench: Bench) -> Stage:
    """A health factor of about 0.93: the whole debt may be covered."""
    contract = deploy_liquidator(bench.evm, bench.market.pool, bench.market.uniswap.router)
    user = bench.account("under water", {"WETH": 10_000}, {"USDC": 7_900})
    bench.move("WETH", -12)
    assert 0.9 < bench.health_factor_wad(user) / 1e18 < 0.95
    return Stage(bench, contract, user)


# --- with a flash loan --------------------------------------------------------------------------------------


def test_the_profit_is_the_simulated_one_and_goes_to_the_receiver(stage: Stage) -> None:
    data = stage.flash()
    simulated = stage.simulate(data)
    before = stage.bench.balance("USDC", RECEIVER)
    result = stage.send(data)
    done = stage.outcome(result)
    assert done.profit_raw == simulated > 0
    assert stage.bench.balance("USDC", RECEIVER) - before == simulated
    stage.assert_nothing_left()
    assert stage.bench.debt_raw(stage.user, "USDC") == 0


def test_the_event_says_what_the_pool_says(stage: Stage) -> None:
    result = stage.send(stage.flash())
    done = stage.outcome(result)
    call = find_log(result, aave_v3.LIQUIDATION_CALL_EVENT, stage.market.pool)
    assert (done.intent_id, done.user) == (INTENT, stage.user)
    assert done.venue == liquidator.Venue(stage.market.pool)
    assert (done.collateral, done.debt) == (call["collateralAsset"], call["debtAsset"])
    assert done.debt_covered_raw == call["debtToCover"]
    assert done.collateral_seized_raw == call["liquidatedCollateralAmount"]
    assert (call["liquidator"], call["receiveAToken"]) == (stage.contract, False)


def test_the_profit_is_proceeds_less_debt_less_premium(stage: Stage) -> None:
    """The quoter prices the sale of what the pool will seize, on the same state."""
    before = stage.evm.snapshot()
    done = stage.outcome(stage.send(stage.flash()))
    stage.evm.revert(before)
    quote = uniswap_v3.QUOTE_EXACT_INPUT.call(
        stage.market.uniswap.quoter, stage.path("WETH", "USDC"), done.collateral_seized_raw
    )
    proceeds = read(stage.evm, quote)[0]
    premium = (done.debt_covered_raw * PREMIUM_BPS + 5_000) // 10_000
    assert done.profit_raw == proceeds - done.debt_covered_raw - premium


def test_a_path_of_several_pools(stage: Stage) -> None:
    data = stage.flash(path=stage.path("WETH", "WBTC", "USDC"))
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


def test_a_liquidation_at_a_loss_reverts_although_no_profit_is_asked_for(stage: Stage) -> None:
    # The pool pays far less for WETH than the oracle says.
    sell = stage.bench.raw("WETH", 30_000_000)
    stage.bench.mint("WETH", STRANGER, sell)
    transact(stage.evm, STRANGER, stage.address("WETH"), aave_v3.APPROVE, stage.market.uniswap.router, sell)
    swap = (stage.path("WETH", "USDC"), STRANGER, 2**64, sell, 0)
    transact(stage.evm, STRANGER, stage.market.uniswap.router, uniswap_v3.EXACT_INPUT, swap)
    # Not even with own funds at hand that could pay for it.
    stage.bench.mint("USDC", stage.contract, 10**12)
    stage.refuses(stage.flash(min_profit_raw=0), liquidator.SWAP_BELOW_MINIMUM)
    assert stage.bench.balance("USDC", stage.contract) == 10**12


def test_half_the_debt_where_the_pool_allows_no_more(bench: Bench) -> None:
    contract = deploy_liquidator(bench.evm, bench.market.pool, bench.market.uniswap.router)
    user = bench.account("just under water", {"WETH": 10_000}, {"USDC": 7_900})
    bench.move("WETH", -8)
    assert 0.95 < bench.health_factor_wad(user) / 1e18 < 1
    stage = Stage(bench, contract, user)
    debt = bench.debt_raw(user, "USDC")
    # Asked for all of it: what the pool does not take of the loan goes back with it.
    done = stage.outcome(stage.send(stage.flash(debt_to_cover_raw=debt)))
    assert abs(done.debt_covered_raw * 2 - debt) <= 2
    assert 0 < done.profit_raw == bench.balance("USDC", RECEIVER)
    stage.assert_nothing_left()
    assert bench.debt_raw(user, "USDC") > 0


def test_collateral_and_debt_of_one_asset_need_no_swap(bench: Bench) -> None:
    contract = deploy_liquidator(bench.evm, bench.market.pool, bench.market.uniswap.router)
    user = bench.account("one asset", {"WETH": 9_000, "DAI": 4_000}, {"DAI": 6_000})
    bench.move("WETH", -80)
    stage = Stage(bench, contract, user, collateral="DAI", debt="DAI")
    data = stage.flash()
    simulated = stage.simulate(data)
    result = stage.send(data)
    done = stage.outcome(result)
    call = find_log(result, aave_v3.LIQUIDATION_CALL_EVENT)
    assert done.debt_covered_raw == call["debtToCover"]
    assert done.collateral_seized_raw == call["liquidatedCollateralAmount"]
    assert done.profit_raw == simulated == bench.balance("DAI", RECEIVER)
    stage.assert_nothing_left()
    assert (
        done.profit_raw
        < done.collateral_seized_raw - done.debt_covered_raw
        == done.profit_raw + _premium_of(result)
    )


def test_the_least_profit_is_enforced_without_a_swap(bench: Bench) -> None:
    contract = deploy_liquidator(bench.evm, bench.market.pool, bench.market.uniswap.router)
    user = bench.account("one asset", {"WETH": 9_000, "DAI": 4_000}, {"DAI": 6_000})
    bench.move("WETH", -80)
    stage = Stage(bench, contract, user, collateral="DAI", debt="DAI")
    profit = stage.simulate(stage.flash())
    stage.refuses(stage.flash(min_profit_raw=2 * profit), liquidator.PROFIT_BELOW_MINIMUM)


def _premium_of(result: TxResult) -> int:
    return int(find_log(result, aave_v3.FLASH_LOAN_EVENT)["premium"])


def test_tokens_that_lay_there_are_neither_spent_nor_swept(stage: Stage) -> None:
    held = {"USDC": 123_456_789, "WETH": 10**18 + 7, "DAI": 5}
    for symbol, amount in held.items():
        stage.bench.mint(symbol, stage.contract, amount)
    data = stage.flash()
    simulated = stage.simulate(data)
    assert stage.outcome(stage.send(data)).profit_raw == simulated
    assert stage.bench.balance("USDC", RECEIVER) == simulated
    for symbol, amount in held.items():
        assert stage.bench.balance(symbol, stage.contract) == amount
    stage.assert_no_allowances()


def senders(stage: Stage, *accounts: str) -> tuple[str, ...]:
    """Accounts, and the contracts themselves where the EVM lets a contract send a transaction."""
    return accounts if stage.evm.name == "revm" else (*accounts, stage.contract, stage.market.pool)


# --- who, when, how often -----------------------------------------------------------------------------------


def test_nobody_but_the_owner(stage: Stage) -> None:
    for sender in senders(stage, STRANGER, RECEIVER):
        stage.refuses(stage.flash(), liquidator.OWNER_ONLY, sender)
        stage.refuses(stage.inventory(), liquidator.OWNER_ONLY, sender)
        stage.refuses(liquidator.SWEEP.encode(stage.address("USDC")), liquidator.OWNER_ONLY, sender)


def test_an_intent_runs_once(stage: Stage) -> None:
    debt = stage.bench.debt_raw(stage.user, "USDC")
    first = stage.send(stage.flash(debt_to_cover_raw=debt // 4))
    assert read(stage.evm, liquidator.EXECUTED_AT.call(stage.contract, INTENT)) == first.block
    for calldata in (stage.flash, stage.inventory):
        again = stage.evm.send(OWNER, stage.contract, calldata(debt_to_cover_raw=debt // 4))
        with pytest.raises(CallReverted, match=liquidator.INTENT_EXECUTED):
            again.expect("second run")
    # Another name, and it runs.
    stage.send(stage.flash(debt_to_cover_raw=debt // 4, intent_id=INTENT[::-1]))


def test_an_intent_that_reverted_may_run_later(stage: Stage) -> None:
    stage.refuses(stage.flash(min_profit_raw=10**15), liquidator.SWAP_BELOW_MINIMUM)
    stage.send(stage.flash())


def test_no_later_than_the_deadline(stage: Stage) -> None:
    late = stage.evm.block_number() - 1
    stage.refuses(stage.flash(deadline_block=late), liquidator.DEADLINE_PASSED)
    stage.refuses(stage.inventory(deadline_block=late), liquidator.DEADLINE_PASSED)


def test_the_path_must_fit_the_tokens(stage: Stage) -> None:
    stage.refuses(stage.flash(path=b""), liquidator.PATH_MISMATCH)
    stage.refuses(
        stage.flash(debt=stage.address("WETH"), path=stage.path("WETH", "USDC")), liquidator.PATH_MISMATCH
    )
    # A path that sells something else, or ends in something else, cannot be paid for.
    stage.refuses(stage.flash(path=stage.path("WBTC", "USDC")), "reverted")
    stage.refuses(stage.flash(path=stage.path("WETH", "WBTC")), "reverted")


def test_a_healthy_account_is_the_pools_to_refuse(stage: Stage) -> None:
    healthy = stage.bench.account("healthy", {"WETH": 10_000}, {"USDC": 1_000})
    debt = stage.bench.debt_raw(healthy, "USDC")
    stage.refuses(stage.flash(user=healthy, debt_to_cover_raw=debt), "45")


def test_it_takes_no_ether_and_unknown_functions(stage: Stage) -> None:
    assert not stage.evm.send(OWNER, stage.contract, b"", value=0).success
    stage.evm.set_balance(OWNER, 10**18)
    assert not stage.evm.send(OWNER, stage.contract, stage.flash(), value=1).success
    assert stage.evm.balance(stage.contract) == 0


def test_what_it_is_built_from_is_checked(stage: Stage) -> None:
    pool, router = stage.market.pool, stage.market.uniswap.router
    code = own("Liquidator")
    for arguments, reason in (
        ((ZERO_ADDRESS, RECEIVER, pool, ZERO_ADDRESS, router), "zero address"),
        ((OWNER, ZERO_ADDRESS, pool, ZERO_ADDRESS, router), "zero address"),
        ((OWNER, RECEIVER, STRANGER, ZERO_ADDRESS, router), "no code at pool"),
        ((OWNER, RECEIVER, pool, STRANGER, router), "no code at Morpho"),
        ((OWNER, RECEIVER, pool, ZERO_ADDRESS, STRANGER), "no code at router"),
        ((OWNER, RECEIVER, ZERO_ADDRESS, ZERO_ADDRESS, router), "neither a pool nor a Morpho"),
        ((OWNER, RECEIVER, pool, pool, router), "one contract"),
    ):
        with pytest.raises(CallReverted, match=reason):
            stage.evm.create(OWNER, code.creation_code(*arguments))
    built = [liquidator.OWNER, liquidator.RECEIVER, liquidator.POOL, liquidator.MORPHO, liquidator.ROUTER]
    found = [read(stage.evm, fn.call(stage.contract)) for fn in built]
    assert found == [OWNER, RECEIVER, pool, ZERO_ADDRESS, router]


def test_sweep_sends_what_is_there_to_the_receiver_only(stage: Stage) -> None:
    stage.bench.mint("DAI", stage.contract, 42)
    result = stage.send(liquidator.SWEEP.encode(stage.address("DAI")))
    assert result.success
    assert stage.bench.balance("DAI", RECEIVER) == 42
    stage.assert_nothing_left()
    stage.send(liquidator.SWEEP.encode(stage.address("DAI")))


# --- the callback -------------------------------------------------------------------------------------------


def test_the_callback_answers_nobody_when_no_loan_is_pending(stage: Stage) -> None:
    data = liquidator.EXECUTE_OPERATION.encode(stage.address("USDC"), 1, 0, stage.contract, b"")
    for sender in senders(stage, OWNER, STRANGER):
        stage.refuses(data, liquidator.UNEXPECTED_CALLBACK, sender)


def test_a_loan_that_somebody_else_took_for_it_is_refused(stage: Stage) -> None:
    loan = aave_v3.FLASH_LOAN_SIMPLE.encode(stage.contract, stage.address("USDC"), 1_000, b"", 0)
    result = stage.evm.send(STRANGER, stage.market.pool, loan)
    with pytest.raises(CallReverted, match=liquidator.UNEXPECTED_CALLBACK):
        result.expect("loan")


EVIL_POOL = """
# pragma version 0.4.3
interface Receiver:
    def executeOperation(
        asset: address, amount: uint256, premium: uint256, initiator: address, params: Bytes[288]
    ) -> bool: nonpayable

calls: public(uint256)
pretends: public(address)

@external
def set(calls: uint256, pretends: address):
    self.calls = calls
    self.pretends = pretends

@external
def flashLoanSimple(receiver: address, asset: address, amount: uint256, params: Bytes[288], code: uint16):
    initiator: address = msg.sender
    if self.pretends != empty(address):
        initiator = self.pretends
    for i: uint256 in range(self.calls, bound=3):
        extcall Receiver(receiver).executeOperation(asset, amount, 0, initiator, params)

@external
def liquidationCall(collateral: address, debt: address, user: address, amount: uint256, a_token: bool):
    pass

@external
def call_back(receiver: address, asset: address):
    extcall Receiver(receiver).executeOperation(asset, 1, 0, receiver, b"")
"""

SET_EVIL = function("set(uint256,address)")
CALL_BACK = function("call_back(address,address)")


def test_a_foreign_pool_cannot_call_back(stage: Stage) -> None:
    foreign = stage.evm.create(STRANGER, compile_vyper("EvilPool", EVIL_POOL).creation_code())
    result = stage.evm.send(STRANGER, foreign, CALL_BACK.encode(stage.contract, stage.address("USDC")))
    with pytest.raises(CallReverted, match=liquidator.UNEXPECTED_CALLBACK):
        result.expect("callback")


def test_a_pool_that_calls_back_never_twice_or_for_another_is_refused(stage: Stage) -> None:
    evil = stage.evm.create(STRANGER, compile_vyper("EvilPool", EVIL_POOL).creation_code())
    stage.contract = deploy_liquidator(stage.evm, evil, stage.market.uniswap.router)
    dai = stage.address("DAI")
    stage.bench.mint("DAI", stage.contract, 10)
    data = stage.flash(collateral=dai, debt=dai, path=b"", debt_to_cover_raw=10, min_profit_raw=0)
    for calls, pretends, reason in (
        (0, ZERO_ADDRESS, "did not call back"),
        (2, ZERO_ADDRESS, liquidator.UNEXPECTED_CALLBACK),
        (1, STRANGER, liquidator.UNEXPECTED_CALLBACK),
    ):
        transact(stage.evm, STRANGER, evil, SET_EVIL, calls, pretends)
        data = stage.flash(collateral=dai, debt=dai, path=b"", debt_to_cover_raw=10, min_profit_raw=0)
        stage.refuses(data, reason)
    # The guard is what refused it: called back once and as itself, the same call goes through.
    transact(stage.evm, STRANGER, evil, SET_EVIL, 1, ZERO_ADDRESS)
    data = stage.flash(collateral=dai, debt=dai, path=b"", debt_to_cover_raw=10, min_profit_raw=0)
    stage.send(data)
    assert stage.bench.balance("DAI", stage.contract) == 10
    allowance = aave_v3.ALLOWANCE.call(dai, stage.contract, evil)
    assert read(stage.evm, allowance) == 0, "a loan that nobody collected leaves no allowance either"


# --- from inventory -----------------------------------------------------------------------------------------


def fund_owner(stage: Stage, amount: int, allowance: int | None = None) -> None:
    stage.bench.mint(stage.debt, OWNER, amount)
    transact(
        stage.evm,
        OWNER,
        stage.address(stage.debt),
        aave_v3.APPROVE,
        stage.contract,
        amount if allowance is None else allowance,
    )


def test_from_the_owners_allowance_the_collateral_is_kept(stage: Stage) -> None:
    debt = stage.bench.debt_raw(stage.user, "USDC")
    fund_owner(stage, debt * 2)
    result = stage.send(stage.inventory(debt_to_cover_raw=debt))
    done = stage.outcome(result)
    call = find_log(result, aave_v3.LIQUIDATION_CALL_EVENT)
    assert done.profit_raw == 0
    assert done.debt_covered_raw == call["debtToCover"]
    assert done.collateral_seized_raw == call["liquidatedCollateralAmount"]
    assert stage.bench.balance("WETH", RECEIVER) == done.collateral_seized_raw > 0
    assert stage.bench.balance("USDC", OWNER) == debt * 2 - done.debt_covered_raw
    stage.assert_nothing_left()


def test_own_balance_is_used_before_the_owners(stage: Stage) -> None:
    debt = stage.bench.debt_raw(stage.user, "USDC")
    stage.bench.mint("USDC", stage.contract, debt // 3)
    fund_owner(stage, debt)
    done = stage.outcome(stage.send(stage.inventory(debt_to_cover_raw=debt)))
    assert stage.bench.balance("USDC", OWNER) == debt - (done.debt_covered_raw - debt // 3)
    stage.assert_nothing_left()


def test_enough_own_balance_needs_no_allowance_and_keeps_the_rest(stage: Stage) -> None:
    debt = stage.bench.debt_raw(stage.user, "USDC")
    stage.bench.mint("USDC", stage.contract, 5 * debt)
    done = stage.outcome(stage.send(stage.inventory(debt_to_cover_raw=debt)))
    assert stage.bench.balance("USDC", stage.contract) == 5 * debt - done.debt_covered_raw
    assert stage.bench.balance("USDC", OWNER) == 0
    stage.assert_no_allowances()


def test_what_the_pool_does_not_take_goes_back_to_the_owner(stage: Stage) -> None:
    debt = stage.bench.debt_raw(stage.user, "USDC")
    fund_owner(stage, 3 * debt)
    done = stage.outcome(stage.send(stage.inventory(debt_to_cover_raw=3 * debt)))
    assert done.debt_covered_raw < 2 * debt
    assert stage.bench.balance("USDC", OWNER) == 3 * debt - done.debt_covered_raw
    assert stage.bench.balance("USDC", RECEIVER) == 0
    stage.assert_nothing_left()


def test_the_owner_gets_back_no_more_than_came_from_it(stage: Stage) -> None:
    debt = stage.bench.debt_raw(stage.user, "USDC")
    stage.bench.mint("USDC", stage.contract, 2 * debt)
    fund_owner(stage, debt)
    done = stage.outcome(stage.send(stage.inventory(debt_to_cover_raw=3 * debt)))
    assert stage.bench.balance("USDC", OWNER) == debt
    assert stage.bench.balance("USDC", stage.contract) == 2 * debt - done.debt_covered_raw
    stage.assert_no_allowances()


def test_from_inventory_in_one_asset(bench: Bench) -> None:
    contract = deploy_liquidator(bench.evm, bench.market.pool, bench.market.uniswap.router)
    user = bench.account("one asset", {"WETH": 9_000, "DAI": 4_000}, {"DAI": 6_000})
    bench.move("WETH", -80)
    stage = Stage(bench, contract, user, collateral="DAI", debt="DAI")
    debt = bench.debt_raw(user, "DAI")
    fund_owner(stage, debt)
    result = stage.send(stage.inventory(debt_to_cover_raw=debt))
    done = stage.outcome(result)
    call = find_log(result, aave_v3.LIQUIDATION_CALL_EVENT)
    assert done.debt_covered_raw == call["debtToCover"]
    assert done.collateral_seized_raw == call["liquidatedCollateralAmount"] == bench.balance("DAI", RECEIVER)
    assert bench.balance("DAI", OWNER) == debt - done.debt_covered_raw
    stage.assert_nothing_left()


def test_the_least_collateral_is_enforced_to_the_unit(stage: Stage) -> None:
    debt = stage.bench.debt_raw(stage.user, "USDC") // 2
    fund_owner(stage, debt)
    call = stage.inventory(debt_to_cover_raw=debt)
    seized = int.from_bytes(stage.evm.call(stage.contract, call, OWNER), "big")
    stage.refuses(
        stage.inventory(debt_to_cover_raw=debt, min_collateral_raw=seized + 1),
        liquidator.COLLATERAL_BELOW_MINIMUM,
    )
    done = stage.outcome(stage.send(stage.inventory(debt_to_cover_raw=debt, min_collateral_raw=seized)))
    assert done.collateral_seized_raw == seized


def test_too_small_an_allowance_is_refused(stage: Stage) -> None:
    debt = stage.bench.debt_raw(stage.user, "USDC")
    fund_owner(stage, debt, allowance=debt - 1)
    stage.refuses(stage.inventory(debt_to_cover_raw=debt), "allowance")


# --- tokens that are not as the standard has them ----------------------------------------------------------

# Returns nothing, refuses to change one allowance into another, and tells an address of each transfer.
TETHER = """
# pragma version 0.4.3
name: public(String[16])
symbol: public(String[16])
decimals: public(uint8)
totalSupply: public(uint256)
balanceOf: public(HashMap[address, uint256])
allowance: public(HashMap[address, HashMap[address, uint256]])
hook: public(address)

@deploy
def __init__():
    self.name = "Tether USD"
    self.symbol = "USDT"
    self.decimals = 6

@external
def set_hook(hook: address):
    self.hook = hook

@external
def mint(to: address, amount: uint256) -> bool:
    self.balanceOf[to] += amount
    self.totalSupply += amount
    return True

@external
def approve(spender: address, amount: uint256):
    assert amount == 0 or self.allowance[msg.sender][spender] == 0, "allowance over zero only"
    self.allowance[msg.sender][spender] = amount

@external
def transfer(to: address, amount: uint256):
    self._move(msg.sender, to, amount)

@external
def transferFrom(sender: address, to: address, amount: uint256):
    self.allowance[sender][msg.sender] -= amount
    self._move(sender, to, amount)

@internal
def _move(sender: address, to: address, amount: uint256):
    self.balanceOf[sender] -= amount
    self.balanceOf[to] += amount
    if self.hook != empty(address):
        raw_call(self.hook, b"")
"""

# Told of a transfer, it tries every door of the liquidator, and counts how many opened.
INTRUDER = """
# pragma version 0.4.3
struct Attempt:
    target: address
    data: Bytes[1024]

attempts: DynArray[Attempt, 8]
tried: public(uint256)
opened: public(uint256)
busy: bool

@external
def add(target: address, data: Bytes[1024]):
    self.attempts.append(Attempt(target=target, data=data))

@external
def run(target: address, data: Bytes[1024]):
    raw_call(target, data)

@external
def __default__():
    if self.busy:
        return
    self.busy = True
    for attempt: Attempt in self.attempts:
        self.tried += 1
        if raw_call(attempt.target, attempt.data, revert_on_failure=False):
            self.opened += 1
    self.busy = False
"""

SET_HOOK = function("set_hook(address)")
ADD_ATTEMPT = function("add(address,bytes)")
RUN = function("run(address,bytes)")
TRIED = function("tried()(uint256)")
OPENED = function("opened()(uint256)")


def tether_market(chain: Chain, *ranges: RangeSpec) -> Bench:
    """A market of its own in which USDC is a token like Tether's, with one pool."""
    evm, deployer = chain.evm, chain.market.deployer
    spec = dataclasses.replace(
        DEFAULT_MARKET,
        assets=tuple(a for a in DEFAULT_MARKET.assets if a.symbol in ("WETH", "USDC")),
        pools=(PoolSpec(("WETH", "USDC"), FEES_PIPS[frozenset(("WETH", "USDC"))], ranges),),
    )
    tokens = {
        "WETH": chain.market.asset("WETH").address,
        "USDC": evm.create(deployer, compile_vyper("Tether", TETHER).creation_code()),
    }
    feeds = {a.symbol: deploy_feed(evm, deployer, a.symbol, a.feed, a.price_e8) for a in spec.assets}
    aave = deploy_aave(evm, deployer, spec, tokens=tokens, feeds=feeds)
    market = dataclasses.replace(
        chain.market,
        provider=aave.provider,
        pool=aave.pool,
        oracle=aave.oracle,
        assets={
            a.symbol: DeployedAsset(
                symbol=a.symbol,
                address=tokens[a.symbol],
                decimals=a.decimals,
                a_token=aave.reserves[a.symbol].a_token,
                v_token=aave.reserves[a.symbol].v_token,
                feed=feeds[a.symbol],
                reference_feed=feeds[a.symbol],
            )
            for a in spec.assets
        },
        uniswap=deploy_uniswap(evm, deployer, spec, tokens=tokens),
    )
    return Bench(evm, market)


@pytest.fixture
def tether(chain: Chain) -> Bench:
    """The market with a pool that is deep enough."""
    return tether_market(chain, RangeSpec(0, 8_000_000), RangeSpec(300, 4_000_000))


def tether_stage(bench: Bench, debt: str) -> Stage:
    """Tether as the debt, or as the collateral."""
    contract = deploy_liquidator(bench.evm, bench.market.pool, bench.market.uniswap.router)
    if debt == "USDC":
        user = bench.account("owes tether", {"WETH": 10_000}, {"USDC": 7_900})
        bench.move("WETH", -12)
        return Stage(bench, contract, user)
    user = bench.account("holds tether", {"USDC": 10_000}, {"WETH": 7_400})
    bench.move("WETH", 12)
    return Stage(bench, contract, user, collateral="USDC", debt="WETH")


@pytest.mark.parametrize("debt", ["USDC", "WETH"])
def test_a_token_that_returns_nothing_with_a_flash_loan(tether: Bench, debt: str) -> None:
    stage = tether_stage(tether, debt)
    # The sale is at the pool's old price, which is a loss where the debt rose: own profit is not the point.
    if debt == "WETH":
        buy_weth(stage)
    data = stage.flash(min_profit_raw=0)
    simulated = stage.simulate(data)
    assert stage.outcome(stage.send(data)).profit_raw == simulated == tether.balance(debt, RECEIVER)
    stage.assert_nothing_left()


@pytest.mark.parametrize("debt", ["USDC", "WETH"])
def test_a_token_that_returns_nothing_from_inventory(tether: Bench, debt: str) -> None:
    stage = tether_stage(tether, debt)
    owed = tether.debt_raw(stage.user, debt)
    fund_owner(stage, 2 * owed)
    done = stage.outcome(stage.send(stage.inventory(debt_to_cover_raw=2 * owed)))
    assert tether.balance(stage.collateral, RECEIVER) == done.collateral_seized_raw > 0
    assert tether.balance(debt, OWNER) == 2 * owed - done.debt_covered_raw
    stage.assert_nothing_left()


def buy_weth(stage: Stage) -> None:
    """Sell WETH into the pool, so that tether buys more of it than the oracle says."""
    amount = stage.bench.raw("WETH", 4_000_000)
    stage.bench.mint("WETH", STRANGER, amount)
    router = stage.market.uniswap.router
    transact(stage.evm, STRANGER, stage.address("WETH"), aave_v3.APPROVE, router, amount)
    swap = (stage.path("WETH", "USDC"), STRANGER, 2**64, amount, 0)
    transact(stage.evm, STRANGER, router, uniswap_v3.EXACT_INPUT, swap)


def test_a_sale_that_empties_the_pool_leaves_the_unsold_collateral_to_the_receiver(chain: Chain) -> None:
    """The router takes no more than the pool can buy, and says nothing of the rest."""
    bench = tether_market(chain, RangeSpec(300, 18_000))
    stage = Stage(
        bench,
        deploy_liquidator(bench.evm, bench.market.pool, bench.market.uniswap.router),
        bench.account("more than the pool holds", {"WETH": 10_000}, {"USDC": 7_900}),
    )
    bench.move("WETH", -20)
    data = stage.flash()
    simulated = stage.simulate(data)
    done = stage.outcome(stage.send(data))
    assert done.profit_raw == simulated == bench.balance("USDC", RECEIVER) > 0
    assert 0 < bench.balance("WETH", RECEIVER) < done.collateral_seized_raw
    stage.assert_nothing_left()


def attempts(stage: Stage) -> Sequence[tuple[str, bytes]]:
    """Calls that would do harm if they went through in the middle of a liquidation."""
    usdc, some = stage.address("USDC"), 1_000_000
    other: dict[str, Any] = {"intent_id": INTENT[::-1], "deadline_block": 2**64, "debt_to_cover_raw": some}
    params = abi_encode(
        ["address", "address", "uint256", "bytes"],
        [stage.address("WETH"), stage.user, 0, stage.path("WETH", "USDC")],
    )
    return (
        (stage.contract, liquidator.EXECUTE_OPERATION.encode(usdc, some, 0, stage.contract, params)),
        (stage.market.pool, aave_v3.FLASH_LOAN_SIMPLE.encode(stage.contract, usdc, some, params, 0)),
        (stage.contract, stage.flash(**other)),
        (stage.contract, stage.inventory(**other)),
        (stage.contract, liquidator.SWEEP.encode(usdc)),
    )


@pytest.mark.parametrize("owner", [False, True], ids=["a stranger", "the owner itself"])
def test_no_door_opens_to_a_token_that_calls_in_the_middle(tether: Bench, owner: bool) -> None:
    """The token hands control away at each transfer: loan, repayment, sale, profit."""
    stage = tether_stage(tether, "USDC")
    intruder = stage.evm.create(STRANGER, compile_vyper("Intruder", INTRUDER).creation_code())
    if owner:
        # A contract that owns the liquidator and would run it again from within.
        pool, router = stage.market.pool, stage.market.uniswap.router
        stage.contract = stage.evm.create(
            OWNER, own("Liquidator").creation_code(intruder, RECEIVER, pool, ZERO_ADDRESS, router)
        )
    for target, data in attempts(stage):
        transact(stage.evm, STRANGER, intruder, ADD_ATTEMPT, target, data)
    transact(stage.evm, STRANGER, stage.address("USDC"), SET_HOOK, intruder)
    if owner:
        result = transact(stage.evm, STRANGER, intruder, RUN, stage.contract, stage.flash())
    else:
        result = stage.send(stage.flash())
    done = stage.outcome(result)
    assert read(stage.evm, TRIED.call(intruder)) >= 4 * 5
    assert read(stage.evm, OPENED.call(intruder)) == 0
    assert tether.balance("USDC", RECEIVER) == done.profit_raw > 0
    transact(stage.evm, STRANGER, stage.address("USDC"), SET_HOOK, ZERO_ADDRESS)
    stage.assert_nothing_left()


# --- codec --------------------------------------------------------------------------------------------------


def test_a_foreign_log_and_a_short_intent_id_are_refused(stage: Stage) -> None:
    with pytest.raises(DataError, match="not Liquidated"):
        liquidator.decode_liquidated([bytes(32)], b"")
    with pytest.raises(DataError, match="intent id of 31 bytes"):
        stage.flash(intent_id=INTENT[1:])
