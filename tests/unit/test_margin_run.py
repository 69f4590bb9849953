"""``marginline margin run``, ``margin compare`` and ``keeper scan`` of a portfolio file."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from contracts_abi.errors import InputError
from keeper.commands.margin_run import method_named
from simulation.margin import margin_methods
from simulation.margin.derive_auction import DeriveAuction
from simulation.margin.derive_pmrm2 import DerivePmrm2
from simulation.margin.result import status_of
from simulation.margin.var_historical import History
from simulation.portfolio.instruments import Perpetual, Portfolio, Position, Spot
from simulation.portfolio.load import COLUMNS, book_of, load_book
from simulation.risk.report import compared, default_methods, plain
from simulation.types import MarginStatus
from tests.command_line import ROOT, Inside

BOOK, CSV = str(ROOT / "examples" / "book.json"), str(ROOT / "examples" / "book.csv")
GUIDE = (ROOT / "docs" / "margin-book.md").read_text(encoding="utf-8")


@pytest.fixture
def inside(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Inside:
    monkeypatch.setenv("COLUMNS", "150")
    return Inside(monkeypatch, capsys)


# -------------------------------------------------------------------------------------------------------- run


def test_a_full_report(inside: Inside) -> None:
    (report,) = inside("margin", "run", "cross", BOOK, "--account", "strangle", "--json").json()["accounts"]
    assert set(report) >= {
        "equity", "initial", "initial_requirement", "maintenance", "maintenance_requirement", "margin_ratio",
        "worst", "scenarios", "components", "greeks", "contributions", "savings", "distance", "broken_hedges",
        "restore", "parameters_hash", "grade", "source",
    }  # fmt: skip
    assert report["initial"] == pytest.approx(report["equity"] - report["initial_requirement"])
    parts = report["contributions"]["initial"]
    assert sum(p["amount"] for p in parts["positions"]) + parts["rest"] == pytest.approx(parts["requirement"])
    assert parts["rest"] == pytest.approx(0, abs=1e-5)
    assert len(report["scenarios"]) == 27
    lowest = min(report["scenarios"], key=lambda row: row["profit"])
    assert (lowest["label"], -lowest["profit"]) == (report["worst"], report["initial_requirement"])
    assert [(row["underlying"], row["expiry"]) for row in report["greeks"]] == [
        ("ETH", None), ("ETH", 1_798_185_600),
    ]  # fmt: skip
    assert {row["factor"] for row in report["distance"]} == {"price:ETH", "volatility", "time"}
    assert [leg["takes_the_rest"] for leg in report["broken_hedges"]] == [False] * 3
    assert report["savings"]["share"] == pytest.approx(1 - report["maintenance_requirement"]
                                                       / report["savings"]["isolated"])  # fmt: skip


def test_every_account_of_every_format(inside: Inside) -> None:
    from_json = inside("margin", "run", "cross", BOOK, "--json").json()
    from_csv = inside("margin", "run", "cross", CSV, "--json").json()
    assert from_json == from_csv
    assert [a["account"] for a in from_json["accounts"]] == ["covered", "strangle", "naked", "spread"]


def test_people_get_tables(inside: Inside) -> None:
    shown = inside("margin", "run", "cross", BOOK, "--account", "naked")
    assert shown.code == 0
    for text in (
        "naked  liquidatable  cross", "margin ratio", "worst 8 of 27 scenarios", "ETH 2026-12-25 3000 put",
        "liquidatable now", "isolated margin", "vega and rho by 1 %", "missing: ", "leave one out",
    ):  # fmt: skip
        assert text in shown.out, text


def test_a_refused_account_stops_no_other(inside: Inside) -> None:
    reports = inside("margin", "run", "derive.pmrm2", BOOK, "--json").json()["accounts"]
    assert [("refused" in report) for report in reports] == [True, False, False, True]
    assert "refused: " in inside("margin", "run", "derive.pmrm2", BOOK).out
    line = inside("margin", "run", "derive.pmrm2", BOOK, "--account", "spread").line()
    assert "has no future" in line


def test_an_unknown_price_is_no_margin(inside: Inside, tmp_path: Path) -> None:
    path = tmp_path / "book.csv"
    path.write_text("type,underlying,quantity\nperpetual,SOL,1\n", encoding="utf-8")
    ran = inside("margin", "run", "cross", str(path), "--market", BOOK, "--json").json()
    (report,) = ran["accounts"]
    assert (report["status"], report["reason"]) == ("unknown", "no price of SOL")
    assert (report["equity"], report["maintenance"]) == (None, None)
    assert "contributions" not in report
    assert "no price of SOL" in inside("margin", "run", "cross", str(path), "--market", BOOK).out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("margin", "run", "crosss", BOOK), "unknown margin method 'crosss'; did you mean 'cross'"),
        (
            ("margin", "run", "derive.srm@mainet", BOOK),
            "unknown parameter set of derive.srm 'mainet'; did you",
        ),
        (("margin", "run", "cross@x", BOOK), "unknown parameter set of cross 'x'; known: none"),
        (("margin", "run", "none.toml", BOOK), "none.toml: No such file"),
        (("margin", "run", "cross", "none.json"), "no file none.json"),
        (
            ("margin", "run", "cross", BOOK, "--account", "nake"),
            "unknown account 'nake'; did you mean 'naked'",
        ),
        (("keeper", "scan", BOOK), "a portfolio file goes with --method"),
        (("keeper", "scan", "--method", "cross", "-c", "nowhere.toml"), "nowhere.toml"),
    ],
)
def test_what_is_wrong_is_one_line(inside: Inside, words: tuple[str, ...], told: str) -> None:
    assert told in inside(*words).line()


def test_methods_from_files_and_sets(tmp_path: Path, inside: Inside) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('kind = "cross"\n[parameters]\nmoves = [-0.5, 0.5]\n', encoding="utf-8")
    assert (
        inside("margin", "run", str(path), BOOK, "--json").json()["accounts"][0]["worst"]
        == "spot -50 %, vol up"
    )
    assert method_named("derive.srm@test").parameters != method_named("derive.srm").parameters
    path.write_text("[parameters]\n", encoding="utf-8")
    assert "no kind" in inside("margin", "run", str(path), BOOK).line()
    path.write_text('kind = "cross"\nmovs = 1\n', encoding="utf-8")
    assert "unknown key 'movs'" in inside("margin", "run", str(path), BOOK).line()


# ---------------------------------------------------------------------------------------------------- compare


def test_all_methods_side_by_side(inside: Inside) -> None:
    rows = inside("margin", "compare", BOOK, "--json").json()
    assert {row["method"] for row in rows} == set(margin_methods)
    assert len(rows) == 4 * len(margin_methods)
    for row in rows:
        if not row["applies"]:
            assert row["reason"], row
            assert "\n" not in row["reason"]
    found = {(row["account"], row["method"]): row for row in rows if row["applies"]}
    for account in ("covered", "strangle", "naked", "spread"):
        netted, alone = found[account, "cross"], found[account, "isolated"]
        assert netted["initial_requirement"] <= alone["initial_requirement"] + 1e-9
    # Between perpetual and future there is no other risk: netting saves nearly all.
    assert (
        found["spread", "cross"]["initial_requirement"]
        < 0.1 * found["spread", "isolated"]["initial_requirement"]
    )


def test_a_page_with_tables_and_plots(inside: Inside, tmp_path: Path) -> None:
    page = tmp_path / "compare.html"
    shown = inside("margin", "compare", BOOK, "--html", str(page))
    assert f"written: {page}" in shown.out.replace("\n", "")
    text = page.read_text(encoding="utf-8")
    assert text.count("<svg") == text.count("<h2>") == 4
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
    for part in text.split("<svg")[1:]:
        svg = ElementTree.fromstring("<svg" + part.partition("</svg>")[0] + "</svg>")
        wide = float(svg.get("width", "0"))
        for bar in svg.iter("{http://www.w3.org/2000/svg}rect"):
            assert 0 <= float(bar.get("width", "-1")) <= wide
    assert "folder" in inside("margin", "compare", BOOK, "--html", str(tmp_path)).line()


def test_what_users_write_is_no_markup(inside: Inside, tmp_path: Path) -> None:
    path, page = tmp_path / "book.csv", tmp_path / "page.html"
    path.write_text("account,type,underlying,quantity\n[red]<b>,perpetual,ETH,1\n", encoding="utf-8")
    words = (
        "margin",
        "compare",
        str(path),
        "--market",
        BOOK,
        "--method",
        "cross",
        "--method",
        "derive.srm@test",
    )
    shown = inside(*words, "--html", str(page))
    assert "[red]<b>" in shown.out
    assert "derive.srm@test" in shown.out
    assert "&lt;b&gt;" in page.read_text(encoding="utf-8")
    assert "[red]<b>" in inside("margin", "run", "cross", str(path), "--market", BOOK).out
    assert "[red]<b>" in inside("keeper", "scan", str(path), "--method", "cross", "--market", BOOK).out


def test_methods_with_one_reason_are_one_line(inside: Inside) -> None:
    lines = inside("margin", "compare", BOOK, "--account", "spread").out.splitlines()
    assert (
        "derive.pmrm, derive.pmrm2, derive.pmrm2.1, derive.srm: has no future; it knows spot, perpetual and "
        "option, none of them inverse"
    ) in lines
    assert sum("name a file with its keys" in line for line in lines) == 1


@pytest.mark.parametrize("columns", ["80", "150"])
def test_a_narrow_terminal_keeps_names_and_figures(
    inside: Inside, monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    out = inside("margin", "compare", BOOK, "--account", "strangle").out
    assert "…" not in out
    assert "derive.auction  7,257.01   3,484.40     3,029.92   4,227.10" in out
    # A table may leave the reasons out, not the command.
    assert (
        "ETH is no collateral of derive.pmrm2"
        in inside("keeper", "scan", BOOK, "--method", "derive.pmrm2").out
    )
    assert "derive.srm" in inside("margin", "methods").out


def test_a_factor_is_no_dollars_and_a_debt_without_a_trade_has_no_empty_table(
    inside: Inside, tmp_path: Path
) -> None:
    path = tmp_path / "book.csv"
    path.write_text("type,underlying,quantity\nspot,ETH,5\nspot,USDC,-12450.1\n", encoding="utf-8")
    market = tmp_path / "book.market.json"
    market.write_text(
        '{"timestamp": 1795000000, "underlyings": {"ETH": {"spot": 3000}}, "assets": {"USDC": {"price": 1}}}',
        encoding="utf-8",
    )
    out = inside("margin", "run", "lending.health_factor", str(path)).out
    assert "0.9999 (a ratio)" in out
    assert "missing: 0.10; no trade of a single position at the mark brings it back" in out


def test_a_method_that_does_not_apply_says_why() -> None:
    book = load_book(Path(BOOK))
    rows = {row.method: row for row in compared(default_methods(), book.account("covered"), book.market)}
    assert rows["derive.pmrm2"].result is None
    assert rows["derive.pmrm2"].reason.startswith("ETH is no collateral of derive.pmrm2")


# ----------------------------------------------------------------------------------------------------- keeper


def test_a_scan_lists_who_is_under(inside: Inside) -> None:
    found = inside("keeper", "scan", BOOK, "--method", "derive.pmrm2", "--json").json()
    assert (found["accounts"], found["under"]) == (4, 1)
    assert [(row["account"], row["standing"]) for row in found["rows"]] == [
        ("naked", "under"), ("covered", "refused"), ("spread", "refused"),
    ]  # fmt: skip
    naked = found["rows"][0]
    method, book = method_named("derive.pmrm2"), load_book(Path(BOOK))
    result = method.margin(book.account("naked"), book.market)
    assert naked["shortfall"] == pytest.approx(-result.maintenance)
    assert naked["worst"] == result.worst == "spot -18 %, vol up"
    assert naked["reason"].startswith("requires 3,258 of an equity of 2,339; the largest part is scan risk")
    bid = naked["first_bid"]
    # 95 % of what is left of the equity after the fee, times the largest part.
    assert bid["price"] == pytest.approx(0.95 * (result.equity - bid["fee"]))
    assert bid["paid"] == pytest.approx(bid["price"] * bid["max_fraction"])
    assert bid["cash_needed"] > bid["paid"]
    assert not bid["insolvent"]


def test_a_scan_without_an_auction_and_with_all(inside: Inside) -> None:
    found = inside("keeper", "scan", BOOK, "--method", "cross", "--all", "--json").json()
    assert [row["standing"] for row in found["rows"]] == ["under", "above", "above", "above"]
    assert found["rows"][0]["first_bid"] is None
    shown = inside("keeper", "scan", CSV, "--method", "derive.pmrm2")
    assert "4 accounts by derive.pmrm2: 1 under maintenance, 2 without an answer" in shown.out
    assert "for 4" in shown.out


def test_an_insolvent_account_pays_its_bidder(inside: Inside, tmp_path: Path) -> None:
    path = tmp_path / "book.csv"
    path.write_text(
        "type,underlying,expiry,strike,option,quantity\noption,ETH,2026-12-25,3000,put,-10\ncash,,,,,100\n",
        encoding="utf-8",
    )
    (row,) = inside(
        "keeper", "scan", str(path), "--method", "derive.pmrm2", "--market", BOOK, "--json"
    ).json()["rows"]
    assert row["reason"] == "the equity of -2,061 is gone"
    assert row["first_bid"]["insolvent"]
    assert row["first_bid"]["paid"] == pytest.approx(row["equity"])


def at_the_edge(tmp_path: Path, unrealised: float, cash: float = 261.3) -> str:
    """Return a book whose perpetual needs 261.3 dollars under `derive.srm@test`."""
    perpetual = {"instrument": {"type": "perpetual", "underlying": "ETH"}, "quantity": 2}
    book = {
        "market": {"timestamp": 0, "underlyings": {"ETH": {"spot": 2000, "perpetual": 2010}}},
        "portfolios": [{"cash": cash, "positions": [{**perpetual, "unrealised": unrealised}]}],
    }
    path = tmp_path / "edge.json"
    path.write_text(json.dumps({"schema": "margin-book/1", **book}), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("unrealised", "units", "standing", "status"),
    [(-1e-14, -10_000, "under", "liquidatable"), (0.0, 0, "above", "healthy")],
)
def test_integers_decide_at_the_edge(
    inside: Inside, tmp_path: Path, unrealised: float, units: int, standing: str, status: str
) -> None:
    """A float has 0 left in both, which is not below zero."""
    path = at_the_edge(tmp_path, unrealised)
    method, book = method_named("derive.srm@test"), load_book(Path(path))
    assert method.margin(book.portfolios[0], book.market).maintenance == 0
    (row,) = inside("keeper", "scan", path, "--method", "derive.srm@test", "--all", "--json").json()["rows"]
    assert (row["standing"], row["decided_by"], row["mm_wad"]) == (standing, "integers", str(units))
    assert f"integers decide: {units} units of 1e-18" in row["reason"]
    # The auction starts where integers say so.
    assert (row["first_bid"] is not None) == (standing == "under")
    assert "no auction starts" not in row["reason"]
    (report,) = inside("margin", "run", "derive.srm@test", path, "--json").json()["accounts"]
    assert report["status"] == status
    assert report["decision"] == {"decided_by": "integers", "mm_wad": str(units)}
    assert f"integers decide, {units} units" in inside("margin", "run", "derive.srm@test", path).out
    (compared_row,) = compared([("derive.srm", method, "")], book.portfolios[0], book.market)
    assert compared_row.record["status"] == status


def test_far_from_the_edge_floats_decide(inside: Inside, tmp_path: Path) -> None:
    path = at_the_edge(tmp_path, 0.0, cash=262.0)
    (row,) = inside("keeper", "scan", path, "--method", "derive.srm@test", "--all", "--json").json()["rows"]
    assert (row["standing"], row["decided_by"], row["mm_wad"]) == ("above", "float", None)


def test_an_edge_that_integers_cannot_decide_is_unknown(inside: Inside, tmp_path: Path) -> None:
    """No contract holds 19 decimals, so that neither side of zero is known."""
    path = at_the_edge(tmp_path, -1e-19)
    (row,) = inside("keeper", "scan", path, "--method", "derive.srm@test", "--json").json()["rows"]
    assert row["standing"] == "unknown"
    assert "integers cannot decide: an unrealised profit" in row["reason"]
    (report,) = inside("margin", "run", "derive.srm@test", path, "--json").json()["accounts"]
    assert (report["status"], report["maintenance"]) == ("unknown", None)


HUGE = (
    Position(instrument=Perpetual(underlying="ETH"), quantity=3e305),
    Position(instrument=Perpetual(underlying="ETH", inverse=True), quantity=1e308),
    Position(instrument=Spot(asset="USDC"), quantity=1.6e308),
    Position(instrument=Spot(asset="ETH"), quantity=5e304),
)


@pytest.mark.parametrize("kind", ["cross", "isolated", "stress", "deribit.spm"])
def test_what_overflows_is_unknown_and_not_healthy(kind: str) -> None:
    """Infinite equity less an infinite requirement is no number, and no number is not below zero."""
    market = load_book(Path(BOOK)).market
    for held in (HUGE, (*HUGE, *HUGE)):
        result = method_named(kind).margin(Portfolio(positions=held, cash=1e308), market)
        assert result.status is MarginStatus.UNKNOWN
        assert math.isnan(result.equity)
        assert result.reason


TORN = tuple(
    Position(instrument=Perpetual(underlying=symbol), quantity=size)
    for symbol, size in (("ETH", 3e305), ("BTC", -1e304))
)


def test_losses_that_are_no_number_are_not_none_at_all() -> None:
    """The account is worth 0, so that only the losses overflow, one leg to each side."""
    market = load_book(Path(BOOK)).market
    history = History(factors=("ETH", "BTC"), returns=((0.3, 0.3), (-0.3, -0.3)) * 120)
    methods: list[Any] = [
        margin_methods.get(kind)(parameters={"history": history})
        for kind in ("var.delta_normal", "es.delta_normal")
    ]
    far = tuple(p.model_copy(update={"quantity": 1e3 * p.quantity}) for p in TORN)
    for method in (*methods, method_named("cross"), method_named("cme.span")):
        for held in (TORN, far):
            try:
                result = method.margin(Portfolio(positions=held), market)
            except InputError:
                continue
            bare = result.status is MarginStatus.NO_DEBT or result.maintenance_requirement == 0
            assert not bare, (method.kind, result)


def test_an_auctions_hash_is_of_its_manager_too(tmp_path: Path, inside: Inside) -> None:
    book = load_book(Path(BOOK))
    one, other = (
        DeriveAuction(manager=DerivePmrm2(parameters=name)).margin(book.account("naked"), book.market)
        for name in ("mainnet", "test")
    )
    assert one.parameters_hash != other.parameters_hash
    rows = inside("keeper", "scan", BOOK, "--method", "derive.auction", "--all", "--json").json()["rows"]
    (naked,) = (row for row in rows if row["account"] == "naked")
    assert naked["parameters_hash"] == one.parameters_hash


def test_a_scan_and_a_run_say_what_a_history_cannot_see(inside: Inside, tmp_path: Path) -> None:
    rows = [[0.01 * (-1) ** i, 0.02 * (-1) ** i] for i in range(300)]
    config = {
        "kind": "var.delta_normal",
        "parameters": {"history": {"factors": ["ETH", "BTC"], "returns": rows}},
    }
    path = tmp_path / "var.json"
    path.write_text(json.dumps(config), encoding="utf-8")
    found = inside("keeper", "scan", BOOK, "--method", str(path), "--all", "--json").json()["rows"]
    assert all("ETH is held still" in row["reason"] for row in found)
    assert "note: implied volatility of ETH is held still" in inside("margin", "run", str(path), BOOK).out


def test_no_number_has_no_status() -> None:
    assert status_of(math.nan, 1.0) is MarginStatus.UNKNOWN
    assert status_of(1.0, math.nan) is MarginStatus.UNKNOWN


# ------------------------------------------------------------------------------------------------------ guide


def test_the_guide_explains_every_column() -> None:
    for column, meaning in COLUMNS.items():
        assert f"| `{column}` | {meaning} |" in GUIDE


def test_the_guides_examples_can_be_read(tmp_path: Path) -> None:
    blocks: dict[str, Any] = {}
    for part in GUIDE.split("```")[1::2]:
        language, _, text = part.partition("\n")
        blocks.setdefault(language, text)
    book = book_of(json.loads(blocks["json"]))
    (tmp_path / "mine.json").write_text(blocks["json"], encoding="utf-8")
    (tmp_path / "mine.csv").write_text(blocks["csv"], encoding="utf-8")
    assert load_book(tmp_path / "mine.csv").portfolios == book.portfolios
    method_file = tmp_path / "derive.toml"
    method_file.write_text(blocks["toml"], encoding="utf-8")
    method = method_named(str(method_file))
    for portfolio in book.portfolios:
        assert method.margin(portfolio, book.market).initial_requirement > 0


def test_infinite_is_nothing_in_json() -> None:
    assert plain({"a": (float("inf"), 1), "b": "x"}) == {"a": [None, 1], "b": "x"}
