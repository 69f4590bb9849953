"""AaveOracle: one source for each asset, and a fallback oracle for prices that are not positive.

Contract: ``AaveOracle.sol`` of @aave/core-v3 1.19.3. What it does not do: it looks at no time and no bound,
and it does not catch a source that reverts. Such an asset's price reverts, and with it every action of every
account that holds the asset.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pydantic import Field

from contracts_abi.calls import Call, function
from oracle.fields import Address
from oracle.interfaces import FeedContext
from oracle.sources import sources
from oracle.sources.answers import ROUND_READS, ContractSource, output, round_of, round_reads
from oracle.types import FeedKind, PriceObs, Reading

ZERO_ADDRESS = "0x" + "00" * 20

ASSET_PRICE = function("getAssetPrice(address)(uint256)")
SOURCE_OF_ASSET = function("getSourceOfAsset(address)(address)")
BASE_CURRENCY_UNIT = function("BASE_CURRENCY_UNIT()(uint256)")


@dataclass(frozen=True, slots=True)
class AssetSource:
    """What the source of an asset answers: `answer`, or None when it reverts."""

    answer: int | None


def asset_price(
    source: AssetSource | None, fallback: int | None, *, base_currency_unit: int | None = None
) -> int | None:
    """Return ``AaveOracle.getAssetPrice``; None where it reverts.

    Parameters
    ----------
    source
        The asset's source; None when it has none.
    fallback
        What the fallback oracle says of the asset; None when it reverts or there is none. Zero passes.
    base_currency_unit
        Given when the asset is the base currency itself: its price is the unit, no source is asked.
    """
    if base_currency_unit is not None:
        return base_currency_unit
    if source is None:
        return fallback
    if source.answer is None:
        return None
    return source.answer if source.answer > 0 else fallback


@sources.register("aave_oracle")
class AaveOracleSource(ContractSource):
    """Aave's oracle for one asset, as the pool reads it.

    It states no time. With `feed` the price has the time of the feed, as long as the oracle names that feed
    as the asset's source and says the price that the feed says.

    Attributes
    ----------
    base, quote
        Symbols of the pair; the quote is the oracle's base currency.
    address
        The oracle contract to read.
    name
        Source id; ``aave_oracle:<address>`` by default.
    asset
        The token to price.
    feed
        The asset's source, where it has rounds.
    heartbeat_s, grace_s
        What the feed promises.
    """

    kind: ClassVar[Literal["aave_oracle"]] = "aave_oracle"

    asset: Address
    feed: Address | None = None
    heartbeat_s: int | None = Field(default=None, gt=0)
    grace_s: int = Field(default=300, ge=0)

    @property
    def source_id(self) -> str:
        """Unique name within a configuration: one oracle prices many assets."""
        return self.name or f"{self.kind}:{self.address}:{self.asset}"

    def reads(self) -> list[Call[Any]]:
        """Return the price, its unit, the asset's source, and that source's round where it is known."""
        own = [
            ASSET_PRICE.call(self.address, self.asset),
            BASE_CURRENCY_UNIT.call(self.address),
            SOURCE_OF_ASSET.call(self.address, self.asset),
        ]
        return own if self.feed is None else [*own, *round_reads(self.feed)]

    def decode(self, results: Sequence[bytes | None], *, block: int, timestamp: int) -> Reading:
        """Return the price. The unit must be a power of ten, as it is a scale."""
        price, unit = output(ASSET_PRICE, results[0]), output(BASE_CURRENCY_UNIT, results[1])
        if price is None:
            return self._no_data("getAssetPrice() gave no price", results[0], block, timestamp)
        decimals = None if unit is None else len(str(unit)) - 1
        if decimals is None or unit != 10**decimals:
            return self._no_data("BASE_CURRENCY_UNIT() gave no scale", results[0], block, timestamp)
        return PriceObs(
            self.base,
            self.quote,
            price,
            decimals,
            FeedKind.PUSH,
            self.source_id,
            published_at=self._published_at(results, price, decimals),
            observed_at=timestamp,
            block=block,
            raw=results[0] or b"",
        )

    def context(self, results: Sequence[bytes | None], *, timestamp: int) -> FeedContext:
        """Return the configured promises."""
        return FeedContext(now=timestamp, heartbeat_s=self.heartbeat_s, grace_s=self.grace_s)

    def _published_at(self, results: Sequence[bytes | None], price: int, decimals: int) -> int | None:
        if self.feed is None or output(SOURCE_OF_ASSET, results[2]) != self.feed:
            return None
        found = round_of(results[3 : 3 + ROUND_READS])
        # The fallback's price is not the feed's, and has another time.
        if found is None or (found.answer, found.decimals) != (price, decimals):
            return None
        return found.updated_at
