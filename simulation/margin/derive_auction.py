"""Derive's Dutch auction of an account below its maintenance margin, solvent and insolvent.

Source: reference of the margin engines, section 1.4 (Derive v2 core contracts), verified by the venue's
published runs, which are solvent. What insolvent bids must hold, what ends an auction and what turns it
insolvent is read in derivexyz/v2-core at 7736900d, `DutchAuction.sol` (`_bidOnInsolventAuction`,
`getAuctionStatus`, `convertToInsolventAuction`), and not executed. Money is in dollars, time in seconds from
the start of the auction; a maintenance margin is net of equity. What has been paid for a part already is
*reserved* cash: it is not for sale.

An `Auction` needs to know two figures of an account only, its value and its maintenance margin: who says them
is its `Valuation`. `DeriveAuction` says them as the venue does, at one scenario of the account's manager.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Final, Protocol, get_args

from pydantic import Field, field_validator, model_validator

from contracts_abi.errors import InputError
from oracle.strict import StrictModel
from simulation.margin import margin_methods
from simulation.margin.derive_common import NotNegative, Share, by_name
from simulation.margin.derive_exact import decided_margin
from simulation.margin.derive_pmrm import DerivePmrm
from simulation.margin.derive_pmrm2 import DerivePmrm2, DerivePmrm21
from simulation.margin.derive_srm import DeriveSrm
from simulation.margin.result import Grade, MarginResult, Parameters, ScenarioRow
from simulation.portfolio.instruments import Portfolio
from simulation.portfolio.market import Market
from simulation.types import MarginStatus

Manager = DerivePmrm2 | DerivePmrm21 | DerivePmrm | DeriveSrm
"""The managers whose accounts are auctioned; a bidder's account must be under the same."""


class AuctionParameters(Parameters):
    """Parameters of the auction.

    Attributes
    ----------
    start_discount, fast_discount
        Share of the value that a bid pays at the start, and at the end of the fast phase; then it falls to 0.
    fast_s, slow_s
        Length of both phases, seconds.
    insolvent_s
        Time over which an insolvent auction's payout grows to all, seconds.
    fee_rate
        Share of what is for sale at the start that goes to the security module.
    buffer
        Share of the gap between value and maintenance margin that a liquidation restores beside it.
    mtm_cutoff
        An account worth less is sold whole.
    """

    start_discount: Share
    fast_discount: Share
    fast_s: NotNegative = Field(gt=0)
    slow_s: NotNegative = Field(gt=0)
    insolvent_s: NotNegative = Field(gt=0)
    fee_rate: Share
    buffer: Share
    mtm_cutoff: NotNegative = 0.0

    @model_validator(mode="after")
    def _falls(self) -> AuctionParameters:
        if self.fast_discount > self.start_discount:
            raise InputError(
                f"fast_discount {self.fast_discount} is above start_discount {self.start_discount}",
                fix="exchange them",
            )
        return self


MAINNET = AuctionParameters(
    start_discount=0.95,
    fast_discount=0.7,
    fast_s=900,
    slow_s=43_200,
    insolvent_s=3_600,
    fee_rate=0.1,
    buffer=0.15,
)
"""The deployment script's set; what cutoff it has is not known here, so that there is none."""

TEST = AuctionParameters(
    start_discount=0.98,
    fast_discount=0.8,
    fast_s=100,
    slow_s=14_400,
    insolvent_s=600,
    fee_rate=0.02,
    buffer=0.2,
)
"""The set of the contracts' own tests."""


# -------------------------------------------------------------------------------------------------- formulas


def discount_at(p: AuctionParameters, elapsed_s: float) -> float:
    """Return the share of the value that a bid pays, so long after the start."""
    if elapsed_s <= p.fast_s:
        return p.start_discount - (p.start_discount - p.fast_discount) * max(0.0, elapsed_s) / p.fast_s
    return p.fast_discount * max(0.0, 1 - (elapsed_s - p.fast_s) / p.slow_s)


def buffer_margin(p: AuctionParameters, mtm: float, mm: float) -> float:
    """Return the margin that a liquidation brings back to 0: maintenance and a part of the gap on top."""
    return mm + (mm - mtm) * p.buffer


def max_fraction(p: AuctionParameters, mtm: float, bm: float, discount: float, reserved: float) -> float:
    """Return the largest part of an account that may be sold, 0 to 1: what brings `bm` back to 0.

    Parameters
    ----------
    p
        The auction's parameters.
    mtm, bm
        Value and buffer margin now.
    discount
        As of `discount_at`.
    reserved
        Cash paid by earlier bids.
    """
    if mtm < p.mtm_cutoff:
        return 1.0
    need = min(bm, 0.0)
    for_sale = mtm * discount + reserved * (1 - discount)
    return min(1.0, need / (need - for_sale)) if need < 0 else 0.0


