"""A shared book written as files that `simulation.book.load` reads back to the bit."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import pyarrow as pa

from contracts_abi.errors import InputError
from simulation.book.bounds import within_limits
from simulation.book.load import origin_of
from simulation.book.tables import SIDES
from simulation.book.types import (
    EMode,
    ExitLiquidity,
    LendingVenue,
    PerpVenue,
    Reserve,
    SharedBook,
    Side,
    Token,
)

INLINE_ROWS: Final = 500
"""Positions up to which a book is one file by default."""

Form = Literal["inline", "csv", "parquet"]

_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")


def dump_book(book: SharedBook, name: str, form: Form | None = None) -> dict[str, bytes]:
    """Return the files of a book: its TOML, and a table of positions where it has one.

    Parameters
    ----------
    book
        What to write. What it says of itself in `source` is written as the file's `origin`.
    name
        Of the TOML file; the table has its stem.
    form
        Where positions are written; by default inline up to `INLINE_ROWS` rows, and as Parquet beyond.

    Returns
    -------
    dict
        Bytes by name of file, the TOML first.
    """
    rows = (
        len(book.positions) + len(book.perp_positions) + len(book.options) + len(book.perp_positions.margin)
    )
    form = form or ("inline" if rows <= INLINE_ROWS else "parquet")
    beside = f"{Path(name).stem}.{form}"
    order, table = _table(book)
    lines = _head(book, None if form == "inline" else beside, order)
    for token in book.tokens:
        lines += _token(token)
    for venue in book.lending:
        lines += _lending(venue)
    for perp in book.perps:
        lines += _perps(perp)
    for exit_ in book.exits:
        lines += _exit(exit_)
    if form == "inline":
        lines += _accounts(book)
        return {name: _bytes(lines)}
    out = io.BytesIO()
    if form == "csv":
        from pyarrow import csv

        csv.write_csv(_as_text(table), out, csv.WriteOptions(quoting_style="needed"))
    else:
        from pyarrow import parquet

        parquet.write_table(table, out, compression="zstd")
    return {name: _bytes(lines), beside: out.getvalue()}


def save_book(book: SharedBook, path: Path, form: Form | None = None) -> tuple[Path, ...]:
    """Write a book to `path` and, where its positions are many, a table beside it; return the files.

    Raises
    ------
    InputError
        If a file cannot be written.
    """
    written = []
    for name, content in dump_book(book, path.name, form).items():
        file = path.parent / name
        try:
            file.write_bytes(content)
        except OSError as error:
            raise InputError(
                f"cannot write {file}: {error.strerror or error}", fix="choose another place"
            ) from None
        written.append(file)
    return tuple(written)


def _bytes(lines: Iterable[str]) -> bytes:
    return ("\n".join(lines) + "\n").encode("utf-8")


# ---------------------------------------------------------------------------------------------------- values


def _text(value: str) -> str:
    # A JSON string is a TOML basic string, but for DEL, which TOML wants escaped.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else _text(name)


def _number(value: float) -> str:
    # The shortest text that reads back as the same float.
    return repr(int(value)) if isinstance(value, int) else repr(float(value))


def _list(values: Sequence[str]) -> str:
    return f"[{', '.join(_text(value) for value in values)}]"


def _inline(pairs: Mapping[str, str]) -> str:
    return f"{{ {', '.join(f'{key} = {value}' for key, value in pairs.items())} }}"


# ---------------------------------------------------------------------------------------------------- tables


def _head(book: SharedBook, beside: str | None, order: Sequence[int]) -> list[str]:
    lines = ['schema = "shared-book/1"']
    if origin := origin_of(book):
        lines.append(f"origin = {_text(origin)}")
    moment = datetime.fromtimestamp(book.timestamp, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    lines += [f"timestamp = {moment}", f"block = {book.block}"]
    if not within_limits(book):
        lines.append('over_limit = "allow"  # some owe more than they could borrow at these prices')
    if book.unknown:
        lines.append(f"unknown = {_list(book.unknown)}")
    if list(order) != list(range(len(book.wallets))):
        lines.append(f"wallets = {_list(book.wallets)}")
    if beside is not None:
        lines.append(f"positions = {_text(beside)}")
    return lines


def _token(token: Token) -> list[str]:
    lines = [
        "",
        f"[tokens.{_key(token.symbol)}]",
        f"price = {_number(token.price)}",
        f"decimals = {token.decimals}",
    ]
    if token.backing is not None:
        backing = token.backing
        parts = {
            "kind": _text(backing.kind.value),
            "token": _text(backing.token),
            "rate": _number(backing.rate),
        }
        parts |= {"reserve_ratio": _number(backing.reserve_ratio), "delay_s": str(backing.delay_s)}
        lines.append(f"backing = {_inline(parts)}")
    return lines


def _lending(venue: LendingVenue) -> list[str]:
    lines = ["", "[[lending]]", f"name = {_text(venue.name)}", f"kind = {_text(venue.kind)}"]
    if venue.target_reserves is not None:
        lines.append(f"target_reserves = {_number(venue.target_reserves)}")
    for reserve in venue.reserves:
        lines += ["", f"[lending.reserves.{_key(reserve.token)}]", *_reserve(reserve)]
    for category in venue.emodes:
        lines += ["", "[[lending.emode]]", *_emode(category)]
    return lines


def _reserve(reserve: Reserve) -> list[str]:
    lines = [
        f"{key} = {getattr(reserve, key)}"
        for key in ("ltv_bps", "liquidation_threshold_bps", "liquidation_bonus_bps")
    ]
    curve = {key: _number(getattr(reserve.rate, key)) for key in ("optimal", "base", "slope1", "slope2")}
    lines.append(f"rate = {_inline(curve)}")
    lines += [
        f"{key} = {getattr(reserve, key)}"
        for key in ("protocol_fee_bps", "reserve_factor_bps")
        if getattr(reserve, key)
    ]
    amounts = {key: getattr(reserve, key) for key in ("idle_supply", "reserves", "outside_debt")}
    caps = {key: getattr(reserve, key) for key in ("supply_cap", "borrow_cap")}
    lines += [f"{key} = {_number(value)}" for key, value in amounts.items() if value]
    return lines + [f"{key} = {_number(value)}" for key, value in caps.items() if value is not None]


def _emode(category: EMode) -> list[str]:
    lines = [f"id = {category.id}", f"tokens = {_list(category.tokens)}"]
    if category.borrowable is not None:
        lines.append(f"borrowable = {_list(category.borrowable)}")
    return lines + [
        f"{key} = {getattr(category, key)}"
        for key in ("ltv_bps", "liquidation_threshold_bps", "liquidation_bonus_bps")
    ]


def _perps(venue: PerpVenue) -> list[str]:
    lines = ["", "[[perps]]", f"name = {_text(venue.name)}", f"margin_token = {_text(venue.margin_token)}"]
    lines += [
        f"liquidation_fee = {_number(venue.liquidation_fee)}",
        f"insurance = {_number(venue.insurance)}",
    ]
    for token, maintenance in venue.maintenance_margin.items():
        lines += ["", f"[perps.markets.{_key(token)}]", f"maintenance_margin = {_number(maintenance)}"]
        lines.append(f"initial_margin = {_number(venue.initial_margin[token])}")
        if token in venue.skew_scale:
            lines.append(f"skew_scale = {_number(venue.skew_scale[token])}")
    if not venue.maintenance_margin:
        lines += ["", "[perps.markets]"]
    return lines


def _exit(exit_: ExitLiquidity) -> list[str]:
    texts = {key: getattr(exit_, key) for key in ("token", "quote", "venue", "date", "source")}
    lines = ["", "[[exit]]", *(f"{key} = {_text(value)}" for key, value in texts.items())]
    for key in ("size", "slippage"):
        lines.append(f"{key} = [{', '.join(_number(value) for value in getattr(exit_, key))}]")
    return lines


def _accounts(book: SharedBook) -> list[str]:
    symbols = [token.symbol for token in book.tokens]
    lends: dict[tuple[int, int], dict[str, dict[str, str]]] = {}
    emodes: dict[tuple[int, int], int] = {}
    rows, perps, options = book.positions, book.perp_positions, book.options
    for i in range(len(rows)):
        key = int(rows.wallet[i]), int(rows.venue[i])
        side = "debt" if rows.side[i] == Side.DEBT else "collateral"
        held = lends.setdefault(key, {"collateral": {}, "debt": {}})[side]
        held[_key(symbols[rows.token[i]])] = _number(float(rows.amount[i]))
        emodes[key] = int(rows.emode[i])
    traded: dict[tuple[int, int], dict[str, str]] = {}
    for i in range(len(perps)):
        key = int(perps.wallet[i]), int(perps.venue[i])
        position = {"size": _number(float(perps.size[i])), "entry": _number(float(perps.entry[i]))}
        traded.setdefault(key, {})[_key(symbols[perps.token[i]])] = _inline(position)
    blocks: list[tuple[int, list[str]]] = []
    for (wallet, venue), sides in lends.items():
        lines = _account_head(book.wallets[wallet], book.lending[venue].name)
        if emodes[wallet, venue]:
            lines.append(f"emode = {emodes[wallet, venue]}")
        lines += [f"{side} = {_inline(held)}" for side, held in sides.items() if held]
        blocks.append((wallet, lines))
    for i in range(len(perps.margin)):
        key = int(perps.margin_wallet[i]), int(perps.margin_venue[i])
        lines = _account_head(book.wallets[key[0]], book.perps[key[1]].name)
        lines.append(f"margin = {_number(float(perps.margin[i]))}")
        if key in traded:
            lines.append(f"perp = {_inline(traded[key])}")
        blocks.append((key[0], lines))
    out = [line for _, lines in sorted(blocks, key=lambda block: block[0]) for line in lines]
    for i in range(len(options)):
        out += [
            "",
            "[[option]]",
            f"wallet = {_text(book.wallets[options.wallet[i]])}",
            f"token = {_text(symbols[options.token[i]])}",
            f"call = {'true' if options.is_call[i] else 'false'}",
            *(f"{key} = {_number(float(getattr(options, key)[i]))}" for key in ("expiry", "strike")),
            *(f"{key} = {_number(float(getattr(options, key)[i]))}" for key in ("size", "volatility")),
        ]
    return out


def _account_head(wallet: str, venue: str) -> list[str]:
    return ["", "[[account]]", f"wallet = {_text(wallet)}", f"venue = {_text(venue)}"]


# ------------------------------------------------------------------------------------------------ positions


def _table(book: SharedBook) -> tuple[list[int], pa.Table]:
    """Return wallets in the order of their first use inline, and all positions as one table."""
    rows, perps, options = book.positions, book.perp_positions, book.options
    counts = len(rows), len(perps.margin), len(perps), len(options)

    def stacked(*parts: Any, dtype: Any = np.int32) -> Any:
        return np.concatenate([np.asarray(part, dtype=dtype) for part in parts])

    def spread(count_index: int, values: Any) -> Any:
        return stacked(
            *(values if k == count_index else np.full(n, np.nan) for k, n in enumerate(counts)),
            dtype=np.float64,
        )

    venues = [*(v.name for v in book.lending), *(v.name for v in book.perps), ""]
    symbols = [*(token.symbol for token in book.tokens), "USD"]
    index = {symbol: i for i, symbol in enumerate(symbols)}
    margin_tokens = np.array([index[v.margin_token] for v in book.perps], dtype=np.int32)
    first_perp = len(book.lending)
    wallet = stacked(rows.wallet, perps.margin_wallet, perps.wallet, options.wallet)
    venue = stacked(
        rows.venue,
        perps.margin_venue + first_perp,
        perps.venue + first_perp,
        np.full(counts[3], len(venues) - 1),
    )
    margins = margin_tokens[perps.margin_venue] if counts[1] else np.empty(0)
    token = stacked(rows.token, margins, perps.token, options.token)
    side = stacked(rows.side, np.full(counts[1], 2), np.full(counts[2], 3), np.where(options.is_call, 4, 5))
    emode = np.where(rows.emode > 0, rows.emode, np.nan)
    order = np.lexsort((np.arange(len(wallet)), wallet))

    def named(values: Sequence[str], codes: Any) -> Any:
        return pa.DictionaryArray.from_arrays(pa.array(codes[order]), pa.array(list(values), pa.string()))

    def optional(values: Any) -> Any:
        return pa.array(values[order], pa.float64(), from_pandas=True)

    columns = {
        "wallet": named(book.wallets, wallet),
        "venue": named(venues, venue),
        "token": named(symbols, token),
        "side": named(SIDES, side),
        "amount": optional(stacked(rows.amount, perps.margin, perps.size, options.size, dtype=np.float64)),
        "emode": optional(spread(0, emode)),
        "entry": optional(spread(2, perps.entry)),
        "strike": optional(spread(3, options.strike)),
        "expiry": optional(spread(3, options.expiry)),
        "volatility": optional(spread(3, options.volatility)),
    }
    # What is empty throughout says nothing.
    kept = {
        k: c for k, c in columns.items() if k in ("wallet", "venue", "token", "side") or c.null_count < len(c)
    }
    if "amount" not in kept:
        kept["amount"] = columns["amount"]
    table = pa.table({name: kept[name] for name in columns if name in kept})
    placed = np.unique(np.concatenate([rows.wallet, perps.margin_wallet, perps.wallet]))
    return list(dict.fromkeys([*placed.tolist(), *options.wallet.tolist()])), table


def _as_text(table: pa.Table) -> pa.Table:
    """Return the table with floats as the shortest text that reads back, and names spelled out."""
    columns = {}
    for name in table.column_names:
        column = table.column(name)
        if pa.types.is_dictionary(column.type):
            columns[name] = column.cast(pa.string())
        else:
            # Not arrow's own text of floats: Python's is defined to read back.
            texts = [None if value is None else repr(value) for value in column.to_pylist()]
            columns[name] = pa.array(texts, pa.string())
    return pa.table(columns)
