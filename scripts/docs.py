"""Write what code knows of itself into the guides, so that no key and no option stands in two places.

::

    python scripts/docs.py           write the generated parts of docs/keeper.md
    python scripts/docs.py --check   exit 1 when they are out of date

A generated part stands between ``<!-- generated: NAME -->`` and ``<!-- end of NAME -->``. Configuration keys
come from the pydantic models (attribute docstrings, or the "Attributes" of a class docstring), commands from
the command line itself.
"""

from __future__ import annotations

import inspect
import re
import sys
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from typer.core import TyperGroup

from keeper.cli import app
from keeper.compose import AaveV3Options
from keeper.config import KeeperConfig, ProtocolSection
from oracle.guards import BASIC, guards
from oracle.registry import Registry
from oracle.sources import sources
from simulation.policy import policies

GUIDE: Final = Path(__file__).resolve().parents[1] / "docs" / "keeper.md"

UNITS: Final = {
    "_s": "seconds",
    "_gwei": "gwei",
    "_eth": "ether",
    "_usd": "US dollars",
    "_bps": "0.01 %",
    "_bps_sqrt_hour": "0.01 % per √hour",
    "_pips": "0.0001 %",
    "_blocks": "blocks",
    "_percentile": "percent",
}
"""Unit by the end of a key's name."""

NO_KEYS: Final = frozenset({"folder"})
"""Fields of the configuration that are no keys."""

NO_KEYS_OF_ENTRIES: Final = frozenset({"kind", "base", "quote", "feed"})
"""Fields of sources that are no keys: the asset's symbol, US dollars, what was found on chain."""


# ---------------------------------------------------------------------------------------------- configuration


def unit_of(key: str) -> str:
    """Return the unit that a key's name ends in."""
    ends = sorted(UNITS, key=len, reverse=True)
    return next((UNITS[end] for end in ends if key.endswith(end) or f"_{key}" == end), "")


def shown(value: object) -> str:
    """Return a value as TOML would have it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return f"{value:_}" if abs(value) >= 10_000 else str(value)
    if isinstance(value, Decimal | float):
        return f"{value:g}"
    if isinstance(value, tuple):
        return f"[{', '.join(map(shown, value))}]"
    if isinstance(value, Mapping):
        inner = ", ".join(f"{key} = {shown(each)}" for key, each in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    return f'"{value}"'


def default_of(field: FieldInfo) -> str:
    """Return a field's default: required, none, or a value."""
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    return "none" if value is None else f"`{shown(value)}`"


def choices_of(field: FieldInfo, said: str) -> str:
    """Return the values that a field can have, where they are few and not all in what is said of it."""
    values = [
        arg
        for part in (field.annotation, *typing.get_args(field.annotation))
        if typing.get_origin(part) is typing.Literal
        for arg in typing.get_args(part)
    ]
    if len(values) < 2 or all(f"`{value}`" in said for value in values):
        return ""
    return f" One of {', '.join(f'`{value}`' for value in values)}."


def attributes_of(model: type[BaseModel]) -> dict[str, str]:
    """Return what the docstrings of a class and its bases say of each attribute under "Attributes"."""
    found: dict[str, str] = {}
    for cls in reversed(model.__mro__):
        document = inspect.cleandoc(cls.__doc__ or "")
        _, _, part = document.partition("Attributes\n----------\n")
        for entry in re.split(r"\n(?=\S)", part):
            names, _, text = entry.partition("\n")
            found |= dict.fromkeys((name.strip() for name in names.split(",")), " ".join(text.split()))
    return found


def keys_of(model: type[BaseModel]) -> Iterator[tuple[str, FieldInfo, str]]:
    """Yield name, field and meaning of the keys of a model that are no sections."""
    said = attributes_of(model)
    for name, field in model.model_fields.items():
        if section_of(field) is None and name not in NO_KEYS:
            yield name, field, field.description or said.get(name, "")


def section_of(field: FieldInfo) -> type[BaseModel] | None:
    """Return the model of a section, None for a plain key."""
    parts: list[Any] = [field.annotation]
    while parts:
        part = parts.pop()
        if isinstance(part, type) and issubclass(part, BaseModel):
            return part
        if typing.get_origin(part) in (tuple, typing.Union, types.UnionType, typing.Annotated):
            parts += typing.get_args(part)
    return None


def key_table(model: type[BaseModel], hidden: frozenset[str] = frozenset()) -> list[str]:
    """Return the table of a model's keys."""
    rows = []
    for name, field, text in keys_of(model):
        if name in hidden:
            continue
        meaning = " ".join((text + choices_of(field, text)).split()).replace("``", "`").replace("|", "\\|")
        rows.append(f"| `{name}` | {unit_of(name)} | {default_of(field)} | {meaning} |")
    return ["| key | unit | default | meaning |", "|---|---|---|---|", *rows] if rows else []


