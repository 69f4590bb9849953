"""Statistical margin against closed forms, hand-made histories and the shared valuation of scenarios."""

from __future__ import annotations

import json
from math import exp, log, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.stats import kendalltau

from contracts_abi.errors import InputError
from oracle.strict import input_error
from simulation.margin import margin_methods
from simulation.margin.expected_shortfall import (
    EsDeltaGamma,
    EsDeltaNormal,
    EsFiltered,
    EsHistorical,
    EsMonteCarlo,
)
from simulation.margin.result import PortfolioMethod, dumped
from simulation.margin.scenario_grid import Scenario, VolRule, VolShock, profit_under, scenario_set
from simulation.margin.var_historical import (
    History,
    VarFiltered,
    VarHistorical,
    filtered_scenarios,
    revalue,
)
from simulation.margin.var_monte_carlo import (
    Jumps,
    VarMonteCarlo,
    correlation_of,
    drawn,
    kendall,
    uncertainty,
)
from simulation.margin.var_parametric import (
    Cumulants,
    VarDeltaGamma,
    VarDeltaNormal,
    cornish_fisher,
    cornish_fisher_tail,
    cumulants,
    is_monotone,
    moments,
    quadratic,
    sensitivity,
)
from simulation.portfolio.instruments import Barrier, Future, Option, Perpetual, Portfolio, Position, Spot
from simulation.portfolio.market import AssetPrice, Expiry, Market, Underlying
from simulation.statistics import normal_tail, sample_tail, student_tail
from simulation.statistics.volatility import ewma_variance
from simulation.types import MarginStatus

FILE = Path(__file__).resolve().parents[3] / "shared" / "vectors" / "stats_reference.json"
KINDS = ("delta_normal", "delta_gamma", "historical", "filtered", "monte_carlo")
CLASSES: dict[str, type[Any]] = {
    cls.kind: cls
    for cls in (
        *(VarDeltaNormal, VarDeltaGamma, VarHistorical, VarFiltered, VarMonteCarlo),
        *(EsDeltaNormal, EsDeltaGamma, EsHistorical, EsFiltered, EsMonteCarlo),
    )
}
T = 30 * 86_400

RNG = np.random.default_rng(11)
RETURNS = RNG.standard_t(5, (400, 2)) @ np.array([[0.03, 0.02], [0.0, 0.02]])
HISTORY = History(factors=("ETH", "BTC"), returns=RETURNS)

MARKET = Market(
    timestamp=0,
    underlyings={
        "ETH": Underlying(
            spot=2_000,
            perpetual=2_010,
            expiries={T: Expiry(forward=2_015, fixed=10, rate=0.05, volatility=0.7)},
        ),
        "BTC": Underlying(spot=40_000),
    },
    assets={"USDC": AssetPrice(price=0.999)},
)
BOOK = Portfolio(
    cash=5_000,
    positions=(
        Position(instrument=Spot(asset="ETH"), quantity=2),
        Position(instrument=Spot(asset="USDC"), quantity=-300),
        Position(instrument=Perpetual(underlying="ETH"), quantity=-1.5, unrealised=40),
        Position(instrument=Perpetual(underlying="ETH", inverse=True), quantity=1_000, unrealised=-70),
        Position(instrument=Future(underlying="ETH", expiry=T), quantity=0.5),
        Position(instrument=Future(underlying="ETH", expiry=T, inverse=True), quantity=-800),
        Position(instrument=Option(underlying="ETH", expiry=T, strike=2_100, call=True), quantity=-2),
        Position(
            instrument=Option(underlying="ETH", expiry=T, strike=1_900, call=False, inverse=True), quantity=1
        ),
        Position(instrument=Spot(asset="BTC"), quantity=-0.05),
    ),
)  # fmt: skip
LONG = Portfolio(positions=(Position(instrument=Spot(asset="ETH"), quantity=1),))


def built(kind: str, **settings: Any) -> Any:
    """Return a method over the seeded history."""
    return made(kind, {"parameters": {"history": HISTORY, **settings}})


def made(kind: str, config: dict[str, Any]) -> Any:
    """Return a method of that kind, or the one line that its configuration is refused with."""
    try:
        return CLASSES[kind](**config)
    except ValidationError as error:
        raise input_error(error, kind) from None


