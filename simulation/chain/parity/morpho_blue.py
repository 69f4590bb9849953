"""Parity of Morpho Blue: random calls of one or more real markets, computed by the model and by the contract.

A case reads its markets once, through the adapter. From then on the model goes on by itself, and after every
call its states are held against the contract's: a difference in interest, in shares or in a rate model's
memory is one as soon as it arises. The last calls are liquidations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Final, Literal

import numpy as np

from contracts_abi import aave_v3 as erc20
from contracts_abi import morpho_blue as abi
from contracts_abi.errors import CallReverted
from simulation.chain.aave_v3 import MINT
from simulation.chain.artifacts import aave
from simulation.chain.evm import ZERO_ADDRESS, Evm, TxResult, find_log, labelled_address, read, transact
from simulation.chain.morpho_blue import (
    create_markets,
    deploy_adaptive_curve_irm,
    deploy_morpho,
    deploy_utilization_irm,
)
from simulation.chain.parity.aave_cases import PRICE_SOURCE
from simulation.chain.parity.harness import CaseResult, Compared, Mismatch, Verdict, parity_adapters
from simulation.fixed_point import MAX_UINT256, SECONDS_PER_YEAR, WAD
from simulation.protocols.morpho_blue import errors, morpho
from simulation.protocols.morpho_blue.adapter import MorphoBlue
from simulation.protocols.morpho_blue.irm import AdaptiveCurveIrm
from simulation.protocols.morpho_blue.layout import IrmKind, MorphoLayout
from simulation.protocols.morpho_blue.shares_math_lib import to_assets_down
from simulation.protocols.morpho_blue.types import (
    LiquidationOutcome,
    MarketParams,
    MarketState,
    MorphoAccount,
    MorphoMarket,
    Outcome,
)
from simulation.types import Asset, LiquidationPlan, MarginStatus

REFUSES: Final = bytes.fromhex("5f5ffd")
"""A contract that reverts without a word, whatever it is asked."""

TOKENS: Final = {"WETH": (18, 2_000), "WBTC": (8, 60_000), "USDC": (6, 1), "DAI": (18, 1)}
"""Decimals and a price in USD, by symbol."""

MARKETS: Final = (
    ("USDC", "WETH", 86 * WAD // 100, IrmKind.ADAPTIVE_CURVE),
    ("USDC", "WBTC", 86 * WAD // 100, IrmKind.ADAPTIVE_CURVE),
    ("WETH", "WBTC", 915 * WAD // 1000, IrmKind.ADAPTIVE_CURVE),
    ("DAI", "WETH", 77 * WAD // 100, IrmKind.FIXED_RATE),
    ("DAI", "WBTC", 385 * WAD // 1000, IrmKind.FIXED_RATE),
    ("USDC", "DAI", 98 * WAD // 100, IrmKind.UTILIZATION),
    ("WETH", "DAI", 945 * WAD // 1000, IrmKind.UTILIZATION),
    ("WBTC", "USDC", 625 * WAD // 1000, IrmKind.NONE),
)
"""Loan token, collateral, liquidation loan-to-value, rate model."""

DONE: Final = {
    "supply": "supplied",
    "withdraw": "withdrawn",
    "borrow": "borrowed",
    "repay": "repaid",
    "withdrawCollateral": "collateral_withdrawn",
}
"""What a case is counted as when a call of that function went through."""

WORDLESS: Final = ("supplyCollateral", "withdrawCollateral", "accrueInterest")
"""Functions that answer nothing."""

FUNDS_RAW: Final = 10**36
YEAR_S: Final = SECONDS_PER_YEAR
HUGE: Final = (2**128, 2**160, 2**255, MAX_UINT256)

DEPLOYER: Final = labelled_address("deployer")
PROVIDER: Final = labelled_address("liquidity provider")
BORROWER: Final = labelled_address("borrower")
OTHER: Final = labelled_address("second borrower")
LIQUIDATOR: Final = labelled_address("liquidator")
COLLECTOR: Final = labelled_address("fee recipient")
HOLDERS: Final = (PROVIDER, BORROWER, OTHER, LIQUIDATOR, COLLECTOR)


@dataclass(frozen=True, slots=True)
class World:
    """What the cases have in common.

    Attributes
    ----------
    morpho
        The contract.
    adapters
        One for each of `MARKETS`, in order.
    """

    morpho: str
    adapters: tuple[MorphoBlue, ...]


@parity_adapters.register("morpho-blue")
@dataclass(frozen=True, slots=True)
class MorphoBlueParity:
    """`simulation.chain.parity.ParityAdapter` of Morpho Blue."""

    kind: ClassVar[Literal["morpho-blue"]] = "morpho-blue"

    @property
    def compared(self) -> Compared:
        """What is held equal with what."""
        return Compared(
            "simulation.protocols.morpho_blue",
            "@morpho-org/morpho-blue 1.0.0: Morpho, IrmMock; contracts_abi/vyper/AdaptiveCurveIrm.vy is ours",
        )

    @property
    def verdicts(self) -> tuple[str, ...]:
        """What the contract can do with a case's last liquidation."""
        return tuple(Verdict)

    @property
    def tags(self) -> tuple[str, ...]:
        """What cases are counted as; from the bad debt on only where the last liquidation went through."""
        return (
            *("adaptive_rate", "fixed_rate", "utilization_rate", "no_rate"),
            *("fee", "interest", "multi_market", "two_liquidations"),
            *("at_threshold", "one_below_threshold", "incentive_capped"),
            *("oracle_reverts", "oracle_zero", "call_refused", "unauthorized", "beyond_128_bits", "panic"),
            *("supplied", "withdrawn", "borrowed", "repaid", "collateral_withdrawn"),
            *("bad_debt", "by_seized_assets", "by_repaid_shares", "planned"),
            *("full_close", "partial_close", "collateral_exhausted"),
        )

    def prepare(self, evm: Evm) -> World:
        """Deploy the contract with all of `MARKETS`, settable oracles and rates, and fund everybody."""
        return _prepare(evm)

    def run(self, evm: Evm, world: World, rng: np.random.Generator) -> CaseResult:
        """Bring about one to three markets with a borrower in each, call them at random, liquidate."""
        return _Case(evm, world, rng).run()


