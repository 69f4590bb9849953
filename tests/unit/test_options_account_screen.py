"""The screen of options accounts says what the margin method says, and nothing where it could be wrong."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from simulation.margin import derive_pmrm, derive_pmrm2, derive_srm
from simulation.margin.baselines import Cross
from simulation.margin.derive_auction import DeriveAuction
from simulation.margin.derive_exact import decision_width
from simulation.margin.derive_pmrm import DerivePmrm
from simulation.margin.derive_pmrm2 import DerivePmrm2, DerivePmrm21
from simulation.margin.derive_srm import DeriveSrm
from simulation.margin.result import MarginResult, PortfolioMethod
from simulation.portfolio.instruments import Option, Perpetual, Portfolio, Position
from simulation.portfolio.market import Expiry, Market, Underlying
from simulation.protocols.options_account import Margins, Screen, screen_of
from simulation.types import Float64, MarginStatus

DAY_S = 86_400
NOW = 1_700_000_000
PRICES = {"BTC": 60_000.0, "ETH": 2_000.0}
BENT = derive_pmrm2.MAINNET.skew.model_copy(
    update={"linear_cap": 0.15, "abs_cap": 0.4, "linear_cap_slope": -0.05, "width_scale": 0.5}
)
METHODS: dict[str, PortfolioMethod] = {
    "pmrm2": DerivePmrm2(),
    "pmrm2 bent": DerivePmrm2(parameters=derive_pmrm2.MAINNET.model_copy(update={"skew": BENT})),
    "pmrm2 test": DerivePmrm2(parameters="test"),
    "override": DerivePmrm21(overrides={"account": derive_pmrm2.TEST}),
    "pmrm": DerivePmrm(),
    "pmrm test": DerivePmrm(parameters="test"),
    "srm": DeriveSrm(),
    "srm test": DeriveSrm(parameters="test"),
    "auction": DeriveAuction(),
    "auction pmrm": DeriveAuction(parameters="test", manager=DerivePmrm()),
    "auction srm": DeriveAuction(parameters="test", manager=DeriveSrm()),
}
each_method = pytest.mark.parametrize("name", METHODS)


def option(
    strike: float,
    amount: float,
    *,
    call: bool = True,
    days: float = 30.0,
    volatility: float = 0.7,
    **more: Any,
) -> Position:
    held = Option(
        underlying=more.get("underlying", "ETH"),
        expiry=NOW + round(days * DAY_S),
        strike=strike,
        call=call,
        inverse=more.get("inverse", False),
    )
    return Position(instrument=held, quantity=amount, volatility=volatility)


def account(*positions: Position, cash: float = 0.0) -> Portfolio:
    return Portfolio(cash=cash, positions=positions)


def market_at(portfolio: Portfolio, spots: dict[str, float]) -> Market:
    """Forwards at spot, no rates, sure feeds: what the screen takes for granted."""
    feeds: dict[str, dict[int, Expiry]] = {}
    for position in portfolio.positions:
        held = position.instrument
        assert isinstance(held, Option)
        feeds.setdefault(held.underlying, {})[held.expiry] = Expiry(forward=spots[held.underlying])
    return Market(
        timestamp=NOW,
        underlyings={symbol: Underlying(spot=spots[symbol], expiries=own) for symbol, own in feeds.items()},
    )


def random_account(rng: np.random.Generator, symbols: tuple[str, ...]) -> Portfolio:
    """One to eight options, some of them of one strike, some opposite to each other, some of nothing."""
    kept: dict[tuple[str, int, float, bool], Position] = {}
    for _ in range(rng.integers(1, 9)):
        symbol = str(rng.choice(symbols))
        days = float(rng.choice([0.002, 0.3, 1.0, 6.5, 29.0, 31.0, 200.0, 900.0]))
        strike = PRICES[symbol] * float(rng.choice([0.05, 0.7, 0.95, 1.0, 1.05, 1.4, 8.0]))
        one = option(
            strike,
            float(rng.choice([0.0, 1.0, -1.0, *rng.normal(0, 5, 5)])),
            call=bool(rng.integers(2)),
            days=days,
            volatility=0.1 + strike / PRICES[symbol] / 8,
            underlying=symbol,
        )
        kept[symbol, one.instrument.expiry, strike, one.instrument.call] = one  # type: ignore[union-attr]
    positions = list(kept.values())
    if rng.random() < 0.3:
        positions.append(positions[0].model_copy(update={"quantity": -0.4}))
    return account(*positions)


def screened(screen: Screen, portfolio: Portfolio, spots: Float64, cash: Float64) -> Margins:
    """Return what the screen says of one account at many prices, shape (P, underlyings)."""
    amount = np.tile([p.quantity for p in portfolio.positions], (len(cash), 1))
    return screen.margins(NOW, spots, cash, amount)


def prices_around(rng: np.random.Generator, symbols: tuple[str, ...], paths: int) -> Float64:
    middle = np.array([PRICES[s] for s in symbols])
    out = middle * np.exp(rng.normal(0.0, 0.4, (paths, len(symbols))))
    out[0] = middle
    return np.asarray(out)


def said_by(
    method: PortfolioMethod, portfolio: Portfolio, screen: Screen, spots: Float64
) -> list[MarginResult]:
    symbols = screen.contracts.symbols
    return [
        method.margin(portfolio, market_at(portfolio, dict(zip(symbols, map(float, row), strict=True))))
        for row in spots
    ]


@each_method
def test_the_figures_are_the_methods(name: str) -> None:
    """Far nearer than the screen's doubt: a thousandth of a millionth of what is added up."""
    method, rng = METHODS[name], np.random.default_rng(7)
    for _ in range(12):
        held = random_account(rng, ("ETH", "BTC") if "srm" in name else ("ETH",))
        screen = screen_of(method, held)
        assert screen is not None
        spots = prices_around(rng, screen.contracts.symbols, 4)
        found = screened(screen, held, spots, np.zeros(4))
        want = said_by(method, held, screen, spots)
        near = 1e-5 * found.doubt
        assert (np.abs(found.maintenance - [r.maintenance for r in want]) <= near).all()
        assert (np.abs(found.equity - [r.equity for r in want]) <= near).all()