def test_every_method_is_registered_under_its_kind() -> None:
    assert all(margin_methods.get(kind) is cls for kind, cls in CLASSES.items())


@pytest.mark.parametrize("kind", [f"{m}.{k}" for m in ("var", "es") for k in KINDS])
def test_every_method_keeps_the_interface(kind: str) -> None:
    method = built(kind)
    assert isinstance(method, PortfolioMethod)
    found = method.margin(BOOK, MARKET)
    assert found.method == kind
    assert found.status is MarginStatus.HEALTHY
    assert found.equity == pytest.approx(found.mark_to_market + 5_000)
    assert found.initial_requirement >= found.maintenance_requirement > 0
    parts = found.components
    assert parts["expected_shortfall"] >= parts["value_at_risk"]
    name = "value_at_risk" if kind.startswith("var") else "expected_shortfall"
    assert found.maintenance_requirement == parts[name]
    assert found == method.margin(BOOK, MARKET)  # the seed is a parameter
    again = made(kind, json.loads(json.dumps(method.model_dump(mode="json"))))
    assert again == method
    assert again.parameters.hash == found.parameters_hash
    nothing = method.margin(Portfolio(cash=1), MARKET)
    assert (nothing.status, nothing.maintenance_requirement) == (MarginStatus.NO_DEBT, 0)


@pytest.mark.parametrize("kind", [f"var.{k}" for k in KINDS])
def test_what_is_wrong_is_refused_and_what_is_missing_is_unknown(kind: str) -> None:
    method = built(kind)

    def of(instrument: Any) -> Portfolio:
        return Portfolio(positions=(Position(instrument=instrument, quantity=1),))

    barrier = Barrier(underlying="ETH", expiry=T, strike=2_000, call=True, barrier=1_500)
    expired = Option(underlying="ETH", expiry=0, strike=2_000, call=True)
    strike = Option.model_construct(underlying="ETH", expiry=T, strike=-1.0, call=True, inverse=False)
    for wrong in (barrier, expired, strike):
        with pytest.raises(InputError) as refused:
            method.margin(Portfolio.model_construct(
                account="a", cash=0.0,
                positions=(Position.model_construct(instrument=wrong, quantity=1.0, volatility=None),),
            ), MARKET)  # fmt: skip
        assert "\n" not in str(refused.value)
    with_sol = MARKET.model_copy(update={"underlyings": {"SOL": Underlying(spot=100)}})
    with pytest.raises(InputError, match="no column for SOL"):
        method.margin(of(Spot(asset="SOL")), with_sol)
    later = of(Future(underlying="ETH", expiry=2 * T))
    for missing in (of(Spot(asset="DOGE")), later, of(Perpetual(underlying="DOGE"))):
        found = method.margin(missing, MARKET)
        assert found.status is MarginStatus.UNKNOWN
        assert np.isnan(found.maintenance_requirement)
        assert found.reason
    nan = MARKET.model_copy(
        update={"underlyings": {"ETH": MARKET.underlyings["ETH"].model_copy(update={"spot": float("nan")})}}
    )
    assert method.margin(LONG, nan).status is MarginStatus.UNKNOWN


def test_revaluation_is_the_shared_valuation_of_scenarios() -> None:
    moves = np.random.default_rng(2).normal(0, 0.3, (40, 3))
    moves[:, 2] = np.where(np.arange(40) % 2, 0.2, -0.2)
    scenarios = scenario_set(
        Scenario(
            label=str(i),
            prices={"ETH": exp(eth), "BTC": exp(btc)},
            volatility=VolShock(rule=VolRule.PARALLEL, size=exp(vol) - 1),
            seconds=86_400,
        )
        for i, (eth, btc, vol) in enumerate(moves)
    )
    theirs = profit_under(BOOK, MARKET, scenarios).sum(axis=1)
    mine = revalue(BOOK, MARKET, ("ETH", "BTC", "ETH.vol"), moves, 86_400)
    assert mine == pytest.approx(theirs, rel=1e-10, abs=1e-8)


