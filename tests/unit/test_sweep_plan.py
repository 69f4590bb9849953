"""What a sweep computes: axes from the command line, points and chunks, ids that mean the same everywhere."""

from __future__ import annotations

import datetime
import hashlib
import json
import math
from typing import Any

import pytest

from contracts_abi.errors import DataError, InputError
from simulation.backtest.plan import (
    Axis,
    SweepPlan,
    differences,
    leaves,
    make_plan,
    parse_over,
    plan_from_document,
)

SCENARIO: dict[str, Any] = {
    "days": 3,
    "market": {"shock": 0.1, "model": "gbm", "frozen": False, "cap": None},
    "protocols": [{"name": "aave-v3", "close_factor": 0.5}, {"name": "morpho", "close_factor": 1.0}],
    "quoted.key": 1.0,
    "list": [],
}


def planned(*over: str, scenario: dict[str, Any] = SCENARIO, **options: Any) -> SweepPlan:
    return make_plan(scenario, over, **({"task": "model:run", "paths": 10, "seed": 1, "chunk": 4} | options))


# ---------------------------------------------------------------------------------------------------- --over


@pytest.mark.parametrize(
    ("text", "key", "values"),
    [
        ("days=1,2, 30", "days", (1, 2, 30)),
        ("days=1:9:3", "days", (1, 5, 9)),
        ("market.shock=1,0.5", "market.shock", (1.0, 0.5)),
        ("market.shock=0.1:0.3:3", "market.shock", (0.1, 0.2, 0.3)),  # the floats nearest to the decimals
        ("market.shock=1:0:2", "market.shock", (1.0, 0.0)),
        ("market.model=gbm,merton", "market.model", ("gbm", "merton")),
        ('market.model="a,b",c:d', "market.model", ("a,b", "c:d")),
        ("market.frozen=true,false", "market.frozen", (True, False)),
        ("market.cap=1,2.5,none", "market.cap", (1, 2.5, "none")),
        ("protocols.1.close_factor=0.25", "protocols.1.close_factor", (0.25,)),
        (' "quoted.key" =2', '"quoted.key"', (2.0,)),
    ],
)
def test_values_have_the_scenarios_own_type(text: str, key: str, values: tuple[Any, ...]) -> None:
    axis = parse_over(text, SCENARIO)
    assert axis == Axis(key, values)
    assert [type(value) for value in axis.values] == [type(value) for value in values]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("days", "--over 'days': no key and values; write --over key=a,b,c or key=0:1:5"),
        ("=1", "--over '=1': no key and values; write --over key=a,b,c or key=0:1:5"),
        ("market.shok=1", "--over market.shok: unknown key 'market.shok'; did you mean 'market.shock'"),
        ("shock=1", "--over shock: unknown key 'shock'; did you mean 'market.shock'?"),
        ("protocols.2.close_factor=1", "--over protocols.2.close_factor: unknown key"),
        ("market=1", "--over market: is a table or an array; sweep one of its values: market.shock,"),
        ("list=1", "--over list: is an empty list or table in the scenario; sweep one value"),
        ("days=0.5", "--over days: must be a whole number, got '0.5'; write days = 3.0 in the scenario if"),
        ("days=1:2:3", "--over days: 1:2:3 does not fall on whole numbers; choose a count that does"),
        ("days=1:2:1", "--over days: a range is start:stop:count with count from 2, got '1'"),
        ("market.shock=high", "--over market.shock: must be a number, got 'high'"),
        ("market.shock=nan", "--over market.shock: must be a number, got 'nan'"),
        ("market.shock=0:inf:3", "--over market.shock: must be a number, got 'inf'"),
        ("market.frozen=1", "--over market.frozen: must be true or false, got '1'"),
        ("days=1,,2", "--over days: '1,,2' has an empty value; write key=a,b,c"),
        ("days=", "--over days: '' has an empty value; write key=a,b,c"),
        ("days=1,2,1", "--over days: 1 stands there twice; give each value once"),
        ("market.frozen=false,false", "--over market.frozen: a value stands there twice"),
        ("a b=1", "--over a b: is not a key of TOML; write it as a.b or a.0.b"),
    ],
)
def test_what_cannot_be_swept_is_refused_on_one_line(text: str, says: str) -> None:
    with pytest.raises(InputError) as refused:
        parse_over(text, SCENARIO)
    assert str(refused.value).startswith(says)


# --------------------------------------------------------------------------------------------- points, tasks


def test_every_combination_with_the_last_axis_fastest() -> None:
    plan = planned("days=1,2", "market.model=a,b,c")
    assert (plan.points, plan.chunks, plan.tasks) == (6, 3, 18)
    points = [tuple(plan.parameters(point).values()) for point in range(6)]
    assert points == [(1, "a"), (1, "b"), (1, "c"), (2, "a"), (2, "b"), (2, "c")]
    with pytest.raises(IndexError):
        plan.parameters(6)


def test_zipped_axes_advance_together() -> None:
    plan = planned("days=1,2", "market.model=a,b", zipped=True)
    assert [tuple(plan.parameters(point).values()) for point in range(plan.points)] == [(1, "a"), (2, "b")]
    with pytest.raises(
        InputError, match=r"^--zip needs as many values of each key: days has 2, market\.model has 3"
    ):
        planned("days=1,2", "market.model=a,b,c", zipped=True)
    with pytest.raises(InputError, match="--zip: nothing is varied"):
        planned(zipped=True)


def test_a_plan_without_axes_is_one_point() -> None:
    plan = planned()
    assert (plan.points, plan.tasks, plan.parameters(0)) == (1, 3, {})
    assert plan.task_at(2).name == "task 2 (paths 8-9)"