@pytest.mark.parametrize("method", [METHODS[name] for name in ("pmrm2", "pmrm2 bent", "pmrm2 test", "pmrm")])
def test_every_scenario_is_the_methods(method: Any) -> None:
    """One scenario at a time and no basis shock beside it: none can hide behind the worst."""
    rng = np.random.default_rng(3)
    quiet = method.parameters.basis.model_copy(update={"add_factor": 0.0, "mult_factor": 0.0})
    for index in range(len(method.parameters.scenarios)):
        one = method.only_scenario(index)
        one = one.model_copy(update={"parameters": one.parameters.model_copy(update={"basis": quiet})})
        held = random_account(rng, ("ETH",))
        screen = screen_of(one, held)
        assert screen is not None
        spots = prices_around(rng, ("ETH",), 2)
        found, want = screened(screen, held, spots, np.zeros(2)), said_by(one, held, screen, spots)
        assert (np.abs(found.maintenance - [r.maintenance for r in want]) <= 1e-5 * found.doubt).all()


@each_method
def test_who_is_said_to_be_healthy_is(name: str) -> None:
    """Cash puts accounts around the edge, at it, and far away; the method is asked about each of them."""
    method, rng = METHODS[name], np.random.default_rng(11)
    sure = 0
    for _ in range(6):
        held = random_account(rng, ("ETH", "BTC") if "srm" in name else ("ETH",))
        screen = screen_of(method, held)
        assert screen is not None
        spots = np.repeat(prices_around(rng, screen.contracts.symbols, 1), 9, axis=0)
        bare = screened(screen, held, spots, np.zeros(9))
        steps = np.array([-1e4, -1.5, -1.0, -1e-4, 0.0, 1e-4, 1.0, 1.5, 1e4])
        cash = -bare.maintenance + steps * bare.doubt
        found = screened(screen, held, spots, cash)
        symbols = screen.contracts.symbols
        for p in range(9):
            own = held.model_copy(update={"cash": float(cash[p])})
            now = market_at(own, dict(zip(symbols, map(float, spots[p]), strict=True)))
            result = method.margin(own, now)
            if found.healthy[p]:
                sure += 1
                assert result.status in (MarginStatus.HEALTHY, MarginStatus.NO_DEBT)
            if found.maintenance[p] < -found.doubt[p]:
                assert result.status is MarginStatus.LIQUIDATABLE
            if found.whole[p]:
                assert result.equity > 0
            manager = method.manager if isinstance(method, DeriveAuction) else method
            if isinstance(manager, DerivePmrm2 | DeriveSrm):
                # Where integers decide, the screen does not.
                assert decision_width(own, now, manager) < found.doubt[p] / 5
        assert not found.healthy[:6].any()
    assert sure >= 12


