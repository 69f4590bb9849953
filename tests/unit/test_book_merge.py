"""Several books as one: a wallet is one owner over all of them, a token is one token."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from contracts_abi.errors import InputError
from simulation.book.generate import BookSpec, generate
from simulation.book.health import lending_accounts, perp_accounts
from simulation.book.load import equal_books, load_book
from simulation.book.merge import merge_books
from simulation.book.types import LendingColumns, SharedBook, Side
from tests.command_line import Inside

ROOT = Path(__file__).resolve().parents[2]
MARKET = load_book(ROOT / "examples" / "market.toml")
HEDGED = load_book(ROOT / "examples" / "hedged.toml")


def renamed(book: SharedBook, wallets: dict[str, str]) -> SharedBook:
    """Return a book whose lending venues begin with ``other-``, and with other names of wallets."""
    lending = tuple(replace(venue, name=f"other-{venue.name}") for venue in book.lending)
    return replace(book, lending=lending, wallets=tuple(wallets.get(w, w) for w in book.wallets))


def test_a_wallet_of_two_books_is_one_owner() -> None:
    both = merge_books([MARKET, renamed(HEDGED, {"hedger": "whale"})])
    assert both.wallets == ("looper", "borrower", "whale", "careful", "dollars", "unhedged")
    assert [venue.name for venue in both.lending] == ["aave", "compound-usdc", "other-aave"]
    rows, whale = both.positions, both.wallets.index("whale")
    mine = (rows.wallet == whale) & (rows.side == Side.DEBT)
    assert rows.venue[mine].tolist() == [0, 1, 2]
    assert rows.amount[mine].tolist() == [1_700_000.0, 1_100_000.0, 150_000.0]
    assert {both.tokens[t].symbol for t in rows.token[mine]} == {"USDC"}
    assert both.perp_positions.wallet.tolist() == [whale]
    assert perp_accounts(both).equity.tolist() == [30_000.0]
    assert len(both.exits) == len(MARKET.exits) + len(HEDGED.exits)


def test_nothing_is_lost_or_changed() -> None:
    first = generate(BookSpec(accounts=300), 1)
    second = renamed(generate(BookSpec(accounts=200), 2), {})
    second = replace(second, perps=(replace(second.perps[0], name="other-perps"),), unknown=("a:b",))
    both = merge_books([first, second])
    assert len(both.wallets) == 300 + 200 - len(set(first.wallets) & set(second.wallets))
    assert len(both.positions) == len(first.positions) + len(second.positions)
    for name in ("collateral", "debt", "borrow_limit", "liquidation_limit"):
        parts = [getattr(lending_accounts(book), name).sum() for book in (first, second)]
        assert getattr(lending_accounts(both), name).sum() == pytest.approx(sum(parts))
    order = np.lexsort(
        (both.positions.token, both.positions.side, both.positions.wallet, both.positions.venue)
    )
    assert (order == np.arange(len(order))).all()
    assert both.unknown == ("a:b",)
    assert equal_books(merge_books([first]), first, source=False)


BARE = replace(
    MARKET,
    tokens=(),
    lending=(),
    wallets=(),
    exits=(),
    positions=LendingColumns(
        *(np.empty(0, dtype=t) for t in (np.int32, np.int32, np.int32, np.int8)),
        np.empty(0),
        np.empty(0, dtype=np.int32),
    ),
)
"""A book of nothing, which no refusal is about."""


def test_books_that_contradict_are_refused() -> None:
    with pytest.raises(InputError, match=r"venue 'aave' stands in a\.toml and in b\.toml; rename"):
        merge_books([MARKET, HEDGED], ["a.toml", "b.toml"])
    other = renamed(HEDGED, {})
    dear = replace(other, tokens=(replace(other.tokens[0], price=2_030.0), other.tokens[1]))
    with pytest.raises(InputError, match=r"WETH costs 2000 in b\.toml and 2030 in c\.toml; read"):
        merge_books([BARE, MARKET, dear], ["a.toml", "b.toml", "c.toml"])
    coarse = replace(other, tokens=(replace(other.tokens[0], decimals=8), other.tokens[1]))
    with pytest.raises(InputError, match="WETH has 18 decimals in book 1 and 8 in book 2; they are"):
        merge_books([MARKET, coarse])
    with pytest.raises(InputError, match="no books"):
        merge_books([])


def test_what_backs_a_token_is_kept_from_any_book() -> None:
    bare = replace(MARKET, tokens=tuple(replace(token, backing=None) for token in MARKET.tokens))
    both = merge_books([bare, renamed(HEDGED, {})])
    assert both.tokens[2].backing == HEDGED.tokens[1].backing
    assert both.tokens[1].backing is None


def test_the_command_names_the_files(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    files = [str(ROOT / "examples" / name) for name in ("market.toml", "hedged.toml")]
    ran = Inside(monkeypatch, capsys)("book", "merge", *files, "--out", str(tmp_path / "both.toml"))
    assert ran.line().startswith(f"venue 'aave' stands in {files[0]} and in {files[1]}; rename one")
    assert not (tmp_path / "both.toml").exists()
