"""The margin rule of lending protocols: the health factor, at anybody's prices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

from oracle.types import PriceSnapshot
from simulation.interfaces import ProtocolAdapter
from simulation.margin import lending_margin
from simulation.types import Book, MarginReport


class LendingMarket(Protocol):
    """What the method has to know of a market itself; the rest only the adapter looks at."""

    @property
    def base_decimals(self) -> int:
        """Scale of the market's base currency."""
        ...


@lending_margin.register("lending-health-factor")
@dataclass(frozen=True, slots=True)
class LendingHealthFactor:
    """`simulation.interfaces.MarginMethod` of one lending market: what its own contract would answer.

    Parameters
    ----------
    adapter
        The protocol's adapter.
    market
        The market's state at the book's block.
    """

    kind: ClassVar[Literal["lending-health-factor"]] = "lending-health-factor"

    adapter: ProtocolAdapter[Any, Any]
    market: LendingMarket

    @property
    def id(self) -> str:
        """Method id, for example ``aave-v3.health_factor``."""
        return f"{self.adapter.name}.health_factor"

    def report(self, book: Book, row: int, prices: PriceSnapshot) -> MarginReport:
        """Return the exact margin of a row at the snapshot's prices.

        Prices are looked up under the keys of the adapter's `prices_base`. `UNKNOWN` when one that the
        account needs is unknown, and for an account that could not be read.
        """
        exact = book.exact[row]
        if exact is not None:
            return self.adapter.margin(self.market, exact, prices_base(prices, self.market.base_decimals))
        return MarginReport.unknown(
            book.accounts[row],
            self.adapter.name,
            self.id,
            block=book.block,
            timestamp=book.timestamp,
            base_decimals=self.market.base_decimals,
            reason="account could not be read",
        )


def prices_base(prices: PriceSnapshot, base_decimals: int) -> dict[str, int]:
    """Return the usable prices of a snapshot at a protocol's scale, rounded down."""
    scaled = {asset: prices.price_at(asset, base_decimals) for asset in prices.prices}
    return {asset: price for asset, price in scaled.items() if price is not None}