def test_an_expiry_that_gains_from_the_basis_shock_pays_for_no_other() -> None:
    """A short straddle loses either way and a long one of another expiry gains: the loss stands alone."""
    rest = next(
        i for i, s in enumerate(derive_pmrm2.MAINNET.scenarios) if s.label == "spot +0 %, vol unchanged"
    )
    method = DerivePmrm2().only_scenario(rest)
    pair = [option(2_000, a, call=c, days=d) for a, d in ((-2, 20), (9, 21)) for c in (True, False)]
    held = account(*pair)
    screen = screen_of(method, held)
    assert screen is not None
    spots = np.array([[2_000.0]])
    (want,), found = said_by(method, held, screen, spots), screened(screen, held, spots, np.zeros(1))
    assert want.worst == "basis contingency"
    assert found.maintenance[0] == pytest.approx(want.maintenance)


def test_near_an_edge_nothing_is_sure() -> None:
    figures = np.array([-2.0, -0.5, 0.0, 0.5, 2.0, math.nan, math.inf])
    doubt, many = np.array([1.0, 1.0, 1.0, 1.0, 1.0, 1.0, math.inf]), np.full(7, 9.0)
    only_the_fifth = [False, False, False, False, True, False, False]
    assert Margins(figures, many, doubt).healthy.tolist() == only_the_fifth
    assert Margins(figures, many, doubt).whole.tolist() == [True, *only_the_fifth[1:]]
    assert Margins(many, figures, doubt).whole.tolist() == only_the_fifth
    assert Margins(figures, figures, doubt).whole.tolist() == only_the_fifth


def test_an_account_without_options_is_its_cash() -> None:
    held = account(option(2_000, 0.0))
    screen = screen_of(METHODS["auction"], held)
    assert screen is not None
    cash = np.array([0.0, 1.0, -1.0, 1e-12, -1e-12])
    found = screened(screen, held, np.full((5, 1), 2_000.0), cash)
    assert found.healthy.tolist() == [True, True, False, False, False]
    assert found.whole.tolist() == [True, True, False, False, False]
    none = screen_of(METHODS["auction"], account())
    assert none is not None
    found = none.margins(NOW, np.zeros((5, 0)), cash, np.zeros((5, 0)))
    assert found.healthy.tolist() == [True, True, False, False, False]
    for value in (0.0, 1.0):
        said = METHODS["auction"].margin(account(option(2_000, 0.0), cash=value), market_at(held, PRICES))
        assert said.status is not MarginStatus.LIQUIDATABLE


def test_amounts_are_each_paths_own() -> None:
    held = account(option(2_000, -4), option(2_200, 3, call=False))
    screen = screen_of(METHODS["auction"], held)
    assert screen is not None
    amount = np.array([[-4.0, 3.0], [-1.0, 0.75], [0.0, 0.0], [0.0, 3.0]])
    found = screen.margins(NOW, np.full((4, 1), 2_000.0), np.zeros(4), amount)
    assert found.maintenance[0] == pytest.approx(4 * found.maintenance[1])
    assert found.maintenance[2] == 0.0
    (one,) = said_by(METHODS["auction"], account(held.positions[1]), screen, np.array([[2_000.0]]))
    assert found.maintenance[3] == pytest.approx(one.maintenance)


