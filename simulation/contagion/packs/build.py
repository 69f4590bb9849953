"""A pack as a scenario that can be run: its files, with the values of its parameters put in."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import fields
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from contracts_abi.errors import InputError, UnknownNameError
from oracle.strict import input_error
from simulation.book.generate import BookSpec, generate
from simulation.book.load import load_book
from simulation.book.types import SharedBook
from simulation.contagion.packs.files import Pack
from simulation.contagion.packs.ladder import LadderSpec, ladder_book
from simulation.contagion.scenario import Scenario, ScenarioFile, build_run, read_table

SIZES: Final = ("median_usd", "whale_usd", "largest_usd")
"""What ``scale`` multiplies."""


def pack_table(pack: Pack) -> dict[str, Any]:
    """Return all that parameters may change: scenario, generate, ladder, with the fitted values put in."""
    table: dict[str, Any] = {
        "scenario": read_table(pack.folder / "scenario.toml"),
        "generate": dict(pack.file.generate or {}),
        "ladder": [g.model_dump(mode="json") for g in pack.file.ladder],
    }
    for parameter in pack.fitted:
        if parameter.name in pack.values:
            table = changed(table, dict.fromkeys(parameter.keys, parameter.held(pack.values[parameter.name])))
    return table


def changed(table: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of a table with the values of dotted keys replaced; ``*`` is every entry of a list.

    Raises
    ------
    InputError
        For a step into something that is neither table nor list.
    """
    out: dict[str, Any] = _copied(table)
    for key, value in over.items():
        _put(out, key.split("."), value, key)
    return out


def _put(at: Any, parts: list[str], value: Any, key: str) -> None:
    head, rest = parts[0], parts[1:]
    if isinstance(at, list):
        places: Iterable[int] = range(len(at)) if head == "*" else [_place(at, head, key)]
        for k in places:
            if rest:
                _put(at[k], rest, value, key)
            else:
                at[k] = _copied(value)
    elif isinstance(at, dict):
        if rest:
            _put(at.setdefault(head, {}), rest, value, key)
        else:
            at[head] = _copied(value)
    else:
        raise InputError(f"key {key}: there is nothing inside {at!r}", fix="name a value of the scenario")


def _place(at: list[Any], part: str, key: str) -> int:
    if not part.isdigit() or int(part) >= len(at):
        raise InputError(f"key {key}: no entry {part} of {len(at)}", fix="count from 0, or write *")
    return int(part)


def _copied(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _copied(v) for k, v in value.items()}
    return [_copied(v) for v in value] if isinstance(value, list | tuple) else value


def value_at(table: Mapping[str, Any], key: str) -> float:
    """Return the number at a dotted key, the first one where it has a ``*``.

    Raises
    ------
    InputError
        When there is none.
    """
    at: Any = table
    for part in key.split("."):
        if isinstance(at, list) and at:
            at = at[0 if part == "*" else _place(at, part, key)]
        elif isinstance(at, Mapping) and part in at:
            at = at[part]
        else:
            raise InputError(f"key {key}: not in the pack's files", fix="write its value there")
    if isinstance(at, bool) or not isinstance(at, int | float):
        raise InputError(f"key {key}: {at!r} is no number", fix="name a number")
    return float(at)


def pack_scenario(pack: Pack, over: Mapping[str, Any] | None = None) -> Scenario:
    """Return the scenario of a pack.

    Parameters
    ----------
    pack
        As it was read.
    over
        Dotted keys and values besides its own, see `Parameter`.

    Raises
    ------
    InputError
        Naming the key, the value and the fix.
    """
    return table_scenario(changed(pack_table(pack), over or {}), pack.folder, pack.file.ladder_seed)


def table_scenario(table: Mapping[str, Any], folder: Path, ladder_seed: int) -> Scenario:
    """Return the scenario of a table like `pack_table`'s."""
    try:
        file = ScenarioFile.model_validate(table["scenario"])
    except ValidationError as error:
        raise input_error(error, f"{folder.name}/scenario.toml") from None
    path = folder / file.book
    book = _book(
        path,
        # A file that was changed is another book, whatever is remembered of its name.
        hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "",
        json.dumps(table["generate"], sort_keys=True),
        json.dumps(table["ladder"], sort_keys=True),
        ladder_seed,
    )
    return Scenario(file, book, build_run(file, book, folder))


@lru_cache(maxsize=4)
def _book(path: Path, _digest: str, generated: str, ladder: str, ladder_seed: int) -> SharedBook:
    market = load_book(path)
    table, groups = json.loads(generated), json.loads(ladder)
    if table:
        return _generated(market, table)
    if not groups:
        return market
    try:
        return ladder_book(market, [LadderSpec.model_validate(g) for g in groups], ladder_seed)
    except ValidationError as error:
        raise input_error(error, f"{path.parent.name}: ladder") from None


def _generated(market: SharedBook, table: dict[str, Any]) -> SharedBook:
    seed, scale = int(table.pop("seed", 1)), float(table.pop("scale", 1.0))
    known = {f.name: f for f in fields(BookSpec)}
    for key in table:
        if key not in known or key == "market":
            raise UnknownNameError("key of generate", key, {*known, "seed", "scale"} - {"market"})
    plain = BookSpec(market=market)
    for key in table:
        value, usual = table[key], getattr(plain, key)
        if isinstance(usual, int | float) and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise InputError(f"generate.{key} is {value!r}", fix="give a number")
    for key in SIZES:
        table[key] = table.get(key, getattr(plain, key)) * scale
    return generate(BookSpec(market=market, **table), seed)
