"""Who is surely above its maintenance margin: the kernel says what the method says one by one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keeper.commands import keeper_scan
from keeper.commands.keeper_scan import scan_book, scanned
from simulation.margin import margin_methods
from simulation.margin.baselines import Cross, Stress
from simulation.margin.result import PortfolioMethod
from simulation.portfolio.instruments import Future, Perpetual, Portfolio, Position
from simulation.portfolio.market import Market
from simulation.risk.screen import surely_above
from tests.many_accounts import BOOK, MARKET, drawn


@pytest.mark.parametrize("method", [Cross(), Stress()], ids=["cross", "stress"])
def test_the_kernel_agrees_with_the_method(method: PortfolioMethod) -> None:
    accounts = drawn(300)
    above = surely_above(method, accounts, MARKET)
    standings = np.array([scanned(method, account, MARKET)["standing"] for account in accounts])
    np.testing.assert_array_equal(above, standings == "above")
    assert 60 < above.sum() < 240


@pytest.mark.parametrize("method", [Cross(), Stress()], ids=["cross", "stress"])
def test_what_is_unknown_refused_or_at_the_edge_is_asked(method: PortfolioMethod) -> None:
    rich = Portfolio(account="rich", cash=1e6)
    missing = Position(instrument=Perpetual(underlying="DOGE"), quantity=0.0)
    expired = Position(instrument=Future(underlying="ETH", expiry=1), quantity=1.0)
    long = Position(instrument=Perpetual(underlying="ETH"), quantity=1.0)
    needed = method.margin(Portfolio(cash=0.0, positions=(long,)), MARKET).maintenance_requirement
    odd = [
        rich,
        rich.model_copy(update={"account": "missing", "positions": (missing,)}),
        rich.model_copy(update={"account": "expired", "positions": (expired,)}),
        Portfolio(account="edge", cash=needed / MARKET.stable_price, positions=(long,)),
        Portfolio(account="enough", cash=(needed + 1e-3) / MARKET.stable_price, positions=(long,)),
        Portfolio(account="short", cash=(needed - 1e-3) / MARKET.stable_price, positions=(long,)),
        Portfolio(account="empty"),
    ]
    assert surely_above(method, odd, MARKET).tolist() == [True, False, False, False, True, False, False]
    unpriced = MARKET.model_copy(update={"stable_price": float("nan")})
    assert not surely_above(method, odd, unpriced).any()


def test_a_method_without_a_kernel_is_asked_for_everybody() -> None:
    class More(Cross):
        """Another method, which may ask for more than what it is derived from."""

    for method in (More(), margin_methods.build({"kind": "derive.pmrm2"})):
        assert not surely_above(method, drawn(5), MARKET).any()
    assert surely_above(Cross(), [], MARKET).shape == (0,)


def test_a_scan_asks_nobody_who_is_surely_above(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    book = json.loads(BOOK.read_text(encoding="utf-8"))
    book["portfolios"] = [account.model_dump(mode="json") for account in drawn(60, ("perpetual", "future"))]
    path = tmp_path / "many.json"
    path.write_text(json.dumps(book), encoding="utf-8")
    names: list[str] = []

    def told(method: PortfolioMethod, portfolio: Portfolio, market: Market) -> dict[str, Any]:
        names.append(portfolio.account)
        return scanned(method, portfolio, market)

    monkeypatch.setattr(keeper_scan, "scanned", told)
    found: dict[bool, Any] = {}
    for list_all in (False, True):
        names.clear()
        scan_book("cross", path, market=None, list_all=list_all, as_json=True)
        found[list_all] = json.loads(capsys.readouterr().out)
        assert (len(names) == 60) == list_all
    assert found[False]["accounts"] == found[True]["accounts"] == 60
    assert found[False]["under"] == found[True]["under"] > 0
    shown = [row for row in found[True]["rows"] if row["standing"] != "above"]
    assert found[False]["rows"] == shown
    scan_book("cross", path, market=None, list_all=False, as_json=False)
    assert "60 accounts by cross" in capsys.readouterr().out
