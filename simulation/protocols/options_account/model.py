"""Options accounts as the rest of the program finds them by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from simulation.margin.derive_auction import MAINNET, Auction, AuctionParameters, DeriveAuction, View
from simulation.margin.result import PortfolioMethod
from simulation.portfolio.instruments import Portfolio
from simulation.portfolio.market import Market
from simulation.protocols.models import Founded, protocol_models
from simulation.protocols.options_account import auction
from simulation.protocols.options_account.auction import AuctionRules, Booked, WholeMethod
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
    source: ClassVar[str] = "derivexyz/v2-core at 7736900d, src/liquidation/DutchAuction.sol"

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

    @property
    def rules(self) -> AuctionRules:
        """Who values accounts in their auctions, and under which parameters."""
        parameters = self.auction_parameters
        if not isinstance(self.method, DeriveAuction):
            return WholeMethod(self.method, parameters)
        if parameters is self.method.parameters:
            return self.method
        return self.method.model_copy(update={"parameters": parameters})

    def start(self, market: Market, account: Portfolio) -> tuple[Auction, Booked]:
        """Start an auction; see `auction.start`."""
        return auction.start(self.rules, market, account)

    def view(self, market: Market, state: Auction) -> View:
        """Return price, largest part and what may be done; see `Auction.view`."""
        return state.view(market)

    def bid(
        self,
        market: Market,
        state: Auction,
        want: float,
        *,
        security_module: float = 0.0,
        bidder_cash: float | None = None,
    ) -> tuple[Auction, Booked]:
        """Bid for a part; see `auction.bid`."""
        return auction.bid(state, market, want, security_module=security_module, bidder_cash=bidder_cash)

    def end(self, market: Market, state: Auction) -> Auction:
        """End an auction that may be ended; see `Auction.terminated`."""
        return state.terminated(market)

    def turn_insolvent(self, market: Market, state: Auction) -> Auction:
        """Turn an auction insolvent that has no price any more; see `Auction.turned_insolvent`."""
        return state.turned_insolvent(market)