# --- deployment -------------------------------------------------------------------------------------------


def _prepare(evm: Evm) -> World:
    contract = deploy_morpho(evm, DEPLOYER)
    assets = {}
    for symbol, (decimals, _) in TOKENS.items():
        token = evm.create(DEPLOYER, aave("MintableERC20").creation_code(symbol, symbol, decimals))
        assets[symbol] = Asset(symbol, token, decimals)
        for holder in HOLDERS:
            transact(evm, DEPLOYER, token, MINT, holder, FUNDS_RAW)
            transact(evm, holder, token, erc20.APPROVE, contract, MAX_UINT256)
    irms = {
        IrmKind.NONE: ZERO_ADDRESS,
        IrmKind.ADAPTIVE_CURVE: deploy_adaptive_curve_irm(evm, DEPLOYER, contract),
        IrmKind.UTILIZATION: deploy_utilization_irm(evm, DEPLOYER),
    }
    layouts = []
    for number, (loan, collateral, lltv_wad, kind) in enumerate(MARKETS):
        oracle = labelled_address(f"oracle of market {number}")
        evm.set_code(oracle, PRICE_SOURCE)
        irm = irms.get(kind) or labelled_address(f"fixed rate of market {number}")
        if kind is IrmKind.FIXED_RATE:
            evm.set_code(irm, PRICE_SOURCE)
        params = MarketParams(assets[loan].address, assets[collateral].address, oracle, irm, lltv_wad)
        layouts.append(MorphoLayout(contract, params, assets[loan], assets[collateral], kind))
    create_markets(evm, DEPLOYER, contract, [layout.params for layout in layouts])
    transact(evm, DEPLOYER, contract, abi.SET_FEE_RECIPIENT, COLLECTOR)
    transact(evm, BORROWER, contract, abi.SET_AUTHORIZATION, LIQUIDATOR, True)
    return World(contract, tuple(MorphoBlue(layout) for layout in layouts))


# --- random figures ---------------------------------------------------------------------------------------


def _pick(rng: np.random.Generator, options: Sequence[Any], weights: Sequence[float] | None = None) -> Any:
    return options[int(rng.choice(len(options), p=weights))]


def _maybe(rng: np.random.Generator, probability: float) -> bool:
    return bool(rng.random() < probability)


def _uniform(rng: np.random.Generator, low: int, high: int) -> int:
    """Return an integer of any size, ``low <= n <= high``."""
    return low + int.from_bytes(rng.bytes(40)) % (high - low + 1)


