"""The benchmarks' arithmetic and their one report; that each runs is in tests/chain/test_bench_runs.py."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCH = Path(__file__).resolve().parents[2] / "scripts" / "bench"


@pytest.fixture(scope="module")
def common() -> ModuleType:
    """Return what the benchmarks share, as a module."""
    spec = importlib.util.spec_from_file_location("bench_common", BENCH / "_common.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_ratios_are_taken_turn_by_turn(common: ModuleType) -> None:
    # The second turn was slow for both: the medians' ratio would be 6, each turn's is 2 or 3.
    ratio = common.ratios([2.0, 60.0, 4.0], [1.0, 20.0, 2.0])
    assert (ratio.median, ratio.min, ratio.max) == (2.0, 2.0, 3.0)


def test_a_summary_reads_as_median_and_range(common: ModuleType) -> None:
    assert common.Summary.of([3.0, 1.0, 2.0]).text() == "2.00 (1.00-3.00)"
    assert common.Summary.of([3.0]).text(1) == "3.0"
    assert common.Summary.of([1.0, 3.0]).scaled(1_000).text() == "2,000 (1,000-3,000)"


@pytest.mark.parametrize(
    ("value", "limits", "met"),
    [
        (7.0, {"at_least": 7}, True),
        (6.9, {"at_least": 7}, False),
        (0.5, {"at_most": 0.5}, True),
        (0.51, {"at_most": 0.5}, False),
        (1.0, {}, None),
    ],
)
def test_a_headline_is_held_against_what_is_asked_for(
    common: ModuleType, value: float, limits: dict[str, float], met: bool | None
) -> None:
    assert common.Headline("speed", common.Summary.of([value]), "x", **limits).met is met


def test_a_race_gives_every_contestant_every_turn(common: ModuleType) -> None:
    order: list[str] = []
    taken, _ = common.race({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 3, 0.0)
    assert order == ["a", "b", *["a", "b"] * 3]  # once to warm up
    assert [len(times) for times in taken.values()] == [3, 3]


def test_a_report_is_read_back_as_it_was_written(
    common: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = common.Headline("speed", common.Summary.of([8.0, 9.0]), "x", at_least=7, note="on paper")
    target = tmp_path / "out.json"
    common.run("paper", lambda: common.Report((line,), {"turns": 2}), target)
    written = json.loads(target.read_text(encoding="utf-8"))
    assert common.headline_from(written["headlines"][0]) == line
    assert written["headlines"][0]["met"] is True
    assert written["machine"].keys() >= {"cores", "load", "load_after", "python", "processor"}
    assert "8.50 (8.00-9.00) x" in capsys.readouterr().out


def run_bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(BENCH), *arguments], capture_output=True, text=True, check=False
    )


def test_the_runner_puts_all_into_one_document(tmp_path: Path) -> None:
    target = tmp_path / "all.json"
    done = run_bench("screen", "--quick", "--json", str(target))
    assert done.returncode == 0, done.stderr
    assert "Benchmarks" in done.stdout
    (document,) = json.loads(target.read_text(encoding="utf-8"))["benches"]
    assert document["bench"] == "screen"
    assert len(document["headlines"]) >= 2  # the third needs a system that tells of free cores


def test_guards_over_columns_are_raced_against_their_own_checks(tmp_path: Path) -> None:
    target = tmp_path / "oracle.json"
    done = run_bench("oracle", "--quick", "--json", str(target))
    assert done.returncode == 0, done.stderr  # every judgement is compared before anything is timed
    (document,) = json.loads(target.read_text(encoding="utf-8"))["benches"]
    assert document["figures"]["observations"] == 500
    assert len(document["figures"]["guards"]) == 13


def test_the_margin_kernels_are_raced_against_what_a_user_would_write(tmp_path: Path) -> None:
    target = tmp_path / "margin.json"
    done = run_bench("margin", "--quick", "--json", str(target))
    assert done.returncode == 0, done.stderr  # every result is compared before anything is timed
    (document,) = json.loads(target.read_text(encoding="utf-8"))["benches"]
    assert document["figures"]["grid"]["error_of_forward"] < 5e-15
    assert len(document["headlines"]) == 6


def test_a_sweep_is_raced_against_the_standard_pools(tmp_path: Path) -> None:
    target = tmp_path / "sweep.json"
    done = run_bench("sweep", "--quick", "--json", str(target))
    assert done.returncode == 0, done.stderr  # every result is compared
    (document,) = json.loads(target.read_text(encoding="utf-8"))["benches"]
    assert document["figures"]["workers"].keys() == {"1", "2"}
    assert len(document["headlines"]) == 2


def test_an_unknown_benchmark_is_refused_with_the_known_ones() -> None:
    done = run_bench("speed")
    assert done.returncode == 2
    known = "contagion, lens, margin, option_accounts, oracle, path, screen, start, sweep"
    assert f"no benchmark 'speed'; there are {known}" in done.stderr
