"""From a replay of prices to its record: summary, expectations, market, guards alone, and the same bytes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import pytest

from contracts_abi.errors import DataError, InputError
from oracle.guards import basic_guards
from simulation.replay.build import run_replay
from simulation.replay.finding import severity
from simulation.replay.matrix import calibration, thresholds
from simulation.replay.record import CheckRow, ReplayRecord
from simulation.report.oracle_html import render_replay_html
from simulation.report.oracle_md import render_replay_md
from simulation.report.oracle_poc import render_poc
from tests.replay_standin import END, FEED, START, STEP_S, Expect, scenario, stand_in


@pytest.fixture(autouse=True, scope="module")
def _standing_in() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        stand_in(patch)
        yield


@pytest.fixture(scope="module")
def record(_standing_in: None) -> ReplayRecord:
    return run_replay(scenario(), tool_version="test")


def bare(**changes: Any) -> ReplayRecord:
    """The record without the guards alone."""
    return run_replay(scenario(**changes), tool_version="test", matrix=False)


# --------------------------------------------------------------------------------------------------- summary


def test_the_summary_says_when_how_far_and_how_long(record: ReplayRecord) -> None:
    (summary,) = record.summaries
    assert summary.first_divergence == START + 3 * STEP_S
    assert (summary.max_deviation_bps, summary.max_deviation_at) == ("84691", START + 7 * STEP_S)
    # Five steps until the last one, which is the end and lasts no time.
    assert summary.mispriced_s == 5 * STEP_S
    assert (summary.detected_by, summary.detection_delay_s) == (("G06", "G07"), 0)
    assert summary.accepted_mispriced_s == 0
    assert summary.tolerance_bps == 100


def test_a_tolerance_of_the_policy_goes_first() -> None:
    policy = SimpleNamespace(harm_tolerance_bps=5_000, guards=basic_guards())
    (summary,) = bare(policy=policy).summaries
    assert summary.tolerance_bps == 5_000
    assert summary.first_divergence == START + 5 * STEP_S


def test_without_a_guard_a_wrong_price_stands_and_is_counted() -> None:
    deaf = tuple(g for g in basic_guards() if g.kind in ("no_data", "non_positive", "stale"))
    (summary,) = bare(policy=SimpleNamespace(harm_tolerance_bps=None, guards=deaf)).summaries
    assert summary.detected_at is None
    assert summary.detection_delay_s is None
    assert summary.accepted_mispriced_s == summary.mispriced_s > 0


def test_no_answer_is_neither_right_nor_wrong() -> None:
    silent = bare(says=lambda i, true: None if i > 2 else true)
    (summary,) = silent.summaries
    assert (summary.mispriced_s, summary.missing_s) == (0, 5 * STEP_S)
    assert summary.first_divergence is None
    cell = silent.timeline[-1].feeds[FEED]
    assert (cell.raw, cell.deviation_bps, cell.status, cell.reason) == (None, None, "missing", "reverted")


# ------------------------------------------------------------------------------------------------- economics


def test_three_runs_tell_the_oracles_part_of_the_loss(record: ReplayRecord) -> None:
    assert record.economics is not None
    lost = {
        name: Fraction(getattr(record.economics, name).bad_debt_usd)
        for name in ("unguarded", "guarded", "truthful")
    }
    assert lost["unguarded"] > lost["guarded"] > lost["truthful"]
    assert record.economics.unguarded.attacker_profit_usd == "70800.00"
    assert record.economics.guarded.attacker_profit_usd == "0.00"
    assert record.economics.model == "generic loan-to-value model standing in for compound v2"
    assert record.economics.exact is False
    assert "the scenario names no keeper: one without limits is assumed" in record.economics.notes


def test_a_refusal_carries_the_guards_words(record: ReplayRecord) -> None:
    assert record.economics is not None
    refused = [a for a in record.economics.guarded.actions if a.deed == "borrow_refused"]
    assert "G07 moved" in refused[0].detail


def test_without_a_market_nothing_is_lent() -> None:
    record = bare(protocol=None)
    assert record.economics is None
    assert record.finding.impact == "Published loss of the incident: $11.20 m."


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"positions": (SimpleNamespace(id="a", collateral={"DOGE": 1}, debt={}),)},
            "DOGE is lent or supplied without a market",
        ),
        (
            {"positions": (SimpleNamespace(id="attacker", collateral={}, debt={}),)},
            "two accounts are called 'attacker'",
        ),
        (
            {"assets": {"USDC": SimpleNamespace(decimals=6, pair=None)}},
            "protocol.markets.COIN: no such asset",
        ),
    ],
)
def test_a_market_that_does_not_hold_together_is_one_line(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        bare(**changes)
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------------------------------------- guards alone


def test_each_guard_alone(record: ReplayRecord) -> None:
    assert record.matrix is not None
    rows = {row.guard: row for row in record.matrix.alone}
    assert set(rows) == {"G03", "G04", "G05", "G06", "G07"}
    assert rows["G06"].verdict == "reduces"
    assert rows["G06"].covered_bps == 10_000
    assert rows["G04"].verdict == "no effect"
    assert rows["G04"].covered_bps == 0
    # Alone it does not stop the saver's loss, since it refuses liquidations too; the attacker's it does.
    assert record.economics is not None
    assert rows["G06"].bad_debt_usd == record.economics.guarded.bad_debt_usd


def test_thresholds_are_moved_and_marked(record: ReplayRecord) -> None:
    assert record.matrix is not None
    bound = [p for p in record.matrix.sweep if p.guard == "G06"]
    assert [p.value for p in bound] == ["250", "500", "1000", "2000", "4000"]
    assert [p.value for p in bound if p.default] == ["1000"]
    # 0.107 is 7 % above the minimum of 0.10.
    assert [p.first_fired is None for p in bound] == [True, True, False, False, False]


def test_every_threshold_is_one_that_the_guard_takes() -> None:
    for guard in basic_guards():
        tried = thresholds(guard)
        for name in {name for name, _, _ in tried}:
            assert sum(own for n, _, own in tried if n == name) == 1


def test_progress_ends_where_it_said_it_would() -> None:
    told: list[tuple[str, int, int]] = []
    run_replay(scenario(), tool_version="test", on_progress=lambda *what: told.append(what))
    for name in ("prices and guards", "accounts, guarded", "each guard alone"):
        done = [(i, n) for what, i, n in told if what == name]
        assert done[-1][0] == done[-1][1]
        assert [i for i, _ in done] == sorted(i for i, _ in done)


# ---------------------------------------------------------------------------------------------- expectations

LATE = END - STEP_S + 1


@pytest.mark.parametrize(
    ("expect", "ok"),
    [
        (Expect("guard", id="G06"), True),
        (Expect("guard", id="G06", feed=FEED, by=START + 2 * STEP_S, action="REJECT"), True),
        (Expect("guard", id="G06", by=START + 2 * STEP_S - 1), False),
        (Expect("guard", id="G06", action="clamp"), False),
        (Expect("guard", id="G10"), False),
        (Expect("reported", at=LATE, op="==", value="0.107"), True),
        (Expect("reported", at=LATE, op="==", value="0.11"), True),  # as exact as it was written
        (Expect("reported", at=LATE, op="==", value="0.108"), False),
        (Expect("reported", at=LATE, op="==", value="0.1", tolerance_bps=700), True),
        (Expect("reported", at=LATE, op="==", value="0.1", tolerance_bps=699), False),
        (Expect("deviation_bps", op="==", value=84_691), True),
        (Expect("deviation_bps", at=START, op="==", value=0), True),
        (Expect("deviation_bps", feed=FEED, at=LATE, op="<", value=0), False),
        (Expect("minutes_mispriced", op="==", value=50), True),
        (Expect("bad_debt_usd", op=">", value="424185"), False),
        (Expect("bad_debt_usd", op="==", value="424185"), True),
        (Expect("bad_debt_usd", op="<=", value="1", with_="guarded"), False),
        (Expect("wrongly_liquidated_usd", op="==", value=0), True),
        (Expect("attacker_profit_usd", op=">=", value="70800"), True),
        (Expect("attacker_profit_usd", op="<=", value=0, with_="guarded"), True),
    ],
)
def test_each_kind_of_expectation(expect: Expect, ok: bool) -> None:
    row = checked(expect)
    assert row.ok is ok, row
    assert row.text
    assert row.expected


def checked(*expect: Expect, **changes: Any) -> CheckRow:
    (row,) = run_replay(scenario(*expect, **changes), tool_version="test", matrix=False).checks
    return row


def test_no_answer_meets_no_expectation() -> None:
    def silent(i: int, true: Fraction) -> Fraction | None:
        return None

    row = checked(Expect("reported", at=START, op="==", value="0.3"), says=silent)
    assert (row.ok, row.actual) == (False, "no answer: reverted")
    row = checked(Expect("deviation_bps", op=">", value=1), says=silent)
    assert (row.ok, row.actual) == (False, "no answer")


@pytest.mark.parametrize(
    ("expect", "says"),
    [
        (Expect("bad_debt_usd"), r"expect\.0 \(bad_debt_usd\): needs op and value"),
        (Expect("reported", op="==", value="1"), "needs the time that it is about"),
        (
            Expect("reported", at=END + 1, op="==", value="1"),
            "is outside the clock; a time from 2022-05-12T08",
        ),
        (Expect("reported", at=START - 1, op="==", value="1"), "is outside the clock"),
        (Expect("bad_debt_usd", op="<", value="lots"), "value 'lots' is not a number"),
        (
            Expect("minutes_mispriced", feed="X/USD", op="<", value=1),
            "X/USD is no feed that the protocol reads",
        ),
        (Expect("weather", at=START), "no such assertion"),
    ],
)
def test_what_cannot_be_answered_is_one_line(expect: Expect, says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        checked(expect)
    assert "\n" not in str(caught.value)


def test_figures_of_a_market_need_a_market() -> None:
    with pytest.raises(InputError, match="the scenario has no lending market; add"):
        checked(Expect("bad_debt_usd", op="<", value="1"), protocol=None)


# --------------------------------------------------------------------------------------------------- finding


def test_the_finding_is_written_from_the_figures(record: ReplayRecord) -> None:
    finding = record.finding
    assert finding.title.endswith("COIN/USD is +846.91 % off and is believed")
    assert finding.severity == "Medium"
    assert "SOL-Defi-Oracle-14" in finding.checklist_ids
    assert "$424,185" in finding.impact
    assert "says 0.107 while the price is 0.0113" in finding.description
    assert finding.references == ("post-mortem",)


@pytest.mark.parametrize(
    ("mechanism", "loss", "level"),
    [("scale", True, "High"), ("bound", True, "Medium"), ("scale", False, "Low"), ("", True, "Medium")],
)
def test_severity_by_rule(mechanism: str, loss: bool, level: str) -> None:
    assert severity(mechanism, loss=loss)[0] == level


# ----------------------------------------------------------------------------------------------- calibration

POINT = {"threshold": 1000, "false_alarms": 0, "observations": 10, "misses": 1, "faults": 4}
CALIBRATION = {
    "bound": {
        "parameter": "epsilon_bps",
        "default": 1000,
        "points": [POINT | {"set": "calm", "part": "shown"}],
    },
    "left_out": {"sequencer": "no uptime feed"},
}


def test_a_calibration_is_read() -> None:
    points, left_out = calibration(json.dumps(CALIBRATION))
    assert [(p.guard, p.threshold, p.default, p.misses) for p in points] == [("bound", "1000", True, 1)]
    assert left_out == {"sequencer": "no uptime feed"}


@pytest.mark.parametrize("text", ["", "[]", "{", '{"bound": 3}', '{"bound": {"points": [{}]}}'])
def test_a_broken_calibration_is_told(text: str) -> None:
    with pytest.raises(DataError, match="not in its format"):
        calibration(text)


# ----------------------------------------------------------------------------------------------------- bytes


def test_two_replays_give_the_same_bytes(record: ReplayRecord) -> None:
    again = run_replay(scenario(), tool_version="test")
    assert again.to_json() == record.to_json()
    assert render_replay_md(again) == render_replay_md(record)
    assert render_replay_html(again) == render_replay_html(record)
    assert render_poc(again) == render_poc(record)


def test_the_record_names_no_path_and_no_time_of_its_own(record: ReplayRecord) -> None:
    text = record.to_json()
    assert "/work" not in text
    assert "/home" not in text
    assert str(__file__) not in text
