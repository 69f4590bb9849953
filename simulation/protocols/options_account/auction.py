"""Derive's Dutch auction over an account under any margin method, with every payment it makes.

The formulas are those of `simulation.margin.derive_auction`, which the venue's published runs verify; what is
added here is the order of events of its `DutchAuction` contract (derivexyz/v2-core at 182f24a9, read, not
executed) and who pays whom, so that an engine can book it. A solvent auction ends when the buffer margin is
restored; when the account's value falls below zero, or below the cash that earlier bids paid, it ends too and
may be started again; when its time is over with nobody bidding it turns insolvent: then the security module
pays bidders, and what it has not got is taken from all holders of cash.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from contracts_abi.errors import InputError
from simulation.margin.derive_auction import (
    AuctionParameters,
    DeriveAuction,
    buffer_margin,
    cash_to_bid,
    discount_at,
    insolvent_payout,
    liquidation_fee,
    max_fraction,
    sell,
    solvent_price,
)
from simulation.margin.result import PortfolioMethod
from simulation.portfolio.instruments import Portfolio, Position
from simulation.portfolio.market import Market
from simulation.types import MarginStatus


class Party(StrEnum):
    """Who pays and who is paid."""

    ACCOUNT = "account"
    BIDDER = "bidder"
    SECURITY_MODULE = "security module"
    CASH_HOLDERS = "cash holders"


class Phase(StrEnum):
    """Where an auction is."""

    SOLVENT = "solvent"
    INSOLVENT = "insolvent"
    ENDED = "ended"


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


@dataclass(frozen=True, slots=True)
class AuctionState:
    """An account in its auction; every step returns the next one.

    Attributes
    ----------
    account
        What it still holds.
    phase
        Where the auction is.
    started
        Unix seconds of the phase's start.
    scenario
        The manager's scenario that the account is valued at, for Derive's own methods; 0 otherwise.
    reserved
        Cash that earlier bids of this auction paid in, which is not for sale.
    left
        Part of the account at the start that is not sold.
    insolvent_maintenance
        What the account was short of when it became insolvent, dollars; see `withdrawals_blocked`.
    """

    account: Portfolio
    phase: Phase
    started: int
    scenario: int = 0
    reserved: float = 0.0
    left: float = 1.0
    insolvent_maintenance: float = 0.0


@dataclass(frozen=True, slots=True)
class AuctionView:
    """An auction at one moment.

    Attributes
    ----------
    value, maintenance, buffer
        Value of the account; what is left of it after the maintenance requirement and after the buffer's.
    discount
        Share of the value that a bid pays in a solvent auction; 0 in an insolvent one.
    price
        What the whole costs; negative when the bidder is paid.
    most
        Largest part that one bid may take.
    may_end
        Whether anybody may end the auction now; then nobody may bid.
    may_turn_insolvent
        Whether anybody may turn it into an insolvent one.
    """

    value: float
    maintenance: float
    buffer: float
    discount: float
    price: float
    most: float
    may_end: bool
    may_turn_insolvent: bool


def valued(method: PortfolioMethod, account: Portfolio, market: Market, scenario: int) -> tuple[float, float]:
    """Return an account's value, and what is left of it after the maintenance requirement, dollars.

    Raises
    ------
    InputError
        If something that it needs is unknown: an account of unknown value cannot be sold.
    """
    if isinstance(method, DeriveAuction):
        return method.valued(account, market, scenario)
    result = method.margin(account, market)
    if result.status is MarginStatus.UNKNOWN:
        raise InputError(f"{account.account} cannot be valued: {result.reason}", fix="give the price")
    return result.equity, result.maintenance


def start(
    method: PortfolioMethod, parameters: AuctionParameters, market: Market, account: Portfolio
) -> tuple[AuctionState, Booked]:
    """Return the auction of an account below its maintenance margin, and the fee that it paid.

    Parameters
    ----------
    method
        Margin method of the account.
    parameters
        Of the auction.
    market
        Prices; its timestamp is the start.
    account
        What the account holds.

    Raises
    ------
    InputError
        If the account is not below its maintenance margin, or cannot be valued.
    """
    if isinstance(method, DeriveAuction):
        scenario = method.start(
            account, market
        ).scenario  # at the edge its integers say whether one may start
        value, maintenance = valued(method, account, market, scenario)
    else:
        scenario = 0
        value, maintenance = valued(method, account, market, scenario)
        if maintenance >= 0:
            raise InputError(f"{account.account} has its maintenance margin", fix="no auction can start")
    if value <= 0:
        state = AuctionState(
            account, Phase.INSOLVENT, market.timestamp, scenario, insolvent_maintenance=-maintenance
        )
        return state, Booked(())
    fee = liquidation_fee(parameters, value, maintenance)
    flows = _flows((Party.ACCOUNT, Party.SECURITY_MODULE, fee, "liquidation fee"))
    left = account.model_copy(update={"cash": account.cash - fee})
    return AuctionState(left, Phase.SOLVENT, market.timestamp, scenario), Booked(flows)


def view(
    method: PortfolioMethod, parameters: AuctionParameters, market: Market, state: AuctionState
) -> AuctionView:
    """Return the auction at a market, whose timestamp is the time.

    Raises
    ------
    InputError
        If the auction is over, or the account cannot be valued.
    """
    if state.phase is Phase.ENDED:
        raise InputError("the auction is over", fix="start another one")
    value, maintenance = valued(method, state.account, market, state.scenario)
    buffer = buffer_margin(parameters, value, maintenance)
    elapsed = market.timestamp - state.started
    if state.phase is Phase.INSOLVENT:
        short = maintenance < 0
        price = -insolvent_payout(parameters, value, maintenance, elapsed) if short else 0.0
        return AuctionView(value, maintenance, buffer, 0.0, price, 1.0 if short else 0.0, not short, False)
    over = elapsed >= parameters.fast_s + parameters.slow_s
    discount = 0.0 if over else discount_at(parameters, elapsed)
    price = solvent_price(value, state.reserved, discount)
    if over:
        may_end = maintenance >= 0
    else:
        may_end = value < 0 or state.reserved >= value or buffer >= 0
    return AuctionView(
        value=value,
        maintenance=maintenance,
        buffer=buffer,
        discount=discount,
        price=price,
        most=0.0 if may_end else max_fraction(parameters, value, buffer, discount, state.reserved),
        may_end=may_end,
        may_turn_insolvent=maintenance < 0 and (over or state.reserved <= value) and price <= 0,
    )


def bid(
    method: PortfolioMethod,
    parameters: AuctionParameters,
    market: Market,
    state: AuctionState,
    want: float,
    *,
    security_module: float = 0.0,
    bidder_cash: float | None = None,
) -> tuple[AuctionState, Booked]:
    """Return the auction after a bid for a part of what is left, and what it moved.

    Parameters
    ----------
    method, parameters, market, state
        As of `view`.
    want
        Part of the account as it is now, above 0, at most 1; no more than the largest part is sold.
    security_module
        Its balance, dollars: what it lacks of a payout, all holders of cash bear.
    bidder_cash
        What the bidder holds; not checked without it.

    Raises
    ------
    InputError
        If the auction is over or may be ended, the part is none, or the bidder holds too little.
    """
    if not 0 < want <= 1:
        raise InputError(f"a bid for {want} of the account", fix="above 0, at most 1")
    if security_module < 0:
        raise InputError(f"security_module {security_module} is negative", fix="give its balance")
    now = view(method, parameters, market, state)
    if now.may_end:
        raise InputError("the auction may be ended", fix="end it; nobody may bid any more")
    insolvent = state.phase is Phase.INSOLVENT
    if not insolvent and now.price <= 0:
        raise InputError("the solvent auction is over", fix="turn it insolvent")
    fraction = min(want, now.most)
    if insolvent:
        needed = (abs(now.maintenance) + now.price) * fraction
    else:
        needed = cash_to_bid(now.price, now.buffer, state.reserved, fraction)
    if bidder_cash is not None and bidder_cash < needed:
        raise InputError(f"the bidder holds {bidder_cash} of {needed}", fix="bid for less")
    paid = now.price * fraction
    received, payout = max(0.0, paid), max(0.0, -paid)
    covered = min(payout, security_module)
    cash_taken = (state.account.cash - state.reserved) * fraction
    flows = _flows(
        (Party.BIDDER, Party.ACCOUNT, received, "bid"),
        (Party.SECURITY_MODULE, Party.BIDDER, covered, "payout"),
        (Party.CASH_HOLDERS, Party.BIDDER, payout - covered, "socialised loss"),
        (Party.ACCOUNT, Party.BIDDER, cash_taken, "cash for sale"),
        (Party.BIDDER, Party.ACCOUNT, -cash_taken, "debt taken over"),
    )
    positions = tuple(
        p.model_copy(update={"quantity": p.quantity * fraction, "unrealised": p.unrealised * fraction})
        for p in state.account.positions
    )
    ended = fraction == 1.0 if insolvent else want >= now.most
    after = replace(
        state,
        account=sell(state.account, fraction, state.reserved, received),
        reserved=state.reserved + received,
        left=state.left * (1 - fraction),
        phase=Phase.ENDED if ended else state.phase,
    )
    return after, Booked(flows, positions, fraction)


def _flows(*payments: tuple[Party, Party, float, str]) -> tuple[Flow, ...]:
    """Return the payments that are above 0."""
    return tuple(Flow(*payment) for payment in payments if payment[2] > 0)


def end(
    method: PortfolioMethod, parameters: AuctionParameters, market: Market, state: AuctionState
) -> AuctionState:
    """Return the auction as ended, where anybody may end it (`terminateAuction`).

    Raises
    ------
    InputError
        While it may not be ended, or where it is over.
    """
    now = view(method, parameters, market, state)
    if not now.may_end:
        raise InputError(f"the account is short by {-min(now.maintenance, now.buffer)}", fix="bid, or wait")
    return replace(state, phase=Phase.ENDED)


def turn_insolvent(
    method: PortfolioMethod, parameters: AuctionParameters, market: Market, state: AuctionState
) -> AuctionState:
    """Return a solvent auction whose price has fallen to nothing as an insolvent one, which starts now.

    Cash that bids paid in is for sale from here on (`convertToInsolventAuction`).

    Raises
    ------
    InputError
        While bids still cost something, the maintenance margin is there, or the auction is no solvent one.
    """
    if state.phase is not Phase.SOLVENT:
        raise InputError(f"the auction is {state.phase.value}", fix="only a solvent one turns insolvent")
    now = view(method, parameters, market, state)
    if not now.may_turn_insolvent:
        raise InputError(
            f"price {now.price}, maintenance margin {now.maintenance}, reserved cash {state.reserved}",
            fix="the price must be 0 and the margin short; a value below the cash ends the auction instead",
        )
    return replace(
        state,
        phase=Phase.INSOLVENT,
        started=market.timestamp,
        reserved=0.0,
        insolvent_maintenance=-now.maintenance,
    )


def withdrawals_blocked(auctions: Sequence[AuctionState], security_module: float) -> bool:
    """Return whether all withdrawals of cash stop: insolvent accounts lack more than the module holds."""
    lacking = sum(a.insolvent_maintenance for a in auctions if a.phase is Phase.INSOLVENT)
    return lacking > 0 and lacking > security_module
