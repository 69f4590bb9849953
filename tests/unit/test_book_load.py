"""Shared books as files: what is read, what is refused and how; what is written is read back."""

from __future__ import annotations

import hashlib
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from contracts_abi.errors import InputError
from simulation.book import load, rows
from simulation.book.bounds import check_book, morpho_bonus_bps, within_limits
from simulation.book.dump import Form, dump_book, save_book
from simulation.book.health import lending_accounts, perp_accounts, wallet_leverage
from simulation.book.load import equal_books, load_book, origin_of, parse_book
from simulation.book.tables import json_schema
from simulation.book.types import BackingKind, SharedBook, Side

FORMS: tuple[Form, ...] = ("inline", "csv", "parquet")
ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = [ROOT / "examples" / name for name in ("hedged.toml", "market.toml")]
HEDGED = EXAMPLES[0].read_text(encoding="utf-8")
MARKET = EXAMPLES[1].read_text(encoding="utf-8")

MORPHO = """
schema = "shared-book/1"
timestamp = 1
tokens.WETH = { price = 2000 }
tokens.USDC = { price = 1, decimals = 6 }
[[lending]]
name = "morpho"
kind = "morpho-blue"
[lending.reserves.WETH]
ltv_bps = 8600
liquidation_threshold_bps = 8600
rate = { optimal = 0.9, slope1 = 0, slope2 = 0 }
[lending.reserves.USDC]
rate = { optimal = 0.9, slope1 = 0.03, slope2 = 0.12 }
idle_supply = 2000
[[account]]
wallet = "a"
venue = "morpho"
collateral = { WETH = 1 }
debt = { USDC = 1700 }
"""


def changed(text: str, old: str, new: str) -> bytes:
    """Return a book with a part replaced, which has to be there."""
    assert old in text, old
    return text.replace(old, new, 1).encode()


def refusal(text: str, old: str, new: str) -> str:
    """Return the line with which a changed book is refused."""
    with pytest.raises(InputError) as caught:
        parse_book(changed(text, old, new), "b.toml")
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith("b.toml: ")
    assert caught.value.fix
    return line


# ---------------------------------------------------------------------------------------------------- reading


def test_the_hedged_book_is_read_as_it_is_written() -> None:
    book = load_book(EXAMPLES[0])
    assert [token.symbol for token in book.tokens] == ["WETH", "USDC"]
    assert book.tokens[1].backing is not None
    assert book.tokens[1].backing.kind is BackingKind.STABLE
    assert book.timestamp == 1_775_001_600
    assert book.wallets == ("hedger", "unhedged")
    assert book.positions.wallet.tolist() == [0, 0, 1, 1]
    assert book.positions.token.tolist() == [0, 1, 0, 1]
    assert book.positions.side.tolist() == [Side.COLLATERAL, Side.DEBT] * 2
    assert book.positions.amount.tolist() == [100.0, 150_000.0] * 2
    assert book.perp_positions.size.tolist() == [-100.0]
    assert book.perp_positions.margin.tolist() == [30_000.0]
    assert book.lending[0].reserve("WETH").liquidation_bonus_bps == 500
    digest = hashlib.sha256(EXAMPLES[0].read_bytes()).hexdigest()
    assert book.source == f"written by hand, for the documentation; sha256 {digest}"
    assert origin_of(book) == "written by hand, for the documentation"


def test_accounts_are_worth_what_a_pencil_says() -> None:
    book = load_book(EXAMPLES[0])
    accounts = lending_accounts(book)
    assert accounts.collateral.tolist() == [200_000.0] * 2
    assert accounts.borrow_limit.tolist() == pytest.approx([161_000.0] * 2)
    assert accounts.health_factor.tolist() == pytest.approx([166_000 / 150_000] * 2)
    perps = perp_accounts(book)
    assert (perps.equity.tolist(), perps.initial.tolist()) == ([30_000.0], [10_000.0])
    assert perps.maintenance.tolist() == pytest.approx([6_000.0])
    assets, leverage = wallet_leverage(book)
    assert assets.tolist() == [200_000.0] * 2
    assert leverage.tolist() == [4.0] * 2


