"""Parity of the source of Aave's oracle: sources missing, at zero, negative, reverting, and fallbacks.

A case deploys AaveOracle with a random base currency and fallback, gives each of its assets one kind of
source and asks for all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal

import numpy as np

from contracts_abi.calls import checksummed, function
from oracle.sources.aave_oracle import AaveOracleSource, AssetSource, asset_price
from simulation.chain.artifacts import aave, chainlink
from simulation.chain.evm import ZERO_ADDRESS, Evm, labelled_address, transact
from simulation.chain.parity.harness import CaseResult, Compared, Mismatch, parity_adapters
from simulation.chain.parity.oracle import Answer, OracleParity, compare, differ, raw_words, signed

OWNER: Final = labelled_address("oracle owner")
ASSETS: Final = tuple(labelled_address(f"priced asset {i}") for i in range(6))
NO_CONTRACT: Final = labelled_address("nobody's address")

UPDATE_ROUND_DATA: Final = function("updateRoundData(uint80,int256,uint256,uint256)")
SET_ASSET_PRICE: Final = function("setAssetPrice(address,uint256)")

UNITS: Final = (10**8, 10**18, 1, 123)
"""Units of the base currency; the last is no power of ten, so that its prices have no scale."""


@dataclass(frozen=True, slots=True)
class Priced:
    """An asset of a case: its source's address and answer, and what the fallback says of it."""

    asset: str
    source: str
    answer: AssetSource | None
    fallback: int | None


@parity_adapters.register("oracle-aave")
class AaveOracleParity(OracleParity):
    """`simulation.chain.parity.ParityAdapter` of Aave's oracle."""

    kind: ClassVar[Literal["oracle-aave"]] = "oracle-aave"

    @property
    def compared(self) -> Compared:
        """What is held equal with what."""
        return Compared(
            "oracle.sources.aave_oracle",
            "@aave/core-v3 1.19.3: AaveOracle, PriceOracle, as its authors compiled them; "
            "@chainlink/contracts 0.8.0: MockV3Aggregator",
        )

    @property
    def tags(self) -> tuple[str, ...]:
        """What cases are counted as."""
        return (
            *("no_source", "positive", "zero", "negative", "reverting_source", "base_currency"),
            *(
                "no_fallback",
                "fallback",
                "reverting_fallback",
                "fallback_used",
                "odd_unit",
                "feed_is_another",
            ),
        )

    def prepare(self, evm: Evm) -> None:
        """Deploy nothing: every case has contracts of its own."""

    def run(self, evm: Evm, world: None, rng: np.random.Generator) -> CaseResult:
        """Bring about one case and compare; see the module."""
        case = _Case(evm, rng)
        mismatches = tuple(m for priced in case.assets for m in case.compare(priced))
        return CaseResult(case.verdict, None, frozenset(case.tags), mismatches)


