"""Several shared books as one: markets pulled one by one become a book in which a wallet is one owner."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np

from contracts_abi.errors import InputError
from simulation.book.bounds import check_book
from simulation.book.types import (
    LendingColumns,
    OptionColumns,
    PerpColumns,
    SharedBook,
    Token,
)
from simulation.types import Int32

MAX_PRICE_GAP: Final = 0.01
"""Relative; two prices of one token further apart are two tokens, or two times."""


def merge_books(books: Sequence[SharedBook], names: Sequence[str] = ()) -> SharedBook:
    """Return one book with all venues, wallets, positions and exits.

    A token is the same by its symbol, a wallet by its name. Of two prices of a token the first book's holds;
    the block and the time are those of the newest book.

    Parameters
    ----------
    books
        One or more.
    names
        What messages call them, as many; their files. Without it they are ``book 1``, ``book 2`` and so on.

    Raises
    ------
    InputError
        If two venues have one name, or a token has other decimals or a price more than 1 % away in another
        book. It names the two books.
    """
    if not books:
        raise InputError("no books to merge", fix="name two or more")
    called = list(names) or [f"book {i + 1}" for i in range(len(books))]
    _require_venues_once(books, called)
    tokens = _tokens(books, called)
    index = {token.symbol: i for i, token in enumerate(tokens)}
    wallets = tuple(dict.fromkeys(wallet for book in books for wallet in book.wallets))
    place = {wallet: i for i, wallet in enumerate(wallets)}
    maps = [(_map(book.wallets, place), _map([t.symbol for t in book.tokens], index)) for book in books]
    newest = max(books, key=lambda book: (book.timestamp, book.block))
    merged = SharedBook(
        tokens=tokens,
        lending=tuple(venue for book in books for venue in book.lending),
        wallets=wallets,
        positions=_lending(books, maps),
        perps=tuple(venue for book in books for venue in book.perps),
        perp_positions=_perps(books, maps),
        options=_options(books, maps),
        exits=tuple(exit_ for book in books for exit_ in book.exits),
        block=newest.block,
        timestamp=newest.timestamp,
        source="merged: " + " | ".join(book.source.replace("; sha256 ", ", sha256 ") for book in books),
        unknown=tuple(name for book in books for name in book.unknown),
    )
    check_book(merged, " + ".join(called), over_limit=True)
    return merged


def _require_venues_once(books: Sequence[SharedBook], called: Sequence[str]) -> None:
    found: dict[str, str] = {}
    for book, name in zip(books, called, strict=True):
        for venue in [*(own.name for own in book.lending), *(own.name for own in book.perps)]:
            if venue in found:
                raise InputError(
                    f"venue {venue!r} stands in {found[venue]} and in {name}",
                    fix="rename one of them in its book (of two pulled ones by --name), or leave a book out",
                )
            found[venue] = name


def _tokens(books: Sequence[SharedBook], called: Sequence[str]) -> tuple[Token, ...]:
    found: dict[str, Token] = {}
    first: dict[str, str] = {}
    for book, name in zip(books, called, strict=True):
        for token in book.tokens:
            known = found.setdefault(token.symbol, token)
            other = first.setdefault(token.symbol, name)
            if known.decimals != token.decimals:
                raise InputError(
                    f"{token.symbol} has {known.decimals} decimals in {other} and {token.decimals} in {name}",
                    fix="they are two tokens: rename one",
                )
            if abs(known.price - token.price) > MAX_PRICE_GAP * known.price:
                raise InputError(
                    f"{token.symbol} costs {known.price:g} in {other} and {token.price:g} in {name}",
                    fix="read both at one block, or rename one of them",
                )
            if known.backing is None and token.backing is not None:
                found[token.symbol] = replace(known, backing=token.backing)
    return tuple(found.values())


def _map(names: Sequence[str], place: Mapping[str, int]) -> Int32:
    return np.array([place[name] for name in names], dtype=np.int32)


def _joined(parts: Sequence[Any], dtype: Any) -> Any:
    return np.concatenate([np.asarray(part, dtype=dtype) for part in parts])


def _lending(books: Sequence[SharedBook], maps: Sequence[tuple[Int32, Int32]]) -> LendingColumns:
    rows = [book.positions for book in books]
    first = np.cumsum([0, *(len(book.lending) for book in books)])
    wallet = _joined([at[r.wallet] for r, (at, _) in zip(rows, maps, strict=True)], np.int32)
    token = _joined([at[r.token] for r, (_, at) in zip(rows, maps, strict=True)], np.int32)
    venue = _joined([r.venue + first[i] for i, r in enumerate(rows)], np.int32)
    side = _joined([r.side for r in rows], np.int8)
    order = np.lexsort((token, side, wallet, venue))
    return LendingColumns(
        wallet=wallet[order],
        venue=venue[order],
        token=token[order],
        side=side[order],
        amount=_joined([r.amount for r in rows], np.float64)[order],
        emode=_joined([r.emode for r in rows], np.int32)[order],
    )


def _perps(books: Sequence[SharedBook], maps: Sequence[tuple[Int32, Int32]]) -> PerpColumns:
    rows = [book.perp_positions for book in books]
    first = np.cumsum([0, *(len(book.perps) for book in books)])
    wallet = _joined([at[r.wallet] for r, (at, _) in zip(rows, maps, strict=True)], np.int32)
    token = _joined([at[r.token] for r, (_, at) in zip(rows, maps, strict=True)], np.int32)
    venue = _joined([r.venue + first[i] for i, r in enumerate(rows)], np.int32)
    owner = _joined([at[r.margin_wallet] for r, (at, _) in zip(rows, maps, strict=True)], np.int32)
    where = _joined([r.margin_venue + first[i] for i, r in enumerate(rows)], np.int32)
    order, margins = np.lexsort((token, wallet, venue)), np.lexsort((owner, where))
    return PerpColumns(
        wallet=wallet[order],
        venue=venue[order],
        token=token[order],
        size=_joined([r.size for r in rows], np.float64)[order],
        entry=_joined([r.entry for r in rows], np.float64)[order],
        margin_wallet=owner[margins],
        margin_venue=where[margins],
        margin=_joined([r.margin for r in rows], np.float64)[margins],
    )


def _options(books: Sequence[SharedBook], maps: Sequence[tuple[Int32, Int32]]) -> OptionColumns:
    rows = [book.options for book in books]
    wallet = _joined([at[r.wallet] for r, (at, _) in zip(rows, maps, strict=True)], np.int32)
    token = _joined([at[r.token] for r, (_, at) in zip(rows, maps, strict=True)], np.int32)
    numbers = {
        name: _joined([getattr(r, name) for r in rows], np.float64)
        for name in ("expiry", "strike", "size", "volatility")
    }
    is_call = _joined([r.is_call for r in rows], np.int8)
    order = np.lexsort((numbers["strike"], numbers["expiry"], is_call, token, wallet))
    return OptionColumns(
        wallet=wallet[order],
        token=token[order],
        is_call=is_call[order],
        **{name: values[order] for name, values in numbers.items()},
    )
