"""What margins of any book obey, with the methods that it holds for; and the valuation that they share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulation.margin.baselines import Cross, GridParameters, Isolated, Stress, StressParameters
from simulation.margin.cme_span import CmeSpan, Commodity, InterMonthSpread, SpanParameters
from simulation.margin.deribit_spm import CurrencyParameters, DeribitParameters, DeribitSpm, PairParameters
from simulation.margin.occ_tims import OccTims, ProductGroup, TimsParameters
from simulation.margin.okx_pm import OkxParameters, OkxPm
from simulation.margin.paradex_scan import SCENARIOS, ParadexParameters, ParadexScan
from simulation.margin.scenario_grid import (
    Scenario,
    VolRule,
    VolShock,
    profit_under,
    scenario_set,
    value_under,
)
from simulation.portfolio.instruments import Barrier, Future, Option, Perpetual, Portfolio, Position, Spot
from simulation.portfolio.market import Expiry, Market, Underlying

NOW = 1_700_000_000
DAY = 86_400
NEAR, FAR = NOW + 6 * DAY, NOW + 60 * DAY
MARKET = Market(
    timestamp=NOW,
    underlyings={
        "BTC": Underlying(
            spot=70_000,
            perpetual=70_020,
            expiries={
                NEAR: Expiry(forward=70_100, rate=0.04, volatility=0.6),
                FAR: Expiry(forward=71_000, rate=0.04, volatility=0.5),
            },
        ),
        "ETH": Underlying(
            spot=2_500,
            expiries={
                NEAR: Expiry(forward=2_503, rate=0.04, volatility=0.75),
                FAR: Expiry(forward=2_540, rate=0.04, volatility=0.65),
            },
        ),
    },
)
SPOTS = {"BTC": 70_000.0, "ETH": 2_500.0}


def deribit(range_factor: float = 1.0) -> DeribitSpm:
    """Return Deribit's method without what depends on the size of an account: dampener, cap, delta shock."""
    pairs = {
        symbol: PairParameters(price_range=share * range_factor, m_inc=0.0)
        for symbol, share in (("BTC", 0.16), ("ETH", 0.18))
    }
    currency = CurrencyParameters(
        min_annualised_move=0.01,
        annualised_move_risk=0.1,
        extended_dampener=0,
        pnl_offset=0.4,
        max_offsetable_pnl=1e18,
    )
    return DeribitSpm(
        parameters=DeribitParameters(pairs=pairs, currencies=dict.fromkeys(("BTC", "ETH", "USD"), currency))
    )


TIMS = OccTims(
    parameters=TimsParameters(products={"coins": ProductGroup(classes=("BTC", "ETH"), offset=0.75)})
)
PARADEX = ParadexScan(
    parameters=ParadexParameters(funding_rate_8h={"BTC": 1e-4, "ETH": -2e-4}, fee_rate=3e-4)
)
SPAN = CmeSpan(parameters=SpanParameters(other=Commodity(short_option_rate=30)))
CALENDAR = CmeSpan(
    parameters=SpanParameters(
        other=Commodity(tier_days=(30,), spreads=(InterMonthSpread(priority=1, tiers=(1, 2), rate=100),))
    )
)
OKX = OkxPm(parameters=OkxParameters(minimum_charge_rate=0.003))

# Requirements that only scale where nothing depends on the size of an account.
HOMOGENEOUS = {
    "deribit.spm without dampener, cap and delta shock": deribit(),
    "paradex.scan": PARADEX,
    "cme.span": SPAN,
    "cme.span with calendar spreads": CALENDAR,
    "occ.tims": TIMS,
    "isolated": Isolated(),
    "cross": Cross(),
    "stress": Stress(),
}
# Of these two books never need more together than alone; a charge for calendar spreads breaks that.
SUBADDITIVE = {
    name: method for name, method in HOMOGENEOUS.items() if name != "cme.span with calendar spreads"
}
EVERY = {**HOMOGENEOUS, "deribit.spm": DeribitSpm()}
LINEAR_ONLY = {"okx.pm": OKX}

