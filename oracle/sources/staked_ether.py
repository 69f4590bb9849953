"""Rates of staked ether: what one wstETH, rETH or cbETH is worth, as the token's contract says.

Contracts: ``WstETH.stEthPerToken`` of lidofinance/core, ``RocketTokenRETH.getExchangeRate`` of Rocket Pool,
``StakedTokenV1.exchangeRate`` of coinbase/wrapped-tokens-os. All have 18 decimals and carry no time.

Traps: a rate is not a market price. The first is in stETH, which may trade below ether. Lido's and Rocket
Pool's rates move when their oracles report, about once a day; cbETH's is whatever one account last wrote. A
consumer that reads the rate of such a token as its price in dollars is off by the price of ether.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field

from contracts_abi.calls import Call, Function, function
from oracle.interfaces import AuthorityFacts, FeedContext, RateFacts
from oracle.sources import sources
from oracle.sources.answers import ContractSource, output
from oracle.sources.erc4626 import TOTAL_SUPPLY
from oracle.types import FeedKind, PriceObs, Reading

DECIMALS = 18
STETH_PER_TOKEN = function("stEthPerToken()(uint256)")
GET_EXCHANGE_RATE = function("getExchangeRate()(uint256)")
EXCHANGE_RATE = function("exchangeRate()(uint256)")
ORACLE = function("oracle()(address)")


class _StakedEther(ContractSource):
    """What the rates share: one getter, 18 decimals, and the token's supply."""

    getter: ClassVar[Function]

    max_growth_bps_year: int | None = Field(default=None, ge=0)

    def reads(self) -> list[Call[Any]]:
        """Return the rate and the token's supply."""
        return [self.getter.call(self.address), TOTAL_SUPPLY.call(self.address)]

    def decode(self, results: Sequence[bytes | None], *, block: int, timestamp: int) -> Reading:
        """Return the rate, 18 decimals; it carries no time."""
        rate = output(self.getter, results[0])
        if rate is None:
            return self._no_data(f"{self.getter.name}() gave no rate", results[0], block, timestamp)
        return PriceObs(
            self.base,
            self.quote,
            rate,
            DECIMALS,
            FeedKind.RATE,
            self.source_id,
            published_at=None,
            observed_at=timestamp,
            block=block,
            raw=results[0] or b"",
        )

    def context(self, results: Sequence[bytes | None], *, timestamp: int) -> FeedContext:
        """Return the rate with the supply behind it, and how fast it may grow."""
        return FeedContext(now=timestamp, rate=self._rate(results))

    def _rate(self, results: Sequence[bytes | None]) -> RateFacts | None:
        rate = output(self.getter, results[0])
        if rate is None:
            return None
        return RateFacts(
            rate,
            DECIMALS,
            total_supply_raw=output(TOTAL_SUPPLY, results[1]),
            max_growth_bps_year=self.max_growth_bps_year,
        )


@sources.register("wsteth")
class WstEthSource(_StakedEther):
    """Lido's wrapped staked ether: the stETH that one wstETH unwraps to (``stEthPerToken``).

    Attributes
    ----------
    base, quote
        Symbols of token and stETH.
    address
        The token to read.
    name
        Source id; ``wsteth:<address>`` by default.
    max_growth_bps_year
        Growth that is plausible, linear, basis points a year.
    """

    kind: ClassVar[Literal["wsteth"]] = "wsteth"
    getter: ClassVar[Function] = STETH_PER_TOKEN


@sources.register("reth")
class REthSource(_StakedEther):
    """Rocket Pool's staked ether: the ether that stands behind one rETH (``getExchangeRate``).

    Attributes
    ----------
    base, quote
        Symbols of token and ether.
    address
        The token to read.
    name
        Source id; ``reth:<address>`` by default.
    max_growth_bps_year
        Growth that is plausible, linear, basis points a year.
    """

    kind: ClassVar[Literal["reth"]] = "reth"
    getter: ClassVar[Function] = GET_EXCHANGE_RATE


@sources.register("cbeth")
class CbEthSource(_StakedEther):
    """Coinbase's staked ether: the ether that one cbETH stands for (``exchangeRate``), as one account says.

    Attributes
    ----------
    base, quote
        Symbols of token and ether.
    address
        The token to read.
    name
        Source id; ``cbeth:<address>`` by default.
    max_growth_bps_year
        Growth that is plausible, linear, basis points a year.
    """

    kind: ClassVar[Literal["cbeth"]] = "cbeth"
    getter: ClassVar[Function] = EXCHANGE_RATE

    def reads(self) -> list[Call[Any]]:
        """Return the rate, the token's supply, and the account that writes the rate."""
        return [*super().reads(), ORACLE.call(self.address)]

    def context(self, results: Sequence[bytes | None], *, timestamp: int) -> FeedContext:
        """Return the rate, and who can set it to anything but zero."""
        oracle = output(ORACLE, results[2])
        setters = None if oracle is None else AuthorityFacts(setters=frozenset({oracle}))
        return FeedContext(now=timestamp, rate=self._rate(results), authority=setters)
