"""Options accounts in their auction: who is paid what, when it ends, and that nothing is lost on the way."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from contracts_abi.errors import InputError
from simulation.margin import derive_auction, derive_pmrm
from simulation.margin.baselines import Cross
from simulation.margin.derive_auction import Auction, DeriveAuction
from simulation.margin.derive_pmrm import DerivePmrm
from simulation.margin.result import MarginResult
from simulation.portfolio.instruments import Option, Portfolio, Position
from simulation.portfolio.market import Expiry, Market, Underlying
from simulation.protocols.options_account import (
    Booked,
    OptionsAccount,
    Party,
    withdrawals_blocked,
)
from simulation.types import MarginStatus

EXPIRY = 60 * 86_400
DERIVE = OptionsAccount(DeriveAuction(parameters="test", manager=DerivePmrm(parameters=derive_pmrm.TEST)))
PLAIN = OptionsAccount(Cross(), derive_auction.TEST)
each_model = pytest.mark.parametrize("model", [DERIVE, PLAIN], ids=lambda m: m.method.kind)
P = derive_auction.TEST


def market(spot: float = 2_000.0, at: int = 0) -> Market:
    """Return ether with one expiry."""
    expiry = Expiry(forward=spot * 1.01, rate=0.05, volatility=0.7)
    ether = Underlying(spot=spot, perpetual=spot, expiries={EXPIRY: expiry})
    return Market(timestamp=at, underlyings={"ETH": ether})


def short_calls(cash: float, amount: float = -4.0) -> Portfolio:
    """Return who has sold calls."""
    call = Option(underlying="ETH", expiry=EXPIRY, strike=2_000.0, call=True)
    return Portfolio(account="seller", cash=cash, positions=(Position(instrument=call, quantity=amount),))


def quantity(positions: tuple[Position, ...]) -> float:
    """Return the number of calls."""
    return sum(p.quantity for p in positions)


def conserved(before: Auction, after: Auction, booked: Booked) -> None:
    """Check that what leaves the account arrives somewhere, and that every payment has two ends."""
    assert sum(booked.net(party) for party in Party) == pytest.approx(0, abs=1e-9)
    assert after.portfolio.cash - before.portfolio.cash == pytest.approx(booked.net(Party.ACCOUNT), abs=1e-9)
    moved = quantity(before.portfolio.positions) - quantity(after.portfolio.positions)
    assert moved == pytest.approx(quantity(booked.positions), abs=1e-12)
    assert all(flow.cash > 0 for flow in booked.flows)


def value(model: OptionsAccount, now: Market, account: Portfolio) -> float:
    """Return an account's value."""
    return float(model.method.margin(account, now).equity)


def broke_cash(model: OptionsAccount) -> float:
    """Return cash with which the account is worth 200 dollars less than nothing."""
    return -200.0 - value(model, market(), short_calls(0.0))


def thin_cash(model: OptionsAccount) -> float:
    """Return cash with which the account is worth 500 dollars: less than any margin of four short calls."""
    return 500.0 - value(model, market(), short_calls(0.0))


@each_model
def test_status_is_the_margin_methods(model: OptionsAccount) -> None:
    assert model.status(market(), short_calls(50_000)) is MarginStatus.HEALTHY
    assert model.status(market(), short_calls(thin_cash(model))) is MarginStatus.LIQUIDATABLE
    assert model.status(Market(), short_calls(50_000)) is MarginStatus.UNKNOWN
    with pytest.raises(InputError, match="no auction can start"):
        model.start(market(), short_calls(50_000))
    with pytest.raises(InputError, match="cannot be valued"):
        model.start(Market(), short_calls(0))


@each_model
def test_a_solvent_account_pays_a_fee_and_is_sold_until_its_buffer_is_back(model: OptionsAccount) -> None:
    account = short_calls(thin_cash(model))
    state, booked = model.start(market(), account)
    assert state.live
    assert not state.insolvent
    (fee,) = booked.flows
    assert (fee.payer, fee.payee) == (Party.ACCOUNT, Party.SECURITY_MODULE)
    assert state.portfolio.cash == pytest.approx(account.cash - fee.cash)
    # 2 % of the part that could be sold at full price
    assert 0 < fee.cash <= 0.02 * 500

    now = market(at=50)
    view = model.view(now, state)
    assert view.discount == pytest.approx(0.89)
    assert view.price == pytest.approx(0.89 * view.mtm)
    assert not view.may_end
    with pytest.raises(InputError, match="short by"):
        model.end(now, state)

    after, booked = model.bid(now, state, view.fmax / 2)
    conserved(state, after, booked)
    assert after.live
    assert after.reserved == pytest.approx(view.price * view.fmax / 2)
    assert booked.net(Party.SECURITY_MODULE) == booked.net(Party.CASH_HOLDERS) == 0
    # The bidder gets a part of the value and pays 89 % of it.
    got = Portfolio(cash=booked.net(Party.BIDDER), positions=booked.positions)
    gain = booked.fraction * (view.mtm - state.reserved) * 0.11
    if model is PLAIN:  # Derive's value includes one scenario's discount, which is not a sum over parts
        assert value(model, now, got) == pytest.approx(gain)

    last, booked = model.bid(now, after, 1.0)
    conserved(after, last, booked)
    assert not last.live
    left = model.view(now, replace(last, live=True, reserved=0.0))
    assert left.bm == pytest.approx(0, abs=1e-6)
    assert 0 < last.left < 1
    with pytest.raises(InputError, match="over"):
        model.bid(now, last, 0.5)
    with pytest.raises(InputError, match="over"):
        model.view(now, last)