def test_revaluation_by_hand() -> None:
    up = np.array([[log(1.25)]])

    def profit(instrument: Any, quantity: float, unrealised: float = 0.0) -> float:
        position = Position(instrument=instrument, quantity=quantity, unrealised=unrealised)
        return float(revalue(Portfolio(positions=(position,)), MARKET, ("ETH",), up)[0])

    assert profit(Spot(asset="ETH"), 2) == pytest.approx(2 * 500)
    assert profit(Perpetual(underlying="ETH"), -1, 40) == pytest.approx(-0.25 * 2_010)
    # 1000 dollars of notional gain 1000 / 2010 - 1000 / 2512.5 coins of 2500; 30 dollars are coins too.
    coins = 1_000 / 2_010 - 1_000 / 2_512.5
    assert profit(Perpetual(underlying="ETH", inverse=True), 1_000, 30) == pytest.approx(coins * 2_500 + 7.5)
    assert profit(Spot(asset="USDC"), 1_000) == 0
    # What is settled does not move: 2015 of the forward do, 10 do not.
    assert profit(Future(underlying="ETH", expiry=T), 1) == pytest.approx(0.25 * 2_015)


def test_historical_by_hand() -> None:
    returns = np.log1p(-np.arange(1.0, 101.0) / 200)[:, None]  # losses of 0.5 % to 50 %, in 100 rows
    history = {"factors": ["ETH"], "returns": returns.tolist()}
    settings = {"history": history, "confidence": 0.98, "initial_confidence": 0.99}
    found = made("var.historical", {"parameters": settings}).margin(LONG, MARKET)
    assert found.maintenance_requirement == pytest.approx(2_000 * 0.49)  # the third worst
    assert found.initial_requirement == pytest.approx(2_000 * 0.495)
    assert (found.worst, len(found.scenarios)) == ("row 98", 3)
    assert found.status is MarginStatus.HEALTHY
    shortfall = made("es.historical", {"parameters": settings}).margin(LONG, MARKET)
    assert shortfall.maintenance_requirement == pytest.approx(2_000 * 0.4975)
    assert shortfall.worst == "row 100"


def test_delta_normal_is_its_formula() -> None:
    found = built("var.delta_normal", periods=2.0).margin(LONG, MARKET)
    sigma = sqrt(2 * np.mean(RETURNS[:, 0] ** 2))
    assert found.maintenance_requirement == pytest.approx(2_000 * 2.3263478740408408 * sigma, rel=1e-9)
    found = built("es.delta_normal").margin(LONG, MARKET)
    assert found.maintenance_requirement == pytest.approx(
        2_000 * 2.665214220345806 * sigma / sqrt(2), rel=1e-9
    )
    drift = built("var.delta_normal", mean="sample").margin(LONG, MARKET).components
    assert drift["mean"] == pytest.approx(2_000 * RETURNS[:, 0].mean(), rel=1e-8)
    assert drift["deviation"] == pytest.approx(2_000 * RETURNS[:, 0].std(ddof=1), rel=1e-8)


def test_weighted_moments() -> None:
    found = moments(RETURNS, decay=0.94)
    weights = 0.94 ** np.arange(399, -1, -1)
    assert found.covariance[0, 1] == pytest.approx(weights @ (RETURNS[:, 0] * RETURNS[:, 1]) / weights.sum())
    start = np.mean(RETURNS**2, axis=0)
    assert np.diag(found.covariance) == pytest.approx(ewma_variance(RETURNS, 0.94, start)[-1], rel=1e-9)


@pytest.mark.skipif(not FILE.is_file(), reason=f"no reference numbers at {FILE}")
def test_cornish_fisher() -> None:
    cases = json.loads(FILE.read_text(encoding="utf-8"))["cornish_fisher"]
    assert len(cases) == 5
    for case in cases:
        assert is_monotone(case["S"], case["K_excess"])
        found = cornish_fisher(case["z"], case["S"], case["K_excess"])
        assert found == pytest.approx(case["z_cf"], rel=1e-14)


def test_cornish_fisher_is_used_only_where_it_rises() -> None:
    z = np.linspace(-6, 6, 2_001)
    rng = np.random.default_rng(3)
    seen = set()
    for s, k in zip(rng.uniform(-3, 3, 300), rng.uniform(-2, 12, 300), strict=True):
        rises = bool((np.diff([cornish_fisher(v, s, k) for v in z]) > 0).all())
        assert is_monotone(s, k) is bool(rises and abs(s) <= 6 * (sqrt(2) - 1))
        seen.add(rises)
    assert seen == {True, False}
    assert not is_monotone(6 * (sqrt(2) - 1) + 1e-9, 7.0)
    assert not is_monotone(0.0, -0.3)
    assert is_monotone(3 * 0.05, 12 * 0.05**2)  # a token of 5 % a day


