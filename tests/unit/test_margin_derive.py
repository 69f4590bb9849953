"""Derive's margin by hand, and what holds for every account."""

from __future__ import annotations

import math
import tracemalloc
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from contracts_abi.errors import InputError
from oracle.strict import StrictModel, input_error
from simulation.margin import derive_auction, derive_pmrm, derive_pmrm2, derive_srm, margin_methods
from simulation.margin.derive_auction import (
    AuctionParameters,
    DeriveAuction,
    buffer_margin,
    cash_to_bid,
    discount_at,
    insolvent_payout,
    liquidation_fee,
    max_fraction,
    solvent_price,
)
from simulation.margin.derive_common import (
    BASIS,
    BasisShock,
    Direction,
    Scenario,
    VolShock,
    basis_contingency,
    naked_shorts,
    read_account,
    settlement_parts,
    svi_volatility,
)
from simulation.margin.derive_exact import decide
from simulation.margin.derive_pmrm import DerivePmrm, PmrmParameters
from simulation.margin.derive_pmrm2 import (
    Collateral,
    DerivePmrm2,
    DerivePmrm21,
    Pmrm2Parameters,
    SkewShock,
    StaticDiscount,
)
from simulation.margin.derive_srm import DeriveSrm, SrmParameters
from simulation.margin.result import Grade, MarginResult, PortfolioMethod
from simulation.portfolio.instruments import (
    Barrier,
    Future,
    Instrument,
    Option,
    Perpetual,
    Portfolio,
    Position,
    Spot,
)
from simulation.portfolio.market import AssetPrice, Expiry, Market, Svi, Underlying
from simulation.types import MarginStatus

DAY = 86_400
NEAR, FAR = 7 * DAY, 60 * DAY


def market(**changes: Any) -> Market:
    """Return ether at 2,000 with two expiries; changes go to the underlying, `stable` to the market."""
    stable = changes.pop("stable", 1.0)
    fields: dict[str, Any] = {
        "spot": 2_000.0,
        "perpetual": 2_010.0,
        "expiries": {
            NEAR: Expiry(forward=2_005.0, rate=0.04, volatility=0.6),
            FAR: Expiry(forward=2_030.0, rate=0.05, volatility=0.7),
        },
    }
    return Market(
        underlyings={"ETH": Underlying(**fields | changes)},
        assets={"STK": AssetPrice(price=2_100.0), "USDX": AssetPrice(price=0.99)},
        stable_price=stable,
    )


def option(strike: float, amount: float, *, call: bool = True, expiry: int = NEAR, **more: Any) -> Position:
    held = Option(underlying="ETH", expiry=expiry, strike=strike, call=call)
    return Position(instrument=held, quantity=amount, **more)


def perpetual(amount: float, unrealised: float = 0.0) -> Position:
    return Position(instrument=Perpetual(underlying="ETH"), quantity=amount, unrealised=unrealised)


def token(symbol: str, amount: float) -> Position:
    return Position(instrument=Spot(asset=symbol), quantity=amount)


def account(*positions: Position, cash: float = 0.0) -> Portfolio:
    return Portfolio(cash=cash, positions=positions)


TOKENS = {
    "ETH": Collateral(mm_haircut=0.1, im_haircut=0.05, risk_cancelling=True),
    "STK": Collateral(mm_haircut=0.2, im_haircut=0.1),
}
PMRM2 = DerivePmrm2(parameters=derive_pmrm2.TEST.model_copy(update={"collaterals": TOKENS}))
PMRM = DerivePmrm(parameters=derive_pmrm.TEST)
SRM = DeriveSrm(parameters=derive_srm.TEST)
AUCTION = DeriveAuction(parameters=derive_auction.TEST, manager=PMRM)
METHODS: list[Any] = [PMRM2, DerivePmrm21(parameters=PMRM2.parameters), PMRM, SRM, AUCTION]
each_method = pytest.mark.parametrize("method", METHODS, ids=lambda method: method.kind)

BOOKS = {
    "strangle": account(option(1_800, -2, call=False), option(2_300, -3), cash=3_000),
    "spread": account(option(2_000, -1), option(2_200, 1), cash=500),
    "calendar": account(option(2_000, 4), option(2_000, -4, expiry=FAR), perpetual(-1.5), cash=2_000),
    "covered": account(option(2_100, -1, expiry=FAR), token("ETH", 1)),
    "hedged": account(option(2_000, -5, call=False), perpetual(-2, 40), token("ETH", 0.5), cash=9_000),
}
each_book = pytest.mark.parametrize("book", BOOKS.values(), ids=BOOKS)


# ------------------------------------------------------------------------------------------- PMRM 2, by hand


def test_a_perpetual_by_hand() -> None:
    """Worst is -15 %: 2 * 2,010 * 0.15 = 603; contingencies are 1 % and 1 % of 4,000 at the index price."""
    result = PMRM2.margin(account(perpetual(2, unrealised=7), cash=1_000), market())
    assert result.equity == 1_007
    assert result.maintenance == pytest.approx(1_007 - 0.8 * 603 - 40, rel=1e-14)
    assert result.initial == pytest.approx(1_007 - 603 - 80, rel=1e-14)
    assert result.worst == "spot -15 %, vol up"
    assert result.components["scan_risk"] == pytest.approx(603)
    assert result.status is MarginStatus.HEALTHY


def test_a_perpetual_that_is_closed_brings_no_value() -> None:
    assert PMRM2.margin(account(perpetual(0, unrealised=7), cash=5), market()).equity == 5


def test_a_settlement_currency_below_its_peg_costs_initial_margin_alone() -> None:
    """(0.98 - 0.96) * 2 = 4 % of the loss, and only of initial margin."""
    held = account(perpetual(2), cash=1_000)
    at_peg, below = PMRM2.margin(held, market()), PMRM2.margin(held, market(stable=0.96))
    assert below.maintenance == at_peg.maintenance
    assert below.initial == pytest.approx(at_peg.initial - 0.04 * 603, rel=1e-12)
    assert below.components["peg_loss"] == pytest.approx(0.04 * 603)


def test_a_doubtful_perpetual_costs_initial_margin_alone() -> None:
    """Half a confidence below 0.6: (1 - 0.5) * 0.5 * 4,000."""
    held = account(perpetual(2), cash=1_000)
    sure, doubtful = PMRM2.margin(held, market()), PMRM2.margin(held, market(perpetual_confidence=0.5))
    assert doubtful.maintenance == sure.maintenance
    assert doubtful.initial == pytest.approx(sure.initial - 1_000)
    assert PMRM2.margin(held, market(perpetual_confidence=0.6)).initial == sure.initial