def test_an_auction_is_the_methods_own_and_every_step_of_it_is_booked() -> None:
    """What the venue's runs verify is what is booked: no second auction stands beside it."""
    method = DERIVE.method
    assert isinstance(method, DeriveAuction)
    state, booked = DERIVE.start(market(), short_calls(thin_cash(DERIVE)))
    assert state == method.start(short_calls(thin_cash(DERIVE)), market())
    assert booked.net(Party.SECURITY_MODULE) == state.fee
    for at, want in ((60, 0.05), (200, 0.07), (5_000, 1.0)):
        now = market(at=at)
        known, said = state.bid(now, want)
        state, booked = DERIVE.bid(now, state, want)
        assert state == known
        assert booked.fraction == said.fraction
        assert next(flow.cash for flow in booked.flows if flow.what == "bid") == said.paid
    assert not state.live


def test_parameters_of_ones_own_hold_for_the_methods_auction_too() -> None:
    own = OptionsAccount(DERIVE.method, derive_auction.MAINNET)
    state, booked = own.start(market(), short_calls(thin_cash(DERIVE)))
    _, with_test = DERIVE.start(market(), short_calls(thin_cash(DERIVE)))
    assert booked.flows[0].cash > 4 * with_test.flows[0].cash > 0  # 10 % instead of 2 %
    assert own.view(market(), state).discount == 0.95
    assert own.rules.parameters is derive_auction.MAINNET


@each_model
def test_an_insolvent_account_draws_on_the_security_module_and_then_on_everybody(
    model: OptionsAccount,
) -> None:
    account = short_calls(broke_cash(model))
    state, booked = model.start(market(), account)
    assert (state.insolvent, booked.flows) == (True, ())
    maintenance = model.view(market(), state).mm
    assert state.insolvent_mm == pytest.approx(-maintenance)
    assert withdrawals_blocked([state], -maintenance - 1)
    assert not withdrawals_blocked([state], -maintenance + 1)

    # Half of the time: half of the way from what is missing to the maintenance margin.
    now = market(at=P_INSOLVENT_HALF)
    view = model.view(now, state)
    assert view.price == pytest.approx((view.mtm + view.mm) / 2)
    after, booked = model.bid(now, state, 0.5, security_module=40.0)
    conserved(state, after, booked)
    payout = -view.price / 2
    assert booked.net(Party.SECURITY_MODULE) == -40.0
    assert booked.net(Party.CASH_HOLDERS) == pytest.approx(-(payout - 40.0))
    assert after.live
    assert after.portfolio.cash == pytest.approx(account.cash / 2)

    last, booked = model.bid(now, after, 1.0, security_module=1e6)
    conserved(after, last, booked)
    assert booked.net(Party.CASH_HOLDERS) == 0
    assert not last.live
    assert (last.portfolio.cash, quantity(last.portfolio.positions)) == (0, 0)
    assert not withdrawals_blocked([last], 0)