def test_a_category_replaces_the_limits_of_its_members_alone() -> None:
    accounts = lending_accounts(load_book(EXAMPLES[1]))
    # The looper: 1,000 wstETH at 2,400 under 93 % and 95 %, 1,090 WETH owed.
    assert accounts.emode[0] == 1
    assert accounts.borrow_limit[0] == pytest.approx(2_400_000 * 0.93)
    assert accounts.health_factor[0] == pytest.approx(2_400_000 * 0.95 / 2_180_000)
    # The whale's wstETH on Aave is in no category.
    assert accounts.borrow_limit[2] == pytest.approx(2_000_000 * 0.805 + 480_000 * 0.785)


def test_a_category_leaves_the_limits_of_other_tokens() -> None:
    book = parse_book(changed(MARKET, "{ wstETH = 1_000.0 }", "{ wstETH = 1_000.0, USDC = 1_000.0 }"))
    # USDC is in no category: its own 75 % and 78 %, although the account is in one.
    accounts = lending_accounts(book)
    assert accounts.borrow_limit[0] == pytest.approx(2_400_000 * 0.93 + 1_000 * 0.75)
    assert accounts.liquidation_limit[0] == pytest.approx(2_400_000 * 0.95 + 1_000 * 0.78)


def test_a_morpho_market_needs_no_bonus() -> None:
    book = parse_book(MORPHO.encode())
    assert book.lending[0].reserve("WETH").liquidation_bonus_bps == 438
    # The reference's own figures for the incentive factor.
    assert [morpho_bonus_bps(lltv) for lltv in (3850, 6250, 9450)] == [1500, 1267, 167]


def test_a_book_can_be_sent_to_a_worker() -> None:
    book = load_book(EXAMPLES[0])
    assert equal_books(pickle.loads(pickle.dumps(book)), book)


