"""Options accounts as the rest of the program finds them by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from simulation.margin.derive_auction import MAINNET, AuctionParameters, DeriveAuction
from simulation.margin.result import PortfolioMethod
from simulation.portfolio.instruments import Portfolio
from simulation.portfolio.market import Market
from simulation.protocols.models import Founded, protocol_models
from simulation.protocols.options_account import auction
from simulation.protocols.options_account.auction import AuctionState, AuctionView, Booked
from simulation.protocols.options_account.columns import Columns, columns_of
from simulation.types import MarginStatus


@protocol_models.register("options-account")
@dataclass(frozen=True, slots=True)
class OptionsAccount:
    """An options account under any margin method, liquidated by Derive's Dutch auction.

    Attributes
    ----------
    method
        The margin method; with ``derive.auction`` accounts are valued at one scenario of its manager, as the
        contract does, with any other by the whole method.
    parameters
        The auction's; None takes those of a ``derive.auction`` method, and mainnet's with any other.
    kind, founded, source
        Its name, what it was held against, and where the rules were read.
    """

    kind: ClassVar[Literal["options-account"]] = "options-account"
    founded: ClassVar[Founded] = Founded.READ
    source: ClassVar[str] = "derivexyz/v2-core at 182f24a9, src/liquidation/DutchAuction.sol"

    method: PortfolioMethod
    parameters: AuctionParameters | None = None

    @property
    def auction_parameters(self) -> AuctionParameters:
        """The auction's parameters that hold."""
        if self.parameters is not None:
            return self.parameters
        return self.method.parameters if isinstance(self.method, DeriveAuction) else MAINNET

    def status(self, market: Market, account: Portfolio) -> MarginStatus:
        """Return what the margin method says; `UNKNOWN` where something that it needs is missing."""
        return self.method.margin(account, market).status

    def columns(self, market: Market, accounts: Sequence[Portfolio]) -> Columns:
        """Return the accounts' margins as float columns."""
        return columns_of(self.method, market, accounts)

    def start(self, market: Market, account: Portfolio) -> tuple[AuctionState, Booked]:
        """Start an auction; see `auction.start`."""
        return auction.start(self.method, self.auction_parameters, market, account)

    def view(self, market: Market, state: AuctionState) -> AuctionView:
        """Return price, largest part and what may be done; see `auction.view`."""
        return auction.view(self.method, self.auction_parameters, market, state)

    def bid(
        self,
        market: Market,
        state: AuctionState,
        want: float,
        *,
        security_module: float = 0.0,
        bidder_cash: float | None = None,
    ) -> tuple[AuctionState, Booked]:
        """Bid for a part; see `auction.bid`."""
        return auction.bid(
            self.method,
            self.auction_parameters,
            market,
            state,
            want,
            security_module=security_module,
            bidder_cash=bidder_cash,
        )

    def end(self, market: Market, state: AuctionState) -> AuctionState:
        """End an auction that may be ended; see `auction.end`."""
        return auction.end(self.method, self.auction_parameters, market, state)

    def turn_insolvent(self, market: Market, state: AuctionState) -> AuctionState:
        """Turn an auction insolvent that has no price any more; see `auction.turn_insolvent`."""
        return auction.turn_insolvent(self.method, self.auction_parameters, market, state)
