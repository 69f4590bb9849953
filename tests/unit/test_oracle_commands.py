"""``marginline oracle incidents``, ``replay`` and ``schema``: what they print, write and refuse."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from contracts_abi.errors import CheckFailed, InputError
from keeper.commands import oracle_replay
from keeper.commands.console import LateBar
from keeper.commands.oracle_replay import replay_command, require_folder
from oracle.incidents import incident_ids
from simulation.replay.record import replay_record_from_json
from tests.command_line import Inside
from tests.replay_standin import START, Expect, scenario, stand_in


@pytest.fixture
def inside(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Inside:
    monkeypatch.setenv("COLUMNS", "110")
    return Inside(monkeypatch, capsys)


# ------------------------------------------------------------------------------------------- list and schema


def test_incidents_are_listed_with_their_standing(inside: Inside) -> None:
    lines = inside("oracle", "incidents", "--json").json()
    assert [line["id"] for line in lines] == [
        line["id"] for line in sorted(lines, key=lambda line: (line["date"], line["id"]))
    ]
    assert {line["id"] for line in lines} == set(incident_ids())
    for line in lines:
        assert set(line) == {"id", "date", "documented", "record", "depth", "mechanism", "title"}
        assert line["documented"] is (line["record"] == "documented")
        assert line["depth"] in ("deep", "series")


def test_incidents_are_a_table_too(inside: Inside) -> None:
    shown = inside("oracle", "incidents")
    assert shown.code == 0
    assert all(name in shown.out for name in incident_ids())
    assert f"{len(incident_ids())} incidents" in shown.out


@pytest.mark.parametrize(("columns", "head"), [(80, "incident depth title"), (180, "incident date record")])
def test_the_table_has_the_titles_at_any_width(
    inside: Inside, monkeypatch: pytest.MonkeyPatch, columns: int, head: str
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = inside("oracle", "incidents").out.splitlines()
    assert " ".join(lines[0].split()).startswith(head)
    assert any("The mean of two: Synthetix" in line for line in lines)
    assert max(map(len, lines)) <= columns


def test_a_series_that_is_not_there_is_said_of_itself(inside: Inside) -> None:
    refused = inside("oracle", "judge", "nothing.csv")
    assert refused.code == 2
    assert refused.err.startswith("error: nothing.csv: no such file; give a CSV")


def test_the_schema_is_json_schema(inside: Inside) -> None:
    schema = inside("oracle", "schema")
    value = json.loads(schema.out)
    assert {"schema", "id", "clock", "feeds", "truth"} <= set(value["required"])
    assert value["additionalProperties"] is False


# ---------------------------------------------------------------------------------------------------- replay


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Let the command replay whatever stands in the list."""
    chosen = [scenario(Expect("guard", id="G06"))]
    stand_in(monkeypatch)
    monkeypatch.setattr(oracle_replay, "load_scenario", lambda source: chosen[0])
    return chosen


def play(out: Path | None = None, *, as_json: bool = False, html: bool = True, matrix: bool = True) -> None:
    replay_command("any", as_json=as_json, out=out, html=html, matrix=matrix)


@pytest.mark.usefixtures("played")
def test_json_is_the_record_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    play(as_json=True)
    first = capsys.readouterr()
    assert first.err == ""
    assert replay_record_from_json(first.out).scenario_id == "coin-at-its-floor"
    play(as_json=True)
    assert capsys.readouterr().out == first.out


@pytest.mark.usefixtures("played")
def test_the_terminal_says_what_it_came_to(capsys: pytest.CaptureFixture[str]) -> None:
    play()
    shown = capsys.readouterr().out
    for words in (
        "COIN stands at its floor",
        "+846.91 %",
        "G06 bound",
        "$424,185",
        "all 1 expectations came true",
    ):
        assert words in shown


@pytest.mark.usefixtures("played")
def test_files_are_written_below_a_folder_that_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a" / "b"
    play(out)
    files = {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()}
    proof = {"poc/README.md", "poc/Replay.t.sol", "poc/foundry.toml", "poc/replay.py"}
    assert files == {"report.md", "report.html", "report.json"} | proof
    first = {name: (out / name).read_bytes() for name in files}
    play(out, as_json=True)
    assert {name: (out / name).read_bytes() for name in files} == first
    assert (
        first["report.json"].decode() == capsys.readouterr().out.partition("written to")[2].partition("\n")[2]
    )


@pytest.mark.usefixtures("played")
def test_the_page_and_the_guards_alone_can_be_left_out(tmp_path: Path) -> None:
    play(tmp_path, html=False, matrix=False)
    assert not (tmp_path / "report.html").exists()
    assert replay_record_from_json((tmp_path / "report.json").read_bytes()).matrix is None


def test_a_broken_expectation_is_said_after_everything_is_written(
    played: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    played[0] = scenario(Expect("guard", id="G10"), Expect("guard", id="G06", by=START))
    with pytest.raises(CheckFailed, match="2 of 2 expectations did not come true: guard G10") as caught:
        play(tmp_path, as_json=True)
    assert caught.value.exit_code == 1
    assert (tmp_path / "report.md").exists()
    assert not replay_record_from_json(capsys.readouterr().out).passed


def test_an_expectation_that_cannot_happen_writes_nothing(played: list[Any], tmp_path: Path) -> None:
    played[0] = scenario(Expect("reported", at=START - 60, op="==", value=1))
    with pytest.raises(InputError, match="outside the clock"):
        play(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_is_refused_before_the_work(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(InputError, match=r"--out: .*file is a file; give the name of a folder"):
        require_folder("--out", file)
    with pytest.raises(InputError, match="cannot be written"):
        require_folder("--out", file / "below")
    require_folder("--out", tmp_path / "x" / "y")
    assert not (tmp_path / "x").exists()


def test_a_bar_comes_only_with_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("keeper.commands.console.time.monotonic", lambda: now[0])
    console = Console(force_terminal=True, file=sys.stderr, width=80)
    with LateBar(console) as bar:
        bar.update("prices", 1, 3)
        assert not bar.shown
        now[0] = LateBar.PATIENCE_S + 0.1
        bar.update("prices", 2, 3)
        assert bar.shown
