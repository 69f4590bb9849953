"""Parity of Compound III: random lives of real Comets, recorded, and judged by the model.

Each case deploys a Comet of its own with random parameters. What is asked of it, at which time and prices,
and all that it answers and stores goes into a record (`compound_v3_record`); the model then goes through the
same by itself. The contracts come from a checkout that its owner has built: no package ships them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Final, Literal

import numpy as np

from contracts_abi import aave_v3 as erc20
from contracts_abi import compound_v3 as abi
from contracts_abi.calls import Call
from contracts_abi.errors import CallReverted, InputError
from simulation.chain.aave_v3 import MINT
from simulation.chain.artifacts import aave
from simulation.chain.compound_v3 import (
    COMMIT,
    REPOSITORY,
    CometArtifacts,
    comet_artifacts,
    deploy_comet,
    deploy_extension,
)
from simulation.chain.evm import Evm, TxResult, labelled_address, transact
from simulation.chain.parity import compound_v3_record as record
from simulation.chain.parity.compound_v3_record import ACCOUNTS, BASE, UNLISTED
from simulation.chain.parity.harness import CaseResult, Compared, Mismatch, parity_adapters
from simulation.fixed_point import MAX_UINT256, WAD
from simulation.protocols.compound_v3 import comet, errors
from simulation.protocols.compound_v3.comet_math import BASE_INDEX_SCALE
from simulation.protocols.compound_v3.types import CometAccount, CometMarket, CometParams
from simulation.types import Asset

FEED: Final = bytes.fromhex("60085f525f5460205260a05ff3")
"""A price feed: answers five words whatever it is asked, first 8, then its only storage word, then zeros.

As a round that is an answer, as `decimals` it is 8. A price set in storage takes no block and no second.
"""

REFUSES: Final = bytes.fromhex("5f5ffd")
"""A contract that reverts without a word, whatever it is asked."""

BASES: Final = (6, 8, 18)
COLLATERALS: Final = (18, 8, 6, 18, 18)
"""Decimals of the tokens."""

ABSORBED, REJECTED, HEALTHY = "absorbed", "rejected", "healthy"

FUNDS_RAW: Final = 10**36
YEAR_S: Final = 31_536_000
NO_CAP_TOKENS: Final = 10**18
HUGE: Final = (2**104, 2**128, 2**160, 2**255, MAX_UINT256 - 1)
LENDER: Final = ACCOUNTS - 1
"""The account that lends; the others borrow."""

DEPLOYER: Final = labelled_address("deployer")
PROVIDER: Final = labelled_address("liquidity provider")
ABSORBER: Final = labelled_address("absorber")


@dataclass(frozen=True, slots=True)
class World:
    """What the cases have in common.

    Attributes
    ----------
    artifacts
        The contracts.
    extension
        What Comets delegate to.
    bases, collaterals
        Tokens; their feeds are `feed_of` their addresses.
    """

    artifacts: CometArtifacts
    extension: str
    bases: tuple[Asset, ...]
    collaterals: tuple[Asset, ...]


@parity_adapters.register("compound-v3")
@dataclass(frozen=True, slots=True)
class CompoundV3Parity:
    """`simulation.chain.parity.ParityAdapter` of Compound III.

    Parameters
    ----------
    artifacts
        The contracts; `from_source` reads them from a checkout.
    """

    kind: ClassVar[Literal["compound-v3"]] = "compound-v3"

    artifacts: CometArtifacts

    @classmethod
    def from_source(cls, source: Path | None) -> CompoundV3Parity:
        """Return the parity of the contracts in a built checkout.

        Raises
        ------
        InputError
            If there is no checkout, or it is not built.
        """
        if source is None:
            raise InputError(
                "parity compound-v3: no package ships its contracts",
                fix=f"add --source PATH, a built checkout of {REPOSITORY} at {COMMIT}",
            )
        return cls(comet_artifacts(source))

    @property
    def compared(self) -> Compared:
        """What is held equal with what."""
        return Compared(
            "simulation.protocols.compound_v3",
            f"{REPOSITORY}: Comet, CometExt of a user's checkout, bytecode {self.artifacts.digest}",
        )

    @property
    def verdicts(self) -> tuple[str, ...]:
        """What the contract did with a case's first absorption."""
        return ABSORBED, REJECTED, HEALTHY

    @property
    def tags(self) -> tuple[str, ...]:
        """What cases are counted as."""
        return (
            *("multi_asset", "several_accounts", "interest", "reserves", "negative_reserves"),
            *("absorbed_several", "bad_debt", "left_positive", "left_zero", "same_account_twice"),
            *("early_return", "early_return_before_broken_feed", "absorbable_by_interest_only"),
            *("at_threshold", "one_below_threshold"),
            *(
                "bought",
                "not_for_sale",
                "too_much_slippage",
                "insufficient_reserves",
                "reserves_taken",
                "reserves_at_target",
            ),
            *("supplied", "repaid", "withdrawn", "borrowed", "collateral_released"),
            *("not_collateralized", "borrow_too_small", "supply_cap_exceeded", "token_refused"),
            *("paused", "unauthorized", "bad_asset", "bad_price", "feed_reverts", "panic", "out_of_range"),
        )

    def prepare(self, evm: Evm) -> World:
        """Deploy the tokens, their feeds and the extension, and fund the provider; Comets come later."""
        extension = deploy_extension(evm, DEPLOYER, self.artifacts)
        bases = [_token(evm, f"B{decimals}", decimals) for decimals in BASES]
        collaterals = [_token(evm, f"C{i}", decimals) for i, decimals in enumerate(COLLATERALS)]
        return World(self.artifacts, extension, tuple(bases), tuple(collaterals))

    def run(self, evm: Evm, world: World, rng: np.random.Generator) -> CaseResult:
        """Let a Comet live, record it, and hold the model against the record."""
        case = Case(evm, world, rng)
        life = case.run()
        mismatches = (*case.adapter_parts(), *record.judge(life))
        return CaseResult(case.verdict, case.code, frozenset(case.tags), mismatches)