def test_doubt_about_the_perpetual_reaches_options_and_not_collaterals() -> None:
    held = account(perpetual(1), option(2_000, 1), token("STK", 1))
    doubtful = PMRM2.margin(held, market(perpetual_confidence=0.5))
    assert doubtful.components["oracle_contingency"] == pytest.approx(0.5 * 0.5 * (2_000 + 2_000))
    doubtful = PMRM2.margin(held, market(confidence=0.5))
    assert doubtful.components["oracle_contingency"] == pytest.approx(0.5 * 0.5 * (2_000 + 2_000 + 2_100))


def test_collaterals_by_hand() -> None:
    """Only the risk-cancelling one moves in the grid; both are cut, and divided by the currency's price."""
    result = PMRM2.margin(account(token("ETH", 1), token("STK", 2)), market(stable=0.5))
    ether, staked = 4_000, 8_400
    assert result.equity == ether + staked
    assert result.components["scan_risk"] == pytest.approx(0.15 * ether)
    cut = 0.1 * ether + 0.2 * staked
    assert result.maintenance == pytest.approx(ether + staked - 0.8 * 0.15 * ether - cut)
    factor = 1 + (0.98 - 0.5) * 2
    expected = ether + staked - factor * 0.15 * ether - cut - 0.05 * ether - 0.1 * staked
    assert result.initial == pytest.approx(expected)


def test_a_hedge_with_risk_cancelling_collateral_nets() -> None:
    at_par = market(perpetual=2_000.0)
    result = PMRM2.margin(account(token("ETH", 1), perpetual(-1)), at_par)
    assert result.components["scan_risk"] == pytest.approx(0, abs=1e-9)
    assert result.components["mm_perp_contingency"] == 20


def test_cash_needs_nothing_and_no_price() -> None:
    result = PMRM2.margin(account(cash=-3), Market())
    assert (result.initial, result.maintenance) == (-3, -3)
    assert result.status is MarginStatus.LIQUIDATABLE
    assert PMRM2.margin(account(cash=3), Market()).status is MarginStatus.NO_DEBT


def test_the_static_discount_costs_a_long_option_even_where_nothing_moves() -> None:
    parameters = PMRM2.parameters.model_copy(
        update={
            "scenarios": (Scenario(spot_shock=1, direction=Direction.NONE),),
            "basis": BasisShock(up=1, down=1, add_factor=0, mult_factor=0),
        }
    )
    result = DerivePmrm2(parameters=parameters).margin(account(option(2_000, 1)), market())
    years = NEAR / (365 * DAY)
    kept = 0.95 * math.exp(-years * (0.04 * 4 + 0.05))
    (row,) = result.scenarios
    assert row.profit == pytest.approx(-(1 - kept) * result.equity, rel=1e-12)
    assert result.components["static_discount"] == pytest.approx((1 - kept) * result.equity)


def test_the_discount_of_shorts_never_exceeds_taking_off_the_time_value_of_money() -> None:
    rule = StaticDiscount(
        long_base=0.9, short_base=3, long_rate_mult=1, short_rate_mult=1, long_rate_add=0, short_rate_add=0
    )
    _, negative = rule.factors(np.array([0.5]), np.array([0.04]))
    assert negative == pytest.approx(math.exp(0.02))


def test_a_skew_counts_as_a_loss_whatever_it_does() -> None:
    for amount in (1, -1):
        result = PMRM2.margin(account(option(2_300, amount)), market())
        assert {row.label for row in result.scenarios}.isdisjoint({"linear skew", "absolute skew"})
        result = DerivePmrm2(parameters="mainnet").margin(account(option(2_300, amount)), market())
        skews = [row for row in result.scenarios if row.label in ("linear skew", "absolute skew")]
        assert len(skews) == 2
        assert all(row.profit < 0 for row in skews)


def test_a_skew_bends_the_smile_by_hand() -> None:
    """At a year, cap 0.15 + 0.1, width 4 * (1 - 0.2) = 3.2; strikes e above and below the forward."""
    skew = derive_pmrm2.TEST.skew
    year = 365 * DAY
    at_year = market(spot=2_000.0, expiries={year: Expiry(forward=2_000.0, volatility=0.5)})
    far = [option(2_000 * math.exp(k), 1, expiry=year) for k in (-20, -1, 1, 20)]
    book = read_account(account(*far), at_year, "test").legs["ETH"].options
    linear = skew.factor(book, Direction.LINEAR)
    assert linear == pytest.approx([0.75, 1 - 0.25 / 3.2, 1 + 0.25 / 3.2, 1.25])
    absolute = skew.factor(book, Direction.ABS)
    assert absolute == pytest.approx([1.3, 1 + 0.3 / 3.2, 1 + 0.3 / 3.2, 1.3])


def test_a_negative_cap_is_cut_by_the_sign_of_the_moneyness() -> None:
    skew = derive_pmrm2.TEST.skew.model_copy(update={"linear_cap": -0.2, "linear_cap_slope": 0.0})
    book = read_account(account(option(1_000, 1), option(4_000, 1)), market(), "test").legs["ETH"].options
    low, high = skew.factor(book, Direction.LINEAR)
    k, width = math.log(1_000 / 2_005), float(4 * math.sqrt(NEAR / 31_536_000))
    k_star = width * (1 - 0.2 * width / 4)
    assert low == pytest.approx(1 + max(0.2, k * -0.2 / k_star))
    assert high == pytest.approx(1 + min(-0.2, math.log(4_000 / 2_005) * -0.2 / k_star))


# --------------------------------------------------------------------------------------------- shared pieces


@pytest.mark.parametrize(
    ("call", "put", "naked"),
    [(-2, 0, 2), (0, -3, 3), (-2, -3, 5), (-5, 2, 3), (2, -5, 3), (-2, 5, 0), (4, 4, 0)],
)
def test_short_options_are_covered_by_long_ones_of_either_type(call: float, put: float, naked: float) -> None:
    assert naked_shorts({(1, 2_000.0, True): call, (1, 2_000.0, False): put}) == naked


def test_other_strikes_and_expiries_cover_nothing() -> None:
    amounts = {(1, 2_000.0, True): -2.0, (1, 2_100.0, True): 2.0, (2, 2_000.0, True): 2.0}
    assert naked_shorts(amounts) == 2


def test_basis_losses_of_expiries_do_not_net() -> None:
    shock = BasisShock(up=1.05, down=0.95, add_factor=0.25, mult_factor=0.01)

    def basis(*positions: Position) -> float:
        book = read_account(account(*positions), market(), "test").legs["ETH"].options
        ones = np.ones(len(book.expiries))
        return basis_contingency(book, shock, book.marks(ones), ones)

    near, far = option(2_000, 4), option(2_000, -4, expiry=FAR)
    assert basis(near, far) == pytest.approx(basis(near) + basis(far), rel=1e-12)
    assert basis(near) < 0
    assert basis(far) < 0
    box = option(2_000, 1), option(2_000, -1, call=False), option(2_200, -1), option(2_200, 1, call=False)
    assert basis(*box) == pytest.approx(0, abs=1e-9)


