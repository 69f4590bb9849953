"""The tools with the methods of venues: nothing in them is made for one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from contracts_abi.errors import InputError
from simulation.margin.result import PortfolioMethod
from simulation.portfolio.instruments import Option, Perpetual, Portfolio, Position
from simulation.portfolio.load import load_book
from simulation.risk.attribution import euler, incremental
from simulation.risk.hedge import Candidate, hedge
from simulation.risk.report import default_methods, full_report

BOOK = load_book(Path(__file__).resolve().parents[2] / "examples" / "book.json")
EXPIRY = 1_798_185_600
STRIKES = (2400.0, 2700.0, 3000.0, 3300.0, 3800.0)
KINDS = (
    "cme.span", "cross", "deribit.spm", "derive.auction", "derive.pmrm", "derive.pmrm2", "derive.srm",
    "isolated", "occ.tims", "paradex.scan", "stress",
)  # fmt: skip
"""Methods whose requirement doubles with the account."""
METHODS = [
    pytest.param(method, id=kind)
    for kind, method, _ in default_methods()
    if method is not None and kind in KINDS
]


def option(strike: float, call: bool) -> Option:
    return Option(underlying="ETH", expiry=EXPIRY, strike=strike, call=call)


def random_account(rng: np.random.Generator) -> Portfolio:
    """Return five options and a perpetual on ether, with some cash."""
    positions = [
        Position(
            instrument=option(float(rng.choice(STRIKES)), bool(rng.integers(2))),
            quantity=float(8 * rng.normal()),
        )
        for _ in range(5)
    ]
    positions.append(Position(instrument=Perpetual(underlying="ETH"), quantity=float(5 * rng.normal())))
    return Portfolio(account="drawn", cash=float(rng.uniform(0, 12_000)), positions=tuple(positions))


CHEAP = (
    Candidate(Perpetual(underlying="ETH"), None, 3.0, 3.0),
    *(Candidate(option(strike, call), None, 5.0, 5.0) for strike in STRIKES for call in (True, False)),
)


@pytest.mark.parametrize("method", METHODS)
def test_parts_sum_and_hedges_restore(method: PortfolioMethod) -> None:
    rng = np.random.default_rng(5)
    for _ in range(6):
        portfolio = random_account(rng)
        try:
            result = method.margin(portfolio, BOOK.market)
        except InputError:
            pytest.skip("knows no options")
        size = 1.0 + abs(result.maintenance_requirement)
        assert abs(euler(method, portfolio, BOOK.market).rest) < 1e-8 * size
        assert abs(incremental(method, portfolio, BOOK.market).rest) < 1e-9 * size
        # Cash so that a fifth of the requirement is missing.
        missing = 0.8 * result.maintenance_requirement - result.equity
        short = portfolio.model_copy(update={"cash": portfolio.cash + missing})
        if result.maintenance_requirement < 1_000:
            continue
        assert method.margin(short, BOOK.market).maintenance < 0
        found = hedge(method, short, BOOK.market, CHEAP)
        assert found.found, found.reason
        assert method.margin(found.after, BOOK.market).maintenance >= 0
        assert 0 < found.cost < 0.8 * result.maintenance_requirement


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("account", ["covered", "strangle", "naked", "spread"])
def test_every_part_of_a_report_is_there_or_says_why(method: PortfolioMethod, account: str) -> None:
    try:
        report = full_report(method, BOOK.account(account), BOOK.market)
    except InputError:
        pytest.skip("refuses the account")
    json.dumps(report, allow_nan=False)
    for name in ("greeks", "contributions", "savings", "distance", "broken_hedges", "restore"):
        assert not (isinstance(report[name], dict) and "reason" in report[name]), report[name]


def test_a_kink_within_a_step_is_seen() -> None:
    """A spread that wins a little in every scenario: nothing is required, and no part of anything."""
    (cross,) = [m for kind, m, _ in default_methods() if kind == "stress"]
    assert cross is not None
    rng = np.random.default_rng(11)
    for _ in range(40):
        portfolio = random_account(rng)
        shared = euler(cross, portfolio, BOOK.market)
        assert abs(shared.rest) < 1e-6 * (1 + shared.requirement)
