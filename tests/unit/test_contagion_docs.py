"""The pages of the contagion engine: what they name is there, and their example runs as it stands."""

from __future__ import annotations

import importlib.util
import re
import shlex
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
import typer

from keeper.cli import app
from simulation.book.dump import save_book
from simulation.book.generate import BookSpec, generate
from simulation.contagion.engine import run_paths
from simulation.contagion.scenario import build_scenario

ROOT = Path(__file__).resolve().parents[2]
PAGES = ROOT / "docs" / "contagion"
GUIDE = (PAGES / "README.md").read_text(encoding="utf-8")
ENGINE = (PAGES / "engine.md").read_text(encoding="utf-8")
TESTS = "\n".join(file.read_text(encoding="utf-8") for file in (ROOT / "tests").rglob("test_*.py"))


def load_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("marginline_docs_contagion", ROOT / "scripts" / "docs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_key_of_the_guide_has_a_meaning() -> None:
    docs = load_script()
    rows = 0
    for name, part in docs.GUIDES[docs.CONTAGION_GUIDE].items():
        for row in part():
            if row.startswith("| `"):
                rows += 1
                assert len(re.split(r"(?<!\\)\|", row)[-2].strip()) > 5, f"{name}: {row}"
    assert rows > 80


def test_the_guides_tables_are_those_of_the_models() -> None:
    docs = load_script()
    assert docs.rendered(GUIDE, docs.GUIDES[docs.CONTAGION_GUIDE]) == GUIDE, "run: python scripts/docs.py"


@pytest.mark.parametrize("named", sorted(set(re.findall(r"`([\w/.]*::)?[…]?(test_\w+?)(?:…)?`", ENGINE))))
def test_every_test_that_the_page_names_is_there(named: tuple[str, str]) -> None:
    file, name = named[0].removesuffix("::"), named[1]
    if file:
        found = [ROOT / "tests" / "unit" / file, ROOT / file]
        text = next(path.read_text(encoding="utf-8") for path in found if path.is_file())
        assert f"def {name}" in text
    else:
        assert f"def {name}" in TESTS


def test_every_file_that_the_page_names_is_there() -> None:
    named = {name for name in re.findall(r"`([\w/]+\.(?:py|md))", ENGINE) if "::" not in name}
    assert len(named) > 15
    places = (ROOT, ROOT / "simulation", ROOT / "simulation" / "contagion", ROOT / "tests" / "unit")
    fidelity = ROOT / "simulation" / "chain" / "fidelity"
    for name in named:
        assert any((place / name).is_file() for place in (*places, fidelity)), name


def test_the_scenario_of_the_guide_runs(tmp_path: Path) -> None:
    found = re.search(r"(?s)```toml\n(.*?)```", GUIDE)
    assert found is not None
    save_book(generate(BookSpec(accounts=300), 7), tmp_path / "book.toml")
    scenario = build_scenario(tomllib.loads(found[1]), tmp_path, {"steps": 15})
    assert {channel.kind for channel in scenario.run.on()} >= {"gas", "impact", "keepers", "oracle"}
    result = run_paths(scenario.run, 1, 0, 2)
    assert result.lowest[:, 0].max() < 0.85 * scenario.run.world.price[0]


def test_the_commands_of_the_guide_exist() -> None:
    lines = [
        shlex.split(line)[1:]
        for block in re.findall(r"(?s)```sh\n(.*?)```", GUIDE)
        for line in block.splitlines()
        if line.startswith("marginline ")
    ]
    assert len(lines) == 7
    assert all((ROOT / word).is_file() for words in lines for word in words if word.startswith("examples/"))
    root = typer.main.get_command(app)
    for words in lines:
        command = root
        names = [word for word in words if not word.startswith("-")]
        while hasattr(command, "commands") and names:
            command = command.commands[names.pop(0)]
        options = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= options, words