def test_the_basis_can_be_the_worst_and_competes() -> None:
    basis = BasisShock(up=1.5, down=0.5, add_factor=1, mult_factor=0)
    worst = PMRM2.parameters.model_copy(update={"basis": basis})
    result = DerivePmrm2(parameters=worst).margin(account(option(2_000, -1), cash=5_000), market())
    assert result.worst == BASIS
    assert result.components["basis_contingency"] > result.components["scan_risk"] > 0
    loss = result.components["basis_contingency"]
    short = result.components["mm_option_contingency"]
    assert result.maintenance == pytest.approx(result.equity - 0.8 * loss - short)


def test_the_volatility_shock_by_hand() -> None:
    shock = VolShock(range_up=0.5, range_down=0.3, short_power=0.3, long_power=0.13, dte_floor_s=DAY)
    up, down = shock.factors(np.array([0.0, 1.0, 30.0, 120.0]) * DAY)
    assert up == pytest.approx([1 + 0.5 * 30**0.3, 1 + 0.5 * 30**0.3, 1.5, 1 + 0.5 * 0.25**0.13])
    assert down == pytest.approx([1 - 0.3 * 30**0.3, 1 - 0.3 * 30**0.3, 0.7, 1 - 0.3 * 0.25**0.13])
    _, none = shock.model_copy(update={"range_down": 2.0}).factors(np.array([30.0 * DAY]))
    assert none == 0


def test_the_surface_is_that_of_the_feed_and_is_cut_four_widths_out() -> None:
    """Flat wings: w = a + b (rho k + sqrt(k^2 + sigma^2)) with k at most 4 sqrt(a + b sigma)."""
    flat = Svi(a=0.04, b=0.0, rho=0, m=0, sigma=0.1, forward=2_000, tau=0.25)
    assert svi_volatility(flat, 9_000.0) == pytest.approx(0.4)
    wing = Svi(a=0.0, b=1.0, rho=1, m=0, sigma=0.01, forward=2_000, tau=0.25)
    edge = 4 * math.sqrt(0.01)
    assert svi_volatility(wing, 2_000 * math.exp(5)) == pytest.approx(
        math.sqrt((edge + math.hypot(edge, 0.01)) / 0.25)
    )
    wild = flat.model_copy(update={"a": 500.0})
    assert svi_volatility(wild, 2_000.0) == pytest.approx(math.sqrt(144 / 0.25))
    assert math.isnan(svi_volatility(flat.model_copy(update={"a": -1.0}), 2_000.0))


def test_the_settlement_price_builds_up_over_the_last_half_hour() -> None:
    assert settlement_parts(2_000, 3_600) == (2_000, 0)
    assert settlement_parts(2_000, 450) == (500, 1_500)
    assert settlement_parts(2_000, 0) == (0, 2_000)


def test_only_the_part_of_a_forward_that_moves_is_shocked() -> None:
    settled = market(expiries={450: Expiry(forward=500.0, fixed=1_500.0, volatility=0.5)})
    result = PMRM2.margin(account(option(1_000, -1, expiry=450), cash=5_000), settled)
    rows = {row.label: row.profit for row in result.scenarios}
    moved = rows["spot +15 %, vol unchanged"] - rows["spot +0 %, vol unchanged"]
    assert moved == pytest.approx(-0.95 * 0.15 * 500, abs=0.01)  # 0.95: the set's discount of shorts


# -------------------------------------------------------------------------------------------- PMRM and SRM


def test_pmrm_by_hand() -> None:
    """Contingencies stand inside the multiplier: (603 + 2 * 40) * 1.3, base asset 2 % of 2,000."""
    result = PMRM.margin(account(perpetual(2), cash=1_000), market())
    assert result.maintenance == pytest.approx(1_000 - 603 - 80)
    assert result.initial == pytest.approx(1_000 - 1.3 * (603 + 80))
    result = PMRM.margin(account(perpetual(-2), token("ETH", 2)), market(perpetual=2_000.0))
    assert result.maintenance == pytest.approx(4_000 - 80 - 80)
    with pytest.raises(InputError, match="STK is not the base asset"):
        PMRM.margin(account(token("STK", 1), perpetual(1)), market())


def settling(price: float) -> Market:
    """Return a market at the second of an expiry: options are worth what they pay."""
    return market(spot=price, expiries={0: Expiry(forward=price, volatility=0.5)})


def now(strike: float, amount: float, *, call: bool = True) -> Position:
    return option(strike, amount, call=call, expiry=0)


@pytest.mark.parametrize(
    ("positions", "mm", "im"),
    [
        pytest.param([now(2_000, -1)], -100 - 157.5, -100 - 315, id="short call in the money"),
        # Further away than a twentieth: the least requirement, a tenth of the index price.
        pytest.param([now(2_300, -1)], -157.5, -210, id="short call out of the money"),
        pytest.param([now(2_000, -1, call=False)], -157.5, -(0.15 - 100 / 2_100) * 2_100, id="short put"),
        # 0.15 * 2,100 + 3,900 = 4,215 against 1.05 * (3,900 + 0.075 * 3,900) = 4,402.125
        pytest.param([now(6_000, -1, call=False)], -3_900 * 1.075, -3_900 * 1.075 * 1.05, id="put, offset"),
        pytest.param([now(2_000, -1), now(2_100, 1)], -100, -100, id="spread: the maximal loss"),
        pytest.param([now(2_000, 3)], 0, 0, id="long secures nothing"),
        # Two calls short in net: unpaired 2 * 2,100 is far more than two calls by themselves.
        pytest.param([now(2_000, -2)], 2 * -257.5, 2 * -415, id="net short calls"),
    ],
)
def test_options_of_the_standard_manager_by_hand(positions: list[Position], mm: float, im: float) -> None:
    result = SRM.margin(account(*positions, cash=10_000), settling(2_100))
    assert result.maintenance == pytest.approx(10_000 + mm)
    assert result.initial == pytest.approx(10_000 + im)


def test_the_standard_manager_sums_underlyings_and_bases_by_hand() -> None:
    two = Market(
        underlyings={
            "ETH": Underlying(spot=2_000.0, perpetual=2_010.0),
            "BTC": Underlying(spot=30_000.0, confidence=0.3),
        },
        stable_price=0.97,
    )
    held = account(
        perpetual(-2, unrealised=30),
        Position(instrument=Perpetual(underlying="BTC"), quantity=1),
        token("ETH", 3),
        cash=100,
    )
    result = SRM.margin(held, two)
    assert result.equity == pytest.approx(100 + 30 + 6_000 / 0.97)
    mm = 100 + 30 - 0.065 * 4_020 - 0.065 * 30_000 + 0.8 * 6_000
    assert result.maintenance == pytest.approx(mm)
    im = 100 + 30 - 0.1 * 4_020 - 0.1 * 30_000 + 0.8 * 6_000
    im -= 0.7 * 0.4 * 30_000  # bitcoin's index is doubtful
    im -= (0.98 - 0.97) * 1.2 * (4_000 + 30_000)  # the peg
    assert result.initial == pytest.approx(im)


