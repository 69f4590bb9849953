"""Who pays whom in Derive's Dutch auction, over an account under any margin method.

What a bid costs, who may bid, and what ends an auction or turns it insolvent, says the `Auction` of
`simulation.margin.derive_auction`. Here its steps become payments that an engine can book: the fee and what
is bid go through the account, an insolvent account's bidder is paid by the security module, and what that has
not got is taken from all holders of cash (derivexyz/v2-core at 7736900d, `DutchAuction.sol` and `executeBid`
of `BaseManager.sol`, read and not executed).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from contracts_abi.errors import InputError
from simulation.margin.derive_auction import Auction, AuctionParameters, Valuation
from simulation.margin.result import MarginResult, PortfolioMethod
from simulation.portfolio.instruments import Portfolio, Position
from simulation.portfolio.market import Market
from simulation.types import MarginStatus


class Party(StrEnum):
    """Who pays and who is paid."""

    ACCOUNT = "account"
    BIDDER = "bidder"
    SECURITY_MODULE = "security module"
    CASH_HOLDERS = "cash holders"


@dataclass(frozen=True, slots=True)
class Flow:
    """One payment.

    Attributes
    ----------
    payer, payee
        Who pays whom.
    cash
        Dollars, above 0.
    what
        What for, in a word or two.
    """

    payer: Party
    payee: Party
    cash: float
    what: str


@dataclass(frozen=True, slots=True)
class Booked:
    """What one step of an auction did.

    Attributes
    ----------
    flows
        Payments in their order.
    positions
        What the bidder took over, as positions of the account's kind; empty without a bid.
    fraction
        Part of what was for sale, 0 without a bid.
    """

    flows: tuple[Flow, ...]
    positions: tuple[Position, ...] = ()
    fraction: float = 0.0

    def net(self, party: Party) -> float:
        """Return what a party has more, dollars of cash."""
        got = sum(flow.cash for flow in self.flows if flow.payee is party)
        return got - sum(flow.cash for flow in self.flows if flow.payer is party)


class AuctionRules(Valuation, Protocol):
    """A valuation that also says who is put up for auction."""

    def start(self, portfolio: Portfolio, market: Market) -> Auction:
        """Return the auction of an account below its maintenance margin, its fee paid.

        Raises
        ------
        InputError
            If the account is not below its maintenance margin, or cannot be valued.
        """
        ...


@dataclass(frozen=True, slots=True)
class WholeMethod:
    """Auctions of accounts under a method that has none of its own: they are valued by the whole method.

    Attributes
    ----------
    method
        The margin method.
    parameters
        The auction's.
    """

    method: PortfolioMethod
    parameters: AuctionParameters

    def valued(self, portfolio: Portfolio, market: Market, scenario: int) -> tuple[float, float]:
        """Return an account's value and maintenance margin, dollars; there are no scenarios to choose from.

        Raises
        ------
        InputError
            If something that it needs is unknown.
        """
        result = self._known(portfolio, market)
        return result.equity, result.maintenance

    def start(self, portfolio: Portfolio, market: Market) -> Auction:
        """Return the auction of an account; see `AuctionRules.start`."""
        result = self._known(portfolio, market)
        if result.status is not MarginStatus.LIQUIDATABLE:
            raise InputError(f"{portfolio.account} has its maintenance margin", fix="no auction can start")
        return Auction.opened(self, portfolio, market, 0, result.equity, result.maintenance)

    def _known(self, portfolio: Portfolio, market: Market) -> MarginResult:
        result = self.method.margin(portfolio, market)
        if result.status is MarginStatus.UNKNOWN:
            raise InputError(
                f"{portfolio.account} cannot be valued: {result.reason}", fix="give what is missing"
            )
        return result


def start(rules: AuctionRules, market: Market, account: Portfolio) -> tuple[Auction, Booked]:
    """Return the auction of an account below its maintenance margin, and the fee that it paid.

    Parameters
    ----------
    rules
        Who values the account, and under which parameters.
    market
        Prices; its timestamp is the start.
    account
        What the account holds.

    Raises
    ------
    InputError
        If the account is not below its maintenance margin, or cannot be valued.
    """
    auction = rules.start(account, market)
    fee = (Party.ACCOUNT, Party.SECURITY_MODULE, auction.fee, "liquidation fee")
    return auction, Booked(_flows(fee))


def bid(
    auction: Auction,
    market: Market,
    want: float,
    *,
    security_module: float = 0.0,
    bidder_cash: float | None = None,
) -> tuple[Auction, Booked]:
    """Return the auction after a bid for a part of what is left, and what it moved.

    Parameters
    ----------
    auction, market, want, bidder_cash
        As of `Auction.bid`.
    security_module
        Its balance, dollars: what it lacks of a payout, all holders of cash bear.

    Raises
    ------
    InputError
        If the balance is negative, or nobody may bid so, see `Auction.bid`.
    """
    if security_module < 0:
        raise InputError(f"security_module {security_module} is negative", fix="give its balance")
    after, said = auction.bid(market, want, bidder_cash=bidder_cash)
    received, payout = max(0.0, said.paid), max(0.0, -said.paid)
    covered = min(payout, security_module)
    cash_taken = (auction.portfolio.cash - auction.reserved) * said.fraction
    flows = _flows(
        (Party.BIDDER, Party.ACCOUNT, received, "bid"),
        (Party.SECURITY_MODULE, Party.BIDDER, covered, "payout"),
        (Party.CASH_HOLDERS, Party.BIDDER, payout - covered, "socialised loss"),
        (Party.ACCOUNT, Party.BIDDER, cash_taken, "cash for sale"),
        (Party.BIDDER, Party.ACCOUNT, -cash_taken, "debt taken over"),
    )
    positions = tuple(
        p.model_copy(
            update={"quantity": p.quantity * said.fraction, "unrealised": p.unrealised * said.fraction}
        )
        for p in auction.portfolio.positions
    )
    return after, Booked(flows, positions, said.fraction)


def _flows(*payments: tuple[Party, Party, float, str]) -> tuple[Flow, ...]:
    """Return the payments that are above 0."""
    return tuple(Flow(*payment) for payment in payments if payment[2] > 0)


def withdrawals_blocked(auctions: Sequence[Auction], security_module: float) -> bool:
    """Return whether all withdrawals of cash stop: insolvent accounts lack more than the module holds."""
    lacking = sum(auction.insolvent_mm for auction in auctions if auction.live)
    return lacking > 0 and lacking > security_module