P_INSOLVENT_HALF = int(P.insolvent_s // 2)


@each_model
def test_a_bidder_must_hold_enough(model: OptionsAccount) -> None:
    for cash in (thin_cash(model), broke_cash(model)):
        state, _ = model.start(market(), short_calls(cash))
        now = market(at=10)
        view = model.view(now, state)
        if not state.insolvent:
            needed = 0.1 * (view.price - view.bm)
        else:  # the margin that comes with it, less what the bidder is paid
            needed = 0.1 * (-view.mm + view.price)
        model.bid(now, state, 0.1, bidder_cash=needed + 1e-6)
        with pytest.raises(InputError, match="the bidder holds"):
            model.bid(now, state, 0.1, bidder_cash=needed - 1e-6)
        for want in (0, -1, 1.1):
            with pytest.raises(InputError, match="of the account"):
                model.bid(now, state, want)
        with pytest.raises(InputError, match="security_module"):
            model.bid(now, state, 0.1, security_module=-1)


@each_model
def test_a_recovered_account_ends_its_auction_and_nobody_bids(model: OptionsAccount) -> None:
    for cash in (thin_cash(model), broke_cash(model)):
        state, _ = model.start(market(), short_calls(cash))
        recovered = market(spot=600.0, at=10)
        assert model.view(recovered, state).may_end
        with pytest.raises(InputError, match="nobody may bid"):
            model.bid(recovered, state, 0.5)
        assert not model.end(recovered, state).live


@each_model
def test_nobody_bids_and_the_auction_turns_insolvent(model: OptionsAccount) -> None:
    state, _ = model.start(market(), short_calls(thin_cash(model)))
    early = market(at=100)
    with pytest.raises(InputError, match="stays solvent"):
        model.turn_insolvent(early, state)
    late = market(at=int(P.fast_s + P.slow_s))
    assert model.view(late, state).price == 0
    with pytest.raises(InputError, match="turn it insolvent"):
        model.bid(late, state, 0.5)
    turned = model.turn_insolvent(late, state)
    assert (turned.insolvent, turned.start, turned.reserved) == (True, late.timestamp, 0)
    # Its value is still above zero: the payout grows from nothing.
    assert model.view(late, turned).price == 0
    assert model.view(market(at=late.timestamp + 9_999), turned).price < 0
    with pytest.raises(InputError, match="only a solvent one"):
        model.turn_insolvent(late, turned)


@each_model
def test_an_account_that_falls_below_zero_in_its_auction_is_ended_and_started_again(
    model: OptionsAccount,
) -> None:
    state, _ = model.start(market(), short_calls(thin_cash(model)))
    crash = market(spot=2_600.0, at=30)
    view = model.view(crash, state)
    assert view.mtm < 0
    assert view.may_end
    assert not view.may_turn_insolvent
    ended = model.end(crash, state)
    again, booked = model.start(crash, ended.portfolio)
    assert (again.insolvent, booked.flows) == (True, ())


@each_model
def test_cash_of_earlier_bids_worth_more_than_the_account_ends_its_auction(model: OptionsAccount) -> None:
    state, _ = model.start(market(), short_calls(thin_cash(model)))
    state, booked = model.bid(market(), state, 0.05)
    assert state.reserved == next(flow.cash for flow in booked.flows if flow.what == "bid")
    # Calls rise until the account is worth less than what was paid in, and still more than nothing.
    spots = [2_000.0 + step for step in range(0, 600, 1)]
    values = [(spot, model.view(market(spot=spot, at=30), state).mtm) for spot in spots]
    spot = next(spot for spot, worth in values if 0 < worth <= state.reserved)
    view = model.view(market(spot=spot, at=30), state)
    assert view.may_end
    with pytest.raises(InputError, match="nobody may bid"):
        model.bid(market(spot=spot, at=30), state, 0.1)


@each_model
def test_cash_of_earlier_bids_is_for_sale_once_the_auction_is_insolvent(model: OptionsAccount) -> None:
    state, _ = model.start(market(), short_calls(thin_cash(model)))
    state, _ = model.bid(market(), state, 0.01)
    late = market(at=int(P.fast_s + P.slow_s))
    turned = model.turn_insolvent(late, state)
    assert (turned.reserved, turned.portfolio) == (0, state.portfolio)
    last, booked = model.bid(market(at=late.timestamp + 60), turned, 1.0, security_module=1e9)
    conserved(turned, last, booked)
    assert last.portfolio.cash == 0


def test_an_auction_starts_where_the_methods_status_says_so() -> None:
    """A standard margin of -1e-14 beside an equity of 1,000 is lost in the difference, its status is not."""

    class Rounded(Cross):
        def margin(self, portfolio: Portfolio, market: Market) -> MarginResult:
            return MarginResult(portfolio.account, "", "", MarginStatus.LIQUIDATABLE, 1_000.0, 1.0, 1_000.0)

    state, _ = OptionsAccount(Rounded()).start(market(), short_calls(0.0))
    assert state.live


def test_parameters_are_the_methods_own_unless_given() -> None:
    assert DERIVE.auction_parameters == derive_auction.TEST
    assert OptionsAccount(Cross()).auction_parameters == derive_auction.MAINNET
    assert PLAIN.auction_parameters == derive_auction.TEST


@each_model
def test_columns_say_what_the_method_says(model: OptionsAccount) -> None:
    accounts = [short_calls(c) for c in (50_000.0, thin_cash(model))]
    columns = model.columns(market(), accounts)
    assert columns.liquidatable.tolist() == [False, True]
    assert columns.known.all()
    expected: list[Any] = [model.method.margin(a, market()) for a in accounts]
    assert columns.maintenance == pytest.approx([r.maintenance for r in expected])
    blind = model.columns(Market(), accounts)
    assert not blind.known.any()
    assert not blind.liquidatable.any()
    assert np.isnan(blind.equity).all()
