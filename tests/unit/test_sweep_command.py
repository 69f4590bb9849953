"""``marginline sweep`` without an engine: what it prints, how it is taken up, what it refuses."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from keeper.commands.simulate import column_text, figure_text
from keeper.commands.sweep import progress_text
from keeper.sweeps.run import Progress, sweep
from keeper.sweeps.versions import code_sha256, versions
from simulation.backtest.plan import make_plan
from tests.command_line import Inside
from tests.unit.test_simulate_bad_input import BOOK, SCENARIO

TOML = """
[market]
shock = 0.1
days = 3
[play]
kill = -1
once = ""
slow_s = 0.0
fail = -1
limit = -1
odd = -1
"""
MODEL = ("--task", "tests.sweep_tasks:playing", "--paths", "24", "--chunk", "12", "--workers", "1")


@pytest.fixture
def inside(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Inside:
    monkeypatch.setenv("COLUMNS", "140")
    return Inside(monkeypatch, capsys)


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    file = tmp_path / "crash.toml"
    file.write_text(TOML, encoding="utf-8")
    return file


def test_a_sweep_prints_statistics_and_is_taken_up(inside: Inside, scenario: Path) -> None:
    out = scenario.parent / "out"
    words = ["sweep", str(scenario), "--over", "market.shock=0:1:2", *MODEL, "--out", str(out)]
    first = inside(*words, "--json")
    assert first.code == 0, first.err
    assert first.err == ""  # no bar where there is no terminal
    document = first.json()
    assert (document["tasks"], document["computed"], document["rows"]) == (4, 4, 48)
    assert {one["column"] for one in document["statistics"]} == {"loss", "liquidated", "spiral"}
    low, high = (one["mean"] for one in document["statistics"] if one["column"] == "loss")
    assert high > low > 0
    (out / "parts" / "0000001.parquet").write_bytes(b"broken")
    again = inside(*words)
    assert again.code == 0
    assert "computed task 1 again: " in again.err
    assert "2 points, 24 paths each (--paths), seed 1 (the default), 1 task in" in again.out
    assert ", 3 there before" in again.out
    assert document["sha256"] in again.out
    assert "market.shock" in again.out
    other = inside(*words[:2], "--over", "market.shock=0:2:2", *MODEL, "--out", str(out)).line()
    assert other.startswith(
        f"{out} has a sweep of another plan: the swept values are market.shock=0.0,2.0, and"
    )


def test_a_failed_task_is_exit_code_1(inside: Inside, scenario: Path, tmp_path: Path) -> None:
    scenario.write_text(TOML.replace("fail = -1", "fail = 1"), encoding="utf-8")
    line = inside("sweep", str(scenario), *MODEL, "--out", str(tmp_path / "out")).line(code=1)
    assert line.startswith(
        "task 1 (paths 12-23) failed: close_factor: must be at most 1, got 1.5; choose 0 to 1; 1 of 2"
    )


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            ["--over", "market.shok=1"],
            "--over market.shok: unknown key 'market.shok'; did you mean 'market.shock'",
        ),
        (["--task", "tests.sweep_tasks:gains"], "task: tests.sweep_tasks has no function 'gains'"),
        (
            ["--task", "nowhere:run"],
            "task: cannot import nowhere: ModuleNotFoundError: No module named 'nowhere'",
        ),
        (["--paths", "0"], "Invalid value for '--paths'"),
    ],
)
def test_bad_input_is_one_line_and_makes_no_folder(
    inside: Inside, scenario: Path, tmp_path: Path, words: list[str], says: str
) -> None:
    line = inside("sweep", str(scenario), *MODEL, "--out", str(tmp_path / "out"), *words).line()
    assert line.startswith(says)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "says"),
    [(b"a = ", "is no TOML: Invalid value"), (b"\xff", "is no TOML: 'utf-8' codec"), (None, "No such file")],
)
def test_a_scenario_that_cannot_be_read(
    inside: Inside, tmp_path: Path, text: bytes | None, says: str
) -> None:
    file = tmp_path / "bad.toml"
    if text is not None:
        file.write_bytes(text)
    assert says in inside("sweep", str(file), *MODEL).line()


@pytest.mark.parametrize(
    ("progress", "text"),
    [
        (Progress(0, 0, 1_000, 0, 0.0, None), "0 of 1,000 tasks"),
        (Progress(40, 2, 100, 10, 12.34, 75.4), "40 of 100 tasks, 2 failed, 12.3 a second, 0:01:15 left"),
    ],
)
def test_progress_for_people(progress: Progress, text: str) -> None:
    assert progress_text(progress) == text


def test_progress_counts_what_was_there_and_what_is_left(tmp_path: Path) -> None:
    plan = make_plan(tomllib.loads(TOML), task="tests.sweep_tasks:playing", paths=24, chunk=4, seed=1)
    seen: list[Progress] = []
    outcome = sweep(plan, folder=tmp_path / "s", workers=1, on_progress=seen.append)
    assert [one.done for one in seen] == sorted(one.done for one in seen)
    assert (seen[0].done, seen[0].eta_s, seen[-1].done, seen[-1].eta_s) == (0, None, 6, 0.0)
    assert outcome.work_s > 0
    assert outcome.cpu_s > 0
    (tmp_path / "s" / "parts" / "0000005.parquet").unlink()
    seen.clear()
    sweep(plan, folder=tmp_path / "s", workers=1, on_progress=seen.append)
    assert [(one.done, one.resumed) for one in seen] == [(5, 5), (6, 5)]


def test_versions_name_the_code_and_what_it_stands_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = versions("simulation.backtest.plan:make_plan")
    assert found.keys() == {"marginline", "code", "python", "machine", "numpy", "scipy", "numba"}
    monkeypatch.syspath_prepend(str(tmp_path))
    model = tmp_path / "a_model_of_mine.py"
    model.write_text("X = 1\n", encoding="utf-8")
    before = code_sha256("a_model_of_mine")
    model.write_text("X = 2\n", encoding="utf-8")
    assert len({before, code_sha256("a_model_of_mine"), code_sha256("simulation.types")}) == 3
    assert code_sha256("nowhere.at_all") == code_sha256("simulation.types")
    assert json.dumps(found)


def test_a_sweep_has_the_scenarios_paths_and_seed_unless_it_is_told_others(
    inside: Inside, tmp_path: Path
) -> None:
    (tmp_path / "book.toml").write_text(BOOK, encoding="utf-8")
    file = tmp_path / "small.toml"
    file.write_text(SCENARIO.replace("paths = 2", "paths = 3\nseed = 5"), encoding="utf-8")
    words = ("sweep", str(file), "--over", "prices.volatility=1.0,2.0", "--workers", "1")
    own = inside(*words, "--out", str(tmp_path / "own"), "--json").json()
    assert (own["paths"], own["seed"], own["rows"]) == (3, 5, 6)
    assert own["taken_from"] == {"paths": "the scenario's", "seed": "the scenario's"}
    told = inside(*words, "--out", str(tmp_path / "told"), "--paths", "2", "--seed", "1")
    assert "2 points, 2 paths each (--paths), seed 1 (--seed)" in told.out
    assert "bad debt, US dollars" in told.out
    again = inside(*words, "--out", str(tmp_path / "own"))
    assert "3 paths each (the scenario's), seed 5 (the scenario's), 0 tasks" in again.out


@pytest.mark.parametrize(
    ("column", "value", "text"),
    [
        ("bad_debt_usd", 1_234_567.0, "1.23 M"),
        ("bad_debt_usd", -45_600.0, "-45.60 k"),
        ("time_to_clear_s", 5_400.0, "90 min"),
        ("liquidations", 1_234.0, "1,234"),
        ("loss", 0.123456, "0.1235"),
        ("loss", float("nan"), "unknown"),
        ("bad_debt_usd", float("inf"), "unknown"),
    ],
)
def test_figures_are_in_the_unit_of_their_column(column: str, value: float, text: str) -> None:
    assert figure_text(column, value) == text


def test_columns_have_their_names_for_people() -> None:
    assert column_text("bad_debt_var_99_usd") == "bad debt var 99, US dollars"
    assert column_text("time_to_clear_s") == "time to clear"