def configuration() -> list[str]:
    """Return the tables of the configuration file, section by section."""
    lines = ["#### at the top of the file", "", *key_table(KeeperConfig), ""]
    for name, field in KeeperConfig.model_fields.items():
        model = section_of(field)
        if model is None:
            continue
        head = f"[[{name}]]" if name == "protocols" else f"[{name}]"
        need = ", required" if field.is_required() else ""
        lines += [f"#### `{head}`{need}", "", first_sentence(model), "", *key_table(model), ""]
        if model is ProtocolSection:
            lines += ["Keys of `aave-v3`:", "", *key_table(AaveV3Options), ""]
    return lines


def first_sentence(model: type[BaseModel]) -> str:
    """Return the summary of a class docstring."""
    summary = inspect.cleandoc(model.__doc__ or "").partition("\n\n")[0]
    return " ".join(summary.split()).replace("``", "`")


def entries(registry: Registry[Any], head: Callable[[str], str]) -> list[str]:
    """Return a heading, a summary and a table for each entry of a registry."""
    lines: list[str] = []
    for kind in registry:
        model = registry.get(kind)
        lines += [f"#### {head(kind)}", "", first_sentence(model), ""]
        table = key_table(model, NO_KEYS_OF_ENTRIES)
        lines += [*table, ""] if table else ["It has no keys.", ""]
    return lines


def reference_sources() -> list[str]:
    """Return the tables of the reference sources."""
    return entries(sources, lambda kind: f'`kind = "{kind}"`')


def guard_tables() -> list[str]:
    """Return the tables of the guards; those that always run say so."""
    return entries(
        guards,
        lambda kind: f"`[guards.{kind}]`" + (", always on" if kind in BASIC else ""),
    )


def policy_tables() -> list[str]:
    """Return the tables of the policies."""
    return entries(policies, lambda kind: f'`kind = "{kind}"`')


# --------------------------------------------------------------------------------------------------- commands


def commands() -> Iterator[tuple[str, Any]]:
    """Yield the words of each command and the command, groups left out."""

    def walk(node: Any, words: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
        if isinstance(node, TyperGroup):
            for name, inner in node.commands.items():
                yield from walk(inner, (*words, name))
        else:
            yield " ".join(words), node

    yield from walk(typer.main.get_command(app), ("marginline",))


def command_table() -> list[str]:
    """Return each command with its options."""
    lines: list[str] = []
    for words, node in commands():
        arguments = [p for p in node.params if p.param_type_name == "argument"]
        usage = " ".join([words, *(p.name.upper() for p in arguments)])
        lines += [f"#### `{usage}`", "", " ".join((node.help or "").split()), ""]
        rows = [option_row(p) for p in node.params if p.name != "help"]
        lines += ["| option | default | meaning |", "|---|---|---|", *rows, ""] if rows else []
    return lines


def option_row(parameter: Any) -> str:
    """Return one row of a table of options."""
    names = parameter.name.upper() if parameter.param_type_name == "argument" else ", ".join(parameter.opts)
    meaning = " ".join((parameter.help or "").split())
    return f"| `{names}` | {option_default(parameter)} | {meaning} |"


def option_default(parameter: Any) -> str:
    """Return the default of an option: required, off, none, or a value."""
    if parameter.required:
        return "required"
    if isinstance(parameter.default, bool):
        return "on" if parameter.default else "off"
    return "none" if parameter.default is None else f"`{parameter.default}`"


# -------------------------------------------------------------------------------------------------- the guide

PARTS: Final[Mapping[str, Callable[[], list[str]]]] = {
    "commands": command_table,
    "configuration": configuration,
    "reference sources": reference_sources,
    "guards": guard_tables,
    "policies": policy_tables,
}


def rendered(text: str) -> str:
    """Return a guide with its generated parts written anew.

    Raises
    ------
    ValueError
        If a part has no place in it.
    """
    for name, render in PARTS.items():
        begin, end = f"<!-- generated: {name} -->", f"<!-- end of {name} -->"
        before, found, rest = text.partition(begin)
        _, closed, after = rest.partition(end)
        if not found or not closed:
            raise ValueError(f"no place for {name}: it needs {begin} and {end}")
        body = "\n".join(render()).strip("\n")
        text = f"{before}{begin}\n\n{body}\n\n{end}{after}"
    return text


def main(arguments: list[str]) -> int:
    """Write the guide, or check it."""
    text = GUIDE.read_text(encoding="utf-8")
    fresh = rendered(text)
    if arguments == ["--check"]:
        if fresh != text:
            print(f"{GUIDE.name} is out of date: run python scripts/docs.py", file=sys.stderr)
            return 1
        return 0
    GUIDE.write_text(fresh, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