def liquidation_fee(p: AuctionParameters, mtm: float, mm: float) -> float:
    """Return what a solvent account pays the security module when its auction starts."""
    return max_fraction(p, mtm, buffer_margin(p, mtm, mm), 1.0, 0.0) * abs(mtm) * p.fee_rate


def solvent_price(mtm: float, reserved: float, discount: float) -> float:
    """Return what the whole account costs; a bid pays it times its part."""
    return max(0.0, (mtm - reserved) * discount)


def insolvent_payout(p: AuctionParameters, mtm: float, mm: float, elapsed_s: float) -> float:
    """Return what a bidder is paid for taking the whole account; the security module pays, then all do."""
    first, last = -min(mtm, 0.0), -min(mm, 0.0)
    return first + (last - first) * min(1.0, max(0.0, elapsed_s) / p.insolvent_s)


def cash_to_bid(price: float, bm: float, reserved: float, fraction: float) -> float:
    """Return the cash that a bidder in a solvent auction must hold: a part's price and its buffer margin."""
    return price * fraction + abs(bm - reserved) * fraction


def cash_to_bid_insolvent(mm: float, payout: float, fraction: float) -> float:
    """Return the cash that a bidder in an insolvent auction must hold.

    It is the maintenance margin of the part less what is paid out for it: nothing once the payout has grown
    to all.

    Parameters
    ----------
    mm
        Maintenance margin of the whole, net of equity.
    payout
        For the whole, as of `insolvent_payout`.
    fraction
        The part.
    """
    return (abs(mm) - payout) * fraction


def solvent_over(p: AuctionParameters, elapsed_s: float) -> bool:
    """Return whether a solvent auction's time is over: nothing can be bid for any more."""
    return elapsed_s >= p.fast_s + p.slow_s


def sell(portfolio: Portfolio, fraction: float, reserved: float, paid: float) -> Portfolio:
    """Return what is left of an account after a bid: reserved cash stays, the price comes in.

    Parameters
    ----------
    portfolio
        Before it.
    fraction
        Of everything that is not reserved.
    reserved
        Cash of earlier bids.
    paid
        Of this one.
    """
    left = 1 - fraction
    return portfolio.model_copy(
        update={
            "cash": (portfolio.cash - reserved) * left + reserved + paid,
            "positions": tuple(
                position.model_copy(
                    update={
                        "quantity": position.quantity * left,
                        "unrealised": position.unrealised * left,
                    }
                )
                for position in portfolio.positions
            ),
        }
    )


# --------------------------------------------------------------------------------------------- state machine

_HAS_MAINTENANCE: Final = "the account has its maintenance margin"


class Valuation(Protocol):
    """Who says what an account in an auction is worth, and under which parameters it is auctioned."""

    @property
    def parameters(self) -> AuctionParameters:
        """The auction's parameters."""
        ...

    def valued(self, portfolio: Portfolio, market: Market, scenario: int) -> tuple[float, float]:
        """Return an account's value, and its maintenance margin net of it, dollars.

        Raises
        ------
        InputError
            If something that it needs is unknown: an account of unknown value cannot be sold.
        """
        ...


@dataclass(frozen=True, slots=True)
class View:
    """An account in its auction at one moment.

    Attributes
    ----------
    mtm, mm, bm
        Value, maintenance margin and buffer margin, net of equity.
    fmax
        Largest part that a bid may take: everything when insolvent, nothing while nobody may bid.
    price
        What the whole costs; negative when the bidder is paid.
    may_end
        Why anybody may end the auction, and nobody bid; empty while nobody may.
    may_turn_insolvent
        Whether anybody may turn a solvent auction into an insolvent one.
    discount
        Share of the value that a bid pays in a solvent auction; 0 in an insolvent one.
    """

    mtm: float
    mm: float
    bm: float
    fmax: float
    price: float
    may_end: str = ""
    may_turn_insolvent: bool = False
    discount: float = 0.0


@dataclass(frozen=True, slots=True)
class Bid:
    """What a bid did.

    Attributes
    ----------
    before, after
        The account at this moment; what stays for sale behind it.
    fraction
        Part of the account as it was before, 0 to 1.
    of_original
        The same part of the account as it was at the start.
    paid
        By the bidder; negative when paid to the bidder.
    cash_needed
        What the bidder had to hold.
    """

    before: View
    after: View
    fraction: float
    of_original: float
    paid: float
    cash_needed: float