sizes = st.floats(min_value=-20, max_value=20, allow_nan=False).map(lambda q: round(q, 3))


@st.composite
def instruments(draw: st.DrawFn, *, options: bool = True, symbols: Sequence[str] = ("BTC", "ETH")) -> Any:
    symbol = draw(st.sampled_from(symbols))
    kind = draw(st.sampled_from(("perpetual", "future", "option") if options else ("perpetual", "future")))
    if kind == "perpetual":
        return Perpetual(underlying=symbol)
    expiry = draw(st.sampled_from((NEAR, FAR)))
    if kind == "future":
        return Future(underlying=symbol, expiry=expiry)
    strike = SPOTS[symbol] * draw(st.sampled_from((0.7, 0.95, 1.0, 1.1, 1.6)))
    return Option(underlying=symbol, expiry=expiry, strike=strike, call=draw(st.booleans()))


def books(*, options: bool = True, symbols: Sequence[str] = ("BTC", "ETH"), most: int = 6) -> Any:
    """Return a strategy of portfolios."""
    held = st.builds(
        lambda i, q: Position(instrument=i, quantity=q), instruments(options=options, symbols=symbols), sizes
    )
    return st.lists(held, min_size=1, max_size=most).map(lambda p: Portfolio(positions=tuple(p)))


def answer(method: Any, book: Portfolio) -> Any:
    """Return what a method says; Paradex lists no dated futures and gets perpetuals for them."""
    if isinstance(method, ParadexScan):
        swapped = tuple(
            p.model_copy(update={"instrument": Perpetual(underlying=p.instrument.underlying)})
            if isinstance(p.instrument, Future)
            else p
            for p in book.positions
        )
        book = book.model_copy(update={"positions": swapped})
    return method.margin(book, MARKET)


def needed(method: Any, book: Portfolio) -> float:
    """Return the initial requirement."""
    return float(answer(method, book).initial_requirement)


def scaled(book: Portfolio, factor: float) -> Portfolio:
    """Return the same book, larger."""
    positions = tuple(p.model_copy(update={"quantity": p.quantity * factor}) for p in book.positions)
    return Portfolio(positions=positions)


def together(*books_: Portfolio) -> Portfolio:
    """Return one book of several."""
    return Portfolio(positions=tuple(p for book in books_ for p in book.positions))


def close(value: float, book: Portfolio) -> float:
    """Return what rounding may leave: of the notional, of which requirements are small differences."""
    notional = sum(abs(p.quantity) * SPOTS[p.instrument.underlying] for p in book.positions)
    return 1e-12 * max(notional, value, 1.0)


@pytest.mark.parametrize("name", HOMOGENEOUS)
@given(book=books(), factor=st.floats(min_value=0.01, max_value=50))
@settings(deadline=None, max_examples=40)
def test_a_larger_book_needs_as_much_more(name: str, book: Portfolio, factor: float) -> None:
    method, large = HOMOGENEOUS[name], scaled(book, factor)
    expected = factor * needed(method, book)
    assert needed(method, large) == pytest.approx(expected, rel=1e-9, abs=close(expected, large))


@pytest.mark.parametrize(
    ("method", "options"), [(DeribitSpm(), True), (OKX, False)], ids=["deribit.spm", "okx.pm"]
)
@given(data=st.data(), factor=st.floats(min_value=1, max_value=20))
@settings(deadline=None, max_examples=40)
def test_where_size_counts_a_larger_book_never_needs_proportionally_less(
    method: Any, options: bool, data: st.DataObject, factor: float
) -> None:
    """Of one underlying: a dampened profit of one pair, set against another's loss, grows faster."""
    book = data.draw(books(options=options, symbols=("ETH",)))
    proportional = factor * needed(method, book)
    assert needed(method, scaled(book, factor)) >= proportional - 1e-9 * max(1.0, proportional)


