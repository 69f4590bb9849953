"""A user's portfolio files: the same book from every format, and one line for each bad cell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from contracts_abi.errors import InputError, UnknownNameError
from simulation.margin.scenario_grid import Scenario, VolRule, VolShock, grid, profit_under, scenario_set
from simulation.portfolio.flat import flat_book, options_grid, profit_grid, worst_of_all
from simulation.portfolio.frames import frame_of, portfolios_from, results_frame
from simulation.portfolio.instruments import Option, Perpetual, Portfolio, Position
from simulation.portfolio.load import BadCells, MarginBook, book_of, dumped_book, load_book, unix_time

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
CHRISTMAS = 1_798_185_600
SHOCKS = {
    "down": VolShock(rule=VolRule.TERM, size=-0.25, least=0.1),
    "same": VolShock(),
    "up": VolShock(rule=VolRule.PARALLEL, size=0.5, least=0.9),
}
MOVES = (-0.3, -0.1, 0.0, 0.1, 0.3)


@pytest.fixture(scope="module")
def book() -> MarginBook:
    return load_book(EXAMPLES / "book.json")


def written(folder: Path, text: str) -> Path:
    (folder / "book.market.json").write_text('{"underlyings": {"ETH": {"spot": 3000}}}', encoding="utf-8")
    path = folder / "book.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_examples_hold_the_same(book: MarginBook) -> None:
    assert load_book(EXAMPLES / "book.csv") == book
    assert [p.account for p in book.portfolios] == ["covered", "strangle", "naked", "spread"]
    option = book.portfolios[0].positions[1].instrument
    assert isinstance(option, Option)
    # A date alone is 08:00 UTC: 1798185600 is Friday, 25 December 2026, 08:00:00 UTC.
    assert option.expiry == CHRISTMAS
    assert set(book.market.underlyings["ETH"].expiries) == {CHRISTMAS, 1_806_048_000}


def test_parquet_and_frames_hold_the_same(book: MarginBook, tmp_path: Path) -> None:
    frame = frame_of(book.portfolios)
    assert portfolios_from(frame) == book.portfolios
    typed = frame.convert_dtypes()
    assert portfolios_from(typed) == book.portfolios
    path = tmp_path / "positions.parquet"
    typed.to_parquet(path)
    assert load_book(path, EXAMPLES / "book.json") == book
    # Dates as pandas has them.
    dated = frame.assign(expiry=pd.to_datetime(frame["expiry"].astype("Int64"), unit="s", utc=True))
    assert portfolios_from(dated) == book.portfolios
    with pytest.raises(InputError, match=r"positions\.market\.json or positions\.json"):
        load_book(path)


def test_a_column_that_stands_twice_is_seen_in_every_format(book: MarginBook, tmp_path: Path) -> None:
    frame = frame_of(book.portfolios)
    double = pd.concat([frame, frame[["strike"]]], axis=1)
    with pytest.raises(InputError, match="frame: the column 'strike' stands twice"):
        portfolios_from(double)
    path = tmp_path / "positions.parquet"
    table = pa.table([pa.array(["spot"]), pa.array(["ETH"]), pa.array([1.0]), pa.array([2.0])],
                     names=["type", "asset", "quantity", "quantity"])  # fmt: skip
    parquet.write_table(table, path)
    with pytest.raises(InputError, match="the column 'quantity' stands twice"):
        load_book(path, EXAMPLES / "book.json")
    path.write_bytes(b"PAR1 is no table PAR1")
    with pytest.raises(InputError, match="is no Parquet file"):
        load_book(path, EXAMPLES / "book.json")


def test_dumped_and_read_again(book: MarginBook) -> None:
    assert book_of(json.loads(json.dumps(dumped_book(book)))) == book


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("1798185600", CHRISTMAS),
        ("1798185600.0", CHRISTMAS),
        ("2026-12-25", CHRISTMAS),
        ("2026-12-25T08:00:00", CHRISTMAS),
        ("2026-12-25T08:00:00Z", CHRISTMAS),
        ("2026-12-25T10:00+02:00", CHRISTMAS),
    ],
)
def test_times(text: str, seconds: int) -> None:
    assert unix_time(text) == seconds


HEAD = "account,type,underlying,expiry,strike,option,inverse,quantity,volatility\n"


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("a,option,ETH,2026-12-25,-5,call,,1,", "row 2, strike: '-5' is not above 0; give a positive number"),
        (
            "a,option,ETH,20261225,3000,call,,1,",
            "expiry: '20261225' could be a date or seconds; write a date as",
        ),
        ("a,option,ETH,25DEC26,3000,call,,1,", "row 2, expiry: '25DEC26' is no time; write 2026-12-25T08"),
        ("a,option,ETH,1798185600000,3000,put,,1,", "expiry: '1798185600000' is too large for seconds"),
        ("a,option,ETH,2026-12-25,3000,caal,,1,", "row 2, option: 'caal' is neither call nor put"),
        ("a,option,ETH,2026-12-25,3000,,,1,", "row 2, option: '' is missing"),
        ("a,option,ETH,2026-12-25,3000,call,,1,65", "'65' is no volatility between 0 and 10; write 65 %"),
        ("a,option,ETH,2026-12-25,3000,call,maybe,1,", "inverse: 'maybe' is neither true nor false"),
        ("a,perpetual,ETH,,3000,,,1,", "strike: '3000' stands in a row of type perpetual, which has none"),
        ("a,perpetual,ETH,,,,,nan,", "quantity: 'nan' is no number"),
        ("a,perpetual,ETH,,,,,1_000,", "quantity: '1_000' is no number"),
        ("a,swap,ETH,,,,,1,", "row 2, type: 'swap' is no type; write one of spot, perpetual"),
        ("a,spot,,,,,,1,", "row 2, underlying: '' is missing"),
        (",spot,ETH,,,,,1,", "row 2, account: '' is missing"),
        ("a,spot,ETH,,1", "row 2, all: 'a,spot,ETH,,1' is 5 cells, the header has 9; mend"),
    ],
)
def test_a_bad_cell_is_one_line(tmp_path: Path, line: str, told: str) -> None:
    with pytest.raises(BadCells) as caught:
        load_book(written(tmp_path, HEAD + line + "\n"))
    assert str(caught.value).startswith("book.csv: ")
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(caught.value.cells) == 1


def test_all_bad_cells_are_found(tmp_path: Path) -> None:
    text = HEAD + "a,spot,ETH,,,,,1,\n\na,option,ETH,soon,-1,call,,x,\nb,spot,ETH,,,,,one,\n"
    with pytest.raises(BadCells, match="and 3 more bad cells") as caught:
        load_book(written(tmp_path, text))
    assert [(c.row, c.column) for c in caught.value.cells] == [
        ("row 4", "quantity"),
        ("row 4", "expiry"),
        ("row 4", "strike"),
        ("row 5", "quantity"),
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("account,type,underling,quantity\n", "unknown column 'underling'; did you mean 'underlying'"),
        ("type,asset,underlying,quantity\n", "the column 'underlying' stands twice"),
        ("type,underlying\n", "no column 'quantity'"),
        ("type,underlying,quantity\n", "has no positions"),
        ("", "is empty"),
    ],
)
def test_bad_headers(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        load_book(written(tmp_path, text))


def test_semicolons_assets_and_a_mark_of_order_are_read(tmp_path: Path) -> None:
    path = written(tmp_path, "\ufefftype;asset;quantity\nspot;ETH;2\ncash;;-5.5\n")
    (portfolio,) = load_book(path).portfolios
    assert (portfolio.account, portfolio.cash, len(portfolio.positions)) == ("account", -5.5, 1)


OPTION = {"type": "option", "underlying": "ETH", "expiry": CHRISTMAS, "strike": 1.0, "call": True}


@pytest.mark.parametrize(
    ("position", "told"),
    [
        ({"instrument": {**OPTION, "strike": 0}, "quantity": 1}, r"0\.instrument, strike: '0' should be"),
        ({"instrument": {**OPTION, "expiry": "x"}, "quantity": 1}, r"positions\.0\.instrument, expiry: 'x'"),
        ({"instrument": {**OPTION, "strikes": 0}, "quantity": 1}, r"did you mean 'strike'"),
        ({"instrument": OPTION}, r"portfolios\.0\.positions\.0, quantity: '' is missing; add the key"),
        (
            {"instrument": OPTION, "quantity": float("nan")},
            r"quantity: 'nan' should be a finite number",
        ),
        ({"instrument": {"type": "swap"}, "quantity": 1}, "type: 'swap' is no type; known types: spot, perp"),
        ({"instrument": OPTION, "quantity": True}, "quantity: 'True' is no number"),
        ({"instrument": OPTION, "quantity": "1"}, "quantity: '1' is no number"),
        ({"instrument": OPTION, "quantity": -1e31}, r"quantity: '-1e\+31' is too large; give at most 1e\+30"),
        (
            {"instrument": OPTION, "quantity": 1, "volatility": 65},
            "volatility: '65' is no volatility between",
        ),
        (
            {"instrument": OPTION, "quantity": 1, "unrealised": 5.0},
            "unrealised: '5.0' stands in a position of type option, which has none",
        ),
        (
            {"instrument": {"type": "perpetual", "underlying": "ETH"}, "quantity": 1, "volatility": 0.5},
            "volatility: '0.5' stands in a position of type perpetual",
        ),
    ],
)
def test_a_bad_key_is_one_line(position: Any, told: str) -> None:
    data = {"market": {}, "portfolios": [{"account": "a", "positions": [position]}]}
    with pytest.raises(BadCells, match=told) as caught:
        book_of(data, "book.json")
    assert str(caught.value).startswith("book.json: ")
    assert "\n" not in str(caught.value)


def test_a_markets_volatility_in_percent_is_refused() -> None:
    expiry = {str(CHRISTMAS): {"forward": 3_000, "volatility": 65}}
    data = {"market": {"underlyings": {"ETH": {"spot": 3_000, "expiries": expiry}}}, "portfolios": [{}]}
    with pytest.raises(BadCells, match=rf"expiries\.{CHRISTMAS}, volatility: '65' is no volatility"):
        book_of(data)


@pytest.mark.parametrize("key", ["2026-12-25", str(CHRISTMAS)])
def test_an_expiry_is_told_by_its_date(key: str) -> None:
    expiry = {key: {"forward": 3_000, "volatility": -0.7}}
    data = {"market": {"underlyings": {"ETH": {"spot": 3_000, "expiries": expiry}}}, "portfolios": [{}]}
    with pytest.raises(BadCells, match=r"expiries\.2026-12-25T08:00:00Z, volatility: '-0.7' should be"):
        book_of(data)


def test_books_that_are_none(tmp_path: Path, book: MarginBook) -> None:
    twice = {"market": {}, "portfolios": [{"account": "a"}, {"account": "a"}]}
    with pytest.raises(InputError, match="two portfolios of account 'a'"):
        book_of(twice)
    with pytest.raises(InputError, match="no object"):
        book_of([])
    double = {"market": {"underlyings": {"ETH": {"spot": 1, "expiries": {
        "2026-12-25": {"forward": 1}, str(CHRISTMAS): {"forward": 1},
    }}}}, "portfolios": [{}]}  # fmt: skip
    with pytest.raises(InputError, match="stands twice"):
        book_of(double)
    path = tmp_path / "bad.json"
    path.write_text('{"market": {}, "market": {}}', encoding="utf-8")
    with pytest.raises(InputError, match="the key 'market' stands twice"):
        load_book(path)
    path.write_text('{"market": {', encoding="utf-8")
    with pytest.raises(InputError, match=r"bad\.json: line 1"):
        load_book(path)
    path.write_text("[" * 200_000, encoding="utf-8")
    with pytest.raises(InputError, match="nests deeper than 64"):
        load_book(path)
    with pytest.raises(InputError, match="known format"):
        load_book(tmp_path / "book.xlsx")
    with pytest.raises(InputError, match="no file"):
        load_book(tmp_path / "none.csv")
    with pytest.raises(UnknownNameError, match="did you mean 'strangle'"):
        book.account("strangel")


# ------------------------------------------------------------------------------------------------------ flat


def test_all_accounts_at_once_lose_what_each_alone_loses(book: MarginBook) -> None:
    flat = flat_book(book.portfolios)
    # Three entries of ETH's December call and so on; the calls of two accounts are one row of the grid.
    assert flat.accounts == ("covered", "strangle", "naked", "spread")
    assert flat.start.tolist() == [0, 2, 5, 6, 9]
    assert len(flat.listed) == 8
    assert flat.symbols == ("ETH", "BTC")
    assert flat.expiries.tolist() == [CHRISTMAS, 1_806_048_000]
    assert flat.unrealised.tolist() == [0.0, -35.5, 0.0, 0.0]
    scenarios = grid(MOVES, SHOCKS)
    worst = worst_of_all(flat, book.market, scenarios)
    for i, portfolio in enumerate(book.portfolios):
        alone = profit_under(portfolio, book.market, scenarios).sum(axis=1)
        assert worst.profit[i] == pytest.approx(alone.min(), rel=1e-12)
        assert worst.scenario[i] == int(np.argmin(alone))


def test_positions_of_one_instrument_are_one_entry(book: MarginBook) -> None:
    held = Position(instrument=Perpetual(underlying="ETH", inverse=True), quantity=1000.0, unrealised=30.0)
    portfolio = Portfolio(positions=(held, held))
    flat = flat_book([portfolio, Portfolio(account="empty", cash=5.0)])
    assert flat.quantity.tolist() == [2000.0, 60.0]
    assert [each.coin for each in flat.listed] == [False, True]
    scenarios = grid(MOVES, {"same": VolShock()})
    alone = profit_under(portfolio, book.market, scenarios).sum(axis=1)
    worst = worst_of_all(flat, book.market, scenarios)
    assert worst.profit.tolist() == pytest.approx([alone.min(), 0.0], rel=1e-12)


def test_the_option_kernel_prices_what_the_grid_does(book: MarginBook) -> None:
    flat = flat_book(book.portfolios)
    scenarios = grid(MOVES, SHOCKS)
    kernel, at = options_grid(flat, book.market, scenarios, "ETH")
    prices = kernel.prices()
    now = options_grid(flat, book.market, grid((0.0,), {"same": VolShock()}), "ETH")[0].prices()
    expected = profit_grid(flat, book.market, scenarios)[at]
    assert len(at) == 4
    np.testing.assert_allclose(prices - now, expected, rtol=1e-11, atol=1e-9)


@pytest.mark.parametrize(
    "scenario",
    [
        Scenario(label="later", seconds=60),
        Scenario(label="points", volatility=VolShock(rule=VolRule.ADDITIVE, size=0.1)),
    ],
)
def test_the_option_kernel_refuses_what_it_does_not_know(book: MarginBook, scenario: Scenario) -> None:
    with pytest.raises(InputError, match="use profit_grid"):
        options_grid(flat_book(book.portfolios), book.market, scenario_set([scenario]), "ETH")


def test_no_results_are_an_empty_frame() -> None:
    assert results_frame([]).empty