def test_tasks_cover_each_path_of_each_point_once() -> None:
    plan = planned("days=1,2")
    tasks = [plan.task_at(index) for index in range(plan.tasks)]
    assert [(task.point, path) for task in tasks for path in task.paths] == [
        (point, path) for point in range(2) for path in range(10)
    ]
    assert [task.index for task in tasks] == list(range(6))
    assert len({task.id for task in tasks}) == 6


def test_a_task_has_a_scenario_of_its_own() -> None:
    plan = planned("protocols.1.close_factor=0.25", '"quoted.key"=2')
    first = plan.task_at(0).scenario
    assert first["protocols"][1] == {"name": "morpho", "close_factor": 0.25}
    assert first["protocols"][0] == SCENARIO["protocols"][0]
    assert first["quoted.key"] == 2.0
    first["protocols"][1]["close_factor"] = 9.0
    assert plan.task_at(0).scenario["protocols"][1]["close_factor"] == 0.25
    assert SCENARIO["protocols"][1]["close_factor"] == 1.0


def test_the_same_work_has_the_same_id_in_another_grid() -> None:
    small, large = planned("days=2", paths=8), planned("days=1,2", paths=12)
    assert [small.task_id(i) for i in range(2)] == [large.task_id(i) for i in (3, 4)]
    # The third chunk has two paths here and four there.
    assert planned(paths=10).task_id(2) != planned(paths=12).task_id(2)


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 2},
        {"task": "model:walk"},
        {"data_sha256": {"book": "00"}},
        {"versions": {"code": "00"}},
        {"scenario": SCENARIO | {"days": 4}},
        {"chunk": 5},
    ],
)
def test_whatever_a_result_may_depend_on_is_in_the_id(other: dict[str, Any]) -> None:
    assert planned().task_id(0) != planned(**other).task_id(0)


def test_ids_are_those_of_earlier_runs() -> None:
    # Spelled out: another way to make ids would turn every part on disk into a foreign one.
    def digest(value: Any) -> str:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()

    shared = {
        "schema": "marginline-sweep/1",
        "task": "model:run",
        "seed": 1,
        "scenario_sha256": digest(SCENARIO),
        "data_sha256": {},
        "versions": {"code": "aa"},
    }
    of = {"shared": digest(shared), "parameters": {"days": 2}, "paths": [4, 8]}
    assert planned("days=1,2", versions={"code": "aa"}).task_id(4) == digest(of)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"task": "model.run"}, "task: 'model.run' is not the name of a function; write module:function"),
        ({"paths": 0}, "paths: must be at least 1, got 0"),
        ({"chunk": 0}, "chunk: must be at least 1, got 0"),
        ({"seed": -1}, "seed: must be at least 0, got -1"),
        ({"scenario": {"a": {"b": math.inf}}}, "a.b: must be a finite number, got inf"),
        ({"scenario": {"a": [b"x"]}}, "a.0: a bytes cannot stand in a scenario; write it as text"),
        (
            {"paths": 100_001, "chunk": 1},
            "1 points of 100,001 chunks are 100,001 tasks, and 100,000 is the most; make --chunk larger",
        ),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError) as refused:
        planned(**options)
    assert str(refused.value).startswith(says)


def test_a_key_is_swept_once() -> None:
    with pytest.raises(InputError, match=r"^--over days: given twice; put all its values into one --over$"):
        planned("days=1,2", " days =3")


def test_dates_become_text() -> None:
    plan = planned(scenario={"day": datetime.date(2024, 8, 5), "n": 1})
    assert plan.scenario_at(0) == {"day": "2024-08-05", "n": 1}


# ------------------------------------------------------------------------------------------------ plan.json


def test_a_plan_is_read_back_as_it_was_written() -> None:
    plan = planned("market.shock=0.1:0.3:3", "market.frozen=true", versions={"code": "aa"})
    again = plan_from_document(json.loads(json.dumps(plan.document())), "plan.json")
    assert again == plan
    assert [again.task_id(i) for i in range(plan.tasks)] == [plan.task_id(i) for i in range(plan.tasks)]
    assert type(again.axes[1].values[0]) is bool


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"schema": "other"}, "is not the plan of a sweep"),
        ({"paths": "many"}, "is not a whole plan"),
        ({"axes": [{"key": "days"}]}, "is not a whole plan"),
        ({"axes": [{"key": "days", "values": [None]}]}, "is not a whole plan"),
        ({"scenario": {"days": 4}}, "was changed since it was written"),
    ],
)
def test_a_plan_that_was_changed_is_told(change: dict[str, Any], says: str) -> None:
    document = planned("days=1,2").document() | change
    with pytest.raises(DataError, match=says):
        plan_from_document(document, "plan.json")


def test_differences_are_named_with_both_values() -> None:
    was = planned("days=1,2", versions={"code": "a" * 64}, data_sha256={"book": "x"})
    market = SCENARIO["market"] | {"shock": 0.2}
    now = planned("days=1,3", seed=2, versions={"code": "b" * 64}, scenario=SCENARIO | {"market": market})
    assert differences(now, was) == (
        "seed is 2, and was 1",
        "the swept values are days=1,3, and were days=1,2",
        "the scenario has another market.shock",
        "data book is missing, and was x",
        "version code is bbbbbbbbbbbb…, and was aaaaaaaaaaaa…",
    )
    assert differences(was, was) == ()


def test_leaves_are_named_as_toml_names_them() -> None:
    assert list(leaves(SCENARIO)) == [
        "days",
        "market.shock",
        "market.model",
        "market.frozen",
        "market.cap",
        "protocols.0.name",
        "protocols.0.close_factor",
        "protocols.1.name",
        "protocols.1.close_factor",
        '"quoted.key"',
        "list",
    ]
