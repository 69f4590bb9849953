"""Scenario files as users write them, from the file to the report, in this process and in others."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from simulation.replay.build import run_replay
from simulation.replay.record import ReplayRecord, replay_record_from_json
from tests.command_line import ROOT, Inside, environment
from tests.replay_scenario import scenario

GUIDE = ROOT / "docs" / "oracle.md"

SHOW = """
from simulation.replay.build import run_replay
from tests.replay_scenario import scenario
print(run_replay(scenario(), tool_version="test").to_json(), end="")
"""


@pytest.fixture(scope="module")
def record() -> ReplayRecord:
    return run_replay(scenario(), tool_version="test")


def test_the_feed_stays_at_its_bound(record: ReplayRecord) -> None:
    last = record.timeline[-1].feeds["COIN/USD"]
    assert last.raw is not None
    assert 0.10 <= float(last.raw) < 0.11
    assert last.truth == "0.01"
    assert "G06" in {f.guard for f in record.fired}


def test_its_expectations_come_true(record: ReplayRecord) -> None:
    assert [c.ok for c in record.checks] == [True, True, True], record.checks


def test_the_attacker_gains_only_where_nobody_guards(record: ReplayRecord) -> None:
    assert record.economics is not None
    assert float(record.economics.unguarded.attacker_profit_usd) > 100_000
    assert record.economics.guarded.attacker_profit_usd == "0.00"
    assert record.economics.truthful.attacker_profit_usd == "0.00"


@pytest.mark.parametrize("seed", ["0", "4242"])
def test_another_process_says_the_same_bytes(record: ReplayRecord, seed: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SHOW],
        cwd=ROOT,
        env=environment(PYTHONHASHSEED=seed),
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert done.stdout == record.to_json()


def example(name: str) -> str:
    """Return a file that the guide shows."""
    text = GUIDE.read_text(encoding="utf-8")
    (found,) = re.findall(rf"(?s)<!-- example: {re.escape(name)} -->\n```\w+\n(.*?)```", text)
    return str(found)


def test_the_guides_own_scenario_replays_from_its_own_csv(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    prices = tmp_path / "prices.csv"
    prices.write_text(example("prices.csv"), encoding="utf-8")
    digest = hashlib.sha256(prices.read_bytes()).hexdigest()
    file = tmp_path / "scenario.toml"
    file.write_text(example("scenario.toml").replace("SHA256", digest), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    ran = Inside(monkeypatch, capsys)("oracle", "replay", "./scenario.toml", "--json", "--out", "report")
    assert ran.code == 0, ran.err
    record = replay_record_from_json((tmp_path / "report" / "report.json").read_bytes())
    assert record.passed
    assert [d.sha256 for d in record.data] == [digest]
    assert record.timeline[-1].feeds["COIN/USD"].truth == "0.88"