def _token(evm: Evm, symbol: str, decimals: int) -> Asset:
    token = evm.create(DEPLOYER, aave("MintableERC20").creation_code(symbol, symbol, decimals))
    transact(evm, DEPLOYER, token, MINT, PROVIDER, FUNDS_RAW)
    evm.set_code(feed_of(token), FEED)
    return Asset(symbol, token, decimals)


def feed_of(token: str) -> str:
    """Return the address of a token's price feed."""
    return labelled_address(f"price feed of {token}")


# --- random figures ---------------------------------------------------------------------------------------


def _pick(rng: np.random.Generator, options: Sequence[Any], weights: Sequence[float] | None = None) -> Any:
    return options[int(rng.choice(len(options), p=weights))]


def _maybe(rng: np.random.Generator, probability: float) -> bool:
    return bool(rng.random() < probability)


def _up_to(rng: np.random.Generator, most: int) -> int:
    """Return an integer from 1 to `most`, small ones about as often as large ones."""
    if most < 2 or _maybe(rng, 0.6):
        return 1 + int.from_bytes(rng.bytes(40)) % max(1, most)
    return max(1, min(most, int(10 ** rng.uniform(0, math.log10(most)))))


def _wad(rng: np.random.Generator, low: float, high: float) -> int:
    """Return a factor with all of its digits, or with four."""
    value = rng.uniform(low, high)
    return int(value * 10**4) * 10**14 if _maybe(rng, 0.5) else int(value * 10**15) * 1_000 + 7


# --- one life ---------------------------------------------------------------------------------------------


