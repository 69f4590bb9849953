"""A book laid out from the positions of one protocol's accounts."""

from __future__ import annotations

from simulation.types import Asset, Book, PositionKind

ETH, USD = Asset("ETH", "0x1", 18), Asset("USD", "0x2", 6)
HELD = (0, int(PositionKind.COLLATERAL), 2.0, 0.8)
OWED = (1, int(PositionKind.DEBT), 900.0, 1.0)


def test_an_unknown_account_has_neither_state_nor_positions() -> None:
    book = Book.of_positions(
        "aave-v3",
        (ETH, USD),
        ["a", "b", "c", "d"],
        ["state of a", "state of b", None, "state of d"],
        [[HELD, OWED], None, None, []],
        block=7,
        timestamp=9,
    )
    assert (book.accounts, book.protocols, book.assets) == (("a", "b", "c", "d"), ("aave-v3",), (ETH, USD))
    assert (book.block, book.timestamp) == (7, 9)
    assert book.row_ptr.tolist() == [0, 2, 2, 2, 2]
    assert book.protocol.tolist() == [0, 0, 0, 0]
    assert book.asset.tolist() == [0, 1]
    assert book.kind.tolist() == [PositionKind.COLLATERAL, PositionKind.DEBT]
    assert book.amount.tolist() == [2.0, 900.0]
    assert book.weight.tolist() == [0.8, 1.0]
    # An account that was read, but whose debt overflows, is no more known than one that was not read.
    assert book.known.tolist() == [True, False, False, True]
    assert list(book.exact) == ["state of a", None, None, "state of d"]


def test_a_book_of_nobody_is_empty() -> None:
    book = Book.of_positions("aave-v3", (ETH,), [], [], [], block=1, timestamp=1)
    assert len(book) == 0
    assert book.row_ptr.tolist() == [0]
    assert [len(column) for column in (book.asset, book.kind, book.amount, book.weight, book.known)] == [
        0
    ] * 5
