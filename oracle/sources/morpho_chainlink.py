"""Morpho's oracle over Chainlink feeds and vaults: one scale factor, set for good when it is deployed.

Contract: ``MorphoChainlinkOracleV2.sol`` of morpho-org/morpho-blue-oracles (e32d8902). ``price()`` is the
amount of the loan token's smallest unit for one smallest unit of collateral, times 1e36; for people that is
``10**(36 + loan decimals - collateral decimals)`` a unit.

What it does not check: the age of an answer, bounds, the sequencer of a layer 2, and whether an answer is
positive. Zero passes as a collateral's price of 0; as a divisor it reverts. The token decimals are arguments
of the constructor, and a wrong one is a price that is wrong by a power of ten (`scale_error`): PAXG stood a
trillion times too high on 2024-10-13.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar, Literal

from pydantic import Field

from contracts_abi.calls import Call, function
from oracle.fields import Address
from oracle.interfaces import FeedContext
from oracle.sources import sources
from oracle.sources.answers import (
    ROUND_READS,
    UINT256_MAX,
    ContractSource,
    output,
    round_of,
    round_reads,
)
from oracle.types import FeedKind, PriceObs, Reading

ORACLE_DECIMALS = 36

PRICE = function("price()(uint256)")
SCALE_FACTOR = function("SCALE_FACTOR()(uint256)")
FEED_GETTERS = tuple(
    function(f"{name}()(address)") for name in ("BASE_FEED_1", "BASE_FEED_2", "QUOTE_FEED_1", "QUOTE_FEED_2")
)


def scale_factor(
    base_decimals: int,
    quote_decimals: int,
    base_feeds: Sequence[int],
    quote_feeds: Sequence[int],
    base_sample: int = 1,
    quote_sample: int = 1,
) -> int | None:
    """Return the constructor's ``SCALE_FACTOR``; None where it reverts.

    Parameters
    ----------
    base_decimals, quote_decimals
        Decimals of the collateral and of the loan token, as the deployer states them.
    base_feeds, quote_feeds
        Decimals of the feeds on each side; a feed that is left out counts 0.
    base_sample, quote_sample
        Shares that the vaults convert; 1 without a vault.
    """
    exponent = ORACLE_DECIMALS + quote_decimals + sum(quote_feeds) - base_decimals - sum(base_feeds)
    if base_sample == 0 or quote_sample == 0 or exponent < 0:
        return None
    scaled: int = 10**exponent * quote_sample
    return None if scaled > UINT256_MAX else scaled // base_sample


def morpho_price(
    scale: int,
    base_answers: Sequence[int],
    quote_answers: Sequence[int],
    base_assets: int = 1,
    quote_assets: int = 1,
) -> int | None:
    """Return ``price()``, rounded down; None where it reverts.

    It reverts on a negative answer, on a divisor of zero, and where one side or the result does not fit 256
    bits. A collateral's answer of zero does not revert: the price is 0.

    Parameters
    ----------
    scale
        From `scale_factor`.
    base_answers, quote_answers
        Answers of the feeds on each side; none for a feed that is left out.
    base_assets, quote_assets
        What the vaults give for their samples; 1 without a vault.
    """
    if any(answer < 0 for answer in (*base_answers, *quote_answers)):
        return None
    above, below = _product(base_assets, base_answers), _product(quote_assets, quote_answers)
    if above is None or below is None or below == 0:
        return None
    price = scale * above // below
    return None if price > UINT256_MAX else price


def _product(first: int, factors: Sequence[int]) -> int | None:
    """Multiply from the left in 256 bits; None where that overflows."""
    value = first
    for factor in factors:
        value *= factor
        if value > UINT256_MAX:
            return None
    return value


@dataclass(frozen=True, slots=True)
class ScaleError:
    """How far a price is from what it should be: about ``10**power`` times, `ratio` exactly."""

    power: int
    ratio: Fraction


def scale_error(price: int, expected: Fraction, base_decimals: int, quote_decimals: int) -> ScaleError:
    """Hold ``price()`` against what the tokens' real decimals and a known price call for.

    Parameters
    ----------
    price
        What the oracle says, positive.
    expected
        Loan tokens for one collateral token, from another source, positive.
    base_decimals, quote_decimals
        Decimals of the tokens themselves, read from them.

    Returns
    -------
    ScaleError
        Power 0 when the scale is right: ``price`` is near ``1e36 * P * 10**(quote - base)``.

    Raises
    ------
    ValueError
        If either price is not positive.
    """
    if price <= 0 or expected <= 0:
        raise ValueError(f"a scale is judged between positive prices, got {price} and {expected}")
    ratio = price / (expected * Fraction(10) ** (ORACLE_DECIMALS + quote_decimals - base_decimals))
    # The nearest power of ten: within a factor of sqrt(10) either way, in whole numbers.
    power = 0
    while ratio**2 >= Fraction(10) ** (2 * power + 1):
        power += 1
    while ratio**2 < Fraction(10) ** (2 * power - 1):
        power -= 1
    return ScaleError(power, ratio)


@sources.register("morpho_chainlink")
class MorphoChainlinkSource(ContractSource):
    """Morpho's Chainlink oracle: collateral in loan tokens, as the market reads it.

    Attributes
    ----------
    base, quote
        Symbols of the collateral and of the loan token.
    address
        The oracle contract to read.
    name
        Source id; ``morpho_chainlink:<address>`` by default.
    base_decimals, quote_decimals
        Decimals of the tokens themselves. The scale of the price follows from them and not from what the
        deployer stated, so that a wrong statement shows as a wrong price.
    feeds
        The feeds behind, for their times: the price is as old as the oldest. Ignored unless they are exactly
        those that the oracle names.
    heartbeat_s, grace_s
        The longest promise of the feeds.
    """

    kind: ClassVar[Literal["morpho_chainlink"]] = "morpho_chainlink"

    base_decimals: int = Field(ge=0, le=36)
    quote_decimals: int = Field(ge=0, le=36)
    feeds: tuple[Address, ...] = ()
    heartbeat_s: int | None = Field(default=None, gt=0)
    grace_s: int = Field(default=300, ge=0)

    def reads(self) -> list[Call[Any]]:
        """Return the price, the feeds that the oracle names, and the rounds of those that are known."""
        own = [f.call(self.address) for f in (PRICE, *FEED_GETTERS)]
        return [*own, *(read for feed in self.feeds for read in round_reads(feed))]

    def decode(self, results: Sequence[bytes | None], *, block: int, timestamp: int) -> Reading:
        """Return the price, as old as the oldest of its feeds."""
        price = output(PRICE, results[0])
        if price is None:
            return self._no_data("price() gave no price", results[0], block, timestamp)
        return PriceObs(
            self.base,
            self.quote,
            price,
            ORACLE_DECIMALS + self.quote_decimals - self.base_decimals,
            FeedKind.COMPOSITE,
            self.source_id,
            published_at=self._oldest(results),
            observed_at=timestamp,
            block=block,
            raw=results[0] or b"",
        )

    def context(self, results: Sequence[bytes | None], *, timestamp: int) -> FeedContext:
        """Return the configured promises, and one leg for each feed that the oracle names."""
        return FeedContext(
            now=timestamp,
            heartbeat_s=self.heartbeat_s,
            grace_s=self.grace_s,
            legs=(FeedKind.PUSH,) * len(self._named(results)),
        )

    def _named(self, results: Sequence[bytes | None]) -> tuple[str, ...]:
        said = (output(f, r) for f, r in zip(FEED_GETTERS, results[1:5], strict=True))
        return tuple(feed for feed in said if feed is not None and int(feed, 16))

    def _oldest(self, results: Sequence[bytes | None]) -> int | None:
        if not self.feeds or sorted(self._named(results)) != sorted(self.feeds):
            return None
        rounds = [
            round_of(results[at : at + ROUND_READS])
            for at in range(1 + len(FEED_GETTERS), len(results), ROUND_READS)
        ]
        times = [found.updated_at for found in rounds if found is not None]
        return min(times) if len(times) == len(rounds) else None
