"""The page on shared books: its example loads, its refusal is the code's, its commands are there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from contracts_abi.errors import InputError
from keeper.cli import app
from simulation.book.load import load_book, parse_book
from simulation.book.tables import BookFile, Table
from simulation.book.types import SharedBook

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "book.md").read_text(encoding="utf-8")
(EXAMPLE,) = re.findall(r"(?s)```toml\n(.*?)```", PAGE)


def test_the_example_is_a_book_and_a_part_of_the_file_beside() -> None:
    book: SharedBook = parse_book(EXAMPLE.encode())
    whole = load_book(ROOT / "examples" / "hedged.toml")
    assert book.tokens == whole.tokens
    assert book.wallets == ("hedger",)
    assert book.positions.amount.tolist() == whole.positions.amount[:2].tolist()
    assert book.perp_positions.size.tolist() == whole.perp_positions.size.tolist()


def test_the_refusal_is_the_codes() -> None:
    (shown,) = re.findall(r"(?m)^    b\.toml: (.*); …$", PAGE)
    text = (ROOT / "examples" / "hedged.toml").read_text(encoding="utf-8")
    with pytest.raises(InputError) as caught:
        parse_book(text.replace("150_000.0 }", "161_001.0 }", 1).encode(), "b.toml")
    assert str(caught.value).startswith(f"b.toml: {shown}")


def test_its_commands_exist() -> None:
    lines = re.findall(r"(?m)^    (marginline .*)$", PAGE)
    assert len(lines) >= 6
    for line in lines:
        node: Any = typer.main.get_command(app)
        rest = shlex.split(line)[1:]
        while hasattr(node, "commands"):
            node = node.commands[rest.pop(0)]
        known = {name for p in node.params for name in p.opts}
        assert {w for w in rest if w.startswith("-")} <= known, line


def test_its_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", PAGE):
        assert (ROOT / "docs" / target).exists(), target


def tables(model: type[Table]) -> set[type[Table]]:
    """Return a table and those inside it."""
    found = {model}
    for field in model.model_fields.values():
        for part in re.findall(r"\w+Table", str(field.annotation)):
            inner = next(t for t in Table.__subclasses__() if t.__name__ == part)
            found |= tables(inner)
    return found


def test_every_key_has_a_meaning_and_stands_on_the_page() -> None:
    found = tables(BookFile)
    assert len(found) == len(Table.__subclasses__()) == 13
    for model in found:
        for name, field in model.model_fields.items():
            assert len((field.description or "").split()) >= 2, (model, name)
            assert f"| `{field.alias or name}` |" in PAGE
