"""The operator's guide: nothing that can be set, run or read is missing from it, and nothing is stale."""

from __future__ import annotations

import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer

from keeper.cli import app
from keeper.config import Mode
from keeper.limits import Limit
from keeper.submit import TxEventKind
from keeper.types import IntentState
from simulation.types import Action, Reason

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("contracts_abi", "oracle", "simulation", "keeper")


def load_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("marginline_docs", ROOT / "scripts" / "docs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


docs = load_script()
GUIDE = docs.GUIDE.read_text(encoding="utf-8")
WRITTEN = re.sub(r"(?s)<!-- generated: (.*?) -->.*?<!-- end of \1 -->", "", GUIDE)
"""What people wrote of it."""


def test_the_guide_is_up_to_date() -> None:
    assert docs.main(["--check"]) == 0, "run: python scripts/docs.py"


def test_a_part_without_a_place_is_told() -> None:
    with pytest.raises(ValueError, match="no place for commands"):
        docs.rendered("# Nothing")


@pytest.mark.parametrize("part", ["configuration", "reference sources", "guards", "policies", "commands"])
def test_everything_that_can_be_set_has_a_meaning(part: str) -> None:
    rows = [line for line in docs.PARTS[part]() if line.startswith("| `")]
    assert rows
    for row in rows:
        meaning = re.split(r"(?<!\\)\|", row)[-2]
        assert len(meaning.split()) >= 3, row


def test_an_undocumented_key_would_be_noticed() -> None:
    from keeper.config import LimitsSection

    class Longer(LimitsSection):
        max_courage: int = 3

    (row,) = [line for line in docs.key_table(Longer) if "max_courage" in line]
    assert re.split(r"(?<!\\)\|", row)[-2].split() == []


@pytest.mark.parametrize(
    "name", [str(e.value) for enum in (Reason, Action, IntentState, TxEventKind, Limit, Mode) for e in enum]
)
def test_every_word_that_a_keeper_uses_is_explained(name: str) -> None:
    assert f"`{name}`" in WRITTEN


def test_every_event_is_explained() -> None:
    sources = [ROOT / "keeper" / "loop.py", ROOT / "keeper" / "commands" / "keeper.py"]
    calls = r"emit(?:,|\()\s*\"(\w+)\""
    events = {name for file in sources for name in re.findall(calls, file.read_text(encoding="utf-8"))}
    assert {"ready", "stopped", "head", "verdict", "trouble"} <= events
    table = WRITTEN.partition("| event | when | alert |")[2].partition("\n\n")[0]
    told = set(re.findall(r"`(\w+)`", " ".join(row.split("|")[1] for row in table.splitlines() if row)))
    assert told == events


# ------------------------------------------------------------------------------------------------ error lines


def error_lines() -> Iterator[str]:
    table = WRITTEN.partition("## Error lines")[2].partition("\n## ")[0]
    for row in table.splitlines():
        if row.startswith("| `"):
            yield from re.findall(r"`([^`]+)`", row.split("|")[1])


def test_error_lines_are_those_of_the_code() -> None:
    files = [file for package in PACKAGES for file in (ROOT / package).rglob("*.py")]
    # Pieces of one message on neighbouring lines count as one.
    text = re.sub(r"\"\s*\n\s*f?\"", "", "\n".join(f.read_text(encoding="utf-8") for f in files))
    lines = list(error_lines())
    assert len(lines) > 15
    for line in lines:
        # What stands in braces in the code is three dots in the guide.
        for piece in filter(None, (p.strip(" :;?") for p in re.split("…|200", line))):
            assert piece in text, f"{piece!r} of {line!r}"


# ---------------------------------------------------------------------------------------- commands and links


def example_commands() -> Iterator[list[str]]:
    for file in (docs.GUIDE, ROOT / "docs" / "oracle.md", ROOT / "README.md"):
        for block in re.findall(r"(?s)```sh\n(.*?)```", file.read_text(encoding="utf-8")):
            for line in block.replace("\\\n", " ").splitlines():
                if line.startswith("marginline "):
                    yield shlex.split(line, comments=True)[1:]


def test_commands_of_the_guides_exist() -> None:
    found = list(example_commands())
    assert len(found) > 8
    for words in found:
        node: Any = typer.main.get_command(app)
        rest = list(words)
        while hasattr(node, "commands"):
            node = node.commands[rest.pop(0)]
        known = {name for p in node.params for name in p.opts} | {"--help"}
        assert {w for w in rest if w.startswith("-")} <= known, words


def test_links_lead_somewhere() -> None:
    heads = re.findall(r"(?m)^#+ (.*)$", GUIDE)
    anchors = {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}
    for target in re.findall(r"\]\(([^)]+)\)", GUIDE):
        if target.startswith("#"):
            assert target[1:] in anchors, target
        else:
            assert (docs.GUIDE.parent / target).exists(), target