# --------------------------------------------------------------------------------------------------- auction


@pytest.mark.parametrize(
    ("elapsed", "discount"),
    [(-5, 0.98), (0, 0.98), (50, 0.89), (100, 0.8), (7_300, 0.4), (14_500, 0), (1e6, 0)],
)
def test_a_bid_pays_less_with_time(elapsed: float, discount: float) -> None:
    assert discount_at(derive_auction.TEST, elapsed) == pytest.approx(discount)


def test_formulas_of_the_auction_by_hand() -> None:
    """Value 100, maintenance -50: buffer -80; 80 of 180 may be sold at no discount."""
    p = derive_auction.TEST
    assert buffer_margin(p, 100, -50) == -80
    assert max_fraction(p, 100, -80, 1, 0) == pytest.approx(80 / 180)
    assert max_fraction(p, 100, -80, 0.5, 40) == pytest.approx(80 / (80 + 50 + 20))
    assert max_fraction(p, 100, 5, 0.5, 40) == 0
    assert max_fraction(p, -1, -80, 0.5, 0) == 1
    assert liquidation_fee(p, 100, -50) == pytest.approx(0.02 * 100 * 80 / 180)
    assert solvent_price(100, 40, 0.5) == 30
    assert cash_to_bid(30, -80, 40, 0.25) == 7.5 + 30
    assert [insolvent_payout(p, -10, -70, t) for t in (0, 300, 600, 9_999)] == [10, 40, 70, 70]


UNDER_WATER = account(option(2_000, -4, expiry=FAR), cash=2_000)


def test_a_run_to_the_end_brings_the_buffer_margin_to_zero() -> None:
    auction = AUCTION.start(UNDER_WATER, market())
    assert not auction.insolvent
    assert auction.portfolio.cash == UNDER_WATER.cash - auction.fee
    assert auction.fee > 0
    later = market().model_copy(update={"timestamp": 60})
    auction, first = auction.bid(later, 0.1)
    assert auction.live
    assert first.fraction == first.of_original == 0.1
    assert auction.reserved == first.paid == pytest.approx(0.1 * first.before.price)
    assert first.after.mtm == pytest.approx(0.9 * first.before.mtm + first.paid)
    assert first.before.fmax > first.after.fmax > 0
    auction, last = auction.bid(later, 1.0)
    assert last.fraction == first.after.fmax
    assert last.of_original == pytest.approx(0.9 * last.fraction)
    assert last.after.bm == pytest.approx(0, abs=1e-9)
    assert last.after.mm > 0
    assert not auction.live
    with pytest.raises(InputError, match="over"):
        auction.bid(later, 0.1)


def test_a_bidder_must_hold_the_price_and_the_margin() -> None:
    auction = AUCTION.start(UNDER_WATER, market())
    _, bid = auction.bid(market(), 0.2)
    assert bid.cash_needed == pytest.approx(0.2 * (bid.before.price - bid.before.bm))
    with pytest.raises(InputError, match="the bidder holds"):
        auction.bid(market(), 0.2, bidder_cash=bid.cash_needed - 0.01)
    auction.bid(market(), 0.2, bidder_cash=bid.cash_needed)
    for want in (0, -1, 1.1, math.nan):
        with pytest.raises(InputError, match="of the account"):
            auction.bid(market(), want)


def test_an_auction_starts_below_maintenance_and_ends_above_the_buffer() -> None:
    with pytest.raises(InputError, match="no auction can start"):
        AUCTION.start(UNDER_WATER.model_copy(update={"cash": 20_000}), market())
    auction = AUCTION.start(UNDER_WATER, market())
    with pytest.raises(InputError, match="short by"):
        auction.terminated(market())
    recovered = market(expiries={FAR: Expiry(forward=1_500.0, volatility=0.3)}, spot=1_500.0)
    assert not auction.terminated(recovered).live
    with pytest.raises(InputError, match="above its buffer margin"):
        auction.bid(recovered, 0.5)


def test_an_insolvent_account_pays_its_bidder_more_with_time() -> None:
    broke = UNDER_WATER.model_copy(update={"cash": 100.0})
    auction = AUCTION.start(broke, market())
    assert auction.insolvent
    assert auction.fee == 0
    at = [auction.view(market().model_copy(update={"timestamp": t})) for t in (0, 599, 5_000)]
    assert at[0].price == pytest.approx(at[0].mtm)
    assert at[0].price > at[1].price > at[2].price == pytest.approx(at[2].mm)
    after, bid = auction.bid(market(), 1.0)
    assert bid.paid < 0
    assert after.portfolio.cash == 0
    assert not after.live


class Stated(DeriveAuction):
    """An auction of accounts whose value is their cash and whose maintenance margin is the index's price."""

    def valued(self, portfolio: Portfolio, market: Market, scenario: int) -> tuple[float, float]:
        """Return cash, and the price of ETH less 1,000."""
        return portfolio.cash, market.underlyings["ETH"].spot - 1_000.0


def stated(cash: float, *, insolvent: bool, reserved: float = 0.0) -> derive_auction.Auction:
    return derive_auction.Auction(
        method=Stated(parameters=derive_auction.TEST, manager=PMRM),
        portfolio=account(cash=cash),
        scenario=0,
        start=0,
        insolvent=insolvent,
        fee=0.0,
        reserved=reserved,
    )


def at(mm: float, seconds: int) -> Market:
    return market(spot=1_000.0 + mm).model_copy(update={"timestamp": seconds})


def test_an_insolvent_bid_must_hold_the_maintenance_margin_less_the_payout() -> None:
    """Value -10, maintenance -70, 600 s: at 300 s 40 is paid out, so a quarter needs (70 - 40) / 4."""
    auction = stated(-10.0, insolvent=True)
    for seconds, payout, needed in ((0, 10.0, 60.0), (300, 40.0, 30.0), (600, 70.0, 0.0), (900, 70.0, 0.0)):
        _, bid = auction.bid(at(-70.0, seconds), 0.25)
        assert (bid.paid, bid.cash_needed) == pytest.approx((-payout / 4, needed / 4))
    auction.bid(at(-70.0, 300), 0.25, bidder_cash=7.5)
    with pytest.raises(InputError, match=r"holds 7.49 of 7.5"):
        auction.bid(at(-70.0, 300), 0.25, bidder_cash=7.49)
    with pytest.raises(InputError, match="has its maintenance margin"):
        auction.bid(at(0.0, 300), 0.25)
    assert not auction.terminated(at(0.0, 300)).live
    with pytest.raises(InputError, match="short by 1"):
        auction.terminated(at(-1.0, 300))