class _Case:
    """One oracle with its assets, and what was seen of it."""

    def __init__(self, evm: Evm, rng: np.random.Generator) -> None:
        self.evm = evm
        self.rng = rng
        self.tags: set[str] = set()
        self.verdict = Answer.NO_DATA
        self.unit = UNITS[self._below(len(UNITS))]
        if self.unit == UNITS[-1]:
            self.tags.add("odd_unit")
        fallback = self._fallback()
        self.assets = [self._priced(asset, fallback) for asset in ASSETS]
        self.base_currency = ASSETS[0] if self._chance(0.3) else NO_CONTRACT
        self.oracle = evm.create(
            OWNER,
            aave("AaveOracle").creation_code(
                ZERO_ADDRESS,
                ASSETS,
                [priced.source for priced in self.assets],
                fallback,
                self.base_currency,
                self.unit,
            ),
        )

    def compare(self, priced: Priced) -> tuple[Mismatch, ...]:
        """Compare the formula and the source with the contract's own answer for one asset."""
        words = raw_words(self.evm, self.oracle, "getAssetPrice(address)", priced.asset)
        answered = None if words is None else words[0]
        is_base = priced.asset == self.base_currency
        self._count(priced, is_base)
        computed = asset_price(
            priced.answer, priced.fallback, base_currency_unit=self.unit if is_base else None
        )
        return (*differ("asset_price", answered, computed), *self._compare_source(priced, answered))

    def _compare_source(self, priced: Priced, answered: int | None) -> tuple[Mismatch, ...]:
        feed = priced.source if int(priced.source, 16) else NO_CONTRACT
        if self._chance(0.2):
            self.tags.add("feed_is_another")
            feed = NO_CONTRACT
        source = AaveOracleSource(
            base="A", quote="B", address=self.oracle, asset=priced.asset, feed=feed, heartbeat_s=60
        )
        if answered is None or self.unit == UNITS[-1]:
            return compare(source, self.evm, None)
        self.verdict = Answer.READ
        decimals = len(str(self.unit)) - 1
        expected = {
            "mantissa": answered,
            "decimals": decimals,
            "observed_at": self.evm.timestamp(),
            "published_at": self._time(feed, priced, answered, decimals),
        }
        return compare(source, self.evm, expected, {"heartbeat_s": 60})

    def _time(self, feed: str, priced: Priced, answered: int, decimals: int) -> int | None:
        """Return the time of the feed's round if the price is that round's."""
        if feed != checksummed(priced.source):
            return None
        words = raw_words(self.evm, feed, "latestRoundData()")
        scale = raw_words(self.evm, feed, "decimals()")
        if not words or not scale or words[3] == 0:
            return None
        return words[3] if (signed(words[1]), scale[0]) == (answered, decimals) else None

    def _count(self, priced: Priced, is_base: bool) -> None:
        if is_base:
            self.tags.add("base_currency")
        elif priced.answer is None:
            self.tags.add("no_source")
        elif priced.answer.answer is None:
            self.tags.add("reverting_source")
        else:
            answer = priced.answer.answer
            self.tags.add("positive" if answer > 0 else "negative" if answer else "zero")
            if answer <= 0 and priced.fallback is not None:
                self.tags.add("fallback_used")

    def _fallback(self) -> str:
        kind = ("no_fallback", "reverting_fallback", "fallback", "fallback")[self._below(4)]
        self.tags.add(kind)
        if kind == "no_fallback":
            return ZERO_ADDRESS
        if kind == "reverting_fallback":
            return NO_CONTRACT
        return self.evm.create(OWNER, aave("PriceOracle").creation_code())

    def _priced(self, asset: str, fallback: str) -> Priced:
        in_fallback = None
        if "fallback" in self.tags:
            in_fallback = self._below(3) * 10 ** self._below(30)
            self._send(fallback, SET_ASSET_PRICE, asset, in_fallback)
        kind = self._below(6)
        if kind == 0:
            return Priced(asset, ZERO_ADDRESS, None, in_fallback)
        if kind == 1:
            # No contract at all, or one without the function.
            dead = (
                NO_CONTRACT
                if self._chance(0.5)
                else self.evm.create(OWNER, aave("PriceOracle").creation_code())
            )
            return Priced(asset, dead, AssetSource(None), in_fallback)
        answer = self._answer(kind)
        decimals = (8, 18, 0)[self._below(3)]
        source = self.evm.create(OWNER, chainlink("MockV3Aggregator").creation_code(decimals, 1))
        written = 0 if self._chance(0.1) else self.evm.timestamp() - self._below(7_200)
        self._send(source, UPDATE_ROUND_DATA, 1 + self._below(9), answer, written, written)
        return Priced(asset, source, AssetSource(answer), in_fallback)

    def _answer(self, kind: int) -> int:
        if kind == 2:
            return 0
        size = int(10 ** self._below(60)) * (1 + self._below(9))
        return -size if kind == 3 else size

    def _send(self, to: str, fn: Any, *arguments: Any) -> None:
        transact(self.evm, OWNER, to, fn, *arguments)

    def _below(self, end: int) -> int:
        return int(self.rng.integers(end))

    def _chance(self, part: float) -> bool:
        return bool(self.rng.random() < part)