def _up_to(rng: np.random.Generator, most: int) -> int:
    """Return an integer from 1 to `most`, small ones about as often as large ones."""
    if most < 2 or _maybe(rng, 0.6):
        return _uniform(rng, 1, max(1, most))
    return max(1, min(most, int(10 ** rng.uniform(0, math.log10(most)))))


# --- one call ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Call:
    """A call of the contract, and the model's word on it.

    Attributes
    ----------
    name
        The contract's function.
    sender
        Who calls.
    account
        Whom the model's function is about.
    data
        Calldata.
    model
        The model's function of market and account.
    """

    name: str
    sender: str
    account: str
    data: bytes
    model: Callable[[MorphoMarket, MorphoAccount], Outcome]


class _Case:
    """One case: what the model holds true, and what came of holding it against the contract."""

    def __init__(self, evm: Evm, world: World, rng: np.random.Generator) -> None:
        self.evm, self.world, self.rng = evm, world, rng
        count = _pick(rng, (1, 2, 3), (0.6, 0.25, 0.15))
        self.adapters = [world.adapters[i] for i in rng.permutation(len(MARKETS))[:count]]
        self.markets: dict[str, MorphoMarket] = {}
        self.accounts: dict[tuple[str, str], MorphoAccount] = {}
        self.tags: set[str] = set()
        self.mismatches: list[Mismatch] = []

    # -- holding against each other --

    def check(self, field: str, contract: Any, model: Any) -> None:
        """Note a mismatch if the two differ."""
        if contract != model:
            self.mismatches.append(Mismatch(field, str(contract), str(model)))

    def call(self, adapter: MorphoBlue, call: _Call) -> tuple[TxResult, Outcome]:
        """Let model and contract do the same, and compare all that it changed."""
        market = replace(self.markets[adapter.name], timestamp=self.evm.timestamp())
        account = self.accounts[adapter.name, call.account]
        expected = call.model(market, account)
        if expected.succeeds and call.name not in WORDLESS:
            self.check(f"{call.name}: answer", self._answer(call), _answered(expected))
        result = self.evm.send(call.sender, self.world.morpho, call.data)
        code = None if result.success else errors.revert_code(result.output)
        if expected.revert_code == errors.ORACLE_REVERT and code == errors.BARE:
            code = errors.ORACLE_REVERT
        self.check(f"{call.name}: revert code", code, expected.revert_code)
        self._tag_refusal(code)
        if result.success and expected.succeeds:
            self._take_over(adapter, call, expected)
            self.tags.update({DONE[call.name]} if call.name in DONE else ())
        self.compare(adapter, call.name, {call.account, COLLECTOR})
        return result, expected

    def _answer(self, call: _Call) -> tuple[Any, ...] | str:
        """Return the two words that the contract answers, else its revert code; receipts have none."""
        try:
            return abi.SUPPLY.decode(self.evm.call(self.world.morpho, call.data, call.sender))
        except CallReverted as error:
            return errors.revert_code(error.data)

    def _take_over(self, adapter: MorphoBlue, call: _Call, expected: Outcome) -> None:
        """Let the model go on from what it said."""
        self.markets[adapter.name] = expected.market_after
        self.accounts[adapter.name, call.account] = expected.account_after
        if call.account != COLLECTOR and expected.fee_shares:
            key = (adapter.name, COLLECTOR)
            held = self.accounts[key]
            self.accounts[key] = replace(held, supply_shares=held.supply_shares + expected.fee_shares)
        if expected.interest_raw:
            self.tags.add("interest")
            self.tags.update({"fee"} if expected.fee_shares else ())

    def _tag_refusal(self, code: str | None) -> None:
        if code is not None:
            self.tags.add("call_refused")
        if code == errors.UNAUTHORIZED:
            self.tags.add("unauthorized")
        if code == errors.MAX_UINT128_EXCEEDED:
            self.tags.add("beyond_128_bits")
        if code in (errors.ARITHMETIC_PANIC, errors.DIVISION_PANIC):
            self.tags.add("panic")

    def compare(self, adapter: MorphoBlue, after: str, accounts: set[str]) -> None:
        """Compare a market's totals, its rate model's memory and positions in it with the model's."""
        layout, market = adapter.layout, self.markets[adapter.name]
        state = MarketState(*read(self.evm, abi.MARKET.call(layout.morpho, layout.id_bytes)))
        self.check(f"after {after}: market", state, market.state)
        if isinstance(market.irm, AdaptiveCurveIrm):
            rate = read(self.evm, abi.RATE_AT_TARGET.call(layout.params.irm, layout.id_bytes))
            self.check(f"after {after}: rate at target", rate, market.irm.rate_at_target_wad)
        for account in sorted(accounts):
            words = read(self.evm, abi.POSITION.call(layout.morpho, layout.id_bytes, account))
            expected = self.accounts[adapter.name, account]
            self.check(f"after {after}: position", MorphoAccount(account, *words), expected)

    # -- the case --

    def run(self) -> CaseResult:
        """See `MorphoBlueParity.run`."""
        for adapter in self.adapters:
            self._open(adapter)
        self.tags.update({"multi_market"} if len(self.adapters) > 1 else ())
        for _ in range(int(self.rng.integers(1, 6))):
            self._age()
            if self.mismatches:
                break
            adapter = _pick(self.rng, self.adapters)
            self.call(adapter, self._draw_call(adapter))
        target = self.adapters[0]
        if _maybe(self.rng, 0.5):
            self._age()
        self._reprice(target)
        code, outcome = self._liquidate(target)
        if not self.mismatches and _maybe(self.rng, 0.25):
            self.tags.add("two_liquidations")
            code, outcome = self._liquidate(target)
        for adapter in self.adapters:
            self.compare(adapter, "all", set(HOLDERS))
        return CaseResult(_verdict(code), code, self._tags(target, outcome), tuple(self.mismatches))

    def _tags(self, target: MorphoBlue, outcome: LiquidationOutcome) -> frozenset[str]:
        kinds = {
            IrmKind.ADAPTIVE_CURVE: "adaptive_rate",
            IrmKind.FIXED_RATE: "fixed_rate",
            IrmKind.UTILIZATION: "utilization_rate",
            IrmKind.NONE: "no_rate",
        }
        self.tags.add(kinds[target.layout.irm_kind])
        factor_wad = morpho.liquidation_incentive_factor(target.layout.params.lltv_wad)
        after = outcome.account_after
        named = {
            "incentive_capped": factor_wad == morpho.MAX_LIQUIDATION_INCENTIVE_FACTOR_WAD,
            "bad_debt": outcome.bad_debt_assets_raw > 0,
            "full_close": outcome.succeeds and outcome.full,
            "partial_close": outcome.succeeds and after.borrow_shares > 0,
            "collateral_exhausted": outcome.succeeds and after.collateral_raw == 0,
        }
        return frozenset(self.tags | {name for name, holds in named.items() if holds})

    def _open(self, adapter: MorphoBlue) -> None:
        """Set fee, rate and price of a market, read it, and let everybody take positions in it."""
        rng, layout, evm = self.rng, adapter.layout, self.evm
        if _maybe(rng, 0.5):
            fee_wad = _pick(rng, (WAD // 4, WAD // 10, int(rng.integers(1, WAD // 4))))
            transact(evm, DEPLOYER, layout.morpho, abi.SET_FEE, layout.params.words(), fee_wad)
        if layout.irm_kind is IrmKind.FIXED_RATE:
            yearly = _pick(rng, (0.0, 1e-6, 0.05, 0.6, 10.0))
            evm.set_storage(layout.params.irm, 0, int(yearly * WAD) // YEAR_S)
        evm.set_storage(layout.params.oracle, 0, self._fair_price(adapter))
        answers: list[bytes | None] = []
        for read_call in adapter.market_reads():
            try:
                answers.append(evm.call(read_call.to, read_call.data))
            except CallReverted:
                answers.append(None)
        self.markets[adapter.name] = adapter.decode_market(
            answers, block=evm.block_number(), timestamp=evm.timestamp()
        )
        results = [evm.call(c.to, c.data) for c in adapter.account_reads(HOLDERS)]
        book = adapter.decode_accounts(self.markets[adapter.name], HOLDERS, results)
        self.accounts |= {(adapter.name, a): s for a, s in zip(HOLDERS, book.exact, strict=True)}

        scale = _pick(rng, ((-6, -3), (0, 3), (3, 6), (6, 8)), (0.1, 0.2, 0.5, 0.2))
        lent_raw = max(1, self._raw(layout.loan, 10 ** rng.uniform(*scale)))
        if _maybe(rng, 0.15):  # a few of the smallest units, where all that counts is how they are rounded
            lent_raw = int(rng.integers(1, 2_000))
        self.call(adapter, self._supply(adapter, PROVIDER, lent_raw, 0))
        for borrower, share in ((OTHER, 0.4), (BORROWER, 1.0)):
            if _maybe(rng, share):
                self._take_loan(adapter, borrower)

    def _fair_price(self, adapter: MorphoBlue) -> int:
        layout = adapter.layout
        usd = TOKENS[layout.collateral.symbol][1] / TOKENS[layout.loan.symbol][1]
        usd *= self.rng.lognormal(0, 0.3)
        digits = 36 + layout.loan.decimals - layout.collateral.decimals
        return int(usd * 10**9) * int(10**digits) // 10**9

    def _raw(self, asset: Asset, usd: float) -> int:
        return int(usd / TOKENS[asset.symbol][1] * 10**asset.decimals)

    def _take_loan(self, adapter: MorphoBlue, borrower: str) -> None:
        """Let somebody borrow a part of what is there, with collateral for a little to a lot more."""
        rng, market = self.rng, self.markets[adapter.name]
        state = market.state
        free_raw = state.total_supply_assets_raw - state.total_borrow_assets_raw
        if free_raw < 1:
            return
        wanted_raw = max(1, int(free_raw * _pick(rng, (rng.uniform(0.01, 0.99), 0.9, 1.0), (0.7, 0.2, 0.1))))
        used = _pick(rng, (1.0, rng.uniform(0.9, 1), rng.uniform(0.2, 0.9)), (0.3, 0.4, 0.3))
        value_raw = wanted_raw * WAD // market.params.lltv_wad
        collateral_raw = max(1, int(value_raw * 10**36 // (market.price_e36 or 1) / used)) + 2
        self.call(adapter, self._supply_collateral(adapter, borrower, collateral_raw))
        self.call(adapter, self._borrow(adapter, borrower, wanted_raw, 0))

    def _age(self) -> None:
        gaps = (0, 1, 3_600, int(self.rng.integers(1, 30 * 86_400)), int(self.rng.integers(1, 2 * YEAR_S)))
        self.evm.warp(self.evm.timestamp() + _pick(self.rng, gaps, (0.1, 0.2, 0.2, 0.4, 0.1)))

    # -- the contract's functions --

    def _supply(self, adapter: MorphoBlue, account: str, assets_raw: int, shares: int) -> _Call:
        data = abi.SUPPLY.encode(adapter.layout.params.words(), assets_raw, shares, account, b"")
        return _Call("supply", PROVIDER, account, data, lambda m, a: morpho.supply(m, a, assets_raw, shares))

    def _repay(self, adapter: MorphoBlue, account: str, assets_raw: int, shares: int) -> _Call:
        data = abi.REPAY.encode(adapter.layout.params.words(), assets_raw, shares, account, b"")
        return _Call("repay", PROVIDER, account, data, lambda m, a: morpho.repay(m, a, assets_raw, shares))

    def _withdraw(
        self,
        adapter: MorphoBlue,
        account: str,
        assets_raw: int,
        shares: int,
        sender: str | None = None,
        receiver: str | None = None,
    ) -> _Call:
        words, to = adapter.layout.params.words(), receiver or account
        allowed = _authorized(sender, account)
        return _Call(
            "withdraw",
            sender or account,
            account,
            abi.WITHDRAW.encode(words, assets_raw, shares, account, to),
            lambda m, a: morpho.withdraw(m, a, assets_raw, shares, receiver=to, authorized=allowed),
        )

    def _borrow(
        self,
        adapter: MorphoBlue,
        account: str,
        assets_raw: int,
        shares: int,
        sender: str | None = None,
        receiver: str | None = None,
    ) -> _Call:
        words, to = adapter.layout.params.words(), receiver or account
        allowed = _authorized(sender, account)
        return _Call(
            "borrow",
            sender or account,
            account,
            abi.BORROW.encode(words, assets_raw, shares, account, to),
            lambda m, a: morpho.borrow(m, a, assets_raw, shares, receiver=to, authorized=allowed),
        )

    def _supply_collateral(self, adapter: MorphoBlue, account: str, assets_raw: int) -> _Call:
        return _Call(
            "supplyCollateral",
            PROVIDER,
            account,
            abi.SUPPLY_COLLATERAL.encode(adapter.layout.params.words(), assets_raw, account, b""),
            lambda m, a: morpho.supply_collateral(m, a, assets_raw),
        )

    def _withdraw_collateral(
        self, adapter: MorphoBlue, account: str, assets_raw: int, sender: str | None = None
    ) -> _Call:
        words, allowed = adapter.layout.params.words(), _authorized(sender, account)
        return _Call(
            "withdrawCollateral",
            sender or account,
            account,
            abi.WITHDRAW_COLLATERAL.encode(words, assets_raw, account, account),
            lambda m, a: morpho.withdraw_collateral(m, a, assets_raw, authorized=allowed),
        )

    def _accrue(self, adapter: MorphoBlue) -> _Call:
        return _Call(
            "accrueInterest",
            PROVIDER,
            PROVIDER,
            abi.ACCRUE_INTEREST.encode(adapter.layout.params.words()),
            morpho.accrue_interest,
        )

    def _draw_call(self, adapter: MorphoBlue) -> _Call:
        """Return a call of any kind, mostly one that may go through."""
        rng, state = self.rng, self.markets[adapter.name].state
        name = adapter.name
        kind = _pick(rng, ("supply", "withdraw", "borrow", "repay", "collateral", "release", "accrue"))
        borrower, lender = _pick(rng, (BORROWER, OTHER)), _pick(rng, (PROVIDER, COLLECTOR), (0.75, 0.25))
        stranger = _pick(rng, (None, LIQUIDATOR), (0.85, 0.15))
        receiver = _pick(rng, (None, ZERO_ADDRESS), (0.95, 0.05))
        if kind == "supply":
            most = (state.total_supply_assets_raw, state.total_supply_shares)
            return self._supply(adapter, lender, *self._amounts(*most))
        if kind == "withdraw":
            shares = self.accounts[name, lender].supply_shares
            worth_raw = to_assets_down(shares, state.total_supply_assets_raw, state.total_supply_shares)
            return self._withdraw(adapter, lender, *self._amounts(worth_raw, shares), stranger, receiver)
        held = self.accounts[name, borrower]
        owed_raw = morpho.borrowed_assets(state, held)
        if kind == "borrow":
            amounts = self._amounts(owed_raw, held.borrow_shares)
            return self._borrow(adapter, borrower, *amounts, stranger, receiver)
        if kind == "repay":
            return self._repay(adapter, borrower, *self._amounts(owed_raw, held.borrow_shares))
        amount_raw = sum(self._amounts(held.collateral_raw, 0, both=False))
        if kind == "collateral":
            return self._supply_collateral(adapter, borrower, amount_raw)
        if kind == "release":
            return self._withdraw_collateral(adapter, borrower, amount_raw, stranger)
        return self._accrue(adapter)

    def _amounts(self, assets_raw: int, shares: int, *, both: bool = True) -> tuple[int, int]:
        """Return assets or shares up to what there is, at times more, nothing, both, or beyond all bounds."""
        rng = self.rng
        by_shares = both and _maybe(rng, 0.5)
        most = shares if by_shares else assets_raw
        options = (_up_to(rng, most), most, most + 1, 2 * most, int(rng.integers(0, 3)), _pick(rng, HUGE))
        amount = _pick(rng, options, (0.60, 0.15, 0.07, 0.03, 0.08, 0.07))
        if both and _maybe(rng, 0.03):
            return (0, 0) if _maybe(rng, 0.5) else (amount, 1)
        return (0, amount) if by_shares else (amount, 0)

    # -- price and liquidation --

    def _reprice(self, adapter: MorphoBlue) -> None:
        """Move the oracle's price to where the borrower's health is interesting."""
        rng, layout = self.rng, adapter.layout
        market = replace(self.markets[adapter.name], timestamp=self.evm.timestamp())
        account = self.accounts[adapter.name, BORROWER]
        limit = _threshold_price(market, account)
        kind = _pick(
            rng,
            ("threshold", "below", "deep", "above", "zero", "huge", "reverts"),
            (0.24, 0.30, 0.26, 0.05, 0.05, 0.04, 0.06),
        )
        parts = {"below": (0.8, 1.0), "deep": (0.01, 0.9), "above": (1.0, 1.5)}
        if kind in parts:
            price = int(limit * int(rng.uniform(*parts[kind]) * 10**9)) // 10**9
        elif kind == "threshold":
            price = max(0, limit + int(_pick(rng, (-1, 0, 1), (0.6, 0.3, 0.1))))
        else:
            price = _uniform(rng, 0, 2 ** int(rng.integers(150, 256)) - 1) if kind == "huge" else 0
        if kind == "reverts":
            self.tags.add("oracle_reverts")
            self.evm.set_code(layout.params.oracle, REFUSES)
        self.tags.update({"oracle_zero"} if kind == "zero" else ())
        self.evm.set_storage(layout.params.oracle, 0, price)
        repriced = replace(market, price_e36=None if kind == "reverts" else price)
        self.markets[adapter.name] = repriced
        self._tag_threshold(repriced, account)

    def _tag_threshold(self, market: MorphoMarket, account: MorphoAccount) -> None:
        try:
            accrued = morpho.accrue(market).market
            owed_raw = morpho.borrowed_assets(accrued.state, account)
            carried_raw = morpho.max_borrow(accrued, account)
        except errors.MorphoRevert:
            return
        if owed_raw and carried_raw == owed_raw:
            self.tags.add("at_threshold")
        if owed_raw and carried_raw == owed_raw - 1:
            self.tags.add("one_below_threshold")

    def _liquidate(self, adapter: MorphoBlue) -> tuple[str | None, LiquidationOutcome]:
        """Try one liquidation and compare what it did, also to the liquidator's tokens."""
        market = replace(self.markets[adapter.name], timestamp=self.evm.timestamp())
        account = self.accounts[adapter.name, BORROWER]
        self._compare_margin(adapter, market, account)
        call = self._draw_liquidation(adapter, market, account)
        before = self._liquidators_tokens(adapter)
        result, expected = self.call(adapter, call)
        assert isinstance(expected, LiquidationOutcome)
        after = self._liquidators_tokens(adapter)
        self.check("liquidator's loan tokens", after[0] - before[0], -expected.repaid_assets_raw)
        self.check("liquidator's collateral", after[1] - before[1], expected.seized_assets_raw)
        if result.success and expected.succeeds:
            emitted = find_log(result, abi.LIQUIDATE_EVENT)
            for field, amount in _event_fields(expected).items():
                self.check(f"event {field}", emitted[field], amount)
        code = None if result.success else errors.revert_code(result.output)
        return code, expected

    def _compare_margin(self, adapter: MorphoBlue, market: MorphoMarket, account: MorphoAccount) -> None:
        """Ask the contract itself whether the account is healthy: a liquidation of one unit says so."""
        probe = abi.LIQUIDATE.encode(market.params.words(), account.account, 0, 1, b"")
        try:
            self.evm.call(self.world.morpho, probe, LIQUIDATOR)
            code = None
        except CallReverted as error:
            code = errors.revert_code(error.data)
        said = adapter.margin(market, account, market.prices_base).status
        if said is MarginStatus.UNKNOWN:
            self.check("margin: unknown", code in (None, errors.HEALTHY_POSITION), False)
        elif said is MarginStatus.NO_DEBT:
            self.check("margin: no debt", code is None, False)
        else:
            self.check("margin: healthy", code == errors.HEALTHY_POSITION, said is MarginStatus.HEALTHY)

    def _draw_liquidation(self, adapter: MorphoBlue, market: MorphoMarket, account: MorphoAccount) -> _Call:
        rng, layout = self.rng, adapter.layout
        how = _pick(rng, ("seized", "shares", "planned", "wrong"), (0.35, 0.36, 0.25, 0.04))
        words = layout.params.words()
        if how == "planned":
            plan, model = self._plan(adapter, market, account)
            if plan is not None:
                self.tags.add("planned")
                by_shares = model.full and model.to_liquidator_raw < account.collateral_raw
                call = adapter.liquidation_call(
                    plan, repaid_shares=model.repaid_shares if by_shares else None
                )
                return _Call("liquidate", LIQUIDATOR, BORROWER, call.data, lambda _m, _a: model)
        seized_raw = shares = 0
        if how in ("seized", "planned"):
            self.tags.add("by_seized_assets")
            held = account.collateral_raw
            options = (held, _up_to(rng, held), held + 1, _pick(rng, (1, 2)), _pick(rng, HUGE))
            seized_raw = _pick(rng, options, (0.45, 0.42, 0.04, 0.05, 0.04))
        elif how == "shares":
            self.tags.add("by_repaid_shares")
            owed = account.borrow_shares
            options = (owed, _up_to(rng, owed), owed + 1, _pick(rng, (1, 2)), _pick(rng, HUGE))
            shares = _pick(rng, options, (0.55, 0.34, 0.04, 0.04, 0.03))
        elif _maybe(rng, 0.5):
            seized_raw, shares = _pick(rng, ((0, 0), (1, 1)))
        else:  # a market that nobody has created
            seized_raw = 1
            words = replace(layout.params, lltv_wad=layout.params.lltv_wad + 1).words()

            def missing(market: MorphoMarket, account: MorphoAccount) -> Outcome:
                nothing = morpho.liquidate(replace(market, state=MarketState()), account, seized_raw)
                return replace(nothing, market_after=market)

            data = abi.LIQUIDATE.encode(words, BORROWER, seized_raw, shares, b"")
            return _Call("liquidate", LIQUIDATOR, BORROWER, data, missing)
        return _Call(
            "liquidate",
            LIQUIDATOR,
            BORROWER,
            abi.LIQUIDATE.encode(words, BORROWER, seized_raw, shares, b""),
            lambda m, a: morpho.liquidate(m, a, seized_raw, shares),
        )

    def _plan(
        self, adapter: MorphoBlue, market: MorphoMarket, account: MorphoAccount
    ) -> tuple[LiquidationPlan | None, LiquidationOutcome]:
        """Return a plan as the planner would make it of the adapter's quote, None where there is none."""
        owed_raw = morpho.borrowed_assets(market.state, account)
        most_raw = _pick(self.rng, (MAX_UINT256, owed_raw, _up_to(self.rng, max(1, owed_raw))))
        debt, collateral = adapter.layout.loan.address, adapter.layout.collateral.address
        quote = adapter.liquidation_quote(market, account, debt, collateral, most_raw)
        if quote.revert_code is not None:
            return None, quote
        self.check("planned: within the debt to cover", quote.debt_repaid_raw <= most_raw, True)
        plan = LiquidationPlan(
            account=account.account,
            protocol=adapter.name,
            debt_asset=debt,
            collateral_asset=collateral,
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
        )
        return plan, quote

    def _liquidators_tokens(self, adapter: MorphoBlue) -> tuple[int, int]:
        loan, collateral = (
            read(self.evm, erc20.BALANCE_OF.call(asset.address, LIQUIDATOR))
            for asset in (adapter.layout.loan, adapter.layout.collateral)
        )
        return loan, collateral


def _answered(outcome: Outcome) -> tuple[int, int]:
    """Return what the contract answers of a call that went through."""
    if isinstance(outcome, LiquidationOutcome):
        return outcome.seized_assets_raw, outcome.repaid_assets_raw
    return outcome.assets_raw, outcome.shares


def _authorized(sender: str | None, account: str) -> bool:
    """Return whether a caller may act for an account; the borrower has authorized the liquidator."""
    return sender in (None, account) or (sender, account) == (LIQUIDATOR, BORROWER)


def _event_fields(outcome: LiquidationOutcome) -> Mapping[str, int]:
    return {
        "repaidAssets": outcome.repaid_assets_raw,
        "repaidShares": outcome.repaid_shares,
        "seizedAssets": outcome.seized_assets_raw,
        "badDebtAssets": outcome.bad_debt_assets_raw,
        "badDebtShares": outcome.bad_debt_shares,
    }


def _verdict(code: str | None) -> Verdict:
    if code is None:
        return Verdict.LIQUIDATED
    return Verdict.HEALTHY if code == errors.HEALTHY_POSITION else Verdict.REJECTED


def _threshold_price(market: MorphoMarket, account: MorphoAccount) -> int:
    """Return the least price at which the account is healthy; the market's own where none matters."""
    fallback = market.price_e36 or 0
    if not (account.borrow_shares and account.collateral_raw):
        return fallback
    try:
        accrued = morpho.accrue(market).market
    except errors.MorphoRevert:
        return fallback
    low, high = 0, 2**180
    while low < high:
        middle = (low + high) // 2
        try:
            healthy = morpho.is_healthy(replace(accrued, price_e36=middle), account)
        except errors.MorphoRevert:
            healthy = True
        low, high = (low, middle) if healthy else (middle + 1, high)
    return low