def test_a_solvent_auction_whose_time_is_over_turns_insolvent() -> None:
    """Until 14,500 s a bid still costs something; from there on nobody bids, and anybody turns it."""
    auction = stated(100.0, insolvent=False, reserved=40.0)
    with pytest.raises(InputError, match="stays solvent"):
        auction.turned_insolvent(at(-50.0, 14_499))
    with pytest.raises(InputError, match="time of the solvent auction is over"):
        auction.bid(at(-50.0, 14_500), 0.5)
    # The buffer margin no longer counts, the maintenance margin does.
    assert not auction.view(at(0.5, 14_499)).may_end
    assert not auction.terminated(at(0.0, 14_500)).live
    with pytest.raises(InputError, match="has its maintenance margin"):
        auction.turned_insolvent(at(0.0, 14_500))
    with pytest.raises(InputError, match="short by"):
        auction.terminated(at(-50.0, 14_500))
    turned = auction.turned_insolvent(at(-50.0, 20_000))
    assert (turned.insolvent, turned.start, turned.reserved, turned.left) == (True, 20_000, 0.0, 1.0)
    # A value above zero pays nothing at first; halfway 25 of the 50 that are missing, and all cash goes.
    after, bid = turned.bid(at(-50.0, 20_300), 0.5)
    assert (bid.paid, bid.cash_needed) == pytest.approx((-12.5, 12.5))
    assert after.portfolio.cash == pytest.approx(50.0)
    for ended in (turned, replace(auction, live=False)):
        with pytest.raises(InputError, match="only a solvent one"):
            ended.turned_insolvent(at(-50.0, 20_000))


@pytest.mark.parametrize(
    ("cash", "reserved", "told"),
    [(-1.0, 0.0, "below zero"), (40.0, 40.0, "not above the cash"), (30.0, 40.0, "not above the cash")],
)
def test_a_solvent_auction_ends_when_there_is_nothing_left_to_sell(
    cash: float, reserved: float, told: str
) -> None:
    auction = stated(cash, insolvent=False, reserved=reserved)
    with pytest.raises(InputError, match=told):
        auction.bid(at(-50.0, 50), 0.5)
    assert not auction.terminated(at(-50.0, 50)).live
    # With no more than the reserved cash the price is nothing too; with less, there is none.
    assert auction.view(at(-50.0, 50)).may_turn_insolvent == (cash == reserved)
    # Above it, a bid goes through: 50 for sale at 0.89, of which the buffer margin allows a part.
    _, bid = stated(90.0, insolvent=False, reserved=40.0).bid(at(-50.0, 50), 1.0)
    assert bid.before.price == pytest.approx(44.5)


# Two copies of these rules stood side by side once. Where they said different things, derivexyz/v2-core at
# 7736900d says which is right; the functions named are of its `DutchAuction.sol`.


def test_what_an_account_is_short_of_is_the_margin_that_would_end_its_auction() -> None:
    """`getAuctionStatus`: buffer margin while a solvent auction runs, else maintenance margin."""
    solvent, insolvent = stated(100.0, insolvent=False), stated(-10.0, insolvent=True)
    for auction, seconds, short in (
        (solvent, 14_499, 80.0),  # -50 less a fifth of the 150 between value and maintenance
        (solvent, 14_500, 50.0),
        (insolvent, 0, 50.0),
        (insolvent, 14_500, 50.0),
    ):
        with pytest.raises(InputError, match=rf"short by {short};"):
            auction.terminated(at(-50.0, seconds))


def test_nobody_may_take_a_part_where_a_bid_is_refused() -> None:
    """`bid` reverts where `getAuctionStatus` lets the auction end, and `_bidOnSolventAuction` at no price."""
    for cash, mm, seconds in ((-1.0, -50.0, 50), (40.0, -50.0, 50), (100.0, 1e3, 50), (100.0, -50.0, 14_500)):
        auction = stated(cash, insolvent=False, reserved=40.0)
        assert auction.view(at(mm, seconds)).fmax == 0
        with pytest.raises(InputError):
            auction.bid(at(mm, seconds), 1.0)
    assert stated(-10.0, insolvent=True).view(at(0.0, 50)).fmax == 0
    # An account below the cutoff is sold whole, but not where it needs no sale.
    all_of_it = Stated(parameters=derive_auction.TEST.model_copy(update={"mtm_cutoff": 500.0}), manager=PMRM)
    small = replace(stated(100.0, insolvent=False), method=all_of_it)
    assert [small.view(at(mm, 50)).fmax for mm in (-50.0, 1e3)] == [1.0, 0.0]
    # Else it may: 80 of 80 and 0.89 of the value and 0.11 of the cash that was paid in.
    assert stated(100.0, insolvent=False, reserved=40.0).view(at(-50.0, 50)).fmax == pytest.approx(
        80 / (80 + 89 + 4.4)
    )


def test_nothing_is_said_of_an_auction_that_is_over() -> None:
    """`getAuctionStatus` reverts, and with it a bid, whose part `bid` looks at first."""
    ended = replace(stated(100.0, insolvent=False), live=False)
    for ask in (ended.view, ended.terminated, lambda now: ended.bid(now, 0.5)):
        with pytest.raises(InputError, match="the auction is over"):
            ask(at(-50.0, 50))
    with pytest.raises(InputError, match="a bid for 2 of the account"):
        ended.bid(at(-50.0, 50), 2)


def test_what_an_account_lacked_when_it_became_insolvent_stays_known() -> None:
    """`_startInsolventAuction` keeps the maintenance margin of that moment, whatever it is later."""
    turned = stated(100.0, insolvent=False).turned_insolvent(at(-50.0, 14_500))
    assert turned.insolvent_mm == 50.0
    after, _ = turned.bid(at(-70.0, 15_000), 0.5)
    assert (after.live, after.insolvent_mm) == (True, 50.0)
    assert stated(100.0, insolvent=False).insolvent_mm == 0.0
    broke = AUCTION.start(UNDER_WATER.model_copy(update={"cash": 100.0}), market())
    assert broke.insolvent_mm == -broke.view(market()).mm > 0


