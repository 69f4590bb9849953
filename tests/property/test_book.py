"""Shared books: whatever they hold, what is written is read back; whatever a file's bytes are, one line."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts_abi.errors import MarginlineError
from simulation.book.bounds import check_book
from simulation.book.dump import Form, dump_book
from simulation.book.load import equal_books, parse_book
from simulation.book.types import (
    Backing,
    BackingKind,
    EMode,
    ExitLiquidity,
    LendingColumns,
    LendingVenue,
    OptionColumns,
    PerpColumns,
    PerpVenue,
    RateCurve,
    Reserve,
    SharedBook,
    Token,
)

ROOT = Path(__file__).resolve().parents[2]
COUNT = int(os.environ.get("MARGINLINE_FUZZ", "1500"))
SEEDS = [(ROOT / "examples" / name).read_bytes() for name in ("hedged.toml", "market.toml")]

names = st.text(
    st.characters(exclude_categories=("Cs",), exclude_characters="\x00"), min_size=1, max_size=12
).filter(lambda name: name.strip() == name and name != "USD")
amounts = st.floats(1e-9, 1e12)
AT = RateCurve(0.9, 0.01, 0.02, 0.3)


@st.composite
def books(draw: st.DrawFn) -> SharedBook:
    """Draw a book of any names and amounts over two venues of each sort."""
    symbols = draw(st.lists(names, min_size=3, max_size=4, unique=True))
    tokens = [Token(s, draw(st.integers(0, 36)), draw(amounts)) for s in symbols]
    tokens[2] = replace(tokens[2], backing=Backing(BackingKind.STAKED, symbols[0], draw(amounts), 0.5, 7))
    wallets = tuple(draw(st.lists(names, min_size=1, max_size=4, unique=True)))
    places = draw(st.lists(names, min_size=3, max_size=3, unique=True))

    def reserve(symbol: str) -> Reserve:
        caps = draw(st.none() | st.floats(1.0, 1e9)), draw(st.none() | st.floats(1.0, 1e9))
        idle = draw(st.just(0.0) | st.floats(0, 1e12))
        return Reserve(symbol, 7_000, 8_000, 500, AT, 10, 20, 1e15 + idle, 1.0, 3.0, *caps)

    emode = EMode(3, (symbols[0], symbols[2]), 9_000, 9_300, 100, draw(st.none() | st.just((symbols[0],))))
    lending = tuple(
        LendingVenue(name, "aave-v3", tuple(map(reserve, symbols)), (emode,)) for name in places[:2]
    )
    perp = PerpVenue(
        places[2], symbols[1], {symbols[0]: 0.1}, {symbols[0]: 0.2}, 0.01, 5.0, {symbols[0]: 9.5}
    )
    cells = st.tuples(st.integers(0, 1), st.integers(0, len(wallets) - 1))
    spots = st.tuples(cells, st.integers(0, 1), st.integers(0, len(symbols) - 1))
    held = sorted(draw(st.sets(spots, max_size=6)))
    accounts = sorted(draw(st.sets(st.integers(0, len(wallets) - 1), max_size=2)))
    traded = [w for w in accounts if draw(st.booleans())]
    options = sorted(draw(st.lists(st.integers(0, len(wallets) - 1), max_size=2)))

    def floats(count: int, values: st.SearchStrategy[float]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        return np.array([draw(values) for _ in range(count)], dtype=np.float64)

    def ints(values: list[int]) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
        return np.array(values, dtype=np.int32)

    signed = amounts | amounts.map(lambda x: -x)
    strikes = np.sort(floats(len(options), amounts))
    return SharedBook(
        tokens=tuple(tokens),
        lending=lending,
        wallets=wallets,
        positions=LendingColumns(
            wallet=ints([w for (_, w), _, _ in held]),
            venue=ints([v for (v, _), _, _ in held]),
            token=ints([t for _, _, t in held]),
            side=np.array([s for _, s, _ in held], dtype=np.int8),
            amount=floats(len(held), amounts),
            emode=ints([0] * len(held)),
        ),
        perps=(perp,),
        perp_positions=PerpColumns(
            wallet=ints(traded),
            venue=ints([0] * len(traded)),
            token=ints([0] * len(traded)),
            size=floats(len(traded), signed),
            entry=floats(len(traded), amounts),
            margin_wallet=ints(accounts),
            margin_venue=ints([0] * len(accounts)),
            margin=floats(len(accounts), amounts),
        ),
        options=OptionColumns(
            wallet=ints(options),
            token=ints([1] * len(options)),
            expiry=np.full(len(options), 1.8e9 + draw(st.integers(0, 9))),
            strike=strikes,
            size=floats(len(options), signed),
            volatility=floats(len(options), st.floats(0.01, 9.0)),
            is_call=np.ones(len(options), dtype=np.int8),
        ),
        exits=(ExitLiquidity(symbols[0], "USD", "v", "2026-04-01", "s", np.array([0.1]), np.array([0.3])),),
        block=draw(st.integers(0, 10**9)),
        timestamp=draw(st.integers(0, 4 * 10**9)),
        source=draw(st.just("") | names.filter(lambda name: "sha256" not in name)),
    )


@given(books(), st.sampled_from(["inline", "csv", "parquet"]))
@settings(max_examples=60, deadline=None)
def test_what_is_written_is_read_back(book: SharedBook, form: Form) -> None:
    check_book(book, over_limit=True)
    with TemporaryDirectory() as folder:
        files = dump_book(book, "b.toml", form)
        for name, content in files.items():
            (Path(folder) / name).write_bytes(content)
        again = parse_book(files["b.toml"], "b.toml", folder=Path(folder))
    assert equal_books(again, book, source=False)
    assert dump_book(again, "b.toml", form)["b.toml"] == files["b.toml"]


def test_files_from_anywhere_are_read_or_refused_in_one_line() -> None:
    rng = np.random.default_rng(5)
    words = (b"nan", b"-1", b"1e400", b"", b'"', b"[[", b"\xff", b"\n", b"0", b",", b"true", b"{}")
    refusals = []
    for _ in range(COUNT):
        data = bytearray(SEEDS[int(rng.integers(0, 2))])
        for _ in range(int(rng.integers(1, 4))):
            at, size = int(rng.integers(0, len(data))), int(rng.integers(0, 20))
            data[at : at + size] = words[int(rng.integers(0, len(words)))]
        try:
            parse_book(bytes(data), "fuzzed")
        except MarginlineError as error:
            refusals.append(str(error))
    assert len(refusals) > COUNT // 4
    assert [line for line in refusals if "\n" in line] == []