class Case:
    """One Comet's life as it is drawn, played on a chain and recorded.

    What is drawn next depends on what the contract stores, and on the model's formulas where a figure is to
    be interesting, such as the price at which an account is just not absorbed.
    """

    def __init__(self, evm: Evm, world: World, rng: np.random.Generator) -> None:
        self.evm, self.world, self.rng = evm, world, rng
        self.tags: set[str] = set()
        self.steps: list[dict[str, Any]] = []
        self.verdict = HEALTHY
        self.code: str | None = None
        self.config = self._draw_config()
        self.params = record.built(self.config)
        self.prices: list[int | None] = self._draw_prices()
        self.tokens = (self.base, *self.collaterals)
        for token, price in zip(self.tokens, self.prices, strict=True):
            evm.set_storage(feed_of(token.address), 0, price or 0)
        self.comet = self._deploy()
        self.adapter = record.adapter_of(self._on_chain(self.params), self.comet)
        self.words = self._measure()
        self.start = list(self.words)

    # -- what it is built of --

    def _draw_config(self) -> dict[str, Any]:
        rng = self.rng
        self.base = _pick(rng, self.world.bases)
        count = _pick(rng, (1, 2, 3, 4, 5), (0.15, 0.25, 0.25, 0.2, 0.15))
        order = rng.permutation(len(self.world.collaterals))[:count]
        self.collaterals = tuple(self.world.collaterals[i] for i in order)
        scale = 10**self.base.decimals
        assets = []
        for token in self.collaterals:
            liquidate = rng.uniform(0.3, 0.99)
            liquidate_wad = _wad(rng, liquidate, liquidate)
            borrow_wad = _wad(rng, 0.2, liquidate - 0.01)
            liquidation_wad = _pick(
                rng,
                (_wad(rng, 0.7, 1), _wad(rng, 0.2, 0.7), WAD, 0, 105 * WAD // 100),
                (0.75, 0.1, 0.07, 0.04, 0.04),
            )
            cap = _pick(rng, (NO_CAP_TOKENS, int(rng.integers(1, 10**4))), (0.9, 0.1))
            cap_raw = cap * 10**token.decimals + int(rng.integers(0, 10**6))
            assets.append([token.decimals, borrow_wad, liquidate_wad, liquidation_wad, cap_raw])
        target = _pick(rng, (0, int(10 ** rng.uniform(0, 7)) * scale, 2**103), (0.15, 0.25, 0.6))
        borrow_min = _pick(rng, (0, 1, scale, 100 * scale), (0.4, 0.2, 0.2, 0.2))
        return {
            "decimals": self.base.decimals,
            "rates": [*self._draw_curve(), *self._draw_curve()],
            "store_front": _pick(rng, (_wad(rng, 0.2, 0.9), WAD, 0), (0.7, 0.2, 0.1)),
            "borrow_min": borrow_min,
            "target": target,
            "rewards": [
                *_pick(rng, ((0, 0), (10**11, 10**10), (10**9, 0))),
                _pick(rng, (10**6, scale, 1_000 * scale), (0.1, 0.3, 0.6)),
            ],
            "assets": assets,
        }

    def _draw_curve(self) -> list[int]:
        """Return kink, low slope, high slope and base, a year."""
        rng = self.rng
        kink = _pick(rng, (_wad(rng, 0.3, 0.95), 0, WAD), (0.8, 0.1, 0.1))
        high = _pick(rng, (_wad(rng, 0.1, 4), 18 * WAD), (0.9, 0.1))
        return [kink, _wad(rng, 0, 0.2), high, _pick(rng, (_wad(rng, 0, 0.05), 0), (0.7, 0.3))]

    def _draw_prices(self) -> list[int | None]:
        rng = self.rng
        base = _pick(rng, (10**8, int(10**8 * rng.lognormal(0, 0.01)), int(10 ** rng.uniform(6, 12))))
        return [base, *(int(10 ** rng.uniform(5, 13)) for _ in self.collaterals)]

    def _deploy(self) -> str:
        evm, config = self.evm, self.config
        tables = [
            [token.address, feed_of(token.address), *asset]
            for token, asset in zip(self.collaterals, config["assets"], strict=True)
        ]
        given = {
            **config,
            "base": self.base.address,
            "base_feed": feed_of(self.base.address),
            "assets": tables,
        }
        address = deploy_comet(evm, DEPLOYER, self.world.artifacts, self.world.extension, given)
        for token in self.tokens:
            transact(evm, PROVIDER, token.address, erc20.APPROVE, address, MAX_UINT256)
        return address

    def _on_chain(self, params: CometParams) -> CometParams:
        """Return the parameters with the tokens that there are."""
        return replace(
            params,
            base=self.base,
            base_price_feed=feed_of(self.base.address),
            assets=tuple(
                replace(info, asset=token, price_feed=feed_of(token.address))
                for info, token in zip(params.assets, self.collaterals, strict=True)
            ),
        )

    # -- reading --

    def _answers(self, calls: Sequence[Call[Any]]) -> list[bytes | None]:
        answers: list[bytes | None] = []
        for call in calls:
            try:
                answers.append(self.evm.call(call.to, call.data))
            except CallReverted:
                answers.append(None)
        return answers

    def _read(self, call: Call[Any]) -> Any:
        return call.decode(self.evm.call(call.to, call.data))

    def _measure(self) -> list[int]:
        """Return what the contract stores, and its tokens, as `record.state_words` lists them."""
        at = self.comet
        totals = self._read(abi.TOTALS_BASIC.call(at))
        words = [*totals, self._read(erc20.BALANCE_OF.call(self.base.address, at))]
        tokens = [token.address for token in self.collaterals]
        words += [self._read(abi.TOTALS_COLLATERAL.call(at, token))[0] for token in tokens]
        words += [self._read(erc20.BALANCE_OF.call(token, at)) for token in tokens]
        for number in range(ACCOUNTS):
            account = record.account_address(number)
            basic = self._read(abi.USER_BASIC.call(at, account))
            words += [basic[0], basic[3]]
            words += [self._read(abi.USER_COLLATERAL.call(at, account, token))[0] for token in tokens]
        return words

    def adapter_parts(self) -> list[Mismatch]:
        """Return where the adapter's reading of market and accounts parts from what was measured."""
        calls, addresses = self.adapter.market_reads(), [record.account_address(i) for i in range(ACCOUNTS)]
        market = self.adapter.decode_market(self._answers(calls), block=1, timestamp=self.evm.timestamp())
        answers = self._answers(self.adapter.account_reads(addresses))
        book = self.adapter.decode_accounts(market, addresses, answers)
        found = []
        if all(book.known):
            words = record.state_words(market, list(book.exact))
            if words != self.words:
                found.append(Mismatch("adapter: state", str(self.words), str(words)))
        elif isinstance(self._say(abi.TOTAL_BORROW.call(self.comet)), int):
            found.append(Mismatch("adapter: accounts", "known", str(book.known)))
        if record.parameter_words(market.params) != self._parameters():
            found.append(Mismatch("adapter: parameters", str(self._parameters()), str(market.params)))
        prices = (market.base_price_e8, *market.prices_e8)
        if prices != tuple(self.prices):
            found.append(Mismatch("adapter: prices", str(self.prices), str(prices)))
        return found

    def _parameters(self) -> list[int]:
        """Return what the contract says that it was built with."""
        at = self.comet
        parameters = (
            *(abi.SUPPLY_KINK, abi.SUPPLY_BASE, abi.SUPPLY_SLOPE_LOW, abi.SUPPLY_SLOPE_HIGH),
            *(abi.BORROW_KINK, abi.BORROW_BASE, abi.BORROW_SLOPE_LOW, abi.BORROW_SLOPE_HIGH),
            *(abi.STORE_FRONT_PRICE_FACTOR, abi.BASE_BORROW_MIN, abi.TARGET_RESERVES),
            *(abi.BASE_TRACKING_SUPPLY_SPEED, abi.BASE_TRACKING_BORROW_SPEED, abi.BASE_MIN_FOR_REWARDS),
        )
        words = [self._read(parameter.call(at)) for parameter in parameters]
        for number in range(len(self.collaterals)):
            words += self._read(abi.GET_ASSET_INFO.call(at, number))[4:]
        return words

    def _state(self) -> tuple[CometMarket, list[CometAccount]]:
        """Return what the model works on, at the next block's time and the prices there are."""
        market, accounts = record.state_of(self.params, self.words)
        return record.at_step(market, {"time": self.evm.timestamp(), "prices": self.prices}), accounts

    # -- doing --

    def _code(self, data: bytes) -> str:
        """Return revert data as a code; only a broken feed says nothing."""
        code = errors.revert_code(data)
        return errors.FEED_REVERT if code == errors.BARE and None in self.prices else code

    def step(self, *do: Any, views: bool = False) -> str | None:
        """Do something, and record what came of it; returns the code of a revert."""
        step: dict[str, Any] = {"time": self.evm.timestamp(), "prices": list(self.prices), "do": list(do)}
        if views:
            step["asked"], step["views"] = self._ask()
        sender, to, data = self._transaction(*do)
        result = self.evm.send(sender, to, data)
        step["code"] = None if result.success else self._code(result.output)
        step["out"] = self._out(do, result) if result.success else []
        after = self._measure()
        step["changes"] = record.changes(self.words, after)
        self._tag(do, step, after)
        self.words = after
        self.steps.append(step)
        return None if step["code"] is None else str(step["code"])

    def _address(self, number: int) -> str:
        if number == UNLISTED:
            return record.token_address(UNLISTED)
        return str((self.base if number == BASE else self.collaterals[number]).address)

    def _transaction(self, name: str, *arguments: Any) -> tuple[str, str, bytes]:
        """Return sender, callee and calldata of what is to be done."""
        at = self.comet
        if name == "give":
            token, amount = self._address(arguments[0]), arguments[1]
            return PROVIDER, token, erc20.TRANSFER.encode(at, amount)
        if name == "pause":
            return DEPLOYER, at, abi.PAUSE.encode(*(bool(arguments[0] >> bit & 1) for bit in range(5)))
        if name == "take_reserves":
            return DEPLOYER, at, abi.WITHDRAW_RESERVES.encode(DEPLOYER, arguments[0])
        if name == "absorb":
            addresses = [record.account_address(i) for i in arguments[0]]
            return ABSORBER, at, abi.ABSORB.encode(ABSORBER, addresses)
        if name == "buy":
            asset, least, base = arguments
            return PROVIDER, at, abi.BUY_COLLATERAL.encode(self._address(asset), least, base, PROVIDER)
        account = record.account_address(arguments[0])
        if name == "accrue":
            return PROVIDER, at, abi.ACCRUE_ACCOUNT.encode(account)
        token, amount = self._address(arguments[1]), arguments[2]
        if name == "supply":
            return PROVIDER, at, abi.SUPPLY_TO.encode(account, token, amount)
        if name == "withdraw_as_stranger":
            return PROVIDER, at, abi.WITHDRAW_FROM.encode(account, PROVIDER, token, amount)
        return account, at, abi.WITHDRAW.encode(token, amount)

    def _out(self, do: Sequence[Any], result: TxResult) -> list[Any]:
        """Return what the contract's events say of an absorption or a sale."""
        words: list[Any] = []
        numbers = {token.address: i for i, token in enumerate(self.collaterals)}
        for log in result.logs:
            topic = log.topics[0] if log.topics else b""
            if topic == abi.ABSORB_COLLATERAL_EVENT.topic:
                told = abi.ABSORB_COLLATERAL_EVENT.decode(log.topics, log.data)
                words.append([numbers[told["asset"]], told["collateralAbsorbed"], told["usdValue"]])
            elif topic == abi.ABSORB_DEBT_EVENT.topic:
                told = abi.ABSORB_DEBT_EVENT.decode(log.topics, log.data)
                words.append([told["basePaidOut"], told["usdValue"]])
            elif topic == abi.BUY_COLLATERAL_EVENT.topic:
                told = abi.BUY_COLLATERAL_EVENT.decode(log.topics, log.data)
                words += [told["baseAmount"], told["collateralAmount"]]
        return words

    def _say(self, call: Call[Any]) -> int | str:
        try:
            return int(call.decode(self.evm.call(call.to, call.data)))
        except CallReverted as error:
            return self._code(error.data)

    def _ask(self) -> tuple[list[int], dict[str, Any]]:
        """Ask the contract all of its views."""
        at, rng = self.comet, self.rng
        utilization = _pick(
            rng, (int(rng.uniform(0, 1.5) * WAD), self.params.supply_curve.kink_wad + 1, 0, 2**255)
        )
        base = _up_to(rng, 10 ** (self.base.decimals + 6))
        if _maybe(rng, 0.03):
            base = _pick(rng, HUGE)
        tokens = [token.address for token in self.collaterals]
        accounts = [record.account_address(i) for i in range(ACCOUNTS)]
        return [utilization, base], {
            "reserves": self._say(abi.GET_RESERVES.call(at)),
            "utilization": self._say(abi.GET_UTILIZATION.call(at)),
            "supply_rate": self._say(abi.GET_SUPPLY_RATE.call(at, utilization)),
            "borrow_rate": self._say(abi.GET_BORROW_RATE.call(at, utilization)),
            "total_supply": self._say(abi.TOTAL_SUPPLY.call(at)),
            "total_borrow": self._say(abi.TOTAL_BORROW.call(at)),
            "collateral_reserves": [self._say(abi.GET_COLLATERAL_RESERVES.call(at, t)) for t in tokens],
            "quotes": [self._say(abi.QUOTE_COLLATERAL.call(at, t, base)) for t in tokens],
            "liquidatable": [self._say(abi.IS_LIQUIDATABLE.call(at, a)) for a in accounts],
            "collateralized": [self._say(abi.IS_BORROW_COLLATERALIZED.call(at, a)) for a in accounts],
            "balances": [self._say(abi.COMET_BALANCE_OF.call(at, a)) for a in accounts],
            "owed": [self._say(abi.BORROW_BALANCE_OF.call(at, a)) for a in accounts],
            "absorbable": [self._probe(a) for a in accounts],
        }

    def _probe(self, account: str) -> str | None:
        """Return the code with which an absorption of one account would revert, None if it would not."""
        try:
            self.evm.call(self.comet, abi.ABSORB.encode(ABSORBER, [account]), ABSORBER)
        except CallReverted as error:
            return self._code(error.data)
        return None

    # -- counting --

    def _tag(self, do: Sequence[Any], step: Mapping[str, Any], after: Sequence[int]) -> None:
        code, name = step["code"], do[0]
        refusals = {
            errors.PAUSED: "paused",
            errors.UNAUTHORIZED: "unauthorized",
            errors.BAD_ASSET: "bad_asset",
            errors.BAD_PRICE: "bad_price",
            errors.FEED_REVERT: "feed_reverts",
            errors.ARITHMETIC_PANIC: "panic",
            errors.DIVISION_PANIC: "panic",
            errors.NOT_FOR_SALE: "not_for_sale",
            errors.TOO_MUCH_SLIPPAGE: "too_much_slippage",
            errors.INSUFFICIENT_RESERVES: "insufficient_reserves",
            errors.NOT_COLLATERALIZED: "not_collateralized",
            errors.BORROW_TOO_SMALL: "borrow_too_small",
            errors.SUPPLY_CAP_EXCEEDED: "supply_cap_exceeded",
            errors.TOKEN_REVERT: "token_refused",
        }
        if code is not None:
            self.tags.add(refusals.get(code, "out_of_range" if code.startswith("Invalid") else ""))
            self.tags.discard("")
        if after[0] > BASE_INDEX_SCALE or after[1] > BASE_INDEX_SCALE:
            self.tags.add("interest")
        if "views" in step:
            views = step["views"]
            self.tags.update({"reserves"} if _positive(views["reserves"]) else ())
            self.tags.update({"negative_reserves"} if _negative(views["reserves"]) else ())
            self._tag_accounts(views)
        if code is None:
            self._tag_done(name, do, after)

    def _tag_accounts(self, views: Mapping[str, Any]) -> None:
        market, accounts = self._state()
        for number, account in enumerate(accounts):
            early, before_broken = record.returns_early(market, account)
            if early and views["liquidatable"][number] == 0:
                self.tags.add("early_return")
                self.tags.update({"early_return_before_broken_feed"} if before_broken else ())
            if views["liquidatable"][number] == 0 and views["absorbable"][number] is None:
                self.tags.add("absorbable_by_interest_only")

    def _tag_done(self, name: str, do: Sequence[Any], after: Sequence[int]) -> None:
        if name in ("supply", "withdraw"):
            debts = self._principal(self.words, do[1]) < 0
            owes = self._principal(after, do[1]) < 0
            if do[2] != BASE:
                self.tags.update({"collateral_released"} if name == "withdraw" else ())
            elif name == "supply":
                self.tags.add("repaid" if debts else "supplied")
            else:
                self.tags.add("borrowed" if owes else "withdrawn")
        elif name == "buy":
            self.tags.add("bought")
        elif name == "take_reserves":
            self.tags.add("reserves_taken")

    def _principal(self, words: Sequence[int], account: int) -> int:
        n = len(self.collaterals)
        return words[9 + 2 * n + account * (2 + n)]

    # -- the life --

    def run(self) -> dict[str, Any]:
        """Play a life, and return its record."""
        rng = self.rng
        self._lend()
        borrowers = int(rng.integers(1, ACCOUNTS))
        self.tags.update({"several_accounts"} if borrowers > 1 else ())
        for number in range(borrowers):
            self._borrow(number)
        for _ in range(int(rng.integers(0, 5))):
            self._age()
            self.step(*self._draw_call())
        for round_number in range(1 if _maybe(rng, 0.7) else 2):
            self._age()
            self._reprice(self._debtor())
            self._pause(8)
            self._absorb(first=round_number == 0)
            for _ in range(int(rng.integers(0, 4))):
                self._sell()
        return {"config": self.config, "built": self._parameters(), "start": self.start, "steps": self.steps}

    def _debtor(self) -> int:
        """Return an account that owes, if there is one."""
        owing = [i for i in range(ACCOUNTS) if self._principal(self.words, i) < 0]
        return int(_pick(self.rng, owing)) if owing else 0

    def _lend(self) -> None:
        rng = self.rng
        scale = _pick(rng, ((-6, -3), (0, 3), (3, 6), (6, 8)), (0.1, 0.2, 0.5, 0.2))
        lent = max(1, self._base_raw(10 ** rng.uniform(*scale)))
        if _maybe(rng, 0.15):  # a few of the smallest units, where all that counts is how they are rounded
            lent = int(rng.integers(1, 3_000))
        if _maybe(rng, 0.6):
            self.step("give", BASE, _up_to(rng, lent))
        self.step("supply", LENDER, BASE, lent)

    def _base_raw(self, worth: float) -> int:
        return int(worth * 10**8 / (self.prices[0] or 1) * 10**self.base.decimals)

    def _borrow(self, number: int) -> None:
        """Let an account pay collateral in and borrow a part of what it carries, and of what there is."""
        rng, held = self.rng, self.words[8]
        if held < 1:
            return
        wanted = max(1, int(held * _pick(rng, (rng.uniform(0.01, 0.9), 0.5, 0.99), (0.6, 0.25, 0.15))))
        count = len(self.collaterals)
        used = sorted(rng.permutation(count)[: int(rng.integers(1, count + 1))].tolist())
        self.tags.update({"multi_asset"} if len(used) > 1 else ())
        shares = rng.dirichlet([1.0] * len(used))
        if _maybe(rng, 0.3):  # nearly all in the first, so that the rest is never asked for
            shares = np.array([1.0, *([0.1] * (len(used) - 1))])
        worth_e8 = wanted * (self.prices[0] or 1) // 10**self.base.decimals
        for share, asset in zip(shares, used, strict=True):
            decimals, borrow_wad = self.config["assets"][asset][:2]
            needed_e8 = int(worth_e8 * float(share) * rng.uniform(0.9, 1.4)) * WAD // borrow_wad
            amount = needed_e8 * 10**decimals // (self.prices[1 + asset] or 1)
            self.step("supply", number, asset, max(1, amount))
        market, accounts = self._state()
        room = _room(market, accounts[number])
        exact = _pick(rng, (wanted, min(wanted, room), room, room + 1), (0.15, 0.5, 0.25, 0.1))
        self.step("withdraw", number, BASE, exact)

    def _age(self) -> None:
        rng = self.rng
        gaps = (0, 1, 3_600, int(rng.integers(1, 30 * 86_400)), int(rng.integers(1, 2 * YEAR_S)))
        self.evm.warp(self.evm.timestamp() + _pick(rng, gaps, (0.1, 0.2, 0.2, 0.4, 0.1)))

    def _draw_call(self) -> tuple[Any, ...]:
        """Return a call of any kind, mostly one that may go through."""
        rng = self.rng
        market, accounts = self._state()
        kind = _pick(
            rng,
            ("supply", "withdraw", "collateral", "release", "accrue", "pause", "stranger", "reserves"),
            (0.22, 0.24, 0.12, 0.2, 0.08, 0.05, 0.03, 0.06),
        )
        number = int(rng.integers(0, ACCOUNTS))
        balance = abs(comet.present_value(market.totals, accounts[number].principal))
        if kind in ("supply", "withdraw"):
            amount = self._amount(balance)
            if kind == "supply" and amount > FUNDS_RAW // 2 and amount != MAX_UINT256:
                amount = 1
            return kind, number, BASE, amount
        if kind == "accrue":
            return "accrue", number
        if kind == "pause":
            return "pause", int(rng.integers(0, 32))
        if kind == "reserves":
            reserves = record.said(comet.get_reserves, market)
            return "take_reserves", self._amount(max(0, reserves) if isinstance(reserves, int) else 0)
        asset = int(rng.integers(0, len(self.collaterals)))
        amount = self._amount(accounts[number].collateral_raw[asset])
        if kind == "collateral":
            left = self.params.assets[asset].supply_cap_raw - market.total_collateral_raw[asset]
            if 0 < left < FUNDS_RAW // 100 and _maybe(rng, 0.5):
                amount = left + _pick(rng, (0, 1))
            return "supply", number, asset, amount if amount < FUNDS_RAW // 2 else 2**128
        if kind == "stranger":
            return "withdraw_as_stranger", number, asset, amount
        return "withdraw", number, _pick(rng, (asset, UNLISTED), (0.93, 0.07)), amount

    def _amount(self, most: int) -> int:
        rng = self.rng
        options = (_up_to(rng, most), most, most + 1, int(rng.integers(0, 3)), _pick(rng, HUGE), MAX_UINT256)
        return int(_pick(rng, options, (0.55, 0.15, 0.1, 0.08, 0.06, 0.06)))

    def _pause(self, action: int) -> None:
        """Pause an action at times, and take back at times what was paused before."""
        if _maybe(self.rng, 0.03):
            self.step("pause", action)
        elif self.words[7] & action and _maybe(self.rng, 0.8):
            self.step("pause", 0)

    def _set_price(self, place: int, price: int | None) -> None:
        feed = feed_of(self.tokens[place].address)
        self.prices[place] = price
        self.evm.set_code(feed, REFUSES if price is None else FEED)
        self.evm.set_storage(feed, 0, (price or 0) % 2**256)

    def _reprice(self, number: int) -> None:
        """Move prices to where an account's health is interesting, and break feeds at times."""
        rng = self.rng
        account = self._state()[1][number]
        held = [i for i, raw in enumerate(account.collateral_raw) if raw]
        if held and account.principal < 0:
            place = 1 + int(_pick(rng, held))
            kind = _pick(rng, ("threshold", "below", "deep", "above", "stay"), (0.3, 0.3, 0.28, 0.07, 0.05))
            if _maybe(rng, 0.3):  # all collaterals fall
                fall = rng.uniform(0.05, 0.9)
                for asset in range(len(self.collaterals)):
                    self._set_price(1 + asset, max(1, int((self.prices[1 + asset] or 1) * fall)))
            limit = self._threshold(place, number)
            parts = {"below": (0.7, 1.0), "deep": (0.001, 0.7), "above": (1.0, 1.5)}
            if kind in parts:
                self._set_price(place, max(1, int(limit * rng.uniform(*parts[kind]))))
            elif kind == "threshold":
                self._set_price(place, max(1, limit - _pick(rng, (0, 1), (0.35, 0.65))))
            self._tag_threshold(number)
        if _maybe(rng, 0.16):
            broken = _pick(rng, (None, 0, -1, 2**220, 2**255 - 1), (0.45, 0.15, 0.15, 0.15, 0.1))
            place = int(rng.integers(1, len(self.prices)))
            if _maybe(rng, 0.6) and held:  # behind what may already be enough
                place = 1 + held[-1]
            self._set_price(0 if _maybe(rng, 0.15) else place, broken)

    def _threshold(self, place: int, number: int) -> int:
        """Return the least price of a collateral at which an account is not absorbed."""
        low, high = 1, 2**70
        while low < high:
            middle = (low + high) // 2
            code = self._absorbs(place, middle, number)
            low, high = (middle + 1, high) if code is None else (low, middle)
        return low

    def _absorbs(self, place: int, price: int, number: int) -> str | None:
        market, accounts = self._state()
        prices = list(market.prices_e8)
        prices[place - 1] = price
        return comet.absorb(replace(market, prices_e8=tuple(prices)), [accounts[number]]).revert_code

    def _tag_threshold(self, number: int) -> None:
        market, accounts = self._state()
        report = self.adapter.margin(market, accounts[number], market.prices_base)
        left = report.components.get("liquidation_liquidity_e8")
        self.tags.update({"at_threshold"} if left == 0 and accounts[number].principal < 0 else ())
        self.tags.update({"one_below_threshold"} if left == -1 else ())

    def _absorb(self, *, first: bool) -> None:
        rng = self.rng
        market, accounts = self._state()
        able = [i for i in range(ACCOUNTS) if comet.absorb(market, [accounts[i]]).succeeds]
        named = list(rng.permutation(able).tolist())
        if not named or _maybe(rng, 0.2):
            named.insert(int(rng.integers(0, len(named) + 1)), int(rng.integers(0, ACCOUNTS)))
        elif _maybe(rng, 0.3):
            named = named[:1]
        twice = _maybe(rng, 0.05)
        if twice:
            named.append(named[0])
        code = self.step("absorb", [int(i) for i in named], views=True)
        if first:
            done = {None: ABSORBED, errors.NOT_LIQUIDATABLE: HEALTHY}
            self.verdict, self.code = done.get(code, REJECTED), code
        self.tags.update({"same_account_twice"} if twice and code is not None else ())
        if code is None:
            outcome = comet.absorb(market, [accounts[i] for i in named])
            self.tags.update({"absorbed_several"} if len(named) > 1 else ())
            self.tags.update({"bad_debt"} if record.is_bad_debt(outcome) else ())
            left = [self._principal(self.words, i) for i in named]
            self.tags.update({"left_positive"} if max(left) > 0 else ())
            self.tags.update({"left_zero"} if min(left) == 0 else ())

    def _sell(self) -> None:
        """Buy some of what the market has seized, or of what somebody gave it."""
        rng = self.rng
        asset = int(rng.integers(0, len(self.collaterals)))
        market, _ = self._state()
        there = comet.get_collateral_reserves(market, self.params.assets[asset].asset.address)
        if there == 0 and _maybe(rng, 0.4):
            self.step("give", asset, _up_to(rng, 10 ** (self.collaterals[asset].decimals + 3)))
            market, _ = self._state()
            there = comet.get_collateral_reserves(market, self.params.assets[asset].asset.address)
        self._pause(16)
        if _maybe(rng, 0.2):
            self._reach_target()
            market, _ = self._state()
        base = self._price_of(market, asset, there)
        least = 0
        if base is not None:
            base = _pick(rng, (base, base + 1, _up_to(rng, max(1, base))), (0.3, 0.1, 0.6))
            quote = record.said(comet.quote_collateral, market, record.token_of(self.params, asset), base)
            least = _pick(rng, (0, quote, quote + 1), (0.5, 0.3, 0.2)) if isinstance(quote, int) else 0
        else:
            base = int(rng.integers(1, 10**6))
        if _maybe(rng, 0.04):
            asset = UNLISTED
        self.step("buy", asset, least, base, views=_maybe(rng, 0.3))

    def _reach_target(self) -> None:
        """Give the market what it lacks for its target, so that it has just that when it is asked to sell."""
        market, _ = self._state()
        then = replace(market, timestamp=market.timestamp + 1)
        reserves = record.said(comet.get_reserves, then)
        if isinstance(reserves, int) and 0 < self.config["target"] - reserves < FUNDS_RAW // 100:
            self.tags.add("reserves_at_target")
            self.step("give", BASE, self.config["target"] - reserves)

    def _price_of(self, market: CometMarket, asset: int, amount: int) -> int | None:
        """Return about how many base tokens an amount of a collateral costs, None where nobody can say."""
        token, one = record.token_of(self.params, asset), int(10 ** (self.base.decimals + 6))
        quote = record.said(comet.quote_collateral, market, token, one)
        if not isinstance(quote, int) or quote == 0:
            return None
        return max(1, min(FUNDS_RAW // 100, amount * one // quote))


def _positive(value: int | str) -> bool:
    return isinstance(value, int) and value > 0


def _negative(value: int | str) -> bool:
    return isinstance(value, int) and value < 0


def _room(market: CometMarket, account: CometAccount) -> int:
    """Return the most that an account can borrow by what it has, about to the unit."""
    low, high = 0, max(1, market.base_held_raw)
    while low < high:
        middle = (low + high + 1) // 2
        outcome = comet.withdraw(market, account, market.params.base.address, middle)
        low, high = (low, middle - 1) if outcome.revert_code == errors.NOT_COLLATERALIZED else (middle, high)
    return low
