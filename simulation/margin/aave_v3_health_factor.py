"""The margin rule of Aave V3: the health factor, at anybody's prices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from oracle.types import PriceSnapshot
from simulation.margin import margin_methods
from simulation.protocols.aave_v3 import AaveAccount, AaveMarket, AaveV3
from simulation.types import Book, MarginReport


@margin_methods.register("aave-v3.health-factor")
@dataclass(frozen=True, slots=True)
class AaveV3HealthFactor:
    """`simulation.interfaces.MarginMethod` of one Aave V3 market.

    Parameters
    ----------
    adapter
        The market's adapter.
    market
        Its state at the book's block.
    """

    kind: ClassVar[Literal["aave-v3.health-factor"]] = "aave-v3.health-factor"

    adapter: AaveV3
    market: AaveMarket

    @property
    def id(self) -> str:
        """Method id, as in `MarginReport.method`."""
        return self.kind

    def report(self, book: Book, row: int, prices: PriceSnapshot) -> MarginReport:
        """Return the exact margin of a row at the snapshot's prices; unknown where one is missing.

        The price of an eMode category that has its own is looked up under ``emode-N``.
        """
        exact = book.exact[row]
        if not isinstance(exact, AaveAccount):
            return self.adapter.unknown_margin(self.market, book.accounts[row], "account could not be read")
        return self.adapter.margin(self.market, exact, prices_base(prices, self.market.base_decimals))


def prices_base(prices: PriceSnapshot, base_decimals: int) -> dict[str, int]:
    """Return the usable prices of a snapshot at the market's scale, rounded down."""
    scaled = {asset: _scaled(prices, asset, base_decimals) for asset in prices.prices}
    return {asset: price for asset, price in scaled.items() if price is not None}


def _scaled(prices: PriceSnapshot, asset: str, base_decimals: int) -> int | None:
    if (price_e8 := prices.price_e8(asset)) is None:
        return None
    if base_decimals == 8:
        return price_e8
    return int(price_e8 * 10**base_decimals // 10**8)