@pytest.mark.parametrize("manager", [PMRM2, SRM], ids=lambda manager: manager.kind)
@pytest.mark.parametrize(
    ("held", "floats_too_harsh"),
    [(option(2_345, -400, expiry=FAR), True), (option(2_000, -4, expiry=FAR), False)],
)
def test_at_the_edge_the_integers_say_the_auctions_status_and_whether_it_starts(
    manager: Any, held: Position, floats_too_harsh: bool
) -> None:
    """The float margin is off by some 1e-13: its sign alone would start what the contract refuses."""
    method = DeriveAuction(parameters="test", manager=manager)
    base = account(held)
    cash = -manager.margin(base, market()).maintenance
    seen = set()
    for step in range(-4, 5):
        edge = base.model_copy(update={"cash": cash + step * np.spacing(cash)})
        exact = decide(edge, market(), manager)
        assert exact.decided_by == "integers"
        below = method.margin(edge, market()).status is MarginStatus.LIQUIDATABLE
        assert below == exact.liquidatable
        seen.add((below, exact.mm_float < 0))
        if below:
            method.start(edge, market())
        else:
            with pytest.raises(InputError, match="no auction can start"):
                method.start(edge, market())
    # Where both agreed on every cash, this test would show nothing.
    assert seen == {(True, True), (False, False), (False, True) if floats_too_harsh else (True, False)}


def test_an_edge_that_integers_cannot_decide_is_unknown() -> None:
    method = DeriveAuction(parameters="test", manager=PMRM2)
    fine = account(option(2_000, -0.0012345678901234567, expiry=FAR), cash=0.0)
    edge = fine.model_copy(update={"cash": -PMRM2.margin(fine, market()).maintenance})
    result = method.margin(edge, market())
    assert result.status is MarginStatus.UNKNOWN
    assert "18" in result.reason
    with pytest.raises(InputError, match="cannot be valued"):
        method.start(edge, market())


def test_the_auctions_margin_is_what_a_liquidation_restores() -> None:
    result = AUCTION.margin(UNDER_WATER, market())
    assert result.status is MarginStatus.LIQUIDATABLE
    assert result.initial == pytest.approx(
        buffer_margin(AUCTION.parameters, result.equity, result.maintenance)
    )
    assert result.maintenance == pytest.approx(PMRM.margin(UNDER_WATER, market()).maintenance)
    assert 0 < result.components["max_fraction"] < 1


def test_each_manager_can_be_auctioned() -> None:
    for manager in (PMRM2, METHODS[1], PMRM, SRM):
        method = DeriveAuction(parameters="test", manager=manager)
        assert method.manager == manager
        auction = method.start(UNDER_WATER.model_copy(update={"cash": 1_500.0}), market())
        assert auction.view(market()).mm < 0
        assert DeriveAuction.model_validate(method.model_dump(mode="json")) == method


def test_an_override_is_auctioned_with_its_own_scenarios() -> None:
    short = PMRM2.parameters.model_copy(update={"scenarios": PMRM2.parameters.scenarios[:3]})
    method = DerivePmrm21(parameters=PMRM2.parameters, overrides={"account": short})
    (row,) = method.only_scenario(2, "account").margin(UNDER_WATER, market()).scenarios
    assert row == method.margin(UNDER_WATER, market()).scenarios[2]
    with pytest.raises(InputError, match="no scenario 3; 0 to 2"):
        method.only_scenario(3, "account")
    method.only_scenario(3, "another")


# ----------------------------------------------------------------------------------- what holds for everyone


def figures(result: MarginResult) -> list[float]:
    return [result.initial, result.maintenance, result.equity]


@each_method
@each_book
def test_cash_counts_one_to_one(method: PortfolioMethod, book: Portfolio) -> None:
    more = book.model_copy(update={"cash": book.cash + 250})
    before, after = method.margin(book, market()), method.margin(more, market())
    # A buffer margin is of the gap, and that does not move with cash.
    assert np.subtract(figures(after), figures(before)) == pytest.approx(250, abs=1e-8)


@each_method
@each_book
def test_twice_the_account_is_twice_the_margin(method: PortfolioMethod, book: Portfolio) -> None:
    doubled = Portfolio(
        cash=2 * book.cash,
        positions=tuple(
            p.model_copy(update={"quantity": 2 * p.quantity, "unrealised": 2 * p.unrealised})
            for p in book.positions
        ),
    )
    one, two = method.margin(book, market()), method.margin(doubled, market())
    assert figures(two) == pytest.approx([2 * figure for figure in figures(one)], rel=1e-11)


@each_method
@each_book
def test_order_and_splitting_of_positions_say_nothing(method: PortfolioMethod, book: Portfolio) -> None:
    halves = [
        p.model_copy(update={"quantity": p.quantity / 2, "unrealised": p.unrealised / 2})
        for p in book.positions
    ]
    other = book.model_copy(update={"positions": (*halves, *reversed(halves))})
    assert figures(method.margin(other, market())) == pytest.approx(
        figures(method.margin(book, market())), rel=1e-11
    )


@each_method
@each_book
def test_margins_are_in_order(method: PortfolioMethod, book: Portfolio) -> None:
    result = method.margin(book, market())
    assert result.initial <= result.maintenance <= result.equity
    if isinstance(method, DeriveAuction):
        whole = method.manager.margin(book, market())
        assert result.parameters_hash == method.hash_with(whole.parameters_hash)
    else:
        assert result.parameters_hash == method.parameters.hash
    assert result.method == method.kind
    assert result.mark_to_market == pytest.approx(result.equity - book.cash)


@pytest.mark.parametrize("method", [PMRM2, PMRM], ids=lambda method: method.kind)
@each_book
def test_an_offsetting_pair_adds_no_scan_risk(method: Any, book: Portfolio) -> None:
    """Scan risk is a norm of what moves: a book and its mirror together have none, each alone has some."""
    mirror = tuple(
        p.model_copy(update={"quantity": -p.quantity, "unrealised": -p.unrealised})
        for p in book.positions
        if not isinstance(p.instrument, Spot)
    )
    tokens = tuple(p for p in book.positions if isinstance(p.instrument, Spot))
    derivatives = tuple(p for p in book.positions if not isinstance(p.instrument, Spot))
    both = method.margin(account(*derivatives, *mirror), market())
    assert both.equity == pytest.approx(0, abs=1e-9)
    assert both.maintenance == pytest.approx(0, abs=1e-9)
    assert method.margin(account(*derivatives, *tokens), market()).components["scan_risk"] > 0


# ---------------------------------------------------------------------------------------- unknown and refused


def broken(instance: Any, **fields: Any) -> Any:
    """Return a model with values that its validation would refuse."""
    return instance.model_copy(update=fields)


