"""Read a scenario's file for a command: what is wrong with it is said with the file and the place in it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from contracts_abi.errors import InputError, UnknownNameError
from simulation.contagion.scenario import Scenario, build_scenario, read_table

LISTS: Final = ("shocks", "policies", "uncertain")
"""Keys of a scenario that are lists of tables."""
_BOOK: Final = "shared-book/"
_NAMES_A_FILE: Final = re.compile(r"\S+\.(toml|csv|parquet): ")


def scenario_of(path: Path, over: Mapping[str, Any] | None = None) -> Scenario:
    """Return the scenario of a file; see `simulation.contagion.scenario.load_scenario`.

    Parameters
    ----------
    path
        TOML file.
    over
        Dotted keys and values that replace the file's.

    Raises
    ------
    InputError
        Naming the file, or that of the book, and the key where it is known.
    """
    table = read_table(path)
    if str(table.get("schema", "")).startswith(_BOOK):
        raise InputError(
            f"{path.name}: is a book, and no scenario",
            fix=f'name a scenario with book = "{path.name}", see docs/contagion',
        )
    for key in LISTS:
        if isinstance(table.get(key), Mapping):
            raise InputError(f"{path.name}: {key}: one table where a list is meant", fix=f"write [[{key}]]")
    try:
        return build_scenario(table, path.parent, over, where=path.name)
    except InputError as error:
        if _NAMES_A_FILE.match(error.message):
            raise
        place = _place_of(error.name, table) if isinstance(error, UnknownNameError) else ""
        raise InputError(f"{path.name}: {place}{error.message}", fix=error.fix) from None


def _place_of(name: str, table: Mapping[str, Any]) -> str:
    """Return the only place where a name stands, or nothing: the wrong one would mislead."""
    places = list(_places(name, table, ""))
    return f"{places[0]}: " if len(places) == 1 else ""


def _places(name: str, value: Any, at: str) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            place = f"{at}.{key}" if at else str(key)
            if key == name:
                yield place
            yield from _places(name, inner, place)
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            yield from _places(name, inner, f"{at}.{i}")
    elif value == name:
        yield at