def test_the_expansions_shortfall_is_its_integral() -> None:
    shape = Cumulants(3.0, 2.0, -0.8, 2.0)
    from scipy.special import ndtri

    points = (np.arange(400_000) + 0.5) / 400_000 * 0.01
    values = shape.mean + shape.deviation * np.array(cornish_fisher(ndtri(points), -0.8, 2.0))
    found = cornish_fisher_tail(shape, 0.99)
    assert found.es == pytest.approx(-values.mean(), rel=1e-6)
    assert found.var == pytest.approx(-(3 + 2 * cornish_fisher(float(ndtri(0.01)), -0.8, 2.0)))
    plain, normal = cornish_fisher_tail(Cumulants(0, 1, 0, 0), 0.975), normal_tail(0.975)
    assert (plain.var, plain.es) == pytest.approx((normal.var, normal.es))


def test_cumulants_are_those_of_draws_and_of_chi_squared() -> None:
    delta, gamma = np.array([1.0, -0.5]), np.array([[0.8, 0.2], [0.2, -0.3]])
    covariance = np.array([[1.0, 0.3], [0.3, 0.5]])
    found = cumulants(delta, gamma, covariance)
    draws = quadratic(delta, gamma, covariance, 2_000_000, 4)
    centred = (draws - draws.mean()) / draws.std()
    assert draws.mean() == pytest.approx(found.mean, abs=0.005)
    assert draws.std() == pytest.approx(found.deviation, rel=0.005)
    assert np.mean(centred**3) == pytest.approx(found.skewness, abs=0.03)
    assert np.mean(centred**4) - 3 == pytest.approx(found.excess, abs=0.2)
    # Pure gamma: half a chi-squared of one degree of freedom.
    square = cumulants(np.zeros(1), np.eye(1), np.eye(1))
    assert (square.mean, square.skewness, square.excess) == pytest.approx((0.5, sqrt(8), 12))


def test_sensitivities_of_a_token_and_of_an_option() -> None:
    position = Position(instrument=Option(underlying="ETH", expiry=T, strike=2_100, call=True), quantity=1)
    both = Portfolio(positions=(*LONG.positions, position))
    factors = ("ETH", "ETH.vol")
    found = sensitivity(lambda moves: revalue(both, MARKET, factors, moves), 2)
    token = sensitivity(lambda moves: revalue(LONG, MARKET, factors, moves), 2)
    assert token.delta == pytest.approx([2_000, 0], rel=1e-9, abs=1e-6)
    assert token.gamma == pytest.approx(np.diag([2_000, 0]), rel=1e-6, abs=1e-3)
    # In the forward's moving part: delta, vega and vanna of Black-76, to logarithmic moves.
    from scipy.stats import norm

    f, moving, k, years, s, discount = 2_025.0, 2_015.0, 2_100.0, 30 / 365, 0.7, exp(-0.05 * 30 / 365)
    v = s * sqrt(years)
    d1 = log(f / k) / v + v / 2
    density = float(norm.pdf(d1))
    assert found.delta[0] - 2_000 == pytest.approx(discount * float(norm.cdf(d1)) * moving, rel=1e-8)
    assert found.delta[1] == pytest.approx(discount * f * density * v, rel=1e-8)
    vanna = -discount * density * (d1 - v) / s
    assert found.gamma[0, 1] == pytest.approx(vanna * moving * s, rel=1e-5)
    gamma = discount * density / (f * v) * moving**2 + discount * float(norm.cdf(d1)) * moving
    assert found.gamma[0, 0] - 2_000 == pytest.approx(gamma, rel=1e-6)