@pytest.mark.parametrize("name", [*EVERY, *LINEAR_ONLY])
@given(data=st.data())
@settings(deadline=None, max_examples=30)
def test_the_order_of_positions_says_nothing(name: str, data: st.DataObject) -> None:
    book = data.draw(books(options=name not in LINEAR_ONLY))
    order = data.draw(st.permutations(book.positions))
    method = {**EVERY, **LINEAR_ONLY}[name]
    a, b = (answer(method, p) for p in (book, Portfolio(positions=tuple(order))))
    for one, other in (
        (a.initial_requirement, b.initial_requirement),
        (a.maintenance_requirement, b.maintenance_requirement),
        (a.equity, b.equity),
    ):
        assert one == pytest.approx(other, rel=1e-9, abs=10 * close(one, book))


@pytest.mark.parametrize("name", [*EVERY, *LINEAR_ONLY])
@given(data=st.data(), share=st.floats(min_value=-2, max_value=2))
@settings(deadline=None, max_examples=30)
def test_a_position_may_be_held_in_parts(name: str, data: st.DataObject, share: float) -> None:
    """A part may be larger than the whole, and the rest short."""
    book = data.draw(books(options=name not in LINEAR_ONLY))
    parts = together(scaled(book, share), scaled(book, 1 - share))
    method = {**EVERY, **LINEAR_ONLY}[name]
    whole = needed(method, book)
    assert needed(method, parts) == pytest.approx(whole, rel=1e-9, abs=10 * close(whole, parts))


@pytest.mark.parametrize("name", [*EVERY, *LINEAR_ONLY])
@given(data=st.data())
@settings(deadline=None, max_examples=30)
def test_requirements_are_numbers_and_maintenance_is_the_smaller(name: str, data: st.DataObject) -> None:
    book = data.draw(books(options=name not in LINEAR_ONLY))
    result = answer({**EVERY, **LINEAR_ONLY}[name], book)
    assert 0 <= result.maintenance_requirement <= result.initial_requirement
    assert math.isfinite(result.initial_requirement)
    assert all(math.isfinite(part) for part in result.components.values())


@pytest.mark.parametrize("name", SUBADDITIVE)
@given(one=books(most=4), other=books(most=4))
@settings(deadline=None, max_examples=60)
def test_two_books_never_need_more_together_than_alone(name: str, one: Portfolio, other: Portfolio) -> None:
    method, both = SUBADDITIVE[name], together(one, other)
    apart = needed(method, one) + needed(method, other)
    assert needed(method, both) <= apart + 1e-9 * apart + close(apart, both)


@pytest.mark.parametrize("name", [*SUBADDITIVE, "deribit.spm"])
@given(leg=instruments(), size=st.floats(min_value=0.01, max_value=20))
@settings(deadline=None, max_examples=40)
def test_a_hedged_pair_never_needs_more_than_its_legs(name: str, leg: Any, size: float) -> None:
    """An instrument against the perpetual of its underlying, on either side."""
    method = EVERY[name]
    for side in (1, -1):
        first = Portfolio(positions=(Position(instrument=leg, quantity=side * size),))
        hedge = Portfolio(
            positions=(Position(instrument=Perpetual(underlying=leg.underlying), quantity=-side * size),)
        )
        apart = needed(method, first) + needed(method, hedge)
        assert needed(method, together(first, hedge)) <= apart * (1 + 1e-9)


@given(book=books(), moves=st.sets(st.sampled_from([i / 50 for i in range(-25, 26)]), min_size=1, max_size=9))
@settings(deadline=None, max_examples=100)
def test_isolated_is_never_below_cross(book: Portfolio, moves: set[float]) -> None:
    parameters = GridParameters(moves=tuple(sorted(moves)))
    netted = needed(Cross(parameters=parameters), book)
    assert needed(Isolated(parameters=parameters), book) >= netted - close(netted, book)


@pytest.mark.parametrize("cls", [Cross, Isolated])
@given(book=books(), moves=st.sets(st.sampled_from([i / 50 for i in range(-25, 26)]), min_size=2, max_size=9))
@settings(deadline=None, max_examples=40)
def test_more_scenarios_never_need_less(cls: type[Any], book: Portfolio, moves: set[float]) -> None:
    wide = tuple(sorted(moves))
    few, many = (needed(cls(parameters=GridParameters(moves=m)), book) for m in (wide[:-1], wide))
    assert many >= few - close(few, book)