NAN = math.nan
UNKNOWN: dict[str, tuple[Portfolio, Market, str]] = {
    "no market": (account(perpetual(1)), Market(), "no price of ETH"),
    "no forward": (account(option(2_000, 1, expiry=5)), market(), "no forward"),
    "no volatility": (
        account(option(2_000, 1)),
        market(expiries={NEAR: Expiry(forward=2_000.0)}),
        "no volatility",
    ),
    "index no number": (
        account(perpetual(1)),
        broken(market(), underlyings={"ETH": broken(market().underlyings["ETH"], spot=NAN)}),
        "index price of ETH is nan",
    ),
    "perpetual no number": (
        account(perpetual(1)),
        broken(market(), underlyings={"ETH": broken(market().underlyings["ETH"], perpetual=NAN)}),
        "perpetual",
    ),
    "confidence no number": (
        account(perpetual(1)),
        broken(market(), underlyings={"ETH": broken(market().underlyings["ETH"], confidence=NAN)}),
        "confidence of ETH is nan",
    ),
    "forward no number": (
        account(option(2_000, 1)),
        market(expiries={NEAR: broken(Expiry(forward=1.0, volatility=0.5), forward=NAN)}),
        "forward",
    ),
    "forward nothing": (
        account(option(2_000, 1)),
        market(expiries={NEAR: Expiry(forward=0.0, volatility=0.5)}),
        "forward",
    ),
    "rate no number": (
        account(option(2_000, 1)),
        market(expiries={NEAR: broken(Expiry(forward=1.0, volatility=0.5), rate=NAN)}),
        "rate",
    ),
    "volatility no number": (
        account(broken(option(2_000, 1), volatility=NAN)),
        market(),
        "volatility",
    ),
    "negative variance": (
        account(option(2_000, 1)),
        market(
            expiries={
                NEAR: Expiry(
                    forward=2_000.0, surface=Svi(a=-1, b=0, rho=0, m=0, sigma=0, forward=2_000, tau=1)
                )
            }
        ),
        "volatility of ETH 2000 is nan",
    ),
    "currency no number": (account(perpetual(1)), broken(market(), stable_price=NAN), "settlement currency"),
    "quantity no number": (account(broken(perpetual(1), quantity=NAN)), market(), "quantity"),
    "cash no number": (broken(account(perpetual(1)), cash=NAN), market(), "no number"),
}


@each_method
@pytest.mark.parametrize(("held", "state", "reason"), UNKNOWN.values(), ids=UNKNOWN)
def test_what_is_missing_or_no_number_makes_the_margin_unknown(
    method: PortfolioMethod, held: Portfolio, state: Market, reason: str
) -> None:
    result = method.margin(held, state)
    assert result.status is MarginStatus.UNKNOWN
    assert reason in result.reason
    assert all(math.isnan(figure) for figure in figures(result))


@pytest.mark.parametrize("method", [PMRM2, SRM], ids=lambda method: method.kind)
def test_a_token_without_a_price_makes_the_margin_unknown(method: Any) -> None:
    state = Market(underlyings={"BTC": Underlying(spot=30_000.0)})
    result = method.margin(account(token("ETH", 1)), state)
    assert result.status is MarginStatus.UNKNOWN
    assert result.reason == "no price of ETH"


OTHERS: list[Instrument] = [
    Future(underlying="ETH", expiry=NEAR),
    Barrier(underlying="ETH", expiry=NEAR, strike=2_000, call=True, barrier=1_500),
    Perpetual(underlying="ETH", inverse=True),
    Option(underlying="ETH", expiry=NEAR, strike=2_000, call=True, inverse=True),
]


@each_method
@pytest.mark.parametrize("held", OTHERS, ids=lambda held: f"{held.type}")
def test_an_instrument_that_derive_does_not_have_is_refused(
    method: PortfolioMethod, held: Instrument
) -> None:
    with pytest.raises(InputError, match=rf"has no (inverse )?{held.type}") as refused:
        method.margin(account(Position(instrument=held, quantity=1)), market())
    assert refused.value.fix
    assert "\n" not in str(refused.value)


REFUSED: dict[str, tuple[Portfolio, str]] = {
    "expired": (account(option(2_000, 1, expiry=-1)), "expired 1 s ago"),
    "owed token": (account(token("ETH", -1)), "lends no ETH"),
    "unknown token": (account(token("USDX", 1), perpetual(1)), "USDX is "),
    "two volatilities": (
        account(option(2_000, 1, volatility=0.5), option(2_000, 1, volatility=0.6)),
        "two volatilities",
    ),
    "strike": (
        account(
            Position.model_construct(
                instrument=Option.model_construct(
                    underlying="ETH", expiry=NEAR, strike=0.0, call=True, inverse=False, type="option"
                ),
                quantity=1.0,
                unrealised=0.0,
                volatility=0.5,
                protocol="",
            )
        ),
        "strike is not above zero",
    ),
    "volatility": (account(broken(option(2_000, 1), volatility=-0.1)), "volatility of ETH 2000 is -0.1"),
}


@each_method
@pytest.mark.parametrize(("held", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_the_user_can_mend_is_refused_in_one_line(
    method: PortfolioMethod, held: Portfolio, reason: str
) -> None:
    with pytest.raises(InputError, match=reason) as refused:
        method.margin(held, market())
    assert refused.value.fix
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("method", [PMRM2, PMRM], ids=lambda method: method.kind)
def test_a_manager_has_one_underlying(method: Any) -> None:
    bitcoin = Position(instrument=Perpetual(underlying="BTC"), quantity=1)
    both = Market(underlyings={**market().underlyings, "BTC": Underlying(spot=30_000.0)})
    with pytest.raises(InputError, match="one underlying, got BTC, ETH"):
        method.margin(account(perpetual(1), bitcoin), both)
    of_ether = method.model_copy(update={"underlying": "ETH"})
    with pytest.raises(InputError, match="of ETH has no BTC"):
        of_ether.margin(account(bitcoin), both)
    with pytest.raises(InputError, match="which underlying"):
        method.margin(account(token("ETH", 1)), both)
    assert of_ether.margin(account(token("ETH", 1)), both).equity == 2_000


# ------------------------------------------------------------------------------------------------- parameters


def changed(base: Any, path: str, value: Any) -> dict[str, Any]:
    """Return a parameter set as plain data with one value changed."""
    plain = base.model_dump(mode="json")
    *parents, last = path.split(".")
    node = plain
    for parent in parents:
        node = node[int(parent) if parent.isdigit() else parent]
    node[last] = value
    result: dict[str, Any] = plain
    return result


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("im_factor", 0.49),
        ("im_factor", 10.1),
        ("mm_factor", 0.09),
        ("mm_factor", 10.1),
        ("vol_shock.range_up", 10.1),
        ("vol_shock.range_down", -0.1),
        ("vol_shock.short_power", 10.1),
        ("vol_shock.long_power", 10.1),
        ("vol_shock.dte_floor_s", 401 * DAY),
        ("basis.up", 0.99),
        ("basis.down", 1.01),
        ("oracle.threshold", -0.1),
        ("scenarios.0.spot_shock", -0.1),
        ("scenarios.0.dampening", float("nan")),
        ("scenarios.0.direction", "Sideways"),
        ("scenarios", []),
        ("scenarios", [{"spot_shock": 1, "direction": "Up"}] * 41),
        ("scenarios", [{"spot_shock": 1, "direction": "Abs"}] * 2),
        ("collaterals", {"ETH": {"mm_haircut": 0.6, "im_haircut": 0.5}}),
        ("mm_perp", -0.01),
    ],
)
def test_parameters_beyond_the_contracts_bounds_are_refused(path: str, value: Any) -> None:
    Pmrm2Parameters.model_validate(derive_pmrm2.TEST.model_dump(mode="json"))
    with pytest.raises(ValidationError) as refused:
        Pmrm2Parameters.model_validate(changed(derive_pmrm2.TEST, path, value))
    line = str(input_error(refused.value, "set"))
    assert path.rpartition(".")[2] in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("model", "base", "path", "value"),
    [
        (PmrmParameters, derive_pmrm.TEST, "scenarios.0.direction", "Abs"),
        (PmrmParameters, derive_pmrm.TEST, "scenarios.0.dampening", 0.5),
        (PmrmParameters, derive_pmrm.TEST, "basis.down", 1.2),
        (PmrmParameters, derive_pmrm.TEST, "im_factor", 0),
        (SrmParameters, derive_srm.TEST, "perp.im", 0.01),
        (SrmParameters, derive_srm.TEST, "min_spot_req", 0.2),
        (SrmParameters, derive_srm.TEST, "base_confidence_threshold", 2),
        (AuctionParameters, derive_auction.TEST, "fast_discount", 0.99),
        (AuctionParameters, derive_auction.TEST, "fast_s", 0),
        (AuctionParameters, derive_auction.TEST, "buffer", -0.1),
    ],
)
def test_crossed_or_impossible_parameters_are_refused(
    model: type[StrictModel], base: Any, path: str, value: Any
) -> None:
    assert model.model_validate(base.model_dump(mode="json")) == base
    with pytest.raises(ValidationError):
        model.model_validate(changed(base, path, value))


