"""What a share of a tokenized vault converts to, as the vault itself says.

Contract: ``convertToAssets`` of EIP-4626; the arithmetic of `convert_to_assets` is that of ``ERC4626.sol`` of
OpenZeppelin (4.9), which every answer of such a vault equals.

Traps: a donation to a vault that counts its balance raises the rate at once, and in a vault of a few shares
by any factor. Decimals of share and asset may differ. The rate is that of the block that reads it, whatever
the age of what the vault holds. A consumer that takes one over the rate gets zero when the rate is large.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field

from contracts_abi.calls import Call, function
from contracts_abi.feeds import DECIMALS
from oracle.fields import Address
from oracle.interfaces import FeedContext, RateFacts
from oracle.sources import sources
from oracle.sources.answers import UINT256_MAX, ContractSource, output
from oracle.types import FeedKind, PriceObs, Reading

CONVERT_TO_ASSETS = function("convertToAssets(uint256)(uint256)")
TOTAL_ASSETS = function("totalAssets()(uint256)")
TOTAL_SUPPLY = function("totalSupply()(uint256)")
ASSET = function("asset()(address)")


def convert_to_assets(shares: int, total_assets: int, total_supply: int, offset: int) -> int | None:
    """Return what shares are worth, rounded down: one asset and ``10**offset`` shares are always added.

    Parameters
    ----------
    shares, total_assets, total_supply
        Raw.
    offset
        Digits that a share has more than an asset.

    Returns
    -------
    int or None
        None where the vault reverts: a sum or the result has more than 256 bits.
    """
    assets, supply = total_assets + 1, total_supply + int(10**offset)
    if max(assets, supply) > UINT256_MAX:
        return None
    worth = shares * assets // supply
    return worth if worth <= UINT256_MAX else None


@sources.register("erc4626")
class Erc4626Source(ContractSource):
    """A vault's rate: the assets that one whole share converts to (``convertToAssets``).

    Attributes
    ----------
    base, quote
        Symbols of share and asset.
    address
        The vault to read.
    name
        Source id; ``erc4626:<address>`` by default.
    share_decimals, asset_decimals
        Scales of share and asset. There is no price while the vault states another scale of its shares.
    asset
        The asset's token; with it, there is no price while the vault holds another, or its scale is another.
    max_growth_bps_year
        Growth that is plausible, linear, basis points a year.
    """

    kind: ClassVar[Literal["erc4626"]] = "erc4626"

    share_decimals: int = Field(default=18, ge=0, le=36)
    asset_decimals: int = Field(default=18, ge=0, le=36)
    asset: Address | None = None
    max_growth_bps_year: int | None = Field(default=None, ge=0)

    def reads(self) -> list[Call[Any]]:
        """Return the worth of one share, the vault's scale, assets and supply, and its asset where known."""
        own = [
            CONVERT_TO_ASSETS.call(self.address, int(10**self.share_decimals)),
            *(f.call(self.address) for f in (DECIMALS, TOTAL_ASSETS, TOTAL_SUPPLY)),
        ]
        return own if self.asset is None else [*own, ASSET.call(self.address), DECIMALS.call(self.asset)]

    def decode(self, results: Sequence[bytes | None], *, block: int, timestamp: int) -> Reading:
        """Return the rate at the asset's scale; it carries no time."""
        worth = output(CONVERT_TO_ASSETS, results[0])
        wrong = "convertToAssets() gave no rate" if worth is None else self._wrong_scale(results)
        if wrong is not None:
            return self._no_data(wrong, results[0], block, timestamp)
        return PriceObs(
            self.base,
            self.quote,
            worth,
            self.asset_decimals,
            FeedKind.RATE,
            self.source_id,
            published_at=None,
            observed_at=timestamp,
            block=block,
            raw=results[0] or b"",
        )

    def context(self, results: Sequence[bytes | None], *, timestamp: int) -> FeedContext:
        """Return the rate with the assets and shares that it is made of."""
        worth = output(CONVERT_TO_ASSETS, results[0])
        if worth is None:
            return FeedContext(now=timestamp)
        facts = RateFacts(
            worth,
            self.asset_decimals,
            total_assets_raw=output(TOTAL_ASSETS, results[2]),
            total_supply_raw=output(TOTAL_SUPPLY, results[3]),
            max_growth_bps_year=self.max_growth_bps_year,
        )
        return FeedContext(now=timestamp, rate=facts)

    def _wrong_scale(self, results: Sequence[bytes | None]) -> str | None:
        """Return what is not as configured; a scale that is off by one digit is a price off by ten."""
        stated = output(DECIMALS, results[1])
        if stated is None:
            return "decimals() gave no scale"
        if stated != self.share_decimals:
            return f"shares have {stated} decimals, not {self.share_decimals}"
        if self.asset is None:
            return None
        held, scale = output(ASSET, results[4]), output(DECIMALS, results[5])
        if held != self.asset:
            return f"the vault's asset is {held}, not {self.asset}"
        if scale != self.asset_decimals:
            return f"the asset has {scale} decimals, not {self.asset_decimals}"
        return None
