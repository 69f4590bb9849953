"""Parameters that are not known well: the ends of their ranges, and how far results go between them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contracts_abi.errors import InputError, UnknownNameError
from simulation.contagion.causes import columns
from simulation.contagion.scenario import Scenario, build_scenario, load_scenario, read_table
from simulation.contagion.spread import KEY_FIGURES, range_ends, spread_record
from simulation.types import Float64
from tests.command_line import Inside

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
DEPTH = "channels.impact.tokens.WETH.per_dollar"


def crash(*uncertain: dict[str, Any]) -> Scenario:
    table = read_table(EXAMPLES / "crash.toml")
    return build_scenario(table, EXAMPLES, {"uncertain": list(uncertain), "steps": 140, "paths": 2})


def test_each_end_is_a_run_and_so_are_all_of_one_side() -> None:
    shock = {"key": "shocks.0.move", "low": -0.1, "high": -0.05}
    found = range_ends(crash({"key": DEPTH, "low": 3e-8, "high": 12e-8}, shock), EXAMPLES)
    assert found == {
        f"low {DEPTH}": {DEPTH: 3e-8},
        f"high {DEPTH}": {DEPTH: 12e-8},
        "low shocks.0.move": {"shocks.0.move": -0.1},
        "high shocks.0.move": {"shocks.0.move": -0.05},
        "all low": {DEPTH: 3e-8, "shocks.0.move": -0.1},
        "all high": {DEPTH: 12e-8, "shocks.0.move": -0.05},
    }


@pytest.mark.parametrize(
    ("uncertain", "error", "text"),
    [
        ([], InputError, "names no range"),
        ([{"key": DEPTH, "low": 7e-8, "high": 9e-8}], InputError, "not in"),
        ([{"key": DEPTH, "low": 1e-8, "high": 5e-8}], InputError, "not in"),
        ([{"key": DEPTH, "low": 1e-8, "high": 9e-8}] * 2, InputError, "has a range already"),
        ([{"key": DEPTH + "s", "low": 1e-8, "high": 9e-8}], UnknownNameError, "per_dollar"),
        ([{"key": "shocks.99.move", "low": -0.2, "high": -0.1}], UnknownNameError, "99"),
        ([{"key": "name", "low": 1, "high": 2}], InputError, "the key of a number"),
        ([{"key": "shocks.0.move", "low": -2.0, "high": 0.0}], InputError, "low shocks.0.move"),
        (
            [{"key": "prices.jump_mean", "low": -9.0, "high": 0.0}],
            InputError,
            "low prices.jump_mean: .*beyond 5",
        ),
        ([{"key": DEPTH, "low": 9e-8, "high": 1e-8}], InputError, "low < high"),
    ],
)
def test_a_range_that_makes_no_sense_is_refused(
    uncertain: list[dict[str, Any]], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text) as caught:
        range_ends(crash(*uncertain), EXAMPLES)
    assert "\n" not in str(caught.value)


def test_an_end_whose_market_could_not_open_is_refused_before_anything_runs() -> None:
    market = {"model": "cont-schaanning", "depth_usd": 1e7, "floor_price": 500.0}
    key = "channels.impact.tokens.WETH.floor_price"
    table = read_table(EXAMPLES / "crash.toml")
    over = {
        "channels.impact.tokens.WETH": market,
        "uncertain": [{"key": key, "low": 0.0, "high": 2_000.0}],
    }
    scenario = build_scenario(table, EXAMPLES, over)
    with pytest.raises(InputError, match=rf"uncertain, high {key}: .*no sale takes its price of 2500"):
        range_ends(scenario, EXAMPLES)


def test_the_spread_is_from_the_least_to_the_most() -> None:
    scenario = crash({"key": DEPTH, "low": 3e-8, "high": 12e-8})

    def table(bad: list[float]) -> dict[str, Float64]:
        return {name: np.array(bad) * (k + 1) for k, name in enumerate(KEY_FIGURES)}

    found = spread_record(
        scenario, table([1.0, 3.0]), {"low x": table([0.0, 2.0]), "high x": table([1.0, 7.0])}
    )
    bad = found["figures"]["bad_debt_usd"]
    assert (bad["value"], bad["least"], bad["most"]) == (2.0, 1.0, 4.0)
    assert (bad["least_at"], bad["most_at"]) == ("low x", "high x")
    assert found["figures"]["bad_debt_es_99_usd"]["most"] == 7.0
    assert found["ends"]["high x"]["liquidated_usd"]["change"]["value"] == 4.0
    assert found["ranges"] == [{"key": DEPTH, "low": 3e-8, "high": 12e-8}]
    alone = spread_record(scenario, table([1.0, 3.0]), {})
    assert alone["figures"]["bad_debt_usd"]["least_at"] == "the scenario"


def test_a_thinner_market_liquidates_more() -> None:
    scenario = crash({"key": DEPTH, "low": 1e-8, "high": 12e-8})
    ends = range_ends(scenario, EXAMPLES)
    table = read_table(EXAMPLES / "crash.toml") | {"steps": 140}
    runs = {name: columns(build_scenario(table, EXAMPLES, over).run, 7, 2) for name, over in ends.items()}
    found = spread_record(scenario, columns(replace(scenario.run), 7, 2), runs)
    own = found["figures"]["liquidated_usd"]
    assert own["least"] < own["value"] < own["most"]
    assert own["most_at"] in (f"high {DEPTH}", "all high")


def test_the_bundled_example_runs_all_of_its_ends(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    scenario = load_scenario(EXAMPLES / "uncertain.toml")
    keys = [entry.key for entry in scenario.file.uncertain]
    assert len(keys) == 3
    assert len(range_ends(scenario, EXAMPLES)) == 2 * len(keys) + 2
    words = ("--spread", "--paths", "2", "--workers", "1", "--out", str(tmp_path / "out"))
    ran = Inside(monkeypatch, capsys)("simulate", str(EXAMPLES / "uncertain.toml"), *words)
    assert ran.code == 0, ran.err
    assert "over the plausible ranges" in ran.out
    assert "bad debt, US dollars" in ran.out
    record = json.loads((tmp_path / "out" / "record.json").read_text(encoding="utf-8"))
    assert [one["key"] for one in record["spread"]["ranges"]] == keys
    sold = record["spread"]["figures"]["liquidated_usd"]
    assert sold["least"] < sold["value"] < sold["most"]