@given(book=books(), count=st.integers(min_value=1, max_value=23))
@settings(deadline=None, max_examples=40)
def test_more_scenarios_never_need_less_at_paradex_and_in_stress(book: Portfolio, count: int) -> None:
    few = ParadexScan(parameters=ParadexParameters(scenarios=SCENARIOS[:count]))
    assert needed(ParadexScan(), book) >= needed(few, book) - close(0, book)
    one = Stress(parameters=StressParameters(crashes=("2021-05-19",)))
    assert needed(Stress(), book) >= needed(one, book) - close(0, book)


def _with_shock(size: float) -> dict[str, Any]:
    cut = tuple((spot * size, vol, weight) for spot, vol, weight in SCENARIOS[:16])
    return {
        "deribit.spm": deribit(size),
        "paradex.scan": ParadexScan(parameters=ParadexParameters(scenarios=cut)),
        "cme.span": CmeSpan(parameters=SpanParameters(other=Commodity(price_scan_range=0.15 * size))),
        "occ.tims": OccTims(
            parameters=TimsParameters(moves=dict.fromkeys(("BTC", "ETH"), (-0.15 * size, 0.15 * size)))
        ),
        "isolated": Isolated(parameters=GridParameters(moves=(-0.16 * size, 0.0, 0.16 * size))),
        "cross": Cross(parameters=GridParameters(moves=(-0.16 * size, 0.0, 0.16 * size))),
    }


@pytest.mark.parametrize("name", _with_shock(1.0))
@given(
    book=books(options=False),
    small=st.floats(min_value=0.1, max_value=0.9),
    more=st.floats(min_value=1.01, max_value=2.0),
)
@settings(deadline=None, max_examples=30)
def test_larger_shocks_need_more_of_linear_books(
    name: str, book: Portfolio, small: float, more: float
) -> None:
    """Of options too it holds for the set of moves, not for each: a straddle's loss lies in the middle."""
    low, high = (needed(_with_shock(size)[name], book) for size in (small, small * more))
    assert high >= low - close(low, book)


@given(
    prices=st.lists(st.floats(min_value=0.2, max_value=5), min_size=1, max_size=5),
    size=st.floats(min_value=-0.3, max_value=1),
    seconds=st.integers(min_value=0, max_value=10 * DAY),
    book=books(),
    inverse=sizes,
)
@settings(deadline=None, max_examples=60)
def test_values_do_not_depend_on_what_else_is_priced(
    prices: list[float], size: float, seconds: int, book: Portfolio, inverse: float
) -> None:
    """Each scenario alone and each position alone give the entry of the whole table."""
    shock = VolShock(rule=VolRule.TERM, size=size)
    extra = (
        Position(instrument=Spot(asset="ETH"), quantity=1),
        Position(instrument=Perpetual(underlying="BTC", inverse=True), quantity=1_000 * inverse),
        Position(
            instrument=Option(underlying="ETH", expiry=FAR, strike=2_600, call=False, inverse=True),
            quantity=1,
        ),
        Position(
            instrument=Barrier(underlying="BTC", expiry=FAR, strike=70_000, call=True, barrier=60_000),
            quantity=1,
        ),
    )
    whole = Portfolio(positions=(*book.positions, *extra))
    scenarios = [
        Scenario(label=str(i), every=price, volatility=shock, seconds=seconds)
        for i, price in enumerate(prices)
    ]
    table = value_under(whole, MARKET, scenario_set(scenarios))
    for row, scenario in enumerate(scenarios):
        for column, position in enumerate(whole.positions):
            alone = value_under(Portfolio(positions=(position,)), MARKET, scenario_set([scenario]))[0, 0]
            assert table[row, column] == pytest.approx(alone, rel=1e-12, abs=1e-9)


@given(book=books(), factor=st.floats(min_value=0.1, max_value=3))
@settings(deadline=None, max_examples=40)
def test_nothing_is_won_where_nothing_moves(book: Portfolio, factor: float) -> None:
    still = scenario_set([Scenario(label="still", weight=factor)])
    np.testing.assert_array_equal(profit_under(book, MARKET, still), 0.0)