@dataclass(frozen=True, slots=True)
class Auction:
    """A running or ended auction; every step returns the next one.

    Attributes
    ----------
    method
        Its parameters, and who values the account.
    portfolio
        What the account still holds.
    scenario
        Place in the manager's list of the one scenario that the account is valued at; 0 where the valuation
        has none.
    start
        Unix seconds; of an auction that turned insolvent, when it did.
    insolvent
        Whether bidders are paid: it began without value, or its time was over with nobody bidding.
    fee
        Paid at the start.
    reserved
        Cash of earlier bids.
    left
        Part of the account not yet sold.
    live
        False after the bid that took all there was to take, and once it is ended.
    insolvent_mm
        What the account was short of its maintenance margin when it became insolvent, dollars.
    """

    method: Valuation
    portfolio: Portfolio
    scenario: int
    start: int
    insolvent: bool
    fee: float
    reserved: float = 0.0
    left: float = 1.0
    live: bool = True
    insolvent_mm: float = 0.0

    @classmethod
    def opened(
        cls, method: Valuation, portfolio: Portfolio, market: Market, scenario: int, mtm: float, mm: float
    ) -> Auction:
        """Return the auction of an account that is below its maintenance margin, its fee paid.

        Parameters
        ----------
        method
            Its parameters, and who values the account.
        portfolio, market
            The account, and prices and time at the start.
        scenario
            That the account is valued at.
        mtm, mm
            Value and maintenance margin at it.
        """
        if mtm <= 0:
            return cls(method, portfolio, scenario, market.timestamp, True, 0.0, insolvent_mm=max(0.0, -mm))
        fee = liquidation_fee(method.parameters, mtm, mm)
        left = portfolio.model_copy(update={"cash": portfolio.cash - fee})
        return cls(method, left, scenario, market.timestamp, False, fee)

    def view(self, market: Market) -> View:
        """Return the account at a market, whose timestamp is the time.

        Raises
        ------
        InputError
            If the auction is over, or the account cannot be valued.
        """
        if not self.live:
            raise InputError("the auction is over", fix="start another one")
        return self._seen(market)

    def _seen(self, market: Market) -> View:
        p = self.method.parameters
        elapsed = market.timestamp - self.start
        mtm, mm = self.method.valued(self.portfolio, market, self.scenario)
        bm = buffer_margin(p, mtm, mm)
        if self.insolvent:
            short = mm < 0
            payout = insolvent_payout(p, mtm, mm, elapsed) if short else 0.0
            return View(mtm, mm, bm, float(short), -payout, "" if short else _HAS_MAINTENANCE)
        over = solvent_over(p, elapsed)
        discount = 0.0 if over else discount_at(p, elapsed)
        price = solvent_price(mtm, self.reserved, discount)
        may_end = self._may_end(mtm, mm, bm, over=over)
        nobody = bool(may_end) or price <= 0
        return View(
            mtm,
            mm,
            bm,
            0.0 if nobody else max_fraction(p, mtm, bm, discount, self.reserved),
            price,
            may_end,
            # A value below the reserved cash has no price before the time is over: such an auction is ended.
            mm < 0 and price <= 0 and (over or self.reserved <= mtm),
            discount,
        )

    def _may_end(self, mtm: float, mm: float, bm: float, *, over: bool) -> str:
        """Return why anybody may end a solvent auction; empty where nobody may."""
        if over:
            return _HAS_MAINTENANCE if mm >= 0 else ""
        if mtm < 0:
            return "the account's value is below zero: end the auction, and another starts insolvent"
        if self.reserved >= mtm:
            return "the account's value is not above the cash that bids paid: end the auction"
        return "the account is above its buffer margin" if bm >= 0 else ""

    def cash_needed(self, now: View, fraction: float) -> float:
        """Return the cash that a bidder must hold for a part.

        Parameters
        ----------
        now
            The auction at the moment of the bid.
        fraction
            Part that is sold.
        """
        if self.insolvent:
            return cash_to_bid_insolvent(now.mm, -now.price, fraction)
        return cash_to_bid(now.price, now.bm, self.reserved, fraction)

    def bid(self, market: Market, want: float, *, bidder_cash: float | None = None) -> tuple[Auction, Bid]:
        """Return the auction after a bid for a part of what is left, and what the bid did.

        Parameters
        ----------
        market
            Prices and time.
        want
            Part of the account as it is now, above 0, at most 1; no more than the largest part is sold.
        bidder_cash
            What the bidder holds; not checked without it.

        Raises
        ------
        InputError
            If the part is none, the auction is over or may be ended, its time is over, or the bidder holds
            too little.
        """
        if not 0 < want <= 1:
            raise InputError(f"a bid for {want} of the account", fix="above 0, at most 1")
        before = self.view(market)
        if before.may_end:
            raise InputError(before.may_end, fix="terminate the auction; nobody may bid any more")
        if not self.insolvent and before.price <= 0:
            raise InputError("the time of the solvent auction is over", fix="turn it insolvent")
        fraction = min(want, before.fmax)
        needed = self.cash_needed(before, fraction)
        if bidder_cash is not None and bidder_cash < needed:
            raise InputError(f"the bidder holds {bidder_cash} of {needed}", fix="bid for less")
        paid = before.price * fraction
        # The payout goes with what is sold to the bidder: the account itself gets none of it.
        received = max(0.0, paid)
        after = replace(
            self,
            portfolio=sell(self.portfolio, fraction, self.reserved, received),
            reserved=self.reserved + received,
            left=self.left * (1 - fraction),
            live=fraction < before.fmax,
        )
        said = Bid(before, after._seen(market), fraction, fraction * self.left, paid, needed)
        return after, said

    def terminated(self, market: Market) -> Auction:
        """Return the auction as ended, where anybody may end it.

        That is where the account is healthy again: above its buffer margin in a solvent auction, above its
        maintenance margin in an insolvent one or once the time is over. A solvent auction may be ended, and
        started again, when the value falls below zero or is no more than the reserved cash.

        Raises
        ------
        InputError
            While it may not be ended, or where it is over.
        """
        now = self.view(market)
        if not now.may_end:
            by_mm = self.insolvent or solvent_over(self.method.parameters, market.timestamp - self.start)
            raise InputError(f"the account is short by {-(now.mm if by_mm else now.bm)}", fix="bid, or wait")
        return replace(self, live=False)

    def turned_insolvent(self, market: Market) -> Auction:
        """Return a solvent auction as an insolvent one that starts now; reserved cash is for sale again.

        Raises
        ------
        InputError
            While bids cost something, the maintenance margin is there, or it is no live solvent auction.
        """
        if not self.live or self.insolvent:
            state = "insolvent already" if self.live else "over"
            raise InputError(f"the auction is {state}", fix="only a solvent one turns insolvent")
        now = self.view(market)
        if not now.may_turn_insolvent:
            raise InputError(
                f"price {now.price}, maintenance margin {now.mm}: the auction stays solvent",
                fix=now.may_end or "bid, or wait until nothing is left of the price",
            )
        return replace(self, start=market.timestamp, insolvent=True, reserved=0.0, insolvent_mm=-now.mm)


