"""What a book has and no channel of the run moves: said at the start, in the record and in the report."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from keeper.commands import simulate
from keeper.commands.scenario_file import scenario_of
from keeper.commands.simulate import left_out_once
from simulation.contagion.left_out import left_out
from simulation.contagion.scenario import build_scenario
from tests.command_line import Inside
from tests.contagion_books import EVERYTHING, run_of, several_venues

ROOT = Path(__file__).resolve().parents[2]
HEDGED = ROOT / "examples" / "hedged.toml"
SCENARIO = f"""
name = "hedged"
book = "{HEDGED}"
paths = 2
steps = 3
step_s = 60
[prices]
process = "gbm"
volatility = 1.0
"""
SAID = (
    "1 perpetual in perps (no [channels.perps])",
    "what may befall the pegs of USDC (no [channels.pegs])",
    "exits of WETH (no [channels.impact]: sales move no price)",
)


def of(settings: dict[str, dict[str, Any]], **changes: Any) -> tuple[str, ...]:
    book = replace(several_venues(20, 1), **changes)
    return left_out(run_of(book, settings, steps=1))


def test_what_no_channel_moves_is_named() -> None:
    assert of({"oracle": {}}, unknown=("core:w1", "core:w2")) == (
        "20 perpetuals in perp (no [channels.perps])",
        "2 options (neither [channels.options] nor [channels.option_accounts])",
        "what may befall the pegs of stETH, USDC, DAI (no [channels.pegs])",
        "2 accounts that the book could not read",
    )


def test_what_has_its_channel_is_not() -> None:
    assert of({"perps": {}, "options": {}, "pegs": {}}) == (
        "margin of the options of w0 (not in [channels.option_accounts])",
    )
    whole = {**EVERYTHING, "option_accounts": {"cash_usd": {"w0": 1e6}}}
    assert of(whole) == ()
    off = {**whole, "perps": {"on": False}, "option_accounts": {"on": False, "cash_usd": {"w0": 1e6}}}
    assert of(off) == (
        "20 perpetuals in perp (no [channels.perps])",
        "margin of the options of w0 (not in [channels.option_accounts])",
    )


def test_it_is_said_at_the_start_in_the_record_and_in_the_report(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    inside = Inside(monkeypatch, capsys)
    monkeypatch.setattr(simulate, "is_compiled", lambda: True)
    (tmp_path / "s.toml").write_text(SCENARIO, encoding="utf-8")
    words = ("simulate", str(tmp_path / "s.toml"), "--workers", "1", "--out", str(tmp_path / "out"))
    ran = inside(*words)
    assert ran.code == 0, ran.err
    assert ran.err.splitlines()[0] == f"left out: {'; '.join(SAID)}"
    assert json.loads((tmp_path / "out" / "record.json").read_text())["left_out"] == list(SAID)
    assert f"Left out: {'; '.join(SAID)}." in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert inside(*words).err.count("left out: ") == 1, "also of a run that is whole already"
    words = ("sweep", str(tmp_path / "s.toml"), "--workers", "1", "--out", str(tmp_path / "sweep"))
    assert inside(*words, "--paths", "1").err == f"left out: {'; '.join(SAID)}\n"


def test_the_wait_for_the_compiler_is_said_before_a_first_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from types import SimpleNamespace

    from rich.console import Console

    (tmp_path / "s.toml").write_text(SCENARIO, encoding="utf-8")
    kernel = SimpleNamespace(stats=SimpleNamespace(cache_path=str(tmp_path)))
    monkeypatch.setattr("simulation.contagion.settle.settle_paths", kernel)
    tell = left_out_once(Console(width=200), scenario_of(tmp_path / "s.toml"))
    tell()
    tell()
    assert capsys.readouterr().out.splitlines()[1:] == [simulate.COMPILING]
    index = tmp_path / "settle.settle_paths-1.py311.nbi"
    index.touch()
    assert simulate.is_compiled()
    os.utime(index, (1.0, 1.0))
    assert not simulate.is_compiled(), "of another source"
    kernel.stats.cache_path = None
    assert simulate.is_compiled(), "nothing is kept: it would be said of every run"


def test_nothing_is_said_where_nothing_is_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from rich.console import Console

    monkeypatch.setattr(simulate, "is_compiled", lambda: True)
    table = {
        "name": "x",
        "book": HEDGED.name,
        "prices": {"process": "gbm", "volatility": 1.0},
        "channels": {"perps": {}, "pegs": {}, "impact": {}},
    }
    tell = left_out_once(Console(), build_scenario(table, HEDGED.parent))
    tell()
    assert capsys.readouterr().out == ""
