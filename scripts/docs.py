"""Write what code knows of itself into the guides, so that no key and no option stands in two places.

::

    python scripts/docs.py           write the generated parts of the guides, docs/methods and docs/guards.svg
    python scripts/docs.py --check   exit 1 when they are out of date

A generated part stands between ``<!-- generated: NAME -->`` and ``<!-- end of NAME -->``. Configuration keys
come from the pydantic models (attribute docstrings, or the "Attributes" of a class docstring), commands from
the command line itself, parameter sets of margin methods from the registry, and the figures of a method's
example from the command that stands in its page.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import shlex
import sys
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from functools import partial
from itertools import pairwise
from math import isinf, log10
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, TypeAlias, cast

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from typer.core import TyperGroup

from keeper.cli import app
from keeper.commands.margin_run import chosen_accounts, method_named
from keeper.config import KeeperConfig, ProtocolSection
from keeper.markets import AaveOptions
from oracle.guards import BASIC, GuardModel, all_guards, guards
from oracle.registry import Registry
from oracle.sources import sources
from simulation.book import rows as book_rows
from simulation.book import tables as book_tables
from simulation.book.defaults import DATE as BOOK_DATE
from simulation.book.defaults import default_market
from simulation.book.exits import ExitModel
from simulation.book.generate import BookSpec, generate
from simulation.book.health import lending_accounts, wallet_leverage
from simulation.book.load import MAX_TABLE_BYTES, MAX_TOML_BYTES
from simulation.contagion.channels import channels
from simulation.contagion.impact import impact_models
from simulation.contagion.policies import policies as contagion_policies
from simulation.contagion.prices import price_processes
from simulation.contagion.scenario import ScenarioFile
from simulation.margin import cme_span, margin_methods, occ_tims, okx_pm
from simulation.margin.baselines import CRASHES
from simulation.margin.result import MarginResult
from simulation.policy import policies
from simulation.portfolio.load import load_book

ROOT: Final = Path(__file__).resolve().parents[1]
GUIDE: Final = ROOT / "docs" / "keeper.md"
GUARDS_GUIDE: Final = ROOT / "docs" / "guards.md"
CURVES: Final = ROOT / "docs" / "guards.svg"
BOOK_GUIDE: Final = ROOT / "docs" / "book.md"
CONTAGION_GUIDE: Final = ROOT / "docs" / "contagion" / "README.md"
METHODS_GUIDE: Final = ROOT / "docs" / "methods" / "README.md"
METHOD_PAGES: Final = {kind: METHODS_GUIDE.with_name(f"{kind}.md") for kind in margin_methods}
METHOD_HEADINGS: Final = (
    "What it demands",
    "Formulas",
    "Parameters",
    "What was verified",
    "What it misses",
    "Example",
)
"""What every page of a margin method has."""

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


def attributes_of(model: type) -> dict[str, str]:
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
            lines += ["Keys of `aave-v3.6` and `aave-v3`:", "", *key_table(AaveOptions), ""]
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


# ----------------------------------------------------------------------------------------------------- guards


def calibration() -> dict[str, Any]:
    """Return what was counted; see `scripts/calibrate_guards.py`."""
    found: dict[str, Any] = json.loads((ROOT / "oracle" / "calibration.json").read_text(encoding="utf-8"))
    return found


def guard_overview() -> list[str]:
    """Return one row for each guard: what it sees, what it needs, its threshold, what it asks for."""
    rows = ["| id | guard | sees | default | asks for | checklist |", "|---|---|---|---|---|---|"]
    for guard in cast("tuple[GuardModel, ...]", all_guards()):
        defaults = ", ".join(f"`{name} = {value}`" for name, value in guard if value is not None) or "none"
        actions = ", ".join(sorted(a.value.replace("_", " ") for a in guard.actions))
        sees = first_sentence(type(guard)).partition(": ")[2]
        rows.append(
            f"| {guard.id} | `{guard.kind}` | {sees} {needs(type(guard))} | {defaults} | {actions} "
            f"| {', '.join(guard.checklist)} |"
        )
    return rows


def needs(model: type[Any]) -> str:
    """Return the sentence of a docstring that begins with Needs."""
    paragraphs = inspect.cleandoc(model.__doc__ or "").split("\n\n")
    for paragraph in paragraphs:
        text = " ".join(paragraph.split())
        if text.startswith("Needs"):
            return text.partition(". ")[0].rstrip(".") + "."
    return ""


def guard_calibration() -> list[str]:
    """Return the curves as tables, and the guards that have none with what they lack."""
    found = calibration()
    lacking = found.pop("left_out")
    lines = []
    for kind, entry in found.items():
        model = guards.get(kind)
        name = entry["parameter"] if entry["parameter"] != "none" else "no threshold"
        lines += [f"### {model.id} `{kind}`: {name}", ""]
        sets = list(dict.fromkeys((p["set"], p["part"]) for p in entry["points"]))
        head = [f"{name}, {part}" for name, part in sets]
        lines += [
            "| threshold | " + " | ".join(f"{h}: false alarms | missed" for h in head) + " |",
            "|---" * (1 + 2 * len(sets)) + "|",
        ]
        for value in dict.fromkeys(p["threshold"] for p in entry["points"]):
            cells = []
            for where in sets:
                (p,) = [
                    p for p in entry["points"] if p["threshold"] == value and (p["set"], p["part"]) == where
                ]
                cells.append(f"{p['false_alarms']:,} of {p['observations']:,}")
                cells.append(f"{p['misses']:,} of {p['faults']:,}")
            shown = "none" if value is None else f"{value:,}"
            bold = f"**{shown}** (default)" if value is not None and value == entry["default"] else shown
            lines.append(f"| {bold} | " + " | ".join(cells) + " |")
        lines.append("")
    lines += ["### Left out", "", "These data do not hold what they need:", ""]
    lines += [f"- {guards.get(k).id} `{k}`: {what}" for k, what in by_id(lacking)]
    return lines


def by_id(lacking: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return guards in the order of their ids."""
    return sorted(lacking.items(), key=lambda item: guards.get(item[0]).id)


