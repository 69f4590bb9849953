"""The backtest on real days: what docs/coverage.md says comes out again, and nothing looks ahead."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data"
there = pytest.mark.skipif(not (DATA / "hourly").is_dir(), reason=f"no recorded prices in {DATA}")


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "coverage_backtest", ROOT / "scripts" / "coverage_backtest.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def days(script: ModuleType) -> Any:
    return script.days_of(script.load(DATA))


def hourly(script: ModuleType, hours: int, missing: slice) -> Any:
    """Return seeded prices from a midnight on, some of them missing."""
    steps = np.random.default_rng(8).normal(0, 0.01, (hours, 2))
    closes = 100 * np.exp(np.cumsum(steps, axis=0))
    closes[missing] = np.nan
    return script.Prices(86_400 * 20 + 3_600 * np.arange(hours), closes)


def test_no_return_spans_a_gap_and_windows_do_not_overlap(script: ModuleType) -> None:
    prices = hourly(script, 24 * 700, slice(24 * 450, 24 * 500))
    found = script.days_of(prices)
    assert len(found.starts) == 699 - 50 - 1
    assert found.segment.tolist() == [0] * 449 + [1] * 199
    row = 10
    assert found.returns[row] == pytest.approx(np.log(prices.closes[24 * 11] / prices.closes[24 * 10]))
    for length in (1, 2):
        rows = script.tested(found, length)
        assert (np.diff(found.starts[rows]) >= length * 86_400).all()
        assert rows[0] == script.LOOKBACK
        after = rows[found.segment[rows] == 1]
        assert after[0] == 449 + script.SETTLED


def test_a_margin_sees_nothing_of_its_own_window(script: ModuleType) -> None:
    prices = hourly(script, 24 * 400, slice(0, 0))
    plain = script.backtest(script.days_of(prices), 1, script.FAST)
    prices.closes[24 * 380 + 1 :] *= 0.5
    crashed = script.backtest(script.days_of(prices), 1, script.FAST)
    for one, other in zip(plain, crashed, strict=True):
        at = int(np.flatnonzero(one.starts == 86_400 * 20 + 86_400 * 380)[0])
        assert (one.var[: at + 1] == other.var[: at + 1]).all()
        assert (one.profits[:at] == other.profits[:at]).all()
        if one.portfolio == "long ETH":
            assert other.profits[at] < one.profits[at] - 0.3
            assert other.lowest[at] <= other.profits[at]


@there
def test_the_fast_methods_of_the_guide_come_out_again(script: ModuleType, days: Any) -> None:
    guide = (ROOT / "docs" / "coverage.md").read_text(encoding="utf-8").splitlines()
    for length in (1, 2):
        found = script.backtest(days, length, script.FAST)
        assert len(found[0].starts) == {1: 2_395, 2: 1_197}[length]
        for backtest in found:
            assert script.row_of(backtest) in guide


@there
def test_the_crashes_are_in_the_guide_with_what_was_lost(script: ModuleType, days: Any) -> None:
    guide = (ROOT / "docs" / "coverage.md").read_text(encoding="utf-8")
    long_eth = script.backtest(days, 1, {"scan": script.FAST["scan ±15 %"]})[0]
    by_day = {script.day(int(t)): -p for t, p in zip(long_eth.starts, long_eth.profits, strict=True)}
    for date, loss in (
        ("2020-03-12", 0.446),
        ("2021-05-19", 0.277),
        ("2022-06-13", 0.157),
        ("2025-10-10", 0.123),
    ):
        assert by_day[date] == pytest.approx(loss, abs=0.001)
        assert f"{date} {script.percent(by_day[date])} over" in guide


@there
def test_the_slow_methods_come_out_again_in_part(script: ModuleType, days: Any) -> None:
    guide = (ROOT / "docs" / "coverage.md").read_text(encoding="utf-8")
    row = int(np.flatnonzero([script.day(int(t)) == "2020-03-12" for t in days.starts])[0])
    history = days.returns[row - script.LOOKBACK : row]
    found = script.monte_carlo(history, 0, 1.0)["long ETH"]
    assert "| Monte-Carlo t-copula | long ETH | 2 |" in guide
    assert f"44.60 % over {script.percent(found.var)}" in guide
    # Fitted at other windows than this one in the guide, so near it and not equal.
    garch = script.garch_fhs()(history, 0, 1.0)["long ETH"]
    assert 0.11 < garch.var < 0.18
