"""The calibration of the guards: the defaults keep its rule, and real prices give the same counts again."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from oracle.columns import columns_of
from oracle.guards import guards
from oracle.types import FeedKind, PriceObs
from simulation.replay.matrix import calibration

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data"
FOUND: dict[str, Any] = json.loads((ROOT / "oracle" / "calibration.json").read_text(encoding="utf-8"))
CURVES = sorted(set(FOUND) - {"left_out"})

BY_CONVENTION = {"future": "there is no pull oracle in these data, and 60 s is what those are allowed"}


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("calibrate", ROOT / "scripts" / "calibrate_guards.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_every_guard_has_a_curve_or_a_reason_for_none() -> None:
    assert sorted([*CURVES, *FOUND["left_out"]]) == sorted(guards)
    assert all(FOUND["left_out"].values())


@pytest.mark.parametrize("kind", CURVES)
def test_the_default_keeps_the_rule_and_is_shown_on_the_other_part(kind: str) -> None:
    entry = FOUND[kind]
    if kind not in BY_CONVENTION:
        assert entry["default"] in entry["admissible"]
    shown = [p for p in entry["points"] if p["part"] == "shown on" and p["threshold"] == entry["default"]]
    assert {p["set"] for p in shown} >= {"calm"}
    for p in shown:
        assert p["observations"] > 2_000
        assert p["faults"] > 200
        # What was quiet where it was chosen stays so: at most one look in three hundred, in crashes.
        assert p["false_alarms"] <= (0 if p["set"] == "calm" else p["observations"] / 300)


def test_the_replay_tells_the_curve() -> None:
    points, left_out = calibration()
    assert {p.guard for p in points} == set(CURVES)
    assert sum(p.default for p in points if p.guard == "stale") == 2
    assert left_out == FOUND["left_out"]


def test_faults_are_put_into_the_rounds_of_their_own_part(script: ModuleType) -> None:
    times = np.arange(0, 1_000 * 3_600, 3_600, dtype=np.int64)
    rounds = columns_of([PriceObs("E", "U", 5, 0, FeedKind.PUSH, "a", int(t), int(t)) for t in times])
    rng = np.random.default_rng(1)
    early = script.Window("calm", "chosen on", 0, 400 * 3_600)
    late = script.Window("calm", "shown on", 400 * 3_600, 1_000 * 3_600)
    at = [script.drawn_rounds(rng, rounds, window, 11) for window in (early, late)]
    assert [(int(rows.min()) >= low, int(rows.max()) < high) for rows, low, high in zip(
        at, (11, 411), (400, 1_000), strict=True
    )] == [(True, True)] * 2  # fmt: skip
    assert all(len(rows) > 200 for rows in at)
    assert len(script.drawn_rounds(rng, rounds, script.Window("calm", "", 10**9, 2 * 10**9), 11)) == 0


def test_the_rule_prefers_silence_and_then_the_fewest_misses(script: ModuleType) -> None:
    def point(threshold: int, name: str, alarms: int, misses: int, part: str = "chosen on") -> dict[str, Any]:
        count = script.Count(1_000, alarms, 10, misses)
        made: dict[str, Any] = script.point(threshold, name, part, count)
        return made

    points = [
        *(point(1, "calm", 1, 0), point(1, "crash", 0, 0)),
        *(point(2, "calm", 0, 1), point(2, "crash", 21, 0)),
        *(point(3, "calm", 0, 1), point(3, "crash", 20, 1)),
        *(point(4, "calm", 0, 2), point(4, "crash", 0, 0)),
        *(point(5, "calm", 0, 2), point(5, "crash", 0, 1)),
        point(5, "calm", 900, 9, "shown on"),
    ]
    assert script.admissible(points, script.Fraction(1, 50)) == [3, 4]
    assert script.admissible(points, script.Fraction(0)) == [4]


@pytest.mark.skipif(
    not DATA.is_dir(), reason=f"no folder {DATA}: the real prices are not part of the project"
)
@pytest.mark.parametrize("kind", ["stale", "rollback", "cross_dev", "unit", "hardcoded"])
def test_real_prices_give_the_same_counts_again(script: ModuleType, kind: str) -> None:
    (curve,) = (c for c in script.CURVES if c.kind == kind)
    again = script.calibrate(script.load(DATA), [curve])
    assert again[kind] == FOUND[kind]


@pytest.mark.skipif(
    not DATA.is_dir(), reason=f"no folder {DATA}: the real prices are not part of the project"
)
def test_the_real_row_without_data_is_no_price(script: ModuleType) -> None:
    """The dump of ETH/USD holds the round that a phase begins with, which was never written."""
    eth, btc = script.load(DATA)
    assert (len(eth.rounds), len(btc.rounds)) == (11_106, 10_691)
    assert eth.rounds.has_data.all()
    assert int(eth.rounds.published_at[1:].min()) > 1_680_000_000