def test_delta_gamma_beats_delta_normal_on_options_and_falls_back() -> None:
    options = tuple(
        Position(instrument=Option(underlying="ETH", expiry=T, strike=2_000, call=call), quantity=-1)
        for call in (True, False)
    )
    straddle = Portfolio(cash=1_000, positions=options)
    normal, full = built("var.delta_normal"), built("var.delta_gamma", simulations=400_000)
    linear, bent = normal.margin(straddle, MARKET), full.margin(straddle, MARKET)
    assert bent.components["simulated"] == 1  # nearly a chi-squared: the expansion does not rise
    assert bent.maintenance_requirement > 2 * linear.maintenance_requirement
    # Against full repricing of normal moves.
    covariance = moments(RETURNS).covariance
    moves = np.random.default_rng(9).multivariate_normal(np.zeros(2), covariance, 400_000)
    exact = sample_tail(revalue(straddle, MARKET, ("ETH", "BTC"), moves), 0.99)
    assert bent.maintenance_requirement == pytest.approx(exact.var, rel=0.1)
    token = full.margin(LONG, MARKET)
    assert token.components["simulated"] == 0
    lognormal = sample_tail(revalue(LONG, MARKET, ("ETH", "BTC"), moves), 0.99)
    assert token.maintenance_requirement == pytest.approx(lognormal.var, rel=0.01)


def test_kendall_is_scipys() -> None:
    rounded = np.round(RETURNS, 2)  # with ties
    for values in (RETURNS, rounded):
        wanted = kendalltau(values[:, 0], values[:, 1]).statistic
        assert kendall(values)[0, 1] == pytest.approx(wanted, rel=1e-12)
    impossible = correlation_of(np.array([[1, 0.9, -0.9], [0.9, 1, 0.9], [-0.9, 0.9, 1.0]]))
    assert np.linalg.eigvalsh(impossible).min() >= 0
    assert np.diag(impossible) == pytest.approx(1)
    with pytest.raises(InputError):
        kendall(np.zeros((5, 1)))


@pytest.mark.parametrize("copula", [3.0, 5.0])
def test_draws_have_their_margins_and_their_dependence(copula: float) -> None:
    correlation = np.array([[1.0, 0.6], [0.6, 1.0]])
    moves = drawn(np.random.default_rng(5), 400_000, np.array([0.02, 0.04]), correlation, copula, 5.0)
    tail = student_tail(0.99, 5.0)
    for column, sigma in enumerate((0.02, 0.04)):
        found = sample_tail(moves[:, column], 0.99)
        assert found.var == pytest.approx(sigma * tail.var, rel=0.02)
        assert found.es == pytest.approx(sigma * tail.es, rel=0.03)
        assert moves[:, column].std() == pytest.approx(sigma, rel=0.02)
    tau = kendall(moves[:3_000])[0, 1]
    assert tau == pytest.approx(2 / np.pi * np.arcsin(0.6), abs=0.03)
    # A t-copula has dependence in the tail, a normal one hardly any at this depth.
    both = np.mean((moves[:, 0] < -0.02 * tail.var) & (moves[:, 1] < -0.04 * tail.var)) / 0.01
    assert both > 0.3


def test_jumps_are_common_and_only_of_prices() -> None:
    jumps = Jumps(0.5, -0.1, 0.0)
    calm = drawn(np.random.default_rng(6), 200_000, np.full(2, 1e-9), np.eye(2), 4.0, 4.0)
    moves = drawn(
        np.random.default_rng(6), 200_000, np.full(2, 1e-9), np.eye(2), 4.0, 4.0, jumps, np.array([1.0, 0.0])
    )
    counts = np.round(moves[:, 0] / -0.1)
    assert counts.mean() == pytest.approx(0.5, abs=0.01)
    assert counts.var() == pytest.approx(0.5, abs=0.01)
    assert moves[:, 1] == pytest.approx(calm[:, 1])


def test_the_error_of_the_shortfall_is_what_seeds_show() -> None:
    true = student_tail(0.99, 4.0)
    found, errors, covered = [], [], 0
    for seed in range(400):
        profits = np.random.default_rng(seed).standard_t(4, 20_000) / sqrt(2)
        error = uncertainty(profits, 0.99)
        found.append(sample_tail(profits, 0.99).es)
        errors.append(error.es_error)
        covered += error.var_low <= true.var <= error.var_high
        assert error.es_low < found[-1] < error.es_high
    assert np.mean(found) == pytest.approx(true.es, rel=0.01)
    assert np.mean(errors) == pytest.approx(np.std(found), rel=0.15)
    assert covered / 400 == pytest.approx(0.95, abs=0.03)