def test_a_skew_that_moves_the_price_is_refused() -> None:
    with pytest.raises(ValidationError) as refused:
        Pmrm2Parameters.model_validate(changed(derive_pmrm2.TEST, "scenarios.0.direction", "Linear"))
    said = "set: a Linear skew moves the price by 1.15; its spot_shock is 1"
    assert str(input_error(refused.value, "set")) == said


def test_bounds_are_part_of_what_is_allowed() -> None:
    for path, value in (("im_factor", 0.5), ("im_factor", 10), ("vol_shock.dte_floor_s", 400 * DAY)):
        Pmrm2Parameters.model_validate(changed(derive_pmrm2.TEST, path, value))
    Collateral(mm_haircut=0.7, im_haircut=0.3)


@each_method
def test_sets_are_chosen_by_name(method: Any) -> None:
    entry = type(method)
    assert entry.grade is Grade.VECTORS
    for name, parameters in entry.parameter_sets.items():
        built = entry(parameters=name)
        assert built.parameters == parameters
        assert isinstance(built, PortfolioMethod)
        assert entry.model_validate(built.model_dump(mode="json")) == built
    assert len({parameters.hash for parameters in entry.parameter_sets.values()}) == 2
    with pytest.raises(ValidationError, match="did you mean 'mainnet'"):
        entry(parameters="mainet")


def test_an_override_holds_for_its_account_alone() -> None:
    strict = PMRM2.parameters.model_copy(update={"mm_factor": 2.0})
    method = DerivePmrm21(parameters=PMRM2.parameters, overrides={"risky": strict})
    book = BOOKS["strangle"]
    common = method.margin(book, market())
    assert figures(common) == figures(PMRM2.margin(book, market()))
    own = method.margin(book.model_copy(update={"account": "risky"}), market())
    assert own.maintenance < common.maintenance
    assert own.parameters_hash == strict.hash != common.parameters_hash


def test_a_skew_without_width_is_refused() -> None:
    flat = SkewShock(**derive_pmrm2.MAINNET.skew.model_dump() | {"min_k_star": 0, "width_scale": 0})
    parameters = derive_pmrm2.MAINNET.model_copy(update={"skew": flat})
    with pytest.raises(InputError, match="no width"):
        DerivePmrm2(parameters=parameters).margin(BOOKS["strangle"], market())


# ------------------------------------------------------------------------------------------------ large books


def test_the_maximal_loss_of_an_expiry_is_that_of_all_pairs() -> None:
    """Sums up to a strike are the payoffs at each strike, whatever stands at equal ones."""
    rng = np.random.default_rng(7)
    for count in (1, 2, 3, 40):
        strikes = np.round(rng.uniform(500, 4_000, count), 1)
        held = [
            Position(
                instrument=Option(
                    underlying="ETH", expiry=expiry, strike=float(k), call=bool(rng.integers(2))
                ),
                quantity=float(np.round(rng.normal(), 3)),
            )
            for expiry in (NEAR, FAR)
            for k in (*strikes, strikes[0])
        ]
        feeds = {expiry: Expiry(forward=2_000.0, volatility=0.5) for expiry in (NEAR, FAR)}
        world = Market(underlyings={"ETH": Underlying(spot=2_000.0, expiries=feeds)})
        book = read_account(Portfolio(positions=tuple(held)), world, "it").legs["ETH"].options
        for i, found in enumerate(derive_srm._max_losses(book)):
            mine = book.at == i
            strike, amount, call = book.strike[mine], book.amount[mine], book.call[mine]
            price = np.append(strike, 0.0)[:, None]
            payoff = np.maximum(0.0, np.where(call, price - strike, strike - price)) @ amount
            assert found == pytest.approx(min(0.0, float(payoff.min())), abs=1e-9)


def test_many_strikes_of_one_expiry_need_no_table_of_all_pairs() -> None:
    count = 20_000
    held = tuple(
        Position(
            instrument=Option(underlying="ETH", expiry=NEAR, strike=1_000.0 + i / 8, call=i % 2 == 0),
            quantity=1.5 if i % 3 else -1.5,
        )
        for i in range(count)
    )
    feed = Underlying(spot=2_000.0, expiries={NEAR: Expiry(forward=2_000.0, volatility=0.5)})
    book = (
        read_account(Portfolio(positions=held), Market(underlyings={"ETH": feed}), "it").legs["ETH"].options
    )
    tracemalloc.start()
    derive_srm._max_losses(book)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 200 * count


@pytest.mark.parametrize("kind", ["derive.pmrm2", "derive.pmrm2.1", "derive.pmrm", "derive.srm"])
def test_an_auctions_manager_is_named_by_its_kind(kind: str) -> None:
    built = margin_methods.build({"kind": "derive.auction", "manager": {"kind": kind, "parameters": "test"}})
    assert built.manager.kind == kind


def test_accounts_of_other_methods_are_not_auctioned() -> None:
    with pytest.raises(InputError, match=r"okx\.pm: its accounts are not auctioned"):
        margin_methods.build({"kind": "derive.auction", "manager": {"kind": "okx.pm"}})