_SERIES: Final = (
    ("false_alarms", "observations", "calm", "#1f77b4", "false alarms, calm"),
    ("false_alarms", "observations", "crash", "#d62728", "false alarms, crash"),
    ("misses", "faults", "calm", "#7f7f7f", "missed, calm"),
    ("misses", "faults", "crash", "#000000", "missed, crash"),
)
_DECADES: Final = 5
_WIDE, _HIGH, _LEFT, _TOP = 420, 250, 52, 46


def curves_svg() -> str:
    """Return the curves on the part that the defaults are shown on; shares on a logarithmic axis."""
    found = {
        kind: entry
        for kind, entry in calibration().items()
        if kind != "left_out" and entry["parameter"] != "none"
    }
    rows = -(-len(found) // 2)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {2 * _WIDE} {rows * _HIGH + 40}" '
        'font-family="sans-serif" font-size="11">',
        f'<rect width="{2 * _WIDE}" height="{rows * _HIGH + 40}" fill="#ffffff"/>',
    ]
    for i, (*_, colour, label) in enumerate(_SERIES):
        out.append(f'<circle cx="{60 + 190 * i}" cy="16" r="4" fill="{colour}"/>')
        out.append(f'<text x="{70 + 190 * i}" y="20">{label}</text>')
    for i, (kind, entry) in enumerate(found.items()):
        out += _panel(kind, entry, i % 2 * _WIDE, 30 + i // 2 * _HIGH)
    return "\n".join([*out, "</svg>"]) + "\n"


def _panel(kind: str, entry: Mapping[str, Any], x0: int, y0: int) -> list[str]:
    values = list(dict.fromkeys(p["threshold"] for p in entry["points"]))
    step = (_WIDE - _LEFT - 24) / max(1, len(values) - 1)
    tall = _HIGH - _TOP - 40

    def x(value: int) -> float:
        return x0 + _LEFT + step * values.index(value)

    def y(share: float) -> float:
        """Return the height of a share: 1 at the top, 0 and what is below 1e-5 at the bottom."""
        up = 0.0 if share <= 0 else max(0.0, 1 + log10(share) / _DECADES)
        return y0 + _TOP + tall * (1 - up)

    out = [
        f'<text x="{x0 + _LEFT}" y="{y0 + 28}" font-weight="bold">{guards.get(kind).id} {kind}: '
        f"{entry['parameter']}</text>"
    ]
    for power in range(_DECADES + 1):
        share, label = 10.0**-power, "1" if not power else "0" if power == _DECADES else f"1e-{power}"
        out.append(
            f'<line x1="{x0 + _LEFT}" x2="{x0 + _WIDE - 20}" y1="{y(share):.1f}" y2="{y(share):.1f}" '
            'stroke="#dddddd"/>'
        )
        out.append(f'<text x="{x0 + _LEFT - 6}" y="{y(share) + 4:.1f}" text-anchor="end">{label}</text>')
    for value in values:
        weight = ' font-weight="bold"' if value == entry["default"] else ""
        below = y0 + _TOP + tall + 16
        out.append(f'<text x="{x(value):.1f}" y="{below}" text-anchor="middle"{weight}>{value}</text>')
        if value == entry["default"]:
            out.append(
                f'<line x1="{x(value):.1f}" x2="{x(value):.1f}" y1="{y0 + _TOP}" y2="{y0 + _TOP + tall}" '
                'stroke="#2ca02c" stroke-dasharray="4 3"/>'
            )
    for what, of, name, colour, _ in _SERIES:
        shown = [p for p in entry["points"] if p["part"] == "shown on" and p["set"] == name]
        places = [(x(p["threshold"]), y(p[what] / p[of])) for p in shown if p[of]]
        path = " ".join(f"{px:.1f},{py:.1f}" for px, py in places)
        out.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        out += [f'<circle cx="{px:.1f}" cy="{py:.1f}" r="2.5" fill="{colour}"/>' for px, py in places]
    return out


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


# --------------------------------------------------------------------------------------------- margin methods

LONGEST_CELL: Final = 80
"""Longer lists stand below the table."""


def section_text(text: str, heading: str) -> str:
    """Return what stands under a heading of the second order, empty where there is none."""
    found = re.search(rf"(?ms)^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", text)
    return found[1].strip("\n") if found else ""


def said_of(text: str, word: str) -> str:
    """Return the paragraph of "What was verified" that begins with a word and a colon."""
    for paragraph in section_text(text, "What was verified").split("\n\n"):
        if paragraph.startswith(f"{word}: "):
            return " ".join(paragraph.removeprefix(f"{word}: ").split())
    return ""


def method_index() -> list[str]:
    """Return one row for each margin method; what was verified is what its page says first."""
    rows = ["| id | grade | parameter sets | verified by | not verified |", "|---|---|---|---|---|"]
    for kind, path in METHOD_PAGES.items():
        entry, text = margin_methods.get(kind), path.read_text(encoding="utf-8")
        rows.append(
            f"| [`{kind}`]({path.name}) | {entry.grade} | {named_sets(entry)} | {said_of(text, 'Verified')} "
            f"| {said_of(text, 'Not verified')} |"
        )
    return rows


def named_sets(entry: type[Any]) -> str:
    """Return the names of a method's parameter sets."""
    return ", ".join(f"`{name}`" for name in getattr(entry, "parameter_sets", {}))


def method_head(kind: str) -> list[str]:
    """Return what the code says of a method: its first line, grade and source."""
    entry = margin_methods.get(kind)
    return [first_sentence(entry), "", f"*Grade:* {entry.grade}. *Source:* {entry.source}."]


def method_parameters(kind: str) -> list[str]:
    """Return the keys of a method, and its parameters with their values in each set."""
    entry = margin_methods.get(kind)
    said = attributes_of(entry)
    keys = [
        f"| `{name}` | {cell(field.get_default(call_default_factory=True))} | {plain(said.get(name, ''))} |"
        for name, field in entry.model_fields.items()
        if name != "parameters"
    ]
    lines = ["| key beside `parameters` | default | meaning |", "|---|---|---|", *keys, ""] if keys else []
    field = entry.model_fields["parameters"]
    sets = dict(getattr(entry, "parameter_sets", {}))
    columns: dict[str, BaseModel | None] = sets or {
        "default": None if field.is_required() else field.get_default(call_default_factory=True)
    }
    below: list[str] = []
    rows = parameter_rows(field.annotation, columns, below)
    lines += [f"| parameter | {' | '.join(columns)} | meaning |", "|---" * (len(columns) + 2) + "|", *rows]
    return [*lines, *below, *(line for line in CONSTANTS.get(kind, list)())]


def parameter_rows(
    model: type[BaseModel], columns: Mapping[str, BaseModel | None], below: list[str], prefix: str = ""
) -> list[str]:
    """Return a row for each parameter, those of a part under its name; long lists go to `below`."""
    said, rows = attributes_of(model), []
    for name, field in model.model_fields.items():
        values = {
            column: UNSET if owner is None and field.is_required() else value_of(owner, name, field)
            for column, owner in columns.items()
        }
        first = next(iter(values.values()))
        if isinstance(first, BaseModel):
            rows += parameter_rows(
                type(first), cast("Mapping[str, BaseModel]", values), below, f"{prefix}{name}."
            )
            continue
        cells = []
        for column, value in values.items():
            if isinstance(value, Mapping | tuple) and len(cell(value)) > LONGEST_CELL:
                cells.append(f"{len(value)}, below")
                below += ["", f"`{prefix}{name}`, {column}:", "", *(f"- {each}" for each in listed(value))]
            else:
                cells.append("required" if value is UNSET else cell(value))
        rows.append(f"| `{prefix}{name}` | {' | '.join(cells)} | {plain(said.get(name, ''))} |")
    return rows


UNSET: Final = object()
"""Stands for the value of a parameter that has to be given."""


def value_of(owner: BaseModel | None, name: str, field: FieldInfo) -> Any:
    """Return a parameter's value in a set, its default without one."""
    return field.get_default(call_default_factory=True) if owner is None else getattr(owner, name)


def plain(text: str) -> str:
    """Return a meaning as a cell of a table."""
    return " ".join(text.split()).replace("``", "`").replace("|", "\\|")


def listed(value: Mapping[Any, Any] | tuple[Any, ...]) -> list[str]:
    """Return the items of a value."""
    if isinstance(value, Mapping):
        return [f"{key}: {cell(each)}" for key, each in value.items()]
    return [cell(each) for each in value]


def cell(value: object) -> str:
    """Return a value in a few words."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return "no end" if isinf(value) else f"{value:,.6g}" if abs(value) < 1e6 else f"{value:,.0f}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, BaseModel):
        if label := getattr(value, "label", ""):
            return str(label)
        fields = {name: each for name, each in value if not isinstance(each, BaseModel)}
        # What a part is, where it is a method of its own.
        return str(getattr(value, "kind", "")) or ", ".join(f"{k} {cell(v)}" for k, v in fields.items())
    if isinstance(value, Mapping | tuple):
        nested = any(isinstance(each, BaseModel | tuple) for each in _items(value))
        return ("; " if nested else ", ").join(listed(value)) or "none"
    return "none" if value in (None, "") else str(value)


def _items(value: Mapping[Any, Any] | tuple[Any, ...]) -> Iterator[Any]:
    return iter(value.values() if isinstance(value, Mapping) else value)


def _okx_constants() -> list[str]:
    moves = {"BTC, ETH": "BTC", "the second class": "LTC", "others": "-"}
    far = {"BTC, ETH": "BTC", "the second class": "SOL", "others": "-"}
    rows = [
        f"| {name} | {cell(okx_pm.price_moves(moves[name])[4:])} | {cell(okx_pm.extreme_move(far[name]))} "
        f"| {cell(okx_pm.annualised_move(far[name]))} |"
        for name in moves
    ]
    return [
        "",
        "| class | moves of MR1, either side | extreme move of MR6 | annual move of MR4 |",
        "|---|---|---|---|",
        *rows,
        "",
        f"Second class of MR1: {cell(okx_pm.LARGE_MR1)}. Of MR4 and MR6: {cell(okx_pm.LARGE_MR6)}.",
        "",
        f"Tiers of MR7 of BTC and ETH (up to, times): {cell(okx_pm.MR7_TIERS)}.",
        "",
        f"Tiers of MR9 (up to, share): {cell(okx_pm.MR9_TIERS)}.",
    ]


def _tims_constants() -> list[str]:
    widths = {
        "high-capitalisation index": occ_tims.HIGH_CAP_INDEX,
        "other broad index": occ_tims.BROAD_INDEX,
        "anything narrower; by default": occ_tims.EQUITY,
    }
    rows = [f"| {name} | {cell(low)} | {cell(high)} |" for name, (low, high) in widths.items()]
    return ["", "| class | lowest move | highest move |", "|---|---|---|", *rows]


def _span_constants() -> list[str]:
    rows = [
        f"| {i} | {_thirds(thirds)} | {'up' if sign > 0 else 'down'} | 1 |"
        for i, (thirds, sign) in enumerate(cme_span.SCENARIOS, start=1)
    ]
    known = cme_span.SpanParameters()
    rows += [
        f"| {i} | {sign}{cell(known.extreme_multiple)} | same | {cell(known.extreme_cover)} |"
        for i, sign in ((15, "+"), (16, "-"))
    ]
    weights = ", ".join(f"{cell(w)} at {_thirds(thirds)}" for thirds, w in cme_span.DELTA_WEIGHTS.items())
    head = ["| scenario | price, of its range | volatility | share of the loss |", "|---|---|---|---|"]
    return ["", *head, *rows, "", f"Weights of the composite delta: {weights}."]


def _thirds(count: int) -> str:
    return f"{count:+d}/3" if count else "0"


def _crashes() -> list[str]:
    rows = [
        f"| {name} | {', '.join(f'{s} {p - 1:+.1%}' for s, p in c.prices.items())} | {c.every - 1:+.1%} "
        f"| {c.source} |"
        for name, c in CRASHES.items()
    ]
    return ["", "| crash | moves | of any other price | source |", "|---|---|---|---|", *rows]


CONSTANTS: Final[Mapping[str, Callable[[], list[str]]]] = {
    "okx.pm": _okx_constants,
    "occ.tims": _tims_constants,
    "cme.span": _span_constants,
    "stress": _crashes,
}
"""What methods publish beside their parameters."""


def blocks_of(text: str) -> dict[str, str]:
    """Return the fenced blocks of a page's example by language, the first of each."""
    found: dict[str, str] = {}
    for language, block in re.findall(r"(?s)```(\w+)\n(.*?)```", section_text(text, "Example")):
        found.setdefault(language, block)
    return found


def example_files(text: str) -> dict[str, str]:
    """Return the files that a page's example brings: a method's, a book, or none."""
    blocks = blocks_of(text)
    return {
        name: blocks[kind]
        for kind, name in (("toml", "method.toml"), ("json", "book.json"))
        if kind in blocks
    }


def example_words(text: str) -> list[str]:
    """Return the words of a page's command.

    Raises
    ------
    ValueError
        If it is not one of `marginline margin run`.
    """
    words = shlex.split(blocks_of(text).get("sh", "").replace("\\\n", " "))
    if words[:3] != ["marginline", "margin", "run"]:
        raise ValueError("the example's command is not one of marginline margin run")
    return words[1:]


def example_result(text: str) -> MarginResult:
    """Return what a page's command computes."""
    method, book, *rest = example_words(text)[2:]
    with TemporaryDirectory() as folder:
        for name, content in example_files(text).items():
            (Path(folder) / name).write_text(content, encoding="utf-8")
        built = method_named(str(Path(folder) / method) if method.endswith(".toml") else method)
        path = Path(folder) / book
        read = load_book(path if path.is_file() else ROOT / book)
        (account,) = chosen_accounts(read, [w for flag, w in pairwise(rest) if flag == "--account"])
        return built.margin(account, read.market)


def method_example(path: Path) -> list[str]:
    """Return the figures of a page's example."""
    result = example_result(path.read_text(encoding="utf-8"))
    names = ("equity", "initial_requirement", "maintenance_requirement", "initial", "maintenance")
    rows = [
        f"| status | {result.status.value} |",
        *(f"| {name} | {figure(getattr(result, name))} |" for name in names),
        *([f"| worst | {result.worst} |"] if result.worst else []),
        *(f"| components.{name} | {figure(value)} |" for name, value in result.components.items()),
    ]
    return ["| figure | value |", "|---|---|", *rows]


def figure(value: float) -> str:
    """Return a figure; two digits of dollars and four of small numbers, without a sign of zero."""
    text = f"{value:,.2f}" if abs(value) >= 10 else f"{value:.4f}"
    return text.removeprefix("-") if not text.strip("-0.,") else text


# -------------------------------------------------------------------------------------------------- the guide

Parts: TypeAlias = Mapping[str, Callable[[], list[str]]]

BOOK_TABLES: Final[Mapping[str, type[BaseModel]]] = {
    "at the top of the file": book_tables.BookFile,
    "`[tokens.SYMBOL]`": book_tables.TokenTable,
    "`backing` of a token": book_tables.BackingTable,
    "`[[lending]]`": book_tables.LendingTable,
    "`[lending.reserves.SYMBOL]`": book_tables.ReserveTable,
    "`rate` of a reserve": book_tables.RateTable,
    "`[[lending.emode]]`": book_tables.EModeTable,
    "`[[perps]]`": book_tables.PerpVenueTable,
    "`[perps.markets.SYMBOL]`": book_tables.PerpMarketTable,
    "`[[account]]`": book_tables.AccountTable,
    "`perp.SYMBOL` of an account": book_tables.PerpPositionTable,
    "`[[option]]`": book_tables.OptionTable,
    "`[[exit]]`": book_tables.ExitTable,
    "`model` of an exit": ExitModel,
}
"""Heading to the table of a book file."""


def book_keys() -> list[str]:
    """Return the keys of a shared book, table by table."""
    lines: list[str] = []
    for head, model in BOOK_TABLES.items():
        lines += [f"#### {head}", "", first_sentence(model), ""]
        lines += ["| key | default | meaning |", "|---|---|---|"]
        for name, field in model.model_fields.items():
            default = "none" if field.default_factory is dict else default_of(field)
            meaning = " ".join((field.description or "").split()).replace("|", "\\|")
            lines.append(f"| `{field.alias or name}` | {default} | {meaning} |")
        lines.append("")
    return lines


def book_columns() -> list[str]:
    """Return the columns of a table of positions, and how large files may be."""
    columns = [f"| `{name}` | {meaning} |" for name, meaning in book_tables.COLUMNS.items()]
    return [
        *("| column | meaning |", "|---|---|", *columns, ""),
        f"A TOML file has at most {MAX_TOML_BYTES >> 20} MiB, a table {MAX_TABLE_BYTES >> 30} GiB and "
        f"{book_rows.MAX_ROWS:,} rows.",
    ]


def book_generated() -> list[str]:
    """Return figures of a generated book beside what they are meant to be."""
    spec = BookSpec()
    book = generate(spec, 1)
    accounts = lending_accounts(book)
    assets, leverage = wallet_leverage(book)
    known = leverage == leverage
    order = assets[known].argsort()
    fifths = [leverage[known][order][part] for part in _fifths(len(order))]
    health = accounts.health_factor
    total = accounts.collateral.sum() / (accounts.collateral - accounts.debt).sum()
    rows = [
        ("mean leverage of wallets", f"{leverage[known].mean():.2f}", f"{spec.mean_leverage:g}, solved for"),
        ("leverage of all together", f"{total:.2f}", "1.4 to 1.9 (BIS Working Paper 1171)"),
        ("by fifths of size", ", ".join(f"{x.mean():.2f}" for x in fifths), "rising (same source)"),
        ("accounts over their limit", f"{(accounts.debt > accounts.borrow_limit).sum()}", "0"),
        ("least health factor", f"{health.min():.3f}", "1 or more"),
        ("part below 1.1", f"{(health < 1.1).mean():.1%}", f"about {spec.near:.0%}, and some loopers"),
    ]
    head = ["| 10,000 wallets, seed 1 | found | meant |", "|---|---|---|"]
    return [*head, *(f"| {a} | {b} | {c} |" for a, b, c in rows)]


def _fifths(count: int) -> list[slice]:
    edges = [count * i // 5 for i in range(6)]
    return [slice(low, high) for low, high in pairwise(edges)]


def book_defaults() -> list[str]:
    """Return the parameters of the market that books are generated over."""
    lines = [
        f"Put together on {BOOK_DATE}; prices are round.",
        "",
        "| venue | token | LTV | threshold | bonus | reserve factor | kink, base, slopes |",
        "|---|---|---|---|---|---|---|",
    ]
    for venue in default_market().lending:
        for r in venue.reserves:
            rate = r.rate
            curve = f"{rate.optimal:g}, {rate.base:g}, {rate.slope1:g}, {rate.slope2:g}"
            parts = (r.ltv_bps, r.liquidation_threshold_bps, r.liquidation_bonus_bps, r.reserve_factor_bps)
            cells = " | ".join(f"{bps / 100:g} %" for bps in parts)
            lent = curve if rate.base + rate.slope1 else "not lent"
            lines.append(f"| {venue.name} ({venue.kind}) | {r.token} | {cells} | {lent} |")
    return lines


# -------------------------------------------------------------------------------------------------- contagion


def scenario_tables(model: type[BaseModel], head: str) -> list[str]:
    """Return the keys of a table of a scenario, and after them those of the tables in it."""
    said, rows, inner = attributes_of(model), [], []
    for name, field in model.model_fields.items():
        below = section_of(field)
        if below is not None and name != "prices":
            inner.append((f"{head}.{name}".removeprefix("."), below))
            default = "required" if field.is_required() else "see below"
        else:
            default = "required" if name == "prices" else default_of(field)
        named = named_tables(field)
        if named is not None and named not in [one for _, one in inner]:
            inner.append((f"{head}.{name}.NAME".removeprefix("."), named))
        text = field.description or said.get(name, "")
        meaning = " ".join((text + choices_of(field, text)).split()).replace("``", "`").replace("|", "\\|")
        rows.append(f"| `{name}` | {default} | {meaning} |")
    lines = ["| key | default | meaning |", "|---|---|---|", *rows, ""] if rows else ["No keys.", ""]
    for where, below in inner:
        lines += [f"In `{where}`: {first_sentence(below)}", "", *scenario_tables(below, where)]
    return lines


def named_tables(field: FieldInfo) -> type[BaseModel] | None:
    """Return the model of tables that go by a name, as tokens do; None for other keys."""
    if typing.get_origin(field.annotation) is not dict:
        return None
    model = typing.get_args(field.annotation)[1]
    return model if isinstance(model, type) and issubclass(model, BaseModel) else None


def scenario_entries(registry: Registry[Any], head: str) -> list[str]:
    """Return the tables of the entries of a registry; `head` has a place for the entry's name."""
    lines: list[str] = []
    for kind in registry:
        model = registry.get(kind)
        where = head.format(kind)
        lines += [f"#### `{where}`", "", first_sentence(model), ""]
        lines += scenario_tables(model, where.split(" ")[0].strip("[]"))
    return lines


def market_models() -> list[str]:
    """Return the models of a market for ``[channels.impact.tokens.X]``; their equations have a page."""
    lines: list[str] = []
    for kind in impact_models:
        model = impact_models.get(kind)
        said = attributes_of(model)
        lines += [f'#### `model = "{kind}"`', "", first_sentence(model), ""]
        lines += ["| key | default | meaning |", "|---|---|---|"]
        for field in dataclasses.fields(model):
            default = "required" if field.default is dataclasses.MISSING else market_default(field.default)
            lines.append(f"| `{field.name}` | {default} | {said[field.name].replace('``', '`')} |")
        lines.append("")
    return lines


def market_default(value: float | str) -> str:
    """Return a default as it would stand in a scenario."""
    return f'`"{value}"`' if isinstance(value, str) else f"`{value:g}`"


PARTS: Final[Parts] = {
    "commands": command_table,
    "configuration": configuration,
    "reference sources": reference_sources,
    "guards": guard_tables,
    "policies": policy_tables,
}
GUIDES: Final[Mapping[Path, Parts]] = {
    GUIDE: PARTS,
    GUARDS_GUIDE: {"guard overview": guard_overview, "guard calibration": guard_calibration},
    **{
        path: {
            "method": partial(method_head, kind),
            "parameters": partial(method_parameters, kind),
            "example": partial(method_example, path),
        }
        for kind, path in METHOD_PAGES.items()
    },
    METHODS_GUIDE: {"methods": method_index},
    BOOK_GUIDE: {
        "book keys": book_keys,
        "book columns": book_columns,
        "generated book": book_generated,
        "default parameters": book_defaults,
    },
    CONTAGION_GUIDE: {
        "scenario keys": lambda: scenario_tables(ScenarioFile, ""),
        "prices": lambda: scenario_entries(price_processes, '[prices] process = "{}"'),
        "channels": lambda: scenario_entries(channels, "[channels.{}]"),
        "markets": market_models,
        "policies": lambda: scenario_entries(contagion_policies, '[[policies]] kind = "{}"'),
    },
}


def rendered(text: str, parts: Parts = PARTS) -> str:
    """Return a guide with its generated parts written anew.

    Raises
    ------
    ValueError
        If a part has no place in it.
    """
    for name, render in parts.items():
        begin, end = f"<!-- generated: {name} -->", f"<!-- end of {name} -->"
        before, found, rest = text.partition(begin)
        _, closed, after = rest.partition(end)
        if not found or not closed:
            raise ValueError(f"no place for {name}: it needs {begin} and {end}")
        body = "\n".join(render()).strip("\n")
        text = f"{before}{begin}\n\n{body}\n\n{end}{after}"
    return text


def main(arguments: list[str]) -> int:
    """Write the guides, or check them."""
    if missing := [path for path in GUIDES if not path.is_file()]:
        heads = ", ".join(METHOD_HEADINGS)
        for path in missing:
            print(
                f"{path.relative_to(ROOT)} is missing: write it, with the headings {heads}", file=sys.stderr
            )
        return 1
    fresh = {path: rendered(path.read_text(encoding="utf-8"), parts) for path, parts in GUIDES.items()}
    fresh[CURVES] = curves_svg()
    if arguments == ["--check"]:
        old = [p.name for p, text in fresh.items() if not p.is_file() or p.read_text("utf-8") != text]
        if old:
            print(f"{', '.join(old)} out of date: run python scripts/docs.py", file=sys.stderr)
        return int(bool(old))
    for path, text in fresh.items():
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
