"""``marginline book``: what generate, show, check and schema print, and how they end."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from contracts_abi.errors import CheckFailed, InputError
from keeper.cli import app
from keeper.commands.book import health_picture, summary
from simulation.book.dump import save_book
from simulation.book.load import load_book

ROOT = Path(__file__).resolve().parents[2]
MARKET = ROOT / "examples" / "market.toml"
HEDGED = ROOT / "examples" / "hedged.toml"


def run(*words: str) -> str:
    ran = CliRunner().invoke(app, ["book", *words], env={"COLUMNS": "120"})
    if ran.exception is not None and not isinstance(ran.exception, SystemExit):
        raise ran.exception
    assert ran.exit_code == 0, ran.output
    return ran.stdout


def test_show_draws_venues_tokens_and_health() -> None:
    text = run("show", str(MARKET))
    assert "5 wallets, 13 lending positions" in text
    assert "compound-usdc" in text
    assert "leverage, assets over equity: mean" in text
    assert "exit WETH to USDC: model, 15 sizes, 2026-04-01" in text
    assert f" 1.02 to 1.05          1  {'█' * 14}\n" in text


def test_the_summary_adds_up() -> None:
    found = json.loads(run("show", str(MARKET), "--json"))
    aave, compound = found["venues"]
    # looper 2.4 M, borrower 1 M, whale 2.48 M, dollars 1 M; owed 2.18 M, 0.7 M, 1.7 M, 0.6 M.
    assert (aave["accounts"], aave["collateral_usd"], aave["debt_usd"]) == (4, 6_880_000.0, 5_180_000.0)
    assert (compound["collateral_usd"], compound["debt_usd"]) == (2_040_000.0, 1_350_000.0)
    leverage = found["leverage"]
    assert leverage["of_all"] == pytest.approx(8.92 / (8.92 - 6.53))
    assert sum(row["accounts"] for row in found["health_factor"]) == 6
    assert found["source"] == load_book(MARKET).source
    hedged = json.loads(run("show", str(HEDGED), "--json"))
    assert hedged["venues"][1] == {
        "name": "perps",
        "kind": "perpetuals",
        "accounts": 1,
        "equity_usd": 30_000.0,
        "notional_usd": 200_000.0,
        "below_maintenance": 0,
    }


def test_generate_writes_a_book_that_checks(tmp_path: Path) -> None:
    out = tmp_path / "g.toml"
    run("generate", "--seed", "3", "--accounts", "2000", "--out", str(out))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["g.parquet", "g.toml"]
    assert "2,000 wallets on 6 venues, in order" in run("check", str(out))
    first = out.read_bytes(), (tmp_path / "g.parquet").read_bytes()
    found = json.loads(run("generate", "--seed", "3", "--accounts", "2000", "--out", str(out), "--json"))
    assert found["leverage"]["mean"] == pytest.approx(1.65, abs=0.01)
    assert (out.read_bytes(), (tmp_path / "g.parquet").read_bytes()) == first
    words = ["generate", "--out", str(out), "--accounts", "50", "--positions", "csv"]
    told = json.loads(run(*words, "--market", str(MARKET), "--json"))
    assert [note.partition(":")[0] for note in told["notes"]] == ["no hedgers", "no traders"]
    assert load_book(out).tokens == load_book(MARKET).tokens
    told = json.loads(run(*words, "--market", str(HEDGED), "--leverage", "2", "--json"))
    assert [note.partition(":")[0] for note in told["notes"]] == ["no loopers"]


@pytest.mark.parametrize("command", ["generate", "merge"])
def test_a_book_of_somebody_else_is_not_written_over(tmp_path: Path, command: str) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_bytes(HEDGED.read_bytes())
    words = {"generate": ["--accounts", "20"], "merge": [str(HEDGED), str(HEDGED)]}[command]
    with pytest.raises(InputError, match=r"mine\.toml: mine\.toml is there, and no command of ours wrote it"):
        run(command, *words, "--out", str(mine))
    assert mine.read_bytes() == HEDGED.read_bytes()
    (tmp_path / "prices.csv").write_text("time,WETH\n", "utf-8")
    csv = ["--positions", "csv", "--out", str(tmp_path / "prices.toml")]
    with pytest.raises(InputError, match=r"prices\.csv is there"):
        run(command, *words, *csv)
    with pytest.raises(InputError, match=r"a book is a \.toml file; for example .*other\.toml"):
        run(command, *words, "--out", str(tmp_path / "other.csv"))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["mine.toml", "prices.csv"]


def test_books_of_ours_are_written_over(tmp_path: Path) -> None:
    one, two, both = (tmp_path / name for name in ("one.toml", "two.toml", "both.toml"))
    run("generate", "--accounts", "1", "--out", str(one))
    assert run("check", str(one)).startswith(f"{one}: 1 wallet on 6 venues")
    two.write_text(
        HEDGED.read_text("utf-8").replace('"aave"', '"other"').replace('"perps"', '"more"'), "utf-8"
    )
    for seed in ("1", "3"):
        run("generate", "--accounts", "20", "--seed", seed, "--market", str(HEDGED), "--out", str(one))
        run("merge", str(one), str(two), "--out", str(both))
    assert "generated from seed 3" in both.read_text("utf-8")


def test_check_refuses_in_one_line_and_names_what_is_unknown(tmp_path: Path) -> None:
    bad = tmp_path / "bad.toml"
    bad.write_text(MARKET.read_text(encoding="utf-8").replace("wstETH = 1_000.0", "wstETH = 900.0"), "utf-8")
    with pytest.raises(InputError, match=r"account looper on aave: owes 2,180,000.00 USD"):
        run("check", str(bad))
    book = replace(load_book(MARKET), unknown=("aave:0x12", "aave:0x13", "aave:0x14", "aave:0x15"))
    save_book(book, bad)
    for command in ("check", "show"):
        with pytest.raises(CheckFailed, match=r"4 accounts .* aave:0x12, aave:0x13, aave:0x14, …") as caught:
            run(command, str(bad))
        assert caught.value.exit_code == 1
    with pytest.raises(InputError, match="did you mean 'csv'"):
        run("generate", "--out", str(bad), "--positions", "cvs")


def test_schema_is_json() -> None:
    assert "lending" in json.loads(run("schema"))["properties"]


def test_an_empty_book_has_no_picture() -> None:
    book = load_book(MARKET)
    empty = replace(
        book, wallets=(), positions=type(book.positions)(*(c[:0] for c in _columns(book.positions)))
    )
    found = summary(empty)
    assert health_picture(found["health_factor"]) == []
    assert found["leverage"]["mean"] is None


def _columns(rows: object) -> list[object]:
    return [getattr(rows, name) for name in ("wallet", "venue", "token", "side", "amount", "emode")]