# --------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("text", "old", "new", "words"),
    [
        (HEDGED, 'kind = "aave-v3.6"', 'kind = "aave-v36"', ("lending.0.kind", "did you mean 'aave-v3.6'")),
        (
            HEDGED,
            "collateral = { WETH",
            "collateral = { WET",
            ("account.0 (hedger on aave)", "WET", "did you mean 'WETH'"),
        ),
        (HEDGED, "collateral = { WETH = 100.0", "collateral = { WETH = -1.0", ("account.0.collateral.WETH",)),
        (HEDGED, "collateral = { WETH = 100.0", "collateral = { WETH = 0", ("what is 0 is left out",)),
        (HEDGED, "collateral = { WETH = 100.0", 'collateral = { WETH = "9"', ("without quotes",)),
        (
            HEDGED,
            "debt = { USDC = 150_000.0",
            "debt = { USDC = 161_001.0",
            ("account hedger on aave", "161,001.00 USD", "161,000.00 USD", "over_limit"),
        ),
        (HEDGED, "margin = 30_000.0", "margin = 9_999.0", ("hedger on perps", "9,999.00", "10,000.00")),
        (HEDGED, "price = 2000.0\n", "", ("tokens.WETH.price: is missing", "US dollars")),
        (HEDGED, "price = 2000.0\n", "price = nan\n", ("tokens.WETH.price",)),
        (HEDGED, "price = 2000.0\n", "prize = 2000.0\n", ("did you mean 'price'",)),
        (
            MARKET,
            'kind = "stable", token = "USD"',
            'kind = "stable", token = "wstETH"',
            (),
        ),
        (HEDGED, "threshold_bps = 8300", "threshold_bps = 8000", ("8000 is below ltv_bps 8050",)),
        (
            HEDGED,
            "bonus_bps = 500",
            "bonus_bps = 2100",
            ("8300", "2100", "100.43%", "lower the bonus to 2048 or the threshold to 8264"),
        ),
        (MARKET, 'name = "compound-usdc"', 'name = "aave"', ("venue 'aave' stands twice",)),
        (HEDGED, 'name = "perps"', 'name = "aave"', ("venue 'aave' stands twice",)),
        (HEDGED, 'venue = "perps"\nmargin', 'venue = "perp"\nmargin', ("did you mean 'perps'",)),
        (HEDGED, 'wallet = "unhedged"', 'wallet = "hedger"', ("account.2", "account.0")),
        (HEDGED, "optimal = 0.92, slope1 = 0.022", "optimal = 1.2, slope1 = 0.022", ("rate.optimal: 1.2",)),
        (HEDGED, "slope2 = 0.06", "slope2 = 11", ("reserves.WETH.rate.slope2: 11",)),
        (HEDGED, "slope2 = 0.06", "slope2 = 0.01", ("slope2 0.01 is below slope1 0.022",)),
        (HEDGED, "reserve_factor_bps = 1500", "reserve_factor_bps = 15000", ("15000 is not in 0 to 10000",)),
        (HEDGED, "reserve_factor_bps = 1500", "supply_cap = 1e11", ("supply_cap", "68719476735")),
        (HEDGED, "idle_supply = 2_000_000.0", "idle_supply = 299_000.0", ("300,000 USDC", "by 1,000")),
        (HEDGED, "maintenance_margin = 0.03", "maintenance_margin = 0.06", ("initial_margin: 0.05",)),
        (HEDGED, "perp = { WETH = {", "perp = { USDC = {", ("unknown market 'USDC'",)),
        (HEDGED, "margin = 30_000.0\n", "", ("a position without margin on perps",)),
        (
            HEDGED,
            "debt = { USDC",
            "margin = 3.0\ndebt = { USDC",
            ("account.0 (hedger on aave): margin where",),
        ),
        (HEDGED, "timestamp = 2026-04-01T00:00:00Z", "timestamp = 1900-01-01T00:00:00Z", ("timestamp",)),
        (HEDGED, "timestamp = 2026-04-01T00:00:00Z", "timestamp = 99999999999999999", ("timestamp",)),
        (
            HEDGED,
            "collateral = { WETH = 100.0 }\ndebt = { USDC = 150_000.0 }",
            "",
            ("account.0 (hedger on aave): holds and owes nothing",),
        ),
        (HEDGED, 'schema = "shared-book/1"', 'schema = "shared-book/2"', ("schema",)),
        (HEDGED, "timestamp = 2026-04-01T00:00:00Z", "timestamp = true", ("timestamp", "is no time")),
        (HEDGED, "points = 15", "points = 1", ("exit.0.model.points",)),
        (HEDGED, "depth = 20_000.0, smallest", "volume = 1.0, smallest", ("has no depth",)),
        (HEDGED, 'venue = "model"\ndate = 2026-04-01', 'venue = "model"\ndate = "April"', ("date 'April'",)),
        (HEDGED, 'token = "WETH"\nquote', 'token = "WBTC"\nquote', ("exit.0.token", "WBTC")),
        (MARKET, 'tokens = ["WETH", "wstETH"]', 'tokens = ["WETH", "DAI"]', ("emode.1.tokens", "DAI")),
        (MARKET, "emode = 1", "emode = 2", ("looper on aave: aave has no eMode category 2", "known: 1")),
        (MARKET, "debt = { WETH = 1_090.0 }", "debt = { USDC = 9.0 }", ("USDC", "eMode category 1")),
        (MARKET, "bonus_bps = 100\n", "bonus_bps = 600\n", ("emode.1", "100.70%")),
        (MARKET, "ltv_bps = 8250", "ltv_bps = 8950", ("ltv_bps 8950 is not below",)),
        (
            MARKET,
            "collateral = { WETH = 300.0 }\ndebt = { USDC = 250_000.0 }",
            "collateral = { USDC = 300.0 }\ndebt = { USDC = 2.0 }",
            ("careful on compound-usdc: has as collateral USDC",),
        ),
        (
            MARKET,
            "debt = { USDC = 250_000.0 }",
            "debt = { wstETH = 2.0 }",
            ("careful on compound-usdc: owes wstETH", "lends USDC only"),
        ),
        (MARKET, "0.003, 0.02, 0.06]", "0.003, 0.002, 0.06]", ("slippage.3 0.002 is below 0.003",)),
        (MARKET, "size = [10.0, 100.0", "size = [100.0, 100.0", ("size.1 100 is not above 100",)),
        (MARKET, "0.02, 0.06]", "0.02, 1.0]", ("slippage.4 1 is not in [0, 1)",)),
        (MARKET, "0.02, 0.06]", "0.02]", ("5 sizes and 4 slippages",)),
        (MORPHO, "threshold_bps = 8600", "threshold_bps = 8700", ("one figure for both",)),
        (MORPHO, "threshold_bps = 8600", "threshold_bps = 8600\nliquidation_bonus_bps = 500", ("write 438",)),
        (MORPHO, "idle_supply = 2000", "reserve_factor_bps = 2600", ("a quarter of the interest",)),
        (MORPHO, "debt = { USDC = 1700 }", "debt = { USDC = 1721 }", ("1,721.00", "1,720.00")),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(text: str, old: str, new: str, words: tuple[str, ...]) -> None:
    if not words:
        # Round in a circle: USDC -> wstETH -> WETH, and WETH is let stand on USDC.
        text = text.replace(
            "[tokens.WETH]\n", '[tokens.WETH]\nbacking = { kind = "wrapped", token = "USDC" }\n'
        )
        words = ("goes round in a circle", "WETH -> USDC -> wstETH -> WETH")
    line = refusal(text, old, new)
    for word in words:
        assert word in line


def test_prices_may_have_moved_where_the_book_says_so() -> None:
    text = changed(HEDGED, "debt = { USDC = 150_000.0", "debt = { USDC = 190_000.0")
    book = parse_book(text.replace(b"timestamp", b'over_limit = "allow"\ntimestamp', 1))
    assert lending_accounts(book).health_factor[0] < 1
    again = dump_book(book, "x.toml")["x.toml"]
    assert b'over_limit = "allow"' in again
    assert equal_books(parse_book(again), book, source=False)


def test_sizes_have_a_limit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(load, "MAX_TOML_BYTES", 1 << 20)
    monkeypatch.setattr(rows, "MAX_ROWS", 3)
    big = tmp_path / "big.toml"
    big.write_bytes(HEDGED.encode() + b"#" * (1 << 20))
    with pytest.raises(InputError, match="larger than 1 MiB"):
        load_book(big)
    path = tmp_path / "h.toml"
    save_book(load_book(EXAMPLES[0]), path, "csv")
    with pytest.raises(InputError, match="6 rows, at most 3"):
        load_book(path)


# ---------------------------------------------------------------------------------------------------- tables


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Return a book whose positions are in `t.csv` beside it."""
    head = HEDGED.partition("# Long 100 WETH")[0].replace("timestamp", 'positions = "t.csv"\ntimestamp', 1)
    path = tmp_path / "t.toml"
    path.write_text(head, encoding="utf-8")
    return path


GOOD = "wallet,venue,token,side,amount,entry\na,aave,WETH,collateral,1,\na,perps,USDC,margin,200,\n"


def test_positions_are_read_from_a_table(table: Path) -> None:
    csv = table.with_name("t.csv")
    csv.write_text(GOOD + "a,perps,WETH,perp,-1.5,2010\n,,,,,\n".replace(",,,,,\n", ""), encoding="utf-8")
    book = load_book(table)
    assert book.perp_positions.size.tolist() == [-1.5]
    assert perp_accounts(book).equity.tolist() == [200 + 1.5 * 10]
    both = hashlib.sha256(table.read_bytes() + csv.read_bytes()).hexdigest()
    assert book.source.endswith(both)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("a,aave,WETH,collateral,1,\n", ("row 3", "row 1", "add them up")),
        ("b,aave,WETH,colateral,1,\n", ("row 3", "did you mean 'collateral'")),
        ("b,aawe,WETH,collateral,1,\n", ("row 3", "did you mean 'aave'")),
        ("b,aave,WETH,collateral,x1,\n", ("row 3, amount", "'x1' is no number")),
        ("b,aave,WETH,collateral,,\n", ("row 3, amount: is missing",)),
        ("b,aave,WETH,collateral,-1,\n", ("row 3, amount: -1 is not above 0",)),
        ("b,aave,WETH,collateral,1e31,\n", ("row 3, amount",)),
        ("b,aave,WETH,collateral,1,5\n", ("row 3, entry: 5 of a collateral",)),
        (",aave,WETH,collateral,1,\n", ("row 3: no wallet",)),
        ("b,perps,WETH,margin,1,\n", ("row 3, token", "write USDC")),
        ("b,perps,WETH,perp,1,2000\n", ("row 3: a position without margin",)),
        ("a,perps,WETH,perp,1,\n", ("row 3, entry: is missing",)),
        ("b,aave,WETH\n", ("cannot be read",)),
    ],
)
def test_bad_rows_are_named(table: Path, rows: str, words: tuple[str, ...]) -> None:
    table.with_name("t.csv").write_text(GOOD + rows, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        load_book(table)
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ("wallet,venue,token,side,amout", "did you mean 'amount'"),
        ("wallet,venue,token,side", "no column 'amount'"),
    ],
)
def test_bad_columns_are_named(table: Path, header: str, words: str) -> None:
    table.with_name("t.csv").write_text(header + "\n", encoding="utf-8")
    with pytest.raises(InputError, match=words):
        load_book(table)


def test_a_table_is_beside_the_book(table: Path) -> None:
    text = table.read_text(encoding="utf-8")
    for name in ("../t.csv", "/t.csv"):
        table.write_text(text.replace("t.csv", name), encoding="utf-8")
        with pytest.raises(InputError, match="not beside the book"):
            load_book(table)
    table.write_text(text.replace("t.csv", "t.xls"), encoding="utf-8")
    table.with_name("t.xls").write_text(GOOD, encoding="utf-8")
    with pytest.raises(InputError, match="of no known format"):
        load_book(table)
    with pytest.raises(InputError, match="beside no file"):
        parse_book(text.encode())


def test_a_category_is_the_same_in_all_rows(tmp_path: Path) -> None:
    path = tmp_path / "m.toml"
    save_book(load_book(EXAMPLES[1]), path, "csv")
    rows = path.with_suffix(".csv").read_text(encoding="utf-8")
    path.with_suffix(".csv").write_text(rows.replace('"1090.0","1.0"', '"1090.0",'), encoding="utf-8")
    with pytest.raises(InputError, match="looper is in eMode 1 and 0 of aave"):
        load_book(path)


def test_parquet_numbers_may_be_whole(table: Path) -> None:
    rows = pa.table(
        {"wallet": ["a"], "venue": ["aave"], "token": ["WETH"], "side": ["collateral"], "amount": [2]}
    )
    parquet.write_table(rows, table.with_name("t.parquet"))
    table.write_text(table.read_text(encoding="utf-8").replace("t.csv", "t.parquet"), encoding="utf-8")
    assert load_book(table).positions.amount.tolist() == [2.0]


def test_margin_may_be_dollars(tmp_path: Path) -> None:
    text = HEDGED.replace('margin_token = "USDC"', 'margin_token = "USD"')
    book = parse_book(text.encode())
    assert perp_accounts(book).equity.tolist() == [30_000.0]
    for form in FORMS:
        save_book(book, tmp_path / "usd.toml", form)
        assert equal_books(load_book(tmp_path / "usd.toml"), book, source=False)


def test_an_account_whose_category_changed_is_read_back(tmp_path: Path) -> None:
    text = changed(MARKET, "debt = { WETH = 1_090.0 }", "debt = { USDC = 1_000_000.0 }")
    book = parse_book(text.replace(b"timestamp", b'over_limit = "allow"\ntimestamp', 1))
    assert not within_limits(book)
    save_book(book, tmp_path / "b.toml")
    assert equal_books(load_book(tmp_path / "b.toml"), book, source=False)
    assert within_limits(load_book(EXAMPLES[1]))


def test_names_may_hold_anything(tmp_path: Path) -> None:
    book = replace(load_book(EXAMPLES[0]), wallets=('a "b", c\nd\t\x7f', "NA"))
    for form in FORMS:
        save_book(book, tmp_path / "n.toml", form)
        assert equal_books(load_book(tmp_path / "n.toml"), book, source=False)


def test_an_exit_is_read_from_a_table(tmp_path: Path) -> None:
    text = HEDGED[: HEDGED.index("model = { kind")] + 'table = "weth.csv"\n'
    (tmp_path / "b.toml").write_text(text, encoding="utf-8")
    csv = tmp_path / "weth.csv"
    csv.write_text("size,slippage\n10,0.001\n100,0.02\n", encoding="utf-8")
    (exit_,) = load_book(tmp_path / "b.toml").exits
    assert (exit_.size.tolist(), exit_.slippage.tolist()) == ([10.0, 100.0], [0.001, 0.02])
    assert exit_.source == "weth.csv"
    csv.write_text("size,slippage\n10,a\n", encoding="utf-8")
    with pytest.raises(InputError, match="line 2: '10,a'"):
        load_book(tmp_path / "b.toml")


# ------------------------------------------------------------------------------------------------- round trip


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
@pytest.mark.parametrize("form", ["inline", "csv", "parquet"])
def test_what_is_written_is_read_back(path: Path, form: Form, tmp_path: Path) -> None:
    book = load_book(path)
    files = save_book(book, tmp_path / "out.toml", form)
    assert len(files) == (1 if form == "inline" else 2)
    again = load_book(tmp_path / "out.toml")
    assert equal_books(again, book, source=False)
    assert origin_of(again) == origin_of(book)
    # And from then on nothing changes, the hash included.
    save_book(again, tmp_path / "out.toml", form)
    assert equal_books(load_book(tmp_path / "out.toml"), again)


def test_books_that_differ_are_not_equal() -> None:
    book = load_book(EXAMPLES[0])
    other = parse_book(changed(HEDGED, "size = -100.0", "size = -100.00001"))
    assert not equal_books(book, other, source=False)
    assert not equal_books(
        book, parse_book(changed(HEDGED, "price = 2000.0", "price = 2001.0")), source=False
    )


def test_no_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        load_book(tmp_path / "none.toml")
    with pytest.raises(InputError, match="cannot write"):
        save_book(load_book(EXAMPLES[0]), tmp_path / "none" / "b.toml")
    (tmp_path / "bad.toml").write_bytes(b"\xff")
    with pytest.raises(InputError, match="not UTF-8"):
        load_book(tmp_path / "bad.toml")


def test_the_schema_names_every_table() -> None:
    schema = json_schema()
    assert {"tokens", "lending", "perps", "account", "exit", "option"} <= schema["properties"].keys()
    assert "ReserveTable" in schema["$defs"]


def test_the_check_takes_books_made_in_code() -> None:
    book: SharedBook = load_book(EXAMPLES[0])
    check_book(book)
    spoilt = book.positions.amount.copy()
    spoilt[0] = np.nan
    with pytest.raises(InputError, match="account hedger on aave: amount nan of WETH"):
        check_book(replace(book, positions=replace(book.positions, amount=spoilt)))