@margin_methods.register("derive.auction")
class DeriveAuction(StrictModel):
    """Derive's Dutch auction: what an account below maintenance margin is sold for, over time and bid by bid.

    Attributes
    ----------
    parameters
        A set, or the name of one: ``mainnet`` or ``test``.
    manager
        The margin method of the account, as a table of its own keys; ``kind`` names it. Without, it is the
        first of ``derive.pmrm2``, ``derive.pmrm2.1``, ``derive.pmrm`` and ``derive.srm`` that has these keys.
    """

    kind: ClassVar[str] = "derive.auction"
    grade: ClassVar[Grade] = Grade.VECTORS
    source: ClassVar[str] = "Derive v2 core contracts, DutchAuction; reference of the margin engines 1.4"
    parameter_sets: ClassVar[Mapping[str, Parameters]] = {"mainnet": MAINNET, "test": TEST}

    parameters: AuctionParameters = MAINNET
    manager: Manager = DerivePmrm2()

    @field_validator("parameters", mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        return by_name(value, cls.parameter_sets)

    @field_validator("manager", mode="before")
    @classmethod
    def _by_kind(cls, value: Any) -> Any:
        """Build a table that names its method; one that names none is the first that its keys fit."""
        if not isinstance(value, Mapping) or "kind" not in value:
            return value
        found = margin_methods.build(value, where="manager")
        if not isinstance(found, Manager):
            raise InputError(
                f"{value['kind']}: its accounts are not auctioned",
                fix=f"one of {', '.join(one.kind for one in get_args(Manager))}",
            )
        return found

    def hash_with(self, managers: str) -> str:
        """Return the hash that stands in results: of the auction's parameters and of the manager's.

        Parameters
        ----------
        managers
            The hash of the manager's parameters that hold for the account.
        """
        text = f"{self.parameters.hash} {self.manager.kind} {managers}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def valued(self, portfolio: Portfolio, market: Market, scenario: int) -> tuple[float, float]:
        """Return value and maintenance margin as an auction sees them: at one scenario of the manager.

        Raises
        ------
        InputError
            If a price is missing or no number, or there is no such scenario.
        """
        result = self._manager_at(scenario, portfolio).margin(portfolio, market)
        if result.status is MarginStatus.UNKNOWN:
            raise _unvalued(result)
        return result.equity, result.maintenance

    def _manager_at(self, scenario: int, portfolio: Portfolio) -> Manager:
        manager = self.manager
        return (
            manager if isinstance(manager, DeriveSrm) else manager.only_scenario(scenario, portfolio.account)
        )

    def _decided(self, portfolio: Portfolio, market: Market, scenario: int) -> MarginResult:
        """Return an account's margin at one scenario; at the edge integers say its status."""
        return decided_margin(self._manager_at(scenario, portfolio), portfolio, market)[0]

    def worst_scenario(self, portfolio: Portfolio, market: Market) -> int:
        """Return the scenario with the largest loss; the contract lets anybody choose it, and a worse one."""
        return _worst(self.manager.margin(portfolio, market))

    def start(self, portfolio: Portfolio, market: Market, *, scenario: int | None = None) -> Auction:
        """Return the auction of an account, its fee paid.

        Parameters
        ----------
        portfolio, market
            The account, and prices and time at the start.
        scenario
            Place in the manager's list; the worst without it.

        Raises
        ------
        InputError
            If the account is not below its maintenance margin, or cannot be valued.
        """
        chosen = self.worst_scenario(portfolio, market) if scenario is None else scenario
        at = self._decided(portfolio, market, chosen)
        if at.status is MarginStatus.UNKNOWN:
            raise _unvalued(at)
        if at.status is not MarginStatus.LIQUIDATABLE:
            raise InputError(f"{portfolio.account} has its maintenance margin", fix="no auction can start")
        return Auction.opened(self, portfolio, market, chosen, at.equity, at.maintenance)

    def margin(self, portfolio: Portfolio, market: Market) -> MarginResult:
        """Return what a liquidation would start from: buffer margin as initial, maintenance as maintenance.

        Raises
        ------
        InputError
            As the account's manager raises. A price that is missing or no number makes the result unknown,
            and so does an edge that integers cannot decide.

        Notes
        -----
        Reference of the margin engines, section 1.4. The price is that of the whole account at the start, its
        fee not taken off.
        """
        whole = self.manager.margin(portfolio, market)
        at = whole
        if whole.status is not MarginStatus.UNKNOWN:
            at = self._decided(portfolio, market, _worst(whole))
        if at.status is MarginStatus.UNKNOWN:
            name = self.hash_with(whole.parameters_hash)
            return MarginResult.unknown(portfolio.account, self.kind, name, at.reason)
        mtm, mm = at.equity, at.maintenance
        p, bm = self.parameters, buffer_margin(self.parameters, mtm, mm)
        sold = at.status is MarginStatus.LIQUIDATABLE
        solvent = sold and mtm > 0
        price = solvent_price(mtm, 0.0, p.start_discount) if solvent else 0.0
        fmax = max_fraction(p, mtm, bm, p.start_discount, 0.0) if sold else 0.0
        return replace(
            whole,
            method=self.kind,
            parameters_hash=self.hash_with(whole.parameters_hash),
            status=at.status,
            initial_requirement=mtm - bm,
            maintenance_requirement=mtm - mm,
            scenarios=tuple(ScenarioRow(row.label, row.profit) for row in whole.scenarios),
            components={
                **whole.components,
                "buffer_margin": bm,
                "max_fraction": 1.0 if sold and not solvent else fmax,
                "bid_price": price,
                "liquidation_fee": liquidation_fee(p, mtm, mm) if solvent else 0.0,
                "insolvent_payout": insolvent_payout(p, mtm, mm, 0.0) if sold and not solvent else 0.0,
            },
        )


def _worst(result: MarginResult) -> int:
    """Return the place of the scenario with the largest loss; 0 for a manager without."""
    rows = result.scenarios
    return min(range(len(rows)), key=lambda i: rows[i].profit, default=0)


def _unvalued(result: MarginResult) -> InputError:
    return InputError(f"{result.account} cannot be valued: {result.reason}", fix="give what is missing")