def test_monte_carlo_of_one_token_is_near_its_closed_form() -> None:
    method = built("es.monte_carlo", simulations=400_000, jump_intensity=0.0, volatility="sample")
    found = method.margin(LONG, MARKET)
    sigma = sqrt(np.mean(RETURNS[:, 0] ** 2))
    draws = np.random.default_rng(1).standard_t(4, 2_000_000) / sqrt(2) * sigma
    wanted = sample_tail(2_000 * np.expm1(draws), 0.99).es
    assert found.maintenance_requirement == pytest.approx(wanted, rel=0.02)
    low, high = (found.components[f"expected_shortfall_{side}"] for side in ("low", "high"))
    assert low < found.maintenance_requirement < high
    jumping = built("es.monte_carlo", simulations=400_000, volatility="sample").margin(LONG, MARKET)
    assert jumping.maintenance_requirement > found.maintenance_requirement
    other = built("es.monte_carlo", seed=2).margin(LONG, MARKET)
    assert (
        other.maintenance_requirement != built("es.monte_carlo").margin(LONG, MARKET).maintenance_requirement
    )


def test_the_filter_brings_old_rows_to_todays_volatility() -> None:
    quiet, loud = RETURNS[:200], 3 * RETURNS[200:]
    scaled = filtered_scenarios(np.concatenate([quiet, loud]))
    assert np.std(scaled[50:180]) > 2 * np.std(quiet)
    fitted = filtered_scenarios(RETURNS, "garch", likelihood="t")
    assert fitted.shape == RETURNS.shape
    assert np.isfinite(fitted).all()


def test_the_hash_is_of_history_and_settings() -> None:
    plain = built("var.historical").parameters
    changed = RETURNS.copy()
    changed[7, 1] += 1e-12
    other = History(factors=("ETH", "BTC"), returns=changed)
    hashes = {
        plain.hash,
        built("var.historical", confidence=0.98).parameters.hash,
        built("var.historical", history=other).parameters.hash,
        built(
            "var.historical", history=HISTORY.model_copy(update={"factors": ("BTC", "ETH")})
        ).parameters.hash,
        built("var.historical", history=HISTORY.model_copy(update={"row_hours": 48.0})).parameters.hash,
    }
    assert len(hashes) == 5
    assert History(factors=("ETH", "BTC"), returns=RETURNS.tolist()).digest == HISTORY.digest
    with pytest.raises(ValidationError, match="frozen"):
        plain.confidence = 0.5


@pytest.mark.parametrize("kind", sorted(CLASSES))
def test_a_volatility_that_is_held_still_is_said(kind: str) -> None:
    note = "implied volatility of ETH is held still: the history has no column ETH.vol"
    (said,) = built(kind).margin(BOOK, MARKET).notes
    assert said.startswith(note)
    assert dumped(built(kind).margin(BOOK, MARKET))["notes"] == [said]
    without = BOOK.model_copy(
        update={"positions": tuple(p for p in BOOK.positions if p.instrument.type != "option")}
    )
    assert built(kind).margin(without, MARKET).notes == ()
    moving = History(factors=("ETH", "BTC", "ETH.vol"), returns=np.column_stack([RETURNS, RETURNS[:, 1]]))
    assert built(kind, history=moving).margin(BOOK, MARKET).notes == ()


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"confidence": 0.99, "initial_confidence": 0.98}, "is below confidence"),
        ({"initial_confidence": 0.999}, "rows say nothing of 0.999; give 1000 or more"),
        ({"confidence": 1.0}, "less than 1"),
        ({"periods": 0}, "greater than 0"),
        ({"history": {"factors": ["ETH"], "returns": [[0.1], [float("nan")]]}}, "finite number"),
        ({"history": {"factors": ["ETH", "ETH"], "returns": [[0.1, 0.1]] * 3}}, "named twice"),
        ({"history": {"factors": ["ETH"], "returns": [[0.1], [0.1, 0.2]]}}, "row 2 of the history has 2"),
        ({"history": {"factors": ["ETH"], "returns": [[0.1]]}}, "history of 1 rows"),
        ({"confidance": 0.9}, "did you mean 'confidence'"),
    ],
)
def test_parameters_that_cannot_be_are_refused_in_one_line(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(InputError, match=text) as refused:
        built("var.historical", **settings)
    assert "\n" not in str(refused.value)
