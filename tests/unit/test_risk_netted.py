"""What netted methods say from the sums of the whole is what they say asked one position at a time."""

from __future__ import annotations

import pytest

from contracts_abi.errors import InputError
from simulation.margin.baselines import Cross, Stress
from simulation.margin.result import PortfolioMethod
from simulation.portfolio.instruments import Perpetual, Portfolio, Position
from simulation.risk.attribution import Attribution, Which, euler, incremental, leave_one_out
from simulation.risk.broken_hedge import LegOf, broken_hedges
from simulation.risk.netted import netted_book
from simulation.risk.report import full_report, largest_positions
from simulation.risk.savings import savings
from tests.many_accounts import MARKET, drawn


class AskedCross(Cross):
    """The same method by another class: it is asked one position at a time."""


class AskedStress(Stress):
    """As `AskedCross`."""


PAIRS = [(Cross(), AskedCross()), (Stress(), AskedStress())]


def amounts(found: Attribution) -> list[float]:
    return [*(c.amount for c in found.contributions), found.requirement, found.rest]


@pytest.mark.parametrize(("method", "asked"), PAIRS, ids=["cross", "stress"])
def test_the_sums_of_the_whole_say_what_the_method_says(
    method: PortfolioMethod, asked: PortfolioMethod
) -> None:
    accounts = [a for a in drawn(30) if a.positions][:10]
    assert len(accounts) == 10
    for account in accounts:
        assert netted_book(method, account, MARKET) is not None
        assert netted_book(asked, account, MARKET) is None
        for which in Which:
            for way in (incremental, leave_one_out):
                assert amounts(way(method, account, MARKET, which)) == pytest.approx(
                    amounts(way(asked, account, MARKET, which)), abs=1e-7
                )
            # A slope by differences: rounding is multiplied by the inverse of the step.
            assert amounts(euler(method, account, MARKET, which)) == pytest.approx(
                amounts(euler(asked, account, MARKET, which)), rel=1e-6, abs=1e-4
            )
            saved, one_by_one = (savings(m, account, MARKET, which) for m in (method, asked))
            assert (saved.isolated, saved.requirement) == pytest.approx(
                (one_by_one.isolated, one_by_one.requirement), abs=1e-7
            )
            for leg_of in LegOf:
                legs, others = (
                    broken_hedges(m, account, MARKET, leg_of=leg_of, which=which) for m in (method, asked)
                )
                by_label = {leg.label: leg for leg in others}
                assert len(legs) == len(by_label)
                for leg in legs:
                    other = by_label[leg.label]
                    assert leg.positions == other.positions
                    assert (leg.liquidated, leg.defaulted) == pytest.approx(
                        (other.liquidated, other.defaulted), abs=1e-7
                    )


@pytest.mark.parametrize("method", [Cross(), Stress()], ids=["cross", "stress"])
def test_an_unknown_price_is_refused_as_before(method: PortfolioMethod) -> None:
    held = Portfolio(positions=(Position(instrument=Perpetual(underlying="DOGE"), quantity=1.0),))
    for tool in (euler, incremental, leave_one_out, savings):
        with pytest.raises(InputError, match="is unknown: no price of DOGE"):
            tool(method, held, MARKET)


def many(count: int, cash: float) -> Portfolio:
    """Return perpetuals in so many positions, each larger than the one before, of both sides by turns."""
    held = tuple(
        Position(instrument=Perpetual(underlying="ETH"), quantity=(i + 1.0) * (-1) ** i, protocol=f"p{i}")
        for i in range(count)
    )
    return Portfolio(account="many", cash=cash, positions=held)


def test_of_many_positions_the_largest_are_told_of() -> None:
    portfolio, last = many(101, 1e6), list(range(81, 101))
    found = full_report(AskedCross(), portfolio, MARKET)
    assert found["notes"] == [
        "of 101 positions contributions, broken hedges and trades that restore the margin are told for the "
        "20 largest by notional, and savings left out; --all asks for each"
    ]
    every = full_report(AskedCross(), portfolio, MARKET, every=True)
    assert every["notes"] == []
    for way in ("initial", "maintenance", "leave_one_out"):
        some, all_ = (r["contributions"][way] for r in (found, every))
        assert [c["position"] for c in some["positions"]] == [f"ETH perpetual at p{i}" for i in last]
        assert [c["amount"] for c in some["positions"]] == pytest.approx(
            [all_["positions"][i]["amount"] for i in last], abs=1e-5
        )
        assert some["requirement"] == pytest.approx(
            some["rest"] + sum(c["amount"] for c in some["positions"])
        )
    # The last twenty are the last of the file, so that what comes before them is the same.
    some, all_ = (r["contributions"]["incremental"]["positions"] for r in (found, every))
    assert [c["amount"] for c in some] == pytest.approx([c["amount"] for c in all_[81:]])
    assert {leg["leg"] for leg in found["broken_hedges"]} == {f"ETH perpetual at p{i}" for i in last}
    assert found["savings"] == {"reason": "not asked for 101 positions; --all asks"}
    assert set(every["savings"]) == {"isolated", "requirement", "saved", "share"}
    assert full_report(AskedCross(), many(100, 1e6), MARKET)["notes"] == []
    for each, notes in ((Cross(), 0), (AskedCross(), 1)):
        assert len(full_report(each, portfolio, MARKET)["notes"]) == notes


def test_trades_are_looked_for_in_the_largest() -> None:
    under = many(101, -1.0e4)
    assert largest_positions(under, MARKET, 2) == (99, 100)
    found = full_report(Cross(), under, MARKET)
    assert found["restore"]["deposit"] > 0
    assert "trades that restore the margin are told for the 20 largest" in found["notes"][0]