def test_prices_that_are_none_and_times_that_are_past_are_left_to_the_method() -> None:
    held = account(option(2_000, 1), cash=1e6)
    screen = screen_of(METHODS["auction"], held)
    assert screen is not None
    spots = np.array([[2_000.0], [0.0], [-1.0], [math.nan], [math.inf], [1e-9], [1e13]])
    cash, amount = np.full(7, 1e6), np.ones((7, 1))
    assert screen.margins(NOW, spots, cash, amount).healthy.tolist() == [True] + 6 * [False]
    expiry = int(screen.contracts.expiry[0])
    for time in (expiry, expiry + 1, expiry - 101 * 365 * DAY_S):
        found = screen.margins(time, spots, cash, amount)
        assert not found.healthy.any()
        assert not found.whole.any()
    assert screen.margins(expiry - 1, spots, cash, amount).healthy[0]


class Doubled(DerivePmrm2):
    """A method of somebody's own."""


SKEWED = derive_pmrm2.MAINNET.skew
LOOSE: dict[str, dict[str, Any]] = {
    "narrow skew": {"skew": SKEWED.model_copy(update={"min_k_star": 1e-9})},
    "large share": {"mm_option": 1e6},
    "hardly a forward": {
        "scenarios": (derive_pmrm2.MAINNET.scenarios[0].model_copy(update={"spot_shock": 1e-9}),)
    },
}


@pytest.mark.parametrize(
    ("method", "held"),
    [
        (Cross(), account(option(2_000, 1))),
        (Doubled(), account(option(2_000, 1))),
        (DeriveAuction(manager=Doubled()), account(option(2_000, 1))),
        (DerivePmrm2(), account(option(2_000, 1), option(2_000, 1, volatility=0.8))),
        (DerivePmrm2(), account(option(2_000, 1), option(60_000, 1, underlying="BTC"))),
        (DerivePmrm2(), account(option(2_000, 1, inverse=True))),
        (DerivePmrm2(), account(Position(instrument=Perpetual(underlying="ETH"), quantity=1))),
        (DerivePmrm2(), account(option(2_000, 1).model_copy(update={"volatility": None}))),
        *(
            (
                DerivePmrm2(parameters=derive_pmrm2.MAINNET.model_copy(update=update)),
                account(option(2_000, 1)),
            )
            for update in LOOSE.values()
        ),
        (
            DerivePmrm(parameters=derive_pmrm.MAINNET.model_copy(update={"rate_mult": 1e6})),
            account(option(2_000, 1)),
        ),
        (
            DeriveSrm(parameters=derive_srm.MAINNET.model_copy(update={"unpaired_mm_scale": 1e6})),
            account(option(2_000, 1)),
        ),
    ],
)
def test_what_the_screen_does_not_know_is_left_to_the_method(
    method: PortfolioMethod, held: Portfolio
) -> None:
    assert screen_of(method, held) is None


@pytest.mark.parametrize(
    ("update", "from_days"),
    [
        # A cap below zero has two sides, and a rounding chooses between them at the money.
        ({"skew": SKEWED.model_copy(update={"linear_cap_slope": -0.5})}, 92),
        ({"skew": SKEWED.model_copy(update={"abs_cap": -0.1})}, 0.01),
        ({"discount": derive_pmrm2.MAINNET.discount.model_copy(update={"short_rate_add": 80.0})}, 92),
        ({"discount": derive_pmrm2.MAINNET.discount.model_copy(update={"long_rate_add": 80.0})}, 92),
    ],
)
def test_where_a_rounding_may_grow_nothing_is_said(update: dict[str, Any], from_days: float) -> None:
    method = DerivePmrm2(parameters=derive_pmrm2.MAINNET.model_copy(update=update))
    for days in (0.05, 91, 92, 365, 9_999):
        held = account(option(2_000, 1, days=days), cash=1e6)
        screen = screen_of(method, held)
        assert screen is not None
        said = screened(screen, held, np.array([[2_000.0]]), np.array([1e6]))
        assert said.healthy[0] == (days < from_days)
        assert np.isinf(said.doubt[0]) == (days >= from_days)
